/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLKeyedRandom.h"

#include <cmath>

namespace otb
{
namespace dl
{

float KeyedRandom::Normal(std::int64_t x, std::int64_t y, std::uint32_t channel, std::uint32_t stream) const
{
  constexpr double turn = 6.283185307179586;
  const auto words = Words(x, y, channel, stream);
  return static_cast<float>(std::sqrt(-2. * std::log(Uniform(words[0]))) * std::cos(turn * Uniform(words[1])));
}

} // namespace dl
} // namespace otb
