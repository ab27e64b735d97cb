"""Object-based workflow: embeddings of a tile, then OTB's ZonalStatistics of a segmentation.

The table has the columns of ZonalStatistics (``mean_0``, ``stdev_0`` ..., a number per dimension of
the embedding), which OTB's vector classifiers and iota2's object-based step of 2020 take by name;
a text file beside it lists those to learn from.
"""

import math
import pathlib

from osgeo import ogr, osr

from .. import launch
from . import Iota2Error, complaint
from .classify import _log, _newer, _open, _Stage, model_files, options_of, run_application, series, series_files

NUMBER = "number"
MOST_COLUMNS = 2000  # of SQLite, in which GeoPackages are
EMPTY = -9999.0  # what TimeSeriesClassify writes where there is no embedding
COLUMNS = {"mean": "mean", "std": "stdev", "min": "min", "max": "max"}  # iota2's word, OTB's
DRIVERS = {".gpkg": "GPKG", ".shp": "ESRI Shapefile", ".sqlite": "SQLite"}


def columns(statistics, dimensions, prefix=""):
    """Names of the columns to learn from, in the order of the table."""
    words = [COLUMNS[s] for s in COLUMNS if s in statistics]
    names = [f"{prefix}{word}_{k}" for k in range(dimensions) for word in words]
    return ([prefix + "count"] if "count" in statistics else []) + names


def embed(output_path, tile, parameters, ram=None, threads=None, working_directory=None):
    """Writes the embedding of a tile; returns the path.

    One band per dimension: float32, no-data -9999 (or codes of 8 bits, with ``embedding.type``).

    :raises Iota2Error: an input is missing, or the application's own reason
    """
    given = parameters["embedding"]
    model = pathlib.Path(output_path) / given["model"].format(tile=tile)
    target = pathlib.Path(output_path) / given["raster"].format(tile=tile)
    log = _log(output_path, f"embedding_{tile}")
    try:
        if not model.exists():
            raise complaint("embedding.model", f'no file at "{model}"', "a TorchScript file (.pt) with an embedding")
        words = series(output_path, tile, parameters)
        options = {k: v for k, v in options_of(output_path, tile, parameters).items() if k != "classes"}
        static = options.get("static", [])
        static = [name.partition("?")[0] for name in ([static] if isinstance(static, str) else static)]
        inputs = series_files(words) + [name for name in static if pathlib.Path(name).exists()]
        if parameters["keep"] and _newer([target], model_files(model) + inputs):
            return str(target)
        with _Stage(output_path, f"embedding_{tile}", working_directory) as stage:
            words.update(
                model=str(model), features=str(stage.path(target)), featurestype=given["type"], legend="off",
                ram=parameters["ram"] or ram or 256, **options,
            )  # fmt: skip
            run_application(parameters, words, log, threads)
            stage.publish([target])
    except Iota2Error as error:
        raise Iota2Error(f"tile {tile}: {error}") from error
    except launch.LaunchError as error:
        raise Iota2Error(f"tile {tile}: {error} (the whole log: {log})") from error
    return str(target)


def zonal_statistics(raster, segmentation, table, statistics, prefix="", labels=None, ram=256, working_directory=None):
    """Statistics of the bands of a raster over objects, as a vector file. Returns the columns to learn from.

    Objects that hold no pixel with data keep empty cells, which no learner should be given; their
    ``count`` is 0. ``count`` is the number of an object's pixels, with data or not; a pixel of two
    objects is the later one's (ZonalStatistics). Attributes of the segmentation are kept.

    :param segmentation: a vector file with one layer; it is reprojected if need be
    :param table: .gpkg, .shp or .sqlite
    :param statistics: some of mean, std, min, max, count
    :param labels: a text file that gets the names of the columns, one a line
    :raises Iota2Error: a file that cannot be read, a kind of table or a name that does not fit
    """
    table, segmentation = pathlib.Path(table), pathlib.Path(segmentation)
    driver = DRIVERS.get(table.suffix.lower())
    if driver is None:
        raise complaint("objects.table", f'"{table}"', "a file that ends in " + ", ".join(DRIVERS))
    image = _open(raster, "embedding")
    dimensions, nodata = image.RasterCount, image.GetRasterBand(1).GetNoDataValue()
    system = image.GetSpatialRef()
    image = None
    wanted = columns(statistics, dimensions, prefix)
    if 4 * dimensions + 2 > MOST_COLUMNS:
        raise complaint(
            "embedding", f"{dimensions} dimensions", f"at most {(MOST_COLUMNS - 2) // 4}, for ZonalStatistics writes four columns for each"
        )
    if driver == "ESRI Shapefile" and max(map(len, wanted)) > 10:
        raise complaint("objects.prefix", f'the column "{max(wanted, key=len)}"', "at most 10 characters in a .shp", "Write a .gpkg.")
    try:
        objects = ogr.Open(str(segmentation))
    except RuntimeError:
        objects = None
    if objects is None:
        raise complaint("objects.segmentation", f'"{segmentation}", which cannot be read', "a vector file")
    definition = objects.GetLayer(0).GetLayerDefn()
    taken = {definition.GetFieldDefn(i).GetName() for i in range(definition.GetFieldCount())}
    most = 255 if driver == "ESRI Shapefile" else MOST_COLUMNS - 2
    if len(taken) + len(wanted) > most:
        raise complaint("objects.statistics", f"{len(taken) + len(wanted)} columns", f"at most {most} in a {table.suffix}")
    if taken & set(wanted):
        clash = sorted(taken & set(wanted))[0]
        raise complaint(
            "objects.segmentation", f'the column "{clash}"', "a name that the statistics do not take", "Rename it, or give a prefix."
        )
    with _Stage(table.parent, table.stem, working_directory or table.parent) as stage:
        # Beside the table they could have its name.
        (stage.folder / "work").mkdir()
        zones, found = stage.folder / "work" / "zones.gpkg", stage.folder / "work" / "found.gpkg"
        _number(objects.GetLayer(0), system, zones)
        words = {
            "in": raster, "inbv": EMPTY if nodata is None else nodata, "inzone": "vector", "inzone.vector.in": zones,
            "out": "vector", "out.vector.filename": found, "ram": ram,
        }  # fmt: skip
        launch.run("ZonalStatistics", words)
        _write_table(objects.GetLayer(0), found, stage.path(table), driver, table.stem, columns(statistics, dimensions), prefix)
        made = [table.with_suffix(p.suffix) for p in sorted(stage.folder.iterdir()) if p.is_file() and p.stem == table.stem]
        # A shapefile is several files; the one that is asked for comes last.
        stage.publish(sorted(made, key=lambda p: p == table))
        if labels is not None:
            labels = pathlib.Path(labels)
            stage.path(labels).write_text("\n".join(wanted) + "\n", encoding="utf-8")
            stage.publish([labels])
    return wanted


