"""Train the change network for Sentinel-2 pairs (B02 B03 B04 B08, 10 m), without any label.

    python3 -m otbtorch.recipes.train_change --data FOLDER [--out FOLDER] [--folds] [--seeds 3]

FOLDER is the Onera Satellite Change Detection dataset (``images/CITY/imgs_1``, ``imgs_2``). Its
labels are read by ``--folds`` alone, which scores each city with a network that has not seen it.

What the network is
    Each pair is standardised (1 to 99 % clip) and regressed by itself: each band of one date from
    the other date, in both directions. The length of the residual, smoothed, is a change score that
    needs no training (``Pair.score``). The network (``otbtorch.models.change_ratio``) sees target,
    prediction, source and residual of one direction, and is a density ratio, estimated by noise
    contrast: it tells pixels of real pairs from pixels where something from elsewhere was pasted
    into one of the dates. Its logit is the mean of the two directions; the score of the pair is
    ``z(regression score) + WEIGHT * z(smoothed logit)``.

What is pasted
    Soft-edged polygons, clusters of rectangles, strips and blobs, 70 % from elsewhere in the same
    pair and 30 % from another training pair, with the prediction that belongs to them. Origins are
    pixels that look built (texture in the visible bands, more red than near infrared): those are
    the changes that are sought. Shapes pasted into *both* dates at the same place are no change, so
    that edges of pastes are no cue. The edges, and what hardly differs from what it replaces, do
    not count.

What real pixels are
    No change, except those with the highest scores of their pair (``SUSPICIOUS``): they may be real
    changes, and do not count. These are the highest regression scores at first, and twice in the
    course of the training the highest scores of regression and network together. No pixel of a
    real pair is ever taken as changed.
"""

import argparse
import copy
import glob
import json
import os
import sys
import time
from dataclasses import dataclass
from typing import Callable, Optional

import numpy as np
import torch
from torch.nn import functional as F

from ..contract import change_likelihood
from ..export import export
from ..models.change_ratio import ChangeRatio
from .train_demo import drop_source_paths

BANDS = ("B02", "B03", "B04", "B08")
#: Smoothing of the regression score and of the logit (pixels), and weight of the logit.
SIGMA, WEIGHT = 2.5, 1.0
#: Share of the pixels of a pair, by regression score, that do not count in the loss.
SUSPICIOUS = 0.175
#: Share of the pixels of an image that may be pasted elsewhere.
BUILT = 0.4
WIDTH, DEPTH = 32, 2


@dataclass
class Options:
    """How to train."""

    steps: int = 600
    #: After these shares of the steps, what does not count is chosen again.
    again: tuple = (0.4, 0.65)
    batch: int = 16
    crop: int = 96
    rate: float = 2e-3
    decay: float = 1e-2
    average: float = 0.99
    pastes: float = 3.0
    unchanged: float = 0.3
    other_pair: float = 0.3
    differs: float = 0.6
    log: Optional[Callable[[str], None]] = None


