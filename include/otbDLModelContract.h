/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLModelContract_h
#define otbDLModelContract_h

#include "otbDLError.h"

#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** How one band is brought to what the network was trained on: clip to [low, high], then (x - offset) / divisor.
 * All of STAC MLM's value_scaling types but `processing` reduce to it. */
struct BandScaling
{
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  double offset = 0.;
  double divisor = 1.;
};

/** When is a pixel of several bands no-data? (A NaN or infinite band always makes it so.) */
enum class NoDataRule
{
  All, ///< when all its bands hold the no-data value
  Any  ///< when one of them does
};

/** An axis of a tensor. */
enum class Axis
{
  Batch,
  Time,
  Bands,
  Height,
  Width
};

/** Type of a tensor's elements, as the network wants them. */
enum class ElementType
{
  Float32,
  Int64,
  UInt8,
  Bool
};

/** How the time steps that a network sees come from the dates of a series. */
struct TemporalSpec
{
  enum class Policy
  {
    Fixed, ///< exactly `length` steps
    Max,   ///< up to `length`, padded to it
    Any
  };
  enum class GapFill
  {
    None,
    Linear, ///< between valid dates, at the series' own dates
    Grid    ///< the same, at regular dates
  };
  Policy policy = Policy::Any;
  int length = 0; ///< 0 when any
  bool padAtStart = false;
  float padValue = 0.f; ///< after scaling
  GapFill gapFill = GapFill::None;
  std::string gridStart; ///< YYYY-MM-DD, or MM-DD
  std::string gridEnd;   ///< as gridStart; included
  int gridStep = 0;      ///< days
};

/** How the dates of time steps are told to a network. */
struct DateEncoding
{
  enum class Kind
  {
    DayOfYear, ///< 1..366
    DaysSince, ///< a reference date
    DaysSinceFirst,
    MonthIndex, ///< 0..11
    Index       ///< 0, 1, ...
  };
  Kind kind = Kind::DayOfYear;
  std::string reference; ///< YYYY-MM-DD, for DaysSince
  float padValue = 0.f;  ///< at padded steps
};

/** A band computed from two others of its input: (a - b) / (a + b), before scaling. */
struct NormalisedDifference
{
  int band = 0; ///< index in the input's bands, as a and b
  int a = 0;
  int b = 0;
};

/** One argument of the network's forward() (or, of a latent model, the image that it encodes). */
struct ModelInput
{
  std::string name;
  std::string role;
  int date = 0;         ///< 1 or 2 for the images of a pair, else 0
  bool argument = true; ///< of forward(); false for the image of a latent model, which encode takes: it is the last input
  std::vector<std::string> bands;
  std::vector<BandScaling> scaling; ///< one a band
  std::optional<double> noData;     ///< raw value used when the file declares none
  NoDataRule noDataRule = NoDataRule::All;
  float noDataFill = 0.f; ///< what the network sees at a no-data pixel, after scaling

  std::vector<Axis> axes = {Axis::Batch, Axis::Bands, Axis::Height, Axis::Width};
  ElementType type = ElementType::Float32;

  int channels = 0; ///< of the tensor; 0: one a band
  int scale = 1;    ///< side of the tensor is the patch's divided by this

  // Series, and what goes with them.
  std::vector<int> sensors;                  ///< sits: one a band, 1..4; 0: the static image; -1: derived
  std::vector<NormalisedDifference> derived; ///< sits
  TemporalSpec temporal;                     ///< sits
  int of = -1;                               ///< dates, valid, month: index of their sits input
  DateEncoding encoding;                     ///< dates
  bool maskedIsOne = false;                  ///< valid
  double minValid = 0.;                      ///< valid, by date, of patches: share of valid pixels that a valid date needs

  /** Time steps that the network sees: `temporal.length`, or what the caller found out about the data when the policy is Any. Of dates and valid: that of
   * their series. */
  int steps = 0;

  bool Has(Axis axis) const;
};

/** What one of the image lists of a series holds. */
struct Sensor
{
  std::string name;
  bool optional = false; ///< may be absent: its bands are masked then
};

/** One class of a semantic output, in the order of its channels. */
struct ModelClass
{
  int value = 0;
  std::string name;
  std::string colour; ///< RRGGBB, may be empty
};

/** One tensor returned by forward(). */
struct ModelOutput
{
  std::string name;
  std::string role;
  int channels = 0; ///< 0: any, of an `aux` output
  int scale = 1;    ///< side of the tensor is the patch's divided by this
  std::vector<ModelClass> classes;
};

enum class Blend
{
  Crop, ///< cut the halo of each patch: exact when the output depends on nothing beyond it
  Hann  ///< average patches that overlap by half, weighted by a Hann window
};

/** What one sample of a batch is. */
enum class SpatialUnit
{
  Patch,
  Pixel ///< alone, or with a window around it
};

/** How a network wants to be tiled, in pixels. */
struct Tiling
{
  SpatialUnit unit = SpatialUnit::Patch;
  int window = 1; ///< unit Pixel: side of what the network sees around it, odd
  int patch = 0;
  int multiple = 1; ///< total stride of the network
  int halo = 0;     ///< radius of influence
  Blend blend = Blend::Crop;
  std::vector<std::string> testTimeAugmentations;
};

