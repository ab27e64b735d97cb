/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLNoiseSchedule_h
#define otbDLNoiseSchedule_h

#include "otbDLModelContract.h"

#include <vector>

namespace otb
{
namespace dl
{

/** A mixture alpha x + sigma e of data and noise, as a network knows it. */
struct NoiseLevel
{
  double alpha = 1.;
  double sigma = 0.;
  double time = 0.;   ///< what the network is told
  double logSnr = 0.; ///< 2 log(alpha / sigma)

  /** The network sees this much of the flow's state t x + (1 - t) e of the same signal-to-noise ratio. */
  double Scale() const { return alpha + sigma; }
  /** t of the flow. */
  double Data() const { return alpha / (alpha + sigma); }
  /** 1 - t. */
  double Noise() const { return sigma / (alpha + sigma); }
};

/** \class NoiseSchedule
 * \brief From a level of noise to what a network calls it.
 *
 * With continuous time, the schedules of diffusion are the limit of many steps: LinearBeta has beta(tau) = steps (b0 + tau (b1 - b0)), ScaledLinear the square
 * of a linear root, tau running from 0 (data) to 1; entry i of a table lies at tau = (i + 1) / steps, log-SNR linear between. With an index, the nearest one in
 * log-SNR is taken, at its own alpha and sigma; a flow has sigma = (i + 1) / steps there. A network told a log-SNR or a sigma can be asked at any level.
 */
class NoiseSchedule
{
public:
  /** \throw Error for a time that the schedule has not got */
  explicit NoiseSchedule(const GenerativeSpec& spec);

  /** The level at a log-SNR, or the nearest that there is. */
  NoiseLevel AtLogSnr(double logSnr) const;

  /** The level at the flow's time, 0 = noise, 1 = data.
   *
   * A field other than a velocity on a flow cannot be turned into a velocity at the ends (division by alpha or sigma): there, t is kept within [1e-3, 1 - 1e-3]
   * and within the log-SNRs of training. The velocity is smooth in t, its error of the order of what was cut off. */
  NoiseLevel At(double t) const;

private:
  double LogAlphaSquared(double tau) const;
  double Tau(double logSnr) const;
  NoiseLevel Named(double alpha, double sigma, double time) const;

  NoiseSpec m_Spec;
  TimeArgument m_Time;
  double m_DataAt;
  double m_Low = 0., m_High = 1.;        ///< t
  std::vector<double> m_LogAlphaSquared; ///< of step 0, 1, ...
  std::vector<double> m_LogSnr;          ///< the same, falling
};

/** state * (t x + (1 - t) e) + output * (what the network returns). */
struct FieldTerm
{
  double state = 0.;
  double output = 0.;
};

/** What a network's output says about noise, data and their difference. Of the derivative with respect to the flow's state, `state` is that of the term, and
 * `output * Scale()` that of the network's with respect to its own input. */
struct FieldTerms
{
  FieldTerm noise;
  FieldTerm data;
  FieldTerm velocity; ///< data - noise
};

FieldTerms TermsOf(FieldKind kind, const NoiseLevel& level);

} // namespace dl
} // namespace otb

#endif
