"""Score and draw the demonstration: ``/usr/bin/python3 -m otbtorch.demo report ...``.

Prints precision, recall and F1 of a change mask against the known changes, over the whole scene and
over its eastern part (not seen in training), and draws both dates, the probability and the mask in
one PNG. No-data pixels of the mask count nowhere.
"""

import argparse
import sys

import numpy as np

#: The columns from this share on were neither trained nor calibrated on (``recipes.train_demo``).
EAST_FROM = 0.55

# Okabe and Ito's palette: told apart by colour-blind readers, and by lightness in grey print.
HIT, FALSE_ALARM, MISSED = "#0072B2", "#E69F00", "#000000"
NO_DATA = "#BDBDBD"


class Raster:
    """The pixels of a raster, its declared no-data value and its pixel size in metres, if any."""

    def __init__(self, path):
        from osgeo import gdal, osr
        gdal.UseExceptions()
        source = gdal.Open(path)
        array = source.ReadAsArray()
        self.path = path
        self.array = array[None] if array.ndim == 2 else array
        self.nodata = source.GetRasterBand(1).GetNoDataValue()
        projection = source.GetProjection()
        reference = osr.SpatialReference(wkt=projection) if projection else None
        self.pixel_m = None
        if reference is not None and reference.IsProjected():
            self.pixel_m = abs(source.GetGeoTransform()[1]) * reference.GetLinearUnits()

    @property
    def shape(self):
        return self.array.shape[1:]

    def valid(self, nodata=None):
        """Pixels that hold data: the file's own no-data value first, then `nodata`."""
        value = nodata if self.nodata is None else self.nodata
        out = np.isfinite(self.array).all(axis=0)
        if value is not None and np.isfinite(value):
            out &= ~(self.array == value).all(axis=0)
        return out


def scores(mask, truth, valid):
    """Counts, precision, recall and F1 of a boolean map over the valid pixels."""
    tp = int((mask & truth & valid).sum())
    fp = int((mask & ~truth & valid).sum())
    fn = int((~mask & truth & valid).sum())
    return {
        "precision": tp / (tp + fp) if tp + fp else 0.0,
        "recall": tp / (tp + fn) if tp + fn else 0.0,
        "f1": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0,
        "tp": tp, "fp": fp, "fn": fn, "pixels": int(valid.sum()),
    }


def east(shape, share=EAST_FROM):
    """Boolean map of the eastern columns."""
    out = np.zeros(shape, bool)
    out[:, int(share * shape[1]):] = True
    return out


def differencing(date1, date2, truth, valid):
    """The map of plain differencing, for comparison.

    Each band of date 2 is fitted on date 1 by linear regression, and the norm of the residuals is
    thresholded where F1 is best *on the known changes*: better than anybody could do in earnest.
    """
    norm = 0
    for a, b in zip(date1.array.astype(np.float64), date2.array.astype(np.float64)):
        slope, offset = np.polyfit(a[valid], b[valid], 1)
        residual = b - (slope * a + offset)
        norm = norm + (residual / residual[valid].std()) ** 2
    thresholds = np.percentile(norm[valid], np.arange(70, 99.9, 0.1))
    return norm >= max(thresholds, key=lambda t: scores(norm >= t, truth, valid)["f1"])


def composite(rasters, bands):
    """RGB composites of several images with one stretch (2 to 98 %), to be compared."""
    picked = [r.array[[b - 1 for b in bands]].astype(np.float32) for r in rasters]
    valid = [r.valid() for r in rasters]
    pooled = np.concatenate([p[:, v] for p, v in zip(picked, valid)], axis=1)
    low, high = np.percentile(pooled, [2, 98], axis=1)
    out = []
    for p, v in zip(picked, valid):
        rgb = np.clip((p.transpose(1, 2, 0) - low) / np.maximum(high - low, 1e-6), 0, 1)
        rgb[~v] = _rgb(NO_DATA)
        out.append(rgb)
    return out


def _rgb(colour):
    return [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]


def scale_bar(axis, shape, pixel_m):
    """A bar of a round length, about a quarter of the image, in the lower right corner."""
    from matplotlib import patheffects
    goal = 0.25 * shape[1] * (pixel_m or 1)
    unit = 10 ** np.floor(np.log10(goal))
    length = unit * max(k for k in (1, 2, 5) if k * unit <= goal)
    pixels = length / (pixel_m or 1)
    if pixel_m is None:
        text = "%d pixels" % length
    elif length >= 1000:
        text = "%g km" % (length / 1000)
    else:
        text = "%g m" % length
    right, bottom = shape[1] - 12, shape[0] - 14
    halo = [patheffects.withStroke(linewidth=5, foreground="black")]
    axis.plot([right - pixels, right], [bottom, bottom], color="white", linewidth=3,
              solid_capstyle="butt", path_effects=halo)
    axis.text(right - pixels / 2, bottom - 6, text, color="white", ha="center", va="bottom",
              fontsize=13, path_effects=[patheffects.withStroke(linewidth=3, foreground="black")])


