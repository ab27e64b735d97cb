/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// Gaussians against their formulas and double sums.
#include "otbDLGaussian.h"
#include "otbDLMemoryScene.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace
{

using namespace otb::dl;
using otbtest::Noise;
using otbtest::notANumber;

std::vector<float> Plane(int width, int height)
{
  std::vector<float> plane(std::size_t(width) * height);
  for (int i = 0; i < width * height; ++i)
  {
    plane[i] = 10.f + 3.f * Noise(i % width, i / width, 0, 0);
  }
  return plane;
}

TEST(Gaussian, KernelSumsToOneAndIsSymmetric)
{
  for (const double sigma : {.2, .5, 1., 2., 2.5, 4., 8.})
  {
    const auto kernel = GaussianKernel(sigma);
    double sum = 0.;
    for (std::size_t k = 0; k < kernel.size(); ++k)
    {
      sum += kernel[k];
      EXPECT_EQ(kernel[k], kernel[kernel.size() - 1 - k]);
    }
    EXPECT_NEAR(sum, 1., 1e-6) << sigma;
    EXPECT_EQ(KernelRadius(kernel), std::lround(3. * sigma)) << sigma;
  }
  EXPECT_EQ(GaussianKernel(0.), std::vector<float>{1.f});
}

TEST(Gaussian, KernelHasTheMomentsOfAGaussianCutAtThreeDeviations)
{
  for (const double sigma : {1., 2., 4., 8.})
  {
    const auto kernel = GaussianKernel(sigma);
    const int radius = KernelRadius(kernel);
    double mean = 0., variance = 0.;
    for (int k = -radius; k <= radius; ++k)
    {
      mean += k * double(kernel[k + radius]);
      variance += k * k * double(kernel[k + radius]);
      EXPECT_NEAR(kernel[k + radius] / kernel[radius], std::exp(-.5 * k * k / sigma / sigma), 1e-6);
    }
    EXPECT_NEAR(mean, 0., 1e-6);
    // Cut at c deviations, 1 - 2 c phi(c) / (2 Phi(c) - 1): .9733 for c = 3; the outermost samples stand for half a pixel more.
    EXPECT_GT(variance / sigma / sigma, .9733) << sigma;
    EXPECT_LT(variance / sigma / sigma, 1.) << sigma;
  }
}

TEST(Gaussian, ConvolveIsTheDoubleSum)
{
  for (const double sigma : {0., .5, 2., 4.})
  {
    const auto kernel = GaussianKernel(sigma);
    const int r = KernelRadius(kernel), width = 2 * r + 9, height = 2 * r + 6;
    const auto in = Plane(width, height);
    std::vector<float> out(9 * 6), scratch;
    Convolve(in.data(), width, height, kernel, scratch, out.data());
    for (int y = 0; y < 6; ++y)
    {
      for (int x = 0; x < 9; ++x)
      {
        double sum = 0.;
        for (int v = -r; v <= r; ++v)
        {
          for (int u = -r; u <= r; ++u)
          {
            sum += double(kernel[r + v]) * kernel[r + u] * in[(y + r + v) * width + x + r + u];
          }
        }
        ASSERT_NEAR(out[y * 9 + x], sum, 1e-5) << sigma << " at " << x << ' ' << y;
      }
    }
  }
}

TEST(Gaussian, ConvolveGivesTheSameBitsWhereverTheWindowBegins)
{
  const auto kernel = GaussianKernel(2.);
  const int r = KernelRadius(kernel), width = 71, height = 40, columns = width - 2 * r;
  const auto in = Plane(width, height);
  std::vector<float> whole(std::size_t(columns) * (height - 2 * r)), scratch;
  Convolve(in.data(), width, height, kernel, scratch, whole.data());
  for (int x0 = 0; x0 < 19; ++x0)
  {
    for (int w = 2 * r + 1; w < 2 * r + 20; w += 3)
    {
      const int y0 = x0 % 5, h = 2 * r + 4;
      std::vector<float> part(std::size_t(w) * h), out(std::size_t(w - 2 * r) * 4);
      for (int i = 0; i < w * h; ++i)
      {
        part[i] = in[(y0 + i / w) * width + x0 + i % w];
      }
      Convolve(part.data(), w, h, kernel, scratch, out.data());
      for (int i = 0; i < int(out.size()); ++i)
      {
        ASSERT_EQ(out[i], whole[(y0 + i / (w - 2 * r)) * columns + x0 + i % (w - 2 * r)]);
      }
    }
  }
}

TEST(Gaussian, SmoothedScoresAreWeightedMeansOfWhatThereIs)
{
  const auto kernel = GaussianKernel(1.5);
  const int r = KernelRadius(kernel), width = 40, height = 31, columns = width - 2 * r, rows = height - 2 * r;
  auto in = Plane(width, height);
  for (int i = 0; i < width * height; ++i)
  {
    const bool hole = i % width > 20 && i / width > 12 && i / width < 25; // larger than the kernel
    in[i] = hole || Noise(i % width, i / width, 1, 0) > .8f ? notANumber : in[i];
  }
  in[(r + 5) * width + r + 25 - 8] = 4.f;
  std::vector<float> out;
  SmoothScores(in, width, height, kernel, out);
  ASSERT_EQ(out.size(), std::size_t(columns * rows));
  int missing = 0;
  for (int y = 0; y < rows; ++y)
  {
    for (int x = 0; x < columns; ++x)
    {
      const float got = out[y * columns + x];
      if (std::isnan(in[(y + r) * width + x + r]))
      {
        ASSERT_TRUE(std::isnan(got));
        ++missing;
        continue;
      }
      double sum = 0., weights = 0.;
      for (int v = -r; v <= r; ++v)
      {
        for (int u = -r; u <= r; ++u)
        {
          const float value = in[(y + r + v) * width + x + r + u];
          if (!std::isnan(value))
          {
            const double w = std::exp(-.5 * (u * u + v * v) / 1.5 / 1.5);
            sum += w * value;
            weights += w;
          }
        }
      }
      ASSERT_NEAR(got, sum / weights, 2e-5 * std::abs(sum / weights)) << x << ' ' << y;
    }
  }
  EXPECT_GT(missing, 50);
}

TEST(Gaussian, SmoothedScoresWithoutASigmaAreTheScores)
{
  auto in = Plane(9, 7);
  in[11] = notANumber;
  std::vector<float> out;
  SmoothScores(in, 9, 7, GaussianKernel(0.), out);
  for (std::size_t i = 0; i < in.size(); ++i)
  {
    EXPECT_TRUE(out[i] == in[i] || (std::isnan(out[i]) && std::isnan(in[i])));
  }
}

} // namespace
