# Copyright (C) 2026 the OTBTorch authors
#
# Licensed under the Apache License, Version 2.0: see LICENSE.
"""What a network of time series must be fed, worked out slowly and plainly with NumPy.

Written from ``doc/model-contract.md`` ("Time series") alone, to check the application against.
Loops over pixels, float64 inside, float32 at the end. Steps, in order: sort the dates; find the
invalid ones (mask, NaN or infinity, no-data rule); fill gaps, on raw values; derived bands;
scaling; ``otb:nodata_fill`` where nothing is known; padding; axes and encodings.

    fed = prepare(contract, [Sensor(values, dates)], static=Static(dem), latlon=(lat, lon))
    logits = model(*map(torch.from_numpy, fed.arguments))

What the page leaves open is decided here, and marked with "Decided:".
"""

import datetime
from collections import namedtuple

import numpy as np

DATA_TYPES = {
    "float32": np.float32,
    "int64": np.int64,
    "uint8": np.uint8,
    "bool": np.bool_,
}


class Sensor:
    """One sensor as read: nothing sorted, scaled or filled.

    ``values`` (T, C, H, W), ``dates`` a list of T ``datetime.date``, ``valid`` (T, H, W) bool or
    None (no mask), ``bands`` names of the C bands or None (then they are, in order, the bands that
    the contract takes from this sensor), ``nodata`` the value that the file declares, or None.
    """

    def __init__(self, values, dates, valid=None, bands=None, nodata=None):
        self.values = np.asarray(values, np.float64)
        self.dates = list(dates)
        self.valid = None if valid is None else np.asarray(valid, bool)
        self.bands = None if bands is None else list(bands)
        self.nodata = nodata
        if self.values.ndim != 4 or len(self.dates) != len(self.values):
            raise ValueError("values (T, C, H, W) and T dates are needed")
        if self.valid is not None:
            expected = self.values.shape[:1] + self.values.shape[2:]
            if self.valid.shape != expected:
                raise ValueError(f"valid is {self.valid.shape}, not {expected}")


class Static:
    """The image ``static``: ``values`` (C, H, W), the rest as in :class:`Sensor`."""

    def __init__(self, values, bands=None, nodata=None):
        self.values = np.asarray(values, np.float64)
        self.bands = None if bands is None else list(bands)
        self.nodata = nodata


Prepared = namedtuple("Prepared", "arguments valid_dates map_valid")
Prepared.__doc__ = """What :func:`prepare` returns.

``arguments``: arrays in the order of ``forward``, one row a pixel (in row order) or a patch;
``valid_dates``: for each sensor, (H, W), the number of its valid dates; ``map_valid``: (H, W) bool.
"""

Series = namedtuple("Series", "steps values band_valid step_valid")
Series.__doc__ = """A ``sits`` input over the whole image, before padding.

``steps``: list of dates; ``values`` (S, C, H, W), scaled and filled; ``band_valid`` the same shape;
``step_valid`` (S, H, W).
"""


# ---------------------------------------------------------------------------------------------
# Small rules, one function each


def mirror(index, size):
    """Where an index outside 0 .. size - 1 is read: -1 -> 1, size -> size - 2, and so on."""
    if size == 1:
        return 0
    while not 0 <= index < size:
        index = -index if index < 0 else 2 * (size - 1) - index
    return index


def cut(array, row, column, height, width):
    """The window at (row, column) of an array (..., H, W), mirrored where it leaves the image."""
    rows = [mirror(row + i, array.shape[-2]) for i in range(height)]
    columns = [mirror(column + j, array.shape[-1]) for j in range(width)]
    return array[..., rows, :][..., columns]


