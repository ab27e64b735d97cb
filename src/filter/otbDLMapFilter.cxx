/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLMapFilter.h"

#include "otbDLError.h"

#include "itkProcessObject.h"
#include "otbImage.h"
#include "otbImageCommons.h"
#include "otbImageList.h"
#include "otbNoDataHelper.h"
#include "otbSpatialReference.h"

#include <algorithm>
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
template <typename T>
std::string Pair(const T& a, const T& b, const char* between)
{
  std::ostringstream text;
  text << std::setprecision(12) << a << between << b;
  return text.str();
}

const ImageCommons& Commons(const itk::ImageBase<2>* image)
{
  const auto* commons = dynamic_cast<const ImageCommons*>(image);
  if (!commons)
  {
    throw Error("an input is not one of OTB's images");
  }
  return *commons;
}

/** Spacing with the sign of each axis. */
itk::ImageBase<2>::SpacingType SignedSpacing(const itk::ImageBase<2>* image)
{
  auto spacing = image->GetSpacing();
  for (unsigned int d = 0; d < 2; ++d)
  {
    spacing[d] *= image->GetDirection()[d][d] < 0. ? -1. : 1.;
  }
  return spacing;
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

namespace
{

/** The images that an input of a pipeline consists of: itself, or the elements of a list. */
std::vector<itk::ImageBase<2>*> ImagesOf(itk::DataObject* data)
{
  std::vector<itk::ImageBase<2>*> images;
  const auto elements = [&](auto* list)
  {
    for (unsigned int k = 0; list && k < list->Size(); ++k)
    {
      images.push_back(list->GetNthElement(k));
    }
  };
  if (auto* image = dynamic_cast<itk::ImageBase<2>*>(data))
  {
    images.push_back(image);
  }
  elements(dynamic_cast<ImageList<Image<float, 2>>*>(data));
  elements(dynamic_cast<ImageList<Image<double, 2>>*>(data));
  elements(dynamic_cast<ImageList<VectorImage<float, 2>>*>(data));
  elements(dynamic_cast<ImageList<VectorImage<double, 2>>*>(data));
  return images;
}

/** What lies upstream of a filter. */
struct Upstream
{
  std::set<itk::ImageBase<2>*> images;
  std::set<const itk::DataObject*> inputsOfInputs; ///< images that were met beyond the inputs
  std::set<itk::ProcessObject*> filters;
  itk::ModifiedTimeType stamp = 0; ///< the last change of a filter, or of an image that no filter makes

  explicit Upstream(itk::ProcessObject* filter) { this->Walk(filter, true); }

private:
  void Walk(itk::ProcessObject* filter, bool first)
  {
    // An image that a filter makes changes with each region: that is no change of what it shows.
    stamp = std::max<itk::ModifiedTimeType>(stamp, filter->GetMTime());
    for (const auto& data : filter->GetInputs())
    {
      for (auto* image : ImagesOf(data))
      {
        if (!first)
        {
          inputsOfInputs.insert(image);
        }
        images.insert(image);
        const auto source = image->GetSource();
        if (!source)
        {
          stamp = std::max<itk::ModifiedTimeType>(stamp, image->GetMTime());
        }
        else if (filters.insert(source.GetPointer()).second)
        {
          // All that a filter makes is made again with one of its outputs.
          for (const auto& output : source->GetOutputs())
          {
            const auto siblings = ImagesOf(output);
            images.insert(siblings.begin(), siblings.end());
          }
          this->Walk(source, false);
        }
      }
    }
  }
};

bool HoldsAll(const itk::ImageBase<2>* image)
{
  return image->GetBufferedRegion().GetNumberOfPixels() > 0 && image->GetBufferedRegion().IsInside(image->GetLargestPossibleRegion());
}

/** Puts the pixels that images upstream hold aside while a filter pulls regions of its own, and back in the end. Others that read the same images then find
 * what they asked for; what only this filter pulled is let go. An image that holds all of its pixels is not made again and stays as it is. */
class KeptImages
{
public:
  explicit KeptImages(const std::set<itk::ImageBase<2>*>& images)
  {
    for (auto* image : images)
    {
      if (!image->GetSource())
      {
        continue;
      }
      Kept kept{image, nullptr, image->GetRequestedRegion(), false};
      const bool fresh =
          !image->GetDataReleased() && image->GetUpdateMTime() >= image->GetPipelineMTime() && image->GetBufferedRegion().GetNumberOfPixels() > 0;
      kept.ours = !fresh;
      if (fresh && !HoldsAll(image))
      {
        const auto another = image->CreateAnother();
        kept.data = dynamic_cast<itk::DataObject*>(another.GetPointer());
        kept.data->Graft(image);
        image->Initialize();
      }
      m_Images.push_back(kept);
    }
  }
  ~KeptImages()
  {
    for (auto& kept : m_Images)
    {
      if (kept.data)
      {
        static_cast<itk::DataObject*>(kept.image.GetPointer())->Graft(kept.data);
      }
      else if (kept.ours && !HoldsAll(kept.image))
      {
        kept.image->ReleaseData();
      }
      kept.image->SetRequestedRegion(kept.requested);
    }
  }
  KeptImages(const KeptImages&) = delete;
  KeptImages& operator=(const KeptImages&) = delete;

private:
  struct Kept
  {
    itk::ImageBase<2>::Pointer image;
    itk::DataObject::Pointer data; ///< its pixels
    itk::ImageBase<2>::RegionType requested;
    bool ours; ///< holds nothing that anyone asked for
  };
  std::vector<Kept> m_Images;
};

} // namespace

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

void CheckSameGrid(const itk::ImageBase<2>* reference, const std::string& referenceName, const itk::ImageBase<2>* image, const std::string& name,
                   const std::string& advice)
{
  const auto size0 = reference->GetLargestPossibleRegion().GetSize(), size = image->GetLargestPossibleRegion().GetSize();
  const auto spacing0 = SignedSpacing(reference), spacing = SignedSpacing(image);
  const auto origin0 = reference->GetOrigin(), origin = image->GetOrigin();
  const auto wkt0 = Commons(reference).GetProjectionRef(), wkt = Commons(image).GetProjectionRef();

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
    throw Error(Complaint(name, found, expected + " as " + referenceName, overlap + advice));
  }
}

