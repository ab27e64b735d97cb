/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// The engine for single pixels against the same arithmetic done pixel by pixel, for any regions in any order.
#include "otbDLBoxPredictor.h"
#include "otbDLPixelEngine.h"
#include "otbDLSeriesScene.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <tuple>

namespace
{

using namespace otb::dl;
using namespace otbtest;
using testing::Each;
using testing::ElementsAre;
using GapFill = TemporalSpec::GapFill;

constexpr float noData = Identity::noData;
const std::vector<int> days = {0, 7, 20, 21, 60};

/** Series of two bands with clouds, 0 where there is none. */
class Clouded : public Scene
{
public:
  Clouded(int width, int height, unsigned int seed = 4) : Scene(width, height), m_Values(std::size_t(width) * height * days.size() * 2)
  {
    AddSensor(Days(days), {"a", "b"}, SampleType::Int16);
    std::mt19937 random(seed);
    for (int y = 0; y < height; ++y)
    {
      for (int x = 0; x < width; ++x)
      {
        const bool none = random() % 3 == 0; // whole pixels without data
        for (int t = 0; t < static_cast<int>(days.size()); ++t)
        {
          const bool cloud = none || random() % 3 == 0;
          for (int b = 0; b < 2; ++b)
          {
            Value(x, y, t, b) = cloud ? 0.f : static_cast<float>(1 + random() % 900);
          }
          Scene::Set(0, t, 0, Value(x, y, t, 0), x, y);
          Scene::Set(0, t, 1, Value(x, y, t, 1), x, y);
        }
      }
    }
  }
  float& Value(std::int64_t x, std::int64_t y, int t, int b) { return m_Values[((y * setup.width + x) * days.size() + t) * 2 + b]; }
  bool Valid(std::int64_t x, std::int64_t y) { return Count(x, y) > 0; }
  int Count(std::int64_t x, std::int64_t y)
  {
    int count = 0;
    for (int t = 0; t < static_cast<int>(days.size()); ++t)
    {
      count += Value(x, y, t, 0) != 0.f;
    }
    return count;
  }
  std::int64_t ValidPixels(const Region& r)
  {
    std::int64_t count = 0;
    for (auto y = r.y0; y < r.y1; ++y)
    {
      for (auto x = r.x0; x < r.x1; ++x)
      {
        count += Valid(x, y);
      }
    }
    return count;
  }
  /** What the network must see of a pixel: gaps interpolated, then (v - 50) / 4. Without data: 1.5. */
  float Seen(std::int64_t x, std::int64_t y, int t, int b)
  {
    int before = t, after = t;
    const int count = static_cast<int>(days.size());
    while (before >= 0 && Value(x, y, before, b) == 0.f)
    {
      --before;
    }
    while (after < count && Value(x, y, after, b) == 0.f)
    {
      ++after;
    }
    if (before < 0 && after == count)
    {
      return 1.5f;
    }
    before = before < 0 ? after : before;
    after = after == count ? before : after;
    const float from = Value(x, y, before, b), to = Value(x, y, after, b);
    const float weight = before == after ? 0.f : static_cast<float>(static_cast<double>(days[t] - days[before]) / (days[after] - days[before]));
    return (from + weight * (to - from) - 50.f) / 4.f;
  }
  /** The network's result. */
  float Expected(std::int64_t x, std::int64_t y, int window)
  {
    double sum = 0.;
    int i = 0;
    const int margin = window / 2;
    for (int t = 0; t < static_cast<int>(days.size()); ++t)
    {
      for (int b = 0; b < 2; ++b)
      {
        for (int v = -margin; v <= margin; ++v)
        {
          for (int u = -margin; u <= margin; ++u)
          {
            sum += (1 + i++ % 7) * static_cast<double>(Seen(Mirror(x + u, setup.width), Mirror(y + v, setup.height), t, b));
          }
        }
      }
    }
    return static_cast<float>(sum);
  }

private:
  std::vector<float> m_Values;
};

ModelContract Contract(int window)
{
  ModelContract contract = PixelContract(window);
  ModelInput in = Sits({"a", "b"}, GapFill::Linear);
  in.noData = 0.;
  in.noDataFill = 1.5f;
  in.noDataRule = NoDataRule::Any;
  for (auto& s : in.scaling)
  {
    s.offset = 50.;
    s.divisor = 4.;
  }
  if (window > 1)
  {
    in.axes = byPatch;
  }
  contract.inputs = {in};
  return contract;
}

/** The network's value, and the number of valid dates that the engine counts. */
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
  Bench(std::shared_ptr<Clouded> of, int window, int batch, int call, PixelEngine::Files files = {}, EngineSettings settings = {},
        const ModelContract* contract = nullptr)
      : scene(std::move(of)), width(scene->setup.width), height(scene->setup.height),
        preparation(std::make_shared<SeriesPreparation>(contract ? *contract : Contract(window), scene->setup)),
        predictor(std::make_shared<SumPredictor>(preparation->Contract(), batch, window, 1, call)),
        engine(preparation, scene, files, predictor, std::make_shared<Counting>(), settings), map(std::size_t(2) * width * height, NaN)
  {
  }
  std::vector<ResultPlane> Planes(const Region& r)
  {
    std::vector<ResultPlane> planes;
    for (int k = 0; k < 2; ++k)
    {
      planes.push_back({map.data() + (k * height + r.y0) * width + r.x0, 1, static_cast<std::ptrdiff_t>(width)});
    }
    return planes;
  }
  void Make(const Region& r, const MapEngine::Progress& progress = {}) { engine.Produce(r, Planes(r), progress); }
  void MakeAll() { Make({0, 0, width, height}); }
  void MakeTiles(int w, int h)
  {
    for (std::int64_t y = 0; y < height; y += h)
    {
      for (std::int64_t x = 0; x < width; x += w)
      {
        Make(Intersection({x, y, x + w, y + h}, {0, 0, width, height}));
      }
    }
  }
  std::shared_ptr<Clouded> scene;
  std::int64_t width, height;
  std::shared_ptr<SeriesPreparation> preparation;
  std::shared_ptr<SumPredictor> predictor;
  PixelEngine engine;
  std::vector<float> map;
};

