"""Draw the likelihood map of the demonstration beside the network's: ``/usr/bin/python3 -m otbtorch.demo_likelihood``.

Four panels: the probability that otbcli_SiameseCD gives and the score of otbcli_ChangeLikelihood,
which saw no label; below them, both decisions against the known changes. Prints F1 and the area under
the ROC curve of both.
"""

import argparse
import sys

import numpy as np

from .demo import FALSE_ALARM, HIT, MISSED, NO_DATA, Raster, _rgb, scale_bar, scores


def auroc(score, truth):
    """Area under the ROC curve: the chance that a changed pixel scores above another one (ties count half)."""
    values, first = np.unique(score, return_inverse=True)
    hits = np.bincount(first, weights=truth, minlength=len(values))
    misses = np.bincount(first, weights=~truth, minlength=len(values))
    below = np.cumsum(misses) - misses
    return float(np.sum(hits * (below + 0.5 * misses)) / (hits.sum() * misses.sum()))


def draw(path, date1, truth, rows, valid):
    """The PNG. `rows`: (name, title of the upper panel, score, decision, F1) of each method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    height, width = valid.shape
    plt.rcParams.update({"font.size": 13, "axes.titlesize": 15, "font.family": "DejaVu Sans"})
    figure, axes = plt.subplots(2, 2, figsize=(16, 17.3 * height / width), dpi=100)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.972, bottom=0.05, wspace=0.03, hspace=0.1)
    grey = date1.array.astype(np.float32).mean(axis=0)
    low, high = np.percentile(grey[valid], [2, 98])
    grey = np.clip((grey - low) / (high - low), 0, 1)
    colours = plt.get_cmap("cividis").copy()
    colours.set_bad(NO_DATA)
    for column, (name, title, score, decision, f1) in enumerate(rows):
        low, high = np.percentile(score[valid], [1, 99.5])
        axes[0, column].imshow(np.ma.masked_array(score, ~valid), cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        axes[0, column].set_title(title)
        shown = np.repeat((0.72 + 0.28 * grey)[..., None], 3, axis=2)
        for pixels, colour in ((decision & truth, HIT), (decision & ~truth, FALSE_ALARM), (~decision & truth, MISSED)):
            shown[pixels & valid] = _rgb(colour)
        shown[~valid] = _rgb(NO_DATA)
        axes[1, column].imshow(shown, interpolation="nearest")
        axes[1, column].set_title("%s against the known changes: F1 %.2f" % (name, f1))
    scale_bar(axes[0, 0], valid.shape, date1.pixel_m)
    for axis in axes.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
    handles = [
        Patch(facecolor=c, edgecolor="#555555", label=t)
        for c, t in ((HIT, "found"), (FALSE_ALARM, "false alarm"), (MISSED, "missed"), (NO_DATA, "no-data"))
    ]
    figure.legend(handles=handles, loc="lower center", ncol=4, frameon=False, fontsize=13, bbox_to_anchor=(0.5, 0.005))
    figure.savefig(path)
    plt.close(figure)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="otbtorch.demo_likelihood", description=__doc__.splitlines()[0])
    parser.add_argument("--date1", required=True)
    parser.add_argument("--truth", required=True, help="raster of known changes: 1 where changed")
    parser.add_argument("--proba", required=True, help="probability of otbcli_SiameseCD")
    parser.add_argument("--mask", required=True, help="its change mask")
    parser.add_argument("--score", required=True, help="score of otbcli_ChangeLikelihood")
    parser.add_argument("--change", required=True, help="its change mask")
    parser.add_argument("--out", required=True, help="PNG to write")
    args = parser.parse_args(argv)
    date1, truth, proba, mask, score, change = (
        Raster(p) for p in (args.date1, args.truth, args.proba, args.mask, args.score, args.change)
    )
    valid = mask.valid(nodata=255) & change.valid(nodata=255)
    known = truth.array[0] != 0
    rows = []
    print("%-32s %9s %9s %9s %9s" % ("", "precision", "recall", "F1", "AUROC"))
    for name, title, value, decision in (
        ("SiameseCD", "Probability of a network trained on such changes (SiameseCD)", proba, mask),
        ("ChangeLikelihood", "Score without network or labels (ChangeLikelihood)", score, change),
    ):
        found = scores(decision.array[0] == 1, known, valid)
        area = auroc(value.array[0][valid], known[valid])
        print("%-32s %9.3f %9.3f %9.3f %9.3f" % (name, found["precision"], found["recall"], found["f1"], area))
        rows.append((name, title, value.array[0].astype(np.float32), decision.array[0] == 1, found["f1"]))
    draw(args.out, date1, known, rows, valid)
    print("wrote " + args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
