/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLModelInfo_h
#define otbDLModelInfo_h

#include "otbDLModelContract.h"

#include <cstddef>
#include <map>
#include <optional>
#include <string>

namespace otb
{
namespace Wrapper
{

/** What can be told of a model before it runs: its contract, read without LibTorch.
 *
 * Nothing is checked here but what has to be read (weights, check sums and code are not looked at): a run does that, and throws. A file of any size is told of
 * in milliseconds. */
struct ModelInfo
{
  std::optional<otb::dl::ModelContract> contract; ///< of the model, or of the first of a list
  std::size_t members = 0;                        ///< of an ensemble; 1: a single model
  std::string trouble;                            ///< one line: why there is no contract; empty if there is one, or no model is named
};

/** Reads it as a run would: the given contract, a side-car, the model's own.
 * \param model a TorchScript file or a list of them (.txt); may be empty
 * \param contractFile may be empty
 * \param task that the contract must be of
 * \return never throws, prints nothing; `trouble` says what went wrong */
ModelInfo ReadModelInfo(const std::string& model, const std::string& contractFile, const std::string& task);

/** It in words, a line a subject: model, bands, dates, classes, patches, decision, estimators, licence. Subjects of which there is nothing to say are left out.
 */
std::map<std::string, std::string> DescribeModel(const ModelInfo& info);

/** What tells that files have changed: their names, sizes and times. */
std::string StampOf(const std::string& model, const std::string& contractFile);

} // namespace Wrapper
} // namespace otb

#endif
