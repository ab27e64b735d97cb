/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLModelArchive.h"
#include "otbDLRuntime.h"
#include "otbDLTensorMemory.h"
#include "otbDLTorchRuntime.h"

#include <ATen/Parallel.h>
#include <c10/core/thread_pool.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/frozen_graph_optimizations.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/script.h>
#include <torch/csrc/api/include/torch/version.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <dlfcn.h>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <initializer_list>
#include <iomanip>
#include <map>
#include <mutex>
#include <numeric>
#include <optional>
#include <sstream>
#include <thread>

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
                   at::globalContext().setAllowTF32CuBLAS(false);
                   at::globalContext().setAllowTF32CuDNN(false);
                   at::globalContext().setDeterministicCuDNN(true);
                   at::globalContext().setBenchmarkCuDNN(false);
                 });
}

void SetOpenBlasThreads(int n)
{
  using Setter = void (*)(int);
  static const auto set = reinterpret_cast<Setter>(dlsym(RTLD_DEFAULT, "openblas_set_num_threads"));
  if (set)
  {
    set(n);
  }
}

/** Sets the threads inside a forward, for the calling thread and for OpenBLAS, which has threads of its own and does not follow LibTorch.
 *
 * It is one wherever memory allows: the threads that we are given work on different patches instead, which costs no synchronisation, and makes the result of a
 * patch independent of their number (a matrix product split between threads may round otherwise). */
void SetThreadsOfAForward(int n)
{
  at::set_num_threads(n);
  SetOpenBlasThreads(n);
}

/** Threads of OpenBLAS, 0 if it is not loaded. */
int OpenBlasThreads()
{
  using Getter = int (*)();
  static const auto get = reinterpret_cast<Getter>(dlsym(RTLD_DEFAULT, "openblas_get_num_threads"));
  return get ? get() : 0;
}

/** Gives the host, Python say, the threads back that it had, once the last predictor is gone. */
class HostThreads
{
public:
  static std::shared_ptr<HostThreads> Keep()
  {
    static std::mutex mutex;
    static std::weak_ptr<HostThreads> last;
    std::lock_guard<std::mutex> lock(mutex);
    auto kept = last.lock();
    if (!kept)
    {
      kept.reset(new HostThreads);
      last = kept;
    }
    return kept;
  }
  ~HostThreads()
  {
    at::set_num_threads(m_Torch);
    if (m_Blas > 0)
    {
      SetOpenBlasThreads(m_Blas);
    }
  }
  HostThreads(const HostThreads&) = delete;
  HostThreads& operator=(const HostThreads&) = delete;

private:
  HostThreads() : m_Torch(at::get_num_threads()), m_Blas(OpenBlasThreads()) {}
  int m_Torch;
  int m_Blas;
};

/** Memory that this machine could still give, in bytes; 0 if it does not tell. */
std::size_t AvailableMemory()
{
  std::ifstream info("/proc/meminfo");
  for (std::string line; std::getline(info, line);)
  {
    if (line.rfind("MemAvailable:", 0) == 0)
    {
      return std::stoull(line.substr(13)) << 10;
    }
  }
  return 0;
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

bool HasNode(const torch::jit::Block* block, const std::initializer_list<const char*>& names)
{
  for (const auto* node : block->nodes())
  {
    const std::string kind = node->kind().toQualString();
    for (const char* name : names)
    {
      if (kind.find(name) != std::string::npos)
      {
        return true;
      }
    }
    for (const auto* inner : node->blocks())
    {
      if (HasNode(inner, names))
      {
        return true;
      }
    }
  }
  return false;
}

at::Tensor OneDnnLinear(const at::Tensor& x, const at::Tensor& w, const c10::optional<at::Tensor>& b)
{
  auto sizes = x.sizes().vec();
  sizes.back() = w.size(0);
  return at::mkldnn_linear(x.reshape({-1, x.size(-1)}).contiguous().to_mkldnn(), w.contiguous(), b).to_dense().reshape(sizes);
}

/** The same with its derivative in x, in oneDNN as well. Weights are constants here. */
struct DifferentiableLinear : torch::autograd::Function<DifferentiableLinear>
{
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& w, const c10::optional<at::Tensor>& b)
  {
    context->saved_data["w"] = w;
    return OneDnnLinear(x, w, b);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, const torch::autograd::variable_list& gradients)
  {
    return {OneDnnLinear(gradients[0], context->saved_data["w"].toTensor().t(), c10::nullopt), at::Tensor(), at::Tensor()};
  }
};

/** x w^T + b in oneDNN. OpenBLAS rounds a row of a product in one way or another depending on its place among the others; oneDNN does not. */
at::Tensor RowwiseLinear(const at::Tensor& x, const at::Tensor& w, const c10::optional<at::Tensor>& b)
{
  if (!x.is_cpu() || x.scalar_type() != at::kFloat || w.dim() != 2 || x.dim() < 2 || x.numel() == 0 || w.requires_grad())
  {
    return at::linear(x, w, b);
  }
  return x.requires_grad() && at::GradMode::is_enabled() ? DifferentiableLinear::apply(x, w, b) : OneDnnLinear(x, w, b);
}

/** A product with a matrix of weights, the same way. */
at::Tensor RowwiseMatmul(const at::Tensor& x, const at::Tensor& w)
{
  return w.dim() == 2 && x.dim() >= 2 ? RowwiseLinear(x, w.t(), c10::nullopt) : at::matmul(x, w);
}

TORCH_LIBRARY(otbdl, library)
{
  library.def("linear(Tensor x, Tensor w, Tensor? b=None) -> Tensor", &RowwiseLinear);
  library.def("matmul(Tensor x, Tensor w) -> Tensor", &RowwiseMatmul);
}

