"""The report: bounded reads, figures that match their numbers, one file that needs nothing else, both languages, the project."""

import base64
import importlib.util
import io
import json
import os
import re
import string
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from osgeo import gdal, ogr, osr
from PIL import Image

from otbtorch import report
from otbtorch.__main__ import main
from otbtorch.report import pictures, rasters, season, vectors
from otbtorch.report.words import LANGUAGES, WORDS, Words

gdal.UseExceptions()

TRANSFORM = (500000.0, 10.0, 0.0, 4800000.0, 0.0, -10.0)
WIDTH, HEIGHT = 210, 160


def write(path, bands, nodata=None, transform=TRANSFORM, epsg=32631, kind=None, options=()):
    bands = np.asarray(bands)
    bands = bands[None] if bands.ndim == 2 else bands
    kinds = {"uint8": gdal.GDT_Byte, "uint16": gdal.GDT_UInt16, "int16": gdal.GDT_Int16}
    out = gdal.GetDriverByName("GTiff").Create(
        str(path), bands.shape[2], bands.shape[1], len(bands), kind or kinds.get(bands.dtype.name, gdal.GDT_Float32), options=list(options)
    )
    if transform is not None:
        out.SetGeoTransform(transform)
    if epsg:
        system = osr.SpatialReference()
        system.ImportFromEPSG(epsg)
        out.SetProjection(system.ExportToWkt())
    for k, band in enumerate(bands):
        out.GetRasterBand(k + 1).WriteArray(band)
        if nodata is not None:
            out.GetRasterBand(k + 1).SetNoDataValue(nodata)
    return str(path)


def write_objects(path, change, proba, name="changes"):
    """Every rectangle of `change` ((x, y, width, height)) as -objects writes it."""
    source = ogr.GetDriverByName("GPKG").CreateDataSource(str(path))
    system = osr.SpatialReference()
    system.ImportFromEPSG(32631)
    layer = source.CreateLayer(name, system, ogr.wkbPolygon)
    for field, kind in (
        ("id", ogr.OFTInteger64),
        ("code", ogr.OFTInteger),
        ("area_px", ogr.OFTInteger64),
        ("area_m2", ogr.OFTReal),
        ("mean_proba", ogr.OFTReal),
    ):
        layer.CreateField(ogr.FieldDefn(field, kind))
    for k, (x, y, w, h) in enumerate(change, 1):
        feature = ogr.Feature(layer.GetLayerDefn())
        for field, value in (("id", k), ("code", 1), ("area_px", w * h), ("area_m2", 100.0 * w * h), ("mean_proba", proba[k - 1])):
            feature.SetField(field, value)
        x0, y0 = TRANSFORM[0] + 10 * x, TRANSFORM[3] - 10 * y
        ring = "%f %f, %f %f, %f %f, %f %f, %f %f" % (x0, y0, x0 + 10 * w, y0, x0 + 10 * w, y0 - 10 * h, x0, y0 - 10 * h, x0, y0)
        feature.SetGeometry(ogr.CreateGeometryFromWkt("POLYGON ((%s))" % ring))
        layer.CreateFeature(feature)
    return str(path)


