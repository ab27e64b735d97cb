/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLEvaluation_h
#define otbDLEvaluation_h

#include "otbDLEvaluationReader.h"

#include "otbDLBlockBootstrap.h"
#include "otbDLChangeMetrics.h"
#include "otbDLObjectMatches.h"
#include "otbDLScoreCurve.h"
#include "otbDLScoreHistogram.h"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace otb
{
namespace Wrapper
{

/** How the values of a map, or of a reference, are read. */
struct EvaluationLabels
{
  enum class Coding
  {
    Binary, ///< change or not
    FromTo, ///< 0, or 1 + i K + j
    Masked, ///< a label a date, 0 in both where nothing changed
    Full    ///< a label a date everywhere; change where another map says so, else where they differ
  };
  static constexpr int noData = -1;
  static constexpr int unlabelled = -2;
  static constexpr int unknown = -3;

  Coding coding = Coding::Binary;
  std::vector<float> change;                ///< values that mean it; empty: all but those of noChange, or but 0
  std::vector<float> noChange;              ///< empty: all others
  std::vector<std::pair<float, float>> map; ///< values and what they stand for
  std::vector<float> classes;               ///< values of the classes
  std::vector<float> none;                  ///< no-data besides what files declare

  float Mapped(float value) const;
  /** 1, 0, noData or unlabelled. */
  int Change(float value) const;
  /** Position in classes, or unknown. */
  int Class(float value) const;
};

/** The planes of one side of a pair. */
struct EvaluationSide
{
  EvaluationLabels labels;
  std::string option; ///< for messages
  int first = -1;
  int second = -1;
  int change = -1;
};

/** Files of a pair; empty where there are none. */
struct EvaluationFiles
{
  std::string in, in2, inChange, ref, ref2, refChange, mask, errors;
};

/** What is looked for. */
struct EvaluationSettings
{
  enum class Mode
  {
    Binary,
    Score,
    Semantic,
    Object
  };
  Mode mode = Mode::Binary;
  EvaluationLabels in;
  EvaluationLabels ref;
  std::string layer; ///< of a vector reference
  std::string field;
  bool resample = false;
  bool probability = false;
  std::int64_t block = 256;
  dl::ObjectMatchSettings objects;
  std::size_t memory = std::size_t(64) << 20; ///< for the pixels read at once
  int threads = 1;
  std::vector<std::pair<std::string, std::string>> creation; ///< options of the map of errors
};

/** Where a score becomes a decision. */
struct ScoreThreshold
{
  double value = 0.;
  bool above = false; ///< change above it, else at or above it
  std::string origin;
};

/** What was counted of a pair, or of several. */
struct EvaluationCounts
{
  static constexpr std::size_t coarse = 128;

  explicit EvaluationCounts(int classes = 0, std::size_t bins = 0);
  void Add(const EvaluationCounts& other);

  std::int64_t pixels = 0;
  std::int64_t evaluated = 0;
  std::int64_t noData = 0;      ///< of the map
  std::int64_t noReference = 0; ///< of the reference (no-data or outside)
  std::int64_t masked = 0;
  std::int64_t unlabelled = 0;

  dl::BinaryCounts binary;
  dl::BlockTable binaryBlocks{4}; ///< tp, fp, fn, tn

  dl::ScoreCounts score;
  dl::BlockTable scoreBlocks{2 * coarse}; ///< no change, change, by coarse bin
  dl::CalibrationSums calibration;

  dl::ConfusionMatrix fromTo;
  dl::ConfusionMatrix dates[2];  ///< of full maps on both sides, everywhere
  dl::BlockTable semanticBlocks; ///< cells of fromTo

  dl::ObjectMatches objects;
};

/** \class PairEvaluation
 * \brief One map and its reference, opened: passes over them in cells of 256 pixels from the origin, each counted by itself.
 *
 * The counts depend neither on how much is read at once nor on threads: they are whole numbers, and sums of floats are added in the order of the cells.
 * \ingroup OTBTorch
 */
class PairEvaluation
{
public:
  using Progress = std::function<void(double)>;

  /** \throw dl::Error */
  PairEvaluation(const EvaluationFiles& files, const EvaluationSettings& settings);

  const EvaluationReader& Reader() const { return m_Reader; }
  const EvaluationFiles& Files() const { return m_Files; }

  /** Adds the scores of the pixels that will be evaluated. */
  void AddScores(dl::ScoreBinsBuilder& bins, const Progress& progress);

  /** Counts of the scores in equal bins, as ChooseThreshold() wants them. */
  dl::ScoreHistogram Histogram(double low, double high, const Progress& progress);

  /** Counts all. \param bins, threshold of a score, else null
   * \param coarse of each bin
   * \throw dl::Error for values that are none of the classes, probabilities beyond 0 and 1 */
  EvaluationCounts Count(const dl::ScoreBins* bins, const std::vector<std::uint32_t>& coarse, const ScoreThreshold* threshold, const Progress& progress);

  /** One value of the map (mapped), with that of the reference (NaN: none): what a sample is drawn from. Called from several threads, for every row of a cell.
   */
  using RowVisit = std::function<void(std::int64_t y, std::int64_t x0, std::int64_t count, const float* map, const float* reference)>;
  void ForRows(const std::function<RowVisit(const dl::Region& cell)>& makeVisit, const Progress& progress);

private:
  struct Pixel
  {
    int predicted; ///< 0, 1 or a code; or noData, unlabelled, unknown; of a score 0
    int reference;
    int predictedClasses[2]; ///< of both dates, of maps of two dates
    int referenceClasses[2];
    float score;
  };
  /** Why a pixel is left out, or that it is not. */
  enum class State
  {
    Evaluated,
    Masked,
    NoData,
    NoReference,
    Unlabelled
  };

  void ForCells(const std::function<void(const dl::Region&)>& before, const std::function<void(const dl::Region&)>& work, const Progress& progress);
  int Decode(const EvaluationSide& side, std::int64_t y, std::int64_t x, int* classes, std::vector<float>* odd) const;
  bool IsNoData(int plane, const EvaluationLabels& labels, float value) const;
  State Look(std::int64_t y, std::int64_t x, Pixel& pixel, std::vector<float>* oddIn, std::vector<float>* oddRef) const;
  void MatchObjects(EvaluationCounts& counts, const Progress& progress);
  void Complain(const EvaluationSide& side, const std::vector<float>& odd) const;

  EvaluationFiles m_Files;
  EvaluationSettings m_Settings;
  EvaluationReader m_Reader;
  EvaluationSide m_In;
  EvaluationSide m_Ref;
  int m_Mask = -1;
};

} // namespace Wrapper
} // namespace otb

#endif
