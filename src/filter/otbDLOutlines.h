/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLOutlines_h
#define otbDLOutlines_h

#include <cstdint>
#include <functional>
#include <vector>

namespace otb
{
namespace dl
{

/** A corner of pixels: (0, 0) is the upper left one of the image, y downwards. */
struct Corner
{
  std::int32_t x = 0;
  std::int32_t y = 0;

  bool operator==(const Corner& o) const { return x == o.x && y == o.y; }
  /** From the top, from the left. */
  bool operator<(const Corner& o) const { return y != o.y ? y < o.y : x < o.x; }
};

/** Closed; the first corner is not repeated at the end. */
using Ring = std::vector<Corner>;

/** \class Outline
 * \brief The simple rings around a 4-connected set of pixels: the outer one first, then holes; none crosses itself or another, though they may touch at
 * corners.
 *
 * Each goes from its first corner (from the top, from the left) with the set on the right, and holds every corner along the way.
 * \ingroup OTBTorch
 */
using Outline = std::vector<Ring>;

/** From the edges of rings that may be joined in any way where they touch or cross. */
Outline TraceOutline(const std::vector<Ring>& rings);

/** Number of pixels within. */
std::int64_t PixelsWithin(const Outline& outline);

/** Without the corners where it goes straight on. */
Ring Turns(const Ring& ring);

/** Does a border end in another one at this corner? */
using IsNode = std::function<bool(const Corner&)>;

/** Douglas and Peucker on each part between nodes, by itself and from the same end for the two sets that it lies between, so that they go on sharing it.
 * A part that is a loop keeps three corners. \param tolerance in pixels */
Ring Simplify(const Ring& ring, const IsNode& isNode, double tolerance);

} // namespace dl
} // namespace otb

#endif
