"""Maps of time series do not depend on how they are made: streaming, memory, threads, files.

Comparisons are of all pixels of all outputs, bit for bit, with one run in one block.
"""

import datetime

import numpy as np
import pytest
from conftest import stripes, tiles
from osgeo import gdal
from sits import (
    HEIGHT,
    NODATA,
    S2_BANDS,
    WIDTH,
    case_of,
    pixels,
    same,
    simulation,
    together,
    write_raster,
)

__all__ = ["case_of", "simulation"]  # fixtures

# A network of pixels, of windows with two sensors, of patches cut and of patches blended.
MODELS = ["ltae_any", "twinns", "ubarn", "utae"]
WINDOW = (7, 9, 41, 29)
ONE_BLOCK = "?&streaming:type=none"
BOX = "?&box=" + ":".join(map(str, WINDOW))

# Name: options of the outputs, parameters.
WAYS = {
    "plain": ("", {}),
    "ram8_one_thread_stripes7": (stripes(7), dict(threads=1, ram=8)),
    "ram64_tiles16": (tiles(16), dict(ram=64)),
    "box": (BOX, dict(threads=1)),
    "box_tiles16": (tiles(16) + BOX[1:], dict(ram=8)),
    "out_alone_stripes11": (stripes(11), dict(outputs=["out"])),
    "probamap_alone_tiles16": (tiles(16), dict(outputs=["probamap"])),
}