/** Budget for about this many pixels at once. */
EngineSettings Budget(std::size_t bytes, int threads = 1)
{
  EngineSettings s;
  s.readBytes = bytes;
  s.threads = threads;
  return s;
}

class PixelEngineInvariance : public testing::TestWithParam<std::tuple<int, int, int>>
{
};

TEST_P(PixelEngineInvariance, AnyRegionsInAnyOrderGiveThePixelsOfADirectComputation)
{
  const auto [window, batch, threads] = GetParam();
  auto scene = std::make_shared<Clouded>(47, 31);
  std::vector<float> expected(2 * 47 * 31);
  for (int y = 0; y < 31; ++y)
  {
    for (int x = 0; x < 47; ++x)
    {
      expected[y * 47 + x] = scene->Valid(x, y) ? scene->Expected(x, y, window) : noData;
      expected[(31 + y) * 47 + x] = scene->Valid(x, y) ? static_cast<float>(scene->Count(x, y)) : 9.f;
    }
  }
  for (const std::size_t budget : {std::size_t(1), std::size_t(20000), std::size_t(64) << 20})
  {
    for (const auto& files : {PixelEngine::Files{47, 1, 30}, PixelEngine::Files{16, 16, 30}, PixelEngine::Files{1000, 1000, 30}})
    {
      Bench whole(scene, window, batch, batch, files, Budget(budget, threads));
      whole.MakeAll();
      ASSERT_EQ(whole.map, expected);
      EXPECT_EQ(whole.engine.Statistics().samplesInferred, scene->ValidPixels({0, 0, 47, 31}));
      EXPECT_EQ(whole.engine.Statistics().samplesInferred + whole.engine.Statistics().samplesEmpty, 47 * 31);
      for (const auto& t : {std::make_pair(10, 10), std::make_pair(47, 1), std::make_pair(1, 31), std::make_pair(13, 29)})
      {
        Bench tiled(scene, window, batch, batch, files, Budget(budget, threads));
        tiled.MakeTiles(t.first, t.second);
        ASSERT_EQ(tiled.map, expected) << t.first << " x " << t.second;
      }
    }
  }
  // Regions that overlap, from the last to the first.
  Bench overlapping(scene, window, batch, batch, {16, 16, 30}, Budget(20000, threads));
  for (std::int64_t y = 26; y >= 0; y -= 13)
  {
    for (std::int64_t x = 36; x >= 0; x -= 12)
    {
      overlapping.Make(Intersection({x - 4, y - 3, x + 17, y + 14}, {0, 0, 47, 31}));
    }
  }
  EXPECT_EQ(overlapping.map, expected);
}

