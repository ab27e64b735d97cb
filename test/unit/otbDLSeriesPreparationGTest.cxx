/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// From raw series to what a network sees, pixel by pixel, with numbers that can be worked out by hand.
#include "otbDLError.h"
#include "otbDLSeriesPreparation.h"
#include "otbDLSeriesScene.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <tuple>

namespace
{

using namespace otb::dl;
using namespace otbtest;
using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::HasSubstr;
using testing::IsEmpty;
using GapFill = TemporalSpec::GapFill;
using Policy = TemporalSpec::Policy;
using Kind = DateEncoding::Kind;

/** What a network is given of a pixel. */
struct Taken
{
  std::vector<std::vector<float>> inputs; ///< in the order of their axes
  bool valid = false;
  std::vector<int> counts;
};

Taken Take(const SeriesPreparation& preparation, Scene& scene, std::int64_t x = 0, std::int64_t y = 0)
{
  PreparedPixels pixels;
  preparation.Allocate(pixels, 1);
  preparation.PrepareRow(scene.Read({0, 0, scene.setup.width, scene.setup.height}), {x}, y, pixels, 0);
  SumPredictor memory(preparation.Contract(), 1, 1);
  std::vector<BatchView> views;
  Taken taken;
  for (int k = 0; k < static_cast<int>(preparation.Contract().inputs.size()); ++k)
  {
    views.push_back(memory.Input(k));
  }
  std::vector<std::vector<int>> validPixels;
  preparation.WriteRow(pixels, 0, 1, views, 0, 0, 0);
  preparation.CountValid(pixels, 0, 1, validPixels);
  preparation.WriteSample(validPixels, 1, static_cast<double>(x), static_cast<double>(y), views, 0);
  for (int k = 0; k < static_cast<int>(views.size()); ++k)
  {
    taken.inputs.push_back(memory.Slot(k));
  }
  taken.valid = pixels.valid[0] != 0;
  taken.counts.assign(pixels.counts.begin(), pixels.counts.end());
  return taken;
}

Taken Take(const ModelContract& contract, Scene& scene, std::int64_t x = 0, std::int64_t y = 0)
{
  return Take(SeriesPreparation(contract, scene.setup), scene, x, y);
}

ModelContract Of(const std::vector<ModelInput>& inputs)
{
  ModelContract contract = PixelContract();
  contract.inputs = inputs;
  return contract;
}

/** One band of one sensor; 0 is no-data. */
Taken OneBand(GapFill fill, const std::vector<int>& days, const std::vector<double>& values, float fillValue = -7.f)
{
  Scene scene(1, 1);
  scene.AddSensor(Days(days), {"B"});
  scene.SetDates(0, 0, values);
  ModelInput in = Sits({"B"}, fill);
  in.noData = 0.;
  in.noDataFill = fillValue;
  return Take(Of({in, With("valid", 0, {Axis::Batch, Axis::Time})}), scene);
}

TEST(SeriesPreparation, GapsAreFilledInProportionToTheDays)
{
  const auto t = OneBand(GapFill::Linear, {0, 10, 20, 40}, {10, 0, 0, 50});
  EXPECT_THAT(t.inputs[0], ElementsAre(10, 20, 30, 50));
  EXPECT_THAT(t.inputs[1], ElementsAre(1, 0, 0, 1)) << "interpolated dates are told as invalid";
  EXPECT_TRUE(t.valid);
  EXPECT_THAT(t.counts, ElementsAre(2));
}

TEST(SeriesPreparation, BeforeTheFirstAndAfterTheLastValidDateTheNearestOneHolds)
{
  EXPECT_THAT(OneBand(GapFill::Linear, {0, 10, 20, 40}, {0, 8, 4, 0}).inputs[0], ElementsAre(8, 8, 4, 4));
  EXPECT_THAT(OneBand(GapFill::Linear, {0, 10, 20, 40}, {0, 0, 0, 5}).inputs[0], ElementsAre(5, 5, 5, 5));
  EXPECT_THAT(OneBand(GapFill::Linear, {0, 10, 20, 40}, {5, 0, 0, 0}).inputs[0], ElementsAre(5, 5, 5, 5));
}

TEST(SeriesPreparation, ASeriesWithoutGapsIsLeftAlone)
{
  for (const GapFill fill : {GapFill::None, GapFill::Linear})
  {
    const auto t = OneBand(fill, {0, 1, 2}, {.1, .2, .7});
    EXPECT_THAT(t.inputs[0], ElementsAre(.1f, .2f, .7f));
    EXPECT_THAT(t.inputs[1], ElementsAre(1, 1, 1));
  }
}

TEST(SeriesPreparation, GapsThatAreNotFilledHoldTheFillValueAfterScaling)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 1, 2}), {"B"});
  scene.SetDates(0, 0, {10, 0, 30});
  ModelInput in = Sits({"B"});
  in.noData = 0.;
  in.noDataFill = -7.f;
  in.scaling[0].offset = 20.;
  in.scaling[0].divisor = 5.;
  const auto t = Take(Of({in}), scene);
  EXPECT_THAT(t.inputs[0], ElementsAre(-2, -7, 2));
  EXPECT_TRUE(t.valid);
}

TEST(SeriesPreparation, WithoutAValidDateThePixelIsNoDataAndTheNetworkSeesTheFillValue)
{
  for (const GapFill fill : {GapFill::None, GapFill::Linear})
  {
    const auto t = OneBand(fill, {0, 10, 20}, {0, 0, 0});
    EXPECT_FALSE(t.valid);
    EXPECT_THAT(t.inputs[0], ElementsAre(-7, -7, -7));
    EXPECT_THAT(t.inputs[1], ElementsAre(0, 0, 0));
    EXPECT_THAT(t.counts, ElementsAre(0));
  }
}

TEST(SeriesPreparation, OneDateIsASeriesToo)
{
  for (const GapFill fill : {GapFill::None, GapFill::Linear})
  {
    EXPECT_THAT(OneBand(fill, {3}, {4}).inputs[0], ElementsAre(4));
    EXPECT_FALSE(OneBand(fill, {3}, {0}).valid);
  }
}

class SeriesPreparationType : public testing::TestWithParam<std::tuple<SampleType, bool>>
{
};

