/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLPatchMapFilter.h"

#include "otbDLError.h"

#include "itkProcessObject.h"
#include "otbNoDataHelper.h"
#include "otbSpatialReference.h"

#include <cmath>
#include <iomanip>
#include <sstream>
#include <utility>

namespace otb
{
namespace dl
{

namespace
{
using ImageType = PatchMapFilter::ImageType;
using RegionType = PatchMapFilter::RegionType;

template <typename T>
std::string Pair(const T& a, const T& b, const char* between)
{
  std::ostringstream text;
  text << std::setprecision(12) << a << between << b;
  return text.str();
}

/** Are two descriptions of a projection the same one? */
bool SameProjection(const std::string& a, const std::string& b)
{
  if (a == b)
  {
    return true;
  }
  if (a.empty() || b.empty())
  {
    return false;
  }
  try
  {
    return SpatialReference::FromDescription(a) == SpatialReference::FromDescription(b);
  }
  catch (const std::exception&)
  {
    return false;
  }
}

std::string ProjectionName(const std::string& wkt)
{
  if (wkt.empty())
  {
    return "none";
  }
  // The first quoted name of a WKT is that of the system.
  const auto begin = wkt.find('"');
  const auto end = wkt.find('"', begin + 1);
  return begin == std::string::npos || end == std::string::npos ? wkt.substr(0, 40) : wkt.substr(begin + 1, end - begin - 1);
}
} // namespace

void CheckSameGrid(const ImageType* reference, const std::string& referenceName, const ImageType* image, const std::string& name)
{
  const auto size0 = reference->GetLargestPossibleRegion().GetSize(), size = image->GetLargestPossibleRegion().GetSize();
  const auto spacing0 = reference->GetSignedSpacing(), spacing = image->GetSignedSpacing();
  const auto origin0 = reference->GetOrigin(), origin = image->GetOrigin();
  const auto wkt0 = reference->GetProjectionRef(), wkt = image->GetProjectionRef();

  std::string found, expected, overlap;
  const auto differ = [&](const std::string& what, const std::string& a, const std::string& b)
  {
    found += (found.empty() ? "" : ", ") + what + " " + b;
    expected += (expected.empty() ? "" : ", ") + what + " " + a;
  };
  if (size0 != size)
  {
    differ("size", Pair(size0[0], size0[1], " x "), Pair(size[0], size[1], " x "));
  }
  // A hundredth of a pixel over the whole image is what two tools' rounding may make.
  const auto far = [&](int d) { return std::abs(spacing0[d] - spacing[d]) * static_cast<double>(size0[d]) > .01 * std::abs(spacing0[d]); };
  if (far(0) || far(1))
  {
    differ("spacing", Pair(spacing0[0], spacing0[1], ", "), Pair(spacing[0], spacing[1], ", "));
  }
  const bool sameProjection = SameProjection(wkt0, wkt);
  bool shifted = false;
  for (int d = 0; d < 2; ++d)
  {
    shifted = shifted || std::abs(origin0[d] - origin[d]) > .01 * std::abs(spacing0[d]);
  }
  if (shifted)
  {
    differ("origin", Pair(origin0[0], origin0[1], ", "), Pair(origin[0], origin[1], ", "));
    if (sameProjection)
    {
      for (int d = 0; d < 2; ++d)
      {
        const double a0 = origin0[d] - .5 * spacing0[d], a1 = a0 + spacing0[d] * static_cast<double>(size0[d]);
        const double b0 = origin[d] - .5 * spacing[d], b1 = b0 + spacing[d] * static_cast<double>(size[d]);
        if (std::max(a0, a1) <= std::min(b0, b1) || std::max(b0, b1) <= std::min(a0, a1))
        {
          overlap = "The two do not overlap at all. ";
        }
      }
    }
  }
  if (!sameProjection)
  {
    differ("projection", ProjectionName(wkt0), ProjectionName(wkt));
  }
  if (!found.empty())
  {
    throw Error(Complaint(name, found, expected + " as " + referenceName, overlap + "Bring it onto that grid first, with otbcli_Superimpose."));
  }
}

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
        const auto bands = Pull(image, region);
        planes.insert(planes.end(), bands.begin(), bands.end());
      }
      block.bands.push_back(std::move(planes));
    }
    if (m_Filter.m_Mask)
    {
      block.mask = Pull(m_Filter.m_Mask, region).front();
    }
    return block;
  }

