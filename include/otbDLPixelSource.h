/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLPixelSource_h
#define otbDLPixelSource_h

#include "otbDLRegion.h"

#include <cstddef>
#include <vector>

namespace otb
{
namespace dl
{

/** One band of a region of an image in someone else's memory, without a copy: pixel (x, y) of the region is data[y * strideY + x * strideX]. */
struct PlaneView
{
  const float* data = nullptr;
  std::ptrdiff_t strideX = 0;
  std::ptrdiff_t strideY = 0;
};

/** All bands of all inputs over one region. */
struct PixelBlock
{
  Region region;
  std::vector<std::vector<PlaneView>> bands; ///< [input][band]
  PlaneView mask;                            ///< data == nullptr: no validity image. Else valid where not 0
};

/** \class PixelSource
 * \brief Where the engine gets its pixels from.
 * \ingroup OTBTorch
 */
class PixelSource
{
public:
  virtual ~PixelSource() = default;

  /** Reads a region inside the image. The block stays valid until the next call. */
  virtual PixelBlock Read(const Region& region) = 0;
};

} // namespace dl
} // namespace otb

#endif
