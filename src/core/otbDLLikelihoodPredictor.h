/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLLikelihoodPredictor_h
#define otbDLLikelihoodPredictor_h

#include "otbDLKeyedRandom.h"
#include "otbDLLikelihood.h"
#include "otbDLNoiseSchedule.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace otb
{
namespace dl
{

/** What a number is drawn for. The stream of a KeyedRandom is ((draw * 4096) + level) * 16 + purpose: draw is the antithetic pair or the probe. */
enum class DrawPurpose : std::uint32_t
{
  Noise = 0,
  Probe = 1,
  Dequantisation = 2,
  Mask = 3
};
constexpr int maximalLevels = 4096;
std::uint32_t StreamOf(DrawPurpose purpose, int level, int draw);

/** \class LikelihoodPredictor
 * \brief See MakeLikelihoodPredictor().
 *
 * Everything is brought to the canonical flow x_t = t x + (1 - t) e, whatever the network's own parametrisation. Latents and features live on cells of
 * several pixels; a cell's random numbers are keyed on its own coordinates, its score is repeated over its pixels.
 */
class LikelihoodPredictor : public Predictor
{
public:
  LikelihoodPredictor(LikelihoodNetworks networks, const ModelContract& contract, const LikelihoodSettings& settings);

  int BatchSize() const override { return m_Batch; }
  /** The batch: how many forwards it takes depends on the estimator. See Evaluations(). */
  int CallSize() const override { return m_Batch; }
  BatchView Input(int k) override;
  void Place(int n, std::int64_t x, std::int64_t y) override;
  void Run(int filled) override;
  int Outputs() const override { return 1; }
  BatchView Output(int k) override;

  /** Patches that went through forward() so far, and the batches that they filled. */
  std::int64_t Evaluations() const { return m_Evaluations; }
  std::int64_t Forwards() const { return m_Forwards; }
  /** Batches of products with the Jacobian. */
  std::int64_t Pullbacks() const { return m_Pullbacks; }

private:
  /** A state that goes through the field: of slot n, of one date, with the other date as condition or without. */
  struct Subject
  {
    int n;
    int date;
    bool given;
  };
  /** A level, and what it makes of outputs. */
  struct Step
  {
    NoiseLevel level;
    FieldTerms terms;
  };
  struct Place2D
  {
    std::int64_t x = 0;
    std::int64_t y = 0;
  };

  Step StepAt(const NoiseLevel& level) const { return {level, TermsOf(m_Generative->kind, level)}; }
  std::vector<Step> Levels() const;
  const float* Data(int date, int n) const;
  Place2D CellOf(int n, int scale) const;
  double LogSnrStep() const;
  std::size_t Values() const { return m_Channels * m_Cells; }
  std::vector<Subject> Alone(int filled, bool bothDates) const;

  template <typename TPrepare, typename TConsume>
  void Batches(Predictor& network, bool counted, std::size_t count, TPrepare prepare, TConsume consume);
  template <typename TValueAt>
  void Feed(Predictor& network, int slot, const Subject& subject, const Step& step, TValueAt valueAt);

  void Encode(int filled);
  void DrawNoise(int n, int level, int draw, std::vector<float>& noise) const;
  void Velocity(Predictor& network, const std::vector<Subject>& subjects, const Step& step, const std::vector<float>& states, std::vector<float>& velocity,
                std::vector<float>* noise);
  void PixelErrors(const std::vector<Subject>& subjects, const std::vector<float>& states, int plane, int planesPerDate);
  void BeginScores(int filled, int side);
  double* Scores(int n, int plane) { return m_Scores.data() + (static_cast<std::size_t>(n) * m_PlaneCount + plane) * m_ScoreSide * m_ScoreSide; }
  void AddGaussian(const float* data, double* scores) const;
  int PlaneOf(int date, int planesPerDate) const;
  void FinishScores(int filled);

  void RunNoisy(int filled);
  void RunLatent(int filled);
  void RunLogLikelihood(int filled);
  void RunReconstruction(int filled);
  void RunRoundTrip(int filled);
  void RunMasked(int filled);
  void RunFeature(int filled);

  LikelihoodNetworks m_Networks;
  Predictor* m_Field = nullptr; ///< the one of m_Networks that is driven
  LikelihoodSettings m_Settings;
  std::optional<GenerativeSpec> m_Generative;
  std::optional<NoiseSchedule> m_Schedule;
  std::optional<MaskedSpec> m_Masked;
  std::vector<BandScaling> m_Scaling;
  KeyedRandom m_Random;
  int m_StateInput = 0;
  int m_TimeInput = -1;
  int m_ConditionInput = -1;
  int m_FlagInput = -1;
  int m_MaskInput = -1;
  int m_FieldOutput = 0;

  int m_Batch = 0;
  int m_Bands = 0; ///< of the image
  int m_Patch = 0;
  bool m_Encodes = false;
  int m_Channels = 0; ///< of what the field sees: bands or latents
  int m_Scale = 1;    ///< pixels to a side of a cell of it
  int m_Side = 0;
  std::size_t m_Cells = 0;
  int m_FeatureScale = 1;
  std::vector<float> m_Pixels[2];
  std::vector<float> m_Dequantised[2];
  std::vector<float> m_Latents[2];
  std::vector<Place2D> m_Places;
  std::vector<int> m_Dates; ///< that are scored: 1 (the second) in the forward direction, then 0

  int m_PlaneCount = 0;
  int m_ScoreSide = 0;
  std::vector<double> m_Scores;
  std::vector<float> m_Output;
  std::int64_t m_Evaluations = 0;
  std::int64_t m_Forwards = 0;
  std::int64_t m_Pullbacks = 0;
};

} // namespace dl
} // namespace otb

#endif
