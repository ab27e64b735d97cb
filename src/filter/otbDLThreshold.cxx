/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLThreshold.h"

#include "otbDLError.h"

#include "itkHistogram.h"
#include "itkOtsuThresholdCalculator.h"

#include <algorithm>
#include <cmath>
#include <sstream>

namespace otb
{
namespace dl
{

namespace
{
using Counts = std::vector<std::int64_t>;

/** Values within a bin spread evenly over it: without their variance a single bin would be a class of none. In bins, squared. */
constexpr double withinBin = 1. / 12.;

/** Is `a` better than the best so far by more than rounding? The first of equal bins is to win on every machine. */
bool Exceeds(double a, double best)
{
  return a > best + 1e-12 * std::abs(best);
}

/** Bins are counted from the first occupied one to the last; what follows works on these, in units of bins. */
struct Occupied
{
  std::size_t first = 0;
  Counts counts;
};

Occupied Check(const ScoreHistogram& h)
{
  if (!(h.high > h.low) || !std::isfinite(h.high - h.low))
  {
    std::ostringstream range;
    range << h.low << " to " << h.high;
    throw Error(Complaint("threshold", "a histogram from " + range.str(), "a range", "Check the score for values that are not finite."));
  }
  const auto counted = [](std::int64_t c) { return c != 0; };
  if (std::any_of(h.counts.begin(), h.counts.end(), [](std::int64_t c) { return c < 0; }))
  {
    throw Error("threshold: a histogram with negative counts");
  }
  const auto begin = std::find_if(h.counts.begin(), h.counts.end(), counted);
  if (begin == h.counts.end())
  {
    throw Error(Complaint("threshold", "no valid pixel", "a score to choose a threshold from", "Check the no-data values and masks, or give the threshold."));
  }
  const auto end = std::find_if(h.counts.rbegin(), h.counts.rend(), counted).base();
  if (end - begin < 2)
  {
    const double value = h.low + h.Width() * (static_cast<double>(begin - h.counts.begin()) + .5);
    std::ostringstream found;
    found << "every pixel with about the same score, " << value << ",";
    throw Error(Complaint("threshold", found.str(), "scores that differ", "Give the threshold, or check that the two dates are not the same image."));
  }
  return {static_cast<std::size_t>(begin - h.counts.begin()), Counts(begin, end)};
}

/** Sums over bins 0..b, each: counts, positions, squares of positions, c ln c. Positions are those of centres. */
struct Sums
{
  double n = 0., x = 0., xx = 0., clogc = 0.;

