/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLTensorMemory_h
#define otbDLTensorMemory_h

#include <cstddef>

namespace otb
{
namespace dl
{

/** Memory of the CPU tensors of this process.
 *
 * Activations of a constant batch shape come and go in the same sizes again and again. Given back to the C library they are unmapped, and paged in anew by the
 * next forward. Here large blocks are cut from one range of addresses whose pages stay; which also tells exactly what a forward needs, and lets a limit be set.
 * Thread-safe. */
namespace TensorMemory
{

/** Puts the allocator in place, once for the process. Tensors that live already are not touched. */
void Install();

/** Bytes in tensors now. */
std::size_t InUse();

/** Most bytes in tensors since ResetPeak(). */
std::size_t Peak();
void ResetPeak();

/** Allocations that would exceed it fail like those of a full machine; 0: no limit. */
void SetLimit(std::size_t bytes);

/** Gives unused blocks back to the system. */
void Trim();

} // namespace TensorMemory
} // namespace dl
} // namespace otb

#endif
