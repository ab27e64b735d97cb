/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLApplication.h"

#include "otbDLClassification.h"
#include "otbDLDates.h"
#include "otbDLError.h"
#include "otbDLRasters.h"
#include "otbDLSeriesMapFilter.h"

#include "otbStatisticsXMLFileReader.h"
#include "otbWrapperApplicationFactory.h"
#include "otbWrapperTags.h"

#include <gdal.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>
#include <set>
#include <sstream>

namespace otb
{
namespace Wrapper
{

namespace fs = std::filesystem;
using otb::dl::Join;

namespace
{

constexpr int sensors = 4;

/** "dates", 2 -> "dates3" */
std::string Key(const std::string& name, int sensor)
{
  return sensor == 0 ? name : name + std::to_string(sensor + 1);
}

/** The file's name without options and folder. */
std::string Short(const std::string& name)
{
  return fs::path(SplitName(name).first).filename().string();
}

/** Bands of iota2's stacks of Sentinel-2: ten a date, then three features, each for all dates. */
const std::vector<std::string> iota2Bands = {"B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12"};
const std::vector<std::string> iota2Features = {"NDVI", "NDWI", "Brightness"};

bool Holds(const std::vector<std::string>& bands, const std::string& name)
{
  return std::any_of(bands.begin(), bands.end(), [&](const std::string& b) { return otb::dl::SameBand(b, name); });
}

} // namespace

/** \class TimeSeriesClassify
 * \brief Land-cover maps, confidence, probabilities and embeddings from time series of one or several sensors, by a network.
 * \ingroup OTBTorch
 */
class TimeSeriesClassify : public DLApplication
{
public:
  using Self = TimeSeriesClassify;
  using Superclass = DLApplication;
  using Pointer = itk::SmartPointer<Self>;
  using ConstPointer = itk::SmartPointer<const Self>;

  itkNewMacro(Self);
  itkTypeMacro(TimeSeriesClassify, DLApplication);

private:
  using Filter = otb::dl::SeriesMapFilter;
  using Result = otb::dl::Classification::Result;

  void DoInit() override
  {
    SetName("TimeSeriesClassify");
    SetDescription("Classify time series of one or several sensors with a deep network (TorchScript), pixel by pixel or patch by patch.");
    SetDocLongDescription(
        "Runs a network exported from PyTorch over satellite image time series and writes a label map, confidence, class probabilities, embeddings and "
        "measures of uncertainty. Bands, scaling, dates, gap filling and masks are prepared as the model's contract says; nothing is guessed. Parameters that "
        "ImageClassifier has as well keep their meaning.\n\n"
        "A sensor's series is one stack of all dates (date after date) or one image per date; its dates come from a text file or from the names of the files, "
        "and "
        "are sorted. Sensors of another resolution are resampled onto the grid of the first one. The map does not depend on streaming, tiles, memory or "
        "threads; "
        "all outputs of a run share one inference.");
    SetDocLimitations("The images of the first sensor lie on one grid.");
    SetDocAuthors("The OTBTorch authors");
    SetDocSeeAlso("ImageClassifier, TrainVectorClassifier");
    AddDocTag(Tags::Learning);
    AddDocTag("Multi-Temporal");
    SetDocLink("doc/TimeSeriesClassify.md");

    // First of all: it decides what is needed.
    AddModelParameters();
    SetParameterDescription("model",
                            "A network exported to TorchScript (.pt), with its contract inside or beside it; or a text file (.txt) that lists several, "
                            "one per line: an ensemble");
    AddModelInfo("time-series-classification", {"model", "bands", "dates", "classes", "patches", "licence"});

    AddParameter(ParameterType_InputImage, "in", "Stack of the first sensor");
    SetParameterDescription("in", "All dates in one image, date after date (as ImageClassifier's in). Either this or il");
    MandatoryOff("in");
    AddSensor(0);
    AddParameter(ParameterType_Choice, "datesfrom", "Where dates come from");
    SetParameterDescription("datesfrom", "The dates files, or the first date in the name of each file");
    AddChoice("datesfrom.auto", "Dates files; names that hold other dates are refused");
    AddChoice("datesfrom.file", "Dates files, whatever the names say");
    AddChoice("datesfrom.names", "Names of the images");
    MandatoryOff("datesfrom");

    AddParameter(ParameterType_OutputImage, "out", "Label map");
    SetParameterDescription("out", "Labels of the contract (or of classes)");
    SetDefaultOutputPixelType("out", ImagePixelType_uint8);
    MandatoryOff("out");
    AddParameter(ParameterType_OutputImage, "confmap", "Confidence map");
    SetParameterDescription("confmap", "Probability of the label, 0 to 1; 0 where there is none");
    SetDefaultOutputPixelType("confmap", ImagePixelType_float);
    MandatoryOff("confmap");
    AddParameter(ParameterType_OutputImage, "probamap", "Probability map");
    SetParameterDescription("probamap", "A band per class, ascending labels, 0 to 1000");
    SetDefaultOutputPixelType("probamap", ImagePixelType_uint16);
    MandatoryOff("probamap");
    AddParameter(ParameterType_Int, "nbclasses", "Number of classes expected");
    SetParameterDescription("nbclasses", "If given, checked against the model's (or those of classes)");
    MandatoryOff("nbclasses");
    AddParameter(ParameterType_OutputImage, "features", "Embedding");
    SetParameterDescription("features", "The model's features, a band per dimension");
    SetDefaultOutputPixelType("features", ImagePixelType_float);
    MandatoryOff("features");
    AddParameter(ParameterType_Choice, "featurestype", "How the embedding is stored");
    SetParameterDescription("featurestype", "As numbers, or in a quarter of the room");
    AddChoice("featurestype.float", "As it is, no-data -9999");
    AddChoice("featurestype.int8", "Of unit length, signed square roots in 8 bits, no-data -128, as AlphaEarth's embeddings");
    MandatoryOff("featurestype");
    AddParameter(ParameterType_OutputImage, "entropy", "Entropy");
    SetParameterDescription("entropy", "Of the class probabilities, divided by the logarithm of their number: 0 to 1, no-data -1");
    SetDefaultOutputPixelType("entropy", ImagePixelType_float);
    MandatoryOff("entropy");
    AddParameter(ParameterType_OutputImage, "margin", "Margin");
    SetParameterDescription("margin", "Difference between the two highest probabilities: 0 to 1, no-data -1");
    SetDefaultOutputPixelType("margin", ImagePixelType_float);
    MandatoryOff("margin");
    AddParameter(ParameterType_OutputImage, "mutual", "Mutual information");
    SetParameterDescription("mutual",
                            "How much the members of an ensemble disagree (entropy of the mean minus mean of the entropies, divided by the logarithm of "
                            "the number of classes): 0 to 1, no-data -1");
    SetDefaultOutputPixelType("mutual", ImagePixelType_float);
    MandatoryOff("mutual");
    AddParameter(ParameterType_OutputImage, "nvalid", "Number of valid dates");
    SetParameterDescription("nvalid", "A band per sensor");
    SetDefaultOutputPixelType("nvalid", ImagePixelType_uint16);
    MandatoryOff("nvalid");

    AddParameter(ParameterType_InputFilename, "imstat", "Statistics file");
    SetParameterDescription("imstat",
                            "XML file of ComputeImagesStatistics: mean and standard deviation of each band of in, for models whose contract says that "
                            "they take raw values");
    MandatoryOff("imstat");
    AddParameter(ParameterType_InputImage, "mask", "Input mask");
    SetParameterDescription("mask", "One band on the grid of the first sensor: pixels that are 0 are not classified");
    MandatoryOff("mask");
    AddParameter(ParameterType_Int, "nodatalabel", "Label of no-data");
    SetParameterDescription("nodatalabel", "Written where the mask is 0 or no date is valid");
    SetDefaultParameterInt("nodatalabel", 0);
    MandatoryOff("nodatalabel");
    AddParameter(ParameterType_StringList, "classes", "Classes of the map");
    SetParameterDescription("classes",
                            "Keeps some of the model's classes (\"11 12 31\"), or merges them into new ones (\"1:11+12 2:31+32\", a name may follow: "
                            "\"1:11+12:crops\"). Unless given: all, as they are");
    MandatoryOff("classes");
    for (int s = 1; s < sensors; ++s)
    {
      AddSensor(s);
    }
    AddParameter(ParameterType_InputImageList, "static", "Image that does not change");
    SetParameterDescription("static", "A DEM, say, for models that want one");
    MandatoryOff("static");
    AddParameter(ParameterType_StringList, "staticbands", "Bands of that image");
    SetParameterDescription("staticbands", "Names of its bands; unless given, those of the model");
    MandatoryOff("staticbands");
    AddParameter(ParameterType_Choice, "interpolator", "Resampling");
    SetParameterDescription("interpolator", "For images on another grid than the first sensor's; validity rasters always take the nearest pixel");
    AddChoice("interpolator.linear", "Bilinear");
    AddChoice("interpolator.nn", "Nearest neighbour");
    AddChoice("interpolator.bco", "Bicubic");
    MandatoryOff("interpolator");

    AddRunParameters();
    SetMultiWriting(true);

    SetDocExampleParameterValue("in", "stack.tif");
    SetDocExampleParameterValue("dates", "dates.txt");
    SetDocExampleParameterValue("model", "classifier.pt");
    SetDocExampleParameterValue("out", "labels.tif");
    SetDocExampleParameterValue("confmap", "confidence.tif");
  }

