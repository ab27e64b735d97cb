"""The applications in QGIS Processing, through QGIS's own OTB provider: ``qgis_process`` and PyQGIS.

Two set-ups: the OTB folder that ``otbtorch qgis-folder`` makes, and OTB's own launcher with the folder
of the applications, as where they are installed into the system. Skipped where QGIS or its OTB provider
is not there.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import types

import numpy as np
import pytest
from conftest import BIN, DATE1, MODELS, REPOSITORY
from osgeo import gdal

os.environ["QT_QPA_PLATFORM"] = "offscreen"
PROCESS = "/usr/bin/qgis_process.bin"  # Debian's wrapper adds an option that it does not know
PLUGINS = "/usr/share/qgis/python/plugins"
try:
    sys.path.append(PLUGINS)
    import otbprovider  # noqa: F401
    from qgis.core import (
        QgsApplication,
        QgsCoordinateReferenceSystem,
        QgsProcessingException,
        QgsProcessingFeedback,
        QgsProject,
        QgsRasterLayer,
        QgsVectorLayer,
    )
    from qgis.PyQt.QtCore import QCoreApplication
except ImportError:
    pytest.skip("QGIS is not installed", allow_module_level=True)
if not os.path.exists(PROCESS) or not shutil.which("otbQgisDescriptor"):
    pytest.skip("QGIS or otb-qgis is not installed", allow_module_level=True)

from otbtorch.qgis.folder import find_applications  # noqa: E402

gdal.UseExceptions()
APPLICATIONS = find_applications()
NAMES = ("ChangeEvaluation", "ChangeLikelihood", "SiameseCD", "TimeSeriesClassify")
CROPS = MODELS / "sits-s2-crops.pt"
DEMO = MODELS / "demo-l7.pt"


# ------------------------------------------------------------------------------------------------ set-ups


def command(*words, **env):
    env = dict(os.environ, PYTHONPATH=str(REPOSITORY / "python"), OTBTORCH_BIN=str(BIN), **env)
    return subprocess.run([str(w) for w in words], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="session")
def room(tmp_path_factory):
    """A home, and both set-ups as roots of profiles: ``room / "private"``, ``room / "system"``."""
    room = tmp_path_factory.mktemp("qgis")
    (room / "home").mkdir()
    (room / "run").mkdir(mode=0o700)
    os.environ.update(HOME=str(room / "home"), XDG_RUNTIME_DIR=str(room / "run"))
    private = room / "private" / "profiles" / "default"
    done = command(sys.executable, "-m", "otbtorch", "qgis-folder", room / "otb", "--profile", private)
    assert done.returncode == 0, done.stdout

    # As in the system: OTB's launcher, descriptions of all, one folder of applications.
    plain = room / "plain"
    (plain / "bin").mkdir(parents=True)
    (plain / "share" / "otb").mkdir(parents=True)
    (plain / "bin" / "otbApplicationLauncherCommandLine").symlink_to(shutil.which("otbApplicationLauncherCommandLine"))
    (plain / "share" / "otb" / "description").symlink_to(room / "otb" / "share" / "otb" / "description")
    system = room / "system" / "profiles" / "default" / "QGIS"
    system.mkdir(parents=True)
    (system / "QGIS3.ini").write_text(
        "[PythonPlugins]\notbprovider=true\n[Processing]\n"
        f"Configuration\\OTB_FOLDER={plain}\nConfiguration\\OTB_APP_FOLDER={APPLICATIONS}\n"
    )
    return room


@pytest.fixture(scope="session")
def processing(room):
    """Processing in this process, with the first set-up's profile."""
    os.environ["QGIS_CUSTOM_CONFIG_PATH"] = str(room / "private")
    QCoreApplication.setOrganizationName("QGIS")
    QCoreApplication.setApplicationName("QGIS3")
    application = QgsApplication([], False)
    application.initQgis()
    from processing.core.Processing import Processing

    Processing.initialize()
    sys.path.append(str(room / "private" / "profiles" / "default" / "python" / "plugins"))
    import otbtorch_styles

    plugin = otbtorch_styles.classFactory(None)  # what QGIS does with a plugin of a profile
    plugin.initProcessing()
    import processing as module

    yield types.SimpleNamespace(
        run=lambda name, given, feedback=None: run(module, name, given, feedback), runAndLoadResults=module.runAndLoadResults
    )
    plugin.unload()


