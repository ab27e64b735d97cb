/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLAreaEstimate_h
#define otbDLAreaEstimate_h

#include "otbDLChangeMetrics.h"

#include <cstdint>
#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** A sample drawn from the strata of a map and labelled: strata are the classes of the map. */
struct StratifiedSample
{
  std::vector<int> classes;                     ///< of map and reference, the strata first
  std::vector<double> mapped;                   ///< size of each stratum, pixels
  std::vector<std::vector<std::int64_t>> count; ///< [stratum][class of the reference]
};

/** A figure with its standard error and the half width of its 95 % interval (1.96 standard errors); NaN: undefined. */
struct Estimate
{
  double value = 0.;
  double error = 0.;
  double half = 0.;
};

/** Accuracies and areas corrected for the errors of the map (Olofsson et al., 2014, equations 4 to 11). */
struct AreaEstimates
{
  Estimate overall;
  std::vector<Estimate> users;                  ///< of each stratum
  std::vector<Estimate> producers;              ///< of each class
  std::vector<Estimate> area;                   ///< of each class, pixels
  std::vector<std::vector<double>> proportions; ///< [stratum][class]: estimated share of the whole area
};

/** A stratum of one point has no variance: what needs it has no error (NaN). One without points makes everything undefined but the user's accuracies of the
 * others. Finite population corrections are left out, as in the paper. */
AreaEstimates EstimateAreas(const StratifiedSample& sample);

enum class Allocation
{
  Proportional,
  Equal
};

/** How many points each stratum gets: in all `total`, none more than its pixels, each at least `least` where it has as many. Remainders go to the largest
 * fractions, the first stratum first where they are equal. */
std::vector<std::int64_t> AllocateSample(const std::vector<std::int64_t>& pixels, std::int64_t total, Allocation allocation, std::int64_t least);

} // namespace dl
} // namespace otb

#endif
