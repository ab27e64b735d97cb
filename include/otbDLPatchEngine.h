/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLPatchEngine_h
#define otbDLPatchEngine_h

#include "otbDLMapOperator.h"
#include "otbDLPatchGrid.h"
#include "otbDLPatchPacking.h"
#include "otbDLPixelSource.h"
#include "otbDLPredictor.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace otb
{
namespace dl
{

class PatchStore;

/** Where one result channel of a region goes: pixel (x, y) of the region is data[y * strideY + x * strideX]. */
struct ResultPlane
{
  float* data = nullptr;
  std::ptrdiff_t strideX = 0;
  std::ptrdiff_t strideY = 0;
};

/** What an engine did so far. */
struct EngineStatistics
{
  std::int64_t patchesInWindow = 0; ///< of the grid, that the window needs
  std::int64_t patchesInferred = 0;
  std::int64_t patchesEmpty = 0;    ///< without a valid pixel: never inferred
  std::int64_t patchesRepeated = 0; ///< inferred again because a region was asked for twice, or could not be kept
  std::int64_t modelCalls = 0;
  std::int64_t patchesSpilled = 0; ///< kept in a temporary file for a while
  std::int64_t notFinite = 0;      ///< valid pixels where the network gave NaN or infinity: written as no-data
  double secondsReading = 0.;
  double secondsPacking = 0.;
  double secondsModel = 0.;
  double secondsDeciding = 0.;

  /** Model calls that could not be avoided: one a full batch of patches with data. */
  std::int64_t MinimumCalls(int batch) const { return (patchesInferred - patchesRepeated + batch - 1) / batch; }
};

/** \class PatchEngine
 * \brief Makes any region of a map, inferring each patch of the grid once, whatever the regions and their order.
 *
 * A patch that several regions need is kept until its last pixel is delivered, in memory within a budget, beyond it in a temporary file.
 * A batch that a region does not fill is filled with the patches that come next, so that small regions cost no more calls than large ones.
 *
 * Regions are in pixels from the origin of the image. Not thread-safe.
 * \ingroup OTBTorch
 */
class PatchEngine
{
public:
  struct Settings
  {
    std::size_t keptBytes = std::size_t(64) << 20; ///< budget for patches kept in memory
    std::string spillDirectory;                    ///< for the temporary file; empty: no file, patches that do not fit are inferred again
    int threads = 1;                               ///< for packing and deciding
    Region window;                                 ///< the part of the image that will be asked for; empty: all of it
  };

  /** Called between batches with the share of the window's patches done, 0..1. May throw, to stop. */
  using Progress = std::function<void(double)>;

  PatchEngine(const PatchGrid& grid, std::shared_ptr<Predictor> predictor, std::shared_ptr<const MapOperator> mapOperator,
              std::vector<InputNormalisation> inputs, Settings settings);
  ~PatchEngine();
  PatchEngine(const PatchEngine&) = delete;
  PatchEngine& operator=(const PatchEngine&) = delete;

  /** Makes a region of the map. results: one plane a result channel. */
  void Produce(const Region& region, PixelSource& source, const std::vector<ResultPlane>& results, const Progress& progress = {});

  const PatchGrid& Grid() const { return m_Grid; }
  const EngineStatistics& Statistics() const { return m_Statistics; }

private:
  std::int64_t Id(std::int64_t i, std::int64_t j) const;
  void ComputeRow(std::int64_t row, const Region& patches, PixelSource& source, const Progress& progress);
  std::int64_t PackRun(std::int64_t i, std::int64_t j, std::int64_t end, PixelSource& source);
  void RunBatch(const Region& pinned, const Progress& progress);
  void DeliverCore(std::int64_t i, std::int64_t j, const Region& region, const std::vector<ResultPlane>& results);
  void DeliverCell(std::int64_t a, std::int64_t b, const Region& region, const std::vector<ResultPlane>& results);
  void FillNoData(const Region& part, const Region& region, const std::vector<ResultPlane>& results) const;
  void Account(std::int64_t i, std::int64_t j, const Region& delivered);
  void RetireRow(std::int64_t row, const Region& patches);
  Region Support(std::int64_t i, std::int64_t j) const;

  PatchGrid m_Grid;
  std::shared_ptr<Predictor> m_Predictor;
  std::shared_ptr<const MapOperator> m_Operator;
  std::vector<InputNormalisation> m_Inputs;
  Settings m_Settings;
  Region m_Window;        ///< pixels
  Region m_WindowPatches; ///< columns and rows
  EngineStatistics m_Statistics;
  std::unique_ptr<PatchStore> m_Store;
  std::vector<float> m_Hann;

  struct Slot
  {
    std::int64_t patch = 0;
    std::vector<std::uint8_t> valid; ///< of the core
  };
  /** A patch that was read, on its way to a slot. */
  struct Read
  {
    std::vector<std::uint8_t> valid; ///< of the footprint
    bool any = false;                ///< is there data in the core?
    int slot = -1;
  };
  std::vector<Slot> m_Slots;
  int m_Filled = 0;
  std::vector<Read> m_Reads;
  std::vector<float> m_Scores;
  std::vector<float> m_Results;
};

} // namespace dl
} // namespace otb

#endif
