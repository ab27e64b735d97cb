/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// SiROC against its definition, pixel by pixel; the same bits wherever a window begins; no data, constants.
#include "otbDLError.h"
#include "otbDLSiblingRegression.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>
#include <utility>
#include <vector>

namespace
{

using namespace otb::dl;

struct Image
{
  Image(int w, int h, int c) : width(w), height(h), bands(c), date1(std::size_t(w) * h * c), date2(date1), valid(std::size_t(w) * h, 1) {}

  std::size_t At(int b, int x, int y) const { return (std::size_t(b) * height + y) * width + x; }
  bool Valid(int x, int y) const { return x >= 0 && y >= 0 && x < width && y < height && valid[std::size_t(y) * width + x]; }

  int width, height, bands;
  std::vector<float> date1, date2;
  std::vector<unsigned char> valid;
};

/** Smooth ground in other light, a changed square, noise, clouds. */
Image Scene(int w, int h, int c, unsigned seed, bool clouds)
{
  Image image(w, h, c);
  std::mt19937 engine(seed);
  std::normal_distribution<float> noise(0.f, 12.f);
  for (int b = 0; b < c; ++b)
  {
    for (int y = 0; y < h; ++y)
    {
      for (int x = 0; x < w; ++x)
      {
        const float ground = 120.f + 60.f * std::sin(.3f * x + b) * std::cos(.2f * y);
        const bool changed = x >= w / 3 && x < w / 3 + 7 && y >= h / 2 && y < h / 2 + 6;
        image.date1[image.At(b, x, y)] = ground + noise(engine);
        image.date2[image.At(b, x, y)] = (changed ? 240.f : .8f * ground) + noise(engine);
      }
    }
  }
  for (std::size_t i = 0; clouds && i < image.valid.size(); ++i)
  {
    image.valid[i] = engine() % 8 != 0;
  }
  return image;
}

/** A window of an image, with what lies beyond it not valid. */
struct Piece
{
  Piece(const Image& image, int x0, int y0, int w, int h, int margin)
  {
    width = w + 2 * margin;
    height = h + 2 * margin;
    for (int b = 0; b < image.bands; ++b)
    {
      for (int y = y0 - margin; y < y0 + h + margin; ++y)
      {
        for (int x = x0 - margin; x < x0 + w + margin; ++x)
        {
          const bool inside = x >= 0 && y >= 0 && x < image.width && y < image.height;
          date1.push_back(inside ? image.date1[image.At(b, x, y)] : 1e30f); // whatever it is, it must not matter
          date2.push_back(inside ? image.date2[image.At(b, x, y)] : -7.f);
          if (b == 0)
          {
            valid.push_back(image.Valid(x, y));
          }
        }
      }
    }
  }
  SiblingRegression::Window View() const { return {date1.data(), date2.data(), valid.data(), width, height}; }

