"""Train the shipped generative models of Sentinel-2 pairs: flow-s2 and mae-s2.

    python3 -m otbtorch.recipes.train_flow --data FOLDER [--out data/models] [--holdout]

FOLDER is that of the OSCD data set: ``images/CITY/imgs_1`` and ``imgs_2`` (one file a band) and,
for --holdout only, ``labels/CITY/cm``. Labels are never trained on: they measure, in cities that
the network has not seen.

The few real changes of a training pair would teach that change is to be expected. So the most
suspicious tenth of each pair (rank of the change vectors plus rank of the residuals of a linear
regression between the dates, smoothed) has no loss wherever the network is given the other date.
Without it, all pixels count.
"""

import argparse
import copy
import glob
import math
import os
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from .. import contract as contracts
from ..export import export
from ..models.flow import PairFlow, PairMasked
from .train_demo import drop_source_paths

BANDS = ("B02", "B03", "B04", "B08")
PATCH = 128
TOKEN = 8
GROUPS = 4
LIMIT = 8.0  # standard deviations
CLIP = (0.1, 99.9)  # percentiles of the statistics of the scaling
SUSPICIOUS = 0.1
SMOOTH = 2.5  # of scores, pixels
# Steps that stand for a minute of one core: the result does not depend on the machine's speed.
FLOW_STEPS = 600
MASKED_STEPS = 600
CROP, BATCH = 64, 8
DROP = 0.15  # share of the flow's samples without condition
LOGSNR = (-7.0, 9.0)  # of training, wider than what is asked for
ASKED = (-6.0, 8.0)
RATE = 2e-3
AVERAGE = 0.998


# ---------------------------------------------------------------------------------------------
# Data


def gaussian(a, sigma):
    """Gaussian smoothing of the last two axes, reflected at the borders."""
    r = int(3 * sigma + 0.5)
    k = np.exp(-0.5 * (np.arange(-r, r + 1) / sigma) ** 2)
    k = (k / k.sum()).astype(np.float32)
    for axis in (-2, -1):
        width = [(0, 0)] * a.ndim
        width[axis] = (r, r)
        p = np.moveaxis(np.pad(a, width, mode="reflect"), axis, 0)
        a = np.moveaxis(sum(k[i] * p[i: len(p) - 2 * r + i] for i in range(2 * r + 1)), 0, axis)
    return a


def read_pair(folder, bands=BANDS):
    """Two arrays [bands, lines, columns] on the grid of the first band of the first date."""
    from osgeo import gdal

    gdal.UseExceptions()
    dates, grid = [], None
    for date in (1, 2):
        layers = []
        for band in bands:
            found = sorted(glob.glob(os.path.join(folder, f"imgs_{date}", f"*_{band}.tif")))
            if not found:
                raise FileNotFoundError(f"{folder}/imgs_{date}: no file *_{band}.tif")
            image = gdal.Open(found[0])
            size = (image.RasterXSize, image.RasterYSize)
            if grid is None:
                grid = (size, image.GetGeoTransform())
            if size != grid[0]:
                (w, h), g = grid
                bounds = (g[0], g[3] + h * g[5], g[0] + w * g[1], g[3])
                image = gdal.Warp("", image, format="MEM", outputBounds=bounds, width=w, height=h,
                                  resampleAlg="cubic")
            layers.append(image.ReadAsArray().astype(np.float32))
        dates.append(np.stack(layers))
    return dates


def read_labels(folder, city):
    from osgeo import gdal

    gdal.UseExceptions()
    path = glob.glob(os.path.join(folder, "labels", city, "cm", "*-cm.tif"))[0]
    return gdal.Open(path).ReadAsArray() == 2


