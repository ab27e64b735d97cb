/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLPatchPacking.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace otb
{
namespace dl
{

InputNormalisation Normalisation(const ModelInput& input, const std::vector<bool>& declaredFlags, const std::vector<double>& declared)
{
  InputNormalisation n;
  const std::size_t bands = input.bands.size();
  n.scaling = input.scaling;
  n.rule = input.noDataRule;
  n.fill = input.noDataFill;
  n.noData.assign(bands, input.noData.value_or(0.));
  n.hasNoData.assign(bands, input.noData.has_value());
  for (std::size_t b = 0; b < bands && b < declaredFlags.size() && b < declared.size(); ++b)
  {
    if (declaredFlags[b])
    {
      n.noData[b] = declared[b];
      n.hasNoData[b] = true;
    }
  }
  return n;
}

namespace
{
/** Do the planes of an input lie pixel by pixel in one image, band after band? Then a row is one run of numbers. */
bool Interleaved(const std::vector<PlaneView>& planes)
{
  const auto bands = static_cast<std::ptrdiff_t>(planes.size());
  for (std::ptrdiff_t b = 0; b < bands; ++b)
  {
    if (planes[b].data != planes[0].data + b || planes[b].strideX != bands)
    {
      return false;
    }
  }
  return true;
}

/** Is there a number in the run that is not finite, or the no-data value of its band? `none` repeats those of the bands, NaN for a band without one. */
bool Suspicious(const float* run, const std::vector<float>& none)
{
  int found = 0;
  for (std::size_t k = 0; k < none.size(); ++k)
  {
    const float v = run[k];
    found |= static_cast<int>(!(v - v == 0.f)) | static_cast<int>(v == none[k]);
  }
  return found != 0;
}
} // namespace

void PatchValidity(const PixelBlock& block, const Region& footprint, std::int64_t imageWidth, std::int64_t imageHeight,
                   const std::vector<InputNormalisation>& inputs, std::vector<std::uint8_t>& valid)
{
  const auto columns = MirroredOffsets(footprint.x0, footprint.x1, imageWidth, block.region.x0);
  const auto rows = MirroredOffsets(footprint.y0, footprint.y1, imageHeight, block.region.y0);
  const std::size_t width = columns.size();
  valid.assign(width * rows.size(), 1);
  // Bands holding the no-data value, counted a row at a time.
  std::vector<unsigned int> matches(width);

  // Most rows hold nothing but data: one look at a row as a whole spares the looks at its pixels.
  const bool inside = footprint.x0 >= 0 && footprint.x1 <= imageWidth;
  std::vector<std::vector<float>> none(inputs.size());
  for (std::size_t k = 0; k < inputs.size(); ++k)
  {
    const std::size_t bands = inputs[k].scaling.size();
    if (inside && Interleaved(block.bands[k]))
    {
      none[k].resize(width * bands);
      for (std::size_t i = 0; i < none[k].size(); ++i)
      {
        const std::size_t b = i % bands;
        none[k][i] = inputs[k].hasNoData[b] ? static_cast<float>(inputs[k].noData[b]) : std::numeric_limits<float>::quiet_NaN();
      }
    }
  }

  for (std::size_t y = 0; y < rows.size(); ++y)
  {
    std::uint8_t* out = valid.data() + y * width;
    if (block.mask.data)
    {
      const float* line = block.mask.data + rows[y] * block.mask.strideY;
      for (std::size_t x = 0; x < width; ++x)
      {
        const float m = line[columns[x] * block.mask.strideX];
        out[x] = m != 0.f && !std::isnan(m);
      }
    }
    for (std::size_t k = 0; k < inputs.size(); ++k)
    {
      const auto& in = inputs[k];
      const PlaneView& first = block.bands[k].front();
      if (!none[k].empty() && !Suspicious(first.data + rows[y] * first.strideY + columns[0] * first.strideX, none[k]))
      {
        continue;
      }
      const std::size_t bands = in.scaling.size();
      // Bands without a no-data value have no say.
      const auto speaking = static_cast<unsigned int>(std::count(in.hasNoData.begin(), in.hasNoData.end(), true));
      const unsigned int limit = in.rule == NoDataRule::All ? std::max(1u, speaking) : 1u;
      std::fill(matches.begin(), matches.end(), 0u);
      for (std::size_t b = 0; b < bands; ++b)
      {
        const PlaneView& plane = block.bands[k][b];
        const float* line = plane.data + rows[y] * plane.strideY;
        const bool flag = in.hasNoData[b];
        const float none = static_cast<float>(in.noData[b]);
        for (std::size_t x = 0; x < width; ++x)
        {
          const float v = line[columns[x] * plane.strideX];
          if (!std::isfinite(v))
          {
            out[x] = 0;
          }
          matches[x] += flag && v == none;
        }
      }
      for (std::size_t x = 0; x < width; ++x)
      {
        out[x] = out[x] && matches[x] < limit;
      }
    }
  }
}

void PackPatch(const PixelBlock& block, const Region& footprint, std::int64_t imageWidth, std::int64_t imageHeight, int input,
               const InputNormalisation& normalisation, const std::vector<std::uint8_t>& valid, const BatchView& batch, int n)
{
  const auto columns = MirroredOffsets(footprint.x0, footprint.x1, imageWidth, block.region.x0);
  const auto rows = MirroredOffsets(footprint.y0, footprint.y1, imageHeight, block.region.y0);
  const std::size_t width = columns.size(), bands = normalisation.scaling.size();
  const auto& planes = block.bands[input];

  if (footprint.x0 >= 0 && footprint.x1 <= imageWidth && Interleaved(planes) && batch.strideC == 1 && batch.strideX == static_cast<std::ptrdiff_t>(bands))
  {
    std::vector<float> low(width * bands), high(width * bands), offset(width * bands), divisor(width * bands);
    for (std::size_t k = 0; k < width * bands; ++k)
    {
      const auto& s = normalisation.scaling[k % bands];
      low[k] = static_cast<float>(s.low);
      high[k] = static_cast<float>(s.high);
      offset[k] = static_cast<float>(s.offset);
      divisor[k] = static_cast<float>(s.divisor);
    }
    for (std::size_t y = 0; y < rows.size(); ++y)
    {
      const float* line = planes[0].data + rows[y] * planes[0].strideY + columns[0] * planes[0].strideX;
      float* out = batch.At(n, 0, static_cast<std::ptrdiff_t>(y), 0);
      for (std::size_t k = 0; k < width * bands; ++k)
      {
        out[k] = (std::min(std::max(line[k], low[k]), high[k]) - offset[k]) / divisor[k];
      }
      const std::uint8_t* ok = valid.data() + y * width;
      for (std::size_t x = 0; x < width; ++x)
      {
        if (!ok[x])
        {
          std::fill_n(out + x * bands, bands, normalisation.fill);
        }
      }
    }
    return;
  }

  for (std::size_t b = 0; b < bands; ++b)
  {
    const PlaneView& plane = planes[b];
    const auto& s = normalisation.scaling[b];
    const float low = static_cast<float>(s.low), high = static_cast<float>(s.high);
    const float offset = static_cast<float>(s.offset), divisor = static_cast<float>(s.divisor);
    for (std::size_t y = 0; y < rows.size(); ++y)
    {
      const float* line = plane.data + rows[y] * plane.strideY;
      const std::uint8_t* ok = valid.data() + y * width;
      float* out = batch.At(n, static_cast<std::ptrdiff_t>(b), static_cast<std::ptrdiff_t>(y), 0);
      for (std::size_t x = 0; x < width; ++x)
      {
        const float v = std::min(std::max(line[columns[x] * plane.strideX], low), high);
        out[x * batch.strideX] = ok[x] ? (v - offset) / divisor : normalisation.fill;
      }
    }
  }
}

} // namespace dl
} // namespace otb
