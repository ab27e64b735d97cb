/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLSeriesMapFilter.h"

#include "otbDLError.h"
#include "otbDLPatchEngine.h"
#include "otbDLPatchMapFilter.h"
#include "otbDLPixelEngine.h"
#include "otbDLSeriesPatchSource.h"

#include "otbCoordinateTransformation.h"
#include "otbImageCommons.h"
#include "otbNoDataHelper.h"
#include "otbSpatialReference.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <sstream>
#include <tuple>
#include <utility>

namespace otb
{
namespace dl
{

namespace
{

/** Calls f with the image as what it is.
 * \throw Error for pixels that are none of OTB's */
template <typename TFunction>
void WithImage(itk::ImageBase<2>* image, const std::string& name, TFunction f)
{
  bool found = false;
  const auto as = [&](auto* typed, SampleType type)
  {
    if (typed && !found)
    {
      found = true;
      f(typed, type);
    }
  };
  as(dynamic_cast<VectorImage<std::uint8_t, 2>*>(image), SampleType::UInt8);
  as(dynamic_cast<VectorImage<std::int16_t, 2>*>(image), SampleType::Int16);
  as(dynamic_cast<VectorImage<std::uint16_t, 2>*>(image), SampleType::UInt16);
  as(dynamic_cast<VectorImage<std::int32_t, 2>*>(image), SampleType::Int32);
  as(dynamic_cast<VectorImage<std::uint32_t, 2>*>(image), SampleType::UInt32);
  as(dynamic_cast<VectorImage<float, 2>*>(image), SampleType::Float);
  as(dynamic_cast<VectorImage<double, 2>*>(image), SampleType::Double);
  if (!found)
  {
    throw Error(Complaint(name, "pixels that are neither 8, 16 or 32 bit integers nor floating point numbers", "such pixels", ""));
  }
}

std::size_t BytesOf(const SeriesMapFilter::Raster& raster)
{
  std::size_t bytes = 0;
  WithImage(raster.image, raster.name, [&](auto* image, SampleType type) { bytes = SizeOf(type) * image->GetNumberOfComponentsPerPixel(); });
  return bytes;
}

const ImageMetadata& MetadataOf(const itk::ImageBase<2>* image)
{
  return dynamic_cast<const ImageCommons&>(*image).GetImageMetadata();
}

/** No-data values of a raster's bands, as its file declares them. */
std::vector<std::optional<double>> NoDataOf(const SeriesMapFilter::Raster& raster)
{
  std::vector<bool> flags;
  std::vector<double> values;
  ReadNoDataFlags(MetadataOf(raster.image), flags, values);
  std::vector<std::optional<double>> noData(raster.image->GetNumberOfComponentsPerPixel());
  for (std::size_t b = 0; b < noData.size() && b < flags.size() && b < values.size(); ++b)
  {
    if (flags[b])
    {
      noData[b] = values[b];
    }
  }
  return noData;
}

/** Position to latitude and longitude. OGR's transformations are for one thread at a time. */
class LatLon
{
public:
  explicit LatLon(const itk::ImageBase<2>* image) : m_Image(image)
  {
    const std::string wkt = dynamic_cast<const ImageCommons&>(*image).GetProjectionRef();
    if (!wkt.empty())
    {
      auto from = SpatialReference::FromDescription(wkt), to = SpatialReference::FromWGS84();
      // East before north, longitude before latitude, whatever the authority says.
      from.SetAxisMappingStrategy(OAMS_TRADITIONAL_GIS_ORDER);
      to.SetAxisMappingStrategy(OAMS_TRADITIONAL_GIS_ORDER);
      m_Transform = std::make_unique<CoordinateTransformation>(from, to);
    }
  }
  std::pair<float, float> At(double x, double y) const
  {
    itk::ContinuousIndex<double, 2> index;
    const auto first = m_Image->GetLargestPossibleRegion().GetIndex();
    index[0] = static_cast<double>(first[0]) + x;
    index[1] = static_cast<double>(first[1]) + y;
    itk::Point<double, 2> point;
    m_Image->TransformContinuousIndexToPhysicalPoint(index, point);
    std::lock_guard<std::mutex> lock(m_Mutex);
    const auto lonLat = m_Transform->Transform(std::make_tuple(point[0], point[1]));
    return {static_cast<float>(std::get<1>(lonLat)), static_cast<float>(std::get<0>(lonLat))};
  }
  bool Works() const { return m_Transform != nullptr; }

private:
  const itk::ImageBase<2>* m_Image;
  std::unique_ptr<CoordinateTransformation> m_Transform;
  mutable std::mutex m_Mutex;
};

} // namespace

/** Pulls regions of the series through the pipeline, each raster once, and only those that the network uses. */
class SeriesMapFilter::UpstreamReader : public SeriesReader
{
public:
  explicit UpstreamReader(SeriesMapFilter& filter) : m_Filter(filter) {}

