/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLApplication.h"
#include "otbDLEvaluation.h"
#include "otbDLEvaluationSample.h"

#include "otbDLAreaEstimate.h"
#include "otbDLError.h"
#include "otbDLThreshold.h"

#include "itkMultiThreader.h"
#include "otbConfigure.h"
#include "otbWrapperApplicationFactory.h"
#include "otbWrapperTags.h"

#include <cpl_conv.h>
#include <gdal.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <sstream>
#include <unistd.h>

namespace otb
{
namespace Wrapper
{

namespace fs = std::filesystem;

namespace
{
using Json = nlohmann::ordered_json;
using Mode = EvaluationSettings::Mode;
using Coding = EvaluationLabels::Coding;
constexpr double undefined = std::numeric_limits<double>::quiet_NaN();

/** Written whole or not at all. */
void WriteText(const std::string& file, const std::string& text, const std::string& option)
{
  const std::string part = file + ".part-" + std::to_string(getpid());
  std::error_code ec;
  {
    std::ofstream out(part, std::ios::binary);
    out << text;
    out.flush();
    if (!out)
    {
      fs::remove(part, ec);
      throw dl::Error(dl::Complaint(option, "\"" + file + "\", which cannot be written", "a writable file name", "Is there room on the disk?"));
    }
  }
  fs::rename(part, file, ec);
  if (ec)
  {
    const std::string reason = ec.message();
    fs::remove(part, ec);
    throw dl::Error(dl::Complaint(option, "that \"" + part + "\" cannot be renamed (" + reason + ")", "the name \"" + file + "\"", ""));
  }
}

std::string Number(double value, int digits = 4)
{
  if (std::isnan(value))
  {
    return "undefined";
  }
  std::ostringstream text;
  text << std::setprecision(digits) << (std::abs(value) <= 1. ? std::fixed : std::defaultfloat) << value;
  return text.str();
}

/** Holds GDAL's cache of blocks to a share of the memory while it lives, unless the user has set it. */
class CacheLimit
{
public:
  explicit CacheLimit(std::size_t bytes) : m_Before(CPLGetConfigOption("GDAL_CACHEMAX", nullptr) ? -1 : GDALGetCacheMax64())
  {
    if (m_Before >= 0)
    {
      GDALSetCacheMax64(static_cast<GIntBig>(std::max<std::size_t>(bytes, std::size_t(4) << 20)));
    }
  }
  ~CacheLimit()
  {
    if (m_Before >= 0)
    {
      GDALSetCacheMax64(m_Before);
    }
  }
  CacheLimit(const CacheLimit&) = delete;
  CacheLimit& operator=(const CacheLimit&) = delete;

private:
  GIntBig m_Before;
};

/** A name of files of several pairs: "errors.tif", second pair -> "errors_2.tif". */
std::string Numbered(const std::string& file, std::size_t pair, std::size_t pairs)
{
  if (pairs < 2)
  {
    return file;
  }
  const fs::path path(file);
  return (path.parent_path() / (path.stem().string() + "_" + std::to_string(pair + 1) + path.extension().string())).string();
}

/** Figures with their intervals. */
struct Group
{
  dl::MetricValues values;
  std::map<std::string, dl::Interval> intervals;
};

Json ToJson(const Group& group)
{
  Json values = Json::object(), intervals = Json::object();
  for (const auto& [name, value] : group.values)
  {
    values[name] = value;
    const auto found = group.intervals.find(name);
    if (found != group.intervals.end())
    {
      const auto& i = found->second;
      intervals[name] = std::isnan(i.low) || std::isnan(i.high) ? Json(nullptr) : Json({i.low, i.high});
    }
  }
  return {{"values", values}, {"intervals", intervals}};
}

Json ToJson(const dl::ConfusionMatrix& h)
{
  Json rows = Json::array();
  for (int p = 0; p < h.Classes(); ++p)
  {
    Json row = Json::array();
    for (int r = 0; r < h.Classes(); ++r)
    {
      row.push_back(static_cast<std::int64_t>(h.At(p, r)));
    }
    rows.push_back(row);
  }
  return rows;
}

Json ToJson(const dl::Estimate& e, double unit = 1.)
{
  return {{"value", e.value * unit}, {"standard_error", e.error * unit}, {"half_width", e.half * unit}};
}

/** Figures of summed counts, for the bootstrap; `names` of those that get an interval. */
Group WithIntervals(dl::MetricValues values, const std::vector<std::string>& names, const dl::BlockTable& blocks,
                    const std::function<dl::MetricValues(const std::vector<double>&)>& metrics, const dl::BootstrapSettings& settings)
{
  Group group;
  group.values = std::move(values);
  const auto statistic = [&](const std::vector<double>& sums)
  {
    const auto all = metrics(sums);
    std::vector<double> some;
    for (const auto& name : names)
    {
      some.push_back(dl::ValueOf(all, name));
    }
    return some;
  };
  const auto intervals = dl::BootstrapIntervals(blocks, statistic, settings);
  const auto whole = [&]
  {
    std::vector<double> sums(blocks.Width(), 0.);
    for (std::size_t b = 0; b < blocks.Blocks(); ++b)
    {
      blocks.AddTo(b, 1., sums);
    }
    return statistic(sums);
  }();
  for (std::size_t k = 0; k < names.size(); ++k)
  {
    // Where blocks are counted more coarsely than the whole, the interval moves with what that makes of the figure.
    const double shift = dl::ValueOf(group.values, names[k]) - whole[k];
    // No interval leaves the range of its figure.
    const double least = names[k] == "kappa" || names[k] == "sek" || names[k] == "score" ? -1. : 0.;
    const auto bounded = [&](double v) { return std::isnan(v) ? v : std::clamp(v + shift, least, 1.); };
    group.intervals[names[k]] = {bounded(intervals[k].low), bounded(intervals[k].high)};
  }
  return group;
}

dl::BinaryCounts BinaryOfSums(const std::vector<double>& sums)
{
  return {sums[0], sums[1], sums[2], sums[3]};
}

const std::vector<std::string> binaryNames = {"precision", "recall", "f1", "iou", "oa", "kappa", "mf1", "miou"};
const std::vector<std::string> semanticNames = {"miou", "sek", "fscd", "score"};
} // namespace

/** \class ChangeEvaluation
 * \brief Measures maps of change against references: decisions, scores, transitions, objects; corrected areas from a sample.
 * \ingroup OTBTorch
 */
class ChangeEvaluation : public DLApplication
{
public:
  using Self = ChangeEvaluation;
  using Superclass = DLApplication;
  using Pointer = itk::SmartPointer<Self>;
  using ConstPointer = itk::SmartPointer<const Self>;