def draw(path, date1, date2, truth, proba, mask, changed, valid, results, bands):
    """The PNG: two dates above, probability and compared mask below."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    rows, columns = mask.shape
    plt.rcParams.update({"font.size": 13, "axes.titlesize": 15, "font.family": "DejaVu Sans"})
    figure, axes = plt.subplots(2, 2, figsize=(16, 17.3 * rows / columns), dpi=100)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.977, bottom=0.066, wspace=0.03,
                           hspace=0.055)
    images = composite([date1, date2], bands)

    composite_name = "bands %s as red, green, blue" % ", ".join(map(str, bands))
    axes[0, 0].imshow(images[0], interpolation="nearest")
    axes[0, 0].set_title("Date 1 (%s)" % composite_name)
    scale_bar(axes[0, 0], mask.shape, date1.pixel_m)

    axes[0, 1].imshow(images[1], interpolation="nearest")
    axes[0, 1].set_title("Date 2, simulated, same stretch")

    p = np.ma.masked_array(proba.array[0].astype(np.float32), ~(valid & proba.valid()))
    colours = plt.get_cmap("cividis").copy()
    colours.set_bad(NO_DATA)
    drawn = axes[1, 0].imshow(p, cmap=colours, vmin=0, vmax=1, interpolation="nearest")
    axes[1, 0].set_title("Probability of change")

    # What is right recedes: date 2 in pale grey under the three kinds of marked pixels.
    grey = images[1].mean(axis=2)
    shown = np.repeat((0.72 + 0.28 * grey)[..., None], 3, axis=2)
    for pixels, colour in ((changed & truth, HIT), (changed & ~truth, FALSE_ALARM),
                           (~changed & truth, MISSED)):
        shown[pixels & valid] = _rgb(colour)
    shown[~valid] = _rgb(NO_DATA)
    axes[1, 1].imshow(shown, interpolation="nearest")
    whole, part = results
    axes[1, 1].set_title("Change mask against the known changes: F1 %.2f, east %.2f"
                         % (whole["f1"], part["f1"]))
    limit = int(EAST_FROM * columns) - 0.5
    axes[1, 1].axvline(limit, color="#444444", linewidth=1.5, linestyle=(0, (6, 4)))
    axes[1, 1].text(limit, rows + 2, "east: not seen in training \u2192", ha="left", va="top",
                    fontsize=12)

    for axis in axes.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_xlim(-0.5, columns - 0.5)
        axis.set_ylim(rows - 0.5, -0.5)

    left = axes[1, 0].get_position()
    bar = figure.colorbar(drawn, cax=figure.add_axes([left.x0, 0.032, left.width, 0.014]),
                          orientation="horizontal")
    bar.ax.tick_params(labelsize=12)
    right = axes[1, 1].get_position()
    handles = [Patch(facecolor=c, edgecolor="#555555", label=t)
               for c, t in ((HIT, "found"), (FALSE_ALARM, "false alarm"), (MISSED, "missed"),
                            (NO_DATA, "no-data"))]
    figure.legend(handles=handles, loc="upper center", ncol=4, frameon=False, fontsize=13,
                  bbox_to_anchor=(right.x0 + right.width / 2, 0.052))
    figure.savefig(path)
    plt.close(figure)


def report(args):
    date1, date2, truth, proba, mask = (
        Raster(p) for p in (args.date1, args.date2, args.truth, args.proba, args.mask))
    for r in (date2, truth, proba, mask):
        if r.shape != date1.shape:
            raise SystemExit("%s is %d x %d pixels, %s is %d x %d: not the same grid"
                             % ((r.path,) + r.shape[::-1] + (date1.path,) + date1.shape[::-1]))
    valid = mask.valid(nodata=255)
    known = truth.array[0] != 0
    changed = mask.array[0] == 1
    results = (scores(changed, known, valid),
               scores(changed, known, valid & east(valid.shape)))
    rows = list(zip(("whole scene", "east (not seen in training)"), results))
    if args.baseline:
        plain = differencing(date1, date2, known, valid)
        rows += [("differencing, whole scene", scores(plain, known, valid)),
                 ("differencing, east", scores(plain, known, valid & east(valid.shape)))]
    print("%-28s %9s %9s %9s %9s" % ("", "precision", "recall", "F1", "pixels"))
    for name, r in rows:
        print("%-28s %9.3f %9.3f %9.3f %9d"
              % (name, r["precision"], r["recall"], r["f1"], r["pixels"]))
    print("no-data: %.2f %% of the scene" % (100 * (1 - valid.mean())))
    if args.out:
        draw(args.out, date1, date2, known, proba, mask, changed, valid, results, args.bands)
        print("wrote " + args.out)
    return 0


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="otbtorch.demo", description="Score and draw the demonstration.")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("report", help="precision, recall, F1 and a PNG")
    one.add_argument("--date1", required=True)
    one.add_argument("--date2", required=True)
    one.add_argument("--truth", required=True, help="raster of known changes: 1 where changed")
    one.add_argument("--proba", required=True, help="probability of change")
    one.add_argument("--mask", required=True,
                     help="change mask: 1 change, 0 none, no-data as declared or 255")
    one.add_argument("--out", help="PNG to write")
    one.add_argument("--baseline", action="store_true",
                     help="score plain differencing too, with the threshold that suits it best")
    one.add_argument("--bands", type=int, nargs=3, default=[4, 3, 2], metavar="N",
                     help="bands shown as red, green and blue (default: 4 3 2)")
    return report(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
