"""Rasters of any size, read in bounded pieces through GDAL.

Pictures come from decimated reads (pyramids are used where the file has them), histograms from
full-resolution windows spread evenly, areas from counts strip by strip. Nothing holds a whole
raster: memory follows the picture, the windows or the width.
"""

import collections
import math
import os
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
from osgeo import gdal, osr

from . import complaint

gdal.UseExceptions()

#: Pixels of a raster that are read for a histogram or a sample.
SAMPLED = 1 << 24
#: Side of the windows of such a sample.
SIDE = 256
#: Beyond so many pixels classes are counted in a sample.
COUNTED = 1 << 31
#: Beyond so many pixels a file without pyramids is worth a word.
LARGE = 1 << 27

#: Okabe and Ito, "Color Universal Design", 2008, without black.
PALETTE = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"]

Window = collections.namedtuple("Window", "x y width height")


class Entry(collections.namedtuple("Entry", "value label colour shown")):
    """A class of a map: value, name, ``#rrggbb``, and whether it is drawn."""


#: What ChangeEvaluation's map of errors holds.
ERRORS = [
    Entry(0, "no change", "#f0f0f0", False),
    Entry(1, "change found", "#009E73", True),
    Entry(2, "false alarm", "#D55E00", True),
    Entry(3, "change missed", "#0072B2", True),
]


def split_name(name):
    """(path, bands or None) of a file name as OTB takes it: ``image.tif?&bands=4,3,2``.

    Bands of ranges (``1:3``) are listed; other options say nothing about a file that is there.
    """
    path, _, options = str(name).partition("?")
    found = re.search(r"&bands=([0-9:,\-]+)", options)
    if not found:
        return path, None
    bands = []
    for part in found.group(1).split(","):
        ends = [int(v) for v in part.split(":")]
        bands += range(ends[0], ends[-1] + 1) if ends[0] > 0 else []
    return path, bands or None


