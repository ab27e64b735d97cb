/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLChangeDecision.h"

#include "otbDLError.h"
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

/** NaN where z is not finite: what a network says there is not to be trusted. */
float Sigmoid(float z)
{
  return std::isfinite(z) ? 1.f / (1.f + std::exp(-z)) : std::numeric_limits<float>::quiet_NaN();
}

/** Softmax of n values at distance `stride`, in place. */
void Softmax(float* z, int n, std::ptrdiff_t stride)
{
  float most = z[0];
  for (int c = 1; c < n; ++c)
  {
    most = std::max(most, z[c * stride]);
  }
  float sum = 0.f;
  for (int c = 0; c < n; ++c)
  {
    z[c * stride] = std::exp(z[c * stride] - most);
    sum += z[c * stride];
  }
  for (int c = 0; c < n; ++c)
  {
    z[c * stride] /= sum;
  }
}

int IndexOf(const ModelContract& contract, const char* role)
{
  const auto* output = contract.FindOutput(role);
  return output ? static_cast<int>(output - contract.outputs.data()) : -1;
}

} // namespace

float ChangeDecision::NoDataOf(Result result, int classes)
{
  switch (result)
  {
  case Change:
    return classes * classes < 255 ? 255.f : 65535.f;
  case Class1:
  case Class2:
    return 255.f;
  default:
    return -1.f;
  }
}

ChangeDecision::ChangeDecision(const ModelContract& contract, std::vector<Result> wanted, Settings settings)
    : m_Wanted(std::move(wanted)), m_Outputs(contract.outputs.size()), m_Temperatures(settings.temperatures.begin(), settings.temperatures.end()),
      m_Views(settings.views), m_Threshold(static_cast<float>(settings.threshold))
{
  if (m_Temperatures.empty())
  {
    m_Temperatures.push_back(static_cast<float>(contract.temperature));
  }
  if (settings.window > 1)
  {
    // The kernel ends at three standard deviations.
    m_Window = GaussianKernel((settings.window - 1) / 6.);
  }
  if (contract.task != "change-detection")
  {
    throw Error(Complaint("model", "a model of task " + contract.task, "change-detection", "Choose the application of that task."));
  }
  if (IndexOf(contract, "transition_logits") >= 0)
  {
    m_Head = Head::Transition;
    m_ChangeIndex = IndexOf(contract, "transition_logits");
    for (const auto& c : contract.outputs[m_ChangeIndex].classes)
    {
      m_Values[0].push_back(c.value);
      m_Values[1].push_back(c.value);
    }
  }
  else
  {
    m_ChangeIndex = std::max(IndexOf(contract, "change_logits"), IndexOf(contract, "change_probability"));
    m_ChangeIsProbability = IndexOf(contract, "change_probability") >= 0;
    m_ClassIndex[0] = IndexOf(contract, "sem1_logits");
    m_ClassIndex[1] = IndexOf(contract, "sem2_logits");
    if (m_ClassIndex[0] >= 0)
    {
      m_Head = Head::Semantic;
      for (int d = 0; d < 2; ++d)
      {
        for (const auto& c : contract.outputs[m_ClassIndex[d]].classes)
        {
          m_Values[d].push_back(c.value);
        }
      }
    }
  }
  m_K = static_cast<int>(m_Values[0].size());
  for (const auto& values : m_Values)
  {
    for (const int v : values)
    {
      if (v > 254)
      {
        throw Error(Complaint("model", "a class of value " + std::to_string(v), "values from 0 to 254", "Class maps are 8-bit, 255 is no-data."));
      }
    }
  }
  if (m_Head == Head::Semantic && m_K < 2)
  {
    throw Error(Complaint("model", "class heads of one class", "two classes or more", "Declare a binary model instead."));
  }
  for (const Result r : m_Wanted)
  {
    if ((r == Class1 || r == Class2) && m_K == 0)
    {
      throw Error(Complaint(r == Class1 ? "sem1" : "sem2", "the model \"" + contract.id + "\", which has no class heads",
                            "a model with sem1_logits and sem2_logits, or transition_logits", "Leave this output out."));
    }
    m_NoData.push_back(NoDataOf(r, m_K));
    if (r == Confidence && m_Views * static_cast<int>(m_Temperatures.size()) > 1)
    {
      m_Mutual = true;
      m_NoData.push_back(NoDataOf(r, m_K));
    }
  }
}

