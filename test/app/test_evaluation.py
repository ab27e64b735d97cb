"""otbcli_ChangeEvaluation: every figure against NumPy, invariance under streaming, what is undefined, messages."""

import csv
import json
import math

import numpy as np
import pytest
from conftest import TRANSFORM, parts, read, write
from evaluation import binary, calibration, close, evaluate, histogram, objects, ranking, run, semantic
from osgeo import gdal, ogr, osr
from scipy import ndimage

HEIGHT, WIDTH = 347, 401  # no multiple of anything, larger than a cell of 256
CLASSES = 4


def smooth(rng, sigma):
    field = ndimage.gaussian_filter(rng.standard_normal((HEIGHT, WIDTH)), sigma)
    return field / field.std()


class Maps:
    """A reference of change, a score and a decision of it, labels of two dates of both, all with holes; on disk and as arrays."""

    def __init__(self, folder, seed=0):
        rng = np.random.default_rng(seed)
        field = smooth(rng, 4)
        self.truth = field > np.quantile(field, 0.9)
        score = field + 0.8 * smooth(rng, 3)
        self.p = (1 / (1 + np.exp(-4 * (score - np.quantile(score, 0.9))))).astype(np.float32)
        self.decision = self.p >= 0.5
        self.classes = [1 + np.digitize(smooth(rng, 6), (-0.7, 0.0, 0.7)) for _ in range(2)]
        self.said = [np.where(rng.random((HEIGHT, WIDTH)) < 0.2, rng.integers(1, 5, (HEIGHT, WIDTH)), c) for c in self.classes]
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        self.hole = (x - 300) ** 2 + (y - 80) ** 2 < 900
        self.valid = (x + y) % 97 != 0
        self.unlabelled = x > WIDTH - 20
        byte = gdal.GDT_Byte
        f = self.files = {}
        f["p"] = write(folder / "p.tif", np.where(self.hole, np.nan, self.p))
        f["decision"] = write(folder / "decision.tif", np.where(self.hole, 255, self.decision), nodata=255, kind=byte)
        f["ref"] = write(folder / "ref.tif", np.where(self.unlabelled, 0, 1 + self.truth), kind=byte)
        f["mask"] = write(folder / "mask.tif", self.valid, kind=byte)
        self.good = ~self.hole & self.valid & ~self.unlabelled
        self.code = np.where(self.decision, 1 + (self.said[0] - 1) * CLASSES + self.said[1] - 1, 0)
        self.code_ref = np.where(self.truth, 1 + (self.classes[0] - 1) * CLASSES + self.classes[1] - 1, 0)
        f["code"] = write(folder / "code.tif", self.code, kind=byte)
        f["code_ref"] = write(folder / "code_ref.tif", self.code_ref, kind=byte)
        f["change"] = write(folder / "change.tif", self.decision, kind=byte)
        f["change_ref"] = write(folder / "change_ref.tif", self.truth, kind=byte)
        for d in range(2):
            f[f"said{d}"] = write(folder / f"said{d}.tif", self.said[d], kind=byte)
            f[f"class{d}"] = write(folder / f"class{d}.tif", self.classes[d], kind=byte)
            f[f"masked{d}"] = write(folder / f"masked{d}.tif", np.where(self.decision, self.said[d], 0), kind=byte)
            f[f"masked_ref{d}"] = write(folder / f"masked_ref{d}.tif", np.where(self.truth, self.classes[d], 0), kind=byte)

    def pair(self, what="decision", **more):
        f = self.files
        return dict(dict(in_=f[what], ref=f["ref"], refpos=2, refneg=1, mask=f["mask"], block=64, draws=200), **more)


@pytest.fixture(scope="session")
def maps(tmp_path_factory):
    return Maps(tmp_path_factory.mktemp("maps"))


@pytest.fixture(scope="session")
def others(tmp_path_factory):
    return Maps(tmp_path_factory.mktemp("others"), seed=1)


# ---------------------------------------------------------------------------------------------
# Figures


