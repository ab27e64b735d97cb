/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLAnalyticField_h
#define otbDLAnalyticField_h

// "Networks" that know the distribution of their data, so that scores can be worked out by hand.
#include "otbDLModelContract.h"
#include "otbDLPredictor.h"

#include <cmath>
#include <cstddef>
#include <functional>
#include <utility>
#include <vector>

namespace otbtest
{

using namespace otb::dl;

/** Memory of a batch, planar or with the channels last. */
class BatchMemory
{
public:
  BatchMemory(int batch, int channels, int side, bool channelsLast = false) : m_Values(std::size_t(batch) * channels * side * side)
  {
    const std::ptrdiff_t plane = std::ptrdiff_t(side) * side;
    view = channelsLast ? BatchView{nullptr, channels, plane * channels, 1, std::ptrdiff_t(side) * channels, channels}
                        : BatchView{nullptr, channels, plane * channels, plane, side, 1};
  }
  BatchView View()
  {
    view.data = m_Values.data();
    return view;
  }

private:
  std::vector<float> m_Values;
  BatchView view;
};

/** The denoiser of independent Gaussian values: N(mean, deviation^2) without the condition, N(weight * condition, 1 - weight^2) with it. Inputs: image, time,
 * condition, flag. */
class AnalyticField : public DifferentiablePredictor
{
public:
  struct Law
  {
    FieldKind kind = FieldKind::Velocity;
    std::function<std::pair<double, double>(double)> levelOf; ///< alpha and sigma of a time
    double mean = 0.;
    double deviation = 1.;
    double weight = 0.;
    double mixing = 0.; ///< covariance of the first two channels, of variance deviation^2 (then mean 0, no condition)
    bool variance = false;
  };

  AnalyticField(int batch, int channels, int side, Law law)
      : runs(0), m_Batch(batch), m_Channels(channels), m_Side(side), m_Law(std::move(law)), m_Image(batch, channels, side, true),
        m_Condition(batch, channels, side), m_Out(batch, channels * (m_Law.variance ? 2 : 1), side), m_Probe(batch, channels * (m_Law.variance ? 2 : 1), side),
        m_Product(batch, channels, side), m_Time(batch), m_Flag(batch), m_PlacesX(batch), m_PlacesY(batch)
  {
  }
  int BatchSize() const override { return m_Batch; }
  int CallSize() const override { return m_Batch; }
  int Outputs() const override { return 1; }
  BatchView Input(int k) override
  {
    return k == 0 ? m_Image.View() : k == 2 ? m_Condition.View() : BatchView{(k == 1 ? m_Time : m_Flag).data(), 1, 1, 0, 0, 0};
  }
  BatchView Output(int) override { return m_Out.View(); }
  BatchView Probe() override { return m_Probe.View(); }
  void Place(int n, std::int64_t x, std::int64_t y) override
  {
    m_PlacesX[n] = x;
    m_PlacesY[n] = y;
  }
  void Run(int filled) override
  {
    ++runs;
    evaluations += filled;
    m_Filled = filled;
    times.insert(times.end(), m_Time.begin(), m_Time.begin() + filled);
    flags.insert(flags.end(), m_Flag.begin(), m_Flag.begin() + filled);
    ForAll(
        [&](int n, int c, int y, int x, double alpha, double sigma)
        {
          const auto in = [&](int channel) { return static_cast<double>(*m_Image.View().At(n, channel, y, x)); };
          const Law law = Seen(n, c, y, x);
          double data, noise;
          if (m_Law.mixing != 0. && c < 2)
          {
            double ofData[2], ofNoise[2];
            Rows(c, alpha, sigma, ofData, ofNoise);
            data = ofData[0] * in(0) + ofData[1] * in(1);
            noise = ofNoise[0] * in(0) + ofNoise[1] * in(1);
          }
          else
          {
            const double total = alpha * alpha * law.deviation * law.deviation + sigma * sigma, off = in(c)-alpha * law.mean;
            data = law.mean + alpha * law.deviation * law.deviation / total * off;
            noise = sigma / total * off;
          }
          *m_Out.View().At(n, c, y, x) = static_cast<float>(Told(data, noise, alpha, sigma));
          if (m_Law.variance)
          {
            *m_Out.View().At(n, m_Channels + c, y, x) = 1e6f;
          }
        });
  }
  BatchView Pullback() override
  {
    ++pullbacks;
    ForAll(
        [&](int n, int c, int y, int x, double alpha, double sigma)
        {
          const Law law = Seen(n, c, y, x);
          const auto e = [&](int channel) { return static_cast<double>(*m_Probe.View().At(n, channel, y, x)); };
          if (m_Law.variance)
          {
            probedVariance = probedVariance || e(m_Channels + c) != 0.;
          }
          double product;
          if (m_Law.mixing != 0. && c < 2)
          {
            double ofData[2], ofNoise[2];
            Rows(c, alpha, sigma, ofData, ofNoise);
            product = Told(ofData[0], ofNoise[0], alpha, sigma) * e(0) + Told(ofData[1], ofNoise[1], alpha, sigma) * e(1);
          }
          else
          {
            const double total = alpha * alpha * law.deviation * law.deviation + sigma * sigma;
            product = Told(alpha * law.deviation * law.deviation / total, sigma / total, alpha, sigma) * e(c);
          }
          *m_Product.View().At(n, c, y, x) = static_cast<float>(product);
        });
    return m_Product.View();
  }

