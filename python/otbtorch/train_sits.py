"""Train a classifier of image time series and export it with its contract.

Samples come from OTB's SampleExtraction (an OGR layer), from an NPZ file, or from rasters. They are
split by group (polygon, tile or cell, never by pixel) into training, validation and test; the
network stops early on the validation's macro F1 and gets a temperature there; OTB's Random Forest
is trained on the same gap-filled series and printed in the same table. See ``doc/train-sits.md``.
"""

import argparse
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import List, Optional

import numpy as np

from . import series

ARCHITECTURES = ("tempcnn", "twin", "ltae", "twinns")
FRACTIONS = (0.6, 0.2, 0.2)
# OTB's own defaults (depth 5, 10 samples a node) are meant for few features.
FOREST = {"max": 25, "min": 5, "nbtrees": 200}


class SamplesError(Exception):
    """The samples cannot be used; the text says why."""


# --------------------------------------------------------------------------------------------------
# Samples


@dataclass
class Sensor:
    """The series of one sensor: values ``[N, T, C]``, or ``[N, T, C, k, k]`` with windows."""

    name: str
    bands: List[str]
    dates: list
    values: np.ndarray
    valid: Optional[np.ndarray] = None  # [N, T] or [N, T, k, k]
    nodata: Optional[float] = None
    rule: str = "all"
    # Normalised differences of two bands, (name, a, b): (a - b) / (a + b), after gap filling.
    indices: tuple = ()

    @property
    def window(self):
        return self.values.shape[-1] if self.values.ndim == 5 else 1

    def filled(self, policy, grid=None):
        """``(values, valid, dates)`` after gap filling."""
        bands_last = np.moveaxis(self.values, 2, -1)
        valid = series.valid_values(bands_last, self.valid, self.nodata, self.rule)
        fill = series.fill if self.window == 1 else series.fill_windows
        values, valid, steps = fill(self.values, valid, self.dates, policy, grid)
        for _, a, b in self.indices:
            a, b = (values[:, :, self.bands.index(n)] for n in (a, b))
            total = a + b
            index = np.where(total != 0, (a - b) / np.where(total != 0, total, 1), 0)
            values = np.concatenate([values, np.expand_dims(index, 2)], 2)
        return values, valid, steps


@dataclass
class Samples:
    """Series of one or several sensors at the same places, their classes and groups."""

    sensors: List[Sensor]
    labels: np.ndarray  # codes of the user
    groups: np.ndarray
    names: dict = field(default_factory=dict)  # code -> name

    def __len__(self):
        return len(self.labels)

    def keep(self, which):
        """The samples ``which`` (indices or booleans)."""
        which = np.flatnonzero(which) if np.asarray(which).dtype == bool else np.asarray(which)
        sensors = [
            Sensor(s.name, s.bands, s.dates, s.values[which],
                   None if s.valid is None else s.valid[which], s.nodata, s.rule, s.indices)
            for s in self.sensors
        ]
        return Samples(sensors, self.labels[which], self.groups[which], self.names)


def _as_dates(values):
    return [series.parse_date(v.decode() if isinstance(v, bytes) else v) for v in values]


def load_npz(path):
    """Samples from an NPZ file.

    ``X`` ``[N, T, C]`` (or ``[N, T, C, k, k]``), ``y``, ``group``, ``dates`` (texts), and perhaps
    ``bands`` and ``valid``; several sensors: ``X_s2``, ``dates_s2`` ..., ``X_s1`` ... with ``y``
    and ``group`` once.
    """
    with np.load(path, allow_pickle=False) as file:
        for key in ("y", "group"):
            if key not in file:
                raise SamplesError("%s: no array %s" % (path, key))
        sensors = []
        for key in file.files:
            if key != "X" and not key.startswith("X_"):
                continue
            tail = key[1:]
            values = file[key].astype(np.float32)
            if values.ndim not in (3, 5) or values.ndim == 5 and values.shape[3] != values.shape[4]:
                raise SamplesError("%s: %s has shape %s, not [N, T, C] or [N, T, C, k, k]"
                                   % (path, key, list(values.shape)))
            if "dates" + tail not in file:
                raise SamplesError("%s: no array dates%s" % (path, tail))
            dates = _as_dates(file["dates" + tail].tolist())
            bands = ([str(b) for b in file["bands" + tail]] if "bands" + tail in file
                     else ["b%d" % (i + 1) for i in range(values.shape[2])])
            if len(dates) != values.shape[1] or len(bands) != values.shape[2]:
                raise SamplesError("%s: %s has %d dates and %d bands, %d and %d are named"
                                   % (path, key, values.shape[1], values.shape[2], len(dates),
                                      len(bands)))
            valid = file["valid" + tail].astype(bool) if "valid" + tail in file else None
            sensors.append(Sensor(tail[1:] or "x", bands, dates, values, valid))
        samples = Samples(sensors, file["y"].astype(np.int64), file["group"])
    if not sensors:
        raise SamplesError("%s: no array X" % path)
    return _checked(samples, path)