def test_decisions_equal_numpy(maps, tmp_path):
    found = evaluate(tmp_path, errors=tmp_path / "errors.tif", csv=tmp_path / "table.csv", **maps.pair())
    good, one = maps.good, found["pairs"][0]
    close(one["metrics"]["binary"]["values"], binary(maps.decision[good], maps.truth[good]))
    assert found["pooled"] == {k: one[k] for k in ("pixels", "blocks", "metrics")}
    settings = found["settings"]
    assert (settings["block"], settings["draws"], settings["seed"], settings["mode"]) == (64, 200, 0, "binary")
    assert "ram" not in settings and settings["refpos"] == ["2"] and settings["probability"] is False
    assert one["pixels"]["evaluated"] == np.count_nonzero(good)
    assert one["pixels"]["masked"] == np.count_nonzero(~maps.valid)
    assert one["pixels"]["no_data"] == np.count_nonzero(maps.valid & maps.hole)
    assert one["pixels"]["unlabelled"] == np.count_nonzero(maps.valid & ~maps.hole & maps.unlabelled)
    (tn, fn), (fp, tp) = one["metrics"]["binary"]["matrix"]
    assert one["metrics"]["binary"]["confusion"] == dict(tp=tp, fp=fp, fn=fn, tn=tn)
    expected = np.where(maps.decision, np.where(maps.truth, 1, 2), np.where(maps.truth, 3, 0))
    assert np.array_equal(read(tmp_path / "errors.tif"), np.where(good, expected, 255))
    rows = list(csv.DictReader(open(tmp_path / "table.csv")))
    f1 = next(r for r in rows if r["figure"] == "f1")
    assert float(f1["value"]) == one["metrics"]["binary"]["values"]["f1"]
    assert [float(f1["low"]), float(f1["high"])] == one["metrics"]["binary"]["intervals"]["f1"]
    low, high = one["metrics"]["binary"]["intervals"]["f1"]
    assert low < one["metrics"]["binary"]["values"]["f1"] < high


def test_errors_have_colours_and_the_grid_of_the_map(maps, tmp_path):
    run(errors=f"{tmp_path}/e.tif?&gdal:co:COMPRESS=LZW", **maps.pair()).ok()
    image = gdal.Open(str(tmp_path / "e.tif"))
    band = image.GetRasterBand(1)
    assert image.GetGeoTransform() == TRANSFORM and "32631" in image.GetProjection()
    assert image.GetMetadataItem("COMPRESSION", "IMAGE_STRUCTURE") == "LZW"
    assert band.GetNoDataValue() == 255
    colours = [band.GetColorTable().GetColorEntry(k) for k in range(4)]
    assert len(set(colours)) == 4 and band.GetColorTable().GetColorEntry(255)[3] == 0
    assert parts(tmp_path) == []


def test_scores_equal_numpy(maps, tmp_path):
    found = evaluate(tmp_path, mode="score", probability=1, **maps.pair("p"))["pooled"]["metrics"]
    p, truth = maps.p[maps.good], maps.truth[maps.good]
    assert found["score"]["exact"] is (np.unique(p).size <= 65536)
    # Of bins that hold a few pixels each.
    close(found["score"]["values"], ranking(p, truth), 1e-4)
    close(found["calibration"]["values"], calibration(p, truth), 1e-12)
    close(found["binary"]["values"], binary(p >= 0.5, truth))
    assert found["binary"]["threshold"] == {"value": 0.5, "decision": ">=", "origin": "0.5 of a probability"}
    table = found["calibration"]["reliability"]
    assert sum(row["count"] for row in table) == p.size
    inside = (p >= table[3]["low"]) & (p < table[3]["high"])
    assert table[3]["count"] == np.count_nonzero(inside)
    assert math.isclose(table[3]["observed"], truth[inside].mean(), rel_tol=1e-12)
    for name in ("auroc", "ap"):
        low, high = found["score"]["intervals"][name]
        assert low < found["score"]["values"][name] < high
    curve = found["score"]["curve"]
    assert len(curve["tpr"]) <= 512 and curve["tpr"][-1] == curve["fpr"][-1] == 1
    assert sum(found["score"]["histogram"]["change"]) == np.count_nonzero(truth)


