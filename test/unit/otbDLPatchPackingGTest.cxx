/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// Scaling, no-data and mirroring, pixel by pixel.
#include "otbDLPatchPacking.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace
{

using namespace otb::dl;
using testing::Each;
using testing::ElementsAre;

constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float inf = std::numeric_limits<float>::infinity();

/** An image of several bands, interleaved or band after band, with random digital numbers. */
class Image
{
public:
  Image(int width, int height, int bands, bool interleaved)
      : m_Width(width), m_Height(height), m_Bands(bands), m_Interleaved(interleaved), m_Pixels(std::size_t(width) * height * bands)
  {
    std::mt19937 random(5);
    std::uniform_real_distribution<float> value(1.f, 4000.f);
    for (int b = 0; b < bands; ++b)
    {
      for (int y = 0; y < height; ++y)
      {
        for (int x = 0; x < width; ++x)
        {
          At(x, y, b) = value(random);
        }
      }
    }
  }
  float& At(std::int64_t x, std::int64_t y, int b)
  {
    return m_Interleaved ? m_Pixels[(y * m_Width + x) * m_Bands + b] : m_Pixels[(std::int64_t(b) * m_Height + y) * m_Width + x];
  }
  void Set(std::int64_t x, std::int64_t y, const std::vector<float>& bands)
  {
    for (int b = 0; b < m_Bands; ++b)
    {
      At(x, y, b) = bands[b];
    }
  }
  std::vector<PlaneView> Planes(const Region& region)
  {
    std::vector<PlaneView> planes;
    for (int b = 0; b < m_Bands; ++b)
    {
      planes.push_back({&At(region.x0, region.y0, b), m_Interleaved ? m_Bands : 1, std::ptrdiff_t(m_Width) * (m_Interleaved ? m_Bands : 1)});
    }
    return planes;
  }
  PixelBlock Block(const Region& region)
  {
    PixelBlock block;
    block.region = region;
    block.bands = {Planes(region)};
    return block;
  }
  PixelBlock Block() { return Block({0, 0, m_Width, m_Height}); }

private:
  int m_Width, m_Height, m_Bands;
  bool m_Interleaved;
  std::vector<float> m_Pixels;
};

InputNormalisation Plain(int bands)
{
  InputNormalisation n;
  n.scaling.resize(bands);
  n.noData.assign(bands, 0.);
  n.hasNoData.assign(bands, false);
  return n;
}

InputNormalisation WithNoData(int bands, double value, NoDataRule rule)
{
  InputNormalisation n = Plain(bands);
  n.noData.assign(bands, value);
  n.hasNoData.assign(bands, true);
  n.rule = rule;
  return n;
}

/** Validity of a row of pixels of an image of 3 bands. */
std::vector<std::uint8_t> ValidityOf(const std::vector<std::vector<float>>& pixels, const InputNormalisation& normalisation)
{
  const int width = static_cast<int>(pixels.size());
  Image image(width, 1, static_cast<int>(pixels[0].size()), true);
  for (int x = 0; x < width; ++x)
  {
    image.Set(x, 0, pixels[x]);
  }
  std::vector<std::uint8_t> valid;
  PatchValidity(image.Block(), {0, 0, width, 1}, width, 1, {normalisation}, valid);
  return valid;
}

TEST(PatchValidity, AllBandsMustHoldTheNoDataValueUnderTheRuleAll)
{
  EXPECT_THAT(ValidityOf({{0, 0, 0}, {0, 0, 1}, {0, 1, 0}, {1, 0, 0}, {1, 1, 1}}, WithNoData(3, 0., NoDataRule::All)), ElementsAre(0, 1, 1, 1, 1));
}

TEST(PatchValidity, OneBandWithTheNoDataValueIsEnoughUnderTheRuleAny)
{
  EXPECT_THAT(ValidityOf({{0, 0, 0}, {0, 0, 1}, {0, 1, 0}, {1, 0, 0}, {1, 1, 1}}, WithNoData(3, 0., NoDataRule::Any)), ElementsAre(0, 0, 0, 0, 1));
}

TEST(PatchValidity, ABandThatIsNotFiniteMakesThePixelNoData)
{
  const std::vector<std::vector<float>> pixels = {{nan, 1, 1}, {1, inf, 1}, {1, 1, -inf}, {nan, 0, 0}, {1, 1, 1}};
  for (const auto rule : {NoDataRule::All, NoDataRule::Any})
  {
    EXPECT_THAT(ValidityOf(pixels, WithNoData(3, 0., rule)), ElementsAre(0, 0, 0, 0, 1));
  }
  EXPECT_THAT(ValidityOf(pixels, Plain(3)), ElementsAre(0, 0, 0, 0, 1));
}

TEST(PatchValidity, WithoutANoDataValueZeroIsData)
{
  EXPECT_THAT(ValidityOf({{0, 0, 0}, {-9999, 0, 1}}, Plain(3)), Each(1));
}

TEST(PatchValidity, EachBandHasItsOwnNoDataValue)
{
  InputNormalisation n = WithNoData(3, 0., NoDataRule::All);
  n.noData = {1., 2., 3.};
  EXPECT_THAT(ValidityOf({{1, 2, 3}, {1, 2, 2}, {1, 1, 1}, {0, 0, 0}}, n), ElementsAre(0, 1, 1, 1));
  n.rule = NoDataRule::Any;
  n.hasNoData = {true, false, true};
  EXPECT_THAT(ValidityOf({{1, 0, 0}, {0, 2, 0}, {0, 0, 3}, {0, 0, 0}}, n), ElementsAre(0, 1, 0, 1));
}

TEST(PatchValidity, NoDataValuesAreComparedInThePrecisionOfThePixels)
{
  EXPECT_THAT(ValidityOf({{-3.4e38f}, {-1e30f}}, WithNoData(1, -3.4e38, NoDataRule::All)), ElementsAre(0, 1));
  EXPECT_THAT(ValidityOf({{.1f}}, WithNoData(1, .1, NoDataRule::All)), ElementsAre(0));
}

TEST(PatchValidity, TheMaskIsInvalidWhereZeroOrNan)
{
  Image image(6, 1, 1, true);
  std::vector<float> mask = {0.f, -0.f, nan, 1.f, 255.f, -.5f};
  PixelBlock block = image.Block();
  block.mask = {mask.data(), 1, 6};
  std::vector<std::uint8_t> valid;
  PatchValidity(block, {0, 0, 6, 1}, 6, 1, {Plain(1)}, valid);
  EXPECT_THAT(valid, ElementsAre(0, 0, 0, 1, 1, 1));
}

TEST(PatchValidity, TheMaskDoesNotMakeNoDataValid)
{
  Image image(2, 1, 1, true);
  image.At(0, 0, 0) = nan;
  std::vector<float> mask = {1.f, 1.f};
  PixelBlock block = image.Block();
  block.mask = {mask.data(), 1, 2};
  std::vector<std::uint8_t> valid;
  PatchValidity(block, {0, 0, 2, 1}, 2, 1, {Plain(1)}, valid);
  EXPECT_THAT(valid, ElementsAre(0, 1));
}

TEST(PatchValidity, APixelIsValidWhereAllInputsHaveData)
{
  Image first(4, 1, 2, true), second(4, 1, 1, false);
  first.Set(1, 0, {0, 0});
  first.Set(3, 0, {0, 0});
  second.Set(2, 0, {-1});
  second.Set(3, 0, {-1});
  PixelBlock block = first.Block();
  block.bands.push_back(second.Planes(block.region));
  std::vector<std::uint8_t> valid;
  PatchValidity(block, {0, 0, 4, 1}, 4, 1, {WithNoData(2, 0., NoDataRule::All), WithNoData(1, -1., NoDataRule::All)}, valid);
  EXPECT_THAT(valid, ElementsAre(1, 0, 0, 0));
}

TEST(PatchValidity, BeyondTheBorderIsThatOfTheMirroredPixel)
{
  Image image(5, 4, 2, true);
  image.At(1, 2, 0) = nan;
  std::vector<float> mask(20, 1.f);
  mask[3 * 5 + 4] = 0.f;
  PixelBlock block = image.Block();
  block.mask = {mask.data(), 1, 5};
  const Region footprint{-6, -7, 10, 9};
  std::vector<std::uint8_t> valid;
  PatchValidity(block, footprint, 5, 4, {Plain(2)}, valid);
  ASSERT_EQ(valid.size(), 256u);
  for (auto y = footprint.y0; y < footprint.y1; ++y)
  {
    for (auto x = footprint.x0; x < footprint.x1; ++x)
    {
      const auto u = Mirror(x, 5), v = Mirror(y, 4);
      const bool none = (u == 1 && v == 2) || (u == 4 && v == 3);
      ASSERT_EQ(valid[(y + 7) * 16 + x + 6], none ? 0 : 1) << x << ", " << y;
    }
  }
}

ModelInput TwoBands()
{
  ModelInput in;
  in.bands = {"a", "b"};
  in.scaling.resize(2);
  in.scaling[1].offset = 5.;
  in.noDataFill = -3.f;
  in.noDataRule = NoDataRule::Any;
  return in;
}

TEST(Normalisation, TakesTheWordsOfTheContract)
{
  ModelInput in = TwoBands();
  in.noData = 7.;
  const auto n = Normalisation(in, {}, {});
  EXPECT_EQ(n.scaling[1].offset, 5.);
  EXPECT_EQ(n.fill, -3.f);
  EXPECT_EQ(n.rule, NoDataRule::Any);
  EXPECT_THAT(n.noData, ElementsAre(7., 7.));
  EXPECT_THAT(n.hasNoData, ElementsAre(true, true));
}

TEST(Normalisation, WhatAFileDeclaresOverridesTheContractBandByBand)
{
  ModelInput in = TwoBands();
  in.noData = 7.;
  const auto n = Normalisation(in, {false, true}, {1., 2.});
  EXPECT_THAT(n.noData, ElementsAre(7., 2.));
  EXPECT_THAT(n.hasNoData, ElementsAre(true, true));
}

TEST(Normalisation, ABandOfWhichNobodySpeaksHasNoNoDataValue)
{
  const auto n = Normalisation(TwoBands(), {false, true}, {1., 2.});
  EXPECT_THAT(n.hasNoData, ElementsAre(false, true));
  EXPECT_EQ(n.noData[1], 2.);
}

constexpr float untouched = -12345.f;

/** A batch of three patches, in either layout of memory. */
class Batch
{
public:
  Batch(int channels, int patch, bool channelsLast) : m_Memory(std::size_t(3) * channels * patch * patch, untouched)
  {
    const std::ptrdiff_t plane = std::ptrdiff_t(patch) * patch;
    view = {m_Memory.data(),
            channels,
            plane * channels,
            channelsLast ? 1 : plane,
            std::ptrdiff_t(patch) * (channelsLast ? channels : 1),
            channelsLast ? channels : 1};
  }
  BatchView view;

private:
  std::vector<float> m_Memory;
};

/** The value of a pixel after clipping, shifting and dividing, as written in doc/model-contract.md. */
float Scaled(float v, const BandScaling& s)
{
  v = v < static_cast<float>(s.low) ? static_cast<float>(s.low) : v;
  v = v > static_cast<float>(s.high) ? static_cast<float>(s.high) : v;
  return (v - static_cast<float>(s.offset)) / static_cast<float>(s.divisor);
}

TEST(PackPatch, ClipsThenSubtractsThenDividesEachBand)
{
  Image image(4, 1, 3, true);
  for (int x = 0; x < 4; ++x)
  {
    image.Set(x, 0, {100.f * x, 100.f * x, 100.f * x});
  }
  InputNormalisation n = Plain(3);
  n.scaling[0].offset = 100.;
  n.scaling[0].divisor = 50.;
  n.scaling[1].low = 50.;
  n.scaling[1].high = 250.;
  n.scaling[2].divisor = -10.;
  Batch batch(3, 4, false);
  PackPatch(image.Block(), {0, 0, 4, 1}, 4, 1, 0, n, {1, 1, 1, 1}, batch.view, 0);
  const float expected[3][4] = {{-2.f, 0.f, 2.f, 4.f}, {50.f, 100.f, 200.f, 250.f}, {-0.f, -10.f, -20.f, -30.f}};
  for (int b = 0; b < 3; ++b)
  {
    for (int x = 0; x < 4; ++x)
    {
      EXPECT_EQ(*batch.view.At(0, b, 0, x), expected[b][x]) << b << ", " << x;
    }
  }
}

TEST(PackPatch, PixelsThatAreNotValidBecomeTheFillInAllBands)
{
  for (const bool interleaved : {false, true})
  {
    for (const bool channelsLast : {false, true})
    {
      Image image(3, 1, 2, interleaved);
      image.At(1, 0, 0) = nan;
      image.At(2, 0, 1) = -inf;
      InputNormalisation n = Plain(2);
      n.scaling[0].offset = 1000.;
      n.fill = .25f;
      Batch batch(2, 3, channelsLast);
      PackPatch(image.Block(), {0, 0, 3, 1}, 3, 1, 0, n, {1, 0, 0}, batch.view, 1);
      for (int b = 0; b < 2; ++b)
      {
        EXPECT_EQ(*batch.view.At(1, b, 0, 0), Scaled(image.At(0, 0, b), n.scaling[b]));
        EXPECT_EQ(*batch.view.At(1, b, 0, 1), .25f);
        EXPECT_EQ(*batch.view.At(1, b, 0, 2), .25f);
      }
    }
  }
}

struct Layout
{
  bool interleaved;
  bool channelsLast;
  int bands;
};

void PrintTo(const Layout& l, std::ostream* out)
{
  *out << (l.interleaved ? "interleaved" : "planar") << " to " << (l.channelsLast ? "NHWC" : "NCHW") << ", " << l.bands << " bands";
}

class PackPatchLayout : public testing::TestWithParam<Layout>
{
};

TEST_P(PackPatchLayout, EveryPixelIsThatOfTheMirroredImageAndNoOtherSlotIsTouched)
{
  const auto [interleaved, channelsLast, bands] = GetParam();
  const int width = 20, height = 13, patch = 8;
  Image image(width, height, bands, interleaved);
  InputNormalisation n = Plain(bands);
  for (int b = 0; b < bands; ++b)
  {
    n.scaling[b].low = 500. + b;
    n.scaling[b].high = 3500. - b;
    n.scaling[b].offset = 10. * b + 1.;
    n.scaling[b].divisor = 3. + b;
  }
  n.fill = -7.f;
  std::mt19937 random(8);
  // Inside; at the corners; over each border; over a corner. Read from a block that is as large as needed, and from the whole image.
  const Region footprints[] = {{5, 3, 13, 11}, {0, 0, 8, 8}, {12, 5, 20, 13}, {-3, 2, 5, 10}, {15, 2, 23, 10}, {4, -5, 12, 3}, {4, 9, 12, 17}, {-7, -7, 1, 1}};
  for (const auto& f : footprints)
  {
    Region reads;
    MirroredInterval(f.x0, f.x1, width, reads.x0, reads.x1);
    MirroredInterval(f.y0, f.y1, height, reads.y0, reads.y1);
    std::vector<std::uint8_t> valid(patch * patch);
    for (auto& v : valid)
    {
      v = random() % 5 != 0;
    }
    for (const Region& read : {reads, Region{0, 0, width, height}})
    {
      Batch batch(bands, patch, channelsLast);
      PackPatch(image.Block(read), f, width, height, 0, n, valid, batch.view, 1);
      for (int b = 0; b < bands; ++b)
      {
        for (int y = 0; y < patch; ++y)
        {
          for (int x = 0; x < patch; ++x)
          {
            const float v = image.At(Mirror(f.x0 + x, width), Mirror(f.y0 + y, height), b);
            ASSERT_EQ(*batch.view.At(1, b, y, x), valid[y * patch + x] ? Scaled(v, n.scaling[b]) : -7.f) << b << ", " << x << ", " << y;
            ASSERT_EQ(*batch.view.At(0, b, y, x), untouched);
            ASSERT_EQ(*batch.view.At(2, b, y, x), untouched);
          }
        }
      }
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Layouts, PackPatchLayout,
                         testing::Values(Layout{true, true, 4}, Layout{true, false, 4}, Layout{false, true, 4}, Layout{false, false, 4}, Layout{true, true, 1},
                                         Layout{true, false, 1}, Layout{false, true, 2}, Layout{true, true, 13}));

TEST(PackPatch, BandsFromSeveralImagesAreOneInput)
{
  Image first(8, 8, 2, true), second(8, 8, 1, true);
  PixelBlock block = first.Block();
  block.bands[0].push_back(second.Planes(block.region)[0]);
  for (const bool channelsLast : {false, true})
  {
    Batch batch(3, 8, channelsLast);
    PackPatch(block, {0, 0, 8, 8}, 8, 8, 0, Plain(3), std::vector<std::uint8_t>(64, 1), batch.view, 2);
    for (int x = 0; x < 8; ++x)
    {
      ASSERT_EQ(*batch.view.At(2, 1, 3, x), first.At(x, 3, 1));
      ASSERT_EQ(*batch.view.At(2, 2, 3, x), second.At(x, 3, 0));
    }
  }
}

TEST(PackPatch, AnImageOfOnePixelFillsThePatch)
{
  Image image(1, 1, 2, true);
  Batch batch(2, 8, true);
  PackPatch(image.Block(), {-3, -3, 5, 5}, 1, 1, 0, Plain(2), std::vector<std::uint8_t>(64, 1), batch.view, 0);
  for (int k = 0; k < 64; ++k)
  {
    ASSERT_EQ(*batch.view.At(0, 1, k / 8, k % 8), image.At(0, 0, 1));
  }
}

TEST(PackPatch, TheSecondInputHasItsOwnBandsAndScaling)
{
  Image first(8, 8, 2, true), second(8, 8, 3, true);
  second.At(4, 4, 2) = 1234.f;
  PixelBlock block = first.Block();
  block.bands.push_back(second.Planes(block.region));
  InputNormalisation n = Plain(3);
  n.scaling[2].offset = 1000.;
  Batch batch(3, 8, true);
  PackPatch(block, {0, 0, 8, 8}, 8, 8, 1, n, std::vector<std::uint8_t>(64, 1), batch.view, 0);
  EXPECT_EQ(*batch.view.At(0, 2, 4, 4), 234.f);
}

} // namespace
