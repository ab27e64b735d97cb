/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// The limit: the network alone, loaded as the applications load it, on patches that lie in memory.
// otbdlBareModel MODEL PATCHES THREADS BATCH -> seconds
#include "otbDLRuntime.h"

#include <chrono>
#include <cstdlib>
#include <iostream>

int main(int argc, char* argv[])
{
  if (argc != 5)
  {
    std::cerr << "usage: otbdlBareModel MODEL PATCHES THREADS BATCH\n";
    return 2;
  }
  try
  {
    const auto contract = otb::dl::ReadContract(argv[1]);
    const int patches = std::atoi(argv[2]);
    otb::dl::RuntimeOptions options;
    options.threads = std::atoi(argv[3]);
    options.batch = std::atoi(argv[4]);
    otb::dl::RuntimeReport report;
    const auto predictor = otb::dl::LoadPredictor(argv[1], contract, options, report);
    for (std::size_t k = 0; k < contract.inputs.size(); ++k)
    {
      const auto in = predictor->Input(static_cast<int>(k));
      for (std::ptrdiff_t i = 0; i < predictor->BatchSize() * in.strideN; ++i)
      {
        in.data[i] = static_cast<float>(i % 101) / 50.f - 1.f;
      }
    }
    predictor->Run(predictor->BatchSize());
    const auto start = std::chrono::steady_clock::now();
    for (int done = 0; done < patches; done += predictor->BatchSize())
    {
      predictor->Run(std::min(predictor->BatchSize(), patches - done));
    }
    std::cout << std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() << '\n';
  }
  catch (const std::exception& e)
  {
    std::cerr << e.what() << '\n';
    return 1;
  }
  return 0;
}
