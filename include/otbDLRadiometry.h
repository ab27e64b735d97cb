/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLRadiometry_h
#define otbDLRadiometry_h

#include "otbDLPairStatistics.h"

#include <cstdint>
#include <vector>

namespace otb
{
namespace dl
{

/** Correlation of a band over the invariant pixels below which it is not matched: the regressions of either date on the other, between which the truth lies,
 * have gains that differ by 1 / correlation^2. */
constexpr double leastRadiometricCorrelation = .9;

/** How a band of date 2 becomes what date 1 would have seen: gain * x + offset. */
struct RadiometricBand
{
  double gain = 1.;
  double offset = 0.;
  double correlation = 0.; ///< of the two dates over the invariant pixels
  bool matched = false;    ///< else the dates had too little in common in this band, and it is left as it is
};

struct RadiometricMatch
{
  std::vector<RadiometricBand> bands;
  std::int64_t invariant = 0; ///< pixels that did not change
  std::int64_t valid = 0;     ///< pixels looked at
};

/** Fits the radiometry of date 2 to that of date 1: on pixels that very likely did not change (no-change probability of IR-MAD above 0.95), an orthogonal
 * regression of each band.
 *
 * Looks at about 256 cells of 256 x 256 pixels, drawn by their place; sums go in a fixed order: the result depends on the scene alone, neither on memory nor on
 * threads.
 * \param scene the same bands on both dates, in the same order
 * \throw Error when the dates have different numbers of bands
 * Source: Canty and Nielsen, Remote Sensing of Environment 112 (2008) 1025-1036.
 * \ingroup OTBTorch
 */
RadiometricMatch MatchRadiometry(const PairScene& scene, const SceneScore::Progress& progress = {});

/** Joins a match and a band's scaling: of a raw value x of date 2 the result makes what `scaling` makes of gain * x + offset. \pre band.gain > 0 */
BandScaling Matched(const BandScaling& scaling, const RadiometricBand& band);

} // namespace dl
} // namespace otb

#endif
