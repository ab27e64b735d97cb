/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLNoiseSchedule.h"
#include "otbDLOdeSolver.h"

#include <gtest/gtest.h>

#include <cmath>

namespace
{

using namespace otb::dl;
using Schedule = NoiseSpec::Schedule;

GenerativeSpec Spec(FieldKind kind, Schedule schedule, TimeArgument time, double dataAt = 0.)
{
  GenerativeSpec spec;
  spec.kind = kind;
  spec.noise.schedule = schedule;
  spec.time = time;
  spec.dataAt = dataAt;
  spec.logSnrLow = -14.;
  spec.logSnrHigh = 14.;
  return spec;
}

double Sigmoid(double x)
{
  return 1. / (1. + std::exp(-x));
}

TEST(NoiseSchedule, Flow)
{
  const NoiseSchedule one(Spec(FieldKind::Velocity, Schedule::FlowLinear, TimeArgument::Continuous, 1.));
  const NoiseSchedule zero(Spec(FieldKind::Velocity, Schedule::FlowLinear, TimeArgument::Continuous, 0.));
  for (const double logSnr : {-8., -1., 0., 2.5, 9.})
  {
    const NoiseLevel a = one.AtLogSnr(logSnr), b = zero.AtLogSnr(logSnr);
    EXPECT_NEAR(a.alpha, Sigmoid(logSnr / 2.), 1e-14);
    EXPECT_NEAR(a.alpha + a.sigma, 1., 1e-14);
    EXPECT_DOUBLE_EQ(a.time, a.alpha);
    EXPECT_DOUBLE_EQ(b.time, b.sigma);
    EXPECT_DOUBLE_EQ(a.logSnr, logSnr);
  }
  EXPECT_EQ(one.At(0.).alpha, 0.);
  EXPECT_EQ(one.At(1.).sigma, 0.);
  EXPECT_EQ(one.At(1.).time, 1.);
  EXPECT_EQ(zero.At(1.).time, 0.);
  EXPECT_EQ(one.At(.25).alpha, .25);
}

TEST(NoiseSchedule, ContinuousBetasHaveClosedForms)
{
  // log alpha^2 = - integral of beta, Song et al. (2021); the root found by the quadratic formula.
  const NoiseSchedule linear(Spec(FieldKind::Epsilon, Schedule::LinearBeta, TimeArgument::Continuous));
  const NoiseSchedule reversed(Spec(FieldKind::Epsilon, Schedule::LinearBeta, TimeArgument::Continuous, 1.));
  for (const double logSnr : {-9., -3., 0., 4., 8.})
  {
    const NoiseLevel level = linear.AtLogSnr(logSnr);
    const double c = std::log1p(std::exp(-logSnr)); // -log alpha^2
    const double tau = (-.1 + std::sqrt(.01 + 2. * 19.9 * c)) / 19.9;
    EXPECT_NEAR(level.time, tau, 1e-12);
    EXPECT_NEAR(reversed.AtLogSnr(logSnr).time, 1. - tau, 1e-12);
    EXPECT_NEAR(level.logSnr, logSnr, 1e-9);
    EXPECT_NEAR(level.alpha * level.alpha, Sigmoid(logSnr), 1e-12);
    EXPECT_NEAR(level.alpha * level.alpha + level.sigma * level.sigma, 1., 1e-14);
  }
  // What the schedule does not reach has its end.
  EXPECT_NEAR(linear.AtLogSnr(-20.).time, 1., 1e-12);
  EXPECT_NEAR(linear.AtLogSnr(-20.).logSnr, -10.05, 1e-3);

  const NoiseSchedule cosine(Spec(FieldKind::Epsilon, Schedule::Cosine, TimeArgument::Continuous));
  for (const double tau : {.1, .5, .9})
  {
    const double f = std::pow(std::cos((tau + .008) / 1.008 * M_PI / 2.) / std::cos(.008 / 1.008 * M_PI / 2.), 2);
    const NoiseLevel level = cosine.AtLogSnr(std::log(f / (1. - f)));
    EXPECT_NEAR(level.time, tau, 1e-9);
    EXPECT_NEAR(level.alpha * level.alpha, f, 1e-12);
  }
}

TEST(NoiseSchedule, IndicesSnap)
{
  for (const auto schedule : {Schedule::LinearBeta, Schedule::ScaledLinear, Schedule::Cosine})
  {
    const GenerativeSpec spec = Spec(FieldKind::Epsilon, schedule, TimeArgument::DiscreteIndex);
    const NoiseSchedule steps(spec);
    // The recurrence of Ho et al. (2020).
    std::vector<double> square;
    double product = 1.;
    for (int i = 0; i < 1000; ++i)
    {
      double beta = 1e-4 + (.02 - 1e-4) * i / 999.;
      if (schedule == Schedule::ScaledLinear)
      {
        beta = std::pow(std::sqrt(1e-4) + (std::sqrt(.02) - std::sqrt(1e-4)) * i / 999., 2);
      }
      else if (schedule == Schedule::Cosine)
      {
        const auto f = [](double tau) { return std::pow(std::cos((tau + .008) / 1.008 * M_PI / 2.), 2); };
        beta = std::min(.999, 1. - f((i + 1) / 1000.) / f(i / 1000.));
      }
      product *= 1. - beta;
      square.push_back(product);
    }
    for (const int i : {0, 1, 250, 700, 999})
    {
      const double logSnr = std::log(square[i] / (1. - square[i]));
      const double next = i + 1 < 1000 ? std::log(square[i + 1] / (1. - square[i + 1])) : logSnr - 9.;
      const double before = i > 0 ? std::log(square[i - 1] / (1. - square[i - 1])) : logSnr + 9.;
      for (const double asked : {logSnr, logSnr + .4 * (next - logSnr), logSnr + .4 * (before - logSnr)})
      {
        const NoiseLevel level = steps.AtLogSnr(asked);
        EXPECT_EQ(level.time, i);
        EXPECT_NEAR(level.alpha, std::sqrt(square[i]), 1e-10);
        EXPECT_NEAR(level.sigma, std::sqrt(1. - square[i]), 1e-10);
        EXPECT_NEAR(level.logSnr, logSnr, 1e-6);
      }
    }
    EXPECT_EQ(steps.AtLogSnr(50.).time, 0.);
    EXPECT_EQ(steps.AtLogSnr(-50.).time, 999.);
  }
}

TEST(NoiseSchedule, TheLimitOfManyStepsIsContinuous)
{
  const NoiseSchedule steps(Spec(FieldKind::Epsilon, Schedule::LinearBeta, TimeArgument::DiscreteIndex));
  const NoiseSchedule limit(Spec(FieldKind::Epsilon, Schedule::LinearBeta, TimeArgument::Continuous));
  for (const double logSnr : {-8., 0., 5.})
  {
    EXPECT_NEAR(steps.AtLogSnr(logSnr).time / 1000., limit.AtLogSnr(logSnr).time, 5e-3);
  }
}

TEST(NoiseSchedule, Tables)
{
  GenerativeSpec spec = Spec(FieldKind::Epsilon, Schedule::Table, TimeArgument::DiscreteIndex);
  spec.noise.alphasCumprod = {.9, .5, .1};
  const NoiseSchedule table(spec);
  EXPECT_EQ(table.AtLogSnr(.3).time, 1.);
  EXPECT_NEAR(table.AtLogSnr(.3).alpha, std::sqrt(.5), 1e-12);
  EXPECT_EQ(table.AtLogSnr(9.).time, 0.);
  EXPECT_EQ(table.AtLogSnr(-9.).time, 2.);
  spec.time = TimeArgument::Continuous;
  const NoiseSchedule interpolated(spec);
  EXPECT_NEAR(interpolated.AtLogSnr(std::log(9.) / 2.).time, 1.5 / 3., 1e-12);
  EXPECT_NEAR(interpolated.AtLogSnr(std::log(9.) / 2.).logSnr, std::log(9.) / 2., 1e-12);
  EXPECT_NEAR(interpolated.AtLogSnr(9.).time, 1. / 3., 1e-12);
  EXPECT_NEAR(interpolated.AtLogSnr(-9.).time, 1., 1e-12);

  // A flow told an index.
  const NoiseSchedule flow(Spec(FieldKind::Velocity, Schedule::FlowLinear, TimeArgument::DiscreteIndex));
  EXPECT_EQ(flow.At(0.).time, 999.);
  EXPECT_EQ(flow.At(0.).alpha, 0.);
  EXPECT_EQ(flow.At(1.).time, 0.);
  EXPECT_NEAR(flow.At(.5).sigma, .5, 1e-12);
}

TEST(NoiseSchedule, LogSnrAndSigmaAreToldAsTheyAre)
{
  for (const auto schedule : {Schedule::FlowLinear, Schedule::LinearBeta, Schedule::Edm})
  {
    const NoiseLevel a = NoiseSchedule(Spec(FieldKind::X0, schedule, TimeArgument::LogSnr)).AtLogSnr(1.5);
    const NoiseLevel b = NoiseSchedule(Spec(FieldKind::X0, schedule, TimeArgument::Sigma)).AtLogSnr(1.5);
    EXPECT_EQ(a.time, 1.5);
    EXPECT_NEAR(b.time, std::exp(-.75), 1e-12);
    EXPECT_NEAR(a.alpha / a.sigma, std::exp(.75), 1e-12);
    EXPECT_NEAR(a.alpha, schedule == Schedule::Edm ? 1. : schedule == Schedule::FlowLinear ? Sigmoid(.75) : std::sqrt(Sigmoid(1.5)), 1e-12);
  }
}

TEST(NoiseSchedule, SingularEndsAreKeptAway)
{
  GenerativeSpec spec = Spec(FieldKind::Epsilon, Schedule::FlowLinear, TimeArgument::Continuous, 1.);
  EXPECT_NEAR(NoiseSchedule(spec).At(0.).alpha, 1e-3, 1e-12);
  EXPECT_NEAR(NoiseSchedule(spec).At(1.).sigma, 1e-3, 1e-12);
  spec.logSnrLow = -6.;
  spec.logSnrHigh = 8.;
  EXPECT_NEAR(NoiseSchedule(spec).At(0.).alpha, Sigmoid(-3.), 1e-12);
  EXPECT_NEAR(NoiseSchedule(spec).At(1.).sigma, Sigmoid(-4.), 1e-12);
  spec.kind = FieldKind::Velocity;
  EXPECT_EQ(NoiseSchedule(spec).At(0.).alpha, 0.);
  spec.time = TimeArgument::LogSnr;
  EXPECT_TRUE(std::isfinite(NoiseSchedule(spec).At(0.).time));
}

TEST(NoiseSchedule, WhatCannotBe)
{
  EXPECT_THROW(NoiseSchedule(Spec(FieldKind::Edm, Schedule::Edm, TimeArgument::Continuous)), Error);
  EXPECT_THROW(NoiseSchedule(Spec(FieldKind::Edm, Schedule::Edm, TimeArgument::DiscreteIndex)), Error);
  EXPECT_THROW(NoiseSchedule(Spec(FieldKind::Epsilon, Schedule::Table, TimeArgument::DiscreteIndex)), Error);
}

TEST(FieldTerms, GiveBackDataAndNoise)
{
  const double x = .7, e = -1.3;
  for (const auto& level : {NoiseLevel{.6, .8, 0., 0.}, NoiseLevel{.3, .7, 0., 0.}, NoiseLevel{1., 2.5, 0., 0.}})
  {
    const double a = level.alpha, s = level.sigma;
    const std::pair<FieldKind, double> outputs[] = {{FieldKind::Velocity, x - e},           {FieldKind::Epsilon, e},    {FieldKind::X0, x},
                                                    {FieldKind::VDiffusion, a * e - s * x}, {FieldKind::Score, -e / s}, {FieldKind::Edm, x}};
    const double state = level.Data() * x + level.Noise() * e;
    EXPECT_NEAR(level.Scale() * state, a * x + s * e, 1e-12);
    for (const auto& output : outputs)
    {
      const FieldTerms terms = TermsOf(output.first, level);
      const auto apply = [&](const FieldTerm& term) { return term.state * state + term.output * output.second; };
      EXPECT_NEAR(apply(terms.noise), e, 1e-12);
      EXPECT_NEAR(apply(terms.data), x, 1e-12);
      EXPECT_NEAR(apply(terms.velocity), x - e, 1e-12);
    }
  }
}

TEST(OdeSolver, OrdersOfConvergence)
{
  // y' = y cos t, y = exp(sin t); the integral of cos t by the same quadrature.
  const auto errors = [](OdeSolver solver, int steps)
  {
    std::vector<double> state = {1.};
    double integral = 0.;
    Integrate(solver, 0., 2., steps, state,
              [&](double t, const std::vector<double>& at, double weight, std::vector<double>& slope)
              {
                slope[0] = at[0] * std::cos(t);
                integral += weight * std::cos(t);
              });
    return std::pair<double, double>(std::abs(state[0] - std::exp(std::sin(2.))), std::abs(integral - std::sin(2.)));
  };
  const std::pair<OdeSolver, double> orders[] = {{OdeSolver::Euler, 1.}, {OdeSolver::Heun, 2.}, {OdeSolver::Midpoint, 2.}, {OdeSolver::RungeKutta4, 4.}};
  for (const auto& order : orders)
  {
    const auto coarse = errors(order.first, 40), fine = errors(order.first, 80);
    EXPECT_NEAR(std::log2(coarse.first / fine.first), order.second, .15);
    EXPECT_NEAR(std::log2(coarse.second / fine.second), order.second, .15);
  }
}

TEST(OdeSolver, EndsAreMet)
{
  std::vector<float> state = {0.f};
  std::vector<double> times;
  Integrate(OdeSolver::RungeKutta4, 1., 0., 7, state,
            [&](double t, const std::vector<float>&, double, std::vector<float>& slope)
            {
              slope[0] = 1.f;
              times.push_back(t);
            });
  EXPECT_EQ(times.size(), 28u);
  EXPECT_EQ(times.front(), 1.);
  EXPECT_EQ(times.back(), 0.);
  EXPECT_NEAR(state[0], -1.f, 1e-6);
}

} // namespace