  std::int64_t width, height;
  std::vector<float> date1, date2;
  std::vector<unsigned char> valid;
};

std::vector<SiblingRange> Ranges(int bands)
{
  return std::vector<SiblingRange>(bands, {20., 250.});
}

SiblingRegression Make(const SiblingRegressionSettings& settings, int bands)
{
  return SiblingRegression(settings, Ranges(bands), Ranges(bands));
}

SiblingRegression::Histograms CountAll(const SiblingRegression& siblings, const Image& image)
{
  auto histograms = siblings.EmptyHistograms();
  siblings.Count(Piece(image, 0, 0, image.width, image.height, siblings.CountMargin()).View(), histograms);
  return histograms;
}

std::vector<float> VoteAll(const SiblingRegression& siblings, const Image& image, const std::vector<double>& thresholds)
{
  std::vector<float> scores(std::size_t(image.width) * image.height, -99.f);
  siblings.Vote(Piece(image, 0, 0, image.width, image.height, siblings.VoteMargin()).View(), thresholds, scores.data());
  return scores;
}

// The definition, written out.

int Byte(float v)
{
  return static_cast<int>(std::floor(std::clamp((v - 20.) / 230. * 255., 0., 255.) + .5));
}

/** In 256ths of a byte's step, added over bands; -1: abstains. */
std::vector<long> BruteResponses(const Image& image, const SiblingRegressionSettings& s, int member)
{
  const int step = (s.reach - s.exclusion) / s.members, n = s.exclusion + step * (member + 1), e = s.exclusion + step * member;
  std::vector<long> responses;
  for (int y = 0; y < image.height; ++y)
  {
    for (int x = 0; x < image.width; ++x)
    {
      long response = image.Valid(x, y) ? 0 : -1;
      for (int b = 0; b < image.bands && response >= 0; ++b)
      {
        long squares = 0, products = 0;
        for (int dy = -n; dy <= n; ++dy)
        {
          for (int dx = -n; dx <= n; ++dx)
          {
            const bool sibling = s.shape == SiblingShape::Corners ? std::abs(dx) > e && std::abs(dy) > e : std::max(std::abs(dx), std::abs(dy)) > e;
            if (sibling && image.Valid(x + dx, y + dy))
            {
              const long v = Byte(image.date1[image.At(b, x + dx, y + dy)]), w = Byte(image.date2[image.At(b, x + dx, y + dy)]);
              squares += v * v;
              products += v * w;
            }
          }
        }
        if (squares == 0)
        {
          response = -1;
          break;
        }
        const long predicted = Byte(image.date1[image.At(b, x, y)]) * 256L * products / squares;
        response += std::min(255 * 256L, std::labs(predicted - Byte(image.date2[image.At(b, x, y)]) * 256L));
      }
      responses.push_back(response);
    }
  }
  return responses;
}

std::vector<int> BruteMorphology(const std::vector<int>& mask, const std::vector<long>& responses, const Image& image, int radius, bool grow)
{
  std::vector<int> result;
  for (int y = 0; y < image.height; ++y)
  {
    for (int x = 0; x < image.width; ++x)
    {
      bool any = false, all = true;
      for (int v = std::max(0, y - radius); v <= std::min(image.height - 1, y + radius); ++v)
      {
        for (int u = std::max(0, x - radius); u <= std::min(image.width - 1, x + radius); ++u)
        {
          const std::size_t i = std::size_t(v) * image.width + u;
          any = any || (responses[i] >= 0 && mask[i]);
          all = all && (responses[i] < 0 || mask[i]);
        }
      }
      result.push_back(grow ? any : all);
    }
  }
  return result;
}

std::vector<float> BruteVotes(const Image& image, const SiblingRegressionSettings& s, const std::vector<double>& thresholds)
{
  std::vector<int> votes(image.valid.size(), 0), speakers(image.valid.size(), 0);
  for (int m = 0; m < s.members; ++m)
  {
    const auto responses = BruteResponses(image, s, m);
    std::vector<int> mask;
    for (const long r : responses)
    {
      mask.push_back(double(r) > thresholds[m] * (255 * 256 * image.bands));
    }
    for (const bool grow : {true, false, false, true})
    {
      mask = BruteMorphology(mask, responses, image, s.morphology / 2, grow);
    }
    for (std::size_t i = 0; i < votes.size(); ++i)
    {
      votes[i] += responses[i] >= 0 && mask[i];
      speakers[i] += responses[i] >= 0;
    }
  }
  std::vector<float> scores;
  for (std::size_t i = 0; i < votes.size(); ++i)
  {
    scores.push_back(!image.valid[i] ? -1.f : speakers[i] ? float(votes[i]) / float(speakers[i]) : 0.f);
  }
  return scores;
}

std::vector<SiblingRegressionSettings> Several()
{
  std::vector<SiblingRegressionSettings> all;
  for (const SiblingShape shape : {SiblingShape::Corners, SiblingShape::Ring})
  {
    for (const int morphology : {1, 3, 5})
    {
      for (const int exclusion : {0, 2})
      {
        SiblingRegressionSettings s;
        s.reach = 11;
        s.members = 4;
        s.exclusion = exclusion;
        s.shape = shape;
        s.morphology = morphology;
        all.push_back(s);
      }
    }
  }
  return all;
}

TEST(SiblingRegression, MembersShareTheReach)
{
  // 200 pixels in 27 steps of 7: as far as 189. Closing and opening with a square of 5 look 8 pixels farther.
  const auto siblings = Make(SiblingRegressionSettings(), 3);
  EXPECT_EQ(siblings.Members(), 27);
  EXPECT_EQ(siblings.CountMargin(), 189);
  EXPECT_EQ(siblings.VoteMargin(), 197);
  EXPECT_EQ(siblings.EmptyHistograms().size(), 27u);
  EXPECT_EQ(siblings.EmptyHistograms()[26], std::vector<std::int64_t>(256, 0));
}

TEST(SiblingRegression, CountsAreThoseOfTheDefinition)
{
  for (const bool clouds : {false, true})
  {
    const auto image = Scene(29, 23, 2, 1, clouds);
    for (const auto& s : Several())
    {
      const auto histograms = CountAll(Make(s, 2), image);
      for (int m = 0; m < s.members; ++m)
      {
        std::vector<std::int64_t> counts(SiblingRegression::Bins, 0);
        for (const long r : BruteResponses(image, s, m))
        {
          if (r >= 0)
          {
            ++counts[std::min(255L, r * 256 / (255 * 256 * 2))];
          }
        }
        ASSERT_EQ(histograms[m], counts) << m;
      }
    }
  }
}

TEST(SiblingRegression, VotesAreThoseOfTheDefinition)
{
  for (const bool clouds : {false, true})
  {
    const auto image = Scene(27, 31, 3, 2, clouds);
    for (const auto& s : Several())
    {
      const auto siblings = Make(s, 3);
      const auto thresholds = siblings.Thresholds(CountAll(siblings, image));
      const auto scores = VoteAll(siblings, image, thresholds);
      ASSERT_EQ(scores, BruteVotes(image, s, thresholds));
      if (!clouds)
      {
        // The square has changed, its surroundings have not.
        EXPECT_GE(scores[(31 / 2 + 3) * 27 + 27 / 3 + 3], .5f);
        EXPECT_LE(scores[4 * 27 + 20], .5f);
      }
    }
  }
}

TEST(SiblingRegression, ThresholdsAreOtsus)
{
  // Every threshold tried: the least variance within the two classes is where Otsu's is.
  SiblingRegressionSettings s;
  s.reach = 12;
  s.members = 3;
  const auto image = Scene(40, 40, 1, 3, false);
  const auto siblings = Make(s, 1);
  const auto histograms = CountAll(siblings, image);
  const auto thresholds = siblings.Thresholds(histograms);
  for (int m = 0; m < s.members; ++m)
  {
    const auto& counts = histograms[m];
    const auto within = [&](std::size_t begin, std::size_t end)
    {
      double n = 0., mean = 0., sum = 0.;
      for (std::size_t i = begin; i < end; ++i)
      {
        n += double(counts[i]);
        mean += double(counts[i]) * double(i);
      }
      for (std::size_t i = begin; i < end && n > 0.; ++i)
      {
        sum += double(counts[i]) * (double(i) - mean / n) * (double(i) - mean / n);
      }
      return sum;
    };
    double least = std::numeric_limits<double>::infinity();
    std::size_t where = 0;
    for (std::size_t cut = 1; cut < counts.size(); ++cut)
    {
      const double sum = within(0, cut) + within(cut, counts.size());
      if (sum < least - 1e-9)
      {
        least = sum;
        where = cut;
      }
    }
    EXPECT_DOUBLE_EQ(thresholds[m], double(where) / 256.) << m;
  }
  s.factor = .75;
  EXPECT_DOUBLE_EQ(Make(s, 1).Thresholds(histograms)[0], .75 * thresholds[0]);
}

TEST(SiblingRegression, TheSameBitsWhereverAWindowBegins)
{
  for (const bool clouds : {false, true})
  {
    const auto image = Scene(61, 47, 2, 4, clouds);
    for (const auto& s : Several())
    {
      const auto siblings = Make(s, 2);
      const auto histograms = CountAll(siblings, image);
      const auto thresholds = siblings.Thresholds(histograms);
      const auto scores = VoteAll(siblings, image, thresholds);
      for (const int size : {1, 7, 20})
      {
        if (size == 1 && s.morphology != 5)
        {
          continue;
        }
        auto counted = siblings.EmptyHistograms();
        for (int y0 = 0; y0 < image.height; y0 += size)
        {
          for (int x0 = 0; x0 < image.width; x0 += size)
          {
            if (size == 1 && (x0 % 9 || y0 % 7))
            {
              continue;
            }
            const int w = std::min(size, image.width - x0), h = std::min(size, image.height - y0);
            siblings.Count(Piece(image, x0, y0, w, h, siblings.CountMargin()).View(), counted);
            std::vector<float> part(std::size_t(w) * h);
            siblings.Vote(Piece(image, x0, y0, w, h, siblings.VoteMargin()).View(), thresholds, part.data());
            for (int y = 0; y < h; ++y)
            {
              for (int x = 0; x < w; ++x)
              {
                ASSERT_EQ(part[std::size_t(y) * w + x], scores[std::size_t(y0 + y) * image.width + x0 + x]) << x0 + x << ' ' << y0 + y;
              }
            }
          }
        }
        for (int m = 0; m < s.members && size > 1; ++m)
        {
          ASSERT_EQ(counted[m], histograms[m]);
        }
      }
    }
  }
}

TEST(SiblingRegression, WhatIsNotValidDoesNotMatterWhateverItsValue)
{
  SiblingRegressionSettings s;
  s.reach = 9;
  s.members = 3;
  const auto siblings = Make(s, 2);
  auto image = Scene(30, 30, 2, 5, true);
  const auto thresholds = siblings.Thresholds(CountAll(siblings, image));
  const auto scores = VoteAll(siblings, image, thresholds);
  for (int y = 0; y < image.height; ++y)
  {
    for (int x = 0; x < image.width; ++x)
    {
      if (!image.Valid(x, y))
      {
        EXPECT_EQ(scores[std::size_t(y) * image.width + x], SiblingRegression::NoData);
        image.date1[image.At(0, x, y)] = std::numeric_limits<float>::quiet_NaN();
        image.date2[image.At(1, x, y)] = 1e9f;
      }
    }
  }
  EXPECT_EQ(VoteAll(siblings, image, thresholds), scores);
  // A value that is no number is no data, in any band of either date.
  std::fill(image.valid.begin(), image.valid.end(), 1);
  for (std::size_t i = 0; i < scores.size(); ++i)
  {
    if (scores[i] == SiblingRegression::NoData)
    {
      image.date2[scores.size() + i] = std::numeric_limits<float>::infinity();
    }
  }
  EXPECT_EQ(VoteAll(siblings, image, thresholds), scores);
  std::fill(image.valid.begin(), image.valid.end(), 0);
  for (const float v : VoteAll(siblings, image, thresholds))
  {
    EXPECT_EQ(v, SiblingRegression::NoData);
  }
  for (const auto& h : CountAll(siblings, image))
  {
    EXPECT_EQ(std::count(h.begin(), h.end(), 0), SiblingRegression::Bins);
  }
}

TEST(SiblingRegression, ConstantsAndAnotherLightAreNoChange)
{
  SiblingRegressionSettings s;
  s.reach = 8;
  s.members = 2;
  const auto siblings = Make(s, 1);
  // Both dates constant, black ones included; twice the light on a chequered ground of even bytes.
  for (const auto& [first, second] : {std::pair<float, float>{100.f, 100.f}, {100.f, 200.f}, {20.f, 20.f}, {20.f, 200.f}, {250.f, 20.f}})
  {
    Image image(25, 20, 1);
    std::fill(image.date1.begin(), image.date1.end(), first);
    std::fill(image.date2.begin(), image.date2.end(), second);
    const auto histograms = CountAll(siblings, image);
    for (const float v : VoteAll(siblings, image, siblings.Thresholds(histograms)))
    {
      EXPECT_EQ(v, 0.f);
    }
  }
  const SiblingRegression bytes(s, {{0., 255.}}, {{0., 255.}});
  Image image(25, 20, 1);
  for (std::size_t i = 0; i < image.date1.size(); ++i)
  {
    image.date1[i] = i % 2 ? 20.f : 100.f;
    image.date2[i] = 2.f * image.date1[i];
  }
  const auto histograms = CountAll(bytes, image);
  EXPECT_EQ(histograms[0][0], 25 * 20);
  for (const float v : VoteAll(bytes, image, bytes.Thresholds(histograms)))
  {
    EXPECT_EQ(v, 0.f);
  }
}

TEST(SiblingRegression, ARangeWithoutExtentIsBlackAndSaysNothing)
{
  SiblingRegressionSettings s;
  s.reach = 4;
  s.members = 2;
  const SiblingRegression siblings(s, {{3., 3.}}, {{0., 1.}});
  Image image(12, 12, 1);
  std::fill(image.date1.begin(), image.date1.end(), 3.f);
  const auto thresholds = siblings.Thresholds(CountAll(siblings, image));
  for (const float v : VoteAll(siblings, image, thresholds))
  {
    EXPECT_EQ(v, 0.f);
  }
}

TEST(SiblingRegression, AWindowThatIsAllMarginHasNoPixels)
{
  const auto siblings = Make(SiblingRegressionSettings(), 1);
  const std::vector<float> values(100, 1.f);
  const SiblingRegression::Window window{values.data(), values.data(), nullptr, 10, 10};
  auto histograms = siblings.EmptyHistograms();
  siblings.Count(window, histograms);
  EXPECT_EQ(histograms, siblings.EmptyHistograms());
  siblings.Vote(window, siblings.Thresholds(histograms), nullptr);
}

TEST(SiblingRegression, WhatCannotBeIsRefused)
{
  const auto refused = [](auto change)
  {
    SiblingRegressionSettings s;
    change(s);
    EXPECT_THROW(Make(s, 1), Error);
  };
  refused([](auto& s) { s.members = 0; });
  refused([](auto& s) { s.members = 201; });
  refused([](auto& s) { s.exclusion = -1; });
  refused([](auto& s) { s.exclusion = 180; });
  refused([](auto& s) { s.reach = 0; });
  refused([](auto& s) { s.reach = 100000; });
  refused([](auto& s) { s.morphology = 4; });
  refused([](auto& s) { s.morphology = 0; });
  refused([](auto& s) { s.factor = 0.; });
  refused([](auto& s) { s.factor = std::numeric_limits<double>::quiet_NaN(); });
  EXPECT_THROW(SiblingRegression(SiblingRegressionSettings(), {}, {}), Error);
  EXPECT_THROW(SiblingRegression(SiblingRegressionSettings(), Ranges(2), Ranges(1)), Error);
  EXPECT_THROW(SiblingRegression(SiblingRegressionSettings(), {{1., 0.}}, {{0., 1.}}), Error);
  EXPECT_THROW(SiblingRegression(SiblingRegressionSettings(), {{0., 1.}}, {{0., std::numeric_limits<double>::infinity()}}), Error);
}

} // namespace
