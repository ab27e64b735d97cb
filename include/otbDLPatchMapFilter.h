/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLPatchMapFilter_h
#define otbDLPatchMapFilter_h

#include "otbDLMapFilter.h"
#include "otbDLModelContract.h"
#include "otbDLPatchGrid.h"
#include "otbDLPatchPacking.h"
#include "otbDLPixelSource.h"

#include <memory>
#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** \class PatchMapFilter
 * \brief Runs a network over the patches of co-registered images of one date each: N images, M maps. See MapFilter.
 * \ingroup OTBTorch
 */
class PatchMapFilter : public MapFilter
{
public:
  using Self = PatchMapFilter;
  using Superclass = MapFilter;
  using Pointer = itk::SmartPointer<Self>;
  using ConstPointer = itk::SmartPointer<const Self>;

  itkNewMacro(Self);
  itkTypeMacro(PatchMapFilter, MapFilter);

  /** One input of the network: its images, whose bands are concatenated, with names for messages. Neither for inputs that are made from the images of the pair
   * (roles regression and regression_score, see PairFeatures). */
  struct Input
  {
    ModelInput model;
    std::vector<ImageType::Pointer> images;
    std::vector<std::string> names;
  };

  void SetInputs(std::vector<Input> inputs);

  /** The input whose first image gives the outputs their grid; 0 unless set. */
  void SetReferenceInput(std::size_t index);

  /** Validity image, one band, not 0 = valid. May be null. */
  void SetMask(ImageType* mask, const std::string& name);

  void SetTiling(const Tiling& tiling);

  Job GetJob() const override;

  /** The grid of patches. Valid after UpdateOutputInformation(). */
  PatchGrid GetGrid() const;

  /** Where engines get the pixels of the inputs from; lives no longer than the filter. Valid after UpdateOutputInformation(). */
  std::shared_ptr<PixelSource> MakePixelSource();

  /** How the inputs are scaled, and what is no-data in them. */
  std::vector<InputNormalisation> MakeNormalisations() const;

protected:
  PatchMapFilter() = default;
  ~PatchMapFilter() override = default;

  void CheckInputs() override;
  const itk::ImageBase<2>* GetReference() const override;
  std::pair<int, int> GetTileHint() const override;
  std::unique_ptr<MapEngine> MakeEngine() override;
  Region NeededRegion(const Region& region) const override;

private:
  class UpstreamSource;

  std::vector<Input> m_Inputs;
  ImageType::Pointer m_Mask;
  std::string m_MaskName;
  Tiling m_Tiling;
  std::size_t m_ReferenceInput = 0;
};

/** The part of the image that is read for the patches of a region. */
Region PatchesRead(const PatchGrid& grid, const Region& region);

/** Sides of regions that suit both patches and files. */
std::pair<int, int> PatchTileHint(const PatchGrid& grid);

} // namespace dl
} // namespace otb

#endif