def load_ogr(path, specs, class_field="class", group_field="originfid", masks=(), layer=0):
    """Samples from a vector file that SampleExtraction wrote.

    ``specs``: a sensor each, ``(name, prefix of its fields, dates, bands)``; the fields are
    ``prefix0``, ``prefix1`` ... in date-major order. ``masks``: ``(name, prefix, type)``, a field a
    date.
    """
    from osgeo import ogr

    ogr.UseExceptions()
    source = ogr.Open(path)
    if source is None:
        raise SamplesError("%s: not a vector file" % path)
    samples = source.GetLayer(layer)
    definition = samples.GetLayerDefn()
    fields = [definition.GetFieldDefn(i).GetName() for i in range(definition.GetFieldCount())]
    lower = [f.lower() for f in fields]
    for name in (class_field, group_field):
        if name.lower() not in lower:
            raise SamplesError("%s: no field %s, there are %s" % (
                path, name, ", ".join(f for f in fields if not f[-1:].isdigit())))

    def columns(prefix, count, what):
        found = [prefix.lower() + str(i) for i in range(count)]
        missing = [f for f in found if f not in lower]
        if missing or prefix.lower() + str(count) in lower:
            number = sum(bool(re.match(re.escape(prefix.lower()) + r"\d+$", f)) for f in lower)
            raise SamplesError("%s: %s needs %d fields %s0, %s1 ..., there are %d"
                               % (path, what, count, prefix, prefix, number))
        return [lower.index(f) for f in found]

    wanted = [columns(prefix, len(dates) * len(bands), name)
              for name, prefix, dates, bands in specs]
    dates_of = {name: dates for name, _, dates, _ in specs}
    mask_columns = {name: (columns(prefix, len(dates_of[name]), "the mask of " + name), kind)
                    for name, prefix, kind in masks}
    order = sum(wanted, []) + sum((c for c, _ in mask_columns.values()), [])
    at_class, at_group = lower.index(class_field.lower()), lower.index(group_field.lower())
    rows, labels, groups = [], [], []
    for feature in samples:
        rows.append([feature.GetField(i) for i in order])
        labels.append(feature.GetField(at_class))
        groups.append(feature.GetField(at_group))
    if not rows:
        raise SamplesError("%s: no samples" % path)
    # A field without a value is not valid, as NaN.
    columns_of = np.array([[np.nan if v is None else v for v in row] for row in rows], np.float32)
    try:
        labels = np.array(labels).astype(np.int64)
    except (ValueError, TypeError):
        raise SamplesError("%s: field %s does not hold integers" % (path, class_field)) from None
    sensors, position = [], 0
    for (name, _, dates, bands), indices in zip(specs, wanted):
        values = columns_of[:, position : position + len(indices)]
        sensors.append(Sensor(name, list(bands), list(dates),
                              values.reshape(len(rows), len(dates), len(bands))))
        position += len(indices)
    for name, (indices, kind) in mask_columns.items():
        valid = series.mask_valid(columns_of[:, position : position + len(indices)], kind)
        next(s for s in sensors if s.name == name).valid = valid
        position += len(indices)
    return _checked(Samples(sensors, labels, np.array(groups)), path)