  void Add(double c, double position)
  {
    n += c;
    x += c * position;
    xx += c * position * position;
    clogc += c > 0. ? c * std::log(c) : 0.;
  }
};

std::vector<Sums> Cumulate(const Counts& counts)
{
  std::vector<Sums> sums(counts.size());
  Sums s;
  for (std::size_t b = 0; b < counts.size(); ++b)
  {
    s.Add(static_cast<double>(counts[b]), static_cast<double>(b));
    sums[b] = s;
  }
  return sums;
}

Sums operator-(const Sums& a, const Sums& b)
{
  return {a.n - b.n, a.x - b.x, a.xx - b.xx, a.clogc - b.clogc};
}

struct Gaussian
{
  double weight = 0., mean = 0., variance = withinBin;
};

Gaussian Moments(const Sums& s, double total)
{
  const double mean = s.x / s.n;
  return {s.n / total, mean, std::max(0., s.xx / s.n - mean * mean) + withinBin};
}

/** The last bin of the lower class where a criterion of the two classes is greatest. */
template <typename TCriterion>
std::size_t Search(const Counts& counts, TCriterion criterion)
{
  const auto sums = Cumulate(counts);
  std::size_t best = 0;
  double value = criterion(sums[0], sums.back() - sums[0]);
  for (std::size_t b = 1; b + 1 < counts.size(); ++b)
  {
    // Empty bins would only repeat the value of the bin before, up to rounding.
    const double v = counts[b] ? criterion(sums[b], sums.back() - sums[b]) : value;
    if (Exceeds(v, value))
    {
      value = v;
      best = b;
    }
  }
  return best;
}

/** Sum of the entropies of the two classes. */
std::size_t Kapur(const Counts& counts)
{
  const auto entropy = [](const Sums& s) { return std::log(s.n) - s.clogc / s.n; };
  return Search(counts, [&](const Sums& a, const Sums& b) { return entropy(a) + entropy(b); });
}

std::size_t Kittler(const Counts& counts)
{
  const auto part = [](const Gaussian& g) { return g.weight * (.5 * std::log(g.variance) - std::log(g.weight)); };
  return Search(counts,
                [&](const Sums& a, const Sums& b)
                {
                  const double total = a.n + b.n;
                  return -(part(Moments(a, total)) + part(Moments(b, total)));
                });
}

std::size_t Otsu(const Counts& counts)
{
  using HistogramType = itk::Statistics::Histogram<double>;
  auto histogram = HistogramType::New();
  histogram->SetMeasurementVectorSize(1);
  HistogramType::SizeType size(1);
  size[0] = counts.size();
  histogram->Initialize(size);
  for (std::size_t b = 0; b < counts.size(); ++b)
  {
    histogram->SetBinMin(0, b, static_cast<double>(b));
    histogram->SetBinMax(0, b, static_cast<double>(b + 1));
    histogram->SetFrequency(b, static_cast<HistogramType::AbsoluteFrequencyType>(counts[b]));
  }
  auto calculator = itk::OtsuThresholdCalculator<HistogramType, double>::New();
  calculator->SetInput(histogram);
  calculator->Update();
  // The centre of the last bin of the lower class.
  return static_cast<std::size_t>(calculator->GetThreshold());
}

/** Last bin before the tail; -1 when the peak is the last bin. The chord runs from the peak to the empty bin after the tail; as it is one line, the longest
 * perpendicular is where the counts lie farthest below it. */
std::ptrdiff_t Rosin(const Counts& counts)
{
  const auto peak = std::max_element(counts.begin(), counts.end()) - counts.begin();
  const auto end = static_cast<std::ptrdiff_t>(counts.size());
  if (peak + 1 == end)
  {
    return -1;
  }
  const double height = static_cast<double>(counts[peak]), length = static_cast<double>(end - peak);
  std::ptrdiff_t best = peak;
  double farthest = 0.;
  for (std::ptrdiff_t b = peak + 1; b < end; ++b)
  {
    const double below = height * static_cast<double>(end - b) / length - static_cast<double>(counts[b]);
    if (Exceeds(below, farthest))
    {
      farthest = below;
      best = b;
    }
  }
  // At the very end of the tail nothing would be left above it.
  return std::min(best, end - 2);
}

struct Mixture
{
  Gaussian low, high;

