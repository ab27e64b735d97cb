/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// Methods of a module and derivatives of a network, against LibTorch itself.
#include "otbDLRuntime.h"
#include "otbDLTensorMemory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/script.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <set>
#include <string>
#include <vector>

namespace
{

using namespace otb::dl;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr int patch = 32;
constexpr int bands = 4;
const std::vector<Axis> image = {Axis::Batch, Axis::Bands, Axis::Height, Axis::Width};

std::string Model(const std::string& name)
{
  return std::string(OTBDL_MODELS) + "/" + name;
}

template <typename F>
std::string MessageOf(F&& call)
{
  try
  {
    call();
  }
  catch (const Error& e)
  {
    return e.what();
  }
  return "";
}

ModelInput InputOf(const std::string& role, const std::vector<Axis>& axes)
{
  ModelInput in;
  in.name = in.role = role;
  in.axes = axes;
  if (axes == image)
  {
    in.bands = {"B02", "B03", "B04", "B08"};
    in.scaling.resize(in.bands.size());
  }
  return in;
}

ModelContract ContractOf(std::vector<ModelInput> inputs)
{
  ModelContract contract;
  contract.task = "change-likelihood";
  contract.inputs = std::move(inputs);
  ModelOutput out;
  out.name = out.role = "field";
  out.channels = bands;
  contract.outputs = {out};
  contract.tiling.patch = patch;
  contract.generative.emplace();
  return contract;
}

/** forward(x, t) */
ModelContract Plain()
{
  return ContractOf({InputOf("image", image), InputOf("diffusion_time", {Axis::Batch})});
}

/** forward(x, t, condition, flag), features, encode, decode */
ModelContract Flow()
{
  auto contract =
      ContractOf({InputOf("image", image), InputOf("diffusion_time", {Axis::Batch}), InputOf("condition", image), InputOf("condition_flag", {Axis::Batch})});
  contract.methods = {{"features", 16, 4}, {"encode", 6, 4}, {"decode", bands, 1}};
  return contract;
}

RuntimeOptions Options(int batch, int threads)
{
  RuntimeOptions o;
  o.device = "cpu";
  o.batch = batch;
  o.threads = threads;
  return o;
}

/** The slots of a view, as a tensor on the same memory. Without the axes that the view has not got. */
at::Tensor Tensor(const BatchView& view, int slots, int side)
{
  if (view.strideY == 0)
  {
    return at::from_blob(view.data, {slots}, {view.strideN}, at::kFloat);
  }
  return at::from_blob(view.data, {slots, view.channels, side, side}, {view.strideN, view.strideC, view.strideY, view.strideX}, at::kFloat);
}

/** Values that look random, those of slot n the same in every batch. */
at::Tensor Pattern(at::IntArrayRef sizes, double phase)
{
  std::int64_t each = 1;
  for (std::size_t d = 1; d < sizes.size(); ++d)
  {
    each *= sizes[d];
  }
  const auto n = at::arange(sizes[0], at::kDouble).reshape({-1, 1}), k = at::arange(each, at::kDouble).reshape({1, -1});
  return at::sin((k + 1.) * (1.37 + .11 * n) + phase).to(at::kFloat).reshape(sizes);
}

bool SameBits(const at::Tensor& a, const at::Tensor& b)
{
  const auto p = a.contiguous(), q = b.contiguous();
  return p.sizes() == q.sizes() && std::memcmp(p.data_ptr(), q.data_ptr(), p.nbytes()) == 0;
}

double Difference(const at::Tensor& a, const at::Tensor& b)
{
  return (a - b).abs().max().item<double>() / std::max(1., b.abs().max().item<double>());
}

using Arguments = std::vector<at::Tensor>;

Arguments FlowArguments(int n)
{
  const auto index = at::arange(n, at::kFloat);
  return {Pattern({n, bands, patch, patch}, 0.), (index * .3 + .2).remainder(1.), Pattern({n, bands, patch, patch}, 1.),
          (index + 1).remainder(3).clamp_max(1.)};
}

void Fill(Predictor& predictor, const Arguments& arguments)
{
  for (std::size_t k = 0; k < arguments.size(); ++k)
  {
    const auto& values = arguments[k];
    Tensor(predictor.Input(static_cast<int>(k)), static_cast<int>(values.size(0)), static_cast<int>(values.size(-1))).copy_(values);
  }
}

/** Of the first slots. */
at::Tensor Output(Predictor& predictor, int slots, int side = patch)
{
  return Tensor(predictor.Output(0), slots, side).clone();
}

at::Tensor Product(DifferentiablePredictor& predictor, const at::Tensor& e)
{
  const int slots = static_cast<int>(e.size(0));
  Tensor(predictor.Probe(), slots, patch).copy_(e);
  return Tensor(predictor.Pullback(), slots, patch).clone();
}

at::Tensor Probe(int n, double phase = 2.)
{
  return Pattern({n, bands, patch, patch}, phase);
}

/** The archive, run by LibTorch alone. */
struct Reference
{
  explicit Reference(const std::string& name) : module(torch::jit::load(Model(name)))
  {
    module.eval();
    for (const at::Tensor& t : module.parameters())
    {
      t.set_requires_grad(false);
    }
  }
  at::Tensor operator()(const std::string& method, const Arguments& arguments)
  {
    return module.get_method(method)(std::vector<c10::IValue>(arguments.begin(), arguments.end())).toTensor();
  }
  at::Tensor Product(Arguments arguments, const at::Tensor& e)
  {
    arguments[0] = arguments[0].detach().clone().set_requires_grad(true);
    return torch::autograd::grad({(*this)("forward", arguments)}, {arguments[0]}, {e})[0];
  }
  torch::jit::Module module;
};

template <class Made>
struct Of
{
  std::unique_ptr<Made> predictor;
  RuntimeReport report;
  Made* operator->() { return predictor.get(); }
  Made& operator*() { return *predictor; }
};

Of<Predictor> Method(const std::string& method, const RuntimeOptions& options, const ModelContract& contract = Flow(), const std::string& name = "flow.pt")
{
  Of<Predictor> made;
  made.predictor = LoadMethod(Model(name), contract, method, options, made.report);
  return made;
}

Of<DifferentiablePredictor> Differentiable(const std::string& name, const ModelContract& contract, const RuntimeOptions& options)
{
  Of<DifferentiablePredictor> made;
  made.predictor = LoadDifferentiable(Model(name), contract, options, made.report);
  return made;
}

struct MethodCase
{
  const char* name;
  int inputs;
  int inputSide;
  int outputs;
  int outputSide;
};

class MethodOf : public testing::TestWithParam<MethodCase>
{
};

TEST_P(MethodOf, AModuleGivesWhatItGivesInLibTorch)
{
  const auto& p = GetParam();
  auto m = Method(p.name, Options(3, 1));
  EXPECT_EQ(m->BatchSize(), 3);
  EXPECT_EQ(m->Outputs(), 1);
  EXPECT_EQ(m->Input(0).channels, p.inputs);
  EXPECT_EQ(m->Output(0).channels, p.outputs);
  const auto x = Pattern({3, p.inputs, p.inputSide, p.inputSide}, .4);
  Reference reference("flow.pt");
  for (int run = 0; run < 3; ++run)
  {
    const auto values = x * (1. + run);
    Fill(*m, {values});
    m->Run(3);
    EXPECT_LT(Difference(Output(*m, 3, p.outputSide), reference(p.name, {values})), 1e-6);
  }
}

TEST_P(MethodOf, AModuleGivesTheSameBitsWhateverTheBatchAndTheThreads)
{
  const auto& p = GetParam();
  const auto x = Pattern({4, p.inputs, p.inputSide, p.inputSide}, .4);
  at::Tensor first;
  for (const auto& options : {Options(2, 1), Options(2, 2), Options(4, 1), Options(0, 2), Options(0, 3)})
  {
    auto m = Method(p.name, options);
    at::Tensor all = at::zeros({4, p.outputs, p.outputSide, p.outputSide});
    const int size = std::min(m->BatchSize(), 4);
    for (int from = 0; from < 4; from += size)
    {
      const int filled = std::min(size, 4 - from);
      Fill(*m, {x.narrow(0, from, filled)});
      m->Run(filled);
      all.narrow(0, from, filled).copy_(Output(*m, filled, p.outputSide));
    }
    first = first.defined() ? first : all;
    EXPECT_TRUE(SameBits(all, first)) << options.batch << " " << options.threads << " " << Difference(all, first);
    EXPECT_TRUE(m.report.warnings.empty()) << m.report.warnings.front();
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, MethodOf,
                         testing::Values(MethodCase{"encode", bands, patch, 6, patch / 4}, MethodCase{"decode", 6, patch / 4, bands, patch},
                                         MethodCase{"features", bands, patch, 16, patch / 4}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Method, LeavesTheWeightsOfTheOthers)
{
  RuntimeReport whole;
  LoadPredictor(Model("flow.pt"), Flow(), Options(2, 1), whole);
  std::size_t parts = 0;
  for (const char* name : {"encode", "decode", "features"})
  {
    const std::size_t bytes = Method(name, Options(2, 1)).report.bytesBase;
    EXPECT_GT(bytes, 0u) << name;
    parts += bytes;
  }
  EXPECT_LT(parts, 2 * whole.bytesBase);
}

TEST(Method, MustExistAndGiveWhatTheContractSays)
{
  const auto message = [](const std::string& method, const std::function<void(ModelContract&)>& change, const std::string& name = "flow.pt")
  {
    auto contract = Flow();
    change(contract);
    return MessageOf([&] { Method(method, Options(2, 1), contract, name); });
  };
  EXPECT_THAT(message("absent",
                      [](ModelContract& c) {
                        c.methods.push_back({"absent", 4, 1});
                      }),
              AllOf(HasSubstr("model: found"), HasSubstr("flow.pt"), HasSubstr("features"), HasSubstr("encode"), HasSubstr("decode"), HasSubstr("\"absent\""),
                    HasSubstr("@torch.jit.export"), Not(HasSubstr("frame #"))));
  EXPECT_THAT(message("div", [](ModelContract&) {}), AllOf(HasSubstr("declares no method \"div\""), HasSubstr("flow.pt")));
  EXPECT_THAT(message("encode", [](ModelContract& c) { c.methods[1].channels = 5; }),
              AllOf(HasSubstr("the method \"encode\""), HasSubstr("[2, 6, 8, 8]"), HasSubstr("[2, 5, 8, 8]"), Not(HasSubstr("mlm:output"))));
  EXPECT_THAT(message("features", [](ModelContract& c) { c.methods[0].scale = 2; }), AllOf(HasSubstr("[2, 16, 8, 8]"), HasSubstr("[2, 16, 16, 16]")));
  EXPECT_THAT(message("decode", [](ModelContract& c) { c.methods[1].channels = 7; }),
              AllOf(HasSubstr("the method \"decode\" does not run"), HasSubstr("latent 2 x 7 x 8 x 8"), Not(HasSubstr("frame #"))));
  EXPECT_THAT(message("decode", [](ModelContract& c) { c.methods.erase(c.methods.begin() + 1); }), HasSubstr("no encode"));
  EXPECT_THAT(message("encode", [](ModelContract& c) { c.inputs[0].role = "regression"; }), HasSubstr("role image"));
  EXPECT_THAT(message(
                  "encode", [](ModelContract&) {}, "flow_div.pt"),
              AllOf(HasSubstr("flow_div.pt"), HasSubstr("the methods forward div")));
}

TEST(Field, TakesATimeAndAFlagForEachSlot)
{
  RuntimeReport report;
  const auto predictor = LoadPredictor(Model("flow.pt"), Flow(), Options(3, 1), report);
  const BatchView time = predictor->Input(1);
  EXPECT_EQ(time.channels, 1);
  EXPECT_EQ(time.strideN, 1);
  EXPECT_EQ(time.strideC, 0);
  const auto arguments = FlowArguments(3);
  Fill(*predictor, arguments);
  predictor->Run(3);
  EXPECT_LT(Difference(Output(*predictor, 3), Reference("flow.pt")("forward", arguments)), 1e-6);
}

TEST(Field, TakesATimeInSteps)
{
  auto contract = Flow();
  contract.inputs[1].type = ElementType::Int64;
  contract.generative->time = TimeArgument::DiscreteIndex;
  RuntimeReport report;
  const auto predictor = LoadPredictor(Model("flow.pt"), contract, Options(2, 1), report);
  auto arguments = FlowArguments(2);
  arguments[1] = at::tensor({999.f, 3.f});
  Fill(*predictor, arguments);
  predictor->Run(2);
  EXPECT_LT(Difference(Output(*predictor, 2), Reference("flow.pt")("forward", arguments)), 1e-5);
}

TEST(Derivative, IsThatOfAutograd)
{
  auto m = Differentiable("flow.pt", Flow(), Options(3, 1));
  EXPECT_TRUE(m.report.warnings.empty()) << m.report.warnings.front();
  Reference reference("flow.pt");
  for (int run = 0; run < 3; ++run)
  {
    auto arguments = FlowArguments(3);
    arguments[0] += .1 * run;
    Fill(*m, arguments);
    m->Run(3);
    EXPECT_LT(Difference(Output(*m, 3), reference("forward", arguments)), 1e-6);
    for (int probe = 0; probe < 3; ++probe)
    {
      const auto e = Probe(3, probe);
      const auto expected = reference.Product(arguments, e);
      EXPECT_GT(expected.abs().max().item<double>(), .05);
      EXPECT_LT(Difference(Product(*m, e), expected), 1e-6) << run << " " << probe;
    }
  }
}

TEST(Derivative, IsThatOfFiniteDifferences)
{
  constexpr double step = 1. / 256;
  auto m = Differentiable("flow.pt", Flow(), Options(2, 1));
  const auto arguments = FlowArguments(2);
  const auto e = Probe(2), direction = Pattern({2, bands, patch, patch}, 3.3).sign();
  Fill(*m, arguments);
  m->Run(2);
  const auto found = (Product(*m, e) * direction).sum({1, 2, 3}, false, at::kDouble);
  at::Tensor sides[2];
  for (int side = 0; side < 2; ++side)
  {
    auto moved = arguments;
    moved[0] = arguments[0] + (side == 0 ? -step : step) * direction;
    Fill(*m, moved);
    m->Run(2);
    sides[side] = (Output(*m, 2) * e).sum({1, 2, 3}, false, at::kDouble);
  }
  const auto expected = (sides[1] - sides[0]) / (2. * step);
  for (int n = 0; n < 2; ++n)
  {
    const double a = found[n].item<double>(), b = expected[n].item<double>();
    EXPECT_NEAR(a, b, 6e-4 * std::max(1., std::abs(b))) << n;
  }
}

TEST(Derivative, OfASlotDependsOnNoOther)
{
  auto m = Differentiable("flow.pt", Flow(), Options(4, 1));
  const auto arguments = FlowArguments(4);
  const auto e = Probe(4);
  Fill(*m, arguments);
  m->Run(4);
  const auto all = Product(*m, e);
  const auto outputs = Output(*m, 4);
  for (int n = 0; n < 4; ++n)
  {
    Arguments one;
    for (const auto& t : arguments)
    {
      one.push_back(t.narrow(0, n, 1));
    }
    Fill(*m, one);
    m->Run(1);
    EXPECT_TRUE(SameBits(Product(*m, e.narrow(0, n, 1)), all.narrow(0, n, 1))) << n;
    EXPECT_TRUE(SameBits(Output(*m, 1), outputs.narrow(0, n, 1))) << n;
  }
}

TEST(Derivative, HasTheSameBitsWhateverTheBatchAndTheThreads)
{
  const auto arguments = FlowArguments(6);
  const auto e = Probe(6);
  at::Tensor first;
  for (const auto& options : {Options(2, 1), Options(2, 2), Options(2, 3), Options(3, 2), Options(0, 1), Options(0, 2)})
  {
    auto m = Differentiable("flow.pt", Flow(), options);
    const int size = std::min(m->BatchSize(), 6);
    for (int repeat = 0; repeat < 3; ++repeat)
    {
      at::Tensor all = at::zeros({2, 6, bands, patch, patch});
      for (int from = 0; from < 6; from += size)
      {
        const int filled = std::min(size, 6 - from);
        Arguments some;
        for (const auto& t : arguments)
        {
          some.push_back(t.narrow(0, from, filled));
        }
        Fill(*m, some);
        m->Run(filled);
        all[0].narrow(0, from, filled).copy_(Output(*m, filled));
        all[1].narrow(0, from, filled).copy_(Product(*m, e.narrow(0, from, filled)));
      }
      first = first.defined() ? first : all;
      EXPECT_TRUE(SameBits(all, first)) << options.batch << " " << options.threads << " " << Difference(all, first);
    }
  }
}

TEST(Derivative, IsThatOfTheLastRunThoughItsInputsWereFilledAnew)
{
  auto m = Differentiable("flow.pt", Flow(), Options(2, 2));
  const auto arguments = FlowArguments(4);
  const auto e = Probe(4);
  Fill(*m, arguments);
  m->Run(4);
  const auto before = Product(*m, e);
  for (int k = 0; k < 4; ++k)
  {
    Tensor(m->Input(k), 4, patch).fill_(.77f);
  }
  Tensor(m->Output(0), 4, patch).fill_(-3.f);
  EXPECT_TRUE(SameBits(Product(*m, e), before));
  EXPECT_GT(Difference(Product(*m, Probe(4, 9.)), before), .01);
  EXPECT_TRUE(SameBits(Product(*m, e), before));
}

TEST(Derivative, BeforeARunIsRefused)
{
  auto m = Differentiable("flow.pt", Flow(), Options(2, 1));
  EXPECT_THAT(MessageOf([&] { m->Pullback(); }), HasSubstr("before a run"));
}

/** The pieces of forward(x, t) of flow_nograd.pt and flow_div.pt, by hand. */
at::Tensor ProductOfTanh(Reference& reference, const Arguments& arguments, const at::Tensor& e)
{
  const auto x = arguments[0].detach().clone().set_requires_grad(true);
  const auto conv = reference.module.attr("conv").toModule();
  const auto y = at::tanh(at::conv2d(x, conv.attr("weight").toTensor(), conv.attr("bias").toTensor(), 1, 1) + arguments[1].reshape({-1, 1, 1, 1}));
  return torch::autograd::grad({y}, {x}, {e})[0];
}

TEST(Derivative, IsThatOfTheMethodDivWhereThereIsOne)
{
  auto contract = Plain();
  contract.methods = {{"div", bands, 1}};
  Reference reference("flow_div.pt");
  const Arguments arguments = {Pattern({4, bands, patch, patch}, 0.), at::arange(4, at::kFloat) * .2};
  at::Tensor first;
  for (const int threads : {1, 2})
  {
    auto m = Differentiable("flow_div.pt", contract, Options(2, threads));
    Fill(*m, {arguments[0].narrow(0, 0, m->BatchSize()), arguments[1].narrow(0, 0, m->BatchSize())});
    m->Run(m->BatchSize());
    for (int probe = 0; probe < 3; ++probe)
    {
      const auto e = Probe(4, probe);
      Tensor(m->Input(0), 1, patch).fill_(7.f);
      const auto found = Product(*m, e.narrow(0, 0, m->BatchSize()));
      EXPECT_LT(Difference(found, ProductOfTanh(reference, arguments, e).narrow(0, 0, m->BatchSize())), 1e-6);
      first = first.defined() ? first : found;
      EXPECT_TRUE(probe > 0 || SameBits(found.narrow(0, 0, 2), first));
    }
  }
}

TEST(Derivative, OfWhatHasNoneIsRefusedAtOnce)
{
  const auto message = [](const std::string& name, const ModelContract& contract) { return MessageOf([&] { Differentiable(name, contract, Options(2, 1)); }); };
  // flow_div.pt hides from autograd as well: its method must be in the contract.
  for (const char* name : {"flow_nograd.pt", "flow_div.pt"})
  {
    EXPECT_THAT(message(name, Plain()),
                AllOf(HasSubstr("model: found that"), HasSubstr(name), HasSubstr("cannot be differentiated"), HasSubstr("-estimator loglik"),
                      HasSubstr("torch.no_grad"), HasSubstr("method div"), HasSubstr("-estimator pmi or latent"), Not(HasSubstr("frame #"))));
  }
  auto integers = Flow();
  integers.inputs[0].type = ElementType::Int64;
  EXPECT_THAT(message("flow.pt", integers), Not(testing::IsEmpty()));

  auto lacking = Flow();
  lacking.methods.push_back({"div", bands, 1});
  EXPECT_THAT(message("flow.pt", lacking), AllOf(HasSubstr("the method \"div\""), HasSubstr("flow.pt"), HasSubstr("encode")));

  auto other = Plain();
  other.outputs[0].channels = 2 * bands;
  EXPECT_THAT(message("flow_div.pt", other), AllOf(HasSubstr("[2, 4, 32, 32]"), HasSubstr("[2, 8, 32, 32]")));
}

TEST(Derivative, ByAMethodThatIsNotOneIsRefused)
{
  auto contract = Plain();
  contract.methods = {{"div", bands, 1}};
  EXPECT_THAT(MessageOf([&] { Differentiable("flow_wrongdiv.pt", contract, Options(2, 1)); }),
              AllOf(HasSubstr("flow_wrongdiv.pt"), HasSubstr("with its method div"), HasSubstr("not e^T J"), HasSubstr("differences of forward()")));
}

TEST(Derivative, OfConvolutionsAloneIsTakenInTheirLayout)
{
  auto contract = Plain();
  contract.methods = {{"div", bands, 1}};
  auto options = Options(2, 1);
  auto fast = Differentiable("flow_div.pt", contract, options);
  EXPECT_EQ(fast.report.memoryFormat, "channels-last");
  EXPECT_EQ(fast->Probe().strideC, 1);
  options.plainLayout = true;
  auto plain = Differentiable("flow_div.pt", contract, options);
  EXPECT_EQ(plain.report.memoryFormat, "contiguous");
  const Arguments arguments = {Pattern({2, bands, patch, patch}, 0.), at::tensor({.2f, .9f})};
  for (auto* m : {fast.predictor.get(), plain.predictor.get()})
  {
    Fill(*m, arguments);
    m->Run(2);
  }
  EXPECT_LT(Difference(Output(*fast, 2), Output(*plain, 2)), 1e-6);
  EXPECT_LT(Difference(Product(*fast, Probe(2)), Product(*plain, Probe(2))), 1e-6);
}

/** Puts a limit on tensors for the life of the object. */
class Limit
{
public:
  explicit Limit(std::size_t more) { TensorMemory::SetLimit(TensorMemory::InUse() + more); }
  ~Limit() { TensorMemory::SetLimit(0); }
};

TEST(DerivativeMemory, IsHeldUntilTheNextRunAndThenGivenBack)
{
  const auto arguments = FlowArguments(4);
  const auto e = Probe(4);
  Differentiable("flow.pt", Flow(), Options(2, 2)); // what LibTorch keeps for good
  const std::size_t outside = TensorMemory::InUse();
  {
    auto m = Differentiable("flow.pt", Flow(), Options(2, 2));
    const std::size_t loaded = TensorMemory::InUse();
    std::set<std::size_t> held;
    for (int run = 0; run < 4; ++run)
    {
      Fill(*m, arguments);
      m->Run(4);
      held.insert(TensorMemory::InUse());
      for (int probe = 0; probe < 3; ++probe)
      {
        Product(*m, e);
        held.insert(TensorMemory::InUse());
      }
    }
    EXPECT_EQ(held.size(), 1u);
    EXPECT_GT(*held.begin(), loaded);
  }
  EXPECT_EQ(TensorMemory::InUse(), outside);
}

TEST(DerivativeMemory, IsPlannedForWithinWhatIsGiven)
{
  auto free = Differentiable("flow.pt", Flow(), Options(0, 2));
  RuntimeReport forward;
  LoadPredictor(Model("flow.pt"), Flow(), Options(2, 1), forward);
  EXPECT_GT(free.report.bytesPerSample, forward.bytesPerSample);
  auto options = Options(2, 2);
  options.memory = free.report.bytesBase + 3 * free.report.bytesPerSample;
  EXPECT_EQ(Differentiable("flow.pt", Flow(), options).report.workers, 1);
}

TEST(DerivativeMemory, ThatRunsOutIsDoneWithInHalfBatchesWithoutGraphs)
{
  std::vector<std::string> warnings;
  auto options = Options(4, 1);
  options.warn = [&](const std::string& text) { warnings.push_back(text); };
  auto m = Differentiable("flow.pt", Flow(), options);
  const auto arguments = FlowArguments(4);
  const auto e = Probe(4);
  Fill(*m, arguments);
  const std::size_t idle = TensorMemory::InUse();
  TensorMemory::ResetPeak();
  m->Run(4);
  const std::size_t whole = TensorMemory::Peak() - idle;
  const auto outputs = Output(*m, 4), product = Product(*m, e);
  auto other = Differentiable("flow.pt", Flow(), options);
  Fill(*other, arguments);
  {
    const Limit limit(whole * 8 / 10);
    for (int run = 0; run < 2; ++run)
    {
      other->Run(4);
      EXPECT_LT(Difference(Output(*other, 4), outputs), 1e-6);
      EXPECT_LT(Difference(Product(*other, e), product), 1e-6);
    }
  }
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_THAT(warnings.front(), HasSubstr("out of memory with 4 patches in a forward; going on with 2"));
  const std::size_t after = TensorMemory::InUse();
  other->Run(4);
  EXPECT_EQ(TensorMemory::InUse(), after);
}

} // namespace
