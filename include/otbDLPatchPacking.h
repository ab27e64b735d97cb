/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLPatchPacking_h
#define otbDLPatchPacking_h

#include "otbDLModelContract.h"
#include "otbDLPixelSource.h"
#include "otbDLPredictor.h"

#include <cstdint>
#include <vector>

namespace otb
{
namespace dl
{

/** What the engine must know of one input to scale it: the contract's words, with the no-data values that the files declare. */
struct InputNormalisation
{
  std::vector<BandScaling> scaling; ///< one a band
  std::vector<double> noData;       ///< one a band
  std::vector<bool> hasNoData;      ///< one a band
  NoDataRule rule = NoDataRule::All;
  float fill = 0.f; ///< after scaling
};

/** Makes the normalisation of a contract's input; declared[b] overrides the contract's no-data value where declaredFlags[b].
 * Sizes of both are the number of bands or 0 (nothing declared). */
InputNormalisation Normalisation(const ModelInput& input, const std::vector<bool>& declaredFlags, const std::vector<double>& declared);

/** Validity of each pixel of a patch, row by row: 1 where all inputs have data there and the mask agrees.
 * \param block pixels that hold everything that the footprint reads
 * \param footprint the patch, may leave the image (mirrored)
 * \param imageWidth, imageHeight of the whole image
 * \param valid out, footprint.Width() x footprint.Height() */
void PatchValidity(const PixelBlock& block, const Region& footprint, std::int64_t imageWidth, std::int64_t imageHeight,
                   const std::vector<InputNormalisation>& inputs, std::vector<std::uint8_t>& valid);

/** Scales one input of a patch into slot n of a batch; pixels that are not valid become the fill value. Arguments as above. */
void PackPatch(const PixelBlock& block, const Region& footprint, std::int64_t imageWidth, std::int64_t imageHeight, int input,
               const InputNormalisation& normalisation, const std::vector<std::uint8_t>& valid, const BatchView& batch, int n);

} // namespace dl
} // namespace otb

#endif
