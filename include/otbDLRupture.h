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
  int persistence = 2;      ///< of the last 3 valid dates, how many must be unusual (z > 2) for an alarm of the CUSUM; 0: no such rule
  int permutations = 199;   ///< for the p-value of the rupture; 0: none
};

/** What a pixel's series says. Dates are indices into the series, -1: none. */
struct RuptureResult
{
  int valid = 0;         ///< dates with data
  int rupture = -1;      ///< last valid date before the mean shifts (offline, best single split)
  float statistic = 0.f; ///< of that split: |difference of means| sqrt(n1 n2 / n) / standard deviation of all valid dates; 0: no split
  float pvalue = 1.f;    ///< of the statistic, by keyed permutations
  int alarm = -1;        ///< date of the first alarm of the CUSUM
  int onset = -1;        ///< first valid date after the last return to 0 before that alarm
  float cusum = 0.f;     ///< highest value
  int martingaleAlarm = -1;
  float logMartingale = 0.f; ///< natural logarithm, highest
};

/** \class RuptureDetector
 * \brief Finds when a series of scores of one pixel leaves what is normal: CUSUM, offline split, anytime-valid martingale (Ville).
 *
 * Scores: larger means more unusual; NaN and infinities: no data, which leaves every state as it is. Stateless and thread-safe. No result is NaN.
 *
 * - The first R valid dates are the reference. z = (score - median) / max(1.4826 MAD, |median| / 20, 1e-6): the lower bounds keep a reference of equal scores
 *   from making every later one infinitely unusual. Where fewer than R + 2 dates are valid there is no alarm.
 * - CUSUM: S = max(0, S + z - k) from the first date after the reference, alarm when S > h and `persistence` of the last 3 dates watched have z > 2, so that
 * one cloud that was missed raises none. With h = 0, h is where Siegmund's (1985) mean time to a false alarm, (exp(2kb) - 1 - 2kb) / 2k^2 with b = h + 1.166,
 * makes an alarm among the m dates watched as probable as `falseAlarms`: -m / log(1 - falseAlarms). That, and the mean of 930 dates to a false alarm with k =
 * .5 and h = 5, hold where mean and standard deviation are known. The median and MAD of few dates are not that exact: of series of Gaussian noise watched for
 * 60 dates, .06 would raise an alarm; with R = 6, 12, 30, 100 it is .46, .35, .21, .12 without persistence and .35, .23, .09, .03 with 2 of 3. Where a
 * guarantee is wanted, it is the martingale's.
 * - Onset: noise may have lifted S off 0 before the shift, so that onset comes some dates early; the split is the better date.
 * - Split: at least 2 dates on either side. The p-value counts shuffles of all valid dates, keyed on the pixel.
 * - Martingale: of each date after the reference, p is its rank among *all* valid dates up to it, ties and the rank itself broken by keyed uniforms: these p
 * are exactly uniform and independent while dates are exchangeable (Vovk et al., 2005), hence P(M ever >= 1 / falseAlarms) <= falseAlarms (Ville). Ranks in the
 *   reference alone would not do: all p share its luck. With a reference of 12 of 36 dates they alarm 3 times as often as falseAlarms = .01 allows.
 * \ingroup OTBTorch
 */
class RuptureDetector
{
public:
  /** \throw Error for settings out of range */
  RuptureDetector(const RuptureSettings& settings, const KeyedRandom& random);

  /** \param scores one a date, in order of time
   * \param x, y the pixel, for permutations and ties */
  RuptureResult Detect(const std::vector<float>& scores, std::int64_t x, std::int64_t y) const;

  /** h of the CUSUM where so many dates are watched. */
  double Threshold(std::int64_t watched) const;

private:
  RuptureSettings m_Settings;
  KeyedRandom m_Random;
};

} // namespace dl
} // namespace otb

#endif
