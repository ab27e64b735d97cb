"""Training of classifiers of time series: samples, splits, gap filling, calibration, export."""

import datetime
import json
import zipfile

import numpy as np
import pytest

from otbtorch import series
from otbtorch import train_sits as ts

torch = pytest.importorskip("torch")
D = datetime.date


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def days(*numbers):
    return [D(2020, 1, 1) + datetime.timedelta(n) for n in numbers]


# --------------------------------------------------------------------------------------------------
# Dates and gap filling


def test_dates_file(tmp_path):
    path = tmp_path / "dates.txt"
    path.write_text("20200131\n\n# a comment\n2020-02-29  # leap\n", encoding="utf-8")
    assert series.read_dates(path) == [D(2020, 1, 31), D(2020, 2, 29)]
    path.write_text("2020-01-31\n20200131\n", encoding="utf-8")
    with pytest.raises(ValueError, match="twice"):
        series.read_dates(path)


@pytest.mark.parametrize("text", ["2020-1-31", "20203101", "2020-0131", "yesterday"])
def test_what_is_no_date(text):
    with pytest.raises(ValueError):
        series.parse_date(text)


def test_linear_by_pencil():
    # Days 0, 10, 20, 40; pixel 0 lacks day 10, pixel 1 the ends, pixel 2 everything.
    values = np.array([[10, 99, 30, 50], [99, 1, 2, 99], [7, 7, 7, 7]], np.float32)[..., None]
    valid = np.array([[1, 0, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0]], bool)
    filled, good, steps = series.fill(values, valid, days(0, 10, 20, 40))
    assert steps == days(0, 10, 20, 40)
    np.testing.assert_allclose(filled[..., 0], [[10, 20, 30, 50], [1, 1, 2, 2], [0, 0, 0, 0]])
    assert good.tolist() == [[True] * 4, [True] * 4, [False] * 4]


def test_grid_by_pencil():
    values = np.array([[0, 100, 300]], np.float32)[..., None]
    grid = {"start": "01-06", "end": "02-05", "step": 10}
    filled, _, steps = series.fill(values, np.ones((1, 3), bool), days(0, 10, 20), "grid", grid)
    assert steps == days(5, 15, 25, 35)
    np.testing.assert_allclose(filled[0, :, 0], [50, 200, 300, 300])


def test_dates_out_of_order():
    values = np.array([[300, 0, 100]], np.float32)[..., None]
    valid = np.array([[True, True, False]])
    filled, _, steps = series.fill(values, valid, days(20, 0, 10))
    assert steps == days(0, 10, 20)
    np.testing.assert_allclose(filled[0, :, 0], [0, 150, 300])


def test_grid_takes_the_year_that_overlaps_most():
    dates = [D(2017, 8, 1), D(2018, 11, 30)]
    steps = series.grid_dates({"start": "02-15", "end": "11-15", "step": 15}, dates)
    assert (steps[0], steps[-1], len(steps)) == (D(2018, 2, 15), D(2018, 11, 12), 19)
    steps = series.grid_dates({"start": "10-01", "end": "03-31", "step": 30}, dates)
    assert steps[0] == D(2017, 10, 1)


def test_windows_mirror_the_border():
    stack = np.arange(12.0).reshape(3, 4)
    window = series.windows(stack, [0, 1], [0, 2], 3)
    np.testing.assert_array_equal(window[0], [[5, 4, 5], [1, 0, 1], [5, 4, 5]])
    np.testing.assert_array_equal(window[1], stack[0:3, 1:4])


def test_windows_are_filled_pixel_by_pixel():
    rng = np.random.default_rng(0)
    stack, valid = rng.random((5, 2, 6, 7), np.float32), rng.random((5, 6, 7)) < 0.6
    dates = days(0, 3, 9, 20, 31)
    rows, columns = np.array([0, 3, 5]), np.array([6, 2, 0])
    first, _, _ = series.fill_stack(stack, valid, dates)
    after, good, _ = series.fill_windows(
        series.windows(stack, rows, columns, 3), series.windows(valid, rows, columns, 3), dates)
    np.testing.assert_array_equal(after, series.windows(first, rows, columns, 3))
    assert good.shape == (3, 5, 3, 3)


