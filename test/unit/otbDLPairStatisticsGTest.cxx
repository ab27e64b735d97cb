/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// Statistics of a pair against independent solutions, closed forms and known distributions; the same bits whatever regions, threads and reads.
#include "otbDLError.h"
#include "otbDLMemoryScene.h"
#include "otbDLPairStatistics.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace
{

using namespace otb::dl;
using namespace otbtest;
using Json = nlohmann::json;
using Source = std::shared_ptr<MemoryScene>;

constexpr std::int64_t allBytes = std::int64_t(1) << 40;

/** Ground with structure. */
float Ground(int band, std::int64_t x, std::int64_t y)
{
  return 100.f + 30.f * std::sin(.21f * float(x) + float(band)) * std::cos(.17f * float(y) - float(2 * band)) + 10.f * Noise(x, y, band, 1);
}

bool Blob(std::int64_t x, std::int64_t y)
{
  return x % 64 >= 20 && x % 64 < 26 && y % 64 >= 40 && y % 64 < 45;
}

/** Date 2 is date 1 in other light, mixed over bands, and noise; `blobs` hold something else. */
Source LinearPair(std::int64_t width, std::int64_t height, int bands1, int bands2, float noise, bool blobs = false)
{
  auto scene = std::make_shared<MemoryScene>(width, height, std::vector<int>{bands1, bands2});
  scene->Fill(0, Ground);
  scene->Fill(1,
              [&](int b, std::int64_t x, std::int64_t y)
              {
                float v = 500.f - 40.f * float(b);
                for (int k = 0; k < bands1; ++k)
                {
                  v += (.3f + .4f * float((k + b) % 3)) * (b % 2 == 1 ? -1.f : 1.f) * scene->At(0, k, x, y);
                }
                return v + noise * Noise(x, y, b, 2) + (blobs && Blob(x, y) ? (b % 2 == 0 ? 60.f : -60.f) : 0.f);
              });
  return scene;
}

/** Holes of no data in each date, and a NaN. */
void Pierce(MemoryScene& scene)
{
  for (std::int64_t y = 0; y < scene.height; ++y)
  {
    for (std::int64_t x = 0; x < scene.width; ++x)
    {
      for (int k = 0; k < 2; ++k)
      {
        if (Noise(x / 5, y / 4, k, 9) > 1.6f)
        {
          for (auto& plane : scene.planes[k])
          {
            plane[y * scene.width + x] = missing;
          }
        }
      }
    }
  }
  scene.planes[1][0][scene.width + 2] = notANumber;
}

bool Valid(const MemoryScene& scene, std::int64_t i)
{
  for (const auto& image : scene.planes)
  {
    bool none = true;
    for (const auto& plane : image)
    {
      if (!std::isfinite(plane[i]))
      {
        return false;
      }
      none = none && plane[i] == missing;
    }
    if (none)
    {
      return false;
    }
  }
  return true;
}

/** Chance that a changed pixel scores higher than another. */
double Auroc(const std::vector<float>& score, std::int64_t width)
{
  std::vector<std::pair<float, bool>> all;
  for (std::size_t i = 0; i < score.size(); ++i)
  {
    all.emplace_back(score[i], Blob(std::int64_t(i) % width, std::int64_t(i) / width));
  }
  std::sort(all.begin(), all.end());
  double ranks = 0., changed = 0.;
  for (std::size_t r = 0; r < all.size(); ++r)
  {
    ranks += all[r].second ? double(r + 1) : 0.;
    changed += all[r].second;
  }
  return (ranks - .5 * changed * (changed + 1.)) / (changed * (double(all.size()) - changed));
}

/** Scores are the same bits for all regions, threads and reads, from a fit made with others, and from one that was saved. */
template <typename TMake>
void ExpectInvariance(const Source& source, const std::vector<std::pair<int, int>>& tiles, TMake make)
{
  const auto with = [&](int threads, std::size_t bytes)
  {
    PairScene scene = Pair(source);
    scene.threads = threads;
    scene.readBytes = bytes;
    return make(scene);
  };
  const Region image{0, 0, source->width, source->height};
  const auto first = with(1, std::size_t(allBytes));
  first->Fit([](double) {});
  const std::string fit = first->SaveFit();
  const auto whole = ScoreOf(*first, image);
  for (std::int64_t i = 0; i < image.Area(); ++i)
  {
    for (const auto& plane : whole)
    {
      ASSERT_EQ(std::isnan(plane[i]), !Valid(*source, i)) << i;
    }
  }
  for (const int threads : {1, 2, 3})
  {
    for (const std::size_t bytes : {std::size_t(1), std::size_t(allBytes)})
    {
      const auto other = with(threads, bytes);
      other->Fit([](double) {});
      EXPECT_EQ(other->SaveFit(), fit) << threads << " threads, " << bytes << " bytes";
      EXPECT_TRUE(SameBits(ScoreOf(*other, image), whole)) << threads << " threads, " << bytes << " bytes";
    }
  }
  for (const auto& t : tiles)
  {
    const auto loaded = with(2, 1 << 20);
    loaded->LoadFit(fit);
    EXPECT_EQ(loaded->SaveFit(), fit);
    EXPECT_TRUE(SameBits(ScoreInTiles(*loaded, source->width, source->height, t.first, t.second), whole)) << t.first << " x " << t.second;
  }
}

/** What a fit must not take: nothing, rubbish, another method's, other bands'. */
template <typename TMake>
void ExpectFitErrors(TMake make, const std::string& method)
{
  const auto source = LinearPair(20, 20, 2, 2, 1.f);
  const auto score = make(Pair(source));
  score->Fit([](double) {});
  Json j = Json::parse(score->SaveFit());
  EXPECT_EQ(j.at("method"), method);
  EXPECT_THROW(score->LoadFit(""), Error);
  EXPECT_THROW(score->LoadFit("{\"method\":"), Error);
  EXPECT_THROW(score->LoadFit("[1, 2]"), Error);
  EXPECT_THROW(score->LoadFit("{\"method\": 3}"), Error);
  EXPECT_THROW(score->LoadFit("{\"method\": \"" + method + "\"}"), Error);
  for (const auto& item : j.items())
  {
    Json broken = j;
    broken.erase(item.key());
    EXPECT_THROW(score->LoadFit(broken.dump()), Error) << "without " << item.key();
    broken[item.key()] = "text";
    EXPECT_THROW(score->LoadFit(broken.dump()), Error) << item.key() << " as text";
    if (item.value().is_array())
    {
      broken[item.key()] = Json::array();
      EXPECT_THROW(score->LoadFit(broken.dump()), Error) << item.key() << " without elements";
      broken[item.key()] = item.value();
      broken[item.key()].erase(broken[item.key()].size() - 1);
      EXPECT_THROW(score->LoadFit(broken.dump()), Error) << item.key() << " without its last element";
    }
  }
  const auto other = make(Pair(LinearPair(20, 20, 3, 3, 1.f)));
  EXPECT_THROW(other->LoadFit(j.dump()), Error);
  EXPECT_NO_THROW(score->LoadFit(j.dump()));
}

std::unique_ptr<PairRegression> Regress(const PairScene& scene, ResidualNorm norm = ResidualNorm::L2, std::vector<double> sigmas = {2., 4., 8.})
{
  RegressionSettings settings;
  settings.norm = norm;
  settings.sigmas = std::move(sigmas);
  return std::make_unique<PairRegression>(scene, settings);
}

// ---- regression

TEST(PairRegression, ResidualsOfALinearPairAreItsNoise)
{
  const float noise = 4.f;
  const auto source = LinearPair(128, 120, 3, 3, noise);
  const auto score = Regress(Pair(source, 0.));
  score->Fit([](double) {});
  const auto planes = ScoreOf(*score, {0, 0, 128, 120});
  double want = 0., got = 0.;
  for (const auto& plane : source->planes[1])
  {
    double sum = 0., squares = 0.;
    for (const float v : plane)
    {
      sum += v;
      squares += double(v) * v;
    }
    const double n = double(plane.size());
    want += noise * noise / (squares / n - sum / n * sum / n);
  }
  for (const float v : planes[0])
  {
    got += double(v) * v / double(planes[0].size());
  }
  EXPECT_NEAR(got / want, 1., .04);
}

TEST(PairRegression, PlantedBlobsScoreHighestWhateverTheGlobalChange)
{
  const auto source = LinearPair(192, 192, 3, 3, 3.f, true);
  for (const auto norm : {ResidualNorm::L2, ResidualNorm::Mahalanobis, ResidualNorm::StudentT})
  {
    const auto score = Regress(Pair(source), norm);
    score->Fit([](double) {});
    const auto planes = ScoreOf(*score, {0, 0, 192, 192});
    EXPECT_GT(Auroc(planes[0], 192), .995);
    EXPECT_GT(Auroc(planes[1], 192), .9);
  }
}

/** Solves s w = c for symmetric positive s (n x n) and m right hand sides, by Cholesky. */
void Solve(std::vector<double> s, int n, std::vector<double>& c, int m)
{
  for (int j = 0; j < n; ++j)
  {
    for (int i = j; i < n; ++i)
    {
      double v = s[i * n + j];
      for (int k = 0; k < j; ++k)
      {
        v -= s[i * n + k] * s[j * n + k];
      }
      s[i * n + j] = i == j ? std::sqrt(v) : v / s[j * n + j];
    }
  }
  for (int r = 0; r < m; ++r)
  {
    for (int i = 0; i < n; ++i)
    {
      for (int k = 0; k < i; ++k)
      {
        c[i * m + r] -= s[i * n + k] * c[k * m + r];
      }
      c[i * m + r] /= s[i * n + i];
    }
    for (int i = n - 1; i >= 0; --i)
    {
      for (int k = i + 1; k < n; ++k)
      {
        c[i * m + r] -= s[k * n + i] * c[k * m + r];
      }
      c[i * m + r] /= s[i * n + i];
    }
  }
}

/** The definition in double precision: features of a pixel of a date, one after the other, then 1. */
std::vector<double> BruteFeatures(const MemoryScene& scene, const std::vector<std::vector<double>>& bands, std::int64_t x, std::int64_t y)
{
  std::vector<double> features;
  const auto at = [&](std::int64_t u, std::int64_t v) { return Mirror(v, scene.height) * scene.width + Mirror(u, scene.width); };
  for (const auto& band : bands)
  {
    for (int v = -1; v <= 1; ++v)
    {
      for (int u = -1; u <= 1; ++u)
      {
        features.push_back(band[at(x + u, y + v)]);
      }
    }
    for (const double sigma : {2., 4., 8.})
    {
      const int r = int(3. * sigma);
      double sum = 0., weights = 0.;
      for (int v = -r; v <= r; ++v)
      {
        for (int u = -r; u <= r; ++u)
        {
          const auto i = at(x + u, y + v);
          const double w = Valid(scene, i) ? std::exp(-.5 * (u * u + v * v) / sigma / sigma) : 0.;
          sum += w * band[i];
          weights += w;
        }
      }
      features.push_back(sum / weights);
    }
  }
  features.push_back(1.);
  return features;
}

TEST(PairRegression, WeightsAndScoresAreThoseOfADenseRidgeSolution)
{
  const std::int64_t width = 44, height = 37;
  const auto source = LinearPair(width, height, 4, 2, 5.f, true);
  Pierce(*source);
  const auto score = Regress(Pair(source));
  score->Fit([](double) {});
  const auto planes = ScoreOf(*score, {0, 0, width, height});
  const Json fit = Json::parse(score->SaveFit());
  // Standardised as FitScaling() says, which has tests of its own.
  std::vector<std::vector<double>> dates[2];
  for (int k = 0, band = 0; k < 2; ++k)
  {
    for (const auto& plane : source->planes[k])
    {
      const Json& s = fit.at("scaling").at(band++);
      dates[k].emplace_back();
      for (std::int64_t i = 0; i < width * height; ++i)
      {
        const double v = std::clamp<double>(plane[i], s.at("low"), s.at("high"));
        dates[k].back().push_back(Valid(*source, i) ? (v - s.at("mean").get<double>()) / s.at("stddev").get<double>() : 0.);
      }
    }
  }
  double worstWeight = 0., worstScore = 0.;
  for (int d = 0; d < 2; ++d)
  {
    const auto &from = dates[d], &to = dates[1 - d];
    const int n = 12 * int(from.size()) + 1, m = int(to.size());
    if (d == 0)
    {
      EXPECT_EQ(n, 49);
    }
    std::vector<std::vector<double>> features;
    std::vector<std::int64_t> pixels;
    std::vector<double> gram(n * n, 0.), weights(n * m, 0.);
    for (std::int64_t i = 0; i < width * height; ++i)
    {
      if (!Valid(*source, i))
      {
        continue;
      }
      pixels.push_back(i);
      features.push_back(BruteFeatures(*source, from, i % width, i / width));
      for (int a = 0; a < n; ++a)
      {
        for (int b = 0; b < n; ++b)
        {
          gram[a * n + b] += features.back()[a] * features.back()[b];
        }
        for (int b = 0; b < m; ++b)
        {
          weights[a * m + b] += features.back()[a] * to[b][i];
        }
      }
    }
    for (int a = 0; a < n; ++a)
    {
      gram[a * n + a] += a + 1 < n ? 1e-3 * double(pixels.size()) : 0.;
    }
    Solve(gram, n, weights, m);
    for (int a = 0; a < n; ++a)
    {
      for (int b = 0; b < m; ++b)
      {
        worstWeight = std::max(worstWeight, std::abs(weights[a * m + b] - fit.at("directions").at(d).at("weights").at(a).at(b).get<double>()));
      }
    }
    for (std::size_t p = 0; p < pixels.size(); ++p)
    {
      double squares = 0.;
      for (int b = 0; b < m; ++b)
      {
        double r = to[b][pixels[p]];
        for (int a = 0; a < n; ++a)
        {
          r -= weights[a * m + b] * features[p][a];
        }
        squares += r * r;
      }
      worstScore = std::max(worstScore, std::abs(std::sqrt(squares) - double(planes[d][pixels[p]])));
    }
  }
  // Features are single precision: 1.6e-6 was measured.
  EXPECT_LT(worstWeight, 5e-6);
  EXPECT_LT(worstScore, 1e-4);
  RecordProperty("worst_weight", std::to_string(1e6 * worstWeight) + "e-6");
  RecordProperty("worst_score", std::to_string(1e6 * worstScore) + "e-6");
}

TEST(PairRegression, NormsAreFunctionsOfTheSameResiduals)
{
  const std::int64_t width = 90, height = 80;
  const auto source = LinearPair(width, height, 3, 2, 5.f, true);
  Pierce(*source);
  const Region image{0, 0, width, height};
  const auto length = Regress(Pair(source)), whitened = Regress(Pair(source), ResidualNorm::Mahalanobis),
             student = Regress(Pair(source), ResidualNorm::StudentT);
  length->Fit([](double) {});
  whitened->LoadFit(length->SaveFit());
  student->LoadFit(length->SaveFit());
  const auto l2 = ScoreOf(*length, image), m = ScoreOf(*whitened, image), t = ScoreOf(*student, image);
  SceneReader reader = length->MakeReader();
  reader.Read(image, length->Margin());
  PairRegression::Prediction prediction;
  length->Predict(reader, image, prediction);
  for (int d = 0; d < 2; ++d)
  {
    const int bands = d == 0 ? 2 : 3, first = d == 0 ? 3 : 0; // of the target
    double squares = 0., count = 0.;
    for (std::int64_t i = 0; i < width * height; ++i)
    {
      if (!Valid(*source, i))
      {
        continue;
      }
      const auto inside = (i / width + length->Margin()) * prediction.dates.width + i % width + length->Margin();
      double sum = 0.;
      for (int b = 0; b < bands; ++b)
      {
        const double r = prediction.dates.Plane(first + b)[inside] - (d == 0 ? prediction.of2 : prediction.of1)[b * width * height + i];
        sum += r * r;
      }
      ASSERT_NEAR(l2[d][i], std::sqrt(sum), 1e-5);
      ASSERT_NEAR(t[d][i], .5 * (4 + bands) * std::log1p(double(m[d][i]) * m[d][i] / 4.), 1e-4 * std::max(1.f, t[d][i]));
      squares += double(m[d][i]) * m[d][i];
      ++count;
    }
    EXPECT_NEAR(squares / count, bands, 1e-3 * bands) << "whitened residuals have variance 1 a band";
  }
}

TEST(PairRegression, AnyRegionsThreadsAndReadsGiveTheSameBits)
{
  const auto source = LinearPair(530, 300, 2, 3, 4.f, true);
  Pierce(*source);
  ExpectInvariance(source, {{530, 300}, {97, 83}, {530, 41}, {33, 300}, {256, 256}, {255, 257}},
                   [](const PairScene& scene) { return Regress(scene, ResidualNorm::Mahalanobis); });
}

TEST(PairRegression, SmallTilesGiveTheSameBits)
{
  const auto source = LinearPair(37, 29, 2, 2, 4.f, true);
  Pierce(*source);
  ExpectInvariance(source, {{1, 1}, {37, 1}, {1, 29}, {5, 3}, {8, 8}}, [](const PairScene& scene) { return Regress(scene); });
}

TEST(PairRegression, AMissingPixelIsFeltWithinTheMarginOnly)
{
  const std::int64_t width = 120, height = 110;
  const auto whole = LinearPair(width, height, 2, 2, 4.f), pierced = LinearPair(width, height, 2, 2, 4.f);
  const auto one = Regress(Pair(whole)), other = Regress(Pair(pierced));
  pierced->At(0, 1, 60, 50) = notANumber;
  one->Fit([](double) {});
  other->LoadFit(one->SaveFit());
  EXPECT_EQ(one->Margin(), 24);
  const auto a = ScoreOf(*one, {0, 0, width, height}), b = ScoreOf(*other, {0, 0, width, height});
  for (int d = 0; d < 2; ++d)
  {
    double worst = 0.;
    for (std::int64_t i = 0; i < width * height; ++i)
    {
      const auto away = std::max(std::abs(i % width - 60), std::abs(i / width - 50));
      ASSERT_EQ(std::isnan(b[d][i]), away == 0);
      if (away > 24)
      {
        ASSERT_EQ(a[d][i], b[d][i]);
      }
      if (away > 1)
      {
        worst = std::max(worst, std::abs(double(a[d][i]) - b[d][i]));
      }
    }
    EXPECT_GT(worst, 0.);
    EXPECT_LT(worst, .2) << "beyond its neighbours a pixel is one of many";
  }
}

TEST(PairRegression, ASceneWithoutDataHasNoScoresAndItsFitCanBeKept)
{
  const auto source = std::make_shared<MemoryScene>(40, 30, std::vector<int>{2, 2});
  source->Fill(0, [](int, std::int64_t, std::int64_t) { return missing; });
  source->Fill(1, Ground);
  const auto score = Regress(Pair(source), ResidualNorm::Mahalanobis), again = Regress(Pair(source), ResidualNorm::Mahalanobis);
  score->Fit([](double) {});
  ASSERT_NO_THROW(again->LoadFit(score->SaveFit()));
  for (const auto* s : {score.get(), again.get()})
  {
    const auto planes = ScoreOf(*const_cast<PairRegression*>(s), {0, 0, 40, 30});
    for (const auto& plane : planes)
    {
      EXPECT_TRUE(std::all_of(plane.begin(), plane.end(), [](float v) { return std::isnan(v); }));
    }
  }
}

TEST(PairRegression, ConstantBandsAddNothing)
{
  auto source = LinearPair(60, 50, 2, 2, 4.f, true);
  const auto plain = Regress(Pair(source));
  plain->Fit([](double) {});
  const auto want = ScoreOf(*plain, {0, 0, 60, 50});
  source->planes[0].emplace_back(60 * 50, 7.f);
  source->planes[1].emplace_back(60 * 50, .1f);
  for (const auto norm : {ResidualNorm::L2, ResidualNorm::Mahalanobis, ResidualNorm::StudentT})
  {
    const auto more = Regress(Pair(source), norm);
    more->Fit([](double) {});
    const auto got = ScoreOf(*more, {0, 0, 60, 50});
    for (int d = 0; d < 2; ++d)
    {
      for (int i = 0; i < 60 * 50; ++i)
      {
        ASSERT_TRUE(std::isfinite(got[d][i]));
        if (norm == ResidualNorm::L2)
        {
          ASSERT_NEAR(got[d][i], want[d][i], 2e-5);
        }
      }
    }
  }
  source->Fill(0, [](int, std::int64_t, std::int64_t) { return 3.f; });
  source->Fill(1, [](int, std::int64_t, std::int64_t) { return 4.f; });
  const auto flat = Regress(Pair(source));
  flat->Fit([](double) {});
  for (const auto& plane : ScoreOf(*flat, {0, 0, 60, 50}))
  {
    EXPECT_TRUE(std::all_of(plane.begin(), plane.end(), [](float v) { return std::abs(v) < 1e-5f; }));
  }
}

TEST(PairRegression, ImagesSmallerThanTheContextAreScored)
{
  for (const auto& size : {std::pair<int, int>{5, 3}, {1, 1}, {1, 7}, {2, 2}})
  {
    const auto source = LinearPair(size.first, size.second, 2, 2, 4.f);
    const auto score = Regress(Pair(source));
    score->Fit([](double) {});
    const auto whole = ScoreOf(*score, {0, 0, size.first, size.second});
    EXPECT_TRUE(SameBits(ScoreInTiles(*score, size.first, size.second, 2, 1), whole));
    for (const auto& plane : whole)
    {
      EXPECT_TRUE(std::all_of(plane.begin(), plane.end(), [](float v) { return std::isfinite(v); }));
    }
  }
}

TEST(PairRegression, ABigSceneIsFittedOnAFixedPartOfIt)
{
  const std::int64_t side = 6000;
  std::string fits[2];
  Planes scores[2];
  for (int k = 0; k < 2; ++k)
  {
    PairScene scene;
    scene.pixels = std::make_shared<ComputedScene>(std::vector<int>{1, 1},
                                                   [](int image, int, std::int64_t x, std::int64_t y)
                                                   {
                                                     const auto hash = [](std::int64_t u, std::int64_t v, int s)
                                                     { return float((std::uint32_t(u * 73856093 ^ v * 19349663) * 2654435761u >> s) & 1023u); };
                                                     const float ground = hash(x / 3, y / 3, 5);
                                                     return image == 0 ? ground : 2000.f - .5f * ground + .1f * hash(x, y, 9);
                                                   });
    scene.inputs = Inputs({1, 1});
    scene.width = scene.height = side;
    scene.threads = 1 + k;
    scene.readBytes = k == 0 ? 1 : std::size_t(64) << 20;
    const auto score = Regress(scene, ResidualNorm::L2, {2.});
    double last = 0.;
    score->Fit(
        [&](double done)
        {
          EXPECT_GE(done, last);
          last = done;
        });
    EXPECT_DOUBLE_EQ(last, 1.);
    fits[k] = score->SaveFit();
    if (k == 0)
    {
      scores[k] = ScoreOf(*score, {3000, 5000, 3300, 5010});
      continue;
    }
    scores[k].assign(2, std::vector<float>(3000));
    for (int x = 0; x < 300; x += 50)
    {
      const auto tile = ScoreOf(*score, {3000 + x, 5000, 3050 + x, 5010});
      for (int i = 0; i < 1000; ++i)
      {
        scores[k][i / 500][i % 500 / 50 * 300 + x + i % 50] = tile[i / 500][i % 500];
      }
    }
  }
  EXPECT_EQ(fits[0], fits[1]);
  EXPECT_TRUE(SameBits(scores[0], scores[1]));
}

TEST(PairRegression, NobodyNeedsToListen)
{
  const auto source = LinearPair(30, 20, 2, 2, 4.f);
  EXPECT_NO_THROW(Regress(Pair(source))->Fit({}));
  EXPECT_NO_THROW(ChangeVector(Pair(source)).Fit({}));
  EXPECT_NO_THROW(AlterationDetector(Pair(source), 3).Fit({}));
  EXPECT_NO_THROW(SiblingScore(Pair(source)).Fit({}));
}

TEST(PairRegression, FitsOfSomethingElseAreErrors)
{
  ExpectFitErrors([](const PairScene& scene) { return Regress(scene); }, "regress");
  const auto source = LinearPair(20, 20, 2, 2, 1.f);
  const auto score = Regress(Pair(source));
  score->Fit([](double) {});
  EXPECT_THROW(Regress(Pair(source), ResidualNorm::L2, {2.})->LoadFit(score->SaveFit()), Error);
}

TEST(RegressionSource, PlanesAreTargetPredictionSourceAndResidual)
{
  const std::int64_t width = 300, height = 40;
  const auto source = LinearPair(width, height, 2, 2, 4.f);
  Pierce(*source);
  std::shared_ptr<PairRegression> regression = Regress(Pair(source));
  regression->Fit([](double) {});
  const int margin = regression->Margin();
  SceneReader reader = regression->MakeReader();
  reader.Read(reader.Image(), margin);
  RegressionSource pixels(regression);
  for (const Region& region : {Region{0, 0, width, height}, {250, 3, 291, 33}, {7, 39, 8, 40}})
  {
    const auto block = pixels.Read(region);
    EXPECT_EQ(block.region, region);
    ASSERT_EQ(block.bands.size(), 2u);
    PairRegression::Prediction prediction;
    regression->Predict(reader, region, prediction);
    for (int d = 0; d < 2; ++d)
    {
      ASSERT_EQ(block.bands[d].size(), 8u);
      for (std::int64_t i = 0; i < region.Area(); ++i)
      {
        const auto x = i % region.Width(), y = i / region.Width();
        const auto inside = (y + margin) * prediction.dates.width + x + margin;
        const bool valid = Valid(*source, (region.y0 + y) * width + region.x0 + x);
        for (int b = 0; b < 2; ++b)
        {
          const int target = 1 - d;
          const float wanted = prediction.dates.Plane(2 * target + b)[inside], given = prediction.dates.Plane(2 * d + b)[inside];
          const float predicted = (d == 0 ? prediction.of2 : prediction.of1)[b * region.Area() + i];
          const float expected[4] = {wanted, predicted, given, wanted - predicted};
          for (int k = 0; k < 4; ++k)
          {
            const auto& plane = block.bands[d][2 * k + b];
            const float got = plane.data[y * plane.strideY + x * plane.strideX];
            if (valid)
            {
              ASSERT_EQ(got, expected[k]) << d << ' ' << k << ' ' << i;
            }
            else
            {
              ASSERT_TRUE(std::isnan(got));
            }
          }
        }
      }
    }
  }
}

TEST(RegressionSource, DatesOfDifferentBandsAreAnError)
{
  std::shared_ptr<PairRegression> regression = Regress(Pair(LinearPair(20, 20, 2, 3, 1.f)));
  regression->Fit([](double) {});
  EXPECT_THROW(RegressionSource{regression}, Error);
}

// ---- change vectors

TEST(ChangeVector, IsTheLengthOfTheDifferenceOfStandardisedBands)
{
  const std::int64_t width = 50, height = 40;
  const auto source = LinearPair(width, height, 3, 3, 4.f, true);
  Pierce(*source);
  ChangeVector score(Pair(source));
  score.Fit([](double) {});
  const auto plane = ScoreOf(score, {0, 0, width, height})[0];
  SceneReader reader(source, Inputs({3, 3}), width, height);
  const auto scaling = FitScaling(reader, .01, true, {});
  for (std::int64_t i = 0; i < width * height; ++i)
  {
    double squares = 0.;
    for (int b = 0; b < 3; ++b)
    {
      const auto value = [&](int date)
      {
        const auto& s = scaling[3 * date + b];
        return (std::clamp<double>(source->planes[date][b][i], s.low, s.high) - s.offset) / s.divisor;
      };
      squares += (value(1) - value(0)) * (value(1) - value(0));
    }
    if (Valid(*source, i))
    {
      ASSERT_NEAR(plane[i], std::sqrt(squares), 2e-5);
    }
    else
    {
      ASSERT_TRUE(std::isnan(plane[i]));
    }
  }
}

TEST(ChangeVector, AnyRegionsThreadsAndReadsGiveTheSameBits)
{
  const auto source = LinearPair(530, 300, 3, 3, 4.f, true);
  Pierce(*source);
  ExpectInvariance(source, {{97, 83}, {530, 1}, {255, 257}}, [](const PairScene& scene) { return std::make_unique<ChangeVector>(scene); });
}

TEST(ChangeVector, FitsAndDatesOfSomethingElseAreErrors)
{
  ExpectFitErrors([](const PairScene& scene) { return std::make_unique<ChangeVector>(scene); }, "cva");
  EXPECT_THROW(ChangeVector(Pair(LinearPair(20, 20, 2, 3, 1.f))), Error);
}

// ---- alteration detection

TEST(ChiSquare, TailsAreThoseOfTables)
{
  const struct
  {
    double x;
    int degrees;
    double p;
  } known[] = {{3.841458821, 1, .05},  {5.991464547, 2, .05},  {7.814727903, 3, .05}, {9.487729037, 4, .05}, {11.07049769, 5, .05},
               {18.30703805, 10, .05}, {22.36203249, 13, .05}, {6.634896601, 1, .01}, {13.27670414, 4, .01}, {27.68824961, 13, .01},
               {.4549364231, 1, .5},   {2.365973884, 3, .5},   {1.063623217, 4, .9},  {20.51500565, 5, .001}};
  for (const auto& k : known)
  {
    EXPECT_NEAR(ChiSquareTail(k.x, k.degrees) / k.p, 1., 1e-6) << k.x << ' ' << k.degrees;
  }
  for (int degrees = 1; degrees < 14; ++degrees)
  {
    EXPECT_EQ(ChiSquareTail(0., degrees), 1.);
    EXPECT_EQ(ChiSquareTail(-3., degrees), 1.);
    double last = 1.;
    for (double x = .5; x < 1000.; x *= 1.1)
    {
      const double p = ChiSquareTail(x, degrees);
      EXPECT_LT(p, last);
      last = p;
    }
    for (const double x : {1e5, 1e40, 1e77, 1e300, std::numeric_limits<double>::infinity()})
    {
      EXPECT_EQ(ChiSquareTail(x, degrees), 0.) << x << ' ' << degrees;
    }
  }
}

/** Correlated Gaussian bands; a share of pixels of date 2 holds something unrelated. */
Source GaussianPair(std::int64_t width, std::int64_t height, int bands1, int bands2, double changed)
{
  auto scene = std::make_shared<MemoryScene>(width, height, std::vector<int>{bands1, bands2});
  scene->Fill(0, [&](int b, std::int64_t x, std::int64_t y)
              { return 50.f + 4.f * Noise(x, y, b, 3) + 2.f * Noise(x, y, (b + 1) % bands1, 3) + 1.f * Noise(x, y, b, 4); });
  scene->Fill(1,
              [&](int b, std::int64_t x, std::int64_t y)
              {
                const int stream = KeyedRandom(1, 2).Uniform(x, y, 0, 0) < changed ? 8 : 3;
                return 10.f + 3.f * Noise(x, y, b % bands1, stream) - 2.f * Noise(x, y, (b + 2) % bands1, stream) + 1.5f * Noise(x, y, b, 5);
              });
  return scene;
}

/** m v + c over the bands of an image. */
void Mix(MemoryScene& scene, int image, const std::vector<std::vector<float>>& m, float c)
{
  for (std::int64_t i = 0; i < scene.width * scene.height; ++i)
  {
    std::vector<float> mixed(m.size(), c);
    for (std::size_t b = 0; b < m.size(); ++b)
    {
      for (std::size_t k = 0; k < m.size(); ++k)
      {
        mixed[b] += m[b][k] * scene.planes[image][k][i];
      }
    }
    for (std::size_t b = 0; b < m.size(); ++b)
    {
      scene.planes[image][b][i] = mixed[b];
    }
  }
}

double WorstDifference(const Planes& a, const Planes& b)
{
  double worst = 0.;
  for (std::size_t i = 0; i < a[0].size(); ++i)
  {
    worst = std::max(worst, std::abs(double(a[0][i]) - b[0][i]));
  }
  return worst;
}

TEST(AlterationDetector, ScoresDoNotChangeWithAffineChangesOfEitherDate)
{
  for (const int iterations : {0, 20})
  {
    const auto source = GaussianPair(150, 120, 3, 3, .05);
    AlterationDetector plain(Pair(source, 0.), iterations);
    plain.Fit([](double) {});
    const auto want = ScoreOf(plain, {0, 0, 150, 120});
    Mix(*source, 0, {{2.f, .5f, -.3f}, {.1f, -1.f, .4f}, {.6f, .2f, 1.5f}}, 30.f);
    Mix(*source, 1, {{.01f, .002f, 0.f}, {.003f, .02f, -.004f}, {-.001f, .002f, .01f}}, -7.f);
    AlterationDetector mixed(Pair(source, 0.), iterations);
    mixed.Fit([](double) {});
    const auto got = ScoreOf(mixed, {0, 0, 150, 120});
    double worst = 0.;
    for (std::size_t i = 0; i < want[0].size(); ++i)
    {
      worst = std::max(worst, std::abs(double(got[0][i]) - want[0][i]) / std::max(1.f, want[0][i]));
    }
    EXPECT_LT(worst, 1e-3);
    RecordProperty("worst_" + std::to_string(iterations), std::to_string(1e6 * worst) + "e-6");
    for (int v = 0; v < 3; ++v)
    {
      EXPECT_NEAR(mixed.Correlations()[v], plain.Correlations()[v], 1e-5);
    }
  }
}

TEST(AlterationDetector, GainsOfBandsDoNotMatterWhenValuesAreClipped)
{
  const auto source = GaussianPair(150, 120, 3, 2, .05);
  AlterationDetector plain(Pair(source), 0);
  plain.Fit([](double) {});
  const auto want = ScoreOf(plain, {0, 0, 150, 120});
  Mix(*source, 0, {{-3.f, 0.f, 0.f}, {0.f, .1f, 0.f}, {0.f, 0.f, 100.f}}, 30.f);
  AlterationDetector mixed(Pair(source), 0);
  mixed.Fit([](double) {});
  EXPECT_LT(WorstDifference(ScoreOf(mixed, {0, 0, 150, 120}), want), 1e-3);
}

TEST(AlterationDetector, SquaresOfUnchangedPairsAreChiSquare)
{
  for (const int bands1 : {2, 4})
  {
    const int variates = std::min(bands1, 3);
    const auto source = GaussianPair(500, 400, bands1, 3, 0.);
    AlterationDetector score(Pair(source, 0.), 0);
    score.Fit([](double) {});
    const auto plane = ScoreOf(score, {0, 0, 500, 400})[0];
    double mean = 0., below[3] = {};
    for (const float v : plane)
    {
      mean += double(v) * v / double(plane.size());
      const double p = ChiSquareTail(double(v) * v, variates);
      below[0] += (p < .5) / double(plane.size());
      below[1] += (p < .05) / double(plane.size());
      below[2] += (p < .01) / double(plane.size());
    }
    EXPECT_NEAR(mean, variates, .02 * variates);
    EXPECT_NEAR(below[0], .5, .01);
    EXPECT_NEAR(below[1], .05, .003);
    EXPECT_NEAR(below[2], .01, .0015);
  }
}

TEST(AlterationDetector, ReweightingRaisesCorrelationsWhereATenthChanged)
{
  const auto changed = GaussianPair(300, 250, 3, 3, .1), clean = GaussianPair(300, 250, 3, 3, 0.);
  AlterationDetector mad(Pair(changed), 0), irmad(Pair(changed), 30), truth(Pair(clean), 0);
  mad.Fit([](double) {});
  irmad.Fit([](double) {});
  truth.Fit([](double) {});
  EXPECT_EQ(mad.Iterations(), 0);
  EXPECT_GT(irmad.Iterations(), 1);
  EXPECT_LE(irmad.Iterations(), 30);
  EXPECT_TRUE(std::is_sorted(irmad.Correlations().begin(), irmad.Correlations().end()));
  for (int v = 0; v < 3; ++v)
  {
    EXPECT_GT(irmad.Correlations()[v], mad.Correlations()[v] + .02);
    RecordProperty("plain_" + std::to_string(v), std::to_string(mad.Correlations()[v]));
    RecordProperty("reweighted_" + std::to_string(v), std::to_string(irmad.Correlations()[v]));
    RecordProperty("unchanged_" + std::to_string(v), std::to_string(truth.Correlations()[v]));
  }
  AlterationDetector few(Pair(changed), 2);
  few.Fit([](double) {});
  EXPECT_LE(few.Iterations(), 2);
}

TEST(AlterationDetector, ReweightedSquaresOfUnchangedPixelsAreNearChiSquare)
{
  for (const double changed : {0., .1})
  {
    const auto source = GaussianPair(300, 250, 3, 3, changed);
    AlterationDetector score(Pair(source), 30);
    score.Fit({});
    const auto plane = ScoreOf(score, {0, 0, 300, 250})[0];
    double alarms = 0., unchanged = 0.;
    for (std::int64_t i = 0; i < 300 * 250; ++i)
    {
      if (!(KeyedRandom(1, 2).Uniform(i % 300, i / 300, 0, 0) < changed))
      {
        alarms += ChiSquareTail(double(plane[i]) * plane[i], 3) <= .01;
        ++unchanged;
      }
    }
    RecordProperty("alarms_" + std::to_string(changed), std::to_string(alarms / unchanged));
    EXPECT_NEAR(alarms / unchanged, changed > 0. ? .006 : .01, .003);
  }
}

TEST(AlterationDetector, DatesMayBeExchanged)
{
  for (const int bands2 : {2, 3, 4})
  {
    const auto source = GaussianPair(100, 90, 3, bands2, .05);
    const auto other = std::make_shared<MemoryScene>(100, 90, std::vector<int>{bands2, 3});
    other->planes = {source->planes[1], source->planes[0]};
    for (const int iterations : {0, 10})
    {
      AlterationDetector one(Pair(source), iterations), two(Pair(other), iterations);
      one.Fit([](double) {});
      two.Fit([](double) {});
      EXPECT_LT(WorstDifference(ScoreOf(one, {0, 0, 100, 90}), ScoreOf(two, {0, 0, 100, 90})), 1e-3) << bands2;
    }
  }
}

TEST(AlterationDetector, EqualDatesConstantBandsAndNoDataAreWithstood)
{
  auto source = GaussianPair(60, 50, 3, 3, 0.);
  source->planes[1] = source->planes[0];
  for (const int iterations : {0, 10})
  {
    AlterationDetector equal(Pair(source), iterations);
    equal.Fit([](double) {});
    const auto plane = ScoreOf(equal, {0, 0, 60, 50})[0];
    for (const float v : plane)
    {
      ASSERT_LT(v, .01f);
    }
  }
  std::fill(source->planes[0][1].begin(), source->planes[0][1].end(), 5.f);
  AlterationDetector constant(Pair(source), 10);
  constant.Fit([](double) {});
  const auto flat = ScoreOf(constant, {0, 0, 60, 50})[0];
  for (const float v : flat)
  {
    ASSERT_TRUE(std::isfinite(v));
  }
  source->Fill(0, [](int, std::int64_t, std::int64_t) { return missing; });
  AlterationDetector empty(Pair(source), 10), again(Pair(source), 10);
  empty.Fit([](double) {});
  ASSERT_NO_THROW(again.LoadFit(empty.SaveFit()));
  const auto none = ScoreOf(again, {0, 0, 60, 50})[0];
  for (const float v : none)
  {
    ASSERT_TRUE(std::isnan(v));
  }
}

TEST(AlterationDetector, AnyRegionsThreadsAndReadsGiveTheSameBits)
{
  const auto source = LinearPair(530, 300, 2, 3, 4.f, true);
  Pierce(*source);
  ExpectInvariance(source, {{97, 83}, {530, 1}, {255, 257}}, [](const PairScene& scene) { return std::make_unique<AlterationDetector>(scene, 5); });
}

TEST(AlterationDetector, FitsOfSomethingElseAreErrors)
{
  ExpectFitErrors([](const PairScene& scene) { return std::make_unique<AlterationDetector>(scene, 0); }, "mad");
  ExpectFitErrors([](const PairScene& scene) { return std::make_unique<AlterationDetector>(scene, 4); }, "irmad");
}

// ---- sibling regression

TEST(SiblingScore, IsSiblingRegressionBetweenThePercentilesOfTheScene)
{
  const std::int64_t width = 48, height = 40;
  const auto source = LinearPair(width, height, 2, 2, 4.f, true);
  Pierce(*source);
  SiblingScore score(Pair(source));
  score.Fit([](double) {});
  const auto got = ScoreOf(score, {0, 0, width, height})[0];
  SceneReader reader(source, Inputs({2, 2}), width, height);
  const auto scaling = FitScaling(reader, .01, true, {});
  const auto ranges = [&](int first) {
    return std::vector<SiblingRange>{{scaling[first].low, scaling[first].high}, {scaling[first + 1].low, scaling[first + 1].high}};
  };
  const SiblingRegression siblings({}, ranges(0), ranges(2));
  const auto window = [&](int margin, SceneWindow& w)
  {
    reader.Read(reader.Image(), margin);
    reader.Window({-margin, -margin, width + margin, height + margin}, 0, 2, {}, w);
    return SiblingRegression::Window{w.Plane(0), w.Plane(2), w.valid.data(), w.width, w.height};
  };
  SceneWindow counted, voted;
  auto histograms = siblings.EmptyHistograms();
  siblings.Count(window(siblings.CountMargin(), counted), histograms);
  std::vector<float> want(width * height);
  siblings.Vote(window(siblings.VoteMargin(), voted), siblings.Thresholds(histograms), want.data());
  for (std::int64_t i = 0; i < width * height; ++i)
  {
    ASSERT_EQ(std::isnan(got[i]), !Valid(*source, i));
    if (!std::isnan(got[i]))
    {
      ASSERT_EQ(got[i], want[i]);
    }
  }
}

TEST(SiblingScore, AnyRegionsThreadsAndReadsGiveTheSameBits)
{
  const auto source = LinearPair(48, 40, 1, 1, 4.f, true);
  Pierce(*source);
  ExpectInvariance(source, {{31, 23}}, [](const PairScene& scene) { return std::make_unique<SiblingScore>(scene); });
}

TEST(SiblingScore, FitsAndDatesOfSomethingElseAreErrors)
{
  ExpectFitErrors([](const PairScene& scene) { return std::make_unique<SiblingScore>(scene); }, "siroc");
  EXPECT_THROW(SiblingScore(Pair(LinearPair(20, 20, 2, 3, 1.f))), Error);
}

} // namespace
