/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLGaussian.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace otb
{
namespace dl
{

std::vector<float> GaussianKernel(double sigma)
{
  const int radius = sigma > 0. ? static_cast<int>(std::lround(3. * sigma)) : 0;
  std::vector<double> weights;
  double sum = 0.;
  for (int k = -radius; k <= radius; ++k)
  {
    weights.push_back(sigma > 0. ? std::exp(-.5 * (k / sigma) * (k / sigma)) : 1.);
    sum += weights.back();
  }
  std::vector<float> kernel;
  for (const double w : weights)
  {
    kernel.push_back(static_cast<float>(w / sum));
  }
  return kernel;
}

void Convolve(const float* in, std::ptrdiff_t width, std::ptrdiff_t height, const std::vector<float>& kernel, std::vector<float>& scratch, float* out)
{
  const std::ptrdiff_t radius = KernelRadius(kernel), rows = height - 2 * radius, columns = width - 2 * radius;
  scratch.resize(static_cast<std::size_t>(width));
  float* column = scratch.data();
  for (std::ptrdiff_t y = 0; y < rows; ++y)
  {
    const float* middle = in + (y + radius) * width;
    for (std::ptrdiff_t x = 0; x < width; ++x)
    {
      column[x] = kernel[radius] * middle[x];
    }
    for (std::ptrdiff_t k = 1; k <= radius; ++k)
    {
      const float w = kernel[radius + k];
      const float *above = middle - k * width, *below = middle + k * width;
      for (std::ptrdiff_t x = 0; x < width; ++x)
      {
        column[x] += w * (above[x] + below[x]);
      }
    }
    float* line = out + y * columns;
    const float* from = column + radius;
    for (std::ptrdiff_t x = 0; x < columns; ++x)
    {
      line[x] = kernel[radius] * from[x];
    }
    for (std::ptrdiff_t k = 1; k <= radius; ++k)
    {
      const float w = kernel[radius + k];
      for (std::ptrdiff_t x = 0; x < columns; ++x)
      {
        line[x] += w * (from[x - k] + from[x + k]);
      }
    }
  }
}

void SmoothScores(const std::vector<float>& in, std::ptrdiff_t width, std::ptrdiff_t height, const std::vector<float>& kernel, std::vector<float>& out)
{
  const std::ptrdiff_t radius = KernelRadius(kernel), rows = height - 2 * radius, columns = width - 2 * radius;
  std::vector<float> values(in.size()), weights(in.size()), scratch;
  for (std::size_t p = 0; p < in.size(); ++p)
  {
    const bool valid = !std::isnan(in[p]);
    values[p] = valid ? in[p] : 0.f;
    weights[p] = valid ? 1.f : 0.f;
  }
  out.resize(static_cast<std::size_t>(rows * columns));
  std::vector<float> sums(out.size());
  Convolve(values.data(), width, height, kernel, scratch, out.data());
  Convolve(weights.data(), width, height, kernel, scratch, sums.data());
  for (std::ptrdiff_t y = 0; y < rows; ++y)
  {
    for (std::ptrdiff_t x = 0; x < columns; ++x)
    {
      float& v = out[y * columns + x];
      v = weights[(y + radius) * width + x + radius] > 0.f ? v / sums[y * columns + x] : std::numeric_limits<float>::quiet_NaN();
    }
  }
}

} // namespace dl
} // namespace otb
