"""The map does not depend on how it is made: streaming, memory, threads, windows, outputs.

Every comparison is of all pixels, bit for bit, with one run in one block.
"""

import numpy as np
import pytest
from conftest import (
    OUTPUTS,
    Scene,
    assert_fewest_calls,
    read,
    run,
    run_all,
    stripes,
    texture,
    tiles,
    write,
)

MODELS = ["unet.pt", "unet_sem.pt", "attention.pt"]


STRIPES_NB = "?&streaming:type=stripped&streaming:sizemode=nbsplits&streaming:sizevalue=5"
TILES_NB = "?&streaming:type=tiled&streaming:sizemode=nbsplits&streaming:sizevalue=7"
ONE_BLOCK = "?&streaming:type=none"

# Name: options of the outputs, parameters, does it make several blocks.
WAYS = {
    "none": (ONE_BLOCK, {}, False),
    "ram8": ("", dict(ram=8), None),
    "ram1": ("", dict(ram=1), True),
    "one_thread": ("", dict(threads=1), False),
    "tiled100": (tiles(100), {}, True),
    "tiled333": (tiles(333), {}, True),
    "tiles7": (TILES_NB, {}, True),
    "stripes17": (stripes(17), {}, True),
    "stripes5": (STRIPES_NB, {}, True),
    "stripes17_one_thread_ram8": (stripes(17), dict(threads=1, ram=8), True),
    "batch5": ("", dict(batch=5), False),
}
ALONE_WAYS = ["none", "ram1", "tiled100", "tiled333", "stripes17"]
WINDOWS = [(37, 53, 211, 189), (350, 300, 51, 47)]


def same(paths, reference, window=None):
    """Asserts that files hold the pixels of the reference, bit for bit."""
    for name, path in paths.items():
        found, wanted = read(path), reference[name]
        if window:
            x, y, w, h = window
            wanted = wanted[y : y + h, x : x + w]
        assert found.dtype == wanted.dtype and found.shape == wanted.shape, name
        different = found.view(f"u{found.itemsize}") != wanted.view(f"u{found.itemsize}")
        assert not different.any(), f"{name}: {different.sum()} of {different.size} pixels"


@pytest.fixture(scope="module")
def references(models, scene, tmp_path_factory):
    """Function: ``{output: pixels}`` of a model, in one block, on two threads."""
    made = {}

    def reference(model):
        if model not in made:
            folder = tmp_path_factory.mktemp("reference")
            paths, done = run_all(models / model, folder, scene)
            assert done.blocks() == 1
            made[model] = {name: read(path) for name, path in paths.items()}
        return made[model]

    return reference


@pytest.mark.parametrize("model", MODELS)
def test_reference_holds_change_and_no_change_and_no_data(model, references):
    """Otherwise the comparisons below would show little."""
    out = references(model)["out"]
    assert (out == 0).mean() > 0.05
    assert (out == 255).mean() > 0.05
    assert ((out > 0) & (out < 255)).mean() > 0.05


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", MODELS)
def test_all_outputs_are_the_same_with_the_fewest_model_calls(
    model, way, models, scene, tiling_of, references, tmp_path
):
    options, parameters, several = WAYS[way]
    paths, done = run_all(models / model, tmp_path, scene, options, **parameters)
    if several is not None:
        assert not several or done.blocks() > 1, done.log
    same(paths, references(model))
    assert_fewest_calls(done, tiling_of(model), scene.valid())


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("model", MODELS)
def test_a_window_of_all_outputs_is_cut_from_the_whole(
    model, window, models, scene, tiling_of, references, tmp_path
):
    options = "?&box=" + ":".join(map(str, window))
    paths, done = run_all(models / model, tmp_path, scene, options)
    same(paths, references(model), window)
    assert_fewest_calls(done, tiling_of(model), scene.valid(), window)


@pytest.mark.parametrize("model", MODELS)
def test_a_window_in_tiles_is_cut_from_the_whole(
    model, models, scene, tiling_of, references, tmp_path
):
    window = WINDOWS[0]
    options = tiles(64) + "&box=" + ":".join(map(str, window))
    paths, done = run_all(models / model, tmp_path, scene, options)
    assert done.blocks() > 1
    same(paths, references(model), window)
    assert_fewest_calls(done, tiling_of(model), scene.valid(), window)


