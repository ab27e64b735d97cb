/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLEvaluationReader.h"

#include "otbDLError.h"
#include "otbDLGdal.h"
#include "otbDLMapFilter.h"

#include "otbVectorImage.h"

#include <cpl_conv.h>
#include <cpl_error.h>
#include <cpl_string.h>
#include <gdal.h>
#include <gdal_alg.h>
#include <ogr_api.h>
#include <ogr_srs_api.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace otb
{
namespace Wrapper
{

using otb::dl::Complaint;
using otb::dl::Error;
using otb::dl::QuietGdal;

namespace
{
constexpr std::int64_t cell = 256;
using ImageType = otb::VectorImage<float, 2>;

using Dataset = otb::dl::GdalDataset<>;

/** The band that an extended file name asks for. */
int BandOf(const std::string& options)
{
  const auto at = options.find("bands=");
  return at == std::string::npos ? 1 : std::max(1, std::atoi(options.c_str() + at + 6));
}
} // namespace

struct EvaluationReader::Plane
{
  std::string option;
  ImageType* image = nullptr;

  // Of vectors:
  Dataset vectors;
  OGRLayerH layer = nullptr;
  std::string field;
  OGRCoordinateTransformationH toLayer = nullptr;
  std::vector<float> burnt; ///< of the region

  ~Plane()
  {
    if (toLayer)
    {
      OCTDestroyCoordinateTransformation(toLayer);
    }
  }
};

EvaluationReader::EvaluationReader() = default;
EvaluationReader::~EvaluationReader() = default;

bool EvaluationReader::IsVector(const std::string& name)
{
  GDALAllRegister();
  const QuietGdal quiet;
  const auto path = SplitName(name).first;
  const Dataset raster(GDALOpenEx(path.c_str(), GDAL_OF_RASTER, nullptr, nullptr, nullptr));
  if (raster && GDALGetRasterCount(raster.get()) > 0)
  {
    return false;
  }
  const Dataset vectors(GDALOpenEx(path.c_str(), GDAL_OF_VECTOR, nullptr, nullptr, nullptr));
  return vectors && GDALDatasetGetLayerCount(vectors.get()) > 0;
}

int EvaluationReader::Add(const std::string& name, const std::string& option, bool resample, std::optional<double> outside)
{
  auto plane = std::make_unique<Plane>();
  plane->option = option;
  const auto [path, options] = SplitName(name);
  OpenedRaster opened;
  if (m_Planes.empty())
  {
    opened = m_Rasters.Open(name, option, true);
    m_ReferenceName = option;
  }
  else
  {
    bool nowhere = !m_Georeference.placed && m_Georeference.projection.empty();
    {
      const QuietGdal quiet;
      double t[6];
      const Dataset dataset(GDALOpen(path.c_str(), GA_ReadOnly));
      nowhere = nowhere || (dataset && GDALGetGeoTransform(dataset.get(), t) != CE_None && std::string(GDALGetProjectionRef(dataset.get())).empty());
    }
    if (nowhere)
    {
      opened = m_Rasters.Open(name, option, true);
      const auto size = opened.image->GetLargestPossibleRegion().GetSize();
      const auto text = [](std::int64_t w, std::int64_t h) { return "size " + std::to_string(w) + " x " + std::to_string(h); };
      const auto w = static_cast<std::int64_t>(size[0]), h = static_cast<std::int64_t>(size[1]);
      if (w != m_Width || h != m_Height)
      {
        throw Error(Complaint(option, text(w, h), text(m_Width, m_Height) + " as " + m_ReferenceName,
                              "One of the two has no georeference: they are laid pixel upon pixel."));
      }
    }
    else if (resample)
    {
      bool resampled = false;
      const double none = std::numeric_limits<double>::quiet_NaN();
      opened = m_Rasters.OpenOn(m_Planes.front()->image, m_ReferenceName, name, option, {"near", outside ? *outside : none, !outside}, resampled, true);
    }
    else
    {
      opened = m_Rasters.Open(name, option, true);
      dl::CheckSameGrid(m_Planes.front()->image, m_ReferenceName, opened.image, option);
    }
  }
  plane->image = dynamic_cast<ImageType*>(opened.image.GetPointer());
  if (plane->image->GetNumberOfComponentsPerPixel() != 1)
  {
    throw Error(Complaint(option, "\"" + path + "\" with " + std::to_string(plane->image->GetNumberOfComponentsPerPixel()) + " bands", "one band",
                          "Choose it: \"" + path + "?&bands=1\"."));
  }
  {
    const QuietGdal quiet;
    const Dataset dataset(GDALOpen(path.c_str(), GA_ReadOnly));
    m_NoData.emplace_back();
    int has = 0;
    const double value = GDALGetRasterNoDataValue(GDALGetRasterBand(dataset.get(), BandOf(options)), &has);
    if (has && !std::isnan(value))
    {
      m_NoData.back() = static_cast<float>(value);
    }
    if (m_Planes.empty())
    {
      const auto size = plane->image->GetLargestPossibleRegion().GetSize();
      m_Width = static_cast<std::int64_t>(size[0]);
      m_Height = static_cast<std::int64_t>(size[1]);
      if (m_Width != GDALGetRasterXSize(dataset.get()) || m_Height != GDALGetRasterYSize(dataset.get()))
      {
        throw Error(Complaint(option, "\"" + name + "\", of which only a part is asked for", "a whole image", "Cut it out with otbcli_ExtractROI first."));
      }
      m_Georeference.placed = GDALGetGeoTransform(dataset.get(), m_Georeference.transform) == CE_None;
      m_Georeference.projection = GDALGetProjectionRef(dataset.get());
    }
  }
  m_Views.emplace_back();
  m_Planes.push_back(std::move(plane));
  return static_cast<int>(m_Planes.size()) - 1;
}

int EvaluationReader::AddVector(const std::string& name, const std::string& option, const std::string& layerName, const std::string& field)
{
  auto plane = std::make_unique<Plane>();
  plane->option = option;
  plane->field = field;
  const auto path = SplitName(name).first;
  {
    const QuietGdal quiet;
    plane->vectors.reset(GDALOpenEx(path.c_str(), GDAL_OF_VECTOR, nullptr, nullptr, nullptr));
  }
  GDALDatasetH vectors = plane->vectors.get();
  if (!vectors)
  {
    throw Error(Complaint(option, "\"" + path + "\", which cannot be read", "an image or a file of polygons", ""));
  }
  std::string names;
  for (int k = 0; k < GDALDatasetGetLayerCount(vectors); ++k)
  {
    OGRLayerH layer = GDALDatasetGetLayer(vectors, k);
    names += (k ? ", " : "") + std::string(OGR_L_GetName(layer));
    if (layerName.empty() ? GDALDatasetGetLayerCount(vectors) == 1 : layerName == OGR_L_GetName(layer))
    {
      plane->layer = layer;
    }
  }
  if (!plane->layer)
  {
    throw Error(Complaint(layerName.empty() ? option : "reflayer", "\"" + path + "\" with the layers " + names,
                          layerName.empty() ? "one layer" : "one of these", "Name one with -reflayer."));
  }
  if (!field.empty() && OGR_FD_GetFieldIndex(OGR_L_GetLayerDefn(plane->layer), field.c_str()) < 0)
  {
    throw Error(Complaint("reffield", "\"" + field + "\"", "a field of \"" + path + "\"", ""));
  }
  if (!m_Georeference.placed)
  {
    throw Error(Complaint(option, "vectors for an image without a georeference", "a georeferenced " + m_ReferenceName, "Give the reference as an image."));
  }
  const auto* t = m_Georeference.transform;
  const double right = t[0] + t[1] * static_cast<double>(m_Width), bottom = t[3] + t[5] * static_cast<double>(m_Height);
  double bounds[4] = {std::min(t[0], right), std::min(t[3], bottom), std::max(t[0], right), std::max(t[3], bottom)};
  OGRSpatialReferenceH own = OGR_L_GetSpatialRef(plane->layer);
  if (own && !m_Georeference.projection.empty())
  {
    OGRSpatialReferenceH grid = OSRNewSpatialReference(m_Georeference.projection.c_str());
    OSRSetAxisMappingStrategy(grid, OAMS_TRADITIONAL_GIS_ORDER);
    OGRSpatialReferenceH target = OSRClone(own);
    OSRSetAxisMappingStrategy(target, OAMS_TRADITIONAL_GIS_ORDER);
    if (!OSRIsSame(grid, target))
    {
      plane->toLayer = OCTNewCoordinateTransformation(grid, target);
      if (!plane->toLayer ||
          !OCTTransformBounds(plane->toLayer, bounds[0], bounds[1], bounds[2], bounds[3], &bounds[0], &bounds[1], &bounds[2], &bounds[3], 21))
      {
        throw Error(Complaint(option, "vectors whose projection cannot be turned into that of " + m_ReferenceName, "another projection", ""));
      }
    }
    OSRDestroySpatialReference(grid);
    OSRDestroySpatialReference(target);
  }
  OGREnvelope envelope;
  if (OGR_L_GetFeatureCount(plane->layer, TRUE) > 0 && OGR_L_GetExtent(plane->layer, &envelope, TRUE) == OGRERR_NONE &&
      (envelope.MinX > bounds[2] || envelope.MaxX < bounds[0] || envelope.MinY > bounds[3] || envelope.MaxY < bounds[1]))
  {
    throw Error(Complaint(option, "\"" + path + "\", which does not overlap with " + m_ReferenceName, "vectors of the same place", "Check the projections."));
  }
  m_NoData.emplace_back();
  m_Views.emplace_back();
  m_Planes.push_back(std::move(plane));
  return static_cast<int>(m_Planes.size()) - 1;
}

void EvaluationReader::Burn(Plane& plane, const dl::Region& region)
{
  plane.burnt.assign(static_cast<std::size_t>(region.Area()), 0.f);
  std::vector<float> pixels;
  const auto* t = m_Georeference.transform;
  for (std::int64_t y = region.y0 / cell * cell; y < region.y1; y += cell)
  {
    for (std::int64_t x = region.x0 / cell * cell; x < region.x1; x += cell)
    {
      const auto w = std::min(cell, m_Width - x), h = std::min(cell, m_Height - y);
      double place[6] = {t[0] + t[1] * static_cast<double>(x) + t[2] * static_cast<double>(y), t[1], t[2],
                         t[3] + t[4] * static_cast<double>(x) + t[5] * static_cast<double>(y), t[4], t[5]};
      const double right = place[0] + t[1] * static_cast<double>(w) + t[2] * static_cast<double>(h);
      const double bottom = place[3] + t[4] * static_cast<double>(w) + t[5] * static_cast<double>(h);
      double bounds[4] = {std::min(place[0], right), std::min(place[3], bottom), std::max(place[0], right), std::max(place[3], bottom)};
      if (plane.toLayer)
      {
        OCTTransformBounds(plane.toLayer, bounds[0], bounds[1], bounds[2], bounds[3], &bounds[0], &bounds[1], &bounds[2], &bounds[3], 21);
      }
      OGR_L_SetSpatialFilterRect(plane.layer, bounds[0], bounds[1], bounds[2], bounds[3]);
      OGR_L_ResetReading(plane.layer);
      OGRFeatureH any = OGR_L_GetNextFeature(plane.layer);
      if (!any)
      {
        continue;
      }
      OGR_F_Destroy(any);
      const Dataset raster(GDALCreate(GDALGetDriverByName("MEM"), "", static_cast<int>(w), static_cast<int>(h), 1, GDT_Float32, nullptr));
      GDALSetGeoTransform(raster.get(), place);
      GDALSetProjection(raster.get(), m_Georeference.projection.c_str());
      int band = 1;
      double burn = 1.;
      char** options = nullptr;
      if (!plane.field.empty())
      {
        options = CSLSetNameValue(options, "ATTRIBUTE", plane.field.c_str());
      }
      const auto done = GDALRasterizeLayers(raster.get(), 1, &band, 1, &plane.layer, nullptr, nullptr, &burn, options, nullptr, nullptr);
      CSLDestroy(options);
      pixels.resize(static_cast<std::size_t>(w * h));
      if (done != CE_None || GDALRasterIO(GDALGetRasterBand(raster.get(), 1), GF_Read, 0, 0, static_cast<int>(w), static_cast<int>(h), pixels.data(),
                                          static_cast<int>(w), static_cast<int>(h), GDT_Float32, 0, 0) != CE_None)
      {
        throw Error(Complaint(plane.option, std::string("vectors that cannot be burnt (") + CPLGetLastErrorMsg() + ")", "polygons", ""));
      }
      const auto part = dl::Intersection(region, {x, y, x + w, y + h});
      for (auto row = part.y0; row < part.y1; ++row)
      {
        const auto* from = pixels.data() + (row - y) * w + (part.x0 - x);
        std::copy(from, from + part.Width(), plane.burnt.begin() + (row - region.y0) * region.Width() + (part.x0 - region.x0));
      }
    }
  }
}

void EvaluationReader::Read(const dl::Region& region)
{
  m_Region = region;
  for (std::size_t k = 0; k < m_Planes.size(); ++k)
  {
    auto& plane = *m_Planes[k];
    if (!plane.image)
    {
      this->Burn(plane, region);
      m_Views[k] = {plane.burnt.data(), region.Width()};
      continue;
    }
    const auto first = plane.image->GetLargestPossibleRegion().GetIndex();
    ImageType::RegionType wanted;
    wanted.SetIndex(0, first[0] + region.x0);
    wanted.SetIndex(1, first[1] + region.y0);
    wanted.SetSize(0, static_cast<itk::SizeValueType>(region.Width()));
    wanted.SetSize(1, static_cast<itk::SizeValueType>(region.Height()));
    plane.image->SetRequestedRegion(wanted);
    plane.image->PropagateRequestedRegion();
    plane.image->UpdateOutputData();
    const auto& held = plane.image->GetBufferedRegion();
    const auto stride = static_cast<std::int64_t>(held.GetSize(0));
    m_Views[k] = {plane.image->GetBufferPointer() + (wanted.GetIndex(1) - held.GetIndex(1)) * stride + wanted.GetIndex(0) - held.GetIndex(0), stride};
  }
}

} // namespace Wrapper
} // namespace otb