private:
  std::vector<PlaneView> Pull(ImageType* image, const Region& region)
  {
    // The images share a grid but not always the index of its first pixel.
    const auto first = image->GetLargestPossibleRegion().GetIndex();
    RegionType wanted;
    wanted.SetIndex(0, first[0] + region.x0);
    wanted.SetIndex(1, first[1] + region.y0);
    wanted.SetSize(0, region.Width());
    wanted.SetSize(1, region.Height());
    image->SetRequestedRegion(wanted);
    image->PropagateRequestedRegion();
    image->UpdateOutputData();

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

void PatchMapFilter::SetOperator(std::shared_ptr<const MapOperator> mapOperator)
{
  m_Operator = std::move(mapOperator);
  this->SetNumberOfIndexedOutputs(m_Operator->ResultChannels());
  this->SetNumberOfRequiredOutputs(m_Operator->ResultChannels());
  for (int r = 0; r < m_Operator->ResultChannels(); ++r)
  {
    this->SetNthOutput(r, this->MakeOutput(r));
  }
  this->Modified();
}

void PatchMapFilter::SetTiling(const Tiling& tiling)
{
  m_Tiling = tiling;
  this->Modified();
}

void PatchMapFilter::SetPredictor(std::shared_ptr<Predictor> predictor)
{
  m_Predictor = std::move(predictor);
  this->Modified();
}

void PatchMapFilter::SetSettings(const PatchEngine::Settings& settings)
{
  m_Settings = settings;
  this->Modified();
}

EngineStatistics PatchMapFilter::GetStatistics() const
{
  return m_Engine ? m_Engine->Statistics() : EngineStatistics();
}

bool PatchMapFilter::IsComplete() const
{
  return m_Complete;
}

PatchGrid PatchMapFilter::GetGrid() const
{
  const auto size = m_Inputs.at(m_ReferenceInput).images.front()->GetLargestPossibleRegion().GetSize();
  return PatchGrid(static_cast<std::int64_t>(size[0]), static_cast<std::int64_t>(size[1]), m_Tiling);
}

void PatchMapFilter::GenerateOutputInformation()
{
  if (m_Inputs.empty() || m_Inputs.front().images.empty() || !m_Operator)
  {
    itkExceptionMacro("inputs and operator must be set");
  }
  const ImageType* reference = m_Inputs.at(m_ReferenceInput).images.front();
  const std::string& referenceName = m_Inputs.at(m_ReferenceInput).names.front();
  for (const auto& input : m_Inputs)
  {
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
  const PatchGrid grid = this->GetGrid();

  // Regions that hold whole patches make for little keeping; about 512 pixels a side suits readers and writers.
  const int hint = grid.Step() * std::max(1, (512 + grid.Step() - 1) / grid.Step());
  for (int r = 0; r < m_Operator->ResultChannels(); ++r)
  {
    ImageType* out = this->GetOutput(r);
    out->CopyInformation(reference);
    out->SetNumberOfComponentsPerPixel(1);
    // Metadata of bands describe the input's bands, its no-data and tiles among them.
    ImageMetadata imd = reference->GetImageMetadata();
    imd.Bands.clear();
    imd.Bands.resize(1);
    imd.NumericKeys.erase(MDNum::NoData);
    WriteNoDataFlags({true}, {static_cast<double>(m_Operator->NoData()[r])}, imd);
    imd.Add(MDNum::TileHintX, hint);
    imd.Add(MDNum::TileHintY, hint);
    out->SetImageMetadata(imd);
  }
  m_Engine.reset();
  m_PixelsMade = 0;
}

void PatchMapFilter::PropagateRequestedRegion(itk::DataObject* output)
{
  if (this->m_Updating)
  {
    return;
  }
  this->EnlargeOutputRequestedRegion(output);
  this->GenerateOutputRequestedRegion(output);

  // A pixel is asked for upstream, so that an estimate of memory (which looks at requested regions) does not take the whole images for needed here.
  for (const auto& name : this->GetInputNames())
  {
    auto* image = dynamic_cast<ImageType*>(this->GetInput(name));
    if (image)
    {
      RegionType one = image->GetLargestPossibleRegion();
      one.SetSize({{1, 1}});
      image->SetRequestedRegion(one);
      image->PropagateRequestedRegion();
    }
  }
}

void PatchMapFilter::UpdateOutputData(itk::DataObject* itkNotUsed(output))
{
  if (this->m_Updating)
  {
    return;
  }
  if (!m_Predictor)
  {
    itkExceptionMacro("the predictor must be set");
  }
  this->PrepareOutputs();
  if (!m_Engine)
  {
    std::vector<InputNormalisation> normalisation;
    for (const auto& input : m_Inputs)
    {
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
    m_Engine = std::make_unique<PatchEngine>(this->GetGrid(), m_Predictor, m_Operator, std::move(normalisation), m_Settings);
  }
  if (m_PixelsMade == 0)
  {
    m_Complete = false;
    this->InvokeEvent(itk::StartEvent());
    this->SetAbortGenerateData(false);
    this->UpdateProgress(0.f);
  }
  this->m_Updating = true;
  try
  {
    const RegionType& wanted = this->GetOutput(0)->GetRequestedRegion();
    const auto first = this->GetOutput(0)->GetLargestPossibleRegion().GetIndex();
    const Region region{wanted.GetIndex(0) - first[0], wanted.GetIndex(1) - first[1],
                        wanted.GetIndex(0) - first[0] + static_cast<std::int64_t>(wanted.GetSize(0)),
                        wanted.GetIndex(1) - first[1] + static_cast<std::int64_t>(wanted.GetSize(1))};
    std::vector<ResultPlane> planes;
    for (int r = 0; r < m_Operator->ResultChannels(); ++r)
    {
      ImageType* out = this->GetOutput(r);
      out->SetBufferedRegion(wanted);
      out->Allocate();
      planes.push_back({out->GetBufferPointer(), 1, static_cast<std::ptrdiff_t>(region.Width())});
    }
    if (!region.Empty())
    {
      UpstreamSource source(*this);
      m_Engine->Produce(region, source, planes,
                        [this](double done)
                        {
                          if (this->GetAbortGenerateData())
                          {
                            throw itk::ProcessAborted(__FILE__, __LINE__);
                          }
                          this->UpdateProgress(static_cast<float>(done));
                        });
    }
    m_PixelsMade += region.Area();
  }
  catch (...)
  {
    // The engine may hold half a batch, the outputs half a region: begin anew if asked again.
    m_Engine.reset();
    m_PixelsMade = 0;
    m_Complete = false;
    for (int r = 0; r < m_Operator->ResultChannels(); ++r)
    {
      this->GetOutput(r)->ReleaseData();
    }
    this->m_Updating = false;
    throw;
  }
  const Region image = m_Engine->Grid().Image();
  const auto windowed = m_Settings.window.Empty() ? image : Intersection(m_Settings.window, image);
  if (m_PixelsMade >= windowed.Area())
  {
    this->UpdateProgress(1.f);
    this->InvokeEvent(itk::EndEvent());
    m_PixelsMade = 0;
    m_Complete = true;
  }
  for (int r = 0; r < m_Operator->ResultChannels(); ++r)
  {
    this->GetOutput(r)->DataHasBeenGenerated();
  }
  this->ReleaseInputs();
  this->m_Updating = false;
}

} // namespace dl
} // namespace otb
