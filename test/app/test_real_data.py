"""Real pairs: Sentinel-2 bands in separate files (OSCD), aerial photographs (LEVIR-CD).

The networks have random weights: what is tested is that real files go in and come out.
"""

import numpy as np
import pytest
from conftest import DATA, assert_fewest_calls, facts, read, run, stripes

BANDS = ("B02", "B03", "B04", "B08")  # those at 10 m
WHY = f"no real images in {DATA} (set OTBTORCH_DATA)"


def oscd(city):
    """``{"in1": [paths], "in2": [paths]}`` of a pair; skips where it is absent."""
    folder = DATA / "oscd" / "images" / city
    if not folder.is_dir():
        pytest.skip(f"{WHY}: {folder} is absent")
    lists = {}
    for date in (1, 2):
        found = [sorted((folder / f"imgs_{date}").glob(f"*_{band}.tif")) for band in BANDS]
        assert all(len(f) == 1 for f in found), f"bands of date {date} in {folder}: {found}"
        lists[f"in{date}"] = [f[0] for f in found]
    return lists


def valid_pixels(lists):
    """Where some band of each date is not 0 (these files declare no no-data value)."""
    valid = True
    for files in lists.values():
        bands = np.stack([read(f) for f in files])
        valid = valid & (bands != 0).any(axis=0)
    return valid


@pytest.mark.parametrize("city, model", [("rennes", "unet_sem.pt"), ("beirut", "unet.pt")])
def test_sentinel_2_pair_gives_a_map_on_its_grid(city, model, models, tiling_of, tmp_path):
    lists = oscd(city)
    names = ["out", "proba", "conf"] + (["sem1", "sem2"] if model == "unet_sem.pt" else [])
    paths = {name: tmp_path / f"{name}.tif" for name in names}
    done = run(model=models / model, **lists, **paths).ok()
    image, valid = facts(lists["in1"][0]), valid_pixels(lists)
    for name, path in paths.items():
        found = facts(path)
        assert (found.width, found.height, found.bands) == (image.width, image.height, 1)
        assert np.allclose(found.transform, image.transform, rtol=1e-12, atol=0), name
        assert (found.epsg, image.epsg) == ("4326", "4326")
        pixels = read(path)
        if name in ("proba", "conf"):
            assert (found.kind, found.nodata) == ("Float32", -1)
            assert ((pixels == -1) == ~valid).all()
            assert (pixels[valid] >= 0).all() and (pixels[valid] <= 1).all()
        else:
            assert (found.kind, found.nodata) == ("Byte", 255)
            assert ((pixels == 255) == ~valid).all()
            allowed = {"out": range(17 if model == "unet_sem.pt" else 2)}.get(name, range(1, 5))
            assert set(np.unique(pixels[valid])) <= set(allowed), name
    assert valid.mean() > 0.9
    assert_fewest_calls(done, tiling_of(model), valid)


def test_sentinel_2_pair_is_the_same_in_stripes(models, tmp_path):
    lists = oscd("rennes")
    maps = []
    for options in ("", stripes(31)):
        path = tmp_path / "proba.tif"
        out = f"{tmp_path}/out.tif{options}"
        run(model=models / "unet.pt", out=out, proba=f"{path}{options}", **lists).ok()
        maps.append(read(path))
    assert (maps[0] == maps[1]).all()


def test_bands_of_another_resolution_are_resampled(models, tmp_path):
    """B05 lies on the 20 m grid (or was resampled: then the pair of sizes is equal)."""
    lists = oscd("rennes")
    other = sorted(lists["in1"][0].parent.glob("*_B05.tif"))[0]
    if facts(other).width == facts(lists["in1"][0]).width:
        pytest.skip(f"{other} was resampled to 10 m")
    lists["in1"][0] = other  # the map lies on the finest grid, whatever comes first
    out = tmp_path / "out.tif"
    done = run(model=models / "unet.pt", out=out, **lists).ok()
    assert "in1: 1 of its 4 file(s) with coarser pixels (2 times)" in done.text()
    found, wanted = facts(out), facts(lists["in1"][1])
    assert (found.width, found.height) == (wanted.width, wanted.height)


def test_pair_of_different_sizes_is_refused_with_both(models, tmp_path):
    lists = oscd("abudhabi")
    sizes = [facts(files[0]) for files in lists.values()]
    assert (sizes[0].width, sizes[0].height) != (sizes[1].width, sizes[1].height)
    done = run(model=models / "unet.pt", out=tmp_path / "out.tif", **lists)
    assert 0 < done.returncode < 128
    for f in sizes:
        assert f"size {f.width} x {f.height}" in done.text(), done.log
    assert lists["in2"][0].name in done.log and "Superimpose" in done.log
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def three_bands(tmp_path_factory):
    """A network over red, green and blue, 0 to 255."""
    import torch
    from otbtorch import change_detection, export, min_max, testing
    from otbtorch.models import SiameseUNet

    torch.set_num_threads(1)
    depth = testing.UNET_DEPTH
    net = testing.seeded(lambda: SiameseUNet(3, 4, depth), 41, 3, heads=["decoder.head"])
    contract = change_detection(
        "rgb",
        ["red", "green", "blue"],
        min_max(0, 255),
        patch=96,
        halo=testing.UNET_HALO,
        multiple=testing.UNET_MULTIPLE,
        license="CC0-1.0",
        training_data="none: random weights, for tests",
        architecture="test",
    )
    path = tmp_path_factory.mktemp("rgb") / "rgb.pt"
    export(net, contract, str(path))
    return path


def photographs(bands):
    """Pairs of LEVIR-CD whose files have so many bands; skips where the set is absent."""
    folder = DATA / "levir"
    if not folder.is_dir():
        pytest.skip(f"{WHY}: {folder} is absent")
    files = sorted((folder / "A").glob("*.png"))
    return [(f, folder / "B" / f.name) for f in files if facts(f).bands == bands]


def test_aerial_photographs_without_georeference_give_a_map(three_bands, tmp_path):
    pairs = photographs(3)
    assert len(pairs) >= 2
    for first, second in pairs[:2]:
        out, proba = tmp_path / f"{first.stem}.tif", tmp_path / f"{first.stem}_p.tif"
        run(in1=first, in2=second, model=three_bands, out=out, proba=proba).ok()
        found, wanted = facts(out), facts(first)
        assert (found.width, found.height) == (wanted.width, wanted.height)
        assert found.projection == "" and found.nodata == 255
        pixels, p = read(out), read(proba)
        assert set(np.unique(pixels)) <= {0, 1}
        assert ((pixels == 1) == (p >= 0.5)).all() and 0 < p.min() and p.max() < 1


def test_transparency_is_a_band_that_can_be_left_out(three_bands, tmp_path):
    """A file with a fourth band is refused with the option that chooses three."""
    image = photographs(4)[0][0]
    parameters = dict(in2=f"{image}?&bands=1,2,3", model=three_bands, out=tmp_path / "out.tif")
    done = run(in1=image, **parameters)
    assert 0 < done.returncode < 128
    assert "4 band(s); expected 3 (red green blue)" in done.text() and "?&bands=" in done.log
    run(in1=f"{image}?&bands=1,2,3", **parameters).ok()


def test_photographs_for_a_model_of_four_bands_are_refused(models, tmp_path):
    first, second = photographs(3)[0]
    done = run(in1=first, in2=second, model=models / "unet.pt", out=tmp_path / "out.tif")
    assert 0 < done.returncode < 128
    assert "3 band(s); expected 4 (B02 B03 B04 B08)" in done.text()
