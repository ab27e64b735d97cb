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
 * Activations of a constant batch shape are the same blocks again and again. Given back to the C library they are unmapped, and paged in anew by the next
 * forward; so large blocks are kept and handed out again by size, which also tells exactly what a forward needs, and lets a limit be set. Thread-safe. */
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
