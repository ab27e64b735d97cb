#!/usr/bin/env python3
"""Published architectures, trained on the labels of OSCD and run through the application.

    python3 bench/oscd/architectures.py --data FOLDER [--networks fc-siam-diff ...] [--steps 600]

FOLDER is the Onera Satellite Change Detection dataset. Each network is trained on 13 bands of one
half of the cities and maps the other half with otbcli_SiameseCD, from the separate band files at
10, 20 and 60 m; then the other way round. Printed, as the paper's table does (Daudt et al., ICIP
2018): precision, recall and F1 of change, in per cent, from one confusion matrix over all cities,
at the network's own threshold (.5).

The labels of OSCD are for evaluation: the weights made here are thrown away. The paper trains on
these 14 cities and is tested on 10 others; here 7 are trained on and 7 tested, twice.
"""

import argparse
import os
import sys
import tempfile
import time

import numpy as np
import torch
from torch.nn import functional as F

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
sys.path[:0] = [os.path.join(ROOT, "python"), os.path.join(ROOT, "bench", "change")]

import common  # noqa: E402
from otbtorch import contract, export  # noqa: E402
from otbtorch.models import FCEF, FCSiamConc, FCSiamDiff, TokenCD  # noqa: E402

BANDS = [f"B{b:02d}" for b in range(1, 9)] + ["B8A"] + [f"B{b:02d}" for b in range(9, 13)]
NETWORKS = {"fc-ef": FCEF, "fc-siam-conc": FCSiamConc, "fc-siam-diff": FCSiamDiff, "token": TokenCD}
#: Precision, recall, F1 on the test cities, 13 bands, as published.
PUBLISHED = {
    "fc-ef": (64.42, 50.97, 56.91),
    "fc-siam-conc": (42.39, 65.15, 51.36),
    "fc-siam-diff": (57.84, 57.99, 57.92),
}
SIDE = 96


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["fc-siam-diff"])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def stack(data, city):
    """Both dates (2, 13, H, W) on the grid of the first date's B02, and where it changed."""
    from osgeo import gdal

    grid = gdal.Open(common.bands(data, city, 1, ["B02"])[0])
    g, width, height = grid.GetGeoTransform(), grid.RasterXSize, grid.RasterYSize
    bounds = (g[0], g[3] + height * g[5], g[0] + width * g[1], g[3])
    dates = []
    for date in (1, 2):
        bands = []
        for path in common.bands(data, city, date, BANDS):
            warped = gdal.Warp(
                "", path, format="MEM", outputBounds=bounds, width=width, height=height,
                resampleAlg="cubic", dstSRS=grid.GetProjection(),
            )  # fmt: skip
            bands.append(warped.ReadAsArray().astype(np.float32))
        dates.append(np.stack(bands))
    return np.stack(dates), common.labels(data, city)


def scaling_of(cities):
    """Mean and standard deviation of each band over some cities."""
    pixels = np.concatenate([x.transpose(1, 0, 2, 3).reshape(len(BANDS), -1) for x, _ in cities], 1)
    return pixels.mean(1), pixels.std(1)


def train(name, cities, mean, deviation, options):
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    network = NETWORKS[name](len(BANDS)).train()
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.steps)
    scaled = [((x - mean[:, None, None]) / deviation[:, None, None], y) for x, y in cities]
    sizes = np.array([y.size for _, y in scaled], float)
    weight = torch.tensor([1.0, 4.0])
    start = time.time()
    for step in range(options.steps):
        xs, ys = [], []
        for _ in range(options.batch):
            x, y = scaled[rng.choice(len(scaled), p=sizes / sizes.sum())]
            top, left = (rng.integers(0, n - SIDE + 1) for n in y.shape)
            part = np.s_[..., top : top + SIDE, left : left + SIDE]
            x, y, turns = x[part], y[part], rng.integers(4)
            if rng.random() < 0.5:
                x, y = x[..., ::-1], y[..., ::-1]
            xs.append(np.ascontiguousarray(np.rot90(x, turns, axes=(-2, -1))))
            ys.append(np.ascontiguousarray(np.rot90(y, turns, axes=(-2, -1))))
        x = torch.from_numpy(np.stack(xs)).float()
        loss = F.cross_entropy(
            network(x[:, 0], x[:, 1]), torch.from_numpy(np.stack(ys)).long(), weight=weight
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 50 == 49:
            print(f"  step {step + 1}: loss {loss.item():.3f}, {time.time() - start:.0f} s", flush=True)
    return network.eval()


def save(name, network, mean, deviation, path):
    blended = name == "token"
    made = contract.change_detection(
        name, BANDS, [dict(type="z-score", mean=float(m), stddev=float(s)) for m, s in zip(mean, deviation)],
        patch=SIDE if blended else 512, halo=0 if blended else 128, multiple=4 if blended else 16,
        blend="hann" if blended else "crop", architecture=name, license="CC-BY-NC-SA-4.0",
        training_data="OSCD labels: evaluation only", tta=["d4"],
        outputs=[contract.output("change", "change_logits", channels=2)],
    )  # fmt: skip
    export.export(network, made, path)


def main():
    options = arguments()
    torch.set_num_threads(options.threads)
    names = common.cities(options.data)
    folds = [names[0::2], names[1::2]]
    pairs = {city: stack(options.data, city) for city in names}
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.networks:
            matrix, each = np.zeros(4), []  # TP, FP, FN, TN
            for k, left_out in enumerate(folds):
                print(f"{name}: without {' '.join(left_out)}", flush=True)
                seen = [pairs[city] for city in names if city not in left_out]
                mean, deviation = scaling_of(seen)
                network = train(name, seen, mean, deviation, options)
                model = os.path.join(folder, f"{name}-{k}.pt")
                save(name, network, mean, deviation, model)
                for city in left_out:
                    out, proba = (os.path.join(folder, f"{city}-{o}.tif") for o in ("map", "proba"))
                    common.run(
                        "SiameseCD",
                        "-in1", *common.bands(options.data, city, 1, BANDS),
                        "-in2", *common.bands(options.data, city, 2, BANDS),
                        "-align", "resample", "-model", model, "-out", out, "-proba", proba,
                    )  # fmt: skip
                    truth, found = pairs[city][1], common.read(out)
                    valid = found != 255
                    p, t = found[valid] == 1, truth[valid]
                    counts = np.array([(p & t).sum(), (p & ~t).sum(), (~p & t).sum(), (~p & ~t).sum()])
                    matrix += counts
                    auroc, ap, best = common.figures(common.read(proba)[valid], t)
                    each.append((auroc, ap, best))
                    print(f"  {city:<12} AUROC {auroc:.3f} AP {ap:.3f} best F1 {best:.3f}", flush=True)
            tp, fp, fn, _ = matrix
            precision, recall = tp / max(tp + fp, 1), tp / max(tp + fn, 1)
            f1 = 2 * tp / max(2 * tp + fp + fn, 1)
            a = np.mean(each, axis=0)
            published = " ".join(f"{v:.2f}" for v in PUBLISHED.get(name, ())) or "-"
            lines.append(
                f"| {name} | {100 * precision:.2f} {100 * recall:.2f} {100 * f1:.2f} | {published} "
                f"| {a[0]:.3f} {a[1]:.3f} {a[2]:.3f} |"
            )
    print("\n| network | precision recall F1 | published | mean AUROC, AP, best F1 |\n|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
