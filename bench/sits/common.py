"""What the benchmarks of time series share: rasters of samples, the application, tables."""

import os
import shutil
import subprocess
import sys

import numpy as np

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
sys.path.insert(0, os.path.join(ROOT, "python"))

NAME = "TimeSeriesClassify"


def application():
    """The command of the application and its environment; (None, None) where it is absent.

    Installed, or built in ``build/``, or on ``OTB_APPLICATION_PATH``.
    """
    paths = os.environ.get("OTB_APPLICATION_PATH", "").split(os.pathsep)
    paths.append(os.path.join(ROOT, "build", "lib", "otb", "applications"))
    for path in paths:
        if shutil.which("otbcli") and os.path.exists(os.path.join(path, "otbapp_%s.so" % NAME)):
            return ["otbcli", NAME], dict(os.environ, OTB_APPLICATION_PATH=path)
    if shutil.which("otbcli_" + NAME):
        return ["otbcli_" + NAME], dict(os.environ)
    return None, None


def write_row(path, samples, nodata=None):
    """Samples ``[N, T, C]`` as a date-major raster of one row, a column a sample."""
    from osgeo import gdal

    gdal.UseExceptions()
    n, steps, bands = samples.shape
    out = gdal.GetDriverByName("GTiff").Create(path, n, 1, steps * bands, gdal.GDT_Float32)
    flat = samples.reshape(n, steps * bands).T.astype(np.float32)
    for i, row in enumerate(flat, 1):
        out.GetRasterBand(i).WriteArray(row[None])
        if nodata is not None:
            out.GetRasterBand(i).SetNoDataValue(nodata)
    out.FlushCache()


def classify(model, inputs, out, masks=()):
    """Runs the application; returns the map of labels.

    Args:
        inputs: ``[(stack, file of dates), ...]``, in the order il, il2 ...
        masks: ``[(number of the sensor, raster, type), ...]``.
    """
    from osgeo import gdal

    gdal.UseExceptions()
    command, environment = application()
    command += ["-model", model, "-out", out, "uint8"]
    for i, (stack, dates) in enumerate(inputs, 1):
        suffix = "" if i == 1 else str(i)
        command += ["-il" + suffix, stack, "-dates" + suffix, dates]
    for i, raster, kind in masks:
        suffix = "" if i == 1 else str(i)
        command += ["-maskl" + suffix, raster, "-masktype" + suffix, kind]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env=environment, check=False)
    if done.returncode:
        raise RuntimeError("%s\n%s" % (" ".join(command), done.stdout[-3000:]))
    return gdal.Open(out).ReadAsArray()
