/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLTorchRuntime_h
#define otbDLTorchRuntime_h

#include "otbDLModelContract.h"
#include "otbDLPredictor.h"
#include "otbDLRuntime.h"

#include <memory>
#include <string>

namespace otb
{
namespace dl
{

/** What needs LibTorch, as functions: the library that holds them is loaded when the first model is (see otbDLRuntime.h for what each does). */
struct TorchRuntime
{
  ModelContract (*readContract)(const std::string& modelFile, const std::string& contractFile, std::string* origin);
  std::unique_ptr<Predictor> (*load)(const std::string& modelFile, const ModelContract& contract, const RuntimeOptions& options, RuntimeReport& report);
  std::unique_ptr<Predictor> (*loadMethod)(const std::string& modelFile, const ModelContract& contract, const std::string& method,
                                           const RuntimeOptions& options, RuntimeReport& report);
  std::unique_ptr<DifferentiablePredictor> (*loadDifferentiable)(const std::string& modelFile, const ModelContract& contract, const RuntimeOptions& options,
                                                                 RuntimeReport& report);
};

} // namespace dl
} // namespace otb

extern "C" const otb::dl::TorchRuntime* otbdlTorchRuntime();

#endif
