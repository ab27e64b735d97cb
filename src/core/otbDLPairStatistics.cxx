/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLPairStatistics.h"

#include "otbDLError.h"
#include "otbDLGaussian.h"
#include "otbDLKeyedRandom.h"
#include "otbDLParallel.h"

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <Eigen/Eigenvalues>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <utility>

namespace otb
{
namespace dl
{

namespace
{

using Json = nlohmann::json;
using Matrix = Eigen::MatrixXd;
using Vector = Eigen::VectorXd;

constexpr float none = std::numeric_limits<float>::quiet_NaN();

/** Cells that a fit looks at, and the pixels that it draws in them. */
constexpr std::int64_t fitCells = 256;
constexpr double fitPixels = 1e6;

SceneReader ReaderOf(const PairScene& scene)
{
  return SceneReader(scene.pixels, scene.inputs, scene.width, scene.height);
}

int BandsOf(const PairScene& scene, int date)
{
  return static_cast<int>(scene.inputs[date].scaling.size());
}

/** Pixels that may be read at once: of both dates, as floats, and once more on their way through the readers. */
std::int64_t ReadPixels(const PairScene& scene)
{
  const std::size_t each = 2 * sizeof(float) * static_cast<std::size_t>(BandsOf(scene, 0) + BandsOf(scene, 1));
  return static_cast<std::int64_t>(scene.readBytes / each);
}

void CheckSameBands(const PairScene& scene, const char* estimator)
{
  if (BandsOf(scene, 0) != BandsOf(scene, 1))
  {
    throw Error(
        Complaint("estimator", std::string(estimator) + " with " + std::to_string(BandsOf(scene, 0)) + " and " + std::to_string(BandsOf(scene, 1)) + " bands",
                  "as many bands in in2 as in in1", "Choose bands with \"image.tif?&bands=1,2,3\", or use -estimator regress, which needs no equal bands."));
  }
}

/** Draws pixels of a fit. */
class PixelDraw
{
public:
  explicit PixelDraw(const std::vector<Region>& cells)
  {
    double area = 0.;
    for (const auto& cell : cells)
    {
      area += static_cast<double>(cell.Area());
    }
    m_Rate = std::min(1., fitPixels / area);
  }
  bool operator()(std::int64_t x, std::int64_t y) const { return m_Rate >= 1. || m_Random.Uniform(x, y, 0, 0) < m_Rate; }

private:
  KeyedRandom m_Random{0, 0xF17};
  double m_Rate = 1.;
};

Json ToJson(const std::vector<BandScaling>& scaling)
{
  Json all = Json::array();
  for (const auto& s : scaling)
  {
    all.push_back({{"low", s.low}, {"high", s.high}, {"mean", s.offset}, {"stddev", s.divisor}});
  }
  return all;
}

std::vector<BandScaling> ScalingFrom(const Json& all, std::size_t bands)
{
  std::vector<BandScaling> scaling;
  for (const auto& s : all)
  {
    // JSON has no infinity: null where a scene without data set no limits.
    BandScaling own;
    own.low = s.at("low").is_null() ? own.low : s.at("low").get<double>();
    own.high = s.at("high").is_null() ? own.high : s.at("high").get<double>();
    own.offset = s.at("mean");
    own.divisor = s.at("stddev");
    scaling.push_back(own);
  }
  if (scaling.size() != bands)
  {
    throw Error("what was learnt is of " + std::to_string(scaling.size()) + " bands, these dates have " + std::to_string(bands));
  }
  return scaling;
}

Json ToJson(const Matrix& m)
{
  Json rows = Json::array();
  for (Eigen::Index r = 0; r < m.rows(); ++r)
  {
    Json row = Json::array();
    for (Eigen::Index c = 0; c < m.cols(); ++c)
    {
      row.push_back(m(r, c));
    }
    rows.push_back(row);
  }
  return rows;
}

Matrix MatrixFrom(const Json& rows, Eigen::Index height, Eigen::Index width)
{
  Matrix m(height, width);
  if (static_cast<Eigen::Index>(rows.size()) != height)
  {
    throw Error("what was learnt has another size than these dates and settings give");
  }
  for (Eigen::Index r = 0; r < height; ++r)
  {
    if (static_cast<Eigen::Index>(rows.at(r).size()) != width)
    {
      throw Error("what was learnt has another size than these dates and settings give");
    }
    for (Eigen::Index c = 0; c < width; ++c)
    {
      m(r, c) = rows.at(r).at(c);
    }
  }
  return m;
}

/** Reads what another run learnt: of the same method, else an error. */
Json ParseFit(const std::string& text, const std::string& method)
{
  const Json j = Json::parse(text, nullptr, false);
  if (j.is_discarded() || !j.is_object() || j.value("method", "") != method)
  {
    throw Error("it is not what -estimator " + method + " learnt");
  }
  return j;
}

/** Tells whoever listens how far a part of the work, which begins at `from`, is. */
void Tell(const SceneScore::Progress& progress, double from, double share, double done)
{
  if (progress)
  {
    progress(from + share * done);
  }
}

template <typename TFunction>
void Reading(TFunction f)
{
  try
  {
    f();
  }
  catch (const Json::exception& e)
  {
    throw Error(std::string("what was learnt cannot be read: ") + e.what());
  }
}

} // namespace

// ---- regression

/** One date given the other. */
struct PairRegression::Direction
{
  Matrix weights;            ///< features x bands of the target
  Matrix covariance;         ///< of the residuals
  Eigen::MatrixXf compact;   ///< weights as they are used
  Eigen::MatrixXf whitening; ///< L^-1 of the covariance
  void Settle()
  {
    compact = weights.cast<float>();
    const Matrix steady = covariance + 1e-9 * Matrix::Identity(covariance.rows(), covariance.cols());
    whitening = steady.llt().matrixL().solve(Matrix::Identity(covariance.rows(), covariance.cols())).cast<float>();
  }
};

PairRegression::PairRegression(PairScene scene, RegressionSettings settings) : m_Scene(std::move(scene)), m_Settings(std::move(settings))
{
  for (const double sigma : m_Settings.sigmas)
  {
    m_Kernels.push_back(GaussianKernel(sigma));
  }
}

PairRegression::~PairRegression() = default;

int PairRegression::Bands(int date) const
{
  return BandsOf(m_Scene, date);
}

int PairRegression::Margin() const
{
  int margin = 1;
  for (const auto& kernel : m_Kernels)
  {
    margin = std::max(margin, KernelRadius(kernel));
  }
  return margin;
}

SceneReader PairRegression::MakeReader() const
{
  return ReaderOf(m_Scene);
}

/** Features of a window (width x height, the margin apart), plane by plane: neighbours and means of each band. */
void PairRegression::Context(const float* planes, int bands, const SceneWindow& window, std::ptrdiff_t width, std::ptrdiff_t height,
                             std::vector<std::vector<float>>& features) const
{
  const int margin = Margin();
  const std::ptrdiff_t stride = window.width, plane = window.width * window.height;
  std::vector<float> weights(window.valid.begin(), window.valid.end()), scratch;
  std::vector<std::vector<float>> sums(m_Kernels.size());
  const auto inner = [&](const float* from, const std::vector<float>& kernel, std::vector<float>& out)
  {
    // The window is cut to what this kernel looks at.
    const int radius = KernelRadius(kernel), cut = margin - radius;
    std::vector<float> part(static_cast<std::size_t>((width + 2 * radius) * (height + 2 * radius)));
    for (std::ptrdiff_t y = 0; y < height + 2 * radius; ++y)
    {
      const float* line = from + (y + cut) * stride + cut;
      std::copy(line, line + width + 2 * radius, part.data() + y * (width + 2 * radius));
    }
    out.resize(static_cast<std::size_t>(width * height));
    Convolve(part.data(), width + 2 * radius, height + 2 * radius, kernel, scratch, out.data());
  };

  for (std::size_t k = 0; k < m_Kernels.size(); ++k)
  {
    // Computed even where all is valid: a weight that rounds to 1 - 1e-7 must do so in every window.
    inner(weights.data(), m_Kernels[k], sums[k]);
  }

  features.resize(static_cast<std::size_t>(bands) * (9 + m_Kernels.size()));
  std::size_t f = 0;
  for (int b = 0; b < bands; ++b)
  {
    const float* band = planes + b * plane;
    for (int dy = -1; dy <= 1; ++dy)
    {
      for (int dx = -1; dx <= 1; ++dx, ++f)
      {
        features[f].resize(static_cast<std::size_t>(width * height));
        for (std::ptrdiff_t y = 0; y < height; ++y)
        {
          const float* line = band + (y + margin + dy) * stride + margin + dx;
          std::copy(line, line + width, features[f].data() + y * width);
        }
      }
    }
    for (std::size_t k = 0; k < m_Kernels.size(); ++k, ++f)
    {
      inner(band, m_Kernels[k], features[f]);
      for (std::size_t p = 0; p < features[f].size(); ++p)
      {
        // Invalid pixels are 0, the mean: they weigh nothing.
        features[f][p] /= std::max(sums[k][p], 1e-6f);
      }
    }
  }
}

void PairRegression::Fit(const Progress& progress)
{
  SceneReader reader = MakeReader();
  m_Scaling = FitScaling(reader, m_Scene.clip, true, [&](double done) { Tell(progress, 0., .3, done); });
  const auto cells = SceneCells(m_Scene.width, m_Scene.height, fitCells);
  const PixelDraw draw(cells);
  const int margin = Margin();
  m_Directions.clear();

  struct Sums
  {
    Matrix features, cross, targets;
    double count = 0.;
  };
  const auto accumulate = [&](const Region& cell, Sums(&sums)[2])
  {
    SceneWindow window;
    reader.Window({cell.x0 - margin, cell.y0 - margin, cell.x1 + margin, cell.y1 + margin}, 0, 2, m_Scaling, window);
    const std::ptrdiff_t width = cell.Width(), height = cell.Height(), plane = window.width * window.height;
    std::vector<std::ptrdiff_t> drawn;
    for (std::ptrdiff_t y = 0; y < height; ++y)
    {
      for (std::ptrdiff_t x = 0; x < width; ++x)
      {
        if (window.valid[(y + margin) * window.width + x + margin] && draw(cell.x0 + x, cell.y0 + y))
        {
          drawn.push_back(y * width + x);
        }
      }
    }
    for (int d = 0; d < 2; ++d)
    {
      const int source = d, target = 1 - d, first = source == 0 ? 0 : Bands(0), at = target == 0 ? 0 : Bands(0);
      std::vector<std::vector<float>> context;
      Context(window.planes.data() + first * plane, Bands(source), window, width, height, context);
      const auto features = static_cast<Eigen::Index>(context.size()) + 1;
      sums[d].features = Matrix::Zero(features, features);
      sums[d].cross = Matrix::Zero(features, Bands(target));
      sums[d].targets = Matrix::Zero(Bands(target), Bands(target));
      sums[d].count = static_cast<double>(drawn.size());
      // A few hundred pixels at a time keep the product in the cache; where they end depends on the cell alone.
      for (std::size_t begin = 0; begin < drawn.size(); begin += 512)
      {
        const auto n = static_cast<Eigen::Index>(std::min<std::size_t>(512, drawn.size() - begin));
        Matrix a(features, n), y(Bands(target), n);
        for (Eigen::Index i = 0; i < n; ++i)
        {
          const std::ptrdiff_t p = drawn[begin + static_cast<std::size_t>(i)];
          for (Eigen::Index f = 0; f + 1 < features; ++f)
          {
            a(f, i) = context[static_cast<std::size_t>(f)][p];
          }
          a(features - 1, i) = 1.;
          const std::ptrdiff_t inside = (p / width + margin) * window.width + p % width + margin;
          for (int b = 0; b < Bands(target); ++b)
          {
            y(b, i) = window.planes[(at + b) * plane + inside];
          }
        }
        sums[d].features.selfadjointView<Eigen::Lower>().rankUpdate(a);
        sums[d].cross.noalias() += a * y.transpose();
        sums[d].targets.noalias() += y * y.transpose();
      }
    }
  };

  Sums total[2];
  const int together = std::max(1, m_Scene.threads);
  for (std::size_t c = 0; c < cells.size(); c += static_cast<std::size_t>(together))
  {
    const auto count = static_cast<int>(std::min<std::size_t>(static_cast<std::size_t>(together), cells.size() - c));
    struct Both
    {
      Sums of[2];
    };
    std::vector<Both> parts(static_cast<std::size_t>(count));
    Region needed = cells[c];
    bool near = true;
    for (int k = 1; k < count; ++k)
    {
      near = near && cells[c + k].y0 == needed.y0 && cells[c + k].x0 == needed.x1;
      needed = BoundingBox(needed, cells[c + k]);
    }
    if (near)
    {
      reader.Read(needed, margin);
      ParallelFor(count, count, [&](int k) { accumulate(cells[c + k], parts[k].of); });
    }
    for (int k = 0; !near && k < count; ++k)
    {
      reader.Read(cells[c + k], margin);
      accumulate(cells[c + k], parts[k].of);
    }
    for (int k = 0; k < count; ++k) // in the order of cells, whoever was first
    {
      for (int d = 0; d < 2; ++d)
      {
        const Sums& part = parts[k].of[d];
        if (total[d].features.size() == 0)
        {
          total[d] = part;
          continue;
        }
        total[d].features += part.features;
        total[d].cross += part.cross;
        total[d].targets += part.targets;
        total[d].count += part.count;
      }
    }
    Tell(progress, .3, .7, static_cast<double>(c + static_cast<std::size_t>(count)) / static_cast<double>(cells.size()));
  }
  for (int d = 0; d < 2; ++d)
  {
    const double n = std::max(1., total[d].count);
    Matrix gram = Matrix(total[d].features.selfadjointView<Eigen::Lower>()) / n;
    const Matrix cross = total[d].cross / n;
    const Eigen::Index features = gram.rows();
    for (Eigen::Index f = 0; f + 1 < features; ++f)
    {
      gram(f, f) += m_Settings.ridge; // bands have variance 1; the constant is free
    }
    gram(features - 1, features - 1) += 1e-12;
    auto direction = std::make_unique<Direction>();
    direction->weights = gram.ldlt().solve(cross);
    // E[(y - W'a)(y - W'a)'] with E[aa'] without the penalty
    const Matrix plain = Matrix(total[d].features.selfadjointView<Eigen::Lower>()) / n;
    const Matrix& w = direction->weights;
    direction->covariance = total[d].targets / n - w.transpose() * cross - cross.transpose() * w + w.transpose() * plain * w;
    direction->Settle();
    m_Directions.push_back(std::move(direction));
  }
}

std::string PairRegression::SaveFit() const
{
  Json directions = Json::array();
  for (const auto& d : m_Directions)
  {
    directions.push_back({{"weights", ToJson(d->weights)}, {"covariance", ToJson(d->covariance)}});
  }
  return Json({{"method", "regress"}, {"scaling", ToJson(m_Scaling)}, {"sigmas", m_Settings.sigmas}, {"directions", directions}}).dump();
}

void PairRegression::LoadFit(const std::string& json)
{
  Reading(
      [&]
      {
        const Json j = ParseFit(json, "regress");
        m_Scaling = ScalingFrom(j.at("scaling"), static_cast<std::size_t>(Bands(0) + Bands(1)));
        if (j.at("sigmas").get<std::vector<double>>() != m_Settings.sigmas)
        {
          throw Error("what was learnt looked at another context");
        }
        m_Directions.clear();
        for (int d = 0; d < 2; ++d)
        {
          const int source = d, target = 1 - d;
          const auto features = static_cast<Eigen::Index>(Bands(source) * (9 + m_Kernels.size()) + 1);
          auto direction = std::make_unique<Direction>();
          direction->weights = MatrixFrom(j.at("directions").at(d).at("weights"), features, Bands(target));
          direction->covariance = MatrixFrom(j.at("directions").at(d).at("covariance"), Bands(target), Bands(target));
          direction->Settle();
          m_Directions.push_back(std::move(direction));
        }
      });
}

void PairRegression::Predict(const SceneReader& reader, const Region& cell, Prediction& prediction) const
{
  const int margin = Margin();
  SceneWindow& window = prediction.dates;
  reader.Window({cell.x0 - margin, cell.y0 - margin, cell.x1 + margin, cell.y1 + margin}, 0, 2, m_Scaling, window);
  const std::ptrdiff_t width = cell.Width(), height = cell.Height(), plane = window.width * window.height, pixels = width * height;
  for (int d = 0; d < 2; ++d)
  {
    const int source = d, target = 1 - d;
    std::vector<std::vector<float>> context;
    Context(window.planes.data() + (source == 0 ? 0 : Bands(0)) * plane, Bands(source), window, width, height, context);
    auto& out = target == 0 ? prediction.of1 : prediction.of2;
    const auto& w = m_Directions[d]->compact;
    out.resize(static_cast<std::size_t>(Bands(target) * pixels));
    for (int b = 0; b < Bands(target); ++b)
    {
      float* to = out.data() + b * pixels;
      std::fill(to, to + pixels, w(w.rows() - 1, b));
      for (Eigen::Index f = 0; f + 1 < w.rows(); ++f)
      {
        const float factor = w(f, b);
        const float* from = context[static_cast<std::size_t>(f)].data();
        for (std::ptrdiff_t p = 0; p < pixels; ++p)
        {
          to[p] += factor * from[p];
        }
      }
    }
  }
}

void PairRegression::Score(const Region& region, const std::vector<float*>& planes, const Progress& progress)
{
  SceneReader reader = MakeReader();
  const int margin = Margin();
  const auto score = [&](const Region& cell)
  {
    Prediction prediction;
    Predict(reader, cell, prediction);
    const SceneWindow& window = prediction.dates;
    const std::ptrdiff_t width = cell.Width(), pixels = width * cell.Height(), plane = window.width * window.height;
    for (int d = 0; d < 2; ++d)
    {
      const int target = 1 - d, bands = Bands(target), at = target == 0 ? 0 : Bands(0);
      const auto& predicted = target == 0 ? prediction.of1 : prediction.of2;
      const auto& whitening = m_Directions[d]->whitening;
      Eigen::VectorXf r(bands);
      for (std::ptrdiff_t p = 0; p < pixels; ++p)
      {
        const std::ptrdiff_t inside = (p / width + margin) * window.width + p % width + margin;
        float value = none;
        if (window.valid[inside])
        {
          float squares = 0.f;
          for (int b = 0; b < bands; ++b)
          {
            r[b] = window.planes[(at + b) * plane + inside] - predicted[b * pixels + p];
            squares += r[b] * r[b];
          }
          if (m_Settings.norm != ResidualNorm::L2)
          {
            squares = 0.f;
            for (int i = 0; i < bands; ++i)
            {
              float white = 0.f;
              for (int k = 0; k <= i; ++k)
              {
                white += whitening(i, k) * r[k];
              }
              squares += white * white;
            }
          }
          value = m_Settings.norm == ResidualNorm::StudentT ? .5f * static_cast<float>(4 + bands) * std::log1p(squares / 4.f) : std::sqrt(squares);
        }
        planes[d][(cell.y0 - region.y0 + p / width) * region.Width() + cell.x0 - region.x0 + p % width] = value;
      }
    }
  };
  ForCells(
      region, ReadPixels(m_Scene), m_Scene.threads, [&](const Region& part) { reader.Read(part, margin); }, score, progress);
}

// ---- pixels for a network

RegressionSource::RegressionSource(std::shared_ptr<const PairRegression> regression) : m_Regression(std::move(regression)), m_Reader(m_Regression->MakeReader())
{
  CheckSameBands(m_Regression->Scene(), "ratio");
}

PixelBlock RegressionSource::Read(const Region& region)
{
  const PairRegression& regression = *m_Regression;
  const int bands = regression.Bands(0), margin = regression.Margin();
  const std::ptrdiff_t width = region.Width(), pixels = region.Area();
  m_Planes.resize(static_cast<std::size_t>(8 * bands * pixels));
  const auto fill = [&](const Region& cell)
  {
    PairRegression::Prediction prediction;
    regression.Predict(m_Reader, cell, prediction);
    const SceneWindow& window = prediction.dates;
    const std::ptrdiff_t plane = window.width * window.height, own = cell.Area();
    for (int d = 0; d < 2; ++d)
    {
      const int target = 1 - d;
      const auto& predicted = target == 0 ? prediction.of1 : prediction.of2;
      for (int b = 0; b < bands; ++b)
      {
        float* out = m_Planes.data() + (4 * bands * d + b) * pixels;
        for (std::ptrdiff_t p = 0; p < own; ++p)
        {
          const std::ptrdiff_t inside = (p / cell.Width() + margin) * window.width + p % cell.Width() + margin;
          const std::ptrdiff_t to = (cell.y0 - region.y0 + p / cell.Width()) * width + cell.x0 - region.x0 + p % cell.Width();
          const bool valid = window.valid[inside] != 0;
          const float x = window.planes[(target * bands + b) * plane + inside], y = window.planes[((1 - target) * bands + b) * plane + inside];
          const float e = predicted[b * own + p];
          out[to] = valid ? x : none;
          out[bands * pixels + to] = valid ? e : none;
          out[2 * bands * pixels + to] = valid ? y : none;
          out[3 * bands * pixels + to] = valid ? x - e : none;
        }
      }
    }
  };
  const int threads = regression.Scene().threads;
  if (Grown(region, margin).Area() <= ReadPixels(regression.Scene()))
  {
    // A patch or two: read at once, and cut for the threads alone, as every cut costs a margin. Pixels are the same however it is cut.
    m_Reader.Read(region, margin);
    const auto parts = static_cast<int>(std::min<std::int64_t>(std::max(1, threads), region.Height()));
    const std::int64_t rows = (region.Height() + parts - 1) / parts;
    ParallelFor(parts, threads,
                [&](int k)
                {
                  const Region part = Intersection(region, {region.x0, region.y0 + k * rows, region.x1, region.y0 + (k + 1) * rows});
                  if (!part.Empty())
                  {
                    fill(part);
                  }
                });
  }
  else
  {
    ForCells(region, ReadPixels(regression.Scene()), threads, [&](const Region& part) { m_Reader.Read(part, margin); }, fill, {});
  }
  PixelBlock block;
  block.region = region;
  for (int d = 0; d < 2; ++d)
  {
    std::vector<PlaneView> views;
    for (int k = 0; k < 4 * bands; ++k)
    {
      views.push_back({m_Planes.data() + (4 * bands * d + k) * pixels, 1, width});
    }
    block.bands.push_back(std::move(views));
  }
  return block;
}

// ---- change vectors

ChangeVector::ChangeVector(PairScene scene) : m_Scene(std::move(scene))
{
  CheckSameBands(m_Scene, "cva");
}

void ChangeVector::Fit(const Progress& progress)
{
  SceneReader reader = ReaderOf(m_Scene);
  m_Scaling = FitScaling(reader, m_Scene.clip, true, progress);
}

std::string ChangeVector::SaveFit() const
{
  return Json({{"method", "cva"}, {"scaling", ToJson(m_Scaling)}}).dump();
}

void ChangeVector::LoadFit(const std::string& json)
{
  Reading([&] { m_Scaling = ScalingFrom(ParseFit(json, "cva").at("scaling"), static_cast<std::size_t>(2 * BandsOf(m_Scene, 0))); });
}

void ChangeVector::Score(const Region& region, const std::vector<float*>& planes, const Progress& progress)
{
  SceneReader reader = ReaderOf(m_Scene);
  const int bands = BandsOf(m_Scene, 0);
  const auto score = [&](const Region& cell)
  {
    SceneWindow window;
    reader.Window(cell, 0, 2, m_Scaling, window);
    const std::ptrdiff_t width = window.width, plane = width * window.height;
    for (std::ptrdiff_t p = 0; p < plane; ++p)
    {
      float squares = 0.f;
      for (int b = 0; b < bands; ++b)
      {
        const float d = window.planes[(bands + b) * plane + p] - window.planes[b * plane + p];
        squares += d * d;
      }
      planes[0][(cell.y0 - region.y0 + p / width) * region.Width() + cell.x0 - region.x0 + p % width] = window.valid[p] ? std::sqrt(squares) : none;
    }
  };
  ForCells(
      region, ReadPixels(m_Scene), m_Scene.threads, [&](const Region& part) { reader.Read(part, 0); }, score, progress);
}

// ---- alteration detection

double ChiSquareTail(double x, int degrees)
{
  if (x <= 0.)
  {
    return 1.;
  }
  if (x > 1e4) // below the smallest double for any number of bands; the series would overflow
  {
    return 0.;
  }
  // Abramowitz and Stegun 26.4.4 and 26.4.5
  double sum = 0., term = 1.;
  if (degrees % 2 == 0)
  {
    for (int k = 1; k <= degrees / 2; ++k)
    {
      sum += term;
      term *= x / (2. * k);
    }
    return std::exp(-.5 * x) * sum;
  }
  term = std::sqrt(x);
  for (int k = 1; k <= (degrees - 1) / 2; ++k)
  {
    sum += term;
    term *= x / (2. * k + 1.);
  }
  return std::erfc(std::sqrt(.5 * x)) + std::sqrt(2. / 3.14159265358979323846) * std::exp(-.5 * x) * sum;
}

namespace
{
double ChiSquareMedian(int degrees)
{
  double low = 0., high = degrees;
  for (int k = 0; k < 60; ++k)
  {
    const double middle = .5 * (low + high);
    (ChiSquareTail(middle, degrees) > .5 ? low : high) = middle;
  }
  return low;
}
} // namespace

AlterationDetector::AlterationDetector(PairScene scene, int iterations) : m_Scene(std::move(scene)), m_Iterations(iterations)
{
}

void AlterationDetector::Fit(const Progress& progress)
{
  SceneReader reader = ReaderOf(m_Scene);
  m_Scaling = FitScaling(reader, m_Scene.clip, true, [&](double done) { Tell(progress, 0., .4, done); });
  const auto cells = SceneCells(m_Scene.width, m_Scene.height, fitCells);
  const int p = BandsOf(m_Scene, 0), q = BandsOf(m_Scene, 1), bands = p + q, variates = std::min(p, q);
  // A quarter of what a regression draws: it stays in memory.
  std::vector<float> samples;
  const PixelDraw draw(cells);
  const KeyedRandom thin(0, 0x3AD);
  SceneWindow window;
  for (std::size_t c = 0; c < cells.size(); ++c)
  {
    const Region& cell = cells[c];
    reader.Read(cell, 0);
    reader.Window(cell, 0, 2, m_Scaling, window);
    const std::ptrdiff_t plane = window.width * window.height;
    for (std::ptrdiff_t i = 0; i < plane; ++i)
    {
      const std::int64_t x = cell.x0 + i % window.width, y = cell.y0 + i / window.width;
      if (window.valid[i] && draw(x, y) && (fitPixels >= 4. * static_cast<double>(m_Scene.width * m_Scene.height) || thin.Uniform(x, y, 0, 0) < .25))
      {
        for (int b = 0; b < bands; ++b)
        {
          samples.push_back(window.planes[b * plane + i]);
        }
      }
    }
    Tell(progress, .4, .4, static_cast<double>(c + 1) / static_cast<double>(cells.size()));
  }
  const std::size_t count = samples.size() / static_cast<std::size_t>(bands);
  m_Rows.assign(static_cast<std::size_t>(variates), std::vector<double>(static_cast<std::size_t>(bands) + 1, 0.));
  m_Correlations.assign(static_cast<std::size_t>(variates), 0.);
  m_Done = 0;
  if (count < 2)
  {
    return;
  }
  const auto squares = [&](std::size_t i)
  {
    double t = 0.;
    for (const auto& row : m_Rows)
    {
      double value = row[bands];
      for (int k = 0; k < bands; ++k)
      {
        value += row[k] * samples[i * static_cast<std::size_t>(bands) + k];
      }
      t += value * value;
    }
    return t;
  };
  std::vector<double> weights(count, 1.);
  for (int iteration = 0; iteration <= m_Iterations; ++iteration)
  {
    Matrix s = Matrix::Zero(bands, bands);
    Vector mean = Vector::Zero(bands);
    double sum = 0.;
    for (std::size_t i = 0; i < count; ++i)
    {
      const auto x = Eigen::Map<const Eigen::VectorXf>(samples.data() + i * static_cast<std::size_t>(bands), bands).cast<double>();
      mean += weights[i] * x;
      sum += weights[i];
    }
    mean /= sum;
    for (std::size_t i = 0; i < count; ++i)
    {
      const Vector x = Eigen::Map<const Eigen::VectorXf>(samples.data() + i * static_cast<std::size_t>(bands), bands).cast<double>() - mean;
      s.selfadjointView<Eigen::Lower>().rankUpdate(x, weights[i]);
    }
    s = Matrix(s.selfadjointView<Eigen::Lower>()) / sum;
    s.diagonal().array() += 1e-6; // bands without variance
    const Matrix s11 = s.topLeftCorner(p, p), s22 = s.bottomRightCorner(q, q), s12 = s.topRightCorner(p, q);
    // a of the first date from S12 S22^-1 S21 a = rho^2 S11 a, with fewer bands on its side
    const bool swap = p > q;
    const Matrix left = swap ? s22 : s11, right = swap ? s11 : s22, between = swap ? Matrix(s12.transpose()) : s12;
    const Matrix solved = right.ldlt().solve(between.transpose());
    const Eigen::GeneralizedSelfAdjointEigenSolver<Matrix> eigen(between * solved, left);
    std::vector<double> correlations;
    for (int v = 0; v < variates; ++v)
    {
      const double rho = std::sqrt(std::min(1. - 1e-9, std::max(1e-12, eigen.eigenvalues()[v])));
      const Vector a = eigen.eigenvectors().col(v), b = solved * a / rho;
      const double scale = 1. / std::sqrt(2. * (1. - rho));
      Vector row(bands);
      row << (swap ? -scale * b : scale * a), (swap ? scale * a : -scale * b);
      for (int k = 0; k < bands; ++k)
      {
        m_Rows[v][k] = row[k];
      }
      m_Rows[v][bands] = -row.dot(mean);
      correlations.push_back(rho);
    }
    double moved = 0.;
    for (int v = 0; v < variates; ++v)
    {
      moved = std::max(moved, std::abs(correlations[v] - m_Correlations[v]));
    }
    m_Correlations = correlations;
    m_Done = iteration;
    if (iteration == m_Iterations || (iteration > 0 && moved < 1e-3))
    {
      break;
    }
    for (std::size_t i = 0; i < count; ++i)
    {
      weights[i] = ChiSquareTail(squares(i), variates);
    }
    Tell(progress, .8, .2, static_cast<double>(iteration + 1) / (m_Iterations + 1));
  }
  if (m_Iterations > 0)
  {
    // Weights favour what changed least, round after round: variates vary less among them than among all that did not change, and half of the pixels would be
    // change at p = .01. The median is that of chi-square again; never more than it was, or dates that are equal would show their rounding.
    std::vector<double> all(count);
    for (std::size_t i = 0; i < count; ++i)
    {
      all[i] = squares(i);
    }
    const auto middle = all.begin() + static_cast<std::ptrdiff_t>(count / 2);
    std::nth_element(all.begin(), middle, all.end());
    const double median = ChiSquareMedian(variates);
    for (auto& row : m_Rows)
    {
      for (auto& factor : row)
      {
        factor *= *middle > median ? std::sqrt(median / *middle) : 1.;
      }
    }
  }
  Tell(progress, 0., 1., 1.);
}

std::string AlterationDetector::SaveFit() const
{
  return Json({{"method", m_Iterations > 0 ? "irmad" : "mad"}, {"scaling", ToJson(m_Scaling)}, {"correlations", m_Correlations}, {"variates", m_Rows}}).dump();
}

void AlterationDetector::LoadFit(const std::string& json)
{
  Reading(
      [&]
      {
        const Json j = ParseFit(json, m_Iterations > 0 ? "irmad" : "mad");
        const auto bands = static_cast<std::size_t>(BandsOf(m_Scene, 0) + BandsOf(m_Scene, 1));
        m_Scaling = ScalingFrom(j.at("scaling"), bands);
        m_Correlations = j.at("correlations").get<std::vector<double>>();
        m_Rows = j.at("variates").get<std::vector<std::vector<double>>>();
        if (m_Rows.size() != static_cast<std::size_t>(std::min(BandsOf(m_Scene, 0), BandsOf(m_Scene, 1))) || m_Correlations.size() != m_Rows.size())
        {
          throw Error("what was learnt has another size than these dates and settings give");
        }
        for (const auto& row : m_Rows)
        {
          if (row.size() != bands + 1)
          {
            throw Error("what was learnt has another size than these dates and settings give");
          }
        }
      });
}

void AlterationDetector::Score(const Region& region, const std::vector<float*>& planes, const Progress& progress)
{
  SceneReader reader = ReaderOf(m_Scene);
  const auto bands = static_cast<int>(m_Scaling.size());
  const auto score = [&](const Region& cell)
  {
    SceneWindow window;
    reader.Window(cell, 0, 2, m_Scaling, window);
    const std::ptrdiff_t width = window.width, plane = width * window.height;
    for (std::ptrdiff_t p = 0; p < plane; ++p)
    {
      double t = 0.;
      for (const auto& row : m_Rows)
      {
        double value = row[bands];
        for (int k = 0; k < bands; ++k)
        {
          value += row[k] * window.planes[k * plane + p];
        }
        t += value * value;
      }
      planes[0][(cell.y0 - region.y0 + p / width) * region.Width() + cell.x0 - region.x0 + p % width] =
          window.valid[p] ? static_cast<float>(std::sqrt(t)) : none;
    }
  };
  ForCells(
      region, ReadPixels(m_Scene), m_Scene.threads, [&](const Region& part) { reader.Read(part, 0); }, score, progress);
}

// ---- sibling regression

SiblingScore::SiblingScore(PairScene scene) : m_Scene(std::move(scene))
{
  CheckSameBands(m_Scene, "siroc");
}

void SiblingScore::Settle()
{
  // Clipped and standardised values become bytes between their limits.
  std::vector<SiblingRange> ranges;
  for (const auto& s : m_Scaling)
  {
    // A scene without data sets no limits.
    const double low = std::isfinite(s.low) ? s.low : 0., high = std::isfinite(s.high) && s.high > low ? s.high : low + 1.;
    ranges.push_back({low, high});
  }
  const auto middle = ranges.begin() + BandsOf(m_Scene, 0);
  m_Sibling = std::make_unique<SiblingRegression>(SiblingRegressionSettings(), std::vector<SiblingRange>(ranges.begin(), middle),
                                                  std::vector<SiblingRange>(middle, ranges.end()));
}

void SiblingScore::Window(const SceneReader& reader, const Region& footprint, SceneWindow& window) const
{
  reader.Window(footprint, 0, 2, {}, window);
}

void SiblingScore::Fit(const Progress& progress)
{
  SceneReader reader = ReaderOf(m_Scene);
  m_Scaling = FitScaling(reader, m_Scene.clip, true, [&](double done) { Tell(progress, 0., .1, done); });
  Settle();
  const int margin = m_Sibling->CountMargin();
  const auto cells = SceneCells(m_Scene.width, m_Scene.height, fitCells);
  auto histograms = m_Sibling->EmptyHistograms();
  SceneWindow window;
  for (std::size_t c = 0; c < cells.size(); ++c)
  {
    const Region& cell = cells[c];
    reader.Read(cell, margin);
    Window(reader, {cell.x0 - margin, cell.y0 - margin, cell.x1 + margin, cell.y1 + margin}, window);
    const float* second = window.Plane(BandsOf(m_Scene, 0));
    m_Sibling->Count({window.planes.data(), second, window.valid.data(), window.width, window.height}, histograms);
    Tell(progress, .1, .9, static_cast<double>(c + 1) / static_cast<double>(cells.size()));
  }
  m_Thresholds = m_Sibling->Thresholds(histograms);
}

std::string SiblingScore::SaveFit() const
{
  return Json({{"method", "siroc"}, {"scaling", ToJson(m_Scaling)}, {"thresholds", m_Thresholds}}).dump();
}

void SiblingScore::LoadFit(const std::string& json)
{
  Reading(
      [&]
      {
        const Json j = ParseFit(json, "siroc");
        m_Scaling = ScalingFrom(j.at("scaling"), static_cast<std::size_t>(2 * BandsOf(m_Scene, 0)));
        Settle();
        m_Thresholds = j.at("thresholds").get<std::vector<double>>();
        if (static_cast<int>(m_Thresholds.size()) != m_Sibling->Members())
        {
          throw Error("what was learnt is of another ensemble");
        }
      });
}

void SiblingScore::Score(const Region& region, const std::vector<float*>& planes, const Progress& progress)
{
  SceneReader reader = ReaderOf(m_Scene);
  const int margin = m_Sibling->VoteMargin();
  const auto score = [&](const Region& cell)
  {
    SceneWindow window;
    Window(reader, {cell.x0 - margin, cell.y0 - margin, cell.x1 + margin, cell.y1 + margin}, window);
    const float* second = window.Plane(BandsOf(m_Scene, 0));
    std::vector<float> votes(static_cast<std::size_t>(cell.Area()));
    m_Sibling->Vote({window.planes.data(), second, window.valid.data(), window.width, window.height}, m_Thresholds, votes.data());
    for (std::int64_t y = 0; y < cell.Height(); ++y)
    {
      float* out = planes[0] + (cell.y0 - region.y0 + y) * region.Width() + cell.x0 - region.x0;
      for (std::int64_t x = 0; x < cell.Width(); ++x)
      {
        const float v = votes[static_cast<std::size_t>(y * cell.Width() + x)];
        out[x] = v == SiblingRegression::NoData ? none : v;
      }
    }
  };
  ForCells(
      region, ReadPixels(m_Scene), m_Scene.threads, [&](const Region& part) { reader.Read(part, margin); }, score, progress);
}

} // namespace dl
} // namespace otb
