/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLSeriesPatchSource.h"

#include <algorithm>
#include <utility>

namespace otb
{
namespace dl
{

SeriesPatchSource::SeriesPatchSource(std::shared_ptr<SeriesReader> reader, std::shared_ptr<const SeriesPreparation> preparation)
    : m_Reader(std::move(reader)), m_Preparation(std::move(preparation))
{
}

void SeriesPatchSource::Read(const Region& region)
{
  m_Block = m_Reader->Read(region);
}

void SeriesPatchSource::Look(const Region& footprint, bool counts, PatchContent& content) const
{
  const auto columns = MirroredOffsets(footprint.x0, footprint.x1, m_Preparation->Width(), m_Block.region.x0);
  const auto rows = MirroredOffsets(footprint.y0, footprint.y1, m_Preparation->Height(), m_Block.region.y0);
  const std::size_t width = columns.size(), series = m_Preparation->CountedSensors().size();
  content.valid.resize(width * rows.size());
  content.counts.resize(counts ? series : 0);
  for (auto& c : content.counts)
  {
    c.resize(width * rows.size());
  }
  PreparedPixels row;
  m_Preparation->Allocate(row, width);
  for (std::size_t y = 0; y < rows.size(); ++y)
  {
    m_Preparation->PrepareRow(m_Block, columns, rows[y], row, 0);
    std::copy(row.valid.begin(), row.valid.end(), content.valid.begin() + static_cast<std::ptrdiff_t>(y * width));
    for (std::size_t s = 0; s < content.counts.size(); ++s)
    {
      std::copy_n(row.counts.begin() + static_cast<std::ptrdiff_t>(s * width), width, content.counts[s].begin() + static_cast<std::ptrdiff_t>(y * width));
    }
  }
}

void SeriesPatchSource::Pack(const Region& footprint, const PatchContent& content, Predictor& predictor, int n) const
{
  (void)content; // a network that sees dates is told of those that are valid, date by date
  const auto columns = MirroredOffsets(footprint.x0, footprint.x1, m_Preparation->Width(), m_Block.region.x0);
  const auto rows = MirroredOffsets(footprint.y0, footprint.y1, m_Preparation->Height(), m_Block.region.y0);
  std::vector<BatchView> inputs;
  for (int k = 0; k < static_cast<int>(m_Preparation->Contract().inputs.size()); ++k)
  {
    inputs.push_back(predictor.Input(k));
  }
  PreparedPixels row;
  m_Preparation->Allocate(row, columns.size());
  std::vector<std::vector<int>> validPixels;
  for (std::size_t y = 0; y < rows.size(); ++y)
  {
    m_Preparation->PrepareRow(m_Block, columns, rows[y], row, 0);
    m_Preparation->WriteRow(row, 0, columns.size(), inputs, n, static_cast<std::ptrdiff_t>(y), 0);
    m_Preparation->CountValid(row, 0, columns.size(), validPixels);
  }
  m_Preparation->WriteSample(validPixels, static_cast<int>(columns.size() * rows.size()), .5 * static_cast<double>(footprint.x0 + footprint.x1 - 1),
                             .5 * static_cast<double>(footprint.y0 + footprint.y1 - 1), inputs, n);
}

} // namespace dl
} // namespace otb
