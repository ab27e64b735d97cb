/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// Views of a patch: what a network that knows directions says of each, laid back; what one that knows none says is the same in all.
#include "otbDLError.h"
#include "otbDLViews.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace
{

using namespace otb::dl;
using testing::HasSubstr;

constexpr int side = 5, batch = 3;

/** A network of a function: value of output k, channel c at (y, x), of a slot whose inputs it may look at. */
class FunctionPredictor : public Predictor
{
public:
  using In = std::function<float(int input, int channel, int y, int x)>;
  using Function = std::function<float(const In& in, int output, int channel, int y, int x)>;

  FunctionPredictor(std::vector<int> inputs, std::vector<int> outputs, Function f) : m_InChannels(std::move(inputs)), m_OutChannels(std::move(outputs)), m_F(f)
  {
    for (const int c : m_InChannels)
    {
      m_In.emplace_back(std::size_t(batch * c * side * side));
    }
    for (const int c : m_OutChannels)
    {
      m_Out.emplace_back(std::size_t(batch * c * side * side));
    }
  }
  int BatchSize() const override { return batch; }
  int CallSize() const override { return batch; }
  int Outputs() const override { return int(m_OutChannels.size()); }
  /** Channels last, as LibTorch may have it. */
  BatchView Input(int k) override { return {m_In[k].data(), m_InChannels[k], m_InChannels[k] * side * side, 1, m_InChannels[k] * side, m_InChannels[k]}; }
  BatchView Output(int k) override
  {
    return {m_OutChannels[k] ? m_Out[k].data() : nullptr, m_OutChannels[k], m_OutChannels[k] * side * side, side * side, side, 1};
  }
  void Run(int filled) override
  {
    ++runs;
    for (int n = 0; n < filled; ++n)
    {
      const In in = [&](int k, int c, int y, int x) { return *Input(k).At(n, c, std::clamp(y, 0, side - 1), std::clamp(x, 0, side - 1)); };
      for (int k = 0; k < Outputs(); ++k)
      {
        for (int c = 0; c < m_OutChannels[k]; ++c)
        {
          for (int i = 0; i < side * side; ++i)
          {
            *Output(k).At(n, c, i / side, i % side) = m_F(in, k, c, i / side, i % side);
          }
        }
      }
    }
  }
  int runs = 0;

private:
  std::vector<int> m_InChannels, m_OutChannels;
  Function m_F;
  std::vector<std::vector<float>> m_In, m_Out;
};

ModelInput Image(int date)
{
  ModelInput in;
  in.role = "image";
  in.date = date;
  in.bands = {"a", "b"};
  in.scaling.resize(2);
  return in;
}

ModelOutput Output(const std::string& role, int channels, int classes = 0)
{
  ModelOutput out;
  out.role = role;
  out.channels = channels;
  out.classes.resize(classes);
  return out;
}

ModelContract Contract(std::vector<ModelOutput> outputs)
{
  ModelContract c;
  c.id = "test";
  c.task = "change-detection";
  c.inputs = {Image(1), Image(2)};
  c.outputs = std::move(outputs);
  c.tiling.patch = side;
  c.tiling.testTimeAugmentations = {"swap", "d4"};
  return c;
}

float Value(int n, int input, int channel, int y, int x)
{
  return float(1000 * n + 500 * input + 100 * channel + 10 * y + x);
}

void Fill(Predictor& p, int filled)
{
  for (int n = 0; n < filled; ++n)
  {
    for (int k = 0; k < 2; ++k)
    {
      for (int c = 0; c < 2; ++c)
      {
        for (int i = 0; i < side * side; ++i)
        {
          *p.Input(k).At(n, c, i / side, i % side) = Value(n, k, c, i / side, i % side);
        }
      }
    }
  }
}

TEST(Views, ANetworkThatLooksRightLooksAllWaysTwice)
{
  const auto contract = Contract({Output("change_logits", 1)});
  auto network = std::make_unique<FunctionPredictor>(std::vector<int>{2, 2}, std::vector<int>{1},
                                                     [](const auto& in, int, int, int y, int x) { return in(0, 1, y, x + 1) - in(1, 0, y, x); });
  auto* own = network.get();
  const auto views = MakeViewsPredictor(std::move(network), contract, ViewsOf("d4", contract), 2);
  for (int time = 0; time < 2; ++time) // what one batch leaves behind must not reach the next
  {
    Fill(*views, 2);
    views->Run(2);
    ASSERT_EQ(views->Outputs(), 8);
    for (int n = 0; n < 2; ++n)
    {
      for (int y = 1; y < side - 1; ++y)
      {
        for (int x = 1; x < side - 1; ++x)
        {
          std::map<float, int> found;
          for (int v = 0; v < 8; ++v)
          {
            ++found[*views->Output(v).At(n, 0, y, x) + Value(n, 1, 0, y, x)];
          }
          const std::map<float, int> wanted = {
              {Value(n, 0, 1, y, x + 1), 2}, {Value(n, 0, 1, y, x - 1), 2}, {Value(n, 0, 1, y + 1, x), 2}, {Value(n, 0, 1, y - 1, x), 2}};
          EXPECT_EQ(found, wanted) << n << ' ' << y << ' ' << x;
        }
      }
      EXPECT_EQ(*views->Output(0).At(n, 0, 2, 2), Value(n, 0, 1, 2, 3) - Value(n, 1, 0, 2, 2)) << "the first view is the patch as it is";
    }
  }
  EXPECT_EQ(own->runs, 16);
}

/** Symmetric about the anti-diagonal alone: tells all eight views apart. */
TEST(Views, TheEightAreDifferent)
{
  const auto contract = Contract({Output("change_logits", 1)});
  const auto views = MakeViewsPredictor(std::make_unique<FunctionPredictor>(std::vector<int>{2, 2}, std::vector<int>{1},
                                                                            [](const auto& in, int, int, int y, int x)
                                                                            { return in(0, 0, y + 1, x) + 1e4f * in(0, 0, y, x + 1); }),
                                        contract, ViewsOf("d4", contract), 1);
  Fill(*views, 1);
  views->Run(1);
  std::map<float, int> found;
  for (int v = 0; v < 8; ++v)
  {
    ++found[*views->Output(v).At(0, 0, 2, 2)];
  }
  EXPECT_EQ(found.size(), 8u);
}

TEST(Views, SwappedHeadsComeBackUnderTheirOwnDate)
{
  // An output to be ignored stands between the heads.
  const auto contract = Contract({Output("sem2_logits", 2, 2), Output("change_logits", 1), Output("aux", 0), Output("sem1_logits", 2, 2)});
  const auto network = [](const auto& in, int k, int c, int y, int x) {
    return k == 0 ? 3.f * in(1, c, y, x) : k == 3 ? 7.f * in(0, c, y, x) : in(0, 0, y, x) - 2.f * in(1, 1, y, x);
  };
  const auto views = MakeViewsPredictor(std::make_unique<FunctionPredictor>(std::vector<int>{2, 2}, std::vector<int>{2, 1, 0, 2}, network), contract,
                                        ViewsOf("swap", contract), 1);
  Fill(*views, batch);
  views->Run(batch);
  ASSERT_EQ(views->Outputs(), 8);
  EXPECT_EQ(views->Output(6).data, nullptr);
  for (int n = 0; n < batch; ++n)
  {
    for (int i = 0; i < side * side; ++i)
    {
      const int y = i / side, x = i % side;
      for (int c = 0; c < 2; ++c)
      {
        EXPECT_EQ(*views->Output(0).At(n, c, y, x), 3.f * Value(n, 1, c, y, x));
        EXPECT_EQ(*views->Output(3).At(n, c, y, x), 7.f * Value(n, 0, c, y, x));
        // The head of date 1 saw date 2.
        EXPECT_EQ(*views->Output(4).At(n, c, y, x), 7.f * Value(n, 1, c, y, x));
        EXPECT_EQ(*views->Output(7).At(n, c, y, x), 3.f * Value(n, 0, c, y, x));
      }
      EXPECT_EQ(*views->Output(1).At(n, 0, y, x), Value(n, 0, 0, y, x) - 2.f * Value(n, 1, 1, y, x));
      EXPECT_EQ(*views->Output(5).At(n, 0, y, x), Value(n, 1, 0, y, x) - 2.f * Value(n, 0, 1, y, x));
    }
  }
}

TEST(Views, SwappedTransitionsTurnRound)
{
  const auto contract = Contract({Output("transition_logits", 10, 3)});
  const auto views = MakeViewsPredictor(
      std::make_unique<FunctionPredictor>(std::vector<int>{2, 2}, std::vector<int>{10}, [](const auto&, int, int c, int, int) { return float(c); }), contract,
      ViewsOf("swap", contract), 1);
  Fill(*views, 1);
  views->Run(1);
  EXPECT_EQ(*views->Output(1).At(0, 0, 1, 1), 0.f);
  for (int from = 0; from < 3; ++from)
  {
    for (int to = 0; to < 3; ++to)
    {
      EXPECT_EQ(*views->Output(1).At(0, 1 + 3 * from + to, 1, 1), float(1 + 3 * to + from));
    }
  }
}

/** Two members: their outputs stand side by side in every view. */
TEST(Views, OfAnEnsemble)
{
  const auto contract = Contract({Output("change_logits", 1), Output("sem1_logits", 2, 2), Output("sem2_logits", 2, 2)});
  const auto network = [](const auto& in, int k, int c, int y, int x) {
    return float(k / 3 + 1) * (k % 3 == 0 ? in(0, 0, y, x) : k % 3 == 1 ? in(0, c, y, x) : in(1, c, y, x));
  };
  const auto views = MakeViewsPredictor(std::make_unique<FunctionPredictor>(std::vector<int>{2, 2}, std::vector<int>{1, 2, 2, 1, 2, 2}, network), contract,
                                        ViewsOf("swap", contract), 1);
  Fill(*views, 1);
  views->Run(1);
  ASSERT_EQ(views->Outputs(), 12);
  for (int member = 0; member < 2; ++member)
  {
    const float factor = float(member + 1);
    EXPECT_EQ(*views->Output(6 + 3 * member).At(0, 0, 1, 2), factor * Value(0, 1, 0, 1, 2));
    EXPECT_EQ(*views->Output(7 + 3 * member).At(0, 1, 1, 2), factor * Value(0, 0, 1, 1, 2));
    EXPECT_EQ(*views->Output(8 + 3 * member).At(0, 1, 1, 2), factor * Value(0, 1, 1, 1, 2));
  }
}

std::string Message(const std::function<void()>& f)
{
  try
  {
    f();
  }
  catch (const Error& e)
  {
    return e.what();
  }
  return "";
}

TEST(Views, WhatTheContractDoesNotAllowIsRefused)
{
  auto contract = Contract({Output("change_logits", 1)});
  EXPECT_EQ(ViewsOf("none", contract).size(), 1u);
  EXPECT_EQ(ViewsOf("swap", contract).size(), 2u);
  contract.inputs[1].bands[1] = "c";
  EXPECT_THAT(Message([&] { ViewsOf("swap", contract); }), HasSubstr("same bands"));
  EXPECT_EQ(ViewsOf("d4", contract).size(), 8u);
  contract.tiling.testTimeAugmentations = {"d4"};
  EXPECT_THAT(Message([&] { ViewsOf("swap", contract); }), HasSubstr("none, or d4"));
  contract.tiling.testTimeAugmentations.clear();
  EXPECT_THAT(Message([&] { ViewsOf("d4", contract); }), HasSubstr("lists no augmentation"));
}

} // namespace