  /** Adds the parameters of a sensor's series. */
  void AddSensor(int s)
  {
    const std::string ordinal = s == 0 ? "first" : s == 1 ? "second" : s == 2 ? "third" : "fourth";
    const std::string il = Key("il", s), dates = Key("dates", s), bands = Key("bands", s), maskl = Key("maskl", s), masktype = Key("masktype", s);
    AddParameter(ParameterType_InputImageList, il, "Series of the " + ordinal + " sensor");
    SetParameterDescription(il, "One stack of all dates, or one image per date, in any order");
    MandatoryOff(il);
    AddParameter(ParameterType_InputFilename, dates, "Dates of the " + ordinal + " sensor");
    SetParameterDescription(dates, "Text file, a date per line (YYYYMMDD or YYYY-MM-DD), in the order of the stack or the list; # begins a comment");
    MandatoryOff(dates);
    AddParameter(ParameterType_StringList, bands, "Bands of the " + ordinal + " sensor");
    SetParameterDescription(bands,
                            "Names of the bands in the files, for a model that wants them in another order or not all of them. In a stack, names after a | "
                            "are stored band after band, each for all dates. Unless given: the model's bands, iota2's layout, or the names in the files");
    MandatoryOff(bands);
    AddParameter(ParameterType_InputImageList, maskl, "Validity of the " + ordinal + " sensor");
    SetParameterDescription(maskl, "Validity rasters: one band per date in one image, or one image per date in the order of the series");
    MandatoryOff(maskl);
    AddParameter(ParameterType_Choice, masktype, "Coding of its validity");
    SetParameterDescription(masktype, "How the values of the validity rasters are read");
    AddChoice(masktype + ".invalid", "0 = valid (iota2: 1 = cloud, edge, saturated; 2 = not acquired)");
    AddChoice(masktype + ".valid", "0 = not valid, anything else valid");
    AddChoice(masktype + ".scl", "Sentinel-2 scene classification: 2, 4, 5, 6, 7, 11 are valid");
    MandatoryOff(masktype);
  }

