/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLScoreHistogram_h
#define otbDLScoreHistogram_h

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** \brief Integer counts of a score in equal bins: the same whatever the order in which pixels came. */
struct ScoreHistogram
{
  double low = 0.;
  double high = 1.;
  std::vector<std::int64_t> counts;

  std::int64_t Total() const { return std::accumulate(counts.begin(), counts.end(), std::int64_t(0)); }
  double Width() const { return (high - low) / static_cast<double>(counts.size()); }
  /** Upper edge of a bin. */
  double Edge(std::size_t bin) const { return low + Width() * static_cast<double>(bin + 1); }
};

enum class ThresholdRule
{
  Auto,      ///< Deviation where the histogram is unimodal (separation of the two Gaussians below 1), else Em
  Deviation, ///< 2.5 standard deviations above the mean: where change is rare (Singh, 1989)
  Rosin,     ///< unimodal, longest distance to the chord from peak to tail (Rosin, 2001)
  Em,        ///< where two Gaussians fitted by expectation-maximisation cross (Bruzzone and Prieto, 2000)
  Otsu,      ///< 1979
  Kapur,     ///< maximum entropy (1985)
  Kittler    ///< minimum error (Kittler and Illingworth, 1986)
};

/** A threshold and how it came about. Change is above it. */
struct ThresholdChoice
{
  double threshold = 0.;
  ThresholdRule rule = ThresholdRule::Rosin; ///< never Auto
  double separation = 0.;                    ///< |m2 - m1| / (s1 + s2) of the two Gaussians; 0 unless they were fitted
  std::string reason;                        ///< a sentence for the log
};

} // namespace dl
} // namespace otb

#endif
