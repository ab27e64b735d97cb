"""The estimators that need no model on other sensors: Landsat (taizhou), aerial RGB (szada), SAR (bern_sar).

``python3 bench/change/others.py [--data <folder>]``. AUROC, AP, best F1, F1 of the automatic threshold.
"""

import argparse
import os
import sys
import tempfile

import numpy as np

sys.path.insert(0, os.path.dirname(__file__))
import common  # noqa: E402


def first(path):
    """First band of a raster of one or several."""
    from osgeo import gdal

    gdal.UseExceptions()
    array = gdal.Open(path).ReadAsArray()
    return array if array.ndim == 2 else array[0]


def sets(data):
    """(name, date 1, date 2, truth, where it is known) of each pair."""
    t = os.path.join(data, "taizhou")
    changed, unchanged = first(os.path.join(t, "change.bmp")) > 0, first(os.path.join(t, "unchanged.bmp")) > 0
    yield "taizhou", os.path.join(t, "2000TM"), os.path.join(t, "2003TM"), changed, changed | unchanged
    for k in "123":
        s = os.path.join(data, "szada", k)
        truth = first(os.path.join(s, "gt.png")) > 0
        yield "szada " + k, os.path.join(s, "im1.png"), os.path.join(s, "im2.png"), truth, np.ones_like(truth)
    b = os.path.join(data, "bern_sar")
    truth = first(os.path.join(b, "bern_gt.bmp")) > 127
    yield "bern_sar", os.path.join(b, "bern_1.bmp"), os.path.join(b, "bern_2.bmp"), truth, np.ones_like(truth)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.path.join(common.ROOT, "..", "shared", "data"))
    parser.add_argument("--estimators", default="cva,irmad,regress")
    parser.add_argument("--smooth", default="1,2.5")
    options = parser.parse_args()
    print("%-12s %-10s %6s %6s %6s %8s %8s" % ("pair", "estimator", "smooth", "AUROC", "AP", "best F1", "auto F1"))
    with tempfile.TemporaryDirectory() as folder:
        out, change = os.path.join(folder, "s.tif"), os.path.join(folder, "c.tif")
        for name, one, two, truth, known in sets(options.data):
            for estimator in options.estimators.split(","):
                for smooth in options.smooth.split(","):
                    common.run("ChangeLikelihood", "-in1", one, "-in2", two, "-estimator", estimator, "-smooth", smooth, "-out", out, "-change", change)
                    score, decision = common.read(out), common.read(change)
                    valid = known & (score != -9999.0)
                    row = common.figures(score[valid], truth[valid]) + (common.f1(decision[valid] == 1, truth[valid]),)
                    print("%-12s %-10s %6s %6.3f %6.3f %8.3f %8.3f" % ((name, estimator, smooth) + row), flush=True)


if __name__ == "__main__":
    main()