RECTANGLES = [(20, 15, 30, 20), (100, 40, 12, 12), (150, 100, 40, 8), (60, 110, 5, 5)]
MEANS = [0.97, 0.61, 0.9, 0.75]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A folder with both dates, map, probability, errors, objects and an evaluation of a known confusion."""
    folder = tmp_path_factory.mktemp("scene")
    rng = np.random.default_rng(4)
    date1 = rng.integers(300, 3000, (4, HEIGHT, WIDTH)).astype(np.uint16)
    date2, change = date1.copy(), np.zeros((HEIGHT, WIDTH), np.uint8)
    proba = rng.uniform(0, 0.3, (HEIGHT, WIDTH)).astype(np.float32)
    for (x, y, w, h), p in zip(RECTANGLES, MEANS):
        change[y : y + h, x : x + w] = 1
        date2[:, y : y + h, x : x + w] += 3000
        proba[y : y + h, x : x + w] = p
    change[:, :6], proba[:, :6], date2[:, :, :6] = 255, -1, 0
    errors = np.where(change == 255, 255, change).astype(np.uint8)
    errors[100:108, 150:190] = 2  # the third object is a false alarm
    errors[10:14, 100:130] = 3
    tp, fp, fn = (int((errors == k).sum()) for k in (1, 2, 3))
    tn = int((errors == 0).sum())
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    f1 = 2 * tp / (2 * tp + fp + fn)
    files = {
        "date1": write(folder / "date1.tif", date1, 0),
        "date2": write(folder / "date2.tif", date2, 0),
        "change": write(folder / "change.tif", change, 255),
        "probability": write(folder / "probability.tif", proba, -1),
        "errors": write(folder / "errors.tif", errors, 255),
        "objects": write_objects(folder / "objects.gpkg", RECTANGLES, MEANS),
    }
    threshold = np.linspace(1, 0, 21)
    data = {
        "format": "otbtorch-evaluation",
        "version": 1,
        "software": {"otbtorch": "0.1.0", "otb": "8.1.1", "gdal": "3.6.2"},
        "mode": "score",
        "settings": {"mode": "score", "block": 64, "thr": 0.5, "in": ["probability.tif"], "probability": True},
        "pairs": [
            {
                "name": "probability",
                "files": {"in": "probability.tif", "errors": "errors.tif"},
                "blocks": 6,
                "metrics": {"binary": {"threshold": {"value": 0.5, "decision": ">=", "origin": "given"}}},
            }
        ],
        "pooled": {
            "pixels": {
                "all": WIDTH * HEIGHT,
                "evaluated": tp + fp + fn + tn,
                "masked": 0,
                "no_data": 6 * HEIGHT,
                "no_reference": 0,
                "unlabelled": 0,
            },
            "metrics": {
                "binary": {
                    "values": {"precision": precision, "recall": recall, "f1": f1, "kappa": None},
                    "intervals": {"f1": [f1 - 0.02, f1 + 0.01], "recall": None},
                    "confusion": {"tp": tp, "fp": fp, "fn": fn, "tn": tn},
                    "classes": ["no change", "change"],
                    "matrix": [[tn, fn], [fp, tp]],
                },
                "score": {
                    "values": {"auroc": 0.99987, "ap": 0.9, "prevalence": 0.04},
                    "intervals": {},
                    "curve": {
                        "threshold": threshold.tolist(),
                        "tpr": np.sqrt(1 - threshold).tolist(),
                        "fpr": ((1 - threshold) ** 2).tolist(),
                        "precision": np.linspace(1, 0.04, 21).tolist(),
                    },
                    "histogram": {"low": 0.0, "width": 1 / 128, "no_change": [50] * 128, "change": list(range(128))},
                },
                "calibration": {
                    "values": {"ece": 0.02, "brier": 0.01},
                    "reliability": [
                        {"low": 0, "high": 0.5, "count": 900, "mean_probability": 0.1, "observed": 0.05},
                        {"low": 0.5, "high": 1, "count": 0, "mean_probability": None, "observed": None},
                        {"low": 0.5, "high": 1, "count": 90, "mean_probability": 0.9, "observed": 0.95},
                    ],
                },
            },
        },
    }
    (folder / "evaluation.json").write_text(json.dumps(data))
    files["evaluation"] = str(folder / "evaluation.json")
    return dict(files, folder=folder, confusion=(tp, fp, fn, tn), f1=f1, data=data)


def arguments(scene, *names):
    return [w for n in names for w in ("--" + n, scene[n])]


ALL = ("date1", "date2", "change", "probability", "objects", "evaluation")


def made(scene, out, *more, names=ALL):
    assert main(["report"] + arguments(scene, *names) + ["--out", str(out)] + [str(m) for m in more]) == 0
    return out.read_text(encoding="utf-8")


def complaint(capsys, *words):
    """The message of a run that must fail."""
    assert main(["report"] + [str(w) for w in words]) == 2
    return capsys.readouterr().err


def plain(text):
    """With blanks for all kinds of spaces."""
    return re.sub(r"\s+", " ", text)


class Page(HTMLParser):
    """Tags, what they load, images without alternative text, and the text."""

    VOID = {"meta", "img", "br", "link", "hr", "input"}

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.bare, self.links, self.ids, self.words, self.images = [], [], [], [], set(), [], []
        self.feed(text)
        self.close()
        assert self.open == [], "tags that are not closed"

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        if tag not in self.VOID:
            self.open.append(tag)
        assert tag not in ("script", "link", "iframe", "object", "embed", "base")
        self.loads += [v for k, v in attributes if k in ("src", "srcset", "poster", "data", "background") or (k == "style" and "url(" in v)]
        if tag == "img":
            self.images.append(a)
            if not a.get("alt"):
                self.bare.append(a)
        if tag == "a":
            self.links.append(a.get("href", ""))
        if "id" in a:
            assert a["id"] not in self.ids
            self.ids.add(a["id"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return plain(" ".join(self.words))


# ------------------------------------------------------------------------------------------------------- the page


def test_the_report_holds_all_it_shows(scene, tmp_path):
    """Nothing is loaded, every picture has an alternative text, every link of the contents leads to its section."""
    html = made(scene, tmp_path / "report.html")
    page = Page(html)
    assert page.loads and all(v.startswith("data:image/") for v in page.loads)
    assert not page.bare
    assert not re.search(r"@import|url\(", html)
    inside = [v[1:] for v in page.links if v.startswith("#")]
    assert inside == ["maps", "wrong", "accuracy", "areas", "objects", "run"] and set(inside) <= page.ids
    # Also what is drawn inside the plots.
    for image in page.images:
        if image["src"].startswith("data:image/svg"):
            svg = base64.b64decode(image["src"].split(",", 1)[1]).decode()
            assert "<image" not in svg and "<script" not in svg
            assert not [u for u in re.findall(r'(?:xlink:)?href="([^"]*)"', svg) if not u.startswith("#")]


def test_the_figures_are_those_of_the_evaluation(scene, tmp_path):
    text = Page(made(scene, tmp_path / "report.html")).text
    w, (tp, fp, fn, tn) = Words("en"), scene["confusion"]
    f1 = scene["f1"]
    verdict = text[text.index("F1 of change") :]
    assert verdict.startswith("F1 of change %.3f 95 %% interval %.3f to %.3f" % (f1, f1 - 0.02, f1 + 0.01))
    for n in (tp, fp, fn, tn, tp + fp, tp + fn, tp + fp + fn + tn):
        assert plain(w.integer(n)) in text
    assert "0.99987" in text, "an AUROC is not rounded to 1"
    assert "Kappa –" in text, "what is undefined is a dash"
    # 1289 pixels of change of 100 square metres, of 204 x 160 with data.
    changed = sum(width * height for _, _, width, height in RECTANGLES)
    assert plain(w.area(100.0 * changed)) in text and plain(w.percent(changed / ((WIDTH - 6) * HEIGHT))) in text


def test_without_an_evaluation_maps_areas_histogram_and_objects_are_left(scene, tmp_path):
    html = made(scene, tmp_path / "report.html", names=("date1", "date2", "change", "probability", "objects"))
    page = Page(html)
    assert [v for v in page.links if v.startswith("#")] == ["#maps", "#accuracy", "#areas", "#objects", "#run"]
    assert "No reference was given" in page.text and "Confusion" not in page.text and "ROC" not in page.text
    assert "Histogram" in page.text
    assert not re.search(r"<(div|tbody|table|ul|p|section)[^>]*>\s*</\1>", re.sub(r'<div class="ramp".*?</div>', "", html)), "an empty box"


def test_a_map_alone_makes_a_report(scene, tmp_path):
    html = made(scene, tmp_path / "report.html", names=("change",))
    assert [v for v in Page(html).links if v.startswith("#")] == ["#maps", "#areas", "#run"]
    assert not re.search(r"<(div|tbody|table|ul|p|section)[^>]*>\s*</\1>", html)


def test_the_same_run_makes_the_same_report(scene, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert made(scene, tmp_path / "a.html") == made(scene, tmp_path / "b.html")


def test_worst_places_are_where_the_errors_are(scene, tmp_path):
    errors = rasters.Raster(scene["errors"], "errors")
    found = vectors.worst_places(errors, 4, 40)
    wrong = np.isin(errors.read_integers()[0], (2, 3))
    first = found[0].window
    assert wrong[first.y : first.y + first.height, first.x : first.x + first.width].sum() >= 0.9 * 320, "the false object"
    assert sum(wrong[w.y : w.y + w.height, w.x : w.x + w.width].sum() for _, w in found) == wrong.sum()
    for i, (_, a) in enumerate(found):
        assert all(not vectors._overlap(a, b) for _, b in found[i + 1 :])


def test_objects_largest_and_most_doubtful(scene):
    objects = vectors.Objects(scene["objects"])
    assert [f["id"] for f in objects.largest(3)] == [1, 3, 2]
    assert [f["id"] for f in objects.doubtful(2, 0.7)] == [4, 2]
    assert [f["id"] for f in objects.doubtful(2)] == [2, 4]
    assert objects.area() == (1089, 108900.0) and objects.median() == (144 + 320) / 2


def test_thumbnails_show_their_object(scene):
    """The outline lies on the borders of the changed pixels."""
    objects, date2 = vectors.Objects(scene["objects"]), rasters.Raster(scene["date2"], "date2")
    feature = objects.largest(1)[0]
    window = vectors.window_of(feature.GetGeometryRef(), date2)
    assert (window.width, window.height) == (54, 54) and window.x <= 20 and window.x + 54 >= 50
    blank = np.zeros((window.height * 8, window.width * 8, 3), np.uint8)
    drawn = (pictures.outlined(blank, window, vectors.rings(feature.GetGeometryRef()), date2) == rasters.rgb(pictures.OUTLINE)).all(2)
    rows, columns = np.nonzero(drawn)
    assert abs(columns.min() - 8 * (20 - window.x)) <= 2 and abs(columns.max() - 8 * (50 - window.x)) <= 2
    assert abs(rows.min() - 8 * (15 - window.y)) <= 2 and abs(rows.max() - 8 * (35 - window.y)) <= 2


# ------------------------------------------------------------------------------------------------------ languages


def test_every_string_is_in_both_languages_with_the_same_fields():
    fields = lambda text: sorted(f for _, f, _, _ in string.Formatter().parse(text) if f)  # noqa: E731
    for key, texts in WORDS.items():
        assert len(texts) == len(LANGUAGES) and all(t.strip() for t in texts), key
        assert fields(texts[0]) == fields(texts[1]), key


def test_every_string_that_is_asked_for_is_there():
    folder = os.path.dirname(report.__file__)
    asked = set()
    for name in ("page.py", "maps.py", "accuracy.py", "areas.py", "figures.py", "qgis.py", "command.py", "templates/report.html.j2"):
        with open(os.path.join(folder, name), encoding="utf-8") as stream:
            asked |= set(re.findall(r"""\b(?:w|words)\("([a-z0-9_]+)["]""", stream.read()))
    assert len(asked) > 60 and {k for k in asked if not k.endswith("_")} - set(WORDS) == set()
    from otbtorch.report import command

    assert {"m_" + kind for kind in command._RASTERS + ("objects", "series", "model")} <= set(WORDS)


def test_numbers_as_either_language_writes_them():
    en, fr = Words("en"), Words("fr")
    assert (en.number(0.9711), fr.number(0.9711)) == ("0.971", "0,971")
    assert en.number(0.99975) == "0.99975" and en.number(0.00083) == "0.00083" and en.number(1.0) == "1.000" and en.number(12.345) == "12.3"
    assert en.number(None) == en.number(float("nan")) == "–"
    assert en.integer(1234567) == "1\u202f234\u202f567"
    assert fr.percent(0.1137) == "11,4\u00a0%"
    assert [en.area(v) for v in (950, 23_600, 7_233_000, 8.9e9)] == ["950\u00a0m²", "2.36\u00a0ha", "723.3\u00a0ha", "8\u202f900\u00a0km²"]
    assert fr.degrees(-34.9, -8.0).endswith(" O") and en.degrees(-34.9, -8.0).endswith(" W")


def test_the_french_report_is_french(scene, tmp_path):
    page = Page(made(scene, tmp_path / "rapport.html", "--lang", "fr"))
    assert "Où la carte se trompe" in page.text and "fausse alarme" in page.text
    left = [k for k, (en, fr) in WORDS.items() if en != fr and len(en) > 12 and "{" not in en and en in page.text]
    assert left == []
    assert re.search(r'<html lang="fr">', (tmp_path / "rapport.html").read_text(encoding="utf-8"))


# ---------------------------------------------------------------------------------------------------------- reads


def test_an_overview_reads_pyramids_alone(tmp_path):
    """The full resolution is destroyed after the pyramids were built: whoever read it would fail."""
    rng = np.random.default_rng(2)
    path = write(tmp_path / "large.tif", rng.integers(0, 255, (2048, 2048)).astype(np.uint8), options=["TILED=YES", "COMPRESS=DEFLATE"])
    size = os.path.getsize(path)
    gdal.Open(path).BuildOverviews("NEAREST", [8, 32])  # into a file of their own
    with open(path, "r+b") as stream:
        data = stream.read()
        for tile in range(size // 4, 3 * size // 4, 4096):
            stream.seek(tile)
            stream.write(b"\xff" * 4096)
        assert len(data) == size
    raster = rasters.Raster(path, "image")
    assert raster.picture([1], 120).shape == (1, 120, 120)
    with pytest.raises(report.ReportError, match="cannot be read"):
        raster.read([1])


def test_reads_are_bounded_whatever_the_size(tmp_path):
    """A sparse file of 40000 x 40000 pixels: pictures, samples and places touch few of them."""
    path = str(tmp_path / "huge.tif")
    gdal.GetDriverByName("GTiff").Create(path, 40000, 40000, 1, gdal.GDT_Byte, options=["SPARSE_OK=TRUE", "TILED=YES"]).SetGeoTransform(
        TRANSFORM
    )
    raster = rasters.Raster(path, "map")
    assert raster.picture([1], 760).shape == (1, 760, 760) and raster.pixels_read <= (2 * 760) ** 2
    windows = raster.sample_windows(1 << 22)
    assert len(windows) <= 64 and len({(w.x, w.y) for w in windows}) == len(windows)
    assert max(w.x for w in windows) > 34000 and max(w.y for w in windows) > 34000 and min(w.x for w in windows) < 6000
    raster.pixels_read = 0
    assert vectors.worst_places(raster, 4) == [] and raster.pixels_read <= 4096**2
    assert raster.lacks_pyramids()


def test_counts_are_exact_and_by_strips(scene):
    change = rasters.Raster(scene["change"], "change")
    values = gdal.Open(scene["change"]).ReadAsArray()
    counts = change.counts()
    assert counts.pixels == {0: (values == 0).sum(), 1: (values == 1).sum()} and counts.whole
    assert counts.metres[1] == pytest.approx(100 * (values == 1).sum())


def test_a_sample_estimates_what_is_too_large_to_count(scene, monkeypatch):
    monkeypatch.setattr(rasters, "COUNTED", 1000)
    monkeypatch.setattr(rasters, "SAMPLED", 20 * 20 * 20)
    monkeypatch.setattr(rasters, "SIDE", 20)
    counts = rasters.Raster(scene["change"], "change").counts()
    assert not counts.whole and sum(counts.pixels.values()) == pytest.approx(WIDTH * HEIGHT, rel=0.1)


def test_areas_on_a_geographic_grid(tmp_path):
    """One degree by one degree on WGS 84, against the closed form of the area between two parallels (Snyder 1987, equation 3-12)."""
    path = write(tmp_path / "world.tif", np.ones((100, 100), np.uint8), transform=(10, 0.01, 0, 46, 0, -0.01), epsg=4326)
    a, f = 6378137.0, 1 / 298.257223563
    e = np.sqrt(f * (2 - f))
    q = lambda s: (1 - e**2) * (s / (1 - (e * s) ** 2) + np.arctanh(e * s) / e)  # noqa: E731
    wanted = a**2 * np.radians(1) / 2 * (q(np.sin(np.radians(46))) - q(np.sin(np.radians(45))))
    raster = rasters.Raster(path, "map")
    assert raster.counts().metres[1] == pytest.approx(wanted, rel=1e-7)
    # A hundredth of a degree at 45.5 degrees north: 781.8 m along the parallel (of the radius a cos b, b the reduced latitude).
    reduced = np.arctan((1 - f) * np.tan(np.radians(45.5)))
    assert raster.pixel_size_m() == pytest.approx(np.radians(0.01) * a * np.cos(reduced), rel=1e-9)


def test_dates_on_another_grid_are_laid_under_the_map(scene, tmp_path):
    """Bands of 20 m under a map of 10 m, and beyond its edges."""
    coarse = np.arange(120 * 130, dtype=np.float32).reshape(120, 130)
    path = write(tmp_path / "coarse.tif", coarse, transform=(499900.0, 20.0, 0, 4800100.0, 0, -20.0))
    main_map = rasters.Raster(scene["change"], "change")
    seen = rasters.Raster([scene["date1"], path], "date1").onto(main_map)
    assert (seen.width, seen.height, seen.count) == (WIDTH, HEIGHT, 5)
    values = seen.read([5], rasters.Window(40, 60, 2, 2))
    # Pixel (40, 60) has its centre at 500405 4799395: column 25.25, row 35.25 of the coarse grid, whose pixels have their centres at halves.
    assert values[0, 0, 0] == pytest.approx(34.75 * 130 + 24.75, abs=0.01)


@pytest.mark.parametrize("colours", [3, 250, 4000])
def test_maps_keep_their_colours(colours):
    """To the bit, with a palette and without."""
    rng = np.random.default_rng(colours)
    picture = rng.integers(0, 256, (colours, 3)).astype(np.uint8)[rng.integers(0, colours, (90, 70))]
    file = io.BytesIO(base64.b64decode(pictures.uri(picture).split(",", 1)[1]))
    assert (np.asarray(Image.open(file).convert("RGB")) == picture).all()


def test_classes_fade_and_do_not_vanish():
    values = np.zeros((4, 4), np.uint8)
    values[0, 0] = 1
    legend = [rasters.Entry(0, "", "#ffffff", False), rasters.Entry(1, "", "#000000", True)]
    small = pictures.classes(values, np.ones((4, 4), bool), legend, None, 2)
    assert small.shape == (2, 2, 3) and small[0, 0].tolist() == [191] * 3 and small[1, 1].tolist() == [255] * 3


# ------------------------------------------------------------------------------------------------- places, series


@pytest.mark.parametrize(
    "head,line", [("name,x,y", "A,500405,4799395"), ("name,column,row,size", "A,40,60,30"), ("name,lon,lat", "A,%.9f,%.9f")]
)
def test_places_of_a_table(scene, tmp_path, head, line):
    raster = rasters.Raster(scene["change"], "change")
    if "%" in line:
        line = line % raster.to_degrees(500405, 4799395)
    (tmp_path / "places.csv").write_text("# comment\n%s\n%s\n" % (head, line))
    (place,) = vectors.read_places(str(tmp_path / "places.csv"), raster)
    side = 30 if "size" in head else 128
    assert place == ("A", raster.around(40, 60, side))


def test_places_of_vectors_in_another_projection(scene, tmp_path):
    raster = rasters.Raster(scene["change"], "change")
    longitude, latitude = raster.to_degrees(501000, 4799000)
    (tmp_path / "p.geojson").write_text(
        json.dumps(
            {
                "type": "FeatureCollection",
                "features": [
                    {
                        "type": "Feature",
                        "properties": {"name": "harbour"},
                        "geometry": {"type": "Point", "coordinates": [longitude, latitude]},
                    }
                ],
            }
        )
    )
    (place,) = vectors.read_places(str(tmp_path / "p.geojson"), raster)
    assert place.name == "harbour" and place.window == raster.around(100, 100, 128)


def test_phenology_by_class(tmp_path):
    """NDVI of two classes that are known, with clouds that must not count."""
    dates = ["2020-%02d-01" % m for m in range(1, 8)]
    labels = np.repeat([[1, 2]], 64, axis=0).repeat(32, axis=1).astype(np.uint8)
    ndvi = {1: np.linspace(0.2, 0.8, 7), 2: np.full(7, 0.5)}
    stack, clouds = np.zeros((14, 64, 64), np.int16), np.zeros((7, 64, 64), np.uint8)
    for d in range(7):
        value = np.where(labels == 1, ndvi[1][d], ndvi[2][d])
        stack[2 * d], stack[2 * d + 1] = 1000 * (1 - value), 1000 * (1 + value)  # B4, B8
    stack[6:8], clouds[3] = 777, 1
    write(tmp_path / "labels.tif", labels), write(tmp_path / "stack.tif", stack), write(tmp_path / "clouds.tif", clouds)
    (tmp_path / "dates.txt").write_text("\n".join(dates))
    given = season.Series(str(tmp_path / "stack.tif"), str(tmp_path / "dates.txt"), ["B4", "B8"])
    found = season.profiles(
        given, rasters.Raster(str(tmp_path / "labels.tif"), "labels"), rasters.Raster(str(tmp_path / "clouds.tif"), "mask")
    )
    assert found["name"] == "NDVI" and set(found["classes"]) == {1, 2}
    for label, wanted in ndvi.items():
        median = found["classes"][label]["median"]
        assert np.isnan(median[3])
        assert median[[0, 1, 2, 4, 5, 6]] == pytest.approx(wanted[[0, 1, 2, 4, 5, 6]], abs=1e-3)
    html = tmp_path / "report.html"
    assert (
        main(
            [
                "report",
                "--labels",
                str(tmp_path / "labels.tif"),
                "--series",
                str(tmp_path / "stack.tif"),
                "--dates",
                str(tmp_path / "dates.txt"),
                "--series-mask",
                str(tmp_path / "clouds.tif"),
                "--series-bands",
                "B4",
                "B8",
                "--out",
                str(html),
            ]
        )
        == 0
    )
    page = Page(html.read_text(encoding="utf-8"))
    assert "#season" in page.links and "50.0" in page.text and "2020-01-01 to 2020-07-01" in page.text


def test_transitions_and_corrected_areas(scene, tmp_path):
    """From-to codes of a legend become a matrix of areas; a sample's estimates come first."""
    codes = np.zeros((50, 60), np.uint8)
    codes[:10, :10], codes[20:25, :20] = 2, 3  # forest to field, field to forest (K = 2)
    path = write(tmp_path / "fromto.tif", codes)
    entries = "".join(
        '<paletteEntry value="%d" label="%s" color="#%06x" alpha="255"/>' % (v, n, 40 * v)
        for v, n in (
            (0, "no change"),
            (1, "forest -&gt; forest"),
            (2, "forest -&gt; field"),
            (3, "field -&gt; forest"),
            (4, "field -&gt; field"),
        )
    )
    (tmp_path / "fromto.qml").write_text(
        "<qgis><pipe><rasterrenderer><colorPalette>%s</colorPalette></rasterrenderer></pipe></qgis>" % entries
    )
    areas = {
        "labelled": 300,
        "unlabelled": 0,
        "pixel_area_m2": 100.0,
        "classes": [
            {
                "class": c,
                "name": str(c),
                "mapped_pixels": 100,
                "area_pixels": {"value": 90},
                "area_m2": {"value": v, "half_width": v / 10},
                "users_accuracy": {"value": 0.9, "half_width": 0.05},
                "producers_accuracy": {"value": 0.8, "half_width": None},
            }
            for c, v in ((0, 280000.0), (1, 23000.0))
        ],
    }
    (tmp_path / "areas.json").write_text(json.dumps({"format": "otbtorch-evaluation", "version": 1, "areas": areas, "pairs": []}))
    text = Page(
        made(dict(scene, change=path, evaluation=str(tmp_path / "areas.json")), tmp_path / "r.html", names=("change", "evaluation"))
    ).text
    assert "corrected for map error 2.30 ha ± 2 300 m² (95" in text
    assert "forest → field" in text and "de \\ vers" not in text and "from \\ to forest field Total" in text
    assert re.search(r"forest 0 1\.00 1\.00 field 1\.00 0 1\.00", text), text


