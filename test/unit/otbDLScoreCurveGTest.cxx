/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLScoreCurve.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <thread>
#include <vector>

using namespace otb::dl;

namespace
{
struct Scene
{
  std::vector<float> score;
  std::vector<int> change;
};

ScoreBins BinsOf(const Scene& s, std::size_t most = ScoreBins::most)
{
  ScoreBinsBuilder builder(most);
  builder.Add(s.score.data(), s.score.size());
  if (builder.Refine())
  {
    builder.Add(s.score.data(), s.score.size());
  }
  return builder.Build();
}

ScoreCounts Count(const Scene& s, const ScoreBins& bins)
{
  ScoreCounts counts(bins.Size());
  for (std::size_t k = 0; k < s.score.size(); ++k)
  {
    ++(s.change[k] ? counts.change : counts.noChange)[bins.Of(s.score[k])];
  }
  return counts;
}

/** By comparing all pairs. */
double Auroc(const Scene& s)
{
  double won = 0., pairs = 0.;
  for (std::size_t a = 0; a < s.score.size(); ++a)
  {
    for (std::size_t b = 0; b < s.score.size(); ++b)
    {
      if (s.change[a] && !s.change[b])
      {
        won += s.score[a] > s.score[b] ? 1. : s.score[a] == s.score[b] ? .5 : 0.;
        pairs += 1.;
      }
    }
  }
  return won / pairs;
}

Scene Random(std::size_t n, bool few)
{
  std::mt19937 random(3);
  std::normal_distribution<double> normal;
  Scene s;
  for (std::size_t k = 0; k < n; ++k)
  {
    const int change = random() % 7 == 0;
    const double value = normal(random) + change;
    s.score.push_back(static_cast<float>(few ? std::round(3. * value) : value));
    s.change.push_back(change);
  }
  return s;
}
} // namespace

TEST(ScoreMetrics, OfThreeByThreePixelsWithTiesByHand)
{
  const Scene s{{.9f, .8f, .8f, .5f, .5f, .5f, .2f, .1f, -1.f}, {1, 1, 0, 1, 0, 0, 0, 0, 0}};
  const auto bins = BinsOf(s);
  EXPECT_TRUE(bins.Exact());
  EXPECT_EQ(bins.Size(), 6u);
  const auto m = ScoreMetrics(Count(s, bins), bins);
  // Each change against the six others: 6, 5 + 1/2, 3 + 2/2 = 4 of 18.
  EXPECT_DOUBLE_EQ(ValueOf(m, "auroc"), 15.5 / 18.);
  // Thresholds .9, .8, .5: precision 1, 2/3, 3/6, each with a third of the changes.
  EXPECT_DOUBLE_EQ(ValueOf(m, "ap"), (1. + 2. / 3. + 3. / 6.) / 3.);
  EXPECT_DOUBLE_EQ(ValueOf(m, "fpr95"), 3. / 6.);
  EXPECT_DOUBLE_EQ(ValueOf(m, "best_f1"), 2. / 3.);
  EXPECT_EQ(ValueOf(m, "best_f1_threshold"), static_cast<double>(.8f));
  EXPECT_DOUBLE_EQ(ValueOf(m, "prevalence"), 1. / 3.);
  EXPECT_EQ(bins.Minimum(), -1.f);
  EXPECT_EQ(bins.Maximum(), .9f);
}

TEST(ScoreMetrics, OfOneClassAloneAreUndefined)
{
  const Scene none{{.1f, .2f, .3f}, {0, 0, 0}}, all{{.1f, .2f, .3f}, {1, 1, 1}};
  auto bins = BinsOf(none);
  auto m = ScoreMetrics(Count(none, bins), bins);
  for (const char* name : {"auroc", "ap", "fpr95", "best_f1", "best_f1_threshold"})
  {
    EXPECT_TRUE(std::isnan(ValueOf(m, name))) << name;
  }
  bins = BinsOf(all);
  m = ScoreMetrics(Count(all, bins), bins);
  EXPECT_TRUE(std::isnan(ValueOf(m, "auroc")));
  EXPECT_EQ(ValueOf(m, "ap"), 1.);
  EXPECT_EQ(ValueOf(m, "best_f1"), 1.);
  bins = ScoreBinsBuilder().Build();
  EXPECT_EQ(bins.Size(), 0u);
  m = ScoreMetrics(ScoreCounts(), bins);
  EXPECT_TRUE(std::isnan(ValueOf(m, "prevalence")));
}

TEST(ScoreMetrics, AreExactForFewAndForManyValues)
{
  for (const bool few : {true, false})
  {
    const auto s = Random(2000, few);
    const auto bins = BinsOf(s);
    EXPECT_TRUE(bins.Exact());
    EXPECT_NEAR(ValueOf(ScoreMetrics(Count(s, bins), bins), "auroc"), Auroc(s), 1e-12) << few;
  }
}

