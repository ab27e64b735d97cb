/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// From logits to maps: by hand, and against the joint posterior computed pair by pair.
#include "otbDLChangeDecision.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <vector>

namespace
{

using namespace otb::dl;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using Result = ChangeDecision::Result;

const std::vector<Result> all = {ChangeDecision::Change, ChangeDecision::Probability, ChangeDecision::Class1, ChangeDecision::Class2,
                                 ChangeDecision::Confidence};

ModelOutput Output(const std::string& role, int channels, int classes = 0, int firstValue = 10)
{
  ModelOutput out;
  out.name = out.role = role;
  out.channels = channels;
  for (int k = 0; k < classes; ++k)
  {
    out.classes.push_back({firstValue + k, "class " + std::to_string(k), ""});
  }
  return out;
}

ModelContract Contract(std::vector<ModelOutput> outputs)
{
  ModelContract c;
  c.id = "test";
  c.task = "change-detection";
  c.outputs = std::move(outputs);
  return c;
}

/** Change logits, and heads of K classes: values 10, 11... at date 1, 20, 21... at date 2. An output that is to be ignored comes first. */
ModelContract Semantic(int k)
{
  return Contract({Output("aux", 3), Output("sem2_logits", k, k, 20), Output("change_logits", 1), Output("sem1_logits", k, k, 10)});
}

/** Tensors of 1 x channels x size x size of several outputs, with pixel p of channel c of output o at values[o][c][p]. */
class Tensors
{
public:
  Tensors(const ModelContract& contract, int size) : m_Size(size)
  {
    for (const auto& out : contract.outputs)
    {
      values.emplace_back(out.channels, std::vector<float>(size * size, 0.f));
    }
  }
  std::vector<BatchView> Views()
  {
    std::vector<BatchView> views;
    m_Memory.clear();
    for (const auto& channels : values)
    {
      m_Memory.emplace_back();
      for (const auto& c : channels)
      {
        m_Memory.back().insert(m_Memory.back().end(), c.begin(), c.end());
      }
    }
    for (auto& m : m_Memory)
    {
      const std::ptrdiff_t plane = std::ptrdiff_t(m_Size) * m_Size;
      views.push_back({m.data(), static_cast<int>(m.size() / plane), std::ptrdiff_t(m.size()), plane, m_Size, 1});
    }
    return views;
  }
  std::vector<std::vector<std::vector<float>>> values; ///< [output][channel][pixel]

private:
  int m_Size;
  std::vector<std::vector<float>> m_Memory;
};

/** Score and Decide: the wanted maps, each of size x size pixels. */
std::map<Result, std::vector<float>> Decide(const ChangeDecision& decision, const std::vector<Result>& wanted, Tensors& tensors, int size)
{
  const std::size_t n = std::size_t(size) * size;
  std::vector<float> scores(n * decision.ScoreChannels()), results(n * wanted.size());
  decision.Score(tensors.Views(), 0, {0, 0, size, size}, scores.data());
  decision.Decide(scores.data(), n, n, results.data(), n);
  std::map<Result, std::vector<float>> maps;
  for (std::size_t r = 0; r < wanted.size(); ++r)
  {
    maps[wanted[r]].assign(results.begin() + r * n, results.begin() + (r + 1) * n);
  }
  return maps;
}

/** Change maps of a binary network for four values of its output(s). */
std::map<Result, std::vector<float>> Binary(const ModelContract& contract, const std::vector<std::vector<float>>& channels, double threshold)
{
  const std::vector<Result> wanted = {ChangeDecision::Change, ChangeDecision::Probability, ChangeDecision::Confidence};
  Tensors tensors(contract, 2);
  tensors.values[0] = channels;
  return Decide(ChangeDecision(contract, wanted, threshold), wanted, tensors, 2);
}

float Sigmoid(double z)
{
  return static_cast<float>(1. / (1. + std::exp(-z)));
}

TEST(ChangeDecisionBinary, OneLogitIsASigmoid)
{
  const auto maps = Binary(Contract({Output("change_logits", 1)}), {{-2.f, 0.f, 2.f, -.001f}}, .5);
  EXPECT_THAT(maps.at(ChangeDecision::Change), ElementsAre(0, 1, 1, 0));
  const auto& p = maps.at(ChangeDecision::Probability);
  const auto& confidence = maps.at(ChangeDecision::Confidence);
  const float z[] = {-2.f, 0.f, 2.f, -.001f};
  for (int i = 0; i < 4; ++i)
  {
    EXPECT_FLOAT_EQ(p[i], Sigmoid(z[i]));
    EXPECT_FLOAT_EQ(confidence[i], std::max(p[i], 1.f - p[i]));
  }
}

TEST(ChangeDecisionBinary, TwoLogitsAreASoftmaxOverNoChangeAndChange)
{
  const auto maps = Binary(Contract({Output("change_logits", 2)}), {{1.f, 3.f, 0.f, 100.f}, {1.f, 1.f, 4.f, 101.f}}, .5);
  EXPECT_THAT(maps.at(ChangeDecision::Change), ElementsAre(1, 0, 1, 1));
  const auto& p = maps.at(ChangeDecision::Probability);
  EXPECT_FLOAT_EQ(p[0], .5f);
  EXPECT_FLOAT_EQ(p[1], static_cast<float>(std::exp(1.) / (std::exp(1.) + std::exp(3.))));
  EXPECT_FLOAT_EQ(p[2], static_cast<float>(std::exp(4.) / (std::exp(4.) + 1.)));
  EXPECT_FLOAT_EQ(p[3], Sigmoid(1.));
}

TEST(ChangeDecisionBinary, AProbabilityIsTakenAsItIs)
{
  ModelContract contract = Contract({Output("change_probability", 1)});
  contract.temperature = 3.; // of logits, not of probabilities
  const auto maps = Binary(contract, {{0.f, .25f, .75f, 1.f}}, .5);
  EXPECT_THAT(maps.at(ChangeDecision::Probability), ElementsAre(0.f, .25f, .75f, 1.f));
  EXPECT_THAT(maps.at(ChangeDecision::Change), ElementsAre(0, 0, 1, 1));
  EXPECT_THAT(maps.at(ChangeDecision::Confidence), ElementsAre(1.f, .75f, .75f, 1.f));
}

TEST(ChangeDecisionBinary, ChangeIsAtOrAboveTheThreshold)
{
  const ModelContract contract = Contract({Output("change_probability", 1)});
  const float t = .3f;
  const auto maps = Binary(contract, {{t, std::nextafter(t, 0.f), std::nextafter(t, 1.f), .5f}}, t);
  EXPECT_THAT(maps.at(ChangeDecision::Change), ElementsAre(1, 0, 1, 1));
  EXPECT_FLOAT_EQ(maps.at(ChangeDecision::Confidence)[0], .3f);
  EXPECT_FLOAT_EQ(maps.at(ChangeDecision::Confidence)[1], .7f);
}

TEST(ChangeDecisionBinary, AThresholdIsThatOfDecimals)
{
  // .1 and .7 are not floats: a probability written as .7f is at a threshold of .7.
  const ModelContract contract = Contract({Output("change_probability", 1)});
  EXPECT_EQ(Binary(contract, {{.7f, 0.f, 0.f, 0.f}}, .7).at(ChangeDecision::Change)[0], 1.f);
  EXPECT_EQ(Binary(contract, {{.1f, 0.f, 0.f, 0.f}}, .1).at(ChangeDecision::Change)[0], 1.f);
}

TEST(ChangeDecisionBinary, LogitsAreDividedByTheTemperature)
{
  ModelContract contract = Contract({Output("change_logits", 1)});
  contract.temperature = 4.;
  const auto p = Binary(contract, {{-2.f, 0.f, 2.f, 8.f}}, .5).at(ChangeDecision::Probability);
  EXPECT_THAT(p, ElementsAre(testing::FloatEq(Sigmoid(-.5)), .5f, testing::FloatEq(Sigmoid(.5)), testing::FloatEq(Sigmoid(2.))));
}

TEST(ChangeDecisionBinary, ExtremeLogitsStayWithinZeroAndOne)
{
  const auto p = Binary(Contract({Output("change_logits", 1)}), {{-1e30f, 1e30f, -200.f, 200.f}}, .5).at(ChangeDecision::Probability);
  EXPECT_THAT(p, ElementsAre(0.f, 1.f, 0.f, 1.f));
}

TEST(ChangeDecisionBinary, ANetworkThatIsNotFiniteGivesScoresThatAreNotFinite)
{
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const ModelContract contract = Contract({Output("change_logits", 1)});
  Tensors tensors(contract, 1);
  tensors.values[0][0][0] = nan;
  float score = 0.f;
  ChangeDecision(contract, {ChangeDecision::Change}, .5).Score(tensors.Views(), 0, {0, 0, 1, 1}, &score);
  EXPECT_FALSE(std::isfinite(score));
}

/** Random logits in every channel. */
void Randomise(Tensors& tensors, unsigned int seed, float spread)
{
  std::mt19937 random(seed);
  std::normal_distribution<float> value(0.f, spread);
  for (auto& output : tensors.values)
  {
    for (auto& channel : output)
    {
      for (auto& v : channel)
      {
        v = value(random);
      }
    }
  }
}

/** Softmax of the channels of an output at a pixel, in double precision. */
std::vector<double> Softmax(const std::vector<std::vector<float>>& channels, std::size_t pixel, double temperature)
{
  std::vector<double> p;
  double sum = 0.;
  for (const auto& c : channels)
  {
    p.push_back(std::exp(c[pixel] / temperature));
    sum += p.back();
  }
  for (auto& v : p)
  {
    v /= sum;
  }
  return p;
}

class ChangeDecisionSemantic : public testing::TestWithParam<std::tuple<int, double, double>>
{
};

TEST_P(ChangeDecisionSemantic, IsTheMostProbablePairOfTheJointPosterior)
{
  const auto [k, temperature, threshold] = GetParam();
  ModelContract contract = Semantic(k);
  contract.temperature = temperature;
  constexpr int size = 24;
  Tensors tensors(contract, size);
  Randomise(tensors, 3 + k, 2.f);
  const ChangeDecision decision(contract, all, threshold);
  EXPECT_EQ(decision.Classes(), k);
  auto maps = Decide(decision, all, tensors, size);

  int changes = 0;
  for (std::size_t i = 0; i < size * size; ++i)
  {
    const double p = 1. / (1. + std::exp(-tensors.values[2][0][i] / temperature));
    const auto p1 = Softmax(tensors.values[3], i, temperature), p2 = Softmax(tensors.values[1], i, temperature);
    double same = 0.;
    for (int a = 0; a < k; ++a)
    {
      same += p1[a] * p2[a];
    }
    ASSERT_NEAR(maps[ChangeDecision::Probability][i], p, 1e-5);
    if (std::abs(p - threshold) < 1e-5)
    {
      continue;
    }
    const bool changed = p >= threshold;
    changes += changed;
    double sum = 1. - p, best = -1., second = -1.;
    int from = -1, to = -1;
    for (int a = 0; a < k; ++a)
    {
      for (int b = 0; b < k; ++b)
      {
        const double joint = a == b ? 0. : p * p1[a] * p2[b] / (1. - same);
        sum += joint;
        const double rank = changed ? joint : p1[a] * p2[b];
        if ((a != b) == changed)
        {
          if (rank > best)
          {
            second = best;
            best = rank;
            from = a;
            to = b;
          }
          else
          {
            second = std::max(second, rank);
          }
        }
      }
    }
    ASSERT_NEAR(sum, 1., 1e-9);
    ASSERT_NEAR(maps[ChangeDecision::Confidence][i], changed ? best : 1. - p, 1e-5);
    if (best - second > 1e-6)
    {
      ASSERT_EQ(maps[ChangeDecision::Change][i], changed ? 1 + from * k + to : 0);
      ASSERT_EQ(maps[ChangeDecision::Class1][i], 10 + from);
      ASSERT_EQ(maps[ChangeDecision::Class2][i], 20 + to);
    }
  }
  EXPECT_GT(changes, size * size / 10);
  EXPECT_LT(changes, size * size * 9 / 10);
}
INSTANTIATE_TEST_SUITE_P(Heads, ChangeDecisionSemantic, testing::Combine(testing::Values(2, 3, 7), testing::Values(1., 2.5), testing::Values(.5, .3)));

TEST(ChangeDecision, TheThreeMapsNeverContradictEachOther)
{
  for (const float spread : {.1f, 3.f, 300.f})
  {
    for (const int k : {2, 3, 15, 16})
    {
      const ModelContract contract = Semantic(k);
      constexpr int size = 32;
      Tensors tensors(contract, size);
      Randomise(tensors, 40 + k, spread);
      auto maps = Decide(ChangeDecision(contract, all, .5), all, tensors, size);
      for (std::size_t i = 0; i < size * size; ++i)
      {
        const int code = static_cast<int>(maps[ChangeDecision::Change][i]);
        const int first = static_cast<int>(maps[ChangeDecision::Class1][i]) - 10, second = static_cast<int>(maps[ChangeDecision::Class2][i]) - 20;
        ASSERT_TRUE(first >= 0 && first < k && second >= 0 && second < k);
        ASSERT_EQ(code == 0, first == second);
        ASSERT_EQ(code, first == second ? 0 : 1 + first * k + second);
        ASSERT_EQ(code != 0, maps[ChangeDecision::Probability][i] >= .5f);
        const float confidence = maps[ChangeDecision::Confidence][i];
        ASSERT_TRUE(confidence >= 0.f && confidence <= 1.f) << confidence;
      }
    }
  }
}

TEST(ChangeDecision, HeadsSureOfOneClassBesideASureChangeStillGiveAPair)
{
  const ModelContract contract = Semantic(3);
  Tensors tensors(contract, 1);
  tensors.values[2][0][0] = 50.f;
  tensors.values[3][1][0] = tensors.values[1][1][0] = 500.f;
  auto maps = Decide(ChangeDecision(contract, all, .5), all, tensors, 1);
  EXPECT_NE(maps[ChangeDecision::Class1][0] - 10, maps[ChangeDecision::Class2][0] - 20);
  EXPECT_GT(maps[ChangeDecision::Change][0], 0.f);
  EXPECT_GE(maps[ChangeDecision::Confidence][0], 0.f);
  EXPECT_LE(maps[ChangeDecision::Confidence][0], 1.f);
}

TEST(ChangeDecision, SemanticPairByHand)
{
  // Date 1: 70 % class 0, 30 % class 1. Date 2: 20 %, 80 %. Change: 90 %. Pairs: 0->1 .56, 1->0 .06, of .62 that differ.
  const ModelContract contract = Semantic(2);
  Tensors tensors(contract, 1);
  tensors.values[2][0][0] = std::log(.9f / .1f);
  tensors.values[3][0][0] = std::log(.7f);
  tensors.values[3][1][0] = std::log(.3f);
  tensors.values[1][0][0] = std::log(.2f);
  tensors.values[1][1][0] = std::log(.8f);
  auto changed = Decide(ChangeDecision(contract, all, .5), all, tensors, 1);
  EXPECT_EQ(changed[ChangeDecision::Change][0], 1 + 0 * 2 + 1);
  EXPECT_EQ(changed[ChangeDecision::Class1][0], 10);
  EXPECT_EQ(changed[ChangeDecision::Class2][0], 21);
  EXPECT_NEAR(changed[ChangeDecision::Confidence][0], .9 * .56 / .62, 1e-6);
  // Above that threshold nothing changed: the common class is 1 (.24 against .14).
  auto same = Decide(ChangeDecision(contract, all, .95), all, tensors, 1);
  EXPECT_EQ(same[ChangeDecision::Change][0], 0);
  EXPECT_EQ(same[ChangeDecision::Class1][0], 11);
  EXPECT_EQ(same[ChangeDecision::Class2][0], 21);
  EXPECT_NEAR(same[ChangeDecision::Confidence][0], .1, 1e-6);
}

ModelContract Transition(int k)
{
  return Contract({Output("transition_logits", 1 + k * k, k, 5)});
}

TEST(ChangeDecisionTransition, ByHand)
{
  const ModelContract contract = Transition(2);
  Tensors tensors(contract, 2);
  // no change, 0->0, 0->1, 1->0, 1->1
  const float p[4][5] = {{.6f, .1f, .1f, .1f, .1f}, {.4f, .05f, .1f, .3f, .15f}, {.2f, .1f, .2f, .1f, .4f}, {.1f, .5f, .2f, .1f, .1f}};
  for (int i = 0; i < 4; ++i)
  {
    for (int c = 0; c < 5; ++c)
    {
      tensors.values[0][c][i] = std::log(p[i][c]) + 3.f;
    }
  }
  auto maps = Decide(ChangeDecision(contract, all, .5), all, tensors, 2);
  EXPECT_THAT(maps[ChangeDecision::Change], ElementsAre(0, 3, 4, 1));
  EXPECT_THAT(maps[ChangeDecision::Class1], ElementsAre(255, 6, 6, 5));
  EXPECT_THAT(maps[ChangeDecision::Class2], ElementsAre(255, 5, 6, 5));
  const double probability[] = {.4, .6, .8, .9}, confidence[] = {.6, .3, .4, .5};
  for (int i = 0; i < 4; ++i)
  {
    EXPECT_NEAR(maps[ChangeDecision::Probability][i], probability[i], 1e-6);
    EXPECT_NEAR(maps[ChangeDecision::Confidence][i], confidence[i], 1e-6);
  }
}

TEST(ChangeDecisionTransition, CodesAreThoseOfTheBestTransition)
{
  const int k = 4;
  ModelContract contract = Transition(k);
  contract.temperature = 1.7;
  constexpr int size = 24;
  Tensors tensors(contract, size);
  Randomise(tensors, 9, 3.f);
  auto maps = Decide(ChangeDecision(contract, all, .97), all, tensors, size);
  int unchanged = 0;
  for (std::size_t i = 0; i < size * size; ++i)
  {
    const auto p = Softmax(tensors.values[0], i, contract.temperature);
    ASSERT_NEAR(maps[ChangeDecision::Probability][i], 1. - p[0], 1e-5);
    const auto best = std::max_element(p.begin() + 1, p.end()) - p.begin();
    const bool changed = maps[ChangeDecision::Probability][i] >= .97f;
    unchanged += !changed;
    ASSERT_EQ(maps[ChangeDecision::Change][i], changed ? best : 0);
    ASSERT_EQ(maps[ChangeDecision::Class1][i], changed ? 5 + (best - 1) / k : 255);
    ASSERT_EQ(maps[ChangeDecision::Class2][i], changed ? 5 + (best - 1) % k : 255);
    ASSERT_NEAR(maps[ChangeDecision::Confidence][i], changed ? p[best] : p[0], 1e-5);
  }
  EXPECT_GT(unchanged, 10);
  EXPECT_LT(unchanged, size * size - 10);
}

TEST(ChangeDecision, ScoresAreThoseOfTheSquareAskedForAndNoOther)
{
  const ModelContract contract = Semantic(3);
  constexpr int patch = 9, offset = 2, size = 4, slots = 3;
  // Channels last, as networks of convolutions give them.
  std::vector<std::vector<float>> memory;
  std::vector<BatchView> views;
  std::mt19937 random(6);
  std::normal_distribution<float> value(0.f, 1.f);
  for (const auto& out : contract.outputs)
  {
    memory.emplace_back(std::size_t(slots) * patch * patch * out.channels);
    std::generate(memory.back().begin(), memory.back().end(), [&] { return value(random); });
  }
  for (std::size_t o = 0; o < memory.size(); ++o)
  {
    const int c = contract.outputs[o].channels;
    views.push_back({memory[o].data(), c, std::ptrdiff_t(patch) * patch * c, 1, std::ptrdiff_t(patch) * c, c});
  }
  const ChangeDecision decision(contract, all, .5);
  ASSERT_EQ(decision.ScoreChannels(), 7);
  std::vector<float> scores(7 * size * size + 1, -9.f);
  decision.Score(views, 1, {offset, offset, offset + size, offset + size}, scores.data());
  EXPECT_EQ(scores.back(), -9.f);
  for (int y = 0; y < size; ++y)
  {
    for (int x = 0; x < size; ++x)
    {
      const auto logit = [&](int o, int c) { return *views[o].At(1, c, offset + y, offset + x); };
      const auto score = [&](int c) { return scores[c * size * size + y * size + x]; };
      ASSERT_FLOAT_EQ(score(0), Sigmoid(logit(2, 0)));
      for (int d = 0; d < 2; ++d)
      {
        const int o = d == 0 ? 3 : 1;
        const double sum = std::exp(logit(o, 0)) + std::exp(logit(o, 1)) + std::exp(logit(o, 2));
        for (int c = 0; c < 3; ++c)
        {
          ASSERT_NEAR(score(1 + 3 * d + c), std::exp(logit(o, c)) / sum, 1e-6);
        }
      }
    }
  }
}

TEST(ChangeDecision, ResultsComeInTheOrderAskedForWithAnyStride)
{
  const ModelContract contract = Semantic(2);
  const std::vector<Result> wanted = {ChangeDecision::Class2, ChangeDecision::Change};
  const ChangeDecision decision(contract, wanted, .5);
  EXPECT_EQ(decision.ResultChannels(), 2);
  constexpr std::ptrdiff_t scoreStride = 7, resultStride = 5;
  std::vector<float> scores(5 * scoreStride, 0.f), results(2 * resultStride, -9.f);
  const float first[] = {.9f, 1.f, 0.f, 0.f, 1.f}, second[] = {.1f, 0.f, 1.f, 0.f, 1.f};
  for (int c = 0; c < 5; ++c)
  {
    scores[c * scoreStride] = first[c];
    scores[c * scoreStride + 1] = second[c];
  }
  decision.Decide(scores.data(), scoreStride, 2, results.data(), resultStride);
  EXPECT_THAT(results, ElementsAre(21, 21, -9, -9, -9, 2, 0, -9, -9, -9));
}

TEST(ChangeDecision, ScoreChannelsAreThoseOfTheHeads)
{
  EXPECT_EQ(ChangeDecision(Contract({Output("change_logits", 2)}), {ChangeDecision::Change}, .5).ScoreChannels(), 1);
  EXPECT_EQ(ChangeDecision(Semantic(5), {ChangeDecision::Change}, .5).ScoreChannels(), 11);
  EXPECT_EQ(ChangeDecision(Transition(5), {ChangeDecision::Change}, .5).ScoreChannels(), 26);
}

TEST(ChangeDecision, NoDataIsAValueThatNoPixelCanHold)
{
  EXPECT_EQ(ChangeDecision::NoDataOf(ChangeDecision::Change, 0), 255.f);
  EXPECT_EQ(ChangeDecision::NoDataOf(ChangeDecision::Change, 15), 255.f);   // codes up to 225
  EXPECT_EQ(ChangeDecision::NoDataOf(ChangeDecision::Change, 16), 65535.f); // up to 256
  EXPECT_EQ(ChangeDecision::NoDataOf(ChangeDecision::Class1, 4), 255.f);
  EXPECT_EQ(ChangeDecision::NoDataOf(ChangeDecision::Class2, 16), 255.f);
  EXPECT_EQ(ChangeDecision::NoDataOf(ChangeDecision::Probability, 4), -1.f);
  EXPECT_EQ(ChangeDecision::NoDataOf(ChangeDecision::Confidence, 4), -1.f);
  EXPECT_THAT(ChangeDecision(Semantic(16), all, .5).NoData(), ElementsAre(65535.f, -1.f, 255.f, 255.f, -1.f));
}

std::string MessageOf(const ModelContract& contract, const std::vector<Result>& wanted)
{
  try
  {
    ChangeDecision(contract, wanted, .5);
  }
  catch (const Error& e)
  {
    return e.what();
  }
  return "";
}

TEST(ChangeDecision, ClassMapsOfANetworkWithoutClassesAreAnError)
{
  const ModelContract contract = Contract({Output("change_logits", 1, 2)});
  EXPECT_EQ(MessageOf(contract, {ChangeDecision::Change}), "");
  EXPECT_THAT(MessageOf(contract, {ChangeDecision::Change, ChangeDecision::Class1}), HasSubstr("sem1: "));
  EXPECT_THAT(MessageOf(contract, {ChangeDecision::Class2}), HasSubstr("sem2: "));
  EXPECT_THAT(MessageOf(contract, {ChangeDecision::Class2}), HasSubstr("no class heads"));
}

TEST(ChangeDecision, AClassValueBeyond254IsAnError)
{
  ModelContract contract = Semantic(3);
  contract.outputs[1].classes[2].value = 254;
  EXPECT_EQ(MessageOf(contract, all), "");
  contract.outputs[1].classes[2].value = 255;
  EXPECT_THAT(MessageOf(contract, all), HasSubstr("255"));
}

TEST(ChangeDecision, AnotherTaskIsAnError)
{
  ModelContract contract = Semantic(3);
  contract.task = "time-series-classification";
  EXPECT_THAT(MessageOf(contract, all), HasSubstr("time-series-classification"));
}

TEST(ChangeDecision, ClassHeadsOfOneClassAreAnError)
{
  EXPECT_THAT(MessageOf(Semantic(1), all), HasSubstr("two classes"));
  EXPECT_EQ(MessageOf(Semantic(2), all), "");
}

/** Two members with temperatures, two views of each. */
TEST(ChangeDecisionPredictions, AreAveragedAsProbabilitiesAndDisagree)
{
  auto contract = Contract({Output("aux", 1), Output("change_logits", 1)});
  ChangeDecision::Settings settings;
  settings.temperatures = {1., 2.};
  settings.views = 2;
  const std::vector<Result> wanted = {ChangeDecision::Change, ChangeDecision::Confidence, ChangeDecision::Probability};
  const ChangeDecision decision(contract, wanted, settings);
  EXPECT_EQ(decision.ScoreChannels(), 2);
  EXPECT_THAT(decision.ResultBands(), ElementsAre(1, 2, 1));
  EXPECT_THAT(decision.NoData(), ElementsAre(255.f, -1.f, -1.f, -1.f));

  // View 1 of members 1 and 2, view 2 of both: each with an output to ignore.
  auto four = contract;
  for (int k = 1; k < 4; ++k)
  {
    four.outputs.insert(four.outputs.end(), contract.outputs.begin(), contract.outputs.end());
  }
  Tensors tensors(four, 1);
  const double z[] = {1., -2., 4., .5};
  double p[4], mean = 0., meanEntropy = 0.;
  const auto entropy = [](double q) { return -q * std::log(q) - (1. - q) * std::log(1. - q); };
  for (int k = 0; k < 4; ++k)
  {
    tensors.values[2 * k + 1][0][0] = float(z[k]);
    p[k] = 1. / (1. + std::exp(-z[k] / (k % 2 == 0 ? 1. : 2.)));
    mean += p[k] / 4.;
    meanEntropy += entropy(p[k]) / 4.;
  }
  float scores[2], results[4];
  decision.Score(tensors.Views(), 0, {0, 0, 1, 1}, scores);
  decision.Decide(scores, 1, 1, results, 1);
  EXPECT_EQ(results[0], 1.f);
  EXPECT_NEAR(results[1], mean, 1e-6);
  EXPECT_NEAR(results[2], entropy(mean) - meanEntropy, 1e-6);
  EXPECT_NEAR(results[3], mean, 1e-6);
}

TEST(ChangeDecisionPredictions, ThatAgreeHaveNoMutualInformation)
{
  const auto contract = Transition(2);
  ChangeDecision::Settings settings;
  settings.views = 3;
  const ChangeDecision decision(contract, {ChangeDecision::Confidence}, settings);
  auto three = contract;
  three.outputs = {contract.outputs[0], contract.outputs[0], contract.outputs[0]};
  Tensors tensors(three, 1);
  for (auto& output : tensors.values)
  {
    output[2][0] = 3.f;
  }
  std::vector<float> scores(std::size_t(decision.ScoreChannels())), results(2);
  decision.Score(tensors.Views(), 0, {0, 0, 1, 1}, scores.data());
  decision.Decide(scores.data(), 1, 1, results.data(), 1);
  EXPECT_NEAR(results[0], std::exp(3.) / (std::exp(3.) + 4.), 1e-6);
  EXPECT_NEAR(results[1], 0., 1e-6);

  // Three that are each sure of something else know nothing together: ln 3.
  for (int k = 0; k < 3; ++k)
  {
    tensors.values[k][2][0] = 0.f;
    tensors.values[k][k][0] = 60.f;
  }
  decision.Score(tensors.Views(), 0, {0, 0, 1, 1}, scores.data());
  decision.Decide(scores.data(), 1, 1, results.data(), 1);
  EXPECT_NEAR(results[1], std::log(3.), 1e-5);
}

TEST(ChangeDecisionPredictions, AWindowIsAGaussianThatEndsThere)
{
  ChangeDecision::Settings settings;
  settings.window = 7;
  EXPECT_EQ(ChangeDecision(Contract({Output("change_logits", 1)}), {ChangeDecision::Change}, settings).Smoothing().size(), 7u);
  settings.window = 1;
  EXPECT_TRUE(ChangeDecision(Contract({Output("change_logits", 1)}), {ChangeDecision::Change}, settings).Smoothing().empty());
}

} // namespace
