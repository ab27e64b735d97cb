/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLPatchGrid.h"

#include "otbDLError.h"

#include <cmath>

namespace otb
{
namespace dl
{

namespace
{
std::int64_t CeilDiv(std::int64_t a, std::int64_t b)
{
  return (a + b - 1) / b;
}
} // namespace

PatchGrid::PatchGrid(std::int64_t width, std::int64_t height, const Tiling& tiling)
    : m_Width(width), m_Height(height), m_Patch(tiling.patch), m_Blend(tiling.blend)
{
  if (width < 1 || height < 1)
  {
    throw Error("the image is empty: " + std::to_string(width) + " x " + std::to_string(height) + " pixels");
  }
  const int stride = std::max(1, tiling.multiple);
  if (m_Blend == Blend::Crop)
  {
    const int margin = (tiling.halo + stride - 1) / stride * stride;
    m_Step = m_Patch - 2 * margin;
    m_Lead = margin;
    m_CoreSize = m_Step;
    m_CoreOffset = margin;
    if (m_Step < 1)
    {
      throw Error("a patch of " + std::to_string(m_Patch) + " pixels has nothing left once the halo of " + std::to_string(margin) +
                  " pixels is cut from each side; use -blend hann or a larger patch");
    }
    m_Columns = CeilDiv(width, m_Step);
    m_Rows = CeilDiv(height, m_Step);
  }
  else
  {
    if (m_Patch < 2 || m_Patch % (2 * stride) != 0)
    {
      throw Error("blending needs a patch that is a multiple of twice the network's stride (" + std::to_string(2 * stride) + " pixels), found " +
                  std::to_string(m_Patch) + "; use -blend crop");
    }
    m_Step = m_Patch / 2;
    m_Lead = m_Step;
    m_CoreSize = m_Patch;
    m_CoreOffset = 0;
    m_Columns = CeilDiv(width, m_Step) + 1;
    m_Rows = CeilDiv(height, m_Step) + 1;
  }
}

Region PatchGrid::Footprint(std::int64_t i, std::int64_t j) const
{
  const std::int64_t x = i * m_Step - m_Lead;
  const std::int64_t y = j * m_Step - m_Lead;
  return {x, y, x + m_Patch, y + m_Patch};
}

Region PatchGrid::Core(std::int64_t i, std::int64_t j) const
{
  const std::int64_t x = i * m_Step - m_Lead + m_CoreOffset;
  const std::int64_t y = j * m_Step - m_Lead + m_CoreOffset;
  return {x, y, x + m_CoreSize, y + m_CoreSize};
}

Region PatchGrid::Covering(const Region& region) const
{
  const std::int64_t more = m_Blend == Blend::Crop ? 0 : 1;
  return {region.x0 / m_Step, region.y0 / m_Step, (region.x1 - 1) / m_Step + 1 + more, (region.y1 - 1) / m_Step + 1 + more};
}

Region PatchGrid::Reads(const Region& footprint) const
{
  Region r;
  MirroredInterval(footprint.x0, footprint.x1, m_Width, r.x0, r.x1);
  MirroredInterval(footprint.y0, footprint.y1, m_Height, r.y0, r.y1);
  return r;
}

std::vector<float> HannWindow(int patch)
{
  const double pi = std::acos(-1.);
  std::vector<float> w(patch);
  for (int u = 0; u < patch / 2; ++u)
  {
    const double s = std::sin(pi * (u + .5) / patch);
    w[u] = static_cast<float>(s * s);
    w[u + patch / 2] = 1.f - w[u];
  }
  return w;
}

} // namespace dl
} // namespace otb
