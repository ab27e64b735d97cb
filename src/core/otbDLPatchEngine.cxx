/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLPatchEngine.h"

#include "otbDLGaussian.h"
#include "otbDLParallel.h"
#include "otbDLPatchStore.h"
#include "otbDLStopwatch.h"

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

/** Stands in score 0 of a blended patch where the pixel holds no data. */
constexpr float noDataMark = -std::numeric_limits<float>::infinity();

} // namespace

PatchEngine::PatchEngine(const PatchGrid& grid, std::shared_ptr<Predictor> predictor, std::shared_ptr<const MapOperator> mapOperator,
                         std::shared_ptr<PatchSource> source, Settings settings)
    : m_Grid(grid), m_Predictor(std::move(predictor)), m_Operator(std::move(mapOperator)), m_Source(std::move(source)), m_Settings(std::move(settings))
{
  m_Window = m_Settings.window.Empty() ? m_Grid.Image() : Intersection(m_Settings.window, m_Grid.Image());
  if (m_Window.Empty())
  {
    m_Window = m_Grid.Image();
  }
  m_WindowPatches = m_Grid.Covering(m_Window);
  m_Statistics.samplesInWindow = m_WindowPatches.Area();

  // Cropped patches never meet again: their decision is kept. Blended ones meet as scores.
  const std::size_t channels = m_Grid.Blending() == Blend::Crop ? m_Operator->ResultChannels() : m_Operator->ScoreChannels();
  const std::size_t pixels = static_cast<std::size_t>(m_Grid.CoreSize()) * m_Grid.CoreSize();
  m_Store = std::make_unique<PatchStore>(m_Grid.Count(), channels * pixels, m_Settings.keptBytes, m_Settings.spillDirectory);
  m_Slots.resize(m_Predictor->BatchSize());
  if (m_Grid.Blending() == Blend::Hann)
  {
    m_Hann = HannWindow(m_Grid.Patch());
  }
  m_Kernel = m_Operator->Smoothing();
  if (!m_Kernel.empty())
  {
    // Blended patches have no margin: their weight is small where smoothing misses something.
    m_Margin = std::min(KernelRadius(m_Kernel), m_Grid.CoreOffset());
  }
}

PatchEngine::~PatchEngine() = default;

std::int64_t PatchEngine::Id(std::int64_t i, std::int64_t j) const
{
  return j * m_Grid.Columns() + i;
}

/** The pixels of the window to which a patch contributes. */
Region PatchEngine::Support(std::int64_t i, std::int64_t j) const
{
  return Intersection(m_Grid.Core(i, j), m_Window);
}

void PatchEngine::Produce(const Region& region, const std::vector<ResultPlane>& results, const Progress& progress)
{
  const Region patches = m_Grid.Covering(region);
  // Tiles from left to right and top to bottom, strips; they may overlap, as a neighbourhood filter asks for them.
  const bool beside = region.y0 == m_Last.y0 && region.x0 > m_Last.x0 && region.x0 <= m_Last.x1;
  const bool below = region.x0 == m_Window.x0 && region.y0 > m_Last.y0 && region.y0 <= m_Last.y1;
  m_Ahead = m_Settings.whole || (!m_Last.Empty() && (beside || below));
  m_Last = region;
  const bool blended = m_Grid.Blending() == Blend::Hann;
  const auto lastCell = blended ? patches.y1 - 1 : patches.y1;
  for (std::int64_t b = patches.y0; b < lastCell; ++b)
  {
    ComputeRow(b, patches, progress);
    if (blended)
    {
      ComputeRow(b + 1, patches, progress);
    }
    Stopwatch watch(m_Statistics.secondsDeciding);
    for (std::int64_t a = patches.x0; a < (blended ? patches.x1 - 1 : patches.x1); ++a)
    {
      if (blended)
      {
        DeliverCell(a, b, region, results);
      }
      else
      {
        DeliverCore(a, b, region, results);
      }
    }
    RetireRow(b, patches);
    if (blended && b + 1 == lastCell)
    {
      RetireRow(lastCell, patches);
    }
  }
  m_Statistics.samplesSpilled = m_Store->PatchesSpilled();
}

