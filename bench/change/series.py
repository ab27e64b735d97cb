"""Ruptures of series: a simulated one with a known rupture and clouds, and 146 dates of a real patch.

``python3 bench/change/series.py [--data <worldcereal_patch_2018>] [--out build/bench/series]``

Prints, of the simulated series: share of the changed pixels that alarm, dates from the rupture to the
alarm, how far the date of the split is off, false alarms a pixel and year elsewhere. Of the real patch
(nothing is known to have changed, fields come and go): alarms a pixel and year. Draws the maps of dates.
"""

import argparse
import datetime
import os
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(__file__))
import common  # noqa: E402

sys.path.insert(0, os.path.join(common.ROOT, "python"))

CHANGED = (slice(30, 60), slice(40, 90))
RUPTURE, STEP = 34, 8  # index of the first date after, days between dates


def blur(image, sigma):
    """Gaussian of the last two axes by Fourier transform: periodic."""
    height, width = image.shape[-2:]
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    kernel = np.exp(-2 * (np.pi * sigma) ** 2 * (fy**2 + fx**2))
    return np.fft.irfft2(np.fft.rfft2(image) * kernel, s=(height, width))


def simulate(folder, dates=60, seed=0):
    """Writes a series of 4 bands with a season, noise, haze, clouds and one rupture; returns files and dates."""
    from osgeo import gdal

    rng = np.random.default_rng(seed)
    height, width, bands = 96, 128, 4
    fields = blur(rng.normal(size=(bands, height, width)), 3)
    fields = 2000 + 600 * fields / fields.std()
    phase = blur(rng.normal(size=(height, width)), 6)
    phase = 0.3 * phase / phase.std()  # fields are not all green at the same time
    built = 3000 + 900 * blur(rng.normal(size=(bands, height, width)), 1.5)
    out = {"image": [], "mask": [], "date": []}
    for t in range(dates):
        day = datetime.date(2017, 4, 1) + datetime.timedelta(days=STEP * t)
        season = np.sin(2 * np.pi * (STEP * t / 365.25) + phase)
        x = fields * (1 + 0.15 * season) + 60 * rng.normal(size=fields.shape) + rng.normal(0, 150)
        if t >= RUPTURE:
            x[(slice(None),) + CHANGED] = built[(slice(None),) + CHANGED] + 60 * rng.normal(size=built.shape)[(slice(None),) + CHANGED]
        cloud = blur(rng.normal(size=(height, width)), 8)
        cloud = cloud > np.quantile(cloud, 1 - rng.uniform(0, 0.6))
        x[:, cloud] = 9000
        for kind, cube in (("image", np.clip(x, 0, 10000)), ("mask", cloud[None])):
            path = os.path.join(folder, "%s_%s.tif" % (kind, day.strftime("%Y%m%d")))
            raster = gdal.GetDriverByName("GTiff").Create(path, width, height, len(cube), gdal.GDT_UInt16)
            for b, band in enumerate(cube, 1):
                raster.GetRasterBand(b).WriteArray(band.astype(np.uint16))
            out[kind].append(path)
        out["date"].append(day)
    return out


def run(folder, series, *words):
    """Runs the application; returns its maps."""
    from osgeo import gdal

    maps = {k: os.path.join(folder, "%s.tif" % k) for k in ("out", "change", "pvalue", "rupture", "alarm")}
    common.run("ChangeLikelihood", *series, *words, *[w for k, v in maps.items() for w in ("-" + k, v)])
    return {k: gdal.Open(v).ReadAsArray() for k, v in maps.items()}


def draw(path, panels, title):
    """Maps of decimal years side by side; grey where there is none."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 5), dpi=100, squeeze=False)
    colours = plt.get_cmap("viridis").copy()
    colours.set_bad("#D9D9D9")
    for axis, (name, image) in zip(axes[0], panels):
        shown = axis.imshow(image, cmap=colours, interpolation="nearest")
        axis.set_title(name)
        axis.set_xticks([])
        axis.set_yticks([])
        figure.colorbar(shown, ax=axis, shrink=0.7, format="%.2f")
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def years(band, where):
    return np.ma.masked_array(band, ~where)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.path.join(common.ROOT, "..", "shared", "data", "worldcereal_patch_2018"))
    parser.add_argument("--out", default=os.path.join(common.ROOT, "build", "bench", "series"))
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)

    series = simulate(options.out)
    words = ("-il", *series["image"], "-maskl", *series["mask"], "-reference", "20")
    maps = run(options.out, words)
    change, rupture, alarm = maps["change"] == 1, maps["rupture"], maps["alarm"]
    inside = np.zeros(change.shape, bool)
    inside[CHANGED] = True
    edge = np.zeros(change.shape, bool)  # within the smoothing of the score
    edge[tuple(slice(s.start - 5, s.stop + 5) for s in CHANGED)] = True
    outside = ~edge
    watched = (len(series["date"]) - 20) * STEP / 365.25
    print("simulated: %d dates, %d x %d pixels, rupture at date %d" % (len(series["date"]), *change.shape[::-1], RUPTURE + 1))
    for name, first in (("martingale (alpha 0.01)", alarm[4]), ("CUSUM (k .5, h 5)", alarm[0])):
        hit = inside & (first > RUPTURE)
        print(
            "  %-24s detected %.3f, delay %4.1f dates (median), false alarms %.4f a pixel and year"
            % (name, hit.sum() / inside.sum(), np.median(first[hit] - RUPTURE - 1), (first[outside] > 0).mean() / watched)
        )
    off = rupture[0][inside] - (RUPTURE + 1)
    print("  split: date exact %.3f, within 2 dates %.3f" % ((off == 0).mean(), (np.abs(off) <= 2).mean()))
    significant = maps["pvalue"] >= 2
    draw(
        os.path.join(options.out, "simulated.png"),
        [
            ("first date after the split, p < .01", years(rupture[1], significant)),
            ("onset before the CUSUM's alarm", years(alarm[2], alarm[0] > 0)),
            ("martingale's alarm, date index", years(alarm[4], change)),
        ],
        "Simulated series, rupture in %.2f" % (2017 + (90 + RUPTURE * STEP) / 365.25),
    )

    if os.path.isdir(options.data):
        from otbtorch.recipes import worldcereal

        made = worldcereal.convert(options.data, options.out)
        print("real patch:", made if isinstance(made, (list, tuple, dict)) else "")
        stack = os.path.join(options.out, "s2_10m.tif")
        words = ("-il", stack, "-dates", os.path.join(options.out, "s2_dates.txt"))
        mask = os.path.join(options.out, "s2_scl.tif")
        maps = run(options.out, words, *(("-maskl", mask, "-masktype", "scl", "-align", "resample") if os.path.exists(mask) else ()))
        valid = maps["rupture"][3]
        print("  valid dates a pixel %.0f; martingale alarms %.3f of the pixels, CUSUM %.3f, split p < .01 %.3f" % (
            valid.mean(), (maps["change"] == 1).mean(), (maps["alarm"][0] > 0).mean(), (maps["pvalue"] >= 2).mean()))  # fmt: skip
        draw(
            os.path.join(options.out, "patch.png"),
            [
                ("first date after the split, p < .01", years(maps["rupture"][1], maps["pvalue"] >= 2)),
                ("onset before the CUSUM's alarm", years(maps["alarm"][2], maps["alarm"][0] > 0)),
                ("martingale's alarm, date index", years(maps["alarm"][4], maps["change"] == 1)),
            ],
            "Sentinel-2 patch in Flanders, 2017-08 to 2018-11",
        )
    print("pictures in", options.out)


if __name__ == "__main__":
    main()
