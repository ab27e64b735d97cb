"""Phenology samples: how an index goes through the dates, by class of the label map."""

import numpy as np

from .. import series as dates_of
from . import complaint
from .rasters import Raster, Window

#: Pixels of a class that are looked at.
EACH = 400
WINDOWS, SIDE = 64, 64


class Series:
    """A stack (date after date), or an image per date, with bands in one order at each."""

    def __init__(self, names, dates, bands, option="series"):
        self.raster = Raster(names, option)
        self.bands = list(bands)
        try:
            self.dates = dates_of.read_dates(dates)
        except (OSError, ValueError) as error:
            raise complaint("dates", str(error), "a text file with a date a line") from error
        if len(self.dates) * len(self.bands) != self.raster.count:
            raise complaint(
                "series (%s)" % self.raster.path,
                "%d bands" % self.raster.count,
                "%d dates of %d bands (%s)" % (len(self.dates), len(self.bands), " ".join(self.bands)),
                "Name the bands with -series-bands.",
            )

    def numbers(self, name):
        """Numbers of a band's layers, by date."""
        k = [_plain(b) for b in self.bands].index(_plain(name))
        return [d * len(self.bands) + k + 1 for d in range(len(self.dates))]

    def has(self, *names):
        return {_plain(n) for n in names} <= {_plain(b) for b in self.bands}

    def rgb(self, date):
        """Numbers of the layers that are drawn red, green, blue at a date."""
        wanted = (
            ("B04", "B03", "B02")
            if self.has("B04", "B03", "B02")
            else [self.bands[k] for k in ((2, 1, 0) if len(self.bands) > 2 else (0, 0, 0))]
        )
        return [self.numbers(n)[date] for n in wanted]


def _plain(name):
    """B2 is B02."""
    name = name.upper()
    return "B0" + name[1] if len(name) == 2 and name[0] == "B" and name[1].isdigit() else name


def _windows(raster):
    """Small windows spread evenly."""
    across, down = -(-raster.width // SIDE), -(-raster.height // SIDE)
    n = max(1, min(int(np.sqrt(WINDOWS)), across)), max(1, min(int(np.sqrt(WINDOWS)), down))
    return [
        Window(i * SIDE, j * SIDE, min(SIDE, raster.width - i * SIDE), min(SIDE, raster.height - j * SIDE))
        for j in sorted({int((m + 0.5) * down / n[1]) for m in range(n[1])})
        for i in sorted({int((m + 0.5) * across / n[0]) for m in range(n[0])})
    ]


def profiles(series, labels, validity=None, kind="invalid", each=EACH):
    """{"name", "dates", "classes": {label: {"pixels", "median", "low", "high"}}}: quartiles by date of NDVI (or of the first band).

    `validity` has a band a date, read as `kind` says; a date of a pixel counts where it is valid, a quartile where four pixels are.
    """
    index = series.has("B08", "B04")
    wanted = [series.numbers("B08"), series.numbers("B04")] if index else [series.numbers(series.bands[0])]
    if validity is not None and validity.count != len(series.dates):
        raise complaint("series-mask (%s)" % validity.path, "%d bands" % validity.count, "%d, one a date" % len(series.dates))
    found, random = {}, np.random.default_rng(0)
    for window in _windows(labels):
        values, valid = labels.read_integers(1, window)
        chosen = {}
        for label in np.unique(values[valid]):
            have = sum(len(part) for part in found.get(int(label), []))
            places = np.flatnonzero((values == label) & valid)
            places = random.permutation(places)[: min(each - have, max(8, each // 8))]
            if len(places):
                chosen[int(label)] = places
        if not chosen:
            continue
        layers = [series.raster.read(n, window).reshape(len(n), -1) for n in wanted]
        line = (layers[0] - layers[1]) / np.ma.masked_equal(layers[0] + layers[1], 0) if index else layers[0]
        if validity is not None:
            cube = validity.read(list(range(1, validity.count + 1)), window).filled(0 if kind == "valid" else 1)
            line = np.ma.masked_where(~dates_of.mask_valid(cube, kind).reshape(line.shape), line)
        for label, places in chosen.items():
            found.setdefault(label, []).append(line[:, places].T)
    classes = {}
    for label, parts in sorted(found.items()):
        values = np.ma.concatenate(parts).filled(np.nan)
        enough = np.isfinite(values).sum(axis=0) >= min(4, len(values))
        quartiles = np.full((3, len(series.dates)), np.nan)
        if enough.any():
            quartiles[:, enough] = np.nanpercentile(values[:, enough], [25, 50, 75], axis=0)
        classes[label] = {"pixels": len(values), "low": quartiles[0], "median": quartiles[1], "high": quartiles[2]}
    return {"name": "NDVI" if index else series.bands[0], "dates": series.dates, "classes": classes}
