/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLScoreCurve.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace otb
{
namespace dl
{

namespace
{
constexpr double undefined = std::numeric_limits<double>::quiet_NaN();
constexpr int prefixBits = 22;
constexpr std::size_t prefixes = std::size_t(1) << prefixBits;
constexpr std::size_t subs = std::size_t(1) << (32 - prefixBits);
constexpr std::size_t mostRefined = 4096;
constexpr std::uint32_t isRefined = 0x80000000u;
constexpr std::uint64_t taken = std::uint64_t(1) << 32;

/** Unsigned numbers in the order of the floats. */
std::uint32_t KeyOf(float value)
{
  value += 0.f; // no negative zero
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

float ValueOfKey(std::uint32_t key)
{
  const std::uint32_t bits = key & 0x80000000u ? key & 0x7fffffffu : ~key;
  float value = 0.f;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

std::uint32_t PrefixOf(std::uint32_t key)
{
  return key >> (32 - prefixBits);
}

/** Where a score lies, 0 to 1, of which `below` of `total` are lower. */
double PlaceOf(std::int64_t below, std::int64_t total)
{
  const double n = static_cast<double>(std::max<std::int64_t>(1, total)), tail = static_cast<double>(total - below) / n;
  return .5 * (1. - tail) - .5 * std::log10(std::max(tail, 1. / n)) / std::max(1., std::log10(n));
}

std::size_t BinAt(double place, std::size_t count)
{
  return static_cast<std::size_t>(std::min(static_cast<double>(count - 1), place * static_cast<double>(count)));
}
} // namespace

std::uint32_t ScoreBins::Of(float score) const
{
  const float value = score + 0.f;
  const auto key = KeyOf(value);
  auto bin = m_First[PrefixOf(key)];
  if (bin & isRefined)
  {
    return m_Sub[(bin & ~isRefined) * subs + (key & (subs - 1))];
  }
  if (m_Exact)
  {
    while (m_Low[bin] < value)
    {
      ++bin;
    }
  }
  return bin;
}

std::vector<std::uint32_t> ScoreBins::Coarse(std::size_t count) const
{
  std::vector<std::uint32_t> coarse(Size());
  std::int64_t below = 0;
  for (std::size_t b = 0; b < Size(); ++b)
  {
    coarse[b] = static_cast<std::uint32_t>(BinAt(PlaceOf(below, m_Total), count));
    below += m_Counts[b];
  }
  return coarse;
}

ScoreBinsBuilder::ScoreBinsBuilder(std::size_t most) : m_Most(most), m_Counts(new std::atomic<std::int64_t>[prefixes]), m_Slots(1)
{
  while (m_Slots < 4 * most)
  {
    m_Slots *= 2;
  }
  m_Distinct.reset(new std::atomic<std::uint64_t>[m_Slots]);
  for (std::size_t k = 0; k < prefixes; ++k)
  {
    m_Counts[k].store(0, std::memory_order_relaxed);
  }
  for (std::size_t k = 0; k < m_Slots; ++k)
  {
    m_Distinct[k].store(0, std::memory_order_relaxed);
  }
}

ScoreBinsBuilder::~ScoreBinsBuilder() = default;

void ScoreBinsBuilder::Remember(std::uint32_t key)
{
  for (std::size_t slot = (key * 2654435761u) & (m_Slots - 1);; slot = (slot + 1) & (m_Slots - 1))
  {
    std::uint64_t found = m_Distinct[slot].load(std::memory_order_relaxed);
    if (found == 0 && m_Distinct[slot].compare_exchange_strong(found, key | taken, std::memory_order_relaxed))
    {
      m_Remembered.fetch_add(1, std::memory_order_relaxed);
      return;
    }
    if (found == (key | taken))
    {
      return;
    }
  }
}

void ScoreBinsBuilder::Bound(std::uint32_t least, std::uint32_t greatest)
{
  auto found = m_Least.load(std::memory_order_relaxed);
  while (least < found && !m_Least.compare_exchange_weak(found, least, std::memory_order_relaxed))
  {
  }
  found = m_Greatest.load(std::memory_order_relaxed);
  while (greatest > found && !m_Greatest.compare_exchange_weak(found, greatest, std::memory_order_relaxed))
  {
  }
}

void ScoreBinsBuilder::Add(const float* scores, std::size_t count)
{
  if (count == 0)
  {
    return;
  }
  if (m_Refined > 0)
  {
    for (std::size_t k = 0; k < count; ++k)
    {
      const auto key = KeyOf(scores[k]);
      if (const auto place = m_Place[PrefixOf(key)])
      {
        m_Fine[(place - 1) * subs + (key & (subs - 1))].fetch_add(1, std::memory_order_relaxed);
      }
    }
    return;
  }
  std::uint32_t last = 0, least = 0xffffffffu, greatest = 0;
  std::int64_t run = 0;
  const auto flush = [&]
  {
    if (run > 0)
    {
      least = std::min(least, last);
      greatest = std::max(greatest, last);
      m_Counts[PrefixOf(last)].fetch_add(run, std::memory_order_relaxed);
      // Every thread may still add one: the table has room for four times as many.
      if (m_Remembered.load(std::memory_order_relaxed) <= m_Most)
      {
        Remember(last);
      }
    }
  };
  for (std::size_t k = 0; k < count; ++k)
  {
    const auto key = KeyOf(scores[k]);
    if (key != last || run == 0)
    {
      flush();
      last = key;
      run = 0;
    }
    ++run;
  }
  flush();
  Bound(least, greatest);
}

bool ScoreBinsBuilder::Refine()
{
  if (m_Refined > 0 || m_Remembered.load() <= m_Most)
  {
    return false;
  }
  std::vector<std::pair<std::int64_t, std::uint32_t>> full;
  for (std::size_t k = 0; k < prefixes; ++k)
  {
    const auto count = m_Counts[k].load(std::memory_order_relaxed);
    if (count > 1)
    {
      full.emplace_back(-count, static_cast<std::uint32_t>(k));
    }
  }
  const auto kept = std::min(full.size(), mostRefined);
  std::partial_sort(full.begin(), full.begin() + static_cast<std::ptrdiff_t>(kept), full.end());
  m_Place.assign(prefixes, 0);
  for (std::size_t k = 0; k < kept; ++k)
  {
    m_Place[full[k].second] = static_cast<std::uint32_t>(k + 1);
  }
  m_Fine.reset(new std::atomic<std::int64_t>[kept * subs]);
  for (std::size_t k = 0; k < kept * subs; ++k)
  {
    m_Fine[k].store(0, std::memory_order_relaxed);
  }
  m_Refined = kept;
  return kept > 0;
}

ScoreBins ScoreBinsBuilder::Build() const
{
  ScoreBins bins;
  std::vector<std::int64_t> counts(prefixes);
  for (std::size_t k = 0; k < prefixes; ++k)
  {
    counts[k] = m_Counts[k].load(std::memory_order_relaxed);
    bins.m_Total += counts[k];
  }
  bins.m_First.assign(prefixes, 0);
  bins.m_Exact = m_Remembered.load() <= m_Most;
  if (bins.m_Exact)
  {
    std::vector<std::uint32_t> keys;
    for (std::size_t k = 0; k < m_Slots; ++k)
    {
      const auto found = m_Distinct[k].load(std::memory_order_relaxed);
      if (found != 0)
      {
        keys.push_back(static_cast<std::uint32_t>(found));
      }
    }
    std::sort(keys.begin(), keys.end());
    for (const auto key : keys)
    {
      const auto prefix = PrefixOf(key);
      const bool first = bins.m_Low.empty() || PrefixOf(KeyOf(bins.m_Low.back())) != prefix;
      if (first)
      {
        bins.m_First[prefix] = static_cast<std::uint32_t>(bins.m_Low.size());
      }
      bins.m_Low.push_back(ValueOfKey(key));
      // Values that share a prefix were counted together: the share of each is not known, nor needed beyond coarse bins.
      bins.m_Counts.push_back(first ? counts[prefix] : 0);
    }
  }
  else
  {
    bins.m_Sub.assign(m_Refined * subs, 0);
    std::int64_t below = 0;
    std::size_t last = 0;
    const auto put = [&](std::uint32_t key, std::int64_t count)
    {
      const auto at = BinAt(PlaceOf(below, bins.m_Total), m_Most);
      if (bins.m_Low.empty() || at != last)
      {
        bins.m_Low.push_back(ValueOfKey(key));
        bins.m_Counts.push_back(0);
        last = at;
      }
      bins.m_Counts.back() += count;
      below += count;
      return static_cast<std::uint32_t>(bins.m_Low.size() - 1);
    };
    for (std::size_t k = 0; k < prefixes; ++k)
    {
      if (counts[k] == 0)
      {
        continue;
      }
      const auto key = static_cast<std::uint32_t>(k) << (32 - prefixBits);
      const auto place = m_Refined > 0 ? m_Place[k] : 0;
      if (place == 0)
      {
        bins.m_First[k] = put(key, counts[k]);
        continue;
      }
      bins.m_First[k] = isRefined | (place - 1);
      for (std::uint32_t j = 0; j < subs; ++j)
      {
        const auto count = m_Fine[(place - 1) * subs + j].load(std::memory_order_relaxed);
        if (count > 0)
        {
          bins.m_Sub[(place - 1) * subs + j] = put(key | j, count);
        }
      }
    }
  }
  if (!bins.m_Low.empty())
  {
    bins.m_Minimum = ValueOfKey(m_Least.load());
    bins.m_Maximum = ValueOfKey(m_Greatest.load());
    bins.m_Low.front() = bins.m_Minimum;
  }
  return bins;
}

void ScoreCounts::Add(const ScoreCounts& other)
{
  for (std::size_t b = 0; b < change.size(); ++b)
  {
    change[b] += other.change[b];
    noChange[b] += other.noChange[b];
  }
}

std::pair<double, double> AreasUnderCurves(const double* noChange, const double* change, std::size_t bins)
{
  double tp = 0., fp = 0., area = 0., precisions = 0.;
  for (std::size_t b = bins; b-- > 0;)
  {
    if (change[b] == 0. && noChange[b] == 0.)
    {
      continue;
    }
    // Of pairs of which this bin has the pixel without change: those above win, those in it are ties.
    area += noChange[b] * (tp + .5 * change[b]);
    tp += change[b];
    fp += noChange[b];
    precisions += change[b] * tp / (tp + fp);
  }
  return {tp > 0. && fp > 0. ? area / (tp * fp) : undefined, tp > 0. ? precisions / tp : undefined};
}

MetricValues ScoreMetrics(const ScoreCounts& counts, const ScoreBins& bins)
{
  double positive = 0., negative = 0.;
  for (std::size_t b = 0; b < bins.Size(); ++b)
  {
    positive += static_cast<double>(counts.change[b]);
    negative += static_cast<double>(counts.noChange[b]);
  }
  const std::vector<double> no(counts.noChange.begin(), counts.noChange.end()), yes(counts.change.begin(), counts.change.end());
  const auto [auroc, ap] = AreasUnderCurves(no.data(), yes.data(), bins.Size());
  double tp = 0., fp = 0., best = positive > 0. ? -1. : undefined, threshold = undefined, fpr95 = undefined;
  for (std::size_t b = bins.Size(); b-- > 0;)
  {
    if (counts.change[b] == 0 && counts.noChange[b] == 0)
    {
      continue;
    }
    tp += static_cast<double>(counts.change[b]);
    fp += static_cast<double>(counts.noChange[b]);
    const double f1 = 2. * tp / (tp + fp + positive);
    if (f1 > best)
    {
      best = f1;
      threshold = bins.Low(b);
    }
    if (std::isnan(fpr95) && positive > 0. && negative > 0. && tp >= .95 * positive)
    {
      fpr95 = fp / negative;
    }
  }
  return {{"auroc", auroc},
          {"ap", ap},
          {"fpr95", fpr95},
          {"best_f1", best},
          {"best_f1_threshold", threshold},
          {"prevalence", positive + negative > 0. ? positive / (positive + negative) : undefined}};
}

ScoreCurve DecimatedCurve(const ScoreCounts& counts, const ScoreBins& bins, std::size_t points)
{
  ScoreCurve all;
  double tp = 0., fp = 0.;
  for (std::size_t b = bins.Size(); b-- > 0;)
  {
    if (counts.change[b] == 0 && counts.noChange[b] == 0)
    {
      continue;
    }
    tp += static_cast<double>(counts.change[b]);
    fp += static_cast<double>(counts.noChange[b]);
    all.threshold.push_back(bins.Low(b));
    all.tp.push_back(tp);
    all.fp.push_back(fp);
  }
  if (all.tp.size() <= points)
  {
    return all;
  }
  // How far each point lies along both curves.
  const std::size_t n = all.tp.size();
  const double positive = std::max(1., tp), negative = std::max(1., fp);
  std::vector<double> way(n, 0.);
  for (std::size_t k = 1; k < n; ++k)
  {
    const double precision = all.tp[k] / (all.tp[k] + all.fp[k]), before = all.tp[k - 1] / (all.tp[k - 1] + all.fp[k - 1]);
    way[k] = way[k - 1] + (all.tp[k] - all.tp[k - 1]) / positive + (all.fp[k] - all.fp[k - 1]) / negative + std::abs(precision - before);
  }
  ScoreCurve few;
  const auto keep = [&](std::size_t k)
  {
    few.threshold.push_back(all.threshold[k]);
    few.tp.push_back(all.tp[k]);
    few.fp.push_back(all.fp[k]);
  };
  keep(0);
  double next = way.back() / static_cast<double>(points - 1);
  const double step = next;
  for (std::size_t k = 1; k + 1 < n; ++k)
  {
    if (way[k] >= next && few.tp.size() + 1 < points)
    {
      keep(k);
      while (next <= way[k])
      {
        next += step;
      }
    }
  }
  keep(n - 1);
  return few;
}

} // namespace dl
} // namespace otb