class Raster:
    """Bands of one file, or of several on one grid; ``option`` names it in messages."""

    def __init__(self, names, option):
        names = [names] if isinstance(names, (str, os.PathLike)) else list(names)
        self.option = option
        self.names = [os.fspath(name) for name in names]
        self.paths = []
        self.bands = []  # (dataset, number in it)
        self._origins = []  # (name, number in it)
        self.pixels_read = 0
        for name in names:
            path, chosen = split_name(os.fspath(name))
            dataset = _open(path, option)
            for number in chosen or range(1, dataset.RasterCount + 1):
                if not 1 <= number <= dataset.RasterCount:
                    raise complaint(option, "band %d of %s" % (number, path), "bands 1 to %d" % dataset.RasterCount)
                self.bands.append((dataset, number))
                self._origins.append((path, number))
            self.paths.append(path)
        first = self.bands[0][0]
        self.width, self.height = first.RasterXSize, first.RasterYSize
        self.transform = first.GetGeoTransform(can_return_null=True)
        self.reference = first.GetSpatialRef()
        for dataset in self.datasets[1:]:
            if self.transform is None or dataset.GetGeoTransform(can_return_null=True) is None:
                if (dataset.RasterXSize, dataset.RasterYSize) != (self.width, self.height):
                    raise complaint(option, "files of different sizes without georeference", "files of one grid")
        self.onto(self)

    @property
    def path(self):
        return self.paths[0]

    @property
    def datasets(self):
        return list(dict.fromkeys(dataset for dataset, _ in self.bands))

    @property
    def count(self):
        return len(self.bands)

    @property
    def window(self):
        return Window(0, 0, self.width, self.height)

    def same_grid(self, other):
        return _same_grid(self.datasets[0], other)

    def must_match(self, other):
        """Complains unless the grid is that of another raster."""
        if not self.same_grid(other):
            raise complaint(
                "%s (%s)" % (self.option, self.path),
                _grid_text(self),
                "%s as %s (%s)" % (_grid_text(other), other.option, other.path),
                "Bring it onto that grid first (otbcli_Superimpose, gdalwarp).",
            )
        return self

    def onto(self, other):
        """The same image seen on the grid of another one, through GDAL's warper where it differs."""
        seen = {}
        for dataset in self.datasets:
            if _same_grid(dataset, other):
                seen[dataset] = dataset
                continue
            transform, reference = dataset.GetGeoTransform(can_return_null=True), dataset.GetSpatialRef()
            if transform is None or other.transform is None or bool(reference) != bool(other.reference):
                raise complaint(
                    "%s (%s)" % (self.option, self.path),
                    "%d x %d pixels" % (dataset.RasterXSize, dataset.RasterYSize),
                    _grid_text(other) + " as " + other.option,
                    "Without georeference images are not laid upon each other.",
                )
            t = other.transform
            corners = [(t[0] + x * t[1] + y * t[2], t[3] + x * t[4] + y * t[5]) for x in (0, other.width) for y in (0, other.height)]
            wkt = other.reference.ExportToWkt() if other.reference else None
            if t[2] or t[4]:
                raise complaint(self.option, "a grid that differs from a turned one", "the grid of " + other.option)
            seen[dataset] = gdal.Warp(
                "",
                dataset,
                format="VRT",
                width=other.width,
                height=other.height,
                dstSRS=wkt,
                resampleAlg="bilinear",
                outputBounds=(
                    min(c[0] for c in corners),
                    min(c[1] for c in corners),
                    max(c[0] for c in corners),
                    max(c[1] for c in corners),
                ),
            )
        self._kept = self.datasets  # a virtual file does not keep its source
        self.bands = [(seen[dataset], number) for dataset, number in self.bands]
        self.width, self.height, self.transform, self.reference = other.width, other.height, other.transform, other.reference
        return self

    def band(self, number):
        dataset, inside = self.bands[number - 1]
        return dataset.GetRasterBand(inside)

    def origin(self, number):
        """(file, number of the band in it) of a band."""
        return self._origins[number - 1]

    def metadata(self, key):
        return self.datasets[0].GetMetadataItem(key)

    def nodata(self, number=1):
        return self.band(number).GetNoDataValue()

    def lacks_pyramids(self):
        return self.width * self.height > LARGE and self.band(1).GetOverviewCount() == 0

    def read(self, numbers, window=None, shape=None):
        """Masked float32 array (bands, rows, columns) of a window; `shape` is (rows, columns) to decimate to, nearest neighbour."""
        x, y, width, height = window or self.window
        rows, columns = shape or (height, width)
        out = np.ma.empty((len(numbers), rows, columns), np.float32)
        for k, number in enumerate(numbers):
            values = self._band(number, x, y, width, height, rows, columns)
            out[k] = np.ma.masked_array(values, self._without(number, values))
        return out

    def read_integers(self, number=1, window=None, shape=None):
        """(values, valid) of a band of classes, in its own type."""
        x, y, width, height = window or self.window
        rows, columns = shape or (height, width)
        values = self._band(number, x, y, width, height, rows, columns)
        return values, ~self._without(number, values)

    def _band(self, number, x, y, width, height, rows, columns):
        self.pixels_read += rows * columns
        try:
            return self.band(number).ReadAsArray(x, y, width, height, buf_xsize=columns, buf_ysize=rows)
        except RuntimeError as error:
            raise complaint("%s (%s)" % (self.option, self.path), "that it cannot be read (%s)" % error, "a whole file") from error

    def _without(self, number, values):
        none = self.nodata(number)
        mask = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
        if none is not None and not math.isnan(none):
            mask |= values == values.dtype.type(none) if values.dtype.kind == "f" else values == none
        return mask

    def shape_within(self, longest, window=None, finer=2):
        """(rows, columns, k): the size of a picture at most `longest` wide and high; reads are k times finer."""
        window = window or self.window
        factor = max(window.width, window.height) / longest
        if factor <= 1:
            return window.height, window.width, 1
        k = max(1, min(finer, int(factor)))
        return max(1, round(window.height / factor)), max(1, round(window.width / factor)), k

    def picture(self, numbers, longest, window=None):
        """Decimated values (bands, rows, columns), masked; each the mean of up to 2 x 2 that were read."""
        rows, columns, k = self.shape_within(longest, window)
        values = self.read(numbers, window, (rows * k, columns * k))
        if k == 1:
            return values
        cells = values.reshape(len(numbers), rows, k, columns, k)
        return np.ma.masked_array(cells.mean(axis=(2, 4)))

    def strips(self, rows=None):
        """Windows that cover the raster from top to bottom, along the blocks of the file, some megabytes each."""
        block = self.band(1).GetBlockSize()[1]
        rows = rows or max(block, block * max(1, (1 << 22) // max(1, self.width * block)))
        for y in range(0, self.height, rows):
            yield Window(0, y, self.width, min(rows, self.height - y))

    def sample_windows(self, pixels=None):
        """Full-resolution windows spread evenly over the raster, or its strips where that is all of it."""
        pixels = pixels or SAMPLED
        if self.width * self.height <= pixels:
            return list(self.strips())
        across, down = -(-self.width // SIDE), -(-self.height // SIDE)
        wanted = max(1, pixels // (SIDE * SIDE))
        # Rows of windows share blocks in striped files: as many rows as columns, in proportion.
        columns = max(1, min(across, round(math.sqrt(wanted * across / down))))
        rows = max(1, min(down, wanted // columns))
        return [
            Window(i * SIDE, j * SIDE, min(SIDE, self.width - i * SIDE), min(SIDE, self.height - j * SIDE))
            for j in sorted({int((n + 0.5) * down / rows) for n in range(rows)})
            for i in sorted({int((n + 0.5) * across / columns) for n in range(columns)})
        ]

    def sample(self, number=1, pixels=None):
        """(values, complete): the valid values of a sample, and whether it is the whole raster."""
        windows = self.sample_windows(pixels)
        parts = [self.read([number], w).compressed() for w in windows]
        return np.concatenate(parts), sum(w.width * w.height for w in windows) == self.width * self.height

    def pixel_areas(self):
        """Function: the area in square metres of a pixel of row y; None where it is not known."""
        if self.reference is None or self.transform is None:
            return None
        t = self.transform
        cell = abs(t[1] * t[5] - t[2] * t[4])
        if self.reference.IsProjected():
            area = cell * self.reference.GetLinearUnits() ** 2
            return lambda y: area
        if not self.reference.IsGeographic():
            return None
        a, (unit, e2) = self.reference.GetSemiMajor(), self._ellipsoid()

        def area_of(y):
            # Radii of curvature along the meridian and across it.
            latitude = (t[3] + (self.width / 2) * t[4] + (y + 0.5) * t[5]) * unit
            w2 = 1 - e2 * math.sin(latitude) ** 2
            return cell * unit**2 * a**2 * (1 - e2) / w2**2 * math.cos(latitude)

        return area_of

    def counts(self, number=1):
        """Pixels and square metres by value: ``Counts``. All pixels, up to COUNTED; a sample beyond."""
        whole = self.width * self.height <= COUNTED
        windows = self.strips() if whole else self.sample_windows()
        pixels, metres, seen = collections.Counter(), collections.Counter(), 0
        area_of = self.pixel_areas()
        for w in windows:
            values, valid = self.read_integers(number, w)
            seen += values.size
            for part, y in _by_row(values, valid, w, area_of is not None and self.reference.IsGeographic()):
                for value, n in part:
                    pixels[value] += n
                    if area_of:
                        metres[value] += n * area_of(y)
        scale = self.width * self.height / max(1, seen)
        return Counts(
            {v: n * scale for v, n in sorted(pixels.items())}, {v: m * scale for v, m in sorted(metres.items())} if area_of else None, whole
        )

    def to_map(self, column, row):
        t = self.transform or (0, 1, 0, 0, 0, 1)
        return t[0] + column * t[1] + row * t[2], t[3] + column * t[4] + row * t[5]

    def to_pixel(self, x, y):
        inverse = gdal.InvGeoTransform(self.transform or (0, 1, 0, 0, 0, 1))
        return inverse[0] + x * inverse[1] + y * inverse[2], inverse[3] + x * inverse[4] + y * inverse[5]

    def to_degrees(self, x, y):
        """(longitude, latitude) on WGS 84, or None without a reference."""
        if self.reference is None:
            return None
        world, here = osr.SpatialReference(), self.reference.Clone()
        world.ImportFromEPSG(4326)
        for reference in (world, here):
            reference.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
        try:
            longitude, latitude, _ = osr.CoordinateTransformation(here, world).TransformPoint(x, y)
        except RuntimeError:
            return None  # a local system
        return (longitude, latitude) if math.isfinite(longitude) else None

    def from_degrees(self, longitude, latitude):
        world, here = osr.SpatialReference(), self.reference.Clone()
        world.ImportFromEPSG(4326)
        for reference in (world, here):
            reference.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
        return osr.CoordinateTransformation(world, here).TransformPoint(longitude, latitude)[:2]

    def pixel_size_m(self):
        """Width of a pixel in metres (on geographic grids in the middle), or None."""
        if self.pixel_areas() is None:
            return None
        t = self.transform
        if self.reference.IsProjected():
            return math.hypot(t[1], t[4]) * self.reference.GetLinearUnits()
        unit, e2 = self._ellipsoid()
        latitude = self.to_map(self.width / 2, self.height / 2)[1] * unit
        return abs(t[1]) * unit * self.reference.GetSemiMajor() * math.cos(latitude) / math.sqrt(1 - e2 * math.sin(latitude) ** 2)

    def _ellipsoid(self):
        """(radians of the angular unit, square of the eccentricity)."""
        f = 1 / (self.reference.GetInvFlattening() or math.inf)
        return self.reference.GetAngularUnits(), f * (2 - f)

    def around(self, column, row, side):
        """The square window of a side around a pixel, moved to lie within the raster."""
        width, height = min(side, self.width), min(side, self.height)
        x = min(max(0, int(column) - width // 2), self.width - width)
        y = min(max(0, int(row) - height // 2), self.height - height)
        return Window(x, y, width, height)

    def legend(self):
        """Classes of the map: of the QGIS style beside it, else of the file; None where neither names any."""
        return _style_legend(os.path.splitext(self.path)[0] + ".qml") or _file_legend(self.band(1))


Counts = collections.namedtuple("Counts", "pixels metres whole")


def _open(path, option):
    try:
        dataset = gdal.OpenEx(path, gdal.OF_RASTER | gdal.OF_READONLY)
    except RuntimeError as error:
        there = os.path.exists(path)
        raise complaint(
            option, '"%s", which %s' % (path, "GDAL cannot read (%s)" % error if there else "does not exist"), "an image file"
        ) from error
    if dataset.RasterCount == 0:
        raise complaint(
            option, '"%s", which holds no bands of its own' % path, "an image", "Name one of its subdatasets (gdalinfo lists them)."
        )
    return dataset


def _same_grid(dataset, other):
    if (dataset.RasterXSize, dataset.RasterYSize) != (other.width, other.height):
        return False
    transform = dataset.GetGeoTransform(can_return_null=True)
    if transform is None or other.transform is None:
        return True  # pixel upon pixel
    size = math.sqrt(abs(other.transform[1] * other.transform[5] - other.transform[2] * other.transform[4])) or 1.0
    if max(abs(a - b) for a, b in zip(transform[::3], other.transform[::3])) > 0.01 * size:
        return False
    far = max(other.width, other.height)
    if max(abs(transform[k] - other.transform[k]) * far for k in (1, 2, 4, 5)) > 0.1 * size:
        return False
    reference = dataset.GetSpatialRef()
    return reference is None or other.reference is None or bool(reference.IsSame(other.reference))


def _grid_text(raster):
    text = "%d x %d pixels" % (raster.width, raster.height)
    if raster.transform:
        text += ", origin %.10g %.10g, pixels of %.6g x %.6g" % (
            raster.transform[0],
            raster.transform[3],
            raster.transform[1],
            raster.transform[5],
        )
    return text


def _by_row(values, valid, window, each_row):
    """Counts of values, of the window or (geographic grids) row by row: ([(value, n)], row)."""
    rows = [(values, valid, window.y)]
    if each_row:
        rows = [(values[k : k + 1], valid[k : k + 1], window.y + k) for k in range(window.height)]
    for v, good, y in rows:
        if v.dtype.kind == "u" and v.dtype.itemsize <= 2:
            n = np.bincount(v.ravel() if good.all() else v[good], minlength=1)
            yield [(int(k), int(n[k])) for k in np.flatnonzero(n)], y
        else:
            found, n = np.unique(v[good], return_counts=True)
            if len(found) > 4096:
                raise complaint(
                    "a map of classes", "more than 4096 different values", "classes", "Is it a score? Give it as -probability or -score."
                )
            yield [(int(k) if float(k).is_integer() else float(k), int(c)) for k, c in zip(found, n)], y


def _style_legend(path):
    if not os.path.exists(path):
        return None
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError:
        return None
    return [
        Entry(int(float(e.get("value"))), e.get("label") or e.get("value"), e.get("color"), int(e.get("alpha", "255")) > 0)
        for e in root.iter("paletteEntry")
    ] or None


def _file_legend(band):
    names, table = band.GetCategoryNames(), band.GetColorTable()
    entries = []
    for value, name in enumerate(names or []):
        if name:
            colour = table.GetColorEntry(value) if table and value < table.GetCount() else None
            entries.append(Entry(value, name, "#%02x%02x%02x" % colour[:3] if colour else PALETTE[value % len(PALETTE)], True))
    return entries or None


def rgb(colour):
    """(red, green, blue) 0 to 255 of ``#rrggbb``."""
    return tuple(int(colour[k : k + 2], 16) for k in (1, 3, 5))
