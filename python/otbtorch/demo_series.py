"""Score and draw the demonstration of a series: ``/usr/bin/python3 -m otbtorch.demo_series ...``.

Prints overall accuracy and macro F1 of a label map against the known classes of the simulated season
(``recipes.demo_series``), and draws a clear date, a cloudy one, the map, its errors, its confidence
and the number of valid dates in one PNG.
"""

import argparse
import os
import sys

import numpy as np

from .demo import Raster, _rgb, scale_bar

ERROR = "#000000"
BANDS = 4  # of a date: B02 B03 B04 B08


def accuracy(labels, truth):
    """(overall accuracy, macro F1, [(class, F1)]) where there is a label and a truth."""
    labels, truth = labels.ravel(), truth.ravel()
    known = (truth > 0) & (labels > 0)
    if not known.any():
        return 0.0, 0.0, []
    labels, truth = labels[known], truth[known]
    each = []
    for k in np.unique(truth):
        hit = int(((labels == k) & (truth == k)).sum())
        each.append((int(k), 2 * hit / int((labels == k).sum() + (truth == k).sum())))
    return float((labels == truth).mean()), float(np.mean([f for _, f in each])), each


def classes_of(model):
    """{label: (name, colour)} of a model's contract."""
    from . import contract

    outputs = contract.read(model).data["properties"]["mlm:output"]
    listed = next(o["classification:classes"] for o in outputs if "classification:classes" in o)
    return {c["value"]: (c["name"], "#" + c.get("color_hint", "BBBBBB")) for c in listed}


def composite(stack, date, low, high):
    """B04 B03 B02 of a date of a date-major stack, stretched."""
    rgb = stack[date * BANDS:(date + 1) * BANDS][[2, 1, 0]].astype(np.float32)
    return np.clip((rgb.transpose(1, 2, 0) - low) / (high - low), 0, 1)


def draw(path, folder, labels, confidence, counts, truth, classes, scores):
    """The PNG of six panels."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    stack = Raster(os.path.join(folder, "s2.tif"))
    clouds = Raster(os.path.join(folder, "s2_mask.tif")).array.mean((1, 2))
    with open(os.path.join(folder, "s2_dates.txt"), encoding="utf-8") as f:
        dates = [line.strip() for line in f if line.strip()]
    season = [k for k, d in enumerate(dates) if "-06-" <= d[4:8] <= "-08-"]
    clear = min(season, key=lambda k: clouds[k])
    cloudy = min(season, key=lambda k: abs(clouds[k] - 0.45))
    clear_rgb = stack.array[clear * BANDS:clear * BANDS + 3]
    low, high = np.percentile(clear_rgb, [1, 99])

    rows, columns = labels.shape
    plt.rcParams.update({"font.size": 13, "axes.titlesize": 14, "font.family": "DejaVu Sans"})
    figure, axes = plt.subplots(2, 3, figsize=(16, 12.2 * rows / columns), dpi=80)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.955, bottom=0.085, wspace=0.03,
                           hspace=0.12)
    axes[0, 0].imshow(composite(stack.array, clear, low, high), interpolation="nearest")
    axes[0, 0].set_title("Sentinel-2 of %s, simulated" % dates[clear])
    scale_bar(axes[0, 0], labels.shape, stack.pixel_m)
    axes[0, 1].imshow(composite(stack.array, cloudy, low, high), interpolation="nearest")
    axes[0, 1].set_title("%s: %d %% clouds or shadow" % (dates[cloudy], round(100 * clouds[cloudy])))

    picture = np.full((rows, columns, 3), _rgb("#BDBDBD"))
    for value, (_, colour) in classes.items():
        picture[labels == value] = _rgb(colour)
    axes[0, 2].imshow(picture, interpolation="nearest")
    axes[0, 2].set_title("Label map")
    # What is right recedes: the known classes in pale colours under the errors.
    known = np.full((rows, columns, 3), 1.0)
    for value, (_, colour) in classes.items():
        known[truth == value] = 0.55 + 0.45 * np.array(_rgb(colour))
    known[(labels != truth) & (truth > 0)] = _rgb(ERROR)
    axes[1, 0].imshow(known, interpolation="nearest")
    axes[1, 0].set_title("Known classes, errors: OA %.2f, macro F1 %.2f" % scores[:2])
    sure = axes[1, 1].imshow(confidence, cmap="cividis", vmin=0.33, vmax=1, interpolation="nearest")
    axes[1, 1].set_title("Confidence")
    many = axes[1, 2].imshow(counts, cmap="viridis", interpolation="nearest")
    axes[1, 2].set_title("Valid dates, of %d" % len(dates))
    for axis in axes.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_xlim(-0.5, columns - 0.5)
        axis.set_ylim(rows - 0.5, -0.5)

    for drawn, axis in ((sure, axes[1, 1]), (many, axes[1, 2])):
        box = axis.get_position()
        place = figure.add_axes([box.x0, 0.045, box.width, 0.018])
        figure.colorbar(drawn, cax=place, orientation="horizontal").ax.tick_params(labelsize=12)
    handles = [Patch(facecolor=c, edgecolor="#555555", label=n) for n, c in classes.values()]
    handles.append(Patch(facecolor=ERROR, edgecolor="#555555", label="error"))
    box = axes[1, 0].get_position()
    figure.legend(handles=handles, loc="upper center", ncol=2, frameon=False, fontsize=13,
                  bbox_to_anchor=(box.x0 + box.width / 2, box.y0 - 0.005), columnspacing=1.6,
                  handletextpad=0.5, labelspacing=0.35)
    figure.savefig(path, pil_kwargs={"optimize": True})
    plt.close(figure)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="otbtorch.demo_series", description=__doc__.split("\n")[0])
    parser.add_argument("--series", required=True, help="folder that recipes.demo_series wrote")
    parser.add_argument("--model", required=True, help="the model that made the map")
    parser.add_argument("--labels", required=True)
    parser.add_argument("--confidence", required=True)
    parser.add_argument("--valid-dates", required=True)
    parser.add_argument("--out", help="PNG to write")
    args = parser.parse_args(argv)
    labels, confidence, counts, truth = (
        Raster(p).array[0] for p in (args.labels, args.confidence, args.valid_dates,
                                     os.path.join(args.series, "truth.tif")))
    classes = classes_of(args.model)
    scores = accuracy(labels, truth)
    print("simulated season, %d x %d pixels: overall accuracy %.3f, macro F1 %.3f"
          % (truth.shape[::-1] + scores[:2]))
    print("F1: " + ", ".join("%s %.3f" % (classes[k][0], f) for k, f in scores[2]))
    if args.out:
        draw(args.out, args.series, labels, confidence, counts, truth, classes, scores)
        print("wrote " + args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