@pytest.mark.parametrize("kind", ["bytes", "few floats"])
def test_scores_of_few_values_are_exact(maps, tmp_path, kind):
    p = np.round(maps.p * 200)
    p = p.astype(np.uint8) if kind == "bytes" else (p / 7).astype(np.float32)
    write(tmp_path / "p.tif", p, kind=gdal.GDT_Byte if kind == "bytes" else gdal.GDT_Float32)
    found = evaluate(tmp_path, mode="score", thr=100 if kind == "bytes" else 14.0, **maps.pair("p", in_=tmp_path / "p.tif"))
    good = maps.valid & ~maps.unlabelled
    assert found["pooled"]["metrics"]["score"]["exact"] is True
    close(found["pooled"]["metrics"]["score"]["values"], ranking(p[good], maps.truth[good]))
    close(found["pooled"]["metrics"]["binary"]["values"], binary(p[good] >= (100 if kind == "bytes" else 14.0), maps.truth[good]))


def test_no_outlier_spoils_the_bins(maps, tmp_path):
    p = maps.p.copy()
    p[0, 1] = 1e30
    p[1, 0] = -1e30
    write(tmp_path / "p.tif", p)
    found = evaluate(tmp_path, mode="score", thr=0.5, **maps.pair("p", in_=tmp_path / "p.tif"))
    good = maps.valid & ~maps.unlabelled
    close(found["pooled"]["metrics"]["score"]["values"], ranking(p[good], maps.truth[good]), 1e-4)


def test_the_threshold_of_the_file_is_that_of_the_decision(maps, tmp_path):
    path = tmp_path / "score.tif"
    write(path, maps.p)
    image = gdal.Open(str(path), gdal.GA_Update)
    image.SetMetadataItem("OTBTORCH_THRESHOLD", "0.25")
    image = None
    found = evaluate(tmp_path, mode="score", **maps.pair("p", in_=path))["pooled"]["metrics"]
    good = maps.valid & ~maps.unlabelled
    close(found["binary"]["values"], binary(maps.p[good] > 0.25, maps.truth[good]))
    threshold = evaluate(tmp_path, mode="score", **maps.pair("p"))["pairs"][0]["metrics"]["binary"]["threshold"]
    assert threshold["decision"] == ">" and ("mode" in threshold["origin"] or "Gaussians" in threshold["origin"])


def test_transitions_equal_numpy_in_both_conventions(maps, tmp_path):
    f, common = maps.files, dict(mode="semantic", classes=[1, 2, 3, 4], names=["a", "b", "c", "d"], mask=maps.files["mask"], draws=50, block=64)
    codings = {
        "fromto": (dict(in_=f["code"], ref=f["code_ref"])),
        "masked": dict(
            in_=f["masked0"], in2=f["masked1"], ref=f["masked_ref0"], ref2=f["masked_ref1"], incoding="masked", refcoding="masked"
        ),
        "full": dict(
            in_=f["said0"], in2=f["said1"], inchange=f["change"], ref=f["class0"], ref2=f["class1"], refchange=f["change_ref"],
            incoding="full", refcoding="full",
        ),
    }
    good, k = maps.valid, CLASSES
    transitions = histogram(maps.code[good], maps.code_ref[good], 1 + k * k)
    stack = sum(
        histogram(np.where(maps.decision, maps.said[d], 0)[good], np.where(maps.truth, maps.classes[d], 0)[good], 1 + k) for d in range(2)
    )
    both = good & maps.decision & maps.truth
    for name, files in codings.items():
        found = evaluate(tmp_path, **files, **common)["pooled"]["metrics"]
        close(found["semantic"]["from_to"]["values"], semantic(transitions))
        close(found["semantic"]["two_date"]["values"], semantic(stack))
        assert found["semantic"]["two_date"]["matrix"] == stack.tolist()
        assert found["semantic"]["from_to"]["matrix"] == transitions.tolist()
        close(found["binary"]["values"], binary(maps.decision[good], maps.truth[good]))
        for d in range(2):
            date = found["semantic"]["dates"][d]
            where = good if name == "full" else both
            assert date["where"] == ("everywhere" if name == "full" else "changed in map and reference")
            assert abs(date["values"]["oa"] - np.mean(maps.said[d][where] == maps.classes[d][where])) < 1e-12
            assert date["matrix"] == histogram(maps.said[d][where] - 1, maps.classes[d][where] - 1, k).tolist()
        low, high = found["semantic"]["two_date"]["intervals"]["sek"]
        assert low < found["semantic"]["two_date"]["values"]["sek"] < high
    # The same predictions, two figures of the same name.
    assert abs(semantic(stack)["sek"] - semantic(transitions)["sek"]) > 0.01
    assert abs(semantic(stack)["fscd"] - semantic(transitions)["fscd"]) > 0.01
    assert semantic(stack)["miou"] == pytest.approx(semantic(transitions)["miou"], abs=1e-12)