  itkNewMacro(Self);
  itkTypeMacro(ChangeEvaluation, DLApplication);

private:
  void DoInit() override
  {
    SetName("ChangeEvaluation");
    SetDescription("Measure change maps against a reference: decisions, scores, from-to maps, objects; areas corrected for map error.");
    SetDocLongDescription(
        "Compares one or several maps of change with their references, pixel by pixel in one confusion matrix over everything, and pair by pair. Change is "
        "positive. Precision, recall, F1, IoU, kappa; AUROC, average precision, FPR95 and calibration of scores; SeK, Fscd and Score of transitions in both "
        "conventions; objects at an intersection over union of 0.5; intervals by a bootstrap of blocks.\n\n"
        "With -mode sample it draws a stratified sample of a map to be labelled, and turns the labelled sample into areas and accuracies with their intervals "
        "(Olofsson et al. 2014).\n\n"
        "The figures do not depend on streaming, memory or threads.");
    SetDocLimitations("Maps and references lie on one grid (see align), or the reference is a file of vectors.");
    SetDocAuthors("The OTBTorch authors");
    SetDocSeeAlso("SiameseCD, ChangeLikelihood, ComputeConfusionMatrix");
    AddDocTag(Tags::ChangeDetection);
    AddDocTag(Tags::Learning);
    SetDocLink("doc/ChangeEvaluation.md");

    const auto files = [this](const std::string& key, const std::string& name, const std::string& description)
    {
      AddParameter(ParameterType_InputFilenameList, key, name);
      SetParameterDescription(key, description);
      MandatoryOff(key);
    };
    AddParameter(ParameterType_Choice, "mode", "What is measured");
    AddChoice("mode.binary", "Decisions: change or not");
    AddChoice("mode.score", "Scores or probabilities of change");
    AddChoice("mode.semantic", "From which class to which");
    AddChoice("mode.object", "Connected objects of change");
    AddChoice("mode.sample", "Draws a stratified sample; estimates areas from a labelled one");
    files("in", "Maps", "One map, or several that are pooled: decisions, scores, from-to maps, or labels of the first date");
    files("ref", "References", "As many as in, images or files of polygons (mode sample: fills in the labels of the points)");
    files("mask", "Validity images", "As many as in: pixels that are 0 are left out");

    AddParameter(ParameterType_OutputFilename, "out", "Results");
    SetParameterDescription("out", "JSON (.json): figures, intervals, curves, matrices, settings");
    MandatoryOff("out");
    AddParameter(ParameterType_OutputFilename, "csv", "Table of the figures");
    SetParameterDescription("csv", "CSV: pair, group, figure, value, low and high end of its interval");
    MandatoryOff("csv");
    AddParameter(ParameterType_OutputFilename, "errors", "Map of errors");
    SetParameterDescription("errors", "GeoTIFF with colours: 0 no change, 1 change found, 2 false alarm, 3 change missed, no-data 255; of several pairs "
                                      "NAME_1.tif, NAME_2.tif ...");
    MandatoryOff("errors");

    const auto values = [this](const std::string& key, const std::string& name, const std::string& description)
    {
      AddParameter(ParameterType_StringList, key, name);
      SetParameterDescription(key, description);
      MandatoryOff(key);
    };
    values("inpos", "Values of change in the maps", "Unset: all but inneg, or but 0");
    values("inneg", "Values of no change in the maps", "Unset: all others");
    values("refpos", "Values of change in the references", "Unset: all but refneg, or the only one that is not 0");
    values("refneg", "Values of no change in the references", "Unset: all others; with refpos given as well, other values are left out");
    values("inmap", "Recoding of the maps", "Values and what they stand for: \"255:1 254:2\"; others stay");
    values("refmap", "Recoding of the references", "Values and what they stand for: \"255:1 254:2\"; others stay");
    values("nodata", "No-data values of the maps", "Unset: as the files declare; NaN always is");
    values("refnodata", "No-data values of the references", "Unset: as the files declare; NaN always is");
    files("in2", "Labels of the second date", "As many as in (semantic maps of two dates)");
    files("inchange", "Where the maps say change", "As many as in (coding full); unset: where the labels of the dates differ");
    files("ref2", "References of the second date", "As many as ref (semantic references of two dates)");
    files("refchange", "Where the references say change", "As many as ref (coding full); unset: where the labels of the dates differ");
    values("classes", "Values of the classes", "Of semantic maps and references; from-to maps count them by their position");
    values("names", "Names of the classes", "In the order of classes");
    for (const std::string side : {"in", "ref"})
    {
      const std::string key = side + "coding", what = side == "in" ? "maps" : "references";
      AddParameter(ParameterType_Choice, key, "Coding of semantic " + what);
      AddChoice(key + ".fromto", "One image: 0 no change, 1 + i K + j from class i to class j");
      AddChoice(key + ".masked", "An image a date: 0 in both where nothing changed, else the class");
      AddChoice(key + ".full", "An image a date with classes everywhere");
      MandatoryOff(key);
    }
    AddParameter(ParameterType_String, "reflayer", "Layer of vector references");
    SetParameterDescription("reflayer", "Needed when a file has several");
    MandatoryOff("reflayer");
    AddParameter(ParameterType_String, "reffield", "Field of vector references");
    SetParameterDescription("reffield", "Its numbers are the values of the reference; unset: 1 inside, 0 outside");
    MandatoryOff("reffield");
    AddParameter(ParameterType_Choice, "align", "References on other grids");
    AddChoice("align.strict", "An error that says how they differ");
    AddChoice("align.resample", "They are brought onto the grid of the map (nearest neighbour)");
    MandatoryOff("align");

    AddParameter(ParameterType_Bool, "probability", "Is the score a probability of change?");
    SetParameterDescription("probability", "Then its calibration is measured as well");
    MandatoryOff("probability");
    AddParameter(ParameterType_Float, "thr", "Threshold of the score");
    SetParameterDescription("thr", "Change where the score is at or above it; unset: as rule says");
    MandatoryOff("thr");
    AddParameter(ParameterType_Choice, "rule", "Automatic threshold of the score");
    AddChoice("rule.auto", "That of the file (ChangeLikelihood); 0.5 of a probability; else deviation or em, as the histogram is");
    AddChoice("rule.deviation", "2.5 standard deviations above the mean");
    AddChoice("rule.rosin", "Corner of the tail");
    AddChoice("rule.em", "Where two Gaussians cross");
    AddChoice("rule.otsu", "Otsu");
    AddChoice("rule.kapur", "Maximum entropy");
    AddChoice("rule.kittler", "Minimum error");
    MandatoryOff("rule");

    AddParameter(ParameterType_Choice, "connect", "Pixels of an object touch");
    AddChoice("connect.4", "at edges");
    AddChoice("connect.8", "at edges or corners");
    MandatoryOff("connect");
    AddParameter(ParameterType_Int, "minsize", "Smallest object, pixels");
    SetDefaultParameterInt("minsize", 0);
    MandatoryOff("minsize");
    AddParameter(ParameterType_Float, "iou", "Intersection over union of a match");
    SetParameterDescription("iou", "At least 0.5, so that an object has one match at most");
    SetDefaultParameterFloat("iou", .5f);
    MandatoryOff("iou");

    AddParameter(ParameterType_Int, "block", "Side of the blocks, pixels");
    SetParameterDescription("block", "Of the bootstrap: wider than errors are alike, and many of them");
    SetDefaultParameterInt("block", 256);
    MandatoryOff("block");
    AddParameter(ParameterType_Int, "draws", "Draws of the bootstrap");
    SetParameterDescription("draws", "0 or -1: no intervals");
    SetDefaultParameterInt("draws", 1000);
    MandatoryOff("draws");
    AddParameter(ParameterType_Int, "seed", "Seed");
    SetParameterDescription("seed", "Of the bootstrap and of the sample");
    SetDefaultParameterInt("seed", 0);
    MandatoryOff("seed");

    AddParameter(ParameterType_OutputFilename, "points", "Sample to be labelled");
    SetParameterDescription("points", "GeoPackage (.gpkg) of points of the map, drawn in strata that are its values");
    MandatoryOff("points");
    AddParameter(ParameterType_InputFilename, "labelled", "Labelled sample");
    SetParameterDescription("labelled", "The GeoPackage that points wrote, with labels");
    MandatoryOff("labelled");
    AddParameter(ParameterType_String, "field", "Field of the labels");
    SetParameterString("field", "reference", false);
    MandatoryOff("field");
    AddParameter(ParameterType_Int, "n", "Points of the sample");
    SetDefaultParameterInt("n", 500);
    MandatoryOff("n");
    AddParameter(ParameterType_Choice, "allocation", "How points are shared out");
    AddChoice("allocation.proportional", "By the size of the strata");
    AddChoice("allocation.equal", "As many for each stratum");
    MandatoryOff("allocation");
    AddParameter(ParameterType_Int, "least", "Points of a stratum at least");
    SetDefaultParameterInt("least", 2);
    MandatoryOff("least");
    values("sizes", "Points of each stratum", "\"0:300 1:100\" instead of n and allocation");

    AddRAMParameter();
    SetDocExampleParameterValue("in", "change.tif");
    SetDocExampleParameterValue("ref", "reference.tif");
    SetDocExampleParameterValue("out", "evaluation.json");
    SetDocExampleParameterValue("errors", "errors.tif");
  }