def smooth(image, sigma):
    """Gaussian of one band, cut at 3 sigma, reflected at the borders."""
    radius = int(3 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    height, width = image.shape
    padded = np.pad(image, radius, mode="reflect")
    rows = sum(w * padded[i:i + height] for i, w in enumerate(weights))
    return sum(w * rows[:, i:i + width] for i, w in enumerate(weights))


def zscore(image):
    return (image - image.mean()) / max(float(image.std()), 1e-9)


def standardise(image):
    """Each band clipped to its 1 and 99 % quantiles, then to mean 0 and standard deviation 1."""
    out = np.empty(image.shape, np.float32)
    for i, band in enumerate(image):
        clipped = np.clip(band, *np.percentile(band, [1, 99]))
        out[i] = (clipped - clipped.mean()) / max(float(clipped.std()), 1e-6)
    return out


def predict(source, target, ridge=1e-3, samples=80000):
    """The target by ridge regression on 3 x 3 neighbours and Gaussians of each source band."""
    height, width = source.shape[1:]
    features = []
    for band in source:
        padded = np.pad(band, 1, mode="reflect")
        features += [padded[i:i + height, j:j + width] for i in range(3) for j in range(3)]
        features += [smooth(band, sigma) for sigma in (2, 4, 8)]
    features.append(np.ones((height, width), np.float32))
    a = np.stack(features).reshape(len(features), -1)
    b = target.reshape(len(target), -1)
    drawn = np.random.RandomState(0).permutation(a.shape[1])[:samples]
    x, y = a[:, drawn].astype(np.float64), b[:, drawn].astype(np.float64)
    penalty = ridge * np.eye(len(x))
    penalty[-1, -1] = 0
    weights = np.linalg.solve(x @ x.T / x.shape[1] + penalty, x @ y.T / x.shape[1])
    return (weights.T.astype(np.float32) @ a).reshape(target.shape)


def read_dates(folder):
    """The two dates, ``[band, row, column]``; the second one on the grid of the first one."""
    from osgeo import gdal

    gdal.UseExceptions()
    dates, grid = [], None
    for number in "12":
        bands = []
        for name in BANDS:
            found = sorted(glob.glob(os.path.join(folder, "imgs_" + number, "*_%s.tif" % name)))
            if len(found) != 1:
                raise FileNotFoundError("%s: one *_%s.tif is expected in imgs_%s, there are %d"
                                        % (folder, name, number, len(found)))
            raster = gdal.Open(found[0])
            grid = grid or (raster.GetGeoTransform(), raster.RasterXSize, raster.RasterYSize)
            transform, width, height = grid
            if (raster.RasterXSize, raster.RasterYSize) != (width, height):
                right = transform[0] + width * transform[1]
                bottom = transform[3] + height * transform[5]
                raster = gdal.Warp("", raster, format="MEM", width=width, height=height,
                                   outputBounds=(transform[0], bottom, right, transform[3]),
                                   resampleAlg="cubic")
            bands.append(raster.ReadAsArray().astype(np.float32))
        dates.append(np.stack(bands))
    return dates


class Pair:
    """A pair of dates, standardised and regressed by itself.

    ``dates[d]`` is a date, ``predicted[d]`` the same date predicted from the other one, ``score``
    the regression score, ``counts`` where real pixels count as unchanged, ``built`` the rows and
    columns of the pixels that may be pasted elsewhere, ``suspicious`` those of the highest scores.
    """

    def __init__(self, name, first, second):
        self.name = name
        self.dates = [standardise(first), standardise(second)]
        self.predicted = [predict(self.dates[1 - d], self.dates[d]) for d in (0, 1)]
        self.shape = self.dates[0].shape[1:]
        self.score = smooth(sum(np.sqrt(((a - b) ** 2).sum(0))
                                for a, b in zip(self.dates, self.predicted)), SIGMA)
        self.suspect(self.score)
        look = self._looks_built()
        self.built = np.argwhere(look > np.quantile(look, 1 - BUILT))

    def suspect(self, score):
        """Leave the pixels of the highest scores out of the loss."""
        self.counts = score <= np.quantile(score, 1 - SUSPICIOUS)
        self.suspicious = np.argwhere(score > np.quantile(score, 0.975))

    def _looks_built(self):
        """High where the first date has texture and more red than near infrared."""
        image = self.dates[0]
        variance = sum(np.maximum(smooth(v * v, 2) - smooth(v, 2) ** 2, 0) for v in image[:3])
        return zscore(np.sqrt(variance)) + zscore(smooth(image[2] - image[3], 2))

    def channels(self, direction):
        """The input of the network, ``[4 * band, row, column]``; direction is the target date."""
        target, predicted = self.dates[direction], self.predicted[direction]
        return np.concatenate([target, predicted, self.dates[1 - direction], target - predicted])


def read_pair(data, city):
    return Pair(city, *read_dates(os.path.join(data, "images", city)))


def read_label(data, city):
    """The reference, for evaluation alone: True where something changed."""
    from osgeo import gdal

    found = glob.glob(os.path.join(data, "labels", city, "cm", "*-cm.tif"))
    return gdal.Open(found[0]).ReadAsArray() == 2


def _turned(rng, size):
    """Coordinates of a square window around its centre, along a random orientation."""
    y, x = np.mgrid[:size, :size].astype(np.float32) - size // 2
    angle = rng.uniform(0, np.pi)
    return (x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle))


