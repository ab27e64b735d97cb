"""What the benchmarks of change share: the pairs of OSCD as users have them, the applications, figures of merit."""

import glob
import os
import shutil
import subprocess

import numpy as np

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))


def application(name):
    """The command of an application and its environment; an error where it is absent.

    Built in ``build/``, on ``OTB_APPLICATION_PATH``, or installed.
    """
    paths = [os.path.join(ROOT, "build", "lib", "otb", "applications")]
    paths += os.environ.get("OTB_APPLICATION_PATH", "").split(os.pathsep)
    for path in paths:
        if shutil.which("otbcli") and os.path.exists(os.path.join(path, "otbapp_%s.so" % name)):
            return ["otbcli", name], dict(os.environ, OTB_APPLICATION_PATH=path)
    if shutil.which("otbcli_" + name):
        return ["otbcli_" + name], dict(os.environ)
    raise SystemExit("otbcli_%s is not there: run make first" % name)


def run(name, *words):
    """Runs an application; returns what it said. An error with its words when it fails."""
    command, environment = application(name)
    done = subprocess.run(
        command + [str(w) for w in words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise SystemExit("%s failed:\n%s" % (" ".join(command + list(map(str, words))), done.stdout))
    return done.stdout


def cities(data):
    """Names of the pairs of an OSCD folder (``images/<city>/imgs_1``, ``imgs_2``), sorted."""
    found = sorted(os.path.basename(os.path.dirname(p)) for p in glob.glob(os.path.join(data, "images", "*", "imgs_1")))
    if not found:
        raise SystemExit("no pair in %s/images" % data)
    return found


def bands(data, city, date, names):
    """Files of the bands of a date, in that order."""
    files = []
    for name in names:
        match = glob.glob(os.path.join(data, "images", city, "imgs_%d" % date, "*_%s.tif" % name))
        if len(match) != 1:
            raise SystemExit("%s, date %d: %d files of band %s" % (city, date, len(match), name))
        files.append(match[0])
    return files


def labels(data, city):
    """True where a city changed, of the size of its first date."""
    from osgeo import gdal

    gdal.UseExceptions()
    return gdal.Open(os.path.join(data, "labels", city, "cm", city + "-cm.tif")).ReadAsArray() == 2


def read(path):
    """First band of a raster."""
    from osgeo import gdal

    gdal.UseExceptions()
    return gdal.Open(path).ReadAsArray()


def figures(score, truth):
    """AUROC, average precision, and the best F1 over all thresholds. Ties count as one threshold."""
    order = np.argsort(-score, kind="stable")
    hits, values = truth[order], score[order]
    last = np.r_[values[1:] != values[:-1], True]
    tp = np.cumsum(hits)[last].astype(np.float64)
    fp = np.cumsum(~hits)[last].astype(np.float64)
    positive, negative = tp[-1], fp[-1]
    auroc = np.trapz(np.r_[0.0, tp / positive], np.r_[0.0, fp / negative])
    ap = np.sum(np.diff(np.r_[0.0, tp / positive]) * tp / (tp + fp))
    return auroc, ap, np.max(2 * tp / (tp + fp + positive))


def f1(change, truth):
    """F1 of a decision."""
    hit = np.count_nonzero(change & truth)
    return 2.0 * hit / max(1, np.count_nonzero(change) + np.count_nonzero(truth))
