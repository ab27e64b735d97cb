/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLChangeMetrics_h
#define otbDLChangeMetrics_h

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace otb
{
namespace dl
{

/** Figures by name, in the order in which they are shown. NaN: undefined. */
using MetricValues = std::vector<std::pair<std::string, double>>;

/** A figure of a list; NaN where it has none of that name. */
double ValueOf(const MetricValues& values, const std::string& name);

/** Pixels (or objects) of a decision against a reference; change is positive. */
struct BinaryCounts
{
  double tp = 0.;
  double fp = 0.;
  double fn = 0.;
  double tn = 0.;

  double Total() const { return tp + fp + fn + tn; }
  void Add(bool predicted, bool reference, double count = 1.) { (predicted ? (reference ? tp : fp) : (reference ? fn : tn)) += count; }
  void Add(const BinaryCounts& o)
  {
    tp += o.tp;
    fp += o.fp;
    fn += o.fn;
    tn += o.tn;
  }
};

/** precision, recall, f1, iou of change; oa, kappa; mf1, miou: means over change and no change.
 *
 * A quotient without a denominator is undefined (NaN): precision when no change is predicted, recall when the reference has none, f1 and iou when neither has
 * any, kappa when chance alone agrees everywhere; a mean is undefined where one of its parts is. */
MetricValues BinaryMetrics(const BinaryCounts& counts);

/** \class ConfusionMatrix
 * \brief Counts of (predicted, reference) classes, rows predicted.
 * \ingroup OTBTorch
 */
class ConfusionMatrix
{
public:
  explicit ConfusionMatrix(int classes = 0) : m_Classes(classes), m_Counts(static_cast<std::size_t>(classes) * classes, 0.) {}

  int Classes() const { return m_Classes; }
  double& At(int predicted, int reference) { return m_Counts[static_cast<std::size_t>(predicted) * m_Classes + reference]; }
  double At(int predicted, int reference) const { return m_Counts[static_cast<std::size_t>(predicted) * m_Classes + reference]; }
  double Total() const;
  double Row(int predicted) const;
  double Column(int reference) const;
  double Trace() const;
  void Add(const ConfusionMatrix& other);

  /** Cohen's; NaN for an empty matrix, or where chance alone agrees everywhere. */
  double Kappa() const;
  /** Of one class; NaN where neither has it. */
  double Iou(int c) const;
  /** oa, kappa, miou over the classes that either has. */
  MetricValues Metrics() const;

private:
  int m_Classes;
  std::vector<double> m_Counts;
};

/** \class FromToCode
 * \brief Codes of transitions between K classes: 0 is no change, 1 + i K + j is from class i to class j.
 * \ingroup OTBTorch
 */
class FromToCode
{
public:
  explicit FromToCode(int classes = 0) : m_Classes(classes) {}
  int Classes() const { return m_Classes; }
  int Codes() const { return 1 + m_Classes * m_Classes; }
  int Of(int from, int to) const { return 1 + from * m_Classes + to; }
  int From(int code) const { return (code - 1) / m_Classes; }
  int To(int code) const { return (code - 1) % m_Classes; }

private:
  int m_Classes;
};

/** From a matrix of transitions (1 + K K classes) to the one of labels (1 + K classes, 0 no change) in which both dates are counted: the histogram of SECOND's
 * evaluation (Yang et al., 2022), in which a pixel counts twice. */
ConfusionMatrix TwoDateMatrix(const ConfusionMatrix& fromTo, const FromToCode& codes);

/** Labels of one date alone, in pixels that changed in both. \param date 0 or 1 */
ConfusionMatrix DateMatrix(const ConfusionMatrix& fromTo, const FromToCode& codes, int date);

BinaryCounts BinaryOf(const ConfusionMatrix& withNoChangeFirst);

/** oa, miou (binary!), sek, fscd, score, precision and recall behind Fscd, iou of change and no change, kappa without the true no-change, of a matrix whose
 * class 0 is no change (Yang et al., 2022; Ding et al., 2024).
 *
 * With H' = H but H'(0,0) = 0: SeK = kappa(H') exp(IoU1 - 1); Score = 0.3 mIoU + 0.7 SeK; Fscd = 2PR/(P+R), P = sum of H(c,c) over c > 0 by the pixels
 * predicted as change, R by those of the reference. */
MetricValues SemanticMetrics(const ConfusionMatrix& h);

/** \class CalibrationSums
 * \brief What calibration needs of pairs (probability of change, did it change?); sums may be added.
 * \ingroup OTBTorch
 */
class CalibrationSums
{
public:
  static constexpr int bins = 15;

  struct Bin
  {
    std::int64_t count = 0;
    std::int64_t hits = 0;
    double sum = 0.; ///< of what was promised
  };

  /** Bin k holds [k/15, (k+1)/15), the last one 1 as well. */
  static int BinOf(double p) { return p >= 1. ? bins - 1 : static_cast<int>(p * bins); }

  void Add(double probability, bool change);
  void Add(const CalibrationSums& other);

  /** By the probability of change. */
  const std::array<Bin, bins>& Change() const { return m_Change; }

  /** ece: of the confidence max(p, 1 - p) in the likelier class (Guo et al., 2017; change from 0.5 on); ece_change, ece_no_change: of the probability of each
   * class; ece_classwise: their mean; brier: mean of (p - y) squared; mean_probability, prevalence. */
  MetricValues Metrics() const;

private:
  std::array<Bin, bins> m_Change, m_NoChange, m_Confidence;
  double m_Squares = 0.;
};

/** precision, recall, f1 of objects: matched by predicted, by reference objects. */
MetricValues ObjectMetrics(double predicted, double reference, double matched);

} // namespace dl
} // namespace otb

#endif
