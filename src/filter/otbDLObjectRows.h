/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLObjectRows_h
#define otbDLObjectRows_h

#include <gdal.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

namespace otb
{
namespace dl
{

/** \class ObjectRows
 * \brief The rows of a change map from first to last, opened, as often as wanted: the same rows each time, whatever the layout of the file.
 * \ingroup OTBTorch
 */
class ObjectRows
{
public:
  /// What a pixel is: a code counts from 1, in the order in which codes turn up.
  enum Cell : std::int32_t
  {
    NoData = -1,
    Background = 0
  };
  /// \a scores is null without a score; NaN where it has none
  using Visit = std::function<void(std::int64_t y, const std::int32_t* cells, const double* scores)>;

  /** \param score null: none */
  ObjectRows(GDALRasterBandH map, const std::string& mapName, GDALRasterBandH score, const std::string& scoreName, int opening, std::size_t memory);

  std::int64_t Width() const { return m_Width; }
  std::int64_t Height() const { return m_Height; }

  /** \throw Error where a file cannot be read, or the map holds something other than whole numbers */
  void ForEach(bool withScore, const Visit& visit);

  std::int32_t CodeOf(std::int32_t cell) const { return m_Codes[cell]; }

private:
  void Read(std::int64_t y0, std::int64_t y1, std::vector<std::int32_t>& cells);
  template <typename T>
  std::int32_t ToCell(T value);
  void Open(std::vector<std::int32_t>& cells) const;

  GDALRasterBandH m_Map;
  GDALRasterBandH m_Score;
  std::string m_MapName;
  std::string m_ScoreName;
  std::int64_t m_Width;
  std::int64_t m_Height;
  std::int64_t m_Chunk; ///< rows
  int m_Opening;
  bool m_Whole; ///< the type of the map's pixels fits 32 bit integers
  bool m_HasNoData = false;
  double m_NoData = 0.;
  std::vector<double> m_Buffer;
  std::vector<std::int32_t> m_Codes{0};
  std::unordered_map<std::int32_t, std::int32_t> m_Cells;
};

} // namespace dl
} // namespace otb

#endif