  void DoUpdateParameters() override
  {
    const auto& info = ShowModel();
    if (!info.contract)
    {
      return;
    }
    const auto& c = *info.contract;
    bool asks[sensors + 1] = {}; // for the image that does not change, then for each sensor
    for (const auto& in : c.inputs)
    {
      asks[0] = asks[0] || in.role == "static";
      for (const int sensor : in.sensors)
      {
        asks[std::max(0, sensor)] = asks[std::max(0, sensor)] || sensor >= 0;
      }
    }
    Applies("static", asks[0]);
    Applies("staticbands", asks[0]);
    for (int s = 1; s < sensors; ++s)
    {
      for (const auto* name : {"il", "dates", "bands", "maskl", "masktype"})
      {
        Applies(Key(name, s), asks[s + 1]);
      }
    }
    const bool labels = c.FindOutput("logits") || c.FindOutput("probabilities");
    for (const auto* key : {"out", "confmap", "probamap", "nbclasses", "classes", "entropy", "margin"})
    {
      Applies(key, labels);
    }
    Applies("mutual", labels && info.members > 1);
    Applies("features", c.FindOutput("embedding") && info.members < 2);
    Applies("featurestype", c.FindOutput("embedding") && info.members < 2);
    Applies("blend", c.tiling.unit == dl::SpatialUnit::Patch);
  }

  /** Images made in memory by another application do not enable the parameter that takes them. */
  bool Given(const std::string& key) { return HasValue(key) && (IsParameterEnabled(key) || IsInMemory(key)); }

  /** Do digits begin here that a colon or a plus follows ("1:1+2:crops", "31")? Alone they are a class only where no other one has a name. */
  static bool BeginsClass(const std::string& text, std::size_t k)
  {
    const auto end = text.find_first_not_of("0123456789", k);
    return end != k && (text.find(':') == std::string::npos || (end != std::string::npos && text[end] == ':'));
  }

  /** A list of words. A host like QGIS gives them as one, with spaces between; of classes, whose names may hold spaces, a new one begins with
   * digits that a colon or a space follows; or none does, and there is one.
   * \param whole names that are taken as they are */
  std::vector<std::string> Words(const std::string& key, const std::vector<std::string>& whole = {})
  {
    const auto words = GetParameterStringList(key);
    if (words.size() != 1 || Holds(whole, words[0]))
    {
      return words;
    }
    const std::string& text = words[0];
    std::vector<std::string> parts;
    for (std::size_t k = 0; k < text.size(); ++k)
    {
      const bool space = std::isspace(static_cast<unsigned char>(text[k])) != 0;
      const bool begins =
          !space && (k == 0 || std::isspace(static_cast<unsigned char>(text[k - 1]))) && (parts.empty() || key != "classes" || BeginsClass(text, k));
      if (begins)
      {
        parts.emplace_back();
      }
      if (!parts.empty())
      {
        parts.back() += text[k];
      }
    }
    for (auto& part : parts)
    {
      part.erase(part.find_last_not_of(" \t\r\n") + 1);
    }
    return parts;
  }

  void DoExecute() override
  {
    auto contract = ReadModelContract(true);
    if (contract.task != "time-series-classification")
    {
      throw dl::Error(dl::Complaint("model", "a model of task " + contract.task, "time-series-classification", "Choose the application of that task."));
    }
    m_Rasters.Clear();
    m_Contract = contract;

    auto filter = Filter::New();
    std::vector<Filter::Sensor> series(sensors);
    m_Reference = nullptr;
    for (int s = 0; s < sensors; ++s)
    {
      series[s] = this->MakeSensor(s);
    }
    if (!m_Reference)
    {
      throw dl::Error(dl::Complaint("in", "nothing", "the series of a sensor, as in or il", ""));
    }
    this->ReadStatistics(series[0]);
    filter->SetContract(contract);
    filter->SetSensors(std::move(series));
    this->AddStatic(filter);
    if (Given("mask"))
    {
      filter->SetMask({GetParameterImage("mask"), "mask"});
      NoteInput("mask");
    }
    filter->Prepare();
    const auto preparation = filter->GetPreparation();
    contract = preparation->Contract();

    const std::vector<std::pair<std::string, Result>> all = {{"out", Result::Label},
                                                             {"confmap", Result::Confidence},
                                                             {"probamap", Result::Probabilities},
                                                             {"features", Quantised() ? Result::QuantisedFeatures : Result::Features},
                                                             {"entropy", Result::Entropy},
                                                             {"margin", Result::Margin},
                                                             {"mutual", Result::MutualInformation},
                                                             {"nvalid", Result::ValidDates}};
    std::vector<std::string> keys;
    std::vector<Result> wanted;
    for (const auto& [key, result] : all)
    {
      if (Wants(key))
      {
        keys.push_back(key);
        wanted.push_back(result);
      }
    }
    if (keys.empty())
    {
      // For another application; where outputs are written this is an error, see AfterExecuteAndWriteOutputs().
      keys.push_back("out");
      wanted.push_back(Result::Label);
    }
    const auto* classified = contract.FindOutput("logits") ? contract.FindOutput("logits") : contract.FindOutput("probabilities");
    const auto classes =
        dl::SelectClasses(classified ? classified->classes : std::vector<dl::ModelClass>(), Given("classes") ? Words("classes") : std::vector<std::string>());
    auto decision = std::make_shared<dl::Classification>(contract, GetTemperatures(), classes, wanted, GetParameterInt("nodatalabel"),
                                                         static_cast<int>(preparation->CountedSensors().size()));
    this->CheckLabels(classes);
    this->CheckTypes(preparation->CountedDates());
    m_ClassNames = classes;
    m_SensorNames = preparation->CountedSensors();
    m_MostDates = preparation->CountedDates();
    if (Given("nbclasses") && HasUserValue("nbclasses") && GetParameterInt("nbclasses") != static_cast<int>(classes.size()))
    {
      throw dl::Error(dl::Complaint("nbclasses", std::to_string(GetParameterInt("nbclasses")),
                                    std::to_string(classes.size()) + ", the number of " + (Given("classes") ? "classes asked for" : "the model's classes"),
                                    "Leave it out, or correct it."));
    }
    if (Quantised())
    {
      ChangePixelType("features", ImagePixelType_uint8);
    }

    for (std::size_t k = 0; k < contract.inputs.size(); ++k)
    {
      const auto& in = contract.inputs[k];
      if (in.role == "sits")
      {
        const auto& steps = preparation->StepDates(k);
        otbAppLogINFO(<< "Series \"" << in.name << "\": " << in.bands.size() << " bands (" << Join(in.bands) << ") at " << steps.size() << " dates, "
                      << dl::ToString(steps.front()) << " to " << dl::ToString(steps.back())
                      << (in.temporal.gapFill == dl::TemporalSpec::GapFill::None ? ", gaps left"
                          : in.temporal.gapFill == dl::TemporalSpec::GapFill::Linear
                              ? ", gaps filled"
                              : ", every " + std::to_string(in.temporal.gridStep) + " days, interpolated")
                      << (in.steps > static_cast<int>(steps.size()) ? ", padded to " + std::to_string(in.steps) : ""));
      }
    }
    filter->SetOperator(decision);
    PrepareRun(filter, contract, keys);
    SetMultiWriting(keys.size() > 1); // one output streams better alone
    for (std::size_t r = 0; r < keys.size(); ++r)
    {
      SetParameterOutputImage(keys[r], filter->GetOutput(r));
    }
    RegisterPipeline();
  }

