/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLLikelihoodPredictor.h"

#include "otbDLOdeSolver.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace otb
{
namespace dl
{

namespace
{

using Estimator = LikelihoodEstimator;

/** -1 when there is none. */
int InputIndex(const ModelContract& contract, const std::string& role)
{
  const auto it = std::find_if(contract.inputs.begin(), contract.inputs.end(), [&role](const ModelInput& i) { return i.role == role; });
  return it == contract.inputs.end() ? -1 : static_cast<int>(it - contract.inputs.begin());
}

/** Calls f(i, value, p) for the first `channels` channels of slot n of a view, i running over channels, lines, columns, p over lines and columns. */
template <typename TFunction>
void ForValues(const BatchView& view, int n, int channels, int side, TFunction f)
{
  const std::size_t plane = static_cast<std::size_t>(side) * side;
  const std::ptrdiff_t stride = view.strideX;
  for (int c = 0; c < channels; ++c)
  {
    for (int y = 0; y < side; ++y)
    {
      float* line = view.At(n, c, y, 0);
      const std::size_t p = static_cast<std::size_t>(y) * side, i = c * plane + p;
      for (int x = 0; x < side; ++x)
      {
        f(i + x, line[x * stride], p + x);
      }
    }
  }
}

/** One value for a whole slot: once where the tensor has an element a slot, else all over. */
void FillSlot(const BatchView& view, int n, int side, float value)
{
  const int lines = view.strideY == 0 ? 1 : side, columns = view.strideX == 0 ? 1 : side;
  for (int c = 0; c < std::max(1, view.channels); ++c)
  {
    for (int y = 0; y < lines; ++y)
    {
      for (int x = 0; x < columns; ++x)
      {
        *view.At(n, c, y, x) = value;
      }
    }
  }
}

std::int64_t FloorDivide(std::int64_t a, std::int64_t b)
{
  return a / b - (a % b != 0 && (a % b < 0) != (b < 0));
}

} // namespace

std::uint32_t StreamOf(DrawPurpose purpose, int level, int draw)
{
  return (static_cast<std::uint32_t>(draw) * maximalLevels + static_cast<std::uint32_t>(level)) * 16u + static_cast<std::uint32_t>(purpose);
}

LikelihoodPredictor::LikelihoodPredictor(LikelihoodNetworks networks, const ModelContract& contract, const LikelihoodSettings& settings)
    : m_Networks(std::move(networks)), m_Settings(settings), m_Generative(contract.generative), m_Masked(contract.masked),
      m_Random(settings.seed, contract.generative ? contract.generative->tag : 0u)
{
  const LikelihoodNeeds needs = CheckLikelihood(contract, settings);
  m_Field = needs.features ? m_Networks.features.get() : needs.differentiable ? m_Networks.differentiable.get() : m_Networks.field.get();
  if (!m_Field || (needs.encode && !m_Networks.encode) || (needs.decode && !m_Networks.decode))
  {
    throw Error("internal: a network that " + std::string(ToString(settings.estimator)) + " needs was not loaded");
  }
  const int imageInput = std::max(0, InputIndex(contract, "image"));
  const ModelInput& image = contract.inputs.at(imageInput);
  m_Scaling = image.scaling;
  m_Bands = static_cast<int>(image.bands.size());
  m_Patch = contract.tiling.patch;
  m_Batch = m_Field->BatchSize();
  m_Channels = m_Bands;
  const auto output = std::find_if(contract.outputs.begin(), contract.outputs.end(), [](const ModelOutput& o) { return o.role != "aux"; });
  const bool forward = !needs.features || contract.featuresOnly;
  m_FieldOutput = output == contract.outputs.end() || !forward ? 0 : static_cast<int>(output - contract.outputs.begin());
  if (!needs.features)
  {
    m_TimeInput = InputIndex(contract, "diffusion_time");
    m_ConditionInput = InputIndex(contract, needs.encode ? "condition_latent" : "condition");
    m_MaskInput = InputIndex(contract, "token_mask");
    m_FlagInput = InputIndex(contract, "condition_flag");
  }
  if (m_Generative)
  {
    m_Schedule.emplace(*m_Generative);
  }
  if (needs.encode)
  {
    const MethodSpec& encode = *contract.FindMethod("encode");
    m_Encodes = true;
    m_Channels = encode.channels;
    m_Scale = encode.scale;
  }
  const MethodSpec* features = contract.FindMethod("features");
  m_FeatureScale = features && !contract.featuresOnly ? features->scale : 1;
  m_Side = m_Patch / m_Scale;
  m_Cells = static_cast<std::size_t>(m_Side) * m_Side;
  // What the field sees: latents instead of the image, which then is no argument. The method features() takes the image alone.
  m_StateInput = needs.encode ? InputIndex(contract, "latent") : needs.features && !contract.featuresOnly ? 0 : imageInput;
  const int wanted = m_Field->Input(m_StateInput).channels;
  const int condition = m_ConditionInput < 0 ? wanted : m_Field->Input(m_ConditionInput).channels;
  if (wanted != m_Channels || condition != m_Channels)
  {
    throw Error(Complaint("model",
                          "a network that takes " + std::to_string(wanted) + " channels" +
                              (condition == wanted ? "" : " and a condition of " + std::to_string(condition)),
                          std::to_string(m_Channels) + ", those of " + (needs.encode ? "encode()" : "the image"), "Correct the contract."));
  }

  const std::size_t pixels = static_cast<std::size_t>(m_Patch) * m_Patch;
  for (auto& date : m_Pixels)
  {
    date.resize(m_Batch * m_Bands * pixels);
  }
  m_Places.resize(m_Batch);
  const LikelihoodPlanes planes = PlanesOf(settings);
  m_PlaneCount = planes.forward + planes.backward;
  m_Output.resize(m_Batch * m_PlaneCount * pixels);
  if (settings.forward)
  {
    m_Dates.push_back(1);
  }
  if (settings.backward)
  {
    m_Dates.push_back(0);
  }
}

BatchView LikelihoodPredictor::Input(int k)
{
  const std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(m_Patch) * m_Patch;
  return {m_Pixels[k].data(), m_Bands, plane * m_Bands, plane, m_Patch, 1};
}

BatchView LikelihoodPredictor::Output(int)
{
  const std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(m_Patch) * m_Patch;
  return {m_Output.data(), m_PlaneCount, plane * m_PlaneCount, plane, m_Patch, 1};
}

void LikelihoodPredictor::Place(int n, std::int64_t x, std::int64_t y)
{
  m_Places[n] = {x, y};
}

LikelihoodPredictor::Place2D LikelihoodPredictor::CellOf(int n, int scale) const
{
  return {FloorDivide(m_Places[n].x, scale), FloorDivide(m_Places[n].y, scale)};
}

/** What the field sees of a date: its latents, or its pixels. */
const float* LikelihoodPredictor::Data(int date, int n) const
{
  const auto& data = m_Encodes ? m_Latents[date] : !m_Dequantised[date].empty() ? m_Dequantised[date] : m_Pixels[date];
  return data.data() + n * Values();
}

double LikelihoodPredictor::LogSnrStep() const
{
  return (m_Settings.logSnrHigh - m_Settings.logSnrLow) / m_Settings.levels;
}

std::vector<LikelihoodPredictor::Step> LikelihoodPredictor::Levels() const
{
  std::vector<Step> steps;
  for (int k = 0; k < m_Settings.levels; ++k)
  {
    steps.push_back(StepAt(m_Schedule->AtLogSnr(m_Settings.logSnrLow + (k + .5) * LogSnrStep())));
  }
  return steps;
}

/** Dates by themselves, slot after slot: without the other one, unless the network only knows them given the other one. */
std::vector<LikelihoodPredictor::Subject> LikelihoodPredictor::Alone(int filled, bool bothDates) const
{
  const bool given = m_ConditionInput >= 0 && m_Generative->null == NullCondition::None;
  const std::vector<int> both = {1, 0};
  std::vector<Subject> subjects;
  for (int n = 0; n < filled; ++n)
  {
    for (const int date : bothDates ? both : m_Dates)
    {
      subjects.push_back({n, date, given});
    }
  }
  return subjects;
}

/** Runs a network on items 0 ... count - 1 in full batches, the last one apart: prepare(i, slot) fills a slot, consume(i, slot) takes what came of it. */
template <typename TPrepare, typename TConsume>
void LikelihoodPredictor::Batches(Predictor& network, bool counted, std::size_t count, TPrepare prepare, TConsume consume)
{
  const std::size_t batch = network.BatchSize();
  for (std::size_t begin = 0; begin < count; begin += batch)
  {
    const int filled = static_cast<int>(std::min(batch, count - begin));
    for (int slot = 0; slot < filled; ++slot)
    {
      prepare(begin + slot, slot);
    }
    network.Run(filled);
    m_Evaluations += counted ? filled : 0;
    m_Forwards += counted;
    for (int slot = 0; slot < filled; ++slot)
    {
      consume(begin + slot, slot);
    }
  }
}

/** Everything that the field wants to be told in one slot. valueAt(i) is value i of the flow's state. */
template <typename TValueAt>
void LikelihoodPredictor::Feed(Predictor& network, int slot, const Subject& subject, const Step& step, TValueAt valueAt)
{
  const float scale = static_cast<float>(step.level.Scale());
  ForValues(network.Input(m_StateInput), slot, m_Channels, m_Side, [&](std::size_t i, float& value, std::size_t) { value = scale * valueAt(i); });
  if (m_TimeInput >= 0)
  {
    FillSlot(network.Input(m_TimeInput), slot, m_Side, static_cast<float>(step.level.time));
  }
  if (m_ConditionInput >= 0)
  {
    const float* other = Data(1 - subject.date, subject.n);
    ForValues(network.Input(m_ConditionInput), slot, m_Channels, m_Side,
              [&](std::size_t i, float& value, std::size_t) { value = subject.given ? other[i] : 0.f; });
  }
  if (m_FlagInput >= 0)
  {
    FillSlot(network.Input(m_FlagInput), slot, m_Side, subject.given ? 1.f : 0.f);
  }
  const Place2D place = CellOf(subject.n, m_Scale);
  network.Place(slot, place.x, place.y);
}

/** Latents of both dates, if there are any. */
void LikelihoodPredictor::Encode(int filled)
{
  if (!m_Encodes)
  {
    return;
  }
  Predictor& encode = *m_Networks.encode;
  const std::size_t values = static_cast<std::size_t>(m_Bands) * m_Patch * m_Patch;
  std::vector<float> latents[2];
  latents[0].resize(m_Batch * Values());
  latents[1].resize(m_Batch * Values());
  Batches(
      encode, false, 2u * filled,
      [&](std::size_t i, int slot)
      {
        const int n = static_cast<int>(i / 2), date = static_cast<int>(i % 2);
        const auto& pixels = m_Dequantised[date].empty() ? m_Pixels[date] : m_Dequantised[date];
        const float* from = pixels.data() + n * values;
        ForValues(encode.Input(0), slot, m_Bands, m_Patch, [from](std::size_t k, float& value, std::size_t) { value = from[k]; });
        encode.Place(slot, m_Places[n].x, m_Places[n].y);
      },
      [&](std::size_t i, int slot)
      {
        float* to = latents[i % 2].data() + (i / 2) * Values();
        ForValues(encode.Output(0), slot, m_Channels, m_Side, [to](std::size_t k, float& value, std::size_t) { to[k] = value; });
      });
  m_Latents[0].swap(latents[0]);
  m_Latents[1].swap(latents[1]);
}

void LikelihoodPredictor::DrawNoise(int n, int level, int draw, std::vector<float>& noise) const
{
  noise.resize(Values());
  const Place2D place = CellOf(n, m_Scale);
  const std::uint32_t stream = StreamOf(DrawPurpose::Noise, level, draw);
  std::size_t i = 0;
  for (int c = 0; c < m_Channels; ++c)
  {
    for (int y = 0; y < m_Side; ++y)
    {
      for (int x = 0; x < m_Side; ++x)
      {
        noise[i++] = m_Random.Normal(place.x + x, place.y + y, c, stream);
      }
    }
  }
}

void LikelihoodPredictor::BeginScores(int filled, int side)
{
  m_ScoreSide = side;
  m_Scores.assign(static_cast<std::size_t>(filled) * m_PlaneCount * side * side, 0.);
}

int LikelihoodPredictor::PlaneOf(int date, int planesPerDate) const
{
  return m_Dates.front() == date ? 0 : planesPerDate;
}

/** Repeats each score over the pixels of its cell. */
void LikelihoodPredictor::FinishScores(int filled)
{
  const int repeat = m_Patch / m_ScoreSide;
  float* to = m_Output.data();
  for (int n = 0; n < filled; ++n)
  {
    for (int plane = 0; plane < m_PlaneCount; ++plane)
    {
      const double* scores = Scores(n, plane);
      for (int y = 0; y < m_Patch; ++y)
      {
        for (int x = 0; x < m_Patch; ++x)
        {
          *to++ = static_cast<float>(scores[(y / repeat) * m_ScoreSide + x / repeat]);
        }
      }
    }
  }
}

void LikelihoodPredictor::Run(int filled)
{
  switch (m_Settings.estimator)
  {
  case Estimator::Pmi:
  case Estimator::Conditional:
  case Estimator::Denoise:
    RunNoisy(filled);
    break;
  case Estimator::Latent:
    RunLatent(filled);
    break;
  case Estimator::LogLikelihood:
    RunLogLikelihood(filled);
    break;
  case Estimator::Reconstruction:
    RunReconstruction(filled);
    break;
  case Estimator::RoundTrip:
    RunRoundTrip(filled);
    break;
  case Estimator::Masked:
    RunMasked(filled);
    break;
  case Estimator::Feature:
    RunFeature(filled);
    break;
  }
  FinishScores(filled);
}

/** Errors of the noise predicted at each level: with the condition, without it, or their difference. */
void LikelihoodPredictor::RunNoisy(int filled)
{
  Encode(filled);
  BeginScores(filled, m_Side);
  const bool byLevel = m_Settings.estimator == Estimator::Denoise, conditional = m_Settings.estimator == Estimator::Conditional;
  const int planesPerDate = byLevel ? m_Settings.levels : 1;
  // 1/2 of the integral over log-SNR of the mean over the draws.
  const double weight = LogSnrStep() / (4. * m_Settings.pairs);
  struct Branch
  {
    bool given;
    double weight;
  };
  std::vector<Branch> branches = {{true, weight}};
  if (m_Settings.estimator == Estimator::Pmi)
  {
    branches.push_back({false, -weight});
  }
  else if (byLevel)
  {
    branches.front().given = Alone(1, false).front().given;
  }
  const std::vector<Step> levels = Levels();
  const std::size_t perNoise = 2 * m_Dates.size() * branches.size();
  const std::size_t noises = static_cast<std::size_t>(filled) * m_Settings.levels * m_Settings.pairs;

  // The noise of what is in a batch, drawn once for both signs, dates and branches.
  std::vector<std::vector<float>> ring(m_Batch / perNoise + 2);
  std::vector<std::size_t> held(ring.size(), noises);
  struct Item
  {
    std::size_t noise;
    Subject subject;
    int level;
    float sign;
    double weight;
  };
  const auto itemOf = [&](std::size_t i)
  {
    const std::size_t noise = i / perNoise, within = i % perNoise;
    const std::size_t branch = within % branches.size(), date = within / branches.size() % m_Dates.size();
    const int n = static_cast<int>(noise / (m_Settings.levels * m_Settings.pairs)), level = static_cast<int>(noise / m_Settings.pairs % m_Settings.levels);
    return Item{noise, {n, m_Dates[date], branches[branch].given}, level, within < perNoise / 2 ? 1.f : -1.f, branches[branch].weight};
  };
  const auto stateOf = [&](const Item& item)
  {
    const float* data = Data(item.subject.date, item.subject.n);
    const float* noise = ring[item.noise % ring.size()].data();
    const float t = static_cast<float>(levels[item.level].level.Data()), u = item.sign * static_cast<float>(levels[item.level].level.Noise());
    return [data, noise, t, u](std::size_t k) { return t * data[k] + u * noise[k]; };
  };
  Batches(
      *m_Field, true, noises * perNoise,
      [&](std::size_t i, int slot)
      {
        const Item item = itemOf(i);
        const std::size_t place = item.noise % ring.size();
        if (held[place] != item.noise)
        {
          DrawNoise(item.subject.n, item.level, static_cast<int>(item.noise % m_Settings.pairs), ring[place]);
          held[place] = item.noise;
        }
        Feed(*m_Field, slot, item.subject, levels[item.level], stateOf(item));
      },
      [&](std::size_t i, int slot)
      {
        const Item item = itemOf(i);
        const FieldTerm term = levels[item.level].terms.noise;
        const double t = levels[item.level].level.Data(), u = levels[item.level].level.Noise(), ofGaussian = u / (t * t + u * u);
        const float* noise = ring[item.noise % ring.size()].data();
        const auto state = stateOf(item);
        double* scores = Scores(item.subject.n, PlaneOf(item.subject.date, planesPerDate) + (byLevel ? item.level : 0));
        ForValues(m_Field->Output(m_FieldOutput), slot, m_Channels, m_Side,
                  [&](std::size_t k, float& output, std::size_t p)
                  {
                    const double drawn = item.sign * noise[k], error = drawn - (term.state * state(k) + term.output * output);
                    // What the denoiser of a standard Gaussian would leave, whose likelihood is known: the draw's own square goes.
                    const double known = conditional ? drawn - ofGaussian * state(k) : 0.;
                    scores[p] += item.weight * (error * error - known * known);
                  });
      });
  for (int n = 0; n < filled && conditional; ++n)
  {
    for (const int date : m_Dates)
    {
      AddGaussian(Data(date, n), Scores(n, PlaneOf(date, 1)));
    }
  }
}

/** Adds minus the log-likelihood of a standard Gaussian, in raw values. */
void LikelihoodPredictor::AddGaussian(const float* data, double* scores) const
{
  double constant = m_Channels * .5 * std::log(6.283185307179586);
  for (std::size_t b = 0; b < m_Scaling.size() && !m_Encodes; ++b)
  {
    constant += std::log(std::abs(m_Scaling[b].divisor));
  }
  for (std::size_t p = 0; p < m_Cells; ++p)
  {
    double sum = 0.;
    for (int c = 0; c < m_Channels; ++c)
    {
      const double z = data[c * m_Cells + p];
      sum += z * z;
    }
    scores[p] += constant + .5 * sum;
  }
}

/** The velocity data - noise of some states, and the noise. */
void LikelihoodPredictor::Velocity(Predictor& network, const std::vector<Subject>& subjects, const Step& step, const std::vector<float>& states,
                                   std::vector<float>& velocity, std::vector<float>* noise)
{
  velocity.resize(states.size());
  if (noise)
  {
    noise->resize(states.size());
  }
  Batches(
      network, true, subjects.size(),
      [&](std::size_t i, int slot)
      {
        const float* state = states.data() + i * Values();
        Feed(network, slot, subjects[i], step, [state](std::size_t k) { return state[k]; });
      },
      [&](std::size_t i, int slot)
      {
        const std::size_t at = i * Values();
        const FieldTerm v = step.terms.velocity, e = step.terms.noise;
        ForValues(network.Output(m_FieldOutput), slot, m_Channels, m_Side,
                  [&](std::size_t k, float& output, std::size_t)
                  {
                    velocity[at + k] = static_cast<float>(v.state * states[at + k] + v.output * output);
                    if (noise)
                    {
                      (*noise)[at + k] = static_cast<float>(e.state * states[at + k] + e.output * output);
                    }
                  });
      });
}

/** Both dates are encoded without noise; their predicted noises are compared on the way. */
void LikelihoodPredictor::RunLatent(int filled)
{
  Encode(filled);
  BeginScores(filled, m_Side);
  const std::vector<Subject> subjects = Alone(filled, true);
  const auto timeOf = [](double logSnr) { return 1. / (1. + std::exp(-logSnr / 2.)); };
  const double begin = timeOf(m_Settings.logSnrHigh), end = timeOf(m_Settings.logSnrLow);
  std::vector<float> states(subjects.size() * Values()), noise;
  for (std::size_t i = 0; i < subjects.size(); ++i)
  {
    const float* data = Data(subjects[i].date, subjects[i].n);
    std::transform(data, data + Values(), states.begin() + i * Values(), [begin](float x) { return static_cast<float>(begin * x); });
  }
  const double weight = 1. / (static_cast<double>(m_Settings.steps) * m_Channels);
  Integrate(OdeSolver::Euler, begin, end, m_Settings.steps, states,
            [&](double t, const std::vector<float>& at, double, std::vector<float>& velocity)
            {
              Velocity(*m_Field, subjects, StepAt(m_Schedule->At(t)), at, velocity, &noise);
              for (int n = 0; n < filled; ++n)
              {
                const float *a = noise.data() + 2 * n * Values(), *b = a + Values();
                double* scores = Scores(n, 0);
                for (int c = 0; c < m_Channels; ++c)
                {
                  for (std::size_t p = 0; p < m_Cells; ++p)
                  {
                    const double difference = static_cast<double>(*a++) - *b++;
                    scores[p] += weight * difference * difference;
                  }
                }
              }
            });
}

void LikelihoodPredictor::RunLogLikelihood(int filled)
{
  DifferentiablePredictor& network = *m_Networks.differentiable;
  if (m_Generative->dequantise)
  {
    const std::size_t pixels = static_cast<std::size_t>(m_Patch) * m_Patch;
    const std::uint32_t stream = StreamOf(DrawPurpose::Dequantisation, 0, 0);
    for (int date = 0; date < 2; ++date)
    {
      m_Dequantised[date] = m_Pixels[date];
      for (int n = 0; n < filled; ++n)
      {
        float* data = m_Dequantised[date].data() + n * m_Bands * pixels;
        for (int c = 0; c < m_Bands; ++c)
        {
          const double unit = c < static_cast<int>(m_Scaling.size()) ? 1. / m_Scaling[c].divisor : 1.;
          for (std::size_t p = 0; p < pixels; ++p)
          {
            const double u = m_Random.Uniform(m_Places[n].x + p % m_Patch, m_Places[n].y + p / m_Patch, c, stream);
            data[c * pixels + p] += static_cast<float>(unit * u);
          }
        }
      }
    }
  }
  Encode(filled);
  BeginScores(filled, m_Side);

  // One set of probes for the whole trajectory and both dates: the noise of their difference is small.
  const bool exact = m_Settings.probeKind == ProbeKind::Exact;
  const int probes = exact ? m_Channels : m_Settings.probes;
  std::vector<float> drawn(exact ? 0 : filled * probes * Values());
  for (int n = 0; n < filled && !exact; ++n)
  {
    const Place2D place = CellOf(n, m_Scale);
    for (int p = 0; p < probes; ++p)
    {
      float* to = drawn.data() + (static_cast<std::size_t>(n) * probes + p) * Values();
      const std::uint32_t stream = StreamOf(DrawPurpose::Probe, 0, p);
      for (std::size_t k = 0; k < Values(); ++k)
      {
        const std::int64_t x = place.x + k % m_Cells % m_Side, y = place.y + k % m_Cells / m_Side;
        const auto c = static_cast<std::uint32_t>(k / m_Cells);
        to[k] = m_Settings.probeKind == ProbeKind::Rademacher ? m_Random.Sign(x, y, c, stream) : m_Random.Normal(x, y, c, stream);
      }
    }
  }
  const auto probeAt = [&](int n, int p, std::size_t k)
  { return exact ? (k / m_Cells == static_cast<std::size_t>(p) ? 1.f : 0.f) : drawn[(static_cast<std::size_t>(n) * probes + p) * Values() + k]; };

  const std::vector<Subject> subjects = Alone(filled, false);
  std::vector<float> states(subjects.size() * Values());
  for (std::size_t i = 0; i < subjects.size(); ++i)
  {
    std::copy_n(Data(subjects[i].date, subjects[i].n), Values(), states.begin() + i * Values());
  }
  // Of the divergence, from data to noise: it enters the log-likelihood with this sign.
  std::vector<double> integral(subjects.size() * m_Cells, 0.);
  const std::size_t batch = network.BatchSize();
  std::vector<Subject> part;
  std::vector<float> partStates, partVelocity;
  Integrate(m_Settings.solver, 1., 0., m_Settings.steps, states,
            [&](double t, const std::vector<float>& at, double weight, std::vector<float>& velocity)
            {
              const Step step = StepAt(m_Schedule->At(t));
              const double jacobian = weight * step.terms.velocity.output * step.level.Scale() / (exact ? 1 : probes);
              for (std::size_t begin = 0; begin < subjects.size(); begin += batch)
              {
                const std::size_t end = std::min(begin + batch, subjects.size());
                part.assign(subjects.begin() + begin, subjects.begin() + end);
                partStates.assign(at.begin() + begin * Values(), at.begin() + end * Values());
                Velocity(network, part, step, partStates, partVelocity, nullptr);
                std::copy(partVelocity.begin(), partVelocity.end(), velocity.begin() + begin * Values());
                if (weight == 0.)
                {
                  continue;
                }
                for (std::size_t k = begin * m_Cells; k < end * m_Cells; ++k)
                {
                  integral[k] += weight * step.terms.velocity.state * m_Channels;
                }
                for (int p = 0; p < probes; ++p)
                {
                  const BatchView probe = network.Probe();
                  for (std::size_t i = begin; i < end; ++i)
                  {
                    // Channels beyond the data's, of a predicted variance, do not count.
                    ForValues(probe, static_cast<int>(i - begin), probe.channels, m_Side,
                              [&](std::size_t k, float& value, std::size_t) { value = k < Values() ? probeAt(subjects[i].n, p, k) : 0.f; });
                  }
                  const BatchView product = network.Pullback();
                  ++m_Pullbacks;
                  for (std::size_t i = begin; i < end; ++i)
                  {
                    double* sums = integral.data() + i * m_Cells;
                    ForValues(product, static_cast<int>(i - begin), m_Channels, m_Side,
                              [&](std::size_t k, float& value, std::size_t cell) { sums[cell] += jacobian * value * probeAt(subjects[i].n, p, k); });
                  }
                }
              }
            });

  for (std::size_t i = 0; i < subjects.size(); ++i)
  {
    double* scores = Scores(subjects[i].n, PlaneOf(subjects[i].date, 1));
    for (std::size_t p = 0; p < m_Cells; ++p)
    {
      scores[p] = -integral[i * m_Cells + p];
    }
    AddGaussian(states.data() + i * Values(), scores);
  }
}

/** Mean over bands of the squared difference between what came back and the image. */
void LikelihoodPredictor::PixelErrors(const std::vector<Subject>& subjects, const std::vector<float>& states, int plane, int planesPerDate)
{
  const std::size_t pixels = static_cast<std::size_t>(m_Patch) * m_Patch;
  const auto add = [&](std::size_t i, std::size_t k, float value)
  {
    const Subject& s = subjects[i];
    const double error = static_cast<double>(value) - m_Pixels[s.date][s.n * m_Bands * pixels + k];
    Scores(s.n, PlaneOf(s.date, planesPerDate) + plane)[k % pixels] += error * error / m_Bands;
  };
  if (!m_Encodes)
  {
    for (std::size_t k = 0; k < states.size(); ++k)
    {
      add(k / Values(), k % Values(), states[k]);
    }
    return;
  }
  Predictor& decode = *m_Networks.decode;
  Batches(
      decode, false, subjects.size(),
      [&](std::size_t i, int slot)
      {
        const float* state = states.data() + i * Values();
        ForValues(decode.Input(0), slot, m_Channels, m_Side, [state](std::size_t k, float& value, std::size_t) { value = state[k]; });
        const Place2D place = CellOf(subjects[i].n, m_Scale);
        decode.Place(slot, place.x, place.y);
      },
      [&](std::size_t i, int slot)
      { ForValues(decode.Output(0), slot, m_Bands, m_Patch, [&](std::size_t k, float& value, std::size_t) { add(i, k, value); }); });
}

void LikelihoodPredictor::RunReconstruction(int filled)
{
  Encode(filled);
  BeginScores(filled, m_Patch);
  const std::vector<Subject> subjects = Alone(filled, false);
  std::vector<float> states(subjects.size() * Values()), noise;
  const auto field = [&](double t, const std::vector<float>& at, double, std::vector<float>& velocity)
  { Velocity(*m_Field, subjects, StepAt(m_Schedule->At(t)), at, velocity, nullptr); };
  for (int level = 0; level < m_Settings.levels; ++level)
  {
    const double amount = .5 * (level + 1) / m_Settings.levels;
    for (std::size_t i = 0; i < subjects.size(); ++i)
    {
      const Subject& s = subjects[i];
      if (i == 0 || subjects[i - 1].n != s.n)
      {
        DrawNoise(s.n, level, 0, noise);
      }
      const float* data = Data(s.date, s.n);
      for (std::size_t k = 0; k < Values(); ++k)
      {
        states[i * Values() + k] = static_cast<float>((1. - amount) * data[k] + amount * noise[k]);
      }
    }
    // Not a step more for the last bit of the product.
    const int steps = static_cast<int>(std::ceil(20. * amount - 1e-9));
    Integrate(OdeSolver::Euler, 1. - amount, 1., steps, states, field);
    PixelErrors(subjects, states, level, m_Settings.levels);
  }
}

void LikelihoodPredictor::RunRoundTrip(int filled)
{
  Encode(filled);
  BeginScores(filled, m_Patch);
  const std::vector<Subject> subjects = Alone(filled, false);
  std::vector<float> states(subjects.size() * Values());
  for (std::size_t i = 0; i < subjects.size(); ++i)
  {
    std::copy_n(Data(subjects[i].date, subjects[i].n), Values(), states.begin() + i * Values());
  }
  const auto field = [&](double t, const std::vector<float>& at, double, std::vector<float>& velocity)
  { Velocity(*m_Field, subjects, StepAt(m_Schedule->At(t)), at, velocity, nullptr); };
  // The error of a coarse solver is the score: an exact one brings everything back.
  Integrate(OdeSolver::Euler, 1., 0., m_Settings.steps, states, field);
  Integrate(OdeSolver::Euler, 0., 1., m_Settings.steps, states, field);
  PixelErrors(subjects, states, 0, 1);
}

void LikelihoodPredictor::RunMasked(int filled)
{
  BeginScores(filled, m_Patch);
  const int side = m_Masked->patch, tokens = m_Patch / side, groups = m_Masked->groups;
  const std::uint32_t stream = StreamOf(DrawPurpose::Mask, 0, 0);
  std::vector<int> group(static_cast<std::size_t>(filled) * tokens * tokens);
  for (std::size_t i = 0; i < group.size(); ++i)
  {
    const int n = static_cast<int>(i / (tokens * tokens)), token = static_cast<int>(i % (tokens * tokens));
    const std::int64_t x = FloorDivide(m_Places[n].x + token % tokens * side, side), y = FloorDivide(m_Places[n].y + token / tokens * side, side);
    group[i] = static_cast<int>(m_Random.Words(x, y, 0, stream)[0] % static_cast<std::uint32_t>(groups));
  }
  const auto tokenOf = [&](int n, std::size_t pixel)
  { return (static_cast<std::size_t>(n) * tokens + pixel / m_Patch / side) * tokens + pixel % m_Patch / side; };

  // What is predicted: the pixels, or those of each token standardised.
  std::vector<float> normalised[2];
  for (const int date : m_Dates)
  {
    if (!m_Masked->normalised)
    {
      continue;
    }
    normalised[date].resize(m_Pixels[date].size());
    const double count = static_cast<double>(m_Bands) * side * side;
    std::vector<double> sum(group.size(), 0.), square(group.size(), 0.);
    for (std::size_t i = 0; i < filled * Values(); ++i)
    {
      sum[tokenOf(static_cast<int>(i / Values()), i % m_Cells)] += m_Pixels[date][i];
    }
    for (std::size_t i = 0; i < filled * Values(); ++i)
    {
      const std::size_t token = tokenOf(static_cast<int>(i / Values()), i % m_Cells);
      const double difference = m_Pixels[date][i] - sum[token] / count;
      square[token] += difference * difference;
    }
    for (std::size_t i = 0; i < filled * Values(); ++i)
    {
      // As in He et al. (2022): the unbiased variance, plus 1e-6.
      const std::size_t token = tokenOf(static_cast<int>(i / Values()), i % m_Cells);
      const double variance = square[token] / std::max(1., count - 1.);
      normalised[date][i] = static_cast<float>((m_Pixels[date][i] - sum[token] / count) / std::sqrt(variance + 1e-6));
    }
  }

  struct Item
  {
    int n;
    int date;
    int visible;
  };
  const auto itemOf = [&](std::size_t i)
  {
    const std::size_t date = i / groups % m_Dates.size();
    return Item{static_cast<int>(i / groups / m_Dates.size()), m_Dates[date], static_cast<int>(i % groups)};
  };
  const auto hidden = [&](const Item& item, std::size_t k) { return group[tokenOf(item.n, k % m_Cells)] != item.visible; };
  Batches(
      *m_Field, true, filled * m_Dates.size() * groups,
      [&](std::size_t i, int slot)
      {
        const Item item = itemOf(i);
        // Nothing of a hidden token gets in, even by a network that forgot to look at its mask.
        const float* data = Data(item.date, item.n);
        ForValues(m_Field->Input(m_StateInput), slot, m_Channels, m_Side,
                  [&](std::size_t k, float& value, std::size_t) { value = hidden(item, k) ? 0.f : data[k]; });
        const BatchView mask = m_Field->Input(m_MaskInput);
        for (int c = 0; c < std::max(1, mask.channels); ++c)
        {
          for (std::size_t p = 0; p < m_Cells; ++p)
          {
            *mask.At(slot, c, p / m_Side, p % m_Side) = hidden(item, p) ? 1.f : 0.f;
          }
        }
        if (m_ConditionInput >= 0)
        {
          const float* other = Data(1 - item.date, item.n);
          ForValues(m_Field->Input(m_ConditionInput), slot, m_Channels, m_Side, [other](std::size_t k, float& value, std::size_t) { value = other[k]; });
        }
        if (m_FlagInput >= 0)
        {
          FillSlot(m_Field->Input(m_FlagInput), slot, m_Side, 1.f);
        }
        m_Field->Place(slot, m_Places[item.n].x, m_Places[item.n].y);
      },
      [&](std::size_t i, int slot)
      {
        const Item item = itemOf(i);
        const float* target = (m_Masked->normalised ? normalised[item.date] : m_Pixels[item.date]).data() + item.n * Values();
        double* scores = Scores(item.n, PlaneOf(item.date, 1));
        ForValues(m_Field->Output(m_FieldOutput), slot, m_Channels, m_Side,
                  [&](std::size_t k, float& output, std::size_t)
                  {
                    if (hidden(item, k))
                    {
                      const double error = static_cast<double>(output) - target[k];
                      scores[k % m_Cells] += error * error / (m_Channels * (groups - 1.));
                    }
                  });
      });
}

void LikelihoodPredictor::RunFeature(int filled)
{
  Predictor& network = *m_Field;
  const int side = m_Patch / m_FeatureScale;
  const std::size_t cells = static_cast<std::size_t>(side) * side;
  BeginScores(filled, side);
  std::vector<float> features[2];
  int channels = 0;
  Batches(
      network, true, 2u * filled,
      [&](std::size_t i, int slot)
      {
        const float* data = Data(static_cast<int>(i % 2), static_cast<int>(i / 2));
        ForValues(network.Input(m_StateInput), slot, m_Bands, m_Patch, [data](std::size_t k, float& value, std::size_t) { value = data[k]; });
        network.Place(slot, m_Places[i / 2].x, m_Places[i / 2].y);
      },
      [&](std::size_t i, int slot)
      {
        const BatchView output = network.Output(m_FieldOutput);
        channels = output.channels;
        auto& to = features[i % 2];
        to.resize(filled * channels * cells);
        float* at = to.data() + (i / 2) * channels * cells;
        ForValues(output, slot, channels, side, [at](std::size_t k, float& value, std::size_t) { at[k] = value; });
      });
  for (int n = 0; n < filled; ++n)
  {
    double* scores = Scores(n, 0);
    const float *a = features[0].data() + n * channels * cells, *b = features[1].data() + n * channels * cells;
    for (std::size_t p = 0; p < cells; ++p)
    {
      double ab = 0., aa = 0., bb = 0.;
      for (int c = 0; c < channels; ++c)
      {
        const double u = a[c * cells + p], v = b[c * cells + p];
        ab += u * v;
        aa += u * u;
        bb += v * v;
      }
      // Two vectors of zeros are equal, one alone is like no other. Of equal ones the root is exact, the distance 0.
      scores[p] = aa == 0. && bb == 0. ? 0. : aa == 0. || bb == 0. ? 1. : 1. - ab / std::sqrt(aa * bb);
    }
  }
}

} // namespace dl
} // namespace otb