@pytest.mark.parametrize("eight, minimum, iou", [(False, 0, 0.5), (True, 30, 0.5), (False, 10, 0.7)])
def test_objects_equal_scipy(maps, tmp_path, eight, minimum, iou):
    more = dict(mode="object", connect=8 if eight else 4, minsize=minimum, iou=iou)
    found = evaluate(tmp_path, **maps.pair(**more))["pooled"]["metrics"]["objects"]
    predicted, reference, matched = objects(maps.decision & maps.good, maps.truth & maps.good, eight, minimum, iou)
    assert (found["predicted"]["count"], found["reference"]["count"], found["matched"]["count"]) == (predicted, reference, matched)
    close(found["values"], dict(precision=matched / predicted, recall=matched / reference, f1=2 * matched / (predicted + reference)))
    assert found["predicted"]["area_m2"] == 100 * found["predicted"]["pixels"]
    if minimum == 0:
        assert found["reference"]["pixels"] == np.count_nonzero(maps.truth & maps.good)
    assert found["intervals"]["f1"][0] <= found["values"]["f1"] <= found["intervals"]["f1"][1]


def test_several_pairs_are_pooled_in_one_matrix(maps, others, tmp_path):
    both = dict(in_=[maps.files["decision"], others.files["decision"]], ref=[maps.files["ref"], others.files["ref"]])
    both.update(mask=[maps.files["mask"], others.files["mask"]], errors=tmp_path / "e.tif")
    found = evaluate(tmp_path, **maps.pair(**both))
    predicted = np.r_[maps.decision[maps.good], others.decision[others.good]]
    reference = np.r_[maps.truth[maps.good], others.truth[others.good]]
    close(found["pooled"]["metrics"]["binary"]["values"], binary(predicted, reference))
    for one, m in zip(found["pairs"], (maps, others)):
        close(one["metrics"]["binary"]["values"], binary(m.decision[m.good], m.truth[m.good]))
    assert (tmp_path / "e_1.tif").exists() and (tmp_path / "e_2.tif").exists()
    both.pop("errors")
    both["in_"] = [maps.files["p"], others.files["p"]]
    found = evaluate(tmp_path, mode="score", **maps.pair(**both))["pooled"]["metrics"]["score"]
    close(found["values"], ranking(np.r_[maps.p[maps.good], others.p[others.good]], reference), 1e-4)


# ---------------------------------------------------------------------------------------------
# Streaming


@pytest.mark.parametrize("mode", ["binary", "score", "semantic", "object", "sample"])
def test_results_do_not_depend_on_memory_threads_or_files(maps, tmp_path, mode):
    parameters = maps.pair("p", probability=1) if mode == "score" else maps.pair()
    if mode == "semantic":
        parameters = dict(in_=maps.files["code"], ref=maps.files["code_ref"], classes=[1, 2, 3, 4], draws=50, block=50)
    elif mode == "sample":
        parameters = dict(in_=maps.files["code"], ref=maps.files["code_ref"], n=300, points="points.gpkg", seed=3)
    else:
        parameters.update(errors="errors.tif", block=50)
    results = []
    settings = [(256, 2, False), (1, 1, False), (8, 4, True)]
    for k, (ram, threads, tiled) in enumerate(settings if mode in ("binary", "score") else settings[::2]):
        folder = tmp_path / str(k)
        folder.mkdir()
        files = {}
        for key in ("in_", "ref", "mask"):
            if key in parameters:
                name = f"{key}.tif"
                options = ["TILED=YES", "BLOCKXSIZE=64", "BLOCKYSIZE=32", "COMPRESS=DEFLATE"] if tiled else []
                gdal.Translate(str(folder / name), str(parameters[key]), creationOptions=options)
                files[key] = name
        run(mode=mode, out="out.json", cwd=folder, ram=ram, threads=threads, **dict(parameters, **files)).ok()
        errors = read(folder / "errors.tif").tobytes() if "errors" in parameters else b""
        results.append(((folder / "out.json").read_bytes(), errors, points_of(folder / "points.gpkg") if mode == "sample" else None))
    assert all(r == results[0] for r in results)


# ---------------------------------------------------------------------------------------------
# Vectors, grids