  bool Quantised() { return GetParameterString("featurestype") == "int8"; }

  /** Labels must fit the type of the file. */
  void CheckLabels(const std::vector<dl::MapClass>& classes)
  {
    if (!Given("out") || classes.empty())
    {
      return;
    }
    const auto highest = std::max_element(classes.begin(), classes.end(), [](const auto& a, const auto& b) { return a.label < b.label; });
    const int most = std::max(highest->label, GetParameterInt("nodatalabel"));
    const auto type = GetParameterOutputImagePixelType("out");
    if (type == ImagePixelType_uint8 && most > 255 && most < 65536)
    {
      // uint8 is what one gets without asking: it is not what was meant.
      ChangePixelType("out", ImagePixelType_uint16);
      otbAppLogINFO(<< "Label " << most << " (" << highest->name << ") is beyond 8 bits: out is written as uint16");
      return;
    }
    const double limits[] = {65535., 32767., 65535.};
    if (static_cast<std::size_t>(type) < 3 && most > limits[static_cast<std::size_t>(type)])
    {
      throw dl::Error(dl::Complaint("out", "pixels of type " + OutputImageParameter::ConvertPixelTypeToString(type),
                                    "one that holds the label " + std::to_string(most) + " (" + highest->name + ")", "Ask for uint16 or uint32."));
    }
  }

  /** Types that cannot hold what they are asked to. */
  void CheckTypes(std::size_t dates)
  {
    const auto refuse = [this](const std::string& key, const std::string& expected)
    {
      throw dl::Error(dl::Complaint(key, "pixels of type " + OutputImageParameter::ConvertPixelTypeToString(GetParameterOutputImagePixelType(key)), expected,
                                    "Leave the type out."));
    };
    for (const auto* key : {"confmap", "entropy", "margin", "mutual"})
    {
      if (Given(key) && GetParameterOutputImagePixelType(key) < ImagePixelType_float)
      {
        refuse(key, "float: values lie between 0 and 1");
      }
    }
    if (Given("features") && !Quantised() && GetParameterOutputImagePixelType("features") < ImagePixelType_float)
    {
      refuse("features", "float, or -featurestype int8");
    }
    if (Given("probamap") && GetParameterOutputImagePixelType("probamap") == ImagePixelType_uint8)
    {
      refuse("probamap", "one that holds 1000");
    }
    if (Given("nvalid") && GetParameterOutputImagePixelType("nvalid") == ImagePixelType_uint8 && dates > 255)
    {
      refuse("nvalid", "one that holds " + std::to_string(dates));
    }
    if (Given("features") && Quantised())
    {
      const std::string name = GetParameterString("features");
      const auto extension = fs::path(SplitName(name).first).extension().string();
      if (!name.empty() && extension != ".tif" && extension != ".tiff" && extension != ".img")
      {
        throw dl::Error(dl::Complaint("features", "\"" + name + "\"", "a .tif or .img file: others know no signed bytes", "Or -featurestype float."));
      }
    }
  }

  /** Bands that the model takes from a sensor, in its order. */
  std::vector<std::string> ModelBands(int sensor) const
  {
    std::vector<std::string> bands;
    for (const auto& in : m_Contract.inputs)
    {
      for (std::size_t b = 0; in.role == "sits" && b < in.bands.size(); ++b)
      {
        if (in.sensors[b] == sensor + 1 && !Holds(bands, in.bands[b]))
        {
          bands.push_back(in.bands[b]);
        }
      }
    }
    return bands;
  }

  /** No-data that the contract gives to a sensor's raw values. */
  std::optional<double> ModelNoData(int sensor) const
  {
    for (const auto& in : m_Contract.inputs)
    {
      if (in.noData && std::count(in.sensors.begin(), in.sensors.end(), sensor + 1))
      {
        return in.noData;
      }
    }
    return std::nullopt;
  }

  std::string Interpolation()
  {
    const std::string choice = GetParameterString("interpolator");
    return choice == "nn" ? "near" : choice == "bco" ? "cubic" : "bilinear";
  }

