/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLKeyedRandom.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

namespace
{

using otb::dl::KeyedRandom;
using Words = std::array<std::uint32_t, 4>;

// The known answers of Random123 for philox4x32 with 10 rounds.
TEST(KeyedRandom, IsPhilox)
{
  EXPECT_EQ(KeyedRandom(0, 0).Words(0, 0, 0, 0), (Words{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
  EXPECT_EQ(KeyedRandom(0xffffffffu, 0xffffffffu).Words(0xffffffff, 0xffffffff, 0xffffffffu, 0xffffffffu),
            (Words{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
  EXPECT_EQ(KeyedRandom(0xa4093822u, 0x299f31d0u).Words(0x243f6a88, 0x85a308d3, 0x13198a2eu, 0x03707344u),
            (Words{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}));
}

TEST(KeyedRandom, CoordinatesWrap)
{
  const KeyedRandom random(7, 9);
  EXPECT_EQ(random.Words(-1, -2, 3, 4), random.Words(0xffffffff, 0xfffffffe, 3, 4));
  EXPECT_EQ(random.Normal(-5, 6, 0, 1), random.Normal((std::int64_t{1} << 32) - 5, 6 + (std::int64_t{1} << 32), 0, 1));
  EXPECT_NE(random.Words(-1, 0, 0, 0), random.Words(1, 0, 0, 0));
}

TEST(KeyedRandom, APixelHasItsNumbersWhateverTheRegion)
{
  const KeyedRandom random(1, 2);
  const auto draw = [&random](std::int64_t x0, std::int64_t y0, int side)
  {
    std::vector<float> values;
    for (std::int64_t y = y0; y < y0 + side; ++y)
    {
      for (std::int64_t x = x0; x < x0 + side; ++x)
      {
        values.push_back(random.Normal(x, y, 1, 16));
      }
    }
    return values;
  };
  const auto whole = draw(-4, -4, 16), part = draw(-1, 2, 5);
  for (int y = 0; y < 5; ++y)
  {
    for (int x = 0; x < 5; ++x)
    {
      EXPECT_EQ(part[y * 5 + x], whole[(y + 6) * 16 + x + 3]);
    }
  }
}

TEST(KeyedRandom, EveryPartOfTheKeyCounts)
{
  std::set<Words> seen;
  for (std::uint32_t i = 0; i < 64; ++i)
  {
    const auto bit = [i](std::uint32_t k) { return (i >> k) & 1u; };
    seen.insert(KeyedRandom(bit(0), bit(1)).Words(bit(2), bit(3), bit(4), bit(5)));
  }
  EXPECT_EQ(seen.size(), 64u);
}

TEST(KeyedRandom, Moments)
{
  const KeyedRandom random(3, 0);
  const int side = 300;
  double sum[5] = {}, uniform[3] = {}, sign = 0., neighbours = 0.;
  for (int y = 0; y < side; ++y)
  {
    for (int x = 0; x < side; ++x)
    {
      const double z = random.Normal(x, y, 0, 0), u = random.Uniform(x, y, 0, 1), s = random.Sign(x, y, 0, 2);
      EXPECT_TRUE(std::isfinite(z) && u > 0. && u < 1. && (s == 1. || s == -1.));
      double power = 1.;
      for (double& moment : sum)
      {
        moment += power;
        power *= z;
      }
      uniform[1] += u;
      uniform[2] += u * u;
      sign += s;
      neighbours += z * random.Normal(x + 1, y, 0, 0);
    }
  }
  const double n = sum[0];
  EXPECT_NEAR(sum[1] / n, 0., 4. / std::sqrt(n));
  EXPECT_NEAR(sum[2] / n, 1., 4. * std::sqrt(2. / n));
  EXPECT_NEAR(sum[3] / n, 0., 4. * std::sqrt(15. / n));
  EXPECT_NEAR(sum[4] / n, 3., 4. * std::sqrt(96. / n));
  EXPECT_NEAR(uniform[1] / n, .5, 4. * std::sqrt(1. / 12. / n));
  EXPECT_NEAR(uniform[2] / n, 1. / 3., 4. * std::sqrt(4. / 45. / n));
  EXPECT_NEAR(sign / n, 0., 4. / std::sqrt(n));
  EXPECT_NEAR(neighbours / n, 0., 4. / std::sqrt(n));
}

} // namespace
