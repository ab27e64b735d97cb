/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLAreaEstimate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace otb
{
namespace dl
{

namespace
{
constexpr double undefined = std::numeric_limits<double>::quiet_NaN();

Estimate Make(double value, double variance)
{
  const double error = std::sqrt(variance);
  return {value, error, 1.96 * error};
}
} // namespace

AreaEstimates EstimateAreas(const StratifiedSample& sample)
{
  const std::size_t strata = sample.mapped.size(), classes = sample.classes.size();
  const double total = std::accumulate(sample.mapped.begin(), sample.mapped.end(), 0.);
  std::vector<double> n(strata, 0.);
  std::vector<std::vector<double>> share(strata, std::vector<double>(classes, undefined));
  AreaEstimates e;
  e.proportions = share;
  for (std::size_t h = 0; h < strata; ++h)
  {
    n[h] = static_cast<double>(std::accumulate(sample.count[h].begin(), sample.count[h].end(), std::int64_t(0)));
    for (std::size_t j = 0; j < classes && n[h] > 0.; ++j)
    {
      share[h][j] = static_cast<double>(sample.count[h][j]) / n[h];
      e.proportions[h][j] = sample.mapped[h] / total * share[h][j];
    }
  }
  /** Variance of a share of a stratum. */
  const auto variance = [&](std::size_t h, std::size_t j) { return n[h] > 1. ? share[h][j] * (1. - share[h][j]) / (n[h] - 1.) : undefined; };
  double overall = 0., overallVariance = 0.;
  for (std::size_t h = 0; h < strata; ++h)
  {
    const double weight = sample.mapped[h] / total;
    e.users.push_back(Make(share[h][h], variance(h, h)));
    overall += weight * share[h][h];
    overallVariance += weight * weight * variance(h, h);
  }
  e.overall = Make(overall, overallVariance);
  for (std::size_t j = 0; j < classes; ++j)
  {
    double area = 0., areaVariance = 0.;
    for (std::size_t h = 0; h < strata; ++h)
    {
      area += sample.mapped[h] * share[h][j];
      areaVariance += sample.mapped[h] * sample.mapped[h] * variance(h, j);
    }
    e.area.push_back(Make(area, areaVariance));
    // Equation 7.
    const double right = j < strata ? sample.mapped[j] * share[j][j] : 0.;
    const double accuracy = area > 0. ? right / area : undefined;
    double sum = j < strata ? sample.mapped[j] * sample.mapped[j] * (1. - accuracy) * (1. - accuracy) * variance(j, j) : 0.;
    for (std::size_t h = 0; h < strata; ++h)
    {
      sum += h == j ? 0. : accuracy * accuracy * sample.mapped[h] * sample.mapped[h] * variance(h, j);
    }
    e.producers.push_back(Make(accuracy, sum / (area * area)));
  }
  return e;
}

std::vector<std::int64_t> AllocateSample(const std::vector<std::int64_t>& pixels, std::int64_t total, Allocation allocation, std::int64_t least)
{
  const std::size_t strata = pixels.size();
  std::vector<std::int64_t> sizes(strata, 0);
  for (std::size_t h = 0; h < strata; ++h)
  {
    sizes[h] = std::min(pixels[h], least);
  }
  // What is left is shared out among the strata that fall short of their share, and again while strata are exhausted.
  for (;;)
  {
    std::int64_t left = total - std::accumulate(sizes.begin(), sizes.end(), std::int64_t(0));
    double weight = 0.;
    std::vector<std::size_t> open;
    // A stratum that has its least or more than its share already takes no part.
    const double all =
        allocation == Allocation::Equal ? static_cast<double>(strata) : static_cast<double>(std::accumulate(pixels.begin(), pixels.end(), std::int64_t(0)));
    const auto want = [&](std::size_t h) { return static_cast<double>(total) * (allocation == Allocation::Equal ? 1. : static_cast<double>(pixels[h])) / all; };
    for (std::size_t h = 0; h < strata; ++h)
    {
      if (sizes[h] < pixels[h] && static_cast<double>(sizes[h]) < want(h))
      {
        open.push_back(h);
      }
    }
    if (open.empty())
    {
      for (std::size_t h = 0; h < strata; ++h)
      {
        if (sizes[h] < pixels[h])
        {
          open.push_back(h);
        }
      }
    }
    if (left <= 0 || open.empty())
    {
      return sizes;
    }
    for (const auto h : open)
    {
      weight += std::max(want(h) - static_cast<double>(sizes[h]), 1e-9);
    }
    std::vector<std::pair<double, std::size_t>> fractions;
    const std::int64_t before = left;
    for (const auto h : open)
    {
      const double part = static_cast<double>(before) * std::max(want(h) - static_cast<double>(sizes[h]), 1e-9) / weight;
      const auto whole = std::min(static_cast<std::int64_t>(std::floor(part + 1e-9)), pixels[h] - sizes[h]);
      fractions.emplace_back(-(part - std::floor(part + 1e-9)), h);
      sizes[h] += whole;
      left -= whole;
    }
    std::stable_sort(fractions.begin(), fractions.end());
    for (const auto& f : fractions)
    {
      if (left > 0 && sizes[f.second] < pixels[f.second])
      {
        ++sizes[f.second];
        --left;
      }
    }
  }
}

} // namespace dl
} // namespace otb
