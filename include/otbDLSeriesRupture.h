/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLSeriesRupture_h
#define otbDLSeriesRupture_h

#include "otbDLMapEngine.h"
#include "otbDLMapOperator.h"
#include "otbDLPixelSource.h"
#include "otbDLPlaneFile.h"
#include "otbDLRupture.h"
#include "otbDLSceneScore.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** What the values of validity rasters mean. */
enum class SeriesMaskKind
{
  Invalid, ///< 0 = valid
  Valid,   ///< 0 = not valid
  Scl      ///< Sentinel-2 scene classification: 2, 4, 5, 6, 7, 11 are valid
};

/** Where the dates of a series come from, and what the machine gives. */
struct SeriesScene
{
  std::shared_ptr<PixelSource> pixels;    ///< one image a date, or one of all dates; then the masks: one image a date, or one of all dates
  std::vector<InputNormalisation> inputs; ///< of all of them; scaling is not used
  int images = 0;                         ///< inputs that are dates; the others are masks
  int dates = 0;
  int bands = 0;          ///< of a date
  std::vector<int> order; ///< place in the files of the first date, the second ...: dates come as they like
  SeriesMaskKind mask = SeriesMaskKind::Invalid;
  std::int64_t width = 0;
  std::int64_t height = 0;
  double clip = .01;
  int threads = 1;
  std::size_t readBytes = std::size_t(64) << 20;
};

/** \class SeriesSource
 * \brief One image a date, in order of time, NaN where its mask says so: however the files hold them.
 * \ingroup OTBTorch
 */
class SeriesSource : public PixelSource
{
public:
  explicit SeriesSource(SeriesScene scene);
  PixelBlock Read(const Region& region) override;

  /** Nothing but NaN is no-data in its images. */
  std::vector<InputNormalisation> Inputs() const;

private:
  SeriesScene m_Scene;
  std::vector<float> m_Values;
};

/** \class SeriesScore
 * \brief How unlikely is each date of a series given what was there at its beginning? One plane a date.
 *
 * What was there is the median, pixel by pixel and band by band, of the first valid dates (the reference; the date in question left out), standardised date by
 * date. Each date is regressed on its 3 x 3 neighbours and Gaussian means over the whole scene, which explains season, sun and haze as far as they follow from
 * what was there; the length of the residual is the score.
 * \ingroup OTBTorch
 */
class SeriesScore : public SceneScore
{
public:
  /** \param reference dates that say what was there; 0: max(6, a third) */
  SeriesScore(SeriesScene scene, int reference);
  ~SeriesScore() override;

  int Planes() const override { return m_Scene.dates; }
  void Fit(const Progress& progress) override;
  std::string SaveFit() const override;
  void LoadFit(const std::string& json) override;
  void Score(const Region& region, const std::vector<float*>& planes, const Progress& progress) override;

private:
  struct Cell;
  void Load(const SceneReader& reader, const Region& cell, Cell& data) const;
  void Context(const Cell& data, int without, std::vector<std::vector<float>>& features, std::vector<std::uint8_t>& known) const;

  SeriesScene m_Scene;
  int m_Reference;
  std::shared_ptr<SeriesSource> m_Source;
  std::vector<BandScaling> m_Scaling; ///< [date][band]
  std::vector<std::vector<float>> m_Kernels;
  std::vector<std::vector<float>> m_Weights; ///< [date]: features x bands, the constant last
};

enum class SeriesResult
{
  Score,   ///< highest value of the CUSUM
  PValue,  ///< -log10 of the p-value of the split
  Change,  ///< 0, 1: alarm of the martingale
  Rupture, ///< index of the first date after the split (from 1, 0: none), its time as decimal year, statistic, number of valid dates
  Alarm    ///< alarm of the CUSUM (index from 1, 0: none), its time, time of the onset, highest value, alarm of the martingale (index), log10 of the martingale
};

/** \class SeriesOperator
 * \brief Tells a MapFilter what the images of a RuptureMapEngine hold.
 * \ingroup OTBTorch
 */
class SeriesOperator : public MapOperator
{
public:
  explicit SeriesOperator(std::vector<SeriesResult> results);
  int ScoreChannels() const override { return 1; }
  void Score(const std::vector<BatchView>&, int, const Region&, float*) const override {}
  int ResultChannels() const override { return static_cast<int>(m_NoData.size()); }
  std::vector<int> ResultBands() const override;
  const std::vector<float>& NoData() const override { return m_NoData; }
  void Decide(const float*, std::ptrdiff_t, std::ptrdiff_t, float*, std::ptrdiff_t) const override {}

  static int BandsOf(SeriesResult result);
  static float NoDataOf(SeriesResult result);

private:
  std::vector<SeriesResult> m_Results;
  std::vector<float> m_NoData;
};

struct RuptureMapSettings
{
  std::vector<SeriesResult> results;
  std::vector<double> years; ///< time of each date, decimal years
  double smooth = 1.5;       ///< of the scores of each date, pixels
  RuptureSettings rupture;
  std::uint32_t seed = 0;
};

/** \class RuptureMapEngine
 * \brief Scores all dates of a scene first, then says of any region when its pixels left what is normal.
 *
 * Scores are compared with those of the same date elsewhere in the scene (their logarithm less its median, over its lower deviation) before they are watched:
 * what happens to all pixels on a date is no rupture.
 * \ingroup OTBTorch
 */
class RuptureMapEngine : public MapEngine
{
public:
  RuptureMapEngine(std::shared_ptr<SceneScore> score, std::int64_t width, std::int64_t height, RuptureMapSettings settings, EngineSettings engine);

  void Produce(const Region& region, const std::vector<ResultPlane>& results, const Progress& progress) override;
  const EngineStatistics& Statistics() const override { return m_Statistics; }
  const SceneScore& Scorer() const { return *m_Score; }

  /** Pixels with at least one valid date. Of those asked for so far: */
  std::int64_t Pixels() const { return m_Pixels; }
  std::int64_t Alarms() const { return m_Alarms; }

private:
  void Prepare(const Progress& progress);
  void Level();
  void Smoothed(int date, const Region& part, std::vector<float>& scores) const;
  float Unusual(float score, int date) const;

  std::shared_ptr<SceneScore> m_Score;
  Region m_Image;
  RuptureMapSettings m_Settings;
  EngineSettings m_Engine;
  EngineStatistics m_Statistics;
  std::vector<float> m_Kernel;
  std::unique_ptr<PlaneFile> m_File;
  std::vector<double> m_Middle, m_Deviation; ///< of the logarithm of each date's scores
  std::int64_t m_Pixels = 0;
  std::int64_t m_Alarms = 0;
};

} // namespace dl
} // namespace otb

#endif
