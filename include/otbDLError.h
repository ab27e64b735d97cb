/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLError_h
#define otbDLError_h

#include <stdexcept>
#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** \class Error
 * \brief What every layer throws when a user's input cannot be worked with: one readable message, no backtrace.
 * \ingroup OTBTorch
 */
class Error : public std::runtime_error
{
public:
  using std::runtime_error::runtime_error;
};

/** A message in the order in which it is read: which option, what was found, what was expected, what to do.
 * Empty parts are left out. */
std::string Complaint(const std::string& option, const std::string& found, const std::string& expected, const std::string& advice);

/** Words with blanks between them. */
std::string Join(const std::vector<std::string>& words);

/** \class ContractError
 * \brief A contract that cannot be used, with every violation found in it.
 * \ingroup OTBTorch
 */
class ContractError : public Error
{
public:
  struct Violation
  {
    /// JSON pointer, e.g. /properties/mlm:input/0/value_scaling
    std::string path;
    std::string message;
  };

  ContractError(const std::string& origin, std::vector<Violation> violations);

  const std::vector<Violation>& Violations() const { return m_Violations; }

private:
  std::vector<Violation> m_Violations;
};

} // namespace dl
} // namespace otb

#endif