def test_what_is_valid():
    values = np.array([[[0, 0], [0, 5], [np.nan, 5], [3, 4]]], np.float32)
    assert series.valid_values(values, nodata=0).tolist() == [[False, True, False, True]]
    assert series.valid_values(values, nodata=0, rule="any").tolist() == [
        [False, False, False, True]]
    mask = np.array([0, 1, 4, 8, 11])
    assert series.mask_valid(mask).tolist() == [True, False, False, False, False]
    assert series.mask_valid(mask, "valid").tolist() == [False, True, True, True, True]
    assert series.mask_valid(mask, "scl").tolist() == [False, False, True, False, True]


# --------------------------------------------------------------------------------------------------
# Split, figures, calibration


@pytest.mark.parametrize("seed", range(5))
def test_split_never_mixes_groups(seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 40, 1000)
    labels = (groups % 3 + (rng.random(1000) < 0.2)) % 3
    part = ts.split_by_group(groups, labels, seed=seed)
    for group in np.unique(groups):
        assert len(np.unique(part[groups == group])) == 1
    share = np.bincount(part, minlength=3) / len(part)
    np.testing.assert_allclose(share, ts.FRACTIONS, atol=0.1)
    for p in range(3):
        assert set(labels[part == p]) == {0, 1, 2}


def test_split_wants_three_groups():
    with pytest.raises(ts.SamplesError, match="at least three"):
        ts.split_by_group([1, 1, 2], [0, 1, 0])


def test_figures_by_hand():
    figures = ts.Figures.of([0, 0, 0, 1, 1], [0, 0, 1, 1, 0], 3)
    assert figures.matrix.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert figures.accuracy == pytest.approx(0.6)
    np.testing.assert_allclose(figures.f1, [4 / 6, 2 / 4, np.nan])
    assert figures.macro_f1 == pytest.approx((4 / 6 + 2 / 4) / 2)


def test_temperature_lowers_the_nll():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, 4000)
    honest = rng.normal(0, 1, (4000, 4))
    truth = np.array([rng.choice(4, p=p) for p in ts.softmax(honest)])
    logits = honest * 3  # three times too sure
    temperature = ts.fit_temperature(logits, truth)
    assert temperature == pytest.approx(3, rel=0.1)
    assert ts.nll(logits / temperature, truth) < ts.nll(logits, truth) - 0.1
    assert ts.calibration_error(logits / temperature, truth) < ts.calibration_error(logits, truth)


def test_class_weights():
    labels = np.repeat([0, 1], [90, 10])
    weights = ts.class_weights(labels, 2, "balanced")
    assert weights[1] / weights[0] == pytest.approx(9)
    assert weights[labels].mean() == pytest.approx(1)
    assert ts.class_weights(labels, 2, "none").tolist() == [1, 1]


# --------------------------------------------------------------------------------------------------
# The command


DATES = [D(2020, m, 10) for m in range(1, 13)]