TEST_P(SeriesPreparationType, AnyTypeAndLayoutGivesTheSame)
{
  Scene scene(3, 2);
  scene.AddSensor(Days({0, 10, 20}), {"a", "b", "c"}, std::get<0>(GetParam()), std::get<1>(GetParam()));
  scene.AddMasks(0, MaskMeaning::ZeroIsValid, std::get<0>(GetParam()));
  for (int y = 0; y < 2; ++y)
  {
    for (int x = 0; x < 3; ++x)
    {
      for (int t = 0; t < 3; ++t)
      {
        for (int b = 0; b < 3; ++b)
        {
          scene.Set(0, t, b, 100 + 50 * y + 20 * x + 5 * t + b, x, y);
        }
      }
    }
  }
  scene.SetMask(0, 1, 1, 2, 1);
  for (int b = 0; b < 3; ++b)
  {
    scene.Set(0, 2, b, 255, 1, 0);
  }
  // Neighbours in the file, then bands that are not.
  const std::vector<std::vector<std::string>> picks = {{"a", "b", "c"}, {"b", "c"}, {"c", "a"}, {"b"}};
  for (const auto& bands : picks)
  {
    ModelInput in = Sits(bands, GapFill::Linear);
    in.noData = 255.;
    const SeriesPreparation preparation(Of({in}), scene.setup);
    const auto expected = [&](int x, int y, const std::vector<double>& dates)
    {
      std::vector<float> values;
      for (const double t : dates)
      {
        for (const auto& b : bands)
        {
          values.push_back(static_cast<float>(100 + 50 * y + 20 * x + 5 * t + (b[0] - 'a')));
        }
      }
      return values;
    };
    EXPECT_THAT(Take(preparation, scene, 0, 0).inputs[0], ElementsAreArray(expected(0, 0, {0, 1, 2})));
    EXPECT_THAT(Take(preparation, scene, 1, 0).inputs[0], ElementsAreArray(expected(1, 0, {0, 1, 1})));
    EXPECT_THAT(Take(preparation, scene, 2, 1).inputs[0], ElementsAreArray(expected(2, 1, {0, 1, 2}))) << "half way between its neighbours";
    EXPECT_THAT(Take(preparation, scene, 2, 1).counts, ElementsAre(2));
  }
}

INSTANTIATE_TEST_SUITE_P(Types, SeriesPreparationType,
                         testing::Combine(testing::Values(SampleType::UInt8, SampleType::Int16, SampleType::UInt16, SampleType::Int32, SampleType::UInt32,
                                                          SampleType::Float, SampleType::Double),
                                          testing::Bool()));

TEST(SeriesPreparation, NegativeIntegersKeepTheirSign)
{
  for (const SampleType type : {SampleType::Int16, SampleType::Int32, SampleType::Float, SampleType::Double})
  {
    Scene scene(1, 1);
    scene.AddSensor(Days({0, 10}), {"B"}, type);
    scene.SetDates(0, 0, {-10000, -3});
    ModelInput in = Sits({"B"}, GapFill::Linear);
    in.noData = -10000.;
    EXPECT_THAT(Take(Of({in}), scene).inputs[0], ElementsAre(-3, -3));
  }
}

TEST(SeriesPreparation, SizesAreThoseOfTheTypes)
{
  EXPECT_EQ(SizeOf(SampleType::UInt8), 1u);
  EXPECT_EQ(SizeOf(SampleType::Int16), 2u);
  EXPECT_EQ(SizeOf(SampleType::UInt16), 2u);
  EXPECT_EQ(SizeOf(SampleType::Int32), 4u);
  EXPECT_EQ(SizeOf(SampleType::UInt32), 4u);
  EXPECT_EQ(SizeOf(SampleType::Float), 4u);
  EXPECT_EQ(SizeOf(SampleType::Double), 8u);
}

/** Which dates of these pixels (a band, b band) are valid? Bands side by side or apart. */
std::vector<float> ValidDates(const std::vector<std::pair<double, double>>& dates, NoDataRule rule, std::optional<double> noData,
                              const std::vector<std::optional<double>>& declared, bool interleaved)
{
  Scene scene(1, 1);
  std::vector<int> days;
  for (std::size_t t = 0; t < dates.size(); ++t)
  {
    days.push_back(static_cast<int>(t));
  }
  scene.AddSensor(Days(days), {"a", "b"}, SampleType::Float, interleaved);
  for (std::size_t t = 0; t < dates.size(); ++t)
  {
    scene.Set(0, static_cast<int>(t), 0, dates[t].first);
    scene.Set(0, static_cast<int>(t), 1, dates[t].second);
    scene.setup.sensors[0].noData.insert(scene.setup.sensors[0].noData.end(), declared.begin(), declared.end());
  }
  ModelInput in = Sits({"a", "b"});
  in.noData = noData;
  in.noDataRule = rule;
  const auto valid = Take(Of({in, With("valid", 0, {Axis::Batch, Axis::Time})}), scene).inputs[1];
  // Bands of another file order are read one by one.
  ModelInput swapped = in;
  std::swap(swapped.bands[0], swapped.bands[1]);
  EXPECT_EQ(Take(Of({swapped, With("valid", 0, {Axis::Batch, Axis::Time})}), scene).inputs[1], valid);
  return valid;
}

TEST(SeriesPreparation, TheNoDataRuleHoldsDateByDate)
{
  const std::vector<std::pair<double, double>> dates = {{1, 2}, {0, 2}, {1, 0}, {0, 0}};
  for (const bool interleaved : {true, false})
  {
    EXPECT_THAT(ValidDates(dates, NoDataRule::All, 0., {}, interleaved), ElementsAre(1, 1, 1, 0));
    EXPECT_THAT(ValidDates(dates, NoDataRule::Any, 0., {}, interleaved), ElementsAre(1, 0, 0, 0));
    EXPECT_THAT(ValidDates(dates, NoDataRule::All, std::nullopt, {}, interleaved), ElementsAre(1, 1, 1, 1));
    EXPECT_THAT(ValidDates(dates, NoDataRule::Any, std::nullopt, {}, interleaved), ElementsAre(1, 1, 1, 1));
  }
}

TEST(SeriesPreparation, WhatAFileDeclaresGoesBeforeTheContract)
{
  const std::vector<std::pair<double, double>> dates = {{9, 9}, {0, 0}, {9, 0}, {0, 9}};
  for (const bool interleaved : {true, false})
  {
    EXPECT_THAT(ValidDates(dates, NoDataRule::All, 0., {9., 9.}, interleaved), ElementsAre(0, 1, 1, 1));
    // Of one band the file says nothing: the contract does.
    EXPECT_THAT(ValidDates(dates, NoDataRule::All, 0., {9., std::nullopt}, interleaved), ElementsAre(1, 1, 0, 1));
    EXPECT_THAT(ValidDates(dates, NoDataRule::Any, 0., {9., std::nullopt}, interleaved), ElementsAre(0, 0, 0, 1));
    // Nor does the contract: the other band decides.
    EXPECT_THAT(ValidDates(dates, NoDataRule::All, std::nullopt, {9., std::nullopt}, interleaved), ElementsAre(0, 1, 0, 1));
  }
}

TEST(SeriesPreparation, EachDateHasTheNoDataValueOfItsOwnFile)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 1, 2}), {"B"});
  scene.SetDates(0, 0, {5, 5, 6});
  scene.setup.sensors[0].noData = {5., 6., 6.};
  EXPECT_THAT(Take(Of({Sits({"B"}), With("valid", 0, {Axis::Batch, Axis::Time})}), scene).inputs[1], ElementsAre(0, 1, 0));
}