def polygon(rng, extent, size):
    u, v = _turned(rng, size)
    corners = int(rng.integers(4, 9))
    at = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = rng.uniform(0.4, 1, corners) * extent / 2
    at = np.r_[at[-1] - 2 * np.pi, at, at[0] + 2 * np.pi]
    radius = np.r_[radius[-1], radius, radius[0]]
    return np.hypot(u, v) < np.interp(np.arctan2(v, u) % (2 * np.pi), at, radius)


def rectangles(rng, extent, size):
    u, v = _turned(rng, size)
    mask = np.zeros((size, size), bool)
    for _ in range(int(rng.integers(1, 6))):
        left, top = rng.uniform(-0.5, 0.5, 2) * extent
        width, height = np.maximum(rng.uniform(0.1, 0.4, 2) * extent, 1.2)
        mask |= (np.abs(u - left) < width) & (np.abs(v - top) < height)
    return mask


def strip(rng, extent, size):
    u, v = _turned(rng, size)
    bend = rng.uniform(-0.02, 0.02)
    return (np.abs(v - bend * u * u) < rng.uniform(0.8, 2.2)) & (np.abs(u) < 0.8 * extent)


def blob(rng, extent, size):
    u, v = _turned(rng, size)
    noise = smooth(rng.standard_normal((size, size)).astype(np.float32), max(extent / 8, 1.0))
    return noise / noise.std() - 2.4 * np.hypot(u, v) / extent + 0.8 > 0


def shape(rng):
    """A random shape of 4 to 40 pixels, in a small square window: weights in [0, 1]."""
    extent = np.exp(rng.uniform(np.log(4), np.log(40)))
    size = int(min(max(1.6 * extent, 9), 63)) | 1
    draw = (polygon, rectangles, strip, blob)[rng.integers(4)]
    return smooth(draw(rng, extent, size).astype(np.float32), rng.uniform(0.4, 0.8))


def _shifted(image, rng):
    """A shift by less than half a pixel, as of imperfect registration."""
    for axis in (1, 2):
        by = rng.uniform(-0.5, 0.5)
        image = (1 - abs(by)) * image + abs(by) * np.roll(image, 1 if by > 0 else -1, axis)
    return image.astype(np.float32)


def _crop(pair, size, rng):
    """The upper left corner of a crop: half of them hold a pixel that does not count."""
    corner = [int(rng.integers(n - size + 1)) for n in pair.shape]
    if rng.random() < 0.5:
        pixel = pair.suspicious[rng.integers(len(pair.suspicious))] - rng.integers(size, size=2)
        corner = [int(np.clip(v, 0, n - size)) for v, n in zip(pixel, pair.shape)]
    return corner


def _difference(step, core):
    """Mean absolute difference where the shape is; thin shapes may have no core."""
    return float(np.abs(step[:, core]).mean()) if core.any() else 0.0