def test_several_pairs_have_a_table(scene, tmp_path):
    data = json.loads(json.dumps(scene["data"]))
    one = {"name": "paris", "files": {"in": "a.tif"}, "metrics": {"binary": {"values": {"f1": 0.25, "precision": 0.5, "recall": 0.1666}}}}
    data["pairs"] = [one, dict(one, name="rennes")]
    (tmp_path / "pairs.json").write_text(json.dumps(data))
    text = Page(made(dict(scene, evaluation=str(tmp_path / "pairs.json")), tmp_path / "r.html")).text
    assert re.search(r"paris 0\.500 0\.167 0\.250 – .*rennes.*All together", text)


# -------------------------------------------------------------------------------------------------- run and model


def test_run_and_log_say_what_was_done(scene, tmp_path, monkeypatch):
    parameter = "<parameter><key>%s</key><name>%s</name>%s</parameter>"
    value = "<value>%s</value>"
    rows = "".join(
        [
            parameter % ("in1", "Image of the first date", "<values>%s</values>" % (value % "date1.tif")),
            parameter % ("in2", "Second", "<values>%s</values>" % (value % "date2.tif?&amp;bands=1,2,3")),
            parameter % ("out", "Map", value % "change.tif?&amp;gdal:co:TILED=YES"),
            parameter % ("proba", "Probability", value % "probability.tif"),
            parameter % ("objects", "Objects", value % "objects.gpkg"),
        ]
    )
    text = "<OTB><version>8.1.1</version><application><name>SiameseCD</name>%s</application></OTB>" % rows
    (scene["folder"] / "run.xml").write_text(text)
    (tmp_path / "run.log").write_text(
        "2026-01-02 03:04:05 (INFO) SiameseCD: Device cpu, fp32\nInference: 50% [****   ]\n2026-01-02 03:04:07 (WARNING) SiameseCD: Little memory\n"
        "2026-01-02 03:04:09 (INFO) SiameseCD: Time: 3.2 s, of which model 3.0\n"
    )
    monkeypatch.chdir(tmp_path)  # files are found beside the XML file
    assert main(["report", "--run", str(scene["folder"] / "run.xml"), "--log", "run.log", "--out", "report.html"]) == 0
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Settings of SiameseCD" in page.text and "Image of the first date" in page.text and "Orfeo ToolBox 8.1.1" in page.text
    assert "3.2 s, of which model 3.0" in page.text and "Little memory" in page.text and "[****" not in page.text
    assert "#objects" in page.links


