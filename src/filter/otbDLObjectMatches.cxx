/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLObjectMatches.h"

#include "otbDLError.h"
#include "otbDLObjectLabels.h"

#include <array>
#include <limits>
#include <numeric>
#include <unordered_map>
#include <vector>

namespace otb
{
namespace dl
{

ObjectMatches MatchObjects(std::int64_t width, std::int64_t height, const ObjectMatchSettings& settings, const std::string& raster,
                           const std::function<void(const ObjectRowVisit&)>& forEach)
{
  if (!(settings.iou >= .5 && settings.iou <= 1.))
  {
    throw Error(Complaint("iou", std::to_string(settings.iou), "a number from 0.5 to 1", "Below 0.5 an object could match several others."));
  }
  ObjectLabels::Rules rules;
  rules.eightConnected = settings.eightConnected;
  rules.minimum = settings.minimum;
  const CellMeasure measure = raster.empty() ? CellMeasure() : MeasureCells(raster);
  ObjectLabels predicted(width, height, rules, measure), reference(width, height, rules, measure);
  forEach(
      [&](std::int64_t y, const std::int32_t* p, const std::int32_t* r)
      {
        predicted.AddRow(y, p, nullptr);
        reference.AddRow(y, r, nullptr);
      });
  predicted.Finish();
  reference.Finish();

  const std::int64_t wide = (width + settings.block - 1) / settings.block, high = (height + settings.block - 1) / settings.block;
  std::vector<std::uint32_t> predictedBlock(static_cast<std::size_t>(predicted.Objects()) + 1, 0),
      referenceBlock(static_cast<std::size_t>(reference.Objects()) + 1, 0);
  std::vector<char> hasData(static_cast<std::size_t>(wide * high), 0);
  std::int32_t seenPredicted = 0, seenReference = 0;
  std::unordered_map<std::uint64_t, std::int64_t> common;
  std::vector<std::int32_t> a(static_cast<std::size_t>(width)), b(static_cast<std::size_t>(width));
  forEach(
      [&](std::int64_t y, const std::int32_t* p, const std::int32_t* r)
      {
        predicted.LabelRow(p, a.data());
        reference.LabelRow(r, b.data());
        for (std::int64_t x = 0; x < width;)
        {
          const auto block = static_cast<std::uint32_t>(y / settings.block * wide + x / settings.block);
          const auto idA = a[x], idB = b[x];
          hasData[block] = hasData[block] || p[x] >= 0;
          // Objects are numbered in the order of their first pixels.
          if (idA > seenPredicted)
          {
            seenPredicted = idA;
            predictedBlock[idA] = block;
          }
          if (idB > seenReference)
          {
            seenReference = idB;
            referenceBlock[idB] = block;
          }
          const auto first = x;
          const auto end = std::min(width, (x / settings.block + 1) * settings.block);
          while (x < end && a[x] == idA && b[x] == idB)
          {
            hasData[block] = hasData[block] || p[x] >= 0;
            ++x;
          }
          if (idA > 0 && idB > 0)
          {
            common[(static_cast<std::uint64_t>(idA) << 32) | static_cast<std::uint32_t>(idB)] += x - first;
          }
        }
      });

  ObjectMatches m;
  m.predicted = predicted.Objects();
  m.reference = reference.Objects();
  m.areaKnown = measure.known;
  std::vector<std::array<std::uint32_t, 3>> counts(hasData.size(), {0, 0, 0});
  for (std::int32_t id = 1; id <= predicted.Objects(); ++id)
  {
    m.predictedPixels += predicted.Object(id).pixels;
    m.predictedArea += predicted.AreaOf(predicted.Object(id));
    ++counts[predictedBlock[id]][0];
  }
  std::vector<double> overlap(static_cast<std::size_t>(reference.Objects()) + 1, 0.);
  for (const auto& [ids, pixels] : common)
  {
    const auto idA = static_cast<std::int32_t>(ids >> 32), idB = static_cast<std::int32_t>(ids & 0xffffffffu);
    const auto all = predicted.Object(idA).pixels + reference.Object(idB).pixels - pixels;
    const double iou = static_cast<double>(pixels) / static_cast<double>(all);
    if (iou >= settings.iou)
    {
      overlap[idB] = iou; // at most one: two disjoint sets cannot both hold half of a third that they would fill, as they would touch
    }
  }
  double sum = 0.;
  for (std::int32_t id = 1; id <= reference.Objects(); ++id)
  {
    const double area = reference.AreaOf(reference.Object(id));
    m.referencePixels += reference.Object(id).pixels;
    m.referenceArea += area;
    ++counts[referenceBlock[id]][1];
    if (overlap[id] > 0.)
    {
      ++m.matched;
      ++counts[referenceBlock[id]][2];
      m.matchedPixels += reference.Object(id).pixels;
      m.matchedArea += area;
      sum += overlap[id];
    }
  }
  m.meanIou = m.matched > 0 ? sum / static_cast<double>(m.matched) : std::numeric_limits<double>::quiet_NaN();
  for (std::size_t k = 0; k < counts.size(); ++k)
  {
    if (hasData[k])
    {
      m.blocks.Add(counts[k], static_cast<std::int64_t>(k) % wide, static_cast<std::int64_t>(k) / wide);
    }
  }
  return m;
}

double MeanPixelArea(const std::string& raster)
{
  const auto measure = MeasureCells(raster);
  if (!measure.known)
  {
    return std::numeric_limits<double>::quiet_NaN();
  }
  return measure.byRow ? std::accumulate(measure.areas.begin(), measure.areas.end(), 0.) / static_cast<double>(measure.areas.size()) : measure.area;
}

} // namespace dl
} // namespace otb
