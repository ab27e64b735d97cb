"""Time series of images as the model contract means them: dates, gap filling, no-data (NumPy).

What ``otbcli_TimeSeriesClassify`` does before it calls a network, for training and evaluation in
Python (see ``doc/model-contract.md``, "Time series"). Arrays of values are ``[P, T, C]``: pixels,
dates, bands; validity is ``[P, T]``.
"""

import calendar
import datetime
import re

import numpy as np

# Classes of the Sentinel-2 scene classification that show the ground: dark, vegetation, bare soil,
# water, unclassified, snow.
SCL_VALID = (2, 4, 5, 6, 7, 11)


def parse_date(text):
    """A ``datetime.date`` from ``YYYY-MM-DD`` or ``YYYYMMDD``; what follows (a time) is ignored."""
    match = re.match(r"^\s*(\d{4})(-?)(\d{2})\2(\d{2})(?!\d)", str(text))
    if not match:
        raise ValueError("%r is not a date (YYYY-MM-DD or YYYYMMDD)" % (str(text),))
    return datetime.date(*(int(match.group(i)) for i in (1, 3, 4)))


def read_dates(path):
    """The dates of a text file, one a line; what follows a # is a comment. No date comes twice."""
    with open(path, encoding="utf-8-sig") as stream:
        lines = [line.split("#")[0].strip() for line in stream]
    dates = [parse_date(line) for line in lines if line]
    if len(set(dates)) < len(dates):
        raise ValueError("%s: a date comes twice" % path)
    return dates


def write_dates(path, dates):
    with open(path, "w", encoding="utf-8") as stream:
        stream.writelines("%s\n" % d.isoformat() for d in dates)


def to_days(dates):
    """Dates as days since 0001-01-01, an integer array."""
    return np.array([d.toordinal() for d in dates], np.int64)


def grid_dates(grid, dates=None):
    """The regular dates of ``{"start", "end", "step"}``, as a list of ``datetime.date``.

    Start and end are ``YYYY-MM-DD``, or both ``MM-DD``: then in the year that overlaps most with
    ``dates`` (the earliest of those); an end before the start lies in the following year.
    """
    start, end, step = str(grid["start"]), str(grid["end"]), int(grid["step"])
    if step < 1:
        raise ValueError("the step of a grid of dates is at least one day")
    if len(start) > 5:
        first, last = parse_date(start), parse_date(end)
    else:
        low, high = min(dates), max(dates)

        def at(text, year):
            month, day = map(int, text.split("-"))
            return datetime.date(year, month, min(day, calendar.monthrange(year, month)[1]))

        def span(year):
            return at(start, year), at(end, year if end >= start else year + 1)

        def overlap(year):
            a, b = span(year)
            return (min(b, high) - max(a, low)).days

        # max() keeps the first of equals, which is the earliest.
        first, last = span(max(range(low.year - 1, high.year + 1), key=overlap))
        # As many dates every year: those of a common one.
        last = first + (at(end, 2001 + (end < start)) - at(start, 2001))
    if last < first:
        raise ValueError("the grid of dates ends before it begins")
    return [first + datetime.timedelta(i) for i in range(0, (last - first).days + 1, step)]


def valid_values(values, valid=None, nodata=None, rule="all"):
    """Validity ``[P, T]`` of values ``[P, T, C]``: the mask, no-data, NaN and infinite values."""
    values = np.asarray(values)
    good = np.isfinite(values).all(-1)
    if nodata is not None:
        hit = values == nodata
        good &= ~(hit.all(-1) if rule == "all" else hit.any(-1))
    return good if valid is None else good & np.asarray(valid, bool)


def interpolate(values, valid, days, targets):
    """Linear interpolation between the valid dates of each pixel.

    Args:
        values: ``[P, T, C]``; what invalid dates hold does not matter.
        valid: ``[P, T]``.
        days: ``[T]``, in increasing order.
        targets: ``[G]`` days to interpolate at. Beyond the first and last valid date of a pixel
            the nearest one holds.

    Returns:
        ``(filled [P, G, C] float32, any_valid [P])``; zeros where a pixel has no valid date.
    """
    values, valid = np.asarray(values), np.asarray(valid, bool)
    days, targets = np.asarray(days, np.int64), np.asarray(targets, np.int64)
    if (np.diff(days) < 0).any():
        raise ValueError("dates are not in order")
    steps, rows = len(days), np.arange(len(valid))[:, None]
    index = np.arange(steps)
    before = np.maximum.accumulate(np.where(valid, index, -1), axis=1)
    after = np.minimum.accumulate(np.where(valid, index, steps)[:, ::-1], axis=1)[:, ::-1]
    # One more column on either side for targets beyond the series.
    before = np.concatenate([np.full((len(valid), 1), -1), before], 1)
    after = np.concatenate([after, np.full((len(valid), 1), steps)], 1)
    left = before[:, np.searchsorted(days, targets, "right")]
    right = after[:, np.searchsorted(days, targets, "left")]
    left, right = np.where(left < 0, right, left), np.where(right >= steps, left, right)
    some = valid.any(1)
    left, right = (np.where(some[:, None], side, 0) for side in (left, right))
    gap = days[right] - days[left]
    weight = np.where(gap > 0, (targets[None] - days[left]) / np.maximum(gap, 1), 0.0)[..., None]
    a, b = values[rows, left], values[rows, right]
    filled = np.where(weight == 0, a, a + (b.astype(np.float64) - a) * weight)
    return np.where(some[:, None, None], filled, 0).astype(np.float32), some