TEST(SeriesPreparation, ANumberThatIsNotFiniteMakesADateInvalidUnderAnyRule)
{
  const std::vector<std::pair<double, double>> dates = {{1, 2}, {NaN, 2}, {1, Inf}, {-Inf, 0}, {1, 1}};
  for (const bool interleaved : {true, false})
  {
    for (const NoDataRule rule : {NoDataRule::All, NoDataRule::Any})
    {
      EXPECT_THAT(ValidDates(dates, rule, std::nullopt, {}, interleaved), ElementsAre(1, 0, 0, 0, 1));
      EXPECT_THAT(ValidDates(dates, rule, -5., {}, interleaved), ElementsAre(1, 0, 0, 0, 1));
      EXPECT_THAT(ValidDates(dates, rule, std::nullopt, {NaN, NaN}, interleaved), ElementsAre(1, 0, 0, 0, 1));
    }
  }
}

TEST(SeriesPreparation, ADoubleBeyondSinglePrecisionIsNotFinite)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 1}), {"B"}, SampleType::Double);
  scene.SetDates(0, 0, {1e300, 4.});
  EXPECT_THAT(Take(Of({Sits({"B"}, GapFill::Linear)}), scene).inputs[0], ElementsAre(4, 4));
}

TEST(SeriesPreparation, ABandThatTheNetworkDoesNotTakeHasNoSay)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0}), {"a", "b"});
  scene.Set(0, 0, 0, 3);
  scene.Set(0, 0, 1, NaN);
  EXPECT_TRUE(Take(Of({Sits({"a"})}), scene).valid);
  EXPECT_FALSE(Take(Of({Sits({"b"})}), scene).valid);
}

/** Which of the values 0, 1, 2... of a mask are valid? */
std::vector<float> ValidMasks(MaskMeaning meaning, const std::vector<double>& values, SampleType type = SampleType::Float)
{
  Scene scene(1, 1);
  std::vector<int> days;
  for (std::size_t t = 0; t < values.size(); ++t)
  {
    days.push_back(static_cast<int>(t));
  }
  scene.AddSensor(Days(days), {"B"});
  scene.AddMasks(0, meaning, type);
  for (std::size_t t = 0; t < values.size(); ++t)
  {
    scene.SetMask(0, static_cast<int>(t), values[t]);
  }
  return Take(Of({Sits({"B"}), With("valid", 0, {Axis::Batch, Axis::Time})}), scene).inputs[1];
}

TEST(SeriesPreparation, MasksMeanWhatTheyAreSaidToMean)
{
  const std::vector<double> values = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 255};
  EXPECT_THAT(ValidMasks(MaskMeaning::ZeroIsValid, values), ElementsAre(1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
  EXPECT_THAT(ValidMasks(MaskMeaning::NotZeroIsValid, values), ElementsAre(0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1));
  EXPECT_THAT(ValidMasks(MaskMeaning::SceneClassification, values), ElementsAre(0, 0, 1, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0));
  EXPECT_EQ(ValidMasks(MaskMeaning::SceneClassification, values, SampleType::UInt8), ValidMasks(MaskMeaning::SceneClassification, values));
}

TEST(SeriesPreparation, AMaskThatIsNoNumberMakesADateInvalid)
{
  for (const MaskMeaning meaning : {MaskMeaning::ZeroIsValid, MaskMeaning::NotZeroIsValid, MaskMeaning::SceneClassification})
  {
    EXPECT_THAT(ValidMasks(meaning, {NaN}), ElementsAre(0));
  }
}

TEST(SeriesPreparation, MaskAndNoDataRuleAreAnded)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 1, 2, 3}), {"B"});
  scene.AddMasks(0, MaskMeaning::ZeroIsValid);
  scene.SetDates(0, 0, {0, 5, 0, 6});
  scene.SetMask(0, 1, 1);
  scene.SetMask(0, 2, 1);
  ModelInput in = Sits({"B"});
  in.noData = 0.;
  EXPECT_THAT(Take(Of({in, With("valid", 0, {Axis::Batch, Axis::Time})}), scene).inputs[1], ElementsAre(0, 0, 0, 1));
}

ModelInput OnGrid(const std::vector<std::string>& bands, const std::string& start, const std::string& end, int step)
{
  ModelInput in = Sits(bands, GapFill::Grid);
  in.temporal.gridStart = start;
  in.temporal.gridEnd = end;
  in.temporal.gridStep = step;
  return in;
}

ModelInput Dates(Kind kind, ElementType type = ElementType::Float32)
{
  ModelInput in = With("dates", 0, {Axis::Batch, Axis::Time});
  in.encoding.kind = kind;
  in.type = type;
  return in;
}

TEST(SeriesPreparation, AGridIsFilledFromTheValidDatesAround)
{
  Scene scene(2, 1);
  scene.AddSensor(Days({5, 10, 20, 30}), {"B"}); // January 6th, 11th, 21st, 31st
  scene.SetDates(0, 0, {5, 0, 20, 40});
  ModelInput in = OnGrid({"B"}, "2021-01-01", "2021-02-10", 5);
  in.noData = 0.;
  in.noDataFill = -7.f;
  const SeriesPreparation preparation(Of({in, Dates(Kind::DayOfYear), With("valid", 0, {Axis::Batch, Axis::Time})}), scene.setup);
  const auto t = Take(preparation, scene);
  EXPECT_THAT(t.inputs[0], ElementsAre(5, 5, 10, 15, 20, 30, 40, 40, 40));
  EXPECT_THAT(t.inputs[1], ElementsAre(1, 6, 11, 16, 21, 26, 31, 36, 41)) << "the network's dates";
  EXPECT_THAT(t.inputs[2], Each(1)) << "valid where the pixel has a valid date";
  EXPECT_THAT(t.counts, ElementsAre(3));
  EXPECT_EQ(preparation.StepDates(0), Days({0, 5, 10, 15, 20, 25, 30, 35, 40}));

  const auto none = Take(preparation, scene, 1);
  EXPECT_THAT(none.inputs[0], Each(-7));
  EXPECT_THAT(none.inputs[2], Each(0));
  EXPECT_FALSE(none.valid);
}

TEST(SeriesPreparation, AGridWithoutAYearIsPutIntoThatOfTheSeries)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({50, 200}), {"B"});
  const SeriesPreparation preparation(Of({OnGrid({"B"}, "03-01", "03-11", 10)}), scene.setup);
  EXPECT_EQ(preparation.StepDates(0), std::vector<Day>({MakeDay(2021, 3, 1), MakeDay(2021, 3, 11)}));
}

TEST(SeriesPreparation, SensorsOfDifferentDatesMeetOnAGrid)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 10}), {"a"});
  scene.AddSensor(Days({5, 15}), {"b"});
  scene.SetDates(0, 0, {10, 20});
  scene.SetDates(1, 0, {5, 25});
  ModelInput in = OnGrid({"a", "b"}, "2021-01-01", "2021-01-16", 5);
  in.sensors = {1, 2};
  in.noData = 0.;
  const ModelContract contract = Of({in, With("valid", 0, {Axis::Batch, Axis::Time})});
  auto t = Take(contract, scene);
  EXPECT_THAT(t.inputs[0], ElementsAre(10, 5, 15, 5, 20, 15, 20, 25));
  EXPECT_THAT(t.inputs[1], Each(1));
  EXPECT_THAT(t.counts, ElementsAre(2, 2));
  // Each sensor's gaps are filled from its own dates.
  scene.Set(0, 0, 0, 0);
  t = Take(contract, scene);
  EXPECT_THAT(t.inputs[0], ElementsAre(20, 5, 20, 5, 20, 15, 20, 25));
  EXPECT_THAT(t.counts, ElementsAre(1, 2));
  EXPECT_TRUE(t.valid);
  // One of them has no valid date at all.
  scene.Set(0, 1, 0, 0);
  t = Take(contract, scene);
  EXPECT_THAT(t.inputs[0], ElementsAre(0, 5, 0, 5, 0, 15, 0, 25));
  EXPECT_THAT(t.inputs[1], Each(0));
  EXPECT_FALSE(t.valid);
}

