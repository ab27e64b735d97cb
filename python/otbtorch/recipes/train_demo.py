"""Train the shipped demonstration model.

``/usr/bin/python3 -m otbtorch.recipes.train_demo --out data/models/demo-l7.pt`` trains a small
Siamese network on the western part of ``data/scene/date1.tif`` and writes a TorchScript file with
its contract. It takes five to ten minutes on one core and gives the same weights again on the same
machine with the same version of PyTorch.

The columns of the scene are split, so that the figures mean something:

======================  =========================================================================
columns                 use
======================  =========================================================================
0 to 45 %               training. Each step simulates a new second date, with new changes and new
                        nuisance (``otbtorch.recipes.demo_scene``)
45 to 55 %              calibration: temperature (by likelihood) and threshold (by F1)
55 % to the east end    validation on simulated pairs; nothing is fitted or selected there
======================  =========================================================================

The training part has no open water, and a third of the held-out east is sea. So patches of water
are painted into both dates, with the spectrum of the river of the training part, scaled at random.

No seed used here is the seed of the demonstration pair.
"""

import argparse
import io
import sys
import time

import numpy as np
import torch
from torch.nn import functional as F

from .demo_scene import (BANDS, add_changes, add_nuisance, blob, blur, draw_nuisance, land_covers,
                         quantise, read_image, simulate_pair)

SEED = 7
STEPS = 1200
BATCH = 8
CROP = 96
#: Where training and calibration end, as shares of the columns.
TRAIN_END, WEST_END = 0.45, 0.55
#: Depth 2 keeps the halo small (23 pixels), so that a patch of 192 is mostly useful output.
WIDTH, DEPTH, PATCH = 16, 2, 192
CALIBRATION_SEEDS = range(1000, 1008)
VALIDATION_SEEDS = range(2000, 2008)


def split(image):
    """The columns where training ends and where the held-out east begins."""
    columns = image.shape[2]
    return int(TRAIN_END * columns), int(WEST_END * columns)