  void DoUpdateParameters() override
  {
    const std::string mode = GetParameterString("mode");
    const std::map<std::string, std::vector<std::string>> own = {{"score", {"probability", "thr", "rule"}},
                                                                 {"semantic", {"in2", "inchange", "ref2", "refchange", "incoding", "refcoding"}},
                                                                 {"object", {"connect", "minsize", "iou"}},
                                                                 {"sample", {"points", "labelled", "field", "n", "allocation", "least", "sizes"}}};
    for (const auto& [its, keys] : own)
    {
      for (const auto& key : keys)
      {
        Applies(key, its == mode);
      }
    }
  }

  // ------------------------------------------------------------------------------------------------------------------------------- parameters

  bool Given(const std::string& key) { return IsParameterEnabled(key) && HasValue(key); }

  std::vector<std::string> List(const std::string& key)
  {
    std::vector<std::string> words;
    for (const auto& entry : Given(key) ? GetParameterStringList(key) : std::vector<std::string>())
    {
      std::istringstream text(entry);
      for (std::string word; text >> word;)
      {
        words.push_back(word);
      }
    }
    return words;
  }

  static float ToNumber(const std::string& key, const std::string& word)
  {
    try
    {
      std::size_t end = 0;
      const float value = std::stof(word, &end);
      if (end == word.size())
      {
        return value;
      }
    }
    catch (const std::exception&)
    {
    }
    throw dl::Error(dl::Complaint(key, "\"" + word + "\"", "a number", ""));
  }

  std::vector<float> Numbers(const std::string& key)
  {
    std::vector<float> numbers;
    for (const auto& word : List(key))
    {
      numbers.push_back(ToNumber(key, word));
    }
    return numbers;
  }

  std::vector<std::pair<float, float>> NumberPairs(const std::string& key)
  {
    std::vector<std::pair<float, float>> pairs;
    for (const auto& word : List(key))
    {
      const auto at = word.find(':');
      if (at == std::string::npos)
      {
        throw dl::Error(dl::Complaint(key, "\"" + word + "\"", "two numbers with a colon between", ""));
      }
      pairs.emplace_back(ToNumber(key, word.substr(0, at)), ToNumber(key, word.substr(at + 1)));
    }
    return pairs;
  }

  int Integer(const std::string& key, int least)
  {
    const int value = GetParameterInt(key);
    if (value < least)
    {
      throw dl::Error(dl::Complaint(key, std::to_string(value), "at least " + std::to_string(least), ""));
    }
    return value;
  }

  /** A file to be written, or empty. */
  std::string Output(const std::string& key, const std::string& extension)
  {
    if (!Given(key))
    {
      return "";
    }
    const std::string file = SplitName(GetParameterString(key)).first;
    const fs::path path(file), folder = path.parent_path().empty() ? fs::path(".") : path.parent_path();
    if (!extension.empty() && path.extension() != extension && !(extension == ".tif" && path.extension() == ".tiff"))
    {
      throw dl::Error(dl::Complaint(key, "\"" + file + "\"", "a name that ends in " + extension, ""));
    }
    std::error_code ec;
    if (!fs::is_directory(folder, ec) || access(folder.c_str(), W_OK) != 0)
    {
      throw dl::Error(
          dl::Complaint(key, "\"" + file + "\", in a folder that does not exist or where you may not write", "a writable file name", "Make the folder first."));
    }
    if (fs::exists(path, ec) && !fs::is_regular_file(path, ec))
    {
      throw dl::Error(dl::Complaint(key, "\"" + file + "\", which exists and is not a file", "a writable file name", ""));
    }
    return file;
  }

  void NeedsNot(const std::string& mode, const std::vector<std::string>& keys)
  {
    for (const auto& key : keys)
    {
      if (Given(key) && HasUserValue(key))
      {
        throw dl::Error(dl::Complaint(key, "that it is given", "nothing with -mode " + mode, ""));
      }
    }
  }

  /** Files of the pairs, all lists checked. */
  std::vector<EvaluationFiles> Pairs(bool needsReference)
  {
    const auto in = FileList("in");
    if (in.empty())
    {
      throw dl::Error(dl::Complaint("in", "nothing", "a map", ""));
    }
    std::vector<EvaluationFiles> pairs(in.size());
    const std::pair<const char*, std::string EvaluationFiles::*> lists[] = {
        {"in", &EvaluationFiles::in},    {"in2", &EvaluationFiles::in2},   {"inchange", &EvaluationFiles::inChange},
        {"ref", &EvaluationFiles::ref},  {"ref2", &EvaluationFiles::ref2}, {"refchange", &EvaluationFiles::refChange},
        {"mask", &EvaluationFiles::mask}};
    for (const auto& [key, member] : lists)
    {
      const auto files = FileList(key);
      if (files.empty() && !(needsReference && std::string(key) == "ref"))
      {
        continue;
      }
      if (files.size() != in.size())
      {
        throw dl::Error(dl::Complaint(key, std::to_string(files.size()) + " file(s)", std::to_string(in.size()) + " as for in",
                                      "Give one for each map, in the same order."));
      }
      for (std::size_t k = 0; k < files.size(); ++k)
      {
        NoteInputFile(files[k]);
        pairs[k].*member = files[k];
      }
    }
    return pairs;
  }

