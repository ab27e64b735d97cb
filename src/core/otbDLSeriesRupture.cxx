/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLSeriesRupture.h"

#include "otbDLError.h"
#include "otbDLGaussian.h"
#include "otbDLParallel.h"
#include "otbDLStopwatch.h"

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <atomic>
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
using Matrix = Eigen::MatrixXd;

constexpr float none = std::numeric_limits<float>::quiet_NaN();

/** Series are long: small cells keep what is read at once small. */
constexpr std::int64_t cellSide = 64;
constexpr std::int64_t fitCells = 1024;
constexpr double ridge = 1e-3;

bool Usable(float v, SeriesMaskKind kind)
{
  if (std::isnan(v))
  {
    return false;
  }
  switch (kind)
  {
  case SeriesMaskKind::Invalid:
    return v == 0.f;
  case SeriesMaskKind::Valid:
    return v != 0.f;
  default:
    return v == 2.f || (v >= 4.f && v <= 7.f) || v == 11.f;
  }
}

std::int64_t ReadPixels(const SeriesScene& scene)
{
  // As read, and once more in order.
  return static_cast<std::int64_t>(scene.readBytes / (3 * sizeof(float) * static_cast<std::size_t>(scene.dates * scene.bands + 1)));
}

} // namespace

SeriesSource::SeriesSource(SeriesScene scene) : m_Scene(std::move(scene))
{
}

std::vector<InputNormalisation> SeriesSource::Inputs() const
{
  InputNormalisation n;
  const auto bands = static_cast<std::size_t>(m_Scene.bands);
  n.scaling.resize(bands);
  n.noData.assign(bands, 0.);
  n.hasNoData.assign(bands, false);
  return std::vector<InputNormalisation>(static_cast<std::size_t>(m_Scene.dates), n);
}

PixelBlock SeriesSource::Read(const Region& region)
{
  const PixelBlock from = m_Scene.pixels->Read(region);
  const std::ptrdiff_t width = region.Width(), height = region.Height(), pixels = width * height;
  const int bands = m_Scene.bands;
  m_Values.resize(static_cast<std::size_t>(m_Scene.dates * bands * pixels));
  PixelBlock block;
  block.region = region;
  block.mask = from.mask;
  block.bands.resize(static_cast<std::size_t>(m_Scene.dates));
  const int masks = static_cast<int>(from.bands.size()) - m_Scene.images;
  const auto copy = [&](int t)
  {
    const int place = m_Scene.order[t];
    const int image = m_Scene.images == 1 ? 0 : place, first = m_Scene.images == 1 ? place * bands : 0;
    const InputNormalisation& input = m_Scene.inputs[image];
    std::vector<std::uint8_t> valid;
    const PixelBlock own{region, {{from.bands[image].begin() + first, from.bands[image].begin() + first + bands}}, {}};
    InputNormalisation part;
    part.rule = input.rule;
    for (int b = 0; b < bands; ++b)
    {
      part.scaling.push_back({});
      part.noData.push_back(input.noData[first + b]);
      part.hasNoData.push_back(input.hasNoData[first + b]);
    }
    // The region lies inside the image: nothing is mirrored.
    PatchValidity(own, region, m_Scene.width, m_Scene.height, {part}, valid);
    const PlaneView* mask = masks == 0 ? nullptr : masks == 1 ? &from.bands[m_Scene.images][place] : &from.bands[m_Scene.images + place][0];
    for (std::ptrdiff_t y = 0; mask && y < height; ++y)
    {
      for (std::ptrdiff_t x = 0; x < width; ++x)
      {
        valid[y * width + x] = valid[y * width + x] && Usable(mask->data[y * mask->strideY + x * mask->strideX], m_Scene.mask);
      }
    }
    for (int b = 0; b < bands; ++b)
    {
      const PlaneView& plane = own.bands[0][b];
      float* out = m_Values.data() + (t * bands + b) * pixels;
      for (std::ptrdiff_t y = 0; y < height; ++y)
      {
        for (std::ptrdiff_t x = 0; x < width; ++x)
        {
          out[y * width + x] = valid[y * width + x] ? plane.data[y * plane.strideY + x * plane.strideX] : none;
        }
      }
      block.bands[t].push_back({out, 1, width});
    }
  };
  ParallelFor(m_Scene.dates, m_Scene.threads, copy);
  return block;
}

