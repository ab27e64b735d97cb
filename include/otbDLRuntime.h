/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLRuntime_h
#define otbDLRuntime_h

#include "otbDLModelContract.h"
#include "otbDLPredictor.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** How a model is asked to run. */
struct RuntimeOptions
{
  std::string device = "auto";    ///< auto, cpu, cuda, cuda:N
  std::string precision = "fp32"; ///< fp32, bf16, fp16
  int batch = 0;                  ///< samples (patches or pixels) in one forward; 0: found by a short measurement
  int threads = 0;                ///< of the CPU; 0: as many as the machine has
  std::size_t memory = 0;         ///< bytes that tensors and activations may take; 0: no limit
  std::int64_t samples = 0;       ///< in the whole job: how much measuring is worth; 0: unknown
  bool plainLayout = false;       ///< never channels-last: for members of an ensemble that must share one layout
  /// Told what happens during the run (the batch was halved for want of memory, say). May be empty.
  std::function<void(const std::string&)> warn;
};

/** How it does run: what was asked for and what came of it are both kept, so that a log can say both. */
struct RuntimeReport
{
  std::string device;       ///< effective
  std::string deviceReason; ///< why this one
  std::string precision;    ///< effective
  int threads = 0;          ///< effective
  int batch = 0;            ///< samples in one forward
  int workers = 1;          ///< forwards side by side
  std::string batchReason;  ///< given, or what was measured
  std::string memoryFormat; ///< channels-last or contiguous
  std::string torchVersion;
  std::string blas;
  std::size_t bytesPerSample = 0; ///< peak of activations for one sample
  std::size_t bytesBase = 0;      ///< weights
  double secondsPerSample = 0.;   ///< as measured; 0 when the batch was given
  std::vector<std::string> warnings;
};

/** The contract of a model, from (in this order) the given file, a side-car, the archive itself. Loads no weights; the archive's check sums are verified, which
 * LibTorch does not do. \param contractFile may be empty \param origin out, if not null: where it was found \throw Error for a file that is missing, empty,
 * damaged, or no TorchScript; ContractError for a contract that cannot be used */
ModelContract ReadContract(const std::string& modelFile, const std::string& contractFile = {}, std::string* origin = nullptr);

/** The file beside a model that replaces the contract inside it: NAME.pt.mlm.json, else NAME.mlm.json; empty where there is neither. */
std::string SideCarOf(const std::string& modelFile);

/** Loads a model, runs it once against its contract, and settles device, precision, memory format and batch.
 * Batches of different sizes are only chosen between when they give the same bits.
 * \throw Error for a model that cannot be loaded or contradicts its contract */
std::unique_ptr<Predictor> LoadPredictor(const std::string& modelFile, const ModelContract& contract, const RuntimeOptions& options, RuntimeReport& report);

/** Loads a method of the module beside forward(): encode, decode, features. Its input is a batch of what the method takes: of decode the channels and the scale
 * of encode, else the image's bands; its output has the channels and the scale that the contract declares for it. Batch, device and threads as with forward().
 */
std::unique_ptr<Predictor> LoadMethod(const std::string& modelFile, const ModelContract& contract, const std::string& method, const RuntimeOptions& options,
                                      RuntimeReport& report);

/** Loads a model so that it can be differentiated: with autograd through the graph as it was saved, or with its own method
 * div(x, t, e[, cond]) -> e^T J if the contract declares one: forward()'s arguments with e behind the time (behind x where there is none), a product of the
 * shape of x. Never frozen, never in inference mode: slower than LoadPredictor().
 * \throw Error also when the network cannot be differentiated, or div() is not its derivative: it is tried */
std::unique_ptr<DifferentiablePredictor> LoadDifferentiable(const std::string& modelFile, const ModelContract& contract, const RuntimeOptions& options,
                                                            RuntimeReport& report);

/** The files of an ensemble, if `modelFile` is a text file (.txt) that lists models: one a line, relative to its folder, # begins a comment. Else that file
 * alone. \throw Error for a list that cannot be read, is empty, or names a file twice or one that does not exist */
std::vector<std::string> ModelFiles(const std::string& modelFile);

/** Checks that a member of an ensemble takes and gives the same as the first one: inputs with their bands, scaling and time, outputs with their classes,
 * tiling. Temperatures may differ. \throw Error that names the member and what differs */
void CheckSameInterface(const ModelContract& first, const std::string& firstName, const ModelContract& member, const std::string& memberName);

/** Loads the members of an ensemble to run side by side on the same inputs: outputs are those of the first, then those of the second, and so on.
 * All take batches of the same size. The memory given is shared out between them. */
std::unique_ptr<Predictor> LoadEnsemble(const std::vector<std::string>& modelFiles, const std::vector<ModelContract>& contracts, const RuntimeOptions& options,
                                        RuntimeReport& report);

} // namespace dl
} // namespace otb

#endif