def _number(layer, system, target):
    """Geometries of a layer in the system of the raster, numbered from 0: ZonalStatistics leaves out those without a pixel."""
    change = None
    if layer.GetSpatialRef() is not None and system is not None and not layer.GetSpatialRef().IsSame(system):
        ends = [layer.GetSpatialRef().Clone(), system.Clone()]
        for end in ends:
            end.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
        change = osr.CoordinateTransformation(*ends)
    out = ogr.GetDriverByName("GPKG").CreateDataSource(str(target))
    zones = out.CreateLayer("zones", system, layer.GetGeomType())
    zones.CreateField(ogr.FieldDefn(NUMBER, ogr.OFTInteger))
    zones.StartTransaction()
    layer.ResetReading()
    for number, feature in enumerate(layer):
        geometry = feature.GetGeometryRef()
        new = ogr.Feature(zones.GetLayerDefn())
        new.SetField(NUMBER, number)
        if geometry is not None:
            geometry = geometry.Clone()
            if change is not None:
                geometry.Transform(change)
            new.SetGeometry(geometry)
        zones.CreateFeature(new)
    zones.CommitTransaction()


def _statistics_of(path, wanted):
    """(number of the object, values of the columns) of objects with data, ascending; one at a time."""
    source = ogr.Open(str(path))
    found = source.ExecuteSQL(f'SELECT * FROM "{source.GetLayer(0).GetName()}" ORDER BY "{NUMBER}"')
    definition = found.GetLayerDefn()
    # By position: by name, OGR's Python looks through all columns for each cell.
    number, mean, *places = [definition.GetFieldIndex(column) for column in [NUMBER, "mean_0", *wanted]]
    for feature in found:
        # An object without data has no mean, but a count, and the no-data value as minimum.
        if feature.IsFieldSetAndNotNull(mean) and math.isfinite(feature.GetFieldAsDouble(mean)):
            yield feature.GetFieldAsInteger(number), [feature.GetFieldAsDouble(k) for k in places]
    source.ReleaseResultSet(found)


def _write_table(layer, found, target, driver, name, wanted, prefix):
    """The layer with more columns; cells without a value are empty."""
    out = ogr.GetDriverByName(driver).CreateDataSource(str(target))
    made = out.CreateLayer(name, layer.GetSpatialRef(), layer.GetGeomType())
    definition = layer.GetLayerDefn()
    for i in range(definition.GetFieldCount()):
        made.CreateField(definition.GetFieldDefn(i))
    first = made.GetLayerDefn().GetFieldCount()
    for column in wanted:
        made.CreateField(ogr.FieldDefn(prefix + column, ogr.OFTInteger64 if column == "count" else ogr.OFTReal))
    made.StartTransaction()
    layer.ResetReading()
    rows = _statistics_of(found, wanted)
    next_number, values = next(rows, (None, None))
    for number, feature in enumerate(layer):
        new = ogr.Feature(made.GetLayerDefn())
        new.SetFrom(feature)
        if number == next_number:
            for k, value in enumerate(values):
                if math.isfinite(value):
                    new.SetField(first + k, value)
            next_number, values = next(rows, (None, None))
        elif "count" in wanted:
            new.SetField(first + wanted.index("count"), 0)
        made.CreateFeature(new)
    made.CommitTransaction()


def object_features(output_path, tile, parameters, ram=None, threads=None, working_directory=None):
    """The embedding of a tile, then the statistics of its objects; the task of the feature step.

    :return: path of the table
    :raises Iota2Error: see :func:`embed` and :func:`zonal_statistics`
    """
    raster = embed(output_path, tile, parameters, ram, threads, working_directory)
    given = parameters["objects"]
    files = {key: pathlib.Path(output_path) / given[key].format(tile=tile) for key in ("segmentation", "table", "labels")}
    table, labels = files["table"], files["labels"]
    if parameters["keep"] and _newer([table, labels], [raster, files["segmentation"]]):
        return str(table)
    try:
        zonal_statistics(
            raster, files["segmentation"], table, given["statistics"], given["prefix"], labels,
            parameters["ram"] or ram or 256, working_directory,
        )  # fmt: skip
    except (Iota2Error, launch.LaunchError) as error:
        raise Iota2Error(f"tile {tile}: {error}") from error
    return str(table)
