"""A real season: the WorldCereal patch of Flanders, from its NetCDF files to the shipped models' maps."""

import numpy as np
import pytest
import sits
from conftest import DATA, REPOSITORY, facts, read

FOLDER = DATA / "worldcereal_patch_2018"


@pytest.fixture(scope="module")
def patch(tmp_path_factory):
    """The patch as GeoTIFF stacks with dates."""
    if not FOLDER.is_dir():
        pytest.skip(f"no real images in {DATA} (set OTBTORCH_DATA): {FOLDER} is absent")
    from otbtorch.recipes import worldcereal

    folder = tmp_path_factory.mktemp("patch")
    assert not worldcereal.main([str(FOLDER), str(folder)])
    return folder


def inputs(folder, sentinel1):
    """Sentinel-2 with its scene classification, and Sentinel-1 at 20 m."""
    words = dict(
        il=folder / "s2_10m.tif", dates=folder / "s2_dates.txt",
        maskl=folder / "s2_scl.tif", masktype="scl",
    )  # fmt: skip
    if sentinel1:
        words.update(il2=folder / "s1_20m.tif", dates2=folder / "s1_dates.txt")
    return words


@pytest.mark.parametrize(
    "model, sentinel1, card",
    [("sits-s1s2-crops", True, 0.908), ("sits-s2-crops", False, 0.907)],
)
def test_the_shipped_model_maps_the_patch_as_its_card_says(
    model, sentinel1, card, patch, tmp_path
):
    from otbtorch.recipes import train_sits_default as recipe

    paths = {name: tmp_path / f"{name}.tif" for name in ("out", "confmap", "features", "nvalid")}
    model_file = REPOSITORY / "data" / "models" / f"{model}.pt"
    sits.run(model=model_file, **inputs(patch, sentinel1), **paths).ok()

    labels, truth = read(paths["out"]), recipe.reference(str(patch))
    image, found = facts(patch / "s2_10m.tif"), facts(paths["out"])
    assert (found.width, found.height, found.epsg) == (image.width, image.height, "32631")
    assert found.transform == image.transform
    held_out = recipe.parts(0, truth.shape) == 2
    chosen = held_out & (truth > 0)
    assert chosen.sum() == 982  # the card's number of test pixels
    assert abs((labels == truth)[chosen].mean() - card) < 0.003
    confidence = read(paths["confmap"])
    assert (confidence >= 1 / 3 - 1e-6).all() and (confidence <= 1).all()
    assert np.isfinite(read(paths["features"])).all()
    counts = read(paths["nvalid"])
    assert counts.min() > 20
