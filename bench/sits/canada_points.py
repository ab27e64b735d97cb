"""Crops at points of Canada: the figures of a temporal CNN, by sensor, through the application.

    python3 bench/sits/canada_points.py ../shared/data/canada_points.npz

The 8 most frequent classes, the 12 months of the year of the labels, points split by H3 cell.
The test points are written as rasters of one row, the trained networks are exported, and the maps
that ``otbcli_TimeSeriesClassify`` makes of them are compared with the labels. Where the application
is not installed (or with --eager) PyTorch labels the points instead, and the table says so.

The labels are for evaluation only: no weights trained on them are kept.
"""

import argparse
import datetime
import os
import sys
import tempfile
import time

import numpy as np

import common
from otbtorch import series
from otbtorch import train_sits as ts

MONTHS = 12  # the series begins in January of the year of the labels
CLASSES = 8
NODATA = 65535
SENSORS = {
    "s1": ["S1-SIGMA0-VH", "S1-SIGMA0-VV"],
    "s2": ["S2-L2A-B02", "S2-L2A-B03", "S2-L2A-B04", "S2-L2A-B05", "S2-L2A-B06", "S2-L2A-B07",
           "S2-L2A-B08", "S2-L2A-B11", "S2-L2A-B12"],
    "meteo": ["AGERA5-temperature-mean", "AGERA5-precipitation-flux"],
}
# 145 000 parameters with all the bands.
NETWORK = {"dense": 128, "dropout": 0.4}
# There are few samples: training takes three quarters of the cells and always all its epochs; the
# small validation sets the temperature only.
FRACTIONS = (0.75, 0.05, 0.2)
# Label, sensors, architecture, its options.
RUNS = (
    ("TempCNN, S1 + S2 + meteo", ("s1", "s2", "meteo"), "tempcnn", NETWORK),
    ("TempCNN, S2", ("s2",), "tempcnn", NETWORK),
    ("TempCNN, S1", ("s1",), "tempcnn", NETWORK),
    ("TempCNN, S1 + S2", ("s1", "s2"), "tempcnn", NETWORK),
    ("twin TempCNN, S1 | S2", ("s1", "s2"), "twin", {"dropout": 0.4}),
)
REFERENCE = {  # one seed, shared/data/README.md
    "TempCNN, S1 + S2 + meteo": (0.803, 0.733),
    "TempCNN, S2": (0.767, 0.684),
    "TempCNN, S1": (0.735, 0.615),
}


def load(path):
    """``(Samples, codes of the classes)``; labels are 1 to 8."""
    with np.load(path, allow_pickle=False) as file:
        x, codes, cells = file["X"][:, :MONTHS], file["y"], file["cell"]
        bands = [str(b) for b in file["bands"]]
    found, count = np.unique(codes, return_counts=True)
    frequent = np.sort(found[np.argsort(-count, kind="stable")[:CLASSES]])
    keep = np.isin(codes, frequent)
    x, cells = x[keep], cells[keep]
    labels = np.searchsorted(frequent, codes[keep]) + 1
    dates = [datetime.date(2017, m + 1, 15) for m in range(MONTHS)]
    sensors = []
    for name, wanted in SENSORS.items():
        values = x[:, :, [bands.index(b) for b in wanted]].copy()
        nodata, rule = None, "all"
        if name == "s1":  # digital numbers to decibels
            missing = values == NODATA
            values = 20 * np.log10(np.maximum(values, 1)) - 83
            values[missing] = np.nan
        elif name == "s2":
            nodata, rule = float(NODATA), "any"
        values = values.astype(np.float32)
        sensors.append(ts.Sensor(name, wanted, dates, values, None, nodata, rule))
    return ts.Samples(sensors, labels, cells), frequent


def by_application(result, prepared, sensors, names, test, folder):
    """Labels (0 to 7) of the test points from the application's map."""
    model = os.path.join(folder, "model.pt")
    declared = ts.contract(
        "canada", prepared, sensors, result["limits"], list(enumerate(names, 1)),
        result["temperature"], result["features"], architecture=prepared.architecture,
        license="evaluation only", training_data="points of Canada, evaluation only")
    ts.export(result["net"], declared, model)
    inputs = []
    for sensor in sensors:
        stack = os.path.join(folder, sensor.name + ".tif")
        dates = os.path.join(folder, sensor.name + ".txt")
        common.write_row(stack, sensor.values[test])
        series.write_dates(dates, sensor.dates)
        inputs.append((stack, dates))
    labels = common.classify(model, inputs, os.path.join(folder, "map.tif"))
    return labels.reshape(-1).astype(int) - 1


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("points", help="canada_points.npz")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--eager", action="store_true", help="label with PyTorch")
    args = parser.parse_args(argv)

    import torch

    torch.set_num_threads(1)
    through = not args.eager and common.application()[0] is not None
    samples, codes = load(args.points)
    names = ["code %d" % c for c in codes]
    labels = samples.labels - 1
    print("%d points in %d cells; %s; labels by %s" % (
        len(samples), len(np.unique(samples.groups)),
        ", ".join("%s: %d" % v for v in zip(names, np.bincount(labels))),
        "the application" if through else "PyTorch"))
    options = ts.Options(epochs=args.epochs, early=False, batch=32, weights="none")
    table, different = [], 0
    parts = [ts.split_by_group(samples.groups, labels, FRACTIONS, seed=s)
             for s in range(args.seeds)]
    majority = [ts.Figures.of(labels[p == 2], np.full((p == 2).sum(), np.bincount(
        labels[p == 0]).argmax()), CLASSES) for p in parts]
    for label, wanted, architecture, network in RUNS:
        sensors = [s for s in samples.sensors if s.name in wanted]
        chosen = ts.Samples(sensors, samples.labels, samples.groups)
        prepared = ts.prepare(chosen, architecture, "linear")
        figures, start, size = [], time.time(), 0
        for seed, part in enumerate(parts):
            result = ts.trained(prepared, labels, part, CLASSES, seed, options, **network)
            size = sum(p.numel() for p in result["net"].parameters())
            one = result["figures"]
            if through:
                test = np.flatnonzero(part == 2)
                with tempfile.TemporaryDirectory() as folder:
                    said = by_application(result, prepared, sensors, names, test, folder)
                # A point without any valid date is 0 on the map: an error here.
                wrong = (labels[test] + 1) % CLASSES
                one = ts.Figures.of(labels[test], np.where(said < 0, wrong, said), CLASSES)
                different += int((one.matrix != result["figures"].matrix).sum() > 0)
            figures.append(one)
        table.append(("%s (%dk)" % (label.replace("|", "and"), round(size / 1000)), figures))
        reference = REFERENCE.get(label)
        print("%-26s OA %.3f, macro F1 %.3f%s; %.0f s" % (
            label, np.mean([f.accuracy for f in figures]), np.mean([f.macro_f1 for f in figures]),
            " (reference %.3f, %.3f)" % reference if reference else "", time.time() - start),
            flush=True)
    if ts.otb_available():
        prepared = ts.prepare(samples, "tempcnn", "linear")
        features = prepared.centre()
        table.append(("Random Forest (OTB), S1 + S2 + meteo", [
            ts.Figures.of(labels[p == 2], ts.random_forest(
                features[p == 0], labels[p == 0], features[p == 2], s), CLASSES)
            for s, p in enumerate(parts)]))
    table.append(("most frequent class", majority))
    print("\n" + ts.table(table, names))
    if through:
        print("\nmaps whose figures differ from PyTorch's: %d of %d"
              % (different, len(RUNS) * args.seeds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
