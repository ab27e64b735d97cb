/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLScoreCurve_h
#define otbDLScoreCurve_h

#include "otbDLChangeMetrics.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace otb
{
namespace dl
{

/** \class ScoreBins
 * \brief Bins of a score, in the order of its values: one a value where it has few values (exact); else half of them share out the ranks, and half the orders
 * of magnitude of the upper tail, where rare change is. No outlier widens them.
 * \ingroup OTBTorch
 */
class ScoreBins
{
public:
  static constexpr std::size_t most = 65536;

  /** Number of bins. */
  std::size_t Size() const { return m_Low.size(); }
  /** Is there one bin a value? */
  bool Exact() const { return m_Exact; }
  /** Bin of a finite score that was counted. */
  std::uint32_t Of(float score) const;
  /** Least score of a bin. */
  float Low(std::size_t bin) const { return m_Low[bin]; }
  float Minimum() const { return m_Minimum; }
  float Maximum() const { return m_Maximum; }
  /** Pixels counted, of all files. */
  std::int64_t Total() const { return m_Total; }

  /** Coarser bins for statistics of many blocks: half of them share out the ranks, half the (decimal) orders of magnitude of the upper tail, where rare change
   * is. \return for each bin the number of its coarse bin, of at most `count` */
  std::vector<std::uint32_t> Coarse(std::size_t count) const;

private:
  friend class ScoreBinsBuilder;
  std::vector<float> m_Low;
  std::vector<std::int64_t> m_Counts;
  std::vector<std::uint32_t> m_First; ///< by the leading bits of a score: its bin, or where to look from, or (marked) its place in m_Sub
  std::vector<std::uint32_t> m_Sub;   ///< by the other bits: its bin
  float m_Minimum = 0.f;
  float m_Maximum = 0.f;
  std::int64_t m_Total = 0;
  bool m_Exact = true;
};

/** \class ScoreBinsBuilder
 * \brief Finds bins in one or two passes, in constant memory. The bins depend on which scores were added, not on how.
 *
 * Counts by the leading 22 bits of a float (sign, exponent and 13 bits of the mantissa) and remembers distinct values until there are too many. Then, in a
 * second pass, the 4096 fullest of these are counted by all bits: scores crowd where a network is sure. Add() may be called from several threads. \ingroup
 * OTBTorch
 */
class ScoreBinsBuilder
{
public:
  /** \param most bins */
  explicit ScoreBinsBuilder(std::size_t most = ScoreBins::most);
  ~ScoreBinsBuilder();

  /** Finite scores. */
  void Add(const float* scores, std::size_t count);

  /** After the first pass: is there to be a second one, in which the same scores are added again? */
  bool Refine();

  ScoreBins Build() const;

private:
  void Remember(std::uint32_t key);
  void Bound(std::uint32_t least, std::uint32_t greatest);

  std::size_t m_Most;
  std::unique_ptr<std::atomic<std::int64_t>[]> m_Counts;
  std::unique_ptr<std::atomic<std::uint64_t>[]> m_Distinct; ///< a hash table of keys, each with a bit that says that there is one
  std::size_t m_Slots;
  std::atomic<std::size_t> m_Remembered{0};
  std::vector<std::uint32_t> m_Place; ///< in the second pass: of a prefix among those refined, from 1
  std::unique_ptr<std::atomic<std::int64_t>[]> m_Fine;
  std::size_t m_Refined = 0;
  std::atomic<std::uint32_t> m_Least{0xffffffffu};
  std::atomic<std::uint32_t> m_Greatest{0};
};

/** Counts by bin of pixels that changed and that did not. */
struct ScoreCounts
{
  std::vector<std::int64_t> change;
  std::vector<std::int64_t> noChange;

  explicit ScoreCounts(std::size_t bins = 0) : change(bins, 0), noChange(bins, 0) {}
  void Add(const ScoreCounts& other);
};

/** A curve of pixels at or above falling thresholds. */
struct ScoreCurve
{
  std::vector<double> threshold;
  std::vector<double> tp;
  std::vector<double> fp;
};

/** auroc (ties count half), ap (sum over thresholds of the gain in recall times precision), fpr95 (least share of false alarms at which 95 % of the changes are
 * found), best_f1 and best_f1_threshold (oracle), prevalence. NaN where the reference has only one of the classes (best_f1 and ap: no change). */
MetricValues ScoreMetrics(const ScoreCounts& counts, const ScoreBins& bins);

/** auroc and ap of counts from the lowest bin to the highest. */
std::pair<double, double> AreasUnderCurves(const double* noChange, const double* change, std::size_t bins);

/** At most `points` of it, its ends among them; those kept lie about equally far apart along the ROC and the precision-recall curve. */
ScoreCurve DecimatedCurve(const ScoreCounts& counts, const ScoreBins& bins, std::size_t points);

} // namespace dl
} // namespace otb

#endif