/** Makes the patches of one row of `patches` ready. Slots of the last batch that the row does not fill go to the patches that will be asked for next:
 * first the other rows of this region, then (if it will be asked for) the rest of the window in the order in which images are read. */
void PatchEngine::ComputeRow(std::int64_t row, const Region& patches, const Progress& progress)
{
  const Region pinned{patches.x0, std::max(patches.y0, row - 1), patches.x1, row + 2};
  const int batch = static_cast<int>(m_Slots.size());

  const auto takeRow = [&](std::int64_t j, std::int64_t begin, std::int64_t end, bool ahead)
  {
    for (std::int64_t i = begin; i < end && !(ahead && m_Filled == 0);)
    {
      const auto wanted = [&](std::int64_t column)
      {
        const auto s = m_Store->GetState(Id(column, j));
        return s == PatchStore::State::Missing || (s == PatchStore::State::Done && !ahead);
      };
      if (!wanted(i))
      {
        ++i;
        continue;
      }
      std::int64_t run = i + 1;
      while (run < end && run - i < batch - m_Filled && wanted(run))
      {
        ++run;
      }
      i = PackRun(i, j, run);
      if (m_Filled == batch)
      {
        RunBatch(pinned, progress);
      }
    }
  };

  takeRow(row, patches.x0, patches.x1, false);
  for (std::int64_t j = row + 1; j < patches.y1 && m_Filled > 0; ++j)
  {
    takeRow(j, patches.x0, patches.x1, true);
  }
  // Looking further costs reading only; where much is empty it is not worth it.
  const std::int64_t emptyLimit = m_Statistics.samplesEmpty + 16 * batch;
  for (std::int64_t j = patches.y0; m_Ahead && j < m_WindowPatches.y1 && m_Filled > 0 && m_Statistics.samplesEmpty < emptyLimit; ++j)
  {
    takeRow(j, j < patches.y1 ? std::max(patches.x1, m_WindowPatches.x0) : m_WindowPatches.x0, m_WindowPatches.x1, true);
  }
  if (m_Filled > 0)
  {
    RunBatch(pinned, progress);
  }
}

/** Reads patches [i, end) of row j at once and packs those with data. Returns the first one not looked at. */
std::int64_t PatchEngine::PackRun(std::int64_t i, std::int64_t j, std::int64_t end)
{
  Region needed = m_Grid.Reads(m_Grid.Footprint(i, j));
  for (std::int64_t k = i + 1; k < end; ++k)
  {
    needed = BoundingBox(needed, m_Grid.Reads(m_Grid.Footprint(k, j)));
  }
  {
    Stopwatch watch(m_Statistics.secondsReading);
    m_Source->Read(needed);
  }

  Stopwatch watch(m_Statistics.secondsPacking);
  const Region image = m_Grid.Image();
  const int core = m_Grid.CoreSize(), offset = m_Grid.CoreOffset(), count = static_cast<int>(end - i);
  m_Reads.resize(std::max<std::size_t>(m_Reads.size(), count));
  const auto lookAt = [&](int k)
  {
    Read& read = m_Reads[k];
    const Region footprint = m_Grid.Footprint(i + k, j);
    m_Source->Look(footprint, m_Operator->CountChannels() > 0, read.content);
    // What lies outside the image is a mirror image: it does not make a patch worth inferring.
    const Region inside = Intersection(m_Grid.Core(i + k, j), image);
    read.any = false;
    for (std::int64_t y = inside.y0; y < inside.y1 && !read.any; ++y)
    {
      const std::uint8_t* from = read.content.valid.data() + (y - footprint.y0) * m_Grid.Patch() + (inside.x0 - footprint.x0);
      read.any = std::any_of(from, from + inside.Width(), [](std::uint8_t v) { return v != 0; });
    }
  };
  ParallelFor(count, m_Settings.threads, lookAt);

  for (int k = 0; k < count; ++k)
  {
    const std::int64_t patch = Id(i + k, j);
    m_Reads[k].slot = -1;
    if (!m_Reads[k].any)
    {
      m_Store->SetState(patch, PatchStore::State::Empty);
      ++m_Statistics.samplesEmpty;
      continue;
    }
    m_Statistics.samplesRepeated += m_Store->WasInferred(patch);
    m_Store->SetState(patch, PatchStore::State::Pending);
    m_Reads[k].slot = m_Filled;
    m_Slots[m_Filled++].patch = patch;
  }

  const auto pack = [&](int k)
  {
    const Read& read = m_Reads[k];
    if (read.slot < 0)
    {
      return;
    }
    const Region footprint = m_Grid.Footprint(i + k, j);
    // What lies outside the image is left at 0.
    const auto cut = [&](const auto& from, int margin, auto& to)
    {
      const std::int64_t side = core + 2 * margin;
      const Region part = Intersection(Grown(m_Grid.Core(i + k, j), margin), image);
      to.assign(static_cast<std::size_t>(side * side), 0);
      for (std::int64_t y = part.y0; y < part.y1; ++y)
      {
        const auto* line = from.data() + (y - footprint.y0) * m_Grid.Patch() + (part.x0 - footprint.x0);
        std::copy(line, line + part.Width(), to.data() + (y - footprint.y0 - offset + margin) * side + (part.x0 - footprint.x0 - offset + margin));
      }
    };
    auto& content = m_Slots[read.slot].content;
    cut(read.content.valid, 0, content.valid);
    if (!m_Kernel.empty())
    {
      cut(read.content.valid, m_Margin, m_Slots[read.slot].surrounds);
    }
    content.counts.resize(read.content.counts.size());
    for (std::size_t s = 0; s < content.counts.size(); ++s)
    {
      cut(read.content.counts[s], 0, content.counts[s]);
    }
    m_Source->Pack(footprint, read.content, *m_Predictor, read.slot);
  };
  ParallelFor(count, m_Settings.threads, pack);
  return end;
}