  std::vector<std::string> FileList(const std::string& key) { return Given(key) ? GetParameterStringList(key) : std::vector<std::string>(); }

  EvaluationSettings Settings()
  {
    EvaluationSettings s;
    const std::map<std::string, Mode> modes = {{"binary", Mode::Binary}, {"score", Mode::Score}, {"semantic", Mode::Semantic}, {"object", Mode::Object}};
    const auto found = modes.find(GetParameterString("mode"));
    s.mode = found == modes.end() ? Mode::Binary : found->second;
    s.in.change = Numbers("inpos");
    s.in.noChange = Numbers("inneg");
    s.ref.change = Numbers("refpos");
    s.ref.noChange = Numbers("refneg");
    s.in.map = NumberPairs("inmap");
    s.ref.map = NumberPairs("refmap");
    s.in.none = Numbers("nodata");
    s.ref.none = Numbers("refnodata");
    s.in.classes = s.ref.classes = Numbers("classes");
    s.layer = Given("reflayer") ? GetParameterString("reflayer") : "";
    s.field = Given("reffield") ? GetParameterString("reffield") : "";
    s.resample = GetParameterString("align") == "resample";
    s.probability = GetParameterInt("probability") != 0;
    s.block = Integer("block", 8);
    s.objects.eightConnected = GetParameterString("connect") == "8";
    s.objects.minimum = Integer("minsize", 0);
    s.objects.iou = GetParameterFloat("iou");
    if (!(s.objects.iou >= .5 && s.objects.iou <= 1.))
    {
      throw dl::Error(dl::Complaint("iou", Number(s.objects.iou), "a number from 0.5 to 1", "Below 0.5 an object could match several others."));
    }
    s.memory = (static_cast<std::size_t>(std::max(1, GetParameterInt("ram"))) << 20) / 4;
    s.threads = static_cast<int>(itk::MultiThreader::GetGlobalDefaultNumberOfThreads());
    for (const auto& [side, labels] : {std::make_pair(std::string("in"), &s.in), std::make_pair(std::string("ref"), &s.ref)})
    {
      for (const float v : labels->change)
      {
        if (std::find(labels->noChange.begin(), labels->noChange.end(), v) != labels->noChange.end())
        {
          throw dl::Error(dl::Complaint(side + "neg", Number(v) + ", which is in " + side + "pos as well", "other values", ""));
        }
      }
    }
    m_Names = List("names");
    if (!m_Names.empty() && m_Names.size() != s.in.classes.size())
    {
      throw dl::Error(dl::Complaint("names", std::to_string(m_Names.size()) + " names", std::to_string(s.in.classes.size()) + " as for classes", ""));
    }
    if (m_Names.empty())
    {
      for (const float v : s.in.classes)
      {
        std::ostringstream name;
        name << v;
        m_Names.push_back(name.str());
      }
    }
    if (s.mode == Mode::Semantic)
    {
      if (s.in.classes.size() < 2 || s.in.classes.size() > 30 || std::set<float>(s.in.classes.begin(), s.in.classes.end()).size() != s.in.classes.size())
      {
        throw dl::Error(dl::Complaint("classes", std::to_string(s.in.classes.size()) + " classes", "2 to 30 different ones", "-classes 1 2 3 4 5 6, say."));
      }
      for (const auto& [side, labels] : {std::make_pair(std::string("in"), &s.in), std::make_pair(std::string("ref"), &s.ref)})
      {
        const auto coding = GetParameterString(side + "coding");
        labels->coding = coding == "masked" ? Coding::Masked : coding == "full" ? Coding::Full : Coding::FromTo;
        const bool two = labels->coding != Coding::FromTo;
        if (two != Given(side + "2"))
        {
          throw dl::Error(dl::Complaint(side + "2", two ? "nothing" : "that it is given", two ? "labels of the second date" : "nothing with from-to codes",
                                        "See -" + side + "coding."));
        }
        if (Given(side + "change") && labels->coding != Coding::Full)
        {
          throw dl::Error(dl::Complaint(side + "change", "that it is given", "nothing but with -" + side + "coding full", ""));
        }
        if (labels->coding == Coding::Masked && std::find(labels->classes.begin(), labels->classes.end(), 0.f) != labels->classes.end())
        {
          throw dl::Error(dl::Complaint("classes", "0", "other values: 0 is no change in masked labels", ""));
        }
      }
    }
    else
    {
      NeedsNot(GetParameterString("mode"), {"in2", "inchange", "ref2", "refchange"});
    }
    return s;
  }

  // ------------------------------------------------------------------------------------------------------------------------------------- a run

  PairEvaluation::Progress Line(double from, double to)
  {
    return [this, from, to](double done)
    {
      const double all = from + (to - from) * done;
      const int percent = static_cast<int>(100. * all);
      const auto now = std::chrono::steady_clock::now();
      if (percent == m_Percent || (percent < 100 && std::chrono::duration<double>(now - m_Told).count() < 1.))
      {
        return;
      }
      m_Percent = percent;
      m_Told = now;
      const int stars = static_cast<int>(all * 50.);
      std::cout << "Evaluation: " << percent << "% [" << std::string(stars, '*') << std::string(50 - stars, ' ') << "]" << std::endl;
    };
  }

