/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// What a network is told of the regression of a pair, against the regression itself and a plain sum; the same bits whatever regions, threads and reads.
#include "otbDLMemoryScene.h"
#include "otbDLPairFeatures.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

namespace
{

using namespace otb::dl;
using namespace otbtest;

constexpr std::int64_t width = 301, height = 278;
constexpr int bands = 2;

ModelInput Argument(const std::string& role, int date)
{
  ModelInput input;
  input.role = role;
  input.date = date;
  input.bands.assign(role == "regression_score" ? 0 : bands, "band");
  input.channels = role == "image" ? 0 : role == "regression" ? 4 * bands : 1;
  return input;
}

/** The arguments in an order that is not that of the dates. */
std::vector<ModelInput> Arguments()
{
  return {Argument("regression_score", 0), Argument("image", 2), Argument("regression", 1), Argument("image", 1), Argument("regression", 2)};
}

/** Image 1 is date 2, image 3 is date 1: light has changed, and there are blobs and holes. */
std::shared_ptr<MemoryScene> Scene()
{
  auto scene = std::make_shared<MemoryScene>(width, height, std::vector<int>{0, bands, 0, bands, 0});
  scene->Fill(3, [](int b, std::int64_t x, std::int64_t y) { return 50.f + 9.f * Noise(x / 3, y / 3, b, 1) + Noise(x, y, b, 2); });
  scene->Fill(1,
              [&](int b, std::int64_t x, std::int64_t y)
              {
                const bool blob = x % 90 > 70 && y % 80 > 65;
                return 20.f + 1.5f * scene->At(3, b, x, y) + Noise(x, y, b, 3) + (blob ? 25.f : 0.f);
              });
  for (std::int64_t y = 40; y < 60; ++y)
  {
    for (std::int64_t x = 100; x < 131; ++x)
    {
      for (int b = 0; b < bands; ++b)
      {
        scene->At(x < 120 ? 1 : 3, b, x, y) = missing;
      }
    }
  }
  return scene;
}

std::vector<InputNormalisation> Normalisations(const std::vector<ModelInput>& arguments)
{
  std::vector<InputNormalisation> all;
  for (const auto& a : arguments)
  {
    all.push_back(IsPairFeature(a) ? PairFeatureNormalisation(a) : Inputs({bands}).front());
  }
  return all;
}

std::unique_ptr<PairFeatures> Make(int threads = 1, std::size_t bytes = std::size_t(64) << 20)
{
  const auto arguments = Arguments();
  auto made = std::make_unique<PairFeatures>(Scene(), arguments, Normalisations(arguments), width, height, threads, bytes);
  made->Fit({});
  return made;
}

/** A copy of what was read: [argument][band][pixel]. */
std::vector<Planes> ReadAll(PairFeatures& features, const Region& region)
{
  const PixelBlock block = features.Read(region);
  std::vector<Planes> all;
  for (const auto& argument : block.bands)
  {
    all.emplace_back();
    for (const auto& view : argument)
    {
      all.back().emplace_back();
      for (std::int64_t i = 0; i < region.Area(); ++i)
      {
        all.back().back().push_back(view.data[(i / region.Width()) * view.strideY + (i % region.Width()) * view.strideX]);
      }
    }
  }
  return all;
}

TEST(PairFeatures, SayWhatTheRegressionSays)
{
  const Region image{0, 0, width, height};
  const auto features = Make();
  const auto all = ReadAll(*features, image);
  ASSERT_EQ(all.size(), 5u);
  EXPECT_EQ(all[0].size(), 1u);
  EXPECT_EQ(all[2].size(), 8u);
  EXPECT_EQ(all[4].size(), 8u);

  // The same regression by itself, of the dates in their order.
  const auto scene = Scene();
  auto pair = std::make_shared<MemoryScene>(width, height, std::vector<int>{bands, bands});
  pair->planes = {scene->planes[3], scene->planes[1]};
  auto regression = std::make_shared<PairRegression>(Pair(pair), RegressionSettings());
  regression->Fit({});
  RegressionSource source(regression);
  const PixelBlock block = source.Read(image);
  for (int d = 0; d < 2; ++d)
  {
    for (int c = 0; c < 4 * bands; ++c)
    {
      const auto& plane = all[d == 0 ? 4 : 2][c];
      const std::vector<float> same(block.bands[d][c].data, block.bands[d][c].data + image.Area());
      EXPECT_TRUE(SameBits(plane, same)) << "direction " << d << ", channel " << c;
    }
  }

  // Score: the mean length of both, smoothed over what there is, standardised; in double precision, summed plainly.
  const auto lengths = ScoreOf(*regression, image);
  const int radius = 8; // 3 x 2.5, rounded up
  std::vector<double> smooth(std::size_t(image.Area()), std::nan(""));
  double sum = 0., squares = 0., count = 0.;
  for (std::int64_t y = 0; y < height; ++y)
  {
    for (std::int64_t x = 0; x < width; ++x)
    {
      if (std::isnan(lengths[0][y * width + x]))
      {
        continue;
      }
      double top = 0., bottom = 0.;
      for (std::int64_t v = std::max<std::int64_t>(0, y - radius); v <= std::min(height - 1, y + radius); ++v)
      {
        for (std::int64_t u = std::max<std::int64_t>(0, x - radius); u <= std::min(width - 1, x + radius); ++u)
        {
          const double l = .5 * (double(lengths[0][v * width + u]) + double(lengths[1][v * width + u]));
          if (!std::isnan(l))
          {
            const double w = std::exp(-(double((u - x) * (u - x) + (v - y) * (v - y))) / (2. * 2.5 * 2.5));
            top += w * l;
            bottom += w;
          }
        }
      }
      const double s = top / bottom;
      smooth[y * width + x] = s;
      sum += s;
      squares += s * s;
      count += 1.;
    }
  }
  const double mean = sum / count, deviation = std::sqrt(squares / count - mean * mean);
  for (std::int64_t i = 0; i < image.Area(); ++i)
  {
    ASSERT_EQ(std::isnan(all[0][0][i]), std::isnan(smooth[i])) << i;
    if (!std::isnan(smooth[i]))
    {
      ASSERT_NEAR(all[0][0][i], (smooth[i] - mean) / deviation, 2e-4) << i;
    }
  }
}

TEST(PairFeatures, AreTheSameBitsWhateverIsRead)
{
  const Region image{0, 0, width, height};
  const auto whole = ReadAll(*Make(), image);
  const auto features = Make(3, 1 << 18);
  for (std::int64_t y = 0; y < height; y += 97)
  {
    for (std::int64_t x = 0; x < width; x += 61)
    {
      const Region tile = Intersection({x, y, x + 61, y + 97}, image);
      const auto part = ReadAll(*features, tile);
      for (std::size_t a = 0; a < part.size(); ++a)
      {
        for (std::size_t c = 0; c < part[a].size(); ++c)
        {
          for (std::int64_t v = tile.y0; v < tile.y1; ++v)
          {
            const float* row = whole[a][c].data() + v * width;
            const std::vector<float> wanted(row + tile.x0, row + tile.x1);
            const auto begin = part[a][c].begin() + (v - tile.y0) * tile.Width();
            ASSERT_TRUE(SameBits(std::vector<float>(begin, begin + tile.Width()), wanted)) << "argument " << a << ", channel " << c << ", row " << v;
          }
        }
      }
    }
  }
}

TEST(PairFeatures, AreToldFromImages)
{
  EXPECT_FALSE(IsPairFeature(Argument("image", 1)));
  EXPECT_TRUE(IsPairFeature(Argument("regression", 1)));
  EXPECT_TRUE(IsPairFeature(Argument("regression_score", 0)));
  EXPECT_EQ(PairFeatureNormalisation(Argument("regression", 2)).scaling.size(), 8u);
}

} // namespace