def run(module, name, given, feedback=None):
    """processing.run, whose log is told when it fails."""
    feedback = feedback or QgsProcessingFeedback()
    try:
        return module.run(name, given, feedback=feedback)
    except QgsProcessingException as error:
        raise QgsProcessingException(feedback.textLog() + str(error)) from None


def algorithm(name):
    found = QgsApplication.processingRegistry().algorithmById(name)
    assert found is not None, name
    return found


@pytest.fixture(scope="session")
def start(room):
    """Function: runs qgis_process with a set-up. Returns the finished process; ``out`` holds all it printed."""

    def start(setup, *words):
        return command(PROCESS, *words, QGIS_CUSTOM_CONFIG_PATH=str(room / setup))

    return start


@pytest.fixture(scope="session")
def scene(room):
    """A pair of four bands whose right half changes, at two dates, a mask, and what changed."""
    rng = np.random.default_rng(7)
    height, width = 140, 164
    coarse = rng.normal(size=(4, 18, 21))
    before = 1500 + 300 * coarse.repeat(8, 1).repeat(8, 2)[:, :height, :width] + 20 * rng.normal(size=(4, height, width))
    after = before + 20 * rng.normal(size=before.shape)
    truth = np.zeros((height, width), np.uint8)
    truth[60:80, 90:120] = 1
    after[:, truth == 1] += np.array([900.0, -700.0, 800.0, -900.0])[:, None]
    mask = np.ones((height, width), np.uint8)
    mask[:, :10] = 0
    folder = room / "scene"
    folder.mkdir()
    made = {}
    for name, pixels in dict(date1=before, date2=after, truth=truth[None], mask=mask[None]).items():
        path = folder / f"{name}.tif"
        kind = gdal.GDT_Byte if pixels.dtype == np.uint8 else gdal.GDT_Float32
        dataset = gdal.GetDriverByName("GTiff").Create(str(path), width, height, len(pixels), kind)
        dataset.SetGeoTransform((500000.0, 10.0, 0.0, 4800000.0, 0.0, -10.0))
        dataset.SetProjection(QgsCoordinateReferenceSystem("EPSG:32631").toWkt())
        dataset.WriteArray(pixels)
        made[name] = str(path)
        dataset = None
    return made


@pytest.fixture(scope="session")
def models(room):
    folder = room / "networks"
    done = command(sys.executable, "-m", "otbtorch.testing", folder)
    assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture(scope="session")
def series(room):
    """A corner of the simulated season: stack, dates, validity."""
    whole, corner = room / "season", room / "corner"
    done = command(sys.executable, "-m", "otbtorch.recipes.demo_series", "--out", whole)
    assert done.returncode == 0, done.stdout
    corner.mkdir()
    for name in ("s2.tif", "s2_mask.tif"):
        gdal.Translate(str(corner / name), str(whole / name), srcWin=[20, 30, 60, 50])
    shutil.copy(whole / "s2_dates.txt", corner)
    return dict(il=[str(corner / "s2.tif")], dates=str(corner / "s2_dates.txt"), maskl=[str(corner / "s2_mask.tif")])


def read(path):
    dataset = gdal.Open(str(path))
    return dataset.ReadAsArray(), dataset.GetRasterBand(1).GetNoDataValue()


def pixels(path):
    return read(path)[0]


# ------------------------------------------------------------------------------------------------ descriptors


def test_the_build_describes_the_applications_as_they_are(room):
    """The files of the build are those that would be made now; QGIS's folder holds them beside OTB's."""
    built = BIN.parent / "share" / "otb" / "description"
    if not built.is_dir():
        built = room / "fresh"  # an installation without them
    done = command(sys.executable, "-m", "otbtorch.qgis.descriptors", "--applications", APPLICATIONS, "--out", room / "fresh")
    assert done.returncode == 0, done.stdout
    for name in NAMES:
        text = (room / "fresh" / f"{name}.txt").read_text()
        assert (built / f"{name}.txt").read_text() == text
        assert (room / "otb" / "share" / "otb" / "description" / f"{name}.txt").read_text() == text
    lines = (room / "otb" / "share" / "otb" / "description" / "algs.txt").read_text().splitlines()
    assert len(lines) == len(set(lines)) and len(lines) > 100


