/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// Thresholds against searches by brute force, known mixtures, ITK where it answers, ties and what cannot be split.
#include "otbDLError.h"
#include "otbDLThreshold.h"

#include "itkHistogram.h"
#include "itkMaximumEntropyThresholdCalculator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>

namespace
{

using namespace otb::dl;
using Rule = ThresholdRule;
using testing::HasSubstr;

ScoreHistogram Make(std::vector<std::int64_t> counts, double low = 0., double high = -1.)
{
  ScoreHistogram h;
  h.low = low;
  h.high = high > low ? high : low + static_cast<double>(counts.size());
  h.counts = std::move(counts);
  return h;
}

struct Part
{
  double weight, mean, deviation;
};

/** Expected counts of a sum of Gaussians: no chance in it. */
ScoreHistogram Mixture(const std::vector<Part>& parts, double total, int bins, double low, double high)
{
  ScoreHistogram h{low, high, std::vector<std::int64_t>(bins, 0)};
  for (int b = 0; b < bins; ++b)
  {
    double sum = 0.;
    for (const auto& p : parts)
    {
      const auto below = [&](double x) { return .5 * std::erfc(-(x - p.mean) / (p.deviation * std::sqrt(2.))); };
      sum += p.weight * (below(h.Edge(b)) - below(h.Edge(b) - h.Width()));
    }
    h.counts[b] = std::llround(total * sum);
  }
  return h;
}

std::vector<ScoreHistogram> Random(int count)
{
  std::vector<ScoreHistogram> all;
  std::mt19937 random(5);
  for (int k = 0; k < count; ++k)
  {
    const int bins = 4 + static_cast<int>(random() % 60);
    std::vector<std::int64_t> counts(bins, 0);
    for (int modes = 1 + static_cast<int>(random() % 3); modes > 0; --modes)
    {
      std::normal_distribution<double> normal(static_cast<double>(random() % bins), .5 + static_cast<double>(random() % 100) / 100. * bins / 6.);
      for (int n = 20 + static_cast<int>(random() % 300); n > 0; --n)
      {
        ++counts[std::clamp(static_cast<int>(normal(random)), 0, bins - 1)];
      }
    }
    counts[0] += 1;
    counts[bins - 1] += 1;
    all.push_back(Make(counts, -3., 4.5));
  }
  return all;
}

/** Splits after each bin that leaves something on both sides; the least of a cost, which sees the two parts as lists of (position, count). */
using Class = std::vector<std::pair<double, double>>;
double Least(const ScoreHistogram& h, const std::function<double(const Class&, const Class&)>& cost, double* threshold)
{
  double best = HUGE_VAL;
  for (std::size_t split = 0; split + 1 < h.counts.size(); ++split)
  {
    Class a, b;
    for (std::size_t k = 0; k < h.counts.size(); ++k)
    {
      if (h.counts[k] > 0)
      {
        (k <= split ? a : b).emplace_back(static_cast<double>(k), static_cast<double>(h.counts[k]));
      }
    }
    const double c = a.empty() || b.empty() ? HUGE_VAL : cost(a, b);
    if (c < best)
    {
      best = c;
      *threshold = h.Edge(split);
    }
  }
  return best;
}

struct Moments
{
  double n = 0., mean = 0., variance = 0.;
};

Moments Of(const Class& c)
{
  Moments m;
  for (const auto& [x, n] : c)
  {
    m.n += n;
    m.mean += n * x;
  }
  m.mean /= m.n;
  for (const auto& [x, n] : c)
  {
    m.variance += n * (x - m.mean) * (x - m.mean);
  }
  m.variance /= m.n;
  return m;
}

double OtsuCost(const Class& a, const Class& b)
{
  return Of(a).n * Of(a).variance + Of(b).n * Of(b).variance;
}

double KittlerCost(const Class& a, const Class& b)
{
  double cost = 1.;
  for (const auto* c : {&a, &b})
  {
    const auto m = Of(*c);
    const double p = m.n / (Of(a).n + Of(b).n);
    cost += 2. * p * std::log(std::sqrt(m.variance + 1. / 12.)) - 2. * p * std::log(p);
  }
  return cost;
}

double KapurCost(const Class& a, const Class& b)
{
  double entropy = 0.;
  for (const auto* c : {&a, &b})
  {
    for (const auto& [x, n] : *c)
    {
      const double p = n / Of(*c).n;
      entropy -= p * std::log(p);
    }
  }
  return -entropy;
}

/** The cost of a given threshold. */
double CostAt(const ScoreHistogram& h, double threshold, const std::function<double(const Class&, const Class&)>& cost)
{
  Class a, b;
  for (std::size_t k = 0; k < h.counts.size(); ++k)
  {
    if (h.counts[k] > 0)
    {
      (h.Edge(k) < threshold + .5 * h.Width() ? a : b).emplace_back(static_cast<double>(k), static_cast<double>(h.counts[k]));
    }
  }
  return cost(a, b);
}

class Exhaustive : public testing::TestWithParam<Rule>
{
};

TEST_P(Exhaustive, NoOtherSplitIsBetter)
{
  const auto cost = GetParam() == Rule::Otsu ? OtsuCost : GetParam() == Rule::Kapur ? KapurCost : KittlerCost;
  for (const auto& h : Random(200))
  {
    const auto choice = ChooseThreshold(h, GetParam());
    EXPECT_EQ(choice.rule, GetParam());
    double threshold = 0.;
    const double least = Least(h, cost, &threshold);
    // Costs, not thresholds: two splits may be as good but for rounding.
    EXPECT_NEAR(CostAt(h, choice.threshold, cost), least, 1e-9 * std::abs(least) + 1e-9);
  }
}

INSTANTIATE_TEST_SUITE_P(Rules, Exhaustive, testing::Values(Rule::Otsu, Rule::Kapur, Rule::Kittler),
                         [](const testing::TestParamInfo<Rule>& info) { return std::string(ToString(info.param)); });

TEST(Threshold, KapurIsThatOfItk)
{
  using HistogramType = itk::Statistics::Histogram<double>;
  int same = 0, asked = 0;
  for (const auto& h : Random(100))
  {
    auto histogram = HistogramType::New();
    histogram->SetMeasurementVectorSize(1);
    HistogramType::SizeType size(1);
    size[0] = h.counts.size();
    histogram->Initialize(size);
    for (std::size_t b = 0; b < h.counts.size(); ++b)
    {
      histogram->SetBinMin(0, b, static_cast<double>(b));
      histogram->SetBinMax(0, b, static_cast<double>(b + 1));
      histogram->SetFrequency(b, h.counts[b]);
    }
    auto calculator = itk::MaximumEntropyThresholdCalculator<HistogramType, double>::New();
    calculator->SetInput(histogram);
    calculator->Update();
    ++asked;
    same += std::abs(h.Edge(static_cast<std::size_t>(calculator->GetThreshold())) - ChooseThreshold(h, Rule::Kapur).threshold) < 1e-9;
  }
  EXPECT_GE(same, asked - 2); // it passes over splits that are better by less than 1e-5
}

TEST(Threshold, ByHand)
{
  // Two heaps: any of the rules parts them in the gap, after the lower one.
  const auto heaps = Make({0, 4, 8, 4, 0, 0, 0, 2, 4, 2, 0});
  for (const auto rule : {Rule::Otsu, Rule::Kittler, Rule::Kapur})
  {
    EXPECT_DOUBLE_EQ(ChooseThreshold(heaps, rule).threshold, 4.) << ToString(rule);
  }
  // Chord from (0, 100) to (10, 0): counts lie below it by 0, 40, 62, 65, 58, 49, 39 ...
  EXPECT_DOUBLE_EQ(ChooseThreshold(Make({100, 50, 18, 5, 2, 1, 1, 1, 1, 1}), Rule::Rosin).threshold, 4.);
  // Lower bins than the peak do not matter.
  EXPECT_DOUBLE_EQ(ChooseThreshold(Make({7, 30, 100, 50, 18, 5, 2, 1, 1, 1, 1, 1}), Rule::Rosin).threshold, 6.);
}

TEST(Threshold, OneDeviationApartTwiceIsFoundWhereTheyCross)
{
  // Equal deviations and weights: halfway.
  auto choice = ChooseThreshold(Mixture({{.5, 2., .5}, {.5, 6., .5}}, 1e9, 1000, 0., 8.), Rule::Em);
  EXPECT_EQ(choice.rule, Rule::Em);
  EXPECT_NEAR(choice.threshold, 4., .01);
  EXPECT_NEAR(choice.separation, 4., .02);
  // Equal deviations: halfway + s^2 ln(w1 / w2) / d.
  choice = ChooseThreshold(Mixture({{.9, 2., .5}, {.1, 5., .5}}, 1e9, 1000, 0., 8.), Rule::Em);
  EXPECT_NEAR(choice.threshold, 3.5 + .25 * std::log(9.) / 3., .01);
  // Others: where the densities are the same.
  choice = ChooseThreshold(Mixture({{.8, 1., .3}, {.2, 4., 1.}}, 1e9, 2000, -1., 9.), Rule::Auto);
  EXPECT_EQ(choice.rule, Rule::Em);
  const auto density = [&](double w, double m, double s) { return w / s * std::exp(-.5 * std::pow((choice.threshold - m) / s, 2.)); };
  EXPECT_NEAR(density(.8, 1., .3) / density(.2, 4., 1.), 1., .05);
  EXPECT_GT(choice.threshold, 1.);
  EXPECT_LT(choice.threshold, 4.);
  EXPECT_THAT(choice.reason, HasSubstr("cross"));
}

TEST(Threshold, OneModeWithATailIsCutByDeviations)
{
  // Exponential: most unsupervised scores.
  ScoreHistogram h{0., 20., std::vector<std::int64_t>(4096, 0)};
  for (std::size_t b = 0; b < h.counts.size(); ++b)
  {
    h.counts[b] = std::llround(1e8 * (std::exp(-h.Edge(b) + h.Width()) - std::exp(-h.Edge(b))));
  }
  const auto choice = ChooseThreshold(h, Rule::Auto);
  EXPECT_EQ(choice.rule, Rule::Deviation);
  EXPECT_LT(choice.separation, 1.);
  EXPECT_GT(choice.separation, 0.);
  EXPECT_DOUBLE_EQ(choice.threshold, ChooseThreshold(h, Rule::Deviation).threshold);
  EXPECT_THAT(choice.reason, HasSubstr("one mode"));
  // Mean and standard deviation are 1.
  EXPECT_NEAR(choice.threshold, 3.5, .01);
  // Rosin: where the slope is that of the chord, exp(-x) = 1/18 or so.
  EXPECT_NEAR(ChooseThreshold(h, Rule::Rosin).threshold, std::log(17.), .4);
}

TEST(Threshold, DoesNotDependOnScaleOrEmptyBins)
{
  for (const auto& h : Random(20))
  {
    auto scaled = h;
    scaled.low = h.low * 1000. + 7.;
    scaled.high = h.high * 1000. + 7.;
    auto wider = h;
    wider.counts.insert(wider.counts.begin(), 3, 0);
    wider.counts.insert(wider.counts.end(), 5, 0);
    wider.low = h.low - 3. * h.Width();
    wider.high = h.high + 5. * h.Width();
    for (const auto rule : {Rule::Auto, Rule::Deviation, Rule::Rosin, Rule::Em, Rule::Otsu, Rule::Kapur, Rule::Kittler})
    {
      const auto choice = ChooseThreshold(h, rule);
      EXPECT_EQ(choice.threshold, ChooseThreshold(h, rule).threshold);
      EXPECT_NEAR(ChooseThreshold(scaled, rule).threshold, choice.threshold * 1000. + 7., 1e-6) << ToString(rule);
      EXPECT_NEAR(ChooseThreshold(wider, rule).threshold, choice.threshold, 1e-9) << ToString(rule);
      EXPECT_NE(choice.rule, Rule::Auto);
      EXPECT_FALSE(choice.reason.empty());
    }
  }
}

TEST(Threshold, SomethingIsLeftOnBothSides)
{
  auto all = Random(100);
  all.push_back(Make({1, 1}));
  all.push_back(Make({0, 5, 0, 0, 1, 0}));
  all.push_back(Make({1000000000000, 0, 1}));
  all.push_back(Make({1, 0, 1000000000000}));
  all.push_back(Make({1, 0, 0, 0, 0, 0, 0, 1}));
  all.push_back(Make({7, 7, 7, 7, 7, 7, 7, 7}));
  all.push_back(Make({1000000000, 1, 1000000000}));
  for (const auto& h : all)
  {
    for (const auto rule : {Rule::Auto, Rule::Rosin, Rule::Em, Rule::Otsu, Rule::Kapur, Rule::Kittler})
    {
      const auto choice = ChooseThreshold(h, rule);
      if (choice.rule == Rule::Deviation)
      {
        continue; // nothing so far above the mean: no change
      }
      std::int64_t below = 0;
      for (std::size_t b = 0; b < h.counts.size(); ++b)
      {
        below += h.Edge(b) - .5 * h.Width() < choice.threshold + 1e-9 ? h.counts[b] : 0;
      }
      EXPECT_GT(below, 0) << ToString(rule) << ' ' << testing::PrintToString(h.counts);
      EXPECT_LT(below, h.Total()) << ToString(rule) << ' ' << testing::PrintToString(h.counts);
    }
  }
}

TEST(Threshold, TheFirstOfEqualSplits)
{
  // Symmetric: between the two occupied bins every split is as good.
  const auto h = Make({5, 0, 0, 0, 5});
  for (const auto rule : {Rule::Otsu, Rule::Kapur, Rule::Kittler})
  {
    EXPECT_DOUBLE_EQ(ChooseThreshold(h, rule).threshold, 1.) << ToString(rule);
  }
  // Two halves of the same variance, on which ITK's Kittler does not end.
  EXPECT_DOUBLE_EQ(ChooseThreshold(Make({1, 2, 1, 0, 0, 0, 1, 2, 1}), Rule::Kittler).threshold, 3.);
}

TEST(Threshold, WithoutATailAnotherRuleIsNamed)
{
  const auto choice = ChooseThreshold(Make({1, 2, 3, 9}), Rule::Rosin);
  EXPECT_EQ(choice.rule, Rule::Otsu);
  EXPECT_THAT(choice.reason, HasSubstr("no tail"));
}

TEST(Threshold, MoreThan32BitsOfPixels)
{
  auto h = Mixture({{.7, 2., .5}, {.3, 6., .5}}, 1e6, 64, 0., 8.);
  auto many = h;
  for (auto& c : many.counts)
  {
    c *= 100000000;
  }
  for (const auto rule : {Rule::Otsu, Rule::Kapur, Rule::Kittler, Rule::Rosin, Rule::Em})
  {
    EXPECT_NEAR(ChooseThreshold(h, rule).threshold, ChooseThreshold(many, rule).threshold, 1e-6) << ToString(rule);
  }
}

std::string Refusal(const ScoreHistogram& h)
{
  std::string text;
  for (const auto rule : {Rule::Auto, Rule::Rosin, Rule::Em, Rule::Otsu, Rule::Kapur, Rule::Kittler})
  {
    try
    {
      ChooseThreshold(h, rule);
      ADD_FAILURE() << ToString(rule);
    }
    catch (const Error& e)
    {
      text = e.what();
    }
  }
  return text;
}

TEST(Threshold, WhatCannotBeSplitIsRefusedWithAdvice)
{
  EXPECT_THAT(Refusal(Make({0, 0, 0})), HasSubstr("no valid pixel"));
  EXPECT_THAT(Refusal({0., 1., {}}), HasSubstr("no valid pixel"));
  EXPECT_THAT(Refusal(Make({0, 9, 0})), testing::AllOf(HasSubstr("about the same score, 1.5"), HasSubstr("Give the threshold")));
  EXPECT_THAT(Refusal({1., 1., {3, 4}}), HasSubstr("a range"));
  EXPECT_THAT(Refusal({0., HUGE_VAL, {3, 4}}), HasSubstr("a range"));
  EXPECT_THAT(Refusal(Make({3, -4, 2})), HasSubstr("negative"));
}

} // namespace
