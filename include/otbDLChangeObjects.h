/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLChangeObjects_h
#define otbDLChangeObjects_h

#include "otbDLLegend.h"

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** How a map of change becomes polygons. */
struct ObjectSettings
{
  double minimumArea = 0.; ///< objects below it are dropped, in square metres, or pixels when minimumInPixels
  bool minimumInPixels = true;
  double fill = 0.;     ///< holes up to this area (same unit) are filled
  int opening = 0;      ///< radius of the morphological opening, pixels (OpenCV, a disk)
  double simplify = 0.; ///< tolerance in pixels; borders shared by neighbours stay shared
  bool eightConnected = false;
  std::map<std::string, std::string> attributes;    ///< written into every object: date1, date2, model
  std::vector<std::pair<int, std::string>> classes; ///< names of class values, for from/to
  Legend legend;                                    ///< of the codes: the style in which QGIS shows the layer; of a kind other than Classes: none
  std::size_t memory = std::size_t(64) << 20;       ///< for the rows in hand; GDAL's cache of blocks comes on top, as the program has set it
};

/** What became of it. */
struct ObjectReport
{
  std::int64_t objects = 0;
  std::int64_t tooSmall = 0;
  std::int64_t holesFilled = 0;
  std::int64_t notSimplified = 0; ///< kept all their corners, as the simplified polygon would have been invalid
};

/** \brief Writes a GeoPackage of the changes of a finished map.
 *
 * Every maximal set of connected pixels that hold one code (not 0, not no-data) is an object. In this order: codes are opened (each by itself; neither the
 * border of the image nor the way rows are read matters), holes filled, and what then is below the minimum dropped. A hole is a maximal set of pixels of 0 that
 * reaches neither the border of the image nor no-data, all of whose neighbours are of one object (connected at corners too where objects are not, and the other
 * way round); an island in it is another object, so such a hole stays, and so does one that a dropped object leaves.
 *
 * The layer "changes" has a polygon an object (a multipolygon an object when eightConnected) and these fields:
 * - id, also the fid: 1.. in the order of first pixels, row by row; code
 * - from, to, from_id, to_id, for a from-to map: name and value of the classes, or their positions when no names are given
 * - area_px; area_m2: square metres from the unit of a projection, on the ellipsoid row by row for longitude and latitude, else null
 * - perimeter: of the pixels' edges, around holes too: metres where area_m2 is known, else edges
 * - mean_ and max_ of the score, over pixels that have one; null where none has
 * - compactness: 4 pi area_px / edges^2, pi/4 for a square
 * - the attributes given, as text
 *
 * With a legend, the table "layer_styles" holds a style of the codes that are there, which QGIS takes by default.
 *
 * An image without geotransform gives x and -y in pixels, which is where QGIS shows it.
 *
 * Simplified borders are shared where they were, except around an object that would become invalid and keeps all its corners. Areas remain those of pixels.
 *
 * Rows are streamed twice: memory follows the width of the image, the objects kept and (4 bytes each) all sets of pixels found, not its area; the result
 * depends on the files' pixels alone. A raster of labels lies beside the output meanwhile.
 *
 * \param map file of the change map, its first band: 0 no change, its declared no-data, any other value a code
 * \param score file of the probability or score of the same grid; empty: none
 * \param scoreName its column: "proba" or "score"
 * \param numberOfClasses of a from-to map (code = 1 + i K + j); 0: binary
 * \param output .gpkg, or .shp with the style in a .qml beside it; written under a temporary name and renamed
 * \param progress told 0..1; may throw to stop
 * \throw Error */
ObjectReport WriteChangeObjects(const std::string& map, const std::string& score, const std::string& scoreName, int numberOfClasses, const std::string& output,
                                const ObjectSettings& settings, const std::function<void(double)>& progress);

} // namespace dl
} // namespace otb

#endif
