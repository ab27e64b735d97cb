/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// Networks of time series, a few lines of script each, and ensembles of them.
#include "otbDLRuntime.h"

#include <ATen/Parallel.h>
#include <torch/script.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

namespace
{

using namespace otb::dl;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
namespace fs = std::filesystem;

constexpr int steps = 6, bands = 3;
const std::vector<Axis> btc = {Axis::Batch, Axis::Time, Axis::Bands}, bct = {Axis::Batch, Axis::Bands, Axis::Time}, bt = {Axis::Batch, Axis::Time};

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
  return "no error";
}

/** A series of `bands` bands. */
ModelInput Sits(const std::vector<Axis>& axes)
{
  ModelInput in;
  in.name = "x";
  in.role = "sits";
  in.bands = {"a", "b", "c"};
  in.scaling.resize(bands);
  in.sensors.assign(bands, 1);
  in.axes = axes;
  in.steps = steps;
  return in;
}

ModelInput With(const std::string& role, const std::vector<Axis>& axes, ElementType type)
{
  ModelInput in;
  in.name = in.role = role;
  in.of = role == "latlon" ? -1 : 0;
  in.axes = axes;
  in.type = type;
  in.steps = steps;
  return in;
}

ModelOutput Output(const std::string& name, const std::string& role, int channels)
{
  ModelOutput out;
  out.name = name;
  out.role = role;
  out.channels = channels;
  for (int k = 0; k < channels; ++k)
  {
    out.classes.push_back({k + 1, "c" + std::to_string(k + 1), ""});
  }
  return out;
}

ModelContract Contract(const std::vector<ModelInput>& inputs, const std::vector<ModelOutput>& outputs, int window = 1)
{
  ModelContract contract;
  contract.id = "script";
  contract.task = "time-series-classification";
  contract.tiling.unit = SpatialUnit::Pixel;
  contract.tiling.window = window;
  contract.inputs = inputs;
  contract.outputs = outputs;
  return contract;
}

/** A folder of models, removed afterwards. */
class SeriesRuntime : public testing::Test
{
protected:
  void SetUp() override
  {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder = fs::path(testing::TempDir()) / (std::string("otbdl-series-") + info->test_suite_name() + "-" + info->name());
    fs::remove_all(folder);
    fs::create_directories(folder);
  }
  void TearDown() override { fs::remove_all(folder); }

  /** Writes a model of this source. Weights w0, w1... are seeded and have these sizes. */
  std::string Write(const std::string& name, const std::string& source, const std::vector<std::vector<std::int64_t>>& weights = {}, int seed = 1)
  {
    torch::jit::Module module("Net");
    torch::manual_seed(seed);
    for (std::size_t k = 0; k < weights.size(); ++k)
    {
      module.register_parameter("w" + std::to_string(k), torch::randn(weights[k]), false);
    }
    module.define(source);
    module.eval();
    module.save((folder / name).string());
    return (folder / name).string();
  }
  std::string Text(const std::string& name, const std::string& text)
  {
    std::ofstream(folder / name, std::ios::binary) << text;
    return (folder / name).string();
  }
  fs::path folder;
};

RuntimeOptions Options(int batch, int threads = 1)
{
  RuntimeOptions o;
  o.batch = batch;
  o.threads = threads;
  return o;
}

struct Loaded
{
  Loaded(const std::string& file, const ModelContract& contract, const RuntimeOptions& options = Options(8))
      : predictor(LoadPredictor(file, contract, options, report))
  {
  }
  /** Element of input k: of slot n, time t, band c. */
  float& At(int k, int n, int t, int c, int y = 0, int x = 0)
  {
    const BatchView view = predictor->Input(k);
    return view.At(n, c, y, x)[t * view.strideT];
  }
  float Out(int k, int n, int c) { return *predictor->Output(k).At(n, c, 0, 0); }
  RuntimeReport report;
  std::unique_ptr<Predictor> predictor;
};

float Value(int n, int t, int c)
{
  return static_cast<float>(100 * n + 10 * t + c);
}

