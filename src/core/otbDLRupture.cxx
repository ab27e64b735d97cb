/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLRupture.h"

#include "otbDLError.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>

namespace otb
{
namespace dl
{

namespace
{

constexpr double unusual = 2.;   ///< z of a date that persistence counts
constexpr double furthest = 1e6; ///< |z|, so that sums stay finite
constexpr std::uint32_t tieStream = 0;
constexpr std::uint32_t firstShuffleStream = 1;

/** The middle of what is given, which it sorts. */
double Median(std::vector<double>& values)
{
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return n % 2 ? values[n / 2] : .5 * (values[n / 2 - 1] + values[n / 2]);
}

struct Split
{
  int before = -1;     ///< dates before the shift
  double between = 0.; ///< (difference of means)^2 n1 n2 / n
};

/** The best split of values whose mean is 0: the sums before and after it are opposite, and that before says all. */
Split BestSplit(const std::vector<double>& values)
{
  Split best;
  const int n = static_cast<int>(values.size());
  double sum = 0.;
  for (int i = 1; i <= n - 2; ++i)
  {
    sum += values[i - 1];
    const double between = sum * sum * n / (static_cast<double>(i) * (n - i));
    if (i >= 2 && between > best.between)
    {
      best = {i, between};
    }
  }
  return best;
}

/** Mean time to a false alarm of a CUSUM of standard normal noise (Siegmund, 1985). */
double MeanTimeToAlarm(double drift, double threshold)
{
  const double b = threshold + 1.166;
  const double a = 2. * drift * b;
  return a < 1e-3 ? b * b * (1. + a / 3.) : (std::expm1(a) - a) / (2. * drift * drift);
}

void Require(bool holds, const std::string& name, const std::string& found, const std::string& expected)
{
  if (!holds)
  {
    throw Error(Complaint(name, found, expected, ""));
  }
}

} // namespace

RuptureDetector::RuptureDetector(const RuptureSettings& settings, const KeyedRandom& random) : m_Settings(settings), m_Random(random)
{
  // Comparisons that NaN fails.
  const auto& s = m_Settings;
  Require(s.reference == 0 || s.reference >= 3, "reference", std::to_string(s.reference) + " dates", "3 dates or more, or 0");
  Require(s.drift >= 0. && s.drift <= 100., "drift", std::to_string(s.drift), "0 to 100 standard deviations");
  Require(s.threshold >= 0. && s.threshold < furthest, "threshold", std::to_string(s.threshold), "0 (from the false alarms) or a positive number");
  Require(s.falseAlarms > 0. && s.falseAlarms < 1., "falseAlarms", std::to_string(s.falseAlarms), "a probability above 0 and below 1");
  Require(s.kappa > 0. && s.kappa < 1., "kappa", std::to_string(s.kappa), "a number above 0 and below 1");
  Require(s.persistence >= 0 && s.persistence <= 3, "persistence", std::to_string(s.persistence), "0 to 3 of the last 3 dates");
  Require(s.permutations >= 0, "permutations", std::to_string(s.permutations), "0 or more");
}

double RuptureDetector::Threshold(std::int64_t watched) const
{
  if (m_Settings.threshold > 0.)
  {
    return m_Settings.threshold;
  }
  // An alarm is about as probable on each date as on any other, hence the exponential law.
  const double wanted = -static_cast<double>(std::max<std::int64_t>(watched, 1)) / std::log1p(-m_Settings.falseAlarms);
  double low = 0., high = 1.;
  while (MeanTimeToAlarm(m_Settings.drift, high) < wanted)
  {
    high *= 2.;
  }
  for (int i = 0; i < 50; ++i)
  {
    const double middle = .5 * (low + high);
    (MeanTimeToAlarm(m_Settings.drift, middle) < wanted ? low : high) = middle;
  }
  return high;
}

RuptureResult RuptureDetector::Detect(const std::vector<float>& scores, std::int64_t x, std::int64_t y) const
{
  RuptureResult result;
  std::vector<double> values;
  std::vector<int> dates;
  values.reserve(scores.size());
  dates.reserve(scores.size());
  for (std::size_t t = 0; t < scores.size(); ++t)
  {
    if (std::isfinite(scores[t]))
    {
      values.push_back(scores[t]);
      dates.push_back(static_cast<int>(t));
    }
  }
  const int n = static_cast<int>(values.size());
  result.valid = n;

  // The offline split. The standard deviation is that of all dates, which a shuffle leaves as it is: sums alone are compared.
  double mean = 0.;
  for (const double v : values)
  {
    mean += v;
  }
  mean /= std::max(n, 1);
  std::vector<double> centred(values);
  double squares = 0.;
  for (double& v : centred)
  {
    v -= mean;
    squares += v * v;
  }
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  const Split split = n > 0 && *least < *most ? BestSplit(centred) : Split(); // equal values may lie a little off their mean
  if (split.before > 0)
  {
    result.rupture = dates[split.before - 1];
    result.statistic = static_cast<float>(std::sqrt(split.between / (squares / (n - 1))));
    if (m_Settings.permutations > 0)
    {
      const double reached = split.between * (1. - 1e-9); // the same dates on each side, added in another order
      int count = 1;
      for (int p = 0; p < m_Settings.permutations; ++p)
      {
        std::array<std::uint32_t, 4> words{};
        for (int i = n - 1, drawn = 0; i > 0; --i, ++drawn)
        {
          if (drawn % 4 == 0)
          {
            words = m_Random.Words(x, y, static_cast<std::uint32_t>(drawn / 4), firstShuffleStream + static_cast<std::uint32_t>(p));
          }
          const auto j = static_cast<std::size_t>((std::uint64_t(words[drawn % 4]) * static_cast<std::uint64_t>(i + 1)) >> 32);
          std::swap(centred[i], centred[j]);
        }
        count += BestSplit(centred).between >= reached;
      }
      result.pvalue = static_cast<float>(count) / static_cast<float>(m_Settings.permutations + 1);
    }
  }

  const int reference = m_Settings.reference > 0 ? m_Settings.reference : std::max(6, n / 3);
  if (n < reference + 2)
  {
    return result;
  }
  std::vector<double> sorted(values.begin(), values.begin() + reference);
  const double median = Median(sorted);
  std::vector<double> deviations(sorted);
  for (double& d : deviations)
  {
    d = std::abs(d - median);
  }
  const double scale = std::max({1.4826 * Median(deviations), .05 * std::abs(median), 1e-6});

  const double threshold = Threshold(n - reference), certain = -std::log(m_Settings.falseAlarms);
  double sum = 0., highest = 0., bet = 0., highestBet = 0.;
  int rise = reference; // first date after the last return to 0
  bool recent[3] = {false, false, false};
  for (int i = reference; i < n; ++i)
  {
    const double z = std::clamp((values[i] - median) / scale, -furthest, furthest);
    sum = std::max(0., sum + z - m_Settings.drift);
    highest = std::max(highest, sum);
    recent[i % 3] = z > unusual;
    rise = sum > 0. ? rise : i + 1;
    if (result.alarm < 0 && sum > threshold && recent[0] + recent[1] + recent[2] >= m_Settings.persistence)
    {
      result.alarm = dates[i];
      result.onset = dates[rise];
    }

    const auto lower = std::lower_bound(sorted.begin(), sorted.end(), values[i]);
    const auto upper = std::upper_bound(lower, sorted.end(), values[i]);
    const double u = m_Random.Uniform(x, y, static_cast<std::uint32_t>(dates[i]), tieStream);
    const double p = (static_cast<double>(sorted.end() - upper) + u * static_cast<double>(upper - lower + 1)) / static_cast<double>(sorted.size() + 1);
    bet += std::log(m_Settings.kappa) + (m_Settings.kappa - 1.) * std::log(p);
    highestBet = std::max(highestBet, bet);
    if (result.martingaleAlarm < 0 && bet >= certain)
    {
      result.martingaleAlarm = dates[i];
    }
    sorted.insert(upper, values[i]);
  }
  result.cusum = static_cast<float>(highest);
  result.logMartingale = static_cast<float>(highestBet);
  return result;
}

} // namespace dl
} // namespace otb
