/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLPixelEngine_h
#define otbDLPixelEngine_h

#include "otbDLMapEngine.h"
#include "otbDLMapOperator.h"
#include "otbDLPredictor.h"
#include "otbDLSeriesPreparation.h"

#include <memory>
#include <vector>

namespace otb
{
namespace dl
{

/** \class PixelEngine
 * \brief Makes any region of a map from a network that labels one pixel at a time, from its series or from a window around it.
 *
 * Only pixels with data reach the network; they are gathered into full batches, however they are scattered. What is read at once follows the blocks of the
 * files and the budget of memory, not the region that is asked for. A pixel's result depends on nothing but the pixel (and its window), so regions may come
 * in any order and size. While the network works, the next part is read in a thread of its own.
 * \ingroup OTBTorch
 */
class PixelEngine : public MapEngine
{
public:
  /** What the engine must know of the files. */
  struct Files
  {
    std::int64_t blockWidth = 1; ///< pixels that are read together
    std::int64_t blockHeight = 1;
    std::size_t bytesPerPixel = 1; ///< of all series, as they are read
  };

  PixelEngine(std::shared_ptr<const SeriesPreparation> preparation, std::shared_ptr<SeriesReader> reader, const Files& files,
              std::shared_ptr<Predictor> predictor, std::shared_ptr<const MapOperator> mapOperator, Settings settings);

  void Produce(const Region& region, const std::vector<ResultPlane>& results, const Progress& progress) override;
  const EngineStatistics& Statistics() const override { return m_Statistics; }

  /** The parts in which a region is read, in order. */
  std::vector<Region> Parts(const Region& region) const;

private:
  struct Slot
  {
    std::int64_t x;
    std::int64_t y;
  };

  Region Needed(const Region& part) const;
  void Prepare(const SeriesBlock& block, const Region& needed);
  void InferPart(const Region& part, const Region& needed, const Region& region, const std::vector<ResultPlane>& results, const Progress& progress);
  void Pack(int begin, const Region& prepared);
  void RunBatch(const Region& region, const std::vector<ResultPlane>& results, const Progress& progress);

  std::shared_ptr<const SeriesPreparation> m_Preparation;
  std::shared_ptr<SeriesReader> m_Reader;
  Files m_Files;
  std::shared_ptr<Predictor> m_Predictor;
  std::shared_ptr<const MapOperator> m_Operator;
  Settings m_Settings;
  Region m_Image;
  int m_Margin;
  EngineStatistics m_Statistics;
  PreparedPixels m_Prepared;
  std::vector<Slot> m_Slots;
  std::vector<std::uint16_t> m_Counts; ///< [series][slot]
  std::vector<BatchView> m_Inputs;
  int m_Filled = 0;
};

} // namespace dl
} // namespace otb

#endif