TEST_F(SeriesRuntime, TimeAndBandsAreWhereTheContractPutsThem)
{
  const std::string first = Write("btc.pt", "def forward(self, x):\n  return x[:, 1, :]\n");      // the second date
  const std::string second = Write("bct.pt", "def forward(self, x):\n  return x[:, :, 1] + 0\n"); // likewise
  for (const bool timeFirst : {true, false})
  {
    Loaded m(timeFirst ? first : second, Contract({Sits(timeFirst ? btc : bct)}, {Output("y", "logits", bands)}));
    EXPECT_EQ(m.predictor->CallSize(), 8);
    EXPECT_EQ(m.predictor->BatchSize() % 8, 0);
    ASSERT_GT(m.predictor->BatchSize(), 0);
    const BatchView in = m.predictor->Input(0);
    EXPECT_EQ(in.channels, bands);
    EXPECT_EQ(in.steps, steps);
    EXPECT_EQ(in.strideX, 0);
    EXPECT_EQ(in.strideY, 0);
    EXPECT_EQ(timeFirst ? in.strideC : in.strideT, 1);
    for (int n = 0; n < 8; ++n)
    {
      for (int t = 0; t < steps; ++t)
      {
        for (int c = 0; c < bands; ++c)
        {
          m.At(0, n, t, c) = Value(n, t, c);
        }
      }
    }
    m.predictor->Run(8);
    EXPECT_EQ(m.predictor->Output(0).channels, bands);
    for (int n = 0; n < 8; ++n)
    {
      for (int c = 0; c < bands; ++c)
      {
        ASSERT_EQ(m.Out(0, n, c), Value(n, 1, c));
      }
    }
  }
}

TEST_F(SeriesRuntime, AWindowHasHeightAndWidthAndTheOutputHasNot)
{
  const std::string file = Write("window.pt", "def forward(self, x):\n  return x[:, 2, :, 0, 4]\n"); // row 0, column 4
  Loaded m(file, Contract({Sits({Axis::Batch, Axis::Time, Axis::Bands, Axis::Height, Axis::Width})}, {Output("y", "logits", bands)}, 5), Options(4));
  for (int n = 0; n < 4; ++n)
  {
    for (int c = 0; c < bands; ++c)
    {
      for (int y = 0; y < 5; ++y)
      {
        for (int x = 0; x < 5; ++x)
        {
          m.At(0, n, 2, c, y, x) = static_cast<float>(1000 * n + 100 * c + 10 * y + x);
        }
      }
    }
  }
  m.predictor->Run(4);
  EXPECT_EQ(m.Out(0, 3, 2), 3204.f);
  EXPECT_EQ(m.Out(0, 1, 0), 1004.f);
  EXPECT_EQ(m.predictor->Output(0).strideX, 0);
}

TEST_F(SeriesRuntime, DatesMasksAndPositionsComeInTheTypesOfTheContract)
{
  // Each type is asserted in the script, as LibTorch numbers them: 0 uint8, 4 int64, 6 float32, 11 bool.
  const std::string file = Write("types.pt", R"(
def forward(self, x, days, seen, flags, number, place, month):
  assert x.dtype == 6
  assert days.dtype == 4
  assert seen.dtype == 11
  assert flags.dtype == 0
  assert number.dtype == 4
  assert place.dtype == 6
  assert month.dtype == 4 and month.dim() == 1
  table = torch.arange(400, dtype=6) * 2
  a = table[days].sum(1)
  b = x[:, :, 0].masked_fill(torch.logical_not(seen), 0.0).sum(1)
  c = flags.sum(1).float() + number.sum([1, 2]).float()
  return torch.stack([a, b, c, place[:, 0], place[:, 1], month.float()], 1)
)");
  const auto types = Contract({Sits(btc), With("dates", bt, ElementType::Int64), With("valid", bt, ElementType::Bool), With("valid", bt, ElementType::UInt8),
                               With("valid", btc, ElementType::Int64), With("latlon", {Axis::Batch, Axis::Bands}, ElementType::Float32),
                               With("month", {Axis::Batch}, ElementType::Int64)},
                              {Output("y", "logits", 6)});
  Loaded m(file, types, Options(4));
  EXPECT_EQ(m.predictor->Input(1).steps, steps);
  EXPECT_EQ(m.predictor->Input(4).channels, bands) << "as many as the series has";
  EXPECT_EQ(m.predictor->Input(5).channels, 2);
  EXPECT_EQ(m.predictor->Input(6).steps, 1);
  for (int n = 0; n < 4; ++n)
  {
    for (int t = 0; t < steps; ++t)
    {
      m.At(1, n, t, 0) = static_cast<float>(366 - n);
      m.At(0, n, t, 0) = static_cast<float>(t + 1);
      m.At(2, n, t, 0) = t % 2 == 0;
      m.At(3, n, t, 0) = t < n;
      for (int c = 0; c < bands; ++c)
      {
        m.At(4, n, t, c) = c == 1;
      }
    }
    m.At(5, n, 0, 0) = 43.5f;
    m.At(5, n, 0, 1) = -1.25f;
    m.At(6, n, 0, 0) = static_cast<float>(n + 2);
  }
  m.predictor->Run(4);
  for (int n = 0; n < 4; ++n)
  {
    EXPECT_EQ(m.Out(0, n, 0), 2.f * steps * (366 - n));
    EXPECT_EQ(m.Out(0, n, 1), 1.f + 3 + 5);
    EXPECT_EQ(m.Out(0, n, 2), static_cast<float>(n + steps));
    EXPECT_EQ(m.Out(0, n, 3), 43.5f);
    EXPECT_EQ(m.Out(0, n, 4), -1.25f);
    EXPECT_EQ(m.Out(0, n, 5), static_cast<float>(n + 2));
  }
}

