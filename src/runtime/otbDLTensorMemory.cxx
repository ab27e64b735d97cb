/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLTensorMemory.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <torch/csrc/api/include/torch/version.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <unordered_map>
#include <vector>

// LibTorch 2.3 dropped the const of Allocator::allocate and asked for copy_data.
#define OTBTORCH_NEW_ALLOCATOR (TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 3))

namespace otb
{
namespace dl
{
namespace TensorMemory
{

namespace
{

constexpr std::size_t alignment = 64;
constexpr std::size_t kept = std::size_t(64) << 10; ///< smaller blocks are left to the C library

struct Books
{
  std::mutex mutex;
  std::unordered_map<void*, std::size_t> sizes;
  std::unordered_map<std::size_t, std::vector<void*>> spare;
  std::size_t inUse = 0;
  std::size_t peak = 0;
  std::size_t limit = 0;
};

/** Never destroyed: tensors may be freed after main(). */
Books& TheBooks()
{
  static auto* books = new Books;
  return *books;
}

void Release(void* p)
{
  if (!p)
  {
    return;
  }
  Books& b = TheBooks();
  std::lock_guard<std::mutex> lock(b.mutex);
  const auto it = b.sizes.find(p);
  const std::size_t bytes = it->second;
  b.sizes.erase(it);
  b.inUse -= bytes;
  if (bytes >= kept)
  {
    b.spare[bytes].push_back(p);
  }
  else
  {
    std::free(p);
  }
}

void DropSpare(Books& b)
{
  for (auto& sized : b.spare)
  {
    std::for_each(sized.second.begin(), sized.second.end(), [](void* p) { std::free(p); });
  }
  b.spare.clear();
}

void* Take(std::size_t bytes)
{
  if (bytes == 0)
  {
    return nullptr;
  }
  Books& b = TheBooks();
  std::lock_guard<std::mutex> lock(b.mutex);
  if (b.limit != 0 && b.inUse + bytes > b.limit)
  {
    C10_THROW_ERROR(OutOfMemoryError, "out of memory: the limit set for tensors is reached");
  }
  void* p = nullptr;
  if (auto spare = b.spare.find(bytes); spare != b.spare.end() && !spare->second.empty())
  {
    p = spare->second.back();
    spare->second.pop_back();
  }
  else if (posix_memalign(&p, alignment, bytes) != 0)
  {
    DropSpare(b);
    if (posix_memalign(&p, alignment, bytes) != 0)
    {
      C10_THROW_ERROR(OutOfMemoryError, "out of memory: the system has none left for tensors");
    }
  }
  b.sizes[p] = bytes;
  b.inUse += bytes;
  b.peak = std::max(b.peak, b.inUse);
  return p;
}

class TensorAllocator final : public c10::Allocator
{
public:
#if OTBTORCH_NEW_ALLOCATOR
  c10::DataPtr allocate(std::size_t bytes) override
#else
  c10::DataPtr allocate(std::size_t bytes) const override
#endif
  {
    void* p = Take(bytes);
    return {p, p, &Release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override
  {
    return &Release;
  }
#if OTBTORCH_NEW_ALLOCATOR
  void copy_data(void* to, const void* from, std::size_t bytes) const override
  {
    default_copy_data(to, from, bytes);
  }
#endif
};

} // namespace

void Install()
{
  static std::once_flag once;
  std::call_once(once,
                 []
                 {
                   static auto* allocator = new TensorAllocator;
                   c10::SetCPUAllocator(allocator, 1);
                 });
}

std::size_t InUse()
{
  std::lock_guard<std::mutex> lock(TheBooks().mutex);
  return TheBooks().inUse;
}

std::size_t Peak()
{
  std::lock_guard<std::mutex> lock(TheBooks().mutex);
  return TheBooks().peak;
}

void ResetPeak()
{
  std::lock_guard<std::mutex> lock(TheBooks().mutex);
  TheBooks().peak = TheBooks().inUse;
}

void SetLimit(std::size_t bytes)
{
  std::lock_guard<std::mutex> lock(TheBooks().mutex);
  TheBooks().limit = bytes;
}

void Trim()
{
  std::lock_guard<std::mutex> lock(TheBooks().mutex);
  DropSpare(TheBooks());
}

} // namespace TensorMemory
} // namespace dl
} // namespace otb