def synthetic(n=360, seed=0):
    """Series of two bands: class 1 peaks in May, class 2 in August, class 7 never."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([1, 2, 7], n)
    month = np.arange(12)
    x = rng.normal(1000, 60, (n, 12, 2))
    x[labels == 1, :, 0] += 800 * np.exp(-((month - 4) ** 2) / 4)
    x[labels == 2, :, 0] += 800 * np.exp(-((month - 7) ** 2) / 4)
    return x.astype(np.float32), labels, rng.integers(0, 30, n)


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    x, labels, groups = synthetic()
    path = tmp_path_factory.mktemp("npz") / "samples.npz"
    dates = [d.isoformat() for d in DATES]
    np.savez(path, X=x, y=labels, group=groups, dates=dates, bands=["B04", "B08"],
             valid=np.random.default_rng(3).random(x.shape[:2]) < 0.8)
    return path


def embedded(path):
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith("extra/mlm.json"))
        return json.loads(archive.read(name))["properties"], archive.namelist()


@pytest.mark.parametrize("architecture", ["tempcnn", "ltae"])
def test_from_npz_to_model(npz, tmp_path, capsys, architecture):
    out = tmp_path / "model.pt"
    code = ts.main([str(npz), "--architecture", architecture, "--epochs", "6", "--rate", "0.003",
                    "--no-forest", "--out", str(out)])
    text = capsys.readouterr().out
    assert code == 0, text
    row = next(line for line in text.splitlines() if line.startswith("| " + architecture))
    assert float(row.split("|")[2].split()[0]) > 0.85
    properties, names = embedded(out)
    assert not [n for n in names if n.endswith(".debug_pkl")]
    assert properties["otb:calibration"]["temperature"] > 0
    assert [c["value"] for c in properties["mlm:output"][0]["classification:classes"]] == [1, 2, 7]
    first = properties["mlm:input"][0]
    assert first["otb:temporal"]["gapfill"] == ("none" if architecture == "ltae" else "grid")
    module = torch.jit.load(str(out))
    assert module(*(torch.zeros([2, 5, 2]), torch.ones(2, 5), torch.ones(2, 5))
                  if architecture == "ltae" else [torch.zeros([2, 25, 2])]) is not None


def test_two_sensors(npz, tmp_path, capsys):
    x, labels, groups = synthetic(seed=5)
    path = tmp_path / "two.npz"
    dates = [d.isoformat() for d in DATES]
    np.savez(path, X_s1=x[:, :, :1], dates_s1=dates, X_s2=x[:, :, 1:], dates_s2=dates, y=labels,
             group=groups)
    for architecture in ("tempcnn", "twin"):
        out = tmp_path / (architecture + ".pt")
        assert ts.main([str(path), "--architecture", architecture, "--gapfill", "linear",
                        "--epochs", "3", "--no-forest", "--out", str(out)]) == 0
        properties, _ = embedded(out)
        assert [s["name"] for s in properties["otb:sensors"]] == ["s1", "s2"]
    capsys.readouterr()


def write_layer(path, columns, labels, groups):
    from osgeo import ogr

    source = ogr.GetDriverByName("SQLite").CreateDataSource(str(path))
    layer = source.CreateLayer("samples", None, ogr.wkbPoint)
    for i in range(columns.shape[1]):
        layer.CreateField(ogr.FieldDefn("value_%d" % i, ogr.OFTReal))
    layer.CreateField(ogr.FieldDefn("code", ogr.OFTInteger))
    layer.CreateField(ogr.FieldDefn("originfid", ogr.OFTInteger))
    source.StartTransaction()
    for row, label, group in zip(columns, labels, groups):
        feature = ogr.Feature(layer.GetLayerDefn())
        for i, value in enumerate(list(map(float, row)) + [int(label), int(group)]):
            feature.SetField(i, value)
        feature.SetGeometry(ogr.CreateGeometryFromWkt("POINT (0 0)"))
        layer.CreateFeature(feature)
    source.CommitTransaction()


def test_from_ogr_with_forest(tmp_path, capsys):
    pytest.importorskip("osgeo.ogr")
    x, labels, groups = synthetic()
    layer, dates = tmp_path / "samples.sqlite", tmp_path / "dates.txt"
    write_layer(layer, x.reshape(len(x), -1), labels, groups)
    series.write_dates(dates, DATES)
    specs = [("s2", "value_", DATES, ["B04", "B08"])]
    samples = ts.load_ogr(str(layer), specs, "code")
    np.testing.assert_allclose(samples.sensors[0].values, x, rtol=1e-6)
    assert samples.labels.tolist() == labels.tolist()
    names = tmp_path / "names.txt"
    names.write_text("1 early\n2 late\n7 none\n", encoding="utf-8")
    assert ts.main([str(layer), "--series", "s2", "value_", str(dates), "B04,B08", "--class-field",
                    "code", "--epochs", "3", "--index", "s2", "ND", "B08", "B04", "--class-names",
                    str(names), "--out", str(tmp_path / "m.pt")]) == 0
    text = capsys.readouterr().out
    assert "F1 early" in text
    properties, _ = embedded(tmp_path / "m.pt")
    assert properties["mlm:input"][0]["bands"][2]["expression"] == ["B08", "B04"]
    if ts.otb_available():
        row = next(line for line in text.splitlines() if line.startswith("| Random Forest"))
        assert float(row.split("|")[2].split()[0]) > 0.85


def test_what_is_wrong_is_said(npz, tmp_path, capsys):
    layer = tmp_path / "samples.sqlite"
    write_layer(layer, np.zeros((3, 23)), [1, 1, 1], [1, 2, 3])
    with pytest.raises(ts.SamplesError, match="needs 24 fields value_0, value_1 ..., there are 23"):
        ts.load_ogr(str(layer), [("s2", "value_", DATES, ["B04", "B08"])], "code")
    with pytest.raises(ts.SamplesError, match="no field class"):
        ts.load_ogr(str(layer), [("s2", "value_", DATES, ["B04", "B08"])])
    assert ts.main([str(npz), "--architecture", "twinns"]) == 2
    assert "needs windows" in capsys.readouterr().err
    assert ts.main([str(npz), "--index", "s2", "NDVI", "B08", "B04"]) == 2
    assert "no sensor s2" in capsys.readouterr().err


def write_raster(path, array):
    from osgeo import gdal, osr

    out = gdal.GetDriverByName("GTiff").Create(
        str(path), array.shape[2], array.shape[1], len(array), gdal.GDT_Float32)
    system = osr.SpatialReference()
    system.ImportFromEPSG(32631)
    out.SetProjection(system.ExportToWkt())
    size = 640.0 / array.shape[1]
    out.SetGeoTransform((500000, size, 0, 5600000, 0, -size))
    for i, band in enumerate(array, 1):
        out.GetRasterBand(i).WriteArray(band)


def test_windows_from_rasters(tmp_path, capsys):
    pytest.importorskip("osgeo.gdal")
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 3, (8, 8)), np.ones((4, 4), int))
    stack = rng.normal(1000, 30, (5, 2, 32, 32)) + 200 * (labels == 2)
    write_raster(tmp_path / "labels.tif", labels[None])
    write_raster(tmp_path / "a.tif", stack.reshape(10, 32, 32))
    write_raster(tmp_path / "b.tif", rng.normal(-10, 1, (5, 16, 16)))  # coarser
    mask = (rng.random((5, 32, 32)) < 0.2).astype(float)
    mask[0] = 0
    write_raster(tmp_path / "mask.tif", mask)
    series.write_dates(tmp_path / "d.txt", DATES[:5])
    samples = ts.load_rasters(
        [("a", tmp_path / "a.tif", DATES[:5], ["x", "y"]),
         ("b", tmp_path / "b.tif", DATES[:5], ["z"])],
        tmp_path / "labels.tif", [("a", tmp_path / "mask.tif", "invalid")], block=8, window=3)
    rows, columns = np.nonzero(labels)
    assert samples.sensors[0].values.shape == (len(rows), 5, 2, 3, 3)
    inside = np.flatnonzero((rows > 0) & (columns > 0) & (rows < 31) & (columns < 31))[7]
    r, c = rows[inside], columns[inside]
    np.testing.assert_allclose(
        samples.sensors[0].values[inside], stack[:, :, r - 1 : r + 2, c - 1 : c + 2], rtol=1e-6)
    assert samples.groups[inside] == r // 8 * 4 + c // 8
    out = tmp_path / "twinns.pt"
    assert ts.main(["--raster", "a", str(tmp_path / "a.tif"), str(tmp_path / "d.txt"), "x,y",
                    "--raster", "b", str(tmp_path / "b.tif"), str(tmp_path / "d.txt"), "z",
                    "--labels", str(tmp_path / "labels.tif"), "--block", "8", "--window", "3",
                    "--mask", "a", str(tmp_path / "mask.tif"), "invalid", "--architecture",
                    "twinns", "--gapfill", "linear", "--epochs", "1", "--no-forest", "--out",
                    str(out)]) == 0
    properties, _ = embedded(out)
    assert properties["otb:tiling"] == {"unit": "pixel", "window": 3}
    assert [o["otb:role"] for o in properties["mlm:output"]] == [
        "logits", "aux", "aux", "embedding"]
    capsys.readouterr()


def test_blocks_of_the_shipped_models():
    from otbtorch.recipes import train_sits_default as default

    seen = np.zeros((64, 64), int)
    for split in range(len(default.SPLITS)):
        part = default.parts(split, (64, 64))
        seen += part == 2
        # The windows of two kinds share no pixel.
        covered = []
        for kind in range(3):
            rows, columns = np.nonzero(part == kind)
            mine = np.zeros((68, 68), bool)
            for i in range(5):
                for j in range(5):
                    mine[rows + i, columns + j] = True
            covered.append(mine[2:-2, 2:-2])
        assert not (covered[0] & covered[1]).any()
        assert not (covered[0] & covered[2]).any()
        assert not (covered[1] & covered[2]).any()
    assert seen.max() == 1
