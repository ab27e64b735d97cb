/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLSceneScore.h"

#include "otbDLKeyedRandom.h"
#include "otbDLParallel.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace otb
{
namespace dl
{

SceneReader::SceneReader(std::shared_ptr<PixelSource> pixels, std::vector<InputNormalisation> inputs, std::int64_t width, std::int64_t height)
    : m_Pixels(std::move(pixels)), m_Inputs(std::move(inputs)), m_Width(width), m_Height(height)
{
  for (auto& input : m_Inputs)
  {
    input.fill = 0.f;
  }
}

void SceneReader::Read(const Region& region, int margin)
{
  Region needed;
  MirroredInterval(region.x0 - margin, region.x1 + margin, m_Width, needed.x0, needed.x1);
  MirroredInterval(region.y0 - margin, region.y1 + margin, m_Height, needed.y0, needed.y1);
  m_Block = m_Pixels->Read(needed);
}

void SceneReader::Window(const Region& footprint, int first, int last, const std::vector<BandScaling>& scaling, SceneWindow& window) const
{
  const PixelBlock block{m_Block.region, {m_Block.bands.begin() + first, m_Block.bands.begin() + last}, m_Block.mask};
  std::vector<InputNormalisation> inputs(m_Inputs.begin() + first, m_Inputs.begin() + last);
  window.width = footprint.Width();
  window.height = footprint.Height();
  PatchValidity(block, footprint, m_Width, m_Height, inputs, window.valid);
  const std::ptrdiff_t plane = window.width * window.height;
  std::size_t bands = 0;
  for (auto& input : inputs)
  {
    for (std::size_t b = 0; b < input.scaling.size(); ++b)
    {
      input.scaling[b] = scaling.empty() ? BandScaling() : scaling[bands + b];
    }
    bands += input.scaling.size();
  }
  window.planes.resize(bands * static_cast<std::size_t>(plane));
  float* at = window.planes.data();
  for (int k = 0; k < static_cast<int>(inputs.size()); ++k)
  {
    const int own = static_cast<int>(inputs[k].scaling.size());
    const BatchView view{at, own, 0, plane, window.width, 1};
    PackPatch(block, footprint, m_Width, m_Height, k, inputs[k], window.valid, view, 0);
    at += own * plane;
  }
}

std::vector<Region> SceneCells(std::int64_t width, std::int64_t height, std::int64_t most, std::int64_t side)
{
  const std::int64_t columns = (width + side - 1) / side, rows = (height + side - 1) / side;
  const double share = std::min(1., static_cast<double>(most) / static_cast<double>(columns * rows));
  const KeyedRandom draw(0, 0x5CE7E);
  std::vector<Region> cells;
  for (std::int64_t j = 0; j < rows; ++j)
  {
    for (std::int64_t i = 0; i < columns; ++i)
    {
      if (share >= 1. || draw.Uniform(i, j, 0, 0) < share)
      {
        cells.push_back({i * side, j * side, std::min(width, (i + 1) * side), std::min(height, (j + 1) * side)});
      }
    }
  }
  return cells;
}

void ForCells(const Region& region, std::int64_t pixels, int threads, const std::function<void(const Region& part)>& prepare,
              const std::function<void(const Region& cell)>& work, const SceneScore::Progress& progress, std::int64_t side)
{
  // Cells are counted from the origin of the image, so that those of a scene are the same in whatever parts it is asked for.
  const std::int64_t wide = std::max<std::int64_t>(1, pixels / (side * side));
  for (std::int64_t y = region.y0 / side * side; y < region.y1; y += side)
  {
    for (std::int64_t x = region.x0 / side * side; x < region.x1; x += wide * side)
    {
      const Region part = Intersection(region, {x, y, x + wide * side, y + side});
      prepare(part);
      const auto count = static_cast<int>((part.x1 - x + side - 1) / side);
      ParallelFor(count, threads, [&](int k) { work(Intersection(part, {x + k * side, y, x + (k + 1) * side, y + side})); });
      if (progress)
      {
        progress(static_cast<double>((part.y0 - region.y0) * region.Width() + (part.x1 - region.x0) * part.Height()) / static_cast<double>(region.Area()));
      }
    }
  }
}

namespace
{
/** Value at a quantile of unordered values, interpolated between the two nearest (numpy's default). */
float Quantile(std::vector<float>& values, double q)
{
  const double place = q * static_cast<double>(values.size() - 1);
  const auto low = static_cast<std::size_t>(place);
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(low), values.end());
  const float a = values[low];
  if (low + 1 >= values.size())
  {
    return a;
  }
  const float b = *std::min_element(values.begin() + static_cast<std::ptrdiff_t>(low) + 1, values.end());
  return static_cast<float>(a + (place - static_cast<double>(low)) * (static_cast<double>(b) - a));
}
} // namespace

std::vector<BandScaling> FitScaling(SceneReader& reader, double clip, bool joint, const SceneScore::Progress& progress)
{
  const auto cells = SceneCells(reader.Image().Width(), reader.Image().Height(), 256);
  double area = 0.;
  for (const auto& cell : cells)
  {
    area += static_cast<double>(cell.Area());
  }
  const double rate = std::min(1., 262144. / area);
  const KeyedRandom draw(0, 0x5CA1E);
  int bands = 0;
  for (int k = 0; k < reader.Images(); ++k)
  {
    bands += reader.Bands(k);
  }
  std::vector<std::vector<float>> samples(bands);
  SceneWindow window;
  for (std::size_t c = 0; c < cells.size(); ++c)
  {
    const Region& cell = cells[c];
    reader.Read(cell, 0);
    int band = 0;
    for (int first = 0; first < reader.Images(); first = joint ? reader.Images() : first + 1)
    {
      const int last = joint ? reader.Images() : first + 1;
      reader.Window(cell, first, last, {}, window);
      const std::ptrdiff_t plane = window.width * window.height;
      const int own = static_cast<int>(window.planes.size() / static_cast<std::size_t>(plane));
      for (std::ptrdiff_t p = 0; p < plane; ++p)
      {
        if (window.valid[p] && (rate >= 1. || draw.Uniform(cell.x0 + p % window.width, cell.y0 + p / window.width, 0, 0) < rate))
        {
          for (int b = 0; b < own; ++b)
          {
            samples[band + b].push_back(window.planes[b * plane + p]);
          }
        }
      }
      band += own;
    }
    if (progress)
    {
      progress(static_cast<double>(c + 1) / static_cast<double>(cells.size()));
    }
  }
  std::vector<BandScaling> scaling(bands);
  for (int b = 0; b < bands; ++b)
  {
    auto& values = samples[b];
    if (values.empty())
    {
      continue; // no data at all: nothing will be scored
    }
    BandScaling& s = scaling[b];
    auto ordered = values; // sums go in the order of pixels, which selecting destroys
    s.low = Quantile(ordered, clip);
    s.high = Quantile(ordered, 1. - clip);
    double sum = 0., squares = 0.;
    for (const float v : values)
    {
      const double clipped = std::min(std::max(static_cast<double>(v), s.low), s.high);
      sum += clipped;
      squares += clipped * clipped;
    }
    const double n = static_cast<double>(values.size());
    s.offset = sum / n;
    const double deviation = std::sqrt(std::max(0., squares / n - s.offset * s.offset));
    s.divisor = deviation > 1e-6 * std::abs(s.offset) ? deviation : 1.; // in any units; what rounding leaves is less
  }
  return scaling;
}

} // namespace dl
} // namespace otb