  void DoExecute() override
  {
    Begin();
    m_Percent = -1;
    m_Told = {};
    m_Start = std::chrono::steady_clock::now();
    if (Given("labelled"))
    {
      NoteInputFile(GetParameterString("labelled"));
    }
    const std::string out = Output("out", ".json"), csv = Output("csv", ""), errors = Output("errors", ".tif"), points = Output("points", ".gpkg");
    const bool sample = GetParameterString("mode") == "sample";
    m_Rows.clear();
    if (sample)
    {
      NeedsNot("sample", {"errors", "in2", "inchange", "ref2", "refchange"});
    }
    else
    {
      NeedsNot(GetParameterString("mode"), {"points", "labelled", "sizes"});
    }
    if (Given("thr") && HasUserValue("thr") && !(std::abs(GetParameterFloat("thr")) < std::numeric_limits<float>::max()))
    {
      throw dl::Error(dl::Complaint("thr", GetParameterString("thr"), "a score", ""));
    }
    m_Bootstrap = {std::max(0, Integer("draws", -1)), static_cast<std::uint32_t>(GetParameterInt("seed")), .95};

    const auto settings = Settings();
    const CacheLimit cache((static_cast<std::size_t>(std::max(1, GetParameterInt("ram"))) << 20) / 8);
    std::vector<EvaluationFiles> pairs;
    if (!(sample && Given("labelled")))
    {
      pairs = Pairs(!sample);
    }
    std::vector<std::pair<std::string, std::string>> written = {{"out", out}, {"csv", csv}, {"points", points}};
    for (std::size_t k = 0; k < pairs.size(); ++k)
    {
      if (!errors.empty())
      {
        pairs[k].errors = Numbered(errors, k, pairs.size());
        written.emplace_back("errors", pairs[k].errors);
      }
    }
    CheckFiles(written);

    Json report = {{"format", "otbtorch-evaluation"},
                   {"version", 1},
                   {"software", {{"otbtorch", OTBTORCH_VERSION}, {"otb", OTB_VERSION_STRING}, {"gdal", GDALVersionInfo("RELEASE_NAME")}}},
                   {"mode", GetParameterString("mode")},
                   {"positive", "change"},
                   {"settings", Parameters()}};
    if (sample)
    {
      Sample(settings, pairs, points, report);
    }
    else
    {
      Evaluate(settings, pairs, report);
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - m_Start).count();
    if (!out.empty())
    {
      WriteText(out, report.dump(1) + "\n", "out");
      otbAppLogINFO(<< "Wrote " << out);
    }
    if (!csv.empty())
    {
      WriteText(csv, "pair,group,figure,value,low,high\n" + m_Rows, "csv");
      otbAppLogINFO(<< "Wrote " << csv);
    }
    otbAppLogINFO(<< "Time: " << Number(seconds, 3) << " s");
  }

  /** All parameters that the run depended on. */
  Json Parameters()
  {
    Json settings = Json::object();
    for (const auto& key : GetParametersKeys(true))
    {
      const auto type = GetParameterType(key);
      // Choices and numbers count whether given or not; files and lists where they are given.
      const bool file = type == ParameterType_InputFilenameList || type == ParameterType_StringList || type == ParameterType_OutputFilename ||
                        type == ParameterType_InputFilename || type == ParameterType_String;
      if (type == ParameterType_Group || type == ParameterType_RAM || !HasValue(key) || (file && !IsParameterEnabled(key)))
      {
        continue;
      }
      switch (type)
      {
      case ParameterType_InputFilenameList:
      case ParameterType_StringList:
        settings[key] = GetParameterStringList(key);
        break;
      case ParameterType_Int:
        settings[key] = GetParameterInt(key);
        break;
      case ParameterType_Bool:
        settings[key] = GetParameterInt(key) != 0;
        break;
      case ParameterType_Float:
        settings[key] = GetParameterFloat(key);
        break;
      default:
        settings[key] = GetParameterString(key);
      }
    }
    return settings;
  }

  void Evaluate(EvaluationSettings settings, const std::vector<EvaluationFiles>& files, Json& report)
  {
    const std::string options = Given("errors") ? SplitName(GetParameterString("errors")).second : "";
    for (auto at = options.find("&gdal:co:"); at != std::string::npos; at = options.find("&gdal:co:", at + 1))
    {
      const auto text = options.substr(at + 9, options.find('&', at + 1) - at - 9);
      const auto equal = text.find('=');
      settings.creation.emplace_back(text.substr(0, equal), equal == std::string::npos ? "" : text.substr(equal + 1));
    }
    const bool score = settings.mode == Mode::Score;
    std::vector<std::unique_ptr<PairEvaluation>> pairs;
    std::int64_t blocks = 0;
    for (const auto& f : files)
    {
      pairs.push_back(std::make_unique<PairEvaluation>(f, settings));
      const auto& reader = pairs.back()->Reader();
      blocks += ((reader.Width() + settings.block - 1) / settings.block) * ((reader.Height() + settings.block - 1) / settings.block);
    }
    if (blocks > 200000)
    {
      throw dl::Error(dl::Complaint("block", std::to_string(settings.block) + ", which makes " + std::to_string(blocks) + " blocks", "at most 200000 blocks",
                                    "Choose larger blocks."));
    }
    const double steps = static_cast<double>(pairs.size()) * (score ? 2. : 1.);
    double step = 0.;
    const auto next = [&]
    {
      step += 1.;
      return Line((step - 1.) / steps, step / steps);
    };
    dl::ScoreBins bins;
    std::vector<std::uint32_t> coarse;
    if (score)
    {
      dl::ScoreBinsBuilder builder;
      for (auto& pair : pairs)
      {
        pair->AddScores(builder, next());
      }
      if (builder.Refine())
      {
        for (auto& pair : pairs)
        {
          pair->AddScores(builder, [](double) {});
        }
      }
      bins = builder.Build();
      coarse = bins.Coarse(EvaluationCounts::coarse);
      if (settings.probability && bins.Total() > 0 && (bins.Minimum() < 0.f || bins.Maximum() > 1.f))
      {
        throw dl::Error(dl::Complaint("probability", "scores from " + Number(bins.Minimum()) + " to " + Number(bins.Maximum()), "probabilities from 0 to 1",
                                      "Declare the no-data value (-nodata), or leave -probability out."));
      }
    }
    const int classes = settings.mode == Mode::Semantic ? static_cast<int>(settings.in.classes.size()) : 0;
    EvaluationCounts pooled(classes, bins.Size());
    report["pairs"] = Json::array();
    for (auto& pair : pairs)
    {
      const auto progress = next();
      ScoreThreshold threshold;
      if (score)
      {
        threshold = Threshold(*pair, settings, bins);
      }
      const auto counts = pair->Count(&bins, coarse, score ? &threshold : nullptr, progress);
      const auto name = fs::path(SplitName(pair->Files().in).first).stem().string();
      Json one = {{"name", name}, {"files", FilesOf(pair->Files())}, {"georef", GeoreferenceOf(*pair)}};
      one.update(Describe(pairs.size() > 1 ? name : "all", counts, settings, bins, score ? &threshold : nullptr));
      report["pairs"].push_back(one);
      pooled.Add(counts);
      pair.reset();
    }
    if (files.size() > 1)
    {
      report["pooled"] = Describe("all", pooled, settings, bins, nullptr);
    }
    else
    {
      const auto& only = report["pairs"][0];
      report["pooled"] = {{"pixels", only["pixels"]}, {"blocks", only["blocks"]}, {"metrics", only["metrics"]}};
    }
    Line(0., 1.)(1.);
    if (pooled.evaluated == 0)
    {
      otbAppLogWARNING(<< "No pixel has data in map and reference: every figure is undefined");
    }
  }

