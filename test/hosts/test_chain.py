"""Applications chained in memory from Python, with OTB's own bindings (otbApplication) and NumPy.

Debian does not package the bindings; ``test/hosts/build-bindings.sh FOLDER`` builds them, and
``OTBTORCH_SWIG=FOLDER`` (or ``PYTHONPATH``) says where they are. Without them this file is skipped.
"""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from conftest import BIN, DATE1, MODELS

if "OTBTORCH_SWIG" in os.environ:
    sys.path.insert(0, os.environ["OTBTORCH_SWIG"])
try:
    import otbApplication as otb
except ImportError:
    pytest.skip("python bindings of OTB: otbApplication is not installed", allow_module_level=True)

MODEL = str(MODELS / "demo-l7.pt")
SYSTEM = subprocess.run(
    ["sh", "-c", "ls -d /usr/lib/*/otb/applications /usr/lib/otb/applications 2>/dev/null"],
    stdout=subprocess.PIPE,
    text=True,
    check=False,
).stdout.split()
APPLICATIONS = ":".join([str(BIN.parent / "lib" / "otb" / "applications"), *SYSTEM])
otb.Registry.SetApplicationPath(APPLICATIONS)


def application(name, **parameters):
    app = otb.Registry.CreateApplication(name)
    assert app is not None, f"{name} is not in {APPLICATIONS}"
    for key, value in parameters.items():
        app.SetParameterValue(key.replace("_", "."), value)
    return app


def smoothed(date):
    app = application("Smoothing", **{"in": str(date), "type": "mean", "type_mean_radius": 1})
    app.Execute()
    return app


@pytest.fixture(scope="module")
def over_files(pair, tmp_path_factory):
    """Change and probability of the smoothed pair, over files."""
    from osgeo import gdal

    folder = tmp_path_factory.mktemp("files")
    names = []
    for date in pair:
        app = smoothed(date)
        names.append(str(folder / f"{len(names)}.tif"))
        app.SetParameterString("out", names[-1])
        app.WriteOutput()
    app = application("SiameseCD", model=MODEL, in1=[names[0]], in2=[names[1]], ram=128)
    for key in ("out", "proba"):
        app.SetParameterString(key, str(folder / f"{key}.tif"))
    app.ExecuteAndWriteOutput()
    return {k: gdal.Open(str(folder / f"{k}.tif")).ReadAsArray() for k in ("out", "proba")}


def behind(upstream, **parameters):
    """SiameseCD behind two applications."""
    app = application("SiameseCD", model=MODEL, ram=128, **parameters)
    app.EnableParameter("proba")
    for key, up in zip(("in1", "in2"), upstream):
        app.AddImageToParameterInputImageList(key, up.GetParameterOutputImage("out"))
    return app


def region(x, y, width, height):
    wanted = otb.itkRegion()
    wanted["index"][0], wanted["index"][1] = x, y
    wanted["size"][0], wanted["size"][1] = width, height
    return wanted


def test_a_chain_in_memory_gives_the_pixels_of_files(pair, over_files):
    upstream = [smoothed(date) for date in pair]
    app = behind(upstream)
    app.Execute()
    assert np.array_equal(app.GetVectorImageAsNumpyArray("proba")[..., 0], over_files["proba"])
    math = application("BandMath", exp="im1b1 * 3")
    math.AddImageToParameterInputImageList("il", app.GetParameterOutputImage("out"))
    math.Execute()
    assert np.array_equal(math.GetImageAsNumpyArray("out"), over_files["out"] * np.float32(3))


