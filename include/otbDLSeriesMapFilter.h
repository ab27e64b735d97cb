/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLSeriesMapFilter_h
#define otbDLSeriesMapFilter_h

#include "otbDLMapFilter.h"
#include "otbDLModelContract.h"
#include "otbDLSeriesPreparation.h"

#include <memory>
#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** \class SeriesMapFilter
 * \brief Runs a network over time series, by pixels or by patches: S sensors, M maps. See MapFilter.
 *
 * Images are otb::VectorImage of any of OTB's pixel types, on one grid; integers stay integers until they are packed.
 * \ingroup OTBTorch
 */
class SeriesMapFilter : public MapFilter
{
public:
  using Self = SeriesMapFilter;
  using Superclass = MapFilter;
  using Pointer = itk::SmartPointer<Self>;
  using ConstPointer = itk::SmartPointer<const Self>;

  itkNewMacro(Self);
  itkTypeMacro(SeriesMapFilter, MapFilter);

  /** An image, with a name for messages. */
  struct Raster
  {
    itk::ImageBase<2>::Pointer image;
    std::string name;
  };

  /** One band of one of the rasters. */
  struct Layer
  {
    std::size_t raster = 0;
    unsigned int band = 0;
  };

  /** What a sensor brings. */
  struct Sensor
  {
    Series series; ///< its noData is filled in by the filter
    std::vector<Raster> rasters;
    std::vector<Layer> layers; ///< [date * bands + band]
    std::vector<Raster> maskRasters;
    std::vector<Layer> masks; ///< [date], or empty
  };

  void SetContract(const ModelContract& contract);
  void SetSensors(std::vector<Sensor> sensors);

  /** Image that does not change; bands named. */
  void SetStatic(const std::vector<Raster>& rasters, const std::vector<std::string>& bands);

  /** Validity image, one band, not 0 = to be classified. May be null. */
  void SetMask(const Raster& mask);

  /** Looks at the inputs, so that what the operator must know is known before it is set.
   * \throw Error when they do not go together */
  void Prepare();

  /** Valid after Prepare(). */
  std::shared_ptr<const SeriesPreparation> GetPreparation() const { return m_Preparation; }

  Job GetJob() const override;

protected:
  SeriesMapFilter() = default;
  ~SeriesMapFilter() override = default;

  void CheckInputs() override;
  const itk::ImageBase<2>* GetReference() const override;
  std::pair<int, int> GetTileHint() const override;
  std::unique_ptr<MapEngine> MakeEngine() override;
  Region NeededRegion(const Region& region) const override;

private:
  class UpstreamReader;

  std::pair<std::int64_t, std::int64_t> BlockOfFiles() const;
  std::size_t BytesPerPixel() const;
  void Connect();

  ModelContract m_Contract;
  std::vector<Sensor> m_Sensors;
  std::vector<Raster> m_Static;
  std::vector<std::string> m_StaticBands;
  Raster m_Mask;
  std::shared_ptr<const SeriesPreparation> m_Preparation;
};

} // namespace dl
} // namespace otb

#endif
