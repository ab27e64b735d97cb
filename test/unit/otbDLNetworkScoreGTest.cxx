/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// Scores of networks over a scene, with networks whose answers can be added up by hand.
#include "otbDLBoxPredictor.h"
#include "otbDLError.h"
#include "otbDLMemoryScene.h"
#include "otbDLNetworkScore.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

namespace
{

using namespace otb::dl;
using namespace otbtest;

constexpr std::int64_t width = 61, height = 47;
constexpr int patch = 16, bands = 2;

std::shared_ptr<MemoryScene> Scene()
{
  auto scene = std::make_shared<MemoryScene>(width, height, std::vector<int>{bands, bands});
  scene->Fill(0, [](int b, std::int64_t x, std::int64_t y) { return 40.f + float(10 * b) + Noise(x, y, b, 0); });
  scene->Fill(1, [&](int b, std::int64_t x, std::int64_t y) { return 9.f - 2.f * scene->At(0, b, x, y) + .5f * Noise(x, y, b, 1); });
  for (std::int64_t x = 10; x < 35; ++x)
  {
    for (std::int64_t y = 20; y < 41; ++y)
    {
      scene->At(0, 0, x, y) = scene->At(0, 1, x, y) = missing;
    }
  }
  scene->At(1, 1, 50, 3) = notANumber;
  return scene;
}

PatchGrid Grid(int halo)
{
  Tiling tiling;
  tiling.patch = patch;
  tiling.halo = halo;
  return PatchGrid(width, height, tiling);
}

EngineSettings Settings()
{
  EngineSettings settings;
  settings.threads = 2;
  return settings;
}

std::shared_ptr<Predictor> Directions(int planes, int radius, int batch = 3)
{
  return MakeDirectionsPredictor(std::make_unique<BoxPredictor>(batch, planes, patch, radius, false), patch, patch);
}

bool Valid(std::int64_t x, std::int64_t y)
{
  return !(x >= 10 && x < 35 && y >= 20 && y < 41) && !(x == 50 && y == 3);
}

TEST(DirectionsPredictor, RunsTheNetworkOnEachInput)
{
  const auto predictor = Directions(2, 1);
  EXPECT_EQ(predictor->BatchSize(), 3);
  EXPECT_EQ(predictor->CallSize(), 3);
  EXPECT_EQ(predictor->Outputs(), 1);
  for (int k = 0; k < 2; ++k)
  {
    const auto in = predictor->Input(k);
    for (int n = 0; n < 3; ++n)
    {
      for (int i = 0; i < 2 * patch * patch; ++i)
      {
        *in.At(n, i / (patch * patch), i / patch % patch, i % patch) = float(100 * k + 10 * n + i % 7);
      }
    }
  }
  predictor->Run(2);
  BoxPredictor alone(3, 2, patch, 1, false);
  for (int k = 0; k < 2; ++k)
  {
    const auto in = alone.Input(0), given = predictor->Input(k);
    for (int n = 0; n < 3; ++n)
    {
      for (int i = 0; i < 2 * patch * patch; ++i)
      {
        *in.At(n, i / (patch * patch), i / patch % patch, i % patch) = *given.At(n, i / (patch * patch), i / patch % patch, i % patch);
      }
    }
    alone.Run(3);
    const auto out = predictor->Output(0);
    EXPECT_EQ(out.channels, 2);
    for (int n = 0; n < 2; ++n)
    {
      for (int i = 0; i < patch * patch; ++i)
      {
        ASSERT_EQ(*out.At(n, k, i / patch, i % patch), *alone.Output(0).At(n, 0, i / patch, i % patch));
      }
    }
  }
}

TEST(NetworkScore, PlanesAreTheChannelsOfTheNetwork)
{
  const auto scene = Scene();
  const auto inputs = Inputs({bands, bands});
  NetworkScore score(Grid(2), Directions(bands, 2), std::make_shared<ImagePatchSource>(scene, inputs, width, height), 2, Settings());
  ASSERT_EQ(score.Planes(), 2);
  EXPECT_EQ(score.SaveFit(), "");
  score.Fit({});
  const auto planes = ScoreOf(score, {0, 0, width, height});
  for (int k = 0; k < 2; ++k)
  {
    for (std::int64_t y = 0; y < height; ++y)
    {
      for (std::int64_t x = 0; x < width; ++x)
      {
        const float got = planes[k][y * width + x];
        if (!Valid(x, y))
        {
          ASSERT_TRUE(std::isnan(got)) << x << ' ' << y;
          continue;
        }
        double sum = 0.;
        for (int b = 0; b < bands; ++b)
        {
          for (std::int64_t v = y - 2; v <= y + 2; ++v)
          {
            for (std::int64_t u = x - 2; u <= x + 2; ++u)
            {
              const auto s = Mirror(u, width), t = Mirror(v, height);
              sum += Valid(s, t) ? scene->At(k, b, s, t) : 0.f;
            }
          }
        }
        ASSERT_NEAR(got, sum, 1e-5 * std::abs(sum) + 1e-4) << k << ' ' << x << ' ' << y;
      }
    }
  }
  const auto& s = score.Statistics();
  EXPECT_EQ(s.samplesInferred + s.samplesEmpty, Grid(2).Count());
  EXPECT_GT(s.samplesEmpty, 0);
  EXPECT_EQ(s.modelCalls, s.MinimumCalls(3));
}

TEST(NetworkScore, AnyRegionsGiveTheSameBitsAndProgressIsTold)
{
  const auto make = [] {
    return NetworkScore(Grid(2), Directions(bands, 2), std::make_shared<ImagePatchSource>(Scene(), Inputs({bands, bands}), width, height), 2, Settings());
  };
  auto whole = make();
  const auto want = ScoreOf(whole, {0, 0, width, height});
  for (const auto& t : {std::pair<int, int>{width, 1}, {17, 13}, {5, height}})
  {
    auto tiled = make();
    EXPECT_TRUE(SameBits(ScoreInTiles(tiled, width, height, t.first, t.second), want));
  }
  auto stopped = make();
  std::vector<float> a(width * height), b(a.size());
  int told = 0;
  double last = 0.;
  stopped.Score({0, 0, width, height}, {a.data(), b.data()},
                [&](double done)
                {
                  ++told;
                  last = done;
                });
  EXPECT_GT(told, 1);
  EXPECT_EQ(last, 1.);
  auto interrupted = make();
  EXPECT_THROW(interrupted.Score({0, 0, width, height}, {a.data(), b.data()}, [](double) { throw std::runtime_error("enough"); }), std::runtime_error);
}

PairScene PairOf(int threads)
{
  auto pair = Pair(Scene());
  pair.threads = threads;
  return pair;
}

TEST(RatioScore, PlanesAreResidualAndLogitOfEachDirection)
{
  const auto regression = std::make_shared<PairRegression>(PairOf(2), RegressionSettings());
  RatioScore score(regression, Grid(0), Directions(4 * bands, 0), Settings());
  ASSERT_EQ(score.Planes(), 4);
  score.Fit([](double) {});
  EXPECT_EQ(score.SaveFit(), regression->SaveFit());
  const auto planes = ScoreOf(score, {0, 0, width, height}), residuals = ScoreOf(*regression, {0, 0, width, height});
  EXPECT_TRUE(SameBits(planes[0], residuals[0]));
  EXPECT_TRUE(SameBits(planes[2], residuals[1]));
  SceneReader reader = regression->MakeReader();
  reader.Read(reader.Image(), 0);
  const auto scene = Scene();
  SceneReader scaled(scene, Inputs({bands, bands}), width, height);
  const auto scaling = FitScaling(scaled, .01, true, {});
  scaled.Read(scaled.Image(), 0);
  SceneWindow dates;
  scaled.Window(scaled.Image(), 0, 2, scaling, dates);
  for (std::int64_t i = 0; i < width * height; ++i)
  {
    const bool valid = Valid(i % width, i / width);
    for (int d = 0; d < 2; ++d)
    {
      // The network adds target, prediction, source and residual: the prediction falls out.
      double sum = 0.;
      for (int b = 0; b < bands; ++b)
      {
        sum += 2. * dates.Plane(bands * (1 - d) + b)[i] + dates.Plane(bands * d + b)[i];
      }
      const float got = planes[2 * d + 1][i];
      if (valid)
      {
        ASSERT_NEAR(got, sum, 1e-4) << d << ' ' << i;
      }
      else
      {
        ASSERT_TRUE(std::isnan(got)) << d << ' ' << i;
      }
    }
  }
  EXPECT_GT(score.Statistics().modelCalls, 0);
}

TEST(RatioScore, AnyRegionsAndThreadsGiveTheSameBitsFromAKeptFit)
{
  RatioScore first(std::make_shared<PairRegression>(PairOf(1), RegressionSettings()), Grid(2), Directions(4 * bands, 2), Settings());
  first.Fit([](double) {});
  const auto want = ScoreOf(first, {0, 0, width, height});
  RatioScore other(std::make_shared<PairRegression>(PairOf(3), RegressionSettings()), Grid(2), Directions(4 * bands, 2, 5), Settings());
  other.LoadFit(first.SaveFit());
  EXPECT_TRUE(SameBits(ScoreInTiles(other, width, height, 23, 9), want));
  EXPECT_THROW(other.LoadFit("{}"), Error);
}

TEST(RatioScore, DatesOfDifferentBandsAreAnError)
{
  const auto scene = std::make_shared<MemoryScene>(width, height, std::vector<int>{2, 3});
  const auto regression = std::make_shared<PairRegression>(Pair(scene), RegressionSettings());
  EXPECT_THROW(RatioScore(regression, Grid(0), Directions(8, 0), Settings()), Error);
}

} // namespace