def scaled(values, scaling, channels):
    """``value_scaling`` of a band-first axis: ``values`` (..., C, H, W)."""
    if not scaling:
        return values
    if len(scaling) not in (1, channels):
        raise ValueError(f"{len(scaling)} entries of value_scaling for {channels} bands")
    out = np.empty_like(values)
    for channel in range(channels):
        entry = scaling[channel if len(scaling) > 1 else 0]
        x, kind = values[..., channel, :, :], entry["type"]
        if kind == "min-max":
            x = (x - entry["minimum"]) / (entry["maximum"] - entry["minimum"])
        elif kind == "z-score":
            x = (x - entry["mean"]) / entry["stddev"]
        elif kind == "clip":
            x = np.clip(x, entry["minimum"], entry["maximum"])
        elif kind == "clip-min":
            x = np.maximum(x, entry["minimum"])
        elif kind == "clip-max":
            x = np.minimum(x, entry["maximum"])
        elif kind == "offset":
            x = x - entry["value"]
        elif kind == "scale":
            x = x / entry["value"]
        else:
            raise ValueError(f"value_scaling {kind}")
        out[..., channel, :, :] = x
    return out


def is_nodata(bands, nodata, rule):
    """One pixel at one date, its bands of one sensor: no-data?"""
    if not all(np.isfinite(value) for value in bands):
        return True
    if nodata is None:
        return False
    if np.isnan(nodata):  # already seen to
        return False
    hits = [value == nodata for value in bands]
    return any(hits) if rule == "any" else all(hits)


def interpolate(when, dates, values):
    """Linear between the valid ``dates`` (sorted, days) around ``when``, beyond them the nearest.

    Decided: of two images of one day, the later in order is what stands on its left.
    """
    before = [i for i, date in enumerate(dates) if date <= when]
    after = [i for i, date in enumerate(dates) if date >= when]
    if not before:
        return values[after[0]]
    left = before[-1]
    if dates[left] == when or not after:
        return values[left]
    right = after[0]
    weight = (when - dates[left]) / (dates[right] - dates[left])
    return values[left] + weight * (values[right] - values[left])


def grid_dates(grid, dates):
    """The regular dates of ``grid`` for a series that holds ``dates``.

    ``MM-DD``: the year whose period shares the largest number of days with the span from the first
    to the last date; the earliest of those. The span of the regular dates, from first to last, must
    overlap with that of the series.
    """
    if len(grid["start"]) == 10:
        start, end = (datetime.date.fromisoformat(grid[k]) for k in ("start", "end"))
    else:
        first, last = min(dates), max(dates)
        best, overlap = None, 0
        for year in range(first.year - 1, last.year + 1):
            start = datetime.date.fromisoformat(f"{year:04d}-{grid['start']}")
            wraps = grid["end"] < grid["start"]
            end = datetime.date.fromisoformat(f"{year + wraps:04d}-{grid['end']}")
            days = (min(end, last) - max(start, first)).days + 1
            if days > overlap:
                best, overlap = (start, end), days
        if best is None:
            raise ValueError("the grid does not overlap with the series")
        start, end = best
        common = [datetime.date.fromisoformat(f"{y}-{grid[k]}")
                  for y, k in ((2001, "start"), (2001 + wraps, "end"))]
        end = start + (common[1] - common[0])  # as many dates as in a common year
    steps = []
    while start <= end:
        steps.append(start)
        start += datetime.timedelta(days=int(grid["step"]))
    if not steps or steps[0] > max(dates) or steps[-1] < min(dates):
        raise ValueError("the grid does not overlap with the series")
    return steps


def encoded(steps, encoding):
    """What a ``dates`` input holds at each (unpadded) step."""
    kind = encoding["kind"]
    if kind == "doy":
        return [date.timetuple().tm_yday for date in steps]
    if kind == "days_since":
        reference = datetime.date.fromisoformat(encoding["reference"])
        return [(date - reference).days for date in steps]
    if kind == "days_since_first":
        return [(date - steps[0]).days for date in steps]
    if kind == "month_index":
        return [date.month - 1 for date in steps]
    if kind == "index":
        return list(range(len(steps)))
    raise ValueError(f"encoding {kind}")


# ---------------------------------------------------------------------------------------------
# The contract, as far as it is needed


def band_entries(entry):
    """The bands of an input, as dictionaries."""
    return [band if isinstance(band, dict) else {"name": band} for band in entry["bands"]]


