/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLModelArchive.h"
#include "otbDLRuntime.h"
#include "otbDLTensorMemory.h"

#include <ATen/Parallel.h>
#include <torch/script.h>
#include <torch/csrc/api/include/torch/version.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <dlfcn.h>
#include <iomanip>
#include <map>
#include <mutex>
#include <sstream>
#include <thread>
#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace otb
{
namespace dl
{

namespace
{

using Clock = std::chrono::steady_clock;

double Since(Clock::time_point start)
{
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/** First line of an exception's message, without LibTorch's backtrace. */
std::string Brief(const std::exception& e)
{
  const auto* c10Error = dynamic_cast<const c10::Error*>(&e);
  std::string text = c10Error ? c10Error->what_without_backtrace() : e.what();
  // A script's own error comes last, after the trace through its source.
  const auto at = text.rfind("RuntimeError: ");
  if (at != std::string::npos)
  {
    text = text.substr(at + 14);
  }
  text = text.substr(0, text.find('\n'));
  return text.size() > 300 ? text.substr(0, 300) + "..." : text;
}

bool IsOutOfMemory(const std::exception& e)
{
  const std::string text = e.what();
  return dynamic_cast<const std::bad_alloc*>(&e) || text.find("out of memory") != std::string::npos || text.find("can't allocate memory") != std::string::npos;
}

/** Settings of the process, made once: tensors keep their memory, arithmetic is reproducible. */
void PrepareProcess()
{
  static std::once_flag once;
  std::call_once(once,
                 []
                 {
                   TensorMemory::Install();
#ifdef __GLIBC__
                   // oneDNN takes its scratch memory from malloc: keep it from being unmapped after each forward. (Images are freed and taken in blocks of
                   // the same sizes, so that the heap does not grow.)
                   mallopt(M_MMAP_THRESHOLD, 32 << 20);
                   mallopt(M_TRIM_THRESHOLD, 256 << 20);
#endif
                   at::globalContext().setAllowTF32CuBLAS(false);
                   at::globalContext().setAllowTF32CuDNN(false);
                   at::globalContext().setDeterministicCuDNN(true);
                   at::globalContext().setBenchmarkCuDNN(false);
                 });
}

/** Sets the threads of LibTorch for the calling thread and of OpenBLAS, which does not follow it. */
void SetThreads(int n)
{
  if (at::get_num_threads() != n)
  {
    at::set_num_threads(n);
  }
  using Setter = void (*)(int);
  static const auto openblas = reinterpret_cast<Setter>(dlsym(RTLD_DEFAULT, "openblas_set_num_threads"));
  if (openblas)
  {
    openblas(n);
  }
}

/** Name of the BLAS that is loaded. */
std::string BlasName()
{
  if (dlsym(RTLD_DEFAULT, "openblas_get_config"))
  {
    return "OpenBLAS";
  }
  if (dlsym(RTLD_DEFAULT, "MKL_Get_Version") || dlsym(RTLD_DEFAULT, "mkl_get_version") || dlsym(RTLD_DEFAULT, "mkl_serv_get_version"))
  {
    return "MKL";
  }
  return at::hasMKL() ? "MKL (built in)" : "reference BLAS";
}

bool HasConvolution(const torch::jit::Block* block)
{
  for (const auto* node : block->nodes())
  {
    const std::string kind = node->kind().toQualString();
    if (kind.find("conv2d") != std::string::npos || kind.find("_convolution") != std::string::npos)
    {
      return true;
    }
    for (const auto* inner : node->blocks())
    {
      if (HasConvolution(inner))
      {
        return true;
      }
    }
  }
  return false;
}

class TorchPredictor : public Predictor
{
public:
  TorchPredictor(const std::string& file, const ModelContract& contract, const RuntimeOptions& options, RuntimeReport& report)
      : m_Contract(contract), m_Patch(contract.tiling.patch), m_Warn(options.warn)
  {
    PrepareProcess();
    report.torchVersion = TORCH_VERSION;
    report.blas = BlasName();
    if (report.blas == "reference BLAS")
    {
      report.warnings.push_back("LibTorch uses the reference BLAS, 20 times slower than OpenBLAS: apt-get install libopenblas0-pthread");
    }
    m_Threads = options.threads > 0 ? options.threads : std::max(1u, std::thread::hardware_concurrency());
    report.threads = m_Threads;
    SetThreads(m_Threads);
    ChooseDevice(options, report);
    Load(file, report);
    DryRun(report);
    ChooseBatch(options, report);
    TensorMemory::Trim();
    Allocate(report.batch);
  }

  ~TorchPredictor() override
  {
    m_Inputs.clear();
    m_Outputs.clear();
    m_Module = {};
    TensorMemory::Trim();
  }

  int BatchSize() const override { return m_Batch; }

  int Outputs() const override { return static_cast<int>(m_Contract.outputs.size()); }

  BatchView Input(int k) override { return View(m_Inputs[k]); }

  BatchView Output(int k) override { return View(m_Outputs[k]); }

  void Run() override
  {
    SetThreads(m_Threads);
    c10::InferenceMode guard;
    try
    {
      if (!m_Halved)
      {
        m_Outputs = Forward(m_Inputs);
        return;
      }
    }
    catch (const std::exception& e)
    {
      if (!IsOutOfMemory(e) || m_Batch < 2)
      {
        throw Error(std::string("the model failed: ") + Brief(e) + (IsOutOfMemory(e) ? " (not enough memory for one patch)" : ""));
      }
      m_Halved = true;
      if (m_Warn)
      {
        m_Warn("out of memory with a batch of " + std::to_string(m_Batch) + " patches; going on with " + std::to_string((m_Batch + 1) / 2));
      }
    }
    m_Outputs.clear();
    TensorMemory::Trim();
    try
    {
      const int half = (m_Batch + 1) / 2;
      std::vector<at::Tensor> parts[2];
      for (int h = 0; h < 2; ++h)
      {
        std::vector<at::Tensor> inputs;
        for (const auto& in : m_Inputs)
        {
          inputs.push_back(in.narrow(0, h == 0 ? 0 : m_Batch - half, half));
        }
        parts[h] = Forward(inputs);
      }
      for (std::size_t k = 0; k < parts[0].size(); ++k)
      {
        m_Outputs.push_back(at::cat({parts[0][k].narrow(0, 0, m_Batch - half), parts[1][k]}, 0));
      }
    }
    catch (const std::exception& e)
    {
      throw Error(std::string("the model failed: ") + Brief(e) +
                  (IsOutOfMemory(e) ? ". Half a batch does not fit either: give a smaller -batch, or close other programs." : ""));
    }
  }

private:
  static BatchView View(const at::Tensor& t) { return {t.data_ptr<float>(), static_cast<int>(t.size(1)), t.stride(0), t.stride(1), t.stride(2), t.stride(3)}; }

  void ChooseDevice(const RuntimeOptions& options, RuntimeReport& report)
  {
    const std::string& d = options.device;
    const bool asked = d.rfind("cuda", 0) == 0;
    const bool number = d.size() > 5 && d.compare(0, 5, "cuda:") == 0 && d.find_first_not_of("0123456789", 5) == std::string::npos;
    if (d != "auto" && d != "cpu" && d != "cuda" && !number)
    {
      throw Error(Complaint("device", "\"" + d + "\"", "auto, cpu, cuda or cuda:N", ""));
    }
    const bool built = at::hasCUDA();
    const int gpus = built ? static_cast<int>(at::detail::getCUDAHooks().getNumGPUs()) : 0;
    if (asked)
    {
      const int index = number ? std::atoi(d.c_str() + 5) : 0;
      if (!built)
      {
        throw Error(Complaint("device", "\"" + d + "\" with a LibTorch " + TORCH_VERSION + " built without CUDA", "cpu or auto",
                              "Debian's LibTorch is CPU only: use -device cpu, or build against a LibTorch with CUDA."));
      }
      if (index >= gpus)
      {
        throw Error(Complaint("device", "\"" + d + "\" on a machine with " + std::to_string(gpus) + " usable GPU(s)", "one that exists", "Use -device auto."));
      }
      m_Device = at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
      report.deviceReason = "as asked";
    }
    else if (d == "auto" && gpus > 0)
    {
      m_Device = at::Device(at::kCUDA, 0);
      report.deviceReason = "auto: a GPU is there";
    }
    else
    {
      m_Device = at::Device(at::kCPU);
      report.deviceReason = d == "cpu" ? "as asked" : built ? "auto: no usable GPU" : "auto: this LibTorch has no CUDA";
    }
    report.device = m_Device.str();

    if (options.precision == "fp32")
    {
      m_Type = at::kFloat;
    }
    else if (options.precision == "bf16")
    {
      m_Type = at::kBFloat16;
    }
    else if (options.precision == "fp16")
    {
      if (m_Device.is_cpu())
      {
        throw Error(Complaint("precision", "fp16 on the CPU", "fp32 or bf16", "LibTorch computes in half precision on GPUs only."));
      }
      m_Type = at::kHalf;
    }
    else
    {
      throw Error(Complaint("precision", "\"" + options.precision + "\"", "fp32, bf16 or fp16", ""));
    }
    report.precision = options.precision;
  }

  void Load(const std::string& file, RuntimeReport& report)
  {
    EmbeddedContract(file); // its messages are better than the loader's
    try
    {
      m_Module = torch::jit::load(file, m_Device);
      m_Module.eval();
      m_Module = torch::jit::freeze(m_Module);
      if (m_Type != at::kFloat)
      {
        m_Module.to(m_Type);
      }
    }
    catch (const std::exception& e)
    {
      std::string advice = "Export it again with otbtorch.export, under a PyTorch not newer than the LibTorch here.";
      if (std::string(e.what()).find("Unknown builtin op") != std::string::npos)
      {
        advice = "This LibTorch does not know an operator of the model. " + advice;
      }
      throw Error(Complaint("model", "\"" + file + "\", which LibTorch " + TORCH_VERSION + " cannot load (" + Brief(e) + ")", "a TorchScript file", advice));
    }
    report.bytesBase = TensorMemory::InUse();
    m_ChannelsLast = HasConvolution(m_Module.get_method("forward").graph()->block());
  }

  /** Inputs of a batch, zeros. */
  std::vector<at::Tensor> Zeros(int batch) const
  {
    std::vector<at::Tensor> inputs;
    const auto format = m_ChannelsLast ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
    for (const auto& in : m_Contract.inputs)
    {
      const auto bands = static_cast<std::int64_t>(in.bands.size());
      inputs.push_back(at::zeros({batch, bands, m_Patch, m_Patch}, at::TensorOptions().dtype(at::kFloat)).contiguous(format));
    }
    return inputs;
  }

  /** The tensors of a result, in the contract's order. */
  std::vector<at::Tensor> Tensors(const c10::IValue& value) const
  {
    std::vector<at::Tensor> tensors;
    if (value.isTensor())
    {
      tensors.push_back(value.toTensor());
    }
    else if (value.isTuple() || value.isList())
    {
      const std::vector<c10::IValue> elements = value.isTuple() ? value.toTuple()->elements().vec() : value.toListRef().vec();
      for (const auto& element : elements)
      {
        if (!element.isTensor())
        {
          throw Error("it returns something that is not a tensor");
        }
        tensors.push_back(element.toTensor());
      }
    }
    else if (value.isGenericDict())
    {
      const auto dict = value.toGenericDict();
      for (const auto& out : m_Contract.outputs)
      {
        const auto it = dict.find(out.name);
        if (it == dict.end() || !it->value().isTensor())
        {
          throw Error("it returns a dictionary without the output \"" + out.name + "\"");
        }
        tensors.push_back(it->value().toTensor());
      }
    }
    else
    {
      throw Error("it returns neither a tensor, nor a tuple, list or dictionary of tensors");
    }
    return tensors;
  }

  std::vector<at::Tensor> Forward(const std::vector<at::Tensor>& inputs)
  {
    std::vector<c10::IValue> arguments;
    for (const auto& in : inputs)
    {
      arguments.emplace_back(m_Device.is_cpu() && m_Type == at::kFloat ? in : in.to(m_Device, m_Type));
    }
    auto tensors = Tensors(m_Module.forward(arguments));
    for (auto& t : tensors)
    {
      if (!t.device().is_cpu() || t.scalar_type() != at::kFloat)
      {
        t = t.to(at::kCPU, at::kFloat);
      }
    }
    return tensors;
  }

  /** Runs the model once and compares what comes out with what the contract says. */
  void DryRun(RuntimeReport& report)
  {
    c10::InferenceMode guard;
    std::vector<at::Tensor> out;
    for (;;)
    {
      try
      {
        out = Forward(Zeros(2));
        break;
      }
      catch (const std::exception& e)
      {
        // Some networks reshape with view(), which wants the plain layout.
        if (m_ChannelsLast && !IsOutOfMemory(e))
        {
          m_ChannelsLast = false;
          continue;
        }
        std::string shapes;
        for (const auto& in : m_Contract.inputs)
        {
          shapes += (shapes.empty() ? "" : ", ") + in.name + " 2 x " + std::to_string(in.bands.size()) + " x " + std::to_string(m_Patch) + " x " +
                    std::to_string(m_Patch);
        }
        throw Error(Complaint("model", "that the network does not run on the inputs of its contract (" + shapes + "): " + Brief(e),
                              "a network and a contract that agree", "Compare with `python3 -m otbtorch validate`."));
      }
    }
    report.memoryFormat = m_ChannelsLast ? "channels-last" : "contiguous";
    const auto& declared = m_Contract.outputs;
    if (out.size() != declared.size())
    {
      throw Error(Complaint("model", "that the network returns " + std::to_string(out.size()) + " tensor(s)",
                            std::to_string(declared.size()) + ", as in /properties/mlm:output of the contract", "Correct the contract."));
    }
    for (std::size_t k = 0; k < out.size(); ++k)
    {
      const std::vector<std::int64_t> expected = {2, declared[k].channels, m_Patch, m_Patch};
      if (out[k].sizes().vec() != expected)
      {
        std::ostringstream found, wanted;
        found << "that output \"" << declared[k].name << "\" has the shape " << out[k].sizes();
        wanted << at::IntArrayRef(expected) << ", as in /properties/mlm:output/" << k << " of the contract";
        throw Error(Complaint("model", found.str(), wanted.str(), "Correct the contract, or the network's padding."));
      }
    }
  }

  /** Two different patches in every slot, alternating; the first one in slot `first`. */
  std::vector<at::Tensor> Probe(int batch, int first) const
  {
    auto inputs = Zeros(batch);
    for (std::size_t k = 0; k < inputs.size(); ++k)
    {
      // Any fixed pattern will do: it must exercise rounding, not the network's knowledge.
      const auto wave = at::arange(inputs[k].numel() / batch, at::kFloat).reshape({inputs[k].size(1), m_Patch, m_Patch});
      for (int n = 0; n < batch; ++n)
      {
        const double frequency = (n + first) % 2 == 0 ? .731 : 1.177;
        inputs[k][n].copy_(at::sin(wave * frequency + static_cast<double>(k)));
      }
    }
    return inputs;
  }

  /** Are the outputs of each slot those of the reference (slots 0 and 1 of a batch of two), bit for bit? */
  static bool SameBits(const std::vector<at::Tensor>& reference, const std::vector<at::Tensor>& out, int first)
  {
    for (std::size_t k = 0; k < out.size(); ++k)
    {
      for (std::int64_t n = 0; n < out[k].size(0); ++n)
      {
        const auto a = reference[k][(n + first) % 2].contiguous(), b = out[k][n].contiguous();
        if (std::memcmp(a.data_ptr(), b.data_ptr(), a.nbytes()) != 0)
        {
          return false;
        }
      }
    }
    return true;
  }

  void ChooseBatch(const RuntimeOptions& options, RuntimeReport& report)
  {
    c10::InferenceMode guard;
    // The profiling executor specialises during the first two calls.
    auto inputs = Probe(2, 0);
    Forward(inputs);
    Forward(inputs);
    TensorMemory::ResetPeak();
    auto start = Clock::now();
    auto reference = Forward(inputs);
    double best = Since(start) / 2;
    report.bytesPerPatch = (TensorMemory::Peak() - report.bytesBase) / 2;
    for (auto& t : reference)
    {
      t = t.clone();
    }
    if (!SameBits(reference, Forward(Probe(2, 1)), 1))
    {
      report.warnings.push_back("the model's output for a patch depends on its place in the batch: the map may differ in the last bits from one tiling to "
                                "another");
    }

    if (options.batch > 0)
    {
      report.batch = options.batch;
      report.batchReason = "as asked";
      return;
    }
    report.batch = 2;
    report.secondsPerPatch = best;
    std::ostringstream tried;
    tried << std::fixed << std::setprecision(1) << "measured, ms a patch: 2: " << best * 1e3;
    const std::size_t room = options.memory > report.bytesBase ? options.memory - report.bytesBase : 0;
    if (options.memory > 0 && 2 * report.bytesPerPatch > room)
    {
      std::ostringstream warning;
      warning << "the model needs " << ((report.bytesBase + 2 * report.bytesPerPatch) >> 20) << " MB for the smallest batch, more than its share of -ram ("
              << (options.memory >> 20) << " MB)";
      report.warnings.push_back(warning.str());
    }
    for (int batch = 4; batch <= 64; batch *= 2)
    {
      if (options.memory > 0 && batch * report.bytesPerPatch > room)
      {
        tried << "; " << batch << ": more than its share of -ram";
        break;
      }
      // Four runs of it must be worth their while: at most 4 % of the whole job, and no larger than the job.
      if (options.patches > 0 && (batch > 2 * options.patches || 4. * batch > .04 * static_cast<double>(options.patches) + 32))
      {
        tried << "; more is not worth measuring for " << options.patches << " patches";
        break;
      }
      const auto probe = Probe(batch, 0);
      double seconds;
      bool same = true;
      try
      {
        same = SameBits(reference, Forward(probe), 0);
        seconds = 1e30;
        for (int run = 0; same && run < 2; ++run)
        {
          start = Clock::now();
          Forward(probe);
          seconds = std::min(seconds, Since(start) / batch);
        }
      }
      catch (const std::exception& e)
      {
        if (IsOutOfMemory(e))
        {
          tried << "; " << batch << ": out of memory";
          break;
        }
        throw Error(std::string("the model failed: ") + Brief(e));
      }
      if (!same)
      {
        tried << "; " << batch << ": other bits";
        continue;
      }
      tried << ", " << batch << ": " << seconds * 1e3;
      if (seconds > best * .97)
      {
        if (batch > 4)
        {
          break;
        }
        continue;
      }
      best = seconds;
      report.batch = batch;
      report.secondsPerPatch = best;
    }
    report.batchReason = tried.str();
  }

  void Allocate(int batch)
  {
    m_Batch = batch;
    m_Inputs = Zeros(batch);
  }

  ModelContract m_Contract;
  int m_Patch;
  std::function<void(const std::string&)> m_Warn;
  int m_Batch = 0;
  int m_Threads = 1;
  bool m_Halved = false;
  bool m_ChannelsLast = false;
  at::Device m_Device{at::kCPU};
  at::ScalarType m_Type = at::kFloat;
  torch::jit::script::Module m_Module;
  std::vector<at::Tensor> m_Inputs;
  std::vector<at::Tensor> m_Outputs;
};

} // namespace

std::unique_ptr<Predictor> LoadPredictor(const std::string& modelFile, const ModelContract& contract, const RuntimeOptions& options, RuntimeReport& report)
{
  try
  {
    return std::make_unique<TorchPredictor>(modelFile, contract, options, report);
  }
  catch (const Error&)
  {
    throw;
  }
  catch (const std::exception& e)
  {
    throw Error(std::string("the model cannot be used: ") + Brief(e));
  }
}

} // namespace dl
} // namespace otb
