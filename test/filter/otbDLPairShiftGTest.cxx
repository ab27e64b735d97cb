/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLPairShift.h"

#include "otbDLKeyedRandom.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

using namespace otb::dl;

namespace
{

/** A field of waves that is known between its pixels: moved exactly, by any part of a pixel. Wave lengths 2.5 to 40 pixels. */
class Field
{
public:
  explicit Field(std::uint32_t seed, double shortest = 2.5)
  {
    const KeyedRandom draw(seed, 0xF1E1D);
    for (int k = 0; k < 90; ++k)
    {
      const double length = shortest * std::pow(40. / shortest, draw.Uniform(k, 0, 0, 0)), turn = 6.283185307179586 * draw.Uniform(k, 1, 0, 0);
      m_Waves.push_back(
          {6.283185307179586 * std::cos(turn) / length, 6.283185307179586 * std::sin(turn) / length, 6.283185307179586 * draw.Uniform(k, 2, 0, 0), length});
    }
  }
  float operator()(double x, double y) const
  {
    double sum = 0.;
    for (const auto& w : m_Waves)
    {
      sum += std::sqrt(w.length) * std::cos(w.u * x + w.v * y + w.phase);
    }
    return static_cast<float>(1000. + 10. * sum);
  }

private:
  struct Wave
  {
    double u, v, phase, length;
  };
  std::vector<Wave> m_Waves;
};

using Values = std::function<float(std::int64_t x, std::int64_t y, int band)>;

/** Two dates in memory. */
class Pair : public PixelSource
{
public:
  Pair(std::int64_t width, std::int64_t height, int bands1, int bands2, const Values& one, const Values& two) : m_Width(width), m_Height(height)
  {
    for (const auto& [bands, values] : {std::make_pair(bands1, one), std::make_pair(bands2, two)})
    {
      std::vector<std::vector<float>> planes(static_cast<std::size_t>(bands));
      for (int b = 0; b < bands; ++b)
      {
        for (std::int64_t y = 0; y < height; ++y)
        {
          for (std::int64_t x = 0; x < width; ++x)
          {
            planes[static_cast<std::size_t>(b)].push_back(values(x, y, b));
          }
        }
      }
      m_Planes.push_back(std::move(planes));
    }
  }
  PixelBlock Read(const Region& region) override
  {
    PixelBlock block;
    block.region = region;
    for (const auto& image : m_Planes)
    {
      std::vector<PlaneView> views;
      for (const auto& plane : image)
      {
        views.push_back({plane.data() + region.y0 * m_Width + region.x0, 1, static_cast<std::ptrdiff_t>(m_Width)});
      }
      block.bands.push_back(views);
    }
    return block;
  }
  std::int64_t Width() const { return m_Width; }
  std::int64_t Height() const { return m_Height; }
  int Bands(int image) const { return static_cast<int>(m_Planes[static_cast<std::size_t>(image)].size()); }

private:
  std::int64_t m_Width, m_Height;
  std::vector<std::vector<std::vector<float>>> m_Planes;
};

ShiftEstimate Estimate(std::int64_t width, std::int64_t height, int bands1, int bands2, const Values& one, const Values& two,
                       const ShiftSettings& settings = {})
{
  auto pair = std::make_shared<Pair>(width, height, bands1, bands2, one, two);
  std::vector<InputNormalisation> inputs(2);
  for (int k = 0; k < 2; ++k)
  {
    inputs[k].scaling.resize(pair->Bands(k));
    inputs[k].noData.assign(pair->Bands(k), 0.);
    inputs[k].hasNoData.assign(pair->Bands(k), true);
  }
  SceneReader reader(pair, inputs, width, height);
  return EstimateShift(reader, settings);
}

struct Case
{
  double x, y;
};

class KnownShift : public testing::TestWithParam<Case>
{
};

} // namespace

TEST_P(KnownShift, IsFoundWithinAFewHundredthsOfAPixel)
{
  const Field field(1);
  const auto [x, y] = GetParam();
  const auto found = Estimate(
      290, 160, 1, 1, [&](auto i, auto j, int) { return field(i, j); }, [&, x = x, y = y](auto i, auto j, int) { return field(i - x, j - y); });
  ASSERT_TRUE(found.measured);
  EXPECT_NEAR(found.x, x, .03);
  EXPECT_NEAR(found.y, y, .03);
  EXPECT_GT(found.confidence, .3);
  EXPECT_LT(found.spread, .1);
}

INSTANTIATE_TEST_SUITE_P(PairShift, KnownShift,
                         testing::Values(Case{0., 0.}, Case{.7, -1.3}, Case{.5, .5}, Case{-.25, .4}, Case{.05, 0.}, Case{3., -2.}, Case{-7.6, 5.2},
                                         Case{12.3, .1}));

