/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 *
 * otbdlStartup FOLDER[:FOLDER...] APPLICATION...: a line a name: milliseconds until it is created for the first time (its library is loaded, DoInit runs) and,
 * the median of 21, with the library loaded; is LibTorch mapped?
 */

#include "otbWrapperApplicationRegistry.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

int main(int argc, char** argv)
{
  using Clock = std::chrono::steady_clock;
  otb::Wrapper::ApplicationRegistry::SetApplicationPath(argc > 1 ? argv[1] : "");
  for (int k = 2; k < argc; ++k)
  {
    std::vector<otb::Wrapper::Application::Pointer> kept; // so that the library stays
    std::vector<double> times;
    for (int n = 0; n < 22; ++n)
    {
      const auto start = Clock::now();
      kept.push_back(otb::Wrapper::ApplicationRegistry::CreateApplicationFaster(argv[k]));
      if (!kept.back())
      {
        std::fprintf(stderr, "%s: not found in %s\n", argv[k], argv[1]);
        return 1;
      }
      kept.back()->Init();
      times.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
    }
    const double first = times.front();
    std::nth_element(times.begin() + 1, times.begin() + 11, times.end());
    bool torch = false;
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);)
    {
      torch = torch || line.find("libtorch") != std::string::npos;
    }
    std::printf("%s %.2f %.2f %d\n", argv[k], first, times[11], torch ? 1 : 0);
  }
  return 0;
}
