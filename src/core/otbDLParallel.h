/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLParallel_h
#define otbDLParallel_h

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace otb
{
namespace dl
{

/** Calls f(0) ... f(count - 1), in any order, from up to `threads` threads (this one among them). Rethrows the first exception. */
template <typename TFunction>
void ParallelFor(int count, int threads, TFunction f)
{
  const int others = std::min(threads, count) - 1;
  if (others < 1)
  {
    for (int k = 0; k < count; ++k)
    {
      f(k);
    }
    return;
  }
  std::atomic<int> next{0};
  std::exception_ptr failure;
  std::mutex mutex;
  const auto work = [&]
  {
    try
    {
      for (int k = next++; k < count; k = next++)
      {
        f(k);
      }
    }
    catch (...)
    {
      std::lock_guard<std::mutex> lock(mutex);
      failure = failure ? failure : std::current_exception();
      next = count;
    }
  };
  std::vector<std::thread> pool;
  for (int t = 0; t < others; ++t)
  {
    try
    {
      pool.emplace_back(work);
    }
    catch (const std::system_error&)
    {
      break; // no more threads to be had: the work is done with those there are
    }
  }
  work();
  for (auto& t : pool)
  {
    t.join();
  }
  if (failure)
  {
    std::rethrow_exception(failure);
  }
}

} // namespace dl
} // namespace otb

#endif