def sample(pairs, options, rng):
    """One crop: the input, what is changed, and what counts."""
    pair, size = pairs[rng.integers(len(pairs))], options.crop
    direction = int(rng.integers(2))
    top, left = _crop(pair, size, rng)
    window = np.s_[..., top:top + size, left:left + size]
    target = pair.dates[direction][window].copy()
    predicted = pair.predicted[direction][window].copy()
    source = pair.dates[1 - direction][window].copy()
    counts, changed = pair.counts[window].copy(), np.zeros((size, size), bool)
    if rng.random() < 0.3:
        target = _shifted(target, rng)
    for _ in range(rng.poisson(options.pastes)):
        weights = shape(rng)
        n = len(weights)
        origin, date = pair, direction
        if rng.random() < options.other_pair:
            origin, date = pairs[rng.integers(len(pairs))], int(rng.integers(2))
        row, column = origin.built[rng.integers(len(origin.built))] - n // 2
        row, column = (int(np.clip(v, 0, m - n)) for v, m in zip((row, column), origin.shape))
        there = np.s_[..., row:row + n, column:column + n]
        row, column = (int(v) for v in rng.integers(size - n + 1, size=2))
        here = np.s_[..., row:row + n, column:column + n]
        core, touched = weights > 0.5, weights > 0.05
        both = rng.random() < options.unchanged
        into_target = both or rng.random() < 0.5
        differs = 0.0
        if into_target:
            step = origin.dates[date][there] - target[here]
            differs = _difference(step, core)
            target[here] += weights * step
        if both or not into_target:
            step = origin.predicted[date][there] - predicted[here]
            differs = _difference(step, core)
            predicted[here] += weights * step
            source[here] += weights * (origin.dates[1 - date][there] - source[here])
        counts[here][touched] = False
        if both:
            counts[here][core] = origin.counts[there][core]
            changed[here][core] = False
        elif differs > options.differs:
            counts[here][core] = True
            changed[here][core] = True
    gain = rng.uniform(0.85, 1.18, (2, len(BANDS), 1, 1))
    offset = rng.normal(0, 0.15, (2, len(BANDS), 1, 1))
    target, predicted = (v * gain[0] + offset[0] for v in (target, predicted))
    source = source * gain[1] + offset[1]
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    out = []
    for layer in (np.concatenate([target, predicted, source, target - predicted]),
                  changed[None], counts[None]):
        layer = np.rot90(layer, turns, (1, 2))
        layer = layer[..., ::-1] if flip else layer
        out.append(torch.from_numpy(np.ascontiguousarray(layer, np.float32)))
    return out


def build_network():
    """The network, not trained: (N, 4 * bands, H, W) to logits (N, 1, H, W)."""
    return ChangeRatio(len(BANDS), WIDTH, DEPTH)


def train(pairs, options, seed):
    """Train on pairs; returns the moving average of the network over the steps, in eval mode."""
    if min(min(pair.shape) for pair in pairs) < max(options.crop, 63):
        raise ValueError("a pair is smaller than a crop")
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    network = build_network()
    average = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.rate,
                                  weight_decay=options.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, options.rate,
                                                   total_steps=options.steps, pct_start=0.1)
    network.train()
    for pair in pairs:
        pair.suspect(pair.score)
    start, losses = time.time(), []
    again = {int(share * options.steps) for share in options.again}
    for step in range(1, options.steps + 1):
        batch = [sample(pairs, options, rng) for _ in range(options.batch)]
        channels, changed, counts = (torch.stack(v) for v in zip(*batch))
        # The changed pixels are few: they weigh twice.
        weights = counts * (1 + changed)
        loss = F.binary_cross_entropy_with_logits(network(channels), changed, weights,
                                                  reduction="sum") / weights.sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimiser.step()
        schedule.step()
        keep = min(options.average, step / (step + 20.0))
        with torch.no_grad():
            for old, new in zip(average.state_dict().values(), network.state_dict().values()):
                if old.dtype.is_floating_point:
                    old.lerp_(new, 1 - keep)
                else:
                    old.copy_(new)
        losses.append(loss.item())
        if step in again:
            average.eval()
            for pair in pairs:
                pair.suspect(combined(pair.score, logit(average, pair)))
        if options.log and (step % 100 == 0 or step == options.steps):
            options.log("step %d of %d: loss %.4f, %.0f s"
                        % (step, options.steps, np.mean(losses[-100:]), time.time() - start))
    return average.eval()


def logit(network, pair, multiple=16):
    """The mean of the logits of the two directions, ``[row, column]``."""
    height, width = pair.shape
    total = np.zeros(pair.shape, np.float32)
    with torch.no_grad():
        for direction in (0, 1):
            channels = np.pad(pair.channels(direction),
                              ((0, 0), (0, -height % multiple), (0, -width % multiple)), "reflect")
            out = network(torch.from_numpy(channels)[None])[0, 0]
            total += 0.5 * out.numpy()[:height, :width]
    return total


def combined(score, logits, weight=WEIGHT):
    """The score of the application: higher is more likely changed."""
    return zscore(score) + weight * zscore(smooth(logits, SIGMA))


