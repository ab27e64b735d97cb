"""Change objects of a GeoPackage, and the places that a report shows."""

import collections
import csv
import io
import math
import os

import numpy as np
from osgeo import gdal

from . import complaint

gdal.UseExceptions()

Place = collections.namedtuple("Place", "name window")

#: Side of a place in pixels, where nothing else is said.
SIDE = 128
MOST_PLACES = 60


class Objects:
    """The layer ``changes`` that ``-objects`` writes (doc/SiameseCD.md)."""

    def __init__(self, path, option="objects"):
        try:
            self.dataset = gdal.OpenEx(path, gdal.OF_VECTOR | gdal.OF_READONLY)
        except RuntimeError as error:
            raise complaint(
                option,
                '"%s", which %s' % (path, "cannot be read" if os.path.exists(path) else "does not exist"),
                "the GeoPackage that -objects wrote",
            ) from error
        layer = self.dataset.GetLayerByName("changes") or self.dataset.GetLayer(0)
        if layer is None:
            raise complaint(option, '"%s" without a layer' % path, "the GeoPackage that -objects wrote")
        self.path, self.layer, self.name = path, layer, layer.GetName()
        definition = layer.GetLayerDefn()
        self.fields = [definition.GetFieldDefn(k).GetName() for k in range(definition.GetFieldCount())]
        if "area_px" not in self.fields:
            raise complaint(
                "%s (%s)" % (option, path), 'no column area_px in the layer "%s"' % self.name, "the objects of a change application"
            )
        means = [f for f in self.fields if f.startswith("mean_")]
        self.mean = means[0] if means else None
        self.has_metres = self._first("SELECT COUNT(area_m2) FROM %s" % self._table) > 0 if "area_m2" in self.fields else False

    @property
    def _table(self):
        return '"%s"' % self.name.replace('"', '""')

    def _query(self, sql):
        dialect = "" if self.dataset.GetDriver().ShortName == "GPKG" else "SQLITE"
        result = self.dataset.ExecuteSQL(sql, None, dialect)
        try:
            return [feature.Clone() for feature in result]
        finally:
            self.dataset.ReleaseResultSet(result)

    def _first(self, sql):
        return self._query(sql)[0].GetField(0)

    def count(self):
        return self.layer.GetFeatureCount()

    def area(self):
        """(pixels, square metres or None) of all objects."""
        pixels = self._first("SELECT SUM(area_px) FROM %s" % self._table) or 0
        return pixels, self._first("SELECT SUM(area_m2) FROM %s" % self._table) if self.has_metres else None

    def median(self):
        """The median area, in pixels; None of no objects."""
        n = self.count()
        middle = (
            self._query("SELECT area_px FROM %s ORDER BY area_px LIMIT %d OFFSET %d" % (self._table, 2 - n % 2, (n - 1) // 2)) if n else []
        )
        return sum(f.GetField(0) for f in middle) / len(middle) if middle else None

    def largest(self, n):
        return self._query("SELECT * FROM %s ORDER BY area_px DESC, id LIMIT %d" % (self._table, n))

    def doubtful(self, n, threshold=None):
        """Those whose mean probability or score lies nearest to the threshold (unknown: the lowest ones), or whose p-value is largest."""
        if self.mean:
            order = '"%s"' % self.mean if threshold is None else 'ABS("%s" - %.9g)' % (self.mean, threshold)
            where = 'WHERE "%s" IS NOT NULL ' % self.mean
        elif "pvalue" in self.fields:
            order, where = "CAST(pvalue AS REAL) DESC", ""
        else:
            return []
        return self._query("SELECT * FROM %s %sORDER BY %s, id LIMIT %d" % (self._table, where, order, n))

    def style(self):
        """The layer's default QGIS style, as text; None where the file has none, inside or (a Shapefile) beside it."""
        if self.dataset.GetLayerByName("layer_styles") is None:
            beside = os.path.splitext(self.path)[0] + ".qml"
            if self.dataset.GetDriver().ShortName != "ESRI Shapefile" or not os.path.isfile(beside):
                return None
            with open(beside, encoding="utf-8") as stream:
                return stream.read()
        found = self._query(
            "SELECT styleQML FROM layer_styles WHERE f_table_name = '%s' ORDER BY useAsDefault DESC LIMIT 1" % self.name.replace("'", "''")
        )
        return found[0].GetField(0) if found else None

    def get(self, feature, field):
        k = feature.GetFieldIndex(field)
        return None if k < 0 or feature.IsFieldNull(k) else feature.GetField(k)


def rings(geometry):
    """The rings of a polygon or multipolygon, as lists of (x, y)."""
    if geometry.GetGeometryName() in ("POLYGON", "MULTIPOLYGON", "GEOMETRYCOLLECTION", "CURVEPOLYGON"):
        return [r for k in range(geometry.GetGeometryCount()) for r in rings(geometry.GetGeometryRef(k))]
    return [geometry.GetPoints(2)] if geometry.GetPointCount() else []


def window_of(geometry, raster, least=48, margin=1.8):
    """A square window around a geometry, with room for its surroundings."""
    west, east, south, north = geometry.GetEnvelope()
    corners = [raster.to_pixel(x, y) for x in (west, east) for y in (south, north)]
    columns, rows = zip(*corners)
    side = max(least, math.ceil(margin * max(max(columns) - min(columns), max(rows) - min(rows))))
    return raster.around(sum(columns) / 4, sum(rows) / 4, side)


def read_places(path, raster, side=SIDE):
    """Places of a CSV file (``name,x,y`` | ``name,lon,lat`` | ``name,column,row``, each with an optional ``size`` in pixels), or of a file of
    vectors (a point or the box of a geometry each; the field ``name``)."""
    try:
        with open(path, encoding="utf-8-sig") as stream:
            text = stream.read()
        places = _of_table(text, path, raster, side)
    except UnicodeDecodeError:
        places = None
    except OSError as error:
        raise complaint("places", '"%s", which cannot be read (%s)' % (path, error.strerror), "a list of places") from error
    if places is None:
        places = _of_vectors(path, raster, side)
    if not places:
        raise complaint("places (%s)" % path, "no place", "one a line")
    if len(places) > MOST_PLACES:
        raise complaint("places (%s)" % path, "%d places" % len(places), "at most %d" % MOST_PLACES, "A report is read by people.")
    return places


def _of_table(text, path, raster, side):
    rows = csv.DictReader(
        io.StringIO("\n".join(line for line in text.splitlines() if line.strip() and not line.startswith("#"))), skipinitialspace=True
    )
    head = [h.strip().lower() for h in rows.fieldnames or []]
    rows.fieldnames = head
    pairs = [p for p in (("x", "y"), ("lon", "lat"), ("column", "row")) if p[0] in head and p[1] in head]
    if not pairs:
        if os.path.splitext(path)[1].lower() in (".csv", ".txt", ""):
            raise complaint(
                "places (%s)" % path,
                'the columns "%s"' % ",".join(head)[:80],
                "name,x,y or name,lon,lat or name,column,row",
                "The first line names the columns.",
            )
        return None
    places = []
    for number, row in enumerate(rows, 1):
        try:
            a, b = (float(row[k]) for k in pairs[0])
            size = int(float(row["size"])) if row.get("size") else side
        except (TypeError, ValueError) as error:
            raise complaint(
                "places (%s)" % path, "place %d with %s" % (number, ", ".join("%s=%s" % (k, row.get(k)) for k in pairs[0])), "numbers"
            ) from error
        if pairs[0][0] == "lon":
            if raster.reference is None:
                raise complaint("places (%s)" % path, "longitudes and latitudes", "columns and rows: the map has no georeference")
            a, b = raster.from_degrees(a, b)
        column, row_number = (a, b) if pairs[0][0] == "column" else raster.to_pixel(a, b)
        places.append(_place((row.get("name") or "").strip() or str(number), column, row_number, size, raster, path))
    return places


def _of_vectors(path, raster, side):
    try:
        dataset = gdal.OpenEx(path, gdal.OF_VECTOR | gdal.OF_READONLY)
    except RuntimeError as error:
        raise complaint("places", '"%s", which is neither a table nor a file of vectors' % path, "a list of places") from error
    layer = dataset.GetLayer(0)
    reference, turn = layer.GetSpatialRef(), None
    if reference is not None and raster.reference is not None and not reference.IsSame(raster.reference):
        from osgeo import osr

        here, there = reference.Clone(), raster.reference.Clone()
        for r in (here, there):
            r.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
        turn = osr.CoordinateTransformation(here, there)
    places = []
    for number, feature in enumerate(layer, 1):
        geometry = feature.GetGeometryRef()
        if geometry is None:
            continue
        geometry = geometry.Clone()
        if turn:
            geometry.Transform(turn)
        west, east, south, north = geometry.GetEnvelope()
        (c0, r0), (c1, r1) = raster.to_pixel(west, north), raster.to_pixel(east, south)
        size = side if geometry.GetDimension() == 0 else max(16, math.ceil(max(abs(c1 - c0), abs(r1 - r0))))
        k = feature.GetFieldIndex("name")
        name = feature.GetFieldAsString(k) if k >= 0 and feature.IsFieldSet(k) else str(number)
        places.append(_place(name, (c0 + c1) / 2, (r0 + r1) / 2, size, raster, path))
    return places


def _place(name, column, row, size, raster, path):
    if not (0 <= column < raster.width and 0 <= row < raster.height):
        raise complaint(
            "places (%s)" % path,
            '"%s" at column %.0f, row %.0f' % (name, column, row),
            "a place within the %d x %d pixels of the map" % (raster.width, raster.height),
            "Are the coordinates those of the map's projection?",
        )
    if not 8 <= size <= 1 << 16:
        raise complaint("places (%s)" % path, '"%s" of size %d' % (name, size), "8 to 65536 pixels")
    return Place(name, raster.around(column, row, size))


def worst_places(errors, n, side=SIDE):
    """The n windows with most errors (values 2, 3) that do not overlap, worst first: [(Place without a name, share of errors)].

    Found on a decimated picture of the map of errors, so their order is approximate on large maps.
    """
    rows, columns, k = errors.shape_within(1024, finer=4)
    values, valid = errors.read_integers(1, shape=(rows * k, columns * k))
    fine = errors.height / (rows * k)
    wrong = ((values == 2) | (values == 3)) & valid
    # Sums of windows from a table of sums, at every eighth of a side.
    cell = max(1, round(side / 8 / fine))
    span = max(1, round(side / fine / cell))
    down, across = -(-wrong.shape[0] // cell), -(-wrong.shape[1] // cell)
    padded = np.zeros((down * cell, across * cell), np.int32)
    padded[: wrong.shape[0], : wrong.shape[1]] = wrong
    table = np.pad(padded.reshape(down, cell, across, cell).sum(axis=(1, 3)).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    tall, wide = min(span, down), min(span, across)
    sums = table[tall:, wide:] - table[:-tall, wide:] - table[tall:, :-wide] + table[:-tall, :-wide]
    found = []
    for place in np.argsort(-sums, axis=None, kind="stable"):
        if len(found) == n or sums.flat[place] <= 0:
            break
        j, i = np.unravel_index(place, sums.shape)
        window = errors.around((i + wide / 2) * cell * fine, (j + tall / 2) * cell * fine, side)
        if all(not _overlap(window, other.window) for other in found):
            found.append(Place("", window))
    return found


def _overlap(a, b):
    return a.x < b.x + b.width and b.x < a.x + a.width and a.y < b.y + b.height and b.y < a.y + a.height
