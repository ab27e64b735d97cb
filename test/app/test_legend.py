"""Legends: colours and names in the files, QGIS styles beside them and in the GeoPackage."""

import os
import subprocess
import xml.etree.ElementTree as ET

import likelihood
import numpy as np
import pytest
from conftest import environment, facts, parts, read, run, run_all, texture, write
from osgeo import gdal, ogr
from sits import CLASSES, case_of, simulation

__all__ = ["case_of", "simulation"]  # fixtures

BINARY, SEMANTIC, TRANSITION = "unet.pt", "unet_sem.pt", "transition.pt"
RAMPS = {"proba", "conf", "confmap", "entropy", "margin", "nvalid"}


def renderer(path):
    """The renderer of a QGIS style, which is well-formed."""
    return ET.parse(path).getroot().find("pipe/rasterrenderer")


def palette(path):
    """``{value: (label, colour, alpha)}`` of a style of classes."""
    found = renderer(path)
    assert found.get("type") == "paletted" and found.get("band") == "1"
    return {
        float(e.get("value")): (e.get("label"), e.get("color"), int(e.get("alpha")))
        for e in found.findall("colorPalette/paletteEntry")
    }


def ramp(path):
    """``[(value, label, colour)]`` of the stops of a style, and the band it draws."""
    found = renderer(path)
    assert found.get("type") == "singlebandpseudocolor"
    stops = found.findall("rastershader/colorrampshader/item")
    stops = [(float(s.get("value")), s.get("label"), s.get("color")) for s in stops]
    assert stops == sorted(stops)
    assert (float(found.get("classificationMin")), float(found.get("classificationMax"))) == (
        stops[0][0],
        stops[-1][0],
    )
    return stops, int(found.get("band"))


def hexadecimal(entry):
    return "#%02x%02x%02x" % tuple(entry[:3])


def colours(path):
    """The colour table of a file as a list, ``None`` where it has none."""
    image = gdal.Open(str(path))
    table = image.GetRasterBand(1).GetColorTable()
    return table and [hexadecimal(table.GetColorEntry(k)) for k in range(table.GetCount())]


def names(path):
    """The category names of a file, ``None`` where it has none."""
    image = gdal.Open(str(path))
    image.GetGeoTransform()  # GDAL 3.6 reads the side file of a TIFF late: not for names alone
    return image.GetRasterBand(1).GetCategoryNames()


def assert_named(path, classes, unseen=()):
    """The file and the style beside it hold these classes, ``{value: (label, colour)}``."""
    styled = palette(path.with_suffix(".qml"))
    assert {v: e[:2] for v, e in styled.items()} == classes
    assert {v for v, e in styled.items() if e[2] == 0} == set(unseen)
    image = gdal.Open(str(path))
    band = image.GetRasterBand(1)
    assert band.GetColorInterpretation() == gdal.GCI_PaletteIndex
    rat = band.GetDefaultRAT()
    for row, (value, (label, colour)) in enumerate(sorted(classes.items())):
        assert colours(path)[int(value)] == colour
        assert names(path)[int(value)] == label
        assert (rat.GetValueAsInt(row, 0), rat.GetValueAsString(row, 1)) == (value, label)
        assert hexadecimal([rat.GetValueAsInt(row, c) for c in (2, 3, 4)]) == colour
    assert rat.GetRowCount() == len(classes)
    usages = [rat.GetUsageOfCol(c) for c in range(6)]
    assert usages == [
        gdal.GFU_MinMax, gdal.GFU_Name, gdal.GFU_Red, gdal.GFU_Green, gdal.GFU_Blue, gdal.GFU_Alpha,
    ]  # fmt: skip


def classes_of(contract, role):
    """``[(value, name)]`` of an output of a contract."""
    for one in contract["properties"]["mlm:output"]:
        if one["otb:role"] == role:
            return [(c["value"], c["name"]) for c in one["classification:classes"]]
    raise AssertionError(role)


@pytest.fixture(scope="module")
def made(models, scene, tmp_path_factory):
    """Function: ``{output: path}`` of a model over the scene, with legends."""
    known = {}

    def make(name):
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            known[name], _ = run_all(models / name, folder, scene)
        return known[name]

    return make


# ---------------------------------------------------------------------------------------------
# Maps of two dates