TEST(ScoreBins, KeepTheOrderAndShareOutTheRanksWhereThereAreTooManyValues)
{
  auto s = Random(20000, false);
  s.score[0] = 1e30f; // alone far away
  s.score[1] = -1e30f;
  const auto bins = BinsOf(s, 1000), exact = BinsOf(s);
  EXPECT_FALSE(bins.Exact());
  EXPECT_LE(bins.Size(), 1000u);
  EXPECT_GT(bins.Size(), 700u);
  auto sorted = s.score;
  std::sort(sorted.begin(), sorted.end());
  std::vector<int> held(bins.Size(), 0);
  for (std::size_t k = 0; k < sorted.size(); ++k)
  {
    const auto bin = bins.Of(sorted[k]);
    ++held[bin];
    EXPECT_GE(sorted[k], bins.Low(bin));
    if (k > 0)
    {
      EXPECT_GE(bin, bins.Of(sorted[k - 1]));
    }
  }
  EXPECT_LE(*std::max_element(held.begin(), held.end()), 40);
  EXPECT_EQ(held.back(), 1);
  EXPECT_EQ(bins.Minimum(), -1e30f);
  EXPECT_EQ(bins.Maximum(), 1e30f);
  const double binned = ValueOf(ScoreMetrics(Count(s, bins), bins), "auroc"), truth = ValueOf(ScoreMetrics(Count(s, exact), exact), "auroc");
  EXPECT_NEAR(binned, truth, 1e-4);
  const auto coarse = bins.Coarse(128);
  EXPECT_TRUE(std::is_sorted(coarse.begin(), coarse.end()));
  EXPECT_LT(coarse.back(), 128u);
}

TEST(ScoreBins, AreFineWhereANetworkIsSure)
{
  // Nearly all probabilities are within 1e-4 of 1 or 0: a few thousand floats of the millions between.
  std::mt19937 random(7);
  std::exponential_distribution<double> exponential(2e4);
  Scene s;
  for (int k = 0; k < 30000; ++k)
  {
    const int change = k % 10 == 0;
    const double gap = exponential(random);
    s.score.push_back(static_cast<float>(change || k % 9 == 0 ? 1. - gap * (change ? 1. : 3.) : gap));
    s.change.push_back(change);
  }
  const auto bins = BinsOf(s, 5000), exact = BinsOf(s);
  ASSERT_FALSE(bins.Exact());
  ASSERT_TRUE(exact.Exact());
  const auto binned = ScoreMetrics(Count(s, bins), bins), truth = ScoreMetrics(Count(s, exact), exact);
  for (const char* name : {"auroc", "ap", "best_f1"})
  {
    EXPECT_NEAR(ValueOf(binned, name), ValueOf(truth, name), 5e-4) << name;
  }
}

TEST(ScoreBins, DependOnTheScoresAlone)
{
  for (const std::size_t most : {std::size_t(500), ScoreBins::most})
  {
    const auto s = Random(9000, false);
    const auto once = BinsOf(s, most);
    ScoreBinsBuilder builder(most);
    for (bool again = true; again; again = builder.Refine())
    {
      std::vector<std::thread> threads;
      for (int t = 0; t < 3; ++t)
      {
        threads.emplace_back(
            [&, t]
            {
              for (std::size_t k = static_cast<std::size_t>(2 - t) * 3000; k < static_cast<std::size_t>(3 - t) * 3000; k += 100)
              {
                builder.Add(s.score.data() + k, 100);
              }
            });
      }
      for (auto& t : threads)
      {
        t.join();
      }
    }
    const auto parts = builder.Build();
    ASSERT_EQ(once.Size(), parts.Size());
    EXPECT_EQ(once.Exact(), parts.Exact());
    for (std::size_t b = 0; b < once.Size(); ++b)
    {
      EXPECT_EQ(once.Low(b), parts.Low(b));
    }
  }
}

TEST(ScoreBins, TellNegativeZeroFromNothing)
{
  const Scene s{{-0.f, 0.f, 1.f}, {0, 1, 1}};
  const auto bins = BinsOf(s);
  EXPECT_EQ(bins.Size(), 2u);
  EXPECT_DOUBLE_EQ(ValueOf(ScoreMetrics(Count(s, bins), bins), "auroc"), .75);
}

TEST(DecimatedCurve, KeepsItsEndsAndLiesOnTheWhole)
{
  const auto s = Random(30000, false);
  const auto bins = BinsOf(s);
  const auto counts = Count(s, bins);
  const auto whole = DecimatedCurve(counts, bins, 1000000), few = DecimatedCurve(counts, bins, 512);
  EXPECT_EQ(whole.tp.size(), bins.Size());
  EXPECT_LE(few.tp.size(), 512u);
  EXPECT_GT(few.tp.size(), 300u);
  EXPECT_EQ(few.tp.back(), whole.tp.back());
  EXPECT_EQ(few.fp.back(), whole.fp.back());
  EXPECT_EQ(few.threshold.front(), whole.threshold.front());
  double area = 0., tp = 0., fp = 0.;
  for (std::size_t k = 0; k < few.tp.size(); ++k)
  {
    area += .5 * (tp + few.tp[k]) * (few.fp[k] - fp);
    tp = few.tp[k];
    fp = few.fp[k];
  }
  EXPECT_NEAR(area / (tp * fp), ValueOf(ScoreMetrics(counts, bins), "auroc"), 1e-4);
}