ChangeDecision::ChangeDecision(const ModelContract& contract, std::vector<Result> wanted, double threshold)
    : ChangeDecision(contract, std::move(wanted),
                     [threshold]
                     {
                       Settings settings;
                       settings.threshold = threshold;
                       return settings;
                     }())
{
}

std::vector<int> ChangeDecision::ResultBands() const
{
  std::vector<int> bands;
  for (const Result r : m_Wanted)
  {
    bands.push_back(r == Confidence && m_Mutual ? 2 : 1);
  }
  return bands;
}

int ChangeDecision::NetworkChannels() const
{
  return m_Head == Head::Binary ? 1 : m_Head == Head::Semantic ? 1 + 2 * m_K : 1 + m_K * m_K;
}

int ChangeDecision::ScoreChannels() const
{
  return NetworkChannels() + (m_Mutual ? 1 : 0); // mutual information of the predictions
}

void ChangeDecision::Score(const std::vector<BatchView>& outputs, int n, const Region& part, float* scores) const
{
  const std::ptrdiff_t plane = part.Area();
  const std::size_t members = m_Temperatures.size(), predictions = members * static_cast<std::size_t>(m_Views);
  if (predictions == 1)
  {
    ScoreOne(outputs, 0, m_Temperatures.front(), n, part, scores);
    return;
  }
  const int channels = NetworkChannels();
  std::vector<float> one(static_cast<std::size_t>(channels * plane));
  std::vector<double> sums(static_cast<std::size_t>(ScoreChannels() * plane), 0.);
  for (std::size_t k = 0; k < predictions; ++k)
  {
    ScoreOne(outputs, k * m_Outputs, m_Temperatures[k % members], n, part, one.data());
    for (std::size_t i = 0; i < one.size(); ++i)
    {
      sums[i] += one[i];
    }
    for (std::ptrdiff_t i = 0; m_Mutual && i < plane; ++i)
    {
      sums[channels * plane + i] += Entropy(one.data() + i, plane);
    }
  }
  for (std::size_t i = 0; i < sums.size(); ++i)
  {
    scores[i] = static_cast<float>(sums[i] / static_cast<double>(predictions));
  }
  // Here, and not in the decision: after smoothing or blending, differences between pixels would count as disagreement.
  for (std::ptrdiff_t i = 0; m_Mutual && i < plane; ++i)
  {
    float& information = scores[channels * plane + i];
    information = Entropy(scores + i, plane) - information;
    information = information < 0.f ? 0.f : information; // rounding; NaN stays
  }
}

/** Nats, of change or not, or of all that a transition network tells apart. */
float ChangeDecision::Entropy(const float* scores, std::ptrdiff_t stride) const
{
  const auto term = [](float p) { return p > 0.f ? -p * std::log(p) : p; }; // NaN stays
  if (m_Head != Head::Transition)
  {
    return term(scores[0]) + term(1.f - scores[0]);
  }
  float sum = 0.f;
  for (int c = 0; c < NetworkChannels(); ++c)
  {
    sum += term(scores[c * stride]);
  }
  return sum;
}