void PatchEngine::RunBatch(const Region& pinned, const Progress& progress)
{
  if (progress)
  {
    progress(std::min(1., static_cast<double>(m_Statistics.samplesInferred - m_Statistics.samplesRepeated + m_Statistics.samplesEmpty) /
                              static_cast<double>(m_Statistics.samplesInWindow)));
  }
  {
    Stopwatch watch(m_Statistics.secondsModel);
    m_Predictor->Run(m_Filled);
  }
  m_Statistics.modelCalls += (m_Filled + m_Predictor->CallSize() - 1) / m_Predictor->CallSize();
  m_Statistics.samplesInferred += m_Filled;

  Stopwatch watch(m_Statistics.secondsDeciding);
  std::vector<BatchView> outputs;
  for (int k = 0; k < m_Predictor->Outputs(); ++k)
  {
    outputs.push_back(m_Predictor->Output(k));
  }
  const int core = m_Grid.CoreSize();
  const std::ptrdiff_t pixels = static_cast<std::ptrdiff_t>(core) * core;
  const int channels = m_Operator->ScoreChannels(), counted = m_Operator->CountChannels();
  const Region part{m_Grid.CoreOffset(), m_Grid.CoreOffset(), m_Grid.CoreOffset() + core, m_Grid.CoreOffset() + core};
  const auto& noData = m_Operator->NoData();
  const auto isPinned = [&](std::int64_t patch)
  {
    const std::int64_t i = patch % m_Grid.Columns(), j = patch / m_Grid.Columns();
    return i >= pinned.x0 && i < pinned.x1 && j >= pinned.y0 && j < pinned.y1;
  };

  std::vector<PatchStore::Data> made(m_Filled);
  for (auto& data : made)
  {
    data = m_Store->NewData();
  }
  std::atomic<std::int64_t> notFinite{0};
  const auto decide = [&](int n)
  {
    const PatchContent& content = m_Slots[n].content;
    float* data = made[n]->data();
    const auto score = [&](float* scores)
    {
      if (m_Kernel.empty())
      {
        m_Operator->Score(outputs, n, part, scores);
      }
      else
      {
        Smooth(outputs, n, scores);
      }
      for (int s = 0; s < counted; ++s)
      {
        std::copy(content.counts[s].begin(), content.counts[s].end(), scores + (channels - counted + s) * pixels);
      }
    };
    if (m_Grid.Blending() == Blend::Hann)
    {
      score(data);
      for (std::ptrdiff_t p = 0; p < pixels; ++p)
      {
        if (!content.valid[p])
        {
          data[p] = noDataMark;
        }
      }
      return;
    }
    std::vector<float> scores(pixels * channels);
    score(scores.data());
    m_Operator->Decide(scores.data(), pixels, pixels, data, pixels);
    std::int64_t bad = 0;
    for (std::ptrdiff_t p = 0; p < pixels; ++p)
    {
      bool good = content.valid[p] != 0;
      if (good)
      {
        for (int c = 0; c < channels; ++c)
        {
          good = good && std::isfinite(scores[c * pixels + p]);
        }
        bad += !good;
      }
      if (!good)
      {
        for (std::size_t r = 0; r < noData.size(); ++r)
        {
          data[r * pixels + p] = noData[r];
        }
      }
    }
    notFinite += bad;
  };
  ParallelFor(m_Filled, m_Settings.threads, decide);
  m_Statistics.notFinite += notFinite;
  for (int n = 0; n < m_Filled; ++n)
  {
    m_Store->Put(m_Slots[n].patch, std::move(made[n]), isPinned);
  }
  m_Filled = 0;
}