def is_derived(band):
    return band.get("format") is not None or band.get("expression") is not None


def band_sensors(entry):
    """For each band of a ``sits`` input, the number of its sensor (None for derived bands)."""
    bands, numbers = band_entries(entry), entry.get("otb:sensor", 1)
    if not isinstance(numbers, list):
        numbers = [numbers] * len(bands)
    return [None if is_derived(band) else int(n) for band, n in zip(bands, numbers)]


def series_of(entry, inputs):
    """The ``sits`` input that a ``dates``, ``valid`` or ``month`` input goes with."""
    every = [other for other in inputs if other["otb:role"] == "sits"]
    if "otb:of" in entry:
        every = [other for other in every if other["name"] == entry["otb:of"]]
    if len(every) != 1:
        raise ValueError(f"{entry['name']}: of which series?")
    return every[0]


def tells_bands_apart(entry, inputs):
    """Has this ``sits`` input a ``valid`` input with one value a band?"""
    return any(
        other["otb:role"] == "valid"
        and "bands" in other["input"]["dim_order"]
        and series_of(other, inputs) is entry
        for other in inputs
    )


def default_bands(number, inputs):
    """Names of the bands of a sensor (0: the static image) that gives none: as the inputs do."""
    names = []
    for entry in inputs:
        if entry["otb:role"] == "sits":
            for band, sensor in zip(band_entries(entry), band_sensors(entry)):
                if sensor == number and band["name"] not in names:
                    names.append(band["name"])
        elif entry["otb:role"] == "static" and number == 0:
            for band in band_entries(entry):
                if band["name"] not in names:
                    names.append(band["name"])
    return names


def pick(values, bands, wanted):
    """The ``wanted`` bands of ``values`` (..., C, H, W)."""
    missing = [name for name in wanted if name not in bands]
    if missing:
        raise ValueError(f"bands {missing} are not among {bands}")
    return values[..., [bands.index(name) for name in wanted], :, :]


def sensor_bands(number, sensors, inputs):
    """Names of the bands of a sensor; [] where it is absent."""
    sensor = sensors[number - 1] if 0 < number <= len(sensors) else None
    if sensor is None or not sensor.dates:
        return []
    return sensor.bands or default_bands(number, inputs)


def where_bands_are(entry, inputs, sensors, optional):
    """For each band of a ``sits`` input the sensor that brings it: the one that ``otb:sensor``
    names, else any other that has a band of that name. None: derived, or of an absent one."""
    places = []
    for band, number in zip(band_entries(entry), band_sensors(entry)):
        if number is not None and number > 0:
            others = [n for n in range(1, len(sensors) + 1) if n != number]
            having = [
                n
                for n in [number] + others
                if band["name"] in sensor_bands(n, sensors, inputs)
            ]
            absent = not sensor_bands(number, sensors, inputs)
            if not having and absent and not is_optional(number, optional):
                raise ValueError(f"sensor {number} is missing, with the band {band['name']}")
            if not having and not absent:
                raise ValueError(f"band {band['name']} is not in sensor {number}, nor in another")
            number = having[0] if having else None
        places.append(number)
    return places


def is_optional(number, optional):
    return 0 < number <= len(optional) and optional[number - 1]


def declared_nodata(image, entry):
    return image.nodata if image.nodata is not None else entry.get("otb:nodata")


# ---------------------------------------------------------------------------------------------
# From images to what an input holds, whole image


def sensor_valid(values, mask, nodata, rule):
    """(T, C, H, W) and the mask (T, H, W) or None, to the valid dates of each pixel (T, H, W)."""
    count, _, height, width = values.shape
    valid = np.zeros((count, height, width), bool)
    for t in range(count):
        for row in range(height):
            for column in range(width):
                if mask is not None and not mask[t, row, column]:
                    continue
                valid[t, row, column] = not is_nodata(values[t, :, row, column], nodata, rule)
    return valid


