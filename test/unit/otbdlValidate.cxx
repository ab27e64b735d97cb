/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// otbdlValidate FILE...: a line `FILE` for each file, then the path of each violation, one a line, indented. For contract_agreement.py.
#include "otbDLModelContract.h"

#include <fstream>
#include <iostream>
#include <sstream>

int main(int argc, char* argv[])
{
  for (int k = 1; k < argc; ++k)
  {
    std::ifstream in(argv[k], std::ios::binary);
    std::ostringstream text;
    text << in.rdbuf();
    std::cout << argv[k] << "\n";
    try
    {
      otb::dl::ModelContract::Parse(text.str(), argv[k]);
    }
    catch (const otb::dl::ContractError& e)
    {
      for (const auto& v : e.Violations())
      {
        std::cout << "  " << v.path << "\n";
      }
    }
  }
  return 0;
}
