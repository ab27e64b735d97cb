/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLSeriesPreparation.h"

#include "otbDLError.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

namespace otb
{
namespace dl
{

namespace
{

int FindBand(const std::vector<std::string>& bands, const std::string& name)
{
  const auto it = std::find_if(bands.begin(), bands.end(), [&name](const std::string& b) { return SameBand(b, name); });
  return it == bands.end() ? -1 : static_cast<int>(it - bands.begin());
}

std::string OptionOf(int sensor)
{
  return sensor == 0 ? "il" : "il" + std::to_string(sensor + 1);
}

/** Calls f with a pointer of the type that a view's elements have. */
template <typename TFunction>
void WithType(SampleType type, const void* data, TFunction f)
{
  switch (type)
  {
  case SampleType::UInt8:
    return f(static_cast<const std::uint8_t*>(data));
  case SampleType::Int16:
    return f(static_cast<const std::int16_t*>(data));
  case SampleType::UInt16:
    return f(static_cast<const std::uint16_t*>(data));
  case SampleType::Int32:
    return f(static_cast<const std::int32_t*>(data));
  case SampleType::UInt32:
    return f(static_cast<const std::uint32_t*>(data));
  case SampleType::Float:
    return f(static_cast<const float*>(data));
  case SampleType::Double:
    return f(static_cast<const double*>(data));
  }
}

bool IsValid(MaskMeaning meaning, double value)
{
  switch (meaning)
  {
  case MaskMeaning::ZeroIsValid:
    return value == 0.;
  case MaskMeaning::NotZeroIsValid:
    return value != 0. && !std::isnan(value);
  case MaskMeaning::SceneClassification:
    return value == 2. || (value >= 4. && value <= 7.) || value == 11.;
  }
  return false;
}

/** Values of n bands of one date at some pixels of a row, band after band, pixel after pixel at a distance; whether they are data goes to `valid`. */
template <typename T>
void LoadRun(const T* line, std::ptrdiff_t strideX, const std::vector<std::ptrdiff_t>& columns, std::size_t n, const float* noData, bool anyNoData,
             unsigned int limit, float* out, std::ptrdiff_t outStride, std::uint8_t* valid, std::ptrdiff_t validStride)
{
  for (std::size_t x = 0; x < columns.size(); ++x)
  {
    const T* from = line + columns[x] * strideX;
    float* to = out + static_cast<std::ptrdiff_t>(x) * outStride;
    int bad = 0;
    unsigned int matches = 0;
    for (std::size_t c = 0; c < n; ++c)
    {
      const float v = static_cast<float>(from[c]);
      to[c] = v;
      if (!std::is_integral<T>::value)
      {
        bad |= static_cast<int>(!(v - v == 0.f));
      }
    }
    if (anyNoData)
    {
      for (std::size_t c = 0; c < n; ++c)
      {
        matches += to[c] == noData[c];
      }
    }
    valid[static_cast<std::ptrdiff_t>(x) * validStride] = static_cast<std::uint8_t>(!bad && matches < limit);
  }
}

/** One target date between two valid ones. */
struct Between
{
  int a;
  int b;
  float weight; ///< of b
};

/** Places target dates among the valid source dates; beyond the ends the nearest one holds. */
void Place(const std::vector<Day>& dates, const int* valid, int count, const std::vector<Day>& steps, Between* places)
{
  int p = 0;
  for (std::size_t j = 0; j < steps.size(); ++j)
  {
    const Day day = steps[j];
    while (p + 1 < count && dates[valid[p + 1]] <= day)
    {
      ++p;
    }
    const int a = valid[p];
    if (p + 1 == count || day <= dates[a])
    {
      places[j] = {a, a, 0.f};
    }
    else
    {
      const int b = valid[p + 1];
      places[j] = {a, b, static_cast<float>(static_cast<double>(day - dates[a]) / static_cast<double>(dates[b] - dates[a]))};
    }
  }
}

std::uint8_t And(std::uint8_t a, std::uint8_t b)
{
  return a & b;
}

/** Memory that a thread keeps between rows. */
struct Scratch
{
  std::vector<std::vector<float>> values;       ///< [group]
  std::vector<std::vector<std::uint8_t>> valid; ///< [group]
  std::vector<std::uint8_t> has;                ///< [group]: is there a valid date?
  std::vector<int> list;
  std::vector<float> mixed;
  std::vector<Between> places;
};

Scratch& ThreadScratch()
{
  static thread_local Scratch scratch;
  return scratch;
}

} // namespace

SeriesPreparation::SeriesPreparation(const ModelContract& contract, SeriesSetup setup) : m_Contract(contract), m_Setup(std::move(setup))
{
  m_Setup.sensors.resize(std::max<std::size_t>(m_Setup.sensors.size(), 4));
  for (const auto& s : m_Setup.sensors)
  {
    m_Used.emplace_back(s.bands.size(), std::uint8_t(0));
  }
  m_Plans.resize(m_Contract.inputs.size());
  for (std::size_t k = 0; k < m_Plans.size(); ++k)
  {
    if (m_Contract.inputs[k].role == "sits")
    {
      PlanSeries(k);
    }
    else if (m_Contract.inputs[k].role == "static")
    {
      PlanStatic(k);
    }
  }
  std::sort(m_CountedSensors.begin(), m_CountedSensors.end());
  for (const int s : m_CountedSensors)
  {
    m_CountedNames.push_back(s < static_cast<int>(m_Contract.sensors.size()) ? m_Contract.sensors[s].name : m_Setup.sensors[s].option);
  }
  for (auto& plan : m_Plans)
  {
    for (auto& group : plan.groups)
    {
      const auto it = std::find(m_CountedSensors.begin(), m_CountedSensors.end(), group.counted);
      group.counted = it == m_CountedSensors.end() ? -1 : static_cast<int>(it - m_CountedSensors.begin());
    }
  }
  for (std::size_t k = 0; k < m_Plans.size(); ++k)
  {
    ModelInput& in = m_Contract.inputs[k];
    if (in.of < 0)
    {
      continue;
    }
    const Plan& series = m_Plans[in.of];
    in.steps = m_Contract.inputs[in.of].steps;
    m_Plans[k].lead = series.lead;
    m_Plans[k].steps = series.steps;
    if (in.role == "dates")
    {
      m_Plans[k].encoded.assign(in.steps, in.encoding.padValue);
      const auto codes = EncodeDates(in.encoding, series.steps);
      std::copy(codes.begin(), codes.end(), m_Plans[k].encoded.begin() + series.lead);
    }
    else if (in.role == "month")
    {
      m_Plans[k].encoded = {static_cast<float>(MonthIndex(series.steps.front()))};
    }
  }
}

SeriesPreparation::Group SeriesPreparation::MakeGroup(const ModelInput& input, int sensor, const std::vector<int>& channels, const std::vector<int>& source)
{
  Group group;
  group.sensor = sensor;
  group.channels = channels;
  group.source = source;
  const std::size_t bands = sensor < 0 ? m_Setup.fixedBands.size() : m_Setup.sensors[sensor].bands.size();
  const auto& declared = sensor < 0 ? m_Setup.fixedNoData : m_Setup.sensors[sensor].noData;
  const std::size_t dates = sensor < 0 ? 1 : m_Setup.sensors[sensor].dates.size();
  for (std::size_t t = 0; t < dates; ++t)
  {
    for (const int s : source)
    {
      // The file's word goes before the contract's.
      const auto own = declared.empty() ? std::nullopt : declared[t * bands + s];
      const auto value = own ? own : input.noData;
      group.noData.push_back(value ? static_cast<float>(*value) : std::numeric_limits<float>::quiet_NaN());
      group.hasNoData.push_back(value.has_value());
    }
  }
  if (sensor >= 0)
  {
    for (const int s : source)
    {
      m_Used[sensor][s] = 1;
    }
  }
  return group;
}

void SeriesPreparation::PlanSeries(std::size_t k)
{
  ModelInput& in = m_Contract.inputs[k];
  Plan& plan = m_Plans[k];
  const auto isDerived = [&in](std::size_t b)
  { return std::any_of(in.derived.begin(), in.derived.end(), [b](const NormalisedDifference& d) { return d.band == static_cast<int>(b); }); };
  const auto optional = [this](int sensor)
  { return sensor >= 0 && sensor < static_cast<int>(m_Contract.sensors.size()) && m_Contract.sensors[sensor].optional; };

  // Where each band comes from: its own sensor, else any that names it.
  std::vector<int> sensorOf(in.bands.size(), -2), sourceOf(in.bands.size(), -1);
  for (std::size_t b = 0; b < in.bands.size(); ++b)
  {
    if (isDerived(b))
    {
      continue;
    }
    const int own = in.sensors[b] - 1;
    if (own < 0)
    {
      sensorOf[b] = -1;
      sourceOf[b] = FindBand(m_Setup.fixedBands, in.bands[b]);
      if (sourceOf[b] < 0)
      {
        throw Error(Complaint("static", m_Setup.fixedBands.empty() ? "nothing" : "bands " + Join(m_Setup.fixedBands),
                              "an image with the band " + in.bands[b] + ", which the model takes", "Name the bands of the image with -staticbands."));
      }
      continue;
    }
    sensorOf[b] = own;
    sourceOf[b] = FindBand(m_Setup.sensors[own].bands, in.bands[b]);
    for (int s = 0; sourceOf[b] < 0 && s < static_cast<int>(m_Setup.sensors.size()); ++s)
    {
      if (!m_Setup.sensors[s].dates.empty() && FindBand(m_Setup.sensors[s].bands, in.bands[b]) >= 0)
      {
        sensorOf[b] = s;
        sourceOf[b] = FindBand(m_Setup.sensors[s].bands, in.bands[b]);
      }
    }
    if (sourceOf[b] >= 0 || (m_Setup.sensors[own].dates.empty() && optional(own)))
    {
      continue;
    }
    const std::string name = own < static_cast<int>(m_Contract.sensors.size()) ? " of " + m_Contract.sensors[own].name : "";
    if (m_Setup.sensors[own].dates.empty())
    {
      throw Error(
          Complaint(OptionOf(own), "nothing", "the series" + name + " with the band " + in.bands[b] + ", which the model takes as \"" + in.name + "\"", ""));
    }
    throw Error(Complaint(OptionOf(own), "bands " + Join(m_Setup.sensors[own].bands),
                          "the band " + in.bands[b] + name + ", which the model takes as \"" + in.name + "\"",
                          "Name the bands of a date with -bands" + (own == 0 ? std::string() : std::to_string(own + 1)) + ", in the order of the file."));
  }

  plan.groupOf.assign(in.bands.size(), 0);
  for (int s = -1; s < static_cast<int>(m_Setup.sensors.size()); ++s)
  {
    std::vector<int> channels, source;
    for (std::size_t b = 0; b < in.bands.size(); ++b)
    {
      if (sensorOf[b] == s)
      {
        plan.groupOf[b] = static_cast<int>(plan.groups.size());
        channels.push_back(static_cast<int>(b));
        source.push_back(std::max(0, sourceOf[b]));
      }
    }
    if (channels.empty())
    {
      continue;
    }
    const bool absent = s >= 0 && m_Setup.sensors[s].dates.empty();
    Group group;
    if (absent)
    {
      group.sensor = s;
      group.channels = channels;
    }
    else
    {
      group = MakeGroup(in, s, channels, source);
    }
    group.absent = absent;
    group.required = s >= 0 && !optional(s);
    if (s >= 0 && !absent && std::find(m_CountedSensors.begin(), m_CountedSensors.end(), s) == m_CountedSensors.end())
    {
      group.counted = s; // and its place among those that are counted, once all are known
      m_CountedSensors.push_back(s);
    }
    plan.groups.push_back(std::move(group));
  }
  for (const auto& d : in.derived)
  {
    plan.groupOf[d.band] = plan.groupOf[d.a];
  }

  // Dates: those of the groups, or regular ones.
  const Series* first = nullptr;
  bool same = true;
  Day begin = 0, end = 0;
  for (const auto& g : plan.groups)
  {
    if (g.sensor < 0 || g.absent)
    {
      continue;
    }
    const Series& series = m_Setup.sensors[g.sensor];
    begin = first ? std::min(begin, series.dates.front()) : series.dates.front();
    end = first ? std::max(end, series.dates.back()) : series.dates.back();
    first = first ? first : &series;
    if (series.dates != first->dates)
    {
      same = false;
      if (in.temporal.gapFill != TemporalSpec::GapFill::Grid)
      {
        throw Error(Complaint(series.option, std::to_string(series.dates.size()) + " dates that are not those of " + first->option,
                              "the same dates: the model takes both as \"" + in.name + "\"", "Give both the dates that they have in common."));
      }
    }
  }
  if (!first)
  {
    throw Error(Complaint("il", "nothing", "a series for the model's input \"" + in.name + "\"", ""));
  }
  for (const auto& other : m_Contract.inputs)
  {
    plan.separate = plan.separate || (other.role == "valid" && other.of == static_cast<int>(k) && other.Has(Axis::Bands));
  }
  plan.dates = same ? first->dates : std::vector<Day>();
  const bool grid = in.temporal.gapFill == TemporalSpec::GapFill::Grid;
  plan.steps = grid ? RegularDates(in.temporal, begin, end) : first->dates;
  if (grid && (plan.steps.empty() || plan.steps.front() > end || plan.steps.back() < begin))
  {
    throw Error(Complaint(first->option, "dates from " + ToString(begin) + " to " + ToString(end),
                          "a series that overlaps with the model's dates, " + in.temporal.gridStart + " to " + in.temporal.gridEnd,
                          "Values far from any date would be made up."));
  }
  const int steps = static_cast<int>(plan.steps.size()), length = in.temporal.length;
  const std::string found = std::to_string(steps) + (grid ? " dates on the grid from " + in.temporal.gridStart + " to " + in.temporal.gridEnd : " dates");
  if (in.temporal.policy == TemporalSpec::Policy::Fixed && steps != length)
  {
    throw Error(Complaint(first->option, found, std::to_string(length) + ", the length that the model takes as \"" + in.name + "\"",
                          "Give that many dates, or a model trained on this series."));
  }
  if (in.temporal.policy == TemporalSpec::Policy::Max && steps > length)
  {
    throw Error(Complaint(first->option, found, "at most " + std::to_string(length) + ", which the model takes as \"" + in.name + "\"",
                          "Give fewer dates, the clearest ones say."));
  }
  in.steps = in.temporal.policy == TemporalSpec::Policy::Any ? steps : length;
  plan.lead = in.temporal.padAtStart ? in.steps - steps : 0;
  for (int t = 0; t < steps; ++t)
  {
    for (const auto& s : in.scaling)
    {
      plan.low.push_back(static_cast<float>(s.low));
      plan.high.push_back(static_cast<float>(s.high));
      plan.offset.push_back(static_cast<float>(s.offset));
      plan.divisor.push_back(static_cast<float>(s.divisor));
    }
  }
}

void SeriesPreparation::PlanStatic(std::size_t k)
{
  const ModelInput& in = m_Contract.inputs[k];
  Plan& plan = m_Plans[k];
  std::vector<int> channels, source;
  for (std::size_t b = 0; b < in.bands.size(); ++b)
  {
    channels.push_back(static_cast<int>(b));
    source.push_back(FindBand(m_Setup.fixedBands, in.bands[b]));
    if (source.back() < 0)
    {
      throw Error(Complaint("static", m_Setup.fixedBands.empty() ? "nothing" : "bands " + Join(m_Setup.fixedBands),
                            "an image with the band " + in.bands[b] + ", which the model takes as \"" + in.name + "\"",
                            "Name the bands of the image with -staticbands."));
    }
  }
  plan.groups.push_back(MakeGroup(in, -1, channels, source));
  for (const auto& s : in.scaling)
  {
    plan.low.push_back(static_cast<float>(s.low));
    plan.high.push_back(static_cast<float>(s.high));
    plan.offset.push_back(static_cast<float>(s.offset));
    plan.divisor.push_back(static_cast<float>(s.divisor));
  }
}

std::size_t SeriesPreparation::CountedDates() const
{
  std::size_t most = 0;
  for (const int s : m_CountedSensors)
  {
    most = std::max(most, m_Setup.sensors[s].dates.size());
  }
  return most;
}

bool SeriesPreparation::UsesBand(std::size_t sensor, std::size_t band) const
{
  return m_Used.at(sensor).at(band) != 0;
}

const std::vector<Day>& SeriesPreparation::StepDates(std::size_t input) const
{
  return m_Plans.at(input).steps;
}

std::size_t SeriesPreparation::BytesPerPixel() const
{
  std::size_t bytes = 1 + sizeof(std::uint16_t) * m_CountedNames.size();
  for (const auto& plan : m_Plans)
  {
    bytes += plan.low.size() * sizeof(float) + plan.steps.size() * std::max<std::size_t>(1, plan.groups.size());
  }
  return bytes;
}

void SeriesPreparation::Allocate(PreparedPixels& pixels, std::size_t count) const
{
  pixels.pixels = count;
  pixels.inputs.resize(m_Plans.size());
  for (std::size_t k = 0; k < m_Plans.size(); ++k)
  {
    const Plan& plan = m_Plans[k];
    const bool series = m_Contract.inputs[k].role == "sits";
    pixels.inputs[k].values.resize(plan.low.size() * count);
    pixels.inputs[k].valid.resize(series ? (plan.separate ? plan.groups.size() : 1) * plan.steps.size() * count : 0);
  }
  pixels.valid.resize(count);
  pixels.counts.resize(m_CountedNames.size() * count);
}

void SeriesPreparation::PrepareRow(const SeriesBlock& block, const std::vector<std::ptrdiff_t>& columns, std::ptrdiff_t row, PreparedPixels& out,
                                   std::size_t first) const
{
  std::uint8_t* valid = out.valid.data() + first;
  std::fill_n(valid, columns.size(), std::uint8_t(1));
  if (block.mask.data)
  {
    WithType(block.mask.type, block.mask.data,
             [&](const auto* data)
             {
               for (std::size_t x = 0; x < columns.size(); ++x)
               {
                 const auto m = data[row * block.mask.strideY + columns[x] * block.mask.strideX];
                 valid[x] = m != 0 && m == m && (!m_Setup.maskNoData || static_cast<double>(m) != *m_Setup.maskNoData);
               }
             });
  }
  // A few pixels at a time: their dates and bands, raw and prepared, stay in the cache.
  constexpr std::size_t atOnce = 32;
  for (std::size_t begin = 0; begin < columns.size(); begin += atOnce)
  {
    const std::vector<std::ptrdiff_t> some(columns.begin() + static_cast<std::ptrdiff_t>(begin),
                                           columns.begin() + static_cast<std::ptrdiff_t>(std::min(columns.size(), begin + atOnce)));
    for (std::size_t k = 0; k < m_Plans.size(); ++k)
    {
      if (m_Contract.inputs[k].role == "sits")
      {
        PrepareSeries(k, block, some, row, out, first + begin);
      }
      else if (m_Contract.inputs[k].role == "static")
      {
        PrepareStatic(k, block, some, row, out, first + begin);
      }
    }
  }
}

/** Raw values [pixel][date][channel of the group], and where they are data [pixel][date]. */
void SeriesPreparation::LoadGroup(const Group& group, const ModelInput& input, const SeriesBlock& block, const std::vector<std::ptrdiff_t>& columns,
                                  std::ptrdiff_t row, std::vector<float>& values, std::vector<std::uint8_t>& valid) const
{
  const bool fixed = group.sensor < 0;
  const Series* series = fixed ? nullptr : &m_Setup.sensors[group.sensor];
  const std::size_t bands = fixed ? m_Setup.fixedBands.size() : series->bands.size();
  const std::size_t dates = fixed ? 1 : series->dates.size(), n = group.source.size(), width = columns.size();
  values.resize(width * dates * n);
  valid.resize(width * dates);
  const auto& views = fixed ? block.fixed : block.values[group.sensor];
  const auto outStride = static_cast<std::ptrdiff_t>(dates * n), validStride = static_cast<std::ptrdiff_t>(dates);

  for (std::size_t t = 0; t < dates; ++t)
  {
    const auto view = [&](std::size_t i) -> const SampleView& { return views[t * bands + group.source[i]]; };
    const SampleView& head = view(0);
    bool run = true;
    const std::size_t size = SizeOf(head.type);
    for (std::size_t i = 1; i < n; ++i)
    {
      run = run && view(i).type == head.type && view(i).strideX == head.strideX && view(i).strideY == head.strideY &&
            static_cast<const char*>(view(i).data) == static_cast<const char*>(head.data) + i * size;
    }
    const std::uint8_t* flags = group.hasNoData.data() + t * n;
    const auto speaking = static_cast<unsigned int>(std::count(flags, flags + n, std::uint8_t(1)));
    const unsigned int limit = input.noDataRule == NoDataRule::All ? std::max(1u, speaking) : 1u;
    const float* noData = group.noData.data() + t * n;
    float* out = values.data() + t * n;
    std::uint8_t* ok = valid.data() + t;
    if (run)
    {
      WithType(head.type, head.data,
               [&](const auto* data)
               { LoadRun(data + row * head.strideY, head.strideX, columns, n, noData, speaking > 0, limit, out, outStride, ok, validStride); });
    }
    else
    {
      for (std::size_t i = 0; i < n; ++i)
      {
        const SampleView& v = view(i);
        WithType(v.type, v.data,
                 [&](const auto* data)
                 {
                   for (std::size_t x = 0; x < width; ++x)
                   {
                     out[static_cast<std::ptrdiff_t>(x) * outStride + static_cast<std::ptrdiff_t>(i)] =
                         static_cast<float>(data[row * v.strideY + columns[x] * v.strideX]);
                   }
                 });
      }
      for (std::size_t x = 0; x < width; ++x)
      {
        const float* p = out + static_cast<std::ptrdiff_t>(x) * outStride;
        unsigned int matches = 0;
        bool good = true;
        for (std::size_t i = 0; i < n; ++i)
        {
          good = good && std::isfinite(p[i]);
          matches += flags[i] && p[i] == noData[i];
        }
        ok[static_cast<std::ptrdiff_t>(x) * validStride] = static_cast<std::uint8_t>(good && matches < limit);
      }
    }
    if (!fixed && !series->mean.empty())
    {
      for (std::size_t x = 0; x < width; ++x)
      {
        float* p = out + static_cast<std::ptrdiff_t>(x) * outStride;
        for (std::size_t i = 0; i < n; ++i)
        {
          const std::size_t at = t * bands + group.source[i];
          p[i] = (p[i] - series->mean[at]) / series->divisor[at];
        }
      }
    }
    if (!fixed && !block.masks[group.sensor].empty())
    {
      const SampleView& m = block.masks[group.sensor][t];
      auto none = series->maskNoData.empty() ? std::nullopt : series->maskNoData[t];
      if (none && IsValid(series->masks, *none) && *none == 0.)
      {
        none.reset(); // many masks declare 0, and mean valid by it
      }
      WithType(m.type, m.data,
               [&](const auto* data)
               {
                 for (std::size_t x = 0; x < width; ++x)
                 {
                   const auto value = static_cast<double>(data[row * m.strideY + columns[x] * m.strideX]);
                   ok[static_cast<std::ptrdiff_t>(x) * validStride] &= static_cast<std::uint8_t>(IsValid(series->masks, value) && !(none && value == *none));
                 }
               });
    }
  }
}

/** One step's values of a group to their channels. */
void SeriesPreparation::Put(const Group& group, const float* from, float* step)
{
  const std::size_t n = group.channels.size();
  if (group.channels.back() - group.channels.front() + 1 == static_cast<int>(n))
  {
    std::copy(from, from + n, step + group.channels.front());
    return;
  }
  for (std::size_t i = 0; i < n; ++i)
  {
    step[group.channels[i]] = from[i];
  }
}

void SeriesPreparation::PrepareSeries(std::size_t k, const SeriesBlock& block, const std::vector<std::ptrdiff_t>& columns, std::ptrdiff_t row,
                                      PreparedPixels& out, std::size_t first) const
{
  const ModelInput& in = m_Contract.inputs[k];
  const Plan& plan = m_Plans[k];
  const std::size_t C = in.bands.size(), T = plan.steps.size(), groups = plan.groups.size(), flagGroups = plan.separate ? groups : 1;
  Scratch& scratch = ThreadScratch();
  scratch.values.resize(std::max(scratch.values.size(), groups));
  scratch.valid.resize(std::max(scratch.valid.size(), groups));
  scratch.has.resize(std::max(scratch.has.size(), groups));

  std::size_t combined = groups; // the group whose flags are those of all
  for (std::size_t g = 0; g < groups; ++g)
  {
    const Group& group = plan.groups[g];
    if (group.absent)
    {
      continue;
    }
    LoadGroup(group, in, block, columns, row, scratch.values[g], scratch.valid[g]);
    if (!group.Seen() || plan.separate || plan.dates.empty())
    {
      continue;
    }
    combined = std::min(combined, g);
    auto& all = scratch.valid[combined];
    std::transform(all.begin(), all.end(), scratch.valid[g].begin(), all.begin(), And);
  }

  for (std::size_t x = 0; x < columns.size(); ++x)
  {
    const std::size_t pixel = first + x;
    float* values = out.inputs[k].values.data() + pixel * T * C;
    std::uint8_t* flags = out.inputs[k].valid.data() + pixel * flagGroups * T;
    std::fill_n(flags, flagGroups * T, std::uint8_t(1));
    for (std::size_t g = 0; g < groups; ++g)
    {
      const Group& group = plan.groups[g];
      std::uint8_t* own = flags + (plan.separate ? g * T : 0);
      const int valid = group.Seen() ? FillGroup(in, plan, g, combined < groups ? combined : g, x, values, own) : PutUnseen(plan, g, x, C, values, own);
      scratch.has[g] = valid > 0;
      if (group.counted >= 0)
      {
        out.counts[group.counted * out.pixels + pixel] = static_cast<std::uint16_t>(std::min(valid, 65535));
      }
      if (valid == 0 && group.required)
      {
        out.valid[pixel] = 0;
      }
    }
    FinishPixel(in, plan, values, flags);
  }
}

/** Static bands repeated at each step, or nothing from a sensor that is absent. \return 1 where there is data */
int SeriesPreparation::PutUnseen(const Plan& plan, std::size_t g, std::size_t x, std::size_t C, float* values, std::uint8_t* flags) const
{
  const Group& group = plan.groups[g];
  const Scratch& scratch = ThreadScratch();
  const std::size_t T = plan.steps.size();
  const int good = !group.absent && scratch.valid[g][x] ? 1 : 0;
  if (plan.separate)
  {
    std::fill_n(flags, T, static_cast<std::uint8_t>(good));
  }
  const std::vector<float> none(group.channels.size(), 0.f); // until the fill value takes its place
  for (std::size_t t = 0; t < T; ++t)
  {
    Put(group, good ? scratch.values[g].data() + x * group.channels.size() : none.data(), values + t * C);
  }
  return good;
}

/** Raw values of one sensor at the network's steps, and which of them were seen. \return valid dates */
int SeriesPreparation::FillGroup(const ModelInput& in, const Plan& plan, std::size_t g, std::size_t judge, std::size_t x, float* values,
                                 std::uint8_t* flags) const
{
  const Group& group = plan.groups[g];
  Scratch& scratch = ThreadScratch();
  const auto& dates = m_Setup.sensors[group.sensor].dates;
  const std::size_t C = in.bands.size(), T = plan.steps.size(), n = group.channels.size(), count = dates.size();
  const std::uint8_t* ok = scratch.valid[judge].data() + x * count;
  const float* raw = scratch.values[g].data() + x * count * n;
  scratch.list.resize(count);
  int valid = 0;
  for (std::size_t t = 0; t < count; ++t)
  {
    scratch.list[valid] = static_cast<int>(t);
    valid += ok[t] != 0;
  }
  if (valid == 0)
  {
    std::fill_n(flags, T, std::uint8_t(0));
    const std::vector<float> none(n, 0.f);
    for (std::size_t t = 0; t < T; ++t)
    {
      Put(group, none.data(), values + t * C);
    }
    return 0;
  }
  const auto mode = in.temporal.gapFill;
  if (mode != TemporalSpec::GapFill::Grid)
  {
    std::transform(flags, flags + T, ok, flags, And); // what is interpolated is told as what it is: not seen
  }
  if (mode == TemporalSpec::GapFill::None || (mode == TemporalSpec::GapFill::Linear && valid == static_cast<int>(count)))
  {
    for (std::size_t t = 0; t < T; ++t)
    {
      Put(group, raw + t * n, values + t * C);
    }
    return valid;
  }
  scratch.places.resize(T);
  scratch.mixed.resize(n);
  Place(dates, scratch.list.data(), valid, plan.steps, scratch.places.data());
  for (std::size_t t = 0; t < T; ++t)
  {
    const Between& at = scratch.places[t];
    const float *a = raw + at.a * n, *b = raw + at.b * n;
    if (at.weight != 0.f)
    {
      for (std::size_t i = 0; i < n; ++i)
      {
        scratch.mixed[i] = a[i] + at.weight * (b[i] - a[i]);
      }
      a = scratch.mixed.data();
    }
    Put(group, a, values + t * C);
  }
  return valid;
}

/** Derived bands, scaling, and the fill value where there is no data, whatever came out of the arithmetic. */
void SeriesPreparation::FinishPixel(const ModelInput& in, const Plan& plan, float* values, const std::uint8_t* flags) const
{
  const Scratch& scratch = ThreadScratch();
  const std::size_t C = in.bands.size(), T = plan.steps.size(), groups = plan.groups.size();
  for (const auto& d : in.derived)
  {
    for (std::size_t t = 0; t < T; ++t)
    {
      const float a = values[t * C + d.a], b = values[t * C + d.b], sum = a + b;
      values[t * C + d.band] = sum == 0.f ? 0.f : (a - b) / sum;
    }
  }
  for (std::size_t i = 0; i < T * C; ++i)
  {
    values[i] = (std::min(std::max(values[i], plan.low[i]), plan.high[i]) - plan.offset[i]) / plan.divisor[i];
  }

  // Gaps that are filled leave no bad step but where there is nothing to fill them from; static bands do not know of steps.
  const bool byStep = in.temporal.gapFill == TemporalSpec::GapFill::None;
  const auto set = [](std::uint8_t f) { return f != 0; };
  const bool whole = std::all_of(scratch.has.begin(), scratch.has.begin() + static_cast<std::ptrdiff_t>(groups), set) &&
                     (!byStep || std::all_of(flags, flags + (plan.separate ? groups : 1) * T, set));
  if (whole)
  {
    return;
  }
  const auto bad = [&](std::size_t t, int c)
  {
    const auto g = static_cast<std::size_t>(plan.groupOf[c]);
    return !scratch.has[g] || (byStep && plan.groups[g].sensor >= 0 && !flags[(plan.separate ? g * T : 0) + t]);
  };
  for (std::size_t t = 0; t < T; ++t)
  {
    for (std::size_t c = 0; c < C; ++c)
    {
      if (bad(t, static_cast<int>(c)))
      {
        values[t * C + c] = in.noDataFill;
      }
    }
    for (const auto& d : in.derived)
    {
      if (bad(t, d.a) || bad(t, d.b))
      {
        values[t * C + d.band] = in.noDataFill;
      }
    }
  }
}

void SeriesPreparation::PrepareStatic(std::size_t k, const SeriesBlock& block, const std::vector<std::ptrdiff_t>& columns, std::ptrdiff_t row,
                                      PreparedPixels& out, std::size_t first) const
{
  const ModelInput& in = m_Contract.inputs[k];
  const Plan& plan = m_Plans[k];
  Scratch& scratch = ThreadScratch();
  scratch.values.resize(std::max<std::size_t>(scratch.values.size(), 1));
  scratch.valid.resize(std::max<std::size_t>(scratch.valid.size(), 1));
  LoadGroup(plan.groups[0], in, block, columns, row, scratch.values[0], scratch.valid[0]);
  const std::size_t C = in.bands.size();
  for (std::size_t x = 0; x < columns.size(); ++x)
  {
    float* values = out.inputs[k].values.data() + (first + x) * C;
    for (std::size_t c = 0; c < C; ++c)
    {
      const float v = std::min(std::max(scratch.values[0][x * C + c], plan.low[c]), plan.high[c]);
      values[c] = scratch.valid[0][x] ? (v - plan.offset[c]) / plan.divisor[c] : in.noDataFill;
    }
  }
}

namespace
{

/** Is a validity input told by date for a whole patch? */
bool ByDate(const ModelInput& in, const Tiling& tiling)
{
  return in.role == "valid" && tiling.unit == SpatialUnit::Patch && !in.Has(Axis::Bands) && !in.Has(Axis::Height);
}

} // namespace

void SeriesPreparation::WriteRow(const PreparedPixels& from, std::size_t first, std::size_t count, std::vector<BatchView>& inputs, int n, std::ptrdiff_t y,
                                 std::ptrdiff_t x) const
{
  for (std::size_t k = 0; k < m_Plans.size(); ++k)
  {
    const ModelInput& in = m_Contract.inputs[k];
    const Plan& plan = m_Plans[k];
    const BatchView& view = inputs[k];
    const std::size_t C = in.bands.size(), T = plan.steps.size();
    if (in.role == "sits")
    {
      const float* values = from.inputs[k].values.data() + first * T * C;
      float* begin = view.At(n, 0, y, x);
      const std::ptrdiff_t lead = plan.lead;
      if (count == 1 && view.strideC == 1 && view.strideT == static_cast<std::ptrdiff_t>(C))
      {
        std::memcpy(begin + lead * view.strideT, values, T * C * sizeof(float));
      }
      else
      {
        for (std::size_t t = 0; t < T; ++t)
        {
          for (std::size_t c = 0; c < C; ++c)
          {
            float* to = begin + (lead + static_cast<std::ptrdiff_t>(t)) * view.strideT + static_cast<std::ptrdiff_t>(c) * view.strideC;
            const float* pixel = values + t * C + c;
            for (std::size_t i = 0; i < count; ++i)
            {
              to[static_cast<std::ptrdiff_t>(i) * view.strideX] = pixel[i * T * C];
            }
          }
        }
      }
      for (std::ptrdiff_t t = 0; t < in.steps; ++t)
      {
        if (t >= lead && t < lead + static_cast<std::ptrdiff_t>(T))
        {
          continue;
        }
        for (std::size_t c = 0; c < C; ++c)
        {
          for (std::size_t i = 0; i < count; ++i)
          {
            begin[t * view.strideT + static_cast<std::ptrdiff_t>(c) * view.strideC + static_cast<std::ptrdiff_t>(i) * view.strideX] = in.temporal.padValue;
          }
        }
      }
    }
    else if (in.role == "static")
    {
      for (std::size_t c = 0; c < C; ++c)
      {
        for (std::size_t i = 0; i < count; ++i)
        {
          *view.At(n, static_cast<std::ptrdiff_t>(c), y, x + static_cast<std::ptrdiff_t>(i)) = from.inputs[k].values[(first + i) * C + c];
        }
      }
    }
    else if (in.role == "valid" && !ByDate(in, m_Contract.tiling))
    {
      const int centre = m_Contract.tiling.window / 2;
      if (!in.Has(Axis::Height) && m_Contract.tiling.unit == SpatialUnit::Pixel && (y != centre || x != centre))
      {
        continue; // of a window without space, the pixel in the middle speaks
      }
      const ModelInput& of = m_Contract.inputs[in.of];
      const Plan& series = m_Plans[in.of];
      const std::size_t groups = series.separate ? series.groups.size() : 1;
      const int bands = in.Has(Axis::Bands) ? static_cast<int>(of.bands.size()) : 1;
      for (std::size_t i = 0; i < count; ++i)
      {
        const std::uint8_t* flags = from.inputs[in.of].valid.data() + (first + i) * groups * T;
        for (std::ptrdiff_t t = 0; t < in.steps; ++t)
        {
          const std::ptrdiff_t own = t - plan.lead;
          const bool real = own >= 0 && own < static_cast<std::ptrdiff_t>(T);
          for (int c = 0; c < bands; ++c)
          {
            bool valid = real;
            for (std::size_t g = 0; real && g < groups; ++g)
            {
              // By band: its own sensor (both sensors of a derived band); else all of them.
              bool concerns = !series.separate || !in.Has(Axis::Bands) ? !series.separate || series.groups[g].Seen() : series.groupOf[c] == static_cast<int>(g);
              for (const auto& d : of.derived)
              {
                concerns = concerns || (in.Has(Axis::Bands) && series.separate && d.band == c && series.groupOf[d.b] == static_cast<int>(g));
              }
              valid = valid && (!concerns || flags[g * T + own] != 0);
            }
            view.At(n, c, y, x + static_cast<std::ptrdiff_t>(i))[t * view.strideT] = valid != in.maskedIsOne ? 1.f : 0.f;
          }
        }
      }
    }
  }
}

void SeriesPreparation::CountValid(const PreparedPixels& from, std::size_t first, std::size_t count, std::vector<std::vector<int>>& validPixels) const
{
  validPixels.resize(m_Plans.size());
  for (std::size_t k = 0; k < m_Plans.size(); ++k)
  {
    const ModelInput& in = m_Contract.inputs[k];
    if (!ByDate(in, m_Contract.tiling))
    {
      continue;
    }
    const Plan& series = m_Plans[in.of];
    const std::size_t groups = series.separate ? series.groups.size() : 1, T = series.steps.size();
    validPixels[k].resize(T, 0);
    for (std::size_t i = first; i < first + count; ++i)
    {
      const std::uint8_t* flags = from.inputs[in.of].valid.data() + i * groups * T;
      for (std::size_t t = 0; t < T; ++t)
      {
        bool valid = true;
        for (std::size_t g = 0; g < groups; ++g)
        {
          valid = valid && ((series.separate && !series.groups[g].Seen()) || flags[g * T + t] != 0);
        }
        validPixels[k][t] += valid;
      }
    }
  }
}

void SeriesPreparation::WriteSample(const std::vector<std::vector<int>>& validPixels, int pixels, double x, double y, std::vector<BatchView>& inputs,
                                    int n) const
{
  for (std::size_t k = 0; k < m_Plans.size(); ++k)
  {
    const ModelInput& in = m_Contract.inputs[k];
    const Plan& plan = m_Plans[k];
    const BatchView& view = inputs[k];
    if (in.role == "dates" || in.role == "month")
    {
      for (std::size_t t = 0; t < plan.encoded.size(); ++t)
      {
        view.At(n, 0, 0, 0)[static_cast<std::ptrdiff_t>(t) * view.strideT] = plan.encoded[t];
      }
    }
    else if (in.role == "latlon")
    {
      const auto position = m_Setup.latLon(x, y);
      *view.At(n, 0, 0, 0) = position.first;
      *view.At(n, 1, 0, 0) = position.second;
    }
    else if (ByDate(in, m_Contract.tiling))
    {
      for (std::ptrdiff_t t = 0; t < in.steps; ++t)
      {
        const std::ptrdiff_t own = t - plan.lead;
        const bool real = own >= 0 && own < static_cast<std::ptrdiff_t>(plan.steps.size());
        const int count = real ? validPixels[k][own] : 0;
        const bool valid = count > 0 && count * (1. + 1e-9) >= in.minValid * pixels; // shares like .07 are not exact
        view.At(n, 0, 0, 0)[t * view.strideT] = valid != in.maskedIsOne ? 1.f : 0.f;
      }
    }
  }
}

} // namespace dl
} // namespace otb
