"""What goes wrong with series is said clearly, and leaves nothing behind that looks finished.

A message names the option, what was found and what was expected. All runs of ``CASES`` are made
together, each with a folder of its own for what it writes.
"""

import json

import numpy as np
import pytest
from conftest import REPOSITORY, run as run_change
from osgeo import gdal
from sits import PROVENANCE, grid, run, together, write_raster
from test_errors import assert_refused

WIDTH, HEIGHT, STEPS = 9, 7, 3
BANDS = ["a", "b", "c", "d"]
CLASSES = [(1, "wheat"), (2, "maize"), (5, "forest")]


# ---------------------------------------------------------------------------------------------
# A small scene, and models that take it


def export_model(folder, name, inputs=None, classes=CLASSES, embedding=False, **more):
    """A linear classifier of the mean over time."""
    import torch
    from otbtorch import contract as c
    from otbtorch import export

    class Linear(torch.nn.Module):
        def __init__(self, bands, count):
            super().__init__()
            self.head = torch.nn.Linear(bands, count)

        def forward(self, x):
            return self.head(x.mean(1))

    class Latent(Linear):
        def forward(self, x):
            return self.head(x.mean(1)), x.mean(1)

    class Two(Linear):
        def forward(self, x, y):
            return self.head(torch.cat([x.mean(1), y.reshape(len(y), -1)], 1))

    inputs = inputs or [c.series("x", BANDS, None, gapfill="linear")]
    extra = {"latlon": 2, "static": 1, "sits": 1}.get(inputs[-1]["otb:role"], 0)
    two = len(inputs) == 2 and inputs[-1]["otb:role"] != "valid"
    torch.manual_seed(1)
    bands = len(inputs[0]["bands"])
    outputs = [c.output("y", "logits", classes=classes)]
    if two:
        module = Two(bands + extra, len(classes))
    elif embedding:
        module = Latent(bands, len(classes))
        outputs.append(c.output("e", "embedding", channels=bands))
    else:
        module = Linear(bands, len(classes))
    contract = c.time_series(name, inputs, outputs=outputs, **PROVENANCE, **more)
    export.export(module.eval(), contract, str(folder / f"{name}.pt"))
    return contract


def export_models(folder):
    from otbtorch import contract as c

    def series(name="x", bands=BANDS, scaling=None, **more):
        return c.series(name, bands, scaling, **{"gapfill": "linear", **more})

    export_model(folder, "any")
    export_model(folder, "latent", embedding=True)
    export_model(folder, "latent2", embedding=True)
    export_model(folder, "other", classes=[(1, "wheat"), (2, "maize"), (6, "rice")])
    export_model(folder, "wide", classes=[(1, "wheat"), (40000, "maize")])
    export_model(folder, "max2", [series(policy="max", steps=2)])
    export_model(folder, "fixed5", [series(steps=5)])
    export_model(folder, "scaled", [series(scaling=c.z_score(100, 10))])
    export_model(folder, "pair", [series(sensor=[1, 1, 2, 2])])
    export_model(folder, "grid", [series(gapfill="grid", grid=("2016-01-01", "2016-12-01", 30))])
    export_model(folder, "static", [series(), c.static("y", ["dem"], None)])
    export_model(folder, "where", [series(), c.latlon("y")])


def export_optional(folder):
    """Two series, the second of a sensor that may be absent."""
    import torch
    from otbtorch import contract as c
    from otbtorch import export

    class Net(torch.nn.Module):
        def forward(self, x, y, v):
            return x.mean(1)[:, :3] + y.mean(1) + v.mean(1)

    inputs = [
        c.series("x", BANDS, None, gapfill="linear"),
        c.series("y", ["e"], None, gapfill="linear", sensor=2),
        c.validity("v", "valid", granularity="band", of="y"),
    ]
    contract = c.time_series(
        "optional", inputs, classes=CLASSES, sensors=["one", ("two", True)], **PROVENANCE
    )
    export.export(Net().eval(), contract, str(folder / "optional.pt"))