def statistics(pairs):
    """Mean and standard deviation a band: all images alike, clipped at percentiles of all."""
    rng = np.random.default_rng(0)
    sample = np.concatenate([
        x.reshape(len(x), -1)[:, rng.integers(x[0].size, size=20000)] for p in pairs for x in p], 1)
    low, high = np.percentile(sample, CLIP, axis=1)
    sample = np.clip(sample, low[:, None], high[:, None])
    return np.round(sample.mean(1)).astype(np.float64), np.round(sample.std(1)).astype(np.float64)


def standardise(x):
    """By the image itself, clipped at its 1st and 99th percentile: for classical scores only."""
    out = []
    for band in x:
        clipped = np.clip(band, *np.percentile(band, [1, 99]))
        out.append((clipped - clipped.mean()) / max(clipped.std(), 1e-6))
    return np.stack(out).astype(np.float32)


def regression(source, target):
    """Ridge regression of the target's bands on the source, its 3 x 3 neighbours and context."""
    h, w = source.shape[1:]
    padded = np.pad(source, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    design = [padded[:, i: i + h, j: j + w] for i in range(3) for j in range(3)]
    design += [gaussian(source, s) for s in (2, 4, 8)] + [np.ones((1, h, w), np.float32)]
    design = np.concatenate(design).reshape(-1, h * w)
    chosen = np.random.default_rng(0).integers(h * w, size=60000)
    a, y = design[:, chosen].astype(np.float64), target.reshape(len(target), -1)[:, chosen]
    ridge = 1e-3 * np.eye(len(a))
    ridge[-1, -1] = 0
    weights = np.linalg.solve(a @ a.T / len(chosen) + ridge, a @ y.T / len(chosen))
    return (weights.T.astype(np.float32) @ design).reshape(target.shape)


def classical(pair):
    """``(change vectors, regression)``: two scores of a pair, not smoothed."""
    x1, x2 = (standardise(x) for x in pair)
    vectors = np.sqrt(((x2 - x1) ** 2).sum(0))
    residual = np.sqrt(((x2 - regression(x1, x2)) ** 2).sum(0))
    residual += np.sqrt(((x1 - regression(x2, x1)) ** 2).sum(0))
    return vectors, residual


def suspicious(vectors, residual, share=SUSPICIOUS):
    """The ``share`` of the pixels that look most like change by the sum of two ranks."""
    total = np.zeros(vectors.size, np.float32)
    for score in (vectors, residual):
        order = np.argsort(gaussian(score, 1.5).ravel(), kind="stable")
        total[order] += np.arange(len(order), dtype=np.float32)
    return (total > np.quantile(total, 1 - share)).reshape(vectors.shape)


@dataclass
class Pair:
    """A scaled pair: ``x`` [2, bands, lines, columns]; where ``sure`` is 0 it may have changed."""

    x: np.ndarray
    sure: np.ndarray


def prepare(pairs, masks, mean, std):
    """Scaled and limited pairs of what ``read_pair`` and ``suspicious`` gave."""
    m, s = (np.asarray(v, np.float32)[:, None, None] for v in (mean, std))
    return [Pair(np.clip((np.stack(p) - m) / s, -LIMIT, LIMIT), 1 - k.astype(np.float32))
            for p, k in zip(pairs, masks)]


def sample(pairs, rng, batch=BATCH, crop=CROP):
    """``(target, other date, sure)``: random places, date orders, turns, gains and offsets."""
    targets, others, sure = [], [], []
    for _ in range(batch):
        pair = pairs[rng.integers(len(pairs))]
        h, w = pair.sure.shape
        y, x, date = rng.integers(h - crop + 1), rng.integers(w - crop + 1), rng.integers(2)
        turn, mirror = rng.integers(4), rng.integers(2)
        gain = rng.normal(1, 0.08, (2, len(pair.x[0]), 1, 1)).astype(np.float32)
        offset = rng.normal(0, 0.08, gain.shape).astype(np.float32)
        stack = pair.x[:, :, y: y + crop, x: x + crop] * gain + offset
        kept = pair.sure[y: y + crop, x: x + crop]
        stack, kept = np.rot90(stack, turn, (2, 3)), np.rot90(kept, turn)
        if mirror:
            stack, kept = stack[..., ::-1], kept[..., ::-1]
        targets.append(stack[date])
        others.append(stack[1 - date])
        sure.append(kept[None])
    return tuple(torch.from_numpy(np.stack(a)) for a in (targets, others, sure))


# ---------------------------------------------------------------------------------------------
# Training


def flow_loss(net, x, other, sure, rng):
    """Squared error of the U-Net of ``PairFlow``, whose target has unit variance at all levels."""
    n = len(x)
    low, high = LOGSNR
    share = (rng.permutation(n) + rng.random(n)) / n
    logsnr = torch.from_numpy((low + (high - low) * share).astype(np.float32))
    t = torch.sigmoid(0.5 * logsnr)
    flag = torch.from_numpy((rng.random(n) >= DROP).astype(np.float32))
    noise = torch.from_numpy(rng.standard_normal(tuple(x.shape), dtype=np.float32))
    time_ = t[:, None, None, None]
    noisy = time_ * x + (1 - time_) * noise
    velocity = net(noisy, t, other * flag[:, None, None, None], flag)
    square = time_ ** 2 + (1 - time_) ** 2
    weight = 1 - flag[:, None, None, None] * (1 - sure)
    error = square * (velocity - (x - noise)) ** 2
    return (error * weight).sum() / (weight.sum() * x.shape[1]).clamp(min=1)


def masked_loss(net, x, other, sure, rng):
    """Squared error of hidden pixels; each token is visible with probability 1 / GROUPS."""
    side = x.shape[-1] // TOKEN
    hidden = (rng.random((len(x), 1, side, side)) >= 1 / GROUPS).astype(np.float32)
    mask = torch.from_numpy(hidden.repeat(TOKEN, 2).repeat(TOKEN, 3))
    weight = mask * sure
    error = (net(x * (1 - mask), mask, other) - x) ** 2
    return (error * weight).sum() / (weight.sum() * x.shape[1]).clamp(min=1)


def train(net, loss_of, pairs, steps, seed, log=None, batch=BATCH, crop=CROP):
    """Trains in place; returns a network of averaged weights and the losses."""
    rng = np.random.default_rng(seed)
    net.to(memory_format=torch.channels_last).train()
    average = copy.deepcopy(net)
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=1e-4, betas=(0.9, 0.99))
    warm = max(1, min(100, steps // 10))
    start, losses = time.time(), []
    for step in range(1, steps + 1):
        half = 0.5 * (1 + math.cos(math.pi * max(0, step - warm) / max(1, steps - warm)))
        rate = RATE * min(1.0, step / warm) * (0.02 + 0.98 * half)
        for group in optimiser.param_groups:
            group["lr"] = rate
        x, other, sure = sample(pairs, rng, batch, crop)
        loss = loss_of(net, x.contiguous(memory_format=torch.channels_last), other, sure, rng)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        keep = min(AVERAGE, step / (step + 10.0))
        with torch.no_grad():
            for a, b in zip(average.parameters(), net.parameters()):
                a.mul_(keep).add_(b, alpha=1 - keep)
        losses.append(float(loss.detach()))
        if log and (step % 200 == 0 or step == steps):
            log("  step %d of %d: loss %.4f, %.0f s"
                % (step, steps, np.mean(losses[-200:]), time.time() - start))
    return average.to(memory_format=torch.contiguous_format).eval(), losses


def train_flow(pairs, steps, seed=0, log=None):
    torch.manual_seed(seed)
    net, _ = train(PairFlow(len(BANDS), low=LOGSNR[0], high=LOGSNR[1], limit=LIMIT), flow_loss,
                   pairs, steps, seed, log)
    centre_features(net, pairs)
    return net


def train_masked(pairs, steps, seed=0, log=None):
    torch.manual_seed(seed + 1)
    return train(PairMasked(len(BANDS), limit=LIMIT), masked_loss, pairs, steps, seed + 1, log)[0]


def centre_features(net, pairs):
    """Mean and standard deviation of each feature over crops of all the images."""
    rng = np.random.default_rng(0)
    found = []
    with torch.no_grad():
        for _ in range(16):
            found.append(net.features(sample(pairs, rng, 4, PATCH)[0]))
        found = torch.cat(found)
        net.centre.copy_(found.mean((0, 2, 3), keepdim=True))
        net.spread.copy_(found.std((0, 2, 3), keepdim=True).clamp(min=1e-3))


# ---------------------------------------------------------------------------------------------
# Evaluation on cities that were left out


def metrics(score, truth):
    """``(AUROC, average precision)``."""
    order = np.argsort(-score.ravel(), kind="stable")
    hits, values = truth.ravel()[order], score.ravel()[order]
    last = np.r_[values[1:] != values[:-1], True]
    tp, fp = np.cumsum(hits)[last], np.cumsum(~hits)[last]
    recall, precision = tp / tp[-1], tp / (tp + fp)
    average = np.sum(np.diff(np.r_[0, recall]) * precision)
    area = np.trapz(np.r_[0, recall], np.r_[0, fp / fp[-1]])
    return float(area), float(average)


def flow_scores(net, x, seed=0, levels=8, steps=10):
    """Scores of a pair [2, bands, H, W] as the application makes them, not smoothed.

    Returns ``(scores, nll)``: ``nll`` is minus the log-likelihood of the scaled values, nats a
    value, with the other date and without.
    """
    generator = torch.Generator().manual_seed(seed)
    target, other = x.flip(0), x
    low, high = ASKED
    delta = (high - low) / levels
    scores = {"pmi": 0.0, "cond": 0.0, "cond, log-SNR < 1": 0.0}
    likelihood = [0.0, 0.0]
    denoise = []
    on, off = torch.ones(2), torch.zeros(2)
    for k in range(levels):
        logsnr = low + (k + 0.5) * delta
        t = 1 / (1 + math.exp(-0.5 * logsnr))
        drawn = torch.randn(x[:1].shape, generator=generator)
        errors = [0.0, 0.0, 0.0]
        for sign in (1, -1):
            noise = sign * drawn
            noisy = t * target + (1 - t) * noise
            time_ = torch.full((2,), t)
            for i, (condition, flag) in enumerate(((other, on), (0 * other, off))):
                found = noisy - t * net(noisy, time_, condition, flag)
                errors[i] = errors[i] + (noise - found) ** 2
            gauss = (1 - t) / (t * t + (1 - t) ** 2) * noisy
            errors[2] = errors[2] + (noise - gauss) ** 2
        given, alone, known = (0.25 * delta * e.sum((0, 1)) for e in errors)
        scores["pmi"] = scores["pmi"] + given - alone
        scores["cond"] = scores["cond"] + given - known
        if logsnr < 1:
            scores["cond, log-SNR < 1"] = scores["cond, log-SNR < 1"] + given - known
        denoise.append(alone)
        for i in range(2):
            likelihood[i] += 0.25 * delta * float((errors[i] - errors[2]).mean())
    prior = 0.5 * (target ** 2).sum((0, 1))
    scores["cond"] = scores["cond"] + prior
    scores["cond, log-SNR < 1"] = scores["cond, log-SNR < 1"] + prior
    scores["denoise"] = sum((d - d.mean()) / d.std() for d in denoise)
    constant = 0.5 * math.log(2 * math.pi) + 0.5 * float((target ** 2).mean())
    nll = [constant + v for v in likelihood]

    first, final = (1 / (1 + math.exp(-0.5 * v)) for v in (min(6.0, high), max(-2.0, low)))
    state, score = first * x, 0.0
    for k in range(steps):
        t = first + (final - first) * k / steps
        velocity = net(state, torch.full((2,), t), 0 * x, off)
        noise = state - t * velocity
        score = score + ((noise[1] - noise[0]) ** 2).mean(0) / steps
        state = state + (final - first) / steps * velocity
    scores["latent"] = score

    a, b = (net.features(v[None]) for v in x)
    distance = 1 - F.cosine_similarity(a, b)[0]
    scores["feature"] = distance.repeat_interleave(4, 0).repeat_interleave(4, 1)
    return {k: v.numpy() for k, v in scores.items()}, nll


def masked_scores(net, x, seed=0):
    """Score of a pair [2, bands, H, W], as the application makes it, not smoothed."""
    rng = np.random.default_rng(seed)
    h, w = x.shape[-2:]
    group = rng.integers(GROUPS, size=(h // TOKEN, w // TOKEN)).repeat(TOKEN, 0).repeat(TOKEN, 1)
    target, score = x.flip(0), 0.0
    for visible in range(GROUPS):
        mask = torch.from_numpy((group != visible).astype(np.float32)).expand(2, 1, h, w)
        error = (net(target * (1 - mask), mask, x) - target) ** 2 * mask
        score = score + error.mean(1).sum(0) / (GROUPS - 1)
    return score.numpy()


def central(array, side):
    """The central window of at most ``side`` pixels, of whole tokens."""
    h, w = (min(n - n % TOKEN, side) for n in array.shape[-2:])
    y, x = (array.shape[-2] - h) // 2, (array.shape[-1] - w) // 2
    return np.ascontiguousarray(array[..., y: y + h, x: x + w])


def evaluate(flow, masked, raw, classic, truth, mean, std, side):
    """``{score: (AUROC, AP)}`` and ``(bits a value with the other date, without)`` of a city."""
    m, s = (np.asarray(v, np.float32)[:, None, None] for v in (mean, std))
    x = torch.from_numpy(central((np.stack(raw) - m) / s, side))
    with torch.no_grad():
        scores, nll = flow_scores(flow, x)
        scores["mae"] = masked_scores(masked, x)
    for name, score in zip(("change vectors", "regress"), classic):
        scores[name] = central(score, side)
    truth = central(truth, side)
    found = {k: metrics(gaussian(v.astype(np.float32), SMOOTH), truth) for k, v in scores.items()}
    # Of raw values (digital numbers).
    bits = [(v + float(np.log(std).mean())) / math.log(2) for v in nll]
    return found, bits


# ---------------------------------------------------------------------------------------------
# Contracts


def declare(name, mean, std, halo):
    """The contract of ``flow-s2`` or ``mae-s2``."""
    common = dict(
        patch=PATCH, halo=halo, multiple=8, blend="hann", gsd_m=10, nodata=0,
        license="Apache-2.0",
        training_data="14 pairs of Sentinel-2 L1C images, 2015-2018, of the Onera Satellite Change "
                      "Detection data set, without its labels (modified Copernicus Sentinel data "
                      "2015-2018).",
        recipe="python3 -m otbtorch.recipes.train_flow", null="none")
    if name.startswith("flow"):
        common.update(
            null="flag", architecture="U-Net, conditional flow matching",
            generative={"kind": "velocity", "schedule": "fm_linear", "time": "continuous01",
                        "data_at": 1, "logsnr_range": list(ASKED)},
            methods={"features": {"channels": 64, "scale": 4}},
            citation="Y. Lipman et al., ICLR 2023 (flow matching)")
    else:
        common.update(
            architecture="U-Net, masked autoencoder", masked={"patch": TOKEN, "groups": GROUPS},
            citation="K. He et al., CVPR 2022 (masked autoencoders)")
    scaling = contracts.z_score(list(mean), list(std))
    made = contracts.change_likelihood(name, list(BANDS), scaling, **common)
    made["properties"]["start_datetime"] = "2015-06-23T00:00:00Z"
    return made


def save(net, name, mean, std, folder, halo):
    path = os.path.join(folder, name + ".pt")
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    report = export(net, declare(name, mean, std, halo), path)
    drop_source_paths(path)
    return report


# Measured by probe-halo.
HALO = {"flow-s2": 51, "mae-s2": 51}


# ---------------------------------------------------------------------------------------------


def holdout(cities, raw, classic, masks, folder, minutes, seed, side, say):
    """Trains on every other city and measures on the rest, twice; mean over all the cities."""
    tables, bits = [], []
    for fold in range(2):
        kept = [i for i in range(len(cities)) if i % 2 != fold]
        mean, std = statistics([raw[i] for i in kept])
        pairs = prepare([raw[i] for i in kept], [masks[i] for i in kept], mean, std)
        flow = train_flow(pairs, round(minutes * FLOW_STEPS), seed, say)
        masked = train_masked(pairs, round(minutes * MASKED_STEPS), seed, say)
        for i in range(len(cities)):
            if i % 2 != fold:
                continue
            truth = read_labels(folder, cities[i])
            found, spent = evaluate(flow, masked, raw[i], classic[i], truth, mean, std, side)
            tables.append(found)
            bits.append(spent)
            say("%s: %.2f bits given the other date, %.2f without; %s" % (
                cities[i], *spent, ", ".join("%s %.3f/%.3f" % (k, *v) for k, v in found.items())))
    say("mean of %d cities, bits a value: %.3f given the other date, %.3f without"
        % (len(bits), *np.mean(bits, axis=0)))
    for name in tables[0]:
        say("%-18s AUROC %.3f  AP %.3f" % (name, *np.mean([t[name] for t in tables], axis=0)))


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python3 -m otbtorch.recipes.train_flow",
        description="Train and export the generative models of Sentinel-2 pairs.")
    parser.add_argument("--data", required=True, help="folder of the OSCD data set")
    parser.add_argument("--out", default="data/models", help="default: %(default)s")
    parser.add_argument("--minutes", type=float, default=5.0,
                        help="length of the training of each network, in minutes of one idle core: "
                             "a number of steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--holdout", action="store_true",
                        help="evaluate in two folds of cities instead of writing models")
    parser.add_argument("--window", type=int, default=384,
                        help="side of the part of a city that is evaluated, 0: all of it "
                             "(default: %(default)s)")
    args = parser.parse_args(argv)

    # One core: sums in another order would give other weights.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    start = time.time()

    def say(text):
        print(text, flush=True)

    images = os.path.join(args.data, "images")
    cities = sorted(os.listdir(images))
    raw = [read_pair(os.path.join(images, c)) for c in cities]
    classic = [classical(p) for p in raw]
    masks = [suspicious(*c) for c in classic]
    say("%d pairs read, %.0f s" % (len(raw), time.time() - start))
    if args.holdout:
        holdout(cities, raw, classic, masks, args.data, args.minutes, args.seed,
                args.window or 1 << 20, say)
    else:
        mean, std = statistics(raw)
        say("mean %s, standard deviation %s" % (mean, std))
        pairs = prepare(raw, masks, mean, std)
        # What would fail after minutes of training fails now.
        for name in HALO:
            problems = contracts.validate(declare(name, mean, std, HALO[name]))
            if problems:
                raise SystemExit("\n".join(map(str, problems)))
        os.makedirs(args.out, exist_ok=True)
        flow = train_flow(pairs, round(args.minutes * FLOW_STEPS), args.seed, say)
        say(str(save(flow, "flow-s2", mean, std, args.out, HALO["flow-s2"])))
        masked = train_masked(pairs, round(args.minutes * MASKED_STEPS), args.seed, say)
        say(str(save(masked, "mae-s2", mean, std, args.out, HALO["mae-s2"])))
    say("%.0f s in all" % (time.time() - start))
    return 0


if __name__ == "__main__":
    sys.exit(main())
