/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLNetworkScore_h
#define otbDLNetworkScore_h

#include "otbDLPairStatistics.h"
#include "otbDLPatchEngine.h"
#include "otbDLSceneScore.h"

#include <memory>
#include <vector>

namespace otb
{
namespace dl
{

/** \class NetworkScore
 * \brief Scores that a network gives by itself, patch by patch: the channels of its output 0 are the planes.
 * \ingroup OTBTorch
 */
class NetworkScore : public SceneScore
{
public:
  /** \param source gives the predictor its inputs */
  NetworkScore(const PatchGrid& grid, std::shared_ptr<Predictor> predictor, std::shared_ptr<PatchSource> source, int planes, const EngineSettings& settings);

  int Planes() const override { return m_Planes; }
  void Fit(const Progress&) override {}
  void Score(const Region& region, const std::vector<float*>& planes, const Progress& progress) override;
  EngineStatistics Statistics() const override { return m_Engine.Statistics(); }

private:
  int m_Planes;
  PatchEngine m_Engine;
};

/** \class RatioScore
 * \brief The regression of a pair and, for each direction, the logit of a network that was trained to tell changed pixels from others by the regression's
 * target, prediction, source and residual (density ratio by noise contrast). Planes: residual and logit of date 2, residual and logit of date 1. \ingroup
 * OTBTorch
 */
class RatioScore : public SceneScore
{
public:
  /** \param predictor of the two inputs that MakeDirectionsPredictor() has */
  RatioScore(std::shared_ptr<PairRegression> regression, const PatchGrid& grid, std::shared_ptr<Predictor> predictor, const EngineSettings& settings);

  int Planes() const override { return 4; }
  void Fit(const Progress& progress) override;
  std::string SaveFit() const override { return m_Regression->SaveFit(); }
  void LoadFit(const std::string& json) override;
  void Score(const Region& region, const std::vector<float*>& planes, const Progress& progress) override;
  EngineStatistics Statistics() const override { return m_Network->Statistics(); }

private:
  std::shared_ptr<PairRegression> m_Regression;
  std::unique_ptr<NetworkScore> m_Network;
};

/** Runs a network of one input and one output channel on two inputs, one after the other: two inputs, one output of two channels. */
std::unique_ptr<Predictor> MakeDirectionsPredictor(std::unique_ptr<Predictor> network, int height, int width);

} // namespace dl
} // namespace otb

#endif
