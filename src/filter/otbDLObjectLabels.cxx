/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLObjectLabels.h"

#include "otbDLError.h"
#include "otbDLObjectRows.h"

#include <algorithm>
#include <cmath>

namespace otb
{
namespace dl
{

namespace
{
constexpr std::uint32_t isRoot = 0x80000000u;
constexpr std::uint32_t dropped = 0xffffffffu;
} // namespace

void ObjectStatistics::Add(const ObjectStatistics& o)
{
  pixels += o.pixels;
  horizontalEdges += o.horizontalEdges;
  verticalEdges += o.verticalEdges;
  area += o.area;
  perimeter += o.perimeter;
  scoreSum += o.scoreSum;
  scoreMax = scores == 0 || (o.scores > 0 && o.scoreMax > scoreMax) ? o.scoreMax : scoreMax;
  scores += o.scores;
}

ObjectLabels::ObjectLabels(std::int64_t width, std::int64_t height, const Rules& rules, const CellMeasure& measure)
    : m_Width(width), m_Height(height), m_Rules(rules), m_Measure(measure)
{
}

double ObjectLabels::PerimeterOf(const ObjectStatistics& s) const
{
  return m_Measure.byRow ? s.perimeter
                         : static_cast<double>(s.horizontalEdges) * m_Measure.horizontal + static_cast<double>(s.verticalEdges) * m_Measure.vertical;
}

void ObjectLabels::Split(const std::int32_t* cells)
{
  m_Now.clear();
  const auto width = static_cast<std::int32_t>(m_Width);
  for (std::int32_t x = 0; x < width;)
  {
    const auto cell = cells[x];
    const auto x0 = x;
    while (x < width && cells[x] == cell)
    {
      ++x;
    }
    // Without holes to fill, background and no-data are the same nothing.
    if (cell > 0 || m_Rules.fill > 0.)
    {
      m_Now.push_back({x0, x, cell, dropped});
    }
  }
}

/** Gives every run the label of the first run of the row before that it joins, and tells all of those. */
template <typename TMeet, typename TNew>
void ObjectLabels::Attach(TMeet meet, TNew makeNew)
{
  std::size_t from = 0;
  for (auto& now : m_Now)
  {
    while (from < m_Before.size() && m_Before[from].x1 < now.x0)
    {
      ++from;
    }
    if (now.cell == ObjectRows::NoData)
    {
      continue;
    }
    const bool atCorners = (now.cell == ObjectRows::Background) != m_Rules.eightConnected;
    for (auto k = from; k < m_Before.size() && m_Before[k].x0 <= now.x1; ++k)
    {
      const auto& before = m_Before[k];
      const auto overlap = std::min(now.x1, before.x1) - std::max(now.x0, before.x0);
      if (before.cell == now.cell && (overlap > 0 || atCorners))
      {
        now.label = now.label == dropped ? before.label : now.label;
        meet(now, before, overlap);
      }
    }
    if (now.label == dropped)
    {
      now.label = makeNew(now);
    }
  }
}

std::uint32_t ObjectLabels::Root(std::uint32_t label)
{
  while (!(m_Labels[label] & isRoot))
  {
    const auto next = m_Labels[m_Labels[label]];
    if (next & isRoot)
    {
      return m_Labels[label];
    }
    m_Labels[label] = next;
    label = next;
  }
  return label;
}

ObjectLabels::Component& ObjectLabels::Of(std::uint32_t label)
{
  return m_Components[m_Labels[Root(label)] & ~isRoot];
}

std::uint32_t ObjectLabels::NewLabel(std::int32_t cell, std::int64_t y)
{
  // One bit marks roots, and a value is taken.
  if (m_Labels.size() >= 0x7ffffffeu)
  {
    throw Error("the map falls into more than 2 147 483 646 pieces. Smooth it, or raise the opening.");
  }
  std::uint32_t slot = 0;
  if (m_Free.empty())
  {
    slot = static_cast<std::uint32_t>(m_Components.size());
    m_Components.emplace_back();
  }
  else
  {
    slot = m_Free.back();
    m_Free.pop_back();
    m_Components[slot] = {};
  }
  m_Components[slot].cell = cell;
  m_Components[slot].lastRow = y;
  m_Labels.push_back(slot | isRoot);
  return static_cast<std::uint32_t>(m_Labels.size() - 1);
}

void ObjectLabels::Release(std::uint32_t slot)
{
  m_Free.push_back(slot);
}

void ObjectLabels::Unite(std::uint32_t a, std::uint32_t b)
{
  a = Root(a);
  b = Root(b);
  if (a == b)
  {
    return;
  }
  if (b < a)
  {
    std::swap(a, b); // the label of the first pixel stays
  }
  const auto slot = m_Labels[b] & ~isRoot;
  auto& kept = m_Components[m_Labels[a] & ~isRoot];
  const auto& other = m_Components[slot];
  kept.Add(other);
  kept.lastRow = std::max(kept.lastRow, other.lastRow);
  kept.open = kept.open || other.open;
  kept.euler += other.euler;
  if (kept.ring == 0)
  {
    kept.ring = other.ring;
    kept.neighbour = other.neighbour;
  }
  else if (other.ring != 0 && other.ring != kept.ring)
  {
    kept.ring = -1;
  }
  m_Labels[b] = a;
  Release(slot);
}

/** Two runs that touch: one may be background, to which the other matters. */
void ObjectLabels::Surround(const Run& a, const Run& b)
{
  if (a.cell == b.cell || (a.cell != ObjectRows::Background && b.cell != ObjectRows::Background))
  {
    return;
  }
  const auto& inner = a.cell == ObjectRows::Background ? a : b;
  const auto& outer = a.cell == ObjectRows::Background ? b : a;
  auto& hole = Of(inner.label);
  if (outer.cell == ObjectRows::NoData)
  {
    hole.open = true;
  }
  else if (hole.ring == 0)
  {
    hole.ring = outer.cell;
    hole.neighbour = outer.label;
  }
  else if (hole.ring != outer.cell)
  {
    hole.ring = -1;
  }
}

/** What reached the row before but not row y is complete. */
void ObjectLabels::Settle(std::int64_t y)
{
  for (const auto& run : m_Before)
  {
    if (run.cell == ObjectRows::NoData)
    {
      continue;
    }
    const auto root = Root(run.label);
    if (m_Labels[root] == dropped)
    {
      continue;
    }
    const auto slot = m_Labels[root] & ~isRoot;
    auto& c = m_Components[slot];
    if (c.lastRow >= y || c.settled)
    {
      continue;
    }
    if (c.cell > 0)
    {
      c.settled = true;
      if (SizeOf(c) < m_Rules.minimum)
      {
        ++m_TooSmall;
        m_Labels[root] = dropped;
        Release(slot);
      }
      continue;
    }
    if (!c.open && c.euler == 1 && c.ring > 0 && SizeOf(c) <= m_Rules.fill)
    {
      const auto object = Root(c.neighbour);
      // Its edges all were the object's, which has lost them now.
      c.horizontalEdges = -c.horizontalEdges;
      c.verticalEdges = -c.verticalEdges;
      c.perimeter = -c.perimeter;
      m_Components[m_Labels[object] & ~isRoot].Add(c);
      m_Labels[root] = object;
      ++m_HolesFilled;
    }
    else
    {
      m_Labels[root] = dropped;
    }
    Release(slot);
  }
}

void ObjectLabels::AddRow(std::int64_t y, const std::int32_t* cells, const double* scores)
{
  Split(cells);
  const double across = m_Measure.byRow ? m_Measure.across[y] : 0.;
  Attach(
      [&](const Run& now, const Run& before, std::int32_t overlap)
      {
        if (now.label != before.label)
        {
          Unite(now.label, before.label);
        }
        auto& c = Of(now.label);
        --c.euler;
        if (overlap > 0)
        {
          c.horizontalEdges -= 2 * overlap;
          c.perimeter -= 2. * overlap * across;
        }
      },
      [&](const Run& now) { return NewLabel(now.cell, y); });

  for (const auto& run : m_Now)
  {
    if (run.cell == ObjectRows::NoData)
    {
      continue;
    }
    auto& c = Of(run.label);
    const auto length = run.x1 - run.x0;
    c.lastRow = y;
    c.pixels += length;
    c.horizontalEdges += 2 * length;
    c.verticalEdges += 2;
    ++c.euler;
    if (m_Measure.byRow)
    {
      c.area += length * m_Measure.areas[y];
      c.perimeter += length * (across + m_Measure.across[y + 1]) + 2. * m_Measure.heights[y];
    }
    c.open = c.open || y == 0 || y + 1 == m_Height || run.x0 == 0 || run.x1 == m_Width;
    if (scores)
    {
      for (auto x = run.x0; x < run.x1; ++x)
      {
        if (!std::isnan(scores[x]))
        {
          c.scoreSum += scores[x];
          c.scoreMax = c.scores == 0 ? scores[x] : std::max(c.scoreMax, scores[x]);
          ++c.scores;
        }
      }
    }
  }
  if (m_Rules.fill > 0.)
  {
    for (std::size_t k = 1; k < m_Now.size(); ++k)
    {
      Surround(m_Now[k - 1], m_Now[k]);
    }
    std::size_t from = 0;
    for (const auto& now : m_Now)
    {
      while (from < m_Before.size() && m_Before[from].x1 < now.x0)
      {
        ++from;
      }
      for (auto k = from; k < m_Before.size() && m_Before[k].x0 <= now.x1; ++k)
      {
        const auto& before = m_Before[k];
        if (!m_Rules.eightConnected || std::min(now.x1, before.x1) > std::max(now.x0, before.x0))
        {
          Surround(now, before);
        }
      }
    }
  }
  Settle(y);
  m_Before.swap(m_Now);
}

void ObjectLabels::Finish()
{
  Settle(m_Height);
  m_Before.clear();
  // A label was only ever joined to a lower one, so that one is done already.
  for (auto& label : m_Labels)
  {
    if (label == dropped)
    {
      label = 0;
    }
    else if (label & isRoot)
    {
      m_Objects.push_back(label & ~isRoot);
      label = static_cast<std::uint32_t>(m_Objects.size());
    }
    else
    {
      label = m_Labels[label];
    }
  }
}

void ObjectLabels::LabelRow(const std::int32_t* cells, std::int32_t* ids)
{
  Split(cells);
  Attach([](const Run&, const Run&, std::int32_t) {}, [&](const Run&) { return m_NextLabel++; });
  std::fill(ids, ids + m_Width, 0);
  for (const auto& run : m_Now)
  {
    if (run.cell != ObjectRows::NoData)
    {
      std::fill(ids + run.x0, ids + run.x1, static_cast<std::int32_t>(m_Labels[run.label]));
    }
  }
  m_Before.swap(m_Now);
}

} // namespace dl
} // namespace otb