def test_the_folder_is_renewed_not_doubled(room):
    target = room / "otb" / "share" / "otb" / "description"
    before = {p.name: p.read_text() for p in target.iterdir()}
    done = command(sys.executable, "-m", "otbtorch", "qgis-folder", room / "otb")
    assert done.returncode == 0, done.stdout
    assert {p.name: p.read_text() for p in target.iterdir()} == before
    (room / "full").mkdir()
    (room / "full" / "mine").touch()
    refused = command(sys.executable, "-m", "otbtorch", "qgis-folder", room / "full")
    assert refused.returncode == 2 and "holds something else" in refused.stdout


def test_a_setup_without_otb_qgis_says_what_to_install(room, tmp_path):
    (tmp_path / "otbApplicationLauncherCommandLine").symlink_to(shutil.which("otbApplicationLauncherCommandLine"))
    done = command(sys.executable, "-m", "otbtorch", "qgis-folder", tmp_path / "otb", PATH=str(tmp_path))
    assert done.returncode == 2 and "otbQgisDescriptor is not installed" in done.stdout and "otb-qgis" in done.stdout


def test_qgis_lists_the_applications_beside_those_of_otb(start):
    for setup in ("private", "system"):
        text = start(setup, "list").stdout
        assert {line.split()[0] for line in text.splitlines() if "otb:" in line} >= {"otb:" + n for n in NAMES} | {"otb:BandMath"}
    text = start("private", "list").stdout
    for name in (
        "model:Pair to change objects",
        "model:Series to land-cover map",
        "model:Pair to likelihood and report",
        "script:otbtorch_report",
    ):
        assert name in text


def test_a_dialog_asks_for_what_is_needed_and_for_no_more(processing):
    """Optional outputs are not made unless asked for; what has no default is not set; objects are a layer."""
    for name in NAMES:
        parameters = {p.name(): p for p in algorithm("otb:" + name).parameterDefinitions()}
        assert "outputpixeltype" not in parameters  # one type for all outputs
        asked = {k for k, p in parameters.items() if p.isDestination() and p.createByDefault()}
        assert asked == {"SiameseCD": {"out"}, "ChangeLikelihood": {"out"}, "TimeSeriesClassify": {"out"}, "ChangeEvaluation": set()}[name]
    parameters = {p.name(): p for p in algorithm("otb:ChangeLikelihood").parameterDefinitions()}
    assert parameters["thr"].defaultValue() is None and parameters["logsnr.low"].defaultValue() is None
    assert parameters["smooth"].defaultValue() == -1 and parameters["objects"].type() == "vectorDestination"
    assert parameters["calibrate"].defaultFileExtension() == "json"


# ------------------------------------------------------------------------------------------------ applications


def test_siamese_with_its_outputs(processing, scene, models, tmp_path):
    given = dict(in1=[scene["date1"]], in2=[scene["date2"]], model=str(models / "unet_sem.pt"))
    least = processing.run("otb:SiameseCD", dict(given, out="TEMPORARY_OUTPUT"))
    everything = {k: str(tmp_path / f"{k}.tif") for k in ("out", "proba", "sem1", "sem2", "conf")}
    more = dict(objects=str(tmp_path / "objects.gpkg"), mask=scene["mask"], thr=0.4, window=3, tta="d4", align="resample", coreg="none")
    more.update(
        minsize=5.0, fill=2.0, simplify=0.5, opening=1, sizeunit="px", device="cpu", precision="fp32", batch=2, blend="crop", legend="on"
    )
    made = processing.run("otb:SiameseCD", dict(given, **everything, **more))
    assert set(least) == {"out"} and set(made) == set(everything) | {"objects"}
    out, nodata = read(made["out"])
    assert out.dtype == np.uint8 and nodata == 255 and (out[:, :10] == 255).all() and (out[:, 10:] != 255).all()
    assert pixels(made["proba"]).dtype == np.float32  # types are each output's own
    assert pixels(least["out"]).shape == out.shape and len(np.unique(pixels(least["out"]))) > 1
    objects = QgsVectorLayer(made["objects"], "objects", "ogr")
    assert objects.featureCount() > 0 and min(f["area_px"] for f in objects.getFeatures()) >= 5


