"""Real pairs: Sentinel-2 bands in separate files (OSCD), a Landsat pair (Taizhou).

No label is used by the application: scores are compared with them.
"""

import numpy as np
import pytest
from conftest import DATA, facts, read, stripes
from likelihood import maps, run, same
from sits import together
from test_real_data import WHY, oscd, valid_pixels


def quality(score, truth):
    """(area under the ROC curve, average precision) of scores with labels."""
    order = np.argsort(-score, kind="stable")
    hit = truth[order]
    positives, negatives = hit.sum(), (~hit).sum()
    values, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    area = (ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives)
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    return area, precision[hit].mean()


def labels(city):
    path = DATA / "oscd" / "labels" / city / "cm" / f"{city}-cm.tif"
    if not path.is_file():
        pytest.skip(f"{WHY}: {path} is absent")
    return read(path) == 2


@pytest.fixture(scope="module")
def beirut(tmp_path_factory):
    """Maps of each estimator of the pair, and its files."""
    lists = oscd("beirut")
    folder = tmp_path_factory.mktemp("beirut")

    def job(name, names, options="", **more):
        return lambda: maps(folder / name, names, options, **more, **lists)

    every = ["out", "pvalue", "change", "which"]
    jobs = {e: job(e, ["out"], estimator=e) for e in ("cva", "irmad", "siroc")}
    jobs["regress"] = job("regress", every)
    jobs["plain"] = job("plain", ["out"], smooth=0)
    jobs["stripes"] = job("stripes", every, stripes(93), ram=64, threads=1)
    return together(jobs), lists, folder


def test_sentinel_2_pair_is_told_from_its_labels(beirut):
    made, lists, _ = beirut
    truth, valid = labels("beirut"), valid_pixels(lists)
    found = {name: quality(m[0]["out"][valid], truth[valid]) for name, m in made.items()}
    area, precision = found["regress"]
    assert area >= 0.95 and precision >= 0.6, found
    for name in ("cva", "irmad", "siroc", "plain"):
        assert found[name][0] > 0.8, found
        assert precision > found[name][1], found


def test_sentinel_2_pair_gives_maps_on_its_grid(beirut):
    made, lists, folder = beirut
    image, valid = facts(lists["in1"][0]), valid_pixels(lists)
    for name, pixels in made["regress"][0].items():
        f = facts(folder / "regress" / f"{name}.tif")
        assert (f.width, f.height, f.epsg) == (image.width, image.height, image.epsg)
        assert np.allclose(f.transform, image.transform, rtol=1e-12, atol=0)
        assert (pixels != f.nodata)[valid].all(), name
    change = made["regress"][0]["change"]
    assert 0.001 < (change == 1).mean() < 0.2
    assert set(np.unique(made["regress"][0]["which"][valid])) == {1, 2}


def test_sentinel_2_pair_is_the_same_in_stripes(beirut):
    made = beirut[0]
    assert made["stripes"][1].blocks() > 1
    same(made["stripes"][0], made["regress"][0])


def test_bands_of_all_resolutions_are_taken_together(tmp_path):
    """10, 20 and 60 m in separate files: those of other pixel sizes are resampled."""
    lists = oscd("beirut")
    given = {}
    for key, files in lists.items():
        found = [sorted(files[0].parent.glob(f"*_{b}.tif")) for b in ("B8A", "B11", "B12", "B01")]
        given[key] = files + [f[0] for f in found]
    sizes = {facts(f).width for f in given["in1"]}
    if len(sizes) == 1:
        pytest.skip("all bands were resampled to 10 m")
    found, done = maps(tmp_path, ["out", "change"], **given)
    assert done.text().count("4 of its 8 file(s) with coarser pixels (2, 6 times)") == 2
    assert "8 and 8 bands" in done.log
    truth, valid = labels("beirut"), found["out"] != -9999
    area, precision = quality(found["out"][valid], truth[valid])
    assert valid.mean() > 0.99 and area > 0.95 and precision > 0.5, (area, precision)


def test_landsat_pair_is_told_from_its_labels(tmp_path):
    folder = DATA / "taizhou"
    if not folder.is_dir():
        pytest.skip(f"{WHY}: {folder} is absent")
    sampled = {}
    for name in ("change", "unchanged"):
        pixels = read(folder / f"{name}.bmp")
        sampled[name] = (pixels if pixels.ndim == 2 else pixels.max(0)) > 0
    known = sampled["change"] | sampled["unchanged"]
    assert known.sum() > 10000 and not (sampled["change"] & sampled["unchanged"]).any()
    files = dict(in1=folder / "2000TM", in2=folder / "2003TM")
    jobs = {
        e: lambda e=e: maps(tmp_path / e, ["out", "change"], estimator=e, **files)
        for e in ("regress", "cva", "irmad")
    }
    found = together(jobs)
    for name, (pixels, done) in found.items():
        assert "400 x 400 pixels" in done.log and pixels["out"].shape == (400, 400)
        area, precision = quality(pixels["out"][known], sampled["change"][known])
        assert area > 0.97 and precision > 0.92, (name, area, precision)
    detected = found["regress"][0]["change"] == 1
    assert detected[sampled["change"]].mean() > 5 * detected[sampled["unchanged"]].mean()