def write_container(path):
    """A NetCDF file with two variables: subdatasets, no bands of its own."""
    out = gdal.GetDriverByName("netCDF").CreateMultiDimensional(str(path))
    root = out.GetRootGroup()
    y, x = root.CreateDimension("y", None, None, 7), root.CreateDimension("x", None, None, 9)
    kind = gdal.ExtendedDataType.Create(gdal.GDT_Float32)
    for name in ("one", "two"):
        array = root.CreateMDArray(name, [y, x], kind)
        array.Write(np.ones((7, 9), np.float32))
        array = None
    root = y = x = out = None


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Folder with all files that the cases name."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(2)
    values = rng.uniform(50, 150, (STEPS, 4, HEIGHT, WIDTH)).astype(np.float32)
    write_raster(folder / "stack.tif", values)
    for k in range(STEPS):
        write_raster(folder / f"i_2020010{k + 1}.tif", values[k])
        write_raster(folder / f"plain{k}.tif", values[k])
        write_raster(folder / f"m{k}.tif", values[k, 0] > 0, gdal.GDT_Byte)
    write_raster(folder / "again_20200101.tif", values[0])
    write_raster(folder / "two_bands.tif", values[0, :2])
    write_raster(folder / "masks2.tif", values[:2, 0] > 0, gdal.GDT_Byte)
    write_raster(folder / "nowhere.tif", values, epsg=None, transform=None)
    write_raster(folder / "no_crs.tif", values[:, :, :4, :5], epsg=None, transform=grid(20))
    write_raster(folder / "part.tif", values[:, :, :3, :4], transform=grid(20))
    far = (900000.0, 20.0, 0.0, 4800000.0, 0.0, -20.0)
    write_raster(folder / "far.tif", values[:, :, :4, :5], transform=far)
    write_raster(folder / "complex.tif", values, gdal.GDT_CFloat32)
    (folder / "corrupt.tif").write_bytes(b"II*\0" + bytes(100))
    whole = write_raster(folder / "big.tif", np.repeat(values, 40, 3).repeat(40, 2)).read_bytes()
    (folder / "truncated.tif").write_bytes(whole[: len(whole) // 2])
    write_container(folder / "container.nc")

    texts = {
        "dates": "20200101\n20200102\n20200103\n",
        "four": "20200101\n20200102\n20200103\n20200104\n",
        "five": "20200101\n20200102\n20200103\n20200104\n20200105\n",
        "unsorted": "20200102\n20200101\n20200103\n",
        "twice": "20200101\n# the same\n2020-01-01\n20200103\n",
        "unreadable": "20200101\n2020-13-01\n20200103\n",
        "empty": "# nothing\n\n",
        "later": "20200102\n20200103\n20200104\n",
        "ensemble": "latent.pt\nlatent2.pt\n",
        "differing": "any.pt\nother.pt\n",
        "missing": "any.pt\nabsent.pt\n",
        "same": "any.pt\nany.pt\n",
        "nobody": "# nothing\n",
    }
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
    for count, name in ((12, "stats"), (5, "short")):
        rows = "".join('<StatisticVector value="1" />' for _ in range(count))
        (folder / f"{name}.xml").write_text(
            '<?xml version="1.0" ?><FeatureStatistics>'
            f'<Statistic name="mean">{rows}</Statistic>'
            f'<Statistic name="stddev">{rows}</Statistic></FeatureStatistics>'
        )
    (folder / "nothing.xml").write_text('<?xml version="1.0" ?><FeatureStatistics />')

    export_models(folder)
    export_optional(folder)
    from otbtorch import contract as c

    nameless = c.read(folder / "any.pt").data
    del nameless["properties"]["mlm:output"][0]["classification:classes"][1]["name"]
    (folder / "nameless.json").write_text(json.dumps(nameless))
    return folder


# ---------------------------------------------------------------------------------------------
# Cases: what is changed (None: left out; texts that name files of the world are made paths), and
# what the message says.

IMAGES = ["i_20200101.tif", "i_20200102.tif", "i_20200103.tif"]
NAMES = dict(datesfrom="names", dates=None)
SECOND = dict(model="pair.pt", bands=BANDS, il2="stack.tif", dates2="dates.txt", bands2=BANDS)
CASES = {
    "dates of the wrong length, stack": (
        dict(dates="four.txt"),
        ["il (stack.tif): found 12 bands = 4 dates of 3", "16 = 4 dates of 4 (a b c d)", "-bands"],
    ),
    "dates that do not divide the bands": (
        dict(dates="five.txt"),
        ["found 12 bands, no multiple of 5 dates", "Check the dates file"],
    ),
    "dates of the wrong length, images": (
        dict(il=IMAGES, dates="four.txt"),
        ["dates: found 4 dates", "3, one an image of il"],
    ),
    "unsorted dates of a stack": (
        dict(dates="unsorted.txt"),
        ["dates: found 2020-01-01 after 2020-01-02", "ascending", "one image per date"],
    ),
    "a date twice": (
        dict(dates="twice.txt"),
        ["dates: found 2020-01-01 in lines 1 and 3", "each date once"],
    ),
    "a line that is no date": (
        dict(dates="unreadable.txt"),
        ['dates: found "2020-13-01" in line 2', "YYYYMMDD"],
    ),
    "no dates file": (dict(dates="none.txt"), ["dates: found", "none.txt", "cannot be read"]),
    "an empty dates file": (dict(dates="empty.txt"), ["dates: found no date in", "empty.txt"]),
    "no dates at all": (dict(dates=None), ["dates: found nothing", "-datesfrom names"]),
    "names without dates": (
        dict(NAMES, il=["plain0.tif", "plain1.tif", "plain2.tif"]),
        ['il: found "plain0.tif", a name without a date', "-dates"],
    ),
    "names with one date": (
        dict(NAMES, il=IMAGES + ["again_20200101.tif"]),
        ["2020-01-01 in the names of", "again_20200101.tif", "one image a date"],
    ),
    "two masks for three dates": (
        dict(NAMES, il=IMAGES, maskl=["m0.tif", "m1.tif"]),
        ["maskl: found 2 images", "3, one a date of il"],
    ),
    "a mask of two bands for three dates": (
        dict(maskl="masks2.tif"),
        ["maskl: found 2 band(s) in one image", "3, one a date of il"],
    ),
    "masks of two bands each": (
        dict(NAMES, il=IMAGES, maskl=["m0.tif", "masks2.tif", "m2.tif"]),
        ["maskl (masks2.tif): found 2 bands", "one: the validity of its date"],
    ),
    "a band that is missing": (
        dict(bands=["a", "b", "c", "x"]),
        ["il: found bands a b c x", "the band d", "-bands"],
    ),
    "a band named twice": (dict(bands=["a", "b", "c", "A"]), ["bands: found A twice"]),
    "images without the model's bands": (
        dict(NAMES, il=["two_bands.tif"], dates="dates.txt"),
        ["2 bands"],
    ),
    "too few names of bands": (
        dict(NAMES, il=IMAGES, bands=["a", "b", "c"]),
        ["bands: found 3 names", "4, one a band of il (i_20200101.tif)"],
    ),
    "a stack's | for images": (
        dict(NAMES, il=IMAGES, bands=["a", "b", "c", "|", "d"]),
        ["bands: found a |", "not a stack"],
    ),
    "more dates than the model takes": (
        dict(model="max2.pt"),
        ["il: found 3 dates", "at most 2", '"x"'],
    ),
    "another number of dates": (
        dict(model="fixed5.pt"),
        ["il: found 3 dates", "expected 5, the length", '"x"'],
    ),
    "sensors with other dates in one input": (
        dict(SECOND, dates2="later.txt"),
        ["il2: found 3 dates that are not those of il", '"x"', "in common"],
    ),
    "a sensor that is missing": (
        dict(model="pair.pt", bands=["a", "b", "x", "y"]),
        ["il2: found nothing", "the band c"],
    ),
    "a series without any sensor": (
        dict(model="optional.pt"),
        ['a series for the model\'s input "y"'],
    ),
    "a label above the type": (
        dict(model="wide.pt", out=("map.tif", "int16")),
        ["out: found pixels of type int16", "the label 40000 (maize)", "uint16"],
    ),
    "a class without a name": (
        dict(contract="nameless.json"),
        ["/properties/mlm:output/0/classification:classes/1/name"],
    ),
    "another number of classes": (
        dict(nbclasses=4),
        ["nbclasses: found 4", "3, the number of the model's classes"],
    ),
    "another number of classes asked for": (
        dict(nbclasses=3, classes=["1", "2"]),
        ["nbclasses: found 3", "2, the number of classes asked for"],
    ),
    "no-data that is a class": (
        dict(nodatalabel=5),
        ['nodatalabel: found 5, the label of the class "forest"'],
    ),
    "an unknown class": (
        dict(classes=["1", "3"]),
        ['classes: found "3"', "classes of the model: 1 2 5"],
    ),
    "a class twice": (
        dict(classes=["1:1+2", "2"]),
        ['classes: found "2"', "2 is named twice"],
    ),
    "a label twice": (dict(classes=["7:1", "7:2"]), ['found "7:2"', "7 comes twice"]),
    "a class of label 0": (dict(classes=["0:1"]), ['found "0:1"', "0 is no-data"]),
    "no class at all": (dict(classes=["wheat"]), ['found "wheat"', "a class to keep (12)"]),
    "features of a model without": (
        dict(features="map.tif", out=None),
        ['features: found the model "any", which has no embedding'],
    ),
    "mutual information of one model": (
        dict(mutual="mutual.tif"),
        ["mutual: found one model", "an ensemble"],
    ),
    "features of an ensemble": (
        dict(model="ensemble.txt", features="f.tif"),
        ["features: found an ensemble of 2 models", "one model"],
    ),
    "an ensemble of other classes": (
        dict(model="differing.txt"),
        ["model: found", "other.pt", "any.pt"],
    ),
    "an ensemble with a missing model": (dict(model="missing.txt"), ["model: found", "absent.pt"]),
    "an ensemble of one": (dict(model="same.txt"), ['model: found "any.pt" twice']),
    "an empty ensemble": (dict(model="nobody.txt"), ["model: found", "nobody.txt"]),
    "in and il": (
        {"in": "stack.tif"},
        ["il: found a series, and another one as in", "one of the two"],
    ),
    "masks without a series": (
        dict(maskl2="masks2.tif"),
        ["maskl2: found a value, but no series", "il2 as well"],
    ),
    "no series": (dict(il=None, dates=None), ["in: found nothing", "in or il"]),
    "no output": (dict(out=None, confmap=None), ["out: found no output", "nvalid"]),
    "a model of another task": (
        dict(contract=REPOSITORY / "doc" / "examples" / "change-detection.mlm.json"),
        ["model: found a model of task change-detection", "time-series-classification"],
    ),
    "another grid without a projection": (
        dict(SECOND, il2="no_crs.tif"),
        ["il2 (no_crs.tif): found", "spacing 20, -20", "spacing 10, -10", "Superimpose"],
    ),
    "a second sensor that does not cover the first": (
        dict(SECOND, il2="part.tif"),
        ["il2 (part.tif): found", "does not cover the whole of il (stack.tif)", "no no-data value"],
    ),
    "a second sensor elsewhere": (
        dict(SECOND, il2="far.tif"),
        ["il2 (far.tif): found", "do not overlap at all"],
    ),
    "a container": (
        dict(il="container.nc"),
        ["il (container.nc): found", "which holds no bands of its own", "subdatasets"],
    ),
    "complex pixels": (dict(il="complex.tif"), ["complex.tif", "complex pixels"]),
    "no static image": (
        dict(model="static.pt"),
        ["static: found nothing", "the band dem", '"y"', "-staticbands"],
    ),
    "a static image without the band": (
        dict(model="static.pt", static="two_bands.tif", staticbands=["slope", "aspect"]),
        ["static: found bands slope aspect", "the band dem"],
    ),
    "a static image of other bands": (
        dict(model="static.pt", static="two_bands.tif"),
        ["static: found 2 band(s)", "1, one a name"],
    ),
    "no projection for latitudes": (
        dict(model="where.pt", il="nowhere.tif"),
        ["il (nowhere.tif): found no projection", "latitude and longitude", "gdal_edit"],
    ),
    "statistics for a model that scales": (
        dict(model="scaled.pt", imstat="stats.xml"),
        ["imstat: found", "stats.xml", "scales its bands itself"],
    ),
    "statistics of another length": (
        dict(imstat="short.xml"),
        ["imstat: found 5 bands in", "12, those of one stack"],
    ),
    "statistics without numbers": (dict(imstat="nothing.xml"), ["imstat: found", "nothing.xml"]),
    "a corrupt image": (dict(il="corrupt.tif"), ["il (corrupt.tif): found", "cannot be read"]),
    "a truncated image": (dict(il="truncated.tif"), ["truncated.tif"]),
    "an image that is missing": (dict(il="none.tif"), ["none.tif"]),
    "a mask that is missing": (dict(maskl="none.tif"), ["none.tif"]),
    "dates beyond the grid": (
        dict(model="grid.pt"),
        ["il: found dates from 2020-01-01 to 2020-01-03", "2016-01-01 to 2016-12-01", "overlaps"],
    ),
    "a mask on another grid": (dict(mask="part.tif"), ["mask: found", "size"]),
    "a mask of several bands": (dict(mask="two_bands.tif"), ["mask: found 2 bands", "one band"]),
    "an output over an input": (
        dict(nvalid="../../stack.tif"),
        ["nvalid: found", "which is an input of this run"],
    ),
    "one file for two outputs": (dict(entropy="map.tif"), ["map.tif", "another output"]),
}
FILES = ("in", "il", "dates", "il2", "dates2", "maskl", "maskl2", "model", "contract", "static")
OUTPUTS = ("out", "confmap", "probamap", "features", "entropy", "mutual", "nvalid")


@pytest.fixture(scope="module")
def refusals(world):
    """``{case: (run, folder of its outputs)}``."""

    def one(number, changes):
        folder = world / "out" / str(number)
        folder.mkdir(parents=True)
        parameters = dict(il="stack.tif", dates="dates.txt", model="any.pt")
        parameters.update(out="map.tif", confmap="conf.tif")
        parameters.update(changes)
        for key, value in list(parameters.items()):
            if value is None:
                del parameters[key]
            elif key in FILES + ("mask", "imstat"):
                values = value if isinstance(value, list) else [value]
                parameters[key] = [world / v for v in values]
            elif key in OUTPUTS:
                values = value if isinstance(value, tuple) else (value,)
                parameters[key] = [folder / values[0], *values[1:]]
        return run(threads=1, **parameters), folder

    return together(
        {
            name: lambda number=number, name=name: one(number, CASES[name][0])
            for number, name in enumerate(CASES)
        }
    )


@pytest.mark.parametrize("name", CASES)
def test_is_refused(name, refusals):
    done, folder = refusals[name]
    assert_refused(done, folder, *CASES[name][1])


def test_the_scene_itself_works(world, tmp_path):
    """Otherwise the refusals might have any reason."""
    common = dict(model=world / "any.pt", out=tmp_path / "map.tif")
    run(il=world / "stack.tif", dates=world / "dates.txt", **common).ok()
    images = [world / name for name in IMAGES]
    masks = [world / f"m{k}.tif" for k in range(3)]
    run(il=images, datesfrom="names", maskl=masks, **common).ok()


def test_a_failed_run_keeps_an_older_file(world, tmp_path):
    (tmp_path / "map.tif").write_bytes(b"older")
    common = dict(il=world / "truncated.tif", dates=world / "dates.txt", model=world / "any.pt")
    done = run(out=tmp_path / "map.tif", **common)
    assert_refused(done, tmp_path, "truncated.tif", keep=["map.tif"])
    assert (tmp_path / "map.tif").read_bytes() == b"older"


def test_the_other_application_refuses_models_of_series(world, tmp_path):
    image = world / "i_20200101.tif"
    done = run_change(in1=image, in2=image, model=world / "any.pt", out=tmp_path / "map.tif")
    assert_refused(done, tmp_path, "time-series-classification", "change-detection")
