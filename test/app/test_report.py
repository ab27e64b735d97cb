"""A report of runs of the applications, from their own files; QGIS opens the project (where it is installed)."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys

import evaluation
import likelihood
import numpy as np
import pytest
from conftest import REPOSITORY, read, run_all, write
from osgeo import gdal, ogr

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


def report(*words, cwd):
    env = dict(os.environ, PYTHONPATH=str(REPOSITORY / "python"))
    done = subprocess.run(
        [sys.executable, "-m", "otbtorch", "report"] + [str(w) for w in words],
        env=env,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout.decode()


def text(path):
    """What a reader sees, with blanks for all kinds of spaces."""
    html = re.sub(r"<style>.*?</style>", "", path.read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def grouped(n):
    return f"{n:,}".replace(",", " ")


@pytest.fixture(scope="module")
def made(models, scene, tmp_path_factory):
    """SiameseCD, ChangeEvaluation and the report of both, in one folder."""
    folder = tmp_path_factory.mktemp("report")
    images = {k: shutil.copy(getattr(scene, k), folder) for k in ("in1", "in2")}
    here = dataclasses.replace(scene, **images)
    paths, run = run_all(models / "unet_sem.pt", folder, here, objects=folder / "objects.gpkg", outxml="run.xml", cwd=folder)
    (folder / "run.log").write_text(run.log)
    change = read(paths["out"])
    reference = np.roll((change != 0) & (change != 255), 2, axis=1).astype(np.uint8)
    write(folder / "reference.tif", reference, kind=gdal.GDT_Byte)
    found = evaluation.evaluate(folder, in_=paths["out"], ref=folder / "reference.tif", block=64, errors=folder / "errors.tif")
    report(
        "--run", "run.xml", "--log", "run.log", "--evaluation", "out.json", "--lang", "en",
        "--out", "report.html", "--qgs", "project.qgs", cwd=folder,
    )  # fmt: skip
    return dict(paths, folder=folder, evaluation=found, objects=folder / "objects.gpkg")


def test_the_report_says_what_the_files_say(made):
    seen, change = text(made["folder"] / "report.html"), read(made["out"])
    figures = made["evaluation"]["pooled"]["metrics"]["binary"]
    low, high = figures["intervals"]["f1"]
    assert f"F1 of change {figures['values']['f1']:.3f} 95 % interval {low:.3f} to {high:.3f}" in seen
    for count in figures["confusion"].values():
        assert grouped(count) in seen
    changed = (change != 0) & (change != 255)
    share = 100 * changed.sum() / (change != 255).sum()
    assert f"{share:.1f} % of the area with data" in seen
    for code in np.unique(change[changed]):
        assert grouped((change == code).sum()) in seen, "the area of every transition"
    package = ogr.Open(str(made["objects"]))
    layer = package.GetLayerByName("changes")
    assert f"Change objects {grouped(layer.GetFeatureCount())} " in seen
    largest = max((f["area_px"], -f["id"]) for f in layer)
    assert f"Object {-largest[1]} " in seen
    assert "Settings of SiameseCD" in seen and "peak memory" in seen and "unet_sem" in seen
    assert not re.findall(r'src="(?!data:)', (made["folder"] / "report.html").read_text())


def test_a_report_of_likelihoods(tmp_path):
    x1, x2, truth = likelihood.pair(np.random.default_rng(31), 90, 110)
    files = likelihood.write_pair(tmp_path, x1, x2)
    likelihood.maps(
        tmp_path, ["out", "pvalue", "change"], smooth=1, objects=tmp_path / "objects.gpkg", outxml=tmp_path / "run.xml", **files
    )
    report("--run", "run.xml", "--lang", "fr", "--out", "report.html", cwd=tmp_path)
    seen = text(tmp_path / "report.html")
    image = gdal.Open(str(tmp_path / "out.tif"))
    threshold = float(image.GetMetadataItem("OTBTORCH_THRESHOLD"))
    wanted = re.escape(f"{threshold:.2f}".replace(".", ",")[:4])
    assert re.search(rf"Seuil {wanted}\d* : ", seen)
    assert "Valeur p" in seen and "Score de changement" in seen and "Les plus douteux" in seen


def test_qgis_opens_the_project(made, tmp_path):
    """All layers valid, in order, styled as the applications say; the folder may be moved."""
    pytest.importorskip("qgis.core", reason="QGIS is not installed")
    code = """
import json, sys
from qgis.core import QgsApplication, QgsProject
application = QgsApplication([], False)
application.initQgis()
project = QgsProject.instance()
told = {"read": project.read(sys.argv[1]), "crs": project.crs().authid(), "layers": []}
for node in project.layerTreeRoot().findLayers():
    layer = node.layer()
    told["layers"].append([layer.isValid(), layer.source(), layer.renderer().type(), node.itemVisibilityChecked(), layer.crs().authid()])
change = [l for l in project.mapLayers().values() if l.source().endswith("out.tif")][0]
told["labels"] = {c.value: c.label for c in change.renderer().classes()}
extent = project.viewSettings().defaultViewExtent()
told["extent"] = [extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()]
print("TOLD" + json.dumps(told))
"""
    moved = tmp_path / "moved" / "run"
    moved.parent.mkdir()
    subprocess.run(["cp", "-r", made["folder"], moved], check=True)
    env = dict(os.environ, QGIS_CUSTOM_CONFIG_PATH=str(tmp_path), XDG_RUNTIME_DIR=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code, moved / "project.qgs"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert b"TOLD" in done.stdout, done.stderr.decode()
    told = json.loads(done.stdout.decode().split("TOLD")[1].splitlines()[0])
    assert told["read"] and told["crs"] == "EPSG:32631"
    names = [source.split("/")[-1].split("|")[0] for _, source, *_ in told["layers"]]
    assert names == ["objects.gpkg", "errors.tif", "out.tif", "sem1.tif", "sem2.tif", "proba.tif", "conf.tif", "in2.tif", "in1.tif"]
    kinds = [kind for _, _, kind, _, _ in told["layers"]]
    assert kinds[:3] == ["categorizedSymbol", "paletted", "paletted"]
    assert kinds[5:] == ["singlebandpseudocolor"] * 2 + ["multibandcolor"] * 2
    assert all(valid and crs == "EPSG:32631" for valid, _, _, _, crs in told["layers"])
    assert all(str(moved) in source for _, source, *_ in told["layers"])
    assert [shown for _, _, _, shown, _ in told["layers"]] == [True, False, True] + [False] * 4 + [True, True]
    assert any(" -> " in label for label in told["labels"].values())
    height, width = read(made["out"]).shape
    assert told["extent"] == [500000, 4800000 - 10 * height, 500000 + 10 * width, 4800000]
