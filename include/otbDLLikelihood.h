/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLLikelihood_h
#define otbDLLikelihood_h

#include "otbDLModelContract.h"
#include "otbDLPredictor.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** How a generative network becomes a score of change. In all of them larger means more change. */
enum class LikelihoodEstimator
{
  Pmi,            ///< minus the pointwise mutual information of the dates: 1/2 int |e - e(x|c)|^2 - |e - e(x)|^2 d lambda (Kong et al., ICLR 2024)
  Conditional,    ///< minus log p(date | other date): the error with the condition, less that of a Gaussian whose likelihood is known
  Latent,         ///< squared difference of the noise predicted along both dates' deterministic encodings
  Denoise,        ///< denoising loss of each date by itself, level by level
  LogLikelihood,  ///< minus the log-likelihood of each date, by the probability-flow ODE and the instantaneous change of variables
  Reconstruction, ///< squared error of what comes back from several noise levels (Graham et al., 2023)
  RoundTrip,      ///< squared error after encoding and decoding with a coarse solver (ODEED, Le Bellier and Audebert, 2024)
  Masked,         ///< squared error of masked tokens, mean over bands and over the masks that hide them
  Feature         ///< cosine distance of features, 1 - cos
};

enum class OdeSolver
{
  Euler,
  Heun,
  Midpoint,
  RungeKutta4
};

/** Directions of the random vectors that estimate a divergence. */
enum class ProbeKind
{
  Rademacher,
  Gaussian,
  Exact ///< one unit vector a channel: exact where the Jacobian does not cross pixels
};

/** \brief Everything that a score depends on besides the network.
 *
 * Networks with a null condition see a date by itself without the other one; those that only know a date given the other one are asked for that, whatever the
 * estimator. Latent, Reconstruction and RoundTrip are solved by Euler: their scores are those of that solver. */
struct LikelihoodSettings
{
  LikelihoodEstimator estimator = LikelihoodEstimator::Pmi;
  bool forward = true;  ///< how unlikely is date 2 (given date 1)?
  bool backward = true; ///< how unlikely is date 1 (given date 2)?
  int levels = 8;       ///< noise levels of Pmi, Conditional and Denoise, or starts of Reconstruction: halfway to noise at most
  double logSnrLow = -6.;
  double logSnrHigh = 8.;
  int pairs = 1;                          ///< antithetic pairs (+e, -e) a level
  int steps = 10;                         ///< of Latent, LogLikelihood, RoundTrip (each way)
  OdeSolver solver = OdeSolver::Midpoint; ///< of LogLikelihood
  int probes = 4;
  ProbeKind probeKind = ProbeKind::Rademacher;
  std::uint32_t seed = 0;
};

/** The estimator that suits a model, by what it can do: Pmi with a null condition, Conditional with a condition, else Latent, Masked, Feature. */
LikelihoodEstimator DefaultEstimator(const ModelContract& contract);

/** The settings that suit an estimator and a model: levels, steps and solver by the former, log-SNRs by both. */
LikelihoodSettings DefaultLikelihoodSettings(const ModelContract& contract, LikelihoodEstimator estimator);

/** pmi, cond, latent, denoise, loglik, recon, odeed, mae, feature. */
const char* ToString(LikelihoodEstimator estimator);

/** The networks that an estimator may need: forward() of the model and methods of it. Unused ones are null. */
struct LikelihoodNetworks
{
  std::unique_ptr<Predictor> field;                        ///< forward(x, t[, cond][, flag]), or forward(x, mask[, cond]) of a masked autoencoder
  std::unique_ptr<DifferentiablePredictor> differentiable; ///< the same, for LogLikelihood
  std::unique_ptr<Predictor> encode;                       ///< pixels to latents or features
  std::unique_ptr<Predictor> decode;
  std::unique_ptr<Predictor> features; ///< forward() of an encoder, or the method features()
};

/** What an estimator needs of a model. */
struct LikelihoodNeeds
{
  bool field = false;
  bool differentiable = false;
  bool encode = false;
  bool decode = false;
  bool features = false;
};

/** \throw Error, in the words of -estimator, when the model cannot serve it (no condition, no null condition, no features ...), or when settings lie outside
 * what it was trained for (log-SNR range, number of steps) */
LikelihoodNeeds CheckLikelihood(const ModelContract& contract, const LikelihoodSettings& settings);

/** Score planes that come out, in this order: those of the forward direction, then those of the backward one. Denoise and Reconstruction give one a level or
 * start (to be standardised one by one), the others one. Latent and Feature are symmetric: one plane in all. */
struct LikelihoodPlanes
{
  int forward = 1;
  int backward = 1;
  bool standardise = false; ///< plane by plane, before they are averaged
};
LikelihoodPlanes PlanesOf(const LikelihoodSettings& settings);

/** \brief A predictor of two inputs (scaled date 1, scaled date 2) and one output (the score planes above, nats where they are likelihoods) around the
 * networks.
 *
 * All evaluations of a batch of patches (dates, signs, levels, branches) share the batches of the networks. Random numbers are keyed on pixel, channel, stream
 * and seed (see KeyedRandom), so that scores depend neither on tiling nor on the date, and differences are exactly 0 where the dates are equal. Log-likelihoods
 * are those of raw values: log |det| of the contract's scaling is added. Those of latent models are densities of the latents. Scores of latents and features
 * are repeated over the pixels of their cell. BatchSize() is that of the network, and counts as one call.
 * \throw Error as CheckLikelihood() */
std::unique_ptr<Predictor> MakeLikelihoodPredictor(LikelihoodNetworks networks, const ModelContract& contract, const LikelihoodSettings& settings);

} // namespace dl
} // namespace otb

#endif
