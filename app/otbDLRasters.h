/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLRasters_h
#define otbDLRasters_h

#include "itkImageBase.h"
#include "itkProcessObject.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace otb
{
namespace Wrapper
{

/** An extended file name in its two parts: path, options (with the question mark). */
std::pair<std::string, std::string> SplitName(const std::string& extended);

/** A file as an ITK image of its own pixel type. */
struct OpenedRaster
{
  itk::ImageBase<2>::Pointer image;
  std::vector<std::string> descriptions; ///< of the bands, as GDAL tells them; empty strings where there are none
};

/** How a file is brought onto another grid. */
struct Resampling
{
  std::string method = "cubic"; ///< near, bilinear or cubic, as GDAL calls them
  std::optional<double> noData; ///< of pixels outside the file; none: NaN if pixels are made float and isNoData, else it must cover the reference
  bool isNoData = true;         ///< does the value stand for no-data inside the file as well? (Else it only fills what is outside.)
  bool allBands = false;        ///< is a pixel no-data where all bands hold the value that the file does not declare itself? Else band by band
  double shift[2] = {0., 0.};   ///< pixels of the reference, right and down: pixel p of the result shows what the file has at p + shift
};

/** \class Rasters
 * \brief Opens image files without changing their type, if need be on another grid.
 *
 * Another grid is had from GDAL's warper, as a virtual file that is computed in blocks of its own: its pixels do not depend on what region is asked for.
 * The images live as long as this object.
 * \ingroup OTBTorch
 */
class Rasters
{
public:
  Rasters() = default;
  ~Rasters();
  Rasters(const Rasters&) = delete;
  Rasters& operator=(const Rasters&) = delete;

  /** \param name an extended file name
   * \param option, for messages
   * \param asFloat turn pixels into float, whatever they are?
   * \throw dl::Error when it cannot be read */
  OpenedRaster Open(const std::string& name, const std::string& option, bool asFloat = false);

  /** Opens a file on the grid of a reference image, resampled when it has another, or is to be shifted. Two images without a georeference share the upper left
   * corner. \param resampled out: was it? */
  OpenedRaster OpenOn(const itk::ImageBase<2>* reference, const std::string& referenceName, const std::string& name, const std::string& option,
                      const Resampling& how, bool& resampled, bool asFloat = false);

  void Clear();

private:
  void* InPixels(void* dataset, const std::string& option);

  std::vector<itk::ProcessObject::Pointer> m_Readers;
  std::vector<std::string> m_VirtualFiles;
};

} // namespace Wrapper
} // namespace otb

#endif
