/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLPairShift.h"

#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <sstream>

namespace otb
{
namespace dl
{

namespace
{

constexpr double pi = 3.14159265358979323846;

/** Where the peak of one window lies, and how high it is. */
struct Peak
{
  double x = 0.;
  double y = 0.;
  double height = 0.;
};

/** Height below which a peak is what chance makes: the highest of so many values of a weighted random spectrum lies near 8 / side. */
double NoiseHeight(int side)
{
  return 12. / side;
}

/** Positions of `count` windows along a side, evenly, from edge to edge. */
std::vector<std::int64_t> Positions(std::int64_t length, int side, int count)
{
  std::vector<std::int64_t> positions;
  for (int k = 0; k < count; ++k)
  {
    positions.push_back(count == 1 ? (length - side) / 2
                                   : static_cast<std::int64_t>(std::llround(static_cast<double>(length - side) * k / static_cast<double>(count - 1))));
  }
  return positions;
}

std::vector<Region> PlaceWindows(std::int64_t width, std::int64_t height, int side, int most)
{
  // As many as cover the scene, thinned out alike in both directions where that is too many.
  int columns = static_cast<int>((width + side - 1) / side), rows = static_cast<int>((height + side - 1) / side);
  const double excess = static_cast<double>(columns) * rows / most;
  if (excess > 1.)
  {
    rows = std::min(most, std::max(1, static_cast<int>(rows / std::sqrt(excess))));
    columns = std::min(columns, std::max(1, most / rows));
  }
  std::vector<Region> windows;
  for (const auto y : Positions(height, side, rows))
  {
    for (const auto x : Positions(width, side, columns))
    {
      windows.push_back({x, y, x + side, y + side});
    }
  }
  return windows;
}

/** Length of the gradient of the standardised bands of a window; its mean where there is no data. Empty when the window is flat, or has too little data. */
cv::Mat Texture(const SceneWindow& window, const std::vector<std::uint8_t>& valid, double minValid)
{
  const int width = static_cast<int>(window.width), height = static_cast<int>(window.height);
  const std::ptrdiff_t plane = window.width * window.height;
  const auto count = static_cast<double>(std::count(valid.begin(), valid.end(), std::uint8_t(1)));
  if (count < minValid * static_cast<double>(plane))
  {
    return {};
  }
  cv::Mat squares = cv::Mat::zeros(height, width, CV_64F);
  const int bands = static_cast<int>(window.planes.size() / static_cast<std::size_t>(plane));
  bool textured = false;
  for (int b = 0; b < bands; ++b)
  {
    const float* values = window.Plane(b);
    double sum = 0., sumOfSquares = 0.;
    for (std::ptrdiff_t p = 0; p < plane; ++p)
    {
      sum += valid[p] ? static_cast<double>(values[p]) : 0.;
    }
    const double mean = sum / count;
    for (std::ptrdiff_t p = 0; p < plane; ++p)
    {
      const double d = valid[p] ? static_cast<double>(values[p]) - mean : 0.;
      sumOfSquares += d * d;
    }
    const double variance = sumOfSquares / count;
    if (!(variance > 1e-12 * mean * mean))
    {
      continue;
    }
    textured = true;
    for (int y = 0; y < height; ++y)
    {
      const std::ptrdiff_t up = static_cast<std::ptrdiff_t>(std::max(0, y - 1)) * width,
                           down = static_cast<std::ptrdiff_t>(std::min(height - 1, y + 1)) * width;
      for (int x = 0; x < width; ++x)
      {
        const std::ptrdiff_t left = std::max(0, x - 1), right = std::min(width - 1, x + 1), own = static_cast<std::ptrdiff_t>(y) * width;
        const double dx = .5 * (static_cast<double>(values[own + right]) - static_cast<double>(values[own + left]));
        const double dy = .5 * (static_cast<double>(values[down + x]) - static_cast<double>(values[up + x]));
        squares.at<double>(y, x) += (dx * dx + dy * dy) / variance;
      }
    }
  }
  if (!textured)
  {
    return {};
  }
  cv::Mat length;
  cv::sqrt(squares, length);
  // Edges of no-data lie at the same pixels on both dates: they would say that nothing is shifted.
  cv::Mat good(height, width, CV_8U);
  for (int y = 0; y < height; ++y)
  {
    for (int x = 0; x < width; ++x)
    {
      bool all = true;
      for (int v = std::max(0, y - 1); v <= std::min(height - 1, y + 1); ++v)
      {
        for (int u = std::max(0, x - 1); u <= std::min(width - 1, x + 1); ++u)
        {
          all = all && valid[static_cast<std::size_t>(v) * static_cast<std::size_t>(width) + static_cast<std::size_t>(u)];
        }
      }
      good.at<std::uint8_t>(y, x) = all;
    }
  }
  const cv::Scalar mean = cv::mean(length, good);
  length -= mean;
  length.setTo(0., good == 0);
  return length;
}

/** What windows of one side have in common. */
struct Taper
{
  explicit Taper(int side)
  {
    cv::createHanningWindow(hann, cv::Size(side, side), CV_64F);
    weight.create(side, side, CV_64F);
    for (int y = 0; y < side; ++y)
    {
      for (int x = 0; x < side; ++x)
      {
        const double v = (y <= side / 2 ? y : y - side) / static_cast<double>(side), u = (x <= side / 2 ? x : x - side) / static_cast<double>(side);
        weight.at<double>(y, x) = std::exp(-2. * pi * pi * (u * u + v * v));
      }
    }
    total = cv::sum(weight)[0];
  }
  cv::Mat hann;
  cv::Mat weight; ///< transform of a Gaussian of one pixel
  double total = 0.;
};

/** The peak of the weighted phase correlation. */
Peak Correlate(const cv::Mat& first, const cv::Mat& second, const Taper& taper)
{
  const int side = first.rows;
  cv::Mat a, b, cross, surface;
  cv::dft(first.mul(taper.hann), a, cv::DFT_COMPLEX_OUTPUT);
  cv::dft(second.mul(taper.hann), b, cv::DFT_COMPLEX_OUTPUT);
  cv::mulSpectrums(b, a, cross, 0, true);
  double scale = 0.;
  for (int y = 0; y < side; ++y)
  {
    for (int x = 0; x < side; ++x)
    {
      const auto& c = cross.at<cv::Vec2d>(y, x);
      scale = std::max(scale, std::hypot(c[0], c[1]));
    }
  }
  if (scale == 0.)
  {
    return {};
  }
  for (int y = 0; y < side; ++y)
  {
    for (int x = 0; x < side; ++x)
    {
      auto& c = cross.at<cv::Vec2d>(y, x);
      const double length = std::hypot(c[0], c[1]);
      c *= length > 1e-14 * scale ? taper.weight.at<double>(y, x) / length : 0.;
    }
  }
  cv::dft(cross, surface, cv::DFT_INVERSE | cv::DFT_REAL_OUTPUT);
  surface /= taper.total;
  cv::Point at;
  Peak peak;
  cv::minMaxLoc(surface, nullptr, &peak.height, nullptr, &at);
  const auto value = [&](int x, int y) { return std::log(std::max(1e-9, surface.at<double>((y + side) % side, (x + side) % side))); };
  const auto between = [](double before, double here, double after)
  {
    const double bend = before - 2. * here + after;
    return bend < 0. ? std::max(-.5, std::min(.5, .5 * (before - after) / bend)) : 0.;
  };
  const double here = value(at.x, at.y);
  peak.x = (at.x <= side / 2 ? at.x : at.x - side) + between(value(at.x - 1, at.y), here, value(at.x + 1, at.y));
  peak.y = (at.y <= side / 2 ? at.y : at.y - side) + between(value(at.x, at.y - 1), here, value(at.x, at.y + 1));
  return peak;
}

double WeightedMedian(std::vector<std::pair<double, double>> values)
{
  std::sort(values.begin(), values.end());
  double total = 0.;
  for (const auto& v : values)
  {
    total += v.second;
  }
  double sum = 0.;
  for (const auto& v : values)
  {
    sum += v.second;
    if (sum >= .5 * total)
    {
      return v.first;
    }
  }
  return 0.;
}

double Median(std::vector<double> values)
{
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::string Pixels(double value, const char* more, const char* less)
{
  std::ostringstream text;
  text << std::fixed << std::setprecision(2) << std::abs(value) << " px " << (value < 0. ? less : more);
  return text.str();
}

} // namespace

std::string ShiftEstimate::Direction() const
{
  return Pixels(x, "right", "left") + ", " + Pixels(y, "down", "up");
}

double ShiftEstimate::Length() const
{
  return std::hypot(x, y);
}

ShiftEstimate EstimateShift(SceneReader& reader, const ShiftSettings& settings, const SceneScore::Progress& progress)
{
  const std::int64_t width = reader.Image().Width(), height = reader.Image().Height();
  const std::int64_t shorter = std::min(width, height);
  ShiftEstimate estimate;
  estimate.side = shorter >= 512 ? 256 : 128;
  while (estimate.side > shorter)
  {
    estimate.side /= 2;
  }
  if (estimate.side < 32)
  {
    return estimate;
  }
  const int side = estimate.side;
  const auto windows = PlaceWindows(width, height, side, settings.windows);
  estimate.windows = static_cast<int>(windows.size());
  const Taper taper(side);

  std::int64_t moveX = 0, moveY = 0;
  constexpr int passes = 3;
  for (int pass = 0; pass < passes; ++pass)
  {
    std::vector<Peak> peaks;
    SceneWindow first, second;
    for (std::size_t k = 0; k < windows.size(); ++k)
    {
      const Region& at = windows[k];
      const Region moved{at.x0 + moveX, at.y0 + moveY, at.x1 + moveX, at.y1 + moveY};
      if (progress)
      {
        progress((static_cast<double>(pass) + static_cast<double>(k) / static_cast<double>(windows.size())) / passes);
      }
      if (!(Intersection(moved, reader.Image()) == moved))
      {
        continue;
      }
      reader.Read(BoundingBox(at, moved), 0);
      reader.Window(at, 0, 1, {}, first);
      reader.Window(moved, 1, 2, {}, second);
      std::vector<std::uint8_t> valid(first.valid.size());
      for (std::size_t p = 0; p < valid.size(); ++p)
      {
        valid[p] = first.valid[p] && second.valid[p];
      }
      const cv::Mat a = Texture(first, valid, settings.minValid), b = a.empty() ? cv::Mat() : Texture(second, valid, settings.minValid);
      if (a.empty() || b.empty())
      {
        continue;
      }
      const Peak peak = Correlate(a, b, taper);
      if (peak.height >= NoiseHeight(side) && std::max(std::abs(peak.x), std::abs(peak.y)) <= side / 4.)
      {
        peaks.push_back(peak);
      }
    }
    estimate.clear = static_cast<int>(peaks.size());
    estimate.agreeing = 0;
    estimate.measured = false;
    if (peaks.empty())
    {
      return estimate;
    }
    // The median of all, then of those about it: what moved or changed is left out.
    double x = 0., y = 0.;
    std::vector<Peak> near = peaks;
    for (int round = 0; round < 3 && !near.empty(); ++round)
    {
      std::vector<std::pair<double, double>> xs, ys;
      for (const auto& p : near)
      {
        xs.emplace_back(p.x, p.height);
        ys.emplace_back(p.y, p.height);
      }
      x = WeightedMedian(xs);
      y = WeightedMedian(ys);
      near.clear();
      for (const auto& p : peaks)
      {
        if (std::hypot(p.x - x, p.y - y) <= 1.)
        {
          near.push_back(p);
        }
      }
    }
    if (near.empty())
    {
      return estimate;
    }
    std::vector<double> heights, distances;
    for (const auto& p : near)
    {
      heights.push_back(p.height);
      distances.push_back(std::hypot(p.x - x, p.y - y));
    }
    estimate.x = x + static_cast<double>(moveX);
    estimate.y = y + static_cast<double>(moveY);
    estimate.agreeing = static_cast<int>(near.size());
    estimate.confidence = Median(heights);
    estimate.spread = Median(distances);
    // One or two windows agree with themselves: their peaks must be higher.
    const bool enough = estimate.agreeing >= 3 || estimate.confidence >= 2. * NoiseHeight(side);
    estimate.measured = enough && estimate.agreeing >= settings.minAgree * estimate.clear;
    const auto wholeX = static_cast<std::int64_t>(std::llround(x)), wholeY = static_cast<std::int64_t>(std::llround(y));
    if (!estimate.measured || (wholeX == 0 && wholeY == 0))
    {
      return estimate;
    }
    moveX += wholeX;
    moveY += wholeY;
  }
  return estimate;
}

} // namespace dl
} // namespace otb
