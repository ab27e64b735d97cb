/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLClassification_h
#define otbDLClassification_h

#include "otbDLMapOperator.h"
#include "otbDLModelContract.h"

#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** A class of the map, made of one or several classes of the network. */
struct MapClass
{
  int label = 0;
  std::string name;
  std::string colour;       ///< RRGGBB, may be empty
  std::vector<int> members; ///< channels of the network
};

/** The classes of a map, ascending by label.
 * \param requests empty: the network's own. Else one entry a class to keep: "12" keeps class 12; "1:11+12" or "1:11+12:crops" merges classes 11 and 12 into
 * one of label 1. What is not named is left out: the others' probabilities are divided by their sum.
 * \throw Error for an entry that cannot be read, a class that the network does not have or that is named twice, a label that comes twice */
std::vector<MapClass> SelectClasses(const std::vector<ModelClass>& classes, const std::vector<std::string>& requests);

/** \class Classification
 * \brief Label, confidence, probabilities, embedding and uncertainty from the outputs of one network or an ensemble.
 *
 * Probabilities are softmax(logits / T), each network with its own T; those of an ensemble are the mean over its members. Entropy and mutual information are
 * divided by log K, so that they lie in 0..1. \ingroup OTBTorch
 */
class Classification : public MapOperator
{
public:
  enum Result
  {
    Label,
    Confidence,        ///< probability of the label, 0..1
    Probabilities,     ///< K bands, 0..1000, rounded
    Features,          ///< D bands
    QuantisedFeatures, ///< D bands: bytes of round(127.5 sign(f) sqrt|f|), f of unit length, as AlphaEarth's embeddings
    Entropy,           ///< of the probabilities, / log K
    Margin,            ///< between the two most probable classes
    MutualInformation, ///< of an ensemble: entropy of the mean minus mean of the entropies, / log K
    ValidDates         ///< one band a series
  };

  /** \param contract of the first member
   * \param temperatures one a network of the ensemble, one: no ensemble; each network brings contract.outputs.size() tensors
   * \param series how many series have their dates counted
   * \throw Error for results that the network does not give */
  Classification(const ModelContract& contract, std::vector<double> temperatures, std::vector<MapClass> classes, std::vector<Result> wanted, int noDataLabel,
                 int series);

  const std::vector<MapClass>& Classes() const { return m_Classes; }

  int ScoreChannels() const override;
  int CountChannels() const override { return m_Counted; }
  void Score(const std::vector<BatchView>& outputs, int n, const Region& part, float* scores) const override;
  int ResultChannels() const override { return static_cast<int>(m_NoData.size()); }
  std::vector<int> ResultBands() const override;
  const std::vector<float>& NoData() const override { return m_NoData; }
  std::vector<bool> DeclaresNoData() const override;
  void Decide(const float* scores, std::ptrdiff_t scoreStride, std::ptrdiff_t count, float* results, std::ptrdiff_t resultStride) const override;

private:
  int Bands(Result result) const;
  bool Wants(Result result) const;

  std::vector<MapClass> m_Classes;
  std::vector<int> m_Kept; ///< channels of the network that count, ascending
  std::vector<Result> m_Wanted;
  std::vector<float> m_NoData;
  int m_Members;
  int m_Outputs; ///< tensors of one member
  int m_ProbabilityIndex = -1;
  int m_EmbeddingIndex = -1;
  bool m_Logits = false;
  bool m_Scored = false;     ///< are probabilities needed?
  bool m_Restricted = false; ///< is a class of the network left out?
  int m_NetworkClasses = 0;
  int m_Dimensions = 0; ///< of the embedding, 0 when it is not wanted
  int m_Counted = 0;
  int m_Series = 0;
  std::vector<double> m_Temperatures;
};

} // namespace dl
} // namespace otb

#endif