INSTANTIATE_TEST_SUITE_P(Cases, PixelEngineInvariance, testing::Combine(testing::Values(1, 3, 7), testing::Values(1, 64, 5000), testing::Values(1, 3)));

TEST(PixelEngine, AWindowLargerThanTheImageIsMirroredMoreThanOnce)
{
  for (const auto& size : {std::make_pair(3, 2), std::make_pair(1, 1), std::make_pair(1, 6)})
  {
    auto scene = std::make_shared<Clouded>(size.first, size.second, 6);
    Bench bench(scene, 9, 4, 4);
    bench.MakeAll();
    for (int y = 0; y < size.second; ++y)
    {
      for (int x = 0; x < size.first; ++x)
      {
        EXPECT_EQ(bench.map[y * size.first + x], scene->Valid(x, y) ? scene->Expected(x, y, 9) : noData);
      }
    }
  }
}

TEST(PixelEngine, OnlyPixelsWithDataReachTheNetwork)
{
  auto scene = std::make_shared<Clouded>(40, 25);
  ModelContract contract = Contract(1);
  contract.inputs[0].scaling.assign(2, BandScaling());
  Bench bench(scene, 1, 50, 50, {}, {}, &contract);
  bench.predictor->remember = true;
  bench.MakeAll();
  std::set<std::vector<float>> expected;
  for (int y = 0; y < 25; ++y)
  {
    for (int x = 0; x < 40; ++x)
    {
      std::vector<float> series;
      for (int t = 0; scene->Valid(x, y) && t < static_cast<int>(days.size()); ++t)
      {
        for (int b = 0; b < 2; ++b)
        {
          series.push_back(scene->Seen(x, y, t, b) * 4.f + 50.f);
        }
      }
      if (!series.empty())
      {
        expected.insert(series);
      }
    }
  }
  EXPECT_EQ(bench.predictor->seen.size(), expected.size());
  for (const auto& series : bench.predictor->seen)
  {
    EXPECT_THAT(series, Each(testing::Ge(1.f))) << "the fill value of pixels without data";
  }
}

TEST(PixelEngine, AnImageWithoutDataCallsNoNetwork)
{
  auto scene = std::make_shared<Clouded>(20, 10);
  scene->mask.assign(200, 0.f);
  Bench bench(scene, 3, 16, 16);
  bench.MakeAll();
  EXPECT_EQ(bench.predictor->calls, 0);
  EXPECT_EQ(bench.engine.Statistics().samplesEmpty, 200);
  EXPECT_THAT(std::vector<float>(bench.map.begin(), bench.map.begin() + 200), Each(noData));
  EXPECT_THAT(std::vector<float>(bench.map.begin() + 200, bench.map.end()), Each(9));
}

TEST(PixelEngine, TheMaskChoosesPixelsWithoutChangingThem)
{
  auto scene = std::make_shared<Clouded>(30, 20);
  scene->mask.assign(600, 0.f);
  scene->mask[7 * 30 + 11] = scene->mask[19 * 30 + 29] = 1.f;
  for (int y = 0; y < 20; ++y)
  {
    for (int x = 0; x < 30; ++x)
    {
      scene->mask[y * 30 + x] = (x + y) % 4 == 0;
    }
  }
  Bench bench(scene, 3, 16, 16);
  bench.MakeAll();
  for (int y = 0; y < 20; ++y)
  {
    for (int x = 0; x < 30; ++x)
    {
      const bool made = (x + y) % 4 == 0 && scene->Valid(x, y);
      ASSERT_EQ(bench.map[y * 30 + x], made ? scene->Expected(x, y, 3) : noData);
    }
  }
}