TEST(SeriesPreparation, StepsArePaddedAtTheSideThatTheContractNames)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 31}), {"a", "b"});
  scene.SetDates(0, 0, {1, 2});
  scene.SetDates(0, 1, {3, 4});
  ModelInput in = Sits({"a", "b"});
  in.temporal.policy = Policy::Max;
  in.temporal.length = 4;
  in.temporal.padValue = -5.f;
  in.scaling[0].divisor = 2.; // the pad value is not scaled
  ModelInput dates = Dates(Kind::MonthIndex);
  dates.encoding.padValue = 77.f;
  ModelInput masked = With("valid", 0, {Axis::Batch, Axis::Time});
  masked.maskedIsOne = true;
  const ModelInput byBand = With("valid", 0, byPixel);
  const ModelInput month = With("month", 0, {Axis::Batch});

  auto t = Take(Of({in, dates, masked, byBand, month}), scene);
  EXPECT_THAT(t.inputs[0], ElementsAre(.5f, 3, 1, 4, -5, -5, -5, -5));
  EXPECT_THAT(t.inputs[1], ElementsAre(0, 1, 77, 77));
  EXPECT_THAT(t.inputs[2], ElementsAre(0, 0, 1, 1));
  EXPECT_THAT(t.inputs[3], ElementsAre(1, 1, 1, 1, 0, 0, 0, 0));
  EXPECT_THAT(t.inputs[4], ElementsAre(0));

  in.temporal.padAtStart = true;
  t = Take(Of({in, dates, masked, byBand, month}), scene);
  EXPECT_THAT(t.inputs[0], ElementsAre(-5, -5, -5, -5, .5f, 3, 1, 4));
  EXPECT_THAT(t.inputs[1], ElementsAre(77, 77, 0, 1));
  EXPECT_THAT(t.inputs[2], ElementsAre(1, 1, 0, 0));
  EXPECT_THAT(t.inputs[3], ElementsAre(0, 0, 0, 0, 1, 1, 1, 1));
}

TEST(SeriesPreparation, AGridIsPaddedToo)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 10}), {"B"});
  scene.SetDates(0, 0, {0, 10});
  ModelInput in = OnGrid({"B"}, "2021-01-01", "2021-01-11", 5);
  in.temporal.policy = Policy::Max;
  in.temporal.length = 5;
  in.temporal.padAtStart = true;
  in.temporal.padValue = -1.f;
  const auto t = Take(Of({in, With("valid", 0, {Axis::Batch, Axis::Time})}), scene);
  EXPECT_THAT(t.inputs[0], ElementsAre(-1, -1, 0, 5, 10));
  EXPECT_THAT(t.inputs[1], ElementsAre(0, 0, 1, 1, 1));
}

TEST(SeriesPreparation, ASeriesAsLongAsTheModelsTakesNoPadding)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 1}), {"B"});
  scene.SetDates(0, 0, {1, 2});
  for (const Policy policy : {Policy::Fixed, Policy::Max})
  {
    for (const bool start : {false, true})
    {
      ModelInput in = Sits({"B"});
      in.temporal.policy = policy;
      in.temporal.length = 2;
      in.temporal.padAtStart = start;
      EXPECT_THAT(Take(Of({in}), scene).inputs[0], ElementsAre(1, 2));
    }
  }
}

TEST(SeriesPreparation, TheNumberOfStepsIsSettledForEachInput)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 10, 20}), {"B"});
  ModelInput any = Sits({"B"}), most = Sits({"B"});
  most.temporal.policy = Policy::Max;
  most.temporal.length = 8;
  ModelInput datesOfMost = Dates(Kind::Index);
  datesOfMost.of = 1;
  const SeriesPreparation preparation(Of({any, most, Dates(Kind::Index), datesOfMost, With("valid", 1, {Axis::Batch, Axis::Time})}), scene.setup);
  const auto& inputs = preparation.Contract().inputs;
  EXPECT_EQ(inputs[0].steps, 3);
  EXPECT_EQ(inputs[1].steps, 8);
  EXPECT_EQ(inputs[2].steps, 3);
  EXPECT_EQ(inputs[3].steps, 8);
  EXPECT_EQ(inputs[4].steps, 8);
  EXPECT_EQ(preparation.StepDates(1), Days({0, 10, 20})) << "without those of padding";
}

TEST(SeriesPreparation, TimeBeforeBandsOrBandsBeforeTime)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 1, 2}), {"a", "b"});
  scene.SetDates(0, 0, {1, 2, 3});
  scene.SetDates(0, 1, {4, 5, 6});
  ModelInput in = Sits({"a", "b"}), valid = With("valid", 0, byPixel);
  auto t = Take(Of({in, valid}), scene);
  EXPECT_THAT(t.inputs[0], ElementsAre(1, 4, 2, 5, 3, 6));
  in.axes = valid.axes = {Axis::Batch, Axis::Bands, Axis::Time};
  in.temporal.policy = Policy::Max;
  in.temporal.length = 4;
  t = Take(Of({in, valid}), scene);
  EXPECT_THAT(t.inputs[0], ElementsAre(1, 2, 3, 0, 4, 5, 6, 0));
  EXPECT_THAT(t.inputs[1], ElementsAre(1, 1, 1, 0, 1, 1, 1, 0));
}

/** Two sensors of the same dates and a mask by band; the second may be absent. */
ModelContract TwoSensors(GapFill fill)
{
  ModelInput in = Sits({"a", "b"}, fill);
  in.sensors = {1, 2};
  in.noData = 0.;
  in.noDataFill = -7.f;
  ModelContract contract = Of({in, With("valid", 0, byPixel)});
  contract.sensors = {{"S2", false}, {"S1", true}};
  return contract;
}

TEST(SeriesPreparation, TheBandsOfAnAbsentSensorAreMaskedAndHoldTheFillValue)
{
  for (const GapFill fill : {GapFill::None, GapFill::Linear})
  {
    Scene scene(1, 1);
    scene.AddSensor(Days({0, 1}), {"a"});
    scene.SetDates(0, 0, {3, 4});
    for (const bool named : {false, true})
    {
      if (named)
      {
        scene.AddSensor({}, {"b"});
      }
      const SeriesPreparation preparation(TwoSensors(fill), scene.setup);
      const auto t = Take(preparation, scene);
      EXPECT_THAT(t.inputs[0], ElementsAre(3, -7, 4, -7));
      EXPECT_THAT(t.inputs[1], ElementsAre(1, 0, 1, 0));
      EXPECT_TRUE(t.valid);
      EXPECT_THAT(t.counts, ElementsAre(2));
      EXPECT_THAT(preparation.CountedSensors(), ElementsAre("S2"));
    }
  }
}

