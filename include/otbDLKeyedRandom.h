/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLKeyedRandom_h
#define otbDLKeyedRandom_h

#include <array>
#include <cstdint>

namespace otb
{
namespace dl
{

/** \class KeyedRandom
 * \brief Random numbers that are a function of where they are used: Philox4x32-10 (Salmon et al., SC 2011) with counter (x, y, channel, stream) and key (seed,
 * tag).
 *
 * No state: the same numbers whatever the tiling, order, threads and date. Coordinates wrap modulo 2^32, so that those beyond an image's border are defined.
 * \ingroup OTBTorch
 */
class KeyedRandom
{
public:
  KeyedRandom(std::uint32_t seed, std::uint32_t tag) : m_Seed(seed), m_Tag(tag) {}

  /** Four independent words. */
  std::array<std::uint32_t, 4> Words(std::int64_t x, std::int64_t y, std::uint32_t channel, std::uint32_t stream) const
  {
    std::uint32_t c0 = static_cast<std::uint32_t>(x), c1 = static_cast<std::uint32_t>(y), c2 = channel, c3 = stream;
    std::uint32_t k0 = m_Seed, k1 = m_Tag;
    for (int round = 0; round < 10; ++round)
    {
      const std::uint64_t p0 = std::uint64_t(0xD2511F53u) * c0, p1 = std::uint64_t(0xCD9E8D57u) * c2;
      c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
      c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
      c1 = static_cast<std::uint32_t>(p1);
      c3 = static_cast<std::uint32_t>(p0);
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    return {c0, c1, c2, c3};
  }

  /** Uniform in (0, 1). */
  static double Uniform(std::uint32_t word) { return (static_cast<double>(word) + .5) / 4294967296.; }

  double Uniform(std::int64_t x, std::int64_t y, std::uint32_t channel, std::uint32_t stream) const { return Uniform(Words(x, y, channel, stream)[0]); }

  /** Standard normal (Box-Muller). */
  float Normal(std::int64_t x, std::int64_t y, std::uint32_t channel, std::uint32_t stream) const;

  /** +1 or -1. */
  float Sign(std::int64_t x, std::int64_t y, std::uint32_t channel, std::uint32_t stream) const { return (Words(x, y, channel, stream)[0] & 1u) ? 1.f : -1.f; }

private:
  std::uint32_t m_Seed;
  std::uint32_t m_Tag;
};

} // namespace dl
} // namespace otb

#endif
