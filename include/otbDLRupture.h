/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLRupture_h
#define otbDLRupture_h

#include "otbDLKeyedRandom.h"

#include <cstdint>
#include <vector>

namespace otb
{
namespace dl
{

/** How a series of scores is watched. */
struct RuptureSettings
{
  int reference = 0;        ///< valid dates at the beginning that say what is normal; 0: max(6, a third of them)
  double drift = .5;        ///< k of the CUSUM, in standard deviations
  double threshold = 5.;    ///< h of the CUSUM; 0: from falseAlarms
  double falseAlarms = .01; ///< alpha of the martingale: probability of an alarm over the whole series where nothing happens
  double kappa = .5;        ///< of the bet kappa p^(kappa - 1)
  int persistence = 2;      ///< of the last 3 valid dates, how many must be unusual (z > 2) for an alarm
  int permutations = 199;   ///< for the p-value of the rupture; 0: none
};

/** What a pixel's series says. Dates are indices into the series, -1: none. */
struct RuptureResult
{
  int valid = 0;         ///< dates with data
  int rupture = -1;      ///< last valid date before the mean shifts (offline, best single split)
  float statistic = 0.f; ///< of that split: |difference of means| sqrt(n1 n2 / n) / standard deviation
  float pvalue = 1.f;    ///< of the statistic, by keyed permutations
  int alarm = -1;        ///< date of the first alarm of the CUSUM
  int onset = -1;        ///< date after the last return to 0 before that alarm
  float cusum = 0.f;     ///< highest value
  int martingaleAlarm = -1;
  float logMartingale = 0.f; ///< natural logarithm, highest
};

/** \class RuptureDetector
 * \brief Finds when a series of scores of one pixel leaves what is normal: CUSUM, offline split, anytime-valid martingale (Ville).
 *
 * Scores: larger means more unusual; NaN: no data, which leaves every state as it is. Stateless and thread-safe.
 * \ingroup OTBTorch
 */
class RuptureDetector
{
public:
  RuptureDetector(const RuptureSettings& settings, const KeyedRandom& random);

  /** \param scores one a date, in order of time
   * \param x, y the pixel, for permutations */
  RuptureResult Detect(const std::vector<float>& scores, std::int64_t x, std::int64_t y) const;

private:
  RuptureSettings m_Settings;
  KeyedRandom m_Random;
};

} // namespace dl
} // namespace otb

#endif
