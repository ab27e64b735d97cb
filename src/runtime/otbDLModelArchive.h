/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLModelArchive_h
#define otbDLModelArchive_h

#include "otbDLModelContract.h"

#include <string>

namespace otb
{
namespace dl
{

/** Checks that a file is a whole TorchScript archive and returns its embedded contract; empty when it has none.
 * \throw Error that says what the file is instead */
std::string EmbeddedContract(const std::string& modelFile);

/** ReadContract() of otbDLRuntime.h. */
ModelContract ReadContractOf(const std::string& modelFile, const std::string& contractFile, std::string* origin);

} // namespace dl
} // namespace otb

#endif