def test_series_with_its_outputs(processing, series, tmp_path):
    least = processing.run("otb:TimeSeriesClassify", dict(il=series["il"], dates=series["dates"], model=str(CROPS), out="TEMPORARY_OUTPUT"))
    listed = tmp_path / "two models.txt"
    shutil.copy(CROPS, tmp_path / "again.pt")
    listed.write_text(f"{CROPS}\nagain.pt\n")
    everything = {k: str(tmp_path / f"{k}.tif") for k in ("out", "confmap", "probamap", "features", "entropy", "margin", "nvalid")}
    contract = json.loads(command(sys.executable, "-m", "otbtorch", "inspect", CROPS, "--json").stdout)["contract"]["properties"]
    if not any(o["otb:role"] == "features" for o in contract["mlm:output"]):
        del everything["features"]
    bands = " ".join(b["name"] if isinstance(b, dict) else b for b in contract["mlm:input"][0]["bands"])
    assert " " in bands
    given = dict(series, model=str(CROPS), bands=bands, masktype="invalid", datesfrom="auto")
    made = processing.run("otb:TimeSeriesClassify", dict(given, **everything))
    assert set(made) == set(everything)
    labels = pixels(made["out"])
    assert labels.shape == (50, 60) and labels.shape == pixels(least["out"]).shape
    values = sorted(c["value"] for o in contract["mlm:output"] for c in o.get("classification:classes", []))
    assert set(np.unique(labels)) <= {0, *values}
    assert pixels(made["confmap"]).dtype == np.float32 and len(pixels(made["probamap"])) == len(values)
    # Lists of words arrive as one: some classes, merged and named.
    some = processing.run(
        "otb:TimeSeriesClassify", dict(given, classes=f"1:{values[0]}+{values[1]}:two together\n2:{values[2]}", out="TEMPORARY_OUTPUT")
    )
    assert set(np.unique(pixels(some["out"]))) <= {0, 1, 2}
    # An ensemble from a file whose name has a space.
    both = processing.run(
        "otb:TimeSeriesClassify", dict(given, model=str(listed), out="TEMPORARY_OUTPUT", mutual=str(tmp_path / "mutual.tif"))
    )
    assert (pixels(both["out"]) == labels).all() and np.abs(pixels(both["mutual"])[labels > 0]).max() < 1e-5


def test_likelihood_with_its_outputs(processing, scene, tmp_path):
    given = dict(in1=[scene["date1"]], in2=[scene["date2"]])
    least = processing.run("otb:ChangeLikelihood", dict(given, out="TEMPORARY_OUTPUT"))
    everything = {k: str(tmp_path / f"{k}.tif") for k in ("out", "pvalue", "change", "which")}
    more = dict(
        objects="TEMPORARY_OUTPUT", calibrate=str(tmp_path / "calibration.json"), fit=str(tmp_path / "fit.json"), mask=scene["mask"]
    )
    made = processing.run("otb:ChangeLikelihood", dict(given, **everything, **more, smooth=1.0, fdr=0.1, norm="mahalanobis", seed=3))
    assert set(made) == set(everything) | {"objects", "calibrate"} and set(least) == {"out"}
    assert made["objects"].endswith(".shp") and json.loads(pathlib.Path(made["calibrate"]).read_text())
    truth, change = pixels(scene["truth"])[:, 10:], pixels(made["change"])[:, 10:]
    assert (change[truth == 1] == 1).mean() > 0.9 and (change[truth == 0] == 1).mean() < 0.1
    calibrated = processing.run(
        "otb:ChangeLikelihood",
        dict(
            given,
            out="TEMPORARY_OUTPUT",
            pvalue="TEMPORARY_OUTPUT",
            smooth=1.0,
            mask=scene["mask"],
            norm="mahalanobis",
            seed=3,
            alpha=0.05,
            calibration=made["calibrate"],
        ),
    )
    assert pixels(calibrated["pvalue"]).max() > 0


