/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLMapEngine_h
#define otbDLMapEngine_h

#include "otbDLRegion.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** Where one result channel of a region goes: pixel (x, y) of the region is data[y * strideY + x * strideX]. */
struct ResultPlane
{
  float* data = nullptr;
  std::ptrdiff_t strideX = 0;
  std::ptrdiff_t strideY = 0;
};

/** What an engine did so far. A sample is a patch, or a pixel, of the network's batch. */
struct EngineStatistics
{
  std::int64_t samplesInWindow = 0; ///< that the window needs
  std::int64_t samplesInferred = 0;
  std::int64_t samplesEmpty = 0;    ///< without a valid pixel: never inferred
  std::int64_t samplesRepeated = 0; ///< inferred again because a region was asked for twice, or could not be kept
  std::int64_t modelCalls = 0;
  std::int64_t samplesSpilled = 0; ///< kept in a temporary file for a while
  std::int64_t notFinite = 0;      ///< valid pixels where the network gave NaN or infinity: written as no-data
  double secondsReading = 0.;
  double secondsPacking = 0.;
  double secondsModel = 0.;
  double secondsDeciding = 0.;

  /** Model calls that could not be avoided: one a full batch of samples with data. */
  std::int64_t MinimumCalls(int batch) const { return (samplesInferred - samplesRepeated + batch - 1) / batch; }
};

/** How an engine may use the machine. */
struct EngineSettings
{
  std::size_t keptBytes = std::size_t(64) << 20; ///< budget for patches kept in memory
  std::size_t readBytes = std::size_t(64) << 20; ///< budget for series read at once
  std::string spillDirectory;                    ///< for the temporary file; empty: no file, patches that do not fit are inferred again
  int threads = 1;                               ///< for packing and deciding
  Region window;                                 ///< the part of the image that will be asked for; empty: all of it
  bool whole = true; ///< will all of the window be asked for? Then a batch may hold samples of what comes next; else only while region follows region
};

/** \class MapEngine
 * \brief Makes any region of a map. The same pixels whatever the regions and their order.
 *
 * Regions are in pixels from the origin of the image. Not thread-safe.
 * \ingroup OTBTorch
 */
class MapEngine
{
public:
  /** Called between batches with the share of the window done, 0..1. May throw, to stop. */
  using Progress = std::function<void(double)>;
  using Settings = EngineSettings;

  virtual ~MapEngine() = default;

  /** Makes a region of the map. results: one plane a result channel. */
  virtual void Produce(const Region& region, const std::vector<ResultPlane>& results, const Progress& progress) = 0;

  virtual const EngineStatistics& Statistics() const = 0;
};

} // namespace dl
} // namespace otb

#endif
