/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLEvaluationReader_h
#define otbDLEvaluationReader_h

#include "otbDLRasters.h"
#include "otbDLRegion.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace otb
{
namespace Wrapper
{

/** \class EvaluationReader
 * \brief Planes of float on the grid of the first one, region by region: bands of images, and vectors burnt where they are asked for.
 *
 * Vectors are burnt in cells of 256 pixels from the origin, so that what a pixel holds does not depend on the regions. One thread reads.
 * \ingroup OTBTorch
 */
class EvaluationReader
{
public:
  EvaluationReader();
  ~EvaluationReader();
  EvaluationReader(const EvaluationReader&) = delete;
  EvaluationReader& operator=(const EvaluationReader&) = delete;

  struct Georeference
  {
    bool placed = false;
    double transform[6] = {0., 1., 0., 0., 0., 1.};
    std::string projection; ///< WKT
  };

  /** Adds a plane. \param name extended file name of an image of one band (or one chosen by &bands=)
   * \param option for messages
   * \param resample bring it onto the grid of the first plane (nearest neighbour); else another grid is an error. Where one of the two has no georeference at
   * all, as references often have none, they are laid pixel upon pixel
   * \param outside value of pixels outside such a file; none: no-data (NaN)
   * \throw dl::Error */
  int Add(const std::string& name, const std::string& option, bool resample, std::optional<double> outside = {});

  /** Adds a plane from polygons (or lines, points): 0 outside of them, inside 1 or what a field holds; where several overlap, the last one.
   * \param layer empty: the only one. \param field empty: none
   * \throw dl::Error */
  int AddVector(const std::string& name, const std::string& option, const std::string& layer, const std::string& field);

  /** Is it a file of vectors (and holds no image)? */
  static bool IsVector(const std::string& name);

  std::int64_t Width() const { return m_Width; }
  std::int64_t Height() const { return m_Height; }
  const Georeference& GetGeoreference() const { return m_Georeference; }

  /** The value that the file of a plane declares as no-data. */
  std::optional<float> NoData(int plane) const { return m_NoData[static_cast<std::size_t>(plane)]; }

  /** Reads all planes over a region inside the image. */
  void Read(const dl::Region& region);

  /** First column of the last region. */
  std::int64_t Left() const { return m_Region.x0; }

  /** Row y (of the image) of a plane of the last region, from its first column on. */
  const float* Row(int plane, std::int64_t y) const
  {
    const auto& view = m_Views[static_cast<std::size_t>(plane)];
    return view.data + (y - m_Region.y0) * view.stride;
  }

private:
  struct Plane;
  struct View
  {
    const float* data = nullptr; ///< of the region's first pixel
    std::int64_t stride = 0;
  };

  void Burn(Plane& plane, const dl::Region& region);

  Rasters m_Rasters;
  std::vector<std::unique_ptr<Plane>> m_Planes;
  std::string m_ReferenceName;
  std::int64_t m_Width = 0;
  std::int64_t m_Height = 0;
  Georeference m_Georeference;
  dl::Region m_Region;
  std::vector<View> m_Views;
  std::vector<std::optional<float>> m_NoData;
};

} // namespace Wrapper
} // namespace otb

#endif
