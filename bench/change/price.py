"""What the estimators of ChangeLikelihood cost: seconds a megapixel, and how near the network alone they come.

``python3 bench/change/price.py [--model data/models/flow-s2.pt] [--size 384]``

A pair of noise of ``size`` pixels a side; the limit is the same number of evaluations of the bare
network, in the same batches and threads (``otbdlBareModel``, built by ``make bench``). Times are of the
whole command, start included. ``loglik`` has gradients, so the bare forwards are no limit of it.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, os.path.dirname(__file__))
import common  # noqa: E402

#: Evaluations of the network for a pair of patches with the default settings, both directions.
EVALUATIONS = {"latent": 20, "cond": 32, "denoise": 32, "odeed": 40, "recon": 60, "pmi": 64, "loglik": 120}


def write(path, cube):
    from osgeo import gdal

    raster = gdal.GetDriverByName("GTiff").Create(path, cube.shape[2], cube.shape[1], cube.shape[0], gdal.GDT_UInt16)
    for b, band in enumerate(cube, 1):
        raster.GetRasterBand(b).WriteArray(band)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.path.join(common.ROOT, "data", "models", "flow-s2.pt"))
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--estimators", default=",".join(EVALUATIONS))
    options = parser.parse_args()
    bare = os.path.join(common.ROOT, "build", "bin", "otbdlBareModel")
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        names = [os.path.join(folder, "%d.tif" % k) for k in (1, 2)]
        for name in names:
            write(name, rng.integers(200, 3000, (4, options.size, options.size)).astype(np.uint16))
        print("%-10s %12s %10s %10s %14s" % ("estimator", "s/megapixel", "seconds", "bare", "application/bare"))
        for estimator in options.estimators.split(","):
            start = time.time()
            log = common.run(
                "ChangeLikelihood", "-in1", names[0], "-in2", names[1], "-model", options.model,
                "-estimator", estimator, "-batch", "2", "-out", os.path.join(folder, "out.tif"))  # fmt: skip
            seconds = time.time() - start
            patches = int(re.search(r"Patches: (\d+) inferred", log).group(1))
            count = patches * EVALUATIONS[estimator]
            if os.path.exists(bare):
                alone = float(subprocess.run([bare, options.model, str(count), str(options.threads), "2"], capture_output=True, text=True, check=True).stdout)
            else:
                alone = float("nan")
            print("%-10s %12.1f %10.1f %10.1f %14.2f" % (estimator, seconds / options.size**2 * 1e6, seconds, alone, seconds / alone), flush=True)


if __name__ == "__main__":
    main()
