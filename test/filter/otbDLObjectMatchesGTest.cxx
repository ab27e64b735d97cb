/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// Objects of two maps matched by hand.
#include "otbDLError.h"
#include "otbDLObjectMatches.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace
{

using namespace otb::dl;

/** Rows of text: '#' change, '.' none, '?' no data. */
ObjectMatches Match(const std::vector<std::string>& map, const std::vector<std::string>& reference, const ObjectMatchSettings& settings = {})
{
  const auto width = static_cast<std::int64_t>(map.front().size()), height = static_cast<std::int64_t>(map.size());
  const auto cells = [](const std::string& row)
  {
    std::vector<std::int32_t> values;
    for (const char c : row)
    {
      values.push_back(c == '#' ? 1 : c == '.' ? 0 : -1);
    }
    return values;
  };
  return MatchObjects(width, height, settings, "",
                      [&](const ObjectRowVisit& visit)
                      {
                        for (std::int64_t y = 0; y < height; ++y)
                        {
                          visit(y, cells(map[y]).data(), cells(reference[y]).data());
                        }
                      });
}

} // namespace

TEST(MatchObjects, OfThreeByThreePixelsByHand)
{
  // The pair of two of three pixels has an IoU of 2/3; the single pixels do not meet.
  const auto m = Match({"##.", "...", "..#"}, {"###", "...", "#.."});
  EXPECT_EQ(m.predicted, 2);
  EXPECT_EQ(m.reference, 2);
  EXPECT_EQ(m.matched, 1);
  EXPECT_EQ(m.predictedPixels, 3);
  EXPECT_EQ(m.referencePixels, 4);
  EXPECT_EQ(m.matchedPixels, 3);
  EXPECT_DOUBLE_EQ(m.meanIou, 2. / 3.);
  EXPECT_FALSE(m.areaKnown);
}

TEST(MatchObjects, TakesAnIouOfExactlyAHalfAndNoneBelow)
{
  EXPECT_EQ(Match({"#..", "...", "..."}, {"##.", "...", "..."}).matched, 1);
  EXPECT_EQ(Match({"#..", "...", "..."}, {"###", "...", "..."}).matched, 0);
  ObjectMatchSettings strict;
  strict.iou = .6;
  EXPECT_EQ(Match({"#..", "...", "..."}, {"##.", "...", "..."}, strict).matched, 0);
}

TEST(MatchObjects, JoinsAtCornersWhenAsked)
{
  ObjectMatchSettings corners;
  corners.eightConnected = true;
  EXPECT_EQ(Match({"#..", ".#.", "..#"}, {"#..", ".#.", "..#"}).matched, 3);
  EXPECT_EQ(Match({"#..", ".#.", "..#"}, {"#..", ".#.", "..#"}, corners).matched, 1);
}

TEST(MatchObjects, LeavesSmallOnesOutOnBothSides)
{
  ObjectMatchSettings settings;
  settings.minimum = 2.;
  const auto m = Match({"##.", "...", "#.#"}, {"##.", "...", "#.."}, settings);
  EXPECT_EQ(m.predicted, 1);
  EXPECT_EQ(m.reference, 1);
  EXPECT_EQ(m.matched, 1);
}

TEST(MatchObjects, KnowsNothingOfPixelsWithoutData)
{
  const auto m = Match({"#?#", "???", "..."}, {"#?#", "???", "..."});
  EXPECT_EQ(m.predicted, 2);
  EXPECT_EQ(m.matched, 2);
  const auto none = Match({"???", "???", "???"}, {"???", "???", "???"});
  EXPECT_EQ(none.predicted + none.reference, 0);
  EXPECT_EQ(none.blocks.Blocks(), 0u);
  EXPECT_TRUE(std::isnan(none.meanIou));
}

TEST(MatchObjects, CountsByBlockOfTheFirstPixel)
{
  ObjectMatchSettings settings;
  settings.block = 2;
  const auto m = Match({"#...", "#...", "..##", "...."}, {"#...", "#...", "..##", "...#"}, settings);
  ASSERT_EQ(m.blocks.Blocks(), 4u);
  std::vector<double> first(3, 0.), last(3, 0.), all(3, 0.);
  m.blocks.AddTo(0, 1., first);
  m.blocks.AddTo(3, 1., last);
  for (std::size_t b = 0; b < 4; ++b)
  {
    m.blocks.AddTo(b, 1., all);
  }
  EXPECT_EQ(first, (std::vector<double>{1., 1., 1.}));
  EXPECT_EQ(last, (std::vector<double>{1., 1., 1.}));
  EXPECT_EQ(all, (std::vector<double>{2., 2., 2.}));
}

TEST(MatchObjects, RefusesAThresholdThatAllowsSeveralMatches)
{
  ObjectMatchSettings settings;
  settings.iou = .4;
  EXPECT_THROW(Match({"#"}, {"#"}, settings), Error);
}
