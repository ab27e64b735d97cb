/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// The ITK filter on images in memory: geometry, metadata, regions, progress, abort, and its place in a pipeline.
#include "otbDLBoxPredictor.h"
#include "otbDLError.h"
#include "otbDLPatchMapFilter.h"
#include "otbDLPipeline.h"
#include "otbDLSceneMapFilter.h"

#include "itkCommand.h"
#include "otbConcatenateVectorImageFilter.h"
#include "otbMultiChannelExtractROI.h"
#include "otbNoDataHelper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace
{

using namespace otb::dl;
using otbtest::BoxPredictor;
using otbtest::Identity;
using FilterType = PatchMapFilter;
using ImageType = FilterType::ImageType;
using testing::HasSubstr;

ImageType::Pointer MakeImage(int width, int height, int bands, int x0 = 0, int y0 = 0)
{
  auto image = ImageType::New();
  ImageType::RegionType region;
  region.SetIndex(0, x0);
  region.SetIndex(1, y0);
  region.SetSize(0, width);
  region.SetSize(1, height);
  image->SetRegions(region);
  image->SetNumberOfComponentsPerPixel(bands);
  image->Allocate();
  ImageType::SpacingType spacing;
  spacing[0] = 10.;
  spacing[1] = -10.;
  image->SetSignedSpacing(spacing);
  // The same place on the ground whatever the index of the first pixel.
  ImageType::PointType origin;
  origin[0] = 1005. - 10. * x0;
  origin[1] = 1995. + 10. * y0;
  image->SetOrigin(origin);
  float* p = image->GetBufferPointer();
  for (int i = 0; i < width * height * bands; ++i)
  {
    p[i] = static_cast<float>(1 + (i * 7919) % 97);
  }
  return image;
}

struct Bench
{
  explicit Bench(ImageType* image, Blend blend = Blend::Crop)
  {
    FilterType::Input input;
    input.model.name = "x";
    input.model.bands = {"a", "b"};
    input.model.scaling.resize(2);
    input.images = {image};
    input.names = {"in1"};
    tiling.patch = 32;
    tiling.halo = 4;
    tiling.blend = blend;
    predictor = std::make_shared<BoxPredictor>(2, 2, 32, 2, blend == Blend::Hann);
    filter = FilterType::New();
    filter->SetInputs({input});
    filter->SetOperator(std::make_shared<Identity>());
    filter->SetTiling(tiling);
    filter->SetPredictor(predictor);
  }
  std::vector<float> Update(int output, int x, int y, int w, int h)
  {
    auto* out = filter->GetOutput(output);
    filter->UpdateOutputInformation();
    ImageType::RegionType region;
    region.SetIndex(0, x);
    region.SetIndex(1, y);
    region.SetSize(0, w);
    region.SetSize(1, h);
    out->SetRequestedRegion(region);
    out->Update();
    EXPECT_EQ(out->GetBufferedRegion(), region);
    return {out->GetBufferPointer(), out->GetBufferPointer() + w * h};
  }
  Tiling tiling;
  std::shared_ptr<BoxPredictor> predictor;
  FilterType::Pointer filter;
};

TEST(PatchMapFilter, OutputsLieOnTheGridOfTheFirstImage)
{
  auto image = MakeImage(70, 50, 2);
  Bench bench(image);
  bench.filter->UpdateOutputInformation();
  ASSERT_EQ(bench.filter->GetNumberOfOutputs(), 2u);
  for (int r = 0; r < 2; ++r)
  {
    const auto* out = bench.filter->GetOutput(r);
    EXPECT_EQ(out->GetLargestPossibleRegion(), image->GetLargestPossibleRegion());
    EXPECT_EQ(out->GetSignedSpacing(), image->GetSignedSpacing());
    EXPECT_EQ(out->GetOrigin(), image->GetOrigin());
    EXPECT_EQ(out->GetNumberOfComponentsPerPixel(), 1u);
  }
}

TEST(PatchMapFilter, NoDataOfTheOutputsIsTheirOwnAndTheInputsTilesAreForgotten)
{
  auto image = MakeImage(70, 50, 2);
  otb::ImageMetadata imd = image->GetImageMetadata();
  imd.Bands.resize(2);
  otb::WriteNoDataFlags({true, true}, {12., 12.}, imd);
  imd.Add(otb::MDNum::TileHintX, 70);
  imd.Add(otb::MDNum::TileHintY, 1);
  image->SetImageMetadata(imd);
  Bench bench(image);
  bench.filter->UpdateOutputInformation();
  const double expected[] = {Identity::noData, 9.};
  for (int r = 0; r < 2; ++r)
  {
    const auto& out = bench.filter->GetOutput(r)->GetImageMetadata();
    std::vector<bool> flags;
    std::vector<double> values;
    ASSERT_TRUE(otb::ReadNoDataFlags(out, flags, values));
    ASSERT_EQ(values.size(), 1u);
    EXPECT_TRUE(flags[0]);
    EXPECT_EQ(values[0], expected[r]);
    EXPECT_EQ(static_cast<int>(out[otb::MDNum::TileHintX]) % (32 - 8), 0);
    EXPECT_GT(out[otb::MDNum::TileHintY], 1.);
  }
}

TEST(PatchMapFilter, AnyRegionOfAnyOutputGivesThePixelsOfTheWhole)
{
  for (const Blend blend : {Blend::Crop, Blend::Hann})
  {
    auto image = MakeImage(70, 50, 2);
    Bench whole(image, blend);
    const auto all = whole.Update(0, 0, 0, 70, 50);
    const auto second = whole.filter->GetOutput(1)->GetBufferPointer();
    Bench parts(image, blend);
    for (const auto& r : std::vector<std::array<int, 4>>{{0, 0, 70, 1}, {33, 7, 20, 40}, {69, 49, 1, 1}, {0, 30, 11, 20}})
    {
      const auto part = parts.Update(1, r[0], r[1], r[2], r[3]);
      const auto* first = parts.filter->GetOutput(0)->GetBufferPointer();
      for (int y = 0; y < r[3]; ++y)
      {
        for (int x = 0; x < r[2]; ++x)
        {
          ASSERT_EQ(first[y * r[2] + x], all[(r[1] + y) * 70 + r[0] + x]);
          ASSERT_EQ(part[y * r[2] + x], second[(r[1] + y) * 70 + r[0] + x]);
        }
      }
    }
  }
}

TEST(PatchMapFilter, TheIndexOfTheFirstPixelDoesNotMatter)
{
  auto at0 = MakeImage(70, 50, 2);
  auto at9 = MakeImage(70, 50, 2, 9, -4);
  Bench a(at0), b(at9);
  EXPECT_EQ(a.Update(0, 5, 6, 40, 30), b.Update(0, 14, 2, 40, 30));
}

TEST(PatchMapFilter, StreamingUpstreamFiltersAreAskedForPartsOnly)
{
  auto image = MakeImage(400, 300, 3);
  using ExtractType = otb::MultiChannelExtractROI<float, float>;
  auto extract = ExtractType::New();
  extract->SetInput(image);
  extract->SetFirstChannel(1);
  extract->SetLastChannel(2);
  Bench bench(extract->GetOutput());
  otbtest::MadeRegions made(extract);
  bench.Update(0, 0, 0, 400, 300);
  EXPECT_EQ(made.Box(), image->GetLargestPossibleRegion());
  EXPECT_LT(made.Largest(), 400u * 300u / 8);
}

using ExtractType = otb::MultiChannelExtractROI<float, float>;

ExtractType::Pointer FirstTwoBands(ImageType* image)
{
  auto extract = ExtractType::New();
  extract->SetInput(image);
  extract->SetFirstChannel(1);
  extract->SetLastChannel(2);
  return extract;
}

/** As an application sets it for whoever asks for regions in memory. */
void AskedByOthers(Bench& bench)
{
  MapEngine::Settings settings;
  settings.whole = false;
  bench.filter->SetSettings(settings);
}

ImageType::RegionType MakeRegion(int x, int y, int w, int h)
{
  ImageType::RegionType region;
  region.SetIndex({{x, y}});
  region.SetSize({{static_cast<itk::SizeValueType>(w), static_cast<itk::SizeValueType>(h)}});
  return region;
}

TEST(PatchMapFilter, ASmallRegionAsksUpstreamForItsPatchesAlone)
{
  auto image = MakeImage(400, 300, 3);
  auto extract = FirstTwoBands(image);
  Bench bench(extract->GetOutput());
  AskedByOthers(bench);
  otbtest::MadeRegions made(extract);
  const auto small = bench.Update(0, 100, 50, 18, 10);
  // Patches of 32 with a halo of 4 lie on a grid of 24: columns 96 to 119, rows 48 to 71.
  const auto patch = MakeRegion(92, 44, 32, 32);
  EXPECT_EQ(made.Box(), patch);
  EXPECT_EQ(extract->GetOutput()->GetRequestedRegion(), patch) << "what upstream is told is what it is asked for";
  EXPECT_EQ(bench.predictor->calls, 1);

  Bench whole(extract->GetOutput());
  const auto all = whole.Update(0, 0, 0, 400, 300);
  for (int i = 0; i < 180; ++i)
  {
    ASSERT_EQ(small[i], all[(50 + i / 18) * 400 + 100 + i % 18]);
  }
}

TEST(PatchMapFilter, OnceRegionFollowsRegionBatchesAreFull)
{
  auto image = MakeImage(300, 216, 2);
  Bench bench(image);
  bench.predictor = std::make_shared<BoxPredictor>(8, 2, 32, 2, false);
  bench.filter->SetPredictor(bench.predictor);
  AskedByOthers(bench);
  // Strips of one row of patches, 13 in each: 5 and 3 do not fill a batch of 8.
  for (int y = 0; y < 216; y += 24)
  {
    bench.Update(0, 0, y, 300, 24);
  }
  const int patches = 13 * 9;
  EXPECT_EQ(bench.filter->GetStatistics().samplesInferred, patches);
  EXPECT_LE(bench.predictor->calls, (patches + 7) / 8 + 1);
}

TEST(PatchMapFilter, AnImageUpstreamServesOthersAsWell)
{
  // image -> first -> near -> [filter] -> both, and first or near -> both as well.
  auto image = MakeImage(150, 120, 3);
  using JoinType = otb::ConcatenateVectorImageFilter<ImageType, ImageType, ImageType>;
  for (const bool direct : {true, false})
  {
    for (const bool before : {true, false})
    {
      const auto run = [&](bool shared)
      {
        auto first = FirstTwoBands(image), other = FirstTwoBands(image);
        auto near = otbtest::LargestNearby::New(), near2 = otbtest::LargestNearby::New();
        near->SetInput(first->GetOutput());
        near2->SetInput(first->GetOutput());
        auto two = otb::ConcatenateVectorImageFilter<ImageType, ImageType, ImageType>::New();
        two->SetInput1(near->GetOutput());
        two->SetInput2(near2->GetOutput());
        Bench bench(direct ? first->GetOutput() : two->GetOutput());
        AskedByOthers(bench);
        auto* beside = (shared ? first : other)->GetOutput();
        auto join = JoinType::New();
        join->SetInput1(before ? beside : bench.filter->GetOutput());
        join->SetInput2(before ? bench.filter->GetOutput() : beside);
        std::vector<float> pixels;
        join->UpdateOutputInformation();
        for (const auto& region : {MakeRegion(0, 0, 150, 40), MakeRegion(0, 40, 150, 40), MakeRegion(0, 80, 150, 40), MakeRegion(20, 30, 40, 50)})
        {
          join->UpdateOutputInformation();
          join->GetOutput()->SetRequestedRegion(region);
          join->GetOutput()->Update();
          const float* from = join->GetOutput()->GetBufferPointer();
          pixels.insert(pixels.end(), from, from + region.GetNumberOfPixels() * 3);
        }
        return pixels;
      };
      EXPECT_EQ(run(true), run(false)) << direct << before;
    }
  }
}

TEST(PatchMapFilter, OneOutputServesAnotherFilterAndTheOtherOneOthers)
{
  // image -> [first] -> output 1 -> [second] -> both, and output 0 -> both.
  auto image = MakeImage(150, 120, 2);
  using JoinType = otb::ConcatenateVectorImageFilter<ImageType, ImageType, ImageType>;
  const auto run = [&](bool shared)
  {
    Bench first(image), other(image);
    AskedByOthers(first);
    AskedByOthers(other);
    auto two = JoinType::New();
    two->SetInput1(first.filter->GetOutput(1));
    two->SetInput2(first.filter->GetOutput(1));
    Bench second(two->GetOutput());
    AskedByOthers(second);
    auto join = JoinType::New();
    join->SetInput1((shared ? first : other).filter->GetOutput(0));
    join->SetInput2(second.filter->GetOutput(0));
    std::vector<float> pixels;
    for (const auto& region : {MakeRegion(0, 0, 150, 60), MakeRegion(0, 60, 150, 60), MakeRegion(20, 30, 40, 50)})
    {
      join->UpdateOutputInformation();
      join->GetOutput()->SetRequestedRegion(region);
      join->GetOutput()->Update();
      const float* from = join->GetOutput()->GetBufferPointer();
      pixels.insert(pixels.end(), from, from + region.GetNumberOfPixels() * 2);
    }
    return pixels;
  };
  EXPECT_EQ(run(true), run(false));
}

TEST(PatchMapFilter, AnInputMayBeMadeFromAnother)
{
  auto image = MakeImage(150, 120, 3);
  const auto run = [&](bool shared)
  {
    auto first = FirstTwoBands(image), other = FirstTwoBands(image);
    auto near = otbtest::LargestNearby::New();
    near->SetInput((shared ? first : other)->GetOutput());
    Bench bench(first->GetOutput());
    bench.filter->SetMask(near->GetOutput(), "mask");
    return bench.Update(0, 0, 0, 150, 120);
  };
  EXPECT_EQ(run(true), run(false));
}

/** An engine whose pixels say how often engines were made. */
class NumberEngine : public MapEngine
{
public:
  NumberEngine(std::shared_ptr<PixelSource> pixels, int number) : m_Pixels(std::move(pixels)), m_Number(number) {}
  void Produce(const Region& region, const std::vector<ResultPlane>& results, const Progress&) override
  {
    m_Pixels->Read(region);
    for (const auto& plane : results)
    {
      for (std::int64_t y = 0; y < region.Height(); ++y)
      {
        for (std::int64_t x = 0; x < region.Width(); ++x)
        {
          plane.data[y * plane.strideY + x * plane.strideX] = static_cast<float>(m_Number);
        }
      }
    }
  }
  const EngineStatistics& Statistics() const override { return m_Statistics; }

private:
  std::shared_ptr<PixelSource> m_Pixels;
  int m_Number;
  EngineStatistics m_Statistics;
};

TEST(SceneMapFilter, WhatASceneTaughtIsKeptUntilSomethingUpstreamChanges)
{
  auto image = MakeImage(150, 120, 3);
  auto extract = FirstTwoBands(image);
  auto filter = SceneMapFilter::New();
  FilterType::Input input;
  input.model.name = "x";
  input.model.bands = {"a", "b"};
  input.model.scaling.resize(2);
  input.images = {extract->GetOutput()};
  input.names = {"in1"};
  filter->SetInputs({input});
  filter->SetOperator(std::make_shared<Identity>());
  int made = 0, steps = 0;
  filter->SetEngineFactory([&](const SceneMapFilter::Scene& scene) { return std::make_unique<NumberEngine>(scene.pixels, ++made); });
  filter->SetFirstStep([&] { ++steps; });
  filter->UpdateOutputInformation();
  EXPECT_EQ(made + steps, 0) << "nothing happens before a region is asked for";
  const auto ask = [&](int x, int y)
  {
    filter->UpdateOutputInformation();
    filter->GetOutput(0)->SetRequestedRegion(MakeRegion(x, y, 20, 10));
    filter->GetOutput(0)->Update();
    return static_cast<int>(filter->GetOutput(0)->GetBufferPointer()[0]);
  };
  EXPECT_EQ(ask(0, 0), 1);
  EXPECT_EQ(ask(40, 20), 1);
  EXPECT_EQ(ask(0, 0), 1);
  extract->SetFirstChannel(2);
  extract->SetLastChannel(3);
  EXPECT_EQ(ask(40, 20), 2);
  EXPECT_EQ(ask(0, 0), 2);
  image->Modified();
  EXPECT_EQ(ask(0, 0), 3);
  EXPECT_EQ(steps, 1);
}

TEST(PatchMapFilter, ProgressIsThatOfTheWholeAndAbortStopsBetweenBatches)
{
  auto image = MakeImage(300, 300, 2);
  Bench bench(image);
  std::vector<float> seen;
  auto command = itk::CStyleCommand::New();
  struct Client
  {
    Bench* bench;
    std::vector<float>* seen;
    float stopAt;
  } client{&bench, &seen, 2.f};
  command->SetClientData(&client);
  command->SetCallback(
      [](itk::Object*, const itk::EventObject&, void* data)
      {
        auto* c = static_cast<Client*>(data);
        c->seen->push_back(c->bench->filter->GetProgress());
        if (c->seen->back() >= c->stopAt)
        {
          c->bench->filter->SetAbortGenerateData(true);
        }
      });
  bench.filter->AddObserver(itk::ProgressEvent(), command);
  bench.Update(0, 0, 0, 300, 150);
  EXPECT_LT(seen.back(), .8f);
  EXPECT_FALSE(bench.filter->IsComplete());
  bench.Update(0, 0, 150, 300, 150);
  EXPECT_EQ(seen.back(), 1.f);
  EXPECT_TRUE(bench.filter->IsComplete());
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  EXPECT_EQ(bench.filter->GetStatistics().samplesInferred, bench.filter->GetGrid().Count());

  Bench stopped(image);
  client = {&stopped, &seen, .3f};
  stopped.filter->AddObserver(itk::ProgressEvent(), command);
  EXPECT_THROW(stopped.Update(0, 0, 0, 300, 300), itk::ProcessAborted);
  EXPECT_LT(stopped.predictor->calls, bench.predictor->calls / 2);
}

TEST(PatchMapFilter, AfterAnAbortTheSameFilterMakesTheWholeMap)
{
  auto image = MakeImage(300, 300, 2);
  Bench whole(image);
  const auto expected = whole.Update(0, 0, 0, 300, 300);
  Bench bench(image);
  auto command = itk::CStyleCommand::New();
  command->SetClientData(&bench);
  command->SetCallback(
      [](itk::Object*, const itk::EventObject&, void* data)
      {
        auto* filter = static_cast<Bench*>(data)->filter.GetPointer();
        if (filter->GetProgress() > .3f)
        {
          filter->SetAbortGenerateData(true);
        }
      });
  const auto observer = bench.filter->AddObserver(itk::ProgressEvent(), command);
  EXPECT_THROW(bench.Update(0, 0, 0, 300, 300), itk::ProcessAborted);
  bench.filter->RemoveObserver(observer);
  EXPECT_EQ(bench.Update(0, 0, 0, 300, 300), expected);
  EXPECT_TRUE(bench.filter->IsComplete());
}

std::string MessageOf(const std::function<void()>& f)
{
  try
  {
    f();
  }
  catch (const std::exception& e)
  {
    return e.what();
  }
  return "no error";
}

TEST(PatchMapFilter, GridsThatDifferAreNamed)
{
  auto a = MakeImage(70, 50, 2);
  EXPECT_EQ(MessageOf([&] { CheckSameGrid(a, "in1", MakeImage(70, 50, 1), "in2"); }), "no error");
  EXPECT_THAT(MessageOf([&] { CheckSameGrid(a, "in1", MakeImage(70, 51, 2), "in2"); }),
              testing::AllOf(HasSubstr("in2: found size 70 x 51"), HasSubstr("70 x 50 as in1")));
  auto moved = MakeImage(70, 50, 2);
  auto origin = moved->GetOrigin();
  origin[0] += 5.;
  moved->SetOrigin(origin);
  EXPECT_THAT(MessageOf([&] { CheckSameGrid(a, "in1", moved, "in2"); }), HasSubstr("origin 1010, 1995"));
  origin[0] += 5000.;
  moved->SetOrigin(origin);
  EXPECT_THAT(MessageOf([&] { CheckSameGrid(a, "in1", moved, "in2"); }), HasSubstr("do not overlap"));
  auto finer = MakeImage(70, 50, 2);
  auto spacing = finer->GetSignedSpacing();
  spacing[0] = 9.9;
  finer->SetSignedSpacing(spacing);
  EXPECT_THAT(MessageOf([&] { CheckSameGrid(a, "in1", finer, "in2"); }), HasSubstr("spacing 9.9, -10"));
  auto projected = MakeImage(70, 50, 2);
  projected->SetProjectionRef(
      "GEOGCS[\"WGS 84\",DATUM[\"WGS_1984\",SPHEROID[\"WGS 84\",6378137,298.257223563]],PRIMEM[\"Greenwich\",0],UNIT[\"degree\",0.0174532925199433]]");
  EXPECT_THAT(MessageOf([&] { CheckSameGrid(a, "in1", projected, "in2"); }), testing::AllOf(HasSubstr("projection WGS 84"), HasSubstr("projection none")));
}

TEST(PatchMapFilter, AWrongNumberOfBandsAndABadMaskAreRefusedBeforeTheFirstPixel)
{
  Bench bands(MakeImage(70, 50, 3));
  EXPECT_THAT(MessageOf([&] { bands.filter->UpdateOutputInformation(); }), testing::AllOf(HasSubstr("in1: found 3 band(s)"), HasSubstr("2 (a b)")));
  auto image = MakeImage(70, 50, 2);
  Bench mask(image);
  mask.filter->SetMask(MakeImage(70, 50, 2), "mask");
  EXPECT_THAT(MessageOf([&] { mask.filter->UpdateOutputInformation(); }), HasSubstr("mask: found 2 bands"));
  Bench grid(image);
  grid.filter->SetMask(MakeImage(71, 50, 1), "mask");
  EXPECT_THAT(MessageOf([&] { grid.filter->UpdateOutputInformation(); }), HasSubstr("mask: found size 71 x 50"));
}

TEST(PatchMapFilter, AMaskMakesItsZerosNoData)
{
  auto image = MakeImage(70, 50, 2);
  auto mask = MakeImage(70, 50, 1);
  mask->GetBufferPointer()[11 * 70 + 13] = 0.f;
  Bench bench(image);
  bench.filter->SetMask(mask, "mask");
  const auto map = bench.Update(0, 0, 0, 70, 50);
  for (int i = 0; i < 70 * 50; ++i)
  {
    ASSERT_EQ(map[i] == Identity::noData, i == 11 * 70 + 13);
  }
}

} // namespace