  int runs;
  int evaluations = 0;
  int pullbacks = 0;
  bool probedVariance = false;
  std::vector<float> times, flags;

private:
  /** The output, which is linear in data and noise. */
  double Told(double data, double noise, double alpha, double sigma) const
  {
    switch (m_Law.kind)
    {
    case FieldKind::Velocity:
      return data - noise;
    case FieldKind::Epsilon:
      return noise;
    case FieldKind::VDiffusion:
      return alpha * noise - sigma * data;
    case FieldKind::Score:
      return -noise / sigma;
    default:
      return data;
    }
  }
  /** Row c of alpha C (alpha^2 C + sigma^2)^-1 and of sigma (alpha^2 C + sigma^2)^-1, C the covariance: symmetric, with an equal diagonal. */
  void Rows(int c, double alpha, double sigma, double* ofData, double* ofNoise) const
  {
    const double plus = m_Law.deviation * m_Law.deviation + m_Law.mixing, minus = m_Law.deviation * m_Law.deviation - m_Law.mixing;
    const auto fill = [c](double ofPlus, double ofMinus, double* row)
    {
      row[c] = (ofPlus + ofMinus) / 2.;
      row[1 - c] = (ofPlus - ofMinus) / 2.;
    };
    const auto total = [&](double eigenvalue) { return alpha * alpha * eigenvalue + sigma * sigma; };
    fill(alpha * plus / total(plus), alpha * minus / total(minus), ofData);
    fill(sigma / total(plus), sigma / total(minus), ofNoise);
  }
  Law Seen(int n, int c, int y, int x)
  {
    Law law = m_Law;
    if (m_Flag[n] == 1.f)
    {
      law.mean = m_Law.weight * *m_Condition.View().At(n, c, y, x);
      law.deviation = std::sqrt(1. - m_Law.weight * m_Law.weight);
    }
    return law;
  }
  template <typename TFunction>
  void ForAll(TFunction f)
  {
    for (int n = 0; n < m_Filled; ++n)
    {
      const auto level = m_Law.levelOf(m_Time[n]);
      for (int c = 0; c < m_Channels; ++c)
      {
        for (int y = 0; y < m_Side; ++y)
        {
          for (int x = 0; x < m_Side; ++x)
          {
            f(n, c, y, x, level.first, level.second);
          }
        }
      }
    }
  }

  int m_Batch, m_Channels, m_Side;
  int m_Filled = 0;
  Law m_Law;
  BatchMemory m_Image, m_Condition, m_Out, m_Probe, m_Product;
  std::vector<float> m_Time, m_Flag;
  std::vector<std::int64_t> m_PlacesX, m_PlacesY;
};

/** A function of whole slots: f(n, inputs, output). */
class FunctionPredictor : public Predictor
{
public:
  using Function = std::function<void(int, std::vector<BatchView>&, BatchView&)>;
  FunctionPredictor(int batch, const std::vector<std::pair<int, int>>& inputs, int channels, int side, Function function)
      : m_Batch(batch), m_Out(batch, channels, side), m_Function(std::move(function))
  {
    for (const auto& input : inputs)
    {
      m_In.emplace_back(batch, input.first, input.second);
    }
  }
  int BatchSize() const override { return m_Batch; }
  int CallSize() const override { return m_Batch; }
  int Outputs() const override { return 1; }
  BatchView Input(int k) override { return m_In[k].View(); }
  BatchView Output(int) override { return m_Out.View(); }
  void Run(int filled) override
  {
    std::vector<BatchView> inputs;
    for (auto& in : m_In)
    {
      inputs.push_back(in.View());
    }
    BatchView output = m_Out.View();
    for (int n = 0; n < filled; ++n)
    {
      m_Function(n, inputs, output);
    }
  }

private:
  int m_Batch;
  std::vector<BatchMemory> m_In;
  BatchMemory m_Out;
  Function m_Function;
};

} // namespace otbtest

#endif
