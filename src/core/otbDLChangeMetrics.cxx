/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLChangeMetrics.h"

#include <cmath>
#include <limits>

namespace otb
{
namespace dl
{

namespace
{
constexpr double undefined = std::numeric_limits<double>::quiet_NaN();

double Ratio(double a, double b)
{
  return b > 0. ? a / b : undefined;
}
} // namespace

double ValueOf(const MetricValues& values, const std::string& name)
{
  for (const auto& v : values)
  {
    if (v.first == name)
    {
      return v.second;
    }
  }
  return undefined;
}

MetricValues BinaryMetrics(const BinaryCounts& c)
{
  const double n = c.Total();
  const double f1 = Ratio(2. * c.tp, 2. * c.tp + c.fp + c.fn), f0 = Ratio(2. * c.tn, 2. * c.tn + c.fp + c.fn);
  const double iou = Ratio(c.tp, c.tp + c.fp + c.fn), iou0 = Ratio(c.tn, c.tn + c.fp + c.fn);
  ConfusionMatrix h(2);
  h.At(0, 0) = c.tn;
  h.At(0, 1) = c.fn;
  h.At(1, 0) = c.fp;
  h.At(1, 1) = c.tp;
  return {{"precision", Ratio(c.tp, c.tp + c.fp)},
          {"recall", Ratio(c.tp, c.tp + c.fn)},
          {"f1", f1},
          {"iou", iou},
          {"oa", Ratio(c.tp + c.tn, n)},
          {"kappa", h.Kappa()},
          {"mf1", .5 * (f1 + f0)},
          {"miou", .5 * (iou + iou0)},
          {"f1_no_change", f0},
          {"iou_no_change", iou0},
          {"predicted_share", Ratio(c.tp + c.fp, n)},
          {"prevalence", Ratio(c.tp + c.fn, n)}};
}

double ConfusionMatrix::Total() const
{
  double sum = 0.;
  for (const double v : m_Counts)
  {
    sum += v;
  }
  return sum;
}

double ConfusionMatrix::Row(int predicted) const
{
  double sum = 0.;
  for (int r = 0; r < m_Classes; ++r)
  {
    sum += At(predicted, r);
  }
  return sum;
}

double ConfusionMatrix::Column(int reference) const
{
  double sum = 0.;
  for (int p = 0; p < m_Classes; ++p)
  {
    sum += At(p, reference);
  }
  return sum;
}

double ConfusionMatrix::Trace() const
{
  double sum = 0.;
  for (int c = 0; c < m_Classes; ++c)
  {
    sum += At(c, c);
  }
  return sum;
}

void ConfusionMatrix::Add(const ConfusionMatrix& other)
{
  for (std::size_t k = 0; k < m_Counts.size(); ++k)
  {
    m_Counts[k] += other.m_Counts[k];
  }
}

double ConfusionMatrix::Kappa() const
{
  // In counts, so that an agreement by chance of 1 is seen exactly.
  std::vector<double> rows(m_Classes, 0.), columns(m_Classes, 0.);
  double n = 0.;
  for (int p = 0; p < m_Classes; ++p)
  {
    for (int r = 0; r < m_Classes; ++r)
    {
      rows[p] += At(p, r);
      columns[r] += At(p, r);
      n += At(p, r);
    }
  }
  double chance = 0.;
  for (int c = 0; c < m_Classes; ++c)
  {
    chance += rows[c] * columns[c];
  }
  return n * n > chance ? (n * Trace() - chance) / (n * n - chance) : undefined;
}

double ConfusionMatrix::Iou(int c) const
{
  return Ratio(At(c, c), Row(c) + Column(c) - At(c, c));
}

MetricValues ConfusionMatrix::Metrics() const
{
  double sum = 0., present = 0.;
  for (int c = 0; c < m_Classes; ++c)
  {
    const double iou = Iou(c);
    if (!std::isnan(iou))
    {
      sum += iou;
      present += 1.;
    }
  }
  return {{"oa", Ratio(Trace(), Total())}, {"kappa", Kappa()}, {"miou", Ratio(sum, present)}};
}

ConfusionMatrix TwoDateMatrix(const ConfusionMatrix& fromTo, const FromToCode& codes)
{
  ConfusionMatrix h(1 + codes.Classes());
  for (int p = 0; p < codes.Codes(); ++p)
  {
    for (int r = 0; r < codes.Codes(); ++r)
    {
      const double count = fromTo.At(p, r);
      if (count != 0.)
      {
        h.At(p ? 1 + codes.From(p) : 0, r ? 1 + codes.From(r) : 0) += count;
        h.At(p ? 1 + codes.To(p) : 0, r ? 1 + codes.To(r) : 0) += count;
      }
    }
  }
  return h;
}

ConfusionMatrix DateMatrix(const ConfusionMatrix& fromTo, const FromToCode& codes, int date)
{
  ConfusionMatrix h(codes.Classes());
  for (int p = 1; p < codes.Codes(); ++p)
  {
    for (int r = 1; r < codes.Codes(); ++r)
    {
      h.At(date == 0 ? codes.From(p) : codes.To(p), date == 0 ? codes.From(r) : codes.To(r)) += fromTo.At(p, r);
    }
  }
  return h;
}

BinaryCounts BinaryOf(const ConfusionMatrix& h)
{
  BinaryCounts c;
  for (int p = 0; p < h.Classes(); ++p)
  {
    for (int r = 0; r < h.Classes(); ++r)
    {
      c.Add(p > 0, r > 0, h.At(p, r));
    }
  }
  return c;
}

MetricValues SemanticMetrics(const ConfusionMatrix& h)
{
  const auto binary = BinaryOf(h);
  const double iou1 = Ratio(binary.tp, binary.tp + binary.fp + binary.fn), iou0 = Ratio(binary.tn, binary.tn + binary.fp + binary.fn);
  const double miou = .5 * (iou0 + iou1);
  auto changed = h;
  changed.At(0, 0) = 0.;
  const double kappa = changed.Kappa(), sek = kappa * std::exp(iou1 - 1.);
  const double right = h.Trace() - h.At(0, 0);
  const double precision = Ratio(right, binary.tp + binary.fp), recall = Ratio(right, binary.tp + binary.fn);
  return {{"miou", miou},
          {"sek", sek},
          {"fscd", Ratio(2. * right, 2. * binary.tp + binary.fp + binary.fn)},
          {"score", .3 * miou + .7 * sek},
          {"fscd_precision", precision},
          {"fscd_recall", recall},
          {"iou_change", iou1},
          {"iou_no_change", iou0},
          {"kappa_change", kappa},
          {"oa", Ratio(h.Trace(), h.Total())}};
}

void CalibrationSums::Add(double probability, bool change)
{
  const auto put = [](Bin& bin, double promised, bool hit)
  {
    ++bin.count;
    bin.hits += hit;
    bin.sum += promised;
  };
  const double p = probability, q = 1. - p;
  put(m_Change[BinOf(p)], p, change);
  put(m_NoChange[BinOf(q)], q, !change);
  const bool predicted = p >= .5;
  const double confidence = predicted ? p : q;
  put(m_Confidence[BinOf(confidence)], confidence, predicted == change);
  m_Squares += (p - change) * (p - change);
}

void CalibrationSums::Add(const CalibrationSums& other)
{
  const auto add = [](std::array<Bin, bins>& to, const std::array<Bin, bins>& from)
  {
    for (int k = 0; k < bins; ++k)
    {
      to[k].count += from[k].count;
      to[k].hits += from[k].hits;
      to[k].sum += from[k].sum;
    }
  };
  add(m_Change, other.m_Change);
  add(m_NoChange, other.m_NoChange);
  add(m_Confidence, other.m_Confidence);
  m_Squares += other.m_Squares;
}

MetricValues CalibrationSums::Metrics() const
{
  double n = 0., hits = 0., sum = 0.;
  for (const auto& bin : m_Change)
  {
    n += static_cast<double>(bin.count);
    hits += static_cast<double>(bin.hits);
    sum += bin.sum;
  }
  const auto error = [n](const std::array<Bin, bins>& of)
  {
    double gaps = 0.;
    for (const auto& bin : of)
    {
      gaps += std::abs(static_cast<double>(bin.hits) - bin.sum);
    }
    return Ratio(gaps, n);
  };
  const double change = error(m_Change), noChange = error(m_NoChange);
  return {{"ece", error(m_Confidence)},   {"ece_change", change},
          {"ece_no_change", noChange},    {"ece_classwise", .5 * (change + noChange)},
          {"brier", Ratio(m_Squares, n)}, {"mean_probability", Ratio(sum, n)},
          {"prevalence", Ratio(hits, n)}};
}

MetricValues ObjectMetrics(double predicted, double reference, double matched)
{
  return {{"precision", Ratio(matched, predicted)}, {"recall", Ratio(matched, reference)}, {"f1", Ratio(2. * matched, predicted + reference)}};
}

} // namespace dl
} // namespace otb
