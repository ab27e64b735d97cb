"""Files, types, names and parameters of TimeSeriesClassify, and what iota2 makes of them."""

import copy
import json

import numpy as np
import pytest
from conftest import EPSG, TRANSFORM, facts, parts, read, stripes
from osgeo import gdal
from sits import (
    ALL,
    CLASSES,
    HEIGHT,
    NODATA,
    S2_BANDS,
    WIDTH,
    arguments,
    case_of,
    days,
    forward,
    pixels,
    run,
    same,
    simulation,
    through,
    together,
    write_dates,
    write_raster,
)
from test_sits_oracle import softmax

from iota2_rules import mosaic  # test/support, which sits puts on the path

__all__ = ["case_of", "simulation"]  # fixtures
LABELS = np.array([c[0] for c in CLASSES])
NONE = np.s_[3:6, 4:9]  # pixels without a valid date


@pytest.fixture(scope="module")
def case(case_of):
    return case_of("ltae_any")


@pytest.fixture(scope="module")
def plain(case, tmp_path_factory):
    """Paths of all outputs of a plain run."""
    paths, _ = case.run(tmp_path_factory.mktemp("plain"))
    return paths


@pytest.fixture(scope="module")
def fed(case):
    return arguments(case.contract, case.sensors)


def maps_of(case, fed, temperature=1.0):
    """Class probabilities of the eager network, (K, H, W)."""
    logits = forward(case.module, case.contract, fed.arguments)["logits"]
    return softmax(logits / temperature, 1).T.reshape(-1, HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def truth(case, fed):
    return maps_of(case, fed)


def entropy(p):
    return -(p * np.log(np.maximum(p, 1e-300))).sum(axis=0)


def descriptions(path):
    image = gdal.Open(str(path))
    return [image.GetRasterBand(b + 1).GetDescription() for b in range(image.RasterCount)]


def assert_probabilities(paths, q, labels, valid):
    """out, confmap, probamap of class probabilities q (K, H, W) of ascending labels."""
    found = pixels(paths)
    order = np.sort(q, axis=0)
    sure = valid & (order[-1] - order[-2] > 1e-4)
    assert (found["out"][0] == np.array(labels)[q.argmax(axis=0)])[sure].all()
    assert (found["out"][0][~valid] == 0).all()
    assert np.abs(found["confmap"][0] - order[-1])[valid].max() < 1e-5
    assert found["probamap"].shape == q.shape
    assert np.abs(found["probamap"] - 1000 * q)[:, valid].max() < 0.52


# ---------------------------------------------------------------------------------------------
# Files


def test_types_no_data_and_grid(plain):
    expected = {
        "out": ("Byte", 0, 1),
        "confmap": ("Float32", 0, 1),
        "probamap": ("UInt16", None, 5),
        "features": ("Float32", -9999, 16),
        "entropy": ("Float32", -1, 1),
        "margin": ("Float32", -1, 1),
        "nvalid": ("UInt16", None, 1),
    }
    for name, (kind, nodata, bands) in expected.items():
        f = facts(plain[name])
        assert (f.kind, f.nodata, f.bands) == (kind, nodata, bands), name
        assert (f.width, f.height, f.epsg) == (WIDTH, HEIGHT, str(EPSG)), name
        assert f.transform == pytest.approx(TRANSFORM), name
    assert parts(plain["out"].parent) == []


def test_pixels_without_a_valid_date_hold_no_data(plain):
    """All they say is that there is no valid date."""
    found = pixels(plain)
    for name, value in dict(
        out=0, confmap=0, probamap=0, features=-9999, entropy=-1, margin=-1, nvalid=0
    ).items():
        assert (found[name][(slice(None),) + NONE] == value).all(), name
        assert (found[name][:, 0, 60] == value).all(), name
    assert (found["nvalid"] > 0).sum() == (found["out"] > 0).sum()


def test_bands_are_named(plain):
    assert descriptions(plain["probamap"]) == [f"{v} {name}" for v, name in CLASSES]
    assert len(descriptions(plain["nvalid"])) == 1


def test_probabilities_add_up(plain):
    found = pixels(plain)
    sums = found["probamap"].sum(axis=0)
    assert set(np.unique(sums[found["out"][0] > 0])) <= set(range(997, 1004))


def test_a_window_is_georeferenced_where_it_lies(case, plain, tmp_path):
    paths, _ = case.run(tmp_path, ["out", "features"], options="?&box=7:9:20:11")
    for path in paths.values():
        assert facts(path).transform == pytest.approx(
            (TRANSFORM[0] + 70, 10, 0, TRANSFORM[3] - 90, 0, -10)
        )


def contract_file(path, case, change):
    contract = copy.deepcopy(case.contract)
    change(contract["properties"])
    path.write_text(json.dumps(contract))
    return path


def test_labels_beyond_255_are_written_as_uint16(case, plain, tmp_path):
    def change(properties):
        properties["mlm:output"][0]["classification:classes"][4]["value"] = 3000

    file = contract_file(tmp_path / "c.json", case, change)
    paths, done = case.run(tmp_path, ["out", "probamap"], contract=file)
    assert "3000 (roads) is beyond 8 bits" in done.text()
    f = facts(paths["out"])
    assert (f.kind, f.nodata) == ("UInt16", 0)
    expected = read(plain["out"]).astype(int)
    assert (read(paths["out"]) == np.where(expected == 77, 3000, expected)).all()
    assert descriptions(paths["probamap"])[4] == "3000 roads"


def test_the_type_of_labels_can_be_asked_for(case, plain, tmp_path):
    run(
        model=case.path, **case.parameters, out=[tmp_path / "o.tif", "int16"],
        nodatalabel=-7, probamap=[tmp_path / "p.tif", "float"],
    ).ok()  # fmt: skip
    f = facts(tmp_path / "o.tif")
    assert (f.kind, f.nodata) == ("Int16", -7)
    expected = read(plain["out"]).astype(int)
    assert (read(tmp_path / "o.tif") == np.where(expected == 0, -7, expected)).all()
    assert (read(tmp_path / "p.tif") == read(plain["probamap"])).all()


def test_label_of_no_data(case, plain, tmp_path):
    paths, _ = case.run(tmp_path, ["out", "confmap"], nodatalabel=255)
    found, expected = read(paths["out"]), read(plain["out"])
    assert facts(paths["out"]).nodata == 255
    assert (found == np.where(expected == 0, 255, expected)).all()
    assert (read(paths["confmap"]) == read(plain["confmap"])).all()


def test_mask(case, plain, tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:40, 7:50] = 3
    paths, _ = case.run(tmp_path, mask=write_raster(tmp_path / "m.tif", mask, gdal.GDT_Byte))
    found, expected = pixels(paths), pixels(plain)
    for name, value in dict(out=0, confmap=0, probamap=0, features=-9999, entropy=-1).items():
        assert (found[name] == np.where(mask, expected[name], value)).all(), name


def test_extended_file_names_are_honoured(case, plain, tmp_path):
    """iota2 asks for files without .geom beside them."""
    names = ["out", "confmap", "probamap"]
    paths, _ = case.run(tmp_path, names, options="?&writegeom=false&gdal:co:COMPRESS=DEFLATE")
    beside = {"out.tif.aux.xml", "out.qml", "confmap.qml"}  # the legend
    assert {p.name for p in tmp_path.iterdir()} == {f"{n}.tif" for n in names} | beside
    same(pixels(paths), pixels(plain))
    paths, _ = case.run(tmp_path, ["features"], options=stripes(9) + "&nodata=-5")
    same({"features": pixels(paths)["features"]}, pixels(plain))


# ---------------------------------------------------------------------------------------------
# Classes


@pytest.mark.parametrize(
    "asked, groups, names",
    [
        ("77 12 41", {12: [1], 41: [3], 77: [4]}, ["12 maize", "41 water", "77 roads"]),
        ("2:31+41+77:other 1:11+12:crops", {1: [0, 1], 2: [2, 3, 4]}, ["1 crops", "2 other"]),
        ("9:11 31 4:12+77:b", {4: [1, 4], 9: [0], 31: [2]}, ["4 b", "9 wheat", "31 forest"]),
    ],
)
def test_classes_are_kept_or_merged(asked, groups, names, case, fed, truth, tmp_path):
    outputs = ["out", "confmap", "probamap", "entropy", "margin"]
    paths, _ = case.run(tmp_path, outputs, classes=asked.split(), nbclasses=len(groups))
    q = np.stack([truth[members].sum(axis=0) for members in groups.values()])
    q /= q.sum(axis=0)
    valid = fed.map_valid
    assert_probabilities(paths, q, list(groups), valid)
    order = np.sort(q, axis=0)
    assert np.abs(read(paths["entropy"]) - entropy(q) / np.log(len(q)))[valid].max() < 1e-5
    assert np.abs(read(paths["margin"]) - (order[-1] - order[-2]))[valid].max() < 1e-5
    assert descriptions(paths["probamap"]) == names


def test_merged_classes_without_a_name_are_told_by_label(case, tmp_path):
    paths, _ = case.run(tmp_path, ["probamap"], classes=["1:11+12", "31"])
    assert descriptions(paths["probamap"]) == ["1", "31 forest"]


def test_a_word_may_be_one_class_whose_name_holds_a_number_or_several(case, tmp_path):
    """QGIS passes a list as one word; a shell's quoted word is one class."""
    for n, (word, expected) in enumerate({"1:11+12:crops 2018": ["1 crops 2018"], "1:11+12:all crops 2:31:wood": ["1 all crops", "2 wood"]}.items()):
        (tmp_path / str(n)).mkdir()
        paths, _ = case.run(tmp_path / str(n), ["probamap"], classes=[word])
        assert descriptions(paths["probamap"]) == expected


def test_one_class(case, fed, tmp_path):
    paths, _ = case.run(tmp_path, ["out", "confmap", "entropy", "margin"], classes=["12"])
    for name, value in dict(out=12, confmap=1, entropy=0, margin=1).items():
        assert (read(paths[name])[fed.map_valid] == value).all(), name


def test_temperature(case, fed, tmp_path):
    def change(properties):
        properties["otb:calibration"]["temperature"] = 2.5

    file = contract_file(tmp_path / "c.json", case, change)
    paths, _ = case.run(tmp_path, ["out", "confmap", "probamap"], contract=file)
    assert_probabilities(paths, maps_of(case, fed, 2.5), LABELS, fed.map_valid)


# ---------------------------------------------------------------------------------------------
# Ensembles


@pytest.fixture(scope="module")
def ensemble(case_of, fed, truth, tmp_path_factory):
    """A list of three models, and the probabilities of each."""
    cases = [case_of("ltae_any", seed) for seed in (0, 1, 2)]
    path = tmp_path_factory.mktemp("ensemble") / "models.txt"
    path.write_text("# three\n" + "".join(f"{c.path}\n" for c in cases))
    return path, np.stack([truth] + [maps_of(c, fed) for c in cases[1:]])


@pytest.mark.parametrize("classes", [None, {1: [0, 1], 41: [3]}], ids=["all", "some"])
def test_ensemble(classes, ensemble, case, fed, tmp_path):
    path, members = ensemble
    outputs = ["out", "confmap", "probamap", "entropy", "margin", "mutual"]
    asked = ["1:11+12", "41"] if classes else None
    paths, _ = case.run(tmp_path, outputs, model=path, classes=asked)
    labels = LABELS
    if classes:
        members = np.stack([members[:, k].sum(axis=1) for k in classes.values()], axis=1)
        members = members / members.sum(axis=1, keepdims=True)
        labels = list(classes)
    p, valid = members.mean(axis=0), fed.map_valid
    assert_probabilities(paths, p, labels, valid)
    order, scale = np.sort(p, axis=0), np.log(len(p))
    mutual = (entropy(p) - np.mean([entropy(m) for m in members], axis=0)) / scale
    for name, wanted in {
        "entropy": entropy(p) / scale,
        "margin": order[-1] - order[-2],
        "mutual": mutual,
    }.items():
        found = read(paths[name])
        assert np.abs(found - wanted)[valid].max() < 1e-5, name
        assert (found[~valid] == -1).all() and facts(paths[name]).nodata == -1
    assert mutual[valid].max() > 0.05


def test_names_in_a_list_are_relative_to_it(ensemble, case_of, case, tmp_path):
    folder = ensemble[0].parent
    for k in range(2):
        (folder / f"m{k}.pt").write_bytes(case_of("ltae_any", k).path.read_bytes())
    (folder / "two.txt").write_text("m0.pt\n  m1.pt  # the second\n\n")
    paths, done = case.run(tmp_path, ["out", "mutual"], model=folder / "two.txt", cwd=tmp_path)
    assert (read(paths["mutual"]) >= -1).all()


# ---------------------------------------------------------------------------------------------
# Embeddings


def test_quantised_features_are_close_to_the_floating_point_ones(case, plain, fed, tmp_path):
    paths, _ = case.run(tmp_path, ["features"], featurestype="int8")
    image = gdal.Open(str(paths["features"]))
    band = image.GetRasterBand(1)
    assert gdal.GetDataTypeName(band.DataType) in ("Byte", "Int8")
    if gdal.GetDataTypeName(band.DataType) == "Byte":
        assert band.GetMetadataItem("PIXELTYPE", "IMAGE_STRUCTURE") == "SIGNEDBYTE"
    assert band.GetNoDataValue() == -128
    how = json.loads(image.GetMetadataItem("OTB_QUANTIZATION"))
    assert (how["kind"], how["scale"], how["nodata"]) == ("signed_sqrt", 127.5, -128)
    stored = image.ReadAsArray()
    codes = (stored if stored.dtype == np.int8 else stored.astype(np.uint8).view(np.int8)) + 0.0
    assert (codes[:, ~fed.map_valid] == -128).all()
    assert (codes[:, fed.map_valid] > -128).all()
    back = np.sign(codes) * (np.abs(codes) / how["scale"]) ** 2
    exact = read(plain["features"]).astype(np.float64)
    cosine = (back * exact).sum(axis=0)
    cosine /= np.linalg.norm(back, axis=0) * np.linalg.norm(exact, axis=0)
    assert cosine[fed.map_valid].min() > 0.999


def test_quantised_features_beside_other_outputs(case, plain, tmp_path):
    """The way that they are stored does not spread."""
    paths, _ = case.run(tmp_path, featurestype="int8", options=stripes(9))
    found, expected = pixels(paths), pixels(plain)
    for name in ALL:
        if name != "features":
            same({name: found[name]}, expected)
            image = gdal.Open(str(paths[name]))
            structure = image.GetRasterBand(1).GetMetadata("IMAGE_STRUCTURE")
            assert "PIXELTYPE" not in structure, name


# ---------------------------------------------------------------------------------------------
# Statistics of ComputeImagesStatistics


def statistics(path, mean, stddev):
    def rows(values):
        return "".join(f'<StatisticVector value="{v:.9g}" />' for v in values)

    path.write_text(
        '<?xml version="1.0" ?><FeatureStatistics>'
        f'<Statistic name="mean">{rows(mean)}</Statistic>'
        f'<Statistic name="stddev">{rows(stddev)}</Statistic></FeatureStatistics>'
    )
    return path


@pytest.fixture(scope="module")
def raw_model(tmp_path_factory):
    """Gives back what it is fed: three of four bands, in another order."""
    from otbtorch import contract as c

    series = c.series("x", ["c", "a", "d"], None, gapfill="none", steps=3, nodata_fill=-7)
    return through(tmp_path_factory.mktemp("raw"), [series], 9)[0]


def test_statistics_are_those_of_the_bands_of_the_stack(raw_model, tmp_path):
    rng = np.random.default_rng(6)
    values = rng.integers(1, 3000, (3, 4, 11, 13))
    values[1, :, 4, 5:8] = 0  # no-data, told by raw values
    mean, stddev = rng.uniform(100, 900, 12), rng.uniform(50, 300, 12)
    out = tmp_path / "f.tif"
    run(
        **{"in": write_raster(tmp_path / "s.tif", values, gdal.GDT_Int16, nodata=0)},
        dates=write_dates(tmp_path / "d.txt", days("2020-01-01", [5, 9])),
        bands=["a", "b", "c", "d"],
        imstat=statistics(tmp_path / "s.xml", mean, stddev),
        model=raw_model,
        features=out,
    ).ok()
    wanted = (values.reshape(12, 11, 13) - mean[:, None, None]) / stddev[:, None, None]
    wanted = wanted.reshape(3, 4, 11, 13)[:, [2, 0, 3]]
    wanted[1, :, 4, 5:8] = -7
    assert np.abs(read(out) - wanted.reshape(9, 11, 13)).max() < 1e-4


# ---------------------------------------------------------------------------------------------
# iota2


@pytest.mark.parametrize("way", ["found", "named"])
def test_stack_of_iota2(way, tmp_path):
    """Ten bands date after date, then NDVI, NDWI and brightness, each for all dates."""
    from otbtorch import contract as c

    bands = ["B08", "NDVI", "B12", "Brightness"]
    series = c.series("x", bands, c.z_score(0, 10000), gapfill="none", steps=3)
    model, _ = through(tmp_path, [series], 12)
    rng = np.random.default_rng(7)
    reflectances = rng.integers(-50, 9000, (3, 10, 11, 13))
    features = rng.integers(-1000, 1000, (3, 3, 11, 13))  # feature, date
    stack = np.concatenate([reflectances.reshape(30, 11, 13), features.reshape(9, 11, 13)])
    more = {}
    if way == "named":
        more["bands"] = S2_BANDS + ["|", "NDVI", "NDWI", "Brightness"]
    out = tmp_path / "f.tif"
    done = run(
        **{"in": write_raster(tmp_path / "s.tif", stack, gdal.GDT_Int16)},
        dates=write_dates(tmp_path / "d.txt", days("2020-01-01", [5, 9])),
        model=model,
        features=out,
        **more,
    ).ok()
    assert ("taken for a stack of iota2" in done.text()) == (way == "found")
    wanted = np.stack(
        [reflectances[:, 6], features[0], reflectances[:, 9], features[2]], axis=1
    )
    assert np.abs(read(out) - wanted.reshape(12, 11, 13) / 10000).max() < 1e-6


def test_mosaic_of_iota2(case, plain, simulation, tmp_path):
    """Files in classif/ as iota2's classification step writes them, of two tiles that overlap."""
    s2 = simulation.s2
    folder = tmp_path / "classif"
    folder.mkdir()
    tiles = {"T31TCJ": (0, 33), "T31TDJ": (29, WIDTH)}
    region = np.ones((HEIGHT, WIDTH), np.uint8)
    region[:, -3:] = 0  # outside of the region of the model

    def classify(tile):
        first, last = tiles[tile]
        transform = (TRANSFORM[0] + 10.0 * first,) + TRANSFORM[1:]
        masks = np.where(s2.valid, 0, 1)[..., first:last]
        files = {
            "in": write_raster(
                tmp_path / f"{tile}.tif", s2.values[..., first:last], transform=transform,
                nodata=NODATA,
            ),
            "maskl": write_raster(
                tmp_path / f"{tile}_m.tif", masks, gdal.GDT_Byte, transform=transform
            ),
            "mask": write_raster(
                tmp_path / f"{tile}_r.tif", region[:, first:last], gdal.GDT_Byte, transform
            ),
        }  # fmt: skip
        names = {
            "out": f"Classif_{tile}_model_1_seed_0.tif",
            "confmap": f"{tile}_model_1_confidence_seed_0.tif",
            "probamap": f"PROBAMAP_{tile}_model_1_seed_0.tif",
        }
        outputs = {k: f"{folder / v}?&writegeom=false" for k, v in names.items()}
        run(
            **files, **outputs, dates=s2.files["dates"], bands=S2_BANDS, model=case.path,
            nodatalabel=0, nbclasses=5, ram=128,
        ).ok()  # fmt: skip
        return {k: folder / v for k, v in names.items()}

    paths = together({tile: lambda tile=tile: classify(tile) for tile in tiles})
    assert len(list(folder.glob("*.tif"))) == 6
    expected = {k: np.where(region, v, 0) for k, v in pixels(plain).items()}
    for name, kind in (("out", "Byte"), ("confmap", "Float32"), ("probamap", "UInt16")):
        parts_ = []
        for tile, (first, _) in tiles.items():
            f = facts(paths[tile][name])
            assert (f.kind, f.epsg) == (kind, str(EPSG))
            assert f.transform[0] == TRANSFORM[0] + 10 * first
            parts_.append((first, pixels(paths[tile])[name]))
        whole = mosaic(parts_, expected[name].shape)
        assert (whole == expected[name]).all(), name
        if name == "confmap":
            percent = np.round(100 * whole)
            assert percent.min() == 0 and 20 < percent.max() <= 100
        if name == "probamap":
            assert whole.max() <= 1000
            best = LABELS[whole.argmax(axis=0)]
            ties = np.sort(whole, axis=0)[-2:].std(axis=0) == 0
            labels = mosaic(
                [(tiles[t][0], pixels(paths[t])["out"]) for t in tiles], (1, HEIGHT, WIDTH)
            )[0]
            assert ((labels == best) | ties)[labels > 0].all()
            assert (whole[:, labels == 0] == 0).all()


def test_parameters_of_imageclassifier_are_there():
    done = run("-help")
    for key in "in model imstat mask nodatalabel out confmap probamap nbclasses ram".split():
        assert f"-{key} " in done.log, key
