"""Train the default model of SiameseCD: built-up change in Sentinel-2 pairs, without any label.

    python3 -m otbtorch.recipes.train_siamese --data FOLDER [--out FOLDER] [--folds] [--seeds 2]

FOLDER is the Onera Satellite Change Detection dataset (``images/CITY/imgs_1``, ``imgs_2``: bands
B02 B03 B04 B08). Its labels are read by ``--folds`` alone, which scores each city with a network
that has not seen it: neither its images nor a paste from them.

The network (``otbtorch.models.siamese_change``) adds to the regression score of the pair

* the logit of the density ratio that ``otbtorch.recipes.train_change`` trains: the same network,
  the same pastes, the same seed. ``--ratio`` takes one that is trained already (with ``--folds``,
  the folder of its folds);
* land cover in fixed units, with fixed weights.

What sets scale and threshold are means and deviations over the training images, without labels:
probability 0.5 is ``DEVIATIONS`` deviations of the score above its mean.
"""

import argparse
import json
import os
import sys

import numpy as np
import torch

from ..contract import change_detection, min_max
from ..export import export
from ..models.siamese_change import SiameseChange
from . import train_change as ratio
from .train_change import BANDS, SIGMA, figures, folds, read_label, smooth, zscore
from .train_demo import drop_source_paths

#: Digital numbers of reflectance 1 (Level-1C and Level-2A).
REFLECTANCE = 10000.0
#: Weights beside the regression score: of the ratio (a deviation of its logit), of green, of blue
#: (of the lower index of the two dates).
WEIGHTS = (1.5, 3.0, 6.0)
#: A pixel is changed where its score is this many deviations above the mean of the scene.
DEVIATIONS = 2.5
PATCH, HALO = 384, 56


class Pair(ratio.Pair):
    """A pair with its dates in reflectance as well."""

    def __init__(self, name, first, second):
        super().__init__(name, first, second)
        self.reflectance = [(v / REFLECTANCE).astype(np.float32) for v in (first, second)]

    def inputs(self, multiple=16):
        """The five inputs of the network, padded to multiples."""
        height, width = self.shape
        arrays = (*self.reflectance, self.channels(1), self.channels(0), zscore(self.score)[None])
        pad = ((0, 0), (0, -height % multiple), (0, -width % multiple))
        return [torch.from_numpy(np.pad(a, pad, "reflect").astype(np.float32))[None]
                for a in arrays]


def read_pair(data, city):
    return Pair(city, *ratio.read_dates(os.path.join(data, "images", city)))


def assemble(network, pairs):
    """The whole network: its scale and its threshold are those of the pairs' scores."""
    logits = [smooth(ratio.logit(network, pair), SIGMA) for pair in pairs]
    moments = [float(np.mean([f(v) for v in logits])) for f in (np.mean, np.std)]
    whole = SiameseChange(network, WEIGHTS, moments, 0.0, 1.0, SIGMA).eval()
    scores = [score(whole, pair) for pair in pairs]
    mean, deviation = (float(np.mean([f(v) for v in scores])) for f in (np.mean, np.std))
    return SiameseChange(network, WEIGHTS, moments, mean + DEVIATIONS * deviation, deviation,
                         SIGMA).eval()


def score(network, pair):
    """The logits of a pair, ``[row, column]``."""
    height, width = pair.shape
    with torch.no_grad():
        return network(*pair.inputs())[0, 0].numpy()[:height, :width]


def train(pairs, options, seed, trained=None):
    """The whole network, in eval mode, of pairs; ``trained``: a file with its density ratio."""
    if trained:
        network = ratio.build_network()
        network.load_state_dict(torch.jit.load(trained).state_dict())
        return assemble(network.eval(), pairs)
    return assemble(ratio.train(pairs, options, seed), pairs)


def contract(name):
    """The contract of a network of this recipe."""
    return change_detection(
        name, list(BANDS), [min_max(0.0, REFLECTANCE)[0]] * len(BANDS), patch=PATCH, halo=HALO,
        multiple=2 ** (ratio.DEPTH + 1), regression=True, tta=["d4"], gsd_m=10.0,
        architecture="Regression of the pair, U-Net density ratio, land cover",
        license="Apache-2.0", training_data="Sentinel-2 images of 14 pairs (Onera Satellite Change "
        "Detection), without its labels; contains modified Copernicus Sentinel data 2015-2018",
        recipe="otbtorch.recipes.train_siamese")