/** All dates of a cell and around it, standardised. */
struct SeriesScore::Cell
{
  Region region;
  std::vector<SceneWindow> dates;
};

SeriesScore::SeriesScore(SeriesScene scene, int reference)
    : m_Scene(std::move(scene)), m_Reference(reference > 0 ? reference : std::max(6, m_Scene.dates / 3)), m_Source(std::make_shared<SeriesSource>(m_Scene))
{
  for (const double sigma : {2., 4.})
  {
    m_Kernels.push_back(GaussianKernel(sigma));
  }
}

SeriesScore::~SeriesScore() = default;

void SeriesScore::Load(const SceneReader& reader, const Region& cell, Cell& data) const
{
  const int margin = KernelRadius(m_Kernels.back());
  const Region wide{cell.x0 - margin, cell.y0 - margin, cell.x1 + margin, cell.y1 + margin};
  data.region = cell;
  data.dates.resize(static_cast<std::size_t>(m_Scene.dates));
  for (int t = 0; t < m_Scene.dates; ++t)
  {
    const auto first = m_Scaling.begin() + t * m_Scene.bands;
    reader.Window(wide, t, t + 1, std::vector<BandScaling>(first, first + m_Scene.bands), data.dates[t]);
  }
}

/** Features of what was there at the beginning, one date left out (-1: none); known: is there anything? */
void SeriesScore::Context(const Cell& data, int without, std::vector<std::vector<float>>& features, std::vector<std::uint8_t>& known) const
{
  const int margin = KernelRadius(m_Kernels.back()), bands = m_Scene.bands;
  const std::ptrdiff_t wide = data.dates[0].width, tall = data.dates[0].height, width = data.region.Width(), height = data.region.Height();
  const std::ptrdiff_t plane = wide * tall;
  std::vector<float> composite(static_cast<std::size_t>(bands * plane), 0.f), weights(static_cast<std::size_t>(plane), 0.f), values, scratch;
  std::vector<int> used;
  for (std::ptrdiff_t p = 0; p < plane; ++p)
  {
    used.clear();
    int seen = 0;
    for (int t = 0; t < m_Scene.dates && seen < m_Reference; ++t)
    {
      if (data.dates[t].valid[p])
      {
        ++seen;
        if (t != without)
        {
          used.push_back(t);
        }
      }
    }
    if (used.empty())
    {
      continue;
    }
    weights[p] = 1.f;
    for (int b = 0; b < bands; ++b)
    {
      values.clear();
      for (const int t : used)
      {
        values.push_back(data.dates[t].planes[b * plane + p]);
      }
      const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
      std::nth_element(values.begin(), middle, values.end());
      float median = *middle;
      if (values.size() % 2 == 0)
      {
        median = .5f * (median + *std::max_element(values.begin(), middle));
      }
      composite[b * plane + p] = median;
    }
  }
  features.resize(static_cast<std::size_t>(bands) * (9 + m_Kernels.size()));
  known.assign(static_cast<std::size_t>(width * height), 0);
  for (std::ptrdiff_t y = 0; y < height; ++y)
  {
    for (std::ptrdiff_t x = 0; x < width; ++x)
    {
      known[y * width + x] = weights[(y + margin) * wide + x + margin] > 0.f;
    }
  }
  const auto inner = [&](const float* from, const std::vector<float>& kernel, std::vector<float>& out)
  {
    const int radius = KernelRadius(kernel), cut = margin - radius;
    std::vector<float> part(static_cast<std::size_t>((width + 2 * radius) * (height + 2 * radius)));
    for (std::ptrdiff_t y = 0; y < height + 2 * radius; ++y)
    {
      const float* line = from + (y + cut) * wide + cut;
      std::copy(line, line + width + 2 * radius, part.data() + y * (width + 2 * radius));
    }
    out.resize(static_cast<std::size_t>(width * height));
    Convolve(part.data(), width + 2 * radius, height + 2 * radius, kernel, scratch, out.data());
  };
  std::vector<std::vector<float>> sums(m_Kernels.size());
  for (std::size_t k = 0; k < m_Kernels.size(); ++k)
  {
    inner(weights.data(), m_Kernels[k], sums[k]);
  }
  std::size_t f = 0;
  for (int b = 0; b < bands; ++b)
  {
    const float* band = composite.data() + b * plane;
    for (int dy = -1; dy <= 1; ++dy)
    {
      for (int dx = -1; dx <= 1; ++dx, ++f)
      {
        features[f].resize(static_cast<std::size_t>(width * height));
        for (std::ptrdiff_t y = 0; y < height; ++y)
        {
          const float* line = band + (y + margin + dy) * wide + margin + dx;
          std::copy(line, line + width, features[f].data() + y * width);
        }
      }
    }
    for (std::size_t k = 0; k < m_Kernels.size(); ++k, ++f)
    {
      inner(band, m_Kernels[k], features[f]);
      for (std::size_t p = 0; p < features[f].size(); ++p)
      {
        features[f][p] /= std::max(sums[k][p], 1e-6f);
      }
    }
  }
}