  SeriesBlock Read(const Region& region) override
  {
    m_Held.clear();
    SeriesBlock block;
    block.region = region;
    for (std::size_t s = 0; s < m_Filter.m_Sensors.size(); ++s)
    {
      const Sensor& sensor = m_Filter.m_Sensors[s];
      const std::size_t bands = sensor.series.bands.size();
      std::map<std::size_t, SampleView> read;
      std::vector<SampleView> values(sensor.layers.size());
      for (std::size_t i = 0; i < sensor.layers.size(); ++i)
      {
        if (m_Filter.m_Preparation->UsesBand(s, i % bands))
        {
          values[i] = this->View(sensor.rasters, sensor.layers[i], region, read);
        }
      }
      block.values.push_back(std::move(values));
      std::map<std::size_t, SampleView> readMasks;
      std::vector<SampleView> masks;
      for (const auto& layer : sensor.masks)
      {
        masks.push_back(this->View(sensor.maskRasters, layer, region, readMasks));
      }
      block.masks.push_back(std::move(masks));
    }
    std::map<std::size_t, SampleView> read;
    for (std::size_t r = 0; r < m_Filter.m_Static.size(); ++r)
    {
      for (unsigned int b = 0; b < m_Filter.m_Static[r].image->GetNumberOfComponentsPerPixel(); ++b)
      {
        block.fixed.push_back(this->View(m_Filter.m_Static, {r, b}, region, read));
      }
    }
    if (m_Filter.m_Mask.image)
    {
      std::map<std::size_t, SampleView> one;
      block.mask = this->View({m_Filter.m_Mask}, {0, 0}, region, one);
    }
    return block;
  }

private:
  /** A band of a raster. \param read the first bands of those that were read */
  SampleView View(const std::vector<Raster>& rasters, const Layer& layer, const Region& region, std::map<std::size_t, SampleView>& read)
  {
    const auto found = read.find(layer.raster);
    SampleView view;
    if (found != read.end())
    {
      view = found->second;
    }
    else
    {
      const Raster& raster = rasters[layer.raster];
      const RegionType wanted = ToItk(region, raster.image);
      Pull(raster.image, wanted);
      WithImage(raster.image, raster.name,
                [&](auto* image, SampleType type)
                {
                  // One input may be made from another: pulling that one again must not take these pixels away.
                  m_Held.emplace_back(image->GetPixelContainer());
                  const auto& buffered = image->GetBufferedRegion();
                  const std::ptrdiff_t bands = image->GetNumberOfComponentsPerPixel();
                  const std::ptrdiff_t width = buffered.GetSize(0);
                  view.data =
                      image->GetBufferPointer() + ((wanted.GetIndex(1) - buffered.GetIndex(1)) * width + (wanted.GetIndex(0) - buffered.GetIndex(0))) * bands;
                  view.type = type;
                  view.strideX = bands;
                  view.strideY = bands * width;
                });
      m_Filter.Forget(raster.image);
      read[layer.raster] = view;
    }
    view.data = static_cast<const char*>(view.data) + layer.band * SizeOf(view.type);
    return view;
  }

