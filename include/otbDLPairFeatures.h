/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLPairFeatures_h
#define otbDLPairFeatures_h

#include "otbDLModelContract.h"
#include "otbDLPairStatistics.h"
#include "otbDLPixelSource.h"
#include "otbDLSceneScore.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace otb
{
namespace dl
{

/** Is an input of a network made from the images of a pair rather than read? */
bool IsPairFeature(const ModelInput& input);

/** What of an input that is made a PixelSource gives: planes that are ready, NaN where there is no data. */
InputNormalisation PairFeatureNormalisation(const ModelInput& input);

/** \class PairFeatures
 * \brief Adds to the images of a pair what the regression between them says, for networks whose contract asks for it.
 *
 * Inputs of role `regression`: target, prediction, source and residual of the band values (see RegressionSource). Input of role `regression_score`: the mean
 * length of both residuals, smoothed by a Gaussian of `smooth` pixels over the pixels that have data, minus its mean over the scene, divided by its standard
 * deviation there. What a pixel gets depends on the scene alone, not on the region read.
 * \ingroup OTBTorch
 */
class PairFeatures : public PixelSource
{
public:
  static constexpr double smooth = 2.5; ///< standard deviation, pixels

  /** \param pixels one image an input, those that are made left empty
   * \param inputs of the network, as the contract has them
   * \param normalisations of each; those of the images say what is no-data
   * \param threads of the CPU \param readBytes for pixels read at once */
  PairFeatures(std::shared_ptr<PixelSource> pixels, std::vector<ModelInput> inputs, const std::vector<InputNormalisation>& normalisations, std::int64_t width,
               std::int64_t height, int threads, std::size_t readBytes);

  /** Learns from the scene. Before the first Read(). \throw Error when there is too little data */
  void Fit(const SceneScore::Progress& progress);

  PixelBlock Read(const Region& region) override;

private:
  void SmoothedScore(const Region& region, std::vector<float>& score);

  std::shared_ptr<PixelSource> m_Pixels;
  std::vector<ModelInput> m_Inputs;
  Region m_Image;
  int m_Bands = 0;
  bool m_HasScore = false;
  std::shared_ptr<PairRegression> m_Regression;
  std::unique_ptr<RegressionSource> m_Source;
  std::vector<float> m_Kernel;
  double m_Mean = 0.;
  double m_Deviation = 1.;
  PixelBlock m_Made; ///< by the regression, of what was read last
  std::vector<float> m_Window;
  std::vector<float> m_Score;
};

} // namespace dl
} // namespace otb

#endif