def test_what_stands_for_a_zero_is_a_zero(processing, scene, tmp_path):
    """QGIS passes no 0: other numbers that say the same give the very maps that 0 gives on a command line."""
    from otbtorch import launch
    from otbtorch.qgis.descriptors import INSTEAD_OF_ZERO

    given = dict(in1=[scene["date1"]], in2=[scene["date2"]])
    instead = {k: float(v) for (a, k), v in INSTEAD_OF_ZERO.items() if a == "ChangeLikelihood" and v and k in ("smooth", "clip")}
    made = processing.run("otb:ChangeLikelihood", dict(given, out=str(tmp_path / "qgis.tif"), **instead))
    launch.run("ChangeLikelihood", dict(given, out=tmp_path / "line.tif", smooth=0, clip=0))
    launch.run("ChangeLikelihood", dict(given, out=tmp_path / "other.tif"))
    assert (pixels(made["out"]) == pixels(tmp_path / "line.tif")).all()
    assert (pixels(made["out"]) != pixels(tmp_path / "other.tif")).any()
    truth = dict(ref=[scene["truth"]], mode="binary", **{"in": [scene["truth"]]})
    found = processing.run(
        "otb:ChangeEvaluation", dict(truth, draws=int(INSTEAD_OF_ZERO["ChangeEvaluation", "draws"]), out=str(tmp_path / "e.json"))
    )
    text = pathlib.Path(found["out"]).read_text()
    launch.run("ChangeEvaluation", dict(truth, draws=0, out=tmp_path / "line.json"))
    figures = [json.loads(t) for t in (text, (tmp_path / "line.json").read_text())]
    assert figures[0]["pooled"] == figures[1]["pooled"] if "pooled" in figures[0] else figures[0].keys() == figures[1].keys()


def test_series_of_changes(processing, tmp_path):
    rng = np.random.default_rng(3)
    base, files = 1000 + 200 * rng.normal(size=(2, 40, 50)), []
    for k in range(12):
        image = base + 30 * rng.normal(size=base.shape)
        image[:, 10:30, 10:30] += 2500 * (k >= 8)
        path = tmp_path / f"s2_20{15 + k // 4}{1 + 3 * (k % 4):02d}15.tif"
        gdal.GetDriverByName("GTiff").Create(str(path), 50, 40, 2, gdal.GDT_Float32).WriteArray(image)
        files.append(str(path))
    outputs = {k: str(tmp_path / f"{k}.tif") for k in ("out", "rupture", "alarm")}
    made = processing.run("otb:ChangeLikelihood", dict(il=files, masktype="invalid", **outputs))
    found = pixels(made["rupture"])
    assert (found[0, 12:28, 12:28] == 9).mean() > 0.9 and len(pixels(made["alarm"])) == 6


def test_evaluation_with_its_outputs(processing, scene, tmp_path):
    shifted = tmp_path / "shifted.tif"
    gdal.Translate(str(shifted), scene["truth"])
    dataset = gdal.Open(str(shifted), gdal.GA_Update)
    dataset.WriteArray(np.roll(dataset.ReadAsArray(), 3, 1))
    dataset = None
    outputs = dict(out=str(tmp_path / "e.json"), csv=str(tmp_path / "e.csv"), errors="TEMPORARY_OUTPUT")
    made = processing.run(
        "otb:ChangeEvaluation", dict(mode="binary", ref=[scene["truth"]], inpos="1", inneg="0", **outputs, **{"in": [str(shifted)]})
    )
    assert set(made) == set(outputs) and os.path.getsize(made["csv"]) > 0
    kinds = pixels(made["errors"])
    assert [(kinds == k).sum() for k in (2, 3)] == [60, 60]  # 3 columns of 20 on either side
    drawn = processing.run(
        "otb:ChangeEvaluation",
        dict(mode="sample", ref=[scene["truth"]], points="TEMPORARY_OUTPUT", sizes="0:40\n1:20", seed=5, **{"in": [str(shifted)]}),
    )
    assert QgsVectorLayer(drawn["points"], "points", "ogr").featureCount() == 60
    areas = processing.run(
        "otb:ChangeEvaluation", dict(mode="sample", labelled=drawn["points"], out=str(tmp_path / "areas.json"), **{"in": [str(shifted)]})
    )
    assert json.loads(pathlib.Path(areas["out"]).read_text())