TEST(PixelEngine, AWholeRegionTakesAsFewCallsAsItsPixelsFill)
{
  auto scene = std::make_shared<Clouded>(61, 43);
  const auto valid = scene->ValidPixels({0, 0, 61, 43});
  for (const int call : {1, 7, 100, 5000})
  {
    for (const int workers : {1, 3})
    {
      for (const std::size_t budget : {std::size_t(1), std::size_t(64) << 20})
      {
        Bench bench(scene, 1, call * workers, call, {61, 4, 40}, Budget(budget));
        bench.MakeAll();
        EXPECT_EQ(bench.predictor->calls, (valid + call - 1) / call) << call << " x " << workers;
        const auto& s = bench.engine.Statistics();
        EXPECT_EQ(s.modelCalls, bench.predictor->calls);
        EXPECT_EQ(s.modelCalls, s.MinimumCalls(call));
        for (std::size_t i = 0; i + 1 < bench.predictor->runs.size(); ++i)
        {
          EXPECT_EQ(bench.predictor->runs[i], call * workers) << "only the last batch may have room";
        }
      }
    }
  }
}

TEST(PixelEngine, NotFiniteOutputIsCountedAndWrittenAsNoData)
{
  auto scene = std::make_shared<Clouded>(40, 30);
  Bench plain(scene, 1, 33, 33);
  plain.MakeAll();
  Bench bench(scene, 1, 33, 33);
  bench.predictor->nanAbove = 2000.;
  bench.MakeAll();
  std::int64_t bad = 0;
  for (int i = 0; i < 1200; ++i)
  {
    const bool gone = plain.map[i] > 2000.f;
    bad += gone;
    ASSERT_EQ(bench.map[i], gone ? noData : plain.map[i]);
    ASSERT_EQ(bench.map[1200 + i], gone ? 9.f : plain.map[1200 + i]);
  }
  EXPECT_GT(bad, 10);
  EXPECT_EQ(bench.engine.Statistics().notFinite, bad);
}

TEST(PixelEngine, ReadsAreThePartsWithTheirMargins)
{
  auto scene = std::make_shared<Clouded>(50, 40);
  Bench bench(scene, 5, 64, 64, {16, 8, 20}, Budget(64 * 100));
  const Region region{3, 5, 41, 37};
  bench.Make(region);
  const auto parts = bench.engine.Parts(region);
  ASSERT_EQ(scene->reads.size(), parts.size());
  for (std::size_t i = 0; i < parts.size(); ++i)
  {
    const Region& p = parts[i];
    EXPECT_EQ(scene->reads[i], Intersection({p.x0 - 2, p.y0 - 2, p.x1 + 2, p.y1 + 2}, {0, 0, 50, 40}));
  }
}

TEST(PixelEngine, PixelsAndWindowsAreToldWhereTheyAre)
{
  auto scene = std::make_shared<Clouded>(12, 9);
  scene->setup.latLon = [](double x, double y) { return std::make_pair(static_cast<float>(y), static_cast<float>(x)); };
  ModelContract contract = PixelContract(3);
  contract.inputs = {With("latlon", -1, {Axis::Batch, Axis::Bands}), Contract(3).inputs[0]};
  Bench bench(scene, 3, 10, 10, {}, {}, &contract);
  bench.predictor->remember = true;
  bench.MakeAll();
  std::set<std::vector<float>> expected;
  for (int y = 0; y < 9; ++y)
  {
    for (int x = 0; x < 12; ++x)
    {
      if (scene->Valid(x, y))
      {
        expected.insert({static_cast<float>(y), static_cast<float>(x)});
      }
    }
  }
  EXPECT_EQ(bench.predictor->seen, expected);
}

TEST(PixelEngine, OfAWindowWithoutSpaceThePixelInTheMiddleSpeaks)
{
  auto scene = std::make_shared<Clouded>(9, 7);
  ModelContract contract = Contract(5);
  const ModelInput valid = With("valid", 1, {Axis::Batch, Axis::Time});
  contract.inputs.insert(contract.inputs.begin(), valid);
  Bench bench(scene, 5, 1, 1, {}, {}, &contract);
  std::size_t made = 0;
  for (int y = 0; y < 7; ++y)
  {
    for (int x = 0; x < 9; ++x)
    {
      bench.Make({x, y, x + 1, y + 1});
      if (!scene->Valid(x, y))
      {
        continue;
      }
      ++made;
      std::vector<float> expected;
      for (int t = 0; t < static_cast<int>(days.size()); ++t)
      {
        expected.push_back(scene->Value(x, y, t, 0) != 0.f);
      }
      ASSERT_EQ(bench.predictor->Slot(0), expected) << x << ", " << y;
    }
  }
  EXPECT_EQ(bench.predictor->runs.size(), made);
}