void SeriesScore::Fit(const Progress& progress)
{
  SceneReader reader(m_Source, m_Source->Inputs(), m_Scene.width, m_Scene.height);
  m_Scaling = FitScaling(reader, m_Scene.clip, false, [&](double done) { progress(.2 * done); });
  const auto cells = SceneCells(m_Scene.width, m_Scene.height, fitCells, cellSide);
  const int margin = KernelRadius(m_Kernels.back()), bands = m_Scene.bands;
  const auto features = static_cast<Eigen::Index>(static_cast<std::size_t>(bands) * (9 + m_Kernels.size()) + 1);
  struct Sums
  {
    Matrix gram, cross;
    double squares = 0., weight = 0.;
  };
  std::vector<double> spread(static_cast<std::size_t>(m_Scene.dates), 0.);
  m_Weights.assign(static_cast<std::size_t>(m_Scene.dates), {});
  // Twice: the second time, what the first explains badly (changes, clouds that were missed) has little say (Cauchy's weights).
  for (int pass = 0; pass < 2; ++pass)
  {
    std::vector<Sums> total(static_cast<std::size_t>(m_Scene.dates), {Matrix::Zero(features, features), Matrix::Zero(features, bands), 0., 0.});
    for (std::size_t c = 0; c < cells.size(); ++c)
    {
      reader.Read(cells[c], margin);
      Cell data;
      Load(reader, cells[c], data);
      std::vector<std::vector<float>> context;
      std::vector<std::uint8_t> known;
      Context(data, -1, context, known);
      const std::ptrdiff_t width = cells[c].Width(), wide = data.dates[0].width, plane = wide * data.dates[0].height;
      // Dates do not depend on each other: any thread may take any date.
      const auto accumulate = [&](int t)
      {
        const SceneWindow& window = data.dates[t];
        std::vector<std::ptrdiff_t> drawn;
        for (std::size_t p = 0; p < known.size(); ++p)
        {
          const std::ptrdiff_t q = static_cast<std::ptrdiff_t>(p);
          if (known[p] && window.valid[(q / width + margin) * wide + q % width + margin])
          {
            drawn.push_back(q);
          }
        }
        const auto n = static_cast<Eigen::Index>(drawn.size());
        if (n == 0)
        {
          return;
        }
        Matrix a(features, n), y(bands, n);
        for (Eigen::Index i = 0; i < n; ++i)
        {
          const std::ptrdiff_t p = drawn[static_cast<std::size_t>(i)];
          for (Eigen::Index f = 0; f + 1 < features; ++f)
          {
            a(f, i) = context[static_cast<std::size_t>(f)][p];
          }
          a(features - 1, i) = 1.;
          for (int b = 0; b < bands; ++b)
          {
            y(b, i) = window.planes[b * plane + (p / width + margin) * wide + p % width + margin];
          }
        }
        if (pass > 0)
        {
          const Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>> w(m_Weights[t].data(), features, bands);
          const Matrix residual = y - w.cast<double>().transpose() * a;
          for (Eigen::Index i = 0; i < n; ++i)
          {
            const double share = 1. / (1. + residual.col(i).squaredNorm() / (spread[t] + 1e-12));
            a.col(i) *= std::sqrt(share);
            y.col(i) *= std::sqrt(share);
            total[t].weight += share;
          }
        }
        else
        {
          total[t].weight += static_cast<double>(n);
        }
        total[t].gram.selfadjointView<Eigen::Lower>().rankUpdate(a);
        total[t].cross.noalias() += a * y.transpose();
        total[t].squares += y.squaredNorm();
      };
      ParallelFor(m_Scene.dates, m_Scene.threads, accumulate);
      progress(.2 + .4 * (pass + static_cast<double>(c + 1) / static_cast<double>(cells.size())));
    }
    for (int t = 0; t < m_Scene.dates; ++t)
    {
      const double n = std::max(1e-9, total[t].weight);
      const Matrix plain = Matrix(total[t].gram.selfadjointView<Eigen::Lower>()) / n, cross = total[t].cross / n;
      Matrix gram = plain;
      gram.diagonal().array() += ridge;
      gram(features - 1, features - 1) -= ridge - 1e-12;
      const Matrix weights = gram.ldlt().solve(cross);
      spread[t] = std::max(0., total[t].squares / n - 2. * (weights.transpose() * cross).trace() + (weights.transpose() * plain * weights).trace());
      m_Weights[t].resize(static_cast<std::size_t>(features * bands));
      for (Eigen::Index f = 0; f < features; ++f)
      {
        for (int b = 0; b < bands; ++b)
        {
          m_Weights[t][static_cast<std::size_t>(f * bands + b)] = total[t].weight > 0. ? static_cast<float>(weights(f, b)) : 0.f;
        }
      }
    }
  }
}