def static_bands(static, entry, wanted, inputs):
    """The ``wanted`` bands of the static image, (C, H, W), NaN where they are no-data."""
    if static is None:
        raise ValueError("the static image is missing")
    values = pick(static.values, static.bands or default_bands(0, inputs), wanted).copy()
    nodata, rule = declared_nodata(static, entry), entry.get("otb:nodata_rule", "all")
    for row in range(values.shape[1]):
        for column in range(values.shape[2]):
            if is_nodata(values[:, row, column], nodata, rule):
                values[:, row, column] = np.nan
    return values


def fill_gaps(values, dates, valid, gapfill, steps):
    """One pixel: (T, C) with its valid dates (T) to (S, C); NaN where nothing is known."""
    out = np.full((len(steps), values.shape[1]), np.nan)
    good = [t for t in range(len(dates)) if valid[t]]
    if not good:
        return out
    days = [dates[t].toordinal() for t in good]
    for s, step in enumerate(steps):
        for channel in range(values.shape[1]):
            if gapfill == "grid":
                known = [values[t, channel] for t in good]
                out[s, channel] = interpolate(step.toordinal(), days, known)
            elif valid[s]:
                out[s, channel] = values[s, channel]
            elif gapfill == "linear":
                known = [values[t, channel] for t in good]
                out[s, channel] = interpolate(step.toordinal(), days, known)
    return out


def make_series(entry, inputs, sensors, optional, static, height, width):
    """A ``sits`` input over the whole image: a :class:`Series`; and {sensor: the dates that count
    (T, H, W)}."""
    bands = band_entries(entry)
    numbers = where_bands_are(entry, inputs, sensors, optional)
    gapfill = entry["otb:temporal"]["gapfill"]
    rule = entry.get("otb:nodata_rule", "all")

    used = {}  # sensor -> places of its bands in the input
    for place, number in enumerate(numbers):
        if number is not None:
            used.setdefault(number, []).append(place)
    present = {}  # sensor -> values (T, C, H, W), dates, valid (T, H, W), sorted by date
    for number, places in sorted(used.items()):
        if number == 0:
            continue
        sensor = sensors[number - 1]
        order = sorted(range(len(sensor.dates)), key=lambda t: sensor.dates[t])
        names = sensor_bands(number, sensors, inputs)
        values = pick(sensor.values, names, [bands[p]["name"] for p in places])[order]
        mask = None if sensor.valid is None else sensor.valid[order]
        valid = sensor_valid(values, mask, declared_nodata(sensor, entry), rule)
        present[number] = (values, [sensor.dates[t] for t in order], valid)
    if not present:
        raise ValueError(f"{entry['name']}: no sensor brings this series")

    # Time steps.
    every = sorted({date for _, dates, _ in present.values() for date in dates})
    lists = [dates for _, dates, _ in present.values()]
    equal = all(dates == lists[0] for dates in lists)
    if gapfill == "grid":
        steps = grid_dates(entry["otb:temporal"]["grid"], every)
    elif not equal:
        raise ValueError(f"{entry['name']}: its sensors have different dates")
    else:
        steps = lists[0]

    # Which dates count: of sensors with the same dates those that are valid in all of them, unless
    # the network is told by band; of others each one's own.
    together = equal and not tells_bands_apart(entry, inputs)
    counts = {}
    for number, (_, _, valid) in present.items():
        if together:
            valid = np.logical_and.reduce([v for _, _, v in present.values()])
        counts[number] = valid

    shape = (len(steps), len(bands), height, width)
    values = np.full(shape, np.nan)
    band_valid = np.zeros(shape, bool)
    step_valid = np.ones((len(steps), height, width), bool)
    for number, (raw, dates, _) in present.items():
        for row in range(height):
            for column in range(width):
                valid = counts[number][:, row, column]
                filled = fill_gaps(raw[:, :, row, column], dates, valid, gapfill, steps)
                flags = [valid.any()] * len(steps) if gapfill == "grid" else valid
                for s in range(len(steps)):
                    for channel, place in enumerate(used[number]):
                        values[s, place, row, column] = filled[s, channel]
                        band_valid[s, place, row, column] = flags[s]
                    step_valid[s, row, column] &= flags[s]
    if 0 in used:
        fixed = static_bands(static, entry, [bands[p]["name"] for p in used[0]], inputs)
        for channel, place in enumerate(used[0]):
            values[:, place] = fixed[channel]
            band_valid[:, place] = np.isfinite(fixed[channel])

    # Derived bands: from the bands as filled; known, and valid, where both bands are.
    names = [band["name"] for band in bands]
    for place, band in enumerate(bands):
        if is_derived(band):
            if band["format"] != "normalized-difference":
                raise ValueError(f"format {band['format']}")
            one, two = (names.index(name) for name in band["expression"])
            for index in np.ndindex(len(steps), height, width):
                s, row, column = index
                a, b = values[s, one, row, column], values[s, two, row, column]
                if np.isfinite(a) and np.isfinite(b):
                    values[s, place, row, column] = (a - b) / (a + b) if a + b != 0 else 0.0
            band_valid[:, place] = band_valid[:, one] & band_valid[:, two]

    values = scaled(values, entry.get("value_scaling"), len(bands))
    values[np.isnan(values)] = entry.get("otb:nodata_fill", 0)
    return Series(steps, values, band_valid, step_valid), counts