/** Scores of the core of slot n, each averaged with its surroundings where these hold data. */
void PatchEngine::Smooth(const std::vector<BatchView>& outputs, int n, float* scores) const
{
  const std::int64_t core = m_Grid.CoreSize(), offset = m_Grid.CoreOffset(), side = core + 2 * m_Margin, pixels = side * side;
  const int channels = m_Operator->ScoreChannels() - m_Operator->CountChannels();
  std::vector<float> raw(static_cast<std::size_t>(m_Operator->ScoreChannels() * pixels));
  m_Operator->Score(outputs, n, {offset - m_Margin, offset - m_Margin, offset + core + m_Margin, offset + core + m_Margin}, raw.data());

  const int radius = KernelRadius(m_Kernel), missing = radius - m_Margin;
  const std::int64_t width = core + 2 * radius;
  const auto& surrounds = m_Slots[n].surrounds;
  std::vector<float> window, smooth;
  for (int c = 0; c < channels; ++c)
  {
    window.assign(static_cast<std::size_t>(width * width), std::numeric_limits<float>::quiet_NaN());
    for (std::int64_t y = 0; y < side; ++y)
    {
      for (std::int64_t x = 0; x < side; ++x)
      {
        const float v = raw[c * pixels + y * side + x];
        if (surrounds[y * side + x] && std::isfinite(v))
        {
          window[(y + missing) * width + x + missing] = v;
        }
      }
    }
    SmoothScores(window, width, width, m_Kernel, smooth);
    std::copy(smooth.begin(), smooth.end(), scores + c * core * core);
  }
}

void PatchEngine::FillNoData(const Region& part, const Region& region, const std::vector<ResultPlane>& results) const
{
  const auto& noData = m_Operator->NoData();
  for (std::size_t r = 0; r < results.size(); ++r)
  {
    for (std::int64_t y = part.y0; y < part.y1; ++y)
    {
      float* out = results[r].data + (y - region.y0) * results[r].strideY + (part.x0 - region.x0) * results[r].strideX;
      for (std::int64_t x = 0; x < part.Width(); ++x)
      {
        out[x * results[r].strideX] = noData[r];
      }
    }
  }
}

/** Counts what a patch gave. */
void PatchEngine::Account(std::int64_t i, std::int64_t j, const Region& delivered)
{
  m_Store->Deliver(Id(i, j), Intersection(delivered, m_Window).Area());
}

/** Lets those patches of a row go that gave all they are asked for. Not before the region is through with the row: regions may overlap. */
void PatchEngine::RetireRow(std::int64_t row, const Region& patches)
{
  for (std::int64_t i = patches.x0; i < patches.x1; ++i)
  {
    const std::int64_t patch = Id(i, row), support = Support(i, row).Area();
    if (m_Store->GetState(patch) != PatchStore::State::Empty && support > 0 && m_Store->Deliver(patch, 0) >= support)
    {
      m_Store->SetState(patch, PatchStore::State::Done);
    }
  }
}

