/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLSeries.h"

#include <cctype>

namespace otb
{
namespace dl
{

std::size_t SizeOf(SampleType type)
{
  switch (type)
  {
  case SampleType::UInt8:
    return 1;
  case SampleType::Int16:
  case SampleType::UInt16:
    return 2;
  case SampleType::Double:
    return 8;
  default:
    return 4;
  }
}

namespace
{

/** "b02" and "B2" -> "b2" */
std::string PlainBand(const std::string& name)
{
  std::string plain;
  for (const char c : name)
  {
    const bool leadingZero = c == '0' && !plain.empty() && !std::isdigit(static_cast<unsigned char>(plain.back()));
    if (!leadingZero)
    {
      plain += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
  }
  return plain;
}

} // namespace

bool SameBand(const std::string& a, const std::string& b)
{
  return PlainBand(a) == PlainBand(b);
}

} // namespace dl
} // namespace otb
