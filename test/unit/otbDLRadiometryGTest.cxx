/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// The radiometry of date 2 against known gains and offsets.
#include "otbDLError.h"
#include "otbDLMemoryScene.h"
#include "otbDLRadiometry.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

namespace
{

using namespace otb::dl;
using namespace otbtest;

constexpr double gains[] = {1.25, .8, 2.}; ///< of what date 1 would have seen, given date 2
constexpr double offsets[] = {-40., 25., 100.};

float Ground(int band, std::int64_t x, std::int64_t y)
{
  return 500.f + 80.f * std::sin(.11f * float(x) + float(band)) * std::cos(.07f * float(y) - float(band)) + 25.f * Noise(x / 3, y / 3, band, 1);
}

/** Date 1 is gain * date 2 + offset, but in `changed` of the pixels, where it holds something else; both are noisy. */
std::shared_ptr<MemoryScene> LitPair(std::int64_t width, std::int64_t height, float noise, double changed)
{
  auto scene = std::make_shared<MemoryScene>(width, height, std::vector<int>{3, 3});
  scene->Fill(1, [&](int b, std::int64_t x, std::int64_t y) { return Ground(b, x, y) + noise * Noise(x, y, b, 2); });
  scene->Fill(0,
              [&](int b, std::int64_t x, std::int64_t y)
              {
                const auto g = static_cast<float>(gains[b]), o = static_cast<float>(offsets[b]);
                const bool other = double(x) < changed * double(width);
                return (other ? 900.f + 150.f * Noise(x / 2, y / 2, b, 5) : g * Ground(b, x, y) + o) + g * noise * Noise(x, y, b, 3);
              });
  return scene;
}

} // namespace

TEST(Radiometry, FindsGainsAndOffsetsAmongChanges)
{
  for (const double changed : {0., .3})
  {
    const auto match = MatchRadiometry(Pair(LitPair(300, 280, 3.f, changed)));
    EXPECT_EQ(match.valid, 300 * 280);
    EXPECT_GT(match.invariant, 1000);
    EXPECT_LT(match.invariant, match.valid / 2);
    for (int b = 0; b < 3; ++b)
    {
      const auto& band = match.bands[b];
      ASSERT_TRUE(band.matched);
      EXPECT_NEAR(band.gain, gains[b], .02 * gains[b]) << "band " << b << ", changed " << changed;
      // Where the data are: 500 on date 2.
      EXPECT_NEAR(band.gain * 500. + band.offset, gains[b] * 500. + offsets[b], 3.) << "band " << b;
      EXPECT_GT(band.correlation, .98);
    }
  }
}

TEST(Radiometry, EqualDatesAreLeftAsTheyAre)
{
  auto scene = LitPair(150, 140, 0.f, 0.);
  scene->planes[0] = scene->planes[1];
  const auto match = MatchRadiometry(Pair(scene));
  for (const auto& band : match.bands)
  {
    EXPECT_NEAR(band.gain, 1., 1e-9);
    EXPECT_NEAR(band.offset, 0., 1e-6);
    EXPECT_NEAR(band.correlation, 1., 1e-9);
  }
}

TEST(Radiometry, DoesNotDependOnThreadsOrReads)
{
  auto source = LitPair(700, 300, 3.f, .2);
  const auto one = MatchRadiometry(Pair(source));
  auto scene = Pair(source);
  scene.threads = 3;
  scene.readBytes = 1 << 16;
  const auto other = MatchRadiometry(scene);
  EXPECT_EQ(one.invariant, other.invariant);
  for (int b = 0; b < 3; ++b)
  {
    EXPECT_EQ(one.bands[b].gain, other.bands[b].gain);
    EXPECT_EQ(one.bands[b].offset, other.bands[b].offset);
  }
}

TEST(Radiometry, NoDataHasNoSay)
{
  auto source = LitPair(300, 280, 3.f, 0.);
  const auto whole = MatchRadiometry(Pair(source));
  for (std::int64_t y = 0; y < 280; ++y)
  {
    for (std::int64_t x = 0; x < 100; ++x)
    {
      for (int b = 0; b < 3; ++b)
      {
        source->At(1, b, x, y) = missing;
      }
    }
  }
  const auto match = MatchRadiometry(Pair(source));
  EXPECT_EQ(match.valid, 200 * 280);
  for (int b = 0; b < 3; ++b)
  {
    EXPECT_NEAR(match.bands[b].gain, whole.bands[b].gain, .02 * gains[b]);
  }
}

TEST(Radiometry, BandsWithNothingInCommonAreNotMatched)
{
  auto source = LitPair(200, 200, 3.f, 0.);
  source->Fill(0,
               [&](int b, std::int64_t x, std::int64_t y) {
                 return b == 1   ? 70.f
                        : b == 2 ? 500.f + 80.f * Noise(x, y, b, 8)
                                 : static_cast<float>(gains[0]) * source->At(1, 0, x, y) + static_cast<float>(offsets[0]);
               });
  const auto match = MatchRadiometry(Pair(source));
  EXPECT_TRUE(match.bands[0].matched);
  EXPECT_FALSE(match.bands[1].matched);
  EXPECT_EQ(match.bands[1].gain, 1.);
  EXPECT_FALSE(match.bands[2].matched);
  EXPECT_LT(match.bands[2].correlation, leastRadiometricCorrelation);

  auto tiny = LitPair(12, 12, 3.f, 0.);
  for (const auto& band : MatchRadiometry(Pair(tiny)).bands)
  {
    EXPECT_FALSE(band.matched); // fewer than 100 invariant pixels
  }
}

TEST(Radiometry, OtherNumbersOfBandsAreRefused)
{
  auto scene = std::make_shared<MemoryScene>(40, 40, std::vector<int>{3, 2});
  EXPECT_THROW(MatchRadiometry(Pair(scene)), Error);
}

TEST(Radiometry, JoinsAScalingExactly)
{
  BandScaling scaling;
  scaling.low = 10.;
  scaling.high = 2000.;
  scaling.offset = 300.;
  scaling.divisor = 150.;
  RadiometricBand band;
  band.gain = 1.6;
  band.offset = -45.;
  const auto joined = Matched(scaling, band);
  const auto apply = [](const BandScaling& s, double v) { return (std::min(std::max(v, s.low), s.high) - s.offset) / s.divisor; };
  for (const double v : {-100., 0., 31., 40., 400., 1270., 1290., 5000.})
  {
    EXPECT_NEAR(apply(joined, v), apply(scaling, 1.6 * v - 45.), 1e-12) << v;
  }
  const auto open = Matched({}, band);
  EXPECT_EQ(open.low, -std::numeric_limits<double>::infinity());
  EXPECT_EQ(open.high, std::numeric_limits<double>::infinity());
}
