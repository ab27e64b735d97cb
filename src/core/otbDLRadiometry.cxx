/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLRadiometry.h"

#include "otbDLError.h"

#include <cmath>
#include <string>

namespace otb
{
namespace dl
{

namespace
{

constexpr std::int64_t mostCells = 256;
constexpr double noChange = .95;     ///< probability above which a pixel is taken for invariant
constexpr std::int64_t fewest = 100; ///< invariant pixels
constexpr int mostIterations = 30;

/** Moments of a band on both dates, about values near its mean. */
struct Moments
{
  double x0 = 0., y0 = 0.;
  double x = 0., y = 0., xx = 0., yy = 0., xy = 0.;
};

} // namespace

RadiometricMatch MatchRadiometry(const PairScene& scene, const SceneScore::Progress& progress)
{
  const auto bands = scene.inputs.at(0).scaling.size();
  if (scene.inputs.at(1).scaling.size() != bands)
  {
    throw Error(Complaint("radiometry", "match for dates of " + std::to_string(bands) + " and " + std::to_string(scene.inputs[1].scaling.size()) + " bands",
                          "the same bands on both dates", "Take -radiometry none."));
  }
  AlterationDetector detector(scene, mostIterations);
  detector.Fit([&](double done) { return progress ? progress(.6 * done) : void(); });

  SceneReader reader(scene.pixels, scene.inputs, scene.width, scene.height);
  const auto cells = SceneCells(scene.width, scene.height, mostCells);
  RadiometricMatch match;
  match.bands.resize(bands);
  std::vector<Moments> moments(bands);
  std::vector<float> score;
  SceneWindow window;
  for (std::size_t c = 0; c < cells.size(); ++c)
  {
    score.resize(static_cast<std::size_t>(cells[c].Area()));
    detector.Score(cells[c], {score.data()}, {});
    reader.Read(cells[c], 0);
    reader.Window(cells[c], 0, 2, {}, window);
    const std::ptrdiff_t plane = window.width * window.height;
    for (std::ptrdiff_t p = 0; p < plane; ++p)
    {
      if (!window.valid[p])
      {
        continue;
      }
      ++match.valid;
      const double z = static_cast<double>(score[p]);
      if (!(ChiSquareTail(z * z, static_cast<int>(bands)) > noChange))
      {
        continue;
      }
      for (std::size_t b = 0; b < bands; ++b)
      {
        Moments& m = moments[b];
        const double y = static_cast<double>(window.Plane(static_cast<int>(b))[p]), x = static_cast<double>(window.Plane(static_cast<int>(bands + b))[p]);
        if (match.invariant == 0)
        {
          m.x0 = x;
          m.y0 = y;
        }
        m.x += x - m.x0;
        m.y += y - m.y0;
        m.xx += (x - m.x0) * (x - m.x0);
        m.yy += (y - m.y0) * (y - m.y0);
        m.xy += (x - m.x0) * (y - m.y0);
      }
      ++match.invariant;
    }
    if (progress)
    {
      progress(.6 + .4 * static_cast<double>(c + 1) / static_cast<double>(cells.size()));
    }
  }
  if (match.invariant < fewest)
  {
    return match;
  }
  const auto n = static_cast<double>(match.invariant);
  for (std::size_t b = 0; b < bands; ++b)
  {
    const Moments& m = moments[b];
    RadiometricBand& band = match.bands[b];
    const double xx = m.xx / n - m.x / n * (m.x / n), yy = m.yy / n - m.y / n * (m.y / n), xy = m.xy / n - m.x / n * (m.y / n);
    const double meanX = m.x0 + m.x / n, meanY = m.y0 + m.y / n;
    if (!(xx > 1e-12 * meanX * meanX) || !(yy > 1e-12 * meanY * meanY))
    {
      continue; // constant
    }
    band.correlation = xy / std::sqrt(xx * yy);
    if (band.correlation < leastRadiometricCorrelation)
    {
      continue;
    }
    // Both dates are noisy: the line that is nearest to the points.
    const double difference = yy - xx;
    band.gain = (difference + std::sqrt(difference * difference + 4. * xy * xy)) / (2. * xy);
    band.offset = meanY - band.gain * meanX;
    band.matched = true;
  }
  return match;
}

BandScaling Matched(const BandScaling& scaling, const RadiometricBand& band)
{
  BandScaling matched = scaling;
  matched.low = (scaling.low - band.offset) / band.gain;
  matched.high = (scaling.high - band.offset) / band.gain;
  matched.offset = (scaling.offset - band.offset) / band.gain;
  matched.divisor = scaling.divisor / band.gain;
  return matched;
}

} // namespace dl
} // namespace otb
