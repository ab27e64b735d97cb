/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLBlockBootstrap.h"

#include "otbDLKeyedRandom.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>

namespace otb
{
namespace dl
{

namespace
{
constexpr std::uint32_t bootstrapTag = 0x626f6f74u;

double NormalDistribution(double z)
{
  return .5 * std::erfc(-z / std::sqrt(2.));
}

/** Of sorted values, interpolated between the two nearest (numpy's default). */
double SortedQuantile(const std::vector<double>& values, double q)
{
  const double place = std::clamp(q, 0., 1.) * static_cast<double>(values.size() - 1);
  const auto low = static_cast<std::size_t>(place);
  const auto high = std::min(low + 1, values.size() - 1);
  return values[low] + (place - static_cast<double>(low)) * (values[high] - values[low]);
}

/** Variance of a sum of influences of blocks with the covariances of neighbours, over that without; at least 1. */
double Inflation(const std::vector<double>& influence, const std::vector<std::vector<std::pair<std::size_t, double>>>& neighbours)
{
  double alone = 0., together = 0.;
  for (std::size_t b = 0; b < influence.size(); ++b)
  {
    alone += influence[b] * influence[b];
    for (const auto& [other, weight] : neighbours[b])
    {
      together += weight * influence[b] * influence[other];
    }
  }
  return alone > 0. ? std::max(1., 1. + together / alone) : 1.;
}

std::vector<std::vector<std::pair<std::size_t, double>>> NeighboursOf(const std::vector<BlockTable::Place>& places)
{
  std::map<std::array<std::int64_t, 3>, std::size_t> at;
  for (std::size_t b = 0; b < places.size(); ++b)
  {
    at[{places[b].map, places[b].y, places[b].x}] = b;
  }
  std::vector<std::vector<std::pair<std::size_t, double>>> neighbours(places.size());
  for (std::size_t b = 0; b < places.size(); ++b)
  {
    for (int dy = -1; dy <= 1; ++dy)
    {
      for (int dx = -1; dx <= 1; ++dx)
      {
        const auto found = at.find({places[b].map, places[b].y + dy, places[b].x + dx});
        if ((dx != 0 || dy != 0) && found != at.end())
        {
          neighbours[b].emplace_back(found->second, dx != 0 && dy != 0 ? .5625 : .75);
        }
      }
    }
  }
  return neighbours;
}
} // namespace

double NormalQuantile(double p)
{
  // Bisection, as the distribution is monotone: slow, exact, and called twice a figure.
  double low = -40., high = 40.;
  for (int k = 0; k < 200 && high - low > 1e-14 * (1. + std::abs(low)); ++k)
  {
    const double middle = .5 * (low + high);
    (NormalDistribution(middle) < p ? low : high) = middle;
  }
  return .5 * (low + high);
}

void BlockTable::Add(const BlockTable& other)
{
  const auto offset = m_Entries.size();
  m_Entries.insert(m_Entries.end(), other.m_Entries.begin(), other.m_Entries.end());
  for (std::size_t k = 1; k < other.m_Start.size(); ++k)
  {
    m_Start.push_back(offset + other.m_Start[k]);
  }
  const std::int64_t maps = m_Places.empty() ? 0 : m_Places.back().map + 1;
  for (auto place : other.m_Places)
  {
    place.map += maps;
    m_Places.push_back(place);
  }
}

std::vector<Interval> BootstrapIntervals(const BlockTable& blocks, const BlockStatistic& statistic, const BootstrapSettings& settings)
{
  const std::size_t n = blocks.Blocks();
  std::vector<double> sums(blocks.Width(), 0.);
  for (std::size_t b = 0; b < n; ++b)
  {
    blocks.AddTo(b, 1., sums);
  }
  const auto whole = statistic(sums);
  const double none = std::numeric_limits<double>::quiet_NaN();
  std::vector<Interval> intervals(whole.size(), {none, none});
  if (n < 2 || settings.draws < 1)
  {
    return intervals;
  }
  const KeyedRandom random(settings.seed, bootstrapTag);
  std::vector<std::vector<double>> draws(whole.size());
  std::vector<std::uint32_t> times(n);
  for (int d = 0; d < settings.draws; ++d)
  {
    std::fill(times.begin(), times.end(), 0u);
    for (std::size_t k = 0; k < n; k += 4)
    {
      const auto words = random.Words(static_cast<std::int64_t>(k / 4), d, 0, 0);
      for (std::size_t j = 0; j < std::min<std::size_t>(4, n - k); ++j)
      {
        ++times[static_cast<std::size_t>((static_cast<std::uint64_t>(words[j]) * n) >> 32)];
      }
    }
    std::fill(sums.begin(), sums.end(), 0.);
    for (std::size_t b = 0; b < n; ++b)
    {
      if (times[b] > 0)
      {
        blocks.AddTo(b, times[b], sums);
      }
    }
    const auto values = statistic(sums);
    for (std::size_t m = 0; m < values.size(); ++m)
    {
      if (!std::isnan(values[m]))
      {
        draws[m].push_back(values[m]);
      }
    }
  }
  // Without each block in turn.
  std::vector<std::vector<double>> without(whole.size());
  std::vector<double> all(blocks.Width(), 0.);
  for (std::size_t b = 0; b < n; ++b)
  {
    blocks.AddTo(b, 1., all);
  }
  for (std::size_t b = 0; b < n; ++b)
  {
    // Counts are whole numbers: what is taken away comes back exactly.
    blocks.AddTo(b, -1., all);
    const auto values = statistic(all);
    blocks.AddTo(b, 1., all);
    for (std::size_t m = 0; m < values.size(); ++m)
    {
      without[m].push_back(values[m]);
    }
  }
  const auto neighbours = NeighboursOf(blocks.Places());
  const double z = NormalQuantile(.5 + .5 * settings.level);
  for (std::size_t m = 0; m < whole.size(); ++m)
  {
    auto& values = draws[m];
    if (std::isnan(whole[m]) || static_cast<double>(values.size()) < .9 * settings.draws)
    {
      continue;
    }
    std::sort(values.begin(), values.end());
    if (values.front() == values.back())
    {
      intervals[m] = {values.front(), values.front()};
      continue;
    }
    const auto below = std::lower_bound(values.begin(), values.end(), whole[m]), above = std::upper_bound(below, values.end(), whole[m]);
    const double count = static_cast<double>(values.size());
    // Draws that equal the figure count half; never all on one side.
    const double share = (static_cast<double>(below - values.begin()) + .5 * static_cast<double>(above - below)) / count;
    const double bias = NormalQuantile(std::clamp(share, .5 / count, 1. - .5 / count));
    double mean = 0., defined = 0., square = 0., cube = 0.;
    for (const double v : without[m])
    {
      mean += std::isnan(v) ? 0. : v;
      defined += std::isnan(v) ? 0. : 1.;
    }
    mean /= defined;
    auto& influence = without[m];
    for (double& v : influence)
    {
      v = std::isnan(v) ? 0. : mean - v;
      square += v * v;
      cube += v * v * v;
    }
    const double acceleration = square > 0. ? cube / (6. * std::pow(square, 1.5)) : 0.;
    const auto at = [&](double quantile)
    {
      const double shifted = bias + quantile;
      const double stretch = 1. - acceleration * shifted;
      return SortedQuantile(values, stretch > 0. ? NormalDistribution(bias + shifted / stretch) : (shifted > 0. ? 1. : 0.));
    };
    const double wider = std::sqrt(Inflation(influence, neighbours));
    intervals[m] = {whole[m] - wider * (whole[m] - at(-z)), whole[m] + wider * (at(z) - whole[m])};
  }
  return intervals;
}

} // namespace dl
} // namespace otb
