/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// From logits, probabilities and embeddings to maps, against closed forms.
#include "otbDLClassification.h"
#include "otbDLSeriesScene.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

namespace
{

using namespace otb::dl;
using namespace otbtest;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Result = Classification::Result;

const std::vector<ModelClass> classes = {{11, "wheat", "FFDD55"}, {12, "maize", ""}, {31, "forest", "33A02C"}, {5, "water", "1F78B4"}};

struct Chosen
{
  int label;
  std::string name, colour;
  std::vector<int> members;
};
bool operator==(const MapClass& a, const Chosen& b)
{
  return a.label == b.label && a.name == b.name && a.colour == b.colour && a.members == b.members;
}
void PrintTo(const Chosen& c, std::ostream* out)
{
  *out << c.label << " " << c.name << " " << c.colour << " of " << testing::PrintToString(c.members);
}

TEST(SelectClasses, UnlessAskedForTheyAreTheNetworksByLabel)
{
  EXPECT_THAT(SelectClasses(classes, {}), ElementsAre(Chosen{5, "water", "1F78B4", {3}}, Chosen{11, "wheat", "FFDD55", {0}}, Chosen{12, "maize", "", {1}},
                                                      Chosen{31, "forest", "33A02C", {2}}));
  EXPECT_THAT(SelectClasses({}, {}), IsEmpty());
}

TEST(SelectClasses, ANumberKeepsAClass)
{
  EXPECT_THAT(SelectClasses(classes, {"31", "12"}), ElementsAre(Chosen{12, "maize", "", {1}}, Chosen{31, "forest", "33A02C", {2}}));
}

TEST(SelectClasses, ClassesAreMergedIntoALabelWithAName)
{
  EXPECT_THAT(SelectClasses(classes, {"2:31+5:wild", "1:12+11:arable: all"}),
              ElementsAre(Chosen{1, "arable: all", "FFDD55", {1, 0}}, Chosen{2, "wild", "33A02C", {2, 3}}));
  EXPECT_THAT(SelectClasses(classes, {"7:31"}), ElementsAre(Chosen{7, "forest", "33A02C", {2}})) << "a new label";
  EXPECT_THAT(SelectClasses(classes, {"7:31:trees"}), ElementsAre(Chosen{7, "trees", "33A02C", {2}}));
  EXPECT_THAT(SelectClasses(classes, {"5:11", "11:5"}), ElementsAre(Chosen{5, "wheat", "FFDD55", {0}}, Chosen{11, "water", "1F78B4", {3}}));
}

TEST(SelectClasses, AMergedClassWithoutANameIsNotCalledAfterOneOfItsMembers)
{
  const auto merged = SelectClasses(classes, {"1:11+12"});
  ASSERT_EQ(merged.size(), 1u);
  EXPECT_THAT(merged[0].members, ElementsAre(0, 1));
  EXPECT_NE(merged[0].name, "wheat");
  EXPECT_NE(merged[0].name, "maize");
}

TEST(SelectClasses, WhatCannotBeReadIsAnError)
{
  for (const char* bad :
       {"", "wheat", "1:", ":11", "1:11+", "1:+11", "1:11++12", "+11", "11+", "-1:11", "1:-11", "1: 11", "1.5", "1:wheat", "11+12", "99999999", "1:11,12"})
  {
    EXPECT_THAT(ErrorOf([&] { SelectClasses(classes, {bad}); }), AllOf(HasSubstr("classes: found"), HasSubstr("1:11+12:crops"))) << bad;
  }
}

TEST(SelectClasses, AClassThatTheNetworkHasNotIsAnErrorThatNamesThoseItHas)
{
  EXPECT_THAT(ErrorOf([] { SelectClasses(classes, {"1:11+13"}); }), AllOf(HasSubstr("\"1:11+13\""), HasSubstr("11 12 31 5")));
}

TEST(SelectClasses, AClassOrALabelThatComesTwiceIsAnError)
{
  EXPECT_THAT(ErrorOf([] { SelectClasses(classes, {"1:11+12", "12"}); }), AllOf(HasSubstr("\"12\""), HasSubstr("12 is named twice")));
  EXPECT_THAT(ErrorOf([] { SelectClasses(classes, {"1:11+11"}); }), HasSubstr("11 is named twice"));
  EXPECT_THAT(ErrorOf([] { SelectClasses(classes, {"5", "5:11"}); }), HasSubstr("5 comes twice"));
  EXPECT_THAT(ErrorOf([] { SelectClasses(classes, {"0:11"}); }), HasSubstr("0 is no-data"));
}

ModelOutput Output(const std::string& role, int channels)
{
  ModelOutput out;
  out.name = out.role = role;
  out.channels = channels;
  return out;
}

ModelContract Contract(const std::vector<ModelOutput>& outputs, double temperature = 1.)
{
  ModelContract contract = PixelContract();
  contract.outputs = outputs;
  contract.temperature = temperature;
  return contract;
}

/** Classes 1, 2... of the network's channels. */
std::vector<MapClass> Plain(int count)
{
  std::vector<MapClass> list;
  for (int k = 0; k < count; ++k)
  {
    list.push_back({k + 1, "c" + std::to_string(k + 1), "", {k}});
  }
  return list;
}

using Pixels = std::vector<std::vector<float>>; ///< [channel][pixel]

/** Runs scores and decision over pixels. \param tensors those of the first member, of the second... \return [result][pixel] */
Pixels Decide(const Classification& c, const std::vector<Pixels>& tensors, Pixels* scoresOut = nullptr)
{
  const auto count = static_cast<std::ptrdiff_t>(tensors[0][0].size());
  std::vector<std::vector<float>> memory;
  std::vector<BatchView> views;
  for (const auto& t : tensors)
  {
    memory.emplace_back();
    for (const auto& channel : t)
    {
      memory.back().insert(memory.back().end(), channel.begin(), channel.end());
    }
  }
  for (std::size_t o = 0; o < tensors.size(); ++o)
  {
    views.push_back({memory[o].data(), static_cast<int>(tensors[o].size()), 0, count, 0, 1});
  }
  std::vector<float> scores(c.ScoreChannels() * count), results(c.ResultChannels() * count);
  c.Score(views, 0, {0, 0, count, 1}, scores.data());
  for (std::size_t s = scores.size() - c.CountChannels() * count; s < scores.size(); ++s)
  {
    scores[s] = 3.f; // as the engine does
  }
  c.Decide(scores.data(), count, count, results.data(), count);
  Pixels maps;
  for (int r = 0; r < c.ResultChannels(); ++r)
  {
    maps.emplace_back(results.begin() + r * count, results.begin() + (r + 1) * count);
  }
  for (int s = 0; scoresOut && s < c.ScoreChannels(); ++s)
  {
    scoresOut->emplace_back(scores.begin() + s * count, scores.begin() + (s + 1) * count);
  }
  return maps;
}

Pixels Decide(const ModelContract& contract, const std::vector<Result>& wanted, const std::vector<Pixels>& tensors, std::vector<MapClass> list = {})
{
  const int channels = contract.outputs[0].channels;
  const int members = static_cast<int>(tensors.size() / contract.outputs.size());
  return Decide(Classification(contract, std::vector<double>(members, contract.temperature), list.empty() ? Plain(channels) : list, wanted, 0, 1), tensors);
}

/** Logits whose softmax these are. */
Pixels Logs(const Pixels& p, float shift = 0.f)
{
  Pixels logits = p;
  for (auto& channel : logits)
  {
    for (auto& v : channel)
    {
      v = std::log(v) + shift;
    }
  }
  return logits;
}

const Pixels three = {{.2f, .1f, .5f}, {.7f, .1f, .25f}, {.1f, .8f, .25f}};

TEST(Classification, TheLabelIsThatOfTheMostProbableClassAndTheConfidenceItsProbability)
{
  const ModelContract contract = Contract({Output("logits", 3)});
  std::vector<MapClass> list = Plain(3);
  list[1].label = 200;
  const int best[] = {1, 2, 0};
  for (const float shift : {0.f, 500.f, -500.f})
  {
    const auto maps = Decide(contract, {Classification::Label, Classification::Confidence}, {Logs(three, shift)}, list);
    EXPECT_THAT(maps[0], ElementsAre(200, 3, 1));
    for (int i = 0; i < 3; ++i)
    {
      EXPECT_NEAR(maps[1][i], three[best[i]][i], 5e-5);
    }
  }
}

TEST(Classification, ProbabilitiesAreThousandthsRounded)
{
  const auto maps = Decide(Contract({Output("logits", 3)}), {Classification::Probabilities}, {Logs({{.2004f, .9996f}, {.6996f, .0002f}, {.1f, .0002f}})});
  ASSERT_EQ(maps.size(), 3u);
  EXPECT_THAT(maps[0], ElementsAre(200, 1000));
  EXPECT_THAT(maps[1], ElementsAre(700, 0));
  EXPECT_THAT(maps[2], ElementsAre(100, 0));
}

TEST(Classification, LogitsAreDividedByTheTemperature)
{
  // Odds of 9 to 1 become 3 to 1.
  const auto maps = Decide(Contract({Output("logits", 2)}, 2.), {Classification::Confidence}, {Logs({{.9f}, {.1f}})});
  EXPECT_NEAR(maps[0][0], .75, 1e-6);
  const auto cold = Decide(Contract({Output("logits", 2)}, .5), {Classification::Confidence}, {Logs({{.9f}, {.1f}})});
  EXPECT_NEAR(cold[0][0], .81 / .82, 1e-6);
}

TEST(Classification, ProbabilitiesOfTheNetworkAreTakenAsTheyAre)
{
  const auto maps = Decide(Contract({Output("probabilities", 3)}, 3.), {Classification::Label, Classification::Confidence}, {three});
  EXPECT_THAT(maps[0], ElementsAre(2, 3, 1));
  EXPECT_THAT(maps[1], ElementsAre(.7f, .8f, .5f));
}

TEST(Classification, HugeLogitsGiveProbabilitiesAndNotInfinities)
{
  const auto maps =
      Decide(Contract({Output("logits", 2)}), {Classification::Label, Classification::Confidence, Classification::Entropy, Classification::Margin},
             {{{3e38f, -3e38f, 0.f}, {-3e38f, -3e38f, 1e4f}}});
  EXPECT_THAT(maps[0], ElementsAre(1, 1, 2));
  EXPECT_THAT(maps[1], ElementsAre(1, .5f, 1));
  EXPECT_THAT(maps[2], ElementsAre(0, testing::FloatNear(1, 1e-6), 0));
  EXPECT_THAT(maps[3], ElementsAre(1, 0, 1));
}

TEST(Classification, OfEqualClassesThatOfTheLowestLabelIsTaken)
{
  EXPECT_THAT(Decide(Contract({Output("logits", 3)}), {Classification::Label}, {{{0, 0}, {0, 1}, {0, 1}}})[0], ElementsAre(1, 2));
}

TEST(Classification, MergedClassesAddTheirProbabilities)
{
  const std::vector<MapClass> list = {{4, "first two", "", {0, 1}}, {9, "last", "", {2}}};
  const auto maps = Decide(Contract({Output("logits", 3)}), {Classification::Label, Classification::Confidence, Classification::Margin}, {Logs(three)}, list);
  EXPECT_THAT(maps[0], ElementsAre(4, 9, 4));
  const double confidence[] = {.9, .8, .75}, margin[] = {.8, .6, .5};
  for (int i = 0; i < 3; ++i)
  {
    EXPECT_NEAR(maps[1][i], confidence[i], 1e-6);
    EXPECT_NEAR(maps[2][i], margin[i], 1e-6);
  }
}

TEST(Classification, ClassesThatAreLeftOutShareTheirProbabilityAmongTheOthers)
{
  const std::vector<MapClass> list = {{1, "", "", {0}}, {3, "", "", {2}}};
  for (const bool logits : {true, false})
  {
    const auto maps = Decide(Contract({Output(logits ? "logits" : "probabilities", 3)}), {Classification::Label, Classification::Confidence},
                             {logits ? Logs(three) : three}, list);
    EXPECT_THAT(maps[0], ElementsAre(1, 3, 1));
    const double confidence[] = {.2 / .3, .8 / .9, .5 / .75};
    for (int i = 0; i < 3; ++i)
    {
      EXPECT_NEAR(maps[1][i], confidence[i], 1e-6);
    }
  }
}

TEST(Classification, AClassThatIsLeftOutDoesNotDecideHoweverSureTheNetworkIs)
{
  // Between the two that are kept the odds are e^20 to 1, whatever the third one is.
  const std::vector<MapClass> list = {{1, "", "", {0}}, {2, "", "", {1}}};
  for (const float other : {0.f, 60.f, 100.f, 150.f, 1000.f})
  {
    const auto maps = Decide(Contract({Output("logits", 3)}), {Classification::Label, Classification::Confidence}, {{{-20.f}, {0.f}, {other}}}, list);
    EXPECT_EQ(maps[0][0], 2.f) << other;
    EXPECT_NEAR(maps[1][0], 1., 1e-6) << other;
  }
}

TEST(Classification, OfKeptClassesThatAreAllImpossibleNoneIsLikelier)
{
  const std::vector<MapClass> list = {{1, "", "", {0}}, {2, "", "", {1}}};
  const auto maps = Decide(Contract({Output("probabilities", 3)}), {Classification::Confidence, Classification::Margin, Classification::Entropy},
                           {{{0.f}, {0.f}, {1.f}}}, list);
  EXPECT_EQ(maps[0][0], .5f);
  EXPECT_EQ(maps[1][0], 0.f);
  EXPECT_NEAR(maps[2][0], 1., 1e-6);
}

TEST(Classification, AMapOfOneClassIsSure)
{
  const auto maps =
      Decide(Contract({Output("logits", 2)}), {Classification::Label, Classification::Confidence, Classification::Entropy, Classification::Margin},
             {{{3.f}, {-5.f}}}, {{6, "all", "", {0, 1}}});
  EXPECT_EQ(maps[0][0], 6.f);
  EXPECT_NEAR(maps[1][0], 1., 1e-6);
  EXPECT_NEAR(maps[2][0], 0., 1e-6);
  EXPECT_NEAR(maps[3][0], 1., 1e-6);
}

double EntropyOf(const std::vector<double>& p)
{
  double sum = 0.;
  for (const double v : p)
  {
    sum -= v > 0. ? v * std::log(v) : 0.;
  }
  return sum / std::log(static_cast<double>(p.size()));
}

TEST(Classification, EntropyAndMarginAreThoseOfTheProbabilities)
{
  const auto maps = Decide(Contract({Output("logits", 3)}), {Classification::Entropy, Classification::Margin}, {Logs(three)});
  const double margin[] = {.5, .7, .25};
  for (int i = 0; i < 3; ++i)
  {
    EXPECT_NEAR(maps[0][i], EntropyOf({three[0][i], three[1][i], three[2][i]}), 1e-6);
    EXPECT_NEAR(maps[1][i], margin[i], 1e-6);
  }
  // Of two classes: sure, and as unsure as can be.
  const auto two = Decide(Contract({Output("probabilities", 2)}), {Classification::Entropy, Classification::Margin}, {{{1.f, .5f}, {0.f, .5f}}});
  EXPECT_THAT(two[0], ElementsAre(0, testing::FloatNear(1, 1e-6)));
  EXPECT_THAT(two[1], ElementsAre(1, 0));
}

TEST(Classification, ProbabilitiesOfAnEnsembleAreTheMean)
{
  const ModelContract contract = Contract({Output("logits", 3)});
  const Pixels other = {{.4f, .1f, .1f}, {.1f, .8f, .15f}, {.5f, .1f, .75f}};
  const auto maps = Decide(contract, {Classification::Label, Classification::Confidence, Classification::Entropy, Classification::MutualInformation},
                           {Logs(three), Logs(other, 9.f)});
  EXPECT_THAT(maps[0], ElementsAre(2, 2, 3));
  const double confidence[] = {.4, .45, .5};
  for (int i = 0; i < 3; ++i)
  {
    EXPECT_NEAR(maps[1][i], confidence[i], 1e-5);
    std::vector<double> mean, a, b;
    for (int k = 0; k < 3; ++k)
    {
      a.push_back(three[k][i]);
      b.push_back(other[k][i]);
      mean.push_back((a[k] + b[k]) / 2.);
    }
    EXPECT_NEAR(maps[2][i], EntropyOf(mean), 1e-5);
    EXPECT_NEAR(maps[3][i], EntropyOf(mean) - (EntropyOf(a) + EntropyOf(b)) / 2., 1e-5);
  }
}

TEST(Classification, MutualInformationIsOneWhereSureMembersContradictEachOtherAndNoneWhereTheyAgree)
{
  const ModelContract contract = Contract({Output("probabilities", 2)});
  const auto maps =
      Decide(contract, {Classification::MutualInformation, Classification::Entropy}, {{{1.f, .3f, 1.f}, {0.f, .7f, 0.f}}, {{0.f, .3f, 1.f}, {1.f, .7f, 0.f}}});
  EXPECT_NEAR(maps[0][0], 1., 1e-6);
  EXPECT_NEAR(maps[0][1], 0., 1e-6);
  EXPECT_NEAR(maps[0][2], 0., 1e-6);
  EXPECT_GT(maps[1][1], .8f);
}

TEST(Classification, TensorsOfAnEnsembleComeMemberAfterMember)
{
  // Each member: an aux, then logits.
  const ModelContract contract = Contract({Output("aux", 0), Output("logits", 2)});
  const Pixels aux = {{NaN}};
  const Classification c(contract, {1., 1., 1.}, Plain(2), {Classification::Confidence}, 0, 1);
  const auto maps = Decide(c, {aux, Logs({{.9f}, {.1f}}), aux, Logs({{.6f}, {.4f}}), aux, Logs({{.3f}, {.7f}})});
  EXPECT_NEAR(maps[0][0], .6, 1e-6);
}

TEST(Classification, WhatIsAShareLiesBetweenZeroAndOneForAnyEnsemble)
{
  std::mt19937 random(2);
  std::normal_distribution<float> value(0.f, 1.f);
  for (int members = 2; members <= 20; ++members)
  {
    for (const int K : {2, 3, 17})
    {
      const ModelContract contract = Contract({Output("logits", K)});
      for (const float spread : {0.f, 1.f, 300.f})
      {
        std::vector<Pixels> tensors;
        const int count = 50;
        for (int m = 0; m < members; ++m)
        {
          tensors.emplace_back(K, std::vector<float>(count));
          for (int k = 0; k < K; ++k)
          {
            for (int i = 0; i < count; ++i)
            {
              tensors[m][k][i] = i % 2 && m > 0 ? tensors[0][k][i] : spread * value(random);
            }
          }
        }
        const auto maps =
            Decide(contract, {Classification::Confidence, Classification::Entropy, Classification::Margin, Classification::MutualInformation}, tensors);
        for (std::size_t r = 0; r < maps.size(); ++r)
        {
          for (const float v : maps[r])
          {
            ASSERT_GE(v, 0.f) << "result " << r << ", " << members << " members, " << K << " classes, spread " << spread;
            ASSERT_LE(v, 1.f) << "result " << r << ", " << members << " members, " << K << " classes, spread " << spread;
          }
        }
      }
    }
  }
}

TEST(Classification, AnEmbeddingIsGivenAsItIs)
{
  const ModelContract contract = Contract({Output("logits", 2), Output("embedding", 3)});
  const auto maps = Decide(contract, {Classification::Features, Classification::Label}, {{{0.f}, {1.f}}, {{1.5f}, {-2.5f}, {0.f}}});
  ASSERT_EQ(maps.size(), 4u);
  EXPECT_THAT(maps[0], ElementsAre(1.5f));
  EXPECT_THAT(maps[1], ElementsAre(-2.5f));
  EXPECT_THAT(maps[2], ElementsAre(0.f));
  EXPECT_THAT(maps[3], ElementsAre(2));
}

/** Signed byte of an embedding's element as stored: an unsigned byte's bits. */
int Signed(float stored)
{
  EXPECT_GE(stored, 0.f);
  EXPECT_LE(stored, 255.f);
  EXPECT_EQ(stored, std::floor(stored));
  return stored > 127.f ? static_cast<int>(stored) - 256 : static_cast<int>(stored);
}

TEST(Classification, QuantisedFeaturesAreBytesOfTheSignedSquareRoot)
{
  const ModelContract contract = Contract({Output("embedding", 4)});
  const Classification c(contract, {1.}, {}, {Classification::QuantisedFeatures}, 0, 0);
  EXPECT_EQ(c.ScoreChannels(), 4);
  // 3-4-0-0 of length 5; one axis; none; the smallest that is not 0 (|f| of 1.54e-5).
  const auto maps = Decide(c, {{{3, 0, 0, 1}, {-4, -7, 0, 1.6e-5f}, {0, 0, 0, -1.6e-5f}, {0, 0, 0, 1.5e-5f}}});
  EXPECT_EQ(Signed(maps[0][0]), 99);   // 127.5 sqrt(.6) = 98.76
  EXPECT_EQ(Signed(maps[1][0]), -114); // 127.5 sqrt(.8) = 114.04
  EXPECT_EQ(Signed(maps[1][1]), -127) << "-128 is no-data";
  EXPECT_EQ(Signed(maps[0][3]), 127);
  EXPECT_EQ(Signed(maps[1][3]), 1);
  EXPECT_EQ(Signed(maps[2][3]), -1);
  EXPECT_EQ(Signed(maps[3][3]), 0);
  for (int d = 0; d < 4; ++d)
  {
    EXPECT_EQ(maps[d][2], 0.f) << "without a length there is no direction";
  }
  EXPECT_THAT(c.NoData(), ElementsAre(128, 128, 128, 128));
}

TEST(Classification, QuantisedFeaturesAreReadBackWithinHalfAStep)
{
  const int D = 16, count = 200;
  const Classification c(Contract({Output("embedding", D)}), {1.}, {}, {Classification::QuantisedFeatures}, 0, 0);
  std::mt19937 random(3);
  std::normal_distribution<float> value(0.f, 5.f);
  Pixels embedding(D, std::vector<float>(count));
  for (auto& channel : embedding)
  {
    std::generate(channel.begin(), channel.end(), [&] { return value(random); });
  }
  const auto maps = Decide(c, {embedding});
  for (int i = 0; i < count; ++i)
  {
    double length = 0.;
    for (int d = 0; d < D; ++d)
    {
      length += embedding[d][i] * static_cast<double>(embedding[d][i]);
    }
    for (int d = 0; d < D; ++d)
    {
      const double f = embedding[d][i] / std::sqrt(length);
      ASSERT_NEAR(Signed(maps[d][i]), std::copysign(127.5 * std::sqrt(std::abs(f)), f), .5 + 1e-3);
    }
  }
}

TEST(Classification, ALogitThatIsNotFiniteMakesScoresThatAreNot)
{
  const ModelContract contract = Contract({Output("logits", 3)});
  const Classification c(contract, {1.}, Plain(3), {Classification::Label}, 0, 1);
  Pixels scores;
  Decide(c, {{{0, NaN, 0, 0, 0}, {0, 0, Inf, -Inf, 0}, {0, 0, 0, 0, NaN}}}, &scores);
  for (int i = 0; i < 5; ++i)
  {
    EXPECT_EQ(std::isfinite(scores[0][i]) && std::isfinite(scores[1][i]) && std::isfinite(scores[2][i]), i == 0) << i;
  }
  // Of a class that is left out too, and of any member.
  const Classification two(contract, {1., 1.}, {{1, "", "", {0}}, {2, "", "", {1}}}, {Classification::Label}, 0, 1);
  Pixels ofTwo;
  Decide(two, {{{0, 0}, {0, 0}, {0, 0}}, {{0, 0}, {0, 0}, {0, NaN}}}, &ofTwo);
  EXPECT_TRUE(std::isfinite(ofTwo[0][0]));
  EXPECT_FALSE(std::isfinite(ofTwo[0][1]));
  const Classification embedding(Contract({Output("embedding", 1)}), {1.}, {}, {Classification::Features}, 0, 0);
  Pixels ofEmbedding;
  Decide(embedding, {{{1.f, NaN}}}, &ofEmbedding);
  EXPECT_FALSE(std::isfinite(ofEmbedding[0][1]));
}

TEST(Classification, CountsOfValidDatesComeLastAndAreRounded)
{
  const ModelContract contract = Contract({Output("logits", 2), Output("embedding", 3)});
  const Classification c(contract, {1.}, Plain(2), {Classification::ValidDates, Classification::Features, Classification::Label}, 0, 2);
  EXPECT_EQ(c.CountChannels(), 2);
  EXPECT_EQ(c.ScoreChannels(), 2 + 3 + 2);
  EXPECT_EQ(c.ResultChannels(), 2 + 3 + 1);
  // p, p, embedding, counts that were averaged between patches.
  const std::vector<float> scores = {.2f, .8f, 5, 6, 7, 11.9999f, 3.0001f};
  std::vector<float> results(6);
  c.Decide(scores.data(), 1, 1, results.data(), 1);
  EXPECT_THAT(results, ElementsAre(12, 3, 5, 6, 7, 2));
  EXPECT_EQ(Classification(contract, {contract.temperature}, Plain(2), {Classification::Label}, 0, 2).CountChannels(), 0) << "not wanted";
  const Classification alone(contract, {1.}, Plain(2), {Classification::ValidDates}, 0, 2);
  EXPECT_EQ(alone.ScoreChannels(), 2);
}

TEST(Classification, ResultsAreSpreadOverImagesWithNoDataOfTheirOwn)
{
  const ModelContract contract = Contract({Output("logits", 2), Output("embedding", 3)});
  const Classification c(contract, {1.}, Plain(2),
                         {Classification::Label, Classification::Confidence, Classification::Probabilities, Classification::Features,
                          Classification::QuantisedFeatures, Classification::Entropy, Classification::Margin, Classification::ValidDates},
                         255, 2);
  EXPECT_THAT(c.ResultBands(), ElementsAre(1, 1, 2, 3, 3, 1, 1, 2));
  EXPECT_EQ(c.ResultChannels(), 14);
  EXPECT_THAT(c.NoData(), ElementsAre(255, 0, 0, 0, -9999, -9999, -9999, 128, 128, 128, -1, -1, 0, 0));
  EXPECT_THAT(c.DeclaresNoData(), ElementsAre(true, true, false, true, true, true, true, false));
  EXPECT_EQ(c.ScoreChannels(), 2 + 3 + 2);
  const Classification ensemble(Contract({Output("logits", 2)}), {1., 1.}, Plain(2), {Classification::MutualInformation}, 0, 1);
  EXPECT_THAT(ensemble.NoData(), ElementsAre(-1));
  EXPECT_EQ(ensemble.ScoreChannels(), 3);
}

TEST(Classification, ScoresAreThoseOfThePartAskedForInAnyLayout)
{
  constexpr int patch = 7, K = 3, D = 2, slots = 2;
  const ModelContract contract = Contract({Output("embedding", D), Output("probabilities", K)});
  const Classification c(contract, {1.}, Plain(K), {Classification::Label, Classification::Features}, 0, 1);
  std::vector<float> embedding(slots * patch * patch * D), probabilities(slots * patch * patch * K);
  std::iota(embedding.begin(), embedding.end(), 1000.f);
  std::iota(probabilities.begin(), probabilities.end(), 0.f);
  // One channels last, one band after band.
  const BatchView a{embedding.data(), D, patch * patch * D, 1, patch * D, D}, b{probabilities.data(), K, patch * patch * K, patch * patch, patch, 1};
  const Region part{2, 1, 6, 4};
  std::vector<float> scores(part.Area() * (K + D) + 1, -9.f);
  c.Score({a, b}, 1, part, scores.data());
  EXPECT_EQ(scores.back(), -9.f);
  for (int y = 0; y < 3; ++y)
  {
    for (int x = 0; x < 4; ++x)
    {
      for (int k = 0; k < K; ++k)
      {
        ASSERT_EQ(scores[k * 12 + y * 4 + x], *b.At(1, k, 1 + y, 2 + x));
      }
      for (int d = 0; d < D; ++d)
      {
        ASSERT_EQ(scores[(K + d) * 12 + y * 4 + x], *a.At(1, d, 1 + y, 2 + x));
      }
    }
  }
}

TEST(Classification, DecisionsKeepAnyStride)
{
  const Classification c(Contract({Output("probabilities", 2)}), {1.}, Plain(2), {Classification::Label, Classification::Probabilities}, 0, 1);
  const std::vector<float> scores = {.25f, .75f, -9, .75f, .25f, -9};
  std::vector<float> results(12, -9.f);
  c.Decide(scores.data(), 3, 2, results.data(), 4);
  EXPECT_THAT(results, ElementsAre(2, 1, -9, -9, 250, 750, -9, -9, 750, 250, -9, -9));
}

std::string MessageOf(const ModelContract& contract, int members, const std::vector<Result>& wanted, int noDataLabel = 0)
{
  return ErrorOf([&] { Classification(contract, std::vector<double>(members, contract.temperature), Plain(2), wanted, noDataLabel, 1); });
}

TEST(Classification, ResultsThatTheNetworkDoesNotGiveAreErrors)
{
  const ModelContract classifier = Contract({Output("logits", 2)}), encoder = Contract({Output("embedding", 4)});
  EXPECT_EQ(MessageOf(classifier, 1, {Classification::Label, Classification::Entropy, Classification::ValidDates}), "no error");
  for (const Result r : {Classification::Features, Classification::QuantisedFeatures})
  {
    EXPECT_EQ(MessageOf(encoder, 1, {r}), "no error");
    EXPECT_THAT(MessageOf(classifier, 1, {r}), AllOf(HasSubstr("features: "), HasSubstr("no embedding")));
    EXPECT_THAT(MessageOf(encoder, 3, {r}), AllOf(HasSubstr("features: "), HasSubstr("ensemble of 3")));
  }
  for (const Result r : {Classification::Label, Classification::Confidence, Classification::Probabilities, Classification::Entropy, Classification::Margin})
  {
    EXPECT_THAT(MessageOf(encoder, 1, {r}), AllOf(HasSubstr("\"test\""), HasSubstr("embedding only"))) << r;
  }
  EXPECT_THAT(MessageOf(classifier, 1, {Classification::MutualInformation}), AllOf(HasSubstr("mutual: "), HasSubstr("one model")));
  EXPECT_EQ(MessageOf(classifier, 2, {Classification::MutualInformation}), "no error");
}

TEST(Classification, ANoDataLabelThatAClassHasIsAnErrorWhereLabelsAreWritten)
{
  const ModelContract contract = Contract({Output("logits", 2)});
  EXPECT_THAT(MessageOf(contract, 1, {Classification::Label}, 2), AllOf(HasSubstr("nodatalabel: found 2"), HasSubstr("\"c2\"")));
  EXPECT_EQ(MessageOf(contract, 1, {Classification::Label}, 3), "no error");
  EXPECT_EQ(MessageOf(contract, 1, {Classification::Confidence}, 2), "no error");
}

} // namespace
