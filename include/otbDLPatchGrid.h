/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLPatchGrid_h
#define otbDLPatchGrid_h

#include "otbDLModelContract.h"
#include "otbDLRegion.h"

#include <vector>

namespace otb
{
namespace dl
{

/** \class PatchGrid
 * \brief The one grid of square patches of an image, anchored at its origin.
 *
 * Whatever part of the image is asked for, in whatever order, the patches are these; so the map is a function of the image and the grid alone.
 *
 * - crop: a patch of side P gives its central square of side S = P - 2 m, where m is the halo rounded up to the network's stride; cores tile the image.
 * - hann: patches step by S = P / 2; each pixel lies in four of them (two a side), also at the border of the image.
 *
 * Footprints may leave the image: what lies outside is mirrored. A value; thread-safe.
 * \ingroup OTBTorch
 */
class PatchGrid
{
public:
  /** \throw Error when the image is empty or the tiling leaves nothing of the patch. */
  PatchGrid(std::int64_t width, std::int64_t height, const Tiling& tiling);

  Region Image() const { return {0, 0, m_Width, m_Height}; }
  /** Side of a patch, pixels. */
  int Patch() const { return m_Patch; }
  /** Distance between neighbouring patches, pixels. */
  int Step() const { return m_Step; }
  Blend Blending() const { return m_Blend; }
  std::int64_t Columns() const { return m_Columns; }
  std::int64_t Rows() const { return m_Rows; }
  std::int64_t Count() const { return m_Columns * m_Rows; }

  /** The input that patch (i, j) sees. May leave the image. */
  Region Footprint(std::int64_t i, std::int64_t j) const;

  /** The pixels to which patch (i, j) contributes, before clipping: a square of side CoreSize(). */
  Region Core(std::int64_t i, std::int64_t j) const;

  /** Side of Core(), and its offset from the footprint's corner. */
  int CoreSize() const { return m_CoreSize; }
  int CoreOffset() const { return m_CoreOffset; }

  /** Columns and rows of the patches that contribute to a region inside the image: [x0, x1) x [y0, y1). */
  Region Covering(const Region& region) const;

  /** The part of the image that a footprint reads once what lies outside is mirrored. */
  Region Reads(const Region& footprint) const;

private:
  std::int64_t m_Width;
  std::int64_t m_Height;
  int m_Patch;
  int m_Step;
  int m_Lead; ///< distance from the first footprint's corner to the image's
  int m_CoreSize;
  int m_CoreOffset;
  Blend m_Blend;
  std::int64_t m_Columns;
  std::int64_t m_Rows;
};

/** Hann window sin^2(pi (u + 1/2) / P), u = 0..P-1, for even P. Shifted by P/2 and added to itself it is exactly 1 (the second half is 1 minus the first). */
std::vector<float> HannWindow(int patch);

} // namespace dl
} // namespace otb

#endif
