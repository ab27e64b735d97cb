/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLRasters.h"

#include "otbDLError.h"
#include "otbDLGdal.h"
#include "otbDLMapFilter.h"

#include "otbImageCommons.h"
#include "otbImageFileReader.h"
#include "otbVectorImage.h"

#include <cpl_conv.h>
#include <cpl_error.h>
#include <cpl_string.h>
#include <cpl_vsi.h>
#include <gdal.h>
#include <gdal_alg.h>
#include <gdal_utils.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <iomanip>
#include <memory>
#include <sstream>
#include <unistd.h>
#include <utility>

namespace otb
{
namespace Wrapper
{

using otb::dl::Complaint;
using otb::dl::Error;

namespace
{

using Dataset = otb::dl::GdalDataset<>;

Dataset OpenDataset(const std::string& path, const std::string& option)
{
  GDALAllRegister(); // OTB does so when it reads its first image
  Dataset dataset;
  {
    const otb::dl::QuietGdal quiet;
    dataset.reset(GDALOpen(path.c_str(), GA_ReadOnly));
  }
  if (!dataset)
  {
    throw Error(Complaint(option, "\"" + path + "\", which cannot be read (" + CPLGetLastErrorMsg() + ")", "an image file", ""));
  }
  if (GDALGetRasterCount(dataset.get()) == 0)
  {
    throw Error(Complaint(option, "\"" + path + "\", which holds no bands of its own", "an image file",
                          "Of a file with subdatasets (NetCDF, HDF), name one, or convert it with gdal_translate."));
  }
  return dataset;
}

/** TIFF files that are opened while it lives are read without GDAL's cache of blocks, where they are not compressed: each pixel is asked for once, and the
 * cache would turn pixels of hundreds of bands into as many blocks and back (measured: 2 to 4 times as long). Whoever set the option has the last word. */
class DirectReading
{
public:
  DirectReading() : m_Ours(CPLGetConfigOption(name, nullptr) == nullptr)
  {
    if (m_Ours)
    {
      CPLSetThreadLocalConfigOption(name, "YES");
    }
  }
  ~DirectReading()
  {
    if (m_Ours)
    {
      CPLSetThreadLocalConfigOption(name, nullptr);
    }
  }
  DirectReading(const DirectReading&) = delete;
  DirectReading& operator=(const DirectReading&) = delete;

private:
  static constexpr const char* name = "GTIFF_DIRECT_IO";
  bool m_Ours;
};

/** The type that holds the pixels of all bands. */
GDALDataType TypeOf(GDALDatasetH dataset)
{
  GDALDataType type = GDALGetRasterDataType(GDALGetRasterBand(dataset, 1));
  for (int b = 2; b <= GDALGetRasterCount(dataset); ++b)
  {
    type = GDALDataTypeUnion(type, GDALGetRasterDataType(GDALGetRasterBand(dataset, b)));
  }
  return type;
}

template <typename T>
itk::ImageBase<2>::Pointer Read(const std::string& name, std::vector<itk::ProcessObject::Pointer>& readers)
{
  auto reader = otb::ImageFileReader<otb::VectorImage<T, 2>>::New();
  reader->SetFileName(name);
  reader->UpdateOutputInformation();
  readers.emplace_back(reader.GetPointer());
  return reader->GetOutput();
}

/** Does a data set lie under the whole of an image? Its border is looked at, in the data set's projection. */
bool Covers(GDALDatasetH dataset, const itk::ImageBase<2>* reference, const std::string& wkt)
{
  double g[6];
  if (GDALGetGeoTransform(dataset, g) != CE_None || g[2] != 0. || g[4] != 0.)
  {
    return false;
  }
  const auto size = reference->GetLargestPossibleRegion().GetSize();
  constexpr int points = 21; // of a side: enough for the bend of a projection
  std::vector<double> x, y, z;
  for (int k = 0; k < points; ++k)
  {
    const double share = static_cast<double>(k) / (points - 1);
    for (const auto& [u, v] : {std::pair<double, double>{share, 0.}, {share, 1.}, {0., share}, {1., share}})
    {
      itk::ContinuousIndex<double, 2> index;
      index[0] = static_cast<double>(reference->GetLargestPossibleRegion().GetIndex(0)) - .5 + u * static_cast<double>(size[0]);
      index[1] = static_cast<double>(reference->GetLargestPossibleRegion().GetIndex(1)) - .5 + v * static_cast<double>(size[1]);
      itk::Point<double, 2> point;
      reference->TransformContinuousIndexToPhysicalPoint(index, point);
      x.push_back(point[0]);
      y.push_back(point[1]);
      z.push_back(0.);
    }
  }
  void* transformer = GDALCreateReprojectionTransformer(wkt.c_str(), GDALGetProjectionRef(dataset));
  if (!transformer)
  {
    return false;
  }
  std::vector<int> good(x.size(), 0);
  const bool done = GDALReprojectionTransform(transformer, FALSE, static_cast<int>(x.size()), x.data(), y.data(), z.data(), good.data()) != 0;
  GDALDestroyReprojectionTransformer(transformer);
  const double slack = .01;
  bool inside = done;
  for (std::size_t k = 0; inside && k < x.size(); ++k)
  {
    const double column = (x[k] - g[0]) / g[1], line = (y[k] - g[3]) / g[5];
    inside = good[k] && column >= -slack && line >= -slack && column <= GDALGetRasterXSize(dataset) + slack && line <= GDALGetRasterYSize(dataset) + slack;
  }
  return inside;
}

std::string Text(double value)
{
  std::ostringstream out;
  out << std::setprecision(17) << value;
  return out.str();
}

/** No-data values of the bands for gdalwarp, "v1 v2 ..."; empty when none is declared.
 * \throw Error when some bands declare one and some do not */
std::string DeclaredNoData(GDALDatasetH dataset, const std::string& option)
{
  std::string list;
  int declared = 0;
  const int bands = GDALGetRasterCount(dataset);
  for (int b = 1; b <= bands; ++b)
  {
    int has = 0;
    const double value = GDALGetRasterNoDataValue(GDALGetRasterBand(dataset, b), &has);
    declared += has != 0;
    list += (b > 1 ? " " : "") + Text(value);
  }
  if (declared > 0 && declared < bands)
  {
    throw Error(Complaint(option, "a no-data value for " + std::to_string(declared) + " of its " + std::to_string(bands) + " bands",
                          "one for all of them or for none: it is on another grid and has to be resampled", "Declare it: gdal_edit.py -a_nodata VALUE."));
  }
  return declared ? list : std::string();
}

std::string VirtualName()
{
  static std::atomic<int> number{0};
  return "/vsimem/otbtorch-" + std::to_string(getpid()) + "-" + std::to_string(number++) + ".vrt";
}

/** Has an image neither projection nor geotransform? */
bool IsPixelGrid(const itk::ImageBase<2>* image)
{
  bool plain = dynamic_cast<const otb::ImageCommons&>(*image).GetProjectionRef().empty();
  for (int d = 0; d < 2; ++d)
  {
    plain = plain && image->GetOrigin()[d] == .5 && image->GetSpacing()[d] == 1. && image->GetDirection()[d][d] == 1.;
  }
  return plain;
}

} // namespace

/** A view of a data set whose positions are its pixels, y pointing up. */
void* Rasters::InPixels(void* dataset, const std::string& option)
{
  const std::vector<std::string> words = {
      "-of", "VRT", "-nogcp", "-a_ullr", "0", "0", std::to_string(GDALGetRasterXSize(dataset)), std::to_string(-GDALGetRasterYSize(dataset))};
  char** arguments = nullptr;
  for (const auto& w : words)
  {
    arguments = CSLAddString(arguments, w.c_str());
  }
  GDALTranslateOptions* translate = GDALTranslateOptionsNew(arguments, nullptr);
  CSLDestroy(arguments);
  const std::string file = VirtualName();
  int wrong = 0;
  GDALDatasetH made = GDALTranslate(file.c_str(), dataset, translate, &wrong);
  GDALTranslateOptionsFree(translate);
  m_VirtualFiles.push_back(file);
  if (!made || wrong)
  {
    throw Error(Complaint(option, std::string("a file that cannot be read through a VRT (") + CPLGetLastErrorMsg() + ")", "an image file", ""));
  }
  GDALSetProjection(made, "");
  GDALFlushCache(made);
  return made;
}

std::pair<std::string, std::string> SplitName(const std::string& extended)
{
  const auto at = extended.find("?&");
  return at == std::string::npos ? std::make_pair(extended, std::string()) : std::make_pair(extended.substr(0, at), extended.substr(at));
}

Rasters::~Rasters()
{
  this->Clear();
}

void Rasters::Clear()
{
  m_Readers.clear();
  for (const auto& file : m_VirtualFiles)
  {
    VSIUnlink(file.c_str());
  }
  m_VirtualFiles.clear();
}

OpenedRaster Rasters::Open(const std::string& name, const std::string& option, bool asFloat)
{
  const DirectReading direct;
  const auto [path, options] = SplitName(name);
  OpenedRaster opened;
  GDALDataType type = GDT_Float32;
  {
    const Dataset dataset = OpenDataset(path, option);
    type = TypeOf(dataset.get());
    const char* kind = GDALGetMetadataItem(GDALGetRasterBand(dataset.get(), 1), "PIXELTYPE", "IMAGE_STRUCTURE");
    if (kind && std::string(kind) == "SIGNEDBYTE")
    {
      throw Error(Complaint(option, "\"" + path + "\" with signed bytes, which OTB reads as unsigned", "another type of pixels",
                            "Convert it, to 16 bit integers say."));
    }
    if (GDALDataTypeIsComplex(type))
    {
      throw Error(Complaint(option, "\"" + path + "\" with complex pixels", "real ones", "Take amplitude or backscatter."));
    }
    if (options.find("bands=") == std::string::npos)
    {
      for (int b = 1; b <= GDALGetRasterCount(dataset.get()); ++b)
      {
        opened.descriptions.emplace_back(GDALGetDescription(GDALGetRasterBand(dataset.get(), b)));
      }
    }
  }
  switch (asFloat ? GDT_Float32 : type)
  {
  case GDT_Byte:
    opened.image = Read<std::uint8_t>(name, m_Readers);
    break;
  case GDT_Int16:
    opened.image = Read<std::int16_t>(name, m_Readers);
    break;
  case GDT_UInt16:
    opened.image = Read<std::uint16_t>(name, m_Readers);
    break;
  case GDT_Int32:
    opened.image = Read<std::int32_t>(name, m_Readers);
    break;
  case GDT_UInt32:
    opened.image = Read<std::uint32_t>(name, m_Readers);
    break;
  case GDT_Float64:
    opened.image = Read<double>(name, m_Readers);
    break;
  default:
    opened.image = Read<float>(name, m_Readers);
  }
  return opened;
}

OpenedRaster Rasters::OpenOn(const itk::ImageBase<2>* reference, const std::string& referenceName, const std::string& name, const std::string& option,
                             const Resampling& how, bool& resampled, bool asFloat)
{
  resampled = false;
  OpenedRaster opened = this->Open(name, option, asFloat);
  std::string difference;
  try
  {
    otb::dl::CheckSameGrid(reference, referenceName, opened.image, option);
    if (how.shift[0] == 0. && how.shift[1] == 0.)
    {
      return opened;
    }
  }
  catch (const Error& e)
  {
    difference = e.what();
  }
  const auto [path, options] = SplitName(name);
  const std::string wkt = dynamic_cast<const otb::ImageCommons&>(*reference).GetProjectionRef();
  const std::string own = dynamic_cast<const otb::ImageCommons&>(*opened.image).GetProjectionRef();
  // On one grid, or without any georeference, positions are counted in pixels: nothing else needs to be known of the files.
  const bool inPixels = difference.empty() || (IsPixelGrid(reference) && IsPixelGrid(opened.image));
  if (!inPixels && (wkt.empty() || own.empty() || difference.find("do not overlap") != std::string::npos))
  {
    throw Error(difference);
  }

  const Dataset source = OpenDataset(path, option);
  std::string values = how.isNoData ? DeclaredNoData(source.get(), option) : std::string();
  const bool declared = !values.empty();
  if (values.empty() && how.noData)
  {
    values = Text(*how.noData);
  }
  const auto size = reference->GetLargestPossibleRegion().GetSize();
  const bool fillNaN = values.empty() && how.isNoData && asFloat;
  if (values.empty() && !fillNaN &&
      !(inPixels ? GDALGetRasterXSize(source.get()) >= static_cast<int>(size[0]) && GDALGetRasterYSize(source.get()) >= static_cast<int>(size[1])
                 : Covers(source.get(), reference, wkt)))
  {
    throw Error(Complaint(option, "\"" + path + "\", which does not cover the whole of " + referenceName + " and has no no-data value", "a value for the rest",
                          "Declare one: gdal_edit.py -a_nodata VALUE."));
  }
  if (!inPixels && (reference->GetDirection()[0][0] < 0. || reference->GetDirection()[1][1] > 0.))
  {
    throw Error(difference); // upside down: nothing that GDAL's -te can say
  }

  double grid[6] = {0., 1., 0., 0., 0., 1.};
  for (int d = 0; d < 2; ++d)
  {
    const double step = (reference->GetDirection()[d][d] < 0. ? -1. : 1.) * reference->GetSpacing()[d];
    grid[d == 0 ? 0 : 3] = reference->GetOrigin()[d] - .5 * step;
    grid[d == 0 ? 1 : 5] = step;
  }
  Dataset view; // closed before what it shows
  double target[6];
  std::copy(grid, grid + 6, target);
  if (inPixels)
  {
    const double pixels[6] = {0., 1., 0., 0., 0., -1.};
    std::copy(pixels, pixels + 6, target);
    view.reset(this->InPixels(source.get(), option));
  }
  target[0] += how.shift[0] * target[1];
  target[3] += how.shift[1] * target[5];

  std::vector<std::string> words = {"-of", "VRT", "-te", Text(target[0]), Text(target[3] + target[5] * static_cast<double>(size[1])),
                                    Text(target[0] + target[1] * static_cast<double>(size[0])), Text(target[3]), "-ts", std::to_string(size[0]),
                                    std::to_string(size[1]), "-r", how.method,
                                    // Exact positions: an approximation would depend on what is computed together.
                                    "-et", "0",
                                    // The pixels themselves, not what a pyramid makes of them.
                                    "-ovr", "NONE", "-wo", "NUM_THREADS=1"};
  words.insert(words.end(), {"-wo", how.allBands && !declared ? "UNIFIED_SRC_NODATA=YES" : "UNIFIED_SRC_NODATA=NO"});
  if (!inPixels)
  {
    words.insert(words.end(), {"-t_srs", wkt});
  }
  if (asFloat)
  {
    words.insert(words.end(), {"-ot", "Float32"}); // no rounding between the file and what reads it
  }
  if (!how.isNoData || fillNaN)
  {
    // What the file declares as no-data is looked at where all masks are, and fills nothing here.
    words.insert(words.end(), {"-srcnodata", "None", "-dstnodata", "None", "-wo", "INIT_DEST=" + (fillNaN ? "nan" : values)});
  }
  else if (!values.empty())
  {
    words.insert(words.end(), {"-srcnodata", values, "-dstnodata", values});
  }
  char** arguments = nullptr;
  for (const auto& w : words)
  {
    arguments = CSLAddString(arguments, w.c_str());
  }
  GDALWarpAppOptions* warp = GDALWarpAppOptionsNew(arguments, nullptr);
  CSLDestroy(arguments);
  const std::string file = VirtualName();
  GDALDatasetH datasets[] = {view ? view.get() : source.get()};
  int wrong = 0;
  const Dataset made(GDALWarp(file.c_str(), nullptr, 1, datasets, warp, &wrong));
  GDALWarpAppOptionsFree(warp);
  if (!made || wrong)
  {
    throw Error(
        Complaint(option, "\"" + path + "\", which cannot be resampled (" + CPLGetLastErrorMsg() + ")", "an image that overlaps with " + referenceName, ""));
  }
  // Where the pixels were taken is the warper's business; what they show lies on the grid of the reference.
  GDALSetGeoTransform(made.get(), grid);
  if (inPixels)
  {
    GDALSetProjection(made.get(), wkt.c_str());
  }
  m_VirtualFiles.push_back(file);
  GDALFlushCache(made.get());
  const auto descriptions = opened.descriptions;
  m_Readers.pop_back(); // that of the file on its own grid
  opened = this->Open(file + options, option, asFloat);
  opened.descriptions = descriptions;
  resampled = true;
  return opened;
}

} // namespace Wrapper
} // namespace otb
