/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLNetworkScore.h"

#include "otbDLMapOperator.h"
#include "otbDLPatchSource.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

namespace otb
{
namespace dl
{

namespace
{

constexpr float none = std::numeric_limits<float>::quiet_NaN();

/** Scores as they are. */
class PlainScores : public MapOperator
{
public:
  explicit PlainScores(int planes) : m_NoData(static_cast<std::size_t>(planes), none) {}

  int ScoreChannels() const override { return static_cast<int>(m_NoData.size()); }

  void Score(const std::vector<BatchView>& outputs, int n, const Region& part, float* scores) const override
  {
    for (int c = 0; c < ScoreChannels(); ++c)
    {
      for (std::int64_t y = part.y0; y < part.y1; ++y)
      {
        for (std::int64_t x = part.x0; x < part.x1; ++x)
        {
          *scores++ = *outputs[0].At(n, c, y, x);
        }
      }
    }
  }

  int ResultChannels() const override { return ScoreChannels(); }
  const std::vector<float>& NoData() const override { return m_NoData; }

  void Decide(const float* scores, std::ptrdiff_t scoreStride, std::ptrdiff_t count, float* results, std::ptrdiff_t resultStride) const override
  {
    for (int c = 0; c < ScoreChannels(); ++c)
    {
      std::copy(scores + c * scoreStride, scores + c * scoreStride + count, results + c * resultStride);
    }
  }

private:
  std::vector<float> m_NoData;
};

class DirectionsPredictor : public Predictor
{
public:
  DirectionsPredictor(std::unique_ptr<Predictor> network, int height, int width) : m_Network(std::move(network)), m_Height(height), m_Width(width)
  {
    // Batches are dense: the first slot's distance to the second, times the slots.
    const auto elements = static_cast<std::size_t>(m_Network->Input(0).strideN) * static_cast<std::size_t>(m_Network->BatchSize());
    m_Inputs[0].resize(elements);
    m_Inputs[1].resize(elements);
    m_Output.resize(static_cast<std::size_t>(2 * m_Network->BatchSize()) * static_cast<std::size_t>(height * width));
  }

  int BatchSize() const override { return m_Network->BatchSize(); }
  int CallSize() const override { return m_Network->CallSize(); }

  BatchView Input(int k) override
  {
    BatchView view = m_Network->Input(0);
    view.data = m_Inputs[k].data();
    return view;
  }

  void Run(int filled) override
  {
    for (int d = 0; d < 2; ++d)
    {
      std::memcpy(m_Network->Input(0).data, m_Inputs[d].data(), m_Inputs[d].size() * sizeof(float));
      m_Network->Run(filled);
      const BatchView from = m_Network->Output(0), to = Output(0);
      for (int n = 0; n < filled; ++n)
      {
        for (int y = 0; y < m_Height; ++y)
        {
          for (int x = 0; x < m_Width; ++x)
          {
            *to.At(n, d, y, x) = *from.At(n, 0, y, x);
          }
        }
      }
    }
  }

  int Outputs() const override { return 1; }

  BatchView Output(int) override
  {
    const std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(m_Height) * m_Width;
    return {m_Output.data(), 2, 2 * plane, plane, m_Width, 1};
  }

private:
  std::unique_ptr<Predictor> m_Network;
  int m_Height;
  int m_Width;
  std::vector<float> m_Inputs[2];
  std::vector<float> m_Output;
};

/** Values that are ready: nothing is clipped, shifted or missing but NaN. */
InputNormalisation Ready(int bands)
{
  InputNormalisation n;
  n.scaling.resize(static_cast<std::size_t>(bands));
  n.noData.assign(static_cast<std::size_t>(bands), 0.);
  n.hasNoData.assign(static_cast<std::size_t>(bands), false);
  return n;
}

} // namespace

NetworkScore::NetworkScore(const PatchGrid& grid, std::shared_ptr<Predictor> predictor, std::shared_ptr<PatchSource> source, int planes,
                           const EngineSettings& settings)
    : m_Planes(planes), m_Engine(grid, std::move(predictor), std::make_shared<PlainScores>(planes), std::move(source), settings)
{
}

void NetworkScore::Score(const Region& region, const std::vector<float*>& planes, const Progress& progress)
{
  std::vector<ResultPlane> results;
  for (float* plane : planes)
  {
    results.push_back({plane, 1, region.Width()});
  }
  m_Engine.Produce(region, results, [&progress](double) { progress ? progress(0.) : void(); });
  if (progress)
  {
    progress(1.);
  }
}

RatioScore::RatioScore(std::shared_ptr<PairRegression> regression, const PatchGrid& grid, std::shared_ptr<Predictor> predictor, const EngineSettings& settings)
    : m_Regression(std::move(regression))
{
  const int bands = 4 * m_Regression->Bands(0);
  auto source = std::make_shared<ImagePatchSource>(std::make_shared<RegressionSource>(m_Regression), std::vector<InputNormalisation>(2, Ready(bands)),
                                                   grid.Image().Width(), grid.Image().Height());
  m_Network = std::make_unique<NetworkScore>(grid, std::move(predictor), std::move(source), 2, settings);
}

void RatioScore::Fit(const Progress& progress)
{
  m_Regression->Fit(progress);
}

void RatioScore::LoadFit(const std::string& json)
{
  m_Regression->LoadFit(json);
}

void RatioScore::Score(const Region& region, const std::vector<float*>& planes, const Progress& progress)
{
  m_Regression->Score(region, {planes[0], planes[2]}, {});
  m_Network->Score(region, {planes[1], planes[3]}, progress);
}

std::unique_ptr<Predictor> MakeDirectionsPredictor(std::unique_ptr<Predictor> network, int height, int width)
{
  return std::make_unique<DirectionsPredictor>(std::move(network), height, width);
}

} // namespace dl
} // namespace otb