def test_numpy_in_and_out(pair, over_files):
    """Arrays in, an array out with its georeference: ImportVectorImage and ExportImage."""
    upstream = [smoothed(date) for date in pair]
    app = application("SiameseCD", model=MODEL, ram=128)
    kept = [up.ExportImage("out") for up in upstream]
    for key, image in zip(("in1", "in2"), kept):
        assert image["array"].dtype == np.float32
        # Copies: arrays are used where they lie and must outlive the application.
        image["array"] = np.array(image["array"])
        app.ImportVectorImage(key, image, 0)
    app.Execute()
    exported = app.ExportImage("out")
    assert np.array_equal(np.squeeze(exported["array"]), over_files["out"])
    for key in ("origin", "spacing"):
        assert [exported[key][d] for d in (0, 1)] == [kept[0][key][d] for d in (0, 1)]
    # The same instance with other pixels in the array.
    kept[1]["array"][...] = kept[0]["array"]
    app.ImportVectorImage("in2", kept[1], 0)
    app.Execute()
    same = np.squeeze(app.ExportImage("out")["array"])
    assert (same == 1).sum() < (over_files["out"] == 1).sum()


def test_a_region_is_made_by_itself(pair, over_files):
    upstream = [smoothed(date) for date in pair]
    app = behind(upstream, coreg="none")
    app.Execute()
    app.PropagateRequestedRegion("proba", region(150, 160, 30, 20))
    asked = upstream[0].GetImageRequestedRegion("out")
    # Patches of 192 with a halo of 24 on a grid of 144.
    assert [asked["index"][d] for d in (0, 1)] == [120, 120]
    assert [asked["size"][d] for d in (0, 1)] == [192, 192]
    window = application("ExtractROI", startx=150, starty=160, sizex=30, sizey=20)
    window.SetParameterInputImage("in", app.GetParameterOutputImage("proba"))
    window.Execute()
    part = window.GetVectorImageAsNumpyArray("out")[..., 0]
    assert np.array_equal(part, over_files["proba"][160:180, 150:180])


def test_the_same_instance_runs_again(pair, over_files):
    upstream = [smoothed(date) for date in pair]
    app = behind(upstream)
    for threshold in (0.2, 0.8):
        app.SetParameterFloat("thr", threshold)
        app.Execute()
        change = app.GetVectorImageAsNumpyArray("out")[..., 0]
        proba = over_files["proba"]
        expected = np.where(proba < 0, 255, proba >= np.float32(threshold))
        assert np.array_equal(change, expected)
    app.SetParameterString("contract", "no-such.json")
    with pytest.raises(RuntimeError, match="contract"):
        app.Execute()
    app.ClearValue("contract")
    app.DisableParameter("contract")
    app.Execute()
    assert np.array_equal(app.GetVectorImageAsNumpyArray("out")[..., 0], expected)


def test_a_likelihood_behind_and_before_others(pair):
    upstream = [smoothed(date) for date in pair]
    app = application("ChangeLikelihood", ram=128)
    for key, up in zip(("in1", "in2"), upstream):
        app.AddImageToParameterInputImageList(key, up.GetParameterOutputImage("out"))
    app.EnableParameter("change")
    app.Execute()
    score = app.GetVectorImageAsNumpyArray("out")[..., 0]
    change = app.GetVectorImageAsNumpyArray("change")[..., 0]
    valid = score > -9999
    assert valid.mean() > 0.5
    assert set(np.unique(change[valid])) == {0.0, 1.0} and (change[~valid] == 255).all()
    assert score[change == 1].min() >= score[change == 0].max()


def test_beside_torch_in_one_process(pair, over_files):
    """Debian's torch for Python and the applications share one LibTorch."""
    code = f"""
        import torch
        x = torch.nn.functional.conv2d(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 3, 3))
        import otbApplication as otb
        otb.Registry.SetApplicationPath({APPLICATIONS!r})
        app = otb.Registry.CreateApplication("SiameseCD")
        app.SetParameterStringList("in1", [{str(pair[0])!r}])
        app.SetParameterStringList("in2", [{str(pair[1])!r}])
        app.SetParameterString("model", {MODEL!r})
        app.Execute()
        change = app.GetVectorImageAsNumpyArray("out")
        t = torch.from_numpy(change.copy())
        libraries = {{line.split()[-1] for line in open("/proc/self/maps") if "libtorch_cpu" in line}}
        print("torch", float(x.sum()), int((t == 1).sum()) > 0, len(libraries))
    """
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([os.path.dirname(otb.__file__)]))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "torch 324.0 True 1" in done.stdout, done.stdout
