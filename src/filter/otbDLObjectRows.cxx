/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLObjectRows.h"

#include "otbDLError.h"

#include <cpl_error.h>
#include <opencv2/imgproc.hpp>

#include <algorithm>
#include <cmath>
#include <sstream>

namespace otb
{
namespace dl
{

ObjectRows::ObjectRows(GDALRasterBandH map, const std::string& mapName, GDALRasterBandH score, const std::string& scoreName, int opening, std::size_t memory)
    : m_Map(map), m_Score(score), m_MapName(mapName), m_ScoreName(scoreName), m_Width(GDALGetRasterBandXSize(map)), m_Height(GDALGetRasterBandYSize(map)),
      m_Opening(opening)
{
  const auto type = GDALGetRasterDataType(map);
  m_Whole = type == GDT_Byte || type == GDT_UInt16 || type == GDT_Int16 || type == GDT_Int32;
  int has = 0;
  m_NoData = GDALGetRasterNoDataValue(map, &has);
  m_HasNoData = has != 0;

  int blockWidth = 1, blockHeight = 1;
  GDALGetBlockSize(map, &blockWidth, &blockHeight);
  const std::size_t row = static_cast<std::size_t>(m_Width) * (sizeof(std::int32_t) + (m_Whole ? 0 : 8) + (score ? 8 : 0) + (opening > 0 ? 16 : 0));
  m_Chunk = std::clamp<std::int64_t>(static_cast<std::int64_t>(memory / row), 16, 1024);
  // Mostly new rows rather than those around them.
  m_Chunk = std::max<std::int64_t>(m_Chunk, 4 * opening);
  if (m_Chunk > blockHeight)
  {
    m_Chunk -= m_Chunk % blockHeight;
  }
}

template <typename T>
std::int32_t ObjectRows::ToCell(T value)
{
  if (m_HasNoData && static_cast<double>(value) == m_NoData)
  {
    return NoData;
  }
  if constexpr (std::is_floating_point<T>::value)
  {
    if (std::isnan(value))
    {
      return NoData;
    }
    if (value != std::floor(value) || std::abs(value) > 2147483647.)
    {
      std::ostringstream found;
      found << "the value " << value;
      throw Error(Complaint(m_MapName, found.str(), "whole numbers: 0 for no change, and codes", "Give the map of change, not the score it was made from."));
    }
  }
  const auto code = static_cast<std::int32_t>(value);
  if (code == 0)
  {
    return Background;
  }
  const auto [entry, isNew] = m_Cells.emplace(code, static_cast<std::int32_t>(m_Codes.size()));
  if (isNew)
  {
    m_Codes.push_back(code);
  }
  return entry->second;
}

void ObjectRows::Read(std::int64_t y0, std::int64_t y1, std::vector<std::int32_t>& cells)
{
  const auto rows = y1 - y0;
  const auto count = static_cast<std::size_t>(rows * m_Width);
  cells.resize(count);
  void* target = cells.data();
  if (!m_Whole)
  {
    m_Buffer.resize(count);
    target = m_Buffer.data();
  }
  const auto w = static_cast<int>(m_Width), h = static_cast<int>(rows);
  if (GDALRasterIO(m_Map, GF_Read, 0, static_cast<int>(y0), w, h, target, w, h, m_Whole ? GDT_Int32 : GDT_Float64, 0, 0) != CE_None)
  {
    throw Error(Complaint(m_MapName, "that it cannot be read to its end (" + std::string(CPLGetLastErrorMsg()) + ")", "a whole image", ""));
  }
  const auto convert = [&](const auto* values)
  {
    // Neighbours mostly hold the same.
    auto last = values[0];
    std::int32_t cell = ToCell(last);
    for (std::size_t k = 0; k < count; ++k)
    {
      if (values[k] != last)
      {
        last = values[k];
        cell = ToCell(last);
      }
      cells[k] = cell;
    }
  };
  if (m_Whole)
  {
    convert(cells.data());
  }
  else
  {
    convert(m_Buffer.data());
  }
}

/** All codes at once: where the least and the greatest value under the disk are the same, the disk lies within one code. Disks of two codes cannot meet, so
 * the greatest value under the disk then is the code of the only one that reaches a pixel. */
void ObjectRows::Open(std::vector<std::int32_t>& cells) const
{
  const auto most = *std::max_element(cells.begin(), cells.end());
  if (most < 1)
  {
    return;
  }
  const int side = 2 * m_Opening + 1;
  cv::Mat disk(side, side, CV_8U, cv::Scalar(0));
  for (int y = 0; y < side; ++y)
  {
    for (int x = 0; x < side; ++x)
    {
      const int dx = x - m_Opening, dy = y - m_Opening;
      disk.at<unsigned char>(y, x) = dx * dx + dy * dy <= m_Opening * m_Opening;
    }
  }
  const cv::Mat all(static_cast<int>(cells.size() / m_Width), static_cast<int>(m_Width), CV_32S, cells.data());
  cv::Mat codes, least, greatest;
  // OpenCV has no morphology of 32 bit integers.
  cv::max(all, 0, codes);
  codes.convertTo(codes, most <= 255 ? CV_8U : most <= 65535 ? CV_16U : CV_64F);
  cv::erode(codes, least, disk);
  cv::dilate(codes, greatest, disk);
  least.setTo(0, least != greatest);
  cv::dilate(least, greatest, disk);
  greatest.convertTo(codes, CV_32S);
  for (std::size_t k = 0; k < cells.size(); ++k)
  {
    cells[k] = cells[k] == NoData ? NoData : codes.ptr<std::int32_t>()[k];
  }
}

void ObjectRows::ForEach(bool withScore, const Visit& visit)
{
  std::vector<std::int32_t> cells;
  std::vector<double> scores;
  int hasNoData = 0;
  const double noData = m_Score ? GDALGetRasterNoDataValue(m_Score, &hasNoData) : 0.;
  const std::int64_t halo = 2 * m_Opening;
  for (std::int64_t y0 = 0; y0 < m_Height; y0 += m_Chunk)
  {
    const auto y1 = std::min(m_Height, y0 + m_Chunk);
    const auto above = std::max<std::int64_t>(0, y0 - halo);
    Read(above, std::min(m_Height, y1 + halo), cells);
    if (m_Opening > 0)
    {
      Open(cells);
    }
    if (withScore && m_Score)
    {
      scores.resize(static_cast<std::size_t>((y1 - y0) * m_Width));
      const auto w = static_cast<int>(m_Width), h = static_cast<int>(y1 - y0);
      if (GDALRasterIO(m_Score, GF_Read, 0, static_cast<int>(y0), w, h, scores.data(), w, h, GDT_Float64, 0, 0) != CE_None)
      {
        throw Error(Complaint(m_ScoreName, "that it cannot be read to its end (" + std::string(CPLGetLastErrorMsg()) + ")", "a whole image", ""));
      }
      if (hasNoData)
      {
        std::replace(scores.begin(), scores.end(), noData, std::nan(""));
      }
    }
    for (auto y = y0; y < y1; ++y)
    {
      visit(y, cells.data() + (y - above) * m_Width, scores.empty() ? nullptr : scores.data() + (y - y0) * m_Width);
    }
  }
}

} // namespace dl
} // namespace otb
