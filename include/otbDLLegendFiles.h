/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLLegendFiles_h
#define otbDLLegendFiles_h

#include "otbDLLegend.h"

#include <string>

namespace otb
{
namespace dl
{

/** \brief The QGIS style (QML) of a raster: paletted for classes, single-band pseudocolour for a ramp.
 * \param legend of a kind other than None
 * \return XML; characters that XML cannot hold are left out of labels */
std::string RasterStyle(const Legend& legend);

/** \brief The QGIS style (QML) of a layer of polygons.
 *
 * One symbol a class by the number in `field`; entries that are not seen (alpha 0) have none. A legend of one class that is seen gives one symbol for all. */
std::string PolygonStyle(const Legend& legend, const std::string& field);

/** \brief Puts the classes of a legend into a finished image of one band: colour table, category names, raster attribute table (Value, Name, Red, Green, Blue,
 * Alpha).
 *
 * Pixels and no-data stay as they are. Where a format or a pixel type cannot hold one of the three, the others are written; a file that GDAL cannot change
 * gets names and table in GDAL's side file (.aux.xml), which is where a TIFF has them too. A colour table, in TIFF of 8 and of 16 unsigned bits, costs 1.5 and
 * 384 KiB. Category names are written where values are below 4096: GDAL lists them from 0.
 * A legend that is none of classes writes nothing, and so does an image of several bands.
 * \throw Error when a TIFF cannot be changed (a full disk) */
void WriteLegend(const Legend& legend, const std::string& path);

} // namespace dl
} // namespace otb

#endif
