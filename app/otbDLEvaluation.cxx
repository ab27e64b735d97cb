/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLEvaluation.h"

#include "otbDLError.h"
#include "otbDLGdal.h"
#include "otbDLSceneScore.h"

#include <cpl_conv.h>
#include <cpl_error.h>
#include <cpl_string.h>
#include <gdal.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <limits>
#include <mutex>
#include <sstream>
#include <unistd.h>
#include <unordered_map>

namespace otb
{
namespace Wrapper
{

namespace fs = std::filesystem;
using dl::Complaint;
using dl::Error;

namespace
{
constexpr float nothing = std::numeric_limits<float>::quiet_NaN();
constexpr std::int64_t cellSide = dl::sceneCell;

bool Holds(const std::vector<float>& values, float value)
{
  return std::find(values.begin(), values.end(), value) != values.end();
}

std::string Listed(const std::vector<float>& values)
{
  std::ostringstream text;
  for (std::size_t k = 0; k < values.size() && k < 8; ++k)
  {
    text << (k ? ", " : "") << values[k];
  }
  return text.str() + (values.size() > 8 ? " ..." : "");
}

/** Adds to a short list of distinct values. */
void Note(std::vector<float>* values, float value)
{
  if (values && values->size() < 8 && !Holds(*values, value))
  {
    values->push_back(value);
  }
}

/** The map of errors while it is written; removed unless it is finished. */
class ErrorsFile
{
public:
  ErrorsFile(const std::string& file, const EvaluationReader& grid, const std::vector<std::pair<std::string, std::string>>& creation) : m_File(file)
  {
    const fs::path path(file);
    m_Part = (path.parent_path() / (path.stem().string() + ".part-" + std::to_string(getpid()) + path.extension().string())).string();
    char** options = nullptr;
    for (const auto& [key, value] : {std::pair<const char*, const char*>{"TILED", "YES"}, {"COMPRESS", "DEFLATE"}, {"BIGTIFF", "IF_SAFER"}})
    {
      options = CSLSetNameValue(options, key, value);
    }
    for (const auto& [key, value] : creation)
    {
      options = CSLSetNameValue(options, key.c_str(), value.c_str());
    }
    m_Dataset = GDALCreate(GDALGetDriverByName("GTiff"), m_Part.c_str(), static_cast<int>(grid.Width()), static_cast<int>(grid.Height()), 1, GDT_Byte, options);
    CSLDestroy(options);
    Check(m_Dataset != nullptr);
    const auto& place = grid.GetGeoreference();
    if (place.placed)
    {
      double transform[6];
      std::copy(place.transform, place.transform + 6, transform);
      GDALSetGeoTransform(m_Dataset, transform);
      GDALSetProjection(m_Dataset, place.projection.c_str());
    }
    GDALRasterBandH band = GDALGetRasterBand(m_Dataset, 1);
    // Okabe and Ito's colours, which the colour-blind tell apart.
    GDALColorTableH colours = GDALCreateColorTable(GPI_RGB);
    const std::pair<int, GDALColorEntry> entries[] = {
        {0, {235, 235, 235, 255}}, {1, {0, 158, 115, 255}}, {2, {213, 94, 0, 255}}, {3, {0, 114, 178, 255}}, {255, {0, 0, 0, 0}}};
    for (const auto& [value, colour] : entries)
    {
      GDALSetColorEntry(colours, value, &colour);
    }
    GDALSetRasterColorTable(band, colours);
    GDALDestroyColorTable(colours);
    GDALSetRasterNoDataValue(band, 255.);
    char** names = nullptr;
    for (const char* name : {"TN: no change", "TP: change found", "FP: false alarm", "FN: change missed"})
    {
      names = CSLAddString(names, name);
    }
    GDALSetRasterCategoryNames(band, names);
    CSLDestroy(names);
    GDALSetDescription(band, "errors");
  }
  ~ErrorsFile()
  {
    if (m_Dataset)
    {
      const otb::dl::QuietGdal quiet;
      GDALClose(m_Dataset);
    }
    std::error_code ec;
    fs::remove(m_Part, ec);
    fs::remove(m_Part + ".aux.xml", ec);
  }
  ErrorsFile(const ErrorsFile&) = delete;
  ErrorsFile& operator=(const ErrorsFile&) = delete;