  /** Opens the images of a list parameter, on the grid of the first sensor. */
  std::vector<OpenedRaster> OpenList(const std::string& key, std::vector<std::string>& names, bool first, const std::string& method,
                                     std::optional<double> noData, bool isNoData)
  {
    std::vector<OpenedRaster> opened;
    std::vector<std::string> files;
    if (key == "in")
    {
      files = {GetParameterString("in")};
    }
    else
    {
      files = GetParameterStringList(key);
    }
    std::size_t warped = 0;
    for (std::size_t k = 0; k < files.size(); ++k)
    {
      const std::string path = SplitName(files[k]).first;
      const std::string option = key + (!path.empty()      ? " (" + Short(path) + ")"
                                        : files.size() > 1 ? " (image " + std::to_string(k + 1) + ", made in memory)"
                                                           : "");
      names.push_back(option);
      if (path.empty())
      {
        // From another application, in memory.
        OpenedRaster raster;
        if (key == "in")
        {
          raster.image = GetParameterImage("in");
        }
        else
        {
          raster.image = GetParameterImageList(key)->GetNthElement(static_cast<unsigned int>(k)).GetPointer();
        }
        raster.image->UpdateOutputInformation();
        opened.push_back(raster);
      }
      else
      {
        NoteInputFile(files[k]);
        bool resampled = false;
        if (first || !m_Reference)
        {
          opened.push_back(m_Rasters.Open(files[k], option));
        }
        else
        {
          opened.push_back(m_Rasters.OpenOn(m_Reference, m_ReferenceName, files[k], option, {method, noData, isNoData}, resampled));
        }
        warped += resampled;
      }
      if (!m_Reference)
      {
        m_Reference = opened.back().image;
        m_ReferenceName = option;
      }
    }
    if (warped > 0)
    {
      otbAppLogINFO(<< key << ": " << warped << " image(s) resampled onto the grid of " << m_ReferenceName << " (" << method << ")");
    }
    return opened;
  }

  std::vector<dl::Day> ReadDates(const std::string& key)
  {
    const std::string path = GetParameterString(key);
    std::ifstream in(path, std::ios::binary);
    std::ostringstream text;
    text << in.rdbuf();
    if (!in || !fs::is_regular_file(path))
    {
      throw dl::Error(dl::Complaint(key, "\"" + path + "\", which cannot be read", "a text file with a date a line", ""));
    }
    return dl::ParseDates(text.str(), key, path);
  }

  /** Dates of a list of files from their names. */
  static std::vector<std::optional<dl::Day>> DatesOfNames(const std::vector<std::string>& files)
  {
    std::vector<std::optional<dl::Day>> dates;
    for (const auto& f : files)
    {
      dates.push_back(dl::DateInName(SplitName(f).first));
    }
    return dates;
  }

  /** For each date of a file of dates, the file of the list that shows it: by the dates in the names when all names hold one, else by their place.
   * \throw dl::Error when the names hold other dates */
  std::vector<std::size_t> Match(const std::vector<std::string>& files, const std::vector<dl::Day>& dates, const std::string& key)
  {
    std::vector<std::size_t> order(files.size());
    std::iota(order.begin(), order.end(), 0);
    const auto named = DatesOfNames(files);
    std::vector<std::size_t> byName;
    for (const auto date : dates)
    {
      const auto it = std::find(named.begin(), named.end(), date);
      if (it != named.end())
      {
        byName.push_back(static_cast<std::size_t>(it - named.begin()));
      }
    }
    const bool all = std::all_of(named.begin(), named.end(), [](const auto& d) { return d.has_value(); });
    const bool byPlace = GetParameterString("datesfrom") == "file";
    if (all && byName.size() != files.size() && !byPlace)
    {
      std::string strange;
      for (std::size_t k = 0; k < files.size() && strange.empty(); ++k)
      {
        strange = std::find(dates.begin(), dates.end(), *named[k]) == dates.end() ? "\"" + Short(files[k]) + "\"" : "";
      }
      throw dl::Error(dl::Complaint(key, (strange.empty() ? "a date twice" : strange) + " in names that hold other dates than the series has",
                                    "names with its dates, or without any", "To take the files by their place whatever their names say: -datesfrom file."));
    }
    if (byName.size() == files.size())
    {
      if (byName != order)
      {
        otbAppLogINFO(<< key << ": images put in the order of their dates, which their names hold");
      }
      return byName;
    }
    return order;
  }

  /** Names of bands that descriptions tell ("Sentinel2_B4_20180511" tells B4); empty strings where they tell none that is known. */
  static std::vector<std::string> BandsTold(const std::vector<std::string>& descriptions, const std::vector<std::string>& modelBands)
  {
    std::vector<std::string> told;
    for (const auto& description : descriptions)
    {
      std::string name;
      std::string word;
      for (const char c : description + " ")
      {
        if (std::isalnum(static_cast<unsigned char>(c)))
        {
          word += c;
          continue;
        }
        if (Holds(modelBands, word) || Holds(iota2Bands, word) || Holds(iota2Features, word))
        {
          name = word;
        }
        word.clear();
      }
      told.push_back(Holds(modelBands, description) ? description : name);
    }
    return told;
  }

  /** \throw dl::Error where a file tells of another band than it is taken for */
  void CheckTold(const std::string& name, const std::vector<std::string>& told, const std::vector<std::string>& assumed, const std::string& key)
  {
    for (std::size_t b = 0; b < told.size() && b < assumed.size(); ++b)
    {
      if (!told[b].empty() && !dl::SameBand(told[b], assumed[b]))
      {
        throw dl::Error(dl::Complaint(name, "that band " + std::to_string(b + 1) + " is described as " + told[b], assumed[b] + ", in the order of the model",
                                      "Name the bands with -" + key + ", in the order of the file."));
      }
    }
  }

