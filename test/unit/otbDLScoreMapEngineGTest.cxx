/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// From planes of scores to maps: against sums written out, known distributions and counts.
#include "otbDLError.h"
#include "otbDLMemoryScene.h"
#include "otbDLScoreMapEngine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

namespace
{

using namespace otb::dl;
using namespace otbtest;
using Json = nlohmann::json;

/** Scores that are known. */
class KnownScore : public SceneScore
{
public:
  KnownScore(std::int64_t w, std::int64_t h, otbtest::Planes values) : width(w), height(h), planes(std::move(values)) {}
  int Planes() const override { return int(planes.size()); }
  void Fit(const Progress& progress) override
  {
    ++fits;
    progress(.5);
    progress(1.);
  }
  std::string SaveFit() const override { return learnt; }
  void LoadFit(const std::string& json) override
  {
    if (json != learnt)
    {
      throw Error("another fit");
    }
    ++loads;
  }
  void Score(const Region& region, const std::vector<float*>& out, const Progress& progress) override
  {
    EXPECT_EQ(Intersection(region, Region{0, 0, width, height}), region);
    for (std::size_t k = 0; k < planes.size(); ++k)
    {
      for (std::int64_t i = 0; i < region.Area(); ++i)
      {
        out[k][i] = planes[k][(region.y0 + i / region.Width()) * width + region.x0 + i % region.Width()];
      }
    }
    scored += region.Area();
    progress(1.);
  }

  std::int64_t width, height, scored = 0;
  otbtest::Planes planes;
  std::string learnt = "{\"method\":\"known\"}";
  int fits = 0, loads = 0;
};

otbtest::Planes Gaussian(std::int64_t width, std::int64_t height, int count, double mean = 0., double deviation = 1.)
{
  otbtest::Planes planes;
  for (int k = 0; k < count; ++k)
  {
    planes.emplace_back();
    for (std::int64_t i = 0; i < width * height; ++i)
    {
      planes.back().push_back(float(mean + deviation * Noise(i % width, i / width, k, 20)));
    }
  }
  return planes;
}

ScoreGroup Group(std::vector<int> forward, std::vector<int> backward = {}, double weight = 1., bool standardise = false)
{
  ScoreGroup group;
  group.forward = std::move(forward);
  group.backward = std::move(backward);
  group.weight = weight;
  group.standardise = standardise;
  return group;
}

ScoreSettings Settings(std::vector<ScoreGroup> groups, double smooth = 0.)
{
  ScoreSettings s;
  s.groups = std::move(groups);
  s.smooth = smooth;
  s.results = {ScoreResult::Score, ScoreResult::PValue, ScoreResult::Change, ScoreResult::Which};
  s.description = "{\"of\":\"a test\"}";
  return s;
}

/** An engine over known planes. */
struct Bench
{
  Bench(std::int64_t w, std::int64_t h, otbtest::Planes planes, ScoreSettings settings) : width(w), height(h), results(settings.results)
  {
    score = std::make_shared<KnownScore>(w, h, std::move(planes));
    EngineSettings e;
    e.spillDirectory = testing::TempDir();
    engine = std::make_unique<ScoreMapEngine>(score, w, h, std::move(settings), e);
  }
  otbtest::Planes Make(const Region& region, const MapEngine::Progress& progress = {})
  {
    otbtest::Planes maps(results.size(), std::vector<float>(std::size_t(region.Area()), -77.f));
    std::vector<ResultPlane> out;
    for (auto& map : maps)
    {
      out.push_back({map.data(), 1, region.Width()});
    }
    engine->Produce(region, out, progress);
    return maps;
  }
  otbtest::Planes All() { return Make({0, 0, width, height}); }