def places_of_steps(entry, count):
    """(total number of time steps, places of the ``count`` real ones).

    More dates than ``length`` is an error.
    """
    temporal = entry["otb:temporal"]
    policy = temporal["policy"]
    if policy == "any":
        return count, list(range(count))
    length = int(temporal["length"])
    if count > length or (policy == "fixed" and count != length):
        raise ValueError(f"{entry['name']}: {count} dates, {policy} {length}")
    first = length - count if temporal.get("pad_side", "end") == "start" else 0
    return length, list(range(first, first + count))


# ---------------------------------------------------------------------------------------------
# Arguments of forward


def arrange(array, axes, dim_order):
    """``array`` with ``axes`` (without the batch) in the order of ``dim_order``."""
    wanted = [axis for axis in dim_order if axis != "batch"]
    drop = tuple(i for i, axis in enumerate(axes) if axis not in wanted)
    array = array.squeeze(axis=drop)  # a ValueError unless they are of size 1
    axes = [axis for axis in axes if axis in wanted]
    return array.transpose([axes.index(axis) for axis in wanted])


def centre_latlon(latlon, row, column, height, width):
    """Latitude and longitude of the centre of a window, from those of the pixels' centres.

    Between pixels linear, and carried on so outside the image.
    """
    where = []
    for position, size in (
        (row + (height - 1) / 2, latlon[0].shape[0]),
        (column + (width - 1) / 2, latlon[0].shape[1]),
    ):
        low = int(np.clip(np.floor(position), 0, max(size - 2, 0)))
        where.append((low, min(low + 1, size - 1), position - low))
    (r0, r1, dr), (c0, c1, dc) = where
    out = []
    for grid in latlon:
        top = grid[r0, c0] + dc * (grid[r0, c1] - grid[r0, c0])
        bottom = grid[r1, c0] + dc * (grid[r1, c1] - grid[r1, c0])
        out.append(top + dr * (bottom - top))
    return out