TEST(SeriesPreparation, AnOptionalSensorThatIsThereButHasNoValidDateIsNoReasonForNoData)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 1}), {"a"});
  scene.AddSensor(Days({0, 1}), {"b"});
  scene.SetDates(0, 0, {3, 4});
  scene.SetDates(1, 0, {0, 0});
  auto t = Take(TwoSensors(GapFill::Linear), scene);
  EXPECT_THAT(t.inputs[0], ElementsAre(3, -7, 4, -7));
  EXPECT_THAT(t.inputs[1], ElementsAre(1, 0, 1, 0));
  EXPECT_TRUE(t.valid);
  EXPECT_THAT(t.counts, ElementsAre(2, 0));
  // The other one is not optional.
  scene.SetDates(0, 0, {0, 0});
  scene.SetDates(1, 0, {5, 6});
  t = Take(TwoSensors(GapFill::Linear), scene);
  EXPECT_THAT(t.inputs[0], ElementsAre(-7, 5, -7, 6));
  EXPECT_FALSE(t.valid);
}

TEST(SeriesPreparation, AMaskByBandTellsSensorsApart)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 10, 20}), {"a"});
  scene.AddSensor(Days({0, 10, 20}), {"b"});
  scene.SetDates(0, 0, {2, 0, 6});
  scene.SetDates(1, 0, {3, 4, 0});
  auto t = Take(TwoSensors(GapFill::Linear), scene);
  EXPECT_THAT(t.inputs[0], ElementsAre(2, 3, 4, 4, 6, 4));
  EXPECT_THAT(t.inputs[1], ElementsAre(1, 1, 0, 1, 1, 0));
  EXPECT_THAT(t.counts, ElementsAre(2, 2));
  t = Take(TwoSensors(GapFill::None), scene);
  EXPECT_THAT(t.inputs[0], ElementsAre(2, 3, -7, 4, 6, -7));
  EXPECT_THAT(t.inputs[1], ElementsAre(1, 1, 0, 1, 1, 0));
}

TEST(SeriesPreparation, WithoutAMaskByBandADateThatOneSensorMissesIsMissedByAll)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 10, 20}), {"a"});
  scene.AddSensor(Days({0, 10, 20}), {"b"});
  scene.SetDates(0, 0, {2, 0, 6});
  scene.SetDates(1, 0, {3, 4, 7});
  ModelContract contract = TwoSensors(GapFill::Linear);
  contract.sensors.clear();
  contract.inputs[1].axes = {Axis::Batch, Axis::Time};
  auto t = Take(contract, scene);
  EXPECT_THAT(t.inputs[0], ElementsAre(2, 3, 4, 5, 6, 7)) << "b too is interpolated";
  EXPECT_THAT(t.inputs[1], ElementsAre(1, 0, 1));
  contract.inputs[0].temporal.gapFill = GapFill::None;
  t = Take(contract, scene);
  EXPECT_THAT(t.inputs[0], ElementsAre(2, 3, -7, -7, 6, 7));
  // No date that both have.
  scene.SetDates(1, 0, {0, 4, 0});
  contract.inputs[0].temporal.gapFill = GapFill::Linear;
  t = Take(contract, scene);
  EXPECT_FALSE(t.valid);
  EXPECT_THAT(t.inputs[0], Each(-7));
}

/** red, nir and NDVI of them, in an order of its own. */
ModelInput Vegetation(GapFill fill)
{
  ModelInput in = Sits({"red", "NDVI", "nir"}, fill);
  in.sensors = {1, -1, 1};
  in.derived = {{1, 2, 0}};
  in.noData = 0.;
  in.noDataFill = -7.f;
  return in;
}

TEST(SeriesPreparation, ANormalisedDifferenceIsMadeBeforeScaling)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 1}), {"nir", "red"});
  scene.SetDates(0, 0, {30, 60});
  scene.SetDates(0, 1, {10, 20});
  ModelInput in = Vegetation(GapFill::None);
  in.scaling[0].offset = 10.;
  in.scaling[2].divisor = 30.;
  in.scaling[1].offset = .5;
  in.scaling[1].divisor = .25;
  EXPECT_THAT(Take(Of({in}), scene).inputs[0], ElementsAre(0, 0, 1, 10, 0, 2));
}

TEST(SeriesPreparation, ANormalisedDifferenceIsMadeAfterGapFilling)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 10, 20}), {"nir", "red"});
  scene.SetDates(0, 0, {30, 0, 10});
  scene.SetDates(0, 1, {10, 0, 30});
  EXPECT_THAT(Take(Of({Vegetation(GapFill::Linear)}), scene).inputs[0], ElementsAre(10, .5f, 30, 20, 0, 20, 30, -.5f, 10));
}

TEST(SeriesPreparation, ANormalisedDifferenceOverASumOfZeroIsZero)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 1}), {"nir", "red"});
  scene.SetDates(0, 0, {5, 0});
  scene.SetDates(0, 1, {-5, 0});
  ModelInput in = Vegetation(GapFill::None);
  in.noData = -9999.;
  EXPECT_THAT(Take(Of({in}), scene).inputs[0], ElementsAre(-5, 0, 5, 0, 0, 0));
}

TEST(SeriesPreparation, ANormalisedDifferenceIsInvalidWhereOneOfItsBandsIs)
{
  for (const bool nirFirst : {true, false})
  {
    Scene scene(1, 1);
    scene.AddSensor(Days({0, 1, 2}), {"red"});
    scene.AddSensor(Days({0, 1, 2}), {"nir"});
    scene.SetDates(0, 0, {10, 0, 10});
    scene.SetDates(1, 0, {30, 30, 0});
    ModelInput in = Vegetation(GapFill::None);
    in.sensors = {1, -1, 2};
    if (!nirFirst)
    {
      in.derived = {{1, 0, 2}};
    }
    const auto t = Take(Of({in, With("valid", 0, byPixel)}), scene);
    EXPECT_THAT(t.inputs[0], ElementsAre(10, nirFirst ? .5f : -.5f, 30, -7, -7, 30, 10, -7, -7));
    EXPECT_THAT(t.inputs[1], ElementsAre(1, 1, 1, 0, 0, 1, 1, 0, 0));
  }
}

TEST(SeriesPreparation, ANormalisedDifferenceWithAnAbsentSensorIsMasked)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0}), {"red"});
  scene.SetDates(0, 0, {10});
  for (const GapFill fill : {GapFill::None, GapFill::Linear})
  {
    ModelInput in = Vegetation(fill);
    in.sensors = {1, -1, 2};
    ModelContract contract = Of({in, With("valid", 0, byPixel)});
    contract.sensors = {{"S2", false}, {"NIR", true}};
    for (const bool nirFirst : {true, false})
    {
      contract.inputs[0].derived = {nirFirst ? NormalisedDifference{1, 2, 0} : NormalisedDifference{1, 0, 2}};
      const auto t = Take(contract, scene);
      EXPECT_THAT(t.inputs[0], ElementsAre(10, -7, -7));
      EXPECT_THAT(t.inputs[1], ElementsAre(1, 0, 0));
      EXPECT_TRUE(t.valid);
    }
  }
}

