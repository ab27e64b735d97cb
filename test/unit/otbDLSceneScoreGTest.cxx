/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// Windows, cells and scaling of a scene against what they are said to be.
#include "otbDLMemoryScene.h"
#include "otbDLSceneScore.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <set>
#include <vector>

namespace
{

using namespace otb::dl;
using namespace otbtest;

std::shared_ptr<MemoryScene> Scene(std::int64_t width, std::int64_t height, const std::vector<int>& bands)
{
  auto scene = std::make_shared<MemoryScene>(width, height, bands);
  for (int k = 0; k < int(bands.size()); ++k)
  {
    scene->Fill(k, [&](int b, std::int64_t x, std::int64_t y) { return 20.f * float(b + 1) + float(k + 1) * Noise(x, y, b, k); });
  }
  return scene;
}

std::int64_t At(const MemoryScene& scene, std::int64_t x, std::int64_t y)
{
  return Mirror(y, scene.height) * scene.width + Mirror(x, scene.width);
}

TEST(SceneReader, WindowsAreMirroredBeyondTheScene)
{
  for (const auto& size : {std::pair<int, int>{30, 20}, {3, 2}, {1, 5}})
  {
    const auto scene = Scene(size.first, size.second, {2, 3});
    SceneReader reader(scene, Inputs({2, 3}), size.first, size.second);
    reader.Read(reader.Image(), 7);
    SceneWindow window;
    const Region footprint{-7, -5, size.first + 6, size.second + 7};
    reader.Window(footprint, 0, 2, {}, window);
    ASSERT_EQ(window.width, footprint.Width());
    ASSERT_EQ(window.height, footprint.Height());
    ASSERT_EQ(window.planes.size(), std::size_t(5 * footprint.Area()));
    for (int k = 0; k < 5; ++k)
    {
      const auto& plane = scene->planes[k < 2 ? 0 : 1][k < 2 ? k : k - 2];
      for (std::int64_t i = 0; i < footprint.Area(); ++i)
      {
        ASSERT_EQ(window.Plane(k)[i], plane[At(*scene, footprint.x0 + i % footprint.Width(), footprint.y0 + i / footprint.Width())]);
        ASSERT_EQ(window.valid[i], 1);
      }
    }
  }
}

TEST(SceneReader, AReadWithItsMarginServesEveryWindowInIt)
{
  const auto scene = Scene(40, 30, {1});
  SceneReader reader(scene, Inputs({1}), 40, 30);
  SceneWindow window;
  for (const Region& part : {Region{0, 0, 10, 10}, {33, 25, 40, 30}, {12, 9, 20, 17}})
  {
    reader.Read(part, 9);
    for (std::int64_t y = part.y0; y < part.y1; ++y)
    {
      for (std::int64_t x = part.x0; x < part.x1; ++x)
      {
        reader.Window({x - 9, y - 9, x + 10, y + 10}, 0, 1, {}, window);
        for (std::int64_t i = 0; i < 19 * 19; ++i)
        {
          ASSERT_EQ(window.planes[i], scene->planes[0][0][At(*scene, x - 9 + i % 19, y - 9 + i / 19)]);
        }
      }
    }
  }
}

TEST(SceneReader, ValidityIsJointAndWhatIsNotValidIsZero)
{
  const auto scene = Scene(12, 9, {2, 2});
  scene->At(0, 0, 3, 2) = scene->At(0, 1, 3, 2) = missing; // date 1
  scene->At(1, 0, 5, 2) = scene->At(1, 1, 5, 2) = missing; // date 2
  scene->At(0, 0, 7, 2) = missing;                         // one band only: data
  scene->At(1, 1, 8, 2) = notANumber;
  scene->mask.assign(12 * 9, 1.f);
  scene->mask[2 * 12 + 10] = 0.f;
  SceneReader reader(scene, Inputs({2, 2}), 12, 9);
  reader.Read(reader.Image(), 0);
  const auto invalid = [&](int first, int last)
  {
    SceneWindow window;
    reader.Window(reader.Image(), first, last, {}, window);
    std::set<int> found;
    for (int i = 0; i < 12 * 9; ++i)
    {
      if (!window.valid[i])
      {
        found.insert(i - 2 * 12);
        for (int k = 0; k < 2 * (last - first); ++k)
        {
          EXPECT_EQ(window.Plane(k)[i], 0.f);
        }
      }
    }
    return found;
  };
  EXPECT_EQ(invalid(0, 2), (std::set<int>{3, 5, 8, 10}));
  EXPECT_EQ(invalid(0, 1), (std::set<int>{3, 10}));
  EXPECT_EQ(invalid(1, 2), (std::set<int>{5, 8, 10}));
}

TEST(SceneReader, ScalingIsThatOfTheImagesOfTheWindow)
{
  const auto scene = Scene(8, 6, {1, 2});
  auto inputs = Inputs({1, 2});
  inputs[0].scaling[0].offset = 1e6; // not used
  SceneReader reader(scene, inputs, 8, 6);
  reader.Read(reader.Image(), 0);
  SceneWindow window;
  reader.Window(reader.Image(), 1, 2, {{19., 21., 20., 2.}, {39., 41., 40., 4.}}, window);
  for (int b = 0; b < 2; ++b)
  {
    for (int i = 0; i < 48; ++i)
    {
      const float v = scene->planes[1][b][i], middle = 20.f * float(b + 1);
      ASSERT_FLOAT_EQ(window.Plane(b)[i], (std::clamp(v, middle - 1.f, middle + 1.f) - middle) / (b == 0 ? 2.f : 4.f));
    }
  }
}

TEST(SceneCells, CoverTheSceneOnceInOrderOfRows)
{
  for (const auto& size : {std::pair<int, int>{1, 1}, {256, 256}, {257, 256}, {600, 1000}, {3, 700}})
  {
    const auto cells = SceneCells(size.first, size.second, 1000);
    std::int64_t area = 0;
    for (std::size_t c = 0; c < cells.size(); ++c)
    {
      area += cells[c].Area();
      EXPECT_FALSE(cells[c].Empty());
      EXPECT_EQ(cells[c].x0 % sceneCell, 0);
      EXPECT_EQ(cells[c].y0 % sceneCell, 0);
      EXPECT_EQ(Intersection(cells[c], Region{0, 0, size.first, size.second}), cells[c]);
      if (c > 0)
      {
        EXPECT_TRUE(cells[c].y0 > cells[c - 1].y0 || (cells[c].y0 == cells[c - 1].y0 && cells[c].x0 == cells[c - 1].x1));
      }
    }
    EXPECT_EQ(area, std::int64_t(size.first) * size.second);
  }
}

TEST(SceneCells, AboutAsManyAsAskedAreDrawnFromAllOverAScene)
{
  const auto all = SceneCells(100 * sceneCell, 80 * sceneCell, 8000);
  ASSERT_EQ(all.size(), 8000u);
  const auto some = SceneCells(100 * sceneCell, 80 * sceneCell, 256), again = SceneCells(100 * sceneCell, 80 * sceneCell, 256);
  EXPECT_NEAR(double(some.size()), 256., 4. * std::sqrt(256.));
  ASSERT_EQ(some.size(), again.size());
  std::size_t quarters[4] = {};
  for (std::size_t c = 0; c < some.size(); ++c)
  {
    EXPECT_EQ(some[c], again[c]);
    EXPECT_NE(std::find(all.begin(), all.end(), some[c]), all.end());
    ++quarters[(some[c].x0 >= 50 * sceneCell) + 2 * (some[c].y0 >= 40 * sceneCell)];
  }
  for (const auto n : quarters)
  {
    EXPECT_NEAR(double(n), 64., 32.);
  }
}

TEST(ForCells, EveryPixelOnceInCellsOfTheImageWhateverTheReads)
{
  for (const Region& region : {Region{0, 0, 600, 530}, {100, 250, 900, 262}, {255, 255, 257, 257}, {511, 3, 512, 4}})
  {
    for (const std::int64_t pixels : {std::int64_t(1), std::int64_t(2 * sceneCell * sceneCell), std::int64_t(1) << 40})
    {
      for (const int threads : {1, 3})
      {
        std::vector<int> seen(std::size_t(region.Area()), 0);
        std::mutex mutex;
        Region part;
        double last = 0.;
        ForCells(
            region, pixels, threads,
            [&](const Region& p)
            {
              part = p;
              EXPECT_EQ(Intersection(p, region), p);
              EXPECT_LE(p.Area(), std::max<std::int64_t>(pixels, sceneCell * sceneCell));
            },
            [&](const Region& cell)
            {
              std::lock_guard<std::mutex> lock(mutex);
              EXPECT_EQ(Intersection(cell, part), cell);
              EXPECT_EQ(cell.x0 / sceneCell, (cell.x1 - 1) / sceneCell);
              EXPECT_EQ(cell.y0 / sceneCell, (cell.y1 - 1) / sceneCell);
              for (std::int64_t i = 0; i < cell.Area(); ++i)
              {
                ++seen[(cell.y0 - region.y0 + i / cell.Width()) * region.Width() + cell.x0 - region.x0 + i % cell.Width()];
              }
            },
            [&](double done)
            {
              EXPECT_GT(done, last);
              last = done;
            });
        EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), std::int64_t(seen.size()));
        EXPECT_DOUBLE_EQ(last, 1.);
      }
    }
  }
}

