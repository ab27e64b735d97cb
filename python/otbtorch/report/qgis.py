"""A QGIS project of the images, maps and objects of a run, in order and with their styles.

The file is XML as QGIS 3.22 reads it (later versions of QGIS 3 do too) and is written without QGIS. Styles come
from the ``.qml`` beside each raster and from the table ``layer_styles`` of the GeoPackage; what has none gets one
here. Files are named relative to the project, so that a folder can be moved.
"""

import os
import uuid
import xml.etree.ElementTree as ElementTree

import numpy as np
from osgeo import gdal

from . import complaint, pictures
from .command import write as write_file
from .maps import default_bands
from .rasters import ERRORS, PALETTE, Entry, rgb

VERSION = "3.22.16-Białowieża"
#: From top to bottom; those that are shown when the project opens.
ORDER = ("objects", "errors", "change", "labels", "sem1", "sem2", "probability", "score", "pvalue", "confidence", "valid", "date2", "date1")
SHOWN = ("objects", "change", "labels", "date2", "date1")
IMAGES = ("date1", "date2")
_NAMESPACE = uuid.UUID("6e5f3a52-52a3-4d1e-9a4e-0a8f2b6b5f3c")
_Sub = ElementTree.SubElement


def write(path, given, words):
    """Writes the project. Bands of a date that lie in several files are joined by a virtual file (.vrt) beside it."""
    folder = os.path.dirname(os.path.abspath(path))
    layers = []
    for kind in ORDER:
        raster = given.objects if kind == "objects" else getattr(given, kind)
        if raster is not None:
            name = words("m_" + kind)
            make = _objects if kind == "objects" else _image if kind in IMAGES else _map
            layers.append(make(kind, raster, name, folder, path, given))
    root = ElementTree.Element(
        "qgis", projectname=given.title or words("title_series" if given.labels is not None else "title_change"), version=VERSION
    )
    _Sub(root, "title").text = root.get("projectname")
    _crs(_Sub(root, "projectCrs"), given.main.reference)
    _tree(root, layers, words)
    _canvas(root, given)
    every = _Sub(root, "projectlayers")
    for layer in layers:
        every.append(layer["xml"])
    order = _Sub(root, "layerorder")
    for layer in layers:
        _Sub(order, "layer", id=layer["id"])
    properties = _Sub(root, "properties")
    _Sub(_Sub(properties, "Paths"), "Absolute", type="bool").text = "false"
    _Sub(_Sub(properties, "SpatialRefSys"), "ProjectionsEnabled", type="int").text = "1"
    ElementTree.indent(root)
    text = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + ElementTree.tostring(root, encoding="unicode")
    write_file(path, text.encode("utf-8"))


def _relative(path, folder):
    if path.startswith("/vsi") or ":" in path and not os.path.exists(path):
        return path  # a virtual file system, a subdataset
    relative = os.path.relpath(os.path.abspath(path), folder).replace(os.sep, "/")
    return relative if relative.startswith("../") else "./" + relative


def _layer(kind, source, name, folder, reference, provider):
    made = "%s_%s" % (kind, str(uuid.uuid5(_NAMESPACE, kind + source)).replace("-", "_"))
    xml = ElementTree.Element(
        "maplayer",
        {
            "type": "vector" if provider == "ogr" else "raster",
            "autoRefreshEnabled": "0",
            "autoRefreshTime": "0",
            "refreshOnNotifyEnabled": "0",
            "hasScaleBasedVisibilityFlag": "0",
            "styleCategories": "AllStyleCategories",
        },
    )
    _Sub(xml, "id").text = made
    _Sub(xml, "datasource").text = source
    _Sub(xml, "layername").text = name
    _crs(_Sub(xml, "srs"), reference)
    _Sub(xml, "provider", {} if provider == "gdal" else {"encoding": "UTF-8"}).text = provider
    return {"kind": kind, "id": made, "name": name, "source": source, "xml": xml, "provider": provider}