void PatchEngine::DeliverCore(std::int64_t i, std::int64_t j, const Region& region, const std::vector<ResultPlane>& results)
{
  const Region core = m_Grid.Core(i, j);
  const Region part = Intersection(core, region);
  if (m_Store->GetState(Id(i, j)) == PatchStore::State::Empty)
  {
    FillNoData(part, region, results);
    return;
  }
  const auto data = m_Store->Get(Id(i, j));
  const std::int64_t size = m_Grid.CoreSize();
  const std::int64_t pixels = size * size;
  for (std::size_t r = 0; r < results.size(); ++r)
  {
    for (std::int64_t y = part.y0; y < part.y1; ++y)
    {
      const float* from = data->data() + r * pixels + (y - core.y0) * size + (part.x0 - core.x0);
      float* out = results[r].data + (y - region.y0) * results[r].strideY + (part.x0 - region.x0) * results[r].strideX;
      for (std::int64_t x = 0; x < part.Width(); ++x)
      {
        out[x * results[r].strideX] = from[x];
      }
    }
  }
  Account(i, j, part);
}

/** Cell (a, b) is the square of side S that patches (a..a+1, b..b+1) share. */
void PatchEngine::DeliverCell(std::int64_t a, std::int64_t b, const Region& region, const std::vector<ResultPlane>& results)
{
  const std::int64_t S = m_Grid.Step();
  const Region cell = {a * S, b * S, (a + 1) * S, (b + 1) * S};
  const Region part = Intersection(cell, Intersection(region, m_Grid.Image()));
  PatchStore::Data data[2][2];
  bool empty = false;
  for (int v = 0; v < 2; ++v)
  {
    for (int u = 0; u < 2; ++u)
    {
      // A patch without a valid pixel has none in this cell either.
      empty = empty || m_Store->GetState(Id(a + u, b + v)) == PatchStore::State::Empty;
    }
  }
  if (empty)
  {
    FillNoData(part, region, results);
  }
  else
  {
    for (int v = 0; v < 2; ++v)
    {
      for (int u = 0; u < 2; ++u)
      {
        data[v][u] = m_Store->Get(Id(a + u, b + v));
      }
    }
    const std::int64_t P = m_Grid.Patch();
    const std::ptrdiff_t plane = P * P;
    const int channels = m_Operator->ScoreChannels();
    const auto& noData = m_Operator->NoData();
    const std::ptrdiff_t width = part.Width();
    m_Scores.resize(std::max<std::size_t>(m_Scores.size(), channels * width));
    m_Results.resize(results.size() * width);
    for (std::int64_t y = part.y0; y < part.y1; ++y)
    {
      const std::int64_t v = y - cell.y0;
      const float wy[2] = {m_Hann[S + v], m_Hann[v]};
      const float* rows[2][2];
      for (int s = 0; s < 2; ++s)
      {
        for (int t = 0; t < 2; ++t)
        {
          // The first patch of a pair shows the cell in its second half.
          rows[s][t] = data[s][t]->data() + (v + (s == 0 ? S : 0)) * P + (t == 0 ? S : 0) + (part.x0 - cell.x0);
        }
      }
      for (int c = 0; c < channels; ++c)
      {
        for (std::ptrdiff_t x = 0; x < width; ++x)
        {
          const std::int64_t u = x + part.x0 - cell.x0;
          const std::ptrdiff_t at = c * plane + x;
          const float w0 = m_Hann[S + u], w1 = m_Hann[u];
          m_Scores[c * width + x] = wy[0] * (w0 * rows[0][0][at] + w1 * rows[0][1][at]) + wy[1] * (w0 * rows[1][0][at] + w1 * rows[1][1][at]);
        }
      }
      m_Operator->Decide(m_Scores.data(), width, width, m_Results.data(), width);
      for (std::ptrdiff_t x = 0; x < width; ++x)
      {
        const bool valid = rows[0][0][x] != noDataMark;
        bool good = valid;
        for (int c = 0; good && c < channels; ++c)
        {
          good = std::isfinite(m_Scores[c * width + x]);
        }
        m_Statistics.notFinite += valid && !good;
        for (std::size_t r = 0; r < results.size(); ++r)
        {
          results[r].data[(y - region.y0) * results[r].strideY + (x + part.x0 - region.x0) * results[r].strideX] = good ? m_Results[r * width + x] : noData[r];
        }
      }
    }
  }
  for (int v = 0; v < 2; ++v)
  {
    for (int u = 0; u < 2; ++u)
    {
      Account(a + u, b + v, part);
    }
  }
}

} // namespace dl
} // namespace otb