def save(network, path):
    """Write ``path``: TorchScript with its contract, and no paths of this machine."""
    name = os.path.splitext(os.path.basename(path))[0]
    export(network, contract(name), path)
    drop_source_paths(path)


def label_of(data, city):
    """The reference of a city, for evaluation alone: True where something changed."""
    folder = os.path.join(data, "labels", city, "cm")
    if not os.path.isdir(folder):
        raise FileNotFoundError("%s: the labels of %s are needed to evaluate" % (folder, city))
    return read_label(data, city)


def f1(found, changed):
    return 2 * (found & changed).sum() / max(found.sum() + changed.sum(), 1)


def evaluate(data, pairs, options, seeds, out=None, trained=None, say=print):
    """Score each city with a network that has not seen it.

    ``trained``: a folder with the density ratios of the folds, fold0.pt and fold1.pt. Returns, a
    seed and a city: area under the ROC curve, average precision, best F1 and F1 at the
    threshold of the network. The same of the regression score alone, at its mean and
    ``DEVIATIONS`` deviations, is said beside it.
    """
    parts, table = folds(pairs), {}
    for seed in seeds:
        for number, left_out in enumerate(parts):
            network = train([pairs[c] for c in pairs if c not in left_out], options, seed,
                            trained and os.path.join(trained, "fold%d.pt" % number))
            if out and seed == seeds[0]:
                save(network, os.path.join(out, "siamese-fold%d.pt" % number))
            for city in left_out:
                changed, alone = label_of(data, city), zscore(pairs[city].score)
                logits = score(network, pairs[city])
                row = [[*figures(alone, changed), f1(alone >= DEVIATIONS, changed)],
                       [*figures(logits, changed), f1(logits >= 0, changed)]]
                table.setdefault(seed, {})[city] = row
                say("seed %d, fold %d, %-12s regression %.3f %.3f %.3f %.3f; network %.3f %.3f "
                    "%.3f %.3f" % ((seed, number, city) + tuple(np.ravel(row))))
        mean = np.mean(list(table[seed].values()), 0)
        say("seed %d, mean of %d cities: regression %.3f %.3f %.3f %.3f; network %.3f %.3f %.3f "
            "%.3f" % ((seed, len(table[seed])) + tuple(mean.ravel())))
    if out:
        with open(os.path.join(out, "siamese-folds.json"), "w", encoding="utf-8") as file:
            json.dump({"siamese-fold%d.pt" % i: {"left_out": list(p)}
                       for i, p in enumerate(parts)}, file, indent=1)
    return table


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python3 -m otbtorch.recipes.train_siamese",
        description="Train the default model of SiameseCD, without labels.")
    parser.add_argument("--data", required=True, help="the OSCD dataset: images/CITY/imgs_1 ...")
    parser.add_argument("--out", help="folder to write siamese-s2.pt to; with --folds "
                        "siamese-fold0.pt, siamese-fold1.pt and siamese-folds.json")
    parser.add_argument("--folds", action="store_true",
                        help="evaluate on cities left out, in two folds, instead of training")
    parser.add_argument("--ratio", help="a density ratio of train_change, not to train it again: "
                        "a file, with --folds the folder that its --folds wrote")
    parser.add_argument("--seeds", type=int, default=1,
                        help="with --folds: how many seeds (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0,
                        help="of the network, with --folds the first one (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=ratio.Options.steps,
                        help="default: %(default)s")
    args = parser.parse_args(argv)

    # One core: sums in another order would give other weights.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if args.out:
        os.makedirs(args.out, exist_ok=True)
    cities = sorted(os.listdir(os.path.join(args.data, "images")))
    pairs = {city: read_pair(args.data, city) for city in cities}
    options = ratio.Options(steps=args.steps, log=lambda line: print(line, flush=True))
    if args.folds:
        evaluate(args.data, pairs, options, range(args.seed, args.seed + args.seeds), args.out,
                 args.ratio, say=lambda line: print(line, flush=True))
        return 0
    if not args.out:
        parser.error("--out is needed to train")
    save(train(list(pairs.values()), options, args.seed, args.ratio),
         os.path.join(args.out, "siamese-s2.pt"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
