/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLNoiseSchedule.h"

#include <algorithm>
#include <cmath>

namespace otb
{
namespace dl
{

namespace
{

using Schedule = NoiseSpec::Schedule;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double halfPi = 1.5707963267948966;
constexpr double endMargin = 1e-3;

/** log-SNR where alpha^2 + sigma^2 = 1. */
double LogSnrOf(double logAlphaSquared)
{
  return logAlphaSquared - std::log(-std::expm1(logAlphaSquared));
}

double Sigmoid(double x)
{
  return 1. / (1. + std::exp(-x));
}

/** log alpha^2 after each step. */
std::vector<double> Steps(const NoiseSpec& spec)
{
  std::vector<double> result;
  if (spec.schedule == Schedule::Table)
  {
    for (const double a : spec.alphasCumprod)
    {
      result.push_back(std::log(a));
    }
    return result;
  }
  const bool root = spec.schedule == Schedule::ScaledLinear;
  const double begin = root ? std::sqrt(spec.betaStart) : spec.betaStart, end = root ? std::sqrt(spec.betaEnd) : spec.betaEnd;
  const auto cosine = [&](double tau)
  {
    const double c = std::cos((tau + spec.cosineOffset) / (1. + spec.cosineOffset) * halfPi);
    return c * c;
  };
  double sum = 0.;
  for (int i = 0; i < spec.steps; ++i)
  {
    double beta = spec.steps > 1 ? begin + (end - begin) * i / (spec.steps - 1) : begin;
    beta = root ? beta * beta : beta;
    if (spec.schedule == Schedule::Cosine)
    {
      const double n = spec.steps;
      beta = std::min(1. - cosine((i + 1) / n) / cosine(i / n), .999);
    }
    sum += std::log1p(-beta);
    result.push_back(sum);
  }
  return result;
}

} // namespace

NoiseSchedule::NoiseSchedule(const GenerativeSpec& spec) : m_Spec(spec.noise), m_Time(spec.time), m_DataAt(spec.dataAt)
{
  const bool flow = m_Spec.schedule == Schedule::FlowLinear, edm = m_Spec.schedule == Schedule::Edm;
  const bool index = m_Time == TimeArgument::DiscreteIndex;
  if (edm && (index || m_Time == TimeArgument::Continuous))
  {
    throw Error(
        Complaint("model", "a schedule edm whose time is " + std::string(index ? "an index" : "continuous"), "sigma or logsnr", "Correct the contract."));
  }
  if (m_Spec.schedule == Schedule::Table ? m_Spec.alphasCumprod.empty() : m_Spec.steps < 1)
  {
    throw Error(Complaint("model", "a noise schedule without steps", "one or more", "Correct the contract."));
  }
  if (!flow && !edm)
  {
    m_LogAlphaSquared = Steps(m_Spec);
    for (const double a : m_LogAlphaSquared)
    {
      m_LogSnr.push_back(LogSnrOf(a));
    }
  }
  else if (flow && index)
  {
    for (int i = 0; i < m_Spec.steps; ++i)
    {
      const double sigma = (i + 1.) / m_Spec.steps;
      m_LogSnr.push_back(2. * std::log((1. - sigma) / sigma));
    }
  }
  if (!flow || spec.kind != FieldKind::Velocity || m_Time == TimeArgument::LogSnr || m_Time == TimeArgument::Sigma)
  {
    m_Low = std::max(endMargin, Sigmoid(spec.logSnrLow / 2.));
    m_High = std::min(1. - endMargin, Sigmoid(spec.logSnrHigh / 2.));
  }
}

/** Continuous time: log alpha^2 at tau, 0 = data. */
double NoiseSchedule::LogAlphaSquared(double tau) const
{
  const double n = m_Spec.steps;
  switch (m_Spec.schedule)
  {
  case Schedule::LinearBeta:
    return -n * tau * (m_Spec.betaStart + tau * (m_Spec.betaEnd - m_Spec.betaStart) / 2.);
  case Schedule::ScaledLinear:
  {
    const double begin = std::sqrt(m_Spec.betaStart), slope = std::sqrt(m_Spec.betaEnd) - begin;
    return -n * tau * (begin * begin + tau * (begin * slope + tau * slope * slope / 3.));
  }
  default: // Cosine
  {
    const double s = m_Spec.cosineOffset;
    return 2. * std::log(std::cos((tau + s) / (1. + s) * halfPi) / std::cos(s / (1. + s) * halfPi));
  }
  }
}

/** Continuous time: the tau of a log-SNR, by bisection. Those beyond the schedule's end have its end. */
double NoiseSchedule::Tau(double logSnr) const
{
  double low = 0., high = 1.;
  for (int i = 0; i < 100; ++i)
  {
    const double middle = (low + high) / 2.;
    (LogSnrOf(LogAlphaSquared(middle)) > logSnr ? low : high) = middle;
  }
  return high;
}

NoiseLevel NoiseSchedule::Named(double alpha, double sigma, double time) const
{
  return {alpha, sigma, time, sigma > 0. ? 2. * std::log(alpha / sigma) : infinity};
}

NoiseLevel NoiseSchedule::AtLogSnr(double logSnr) const
{
  const bool flow = m_Spec.schedule == Schedule::FlowLinear;
  const auto preserving = [](double logAlphaSquared, double time) {
    return NoiseLevel{std::exp(logAlphaSquared / 2.), std::sqrt(-std::expm1(logAlphaSquared)), time, LogSnrOf(logAlphaSquared)};
  };
  const auto told = [this](double tau) { return m_DataAt == 0. ? tau : 1. - tau; };
  switch (m_Time)
  {
  case TimeArgument::DiscreteIndex:
  {
    const auto after = std::find_if(m_LogSnr.begin(), m_LogSnr.end(), [logSnr](double l) { return l <= logSnr; });
    std::size_t i = after - m_LogSnr.begin();
    if (i == m_LogSnr.size() || (i > 0 && *after != logSnr && m_LogSnr[i - 1] - logSnr < logSnr - *after))
    {
      --i;
    }
    const double sigma = (i + 1.) / m_Spec.steps;
    return flow ? Named(1. - sigma, sigma, i) : preserving(m_LogAlphaSquared[i], i);
  }
  case TimeArgument::Continuous:
  {
    if (flow)
    {
      const double t = Sigmoid(logSnr / 2.), noise = Sigmoid(-logSnr / 2.);
      return {t, noise, told(noise), logSnr};
    }
    if (m_Spec.schedule == Schedule::Table)
    {
      const double n = m_LogSnr.size();
      const auto after = std::find_if(m_LogSnr.begin(), m_LogSnr.end(), [logSnr](double l) { return l <= logSnr; });
      const std::size_t i = after - m_LogSnr.begin();
      if (i == 0 || i == m_LogSnr.size())
      {
        const std::size_t end = i == 0 ? 0 : i - 1;
        return preserving(m_LogAlphaSquared[end], told((end + 1.) / n));
      }
      const double part = (m_LogSnr[i - 1] - logSnr) / (m_LogSnr[i - 1] - *after);
      return preserving(-std::log1p(std::exp(-logSnr)), told((i + part) / n));
    }
    const double tau = Tau(logSnr);
    return preserving(LogAlphaSquared(tau), told(tau));
  }
  default:
  {
    NoiseLevel level{1., std::exp(-logSnr / 2.), 0., logSnr}; // Edm
    if (flow)
    {
      level.alpha = Sigmoid(logSnr / 2.);
      level.sigma = Sigmoid(-logSnr / 2.);
    }
    else if (m_Spec.schedule != Schedule::Edm)
    {
      level.alpha = std::sqrt(Sigmoid(logSnr));
      level.sigma = std::sqrt(Sigmoid(-logSnr));
    }
    level.time = m_Time == TimeArgument::LogSnr ? logSnr : level.sigma / level.alpha;
    return level;
  }
  }
}

NoiseLevel NoiseSchedule::At(double t) const
{
  const double within = std::min(std::max(t, m_Low), m_High);
  if (m_Spec.schedule == Schedule::FlowLinear && m_Time == TimeArgument::Continuous)
  {
    // Not by way of the log-SNR, which is infinite at the ends.
    return Named(within, 1. - within, m_DataAt == 0. ? 1. - within : within);
  }
  return AtLogSnr(2. * std::log(within / (1. - within)));
}

FieldTerms TermsOf(FieldKind kind, const NoiseLevel& level)
{
  const double t = level.Data(), u = level.Noise();
  FieldTerms terms;
  switch (kind)
  {
  case FieldKind::Velocity:
    terms.noise = {1., -t};
    terms.data = {1., u};
    terms.velocity = {0., 1.};
    break;
  case FieldKind::Epsilon:
    terms.noise = {0., 1.};
    terms.data = {1. / t, -u / t};
    terms.velocity = {1. / t, -1. / t};
    break;
  case FieldKind::X0:
  case FieldKind::Edm:
    terms.noise = {1. / u, -t / u};
    terms.data = {0., 1.};
    terms.velocity = {-1. / u, 1. / u};
    break;
  case FieldKind::VDiffusion:
  {
    // Divided by alpha^2 + sigma^2: exact on any schedule.
    const double square = level.alpha * level.alpha + level.sigma * level.sigma, scale = level.Scale();
    terms.noise = {level.sigma * scale / square, level.alpha / square};
    terms.data = {level.alpha * scale / square, -level.sigma / square};
    terms.velocity = {(level.alpha - level.sigma) * scale / square, -scale / square};
    break;
  }
  case FieldKind::Score:
    terms.noise = {0., -level.sigma};
    terms.data = {1. / t, level.sigma * u / t};
    terms.velocity = {1. / t, level.sigma / t};
    break;
  }
  return terms;
}

} // namespace dl
} // namespace otb
