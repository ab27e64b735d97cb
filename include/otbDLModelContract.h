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

/** One argument of the network's forward(). */
struct ModelInput
{
  std::string name;
  std::string role;
  int date = 0; ///< 1 or 2 for the images of a pair, else 0
  std::vector<std::string> bands;
  std::vector<BandScaling> scaling; ///< one a band
  std::optional<double> noData;     ///< raw value used when the file declares none
  NoDataRule noDataRule = NoDataRule::All;
  float noDataFill = 0.f; ///< what the network sees at a no-data pixel, after scaling
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
  int channels = 0;
  std::vector<ModelClass> classes;
};

enum class Blend
{
  Crop, ///< cut the halo of each patch: exact when the output depends on nothing beyond it
  Hann  ///< average patches that overlap by half, weighted by a Hann window
};

/** How a network wants to be tiled, in pixels. */
struct Tiling
{
  int patch = 0;
  int multiple = 1; ///< total stride of the network
  int halo = 0;     ///< radius of influence
  Blend blend = Blend::Crop;
  std::vector<std::string> testTimeAugmentations;
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
  Tiling tiling;
  double temperature = 1.;
  double threshold = .5;
  std::string license;
  std::string trainingData;
  std::optional<double> groundSampleDistance; ///< metres

  /** The output that plays a role, or nullptr. */
  const ModelOutput* FindOutput(const std::string& role) const;

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
