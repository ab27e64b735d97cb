/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLScoreMapEngine_h
#define otbDLScoreMapEngine_h

#include "otbDLMapEngine.h"
#include "otbDLMapOperator.h"
#include "otbDLPlaneFile.h"
#include "otbDLSceneScore.h"
#include "otbDLScoreHistogram.h"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** Planes of one kind, averaged, that join the score with a weight. */
struct ScoreGroup
{
  std::vector<int> forward;  ///< planes that say how unlikely date 2 is
  std::vector<int> backward; ///< the same of date 1; both empty lists of a group never happen
  double weight = 1.;
  bool standardise = false; ///< to mean 0, standard deviation 1 over the scene (or the calibration pair), once smoothed
};

/** What a calibration pair without change taught. */
struct ScoreCalibration
{
  std::string settings;                ///< JSON of what the score depends on; another run must have the same
  std::vector<double> mean, deviation; ///< of each group
  std::vector<double> quantiles;       ///< of the score, evenly spaced from lowest to highest
  std::int64_t count = 0;              ///< of pixels behind them, one a block
  int block = 0;                       ///< its side

  /** Conformal p-value (1 + number at or above the score) / (count + 1), interpolated between quantiles. */
  double PValue(double score) const;
  std::string ToJson() const;
  /** \throw Error */
  static ScoreCalibration FromJson(const std::string& text, const std::string& origin);
};

/** What a scene taught: with it, a part of the scene gives what the whole one gives. */
struct SceneFit
{
  std::string settings;                ///< as above
  std::string score;                   ///< of the estimator, JSON, may be empty
  std::vector<double> mean, deviation; ///< of each group
  double nullMiddle = 0.;              ///< median of the (transformed) score
  double nullDeviation = 1.;           ///< from its lower half
  bool logarithm = false;              ///< is the score transformed by its logarithm?
  ThresholdChoice choice;              ///< of the score itself

  std::string ToJson() const;
  static SceneFit FromJson(const std::string& text, const std::string& origin);
};

enum class ScoreResult
{
  Score,
  PValue, ///< -log10 p
  Change, ///< 0, 1
  Which   ///< 1, 2: the less likely date
};

struct ScoreSettings
{
  std::vector<ScoreGroup> groups;
  double smooth = 2.5; ///< standard deviation of the Gaussian that scores are smoothed with, pixels; 0: none
  std::vector<ScoreResult> results;
  std::string description;                     ///< JSON of what the score depends on
  std::string fitDescription;                  ///< the same and the rule of the threshold: what a fit depends on; empty: as description
  std::optional<double> threshold;             ///< given by the user
  double alpha = .01;                          ///< with a calibration: change where p is at or below it
  std::optional<ScoreCalibration> calibration; ///< to use
  std::optional<SceneFit> fit;                 ///< to use
  int chiSquareDegrees = 0;                    ///< > 0: the square of the score is chi-square distributed where nothing changed
  int calibrationBlock = 0;                    ///< > 0: a calibration is to be made, one pixel a block of that side
  double fitShare = .15;                       ///< of the time that fitting takes, for progress
  double scoreShare = .7;
  std::function<ThresholdChoice(const ScoreHistogram&)> chooseThreshold;
};

/** \class ScoreOperator
 * \brief Tells a MapFilter what the images of a ScoreMapEngine hold. It decides nothing: the engine does.
 * \ingroup OTBTorch
 */
class ScoreOperator : public MapOperator
{
public:
  explicit ScoreOperator(const std::vector<ScoreResult>& results);
  int ScoreChannels() const override { return 1; }
  void Score(const std::vector<BatchView>&, int, const Region&, float*) const override {}
  int ResultChannels() const override { return static_cast<int>(m_NoData.size()); }
  const std::vector<float>& NoData() const override { return m_NoData; }
  void Decide(const float*, std::ptrdiff_t, std::ptrdiff_t, float*, std::ptrdiff_t) const override {}

  static float NoDataOf(ScoreResult result);

private:
  std::vector<float> m_NoData;
};

/** \class ScoreMapEngine
 * \brief Scores a whole scene first, then makes any region of the maps: smoothed score, p-value, decision, less likely date.
 *
 * The first region asked for starts the work; scores wait in a temporary file (4 bytes a pixel and plane), so that memory does not grow with the scene. The
 * decision is that of the whole scene, whatever part is asked for.
 * \ingroup OTBTorch
 */
class ScoreMapEngine : public MapEngine
{
public:
  ScoreMapEngine(std::shared_ptr<SceneScore> score, std::int64_t width, std::int64_t height, ScoreSettings settings, EngineSettings engine);

  void Produce(const Region& region, const std::vector<ResultPlane>& results, const Progress& progress) override;
  const EngineStatistics& Statistics() const override { return m_Statistics; }

  /** Valid after the first region. */
  const SceneFit& Fit() const { return m_Fit; }

  /** The threshold in use: the user's, else that of the fit. Valid after the first region. */
  const ThresholdChoice& Choice() const { return m_Choice; }
  std::int64_t ValidPixels() const { return m_Valid; }

  /** Probability of such a score where nothing changed. */
  double PValue(double score) const;

  /** Valid after the first region, if it was to be made. */
  const ScoreCalibration& Calibration() const { return m_Calibration; }

private:
  void Prepare(const Progress& progress);
  void Learn();
  void Calibrate();
  void GroupPlanes(const PlaneFile& raw, const Region& rows, const ScoreGroup& group, std::vector<float>& mean, std::vector<float>& difference) const;
  std::vector<Region> Bands(std::int64_t height) const;
  std::int64_t RowsOf(std::size_t planes) const;

  std::shared_ptr<SceneScore> m_Score;
  Region m_Image;
  ScoreSettings m_Settings;
  EngineSettings m_Engine;
  EngineStatistics m_Statistics;
  std::vector<float> m_Kernel;
  std::unique_ptr<PlaneFile> m_File; ///< score, and difference of directions
  SceneFit m_Fit;
  ThresholdChoice m_Choice;
  ScoreCalibration m_Calibration;
  std::int64_t m_Valid = 0;
  double m_Low = 0., m_High = 0.;
};

} // namespace dl
} // namespace otb

#endif
