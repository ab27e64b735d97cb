/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLSceneScore_h
#define otbDLSceneScore_h

#include "otbDLMapEngine.h"
#include "otbDLPatchPacking.h"
#include "otbDLPixelSource.h"
#include "otbDLRegion.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** \class SceneScore
 * \brief Scores of change of a whole scene: first something is learnt from the scene, then every pixel is scored.
 *
 * Learning looks at parts of the scene that depend on its size alone and sums in a fixed order, so that scores depend neither on memory nor on threads.
 * Not thread-safe.
 * \ingroup OTBTorch
 */
class SceneScore
{
public:
  /** Told the share done of a step, 0..1. May throw, to stop. */
  using Progress = std::function<void(double)>;

  virtual ~SceneScore() = default;

  /** Planes of raw scores, larger = more change. */
  virtual int Planes() const = 0;

  /** Passes over the scene before the first score. */
  virtual void Fit(const Progress& progress) = 0;

  /** What was learnt, as JSON; empty if nothing is. */
  virtual std::string SaveFit() const { return {}; }

  /** Takes what another run learnt in place of Fit(). \throw Error when it does not go with this score */
  virtual void LoadFit(const std::string& /*json*/) {}

  /** Scores a region inside the image. One dense plane (row after row) each; NaN where there is no data. */
  virtual void Score(const Region& region, const std::vector<float*>& planes, const Progress& progress) = 0;

  virtual EngineStatistics Statistics() const { return {}; }
};

/** A dense window of some images, plane after plane, and where it has data. */
struct SceneWindow
{
  std::ptrdiff_t width = 0;
  std::ptrdiff_t height = 0;
  std::vector<float> planes;
  std::vector<std::uint8_t> valid;

  float* Plane(int k) { return planes.data() + static_cast<std::ptrdiff_t>(k) * width * height; }
  const float* Plane(int k) const { return planes.data() + static_cast<std::ptrdiff_t>(k) * width * height; }
};

/** \class SceneReader
 * \brief Windows of the images of a scene, which may leave it (mirrored there).
 *
 * Read() first, from one thread; then Window() from any number of threads.
 * \ingroup OTBTorch
 */
class SceneReader
{
public:
  /** \param inputs one an image of the source; their scaling is not applied here */
  SceneReader(std::shared_ptr<PixelSource> pixels, std::vector<InputNormalisation> inputs, std::int64_t width, std::int64_t height);

  Region Image() const { return {0, 0, m_Width, m_Height}; }
  int Images() const { return static_cast<int>(m_Inputs.size()); }
  int Bands(int image) const { return static_cast<int>(m_Inputs[image].scaling.size()); }

  /** Reads all that windows inside region, grown by margin, need. */
  void Read(const Region& region, int margin);

  /** Images [first, last) of a window, with joint validity; invalid pixels are 0.
   * \param scaling of the bands of these images, one after another; empty: raw values */
  void Window(const Region& footprint, int first, int last, const std::vector<BandScaling>& scaling, SceneWindow& window) const;

private:
  std::shared_ptr<PixelSource> m_Pixels;
  std::vector<InputNormalisation> m_Inputs;
  std::int64_t m_Width;
  std::int64_t m_Height;
  PixelBlock m_Block;
};

/** Side of the cells in which scenes are worked on. */
constexpr int sceneCell = 256;

/** Cells of a scene in order of rows: all of them, or about `most` drawn by their place in a scene that has more. */
std::vector<Region> SceneCells(std::int64_t width, std::int64_t height, std::int64_t most, std::int64_t side = sceneCell);

/** Calls work(cell, k) for the cells of a region, `threads` at a time, after `prepare` was told what to read: rows of cells, split where `pixels` (of one read)
 * are too many. */
void ForCells(const Region& region, std::int64_t pixels, int threads, const std::function<void(const Region& part)>& prepare,
              const std::function<void(const Region& cell)>& work, const SceneScore::Progress& progress, std::int64_t side = sceneCell);

/** Finds how to clip and standardise every band of a scene: clip at quantiles `clip` and 1 - clip of (a sample of) its valid pixels, then mean 0 and standard
 * deviation 1. Images are looked at jointly (`joint`: only pixels valid in all of them count) or one by one. */
std::vector<BandScaling> FitScaling(SceneReader& reader, double clip, bool joint, const SceneScore::Progress& progress);

} // namespace dl
} // namespace otb

#endif