  ScoreThreshold Threshold(PairEvaluation& pair, const EvaluationSettings& settings, const dl::ScoreBins& bins)
  {
    if (Given("thr") && HasUserValue("thr"))
    {
      return {GetParameterFloat("thr"), false, "given"};
    }
    const std::string rule = GetParameterString("rule");
    if (rule == "auto")
    {
      const auto path = SplitName(pair.Files().in).first;
      if (GDALDatasetH dataset = GDALOpen(path.c_str(), GA_ReadOnly))
      {
        const char* text = GDALGetMetadataItem(dataset, "OTBTORCH_THRESHOLD", nullptr);
        const std::string found = text ? text : "";
        GDALClose(dataset);
        if (!found.empty())
        {
          return {ToNumber("in", found), true, "of the file"};
        }
      }
      if (settings.probability)
      {
        return {.5, false, "0.5 of a probability"};
      }
    }
    if (bins.Total() == 0 || !(bins.Maximum() > bins.Minimum()))
    {
      return {bins.Maximum(), true, "all scores are equal: no change"};
    }
    const std::map<std::string, dl::ThresholdRule> rules = {
        {"auto", dl::ThresholdRule::Auto}, {"deviation", dl::ThresholdRule::Deviation}, {"rosin", dl::ThresholdRule::Rosin},    {"em", dl::ThresholdRule::Em},
        {"otsu", dl::ThresholdRule::Otsu}, {"kapur", dl::ThresholdRule::Kapur},         {"kittler", dl::ThresholdRule::Kittler}};
    const auto histogram = pair.Histogram(bins.Minimum(), bins.Maximum(), [](double) {});
    if (std::count_if(histogram.counts.begin(), histogram.counts.end(), [](std::int64_t c) { return c > 0; }) < 2)
    {
      return {bins.Maximum(), true, "all scores are about equal: no change"};
    }
    const auto choice = dl::ChooseThreshold(histogram, rules.at(rule));
    return {choice.threshold, true, choice.reason};
  }

  static Json FilesOf(const EvaluationFiles& files)
  {
    Json all = Json::object();
    const std::pair<const char*, std::string> named[] = {{"in", files.in},     {"in2", files.in2},      {"inchange", files.inChange},
                                                         {"ref", files.ref},   {"ref2", files.ref2},    {"refchange", files.refChange},
                                                         {"mask", files.mask}, {"errors", files.errors}};
    for (const auto& [key, file] : named)
    {
      if (!file.empty())
      {
        all[key] = file;
      }
    }
    return all;
  }

  static Json GeoreferenceOf(const PairEvaluation& pair)
  {
    const auto& reader = pair.Reader();
    const auto& place = reader.GetGeoreference();
    Json georef = {{"width", reader.Width()}, {"height", reader.Height()}};
    georef["transform"] = place.placed ? Json(std::vector<double>(place.transform, place.transform + 6)) : Json(nullptr);
    georef["projection"] = place.projection.empty() ? Json(nullptr) : Json(place.projection);
    return georef;
  }

  // ---------------------------------------------------------------------------------------------------------------------------- what is told

  /** To the log, a figure a line for the pool; and to the CSV. */
  void Tell(const std::string& pair, const std::string& group, const Group& figures)
  {
    const bool table = pair == "all";
    std::size_t widest = 0;
    for (const auto& [name, value] : figures.values)
    {
      widest = std::max(widest, name.size());
    }
    std::string quoted = pair;
    for (std::size_t at = quoted.find('"'); at != std::string::npos; at = quoted.find('"', at + 2))
    {
      quoted.insert(at, "\"");
    }
    std::ostringstream lines;
    lines << pair << ", " << group << ":";
    for (const auto& [name, value] : figures.values)
    {
      if (table)
      {
        lines << "\n    " << std::left << std::setw(static_cast<int>(widest) + 2) << name << std::right << std::setw(10) << Number(value);
      }
      else
      {
        lines << ' ' << name << ' ' << Number(value) << ';';
      }
      const auto found = figures.intervals.find(name);
      std::string low, high;
      if (found != figures.intervals.end() && !std::isnan(found->second.low))
      {
        lines << (table ? "  [" + Number(found->second.low) + ", " + Number(found->second.high) + "]" : "");
        low = Exact(found->second.low);
        high = Exact(found->second.high);
      }
      m_Rows += "\"" + quoted + "\"," + group + "," + name + "," + Exact(value) + "," + low + "," + high + "\n";
    }
    otbAppLogINFO(<< lines.str());
  }

  static std::string Exact(double value)
  {
    if (std::isnan(value))
    {
      return "";
    }
    std::ostringstream text;
    text << std::setprecision(17) << value;
    return text.str();
  }

  Json BinaryJson(const std::string& pair, const std::string& group, const dl::BinaryCounts& c, const dl::BlockTable& blocks)
  {
    const auto figures = WithIntervals(
        dl::BinaryMetrics(c), binaryNames, blocks, [](const std::vector<double>& sums) { return dl::BinaryMetrics(BinaryOfSums(sums)); }, m_Bootstrap);
    Tell(pair, group, figures);
    Json json = ToJson(figures);
    const auto whole = [](double v) { return static_cast<std::int64_t>(v); };
    json["confusion"] = {{"tp", whole(c.tp)}, {"fp", whole(c.fp)}, {"fn", whole(c.fn)}, {"tn", whole(c.tn)}};
    json["classes"] = {"no change", "change"};
    json["matrix"] = {{whole(c.tn), whole(c.fn)}, {whole(c.fp), whole(c.tp)}};
    return json;
  }

  Json ScoreJson(const std::string& pair, const EvaluationCounts& counts, const dl::ScoreBins& bins)
  {
    // Blocks hold coarse counts; the figures of the whole are of the fine ones.
    constexpr std::size_t k = EvaluationCounts::coarse;
    const auto figures = WithIntervals(
        dl::ScoreMetrics(counts.score, bins), {"auroc", "ap"}, counts.scoreBlocks,
        [](const std::vector<double>& sums)
        {
          const auto [auroc, ap] = dl::AreasUnderCurves(sums.data(), sums.data() + k, k);
          return dl::MetricValues{{"auroc", auroc}, {"ap", ap}};
        },
        m_Bootstrap);
    Tell(pair, "score", figures);
    Json json = ToJson(figures);
    json["exact"] = bins.Exact();
    json["bins"] = bins.Size();
    json["range"] = bins.Total() > 0 ? Json({bins.Minimum(), bins.Maximum()}) : Json(nullptr);
    const double positive = std::accumulate(counts.score.change.begin(), counts.score.change.end(), 0.);
    const double negative = std::accumulate(counts.score.noChange.begin(), counts.score.noChange.end(), 0.);
    const auto curve = dl::DecimatedCurve(counts.score, bins, 512);
    Json threshold = Json::array(), tpr = Json::array(), fpr = Json::array(), precision = Json::array();
    for (std::size_t i = 0; i < curve.tp.size(); ++i)
    {
      threshold.push_back(curve.threshold[i]);
      tpr.push_back(positive > 0. ? curve.tp[i] / positive : undefined);
      fpr.push_back(negative > 0. ? curve.fp[i] / negative : undefined);
      precision.push_back(curve.tp[i] / (curve.tp[i] + curve.fp[i]));
    }
    json["curve"] = {{"threshold", threshold}, {"tpr", tpr}, {"fpr", fpr}, {"precision", precision}};
    // Of bins of equal width, for drawing; a fine bin goes where its lower end lies.
    constexpr std::size_t columns = 128;
    std::vector<std::int64_t> no(columns, 0), yes(columns, 0);
    const double low = bins.Minimum(), width = (static_cast<double>(bins.Maximum()) - low) / columns;
    for (std::size_t b = 0; b < bins.Size(); ++b)
    {
      const auto column = width > 0. ? static_cast<std::size_t>(std::min<double>(columns - 1, (bins.Low(b) - low) / width)) : 0;
      no[column] += counts.score.noChange[b];
      yes[column] += counts.score.change[b];
    }
    json["histogram"] = {{"low", bins.Total() > 0 ? Json(low) : Json(nullptr)}, {"width", width}, {"no_change", no}, {"change", yes}};
    return json;
  }