def as_a_dialog(name, given):
    """Parameters as the dialog passes them: whatever is left alone with its default."""
    values = {}
    for p in algorithm(name).parameterDefinitions():
        if p.type() == "OTBParameterChoice":
            values[p.name()] = p.options[0]
        elif p.isDestination():
            values[p.name()] = "TEMPORARY_OUTPUT" if p.createByDefault() else None
        else:
            values[p.name()] = p.defaultValue()
    return dict(values, **given)


def test_a_dialog_that_is_left_alone(processing, scene, models, series, tmp_path):
    """Choices and numbers that nobody touched are passed all the same: none may be taken for a wish."""
    pair = dict(in1=[scene["date1"]], in2=[scene["date2"]])
    runs = {
        "otb:SiameseCD": dict(pair, model=str(models / "unet.pt")),
        "otb:ChangeLikelihood": pair,
        "otb:TimeSeriesClassify": dict(series, model=str(CROPS)),
        "otb:ChangeEvaluation": {"in": [scene["truth"]], "ref": [scene["truth"]], "out": str(tmp_path / "e.json")},
    }
    for name, given in runs.items():
        made = processing.run(name, as_a_dialog(name, given))
        assert os.path.exists(made["out"]), name


# ------------------------------------------------------------------------------------------------ names with spaces


def spaced(scene, models, room):
    folder = room / "with a space"
    folder.mkdir(exist_ok=True)
    shutil.copy(models / "unet.pt", folder / "my model.pt")
    shutil.copy(scene["date1"], folder / "date 1.tif")
    (folder / "change map.tif").unlink(missing_ok=True)
    words = [f"in1={folder / 'date 1.tif'}", f"in2={scene['date2']}", f"out={folder / 'change map.tif'}"]
    return folder / "my model.pt", words, folder / "change map.tif"


def test_names_with_spaces(start, scene, models, room):
    model, words, out = spaced(scene, models, room)
    done = start("private", "run", "otb:SiameseCD", "--", *words, f"model={model}")
    assert done.returncode == 0 and out.exists(), done.stdout


def test_names_with_spaces_in_the_system(start, scene, models, room):
    """There QGIS cuts the name of the model: the run fails and says at what; quotes mend it."""
    model, words, out = spaced(scene, models, room)
    done = start("system", "run", "otb:SiameseCD", "--", *words, f"model={model}")
    cut = str(model).split(" ")[0]
    assert done.returncode != 0 and not out.exists()
    assert f'model: found no file at "{cut}"' in done.stdout
    done = start("system", "run", "otb:SiameseCD", "--", *words, f'model="{model}"')
    assert done.returncode == 0 and out.exists(), done.stdout


# ------------------------------------------------------------------------------------------------ failures, progress


@pytest.mark.parametrize("setup", ["private", "system"])
def test_a_failed_run_is_seen(setup, start, scene, models, tmp_path):
    """QGIS does not look at exit codes. An older file of the output's name is neither shown as the result nor lost."""
    out = tmp_path / "change.tif"
    out.write_bytes(b"older")
    words = [f"in1={scene['date1']}", f"in2={scene['date2']}", f"model={models / 'unet.pt'}", f"out={out}"]
    done = start(setup, "run", "otb:SiameseCD", "--", *words, "thr=7")
    assert done.returncode != 0, done.stdout
    assert "(FATAL) SiameseCD" in done.stdout and "thr: found 7" in done.stdout, done.stdout
    assert "Results" not in done.stdout
    assert out.read_bytes() == b"older" and not list(tmp_path.glob("*.part*"))


def test_a_run_that_does_not_begin_is_seen(start, scene, tmp_path):
    """Refused by OTB before the application has a word: the provider of the system, a parameter that is no number."""
    words = [f"in1={scene['date1']}", f"in2={scene['date2']}", f"out={tmp_path / 'o.tif'}", "fit=a.json", "estimator=nonsense"]
    for setup in ("private", "system"):
        done = start(setup, "run", "otb:ChangeLikelihood", "--", *words)
        assert done.returncode != 0 and "nonsense" in done.stdout and "Results" not in done.stdout


