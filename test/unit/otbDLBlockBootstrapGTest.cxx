/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLBlockBootstrap.h"
#include "otbDLChangeMetrics.h"

#include <gmock/gmock.h>

#include <array>
#include <cmath>
#include <random>
#include <vector>

using namespace otb::dl;

namespace
{
std::vector<double> F1(const std::vector<double>& s)
{
  return {ValueOf(BinaryMetrics({s[0], s[1], s[2], s[3]}), "f1")};
}

/** Blocks of 1024 pixels in which rates of change, of finds and of false alarms vary from block to block, and pixels go together in clumps of 16. In
 * expectation: change 0.05 (uniform to 0.1), found 0.7 (0.4 to 1), false alarms 0.02 (0 to 0.04), so that F1 = 2 TP / (2 TP + FP + FN) is known. */
BlockTable Simulate(int blocks, std::mt19937& random)
{
  std::uniform_real_distribution<double> uniform;
  BlockTable table(4);
  for (int b = 0; b < blocks; ++b)
  {
    const double change = .1 * uniform(random), found = .4 + .6 * uniform(random), alarm = .04 * uniform(random);
    std::array<std::uint32_t, 4> c = {0, 0, 0, 0};
    for (int clump = 0; clump < 64; ++clump)
    {
      const bool changed = uniform(random) < change, said = uniform(random) < (changed ? found : alarm);
      c[said ? (changed ? 0 : 1) : (changed ? 2 : 3)] += 16;
    }
    table.Add(c, b % 10, b / 10);
  }
  return table;
}
constexpr double tp = .05 * .7, fp = .95 * .02, fn = .05 * .3, known = 2. * tp / (2. * tp + fp + fn);
} // namespace

TEST(BootstrapIntervals, CoverTheKnownF1AsOftenAsTheySay)
{
  std::mt19937 random(11);
  int covered = 0;
  for (int draw = 0; draw < 400; ++draw)
  {
    BootstrapSettings settings;
    settings.seed = static_cast<std::uint32_t>(draw);
    const auto interval = BootstrapIntervals(Simulate(100, random), F1, settings).front();
    covered += interval.low <= known && known <= interval.high;
  }
  RecordProperty("covered_of_400", covered);
  EXPECT_GE(covered, 372);
  EXPECT_LE(covered, 388);
}

TEST(BootstrapIntervals, OfAMeanAreThoseOfTheNormalDistribution)
{
  // The mean of many 0s and 1s: 0.3 +- 1.96 sqrt(0.21 / 1000).
  BlockTable table(2);
  for (int b = 0; b < 1000; ++b)
  {
    table.Add(std::array<std::uint32_t, 2>{b % 10 < 3, 1}, 2 * b, 0);
  }
  BootstrapSettings settings;
  settings.draws = 4000;
  const auto interval = BootstrapIntervals(
                            table, [](const std::vector<double>& s) { return std::vector<double>{s[0] / s[1]}; }, settings)
                            .front();
  const double half = 1.96 * std::sqrt(.21 / 1000.);
  EXPECT_NEAR(interval.low, .3 - half, .003);
  EXPECT_NEAR(interval.high, .3 + half, .003);
}

TEST(BootstrapIntervals, AreWiderWhereNeighboursAreAlike)
{
  // The same blocks: alike side by side, or apart.
  std::mt19937 random(9);
  BlockTable alike(2), apart(2);
  for (int b = 0; b < 400; ++b)
  {
    const std::array<std::uint32_t, 2> c = {static_cast<std::uint32_t>(random() % 10), 10};
    for (int k = 0; k < 2; ++k)
    {
      alike.Add(c, 2 * b + k, 0);
      apart.Add(c, 4 * b + 2 * k, 0);
    }
  }
  const auto share = [](const std::vector<double>& s) { return std::vector<double>{s[0] / s[1]}; };
  const auto a = BootstrapIntervals(alike, share, {}).front(), b = BootstrapIntervals(apart, share, {}).front();
  // Three quarters of their covariance count: 1.75 times the variance.
  EXPECT_NEAR((a.high - a.low) / (b.high - b.low), std::sqrt(1.75), .06);
}

TEST(BootstrapIntervals, AreTheSameEachTimeAndOthersForAnotherSeed)
{
  std::mt19937 random(5);
  const auto table = Simulate(60, random);
  BootstrapSettings settings;
  settings.draws = 300;
  const auto a = BootstrapIntervals(table, F1, settings).front(), b = BootstrapIntervals(table, F1, settings).front();
  EXPECT_EQ(a.low, b.low);
  EXPECT_EQ(a.high, b.high);
  settings.seed = 1;
  EXPECT_NE(BootstrapIntervals(table, F1, settings).front().low, a.low);
}

TEST(BootstrapIntervals, AreUndefinedWhereTheFigureIsAndOfASingleBlock)
{
  const BootstrapSettings settings;
  BlockTable one(4), empty(4), same(4);
  one.Add(std::array<std::uint32_t, 4>{1, 2, 3, 4}, 0, 0);
  EXPECT_TRUE(std::isnan(BootstrapIntervals(one, F1, settings).front().low));
  EXPECT_TRUE(std::isnan(BootstrapIntervals(BlockTable(4), F1, settings).front().low));
  for (int b = 0; b < 9; ++b)
  {
    empty.Add(std::array<std::uint32_t, 4>{0, 0, 0, 5}, b, 0);
    same.Add(std::array<std::uint32_t, 4>{2, 1, 1, 5}, b, 0);
  }
  EXPECT_TRUE(std::isnan(BootstrapIntervals(empty, F1, settings).front().high));
  const auto point = BootstrapIntervals(same, F1, settings).front();
  EXPECT_EQ(point.low, point.high);
  EXPECT_DOUBLE_EQ(point.low, 2. / 3.);
}

TEST(BlockTable, LeavesZerosOutAndAddsUp)
{
  BlockTable a(3), b(3);
  a.Add(std::array<std::uint32_t, 3>{1, 0, 2}, 4, 5);
  b.AddSparse({{1, 7}}, 4, 6);
  a.Add(b);
  ASSERT_EQ(a.Blocks(), 2u);
  std::vector<double> sums(3, 0.);
  a.AddTo(0, 2., sums);
  a.AddTo(1, 1., sums);
  EXPECT_THAT(sums, testing::ElementsAre(2., 7., 4.));
  // Blocks of two maps are no neighbours.
  EXPECT_NE(a.Places()[0].map, a.Places()[1].map);
}

TEST(NormalQuantile, IsTheInverseOfTheDistribution)
{
  EXPECT_NEAR(NormalQuantile(.975), 1.959963984540054, 1e-12);
  EXPECT_NEAR(NormalQuantile(.5), 0., 1e-12);
  EXPECT_NEAR(NormalQuantile(1e-4), -3.719016485455709, 1e-9);
}
