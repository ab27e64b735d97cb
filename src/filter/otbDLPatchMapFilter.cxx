/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLPatchMapFilter.h"

#include "otbDLError.h"
#include "otbDLPairFeatures.h"
#include "otbDLPatchEngine.h"
#include "otbDLPatchSource.h"

#include "otbNoDataHelper.h"

#include <sstream>
#include <utility>

namespace otb
{
namespace dl
{

/** Pulls regions of the inputs through the pipeline. */
class PatchMapFilter::UpstreamSource : public PixelSource
{
public:
  explicit UpstreamSource(PatchMapFilter& filter) : m_Filter(filter) {}

  PixelBlock Read(const Region& region) override
  {
    m_Held.clear();
    PixelBlock block;
    block.region = region;
    for (const auto& input : m_Filter.m_Inputs)
    {
      std::vector<PlaneView> planes;
      for (const auto& image : input.images)
      {
        const auto bands = Planes(image, region);
        planes.insert(planes.end(), bands.begin(), bands.end());
      }
      block.bands.push_back(std::move(planes));
    }
    if (m_Filter.m_Mask)
    {
      block.mask = Planes(m_Filter.m_Mask, region).front();
    }
    return block;
  }

private:
  std::vector<PlaneView> Planes(ImageType* image, const Region& region)
  {
    const RegionType wanted = ToItk(region, image);
    Pull(image, wanted);

    // One input may be made from another: pulling that one again must not take these pixels away.
    m_Held.emplace_back(image->GetPixelContainer());
    const auto& buffered = image->GetBufferedRegion();
    const std::ptrdiff_t bands = image->GetNumberOfComponentsPerPixel();
    const std::ptrdiff_t width = buffered.GetSize(0);
    const float* corner =
        image->GetBufferPointer() + ((wanted.GetIndex(1) - buffered.GetIndex(1)) * width + (wanted.GetIndex(0) - buffered.GetIndex(0))) * bands;
    std::vector<PlaneView> planes;
    for (std::ptrdiff_t b = 0; b < bands; ++b)
    {
      planes.push_back({corner + b, bands, bands * width});
    }
    m_Filter.Forget(image);
    return planes;
  }