def prepare(contract, sensors, static=None, latlon=None, patches=None):
    """All arguments of ``forward`` for all pixels of the image, or for ``patches``.

    ``contract``: the parsed JSON; ``sensors``: a list of :class:`Sensor` (None: absent, optional);
    ``static``: a :class:`Static`; ``latlon``: two arrays (H, W), of the pixels' centres, degrees;
    ``patches``: a list of (row, column, side), which may leave the image (unit ``patch`` only).
    """
    properties = contract["properties"]
    inputs = properties["mlm:input"]
    unit = properties["otb:tiling"].get("unit", "patch")
    window = int(properties["otb:tiling"].get("window", 1))
    latlon = None if latlon is None else [np.asarray(a, np.float64) for a in latlon]

    images = [sensor for sensor in sensors if sensor is not None]
    height, width = (images[0] if images else static).values.shape[-2:]
    declared = properties.get("otb:sensors", [])
    optional = [bool(d.get("optional", False)) for d in declared]

    # Where: (row, column, height, width) of each row of the batch.
    if unit == "pixel":
        half = window // 2
        footprints = [
            (row - half, column - half, window, window)
            for row in range(height)
            for column in range(width)
        ]
    else:
        footprints = [(row, column, side, side) for row, column, side in patches]

    # The series. A pixel is no-data where one of them has no date that counts in one of its sensors
    # that is not optional. Decided: the number of valid dates of a sensor is that in the first
    # input that takes bands from it.
    made = {}
    valid_dates = [np.zeros((height, width), int) for _ in sensors]
    counted = set()
    map_valid = np.ones((height, width), bool)
    for entry in inputs:
        if entry["otb:role"] == "sits":
            made[entry["name"]], counts = make_series(
                entry, inputs, sensors, optional, static, height, width
            )
            for number, valid in counts.items():
                if number not in counted:
                    valid_dates[number - 1] = valid.sum(axis=0)
                    counted.add(number)
                if not is_optional(number, optional):
                    map_valid &= valid.any(axis=0)

    by_name = {}
    for entry in inputs:
        rows = [one_argument(entry, inputs, made, static, latlon, unit, f) for f in footprints]
        kind = DATA_TYPES[entry["input"]["data_type"]]
        by_name[entry["name"]] = np.stack([np.asarray(row) for row in rows]).astype(kind)
    order = properties.get("otb:method", {}).get("forward") or [e["name"] for e in inputs]
    return Prepared([by_name[name] for name in order], valid_dates, map_valid)


def one_argument(entry, inputs, made, static, latlon, unit, footprint):
    """What one input holds for one pixel or patch: an array without the batch's axis."""
    role, dim_order = entry["otb:role"], entry["input"]["dim_order"]
    row, column, height, width = footprint
    if role == "latlon":
        return np.array(centre_latlon(latlon, row, column, height, width))
    if role == "static":
        bands = [band["name"] for band in band_entries(entry)]
        values = scaled(
            static_bands(static, entry, bands, inputs), entry.get("value_scaling"), len(bands)
        )
        values[np.isnan(values)] = entry.get("otb:nodata_fill", 0)
        return arrange(cut(values, *footprint), ["bands", "height", "width"], dim_order)

    of = entry if role == "sits" else series_of(entry, inputs)
    series = made[of["name"]]
    total, places = places_of_steps(of, len(series.steps))
    if role == "sits":
        part = cut(series.values, *footprint)
        out = np.full((total,) + part.shape[1:], float(of["otb:temporal"].get("pad_value", 0)))
        out[places] = part
        return arrange(out, ["time", "bands", "height", "width"], dim_order)
    if role == "dates":
        out = np.full(total, float(entry["otb:encoding"].get("pad_value", 0)))
        out[places] = encoded(series.steps, entry["otb:encoding"])
        return out
    if role == "month":
        return np.array(series.steps[0].month - 1)
    if role != "valid":
        raise ValueError(f"role {role}")

    if "bands" in dim_order:
        part, axes = cut(series.band_valid, *footprint), ["time", "bands", "height", "width"]
    elif "height" in dim_order:
        part, axes = cut(series.step_valid, *footprint), ["time", "height", "width"]
    elif unit == "pixel":  # Decided: of a window, the pixel in its middle
        part, axes = series.step_valid[:, row + height // 2, column + width // 2], ["time"]
    else:
        flags = []
        for frame in cut(series.step_valid, *footprint):
            share = frame.sum() / frame.size
            flags.append(frame.any() and share >= entry.get("otb:min_valid", 0))
        part, axes = np.array(flags, bool), ["time"]
    out = np.zeros((total,) + part.shape[1:], bool)
    out[places] = part
    out = arrange(out, axes, dim_order)
    return out if entry["otb:polarity"] == "valid" else ~out
