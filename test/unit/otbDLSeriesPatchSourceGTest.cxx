/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// Patches of series: what the network is given at each pixel of a patch that may leave the image, and what is said once a patch.
#include "otbDLSeriesPatchSource.h"
#include "otbDLSeriesScene.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

namespace
{

using namespace otb::dl;
using namespace otbtest;
using testing::Each;
using testing::ElementsAre;
using GapFill = TemporalSpec::GapFill;

constexpr int width = 11, height = 9, patch = 8, dates = 2;

/** Digital numbers that say where they come from. */
float At(std::int64_t x, std::int64_t y, int date, int band)
{
  return static_cast<float>(1000 * date + 500 * band + 20 * y + x + 1);
}

std::shared_ptr<Scene> MakeScene()
{
  auto scene = std::make_shared<Scene>(width, height);
  scene->AddSensor(Days({0, 10}), {"a", "b"}, SampleType::UInt16);
  scene->AddMasks(0, MaskMeaning::ZeroIsValid);
  for (int y = 0; y < height; ++y)
  {
    for (int x = 0; x < width; ++x)
    {
      for (int t = 0; t < dates; ++t)
      {
        scene->Set(0, t, 0, At(x, y, t, 0), x, y);
        scene->Set(0, t, 1, At(x, y, t, 1), x, y);
      }
    }
  }
  scene->setup.latLon = [](double x, double y) { return std::make_pair(static_cast<float>(y), static_cast<float>(x)); };
  return scene;
}

ModelContract PatchContract(const std::vector<ModelInput>& inputs)
{
  ModelContract contract;
  contract.task = "time-series-classification";
  contract.tiling.patch = patch;
  contract.inputs = inputs;
  return contract;
}

ModelInput Images(const std::vector<Axis>& axes = byPatch)
{
  ModelInput in = Sits({"a", "b"});
  in.axes = axes;
  in.noDataFill = -7.f;
  return in;
}

/** What a patch must be read from, as the grid says. */
Region Reads(const Region& footprint)
{
  Region needed;
  MirroredInterval(footprint.x0, footprint.x1, width, needed.x0, needed.x1);
  MirroredInterval(footprint.y0, footprint.y1, height, needed.y0, needed.y1);
  return needed;
}

struct Bench
{
  Bench(const ModelContract& contract, std::shared_ptr<Scene> of)
      : scene(std::move(of)), preparation(std::make_shared<SeriesPreparation>(contract, scene->setup)), source(scene, preparation),
        memory(preparation->Contract(), 2, patch)
  {
  }
  /** Reads, looks at and packs a patch into slot 1. */
  PatchContent Make(const Region& footprint, bool counts = true)
  {
    PatchContent content;
    source.Read(Reads(footprint));
    source.Look(footprint, counts, content);
    source.Pack(footprint, content, memory, 1);
    return content;
  }
  std::shared_ptr<Scene> scene;
  std::shared_ptr<SeriesPreparation> preparation;
  SeriesPatchSource source;
  SumPredictor memory;
};

const Region footprints[] = {{1, 0, 9, 8}, {-3, -2, 5, 6}, {7, 5, 15, 13}, {-40, 3, -32, 11}};

TEST(SeriesPatchSource, APatchHoldsThePixelsOfItsFootprintMirroredBeyondTheImage)
{
  for (const bool timeFirst : {true, false})
  {
    Bench bench(PatchContract({Images(timeFirst ? byPatch : std::vector<Axis>{Axis::Batch, Axis::Bands, Axis::Time, Axis::Height, Axis::Width})}), MakeScene());
    for (const Region& r : footprints)
    {
      bench.Make(r);
      std::vector<float> expected;
      for (int i = 0; i < 2; ++i)
      {
        for (int j = 0; j < 2; ++j)
        {
          for (auto y = r.y0; y < r.y1; ++y)
          {
            for (auto x = r.x0; x < r.x1; ++x)
            {
              expected.push_back(At(Mirror(x, width), Mirror(y, height), timeFirst ? i : j, timeFirst ? j : i));
            }
          }
        }
      }
      ASSERT_EQ(bench.memory.Slot(0, 1), expected);
      EXPECT_THAT(bench.memory.Slot(0, 0), Each(-99)) << "the other slot";
    }
  }
}

TEST(SeriesPatchSource, ValidityAndCountsAreThoseOfThePixelsShown)
{
  auto scene = MakeScene();
  scene->SetMask(0, 0, 1, 2, 1); // one date
  scene->SetMask(0, 0, 1, 3, 4); // both
  scene->SetMask(0, 1, 1, 3, 4);
  Bench bench(PatchContract({Images()}), scene);
  for (const Region& r : footprints)
  {
    const PatchContent content = bench.Make(r);
    ASSERT_EQ(content.valid.size(), std::size_t(patch) * patch);
    ASSERT_EQ(content.counts.size(), 1u);
    ASSERT_EQ(content.counts[0].size(), content.valid.size());
    std::size_t i = 0;
    for (auto y = r.y0; y < r.y1; ++y)
    {
      for (auto x = r.x0; x < r.x1; ++x, ++i)
      {
        const auto u = Mirror(x, width), v = Mirror(y, height);
        const int count = u == 2 && v == 1 ? 1 : u == 3 && v == 4 ? 0 : 2;
        ASSERT_EQ(content.counts[0][i], count) << x << ", " << y;
        ASSERT_EQ(content.valid[i], count > 0) << x << ", " << y;
      }
    }
  }
}

TEST(SeriesPatchSource, CountsAreGivenOnlyWhereTheyAreWanted)
{
  Bench bench(PatchContract({Images()}), MakeScene());
  PatchContent content;
  bench.source.Read({0, 0, 8, 8});
  bench.source.Look({0, 0, 8, 8}, true, content);
  EXPECT_EQ(content.counts.size(), 1u);
  bench.source.Look({0, 0, 8, 8}, false, content);
  EXPECT_TRUE(content.counts.empty());
}

TEST(SeriesPatchSource, InvalidDatesOfAPixelHoldTheFillValueAtThatPixelAlone)
{
  auto scene = MakeScene();
  scene->SetMask(0, 1, 1, 2, 3);
  ModelInput byPixelOfPatch = With("valid", 0, {Axis::Batch, Axis::Time, Axis::Height, Axis::Width});
  Bench bench(PatchContract({Images(), byPixelOfPatch}), scene);
  bench.Make({0, 0, 8, 8});
  const auto values = bench.memory.Slot(0, 1), flags = bench.memory.Slot(1, 1);
  for (int t = 0; t < dates; ++t)
  {
    for (int y = 0; y < patch; ++y)
    {
      for (int x = 0; x < patch; ++x)
      {
        const bool gone = t == 1 && x == 2 && y == 3;
        ASSERT_EQ(flags[(t * patch + y) * patch + x], gone ? 0.f : 1.f);
        ASSERT_EQ(values[((t * 2 + 1) * patch + y) * patch + x], gone ? -7.f : At(x, y, t, 1));
      }
    }
  }
}

TEST(SeriesPatchSource, ADateOfAPatchIsValidWhereEnoughPixelsAreMirroredOnesIncluded)
{
  auto scene = MakeScene();
  for (int y = 0; y < height; ++y)
  {
    for (int x = 0; x < width; ++x)
    {
      scene->SetMask(0, 1, x == 0 ? 0 : 1, x, y); // at the second date only the first column is clear
    }
  }
  ModelInput valid = With("valid", 0, {Axis::Batch, Axis::Time});
  const auto flags = [&](double share, const Region& footprint)
  {
    valid.minValid = share;
    Bench bench(PatchContract({Images(), valid}), scene);
    bench.Make(footprint);
    return bench.memory.Slot(1, 1);
  };
  EXPECT_THAT(flags(0., {0, 0, 8, 8}), ElementsAre(1, 1));
  EXPECT_THAT(flags(0., {1, 0, 9, 8}), ElementsAre(1, 0));
  EXPECT_THAT(flags(.125, {0, 0, 8, 8}), ElementsAre(1, 1)) << "8 of 64";
  EXPECT_THAT(flags(.126, {0, 0, 8, 8}), ElementsAre(1, 0));
  EXPECT_THAT(flags(1., {0, 0, 8, 8}), ElementsAre(1, 0));
}

TEST(SeriesPatchSource, DatesAreToldOnceAndThePositionIsThatOfTheCentre)
{
  ModelInput days = With("dates", 0, {Axis::Batch, Axis::Time});
  days.encoding.kind = DateEncoding::Kind::DaysSinceFirst;
  Bench bench(PatchContract({Images(), days, With("month", 0, {Axis::Batch}), With("latlon", -1, {Axis::Batch, Axis::Bands})}), MakeScene());
  bench.Make({2, -4, 10, 4});
  EXPECT_THAT(bench.memory.Slot(1, 1), ElementsAre(0, 10));
  EXPECT_THAT(bench.memory.Slot(2, 1), ElementsAre(0));
  EXPECT_THAT(bench.memory.Slot(3, 1), ElementsAre(-.5f, 5.5f));
}

TEST(SeriesPatchSource, AnotherBlockThatHoldsThePatchGivesTheSame)
{
  Bench bench(PatchContract({Images()}), MakeScene());
  const Region footprint{1, 0, 9, 8};
  bench.Make(footprint);
  const auto values = bench.memory.Slot(0, 1);
  PatchContent content;
  bench.source.Read({0, 0, width, height});
  bench.source.Look(footprint, false, content);
  bench.source.Pack(footprint, content, bench.memory, 0);
  EXPECT_EQ(bench.memory.Slot(0, 0), values);
}

} // namespace
