/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLSeries_h
#define otbDLSeries_h

#include "otbDLDates.h"
#include "otbDLRegion.h"

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** Types of pixels as they lie in files. They stay what they are until they are packed. */
enum class SampleType
{
  UInt8,
  Int16,
  UInt16,
  Int32,
  UInt32,
  Float,
  Double
};

/** Bytes of one. */
std::size_t SizeOf(SampleType type);

/** One band of a region in someone else's memory: pixel (x, y) is element y * strideY + x * strideX of an array of that type. */
struct SampleView
{
  const void* data = nullptr;
  SampleType type = SampleType::Float;
  std::ptrdiff_t strideX = 0;
  std::ptrdiff_t strideY = 0;
};

/** What the values of a validity raster say. */
enum class MaskMeaning
{
  ZeroIsValid,        ///< as iota2: 1 = cloud, edge or saturation, 2 = not acquired
  NotZeroIsValid,     ///< 0 = not valid
  SceneClassification ///< Sentinel-2's SCL: 2, 4, 5, 6, 7, 11 are valid (dark, vegetation, bare, water, unclassified, snow)
};

/** The series of one sensor: what is known of it before a pixel is read. */
struct Series
{
  std::vector<Day> dates; ///< ascending; empty: the sensor is absent
  std::vector<std::string> bands;
  std::vector<std::optional<double>> noData; ///< as the files declare it, [date * bands + band], or empty
  MaskMeaning masks = MaskMeaning::ZeroIsValid;
  std::vector<std::optional<double>> maskNoData; ///< as the validity rasters declare it, [date], or empty: not valid, unless it is their word for valid
  std::vector<float> mean;                       ///< taken from the raw values, [date * bands + band], or empty
  std::vector<float> divisor;                    ///< then they are divided by this, as mean
  std::string option;                            ///< what the user gave it with, for messages: il, il2 ...
};

/** All series over one region. */
struct SeriesBlock
{
  Region region;
  std::vector<std::vector<SampleView>> values; ///< [sensor][date * bands + band]
  std::vector<std::vector<SampleView>> masks;  ///< [sensor][date], or empty
  std::vector<SampleView> fixed;               ///< bands of the static image
  SampleView mask;                             ///< pixels that are 0 are left out; data == nullptr: none
};

/** \class SeriesReader
 * \brief Where series come from.
 * \ingroup OTBTorch
 */
class SeriesReader
{
public:
  virtual ~SeriesReader() = default;

  /** Reads a region inside the image. The block stays valid until the next call. May be called from any thread, one at a time. */
  virtual SeriesBlock Read(const Region& region) = 0;
};

/** Are two band names the same: in any case of letters, B2 like B02? */
bool SameBand(const std::string& a, const std::string& b);

} // namespace dl
} // namespace otb

#endif