@pytest.mark.parametrize("output", ["proba", "sem1", "sem2", "conf"])
def test_an_output_with_out_is_the_one_of_all_together(
    output, models, scene, references, tmp_path
):
    """``out`` is always written, so that this is how another output comes alone."""
    paths, _ = run_all(models / "unet_sem.pt", tmp_path, scene, outputs=["out", output])
    same(paths, references("unet_sem.pt"))


@pytest.mark.parametrize("way", ALONE_WAYS)
@pytest.mark.parametrize("model", MODELS)
def test_out_alone_is_the_one_of_all_together_with_the_fewest_model_calls(
    model, way, models, scene, tiling_of, references, tmp_path
):
    """One output goes through another of OTB's writers than several."""
    options, parameters, _ = WAYS[way]
    paths, done = run_all(
        models / model, tmp_path, scene, options, outputs=["out"], **parameters
    )
    assert way not in ("tiled100", "tiled333", "stripes17") or done.blocks() > 1
    same(paths, references(model))
    assert_fewest_calls(done, tiling_of(model), scene.valid())


@pytest.mark.parametrize("model", ["unet.pt", "attention.pt"])
def test_a_window_of_out_alone_is_cut_from_the_whole(
    model, models, scene, tiling_of, references, tmp_path
):
    window = WINDOWS[0]
    options = stripes(17) + "&box=" + ":".join(map(str, window))
    paths, done = run_all(models / model, tmp_path, scene, options, outputs=["out"])
    same(paths, references(model), window)
    assert_fewest_calls(done, tiling_of(model), scene.valid(), window)


def test_outputs_may_have_different_windows_of_one_size(models, scene, references, tmp_path):
    """Each output is then its own part of the one map, or the run says that it cannot be."""
    first, second = (10, 20, 120, 90), (200, 150, 120, 90)
    done = run(
        model=models / "unet.pt",
        out=f"{tmp_path}/out.tif?&box=" + ":".join(map(str, first)),
        proba=f"{tmp_path}/proba.tif?&box=" + ":".join(map(str, second)),
        **scene.parameters(),
    )
    if done.returncode:
        assert done.returncode < 128 and "(FATAL)" in done.log
        assert list(tmp_path.iterdir()) == []
        return
    same({"out": tmp_path / "out.tif"}, references("unet.pt"), first)
    same({"proba": tmp_path / "proba.tif"}, references("unet.pt"), second)


def test_two_runs_give_the_same_bytes(models, scene, tmp_path):
    """Files, not only pixels: nothing in them depends on time or chance."""
    for k in (1, 2):
        run_all(models / "unet_sem.pt", tmp_path, scene, prefix=str(k))
    for name in OUTPUTS["unet_sem.pt"]:
        first, second = (tmp_path / f"{k}{name}.tif" for k in (1, 2))
        assert first.read_bytes() == second.read_bytes(), name


def test_bands_in_separate_files_give_the_same_map(models, scene, references, tmp_path):
    """Image lists are concatenated, whatever the blocks of their files."""
    lists = {}
    for key, x in (("in1", scene.x1), ("in2", scene.x2)):
        lists[key] = [write(tmp_path / f"{key}_{b}.tif", x[b], nodata=0) for b in range(4)]
    out = tmp_path / "out.tif"
    run(model=models / "unet.pt", mask=scene.mask, out=out, **lists).ok()
    same({"out": out}, references("unet.pt"))


def test_an_image_smaller_than_a_patch_works(models, tmp_path):
    """Mirrors of mirrors fill the patch; stripes and one block agree."""
    rng = np.random.default_rng(3)
    x1, x2 = texture(rng, 4, 11, 19), texture(rng, 4, 11, 19)
    x1[:, :2, :5] = 0
    tiny = Scene(write(tmp_path / "1.tif", x1), write(tmp_path / "2.tif", x2), x1, x2)
    for model in ("unet.pt", "attention.pt"):
        names = ["out", "proba"]
        whole, _ = run_all(models / model, tmp_path, tiny, outputs=names, prefix="a")
        cut, done = run_all(models / model, tmp_path, tiny, stripes(3), outputs=names, prefix="b")
        assert done.blocks() > 1
        same(cut, {name: read(path) for name, path in whole.items()})
        assert ((read(whole["proba"]) >= 0) == tiny.valid()).all()
