/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLChangeMetrics.h"

#include <gmock/gmock.h>

#include <cmath>
#include <vector>

using namespace otb::dl;

namespace
{
/** A map and its reference of 3 x 3 pixels:
 *    1 1 0     1 0 0
 *    0 1 0     0 1 1
 *    0 0 0     0 0 0
 * TP 2, FP 1, FN 1, TN 5. */
BinaryCounts ThreeByThree()
{
  const int map[9] = {1, 1, 0, 0, 1, 0, 0, 0, 0}, reference[9] = {1, 0, 0, 0, 1, 1, 0, 0, 0};
  BinaryCounts c;
  for (int k = 0; k < 9; ++k)
  {
    c.Add(map[k] == 1, reference[k] == 1);
  }
  return c;
}
} // namespace

TEST(BinaryMetrics, OfThreeByThreePixelsByHand)
{
  const auto m = BinaryMetrics(ThreeByThree());
  EXPECT_DOUBLE_EQ(ValueOf(m, "precision"), 2. / 3.);
  EXPECT_DOUBLE_EQ(ValueOf(m, "recall"), 2. / 3.);
  EXPECT_DOUBLE_EQ(ValueOf(m, "f1"), 2. / 3.);
  EXPECT_DOUBLE_EQ(ValueOf(m, "iou"), 1. / 2.);
  EXPECT_DOUBLE_EQ(ValueOf(m, "oa"), 7. / 9.);
  EXPECT_DOUBLE_EQ(ValueOf(m, "kappa"), (7. / 9. - 45. / 81.) / (1. - 45. / 81.));
  EXPECT_DOUBLE_EQ(ValueOf(m, "f1_no_change"), 10. / 12.);
  EXPECT_DOUBLE_EQ(ValueOf(m, "mf1"), .5 * (2. / 3. + 10. / 12.));
  EXPECT_DOUBLE_EQ(ValueOf(m, "miou"), .5 * (1. / 2. + 5. / 7.));
  EXPECT_DOUBLE_EQ(ValueOf(m, "prevalence"), 3. / 9.);
  EXPECT_DOUBLE_EQ(ValueOf(m, "iou"), ValueOf(m, "f1") / (2. - ValueOf(m, "f1")));
}

TEST(BinaryMetrics, WithoutADenominatorAreUndefined)
{
  // Change neither predicted nor there.
  auto m = BinaryMetrics({0., 0., 0., 9.});
  for (const char* name : {"precision", "recall", "f1", "iou", "kappa", "mf1", "miou"})
  {
    EXPECT_TRUE(std::isnan(ValueOf(m, name))) << name;
  }
  EXPECT_EQ(ValueOf(m, "oa"), 1.);
  // None in the reference, some predicted.
  m = BinaryMetrics({0., 2., 0., 7.});
  EXPECT_EQ(ValueOf(m, "precision"), 0.);
  EXPECT_TRUE(std::isnan(ValueOf(m, "recall")));
  EXPECT_EQ(ValueOf(m, "f1"), 0.);
  EXPECT_EQ(ValueOf(m, "kappa"), 0.);
  // None predicted.
  m = BinaryMetrics({0., 0., 2., 7.});
  EXPECT_TRUE(std::isnan(ValueOf(m, "precision")));
  EXPECT_EQ(ValueOf(m, "recall"), 0.);
  // No pixel at all.
  m = BinaryMetrics({});
  for (const auto& [name, value] : m)
  {
    EXPECT_TRUE(std::isnan(value)) << name;
  }
}

TEST(SemanticMetrics, OfThreeByThreePixelsByHandInBothConventions)
{
  // Two classes A and B; codes 0, AA 1, AB 2, BA 3, BB 4.
  //   map  AB AB  0    reference  AB AB BA
  //         0 BA  0               0  AB  0
  //         0  0 AB               0   0  0
  const FromToCode codes(2);
  ASSERT_EQ(codes.Of(0, 1), 2);
  ASSERT_EQ(codes.Of(1, 0), 3);
  const int map[9] = {2, 2, 0, 0, 3, 0, 0, 0, 2}, reference[9] = {2, 2, 3, 0, 2, 0, 0, 0, 0};
  ConfusionMatrix h(codes.Codes());
  for (int k = 0; k < 9; ++k)
  {
    h.At(map[k], reference[k]) += 1.;
  }
  // By pixel: 2 right, 1 changed with the wrong transition, 1 false alarm, 1 missed, 4 unchanged.
  const double iou1 = 3. / 5., iou0 = 4. / 6.;
  const auto transitions = SemanticMetrics(h);
  EXPECT_DOUBLE_EQ(ValueOf(transitions, "miou"), .5 * (iou0 + iou1));
  EXPECT_DOUBLE_EQ(ValueOf(transitions, "fscd"), 2. / 4.);
  // Without the 4: n 5, trace 2; rows 0: 1, AB: 3, BA: 1; columns 0: 1, AB: 3, BA: 1.
  const double kappa = (2. / 5. - 11. / 25.) / (1. - 11. / 25.);
  EXPECT_NEAR(ValueOf(transitions, "sek"), kappa * std::exp(iou1 - 1.), 1e-15);
  EXPECT_NEAR(ValueOf(transitions, "score"), .3 * .5 * (iou0 + iou1) + .7 * kappa * std::exp(iou1 - 1.), 1e-15);

  // Both dates in one matrix of 3 labels: every pixel counts twice.
  const auto stack = TwoDateMatrix(h, codes);
  EXPECT_EQ(stack.Total(), 18.);
  const double expected[3][3] = {{8., 1., 1.}, {1., 2., 1.}, {1., 1., 2.}};
  for (int p = 0; p < 3; ++p)
  {
    for (int r = 0; r < 3; ++r)
    {
      EXPECT_EQ(stack.At(p, r), expected[p][r]) << p << ' ' << r;
    }
  }
  const auto labels = SemanticMetrics(stack);
  EXPECT_DOUBLE_EQ(ValueOf(labels, "miou"), ValueOf(transitions, "miou"));
  EXPECT_DOUBLE_EQ(ValueOf(labels, "fscd"), 4. / 8.);
  // Without the 8: n 10, trace 4; rows 2, 4, 4; columns 2, 4, 4.
  const double kappa2 = (4. / 10. - 36. / 100.) / (1. - 36. / 100.);
  EXPECT_NEAR(ValueOf(labels, "sek"), kappa2 * std::exp(iou1 - 1.), 1e-15);
  EXPECT_NE(ValueOf(labels, "sek"), ValueOf(transitions, "sek"));

  const auto first = DateMatrix(h, codes, 0);
  EXPECT_EQ(first.At(0, 0), 2.);
  EXPECT_EQ(first.At(1, 0), 1.);
  EXPECT_EQ(first.Total(), 3.);
}

