/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLError.h"
#include "otbDLTorchRuntime.h"

#include <filesystem>
#include <system_error>
#ifndef OTBDL_TORCH_LINKED
#include <dlfcn.h>

#include <cstring>
#endif

namespace otb
{
namespace dl
{

namespace
{

#ifdef OTBDL_TORCH_LINKED

const TorchRuntime& Torch()
{
  return *otbdlTorchRuntime();
}

#else

/** Loads the library beside this one. LibTorch takes most of a second and 130 MB: who asks for help, or lists applications, does without. It stays loaded:
 * LibTorch registers itself and dislikes to go. */
const TorchRuntime& Open()
{
  std::string path = "libOTBTorchRuntime.so";
  Dl_info own;
  if (dladdr(reinterpret_cast<void*>(&Open), &own) != 0 && own.dli_fname && std::strchr(own.dli_fname, '/'))
  {
    const std::string file = own.dli_fname;
    path = file.substr(0, file.rfind('/') + 1) + path;
  }
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  const auto get = library ? reinterpret_cast<decltype(&otbdlTorchRuntime)>(dlsym(library, "otbdlTorchRuntime")) : nullptr;
  if (!get)
  {
    const char* why = dlerror();
    throw Error("the runtime for models, \"" + path + "\", cannot be loaded (" + (why ? why : "it is another library") +
                "). It belongs beside the module's library and needs LibTorch (Debian: libtorch1.13): install both again.");
  }
  return *get();
}

/** Thread-safe; tries again after a failure. */
const TorchRuntime& Torch()
{
  static const TorchRuntime& torch = Open();
  return torch;
}

#endif

} // namespace

ModelContract ReadContract(const std::string& modelFile, const std::string& contractFile, std::string* origin)
{
  return Torch().readContract(modelFile, contractFile, origin);
}

std::string SideCarOf(const std::string& modelFile)
{
  for (const auto& file : {modelFile + ".mlm.json", std::filesystem::path(modelFile).replace_extension(".mlm.json").string()})
  {
    std::error_code ec;
    if (std::filesystem::exists(file, ec))
    {
      return file;
    }
  }
  return {};
}

std::unique_ptr<Predictor> LoadPredictor(const std::string& modelFile, const ModelContract& contract, const RuntimeOptions& options, RuntimeReport& report)
{
  return Torch().load(modelFile, contract, options, report);
}

std::unique_ptr<Predictor> LoadMethod(const std::string& modelFile, const ModelContract& contract, const std::string& method, const RuntimeOptions& options,
                                      RuntimeReport& report)
{
  return Torch().loadMethod(modelFile, contract, method, options, report);
}

std::unique_ptr<DifferentiablePredictor> LoadDifferentiable(const std::string& modelFile, const ModelContract& contract, const RuntimeOptions& options,
                                                            RuntimeReport& report)
{
  return Torch().loadDifferentiable(modelFile, contract, options, report);
}

} // namespace dl
} // namespace otb
