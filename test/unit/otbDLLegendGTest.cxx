/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// What maps mean, and in which colours.
#include "otbDLError.h"
#include "otbDLLegend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

namespace
{

using namespace otb::dl;

const std::vector<ModelClass> three = {{10, "water", "0000ff"}, {3, "forest", "00ff00"}, {7, "built", ""}};

std::vector<std::string> Hex(const Legend& legend)
{
  std::vector<std::string> all;
  for (const auto& e : legend.entries)
  {
    all.push_back(e.colour.Hex());
  }
  return all;
}

TEST(Legend, NoChangeIsNotDrawn)
{
  const auto legend = BinaryLegend();
  ASSERT_EQ(legend.entries.size(), 2u);
  EXPECT_EQ(legend.kind, Legend::Kind::Classes);
  EXPECT_EQ(legend.entries[0].value, 0.);
  EXPECT_EQ(legend.entries[0].colour.alpha, 0);
  EXPECT_EQ(legend.entries[1].value, 1.);
  EXPECT_EQ(legend.entries[1].label, "change");
  EXPECT_EQ(legend.entries[1].colour.alpha, 255);
}

TEST(Legend, TheModelNamesAndColoursChange)
{
  auto legend = BinaryLegend({{0, "stable", "000000"}, {1, "damaged", "e03c31"}});
  ASSERT_EQ(legend.entries.size(), 2u);
  EXPECT_EQ(legend.entries[0].label, "stable");
  EXPECT_EQ(legend.entries[0].colour.alpha, 0);
  EXPECT_EQ(legend.entries[1].label, "damaged");
  EXPECT_EQ(legend.entries[1].colour.Hex(), "#e03c31");
  EXPECT_EQ(BinaryLegend({{1, "", ""}}).entries[1].label, "change");
}

TEST(Legend, ClassesAscendAndKeepTheirColours)
{
  const auto legend = ClassLegend(three);
  ASSERT_EQ(legend.entries.size(), 3u);
  EXPECT_EQ(legend.entries[0].value, 3.);
  EXPECT_EQ(legend.entries[0].label, "forest");
  EXPECT_EQ(legend.entries[0].colour.Hex(), "#00ff00");
  EXPECT_EQ(legend.entries[1].label, "built");
  EXPECT_EQ(legend.entries[2].value, 10.);
  EXPECT_EQ(legend.entries[2].colour.Hex(), "#0000ff");
}

TEST(Legend, AClassWithoutNameIsCalledByItsValue)
{
  EXPECT_EQ(ClassLegend({{12, "", ""}}).entries[0].label, "class 12");
}

TEST(Legend, TheFirstOfTwoClassesOfOneValueCounts)
{
  const auto legend = ClassLegend({{1, "a", "111111"}, {1, "b", "222222"}});
  ASSERT_EQ(legend.entries.size(), 1u);
  EXPECT_EQ(legend.entries[0].label, "a");
}

TEST(Legend, NoClassesAreNoLegend)
{
  EXPECT_EQ(ClassLegend({}).kind, Legend::Kind::None);
}

TEST(Legend, DefaultColoursDifferFromEachOtherAndFromThoseGiven)
{
  std::vector<ModelClass> classes = {{0, "given", "E69F00"}}; // the first default
  for (int k = 1; k < 64; ++k)
  {
    classes.push_back({k, "", ""});
  }
  const auto colours = Hex(ClassLegend(classes));
  EXPECT_EQ(std::set<std::string>(colours.begin(), colours.end()).size(), 64u);
  EXPECT_EQ(colours[1], "#56b4e9");
}

TEST(Legend, CodesOfChangesAreNamedAndCountedAsTheMapDoes)
{
  const auto legend = FromToLegend(three, three, false);
  ASSERT_EQ(legend.entries.size(), 7u); // no change and 3 x 3 less the diagonal
  EXPECT_EQ(legend.entries[0].value, 0.);
  EXPECT_EQ(legend.entries[0].colour.alpha, 0);
  EXPECT_EQ(legend.entries[1].value, 2.); // 1 + 0 * 3 + 1
  EXPECT_EQ(legend.entries[1].label, "water -> forest");
  EXPECT_EQ(legend.entries[1].colour.Hex(), "#00bf40"); // 3/4 green, 1/4 blue
  EXPECT_EQ(legend.entries[6].value, 8.);               // 1 + 2 * 3 + 1
  EXPECT_EQ(legend.entries[6].label, "built -> forest");
  const auto colours = Hex(legend);
  EXPECT_EQ(std::set<std::string>(colours.begin(), colours.end()).size(), 7u);
}

TEST(Legend, ChangesWithinAClassHaveCodesWhereTheNetworkSaysThem)
{
  const auto legend = FromToLegend(three, three, true);
  ASSERT_EQ(legend.entries.size(), 10u);
  for (std::size_t k = 0; k < 10; ++k)
  {
    EXPECT_EQ(legend.entries[k].value, static_cast<double>(k));
  }
  EXPECT_EQ(legend.entries[5].label, "forest -> forest");
  EXPECT_NE(legend.entries[5].colour.Hex(), "#00ff00");
}

TEST(Legend, ListsOfClassesOfTwoDatesHaveOneLength)
{
  EXPECT_THROW(FromToLegend(three, {three[0]}, false), Error);
}

TEST(Legend, ARampIsEvenFromEndToEnd)
{
  const auto legend = RampLegend(-2., 6., RampColours::Viridis);
  EXPECT_EQ(legend.kind, Legend::Kind::Ramp);
  ASSERT_EQ(legend.entries.size(), 9u);
  for (std::size_t k = 0; k < 9; ++k)
  {
    EXPECT_DOUBLE_EQ(legend.entries[k].value, -2. + static_cast<double>(k));
  }
  EXPECT_EQ(legend.entries.front().colour.Hex(), "#440154");
  EXPECT_EQ(legend.entries.back().colour.Hex(), "#fde725");
}

/** What a reader who sees no colours sees: CIE luminance. */
double Luminance(const Colour& c)
{
  const auto linear = [](double v) { return v <= .04045 ? v / 12.92 : std::pow((v + .055) / 1.055, 2.4); };
  return .2126 * linear(c.red / 255.) + .7152 * linear(c.green / 255.) + .0722 * linear(c.blue / 255.);
}

TEST(Legend, RampsBecomeLighterAllTheWay)
{
  for (const auto colours : {RampColours::Inferno, RampColours::Viridis})
  {
    const auto legend = RampLegend(0., 1., colours);
    for (std::size_t k = 1; k < legend.entries.size(); ++k)
    {
      EXPECT_GT(Luminance(legend.entries[k].colour), Luminance(legend.entries[k - 1].colour)) << k;
    }
  }
}

TEST(Legend, ARampNeedsARange)
{
  EXPECT_THROW(RampLegend(1., 1., RampColours::Inferno), Error);
  EXPECT_THROW(RampLegend(0., std::numeric_limits<double>::infinity(), RampColours::Inferno), Error);
  EXPECT_THROW(RampLegend(std::nan(""), 1., RampColours::Inferno), Error);
}

TEST(Legend, PValuesAreNamedByTheirProbability)
{
  const auto legend = PValueLegend();
  for (const auto& e : legend.entries)
  {
    ASSERT_EQ(e.label.substr(0, 4), "p = ");
    EXPECT_NEAR(-std::log10(std::stod(e.label.substr(4))), e.value, 1e-12);
  }
}

} // namespace