def test_a_failure_of_another_application_is_seen(start, scene, tmp_path):
    """With the folder that qgis-folder makes, whose launcher stands before OTB's."""
    out = tmp_path / "o.tif"
    done = start("private", "run", "otb:BandMath", "--", f"il={scene['truth']}", f"out={out}", "exp=im1b7")
    assert done.returncode != 0 and "(FATAL) BandMath" in done.stdout, done.stdout


def test_the_bar_moves(processing, room, tmp_path):
    """Lines of progress reach QGIS while the application works, and rise."""
    pair = []
    for k in range(2):
        pair.append(str(tmp_path / f"{k}.tif"))
        gdal.Translate(pair[-1], str(DATE1), width=1300, height=1100)
    seen = []
    feedback = QgsProcessingFeedback()
    feedback.progressChanged.connect(lambda percent: seen.append((percent, time.monotonic())))
    given = dict(in1=pair[:1], in2=pair[1:], model=str(DEMO), coreg="none", out=str(tmp_path / "out.tif"))
    processing.run("otb:SiameseCD", given, feedback=feedback)
    end = time.monotonic()
    values = [v for v, _ in seen]
    assert len(set(values)) >= 4 and values == sorted(values) and values[-1] == 100
    assert any(0 < v < 60 and end - t > 0.3 for v, t in seen)


# ------------------------------------------------------------------------------------------------ styles, models


def test_results_open_with_their_styles(processing, scene, models, tmp_path):
    """As Processing loads them at the end of a run, under names that QGIS chose."""
    QgsProject.instance().clear()
    outputs = dict.fromkeys(("out", "proba", "sem1", "objects"), "TEMPORARY_OUTPUT")
    processing.runAndLoadResults(
        "otb:SiameseCD", dict(in1=[scene["date1"]], in2=[scene["date2"]], model=str(models / "unet_sem.pt"), **outputs)
    )
    layers = {layer.name(): layer for layer in QgsProject.instance().mapLayers().values()}
    assert set(layers) == {"Change map", "Change probability", "Classes of the first date", "Change objects"}
    assert layers["Change probability"].renderer().type() == "singlebandpseudocolor"
    assert {c.label for c in layers["Classes of the first date"].renderer().classes()} >= {"water", "vegetation"}
    assert all(c.label for c in layers["Change map"].renderer().classes())
    categories = layers["Change objects"].renderer().categories()
    assert categories and all(" -> " in c.label() for c in categories)
    QgsProject.instance().clear()


def test_model_of_pair_to_objects(start, pair, tmp_path):
    outputs = dict(change="c.tif", probability="p.tif", objects="o.gpkg")
    words = [f"detect:{k}={tmp_path / v}" for k, v in outputs.items()]
    done = start("private", "run", "model:Pair to change objects", "--", f"date1={pair[0]}", f"date2={pair[1]}", f"model={DEMO}", *words)
    assert done.returncode == 0, done.stdout
    objects = QgsVectorLayer(str(tmp_path / "o.gpkg"), "objects", "ogr")
    assert objects.featureCount() > 10 and min(f["area_px"] for f in objects.getFeatures()) >= 4
    assert QgsRasterLayer(str(tmp_path / "p.tif")).isValid() and set(np.unique(pixels(tmp_path / "c.tif"))) <= {0, 1, 255}


def test_model_of_series_to_map(start, series, tmp_path):
    outputs = dict(labels="l.tif", confidence="c.tif", valid_dates="v.tif")
    words = [f"classify:{k}={tmp_path / v}" for k, v in outputs.items()]
    words += [f"series={series['il'][0]}", f"dates={series['dates']}", f"masks={series['maskl'][0]}", f"model={CROPS}"]
    done = start("private", "run", "model:Series to land-cover map", "--", *words)
    assert done.returncode == 0, done.stdout
    labels, confidence = pixels(tmp_path / "l.tif"), pixels(tmp_path / "c.tif")
    assert len(np.unique(labels)) > 1 and ((confidence > 0) == (labels > 0)).all()


