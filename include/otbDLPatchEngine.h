/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLPatchEngine_h
#define otbDLPatchEngine_h

#include "otbDLMapEngine.h"
#include "otbDLMapOperator.h"
#include "otbDLPatchGrid.h"
#include "otbDLPatchSource.h"
#include "otbDLPredictor.h"

#include <memory>
#include <vector>

namespace otb
{
namespace dl
{

class PatchStore;

/** \class PatchEngine
 * \brief Makes any region of a map, inferring each patch of the grid once, whatever the regions and their order.
 *
 * A patch that several regions need is kept until its last pixel is delivered, in memory within a budget, beyond it in a temporary file.
 * A batch that a region does not fill is filled with the patches that come next, so that small regions cost no more calls than large ones.
 * \ingroup OTBTorch
 */
class PatchEngine : public MapEngine
{
public:
  PatchEngine(const PatchGrid& grid, std::shared_ptr<Predictor> predictor, std::shared_ptr<const MapOperator> mapOperator, std::shared_ptr<PatchSource> source,
              Settings settings);
  ~PatchEngine() override;
  PatchEngine(const PatchEngine&) = delete;
  PatchEngine& operator=(const PatchEngine&) = delete;

  void Produce(const Region& region, const std::vector<ResultPlane>& results, const Progress& progress) override;

  const PatchGrid& Grid() const { return m_Grid; }
  const EngineStatistics& Statistics() const override { return m_Statistics; }

private:
  std::int64_t Id(std::int64_t i, std::int64_t j) const;
  void ComputeRow(std::int64_t row, const Region& patches, const Progress& progress);
  std::int64_t PackRun(std::int64_t i, std::int64_t j, std::int64_t end);
  void RunBatch(const Region& pinned, const Progress& progress);
  void DeliverCore(std::int64_t i, std::int64_t j, const Region& region, const std::vector<ResultPlane>& results);
  void DeliverCell(std::int64_t a, std::int64_t b, const Region& region, const std::vector<ResultPlane>& results);
  void FillNoData(const Region& part, const Region& region, const std::vector<ResultPlane>& results) const;
  void Account(std::int64_t i, std::int64_t j, const Region& delivered);
  void RetireRow(std::int64_t row, const Region& patches);
  Region Support(std::int64_t i, std::int64_t j) const;
  void Smooth(const std::vector<BatchView>& outputs, int n, float* scores) const;

  PatchGrid m_Grid;
  std::shared_ptr<Predictor> m_Predictor;
  std::shared_ptr<const MapOperator> m_Operator;
  std::shared_ptr<PatchSource> m_Source;
  Settings m_Settings;
  Region m_Window;        ///< pixels
  Region m_WindowPatches; ///< columns and rows
  EngineStatistics m_Statistics;
  std::unique_ptr<PatchStore> m_Store;
  std::vector<float> m_Hann;
  std::vector<float> m_Kernel; ///< that scores are smoothed with; empty: none
  int m_Margin = 0;            ///< of the core, that smoothing looks at and the patch has

  struct Slot
  {
    std::int64_t patch = 0;
    PatchContent content;                ///< of the core
    std::vector<std::uint8_t> surrounds; ///< where there is data in the core and the margin that its smoothing looks at
  };
  /** A patch that was read, on its way to a slot. */
  struct Read
  {
    PatchContent content; ///< of the footprint
    bool any = false;     ///< is there data in the core?
    int slot = -1;
  };
  std::vector<Slot> m_Slots;
  int m_Filled = 0;
  Region m_Last;       ///< the region made last
  bool m_Ahead = true; ///< may a batch hold patches beyond the region?
  std::vector<Read> m_Reads;
  std::vector<float> m_Scores;
  std::vector<float> m_Results;
};

} // namespace dl
} // namespace otb

#endif