def write_polygons(path, epsg, polygons, values=None):
    system = osr.SpatialReference()
    system.ImportFromEPSG(epsg)
    system.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    source = ogr.GetDriverByName("GPKG").CreateDataSource(str(path))
    layer = source.CreateLayer("change", system, ogr.wkbPolygon)
    layer.CreateField(ogr.FieldDefn("value", ogr.OFTInteger))
    for k, corners in enumerate(polygons):
        feature = ogr.Feature(layer.GetLayerDefn())
        feature.SetGeometry(ogr.CreateGeometryFromWkt("POLYGON((" + ",".join("%.15g %.15g" % c for c in corners + corners[:1]) + "))"))
        feature.SetField("value", values[k] if values else 1)
        layer.CreateFeature(feature)
    source = None
    return path


def squares():
    """Corners of polygons in pixels that hold whole pixels, and the pixels."""
    truth = np.zeros((HEIGHT, WIDTH), int)
    polygons = []
    for k, (x, y, w, h) in enumerate([(10, 20, 300, 15), (250, 240, 30, 90), (100, 100, 7, 9)]):
        truth[y : y + h, x : x + w] = k + 1
        polygons.append([(TRANSFORM[0] + 10.0 * (x + a * w), TRANSFORM[3] - 10.0 * (y + b * h)) for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))])
    return polygons, truth


def test_polygons_are_burnt_on_the_grid(maps, tmp_path):
    polygons, truth = squares()
    path = write_polygons(tmp_path / "ref.gpkg", 32631, polygons, [1, 2, 3])
    decision = maps.files["change"]
    found = evaluate(tmp_path, in_=decision, ref=path, draws=0)["pooled"]["metrics"]["binary"]
    close(found["values"], binary(maps.decision, truth > 0))
    assert found["intervals"]["f1"] is None
    found = evaluate(tmp_path, in_=decision, ref=path, reffield="value", refpos=[1, 3], draws=0)["pooled"]["metrics"]["binary"]
    close(found["values"], binary(maps.decision, (truth == 1) | (truth == 3)))


def test_polygons_of_another_projection_are_turned(maps, tmp_path):
    polygons, truth = squares()
    utm, geographic = osr.SpatialReference(), osr.SpatialReference()
    utm.ImportFromEPSG(32631)
    geographic.ImportFromEPSG(4326)
    for s in (utm, geographic):
        s.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    turn = osr.CoordinateTransformation(utm, geographic)
    path = write_polygons(tmp_path / "ref.gpkg", 4326, [[turn.TransformPoint(*c)[:2] for c in p] for p in polygons])
    found = evaluate(tmp_path, in_=maps.files["change"], ref=path, draws=0, errors=tmp_path / "e.tif")
    errors = read(tmp_path / "e.tif")
    # A straight line is not one in the other projection: pixels at edges may go either way.
    differ = ((errors == 1) | (errors == 3)) != (truth > 0)
    assert np.count_nonzero(differ) < 0.05 * np.count_nonzero(truth)
    assert found["pooled"]["pixels"]["evaluated"] == HEIGHT * WIDTH


def test_a_reference_on_another_grid_is_refused_or_resampled(maps, tmp_path):
    half = write(
        tmp_path / "half.tif", maps.truth[::2, ::2], transform=(500000.0, 20.0, 0.0, 4800000.0, 0.0, -20.0), kind=gdal.GDT_Byte
    )
    done = run(in_=maps.files["change"], ref=half)
    assert done.returncode != 0 and "spacing 20, -20" in done.text()
    found = evaluate(tmp_path, in_=maps.files["change"], ref=half, align="resample", draws=0)
    truth = maps.truth[::2, ::2].repeat(2, 0).repeat(2, 1)[:HEIGHT, :WIDTH]
    close(found["pooled"]["metrics"]["binary"]["values"], binary(maps.decision, truth))