/** By the definition. */
BandScaling Brute(std::vector<double> values, double clip)
{
  std::sort(values.begin(), values.end());
  const auto quantile = [&](double q)
  {
    const double place = q * double(values.size() - 1);
    const auto low = std::size_t(place);
    return values[low] + (place - double(low)) * (values[std::min(low + 1, values.size() - 1)] - values[low]);
  };
  BandScaling s;
  s.low = quantile(clip);
  s.high = quantile(1. - clip);
  double sum = 0., squares = 0.;
  for (auto& v : values)
  {
    v = std::clamp(v, s.low, s.high);
    sum += v;
  }
  s.offset = sum / double(values.size());
  for (const double v : values)
  {
    squares += (v - s.offset) * (v - s.offset);
  }
  s.divisor = std::sqrt(squares / double(values.size()));
  return s;
}

TEST(FitScaling, EqualsQuantilesAndMomentsByBruteForce)
{
  const auto scene = Scene(61, 47, {2, 1});
  for (int i = 0; i < 61 * 47; i += 5)
  {
    scene->planes[0][0][i] = scene->planes[0][1][i] = missing;
  }
  for (int i = 0; i < 61 * 47; i += 7)
  {
    scene->planes[1][0][i] = notANumber;
  }
  for (const bool joint : {true, false})
  {
    for (const double clip : {0., .01, .1})
    {
      SceneReader reader(scene, Inputs({2, 1}), 61, 47);
      const auto got = FitScaling(reader, clip, joint, {});
      ASSERT_EQ(got.size(), 3u);
      for (int k = 0; k < 3; ++k)
      {
        std::vector<double> values;
        for (int i = 0; i < 61 * 47; ++i)
        {
          const bool valid = joint ? i % 5 != 0 && i % 7 != 0 : k < 2 ? i % 5 != 0 : i % 7 != 0;
          if (valid)
          {
            values.push_back(scene->planes[k / 2][k % 2][i]);
          }
        }
        const auto want = Brute(values, clip);
        EXPECT_NEAR(got[k].low, want.low, 1e-5);
        EXPECT_NEAR(got[k].high, want.high, 1e-5);
        EXPECT_NEAR(got[k].offset, want.offset, 1e-5);
        EXPECT_NEAR(got[k].divisor, want.divisor, 1e-5);
      }
    }
  }
}

