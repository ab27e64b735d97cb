/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLPairShift_h
#define otbDLPairShift_h

#include "otbDLSceneScore.h"

#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** How the shift of a pair is estimated. */
struct ShiftSettings
{
  int windows = 64;     ///< at most
  double minValid = .9; ///< share of a window's pixels that must have data on both dates
  double minAgree = .5; ///< share of the windows with a clear peak that must lie within a pixel of the shift
};

/** A global shift: what is at pixel p on date 1 is at p + (x, y) on date 2, x to the right, y downward. */
struct ShiftEstimate
{
  bool measured = false;
  double x = 0.;
  double y = 0.;
  double confidence = 0.; ///< median height of the peaks that agree, 0..1: 1 for a pure translation
  double spread = 0.;     ///< median distance of their shifts from (x, y), pixels
  int agreeing = 0;       ///< windows within a pixel of (x, y)
  int clear = 0;          ///< windows with a clear peak
  int windows = 0;        ///< looked at, those without data included
  int side = 0;           ///< of a window, pixels

  /** "0.71 px right, 1.29 px up" */
  std::string Direction() const;

  /** Length, pixels. */
  double Length() const;
};

/** Estimates how far two dates are apart: the weighted median over windows that lie evenly over the scene of the peak of their phase correlation.
 *
 * A window is 256 pixels wide (128, 64 or 32 in small images), each date in it the length of the gradient of its standardised bands, under a Hann window. The
 * whitened cross-spectrum is weighted by a Gaussian of one pixel before it is transformed back, and the peak is that of a parabola through the logarithm of its
 * neighbours: high frequencies hold noise and what resampling left on the pixel grid, which draw an unweighted peak, or its centroid, to whole pixels. Beyond a
 * pixel the windows of date 2 are moved by whole pixels and measured again.
 *
 * Dates may have different bands. Depends on the scene alone, neither on memory nor on threads.
 * \param reader of two images, date 1 and date 2
 * \param progress share done, 0..1
 * Source: Kuglin and Hines, ICCS 1975 (phase correlation); Foroosh et al., IEEE TIP 11(3), 2002 (peaks between pixels).
 * \ingroup OTBTorch
 */
ShiftEstimate EstimateShift(SceneReader& reader, const ShiftSettings& settings, const SceneScore::Progress& progress = {});

} // namespace dl
} // namespace otb

#endif