def test_a_band_is_chosen_by_name_and_values_stand_for_others(maps, tmp_path):
    """As Hi-UCD's references are: labels in two bands, then 0 unlabelled, 1 unchanged, 2 changed."""
    third = np.where(maps.unlabelled, 0, 1 + maps.truth)
    bands = write(tmp_path / "bands.tif", np.stack([maps.classes[0], maps.classes[1], third]), kind=gdal.GDT_Byte)
    common = dict(in_=maps.files["change"], ref=f"{bands}?&bands=3", draws=0)
    expected = binary(maps.decision[~maps.unlabelled], maps.truth[~maps.unlabelled])
    close(evaluate(tmp_path, refpos=2, refneg=1, **common)["pooled"]["metrics"]["binary"]["values"], expected)
    found = evaluate(tmp_path, refmap=["1:0", "2:1"], refnodata=0, **common)["pooled"]
    # Values are no-data as the file holds them, and mapped afterwards.
    close(found["metrics"]["binary"]["values"], expected)
    assert found["pixels"]["no_reference"] == np.count_nonzero(maps.unlabelled)


def test_a_reference_without_georeference_is_laid_pixel_upon_pixel(maps, tmp_path):
    bare = write(tmp_path / "bare.tif", maps.truth, transform=None, epsg=None, kind=gdal.GDT_Byte)
    found = evaluate(tmp_path, in_=maps.files["change"], ref=bare, draws=0)
    close(found["pooled"]["metrics"]["binary"]["values"], binary(maps.decision, maps.truth))
    short = write(tmp_path / "short.tif", maps.truth[:-1], transform=None, epsg=None, kind=gdal.GDT_Byte)
    done = run(in_=maps.files["change"], ref=short)
    assert done.returncode != 0 and f"found size {WIDTH} x {HEIGHT - 1}; expected size {WIDTH} x {HEIGHT}" in done.text()


# ---------------------------------------------------------------------------------------------
# What is undefined


def test_no_change_no_data_no_pixel(tmp_path):
    none = write(tmp_path / "none.tif", np.zeros((40, 50)), kind=gdal.GDT_Byte)
    some = write(tmp_path / "some.tif", np.eye(40, 50), kind=gdal.GDT_Byte)
    nothing = write(tmp_path / "nothing.tif", np.full((40, 50), np.nan))
    for a, b, defined in ((none, none, ("oa",)), (some, none, ("oa", "precision", "f1", "iou", "kappa")), (none, some, ("oa", "recall", "f1", "iou", "kappa"))):
        values = evaluate(tmp_path, in_=a, ref=b, block=10)["pooled"]["metrics"]["binary"]["values"]
        for name in ("precision", "recall", "f1", "iou", "oa", "kappa"):
            assert (values[name] is not None) == (name in defined), name
    out = tmp_path / "out.json"
    done = run(in_=nothing, ref=some, out=out).ok()
    assert "No pixel has data" in done.text() and "f1 undefined" in done.text()
    values = json.loads(out.read_text())["pooled"]["metrics"]["binary"]["values"]
    assert all(v is None for v in values.values())
    values = evaluate(tmp_path, mode="score", probability=1, in_=nothing, ref=some)["pooled"]["metrics"]
    assert all(v is None for v in list(values["score"]["values"].values()) + list(values["calibration"]["values"].values()))
    flat = write(tmp_path / "flat.tif", np.full((40, 50), 0.25))
    values = evaluate(tmp_path, mode="score", in_=flat, ref=some, block=10)["pooled"]["metrics"]["score"]["values"]
    assert values["auroc"] == 0.5 and values["ap"] == values["prevalence"] == 0.02
    values = evaluate(tmp_path, mode="score", in_=flat, ref=none, block=10)["pooled"]["metrics"]["score"]["values"]
    assert values["auroc"] is None and values["prevalence"] == 0
    found = evaluate(tmp_path, mode="object", in_=none, ref=some, block=10)["pooled"]["metrics"]["objects"]
    assert found["values"] == {"precision": None, "recall": 0, "f1": 0, "mean_iou": None}


# ---------------------------------------------------------------------------------------------
# Samples


def rows_of(path, name):
    source = ogr.Open(str(path))  # layers do not outlive it
    layer = source.GetLayer(name)
    fields = [layer.GetLayerDefn().GetFieldDefn(k).GetName() for k in range(layer.GetLayerDefn().GetFieldCount())]
    return [(dict((n, f[n]) for n in fields), f.GetGeometryRef() and f.GetGeometryRef().GetPoint_2D()) for f in layer]


def points_of(path):
    return [(f["id"], f["stratum"], f["column"], f["row"], f["reference"], place) for f, place in rows_of(path, "sample")]


