"""Real pairs as users have them: band files at three resolutions, a known shift, photographs of different heights.

Skipped, saying so, where the real images are not.
"""

import numpy as np
import pytest
from conftest import DATA, facts, read, run, write
from test_pairs import export_model, moved, score, shifts  # noqa: F401

WHY = f"no real images in {DATA} (set OTBTORCH_DATA)"
SENTINEL = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A") + (
    "B09",
    "B10",
    "B11",
    "B12",
)


def oscd(city, bands):
    """``{"in1": [paths], "in2": [paths]}``; skips where the set is absent."""
    folder = DATA / "oscd" / "images" / city
    if not folder.is_dir():
        pytest.skip(f"{WHY}: {folder} is absent")
    found = {}
    for date in (1, 2):
        lists = [sorted((folder / f"imgs_{date}").glob(f"*_{band}.tif")) for band in bands]
        assert all(len(files) == 1 for files in lists)
        found[f"in{date}"] = [files[0] for files in lists]
    return found


@pytest.mark.parametrize("city", ["pisa", "abudhabi", "hongkong", "saclay_e"])
def test_thirteen_bands_of_sentinel_2_give_a_map_in_one_command(city, export_model, tmp_path):
    given = oscd(city, SENTINEL)
    same = city == "pisa"
    align = {} if same else dict(align="resample")
    done = run(model=export_model(13), out=tmp_path / "o.tif", **given, **align).ok()
    found, wanted = facts(tmp_path / "o.tif"), facts(given["in1"][1])
    assert (found.width, found.height) == (wanted.width, wanted.height)
    assert np.allclose(found.transform, wanted.transform, rtol=1e-12, atol=0)
    pixels = read(tmp_path / "o.tif")
    assert (pixels == 255).mean() < 0.01 and set(np.unique(pixels)) <= {0, 1, 255}
    assert "9 of its 13 file(s) with coarser pixels" in done.text() and len(shifts(done)) == 1


def test_a_known_shift_of_a_real_pair_is_measured_and_corrected(tmp_path):
    import likelihood

    given = oscd("rennes", ("B02", "B03", "B04", "B08"))
    label = DATA / "oscd" / "labels" / "rennes" / "cm" / "rennes-cm.tif"
    if not label.exists():
        pytest.skip(f"{WHY}: {label} is absent")
    truth = read(label) == 2
    away = []
    for file in given["in2"]:
        f = facts(file)
        band = moved(read(file)[None], 0.7, -1.3)
        path = write(tmp_path / file.name, band, transform=f.transform, epsg=4326)
        away.append(path)
    found, log = {}, {}
    for name, second, coreg in (
        ("as it is", given["in2"], "report"),
        ("moved", away, "report"),
        ("corrected", away, "shift"),
    ):
        paths = {n: tmp_path / f"{n}.tif" for n in ("out", "change")}
        options = dict(in1=given["in1"], in2=second, coreg=coreg, estimator="cva")
        done = likelihood.run(**paths, **options).ok()
        found[name] = score(truth, read(paths["change"]) == 1)
        log[name] = shifts(done)
    assert np.abs(np.subtract(log["moved"][0], (0.7, -1.3))).max() < 0.1, log
    assert np.abs(log["corrected"][1]).max() < 0.1, log
    assert found["moved"] < found["as it is"] - 0.1, found
    assert found["corrected"] > found["as it is"] - 0.03, found


def test_photographs_of_different_heights(export_model, tmp_path):
    folder = DATA / "levir"
    files = [folder / d / "test_113_0256.png" for d in "AB"]
    if not folder.is_dir():
        pytest.skip(f"{WHY}: {folder} is absent")
    first, second = facts(files[0]), facts(files[1])
    assert second.height == first.height - 1
    given = dict(zip(("in1", "in2"), (f"{f}?&bands=1,2,3" for f in files)))
    given.update(model=export_model(3, top=255), out=tmp_path / "o.tif")
    done = run(**given)
    assert 0 < done.returncode < 128
    assert f"size {second.width} x {second.height}" in done.text()
    run(align="resample", **given).ok()
    none = read(tmp_path / "o.tif") == 255
    assert none[-1].all() and not none[:-1].any()
    assert none.shape == (first.height, first.width)
