/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLAnalyticField.h"
#include "otbDLKeyedRandom.h"
#include "otbDLLikelihoodPredictor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <string>
#include <vector>

namespace
{

using namespace otbtest;
using testing::HasSubstr;
using Estimator = LikelihoodEstimator;
using Schedule = NoiseSpec::Schedule;
using Level = std::pair<double, double>;

double Sigmoid(double x)
{
  return 1. / (1. + std::exp(-x));
}

/** A parametrisation, and what its times mean, written down independently of the code under test. */
struct Parametrisation
{
  const char* name;
  FieldKind kind;
  Schedule schedule;
  TimeArgument time;
  double dataAt;
  std::function<Level(double)> levelOf;
};

Level OfSquare(double square)
{
  return {std::sqrt(square), std::sqrt(1. - square)};
}

std::vector<double> Products()
{
  std::vector<double> result;
  double product = 1.;
  for (int i = 0; i < 1000; ++i)
  {
    product *= 1. - (1e-4 + (.02 - 1e-4) * i / 999.);
    result.push_back(product);
  }
  return result;
}

std::vector<Parametrisation> Parametrisations()
{
  const auto flow = [](double t) { return Level{t, 1. - t}; };
  const auto back = [](double t) { return Level{1. - t, t}; };
  const auto linear = [](double t) { return OfSquare(std::exp(-1000. * t * (1e-4 + t * (.02 - 1e-4) / 2.))); };
  const auto root = [](double t)
  {
    const double a = .01, b = std::sqrt(.02) - .01;
    return OfSquare(std::exp(-1000. * t * (a * a + a * b * t + b * b * t * t / 3.)));
  };
  const auto cosine = [](double t)
  {
    const auto f = [](double u) { return std::pow(std::cos((u + .008) / 1.008 * M_PI / 2.), 2); };
    return OfSquare(f(t) / f(0.));
  };
  const auto preserving = [](double logSnr) { return Level{std::sqrt(Sigmoid(logSnr)), std::sqrt(Sigmoid(-logSnr))}; };
  const auto flowOfLogSnr = [](double logSnr) { return Level{Sigmoid(logSnr / 2.), Sigmoid(-logSnr / 2.)}; };
  const auto exploding = [](double sigma) { return Level{1., sigma}; };
  return {
      {"velocity-flow", FieldKind::Velocity, Schedule::FlowLinear, TimeArgument::Continuous, 1., flow},
      {"velocity-flow-reversed", FieldKind::Velocity, Schedule::FlowLinear, TimeArgument::Continuous, 0., back},
      {"velocity-linear-beta", FieldKind::Velocity, Schedule::LinearBeta, TimeArgument::Continuous, 0., linear},
      {"epsilon-linear-beta", FieldKind::Epsilon, Schedule::LinearBeta, TimeArgument::Continuous, 0., linear},
      {"epsilon-cosine", FieldKind::Epsilon, Schedule::Cosine, TimeArgument::Continuous, 0., cosine},
      {"x0-scaled-linear", FieldKind::X0, Schedule::ScaledLinear, TimeArgument::Continuous, 0., root},
      {"x0-flow-logsnr", FieldKind::X0, Schedule::FlowLinear, TimeArgument::LogSnr, 1., flowOfLogSnr},
      {"v-cosine", FieldKind::VDiffusion, Schedule::Cosine, TimeArgument::Continuous, 0., cosine},
      {"v-logsnr", FieldKind::VDiffusion, Schedule::LinearBeta, TimeArgument::LogSnr, 0., preserving},
      {"score-flow", FieldKind::Score, Schedule::FlowLinear, TimeArgument::Continuous, 1., flow},
      {"score-linear-beta", FieldKind::Score, Schedule::LinearBeta, TimeArgument::Continuous, 0., linear},
      {"edm", FieldKind::Edm, Schedule::Edm, TimeArgument::Sigma, 0., exploding},
  };
}

Parametrisation Flow()
{
  return Parametrisations().front();
}

ModelInput Argument(const std::string& role, int bands)
{
  ModelInput input;
  input.name = input.role = role;
  for (int b = 0; b < bands; ++b)
  {
    input.bands.push_back("b" + std::to_string(b));
    input.scaling.push_back({});
  }
  return input;
}

ModelContract Contract(const Parametrisation& p, int bands, int patch, bool conditional = false)
{
  ModelContract contract;
  contract.task = "change-likelihood";
  contract.inputs = {Argument("image", bands), Argument("diffusion_time", 0)};
  contract.tiling.patch = patch;
  GenerativeSpec spec;
  spec.kind = p.kind;
  spec.noise.schedule = p.schedule;
  spec.time = p.time;
  spec.dataAt = p.dataAt;
  spec.logSnrLow = -14.;
  spec.logSnrHigh = 14.;
  spec.tag = 5;
  if (conditional)
  {
    contract.inputs.push_back(Argument("condition", bands));
    contract.inputs.push_back(Argument("condition_flag", 0));
    spec.null = NullCondition::Flag;
  }
  contract.generative = spec;
  return contract;
}

LikelihoodSettings Settings(const ModelContract& contract, Estimator estimator)
{
  return DefaultLikelihoodSettings(contract, estimator);
}

/** A score and the field behind it. */
struct Scorer
{
  std::unique_ptr<LikelihoodPredictor> predictor;
  AnalyticField* field;
  int side;
  int bands;

  Scorer(const ModelContract& contract, const LikelihoodSettings& settings, AnalyticField::Law law, int batch = 2)
      : side(contract.tiling.patch), bands(static_cast<int>(contract.inputs[0].bands.size()))
  {
    auto made = std::make_unique<AnalyticField>(batch, bands, side, std::move(law));
    field = made.get();
    LikelihoodNetworks networks;
    if (settings.estimator == Estimator::LogLikelihood)
    {
      networks.differentiable = std::move(made);
    }
    else
    {
      networks.field = std::move(made);
    }
    predictor = std::make_unique<LikelihoodPredictor>(std::move(networks), contract, settings);
  }

  /** Slot n of both dates, f(date, c, y, x). */
  template <typename TFunction>
  void Fill(int n, TFunction f, std::int64_t x0 = 0, std::int64_t y0 = 0)
  {
    for (int date = 0; date < 2; ++date)
    {
      const BatchView view = predictor->Input(date);
      for (int c = 0; c < bands; ++c)
      {
        for (int y = 0; y < side; ++y)
        {
          for (int x = 0; x < side; ++x)
          {
            *view.At(n, c, y, x) = static_cast<float>(f(date, c, y, x));
          }
        }
      }
    }
    predictor->Place(n, x0, y0);
  }

