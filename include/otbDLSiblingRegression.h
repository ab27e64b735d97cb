/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLSiblingRegression_h
#define otbDLSiblingRegression_h

#include <cstdint>
#include <vector>

namespace otb
{
namespace dl
{

/** Which pixels around one say what it should be, between two distances n (reach) and e (exclusion) of a member. */
enum class SiblingShape
{
  Corners, ///< e < |dx| <= n and e < |dy| <= n: four squares, as the authors' program has it
  Ring     ///< e < max(|dx|, |dy|) <= n: all around, as the paper draws it
};

/** The defaults are the authors' for Sentinel-2 (OSCD). */
struct SiblingRegressionSettings
{
  int reach = 200;   ///< pixels; the farthest neighbours are at most so far
  int members = 27;  ///< of the ensemble: reach - exclusion is cut into so many steps of a whole number of pixels
  int exclusion = 0; ///< pixels next to the one in question that no member uses
  SiblingShape shape = SiblingShape::Corners;
  int morphology = 5; ///< odd side in pixels of the square of each member's closing and opening; 1: none
  double factor = 1.; ///< times Otsu's thresholds
};

/** Values of a band that become black and white. */
struct SiblingRange
{
  double low = 0.;
  double high = 1.;
};

/** \class SiblingRegression
 * \brief SiROC (Kondmann et al., Spatial Context Awareness for Unsupervised Change Detection in Optical Satellite Images, IEEE TGRS, 2021): change is where a
 * pixel no longer relates to its distant neighbours as it did.
 *
 * Values become bytes, band by band and date by date. Each member of an ensemble has neighbours N of its own and predicts date 2 in a band b as
 * x1 sum_N x1 x2 / sum_N x1^2; its response is |x2 - prediction|, mean over bands, 0..1. Responses above the member's threshold (Otsu's, of the whole scene)
 * are closed and opened with a square; the score is the share of members that say change. At .5 or more the authors call it change.
 *
 * Two passes: Count() over all windows and Thresholds(), then Vote(). All sums are of integers: the same bits wherever a window begins and in whatever order
 * windows come. Stateless and thread-safe.
 *
 * Measured on 14 cities of OSCD (training set; red, green and blue of the registered pairs of bytes that come with it, ranges 0..255, defaults): AUROC .857,
 * average precision .215, best F1 .320, mean over cities; F1 .244 at .5, .243 with all cities' pixels together. With Ring .840/.188/.304; the mean with the
 * score of exchanged dates .878/.239/.349. On the bands of 10 m as they come, which lie up to a pixel apart, .84/.17/.27 whatever the range (percentiles
 * 0.1/99.9 to 2/98, by band or common): registration matters, the range does not. 1 to 3 microseconds a pixel, a pass and a core for 3 bands; 18 bytes a band
 * and a pixel of the window.
 *
 * What is not valid (clouds, what lies beyond the image) is no neighbour, no pixel of the square, and is not counted; the authors' borders of zeros come to the
 * same. A window that mirrors the image beyond its border and calls this valid works as well. A member without neighbours, or with black ones only, abstains.
 * Differences beyond 1 count as 1.
 * \ingroup OTBTorch
 */
class SiblingRegression
{
public:
  static constexpr int Bins = 256;
  static constexpr float NoData = -1.f;

  /** Responses in Bins equal bins of 0..1, one histogram a member. */
  using Histograms = std::vector<std::vector<std::int64_t>>;

  /** Both dates of a piece of the image. */
  struct Window
  {
    const float* date1 = nullptr; ///< bands one after the other, each row by row without gaps; not finite: not valid
    const float* date2 = nullptr;
    const unsigned char* valid = nullptr; ///< one a pixel, 0: not valid; null: all are
    std::int64_t width = 0;               ///< margins included
    std::int64_t height = 0;
  };

  /** \param date1, date2 one range a band
   * \throw Error for settings or ranges that cannot be */
  SiblingRegression(const SiblingRegressionSettings& settings, std::vector<SiblingRange> date1, std::vector<SiblingRange> date2);

  int Members() const { return static_cast<int>(m_Members.size()); }

  /** Pixels that a window has on each side beyond those that Count() counts. */
  int CountMargin() const { return m_Members.back().reach; }

  /** Pixels that a window has on each side beyond those that Vote() votes on. */
  int VoteMargin() const { return CountMargin() + MorphologyMargin(); }

  Histograms EmptyHistograms() const { return Histograms(m_Members.size(), std::vector<std::int64_t>(Bins, 0)); }

  /** Adds the responses of a window less CountMargin() on each side. */
  void Count(const Window& window, Histograms& histograms) const;

  /** Otsu's thresholds times the factor, one a member; one that no response exceeds where a histogram has less than two occupied bins. */
  std::vector<double> Thresholds(const Histograms& histograms) const;

  /** Scores of a window less VoteMargin() on each side, row by row: 0..1; NoData where a pixel is not valid; 0 where all members abstain. */
  void Vote(const Window& window, const std::vector<double>& thresholds, float* scores) const;

private:
  struct Member
  {
    int reach;
    int exclusion;
  };
  struct Sums;

  int MorphologyMargin() const { return 2 * (m_Settings.morphology - 1); }
  Sums Prepare(const Window& window, int margin) const;
  void Respond(const Sums& sums, const Member& member, std::vector<std::int32_t>& responses) const;

  SiblingRegressionSettings m_Settings;
  std::vector<Member> m_Members;
  std::vector<SiblingRange> m_Date1;
  std::vector<SiblingRange> m_Date2;
};

} // namespace dl
} // namespace otb

#endif
