/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// The engine against the same arithmetic done over the whole image at once, for any regions in any order.
#include "otbDLError.h"
#include "otbDLBoxPredictor.h"
#include "otbDLGaussian.h"
#include "otbDLPatchEngine.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <random>

namespace
{

using namespace otb::dl;
using otbtest::BoxPredictor;
using otbtest::Identity;

constexpr float noData = Identity::noData;

/** A deterministic image of `bands` bands in memory. */
class MemorySource : public PixelSource
{
public:
  MemorySource(int width, int height, int bands) : m_Width(width), m_Height(height), m_Bands(bands), m_Pixels(std::size_t(width) * height * bands)
  {
    std::mt19937 random(3);
    std::uniform_real_distribution<float> value(1.f, 100.f);
    for (auto& p : m_Pixels)
    {
      p = value(random);
    }
  }
  float& At(std::int64_t x, std::int64_t y, int b) { return m_Pixels[(y * m_Width + x) * m_Bands + b]; }
  PixelBlock Read(const Region& region) override
  {
    EXPECT_EQ(Intersection(region, Region{0, 0, m_Width, m_Height}), region) << "reads leave the image";
    pixelsRead += region.Area();
    PixelBlock block;
    block.region = region;
    block.bands.resize(1);
    for (int b = 0; b < m_Bands; ++b)
    {
      block.bands[0].push_back({&At(region.x0, region.y0, b), m_Bands, std::ptrdiff_t(m_Bands) * m_Width});
    }
    if (!mask.empty())
    {
      block.mask = {mask.data() + region.y0 * m_Width + region.x0, 1, m_Width};
    }
    return block;
  }
  std::vector<float> mask;
  std::int64_t pixelsRead = 0;

private:
  std::int64_t m_Width;
  std::int64_t m_Height;
  int m_Bands;
  std::vector<float> m_Pixels;
};

struct Case
{
  int width, height, patch, multiple, halo;
  Blend blend;
  int batch;
  std::size_t keptBytes;
  bool spill;
};

/** Scores that are averaged with their surroundings. */
class Smoothed : public Identity
{
public:
  std::vector<float> Smoothing() const override { return GaussianKernel(1.5); }
};

/** Names the case in test reports. */
void PrintTo(const Case& c, std::ostream* out)
{
  *out << c.width << 'x' << c.height << " patch " << c.patch << ' ' << ToString(c.blend) << " batch " << c.batch << (c.keptBytes > 1 ? "" : " no room")
       << (c.spill ? "" : " no file");
}

std::vector<InputNormalisation> OneInput(int bands)
{
  InputNormalisation in;
  in.scaling.resize(bands);
  for (auto& s : in.scaling)
  {
    s.offset = 50.;
    s.divisor = 10.;
  }
  in.noData.assign(bands, 0.);
  in.hasNoData.assign(bands, true);
  return {in};
}

class Bench
{
public:
  Bench(const Case& c, std::shared_ptr<MemorySource> source, Region window = {}) : m_Case(c), m_Source(std::move(source))
  {
    Tiling t;
    t.patch = c.patch;
    t.multiple = c.multiple;
    t.halo = c.halo;
    t.blend = c.blend;
    predictor = std::make_shared<BoxPredictor>(c.batch, 2, c.patch, 2, c.blend == Blend::Hann);
    PatchEngine::Settings s;
    s.keptBytes = c.keptBytes;
    s.threads = 2;
    s.spillDirectory = c.spill ? testing::TempDir() : "";
    s.window = window;
    engine = std::make_unique<PatchEngine>(PatchGrid(c.width, c.height, t), predictor, std::make_shared<Identity>(),
                                           std::make_shared<ImagePatchSource>(m_Source, OneInput(2), c.width, c.height), s);
    map.assign(std::size_t(2) * c.width * c.height, std::numeric_limits<float>::quiet_NaN());
  }
  void Make(const Region& r)
  {
    const std::ptrdiff_t plane = std::ptrdiff_t(m_Case.width) * m_Case.height;
    std::vector<ResultPlane> planes;
    for (int k = 0; k < 2; ++k)
    {
      planes.push_back({map.data() + k * plane + r.y0 * m_Case.width + r.x0, 1, m_Case.width});
    }
    engine->Produce(r, planes, {});
  }
  void MakeTiles(int w, int h, Region window)
  {
    for (auto y = window.y0; y < window.y1; y += h)
    {
      for (auto x = window.x0; x < window.x1; x += w)
      {
        Make(Intersection({x, y, x + w, y + h}, window));
      }
    }
  }
  std::unique_ptr<PatchEngine> engine;
  std::shared_ptr<BoxPredictor> predictor;
  std::vector<float> map;

private:
  Case m_Case;
  std::shared_ptr<MemorySource> m_Source;
};

std::shared_ptr<MemorySource> Scene(const Case& c)
{
  auto source = std::make_shared<MemorySource>(c.width, c.height, 2);
  for (int y = 0; y < c.height / 3; ++y)
  {
    for (int x = 0; x < c.width / 2; ++x)
    {
      source->At(x, y, 0) = source->At(x, y, 1) = 0.f;
    }
  }
  source->At(c.width - 1, c.height - 1, 0) = std::numeric_limits<float>::quiet_NaN();
  source->At(c.width - 1, 0, 0) = 0.f; // one band only: data
  return source;
}

class PatchEngineInvariance : public testing::TestWithParam<Case>
{
};

TEST_P(PatchEngineInvariance, AnyRegionsGiveTheSamePixelsAndNoPatchTwice)
{
  const Case c = GetParam();
  const auto source = Scene(c);
  const Region all{0, 0, c.width, c.height};
  Bench whole(c, source);
  whole.Make(all);
  const auto& s = whole.engine->Statistics();
  EXPECT_EQ(whole.predictor->calls, s.modelCalls);
  EXPECT_EQ(s.modelCalls, s.MinimumCalls(c.batch));
  EXPECT_EQ(s.samplesInferred + s.samplesEmpty, whole.engine->Grid().Count());
  for (const float v : whole.map)
  {
    ASSERT_FALSE(std::isnan(v));
  }

  const std::pair<int, int> tiles[] = {{10, 10}, {37, 23}, {c.width, 1}, {c.width, 7}, {1, c.height}, {33, 33}, {c.width / 2 + 3, c.height / 2 + 1}};
  for (const auto& t : tiles)
  {
    Bench streamed(c, source);
    streamed.MakeTiles(t.first, t.second, all);
    EXPECT_EQ(streamed.map, whole.map) << t.first << " x " << t.second;
    const auto& st = streamed.engine->Statistics();
    if (c.spill)
    {
      EXPECT_EQ(st.samplesRepeated, 0) << t.first << " x " << t.second;
      EXPECT_EQ(st.samplesInferred, s.samplesInferred) << t.first << " x " << t.second;
      EXPECT_EQ(st.modelCalls, st.MinimumCalls(c.batch)) << t.first << " x " << t.second;
    }
  }

  // As a consumer with a neighbourhood asks, and one that comes back: regions overlap, patches may have to be made again, pixels stay the same.
  Bench overlapping(c, source);
  for (int y = 0; y < c.height; y += 13)
  {
    for (int x = 0; x < c.width; x += 29)
    {
      overlapping.Make(Intersection({x - 5, y - 5, x + 34, y + 18}, all));
    }
  }
  overlapping.Make({0, 0, std::min(c.width, 9), std::min(c.height, 7)});
  EXPECT_EQ(overlapping.map, whole.map);

  // A region outside the window that was announced.
  Bench outside(c, source, {0, 0, c.width / 2, c.height / 2});
  outside.MakeTiles(23, 17, all);
  EXPECT_EQ(outside.map, whole.map);

  const Region window{c.width / 4, c.height / 5, c.width - 3, c.height - 2};
  Bench boxed(c, source, window);
  boxed.MakeTiles(19, 31, window);
  for (int k = 0; k < 2; ++k)
  {
    for (auto y = window.y0; y < window.y1; ++y)
    {
      for (auto x = window.x0; x < window.x1; ++x)
      {
        const auto at = (k * c.height + y) * c.width + x;
        ASSERT_EQ(boxed.map[at], whole.map[at]);
      }
    }
  }
}

constexpr std::size_t plenty = std::size_t(64) << 20;
INSTANTIATE_TEST_SUITE_P(Cases, PatchEngineInvariance,
                         testing::Values(Case{101, 77, 32, 4, 6, Blend::Crop, 4, plenty, true}, Case{101, 77, 32, 1, 6, Blend::Crop, 1, plenty, true},
                                         Case{101, 77, 32, 4, 6, Blend::Crop, 4, 1, true}, Case{101, 77, 32, 4, 6, Blend::Crop, 4, 1, false},
                                         Case{101, 77, 32, 1, 0, Blend::Hann, 4, plenty, true}, Case{101, 77, 32, 1, 0, Blend::Hann, 3, 1, true},
                                         Case{101, 77, 32, 1, 0, Blend::Hann, 3, 1, false}, Case{12, 9, 32, 8, 8, Blend::Crop, 4, plenty, true},
                                         Case{12, 9, 32, 8, 8, Blend::Hann, 4, plenty, true}, Case{40, 3, 16, 1, 3, Blend::Crop, 8, plenty, true},
                                         Case{300, 200, 16, 4, 2, Blend::Crop, 16, plenty, true}));

TEST(PatchEngine, CropEqualsTheWholePaddedImage)
{
  const Case c{61, 45, 24, 4, 2, Blend::Crop, 3, plenty, true};
  auto source = std::make_shared<MemorySource>(c.width, c.height, 2);
  Bench bench(c, source);
  bench.Make({0, 0, c.width, c.height});
  const auto scaled = [&](std::int64_t x, std::int64_t y, int b) { return (source->At(Mirror(x, c.width), Mirror(y, c.height), b) - 50.f) / 10.f; };
  for (int y = 0; y < c.height; ++y)
  {
    for (int x = 0; x < c.width; ++x)
    {
      double sum = 0.;
      for (int b = 0; b < 2; ++b)
      {
        for (int v = -2; v <= 2; ++v)
        {
          for (int u = -2; u <= 2; ++u)
          {
            sum += scaled(x + u, y + v, b);
          }
        }
      }
      ASSERT_NEAR(bench.map[y * c.width + x], sum, 1e-4) << x << ", " << y;
    }
  }
}

TEST(PatchEngine, PixelsWithoutDataAreNoDataAndOnlyThose)
{
  const Case c{90, 64, 32, 4, 6, Blend::Crop, 4, plenty, true};
  auto source = Scene(c);
  source->mask.assign(c.width * c.height, 1.f);
  source->mask[50 * c.width + 80] = 0.f;
  for (const Blend blend : {Blend::Crop, Blend::Hann})
  {
    Case used = c;
    used.blend = blend;
    Bench bench(used, source);
    bench.Make({0, 0, c.width, c.height});
    for (int y = 0; y < c.height; ++y)
    {
      for (int x = 0; x < c.width; ++x)
      {
        const bool none = (y < c.height / 3 && x < c.width / 2) || (x == c.width - 1 && y == c.height - 1) || (x == 80 && y == 50);
        ASSERT_EQ(bench.map[y * c.width + x] == noData, none) << x << ", " << y;
      }
    }
  }
}

TEST(PatchEngine, SmoothedScoresAreThoseOfTheWholeImageSmoothed)
{
  constexpr int width = 83, height = 71, radius = 5; // of the kernel: 3 x 1.5, rounded
  auto source = std::make_shared<MemorySource>(width, height, 2);
  for (int y = 20; y < 33; ++y)
  {
    for (int x = 30; x < 52; ++x)
    {
      source->At(x, y, 0) = source->At(x, y, 1) = 0.f; // no data
    }
  }
  const Case plain{width, height, 32, 1, 2, Blend::Crop, 3, 1 << 20, true};
  Bench raw(plain, source);
  raw.Make({0, 0, width, height});
  const auto kernel = GaussianKernel(1.5);
  ASSERT_EQ(KernelRadius(kernel), radius);
  std::vector<float> first;
  for (const int patch : {32, 48, 64})
  {
    Tiling t;
    t.patch = patch;
    t.halo = 2 + radius;
    auto predictor = std::make_shared<BoxPredictor>(3, 2, patch, 2, false);
    PatchEngine::Settings s;
    s.threads = 2;
    s.keptBytes = 1 << 20;
    PatchEngine engine(PatchGrid(width, height, t), predictor, std::make_shared<Smoothed>(),
                       std::make_shared<ImagePatchSource>(source, OneInput(2), width, height), s);
    std::vector<float> map(std::size_t(2 * width * height));
    for (int y = 0; y < height; y += 19)
    {
      const Region strip = Intersection({0, y, width, y + 19}, {0, 0, width, height});
      engine.Produce(strip, {{map.data() + y * width, 1, width}, {map.data() + width * height + y * width, 1, width}}, {});
    }
    for (int i = 0; i < width * height; ++i)
    {
      if (raw.map[i] == noData)
      {
        EXPECT_EQ(map[i], noData) << i;
        continue;
      }
      double top = 0., bottom = 0.;
      for (int v = std::max(0, i / width - radius); v <= std::min(height - 1, i / width + radius); ++v)
      {
        for (int u = std::max(0, i % width - radius); u <= std::min(width - 1, i % width + radius); ++u)
        {
          if (raw.map[v * width + u] != noData)
          {
            const double w = double(kernel[v - i / width + radius]) * double(kernel[u - i % width + radius]);
            top += w * double(raw.map[v * width + u]);
            bottom += w;
          }
        }
      }
      ASSERT_NEAR(map[i], top / bottom, 1e-4 * (1. + std::abs(top / bottom))) << "patch " << patch << ", pixel " << i;
    }
    first = first.empty() ? map : first;
    EXPECT_EQ(map, first) << "patch " << patch;
  }
}

TEST(PatchEngine, SmoothedBlendsDoNotDependOnRegions)
{
  constexpr int width = 83, height = 71;
  auto source = std::make_shared<MemorySource>(width, height, 2);
  Tiling t;
  t.patch = 32;
  t.blend = Blend::Hann;
  std::vector<float> whole;
  for (const int step : {height, 13})
  {
    PatchEngine::Settings s;
    s.keptBytes = step == 13 ? 1 : 1 << 20;
    s.spillDirectory = testing::TempDir();
    PatchEngine engine(PatchGrid(width, height, t), std::make_shared<BoxPredictor>(2, 2, 32, 2, true), std::make_shared<Smoothed>(),
                       std::make_shared<ImagePatchSource>(source, OneInput(2), width, height), s);
    std::vector<float> map(std::size_t(2 * width * height));
    for (int y = 0; y < height; y += step)
    {
      const Region strip = Intersection({0, y, width, y + step}, {0, 0, width, height});
      engine.Produce(strip, {{map.data() + y * width, 1, width}, {map.data() + width * height + y * width, 1, width}}, {});
    }
    whole = whole.empty() ? map : whole;
    EXPECT_EQ(map, whole);
  }
}

TEST(PatchEngine, EmptyPatchesAreNeverInferred)
{
  const Case c{128, 128, 32, 1, 0, Blend::Crop, 2, plenty, true};
  auto source = std::make_shared<MemorySource>(c.width, c.height, 2);
  for (int y = 0; y < c.height; ++y)
  {
    for (int x = 0; x < c.width; ++x)
    {
      if (!(x == 70 && y == 70))
      {
        source->At(x, y, 0) = source->At(x, y, 1) = 0.f;
      }
    }
  }
  Bench bench(c, source);
  bench.Make({0, 0, c.width, c.height});
  EXPECT_EQ(bench.engine->Statistics().samplesInferred, 1);
  EXPECT_EQ(bench.engine->Statistics().samplesEmpty, 15);
  EXPECT_EQ(bench.predictor->calls, 1);

  source->At(70, 70, 0) = source->At(70, 70, 1) = 0.f;
  Bench nothing(c, source);
  nothing.Make({0, 0, c.width, c.height});
  EXPECT_EQ(nothing.predictor->calls, 0);
  EXPECT_EQ(nothing.map[5], noData);
}

TEST(PatchEngine, NotFiniteOutputIsCountedOnceAndWrittenAsNoData)
{
  for (const Blend blend : {Blend::Crop, Blend::Hann})
  {
    const Case c{64, 64, 32, 4, 4, blend, 4, plenty, true};
    auto source = std::make_shared<MemorySource>(c.width, c.height, 2);
    Bench bench(c, source);
    bench.predictor->nanAbove = 60.f;
    bench.MakeTiles(20, 20, {0, 0, c.width, c.height});
    std::int64_t none = 0;
    for (int i = 0; i < c.width * c.height; ++i)
    {
      none += bench.map[i] == noData;
      ASSERT_FALSE(std::isnan(bench.map[i]));
    }
    EXPECT_GT(none, 0);
    EXPECT_EQ(bench.engine->Statistics().notFinite, none);
  }
}

TEST(PatchEngine, ProgressEndsBelowOneAndMayStop)
{
  const Case c{128, 128, 32, 4, 4, Blend::Crop, 2, plenty, true};
  auto source = std::make_shared<MemorySource>(c.width, c.height, 2);
  Bench bench(c, source);
  double last = -1.;
  std::vector<float> out(std::size_t(2) * c.width * c.height);
  std::vector<ResultPlane> planes = {{out.data(), 1, c.width}, {out.data() + c.width * c.height, 1, c.width}};
  bench.engine->Produce({0, 0, c.width, c.height}, planes,
                        [&](double done)
                        {
                          EXPECT_GT(done, last);
                          last = done;
                        });
  EXPECT_GT(last, .8);
  EXPECT_LT(last, 1.);

  Bench stopped(c, source);
  EXPECT_THROW(stopped.engine->Produce({0, 0, c.width, c.height}, planes,
                                       [](double done)
                                       {
                                         if (done > .3)
                                         {
                                           throw std::runtime_error("stop");
                                         }
                                       }),
               std::runtime_error);
  EXPECT_LT(stopped.predictor->calls, 20);
}

/** An image whose pixels have as many valid dates as their position says, by two series. */
class CountingSource : public ImagePatchSource
{
public:
  CountingSource(std::shared_ptr<MemorySource> pixels, int width, int height)
      : ImagePatchSource(std::move(pixels), OneInput(2), width, height), m_Width(width), m_Height(height)
  {
  }
  static int Count(int series, std::int64_t x, std::int64_t y) { return static_cast<int>(series == 0 ? 1 + x + 3 * y : 60000 - x); }
  void Look(const Region& footprint, bool counts, PatchContent& content) const override
  {
    ImagePatchSource::Look(footprint, counts, content);
    EXPECT_EQ(content.counts.size(), counts ? 1u : 0u);
    asked = counts;
    content.counts.assign(counts ? 2 : 0, {});
    for (std::size_t s = 0; s < content.counts.size(); ++s)
    {
      for (auto y = footprint.y0; y < footprint.y1; ++y)
      {
        for (auto x = footprint.x0; x < footprint.x1; ++x)
        {
          content.counts[s].push_back(static_cast<std::uint16_t>(Count(static_cast<int>(s), Mirror(x, m_Width), Mirror(y, m_Height))));
        }
      }
    }
  }
  mutable std::atomic<bool> asked{false};

private:
  int m_Width, m_Height;
};

/** Score and, where they are counted, the valid dates of two series. */
class Counting : public Identity
{
public:
  explicit Counting(bool counted) : m_Counted(counted) {}
  int ScoreChannels() const override { return m_Counted ? 3 : 1; }
  int CountChannels() const override { return m_Counted ? 2 : 0; }
  void Decide(const float* scores, std::ptrdiff_t scoreStride, std::ptrdiff_t count, float* results, std::ptrdiff_t resultStride) const override
  {
    for (std::ptrdiff_t i = 0; i < count; ++i)
    {
      results[i] = scores[m_Counted ? scoreStride + i : i];
      results[resultStride + i] = m_Counted ? scores[2 * scoreStride + i] : 0.f;
    }
  }

private:
  bool m_Counted;
};

TEST(PatchEngine, CountsReachThePixelsThatTheyBelongTo)
{
  for (const Blend blend : {Blend::Crop, Blend::Hann})
  {
    for (const bool counted : {true, false})
    {
      const Case c{101, 77, 32, 4, 6, blend, 4, plenty, true};
      const auto scene = Scene(c);
      const auto source = std::make_shared<CountingSource>(scene, c.width, c.height);
      Tiling t;
      t.patch = c.patch;
      t.multiple = c.multiple;
      t.halo = c.halo;
      t.blend = blend;
      PatchEngine::Settings s;
      s.threads = 2;
      PatchEngine engine(PatchGrid(c.width, c.height, t), std::make_shared<BoxPredictor>(c.batch, 2, c.patch, 2, false), std::make_shared<Counting>(counted),
                         source, s);
      for (const Region& r : {Region{0, 0, 101, 20}, Region{0, 20, 50, 77}, Region{50, 20, 101, 77}})
      {
        std::vector<float> map(2 * r.Area());
        engine.Produce(r, {{map.data(), 1, static_cast<std::ptrdiff_t>(r.Width())}, {map.data() + r.Area(), 1, static_cast<std::ptrdiff_t>(r.Width())}}, {});
        for (auto y = r.y0; counted && y < r.y1; ++y)
        {
          for (auto x = r.x0; x < r.x1; ++x)
          {
            const bool none = (y < c.height / 3 && x < c.width / 2) || (x == c.width - 1 && y == c.height - 1);
            const auto at = (y - r.y0) * r.Width() + x - r.x0;
            // Blended, they are averages of equal numbers.
            ASSERT_NEAR(map[at], none ? noData : CountingSource::Count(0, x, y), .1) << x << ", " << y;
            ASSERT_NEAR(map[r.Area() + at], none ? 9.f : CountingSource::Count(1, x, y), .1) << x << ", " << y;
          }
        }
      }
      EXPECT_EQ(source->asked, counted) << "counts are not looked for in vain";
    }
  }
}

TEST(ImagePatchSource, AnImageIsASeriesOfOneDate)
{
  auto pixels = std::make_shared<MemorySource>(20, 20, 2);
  pixels->At(3, 4, 0) = pixels->At(3, 4, 1) = 0.f;
  ImagePatchSource source(pixels, OneInput(2), 20, 20);
  source.Read({0, 0, 16, 16});
  PatchContent content;
  source.Look({-2, -2, 14, 14}, true, content);
  ASSERT_EQ(content.counts.size(), 1u);
  for (int i = 0; i < 256; ++i)
  {
    ASSERT_EQ(content.valid[i], i == 6 * 16 + 5 ? 0 : 1);
    ASSERT_EQ(content.counts[0][i], content.valid[i]);
  }
  source.Look({-2, -2, 14, 14}, false, content);
  EXPECT_TRUE(content.counts.empty());
}

} // namespace