TEST(SeriesPreparation, StaticBandsAreRepeatedAtEachDateAndKeepTheirValueAtInvalidOnes)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 10, 20}), {"B"});
  scene.SetDates(0, 0, {2, 0, 6});
  scene.AddFixed({"slope", "dem"});
  scene.SetFixed(0, 8);
  scene.SetFixed(1, 500);
  for (const GapFill fill : {GapFill::None, GapFill::Linear})
  {
    ModelInput in = Sits({"dem", "B"}, fill);
    in.sensors = {0, 1};
    in.noData = 0.;
    in.noDataFill = -7.f;
    in.scaling[0].divisor = 100.;
    const float gap = fill == GapFill::None ? -7.f : 4.f;
    auto t = Take(Of({in, With("valid", 0, {Axis::Batch, Axis::Time})}), scene);
    EXPECT_THAT(t.inputs[0], ElementsAre(5, 2, 5, gap, 5, 6));
    EXPECT_THAT(t.inputs[1], ElementsAre(1, 0, 1));
    // Masked by band: the static band is always valid.
    t = Take(Of({in, With("valid", 0, byPixel)}), scene);
    EXPECT_THAT(t.inputs[0], ElementsAre(5, 2, 5, gap, 5, 6));
    EXPECT_THAT(t.inputs[1], ElementsAre(1, 1, 1, 0, 1, 1));
  }
}

TEST(SeriesPreparation, StaticBandsWithoutDataHoldTheFillValueAndThePixelIsData)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 1}), {"B"});
  scene.SetDates(0, 0, {2, 6});
  scene.AddFixed({"dem"});
  for (const float none : {-32768.f, NaN})
  {
    scene.SetFixed(0, none);
    scene.setup.fixedNoData = {-32768.};
    ModelInput in = Sits({"dem", "B"}, GapFill::Linear);
    in.sensors = {0, 1};
    in.noDataFill = -7.f;
    ModelInput fixed = Sits({"dem"});
    fixed.role = "static";
    fixed.axes = {Axis::Batch, Axis::Bands};
    fixed.noDataFill = -8.f;
    const auto t = Take(Of({in, fixed}), scene);
    EXPECT_THAT(t.inputs[0], ElementsAre(-7, 2, -7, 6));
    EXPECT_THAT(t.inputs[1], ElementsAre(-8));
    EXPECT_TRUE(t.valid);
  }
}

TEST(SeriesPreparation, AStaticInputIsScaledAndClipped)
{
  Scene scene(2, 1);
  scene.AddSensor(Days({0}), {"B"});
  scene.AddFixed({"dem", "slope"});
  scene.SetFixed(0, 500);
  scene.SetFixed(1, 90);
  scene.SetFixed(0, 5000, 1);
  scene.SetFixed(1, -90, 1);
  ModelInput fixed = Sits({"slope", "DEM"});
  fixed.role = "static";
  fixed.axes = {Axis::Batch, Axis::Bands};
  fixed.scaling[1].high = 1000.;
  fixed.scaling[1].offset = 100.;
  fixed.scaling[1].divisor = 100.;
  const ModelContract contract = Of({Sits({"B"}), fixed});
  EXPECT_THAT(Take(contract, scene, 0).inputs[1], ElementsAre(90, 4));
  EXPECT_THAT(Take(contract, scene, 1).inputs[1], ElementsAre(-90, 9));
}

TEST(SeriesPreparation, ValuesAreClippedThenShiftedThenDivided)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 1, 2, 3}), {"B"});
  scene.SetDates(0, 0, {-50, 0, 60, 2000});
  ModelInput in = Sits({"B"});
  in.scaling[0].low = 0.;
  in.scaling[0].high = 100.;
  in.scaling[0].offset = 20.;
  in.scaling[0].divisor = 40.;
  EXPECT_THAT(Take(Of({in}), scene).inputs[0], ElementsAre(-.5f, -.5f, 1, 2));
}

TEST(SeriesPreparation, WhatIsTakenFromTheRawValuesGoesDateByDateAndBandByBandBeforeAllElse)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 10, 20}), {"a", "b"});
  scene.SetDates(0, 0, {10, 0, 14});
  scene.SetDates(0, 1, {30, 0, 50});
  scene.setup.sensors[0].mean = {10, 10, 1, 1, 20, 40};
  scene.setup.sensors[0].divisor = {1, 2, 9, 9, 3, 5};
  ModelInput in = Sits({"b", "a"}, GapFill::Linear);
  in.noData = 0.; // a raw value
  in.scaling[0].offset = 1.;
  // b: 10 .. 2, a: 0 .. -2; then between them.
  EXPECT_THAT(Take(Of({in}), scene).inputs[0], ElementsAre(9, 0, 5, -1, 1, -2));
}

TEST(SeriesPreparation, ValidDatesAreCountedOnceASensor)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 1, 2}), {"a", "b"});
  scene.AddSensor(Days({0, 5}), {"vv"});
  scene.SetDates(0, 0, {1, 0, 1});
  scene.SetDates(0, 1, {1, 1, 1});
  scene.SetDates(1, 0, {0, 1});
  ModelInput first = Sits({"a"}), second = Sits({"b"}), radar = Sits({"vv"}, GapFill::None, 2);
  first.noData = second.noData = radar.noData = 0.;
  ModelContract contract = Of({first, second, radar});
  contract.sensors = {{"S2", false}, {"S1", false}};
  const SeriesPreparation preparation(contract, scene.setup);
  EXPECT_THAT(preparation.CountedSensors(), ElementsAre("S2", "S1"));
  EXPECT_THAT(Take(preparation, scene).counts, ElementsAre(2, 1)) << "of the first input that takes it";
  contract.sensors.clear();
  EXPECT_THAT(SeriesPreparation(contract, scene.setup).CountedSensors(), ElementsAre("il", "il2"));
}

TEST(SeriesPreparation, OfSeveralInputsOneWithoutAValidDateMakesThePixelNoData)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0}), {"a", "b"});
  scene.Set(0, 0, 0, 5);
  ModelInput first = Sits({"a"}), second = Sits({"b"});
  first.noData = second.noData = 0.;
  EXPECT_FALSE(Take(Of({first, second}), scene).valid);
  EXPECT_TRUE(Take(Of({first}), scene).valid);
}

TEST(SeriesPreparation, PixelsThatTheMaskLeavesOutAreNoDataButSeenByTheirNeighbours)
{
  Scene scene(3, 1);
  scene.AddSensor(Days({0}), {"B"});
  scene.mask = {0.f, NaN, .5f};
  for (int x = 0; x < 3; ++x)
  {
    scene.Set(0, 0, 0, 4 + x, x);
    const auto t = Take(Of({Sits({"B"})}), scene, x);
    EXPECT_EQ(t.valid, x == 2);
    EXPECT_THAT(t.inputs[0], ElementsAre(4 + x));
  }
}

