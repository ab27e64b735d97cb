/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// When a series leaves what is normal: closed forms, what noise does, how soon and how exactly a shift is found, gaps.
#include "otbDLError.h"
#include "otbDLRupture.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace
{

using namespace otb::dl;

const float nan = std::numeric_limits<float>::quiet_NaN();
const float infinity = std::numeric_limits<float>::infinity();
const KeyedRandom keyed(7, 3);

RuptureSettings Plain(int reference, int persistence = 0)
{
  RuptureSettings settings;
  settings.reference = reference;
  settings.persistence = persistence;
  settings.permutations = 0;
  return settings;
}

RuptureResult Detect(const RuptureSettings& settings, const std::vector<float>& scores, std::int64_t x = 0, std::int64_t y = 0)
{
  return RuptureDetector(settings, keyed).Detect(scores, x, y);
}

/** Seven scores of median 0 whose 1.4826 MAD is 1: what comes after them is z itself. */
std::vector<float> Unit()
{
  const float one = 1.f / 1.4826f;
  return {-one, one, -one, 0.f, one, -one, one};
}

std::vector<float> After(std::vector<float> begin, const std::vector<float>& rest)
{
  begin.insert(begin.end(), rest.begin(), rest.end());
  return begin;
}

struct Noise
{
  explicit Noise(unsigned seed) : engine(seed) {}
  std::vector<float> operator()(int n)
  {
    std::vector<float> values(n);
    for (float& v : values)
    {
      v = normal(engine);
    }
    return values;
  }
  std::mt19937 engine;
  std::normal_distribution<float> normal;
};

void ExpectFinite(const RuptureResult& r)
{
  EXPECT_TRUE(std::isfinite(r.statistic) && std::isfinite(r.pvalue) && std::isfinite(r.cusum) && std::isfinite(r.logMartingale));
  EXPECT_GE(r.statistic, 0.f);
  EXPECT_GT(r.pvalue, 0.f);
  EXPECT_LE(r.pvalue, 1.f);
  EXPECT_GE(r.cusum, 0.f);
  EXPECT_GE(r.logMartingale, 0.f);
}

void ExpectNoAlarm(const RuptureResult& r)
{
  EXPECT_EQ(r.alarm, -1);
  EXPECT_EQ(r.onset, -1);
  EXPECT_EQ(r.martingaleAlarm, -1);
  ExpectFinite(r);
}

TEST(Rupture, CusumIsTheSumOfWhatExceedsTheDrift)
{
  // S after the reference: 1.5, 0 (z = -2), 2.5, 4, 5.5: alarm at the third of the rise, which begins after the return to 0.
  const auto r = Detect(Plain(7), After(Unit(), {2.f, -2.f, 3.f, 2.f, 2.f, -9.f}));
  EXPECT_EQ(r.valid, 13);
  EXPECT_NEAR(r.cusum, 5.5f, 1e-5f);
  EXPECT_EQ(r.alarm, 11);
  EXPECT_EQ(r.onset, 9);
}

TEST(Rupture, ARiseFromTheFirstDateWatchedBeginsThere)
{
  const auto r = Detect(Plain(7), After(Unit(), {4.f, 4.f}));
  EXPECT_EQ(r.alarm, 8);
  EXPECT_EQ(r.onset, 7);
}

TEST(Rupture, OneUnusualDateRaisesNoAlarmWherePersistenceAsksForTwo)
{
  // What one cloud leaves in S does not make the quiet dates after it an alarm either.
  EXPECT_EQ(Detect(Plain(7, 0), After(Unit(), {0.f, 50.f, 0.f, 0.f, 0.f})).alarm, 8);
  EXPECT_EQ(Detect(Plain(7, 2), After(Unit(), {0.f, 50.f, 0.f, 0.f, 0.f})).alarm, -1);
  EXPECT_EQ(Detect(Plain(7, 2), After(Unit(), {0.f, 50.f, 0.f, 2.5f, 0.f})).alarm, 10);
  EXPECT_EQ(Detect(Plain(7, 2), After(Unit(), {0.f, 50.f, 0.f, 0.f, 2.5f})).alarm, -1);
  EXPECT_EQ(Detect(Plain(7, 3), After(Unit(), {0.f, 50.f, 0.f, 2.5f, 0.f})).alarm, -1);
  EXPECT_EQ(Detect(Plain(7, 3), After(Unit(), {50.f, 50.f, 50.f})).alarm, 9);
}

TEST(Rupture, SplitOfAStepIsItsClosedForm)
{
  // 6 zeros and 4 ones: difference 1, sqrt(6 4 / 10), variance 2.4 / 9 about the mean: their ratio is sqrt(n - 1).
  RuptureSettings settings;
  const auto r = Detect(settings, {0, 0, 0, 0, 0, 0, 1, 1, 1, 1});
  EXPECT_EQ(r.rupture, 5);
  EXPECT_NEAR(r.statistic, 3.f, 1e-6f);
  EXPECT_LT(r.pvalue, .05f); // 2 of the 210 arrangements are as extreme
  // Both ways: an offline split is one of change, not of rise.
  EXPECT_NEAR(Detect(settings, {1, 1, 1, 1, 1, 1, 0, 0, 0, 0}).statistic, 3.f, 1e-6f);
}

TEST(Rupture, SplitIsTheBestOfAllThatLeaveTwoDatesOnEitherSide)
{
  Noise noise(1);
  for (int k = 0; k < 200; ++k)
  {
    const int n = 4 + k % 30;
    const auto s = noise(n);
    double mean = 0., variance = 0., best = 0.;
    int where = -1;
    for (const float v : s)
    {
      mean += v / n;
    }
    for (const float v : s)
    {
      variance += (v - mean) * (v - mean) / (n - 1);
    }
    for (int cut = 2; cut <= n - 2; ++cut)
    {
      double first = 0., second = 0.;
      for (int i = 0; i < n; ++i)
      {
        (i < cut ? first : second) += s[i];
      }
      const double t = std::abs(first / cut - second / (n - cut)) * std::sqrt(double(cut) * (n - cut) / n / variance);
      if (t > best)
      {
        best = t;
        where = cut - 1;
      }
    }
    const auto r = Detect(Plain(0), s);
    ASSERT_EQ(r.rupture, where);
    ASSERT_NEAR(r.statistic, best, 1e-5 * best);
    ASSERT_EQ(r.pvalue, 1.f); // none asked for
  }
}

TEST(Rupture, PermutationPIsUniformWhereNothingHappens)
{
  RuptureSettings settings;
  settings.permutations = 99;
  Noise noise(2);
  const int series = 2000;
  int counts[10] = {};
  for (int k = 0; k < series; ++k)
  {
    const float p = Detect(settings, noise(20), k % 50, k / 50).pvalue;
    ++counts[std::min(9, static_cast<int>(std::ceil(p * 10.f - 1e-4f)) - 1)];
  }
  double chi2 = 0.;
  for (const int c : counts)
  {
    chi2 += (c - series / 10.) * (c - series / 10.) / (series / 10.);
  }
  EXPECT_LT(chi2, 27.9); // .999 of 9 degrees of freedom
}

TEST(Rupture, ThresholdFromFalseAlarmsFollowsSiegmund)
{
  auto settings = Plain(0);
  EXPECT_EQ(RuptureDetector(settings, keyed).Threshold(100), 5.);
  settings.threshold = 0.;
  for (const double alpha : {.01, .1})
  {
    settings.falseAlarms = alpha;
    for (const int watched : {4, 20, 100, 1000})
    {
      const double h = RuptureDetector(settings, keyed).Threshold(watched), b = h + 1.166;
      EXPECT_NEAR(2. * (std::exp(b) - b - 1.), -watched / std::log(1. - alpha), 1e-6 * watched / alpha);
    }
  }
  // h = 5 is where it says 938; the exact figure is 930.
  settings.falseAlarms = 1. - std::exp(-1.);
  EXPECT_NEAR(RuptureDetector(settings, keyed).Threshold(938), 5., .002);
  // Without a drift the mean time is b squared.
  settings.drift = 0.;
  EXPECT_NEAR(RuptureDetector(settings, keyed).Threshold(100), 10. - 1.166, 1e-9);
}

/** Mean time to an alarm of noise of known mean and standard deviation: the time watched over the alarms (series end after the first, or after 1000 dates). */
double MeanTimeToAlarm(int series, unsigned seed)
{
  const int watched = 1000;
  Noise noise(seed);
  double time = 0.;
  int alarms = 0;
  const RuptureDetector detector(Plain(7), keyed);
  for (int k = 0; k < series; ++k)
  {
    const auto r = detector.Detect(After(Unit(), noise(watched)), k, 0);
    time += r.alarm < 0 ? watched : r.alarm - 6;
    alarms += r.alarm >= 0;
  }
  return time / alarms;
}

TEST(Rupture, CusumOfNoiseAlarmsEvery930Dates)
{
  // 1300 alarms: a standard error of 26.
  const double mean = MeanTimeToAlarm(2000, 3);
  RecordProperty("mean_time", std::to_string(mean));
  EXPECT_NEAR(mean, 930., 80.);
}

TEST(Rupture, CusumAlarmsComeEarlierWhenTheReferenceIsShort)
{
  // Over 60 dates the share of series with an alarm is 6 % where mean and standard deviation are known. The median and MAD of R dates are too small for some
  // series, which then alarm soon.
  std::vector<double> share, persistent;
  const int series = 2000, watched = 60;
  for (const int reference : {6, 12, 30, 100})
  {
    for (const int persistence : {0, 2})
    {
      Noise noise(4);
      const RuptureDetector detector(Plain(reference, persistence), keyed);
      int alarms = 0;
      for (int k = 0; k < series; ++k)
      {
        alarms += detector.Detect(noise(reference + watched), k, 0).alarm >= 0;
      }
      (persistence ? persistent : share).push_back(double(alarms) / series);
    }
    RecordProperty("share_of_60_dates_reference_" + std::to_string(reference), std::to_string(share.back()) + " " + std::to_string(persistent.back()));
  }
  for (std::size_t i = 1; i < share.size(); ++i)
  {
    EXPECT_LT(share[i], share[i - 1]);
  }
  EXPECT_LT(share.back(), .15);
  for (std::size_t i = 0; i < share.size(); ++i)
  {
    EXPECT_LT(persistent[i], share[i]);
  }
}

TEST(Rupture, MartingaleAlarmsNoMoreOftenThanItSays)
{
  for (const double alpha : {.05, .2})
  {
    auto settings = Plain(0);
    settings.falseAlarms = alpha;
    const RuptureDetector detector(settings, keyed);
    Noise noise(5);
    const int series = 2000;
    int alarms = 0, tied = 0;
    for (int k = 0; k < series; ++k)
    {
      auto s = noise(60);
      alarms += detector.Detect(s, k, 0).martingaleAlarm >= 0;
      for (float& v : s)
      {
        v = std::round(v); // ties
      }
      tied += detector.Detect(s, k, 1).martingaleAlarm >= 0;
    }
    const double band = alpha * series + 3. * std::sqrt(series * alpha * (1. - alpha));
    EXPECT_LE(alarms, band) << alpha;
    EXPECT_LE(tied, band) << alpha;
    EXPECT_GT(alarms, 0);
  }
}

TEST(Rupture, BetIsFairOnEqualScores)
{
  // All tied: each p is its uniform number alone, whose bets the test makes by itself.
  auto settings = Plain(6);
  const auto r = Detect(settings, std::vector<float>(30, 4.f), 12, -5);
  double bet = 0., highest = 0.;
  for (int t = 6; t < 30; ++t)
  {
    bet += std::log(.5 / std::sqrt(keyed.Uniform(12, -5, t, 0)));
    highest = std::max(highest, bet);
  }
  EXPECT_NEAR(r.logMartingale, highest, 1e-5);
}

TEST(Rupture, AShiftIsFoundWithItsDate)
{
  const int series = 500, before = 24, after = 16;
  Noise noise(6);
  RuptureSettings settings;
  settings.reference = 15;
  settings.permutations = 199;
  const RuptureDetector detector(settings, keyed);
  int found = 0, onTime = 0, martingale = 0, split = 0, significant = 0;
  for (int k = 0; k < series; ++k)
  {
    auto s = noise(before + after);
    for (int t = before; t < before + after; ++t)
    {
      s[t] += 4.f;
    }
    const auto r = detector.Detect(s, k, 0);
    found += r.alarm >= before && r.alarm <= before + 5;
    onTime += std::abs(r.onset - before) <= 2;
    martingale += r.martingaleAlarm >= before;
    split += std::abs(r.rupture - (before - 1)) <= 1;
    significant += r.pvalue <= .005f;
  }
  RecordProperty("found_onset_martingale_split",
                 std::to_string(found) + " " + std::to_string(onTime) + " " + std::to_string(martingale) + " " + std::to_string(split));
  EXPECT_GE(found, .85 * series);
  EXPECT_GE(onTime, .65 * series);    // noise may have lifted S off 0 before; the split is the better date
  EXPECT_GE(martingale, .5 * series); // its guarantee costs power in short series
  EXPECT_GE(split, .98 * series);
  EXPECT_EQ(significant, series);
}

TEST(Rupture, DatesWithoutDataLeaveEveryState)
{
  RuptureSettings settings;
  settings.reference = 10;
  auto s = Noise(8)(30);
  for (int t = 20; t < 30; ++t)
  {
    s[t] += 5.f;
  }
  const auto r = Detect(settings, s, 3, 4);
  ASSERT_GE(r.alarm, 20);
  // Between any two dates: what has none. Dates of the result move, the rest stays; p of ties alone depends on the date, and there are none here to speak of.
  std::vector<float> gaps;
  for (std::size_t t = 0; t < s.size(); ++t)
  {
    gaps.push_back(t % 3 ? nan : infinity);
    gaps.push_back(s[t]);
  }
  const auto g = Detect(settings, gaps, 3, 4);
  EXPECT_EQ(g.valid, r.valid);
  EXPECT_EQ(g.alarm, 2 * r.alarm + 1);
  EXPECT_EQ(g.onset, 2 * r.onset + 1);
  EXPECT_EQ(g.rupture, 2 * r.rupture + 1);
  EXPECT_EQ(g.cusum, r.cusum);
  EXPECT_EQ(g.statistic, r.statistic);
  EXPECT_EQ(g.pvalue, r.pvalue);
  ExpectFinite(g);
}

TEST(Rupture, AMaskedDateAtTheEndChangesNothingAtAll)
{
  RuptureSettings settings;
  auto s = Noise(9)(40);
  const auto r = Detect(settings, s, 3, 4);
  s.push_back(nan);
  s.push_back(-infinity);
  const auto g = Detect(settings, s, 3, 4);
  EXPECT_EQ(g.pvalue, r.pvalue);
  EXPECT_EQ(g.logMartingale, r.logMartingale);
  EXPECT_EQ(g.cusum, r.cusum);
  EXPECT_EQ(g.rupture, r.rupture);
}

TEST(Rupture, TooFewDatesRaiseNoAlarm)
{
  for (int n = 0; n <= 7; ++n)
  {
    std::vector<float> s(n, 0.f);
    for (int t = n / 2; t < n; ++t)
    {
      s[t] = 100.f;
    }
    ExpectNoAlarm(Detect(RuptureSettings(), s));
  }
  ExpectNoAlarm(Detect(Plain(20), After(Noise(1)(20), {1e6f})));
  EXPECT_EQ(Detect(Plain(20), After(Noise(1)(20), {1e6f, 1e6f})).alarm, 20);
  EXPECT_EQ(Detect(RuptureSettings(), {}).valid, 0);
  EXPECT_EQ(Detect(RuptureSettings(), {1.f, 2.f, 3.f}).rupture, -1);
}

TEST(Rupture, EqualScoresAndNoneAtAllSayNothing)
{
  for (const float v : {0.f, .1f, -1e30f, std::numeric_limits<float>::max()})
  {
    const auto r = Detect(RuptureSettings(), std::vector<float>(50, v));
    EXPECT_EQ(r.valid, 50);
    EXPECT_EQ(r.rupture, -1);
    EXPECT_EQ(r.statistic, 0.f);
    EXPECT_EQ(r.pvalue, 1.f);
    EXPECT_EQ(r.cusum, 0.f);
    EXPECT_EQ(r.alarm, -1);
    ExpectFinite(r);
  }
  const auto r = Detect(RuptureSettings(), std::vector<float>(50, nan));
  EXPECT_EQ(r.valid, 0);
  ExpectNoAlarm(r);
}

TEST(Rupture, ARippleOnAConstantIsNoAlarm)
{
  // A reference of equal scores: 5 % of them is one standard deviation.
  std::vector<float> s(30, 100.f);
  for (int t = 15; t < 30; ++t)
  {
    s[t] = 102.f;
  }
  EXPECT_EQ(Detect(RuptureSettings(), s).alarm, -1);
  for (int t = 15; t < 30; ++t)
  {
    s[t] = 120.f;
  }
  EXPECT_EQ(Detect(RuptureSettings(), s).alarm, 16);
}

TEST(Rupture, HugeScoresStayFinite)
{
  const float huge = std::numeric_limits<float>::max();
  auto s = std::vector<float>(40, -huge);
  for (int t = 20; t < 40; ++t)
  {
    s[t] = huge;
  }
  ExpectFinite(Detect(RuptureSettings(), s));
  s.assign(40, 0.f);
  s[20] = s[21] = huge;
  ExpectFinite(Detect(RuptureSettings(), s));
  EXPECT_EQ(Detect(RuptureSettings(), s).alarm, 21);
}

TEST(Rupture, OfThePixelNotOfTheOrderInWhichPixelsCome)
{
  const RuptureDetector detector(RuptureSettings(), keyed);
  const auto s = Noise(10)(30);
  const float p = detector.Detect(s, -7, 1000000).pvalue;
  bool differs = false;
  for (int x = 0; x < 20; ++x)
  {
    differs = differs || detector.Detect(s, x, 0).pvalue != p;
  }
  EXPECT_TRUE(differs);
  EXPECT_EQ(detector.Detect(s, -7, 1000000).pvalue, p);
}

TEST(Rupture, SettingsOutOfRangeAreRefused)
{
  const auto refused = [](auto change)
  {
    RuptureSettings settings;
    change(settings);
    EXPECT_THROW(RuptureDetector(settings, keyed), Error);
  };
  refused([](auto& s) { s.reference = -1; });
  refused([](auto& s) { s.reference = 2; });
  refused([](auto& s) { s.drift = -.1; });
  refused([](auto& s) { s.drift = nan; });
  refused([](auto& s) { s.threshold = -1.; });
  refused([](auto& s) { s.falseAlarms = 0.; });
  refused([](auto& s) { s.falseAlarms = 1.; });
  refused([](auto& s) { s.kappa = 1.; });
  refused([](auto& s) { s.kappa = nan; });
  refused([](auto& s) { s.persistence = 4; });
  refused([](auto& s) { s.permutations = -1; });
}

} // namespace
