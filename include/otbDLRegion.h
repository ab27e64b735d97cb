/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLRegion_h
#define otbDLRegion_h

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace otb
{
namespace dl
{

/** \class Region
 * \brief A half-open rectangle of pixels [x0, x1) x [y0, y1), in pixels from the upper left corner of the whole image.
 * \ingroup OTBTorch
 */
struct Region
{
  std::int64_t x0 = 0;
  std::int64_t y0 = 0;
  std::int64_t x1 = 0;
  std::int64_t y1 = 0;

  std::int64_t Width() const { return std::max<std::int64_t>(0, x1 - x0); }
  std::int64_t Height() const { return std::max<std::int64_t>(0, y1 - y0); }
  std::int64_t Area() const { return Width() * Height(); }
  bool Empty() const { return x1 <= x0 || y1 <= y0; }
  bool operator==(const Region& o) const { return x0 == o.x0 && y0 == o.y0 && x1 == o.x1 && y1 == o.y1; }
};

/** The common part of two regions; Empty() when there is none. */
inline Region Intersection(const Region& a, const Region& b)
{
  return {std::max(a.x0, b.x0), std::max(a.y0, b.y0), std::min(a.x1, b.x1), std::min(a.y1, b.y1)};
}

/** The smallest region that holds both. */
inline Region BoundingBox(const Region& a, const Region& b)
{
  return {std::min(a.x0, b.x0), std::min(a.y0, b.y0), std::max(a.x1, b.x1), std::max(a.y1, b.y1)};
}

/** A region with a margin on all sides. */
inline Region Grown(const Region& region, std::int64_t margin)
{
  return {region.x0 - margin, region.y0 - margin, region.x1 + margin, region.y1 + margin};
}

/** Index of the pixel that a mirror at both ends of [0, n) shows at position i (the border pixel is not repeated; numpy's "reflect").
 * Defined for any i and n >= 1. */
inline std::int64_t Mirror(std::int64_t i, std::int64_t n)
{
  if (n == 1)
  {
    return 0;
  }
  const std::int64_t period = 2 * (n - 1);
  i %= period;
  if (i < 0)
  {
    i += period;
  }
  return i < n ? i : period - i;
}

/** The part of [0, n) that mirroring [begin, end) reads, as a half-open interval [first, last). */
inline void MirroredInterval(std::int64_t begin, std::int64_t end, std::int64_t n, std::int64_t& first, std::int64_t& last)
{
  if (begin >= 0 && end <= n)
  {
    first = begin;
    last = end;
    return;
  }
  first = n;
  last = 0;
  for (std::int64_t i = begin; i < end; ++i)
  {
    const std::int64_t m = Mirror(i, n);
    first = std::min(first, m);
    last = std::max(last, m + 1);
  }
}

/** Where in a block that begins at `first` the positions of a mirrored interval [begin, end) lie, one after the other. */
inline std::vector<std::ptrdiff_t> MirroredOffsets(std::int64_t begin, std::int64_t end, std::int64_t n, std::int64_t first)
{
  std::vector<std::ptrdiff_t> offsets;
  offsets.reserve(end - begin);
  for (std::int64_t i = begin; i < end; ++i)
  {
    offsets.push_back(Mirror(i, n) - first);
  }
  return offsets;
}

} // namespace dl
} // namespace otb

#endif