def test_a_sample_has_the_sizes_asked_for_and_lies_in_its_strata(maps, tmp_path):
    run(mode="sample", in_=maps.files["change"], points=tmp_path / "s.gpkg", sizes=["0:120", "1:80"], seed=4).ok()
    points = points_of(tmp_path / "s.gpkg")
    strata = np.array([p[1] for p in points])
    assert np.count_nonzero(strata == 0) == 120 and np.count_nonzero(strata == 1) == 80
    assert len({(p[2], p[3]) for p in points}) == 200
    for _, stratum, x, y, reference, place in points:
        assert maps.decision[y, x] == stratum and reference is None
        assert place == (TRANSFORM[0] + 10 * (x + 0.5), TRANSFORM[3] - 10 * (y + 0.5))
    # In random order, and spread over the map.
    assert 20 < np.count_nonzero(strata[:100] == 1) < 60
    assert abs(np.mean([p[2] for p in points if p[1] == 0]) - WIDTH / 2) < 45
    run(mode="sample", in_=maps.files["change"], points=tmp_path / "t.gpkg", sizes=["0:120", "1:80"], seed=5).ok()
    assert points_of(tmp_path / "t.gpkg") != points
    done = run(mode="sample", in_=maps.files["change"], points=tmp_path / "u.gpkg", n=400, allocation="equal").ok()
    assert "Stratum 0: 200 points" in done.text() and "Stratum 1: 200 points" in done.text()
    strata = {f["stratum"]: f for f, _ in rows_of(tmp_path / "u.gpkg", "strata")}
    assert strata[1]["pixels"] == np.count_nonzero(maps.decision) and strata[1]["area_m2"] == 100 * strata[1]["pixels"]


def test_the_labelled_sample_gives_corrected_areas(maps, tmp_path):
    """Labels are written into the file as an interpreter would; the estimates are those of the paper's formulas in NumPy."""
    path = tmp_path / "s.gpkg"
    run(mode="sample", in_=maps.files["change"], points=path, n=600, allocation="equal").ok()
    source = ogr.Open(str(path), 1)
    layer = source.GetLayer("sample")
    counts = np.zeros((2, 2))
    for f in layer:
        label = int(maps.truth[f["row"], f["column"]])
        counts[f["stratum"], label] += 1
        f["reference"] = label
        layer.SetFeature(f)
    layer = source = None
    found = evaluate(tmp_path, mode="sample", labelled=path)["areas"]
    mapped = np.array([np.count_nonzero(~maps.decision), np.count_nonzero(maps.decision)], float)
    share = counts / counts.sum(1, keepdims=True)
    area = (mapped[:, None] * share).sum(0)
    error = np.sqrt((mapped[:, None] ** 2 * share * (1 - share) / (counts.sum(1, keepdims=True) - 1)).sum(0))
    for j in range(2):
        one = found["classes"][j]
        close(one["area_pixels"], dict(value=area[j], standard_error=error[j], half_width=1.96 * error[j]), 1e-6)
        assert one["area_m2"]["value"] == pytest.approx(100 * area[j])
        assert abs(area[j] - np.count_nonzero(maps.truth == j)) < 4 * error[j]
    assert found["counts"] == counts.astype(int).tolist()
    # In one step, the labels taken from an image.
    again = evaluate(tmp_path, mode="sample", in_=maps.files["change"], ref=maps.files["change_ref"], points=tmp_path / "a.gpkg", n=600, allocation="equal")
    assert again["areas"]["classes"] == found["classes"]


def test_points_without_label_are_left_out_and_told(maps, tmp_path):
    path = tmp_path / "s.gpkg"
    run(mode="sample", in_=maps.files["change"], points=path, n=60, allocation="equal").ok()
    done = run(mode="sample", labelled=path)
    assert done.returncode != 0 and "no labelled point" in done.text()
    source = ogr.Open(str(path), 1)
    layer = source.GetLayer("sample")
    for f in layer:
        if f["id"] > 10:
            f["reference"] = f["stratum"]
            layer.SetFeature(f)
    layer = source = None
    assert "10 of 60 points have no label" in run(mode="sample", labelled=path).ok().text()


# ---------------------------------------------------------------------------------------------
# Messages