def test_model_of_likelihood_and_report(processing, scene, tmp_path):
    """With layers under QGIS's own names, objects a Shapefile; the page holds what it was given."""
    outputs = dict.fromkeys(("score:score", "score:pvalue", "score:change", "score:objects"), "TEMPORARY_OUTPUT")
    page = tmp_path / "report.html"
    given = dict(date1=[scene["date1"]], date2=[scene["date2"]], title="The Harbour", **{"report:report": str(page)}, **outputs)
    made = processing.run("model:Pair to likelihood and report", given)
    assert made["score:objects"].endswith(".shp") and set(made) >= {*outputs, "report:report"}
    text = page.read_text()
    assert "The Harbour" in text and "data:image" in text
    count = QgsVectorLayer(made["score:objects"], "objects", "ogr").featureCount()
    assert count > 0 and f">{count}<" in text.replace(" ", "")


def test_a_model_stops_where_a_step_fails(start, scene, tmp_path):
    words = [f"date1={scene['date1']}", f"date2={scene['date2']}", f"model={DEMO}"]  # 4 bands for a model of 6
    words += [f"detect:{k}={tmp_path / k}.tif" for k in ("change", "probability")] + [f"detect:objects={tmp_path / 'o.gpkg'}"]
    done = start("private", "run", "model:Pair to change objects", "--", *words)
    assert done.returncode != 0 and "found 4 band(s)" in done.stdout, done.stdout
    assert not list(tmp_path.iterdir())


def test_a_report_that_fails_says_why(processing, scene):
    with pytest.raises(QgsProcessingException, match="no map"):
        processing.run("script:otbtorch_report", dict(date1=[scene["date1"]], out="TEMPORARY_OUTPUT"))


# ------------------------------------------------------------------------------------------------ the window

WINDOW = """
import json, os
import processing
import qgis.utils
from qgis.core import QgsProject
from qgis.PyQt.QtCore import QTimer

job = json.loads(os.environ["OTBTORCH_TEST_JOB"])
told, kept = [], []

def begin():
    dialog = processing.createAlgorithmDialog("otb:SiameseCD", job["runs"][len(told)])
    kept.append(dialog)
    dialog.algorithmFinished.connect(lambda good, made: QTimer.singleShot(300, lambda: end(good)))
    dialog.show()
    dialog.runButton().click()

def end(good):
    told.append([good, {l.name(): l.renderer().type() for l in QgsProject.instance().mapLayers().values()}])
    if len(told) < len(job["runs"]):
        begin()
        return
    with open(job["out"], "w") as stream:
        json.dump(dict(told=told, plugins=qgis.utils.active_plugins), stream)
    QgsProject.instance().clear()
    os._exit(0)

QTimer.singleShot(1500, begin)
"""


@pytest.mark.skipif(not shutil.which("qgis") or not shutil.which("xvfb-run"), reason="needs qgis and xvfb-run")
def test_the_window_of_an_application(room, scene, models, tmp_path):
    """A person's way: the dialog, "Run". No layer and a failure of a run that fails; layers in the project with their styles of one that does not."""
    script = tmp_path / "window.py"
    script.write_text(WINDOW)
    outputs = dict.fromkeys(("proba", "objects"), "TEMPORARY_OUTPUT")
    given = dict(in1=[scene["date1"]], in2=[scene["date2"]], model=str(models / "unet_sem.pt"), **outputs)
    job = dict(runs=[dict(given, thr=7.0), dict(given, thr=0.5)], out=str(tmp_path / "told.json"))
    env = dict(OTBTORCH_TEST_JOB=json.dumps(job), QT_QPA_PLATFORM="xcb")
    words = ["xvfb-run", "-a", "-s", "-screen 0 1280x1024x24", "timeout", "90", "qgis", "--nologo"]
    done = command(*words, "--profiles-path", room / "private", "--code", script, **env)
    assert done.returncode == 0 and (tmp_path / "told.json").exists(), done.stdout
    found = json.loads((tmp_path / "told.json").read_text())
    assert {"otbprovider", "otbtorch_styles"} <= set(found["plugins"])
    styled = {"Change map": "paletted", "Change probability": "singlebandpseudocolor", "Change objects": "categorizedSymbol"}
    assert found["told"] == [[False, {}], [True, styled]]
