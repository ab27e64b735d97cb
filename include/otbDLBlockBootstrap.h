/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLBlockBootstrap_h
#define otbDLBlockBootstrap_h

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

namespace otb
{
namespace dl
{

/** \class BlockTable
 * \brief What is counted in each block of a map, kept without the zeros.
 * \ingroup OTBTorch
 */
class BlockTable
{
public:
  /** \param width counts of a block */
  explicit BlockTable(std::size_t width = 0) : m_Width(width) {}

  std::size_t Width() const { return m_Width; }
  std::size_t Blocks() const { return m_Start.size() - 1; }

  /** Where a block lies: its column and row among the blocks of a map. */
  struct Place
  {
    std::int64_t map = 0;
    std::int64_t x = 0;
    std::int64_t y = 0;
  };

  /** Adds a block. \param counts Width() of them */
  template <typename TCounts>
  void Add(const TCounts& counts, std::int64_t x, std::int64_t y)
  {
    for (std::size_t k = 0; k < m_Width; ++k)
    {
      if (counts[k] != 0)
      {
        m_Entries.emplace_back(static_cast<std::uint32_t>(k), static_cast<std::uint32_t>(counts[k]));
      }
    }
    m_Start.push_back(m_Entries.size());
    m_Places.push_back({0, x, y});
  }

  /** Adds a block of (number of the count, count). */
  void AddSparse(const std::vector<std::pair<std::uint32_t, std::uint32_t>>& entries, std::int64_t x, std::int64_t y)
  {
    m_Entries.insert(m_Entries.end(), entries.begin(), entries.end());
    m_Start.push_back(m_Entries.size());
    m_Places.push_back({0, x, y});
  }

  /** Adds the blocks of another map, of the same width. */
  void Add(const BlockTable& other);

  /** Adds a block, `times` times, to sums. */
  void AddTo(std::size_t block, double times, std::vector<double>& sums) const
  {
    for (std::size_t e = m_Start[block]; e < m_Start[block + 1]; ++e)
    {
      sums[m_Entries[e].first] += times * m_Entries[e].second;
    }
  }

  const std::vector<Place>& Places() const { return m_Places; }

private:
  std::size_t m_Width;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> m_Entries;
  std::vector<std::size_t> m_Start{0};
  std::vector<Place> m_Places;
};

struct BootstrapSettings
{
  int draws = 1000;
  std::uint32_t seed = 0;
  double level = .95;
};

/** Of one figure; NaN where undefined. */
struct Interval
{
  double low = 0.;
  double high = 0.;
};

/** Figures of summed counts. */
using BlockStatistic = std::function<std::vector<double>(const std::vector<double>& sums)>;

/** Intervals of figures by a bootstrap of blocks: bias corrected and accelerated (Efron, 1987), with the acceleration from leaving out each block in turn.
 *
 * Errors go on beyond the edge of a block: neighbours are alike, and the bootstrap, which takes them for independent, finds too little variance. Its intervals
 * are therefore widened around the figure by the square root of how much more variance there is with the covariances of neighbours, weighted by 3/4 at edges
 * and 9/16 at corners (Bartlett's weights for a width of four blocks, as in Conley, 1999, cut after the first neighbours); never narrowed.
 *
 * Blocks are drawn with replacement by keyed random numbers: the same whatever the streaming, and on every machine. Undefined for less than two blocks, and
 * where the figure, or more than a tenth of its draws, is undefined. Where all draws agree the interval is that one value. */
std::vector<Interval> BootstrapIntervals(const BlockTable& blocks, const BlockStatistic& statistic, const BootstrapSettings& settings);

/** Quantile of the standard normal distribution, p in (0, 1). */
double NormalQuantile(double p);

} // namespace dl
} // namespace otb

#endif