def complaints(maps, folder):
    f = maps.files
    pair = dict(in_=f["change"], ref=f["change_ref"])
    plain = folder / "plain.txt"
    plain.write_text("nothing")
    bands = write(folder / "bands.tif", np.zeros((2, HEIGHT, WIDTH)))
    small = write(folder / "small.tif", np.zeros((10, 10)), kind=gdal.GDT_Byte)
    polygons = write_polygons(folder / "far.gpkg", 32631, [[(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]])
    semantic = dict(mode="semantic", in_=f["code"], ref=f["code_ref"])
    return {
        "no map": (dict(ref=f["ref"]), "in: found nothing; expected a map"),
        "no reference": (dict(in_=f["change"]), "ref: found 0 file(s); expected 1 as for in"),
        "numbers": (dict(pair, ref=[f["ref"], f["ref"]]), "ref: found 2 file(s); expected 1 as for in"),
        "values": (dict(in_=f["change"], ref=f["ref"]), "found the values 1, 2 beside 0; expected one value for change"),
        "no image": (dict(pair, in_=plain), "plain.txt"),
        "bands": (dict(pair, in_=bands), "with 2 bands; expected one band"),
        "grid": (dict(pair, mask=small), "mask: found size 10 x 10"),
        "no overlap": (dict(pair, ref=polygons), "does not overlap with in"),
        "number": (dict(pair, refpos="x"), "refpos: found \"x\"; expected a number"),
        "both": (dict(pair, refpos=[1, 2], refneg=[2]), "which is in refpos as well"),
        "block": (dict(pair, block=2), "block: found 2; expected at least 8"),
        "out": (dict(pair, out=folder / "no" / "o.json"), "Directory doesn't exist"),  # OTB's own words
        "json": (dict(pair, out=folder / "o.txt"), "a name that ends in .json"),
        "input": (dict(pair, errors=f["change"]), "which is an input of this run"),
        "twice": (dict(pair, out=folder / "o.json", csv=folder / "o.json"), "the file of -out"),
        "iou": (dict(pair, mode="object", iou=0.3), "iou: found 0.3000; expected a number from 0.5 to 1"),
        "mode": (dict(pair, in2=f["change"]), "in2: found that it is given; expected nothing with -mode binary"),
        "probability": (dict(mode="score", probability=1, in_=f["code"], ref=f["change_ref"]), "scores from 0"),
        "classes": (semantic, "classes: found 0 classes; expected 2 to 30"),
        "codes": (dict(semantic, classes=[1, 2]), "expected from-to codes of 2 classes: 0 to 4"),
        "second date": (dict(semantic, classes=[1, 2], incoding="full"), "in2: found nothing; expected labels of the second date"),
        "one date": (
            dict(mode="semantic", classes=[1, 2, 3, 4], in_=f["masked0"], in2=f["said1"], incoding="masked", ref=f["code_ref"]),
            "(0 in one date alone)",
        ),
        "names": (dict(semantic, classes=[1, 2, 3, 4], names=["a"]), "names: found 1 names; expected 4 as for classes"),
        "layer": (dict(pair, ref=write_polygons(folder / "l.gpkg", 32631, []), reflayer="x"), "reflayer: found"),
        "sample": (dict(mode="sample", in_=f["change"]), "neither points nor labelled"),
        "fractions": (dict(mode="sample", in_=f["p"], points=folder / "p.gpkg"), "expected whole numbers: the strata"),
        "size": (dict(mode="sample", in_=f["change"], points=folder / "p.gpkg", sizes=["9:5"]), "sizes: found 5 points of the value 9"),
        "no sample": (dict(mode="sample", labelled=polygons), "without the layers sample and strata"),
    }


def test_what_is_wrong_is_told(maps, tmp_path):
    for name, (parameters, message) in complaints(maps, tmp_path).items():
        done = run(**parameters)
        assert done.returncode != 0, name
        assert message in done.text(), (name, done.text()[-600:])
        assert parts(tmp_path) == [], name


def test_a_failed_run_leaves_the_files_of_the_last_one(maps, tmp_path):
    pair = dict(in_=maps.files["change"], ref=maps.files["change_ref"], out=tmp_path / "o.json", errors=tmp_path / "e.tif")
    run(**pair).ok()
    before = (tmp_path / "o.json").read_bytes(), (tmp_path / "e.tif").read_bytes()
    assert run(**dict(pair, ref=maps.files["ref"])).returncode != 0
    assert ((tmp_path / "o.json").read_bytes(), (tmp_path / "e.tif").read_bytes()) == before
    assert parts(tmp_path) == []
