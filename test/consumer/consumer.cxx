/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// consumer CONTRACT: reads a contract and counts the patches of an image of 1000 x 700 pixels.
#include "otbDLModelContract.h"
#include "otbDLPatchGrid.h"

#include <fstream>
#include <iostream>
#include <iterator>

int main(int argc, char* argv[])
{
  std::ifstream in(argc > 1 ? argv[1] : "");
  const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  try
  {
    const auto contract = otb::dl::ModelContract::Parse(text, "the contract");
    const otb::dl::PatchGrid grid(1000, 700, contract.tiling);
    std::cout << contract.id << ": " << grid.Columns() << " x " << grid.Rows() << " patches\n";
  }
  catch (const otb::dl::Error& e)
  {
    std::cerr << e.what() << "\n";
    return 1;
  }
  return 0;
}
