/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// The grid of patches, by counting pixels.
#include "otbDLError.h"
#include "otbDLPatchGrid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace
{

using namespace otb::dl;
using testing::ElementsAre;
using testing::HasSubstr;

Tiling MakeTiling(int patch, int multiple, int halo, Blend blend)
{
  Tiling t;
  t.patch = patch;
  t.multiple = multiple;
  t.halo = halo;
  t.blend = blend;
  return t;
}

/** Many images and tilings: thin, smaller than a patch, multiples of the step and not. */
std::vector<PatchGrid> Grids(Blend blend)
{
  std::vector<PatchGrid> grids;
  const std::pair<int, int> sizes[] = {{1, 1}, {1, 40}, {40, 1}, {2, 3}, {8, 8}, {15, 16}, {16, 17}, {31, 7}, {32, 64}, {33, 65}, {100, 51}};
  const Tiling tilings[] = {MakeTiling(8, 1, 0, blend),  MakeTiling(8, 1, 3, blend),  MakeTiling(16, 4, 4, blend),
                            MakeTiling(24, 4, 5, blend), MakeTiling(32, 8, 1, blend), MakeTiling(34, 1, 16, blend)};
  for (const auto& s : sizes)
  {
    for (const auto& t : tilings)
    {
      grids.emplace_back(s.first, s.second, t);
    }
  }
  return grids;
}

/** How many cores hold each pixel of the image. */
std::vector<int> Cover(const PatchGrid& grid)
{
  const Region image = grid.Image();
  std::vector<int> cover(image.Area(), 0);
  for (std::int64_t j = 0; j < grid.Rows(); ++j)
  {
    for (std::int64_t i = 0; i < grid.Columns(); ++i)
    {
      const Region core = Intersection(grid.Core(i, j), image);
      for (auto y = core.y0; y < core.y1; ++y)
      {
        for (auto x = core.x0; x < core.x1; ++x)
        {
          ++cover[y * image.Width() + x];
        }
      }
    }
  }
  return cover;
}

TEST(PatchGrid, CoresTileTheImageExactlyOnce)
{
  for (const auto& grid : Grids(Blend::Crop))
  {
    EXPECT_THAT(Cover(grid), testing::Each(1)) << grid.Image().Width() << " x " << grid.Image().Height() << ", patch " << grid.Patch();
  }
}

TEST(PatchGrid, EachPixelLiesInFourBlendedPatches)
{
  for (const auto& grid : Grids(Blend::Hann))
  {
    EXPECT_THAT(Cover(grid), testing::Each(4)) << grid.Image().Width() << " x " << grid.Image().Height() << ", patch " << grid.Patch();
  }
}

TEST(PatchGrid, NoPatchIsSuperfluous)
{
  for (const Blend blend : {Blend::Crop, Blend::Hann})
  {
    for (const auto& grid : Grids(blend))
    {
      EXPECT_EQ(grid.Count(), grid.Columns() * grid.Rows());
      for (std::int64_t j = 0; j < grid.Rows(); ++j)
      {
        for (std::int64_t i = 0; i < grid.Columns(); ++i)
        {
          EXPECT_FALSE(Intersection(grid.Core(i, j), grid.Image()).Empty());
        }
      }
    }
  }
}

TEST(PatchGrid, FootprintsAreSquaresAroundTheirCores)
{
  for (const Blend blend : {Blend::Crop, Blend::Hann})
  {
    for (const auto& grid : Grids(blend))
    {
      const Region f = grid.Footprint(1, 2), c = grid.Core(1, 2);
      EXPECT_EQ(f.Width(), grid.Patch());
      EXPECT_EQ(f.Height(), grid.Patch());
      EXPECT_EQ(c.Width(), grid.CoreSize());
      EXPECT_EQ(c.Height(), grid.CoreSize());
      EXPECT_EQ(c.x0 - f.x0, grid.CoreOffset());
      EXPECT_EQ(c.y0 - f.y0, grid.CoreOffset());
      EXPECT_EQ(f.x1 - c.x1, grid.CoreOffset());
      EXPECT_EQ(grid.Footprint(2, 2).x0 - f.x0, grid.Step());
      EXPECT_EQ(grid.Footprint(1, 3).y0 - f.y0, grid.Step());
    }
  }
}

TEST(PatchGrid, TheHaloIsRoundedUpToTheStrideOfTheNetwork)
{
  EXPECT_EQ(PatchGrid(100, 100, MakeTiling(32, 8, 0, Blend::Crop)).CoreOffset(), 0);
  EXPECT_EQ(PatchGrid(100, 100, MakeTiling(32, 8, 1, Blend::Crop)).CoreOffset(), 8);
  EXPECT_EQ(PatchGrid(100, 100, MakeTiling(32, 8, 8, Blend::Crop)).CoreOffset(), 8);
  EXPECT_EQ(PatchGrid(100, 100, MakeTiling(32, 8, 8, Blend::Crop)).Step(), 16);
  EXPECT_EQ(PatchGrid(100, 100, MakeTiling(32, 1, 5, Blend::Crop)).Step(), 22);
  EXPECT_EQ(PatchGrid(100, 100, MakeTiling(32, 8, 30, Blend::Hann)).Step(), 16);
}

TEST(PatchGrid, PatchesCommuteWithTheStrideOfTheNetwork)
{
  for (const auto& t : {MakeTiling(32, 8, 3, Blend::Crop), MakeTiling(64, 16, 16, Blend::Crop), MakeTiling(32, 8, 3, Blend::Hann)})
  {
    const PatchGrid grid(500, 300, t);
    for (std::int64_t i = 0; i < grid.Columns(); ++i)
    {
      EXPECT_EQ(grid.Footprint(i, 0).x0 % t.multiple, 0);
    }
  }
}

TEST(PatchGrid, CoveringNamesThePatchesWhoseCoresMeetTheRegion)
{
  std::mt19937 random(1);
  for (const Blend blend : {Blend::Crop, Blend::Hann})
  {
    for (const auto& grid : Grids(blend))
    {
      const Region image = grid.Image();
      for (int trial = 0; trial < 20; ++trial)
      {
        Region r;
        r.x0 = random() % image.x1;
        r.y0 = random() % image.y1;
        r.x1 = r.x0 + 1 + random() % (image.x1 - r.x0);
        r.y1 = r.y0 + 1 + random() % (image.y1 - r.y0);
        const Region covering = grid.Covering(r);
        ASSERT_EQ(Intersection(covering, Region{0, 0, grid.Columns(), grid.Rows()}), covering);
        for (std::int64_t j = 0; j < grid.Rows(); ++j)
        {
          for (std::int64_t i = 0; i < grid.Columns(); ++i)
          {
            const bool named = i >= covering.x0 && i < covering.x1 && j >= covering.y0 && j < covering.y1;
            ASSERT_EQ(named, !Intersection(grid.Core(i, j), r).Empty()) << i << ", " << j;
          }
        }
      }
    }
  }
}

TEST(PatchGrid, ReadsIsWhatTheMirrorShowsAndStaysInside)
{
  std::mt19937 random(2);
  const std::pair<int, int> sizes[] = {{1, 1}, {1, 23}, {23, 1}, {2, 5}, {3, 64}, {40, 30}};
  for (const auto& s : sizes)
  {
    const PatchGrid grid(s.first, s.second, MakeTiling(16, 1, 4, Blend::Crop));
    for (int trial = 0; trial < 200; ++trial)
    {
      Region f;
      f.x0 = static_cast<int>(random() % 200) - 100;
      f.y0 = static_cast<int>(random() % 200) - 100;
      f.x1 = f.x0 + 1 + random() % 40;
      f.y1 = f.y0 + 1 + random() % 40;
      Region expected{s.first, s.second, 0, 0};
      for (auto x = f.x0; x < f.x1; ++x)
      {
        expected.x0 = std::min(expected.x0, Mirror(x, s.first));
        expected.x1 = std::max(expected.x1, Mirror(x, s.first) + 1);
      }
      for (auto y = f.y0; y < f.y1; ++y)
      {
        expected.y0 = std::min(expected.y0, Mirror(y, s.second));
        expected.y1 = std::max(expected.y1, Mirror(y, s.second) + 1);
      }
      const Region reads = grid.Reads(f);
      ASSERT_EQ(reads, expected);
      ASSERT_EQ(Intersection(reads, grid.Image()), reads);
      ASSERT_FALSE(reads.Empty());
    }
  }
}

TEST(PatchGrid, ManyPatchesDoNotOverflow)
{
  const std::int64_t side = std::int64_t(3) << 30;
  const PatchGrid grid(side, side, MakeTiling(8, 1, 0, Blend::Crop));
  EXPECT_EQ(grid.Columns(), side / 8);
  EXPECT_EQ(grid.Count(), (side / 8) * (side / 8));
  EXPECT_EQ(grid.Core(grid.Columns() - 1, grid.Rows() - 1).x1, side);
}

TEST(PatchGrid, AnEmptyImageIsAnError)
{
  EXPECT_THROW(PatchGrid(0, 10, MakeTiling(16, 1, 0, Blend::Crop)), Error);
  EXPECT_THROW(PatchGrid(10, -1, MakeTiling(16, 1, 0, Blend::Hann)), Error);
}

std::string MessageOf(const Tiling& t)
{
  try
  {
    PatchGrid(10, 10, t);
  }
  catch (const Error& e)
  {
    return e.what();
  }
  return "";
}

TEST(PatchGrid, AHaloThatLeavesNothingIsAnErrorThatSaysWhatToDo)
{
  EXPECT_EQ(MessageOf(MakeTiling(16, 1, 7, Blend::Crop)), "");
  EXPECT_THAT(MessageOf(MakeTiling(16, 1, 8, Blend::Crop)), HasSubstr("-blend hann"));
  EXPECT_THAT(MessageOf(MakeTiling(16, 8, 1, Blend::Crop)), HasSubstr("halo of 8"));
}

TEST(PatchGrid, BlendingAnOddPatchIsAnError)
{
  EXPECT_EQ(MessageOf(MakeTiling(16, 1, 8, Blend::Hann)), "");
  EXPECT_THAT(MessageOf(MakeTiling(17, 1, 0, Blend::Hann)), HasSubstr("17"));
}

TEST(Mirror, EqualsNumpyReflect)
{
  const auto padded = [](std::int64_t n, std::int64_t before, std::int64_t after)
  {
    std::vector<std::int64_t> shown;
    for (auto i = -before; i < n + after; ++i)
    {
      shown.push_back(Mirror(i, n));
    }
    return shown;
  };
  EXPECT_THAT(padded(4, 6, 6), ElementsAre(0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3));
  EXPECT_THAT(padded(3, 7, 5), ElementsAre(1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1));
  EXPECT_THAT(padded(2, 3, 3), ElementsAre(1, 0, 1, 0, 1, 0, 1, 0));
  EXPECT_THAT(padded(1, 3, 3), testing::Each(0));
}

TEST(Region, IntersectionAndBoundingBox)
{
  const Region a{0, 0, 10, 5}, b{4, 3, 20, 8}, apart{10, 0, 12, 5};
  EXPECT_EQ(Intersection(a, b), (Region{4, 3, 10, 5}));
  EXPECT_EQ(BoundingBox(a, b), (Region{0, 0, 20, 8}));
  EXPECT_TRUE(Intersection(a, apart).Empty());
  EXPECT_EQ(Intersection(a, Region{12, 7, 13, 9}).Area(), 0);
  EXPECT_FALSE(a.Empty());
  EXPECT_EQ(a.Area(), 50);
}

TEST(HannWindow, ShiftedByHalfAndAddedIsExactlyOne)
{
  for (int patch = 2; patch <= 1024; patch += 2)
  {
    const auto w = HannWindow(patch);
    ASSERT_EQ(w.size(), static_cast<std::size_t>(patch));
    for (int u = 0; u < patch / 2; ++u)
    {
      ASSERT_EQ(w[u] + w[u + patch / 2], 1.f) << patch << ", " << u;
      ASSERT_GT(w[u], 0.f);
      ASSERT_GT(w[u + patch / 2], 0.f);
    }
  }
}

TEST(HannWindow, IsTheSquareOfASine)
{
  const int patch = 64;
  const auto w = HannWindow(patch);
  for (int u = 0; u < patch; ++u)
  {
    EXPECT_NEAR(w[u], std::pow(std::sin(std::acos(-1.) * (u + .5) / patch), 2.), 1e-7);
  }
}

} // namespace