/** What a network that denoises returns. x_t = alpha x + sigma e is its noisy input, e standard Gaussian. */
enum class FieldKind
{
  Velocity,   ///< x - e (flow matching, rectified flow)
  Epsilon,    ///< e
  X0,         ///< x
  VDiffusion, ///< alpha e - sigma x, with alpha^2 + sigma^2 = 1 (Salimans and Ho, 2022)
  Score,      ///< -e / sigma
  Edm         ///< x, with alpha = 1 (Karras et al., 2022)
};

/** How alpha and sigma go from data to noise. */
struct NoiseSpec
{
  enum class Schedule
  {
    FlowLinear,   ///< alpha = t, sigma = 1 - t
    LinearBeta,   ///< Ho et al., 2020; with continuous time its limit (Song et al., 2021)
    ScaledLinear, ///< beta linear in its square root (latent diffusion)
    Cosine,       ///< Nichol and Dhariwal, 2021
    Table,        ///< products of alphas, one a step
    Edm           ///< alpha = 1, sigma free
  };
  Schedule schedule = Schedule::FlowLinear;
  double betaStart = 1e-4;
  double betaEnd = .02;
  int steps = 1000; ///< of LinearBeta, ScaledLinear, Cosine; of Table its length
  double cosineOffset = .008;
  std::vector<double> alphasCumprod; ///< Table: alpha squared of step 0, 1, ...; falling
};

/** What a network wants to be told as its time. */
enum class TimeArgument
{
  Continuous,    ///< 0..1
  DiscreteIndex, ///< 0..steps-1, 0 next to the data
  LogSnr,        ///< 2 log(alpha / sigma)
  Sigma          ///< sigma / alpha
};

/** How a network stands for the absence of its condition. */
enum class NullCondition
{
  None,  ///< it cannot
  Zeros, ///< a condition of zeros, after scaling
  Flag   ///< an argument of role condition_flag that is 0 (1 with the condition)
};

/** A network that denoises: the field behind a diffusion or a flow. */
struct GenerativeSpec
{
  FieldKind kind = FieldKind::Velocity;
  NoiseSpec noise;
  TimeArgument time = TimeArgument::Continuous;
  double dataAt = 1.;     ///< where the continuous time is data: 1 (flows) or 0 (diffusion)
  double logSnrLow = -6.; ///< range in which the network was trained, and is asked
  double logSnrHigh = 8.;
  bool dequantise = false;       ///< uniform noise of one raw unit was added in training
  bool predictsVariance = false; ///< twice as many channels come out: the first half counts
  NullCondition null = NullCondition::None;
  unsigned int tag = 0; ///< separates the random numbers of models
};

/** A masked autoencoder. */
struct MaskedSpec
{
  int patch = 8;           ///< side of a token, pixels
  int groups = 4;          ///< of tokens: one is visible at a time, the others are predicted
  bool normalised = false; ///< are targets standardised token by token (norm_pix_loss)?
};

/** How the logit of a density-ratio network joins the regression of the pair: score = z(regression) + weight z(logit). */
struct RatioSpec
{
  double weight = .5;
  double smooth = 2.5; ///< standard deviation of the Gaussian that the score was chosen with, pixels
};

/** A method of the TorchScript module beside forward(): encode, decode, features, div. */
struct MethodSpec
{
  std::string name;
  int channels = 0; ///< that it returns
  int scale = 1;    ///< side of its result is the patch's divided by this
};

/** \class ModelContract
 * \brief What a TorchScript file does not say about itself: bands, scaling, no-data, outputs, tiling, calibration, provenance.
 *
 * The format is doc/model-contract.md: a STAC MLM v1.5.2 item with `otb:` fields. A value; safe to copy and to share between threads.
 * \ingroup OTBTorch
 */
struct ModelContract
{
  std::string id;
  std::string name;
  std::string architecture;
  std::string task;               ///< change-detection, time-series-classification, change-likelihood
  std::string version;            ///< of the contract format
  std::vector<ModelInput> inputs; ///< in the order of forward()'s arguments
  std::vector<ModelOutput> outputs;
  std::vector<Sensor> sensors; ///< of series: il, il2, il3, il4
  Tiling tiling;
  double temperature = 1.;
  double threshold = .5;
  bool radiometricMatching = true; ///< may date 2 be matched to date 1 before it is scaled? change-detection

  // change-likelihood: exactly one of these four.
  std::optional<GenerativeSpec> generative;
  std::optional<MaskedSpec> masked;
  std::optional<RatioSpec> ratio;
  bool featuresOnly = false;       ///< forward() is an encoder: distances of features
  std::vector<MethodSpec> methods; ///< that the module exports

  std::string license;
  std::string trainingData;
  std::optional<double> groundSampleDistance; ///< metres

  /** The output that plays a role, or nullptr. */
  const ModelOutput* FindOutput(const std::string& role) const;

  /** The method of that name, or nullptr. */
  const MethodSpec* FindMethod(const std::string& method) const;

  /** Parses and validates.
   * \param text JSON
   * \param origin where it comes from, for the message
   * \throw ContractError with every violation */
  static ModelContract Parse(const std::string& text, const std::string& origin);
};

/** "crop" or "hann". */
const char* ToString(Blend blend);

} // namespace dl
} // namespace otb

#endif
