/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLPairFeatures.h"

#include "otbDLGaussian.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace otb
{
namespace dl
{

namespace
{

constexpr float none = std::numeric_limits<float>::quiet_NaN();

/** Pixels that the mean and the deviation of the score are taken from, about; all of a scene that has fewer. */
constexpr std::int64_t scorePixels = std::int64_t(16) << 20;

/** The two images of a pair, of all that a source gives. */
class ImagesOfPair : public PixelSource
{
public:
  ImagesOfPair(std::shared_ptr<PixelSource> pixels, int first, int second) : m_Pixels(std::move(pixels)), m_First(first), m_Second(second) {}

  PixelBlock Read(const Region& region) override
  {
    PixelBlock all = m_Pixels->Read(region);
    all.bands = {all.bands[m_First], all.bands[m_Second]};
    return all;
  }

private:
  std::shared_ptr<PixelSource> m_Pixels;
  int m_First;
  int m_Second;
};

} // namespace

bool IsPairFeature(const ModelInput& input)
{
  return input.role == "regression" || input.role == "regression_score";
}

InputNormalisation PairFeatureNormalisation(const ModelInput& input)
{
  InputNormalisation ready;
  const auto channels = static_cast<std::size_t>(input.channels);
  ready.scaling.resize(channels);
  ready.noData.assign(channels, 0.);
  ready.hasNoData.assign(channels, false);
  ready.fill = input.noDataFill;
  return ready;
}

PairFeatures::PairFeatures(std::shared_ptr<PixelSource> pixels, std::vector<ModelInput> inputs, const std::vector<InputNormalisation>& normalisations,
                           std::int64_t width, std::int64_t height, int threads, std::size_t readBytes)
    : m_Pixels(std::move(pixels)), m_Inputs(std::move(inputs)), m_Image{0, 0, width, height}, m_Kernel(GaussianKernel(smooth))
{
  int image[2] = {0, 0};
  for (std::size_t k = 0; k < m_Inputs.size(); ++k)
  {
    if (m_Inputs[k].role == "image")
    {
      image[m_Inputs[k].date == 2] = static_cast<int>(k);
    }
    m_HasScore = m_HasScore || m_Inputs[k].role == "regression_score";
  }
  PairScene scene;
  scene.pixels = std::make_shared<ImagesOfPair>(m_Pixels, image[0], image[1]);
  scene.inputs = {normalisations[image[0]], normalisations[image[1]]};
  scene.width = width;
  scene.height = height;
  scene.threads = threads;
  scene.readBytes = readBytes;
  m_Bands = static_cast<int>(scene.inputs[0].scaling.size());
  m_Regression = std::make_shared<PairRegression>(std::move(scene), RegressionSettings());
}

void PairFeatures::Fit(const SceneScore::Progress& progress)
{
  m_Regression->Fit([&](double done) { progress ? progress(.5 * done) : void(); });
  m_Source = std::make_unique<RegressionSource>(m_Regression);
  if (!m_HasScore)
  {
    return;
  }
  const auto cells = SceneCells(m_Image.Width(), m_Image.Height(), scorePixels);
  double sum = 0., squares = 0.;
  std::int64_t count = 0;
  for (std::size_t k = 0; k < cells.size(); ++k)
  {
    m_Made = m_Source->Read(Intersection(Grown(cells[k], KernelRadius(m_Kernel)), m_Image));
    SmoothedScore(cells[k], m_Score);
    for (const float v : m_Score)
    {
      if (std::isfinite(v))
      {
        sum += v;
        squares += static_cast<double>(v) * v;
        ++count;
      }
    }
    if (progress)
    {
      progress(.5 + .5 * static_cast<double>(k + 1) / static_cast<double>(cells.size()));
    }
  }
  m_Mean = count ? sum / static_cast<double>(count) : 0.;
  const double variance = count ? squares / static_cast<double>(count) - m_Mean * m_Mean : 0.;
  m_Deviation = variance > 0. ? std::sqrt(variance) : 1.;
}

/** From m_Made, which holds the region with a margin of the kernel's radius, cut at the image. */
void PairFeatures::SmoothedScore(const Region& region, std::vector<float>& score)
{
  const int radius = KernelRadius(m_Kernel);
  const Region window = Grown(region, radius);
  const Region& made = m_Made.region;
  const std::ptrdiff_t width = window.Width();
  m_Window.assign(static_cast<std::size_t>(window.Area()), none);
  for (std::int64_t y = made.y0; y < made.y1; ++y)
  {
    float* to = m_Window.data() + (y - window.y0) * width + (made.x0 - window.x0);
    for (std::int64_t x = 0; x < made.Width(); ++x)
    {
      float length = 0.f;
      for (int d = 0; d < 2; ++d)
      {
        float sum = 0.f;
        for (int b = 0; b < m_Bands; ++b)
        {
          const PlaneView& residual = m_Made.bands[d][3 * m_Bands + b];
          const float r = residual.data[(y - made.y0) * residual.strideY + x * residual.strideX];
          sum += r * r;
        }
        length += std::sqrt(sum);
      }
      to[x] = .5f * length;
    }
  }
  SmoothScores(m_Window, width, window.Height(), m_Kernel, score);
}

PixelBlock PairFeatures::Read(const Region& region)
{
  const Region grown = m_HasScore ? Intersection(Grown(region, KernelRadius(m_Kernel)), m_Image) : region;
  m_Made = m_Source->Read(grown);
  if (m_HasScore)
  {
    SmoothedScore(region, m_Score);
    const auto mean = static_cast<float>(m_Mean), deviation = static_cast<float>(m_Deviation);
    for (float& v : m_Score)
    {
      v = (v - mean) / deviation;
    }
  }
  // The images last: what the regression read before is gone by then, as it may.
  PixelBlock block = m_Pixels->Read(region);
  for (std::size_t k = 0; k < m_Inputs.size(); ++k)
  {
    const ModelInput& input = m_Inputs[k];
    if (input.role == "regression_score")
    {
      block.bands[k] = {{m_Score.data(), 1, static_cast<std::ptrdiff_t>(region.Width())}};
    }
    else if (input.role == "regression")
    {
      block.bands[k].clear();
      for (PlaneView plane : m_Made.bands[input.date == 2 ? 0 : 1]) // those of date 2 come first
      {
        plane.data += (region.y0 - grown.y0) * plane.strideY + (region.x0 - grown.x0) * plane.strideX;
        block.bands[k].push_back(plane);
      }
    }
  }
  return block;
}

} // namespace dl
} // namespace otb
