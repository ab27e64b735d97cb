/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLPipeline_h
#define otbDLPipeline_h

// What tests of pipelines in memory need: to see which regions a filter made, and a filter that looks at neighbours.
#include "itkCommand.h"
#include "itkImageToImageFilter.h"
#include "otbVectorImage.h"

#include <algorithm>
#include <vector>

namespace otbtest
{

/** Notes the regions that a filter makes. */
class MadeRegions
{
public:
  explicit MadeRegions(itk::ProcessObject* filter)
  {
    auto command = itk::CStyleCommand::New();
    command->SetClientData(this);
    command->SetCallback(
        [](itk::Object* caller, const itk::EventObject&, void* data)
        {
          auto* image = dynamic_cast<itk::ImageBase<2>*>(dynamic_cast<itk::ProcessObject*>(caller)->GetOutputs()[0].GetPointer());
          static_cast<MadeRegions*>(data)->regions.push_back(image->GetBufferedRegion());
        });
    m_Filter = filter;
    m_Tag = filter->AddObserver(itk::EndEvent(), command);
  }
  ~MadeRegions() { m_Filter->RemoveObserver(m_Tag); }

  /** The smallest rectangle around all of them; empty when nothing was made. */
  itk::ImageRegion<2> Box() const
  {
    itk::ImageRegion<2> box;
    for (std::size_t k = 0; k < regions.size(); ++k)
    {
      for (unsigned int d = 0; d < 2; ++d)
      {
        const auto from = k ? std::min(box.GetIndex(d), regions[k].GetIndex(d)) : regions[k].GetIndex(d);
        const auto to = k ? std::max(box.GetUpperIndex()[d], regions[k].GetUpperIndex()[d]) : regions[k].GetUpperIndex()[d];
        box.SetIndex(d, from);
        box.SetSize(d, static_cast<itk::SizeValueType>(to - from + 1));
      }
    }
    return box;
  }

  /** Pixels of the largest one. */
  std::size_t Largest() const
  {
    std::size_t largest = 0;
    for (const auto& r : regions)
    {
      largest = std::max<std::size_t>(largest, r.GetNumberOfPixels());
    }
    return largest;
  }

  std::vector<itk::ImageRegion<2>> regions;

private:
  itk::ProcessObject::Pointer m_Filter;
  unsigned long m_Tag = 0;
};

/** Each pixel the largest of band 1 within a radius: asks its input for more than it is asked for. */
class LargestNearby : public itk::ImageToImageFilter<otb::VectorImage<float, 2>, otb::VectorImage<float, 2>>
{
public:
  using Self = LargestNearby;
  using ImageType = otb::VectorImage<float, 2>;
  using Pointer = itk::SmartPointer<Self>;
  itkNewMacro(Self);
  static constexpr long radius = 5;

protected:
  void GenerateOutputInformation() override
  {
    itk::ImageToImageFilter<ImageType, ImageType>::GenerateOutputInformation();
    this->GetOutput()->SetNumberOfComponentsPerPixel(1);
  }
  void GenerateInputRequestedRegion() override
  {
    auto* input = const_cast<ImageType*>(this->GetInput());
    auto region = this->GetOutput()->GetRequestedRegion();
    region.PadByRadius(radius);
    region.Crop(input->GetLargestPossibleRegion());
    input->SetRequestedRegion(region);
  }
  void GenerateData() override
  {
    this->AllocateOutputs();
    const auto region = this->GetOutput()->GetRequestedRegion();
    const auto all = this->GetInput()->GetLargestPossibleRegion();
    for (long y = region.GetIndex(1); y <= region.GetUpperIndex()[1]; ++y)
    {
      for (long x = region.GetIndex(0); x <= region.GetUpperIndex()[0]; ++x)
      {
        float most = -1e30f;
        for (long v = std::max<long>(all.GetIndex(1), y - radius); v <= std::min<long>(all.GetUpperIndex()[1], y + radius); ++v)
        {
          for (long u = std::max<long>(all.GetIndex(0), x - radius); u <= std::min<long>(all.GetUpperIndex()[0], x + radius); ++u)
          {
            most = std::max(most, this->GetInput()->GetPixel({{u, v}})[0]);
          }
        }
        ImageType::PixelType pixel(1);
        pixel[0] = most;
        this->GetOutput()->SetPixel({{x, y}}, pixel);
      }
    }
  }
};

} // namespace otbtest

#endif