TEST(PixelEngine, ProgressGrowsToWithinABatchOfOneAndMayStop)
{
  auto scene = std::make_shared<Clouded>(60, 50);
  Bench bench(scene, 1, 50, 50);
  double last = -1.;
  bench.Make({0, 0, 60, 50},
             [&](double done)
             {
               EXPECT_GE(done, last);
               last = done;
             });
  EXPECT_GT(last, .9);
  EXPECT_LE(last, 1.);

  Bench stopped(scene, 1, 50, 50);
  EXPECT_THROW(stopped.Make({0, 0, 60, 50},
                            [](double done)
                            {
                              if (done > .3)
                              {
                                throw std::runtime_error("stop");
                              }
                            }),
               std::runtime_error);
  EXPECT_LT(stopped.predictor->calls, 30);
  // What was packed before is forgotten.
  stopped.MakeAll();
  EXPECT_EQ(stopped.map, bench.map);
}

TEST(PixelEngine, ProgressIsThatOfTheWindow)
{
  auto scene = std::make_shared<Clouded>(60, 50);
  EngineSettings settings;
  settings.window = {0, 0, 60, 25};
  Bench bench(scene, 1, 50, 50, {}, settings);
  EXPECT_EQ(bench.engine.Statistics().samplesInWindow, 60 * 25);
  double last = -1.;
  bench.Make({0, 0, 60, 25}, [&](double done) { last = done; });
  EXPECT_GT(last, .9);
}

TEST(PixelEngine, ResultsKeepTheStridesOfTheirImages)
{
  auto scene = std::make_shared<Clouded>(20, 10);
  Bench plain(scene, 1, 16, 16), bench(scene, 1, 16, 16);
  plain.MakeAll();
  // Two bands interleaved, with a gap after each row.
  std::vector<float> pixels(10 * 43, -1.f);
  bench.engine.Produce({0, 0, 20, 10}, {{pixels.data(), 2, 43}, {pixels.data() + 1, 2, 43}}, {});
  for (int y = 0; y < 10; ++y)
  {
    for (int x = 0; x < 20; ++x)
    {
      ASSERT_EQ(pixels[y * 43 + 2 * x], plain.map[y * 20 + x]);
      ASSERT_EQ(pixels[y * 43 + 2 * x + 1], plain.map[200 + y * 20 + x]);
    }
    EXPECT_EQ(pixels[y * 43 + 40], -1.f);
  }
}

struct Layout
{
  std::int64_t width, height, blockWidth, blockHeight;
  std::size_t budget;
  Region region;
};

class PixelEngineParts : public testing::TestWithParam<Layout>
{
protected:
  /** Pixels that the budget holds, but never less than 64 nor more than 2^18. */
  static std::int64_t Most(const SeriesPreparation& preparation, const Layout& l)
  {
    const auto pixels = static_cast<std::int64_t>(l.budget / (bytes + preparation.BytesPerPixel()));
    return std::min<std::int64_t>(std::max<std::int64_t>(pixels, 64), 1 << 18);
  }
  /** The engine reads nothing here. */
  static std::pair<std::vector<Region>, std::int64_t> PartsOf(const Layout& l)
  {
    auto scene = std::make_shared<Scene>(1, 1);
    scene->AddSensor(Days(days), {"a", "b"});
    SeriesSetup setup = scene->setup;
    setup.width = l.width;
    setup.height = l.height;
    const auto preparation = std::make_shared<SeriesPreparation>(Contract(1), setup);
    const PixelEngine engine(preparation, scene, {l.blockWidth, l.blockHeight, bytes}, std::make_shared<SumPredictor>(preparation->Contract(), 4, 1),
                             std::make_shared<Counting>(), Budget(l.budget));
    return {engine.Parts(l.region), Most(*preparation, l)};
  }
  static constexpr std::size_t bytes = 100;
};

void PrintTo(const Layout& l, std::ostream* out)
{
  *out << l.width << " x " << l.height << " in blocks of " << l.blockWidth << " x " << l.blockHeight << ", " << l.budget << " bytes, from " << l.region.x0
       << ", " << l.region.y0;
}

