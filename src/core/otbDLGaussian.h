/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLGaussian_h
#define otbDLGaussian_h

#include <cstdint>
#include <vector>

namespace otb
{
namespace dl
{

/** Weights of a sampled Gaussian cut at three standard deviations, summing to 1; {1} for sigma 0. Its radius is (size - 1) / 2. */
std::vector<float> GaussianKernel(double sigma);

inline int KernelRadius(const std::vector<float>& kernel)
{
  return static_cast<int>(kernel.size() / 2);
}

/** Convolves a plane with a separable kernel where it lies wholly inside: out is (width - 2 r) x (height - 2 r). The same sums for a pixel wherever the window
 * begins. */
void Convolve(const float* in, std::ptrdiff_t width, std::ptrdiff_t height, const std::vector<float>& kernel, std::vector<float>& scratch, float* out);

/** Smooths a window of scores, NaN where there are none: weighted means over what there is. out is smaller by the radius on all sides, NaN where the pixel in
 * the middle is. */
void SmoothScores(const std::vector<float>& in, std::ptrdiff_t width, std::ptrdiff_t height, const std::vector<float>& kernel, std::vector<float>& out);

} // namespace dl
} // namespace otb

#endif
