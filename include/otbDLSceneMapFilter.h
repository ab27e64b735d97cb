/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLSceneMapFilter_h
#define otbDLSceneMapFilter_h

#include "otbDLPatchMapFilter.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** \class SceneMapFilter
 * \brief Maps that need the whole scene before their first pixel: scores relative to the scene, thresholds found on it. See MapFilter.
 *
 * Whatever region is asked for first, the engine goes over the whole scene once; then any region costs next to nothing.
 * \ingroup OTBTorch
 */
class SceneMapFilter : public PatchMapFilter
{
public:
  using Self = SceneMapFilter;
  using Superclass = PatchMapFilter;
  using Pointer = itk::SmartPointer<Self>;
  using ConstPointer = itk::SmartPointer<const Self>;

  itkNewMacro(Self);
  itkTypeMacro(SceneMapFilter, PatchMapFilter);

  /** What an engine is made from. */
  struct Scene
  {
    std::shared_ptr<PixelSource> pixels;    ///< one image an input
    std::vector<InputNormalisation> inputs; ///< of each
    std::int64_t width = 0;
    std::int64_t height = 0;
    EngineSettings settings;
    std::shared_ptr<Predictor> predictor; ///< may be null
  };
  using EngineFactory = std::function<std::unique_ptr<MapEngine>(const Scene&)>;

  void SetEngineFactory(EngineFactory factory);

  /** For the log: "1180 x 1070 pixels, regression of the pair". */
  void SetDescription(const std::string& description);

  /** A network in patches of this tiling: what the job is then measured in. Else in cells. */
  void SetNetworkTiling(const Tiling& tiling);

  Job GetJob() const override;

  /** The engine at work, as its own type; null before the first region. */
  template <typename TEngine>
  const TEngine* GetSceneEngine() const
  {
    return dynamic_cast<const TEngine*>(this->GetEngine());
  }

protected:
  SceneMapFilter() = default;
  ~SceneMapFilter() override = default;

  std::pair<int, int> GetTileHint() const override;
  std::unique_ptr<MapEngine> MakeEngine() override;
  Region NeededRegion(const Region& region) const override { return region; }
  bool NeedsPredictor() const override { return false; }

private:
  EngineFactory m_Factory;
  std::string m_Description;
  bool m_Network = false;
};

} // namespace dl
} // namespace otb

#endif
