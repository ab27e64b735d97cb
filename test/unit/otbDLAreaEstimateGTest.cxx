/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLAreaEstimate.h"

#include <gmock/gmock.h>

#include <cmath>
#include <numeric>
#include <vector>

using namespace otb::dl;
using testing::ElementsAre;

namespace
{
double Rounded(double value, double unit)
{
  return std::round(value / unit) * unit;
}

/** Tables 8 and 9 of Olofsson et al. (2014): deforestation, forest gain, stable forest, stable non-forest. */
StratifiedSample Published()
{
  return {{1, 2, 3, 4}, {200000., 150000., 3200000., 6450000.}, {{66, 0, 5, 4}, {0, 55, 8, 12}, {1, 0, 153, 11}, {2, 1, 9, 313}}};
}
} // namespace

TEST(EstimateAreas, GivesThePublishedExampleToTheFiguresThatItPrints)
{
  const auto e = EstimateAreas(Published());
  const double proportions[4][4] = {{.0176, 0., .0013, .0011}, {0., .0110, .0016, .0024}, {.0019, 0., .2967, .0213}, {.0040, .0020, .0179, .6212}};
  const double users[4] = {.88, .73, .93, .96}, usersHalf[4] = {.07, .10, .04, .02};
  // The paper prints +-0.23 for forest gain and +-0.01 for stable non-forest; its equation 7 gives 0.254 and 0.018.
  const double producers[4] = {.75, .85, .93, .96}, producersHalf[4] = {.21, .25, .03, .02};
  // In hectares, pixels being 30 m x 30 m.
  const double area[4] = {21158., 11686., 285770., 581386.}, areaHalf[4] = {6158., 3756., 15510., 16282.};
  for (int j = 0; j < 4; ++j)
  {
    for (int h = 0; h < 4; ++h)
    {
      EXPECT_NEAR(Rounded(e.proportions[h][j], 1e-4), proportions[h][j], 1e-9) << h << ' ' << j;
    }
    EXPECT_NEAR(Rounded(e.users[j].value, .01), users[j], 1e-9) << j;
    EXPECT_NEAR(Rounded(e.users[j].half, .01), usersHalf[j], 1e-9) << j;
    EXPECT_NEAR(Rounded(e.producers[j].value, .01), producers[j], 1e-9) << j;
    EXPECT_NEAR(Rounded(e.producers[j].half, .01), producersHalf[j], 1e-9) << j;
    EXPECT_NEAR(Rounded(e.area[j].value * .09, 1.), area[j], 1e-6) << j;
    EXPECT_NEAR(Rounded(e.area[j].half * .09, 1.), areaHalf[j], 1e-6) << j;
  }
  EXPECT_NEAR(Rounded(e.overall.value, .01), .95, 1e-9);
  EXPECT_NEAR(Rounded(e.overall.half, .01), .02, 1e-9);
  EXPECT_NEAR(Rounded(e.area[0].value, 1.), 235086., 1e-6);
  EXPECT_NEAR(Rounded(e.area[0].half, 1.), 68418., 1e-6);
}

TEST(EstimateAreas, OfAPerfectSampleAreThoseOfTheMap)
{
  const auto e = EstimateAreas({{0, 1}, {900., 100.}, {{50, 0}, {0, 20}}});
  EXPECT_DOUBLE_EQ(e.area[1].value, 100.);
  EXPECT_EQ(e.area[1].half, 0.);
  EXPECT_EQ(e.overall.value, 1.);
  EXPECT_EQ(e.producers[1].value, 1.);
}

TEST(EstimateAreas, KnowClassesThatAreNoStratum)
{
  const auto e = EstimateAreas({{0, 1, 7}, {800., 200.}, {{38, 0, 2}, {0, 9, 1}}});
  EXPECT_NEAR(e.area[2].value, 800. * 2. / 40. + 200. * 1. / 10., 1e-9);
  EXPECT_EQ(e.producers[2].value, 0.);
  EXPECT_NEAR(e.area[0].value + e.area[1].value + e.area[2].value, 1000., 1e-9);
}

TEST(EstimateAreas, AreUndefinedWhereAStratumIsTooSmall)
{
  auto e = EstimateAreas({{0, 1}, {900., 100.}, {{49, 1}, {0, 1}}});
  EXPECT_TRUE(std::isnan(e.area[1].error));
  EXPECT_NEAR(e.area[1].value, 900. / 50. + 100., 1e-9);
  EXPECT_FALSE(std::isnan(e.users[0].error));
  e = EstimateAreas({{0, 1}, {900., 100.}, {{49, 1}, {0, 0}}});
  EXPECT_TRUE(std::isnan(e.area[1].value));
  EXPECT_TRUE(std::isnan(e.overall.value));
}

TEST(AllocateSample, SharesPointsOutAsThePaperDoes)
{
  // Table 5: 640 points, equally or by size.
  const std::vector<std::int64_t> mapped = {200000, 150000, 3200000, 6450000};
  EXPECT_THAT(AllocateSample(mapped, 640, Allocation::Equal, 1), ElementsAre(160, 160, 160, 160));
  EXPECT_THAT(AllocateSample(mapped, 640, Allocation::Proportional, 1), ElementsAre(13, 9, 205, 413));
}

TEST(AllocateSample, KeepsToPixelsAndLeast)
{
  EXPECT_THAT(AllocateSample({1000, 5, 1000}, 100, Allocation::Equal, 2), ElementsAre(48, 5, 47));
  EXPECT_THAT(AllocateSample({100000, 10}, 100, Allocation::Proportional, 8), ElementsAre(92, 8));
  EXPECT_THAT(AllocateSample({3, 4}, 100, Allocation::Proportional, 2), ElementsAre(3, 4));
  EXPECT_THAT(AllocateSample({}, 100, Allocation::Equal, 2), ElementsAre());
  for (const std::int64_t total : {7, 100, 1001})
  {
    for (const auto allocation : {Allocation::Equal, Allocation::Proportional})
    {
      const auto sizes = AllocateSample({12345, 678, 90, 1}, total, allocation, 1);
      EXPECT_EQ(std::accumulate(sizes.begin(), sizes.end(), std::int64_t(0)), std::min<std::int64_t>(total, 13114));
    }
  }
}
