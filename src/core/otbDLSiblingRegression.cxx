/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLSiblingRegression.h"

#include "otbDLError.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>

namespace otb
{
namespace dl
{

namespace
{

constexpr std::int64_t white = 255;    ///< of the bytes that values become
constexpr std::int64_t fraction = 256; ///< responses are whole numbers of so many parts of a byte's step
constexpr std::int64_t full = white * fraction;
constexpr std::int32_t abstains = -1;

void Require(bool holds, const std::string& name, const std::string& found, const std::string& expected)
{
  if (!holds)
  {
    throw Error(Complaint(name, found, expected, ""));
  }
}

std::uint8_t Byte(float value, const SiblingRange& range)
{
  // Division, then addition: nothing that a compiler might fuse in one loop and not in another.
  const double step = (range.high - range.low) / static_cast<double>(white);
  const double q = step > 0. ? (value - range.low) / step : 0.;
  return static_cast<std::uint8_t>(std::clamp(q, 0., static_cast<double>(white)) + .5);
}

/** Any (dilation) or all (erosion) of the pixels within a radius in a row or a column, less those that are neutral. */
template <class Op>
void Sweep(std::vector<std::uint8_t>& mask, std::int64_t width, std::int64_t height, int radius, Op op)
{
  std::vector<std::uint8_t> from(mask);
  for (std::int64_t y = 0; y < height; ++y)
  {
    for (int d = -radius; d <= radius; ++d)
    {
      const std::int64_t begin = std::max<std::int64_t>(0, -d), end = std::min(width, width - d);
      std::uint8_t* to = mask.data() + y * width;
      const std::uint8_t* other = from.data() + y * width + d;
      for (std::int64_t x = begin; x < end; ++x)
      {
        to[x] = op(to[x], other[x]);
      }
    }
  }
  from = mask;
  for (std::int64_t y = 0; y < height; ++y)
  {
    for (std::int64_t d = std::max<std::int64_t>(-radius, -y); d <= std::min<std::int64_t>(radius, height - 1 - y); ++d)
    {
      std::uint8_t* to = mask.data() + y * width;
      const std::uint8_t* other = from.data() + (y + d) * width;
      for (std::int64_t x = 0; x < width; ++x)
      {
        to[x] = op(to[x], other[x]);
      }
    }
  }
}

/** Closing, then opening. What does not speak takes no part: it is set to what changes nothing before each step. */
void CloseAndOpen(std::vector<std::uint8_t>& mask, const std::vector<std::uint8_t>& speaks, std::int64_t width, std::int64_t height, int radius)
{
  for (const bool grow : {true, false, false, true})
  {
    for (std::size_t i = 0; i < mask.size(); ++i)
    {
      mask[i] = speaks[i] ? mask[i] : static_cast<std::uint8_t>(!grow);
    }
    if (grow)
    {
      Sweep(mask, width, height, radius, [](std::uint8_t a, std::uint8_t b) { return static_cast<std::uint8_t>(a | b); });
    }
    else
    {
      Sweep(mask, width, height, radius, [](std::uint8_t a, std::uint8_t b) { return static_cast<std::uint8_t>(a & b); });
    }
  }
}

} // namespace

/** What all members need of a window: its bytes and, from the upper left corner, the sums of their products. */
struct SiblingRegression::Sums
{
  std::int64_t width = 0; ///< of the window
  std::int64_t height = 0;
  std::int64_t margin = 0;
  std::vector<std::uint8_t> valid;
  std::vector<std::vector<std::uint8_t>> date1; ///< one a band
  std::vector<std::vector<std::uint8_t>> date2;
  std::vector<std::vector<std::int64_t>> squares;  ///< of date 1; (width + 1) x (height + 1)
  std::vector<std::vector<std::int64_t>> products; ///< of both dates
};

SiblingRegression::SiblingRegression(const SiblingRegressionSettings& settings, std::vector<SiblingRange> date1, std::vector<SiblingRange> date2)
    : m_Settings(settings), m_Date1(std::move(date1)), m_Date2(std::move(date2))
{
  const auto& s = m_Settings;
  Require(s.exclusion >= 0 && s.reach <= 10000, "reach", std::to_string(s.exclusion) + " to " + std::to_string(s.reach) + " pixels", "0 to 10000 pixels");
  Require(s.members >= 1 && s.members <= s.reach - s.exclusion, "members", std::to_string(s.members),
          "1 to " + std::to_string(std::max(1, s.reach - s.exclusion)) + ", a member a pixel of reach");
  Require(s.morphology >= 1 && s.morphology < 100 && s.morphology % 2 == 1, "morphology", std::to_string(s.morphology), "an odd number of pixels, 1 to 99");
  Require(s.factor > 0. && std::isfinite(s.factor), "factor", std::to_string(s.factor), "a positive number");
  Require(!m_Date1.empty() && m_Date1.size() == m_Date2.size(), "bands", std::to_string(m_Date1.size()) + " and " + std::to_string(m_Date2.size()),
          "the same bands of both dates");
  for (const auto* ranges : {&m_Date1, &m_Date2})
  {
    for (const auto& r : *ranges)
    {
      Require(std::isfinite(r.low) && std::isfinite(r.high) && r.low <= r.high, "range", std::to_string(r.low) + " to " + std::to_string(r.high),
              "a range of values");
    }
  }
  const int step = (s.reach - s.exclusion) / s.members;
  for (int m = 0; m < s.members; ++m)
  {
    m_Members.push_back({s.exclusion + step * (m + 1), s.exclusion + step * m});
  }
}

SiblingRegression::Sums SiblingRegression::Prepare(const Window& window, int margin) const
{
  Sums sums;
  sums.width = window.width;
  sums.height = window.height;
  sums.margin = margin;
  const std::int64_t area = window.width * window.height;
  const std::size_t bands = m_Date1.size();
  sums.valid.assign(area, 1);
  for (std::int64_t i = 0; i < area; ++i)
  {
    bool valid = !window.valid || window.valid[i];
    for (std::size_t b = 0; valid && b < bands; ++b)
    {
      valid = std::isfinite(window.date1[b * area + i]) && std::isfinite(window.date2[b * area + i]);
    }
    sums.valid[i] = valid;
  }
  const std::int64_t stride = window.width + 1;
  for (std::size_t b = 0; b < bands; ++b)
  {
    std::vector<std::uint8_t> first(area), second(area);
    for (std::int64_t i = 0; i < area; ++i)
    {
      // 0 adds nothing to the sums: that is how what is not valid is no neighbour.
      first[i] = sums.valid[i] ? Byte(window.date1[b * area + i], m_Date1[b]) : 0;
      second[i] = sums.valid[i] ? Byte(window.date2[b * area + i], m_Date2[b]) : 0;
    }
    std::vector<std::int64_t> squares(stride * (window.height + 1), 0), products(squares);
    for (std::int64_t y = 0; y < window.height; ++y)
    {
      std::int64_t square = 0, product = 0;
      for (std::int64_t x = 0; x < window.width; ++x)
      {
        const std::int64_t v = first[y * window.width + x], w = second[y * window.width + x];
        square += v * v;
        product += v * w;
        squares[(y + 1) * stride + x + 1] = squares[y * stride + x + 1] + square;
        products[(y + 1) * stride + x + 1] = products[y * stride + x + 1] + product;
      }
    }
    sums.date1.push_back(std::move(first));
    sums.date2.push_back(std::move(second));
    sums.squares.push_back(std::move(squares));
    sums.products.push_back(std::move(products));
  }
  return sums;
}

/** Responses of a window less its margin, added over bands: 0 .. bands * full, or `abstains`. */
void SiblingRegression::Respond(const Sums& sums, const Member& member, std::vector<std::int32_t>& responses) const
{
  const std::int64_t width = sums.width - 2 * sums.margin, height = sums.height - 2 * sums.margin, stride = sums.width + 1;
  const std::int64_t n = member.reach, e = member.exclusion;
  const bool corners = m_Settings.shape == SiblingShape::Corners;
  responses.assign(width * height, 0);
  std::vector<std::int64_t> strip(stride), inner(stride), square(width), product(width);
  // Rows first: sums of whole columns between two distances above and below. Then the same along the row.
  const auto around = [&](const std::vector<std::int64_t>& from, std::int64_t y, std::vector<std::int64_t>& to)
  {
    const std::int64_t* top = from.data() + (y - n) * stride;
    const std::int64_t* above = from.data() + (y - e) * stride;
    const std::int64_t* below = from.data() + (y + e + 1) * stride;
    const std::int64_t* bottom = from.data() + (y + n + 1) * stride;
    for (std::int64_t x = 0; x < stride; ++x)
    {
      inner[x] = below[x] - above[x];
      strip[x] = bottom[x] - top[x];
    }
    const std::int64_t* s = strip.data() + sums.margin;
    const std::int64_t* i = inner.data() + sums.margin;
    if (corners)
    {
      for (std::int64_t x = 0; x < stride; ++x)
      {
        strip[x] -= inner[x];
      }
      for (std::int64_t x = 0; x < width; ++x)
      {
        to[x] = s[x + n + 1] - s[x - n] - (s[x + e + 1] - s[x - e]);
      }
    }
    else
    {
      for (std::int64_t x = 0; x < width; ++x)
      {
        to[x] = s[x + n + 1] - s[x - n] - (i[x + e + 1] - i[x - e]);
      }
    }
  };
  for (std::int64_t y = 0; y < height; ++y)
  {
    std::int32_t* out = responses.data() + y * width;
    const std::int64_t begin = (y + sums.margin) * sums.width + sums.margin;
    for (std::int64_t x = 0; x < width; ++x)
    {
      out[x] = sums.valid[begin + x] ? 0 : abstains;
    }
    for (std::size_t b = 0; b < sums.date1.size(); ++b)
    {
      around(sums.squares[b], y + sums.margin, square);
      around(sums.products[b], y + sums.margin, product);
      const std::uint8_t* first = sums.date1[b].data() + begin;
      const std::uint8_t* second = sums.date2[b].data() + begin;
      for (std::int64_t x = 0; x < width; ++x)
      {
        // One division of exact numbers: the same bits everywhere.
        const double scaled = static_cast<double>(first[x] * fraction * product[x]) / static_cast<double>(std::max<std::int64_t>(square[x], 1));
        const auto prediction = static_cast<std::int64_t>(std::min(scaled, static_cast<double>(2 * full)));
        const auto response = static_cast<std::int32_t>(std::min(full, std::abs(prediction - second[x] * fraction)));
        out[x] = out[x] == abstains || square[x] == 0 ? abstains : out[x] + response;
      }
    }
  }
}

void SiblingRegression::Count(const Window& window, Histograms& histograms) const
{
  if (window.width <= 2 * CountMargin() || window.height <= 2 * CountMargin())
  {
    return;
  }
  const Sums sums = Prepare(window, CountMargin());
  const std::int64_t most = static_cast<std::int64_t>(m_Date1.size()) * full;
  std::vector<std::int32_t> responses;
  for (std::size_t m = 0; m < m_Members.size(); ++m)
  {
    Respond(sums, m_Members[m], responses);
    auto& counts = histograms[m];
    for (const std::int32_t r : responses)
    {
      if (r != abstains)
      {
        ++counts[std::min<std::int64_t>(Bins - 1, r * static_cast<std::int64_t>(Bins) / most)];
      }
    }
  }
}

std::vector<double> SiblingRegression::Thresholds(const Histograms& histograms) const
{
  std::vector<double> thresholds;
  for (const auto& counts : histograms)
  {
    double total = 0., moment = 0.;
    for (std::size_t i = 0; i < counts.size(); ++i)
    {
      total += static_cast<double>(counts[i]);
      moment += static_cast<double>(counts[i]) * static_cast<double>(i);
    }
    double below = 0., belowMoment = 0., best = 0., threshold = 1.;
    for (std::size_t i = 0; i + 1 < counts.size(); ++i)
    {
      below += static_cast<double>(counts[i]);
      belowMoment += static_cast<double>(counts[i]) * static_cast<double>(i);
      if (below > 0. && below < total)
      {
        const double difference = belowMoment / below - (moment - belowMoment) / (total - below);
        const double between = below * (total - below) * difference * difference;
        if (between > best)
        {
          best = between;
          threshold = static_cast<double>(i + 1) / Bins * m_Settings.factor;
        }
      }
    }
    thresholds.push_back(threshold);
  }
  return thresholds;
}

void SiblingRegression::Vote(const Window& window, const std::vector<double>& thresholds, float* scores) const
{
  const int fringe = MorphologyMargin(), margin = VoteMargin();
  if (window.width <= 2 * margin || window.height <= 2 * margin)
  {
    return;
  }
  const Sums sums = Prepare(window, CountMargin());
  const std::int64_t width = window.width - 2 * margin, height = window.height - 2 * margin, outer = width + 2 * fringe, outerHeight = height + 2 * fringe;
  const double most = static_cast<double>(static_cast<std::int64_t>(m_Date1.size()) * full);
  std::vector<std::int32_t> responses, votes(width * height, 0), speakers(width * height, 0);
  std::vector<std::uint8_t> mask(outer * outerHeight), speaks(outer * outerHeight);
  for (std::size_t m = 0; m < m_Members.size(); ++m)
  {
    Respond(sums, m_Members[m], responses);
    const double limit = thresholds[m] * most;
    for (std::size_t i = 0; i < mask.size(); ++i)
    {
      speaks[i] = responses[i] != abstains;
      mask[i] = static_cast<double>(responses[i]) > limit;
    }
    if (m_Settings.morphology > 1)
    {
      CloseAndOpen(mask, speaks, outer, outerHeight, m_Settings.morphology / 2);
    }
    for (std::int64_t y = 0; y < height; ++y)
    {
      for (std::int64_t x = 0; x < width; ++x)
      {
        const std::int64_t i = (y + fringe) * outer + x + fringe;
        votes[y * width + x] += speaks[i] && mask[i];
        speakers[y * width + x] += speaks[i];
      }
    }
  }
  for (std::int64_t y = 0; y < height; ++y)
  {
    for (std::int64_t x = 0; x < width; ++x)
    {
      const std::int64_t i = y * width + x;
      const bool valid = sums.valid[(y + margin) * window.width + x + margin];
      scores[i] = !valid ? NoData : speakers[i] ? static_cast<float>(votes[i]) / static_cast<float>(speakers[i]) : 0.f;
    }
  }
}

} // namespace dl
} // namespace otb