def fill(values, valid, dates, policy="linear", grid=None):
    """Gap filling as ``otb:temporal`` says: ``none``, ``linear`` or ``grid``.

    Returns:
        ``(values [P, G, C] float32, valid [P, G], dates of the G steps)``. With ``none`` invalid
        dates keep what they hold; otherwise a step is valid where the pixel has a valid date.
    """
    order = np.argsort(to_days(dates), kind="stable")
    dates = [dates[i] for i in order]
    if not np.array_equal(order, np.arange(len(order))):
        values, valid = np.asarray(values)[:, order], np.asarray(valid)[:, order]
    if policy == "none":
        return np.asarray(values, np.float32), np.asarray(valid, bool), dates
    if policy not in ("linear", "grid"):
        raise ValueError("gap filling is none, linear or grid, not %r" % (policy,))
    steps = grid_dates(grid, dates) if policy == "grid" else dates
    filled, some = interpolate(values, valid, to_days(dates), to_days(steps))
    return filled, np.repeat(some[:, None], len(steps), 1), steps


def fill_windows(values, valid, dates, policy="linear", grid=None):
    """``fill`` for windows: values ``[N, T, C, k, k]``, validity ``[N, T, k, k]``."""
    n, t, c, h, w = values.shape
    flat = np.moveaxis(values, (3, 4), (1, 2)).reshape(n * h * w, t, c)
    mask = np.moveaxis(np.asarray(valid, bool), 1, 3).reshape(n * h * w, t)
    filled, good, steps = fill(flat, mask, dates, policy, grid)
    g = len(steps)
    filled = np.moveaxis(filled.reshape(n, h, w, g, c), (1, 2), (3, 4))
    return filled, np.moveaxis(good.reshape(n, h, w, g), 3, 1), steps


def fill_stack(stack, valid, dates, policy="linear", grid=None):
    """``fill`` for an image: stack ``[T, C, H, W]``, validity ``[T, H, W]``.

    Returns:
        ``(stack [G, C, H, W], valid [G, H, W], dates)``.
    """
    t, c, h, w = stack.shape
    flat = np.moveaxis(stack.reshape(t, c, h * w), 2, 0)
    filled, good, steps = fill(flat, np.asarray(valid).reshape(t, h * w).T, dates, policy, grid)
    g = len(steps)
    return np.moveaxis(filled, 0, 2).reshape(g, c, h, w), good.T.reshape(g, h, w), steps


def windows(stack, rows, columns, size):
    """Windows of ``size`` (odd) around pixels; the image is mirrored beyond its border.

    Args:
        stack: ``[..., H, W]``.

    Returns:
        ``[N, ..., size, size]``; with size 1, ``[N, ...]``.
    """
    rows, columns = np.asarray(rows), np.asarray(columns)
    if size == 1:
        return np.moveaxis(stack[..., rows, columns], -1, 0)
    r = size // 2
    padded = np.pad(stack, [(0, 0)] * (stack.ndim - 2) + [(r, r), (r, r)], mode="reflect")
    views = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(-2, -1))
    return np.ascontiguousarray(np.moveaxis(views[..., rows, columns, :, :], -3, 0))


def read_stack(path, dates, reference=None, method="bilinear"):
    """A date-major stack as ``[T, C, H, W]``; the number of bands is a multiple of the dates'.

    ``reference``: an image whose grid the stack is resampled onto where its own is another one,
    with ``bilinear`` or ``near`` (masks), as the application does.
    """
    from osgeo import gdal

    gdal.UseExceptions()
    source = gdal.Open(str(path))
    if reference is not None:
        like = gdal.Open(str(reference))
        wanted = (like.RasterXSize, like.RasterYSize)
        x, dx, _, y, _, dy = like.GetGeoTransform()
        if (source.RasterXSize, source.RasterYSize) != wanted or not np.allclose(
            source.GetGeoTransform(), like.GetGeoTransform(), atol=abs(dx) * 1e-3
        ):
            source = gdal.Warp(
                "", source, format="MEM", dstSRS=like.GetProjection(), resampleAlg=method,
                outputBounds=(x, y + dy * wanted[1], x + dx * wanted[0], y), width=wanted[0],
                height=wanted[1], errorThreshold=0, warpOptions=["UNIFIED_SRC_NODATA=NO"])
    array = source.ReadAsArray()
    array = array if array.ndim == 3 else array[None]
    if len(array) % len(dates):
        raise ValueError("%s: %d bands for %d dates" % (path, len(array), len(dates)))
    return array.reshape((len(dates), -1) + array.shape[1:])


def mask_valid(array, kind="invalid"):
    """Validity from a mask: ``invalid`` (0 = valid), ``valid`` (0 = invalid) or ``scl``."""
    array = np.asarray(array)
    if kind == "scl":
        return np.isin(array, SCL_VALID)
    if kind not in ("valid", "invalid"):
        raise ValueError("a mask is valid, invalid or scl, not %r" % (kind,))
    return array != 0 if kind == "valid" else array == 0