def with_open_water(image, rng):
    """Paint a few large water bodies: both dates get them, so they are no change."""
    out = image.astype(np.float32).copy()
    spectrum = image[:, land_covers(image)["water"]].mean(axis=1)
    for _ in range(int(rng.integers(1, 4))):
        h, w = (int(v) for v in rng.integers(30, 120, 2))
        y = int(rng.integers(-h // 2, image.shape[1] - h // 2))
        x = int(rng.integers(-w // 2, image.shape[2] - w // 2))
        shape = blob(rng, h, w)
        # Visible bands vary with depth and sediment, infrared ones little.
        colour = spectrum * np.concatenate([rng.uniform(0.9, 1.6) * rng.uniform(0.9, 1.1, 3),
                                            rng.uniform(0.5, 1.1) * rng.uniform(0.9, 1.1, 3)])
        texture = blur(rng.standard_normal((6, h, w)).astype(np.float32), 0.25)
        texture = colour[:, None, None] * (1 + 0.05 * texture)
        top, left = max(0, y), max(0, x)
        bottom, right = min(image.shape[1], y + h), min(image.shape[2], x + w)
        inner = np.s_[top - y:bottom - y, left - x:right - x]
        window = (slice(None), slice(top, bottom), slice(left, right))
        out[window] = np.where(shape[inner], texture[(slice(None),) + inner], out[window])
    return quantise(out)


class Scaling:
    """The z-score of the contract, for training."""

    def __init__(self, image):
        flat = image.reshape(len(image), -1).astype(np.float64)
        self.mean = [round(float(v), 2) for v in flat.mean(axis=1)]
        self.std = [round(float(v), 2) for v in flat.std(axis=1)]

    def __call__(self, image):
        mean = np.asarray(self.mean, np.float32)[:, None, None]
        std = np.asarray(self.std, np.float32)[:, None, None]
        return (image.astype(np.float32) - mean) / std


def half_plane(rng, size):
    """A random half of a square crop (no-data)."""
    y, x = np.mgrid[0:size, 0:size]
    angle = rng.uniform(0, 2 * np.pi)
    across = (x - size / 2) * np.cos(angle) + (y - size / 2) * np.sin(angle)
    return across > rng.uniform(0, size / 2)


def training_batch(image, scaling, rng):
    """A batch of crops of one freshly simulated pair: both dates, target, weight of each pixel."""
    date1 = with_open_water(image, rng) if rng.uniform() < 0.5 else image
    changed_image, changed = add_changes(date1, rng, count=None)
    nuisance = draw_nuisance(rng, rng.uniform(0.3, 1.3))
    z1, z2 = scaling(date1), scaling(quantise(add_nuisance(changed_image, rng, nuisance)))
    x1, x2, target, weight = [], [], [], []
    for _ in range(BATCH):
        y = int(rng.integers(0, image.shape[1] - CROP + 1))
        x = int(rng.integers(0, image.shape[2] - CROP + 1))
        window = np.s_[..., y:y + CROP, x:x + CROP]
        a, b, t = z1[window], z2[window], changed[window]
        if rng.uniform() < 0.5:
            # Other land covers than those of the training part: the same change of radiometry in
            # both dates moves the spectra, and what changed stays what changed.
            gain = rng.uniform(0.8, 1.25, (6, 1, 1)).astype(np.float32)
            offset = rng.uniform(-0.6, 0.6, (6, 1, 1)).astype(np.float32)
            a, b = a * gain + offset, b * gain + offset
        valid = np.ones((CROP, CROP), np.float32)
        if rng.uniform() < 0.15:
            # What the application shows the network at no-data pixels: 0 after scaling.
            hole = half_plane(rng, CROP)
            valid[hole] = 0
            b = np.where(hole, np.float32(0), b)
        if rng.integers(2):
            a, b = b, a
        k, flip = int(rng.integers(4)), bool(rng.integers(2))
        sample = [np.rot90(v, k, (-2, -1)) for v in (a, b, t[None].astype(np.float32), valid[None])]
        if flip:
            sample = [v[..., ::-1] for v in sample]
        for out, v in zip((x1, x2, target, weight), sample):
            out.append(np.ascontiguousarray(v))
    return tuple(torch.from_numpy(np.stack(v)) for v in (x1, x2, target, weight))


def train(model, image, scaling, steps, seed):
    """Train on fresh simulations of `image`; the weights end as those of the last step."""
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps,
                                                   pct_start=0.15)
    model.train()
    start, running = time.time(), []
    for step in range(1, steps + 1):
        x1, x2, target, weight = training_batch(image, scaling, rng)
        logits = model(x1, x2)
        # Plain cross-entropy, without weights for the rare class: probabilities stay probabilities.
        loss = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
        loss = loss / weight.sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        running.append(float(loss))
        if step % 50 == 0 or step == steps:
            print("step %4d/%d  loss %.4f  %.0f s"
                  % (step, steps, np.mean(running[-50:]), time.time() - start), flush=True)
    model.eval()


def predict(model, date1, date2, scaling):
    """Logits of a whole pair at once (rows and columns are padded to a multiple of 16)."""
    x = [torch.from_numpy(scaling(v))[None] for v in (date1, date2)]
    rows, columns = date1.shape[1:]
    pad = (0, -columns % 16, 0, -rows % 16)
    with torch.no_grad():
        logits = model(*[F.pad(v, pad) for v in x])
    return logits[0, 0, :rows, :columns].numpy()


def held_out(model, image, scaling, seeds, first_column=0):
    """Logits and truth of several simulated pairs, from `first_column` on."""
    logits, truth = [], []
    for seed in seeds:
        date2, changed, _ = simulate_pair(image, np.random.default_rng(seed))
        logits.append(predict(model, image, date2, scaling)[:, first_column:].ravel())
        truth.append(changed[:, first_column:].ravel())
    return np.concatenate(logits).astype(np.float64), np.concatenate(truth)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))


def nll(logits, truth):
    """Mean negative log-likelihood of the labels."""
    return float(np.mean(np.logaddexp(0, np.where(truth, -logits, logits))))


def calibration_error(p, truth, bins=15):
    """Expected calibration error: |confidence - frequency| over bins of equal width."""
    index = np.minimum((p * bins).astype(int), bins - 1)
    error = 0.0
    for k in range(bins):
        m = index == k
        if m.any():
            error += m.mean() * abs(p[m].mean() - truth[m].mean())
    return float(error)


def scores(mask, truth):
    """Precision, recall and F1 of a boolean map."""
    tp = float((mask & truth).sum())
    precision = tp / max(1.0, float(mask.sum()))
    recall = tp / max(1.0, float(truth.sum()))
    return precision, recall, 2 * precision * recall / max(1e-9, precision + recall)


def calibrate(logits, truth):
    """Temperature by likelihood, then threshold by F1 (both on a grid: nothing to converge)."""
    temperatures = np.exp(np.linspace(np.log(0.5), np.log(3), 60))
    temperature = round(float(min(temperatures, key=lambda t: nll(logits / t, truth))), 3)
    p = sigmoid(logits / temperature)
    thresholds = np.arange(0.2, 0.81, 0.02)
    # The middle of the flat top, not the noisy maximum.
    f1 = np.array([scores(p >= t, truth)[2] for t in thresholds])
    threshold = round(float(thresholds[f1 >= f1.max() - 0.001].mean()), 2)
    return temperature, threshold


def report(name, logits, truth, temperature, threshold):
    p = sigmoid(logits / temperature)
    print("%s: precision %.3f, recall %.3f, F1 %.3f, NLL %.4f (%.4f before temperature), ECE %.4f"
          % ((name,) + scores(p >= threshold, truth)
             + (nll(logits / temperature, truth), nll(logits, truth), calibration_error(p, truth))))


# --------------------------------------------------------------------------------------------------
# The contract and the command

def contract(scaling, gsd, temperature, threshold):
    """The contract of the shipped model."""
    import otbtorch
    from ..models.unet import receptive_radius

    out = otbtorch.change_detection(
        "demo-l7", list(BANDS), otbtorch.z_score(scaling.mean, scaling.std),
        patch=PATCH, halo=receptive_radius(DEPTH), multiple=2 ** DEPTH, blend="crop",
        # Swapping the dates changes nothing in this network; it is listed because it is allowed.
        tta=["swap", "d4"],
        temperature=temperature, threshold=threshold, gsd_m=gsd, nodata=0,
        architecture="FC-Siam-diff (width %d, depth %d)" % (WIDTH, DEPTH), license="Apache-2.0",
        training_data="Simulated changes and simulated nuisance on the western 45 % of one "
                      "Landsat 7 ETM+ scene around Olinda, Brazil (L7_ETMs.tif of the R package "
                      "stars; Landsat data are in the public domain). For demonstration only.",
        recipe="python3 -m otbtorch.recipes.train_demo")
    # The scene's date is not recorded: the range is that of the sensor, from its launch on.
    out["properties"]["start_datetime"] = "1999-04-15T00:00:00Z"
    return out


def drop_source_paths(path):
    """Remove the debug records of a TorchScript file.

    They hold the absolute paths of the sources on the machine that trained the network, and serve
    only to print a Python traceback. Code, weights and contract stay as they are.
    """
    reader, buffer = torch._C.PyTorchFileReader(path), io.BytesIO()
    writer = torch._C.PyTorchFileWriter(buffer)
    for name in reader.get_all_records():
        # The writer adds the version itself.
        if not name.endswith(".debug_pkl") and name != "version":
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    del reader
    with open(path, "wb") as stream:
        stream.write(buffer.getvalue())


def pixel_size(path):
    from osgeo import gdal
    return round(abs(gdal.Open(path).GetGeoTransform()[1]), 3)


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="otbtorch.recipes.train_demo", description="Train and export the demonstration model.")
    parser.add_argument("--out", default="data/models/demo-l7.pt", help="default: %(default)s")
    parser.add_argument("--date1", default="data/scene/date1.tif", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=STEPS, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=SEED, help="default: %(default)s")
    parser.add_argument("--probe", action="store_true",
                        help="measure the halo of the trained network too (two minutes more)")
    args = parser.parse_args(argv)

    import otbtorch
    from ..models.unet import SiameseUNet

    # One core: sums in another order would give other weights.
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    torch.use_deterministic_algorithms(True)
    start = time.time()

    image = read_image(args.date1)
    train_end, west_end = split(image)
    scaling = Scaling(image[:, :, :west_end])
    model = SiameseUNet(len(BANDS), width=WIDTH, depth=DEPTH)
    print("%d parameters, columns 0-%d train, %d-%d calibrate, %d-%d validate"
          % (sum(p.numel() for p in model.parameters()), train_end - 1, train_end, west_end - 1,
             west_end, image.shape[2] - 1))
    train(model, image[:, :, :train_end], scaling, args.steps, args.seed)

    logits, truth = held_out(model, image[:, :, :west_end], scaling, CALIBRATION_SEEDS, train_end)
    temperature, threshold = calibrate(logits, truth)
    print("temperature %.3f, threshold %.2f" % (temperature, threshold))
    report("calibration strip", logits, truth, temperature, threshold)
    logits, truth = held_out(model, image[:, :, west_end:], scaling, VALIDATION_SEEDS)
    report("held-out east", logits, truth, temperature, threshold)

    declared = contract(scaling, pixel_size(args.date1), temperature, threshold)
    if args.probe:
        measured = otbtorch.probe_halo(model, declared, n=1)
        print(measured)
        tiling = declared["properties"]["otb:tiling"]
        if measured.radius is None or measured.radius > tiling["halo"]:
            raise SystemExit("the measured halo is larger than the declared one, %d"
                             % tiling["halo"])
    print(otbtorch.export(model, declared, args.out))
    drop_source_paths(args.out)
    print("%.0f s in all" % (time.time() - start))
    return 0


if __name__ == "__main__":
    sys.exit(main())