TEST(SeriesPreparation, MonthAndPositionAreThoseOfTheSample)
{
  Scene scene(3, 2);
  scene.AddSensor(Days({150, 200}), {"B"}); // from May 31st on
  scene.setup.latLon = [](double x, double y) { return std::make_pair(static_cast<float>(40. + y), static_cast<float>(-3. + x)); };
  ModelInput place = With("latlon", -1, {Axis::Batch, Axis::Bands});
  const auto t = Take(Of({Sits({"B"}), With("month", 0, {Axis::Batch}), place}), scene, 2, 1);
  EXPECT_THAT(t.inputs[1], ElementsAre(4));
  EXPECT_THAT(t.inputs[2], ElementsAre(41, -1));
}

TEST(SeriesPreparation, BandsAreFoundByTheirNamesHoweverTheyAreWritten)
{
  EXPECT_TRUE(SameBand("B2", "B02"));
  EXPECT_TRUE(SameBand("b08", "B8"));
  EXPECT_TRUE(SameBand("B8A", "b08a"));
  EXPECT_TRUE(SameBand("VV", "vv"));
  EXPECT_FALSE(SameBand("B1", "B10"));
  EXPECT_FALSE(SameBand("B8", "B8A"));
  EXPECT_FALSE(SameBand("B10", "B01"));

  Scene scene(1, 1);
  scene.AddSensor(Days({0}), {"b8", "B10", "b02"});
  scene.Set(0, 0, 0, 8);
  scene.Set(0, 0, 1, 10);
  scene.Set(0, 0, 2, 2);
  const SeriesPreparation preparation(Of({Sits({"B02", "B08"})}), scene.setup);
  EXPECT_THAT(Take(preparation, scene).inputs[0], ElementsAre(2, 8));
  EXPECT_TRUE(preparation.UsesBand(0, 0));
  EXPECT_FALSE(preparation.UsesBand(0, 1));
  EXPECT_TRUE(preparation.UsesBand(0, 2));
}

TEST(SeriesPreparation, ABandThatItsSensorHasNotIsTakenFromAnother)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 1}), {"a"});
  scene.AddSensor(Days({0, 1}), {"b"});
  scene.SetDates(0, 0, {1, 2});
  scene.SetDates(1, 0, {3, 4});
  EXPECT_THAT(Take(Of({Sits({"a", "b"})}), scene).inputs[0], ElementsAre(1, 3, 2, 4));
}

TEST(SeriesPreparation, AMaskByDateOfAPatchNeedsItsShareOfPixels)
{
  Scene scene(10, 10);
  scene.AddSensor(Days({0, 1, 2}), {"B"});
  ModelInput in = Sits({"B"});
  in.axes = byPatch;
  ModelInput valid = With("valid", 0, {Axis::Batch, Axis::Time});
  const auto flags = [&](double share, const std::vector<int>& counts, bool maskedIsOne = false)
  {
    valid.minValid = share;
    valid.maskedIsOne = maskedIsOne;
    ModelContract contract = Of({in, valid});
    contract.tiling.unit = SpatialUnit::Patch;
    contract.tiling.patch = 10;
    const SeriesPreparation preparation(contract, scene.setup);
    SumPredictor memory(preparation.Contract(), 1, 10);
    std::vector<BatchView> views = {memory.Input(0), memory.Input(1)};
    preparation.WriteSample({{}, counts}, 100, 0., 0., views, 0);
    return memory.Slot(1);
  };
  EXPECT_THAT(flags(0., {0, 1, 100}), ElementsAre(0, 1, 1)) << "one pixel is enough";
  EXPECT_THAT(flags(.5, {49, 50, 51}), ElementsAre(0, 1, 1));
  EXPECT_THAT(flags(1., {99, 100, 0}), ElementsAre(0, 1, 0));
  EXPECT_THAT(flags(.5, {49, 50, 51}, true), ElementsAre(1, 0, 0));
}

TEST(SeriesPreparation, ExactlyTheShareOfPixelsIsEnoughForAnyShare)
{
  Scene scene(10, 10);
  scene.AddSensor(Days({0}), {"B"});
  ModelInput in = Sits({"B"});
  in.axes = byPatch;
  for (int percent = 1; percent <= 100; ++percent)
  {
    ModelInput valid = With("valid", 0, {Axis::Batch, Axis::Time});
    valid.minValid = percent / 100.;
    ModelContract contract = Of({in, valid});
    contract.tiling.unit = SpatialUnit::Patch;
    contract.tiling.patch = 10;
    const SeriesPreparation preparation(contract, scene.setup);
    SumPredictor memory(preparation.Contract(), 1, 10);
    std::vector<BatchView> views = {memory.Input(0), memory.Input(1)};
    preparation.WriteSample({{}, {percent}}, 100, 0., 0., views, 0);
    EXPECT_THAT(memory.Slot(1), ElementsAre(1)) << percent << " of 100 pixels, share " << valid.minValid;
    preparation.WriteSample({{}, {percent - 1}}, 100, 0., 0., views, 0);
    EXPECT_THAT(memory.Slot(1), ElementsAre(0)) << percent - 1 << " of 100 pixels, share " << valid.minValid;
  }
}

TEST(SeriesPreparation, PixelsPreparedTogetherAreThoseOfPixelsPreparedAlone)
{
  constexpr int width = 23;
  Scene scene(width, 2);
  scene.AddSensor(Days({0, 4, 11, 30}), {"a", "b"}, SampleType::Int16);
  scene.AddSensor(Days({2, 17}), {"vv"});
  scene.AddMasks(0, MaskMeaning::SceneClassification);
  std::mt19937 random(8);
  for (int y = 0; y < 2; ++y)
  {
    for (int x = 0; x < width; ++x)
    {
      for (int t = 0; t < 4; ++t)
      {
        scene.Set(0, t, 0, static_cast<double>(random() % 4), x, y);
        scene.Set(0, t, 1, static_cast<double>(random() % 4), x, y);
        scene.SetMask(0, t, static_cast<double>(random() % 8), x, y);
      }
      scene.Set(1, 0, 0, random() % 3 == 0 ? NaN : 3., x, y);
      scene.Set(1, 1, 0, random() % 3 == 0 ? NaN : 5., x, y);
    }
  }
  ModelInput in = OnGrid({"a", "vv", "b"}, "2021-01-01", "2021-01-31", 7);
  in.sensors = {1, 2, 1};
  in.noData = 0.;
  in.noDataFill = -7.f;
  const SeriesPreparation preparation(Of({in}), scene.setup);
  const SeriesBlock block = scene.Read({0, 0, width, 2});
  std::vector<std::ptrdiff_t> columns(width);
  for (int x = 0; x < width; ++x)
  {
    columns[x] = width - 1 - x;
  }
  PreparedPixels row;
  preparation.Allocate(row, 3 + width);
  preparation.PrepareRow(block, columns, 1, row, 3);
  int valid = 0;
  for (int x = 0; x < width; ++x)
  {
    const Taken alone = Take(preparation, scene, columns[x], 1);
    const std::size_t size = alone.inputs[0].size(), at = 3 + x;
    EXPECT_EQ(std::vector<float>(row.inputs[0].values.begin() + at * size, row.inputs[0].values.begin() + (at + 1) * size), alone.inputs[0]);
    EXPECT_EQ(row.valid[at] != 0, alone.valid);
    EXPECT_EQ(row.counts[at], alone.counts[0]);
    EXPECT_EQ(row.counts[row.pixels + at], alone.counts[1]);
    valid += alone.valid;
  }
  EXPECT_GT(valid, 3);
  EXPECT_LT(valid, width - 3);
}

