/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLSeriesScene_h
#define otbDLSeriesScene_h

// Series in memory, contracts for them, and a network that sums what it is given.
#include "otbDLPredictor.h"
#include "otbDLSeriesPreparation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace otbtest
{

using namespace otb::dl;

constexpr float NaN = std::numeric_limits<float>::quiet_NaN();
constexpr float Inf = std::numeric_limits<float>::infinity();

/** Images of several bands in memory, of any type, interleaved or band after band. */
class Layers
{
public:
  Layers() = default;
  Layers(int width, int height, int bands, SampleType type, bool interleaved)
      : m_Width(width), m_Height(height), m_Bands(bands), m_Type(type), m_Interleaved(interleaved), m_Bytes(std::size_t(width) * height * bands * SizeOf(type))
  {
  }
  void Set(std::int64_t x, std::int64_t y, int band, double value)
  {
    void* p = m_Bytes.data() + Offset(x, y, band) * SizeOf(m_Type);
    switch (m_Type)
    {
    case SampleType::UInt8:
      return Put<std::uint8_t>(p, value);
    case SampleType::Int16:
      return Put<std::int16_t>(p, value);
    case SampleType::UInt16:
      return Put<std::uint16_t>(p, value);
    case SampleType::Int32:
      return Put<std::int32_t>(p, value);
    case SampleType::UInt32:
      return Put<std::uint32_t>(p, value);
    case SampleType::Float:
      return Put<float>(p, value);
    case SampleType::Double:
      return Put<double>(p, value);
    }
  }
  SampleView View(const Region& region, int band) const
  {
    const std::ptrdiff_t step = m_Interleaved ? m_Bands : 1;
    return {m_Bytes.data() + Offset(region.x0, region.y0, band) * SizeOf(m_Type), m_Type, step, step * m_Width};
  }

private:
  template <typename T>
  static void Put(void* p, double value)
  {
    *static_cast<T*>(p) = static_cast<T>(value);
  }
  std::size_t Offset(std::int64_t x, std::int64_t y, int band) const
  {
    return m_Interleaved ? (y * m_Width + x) * m_Bands + band : (std::int64_t(band) * m_Height + y) * m_Width + x;
  }
  std::int64_t m_Width = 0, m_Height = 0;
  int m_Bands = 0;
  SampleType m_Type = SampleType::Float;
  bool m_Interleaved = true;
  std::vector<char> m_Bytes;
};

/** Sensors, their masks and the static image, in memory. */
class Scene : public SeriesReader
{
public:
  Scene(int width, int height)
  {
    setup.width = width;
    setup.height = height;
  }

  /** All pixels are 0. Without dates the sensor is absent. */
  int AddSensor(const std::vector<Day>& dates, const std::vector<std::string>& bands, SampleType type = SampleType::Float, bool interleaved = true)
  {
    Series series;
    series.dates = dates;
    series.bands = bands;
    series.option = setup.sensors.empty() ? "il" : "il" + std::to_string(setup.sensors.size() + 1);
    setup.sensors.push_back(series);
    m_Values.emplace_back(dates.size(),
                          Layers(static_cast<int>(setup.width), static_cast<int>(setup.height), static_cast<int>(bands.size()), type, interleaved));
    m_Masks.emplace_back();
    return static_cast<int>(setup.sensors.size()) - 1;
  }
  void AddMasks(int sensor, MaskMeaning meaning, SampleType type = SampleType::UInt8)
  {
    setup.sensors[sensor].masks = meaning;
    m_Masks[sensor].assign(setup.sensors[sensor].dates.size(), Layers(static_cast<int>(setup.width), static_cast<int>(setup.height), 1, type, true));
  }
  void AddFixed(const std::vector<std::string>& bands)
  {
    setup.fixedBands = bands;
    setup.fixedNoData.resize(bands.size());
    m_Fixed = Layers(static_cast<int>(setup.width), static_cast<int>(setup.height), static_cast<int>(bands.size()), SampleType::Float, true);
  }
  void Set(int sensor, int date, int band, double value, std::int64_t x = 0, std::int64_t y = 0) { m_Values[sensor][date].Set(x, y, band, value); }
  /** One band of a pixel, a value a date. */
  void SetDates(int sensor, int band, const std::vector<double>& values, std::int64_t x = 0, std::int64_t y = 0)
  {
    for (std::size_t t = 0; t < values.size(); ++t)
    {
      Set(sensor, static_cast<int>(t), band, values[t], x, y);
    }
  }
  void SetMask(int sensor, int date, double value, std::int64_t x = 0, std::int64_t y = 0) { m_Masks[sensor][date].Set(x, y, 0, value); }
  void SetFixed(int band, double value, std::int64_t x = 0, std::int64_t y = 0) { m_Fixed.Set(x, y, band, value); }

  SeriesBlock Read(const Region& region) override
  {
    EXPECT_FALSE(region.Empty());
    EXPECT_EQ(Intersection(region, Region{0, 0, setup.width, setup.height}), region) << "reads leave the image";
    reads.push_back(region);
    SeriesBlock block;
    block.region = region;
    for (std::size_t s = 0; s < setup.sensors.size(); ++s)
    {
      std::vector<SampleView> values, masks;
      for (const auto& date : m_Values[s])
      {
        for (int b = 0; b < static_cast<int>(setup.sensors[s].bands.size()); ++b)
        {
          values.push_back(date.View(region, b));
        }
      }
      for (const auto& date : m_Masks[s])
      {
        masks.push_back(date.View(region, 0));
      }
      block.values.push_back(values);
      block.masks.push_back(masks);
    }
    for (int b = 0; b < static_cast<int>(setup.fixedBands.size()); ++b)
    {
      block.fixed.push_back(m_Fixed.View(region, b));
    }
    if (!mask.empty())
    {
      block.mask = {mask.data() + region.y0 * setup.width + region.x0, SampleType::Float, 1, static_cast<std::ptrdiff_t>(setup.width)};
    }
    return block;
  }

  SeriesSetup setup;
  std::vector<float> mask; ///< of the whole image, or empty
  std::vector<Region> reads;

private:
  std::vector<std::vector<Layers>> m_Values, m_Masks; ///< [sensor][date]
  Layers m_Fixed;
};

/** Dates at these days from 2021-01-01. */
inline std::vector<Day> Days(const std::vector<int>& days)
{
  std::vector<Day> dates;
  for (const int d : days)
  {
    dates.push_back(MakeDay(2021, 1, 1) + d);
  }
  return dates;
}

/** A contract for single pixels, or windows, without inputs. */
inline ModelContract PixelContract(int window = 1)
{
  ModelContract contract;
  contract.id = "test";
  contract.task = "time-series-classification";
  contract.tiling.unit = SpatialUnit::Pixel;
  contract.tiling.window = window;
  return contract;
}

inline const std::vector<Axis> byPixel = {Axis::Batch, Axis::Time, Axis::Bands};
inline const std::vector<Axis> byPatch = {Axis::Batch, Axis::Time, Axis::Bands, Axis::Height, Axis::Width};

/** A series of raw values of one sensor, of any number of dates. */
inline ModelInput Sits(const std::vector<std::string>& bands, TemporalSpec::GapFill fill = TemporalSpec::GapFill::None, int sensor = 1)
{
  ModelInput in;
  in.name = "x";
  in.role = "sits";
  in.bands = bands;
  in.scaling.resize(bands.size());
  in.sensors.assign(bands.size(), sensor);
  in.axes = byPixel;
  in.temporal.gapFill = fill;
  return in;
}

/** What goes with input `of`. */
inline ModelInput With(const std::string& role, int of, const std::vector<Axis>& axes)
{
  ModelInput in;
  in.name = role;
  in.role = role;
  in.of = of;
  in.axes = axes;
  return in;
}

/** Memory as a network wants it, dense; and a network whose output c is the sum of all that a slot holds, element i taken 1 + (i + c) % 7 times. */
class SumPredictor : public Predictor
{
public:
  /** \param side of patch or window \param channels 0: no output \param call slots of a forward */
  SumPredictor(const ModelContract& contract, int batch, int side, int channels = 1, int call = 0)
      : m_Inputs(contract.inputs), m_Batch(batch), m_Call(call > 0 ? call : batch), m_Channels(channels), m_Out(std::size_t(batch) * channels)
  {
    for (const auto& in : contract.inputs)
    {
      std::vector<int> sizes;
      for (const Axis axis : in.axes)
      {
        const int bands = static_cast<int>(in.role == "valid" ? contract.inputs[in.of].bands.size() : in.role == "latlon" ? 2 : in.bands.size());
        sizes.push_back(axis == Axis::Batch ? batch : axis == Axis::Time ? in.steps : axis == Axis::Bands ? bands : side);
      }
      m_Sizes.push_back(sizes);
      std::size_t elements = 1;
      for (const int size : sizes)
      {
        elements *= size;
      }
      m_Memory.emplace_back(elements, -99.f); // never what a test expects
    }
  }
  int BatchSize() const override { return m_Batch; }
  int CallSize() const override { return m_Call; }
  int Outputs() const override { return 1; }
  BatchView Input(int k) override
  {
    BatchView view;
    view.data = m_Memory[k].data();
    view.channels = 1;
    std::ptrdiff_t stride = 1;
    for (int a = static_cast<int>(m_Sizes[k].size()) - 1; a >= 0; --a)
    {
      switch (m_Inputs[k].axes[a])
      {
      case Axis::Batch:
        view.strideN = stride;
        break;
      case Axis::Time:
        view.strideT = stride;
        view.steps = m_Sizes[k][a];
        break;
      case Axis::Bands:
        view.strideC = stride;
        view.channels = m_Sizes[k][a];
        break;
      case Axis::Height:
        view.strideY = stride;
        break;
      case Axis::Width:
        view.strideX = stride;
        break;
      }
      stride *= m_Sizes[k][a];
    }
    return view;
  }
  BatchView Output(int) override { return {m_Out.data(), m_Channels, m_Channels, 1, 0, 0}; }
  void Run(int filled) override
  {
    EXPECT_GT(filled, 0);
    EXPECT_LE(filled, m_Batch);
    calls += (filled + m_Call - 1) / m_Call;
    runs.push_back(filled);
    for (int n = 0; n < filled; ++n)
    {
      for (int c = 0; c < m_Channels; ++c)
      {
        m_Out[std::size_t(n) * m_Channels + c] = Sum(n, c);
      }
      if (remember)
      {
        seen.insert(Slot(0, n));
      }
    }
  }
  /** What input k holds in a slot, in the order of its axes. */
  std::vector<float> Slot(int k, int n = 0) const
  {
    const auto size = static_cast<std::ptrdiff_t>(m_Memory[k].size()) / m_Batch;
    return {m_Memory[k].begin() + n * size, m_Memory[k].begin() + (n + 1) * size};
  }
  float Sum(int n, int c) const
  {
    double sum = 0.;
    for (std::size_t k = 0; k < m_Memory.size(); ++k)
    {
      int i = 0;
      for (const float v : Slot(static_cast<int>(k), n))
      {
        sum += (1 + (i++ + c) % 7) * static_cast<double>(v);
      }
    }
    return sum > nanAbove ? NaN : static_cast<float>(sum);
  }
  int calls = 0;
  std::vector<int> runs; ///< slots of each Run()
  bool remember = false;
  std::set<std::vector<float>> seen; ///< what input 0 held, if to be remembered
  double nanAbove = std::numeric_limits<double>::infinity();

private:
  std::vector<ModelInput> m_Inputs;
  int m_Batch, m_Call, m_Channels;
  std::vector<std::vector<int>> m_Sizes;
  std::vector<std::vector<float>> m_Memory;
  std::vector<float> m_Out;
};

/** What an Error says. */
template <typename F>
std::string ErrorOf(F&& call)
{
  try
  {
    call();
  }
  catch (const Error& e)
  {
    return e.what();
  }
  return "no error";
}

} // namespace otbtest

#endif