  /** One sensor's files, dates, bands and masks. Empty when it is not given. */
  Filter::Sensor MakeSensor(int s)
  {
    Filter::Sensor sensor;
    std::string il = Key("il", s);
    if (s == 0 && Given("in"))
    {
      if (Given("il"))
      {
        throw dl::Error(dl::Complaint("il", "a series, and another one as in", "one of the two", ""));
      }
      il = "in";
    }
    sensor.series.option = il;
    if (!Given(il))
    {
      for (const auto* other : {"dates", "bands", "maskl", "masktype"})
      {
        // A dialog of QGIS gives every choice, those that were left alone too.
        const bool untouched = other == std::string("masktype") && GetParameterString(Key(other, s)) == "invalid";
        if (Given(Key(other, s)) && HasUserValue(Key(other, s)) && !untouched)
        {
          throw dl::Error(dl::Complaint(Key(other, s), "a value, but no series", il + " as well", ""));
        }
      }
      return sensor;
    }
    const auto modelBands = this->ModelBands(s);
    if (modelBands.empty() && !Given(Key("bands", s)))
    {
      const char* ordinals[] = {"first", "second", "third", "fourth"};
      throw dl::Error(dl::Complaint(il, "a series", std::string("none: the model takes no ") + ordinals[s] + " sensor",
                                    "If it brings some of the bands of another one, name them with -" + Key("bands", s) + "."));
    }
    std::vector<std::string> names;
    const auto opened = this->OpenList(il, names, s == 0, this->Interpolation(), this->ModelNoData(s), true);
    std::vector<std::string> files = il == "in" ? std::vector<std::string>{GetParameterString("in")} : GetParameterStringList(il);
    if (opened.empty())
    {
      throw dl::Error(dl::Complaint(il, "no image", "a stack, or an image a date", ""));
    }
    for (std::size_t k = 0; k < opened.size(); ++k)
    {
      sensor.rasters.push_back({opened[k].image, names[k]});
    }

    // Dates.
    const std::string datesKey = Key("dates", s);
    std::vector<dl::Day> dates;
    std::vector<std::size_t> fileOf; // of each date
    if (Given(datesKey))
    {
      dates = this->ReadDates(datesKey);
      if (opened.size() > 1 && opened.size() != dates.size())
      {
        throw dl::Error(dl::Complaint(datesKey, std::to_string(dates.size()) + " dates", std::to_string(opened.size()) + ", one an image of " + il, ""));
      }
      fileOf = opened.size() > 1 ? this->Match(files, dates, il) : std::vector<std::size_t>(dates.size(), 0);
    }
    else if (GetParameterString("datesfrom") == "names")
    {
      const auto named = DatesOfNames(files);
      for (std::size_t k = 0; k < named.size(); ++k)
      {
        if (!named[k])
        {
          throw dl::Error(dl::Complaint(il, "\"" + Short(files[k]) + "\", a name without a date", "a date (YYYYMMDD) in the name of each image",
                                        "Give the dates in a file: -" + datesKey + "."));
        }
        const auto before = std::find(dates.begin(), dates.end(), *named[k]);
        if (before != dates.end())
        {
          throw dl::Error(
              dl::Complaint(il, dl::ToString(*named[k]) + " in the names of \"" + Short(files[before - dates.begin()]) + "\" and \"" + Short(files[k]) + "\"",
                            "one image a date", "Mosaic the images of a date first."));
        }
        dates.push_back(*named[k]);
        fileOf.push_back(k);
      }
    }
    else
    {
      throw dl::Error(
          dl::Complaint(datesKey, "nothing", "a text file with the dates of " + il, "Or -datesfrom names, when the names of the images hold them."));
    }
    const bool stack = opened.size() == 1 && (dates.size() > 1 || il == "in");
    if (stack && !std::is_sorted(dates.begin(), dates.end()))
    {
      const auto it = std::is_sorted_until(dates.begin(), dates.end());
      throw dl::Error(dl::Complaint(datesKey, dl::ToString(*it) + " after " + dl::ToString(*(it - 1)), "ascending dates, as those of a stack",
                                    "If the stack is not in order, give one image per date."));
    }

    // Bands.
    std::vector<std::string> head, tail;
    bool after = false;
    if (Given(Key("bands", s)))
    {
      for (const auto& word : Words(Key("bands", s), modelBands))
      {
        if (word == "|")
        {
          after = true;
          continue;
        }
        (after ? tail : head).push_back(word);
        if (std::count_if(head.begin(), head.end(), [&](const auto& b) { return dl::SameBand(b, word); }) +
                std::count_if(tail.begin(), tail.end(), [&](const auto& b) { return dl::SameBand(b, word); }) >
            1)
        {
          throw dl::Error(dl::Complaint(Key("bands", s), word + " twice", "each band once", ""));
        }
      }
    }
    const std::size_t T = dates.size();
    const auto describe = [&] { return std::to_string(modelBands.size()) + " (" + Join(modelBands) + ")"; };
    if (stack)
    {
      const std::size_t found = opened[0].image->GetNumberOfComponentsPerPixel();
      const bool given = !head.empty() || !tail.empty();
      if (!given)
      {
        const bool iota2 = found == (iota2Bands.size() + iota2Features.size()) * T &&
                           std::all_of(modelBands.begin(), modelBands.end(), [](const auto& b) { return Holds(iota2Bands, b) || Holds(iota2Features, b); });
        if (iota2 && found == modelBands.size() * T)
        {
          throw dl::Error(dl::Complaint(
              names[0], std::to_string(found) + " bands, which may be iota2's stack, or " + std::to_string(T) + " dates of " + describe(), "to be told which",
              "iota2's: -" + Key("bands", s) + " " + Join(iota2Bands) + " \"|\" " + Join(iota2Features) + ". Else name the bands of a date."));
        }
        head = iota2 ? iota2Bands : modelBands;
        tail = iota2 ? iota2Features : std::vector<std::string>();
        if (iota2)
        {
          otbAppLogINFO(<< il << ": taken for a stack of iota2, with " << Join(iota2Bands) << " of each date, then " << Join(iota2Features) << " of all dates");
        }
      }
      if (found != (head.size() + tail.size()) * T)
      {
        const std::string each =
            found % T == 0 ? " = " + std::to_string(T) + " dates of " + std::to_string(found / T) : ", no multiple of " + std::to_string(T) + " dates";
        throw dl::Error(dl::Complaint(
            names[0], std::to_string(found) + " bands" + each,
            std::to_string((head.size() + tail.size()) * T) + " = " + std::to_string(T) + " dates of " +
                (given ? std::to_string(head.size() + tail.size()) + " as -" + Key("bands", s) + " names them" : describe() + ", which the model takes"),
            found % T != 0 ? "Check the dates file."
            : given        ? "Name all bands of a date, also those that the model does not take."
                           : "Name the bands of a date with -" + Key("bands", s) + "."));
      }
      for (std::size_t t = 0; t < T; ++t)
      {
        for (std::size_t b = 0; b < head.size(); ++b)
        {
          sensor.layers.push_back({0, static_cast<unsigned int>(t * head.size() + b)});
        }
        for (std::size_t b = 0; b < tail.size(); ++b)
        {
          sensor.layers.push_back({0, static_cast<unsigned int>(head.size() * T + b * T + t)});
        }
      }
      if (!given)
      {
        std::vector<std::string> assumed(found);
        for (std::size_t i = 0; i < sensor.layers.size(); ++i)
        {
          const std::size_t b = i % (head.size() + tail.size());
          assumed[sensor.layers[i].band] = b < head.size() ? head[b] : tail[b - head.size()];
        }
        this->CheckTold(names[0], BandsTold(opened[0].descriptions, modelBands), assumed, Key("bands", s));
      }
      head.insert(head.end(), tail.begin(), tail.end());
      sensor.series.bands = head;
      sensor.series.dates = dates;
    }
    else
    {
      if (!tail.empty())
      {
        throw dl::Error(dl::Complaint(Key("bands", s), "a |", "names alone: " + il + " is not a stack", ""));
      }
      const std::size_t found = opened[0].image->GetNumberOfComponentsPerPixel();
      for (std::size_t k = 1; k < opened.size(); ++k)
      {
        if (opened[k].image->GetNumberOfComponentsPerPixel() != found)
        {
          throw dl::Error(dl::Complaint(names[k], std::to_string(opened[k].image->GetNumberOfComponentsPerPixel()) + " bands",
                                        std::to_string(found) + " as " + names[0], ""));
        }
      }
      if (head.empty())
      {
        const auto told = BandsTold(opened[0].descriptions, modelBands);
        const bool byDescription = told.size() == found && std::all_of(modelBands.begin(), modelBands.end(), [&](const auto& b) { return Holds(told, b); });
        head = byDescription ? told : modelBands;
        if (!byDescription && found != modelBands.size())
        {
          throw dl::Error(dl::Complaint(names[0], std::to_string(found) + " bands", describe() + ", which the model takes",
                                        "Name the bands of the images with -" + Key("bands", s) + "."));
        }
        for (std::size_t k = 0; k < opened.size(); ++k)
        {
          this->CheckTold(names[k], BandsTold(opened[k].descriptions, modelBands), head, Key("bands", s));
        }
      }
      if (head.size() != found)
      {
        throw dl::Error(dl::Complaint(Key("bands", s), std::to_string(head.size()) + " names", std::to_string(found) + ", one a band of " + names[0], ""));
      }
      std::vector<std::size_t> order(T);
      std::iota(order.begin(), order.end(), 0);
      std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return dates[a] < dates[b]; });
      for (const std::size_t t : order)
      {
        sensor.series.dates.push_back(dates[t]);
        for (std::size_t b = 0; b < found; ++b)
        {
          sensor.layers.push_back({fileOf[t], static_cast<unsigned int>(b)});
        }
      }
      sensor.series.bands = head;
    }
    this->AddMasks(s, sensor, dates);
    return sensor;
  }