  Json CalibrationJson(const std::string& pair, const dl::CalibrationSums& sums)
  {
    Group figures;
    figures.values = sums.Metrics();
    Tell(pair, "calibration", figures);
    Json json = ToJson(figures);
    json.erase("intervals");
    json["reliability"] = Json::array();
    for (int k = 0; k < dl::CalibrationSums::bins; ++k)
    {
      const auto& bin = sums.Change()[k];
      const double n = static_cast<double>(bin.count);
      json["reliability"].push_back({{"low", static_cast<double>(k) / dl::CalibrationSums::bins},
                                     {"high", static_cast<double>(k + 1) / dl::CalibrationSums::bins},
                                     {"count", bin.count},
                                     {"mean_probability", n > 0. ? bin.sum / n : undefined},
                                     {"observed", n > 0. ? static_cast<double>(bin.hits) / n : undefined}});
    }
    return json;
  }

  Json SemanticJson(const std::string& pair, const EvaluationCounts& counts, const EvaluationSettings& settings)
  {
    const dl::FromToCode codes(static_cast<int>(settings.in.classes.size()));
    const auto fromToOf = [&](const std::vector<double>& sums)
    {
      dl::ConfusionMatrix h(codes.Codes());
      for (int p = 0; p < codes.Codes(); ++p)
      {
        for (int r = 0; r < codes.Codes(); ++r)
        {
          h.At(p, r) = sums[static_cast<std::size_t>(p) * codes.Codes() + r];
        }
      }
      return h;
    };
    const auto twoDate = dl::TwoDateMatrix(counts.fromTo, codes);
    const auto stacked = WithIntervals(
        dl::SemanticMetrics(twoDate), semanticNames, counts.semanticBlocks,
        [&](const std::vector<double>& sums) { return dl::SemanticMetrics(dl::TwoDateMatrix(fromToOf(sums), codes)); }, m_Bootstrap);
    const auto transitions = WithIntervals(
        dl::SemanticMetrics(counts.fromTo), semanticNames, counts.semanticBlocks,
        [&](const std::vector<double>& sums) { return dl::SemanticMetrics(fromToOf(sums)); }, m_Bootstrap);
    Tell(pair, "semantic two-date", stacked);
    Tell(pair, "semantic from-to", transitions);
    Json labels = {"no change"}, names = {"no change"};
    for (const auto& name : m_Names)
    {
      labels.push_back(name);
    }
    for (int code = 1; code < codes.Codes(); ++code)
    {
      names.push_back(m_Names[codes.From(code)] + " > " + m_Names[codes.To(code)]);
    }
    Json json = Json::object();
    json["two_date"] = ToJson(stacked);
    json["two_date"]["classes"] = labels;
    json["two_date"]["matrix"] = ToJson(twoDate);
    json["from_to"] = ToJson(transitions);
    json["from_to"]["classes"] = names;
    if (codes.Classes() <= 12)
    {
      json["from_to"]["matrix"] = ToJson(counts.fromTo);
    }
    const bool everywhere = settings.in.coding == Coding::Full && settings.ref.coding == Coding::Full;
    json["dates"] = Json::array();
    for (int d = 0; d < 2; ++d)
    {
      const auto h = everywhere ? counts.dates[d] : dl::DateMatrix(counts.fromTo, codes, d);
      Group figures;
      figures.values = h.Metrics();
      for (int c = 0; c < h.Classes(); ++c)
      {
        figures.values.emplace_back("iou " + m_Names[c], h.Iou(c));
      }
      Tell(pair, "date " + std::to_string(d + 1), figures);
      Json date = ToJson(figures);
      date.erase("intervals");
      date["where"] = everywhere ? "everywhere" : "changed in map and reference";
      date["classes"] = m_Names;
      date["matrix"] = ToJson(h);
      json["dates"].push_back(date);
    }
    return json;
  }

  Json ObjectJson(const std::string& pair, const dl::ObjectMatches& m)
  {
    auto figures = WithIntervals(
        dl::ObjectMetrics(static_cast<double>(m.predicted), static_cast<double>(m.reference), static_cast<double>(m.matched)), {"precision", "recall", "f1"},
        m.blocks, [](const std::vector<double>& s) { return dl::ObjectMetrics(s[0], s[1], s[2]); }, m_Bootstrap);
    figures.values.emplace_back("mean_iou", m.meanIou);
    Tell(pair, "objects", figures);
    Json json = ToJson(figures);
    const auto area = [&](double value) { return m.areaKnown ? Json(value) : Json(nullptr); };
    json["predicted"] = {{"count", m.predicted}, {"pixels", m.predictedPixels}, {"area_m2", area(m.predictedArea)}};
    json["reference"] = {{"count", m.reference}, {"pixels", m.referencePixels}, {"area_m2", area(m.referenceArea)}};
    json["matched"] = {{"count", m.matched}, {"pixels", m.matchedPixels}, {"area_m2", area(m.matchedArea)}};
    otbAppLogINFO(<< pair << ", objects: " << m.predicted << " predicted, " << m.reference << " in the reference, " << m.matched << " matched");
    return json;
  }