std::string MessageOf(const ModelContract& contract, const Scene& scene)
{
  return ErrorOf([&] { SeriesPreparation(contract, scene.setup); });
}

TEST(SeriesPreparationError, AStaticBandThatIsNotThere)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0}), {"B"});
  ModelInput in = Sits({"B", "dem"});
  in.sensors = {1, 0};
  ModelInput fixed = Sits({"dem"});
  fixed.name = "terrain";
  fixed.role = "static";
  fixed.axes = {Axis::Batch, Axis::Bands};
  EXPECT_THAT(MessageOf(Of({in}), scene), AllOf(HasSubstr("static: found nothing"), HasSubstr("dem"), HasSubstr("-staticbands")));
  EXPECT_THAT(MessageOf(Of({Sits({"B"}), fixed}), scene), AllOf(HasSubstr("static: found nothing"), HasSubstr("dem"), HasSubstr("\"terrain\"")));
  scene.AddFixed({"slope", "aspect"});
  EXPECT_THAT(MessageOf(Of({in}), scene), AllOf(HasSubstr("static: found bands slope aspect"), HasSubstr("dem")));
  EXPECT_THAT(MessageOf(Of({Sits({"B"}), fixed}), scene), AllOf(HasSubstr("static: found bands slope aspect"), HasSubstr("dem")));
}

TEST(SeriesPreparationError, ASensorThatIsAbsentThoughItIsNotOptional)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0}), {"B"});
  ModelInput in = Sits({"vv"}, GapFill::None, 2);
  in.name = "radar";
  ModelContract contract = Of({in});
  EXPECT_THAT(MessageOf(contract, scene), AllOf(HasSubstr("il2: found nothing"), HasSubstr("the band vv"), HasSubstr("\"radar\"")));
  contract.sensors = {{"Sentinel-2", false}, {"Sentinel-1", false}};
  EXPECT_THAT(MessageOf(contract, scene), AllOf(HasSubstr("il2: found nothing"), HasSubstr("Sentinel-1")));
  EXPECT_THAT(MessageOf(Of({Sits({"B"})}), Scene(1, 1)), HasSubstr("il: found nothing"));
}

TEST(SeriesPreparationError, ABandThatNoSensorHas)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0}), {"B02", "B03"});
  scene.AddSensor(Days({0}), {"vv"});
  EXPECT_THAT(MessageOf(Of({Sits({"B02", "B04"})}), scene),
              AllOf(HasSubstr("il: found bands B02 B03"), HasSubstr("the band B04"), HasSubstr("\"x\""), HasSubstr("with -bands,")));
  EXPECT_THAT(MessageOf(Of({Sits({"vh"}, GapFill::None, 2)}), scene), AllOf(HasSubstr("il2: found bands vv"), HasSubstr("the band vh"), HasSubstr("-bands2")));
}

TEST(SeriesPreparationError, ABandThatAnOptionalSensorShouldHave)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0}), {"a"});
  scene.AddSensor(Days({0}), {"c"});
  EXPECT_THAT(MessageOf(TwoSensors(GapFill::None), scene), AllOf(HasSubstr("il2: found bands c"), HasSubstr("the band b")));
}

TEST(SeriesPreparationError, SensorsOfOneInputWithDifferentDates)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 1}), {"a"});
  scene.AddSensor(Days({0, 1, 2}), {"b"});
  for (const GapFill fill : {GapFill::None, GapFill::Linear})
  {
    ModelInput in = Sits({"a", "b"}, fill);
    in.sensors = {1, 2};
    EXPECT_THAT(MessageOf(Of({in}), scene), AllOf(HasSubstr("il2: found 3 dates that are not those of il"), HasSubstr("the same dates"), HasSubstr("\"x\"")));
  }
  ModelInput grid = OnGrid({"a", "b"}, "2021-01-01", "2021-01-02", 1);
  grid.sensors = {1, 2};
  EXPECT_EQ(MessageOf(Of({grid}), scene), "no error");
  EXPECT_EQ(MessageOf(Of({Sits({"a"}), Sits({"b"}, GapFill::None, 2)}), scene), "no error") << "two inputs, each with its own dates";
}

TEST(SeriesPreparationError, NoSeriesForAnInput)
{
  ModelContract contract = TwoSensors(GapFill::None);
  contract.sensors[0].optional = true;
  EXPECT_THAT(MessageOf(contract, Scene(1, 1)), AllOf(HasSubstr("il: found nothing"), HasSubstr("a series for the model's input \"x\"")));
}

TEST(SeriesPreparationError, AnotherNumberOfDatesThanTheModelTakes)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({0, 1, 2}), {"B"});
  ModelInput in = Sits({"B"});
  for (const Policy policy : {Policy::Fixed, Policy::Max})
  {
    in.temporal.policy = policy;
    in.temporal.length = 2;
    EXPECT_THAT(MessageOf(Of({in}), scene),
                AllOf(HasSubstr("il: found 3 dates; expected"), HasSubstr(policy == Policy::Fixed ? "2, the length" : "at most 2")));
  }
  in.temporal.policy = Policy::Fixed;
  in.temporal.length = 4;
  EXPECT_THAT(MessageOf(Of({in}), scene), HasSubstr("found 3 dates; expected 4"));
  ModelInput grid = OnGrid({"B"}, "01-01", "01-05", 2);
  grid.temporal.policy = Policy::Fixed;
  grid.temporal.length = 4;
  EXPECT_THAT(MessageOf(Of({grid}), scene), HasSubstr("found 3 dates on the grid from 01-01 to 01-05; expected 4"));
}

TEST(SeriesPreparationError, AGridThatDoesNotOverlapWithTheSeries)
{
  Scene scene(1, 1);
  scene.AddSensor(Days({10, 20}), {"B"}); // January 11th to 21st
  const auto with = [&](const char* start, const char* end) { return MessageOf(Of({OnGrid({"B"}, start, end, 5)}), scene); };
  EXPECT_THAT(with("2021-01-22", "2021-03-01"),
              AllOf(HasSubstr("il: found dates from 2021-01-11 to 2021-01-21"), HasSubstr("overlaps"), HasSubstr("2021-01-22 to 2021-03-01")));
  EXPECT_THAT(with("2020-01-22", "2021-01-10"), HasSubstr("overlaps"));
  EXPECT_THAT(with("03-01", "10-27"), HasSubstr("overlaps"));
  EXPECT_EQ(with("2021-01-21", "2021-03-01"), "no error");
  EXPECT_EQ(with("2021-01-01", "2021-01-11"), "no error");
  EXPECT_EQ(with("01-15", "10-27"), "no error");
}

} // namespace