TEST_F(SeriesRuntime, AnInputWithoutTimeIsNotGivenAny)
{
  ModelInput fixed = Sits({Axis::Batch, Axis::Bands});
  fixed.role = "static";
  fixed.steps = 0;
  const std::string file = Write("static.pt", "def forward(self, x, s):\n  assert s.dim() == 2\n  return x.sum(1) + 1000 * s\n");
  Loaded m(file, Contract({Sits(btc), fixed}, {Output("y", "logits", bands)}), Options(2));
  m.At(1, 1, 0, 2) = 7.f;
  m.predictor->Run(2);
  EXPECT_EQ(m.Out(0, 1, 2), 7000.f);
  EXPECT_EQ(m.Out(0, 0, 2), 0.f);
}

TEST_F(SeriesRuntime, AuxiliaryOutputsMayHaveAnyShapeAndAreDropped)
{
  for (const bool dictionary : {false, true})
  {
    const std::string file = dictionary ? Write("d.pt", "def forward(self, x):\n  return {\"weights\": x.long(), \"e\": x[:, 0, :2], \"y\": x.sum(1)}\n")
                                        : Write("t.pt", "def forward(self, x):\n  return x.sum(1), x.long(), x[:, 0, :2]\n");
    Loaded m(file, Contract({Sits(btc)}, {Output("y", "logits", bands), Output("weights", "aux", 0), Output("e", "embedding", 2)}), Options(3));
    ASSERT_EQ(m.predictor->Outputs(), 3);
    EXPECT_EQ(m.predictor->Output(1).data, nullptr);
    for (int t = 0; t < steps; ++t)
    {
      m.At(0, 2, t, 1) = static_cast<float>(t);
    }
    m.At(0, 2, 0, 1) = .5f;
    m.predictor->Run(3);
    EXPECT_EQ(m.Out(0, 2, 1), 15.5f);
    EXPECT_EQ(m.predictor->Output(2).channels, 2);
    EXPECT_EQ(m.Out(2, 2, 1), .5f);
  }
}

TEST_F(SeriesRuntime, OutputsThatAreNotThoseOfTheContractAreNamed)
{
  const auto message = [&](const std::string& source, const std::vector<ModelOutput>& outputs)
  { return MessageOf([&] { Loaded(Write("m.pt", "def forward(self, x):\n  return " + source + "\n"), Contract({Sits(btc)}, outputs)); }); };
  EXPECT_THAT(message("x.sum(1)", {Output("y", "logits", 4)}), AllOf(HasSubstr("\"y\" has the shape [256, 3]"), HasSubstr("[256, 4]")));
  EXPECT_THAT(message("x", {Output("y", "logits", 3)}), AllOf(HasSubstr("[256, 6, 3]"), HasSubstr("[256, 3]"), HasSubstr("mlm:output/0")));
  EXPECT_THAT(message("x.sum(1).sum(0)", {Output("y", "logits", 3)}), HasSubstr("has the shape [3]"));
  EXPECT_THAT(message("x.sum(1)", {Output("y", "logits", 3), Output("e", "embedding", 2)}), HasSubstr("returns 1 tensor(s)"));
  EXPECT_THAT(message("x.permute(1, 0)", {Output("y", "logits", 3)}), AllOf(HasSubstr("does not run on the inputs"), HasSubstr("x 256 x 6 x 3")));
}

/** Layers whose products BLAS splits, and sums over time. */
const char* const perceptron = R"(
def forward(self, x):
  h = torch.relu(torch.linear(x.flatten(1), self.w0, self.w1))
  h = torch.relu(torch.linear(h, self.w2))
  return torch.matmul(h, self.w3)
)";
const std::vector<std::vector<std::int64_t>> perceptronWeights = {{100, steps* bands}, {100}, {70, 100}, {70, 5}};
const char* const recurrent = R"(
def forward(self, x):
  h = torch.zeros(x.size(0), 33, dtype=x.dtype)
  for t in range(x.size(1)):
    h = torch.tanh(torch.mm(x[:, t], self.w0) + torch.mm(h, self.w1))
  return torch.linear(h, self.w2)
)";
const std::vector<std::vector<std::int64_t>> recurrentWeights = {{bands, 33}, {33, 33}, {5, 33}};
const char* const attention = R"(
def forward(self, x):
  q = torch.linear(x, self.w0)
  k = torch.linear(x, self.w1)
  a = torch.softmax(torch.matmul(q, k.transpose(1, 2)) / 4.0, 2)
  h = torch.matmul(a, torch.linear(x, self.w2)).mean(1)
  return torch.linear(torch.layer_norm(h, [24]), self.w3)
)";
const std::vector<std::vector<std::int64_t>> attentionWeights = {{16, bands}, {16, bands}, {24, bands}, {5, 24}};
const char* const convolution = R"(
def forward(self, x):
  h = torch.relu(torch.conv1d(x.transpose(1, 2), self.w0, None, [1], [1]))
  h = torch.relu(torch.conv1d(h, self.w1, None, [1], [1]))
  return torch.linear(h.mean(2), self.w2)
)";
const std::vector<std::vector<std::int64_t>> convolutionWeights = {{37, bands, 3}, {41, 37, 3}, {5, 41}};