def test_the_model_card_is_inside_and_harmless(scene, models_dir, tmp_path):
    card = tmp_path / "card.md"
    card.write_text(
        "# Card\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n<script>alert(1)</script> <img src='http://x.example/y.png'>\n\n"
        "![logo](http://x.example/z.png) [paper](https://x.example/) [bad](javascript:alert(1)) [near](other.md)\n"
    )
    html = made(scene, tmp_path / "r.html", "--model", models_dir / "unet.pt", "--card", card)
    page = Page(html)  # complains of scripts
    assert all(v.startswith("data:") for v in page.loads)
    assert [v for v in page.links if not v.startswith("#")] == ["https://x.example/"]
    assert "alert(1)" in page.text and "unet.pt" in page.text


# ----------------------------------------------------------------------------------------------------------- QGIS


def test_the_project_opens_from_wherever_it_lies(scene, tmp_path):
    """Relative files, order, styles: those beside the maps, else ones of its own; XML throughout."""
    style = (
        '<qgis><pipe><rasterrenderer type="paletted" band="1"><colorPalette><paletteEntry value="1" label="x &amp; y" color="#123456" alpha="255"/>'
        "</colorPalette></rasterrenderer></pipe><blendMode>0</blendMode></qgis>"
    )
    (scene["folder"] / "change.qml").write_text("<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + style)
    try:
        folder = scene["folder"] / "projects"
        folder.mkdir(exist_ok=True)
        assert main(["report"] + arguments(scene, *ALL) + ["--qgs", str(folder / "project.qgs"), "--title", "Rouen & <Paris>"]) == 0
    finally:
        os.unlink(scene["folder"] / "change.qml")
    root = ElementTree.parse(folder / "project.qgs").getroot()
    assert root.findtext("title") == "Rouen & <Paris>"
    sources = [e.text for e in root.iter("datasource")]
    assert sources == [
        "../objects.gpkg|layername=changes",
        "../errors.tif",
        "../change.tif",
        "../probability.tif",
        "../date2.tif",
        "../date1.tif",
    ]
    assert all(os.path.exists(folder / s.split("|")[0]) for s in sources)
    ids = [e.text for e in root.findall("./projectlayers/maplayer/id")]
    assert [e.get("id") for e in root.iter("layer-tree-layer")] == ids == [e.get("id") for e in root.find("layerorder")]
    kinds = [
        (e.find("pipe/rasterrenderer") if e.get("type") == "raster" else e.find("renderer-v2")).get("type") for e in root.iter("maplayer")
    ]
    assert kinds == ["singleSymbol", "paletted", "paletted", "singlebandpseudocolor", "multibandcolor", "multibandcolor"]
    assert root.find("projectlayers")[2].find(".//paletteEntry").get("label") == "x & y", "the style beside the map"
    assert {e.text for e in root.iter("authid")} == {"EPSG:32631"}
    assert root.findtext("properties/Paths/Absolute") == "false"


def test_bands_of_several_files_are_joined_for_the_project(scene, tmp_path):
    bands = [write(tmp_path / ("b%d.tif" % k), np.full((HEIGHT, WIDTH), 10 * k, np.uint16)) for k in (2, 3)]
    assert (
        main(
            ["report", "--change", scene["change"], "--date1"]
            + bands
            + [scene["date1"] + "?&bands=4", "--bands", "3", "2", "1", "--qgs", str(tmp_path / "p.qgs")]
        )
        == 0
    )
    joined = gdal.Open(str(tmp_path / "p.date1.vrt")).ReadAsArray()
    assert (joined[0] == gdal.Open(scene["date1"]).ReadAsArray()[3]).all() and (joined[1] == 30).all() and (joined[2] == 20).all()
    assert "./p.date1.vrt" in [e.text for e in ElementTree.parse(tmp_path / "p.qgs").getroot().iter("datasource")]
    names = [e.text for e in ElementTree.parse(tmp_path / "p.date1.vrt").getroot().iter("SourceFilename")]
    assert names[1:] == ["b3.tif", "b2.tif"] and not names[0].startswith("/")


# --------------------------------------------------------------------------------------------------------- errors


def test_errors_say_what_to_do(scene, tmp_path, capsys):
    out = ["--out", tmp_path / "r.html"]
    assert "nothing to write; expected --out" in complaint(capsys, "--change", scene["change"])
    assert "ends in .html" in complaint(capsys, "--change", scene["change"], "--out", tmp_path / "r.txt")
    assert "Create it first" in complaint(capsys, "--change", scene["change"], "--out", tmp_path / "no" / "r.html")
    assert "no map" in complaint(capsys, "--date1", scene["date1"], *out)
    assert '--change: found "gone.tif", which does not exist' in complaint(capsys, "--change", "gone.tif", *out)
    assert "which GDAL cannot read" in complaint(capsys, "--change", __file__, *out)
    small = write(tmp_path / "small.tif", np.zeros((20, 20), np.uint8))
    assert "found 20 x 20 pixels" in complaint(capsys, "--change", scene["change"], "--errors", small, *out)
    shifted = write(tmp_path / "shifted.tif", np.zeros((HEIGHT, WIDTH), np.float32), transform=(500005.0,) + TRANSFORM[1:])
    assert "origin 500005" in complaint(capsys, "--change", scene["change"], "--probability", shifted, *out)
    assert "bands 1 to 4" in complaint(capsys, "--change", scene["change"], "--date1", scene["date1"], "--bands", 4, 3, 9, *out)
    (tmp_path / "x.json").write_text("{")
    assert "that it is no JSON" in complaint(capsys, "--change", scene["change"], "--evaluation", tmp_path / "x.json", *out)
    (tmp_path / "x.json").write_text('{"format": "other"}')
    assert "expected otbtorch-evaluation" in complaint(capsys, "--change", scene["change"], "--evaluation", tmp_path / "x.json", *out)
    (tmp_path / "x.json").write_text('{"format": "otbtorch-evaluation", "version": 7}')
    assert "version 7" in complaint(capsys, "--change", scene["change"], "--evaluation", tmp_path / "x.json", *out)
    assert "the GeoPackage that -objects wrote" in complaint(capsys, "--change", scene["change"], "--objects", "gone.gpkg", *out)
    (tmp_path / "x.xml").write_text("<OTB><application><name>BandMath</name></application></OTB>")
    assert 'the application "BandMath"' in complaint(capsys, "--run", tmp_path / "x.xml", *out)
    for text, part in (
        ("a,b\n1,2\n", "The first line names the columns"),
        ("name,x,y\nA,1,2\n", "within the 210 x 160 pixels"),
        ("name,x,y\nA,one,2\n", "x=one"),
        ("name,x,y\n", "no place"),
    ):
        (tmp_path / "places.csv").write_text(text)
        assert part in complaint(capsys, "--change", scene["change"], "--places", tmp_path / "places.csv", *out)
    assert not (tmp_path / "r.html").exists()
    assert "not a TorchScript archive" in complaint(capsys, "--change", scene["change"], "--model", small, *out)


def test_what_python_lacks_is_named(monkeypatch):
    from otbtorch.report import command

    monkeypatch.setitem(command.PACKAGES, "no_such_module", "python3-nosuch")
    with pytest.raises(report.ReportError, match="apt-get install --no-install-recommends python3-nosuch"):
        command._needs(["no_such_module"])


def test_the_pdf_or_what_it_needs(scene, tmp_path, capsys):
    words = arguments(scene, *ALL) + ["--pdf", str(tmp_path / "r.pdf")]
    if importlib.util.find_spec("weasyprint") is None:
        assert "apt-get install --no-install-recommends weasyprint" in complaint(capsys, *words)
        return
    assert main(["report"] + words) == 0
    assert (tmp_path / "r.pdf").read_bytes()[:5] == b"%PDF-"


def test_the_command_line_needs_nothing_but_python():
    """``python3 -m otbtorch inspect`` works where GDAL and matplotlib are not."""
    code = "import sys\nfor m in ('osgeo', 'numpy', 'matplotlib', 'jinja2', 'PIL'): sys.modules[m] = None\nimport otbtorch.report, otbtorch.report.command"
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        env=dict(os.environ, PYTHONPATH=os.path.dirname(os.path.dirname(os.path.dirname(report.__file__)))),
    )
