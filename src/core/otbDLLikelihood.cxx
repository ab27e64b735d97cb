/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLLikelihood.h"

#include "otbDLLikelihoodPredictor.h"

#include <algorithm>
#include <sstream>

namespace otb
{
namespace dl
{

namespace
{

using Estimator = LikelihoodEstimator;
constexpr Estimator everyEstimator[] = {Estimator::Pmi,       Estimator::Conditional,   Estimator::Latent,
                                        Estimator::Denoise,   Estimator::LogLikelihood, Estimator::Reconstruction,
                                        Estimator::RoundTrip, Estimator::Masked,        Estimator::Feature};

const ModelInput* InputOf(const ModelContract& contract, const std::string& role)
{
  const auto it = std::find_if(contract.inputs.begin(), contract.inputs.end(), [&role](const ModelInput& i) { return i.role == role; });
  return it == contract.inputs.end() ? nullptr : &*it;
}

/** Has it noise levels spread over a range of log-SNR? */
bool UsesLogSnr(Estimator e)
{
  return e == Estimator::Pmi || e == Estimator::Conditional || e == Estimator::Denoise || e == Estimator::Latent;
}

bool UsesLevels(Estimator e)
{
  return e == Estimator::Pmi || e == Estimator::Conditional || e == Estimator::Denoise || e == Estimator::Reconstruction;
}

bool UsesPairs(Estimator e)
{
  return e == Estimator::Pmi || e == Estimator::Conditional || e == Estimator::Denoise;
}

bool UsesSteps(Estimator e)
{
  return e == Estimator::Latent || e == Estimator::LogLikelihood || e == Estimator::RoundTrip;
}

bool Symmetric(Estimator e)
{
  return e == Estimator::Latent || e == Estimator::Feature;
}

struct Want
{
  std::string found; ///< empty: the model has what it takes
  std::string expected;
};

/** What a model lacks for an estimator. */
Want Lacking(const ModelContract& contract, Estimator e)
{
  if (e == Estimator::Masked)
  {
    const bool can = contract.masked && InputOf(contract, "token_mask");
    return can ? Want{} : Want{"is no masked autoencoder", "a model whose contract has otb:masked"};
  }
  if (e == Estimator::Feature)
  {
    const bool has = contract.featuresOnly || contract.FindMethod("features");
    return has ? Want{} : Want{"gives no features", "an encoder, or a model with a method features()"};
  }
  if (!contract.generative)
  {
    return {"does not denoise", "a model whose contract has otb:generative"};
  }
  const bool condition = InputOf(contract, "condition") || InputOf(contract, "condition_latent");
  if (!condition && (e == Estimator::Pmi || e == Estimator::Conditional))
  {
    return {"takes no condition", "a model with an input of role condition, the other date"};
  }
  if (e == Estimator::Pmi && contract.generative->null == NullCondition::None)
  {
    return {"cannot do without its condition", "a model with a null condition"};
  }
  if (contract.FindMethod("encode") && !InputOf(contract, "latent"))
  {
    return {"encodes but takes no latents", "an input of role latent"};
  }
  if ((e == Estimator::Reconstruction || e == Estimator::RoundTrip) && contract.FindMethod("encode") && !contract.FindMethod("decode"))
  {
    return {"encodes but does not decode", "a method decode() as well"};
  }
  return {};
}

void RequirePositive(const char* option, int value, int most = std::numeric_limits<int>::max())
{
  if (value < 1 || value > most)
  {
    throw Error(Complaint(option, std::to_string(value), most == std::numeric_limits<int>::max() ? "1 or more" : "1 to " + std::to_string(most), ""));
  }
}

std::string Shown(double low, double high)
{
  std::ostringstream text;
  text << low << " to " << high;
  return text.str();
}

/** Is a condition, which is the other date as the image is scaled, what the network wants? */
void CheckCondition(const ModelContract& contract)
{
  const ModelInput *image = InputOf(contract, "image"), *condition = InputOf(contract, "condition");
  if (!image || !condition)
  {
    return;
  }
  const auto differs = [](const BandScaling& a, const BandScaling& b)
  { return a.low != b.low || a.high != b.high || a.offset != b.offset || a.divisor != b.divisor; };
  const bool same = image->bands == condition->bands && image->scaling.size() == condition->scaling.size() &&
                    std::equal(image->scaling.begin(), image->scaling.end(), condition->scaling.begin(),
                               [&differs](const BandScaling& a, const BandScaling& b) { return !differs(a, b); });
  if (!same)
  {
    throw Error(Complaint("model", "a condition \"" + condition->name + "\" whose bands or scaling differ from those of \"" + image->name + "\"",
                          "the same: it is the other date", "Wrap the network at export."));
  }
}

} // namespace

const char* ToString(LikelihoodEstimator estimator)
{
  switch (estimator)
  {
  case Estimator::Pmi:
    return "pmi";
  case Estimator::Conditional:
    return "cond";
  case Estimator::Latent:
    return "latent";
  case Estimator::Denoise:
    return "denoise";
  case Estimator::LogLikelihood:
    return "loglik";
  case Estimator::Reconstruction:
    return "recon";
  case Estimator::RoundTrip:
    return "odeed";
  case Estimator::Masked:
    return "mae";
  case Estimator::Feature:
    return "feature";
  }
  return "";
}

LikelihoodEstimator DefaultEstimator(const ModelContract& contract)
{
  for (const auto e : {Estimator::Pmi, Estimator::Conditional, Estimator::Latent, Estimator::Masked})
  {
    if (Lacking(contract, e).found.empty())
    {
      return e;
    }
  }
  return Estimator::Feature;
}

LikelihoodSettings DefaultLikelihoodSettings(const ModelContract& contract, LikelihoodEstimator estimator)
{
  LikelihoodSettings settings;
  settings.estimator = estimator;
  settings.levels = estimator == Estimator::Reconstruction ? 5 : 8;
  settings.steps = 10;
  settings.solver = estimator == Estimator::LogLikelihood ? OdeSolver::Midpoint : OdeSolver::Euler;
  if (contract.generative)
  {
    const double low = contract.generative->logSnrLow, high = contract.generative->logSnrHigh;
    const bool latent = estimator == Estimator::Latent;
    settings.logSnrLow = std::max(low, latent ? -2. : -6.);
    settings.logSnrHigh = std::min(high, latent ? 6. : 8.);
    if (settings.logSnrLow >= settings.logSnrHigh)
    {
      settings.logSnrLow = low;
      settings.logSnrHigh = high;
    }
  }
  return settings;
}

LikelihoodNeeds CheckLikelihood(const ModelContract& contract, const LikelihoodSettings& settings)
{
  const Estimator e = settings.estimator;
  const Want want = Lacking(contract, e);
  if (!want.found.empty())
  {
    std::string can;
    for (const auto other : everyEstimator)
    {
      can += Lacking(contract, other).found.empty() ? std::string(can.empty() ? "" : ", ") + ToString(other) : "";
    }
    throw Error(Complaint("estimator", std::string(ToString(e)) + " with a model that " + want.found, want.expected,
                          can.empty() ? "This model serves none of the estimators." : "This model can serve " + can + "."));
  }
  if (!settings.forward && !settings.backward && !Symmetric(e))
  {
    throw Error(Complaint("direction", "none", "forward, backward or both", ""));
  }
  if (UsesLevels(e))
  {
    RequirePositive("levels", settings.levels, maximalLevels);
  }
  if (UsesPairs(e))
  {
    RequirePositive("pairs", settings.pairs, maximalLevels);
  }
  if (UsesSteps(e))
  {
    RequirePositive("steps", settings.steps);
  }
  if (e == Estimator::LogLikelihood && settings.probeKind != ProbeKind::Exact)
  {
    RequirePositive("probes", settings.probes, maximalLevels);
  }
  if (UsesLogSnr(e))
  {
    const double low = contract.generative->logSnrLow, high = contract.generative->logSnrHigh, slack = 1e-9;
    if (!(settings.logSnrLow < settings.logSnrHigh))
    {
      throw Error(Complaint("logsnr", Shown(settings.logSnrLow, settings.logSnrHigh), "a range whose low end lies below its high end", ""));
    }
    if (settings.logSnrLow < low - slack || settings.logSnrHigh > high + slack)
    {
      throw Error(Complaint("logsnr", Shown(settings.logSnrLow, settings.logSnrHigh), "a range within " + Shown(low, high),
                            "The network was trained on noise of these log-SNRs."));
    }
  }
  if (e == Estimator::Masked && contract.masked->groups < 2)
  {
    throw Error(
        Complaint("model", "a masked autoencoder with " + std::to_string(contract.masked->groups) + " group of tokens", "2 or more", "Correct the contract."));
  }
  if (e == Estimator::Masked && (contract.masked->patch < 1 || contract.tiling.patch % contract.masked->patch != 0))
  {
    throw Error(Complaint("model", "tokens of " + std::to_string(contract.masked->patch) + " pixels in patches of " + std::to_string(contract.tiling.patch),
                          "patches of whole tokens", "Correct the contract."));
  }
  const std::string state = contract.FindMethod("encode") ? "latent" : "image";
  if (e == Estimator::LogLikelihood && contract.inputs.front().role != state)
  {
    throw Error(Complaint("estimator", "loglik with a model whose first argument is \"" + contract.inputs.front().name + "\"",
                          "one that takes its " + state + " first, by which it is differentiated", "Wrap the network at export."));
  }
  if (e == Estimator::LogLikelihood && !contract.outputs.empty() && contract.outputs.front().role == "aux")
  {
    throw Error(Complaint("estimator", "loglik with a model whose first output is of role aux", "the field first, which is differentiated",
                          "Wrap the network at export."));
  }
  if (e != Estimator::Feature)
  {
    CheckCondition(contract);
  }
  const MethodSpec* encode = contract.FindMethod("encode");
  LikelihoodNeeds needs;
  needs.features = e == Estimator::Feature;
  needs.differentiable = e == Estimator::LogLikelihood;
  needs.field = !needs.features && !needs.differentiable;
  needs.encode = encode && e != Estimator::Feature && e != Estimator::Masked;
  needs.decode = needs.encode && (e == Estimator::Reconstruction || e == Estimator::RoundTrip);
  if (needs.encode && (encode->scale < 1 || contract.tiling.patch % encode->scale != 0))
  {
    throw Error(Complaint("model", "latents of 1/" + std::to_string(encode->scale) + " of a patch of " + std::to_string(contract.tiling.patch) + " pixels",
                          "a whole number of cells", "Correct the contract."));
  }
  const MethodSpec* features = contract.FindMethod("features");
  if (needs.features && !contract.featuresOnly && (features->scale < 1 || contract.tiling.patch % features->scale != 0))
  {
    throw Error(Complaint("model", "features of 1/" + std::to_string(features->scale) + " of a patch of " + std::to_string(contract.tiling.patch) + " pixels",
                          "a whole number of cells", "Correct the contract."));
  }
  return needs;
}

LikelihoodPlanes PlanesOf(const LikelihoodSettings& settings)
{
  const Estimator e = settings.estimator;
  LikelihoodPlanes planes;
  if (Symmetric(e))
  {
    planes.backward = 0;
    return planes;
  }
  planes.standardise = e == Estimator::Denoise || e == Estimator::Reconstruction;
  const int each = planes.standardise ? settings.levels : 1;
  planes.forward = settings.forward ? each : 0;
  planes.backward = settings.backward ? each : 0;
  return planes;
}

std::unique_ptr<Predictor> MakeLikelihoodPredictor(LikelihoodNetworks networks, const ModelContract& contract, const LikelihoodSettings& settings)
{
  return std::make_unique<LikelihoodPredictor>(std::move(networks), contract, settings);
}

} // namespace dl
} // namespace otb
