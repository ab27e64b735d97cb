"""Every estimator of ChangeLikelihood on the pairs of OSCD, from their separate band files: one table.

``python3 bench/change/likelihood.py --data <oscd> [--estimators cva,irmad,regress] [--model m.pt ...]``

Rows: AUROC, average precision (AP), best F1 (of the best threshold of each city), F1 of the automatic
threshold; means over cities. Labels serve for scoring only. Each row is one setting of the application;
rows with ``smooth 0`` show the raw score. Models of folds (``--folds file.json``: a model for each city,
one that has not seen it) are run on the cities they did not see.
"""

import argparse
import json
import os
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, os.path.dirname(__file__))
import common  # noqa: E402

SENTINEL2 = ("B02", "B03", "B04", "B08")


def crop(data, city, size, folder):
    """The middle of both dates and of the labels, as files: (files 1, files 2, truth)."""
    from osgeo import gdal

    gdal.UseExceptions()
    first = common.bands(data, city, 1, SENTINEL2)
    grid = gdal.Open(first[0])
    width, height, transform = grid.RasterXSize, grid.RasterYSize, grid.GetGeoTransform()
    x, y = (width - size) // 2, (height - size) // 2
    left, top = transform[0] + x * transform[1], transform[3] + y * transform[5]
    bounds = (left, top + size * transform[5], left + size * transform[1], top)
    files = []
    for date in (1, 2):
        files.append([])
        for name, source in zip(SENTINEL2, common.bands(data, city, date, SENTINEL2)):
            target = os.path.join(folder, "%d_%s.tif" % (date, name))
            gdal.Warp(target, source, outputBounds=bounds, width=size, height=size, resampleAlg="cubic")
            files[-1].append(target)
    return files[0], files[1], common.labels(data, city)[y : y + size, x : x + size]


def evaluate(data, city, words, folder, central):
    """Figures of one run on one city, and its seconds."""
    out, change = os.path.join(folder, "score.tif"), os.path.join(folder, "change.tif")
    if central:
        first, second, truth = crop(data, city, central, folder)
    else:
        first, second = (common.bands(data, city, date, SENTINEL2) for date in (1, 2))
        truth = common.labels(data, city)
    start = time.time()
    common.run(
        "ChangeLikelihood", "-in1", *first, "-in2", *second, "-align", "resample", *words, "-out", out, "-change", change
    )
    seconds = time.time() - start
    score, decision = common.read(out), common.read(change)
    valid = score != -9999.0
    return (*common.figures(score[valid], truth[valid]), common.f1(decision[valid] == 1, truth[valid]), seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.path.join(common.ROOT, "..", "shared", "data", "oscd"))
    parser.add_argument("--estimators", default="cva,mad,irmad,regress")
    parser.add_argument("--smooth", default="0,2.5")
    parser.add_argument("--model", help="model of the estimators that need one")
    parser.add_argument("--folds", help="JSON: {city: model that has not seen it}")
    parser.add_argument("--cities", help="only these, with commas between")
    parser.add_argument("--options", default="", help="more words for the application")
    parser.add_argument("--central", type=int, default=0, help="only the middle of each city, pixels a side")
    parser.add_argument("--per-city", action="store_true")
    options = parser.parse_args()
    names = options.cities.split(",") if options.cities else common.cities(options.data)
    folds = json.load(open(options.folds)) if options.folds else {}
    print("%-34s %6s %6s %8s %8s %9s" % ("", "AUROC", "AP", "best F1", "auto F1", "s a city"))
    with tempfile.TemporaryDirectory() as folder:
        for estimator in options.estimators.split(","):
            for smooth in options.smooth.split(","):
                rows = []
                for city in names:
                    words = ["-estimator", estimator] + (["-smooth", smooth] if smooth else []) + options.options.split()
                    model = folds.get(city, options.model)
                    if model and estimator not in ("cva", "mad", "irmad", "regress", "siroc"):
                        words += ["-model", model]
                    rows.append(evaluate(options.data, city, words, folder, options.central))
                    if options.per_city:
                        print("  %-32s %6.3f %6.3f %8.3f %8.3f %9.1f" % ((city,) + rows[-1]), flush=True)
                name = "%s, smooth %s" % (estimator, smooth or "default")
                print("%-34s %6.3f %6.3f %8.3f %8.3f %9.1f" % ((name,) + tuple(np.mean(rows, 0))), flush=True)


if __name__ == "__main__":
    main()