  std::int64_t width, height;
  std::vector<ScoreResult> results;
  std::shared_ptr<KnownScore> score;
  std::unique_ptr<ScoreMapEngine> engine;
};

/** Smoothed by the definition; sigma 0: as it is. */
std::vector<double> Smoothed(const std::vector<float>& plane, std::int64_t width, std::int64_t height, double sigma)
{
  const int r = int(std::lround(3. * sigma));
  std::vector<double> out;
  for (std::int64_t i = 0; i < width * height; ++i)
  {
    double sum = 0., weights = 0.;
    for (int v = -r; v <= r; ++v)
    {
      for (int u = -r; u <= r; ++u)
      {
        const float value = plane[Mirror(i / width + v, height) * width + Mirror(i % width + u, width)];
        const double w = std::isnan(value) ? 0. : sigma > 0. ? std::exp(-.5 * (u * u + v * v) / sigma / sigma) : 1.;
        sum += w > 0. ? w * value : 0.;
        weights += w;
      }
    }
    out.push_back(std::isnan(plane[i]) ? std::nan("") : sum / weights);
  }
  return out;
}

TEST(ScoreMapEngine, GroupsAreWeightedMeansOfSmoothedDirections)
{
  const std::int64_t width = 41, height = 300; // more than a band of rows
  auto planes = Gaussian(width, height, 5, 3.);
  for (std::int64_t i = 0; i < width * height; i += 17)
  {
    planes[2][i] = notANumber;
  }
  planes[0][1234] = std::numeric_limits<float>::infinity(); // as good as none
  for (const double sigma : {0., 1.5})
  {
    Bench bench(width, height, planes, Settings({Group({0, 1}, {2}, 2.), Group({3}, {}, .5), Group({}, {4}, 3.)}, sigma));
    const auto maps = bench.All();
    planes[0][1234] = notANumber;
    std::vector<std::vector<double>> smooth;
    for (const auto& plane : planes)
    {
      smooth.push_back(Smoothed(plane, width, height, sigma));
    }
    std::int64_t valid = 0;
    for (std::int64_t i = 0; i < width * height; ++i)
    {
      const double forward = .5 * (smooth[0][i] + smooth[1][i]), backward = smooth[2][i];
      const double want = 2. * .5 * (forward + backward) + .5 * smooth[3][i] + 3. * smooth[4][i];
      if (std::isnan(want))
      {
        ASSERT_EQ(maps[0][i], -9999.f);
        ASSERT_EQ(maps[1][i], -1.f);
        ASSERT_EQ(maps[2][i], 255.f);
        ASSERT_EQ(maps[3][i], 255.f);
        continue;
      }
      ++valid;
      ASSERT_NEAR(maps[0][i], want, 2e-5 * std::abs(want));
      if (std::abs(forward - backward) > 1e-4)
      {
        ASSERT_EQ(maps[3][i], forward > backward ? 2.f : 1.f);
      }
    }
    EXPECT_EQ(bench.engine->ValidPixels(), valid);
    planes[0][1234] = std::numeric_limits<float>::infinity();
  }
}

TEST(ScoreMapEngine, GroupsAreStandardisedOnceSmoothed)
{
  const std::int64_t width = 80, height = 270;
  auto planes = Gaussian(width, height, 2, 500., 30.);
  for (auto& v : planes[1])
  {
    v *= 1e-3f;
  }
  for (const double sigma : {0., 2.})
  {
    Bench one(width, height, planes, Settings({Group({0}, {}, 2., true)}, sigma));
    const auto map = one.All()[0];
    double sum = 0., squares = 0.;
    for (const float v : map)
    {
      sum += v;
      squares += double(v) * v;
    }
    const double n = double(map.size());
    EXPECT_NEAR(sum / n, 0., 1e-4);
    EXPECT_NEAR(std::sqrt(squares / n), 2., 1e-3);
    EXPECT_NEAR(one.engine->Fit().mean[0], 500., 1.);
    Bench both(width, height, planes, Settings({Group({0}, {}, 1., true), Group({1}, {}, 1., true)}, sigma));
    both.All();
    // Once standardised, units do not matter.
    auto other = planes;
    for (auto& v : other[1])
    {
      v = 1e3f * v + 20.f;
    }
    Bench same(width, height, other, Settings({Group({0}, {}, 1., true), Group({1}, {}, 1., true)}, sigma));
    const auto a = both.All()[0], b = same.All()[0];
    for (std::size_t i = 0; i < a.size(); ++i)
    {
      ASSERT_NEAR(a[i], b[i], 2e-3);
    }
  }
}

TEST(ScoreMapEngine, TheThresholdIsChosenOnTheHistogramOfTheWholeScene)
{
  const std::int64_t width = 70, height = 290;
  auto planes = Gaussian(width, height, 1);
  planes[0][5] = notANumber;
  auto settings = Settings({Group({0})});
  int asked = 0;
  settings.chooseThreshold = [&](const ScoreHistogram& h)
  {
    ++asked;
    EXPECT_EQ(h.Total(), width * height - 1);
    EXPECT_FLOAT_EQ(float(h.low), *std::min_element(planes[0].begin() + 6, planes[0].end()));
    EXPECT_NEAR(h.high, *std::max_element(planes[0].begin() + 6, planes[0].end()), 1e-4);
    for (std::size_t b = 0; b < h.counts.size(); b += 512)
    {
      std::int64_t below = 0;
      for (const float v : planes[0])
      {
        below += v < h.Edge(b);
      }
      EXPECT_NEAR(double(std::accumulate(h.counts.begin(), h.counts.begin() + std::ptrdiff_t(b) + 1, std::int64_t(0))), double(below), 1.);
    }
    ThresholdChoice choice;
    choice.threshold = 1.25;
    choice.reason = "because";
    return choice;
  };
  Bench bench(width, height, planes, settings);
  const auto part = bench.Make({60, 280, 70, 290});
  const auto maps = bench.All();
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(bench.engine->Fit().choice.reason, "because");
  for (std::int64_t i = 0; i < width * height; ++i)
  {
    ASSERT_EQ(maps[2][i], std::isnan(planes[0][i]) ? 255.f : float(planes[0][i] > 1.25f));
  }
  EXPECT_EQ(part[2].back(), maps[2].back());
  settings.threshold = -.5;
  Bench given(width, height, planes, settings);
  const auto other = given.All();
  EXPECT_EQ(asked, 2); // what the scene taught is kept all the same
  EXPECT_EQ(given.engine->Choice().threshold, -.5);
  EXPECT_EQ(given.engine->Choice().reason, "as given");
  for (std::int64_t i = 0; i < width * height; ++i)
  {
    ASSERT_EQ(other[2][i], std::isnan(planes[0][i]) ? 255.f : float(planes[0][i] > -.5f));
  }
}

TEST(ScoreMapEngine, PValuesOfGaussianAndLogNormalScoresAreNearTheTruth)
{
  const std::int64_t side = 400;
  for (const bool logarithm : {false, true})
  {
    auto planes = Gaussian(side, side, 1, logarithm ? .7 : -2., logarithm ? .4 : 3.);
    const auto z = Gaussian(side, side, 1)[0];
    for (std::int64_t i = 0; i < side * side; ++i)
    {
      auto& v = planes[0][i];
      v = i % 50 == 0 ? 25.f : v; // a few changed
      v = logarithm && i % 50 != 0 ? std::exp(v) : v;
    }
    Bench bench(side, side, planes, Settings({Group({0})}));
    const auto maps = bench.All();
    EXPECT_EQ(bench.engine->Fit().logarithm, logarithm);
    double worst = 0.;
    for (std::int64_t i = 0; i < side * side; ++i)
    {
      if (i % 50 == 0)
      {
        ASSERT_GT(maps[1][i], 5.f);
      }
      else if (z[i] < 2.5f)
      {
        const double truth = -std::log10(.5 * std::erfc(double(z[i]) / std::sqrt(2.)));
        worst = std::max(worst, std::abs(maps[1][i] - truth) / (1. + truth));
      }
    }
    EXPECT_LT(worst, .06) << "2 % changed move the median by .025 deviations";
    RecordProperty(logarithm ? "worst_logarithm" : "worst", std::to_string(worst));
  }
}

TEST(ScoreMapEngine, AFewExtremeScoresDoNotMoveTheNullDistribution)
{
  for (const float k : {0.f, 10.f, 1e3f, 1e5f, 1e12f, 1e30f})
  {
    auto planes = Gaussian(300, 300, 1);
    for (int i = 7; i < 90000; i += 9000)
    {
      planes[0][i] = i % 2 == 0 ? k : -k;
    }
    Bench bench(300, 300, planes, Settings({Group({0})}));
    bench.All();
    EXPECT_NEAR(bench.engine->Fit().nullMiddle, 0., .02) << k;
    EXPECT_NEAR(bench.engine->Fit().nullDeviation, 1., .02) << k;
  }
}

TEST(ScoreMapEngine, PValuesMayBeChiSquare)
{
  auto planes = Gaussian(30, 20, 1, 3.);
  auto settings = Settings({Group({0})});
  settings.chiSquareDegrees = 3;
  Bench bench(30, 20, planes, settings);
  const auto maps = bench.All();
  for (int i = 0; i < 600; ++i)
  {
    ASSERT_NEAR(maps[1][i], -std::log10(ChiSquareTail(double(planes[0][i]) * planes[0][i], 3)), 1e-4);
  }
}

TEST(ScoreMapEngine, PValuesStayWithinTheirBounds)
{
  auto planes = Gaussian(30, 20, 1);
  planes[0][7] = 1e30f;
  for (const int degrees : {0, 13})
  {
    auto settings = Settings({Group({0})});
    settings.chiSquareDegrees = degrees;
    Bench bench(30, 20, planes, settings);
    const auto maps = bench.All();
    EXPECT_GT(maps[1][7], 5.f);
    for (const float v : maps[1])
    {
      ASSERT_TRUE(v >= 0.f && v <= 300.f);
    }
  }
}

TEST(ScoreMapEngine, AValidScoreIsNeverTheNoDataValue)
{
  Bench bench(3, 1, {{-9999.f, 1.f, notANumber}}, Settings({Group({0})}));
  const auto maps = bench.All();
  EXPECT_NE(maps[0][0], -9999.f);
  EXPECT_NEAR(maps[0][0], -9999.f, .01f);
  EXPECT_EQ(maps[0][2], -9999.f);
}

// ---- calibration

/** A calibration by an engine of all its pixels. */
ScoreCalibration Calibrated(std::int64_t width, std::int64_t height, const otbtest::Planes& planes, int block)
{
  auto settings = Settings({Group({0})});
  settings.calibrationBlock = block;
  Bench bench(width, height, planes, settings);
  bench.All();
  return bench.engine->Calibration();
}

TEST(ScoreCalibration, PValuesAreRanksAmongTheCalibrationPixels)
{
  for (const auto& size : {std::pair<int, int>{5, 5}, {41, 25}, {400, 250}})
  {
    const auto n = std::size_t(size.first) * size.second;
    const auto planes = Gaussian(size.first, size.second, 1);
    const auto c = Calibrated(size.first, size.second, planes, 1);
    EXPECT_EQ(c.count, std::int64_t(n));
    auto sorted = planes[0];
    std::sort(sorted.begin(), sorted.end());
    double last = 1., worst = 0., lenient = 0.;
    const auto check = [&](double s)
    {
      const auto above = double(sorted.end() - std::lower_bound(sorted.begin(), sorted.end(), float(s)));
      const double want = (1. + above) / (double(n) + 1.), got = c.PValue(s);
      EXPECT_LE(got, last + 1e-15);
      EXPECT_GE(got, 1. / (double(n) + 1.));
      EXPECT_LE(got, 1.);
      last = got;
      worst = std::max(worst, std::abs(got - want));
      lenient = std::max(lenient, want - got);
    };
    for (std::size_t i = 0; i < n; ++i)
    {
      check(sorted[i]);
    }
    // Between quantiles p is interpolated.
    EXPECT_LT(worst, 1024 % (n - 1) == 0 ? 1e-6 : 1.2 / 1024.) << n;
    EXPECT_DOUBLE_EQ(c.PValue(sorted.back()), 2. / (double(n) + 1.)) << "one is as high";
    EXPECT_DOUBLE_EQ(c.PValue(sorted.back() + 1e-3), 1. / (double(n) + 1.));
    EXPECT_DOUBLE_EQ(c.PValue(sorted.front()), 1.);
    EXPECT_DOUBLE_EQ(c.PValue(-100.), 1.);
    RecordProperty("worst_" + std::to_string(n), std::to_string(worst));
    RecordProperty("too_small_" + std::to_string(n), std::to_string(lenient));
  }
}

TEST(ScoreCalibration, TiesCountAsHighAsTheyAre)
{
  otbtest::Planes planes(1, std::vector<float>(1025, 1.f));
  std::fill(planes[0].begin() + 1000, planes[0].end(), 2.f);
  const auto c = Calibrated(41, 25, planes, 1);
  EXPECT_NEAR(c.PValue(1.), 1., 1e-12);
  EXPECT_NEAR(c.PValue(2.), 26. / 1026., 1e-9);
  EXPECT_NEAR(c.PValue(2.1), 1. / 1026., 1e-12);
}

TEST(ScoreCalibration, OnePixelABlockIsTaken)
{
  auto planes = Gaussian(103, 90, 1);
  std::vector<double> picked;
  planes[0][8 * 103 + 24] = notANumber;
  for (int y = 8; y < 90; y += 16)
  {
    for (int x = 8; x < 103; x += 16)
    {
      if (!std::isnan(planes[0][y * 103 + x]))
      {
        picked.push_back(planes[0][y * 103 + x]);
      }
    }
  }
  const auto c = Calibrated(103, 90, planes, 16);
  EXPECT_EQ(c.count, std::int64_t(picked.size()));
  EXPECT_EQ(c.block, 16);
  EXPECT_DOUBLE_EQ(c.quantiles.front(), *std::min_element(picked.begin(), picked.end()));
  EXPECT_DOUBLE_EQ(c.quantiles.back(), *std::max_element(picked.begin(), picked.end()));
}

TEST(ScoreCalibration, RoundTripsAndDecidesAtItsRate)
{
  const std::int64_t side = 200;
  auto planes = Gaussian(side, side, 2, 4., 2.);
  auto settings = Settings({Group({0}, {1}, 1., true)});
  settings.calibrationBlock = 2;
  Bench calibrating(side, side, planes, settings);
  calibrating.All();
  const auto& made = calibrating.engine->Calibration();
  const auto read = ScoreCalibration::FromJson(made.ToJson(), "file.json");
  EXPECT_EQ(read.settings, settings.description);
  EXPECT_EQ(read.mean, made.mean);
  EXPECT_EQ(read.deviation, made.deviation);
  EXPECT_EQ(read.quantiles, made.quantiles);
  EXPECT_EQ(read.count, made.count);
  EXPECT_EQ(read.block, made.block);
  settings.calibrationBlock = 0;
  settings.calibration = read;
  settings.alpha = .05;
  // Another pair of the same kind, a quarter of which changed: standardised as the calibration pair was.
  for (std::int64_t i = 0; i < side * side; ++i)
  {
    const bool changed = i % side < side / 4;
    planes[0][i] = (changed ? 24.f : 4.f) + 2.f * Noise(i % side, i / side, 0, 30);
    planes[1][i] = 4.f + 2.f * Noise(i % side, i / side, 1, 30);
  }
  Bench bench(side, side, planes, settings);
  const auto maps = bench.All();
  EXPECT_EQ(bench.engine->Fit().mean, read.mean);
  double alarms = 0., found = 0.;
  for (std::int64_t i = 0; i < side * side; ++i)
  {
    const double p = read.PValue(maps[0][i]);
    ASSERT_EQ(maps[2][i], float(p <= .05));
    ASSERT_NEAR(maps[1][i], -std::log10(p), 1e-5);
    (i % side < side / 4 ? found : alarms) += maps[2][i];
  }
  EXPECT_NEAR(alarms / (.75 * double(side * side)), .05, .006);
  EXPECT_EQ(found, .25 * double(side * side));
  settings.threshold = 1e9; // the user's word
  Bench given(side, side, planes, settings);
  const auto none = given.All()[2];
  EXPECT_EQ(std::count(none.begin(), none.end(), 1.f), 0);
}

TEST(ScoreCalibration, UnusableOnesAreErrors)
{
  const auto good = Json::parse(Calibrated(41, 25, Gaussian(41, 25, 1), 1).ToJson());
  EXPECT_NO_THROW(ScoreCalibration::FromJson(good.dump(), "a.json"));
  const auto expect = [&](const std::string& text)
  {
    try
    {
      ScoreCalibration::FromJson(text, "a.json");
      ADD_FAILURE() << "no error for " << text.substr(0, 60);
    }
    catch (const Error& e)
    {
      EXPECT_THAT(e.what(), testing::HasSubstr("a.json"));
    }
  };
  for (const char* text : {"", "{", "[]", "3", "null", "{}"})
  {
    expect(text);
  }
  for (const auto& item : good.items())
  {
    Json broken = good;
    broken.erase(item.key());
    expect(broken.dump());
  }
  for (const auto& patch : {Json{{"quantiles", {1.}}}, Json{{"quantiles", {2., 1.}}}, Json{{"quantiles", {1., nullptr}}}, Json{{"count", 0}},
                            Json{{"quantiles", "no"}}, Json{{"mean", Json::array()}}, Json{{"stddev", {1., 2.}}}, Json{{"stddev", {0.}}}})
  {
    Json broken = good;
    broken.update(patch);
    expect(broken.dump());
  }
  EXPECT_THROW(Calibrated(19, 1, Gaussian(19, 1, 1), 1), Error) << "19 pixels";
  EXPECT_THROW(Calibrated(30, 30, {std::vector<float>(900, notANumber)}, 1), Error) << "no data";
}

// ---- fit

TEST(SceneFit, APartOfTheSceneWithTheWholeScenesFitGivesItsPixels)
{
  const std::int64_t width = 120, height = 300;
  const double sigma = 2.;
  const int radius = 6;
  const auto planes = Gaussian(width, height, 3, 5.);
  auto settings = Settings({Group({0}, {1}, 1., true), Group({2}, {}, .5, true)}, sigma);
  settings.chooseThreshold = [](const ScoreHistogram& h)
  {
    ThresholdChoice choice;
    choice.threshold = .5 * (h.low + h.high);
    choice.rule = ThresholdRule::Otsu;
    choice.reason = "halfway";
    return choice;
  };
  Bench whole(width, height, planes, settings);
  const auto want = whole.All();
  const auto fit = SceneFit::FromJson(whole.engine->Fit().ToJson(), "fit.json");
  EXPECT_EQ(fit.settings, settings.description);
  EXPECT_EQ(fit.score, whole.score->learnt);
  EXPECT_EQ(fit.mean, whole.engine->Fit().mean);
  EXPECT_EQ(fit.choice.threshold, whole.engine->Fit().choice.threshold);
  EXPECT_EQ(fit.choice.rule, ThresholdRule::Otsu);
  EXPECT_EQ(fit.choice.reason, "halfway");
  settings.fit = fit;
  const Region crop{30, 200, 100, 280};
  otbtest::Planes cut;
  for (const auto& plane : planes)
  {
    cut.emplace_back();
    for (std::int64_t i = 0; i < crop.Area(); ++i)
    {
      cut.back().push_back(plane[(crop.y0 + i / crop.Width()) * width + crop.x0 + i % crop.Width()]);
    }
  }
  Bench part(crop.Width(), crop.Height(), cut, settings);
  const auto got = part.All();
  EXPECT_EQ(part.score->fits, 0);
  EXPECT_EQ(part.score->loads, 1);
  for (std::int64_t y = radius; y < crop.Height() - radius; ++y)
  {
    for (std::int64_t x = radius; x < crop.Width() - radius; ++x)
    {
      for (int k = 0; k < 4; ++k)
      {
        ASSERT_EQ(got[k][y * crop.Width() + x], want[k][(crop.y0 + y) * width + crop.x0 + x]) << k << ' ' << x << ' ' << y;
      }
    }
  }
  EXPECT_EQ(part.engine->Fit().ToJson(), whole.engine->Fit().ToJson());
}

TEST(SceneFit, UnusableOnesAreErrors)
{
  Bench bench(30, 20, Gaussian(30, 20, 1), Settings({Group({0}, {}, 1., true)}));
  bench.All();
  const Json good = Json::parse(bench.engine->Fit().ToJson());
  EXPECT_NO_THROW(SceneFit::FromJson(good.dump(), "f.json"));
  for (const char* text : {"", "{", "[]", "3", "null", "{}"})
  {
    EXPECT_THROW(SceneFit::FromJson(text, "f.json"), Error) << text;
  }
  for (const auto& item : good.items())
  {
    Json broken = good;
    broken.erase(item.key());
    EXPECT_THROW(SceneFit::FromJson(broken.dump(), "f.json"), Error) << "without " << item.key();
  }
  auto settings = Settings({Group({0}, {}, 1., true), Group({0})});
  settings.fit = SceneFit::FromJson(good.dump(), "f.json");
  Bench other(30, 20, Gaussian(30, 20, 1), settings);
  EXPECT_THROW(other.All(), Error) << "a fit of one group for two";
  settings.fit.reset();
  settings.calibration = Calibrated(41, 25, Gaussian(41, 25, 1), 1);
  Bench third(30, 20, Gaussian(30, 20, 1), settings);
  EXPECT_THROW(third.All(), Error) << "a calibration of one group for two";
}

// ---- regions, failures, empty scenes

TEST(ScoreMapEngine, AnyRegionsInAnyOrderGiveTheSameBits)
{
  const std::int64_t width = 90, height = 310;
  auto planes = Gaussian(width, height, 2, 3.);
  for (std::int64_t i = 0; i < width * height; i += 13)
  {
    planes[1][i] = notANumber;
  }
  const auto settings = Settings({Group({0}, {1}, 1., true)}, 2.5);
  Bench whole(width, height, planes, settings);
  const auto want = whole.All();
  EXPECT_EQ(whole.score->scored, width * height);
  for (const auto& t : {std::pair<int, int>{90, 1}, {17, 23}, {1, 310}, {64, 64}})
  {
    Bench tiled(width, height, planes, settings);
    otbtest::Planes got(4, std::vector<float>(std::size_t(width * height)));
    std::vector<Region> tiles;
    for (std::int64_t y = 0; y < height; y += t.second)
    {
      for (std::int64_t x = 0; x < width; x += t.first)
      {
        tiles.push_back(Intersection({x, y, x + t.first, y + t.second}, {0, 0, width, height}));
      }
    }
    std::reverse(tiles.begin(), tiles.end());
    for (const auto& tile : tiles)
    {
      // A little more than the tile, as a consumer with a neighbourhood asks.
      const Region more = Intersection({tile.x0 - 3, tile.y0 - 2, tile.x1 + 3, tile.y1 + 2}, {0, 0, width, height});
      const auto part = tiled.Make(more);
      for (int k = 0; k < 4; ++k)
      {
        for (std::int64_t i = 0; i < more.Area(); ++i)
        {
          got[k][(more.y0 + i / more.Width()) * width + more.x0 + i % more.Width()] = part[k][i];
        }
      }
    }
    EXPECT_TRUE(SameBits(got, want)) << t.first << " x " << t.second;
    EXPECT_EQ(tiled.score->scored, width * height) << "the scene is scored once";
    EXPECT_EQ(tiled.engine->Fit().ToJson(), whole.engine->Fit().ToJson());
  }
  // Results interleaved in one buffer.
  std::vector<float> mixed(4 * 20 * 10);
  std::vector<ResultPlane> out;
  for (int k = 0; k < 4; ++k)
  {
    out.push_back({mixed.data() + k, 4, 4 * 20});
  }
  whole.engine->Produce({40, 250, 60, 260}, out, {});
  for (int i = 0; i < 4 * 200; ++i)
  {
    ASSERT_EQ(mixed[i], want[i % 4][(250 + i / 80) * width + 40 + i / 4 % 20]);
  }
}

TEST(ScoreMapEngine, EqualScoresAreNoChange)
{
  for (const float value : {0.f, 3.f, -1e6f, 1e20f})
  {
    auto settings = Settings({Group({0}, {}, 1., value != 3.f)}, 1.);
    settings.chooseThreshold = [](const ScoreHistogram& h)
    {
      ThresholdChoice choice;
      choice.threshold = .5 * (h.low + h.high);
      return choice;
    };
    Bench bench(20, 10, {std::vector<float>(200, value)}, settings);
    const auto maps = bench.All();
    for (int i = 0; i < 200; ++i)
    {
      ASSERT_TRUE(std::isfinite(maps[0][i]));
      ASSERT_TRUE(maps[1][i] >= 0.f && maps[1][i] < 1.f) << maps[1][i];
    }
    if (value == 0.f)
    {
      EXPECT_EQ(std::count(maps[2].begin(), maps[2].end(), 0.f), 200);
    }
  }
}

TEST(ScoreMapEngine, ASceneWithoutValidPixelsIsNoData)
{
  Bench bench(20, 300, {std::vector<float>(6000, notANumber)}, Settings({Group({0}, {}, 1., true)}, 1.));
  const auto maps = bench.All();
  EXPECT_EQ(bench.engine->ValidPixels(), 0);
  const float none[] = {-9999.f, -1.f, 255.f, 255.f};
  for (int k = 0; k < 4; ++k)
  {
    EXPECT_EQ(std::count(maps[k].begin(), maps[k].end(), none[k]), 6000);
  }
  EXPECT_NO_THROW(SceneFit::FromJson(bench.engine->Fit().ToJson(), "f.json"));
}

TEST(ScoreMapEngine, ASceneSmallerThanTheKernelIsSmoothed)
{
  const auto planes = Gaussian(5, 3, 1);
  Bench bench(5, 3, planes, Settings({Group({0})}, 4.));
  const auto map = bench.All()[0];
  const auto want = Smoothed(planes[0], 5, 3, 4.);
  for (int i = 0; i < 15; ++i)
  {
    EXPECT_NEAR(map[i], want[i], 1e-5);
  }
}

TEST(ScoreMapEngine, WhatWasStoppedCanBeAskedForAgain)
{
  const std::int64_t width = 40, height = 600;
  const auto planes = Gaussian(width, height, 1);
  const auto settings = Settings({Group({0}, {}, 1., true)}, 1.);
  Bench whole(width, height, planes, settings), stopped(width, height, planes, settings);
  const auto want = whole.All();
  for (const double at : {.1, .6, .95})
  {
    EXPECT_THROW(stopped.Make({0, 0, 5, 5},
                              [&](double done)
                              {
                                EXPECT_TRUE(done >= 0. && done <= 1.);
                                if (done > at)
                                {
                                  throw std::runtime_error("enough");
                                }
                              }),
                 std::runtime_error);
  }
  EXPECT_TRUE(SameBits(stopped.All(), want));
  EXPECT_EQ(stopped.engine->ValidPixels(), width * height);
}

TEST(ScoreMapEngine, ProgressRisesToOne)
{
  Bench bench(40, 600, Gaussian(40, 600, 1), Settings({Group({0}, {}, 1., true)}, 1.));
  double last = 0.;
  bench.Make({0, 0, 40, 600},
             [&](double done)
             {
               EXPECT_GE(done, last);
               last = done;
             });
  EXPECT_GT(last, .9);
  EXPECT_LE(last, 1.);
}

TEST(ScoreMapEngine, AFolderThatIsNotThereIsAnError)
{
  auto score = std::make_shared<KnownScore>(10, 10, Gaussian(10, 10, 1));
  EngineSettings e;
  e.spillDirectory = "/nowhere/at/all";
  ScoreMapEngine engine(score, 10, 10, Settings({Group({0})}), e);
  std::vector<float> out(400);
  EXPECT_THROW(engine.Produce({0, 0, 10, 10}, {{out.data(), 1, 10}, {out.data() + 100, 1, 10}, {out.data() + 200, 1, 10}, {out.data() + 300, 1, 10}}, {}),
               Error);
}

TEST(ScoreOperator, NamesChannelsAndNoData)
{
  const ScoreOperator op({ScoreResult::Which, ScoreResult::Score, ScoreResult::PValue});
  EXPECT_EQ(op.ResultChannels(), 3);
  EXPECT_EQ(op.NoData(), (std::vector<float>{255.f, -9999.f, -1.f}));
  EXPECT_EQ(op.NoData()[0], ScoreOperator::NoDataOf(ScoreResult::Change));
}

} // namespace
