/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLPairStatistics_h
#define otbDLPairStatistics_h

#include "otbDLPixelSource.h"
#include "otbDLSceneScore.h"
#include "otbDLSiblingRegression.h"

#include <memory>
#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** What the scores of a pair have in common: where pixels come from, memory and threads. Band values are clipped at the quantiles `clip` and 1 - clip of the
 * scene and standardised before anything else. */
struct PairScene
{
  std::shared_ptr<PixelSource> pixels;    ///< of two images: date 1, date 2
  std::vector<InputNormalisation> inputs; ///< no-data of both; their scaling is not used
  std::int64_t width = 0;
  std::int64_t height = 0;
  double clip = .01;
  int threads = 1;
  std::size_t readBytes = std::size_t(64) << 20; ///< for pixels read at once
};

/** The length of a residual. */
enum class ResidualNorm
{
  L2,
  Mahalanobis, ///< whitened by the covariance of the scene's residuals
  StudentT     ///< minus the log-density of a multivariate t with 4 degrees of freedom, up to a constant
};

struct RegressionSettings
{
  std::vector<double> sigmas = {2., 4., 8.}; ///< Gaussians of the context, pixels; beside its 3 x 3 neighbours
  double ridge = 1e-3;                       ///< penalty, relative to the variance of a band
  ResidualNorm norm = ResidualNorm::L2;
};

/** \class PairRegression
 * \brief A conditional Gaussian p(x2 | x1) and p(x1 | x2) fitted on the pair itself: ridge regression of each band on the other date's 3 x 3 neighbours and
 * Gaussian means. The length of the residual is the score: two planes, date 2 given date 1 and date 1 given date 2.
 *
 * Global differences (sensor, sun, season, haze that follow from what was there) are explained away; what is left has changed. Fitted on about a million
 * pixels drawn by their place. The dates may have different bands.
 * \ingroup OTBTorch
 */
class PairRegression : public SceneScore
{
public:
  PairRegression(PairScene scene, RegressionSettings settings);
  ~PairRegression() override;

  int Planes() const override { return 2; }
  void Fit(const Progress& progress) override;
  std::string SaveFit() const override;
  void LoadFit(const std::string& json) override;
  void Score(const Region& region, const std::vector<float*>& planes, const Progress& progress) override;

  /** Pixels around a window that its predictions look at. */
  int Margin() const;

  /** Standardised dates and what each predicts of the other. */
  struct Prediction
  {
    SceneWindow dates;           ///< of the window with its margin: bands of date 1, bands of date 2
    std::vector<float> of1, of2; ///< predicted, plane after plane, of the window
  };

  /** \param cell inside what was read. Thread-safe. */
  void Predict(const SceneReader& reader, const Region& cell, Prediction& prediction) const;

  SceneReader MakeReader() const;
  const PairScene& Scene() const { return m_Scene; }
  int Bands(int date) const;

private:
  struct Direction;
  void Context(const float* planes, int bands, const SceneWindow& window, std::ptrdiff_t width, std::ptrdiff_t height,
               std::vector<std::vector<float>>& features) const;

  PairScene m_Scene;
  RegressionSettings m_Settings;
  std::vector<BandScaling> m_Scaling;
  std::vector<std::unique_ptr<Direction>> m_Directions; ///< 2 given 1, 1 given 2
  std::vector<std::vector<float>> m_Kernels;
};

/** \class RegressionSource
 * \brief Pixels for a density-ratio network: for each direction an image of target, prediction, source and residual, in the units of a fitted PairRegression;
 * NaN where there is no data.
 * \ingroup OTBTorch
 */
class RegressionSource : public PixelSource
{
public:
  explicit RegressionSource(std::shared_ptr<const PairRegression> regression);
  PixelBlock Read(const Region& region) override;

private:
  std::shared_ptr<const PairRegression> m_Regression;
  SceneReader m_Reader;
  std::vector<float> m_Planes;
};

/** \class ChangeVector
 * \brief Change vector analysis: the length of the difference of standardised bands. One plane.
 * \ingroup OTBTorch
 */
class ChangeVector : public SceneScore
{
public:
  explicit ChangeVector(PairScene scene);
  int Planes() const override { return 1; }
  void Fit(const Progress& progress) override;
  std::string SaveFit() const override;
  void LoadFit(const std::string& json) override;
  void Score(const Region& region, const std::vector<float*>& planes, const Progress& progress) override;

private:
  PairScene m_Scene;
  std::vector<BandScaling> m_Scaling;
};

/** \class AlterationDetector
 * \brief Multivariate alteration detection (Nielsen et al., 1998), iteratively reweighted if asked (Nielsen, IEEE TIP 2007): the square root of the sum of
 * squared standardised variates, whose square is chi-square distributed where nothing changed (after reweighting: scaled to the median of that). One plane.
 * \ingroup OTBTorch
 */
class AlterationDetector : public SceneScore
{
public:
  /** \param iterations 0: plain MAD; else at most that many */
  AlterationDetector(PairScene scene, int iterations);
  int Planes() const override { return 1; }
  void Fit(const Progress& progress) override;
  std::string SaveFit() const override;
  void LoadFit(const std::string& json) override;
  void Score(const Region& region, const std::vector<float*>& planes, const Progress& progress) override;

  /** Canonical correlations, rising. */
  const std::vector<double>& Correlations() const { return m_Correlations; }
  int Iterations() const { return m_Done; }

private:
  PairScene m_Scene;
  int m_Iterations;
  int m_Done = 0;
  std::vector<BandScaling> m_Scaling;
  std::vector<double> m_Correlations;
  std::vector<std::vector<double>> m_Rows; ///< each variate, standardised: weights of all bands of both dates, then a constant
};

/** \class SiblingScore
 * \brief SiROC over a scene: see SiblingRegression, which does the work. One plane: the share of the ensemble that says change.
 * \ingroup OTBTorch
 */
class SiblingScore : public SceneScore
{
public:
  explicit SiblingScore(PairScene scene);
  int Planes() const override { return 1; }
  void Fit(const Progress& progress) override;
  std::string SaveFit() const override;
  void LoadFit(const std::string& json) override;
  void Score(const Region& region, const std::vector<float*>& planes, const Progress& progress) override;

private:
  void Settle();
  void Window(const SceneReader& reader, const Region& footprint, SceneWindow& window) const;

  PairScene m_Scene;
  std::vector<BandScaling> m_Scaling;
  std::unique_ptr<SiblingRegression> m_Sibling;
  std::vector<double> m_Thresholds;
};

/** Probability that a chi-square variable exceeds x. */
double ChiSquareTail(double x, int degrees);

} // namespace dl
} // namespace otb

#endif