TEST_P(PixelEngineParts, CoverTheRegionExactlyOnceWithinTheBudget)
{
  const Layout l = GetParam();
  const auto [parts, most] = PartsOf(l);
  std::vector<int> covered(l.region.Area());
  for (const Region& p : parts)
  {
    ASSERT_FALSE(p.Empty());
    ASSERT_EQ(Intersection(p, l.region), p);
    EXPECT_LE(p.Area(), most) << p.Width() << " x " << p.Height();
    for (auto y = p.y0; y < p.y1; ++y)
    {
      for (auto x = p.x0; x < p.x1; ++x)
      {
        ++covered[(y - l.region.y0) * l.region.Width() + x - l.region.x0];
      }
    }
  }
  EXPECT_THAT(covered, Each(1));
}

class PixelEngineBlocks : public PixelEngineParts
{
};

TEST_P(PixelEngineBlocks, AreReadOnceWhereTheBudgetHoldsOne)
{
  const Layout l = GetParam();
  const auto [parts, most] = PartsOf(l);
  const auto blockWidth = std::min(l.blockWidth, l.width), blockHeight = std::min(l.blockHeight, l.height);
  ASSERT_LE(blockWidth * blockHeight, most);
  std::map<std::pair<std::int64_t, std::int64_t>, int> times;
  for (const Region& p : parts)
  {
    for (auto j = p.y0 / blockHeight; j <= (p.y1 - 1) / blockHeight; ++j)
    {
      for (auto i = p.x0 / blockWidth; i <= (p.x1 - 1) / blockWidth; ++i)
      {
        EXPECT_EQ(++times[std::make_pair(i, j)], 1) << "block " << i << ", " << j;
      }
    }
  }
}

constexpr std::size_t plenty = std::size_t(64) << 20;
INSTANTIATE_TEST_SUITE_P(Roomy, PixelEngineBlocks,
                         testing::Values(Layout{300, 200, 300, 1, plenty, {0, 0, 300, 200}}, Layout{300, 200, 300, 8, 1000000, {0, 0, 300, 200}},
                                         Layout{300, 200, 300, 8, 1000000, {0, 3, 300, 197}}, Layout{300, 200, 64, 64, plenty, {0, 0, 300, 200}},
                                         Layout{300, 200, 64, 64, 1100000, {0, 0, 300, 200}}, Layout{300, 200, 64, 64, 1100000, {17, 9, 291, 190}},
                                         Layout{300, 200, 64, 64, 3000000, {17, 9, 291, 190}}, Layout{300, 200, 64, 64, plenty, {5, 5, 6, 6}},
                                         Layout{300, 200, 1000, 1000, plenty, {0, 0, 300, 200}}, Layout{300, 200, 1, 200, 100000, {0, 0, 300, 200}},
                                         Layout{1, 500, 1, 1, 20000, {0, 0, 1, 500}}, Layout{1200, 700, 256, 256, plenty, {0, 0, 1200, 700}}));
INSTANTIATE_TEST_SUITE_P(Layouts, PixelEngineParts,
                         testing::Values(Layout{300, 200, 300, 1, plenty, {0, 0, 300, 200}}, Layout{300, 200, 300, 1, 1, {0, 0, 300, 200}},
                                         Layout{300, 200, 300, 8, 1000000, {0, 3, 300, 197}}, Layout{300, 200, 300, 8, 100000, {0, 3, 300, 197}},
                                         Layout{300, 200, 64, 64, plenty, {0, 0, 300, 200}}, Layout{300, 200, 64, 64, 1100000, {17, 9, 291, 190}},
                                         Layout{300, 200, 64, 64, 100000, {0, 0, 300, 200}}, Layout{300, 200, 64, 64, 1, {0, 0, 300, 200}},
                                         Layout{300, 200, 64, 64, 1, {5, 5, 12, 150}}, Layout{300, 200, 1000, 1000, 200000, {0, 0, 300, 200}},
                                         Layout{300, 200, 1, 200, 100000, {0, 0, 300, 200}}, Layout{500, 1, 500, 1, 20000, {3, 0, 499, 1}},
                                         Layout{1200, 700, 256, 256, plenty, {0, 0, 1200, 700}}));

} // namespace
