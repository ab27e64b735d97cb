/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLMapOperator_h
#define otbDLMapOperator_h

#include "otbDLPredictor.h"
#include "otbDLRegion.h"

#include <cstddef>
#include <vector>

namespace otb
{
namespace dl
{

/** \class MapOperator
 * \brief What the tensors of a network mean on a map: first scores that may be averaged between patches, then the decision pixel by pixel.
 *
 * Stateless during a run: the engine calls it for any patch in any order.
 * \ingroup OTBTorch
 */
class MapOperator
{
public:
  virtual ~MapOperator() = default;

  /** Values kept for a pixel between the network and the decision; averages of them make sense (probabilities, not labels). */
  virtual int ScoreChannels() const = 0;

  /** Scores of a part of slot n, in pixels of the slot, plane after plane. Not finite where the network was not. */
  virtual void Score(const std::vector<BatchView>& outputs, int n, const Region& part, float* scores) const = 0;

  /** How many of the score channels, the last ones, the engine fills with the number of valid dates of each series; Score() leaves them alone. */
  virtual int CountChannels() const { return 0; }

  /** Weights of a separable window, symmetric, odd in number, that scores are averaged with before the decision, over the pixels that have data; empty: none.
   * The engine sees to it: patches must be cut by its radius more than the network needs. */
  virtual std::vector<float> Smoothing() const { return {}; }

  /** Values of a pixel of the map. */
  virtual int ResultChannels() const = 0;

  /** How the results are spread over images: bands of each one, in order. Their sum is ResultChannels(). */
  virtual std::vector<int> ResultBands() const { return std::vector<int>(ResultChannels(), 1); }

  /** What each of them holds where there is no data. */
  virtual const std::vector<float>& NoData() const = 0;

  /** For each image: is that value its no-data value, which no pixel with data can hold? */
  virtual std::vector<bool> DeclaresNoData() const { return std::vector<bool>(ResultBands().size(), true); }

  /** Decides `count` pixels: score c of pixel i is scores[c * scoreStride + i], result r goes to results[r * resultStride + i]. Scores are finite. */
  virtual void Decide(const float* scores, std::ptrdiff_t scoreStride, std::ptrdiff_t count, float* results, std::ptrdiff_t resultStride) const = 0;
};

} // namespace dl
} // namespace otb

#endif