  /** Validity rasters of a sensor. dates: in the order of the dates file or of the list. */
  void AddMasks(int s, Filter::Sensor& sensor, const std::vector<dl::Day>& dates)
  {
    const std::string key = Key("maskl", s);
    if (!Given(key))
    {
      return;
    }
    const std::string type = GetParameterString(Key("masktype", s));
    sensor.series.masks = type == "valid" ? dl::MaskMeaning::NotZeroIsValid
                          : type == "scl" ? dl::MaskMeaning::SceneClassification
                                          : dl::MaskMeaning::ZeroIsValid;
    // Outside of a mask's file nothing is valid.
    const double outside = type == "valid" || type == "scl" ? 0. : 2.;
    std::vector<std::string> names;
    const auto opened = this->OpenList(key, names, false, "near", outside, false);
    for (std::size_t k = 0; k < opened.size(); ++k)
    {
      sensor.maskRasters.push_back({opened[k].image, names[k]});
    }
    const std::size_t T = dates.size();
    std::vector<Filter::Layer> layers(T);
    if (opened.size() == 1 && opened[0].image->GetNumberOfComponentsPerPixel() == T)
    {
      for (std::size_t t = 0; t < T; ++t)
      {
        layers[t] = {0, static_cast<unsigned int>(t)};
      }
    }
    else if (opened.size() == T)
    {
      const auto order = this->Match(GetParameterStringList(key), dates, key);
      for (std::size_t t = 0; t < T; ++t)
      {
        if (opened[t].image->GetNumberOfComponentsPerPixel() != 1)
        {
          throw dl::Error(
              dl::Complaint(names[t], std::to_string(opened[t].image->GetNumberOfComponentsPerPixel()) + " bands", "one: the validity of its date", ""));
        }
        layers[t] = {order[t], 0};
      }
    }
    else
    {
      throw dl::Error(dl::Complaint(key,
                                    opened.size() == 1 ? std::to_string(opened[0].image->GetNumberOfComponentsPerPixel()) + " band(s) in one image"
                                                       : std::to_string(opened.size()) + " images",
                                    std::to_string(T) + ", one a date of " + sensor.series.option, ""));
    }
    // As the series: sorted by date.
    for (const auto date : sensor.series.dates)
    {
      sensor.masks.push_back(layers[std::find(dates.begin(), dates.end(), date) - dates.begin()]);
    }
  }

  void AddStatic(Filter* filter)
  {
    if (!Given("static"))
    {
      return;
    }
    std::vector<std::string> names;
    const auto opened = this->OpenList("static", names, false, this->Interpolation(), std::nullopt, true);
    std::vector<Filter::Raster> rasters;
    std::vector<std::string> bands;
    for (std::size_t k = 0; k < opened.size(); ++k)
    {
      rasters.push_back({opened[k].image, names[k]});
    }
    if (Given("staticbands"))
    {
      bands = Words("staticbands");
    }
    else
    {
      for (const auto& in : m_Contract.inputs)
      {
        for (std::size_t b = 0; b < in.bands.size(); ++b)
        {
          const bool fixed = in.role == "static" || (in.role == "sits" && in.sensors[b] == 0);
          if (fixed && !Holds(bands, in.bands[b]))
          {
            bands.push_back(in.bands[b]);
          }
        }
      }
    }
    filter->SetStatic(rasters, bands);
  }

