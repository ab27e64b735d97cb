/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLError.h"

#include <utility>

namespace otb
{
namespace dl
{

std::string Complaint(const std::string& option, const std::string& found, const std::string& expected, const std::string& advice)
{
  std::string text = option;
  const auto add = [&text](const char* before, const std::string& part)
  {
    if (!part.empty())
    {
      text += before + part;
    }
  };
  add(": found ", found);
  add("; expected ", expected);
  add(". ", advice);
  return text;
}

std::string Join(const std::vector<std::string>& words)
{
  std::string text;
  for (const auto& w : words)
  {
    text += (text.empty() ? "" : " ") + w;
  }
  return text;
}

namespace
{
std::string Listing(const std::string& origin, const std::vector<ContractError::Violation>& violations)
{
  std::string text =
      "The model contract in " + origin + " cannot be used, " + std::to_string(violations.size()) + (violations.size() == 1 ? " violation:" : " violations:");
  for (const auto& v : violations)
  {
    text += "\n  " + v.path + ": " + v.message;
  }
  return text + "\nSee doc/model-contract.md; `python3 -m otbtorch validate` runs the same checks.";
}
} // namespace

ContractError::ContractError(const std::string& origin, std::vector<Violation> violations)
    : Error(Listing(origin, violations)), m_Violations(std::move(violations))
{
}

} // namespace dl
} // namespace otb