@pytest.fixture(scope="module")
def reference_of(case_of, tmp_path_factory):
    """Function: pixels of all outputs of a model in one block."""
    made = {}

    def reference(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("reference")
            paths, done = case_of(name).run(folder, options=ONE_BLOCK)
            assert done.blocks() == 1
            made[name] = pixels(paths)
        return made[name]

    return reference


@pytest.fixture(scope="module")
def ways_of(case_of, tmp_path_factory):
    """Function: ``{way: (pixels, run)}`` of a model; runs are made together."""
    made = {}

    def one(name, way, folder):
        options, more = WAYS[way]
        paths, done = case_of(name).run(folder, options=options, prefix=way, **more)
        return pixels(paths), done

    def ways(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("ways")
            case_of(name)
            made[name] = together({w: lambda w=w: one(name, w, folder) for w in WAYS})
        return made[name]

    return ways


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_all_outputs_are_the_same(name, way, ways_of, reference_of):
    found, done = ways_of(name)[way]
    if "tiles" in way or "stripes" in way:
        assert done.blocks() > 1
    same(found, reference_of(name), WINDOW if "box" in way else None)


def test_reference_holds_several_classes_and_no_data(reference_of):
    for name in MODELS:
        counts = np.unique(reference_of(name)["out"], return_counts=True)
        assert counts[0][0] == 0 and (counts[1] > 10).sum() >= 4


# ---------------------------------------------------------------------------------------------
# Files

LAYOUTS = {
    "stripes": ["INTERLEAVE=PIXEL", "BLOCKYSIZE=1"],
    "tiles": ["TILED=YES", "BLOCKXSIZE=16", "BLOCKYSIZE=16"],
    "bands": ["INTERLEAVE=BAND"],
    "compressed": ["COMPRESS=DEFLATE", "TILED=YES", "BLOCKXSIZE=32", "BLOCKYSIZE=32"],
}


@pytest.mark.parametrize("name", ["ltae_any", "ubarn"])
def test_the_layout_of_files_does_not_matter(name, case_of, simulation, reference_of, tmp_path):
    case, values = case_of(name), simulation.s2.values

    def one(layout):
        file = write_raster(
            tmp_path / f"{layout}.tif", values, nodata=NODATA, options=LAYOUTS[layout]
        )
        return pixels(case.run(tmp_path, prefix=layout, il=file)[0])

    layouts = list(LAYOUTS) if name == "ltae_any" else ["tiles", "bands"]
    for found in together({k: lambda k=k: one(k) for k in layouts}).values():
        same(found, reference_of(name))


@pytest.mark.parametrize("name", ["tempcnn_linear", "utae"])
def test_the_order_of_files_does_not_matter(name, case_of, simulation, reference_of, tmp_path):
    """Dates come from the names, or from a file in the order of the list or of time."""
    case, f = case_of(name), simulation.s2.files
    order = np.random.default_rng(4).permutation(12)
    images = [f["images"][k] for k in order]
    masks = [f["masks"][k] for k in order]
    shuffled = tmp_path / "shuffled.txt"
    shuffled.write_text("\n".join(f"{simulation.s2.dates[k]:%Y-%m-%d}" for k in order))
    plain = [tmp_path / f"{chr(97 + j)}.tif" for j in range(12)]
    for link, image in zip(plain, images):
        link.symlink_to(image)
    ways = {
        "names": dict(il=images),
        "names and masks": dict(il=images, maskl=masks),
        "file": dict(il=images, dates=f["dates"], datesfrom=None),
        "shuffled file": dict(il=images, dates=shuffled, datesfrom=None, maskl=masks[::-1]),
        "places": dict(il=plain, dates=shuffled, datesfrom=None, maskl=masks),
    }
    if name == "utae":
        ways = {k: ways[k] for k in ("names and masks", "shuffled file")}
    found = together(
        {
            k: lambda k=k, w=w: pixels(case.run(tmp_path, prefix=k, **w)[0])
            for k, w in ways.items()
        }
    )
    for one in found.values():
        same(one, reference_of(name))


def test_a_stack_and_an_image_per_date_are_the_same(case_of, simulation, reference_of, tmp_path):
    f = simulation.s2.files
    for name, parameters in {
        "ltae_any": dict(il=f["images"], dates=None, bands=None, datesfrom="names"),
        "tempcnn_linear": dict(il=f["stack"], dates=f["dates"], bands=S2_BANDS, datesfrom=None),
    }.items():
        paths, _ = case_of(name).run(tmp_path, prefix=name, **parameters)
        same(pixels(paths), reference_of(name))


@pytest.mark.parametrize("name", ["ltae_any", "ltae_max", "tempcnn_grid", "tempcnn_linear"])
def test_a_date_without_a_valid_pixel_changes_nothing(
    name, case_of, simulation, reference_of, tmp_path
):
    """Bit for bit on a grid; a network that is told of dates may add in another order."""
    s2 = simulation.s2
    date = datetime.date(2020, 6, 2)
    at = sorted(s2.dates + [date]).index(date)
    if name == "tempcnn_linear":
        # Its number of dates is fixed: the date that is all clouds may hold anything.
        images, masks = list(s2.files["images"]), s2.files["masks"]
        images[7] = write_raster(
            tmp_path / f"{s2.dates[7]:%Y%m%d}.tif",
            np.random.default_rng(1).uniform(0, 9000, (10, HEIGHT, WIDTH)),
            names=S2_BANDS,
        )
        paths, _ = case_of(name).run(tmp_path, il=images, maskl=masks)
        return same(pixels(paths), reference_of(name))
    values = np.insert(s2.values, at, 4321, axis=0)
    valid = np.insert(s2.valid, at, False, axis=0)
    parameters = dict(
        dates=tmp_path / "d.txt",
        masktype="valid",
        maskl=write_raster(tmp_path / "m.tif", valid, gdal.GDT_Byte),
    )
    case = case_of(name)
    parameters["in" if "in" in case.parameters else "il"] = write_raster(
        tmp_path / "s.tif", values, nodata=NODATA
    )
    dates = sorted(s2.dates + [date])
    parameters["dates"].write_text("\n".join(f"{d:%Y%m%d}" for d in dates))
    found, wanted = pixels(case.run(tmp_path, **parameters)[0]), reference_of(name)
    if name == "tempcnn_grid":
        return same(found, wanted)
    same({"nvalid": found["nvalid"]}, wanted)
    close = wanted["margin"] < 1e-4
    assert ((found["out"] == wanted["out"]) | close).all()
    for output in ("confmap", "entropy", "margin", "features"):
        difference = np.abs(found[output] - wanted[output]).max()
        assert difference < (1e-5 if output == "features" else 2e-6), output
