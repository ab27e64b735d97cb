"""Mosaics: a VRT of the tiles of each output and projection; one GeoTIFF or COG of windows.

Pixels are copied by GDAL, block by block; what maps say of themselves (colours, names, no-data,
notes, the QGIS style) comes from the first part, as all parts of a run have the same.
"""

import dataclasses
import glob
import os
import pathlib
import re
import shutil

from osgeo import gdal

gdal.UseExceptions()
# Bytes: a block of the mosaic is read from parts that lie in other blocks.
CACHE = 256 << 20


class MapError(Exception):
    """A map is not what it should be."""


@dataclasses.dataclass
class Map:
    """A raster file, and those beside it."""

    path: pathlib.Path
    size: tuple
    files: list


def map_files(path):
    """Opens a map. Raises MapError where it cannot be read."""
    try:
        found = gdal.Open(str(path))
        return Map(
            pathlib.Path(path), (found.RasterXSize, found.RasterYSize), list(found.GetFileList())
        )
    except RuntimeError as error:
        raise MapError(f"{path} cannot be read: {error}") from error


def style_of(path):
    return pathlib.Path(path).with_suffix(".qml")


# -------------------------------------------------------------------------------------------------
# Copies


def _signed(dataset):
    return dataset.GetRasterBand(1).GetMetadataItem("PIXELTYPE", "IMAGE_STRUCTURE") == "SIGNEDBYTE"


def _same_pixels(one, two, rows=256):
    """Are two data sets of one size equal, bit for bit?"""
    width, height = one.RasterXSize, one.RasterYSize
    return all(
        one.GetRasterBand(b).ReadRaster(0, y, width, min(rows, height - y))
        == two.GetRasterBand(b).ReadRaster(0, y, width, min(rows, height - y))
        for y in range(0, height, rows)
        for b in range(1, one.RasterCount + 1)
    )


def _copy(source, target, format, options):
    """Writes a data set block by block, closes it, and compares what is there with what was given."""
    driver = "COG" if format == "cog" else "GTiff"
    options = dict(options)
    if driver == "COG":
        for key in ("TILED", "BLOCKXSIZE", "BLOCKYSIZE", "INTERLEAVE", "PIXELTYPE"):
            options.pop(key, None)
        if _signed(source):
            raise MapError(
                f"{target}: GDAL's COG holds no signed bytes; take --format tiff, or -featurestype float"
            )
        # Whole numbers may be classes, with or without colours: none is made up between two.
        whole = gdal.GetDataTypeName(source.GetRasterBand(1).DataType).startswith(("Byte", "UInt", "Int"))
        options.setdefault("COMPRESS", "DEFLATE")
        options.setdefault("OVERVIEWS", "IGNORE_EXISTING")
        options.setdefault("OVERVIEW_RESAMPLING", "NEAREST" if whole else "AVERAGE")
    else:
        options.setdefault("TILED", "YES")
        if options["TILED"].upper() in ("YES", "TRUE", "ON", "1"):
            options.setdefault("BLOCKXSIZE", "512")
            options.setdefault("BLOCKYSIZE", "512")
        if _signed(source):
            options["PIXELTYPE"] = "SIGNEDBYTE"
    options.setdefault("BIGTIFF", "IF_SAFER")
    cache = gdal.GetCacheMax()
    gdal.SetCacheMax(CACHE)
    try:
        written = gdal.Translate(
            str(target),
            source,
            format=driver,
            creationOptions=[f"{k}={v}" for k, v in options.items()],
        )
        written.FlushCache()
        written = None
        found = gdal.Open(str(target))
        wanted = (source.RasterXSize, source.RasterYSize, source.RasterCount)
        if (found.RasterXSize, found.RasterYSize, found.RasterCount) != wanted:
            raise MapError(f"{target}: another size than its parts")
        if not _same_pixels(found, source):
            raise MapError(f"{target}: its pixels are not those of its parts: is the disk full?")
        if driver == "COG" and found.GetMetadataItem("LAYOUT", "IMAGE_STRUCTURE") != "COG":
            raise MapError(f"{target}: GDAL does not find it to be a COG")
    except RuntimeError as error:
        raise MapError(f"{target}: {error}") from error
    finally:
        gdal.SetCacheMax(cache)


def _beside(path):
    """Files of a map that are named after it, with what is added to its name."""
    return [path.with_name(path.name + added) for added in (".aux.xml", ".ovr", ".msk")]


def _replace(source, target):
    """Renames a map with all that lies beside it; what lay beside an earlier one goes."""
    for new, old in zip(_beside(source), _beside(target)):
        if new.exists():
            os.replace(new, old)
        else:
            old.unlink(missing_ok=True)
    os.replace(source, target)