  PatchMapFilter& m_Filter;
  std::vector<ImageType::PixelContainer::Pointer> m_Held;
};

void PatchMapFilter::SetInputs(std::vector<Input> inputs)
{
  m_Inputs = std::move(inputs);
  unsigned int number = 0;
  for (const auto& input : m_Inputs)
  {
    for (const auto& image : input.images)
    {
      this->SetNthInput(number++, image);
    }
  }
  this->SetNumberOfIndexedInputs(number);
  this->SetNumberOfRequiredInputs(number);
  this->Modified();
}

void PatchMapFilter::SetReferenceInput(std::size_t index)
{
  m_ReferenceInput = index;
  this->Modified();
}

void PatchMapFilter::SetMask(ImageType* mask, const std::string& name)
{
  m_Mask = mask;
  m_MaskName = name;
  if (mask)
  {
    this->SetInput("Mask", mask);
  }
  else
  {
    this->RemoveInput("Mask");
  }
  this->Modified();
}

void PatchMapFilter::SetTiling(const Tiling& tiling)
{
  m_Tiling = tiling;
  this->Modified();
}

PatchGrid PatchMapFilter::GetGrid() const
{
  const auto size = m_Inputs.at(m_ReferenceInput).images.front()->GetLargestPossibleRegion().GetSize();
  return PatchGrid(static_cast<std::int64_t>(size[0]), static_cast<std::int64_t>(size[1]), m_Tiling);
}

void PatchMapFilter::CheckInputs()
{
  if (m_Inputs.size() <= m_ReferenceInput || m_Inputs[m_ReferenceInput].images.empty())
  {
    itkExceptionMacro("inputs must be set");
  }
  const ImageType* reference = m_Inputs.at(m_ReferenceInput).images.front();
  const std::string& referenceName = m_Inputs.at(m_ReferenceInput).names.front();
  for (const auto& input : m_Inputs)
  {
    if (IsPairFeature(input.model))
    {
      continue;
    }
    std::size_t bands = 0;
    std::string names;
    for (std::size_t k = 0; k < input.images.size(); ++k)
    {
      CheckSameGrid(reference, referenceName, input.images[k], input.names[k]);
      bands += input.images[k]->GetNumberOfComponentsPerPixel();
      names += (k ? " " : "") + input.names[k];
    }
    if (bands != input.model.bands.size())
    {
      std::string wanted;
      for (const auto& b : input.model.bands)
      {
        wanted += (wanted.empty() ? "" : " ") + b;
      }
      throw Error(Complaint(names, std::to_string(bands) + " band(s)",
                            std::to_string(input.model.bands.size()) + " (" + wanted + "), which the model takes as \"" + input.model.name + "\"",
                            "Choose bands with an extended file name, e.g. \"image.tif?&bands=1,2,3\", in the model's order."));
    }
  }
  if (m_Mask)
  {
    CheckSameGrid(reference, referenceName, m_Mask, m_MaskName);
    if (m_Mask->GetNumberOfComponentsPerPixel() != 1)
    {
      throw Error(Complaint(m_MaskName, std::to_string(m_Mask->GetNumberOfComponentsPerPixel()) + " bands", "one band: not 0 where pixels are valid", ""));
    }
  }
}

PatchMapFilter::Job PatchMapFilter::GetJob() const
{
  const PatchGrid grid = this->GetGrid();
  std::ostringstream text;
  text << grid.Columns() << " x " << grid.Rows() << " patches of " << grid.Patch() << ", " << ToString(m_Tiling.blend) << " (step " << grid.Step() << ")";
  return {grid.Image().Width(), grid.Image().Height(), grid.Count(), "patches", text.str()};
}

const itk::ImageBase<2>* PatchMapFilter::GetReference() const
{
  return m_Inputs.at(m_ReferenceInput).images.front();
}

std::pair<int, int> PatchMapFilter::GetTileHint() const
{
  return PatchTileHint(this->GetGrid());
}

Region PatchMapFilter::NeededRegion(const Region& region) const
{
  return PatchesRead(this->GetGrid(), region);
}

std::shared_ptr<PixelSource> PatchMapFilter::MakePixelSource()
{
  return std::make_shared<UpstreamSource>(*this);
}

std::vector<InputNormalisation> PatchMapFilter::MakeNormalisations() const
{
  std::vector<InputNormalisation> normalisation;
  for (const auto& input : m_Inputs)
  {
    if (IsPairFeature(input.model))
    {
      normalisation.push_back(PairFeatureNormalisation(input.model));
      continue;
    }
    std::vector<bool> flags;
    std::vector<double> values;
    for (const auto& image : input.images)
    {
      std::vector<bool> f;
      std::vector<double> v;
      ReadNoDataFlags(image->GetImageMetadata(), f, v);
      f.resize(image->GetNumberOfComponentsPerPixel(), false);
      v.resize(image->GetNumberOfComponentsPerPixel(), 0.);
      flags.insert(flags.end(), f.begin(), f.end());
      values.insert(values.end(), v.begin(), v.end());
    }
    normalisation.push_back(Normalisation(input.model, flags, values));
  }
  return normalisation;
}

std::unique_ptr<MapEngine> PatchMapFilter::MakeEngine()
{
  const PatchGrid grid = this->GetGrid();
  const std::int64_t width = grid.Image().Width(), height = grid.Image().Height();
  const auto normalisations = this->MakeNormalisations();
  std::shared_ptr<PixelSource> pixels = this->MakePixelSource();
  std::vector<ModelInput> models;
  bool made = false;
  for (const auto& input : m_Inputs)
  {
    models.push_back(input.model);
    made = made || IsPairFeature(input.model);
  }
  if (made)
  {
    auto features = std::make_shared<PairFeatures>(pixels, models, normalisations, width, height, m_Settings.threads, m_Settings.readBytes);
    features->Fit({});
    pixels = features;
  }
  auto source = std::make_shared<ImagePatchSource>(pixels, normalisations, width, height);
  return std::make_unique<PatchEngine>(grid, m_Predictor, m_Operator, std::move(source), m_Settings);
}

Region PatchesRead(const PatchGrid& grid, const Region& region)
{
  const Region patches = grid.Covering(region);
  return BoundingBox(grid.Reads(grid.Footprint(patches.x0, patches.y0)), grid.Reads(grid.Footprint(patches.x1 - 1, patches.y1 - 1)));
}

std::pair<int, int> PatchTileHint(const PatchGrid& grid)
{
  // Regions that hold whole patches make for little keeping; about 512 pixels a side suits readers and writers.
  const int side = grid.Step() * std::max(1, (512 + grid.Step() - 1) / grid.Step());
  return {side, side};
}

} // namespace dl
} // namespace otb
