/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLObjectMatches_h
#define otbDLObjectMatches_h

#include "otbDLBlockBootstrap.h"

#include <cstdint>
#include <functional>
#include <string>

namespace otb
{
namespace dl
{

struct ObjectMatchSettings
{
  bool eightConnected = false;
  double minimum = 0.; ///< pixels; smaller objects of either side are left out
  double iou = .5;     ///< of a match; at least 0.5, so that an object has one match at most
  std::int64_t block = 256;
};

/** Objects of a decision and of its reference. */
struct ObjectMatches
{
  std::int64_t predicted = 0;
  std::int64_t reference = 0;
  std::int64_t matched = 0;
  std::int64_t predictedPixels = 0;
  std::int64_t referencePixels = 0;
  std::int64_t matchedPixels = 0; ///< of the reference objects that have a match
  bool areaKnown = false;         ///< the areas, in square metres
  double predictedArea = 0.;
  double referenceArea = 0.;
  double matchedArea = 0.;
  double meanIou = 0.;  ///< of the matches; NaN without any
  BlockTable blocks{3}; ///< predicted, reference, matched objects of each block (by their first pixel, matches by that of the reference)
};

/** Row y of both, width cells each: 1 change, 0 none, -1 no data. */
using ObjectRowVisit = std::function<void(std::int64_t y, const std::int32_t* predicted, const std::int32_t* reference)>;

/** Connected pixels of change on either side, matched where their intersection over union reaches the threshold.
 *
 * Rows are asked for twice, from first to last; memory follows the width and the number of objects.
 * \param forEach calls its argument for every row
 * \param raster on whose grid the rows lie: the size of pixels on the ground; may be empty */
ObjectMatches MatchObjects(std::int64_t width, std::int64_t height, const ObjectMatchSettings& settings, const std::string& raster,
                           const std::function<void(const ObjectRowVisit&)>& forEach);

/** Mean area of the pixels of a raster on the ground, square metres; NaN where its projection does not tell.
 * \throw Error when the file cannot be read */
double MeanPixelArea(const std::string& raster);

} // namespace dl
} // namespace otb

#endif
