/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLPatchSource_h
#define otbDLPatchSource_h

#include "otbDLPatchPacking.h"
#include "otbDLPixelSource.h"
#include "otbDLPredictor.h"
#include "otbDLRegion.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace otb
{
namespace dl
{

/** What is known of the pixels of a patch before it is packed. Row by row. */
struct PatchContent
{
  std::vector<std::uint8_t> valid;                ///< 1 where there is data
  std::vector<std::vector<std::uint16_t>> counts; ///< [series][pixel]: valid dates; empty unless asked for
};

/** \class PatchSource
 * \brief Reads the data under patches and makes the network's input of them.
 *
 * Read() first, from one thread; then Look() and Pack() from any number of threads.
 * \ingroup OTBTorch
 */
class PatchSource
{
public:
  virtual ~PatchSource() = default;

  /** Reads a region inside the image, which the patches looked at next lie in. Forgets the one before. */
  virtual void Read(const Region& region) = 0;

  /** Where has a patch data? Its footprint may leave the image: it is mirrored there.
   * \param counts are the numbers of dates wanted? */
  virtual void Look(const Region& footprint, bool counts, PatchContent& content) const = 0;

  /** Fills slot n of every input of the network. */
  virtual void Pack(const Region& footprint, const PatchContent& content, Predictor& predictor, int n) const = 0;
};

/** \class ImagePatchSource
 * \brief Patches of images of one date each.
 * \ingroup OTBTorch
 */
class ImagePatchSource : public PatchSource
{
public:
  /** \param inputs one an argument of the network */
  ImagePatchSource(std::shared_ptr<PixelSource> pixels, std::vector<InputNormalisation> inputs, std::int64_t imageWidth, std::int64_t imageHeight);

  void Read(const Region& region) override;
  void Look(const Region& footprint, bool counts, PatchContent& content) const override;
  void Pack(const Region& footprint, const PatchContent& content, Predictor& predictor, int n) const override;

private:
  std::shared_ptr<PixelSource> m_Pixels;
  std::vector<InputNormalisation> m_Inputs;
  std::int64_t m_Width;
  std::int64_t m_Height;
  PixelBlock m_Block;
};

} // namespace dl
} // namespace otb

#endif
