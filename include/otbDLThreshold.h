/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLThreshold_h
#define otbDLThreshold_h

#include <cstdint>
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

  std::int64_t Total() const;
  double Width() const { return (high - low) / static_cast<double>(counts.size()); }
  /** Upper edge of a bin. */
  double Edge(std::size_t bin) const { return low + Width() * static_cast<double>(bin + 1); }
};

enum class ThresholdRule
{
  Auto,   ///< Rosin where the histogram is unimodal (separation of the two Gaussians below 1), else EM
  Rosin,  ///< unimodal, longest distance to the chord from peak to tail (Rosin, 2001)
  Em,     ///< where two Gaussians fitted by expectation-maximisation cross (Bruzzone and Prieto, 2000)
  Otsu,   ///< 1979
  Kapur,  ///< maximum entropy (1985)
  Kittler ///< minimum error (Kittler and Illingworth, 1986)
};

/** A threshold and how it came about. Change is above it. */
struct ThresholdChoice
{
  double threshold = 0.;
  ThresholdRule rule = ThresholdRule::Rosin; ///< never Auto
  double separation = 0.;                    ///< |m2 - m1| / (s1 + s2) of the two Gaussians; 0 unless they were fitted
  std::string reason;                        ///< a sentence for the log
};

/** The upper edge of the last bin of no change, or where the Gaussians cross (Em). Counts alone decide, so the answer is the same on every machine and scale.
 *
 * Otsu is ITK's. Kapur and Kittler are searched over all bins: ITK's (4.13) read out of bounds where every split has the same entropy (two occupied bins),
 * count in 32 bits, and do not end on two halves of equal variance.
 *
 * Rosin without a tail above the peak, and Em without a crossing above the lower mean, give way to another rule; \a rule and \a reason say so.
 * \throw Error for a histogram without two occupied bins, or that cannot be one */
ThresholdChoice ChooseThreshold(const ScoreHistogram& histogram, ThresholdRule rule);

const char* ToString(ThresholdRule rule);

} // namespace dl
} // namespace otb

#endif