TEST(SemanticMetrics, WithoutChangeAreUndefined)
{
  ConfusionMatrix h(5);
  h.At(0, 0) = 9.;
  const auto m = SemanticMetrics(h);
  for (const char* name : {"miou", "sek", "fscd", "score"})
  {
    EXPECT_TRUE(std::isnan(ValueOf(m, name))) << name;
  }
  EXPECT_EQ(ValueOf(m, "oa"), 1.);
  EXPECT_TRUE(std::isnan(ConfusionMatrix(3).Kappa()));
}

TEST(ConfusionMatrix, LeavesAbsentClassesOutOfItsMean)
{
  ConfusionMatrix h(3);
  h.At(0, 0) = 3.;
  h.At(0, 1) = 1.;
  h.At(1, 1) = 2.;
  EXPECT_TRUE(std::isnan(h.Iou(2)));
  EXPECT_DOUBLE_EQ(ValueOf(h.Metrics(), "miou"), .5 * (3. / 4. + 2. / 3.));
  EXPECT_DOUBLE_EQ(ValueOf(h.Metrics(), "oa"), 5. / 6.);
}

TEST(CalibrationSums, OfThreeByThreePixelsByHand)
{
  const double p[9] = {.02, .02, .02, .02, .5, .5, .9, .9, 1.};
  const int y[9] = {0, 0, 0, 1, 1, 0, 1, 0, 1};
  CalibrationSums sums, half, other;
  for (int k = 0; k < 9; ++k)
  {
    sums.Add(p[k], y[k] == 1);
    (k < 4 ? half : other).Add(p[k], y[k] == 1);
  }
  const auto m = sums.Metrics();
  EXPECT_NEAR(ValueOf(m, "brier"), (3. * .0004 + .9604 + .25 + .25 + .01 + .81 + 0.) / 9., 1e-15);
  // By the probability of change: bins of 0.02, of 0.5, of 0.9 (its 13th: 0.8667 to 0.9333), of 1.
  EXPECT_NEAR(ValueOf(m, "ece_change"), (std::abs(1. - .08) + 0. + std::abs(1. - 1.8) + 0.) / 9., 1e-15);
  // By confidence: 0.98 x 4 (3 right) and 1 (right) share the last bin; 0.5 x 2 (1 right); 0.9 x 2 (1 right).
  EXPECT_NEAR(ValueOf(m, "ece"), (std::abs(4. - 4.92) + 0. + std::abs(1. - 1.8)) / 9., 1e-15);
  EXPECT_NEAR(ValueOf(m, "ece_classwise"), .5 * (ValueOf(m, "ece_change") + ValueOf(m, "ece_no_change")), 1e-15);
  EXPECT_EQ(sums.Change()[0].count, 4);
  EXPECT_EQ(sums.Change()[14].count, 1);
  half.Add(other);
  EXPECT_NEAR(ValueOf(half.Metrics(), "ece"), ValueOf(m, "ece"), 1e-15);
  for (const auto& [name, value] : CalibrationSums().Metrics())
  {
    EXPECT_TRUE(std::isnan(value)) << name;
  }
}

TEST(ObjectMetrics, AreSharesOfMatches)
{
  const auto m = ObjectMetrics(4., 5., 3.);
  EXPECT_DOUBLE_EQ(ValueOf(m, "precision"), .75);
  EXPECT_DOUBLE_EQ(ValueOf(m, "recall"), .6);
  EXPECT_DOUBLE_EQ(ValueOf(m, "f1"), 6. / 9.);
  EXPECT_TRUE(std::isnan(ValueOf(ObjectMetrics(0., 5., 0.), "precision")));
  EXPECT_EQ(ValueOf(ObjectMetrics(0., 5., 0.), "f1"), 0.);
  EXPECT_TRUE(std::isnan(ValueOf(ObjectMetrics(0., 0., 0.), "f1")));
}
