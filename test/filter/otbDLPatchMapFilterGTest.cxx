/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// The ITK filter on images in memory: geometry, metadata, regions, progress, abort, and its place in a pipeline.
#include "otbDLBoxPredictor.h"
#include "otbDLError.h"
#include "otbDLPatchMapFilter.h"

#include "itkCommand.h"
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
  std::size_t largest = 0;
  Bench bench(extract->GetOutput());
  bench.Update(0, 0, 0, 400, 300);
  largest = extract->GetOutput()->GetBufferedRegion().GetNumberOfPixels();
  EXPECT_LT(largest, 400u * 300u / 8);
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
