/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// The contract against doc/model-contract.md: the example, and one mistake after another in it (contract-mutations.json).
#include "otbDLModelContract.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>

namespace
{

using namespace otb::dl;
using Json = nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

Json Load(const std::filesystem::path& path)
{
  std::ifstream in(path);
  return Json::parse(in);
}

const Json& Example()
{
  static const Json example = Load(OTBDL_EXAMPLE);
  return example;
}

Json NamedExample(const std::string& name)
{
  return Load(std::filesystem::path(OTBDL_EXAMPLE).replace_filename(name + ".mlm.json"));
}

const Json& SeriesExample()
{
  static const Json example = NamedExample("time-series");
  return example;
}

const Json& Table()
{
  static const Json table = Load(OTBDL_MUTATIONS);
  return table;
}

void Remove(Json& contract, const Json::json_pointer& at)
{
  Json& parent = contract.at(at.parent_pointer());
  if (parent.is_array())
  {
    parent.erase(std::stoul(at.back()));
  }
  else
  {
    parent.erase(at.back());
  }
}

void Apply(Json& contract, const Json& sets)
{
  for (const auto& item : sets.items())
  {
    contract[Json::json_pointer(item.key())] = item.value();
  }
}

/** An example with the mistakes of a line of the table. */
Json Mutated(const Json& line)
{
  const std::string base = line.value("base", "example");
  Json contract = NamedExample(Table().at("examples").value(base, "change-detection"));
  Apply(contract, Table().at("bases").at(base));
  Apply(contract, line.value("set", Json::object()));
  for (const auto& at : line.value("remove", Json::array()))
  {
    Remove(contract, Json::json_pointer(at.get<std::string>()));
  }
  return contract;
}

const Json& Line(const char* list, const std::string& name)
{
  const auto& lines = Table().at(list);
  return *std::find_if(lines.begin(), lines.end(), [&](const Json& l) { return l.at("name") == name; });
}

std::vector<std::string> Names(const char* list)
{
  std::vector<std::string> names;
  for (const auto& line : Table().at(list))
  {
    names.push_back(line.at("name"));
  }
  return names;
}

std::string ReadableName(const testing::TestParamInfo<std::string>& info)
{
  return info.param;
}

std::vector<ContractError::Violation> Violations(const std::string& text)
{
  try
  {
    ModelContract::Parse(text, "test");
  }
  catch (const ContractError& e)
  {
    return e.Violations();
  }
  return {};
}

std::set<std::string> Paths(const std::vector<ContractError::Violation>& violations)
{
  std::set<std::string> paths;
  for (const auto& v : violations)
  {
    paths.insert(v.path);
  }
  return paths;
}

class ContractMistake : public testing::TestWithParam<std::string>
{
};

TEST_P(ContractMistake, IsReportedWhereItIsAndNowhereElse)
{
  const Json& line = Line("invalid", GetParam());
  const auto found = Violations(Mutated(line).dump());
  EXPECT_EQ(Paths(found), line.at("paths").get<std::set<std::string>>());
  std::string messages;
  for (const auto& v : found)
  {
    messages += v.message + "\n";
  }
  EXPECT_THAT(messages, HasSubstr(line.at("says").get<std::string>()));
}
INSTANTIATE_TEST_SUITE_P(Table, ContractMistake, testing::ValuesIn(Names("invalid")), ReadableName);

class ContractChoice : public testing::TestWithParam<std::string>
{
};

TEST_P(ContractChoice, IsAccepted)
{
  EXPECT_NO_THROW(ModelContract::Parse(Mutated(Line("valid", GetParam())).dump(), "test"));
}
INSTANTIATE_TEST_SUITE_P(Table, ContractChoice, testing::ValuesIn(Names("valid")), ReadableName);

TEST(ModelContract, ExampleHasTheValuesThatItShows)
{
  const auto c = ModelContract::Parse(Example().dump(), "example");
  EXPECT_EQ(c.id, "siamese-example");
  EXPECT_EQ(c.name, "siamese-example");
  EXPECT_EQ(c.architecture, "FC-Siam-diff");
  EXPECT_EQ(c.task, "change-detection");
  EXPECT_EQ(c.version, "1.0.0");
  EXPECT_EQ(c.temperature, 1.);
  EXPECT_EQ(c.threshold, .5);
  EXPECT_EQ(c.license, "Apache-2.0");
  EXPECT_EQ(c.trainingData, "none: an example");
  EXPECT_EQ(c.groundSampleDistance, 10.);
  EXPECT_EQ(c.tiling.patch, 128);
  EXPECT_EQ(c.tiling.multiple, 8);
  EXPECT_EQ(c.tiling.halo, 24);
  EXPECT_EQ(c.tiling.blend, Blend::Crop);
  EXPECT_THAT(c.tiling.testTimeAugmentations, ElementsAre("swap", "d4"));

  ASSERT_EQ(c.inputs.size(), 2u);
  for (int k = 0; k < 2; ++k)
  {
    const auto& in = c.inputs[k];
    EXPECT_EQ(in.name, k == 0 ? "x1" : "x2");
    EXPECT_EQ(in.role, "image");
    EXPECT_EQ(in.date, k + 1);
    EXPECT_THAT(in.bands, ElementsAre("B02", "B03", "B04", "B08"));
    ASSERT_EQ(in.scaling.size(), 4u);
    EXPECT_EQ(in.scaling[2].offset, 1552.);
    EXPECT_EQ(in.scaling[2].divisor, 1888.);
    EXPECT_TRUE(std::isinf(in.scaling[2].low) && std::isinf(in.scaling[2].high));
    EXPECT_EQ(in.noData, 0.);
    EXPECT_EQ(in.noDataRule, NoDataRule::All);
    EXPECT_EQ(in.noDataFill, 0.f);
  }
  ASSERT_EQ(c.outputs.size(), 1u);
  EXPECT_EQ(c.outputs[0].name, "change");
  EXPECT_EQ(c.outputs[0].role, "change_logits");
  EXPECT_EQ(c.outputs[0].channels, 1);
  ASSERT_EQ(c.outputs[0].classes.size(), 2u);
  EXPECT_EQ(c.outputs[0].classes[1].value, 1);
  EXPECT_EQ(c.outputs[0].classes[1].name, "change");
  EXPECT_EQ(c.outputs[0].classes[1].colour, "E03C31");
}

TEST(ModelContract, FieldsLeftOutHaveTheirDefaults)
{
  Json contract = Example();
  for (const char* at :
       {"/properties/otb:tiling/multiple", "/properties/otb:tiling/blend", "/properties/otb:tiling/tta", "/properties/otb:calibration",
        "/properties/otb:method", "/properties/otb:provenance/gsd_m", "/properties/mlm:input/0/otb:nodata", "/properties/mlm:input/0/otb:nodata_fill"})
  {
    Remove(contract, Json::json_pointer(at));
  }
  const auto c = ModelContract::Parse(contract.dump(), "test");
  EXPECT_EQ(c.tiling.multiple, 1);
  EXPECT_EQ(c.tiling.blend, Blend::Crop);
  EXPECT_TRUE(c.tiling.testTimeAugmentations.empty());
  EXPECT_EQ(c.temperature, 1.);
  EXPECT_EQ(c.threshold, .5);
  EXPECT_FALSE(c.groundSampleDistance);
  EXPECT_FALSE(c.inputs[0].noData);
  EXPECT_EQ(c.inputs[0].noDataRule, NoDataRule::All);
  EXPECT_EQ(c.inputs[0].noDataFill, 0.f);
  EXPECT_EQ(c.inputs[0].name, "x1");
}

TEST(ModelContract, FieldsGivenAreKept)
{
  Json contract = Example();
  Apply(contract, {{"/properties/otb:calibration", {{"temperature", 2.5}, {"threshold", .25}}},
                   {"/properties/otb:tiling/blend", "hann"},
                   {"/properties/mlm:input/1/otb:nodata", -9999},
                   {"/properties/mlm:input/1/otb:nodata_rule", "any"},
                   {"/properties/mlm:input/1/otb:nodata_fill", -.5}});
  const auto c = ModelContract::Parse(contract.dump(), "test");
  EXPECT_EQ(c.temperature, 2.5);
  EXPECT_EQ(c.threshold, .25);
  EXPECT_EQ(c.tiling.blend, Blend::Hann);
  EXPECT_EQ(c.inputs[1].noData, -9999.);
  EXPECT_EQ(c.inputs[1].noDataRule, NoDataRule::Any);
  EXPECT_EQ(c.inputs[1].noDataFill, -.5f);
  EXPECT_EQ(c.inputs[0].noDataRule, NoDataRule::All);
  EXPECT_STREQ(ToString(c.tiling.blend), "hann");
  EXPECT_STREQ(ToString(Blend::Crop), "crop");
}

TEST(ModelContract, ForwardOrderIsTheOrderOfTheInputs)
{
  Json contract = Example();
  contract["properties"]["otb:method"]["forward"] = {"x2", "x1"};
  const auto c = ModelContract::Parse(contract.dump(), "test");
  ASSERT_EQ(c.inputs.size(), 2u);
  EXPECT_EQ(c.inputs[0].name, "x2");
  EXPECT_EQ(c.inputs[0].date, 2);
  EXPECT_EQ(c.inputs[1].name, "x1");
  EXPECT_EQ(c.inputs[1].date, 1);
}

TEST(ModelContract, OutputsAreFoundByRole)
{
  const auto c = ModelContract::Parse(Mutated({{"base", "semantic"}}).dump(), "test");
  ASSERT_NE(c.FindOutput("sem2_logits"), nullptr);
  EXPECT_EQ(c.FindOutput("sem2_logits")->name, "s2");
  EXPECT_EQ(c.FindOutput("sem2_logits")->channels, 2);
  EXPECT_EQ(c.FindOutput("transition_logits"), nullptr);
}

TEST(ModelContract, BandObjectsGiveTheirNames)
{
  Json contract = Example();
  contract["properties"]["mlm:input"][0]["bands"] = {"B02", {{"name", "green"}}, {{"name", "red"}}, "B08"};
  EXPECT_THAT(ModelContract::Parse(contract.dump(), "test").inputs[0].bands, ElementsAre("B02", "green", "red", "B08"));
}

/** Scaling of the first band of the first input. */
std::vector<BandScaling> Scalings(const Json& list)
{
  Json contract = Example();
  contract["properties"]["mlm:input"][0]["value_scaling"] = list;
  return ModelContract::Parse(contract.dump(), "test").inputs[0].scaling;
}

TEST(ModelContract, EveryScalingReducesToClipOffsetAndDivisor)
{
  constexpr double inf = std::numeric_limits<double>::infinity();
  const struct
  {
    Json scaling;
    double low, high, offset, divisor;
  } cases[] = {
      {{{"type", "min-max"}, {"minimum", 100}, {"maximum", 350}}, -inf, inf, 100., 250.},
      {{{"type", "z-score"}, {"mean", 5.5}, {"stddev", 2}}, -inf, inf, 5.5, 2.},
      {{{"type", "clip"}, {"minimum", -1}, {"maximum", 3}}, -1., 3., 0., 1.},
      {{{"type", "clip-min"}, {"minimum", 7}}, 7., inf, 0., 1.},
      {{{"type", "clip-max"}, {"maximum", 7}}, -inf, 7., 0., 1.},
      {{{"type", "offset"}, {"value", 12}}, -inf, inf, 12., 1.},
      {{{"type", "scale"}, {"value", 10000}}, -inf, inf, 0., 10000.},
  };
  for (const auto& c : cases)
  {
    const auto s = Scalings(Json::array({c.scaling})).at(0);
    EXPECT_EQ(s.low, c.low) << c.scaling;
    EXPECT_EQ(s.high, c.high) << c.scaling;
    EXPECT_EQ(s.offset, c.offset) << c.scaling;
    EXPECT_EQ(s.divisor, c.divisor) << c.scaling;
  }
}

TEST(ModelContract, OneScalingHoldsForAllBands)
{
  const auto scalings = Scalings(Json::array({{{"type", "offset"}, {"value", 3}}}));
  ASSERT_EQ(scalings.size(), 4u);
  for (const auto& s : scalings)
  {
    EXPECT_EQ(s.offset, 3.);
  }
}

TEST(ModelContract, NullOrNoScalingLeavesRawValues)
{
  for (const Json& list : {Json(nullptr), Json::array()})
  {
    const auto scalings = Scalings(list);
    ASSERT_EQ(scalings.size(), 4u);
    for (const auto& s : scalings)
    {
      EXPECT_EQ(s.offset, 0.);
      EXPECT_EQ(s.divisor, 1.);
      EXPECT_TRUE(std::isinf(s.low) && std::isinf(s.high));
    }
  }
}

TEST(SeriesContract, ExampleHasTheValuesThatItShows)
{
  const auto c = ModelContract::Parse(SeriesExample().dump(), "example");
  EXPECT_EQ(c.task, "time-series-classification");
  EXPECT_EQ(c.tiling.unit, SpatialUnit::Pixel);
  EXPECT_EQ(c.tiling.window, 5);
  ASSERT_EQ(c.sensors.size(), 2u);
  EXPECT_EQ(c.sensors[0].name, "Sentinel-2");
  EXPECT_FALSE(c.sensors[0].optional);
  EXPECT_TRUE(c.sensors[1].optional);
  ASSERT_EQ(c.inputs.size(), 4u);
  ASSERT_EQ(c.outputs.size(), 4u);
  EXPECT_EQ(c.outputs[0].channels, 3);
  EXPECT_EQ(c.outputs[3].channels, 64);
}

TEST(SeriesContract, SeriesOfTheExampleIsRead)
{
  const auto in = ModelContract::Parse(SeriesExample().dump(), "example").inputs[0];
  EXPECT_EQ(in.role, "sits");
  EXPECT_THAT(in.axes, ElementsAre(Axis::Batch, Axis::Time, Axis::Bands, Axis::Height, Axis::Width));
  EXPECT_THAT(in.bands, ElementsAre("B02", "B03", "B04", "B08", "NDVI"));
  EXPECT_THAT(in.sensors, ElementsAre(1, 1, 1, 1, -1));
  ASSERT_EQ(in.derived.size(), 1u);
  EXPECT_EQ(in.derived[0].band, 4);
  EXPECT_EQ(in.derived[0].a, 3);
  EXPECT_EQ(in.derived[0].b, 2);
  EXPECT_EQ(in.scaling.size(), 5u);
  EXPECT_EQ(in.noData, 0.);
  EXPECT_EQ(in.temporal.policy, TemporalSpec::Policy::Fixed);
  EXPECT_EQ(in.temporal.length, 25);
  EXPECT_EQ(in.steps, 25);
  EXPECT_EQ(in.temporal.gapFill, TemporalSpec::GapFill::Grid);
  EXPECT_EQ(in.temporal.gridStart, "03-01");
  EXPECT_EQ(in.temporal.gridEnd, "10-27");
  EXPECT_EQ(in.temporal.gridStep, 10);
  EXPECT_EQ(in.of, -1);
}

TEST(SeriesContract, DatesAndMasksOfTheExampleAreRead)
{
  const auto c = ModelContract::Parse(SeriesExample().dump(), "example");
  EXPECT_EQ(c.inputs[1].of, 0);
  EXPECT_EQ(c.inputs[1].steps, 25);
  EXPECT_EQ(c.inputs[1].type, ElementType::Int64);
  EXPECT_EQ(c.inputs[1].encoding.kind, DateEncoding::Kind::DayOfYear);
  EXPECT_THAT(c.inputs[1].axes, ElementsAre(Axis::Batch, Axis::Time));
  EXPECT_EQ(c.inputs[3].of, 2);
  EXPECT_EQ(c.inputs[3].steps, 40);
  EXPECT_EQ(c.inputs[3].type, ElementType::Float32);
  EXPECT_FALSE(c.inputs[3].maskedIsOne);
  EXPECT_TRUE(c.inputs[3].bands.empty()); // named for MLM's sake
  EXPECT_EQ(c.inputs[3].axes, c.inputs[2].axes);
}

TEST(SeriesContract, PaddingIsRead)
{
  Json contract = SeriesExample();
  Json& temporal = contract["properties"]["mlm:input"][2]["otb:temporal"];
  temporal["pad_side"] = "start";
  temporal["pad_value"] = -2.5;
  contract["properties"]["mlm:input"][1]["otb:encoding"]["pad_value"] = -1;
  const auto c = ModelContract::Parse(contract.dump(), "test");
  EXPECT_EQ(c.inputs[2].temporal.policy, TemporalSpec::Policy::Max);
  EXPECT_TRUE(c.inputs[2].temporal.padAtStart);
  EXPECT_EQ(c.inputs[2].temporal.padValue, -2.5f);
  EXPECT_FALSE(c.inputs[0].temporal.padAtStart);
  EXPECT_EQ(c.inputs[1].encoding.padValue, -1.f);
}

TEST(SeriesContract, InputsOfSinglePixelsAreRead)
{
  const auto c = ModelContract::Parse(Mutated({{"base", "series_pixel"}}).dump(), "test");
  EXPECT_EQ(c.tiling.window, 1);
  const auto& in = c.inputs[1];
  EXPECT_THAT(in.axes, ElementsAre(Axis::Batch, Axis::Bands, Axis::Time));
  EXPECT_THAT(in.sensors, ElementsAre(1, 2, 0, -1));
  EXPECT_EQ(in.temporal.policy, TemporalSpec::Policy::Any);
  EXPECT_EQ(in.temporal.gridStart, "2020-02-28");
  EXPECT_EQ(in.steps, 0);
  EXPECT_EQ(c.inputs[2].encoding.kind, DateEncoding::Kind::DaysSince);
  EXPECT_EQ(c.inputs[2].encoding.reference, "2000-02-29");
  EXPECT_EQ(c.inputs[5].type, ElementType::UInt8);
  EXPECT_EQ(c.inputs[0].role, "static");
  EXPECT_EQ(c.inputs[0].scaling.at(1).divisor, 1000.);
  EXPECT_EQ(c.inputs[0].noData, -9999.);
}

TEST(SeriesContract, BelongingFollowsTheOrderOfForward)
{
  const auto c = ModelContract::Parse(Mutated({{"base", "series_pixel"}}).dump(), "test");
  const std::pair<const char*, int> wanted[] = {{"dem", -1}, {"x", -1}, {"days", 1}, {"where", -1}, {"month", 1}, {"mask", 1}};
  ASSERT_EQ(c.inputs.size(), 6u);
  for (std::size_t k = 0; k < 6; ++k)
  {
    EXPECT_EQ(c.inputs[k].name, wanted[k].first);
    EXPECT_EQ(c.inputs[k].of, wanted[k].second) << c.inputs[k].name;
  }
}

TEST(SeriesContract, MasksOfTheDatesOfPatchesAreRead)
{
  const auto c = ModelContract::Parse(Mutated({{"base", "series_patch"}}).dump(), "test");
  EXPECT_EQ(c.tiling.unit, SpatialUnit::Patch);
  EXPECT_EQ(c.tiling.patch, 32);
  EXPECT_EQ(c.inputs[3].minValid, .5);
  EXPECT_TRUE(c.inputs[3].maskedIsOne);
  EXPECT_EQ(c.inputs[3].type, ElementType::Bool);
  EXPECT_FALSE(c.inputs[3].Has(Axis::Height));
  EXPECT_FALSE(c.inputs[3].Has(Axis::Bands));
  EXPECT_TRUE(c.inputs[3].Has(Axis::Time));
}

TEST(SeriesContract, SensorsNeedNoNames)
{
  const auto c = ModelContract::Parse(Mutated(Line("valid", "sensors_not_named")).dump(), "test");
  EXPECT_TRUE(c.sensors.empty());
  EXPECT_THAT(c.inputs[2].sensors, ElementsAre(2, 2));
}

TEST(SeriesContract, AuxiliaryOutputsHaveAnyChannels)
{
  const auto c = ModelContract::Parse(Mutated(Line("valid", "aux_of_any_axes")).dump(), "test");
  EXPECT_EQ(c.outputs[1].channels, 0);
}

TEST(SeriesContract, ImagesHaveTheirAxesAndNoSeries)
{
  const auto in = ModelContract::Parse(Example().dump(), "test").inputs[0];
  EXPECT_THAT(in.axes, ElementsAre(Axis::Batch, Axis::Bands, Axis::Height, Axis::Width));
  EXPECT_FALSE(in.Has(Axis::Time));
  EXPECT_EQ(in.steps, 0);
  EXPECT_TRUE(in.sensors.empty());
}

TEST(SeriesContract, DaysOfTheCalendarAreKnown)
{
  const auto accepted = [](const std::string& day)
  {
    Json contract = Mutated({{"base", "series_pixel"}});
    contract["properties"]["mlm:input"][1]["otb:encoding"]["reference"] = day;
    return Violations(contract.dump()).empty();
  };
  for (const char* good : {"2000-02-29", "2024-02-29", "2023-02-28", "1900-01-01", "2199-12-31", "2021-04-30"})
  {
    EXPECT_TRUE(accepted(good)) << good;
  }
  for (const char* bad : {"1900-02-29", "2023-02-29", "2021-04-31", "2021-00-01", "2021-13-01", "2021-01-00", "2021-01-32", "0000-01-01", "1899-12-31",
                          "2200-01-01", "2021-1-01", "21-01-01", "2021/01/01", "2021-01-01T00", " 2021-01-01", "2021-01-01\n", "-021-01-01"})
  {
    EXPECT_FALSE(accepted(bad)) << bad;
  }
}

/** Of a fixed series on a grid, the numbers of steps that are accepted. */
std::set<int> AcceptedLengths(const char* start, const char* end, int step)
{
  std::set<int> lengths;
  for (int length = 1; length <= 400; ++length)
  {
    Json contract = SeriesExample();
    Json& inputs = contract["properties"]["mlm:input"];
    inputs[0]["otb:temporal"] = {{"policy", "fixed"}, {"length", length}, {"gapfill", "grid"}, {"grid", {{"start", start}, {"end", end}, {"step", step}}}};
    inputs[0]["input"]["shape"][1] = length;
    inputs[1]["input"]["shape"][1] = length;
    if (Violations(contract.dump()).empty())
    {
      lengths.insert(length);
    }
  }
  return lengths;
}

TEST(SeriesContract, AGridHasAsManyDatesAsItsSteps)
{
  EXPECT_THAT(AcceptedLengths("2019-12-31", "2020-12-31", 1), ElementsAre(367));
  EXPECT_THAT(AcceptedLengths("2021-01-01", "2021-12-31", 10), ElementsAre(37));
  EXPECT_THAT(AcceptedLengths("2021-01-01", "2021-01-01", 10), ElementsAre(1));
}

TEST(SeriesContract, AYearlyGridMayHaveALeapDayInIt)
{
  EXPECT_THAT(AcceptedLengths("01-01", "12-31", 1), ElementsAre(365));
  EXPECT_THAT(AcceptedLengths("11-01", "03-01", 30), ElementsAre(5));
}

ModelContract Likelihood(const char* base, const Json& sets = Json::object())
{
  return ModelContract::Parse(Mutated({{"base", base}, {"set", sets}}).dump(), base);
}

TEST(LikelihoodContract, ExampleHasTheValuesThatItShows)
{
  const auto c = Likelihood("likelihood");
  EXPECT_EQ(c.task, "change-likelihood");
  EXPECT_EQ(c.tiling.blend, Blend::Hann);
  ASSERT_TRUE(c.generative);
  EXPECT_FALSE(c.masked || c.ratio || c.featuresOnly);
  EXPECT_TRUE(c.methods.empty());
  EXPECT_EQ(c.generative->kind, FieldKind::Velocity);
  EXPECT_EQ(c.generative->noise.schedule, NoiseSpec::Schedule::FlowLinear);
  EXPECT_EQ(c.generative->time, TimeArgument::Continuous);
  EXPECT_EQ(c.generative->dataAt, 1.);
  EXPECT_EQ(c.generative->logSnrLow, -6.);
  EXPECT_EQ(c.generative->logSnrHigh, 8.);
  EXPECT_FALSE(c.generative->dequantise || c.generative->predictsVariance);
  EXPECT_EQ(c.generative->null, NullCondition::Flag);
  EXPECT_EQ(c.generative->tag, 0u);
  ASSERT_EQ(c.inputs.size(), 4u);
  const char* const roles[] = {"image", "diffusion_time", "condition", "condition_flag"};
  for (std::size_t k = 0; k < 4; ++k)
  {
    EXPECT_EQ(c.inputs[k].role, roles[k]);
    EXPECT_EQ(c.inputs[k].bands.size(), k % 2 == 0 ? 4u : 0u);
    EXPECT_EQ(c.inputs[k].scaling.size(), k % 2 == 0 ? 4u : 0u);
    EXPECT_EQ(c.inputs[k].date, 0);
    EXPECT_EQ(c.inputs[k].channels, 0);
    EXPECT_TRUE(c.inputs[k].argument);
    EXPECT_EQ(c.inputs[k].axes.size(), k % 2 == 0 ? 4u : 1u);
  }
  EXPECT_EQ(c.inputs[2].noData, 0.);
  ASSERT_EQ(c.outputs.size(), 1u);
  EXPECT_EQ(c.outputs[0].role, "velocity");
  EXPECT_EQ(c.outputs[0].channels, 4);
}

TEST(LikelihoodContract, FieldsGivenAreKept)
{
  const auto c = Likelihood("diffusion");
  const GenerativeSpec& g = *c.generative;
  EXPECT_EQ(g.kind, FieldKind::Epsilon);
  EXPECT_EQ(g.noise.schedule, NoiseSpec::Schedule::ScaledLinear);
  EXPECT_EQ(g.noise.betaStart, .00085);
  EXPECT_EQ(g.noise.betaEnd, .012);
  EXPECT_EQ(g.noise.steps, 1000);
  EXPECT_EQ(g.time, TimeArgument::DiscreteIndex);
  EXPECT_TRUE(g.predictsVariance);
  EXPECT_EQ(g.null, NullCondition::None);
  EXPECT_EQ(g.tag, 4294967295u);
  EXPECT_EQ(c.inputs[1].type, ElementType::Int64);
  EXPECT_EQ(c.outputs[0].channels, 4);
  ASSERT_NE(c.FindMethod("features"), nullptr);
  EXPECT_EQ(c.FindMethod("features")->channels, 16);
  EXPECT_EQ(c.FindMethod("features")->scale, 2);
  EXPECT_NE(c.FindMethod("div"), nullptr);
  EXPECT_EQ(c.FindMethod("encode"), nullptr);
}

TEST(LikelihoodContract, EveryWordOfAGenerativeModelIsRead)
{
  using Schedule = NoiseSpec::Schedule;
  const std::pair<const char*, FieldKind> kinds[] = {{"velocity", FieldKind::Velocity},
                                                     {"epsilon", FieldKind::Epsilon},
                                                     {"x0", FieldKind::X0},
                                                     {"v_diffusion", FieldKind::VDiffusion},
                                                     {"score", FieldKind::Score}};
  for (const auto& [word, kind] : kinds)
  {
    const auto c = Likelihood("diffusion", {{"/properties/otb:generative/kind", word}, {"/properties/mlm:output/0/otb:role", word}});
    EXPECT_EQ(c.generative->kind, kind) << word;
  }
  const std::pair<const char*, Schedule> names[] = {
      {"fm_linear", Schedule::FlowLinear}, {"linear_beta", Schedule::LinearBeta}, {"scaled_linear", Schedule::ScaledLinear}, {"cosine", Schedule::Cosine}};
  for (const auto& [word, schedule] : names)
  {
    const auto c = Likelihood("likelihood", {{"/properties/otb:generative/schedule", word}});
    EXPECT_EQ(c.generative->noise.schedule, schedule) << word;
  }
  const auto edm = Likelihood("likelihood", {{"/properties/otb:generative", {{"kind", "edm"}, {"schedule", "edm"}, {"time", "sigma"}, {"dequantize", true}}},
                                             {"/properties/mlm:output/0/otb:role", "edm"}});
  EXPECT_EQ(edm.generative->kind, FieldKind::Edm);
  EXPECT_EQ(edm.generative->noise.schedule, Schedule::Edm);
  EXPECT_EQ(edm.generative->time, TimeArgument::Sigma);
  EXPECT_TRUE(edm.generative->dequantise);
  const auto table = Likelihood("diffusion", {{"/properties/otb:generative/schedule", {{"type", "table"}, {"alphas_cumprod", {.99, .5, .01}}}},
                                              {"/properties/otb:generative/logsnr_range", {-2, 2.5}}});
  EXPECT_EQ(table.generative->noise.schedule, Schedule::Table);
  EXPECT_THAT(table.generative->noise.alphasCumprod, ElementsAre(.99, .5, .01));
  EXPECT_EQ(table.generative->noise.steps, 3);
  EXPECT_EQ(table.generative->logSnrLow, -2.);
  EXPECT_EQ(table.generative->logSnrHigh, 2.5);
  const auto reversed = Likelihood("likelihood", {{"/properties/otb:generative/data_at", 0}});
  EXPECT_EQ(reversed.generative->dataAt, 0.);
}

TEST(LikelihoodContract, LatentModelsTakeWhatEncodeGives)
{
  const auto c = Likelihood("latent", {{"/properties/otb:method", {{"forward", {"t", "z", "c"}}}}});
  EXPECT_EQ(c.generative->null, NullCondition::Zeros);
  EXPECT_EQ(c.generative->time, TimeArgument::LogSnr);
  EXPECT_EQ(c.generative->noise.steps, 50);
  EXPECT_EQ(c.generative->noise.cosineOffset, .01);
  ASSERT_EQ(c.inputs.size(), 4u);
  const char* const roles[] = {"diffusion_time", "latent", "condition_latent", "image"};
  for (std::size_t k = 0; k < 4; ++k)
  {
    EXPECT_EQ(c.inputs[k].role, roles[k]);
    EXPECT_EQ(c.inputs[k].argument, k < 3);
    const bool latent = k == 1 || k == 2;
    EXPECT_EQ(c.inputs[k].channels, latent ? 3 : 0);
    EXPECT_EQ(c.inputs[k].scale, latent ? 4 : 1);
  }
  EXPECT_EQ(c.inputs[3].bands.size(), 2u);
  ASSERT_EQ(c.outputs.size(), 2u);
  EXPECT_EQ(c.outputs[0].channels, 3);
  EXPECT_EQ(c.outputs[0].scale, 4);
  EXPECT_EQ(c.FindMethod("decode")->channels, 2);
}

TEST(LikelihoodContract, TheOtherKindsAreRead)
{
  const auto masked = Likelihood("masked");
  ASSERT_TRUE(masked.masked && !masked.generative && !masked.ratio && !masked.featuresOnly);
  EXPECT_EQ(masked.masked->patch, 8);
  EXPECT_EQ(masked.masked->groups, 4);
  EXPECT_TRUE(masked.masked->normalised);
  EXPECT_EQ(masked.inputs[1].role, "token_mask");
  EXPECT_EQ(masked.inputs[1].channels, 1);

  const auto ratio = Likelihood("ratio", {{"/properties/otb:ratio", {{"weight", .25}, {"smooth", 0}}}});
  ASSERT_TRUE(ratio.ratio && !ratio.generative && !ratio.masked && !ratio.featuresOnly);
  EXPECT_EQ(ratio.ratio->weight, .25);
  EXPECT_EQ(ratio.ratio->smooth, 0.);
  EXPECT_THAT(ratio.inputs[0].bands, ElementsAre("r", "g"));
  EXPECT_EQ(ratio.inputs[0].channels, 8);
  ASSERT_EQ(ratio.inputs[0].scaling.size(), 2u);
  EXPECT_EQ(ratio.inputs[0].scaling[1].divisor, 1.);

  const auto features = Likelihood("features");
  EXPECT_TRUE(features.featuresOnly && !features.generative && !features.masked && !features.ratio);
  EXPECT_EQ(features.FindOutput("features")->channels, 5);
}

TEST(ModelContract, TheMessageNamesTheOriginAndEveryViolation)
{
  const Json& line = Line("invalid", "several_at_once");
  try
  {
    ModelContract::Parse(Mutated(line).dump(), "change.mlm.json");
    FAIL() << "it was accepted";
  }
  catch (const ContractError& e)
  {
    EXPECT_THAT(e.what(), HasSubstr("change.mlm.json"));
    EXPECT_THAT(e.what(), HasSubstr("7 violations"));
    for (const auto& path : line.at("paths"))
    {
      EXPECT_THAT(e.what(), HasSubstr("\n  " + path.get<std::string>() + ": "));
    }
  }
}

TEST(ModelContract, TextThatIsNoJsonObjectIsOneViolation)
{
  const std::string deep(200000, '[');
  const std::pair<std::string, const char*> cases[] = {{"", "not JSON"},
                                                       {"{", "not JSON"},
                                                       {"weights", "not JSON"},
                                                       {"[]", "must be a JSON object"},
                                                       {"null", "must be a JSON object"},
                                                       {"3", "must be a JSON"},
                                                       {"{\"id\": NaN}", "not JSON"},
                                                       {"{\"id\": 1e999}", "not JSON"},
                                                       {"{\"id\": \"\xff\"}", "not JSON"},
                                                       {deep, "nested"},
                                                       {"{\"id\": " + deep, "nested"}};
  for (const auto& c : cases)
  {
    const auto found = Violations(c.first);
    ASSERT_EQ(found.size(), 1u) << c.first.substr(0, 20);
    EXPECT_EQ(found[0].path, "/");
    EXPECT_THAT(found[0].message, HasSubstr(c.second)) << c.first.substr(0, 20);
  }
}

TEST(ModelContract, AFieldGivenTwiceIsRefused)
{
  std::string text = Example().dump();
  const auto at = text.find("\"halo\":24");
  ASSERT_NE(at, std::string::npos);
  text.insert(at, "\"halo\":8,");
  const auto found = Violations(text);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_THAT(found[0].message, HasSubstr("\"halo\" twice"));
}

TEST(ModelContract, AByteOrderMarkIsNoMistake)
{
  EXPECT_NO_THROW(ModelContract::Parse("\xEF\xBB\xBF" + Example().dump(), "test"));
}

TEST(ModelContract, VersionsAreThoseOfSemver)
{
  const auto accepted = [](const std::string& version)
  {
    Json contract = Example();
    contract["properties"]["otb:version"] = version;
    return Violations(contract.dump()).empty();
  };
  for (const char* good : {"1.0.0", "1.10.200", "1.0.0-rc.1", "1.0.0-a-b", "1.0.0+build.5", "1.0.0-rc.1+b-1"})
  {
    EXPECT_TRUE(accepted(good)) << good;
  }
  for (const char* bad : {"1",      "1.",        "1.0",       "1.0.",   "1.0.0.", "1.0.0.0", "1.01.0", "1.0.00", "1..0",   "1.a.0",          "1.0.0-",
                          "1.0.0+", "1.0.0-rc+", "1.0.0+a+b", "1.0.0 ", " 1.0.0", "v1.0.0",  "0.9.0",  "2.0.0",  "11.0.0", "1.0.0-\xC3\xA9", "1.0.0_1"})
  {
    EXPECT_FALSE(accepted(bad)) << bad;
  }
}

TEST(ModelContract, ManyClassesDoNotOverflow)
{
  Json contract = Mutated({{"base", "transition"}});
  Json& classes = contract["properties"]["mlm:output"][0]["classification:classes"];
  classes.clear();
  for (int k = 0; k < 70000; ++k)
  {
    classes.push_back({{"value", k}, {"name", std::to_string(k)}});
  }
  const auto found = Violations(contract.dump());
  ASSERT_EQ(found.size(), 1u);
  EXPECT_THAT(found[0].message, HasSubstr("4900000001"));
}

/** Any JSON, with what is hard to read among it. */
Json Anything(std::mt19937& random)
{
  static const std::vector<Json> values = {nullptr,
                                           true,
                                           false,
                                           0,
                                           1,
                                           -1,
                                           2,
                                           7,
                                           1000001,
                                           std::numeric_limits<std::int64_t>::min(),
                                           std::numeric_limits<std::uint64_t>::max(),
                                           .5,
                                           -0.,
                                           1e308,
                                           -1e308,
                                           5e-324,
                                           "",
                                           "image",
                                           "hann",
                                           "x1",
                                           "transition_logits",
                                           "processing",
                                           "sits",
                                           "pixel",
                                           "any",
                                           "2020-02-29",
                                           {"batch", "time"},
                                           {{"policy", "any"}, {"gapfill", "none"}},
                                           std::string(100000, 'a'),
                                           "\xC3\xA9t\xC3\xA9",
                                           Json::array(),
                                           {nullptr},
                                           {1, "a"},
                                           {-1, 4, 128, 128},
                                           Json::object(),
                                           {{"", 1}},
                                           {{"name", nullptr}},
                                           {{"otb:role", "image"}},
                                           {{"type", "clip"}, {"minimum", "a"}},
                                           {{"/~", {{"otb:~/", 1}}}}};
  return values[random() % values.size()];
}

/** Deletes or replaces one node of a document. */
void Damage(Json& contract, std::mt19937& random)
{
  const Json flat = contract.flatten();
  if (!flat.is_object() || flat.empty())
  {
    return;
  }
  auto leaf = flat.begin();
  std::advance(leaf, random() % flat.size());
  Json::json_pointer at(leaf.key());
  while (random() % 3 == 0 && !at.parent_pointer().empty())
  {
    at.pop_back();
  }
  if (at.empty() || !contract.contains(at))
  {
    return;
  }
  if (random() % 3 == 0)
  {
    Remove(contract, at);
  }
  else
  {
    contract[at] = Anything(random);
  }
}

/** Parses; anything but a ContractError with violations that have places goes through.
 * \return whether it was accepted */
bool Accepted(const std::string& text)
{
  try
  {
    ModelContract::Parse(text, "test");
    return true;
  }
  catch (const ContractError& e)
  {
    EXPECT_FALSE(e.Violations().empty());
    for (const auto& v : e.Violations())
    {
      EXPECT_EQ(v.path.substr(0, 1), "/");
      EXPECT_FALSE(v.message.empty());
    }
    return false;
  }
}

TEST(ModelContract, DamagedContractsGiveViolationsAndNothingElse)
{
  std::mt19937 random(20260101);
  std::vector<std::string> bases;
  for (const auto& base : Table().at("bases").items())
  {
    bases.push_back(base.key());
  }
  int accepted = 0;
  constexpr int trials = 4000;
  for (int trial = 0; trial < trials; ++trial)
  {
    Json contract = Mutated({{"base", bases[trial % bases.size()]}});
    for (int k = 0; k <= trial % 3; ++k)
    {
      Damage(contract, random);
    }
    accepted += Accepted(contract.dump());
  }
  EXPECT_GT(accepted, 0);
  EXPECT_LT(accepted, trials * 3 / 4);
}

TEST(ModelContract, DamagedTextGivesViolationsAndNothingElse)
{
  std::mt19937 random(20260102);
  const std::string whole = Example().dump();
  int accepted = 0;
  for (int trial = 0; trial < 2000; ++trial)
  {
    std::string text = whole;
    if (trial % 4 == 0)
    {
      text.resize(random() % text.size());
    }
    else
    {
      text[random() % text.size()] = static_cast<char>(random());
    }
    accepted += Accepted(text);
  }
  EXPECT_LT(accepted, 1000);
}

} // namespace
