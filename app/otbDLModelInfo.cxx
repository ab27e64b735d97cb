/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLModelInfo.h"

#include "otbDLApplication.h"
#include "otbDLError.h"
#include "otbDLGdal.h"
#include "otbDLLikelihood.h"
#include "otbDLPairFeatures.h"
#include "otbDLRuntime.h"

#include <cpl_string.h>
#include <cpl_vsi.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <system_error>
#include <utility>
#include <vector>

namespace otb
{
namespace Wrapper
{

namespace fs = std::filesystem;
using otb::dl::Join;

namespace
{

/** A contract is some kilobytes: what is larger is none. */
constexpr vsi_l_offset largest = 16u << 20;

/** Characters that a line of OTB's window shows; the rest is in the hint that appears over it. */
constexpr std::size_t shown = 84;

/** Why a file cannot be told of. */
struct Trouble
{
  std::string text;
};

/** A record of an archive, through GDAL, which reads the directory at its end and no more; empty when it has none.
 * \throw Trouble for a file that is no TorchScript archive */
std::string EmbeddedRecord(const std::string& model)
{
  const std::string archive = "/vsizip/{" + model + "}";
  const std::string name = "\"" + fs::path(model).filename().string() + "\"";
  const std::unique_ptr<char*, decltype(&CSLDestroy)> folders(VSIReadDir(archive.c_str()), &CSLDestroy);
  if (!folders || CSLCount(folders.get()) == 0)
  {
    throw Trouble{name + " is no TorchScript file (.pt), or is damaged"};
  }
  const std::string root = archive + "/" + folders.get()[0];
  VSIStatBufL status;
  if (VSIStatL((root + "/constants.pkl").c_str(), &status) != 0)
  {
    throw Trouble{name + " is no TorchScript file (.pt): it holds no code"};
  }
  const std::string path = root + "/extra/mlm.json";
  if (VSIStatL(path.c_str(), &status) != 0 || static_cast<vsi_l_offset>(status.st_size) > largest)
  {
    return {};
  }
  std::string text(static_cast<std::size_t>(status.st_size), '\0');
  VSILFILE* file = VSIFOpenL(path.c_str(), "rb");
  const std::size_t read = file ? VSIFReadL(&text[0], 1, text.size(), file) : 0;
  if (file)
  {
    VSIFCloseL(file);
  }
  if (read != text.size())
  {
    throw Trouble{name + " is damaged: its contract cannot be read"};
  }
  return text;
}

std::string TextOf(const std::string& file)
{
  std::error_code ec;
  std::ifstream in(file, std::ios::binary);
  if (!fs::is_regular_file(file, ec) || !in || fs::file_size(file, ec) > largest)
  {
    throw Trouble{"\"" + file + "\" cannot be read"};
  }
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

/** The first line of a message, and of a contract's violations the first. */
std::string FirstOf(const std::string& message)
{
  return message.substr(0, message.find('\n'));
}

std::string Count(std::size_t n, const std::string& one, const std::string& many)
{
  return std::to_string(n) + " " + (n == 1 ? one : many);
}

std::string Listed(const std::vector<std::string>& parts, const char* between = ", ")
{
  std::string text;
  for (const auto& part : parts)
  {
    text += (text.empty() ? "" : between) + part;
  }
  return text;
}

std::string Short(double value)
{
  std::ostringstream text;
  text << value;
  return text.str();
}

std::string NoDataOf(const otb::dl::ModelInput& in)
{
  return in.noData ? " (no-data " + Short(*in.noData) + ")" : "";
}

/** Bands that a pair, or the image of a likelihood, brings. */
std::string BandsOfImages(const otb::dl::ModelContract& contract)
{
  std::vector<const otb::dl::ModelInput*> images;
  for (const auto& in : contract.inputs)
  {
    if (!in.bands.empty() && !otb::dl::IsPairFeature(in) && (in.role == "image" || (in.role == "regression" && images.empty())))
    {
      images.push_back(&in);
    }
  }
  if (images.empty())
  {
    return {};
  }
  const bool alike = std::all_of(images.begin(), images.end(), [&](const auto* in) { return in->bands == images.front()->bands; });
  std::vector<std::string> parts;
  for (const auto* in : images)
  {
    const std::string of = alike ? Count(in->bands.size(), "band", "bands") + " of each date" : "date " + std::to_string(in->date);
    parts.push_back(of + ": " + Join(in->bands) + NoDataOf(*in));
    if (alike)
    {
      break;
    }
  }
  return Listed(parts, "; ");
}

/** Bands that the sensors of a series bring, by the parameter that takes them. */
std::string BandsOfSeries(const otb::dl::ModelContract& contract)
{
  std::vector<std::pair<std::string, std::vector<std::string>>> lists;
  const auto add = [&](const std::string& list, const std::string& band)
  {
    auto found = std::find_if(lists.begin(), lists.end(), [&](const auto& l) { return l.first == list; });
    if (found == lists.end())
    {
      found = lists.insert(lists.end(), {list, {}});
    }
    if (std::find(found->second.begin(), found->second.end(), band) == found->second.end())
    {
      found->second.push_back(band);
    }
  };
  for (const auto& in : contract.inputs)
  {
    for (std::size_t b = 0; (in.role == "sits" || in.role == "static") && b < in.bands.size(); ++b)
    {
      const int sensor = in.role == "static" || b >= in.sensors.size() ? 0 : in.sensors[b];
      if (sensor < 0)
      {
        add("computed", in.bands[b]);
        continue;
      }
      std::string list = sensor == 0 ? "static" : sensor == 1 ? "il" : "il" + std::to_string(sensor);
      if (sensor > 0 && static_cast<std::size_t>(sensor) <= contract.sensors.size())
      {
        const auto& s = contract.sensors[static_cast<std::size_t>(sensor) - 1];
        list += " (" + s.name + (s.optional ? ", optional)" : ")");
      }
      add(list, in.bands[b]);
    }
  }
  std::vector<std::string> parts;
  for (const auto& [list, bands] : lists)
  {
    parts.push_back(list + ": " + Join(bands));
  }
  return Listed(parts, "; ");
}

std::string DatesOf(const otb::dl::ModelContract& contract)
{
  using Temporal = otb::dl::TemporalSpec;
  std::vector<std::string> parts;
  for (const auto& in : contract.inputs)
  {
    if (in.role != "sits")
    {
      continue;
    }
    const auto& t = in.temporal;
    std::string text = t.policy == Temporal::Policy::Any ? "any number" : (t.policy == Temporal::Policy::Max ? "up to " : "") + std::to_string(t.length);
    if (t.gapFill == Temporal::GapFill::Grid)
    {
      text = Count(static_cast<std::size_t>(std::max(0, t.length)), "step", "steps") + " of " + std::to_string(t.gridStep) + " days, " + t.gridStart + " to " +
             t.gridEnd + ", interpolated from any dates";
    }
    else
    {
      text += t.gapFill == Temporal::GapFill::Linear ? ", gaps filled from the valid dates around" : ", gaps left";
    }
    if (std::find(parts.begin(), parts.end(), text) == parts.end())
    {
      parts.push_back(text);
    }
  }
  return Listed(parts, "; ");
}

std::string ClassesOf(const otb::dl::ModelContract& contract)
{
  for (const auto& out : contract.outputs)
  {
    if (out.role == "aux" || out.classes.empty())
    {
      continue;
    }
    std::vector<std::string> names;
    for (const auto& c : out.classes)
    {
      names.push_back(std::to_string(c.value) + (c.name.empty() ? "" : " " + c.name));
    }
    const bool pair = out.role == "sem1_logits" || out.role == "transition_logits";
    return Count(names.size(), "class", "classes") + (pair ? " of each date: " : ": ") + Listed(names);
  }
  if (contract.task == "change-detection")
  {
    return "change or no change";
  }
  return contract.FindOutput("embedding") ? "none: the model gives an embedding" : "";
}

std::string PatchesOf(const otb::dl::Tiling& tiling)
{
  if (tiling.unit == otb::dl::SpatialUnit::Pixel)
  {
    const std::string side = std::to_string(tiling.window);
    return tiling.window == 1 ? "single pixels" : "pixels, each with a window of " + side + " x " + side;
  }
  const std::string side = std::to_string(tiling.patch);
  return side + " x " + side + " pixels, " +
         (tiling.blend == otb::dl::Blend::Crop ? "of which a halo of " + std::to_string(tiling.halo) + " is cut away" : "averaged where they overlap");
}

std::string DecisionOf(const otb::dl::ModelContract& contract)
{
  if (contract.task != "change-detection")
  {
    return {};
  }
  const auto& allowed = contract.tiling.testTimeAugmentations;
  return "change at a probability of " + Short(contract.threshold) + " or more; -tta: " + (allowed.empty() ? "none" : Join(allowed)) +
         (contract.radiometricMatching ? "" : "; no -radiometry match");
}

/** Estimators of -estimator that the model can serve, that of auto first. */
std::string EstimatorsOf(const otb::dl::ModelContract& contract)
{
  using Estimator = otb::dl::LikelihoodEstimator;
  if (contract.task != "change-likelihood")
  {
    return {};
  }
  if (contract.ratio)
  {
    return "ratio";
  }
  const auto first = otb::dl::DefaultEstimator(contract);
  std::vector<std::string> names;
  for (const auto e : {first, Estimator::Pmi, Estimator::Conditional, Estimator::Latent, Estimator::Denoise, Estimator::LogLikelihood,
                       Estimator::Reconstruction, Estimator::RoundTrip, Estimator::Masked, Estimator::Feature})
  {
    const std::string name = otb::dl::ToString(e);
    try
    {
      otb::dl::CheckLikelihood(contract, otb::dl::DefaultLikelihoodSettings(contract, e));
      if (std::find(names.begin(), names.end(), name) == names.end())
      {
        names.push_back(name);
      }
    }
    catch (const otb::dl::Error&)
    {
    }
  }
  return Listed(names);
}

/** Cut at a blank, with dots, when longer than a line; never inside a character. */
std::string OneLine(std::string text)
{
  std::replace(text.begin(), text.end(), '\n', ' ');
  if (text.size() <= shown)
  {
    return text;
  }
  auto end = text.find_last_of(' ', shown - 4);
  if (end == std::string::npos || end < shown / 2)
  {
    end = shown - 4;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80)
    {
      --end;
    }
  }
  return text.substr(0, end) + " ...";
}

} // namespace

ModelInfo ReadModelInfo(const std::string& model, const std::string& contractFile, const std::string& task)
{
  const otb::dl::QuietGdal quiet;
  ModelInfo info;
  if (model.empty())
  {
    return info;
  }
  try
  {
    std::error_code ec;
    if (!fs::is_regular_file(model, ec))
    {
      throw Trouble{fs::exists(model, ec) ? "this is not a file" : "there is no file of this name"};
    }
    const auto files = otb::dl::ModelFiles(model);
    info.members = files.size();
    const std::string embedded = EmbeddedRecord(files.front());
    const std::string beside = contractFile.empty() ? otb::dl::SideCarOf(files.front()) : contractFile;
    if (beside.empty() && embedded.empty())
    {
      throw Trouble{"the model has no contract, neither inside nor beside it"};
    }
    info.contract = otb::dl::ModelContract::Parse(beside.empty() ? embedded : TextOf(beside), beside.empty() ? files.front() : beside);
    if (info.contract->task != task)
    {
      const std::string other = info.contract->task;
      info.contract.reset();
      throw Trouble{"it is a model for " + other + ", not for " + task};
    }
  }
  catch (const Trouble& trouble)
  {
    info.trouble = trouble.text;
  }
  catch (const otb::dl::ContractError& error)
  {
    const auto& all = error.Violations();
    info.trouble = "the contract cannot be used" + (all.empty() ? "" : ": " + all.front().path + " " + FirstOf(all.front().message)) +
                   (all.size() > 1 ? " (and " + std::to_string(all.size() - 1) + " more)" : "");
  }
  catch (const std::exception& error)
  {
    info.trouble = FirstOf(error.what());
  }
  return info;
}

std::map<std::string, std::string> DescribeModel(const ModelInfo& info)
{
  std::map<std::string, std::string> lines;
  const auto say = [&lines](const char* subject, const std::string& text)
  {
    if (!text.empty())
    {
      lines[subject] = text;
    }
  };
  if (!info.contract)
  {
    say("model", info.trouble.empty() ? "none is chosen" : "cannot be used: " + info.trouble);
    return lines;
  }
  const auto& c = *info.contract;
  const std::string kind = info.members > 1 ? "ensemble of " + std::to_string(info.members) + ", the first: " : "";
  say("model", kind + c.id + ", " + c.task + " (" + c.architecture + ")");
  const std::string bands = c.task == "time-series-classification" ? BandsOfSeries(c) : BandsOfImages(c);
  say("bands", bands + (c.groundSampleDistance && !bands.empty() ? "; pixels of " + Short(*c.groundSampleDistance) + " m" : ""));
  say("dates", DatesOf(c));
  say("classes", ClassesOf(c));
  say("patches", PatchesOf(c.tiling));
  say("decision", DecisionOf(c));
  say("estimators", EstimatorsOf(c));
  say("licence", c.license + (c.trainingData.empty() ? "" : (c.license.empty() ? "" : "; ") + std::string("trained on ") + c.trainingData));
  return lines;
}

std::string StampOf(const std::string& model, const std::string& contractFile)
{
  std::vector<std::string> files = {model, contractFile};
  try
  {
    for (const auto& file : model.empty() ? std::vector<std::string>() : otb::dl::ModelFiles(model))
    {
      files.push_back(file);
      files.push_back(otb::dl::SideCarOf(file));
    }
  }
  catch (const std::exception&)
  {
    // A list that cannot be read: its own stamp will do.
  }
  std::ostringstream stamp;
  for (const auto& file : files)
  {
    std::error_code none;
    stamp << file << '\0';
    if (!file.empty() && fs::is_regular_file(file, none))
    {
      stamp << fs::file_size(file, none) << ' ' << fs::last_write_time(file, none).time_since_epoch().count();
    }
    stamp << '\0';
  }
  return stamp.str();
}

// -------------------------------------------------------------------------------------------------------------------- of DLApplication

void DLApplication::AddModelInfo(const std::string& task, const std::vector<std::string>& subjects)
{
  m_Task = task;
  const std::map<std::string, std::string> names = {{"model", "Model"},     {"bands", "Bands"},       {"dates", "Dates"},           {"classes", "Classes"},
                                                    {"patches", "Patches"}, {"decision", "Decision"}, {"estimators", "Estimators"}, {"licence", "Licence"}};
  AddParameter(ParameterType_Group, "about", "What the model says");
  SetParameterDescription("about", "Filled in from the contract of the model, for windows of OTB and for scripts: nothing to be given");
  m_About.clear();
  for (const auto& subject : subjects)
  {
    const std::string key = "about." + subject;
    AddParameter(ParameterType_String, key, names.at(subject));
    SetParameterRole(key, Role_Output);
    m_About.push_back(subject);
  }
  m_AboutStamp.clear();
}

const ModelInfo& DLApplication::ShowModel()
{
  const std::string model = IsSet("model") ? GetParameterString("model") : "";
  const std::string contract = IsSet("contract") ? GetParameterString("contract") : "";
  const std::string stamp = StampOf(model, contract);
  if (m_AboutStamp != stamp)
  {
    m_AboutStamp = stamp;
    m_Info = ReadModelInfo(model, contract, m_Task);
    m_AboutLines = DescribeModel(m_Info);
  }
  for (const auto& subject : m_About)
  {
    const auto found = m_AboutLines.find(subject);
    // A window keeps what it shows when it is given nothing: something is said in any case.
    const std::string text = found == m_AboutLines.end() || found->second.empty() ? "-" : found->second;
    const std::string key = "about." + subject;
    SetParameterString(key, OneLine(text), false);
    SetParameterDescription(key, text);
    // A window shows it all the same; a command line does not repeat at the end of its log what it said at the beginning.
    DisableParameter(key);
  }
  return m_Info;
}

bool DLApplication::IsSet(const std::string& key)
{
  return HasValue(key) && (IsParameterEnabled(key) || !HasUserValue(key));
}

void DLApplication::Applies(const std::string& key, bool applies)
{
  if (applies || !IsParameterEnabled(key) || HasUserValue(key))
  {
    return;
  }
  const auto type = GetParameterType(key);
  const bool always = type == ParameterType_Choice || type == ParameterType_Int || type == ParameterType_Float || type == ParameterType_Bool ||
                      type == ParameterType_String; // has a value, if only the default
  if (always || !HasValue(key))
  {
    DisableParameter(key);
  }
}

} // namespace Wrapper
} // namespace otb
