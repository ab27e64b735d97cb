/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLPatchSource.h"

#include <utility>

namespace otb
{
namespace dl
{

ImagePatchSource::ImagePatchSource(std::shared_ptr<PixelSource> pixels, std::vector<InputNormalisation> inputs, std::int64_t imageWidth,
                                   std::int64_t imageHeight)
    : m_Pixels(std::move(pixels)), m_Inputs(std::move(inputs)), m_Width(imageWidth), m_Height(imageHeight)
{
}

void ImagePatchSource::Read(const Region& region)
{
  m_Block = m_Pixels->Read(region);
}

void ImagePatchSource::Look(const Region& footprint, bool counts, PatchContent& content) const
{
  PatchValidity(m_Block, footprint, m_Width, m_Height, m_Inputs, content.valid);
  content.counts.clear();
  if (counts)
  {
    content.counts.emplace_back(content.valid.begin(), content.valid.end());
  }
}

void ImagePatchSource::Pack(const Region& footprint, const PatchContent& content, Predictor& predictor, int n) const
{
  predictor.Place(n, footprint.x0, footprint.y0);
  for (int in = 0; in < static_cast<int>(m_Inputs.size()); ++in)
  {
    PackPatch(m_Block, footprint, m_Width, m_Height, in, m_Inputs[in], content.valid, predictor.Input(in), n);
  }
}

} // namespace dl
} // namespace otb