void MapFilter::SetOperator(std::shared_ptr<const MapOperator> mapOperator)
{
  m_Operator = std::move(mapOperator);
  const auto images = static_cast<unsigned int>(m_Operator->ResultBands().size());
  this->SetNumberOfIndexedOutputs(images);
  this->SetNumberOfRequiredOutputs(images);
  for (unsigned int r = 0; r < images; ++r)
  {
    this->SetNthOutput(r, this->MakeOutput(r));
  }
  this->Modified();
}

void MapFilter::SetPredictor(std::shared_ptr<Predictor> predictor)
{
  m_Predictor = std::move(predictor);
  this->Modified();
}

void MapFilter::SetSettings(const MapEngine::Settings& settings)
{
  m_Settings = settings;
  this->Modified();
}

void MapFilter::SetFirstStep(std::function<void()> step)
{
  m_FirstStep = std::move(step);
  this->Modified();
}

EngineStatistics MapFilter::GetStatistics() const
{
  return m_Engine ? m_Engine->Statistics() : EngineStatistics();
}

bool MapFilter::IsComplete() const
{
  return m_Complete;
}

MapFilter::RegionType MapFilter::ToItk(const Region& region, const itk::ImageBase<2>* image)
{
  // Images share a grid but not always the index of its first pixel.
  const auto first = image->GetLargestPossibleRegion().GetIndex();
  RegionType wanted;
  wanted.SetIndex(0, first[0] + region.x0);
  wanted.SetIndex(1, first[1] + region.y0);
  wanted.SetSize(0, region.Width());
  wanted.SetSize(1, region.Height());
  return wanted;
}

void MapFilter::Pull(itk::ImageBase<2>* image, const RegionType& wanted)
{
  // Some of OTB's filters (PerBandVectorImageFilter) forget the no-data values of their output as they make its pixels.
  auto* commons = dynamic_cast<ImageCommons*>(image);
  const ImageMetadata metadata = commons ? commons->GetImageMetadata() : ImageMetadata();
  image->SetRequestedRegion(wanted);
  image->PropagateRequestedRegion();
  image->UpdateOutputData();
  if (commons)
  {
    commons->SetImageMetadata(metadata);
  }
}

void MapFilter::Forget(itk::ImageBase<2>* image) const
{
  if (m_InputsOfInputs.count(image) > 0 && image->GetSource() && !HoldsAll(image))
  {
    image->Initialize();
  }
}

