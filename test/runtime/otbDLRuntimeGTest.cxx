/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// Models of otbtorch.testing, read, checked and run without OTB.
#include "otbDLRuntime.h"
#include "otbDLTensorMemory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

namespace
{

using namespace otb::dl;
using Json = nlohmann::json;
using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;
using testing::Not;
namespace fs = std::filesystem;

std::string Model(const std::string& name)
{
  return std::string(OTBDL_MODELS) + "/" + name;
}

std::string Slurp(const fs::path& path)
{
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

void Write(const fs::path& path, const std::string& text)
{
  std::ofstream(path, std::ios::binary) << text;
}

/** The example of a contract, under another name. */
std::string ContractOf(const std::string& id)
{
  Json contract = Json::parse(Slurp(OTBDL_EXAMPLE));
  contract["id"] = id;
  return contract.dump();
}

/** What a call throws; it must be an Error, not anything of LibTorch's. */
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

/** An empty folder of its own, removed afterwards. */
class ReadContractTest : public testing::Test
{
protected:
  void SetUp() override
  {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder = fs::path(testing::TempDir()) / (std::string("otbdl-runtime-") + info->name());
    fs::remove_all(folder);
    fs::create_directories(folder);
  }
  void TearDown() override { fs::remove_all(folder); }
  fs::path folder;
};

TEST_F(ReadContractTest, TheGivenFileComesBeforeTheSideCarsBeforeTheArchive)
{
  const std::string model = (folder / "change.pt").string();
  fs::copy_file(Model("pixel.pt"), model);
  std::string origin;
  EXPECT_EQ(ReadContract(model, "", &origin).id, "pixel");
  EXPECT_EQ(origin, model);

  Write(folder / "change.mlm.json", ContractOf("second"));
  EXPECT_EQ(ReadContract(model, "", &origin).id, "second");
  EXPECT_EQ(origin, (folder / "change.mlm.json").string());

  Write(folder / "change.pt.mlm.json", ContractOf("first"));
  EXPECT_EQ(ReadContract(model, "", &origin).id, "first");
  EXPECT_EQ(origin, (folder / "change.pt.mlm.json").string());

  Write(folder / "other.json", ContractOf("given"));
  EXPECT_EQ(ReadContract(model, (folder / "other.json").string(), &origin).id, "given");
  EXPECT_EQ(origin, (folder / "other.json").string());
}

TEST_F(ReadContractTest, AModelWithoutAContractTakesASideCar)
{
  fs::copy_file(Model("nocontract.pt"), folder / "m.pt");
  EXPECT_THAT(MessageOf([&] { ReadContract((folder / "m.pt").string()); }),
              AllOf(HasSubstr("without a contract"), HasSubstr("m.pt.mlm.json"), HasSubstr("-contract"), HasSubstr("never guessed")));
  Write(folder / "m.pt.mlm.json", ContractOf("beside"));
  EXPECT_EQ(ReadContract((folder / "m.pt").string()).id, "beside");
}

TEST_F(ReadContractTest, ABadContractFileIsNamedAndNotSilentlyReplaced)
{
  fs::copy_file(Model("pixel.pt"), folder / "m.pt");
  const std::string model = (folder / "m.pt").string();
  const auto message = [&](const std::string& file) { return MessageOf([&] { ReadContract(model, file); }); };
  EXPECT_THAT(message((folder / "absent.json").string()), AllOf(HasSubstr("contract: "), HasSubstr("absent.json"), HasSubstr("cannot be read")));
  EXPECT_THAT(message(folder.string()), AllOf(HasSubstr("contract: "), HasSubstr("cannot be read")));
  Write(folder / "empty.json", "");
  EXPECT_THAT(message((folder / "empty.json").string()), AllOf(HasSubstr("empty.json"), HasSubstr("not JSON")));
  Write(folder / "bad.json", "{\"type\": ");
  EXPECT_THAT(message((folder / "bad.json").string()), AllOf(HasSubstr("bad.json"), HasSubstr("not JSON")));
  Write(folder / "m.pt.mlm.json", "");
  EXPECT_THAT(message(""), AllOf(HasSubstr("m.pt.mlm.json"), HasSubstr("not JSON")));
}

TEST_F(ReadContractTest, EveryViolationOfAnEmbeddedContractIsReported)
{
  try
  {
    ReadContract(Model("invalid.pt"));
    FAIL() << "it was accepted";
  }
  catch (const ContractError& e)
  {
    EXPECT_EQ(e.Violations().size(), 7u);
    EXPECT_THAT(e.what(), AllOf(HasSubstr("invalid.pt"), HasSubstr("/properties/mlm:input/0/value_scaling"), HasSubstr("/properties/otb:tiling/halo")));
  }
}

TEST_F(ReadContractTest, AFileThatIsNoModelIsSaidToBeWhatItIs)
{
  const auto message = [](const std::string& file) { return MessageOf([&] { ReadContract(file); }); };
  EXPECT_THAT(message((folder / "absent.pt").string()), AllOf(HasSubstr("no file at"), HasSubstr("absent.pt")));
  EXPECT_THAT(message(folder.string()), HasSubstr("not a regular file"));
  EXPECT_THAT(message(Model("empty.pt")), HasSubstr("which is empty"));
  EXPECT_THAT(message(Model("corrupt.pt")), HasSubstr("not a TorchScript archive"));
  EXPECT_THAT(message(Model("truncated.pt")), HasSubstr("truncated or damaged"));
  EXPECT_THAT(message(Model("notscript.pt")), AllOf(HasSubstr("checkpoint"), HasSubstr("no code")));
  Write(folder / "one", "P");
  EXPECT_THAT(message((folder / "one").string()), HasSubstr("model: "));
  for (const char* name : {"empty.pt", "corrupt.pt", "truncated.pt", "notscript.pt"})
  {
    EXPECT_THAT(message(Model(name)), AllOf(HasSubstr(name), HasSubstr("expected"), Not(HasSubstr("frame #")))) << name;
  }
}

TEST_F(ReadContractTest, ADamagedModelIsFoundThoughAContractIsGiven)
{
  Write(folder / "c.json", ContractOf("given"));
  EXPECT_THAT(MessageOf([&] { ReadContract(Model("truncated.pt"), (folder / "c.json").string()); }), HasSubstr("truncated or damaged"));
}

TEST_F(ReadContractTest, ADamagedEmbeddedContractIsAnError)
{
  std::string bytes = Slurp(Model("pixel.pt"));
  const auto name = bytes.find("extra/mlm.json");
  const auto header = bytes.rfind("PK\3\4", name);
  ASSERT_NE(header, std::string::npos);
  bytes[header + 2] ^= 1;
  Write(folder / "m.pt", bytes);
  EXPECT_THAT(MessageOf([&] { ReadContract((folder / "m.pt").string()); }), AllOf(HasSubstr("m.pt"), HasSubstr("damaged"), Not(HasSubstr("frame #"))));
}

TEST_F(ReadContractTest, ADamagedByteOfTheContractIsNotReadAsAContract)
{
  std::string bytes = Slurp(Model("pixel.pt"));
  const auto at = bytes.find("\"gsd_m\": 10");
  ASSERT_NE(at, std::string::npos);
  bytes[at + 9] = '2';
  Write(folder / "m.pt", bytes);
  EXPECT_THAT(MessageOf([&] { ReadContract((folder / "m.pt").string()); }), AllOf(HasSubstr("m.pt"), HasSubstr("damaged"), HasSubstr("mlm.json")));
}

TEST_F(ReadContractTest, AnyDamagedByteIsAnErrorOrChangesNothing)
{
  const std::string whole = Slurp(Model("pixel.pt"));
  const std::string path = (folder / "m.pt").string();
  std::mt19937 random(11);
  int errors = 0;
  constexpr int trials = 1500;
  for (int trial = 0; trial < trials; ++trial)
  {
    std::string bytes = whole;
    // Half of them in the directory at the end, whose numbers say where to read and how much.
    const auto span = trial % 2 == 0 ? whole.size() : std::min<std::size_t>(whole.size(), 1500);
    const auto at = whole.size() - 1 - random() % span;
    bytes[at] = trial % 3 == 0 ? '\xff' : static_cast<char>(random());
    Write(path, bytes);
    std::string id;
    const std::string message = MessageOf([&] { id = ReadContract(path).id; });
    errors += id.empty();
    ASSERT_TRUE(id == "pixel" || message.find("m.pt") != std::string::npos) << "byte " << at << ": " << id << message;
  }
  EXPECT_GT(errors, trials / 3);
  EXPECT_LT(errors, trials);
}

TEST_F(ReadContractTest, AnArchiveCutAnywhereIsAnError)
{
  const std::string bytes = Slurp(Model("pixel.pt"));
  for (std::size_t length = 1; length < bytes.size(); length += bytes.size() / 40)
  {
    Write(folder / "m.pt", bytes.substr(0, length));
    EXPECT_THAT(MessageOf([&] { ReadContract((folder / "m.pt").string()); }), HasSubstr("m.pt")) << length;
  }
}

/** A model loaded and ready. */
struct Loaded
{
  explicit Loaded(const std::string& name, RuntimeOptions options = {})
  {
    contract = ReadContract(Model(name));
    predictor = LoadPredictor(Model(name), contract, options, report);
  }
  ModelContract contract;
  RuntimeReport report;
  std::unique_ptr<Predictor> predictor;

  int Patch() const { return contract.tiling.patch; }

  /** Fills a slot of all inputs with a pattern of its own. */
  void Fill(int slot, int pattern)
  {
    for (std::size_t k = 0; k < contract.inputs.size(); ++k)
    {
      const auto in = predictor->Input(static_cast<int>(k));
      for (int c = 0; c < in.channels; ++c)
      {
        for (int y = 0; y < Patch(); ++y)
        {
          for (int x = 0; x < Patch(); ++x)
          {
            *in.At(slot, c, y, x) = static_cast<float>(std::sin(.37 * x + (.11 + .013 * pattern) * y + c + 2. * k + 1.7 * pattern));
          }
        }
      }
    }
  }

  /** Values of a slot of all outputs. */
  std::vector<float> Values(int slot)
  {
    std::vector<float> values;
    for (int k = 0; k < predictor->Outputs(); ++k)
    {
      const auto out = predictor->Output(k);
      for (int c = 0; c < out.channels; ++c)
      {
        for (int y = 0; y < Patch(); ++y)
        {
          for (int x = 0; x < Patch(); ++x)
          {
            values.push_back(*out.At(slot, c, y, x));
          }
        }
      }
    }
    return values;
  }

  /** Fills the first slots with patterns 0, 1, 2...; what comes out of each. */
  std::vector<std::vector<float>> Run(int filled)
  {
    for (int n = 0; n < filled; ++n)
    {
      Fill(n, n);
    }
    predictor->Run(filled);
    std::vector<std::vector<float>> values;
    for (int n = 0; n < filled; ++n)
    {
      values.push_back(Values(n));
    }
    return values;
  }
};

RuntimeOptions Options(int batch, int threads)
{
  RuntimeOptions o;
  o.batch = batch;
  o.threads = threads;
  return o;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b)
{
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

class GoodModel : public testing::TestWithParam<std::string>
{
};

TEST_P(GoodModel, GivesTheOutputsThatItsContractDeclares)
{
  Loaded m(GetParam(), Options(2, 1));
  ASSERT_EQ(m.predictor->Outputs(), static_cast<int>(m.contract.outputs.size()));
  EXPECT_EQ(m.predictor->BatchSize(), 2);
  EXPECT_EQ(m.predictor->CallSize(), 2);
  for (std::size_t k = 0; k < m.contract.inputs.size(); ++k)
  {
    EXPECT_EQ(m.predictor->Input(static_cast<int>(k)).channels, static_cast<int>(m.contract.inputs[k].bands.size()));
  }
  const auto values = m.Run(2);
  int channels = 0;
  for (std::size_t k = 0; k < m.contract.outputs.size(); ++k)
  {
    EXPECT_EQ(m.predictor->Output(static_cast<int>(k)).channels, m.contract.outputs[k].channels);
    channels += m.contract.outputs[k].channels;
  }
  ASSERT_EQ(values[0].size(), std::size_t(channels) * m.Patch() * m.Patch());
  EXPECT_TRUE(std::all_of(values[0].begin(), values[0].end(), [](float v) { return std::isfinite(v); }));
  EXPECT_FALSE(SameBits(values[0], values[1])) << "the inputs are not used";
}

TEST_P(GoodModel, GivesTheSameBitsWhateverTheBatchUnlessTheReportSaysOtherwise)
{
  const std::string reason = Loaded(GetParam(), Options(0, 1)).report.batchReason;
  Loaded two(GetParam(), Options(2, 1)), four(GetParam(), Options(4, 1));
  if (reason.find("4: rounds differently") != std::string::npos || !four.report.warnings.empty())
  {
    GTEST_SKIP() << reason;
  }
  const auto a = two.Run(2), b = four.Run(4);
  EXPECT_TRUE(SameBits(a[0], b[0]));
  EXPECT_TRUE(SameBits(a[1], b[1]));
}

TEST_P(GoodModel, GivesEachSlotWhateverIsInTheOthers)
{
  Loaded m(GetParam(), Options(4, 1));
  EXPECT_TRUE(m.report.warnings.empty()) << m.report.warnings[0];
  const auto before = m.Run(4);
  m.Fill(0, 17);
  m.Fill(1, 18);
  m.Fill(3, 2); // the pattern of slot 2
  m.predictor->Run(4);
  EXPECT_TRUE(SameBits(m.Values(2), before[2]));
  EXPECT_TRUE(SameBits(m.Values(3), before[2]));
  EXPECT_FALSE(SameBits(m.Values(0), before[0]));
}

TEST_P(GoodModel, GivesTheSameBitsWithOneThreadAndTwo)
{
  Loaded one(GetParam(), Options(2, 1)), two(GetParam(), Options(2, 2));
  EXPECT_EQ(one.report.workers, 1);
  EXPECT_EQ(two.report.workers, 2);
  EXPECT_EQ(two.predictor->BatchSize(), 4);
  EXPECT_EQ(two.predictor->CallSize(), 2);
  const auto a = one.Run(2), b = two.Run(4);
  EXPECT_TRUE(SameBits(a[0], b[0]));
  EXPECT_TRUE(SameBits(a[1], b[1]));
}

INSTANTIATE_TEST_SUITE_P(Models, GoodModel,
                         testing::Values("unet.pt", "unet_sem.pt", "transition.pt", "attention.pt", "twochannel.pt", "prob.pt", "dict.pt", "pixel.pt", "nan.pt",
                                         "oneband.pt"),
                         [](const auto& info) { return info.param.substr(0, info.param.find('.')); });

TEST(Predictor, ABatchThatIsNotFullGivesTheSameBits)
{
  Loaded m("unet.pt", Options(2, 2));
  const auto full = m.Run(4);
  for (int filled = 1; filled < 4; ++filled)
  {
    const auto part = m.Run(filled);
    for (int n = 0; n < filled; ++n)
    {
      EXPECT_TRUE(SameBits(part[n], full[n])) << n << " of " << filled;
    }
  }
}

TEST(Predictor, ADictionaryIsReadByTheNamesOfTheContract)
{
  Loaded m("dict.pt", Options(2, 1));
  m.Fill(0, 0);
  m.Fill(1, 1);
  m.predictor->Run(2);
  ASSERT_EQ(m.contract.outputs[1].name, "difference");
  const auto a = m.predictor->Input(0), b = m.predictor->Input(1), out = m.predictor->Output(1);
  for (int x = 0; x < m.Patch(); ++x)
  {
    double mean = 0.;
    for (int c = 0; c < 4; ++c)
    {
      mean += std::abs(*a.At(1, c, 5, x) - *b.At(1, c, 5, x)) / 4.;
    }
    ASSERT_NEAR(*out.At(1, 0, 5, x), mean, 1e-5);
  }
}

TEST(Predictor, TwoOfThemDoNotDisturbEachOther)
{
  Loaded a("unet.pt", Options(2, 1)), b("pixel.pt", Options(2, 2));
  const auto first = a.Run(2);
  b.Run(4);
  const auto again = a.Run(2);
  EXPECT_TRUE(SameBits(first[0], again[0]));
}

TEST(Predictor, TheReportSaysWhatWasSettled)
{
  Loaded given("unet.pt", Options(4, 2));
  const auto& r = given.report;
  EXPECT_EQ(r.device, "cpu");
  EXPECT_THAT(r.deviceReason, HasSubstr("auto"));
  EXPECT_EQ(r.precision, "fp32");
  EXPECT_EQ(r.threads, 2);
  EXPECT_EQ(r.workers, 2);
  EXPECT_EQ(r.batch, 4);
  EXPECT_EQ(r.batchReason, "as asked");
  EXPECT_EQ(r.memoryFormat, "channels-last");
  EXPECT_FALSE(r.torchVersion.empty());
  EXPECT_FALSE(r.blas.empty());
  // At least the two inputs of 4 bands and the output; at most a few hundred times that.
  const std::size_t least = std::size_t(9) * 96 * 96 * sizeof(float);
  EXPECT_GT(r.bytesPerSample, least);
  EXPECT_LT(r.bytesPerSample, 300 * least);
  EXPECT_GT(r.secondsPerSample, 0.);
  EXPECT_TRUE(r.warnings.empty());

  RuntimeOptions cpu = Options(2, 1);
  cpu.device = "cpu";
  EXPECT_EQ(Loaded("pixel.pt", cpu).report.deviceReason, "as asked");
}

TEST(Predictor, TheBatchIsMeasuredWhereItIsNotGiven)
{
  Loaded m("pixel.pt", Options(0, 1));
  EXPECT_GE(m.report.batch, 2);
  EXPECT_EQ(m.predictor->CallSize(), m.report.batch);
  EXPECT_THAT(m.report.batchReason, HasSubstr("measured, ms a patch: 2: "));
  EXPECT_GT(m.report.secondsPerSample, 0.);
}

TEST(Predictor, MeasuringStopsWhereTheJobIsSmall)
{
  RuntimeOptions o = Options(0, 1);
  o.samples = 10;
  Loaded m("pixel.pt", o);
  EXPECT_EQ(m.report.batch, 2);
  EXPECT_THAT(m.report.batchReason, HasSubstr("10 patches"));
}

TEST(Predictor, ForwardsSideBySideAreAsManyAsTheMemoryHolds)
{
  const Loaded free("unet.pt", Options(2, 2));
  RuntimeOptions o = Options(2, 2);
  o.memory = free.report.bytesBase + 3 * free.report.bytesPerSample;
  Loaded tight("unet.pt", o);
  EXPECT_EQ(tight.report.workers, 1);
  EXPECT_EQ(tight.predictor->BatchSize(), 2);
  Loaded one("unet.pt", Options(2, 1));
  const auto a = one.Run(2), b = tight.Run(2);
  EXPECT_TRUE(SameBits(a[0], b[0]));
  EXPECT_TRUE(SameBits(a[1], b[1]));
}

TEST(Predictor, MemoryThatHoldsNotEvenOneForwardIsWarnedOf)
{
  RuntimeOptions o = Options(2, 1);
  o.memory = 1;
  const Loaded m("unet.pt", o);
  ASSERT_FALSE(m.report.warnings.empty());
  EXPECT_THAT(m.report.warnings[0], HasSubstr("-ram"));
}

TEST(Predictor, ADeviceThatIsNotThereIsAnError)
{
  const auto message = [](const std::string& device)
  {
    RuntimeOptions o = Options(2, 1);
    o.device = device;
    return MessageOf([&] { Loaded("pixel.pt", o); });
  };
  for (const char* bad : {"gpu", "cuda:", "cuda:x", "cuda0", "CPU", ""})
  {
    EXPECT_THAT(message(bad), AllOf(HasSubstr("device: "), HasSubstr("auto, cpu, cuda or cuda:N"))) << bad;
  }
  for (const char* none : {"cuda:99", "cuda:99999999999999999999"})
  {
    EXPECT_THAT(message(none), AllOf(HasSubstr("device: "), AnyOf(HasSubstr("built without CUDA"), HasSubstr("usable GPU")))) << none;
  }
}

TEST(Predictor, WithoutCudaTheMessageSaysSo)
{
  if (Loaded("pixel.pt", Options(2, 1)).report.deviceReason != "auto: this LibTorch has no CUDA")
  {
    GTEST_SKIP() << "this LibTorch has CUDA";
  }
  RuntimeOptions o = Options(2, 1);
  o.device = "cuda";
  EXPECT_THAT(MessageOf([&] { Loaded("pixel.pt", o); }), AllOf(HasSubstr("built without CUDA"), HasSubstr("-device cpu")));
}

TEST(Predictor, APrecisionThatDoesNotExistIsAnError)
{
  RuntimeOptions o = Options(2, 1);
  o.device = "cpu";
  o.precision = "fp16";
  EXPECT_THAT(MessageOf([&] { Loaded("pixel.pt", o); }), AllOf(HasSubstr("precision: "), HasSubstr("fp16 on the CPU"), HasSubstr("bf16")));
  o.precision = "fp64";
  EXPECT_THAT(MessageOf([&] { Loaded("pixel.pt", o); }), AllOf(HasSubstr("\"fp64\""), HasSubstr("fp32, bf16 or fp16")));
}

TEST(Predictor, HalfTheBitsGiveAboutTheSame)
{
  RuntimeOptions o = Options(2, 1);
  o.precision = "bf16";
  Loaded exact("unet.pt", Options(2, 1)), coarse("unet.pt", o);
  EXPECT_EQ(coarse.report.precision, "bf16");
  const auto a = exact.Run(2), b = coarse.Run(2);
  double difference = 0., size = 0.;
  for (std::size_t i = 0; i < a[0].size(); ++i)
  {
    difference += std::pow(a[0][i] - b[0][i], 2.);
    size += std::pow(a[0][i], 2.);
  }
  EXPECT_GT(difference, 0.);
  EXPECT_LT(std::sqrt(difference / size), .1);
}

TEST(Predictor, ANetworkThatRefusesTheDeclaredBandsIsNamedWithThem)
{
  EXPECT_THAT(MessageOf([] { Loaded("mismatch_channels.pt", Options(2, 1)); }),
              AllOf(HasSubstr("does not run on the inputs of its contract"), HasSubstr("x1 2 x 4 x 64 x 64, x2 2 x 4 x 64 x 64"), HasSubstr("channels"),
                    Not(HasSubstr("frame #"))));
}

TEST(Predictor, AnotherNumberOfOutputsIsNamed)
{
  EXPECT_THAT(MessageOf([] { Loaded("mismatch_outputs.pt", Options(2, 1)); }),
              AllOf(HasSubstr("returns 1 tensor(s)"), HasSubstr("expected 3"), HasSubstr("mlm:output")));
}

/** What loading says when the contract is not that of the model. */
std::string MessageFor(const std::string& model, const std::function<void(ModelContract&)>& change)
{
  ModelContract contract = ReadContract(Model(model));
  change(contract);
  RuntimeReport report;
  return MessageOf([&] { LoadPredictor(Model(model), contract, Options(2, 1), report); });
}

TEST(Predictor, AnotherShapeOfAnOutputIsNamed)
{
  EXPECT_THAT(MessageFor("twochannel.pt", [](ModelContract& c) { c.outputs[0].channels = 1; }),
              AllOf(HasSubstr("\"change\""), HasSubstr("[2, 2, 64, 64]"), HasSubstr("[2, 1, 64, 64]"), HasSubstr("/properties/mlm:output/0")));
}

TEST(Predictor, APatchThatTheNetworkCannotTakeIsAnError)
{
  EXPECT_NE(MessageFor("unet.pt", [](ModelContract& c) { c.tiling.patch = 95; }), "");
}

TEST(Predictor, ADictionaryWithoutAnOutputIsAnError)
{
  EXPECT_THAT(MessageFor("dict.pt", [](ModelContract& c) { c.outputs[1].name = "distance"; }), HasSubstr("without the output \"distance\""));
}

TEST(Predictor, AFileThatIsNoModelIsAnErrorHereToo)
{
  const ModelContract contract = ReadContract(Model("pixel.pt"));
  for (const char* name : {"empty.pt", "corrupt.pt", "truncated.pt", "notscript.pt", "absent.pt"})
  {
    RuntimeReport report;
    EXPECT_THAT(MessageOf([&] { LoadPredictor(Model(name), contract, Options(2, 1), report); }), AllOf(HasSubstr(name), Not(HasSubstr("frame #")))) << name;
  }
}

/** Puts a limit on tensors for the life of the object. */
class Limit
{
public:
  explicit Limit(std::size_t more) { TensorMemory::SetLimit(TensorMemory::InUse() + more); }
  ~Limit() { TensorMemory::SetLimit(0); }
};

/** Bytes that a run takes beside what lives already. */
std::size_t NeedOf(Loaded& m, int filled)
{
  TensorMemory::ResetPeak();
  m.predictor->Run(filled);
  return TensorMemory::Peak() - TensorMemory::InUse();
}

TEST(PredictorMemory, AForwardThatIsTooLargeIsHalvedOnceAndGivesTheSame)
{
  std::vector<std::string> warnings;
  RuntimeOptions o = Options(4, 1);
  o.warn = [&](const std::string& text) { warnings.push_back(text); };
  Loaded m("unet.pt", o);
  const auto before = m.Run(4);
  const std::size_t need = NeedOf(m, 4);
  ASSERT_GT(need, 0u);
  {
    const Limit limit(need * 7 / 10);
    for (int run = 0; run < 2; ++run)
    {
      const auto values = m.Run(4);
      for (int n = 0; n < 4; ++n)
      {
        EXPECT_TRUE(SameBits(values[n], before[n])) << n;
      }
    }
    const auto three = m.Run(3);
    EXPECT_TRUE(SameBits(three[2], before[2]));
  }
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_THAT(warnings[0], AllOf(HasSubstr("out of memory with 4"), HasSubstr("going on with 2")));
}

TEST(PredictorMemory, AnOddForwardIsHalvedToo)
{
  Loaded m("unet.pt", Options(3, 1));
  const auto before = m.Run(3);
  const Limit limit(NeedOf(m, 3) * 8 / 10);
  const auto values = m.Run(3);
  for (int n = 0; n < 3; ++n)
  {
    EXPECT_TRUE(SameBits(values[n], before[n])) << n;
  }
}

TEST(PredictorMemory, WhereHalfDoesNotFitEitherItIsAnError)
{
  Loaded m("unet.pt", Options(4, 1));
  const auto before = m.Run(4);
  const std::size_t need = NeedOf(m, 4);
  {
    const Limit limit(need * 3 / 10);
    EXPECT_THAT(MessageOf([&] { m.Run(4); }), AllOf(HasSubstr("out of memory"), HasSubstr("-batch"), Not(HasSubstr("frame #"))));
  }
  const auto after = m.Run(4);
  EXPECT_TRUE(SameBits(after[3], before[3])) << "it does not recover";
}

TEST(PredictorMemory, OnePatchThatDoesNotFitIsAnError)
{
  Loaded m("unet.pt", Options(1, 1));
  const Limit limit(NeedOf(m, 1) / 2);
  EXPECT_THAT(MessageOf([&] { m.Run(1); }), AllOf(HasSubstr("not enough memory for one patch"), Not(HasSubstr("frame #"))));
}

TEST(PredictorMemory, AFailureInAWorkerReachesTheCaller)
{
  Loaded m("unet.pt", Options(2, 2));
  m.Run(4);
  const Limit limit(1);
  EXPECT_THAT(MessageOf([&] { m.Run(4); }), HasSubstr("out of memory"));
}

TEST(PredictorMemory, ARunLeavesNoTensorBehind)
{
  Loaded m("unet_sem.pt", Options(2, 2));
  m.Run(4);
  const std::size_t before = TensorMemory::InUse();
  for (int run = 0; run < 5; ++run)
  {
    m.predictor->Run(4);
  }
  EXPECT_EQ(TensorMemory::InUse(), before);
}

TEST(PredictorMemory, APredictorThatIsGoneLeavesNothingBehind)
{
  {
    Loaded first("unet.pt", Options(2, 1));
    first.Run(2);
  }
  const std::size_t before = TensorMemory::InUse();
  {
    Loaded second("unet.pt", Options(2, 1));
    second.Run(2);
    EXPECT_GT(TensorMemory::InUse(), before);
  }
  EXPECT_EQ(TensorMemory::InUse(), before);
}

} // namespace
