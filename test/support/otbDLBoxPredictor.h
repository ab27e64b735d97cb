/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLBoxPredictor_h
#define otbDLBoxPredictor_h

// A network and a decision of a few lines each, whose results can be worked out by hand.
#include "otbDLMapOperator.h"
#include "otbDLPredictor.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace otbtest
{

using namespace otb::dl;

/** A "network" whose output is the mean of the (2r+1)^2 neighbours over all bands, zero-padded like a convolution; or, when global, scaled by the mean of the
 * whole patch, as a network with group normalisation would. */
class BoxPredictor : public Predictor
{
public:
  BoxPredictor(int batch, int bands, int patch, int radius, bool global)
      : m_Batch(batch), m_Bands(bands), m_Patch(patch), m_Radius(radius), m_Global(global), m_In(std::size_t(batch) * bands * patch * patch),
        m_Out(std::size_t(batch) * patch * patch)
  {
  }
  int BatchSize() const override { return m_Batch; }
  int CallSize() const override { return m_Batch; }
  int Outputs() const override { return 1; }
  BatchView Input(int) override
  {
    const std::ptrdiff_t plane = m_Patch * m_Patch;
    return {m_In.data(), m_Bands, plane * m_Bands, plane, m_Patch, 1};
  }
  BatchView Output(int) override
  {
    const std::ptrdiff_t plane = m_Patch * m_Patch;
    return {m_Out.data(), 1, plane, plane, m_Patch, 1};
  }
  void Run(int) override
  {
    ++calls;
    for (int n = 0; n < m_Batch; ++n)
    {
      const auto in = Input(0);
      double all = 0.;
      for (int c = 0; m_Global && c < m_Bands; ++c)
      {
        for (int i = 0; i < m_Patch * m_Patch; ++i)
        {
          all += *in.At(n, c, 0, i);
        }
      }
      const double factor = m_Global ? 1. + std::abs(all) / (m_Bands * m_Patch * m_Patch) : 1.;
      for (int y = 0; y < m_Patch; ++y)
      {
        for (int x = 0; x < m_Patch; ++x)
        {
          double sum = 0.;
          for (int c = 0; c < m_Bands; ++c)
          {
            for (int v = std::max(0, y - m_Radius); v <= std::min(m_Patch - 1, y + m_Radius); ++v)
            {
              for (int u = std::max(0, x - m_Radius); u <= std::min(m_Patch - 1, x + m_Radius); ++u)
              {
                sum += *in.At(n, c, v, u);
              }
            }
          }
          const float value = static_cast<float>(sum * factor);
          *Output(0).At(n, 0, y, x) = value > nanAbove ? std::numeric_limits<float>::quiet_NaN() : value;
        }
      }
    }
  }
  int calls = 0;
  float nanAbove = std::numeric_limits<float>::infinity();

private:
  int m_Batch, m_Bands, m_Patch, m_Radius;
  bool m_Global;
  std::vector<float> m_In, m_Out;
};

/** Score = output; results: the score, and whether it is above 0. */
class Identity : public MapOperator
{
public:
  static constexpr float noData = -7.f;

  int ScoreChannels() const override { return 1; }
  int ResultChannels() const override { return 2; }
  const std::vector<float>& NoData() const override { return m_NoData; }
  void Score(const std::vector<BatchView>& outputs, int n, const Region& part, float* scores) const override
  {
    for (std::int64_t y = 0; y < part.Height(); ++y)
    {
      for (std::int64_t x = 0; x < part.Width(); ++x)
      {
        scores[y * part.Width() + x] = *outputs[0].At(n, 0, part.y0 + y, part.x0 + x);
      }
    }
  }
  void Decide(const float* scores, std::ptrdiff_t, std::ptrdiff_t count, float* results, std::ptrdiff_t stride) const override
  {
    for (std::ptrdiff_t i = 0; i < count; ++i)
    {
      results[i] = scores[i];
      results[stride + i] = scores[i] > 0.f;
    }
  }

private:
  std::vector<float> m_NoData = {noData, 9.f};
};

} // namespace otbtest

#endif