std::string SeriesScore::SaveFit() const
{
  Json scaling = Json::array();
  for (const auto& s : m_Scaling)
  {
    scaling.push_back({s.low, s.high, s.offset, s.divisor});
  }
  return Json({{"method", "series"}, {"scaling", scaling}, {"weights", m_Weights}}).dump();
}

void SeriesScore::LoadFit(const std::string& text)
{
  try
  {
    const Json j = Json::parse(text);
    m_Scaling.clear();
    for (const auto& s : j.at("scaling"))
    {
      m_Scaling.push_back({s.at(0), s.at(1), s.at(2), s.at(3)});
    }
    m_Weights = j.at("weights").get<std::vector<std::vector<float>>>();
  }
  catch (const Json::exception& e)
  {
    throw Error(std::string("what was learnt cannot be read: ") + e.what());
  }
  const std::size_t features = static_cast<std::size_t>(m_Scene.bands) * (9 + m_Kernels.size()) + 1;
  bool good = m_Scaling.size() == static_cast<std::size_t>(m_Scene.dates * m_Scene.bands) && m_Weights.size() == static_cast<std::size_t>(m_Scene.dates);
  for (const auto& w : m_Weights)
  {
    good = good && w.size() == features * static_cast<std::size_t>(m_Scene.bands);
  }
  if (!good)
  {
    throw Error("what was learnt is of another number of dates or bands than this series has");
  }
}

