/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLEvaluationSample_h
#define otbDLEvaluationSample_h

#include "otbDLEvaluation.h"

#include "otbDLAreaEstimate.h"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace otb
{
namespace Wrapper
{

/** How a sample is drawn from the strata of a map: its values. */
struct SamplePlan
{
  std::int64_t total = 500;
  dl::Allocation allocation = dl::Allocation::Proportional;
  std::int64_t least = 2;
  std::map<int, std::int64_t> sizes; ///< of each stratum; empty: by the three above
  std::uint32_t seed = 0;
};

struct SampleStratum
{
  int value = 0;
  std::string name;
  std::int64_t pixels = 0;
  std::int64_t points = 0;
};

struct SamplePoint
{
  std::uint64_t rank = 0;  ///< random: a stratum takes its least ones
  std::uint64_t order = 0; ///< random: points are numbered in it
  std::int64_t x = 0;
  std::int64_t y = 0;
  float reference = 0.f; ///< NaN: not labelled
};

struct DrawnSample
{
  std::vector<SampleStratum> strata;               ///< by value
  std::vector<std::pair<int, SamplePoint>> points; ///< stratum's position, in the order in which they are numbered
};

/** Draws without replacement, each pixel of a stratum as likely as any other. Ranks are keyed by place: the sample depends on map and seed alone.
 * \throw dl::Error for maps of too many or of fractional values */
DrawnSample DrawSample(PairEvaluation& pair, const SamplePlan& plan, const PairEvaluation::Progress& progress);

/** Writes a GeoPackage: layer "sample" of points (id, stratum, name, column, row, weight in pixels, reference), table "strata" (stratum, name, pixels, area_m2,
 * points). */
void WriteSample(const std::string& file, const DrawnSample& sample, const EvaluationReader& grid, double pixelArea);

/** A labelled sample that was read back. */
struct LabelledSample
{
  dl::StratifiedSample sample;
  std::vector<std::string> names; ///< of its classes
  double pixelArea = 0.;          ///< square metres; NaN: unknown
  std::int64_t labelled = 0;
  std::int64_t unlabelled = 0;
};

/** \param field of the labels
 * \throw dl::Error */
LabelledSample ReadSample(const std::string& file, const std::string& field);

} // namespace Wrapper
} // namespace otb

#endif