  Json Describe(const std::string& pair, const EvaluationCounts& counts, const EvaluationSettings& settings, const dl::ScoreBins& bins,
                const ScoreThreshold* threshold)
  {
    Json json = {{"pixels",
                  {{"all", counts.pixels},
                   {"evaluated", counts.evaluated},
                   {"masked", counts.masked},
                   {"no_data", counts.noData},
                   {"no_reference", counts.noReference},
                   {"unlabelled", counts.unlabelled}}},
                 {"blocks", counts.binaryBlocks.Blocks()}};
    otbAppLogINFO(<< pair << ": " << counts.evaluated << " of " << counts.pixels << " pixels are evaluated (" << counts.masked << " masked, " << counts.noData
                  << " without data, " << counts.noReference << " without reference, " << counts.unlabelled << " of other labels), in "
                  << counts.binaryBlocks.Blocks() << " blocks");
    Json metrics = Json::object();
    metrics["binary"] = BinaryJson(pair, settings.mode == Mode::Score ? "binary at the threshold" : "binary", counts.binary, counts.binaryBlocks);
    if (settings.mode == Mode::Score)
    {
      if (threshold)
      {
        metrics["binary"]["threshold"] = {{"value", threshold->value}, {"decision", threshold->above ? ">" : ">="}, {"origin", threshold->origin}};
        otbAppLogINFO(<< pair << ": threshold " << Number(threshold->value) << ", " << threshold->origin);
      }
      metrics["score"] = ScoreJson(pair, counts, bins);
      if (settings.probability)
      {
        metrics["calibration"] = CalibrationJson(pair, counts.calibration);
      }
    }
    if (settings.mode == Mode::Semantic)
    {
      metrics["semantic"] = SemanticJson(pair, counts, settings);
    }
    if (settings.mode == Mode::Object)
    {
      metrics["objects"] = ObjectJson(pair, counts.objects);
    }
    json["metrics"] = metrics;
    return json;
  }

  // --------------------------------------------------------------------------------------------------------------------------------- a sample

  void Sample(const EvaluationSettings& settings, const std::vector<EvaluationFiles>& files, const std::string& points, Json& report)
  {
    std::string labelled = Given("labelled") ? GetParameterString("labelled") : "";
    if (labelled.empty() == points.empty())
    {
      throw dl::Error(dl::Complaint("points", points.empty() ? "neither points nor labelled" : "labelled as well", "one of the two",
                                    "-points draws a sample of -in, -labelled reads it back."));
    }
    if (!points.empty())
    {
      if (files.size() != 1)
      {
        throw dl::Error(dl::Complaint("in", std::to_string(files.size()) + " maps", "one to draw a sample from", "Make a mosaic first (gdalbuildvrt)."));
      }
      SamplePlan plan;
      plan.total = Integer("n", 1);
      plan.least = Integer("least", 1);
      plan.allocation = GetParameterString("allocation") == "equal" ? dl::Allocation::Equal : dl::Allocation::Proportional;
      plan.seed = static_cast<std::uint32_t>(GetParameterInt("seed"));
      for (const auto& [value, size] : NumberPairs("sizes"))
      {
        if (!(size >= 1.f) || size != std::floor(size) || size > 1e6f)
        {
          throw dl::Error(dl::Complaint("sizes", Number(size) + " points", "1 to 1000000", ""));
        }
        plan.sizes[static_cast<int>(value)] = static_cast<std::int64_t>(size);
      }
      PairEvaluation pair(files.front(), settings);
      auto drawn = DrawSample(pair, plan, Line(0., 1.));
      Json strata = Json::array();
      for (auto& stratum : drawn.strata)
      {
        const auto found = std::find(settings.in.classes.begin(), settings.in.classes.end(), static_cast<float>(stratum.value));
        stratum.name =
            found == settings.in.classes.end() ? std::to_string(stratum.value) : m_Names[static_cast<std::size_t>(found - settings.in.classes.begin())];
        strata.push_back({{"stratum", stratum.value}, {"name", stratum.name}, {"pixels", stratum.pixels}, {"points", stratum.points}});
        otbAppLogINFO(<< "Stratum " << stratum.name << ": " << stratum.points << " points of " << stratum.pixels << " pixels");
      }
      WriteSample(points, drawn, pair.Reader(), dl::MeanPixelArea(SplitName(files.front().in).first));
      otbAppLogINFO(<< "Wrote " << points << ": " << drawn.points.size() << " points");
      report["pairs"] = Json::array();
      report["pairs"].push_back(
          {{"name", fs::path(SplitName(files.front().in).first).stem().string()}, {"files", FilesOf(files.front())}, {"georef", GeoreferenceOf(pair)}});
      report["sample"] = {{"file", points}, {"points", drawn.points.size()}, {"strata", strata}};
      if (files.front().ref.empty())
      {
        return; // to be labelled
      }
      labelled = points;
    }
    const auto read = ReadSample(labelled, points.empty() ? GetParameterString("field") : "reference");
    if (read.unlabelled > 0)
    {
      otbAppLogWARNING(<< read.unlabelled << " of " << read.labelled + read.unlabelled
                       << " points have no label and are left out: the estimates hold if these are no other than the rest");
    }
    const auto e = dl::EstimateAreas(read.sample);
    const auto total = std::accumulate(read.sample.mapped.begin(), read.sample.mapped.end(), 0.);
    Json areas = Json::array();
    Group figures;
    const auto note = [&](const std::string& name, const dl::Estimate& estimate)
    {
      figures.values.emplace_back(name, estimate.value);
      figures.intervals[name] = {estimate.value - estimate.half, estimate.value + estimate.half};
    };
    note("oa", e.overall);
    for (std::size_t j = 0; j < read.sample.classes.size(); ++j)
    {
      const auto& name = read.names[j];
      const bool stratum = j < read.sample.mapped.size();
      if (stratum)
      {
        note("users " + name, e.users[j]);
      }
      note("producers " + name, e.producers[j]);
      note("area " + name, e.area[j]);
      Json one = {{"class", read.sample.classes[j]}, {"name", name}};
      one["mapped_pixels"] = stratum ? Json(static_cast<std::int64_t>(read.sample.mapped[j])) : Json(0);
      one["area_pixels"] = ToJson(e.area[j]);
      one["area_share"] = ToJson(e.area[j], 1. / total);
      one["area_m2"] = std::isnan(read.pixelArea) ? Json(nullptr) : ToJson(e.area[j], read.pixelArea);
      one["users_accuracy"] = stratum ? ToJson(e.users[j]) : Json(nullptr);
      one["producers_accuracy"] = ToJson(e.producers[j]);
      areas.push_back(one);
    }
    Tell("all", "sample", figures);
    report["areas"] = {{"file", labelled},
                       {"labelled", read.labelled},
                       {"unlabelled", read.unlabelled},
                       {"pixel_area_m2", read.pixelArea},
                       {"overall_accuracy", ToJson(e.overall)},
                       {"classes", areas},
                       {"counts", read.sample.count},
                       {"proportions", e.proportions}};
  }

  std::vector<std::string> m_Names;
  dl::BootstrapSettings m_Bootstrap;
  std::string m_Rows; ///< of the CSV
  std::chrono::steady_clock::time_point m_Start;
  std::chrono::steady_clock::time_point m_Told;
  int m_Percent = -1;
};

} // namespace Wrapper
} // namespace otb

OTB_APPLICATION_EXPORT(otb::Wrapper::ChangeEvaluation)
