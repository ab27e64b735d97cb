/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLPixelEngine.h"

#include "otbDLParallel.h"
#include "otbDLStopwatch.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <future>
#include <numeric>
#include <utility>

namespace otb
{
namespace dl
{

namespace
{
constexpr std::int64_t mostPixels = 1 << 18; ///< of a part: enough for any batch, and progress is seen
constexpr int slotsOfATask = 128;
} // namespace

PixelEngine::PixelEngine(std::shared_ptr<const SeriesPreparation> preparation, std::shared_ptr<SeriesReader> reader, const Files& files,
                         std::shared_ptr<Predictor> predictor, std::shared_ptr<const MapOperator> mapOperator, Settings settings)
    : m_Preparation(std::move(preparation)), m_Reader(std::move(reader)), m_Files(files), m_Predictor(std::move(predictor)), m_Operator(std::move(mapOperator)),
      m_Settings(std::move(settings)), m_Image{0, 0, m_Preparation->Width(), m_Preparation->Height()}, m_Margin(m_Preparation->Contract().tiling.window / 2)
{
  const Region window = m_Settings.window.Empty() ? m_Image : Intersection(m_Settings.window, m_Image);
  m_Statistics.samplesInWindow = window.Empty() ? m_Image.Area() : window.Area();
  m_Slots.resize(m_Predictor->BatchSize());
  m_Counts.resize(m_Preparation->CountedSensors().size() * m_Slots.size());
  for (int k = 0; k < static_cast<int>(m_Preparation->Contract().inputs.size()); ++k)
  {
    m_Inputs.push_back(m_Predictor->Input(k));
  }
}

std::vector<Region> PixelEngine::Parts(const Region& region) const
{
  const std::int64_t bytes = static_cast<std::int64_t>(m_Files.bytesPerPixel + m_Preparation->BytesPerPixel());
  const std::int64_t pixels = std::clamp<std::int64_t>(static_cast<std::int64_t>(m_Settings.readBytes) / bytes, 64, mostPixels);
  const std::int64_t blockWidth = std::max<std::int64_t>(1, std::min(m_Files.blockWidth, m_Image.Width()));
  const std::int64_t blockHeight = std::max<std::int64_t>(1, std::min(m_Files.blockHeight, m_Image.Height()));
  std::int64_t width = region.Width(), height = blockHeight;
  if (pixels >= width * blockHeight)
  {
    height = blockHeight * (pixels / (width * blockHeight));
  }
  else
  {
    width = pixels / height;
    if (width >= blockWidth)
    {
      width -= width % blockWidth;
    }
    else if (width < 16)
    {
      width = std::min<std::int64_t>(16, region.Width());
      height = std::max<std::int64_t>(1, pixels / width);
    }
  }
  std::vector<Region> parts;
  // Cut where the blocks of the files end.
  const auto next = [](std::int64_t at, std::int64_t step, std::int64_t end) { return std::min(end, (at / step + 1) * step); };
  for (std::int64_t y = region.y0; y < region.y1;)
  {
    const std::int64_t bottom = next(y, height, region.y1);
    for (std::int64_t x = region.x0; x < region.x1;)
    {
      const std::int64_t right = width >= region.Width() ? region.x1 : next(x, width, region.x1);
      parts.push_back({x, y, right, bottom});
      x = right;
    }
    y = bottom;
  }
  return parts;
}

void PixelEngine::Produce(const Region& region, const std::vector<ResultPlane>& results, const Progress& progress)
{
  m_Filled = 0;
  const auto parts = Parts(region);
  std::future<SeriesBlock> ahead;
  for (std::size_t i = 0; i < parts.size(); ++i)
  {
    const Region needed = Needed(parts[i]);
    {
      Stopwatch watch(m_Statistics.secondsReading);
      const SeriesBlock block = ahead.valid() ? ahead.get() : m_Reader->Read(needed);
      watch.Stop();
      Prepare(block, needed);
    }
    // What was read is prepared: the next part is read while the network works on this one.
    if (i + 1 < parts.size())
    {
      ahead = std::async(std::launch::async, [this, next = Needed(parts[i + 1])] { return m_Reader->Read(next); });
    }
    InferPart(parts[i], needed, region, results, progress);
  }
  if (m_Filled > 0)
  {
    RunBatch(region, results, progress);
  }
}

/** A part with the neighbours of its border pixels; beyond the image they are mirrored. */
Region PixelEngine::Needed(const Region& part) const
{
  Region needed;
  MirroredInterval(part.x0 - m_Margin, part.x1 + m_Margin, m_Image.Width(), needed.x0, needed.x1);
  MirroredInterval(part.y0 - m_Margin, part.y1 + m_Margin, m_Image.Height(), needed.y0, needed.y1);
  return needed;
}

void PixelEngine::Prepare(const SeriesBlock& block, const Region& needed)
{
  Stopwatch watch(m_Statistics.secondsPacking);
  const std::size_t width = needed.Width();
  m_Preparation->Allocate(m_Prepared, needed.Area());
  std::vector<std::ptrdiff_t> columns(width);
  std::iota(columns.begin(), columns.end(), needed.x0 - block.region.x0);
  ParallelFor(static_cast<int>(needed.Height()), m_Settings.threads,
              [&](int y) { m_Preparation->PrepareRow(block, columns, needed.y0 + y - block.region.y0, m_Prepared, y * width); });
}

void PixelEngine::InferPart(const Region& part, const Region& needed, const Region& region, const std::vector<ResultPlane>& results, const Progress& progress)
{
  const auto& noData = m_Operator->NoData();
  const std::size_t series = m_Preparation->CountedSensors().size();
  int packed = m_Filled;
  for (std::int64_t y = part.y0; y < part.y1; ++y)
  {
    for (std::int64_t x = part.x0; x < part.x1; ++x)
    {
      const std::size_t p = (y - needed.y0) * needed.Width() + (x - needed.x0);
      if (!m_Prepared.valid[p])
      {
        ++m_Statistics.samplesEmpty;
        for (std::size_t r = 0; r < results.size(); ++r)
        {
          results[r].data[(y - region.y0) * results[r].strideY + (x - region.x0) * results[r].strideX] = noData[r];
        }
        continue;
      }
      for (std::size_t s = 0; s < series; ++s)
      {
        m_Counts[s * m_Slots.size() + m_Filled] = m_Prepared.counts[s * m_Prepared.pixels + p];
      }
      m_Slots[m_Filled++] = {x, y};
      if (m_Filled == static_cast<int>(m_Slots.size()))
      {
        Pack(packed, needed);
        RunBatch(region, results, progress);
        packed = 0;
      }
    }
  }
  Pack(packed, needed);
}

/** Writes the slots from `begin` on. */
void PixelEngine::Pack(int begin, const Region& prepared)
{
  Stopwatch watch(m_Statistics.secondsPacking);
  const int window = 2 * m_Margin + 1, tasks = (m_Filled - begin + slotsOfATask - 1) / slotsOfATask;
  const auto work = [&](int task)
  {
    std::vector<std::vector<int>> validPixels;
    const int first = begin + task * slotsOfATask, last = std::min(m_Filled, first + slotsOfATask);
    for (int n = first; n < last; ++n)
    {
      const Slot& slot = m_Slots[n];
      for (auto& v : validPixels)
      {
        std::fill(v.begin(), v.end(), 0);
      }
      for (int v = 0; v < window; ++v)
      {
        const std::int64_t y = Mirror(slot.y + v - m_Margin, m_Image.Height()) - prepared.y0;
        for (int u = 0; u < window; ++u)
        {
          const std::int64_t x = Mirror(slot.x + u - m_Margin, m_Image.Width()) - prepared.x0;
          const std::size_t p = y * prepared.Width() + x;
          m_Preparation->WriteRow(m_Prepared, p, 1, m_Inputs, n, v, u);
          m_Preparation->CountValid(m_Prepared, p, 1, validPixels);
        }
      }
      m_Preparation->WriteSample(validPixels, window * window, static_cast<double>(slot.x), static_cast<double>(slot.y), m_Inputs, n);
    }
  };
  ParallelFor(std::max(0, tasks), m_Settings.threads, work);
}

void PixelEngine::RunBatch(const Region& region, const std::vector<ResultPlane>& results, const Progress& progress)
{
  if (progress)
  {
    progress(std::min(1., static_cast<double>(m_Statistics.samplesInferred + m_Statistics.samplesEmpty) / static_cast<double>(m_Statistics.samplesInWindow)));
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
    // The batch is one row of pixels to the operator.
    BatchView view = m_Predictor->Output(k);
    view.strideX = view.strideN;
    view.strideN = 0;
    view.strideY = 0;
    outputs.push_back(view);
  }
  const int channels = m_Operator->ScoreChannels(), counted = m_Operator->CountChannels(), made = m_Operator->ResultChannels();
  const auto& noData = m_Operator->NoData();
  const int tasks = (m_Filled + slotsOfATask - 1) / slotsOfATask;
  std::atomic<std::int64_t> notFinite{0};
  const auto decide = [&](int task)
  {
    const int first = task * slotsOfATask, count = std::min(m_Filled - first, slotsOfATask);
    std::vector<float> scores(static_cast<std::size_t>(channels) * count), values(static_cast<std::size_t>(made) * count);
    m_Operator->Score(outputs, 0, {first, 0, first + count, 1}, scores.data());
    for (int s = 0; s < counted; ++s)
    {
      const auto* from = m_Counts.data() + s * m_Slots.size() + first;
      std::copy(from, from + count, scores.data() + static_cast<std::ptrdiff_t>(channels - counted + s) * count);
    }
    m_Operator->Decide(scores.data(), count, count, values.data(), count);
    std::int64_t bad = 0;
    for (int i = 0; i < count; ++i)
    {
      bool good = true;
      for (int c = 0; c < channels; ++c)
      {
        good = good && std::isfinite(scores[static_cast<std::ptrdiff_t>(c) * count + i]);
      }
      bad += !good;
      const Slot& slot = m_Slots[first + i];
      for (int r = 0; r < made; ++r)
      {
        results[r].data[(slot.y - region.y0) * results[r].strideY + (slot.x - region.x0) * results[r].strideX] =
            good ? values[static_cast<std::ptrdiff_t>(r) * count + i] : noData[r];
      }
    }
    notFinite += bad;
  };
  ParallelFor(tasks, m_Settings.threads, decide);
  m_Statistics.notFinite += notFinite;
  m_Filled = 0;
}

} // namespace dl
} // namespace otb