def to_cog(path, options):
    """Turns a GeoTIFF into a COG in its place; the same pixels. Raises MapError."""
    path = pathlib.Path(path)
    part = path.with_name(path.stem + ".cog" + path.suffix)
    kept = {k: v for k, v in options.items() if k in ("COMPRESS", "PREDICTOR", "LEVEL", "QUALITY")}
    try:
        source = gdal.Open(str(path))
    except RuntimeError as error:
        raise MapError(f"{path} cannot be read: {error}") from error
    _copy(source, part, "cog", {k: v for k, v in kept.items() if k != "QUALITY"})
    _replace(part, path)


# -------------------------------------------------------------------------------------------------
# Windows


def _source(path, window, band, kind, block):
    x, y, w, h = window
    return f"""<SimpleSource>
<SourceFilename relativeToVRT="0">{_escape(path)}</SourceFilename><SourceBand>{band}</SourceBand>
<SourceProperties RasterXSize="{w}" RasterYSize="{h}" DataType="{gdal.GetDataTypeName(kind)}"
 BlockXSize="{block[0]}" BlockYSize="{block[1]}"/>
<SrcRect xOff="0" yOff="0" xSize="{w}" ySize="{h}"/><DstRect xOff="{x}" yOff="{y}" xSize="{w}" ySize="{h}"/>
</SimpleSource>"""


def _escape(path):
    return str(path).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _virtual(parts, grid):
    """One data set of windows ``[(path, (x, y, w, h))]``, with what the first one says of itself."""
    first = gdal.Open(str(parts[0][0]))
    bands, kind = first.RasterCount, first.GetRasterBand(1).DataType
    whole = gdal.GetDriverByName("VRT").Create("", grid["width"], grid["height"], 0)
    whole.SetProjection(first.GetProjection())
    transform = first.GetGeoTransform(can_return_null=True)
    if transform:
        x, y = parts[0][1][:2]
        origin = [transform[k] - x * transform[k + 1] - y * transform[k + 2] for k in (0, 3)]
        whole.SetGeoTransform(
            (origin[0], transform[1], transform[2], origin[1], transform[4], transform[5])
        )
    whole.SetMetadata({k: v for k, v in first.GetMetadata().items() if k != "AREA_OR_POINT"})
    if first.GetMetadataItem("AREA_OR_POINT"):
        whole.SetMetadataItem("AREA_OR_POINT", first.GetMetadataItem("AREA_OR_POINT"))
    for b in range(1, bands + 1):
        whole.AddBand(kind)
        band, like = whole.GetRasterBand(b), first.GetRasterBand(b)
        if like.GetNoDataValue() is not None:
            band.SetNoDataValue(like.GetNoDataValue())
        band.SetMetadata(like.GetMetadata())
        if _signed(first):
            band.SetMetadataItem("PIXELTYPE", "SIGNEDBYTE", "IMAGE_STRUCTURE")
        band.SetDescription(like.GetDescription())
        band.SetColorInterpretation(like.GetColorInterpretation())
        if like.GetColorTable() is not None:
            band.SetColorTable(like.GetColorTable())
        if like.GetCategoryNames():
            band.SetCategoryNames(like.GetCategoryNames())
        if like.GetDefaultRAT() is not None:
            band.SetDefaultRAT(like.GetDefaultRAT())
        block = like.GetBlockSize()
        for k, (path, window) in enumerate(parts):
            band.SetMetadataItem(
                f"source_{k}", _source(path, window, b, kind, block), "new_vrt_sources"
            )
    interleave = first.GetMetadataItem("INTERLEAVE", "IMAGE_STRUCTURE")
    return whole, interleave if bands > 1 else None


def _check_parts(parts, grid):
    """Do the windows lie where they should, and are they alike?"""
    first = None
    for path, window in parts:
        found = gdal.Open(str(path))
        alike = (
            found.RasterCount,
            found.GetRasterBand(1).DataType,
            found.GetProjection(),
            found.GetRasterBand(1).GetNoDataValue(),
        )
        if first is None:
            first = alike
        elif alike != first:
            raise MapError(f"{path}: other bands, type, projection or no-data than {parts[0][0]}")
        if (found.RasterXSize, found.RasterYSize) != tuple(window[2:]):
            raise MapError(f"{path}: another size than its window")
        transform, wanted = found.GetGeoTransform(can_return_null=True), grid["transform"]
        if transform is None or wanted is None:
            continue
        x, y = window[:2]
        corner = (
            wanted[0] + x * wanted[1] + y * wanted[2],
            wanted[3] + x * wanted[4] + y * wanted[5],
        )
        pixel = max(abs(v) for v in (wanted[1], wanted[2]))
        off = max(abs(transform[0] - corner[0]), abs(transform[3] - corner[1]))
        if off > 0.01 * pixel or abs(transform[1] - wanted[1]) > 1e-6 * pixel:
            raise MapError(
                f"{path}: it does not lie where its window is: the maps have another grid"
            )


