/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLStopwatch_h
#define otbDLStopwatch_h

#include <chrono>

namespace otb
{
namespace dl
{

/** Adds the time until its end to a counter, in seconds. */
class Stopwatch
{
public:
  explicit Stopwatch(double& seconds) : m_Seconds(seconds), m_Start(std::chrono::steady_clock::now()) {}
  ~Stopwatch() { Stop(); }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  void Stop()
  {
    if (m_Running)
    {
      m_Seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - m_Start).count();
      m_Running = false;
    }
  }

private:
  double& m_Seconds;
  bool m_Running = true;
  std::chrono::steady_clock::time_point m_Start;
};

} // namespace dl
} // namespace otb

#endif
