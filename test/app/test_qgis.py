"""QGIS itself opens the maps: styles are found by default, and pixels have the legend's colours.

Skipped where QGIS's Python is not installed (``python3-qgis``).
"""

import os
import shutil
import subprocess
import sys

import likelihood
import numpy as np
import pytest
from conftest import REPOSITORY, TRANSFORM, read, run_all, texture, write
from osgeo import ogr

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
try:
    from qgis.core import (
        QgsApplication,
        QgsMapRendererSequentialJob,
        QgsMapSettings,
        QgsRasterLayer,
        QgsRectangle,
        QgsVectorLayer,
    )
    from qgis.PyQt.QtCore import QSize
    from qgis.PyQt.QtGui import QColor
except ImportError:
    pytest.skip("QGIS is not installed", allow_module_level=True)


@pytest.fixture(scope="module", autouse=True)
def application(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qgis")
    os.environ["QGIS_CUSTOM_CONFIG_PATH"] = str(folder)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    made = QgsApplication([], False)
    made.initQgis()
    yield made
    made.exitQgis()


@pytest.fixture(scope="module")
def made(models, scene, tmp_path_factory):
    """Outputs of a semantic model, with objects."""
    folder = tmp_path_factory.mktemp("made")
    paths, _ = run_all(models / "unet_sem.pt", folder, scene, objects=folder / "objects.gpkg")
    return dict(paths, objects=folder / "objects.gpkg")


def drawn(layer, path):
    """The layer as QGIS draws it, a pixel a pixel: (H, W, 4)."""
    height, width = read(path).shape[-2:]
    x, dx, _, y, _, dy = TRANSFORM
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setDestinationCrs(layer.crs())
    settings.setOutputSize(QSize(width, height))
    settings.setExtent(QgsRectangle(x, y + height * dy, x + width * dx, y))
    settings.setBackgroundColor(QColor(0, 0, 0, 0))
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    image = job.renderedImage().convertToFormat(5)  # ARGB32: blue first in memory
    bits = image.constBits()
    bits.setsize(image.sizeInBytes())
    pixels = np.frombuffer(bits, np.uint8).reshape(height, image.bytesPerLine() // 4, 4)
    return pixels[:, :width, [2, 1, 0, 3]].copy()


def rgb(colour):
    return [colour.red(), colour.green(), colour.blue(), colour.alpha()]


@pytest.mark.parametrize("name", ["out", "sem1"])
def test_classes_are_drawn_in_their_colours(name, made):
    layer = QgsRasterLayer(str(made[name]), name)
    assert layer.isValid() and layer.renderer().type() == "paletted"
    classes = {c.value: c for c in layer.renderer().classes()}
    assert all(c.label for c in classes.values())
    if name == "out":
        assert classes[0].label == "no change" and classes[0].color.alpha() == 0
        assert " -> " in classes[2].label
    pixels, picture = read(made[name]), drawn(layer, made[name])
    for value in np.unique(pixels):
        seen = picture[pixels == value]
        if value == 255 or classes[value].color.alpha() == 0:
            assert (seen[:, 3] == 0).all(), value
        else:
            assert (seen == rgb(classes[value].color)).all(), value


def test_probability_is_a_ramp_and_no_data_is_not_drawn(made):
    layer = QgsRasterLayer(str(made["proba"]), "probability")
    assert layer.isValid() and layer.renderer().type() == "singlebandpseudocolor"
    shader = layer.renderer().shader().rasterShaderFunction()
    assert (shader.minimumValue(), shader.maximumValue()) == (0, 1)
    stops = shader.colorRampItemList()
    pixels, picture = read(made["proba"]), drawn(layer, made["proba"])
    assert (picture[pixels == -1][:, 3] == 0).all()
    valid = pixels != -1
    for channel, part in enumerate(("red", "green", "blue")):
        values = [getattr(s.color, part)() for s in stops]
        wanted = np.interp(pixels[valid], [s.value for s in stops], values)
        assert np.abs(picture[valid][:, channel] - wanted).max() <= 1.01


def test_objects_are_drawn_by_their_codes(made):
    layer = QgsVectorLayer(f"{made['objects']}|layername=changes", "objects", "ogr")
    assert layer.isValid() and layer.renderer().type() == "categorizedSymbol"
    assert layer.renderer().classAttribute() == "code"
    package = ogr.Open(str(made["objects"]))
    changes = package.GetLayerByName("changes")
    wanted = {f["code"]: f"{f['from']} -> {f['to']}" for f in changes}
    assert {int(c.value()): c.label() for c in layer.renderer().categories()} == wanted
    picture, codes = drawn(layer, made["out"]), read(made["out"])
    assert (picture[(codes != 0) & (codes != 255)][:, 3] > 0).all()
    # The outline has the colour of the map's class.
    raster = QgsRasterLayer(str(made["out"]), "map")
    colours = {c.value: c.color for c in raster.renderer().classes()}
    for category in layer.renderer().categories():
        outline = category.symbol().symbolLayer(0).strokeColor()
        assert rgb(outline) == rgb(colours[int(category.value())])


def test_a_file_of_objects_alone_opens_as_one_layer_with_its_style(made):
    """What is dragged into the window: the table of styles is no layer of its own."""
    layer = QgsVectorLayer(str(made["objects"]), "objects", "ogr")
    assert layer.isValid() and layer.renderer().type() == "categorizedSymbol"
    assert layer.featureCount() > 0


def test_scores_and_p_values_are_ramps(tmp_path):
    x1, x2, _ = likelihood.pair(np.random.default_rng(31), 90, 110)
    files = likelihood.write_pair(tmp_path, x1, x2)
    found, _ = likelihood.maps(tmp_path, ["out", "pvalue", "which"], smooth=1, **files)
    layers = {name: QgsRasterLayer(str(tmp_path / f"{name}.tif"), name) for name in found}
    for name in ("out", "pvalue"):
        assert layers[name].renderer().type() == "singlebandpseudocolor"
    stops = layers["pvalue"].renderer().shader().rasterShaderFunction().colorRampItemList()
    assert [s.label for s in stops] == ["p = 1", "p = 0.1", "p = 0.01", "p = 0.001", "p = 0.0001"]
    labels = [c.label for c in layers["which"].renderer().classes()]
    assert labels == [f"date {k} is the less likely" for k in (1, 2)]


def test_only_ruptures_are_drawn(tmp_path):
    """By their decimal years, which are the second band."""
    rng = np.random.default_rng(3)
    base, files = texture(rng, 2, 60, 60), []
    for k in range(12):
        image = base + 30 * rng.standard_normal(base.shape)
        image[:, 20:40, 20:40] += 2500 * (k >= 8)
        image[:, :5] = 0  # never any data
        files.append(
            write(tmp_path / f"s2_20{15 + k // 4}{1 + 3 * (k % 4):02d}15.tif", image, nodata=0)
        )
    likelihood.maps(tmp_path, ["out", "alarm"], il=files)
    layer = QgsRasterLayer(str(tmp_path / "alarm.tif"), "alarm")
    assert layer.renderer().type() == "singlebandpseudocolor" and layer.renderer().band() == 2
    years = read(tmp_path / "alarm.tif")[1]
    seen = drawn(layer, tmp_path / "alarm.tif")[..., 3] == 255
    assert (seen == (years > 2015)).all()
    assert 100 < seen.sum() < 3000 and (years == 0).any() and (years == -1).any()


@pytest.mark.skipif(
    not shutil.which("qgis") or not shutil.which("xvfb-run"), reason="needs qgis and xvfb-run"
)
def test_the_picture_of_the_readme_can_be_taken(made, scene, tmp_path):
    """A window of QGIS that shows map, probability and objects."""
    words = [sys.executable, "-m", "otbtorch.demo_qgis", "--out", tmp_path / "qgis.png"]
    for key, path in dict(
        image=scene.in2, map=made["out"], probability=made["proba"], objects=made["objects"]
    ).items():
        words += [f"--{key}", path]
    env = dict(os.environ, PYTHONPATH=str(REPOSITORY / "python"))
    env.pop("DISPLAY", None)
    subprocess.run([str(w) for w in words], env=env, check=True, timeout=120)
    picture = read(tmp_path / "qgis.png")
    assert picture.shape[1:] == (620, 1500)
    pixels = picture[:3].reshape(3, -1).T
    probability, change = (QgsRasterLayer(str(made[k]), k) for k in ("proba", "out"))
    stops = probability.renderer().shader().rasterShaderFunction().colorRampItemList()
    low = stops[0].color
    colours = [c.color for c in change.renderer().classes()]
    shown = [c for c in colours if c.alpha()]
    found = [(pixels == rgb(c)[:3]).all(1).sum() for c in shown]
    assert np.count_nonzero(found) > len(found) // 2, "the colours of the map"
    assert (np.abs(pixels.astype(int) - rgb(low)[:3]).max(1) < 40).sum() > 100, "the ramp"