def join_windows(parts, grid, target, format, options):
    """One map of all windows, under its name once it is whole and seen to be equal.

    :param parts: ``[(path, (x, y, width, height))]``
    :param options: creation options of the file
    :returns: names of the files that are written, the style among them
    """
    target = pathlib.Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.stem}.part-{os.getpid()}{target.suffix}")
    try:
        try:
            _check_parts(parts, grid)
            whole, interleave = _virtual(parts, grid)
        except RuntimeError as error:
            raise MapError(f"{target}: {error}") from error
        options = dict({"INTERLEAVE": interleave} if interleave else {}, **options)
        _copy(whole, part, format, options)
        style = style_of(parts[0][0])
        if style.exists():
            shutil.copyfile(style, style_of(part))
        _replace(part, target)
        if style_of(part).exists():
            os.replace(style_of(part), style_of(target))
    finally:
        for file in target.parent.glob(glob.escape(part.stem) + "*"):
            file.unlink(missing_ok=True)
    files = [target] + [f for f in _beside(target) + [style_of(target)] if f.exists()]
    return [str(f) for f in files]


# -------------------------------------------------------------------------------------------------
# Tiles


def _label(dataset):
    """A short name of a projection, for a file name."""
    system = dataset.GetSpatialRef()
    if system is None:
        return "local"
    authority, code = system.GetAuthorityName(None), system.GetAuthorityCode(None)
    if authority and code:
        return f"{authority}{code}"
    return re.sub(r"[^A-Za-z0-9]+", "-", system.GetName() or "unnamed").strip("-")


def _distinct(label, system, systems):
    """The label, with a number where another projection has the same one."""
    known = systems.setdefault(label, [])
    for k, other in enumerate(known):
        if system is None or system.IsSame(other):
            break
    else:
        k = len(known)
        known.append(system)
    return f"{label}-{k + 1}" if k else label


def join_tiles(folder, key, paths):
    """A VRT of the tiles of one output, or one for each projection.

    Where tiles overlap the last one is on top. Tiles of other types or numbers of bands get a VRT
    of their own. Returns the names of the files that are written.
    """
    folder = pathlib.Path(folder)
    groups, systems = {}, {}
    for path in paths:
        try:
            found = gdal.Open(str(path))
        except RuntimeError as error:
            raise MapError(f"{path} cannot be read: {error}") from error
        if found.GetGeoTransform(can_return_null=True) is None:
            continue  # nobody knows where it lies
        kinds = tuple(found.GetRasterBand(b + 1).DataType for b in range(found.RasterCount))
        groups.setdefault((_distinct(_label(found), found.GetSpatialRef(), systems), kinds), []).append(str(path))
    labels = [label for label, _ in groups]
    written = []
    for (label, kinds), members in groups.items():
        name = key if len(groups) == 1 else f"{key}_{label}"
        if labels.count(label) > 1:
            name += "_" + "-".join([str(len(kinds)), gdal.GetDataTypeName(kinds[0])])
        written += _vrt(folder / f"{name}.vrt", members)
    return written


def _vrt(target, members):
    first = gdal.Open(members[0])
    part = target.with_name(f".{target.stem}.part-{os.getpid()}.vrt")
    try:
        whole = gdal.BuildVRT(
            str(part), members, options=gdal.BuildVRTOptions(resolution="highest", strict=True)
        )
        if whole is None:
            raise MapError(f"{target}: GDAL makes no VRT of these tiles")
        for b in range(1, first.RasterCount + 1):
            band, like = whole.GetRasterBand(b), first.GetRasterBand(b)
            band.SetDescription(like.GetDescription())
            if like.GetCategoryNames():
                band.SetCategoryNames(like.GetCategoryNames())
            if like.GetColorTable() is not None:
                band.SetColorTable(like.GetColorTable())
        whole.FlushCache()
        whole = None
        os.replace(part, target)
    except RuntimeError as error:
        raise MapError(f"{target}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    style = style_of(members[0])
    if not style.exists():
        return [str(target)]
    partial = style_of(part)
    shutil.copyfile(style, partial)
    os.replace(partial, style_of(target))
    return [str(target), str(style_of(target))]
