"""The applications as objects of pyotb, in memory with its slices and arithmetic.

pyotb is on PyPI (``pip install pyotb``) and needs OTB's bindings: see test_chain.py.
"""

import os
import sys

import numpy as np
import pytest
from conftest import BIN, MODELS
from osgeo import gdal

if "OTBTORCH_SWIG" in os.environ:
    sys.path.insert(0, os.environ["OTBTORCH_SWIG"])
try:
    import otbApplication  # noqa: F401
except ImportError:
    pytest.skip("python bindings of OTB: otbApplication is not installed", allow_module_level=True)

# It finds applications when it is imported.
SYSTEM = [f"/usr/lib/{name}/otb/applications" for name in os.listdir("/usr/lib") if "linux" in name]
os.environ["OTB_APPLICATION_PATH"] = ":".join([str(BIN.parent / "lib/otb/applications"), *SYSTEM])
try:
    import pyotb
except ImportError:
    pytest.skip("pyotb is not installed", allow_module_level=True)

MODEL = str(MODELS / "demo-l7.pt")


@pytest.fixture(scope="module")
def change(pair):
    """The change map and probabilities of the pair, over files."""
    folder = pair[1].parent
    names = {key: str(folder / f"pyotb-{key}.tif") for key in ("out", "proba")}
    pyotb.SiameseCD({"in1": [str(pair[0])], "in2": [str(pair[1])], "model": MODEL, **names})
    assert all(os.path.exists(name) for name in names.values()), "outputs with a name are written"
    return {key: gdal.Open(name).ReadAsArray() for key, name in names.items()}


def behind(pair, **more):
    """SiameseCD behind two slices, which are ExtractROI in memory."""
    first, second = (pyotb.Input(str(date))[:, :, :] for date in pair)
    return pyotb.SiameseCD({"in1": [first], "in2": [second], "model": MODEL, **more})


def test_it_is_an_application_of_pyotb(pair, change):
    app = behind(pair)
    assert app.shape[:2] == change["out"].shape
    assert np.array_equal(np.squeeze(app.to_numpy()), change["out"])


def test_slices_and_arithmetic(pair, change):
    app = behind(pair)
    rows, columns = slice(100, 160), slice(30, 120)
    assert np.array_equal(np.squeeze(app[rows, columns].to_numpy()), change["out"][rows, columns])
    assert np.array_equal(np.squeeze((app * 2 + 1).to_numpy()), change["out"] * 2.0 + 1.0)
    # What it is made from, beside what it made.
    image = pyotb.Input(str(pair[0]))[:, :, :]
    both = pyotb.SiameseCD({"in1": [image], "in2": [str(pair[1])], "model": MODEL})
    masked = pyotb.BandMath({"il": [image, both], "exp": "im2b1 == 1 ? im1b1 : 0"})
    band = gdal.Open(str(pair[0])).ReadAsArray()[0]
    assert np.array_equal(np.squeeze(masked.to_numpy()), np.where(change["out"] == 1, band, 0))


def test_other_outputs_in_memory(pair, change):
    app = behind(pair)
    app.app.EnableParameter("proba")
    app.execute()
    assert np.array_equal(np.squeeze(app["proba"].to_numpy()), change["proba"])


def test_parameters_may_change_and_write(pair, change, tmp_path):
    app = behind(pair)
    app.set_parameters(thr=0.9)
    app.execute()
    expected = np.where(change["proba"] < 0, 255, change["proba"] >= np.float32(0.9))
    assert np.array_equal(np.squeeze(app.to_numpy()), expected)
    app.write(str(tmp_path / "late.tif"), pixel_type="uint8")
    written = gdal.Open(str(tmp_path / "late.tif"))
    assert np.array_equal(written.ReadAsArray(), expected)
    assert written.GetRasterBand(1).GetNoDataValue() == 255
    assert sorted(p.name for p in tmp_path.iterdir() if "part" in p.name) == []