TEST(FitScaling, ASampleOfALargeSceneIsNearTheWhole)
{
  const auto scene = Scene(1100, 800, {1});
  SceneReader reader(scene, Inputs({1}), 1100, 800);
  const auto got = FitScaling(reader, .01, true, {})[0];
  const auto want = Brute({scene->planes[0][0].begin(), scene->planes[0][0].end()}, .01);
  EXPECT_NEAR(got.low, want.low, .03);
  EXPECT_NEAR(got.high, want.high, .03);
  EXPECT_NEAR(got.offset, want.offset, .01);
  EXPECT_NEAR(got.divisor, want.divisor, .01);
  EXPECT_LE(scene->largestRead, sceneCell * sceneCell);
}

TEST(FitScaling, UnitsDoNotMatter)
{
  const auto scene = Scene(40, 30, {1, 1});
  for (std::size_t i = 0; i < scene->planes[0][0].size(); ++i)
  {
    scene->planes[1][0][i] = 1e-9f * scene->planes[0][0][i];
  }
  SceneReader reader(scene, Inputs({1, 1}), 40, 30);
  const auto got = FitScaling(reader, .01, true, {});
  EXPECT_NEAR(got[1].offset / got[0].offset, 1e-9, 1e-14);
  EXPECT_NEAR(got[1].divisor / got[0].divisor, 1e-9, 1e-14);
}

TEST(FitScaling, ABandWithoutVarianceBecomesZero)
{
  for (const float value : {0.f, .1f, -3.f, 12345.678f})
  {
    const auto scene = std::make_shared<MemoryScene>(300, 20, std::vector<int>{1});
    scene->Fill(0, [&](int, std::int64_t, std::int64_t) { return value; });
    SceneReader reader(scene, Inputs({1}), 300, 20);
    const auto got = FitScaling(reader, .01, true, {});
    EXPECT_EQ(got[0].divisor, 1.) << value;
    EXPECT_FLOAT_EQ(float(got[0].offset), value);
  }
}

TEST(FitScaling, ASceneWithoutDataLeavesValuesAsTheyAre)
{
  const auto scene = std::make_shared<MemoryScene>(30, 20, std::vector<int>{1});
  scene->Fill(0, [&](int, std::int64_t, std::int64_t) { return missing; });
  SceneReader reader(scene, Inputs({1}), 30, 20);
  const auto got = FitScaling(reader, .01, true, {});
  EXPECT_EQ(got[0].offset, 0.);
  EXPECT_EQ(got[0].divisor, 1.);
}

} // namespace
