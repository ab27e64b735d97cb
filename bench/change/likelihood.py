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


def evaluate(data, city, words, folder):
    """Figures of one run on one city, and its seconds."""
    out, change = os.path.join(folder, "score.tif"), os.path.join(folder, "change.tif")
    start = time.time()
    common.run(
        "ChangeLikelihood",
        "-in1", *common.bands(data, city, 1, SENTINEL2),
        "-in2", *common.bands(data, city, 2, SENTINEL2),
        "-align", "resample", *words, "-out", out, "-change", change,
    )  # fmt: skip
    seconds = time.time() - start
    truth, score, decision = common.labels(data, city), common.read(out), common.read(change)
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
                    rows.append(evaluate(options.data, city, words, folder))
                    if options.per_city:
                        print("  %-32s %6.3f %6.3f %8.3f %8.3f %9.1f" % ((city,) + rows[-1]), flush=True)
                name = "%s, smooth %s" % (estimator, smooth or "default")
                print("%-34s %6.3f %6.3f %8.3f %8.3f %9.1f" % ((name,) + tuple(np.mean(rows, 0))), flush=True)


if __name__ == "__main__":
    main()
