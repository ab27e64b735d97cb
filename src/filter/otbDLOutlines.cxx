/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLOutlines.h"

#include "otbDLError.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace otb
{
namespace dl
{

namespace
{
/** In the order of turning left from one to the next. */
enum Way
{
  East,
  North,
  West,
  South
};
constexpr int stepX[] = {1, 0, -1, 0}, stepY[] = {0, -1, 0, 1};

/** A corner and the ways that edges go from it. */
struct Junction
{
  Corner at;
  std::uint8_t ways = 0;

  bool operator<(const Junction& o) const { return at < o.at; }
};

int Sign(std::int32_t v)
{
  return (v > 0) - (v < 0);
}

Way WayOf(int dx, int dy)
{
  return dx > 0 ? East : dx < 0 ? West : dy > 0 ? South : North;
}

std::int64_t Twice(const Ring& ring)
{
  std::int64_t sum = 0;
  for (std::size_t k = 0; k < ring.size(); ++k)
  {
    const auto &a = ring[k], &b = ring[k + 1 < ring.size() ? k + 1 : 0];
    sum += static_cast<std::int64_t>(a.x) * b.y - static_cast<std::int64_t>(b.x) * a.y;
  }
  return sum;
}

double SquaredDistance(const Corner& p, const Corner& a, const Corner& b)
{
  const double dx = b.x - a.x, dy = b.y - a.y, px = p.x - a.x, py = p.y - a.y;
  const double length = dx * dx + dy * dy, along = px * dx + py * dy;
  if (length == 0. || along <= 0.)
  {
    return px * px + py * py;
  }
  if (along >= length)
  {
    return (px - dx) * (px - dx) + (py - dy) * (py - dy);
  }
  const double cross = px * dy - py * dx;
  return cross * cross / length;
}

/** The first of the corners between two that is farthest from the line between those. */
std::size_t Farthest(const Ring& arc, std::size_t begin, std::size_t end, double& distance)
{
  std::size_t found = begin;
  distance = 0.;
  for (auto k = begin + 1; k < end; ++k)
  {
    const double d = SquaredDistance(arc[k], arc[begin], arc[end]);
    if (d > distance)
    {
      distance = d;
      found = k;
    }
  }
  return found;
}

/** What is left of an arc, both ends included. */
Ring SimplifyArc(Ring arc, double tolerance)
{
  // Seen from one end, whichever of the two sets asks.
  const auto last = arc.size() - 1;
  const bool loop = arc.front() == arc.back();
  const bool backward = loop ? arc[last - 1] < arc[1] : arc.back() < arc.front();
  if (backward)
  {
    std::reverse(arc.begin(), arc.end());
  }
  std::vector<bool> keep(arc.size(), false);
  keep[0] = keep[last] = true;
  std::vector<std::pair<std::size_t, std::size_t>> parts;
  double distance = 0.;
  if (loop)
  {
    const auto far = Farthest(arc, 0, last, distance);
    keep[far] = true;
    parts = {{0, far}, {far, last}};
    // Two corners are no ring: the third is the one farthest from their line.
    double a = 0., b = 0.;
    const auto first = Farthest(arc, 0, far, a), second = Farthest(arc, far, last, b);
    keep[b > a ? second : first] = true;
  }
  else
  {
    parts = {{0, last}};
  }
  while (!parts.empty())
  {
    const auto [begin, end] = parts.back();
    parts.pop_back();
    const auto far = Farthest(arc, begin, end, distance);
    if (distance > tolerance * tolerance)
    {
      keep[far] = true;
      parts.push_back({begin, far});
      parts.push_back({far, end});
    }
  }
  Ring kept;
  for (std::size_t k = 0; k <= last; ++k)
  {
    if (keep[k])
    {
      kept.push_back(arc[k]);
    }
  }
  if (backward)
  {
    std::reverse(kept.begin(), kept.end());
  }
  return kept;
}
} // namespace

Outline TraceOutline(const std::vector<Ring>& rings)
{
  std::vector<Junction> junctions;
  for (const auto& ring : rings)
  {
    for (std::size_t k = 0; k < ring.size(); ++k)
    {
      auto at = ring[k];
      const auto& to = ring[k + 1 < ring.size() ? k + 1 : 0];
      const int dx = Sign(to.x - at.x), dy = Sign(to.y - at.y);
      if (dx != 0 && dy != 0)
      {
        throw Error("an outline that leaves the edges of pixels");
      }
      while (!(at == to))
      {
        junctions.push_back({at, static_cast<std::uint8_t>(1 << WayOf(dx, dy))});
        at.x += dx;
        at.y += dy;
        junctions.push_back({at, static_cast<std::uint8_t>(1 << WayOf(-dx, -dy))});
      }
    }
  }
  std::sort(junctions.begin(), junctions.end());
  std::size_t count = 0;
  for (std::size_t k = 0; k < junctions.size(); ++k)
  {
    if (count > 0 && junctions[count - 1].at == junctions[k].at)
    {
      junctions[count - 1].ways |= junctions[k].ways;
    }
    else
    {
      junctions[count++] = junctions[k];
    }
  }
  junctions.resize(count);

  const auto step = [&](std::size_t from, Way way)
  {
    if (way == East || way == West)
    {
      return way == East ? from + 1 : from - 1;
    }
    const Corner to{junctions[from].at.x, junctions[from].at.y + stepY[way]};
    return static_cast<std::size_t>(std::lower_bound(junctions.begin(), junctions.end(), Junction{to, 0}) - junctions.begin());
  };
  Outline outline;
  for (std::size_t start = 0; start < junctions.size(); ++start)
  {
    while (junctions[start].ways)
    {
      // Its first corner is the upper left one of the set, or of a hole: with the set on the right.
      const Way first = outline.empty() ? East : South;
      if (!(junctions[start].ways & (1 << first)))
      {
        throw Error("an outline that is not closed");
      }
      Ring ring;
      std::size_t at = start;
      Way way = first;
      do
      {
        ring.push_back(junctions[at].at);
        junctions[at].ways &= ~(1 << way);
        at = step(at, way);
        const auto back = static_cast<Way>((way + 2) % 4);
        junctions[at].ways &= ~(1 << back);
        if (at == start)
        {
          break;
        }
        // Where two parts touch, turning left stays with what lies outside, so that parts come apart there.
        const auto left = static_cast<Way>((way + 1) % 4), right = static_cast<Way>((way + 3) % 4);
        const auto ways = junctions[at].ways;
        way = ways & (1 << left) ? left : ways & (1 << way) ? way : right;
        if (!(ways & (1 << way)))
        {
          throw Error("an outline that is not closed");
        }
      } while (true);
      outline.push_back(std::move(ring));
    }
  }
  return outline;
}

std::int64_t PixelsWithin(const Outline& outline)
{
  // With the set on the right and y downwards the outer ring counts above 0, holes below.
  std::int64_t twice = 0;
  for (const auto& ring : outline)
  {
    twice += Twice(ring);
  }
  return twice / 2;
}

Ring Turns(const Ring& ring)
{
  Ring turns;
  for (std::size_t k = 0; k < ring.size(); ++k)
  {
    const auto &a = ring[k > 0 ? k - 1 : ring.size() - 1], &b = ring[k], &c = ring[k + 1 < ring.size() ? k + 1 : 0];
    if (Sign(b.x - a.x) != Sign(c.x - b.x) || Sign(b.y - a.y) != Sign(c.y - b.y))
    {
      turns.push_back(b);
    }
  }
  return turns;
}

Ring Simplify(const Ring& ring, const IsNode& isNode, double tolerance)
{
  const auto n = ring.size();
  std::size_t start = 0;
  while (start < n && !isNode(ring[start]))
  {
    ++start;
  }
  const bool closed = start == n;
  start = closed ? 0 : start; // a ring begins with the first of its corners, whoever asks
  Ring simple, arc{ring[start]};
  for (std::size_t k = 1; k <= n; ++k)
  {
    const auto& corner = ring[(start + k) % n];
    arc.push_back(corner);
    if (k == n || (!closed && isNode(corner)))
    {
      const auto kept = SimplifyArc(arc, tolerance);
      simple.insert(simple.end(), kept.begin(), kept.end() - 1);
      arc = {corner};
    }
  }
  return simple;
}

} // namespace dl
} // namespace otb