def _map(kind, raster, name, folder, path, given):
    layer = _layer(kind, _relative(raster.path, folder), name, folder, raster.reference, "gdal")
    style = os.path.splitext(raster.path)[0] + ".qml"
    found = None
    if os.path.exists(style):
        try:
            found = ElementTree.parse(style).getroot()
        except ElementTree.ParseError as error:
            raise complaint(style, "that it is no XML (%s)" % error, "a QGIS style", "Remove it, or make the map again.") from error
    if found is not None:
        layer["xml"].extend(list(found))
        return layer
    pipe = _Sub(layer["xml"], "pipe")
    legend = raster.legend()
    if kind in ("change", "labels", "sem1", "sem2", "errors"):
        renderer = _Sub(pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1", nodataColor="")
        palette = _Sub(renderer, "colorPalette")
        if legend is None and kind == "errors":
            legend = ERRORS
        elif legend is None:
            values = [v for v in raster.counts().pixels]
            legend = [Entry(v, str(v), PALETTE[k % len(PALETTE)], not (v == 0 and kind == "change")) for k, v in enumerate(values)]
        for e in legend:
            hidden = not e.shown or e.value == 255 or (e.value == 0 and kind in ("errors", "change"))
            _Sub(palette, "paletteEntry", value=str(e.value), label=e.label, color=e.colour, alpha="0" if hidden else "255")
    else:
        values = raster.picture([1], 512)[0].compressed()
        low, high = (
            (0.0, 1.0) if kind in ("probability", "confidence") else tuple(np.percentile(values, [1, 99.5])) if values.size else (0.0, 1.0)
        )
        _ramp(
            pipe,
            float("%.3g" % low),
            float("%.3g" % max(high, low + 1e-6)),
            "inferno" if kind in ("probability", "score", "pvalue") else "viridis",
        )
    return layer


def _ramp(pipe, low, high, colours):
    import matplotlib

    renderer = _Sub(
        pipe,
        "rasterrenderer",
        type="singlebandpseudocolor",
        band="1",
        opacity="1",
        alphaBand="-1",
        nodataColor="",
        classificationMin=repr(low),
        classificationMax=repr(high),
    )
    shader = _Sub(
        _Sub(renderer, "rastershader"),
        "colorrampshader",
        colorRampType="INTERPOLATED",
        classificationMode="1",
        clip="0",
        minimumValue=repr(low),
        maximumValue=repr(high),
        labelPrecision="4",
    )
    for k in range(9):
        colour = "#%02x%02x%02x" % tuple(int(255 * v) for v in matplotlib.colormaps[colours](k / 8)[:3])
        v = low + (high - low) * k / 8
        _Sub(shader, "item", value=repr(v), color=colour, alpha="255", label="%.4g" % v)
    _Sub(
        shader,
        "rampLegendSettings",
        useContinuousLegend="1",
        minimumLabel="",
        maximumLabel="",
        prefix="",
        suffix="",
        direction="0",
        orientation="2",
    )


def _image(kind, raster, name, folder, path, given):
    """A date, drawn with the bands and the stretch of the report."""
    numbers = given.bands or default_bands(raster, given.model)
    source = raster.paths[0]
    if len(raster.paths) > 1:
        # QGIS draws the bands of one file: a virtual one that holds those which are drawn.
        source = os.path.splitext(os.path.abspath(path))[0] + ".%s.vrt" % kind
        _join([raster.origin(n) for n in numbers], source)
        inside = list(range(1, len(numbers) + 1))
    else:
        inside = [raster.origin(n)[1] for n in numbers]
    layer = _layer(kind, _relative(source, folder), name, folder, gdal.Open(source).GetSpatialRef() or raster.reference, "gdal")
    values = raster.picture(numbers, 512)
    stretch = pictures.Stretch([values])
    pipe = _Sub(layer["xml"], "pipe")
    if len(numbers) < 3:
        renderer = _Sub(
            pipe,
            "rasterrenderer",
            type="singlebandgray",
            grayBand=str(inside[0]),
            gradient="BlackToWhite",
            opacity="1",
            alphaBand="-1",
            nodataColor="",
        )
        _contrast(renderer, "contrastEnhancement", stretch.low[0], stretch.high[0])
        return layer
    renderer = _Sub(
        pipe,
        "rasterrenderer",
        type="multibandcolor",
        redBand=str(inside[0]),
        greenBand=str(inside[1]),
        blueBand=str(inside[2]),
        opacity="1",
        alphaBand="-1",
        nodataColor="",
    )
    for k, colour in enumerate(("red", "green", "blue")):
        _contrast(renderer, colour + "ContrastEnhancement", stretch.low[k], stretch.high[k])
    return layer


def _join(origins, path):
    """A virtual file of bands of several files, named relative to it."""
    part = "%s.part-%d.vrt" % (path, os.getpid())
    try:
        gdal.PushErrorHandler("CPLQuietErrorHandler")  # that it takes the first band of each; which one is meant is said below
        try:
            made = gdal.BuildVRT(part, [file for file, _ in origins], separate=True, resolution="highest")
            bands = made.RasterCount
            made.FlushCache()
            made = None
        finally:
            gdal.PopErrorHandler()
        tree = ElementTree.parse(part)
        sources = [s for s in tree.iter() if s.tag in ("ComplexSource", "SimpleSource")]
        if bands != len(origins) or len(sources) != len(origins):
            raise RuntimeError("its bands have different projections")
        for source, (file, number) in zip(sources, origins):
            source.find("SourceBand").text = str(number)
            name = source.find("SourceFilename")
            if os.path.exists(file):
                name.text = os.path.relpath(os.path.abspath(file), os.path.dirname(path))
                name.set("relativeToVRT", "1")
        tree.write(part)
        os.replace(part, path)
    except (RuntimeError, OSError, ElementTree.ParseError) as error:
        if os.path.exists(part):
            os.unlink(part)
        raise complaint(
            "--qgs", 'that "%s" cannot be written (%s)' % (path, error), "bands on one projection, and a folder in which you may write"
        ) from error


def _contrast(renderer, tag, low, high):
    enhancement = _Sub(renderer, tag)
    _Sub(enhancement, "minValue").text = "%.9g" % low
    _Sub(enhancement, "maxValue").text = "%.9g" % max(high, low + 1e-6)
    _Sub(enhancement, "algorithm").text = "StretchToMinimumMaximum"


def _objects(kind, objects, name, folder, path, given):
    source = "%s|layername=%s" % (_relative(objects.path, folder), objects.name)
    layer = _layer(kind, source, name, folder, objects.layer.GetSpatialRef(), "ogr")
    layer["xml"].set("geometry", "Polygon")
    style = objects.style()
    if style is not None:
        try:
            layer["xml"].extend(list(ElementTree.fromstring(style)))
            return layer
        except ElementTree.ParseError:
            pass  # not ours: drawn as below
    renderer = _Sub(layer["xml"], "renderer-v2", type="singleSymbol", symbollevels="0", enableorderby="0", forceraster="0")
    symbol = _Sub(_Sub(renderer, "symbols"), "symbol", type="fill", name="0", alpha="1", clip_to_extent="1", force_rhr="0")
    fill = _Sub(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
    options = _Sub(fill, "Option", type="Map")
    colour = ",".join(map(str, rgb(pictures.OUTLINE)))
    for key, text in (
        ("color", colour + ",90"),
        ("style", "solid"),
        ("joinstyle", "miter"),
        ("outline_color", colour + ",255"),
        ("outline_style", "solid"),
        ("outline_width", "0.4"),
        ("outline_width_unit", "MM"),
    ):
        _Sub(options, "Option", name=key, type="QString", value=text)
        _Sub(fill, "prop", k=key, v=text)
    return layer


def _tree(root, layers, words):
    """Groups of the layer panel: objects and maps above, images below."""
    top = _Sub(root, "layer-tree-group")
    for title, kinds in (("q_maps", [k for k in ORDER if k not in IMAGES]), ("q_images", IMAGES)):
        members = [layer for layer in layers if layer["kind"] in kinds]
        if not members:
            continue
        group = _Sub(top, "layer-tree-group", name=words(title), checked="Qt::Checked", expanded="1")
        for layer in members:
            shown = layer["kind"] in SHOWN
            _Sub(
                group,
                "layer-tree-layer",
                id=layer["id"],
                name=layer["name"],
                source=layer["source"],
                providerKey=layer["provider"],
                checked="Qt::Checked" if shown else "Qt::Unchecked",
                expanded="1" if shown and layer["kind"] not in IMAGES else "0",
                legend_exp="",
                patch_size="-1,-1",
                legend_split_behavior="0",
            )
    custom = _Sub(top, "custom-order", enabled="0")
    for layer in layers:
        _Sub(custom, "item").text = layer["id"]


def _canvas(root, given):
    raster = given.main
    corners = [raster.to_map(c, r) for c in (0, raster.width) for r in (0, raster.height)]
    canvas = _Sub(root, "mapcanvas", name="theMapCanvas", annotationsVisible="1")
    units = "unknown"
    if raster.reference is not None:
        units = (
            "degrees" if raster.reference.IsGeographic() else "meters" if abs(raster.reference.GetLinearUnits() - 1) < 1e-9 else "unknown"
        )
    _Sub(canvas, "units").text = units
    extent = _Sub(canvas, "extent")
    ends = {
        "xmin": min(c[0] for c in corners),
        "ymin": min(c[1] for c in corners),
        "xmax": max(c[0] for c in corners),
        "ymax": max(c[1] for c in corners),
    }
    for tag, end in ends.items():
        _Sub(extent, tag).text = repr(float(end))
    whole = _Sub(
        _Sub(root, "ProjectViewSettings", UseProjectScales="0"), "DefaultViewExtent", {tag: repr(float(end)) for tag, end in ends.items()}
    )
    _crs(whole, raster.reference)
    _Sub(canvas, "rotation").text = "0"
    _crs(_Sub(canvas, "destinationsrs"), raster.reference)


def _crs(parent, reference):
    """What QGIS calls a spatialrefsys; empty where there is none."""
    system = _Sub(parent, "spatialrefsys", nativeFormat="Wkt")
    if reference is None:
        _Sub(system, "wkt").text = ""
        _Sub(system, "authid").text = ""
        return
    authority = reference.GetAuthorityName(None), reference.GetAuthorityCode(None)
    _Sub(system, "wkt").text = reference.ExportToWkt(["FORMAT=WKT2_2019"])
    _Sub(system, "proj4").text = reference.ExportToProj4()
    _Sub(system, "srid").text = authority[1] if all(authority) and authority[0] == "EPSG" else "0"
    _Sub(system, "authid").text = "%s:%s" % authority if all(authority) else ""
    _Sub(system, "description").text = reference.GetName() or ""
    _Sub(system, "geographicflag").text = "true" if reference.IsGeographic() else "false"
