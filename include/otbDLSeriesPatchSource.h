/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLSeriesPatchSource_h
#define otbDLSeriesPatchSource_h

#include "otbDLPatchSource.h"
#include "otbDLSeriesPreparation.h"

#include <memory>

namespace otb
{
namespace dl
{

/** \class SeriesPatchSource
 * \brief Patches of time series.
 * \ingroup OTBTorch
 */
class SeriesPatchSource : public PatchSource
{
public:
  SeriesPatchSource(std::shared_ptr<SeriesReader> reader, std::shared_ptr<const SeriesPreparation> preparation);

  void Read(const Region& region) override;
  void Look(const Region& footprint, bool counts, PatchContent& content) const override;
  void Pack(const Region& footprint, const PatchContent& content, Predictor& predictor, int n) const override;

private:
  std::shared_ptr<SeriesReader> m_Reader;
  std::shared_ptr<const SeriesPreparation> m_Preparation;
  SeriesBlock m_Block;
};

} // namespace dl
} // namespace otb

#endif