/** Sends the matrix products of a frozen graph to the functions above. \return how many */
int MakeRowwise(torch::jit::Graph& graph, torch::jit::Block* block)
{
  int count = 0;
  for (auto it = block->nodes().begin(); it != block->nodes().end();)
  {
    torch::jit::Node* node = *it;
    ++it;
    for (auto* inner : node->blocks())
    {
      count += MakeRowwise(graph, inner);
    }
    const std::string kind = node->kind().toQualString();
    const std::string ours = kind == "aten::linear" ? "otbdl::linear" : kind == "aten::matmul" || kind == "aten::mm" ? "otbdl::matmul" : "";
    if (ours.empty())
    {
      continue;
    }
    torch::jit::WithInsertPoint at(node);
    auto* made = graph.insertNode(graph.create(c10::Symbol::fromQualString(ours), node->inputs(), 1));
    made->output()->setType(node->output()->type());
    node->output()->replaceAllUsesWith(made->output());
    node->destroy();
    ++count;
  }
  return count;
}

/** Numbers too small to matter are 0 in this thread while it lives: arithmetic on them takes a hundred times as long (recurrent networks make them). */
class FlushDenormal
{
public:
  FlushDenormal() { at::globalContext().setFlushDenormal(true); }
  ~FlushDenormal() { at::globalContext().setFlushDenormal(false); }
  FlushDenormal(const FlushDenormal&) = delete;
  FlushDenormal& operator=(const FlushDenormal&) = delete;
};

/** What a thread that runs a network is set to: the least that autograd can be had for, or what it needs. */
class AutogradMode
{
public:
  explicit AutogradMode(bool differentiate)
  {
    if (differentiate)
    {
      m_Gradients.emplace(true);
      m_Interpreter.emplace(false);
    }
    else
    {
      m_Inference.emplace();
    }
  }

private:
  std::optional<c10::InferenceMode> m_Inference;
  std::optional<at::AutoGradMode> m_Gradients;
  /// Graphs run as they were saved, under LibTorch's own derivatives: the optimiser puts others in their place after the first calls, and is no faster here.
  std::optional<torch::jit::GraphOptimizerEnabledGuard> m_Interpreter;
};

/** A network in LibTorch, or one of its methods, in batches of a constant shape: what every predictor needs. Prepare() comes first. */
class TorchModel
{
public:
  TorchModel(const std::string& file, const ModelContract& contract, const std::string& method, const RuntimeOptions& options, RuntimeReport& report)
      : m_File(file), m_Contract(contract), m_Method(method), m_Pixels(contract.tiling.unit == SpatialUnit::Pixel),
        m_Side(m_Pixels ? contract.tiling.window : contract.tiling.patch), m_Unit(m_Pixels ? "pixels" : "patches"), m_Plain(options.plainLayout),
        m_Warn(options.warn)
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
    ChooseDevice(options, report);
    m_Workers = m_Device.is_cpu() ? m_Threads : 1;
    m_Before = TensorMemory::InUse();
    SetThreadsOfAForward(1);
    // Pages come when they are touched: without a limit the kernel would end the process where an allocation should have failed.
    if (m_Device.is_cpu() && AvailableMemory() > 0)
    {
      TensorMemory::SetLimit(TensorMemory::InUse() + AvailableMemory() / 10 * 9);
    }
    EmbeddedContract(file); // its messages are better than the loader's
  }

  virtual ~TorchModel()
  {
    m_Inputs.clear();
    m_Outputs.clear();
    m_Module = {};
    TensorMemory::Trim();
  }

  TorchModel(const TorchModel&) = delete;
  TorchModel& operator=(const TorchModel&) = delete;

  /** Loads, tries, measures. */
  void Prepare(const RuntimeOptions& options, RuntimeReport& report)
  {
    Load(report);
    DryRun(report);
    Check();
    ChooseBatch(options, report);
    TensorMemory::Trim();
    Allocate();
  }