def test_a_binary_map_takes_name_and_colour_from_its_model(made):
    wanted = {0: ("no-change", "#f0f0f0"), 1: ("change", "#e03c31")}
    assert_named(made(BINARY)["out"], wanted, unseen=[0])


def test_codes_are_named_from_and_to(made, contract_of):
    classes = classes_of(contract_of(SEMANTIC), "sem1_logits")
    path, k = made(SEMANTIC)["out"], len(classes)
    styled = palette(path.with_suffix(".qml"))
    wanted = {0: "no change"}
    for i, (_, before) in enumerate(classes):
        for j, (_, after) in enumerate(classes):
            if i != j:
                wanted[1 + i * k + j] = f"{before} -> {after}"
    assert {v: e[0] for v, e in styled.items()} == wanted
    assert len({e[1] for e in styled.values()}) == len(wanted)
    assert_named(path, {v: e[:2] for v, e in styled.items()}, unseen=[0])
    assert set(np.unique(read(path))) - {255} <= set(wanted)


def test_a_transition_model_also_names_changes_within_a_class(made, contract_of):
    classes = classes_of(contract_of(TRANSITION), "transition_logits")
    styled = palette(made(TRANSITION)["out"].with_suffix(".qml"))
    assert len(styled) == 1 + len(classes) ** 2
    assert styled[1][0] == f"{classes[0][1]} -> {classes[0][1]}"


def test_classes_of_both_dates_have_the_same_colours(made, contract_of):
    paths = made(SEMANTIC)
    one, two = (palette(paths[k].with_suffix(".qml")) for k in ("sem1", "sem2"))
    assert one == two
    wanted = dict(classes_of(contract_of(SEMANTIC), "sem1_logits"))
    assert {v: e[0] for v, e in one.items()} == wanted
    assert len({e[1] for e in one.values()}) == len(wanted)
    assert_named(paths["sem1"], {v: e[:2] for v, e in one.items()})


@pytest.mark.parametrize("name", ["proba", "conf"])
def test_probabilities_are_a_ramp_from_0_to_1_and_the_file_is_left_alone(name, made):
    path = made(BINARY)[name]
    stops, band = ramp(path.with_suffix(".qml"))
    assert band == 1 and stops[0][0] == 0 and stops[-1][0] == 1 and len(stops) == 9
    assert colours(path) is None
    assert not os.path.exists(f"{path}.aux.xml")


@pytest.mark.parametrize("options", ["", "?&gdal:co:COMPRESS=DEFLATE&gdal:co:TILED=YES"])
def test_pixels_and_facts_are_those_of_a_run_without_legend(
    options, made, models, scene, tmp_path
):
    paths, _ = run_all(models / SEMANTIC, tmp_path, scene, options, legend="off")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in paths.values())
    for name, path in paths.items():
        with_legend = made(SEMANTIC)[name]
        assert read(path).tobytes() == read(with_legend).tobytes(), name
        assert facts(path) == facts(with_legend), name
        assert colours(path) is None


def test_a_window_has_the_legend_of_the_whole(made, models, scene, tmp_path):
    options = "?&box=30:41:100:77&gdal:co:COMPRESS=DEFLATE&gdal:co:PREDICTOR=2"
    paths, _ = run_all(models / SEMANTIC, tmp_path, scene, options, outputs=["out"])
    whole = made(SEMANTIC)["out"]
    assert (tmp_path / "out.qml").read_bytes() == whole.with_suffix(".qml").read_bytes()
    assert (read(paths["out"]) == read(whole)[41:118, 30:130]).all()
    assert names(paths["out"]) == names(whole)


