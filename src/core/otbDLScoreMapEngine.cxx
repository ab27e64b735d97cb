/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLScoreMapEngine.h"

#include "otbDLError.h"
#include "otbDLGaussian.h"
#include "otbDLPairStatistics.h"
#include "otbDLParallel.h"
#include "otbDLStopwatch.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace otb
{
namespace dl
{


namespace
{

using Json = nlohmann::json;

constexpr float none = std::numeric_limits<float>::quiet_NaN();
constexpr std::size_t bins = 4096;
/** Rows that are scored at once, and the copies of a row that smoothing and joining planes take. */
constexpr std::int64_t mostRows = 256;
constexpr std::size_t copies = 14;
constexpr std::size_t quantileCount = 1025;

/** Where the share q of the counts is reached, in the units of the histogram. */
double HistogramQuantile(const ScoreHistogram& h, double q)
{
  const double wanted = q * static_cast<double>(h.Total());
  double below = 0.;
  for (std::size_t b = 0; b < h.counts.size(); ++b)
  {
    const auto here = static_cast<double>(h.counts[b]);
    if (here > 0. && below + here >= wanted)
    {
      return h.low + h.Width() * (static_cast<double>(b) + std::max(0., wanted - below) / here);
    }
    below += here;
  }
  return h.high;
}

ScoreHistogram Empty(double low, double high)
{
  ScoreHistogram h;
  h.low = low;
  h.high = high + (high > low ? 1e-6 * (high - low) : 1e-6); // the highest value lies in the last bin
  h.counts.assign(bins, 0);
  return h;
}

void Count(ScoreHistogram& h, double value)
{
  const double place = (value - h.low) / h.Width();
  ++h.counts[static_cast<std::size_t>(std::min<double>(bins - 1, std::max(0., place)))];
}

template <typename TFunction>
auto Parsed(const std::string& text, const std::string& origin, const char* what, TFunction f)
{
  try
  {
    return f(Json::parse(text));
  }
  catch (const Json::exception& e)
  {
    throw Error(std::string(what) + " \"" + origin + "\" cannot be read: " + e.what());
  }
}

/** One of each a group? */
void CheckMoments(const std::vector<double>& mean, const std::vector<double>& deviation, const char* what, const std::string& origin)
{
  if (mean.empty() || mean.size() != deviation.size() || !std::all_of(deviation.begin(), deviation.end(), [](double d) { return d > 0.; }))
  {
    throw Error(std::string(what) + " \"" + origin + "\" holds no usable means and standard deviations: make it again");
  }
}

/** What a row of scores adds up to. */
struct RowSums
{
  double sum = 0., squares = 0., count = 0.;
};

} // namespace

double ScoreCalibration::PValue(double score) const
{
  const auto n = static_cast<double>(count), last = static_cast<double>(quantiles.size() - 1);
  double below = 0.; // number of calibration pixels below the score: quantile k is that of rank k / last (n - 1), counted from 0
  if (score > quantiles.back())
  {
    below = n;
  }
  else if (score > quantiles.front())
  {
    const auto at = std::lower_bound(quantiles.begin(), quantiles.end(), score);
    const auto k = static_cast<std::size_t>(at - quantiles.begin());
    const double a = quantiles[k - 1], b = quantiles[k];
    below = (static_cast<double>(k - 1) + (score - a) / (b - a)) / last * (n - 1.);
  }
  return (1. + n - below) / (n + 1.);
}

std::string ScoreCalibration::ToJson() const
{
  return Json({{"settings", Json::parse(settings)}, {"mean", mean}, {"stddev", deviation}, {"quantiles", quantiles}, {"count", count}, {"block", block}})
      .dump(1);
}

ScoreCalibration ScoreCalibration::FromJson(const std::string& text, const std::string& origin)
{
  return Parsed(text, origin, "the calibration",
                [&](const Json& j)
                {
                  ScoreCalibration c;
                  c.settings = j.at("settings").dump();
                  c.mean = j.at("mean").get<std::vector<double>>();
                  c.deviation = j.at("stddev").get<std::vector<double>>();
                  c.quantiles = j.at("quantiles").get<std::vector<double>>();
                  c.count = j.at("count");
                  c.block = j.at("block");
                  if (c.quantiles.size() < 2 || c.count < 1 || !std::is_sorted(c.quantiles.begin(), c.quantiles.end()))
                  {
                    throw Error("the calibration \"" + origin + "\" holds no usable quantiles: make it again with -calibrate");
                  }
                  CheckMoments(c.mean, c.deviation, "the calibration", origin);
                  return c;
                });
}

std::string SceneFit::ToJson() const
{
  return Json({{"settings", Json::parse(settings)},
               {"score", score.empty() ? Json() : Json::parse(score)},
               {"mean", mean},
               {"stddev", deviation},
               {"null_middle", nullMiddle},
               {"null_stddev", nullDeviation},
               {"logarithm", logarithm},
               {"threshold", choice.threshold},
               {"rule", static_cast<int>(choice.rule)},
               {"reason", choice.reason}})
      .dump(1);
}

SceneFit SceneFit::FromJson(const std::string& text, const std::string& origin)
{
  return Parsed(text, origin, "the fit",
                [&](const Json& j)
                {
                  SceneFit f;
                  f.settings = j.at("settings").dump();
                  f.score = j.at("score").is_null() ? "" : j.at("score").dump();
                  f.mean = j.at("mean").get<std::vector<double>>();
                  f.deviation = j.at("stddev").get<std::vector<double>>();
                  CheckMoments(f.mean, f.deviation, "the fit", origin);
                  f.nullMiddle = j.at("null_middle");
                  f.nullDeviation = j.at("null_stddev");
                  f.logarithm = j.at("logarithm");
                  f.choice.threshold = j.at("threshold");
                  f.choice.rule = static_cast<ThresholdRule>(j.at("rule").get<int>());
                  f.choice.reason = j.at("reason");
                  return f;
                });
}

ScoreOperator::ScoreOperator(const std::vector<ScoreResult>& results)
{
  for (const auto result : results)
  {
    m_NoData.push_back(NoDataOf(result));
  }
}

float ScoreOperator::NoDataOf(ScoreResult result)
{
  switch (result)
  {
  case ScoreResult::Score:
    return -9999.f;
  case ScoreResult::PValue:
    return -1.f;
  default:
    return 255.f;
  }
}

ScoreMapEngine::ScoreMapEngine(std::shared_ptr<SceneScore> score, std::int64_t width, std::int64_t height, ScoreSettings settings, EngineSettings engine)
    : m_Score(std::move(score)), m_Image{0, 0, width, height}, m_Settings(std::move(settings)), m_Engine(std::move(engine)),
      m_Kernel(GaussianKernel(m_Settings.smooth))
{
}

std::vector<Region> ScoreMapEngine::Bands(std::int64_t height) const
{
  std::vector<Region> bands;
  for (std::int64_t y = 0; y < m_Image.y1; y += height)
  {
    bands.push_back({0, y, m_Image.x1, std::min(m_Image.y1, y + height)});
  }
  return bands;
}

/** Rows of which so many copies of floats fit into a share of the memory given. */
std::int64_t ScoreMapEngine::RowsOf(std::size_t planes) const
{
  const std::size_t row = planes * sizeof(float) * static_cast<std::size_t>(std::max<std::int64_t>(1, m_Image.x1));
  // Halves of the cells that scenes are scored in, so that few cells are cut.
  std::int64_t rows = mostRows;
  while (rows > 16 && static_cast<std::size_t>(rows) * row > m_Engine.readBytes)
  {
    rows /= 2;
  }
  return rows;
}

/** Smoothed average of a group's planes over some rows, and by how much the forward ones exceed the backward ones. */
void ScoreMapEngine::GroupPlanes(const PlaneFile& raw, const Region& rows, const ScoreGroup& group, std::vector<float>& mean,
                                 std::vector<float>& difference) const
{
  const std::int64_t radius = KernelRadius(m_Kernel);
  const Region wide{-radius, rows.y0 - radius, m_Image.x1 + radius, rows.y1 + radius};
  Region needed{0, 0, m_Image.x1, 0};
  MirroredInterval(wide.y0, wide.y1, m_Image.y1, needed.y0, needed.y1);
  const auto columns = MirroredOffsets(wide.x0, wide.x1, m_Image.x1, 0);
  const auto lines = MirroredOffsets(wide.y0, wide.y1, m_Image.y1, needed.y0);
  const std::size_t pixels = static_cast<std::size_t>(rows.Area());
  std::vector<float> read(static_cast<std::size_t>(needed.Area())), window(static_cast<std::size_t>(wide.Area())), smoothed;
  const auto sum = [&](const std::vector<int>& planes)
  {
    std::vector<float> total(pixels, 0.f);
    for (const int plane : planes)
    {
      raw.Read(plane, needed, read.data());
      for (std::size_t y = 0; y < lines.size(); ++y)
      {
        for (std::size_t x = 0; x < columns.size(); ++x)
        {
          window[y * columns.size() + x] = read[static_cast<std::size_t>(lines[y] * m_Image.x1 + columns[x])];
        }
      }
      SmoothScores(window, wide.Width(), wide.Height(), m_Kernel, smoothed);
      for (std::size_t p = 0; p < pixels; ++p)
      {
        total[p] += smoothed[p];
      }
    }
    for (auto& v : total)
    {
      v /= static_cast<float>(std::max<std::size_t>(1, planes.size()));
    }
    return total;
  };
  const auto forward = sum(group.forward), backward = sum(group.backward);
  mean.resize(pixels);
  difference.resize(pixels);
  for (std::size_t p = 0; p < pixels; ++p)
  {
    const bool both = !group.forward.empty() && !group.backward.empty();
    mean[p] = both ? .5f * (forward[p] + backward[p]) : group.forward.empty() ? backward[p] : forward[p];
    difference[p] = both ? forward[p] - backward[p] : 0.f;
  }
}

void ScoreMapEngine::Prepare(const Progress& progress)
{
  if (const auto known = m_Settings.fit           ? m_Settings.fit->mean.size()
                         : m_Settings.calibration ? m_Settings.calibration->mean.size()
                                                  : m_Settings.groups.size();
      known != m_Settings.groups.size())
  {
    throw Error("what is known of " + std::to_string(known) + " groups of scores does not go with the " + std::to_string(m_Settings.groups.size()) +
                " there are");
  }
  const auto part = [&](double from, double share) { return [&progress, from, share](double done) { progress ? progress(from + share * done) : void(); }; };
  {
    Stopwatch watch(m_Statistics.secondsPacking);
    if (m_Settings.fit && !m_Settings.fit->score.empty())
    {
      m_Score->LoadFit(m_Settings.fit->score);
    }
    else
    {
      m_Score->Fit(part(0., m_Settings.fitShare));
    }
  }
  m_File = std::make_unique<PlaneFile>(m_Image.x1, m_Image.y1, 2, m_Engine.spillDirectory);
  PlaneFile raw(m_Image.x1, m_Image.y1, m_Score->Planes(), m_Engine.spillDirectory);
  {
    Stopwatch watch(m_Statistics.secondsModel);
    const auto bands = Bands(RowsOf((static_cast<std::size_t>(m_Score->Planes()) + 1) / 2));
    std::vector<std::vector<float>> planes(static_cast<std::size_t>(m_Score->Planes()));
    for (std::size_t b = 0; b < bands.size(); ++b)
    {
      std::vector<float*> out;
      for (auto& plane : planes)
      {
        plane.assign(static_cast<std::size_t>(bands[b].Area()), none);
        out.push_back(plane.data());
      }
      const double from = m_Settings.fitShare + m_Settings.scoreShare * static_cast<double>(b) / static_cast<double>(bands.size());
      m_Score->Score(bands[b], out, part(from, m_Settings.scoreShare / static_cast<double>(bands.size())));
      for (std::size_t k = 0; k < planes.size(); ++k)
      {
        for (auto& v : planes[k])
        {
          v = std::isfinite(v) ? v : none;
        }
        raw.Write(static_cast<int>(k), bands[b], planes[k].data());
      }
    }
  }
  const auto own = m_Score->Statistics();
  const double deciding = m_Statistics.secondsDeciding, fitting = m_Statistics.secondsPacking, scoring = m_Statistics.secondsModel;
  m_Statistics = own;
  m_Statistics.secondsDeciding += deciding;
  m_Statistics.secondsPacking += fitting;
  if (own.secondsModel == 0.)
  {
    m_Statistics.secondsModel = scoring;
  }
  Stopwatch watch(m_Statistics.secondsDeciding);
  const double done = m_Settings.fitShare + m_Settings.scoreShare;

  // Group by group: how large, how spread?
  const auto bands = Bands(RowsOf(copies * static_cast<std::size_t>(std::max(1, m_Engine.threads))));
  const std::size_t groups = m_Settings.groups.size();
  m_Valid = 0; // an earlier attempt may have been stopped
  m_Fit.settings = m_Settings.fitDescription.empty() ? m_Settings.description : m_Settings.fitDescription;
  m_Fit.score = m_Score->SaveFit();
  m_Fit.mean.assign(groups, 0.);
  m_Fit.deviation.assign(groups, 1.);
  const bool known = m_Settings.fit || m_Settings.calibration;
  if (known)
  {
    m_Fit.mean = m_Settings.fit ? m_Settings.fit->mean : m_Settings.calibration->mean;
    m_Fit.deviation = m_Settings.fit ? m_Settings.fit->deviation : m_Settings.calibration->deviation;
  }
  for (std::size_t g = 0; g < groups && !known; ++g)
  {
    if (!m_Settings.groups[g].standardise)
    {
      continue;
    }
    // Row by row and then from the first row to the last: sums that do not know how many rows were looked at together.
    std::vector<RowSums> rows(static_cast<std::size_t>(m_Image.y1));
    const auto add = [&](const Region& band)
    {
      std::vector<float> mean, difference;
      GroupPlanes(raw, band, m_Settings.groups[g], mean, difference);
      const auto width = static_cast<std::size_t>(band.Width());
      for (std::size_t p = 0; p < mean.size(); ++p)
      {
        if (!std::isnan(mean[p]))
        {
          RowSums& row = rows[static_cast<std::size_t>(band.y0) + p / width];
          row.sum += mean[p];
          row.squares += static_cast<double>(mean[p]) * mean[p];
          row.count += 1.;
        }
      }
    };
    ParallelFor(static_cast<int>(bands.size()), m_Engine.threads, [&](int b) { add(bands[static_cast<std::size_t>(b)]); });
    double sum = 0., squares = 0., count = 0.;
    for (const auto& row : rows)
    {
      sum += row.sum;
      squares += row.squares;
      count += row.count;
    }
    m_Fit.mean[g] = count > 0. ? sum / count : 0.;
    const double variance = count > 0. ? squares / count - m_Fit.mean[g] * m_Fit.mean[g] : 0.;
    m_Fit.deviation[g] = variance > 0. ? std::sqrt(variance) : 1.;
  }

  // The score.
  struct Extent
  {
    double low = 0., high = 0.;
    std::int64_t valid = 0;
  };
  std::vector<Extent> extents(bands.size());
  const auto join = [&](int b)
  {
    const Region& band = bands[static_cast<std::size_t>(b)];
    const auto pixels = static_cast<std::size_t>(band.Area());
    std::vector<float> score(pixels, 0.f), lean(pixels, 0.f), mean, difference;
    for (std::size_t g = 0; g < groups; ++g)
    {
      const auto& group = m_Settings.groups[g];
      GroupPlanes(raw, band, group, mean, difference);
      const auto offset = static_cast<float>(m_Fit.mean[g]), divisor = static_cast<float>(m_Fit.deviation[g]), weight = static_cast<float>(group.weight);
      for (std::size_t p = 0; p < pixels; ++p)
      {
        score[p] += weight * ((mean[p] - offset) / divisor);
        lean[p] += weight * (difference[p] / divisor);
      }
    }
    Extent& extent = extents[static_cast<std::size_t>(b)];
    for (const float v : score)
    {
      if (!std::isnan(v))
      {
        extent.low = extent.valid == 0 ? v : std::min(extent.low, static_cast<double>(v));
        extent.high = extent.valid == 0 ? v : std::max(extent.high, static_cast<double>(v));
        ++extent.valid;
      }
    }
    m_File->Write(0, band, score.data());
    m_File->Write(1, band, lean.data());
  };
  const auto together = static_cast<std::size_t>(std::max(1, m_Engine.threads));
  for (std::size_t b = 0; b < bands.size(); b += together)
  {
    const auto count = std::min(together, bands.size() - b);
    ParallelFor(static_cast<int>(count), m_Engine.threads, [&](int k) { join(static_cast<int>(b) + k); });
    part(done, 1. - done)(.8 * static_cast<double>(b + count) / static_cast<double>(bands.size()));
  }
  for (const auto& extent : extents)
  {
    if (extent.valid > 0)
    {
      m_Low = m_Valid == 0 ? extent.low : std::min(m_Low, extent.low);
      m_High = m_Valid == 0 ? extent.high : std::max(m_High, extent.high);
      m_Valid += extent.valid;
    }
  }
  Learn();
  if (m_Settings.calibrationBlock > 0)
  {
    Calibrate();
  }
}

/** What the whole scene says of its scores. */
void ScoreMapEngine::Learn()
{
  if (m_Settings.fit)
  {
    m_Fit = *m_Settings.fit;
  }
  else if (m_Valid > 0)
  {
    // Lengths have long tails: the logarithm of what did not change is nearer to a Gaussian.
    m_Fit.logarithm = m_Low > 0.;
    const auto scale = [&](double v) { return m_Fit.logarithm ? std::log(v) : v; };
    const auto each = [&](const std::function<void(double)>& count)
    {
      std::vector<float> score;
      for (const auto& rows : Bands(RowsOf(4)))
      {
        score.resize(static_cast<std::size_t>(rows.Area()));
        m_File->Read(0, rows, score.data());
        for (const float v : score)
        {
          if (!std::isnan(v))
          {
            count(v);
          }
        }
      }
    };
    ScoreHistogram plain = Empty(m_Low, m_High), scaled = Empty(scale(m_Low), scale(m_High));
    each(
        [&](double v)
        {
          Count(plain, v);
          Count(scaled, scale(v));
        });
    // A few scores far away may leave the others a handful of bins: these are then counted again without them.
    for (int round = 0; round < 12 && m_Low < m_High && HistogramQuantile(scaled, .5) - HistogramQuantile(scaled, .1586553) < 32. * scaled.Width(); ++round)
    {
      const double width = scaled.Width(), low = HistogramQuantile(scaled, .01) - width, high = HistogramQuantile(scaled, .99) + width;
      if (!(low < high && high - low < .25 * (scaled.high - scaled.low)))
      {
        break;
      }
      scaled = Empty(low, high);
      each([&](double v) { Count(scaled, scale(v)); });
    }
    // The null distribution is told by the half of the pixels that hold least change (Efron, 2004).
    m_Fit.nullMiddle = HistogramQuantile(scaled, .5);
    m_Fit.nullDeviation = std::max(1e-12, m_Fit.nullMiddle - HistogramQuantile(scaled, .1586553));
    if (m_Settings.chooseThreshold && m_High > m_Low)
    {
      m_Fit.choice = m_Settings.chooseThreshold(plain);
    }
    else
    {
      m_Fit.choice.threshold = m_High;
      m_Fit.choice.reason = "all scores are equal: no change";
    }
  }
  m_Choice = m_Fit.choice;
  if (m_Settings.threshold)
  {
    m_Choice.threshold = *m_Settings.threshold;
    m_Choice.reason = "as given";
  }
}

/** One pixel a block, so that they hardly depend on each other. */
void ScoreMapEngine::Calibrate()
{
  std::vector<double> values;
  const std::int64_t side = m_Settings.calibrationBlock;
  std::vector<float> row(static_cast<std::size_t>(m_Image.x1));
  for (std::int64_t y = side / 2; y < m_Image.y1; y += side)
  {
    m_File->Read(0, {0, y, m_Image.x1, y + 1}, row.data());
    for (std::int64_t x = side / 2; x < m_Image.x1; x += side)
    {
      if (!std::isnan(row[static_cast<std::size_t>(x)]))
      {
        values.push_back(row[static_cast<std::size_t>(x)]);
      }
    }
  }
  if (values.size() < 20)
  {
    throw Error(Complaint("calibrate", "a pair with " + std::to_string(values.size()) + " valid pixels that are " + std::to_string(side) + " apart",
                          "at least 20, better thousands", "Calibrate on a larger pair without change."));
  }
  std::sort(values.begin(), values.end());
  m_Calibration.settings = m_Settings.description;
  m_Calibration.mean = m_Fit.mean;
  m_Calibration.deviation = m_Fit.deviation;
  m_Calibration.count = static_cast<std::int64_t>(values.size());
  m_Calibration.block = static_cast<int>(side);
  m_Calibration.quantiles.clear();
  for (std::size_t q = 0; q < quantileCount; ++q)
  {
    const double place = static_cast<double>(q) / static_cast<double>(quantileCount - 1) * static_cast<double>(values.size() - 1);
    const auto k = static_cast<std::size_t>(place);
    const double next = values[std::min(k + 1, values.size() - 1)];
    m_Calibration.quantiles.push_back(values[k] + (place - static_cast<double>(k)) * (next - values[k]));
  }
}

double ScoreMapEngine::PValue(double score) const
{
  if (m_Settings.calibration)
  {
    return m_Settings.calibration->PValue(score);
  }
  if (m_Settings.chiSquareDegrees > 0)
  {
    return ChiSquareTail(score * score, m_Settings.chiSquareDegrees);
  }
  const double value = m_Fit.logarithm ? (score > 0. ? std::log(score) : -std::numeric_limits<double>::infinity()) : score;
  return .5 * std::erfc((value - m_Fit.nullMiddle) / m_Fit.nullDeviation / std::sqrt(2.));
}

void ScoreMapEngine::Produce(const Region& region, const std::vector<ResultPlane>& results, const Progress& progress)
{
  if (!m_File)
  {
    try
    {
      Prepare(progress);
    }
    catch (...)
    {
      m_File.reset();
      throw;
    }
  }
  Stopwatch watch(m_Statistics.secondsDeciding);
  std::vector<float> score(static_cast<std::size_t>(region.Width())), lean(score.size());
  for (std::int64_t y = region.y0; y < region.y1; ++y)
  {
    m_File->Read(0, {region.x0, y, region.x1, y + 1}, score.data());
    m_File->Read(1, {region.x0, y, region.x1, y + 1}, lean.data());
    for (std::size_t r = 0; r < results.size(); ++r)
    {
      const ScoreResult kind = m_Settings.results[r];
      const float noData = ScoreOperator::NoDataOf(kind);
      float* out = results[r].data + (y - region.y0) * results[r].strideY;
      for (std::size_t x = 0; x < score.size(); ++x)
      {
        float value = noData;
        const float s = score[x];
        if (!std::isnan(s))
        {
          switch (kind)
          {
          case ScoreResult::Score:
            value = s == noData ? std::nextafter(s, 0.f) : s;
            break;
          case ScoreResult::PValue:
            value = static_cast<float>(std::min(300., std::max(0., -std::log10(std::max(PValue(s), 1e-300)))));
            break;
          case ScoreResult::Change:
            value = m_Settings.calibration && !m_Settings.threshold ? PValue(s) <= m_Settings.alpha : s > m_Choice.threshold;
            break;
          case ScoreResult::Which:
            value = lean[x] > 0.f ? 2.f : 1.f;
            break;
          }
        }
        out[static_cast<std::ptrdiff_t>(x) * results[r].strideX] = value;
      }
    }
  }
}

} // namespace dl
} // namespace otb
