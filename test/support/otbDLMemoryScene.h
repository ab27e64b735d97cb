/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLMemoryScene_h
#define otbDLMemoryScene_h

// Scenes of several images in memory, or made up pixel by pixel, and what tests of scores of whole scenes share.
#include "otbDLKeyedRandom.h"
#include "otbDLPairStatistics.h"
#include "otbDLPixelSource.h"
#include "otbDLSceneScore.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

namespace otbtest
{

using namespace otb::dl;

constexpr float missing = -999.f; ///< the no-data value of Inputs()
constexpr float notANumber = std::numeric_limits<float>::quiet_NaN();

/** Standard normal numbers, one a pixel, band and stream. */
inline float Noise(std::int64_t x, std::int64_t y, int band, int stream)
{
  return KeyedRandom(7, 11).Normal(x, y, static_cast<std::uint32_t>(band), static_cast<std::uint32_t>(stream));
}

/** Images of one size in memory, plane after plane. */
class MemoryScene : public PixelSource
{
public:
  MemoryScene(std::int64_t w, std::int64_t h, const std::vector<int>& bands) : width(w), height(h)
  {
    for (const int b : bands)
    {
      planes.emplace_back(b, std::vector<float>(std::size_t(w * h), 0.f));
    }
  }
  float& At(int image, int band, std::int64_t x, std::int64_t y) { return planes[image][band][y * width + x]; }
  void Fill(int image, const std::function<float(int band, std::int64_t x, std::int64_t y)>& value)
  {
    for (std::size_t b = 0; b < planes[image].size(); ++b)
    {
      for (std::int64_t i = 0; i < width * height; ++i)
      {
        planes[image][b][i] = value(int(b), i % width, i / width);
      }
    }
  }
  PixelBlock Read(const Region& region) override
  {
    EXPECT_EQ(Intersection(region, Region{0, 0, width, height}), region) << "reads leave the image";
    largestRead = std::max(largestRead, region.Area());
    PixelBlock block;
    block.region = region;
    for (auto& image : planes)
    {
      block.bands.emplace_back();
      for (auto& plane : image)
      {
        block.bands.back().push_back({plane.data() + region.y0 * width + region.x0, 1, width});
      }
    }
    if (!mask.empty())
    {
      block.mask = {mask.data() + region.y0 * width + region.x0, 1, width};
    }
    return block;
  }

  std::int64_t width, height;
  std::vector<std::vector<std::vector<float>>> planes; ///< [image][band][pixel]
  std::vector<float> mask;
  std::int64_t largestRead = 0;
};

/** Images that are nowhere as a whole. */
class ComputedScene : public PixelSource
{
public:
  using Function = std::function<float(int image, int band, std::int64_t x, std::int64_t y)>;
  ComputedScene(std::vector<int> bands, Function value) : m_Bands(std::move(bands)), m_Value(std::move(value)) {}
  PixelBlock Read(const Region& region) override
  {
    PixelBlock block;
    block.region = region;
    m_Planes.clear();
    for (std::size_t image = 0; image < m_Bands.size(); ++image)
    {
      block.bands.emplace_back();
      for (int b = 0; b < m_Bands[image]; ++b)
      {
        m_Planes.emplace_back(std::size_t(region.Area()));
        for (std::int64_t i = 0; i < region.Area(); ++i)
        {
          m_Planes.back()[i] = m_Value(int(image), b, region.x0 + i % region.Width(), region.y0 + i / region.Width());
        }
        block.bands.back().push_back({m_Planes.back().data(), 1, region.Width()});
      }
    }
    return block;
  }

private:
  std::vector<int> m_Bands;
  Function m_Value;
  std::vector<std::vector<float>> m_Planes;
};

inline std::vector<InputNormalisation> Inputs(const std::vector<int>& bands, bool hasNoData = true)
{
  std::vector<InputNormalisation> inputs;
  for (const int b : bands)
  {
    InputNormalisation in;
    in.scaling.resize(b);
    in.noData.assign(b, missing);
    in.hasNoData.assign(b, hasNoData);
    inputs.push_back(in);
  }
  return inputs;
}

inline PairScene Pair(const std::shared_ptr<MemoryScene>& source, double clip = .01)
{
  PairScene scene;
  scene.pixels = source;
  scene.inputs = Inputs({int(source->planes[0].size()), int(source->planes[1].size())});
  scene.width = source->width;
  scene.height = source->height;
  scene.clip = clip;
  return scene;
}

using Planes = std::vector<std::vector<float>>;

/** Scores of a region. */
inline Planes ScoreOf(SceneScore& score, const Region& region)
{
  Planes planes(score.Planes(), std::vector<float>(std::size_t(region.Area()), -77.f));
  std::vector<float*> out;
  for (auto& plane : planes)
  {
    out.push_back(plane.data());
  }
  score.Score(region, out, {});
  return planes;
}

/** Scores of an image, tile by tile. */
inline Planes ScoreInTiles(SceneScore& score, std::int64_t width, std::int64_t height, std::int64_t w, std::int64_t h)
{
  Planes whole(score.Planes(), std::vector<float>(std::size_t(width * height), -77.f));
  for (std::int64_t y = 0; y < height; y += h)
  {
    for (std::int64_t x = 0; x < width; x += w)
    {
      const Region tile = Intersection({x, y, x + w, y + h}, {0, 0, width, height});
      const auto part = ScoreOf(score, tile);
      for (std::size_t k = 0; k < part.size(); ++k)
      {
        for (std::int64_t i = 0; i < tile.Area(); ++i)
        {
          whole[k][(tile.y0 + i / tile.Width()) * width + tile.x0 + i % tile.Width()] = part[k][i];
        }
      }
    }
  }
  return whole;
}

/** Bit for bit, no-data included. */
inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b)
{
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

inline bool SameBits(const Planes& a, const Planes& b)
{
  bool same = a.size() == b.size();
  for (std::size_t k = 0; same && k < a.size(); ++k)
  {
    same = SameBits(a[k], b[k]);
  }
  return same;
}

} // namespace otbtest

#endif
