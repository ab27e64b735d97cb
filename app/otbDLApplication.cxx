/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLApplication.h"

#include "otbDLError.h"
#include "otbDLGdal.h"
#include "otbDLLegendFiles.h"
#include "otbDLRasters.h"

#include "itkCommand.h"
#include "otbExtendedFilenameToWriterOptions.h"
#include "otbImageFileWriter.h"
#include "otbImageIOFactory.h"
#include "otbImageRegionSquareTileSplitter.h"
#include "otbNoDataHelper.h"
#include "otbMultiImageFileWriter.h"
#include "otbWrapperAddProcessToWatchEvent.h"
#include "otbWrapperInputImageListParameter.h"

#include <cpl_conv.h>
#include <cpl_error.h>
#include <gdal.h>
#include <gdal_alg.h>
#include <gdal_priv.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <map>
#include <sstream>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace otb
{
namespace Wrapper
{

namespace fs = std::filesystem;
using otb::dl::Complaint;
using otb::dl::Error;
using otb::dl::Join;
using otb::dl::QuietGdal;

namespace
{

using Clock = std::chrono::steady_clock;

double Since(Clock::time_point start)
{
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/** 75 -> "1:15" */
std::string Minutes(double seconds)
{
  const long s = std::lround(seconds);
  std::ostringstream text;
  if (s >= 3600)
  {
    text << s / 3600 << ':' << std::setw(2) << std::setfill('0') << s / 60 % 60;
  }
  else
  {
    text << s / 60;
  }
  text << ':' << std::setw(2) << std::setfill('0') << s % 60;
  return text.str();
}

/** Calls f with the writer as what it is; false when it is none of OTB's image writers for these applications. */
template <typename TFunction>
bool WithWriter(itk::ProcessObject* writer, TFunction f)
{
  bool found = false;
  const auto as = [&](auto* typed)
  {
    if (typed && !found)
    {
      found = true;
      f(typed);
    }
  };
  as(dynamic_cast<otb::ImageFileWriter<UInt8VectorImageType>*>(writer));
  as(dynamic_cast<otb::ImageFileWriter<Int16VectorImageType>*>(writer));
  as(dynamic_cast<otb::ImageFileWriter<UInt16VectorImageType>*>(writer));
  as(dynamic_cast<otb::ImageFileWriter<Int32VectorImageType>*>(writer));
  as(dynamic_cast<otb::ImageFileWriter<UInt32VectorImageType>*>(writer));
  as(dynamic_cast<otb::ImageFileWriter<FloatVectorImageType>*>(writer));
  as(dynamic_cast<otb::ImageFileWriter<DoubleVectorImageType>*>(writer));
  return found;
}

bool IsVirtual(const std::string& path)
{
  return path.rfind("/vsi", 0) == 0;
}

/** Is a file of this name written in place? GDAL's virtual files are; and ENVI's when the header is named, whose data file OTB then names by itself. */
bool WrittenInPlace(const std::string& path)
{
  return IsVirtual(path) || fs::path(path).extension() == ".hdr";
}

/** One spelling for a path, whether the file exists or not. */
std::string Canonical(const std::string& path)
{
  std::error_code ec;
  const auto canonical = fs::weakly_canonical(fs::absolute(path), ec);
  return ec ? path : canonical.string();
}

/** Errors that GDAL reported since Watch(), from whatever thread; they still reach the handler that was there before. OTB does not look at what goes
 * wrong when a file is closed. */
class GdalErrors
{
public:
  static void Watch()
  {
    Count() = 0;
    if (!Watching())
    {
      // With its own data: the one before may need them.
      UserData() = CPLGetErrorHandlerUserData();
      Previous() = CPLSetErrorHandlerEx(&Handle, UserData());
      Watching() = true;
    }
  }
  static int Stop()
  {
    if (Watching())
    {
      CPLSetErrorHandlerEx(Previous(), UserData());
      Watching() = false;
    }
    return Count();
  }

private:
  static void CPL_STDCALL Handle(CPLErr level, CPLErrorNum number, const char* text)
  {
    Count() += level >= CE_Failure;
    (Previous() ? Previous() : &CPLDefaultErrorHandler)(level, number, text);
  }
  static std::atomic<int>& Count()
  {
    static std::atomic<int> count{0};
    return count;
  }
  static CPLErrorHandler& Previous()
  {
    static CPLErrorHandler previous = nullptr;
    return previous;
  }
  static void*& UserData()
  {
    static void* data = nullptr;
    return data;
  }
  static bool& Watching()
  {
    static bool watching = false;
    return watching;
  }
};

/** Can a data set be read from its first pixel to its last? */
bool ReadsWhole(const std::string& path)
{
  CPLErrorReset();
  GDALDatasetH dataset = GDALOpen(path.c_str(), GA_ReadOnly);
  bool good = dataset != nullptr;
  for (int b = 1; good && b <= GDALGetRasterCount(dataset); ++b)
  {
    GDALChecksumImage(GDALGetRasterBand(dataset, b), 0, 0, GDALGetRasterXSize(dataset), GDALGetRasterYSize(dataset));
    good = CPLGetLastErrorType() < CE_Failure;
  }
  if (dataset)
  {
    GDALClose(dataset);
  }
  return good;
}

/** "dir/map.tif" -> "dir/map.qml", where QGIS looks for a style */
std::string StyleName(const std::string& path)
{
  return fs::path(path).replace_extension(".qml").string();
}

/** "dir/map.tif" -> "dir/map.part-1234.tif" */
std::string TemporaryName(const std::string& path)
{
  const fs::path p(path);
  return (p.parent_path() / (p.stem().string() + ".part-" + std::to_string(getpid()) + p.extension().string())).string();
}

/** Writes to disk whatever GDAL still holds of a file. */
void FlushDataset(const std::string& path)
{
  GDALDatasetH* datasets = nullptr;
  int count = 0;
  GDALGetOpenDatasets(&datasets, &count);
  for (int k = 0; k < count; ++k)
  {
    if (path == GDALGetDescription(datasets[k]))
    {
      GDALFlushCache(datasets[k]);
    }
  }
}

/** A number of square tiles near `wanted` that MultiImageFileWriter (OTB 8.1) writes without leaving any out; 0 if there is none.
 *
 * That writer asks its splitter for a number of tiles, gets another number, asks again for that one, and then writes as many tiles as it was promised the first
 * time though the second answer cut the image into more. So the number must be one that the splitter gives back unchanged. */
unsigned int SafeNumberOfTiles(const itk::ImageRegion<2>& image, const itk::ImageRegion<2>& written, unsigned int wanted)
{
  auto splitter = otb::ImageRegionSquareTileSplitter<2>::New();
  for (unsigned int n = wanted; n <= 4 * wanted + 16; ++n)
  {
    unsigned int tiles = splitter->GetNumberOfSplits(image, n);
    unsigned int again = splitter->GetNumberOfSplits(written, tiles);
    while (again < tiles && tiles > 1)
    {
      tiles = again;
      again = splitter->GetNumberOfSplits(written, tiles);
    }
    if (again == tiles)
    {
      return n;
    }
  }
  return 0;
}

/** Resident memory of this process in bytes: now (VmRSS) or at most so far (VmHWM). 0 where the system does not tell. */
std::size_t ResidentBytes(const std::string& key)
{
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
  {
    if (line.rfind(key + ":", 0) == 0)
    {
      return std::stoull(line.substr(key.size() + 1)) << 10;
    }
  }
  return 0;
}

/** Is this process a run that QGIS's provider started? It sets these two variables and next to no other. */
bool RunByQgis()
{
  const char* drivers = std::getenv("GDAL_DRIVER_PATH");
  return std::string(program_invocation_short_name) == "otbApplicationLauncherCommandLine" && drivers && std::string(drivers) == "disable" &&
         std::getenv("OTB_LOGGER_LEVEL") != nullptr;
}

} // namespace

DLApplication::DLApplication()
{
  m_Console = isatty(STDOUT_FILENO) != 0;
  auto watch = itk::ReceptorMemberCommand<Self>::New();
  watch->SetCallbackFunction(this, &Self::OnProcess);
  this->AddObserver(AddProcessToWatchEvent(), watch);
}

DLApplication::~DLApplication()
{
  this->Discard();
  this->RestoreCache();
  if (!m_Whole && RunByQgis())
  {
    // QGIS 3.22 heeds neither exit code nor messages, and would take what lies under the name of the output for the result. A line of progress without a
    // colon is what its reader cannot get over: the algorithm fails. The reason was said before, by the launcher.
    std::cout << this->GetName() << " failed at ?% [see the reason above]" << std::endl;
  }
}

void DLApplication::AfterExecuteAndWriteOutputs()
{
  m_Whole = true;
}

void DLApplication::DoFreeRessources()
{
  this->RestoreCache();
}

void DLApplication::RestoreCache()
{
  if (m_CacheBefore >= 0)
  {
    GDALSetCacheMax64(m_CacheBefore);
    m_CacheBefore = -1;
  }
}

void DLApplication::AddModelParameters()
{
  AddParameter(ParameterType_InputFilename, "model", "TorchScript model");
  SetParameterDescription("model", "A network exported to TorchScript (.pt), with its contract inside or beside it");

  AddParameter(ParameterType_InputFilename, "contract", "Model contract");
  SetParameterDescription("contract", "A JSON side-car that replaces the contract inside the model: bands, scaling, tiling, outputs");
  MandatoryOff("contract");
}

void DLApplication::AddRunParameters()
{
  AddParameter(ParameterType_String, "device", "Device");
  SetParameterDescription("device", "auto (a GPU when there is one), cpu, cuda or cuda:N");
  SetParameterString("device", "auto", false);
  MandatoryOff("device");

  AddParameter(ParameterType_Choice, "precision", "Precision");
  SetParameterDescription("precision", "Arithmetic of the network");
  AddChoice("precision.fp32", "32 bit float");
  AddChoice("precision.bf16", "bfloat16");
  AddChoice("precision.fp16", "16 bit float, on GPUs only");
  MandatoryOff("precision");

  AddParameter(ParameterType_Int, "batch", "Patches in a batch");
  SetParameterDescription("batch", "0: found by a short measurement, within the memory given");
  SetDefaultParameterInt("batch", 0);
  SetMinimumParameterIntValue("batch", 0);
  MandatoryOff("batch");

  AddParameter(ParameterType_Choice, "blend", "How patches meet");
  SetParameterDescription("blend", "auto: as the contract says");
  AddChoice("blend.auto", "As the contract says");
  AddChoice("blend.crop", "Crop the halo of each patch, exact for convolutional networks");
  AddChoice("blend.hann", "Average overlapping patches with a Hann window");
  MandatoryOff("blend");

  AddParameter(ParameterType_Choice, "legend", "Colours and names");
  SetParameterDescription("legend", "Are maps written with what is needed to open them as maps?");
  AddChoice("legend.on", "Colour table, class names and attribute table in the file, a QGIS style (.qml) beside it and in the GeoPackage");
  AddChoice("legend.off", "Pixels alone");
  MandatoryOff("legend");

  AddRAMParameter();
}

/** The same object may run more than once: nothing of the run before must stay. */
void DLApplication::Begin()
{
  this->Discard();
  m_Aligned.Clear();
  m_InputPaths.clear();
  m_OutputKeys.clear();
  for (const auto& [key, type] : m_TypesBefore)
  {
    SetParameterOutputImagePixelType(key, type);
  }
  m_TypesBefore.clear();
  m_Settings = {};
  m_Settings.whole = false; // until a writer of ours asks for regions
  m_Filter = nullptr;
  m_Writer = nullptr;
}

std::vector<double> DLApplication::GetTemperatures() const
{
  std::vector<double> temperatures;
  for (const auto& c : m_Contracts)
  {
    temperatures.push_back(c.temperature);
  }
  return temperatures;
}

void DLApplication::ChangePixelType(const std::string& key, ImagePixelType type)
{
  m_TypesBefore.emplace(key, GetParameterOutputImagePixelType(key));
  SetParameterOutputImagePixelType(key, type);
}

void DLApplication::NoteInput(const std::string& key)
{
  this->NoteInputFile(GetParameterString(key));
}

void DLApplication::NoteInputFile(const std::string& name)
{
  if (name.empty())
  {
    return; // made in memory
  }
  m_InputPaths.push_back(Canonical(SplitName(name).first));
}

otb::dl::ModelContract DLApplication::ReadModelContract(bool ensembles)
{
  this->Begin();
  m_ModelFiles = otb::dl::ModelFiles(GetParameterString("model"));
  if (!ensembles && m_ModelFiles.size() > 1)
  {
    throw Error(Complaint("model", "a list of " + std::to_string(m_ModelFiles.size()) + " models", "one model", "This application runs no ensembles."));
  }
  const std::string sideCar = IsSet("contract") ? GetParameterString("contract") : "";
  m_Contracts.clear();
  for (const auto& file : m_ModelFiles)
  {
    std::string origin;
    m_Contracts.push_back(otb::dl::ReadContract(file, sideCar, &origin));
    const auto& contract = m_Contracts.back();
    otbAppLogINFO(<< "Model " << contract.id << " (" << contract.architecture << "), contract from " << (origin == file ? "the model itself" : origin));
    otb::dl::CheckSameInterface(m_Contracts.front(), m_ModelFiles.front(), contract, file);
  }
  const std::string blend = GetParameterString("blend");
  for (auto& contract : m_Contracts)
  {
    if (blend == "crop")
    {
      contract.tiling.blend = otb::dl::Blend::Crop;
    }
    else if (blend == "hann")
    {
      contract.tiling.blend = otb::dl::Blend::Hann;
    }
  }
  return m_Contracts.front();
}

void DLApplication::AddObjectParameters()
{
  AddParameter(ParameterType_OutputFilename, "objects", "Change objects");
  SetParameterDescription("objects", "GeoPackage (.gpkg; or .shp) of the polygons of the change map, with area, perimeter, score and compactness");
  MandatoryOff("objects");
  AddParameter(ParameterType_Float, "minsize", "Smallest object");
  SetParameterDescription("minsize", "Area below which objects are dropped, in the unit of sizeunit");
  AddParameter(ParameterType_Float, "fill", "Largest hole filled");
  SetParameterDescription("fill", "Area up to which holes of objects are filled, in the unit of sizeunit");
  AddParameter(ParameterType_Float, "simplify", "Simplification");
  SetParameterDescription("simplify", "Tolerance in pixels; borders between objects stay shared");
  for (const char* key : {"minsize", "fill", "simplify"})
  {
    SetDefaultParameterFloat(key, 0.f);
    SetMinimumParameterFloatValue(key, 0.f);
    MandatoryOff(key);
  }
  AddParameter(ParameterType_Choice, "sizeunit", "Unit of areas");
  AddChoice("sizeunit.px", "Pixels");
  AddChoice("sizeunit.m2", "Square metres");
  MandatoryOff("sizeunit");
  AddParameter(ParameterType_Int, "opening", "Morphological opening");
  SetParameterDescription("opening", "Radius in pixels of the disk that the map is opened with before objects are made; 0: none");
  SetDefaultParameterInt("opening", 0);
  SetMinimumParameterIntValue("opening", 0);
  MandatoryOff("opening");
}

std::string DLApplication::CheckObjects(const std::string& map)
{
  if (!IsParameterEnabled("objects") || !HasValue("objects"))
  {
    return "";
  }
  const std::string file = GetParameterString("objects");
  if (!IsParameterEnabled(map) || !HasValue(map))
  {
    throw Error(Complaint("objects", "no -" + map, "the map that the objects are made from", "Give -" + map + " a file name as well."));
  }
  const fs::path path(file), folder = path.parent_path().empty() ? fs::path(".") : path.parent_path();
  if (path.extension() != ".gpkg" && path.extension() != ".shp")
  {
    throw Error(Complaint("objects", "\"" + file + "\"", "a name that ends in .gpkg, or in .shp", ""));
  }
  if (!fs::is_directory(folder) || access(folder.c_str(), W_OK) != 0)
  {
    throw Error(
        Complaint("objects", "\"" + file + "\", in a folder that does not exist or where you may not write", "a writable file name", "Make the folder first."));
  }
  const std::string options = SplitName(GetParameterString(map)).second;
  if (options.find("&box=") != std::string::npos)
  {
    throw Error(Complaint("objects", "-" + map + " with a box", "the whole map", "Objects at the edge of a box would be cut."));
  }
  return file;
}

void DLApplication::CheckFiles(const std::vector<std::pair<std::string, std::string>>& files)
{
  std::map<std::string, std::string> taken;
  for (const auto& key : m_OutputKeys)
  {
    if (IsParameterEnabled(key) && !GetParameterString(key).empty())
    {
      taken[Canonical(SplitName(GetParameterString(key)).first)] = "the file of -" + key;
    }
  }
  for (const auto& input : m_InputPaths)
  {
    taken[input] = "which is an input of this run";
  }
  for (const auto& [key, file] : files)
  {
    if (file.empty())
    {
      continue;
    }
    const bool shapefile = fs::path(file).extension() == ".shp"; // whose style lies beside it
    const auto alike = std::find_if(taken.begin(), taken.end(), [&](const auto& t) { return shapefile && StyleName(t.first) == StyleName(Canonical(file)); });
    if (alike != taken.end() && alike->first != Canonical(file))
    {
      throw Error(Complaint(key, "\"" + file + "\", whose style would have the name of that of \"" + alike->first + "\"", "another name", "Or ask for .gpkg."));
    }
    const auto [at, fresh] = taken.emplace(Canonical(file), "the file of -" + key);
    if (!fresh)
    {
      const bool read = std::find(m_InputPaths.begin(), m_InputPaths.end(), at->first) != m_InputPaths.end();
      throw Error(Complaint(key, "\"" + file + "\", " + at->second, read ? "another file name" : "one file an output", ""));
    }
  }
}

otb::dl::ObjectReport DLApplication::WriteObjects(const std::string& map, const std::string& score, const std::string& scoreName,
                                                  const std::vector<std::pair<int, std::string>>& classes, const std::map<std::string, std::string>& attributes)
{
  otb::dl::ObjectSettings settings;
  settings.minimumArea = GetParameterFloat("minsize");
  settings.fill = GetParameterFloat("fill");
  settings.minimumInPixels = GetParameterString("sizeunit") == "px";
  settings.opening = GetParameterInt("opening");
  settings.simplify = GetParameterFloat("simplify");
  settings.classes = classes;
  settings.attributes = attributes;
  settings.legend = WantsLegend() ? this->LegendOf(map) : otb::dl::Legend();
  settings.memory = (static_cast<std::size_t>(std::max(1, GetParameterInt("ram"))) << 20) / 4;
  const auto path = [this](const std::string& key) { return key.empty() ? "" : SplitName(GetParameterString(key)).first; };
  const std::string file = GetParameterString("objects");
  const auto report = otb::dl::WriteChangeObjects(path(map), path(score), scoreName, static_cast<int>(classes.size()), file, settings, {});
  otbAppLogINFO(<< "Wrote " << file << ": " << report.objects << " objects" << (report.tooSmall ? ", " + std::to_string(report.tooSmall) + " too small" : "")
                << (report.holesFilled ? ", " + std::to_string(report.holesFilled) + " holes filled" : ""));
  return report;
}

/** The no-data value of an output must fit the type of its file, or it would turn into data. */
void DLApplication::CheckPixelType(const std::string& key)
{
  const auto found = std::find(m_OutputKeys.begin(), m_OutputKeys.end(), key);
  std::vector<bool> flags;
  std::vector<double> values;
  const auto* image = m_Filter->GetOutput(static_cast<unsigned int>(found - m_OutputKeys.begin()));
  if (!ReadNoDataFlags(image->GetImageMetadata(), flags, values) || values.empty())
  {
    return;
  }
  const auto type = GetParameterOutputImagePixelType(key);
  // Lowest and highest of uint8, int16, uint16, int32, uint32, float, double.
  const std::pair<double, double> ranges[] = {{0., 255.}, {-32768., 32767.}, {0., 65535.}, {-2147483648., 2147483647.}, {0., 4294967295.}};
  const auto index = static_cast<std::size_t>(type);
  if (index < 5 && (values[0] < ranges[index].first || values[0] > ranges[index].second))
  {
    std::ostringstream expected;
    expected << "one that holds the no-data value " << values[0];
    throw Error(
        Complaint(key, "pixels of type " + OutputImageParameter::ConvertPixelTypeToString(type), expected.str(), "Leave the type out, or ask for float."));
  }
}

/** Finds before the first pixel what would stop the writing after the last. */
void DLApplication::CheckOutputs(const std::vector<std::string>& keys)
{
  std::vector<std::string> seen;
  std::string box, boxed;
  const auto job = m_Filter->GetJob();
  std::map<dev_t, double> needed; // bytes, of each disk
  for (const auto& key : keys)
  {
    if (!IsParameterEnabled(key) || GetParameterString(key).empty())
    {
      continue; // made in memory, for another application
    }
    const auto [path, options] = SplitName(GetParameterString(key));
    const auto at = options.find("&box=");
    const std::string thisBox = at == std::string::npos ? "" : options.substr(at + 5, options.find('&', at + 1) - at - 5);
    if (!boxed.empty() && thisBox != box)
    {
      throw Error(Complaint(key, thisBox.empty() ? "no box" : "box " + thisBox, (box.empty() ? "no box" : "box " + box) + " as " + boxed,
                            "Outputs of one run show one window."));
    }
    box = thisBox;
    boxed = key;
    this->CheckPixelType(key);
    if (IsVirtual(path))
    {
      continue;
    }
    const std::string canonical = Canonical(path);
    if (std::find(m_InputPaths.begin(), m_InputPaths.end(), canonical) != m_InputPaths.end())
    {
      throw Error(Complaint(key, "\"" + path + "\", which is an input of this run", "another file name", ""));
    }
    if (std::find(seen.begin(), seen.end(), canonical) != seen.end())
    {
      throw Error(Complaint(key, "\"" + path + "\", the file of another output as well", "one file an output", ""));
    }
    seen.push_back(canonical);
    std::error_code ec;
    const fs::path folder = fs::path(path).parent_path().empty() ? fs::path(".") : fs::path(path).parent_path();
    if (!fs::is_directory(folder, ec))
    {
      throw Error(Complaint(key, "\"" + path + "\", in a folder that does not exist", "a writable file name", "Make the folder first."));
    }
    if (fs::exists(path, ec) && !fs::is_regular_file(path, ec))
    {
      throw Error(Complaint(key, "\"" + path + "\", which exists and is not a file", "a writable file name", ""));
    }
    if (access(folder.c_str(), W_OK) != 0 || (fs::exists(path, ec) && access(path.c_str(), W_OK) != 0))
    {
      throw Error(Complaint(key, "\"" + path + "\", where you may not write", "a writable file name", "Check the permissions."));
    }
    if (otb::ImageIOFactory::CreateImageIO(path.c_str(), otb::ImageIOFactory::WriteMode).IsNull())
    {
      throw Error(Complaint(key, "\"" + path + "\", a name that tells no format that can be written", "e.g. .tif", "Give the file another extension."));
    }
    const auto space = fs::space(folder, ec);
    const int bytes[] = {1, 2, 2, 4, 4, 4, 8};
    const auto type = static_cast<std::size_t>(GetParameterOutputImagePixelType(key));
    if (!ec && (options.find("COMPRESS=") == std::string::npos || options.find("COMPRESS=NONE") != std::string::npos) &&
        options.find("&box=") == std::string::npos)
    {
      struct stat status = {};
      stat(folder.c_str(), &status);
      double& sum = needed[status.st_dev];
      const auto index = std::find(m_OutputKeys.begin(), m_OutputKeys.end(), key) - m_OutputKeys.begin();
      const double bands = m_Filter->GetOutput(static_cast<unsigned int>(index))->GetNumberOfComponentsPerPixel();
      sum += static_cast<double>(job.width) * static_cast<double>(job.height) * bands * (type < 7 ? bytes[type] : 4);
      if (sum > static_cast<double>(space.available))
      {
        std::ostringstream found, expected;
        found << std::fixed << std::setprecision(2) << static_cast<double>(space.available) / 1048576. << " MB free in \"" << folder.string() << "\"";
        expected << std::fixed << std::setprecision(2) << sum / 1048576. << " MB";
        throw Error(
            Complaint(key, found.str(), expected.str() + " for the outputs", "Free some space, or compress: \"" + path + "?&gdal:co:COMPRESS=DEFLATE\"."));
      }
    }
  }
}

void DLApplication::PrepareOutputs(FilterType* filter, const std::vector<std::string>& outputs)
{
  m_Start = Clock::now();
  m_Filter = filter;
  m_OutputKeys = outputs;
  m_LastPercent = -1;
  filter->UpdateOutputInformation(); // all that can be wrong with grids and bands
  this->CheckOutputs(outputs);
  for (const auto& key : GetParametersKeys(true))
  {
    auto* parameter = dynamic_cast<OutputImageParameter*>(GetParameterByKey(key));
    if (parameter && parameter->GetValue() && std::find(outputs.begin(), outputs.end(), key) == outputs.end())
    {
      // Of the run before, which no longer is.
      parameter->SetValue(nullptr);
      DisableParameter(key);
    }
  }

  // A share of the memory given for everything that grows: tensors, patches on their way, GDAL's blocks, the writer's regions.
  const std::size_t ram = static_cast<std::size_t>(std::max(1, GetParameterInt("ram"))) << 20;
  if (m_CacheBefore < 0 && CPLGetConfigOption("GDAL_CACHEMAX", nullptr) == nullptr)
  {
    m_CacheBefore = GDALGetCacheMax64();
    GDALSetCacheMax64(static_cast<GIntBig>(std::max<std::size_t>(ram / 8, std::size_t(4) << 20)));
  }
  m_Settings.keptBytes = ram / 8;
  m_Settings.readBytes = ram / 8;
  m_Settings.threads = static_cast<int>(itk::MultiThreader::GetGlobalDefaultNumberOfThreads());
  std::error_code ec;
  m_Settings.spillDirectory = fs::temp_directory_path(ec).string();
  if (ec)
  {
    m_Settings.spillDirectory.clear();
  }
  for (const auto& key : outputs)
  {
    const std::string path = SplitName(GetParameterString(key)).first;
    if (IsParameterEnabled(key) && !path.empty() && !IsVirtual(path))
    {
      const auto folder = fs::path(path).parent_path();
      m_Settings.spillDirectory = folder.empty() ? "." : folder.string();
      break;
    }
  }
}

std::unique_ptr<otb::dl::Predictor>
DLApplication::LoadNetwork(const std::function<std::unique_ptr<otb::dl::Predictor>(const otb::dl::RuntimeOptions&, otb::dl::RuntimeReport&)>& load)
{
  const std::size_t ram = static_cast<std::size_t>(std::max(1, GetParameterInt("ram"))) << 20;
  const auto job = m_Filter->GetJob();
  otb::dl::RuntimeOptions options;
  options.device = GetParameterString("device");
  options.precision = GetParameterString("precision");
  options.batch = GetParameterInt("batch");
  if (options.batch < 0)
  {
    throw Error(Complaint("batch", std::to_string(options.batch), "a number of " + job.unit + ", or 0", ""));
  }
  options.threads = static_cast<int>(itk::MultiThreader::GetGlobalDefaultNumberOfThreads());
  options.memory = ram / 2;
  options.samples = job.samples;
  options.warn = [this](const std::string& text) { otbAppLogWARNING(<< text); };
  m_Runtime = {};
  auto predictor = load(options, m_Runtime);
  m_CallSize = std::max(1, predictor->CallSize());

  const std::size_t tensors = m_Runtime.bytesBase + m_Runtime.bytesPerSample * m_Runtime.batch * m_Runtime.workers;
  if (job.unit == "pixels" && tensors < ram / 2)
  {
    // Networks of pixels are small: what they leave goes to reading, half of it to blocks of files that come back.
    const std::size_t spare = (ram / 2 - tensors) / 2;
    m_Settings.readBytes += spare;
    if (m_CacheBefore >= 0)
    {
      GDALSetCacheMax64(GDALGetCacheMax64() + static_cast<GIntBig>(spare));
    }
  }
  otbAppLogINFO(<< "Device " << m_Runtime.device << " (" << m_Runtime.deviceReason << "), " << m_Runtime.precision << ", " << m_Runtime.threads
                << " thread(s), " << m_Runtime.memoryFormat << ", LibTorch " << m_Runtime.torchVersion << " with " << m_Runtime.blas);
  otbAppLogINFO(<< "Batch of " << m_Runtime.batch << " " << job.unit << " (" << m_Runtime.batchReason << "), " << m_Runtime.workers << " at a time");
  for (const auto& warning : m_Runtime.warnings)
  {
    otbAppLogWARNING(<< warning);
  }
  otbAppLogINFO(<< job.width << " x " << job.height << " pixels, " << job.description
                << (m_Runtime.secondsPerSample > 0. ? ", about " + Minutes(m_Runtime.secondsPerSample * static_cast<double>(job.samples)) + " of inference"
                                                    : ""));
  const auto megabytes = [](std::size_t bytes) { return static_cast<double>(bytes >> 10) / 1024.; };
  otbAppLogINFO(<< std::fixed << std::setprecision(1) << "Memory: of " << megabytes(ram) << " MB, tensors take " << megabytes(tensors)
                << (job.unit == "pixels" ? ", series read at once up to " : ", patches kept up to ")
                << megabytes(job.unit == "pixels" ? m_Settings.readBytes : m_Settings.keptBytes) << ", GDAL's cache up to "
                << megabytes(static_cast<std::size_t>(GDALGetCacheMax64())) << ", written regions up to " << megabytes(ram / 4)
                << "; besides, the programs themselves take " << megabytes(ResidentBytes("VmRSS")));

  return predictor;
}

void DLApplication::Connect(std::unique_ptr<otb::dl::Predictor> predictor)
{
  m_Working = predictor ? "Inference" : "Scoring";
  m_Filter->SetPredictor(std::shared_ptr<otb::dl::Predictor>(std::move(predictor)));
  m_Filter->SetSettings(m_Settings);
  auto progress = itk::SimpleMemberCommand<Self>::New();
  progress->SetCallbackFunction(this, &Self::OnProgress);
  m_Filter->AddObserver(itk::ProgressEvent(), progress);
}

void DLApplication::AddViewsParameter()
{
  AddParameter(ParameterType_Choice, "tta", "Test-time augmentation");
  SetParameterDescription("tta", "Views of each patch whose probabilities are averaged, as far as the model's contract lists them");
  AddChoice("tta.none", "The patch as it is");
  AddChoice("tta.swap", "Also with the dates exchanged: twice the time");
  AddChoice("tta.d4", "Quarter turns and mirror images: 8 times the time");
  MandatoryOff("tta");
}

std::vector<otb::dl::View> DLApplication::GetViews() const
{
  std::vector<otb::dl::View> views(1);
  for (const auto& contract : m_Contracts)
  {
    views = otb::dl::ViewsOf(const_cast<Self*>(this)->GetParameterString("tta"), contract);
  }
  return views;
}

void DLApplication::PrepareRun(FilterType* filter, const otb::dl::ModelContract& contract, const std::vector<std::string>& outputs,
                               const std::vector<otb::dl::View>& views)
{
  this->PrepareOutputs(filter, outputs);
  for (auto& member : m_Contracts)
  {
    member.tiling = contract.tiling;
    for (std::size_t k = 0; k < member.inputs.size(); ++k)
    {
      member.inputs[k].steps = contract.inputs[k].steps;
    }
  }
  const auto load = [&](const otb::dl::RuntimeOptions& options, otb::dl::RuntimeReport& report)
  {
    auto network = otb::dl::LoadEnsemble(m_ModelFiles, m_Contracts, options, report);
    if (const std::size_t each = otb::dl::ViewBytes(contract, views, static_cast<int>(m_Contracts.size())))
    {
      const double own = static_cast<double>(report.bytesPerSample), both = own + static_cast<double>(each);
      if (options.batch == 0 && options.memory > 0 && own > 0. &&
          both * report.batch * report.workers + static_cast<double>(report.bytesBase) > static_cast<double>(options.memory))
      {
        // Once more with what the views leave.
        otb::dl::RuntimeOptions less = options;
        less.memory = static_cast<std::size_t>(static_cast<double>(options.memory) * own / both);
        report = {};
        network = otb::dl::LoadEnsemble(m_ModelFiles, m_Contracts, less, report);
      }
      report.bytesPerSample += each;
      report.secondsPerSample *= static_cast<double>(views.size());
    }
    return otb::dl::MakeViewsPredictor(std::move(network), contract, views, report.threads);
  };
  this->Connect(this->LoadNetwork(load));
}

/** OTB announces each writer just before it runs: the moment to give it a temporary file, its share of memory, and to know the window. */
void DLApplication::OnProcess(const itk::EventObject& event)
{
  const auto* added = dynamic_cast<const AddProcessToWatchEvent*>(&event);
  if (!added || !m_Filter || !added->GetProcess())
  {
    return;
  }
  m_Writer = added->GetProcess();
  m_Settings.whole = true;
  auto* multi = dynamic_cast<otb::MultiImageFileWriter*>(m_Writer.GetPointer());
  const unsigned int share = static_cast<unsigned int>(std::max(1, GetParameterInt("ram") / 4));
  m_Settings.window = {};
  unsigned int bytes = 0, side = 0, tiles = 0;
  bool strips = false, none = false, whole = false;
  for (const auto& key : m_OutputKeys)
  {
    auto* parameter = dynamic_cast<OutputImageParameter*>(GetParameterByKey(key));
    if (!parameter || !IsParameterEnabled(key) || !HasValue(key))
    {
      continue;
    }
    itk::ProcessObject* writer = parameter->GetWriter();
    if (!writer || (!multi && writer != m_Writer.GetPointer()))
    {
      continue;
    }
    this->Divert(parameter, writer, key);
    bytes += 2 * sizeof(float) * parameter->GetImage()->GetNumberOfComponentsPerPixel(); // as made and as converted
    const auto settle = [&](auto* typed)
    {
      auto* helper = typed->GetFilenameHelper();
      if (!helper->StreamingTypeIsSet())
      {
        typed->SetAutomaticAdaptativeStreaming(share);
      }
      else
      {
        const std::string mode = helper->StreamingSizeModeIsSet() ? helper->GetStreamingSizeMode() : "auto";
        strips = strips || helper->GetStreamingType() == "stripped";
        none = none || helper->GetStreamingType() == "none";
        side = mode == "height" && !strips ? static_cast<unsigned int>(helper->GetStreamingSizeValue()) : side;
        tiles = mode == "nbsplits" && !strips ? static_cast<unsigned int>(helper->GetStreamingSizeValue()) : tiles;
      }
      long long x, y, w, h;
      if (helper->BoxIsSet() && std::sscanf(helper->GetBox().c_str(), "%lld:%lld:%lld:%lld", &x, &y, &w, &h) == 4)
      {
        const otb::dl::Region box{x, y, x + w, y + h};
        m_Settings.window = m_Settings.window.Empty() ? box : otb::dl::BoundingBox(m_Settings.window, box);
      }
      else
      {
        whole = true;
      }
    };
    WithWriter(writer, settle);
  }
  if (whole)
  {
    m_Settings.window = {};
  }
  if (multi && none)
  {
    multi->SetNumberOfDivisionsStrippedStreaming(1);
  }
  else if (multi && !strips)
  {
    const auto image = m_Filter->GetOutput(0)->GetLargestPossibleRegion();
    const auto& imd = m_Filter->GetOutput(0)->GetImageMetadata();
    const bool rows = side == 0 && tiles == 0 && imd.Has(MDNum::TileHintX) && imd[MDNum::TileHintX] >= static_cast<double>(image.GetSize(0));
    itk::ImageRegion<2> written = image;
    if (!m_Settings.window.Empty())
    {
      written.SetIndex(0, m_Settings.window.x0);
      written.SetIndex(1, m_Settings.window.y0);
      written.SetSize(0, static_cast<itk::SizeValueType>(m_Settings.window.Width()));
      written.SetSize(1, static_cast<itk::SizeValueType>(m_Settings.window.Height()));
      written.Crop(image);
    }
    const double pixels = static_cast<double>(written.GetNumberOfPixels());
    double wanted = std::ceil(pixels * bytes / (static_cast<double>(share) * (1 << 20)));
    if (side > 0 || tiles > 0)
    {
      wanted = side > 0 ? std::ceil(pixels / (static_cast<double>(side) * side)) : tiles;
    }
    const auto count = static_cast<unsigned int>(std::max(1., wanted));
    // Where the inputs lie in rows, rows are asked for.
    const auto safe = rows ? 0 : SafeNumberOfTiles(image, written, count);
    if (safe > 0)
    {
      multi->SetNumberOfDivisionsTiledStreaming(safe);
    }
    else
    {
      multi->SetNumberOfDivisionsStrippedStreaming(count);
    }
  }
  m_Filter->SetSettings(m_Settings);
  GdalErrors::Watch();

  auto written = itk::MemberCommand<Self>::New();
  written->SetCallbackFunction(this, static_cast<void (Self::*)(itk::Object*, const itk::EventObject&)>(&Self::OnWritten));
  m_Writer->AddObserver(itk::EndEvent(), written);
  m_Start = Clock::now();
}

void DLApplication::Divert(OutputImageParameter* parameter, itk::ProcessObject* writer, const std::string& key)
{
  const auto name = SplitName(parameter->GetFileName());
  if (WrittenInPlace(name.first))
  {
    return;
  }
  Pending pending;
  pending.key = key;
  pending.final = name.first;
  pending.temporary = TemporaryName(name.first);
  pending.image = parameter->GetImage();
  const std::string added = this->WriterOptions(key);
  const std::string options = name.second + (name.second.empty() && !added.empty() ? "?" : "") + added;
  if (WithWriter(writer, [&](auto* typed) { typed->SetFileName(pending.temporary + options); }))
  {
    m_Pending.push_back(pending);
  }
}

/** Every writer has done its last region: flush, close, check, and only then give the final names. */
void DLApplication::OnWritten(itk::Object* itkNotUsed(writer), const itk::EventObject& itkNotUsed(event))
{
  if (m_Writer && m_Writer->GetAbortGenerateData())
  {
    return; // stopped: what is there is removed with the rest
  }
  std::vector<std::string> done;
  try
  {
    if (!m_Filter->IsComplete())
    {
      throw Error("the writer did not ask for all pixels of the map: nothing was kept. Choose another &streaming: option, or none.");
    }
    for (const auto& p : m_Pending)
    {
      auto* parameter = dynamic_cast<OutputImageParameter*>(GetParameterByKey(p.key));
      FlushDataset(p.temporary);
      WithWriter(parameter ? parameter->GetWriter() : nullptr, [](auto* typed) { typed->SetImageIO(nullptr); });
    }
    for (const auto& p : m_Pending)
    {
      this->FinishFile(p.key, p.temporary);
    }
    for (auto& p : m_Pending)
    {
      this->WriteLegendOf(p);
    }
    const bool suspicious = GdalErrors::Stop() > 0;
    for (const auto& p : m_Pending)
    {
      std::error_code ec;
      if (!fs::exists(p.temporary, ec) || fs::file_size(p.temporary, ec) == 0 || (suspicious && !ReadsWhole(p.temporary)))
      {
        throw Error(Complaint(p.key, "that \"" + p.final + "\" could not be written whole (" + CPLGetLastErrorMsg() + ")", "room on the disk",
                              "Free some space and run again; nothing was left under that name."));
      }
    }
    for (const auto& p : m_Pending)
    {
      this->GiveFinalName(p);
      done.push_back(p.final);
    }
    m_Pending.clear();
  }
  catch (...)
  {
    this->Discard();
    throw;
  }
  if (m_LineOpen)
  {
    std::cout << '\n';
    m_LineOpen = false;
  }
  if (!done.empty())
  {
    otbAppLogINFO(<< "Wrote " << Join(done));
  }
  this->ReportRun();
  // Who asks from now on is another application.
  m_Settings.whole = false;
  m_Settings.window = {};
  m_Filter->SetSettings(m_Settings);
}

bool DLApplication::IsInMemory(const std::string& key)
{
  const auto type = GetParameterType(key);
  if (!HasValue(key) || (type != ParameterType_InputImage && type != ParameterType_InputImageList))
  {
    return false;
  }
  const auto names = type == ParameterType_InputImage ? std::vector<std::string>{GetParameterString(key)} : GetParameterStringList(key);
  return std::any_of(names.begin(), names.end(), [](const std::string& name) { return name.empty(); });
}

void DLApplication::CheckWritten(const std::string& key)
{
  const auto isFile = [this](const std::string& output) { return IsParameterEnabled(output) && HasValue(output); };
  if (std::none_of(m_OutputKeys.begin(), m_OutputKeys.end(), isFile))
  {
    throw Error(Complaint(key, "outputs that are made in memory only", "an output with a file name: it is written together with one",
                          "Name a file, e.g. -" + m_OutputKeys.front() + " map.tif, and have it written."));
  }
}

std::string DLApplication::WriterOptions(const std::string& itkNotUsed(key)) const
{
  return "";
}

void DLApplication::FinishFile(const std::string& itkNotUsed(key), const std::string& itkNotUsed(path))
{
}

otb::dl::Legend DLApplication::LegendOf(const std::string& itkNotUsed(key)) const
{
  return {};
}

/** Colours and names into the file, the style beside it. */
void DLApplication::WriteLegendOf(Pending& p)
{
  const auto legend = WantsLegend() ? this->LegendOf(p.key) : otb::dl::Legend();
  if (legend.kind == otb::dl::Legend::Kind::None)
  {
    return;
  }
  otb::dl::WriteLegend(legend, p.temporary);
  // a.tif and a.png have one name for their styles: neither gets it, nor does an output take that of an input.
  const std::string name = Canonical(StyleName(p.final));
  auto others = m_InputPaths;
  for (const auto& other : m_Pending)
  {
    if (&other != &p)
    {
      others.push_back(Canonical(other.final));
    }
  }
  if (std::any_of(others.begin(), others.end(), [&](const std::string& other) { return StyleName(other) == name; }))
  {
    otbAppLogINFO(<< p.key << ": no QGIS style beside \"" << p.final << "\", as another image of this run has the same name up to its extension");
    return;
  }
  p.style = StyleName(p.temporary);
  std::ofstream file(p.style, std::ios::binary);
  file << otb::dl::RasterStyle(legend);
  file.close();
  if (!file)
  {
    throw Error(Complaint(p.key, "that \"" + StyleName(p.final) + "\" could not be written", "room on the disk", "Free some space, or give -legend off."));
  }
}

/** Renames all files of a data set; those of an older one of that name go. */
void DLApplication::GiveFinalName(const Pending& p)
{
  const QuietGdal quiet;
  GDALDriverH driver = GDALIdentifyDriver(p.temporary.c_str(), nullptr);
  const std::string name = driver ? GDALGetDriverShortName(driver) : "";
  std::error_code ec;
  if (!driver || name == "GTiff")
  {
    // Beside a TIFF lie files of its name (a world file) and of its name with something added (statistics, overviews).
    const std::string stem = (fs::path(p.final).parent_path() / fs::path(p.final).stem()).string();
    const std::string part = (fs::path(p.temporary).parent_path() / fs::path(p.temporary).stem()).string();
    for (const char* added : {".aux.xml", ".ovr", ".msk"})
    {
      fs::remove(p.final + added, ec);
    }
    std::vector<std::string> members;
    if (GDALDatasetH dataset = GDALOpen(p.temporary.c_str(), GA_ReadOnly))
    {
      char** list = GDALGetFileList(dataset);
      members.assign(list, list + CSLCount(list));
      CSLDestroy(list);
      GDALClose(dataset);
    }
    for (const auto& member : members)
    {
      if (member != p.temporary && member.rfind(part, 0) == 0)
      {
        fs::rename(member, stem + member.substr(part.size()), ec);
      }
    }
    fs::rename(p.temporary, p.final);
    if (!p.style.empty())
    {
      fs::rename(p.style, StyleName(p.final));
    }
    return;
  }
  if (fs::exists(p.final, ec))
  {
    GDALDeleteDataset(nullptr, p.final.c_str());
  }
  if (GDALRenameDataset(driver, p.final.c_str(), p.temporary.c_str()) != CE_None)
  {
    throw Error(Complaint(p.key, "that \"" + p.temporary + "\" could not be renamed", "the name \"" + p.final + "\"", CPLGetLastErrorMsg()));
  }
  if (!p.style.empty())
  {
    fs::rename(p.style, StyleName(p.final));
  }
}

/** Removes what a failed run began. */
void DLApplication::Discard()
{
  GdalErrors::Stop();
  for (const auto& p : m_Pending)
  {
    std::error_code ec;
    if (!p.style.empty())
    {
      fs::remove(p.style, ec);
    }
    if (fs::exists(p.temporary, ec))
    {
      const QuietGdal quiet;
      GDALDeleteDataset(nullptr, p.temporary.c_str());
      fs::remove(p.temporary, ec);
      fs::remove(p.temporary + ".aux.xml", ec);
    }
  }
  m_Pending.clear();
}

void DLApplication::OnProgress()
{
  if (!m_Filter)
  {
    return;
  }
  const double done = m_Filter->GetProgress();
  if (m_Writer)
  {
    // A host's stop button speaks to the writer, and its bar listens to it.
    if (m_Writer->GetAbortGenerateData())
    {
      m_Filter->SetAbortGenerateData(true);
    }
    m_Writer->UpdateProgress(static_cast<float>(done));
  }
  const int percent = static_cast<int>(done * 100.);
  const bool soon = m_LastPercent >= 0 && std::chrono::duration<double>(Clock::now() - m_LastLine).count() < (m_Console ? .2 : 1.);
  if (percent == m_LastPercent || (soon && percent < std::min(100, m_LastPercent + 10)))
  {
    return;
  }
  m_LastPercent = percent;
  m_LastLine = Clock::now();
  const double elapsed = Since(m_Start);
  const int stars = static_cast<int>(done * 50.);

  // "% [" is what QGIS looks for; the name before the colon must hold none itself.
  std::ostringstream line;
  line << m_Working << ": " << percent << "% [" << std::string(stars, '*') << std::string(50 - stars, ' ') << "]";
  if (done > 0. && done < 1.)
  {
    line << ' ' << Minutes(elapsed * (1. - done) / done) << " left";
  }
  else
  {
    line << ' ' << Minutes(elapsed);
  }
  if (m_Console)
  {
    std::cout << '\r' << std::left << std::setw(96) << line.str() << std::flush;
    m_LineOpen = true;
  }
  else
  {
    std::cout << line.str() << std::endl;
  }
}

void DLApplication::ReportRun()
{
  const auto s = m_Filter->GetStatistics();
  const double elapsed = Since(m_Start);
  const auto minimum = s.MinimumCalls(m_CallSize);
  const std::string unit = m_Filter->GetJob().unit == "pixels" ? "Pixels: " : "Patches: ";
  if (m_Filter->GetJob().unit == "cells")
  {
    otbAppLogINFO(<< std::fixed << std::setprecision(1) << "Time: " << elapsed << " s, of which fitting " << s.secondsPacking << ", scoring " << s.secondsModel
                  << ", smoothing and deciding " << s.secondsDeciding << "; peak memory " << (ResidentBytes("VmHWM") >> 20) << " MB");
    return;
  }
  otbAppLogINFO(<< unit << s.samplesInferred << " inferred, " << s.samplesEmpty << " without data skipped, " << s.samplesRepeated
                << " inferred again; model calls: " << s.modelCalls << " (minimum " << minimum << ")"
                << (s.samplesSpilled ? "; " + std::to_string(s.samplesSpilled) + " kept on disk for a while" : ""));
  otbAppLogINFO(<< std::fixed << std::setprecision(1) << "Time: " << elapsed << " s, of which model " << s.secondsModel << ", reading " << s.secondsReading
                << ", packing " << s.secondsPacking << ", deciding " << s.secondsDeciding << "; peak memory " << (ResidentBytes("VmHWM") >> 20) << " MB");
  if (s.notFinite > 0)
  {
    otbAppLogWARNING(<< "The model gave NaN or infinity at " << s.notFinite
                     << " valid pixels; they are written as no-data. Check the scaling in its contract.");
  }
}

} // namespace Wrapper
} // namespace otb
