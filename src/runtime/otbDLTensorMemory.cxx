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
#include <iterator>
#include <map>
#include <mutex>
#include <set>
#include <sys/mman.h>
#include <unistd.h>
#include <unordered_map>
#include <utility>

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

constexpr std::size_t page = 4096;
constexpr std::size_t alignment = 64;
constexpr std::size_t large = std::size_t(64) << 10; ///< smaller blocks are left to the C library

/** One range of addresses from which large blocks are cut, best fit, neighbours joined when they are free again: so that what was touched stays close to what
 * is needed at once, though sizes differ, and the same pages serve forward after forward. */
class Arena
{
public:
  Arena()
  {
    // Addresses cost nothing; pages come when they are touched.
    const auto memory = static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    for (std::size_t size = 2 * memory / page * page; size >= (std::size_t(256) << 20); size = size / 2 / page * page)
    {
      void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (p != MAP_FAILED)
      {
        m_Begin = static_cast<char*>(p);
        m_End = m_Begin + size;
        AddFree(m_Begin, size);
        break;
      }
    }
  }

  /** nullptr when no range is large enough. */
  char* Take(std::size_t bytes)
  {
    const auto fit = m_BySize.lower_bound({bytes, nullptr});
    if (fit == m_BySize.end())
    {
      return nullptr;
    }
    const auto [size, p] = *fit;
    RemoveFree(p, size);
    if (size > bytes)
    {
      AddFree(p + bytes, size - bytes);
    }
    return p;
  }

  void Give(char* p, std::size_t bytes)
  {
    auto after = m_ByAddress.lower_bound(p);
    if (after != m_ByAddress.end() && after->first == p + bytes)
    {
      const auto joined = after->second;
      RemoveFree(p + bytes, joined);
      bytes += joined;
    }
    after = m_ByAddress.lower_bound(p);
    if (after != m_ByAddress.begin())
    {
      const auto before = std::prev(after);
      if (before->first + before->second == p)
      {
        p = before->first;
        bytes += before->second;
        RemoveFree(p, before->second);
      }
    }
    AddFree(p, bytes);
  }

  bool Owns(const void* p) const { return p >= m_Begin && p < m_End; }

  void Trim() const
  {
    for (const auto& free : m_ByAddress)
    {
      madvise(free.first, free.second, MADV_DONTNEED);
    }
  }

private:
  void AddFree(char* p, std::size_t size)
  {
    m_ByAddress[p] = size;
    m_BySize.insert({size, p});
  }
  void RemoveFree(char* p, std::size_t size)
  {
    m_ByAddress.erase(p);
    m_BySize.erase({size, p});
  }

  char* m_Begin = nullptr;
  char* m_End = nullptr;
  std::map<char*, std::size_t> m_ByAddress;
  std::set<std::pair<std::size_t, char*>> m_BySize;
};

struct Books
{
  std::mutex mutex;
  Arena arena;
  std::unordered_map<void*, std::size_t> sizes;
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

std::size_t Rounded(std::size_t bytes)
{
  return bytes >= large ? (bytes + page - 1) / page * page : bytes;
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
  if (b.arena.Owns(p))
  {
    b.arena.Give(static_cast<char*>(p), bytes);
  }
  else
  {
    std::free(p);
  }
}

void* Take(std::size_t bytes)
{
  if (bytes == 0)
  {
    return nullptr;
  }
  bytes = Rounded(bytes);
  Books& b = TheBooks();
  std::lock_guard<std::mutex> lock(b.mutex);
  if (b.limit != 0 && b.inUse + bytes > b.limit)
  {
    C10_THROW_ERROR(OutOfMemoryError, "out of memory: the limit set for tensors is reached");
  }
  void* p = bytes >= large ? b.arena.Take(bytes) : nullptr;
  if (!p && posix_memalign(&p, alignment, bytes) != 0)
  {
    C10_THROW_ERROR(OutOfMemoryError, "out of memory: the system has none left for tensors");
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
  TheBooks().arena.Trim();
}

} // namespace TensorMemory
} // namespace dl
} // namespace otb