void ChangeDecision::ScoreOne(const std::vector<BatchView>& outputs, std::size_t first, float temperature, int n, const Region& part, float* scores) const
{
  const std::ptrdiff_t width = part.Width(), height = part.Height(), plane = part.Area();
  const float cooler = 1.f / temperature;

  const auto softmaxOf = [&](const BatchView& v, float* out)
  {
    for (int c = 0; c < v.channels; ++c)
    {
      for (std::ptrdiff_t y = 0; y < height; ++y)
      {
        for (std::ptrdiff_t x = 0; x < width; ++x)
        {
          out[c * plane + y * width + x] = *v.At(n, c, part.y0 + y, part.x0 + x) * cooler;
        }
      }
    }
    for (std::ptrdiff_t i = 0; i < plane; ++i)
    {
      Softmax(out + i, v.channels, plane);
    }
  };

  const BatchView& change = outputs[first + m_ChangeIndex];
  if (m_Head == Head::Transition)
  {
    softmaxOf(change, scores);
    return;
  }
  for (std::ptrdiff_t y = 0; y < height; ++y)
  {
    for (std::ptrdiff_t x = 0; x < width; ++x)
    {
      const float z = *change.At(n, 0, part.y0 + y, part.x0 + x);
      float& p = scores[y * width + x];
      if (m_ChangeIsProbability)
      {
        p = z;
      }
      else
      {
        p = Sigmoid((change.channels == 2 ? *change.At(n, 1, part.y0 + y, part.x0 + x) - z : z) * cooler);
      }
    }
  }
  if (m_Head == Head::Semantic)
  {
    softmaxOf(outputs[first + m_ClassIndex[0]], scores + plane);
    softmaxOf(outputs[first + m_ClassIndex[1]], scores + (1 + m_K) * plane);
  }
}

void ChangeDecision::Decide(const float* scores, std::ptrdiff_t scoreStride, std::ptrdiff_t count, float* results, std::ptrdiff_t resultStride) const
{
  for (std::ptrdiff_t i = 0; i < count; ++i)
  {
    const auto s = [&](int c) { return scores[c * scoreStride + i]; };
    const float p = m_Head == Head::Transition ? 1.f - s(0) : s(0);
    const bool changed = p >= m_Threshold;
    int from = -1, to = -1; // positions, -1: not known
    float confidence = changed ? p : 1.f - p;

    if (m_Head == Head::Transition && changed)
    {
      int best = 1;
      for (int c = 2; c <= m_K * m_K; ++c)
      {
        best = s(c) > s(best) ? c : best;
      }
      from = (best - 1) / m_K;
      to = (best - 1) % m_K;
      confidence = s(best);
    }
    else if (m_Head == Head::Semantic)
    {
      float different = 0.f, best = -1.f; // sum over pairs of two classes: 1 - sum over equal ones would cancel
      for (int a = 0; a < m_K; ++a)
      {
        for (int b = 0; b < m_K; ++b)
        {
          const float joint = s(1 + a) * s(1 + m_K + b);
          different += a != b ? joint : 0.f;
          if ((a != b) == changed && joint > best)
          {
            best = joint;
            from = a;
            to = b;
          }
        }
      }
      if (changed)
      {
        // Both heads may be sure of one class; then the pair keeps no more than the change probability.
        confidence = std::min(p, p * best / std::max(different, 1e-30f));
      }
    }

    std::ptrdiff_t band = -1;
    for (std::size_t r = 0; r < m_Wanted.size(); ++r)
    {
      float& out = results[++band * resultStride + i];
      switch (m_Wanted[r])
      {
      case Change:
        out = !changed ? 0.f : m_K == 0 ? 1.f : static_cast<float>(1 + from * m_K + to);
        break;
      case Probability:
        out = p;
        break;
      case Class1:
        out = from < 0 ? m_NoData[band] : static_cast<float>(m_Values[0][from]);
        break;
      case Class2:
        out = to < 0 ? m_NoData[band] : static_cast<float>(m_Values[1][to]);
        break;
      case Confidence:
        out = confidence;
        if (m_Mutual)
        {
          results[++band * resultStride + i] = s(NetworkChannels());
        }
        break;
      }
    }
  }
}

} // namespace dl
} // namespace otb
