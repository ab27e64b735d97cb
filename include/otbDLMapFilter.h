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

#include <functional>
#include <memory>
#include <set>
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
 * streaming filters do. Images upstream that others use as well are left as they were found.
 *
 * Nothing is computed before a region is asked for; what an engine learnt is kept until this filter or one upstream of it is modified.
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

  /** What has to be done once, with pixels, before the first region is made: it may set inputs anew, on the same grid. Done again if it throws. */
  void SetFirstStep(std::function<void()> step);

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

  /** The part of the inputs that a region of the map is made from, inside the image. What the engine must learn from the scene beforehand does not count. */
  virtual Region NeededRegion(const Region& region) const { return region; }

  /** Must a predictor be set? */
  virtual bool NeedsPredictor() const { return true; }

  /** The engine at work, or null. */
  const MapEngine* GetEngine() const { return m_Engine.get(); }

  void GenerateOutputInformation() override;

  /** Tells upstream what the region needs, though it is pulled in parts, in UpdateOutputData(). A writer of the whole window (see EngineSettings) settles its
   * tiles by the memory of what it asks for: it is told of the outputs alone. */
  void PropagateRequestedRegion(itk::DataObject* output) override;
  void UpdateOutputData(itk::DataObject* output) override;

  /** Region of an image in ITK's terms. */
  static RegionType ToItk(const Region& region, const itk::ImageBase<2>* image);

  /** Makes one region of an upstream image. */
  static void Pull(itk::ImageBase<2>* image, const RegionType& wanted);

  /** To be called once a reference to the pixels that were pulled is held: lets the image forget them if another input is made from it, which would
   * overwrite them. */
  void Forget(itk::ImageBase<2>* image) const;

  std::shared_ptr<const MapOperator> m_Operator;
  std::shared_ptr<Predictor> m_Predictor;
  MapEngine::Settings m_Settings;

private:
  std::unique_ptr<MapEngine> m_Engine;
  std::function<void()> m_FirstStep;
  itk::ModifiedTimeType m_Stamp = 0;                 ///< of this filter and all upstream, when the engine was made
  std::set<const itk::DataObject*> m_InputsOfInputs; ///< inputs that others are made from
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