struct Network
{
  const char* name;
  const char* source;
  const std::vector<std::vector<std::int64_t>>* weights;
};
void PrintTo(const Network& n, std::ostream* out)
{
  *out << n.name;
}

class SeriesNetwork : public SeriesRuntime, public testing::WithParamInterface<Network>
{
protected:
  std::string Write() { return SeriesRuntime::Write("m.pt", GetParam().source, *GetParam().weights); }
  static ModelContract Classifier() { return Contract({Sits(btc)}, {Output("y", "logits", 5)}); }
  static void Fill(Loaded& m, int slot, int pixel)
  {
    std::mt19937 random(pixel);
    std::normal_distribution<float> value(0.f, 1.f);
    for (int t = 0; t < steps; ++t)
    {
      for (int c = 0; c < bands; ++c)
      {
        m.At(0, slot, t, c) = value(random);
      }
    }
  }
  static std::vector<float> Values(Loaded& m, int slot)
  {
    std::vector<float> values;
    for (int c = 0; c < 5; ++c)
    {
      values.push_back(m.Out(0, slot, c));
    }
    return values;
  }
};

bool SameBits(const std::vector<float>& a, const std::vector<float>& b)
{
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST_P(SeriesNetwork, GivesTheSameBitsInAnySlot)
{
  const std::string file = Write();
  for (const int batch : {256, 37})
  {
    Loaded m(file, Classifier(), Options(batch));
    EXPECT_THAT(m.report.warnings, IsEmpty());
    constexpr int pixels = 5;
    std::vector<std::vector<float>> first(pixels);
    for (int shift = 0; shift < pixels; ++shift)
    {
      for (int n = 0; n < batch; ++n)
      {
        Fill(m, n, (n + shift) % pixels);
      }
      m.predictor->Run(batch);
      for (int n = 0; n < batch; ++n)
      {
        const int pixel = (n + shift) % pixels;
        first[pixel] = first[pixel].empty() ? Values(m, n) : first[pixel];
        ASSERT_TRUE(SameBits(Values(m, n), first[pixel])) << "pixel " << pixel << " in slot " << n << " of " << batch;
      }
    }
    EXPECT_FALSE(SameBits(first[0], first[1]));
  }
}

TEST_P(SeriesNetwork, GivesTheSameBitsWhateverIsInTheOtherSlotsAndHoweverManyAreFilled)
{
  Loaded m(Write(), Classifier(), Options(64, 2));
  const int batch = m.predictor->BatchSize();
  ASSERT_GE(batch, 128);
  EXPECT_EQ(m.predictor->CallSize(), 64);
  for (int n = 0; n < batch; ++n)
  {
    Fill(m, n, n);
  }
  m.predictor->Run(batch);
  std::vector<std::vector<float>> full;
  for (int n = 0; n < batch; ++n)
  {
    full.push_back(Values(m, n));
  }
  for (const int filled : {1, 2, 63, 64, 65, 127, batch - 1})
  {
    for (int n = 0; n < batch; ++n)
    {
      Fill(m, n, n < filled ? n : 5000 + n);
    }
    m.predictor->Run(filled);
    for (int n = 0; n < filled; ++n)
    {
      ASSERT_TRUE(SameBits(Values(m, n), full[n])) << n << " of " << filled;
    }
  }
}

TEST_P(SeriesNetwork, GivesTheSameBitsInTheBatchThatIsMeasuredAsInTheSmallestOne)
{
  const std::string file = Write();
  Loaded measured(file, Classifier(), Options(0)), least(file, Classifier(), Options(256));
  EXPECT_GE(measured.report.batch, 256);
  EXPECT_EQ(measured.predictor->CallSize(), measured.report.batch);
  EXPECT_THAT(measured.report.batchReason, HasSubstr("measured, us a pixel: 256: "));
  EXPECT_GT(measured.report.secondsPerSample, 0.);
  for (int n = 0; n < measured.report.batch; ++n)
  {
    Fill(measured, n, n % 200);
    Fill(least, n % 256, n % 256 % 200);
  }
  measured.predictor->Run(measured.report.batch);
  least.predictor->Run(256);
  for (int n = 0; n < measured.report.batch; ++n)
  {
    ASSERT_TRUE(SameBits(Values(measured, n), Values(least, n % 200))) << n;
  }
}

TEST_P(SeriesNetwork, IsThatOfTheScriptButForRounding)
{
  const std::string file = Write();
  Loaded m(file, Classifier(), Options(16));
  torch::jit::Module module = torch::jit::load(file);
  module.eval();
  at::Tensor x = at::zeros({16, steps, bands});
  for (int n = 0; n < 16; ++n)
  {
    Fill(m, n, n);
    for (int t = 0; t < steps; ++t)
    {
      for (int c = 0; c < bands; ++c)
      {
        x[n][t][c] = m.At(0, n, t, c);
      }
    }
  }
  m.predictor->Run(16);
  const at::Tensor y = module.forward({x}).toTensor();
  const float scale = y.abs().max().item<float>();
  for (int n = 0; n < 16; ++n)
  {
    for (int c = 0; c < 5; ++c)
    {
      ASSERT_NEAR(m.Out(0, n, c), y[n][c].item<float>(), 1e-5 * scale);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Networks, SeriesNetwork,
                         testing::Values(Network{"perceptron", perceptron, &perceptronWeights}, Network{"recurrent", recurrent, &recurrentWeights},
                                         Network{"attention", attention, &attentionWeights}, Network{"convolution", convolution, &convolutionWeights}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_F(SeriesRuntime, MeasuringStopsWhereTheJobIsSmall)
{
  RuntimeOptions o = Options(0);
  o.samples = 1000;
  Loaded m(Write("m.pt", perceptron, perceptronWeights), Contract({Sits(btc)}, {Output("y", "logits", 5)}), o);
  EXPECT_EQ(m.report.batch, 256);
  EXPECT_THAT(m.report.batchReason, HasSubstr("1000 pixels"));
}

TEST_F(SeriesRuntime, ANetworkThatMixesItsSamplesIsWarnedOf)
{
  Loaded m(Write("m.pt", "def forward(self, x):\n  return x.sum(1) + x[0, 3, 1]\n"), Contract({Sits(btc)}, {Output("y", "logits", bands)}), Options(8));
  ASSERT_FALSE(m.report.warnings.empty());
  EXPECT_THAT(m.report.warnings[0], HasSubstr("place in the batch"));
}

TEST_F(SeriesRuntime, WhereSlotsMatterTheReportSaysSo)
{
  // Products that are written otherwise than as a layer.
  const std::string sources[] = {"torch.matmul(torch.relu(torch.addmm(self.w0, x.flatten(1), self.w1)), self.w2)",
                                 "torch.matmul(torch.relu(torch.einsum(\"bi,ij->bj\", [x.flatten(1), self.w1])), self.w2)",
                                 "torch.matmul(torch.matmul(torch.matmul(x, self.w3).relu(), self.w4), self.w5)"};
  for (const auto& source : sources)
  {
    const std::string file =
        Write("m.pt", "def forward(self, x):\n  return " + source + "\n", {{61}, {steps * bands, 61}, {61, 5}, {bands, 64}, {64}, {steps, 5}});
    constexpr int batch = 37, pixels = 5;
    Loaded m(file, Contract({Sits(btc)}, {Output("y", "logits", 5)}), Options(batch));
    std::vector<std::vector<float>> first(pixels);
    bool same = true;
    for (int n = 0; n < batch; ++n)
    {
      std::mt19937 random(n % pixels);
      std::normal_distribution<float> value(0.f, 1.f);
      for (int t = 0; t < steps; ++t)
      {
        for (int c = 0; c < bands; ++c)
        {
          m.At(0, n, t, c) = value(random);
        }
      }
    }
    m.predictor->Run(batch);
    for (int n = 0; n < batch; ++n)
    {
      std::vector<float> values;
      for (int c = 0; c < 5; ++c)
      {
        values.push_back(m.Out(0, n, c));
      }
      first[n % pixels] = n < pixels ? values : first[n % pixels];
      same = same && SameBits(values, first[n % pixels]);
    }
    EXPECT_TRUE(same || !m.report.warnings.empty()) << source;
  }
}

TEST_F(SeriesRuntime, AFileThatIsNoListIsTheModelItself)
{
  EXPECT_THAT(ModelFiles("/somewhere/model.pt"), ElementsAre("/somewhere/model.pt"));
  EXPECT_THAT(ModelFiles("txt"), ElementsAre("txt"));
  EXPECT_THAT(ModelFiles(""), ElementsAre(""));
}

TEST_F(SeriesRuntime, AListNamesFilesBesideItOrAnywhere)
{
  Text("a.pt", "a");
  fs::create_directories(folder / "more");
  Text("more/b c.pt", "b");
  const std::string absolute = Text("d.pt", "d");
  const std::string list = Text("list.txt", "# an ensemble\r\n  a.pt\t# the first\r\n\r\nmore/b c.pt\r\n" + absolute);
  EXPECT_THAT(ModelFiles(list), ElementsAre((folder / "a.pt").string(), (folder / "more/b c.pt").string(), absolute));
}

TEST_F(SeriesRuntime, AListThatCannotBeUsedIsAnErrorThatNamesIt)
{
  Text("a.pt", "a");
  const auto message = [&](const std::string& text) { return MessageOf([&] { ModelFiles(Text("list.txt", text)); }); };
  EXPECT_THAT(MessageOf([&] { ModelFiles((folder / "absent.txt").string()); }),
              AllOf(HasSubstr("model: found"), HasSubstr("absent.txt"), HasSubstr("cannot be read")));
  EXPECT_THAT(message(""), AllOf(HasSubstr("no model in the list"), HasSubstr("list.txt")));
  EXPECT_THAT(message("# a.pt\n\n"), HasSubstr("no model in the list"));
  EXPECT_THAT(message("a.pt\nb.pt\n"), AllOf(HasSubstr("\"b.pt\" in the list"), HasSubstr("list.txt"), HasSubstr("cannot be read")));
  EXPECT_THAT(message("a.pt\n" + (folder / "a.pt").string() + "\n"), AllOf(HasSubstr("twice in the list"), HasSubstr("list.txt")));
  EXPECT_THAT(message("a.pt\n./a.pt\n"), HasSubstr("twice in the list")) << "the same file, written in another way";
}

/** What is said of a member that differs in this from the first. */
std::string Difference(const std::function<void(ModelContract&)>& change)
{
  ModelInput in = Sits(btc);
  in.bands = {"red", "nir", "NDVI"};
  in.sensors = {1, 1, -1};
  in.derived = {{2, 1, 0}};
  in.noData = 0.;
  in.temporal.gapFill = TemporalSpec::GapFill::Grid;
  in.temporal.gridStart = "03-01";
  in.temporal.gridEnd = "10-27";
  in.temporal.gridStep = 10;
  const ModelContract first =
      Contract({in, With("dates", bt, ElementType::Int64), With("valid", bt, ElementType::Bool)}, {Output("y", "logits", 3), Output("w", "aux", 0)});
  ModelContract member = first;
  change(member);
  return MessageOf([&] { CheckSameInterface(first, "a.pt", member, "b.pt"); });
}

TEST(SameInterface, NamesWeightsAndLicensesMayDiffer)
{
  EXPECT_EQ(Difference([](ModelContract&) {}), "no error");
  EXPECT_EQ(Difference(
                [](ModelContract& c)
                {
                  c.id = c.name = c.architecture = "another";
                  c.license = "MIT";
                  c.inputs[0].name = "series";
                  c.outputs[0].name = "logits";
                  c.outputs[0].classes[1].name = "another";
                }),
            "no error");
}

TEST(SameInterface, AnythingThatChangesWhatIsTakenOrGivenIsNamed)
{
  const auto differs = [](const std::string& what) { return AllOf(HasSubstr("model: found"), HasSubstr(what), HasSubstr("b.pt"), HasSubstr("a.pt")); };
  EXPECT_THAT(Difference([](ModelContract& c) { c.task = "change-detection"; }), differs("the task"));
  EXPECT_THAT(Difference([](ModelContract& c) { c.inputs.pop_back(); }), differs("the number of inputs"));
  EXPECT_THAT(Difference([](ModelContract& c) { std::swap(c.inputs[1], c.inputs[2]); }), differs("the role or the axes"));
  EXPECT_THAT(Difference([](ModelContract& c) { c.inputs[0].axes = bct; }), differs("the role or the axes"));
  EXPECT_THAT(Difference([](ModelContract& c) { c.inputs[1].type = ElementType::Float32; }), differs("the role or the axes"));
  EXPECT_THAT(Difference([](ModelContract& c) { c.inputs[2].maskedIsOne = true; }), differs("of input \"valid\""));
  EXPECT_THAT(Difference([](ModelContract& c) { c.inputs[2].minValid = .5; }), differs("of input \"valid\""));
  EXPECT_THAT(Difference([](ModelContract& c) { c.inputs[0].steps = 7; }), differs("of input \"x\""));
  EXPECT_THAT(Difference([](ModelContract& c) { std::swap(c.inputs[0].bands[0], c.inputs[0].bands[1]); }), differs("nir red NDVI"));
  EXPECT_THAT(Difference([](ModelContract& c) { c.inputs[0].sensors[1] = 2; }), differs("the bands"));
  EXPECT_THAT(Difference([](ModelContract& c) { c.inputs[0].scaling[2].low = 0.; }), differs("the scaling"));
  EXPECT_THAT(Difference([](ModelContract& c) { c.inputs[0].scaling[0].divisor = 2.; }), differs("the scaling"));
  EXPECT_THAT(Difference([](ModelContract& c) { c.inputs[0].noData.reset(); }), differs("the no-data"));
  EXPECT_THAT(Difference([](ModelContract& c) { c.inputs[0].noDataRule = NoDataRule::Any; }), differs("the no-data"));
  EXPECT_THAT(Difference([](ModelContract& c) { c.inputs[0].noDataFill = 1.f; }), differs("the no-data"));
  EXPECT_THAT(Difference([](ModelContract& c) { c.inputs[0].temporal.gridStep = 5; }), differs("the time"));
  EXPECT_THAT(Difference([](ModelContract& c) { c.inputs[0].temporal.gapFill = TemporalSpec::GapFill::Linear; }), differs("the time"));
  EXPECT_THAT(Difference([](ModelContract& c) { c.inputs[0].temporal.padAtStart = true; }), differs("the time"));
  EXPECT_THAT(Difference([](ModelContract& c) { c.inputs[1].encoding.kind = DateEncoding::Kind::Index; }), differs("the time of input \"dates\""));
  EXPECT_THAT(Difference([](ModelContract& c) { c.outputs.pop_back(); }), differs("the number of outputs"));
  EXPECT_THAT(Difference([](ModelContract& c) { c.outputs[0].role = "probabilities"; }), differs("\"y\""));
  EXPECT_THAT(Difference([](ModelContract& c) { c.outputs[0].classes[1].value = 9; }), differs("\"y\""));
  EXPECT_THAT(Difference([](ModelContract& c) { c.outputs[0].channels = 4; }), differs("\"y\""));
  EXPECT_THAT(Difference([](ModelContract& c) { c.tiling.window = 3; }), differs("the tiling"));
  EXPECT_THAT(Difference([](ModelContract& c) { c.tiling.unit = SpatialUnit::Patch; }), differs("the tiling"));
}

TEST(SameInterface, ADerivedBandIsMadeFromTheSameBands)
{
  EXPECT_THAT(Difference([](ModelContract& c) { std::swap(c.inputs[0].derived[0].a, c.inputs[0].derived[0].b); }), HasSubstr("of input \"x\""));
}

class Ensemble : public SeriesRuntime
{
protected:
  ModelContract contract = Contract({Sits(btc), With("dates", bt, ElementType::Int64)}, {Output("y", "logits", bands), Output("w", "aux", 0)});
  std::string Member(int factor)
  {
    const std::string f = std::to_string(factor);
    return Write("m" + f + ".pt", "def forward(self, x, d):\n  return x.sum(1) * " + f + ".0 + d.sum(1, keepdim=True).float(), x\n");
  }
};

TEST_F(Ensemble, OutputsComeMemberAfterMemberFromTheSameInputs)
{
  RuntimeReport report;
  const auto predictor = LoadEnsemble({Member(1), Member(10), Member(100)}, {contract, contract, contract}, Options(5, 2), report);
  EXPECT_GE(predictor->BatchSize(), 10);
  EXPECT_EQ(predictor->BatchSize() % 5, 0);
  EXPECT_EQ(predictor->CallSize(), 5);
  EXPECT_EQ(report.batch, 5);
  EXPECT_THAT(report.warnings, IsEmpty());
  ASSERT_EQ(predictor->Outputs(), 6);
  for (int run = 0; run < 2; ++run)
  {
    const BatchView in = predictor->Input(0), dates = predictor->Input(1);
    for (int n = 0; n < 10; ++n)
    {
      for (int t = 0; t < steps; ++t)
      {
        dates.At(n, 0, 0, 0)[t * dates.strideT] = static_cast<float>(n * t);
        for (int c = 0; c < bands; ++c)
        {
          in.At(n, c, 0, 0)[t * in.strideT] = static_cast<float>(n + t * c + run);
        }
      }
    }
    const int filled = run == 0 ? 10 : 7;
    predictor->Run(filled);
    for (int m = 0; m < 3; ++m)
    {
      EXPECT_EQ(predictor->Output(2 * m + 1).data, nullptr);
      const BatchView out = predictor->Output(2 * m);
      EXPECT_EQ(out.channels, bands);
      for (int n = 0; n < filled; ++n)
      {
        for (int c = 0; c < bands; ++c)
        {
          ASSERT_EQ(*out.At(n, c, 0, 0), std::pow(10.f, m) * (steps * (n + run) + 15 * c) + 15 * n) << "member " << m << ", slot " << n;
        }
      }
    }
  }
}

TEST_F(Ensemble, OfOneMemberIsThatMember)
{
  RuntimeReport report;
  const auto predictor = LoadEnsemble({Member(7)}, {contract}, Options(3), report);
  EXPECT_EQ(predictor->Outputs(), 2);
  EXPECT_EQ(predictor->CallSize(), 3);
}

TEST_F(Ensemble, MembersTakeTheBatchThatIsMeasuredForTheFirst)
{
  RuntimeReport report;
  const auto predictor = LoadEnsemble({Member(1), Member(2)}, {contract, contract}, Options(0), report);
  EXPECT_GE(report.batch, 256);
  EXPECT_EQ(predictor->CallSize(), report.batch);
  EXPECT_THAT(report.batchReason, HasSubstr("measured"));
}

TEST_F(Ensemble, AMemberThatCannotBeLoadedIsNamed)
{
  RuntimeReport report;
  EXPECT_THAT(MessageOf([&] { LoadEnsemble({Member(1), (folder / "absent.pt").string()}, {contract, contract}, Options(2), report); }), HasSubstr("absent.pt"));
}

TEST_F(Ensemble, MembersThatLikeOtherLayoutsOfMemoryGetTheSameInputs)
{
  // Convolutions run channels-last, group normalisation does not.
  ModelInput image;
  image.name = "x1";
  image.role = "image";
  image.bands = {"a", "b"};
  image.scaling.resize(2);
  ModelContract images;
  images.task = "change-detection";
  images.tiling.patch = 8;
  images.inputs = {image};
  images.outputs = {Output("y", "change_logits", 1)};
  const std::string last = Write("last.pt", "def forward(self, x):\n  return torch.conv2d(x, self.w0)\n", {{1, 2, 1, 1}});
  const std::string plain = Write("plain.pt", "def forward(self, x):\n  return torch.conv2d(torch.group_norm(x, 1), self.w0)\n", {{1, 2, 1, 1}});
  RuntimeReport report;
  const auto alone = LoadPredictor(plain, images, Options(2), report);
  ASSERT_EQ(report.memoryFormat, "contiguous");
  LoadPredictor(last, images, Options(2), report);
  ASSERT_EQ(report.memoryFormat, "channels-last") << "alone";
  const auto both = LoadEnsemble({last, plain}, {images, images}, Options(2), report);
  EXPECT_EQ(report.memoryFormat, "contiguous") << "the layout that both can have";
  for (const auto& p : {alone.get(), both.get()})
  {
    const BatchView in = p->Input(0);
    for (int n = 0; n < 2; ++n)
    {
      for (int c = 0; c < 2; ++c)
      {
        for (int i = 0; i < 64; ++i)
        {
          *in.At(n, c, i / 8, i % 8) = static_cast<float>(std::sin(n + 2. * c + .7 * i));
        }
      }
    }
    p->Run(2);
  }
  for (int n = 0; n < 2; ++n)
  {
    for (int i = 0; i < 64; ++i)
    {
      ASSERT_NEAR(*both->Output(1).At(n, 0, i / 8, i % 8), *alone->Output(0).At(n, 0, i / 8, i % 8), 1e-5) << "slot " << n << ", pixel " << i;
    }
  }
}

TEST_F(Ensemble, TheHostGetsItsThreadsBack)
{
  const int before = at::get_num_threads();
  at::set_num_threads(2);
  {
    RuntimeReport report;
    const auto predictor = LoadEnsemble({Member(1), Member(2)}, {contract, contract}, Options(2), report);
    EXPECT_EQ(at::get_num_threads(), 1);
  }
  EXPECT_EQ(at::get_num_threads(), 2);
  at::set_num_threads(before);
}

class EnsembleMemory : public Ensemble
{
protected:
  std::vector<std::string> files;
  const ModelContract classifier = Contract({Sits(btc)}, {Output("y", "logits", 5)});
  RuntimeReport alone; ///< of one member that has all memory
  void SetUp() override
  {
    Ensemble::SetUp();
    files = {Write("a.pt", perceptron, perceptronWeights, 1), Write("b.pt", perceptron, perceptronWeights, 2)};
    LoadPredictor(files[0], classifier, Options(300, 2), alone);
  }
};

TEST_F(EnsembleMemory, IsSharedOut)
{
  EXPECT_EQ(alone.workers, 2);
  RuntimeOptions o = Options(300, 2);
  o.memory = 2 * (alone.bytesBase + 450 * alone.bytesPerSample); // of each half there is room for one forward, not two
  RuntimeReport report;
  LoadEnsemble(files, {classifier, classifier}, o, report);
  EXPECT_EQ(report.workers, 1);
}

TEST_F(EnsembleMemory, WhateverItIsMembersThatAreAlikeRunSideBySide)
{
  const std::size_t forward = 300 * alone.bytesPerSample;
  for (std::size_t tenth = 1; tenth <= 30; ++tenth)
  {
    RuntimeOptions o = Options(300, 2);
    o.memory = 2 * (alone.bytesBase + forward * tenth / 10);
    RuntimeReport report;
    EXPECT_EQ(MessageOf([&] { LoadEnsemble(files, {classifier, classifier}, o, report); }), "no error") << tenth << " tenths of a forward for each";
  }
}

} // namespace
