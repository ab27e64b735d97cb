/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// The ITK filter of time series on images in memory: types, no-data, masks, geometry, regions, parts that are pulled, errors.
#include "otbDLBoxPredictor.h"
#include "otbDLError.h"
#include "otbDLPipeline.h"
#include "otbDLSeriesMapFilter.h"
#include "otbDLSeriesScene.h"

#include "otbMultiChannelExtractROI.h"
#include "otbNoDataHelper.h"
#include "otbSpatialReference.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace
{

using namespace otb::dl;
using namespace otbtest;
using FilterType = SeriesMapFilter;
using MapType = FilterType::ImageType;
using testing::AllOf;
using testing::HasSubstr;
using GapFill = TemporalSpec::GapFill;

constexpr int width = 70, height = 50;

/** What pixel (x, y) holds at a date; 0, no-data, here and there. */
int Digital(int x, int y, int date, int band)
{
  return (x + 3 * y + 5 * date) % 11 == 0 ? 0 : 1 + (x * 7 + y * 13 + date * 29 + band * 31) % 90;
}

/** An image of one date, bands interleaved. */
template <typename T>
typename otb::VectorImage<T, 2>::Pointer MakeImage(int date, int bands, int w = width, int h = height, int x0 = 0, int y0 = 0)
{
  using ImageType = otb::VectorImage<T, 2>;
  auto image = ImageType::New();
  typename ImageType::RegionType region;
  region.SetIndex(0, x0);
  region.SetIndex(1, y0);
  region.SetSize(0, w);
  region.SetSize(1, h);
  image->SetRegions(region);
  image->SetNumberOfComponentsPerPixel(bands);
  image->Allocate();
  typename ImageType::SpacingType spacing;
  spacing[0] = 10.;
  spacing[1] = -10.;
  image->SetSignedSpacing(spacing);
  typename ImageType::PointType origin;
  origin[0] = 500005. - 10. * x0;
  origin[1] = 4649995. + 10. * y0;
  image->SetOrigin(origin);
  T* p = image->GetBufferPointer();
  for (int y = 0; y < h; ++y)
  {
    for (int x = 0; x < w; ++x)
    {
      for (int b = 0; b < bands; ++b)
      {
        *p++ = static_cast<T>(Digital(x, y, date, b));
      }
    }
  }
  return image;
}

const std::vector<Day> dates = Days({0, 10, 25});

/** A sensor of three dates, a file each, of two bands. */
template <typename T>
FilterType::Sensor MakeSensor(int x0 = 0, int y0 = 0)
{
  FilterType::Sensor sensor;
  sensor.series.dates = dates;
  sensor.series.bands = {"a", "b"};
  sensor.series.option = "il";
  for (std::size_t t = 0; t < dates.size(); ++t)
  {
    sensor.rasters.push_back({MakeImage<T>(static_cast<int>(t), 2, width, height, x0, y0).GetPointer(), "date" + std::to_string(t)});
    sensor.layers.push_back({t, 0});
    sensor.layers.push_back({t, 1});
  }
  return sensor;
}

ModelContract Contract(int window = 1, GapFill fill = GapFill::Linear)
{
  ModelContract contract = PixelContract(window);
  ModelInput in = Sits({"b", "a"}, fill);
  in.noData = 0.;
  in.noDataFill = -1.f;
  in.axes = window > 1 ? byPatch : byPixel;
  contract.inputs = {in};
  return contract;
}

/** Score, and the number of valid dates. */
class Counting : public Identity
{
public:
  int ScoreChannels() const override { return 2; }
  int CountChannels() const override { return 1; }
  void Decide(const float* scores, std::ptrdiff_t scoreStride, std::ptrdiff_t count, float* results, std::ptrdiff_t resultStride) const override
  {
    std::copy(scores, scores + count, results);
    std::copy(scores + scoreStride, scores + scoreStride + count, results + resultStride);
  }
};

struct Bench
{
  Bench(const ModelContract& contract, std::vector<FilterType::Sensor> sensors, std::shared_ptr<const MapOperator> decision = std::make_shared<Counting>())
      : filter(FilterType::New()), m_Decision(std::move(decision))
  {
    filter->SetContract(contract);
    filter->SetSensors(std::move(sensors));
  }
  void Prepare()
  {
    filter->Prepare();
    const ModelContract settled = filter->GetPreparation()->Contract();
    filter->SetOperator(m_Decision);
    filter->UpdateOutputInformation();
    predictor = std::make_shared<SumPredictor>(settled, 100, settled.tiling.window);
    filter->SetPredictor(predictor);
    filter->SetSettings(settings);
  }
  std::vector<float> Update(int output, int x, int y, int w, int h)
  {
    auto* out = filter->GetOutput(output);
    MapType::RegionType region;
    region.SetIndex(0, x);
    region.SetIndex(1, y);
    region.SetSize(0, w);
    region.SetSize(1, h);
    out->SetRequestedRegion(region);
    out->Update();
    EXPECT_EQ(out->GetBufferedRegion(), region);
    return {out->GetBufferPointer(), out->GetBufferPointer() + w * h};
  }
  std::vector<float> Map(int output = 0)
  {
    Prepare();
    return Update(output, 0, 0, width, height);
  }
  FilterType::Pointer filter;
  std::shared_ptr<SumPredictor> predictor;
  MapEngine::Settings settings;

private:
  std::shared_ptr<const MapOperator> m_Decision;
};

int Count(int x, int y)
{
  int count = 0;
  for (int t = 0; t < static_cast<int>(dates.size()); ++t)
  {
    count += Digital(x, y, t, 0) != 0;
  }
  return count;
}

TEST(SeriesMapFilter, EachPixelIsThatOfItsSeriesWithoutGapFilling)
{
  Bench bench(Contract(1, GapFill::None), {MakeSensor<std::uint8_t>()});
  const auto map = bench.Map();
  const float* counts = bench.filter->GetOutput(1)->GetBufferPointer();
  for (int y = 0; y < height; ++y)
  {
    for (int x = 0; x < width; ++x)
    {
      double sum = 0.;
      for (int t = 0, i = 0; t < 3; ++t)
      {
        for (const int b : {1, 0})
        {
          const int v = Digital(x, y, t, b);
          sum += (1 + i++ % 7) * (v == 0 ? -1. : v);
        }
      }
      ASSERT_EQ(map[y * width + x], static_cast<float>(sum)) << x << ", " << y;
      ASSERT_EQ(counts[y * width + x], static_cast<float>(Count(x, y)));
    }
  }
}

TEST(SeriesMapFilter, ImagesOfAnyTypeGiveTheSameMap)
{
  const auto map = Bench(Contract(3), {MakeSensor<std::uint8_t>()}).Map();
  EXPECT_EQ(Bench(Contract(3), {MakeSensor<std::int16_t>()}).Map(), map);
  EXPECT_EQ(Bench(Contract(3), {MakeSensor<std::uint16_t>()}).Map(), map);
  EXPECT_EQ(Bench(Contract(3), {MakeSensor<std::int32_t>()}).Map(), map);
  EXPECT_EQ(Bench(Contract(3), {MakeSensor<std::uint32_t>()}).Map(), map);
  EXPECT_EQ(Bench(Contract(3), {MakeSensor<float>()}).Map(), map);
  EXPECT_EQ(Bench(Contract(3), {MakeSensor<double>()}).Map(), map);
  // One file a date, of another type each; and pixels that are none of those.
  auto mixed = MakeSensor<std::int16_t>();
  mixed.rasters[1].image = MakeImage<float>(1, 2);
  EXPECT_EQ(Bench(Contract(3), {mixed}).Map(), map);
  auto odd = MakeSensor<std::int16_t>();
  odd.rasters[1].image = MakeImage<std::int8_t>(1, 2);
  Bench bad(Contract(3), {odd});
  EXPECT_THAT(ErrorOf([&] { bad.Map(); }), AllOf(HasSubstr("date1: found pixels"), HasSubstr("8, 16 or 32 bit")));
}

TEST(SeriesMapFilter, DatesOfOneFileAreItsBands)
{
  const auto map = Bench(Contract(), {MakeSensor<std::int16_t>()}).Map();
  // Date after date: a b a b a b; then band after band.
  for (const bool byDate : {true, false})
  {
    auto image = MakeImage<std::int16_t>(0, 6);
    std::int16_t* p = image->GetBufferPointer();
    for (int i = 0; i < width * height; ++i)
    {
      for (int k = 0; k < 6; ++k)
      {
        *p++ = static_cast<std::int16_t>(Digital(i % width, i / width, byDate ? k / 2 : k % 3, byDate ? k % 2 : k / 3));
      }
    }
    FilterType::Sensor sensor;
    sensor.series.dates = dates;
    sensor.series.bands = {"a", "b"};
    sensor.rasters = {{image.GetPointer(), "all"}};
    for (unsigned int t = 0; t < 3; ++t)
    {
      for (unsigned int b = 0; b < 2; ++b)
      {
        sensor.layers.push_back({0, byDate ? 2 * t + b : 3 * b + t});
      }
    }
    EXPECT_EQ(Bench(Contract(), {sensor}).Map(), map);
  }
}

TEST(SeriesMapFilter, AnyRegionOfAnyOutputGivesThePixelsOfTheWhole)
{
  for (const int window : {1, 5})
  {
    Bench whole(Contract(window), {MakeSensor<std::uint16_t>()});
    const auto first = whole.Map();
    const auto* second = whole.filter->GetOutput(1)->GetBufferPointer();
    Bench parts(Contract(window), {MakeSensor<std::uint16_t>()});
    parts.settings.readBytes = 1;
    parts.settings.threads = 2;
    parts.Prepare();
    for (const auto& r : std::vector<std::array<int, 4>>{{0, 0, 70, 1}, {33, 7, 20, 40}, {69, 49, 1, 1}, {0, 30, 11, 20}})
    {
      const auto part = parts.Update(1, r[0], r[1], r[2], r[3]);
      const auto* other = parts.filter->GetOutput(0)->GetBufferPointer();
      for (int y = 0; y < r[3]; ++y)
      {
        for (int x = 0; x < r[2]; ++x)
        {
          ASSERT_EQ(other[y * r[2] + x], first[(r[1] + y) * width + r[0] + x]);
          ASSERT_EQ(part[y * r[2] + x], second[(r[1] + y) * width + r[0] + x]);
        }
      }
    }
  }
}

TEST(SeriesMapFilter, TheIndexOfTheFirstPixelDoesNotMatter)
{
  Bench at0(Contract(3), {MakeSensor<float>()}), at9(Contract(3), {MakeSensor<float>(9, -4)});
  at0.Prepare();
  at9.Prepare();
  EXPECT_EQ(at0.Update(0, 5, 6, 40, 30), at9.Update(0, 14, 2, 40, 30));
}

TEST(SeriesMapFilter, OutputsLieOnTheGridOfTheFirstDateWithNoDataOfTheirOwn)
{
  auto sensor = MakeSensor<std::uint8_t>();
  auto* image = dynamic_cast<otb::VectorImage<std::uint8_t, 2>*>(sensor.rasters[0].image.GetPointer());
  otb::ImageMetadata imd = image->GetImageMetadata();
  imd.Bands.resize(2);
  otb::WriteNoDataFlags({true, true}, {12., 12.}, imd);
  imd.Add(otb::MDNum::TileHintX, 32);
  imd.Add(otb::MDNum::TileHintY, 16);
  image->SetImageMetadata(imd);
  Bench bench(Contract(), {sensor});
  bench.Prepare();
  ASSERT_EQ(bench.filter->GetNumberOfOutputs(), 2u);
  const double expected[] = {Identity::noData, 9.};
  for (int r = 0; r < 2; ++r)
  {
    const auto* out = bench.filter->GetOutput(r);
    EXPECT_EQ(out->GetLargestPossibleRegion(), image->GetLargestPossibleRegion());
    EXPECT_EQ(out->GetSignedSpacing(), image->GetSignedSpacing());
    EXPECT_EQ(out->GetOrigin(), image->GetOrigin());
    EXPECT_EQ(out->GetNumberOfComponentsPerPixel(), 1u);
    std::vector<bool> flags;
    std::vector<double> values;
    ASSERT_TRUE(otb::ReadNoDataFlags(out->GetImageMetadata(), flags, values));
    ASSERT_EQ(values.size(), 1u);
    EXPECT_EQ(values[0], expected[r]);
    EXPECT_EQ(out->GetImageMetadata()[otb::MDNum::TileHintX], 32.) << "asked for as it is read";
    EXPECT_EQ(out->GetImageMetadata()[otb::MDNum::TileHintY], 16.);
  }
}

TEST(SeriesMapFilter, WhatAFileDeclaresAsNoDataGoesBeforeTheContract)
{
  auto sensor = MakeSensor<std::uint8_t>();
  auto* image = dynamic_cast<otb::VectorImage<std::uint8_t, 2>*>(sensor.rasters[1].image.GetPointer());
  otb::ImageMetadata imd = image->GetImageMetadata();
  imd.Bands.resize(2);
  otb::WriteNoDataFlags({true, true}, {33., 33.}, imd);
  image->SetImageMetadata(imd);
  // At the second date 0 is a value like others; nowhere are both bands 33.
  Bench bench(Contract(), {sensor});
  const auto counts = bench.Map(1);
  for (int i = 0; i < width * height; ++i)
  {
    const int x = i % width, y = i / width;
    ASSERT_EQ(counts[i], (Digital(x, y, 0, 0) != 0) + 1 + (Digital(x, y, 2, 0) != 0));
  }
}

TEST(SeriesMapFilter, MasksTakeDatesAway)
{
  auto sensor = MakeSensor<std::uint8_t>();
  sensor.series.masks = MaskMeaning::ZeroIsValid;
  auto masks = MakeImage<std::uint8_t>(0, 3); // a file of all dates
  std::uint8_t* p = masks->GetBufferPointer();
  for (int i = 0; i < width * height * 3; ++i)
  {
    p[i] = i % 5 == 0;
  }
  sensor.maskRasters = {{masks.GetPointer(), "masks"}};
  sensor.masks = {{0, 0}, {0, 1}, {0, 2}};
  Bench bench(Contract(), {sensor});
  const auto counts = bench.Map(1), map = bench.Map(0);
  for (int i = 0; i < width * height; ++i)
  {
    int count = 0;
    for (int t = 0; t < 3; ++t)
    {
      count += Digital(i % width, i / width, t, 0) != 0 && (3 * i + t) % 5 != 0;
    }
    ASSERT_EQ(counts[i], count == 0 ? 9.f : static_cast<float>(count));
    ASSERT_EQ(map[i] == Identity::noData, count == 0);
  }
}

TEST(SeriesMapFilter, TheMaskChoosesThePixelsThatAreMade)
{
  Bench whole(Contract(3), {MakeSensor<std::uint8_t>()}), bench(Contract(3), {MakeSensor<std::uint8_t>()});
  auto mask = MakeImage<std::uint8_t>(0, 1);
  for (int i = 0; i < width * height; ++i)
  {
    mask->GetBufferPointer()[i] = i % 7 == 0;
  }
  bench.filter->SetMask({mask.GetPointer(), "mask"});
  const auto all = whole.Map(), map = bench.Map();
  for (int i = 0; i < width * height; ++i)
  {
    ASSERT_EQ(map[i], i % 7 == 0 ? all[i] : Identity::noData);
  }
  EXPECT_EQ(bench.filter->GetStatistics().samplesInferred, width * height / 7);
}

TEST(SeriesMapFilter, StaticBandsAndTheirNoDataComeFromTheirImages)
{
  ModelContract contract = Contract();
  ModelInput fixed = Sits({"slope"});
  fixed.role = "static";
  fixed.axes = {Axis::Batch, Axis::Bands};
  fixed.noDataFill = 1000.f;
  contract.inputs = {contract.inputs[0], fixed};
  const auto make = [&](float first)
  {
    auto dem = MakeImage<float>(0, 2);
    dem->GetBufferPointer()[1] = first;
    otb::ImageMetadata imd = dem->GetImageMetadata();
    imd.Bands.resize(2);
    otb::WriteNoDataFlags({false, true}, {0., -9999.}, imd);
    dem->SetImageMetadata(imd);
    Bench bench(contract, {MakeSensor<float>()});
    bench.filter->SetStatic({{dem.GetPointer(), "dem"}}, {"dem", "slope"});
    return bench.Map();
  };
  const auto plain = Bench(Contract(), {MakeSensor<float>()}).Map();
  const auto map = make(-9999.f);
  EXPECT_EQ(map[0], plain[0] + 1000.f);
  EXPECT_EQ(make(5.f)[0], plain[0] + 5.f);
  EXPECT_EQ(map[width + 3], plain[width + 3] + static_cast<float>(Digital(3, 1, 0, 1)));
}

TEST(SeriesMapFilter, AStreamingFilterUpstreamIsAskedForPartsOnly)
{
  using ExtractType = otb::MultiChannelExtractROI<float, float>;
  auto whole = MakeImage<float>(0, 3, 400, 300);
  auto extract = ExtractType::New();
  extract->SetInput(whole);
  extract->SetFirstChannel(1);
  extract->SetLastChannel(2);
  FilterType::Sensor sensor;
  sensor.series.dates = Days({0});
  sensor.series.bands = {"a", "b"};
  sensor.rasters = {{extract->GetOutput(), "il"}};
  sensor.layers = {{0, 0}, {0, 1}};
  Bench bench(Contract(3), {sensor});
  bench.settings.readBytes = 200000;
  bench.Prepare();
  otbtest::MadeRegions made(extract);
  bench.Update(0, 0, 0, 400, 300);
  EXPECT_EQ(made.Box(), whole->GetLargestPossibleRegion());
  EXPECT_LT(made.Largest(), 400u * 300u / 8);
}

TEST(SeriesMapFilter, ASmallRegionAsksUpstreamForItselfAlone)
{
  using ExtractType = otb::MultiChannelExtractROI<float, float>;
  auto whole = MakeImage<float>(0, 3, 400, 300);
  auto extract = ExtractType::New();
  extract->SetInput(whole);
  extract->SetFirstChannel(1);
  extract->SetLastChannel(2);
  FilterType::Sensor sensor;
  sensor.series.dates = Days({0});
  sensor.series.bands = {"a", "b"};
  sensor.rasters = {{extract->GetOutput(), "il"}};
  sensor.layers = {{0, 0}, {0, 1}};
  Bench bench(Contract(3), {sensor});
  bench.settings.whole = false;
  bench.Prepare();
  otbtest::MadeRegions made(extract);
  bench.Update(0, 120, 40, 30, 20);
  itk::ImageRegion<2> grown;
  grown.SetIndex({{119, 39}});
  grown.SetSize({{32, 22}});
  EXPECT_EQ(made.Box(), grown) << "a window of 3 looks one pixel beyond";
  EXPECT_EQ(extract->GetOutput()->GetRequestedRegion(), grown);
}

TEST(SeriesMapFilter, RastersWithoutABandThatIsUsedAreNotRead)
{
  auto sensor = MakeSensor<float>();
  // A file a band: of "c" nothing is taken.
  auto extra = otb::MultiChannelExtractROI<float, float>::New();
  extra->SetInput(MakeImage<float>(0, 1));
  sensor.rasters.push_back({extra->GetOutput(), "c"});
  sensor.series.bands = {"a", "b", "c"};
  sensor.layers = {{0, 0}, {0, 1}, {3, 0}, {1, 0}, {1, 1}, {3, 0}, {2, 0}, {2, 1}, {3, 0}};
  Bench bench(Contract(), {sensor});
  EXPECT_EQ(bench.Map(), Bench(Contract(), {MakeSensor<float>()}).Map());
  EXPECT_EQ(extra->GetOutput()->GetBufferedRegion().GetNumberOfPixels(), 0u);
}

TEST(SeriesMapFilter, TheJobIsThatOfTheUnit)
{
  Bench pixels(Contract(5), {MakeSensor<float>()});
  const auto job = pixels.filter->GetJob();
  EXPECT_EQ(job.width, width);
  EXPECT_EQ(job.height, height);
  EXPECT_EQ(job.samples, width * height);
  EXPECT_EQ(job.unit, "pixels");
  EXPECT_THAT(job.description, HasSubstr("window of 5"));
  ModelContract byPatches = Contract();
  byPatches.tiling = Tiling();
  byPatches.tiling.patch = 32;
  byPatches.tiling.halo = 4;
  Bench patches(byPatches, {MakeSensor<float>()});
  EXPECT_EQ(patches.filter->GetJob().unit, "patches");
  EXPECT_EQ(patches.filter->GetJob().samples, 3 * 3); // steps of 24
}

/** A network of patches: the sum of all dates and bands at each pixel. */
class PatchSum : public SumPredictor
{
public:
  PatchSum(const ModelContract& contract, int batch, int patch)
      : SumPredictor(contract, batch, patch), m_Patch(patch), m_Out(std::size_t(batch) * patch * patch)
  {
  }
  void Run(int filled) override
  {
    const BatchView in = Input(0);
    for (int n = 0; n < filled; ++n)
    {
      for (int i = 0; i < m_Patch * m_Patch; ++i)
      {
        float sum = 0.f;
        for (int t = 0; t < in.steps; ++t)
        {
          for (int c = 0; c < in.channels; ++c)
          {
            sum += in.At(n, c, i / m_Patch, i % m_Patch)[t * in.strideT];
          }
        }
        m_Out[std::size_t(n) * m_Patch * m_Patch + i] = sum;
      }
    }
  }
  BatchView Output(int) override { return {m_Out.data(), 1, std::ptrdiff_t(m_Patch) * m_Patch, 0, m_Patch, 1}; }

private:
  int m_Patch;
  std::vector<float> m_Out;
};

TEST(SeriesMapFilter, PatchesGiveTheMapOfTheirPixels)
{
  for (const Blend blend : {Blend::Crop, Blend::Hann})
  {
    ModelContract contract = Contract(3, GapFill::None); // with space
    contract.tiling = Tiling();
    contract.tiling.patch = 16;
    contract.tiling.halo = 2;
    contract.tiling.blend = blend;
    Bench bench(contract, {MakeSensor<std::int16_t>()});
    bench.Prepare();
    bench.filter->SetPredictor(std::make_shared<PatchSum>(bench.filter->GetPreparation()->Contract(), 4, 16));
    const auto map = bench.Update(0, 0, 0, width, height);
    const float* counts = bench.filter->GetOutput(1)->GetBufferPointer();
    for (int i = 0; i < width * height; ++i)
    {
      float sum = 0.f;
      for (int t = 0; t < 3; ++t)
      {
        for (const int b : {0, 1})
        {
          const int v = Digital(i % width, i / width, t, b);
          sum += static_cast<float>(v == 0 ? -1 : v);
        }
      }
      ASSERT_NEAR(map[i], sum, 1e-3) << i;
      ASSERT_NEAR(counts[i], Count(i % width, i / width), 1e-5);
    }
  }
}

ModelContract WithPosition()
{
  ModelContract contract = Contract();
  contract.inputs = {With("latlon", -1, {Axis::Batch, Axis::Bands}), contract.inputs[0]};
  return contract;
}

TEST(SeriesMapFilter, PositionsAreLatitudeAndLongitudeOfThePixelsCentre)
{
  for (const char* system : {"EPSG:32631", "EPSG:4326"})
  {
    auto sensor = MakeSensor<float>();
    const bool geographic = std::string(system) == "EPSG:4326";
    for (auto& r : sensor.rasters)
    {
      dynamic_cast<otb::ImageCommons&>(*r.image).SetProjectionRef(otb::SpatialReference::FromDescription(system).ToWkt());
      if (geographic)
      {
        auto* image = dynamic_cast<otb::VectorImage<float, 2>*>(r.image.GetPointer());
        otb::VectorImage<float, 2>::SpacingType spacing;
        spacing[0] = .001;
        spacing[1] = -.001;
        image->SetSignedSpacing(spacing);
        otb::VectorImage<float, 2>::PointType origin;
        origin[0] = 3.;
        origin[1] = 42.;
        image->SetOrigin(origin);
      }
    }
    // In zone 31: 5 m east of its middle (3 degrees), 4649995 m from the equator (42 degrees are 4649776 m, a degree 111 km).
    const double latitude = geographic ? 42. : 42.00197, longitude = geographic ? 3. : 3.00006;
    Bench bench(WithPosition(), {sensor});
    bench.Prepare();
    bench.Update(0, 0, 0, 1, 1);
    EXPECT_NEAR(bench.predictor->Slot(0)[0], latitude, 1e-4) << system;
    EXPECT_NEAR(bench.predictor->Slot(0)[1], longitude, 1e-5) << system;
    bench.Update(0, 1, 2, 1, 1);
    EXPECT_NEAR(bench.predictor->Slot(0)[0], latitude - (geographic ? .002 : 20. / 111070.), 1e-5) << system;
    EXPECT_NEAR(bench.predictor->Slot(0)[1], longitude + (geographic ? .001 : 10. / 82900.), 1e-5) << system;
  }
}

TEST(SeriesMapFilter, PositionsWithoutAProjectionAreAnError)
{
  Bench bench(WithPosition(), {MakeSensor<float>()});
  EXPECT_THAT(ErrorOf([&] { bench.filter->Prepare(); }), AllOf(HasSubstr("date0: found no projection"), HasSubstr("latitude")));
}

TEST(SeriesMapFilter, ProgressAndCompletenessAreThoseOfTheWhole)
{
  Bench bench(Contract(), {MakeSensor<float>()});
  bench.Prepare();
  bench.Update(0, 0, 0, width, 20);
  EXPECT_FALSE(bench.filter->IsComplete());
  EXPECT_LT(bench.filter->GetProgress(), 1.f);
  bench.Update(0, 0, 20, width, height - 20);
  EXPECT_TRUE(bench.filter->IsComplete());
  EXPECT_EQ(bench.filter->GetProgress(), 1.f);
  EXPECT_EQ(bench.filter->GetStatistics().samplesInferred + bench.filter->GetStatistics().samplesEmpty, width * height);
}

TEST(SeriesMapFilter, InputsThatDoNotGoTogetherAreNamedBeforeTheFirstPixel)
{
  const auto message = [](const ModelContract& contract, const FilterType::Sensor& sensor, const std::function<void(FilterType&)>& change = {})
  {
    Bench bench(contract, {sensor});
    if (change)
    {
      change(*bench.filter);
    }
    return ErrorOf([&] { bench.filter->Prepare(); });
  };
  const auto good = MakeSensor<float>();
  EXPECT_EQ(message(Contract(), good), "no error");
  auto sensor = good;
  sensor.rasters[2].image = MakeImage<float>(2, 2, 71, 50);
  EXPECT_THAT(message(Contract(), sensor), AllOf(HasSubstr("date2: found size 71 x 50"), HasSubstr("70 x 50 as date0")));
  sensor = good;
  sensor.maskRasters = {{MakeImage<std::uint8_t>(0, 3, 70, 51).GetPointer(), "masks"}};
  sensor.masks = {{0, 0}, {0, 1}, {0, 2}};
  EXPECT_THAT(message(Contract(), sensor), HasSubstr("masks: found size 70 x 51"));
  EXPECT_THAT(message(Contract(), good,
                      [](FilterType& f) {
                        f.SetStatic({{MakeImage<float>(0, 1, 69, 50).GetPointer(), "dem"}}, {"dem"});
                      }),
              HasSubstr("dem: found size 69 x 50"));
  EXPECT_THAT(message(Contract(), good,
                      [](FilterType& f) {
                        f.SetStatic({{MakeImage<float>(0, 2).GetPointer(), "dem"}}, {"dem"});
                      }),
              AllOf(HasSubstr("static: found 2 band(s)"), HasSubstr("1, one a name")));
  EXPECT_THAT(message(Contract(), good, [](FilterType& f) { f.SetMask({MakeImage<float>(0, 2).GetPointer(), "mask"}); }), HasSubstr("mask: found 2 bands"));
  EXPECT_THAT(message(Contract(), good,
                      [](FilterType& f) {
                        f.SetMask({MakeImage<float>(0, 1, 70, 49).GetPointer(), "mask"});
                      }),
              HasSubstr("mask: found size 70 x 49"));
  EXPECT_THAT(message(Contract(), FilterType::Sensor()), HasSubstr("il: found nothing"));
  ModelContract other = Contract();
  other.inputs[0].bands[1] = "c";
  EXPECT_THAT(message(other, good), AllOf(HasSubstr("il: found bands a b"), HasSubstr("the band c")));
}

} // namespace