  SeriesMapFilter& m_Filter;
  std::vector<itk::Object::ConstPointer> m_Held;
};

void SeriesMapFilter::SetContract(const ModelContract& contract)
{
  m_Contract = contract;
  this->Modified();
}

void SeriesMapFilter::SetSensors(std::vector<Sensor> sensors)
{
  m_Sensors = std::move(sensors);
  this->Connect();
}

void SeriesMapFilter::SetStatic(const std::vector<Raster>& rasters, const std::vector<std::string>& bands)
{
  m_Static = rasters;
  m_StaticBands = bands;
  this->Connect();
}

void SeriesMapFilter::SetMask(const Raster& mask)
{
  m_Mask = mask;
  this->Connect();
}

/** Tells ITK of the inputs. */
void SeriesMapFilter::Connect()
{
  unsigned int number = 0;
  const auto add = [&](const std::vector<Raster>& rasters)
  {
    for (const auto& r : rasters)
    {
      this->SetNthInput(number++, r.image.GetPointer());
    }
  };
  for (const auto& sensor : m_Sensors)
  {
    add(sensor.rasters);
    add(sensor.maskRasters);
  }
  add(m_Static);
  if (m_Mask.image)
  {
    add({m_Mask});
  }
  this->SetNumberOfIndexedInputs(number);
  this->SetNumberOfRequiredInputs(number);
  this->Modified();
}

const itk::ImageBase<2>* SeriesMapFilter::GetReference() const
{
  for (const auto& sensor : m_Sensors)
  {
    if (!sensor.rasters.empty())
    {
      return sensor.rasters.front().image;
    }
  }
  throw Error(Complaint("il", "nothing", "the series of one sensor at least", ""));
}

void SeriesMapFilter::Prepare()
{
  for (const auto& name : this->GetInputNames())
  {
    this->GetInput(name)->UpdateOutputInformation();
  }
  this->CheckInputs();
}

void SeriesMapFilter::CheckInputs()
{
  const itk::ImageBase<2>* reference = this->GetReference();
  std::string referenceName;
  for (auto sensor = m_Sensors.rbegin(); sensor != m_Sensors.rend(); ++sensor)
  {
    referenceName = sensor->rasters.empty() ? referenceName : sensor->rasters.front().name;
  }
  SeriesSetup setup;
  for (const auto& sensor : m_Sensors)
  {
    std::vector<std::vector<std::optional<double>>> noData;
    for (const auto& r : sensor.rasters)
    {
      CheckSameGrid(reference, referenceName, r.image, r.name);
      noData.push_back(NoDataOf(r));
    }
    std::vector<std::vector<std::optional<double>>> maskNoData;
    for (const auto& r : sensor.maskRasters)
    {
      CheckSameGrid(reference, referenceName, r.image, r.name);
      maskNoData.push_back(NoDataOf(r));
    }
    Series series = sensor.series;
    series.noData.clear();
    for (const auto& layer : sensor.layers)
    {
      series.noData.push_back(noData[layer.raster][layer.band]);
    }
    series.maskNoData.clear();
    for (const auto& layer : sensor.masks)
    {
      series.maskNoData.push_back(maskNoData[layer.raster][layer.band]);
    }
    setup.sensors.push_back(std::move(series));
  }
  setup.fixedBands = m_StaticBands;
  for (const auto& r : m_Static)
  {
    CheckSameGrid(reference, referenceName, r.image, r.name);
    const auto noData = NoDataOf(r);
    setup.fixedNoData.insert(setup.fixedNoData.end(), noData.begin(), noData.end());
  }
  if (setup.fixedNoData.size() != setup.fixedBands.size())
  {
    throw Error(Complaint(
        "static", std::to_string(setup.fixedNoData.size()) + " band(s)",
        setup.fixedBands.empty() ? "none: the model takes no image that does not change" : std::to_string(setup.fixedBands.size()) + ", one a name", ""));
  }
  if (m_Mask.image)
  {
    CheckSameGrid(reference, referenceName, m_Mask.image, m_Mask.name);
    if (m_Mask.image->GetNumberOfComponentsPerPixel() != 1)
    {
      throw Error(
          Complaint(m_Mask.name, std::to_string(m_Mask.image->GetNumberOfComponentsPerPixel()) + " bands", "one band: not 0 where pixels are wanted", ""));
    }
    setup.maskNoData = NoDataOf(m_Mask).front();
  }
  const auto size = reference->GetLargestPossibleRegion().GetSize();
  setup.width = static_cast<std::int64_t>(size[0]);
  setup.height = static_cast<std::int64_t>(size[1]);
  if (std::any_of(m_Contract.inputs.begin(), m_Contract.inputs.end(), [](const ModelInput& in) { return in.role == "latlon"; }))
  {
    auto place = std::make_shared<LatLon>(reference);
    if (!place->Works())
    {
      throw Error(
          Complaint(referenceName, "no projection", "a projection: the model wants to know latitude and longitude", "Set it with gdal_edit.py -a_srs."));
    }
    setup.latLon = [place](double x, double y) { return place->At(x, y); };
  }
  m_Preparation = std::make_shared<SeriesPreparation>(m_Contract, std::move(setup));
}

std::size_t SeriesMapFilter::BytesPerPixel() const
{
  std::size_t bytes = 0;
  for (const auto& sensor : m_Sensors)
  {
    for (const auto& r : sensor.rasters)
    {
      bytes += BytesOf(r);
    }
    for (const auto& r : sensor.maskRasters)
    {
      bytes += BytesOf(r);
    }
  }
  return bytes;
}

/** The blocks of the files that hold most: what is read together costs once. */
std::pair<std::int64_t, std::int64_t> SeriesMapFilter::BlockOfFiles() const
{
  const auto size = this->GetReference()->GetLargestPossibleRegion().GetSize();
  std::pair<std::int64_t, std::int64_t> block = {static_cast<std::int64_t>(size[0]), 1};
  std::size_t most = 0;
  for (const auto& sensor : m_Sensors)
  {
    std::size_t bytes = 0;
    for (const auto& r : sensor.rasters)
    {
      bytes += BytesOf(r);
    }
    if (bytes <= most || sensor.rasters.empty())
    {
      continue;
    }
    const auto& imd = MetadataOf(sensor.rasters.front().image);
    if (imd.Has(MDNum::TileHintX) && imd.Has(MDNum::TileHintY) && imd[MDNum::TileHintX] >= 1. && imd[MDNum::TileHintY] >= 1.)
    {
      block = {static_cast<std::int64_t>(imd[MDNum::TileHintX]), static_cast<std::int64_t>(imd[MDNum::TileHintY])};
      most = bytes;
    }
  }
  return block;
}

std::pair<int, int> SeriesMapFilter::GetTileHint() const
{
  const auto size = this->GetReference()->GetLargestPossibleRegion().GetSize();
  if (m_Contract.tiling.unit == SpatialUnit::Patch)
  {
    return PatchTileHint(PatchGrid(static_cast<std::int64_t>(size[0]), static_cast<std::int64_t>(size[1]), m_Contract.tiling));
  }
  const auto block = this->BlockOfFiles();
  return {static_cast<int>(block.first), static_cast<int>(block.second)};
}

SeriesMapFilter::Job SeriesMapFilter::GetJob() const
{
  const auto size = this->GetReference()->GetLargestPossibleRegion().GetSize();
  Job job;
  job.width = static_cast<std::int64_t>(size[0]);
  job.height = static_cast<std::int64_t>(size[1]);
  const Tiling& tiling = m_Contract.tiling;
  std::ostringstream text;
  if (tiling.unit == SpatialUnit::Pixel)
  {
    job.samples = job.width * job.height;
    job.unit = "pixels";
    text << "one by one" << (tiling.window > 1 ? ", with a window of " + std::to_string(tiling.window) : "");
  }
  else
  {
    const PatchGrid grid(job.width, job.height, tiling);
    job.samples = grid.Count();
    job.unit = "patches";
    text << grid.Columns() << " x " << grid.Rows() << " patches of " << grid.Patch() << ", " << ToString(tiling.blend) << " (step " << grid.Step() << ")";
  }
  job.description = text.str();
  return job;
}

Region SeriesMapFilter::NeededRegion(const Region& region) const
{
  const auto size = this->GetReference()->GetLargestPossibleRegion().GetSize();
  const auto width = static_cast<std::int64_t>(size[0]), height = static_cast<std::int64_t>(size[1]);
  const Tiling& tiling = m_Contract.tiling;
  return tiling.unit == SpatialUnit::Pixel ? Intersection(Grown(region, tiling.window / 2), {0, 0, width, height})
                                           : PatchesRead(PatchGrid(width, height, tiling), region);
}

std::unique_ptr<MapEngine> SeriesMapFilter::MakeEngine()
{
  auto reader = std::make_shared<UpstreamReader>(*this);
  if (m_Contract.tiling.unit == SpatialUnit::Pixel)
  {
    const auto block = this->BlockOfFiles();
    PixelEngine::Files files;
    files.blockWidth = block.first;
    files.blockHeight = block.second;
    files.bytesPerPixel = this->BytesPerPixel();
    return std::make_unique<PixelEngine>(m_Preparation, std::move(reader), files, m_Predictor, m_Operator, m_Settings);
  }
  const PatchGrid grid(m_Preparation->Width(), m_Preparation->Height(), m_Contract.tiling);
  return std::make_unique<PatchEngine>(grid, m_Predictor, m_Operator, std::make_shared<SeriesPatchSource>(std::move(reader), m_Preparation), m_Settings);
}

} // namespace dl
} // namespace otb