  double Separation() const { return (high.mean - low.mean) / (std::sqrt(low.variance) + std::sqrt(high.variance)); }
};

/** From the two sides of Otsu's threshold on. */
Mixture Fit(const Counts& counts, std::size_t split)
{
  const auto sums = Cumulate(counts);
  const double total = sums.back().n;
  Gaussian g[2] = {Moments(sums[split], total), Moments(sums.back() - sums[split], total)};
  double before = -HUGE_VAL;
  for (int iteration = 0; iteration < 2000; ++iteration)
  {
    Sums s[2];
    double likelihood = 0.;
    const double logs[2] = {std::log(g[0].weight) - .5 * std::log(g[0].variance), std::log(g[1].weight) - .5 * std::log(g[1].variance)};
    for (std::size_t b = 0; b < counts.size(); ++b)
    {
      if (counts[b] == 0)
      {
        continue;
      }
      const double c = static_cast<double>(counts[b]), x = static_cast<double>(b);
      double p[2];
      for (int k = 0; k < 2; ++k)
      {
        p[k] = logs[k] - .5 * (x - g[k].mean) * (x - g[k].mean) / g[k].variance;
      }
      // As logarithms: far from both means the densities themselves are 0.
      const double top = std::max(p[0], p[1]), sum = std::exp(p[0] - top) + std::exp(p[1] - top);
      likelihood += c * (top + std::log(sum));
      for (int k = 0; k < 2; ++k)
      {
        s[k].Add(c * std::exp(p[k] - top) / sum, x);
      }
    }
    if (s[0].n < 1e-9 * total || s[1].n < 1e-9 * total)
    {
      break; // one has taken all
    }
    g[0] = Moments(s[0], total);
    g[1] = Moments(s[1], total);
    if (likelihood - before <= 1e-10 * std::abs(likelihood))
    {
      break;
    }
    before = likelihood;
  }
  if (g[1].mean < g[0].mean)
  {
    std::swap(g[0], g[1]);
  }
  return {g[0], g[1]};
}

/** Where the higher Gaussian overtakes the lower one, above the lower mean; NaN where it never does. */
double Crossing(const Mixture& m)
{
  // a x^2 + b x + c is the logarithm of low over high at x above the lower mean.
  const auto ln = [](const Gaussian& g) { return std::log(g.weight) - .5 * std::log(g.variance); };
  const double d = m.high.mean - m.low.mean;
  const double a = .5 / m.high.variance - .5 / m.low.variance, b = -d / m.high.variance, c = .5 * d * d / m.high.variance + ln(m.low) - ln(m.high);
  const double square = b * b - 4. * a * c;
  double first = std::nan(""), second = first;
  if (std::abs(a) * d * d < 1e-12 * std::abs(b * d))
  {
    first = -c / b;
  }
  else if (square >= 0.)
  {
    // Without the difference of two numbers that are nearly equal.
    const double q = -.5 * (b + std::copysign(std::sqrt(square), b));
    first = std::min(q / a, c / q);
    second = std::max(q / a, c / q);
  }
  for (const double root : {first, second})
  {
    // Falling: low wins below, high above.
    if (root > 0. && 2. * a * root + b <= 0.)
    {
      return m.low.mean + root;
    }
  }
  return std::nan("");
}

std::string Number(double value)
{
  std::ostringstream text;
  text.precision(3);
  text << value;
  return text.str();
}
} // namespace

ThresholdChoice ChooseThreshold(const ScoreHistogram& histogram, ThresholdRule rule)
{
  const auto [first, counts] = Check(histogram);
  ThresholdChoice choice;
  choice.rule = rule;
  const auto edge = [&, offset = first](std::size_t bin) { return histogram.Edge(offset + bin); };

  const std::string deviations = "2.5 standard deviations above the mean";
  if (rule == ThresholdRule::Auto || rule == ThresholdRule::Em)
  {
    const auto mixture = Fit(counts, Otsu(counts));
    choice.separation = mixture.Separation();
    const double crossing = Crossing(mixture);
    const std::string gaussians = "two Gaussians are " + Number(choice.separation) + " of their summed deviations apart";
    if (rule == ThresholdRule::Auto && choice.separation < 1.)
    {
      choice.rule = ThresholdRule::Deviation;
      choice.reason = "one mode (" + gaussians + "): " + deviations;
    }
    else if (crossing < static_cast<double>(counts.size() - 1))
    {
      choice.rule = ThresholdRule::Em;
      choice.reason = gaussians + ": where they cross";
      // Positions count from the centre of the first occupied bin.
      choice.threshold = histogram.low + histogram.Width() * (static_cast<double>(first) + .5 + crossing);
      return choice;
    }
    else
    {
      choice.rule = ThresholdRule::Rosin;
      choice.reason = gaussians + " but the higher one never prevails: the corner of the tail";
    }
  }
  if (choice.rule == ThresholdRule::Deviation)
  {
    const Gaussian all = Moments(Cumulate(counts).back(), Cumulate(counts).back().n);
    choice.threshold = histogram.low + histogram.Width() * (static_cast<double>(first) + .5 + all.mean + 2.5 * std::sqrt(all.variance));
    choice.reason = choice.reason.empty() ? deviations : choice.reason;
    return choice;
  }
  if (choice.rule == ThresholdRule::Rosin)
  {
    const auto bin = Rosin(counts);
    if (bin >= 0)
    {
      choice.threshold = edge(static_cast<std::size_t>(bin));
      choice.reason = choice.reason.empty() ? "the corner of the tail above the mode" : choice.reason;
      return choice;
    }
    choice.rule = ThresholdRule::Otsu;
    choice.reason = "no tail above the mode: Otsu's threshold";
  }
  switch (choice.rule)
  {
  case ThresholdRule::Kapur:
    choice.threshold = edge(Kapur(counts));
    choice.reason = "greatest entropy of the two classes";
    break;
  case ThresholdRule::Kittler:
    choice.threshold = edge(Kittler(counts));
    choice.reason = "least error of two Gaussians";
    break;
  default:
    choice.threshold = edge(Otsu(counts));
    choice.reason = choice.reason.empty() ? "greatest variance between the two classes" : choice.reason;
  }
  return choice;
}

const char* ToString(ThresholdRule rule)
{
  switch (rule)
  {
  case ThresholdRule::Auto:
    return "auto";
  case ThresholdRule::Deviation:
    return "deviation";
  case ThresholdRule::Rosin:
    return "rosin";
  case ThresholdRule::Em:
    return "em";
  case ThresholdRule::Otsu:
    return "otsu";
  case ThresholdRule::Kapur:
    return "kapur";
  default:
    return "kittler";
  }
}

} // namespace dl
} // namespace otb