void SeriesScore::Score(const Region& region, const std::vector<float*>& planes, const Progress& progress)
{
  SceneReader reader(m_Source, m_Source->Inputs(), m_Scene.width, m_Scene.height);
  const int margin = KernelRadius(m_Kernels.back()), bands = m_Scene.bands;
  const auto score = [&](const Region& cell)
  {
    Cell data;
    Load(reader, cell, data);
    const std::ptrdiff_t width = cell.Width(), pixels = cell.Area(), wide = data.dates[0].width, plane = wide * data.dates[0].height;
    std::vector<std::vector<float>> all, without;
    std::vector<std::uint8_t> knownAll, knownWithout;
    Context(data, -1, all, knownAll);
    std::vector<float> predicted(static_cast<std::size_t>(bands * pixels));
    for (int t = 0; t < m_Scene.dates; ++t)
    {
      const SceneWindow& window = data.dates[t];
      // A date that is part of the reference anywhere near does not explain itself.
      bool part = false;
      for (std::ptrdiff_t p = 0; p < plane && !part; ++p)
      {
        if (window.valid[p])
        {
          int before = 0;
          for (int s = 0; s < t; ++s)
          {
            before += data.dates[s].valid[p];
          }
          part = before < m_Reference;
        }
      }
      if (part)
      {
        Context(data, t, without, knownWithout);
      }
      const auto& context = part ? without : all;
      const auto& known = part ? knownWithout : knownAll;
      const auto& w = m_Weights[t];
      for (int b = 0; b < bands; ++b)
      {
        float* to = predicted.data() + b * pixels;
        std::fill(to, to + pixels, w[context.size() * static_cast<std::size_t>(bands) + static_cast<std::size_t>(b)]);
        for (std::size_t f = 0; f < context.size(); ++f)
        {
          const float factor = w[f * static_cast<std::size_t>(bands) + static_cast<std::size_t>(b)];
          for (std::ptrdiff_t p = 0; p < pixels; ++p)
          {
            to[p] += factor * context[f][p];
          }
        }
      }
      for (std::ptrdiff_t p = 0; p < pixels; ++p)
      {
        const std::ptrdiff_t inside = (p / width + margin) * wide + p % width + margin;
        float value = none;
        if (window.valid[inside] && known[p])
        {
          float squares = 0.f;
          for (int b = 0; b < bands; ++b)
          {
            const float r = window.planes[b * plane + inside] - predicted[b * pixels + p];
            squares += r * r;
          }
          value = std::sqrt(squares);
        }
        planes[t][(cell.y0 - region.y0 + p / width) * region.Width() + cell.x0 - region.x0 + p % width] = value;
      }
    }
  };
  ForCells(
      region, ReadPixels(m_Scene), m_Scene.threads, [&](const Region& part) { reader.Read(part, margin); }, score, progress, cellSide);
}

SeriesOperator::SeriesOperator(std::vector<SeriesResult> results) : m_Results(std::move(results))
{
  for (const auto result : m_Results)
  {
    m_NoData.insert(m_NoData.end(), static_cast<std::size_t>(BandsOf(result)), NoDataOf(result));
  }
}

std::vector<int> SeriesOperator::ResultBands() const
{
  std::vector<int> bands;
  for (const auto result : m_Results)
  {
    bands.push_back(BandsOf(result));
  }
  return bands;
}

int SeriesOperator::BandsOf(SeriesResult result)
{
  return result == SeriesResult::Rupture ? 4 : result == SeriesResult::Alarm ? 6 : 1;
}

float SeriesOperator::NoDataOf(SeriesResult result)
{
  return result == SeriesResult::Change ? 255.f : -1.f;
}

RuptureMapEngine::RuptureMapEngine(std::shared_ptr<SceneScore> score, std::int64_t width, std::int64_t height, RuptureMapSettings settings,
                                   EngineSettings engine)
    : m_Score(std::move(score)), m_Image{0, 0, width, height}, m_Settings(std::move(settings)), m_Engine(std::move(engine)),
      m_Kernel(GaussianKernel(m_Settings.smooth))
{
}

