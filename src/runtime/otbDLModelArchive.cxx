/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLModelArchive.h"

#include "otbDLRuntime.h"

#include <caffe2/serialize/inline_container.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>

namespace otb
{
namespace dl
{

namespace fs = std::filesystem;

namespace
{

const char* const exportAdvice = "Export it with otbtorch.export(module, contract, path).";

/** Text of a small file.
 * \throw Error */
std::string Slurp(const std::string& path, const char* option)
{
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in)
  {
    throw Error(Complaint(option, "\"" + path + "\", which cannot be read", "a readable JSON file", "Check the path and its permissions."));
  }
  return text.str();
}

} // namespace

std::string EmbeddedContract(const std::string& modelFile)
{
  std::error_code ec;
  const auto status = fs::status(modelFile, ec);
  if (!fs::exists(status))
  {
    throw Error(Complaint("model", "no file at \"" + modelFile + "\"", "a TorchScript file (.pt)", "Check the path."));
  }
  if (!fs::is_regular_file(status))
  {
    throw Error(Complaint("model", "\"" + modelFile + "\", which is not a regular file", "a TorchScript file (.pt)", "Check the path."));
  }
  if (fs::file_size(modelFile, ec) == 0)
  {
    throw Error(Complaint("model", "\"" + modelFile + "\", which is empty", "a TorchScript file (.pt)", exportAdvice));
  }

  char magic[2] = {0, 0};
  std::ifstream in(modelFile, std::ios::binary);
  in.read(magic, 2);
  if (!in)
  {
    throw Error(Complaint("model", "\"" + modelFile + "\", which cannot be read", "a TorchScript file (.pt)", "Check its permissions."));
  }
  if (magic[0] != 'P' || magic[1] != 'K')
  {
    throw Error(Complaint("model", "\"" + modelFile + "\", which is not a TorchScript archive (it does not begin like a zip file)", "a TorchScript file (.pt)",
                          exportAdvice));
  }
  std::unique_ptr<caffe2::serialize::PyTorchStreamReader> reader;
  try
  {
    reader = std::make_unique<caffe2::serialize::PyTorchStreamReader>(modelFile);
  }
  catch (const std::exception&)
  {
    throw Error(Complaint("model", "\"" + modelFile + "\", a truncated or damaged archive (its directory cannot be read)", "a whole TorchScript file (.pt)",
                          "Copy or export it again."));
  }
  if (!reader->hasRecord("constants.pkl"))
  {
    throw Error(Complaint("model", "\"" + modelFile + "\", a PyTorch checkpoint (torch.save), which holds no code", "a TorchScript file (.pt)", exportAdvice));
  }
  if (!reader->hasRecord("extra/mlm.json"))
  {
    return {};
  }
  const auto record = reader->getRecord("extra/mlm.json");
  return std::string(static_cast<const char*>(std::get<0>(record).get()), std::get<1>(record));
}

ModelContract ReadContract(const std::string& modelFile, const std::string& contractFile, std::string* origin)
{
  // First of all, so that a damaged model is found before its contract is discussed.
  const std::string embedded = EmbeddedContract(modelFile);
  std::string from;
  std::string text;
  if (!contractFile.empty())
  {
    from = contractFile;
    text = Slurp(contractFile, "contract");
  }
  else
  {
    const std::string sideCars[] = {modelFile + ".mlm.json", fs::path(modelFile).replace_extension(".mlm.json").string()};
    for (const auto& sideCar : sideCars)
    {
      std::error_code ec;
      if (fs::exists(sideCar, ec))
      {
        from = sideCar;
        text = Slurp(sideCar, "model");
        break;
      }
    }
    if (from.empty())
    {
      from = modelFile;
      text = embedded;
    }
  }
  if (text.empty())
  {
    throw Error(Complaint("model", "\"" + modelFile + "\" without a contract",
                          "a contract (bands, scaling, tiling, outputs): inside the model, beside it as " + fs::path(modelFile).filename().string() +
                              ".mlm.json, or given with -contract",
                          std::string("Scaling is never guessed. ") + exportAdvice));
  }
  if (origin)
  {
    *origin = from;
  }
  return ModelContract::Parse(text, "\"" + from + "\"");
}

} // namespace dl
} // namespace otb