  /** -imstat: each band of the first sensor's stack is centred and reduced, for models that take raw values. */
  void ReadStatistics(Filter::Sensor& sensor)
  {
    if (!Given("imstat"))
    {
      return;
    }
    const std::string file = GetParameterString("imstat");
    for (const auto& in : m_Contract.inputs)
    {
      for (std::size_t b = 0; in.role == "sits" && b < in.bands.size(); ++b)
      {
        const auto& scaling = in.scaling[b];
        if (in.sensors[b] == 1 && (scaling.offset != 0. || scaling.divisor != 1. || std::isfinite(scaling.low) || std::isfinite(scaling.high)))
        {
          throw dl::Error(
              dl::Complaint("imstat", "\"" + file + "\", though the model's contract scales its bands itself", "no statistics", "Leave imstat out."));
        }
      }
    }
    using Measure = itk::VariableLengthVector<float>;
    auto reader = otb::StatisticsXMLFileReader<Measure>::New();
    reader->SetFileName(file);
    Measure mean, deviation;
    try
    {
      mean = reader->GetStatisticVectorByName("mean");
      deviation = reader->GetStatisticVectorByName("stddev");
    }
    catch (const itk::ExceptionObject&)
    {
      throw dl::Error(dl::Complaint("imstat", "\"" + file + "\", without mean and stddev", "a file of ComputeImagesStatistics", ""));
    }
    const std::size_t all = sensor.layers.size();
    if (sensor.rasters.size() != 1 || mean.Size() != all || deviation.Size() != all)
    {
      throw dl::Error(dl::Complaint("imstat", std::to_string(mean.Size()) + " bands in \"" + file + "\"", std::to_string(all) + ", those of one stack", ""));
    }
    for (std::size_t i = 0; i < all; ++i)
    {
      const unsigned int band = sensor.layers[i].band;
      if (!(deviation[band] > 0.f))
      {
        throw dl::Error(
            dl::Complaint("imstat", "a standard deviation of " + std::to_string(deviation[band]) + " for band " + std::to_string(band + 1), "one above 0", ""));
      }
      sensor.series.mean.push_back(mean[band]);
      sensor.series.divisor.push_back(deviation[band]);
    }
  }

  void AfterExecuteAndWriteOutputs() override
  {
    const char* keys[] = {"out", "confmap", "probamap", "features", "entropy", "margin", "mutual", "nvalid"};
    if (std::none_of(std::begin(keys), std::end(keys), [this](const char* key) { return Given(key); }))
    {
      throw dl::Error(dl::Complaint("out", "no output", "one at least: out, confmap, probamap, features, entropy, margin, mutual or nvalid", ""));
    }
    DLApplication::AfterExecuteAndWriteOutputs();
  }

  dl::Legend LegendOf(const std::string& key) const override
  {
    if (key == "out")
    {
      std::vector<dl::ModelClass> classes;
      for (const auto& c : m_ClassNames)
      {
        classes.push_back({c.label, c.name, c.colour});
      }
      return dl::ClassLegend(classes);
    }
    if (key == "probamap" || key == "features" || (key == "nvalid" && m_MostDates == 0))
    {
      return {}; // bands that are no map by themselves
    }
    return dl::RampLegend(0., key == "nvalid" ? static_cast<double>(m_MostDates) : 1., dl::RampColours::Viridis);
  }

  std::string WriterOptions(const std::string& key) const override
  {
    auto* self = const_cast<Self*>(this);
    return key == "features" && self->Quantised() ? "&gdal:co:PIXELTYPE=SIGNEDBYTE" : "";
  }

  /** Names of classes, dimensions and sensors go to the bands; a quantised embedding says how it is read. */
  void FinishFile(const std::string& key, const std::string& path) override
  {
    std::vector<std::string> names;
    if (key == "probamap")
    {
      for (const auto& c : m_ClassNames)
      {
        names.push_back(std::to_string(c.label) + (c.name.empty() ? "" : " " + c.name));
      }
    }
    else if (key == "nvalid")
    {
      names = m_SensorNames;
    }
    const bool quantised = key == "features" && Quantised();
    if (names.empty() && !quantised)
    {
      return;
    }
    GDALDatasetH dataset = GDALOpen(path.c_str(), GA_Update);
    if (!dataset)
    {
      return; // a format without updates: the pixels are there
    }
    for (int b = 1; b <= GDALGetRasterCount(dataset); ++b)
    {
      GDALRasterBandH band = GDALGetRasterBand(dataset, b);
      if (b <= static_cast<int>(names.size()))
      {
        GDALSetDescription(band, names[b - 1].c_str());
      }
      if (quantised)
      {
        GDALSetRasterNoDataValue(band, -128.);
        GDALSetMetadataItem(band, "NoData", "-128", nullptr); // as OTB writes it
      }
    }
    if (quantised)
    {
      GDALSetMetadataItem(dataset, "OTB_QUANTIZATION", "{\"kind\": \"signed_sqrt\", \"scale\": 127.5, \"nodata\": -128}", nullptr);
    }
    GDALClose(dataset);
  }

  Rasters m_Rasters;
  dl::ModelContract m_Contract;
  itk::ImageBase<2>::Pointer m_Reference;
  std::string m_ReferenceName;
  std::vector<dl::MapClass> m_ClassNames;
  std::vector<std::string> m_SensorNames;
  std::size_t m_MostDates = 0; ///< of a sensor
};

} // namespace Wrapper
} // namespace otb

OTB_APPLICATION_EXPORT(otb::Wrapper::TimeSeriesClassify)