void RuptureMapEngine::Prepare(const Progress& progress)
{
  const int dates = m_Score->Planes();
  m_Score->Fit([&](double done) { progress ? progress(.3 * done) : void(); });
  m_File = std::make_unique<PlaneFile>(m_Image.x1, m_Image.y1, dates, m_Engine.spillDirectory);
  // Rows of all dates at once: as many as a share of memory holds.
  const std::int64_t rows = std::max<std::int64_t>(
      cellSide, static_cast<std::int64_t>(m_Engine.readBytes / (sizeof(float) * static_cast<std::size_t>(dates * m_Image.x1))) / cellSide * cellSide);
  std::vector<std::vector<float>> planes(static_cast<std::size_t>(dates));
  for (std::int64_t y = 0; y < m_Image.y1; y += rows)
  {
    const Region part{0, y, m_Image.x1, std::min(m_Image.y1, y + rows)};
    std::vector<float*> out;
    for (auto& plane : planes)
    {
      plane.assign(static_cast<std::size_t>(part.Area()), none);
      out.push_back(plane.data());
    }
    m_Score->Score(part, out,
                   [&](double done)
                   {
                     if (progress)
                     {
                       progress(.3 + .5 * (static_cast<double>(part.y0) + done * static_cast<double>(part.Height())) / static_cast<double>(m_Image.y1));
                     }
                   });
    for (int t = 0; t < dates; ++t)
    {
      m_File->Write(t, part, planes[t].data());
    }
  }
}

/** Scores of a date, smoothed. */
void RuptureMapEngine::Smoothed(int date, const Region& part, std::vector<float>& scores) const
{
  const int radius = KernelRadius(m_Kernel);
  const Region wide{part.x0 - radius, part.y0 - radius, part.x1 + radius, part.y1 + radius};
  Region needed;
  MirroredInterval(wide.x0, wide.x1, m_Image.x1, needed.x0, needed.x1);
  MirroredInterval(wide.y0, wide.y1, m_Image.y1, needed.y0, needed.y1);
  const auto columns = MirroredOffsets(wide.x0, wide.x1, m_Image.x1, needed.x0), lines = MirroredOffsets(wide.y0, wide.y1, m_Image.y1, needed.y0);
  std::vector<float> read(static_cast<std::size_t>(needed.Area())), window(static_cast<std::size_t>(wide.Area()));
  m_File->Read(date, needed, read.data());
  for (std::size_t y = 0; y < lines.size(); ++y)
  {
    for (std::size_t x = 0; x < columns.size(); ++x)
    {
      window[y * columns.size() + x] = read[static_cast<std::size_t>(lines[y] * needed.Width() + columns[x])];
    }
  }
  SmoothScores(window, wide.Width(), wide.Height(), m_Kernel, scores);
}

/** A score among those of its date: noise, haze and the season's contrast make all pixels of a date more or less unusual, and none of them a rupture. */
float RuptureMapEngine::Unusual(float score, int date) const
{
  return static_cast<float>((std::log(std::max(score, 1e-6f)) - m_Middle[date]) / m_Deviation[date]);
}

/** Median and lower half of the logarithm of each date's scores, in cells drawn by their place. */
void RuptureMapEngine::Level()
{
  const int dates = m_Score->Planes();
  m_Middle.assign(static_cast<std::size_t>(dates), 0.);
  m_Deviation.assign(static_cast<std::size_t>(dates), 1.);
  const auto cells = SceneCells(m_Image.x1, m_Image.y1, 256, cellSide);
  const auto level = [&](int t)
  {
    std::vector<float> values, scores;
    for (const auto& cell : cells)
    {
      Smoothed(t, cell, scores);
      for (const float v : scores)
      {
        if (!std::isnan(v))
        {
          values.push_back(std::log(std::max(v, 1e-6f)));
        }
      }
    }
    if (values.size() < 16)
    {
      return;
    }
    const auto at = [&](double share)
    {
      const auto k = static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1));
      std::nth_element(values.begin(), values.begin() + k, values.end());
      return static_cast<double>(values[static_cast<std::size_t>(k)]);
    };
    m_Middle[t] = at(.5);
    m_Deviation[t] = std::max(1e-3, m_Middle[t] - at(.1586553));
  };
  ParallelFor(dates, m_Engine.threads, level);
}