def test_a_map_with_colours_is_read_by_otb_as_numbers(made, tmp_path):
    """Not as the red, green and blue of its colour table."""
    path = made(SEMANTIC)["out"]
    subprocess.run(
        ["otbcli_BandMath", "-il", str(path), "-exp", "im1b1", "-out", str(tmp_path / "o.tif"), "int32"],
        env=environment(), check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    assert (read(tmp_path / "o.tif") == read(path)).all()


@pytest.mark.parametrize("kind", ["int16", "float"])
def test_a_type_without_colour_table_keeps_names_and_style(kind, made, models, scene, tmp_path):
    out = tmp_path / "out.tif"
    run(model=models / SEMANTIC, out=[out, kind], **scene.parameters()).ok()
    assert colours(out) is None
    assert names(out)[0] == "no change"
    assert palette(out.with_suffix(".qml")) == palette(made(SEMANTIC)["out"].with_suffix(".qml"))


def test_a_png_has_a_style_and_names_beside_it(made, models, scene, tmp_path):
    out = tmp_path / "out.png"
    run(model=models / SEMANTIC, out=out, **scene.parameters()).ok()
    assert palette(tmp_path / "out.qml") == palette(made(SEMANTIC)["out"].with_suffix(".qml"))
    assert names(out)[0] == "no change"
    assert (read(out) == read(made(SEMANTIC)["out"])).all()
    assert parts(tmp_path) == []


# ---------------------------------------------------------------------------------------------
# Names of files


def test_an_older_style_is_replaced_with_its_map(models, small, tmp_path):
    (tmp_path / "out.qml").write_text("of another map")
    run(model=models / BINARY, out=tmp_path / "out.tif", **small.parameters()).ok()
    assert palette(tmp_path / "out.qml")[1][0] == "change"
    there = {p.name for p in tmp_path.iterdir()}
    assert there == {"out.tif", "out.tif.aux.xml", "out.qml"}


def test_without_legend_a_style_is_left_alone(models, small, tmp_path):
    (tmp_path / "out.qml").write_text("the user's own")
    out = tmp_path / "out.tif"
    run(model=models / BINARY, out=out, legend="off", **small.parameters()).ok()
    assert (tmp_path / "out.qml").read_text() == "the user's own"


def test_outputs_of_one_name_have_no_style(models, small, tmp_path):
    """Both would be drawn in it."""
    outputs = dict(out=tmp_path / "a.png", proba=tmp_path / "a.tif")
    done = run(model=models / BINARY, **outputs, **small.parameters()).ok()
    assert not (tmp_path / "a.qml").exists()
    assert "no QGIS style beside" in done.log


def test_the_style_of_an_input_is_not_replaced(models, small, tmp_path):
    image = gdal.Translate(str(tmp_path / "a.img"), str(small.in1), format="HFA")
    image = None
    (tmp_path / "a.qml").write_text("of the image")
    parameters = dict(small.parameters(), in1=tmp_path / "a.img")
    run(model=models / BINARY, out=tmp_path / "a.tif", **parameters).ok()
    assert (tmp_path / "a.qml").read_text() == "of the image"


def test_a_dot_in_the_name_is_kept(models, small, tmp_path):
    run(model=models / BINARY, out=tmp_path / "a.b.tif", **small.parameters()).ok()
    assert (tmp_path / "a.b.qml").exists()


# ---------------------------------------------------------------------------------------------
# Objects


def styles(path):
    """Rows of the table of styles as dicts; ``None`` where there is no such table."""
    package = ogr.Open(str(path))
    layer = package.GetLayerByName("layer_styles")
    assert package.GetLayer(0).GetName() == "changes"
    return None if layer is None else [feature.items() for feature in layer]


def test_objects_hold_a_style_of_the_codes_that_are_there(models, scene, tmp_path):
    out, objects = tmp_path / "out.tif", tmp_path / "o.gpkg"
    run(model=models / SEMANTIC, out=out, objects=objects, minsize=4, **scene.parameters()).ok()
    (style,) = styles(objects)
    assert (style["f_table_name"], style["f_geometry_column"]) == ("changes", "geom")
    assert (style["f_table_catalog"], style["f_table_schema"]) == ("", "")
    assert style["useAsDefault"] == 1 and style["update_time"]
    found = ET.fromstring(style["styleQML"]).find("renderer-v2")
    assert (found.get("type"), found.get("attr")) == ("categorizedSymbol", "code")
    labels = {int(c.get("value")): c.get("label") for c in found.findall("categories/category")}
    package = ogr.Open(str(objects))
    changes = package.GetLayerByName("changes")
    wanted = {f["code"]: f"{f['from']} -> {f['to']}" for f in changes}
    assert labels == wanted and len(wanted) > 2
    assert len(found.findall("symbols/symbol")) == len(wanted)
    package = gdal.OpenEx(str(objects))
    rows = package.ExecuteSQL("SELECT table_name, data_type FROM gpkg_contents")
    kinds = {row["table_name"]: row["data_type"] for row in rows}
    package.ReleaseResultSet(rows)
    assert kinds == {"changes": "features", "layer_styles": "attributes"}


def test_objects_without_legend_have_no_style(models, small, tmp_path):
    run(
        model=models / BINARY, out=tmp_path / "o.tif", objects=tmp_path / "o.gpkg", legend="off",
        **small.parameters(),
    ).ok()  # fmt: skip
    assert styles(tmp_path / "o.gpkg") is None


# ---------------------------------------------------------------------------------------------
# Series and likelihood


def test_maps_of_a_series(case_of, tmp_path):
    case = case_of("ltae_any")
    paths, _ = case.run(tmp_path)
    styled = palette(paths["out"].with_suffix(".qml"))
    assert {v: e[0] for v, e in styled.items()} == dict(CLASSES)
    assert_named(paths["out"], {v: e[:2] for v, e in styled.items()})
    for name, path in paths.items():
        if name in RAMPS:
            stops, _ = ramp(path.with_suffix(".qml"))
            wanted = len(case.sensors[0].dates) if name == "nvalid" else 1
            assert (stops[0][0], stops[-1][0]) == (0, wanted), name
        elif name != "out":
            assert not path.with_suffix(".qml").exists(), name


def test_merged_classes_are_named_as_asked(case_of, tmp_path):
    case = case_of("ltae_any")
    paths, _ = case.run(tmp_path, ["out"], classes=["1:11+12:crops & co", "31"])
    styled = palette(paths["out"].with_suffix(".qml"))
    assert {v: e[0] for v, e in styled.items()} == {1: "crops & co", 31: "forest"}


def test_maps_of_likelihood(tmp_path):
    rng = np.random.default_rng(31)
    x1, x2, _ = likelihood.pair(rng, 150, 170)
    files = likelihood.write_pair(tmp_path, x1, x2)
    out = tmp_path / "out"
    objects = tmp_path / "o.gpkg"
    found, done = likelihood.maps(
        out, list(likelihood.KINDS), objects=objects, fdr=0.2, smooth=1, **files
    )
    image = gdal.Open(str(out / "out.tif"))
    threshold = float(image.GetMetadataItem("OTBTORCH_THRESHOLD"))
    stops, _ = ramp(out / "out.qml")
    assert stops[4][0] == pytest.approx(threshold, rel=1e-4)
    valid = found["out"][found["out"] != -9999]
    assert np.percentile(valid, 0.01) < stops[0][0] < np.median(valid) < threshold
    assert_named(
        out / "change.tif", {0: ("no change", "#f0f0f0"), 1: ("change", "#d55e00")}, unseen=[0]
    )
    dates = {v: e[0] for v, e in palette(out / "which.qml").items()}
    assert dates == {k: f"date {k} is the less likely" for k in (1, 2)}
    for value, label, _ in ramp(out / "pvalue.qml")[0]:
        assert label == f"p = {10**-value:g}"
    (style,) = styles(objects)
    renderer_v2 = ET.fromstring(style["styleQML"]).find("renderer-v2")
    assert renderer_v2.get("type") == "singleSymbol"


def test_dates_of_ruptures_are_drawn(tmp_path):
    """Decimal years, not indices; where nothing happened, nothing."""
    rng = np.random.default_rng(3)
    files = []
    base = texture(rng, 2, 60, 60)
    for k in range(12):
        image = base + 30 * rng.standard_normal(base.shape)
        image[:, 20:40, 20:40] += 2500 * (k >= 8)
        files.append(write(tmp_path / f"s2_20{15 + k // 4}{1 + 3 * (k % 4):02d}15.tif", image))
    out = tmp_path / "out"
    likelihood.maps(out, ["out", "rupture", "alarm"], il=files)
    for name in ("rupture", "alarm"):
        stops, band = ramp(out / f"{name}.qml")
        assert band == 2
        assert (stops[0][0], stops[-1][0]) == pytest.approx((2015.04, 2017.79), abs=0.01)
        entry = renderer(out / f"{name}.qml").find("rasterTransparency/*/pixelListEntry")
        assert (entry.get("min"), entry.get("percentTransparent")) == ("0", "100")
    assert ramp(out / "out.qml")[0][-1][0] == 10
