"""Train the shipped classifiers of time series on one WorldCereal patch.

    python3 -m otbtorch.recipes.train_sits_default FOLDER [--out data/models] [--table]

FOLDER holds the NetCDF files of the patch (Flanders, 64 x 64 pixels, 2017-08 to 2018-11, MIT). Two
networks come out: Sentinel-1 + Sentinel-2 (TWINNS) and Sentinel-2 alone (one of its streams), each
with its card. They demonstrate what a model file is made of; one patch is no product.
"""

import argparse
import os
import sys
import tempfile
import time

import numpy as np

from .. import series
from .. import train_sits as ts
from . import worldcereal

WINDOW = 5
GRID = {"start": "02-15", "end": "11-15", "step": 15}
NETWORK = {"width": 24, "features": 32}
OPTIONS = dict(epochs=12, patience=12, batch=64, rate=1e-3)
SENSOR_BANDS = {"s2": worldcereal.S2_10M, "s2_20m": worldcereal.S2_20M, "s1": worldcereal.S1}
# Value, name, colour. Crops with 96, 31 and 25 pixels in one to four fields (other leguminous
# crops, cabbages, potatoes) are too few to be learned and tested apart: they are left out. The 107
# pixels of buildings join what is no cropland either.
CLASSES = (
    (1, "maize", "E6B800"),
    (2, "permanent grass", "6AA84F"),
    (3, "no cropland", "7F7F7F"),
)
CODES = {1: "crop type 1200", 2: "land cover 13 (crop type 9120)", 3: "land cover 60 and 99"}
# Blocks of 8 x 8 pixels: . trains, v stops and calibrates, T tests. A pixel counts only if all its
# window lies in blocks of its own kind, so that no window is shared. The test blocks of the three
# divisions do not overlap; each has its share of all classes.
SPLITS = (
    """
    TTT....T
    TTT....T
    TTT...TT
    vvv...TT
    v.....TT
    ......TT
    .....vvv
    .....vvv
    """,
    """
    ........
    ........
    ........
    Tvvv....
    Tvvvv...
    TTvvv...
    TTTTTTT.
    TTTTTTT.
    """,
    """
    ...TTTTv
    v..TTTTv
    v..TTvvv
    vTTTTvvv
    vTTTT...
    ........
    ........
    ........
    """,
)
BLOCK = 8
MODELS = {
    "sits-s1s2-crops": ("s1", "s2"),
    "sits-s2-crops": ("s2",),
}


def reference(folder):
    """The raster of classes, 0 where a pixel is left out."""
    from osgeo import gdal

    gdal.UseExceptions()
    cover, crop = (gdal.Open(os.path.join(folder, n + ".tif")).ReadAsArray().astype(int)
                   for n in ("landcover", "croptype"))
    labels = np.zeros(cover.shape, np.uint8)
    labels[crop == 1200] = 1
    labels[cover == 13] = 2
    labels[np.isin(cover, (60, 99))] = 3
    return labels


def parts(split, shape, window=WINDOW):
    """0 train, 1 validation, 2 test, -1 left out (the window meets another kind of block)."""
    blocks = np.array([[".vT".index(c) for c in row] for row in SPLITS[split].split()])
    kind = np.kron(blocks, np.ones((BLOCK, BLOCK), int))
    if kind.shape != tuple(shape):
        raise ValueError("the division is made for %d x %d pixels" % kind.shape[::-1])
    r = window // 2
    padded = np.pad(kind, r, mode="edge")
    views = np.lib.stride_tricks.sliding_window_view(padded, (window, window))
    alone = (views == kind[:, :, None, None]).all((2, 3))
    return np.where(alone, kind, -1)


def load(folder):
    """``(Samples with windows, rows, columns)`` of the labelled pixels of a converted patch."""
    labels = reference(folder)
    rows, columns = np.nonzero(labels)
    like = os.path.join(folder, "landcover.tif")

    def path(name):
        return os.path.join(folder, name)

    sensors = []
    for name, stack, nodata in (
        ("s1", "s1_20m.tif", None), ("s2", "s2_10m.tif", 0.0), ("s2_20m", "s2_20m.tif", 0.0),
    ):
        dates = series.read_dates(path(name[:2] + "_dates.txt"))
        values = series.read_stack(path(stack), dates, like)
        valid = None
        if name != "s1":
            mask = series.read_stack(path("s2_scl.tif"), dates, like, "near")[:, 0]
            valid = series.windows(series.mask_valid(mask, "scl"), rows, columns, WINDOW)
        sensors.append(ts.Sensor(name, list(SENSOR_BANDS[name]), dates,
                                 series.windows(values, rows, columns, WINDOW), valid, nodata))
    samples = ts.Samples(sensors, labels[rows, columns].astype(np.int64), rows * 64 + columns)
    return samples, rows, columns


def choose(samples, wanted):
    """The sensors ``wanted`` only, gap-filled."""
    sensors = [s for s in samples.sensors if s.name in wanted]
    chosen = ts.Samples(sensors, samples.labels, samples.groups, samples.names)
    return chosen, ts.prepare(chosen, "twinns", "grid", GRID)


