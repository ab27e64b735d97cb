/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLChangeDecision_h
#define otbDLChangeDecision_h

#include "otbDLMapOperator.h"
#include "otbDLModelContract.h"

namespace otb
{
namespace dl
{

/** \class ChangeDecision
 * \brief Change map, class maps and confidence from the heads of a two-date network.
 *
 * With class heads p1, p2 beside the change probability p, the joint posterior is made coherent:
 * P(no change) = 1 - p and P(i -> j) = p p1(i) p2(j) / (1 - sum_k p1(k) p2(k)) for i != j. A pixel is changed where p >= threshold; its classes are then
 * the most probable pair i != j, else the most probable common class, so that the three maps never contradict each other.
 *
 * From-to code: 0 = no change, 1 + i K + j = from class i to class j (positions in the contract's list, K classes).
 * A transition network may also say i -> i (change within a class); it keeps its code.
 *
 * Several predictions of a pixel (members of an ensemble, views of the patch) are averaged as probabilities. What they disagree about is their mutual
 * information with the model (Houlsby et al., 2011; Smith and Gal, UAI 2018): entropy of the mean minus mean entropy, in nats, of change or no change; with a
 * transition network, of no change and all transitions.
 * \ingroup OTBTorch
 */
class ChangeDecision : public MapOperator
{
public:
  /** The maps in the order of the result channels. */
  enum Result
  {
    Change,      ///< 0/1, or the from-to code
    Probability, ///< of change, 0..1
    Class1,      ///< value of the class at date 1
    Class2,      ///< value of the class at date 2
    Confidence,  ///< posterior probability of what Change says, 0..1; of several predictions with a second band, their mutual information
  };

  /** How the outputs of the network are read. */
  struct Settings
  {
    double threshold = .5;            ///< in (0, 1)
    std::vector<double> temperatures; ///< of each member of an ensemble; empty: one network, that of the contract
    int views = 1;                    ///< outputs of all members come this many times
    int window = 1;                   ///< side of the Gaussian window that probabilities are averaged with, pixels, odd; 1: none
  };

  /** \param wanted the results to make, in this order
   * \throw Error when the contract is not of a change detector, or has no classes while class maps are wanted */
  ChangeDecision(const ModelContract& contract, std::vector<Result> wanted, Settings settings);

  /** Of one network, one view, no window. */
  ChangeDecision(const ModelContract& contract, std::vector<Result> wanted, double threshold);

  /** Number of classes of a date, 0 for a binary network. */
  int Classes() const { return m_K; }

  /** No-data value of a result: one that no pixel can hold. */
  static float NoDataOf(Result result, int classes);

  int ScoreChannels() const override;
  void Score(const std::vector<BatchView>& outputs, int n, const Region& part, float* scores) const override;
  std::vector<float> Smoothing() const override { return m_Window; }
  int ResultChannels() const override { return static_cast<int>(m_NoData.size()); }
  std::vector<int> ResultBands() const override;
  const std::vector<float>& NoData() const override { return m_NoData; }
  void Decide(const float* scores, std::ptrdiff_t scoreStride, std::ptrdiff_t count, float* results, std::ptrdiff_t resultStride) const override;

private:
  enum class Head
  {
    Binary,    ///< change logits or probability alone
    Semantic,  ///< change and one class head a date
    Transition ///< one softmax over no change and K x K transitions
  };

  int NetworkChannels() const;
  void ScoreOne(const std::vector<BatchView>& outputs, std::size_t first, float temperature, int n, const Region& part, float* scores) const;
  float Entropy(const float* scores, std::ptrdiff_t stride) const;

  Head m_Head = Head::Binary;
  int m_K = 0;
  int m_ChangeIndex = -1; ///< positions in the contract's list of outputs
  int m_ClassIndex[2] = {-1, -1};
  bool m_ChangeIsProbability = false;
  std::vector<int> m_Values[2]; ///< class values of each date
  std::vector<Result> m_Wanted;
  std::vector<float> m_NoData;
  std::size_t m_Outputs = 0; ///< of one network
  std::vector<float> m_Temperatures;
  int m_Views;
  bool m_Mutual = false; ///< is the mutual information asked for?
  std::vector<float> m_Window;
  float m_Threshold;
};

} // namespace dl
} // namespace otb

#endif