def figures(score, changed):
    """Area under the ROC curve, average precision, best F1."""
    order = np.argsort(-score, axis=None, kind="stable")
    score, changed = score.ravel()[order], changed.ravel()[order]
    last = np.r_[score[1:] != score[:-1], True]
    hits, false = np.cumsum(changed)[last], np.cumsum(~changed)[last]
    recall, precision = hits / hits[-1], hits / (hits + false)
    return (np.trapz(np.r_[0, recall], np.r_[0, false / false[-1]]),
            np.sum(np.diff(np.r_[0, recall]) * precision),
            np.max(2 * hits / (hits + false + hits[-1])))


def folds(names):
    """The cities of the two folds, by turns in alphabetical order."""
    return sorted(names)[0::2], sorted(names)[1::2]


def contract(name):
    """The contract of a network of this recipe."""
    return change_likelihood(
        name, list(BANDS), None, patch=256, halo=48, multiple=2 ** (DEPTH + 1),
        ratio={"weight": WEIGHT, "smooth": SIGMA}, gsd_m=10.0, architecture="U-Net on half the resolution, density ratio",
        license="Apache-2.0", training_data="Sentinel-2 images of 14 pairs (Onera Satellite Change Detection), without its labels; "
        "contains modified Copernicus Sentinel data 2015-2018", recipe="otbtorch.recipes.train_change")


def save(network, path):
    """Write ``path``: TorchScript with its contract, and no paths of this machine."""
    name = os.path.splitext(os.path.basename(path))[0]
    export(network, contract(name), path)
    drop_source_paths(path)


def evaluate(data, pairs, options, seeds, out=None, say=print):
    """Score each city with a network that has not seen it; the figures, mean over the cities."""
    parts, table = folds(pairs), {}
    for seed in seeds:
        for number, left_out in enumerate(parts):
            network = train([pairs[c] for c in pairs if c not in left_out], options, seed)
            if out and seed == seeds[0]:
                save(network, os.path.join(out, "fold%d.pt" % number))
            for city in left_out:
                changed, score = read_label(data, city), pairs[city].score
                logits = logit(network, pairs[city])
                row = [figures(v, changed) for v in
                       (score, smooth(logits, SIGMA), combined(score, logits))]
                table.setdefault(seed, {})[city] = row
                say("seed %d, fold %d, %-12s regression %.3f %.3f %.3f; network %.3f %.3f %.3f; "
                    "both %.3f %.3f %.3f" % ((seed, number, city) + tuple(np.ravel(row))))
        mean = np.mean(list(table[seed].values()), 0)
        say("seed %d, mean of %d cities: regression %.3f %.3f %.3f; network %.3f %.3f %.3f; "
            "both %.3f %.3f %.3f" % ((seed, len(table[seed])) + tuple(mean.ravel())))
    if out:
        with open(os.path.join(out, "folds.json"), "w", encoding="utf-8") as file:
            json.dump({"fold%d.pt" % i: {"left_out": list(p)} for i, p in enumerate(parts)}, file,
                      indent=1)
    return table


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python3 -m otbtorch.recipes.train_change",
        description="Train the change network for Sentinel-2 pairs, without labels.")
    parser.add_argument("--data", required=True, help="the OSCD dataset: images/CITY/imgs_1 ...")
    parser.add_argument("--out", help="folder to write change-s2.pt to; with "
                        "--folds fold0.pt, fold1.pt and folds.json")
    parser.add_argument("--folds", action="store_true",
                        help="evaluate on cities left out, in two folds, instead of training")
    parser.add_argument("--seeds", type=int, default=1,
                        help="with --folds: how many seeds (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0,
                        help="of the network, with --folds the first one (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=Options.steps, help="default: %(default)s")
    args = parser.parse_args(argv)

    # One core: sums in another order would give other weights.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if args.out:
        os.makedirs(args.out, exist_ok=True)
    cities = sorted(os.listdir(os.path.join(args.data, "images")))
    pairs = {city: read_pair(args.data, city) for city in cities}
    options = Options(steps=args.steps, log=lambda line: print(line, flush=True))
    if args.folds:
        evaluate(args.data, pairs, options, range(args.seed, args.seed + args.seeds), args.out,
                 say=lambda line: print(line, flush=True))
        return 0
    if not args.out:
        parser.error("--out is needed to train")
    save(train(list(pairs.values()), options, args.seed), os.path.join(args.out, "change-s2.pt"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
