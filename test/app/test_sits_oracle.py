"""Maps of time series are the right ones: compared with eager PyTorch on what NumPy prepares.

``sits_oracle`` prepares what each network is fed from doc/model-contract.md alone; the eager
network runs on it in double precision. Resampling of other resolutions is redone in NumPy.
"""

import copy
import dataclasses

import numpy as np
import pytest
import sits
from conftest import read
from osgeo import gdal
from sits import (
    HEIGHT,
    NODATA,
    PROVENANCE,
    S2_BANDS,
    WIDTH,
    arguments,
    bilinear,
    case_of,
    forward,
    grid,
    nearest,
    patch_grid,
    pixels,
    run,
    simulation,
    through,
    together,
    write_dates,
    write_raster,
)
from sits_oracle import Sensor

__all__ = ["case_of", "simulation"]  # fixtures
TOLERANCE = 1e-5
TIE = 1e-4
NO_DATA = dict(out=0, confmap=0, probamap=0, features=-9999, entropy=-1, margin=-1)


# ---------------------------------------------------------------------------------------------
# The oracle


def softmax(z, axis):
    e = np.exp(z - z.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def assembled(contract, parts, shape):
    """What the rows of the batch give, as (channels, H, W) of the image."""
    tiling = contract["properties"]["otb:tiling"]
    height, width = shape
    if tiling.get("unit", "patch") == "pixel":
        return np.moveaxis(parts, 1, 0).reshape(-1, height, width)
    patch = tiling["patch"]
    crop = tiling.get("blend", "crop") == "crop"
    multiple = tiling.get("multiple", 1)
    lead = -(-tiling["halo"] // multiple) * multiple if crop else 0
    weight = np.ones((patch, patch))
    if not crop:
        window = np.sin(np.pi * (np.arange(patch) + 0.5) / patch) ** 2
        weight = np.outer(window, window)
    weight[:lead], weight[patch - lead :] = 0, 0
    weight[:, :lead], weight[:, patch - lead :] = 0, 0
    total = np.zeros((parts.shape[1], height + 2 * patch, width + 2 * patch))
    weights = np.zeros(total.shape[1:])
    for (row, column, side), part in zip(patch_grid(tiling, height, width), parts):
        at = np.s_[row + patch : row + patch + side, column + patch : column + patch + side]
        total[(slice(None),) + at] += weight * part
        weights[at] += weight
    inside = np.s_[patch : patch + height, patch : patch + width]
    assert np.allclose(weights[inside], 1.0, atol=1e-12)
    return total[(slice(None),) + inside]


def expected_maps(case, prepared):
    """``{output: array}`` in double precision; ``tie``: where rounding may decide."""
    contract = case.contract
    heads = forward(case.module, contract, prepared.arguments)
    temperature = contract["properties"]["otb:calibration"]["temperature"]
    entry = next(
        o for o in contract["properties"]["mlm:output"] if o["otb:role"] == "logits"
    )
    values = np.array([c["value"] for c in entry["classification:classes"]])
    shape = prepared.map_valid.shape
    p = assembled(contract, softmax(heads["logits"] / temperature, 1), shape)
    order = np.sort(p, axis=0)
    maps = {
        "out": values[p.argmax(axis=0)][None],
        "confmap": order[-1:],
        "probamap": 1000 * p,
        "entropy": -(p * np.log(p)).sum(axis=0, keepdims=True) / np.log(len(p)),
        "margin": order[-1:] - order[-2:-1],
    }
    if "embedding" in heads:
        maps["features"] = assembled(contract, heads["embedding"], shape)
    tie = (order[-1] - order[-2] < TIE) & prepared.map_valid
    for name in maps:
        maps[name] = np.where(prepared.map_valid, maps[name], NO_DATA[name])
    return maps, tie


def compare(paths, maps, tie, tolerance=TOLERANCE):
    assert tie.mean() < 0.01, "too many ties for a test"
    for name, found in pixels(paths).items():
        if name == "nvalid":
            continue
        wanted, found = maps[name], found.astype(np.float64)
        assert found.shape == wanted.shape, name
        if name == "out":
            wrong = (found != wanted) & ~tie
            assert not wrong.any(), f"{wrong.sum()} pixels"
            continue
        allowed = tolerance * np.maximum(1, np.abs(wanted))
        if name == "probamap":
            allowed = 0.5 + 1000 * tolerance
        excess = (np.abs(found - wanted) - allowed).max()
        assert excess <= 0, f"{name}: {excess} beyond the tolerance"


def named_bands(path):
    """``{description: band}`` of a file."""
    image = gdal.Open(str(path))
    bands = [image.GetRasterBand(b + 1) for b in range(image.RasterCount)]
    return {band.GetDescription(): band.ReadAsArray() for band in bands}


def compare_counts(path, prepared, names):
    """Counts of valid dates, found by the names of the bands, at pixels that are classified."""
    found = {"il" if name == "in" else name: counts for name, counts in named_bands(path).items()}
    assert sorted(found) == sorted(n for n in names if n)
    for name, counts in zip(names, prepared.valid_dates):
        if name:
            assert ((found[name] == counts) | ~prepared.map_valid).all(), name


def check(case, folder, names, height=None, **more):
    """Runs a case, or its first rows, and compares all its outputs."""
    if height:
        case = first_rows(case, height)
        more["options"] = f"?&box=0:0:{WIDTH}:{height}"
    prepared = arguments(case.contract, case.sensors, case.static, case.latlon)
    paths, _ = case.run(folder, **more)
    maps, tie = expected_maps(case, prepared)
    compare(paths, maps, tie)
    compare_counts(paths["nvalid"], prepared, names)
    return paths, prepared


def first_rows(case, height):
    """What the oracle needs to know of a model that sees single pixels."""
    case = copy.deepcopy(case)
    for image in case.sensors + [case.static]:
        if image is not None:
            image.values = image.values[..., :height, :]
            if isinstance(image, Sensor):
                image.valid = image.valid[:, :height]
    if case.latlon:
        case.latlon = [a[:height] for a in case.latlon]
    return case


# ---------------------------------------------------------------------------------------------
# All architectures

SENSORS = {"twinns": ["S2", "S1"], "presto": ["S2", "S1", "ERA5"]}


@pytest.mark.parametrize("name", sits.MAKERS)
def test_all_outputs_are_those_of_the_eager_network(name, case_of, tmp_path):
    height = 20 if name == "presto" else None
    paths, prepared = check(case_of(name), tmp_path, SENSORS.get(name, ["il"]), height)
    labels = read(paths["out"])
    assert len(np.unique(labels)) >= 4, "a map of hardly any classes shows little"
    assert 0 < (labels == 0).mean() < 0.05
    assert (prepared.valid_dates[0] < 12).mean() > 0.5


def test_an_absent_optional_sensor_is_masked(case_of, tmp_path):
    case = case_of("presto")
    case = dataclasses.replace(
        case, sensors=case.sensors[:2] + [None], parameters=dict(case.parameters, il3=None)
    )
    check(case, tmp_path, ["S2", "S1", None], 12)


def test_an_optional_sensor_is_masked_where_it_has_no_valid_date(case_of, simulation, tmp_path):
    """And the pixel is classified: the others have."""
    case = case_of("presto")
    seen = simulation.s1.valid.copy()
    seen[:, 4:9, 3:20] = False
    radar = dataclasses.replace(simulation.s1, valid=seen)
    mask = write_raster(tmp_path / "m.tif", seen, gdal.GDT_Byte, grid(20))
    case = dataclasses.replace(
        case,
        sensors=[case.sensors[0], radar.sensor(), case.sensors[2]],
        parameters=dict(case.parameters, maskl2=mask),
    )
    _, prepared = check(case, tmp_path, SENSORS["presto"], 20)
    assert (prepared.map_valid & (prepared.valid_dates[1] == 0)).sum() > 300


@pytest.mark.parametrize("name", ["twinns", "presto"])
def test_a_pixel_that_is_not_classified_has_no_valid_dates(name, case_of, tmp_path):
    """In no band, though one of the sensors may have some there."""
    case = case_of(name)
    paths, _ = case.run(tmp_path, ["nvalid"])
    found = named_bands(paths["nvalid"])
    assert (found["S2"][3:6, 4:9] == 0).all()
    assert (found["S1"][3:6, 4:9] == 0).all()


def test_counts_come_in_the_order_of_the_sensors(case_of, tmp_path):
    """Not in that of the network's arguments."""
    paths, _ = case_of("twinns").run(tmp_path, ["nvalid"])
    assert list(named_bands(paths["nvalid"])) == ["S2", "S1"]


@pytest.mark.parametrize("name", ["utae", "ubarn"])
def test_the_other_way_to_blend_is_that_of_numpy(name, case_of, tmp_path):
    case = case_of(name)
    contract = copy.deepcopy(case.contract)
    tiling = contract["properties"]["otb:tiling"]
    tiling["blend"] = "crop" if tiling["blend"] == "hann" else "hann"
    case = dataclasses.replace(case, contract=contract)
    check(case, tmp_path, ["il"], blend=tiling["blend"])


# ---------------------------------------------------------------------------------------------
# Sensors of one input


def two_sensors(folder, simulation, gapfill, apart):
    """A case with two sensors of the same dates in one input."""
    import torch
    from otbtorch import contract as c
    from otbtorch import export, models

    options = dict(sensor=[1, 2, 1, 2], gapfill=gapfill)
    if gapfill == "grid":
        options = dict(sensor=[1, 2, 1, 2], grid=("2020-01-05", "2020-11-25", 30), policy="any")
    series = c.series("x", ["B8", "VV", "B4", "VH"], c.z_score(1000, 800), **options)
    granularity = "band" if apart else "date"

    class Bands(torch.nn.Module):
        """Takes the mask for more bands."""

        def __init__(self):
            super().__init__()
            self.net = models.LTAE(8, 5, heads=4, d_model=32, embedding=16)
            self.head = self.net.head

        def forward(self, x, dates, valid):
            return self.net(torch.cat([x, valid], 2), dates, torch.ones_like(dates))

    torch.manual_seed(3)
    module = Bands() if apart else models.LTAE(4, 5, heads=4, d_model=32, embedding=16)
    contract = c.time_series(
        "pair",
        [
            series,
            c.dates("d", "days_since_first"),
            c.validity("v", "valid", granularity=granularity),
        ],
        classes=sits.CLASSES,
        outputs=[c.output("y", "logits"), c.output("e", "embedding", channels=16)],
        sensors=["S2", "S1"],
        **PROVENANCE,
    )
    path = folder / "pair.pt"
    export.export(module.eval(), contract, str(path))

    rng = np.random.default_rng(5)
    s2 = simulation.s2
    other = rng.uniform(100, 3000, (12, 2, HEIGHT, WIDTH)).astype(np.float32)
    other[3, 1, 5:9] = np.nan
    seen = sits.clouds(rng, 12, HEIGHT, WIDTH, 0.3)
    seen[:, 30:34, 10:20] = ~s2.valid[:, 30:34, 10:20]  # no date in common
    stack = write_raster(folder / "other.tif", other)
    mask = write_raster(folder / "seen.tif", seen, gdal.GDT_Byte)
    f = s2.files
    parameters = dict(
        il=f["stack"], dates=f["dates"], bands=S2_BANDS, maskl=f["scl"], masktype="scl",
        il2=stack, dates2=f["dates"], maskl2=mask, masktype2="valid",
    )  # fmt: skip
    sensors = [s2.sensor(nodata=NODATA), Sensor(other, s2.dates, seen)]
    return sits.Case("pair", contract, module, path, parameters, sensors)


@pytest.mark.parametrize("apart", [False, True], ids=["dates", "bands"])
@pytest.mark.parametrize("gapfill", ["none", "linear", "grid"])
def test_sensors_with_the_same_dates_in_one_input(gapfill, apart, simulation, tmp_path):
    case = two_sensors(tmp_path, simulation, gapfill, apart)
    _, prepared = check(case, tmp_path, ["S2", "S1"])
    part = prepared.map_valid[30:34, 10:20]
    assert part.any() == apart, "no common date: no data, unless the network is told by band"


# ---------------------------------------------------------------------------------------------
# What the network is fed, seen through a model that gives it back


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A model of two bands at all of two dates, which gives back what it is fed, unscaled."""
    from otbtorch import contract as c

    folder = tmp_path_factory.mktemp("raw")
    bands = [c.series("x", ["a"], None, steps=2, gapfill="linear", nodata_fill=-5)]
    bands.append(c.series("y", ["b"], None, steps=2, gapfill="linear", sensor=2, nodata_fill=-5))

    import torch
    from otbtorch import export

    class Through(torch.nn.Module):
        def forward(self, x, y):
            return torch.cat([x, y], 2).flatten(1)

    contract = c.time_series(
        "raw", bands, outputs=[c.output("e", "embedding", channels=4)], **PROVENANCE
    )
    export.export(Through().eval(), contract, str(folder / "raw.pt"))
    return folder / "raw.pt"


def fed_from(raw, folder, coarse, kind, factor, **more):
    """What the network is fed of a second sensor at a coarser resolution: (2, H, W)."""
    fine = np.ones((2, HEIGHT, WIDTH))
    dates = write_dates(folder / "d.txt", sits.days("2020-01-01", [10]))
    il2 = write_raster(folder / "c.tif", coarse, kind, grid(10 * factor))
    out = folder / "f.tif"
    run(
        il=write_raster(folder / "a.tif", fine), dates=dates, il2=il2, dates2=dates,
        model=raw, features=out, **more,
    ).ok()  # fmt: skip
    return read(out)[1::2]


@pytest.mark.parametrize("factor", [2, 3, 6])
def test_coarser_floating_point_images_are_resampled_bilinearly(factor, raw, tmp_path):
    rng = np.random.default_rng(factor)
    shape = (2, -(-HEIGHT // factor), -(-WIDTH // factor))
    coarse = rng.uniform(-50, 3000, shape).astype(np.float32)
    found = fed_from(raw, tmp_path, coarse, gdal.GDT_Float32, factor)
    wanted = bilinear(coarse, factor, HEIGHT, WIDTH)
    assert np.abs(found - wanted).max() < 1e-3


def test_integers_are_resampled_to_integers(raw, tmp_path):
    coarse = np.random.default_rng(1).integers(-3000, 3000, (2, 24, 31))
    found = fed_from(raw, tmp_path, coarse, gdal.GDT_Int16, 2)
    assert (found == np.round(found)).all()
    assert np.abs(found - bilinear(coarse, 2, HEIGHT, WIDTH)).max() <= 1


def test_nearest_neighbours_keep_values(raw, tmp_path):
    coarse = np.random.default_rng(1).integers(-3000, 3000, (2, 24, 31))
    found = fed_from(raw, tmp_path, coarse, gdal.GDT_Int16, 2, interpolator="nn")
    assert (found == nearest(coarse, 2, HEIGHT, WIDTH)).all()


def test_images_across_the_warper_s_blocks_have_no_seam(raw, tmp_path):
    """Wider than the 512 pixels that GDAL computes together."""
    coarse = np.random.default_rng(1).uniform(0, 3000, (2, 40, 350)).astype(np.float32)
    dates = write_dates(tmp_path / "d.txt", sits.days("2020-01-01", [10]))
    fine = write_raster(tmp_path / "a.tif", np.ones((2, 150, 1397)))
    out = tmp_path / "f.tif"
    run(
        il=fine, dates=dates, dates2=dates, model=raw, features=out,
        il2=write_raster(tmp_path / "c.tif", coarse, transform=grid(40)),
    ).ok()  # fmt: skip
    assert np.abs(read(out)[1::2] - bilinear(coarse, 4, 150, 1397)).max() < 1e-2


def test_bands_are_found_by_name_in_any_order_and_spelling(simulation, tmp_path):
    """From the descriptions of the bands, or from -bands; b02 is B2."""
    from otbtorch import contract as c

    bands = ["b08", "B03", "B12"]
    series = c.series("x", bands, None, gapfill="linear", steps=12, nodata_fill=-1)
    model, contract = through(tmp_path, [series], 36)
    f = simulation.s2.files
    ways = {
        "images": dict(il=f["images"], datesfrom="names", maskl=f["masks"]),
        "stack": dict(il=f["stack"], dates=f["dates"], bands=S2_BANDS, maskl=f["scl"],
                      masktype="scl"),
    }  # fmt: skip
    together(
        {
            n: lambda n=n, w=w: run(model=model, features=tmp_path / f"{n}.tif", **w).ok()
            for n, w in ways.items()
        }
    )
    sensor = simulation.s2.sensor(nodata=NODATA)
    sensor.bands = ["B02", "B03", "B04", "B05", "B06", "B07", "b08", "B8A", "B11", "B12"]
    prepared = sits.sits_oracle.prepare(contract, [sensor])
    wanted = prepared.arguments[0].reshape(HEIGHT, WIDTH, 36).transpose(2, 0, 1)
    wanted = np.where(prepared.map_valid, wanted, -9999)
    for name in ways:
        assert np.abs(read(tmp_path / f"{name}.tif") - wanted).max() < 1e-3, name


@pytest.mark.parametrize(
    "epsg, transform",
    [
        (32631, sits.TRANSFORM),
        (4326, (3.0, 1e-4, 0, 43.5, 0, -1e-4)),
        (2154, (6e5, 10, 0, 65e5, 0, -10)),
    ],
)
def test_latitude_and_longitude_are_those_of_pixels(epsg, transform, tmp_path):
    """Whatever order of axes the authority of a projection has."""
    import torch
    from otbtorch import contract as c
    from otbtorch import export
    from osgeo import osr

    class Where(torch.nn.Module):
        def forward(self, x, where):
            return where + 0 * x.sum()

    contract = c.time_series(
        "where",
        [c.series("x", ["a"], None, steps=1, gapfill="none"), c.latlon("where")],
        outputs=[c.output("e", "embedding", channels=2)],
        **PROVENANCE,
    )
    export.export(Where().eval(), contract, str(tmp_path / "where.pt"))
    dates = write_dates(tmp_path / "d.txt", sits.days("2020-01-01", []))
    image = write_raster(tmp_path / "a.tif", np.ones((5, 7)), transform=transform, epsg=epsg)
    out = tmp_path / "f.tif"
    run(il=image, dates=dates, model=tmp_path / "where.pt", features=out).ok()
    systems = [osr.SpatialReference(), osr.SpatialReference()]
    for system, code in zip(systems, (epsg, 4326)):
        system.ImportFromEPSG(code)
        system.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    change = osr.CoordinateTransformation(*systems)
    found = read(out)
    for row, column in ((0, 0), (4, 6), (2, 3)):
        x = transform[0] + (column + 0.5) * transform[1]
        y = transform[3] + (row + 0.5) * transform[5]
        longitude, latitude, _ = change.TransformPoint(x, y)
        assert found[:, row, column] == pytest.approx([latitude, longitude], abs=1e-5)