  void Write(const dl::Region& part, std::uint8_t* pixels)
  {
    const auto w = static_cast<int>(part.Width()), h = static_cast<int>(part.Height());
    Check(GDALRasterIO(GDALGetRasterBand(m_Dataset, 1), GF_Write, static_cast<int>(part.x0), static_cast<int>(part.y0), w, h, pixels, w, h, GDT_Byte, 0, 0) ==
          CE_None);
  }
  void Finish()
  {
    CPLErrorReset();
    GDALClose(m_Dataset);
    m_Dataset = nullptr;
    Check(CPLGetLastErrorType() < CE_Failure);
    std::error_code ec;
    for (const char* added : {".aux.xml", ".ovr", ".msk"})
    {
      fs::remove(m_File + added, ec);
    }
    if (fs::exists(m_Part + ".aux.xml", ec))
    {
      fs::rename(m_Part + ".aux.xml", m_File + ".aux.xml");
    }
    fs::rename(m_Part, m_File);
  }

private:
  void Check(bool good) const
  {
    if (!good)
    {
      throw Error(
          Complaint("errors", "that \"" + m_File + "\" cannot be written (" + CPLGetLastErrorMsg() + ")", "a writable file name and room on the disk", ""));
    }
  }

  std::string m_File;
  std::string m_Part;
  GDALDatasetH m_Dataset = nullptr;
};
} // namespace

float EvaluationLabels::Mapped(float value) const
{
  for (const auto& [from, to] : map)
  {
    if (value == from)
    {
      return to;
    }
  }
  return value;
}

int EvaluationLabels::Change(float value) const
{
  if (change.empty())
  {
    return noChange.empty() ? value != 0.f : !Holds(noChange, value);
  }
  if (Holds(change, value))
  {
    return 1;
  }
  return noChange.empty() || Holds(noChange, value) ? 0 : unlabelled;
}

int EvaluationLabels::Class(float value) const
{
  const auto found = std::find(classes.begin(), classes.end(), value);
  return found == classes.end() ? unknown : static_cast<int>(found - classes.begin());
}

EvaluationCounts::EvaluationCounts(int classes, std::size_t bins) : score(bins)
{
  if (classes > 0)
  {
    const int codes = dl::FromToCode(classes).Codes();
    fromTo = dl::ConfusionMatrix(codes);
    dates[0] = dates[1] = dl::ConfusionMatrix(classes);
    semanticBlocks = dl::BlockTable(static_cast<std::size_t>(codes) * codes);
  }
}

void EvaluationCounts::Add(const EvaluationCounts& o)
{
  pixels += o.pixels;
  evaluated += o.evaluated;
  noData += o.noData;
  noReference += o.noReference;
  masked += o.masked;
  unlabelled += o.unlabelled;
  binary.Add(o.binary);
  binaryBlocks.Add(o.binaryBlocks);
  score.Add(o.score);
  scoreBlocks.Add(o.scoreBlocks);
  calibration.Add(o.calibration);
  fromTo.Add(o.fromTo);
  dates[0].Add(o.dates[0]);
  dates[1].Add(o.dates[1]);
  semanticBlocks.Add(o.semanticBlocks);
  const double matches = static_cast<double>(objects.matched + o.objects.matched);
  const double ious = (objects.matched > 0 ? objects.meanIou * static_cast<double>(objects.matched) : 0.) +
                      (o.objects.matched > 0 ? o.objects.meanIou * static_cast<double>(o.objects.matched) : 0.);
  const bool first = objects.blocks.Blocks() == 0 && objects.predicted + objects.reference == 0;
  objects.areaKnown = first ? o.objects.areaKnown : objects.areaKnown && o.objects.areaKnown;
  objects.predicted += o.objects.predicted;
  objects.reference += o.objects.reference;
  objects.matched += o.objects.matched;
  objects.predictedPixels += o.objects.predictedPixels;
  objects.referencePixels += o.objects.referencePixels;
  objects.matchedPixels += o.objects.matchedPixels;
  objects.predictedArea += o.objects.predictedArea;
  objects.referenceArea += o.objects.referenceArea;
  objects.matchedArea += o.objects.matchedArea;
  objects.meanIou = matches > 0. ? ious / matches : std::nan("");
  objects.blocks.Add(o.objects.blocks);
}

PairEvaluation::PairEvaluation(const EvaluationFiles& files, const EvaluationSettings& settings) : m_Files(files), m_Settings(settings)
{
  const bool resample = settings.resample;
  m_In.labels = settings.in;
  m_Ref.labels = settings.ref;
  m_In.option = "in (" + fs::path(SplitName(files.in).first).filename().string() + ")";
  m_In.first = m_Reader.Add(files.in, m_In.option, false);
  if (!files.in2.empty())
  {
    m_In.second = m_Reader.Add(files.in2, "in2", resample);
  }
  if (!files.inChange.empty())
  {
    m_In.change = m_Reader.Add(files.inChange, "inchange", resample);
  }
  if (!files.ref.empty())
  {
    m_Ref.option = "ref (" + fs::path(SplitName(files.ref).first).filename().string() + ")";
    m_Ref.first = EvaluationReader::IsVector(files.ref) ? m_Reader.AddVector(files.ref, m_Ref.option, settings.layer, settings.field)
                                                        : m_Reader.Add(files.ref, m_Ref.option, resample);
  }
  if (!files.ref2.empty())
  {
    m_Ref.second = m_Reader.Add(files.ref2, "ref2", resample);
  }
  if (!files.refChange.empty())
  {
    m_Ref.change = m_Reader.Add(files.refChange, "refchange", resample);
  }
  if (!files.mask.empty())
  {
    m_Mask = m_Reader.Add(files.mask, "mask", resample, 0.);
  }
}

void PairEvaluation::ForCells(const std::function<void(const dl::Region&)>& before, const std::function<void(const dl::Region&)>& work,
                              const Progress& progress)
{
  const std::size_t planes =
      static_cast<std::size_t>((m_In.second >= 0) + (m_In.change >= 0) + (m_Ref.first >= 0) + (m_Ref.second >= 0) + (m_Ref.change >= 0) + (m_Mask >= 0) + 1);
  // As floats, and once more on their way through the readers.
  const auto pixels = static_cast<std::int64_t>(m_Settings.memory / (planes * 2 * sizeof(float) + 2));
  dl::ForCells({0, 0, m_Reader.Width(), m_Reader.Height()}, pixels, m_Settings.threads, before, work, progress);
}

bool PairEvaluation::IsNoData(int plane, const EvaluationLabels& labels, float value) const
{
  const auto declared = m_Reader.NoData(plane);
  return std::isnan(value) || (labels.none.empty() ? declared && value == *declared : Holds(labels.none, value));
}

int PairEvaluation::Decode(const EvaluationSide& side, std::int64_t y, std::int64_t x, int* classes, std::vector<float>* odd) const
{
  using Labels = EvaluationLabels;
  const auto& labels = side.labels;
  const float raw = m_Reader.Row(side.first, y)[x];
  if (IsNoData(side.first, labels, raw))
  {
    return Labels::noData;
  }
  const float a = labels.Mapped(raw);
  if (labels.coding == Labels::Coding::Binary)
  {
    const int change = labels.Change(a);
    if (change == 1 && odd)
    {
      Note(odd, a);
    }
    return change;
  }
  const dl::FromToCode codes(static_cast<int>(labels.classes.size()));
  if (labels.coding == Labels::Coding::FromTo)
  {
    if (a == std::floor(a) && a >= 0.f && a < static_cast<float>(codes.Codes()))
    {
      return static_cast<int>(a);
    }
    Note(odd, a);
    return Labels::unknown;
  }
  const float raw2 = m_Reader.Row(side.second, y)[x];
  if (IsNoData(side.second, labels, raw2))
  {
    return Labels::noData;
  }
  const float b = labels.Mapped(raw2);
  if (labels.coding == Labels::Coding::Masked && a == 0.f && b == 0.f)
  {
    return 0;
  }
  classes[0] = labels.Class(a);
  classes[1] = labels.Class(b);
  if (classes[0] < 0 || classes[1] < 0)
  {
    Note(odd, classes[0] < 0 ? a : b);
    return Labels::unknown;
  }
  bool change = labels.coding == Labels::Coding::Masked || classes[0] != classes[1];
  if (labels.coding == Labels::Coding::Full && side.change >= 0)
  {
    const float c = m_Reader.Row(side.change, y)[x];
    const auto declared = m_Reader.NoData(side.change);
    const int said = std::isnan(c) || (declared && c == *declared) ? Labels::noData : labels.Change(c);
    if (said < 0)
    {
      return said;
    }
    change = said == 1;
  }
  return change ? codes.Of(classes[0], classes[1]) : 0;
}

PairEvaluation::State PairEvaluation::Look(std::int64_t y, std::int64_t x, Pixel& pixel, std::vector<float>* oddIn, std::vector<float>* oddRef) const
{
  if (m_Mask >= 0)
  {
    const float valid = m_Reader.Row(m_Mask, y)[x];
    if (valid == 0.f || std::isnan(valid))
    {
      return State::Masked;
    }
  }
  if (m_Settings.mode == EvaluationSettings::Mode::Score)
  {
    pixel.score = m_Reader.Row(m_In.first, y)[x];
    pixel.predicted = IsNoData(m_In.first, m_In.labels, pixel.score) || !std::isfinite(pixel.score) ? EvaluationLabels::noData : 0;
  }
  else
  {
    pixel.predicted = Decode(m_In, y, x, pixel.predictedClasses, oddIn);
  }
  if (pixel.predicted == EvaluationLabels::noData)
  {
    return State::NoData;
  }
  pixel.reference = Decode(m_Ref, y, x, pixel.referenceClasses, oddRef);
  if (pixel.reference == EvaluationLabels::noData)
  {
    return State::NoReference;
  }
  return pixel.predicted < 0 || pixel.reference < 0 ? State::Unlabelled : State::Evaluated;
}

void PairEvaluation::AddScores(dl::ScoreBinsBuilder& bins, const Progress& progress)
{
  ForCells([&](const dl::Region& part) { m_Reader.Read(part); },
           [&](const dl::Region& cell)
           {
             std::vector<float> row;
             Pixel pixel;
             for (auto y = cell.y0; y < cell.y1; ++y)
             {
               row.clear();
               for (auto x = cell.x0; x < cell.x1; ++x)
               {
                 if (Look(y, x - m_Reader.Left(), pixel, nullptr, nullptr) == State::Evaluated)
                 {
                   row.push_back(pixel.score);
                 }
               }
               bins.Add(row.data(), row.size());
             }
           },
           progress);
}

dl::ScoreHistogram PairEvaluation::Histogram(double low, double high, const Progress& progress)
{
  // As ChangeLikelihood counts: the highest value lies in the last bin.
  constexpr std::size_t bins = 4096;
  dl::ScoreHistogram histogram;
  histogram.low = low;
  histogram.high = high + (high > low ? 1e-6 * (high - low) : 1e-6);
  histogram.counts.assign(bins, 0);
  std::mutex mutex;
  ForCells([&](const dl::Region& part) { m_Reader.Read(part); },
           [&](const dl::Region& cell)
           {
             std::vector<std::int64_t> counts(bins, 0);
             Pixel pixel;
             for (auto y = cell.y0; y < cell.y1; ++y)
             {
               for (auto x = cell.x0; x < cell.x1; ++x)
               {
                 if (Look(y, x - m_Reader.Left(), pixel, nullptr, nullptr) == State::Evaluated)
                 {
                   const double place = (pixel.score - histogram.low) / histogram.Width();
                   ++counts[static_cast<std::size_t>(std::clamp(place, 0., static_cast<double>(bins - 1)))];
                 }
               }
             }
             const std::lock_guard<std::mutex> lock(mutex);
             for (std::size_t b = 0; b < bins; ++b)
             {
               histogram.counts[b] += counts[b];
             }
           },
           progress);
  return histogram;
}

void PairEvaluation::Complain(const EvaluationSide& side, const std::vector<float>& odd) const
{
  using Coding = EvaluationLabels::Coding;
  const auto& labels = side.labels;
  if (labels.coding == Coding::Binary)
  {
    auto sorted = odd;
    std::sort(sorted.begin(), sorted.end());
    throw Error(Complaint(side.option, "the values " + Listed(sorted) + " beside 0", "one value for change",
                          "Say which values mean change and which do not: -refpos, -refneg (OSCD: -refpos 2 -refneg 1)."));
  }
  const auto size = static_cast<int>(labels.classes.size());
  if (labels.coding == Coding::FromTo)
  {
    throw Error(Complaint(side.option, "the values " + Listed(odd),
                          "from-to codes of " + std::to_string(size) + " classes: 0 to " + std::to_string(size * size),
                          "Check -classes and the no-data values."));
  }
  throw Error(Complaint(side.option, "the values " + Listed(odd) + (Holds(odd, 0.f) ? " (0 in one date alone)" : ""),
                        "one of the classes " + Listed(labels.classes),
                        labels.coding == Coding::Masked ? "With masked labels both dates are 0 where nothing changed. Check -classes, no-data values and maps."
                                                        : "Check -classes, the no-data values, and the maps of values."));
}

EvaluationCounts PairEvaluation::Count(const dl::ScoreBins* bins, const std::vector<std::uint32_t>& coarse, const ScoreThreshold* threshold,
                                       const Progress& progress)
{
  using Mode = EvaluationSettings::Mode;
  const bool semantic = m_Settings.mode == Mode::Semantic, score = m_Settings.mode == Mode::Score;
  const int classes = semantic ? static_cast<int>(m_Settings.in.classes.size()) : 0;
  const int codes = dl::FromToCode(classes).Codes();
  const bool everywhere = semantic && m_In.labels.coding == EvaluationLabels::Coding::Full && m_Ref.labels.coding == EvaluationLabels::Coding::Full;
  const bool oneValue = m_Ref.labels.coding == EvaluationLabels::Coding::Binary && m_Ref.labels.change.empty() && m_Ref.labels.noChange.empty();
  const auto width = m_Reader.Width(), height = m_Reader.Height(), side = m_Settings.block;
  const auto wide = (width + side - 1) / side, high = (height + side - 1) / side;
  EvaluationCounts counts(classes, score ? bins->Size() : 0);
  counts.pixels = width * height;

  const auto blocks = static_cast<std::size_t>(wide * high);
  std::vector<std::array<std::uint32_t, 4>> binary(blocks, {0, 0, 0, 0});
  std::vector<std::uint32_t> histograms(score ? blocks * 2 * EvaluationCounts::coarse : 0, 0);
  std::vector<std::unordered_map<std::uint32_t, std::uint32_t>> transitions(semantic ? blocks : 0);
  std::vector<std::unique_ptr<dl::ScoreCounts>> idle;
  std::vector<float> oddIn, oddRef;
  std::mutex mutex;

  std::unique_ptr<ErrorsFile> errors;
  if (!m_Files.errors.empty())
  {
    errors = std::make_unique<ErrorsFile>(m_Files.errors, m_Reader, m_Settings.creation);
  }
  std::vector<std::uint8_t> drawn;
  std::vector<dl::CalibrationSums> calibrations;
  dl::Region current;
  const auto flush = [&]
  {
    for (const auto& c : calibrations)
    {
      counts.calibration.Add(c);
    }
    if (errors && !current.Empty())
    {
      errors->Write(current, drawn.data());
    }
    if (!oddIn.empty())
    {
      Complain(m_In, oddIn);
    }
    if (!oddRef.empty() && (!oneValue || oddRef.size() > 1))
    {
      Complain(m_Ref, oddRef);
    }
  };
  const auto before = [&](const dl::Region& part)
  {
    flush();
    current = part;
    calibrations.assign(score && m_Settings.probability ? static_cast<std::size_t>((part.Width() + cellSide - 1) / cellSide) : 0, {});
    if (errors)
    {
      drawn.resize(static_cast<std::size_t>(part.Area()));
    }
    m_Reader.Read(part);
  };
  const auto work = [&](const dl::Region& cell)
  {
    std::unique_ptr<dl::ScoreCounts> fine;
    if (score)
    {
      const std::lock_guard<std::mutex> lock(mutex);
      if (!idle.empty())
      {
        fine = std::move(idle.back());
        idle.pop_back();
      }
    }
    if (score && !fine)
    {
      fine = std::make_unique<dl::ScoreCounts>(bins->Size());
    }
    // Blocks that the cell touches.
    const auto bx0 = cell.x0 / side, by0 = cell.y0 / side, bw = (cell.x1 - 1) / side - bx0 + 1, bh = (cell.y1 - 1) / side - by0 + 1;
    const auto touched = static_cast<std::size_t>(bw * bh);
    std::vector<std::array<std::uint32_t, 4>> localBinary(touched, {0, 0, 0, 0});
    std::vector<std::uint32_t> localHistograms(score ? touched * 2 * EvaluationCounts::coarse : 0, 0);
    std::vector<std::unordered_map<std::uint32_t, std::uint32_t>> localTransitions(semantic ? touched : 0);
    dl::ConfusionMatrix localDates[2] = {dl::ConfusionMatrix(everywhere ? classes : 0), dl::ConfusionMatrix(everywhere ? classes : 0)};
    dl::CalibrationSums localCalibration;
    std::int64_t left[5] = {0, 0, 0, 0, 0};
    std::vector<float> strangeIn, strangeRef;
    const bool calibrate = !calibrations.empty();
    Pixel pixel;
    for (auto y = cell.y0; y < cell.y1; ++y)
    {
      std::uint8_t* line = errors ? drawn.data() + (y - current.y0) * current.Width() - current.x0 : nullptr;
      const auto row = static_cast<std::size_t>((y / side - by0) * bw);
      std::uint32_t lastCell = 0, run = 0;
      std::size_t lastBlock = 0;
      for (auto x = cell.x0; x < cell.x1; ++x)
      {
        const auto state = Look(y, x - current.x0, pixel, semantic ? &strangeIn : nullptr, semantic || oneValue ? &strangeRef : nullptr);
        ++left[static_cast<int>(state)];
        if (line)
        {
          line[x] = 255;
        }
        if (state != State::Evaluated)
        {
          continue;
        }
        const auto block = row + static_cast<std::size_t>(x / side - bx0);
        bool predicted = pixel.predicted > 0;
        const bool reference = pixel.reference > 0;
        if (score)
        {
          predicted = threshold->above ? pixel.score > threshold->value : pixel.score >= threshold->value;
          const auto bin = bins->Of(pixel.score);
          ++(reference ? fine->change : fine->noChange)[bin];
          ++localHistograms[(2 * block + reference) * EvaluationCounts::coarse + coarse[bin]];
          if (calibrate)
          {
            localCalibration.Add(pixel.score, reference);
          }
        }
        ++localBinary[block][predicted ? (reference ? 0 : 1) : (reference ? 2 : 3)];
        if (line)
        {
          line[x] = predicted ? (reference ? 1 : 2) : (reference ? 3 : 0);
        }
        if (semantic)
        {
          const auto at = static_cast<std::uint32_t>(pixel.predicted * codes + pixel.reference);
          if (run > 0 && (at != lastCell || block != lastBlock))
          {
            localTransitions[lastBlock][lastCell] += run;
            run = 0;
          }
          lastCell = at;
          lastBlock = block;
          ++run;
          if (everywhere)
          {
            for (int d = 0; d < 2; ++d)
            {
              localDates[d].At(pixel.predictedClasses[d], pixel.referenceClasses[d]) += 1.;
            }
          }
        }
      }
      if (run > 0)
      {
        localTransitions[lastBlock][lastCell] += run;
      }
    }
    const std::lock_guard<std::mutex> lock(mutex);
    if (score)
    {
      idle.push_back(std::move(fine));
    }
    if (calibrate)
    {
      calibrations[static_cast<std::size_t>((cell.x0 - current.x0) / cellSide)] = localCalibration;
    }
    counts.evaluated += left[static_cast<int>(State::Evaluated)];
    counts.masked += left[static_cast<int>(State::Masked)];
    counts.noData += left[static_cast<int>(State::NoData)];
    counts.noReference += left[static_cast<int>(State::NoReference)];
    counts.unlabelled += left[static_cast<int>(State::Unlabelled)];
    for (const float v : strangeIn)
    {
      Note(&oddIn, v);
    }
    for (const float v : strangeRef)
    {
      Note(&oddRef, v);
    }
    if (everywhere)
    {
      counts.dates[0].Add(localDates[0]);
      counts.dates[1].Add(localDates[1]);
    }
    for (std::int64_t by = 0; by < bh; ++by)
    {
      for (std::int64_t bx = 0; bx < bw; ++bx)
      {
        const auto local = static_cast<std::size_t>(by * bw + bx), block = static_cast<std::size_t>((by0 + by) * wide + bx0 + bx);
        for (int k = 0; k < 4; ++k)
        {
          binary[block][k] += localBinary[local][k];
        }
        for (std::size_t k = 0; score && k < 2 * EvaluationCounts::coarse; ++k)
        {
          histograms[block * 2 * EvaluationCounts::coarse + k] += localHistograms[local * 2 * EvaluationCounts::coarse + k];
        }
        if (semantic)
        {
          for (const auto& [at, count] : localTransitions[local])
          {
            transitions[block][at] += count;
          }
        }
      }
    }
  };
  ForCells(before, work, progress);
  flush();

  for (std::size_t b = 0; b < blocks; ++b)
  {
    const auto& c = binary[b];
    const std::int64_t all = std::int64_t(c[0]) + c[1] + c[2] + c[3];
    if (all == 0)
    {
      continue;
    }
    counts.binary.Add({static_cast<double>(c[0]), static_cast<double>(c[1]), static_cast<double>(c[2]), static_cast<double>(c[3])});
    const auto bx = static_cast<std::int64_t>(b) % wide, by = static_cast<std::int64_t>(b) / wide;
    counts.binaryBlocks.Add(c, bx, by);
    if (score)
    {
      counts.scoreBlocks.Add(histograms.data() + b * 2 * EvaluationCounts::coarse, bx, by);
    }
    if (semantic)
    {
      std::vector<std::pair<std::uint32_t, std::uint32_t>> entries(transitions[b].begin(), transitions[b].end());
      std::sort(entries.begin(), entries.end());
      for (const auto& [at, count] : entries)
      {
        counts.fromTo.At(static_cast<int>(at) / codes, static_cast<int>(at) % codes) += count;
      }
      counts.semanticBlocks.AddSparse(entries, bx, by);
    }
  }
  for (const auto& one : idle)
  {
    counts.score.Add(*one);
  }
  if (m_Settings.mode == Mode::Object)
  {
    MatchObjects(counts, progress);
  }
  if (errors)
  {
    errors->Finish();
  }
  return counts;
}

void PairEvaluation::MatchObjects(EvaluationCounts& counts, const Progress& progress)
{
  const auto width = m_Reader.Width(), height = m_Reader.Height();
  auto settings = m_Settings.objects;
  settings.block = m_Settings.block;
  double passes = 0.;
  counts.objects = dl::MatchObjects(width, height, settings, SplitName(m_Files.in).first,
                                    [&](const dl::ObjectRowVisit& visit)
                                    {
                                      std::vector<std::int32_t> a(static_cast<std::size_t>(width)), b(static_cast<std::size_t>(width));
                                      Pixel pixel;
                                      // Vectors are burnt in cells of this height anyway; else a few rows do.
                                      const std::int64_t rows = cellSide;
                                      for (std::int64_t y0 = 0; y0 < height; y0 += rows)
                                      {
                                        const auto y1 = std::min(height, y0 + rows);
                                        m_Reader.Read({0, y0, width, y1});
                                        for (auto y = y0; y < y1; ++y)
                                        {
                                          for (std::int64_t x = 0; x < width; ++x)
                                          {
                                            const bool good = Look(y, x, pixel, nullptr, nullptr) == State::Evaluated;
                                            a[static_cast<std::size_t>(x)] = good ? pixel.predicted > 0 : -1;
                                            b[static_cast<std::size_t>(x)] = good ? pixel.reference > 0 : -1;
                                          }
                                          visit(y, a.data(), b.data());
                                        }
                                        progress(.5 * (passes + static_cast<double>(y1) / static_cast<double>(height)));
                                      }
                                      passes += 1.;
                                    });
}

void PairEvaluation::ForRows(const std::function<RowVisit(const dl::Region& cell)>& makeVisit, const Progress& progress)
{
  ForCells([&](const dl::Region& part) { m_Reader.Read(part); },
           [&](const dl::Region& cell)
           {
             const auto visit = makeVisit(cell);
             std::vector<float> map(static_cast<std::size_t>(cell.Width())), reference(map.size());
             for (auto y = cell.y0; y < cell.y1; ++y)
             {
               for (auto x = cell.x0; x < cell.x1; ++x)
               {
                 const auto k = static_cast<std::size_t>(x - cell.x0);
                 const auto at = x - m_Reader.Left();
                 const float valid = m_Mask >= 0 ? m_Reader.Row(m_Mask, y)[at] : 1.f;
                 const float a = m_Reader.Row(m_In.first, y)[at];
                 map[k] = valid == 0.f || std::isnan(valid) || IsNoData(m_In.first, m_In.labels, a) ? nothing : m_In.labels.Mapped(a);
                 const float b = m_Ref.first >= 0 ? m_Reader.Row(m_Ref.first, y)[at] : nothing;
                 reference[k] = m_Ref.first < 0 || IsNoData(m_Ref.first, m_Ref.labels, b) ? nothing : m_Ref.labels.Mapped(b);
               }
               visit(y, cell.x0, cell.Width(), map.data(), reference.data());
             }
           },
           progress);
}

} // namespace Wrapper
} // namespace otb