protected:
  /** Will derivatives be asked for? */
  virtual bool Differentiates() const { return false; }

  /** Looks at the loaded network, once it is known to fit its contract. */
  virtual void Check() {}

  /** What is measured and compared bit for bit: all that is done to one part of a batch. The outputs come first. */
  virtual std::vector<at::Tensor> Trial(const std::vector<at::Tensor>& inputs) { return Forward(inputs); }

  void RunForward(int filled)
  {
    m_Filled = filled;
    WithinMemory(
        [this]
        {
          RunParts(m_CallSize,
                   [this](int, int from, int size)
                   {
                     std::vector<at::Tensor> inputs;
                     for (const auto& in : m_Inputs)
                     {
                       inputs.push_back(in.narrow(0, from, size));
                     }
                     Keep(Forward(inputs), from, size);
                   });
        });
  }

  /** Puts the outputs of a part in their place. */
  void Keep(const std::vector<at::Tensor>& outputs, int from, int size)
  {
    for (std::size_t k = 0; k < outputs.size(); ++k)
    {
      if (m_Outputs[k].defined())
      {
        m_Outputs[k].narrow(0, from, size).copy_(outputs[k].detach());
      }
    }
  }

  /** Runs all parts of a batch; those that do not fit memory once more, half as large, from then on. */
  void WithinMemory(const std::function<void()>& parts)
  {
    if (!m_Halved)
    {
      try
      {
        parts();
        return;
      }
      catch (const std::exception& e)
      {
        if (!IsOutOfMemory(e) || m_CallSize < 2)
        {
          throw Error(std::string("the model failed: ") + Brief(e) +
                      (IsOutOfMemory(e) ? " (not enough memory for one " + std::string(m_Pixels ? "pixel)" : "patch)") : std::string()));
        }
      }
      m_Halved = true;
      TensorMemory::Trim();
      const int half = (m_CallSize + 1) / 2;
      if (m_Warn)
      {
        m_Warn("out of memory with " + std::to_string(m_CallSize) + " " + m_Unit + " in a forward; going on with " + std::to_string(half) +
               " (the last bits of the map may change from here on)");
      }
      m_CallSize = half;
    }
    try
    {
      parts();
    }
    catch (const std::exception& e)
    {
      throw Error(std::string("the model failed: ") + Brief(e) +
                  (IsOutOfMemory(e) ? ". Half a batch does not fit either: give a smaller -batch, or close other programs." : ""));
    }
  }

  /** Takes the batch in parts of `size` samples (their number, first slot, size), the workers taking one after another. A part is one forward in one thread,
   * so that its result does not depend on the number of threads. */
  void RunParts(int size, const std::function<void(int, int, int)>& part)
  {
    std::atomic<int> next{0};
    std::exception_ptr failure;
    std::mutex failureMutex;
    const auto work = [&]
    {
      try
      {
        const AutogradMode mode(Differentiates());
        const FlushDenormal flush;
        at::set_num_threads(m_ForwardThreads);
        for (int first = next.fetch_add(size); first < m_Filled; first = next.fetch_add(size))
        {
          // The last part steps back, so that all have one shape.
          part(first / size, std::max(0, std::min(first, m_Batch - size)), size);
        }
      }
      catch (...)
      {
        std::lock_guard<std::mutex> lock(failureMutex);
        failure = std::current_exception();
        next = m_Filled;
      }
    };
    if (m_Workers == 1)
    {
      work();
    }
    else
    {
      for (int w = 0; w < m_Workers; ++w)
      {
        m_Pool->run(work);
      }
      m_Pool->waitWorkComplete();
    }
    if (failure)
    {
      std::rethrow_exception(failure);
    }
  }

  static BatchView View(const at::Tensor& t, const std::vector<Axis>& axes)
  {
    BatchView view;
    view.data = t.data_ptr<float>();
    view.channels = 1;
    for (std::size_t a = 0; a < axes.size(); ++a)
    {
      const std::ptrdiff_t stride = t.stride(static_cast<std::int64_t>(a));
      const int size = static_cast<int>(t.size(static_cast<std::int64_t>(a)));
      switch (axes[a])
      {
      case Axis::Batch:
        view.strideN = stride;
        break;
      case Axis::Time:
        view.strideT = stride;
        view.steps = size;
        break;
      case Axis::Bands:
        view.strideC = stride;
        view.channels = size;
        break;
      case Axis::Height:
        view.strideY = stride;
        break;
      case Axis::Width:
        view.strideX = stride;
        break;
      }
    }
    return view;
  }

  /** Is this an output of any shape that nobody looks at? */
  static bool Dropped(const ModelOutput& out) { return out.role == "aux" && out.channels == 0; }

  std::vector<Axis> OutputAxes() const
  {
    return m_Pixels ? std::vector<Axis>{Axis::Batch, Axis::Bands} : std::vector<Axis>{Axis::Batch, Axis::Bands, Axis::Height, Axis::Width};
  }

  std::vector<std::int64_t> OutputSizes(int batch, const ModelOutput& out) const
  {
    return m_Pixels ? std::vector<std::int64_t>{batch, out.channels} : std::vector<std::int64_t>{batch, out.channels, m_Side / out.scale, m_Side / out.scale};
  }

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

  /** Rounds weights and buffers. Integers (of indices, say) stay what they are. */
  void SetPrecision()
  {
    at::NoGradGuard guard;
    const auto round = [this](const at::Tensor& t)
    {
      if (t.is_floating_point())
      {
        t.set_data(t.to(m_Type));
      }
    };
    for (const at::Tensor& t : m_Module.parameters())
    {
      round(t);
    }
    for (const at::Tensor& t : m_Module.buffers())
    {
      round(t);
    }
  }

  void Load(RuntimeReport& report)
  {
    const std::string& file = m_File;
    try
    {
      m_Module = torch::jit::load(file, m_Device);
      m_Module.eval();
      if (m_Type != at::kFloat)
      {
        SetPrecision(); // before freezing, which makes constants of the weights
      }
      if (!m_Module.find_method(m_Method))
      {
        throw Error(LacksMethod(m_Method));
      }
      Settle();
    }
    catch (const Error&)
    {
      throw;
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
    const auto graphs = Graphs();
    for (std::size_t k = 0; m_Rowwise && k < graphs.size(); ++k)
    {
      MakeRowwise(*graphs[k], graphs[k]->block());
    }
    report.bytesBase = TensorMemory::InUse() - std::min(m_Before, TensorMemory::InUse());
    // Group normalisation in channels-last loses a digit (5e-5 instead of 2e-6 on logits with LibTorch 1.13).
    const std::vector<Axis> image = {Axis::Batch, Axis::Bands, Axis::Height, Axis::Width}, scalar = {Axis::Batch};
    const bool images = !m_Plain && std::all_of(m_Contract.inputs.begin(), m_Contract.inputs.end(),
                                                [&](const ModelInput& in) { return in.axes == image || in.axes == scalar; });
    m_ChannelsLast = images && HasNode(graphs[0]->block(), {"conv2d", "_convolution"}) && !HasNode(graphs[0]->block(), {"group_norm", "instance_norm"});
  }

  /** Makes of the module what is run. */
  virtual void Settle()
  {
    if (m_Method == "forward")
    {
      m_Module = torch::jit::freeze(m_Module);
      return;
    }
    m_Module = torch::jit::freeze(m_Module, std::vector<std::string>{m_Method});
    auto graph = m_Module.get_method(m_Method).graph();
    torch::jit::OptimizeFrozenGraph(graph); // freeze() does it for forward() alone
    // forward() cannot be left out, but its weights, which are constants in it now, can.
    const auto forward = m_Module.get_method("forward").graph();
    while (!forward->outputs().empty())
    {
      forward->eraseOutput(forward->outputs().size() - 1);
    }
    torch::jit::EliminateDeadCode(forward);
  }

  /** Graphs that are run; the network itself first. */
  virtual std::vector<std::shared_ptr<torch::jit::Graph>> Graphs() const { return {m_Module.get_method(m_Method).graph()}; }

  /** Calls the network. */
  virtual c10::IValue Call(std::vector<c10::IValue> arguments) { return m_Module.get_method(m_Method)(std::move(arguments)); }

  std::string LacksMethod(const std::string& method) const
  {
    std::vector<std::string> names;
    for (const auto& other : m_Module.get_methods())
    {
      names.push_back(other.name());
    }
    return Complaint("model", "\"" + m_File + "\", whose module has " + (names.empty() ? "no methods" : "the methods " + Join(names)),
                     "the method \"" + method + "\", as in the contract",
                     "Mark it with @torch.jit.export and export the model again, or correct the contract.");
  }

  std::vector<std::int64_t> InputSizes(int batch, const ModelInput& in) const
  {
    std::vector<std::int64_t> sizes;
    for (const Axis axis : in.axes)
    {
      switch (axis)
      {
      case Axis::Batch:
        sizes.push_back(batch);
        break;
      case Axis::Time:
        sizes.push_back(in.steps);
        break;
      case Axis::Bands:
        sizes.push_back(Channels(in));
        break;
      default:
        sizes.push_back(m_Side / in.scale);
      }
    }
    return sizes;
  }

  std::int64_t Channels(const ModelInput& in) const
  {
    if (in.role == "latlon")
    {
      return 2;
    }
    if (in.channels > 0)
    {
      return in.channels;
    }
    return static_cast<std::int64_t>(in.role == "valid" && in.of >= 0 ? m_Contract.inputs[in.of].bands.size() : in.bands.size());
  }

  /** Inputs of a batch, zeros. */
  std::vector<at::Tensor> Zeros(int batch) const
  {
    std::vector<at::Tensor> inputs;
    for (const auto& in : m_Contract.inputs)
    {
      if (!in.argument) // the last one
      {
        break;
      }
      inputs.push_back(Layout(at::zeros(InputSizes(batch, in), at::TensorOptions().dtype(at::kFloat))));
    }
    return inputs;
  }

  /** A tensor in the layout that the network is given. */
  at::Tensor Layout(const at::Tensor& t) const { return m_ChannelsLast && t.dim() == 4 ? t.contiguous(at::MemoryFormat::ChannelsLast) : t; }

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

  /** Inputs as the network wants them. */
  std::vector<c10::IValue> Arguments(const std::vector<at::Tensor>& inputs) const
  {
    std::vector<c10::IValue> arguments;
    for (std::size_t k = 0; k < inputs.size(); ++k)
    {
      const at::ScalarType type = Type(m_Contract.inputs[k].type);
      arguments.emplace_back(m_Device.is_cpu() && type == at::kFloat ? inputs[k] : inputs[k].to(m_Device, type));
    }
    return arguments;
  }

  std::vector<at::Tensor> Forward(const std::vector<at::Tensor>& inputs)
  {
    auto tensors = Tensors(Call(Arguments(inputs)));
    for (std::size_t k = 0; k < tensors.size(); ++k)
    {
      at::Tensor& t = tensors[k];
      if (k < m_Contract.outputs.size() && Dropped(m_Contract.outputs[k]))
      {
        continue;
      }
      if (!t.device().is_cpu() || t.scalar_type() != at::kFloat)
      {
        t = t.to(at::kCPU, at::kFloat);
      }
    }
    return tensors;
  }

  at::ScalarType Type(ElementType type) const
  {
    switch (type)
    {
    case ElementType::Int64:
      return at::kLong;
    case ElementType::UInt8:
      return at::kByte;
    case ElementType::Bool:
      return at::kBool;
    case ElementType::Float32:
      break;
    }
    return m_Type;
  }

  /** Samples of the smallest batch that is looked at. */
  int Least() const { return m_Pixels ? 256 : 2; }

  /** What runs, for messages. */
  std::string Name() const { return m_Method == "forward" ? "the network" : "the method \"" + m_Method + "\""; }

  /** Where the contract says so, for messages. */
  std::string Declared(const std::string& output) const
  {
    return m_Method == "forward" ? ", as in /properties/mlm:output" + output + " of the contract" : ", as the contract says of this method";
  }

  /** Runs the model once and compares what comes out with what the contract says. */
  void DryRun(RuntimeReport& report)
  {
    const AutogradMode mode(Differentiates());
    std::vector<at::Tensor> out;
    for (;;)
    {
      try
      {
        out = Forward(Zeros(Least()));
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
          std::ostringstream sizes;
          for (const auto size : InputSizes(Least(), in))
          {
            sizes << (sizes.str().empty() ? "" : " x ") << size;
          }
          shapes += (shapes.empty() ? "" : ", ") + in.name + " " + sizes.str();
        }
        throw Error(Complaint("model", "that " + Name() + " does not run on the inputs of its contract (" + shapes + "): " + Brief(e),
                              "a network and a contract that agree", "Compare with `python3 -m otbtorch validate`."));
      }
    }
    report.memoryFormat = m_ChannelsLast ? "channels-last" : "contiguous";
    const auto& declared = m_Contract.outputs;
    if (out.size() != declared.size())
    {
      throw Error(Complaint("model", "that " + Name() + " returns " + std::to_string(out.size()) + " tensor(s)", std::to_string(declared.size()) + Declared(""),
                            "Correct the contract."));
    }
    for (std::size_t k = 0; k < out.size(); ++k)
    {
      if (Dropped(declared[k]))
      {
        continue;
      }
      const auto expected = OutputSizes(Least(), declared[k]);
      if (out[k].sizes().vec() != expected)
      {
        std::ostringstream found, wanted;
        found << "that " << (m_Method == "forward" ? "output \"" + declared[k].name + "\"" : "the result of " + Name()) << " has the shape " << out[k].sizes();
        wanted << at::IntArrayRef(expected) << Declared("/" + std::to_string(k));
        throw Error(Complaint("model", found.str(), wanted.str(), m_Pixels ? "Correct the contract." : "Correct the contract, or the network's padding."));
      }
    }
  }

  /** Two different samples in every slot, alternating; the first one in slot `first`. */
  virtual std::vector<at::Tensor> TestPattern(int batch, int first) const
  {
    auto inputs = Zeros(batch);
    for (std::size_t k = 0; k < inputs.size(); ++k)
    {
      const ModelInput& in = m_Contract.inputs[k];
      if (in.role == "valid")
      {
        inputs[k].fill_(in.maskedIsOne ? 0. : 1.);
        continue;
      }
      if (in.role == "dates")
      {
        inputs[k].copy_(at::arange(in.steps, at::kFloat).expand_as(inputs[k]));
        continue;
      }
      if (in.role == "month")
      {
        continue;
      }
      if (in.role == "diffusion_time" || in.role == "condition_flag" || in.role == "token_mask")
      {
        Alternate(inputs[k], first, RoleValue(in, 0), RoleValue(in, 1));
        continue;
      }
      Wave(inputs[k], first, static_cast<double>(k));
    }
    return inputs;
  }

  /** One of two values of an input that is not an image. */
  at::Tensor RoleValue(const ModelInput& in, int sample) const
  {
    if (in.role == "token_mask")
    {
      // Every other token is visible, or the others are.
      const int token = m_Contract.masked ? m_Contract.masked->patch : 1;
      const auto rows = at::arange(m_Side).floor_divide(token).reshape({-1, 1}), columns = at::arange(m_Side).floor_divide(token);
      return (rows + columns + sample).remainder(2).to(at::kFloat);
    }
    double value = sample; // a flag
    if (in.role == "diffusion_time")
    {
      const int steps = m_Contract.generative ? std::max(1, m_Contract.generative->noise.steps) : 1000;
      value = in.type == ElementType::Int64 ? (sample == 0 ? 300 : 700) % steps : sample == 0 ? .3 : .7;
    }
    return at::full({}, value, at::TensorOptions().dtype(at::kFloat));
  }

  static void Alternate(at::Tensor& slots, int first, const at::Tensor& even, const at::Tensor& odd)
  {
    for (std::int64_t n = 0; n < slots.size(0); ++n)
    {
      slots[n].copy_((n + first) % 2 == 0 ? even : odd);
    }
  }

  /** Any fixed pattern will do: it must exercise rounding, not the network's knowledge. */
  static void Wave(at::Tensor& slots, int first, double phase)
  {
    const auto wave = at::arange(slots.numel() / slots.size(0), at::kFloat).reshape(slots[0].sizes());
    Alternate(slots, first, at::sin(wave * .731 + phase), at::sin(wave * 1.177 + phase));
  }

  /** Are the outputs of each slot those of the reference (slots 0 and 1 of a batch of two), bit for bit? */
  bool SameBits(const std::vector<at::Tensor>& reference, const std::vector<at::Tensor>& out, int first) const
  {
    for (std::size_t k = 0; k < out.size(); ++k)
    {
      if (k < m_Contract.outputs.size() && Dropped(m_Contract.outputs[k]))
      {
        continue;
      }
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

  static std::vector<at::Tensor> CloneOf(std::vector<at::Tensor> tensors)
  {
    for (auto& t : tensors)
    {
      t = t.clone();
    }
    return tensors;
  }

  /** Seconds of the faster of two forwards. */
  double Seconds(const std::vector<at::Tensor>& inputs)
  {
    double best = 1e30;
    for (int run = 0; run < 2; ++run)
    {
      const auto start = Clock::now();
      Trial(inputs);
      best = std::min(best, Since(start));
    }
    return best;
  }

  /** Settles how many samples a forward takes and how many forwards run side by side, within the memory given. */
  void ChooseBatch(const RuntimeOptions& options, RuntimeReport& report)
  {
    const AutogradMode mode(Differentiates());
    const FlushDenormal flush; // as in the run
    // The profiling executor specialises during the first two calls: the dry run was the first, if it had this size.
    const int least = options.batch > 0 ? options.batch : Least();
    const auto inputs = TestPattern(least, 0);
    Trial(inputs);
    if (least > 1 && m_Device.is_cpu() && m_Type == at::kFloat && !SameBits(CloneOf(Trial(inputs)), Trial(TestPattern(least, 1)), 1))
    {
      // A graph that has run cannot be changed any more.
      m_Rowwise = true;
      Load(report);
      Trial(inputs);
      Trial(inputs);
    }
    TensorMemory::ResetPeak();
    auto start = Clock::now();
    auto reference = Trial(inputs);
    double best = Since(start) / least;
    report.bytesPerSample = (TensorMemory::Peak() - std::min(TensorMemory::Peak(), m_Before + report.bytesBase)) / least;
    for (auto& t : reference)
    {
      t = t.clone();
    }
    if (least > 1)
    {
      const auto swapped = TestPattern(least, 1);
      start = Clock::now();
      const auto outputs = Trial(swapped);
      best = std::min(best, Since(start) / least);
      if (!SameBits(reference, outputs, 1))
      {
        report.warnings.push_back("the model's output depends on the place in the batch: the map may differ in the last bits from one tiling to another");
      }
    }
    m_CallSize = least;

    // Memory: forwards side by side first, then larger ones.
    const std::size_t room = options.memory > report.bytesBase ? options.memory - report.bytesBase : 0;
    const auto fits = [&](std::size_t samples) { return options.memory == 0 || samples * report.bytesPerSample <= room; };
    if (!fits(least))
    {
      std::ostringstream warning;
      warning << "one forward of " << least << " " << m_Unit << " needs " << ((report.bytesBase + least * report.bytesPerSample) >> 20)
              << " MB, more than -ram leaves for tensors (" << (options.memory >> 20) << " MB)";
      report.warnings.push_back(warning.str());
    }
    // Pixels can share memory in smaller forwards, which beats threads inside one: those wait for each other, busily.
    for (int size = least / 2; m_Pixels && options.batch == 0 && size >= 16 && !fits(static_cast<std::size_t>(m_Workers) * m_CallSize); size /= 2)
    {
      if (fits(static_cast<std::size_t>(m_Workers) * size) && SameBits(reference, Trial(TestPattern(size, 0)), 0))
      {
        m_CallSize = size;
      }
    }
    while (m_Workers > 1 && !fits(static_cast<std::size_t>(m_Workers) * m_CallSize))
    {
      --m_Workers;
    }
    if (m_Workers < m_Threads && m_Device.is_cpu())
    {
      const int inside = m_Threads / m_Workers;
      SetThreadsOfAForward(inside);
      const bool same = SameBits(reference, Trial(inputs), 0);
      m_ForwardThreads = same ? inside : 1;
      SetThreadsOfAForward(m_ForwardThreads);
      if (!same)
      {
        std::ostringstream warning;
        warning << "-ram leaves room for " << m_Workers << " forward(s) at a time, and this model rounds differently with several threads in one: " << m_Workers
                << " of " << m_Threads << " threads are used. Give -ram "
                << 2 * ((report.bytesBase + static_cast<std::size_t>(m_Threads) * least * report.bytesPerSample) >> 20) + 2 << " to use all";
        report.warnings.push_back(warning.str());
      }
    }

    std::ostringstream reason;
    if (options.batch > 0)
    {
      reason << "as asked";
    }
    else
    {
      const double scale = m_Pixels ? 1e6 : 1e3;
      reason << std::fixed << std::setprecision(1) << "measured, " << (m_Pixels ? "us a pixel: " : "ms a patch: ") << least << ": " << best * scale;
      if (m_CallSize < least)
      {
        reason << "; " << m_CallSize << ": what -ram leaves for " << m_Workers << " at a time";
      }
      const int largest = m_CallSize < least ? 0 : 32 * least;
      for (int size = 2 * least; size <= largest; size *= 2)
      {
        if (!fits(static_cast<std::size_t>(m_Workers) * size))
        {
          reason << "; " << size << ": more than -ram leaves for tensors";
          break;
        }
        // Three forwards must be worth their while: 1 % of the whole job.
        if (options.samples > 0 && 3. * size * m_Workers > .01 * static_cast<double>(options.samples))
        {
          reason << "; more is not worth measuring for " << options.samples << " " << m_Unit;
          break;
        }
        const auto probe = TestPattern(size, 0);
        double seconds = 0.;
        try
        {
          if (!SameBits(reference, Trial(probe), 0))
          {
            reason << "; " << size << ": rounds differently";
            continue;
          }
          seconds = Seconds(probe) / size;
        }
        catch (const std::exception& e)
        {
          if (!IsOutOfMemory(e))
          {
            throw;
          }
          reason << "; " << size << ": out of memory";
          break;
        }
        reason << ", " << size << ": " << seconds * scale;
        if (seconds > best * .97)
        {
          break;
        }
        best = seconds;
        m_CallSize = size;
      }
    }
    report.batch = m_CallSize;
    report.batchReason = reason.str();
    report.workers = m_Workers;
    report.secondsPerSample = best / m_Workers;
  }

  virtual void Allocate()
  {
    m_Batch = m_CallSize * m_Workers;
    if (m_Pixels && !Differentiates()) // the graphs of all parts are kept
    {
      // Several forwards a batch: what is done around a batch, in threads, is worth their start only for some thousands of pixels.
      std::size_t bytes = 0;
      for (const auto& in : m_Contract.inputs)
      {
        const auto sizes = InputSizes(1, in);
        bytes += sizeof(float) * static_cast<std::size_t>(std::accumulate(sizes.begin(), sizes.end(), std::int64_t(1), std::multiplies<>()));
      }
      const std::size_t pixels = std::min<std::size_t>(4096, (std::size_t(16) << 20) / std::max<std::size_t>(bytes, 1));
      m_Batch *= static_cast<int>(std::max<std::size_t>(1, pixels / m_Batch));
    }
    m_Inputs = Zeros(m_Batch);
    for (const auto& out : m_Contract.outputs)
    {
      m_Outputs.push_back(Dropped(out) ? at::Tensor() : at::zeros(OutputSizes(m_Batch, out), at::TensorOptions().dtype(at::kFloat)));
    }
    if (m_Workers > 1)
    {
      m_Pool = std::make_unique<c10::TaskThreadPool>(m_Workers);
    }
  }

  std::string m_File;
  ModelContract m_Contract;
  std::string m_Method;
  bool m_Rowwise = false; ///< are matrix products done where a row's place does not matter?
  bool m_Pixels;          ///< is a sample a pixel (with a window), or a patch?
  int m_Side;             ///< of the patch or window
  std::string m_Unit;     ///< for messages
  bool m_Plain;           ///< no channels-last
  std::function<void(const std::string&)> m_Warn;
  int m_Batch = 0;
  int m_Threads = 1;
  std::shared_ptr<HostThreads> m_HostThreads = HostThreads::Keep();
  std::size_t m_Before = 0; ///< memory of others' tensors
  int m_Workers = 1;
  int m_ForwardThreads = 1; ///< inside one forward
  int m_CallSize = 1;       ///< samples of one forward
  int m_Filled = 0;         ///< slots that count in this run
  std::unique_ptr<c10::TaskThreadPool> m_Pool;
  bool m_Halved = false;
  bool m_ChannelsLast = false;
  at::Device m_Device{at::kCPU};
  at::ScalarType m_Type = at::kFloat;
  torch::jit::script::Module m_Module;
  std::vector<at::Tensor> m_Inputs;
  std::vector<at::Tensor> m_Outputs;
};

/** A model behind the interface of a predictor. */
template <class Interface>
class Runs : public Interface, protected TorchModel
{
public:
  using TorchModel::Prepare;
  using TorchModel::TorchModel;

  int BatchSize() const override { return m_Batch; }
  int CallSize() const override { return m_CallSize; }
  BatchView Input(int k) override { return View(m_Inputs[k], m_Contract.inputs[k].axes); }
  int Outputs() const override { return static_cast<int>(m_Contract.outputs.size()); }
  BatchView Output(int k) override { return m_Outputs[k].defined() ? View(m_Outputs[k], OutputAxes()) : BatchView(); }
  void Run(int filled) override { RunForward(filled); }
};

using TorchPredictor = Runs<Predictor>;

/** \brief A model and the product of a vector with its Jacobian: by autograd through the graph as it was saved, or by its method div().
 *
 * Freezing would put operators of oneDNN in the graph that have no derivative. Graphs of the parts of a batch are kept until the next run; where memory ran out
 * once, they are made anew for every product instead. */
class TorchDifferentiable : public Runs<DifferentiablePredictor>
{
public:
  using Runs::Runs;

  ~TorchDifferentiable() override { m_Parts.clear(); }

  BatchView Probe() override { return View(m_Probe, OutputAxes()); }

  void Run(int filled) override
  {
    m_Parts.clear();
    // Graphs refer to what they were made from, which the caller may fill anew.
    for (std::size_t k = 0; k < m_Inputs.size(); ++k)
    {
      m_Taken[k].copy_(m_Inputs[k]);
    }
    m_Filled = filled;
    WithinMemory(
        [this]
        {
          ClearParts();
          RunParts(m_CallSize,
                   [this](int part, int from, int size)
                   {
                     std::vector<at::Tensor> outputs;
                     Part made = Differentiable(Taken(from, size), outputs);
                     Keep(outputs, from, size);
                     if (!m_Halved)
                     {
                       m_Parts[part] = std::move(made);
                     }
                   });
        });
  }

  BatchView Pullback() override
  {
    if (m_Filled == 0)
    {
      throw Error("a product with the Jacobian was asked for before a run");
    }
    WithinMemory(
        [this]
        {
          if (m_Halved)
          {
            ClearParts();
          }
          RunParts(m_CallSize,
                   [this](int part, int from, int size)
                   {
                     const auto inputs = Taken(from, size);
                     std::vector<at::Tensor> outputs;
                     const Part made = m_Parts[part].y.defined() || m_Div ? m_Parts[part] : Differentiable(inputs, outputs);
                     m_Product.narrow(0, from, size).copy_(Product(inputs, made, m_Probe.narrow(0, from, size)));
                   });
        });
    return View(m_Product, m_Contract.inputs[0].axes);
  }

protected:
  bool Differentiates() const override { return true; }

  void Settle() override
  {
    for (const at::Tensor& t : m_Module.parameters())
    {
      t.set_requires_grad(false);
    }
    m_Forward = Inlined("forward");
    if (m_Contract.FindMethod("div"))
    {
      if (!m_Module.find_method("div"))
      {
        throw Error(LacksMethod("div"));
      }
      m_Div = Inlined("div");
    }
  }

  std::vector<std::shared_ptr<torch::jit::Graph>> Graphs() const override
  {
    std::vector<std::shared_ptr<torch::jit::Graph>> graphs = {m_Forward->graph()};
    if (m_Div)
    {
      graphs.push_back(m_Div->graph());
    }
    return graphs;
  }

  c10::IValue Call(std::vector<c10::IValue> arguments) override { return CallFunction(*m_Forward, std::move(arguments)); }

  /** Differentiates once: what cannot be is found here, and not in the middle of a map. */
  void Check() override
  {
    const AutogradMode mode(true);
    const FlushDenormal flush;
    auto inputs = TestPattern(Least(), 0);
    const auto e = inputs.back();
    inputs.pop_back();
    try
    {
      std::vector<at::Tensor> outputs;
      const Part part = Differentiable(inputs, outputs);
      if (!m_Div && !part.y.requires_grad())
      {
        throw Error("its output carries no gradient: it was exported under torch.no_grad, detached, or made of integers");
      }
      Product(inputs, part, e);
      const auto product = Product(inputs, part, e);
      if (m_Div && m_Type == at::kFloat)
      {
        CompareWithDifferences(inputs, e, product);
      }
      Product(inputs, part, e); // the graph must outlive the first
    }
    catch (const std::exception& e)
    {
      if (IsOutOfMemory(e))
      {
        throw;
      }
      throw Error(Complaint("model", "that \"" + m_File + "\" cannot be differentiated" + (m_Div ? " with its method div" : "") + " (" + Brief(e) + ")",
                            "-estimator loglik needs a network that autograd can follow",
                            "Export it without torch.no_grad, or with a method div, or choose -estimator pmi or latent."));
    }
  }

  void Allocate() override
  {
    Runs::Allocate();
    for (const auto& in : m_Inputs)
    {
      m_Taken.push_back(at::zeros_like(in));
    }
    m_Probe = Layout(at::zeros_like(m_Outputs[0]));
    m_Product = at::zeros_like(m_Inputs[0]);
  }

  /** A forward and a product: inputs and, last, the probe. */
  std::vector<at::Tensor> Trial(const std::vector<at::Tensor>& pattern) override
  {
    const std::vector<at::Tensor> inputs(pattern.begin(), pattern.end() - 1);
    std::vector<at::Tensor> outputs;
    const Part part = Differentiable(inputs, outputs);
    outputs.push_back(Product(inputs, part, pattern.back()));
    return outputs;
  }

  std::vector<at::Tensor> TestPattern(int batch, int first) const override
  {
    auto pattern = Runs::TestPattern(batch, first);
    auto e = Layout(at::zeros(OutputSizes(batch, m_Contract.outputs[0]), at::TensorOptions().dtype(at::kFloat)));
    Wave(e, first, .5);
    pattern.push_back(e);
    return pattern;
  }

private:
  /** The two ends of a graph. */
  struct Part
  {
    at::Tensor x;
    at::Tensor y;
  };

  using Function = torch::jit::GraphFunction;

  /** A method with all that it calls, as saved. */
  std::unique_ptr<Function> Inlined(const std::string& name) const
  {
    const auto method = m_Module.get_method(name);
    auto graph = method.graph()->copy();
    const torch::jit::GraphOptimizerEnabledGuard all(true); // else only the outermost calls
    torch::jit::Inline(*graph);
    auto function = std::make_unique<Function>(c10::QualifiedName(name), graph, nullptr);
    function->setSchema(method.function().getSchema());
    return function;
  }

  c10::IValue CallFunction(Function& function, std::vector<c10::IValue> arguments) const
  {
    arguments.insert(arguments.begin(), m_Module._ivalue());
    return function(std::move(arguments));
  }

  /** Runs the network so that output 0 can be differentiated. \param outputs out: cut off from the graph */
  Part Differentiable(std::vector<at::Tensor> inputs, std::vector<at::Tensor>& outputs)
  {
    Part part;
    part.x = inputs[0].detach();
    if (!m_Div)
    {
      part.x.set_requires_grad(true);
    }
    inputs[0] = part.x;
    outputs = Forward(inputs);
    part.y = outputs[0];
    for (auto& t : outputs)
    {
      t = t.detach();
    }
    return part;
  }

  /** e^T J of a part. */
  at::Tensor Product(const std::vector<at::Tensor>& inputs, const Part& part, const at::Tensor& e)
  {
    if (!m_Div)
    {
      auto gradient = torch::autograd::grad({part.y}, {part.x}, {e}, true, false, true)[0];
      if (!gradient.defined())
      {
        throw Error("its output does not depend on its first input in a way that has a derivative");
      }
      return gradient;
    }
    // div(x, t, e[, cond]): e behind the time, else behind x
    auto arguments = Arguments(inputs);
    std::size_t at = 1;
    for (std::size_t k = 0; k < arguments.size(); ++k)
    {
      at = m_Contract.inputs[k].role == "diffusion_time" ? k + 1 : at;
    }
    arguments.insert(arguments.begin() + static_cast<std::ptrdiff_t>(at), e.to(m_Device, m_Type));
    const auto value = CallFunction(*m_Div, std::move(arguments));
    if (!value.isTensor())
    {
      throw Error("it returns something that is not a tensor");
    }
    const auto product = value.toTensor().detach().to(at::kCPU, at::kFloat);
    if (product.sizes() != inputs[0].sizes())
    {
      std::ostringstream text;
      text << "it returns the shape " << product.sizes() << " for an input of " << inputs[0].sizes();
      throw Error(text.str());
    }
    return product;
  }

  /** A method div that returns something else, J e say, would go unnoticed. Compared along its own direction, where nothing cancels. */
  void CompareWithDifferences(std::vector<at::Tensor> inputs, const at::Tensor& e, const at::Tensor& product)
  {
    constexpr double step = 1. / 64, tolerance = .1; // of networks that are not smooth
    const double largest = product.abs().max().item<double>();
    const auto move = product * (largest > 0. ? step / largest : 0.);
    const auto x = inputs[0];
    inputs[0] = x + move;
    const auto above = Forward(inputs)[0];
    inputs[0] = x - move;
    const double found = (product * move).sum(at::kDouble).item<double>(), expected = ((above - Forward(inputs)[0]) * e).sum(at::kDouble).item<double>() / 2.;
    if (!(std::abs(found - expected) <= tolerance * std::abs(found)))
    {
      std::ostringstream text;
      text << "it is not e^T J: along its own direction it gives " << found << ", differences of forward() " << expected;
      throw Error(text.str());
    }
  }

  std::vector<at::Tensor> Taken(int from, int size) const
  {
    std::vector<at::Tensor> inputs;
    for (const auto& t : m_Taken)
    {
      inputs.push_back(t.narrow(0, from, size));
    }
    return inputs;
  }

  void ClearParts() { m_Parts.assign((m_Filled + m_CallSize - 1) / m_CallSize, Part()); }

  std::unique_ptr<Function> m_Forward;
  std::unique_ptr<Function> m_Div; ///< null: autograd
  std::vector<at::Tensor> m_Taken; ///< the inputs of the last run
  std::vector<Part> m_Parts;
  at::Tensor m_Probe;
  at::Tensor m_Product;
};

/** Makes a model, and of everything that goes wrong an Error. */
template <class Made>
std::unique_ptr<Made> Prepared(const std::string& modelFile, const ModelContract& contract, const std::string& method, const RuntimeOptions& options,
                               RuntimeReport& report)
{
  try
  {
    auto made = std::make_unique<Made>(modelFile, contract, method, options, report);
    made->Prepare(options, report);
    return made;
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

/** The contract of a method, as if it were the network: what it takes and gives. */
ModelContract ContractOfMethod(const std::string& modelFile, const ModelContract& contract, const std::string& method)
{
  const MethodSpec* spec = contract.FindMethod(method);
  if (!spec)
  {
    throw Error(Complaint("model", "that the contract of \"" + modelFile + "\" declares no method \"" + method + "\"", "one with its channels and scale", ""));
  }
  const auto image = std::find_if(contract.inputs.begin(), contract.inputs.end(), [](const ModelInput& in) { return in.role == "image"; });
  if (image == contract.inputs.end())
  {
    throw Error(Complaint("model", "that the contract of \"" + modelFile + "\" has no input of role image, which its methods are about", "one", ""));
  }
  ModelContract own = contract;
  ModelInput in = *image;
  in.argument = true;
  ModelOutput out;
  out.name = method;
  out.role = method;
  out.channels = spec->channels;
  out.scale = spec->scale;
  if (method == "decode")
  {
    const MethodSpec* encode = contract.FindMethod("encode");
    if (!encode)
    {
      throw Error(Complaint("model", "that the contract of \"" + modelFile + "\" declares decode, but no encode", "both", ""));
    }
    out.channels = static_cast<int>(image->bands.size());
    out.scale = 1;
    in.name = "latent";
    in.role = "latent";
    in.channels = encode->channels;
    in.scale = encode->scale;
  }
  own.inputs = {in};
  own.outputs = {out};
  return own;
}

std::unique_ptr<Predictor> Load(const std::string& modelFile, const ModelContract& contract, const RuntimeOptions& options, RuntimeReport& report)
{
  return Prepared<TorchPredictor>(modelFile, contract, "forward", options, report);
}

std::unique_ptr<Predictor> LoadOwnMethod(const std::string& modelFile, const ModelContract& contract, const std::string& method, const RuntimeOptions& options,
                                         RuntimeReport& report)
{
  return Prepared<TorchPredictor>(modelFile, ContractOfMethod(modelFile, contract, method), method, options, report);
}

std::unique_ptr<DifferentiablePredictor> LoadDerivative(const std::string& modelFile, const ModelContract& contract, const RuntimeOptions& options,
                                                        RuntimeReport& report)
{
  return Prepared<TorchDifferentiable>(modelFile, contract, "forward", options, report);
}

} // namespace

} // namespace dl
} // namespace otb

const otb::dl::TorchRuntime* otbdlTorchRuntime()
{
  static const otb::dl::TorchRuntime runtime = {&otb::dl::ReadContractOf, &otb::dl::Load, &otb::dl::LoadOwnMethod, &otb::dl::LoadDerivative};
  return &runtime;
}