def load_rasters(specs, labels, masks=(), groups=None, block=None, window=1):
    """Samples from stacks: ``(name, stack, dates, bands)`` a sensor, the first gives the grid.

    ``labels``: raster of codes, 0 where there is none. ``groups``: raster of polygons' numbers;
    without it, square blocks of ``block`` pixels are the groups. ``masks``: ``(name, raster,
    type)``.
    Stacks on other grids than the labels' are resampled as the application does.
    """
    from osgeo import gdal

    gdal.UseExceptions()
    codes = gdal.Open(str(labels)).ReadAsArray().astype(np.int64)
    rows, columns = np.nonzero(codes)
    if groups is not None:
        numbers = gdal.Open(str(groups)).ReadAsArray()[rows, columns]
    else:
        block = block or 16
        numbers = (rows // block) * (-(-codes.shape[1] // block)) + columns // block
    kinds = {name: (path, kind) for name, path, kind in masks}
    sensors = []
    for name, path, dates, bands in specs:
        stack = series.read_stack(path, dates, labels)
        if stack.shape[1] != len(bands):
            raise SamplesError("%s: %d bands a date, %d are named"
                               % (path, stack.shape[1], len(bands)))
        image = gdal.Open(str(path))
        nodata = image.GetRasterBand(1).GetNoDataValue()
        valid = None
        if name in kinds:
            mask_path, kind = kinds[name]
            mask = series.read_stack(mask_path, dates, labels, "near")[:, 0]
            valid = series.windows(series.mask_valid(mask, kind), rows, columns, window)
        sensors.append(Sensor(name, list(bands), list(dates),
                              series.windows(stack, rows, columns, window), valid, nodata))
    return _checked(Samples(sensors, codes[rows, columns], numbers), str(labels))


def _checked(samples, origin):
    n = len(samples.labels)
    for sensor in samples.sensors:
        if len(sensor.values) != n:
            raise SamplesError("%s: %d samples of %s, %d classes"
                               % (origin, len(sensor.values), sensor.name, n))
    if len(samples.groups) != n:
        raise SamplesError("%s: %d groups, %d classes" % (origin, len(samples.groups), n))
    return samples


# --------------------------------------------------------------------------------------------------
# Split


def split_by_group(groups, labels, fractions=FRACTIONS, seed=0, tries=200):
    """Training, validation and test: 0, 1 or 2 a sample, whole groups only.

    Of ``tries`` random divisions of the groups the one is taken whose classes are closest to the
    fractions wanted.
    """
    groups, labels = np.asarray(groups), np.asarray(labels)
    _, group = np.unique(groups, return_inverse=True)
    _, label = np.unique(labels, return_inverse=True)
    count = group.max() + 1
    if count < 3:
        raise SamplesError("%d group(s): at least three are needed, to train, to stop and to test"
                           % count)
    table = np.zeros((count, label.max() + 1))
    np.add.at(table, (group, label), 1)
    total, fractions = table.sum(0), np.asarray(fractions, float)
    rng, best = np.random.default_rng(seed), None
    for _ in range(tries):
        order = rng.permutation(count)
        # Cut where the samples, not the groups, reach the fractions.
        share = (np.cumsum(table[order].sum(1)) - table[order].sum(1) / 2) / table.sum()
        part = np.searchsorted(np.cumsum(fractions)[:2], share, side="right")
        if len(np.unique(part)) < 3:
            part = np.minimum(np.arange(count) * 3 // count, 2)
        shares = np.stack([table[order[part == p]].sum(0) for p in range(3)]) / total
        badness = (np.abs(shares - fractions[:, None]) / fractions[:, None]).sum()
        badness += 10 * (shares == 0).sum()
        if best is None or badness < best[0]:
            assigned = np.empty(count, np.int64)
            assigned[order] = part
            best = (badness, assigned)
    return best[1][group]


# --------------------------------------------------------------------------------------------------
# Figures


@dataclass
class Figures:
    """Confusion matrix (rows: truth) and what follows from it."""

    matrix: np.ndarray

    @classmethod
    def of(cls, truth, predicted, classes):
        matrix = np.zeros((classes, classes), np.int64)
        np.add.at(matrix, (np.asarray(truth), np.asarray(predicted)), 1)
        return cls(matrix)

    @property
    def accuracy(self):
        return float(np.trace(self.matrix) / max(self.matrix.sum(), 1))

    @property
    def f1(self):
        """F1 of each class; NaN for one that occurs neither in the truth nor in the map."""
        hit, both = np.diag(self.matrix), self.matrix.sum(0) + self.matrix.sum(1)
        return np.where(both > 0, 2 * hit / np.maximum(both, 1), np.nan)

    @property
    def macro_f1(self):
        """Mean F1 of the classes that the truth holds."""
        return float(np.nanmean(np.where(self.matrix.sum(1) > 0, self.f1, np.nan)))


def softmax(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def nll(logits, truth):
    """Mean negative log-likelihood."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(truth)), truth]).mean())


def calibration_error(logits, truth, bins=15):
    """Expected calibration error of the largest probability."""
    p = softmax(np.asarray(logits, np.float64))
    sure, right = p.max(1), p.argmax(1) == truth
    index = np.minimum((sure * bins).astype(int), bins - 1)
    return float(sum(abs(sure[index == i].mean() - right[index == i].mean()) * (index == i).mean()
                     for i in range(bins) if (index == i).any()))


def fit_temperature(logits, truth):
    """The temperature that minimises the negative log-likelihood (Guo et al., ICML 2017)."""
    low, high = math.log(0.05), math.log(20.0)
    ratio = (math.sqrt(5) - 1) / 2
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    fa, fb = (nll(logits / math.exp(t), truth) for t in (a, b))
    for _ in range(40):
        if fa < fb:
            high, b, fb = b, a, fa
            a = high - ratio * (high - low)
            fa = nll(logits / math.exp(a), truth)
        else:
            low, a, fa = a, b, fb
            b = low + ratio * (high - low)
            fb = nll(logits / math.exp(b), truth)
    return round(math.exp((low + high) / 2), 3)


def table(rows, names):
    """A Markdown table: ``rows`` is a list of (label, list of ``Figures``, one a seed)."""

    def cell(values):
        values = np.array(values, float)
        text = "%.3f" % np.nanmean(values)
        return text + (" ± %.3f" % np.nanstd(values, ddof=1) if len(values) > 1 else "")

    head = ["", "OA", "macro F1"] + ["F1 " + n for n in names]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for label, figures in rows:
        cells = [label, cell([f.accuracy for f in figures]), cell([f.macro_f1 for f in figures])]
        cells += [cell([f.f1[i] for f in figures]) for i in range(len(names))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def confusion_table(matrix, names):
    """A confusion matrix in Markdown: rows are the truth."""
    lines = ["| truth \\ map | " + " | ".join(names) + " | recall |",
             "|---|" + "---|" * (len(names) + 1)]
    for i, name in enumerate(names):
        recall = matrix[i, i] / max(matrix[i].sum(), 1)
        lines.append("| %s | %s | %.3f |" % (name, " | ".join(map(str, matrix[i])), recall))
    precision = np.diag(matrix) / np.maximum(matrix.sum(0), 1)
    lines.append("| precision | " + " | ".join("%.3f" % p for p in precision) + " | |")
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------------
# Random Forest through OTB


def otb_available():
    return bool(shutil.which("otbcli_TrainVectorClassifier")
                and shutil.which("otbcli_VectorClassifier"))


def _write_layer(path, features, labels):
    from osgeo import ogr, osr

    ogr.UseExceptions()
    # SQLite, as SampleExtraction is mostly used: a shapefile holds 255 fields at most.
    source = ogr.GetDriverByName("SQLite").CreateDataSource(path)
    system = osr.SpatialReference()
    system.ImportFromEPSG(4326)
    layer = source.CreateLayer("samples", system, ogr.wkbPoint)
    for i in range(features.shape[1]):
        layer.CreateField(ogr.FieldDefn("value_%d" % i, ogr.OFTReal))
    layer.CreateField(ogr.FieldDefn("label", ogr.OFTInteger))
    definition = layer.GetLayerDefn()
    source.StartTransaction()
    for row, label in zip(features.astype(float), labels):
        feature = ogr.Feature(definition)
        for i, value in enumerate(row):
            feature.SetField(i, value)
        feature.SetField(len(row), int(label))
        feature.SetGeometry(ogr.CreateGeometryFromWkt("POINT (0 0)"))
        layer.CreateFeature(feature)
    source.CommitTransaction()
    source = None


def _run(command):
    environment = dict(os.environ, OTB_LOGGER_LEVEL="WARNING")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env=environment, check=False)
    if done.returncode:
        raise RuntimeError("%s failed:\n%s" % (command[0], done.stdout[-2000:]))


def random_forest(features, labels, test, seed=0, options=None):
    """Classes of ``test`` from OTB's Random Forest (TrainVectorClassifier, VectorClassifier).

    Args:
        features, test: ``[N, F]``.
        labels: integers.
    """
    from osgeo import ogr

    ogr.UseExceptions()
    options = dict(FOREST, **(options or {}))
    with tempfile.TemporaryDirectory() as folder:
        train_path, test_path = (os.path.join(folder, n + ".sqlite") for n in ("train", "test"))
        model = os.path.join(folder, "model.rf")
        _write_layer(train_path, features, labels)
        _write_layer(test_path, test, np.zeros(len(test), int))
        fields = ["value_%d" % i for i in range(features.shape[1])]
        command = ["otbcli_TrainVectorClassifier", "-io.vd", train_path, "-io.out", model,
                   "-cfield", "label", "-classifier", "rf", "-rand", str(seed), "-v", "false"]
        for key, value in options.items():
            command += ["-classifier.rf." + key, str(value)]
        _run(command + ["-feat"] + fields)
        _run(["otbcli_VectorClassifier", "-in", test_path, "-model", model, "-cfield", "predicted",
              "-feat"] + fields)
        layer = ogr.Open(test_path)
        return np.array([f.GetField("predicted") for f in layer.GetLayer(0)]).astype(np.int64)


# --------------------------------------------------------------------------------------------------
# Networks


def build(architecture, shapes, classes, **options):
    """A network for inputs of ``shapes`` ``[(T, C, window), ...]``.

    * ``tempcnn``: temporal convolutions; several inputs are stacked as bands.
    * ``twin``: temporal convolutions, one branch an input (two inputs).
    * ``ltae``: temporal attention; ``forward(x, dates, valid)``.
    * ``twinns``: recurrent and convolutional branches on windows, one or two inputs.
    """
    from . import models, sits_networks

    steps, bands, window = zip(*shapes)
    if architecture == "tempcnn":
        if len(set(steps)) > 1:
            raise SamplesError("tempcnn stacks the sensors: fill them onto one grid of dates")
        net = models.TempCNN(sum(bands), steps[0], classes, **options)
        return net if len(shapes) == 1 else sits_networks.concat(net, len(shapes))
    if architecture == "twin":
        if len(shapes) != 2:
            raise SamplesError("twin takes two sensors, there are %d" % len(shapes))
        return sits_networks.TwinTempCNN(bands, steps, classes, **options)
    if architecture == "ltae":
        if len(shapes) != 1:
            raise SamplesError("ltae takes one sensor, there are %d" % len(shapes))
        return models.LTAE(bands[0], classes, **options)
    if architecture == "twinns":
        if len(shapes) > 2:
            raise SamplesError("twinns takes one or two sensors, there are %d" % len(shapes))
        if len(shapes) == 1:
            return models.TWINNSSingle(steps[0], bands[0], classes, window[0], **options)
        return models.TWINNS(steps[0], steps[1], bands[0], bands[1], classes, window[0], **options)
    raise SamplesError("no architecture %r: %s" % (architecture, ", ".join(ARCHITECTURES)))


def percentiles(values, low=2, high=98):
    """``(minimum, maximum)`` of each band, ``[C]``: percentiles over samples, dates and window."""
    bands = np.moveaxis(values, 2, 0).reshape(values.shape[2], -1)
    minimum, maximum = np.nanpercentile(bands, [low, high], axis=1)
    # Seven digits, as written into the contract; a constant band must not divide by zero.
    minimum, maximum = (np.array([float("%.7g" % v) for v in side]) for side in (minimum, maximum))
    return minimum, np.where(maximum > minimum, maximum, minimum + 1)


def scale(values, limits):
    """(x - minimum) / (maximum - minimum), band by band."""
    shape = (1, 1, -1) + (1,) * (values.ndim - 3)
    minimum, maximum = (np.asarray(v, np.float32).reshape(shape) for v in limits)
    return ((values - minimum) / (maximum - minimum)).astype(np.float32)


def class_weights(labels, classes, kind="sqrt"):
    """Weights of the loss, mean 1 over the samples: ``none``, ``sqrt`` or ``balanced``."""
    count = np.maximum(np.bincount(labels, minlength=classes), 1)
    weights = np.ones(classes)
    if kind != "none":
        weights = (1.0 / count) ** (0.5 if kind == "sqrt" else 1.0)
    return (weights * count.sum() / (weights * count).sum()).astype(np.float32)


@dataclass
class Options:
    """How a network is trained."""

    epochs: int = 100
    patience: int = 15
    early: bool = True  # stop early, and keep the best epoch; else the last one
    batch: int = 64
    rate: float = 1e-3
    decay: float = 1e-4
    weights: str = "sqrt"
    cosine: bool = True  # the rate falls to nothing over the epochs
    auxiliary: float = 0.3
    smoothing: float = 0.0
    augment: bool = True  # flips and quarter turns of windows
    noise: float = 0.0  # of the scaled values, standard deviation
    log: Optional[object] = None


def _logits(returned):
    return returned if not isinstance(returned, (tuple, list)) else returned[0]


def predict(net, inputs, batch=512):
    """Logits ``[N, K]`` of a network for a list of arrays."""
    import torch

    net.eval()
    out = []
    with torch.no_grad():
        for i in range(0, len(inputs[0]), batch):
            out.append(_logits(net(*(torch.from_numpy(x[i : i + batch]) for x in inputs))).numpy())
    return np.concatenate(out)


def _turned(tensors, which):
    """A flip or quarter turn of the windows, the same for all inputs."""
    import torch

    turned = []
    for x in tensors:
        if x.dim() == 5:
            x = torch.rot90(x, which % 4, (3, 4))
            x = x.flip(4) if which >= 4 else x
        turned.append(x)
    return turned


def fit(net, train, labels, check, check_labels, classes, options=None, seed=0):
    """Trains a network; the weights of the epoch remain that is best on the validation's macro F1.

    Args:
        train, check: lists of arrays, an argument of ``forward`` each.

    Returns:
        a dictionary: epochs, best epoch, its macro F1, seconds.
    """
    import torch

    options = options or Options()
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    weights = torch.from_numpy(class_weights(labels, classes, options.weights))
    loss_of = torch.nn.CrossEntropyLoss(weight=weights, label_smoothing=options.smoothing)
    optimiser = torch.optim.AdamW(net.parameters(), lr=options.rate, weight_decay=options.decay)
    start, best, stale = time.time(), None, 0
    target = torch.from_numpy(np.asarray(labels, np.int64))
    tensors = [torch.from_numpy(x) for x in train]
    epoch = 0
    for epoch in range(1, options.epochs + 1):
        net.train()
        if options.cosine:
            now = options.rate * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / options.epochs))
            for parameters in optimiser.param_groups:
                parameters["lr"] = now
        order = rng.permutation(len(target))
        for i in range(0, len(order), options.batch):
            rows = torch.from_numpy(order[i : i + options.batch])
            if len(rows) < 2:  # batch norm needs two
                continue
            batch = [x[rows] for x in tensors]
            if options.augment and any(x.dim() == 5 for x in batch):
                batch = _turned(batch, int(rng.integers(8)))
            if options.noise:
                batch = [x + options.noise * torch.randn_like(x) for x in batch]
            returned = net(*batch)
            loss = loss_of(_logits(returned), target[rows])
            if isinstance(returned, (tuple, list)):
                for extra in returned[1:]:
                    if extra.shape == returned[0].shape:  # auxiliary classifiers, not features
                        loss = loss + options.auxiliary * loss_of(extra, target[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        logits = predict(net, check)
        score = Figures.of(check_labels, logits.argmax(1), classes).macro_f1
        # Between equal scores the surer one.
        key = (round(score, 4), -nll(logits, check_labels))
        if options.log:
            options.log("epoch %3d: loss %.3f, validation macro F1 %.3f, NLL %.3f"
                        % (epoch, float(loss.detach()), score, -key[1]))
        if best is None or key > best[0] or not options.early:
            best, stale = (key, {k: v.clone() for k, v in net.state_dict().items()}, epoch), 0
        else:
            stale += 1
            if stale >= options.patience:
                break
    net.load_state_dict(best[1])
    net.eval()
    return {"epochs": epoch, "best": best[2], "macro_f1": best[0][0],
            "seconds": time.time() - start}


# --------------------------------------------------------------------------------------------------
# From samples to the arguments of a network


@dataclass
class Prepared:
    """What a network of an architecture is fed, and what the contract must say of it."""

    architecture: str
    values: List[np.ndarray]  # a sensor each, gap-filled, raw units
    valid: List[np.ndarray]
    steps: list  # dates a sensor
    policy: str
    grid: Optional[dict]

    def centre(self):
        """Features of the pixel itself, ``[N, F]``, for the Random Forest."""
        flat = []
        for v in self.values:
            v = v[..., v.shape[3] // 2, v.shape[4] // 2] if v.ndim == 5 else v
            flat.append(v.reshape(len(v), -1))
        return np.concatenate(flat, 1)

    def limits(self, rows):
        """Limits of the scaling of each sensor, from the samples ``rows``."""
        found = []
        for v, good in zip(self.values, self.valid):
            v = v[rows]
            if self.policy == "none":
                v = np.where(np.expand_dims(good[rows], 2), v, np.nan)
            found.append(percentiles(v))
        return found

    def arguments(self, limits):
        """The arguments of ``forward``, one array each."""
        out = []
        for v, good, limit in zip(self.values, self.valid, limits):
            out.append(np.where(np.expand_dims(good, 2), scale(v, limit), 0).astype(np.float32))
        if self.architecture == "ltae":
            doy = np.array([d.timetuple().tm_yday for d in self.steps[0]], np.float32)
            out += [np.broadcast_to(doy, self.valid[0].shape[:2]).copy(),
                    self.valid[0].astype(np.float32)]
        return out

    def shapes(self):
        return [(v.shape[1], v.shape[2], v.shape[3] if v.ndim == 5 else 1) for v in self.values]


def prepare(samples, architecture, policy="grid", grid=None):
    """Fills the gaps of samples for an architecture."""
    window = samples.sensors[0].window
    if architecture == "twinns" and window == 1:
        raise SamplesError("twinns needs windows: give rasters, or an NPZ file that has them")
    if architecture != "twinns" and window > 1:
        raise SamplesError("%s sees one pixel, the samples are windows" % architecture)
    if architecture != "ltae" and policy == "none":
        raise SamplesError("%s needs gap filling" % architecture)
    filled = [s.filled(policy, grid) for s in samples.sensors]
    values, valid, steps = (list(x) for x in zip(*filled))
    return Prepared(architecture, values, valid, steps, policy, grid)


# --------------------------------------------------------------------------------------------------
# Export


def contract(name, prepared, sensors, limits, classes, temperature, features, *, order=None,
             **provenance):
    """The contract of a trained network.

    Args:
        sensors: the ``Sensor`` of each input, in the order of ``forward``.
        order: which image list brings each of them; 1, 2 ... where it is not given.
        classes: ``[(value, name), (value, name, "RRGGBB") ...]``.
        features: size of the embedding that the network returns last, or 0.
    """
    from . import contract as contracts

    entries = []
    for i, (sensor, limit, steps) in enumerate(zip(sensors, limits, prepared.steps)):
        options = {"gapfill": prepared.policy}
        if prepared.policy == "grid":
            options["grid"] = tuple(prepared.grid[k] for k in ("start", "end", "step"))
            options["steps"] = len(steps)
        elif prepared.policy == "linear":
            options["steps"] = len(steps)
        bands = sensor.bands + [contracts.normalized_difference(*n) for n in sensor.indices]
        entries.append(contracts.series(
            sensor.name, bands, contracts.min_max(*limit),
            sensor=order[i] if order else i + 1, nodata=sensor.nodata, nodata_rule=sensor.rule,
            **options))
    outputs = [contracts.output("logits", "logits", classes=classes)]
    if prepared.architecture == "ltae":
        entries += [contracts.dates("dates"), contracts.validity("valid", "valid")]
    elif prepared.architecture == "twinns" and len(sensors) == 1:
        outputs += [contracts.output("aux_" + n, "aux", channels=len(classes))
                    for n in ("recurrent", "convolutional")]
    elif prepared.architecture in ("twinns", "twin"):
        outputs += [contracts.output("aux_" + s.name, "aux", channels=len(classes))
                    for s in sensors]
    if features:
        outputs.append(contracts.output("features", "embedding", channels=features))
    names = [s.name for s in sensors]
    if order:
        names = [names[order.index(i + 1)] for i in range(len(names))]
    return contracts.time_series(
        name, entries, classes=classes, outputs=outputs, window=sensors[0].window,
        sensors=names, temperature=temperature, **provenance)


def features_of(net, arguments):
    """Size of the embedding that a network returns last, 0 if there is none."""
    import torch

    net.eval()
    with torch.no_grad():
        returned = net(*(torch.from_numpy(a[:2]) for a in arguments))
    several = isinstance(returned, (tuple, list)) and len(returned) > 1
    return returned[-1].shape[1] if several else 0


def export(net, declared, path):
    """Exports and removes the paths of the sources from the archive; returns the report."""
    from .export import export as export_model
    from .recipes.train_demo import drop_source_paths

    report = export_model(net, declared, path)
    drop_source_paths(path)
    report.bytes = os.path.getsize(path)
    return report


# --------------------------------------------------------------------------------------------------
# The command


def trained(prepared, labels, part, classes, seed, options=None, **network):
    """One network on one split.

    Returns:
        a dictionary: net, limits, temperature, figures (on the test part), validation (macro F1),
        nll and nll_raw, ece (on the test part), history.
    """
    import torch

    rows = [np.flatnonzero(part == p) for p in range(3)]
    limits = prepared.limits(rows[0])
    arguments = prepared.arguments(limits)
    train, check, test = ([a[r] for a in arguments] for r in rows)
    torch.manual_seed(seed)
    net = build(prepared.architecture, prepared.shapes(), classes, **network)
    history = fit(net, train, labels[rows[0]], check, labels[rows[1]], classes, options, seed)
    temperature = fit_temperature(predict(net, check), labels[rows[1]])
    logits, truth = predict(net, test), labels[rows[2]]
    return {
        "net": net, "limits": limits, "temperature": temperature, "history": history,
        "figures": Figures.of(truth, logits.argmax(1), classes),
        "validation": history["macro_f1"],
        "nll": nll(logits / temperature, truth), "nll_raw": nll(logits, truth),
        "ece": calibration_error(logits / temperature, truth),
        "features": features_of(net, arguments),
    }


def add_arguments(parser):
    """The options of ``train-sits``."""
    add = parser.add_argument
    add("samples", nargs="?", help="vector file of SampleExtraction, or NPZ")
    add("--series", nargs=4, action="append", default=[],
        metavar=("NAME", "PREFIX", "DATES", "BANDS"),
        help="a sensor of a vector file: prefix of its fields (value_), file of dates, bands with "
             "commas between; once a sensor")
    add("--raster", nargs=4, action="append", default=[],
        metavar=("NAME", "STACK", "DATES", "BANDS"),
        help="a sensor as a date-major stack, instead of samples; once a sensor")
    add("--mask", nargs=3, action="append", default=[], metavar=("NAME", "MASK", "TYPE"),
        help="validity of a sensor's dates: prefix of fields, or a stack; invalid, valid or scl")
    add("--nodata", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="value of a sensor that stands for no-data")
    add("--index", nargs=4, action="append", default=[], metavar=("NAME", "INDEX", "A", "B"),
        help="give the network a normalised difference of two bands too: --index s2 NDVI B08 B04")
    add("--labels", help="with --raster: raster of class codes, 0 where there is none")
    add("--groups", help="with --raster: raster of numbers of polygons")
    add("--block", type=int, default=16,
        help="with --raster, without --groups: side of the blocks that are split, pixels "
             "(default: %(default)s)")
    add("--window", type=int, default=5, help="window of twinns, pixels (default: %(default)s)")
    add("--class-field", default="class", help="default: %(default)s")
    add("--group-field", default="originfid", help="default: %(default)s")
    add("--class-names", metavar="FILE", help="text file, a line a class: code, space, name")
    add("--min-samples", type=int, default=50, metavar="N",
        help="leave classes with fewer samples out (default: %(default)s)")
    add("--architecture", choices=ARCHITECTURES, default="tempcnn", help="default: %(default)s")
    add("--gapfill", choices=("grid", "linear", "none"),
        help="default: none for ltae, else grid")
    add("--grid", nargs=3, metavar=("START", "END", "STEP"), default=None,
        help="dates of the grid: MM-DD MM-DD (any year) or YYYY-MM-DD, step in days "
             "(default: 01-01 12-31 15)")
    add("--seeds", type=int, default=1, metavar="N", help="splits to train on (default: 1)")
    add("--epochs", type=int, default=100, help="at most (default: %(default)s)")
    add("--patience", type=int, default=15,
        help="epochs without a better macro F1 on the validation (default: %(default)s)")
    add("--batch", type=int, default=64, help="default: %(default)s")
    add("--rate", type=float, default=1e-3, help="learning rate (default: %(default)s)")
    add("--class-weights", choices=("none", "sqrt", "balanced"), default="sqrt",
        help="default: %(default)s")
    add("--no-forest", action="store_true", help="leave OTB's Random Forest out of the table")
    add("--out", metavar="FILE", help="the model to write; without it only the table is printed")
    add("--name", help="short name of the model (default: from --out)")
    add("--license", default="not stated", help="of the weights, written into the model")
    add("--training-data", default="not stated", help="a sentence, written into the model")
    add("--verbose", action="store_true", help="a line an epoch")


def _load(args):
    def specs(rows):
        return [(n, where, series.read_dates(dates), bands.split(",")) for n, where, dates, bands
                in rows]

    if args.raster:
        if not args.labels:
            raise SamplesError("--raster needs --labels")
        window = args.window if args.architecture == "twinns" else 1
        samples = load_rasters(specs(args.raster), args.labels, args.mask, args.groups, args.block,
                               window)
    elif not args.samples:
        raise SamplesError("no samples: give a vector file, an NPZ file or --raster")
    elif args.samples.lower().endswith(".npz"):
        samples = load_npz(args.samples)
    elif not args.series:
        raise SamplesError("a vector file needs --series, to know its fields")
    else:
        samples = load_ogr(args.samples, specs(args.series), args.class_field, args.group_field,
                           args.mask)

    def sensor(option, name):
        found = [s for s in samples.sensors if s.name == name]
        if not found:
            raise SamplesError("--%s: no sensor %s" % (option, name))
        return found[0]

    for name, value in args.nodata:
        sensor("nodata", name).nodata = float(value)
    for name, index, a, b in args.index:
        one = sensor("index", name)
        if a not in one.bands or b not in one.bands:
            raise SamplesError("--index: %s has the bands %s" % (name, ", ".join(one.bands)))
        one.indices += ((index, a, b),)
    if args.class_names:
        with open(args.class_names, encoding="utf-8") as stream:
            lines = [line.split(None, 1) for line in stream if line.strip()]
        samples.names = {int(code): name.strip() for code, name in lines}
    return samples


def run(args):
    """Trains, prints the table and writes the model; returns the exit code."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or torch.get_num_threads())
    samples = _load(args)
    codes, count = np.unique(samples.labels, return_counts=True)
    kept = [int(c) for c, n in zip(codes, count) if c > 0 and n >= args.min_samples]
    left = ["%d (%d)" % (c, n) for c, n in zip(codes, count) if int(c) not in kept]
    if left:
        print("classes left out, with their samples: " + ", ".join(left))
    if len(kept) < 2:
        raise SamplesError("%d class(es) with at least %d samples: two are needed"
                           % (len(kept), args.min_samples))
    samples = samples.keep(np.isin(samples.labels, kept))
    labels = np.searchsorted(kept, samples.labels)
    names = [samples.names.get(c, "class %d" % c) for c in kept]
    policy = args.gapfill or ("none" if args.architecture == "ltae" else "grid")
    grid = dict(zip(("start", "end", "step"), args.grid or ("01-01", "12-31", 15)))
    grid["step"] = int(grid["step"])
    prepared = prepare(samples, args.architecture, policy, grid if policy == "grid" else None)
    print("%d samples in %d groups, %s; %s" % (
        len(samples), len(np.unique(samples.groups)),
        ", ".join("%s %d" % v for v in zip(names, np.bincount(labels))),
        ", ".join("%s: %d dates, %d steps, %d bands" % (s.name, len(s.dates), len(d), len(s.bands))
                  for s, d in zip(samples.sensors, prepared.steps))))
    whole = all(v.reshape(len(v), -1).any(1).all() for v in prepared.valid)
    if not whole:
        print("warning: some samples have no valid date at all")
    options = Options(epochs=args.epochs, patience=args.patience, batch=args.batch, rate=args.rate,
                      weights=args.class_weights, log=print if args.verbose else None)
    forest = not args.no_forest and otb_available()
    if not args.no_forest and not forest:
        print("OTB's TrainVectorClassifier was not found: no Random Forest in the table")
    features = None
    if forest:
        flat = prepared if policy != "none" else prepare(samples, args.architecture, "linear")
        features = flat.centre()
    networks, forests, best = [], [], None
    for seed in range(args.seeds):
        part = split_by_group(samples.groups, labels, seed=seed)
        print("seed %d: %d train, %d validation, %d test samples"
              % ((seed,) + tuple(np.bincount(part, minlength=3))))
        result = trained(prepared, labels, part, len(kept), seed, options)
        networks.append(result["figures"])
        print("  best epoch %d of %d, %.0f s; temperature %.3f: NLL %.3f (%.3f before), ECE %.3f"
              % (result["history"]["best"], result["history"]["epochs"],
                 result["history"]["seconds"], result["temperature"], result["nll"],
                 result["nll_raw"], result["ece"]))
        if best is None or result["validation"] > best["validation"]:
            best = result
        if forest:
            said = random_forest(features[part == 0], labels[part == 0], features[part == 2], seed)
            forests.append(Figures.of(labels[part == 2], said, len(kept)))
    rows = [(args.architecture, networks)] + ([("Random Forest (OTB)", forests)] if forests else [])
    print("\n" + table(rows, names) + "\n")
    print("Test groups of the network that is best on the validation:\n")
    print(confusion_table(best["figures"].matrix, names) + "\n")
    if args.out:
        name = args.name or os.path.splitext(os.path.basename(args.out))[0]
        declared = contract(
            name, prepared, samples.sensors, best["limits"], list(zip(kept, names)),
            best["temperature"], best["features"], architecture=args.architecture,
            license=args.license, training_data=args.training_data,
            recipe="python3 -m otbtorch train-sits")
        from .export import ExportError

        try:
            print(export(best["net"], declared, args.out))
        except ExportError as error:
            print("error: %s" % error, file=sys.stderr)
            return 1
    return 0


def command(args):
    """``run``, with what is wrong with the samples said in a line; the exit code."""
    try:
        return run(args)
    except (SamplesError, OSError, ValueError) as error:
        print("error: %s" % error, file=sys.stderr)
        return 2


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python3 -m otbtorch train-sits",
                                     description="Train a classifier of image time series.")
    add_arguments(parser)
    return command(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
