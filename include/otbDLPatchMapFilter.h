/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLPatchMapFilter_h
#define otbDLPatchMapFilter_h

#include "otbDLMapOperator.h"
#include "otbDLModelContract.h"
#include "otbDLPatchEngine.h"
#include "otbDLPredictor.h"

#include "itkImageSource.h"
#include "otbVectorImage.h"

#include <memory>
#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** \class PatchMapFilter
 * \brief Runs a network over the patches of co-registered images: N inputs, M maps, any requested region, each patch inferred once.
 *
 * The engine behind it (PatchEngine) decides which patches a region needs; the filter pulls their pixels from upstream a few patches at a time (as
 * itk::StreamingImageFilter does), so that memory follows the batch and not the region that was asked for. Upstream filters must therefore give the same
 * pixels for any region, as streaming filters do.
 *
 * One output image a result channel of the operator, with one band, on the grid of the first image. They share one inference.
 *
 * One thread towards ITK; the network brings its own. Progress is that of the whole window, not of the region; abort works between batches.
 * \ingroup OTBTorch
 */
class PatchMapFilter : public itk::ImageSource<otb::VectorImage<float, 2>>
{
public:
  using Self = PatchMapFilter;
  using Superclass = itk::ImageSource<otb::VectorImage<float, 2>>;
  using Pointer = itk::SmartPointer<Self>;
  using ConstPointer = itk::SmartPointer<const Self>;
  using ImageType = otb::VectorImage<float, 2>;
  using RegionType = ImageType::RegionType;

  itkNewMacro(Self);
  itkTypeMacro(PatchMapFilter, itk::ImageSource);

  /** One input of the network: its images, whose bands are concatenated, with names for messages. */
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

  void SetOperator(std::shared_ptr<const MapOperator> mapOperator);
  void SetTiling(const Tiling& tiling);

  /** Can be set after UpdateOutputInformation(), once the size of the job is known. */
  void SetPredictor(std::shared_ptr<Predictor> predictor);
  void SetSettings(const PatchEngine::Settings& settings);

  /** Zeros before the first region. */
  EngineStatistics GetStatistics() const;

  /** Was every pixel of the window asked for, in the last pass over it? */
  bool IsComplete() const;

  /** The grid of patches. Valid after UpdateOutputInformation(). */
  PatchGrid GetGrid() const;

protected:
  PatchMapFilter() = default;
  ~PatchMapFilter() override = default;

  void GenerateOutputInformation() override;

  /** Stops here: what is needed upstream is decided and pulled in UpdateOutputData(). */
  void PropagateRequestedRegion(itk::DataObject* output) override;
  void UpdateOutputData(itk::DataObject* output) override;

private:
  class UpstreamSource;

  std::vector<Input> m_Inputs;
  ImageType::Pointer m_Mask;
  std::string m_MaskName;
  std::shared_ptr<const MapOperator> m_Operator;
  std::shared_ptr<Predictor> m_Predictor;
  Tiling m_Tiling;
  PatchEngine::Settings m_Settings;
  std::unique_ptr<PatchEngine> m_Engine;
  std::int64_t m_PixelsMade = 0;
  bool m_Complete = false;
  std::size_t m_ReferenceInput = 0;
};

/** Compares two grids: size, spacing, origin, projection.
 * \throw Error that names every difference */
void CheckSameGrid(const PatchMapFilter::ImageType* reference, const std::string& referenceName, const PatchMapFilter::ImageType* image,
                   const std::string& name);

} // namespace dl
} // namespace otb

#endif