void MapFilter::GenerateOutputInformation()
{
  if (!m_Operator)
  {
    itkExceptionMacro("the operator must be set");
  }
  this->CheckInputs();
  const itk::ImageBase<2>* reference = this->GetReference();
  const auto hint = this->GetTileHint();
  const auto bands = m_Operator->ResultBands();
  const auto declares = m_Operator->DeclaresNoData();
  int channel = 0;
  for (unsigned int r = 0; r < bands.size(); ++r)
  {
    ImageType* out = this->GetOutput(r);
    out->CopyInformation(reference);
    out->SetNumberOfComponentsPerPixel(bands[r]);
    // Metadata of bands describe the input's bands, its no-data and tiles among them.
    ImageMetadata imd = Commons(reference).GetImageMetadata();
    imd.Bands.clear();
    imd.Bands.resize(bands[r]);
    imd.NumericKeys.erase(MDNum::NoData);
    if (declares[r])
    {
      WriteNoDataFlags(std::vector<bool>(bands[r], true), std::vector<double>(bands[r], static_cast<double>(m_Operator->NoData()[channel])), imd);
    }
    imd.Add(MDNum::TileHintX, hint.first);
    imd.Add(MDNum::TileHintY, hint.second);
    out->SetImageMetadata(imd);
    channel += bands[r];
  }
  // ITK comes here again whenever an image upstream was made, be it another region of the same.
  const auto stamp = Upstream(this).stamp;
  if (stamp != m_Stamp)
  {
    m_Stamp = stamp;
    m_Engine.reset();
  }
  m_PixelsMade = 0;
}

void MapFilter::PropagateRequestedRegion(itk::DataObject* output)
{
  if (this->m_Updating)
  {
    return;
  }
  this->EnlargeOutputRequestedRegion(output);
  this->GenerateOutputRequestedRegion(output);

  const RegionType& asked = this->GetOutput(0)->GetRequestedRegion();
  const auto first = this->GetOutput(0)->GetLargestPossibleRegion().GetIndex();
  Region needed{asked.GetIndex(0) - first[0], asked.GetIndex(1) - first[1], 0, 0};
  needed.x1 = needed.x0 + static_cast<std::int64_t>(asked.GetSize(0));
  needed.y1 = needed.y0 + static_cast<std::int64_t>(asked.GetSize(1));
  needed = m_Settings.whole || needed.Empty() ? Region{0, 0, 1, 1} : this->NeededRegion(needed);
  for (const auto& name : this->GetInputNames())
  {
    auto* image = dynamic_cast<itk::ImageBase<2>*>(this->GetInput(name));
    if (image)
    {
      image->SetRequestedRegion(ToItk(needed, image));
      image->PropagateRequestedRegion();
    }
  }
}

void MapFilter::UpdateOutputData(itk::DataObject* itkNotUsed(output))
{
  if (this->m_Updating)
  {
    return;
  }
  if (!m_Predictor && this->NeedsPredictor())
  {
    itkExceptionMacro("the predictor must be set");
  }
  const Upstream upstream(this);
  m_InputsOfInputs = upstream.inputsOfInputs;
  auto kept = std::make_unique<KeptImages>(upstream.images);
  if (m_FirstStep)
  {
    m_FirstStep();
    m_FirstStep = nullptr;
  }
  this->PrepareOutputs();
  if (!m_Engine)
  {
    m_Engine = this->MakeEngine();
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
    for (unsigned int r = 0; r < this->GetNumberOfIndexedOutputs(); ++r)
    {
      ImageType* out = this->GetOutput(r);
      out->SetBufferedRegion(wanted);
      out->Allocate();
      const std::ptrdiff_t bands = out->GetNumberOfComponentsPerPixel();
      for (std::ptrdiff_t b = 0; b < bands; ++b)
      {
        planes.push_back({out->GetBufferPointer() + b, bands, bands * region.Width()});
      }
    }
    if (!region.Empty())
    {
      m_Engine->Produce(region, planes,
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
    for (unsigned int r = 0; r < this->GetNumberOfIndexedOutputs(); ++r)
    {
      this->GetOutput(r)->ReleaseData();
    }
    this->m_Updating = false;
    throw;
  }
  kept.reset();
  const auto job = this->GetJob();
  const Region image{0, 0, job.width, job.height};
  const auto windowed = m_Settings.window.Empty() ? image : Intersection(m_Settings.window, image);
  if (m_PixelsMade >= windowed.Area())
  {
    this->UpdateProgress(1.f);
    this->InvokeEvent(itk::EndEvent());
    m_PixelsMade = 0;
    m_Complete = true;
  }
  for (unsigned int r = 0; r < this->GetNumberOfIndexedOutputs(); ++r)
  {
    this->GetOutput(r)->DataHasBeenGenerated();
  }
  this->ReleaseInputs();
  this->m_Updating = false;
}

} // namespace dl
} // namespace otb