  std::vector<float> Plane(int n, int k) const
  {
    const BatchView view = predictor->Output(0);
    return std::vector<float>(view.At(n, k, 0, 0), view.At(n, k, 0, 0) + side * side);
  }
};

AnalyticField::Law LawOf(const Parametrisation& p, double mean = 0., double deviation = 1., double weight = 0.)
{
  AnalyticField::Law law;
  law.kind = p.kind;
  law.levelOf = p.levelOf;
  law.mean = mean;
  law.deviation = deviation;
  law.weight = weight;
  return law;
}

double Normal(int date, int c, int y, int x)
{
  return KeyedRandom(99, 7).Normal(x, y, c, date);
}

double MinusLogNormal(double x, double mean, double deviation)
{
  const double z = (x - mean) / deviation;
  return .5 * z * z + std::log(deviation) + .5 * std::log(2. * M_PI);
}

struct Errors
{
  double mean = 0.;
  double worst = 0.;
};

/** Of the log-likelihood of N(.3, .5^2), a value. */
Errors LogLikelihoodErrors(const Parametrisation& p, OdeSolver solver, int steps, ProbeKind probes = ProbeKind::Exact)
{
  const ModelContract contract = Contract(p, 1, 16);
  LikelihoodSettings settings = Settings(contract, Estimator::LogLikelihood);
  settings.solver = solver;
  settings.steps = steps;
  settings.probeKind = probes;
  Scorer scorer(contract, settings, LawOf(p, .3, .5));
  const auto value = [](int date, int c, int y, int x) { return .3 + .5 * Normal(date, c, y, x); };
  scorer.Fill(0, value);
  scorer.predictor->Run(1);
  Errors errors;
  for (int date = 0; date < 2; ++date)
  {
    const auto plane = scorer.Plane(0, 1 - date);
    for (int i = 0; i < 256; ++i)
    {
      const double error = std::abs(plane[i] - MinusLogNormal(static_cast<float>(value(date, 0, i / 16, i % 16)), .3, .5));
      errors.mean += error / 512.;
      errors.worst = std::max(errors.worst, error);
    }
  }
  return errors;
}

TEST(Likelihood, LogLikelihoodOfAGaussian)
{
  for (const auto probes : {ProbeKind::Exact, ProbeKind::Rademacher})
  {
    const Errors errors = LogLikelihoodErrors(Flow(), OdeSolver::RungeKutta4, 10, probes);
    EXPECT_LT(errors.mean, 1e-4);
    EXPECT_LT(errors.worst, 1e-3);
  }
  EXPECT_LT(LogLikelihoodErrors(Flow(), OdeSolver::Midpoint, 10).mean, 5e-3);
  const Errors errors = LogLikelihoodErrors(Flow(), OdeSolver::RungeKutta4, 10);
  RecordProperty("rk4_10_mean", std::to_string(errors.mean));
  RecordProperty("rk4_10_worst", std::to_string(errors.worst));
}

TEST(Likelihood, LogLikelihoodConvergesInTheOrderOfTheSolver)
{
  struct Case
  {
    OdeSolver solver;
    int steps;
    double order;
  };
  for (const Case& c : {Case{OdeSolver::Euler, 80, 1.}, Case{OdeSolver::Heun, 20, 2.}, Case{OdeSolver::Midpoint, 20, 2.}, Case{OdeSolver::RungeKutta4, 5, 4.}})
  {
    const double slope = std::log2(LogLikelihoodErrors(Flow(), c.solver, c.steps).mean / LogLikelihoodErrors(Flow(), c.solver, 2 * c.steps).mean);
    EXPECT_NEAR(slope, c.order, c.order == 4. ? .8 : .25) << static_cast<int>(c.solver);
    RecordProperty("slope_" + std::to_string(static_cast<int>(c.solver)), std::to_string(slope));
  }
}

/** Planes of two dates under a parametrisation, one field behind all of them. */
std::vector<float> PlanesUnder(const Parametrisation& p, Estimator estimator)
{
  const ModelContract contract = Contract(p, 2, 8, true);
  LikelihoodSettings settings = Settings(contract, estimator);
  if (estimator == Estimator::LogLikelihood)
  {
    settings.solver = OdeSolver::RungeKutta4;
    settings.steps = 20;
  }
  Scorer scorer(contract, settings, LawOf(p, .2, .7, .9));
  scorer.Fill(
      0, [](int date, int c, int y, int x) { return .2 + .7 * Normal(date, c, y, x); }, 40, -3);
  scorer.predictor->Run(1);
  std::vector<float> all;
  for (int k = 0; k < scorer.predictor->Output(0).channels; ++k)
  {
    const auto plane = scorer.Plane(0, k);
    all.insert(all.end(), plane.begin(), plane.end());
  }
  return all;
}

double Furthest(const std::vector<float>& a, const std::vector<float>& b)
{
  double furthest = a.size() == b.size() ? 0. : 1e9;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
  {
    furthest = std::max(furthest, static_cast<double>(std::abs(a[i] - b[i])));
  }
  return furthest;
}

TEST(Likelihood, AllParametrisationsOfAFieldAgree)
{
  for (const auto estimator : {Estimator::LogLikelihood, Estimator::Pmi, Estimator::Latent, Estimator::Conditional, Estimator::Denoise})
  {
    const auto reference = PlanesUnder(Flow(), estimator);
    double furthest = 0., atEnds = 0.; // of log-likelihoods by dimension
    for (const auto& p : Parametrisations())
    {
      // The betas end in noise of log-SNR -10 (linear) and -7: there the field is that of the last level.
      const bool likelihood = estimator == Estimator::LogLikelihood;
      const bool ends = p.schedule == Schedule::ScaledLinear || (p.schedule == Schedule::LinearBeta && p.time == TimeArgument::Continuous);
      const double distance = Furthest(PlanesUnder(p, estimator), reference) / (likelihood ? 2. : 1.);
      EXPECT_LT(distance, likelihood && ends ? 1e-3 : 1e-4) << p.name << " " << ToString(estimator);
      (likelihood && ends ? atEnds : furthest) = std::max(likelihood && ends ? atEnds : furthest, distance);
    }
    RecordProperty(std::string("furthest_") + ToString(estimator), std::to_string(furthest));
    RecordProperty(std::string("furthest_ends_") + ToString(estimator), std::to_string(atEnds));
  }
}

TEST(Likelihood, IndicesOfStepsAreClose)
{
  Parametrisation p = Parametrisations()[3];
  p.time = TimeArgument::DiscreteIndex;
  p.levelOf = [](double t)
  {
    EXPECT_EQ(t, std::round(t));
    return OfSquare(Products().at(static_cast<std::size_t>(t)));
  };
  for (const auto& bound : {std::make_pair(Estimator::LogLikelihood, .05), std::make_pair(Estimator::Pmi, .05), std::make_pair(Estimator::Latent, .02)})
  {
    const double distance = Furthest(PlanesUnder(p, bound.first), PlanesUnder(Flow(), bound.first));
    EXPECT_LT(distance, bound.second) << ToString(bound.first);
    RecordProperty(std::string("furthest_") + ToString(bound.first), std::to_string(distance));
  }
}

TEST(Likelihood, DivergenceWithinPixels)
{
  // Two channels of covariance [s^2 r; r s^2]: the Jacobian does not cross pixels, so that one probe a channel is exact.
  const double s2 = .36, r = .2;
  const ModelContract contract = Contract(Flow(), 2, 16);
  LikelihoodSettings settings = Settings(contract, Estimator::LogLikelihood);
  settings.solver = OdeSolver::RungeKutta4;
  AnalyticField::Law law = LawOf(Flow(), 0., std::sqrt(s2));
  law.mixing = r;
  const auto value = [&](int date, int c, int y, int x)
  {
    const double a = Normal(date, 0, y, x), b = Normal(date, 1, y, x), root = std::sqrt(s2);
    return c == 0 ? root * a : r / root * a + std::sqrt(s2 - r * r / s2) * b;
  };
  std::vector<double> exact;
  for (int i = 0; i < 256; ++i)
  {
    const double a = value(1, 0, i / 16, i % 16), b = value(1, 1, i / 16, i % 16), determinant = s2 * s2 - r * r;
    exact.push_back(.5 * (s2 * (a * a + b * b) - 2. * r * a * b) / determinant + .5 * std::log(determinant) + std::log(2. * M_PI));
  }
  const auto rmse = [&](ProbeKind kind, int probes)
  {
    settings.probeKind = kind;
    settings.probes = probes;
    Scorer scorer(contract, settings, law);
    scorer.Fill(0, value);
    scorer.predictor->Run(1);
    const auto plane = scorer.Plane(0, 0);
    double sum = 0.;
    for (int i = 0; i < 256; ++i)
    {
      sum += std::pow(plane[i] - exact[i], 2);
    }
    return std::sqrt(sum / 256.);
  };
  EXPECT_LT(rmse(ProbeKind::Exact, 1), 1e-3);
  const double one = rmse(ProbeKind::Rademacher, 1), four = rmse(ProbeKind::Rademacher, 4), many = rmse(ProbeKind::Rademacher, 64);
  // As the root of the number of probes, and better than Gaussian ones.
  EXPECT_NEAR(one / four, 2., .5);
  EXPECT_NEAR(one / many, 8., 2.);
  EXPECT_GT(rmse(ProbeKind::Gaussian, 4), 1.5 * four);
  RecordProperty("exact", std::to_string(rmse(ProbeKind::Exact, 1)));
  RecordProperty("rademacher_1", std::to_string(one));
  RecordProperty("rademacher_4", std::to_string(four));
  RecordProperty("rademacher_64", std::to_string(many));
  RecordProperty("gaussian_4", std::to_string(rmse(ProbeKind::Gaussian, 4)));
}

TEST(Likelihood, DensitiesAreOfRawValues)
{
  ModelContract contract = Contract(Flow(), 2, 8);
  LikelihoodSettings settings = Settings(contract, Estimator::LogLikelihood);
  const auto run = [&]
  {
    Scorer scorer(contract, settings, LawOf(Flow()));
    scorer.Fill(0, Normal);
    scorer.predictor->Run(1);
    return scorer.Plane(0, 0);
  };
  const auto before = run();
  contract.inputs[0].scaling[0].divisor = 10.;
  contract.inputs[0].scaling[1].divisor = -20.;
  const auto after = run();
  for (int i = 0; i < 64; ++i)
  {
    EXPECT_NEAR(after[i] - before[i], std::log(200.), 1e-5);
  }
  // One raw unit, within (0, 1): the same in both dates, not the same everywhere.
  contract.generative->dequantise = true;
  contract.inputs[0].scaling[0].divisor = contract.inputs[0].scaling[1].divisor = 4.;
  settings.solver = OdeSolver::RungeKutta4;
  Scorer scorer(contract, settings, LawOf(Flow()));
  scorer.Fill(0, [](int, int, int, int) { return 0.; });
  scorer.predictor->Run(1);
  const auto plane = scorer.Plane(0, 0);
  const double base = std::log(16.) + std::log(2. * M_PI);
  for (const float value : plane)
  {
    EXPECT_GT(value, base - 1e-3);
    EXPECT_LT(value, base + 1. / 16. + 1e-3);
  }
  EXPECT_NE(plane[0], plane[1]);
  EXPECT_EQ(plane, scorer.Plane(0, 1));
}

/** Share of pairs (changed, unchanged) in the right order. */
double Auroc(const std::vector<float>& unchanged, const std::vector<float>& changed)
{
  double right = 0.;
  for (const float u : unchanged)
  {
    for (const float c : changed)
    {
      right += c > u ? 1. : c == u ? .5 : 0.;
    }
  }
  return right / (static_cast<double>(unchanged.size()) * changed.size());
}

/** 400 unchanged pairs of correlation .9 in slot 0, 400 independent ones in slot 1. */
double Pair(int slot, int date, int c, int y, int x)
{
  const double rho = slot == 0 ? .9 : 0.;
  return date == 0 ? Normal(slot * 2, c, y, x) : rho * Normal(slot * 2, c, y, x) + std::sqrt(1. - rho * rho) * Normal(slot * 2 + 1, c, y, x);
}

TEST(Likelihood, ConditionalGaussian)
{
  const double rho = .9;
  const ModelContract contract = Contract(Flow(), 1, 20, true);
  const auto planes = [&](LikelihoodSettings settings)
  {
    Scorer scorer(contract, settings, LawOf(Flow(), 0., 1., rho));
    for (int slot = 0; slot < 2; ++slot)
    {
      scorer.Fill(
          slot, [slot](int date, int c, int y, int x) { return Pair(slot, date, c, y, x); }, slot * 20);
    }
    scorer.predictor->Run(2);
    return std::vector<std::vector<float>>{scorer.Plane(0, 0), scorer.Plane(1, 0)};
  };
  std::vector<std::vector<float>> exact(2);
  for (int slot = 0; slot < 2; ++slot)
  {
    for (int i = 0; i < 400; ++i)
    {
      const double a = Pair(slot, 0, 0, i / 20, i % 20), b = Pair(slot, 1, 0, i / 20, i % 20);
      exact[slot].push_back(static_cast<float>(MinusLogNormal(b, rho * a, std::sqrt(1. - rho * rho)) - MinusLogNormal(b, 0., 1.)));
    }
  }
  LikelihoodSettings settings = Settings(contract, Estimator::Pmi);
  const auto coarse = planes(settings);
  settings.levels = 16;
  settings.pairs = 4;
  const auto pmi = planes(settings);
  const auto rmse = [&](const std::vector<std::vector<float>>& found)
  {
    double sum = 0.;
    for (int slot = 0; slot < 2; ++slot)
    {
      for (int i = 0; i < 400; ++i)
      {
        sum += std::pow(found[slot][i] - exact[slot][i], 2);
      }
    }
    return std::sqrt(sum / 800.);
  };
  EXPECT_LT(rmse(pmi), .3);
  EXPECT_LT(rmse(coarse), 1.2);

  settings.estimator = Estimator::Conditional;
  const auto conditional = planes(settings);
  const auto alone = planes(Settings(contract, Estimator::LogLikelihood));
  const double ofPmi = Auroc(pmi[0], pmi[1]), ofConditional = Auroc(conditional[0], conditional[1]), ofAlone = Auroc(alone[0], alone[1]);
  EXPECT_LT(ofAlone, .6);
  EXPECT_GT(ofConditional, ofAlone + .1);
  EXPECT_GT(ofPmi, ofConditional - .01);
  EXPECT_NEAR(ofPmi, Auroc(exact[0], exact[1]), .02);
  RecordProperty("rmse_16x4", std::to_string(rmse(pmi)));
  RecordProperty("rmse_8x1", std::to_string(rmse(coarse)));
  RecordProperty("auroc_exact", std::to_string(Auroc(exact[0], exact[1])));
  RecordProperty("auroc_pmi", std::to_string(ofPmi));
  RecordProperty("auroc_pmi_8x1", std::to_string(Auroc(coarse[0], coarse[1])));
  RecordProperty("auroc_cond", std::to_string(ofConditional));
  RecordProperty("auroc_alone", std::to_string(ofAlone));
  const auto latent = planes(Settings(contract, Estimator::Latent));
  RecordProperty("auroc_latent", std::to_string(Auroc(latent[0], latent[1])));

  // The conditional half is minus log p(date 2 | date 1) itself.
  double square = 0.;
  for (int slot = 0; slot < 2; ++slot)
  {
    for (int i = 0; i < 400; ++i)
    {
      const double a = Pair(slot, 0, 0, i / 20, i % 20), b = Pair(slot, 1, 0, i / 20, i % 20);
      square += std::pow(conditional[slot][i] - MinusLogNormal(b, rho * a, std::sqrt(1. - rho * rho)), 2) / 800.;
    }
  }
  EXPECT_LT(std::sqrt(square), .3);
  RecordProperty("rmse_cond", std::to_string(std::sqrt(square)));
}

TEST(Likelihood, EqualDatesGiveNoChange)
{
  const ModelContract contract = Contract(Flow(), 2, 8, true);
  for (const auto estimator : {Estimator::Latent, Estimator::LogLikelihood, Estimator::Pmi, Estimator::Conditional, Estimator::Denoise,
                               Estimator::Reconstruction, Estimator::RoundTrip})
  {
    const LikelihoodSettings settings = Settings(contract, estimator);
    Scorer scorer(contract, settings, LawOf(Flow(), .2, .7, .9), 3);
    for (int n = 0; n < 2; ++n)
    {
      scorer.Fill(
          n, [n](int, int c, int y, int x) { return Normal(n, c, y, x); }, 8 * n);
    }
    scorer.predictor->Run(2);
    const LikelihoodPlanes planes = PlanesOf(settings);
    ASSERT_EQ(scorer.predictor->Output(0).channels, planes.forward + planes.backward);
    for (int n = 0; n < 2; ++n)
    {
      if (estimator == Estimator::Latent)
      {
        EXPECT_EQ(scorer.Plane(n, 0), std::vector<float>(64, 0.f));
        continue;
      }
      for (int k = 0; k < planes.forward; ++k)
      {
        EXPECT_EQ(scorer.Plane(n, k), scorer.Plane(n, planes.forward + k)) << ToString(estimator);
        EXPECT_NE(scorer.Plane(n, k), std::vector<float>(64, 0.f));
      }
    }
  }
}

TEST(Likelihood, DirectionsAreThoseAskedFor)
{
  const ModelContract contract = Contract(Flow(), 1, 8, true);
  for (const auto estimator : {Estimator::Pmi, Estimator::Denoise, Estimator::LogLikelihood, Estimator::Reconstruction, Estimator::RoundTrip})
  {
    LikelihoodSettings settings = Settings(contract, estimator);
    const auto run = [&](bool forward, bool backward, bool swapped)
    {
      settings.forward = forward;
      settings.backward = backward;
      Scorer scorer(contract, settings, LawOf(Flow(), 0., 1., .9));
      scorer.Fill(0, [swapped](int date, int c, int y, int x) { return Normal(swapped ? 1 - date : date, c, y, x); });
      scorer.predictor->Run(1);
      std::vector<std::vector<float>> planes;
      for (int k = 0; k < scorer.predictor->Output(0).channels; ++k)
      {
        planes.push_back(scorer.Plane(0, k));
      }
      return planes;
    };
    const auto both = run(true, true, false), forward = run(true, false, false), backward = run(false, true, false), swapped = run(true, false, true);
    ASSERT_EQ(both.size(), forward.size() + backward.size());
    EXPECT_TRUE(std::equal(forward.begin(), forward.end(), both.begin()));
    EXPECT_TRUE(std::equal(backward.begin(), backward.end(), both.begin() + forward.size()));
    EXPECT_EQ(backward, swapped);
    EXPECT_NE(forward, backward);
  }
}

TEST(Likelihood, ASlotDependsOnItsPatchAlone)
{
  const ModelContract contract = Contract(Parametrisations()[3], 2, 8, true);
  for (const auto estimator :
       {Estimator::Pmi, Estimator::Latent, Estimator::Denoise, Estimator::LogLikelihood, Estimator::Reconstruction, Estimator::RoundTrip})
  {
    const auto run = [&](int batch, int filled, int slot, std::int64_t dx, std::int64_t dy)
    {
      LikelihoodSettings settings = Settings(contract, estimator);
      settings.probeKind = ProbeKind::Gaussian; // whose place shows even where the Jacobian is diagonal
      Scorer scorer(contract, settings, LawOf(Parametrisations()[3], .1, .8, .9), batch);
      for (int n = 0; n < filled; ++n)
      {
        scorer.Fill(
            n, [&](int date, int c, int y, int x) { return Normal(n == slot ? date : 10 + n, c, y + dy, x + dx); }, n == slot ? dx : 100 * n,
            n == slot ? dy : 0);
      }
      scorer.predictor->Run(filled);
      return scorer.Plane(slot, 0);
    };
    const auto alone = run(1, 1, 0, -2, 3);
    EXPECT_EQ(alone, run(4, 4, 2, -2, 3)) << ToString(estimator);
    EXPECT_EQ(alone, run(4, 1, 0, -2, 3)) << ToString(estimator);
    EXPECT_EQ(alone, run(5, 3, 1, -2, 3)) << ToString(estimator);
    // A field of single pixels: neither does a pixel depend on its patch.
    const auto shifted = run(3, 3, 2, 0, 0);
    for (int y = 0; y < 5; ++y)
    {
      for (int x = 0; x < 6; ++x)
      {
        EXPECT_EQ(alone[y * 8 + x + 2], shifted[(y + 3) * 8 + x]) << ToString(estimator);
      }
    }
  }
}

TEST(Likelihood, EvaluationsShareBatches)
{
  const ModelContract contract = Contract(Flow(), 1, 8, true);
  struct Case
  {
    Estimator estimator;
    int each; ///< evaluations of a patch, both directions
    int queues;
  };
  for (const Case& c : {Case{Estimator::Pmi, 2 * 2 * 2 * 8, 1}, Case{Estimator::Conditional, 2 * 2 * 8, 1}, Case{Estimator::Denoise, 2 * 2 * 8, 1},
                        Case{Estimator::Latent, 2 * 10, 10}, Case{Estimator::LogLikelihood, 2 * 20, 20}, Case{Estimator::Reconstruction, 2 * 30, 30},
                        Case{Estimator::RoundTrip, 2 * 20, 20}})
  {
    Scorer scorer(contract, Settings(contract, c.estimator), LawOf(Flow(), 0., 1., .9), 4);
    EXPECT_EQ(scorer.predictor->BatchSize(), 4);
    for (const int filled : {4, 3})
    {
      const int before = scorer.field->evaluations, runs = scorer.field->runs;
      for (int n = 0; n < filled; ++n)
      {
        scorer.Fill(n, Normal, 8 * n);
      }
      scorer.predictor->Run(filled);
      EXPECT_EQ(scorer.field->evaluations - before, filled * c.each) << ToString(c.estimator);
      EXPECT_EQ(scorer.field->runs - runs, c.queues * ((filled * c.each / c.queues + 3) / 4)) << ToString(c.estimator);
    }
    EXPECT_EQ(scorer.predictor->Evaluations(), scorer.field->evaluations);
    EXPECT_EQ(scorer.predictor->Forwards(), scorer.field->runs);
    // Midpoint: ten of twenty stages count, in two batches, with four probes.
    EXPECT_EQ(scorer.field->pullbacks, c.estimator == Estimator::LogLikelihood ? 2 * 10 * 2 * 4 : 0);
    EXPECT_EQ(scorer.predictor->Pullbacks(), scorer.field->pullbacks);
  }
}

TEST(Likelihood, NetworksAreToldTimeAndFlag)
{
  const ModelContract contract = Contract(Flow(), 1, 8, true);
  Scorer pmi(contract, Settings(contract, Estimator::Pmi), LawOf(Flow(), 0., 1., .9));
  pmi.Fill(0, Normal);
  pmi.predictor->Run(1);
  std::set<float> times(pmi.field->times.begin(), pmi.field->times.end());
  EXPECT_EQ(times.size(), 8u);
  EXPECT_FLOAT_EQ(*times.begin(), static_cast<float>(Sigmoid((-6. + .5 * 14. / 8.) / 2.)));
  EXPECT_EQ(std::count(pmi.field->flags.begin(), pmi.field->flags.end(), 1.f), 32);
  EXPECT_EQ(std::count(pmi.field->flags.begin(), pmi.field->flags.end(), 0.f), 32);

  Scorer latent(contract, Settings(contract, Estimator::Latent), LawOf(Flow()));
  latent.Fill(0, Normal);
  latent.predictor->Run(1);
  EXPECT_FLOAT_EQ(latent.field->times.front(), static_cast<float>(Sigmoid(3.)));
  EXPECT_GT(latent.field->times.back(), static_cast<float>(Sigmoid(-1.)));
  EXPECT_EQ(std::count(latent.field->flags.begin(), latent.field->flags.end(), 0.f), 20);

  // Reconstruction starts from half noise at most.
  Scorer recon(contract, Settings(contract, Estimator::Reconstruction), LawOf(Flow()));
  recon.Fill(0, Normal);
  recon.predictor->Run(1);
  EXPECT_FLOAT_EQ(*std::min_element(recon.field->times.begin(), recon.field->times.end()), .5f);
  EXPECT_FLOAT_EQ(*std::max_element(recon.field->times.begin(), recon.field->times.end()), .95f);
}

TEST(Likelihood, TheNullConditionIsZerosOrNothing)
{
  // The network answers with its condition.
  ModelContract contract = Contract(Flow(), 1, 8, true);
  contract.inputs.pop_back();
  std::vector<float> seen;
  const auto run = [&](NullCondition null, Estimator estimator)
  {
    contract.generative->null = null;
    seen.clear();
    LikelihoodNetworks networks;
    networks.field = std::make_unique<FunctionPredictor>(2, std::vector<std::pair<int, int>>{{1, 8}, {1, 8}, {1, 8}}, 1, 8,
                                                         [&seen](int n, std::vector<BatchView>& in, BatchView& out)
                                                         {
                                                           seen.push_back(*in[2].At(n, 0, 0, 0));
                                                           *out.At(n, 0, 0, 0) = 0.f;
                                                         });
    LikelihoodPredictor predictor(std::move(networks), contract, Settings(contract, estimator));
    *predictor.Input(0).At(0, 0, 0, 0) = 11.f;
    *predictor.Input(1).At(0, 0, 0, 0) = 12.f;
    predictor.Run(1);
  };
  const auto count = [&seen](float value) { return std::count(seen.begin(), seen.end(), value); };
  run(NullCondition::Zeros, Estimator::Pmi);
  EXPECT_EQ(count(0.f), 32);
  EXPECT_EQ(count(11.f), 16);
  EXPECT_EQ(count(12.f), 16);
  run(NullCondition::Zeros, Estimator::Denoise);
  EXPECT_EQ(count(0.f), 32);
  // A network that knows a date only given the other one is asked for that.
  run(NullCondition::None, Estimator::Denoise);
  EXPECT_EQ(count(11.f), 16);
  EXPECT_EQ(count(12.f), 16);
}

TEST(Likelihood, APredictedVarianceIsNotLookedAt)
{
  const ModelContract contract = Contract(Flow(), 2, 8);
  for (const auto estimator : {Estimator::Latent, Estimator::LogLikelihood, Estimator::Denoise})
  {
    std::vector<std::vector<float>> planes;
    for (const bool variance : {false, true})
    {
      ModelContract c = contract;
      c.generative->predictsVariance = variance;
      AnalyticField::Law law = LawOf(Flow(), .2, .7);
      law.variance = variance;
      Scorer scorer(c, Settings(c, estimator), law);
      scorer.Fill(0, Normal);
      scorer.predictor->Run(1);
      planes.push_back(scorer.Plane(0, 0));
      EXPECT_FALSE(scorer.field->probedVariance);
    }
    EXPECT_EQ(planes[0], planes[1]);
  }
}

/** A network of methods: means of 2 x 2 pixels, and their repetition. */
std::unique_ptr<Predictor> Encoder(int bands, int side)
{
  return std::make_unique<FunctionPredictor>(
      3, std::vector<std::pair<int, int>>{{bands, side}}, bands, side / 2,
      [bands, side](int n, std::vector<BatchView>& in, BatchView& out)
      {
        for (int c = 0; c < bands; ++c)
        {
          for (int i = 0; i < side * side / 4; ++i)
          {
            const int y = i / (side / 2) * 2, x = i % (side / 2) * 2;
            *out.At(n, c, y / 2, x / 2) = (*in[0].At(n, c, y, x) + *in[0].At(n, c, y, x + 1) + *in[0].At(n, c, y + 1, x) + *in[0].At(n, c, y + 1, x + 1)) / 4.f;
          }
        }
      });
}

std::unique_ptr<Predictor> Decoder(int bands, int side)
{
  return std::make_unique<FunctionPredictor>(3, std::vector<std::pair<int, int>>{{bands, side / 2}}, bands, side,
                                             [bands, side](int n, std::vector<BatchView>& in, BatchView& out)
                                             {
                                               for (int c = 0; c < bands; ++c)
                                               {
                                                 for (int i = 0; i < side * side; ++i)
                                                 {
                                                   *out.At(n, c, i / side, i % side) = *in[0].At(n, c, i / side / 2, i % side / 2);
                                                 }
                                               }
                                             });
}

TEST(Likelihood, LatentsAreScoredOnTheirOwnGrid)
{
  // An image that is constant over the cells: its latents are the small image.
  ModelContract small = Contract(Flow(), 2, 8, true), large = Contract(Flow(), 2, 16, true);
  large.methods = {{"encode", 2, 2}, {"decode", 2, 1}};
  large.inputs = {Argument("latent", 0), Argument("diffusion_time", 0), Argument("condition_latent", 0), Argument("condition_flag", 0), Argument("image", 2)};
  for (const auto estimator :
       {Estimator::Pmi, Estimator::Latent, Estimator::Denoise, Estimator::LogLikelihood, Estimator::Reconstruction, Estimator::RoundTrip})
  {
    const LikelihoodSettings settings = Settings(small, estimator);
    Scorer expected(small, settings, LawOf(Flow(), .2, .7, .9), 4);
    expected.Fill(1, Normal, -5, 7);
    expected.Fill(0, [](int, int, int, int) { return 0.; });
    expected.predictor->Run(2);

    LikelihoodNetworks networks;
    auto field = std::make_unique<AnalyticField>(4, 2, 8, LawOf(Flow(), .2, .7, .9));
    if (estimator == Estimator::LogLikelihood)
    {
      networks.differentiable = std::move(field);
    }
    else
    {
      networks.field = std::move(field);
    }
    networks.encode = Encoder(2, 16);
    networks.decode = Decoder(2, 16);
    const LikelihoodNeeds needs = CheckLikelihood(large, settings);
    EXPECT_TRUE(needs.encode);
    EXPECT_EQ(needs.decode, estimator == Estimator::Reconstruction || estimator == Estimator::RoundTrip);
    LikelihoodPredictor found(std::move(networks), large, settings);
    for (int date = 0; date < 2; ++date)
    {
      for (int c = 0; c < 2; ++c)
      {
        for (int i = 0; i < 256; ++i)
        {
          *found.Input(date).At(1, c, i / 16, i % 16) = static_cast<float>(Normal(date, c, i / 32, i % 16 / 2));
        }
      }
    }
    found.Place(0, 0, 0);
    found.Place(1, -10, 14);
    found.Run(2);
    for (int k = 0; k < found.Output(0).channels; ++k)
    {
      const auto plane = expected.Plane(1, k);
      for (int i = 0; i < 256; ++i)
      {
        EXPECT_FLOAT_EQ(*found.Output(0).At(1, k, i / 16, i % 16), plane[i / 32 * 8 + i % 16 / 2]) << ToString(estimator);
      }
    }
  }
}

TEST(Likelihood, ReconstructionOfAGaussian)
{
  // One Euler step of a linear field after another, by hand.
  ModelContract contract = Contract(Flow(), 1, 8);
  LikelihoodSettings settings = Settings(contract, Estimator::Reconstruction);
  settings.seed = 3;
  Scorer scorer(contract, settings, LawOf(Flow(), .3, .5));
  scorer.Fill(0, Normal, 5, 6);
  scorer.predictor->Run(1);
  const KeyedRandom random(3, 5);
  for (int level = 0; level < 5; ++level)
  {
    const double amount = .1 * (level + 1);
    const int steps = 2 * (level + 1);
    const auto plane = scorer.Plane(0, level);
    for (int i = 0; i < 64; ++i)
    {
      const double x = Normal(1, 0, i / 8, i % 8);
      double state = (1. - amount) * x + amount * random.Normal(5 + i % 8, 6 + i / 8, 0, 16 * level);
      for (int k = 0; k < steps; ++k)
      {
        const double t = 1. - amount + amount * k / steps;
        state += amount / steps * (.3 + (.25 * t - (1. - t)) / (.25 * t * t + (1. - t) * (1. - t)) * (state - t * .3));
      }
      EXPECT_NEAR(plane[i], (state - x) * (state - x), 1e-4);
    }
  }
}

TEST(Likelihood, RoundTripErrorIsOfTheSolver)
{
  const ModelContract contract = Contract(Flow(), 1, 8);
  std::vector<double> means;
  for (const int steps : {10, 100})
  {
    LikelihoodSettings settings = Settings(contract, Estimator::RoundTrip);
    settings.steps = steps;
    Scorer scorer(contract, settings, LawOf(Flow(), .3, .5));
    scorer.Fill(0, Normal);
    scorer.predictor->Run(1);
    const auto plane = scorer.Plane(0, 0);
    means.push_back(std::accumulate(plane.begin(), plane.end(), 0.) / 64.);
  }
  EXPECT_GT(means[0], 1e-4);
  EXPECT_LT(means[1], means[0] / 50.);
}

ModelContract MaskedContract(bool normalised = false)
{
  ModelContract contract;
  contract.task = "change-likelihood";
  contract.inputs = {Argument("image", 2), Argument("token_mask", 0), Argument("condition", 2)};
  contract.tiling.patch = 32;
  contract.masked = MaskedSpec{8, 4, normalised};
  return contract;
}

TEST(Likelihood, MaskedTokens)
{
  // Predicts what the other date shows.
  const ModelContract contract = MaskedContract();
  std::vector<std::vector<float>> masks;
  LikelihoodNetworks networks;
  networks.field = std::make_unique<FunctionPredictor>(3, std::vector<std::pair<int, int>>{{2, 32}, {1, 32}, {2, 32}}, 2, 32,
                                                       [&masks](int n, std::vector<BatchView>& in, BatchView& out)
                                                       {
                                                         masks.emplace_back(in[1].At(n, 0, 0, 0), in[1].At(n, 0, 0, 0) + 1024);
                                                         for (int i = 0; i < 2048; ++i)
                                                         {
                                                           const int c = i / 1024, y = i % 1024 / 32, x = i % 32;
                                                           const bool hidden = *in[1].At(n, 0, y, x) == 1.f;
                                                           EXPECT_EQ(*in[0].At(n, c, y, x) == 0.f, hidden);
                                                           *out.At(n, c, y, x) = hidden ? *in[2].At(n, c, y, x) : 1e9f;
                                                         }
                                                       });
  const LikelihoodSettings settings = Settings(contract, Estimator::Masked);
  LikelihoodPredictor predictor(std::move(networks), contract, settings);
  for (int date = 0; date < 2; ++date)
  {
    for (int n = 0; n < 2; ++n)
    {
      for (int i = 0; i < 2048; ++i)
      {
        *predictor.Input(date).At(n, i / 1024, i % 1024 / 32, i % 32) = static_cast<float>(Normal(date + 2 * n, i / 1024, i % 1024 / 32, i % 32));
      }
    }
  }
  predictor.Place(0, -16, 0);
  predictor.Place(1, -8, 16);
  predictor.Run(2);
  EXPECT_EQ(predictor.Evaluations(), 2 * 2 * 4);
  for (int n = 0; n < 2; ++n)
  {
    for (int i = 0; i < 1024; ++i)
    {
      double expected = 0.;
      for (int c = 0; c < 2; ++c)
      {
        const auto value = [&](int date) { return static_cast<float>(Normal(date + 2 * n, c, i / 32, i % 32)); };
        expected += .5 * std::pow(value(0) - value(1), 2);
      }
      EXPECT_NEAR(*predictor.Output(0).At(n, 0, i / 32, i % 32), expected, 1e-5);
      EXPECT_NEAR(*predictor.Output(0).At(n, 1, i / 32, i % 32), expected, 1e-5);
    }
  }
  // Each pixel is visible once; tokens have their group wherever their patch lies.
  ASSERT_EQ(masks.size(), 16u);
  const auto group = [&masks](int n, int y, int x)
  {
    int found = -1, visible = 0;
    for (int g = 0; g < 4; ++g)
    {
      if (masks[n * 8 + g][y * 32 + x] == 0.f)
      {
        found = g;
        ++visible;
      }
      EXPECT_EQ(masks[n * 8 + g], masks[n * 8 + 4 + g]);
    }
    EXPECT_EQ(visible, 1);
    return found;
  };
  std::set<int> groups;
  for (int y = 0; y < 32; ++y)
  {
    for (int x = 0; x < 32; ++x)
    {
      EXPECT_EQ(group(0, y, x), group(0, y / 8 * 8, x / 8 * 8));
      groups.insert(group(0, y, x));
      if (y >= 16 && x >= 8)
      {
        EXPECT_EQ(group(0, y, x), group(1, y - 16, x - 8));
      }
    }
  }
  EXPECT_GT(groups.size(), 1u);
}

TEST(Likelihood, MaskedTokensStandardised)
{
  const ModelContract contract = MaskedContract(true);
  LikelihoodNetworks networks;
  networks.field = std::make_unique<FunctionPredictor>(2, std::vector<std::pair<int, int>>{{2, 32}, {1, 32}, {2, 32}}, 2, 32,
                                                       [](int n, std::vector<BatchView>&, BatchView& out) { std::fill_n(out.At(n, 0, 0, 0), 2048, 0.f); });
  LikelihoodPredictor predictor(std::move(networks), contract, Settings(contract, Estimator::Masked));
  for (int i = 0; i < 2048; ++i)
  {
    const double value = 50. + 7. * Normal(0, i / 1024, i % 1024 / 32, i % 32);
    *predictor.Input(0).At(0, i / 1024, i % 1024 / 32, i % 32) = *predictor.Input(1).At(0, i / 1024, i % 1024 / 32, i % 32) = static_cast<float>(value);
  }
  predictor.Run(1);
  for (int token = 0; token < 16; ++token)
  {
    double mean = 0.;
    for (int i = 0; i < 64; ++i)
    {
      mean += *predictor.Output(0).At(0, 0, token / 4 * 8 + i / 8, token % 4 * 8 + i % 8) / 64.;
    }
    EXPECT_NEAR(mean, 127. / 128., 1e-4);
  }
}

TEST(Likelihood, CosineDistanceOfFeatures)
{
  ModelContract contract;
  contract.inputs = {Argument("image", 2)};
  contract.tiling.patch = 8;
  contract.methods = {{"features", 2, 2}};
  LikelihoodNetworks networks;
  networks.features = Encoder(2, 8);
  LikelihoodPredictor predictor(std::move(networks), contract, Settings(contract, Estimator::Feature));
  for (int date = 0; date < 2; ++date)
  {
    for (int c = 0; c < 2; ++c)
    {
      for (int i = 0; i < 64; ++i)
      {
        // Left: equal; the rest turned by an angle, and longer. One cell holds nothing in date 1.
        const double angle = (i % 8 < 4 ? .7 : .2 + .5 * date), length = i % 8 < 4 ? 1. : 1. + date;
        *predictor.Input(date).At(0, c, i / 8, i % 8) =
            i / 8 < 2 && i % 8 >= 6 && date == 0 ? 0.f : static_cast<float>(length * (c == 0 ? std::cos(angle) : std::sin(angle)));
      }
    }
  }
  predictor.Run(1);
  EXPECT_EQ(predictor.Output(0).channels, 1);
  for (int i = 0; i < 64; ++i)
  {
    const float found = *predictor.Output(0).At(0, 0, i / 8, i % 8);
    if (i % 8 < 4)
    {
      EXPECT_EQ(found, 0.f);
    }
    else
    {
      EXPECT_NEAR(found, i / 8 < 2 && i % 8 >= 6 ? 1. : 1. - std::cos(.5), 1e-6);
    }
  }
  EXPECT_EQ(predictor.Evaluations(), 2);
}

std::string Refusal(const ModelContract& contract, const LikelihoodSettings& settings)
{
  try
  {
    CheckLikelihood(contract, settings);
  }
  catch (const Error& e)
  {
    return e.what();
  }
  return "";
}

TEST(CheckLikelihood, ModelsThatCannot)
{
  const ModelContract plain = Contract(Flow(), 1, 8);
  EXPECT_EQ(Refusal(plain, Settings(plain, Estimator::Pmi)),
            "estimator: found pmi with a model that takes no condition; expected a model with an input of role condition, the other date. This model can serve "
            "latent, denoise, loglik, recon, odeed.");
  EXPECT_THAT(Refusal(plain, Settings(plain, Estimator::Conditional)), HasSubstr("cond with a model that takes no condition"));
  EXPECT_THAT(Refusal(plain, Settings(plain, Estimator::Masked)), HasSubstr("mae with a model that is no masked autoencoder"));
  EXPECT_THAT(Refusal(plain, Settings(plain, Estimator::Feature)), HasSubstr("feature with a model that gives no features"));
  ModelContract conditional = Contract(Flow(), 1, 8, true);
  EXPECT_EQ(Refusal(conditional, Settings(conditional, Estimator::Pmi)), "");
  conditional.generative->null = NullCondition::None;
  EXPECT_THAT(Refusal(conditional, Settings(conditional, Estimator::Pmi)), HasSubstr("pmi with a model that cannot do without its condition"));
  EXPECT_EQ(Refusal(conditional, Settings(conditional, Estimator::Conditional)), "");
  ModelContract latent = Contract(Flow(), 1, 8);
  latent.methods = {{"encode", 4, 2}};
  EXPECT_THAT(Refusal(latent, Settings(latent, Estimator::Latent)), HasSubstr("encodes but takes no latents"));
  latent.inputs = {Argument("latent", 0), Argument("diffusion_time", 0), Argument("image", 1)};
  EXPECT_THAT(Refusal(latent, Settings(latent, Estimator::Reconstruction)), HasSubstr("encodes but does not decode"));
  EXPECT_EQ(Refusal(latent, Settings(latent, Estimator::Latent)), "");
  latent.methods = {{"encode", 4, 3}};
  EXPECT_THAT(Refusal(latent, Settings(latent, Estimator::Latent)), HasSubstr("latents of 1/3"));
  const ModelContract masked = MaskedContract();
  EXPECT_EQ(Refusal(masked, Settings(masked, Estimator::Latent)),
            "estimator: found latent with a model that does not denoise; expected a model whose contract has otb:generative. This model can serve mae.");
  ModelContract few = masked;
  few.masked->groups = 1;
  EXPECT_THAT(Refusal(few, Settings(few, Estimator::Masked)), HasSubstr("1 group of tokens"));
  few = masked;
  few.masked->patch = 7;
  EXPECT_THAT(Refusal(few, Settings(few, Estimator::Masked)), HasSubstr("tokens of 7 pixels in patches of 32"));
  EXPECT_THAT(Refusal(ModelContract(), Settings(ModelContract(), Estimator::Latent)), HasSubstr("This model serves none of the estimators."));
  ModelContract order = Contract(Flow(), 1, 8);
  std::swap(order.inputs[0], order.inputs[1]);
  EXPECT_THAT(Refusal(order, Settings(order, Estimator::LogLikelihood)), HasSubstr("loglik with a model whose first argument is \"diffusion_time\""));
  EXPECT_EQ(Refusal(order, Settings(order, Estimator::Latent)), "");
  order = Contract(Flow(), 1, 8);
  order.outputs.resize(2);
  order.outputs[0].role = "aux";
  EXPECT_THAT(Refusal(order, Settings(order, Estimator::LogLikelihood)), HasSubstr("first output is of role aux"));
  ModelContract other = Contract(Flow(), 1, 8, true);
  other.inputs[2].scaling[0].divisor = 2.;
  EXPECT_THAT(Refusal(other, Settings(other, Estimator::Pmi)), HasSubstr("whose bands or scaling differ"));
}

TEST(CheckLikelihood, SettingsOutOfRange)
{
  const ModelContract contract = Contract(Flow(), 1, 8, true);
  const auto refusal = [&](Estimator estimator, auto change)
  {
    LikelihoodSettings settings = Settings(contract, estimator);
    EXPECT_EQ(Refusal(contract, settings), "");
    change(settings);
    return Refusal(contract, settings);
  };
  EXPECT_EQ(refusal(Estimator::Pmi, [](LikelihoodSettings& s) { s.levels = 0; }), "levels: found 0; expected 1 to 4096");
  EXPECT_THAT(refusal(Estimator::Reconstruction, [](LikelihoodSettings& s) { s.levels = -1; }), HasSubstr("levels: found -1"));
  EXPECT_THAT(refusal(Estimator::Denoise, [](LikelihoodSettings& s) { s.pairs = 0; }), HasSubstr("pairs: found 0"));
  EXPECT_THAT(refusal(Estimator::Latent, [](LikelihoodSettings& s) { s.steps = 0; }), HasSubstr("steps: found 0; expected 1 or more"));
  EXPECT_THAT(refusal(Estimator::LogLikelihood, [](LikelihoodSettings& s) { s.probes = 0; }), HasSubstr("probes: found 0"));
  EXPECT_EQ(refusal(Estimator::LogLikelihood,
                    [](LikelihoodSettings& s)
                    {
                      s.probes = 0;
                      s.probeKind = ProbeKind::Exact;
                    }),
            "");
  EXPECT_EQ(refusal(Estimator::Pmi, [](LikelihoodSettings& s) { s.logSnrHigh = 15.; }),
            "logsnr: found -6 to 15; expected a range within -14 to 14. The network was trained on noise of these log-SNRs.");
  EXPECT_THAT(refusal(Estimator::Latent, [](LikelihoodSettings& s) { s.logSnrHigh = -3.; }), HasSubstr("low end lies below its high end"));
  EXPECT_THAT(refusal(Estimator::Pmi, [](LikelihoodSettings& s) { s.forward = s.backward = false; }), HasSubstr("direction: found none"));
}

TEST(CheckLikelihood, Defaults)
{
  ModelContract contract = Contract(Flow(), 1, 8, true);
  contract.generative->logSnrLow = -4.;
  contract.generative->logSnrHigh = 5.;
  EXPECT_EQ(DefaultEstimator(contract), Estimator::Pmi);
  const auto pmi = Settings(contract, Estimator::Pmi), latent = Settings(contract, Estimator::Latent), loglik = Settings(contract, Estimator::LogLikelihood);
  EXPECT_EQ(pmi.levels, 8);
  EXPECT_EQ(pmi.logSnrLow, -4.);
  EXPECT_EQ(pmi.logSnrHigh, 5.);
  EXPECT_EQ(latent.steps, 10);
  EXPECT_EQ(latent.logSnrLow, -2.);
  EXPECT_EQ(latent.logSnrHigh, 5.);
  EXPECT_EQ(loglik.solver, OdeSolver::Midpoint);
  EXPECT_EQ(loglik.steps, 10);
  EXPECT_EQ(loglik.probes, 4);
  EXPECT_EQ(Settings(contract, Estimator::Reconstruction).levels, 5);
  EXPECT_EQ(Settings(contract, Estimator::RoundTrip).solver, OdeSolver::Euler);
  contract.generative->null = NullCondition::None;
  EXPECT_EQ(DefaultEstimator(contract), Estimator::Conditional);
  EXPECT_EQ(DefaultEstimator(Contract(Flow(), 1, 8)), Estimator::Latent);
  EXPECT_EQ(DefaultEstimator(MaskedContract()), Estimator::Masked);
  EXPECT_EQ(DefaultEstimator(ModelContract()), Estimator::Feature);

  EXPECT_EQ(PlanesOf(pmi).forward, 1);
  EXPECT_EQ(PlanesOf(latent).backward, 0);
  EXPECT_EQ(PlanesOf(Settings(contract, Estimator::Denoise)).backward, 8);
  EXPECT_TRUE(PlanesOf(Settings(contract, Estimator::Denoise)).standardise);
  EXPECT_EQ(PlanesOf(Settings(contract, Estimator::Reconstruction)).forward, 5);
}

} // namespace