void RuptureMapEngine::Produce(const Region& region, const std::vector<ResultPlane>& results, const Progress& progress)
{
  if (!m_File)
  {
    try
    {
      Stopwatch watch(m_Statistics.secondsModel);
      Prepare(progress);
      Level();
    }
    catch (...)
    {
      m_File.reset();
      throw;
    }
  }
  Stopwatch watch(m_Statistics.secondsDeciding);
  const RuptureDetector detector(m_Settings.rupture, KeyedRandom(m_Settings.seed, 0x52));
  const int dates = m_Score->Planes();
  constexpr std::int64_t side = 64; // enough to keep all threads busy, little enough to hold all dates
  std::atomic<std::int64_t> seen{0}, alarms{0};
  for (std::int64_t y0 = region.y0; y0 < region.y1; y0 += side)
  {
    std::vector<Region> parts;
    for (std::int64_t x0 = region.x0; x0 < region.x1; x0 += side)
    {
      parts.push_back({x0, y0, std::min(region.x1, x0 + side), std::min(region.y1, y0 + side)});
    }
    const auto work = [&](int k)
    {
      const Region& part = parts[k];
      std::vector<std::vector<float>> scores(static_cast<std::size_t>(dates));
      for (int t = 0; t < dates; ++t)
      {
        Smoothed(t, part, scores[t]);
        for (auto& v : scores[t])
        {
          v = Unusual(v, t);
        }
      }
      std::vector<float> series(static_cast<std::size_t>(dates));
      for (std::int64_t p = 0; p < part.Area(); ++p)
      {
        for (int t = 0; t < dates; ++t)
        {
          series[t] = scores[t][static_cast<std::size_t>(p)];
        }
        const std::int64_t x = part.x0 + p % part.Width(), y = part.y0 + p / part.Width();
        const RuptureResult found = detector.Detect(series, x, y);
        seen += found.valid > 0;
        alarms += found.martingaleAlarm >= 0;
        const auto year = [&](int date) { return date < 0 ? 0.f : static_cast<float>(m_Settings.years[date]); };
        // The split names the last date before; the first valid one after it is what a user looks for.
        int after = -1;
        for (int t = found.rupture + 1; found.rupture >= 0 && t < dates && after < 0; ++t)
        {
          after = std::isnan(series[t]) ? -1 : t;
        }
        std::size_t plane = 0;
        for (const SeriesResult result : m_Settings.results)
        {
          float values[6] = {};
          switch (result)
          {
          case SeriesResult::Score:
            values[0] = found.cusum;
            break;
          case SeriesResult::PValue:
            values[0] = -std::log10(found.pvalue);
            break;
          case SeriesResult::Change:
            values[0] = found.martingaleAlarm >= 0;
            break;
          case SeriesResult::Rupture:
            values[0] = static_cast<float>(after + 1);
            values[1] = year(after);
            values[2] = found.statistic;
            values[3] = static_cast<float>(found.valid);
            break;
          case SeriesResult::Alarm:
            values[0] = static_cast<float>(found.alarm + 1);
            values[1] = year(found.alarm);
            values[2] = year(found.onset);
            values[3] = found.cusum;
            values[4] = static_cast<float>(found.martingaleAlarm + 1);
            values[5] = found.logMartingale / std::log(10.f);
            break;
          }
          for (int b = 0; b < SeriesOperator::BandsOf(result); ++b, ++plane)
          {
            results[plane].data[(y - region.y0) * results[plane].strideY + (x - region.x0) * results[plane].strideX] =
                found.valid > 0 ? values[b] : SeriesOperator::NoDataOf(result);
          }
        }
      }
    };
    ParallelFor(static_cast<int>(parts.size()), m_Engine.threads, work);
    if (progress)
    {
      progress(.8 + .2 * static_cast<double>(std::min(region.y1, y0 + side)) / static_cast<double>(m_Image.y1));
    }
  }
  m_Pixels += seen;
  m_Alarms += alarms;
}

} // namespace dl
} // namespace otb
