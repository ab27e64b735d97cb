/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLMapFilter_h
#define otbDLMapFilter_h

#include "otbDLMapEngine.h"
#include "otbDLMapOperator.h"
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

/** \class MapFilter
 * \brief Makes maps with a network: N inputs, M maps, any requested region, each sample inferred once.
 *
 * The engine behind it (MapEngine) decides what a region needs; the filter pulls those pixels from upstream a few at a time (as itk::StreamingImageFilter
 * does), so that memory follows the batch and not the region that was asked for. Upstream filters must therefore give the same pixels for any region, as
 * streaming filters do.
 *
 * One output image for each of the operator's, on the grid of the reference input. They share one inference.
 *
 * One thread towards ITK; the network brings its own. Progress is that of the whole window, not of the region; abort works between batches.
 * \ingroup OTBTorch
 */
class MapFilter : public itk::ImageSource<otb::VectorImage<float, 2>>
{
public:
  using Self = MapFilter;
  using Superclass = itk::ImageSource<otb::VectorImage<float, 2>>;
  using Pointer = itk::SmartPointer<Self>;
  using ConstPointer = itk::SmartPointer<const Self>;
  using ImageType = otb::VectorImage<float, 2>;
  using RegionType = ImageType::RegionType;

  itkTypeMacro(MapFilter, itk::ImageSource);

  /** The size of the job, for a progress line and for settling a batch. */
  struct Job
  {
    std::int64_t width = 0; ///< pixels
    std::int64_t height = 0;
    std::int64_t samples = 0; ///< of the network
    std::string unit;         ///< "patches" or "pixels"
    std::string description;  ///< "5 x 4 patches of 256, crop (step 192)"
  };

  void SetOperator(std::shared_ptr<const MapOperator> mapOperator);

  /** Can be set after UpdateOutputInformation(), once the size of the job is known. */
  void SetPredictor(std::shared_ptr<Predictor> predictor);
  void SetSettings(const MapEngine::Settings& settings);

  /** Zeros before the first region. */
  EngineStatistics GetStatistics() const;

  /** Was every pixel of the window asked for, in the last pass over it? */
  bool IsComplete() const;

  /** Valid after UpdateOutputInformation(). */
  virtual Job GetJob() const = 0;

protected:
  MapFilter() = default;
  ~MapFilter() override = default;

  /** Checks that the inputs go together and fit the network.
   * \throw Error */
  virtual void CheckInputs() = 0;

  /** The image whose grid the outputs have. */
  virtual const itk::ImageBase<2>* GetReference() const = 0;

  /** Sides of the pieces that are best asked for, in pixels. */
  virtual std::pair<int, int> GetTileHint() const = 0;

  virtual std::unique_ptr<MapEngine> MakeEngine() = 0;

  /** Must a predictor be set? */
  virtual bool NeedsPredictor() const { return true; }

  /** The engine at work, or null. */
  const MapEngine* GetEngine() const { return m_Engine.get(); }

  void GenerateOutputInformation() override;

  /** Stops here: what is needed upstream is decided and pulled in UpdateOutputData(). */
  void PropagateRequestedRegion(itk::DataObject* output) override;
  void UpdateOutputData(itk::DataObject* output) override;

  /** Region of an image in ITK's terms. */
  static RegionType ToItk(const Region& region, const itk::ImageBase<2>* image);

  /** Makes one region of an upstream image. */
  static void Pull(itk::ImageBase<2>* image, const RegionType& wanted);

  std::shared_ptr<const MapOperator> m_Operator;
  std::shared_ptr<Predictor> m_Predictor;
  MapEngine::Settings m_Settings;

private:
  std::unique_ptr<MapEngine> m_Engine;
  std::int64_t m_PixelsMade = 0;
  bool m_Complete = false;
};

/** Compares two grids: size, spacing, origin, projection.
 * \param advice what to do about it
 * \throw Error that names every difference */
void CheckSameGrid(const itk::ImageBase<2>* reference, const std::string& referenceName, const itk::ImageBase<2>* image, const std::string& name,
                   const std::string& advice = "Bring it onto that grid first, with otbcli_Superimpose.");

/** Are two descriptions of a projection the same one? Two that are empty are. */
bool SameProjection(const std::string& a, const std::string& b);

} // namespace dl
} // namespace otb

#endif
