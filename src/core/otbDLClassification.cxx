/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLClassification.h"

#include "otbDLError.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <sstream>
#include <utility>

namespace otb
{
namespace dl
{

namespace
{

constexpr float noFeature = -9999.f;
constexpr float noQuantised = 128.f; ///< -128 as a byte

/** The whole text as a number without a sign. */
std::optional<int> Number(const std::string& text)
{
  const bool digits = !text.empty() && text.size() < 8 && text.find_first_not_of("0123456789") == std::string::npos;
  return digits ? std::optional<int>(std::stoi(text)) : std::nullopt;
}

/** -p log p, 0 at 0 */
float Surprise(float p)
{
  return p > 0.f ? -p * std::log(p) : 0.f;
}

} // namespace

std::vector<MapClass> SelectClasses(const std::vector<ModelClass>& classes, const std::vector<std::string>& requests)
{
  std::vector<MapClass> chosen;
  std::string known;
  for (std::size_t k = 0; k < classes.size(); ++k)
  {
    known += (known.empty() ? "" : " ") + std::to_string(classes[k].value);
    if (requests.empty())
    {
      chosen.push_back({classes[k].value, classes[k].name, classes[k].colour, {static_cast<int>(k)}});
    }
  }
  std::set<int> used;
  for (const auto& request : requests)
  {
    const auto fail = [&](const std::string& expected) { throw Error(Complaint("classes", "\"" + request + "\"", expected, "")); };
    const std::string form = "a class to keep (12), or a new class made of some (1:11+12, or 1:11+12:crops)";
    MapClass c;
    std::string members = request;
    const auto colon = request.find(':');
    if (colon != std::string::npos)
    {
      const auto label = Number(request.substr(0, colon));
      if (!label)
      {
        fail(form);
      }
      c.label = *label;
      members = request.substr(colon + 1);
      const auto second = members.find(':');
      if (second != std::string::npos)
      {
        c.name = members.substr(second + 1);
        members = members.substr(0, second);
      }
    }
    if (members.empty() || members.back() == '+' || (colon == std::string::npos && members.find('+') != std::string::npos))
    {
      fail(form);
    }
    std::istringstream in(members);
    for (std::string one; std::getline(in, one, '+');)
    {
      const auto value = Number(one);
      if (!value)
      {
        fail(form);
      }
      const auto it = std::find_if(classes.begin(), classes.end(), [&](const ModelClass& m) { return m.value == *value; });
      if (it == classes.end())
      {
        fail("classes of the model: " + known);
      }
      if (!used.insert(*value).second)
      {
        fail("each class of the model once; " + one + " is named twice");
      }
      c.members.push_back(static_cast<int>(it - classes.begin()));
      c.colour = c.colour.empty() ? it->colour : c.colour;
      if (colon == std::string::npos)
      {
        c.label = *value;
      }
    }
    // A class of its own keeps its name; a new one has what it was given.
    if (c.members.size() == 1 && c.name.empty())
    {
      c.name = classes[c.members.front()].name;
    }
    if (c.members.empty())
    {
      fail(form);
    }
    if (c.label < 1)
    {
      fail("a label of 1 or more: 0 is no-data");
    }
    if (std::any_of(chosen.begin(), chosen.end(), [&](const MapClass& o) { return o.label == c.label; }))
    {
      fail("each label once; " + std::to_string(c.label) + " comes twice");
    }
    chosen.push_back(c);
  }
  std::sort(chosen.begin(), chosen.end(), [](const MapClass& a, const MapClass& b) { return a.label < b.label; });
  return chosen;
}

Classification::Classification(const ModelContract& contract, std::vector<double> temperatures, std::vector<MapClass> classes, std::vector<Result> wanted,
                               int noDataLabel, int series)
    : m_Classes(std::move(classes)), m_Wanted(std::move(wanted)), m_Members(static_cast<int>(temperatures.size())),
      m_Outputs(static_cast<int>(contract.outputs.size())), m_Series(series), m_Temperatures(std::move(temperatures))
{
  for (int k = 0; k < m_Outputs; ++k)
  {
    const auto& role = contract.outputs[k].role;
    if (role == "logits" || role == "probabilities")
    {
      m_ProbabilityIndex = k;
      m_Logits = role == "logits";
      m_NetworkClasses = contract.outputs[k].channels;
    }
    else if (role == "embedding")
    {
      m_EmbeddingIndex = k;
    }
  }
  for (const auto& c : m_Classes)
  {
    m_Kept.insert(m_Kept.end(), c.members.begin(), c.members.end());
    if (c.label == noDataLabel && Wants(Label))
    {
      throw Error(Complaint("nodatalabel", std::to_string(noDataLabel) + ", the label of the class \"" + c.name + "\"", "a label that no class has", ""));
    }
  }
  std::sort(m_Kept.begin(), m_Kept.end());
  m_Restricted = static_cast<int>(m_Kept.size()) < m_NetworkClasses;
  for (const Result r : m_Wanted)
  {
    if (r == Features || r == QuantisedFeatures)
    {
      if (m_EmbeddingIndex < 0)
      {
        throw Error(Complaint("features", "the model \"" + contract.id + "\", which has no embedding", "a model with an output of role embedding",
                              "Leave this output out."));
      }
      if (m_Members > 1)
      {
        throw Error(Complaint("features", "an ensemble of " + std::to_string(m_Members) + " models", "one model",
                              "Embeddings of different networks have nothing in common: run them one by one."));
      }
      m_Dimensions = contract.outputs[m_EmbeddingIndex].channels;
    }
    else if (r == ValidDates)
    {
      m_Counted = m_Series;
    }
    else
    {
      if (m_ProbabilityIndex < 0)
      {
        throw Error(Complaint("out", "the model \"" + contract.id + "\", which gives an embedding only", "a model with logits or probabilities",
                              "Ask for -features alone."));
      }
      m_Scored = true;
    }
    if (r == MutualInformation && m_Members < 2)
    {
      throw Error(Complaint("mutual", "one model", "an ensemble: a text file that lists models, given as -model", "Leave this output out."));
    }
    float none = -1.f;
    switch (r)
    {
    case Label:
      none = static_cast<float>(noDataLabel);
      break;
    case Confidence:
    case Probabilities:
    case ValidDates:
      none = 0.f;
      break;
    case Features:
      none = noFeature;
      break;
    case QuantisedFeatures:
      none = noQuantised;
      break;
    default:
      break;
    }
    m_NoData.insert(m_NoData.end(), Bands(r), none);
  }
}

bool Classification::Wants(Result result) const
{
  return std::find(m_Wanted.begin(), m_Wanted.end(), result) != m_Wanted.end();
}

int Classification::Bands(Result result) const
{
  switch (result)
  {
  case Probabilities:
    return static_cast<int>(m_Classes.size());
  case Features:
  case QuantisedFeatures:
    return m_Dimensions;
  case ValidDates:
    return m_Series;
  default:
    return 1;
  }
}

std::vector<int> Classification::ResultBands() const
{
  std::vector<int> bands;
  for (const Result r : m_Wanted)
  {
    bands.push_back(Bands(r));
  }
  return bands;
}

std::vector<bool> Classification::DeclaresNoData() const
{
  std::vector<bool> declares;
  for (const Result r : m_Wanted)
  {
    // A probability of 0 says something; no valid date is what there is to say of a pixel without data.
    declares.push_back(r != Probabilities && r != ValidDates);
  }
  return declares;
}

/** Channels: probabilities, mean entropy of an ensemble, embedding, counts. */
int Classification::ScoreChannels() const
{
  const int probabilities = m_Scored ? static_cast<int>(m_Classes.size()) + (m_Members > 1) : 0;
  return probabilities + m_Dimensions + m_Counted;
}

void Classification::Score(const std::vector<BatchView>& outputs, int n, const Region& part, float* scores) const
{
  const std::ptrdiff_t width = part.Width(), height = part.Height(), plane = part.Area();
  float* next = scores;
  if (m_Scored)
  {
    const std::size_t K = m_Classes.size();
    std::fill_n(next, (K + (m_Members > 1)) * plane, 0.f);
    std::vector<float> p(m_NetworkClasses), q(K);
    const float share = 1.f / static_cast<float>(m_Members);
    for (int m = 0; m < m_Members; ++m)
    {
      const BatchView& view = outputs[m * m_Outputs + m_ProbabilityIndex];
      const float cooler = static_cast<float>(1. / m_Temperatures[m]);
      for (std::ptrdiff_t y = 0; y < height; ++y)
      {
        for (std::ptrdiff_t x = 0; x < width; ++x)
        {
          const float* from = view.At(n, 0, part.y0 + y, part.x0 + x);
          float most = -std::numeric_limits<float>::infinity(), sum = 0.f;
          bool finite = true;
          for (int k = 0; k < m_NetworkClasses; ++k)
          {
            p[k] = from[k * view.strideC];
            finite = finite && std::isfinite(p[k]);
          }
          for (const int k : m_Kept)
          {
            most = std::max(most, p[k]);
          }
          for (const int k : m_Kept)
          {
            // Only against those that are kept: one that is left out may be so likely that they would all be 0.
            p[k] = m_Logits ? std::exp((p[k] - most) * cooler) : p[k];
            sum += p[k];
          }
          for (std::size_t k = 0; k < K; ++k)
          {
            q[k] = 0.f;
            for (const int c : m_Classes[k].members)
            {
              q[k] += p[c];
            }
          }
          const float divisor = m_Restricted || m_Logits ? sum : 1.f;
          float entropy = 0.f;
          for (std::size_t k = 0; k < K; ++k)
          {
            // Where all the classes that were kept are impossible, none is likelier than another.
            q[k] = divisor > 0.f ? q[k] / divisor : 1.f / static_cast<float>(K);
            q[k] = finite ? q[k] : std::numeric_limits<float>::quiet_NaN();
            next[static_cast<std::ptrdiff_t>(k) * plane + y * width + x] += share * q[k];
            entropy += Surprise(q[k]);
          }
          if (m_Members > 1)
          {
            next[static_cast<std::ptrdiff_t>(K) * plane + y * width + x] += share * entropy;
          }
        }
      }
    }
    next += static_cast<std::ptrdiff_t>(K + (m_Members > 1)) * plane;
  }
  if (m_Dimensions > 0)
  {
    const BatchView& view = outputs[m_EmbeddingIndex];
    for (int d = 0; d < m_Dimensions; ++d)
    {
      for (std::ptrdiff_t y = 0; y < height; ++y)
      {
        for (std::ptrdiff_t x = 0; x < width; ++x)
        {
          next[d * plane + y * width + x] = *view.At(n, d, part.y0 + y, part.x0 + x);
        }
      }
    }
  }
}

void Classification::Decide(const float* scores, std::ptrdiff_t scoreStride, std::ptrdiff_t count, float* results, std::ptrdiff_t resultStride) const
{
  const int K = m_Scored ? static_cast<int>(m_Classes.size()) : 0;
  const int embedding = K + (m_Scored && m_Members > 1);
  const float certainty = K > 1 ? 1.f / std::log(static_cast<float>(K)) : 0.f;
  for (std::ptrdiff_t i = 0; i < count; ++i)
  {
    const auto s = [&](int c) { return scores[c * scoreStride + i]; };
    int best = 0;
    float second = 0.f, entropy = 0.f;
    for (int k = 1; k < K; ++k)
    {
      best = s(k) > s(best) ? k : best;
    }
    for (int k = 0; k < K; ++k)
    {
      second = k != best ? std::max(second, s(k)) : second;
      entropy += Surprise(s(k));
    }
    float length = 0.f;
    for (int d = 0; d < m_Dimensions; ++d)
    {
      length += s(embedding + d) * s(embedding + d);
    }
    length = std::sqrt(length);

    float* out = results + i;
    const auto put = [&](float value)
    {
      *out = value;
      out += resultStride;
    };
    for (const Result r : m_Wanted)
    {
      switch (r)
      {
      case Label:
        put(static_cast<float>(m_Classes[best].label));
        break;
      case Confidence:
        put(std::min(1.f, s(best))); // a mean may round beyond
        break;
      case Probabilities:
        for (int k = 0; k < K; ++k)
        {
          put(std::round(1000.f * std::min(1.f, s(k))));
        }
        break;
      case Features:
        for (int d = 0; d < m_Dimensions; ++d)
        {
          put(s(embedding + d));
        }
        break;
      case QuantisedFeatures:
        for (int d = 0; d < m_Dimensions; ++d)
        {
          const float f = length > 0.f ? s(embedding + d) / length : 0.f;
          const float q = std::min(127.f, std::round(127.5f * std::sqrt(std::abs(f))));
          put(f < 0.f && q > 0.f ? 256.f - q : q);
        }
        break;
      case Entropy:
        put(std::clamp(entropy * certainty, 0.f, 1.f));
        break;
      case Margin:
        put(std::clamp(s(best) - second, 0.f, 1.f));
        break;
      case MutualInformation:
        put(std::clamp((entropy - s(K)) * certainty, 0.f, 1.f));
        break;
      case ValidDates:
        for (int k = 0; k < m_Series; ++k)
        {
          put(std::round(s(embedding + m_Dimensions + k))); // an average of equal counts, but for rounding
        }
        break;
      }
    }
  }
}

} // namespace dl
} // namespace otb