TEST(PairShift, SaysWhereDateTwoLies)
{
  ShiftEstimate shift;
  shift.x = .712;
  shift.y = -1.294;
  EXPECT_EQ(shift.Direction(), "0.71 px right, 1.29 px up");
  EXPECT_NEAR(shift.Length(), 1.477, .001);
}

TEST(PairShift, NoiseGainInversionAndOtherBandsDoNotMoveIt)
{
  const Field field(2), other(3);
  const KeyedRandom noise(4, 5);
  const auto found = Estimate(
      300, 300, 2, 3, [&](auto i, auto j, int b) { return field(i, j) + 20.f * noise.Normal(i, j, static_cast<std::uint32_t>(b), 0); },
      [&](auto i, auto j, int b)
      {
        const float v = field(i - .7, j + 1.3);
        const float changed[] = {3.f * v + 500.f, 4000.f - v, .01f * v};
        return changed[b] + (b == 2 ? .2f : 20.f) * noise.Normal(i, j, static_cast<std::uint32_t>(b), 1);
      });
  ASSERT_TRUE(found.measured);
  EXPECT_NEAR(found.x, .7, .05);
  EXPECT_NEAR(found.y, -1.3, .05);
}

TEST(PairShift, ChangesInAThirdOfTheSceneDoNotMoveIt)
{
  const Field field(6), changed(7);
  const auto found = Estimate(
      520, 390, 1, 1, [&](auto i, auto j, int) { return field(i, j); },
      [&](auto i, auto j, int) { return i < 170 ? changed(i + 5., j) : field(i + .4, j - .6); });
  ASSERT_TRUE(found.measured);
  EXPECT_NEAR(found.x, -.4, .05);
  EXPECT_NEAR(found.y, .6, .05);
}

TEST(PairShift, BordersOfNoDataThatBothDatesShareDoNotHoldIt)
{
  const Field field(8);
  const auto hole = [](std::int64_t i, std::int64_t j) { return (i - 64) * (i - 64) + (j - 60) * (j - 60) < 20 * 20 || i > 280; };
  const auto found = Estimate(
      300, 300, 1, 1, [&](auto i, auto j, int) { return hole(i, j) ? 0.f : field(i, j); },
      [&](auto i, auto j, int) { return hole(i, j) ? 0.f : field(i - .6, j + .3); });
  ASSERT_TRUE(found.measured);
  EXPECT_NEAR(found.x, .6, .05);
  EXPECT_NEAR(found.y, -.3, .05);
}

TEST(PairShift, WithoutTextureOrInCommonNothingIsMeasured)
{
  const Field one(9), two(10);
  const auto flat = Estimate(
      300, 300, 1, 1, [](auto, auto, int) { return 7.f; }, [](auto, auto, int) { return 7.f; });
  EXPECT_FALSE(flat.measured);
  EXPECT_EQ(flat.clear, 0);
  EXPECT_GT(flat.windows, 0);
  const auto empty = Estimate(
      300, 300, 1, 1, [](auto, auto, int) { return 0.f; }, [](auto, auto, int) { return 0.f; });
  EXPECT_FALSE(empty.measured);
  const KeyedRandom noise(11, 12);
  const auto noises = Estimate(
      300, 300, 1, 1, [&](auto i, auto j, int) { return 100.f + noise.Normal(i, j, 0, 0); },
      [&](auto i, auto j, int) { return 100.f + noise.Normal(i, j, 1, 0); });
  EXPECT_FALSE(noises.measured);
  const auto strangers = Estimate(
      300, 300, 1, 1, [&](auto i, auto j, int) { return one(i, j); }, [&](auto i, auto j, int) { return two(i, j); });
  EXPECT_FALSE(strangers.measured);
}

TEST(PairShift, SmallAndLongScenes)
{
  const Field field(13);
  const auto one = [&](std::int64_t i, std::int64_t j, int) { return field(i, j); };
  const auto two = [&](std::int64_t i, std::int64_t j, int) { return field(i - .5, j - .25); };
  const auto small = Estimate(70, 67, 1, 1, one, two);
  EXPECT_TRUE(small.measured);
  EXPECT_EQ(small.side, 64);
  EXPECT_NEAR(small.x, .5, .1);
  EXPECT_NEAR(small.y, .25, .1);
  EXPECT_FALSE(Estimate(31, 300, 1, 1, one, two).measured);
  ShiftSettings few;
  few.windows = 6;
  for (const auto& [width, height] : {std::make_pair(1500, 40), std::make_pair(40, 1500), std::make_pair(400, 300)})
  {
    const auto found = Estimate(width, height, 1, 1, one, two, few);
    EXPECT_LE(found.windows, 6);
    EXPECT_GE(found.windows, 4);
    EXPECT_TRUE(found.measured);
    EXPECT_NEAR(found.x, .5, .1);
  }
}
