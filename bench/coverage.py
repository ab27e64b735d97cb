"""Do the 95 % intervals of ChangeEvaluation hold the truth in 95 of 100 maps? On simulated maps whose F1 is known.

``python3 bench/coverage.py [--maps 400] [--side 1280] [--block 128]``

Every map is cut into regions of 32 x 32 pixels, at a random offset, each with its own share of change
(uniform to 0.1), of changes found (0.4 to 1) and of false alarms (uniform to 0.04); within a region, change
and errors come in clumps of 4 x 4 pixels. So errors of neighbours are alike, as in real maps, and the F1 in
expectation is 2 TP / (2 TP + FP + FN) with TP = 0.05 x 0.7, FN = 0.05 x 0.3, FP = 0.95 x 0.02. All maps are
given to one run of otbcli_ChangeEvaluation, which reports an interval for each.
"""

import argparse
import json
import os
import sys
import tempfile

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "change"))
import common  # noqa: E402

CLUMP, REGION = 4, 32
TP, FN, FP = 0.05 * 0.7, 0.05 * 0.3, 0.95 * 0.02
KNOWN = {"precision": TP / (TP + FP), "recall": TP / (TP + FN), "f1": 2 * TP / (2 * TP + FP + FN), "iou": TP / (TP + FP + FN)}


def simulate(rng, side):
    """Decision and truth of a map."""
    whole = (side // REGION + 2) * REGION
    regions, clumps = whole // REGION, whole // CLUMP
    rates = [rng.uniform(low, high, (regions, regions)) for low, high in ((0, 0.1), (0.4, 1.0), (0, 0.04))]
    rates = [r.repeat(REGION // CLUMP, 0).repeat(REGION // CLUMP, 1) for r in rates]
    truth = rng.random((clumps, clumps)) < rates[0]
    decision = rng.random((clumps, clumps)) < np.where(truth, rates[1], rates[2])
    y, x = rng.integers(0, REGION, 2)
    return [m.repeat(CLUMP, 0).repeat(CLUMP, 1)[y : y + side, x : x + side] for m in (decision, truth)]


def write(path, values):
    from osgeo import gdal

    gdal.UseExceptions()
    out = gdal.GetDriverByName("GTiff").Create(path, values.shape[1], values.shape[0], 1, gdal.GDT_Byte, ["COMPRESS=DEFLATE"])
    out.GetRasterBand(1).WriteArray(values.astype(np.uint8))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=400)
    parser.add_argument("--side", type=int, default=1280)
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for k in range(options.maps):
            names = [os.path.join(folder, "%s_%d.tif" % (what, k)) for what in ("map", "ref")]
            for name, values in zip(names, simulate(rng, options.side)):
                write(name, values)
            files.append(names)
        out = os.path.join(folder, "out.json")
        words = ["-in", *[f[0] for f in files], "-ref", *[f[1] for f in files], "-block", options.block, "-out", out]
        common.run("ChangeEvaluation", *words)
        pairs = json.load(open(out))["pairs"]
    print("%d maps of %d x %d pixels, %d blocks each" % (options.maps, options.side, options.side, pairs[0]["blocks"]))
    for name, known in KNOWN.items():
        intervals = [p["metrics"]["binary"]["intervals"][name] for p in pairs]
        covered = sum(low <= known <= high for low, high in intervals)
        width = np.mean([high - low for low, high in intervals])
        print("%-10s %.4f covered by %d (%.1f %%), mean width %.4f" % (name, known, covered, 100.0 * covered / len(pairs), width))


if __name__ == "__main__":
    main()
