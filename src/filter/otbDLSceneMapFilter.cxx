/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLSceneMapFilter.h"

#include "otbDLSceneScore.h"

#include <utility>

namespace otb
{
namespace dl
{

void SceneMapFilter::SetEngineFactory(EngineFactory factory)
{
  m_Factory = std::move(factory);
  this->Modified();
}

void SceneMapFilter::SetDescription(const std::string& description)
{
  m_Description = description;
}

void SceneMapFilter::SetNetworkTiling(const Tiling& tiling)
{
  this->SetTiling(tiling);
  m_Network = true;
}

SceneMapFilter::Job SceneMapFilter::GetJob() const
{
  if (m_Network)
  {
    Job job = Superclass::GetJob();
    job.description = m_Description + ", " + job.description;
    return job;
  }
  const auto size = this->GetReference()->GetLargestPossibleRegion().GetSize();
  const auto width = static_cast<std::int64_t>(size[0]), height = static_cast<std::int64_t>(size[1]), side = static_cast<std::int64_t>(sceneCell);
  return {width, height, ((width + side - 1) / side) * ((height + side - 1) / side), "cells", m_Description};
}

std::pair<int, int> SceneMapFilter::GetTileHint() const
{
  // The scores lie in a file of rows.
  return {2 * sceneCell, 2 * sceneCell};
}

std::unique_ptr<MapEngine> SceneMapFilter::MakeEngine()
{
  if (!m_Factory)
  {
    itkExceptionMacro("the engine's factory must be set");
  }
  const Job job = this->GetJob();
  return m_Factory({this->MakePixelSource(), this->MakeNormalisations(), job.width, job.height, m_Settings, m_Predictor});
}

} // namespace dl
} // namespace otb
