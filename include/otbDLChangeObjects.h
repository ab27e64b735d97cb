/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLChangeObjects_h
#define otbDLChangeObjects_h

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
  std::size_t memory = std::size_t(64) << 20;
};

/** What became of it. */
struct ObjectReport
{
  std::int64_t objects = 0;
  std::int64_t tooSmall = 0;
  std::int64_t holesFilled = 0;
};

/** \brief Writes a GeoPackage of the changes of a finished map.
 *
 * Every maximal set of connected pixels that hold one code (not 0, not no-data) is an object with: id, area_px, area (square metres where the grid tells),
 * perimeter, compactness (4 pi area / perimeter^2), code, from and to (semantic maps), mean and max of the score, and the attributes given. Rows are streamed,
 * so memory follows the width of the image and the number of objects, not its area, and the result depends on the files alone.
 *
 * \param map file of the change map: 0 no change, its declared no-data, any other value a code
 * \param score file of the probability or score of the same grid; empty: none
 * \param scoreName its column: "proba" or "score"
 * \param numberOfClasses of a from-to map (code = 1 + i K + j); 0: binary
 * \param output .gpkg; written under a temporary name and renamed
 * \param progress told 0..1; may throw to stop
 * \throw Error */
ObjectReport WriteChangeObjects(const std::string& map, const std::string& score, const std::string& scoreName, int numberOfClasses, const std::string& output,
                                const ObjectSettings& settings, const std::function<void(double)>& progress);

} // namespace dl
} // namespace otb

#endif
