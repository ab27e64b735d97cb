/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLPlaneFile_h
#define otbDLPlaneFile_h

#include "otbDLRegion.h"

#include <cstdint>
#include <string>

namespace otb
{
namespace dl
{

/** \class PlaneFile
 * \brief Planes of float of the size of an image in a file without a name: it vanishes with the process, however that ends.
 *
 * A region is written and read row by row. Several threads may read; one writes.
 * \ingroup OTBTorch
 */
class PlaneFile
{
public:
  /** Room is reserved at once: a full disk shows here.
   * \param directory empty: the system's for temporary files
   * \throw Error when there is no room */
  PlaneFile(std::int64_t width, std::int64_t height, int planes, const std::string& directory);
  ~PlaneFile();
  PlaneFile(const PlaneFile&) = delete;
  PlaneFile& operator=(const PlaneFile&) = delete;

  std::int64_t Width() const { return m_Width; }
  std::int64_t Height() const { return m_Height; }
  int Planes() const { return m_Planes; }

  /** Writes a region inside the image from dense rows. */
  void Write(int plane, const Region& region, const float* data);

  /** Reads a region inside the image into dense rows. */
  void Read(int plane, const Region& region, float* data) const;

private:
  std::int64_t Offset(int plane, std::int64_t x, std::int64_t y) const;

  std::int64_t m_Width;
  std::int64_t m_Height;
  int m_Planes;
  int m_File = -1;
};

} // namespace dl
} // namespace otb

#endif