def train(samples, rows, columns, wanted, split, seed, log=None):
    """One network on one division; the dictionary of ``train_sits.trained``."""
    chosen, prepared = choose(samples, wanted)
    part = parts(split, (64, 64))[rows, columns]
    options = ts.Options(log=log, **OPTIONS)
    result = ts.trained(prepared, samples.labels - 1, part, len(CLASSES), seed, options, **NETWORK)
    result.update(prepared=prepared, sensors=chosen.sensors,
                  counts=[np.bincount(samples.labels[part == p] - 1, minlength=len(CLASSES))
                          for p in range(3)])
    return result


def forest(samples, rows, columns, wanted, split, seed):
    """OTB's Random Forest on the same division, on the gap-filled series of the pixel."""
    _, prepared = choose(samples, wanted)
    part = parts(split, (64, 64))[rows, columns]
    features, labels = prepared.centre(), samples.labels - 1
    said = ts.random_forest(features[part == 0], labels[part == 0], features[part == 2], seed)
    return ts.Figures.of(labels[part == 2], said, len(CLASSES))


KINDS = (
    ("TWINNS, S1 + S2", ("s1", "s2"), train),
    ("one stream of TWINNS, S2", ("s2",), train),
    ("Random Forest (OTB), S1 + S2", ("s1", "s2"), forest),
    ("Random Forest (OTB), S2", ("s2",), forest),
    ("Random Forest (OTB), S1", ("s1",), forest),
    ("Random Forest (OTB), S2 with its 20 m bands", ("s2", "s2_20m"), forest),
)


def compare(samples, rows, columns, seeds=3, say=print, figures_of=None):
    """The table: rows of (label, figures), seed i on division i.

    ``figures_of(result, seed)`` may make the figures of a trained network itself.
    """
    table = []
    for label, wanted, how in KINDS:
        figures = []
        for seed in range(seeds):
            start = time.time()
            result = how(samples, rows, columns, wanted, seed, seed)
            if how is train:
                result = figures_of(result, seed) if figures_of else result["figures"]
            figures.append(result)
            say("%s, seed %d: OA %.3f, macro F1 %.3f (%.0f s)"
                % (label, seed, figures[-1].accuracy, figures[-1].macro_f1, time.time() - start))
        table.append((label, figures))
    return table


def declare(name, result):
    """The contract of a trained network."""
    sensors = result["sensors"]
    # The image list il is Sentinel-2, il2 Sentinel-1; the network's first argument is Sentinel-1.
    order = [2, 1] if len(sensors) == 2 else [1]
    architecture = "TWINNS" if len(sensors) == 2 else "one stream of TWINNS"
    return ts.contract(
        name, result["prepared"], sensors, result["limits"], list(CLASSES), result["temperature"],
        result["features"], order=order,
        architecture="%s (width %d, features %d)"
        % (architecture, NETWORK["width"], NETWORK["features"]),
        license="Apache-2.0",
        training_data="One patch of 640 m x 640 m in Flanders, 15 February to 15 November 2018 "
                      "(WorldCereal, MIT; modified Copernicus Sentinel data 2017-2018). For "
                      "demonstration only.",
        gsd_m=10, recipe="python3 -m otbtorch.recipes.train_sits_default",
        citation="D. Ienco et al., ISPRS Journal 158, 2019 (TWINNS)")


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python3 -m otbtorch.recipes.train_sits_default",
        description="Train and export the classifiers of time series that are shipped.")
    parser.add_argument("folder", help="NetCDF files of the patch, or what was converted from them")
    parser.add_argument("--out", default="data/models", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--split", type=int, default=0, choices=range(len(SPLITS)),
                        help="division into blocks (default: %(default)s)")
    parser.add_argument("--table", action="store_true", help="the table of three seeds, no models")
    parser.add_argument("--verbose", action="store_true", help="a line an epoch")
    args = parser.parse_args(argv)

    import torch

    # One core: sums in another order would give other weights.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    start = time.time()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder
        if not os.path.exists(os.path.join(folder, "landcover.tif")):
            folder = scratch
            print("\n".join(worldcereal.convert(args.folder, folder)))
        samples, rows, columns = load(folder)
    names = [c[1] for c in CLASSES]
    if args.table:
        print(ts.table(compare(samples, rows, columns), names))
        return 0
    for name, wanted in MODELS.items():
        result = train(samples, rows, columns, wanted, args.split, args.seed,
                       print if args.verbose else None)
        figures = result["figures"]
        for kind, count in zip(("train", "validation", "test"), result["counts"]):
            print("%-10s %s" % (kind, ", ".join("%s %d" % v for v in zip(names, count))))
        print("%s: best epoch %d of %d, %.0f s; temperature %.3f: NLL %.4f (%.4f before), ECE %.3f"
              % (name, result["history"]["best"], result["history"]["epochs"],
                 result["history"]["seconds"], result["temperature"], result["nll"],
                 result["nll_raw"], result["ece"]))
        print(ts.table([(name, [figures])], names))
        print(ts.confusion_table(figures.matrix, names))
        print(ts.export(result["net"], declare(name, result), os.path.join(args.out, name + ".pt")))
    print("%.0f s in all" % (time.time() - start))
    return 0


if __name__ == "__main__":
    sys.exit(main())
