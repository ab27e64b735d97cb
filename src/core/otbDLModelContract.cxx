/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLModelContract.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <set>

namespace otb
{
namespace dl
{

namespace
{

using Json = nlohmann::json;

const std::set<std::string> knownTasks = {"change-detection", "time-series-classification", "change-likelihood"};
const std::set<std::string> knownInputRoles = {"image", "sits", "dates", "valid", "latlon", "static", "month", "condition", "diffusion_time"};
const std::set<std::string> knownOutputRoles = {
    "change_logits", "change_probability", "sem1_logits", "sem2_logits", "transition_logits", "logits", "probabilities",  "embedding",
    "aux",           "velocity",           "epsilon",     "x0",          "v_diffusion",       "score",  "reconstruction", "features",
    "ratio_logit"};
const std::set<std::string> classifiedRoles = {"sem1_logits", "sem2_logits", "transition_logits", "logits", "probabilities"};

std::string Listed(const std::set<std::string>& words)
{
  std::string text;
  for (const auto& w : words)
  {
    text += (text.empty() ? "" : ", ") + w;
  }
  return text;
}

/** A member name as a token of a JSON pointer (RFC 6901). */
std::string Token(const std::string& name)
{
  std::string out;
  for (const char c : name)
  {
    out += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  }
  return out;
}

/** Walks the JSON, noting what is wrong and going on. */
class Reader
{
public:
  std::vector<ContractError::Violation> violations;

  void Complain(const std::string& path, const std::string& message) { violations.push_back({path, message}); }

  /** Member of an object, or nullptr with a complaint when it is required. */
  const Json* Member(const Json& object, const std::string& path, const char* key, bool required)
  {
    if (object.is_object())
    {
      const auto it = object.find(key);
      if (it != object.end())
      {
        return &*it;
      }
    }
    if (required)
    {
      Complain(path + "/" + Token(key), "is required and missing");
    }
    return nullptr;
  }

  std::string String(const Json& object, const std::string& path, const char* key, bool required, bool mayBeEmpty = false)
  {
    const Json* j = Member(object, path, key, required);
    if (!j)
    {
      return {};
    }
    if (!j->is_string() || (!mayBeEmpty && j->get<std::string>().empty()))
    {
      Complain(path + "/" + Token(key), "must be a non-empty string, found " + Shown(*j));
      return {};
    }
    return j->get<std::string>();
  }

  std::string OneOf(const Json& object, const std::string& path, const char* key, const std::set<std::string>& allowed, bool required)
  {
    const std::string s = String(object, path, key, required);
    if (!s.empty() && !allowed.count(s))
    {
      Complain(path + "/" + Token(key), "must be one of " + Listed(allowed) + ", found \"" + s + "\"");
      return {};
    }
    return s;
  }

  std::optional<double> Number(const Json& object, const std::string& path, const char* key, bool required)
  {
    const Json* j = Member(object, path, key, required);
    if (!j)
    {
      return {};
    }
    if (!j->is_number() || !std::isfinite(j->get<double>()))
    {
      Complain(path + "/" + Token(key), "must be a finite number, found " + Shown(*j));
      return {};
    }
    return j->get<double>();
  }

  std::optional<int> Integer(const Json& object, const std::string& path, const char* key, bool required, int least)
  {
    const Json* j = Member(object, path, key, required);
    if (!j)
    {
      return {};
    }
    if (!j->is_number_integer() || j->get<std::int64_t>() < least || j->get<std::int64_t>() > 1000000)
    {
      Complain(path + "/" + Token(key), "must be an integer >= " + std::to_string(least) + ", found " + Shown(*j));
      return {};
    }
    return j->get<int>();
  }

  /** A misspelt field would be ignored silently: refuse what we do not know under our own prefix. */
  void OnlyKnown(const Json& object, const std::string& path, const std::set<std::string>& known, bool ownPrefixOnly)
  {
    if (!object.is_object())
    {
      return;
    }
    for (const auto& item : object.items())
    {
      if ((!ownPrefixOnly || item.key().rfind("otb:", 0) == 0) && !known.count(item.key()))
      {
        Complain(path + "/" + Token(item.key()), "is not a field of this contract; known here: " + Listed(known));
      }
    }
  }

  static std::string Shown(const Json& j)
  {
    std::string s = j.dump();
    return s.size() > 60 ? s.substr(0, 57) + "..." : s;
  }

  BandScaling Scaling(const Json& j, const std::string& path)
  {
    BandScaling s;
    const std::string type = OneOf(j, path, "type", {"min-max", "z-score", "clip", "clip-min", "clip-max", "offset", "scale", "processing"}, true);
    const auto at = [&](const char* key) { return Number(j, path, key, true); };
    if (type == "min-max")
    {
      const auto lo = at("minimum"), hi = at("maximum");
      if (lo && hi)
      {
        if (*hi <= *lo)
        {
          Complain(path + "/maximum", "must be greater than minimum");
        }
        s.offset = *lo;
        s.divisor = *hi - *lo;
      }
    }
    else if (type == "z-score")
    {
      const auto mean = at("mean"), sd = at("stddev");
      if (sd && *sd <= 0.)
      {
        Complain(path + "/stddev", "must be greater than 0");
      }
      s.offset = mean.value_or(0.);
      s.divisor = sd.value_or(1.);
    }
    else if (type == "clip" || type == "clip-min" || type == "clip-max")
    {
      if (type != "clip-max")
      {
        s.low = at("minimum").value_or(s.low);
      }
      if (type != "clip-min")
      {
        s.high = at("maximum").value_or(s.high);
      }
      if (s.high < s.low)
      {
        Complain(path + "/maximum", "must not be less than minimum");
      }
    }
    else if (type == "offset")
    {
      s.offset = at("value").value_or(0.);
    }
    else if (type == "scale")
    {
      s.divisor = at("value").value_or(1.);
      if (s.divisor == 0.)
      {
        Complain(path + "/value", "must not be 0");
      }
    }
    else if (type == "processing")
    {
      Complain(path + "/type", "\"processing\" names a program that cannot be run here; put it into the network at export");
    }
    return s;
  }

  /** shape[1] when shape and dim_order are [-1, C, H, W]-like and name this channel axis; else -1 with complaints. */
  int Channels(const Json& holder, const std::string& path, const char* channelAxis, int patch)
  {
    if (!holder.is_object())
    {
      Complain(path, "must be an object with shape, dim_order and data_type");
      return -1;
    }
    const Json* order = Member(holder, path, "dim_order", true);
    const Json expected = {"batch", channelAxis, "height", "width"};
    if (order && *order != expected)
    {
      Complain(path + "/dim_order", "must be " + expected.dump() + ", found " + Shown(*order));
    }
    const std::string type = String(holder, path, "data_type", true);
    if (!type.empty() && type != "float32")
    {
      Complain(path + "/data_type", "must be \"float32\", found \"" + type + "\"");
    }
    const Json* shape = Member(holder, path, "shape", true);
    if (!shape)
    {
      return -1;
    }
    if (!shape->is_array() || shape->size() != 4 || !std::all_of(shape->begin(), shape->end(), [](const Json& n) { return n.is_number_integer(); }) ||
        (*shape)[1].get<int>() < 1)
    {
      Complain(path + "/shape", "must be [-1, channels, height, width], found " + Shown(*shape));
      return -1;
    }
    for (const int axis : {2, 3})
    {
      const int n = (*shape)[axis].get<int>();
      if (n != -1 && patch > 0 && n != patch)
      {
        Complain(path + "/shape/" + std::to_string(axis),
                 "must be -1 or the patch of /properties/otb:tiling (" + std::to_string(patch) + "), found " + std::to_string(n));
      }
    }
    return (*shape)[1].get<int>();
  }

  Tiling ReadTiling(const Json& properties, const std::string& parent)
  {
    Tiling t;
    const std::string path = parent + "/otb:tiling";
    const Json* j = Member(properties, parent, "otb:tiling", true);
    if (!j)
    {
      return t;
    }
    if (!j->is_object())
    {
      Complain(path, "must be an object");
      return t;
    }
    OnlyKnown(*j, path, {"patch", "multiple", "halo", "blend", "tta"}, false);
    t.patch = Integer(*j, path, "patch", true, 8).value_or(0);
    t.multiple = Integer(*j, path, "multiple", false, 1).value_or(1);
    t.halo = Integer(*j, path, "halo", true, 0).value_or(0);
    const std::string blend = OneOf(*j, path, "blend", {"crop", "hann"}, false);
    t.blend = blend == "hann" ? Blend::Hann : Blend::Crop;
    if (const Json* tta = Member(*j, path, "tta", false))
    {
      if (!tta->is_array())
      {
        Complain(path + "/tta", "must be a list");
      }
      else
      {
        for (std::size_t i = 0; i < tta->size(); ++i)
        {
          const Json& a = (*tta)[i];
          if (a != "swap" && a != "d4")
          {
            Complain(path + "/tta/" + std::to_string(i), "must be \"swap\" or \"d4\", found " + Shown(a));
          }
          else
          {
            t.testTimeAugmentations.push_back(a.get<std::string>());
          }
        }
      }
    }
    if (t.patch > 0)
    {
      const int cut = (t.halo + t.multiple - 1) / t.multiple * t.multiple;
      if (t.patch % t.multiple != 0)
      {
        Complain(path + "/patch", "must be a multiple of multiple (" + std::to_string(t.multiple) + "), found " + std::to_string(t.patch));
      }
      if (t.blend == Blend::Crop && 2 * cut >= t.patch)
      {
        Complain(path + "/halo", "leaves nothing of the patch: 2 x " + std::to_string(cut) + " (halo rounded up to multiple) >= patch " +
                                     std::to_string(t.patch) + "; enlarge patch, or use \"blend\": \"hann\"");
      }
      if (t.blend == Blend::Hann && t.patch % (2 * t.multiple) != 0)
      {
        Complain(path + "/patch", "must be a multiple of 2 x multiple (" + std::to_string(2 * t.multiple) + ") for hann, found " + std::to_string(t.patch));
      }
    }
    return t;
  }

  ModelInput ReadInput(const Json& j, const std::string& path, int patch, const std::string& task)
  {
    ModelInput in;
    if (!j.is_object())
    {
      Complain(path, "must be an object");
      return in;
    }
    OnlyKnown(j, path, {"otb:role", "otb:date", "otb:nodata", "otb:nodata_rule", "otb:nodata_fill", "otb:null"}, true);
    in.name = String(j, path, "name", true);
    in.role = OneOf(j, path, "otb:role", knownInputRoles, true);
    if (const Json* bands = Member(j, path, "bands", true))
    {
      if (!bands->is_array())
      {
        Complain(path + "/bands", "must be a list");
      }
      else
      {
        for (std::size_t b = 0; b < bands->size(); ++b)
        {
          const Json& band = (*bands)[b];
          if (band.is_string())
          {
            in.bands.push_back(band.get<std::string>());
          }
          else if (band.is_object())
          {
            in.bands.push_back(String(band, path + "/bands/" + std::to_string(b), "name", true));
          }
          else
          {
            Complain(path + "/bands/" + std::to_string(b), "must be a name or an object with a name, found " + Shown(band));
            in.bands.emplace_back();
          }
        }
      }
    }
    const bool isImage = in.role == "image" || in.role == "condition";
    if (isImage && in.bands.empty())
    {
      Complain(path + "/bands", "must not be empty for an image");
    }

    if (const Json* holder = Member(j, path, "input", true); holder && isImage)
    {
      const int channels = Channels(*holder, path + "/input", "bands", patch);
      if (channels > 0 && !in.bands.empty() && channels != static_cast<int>(in.bands.size()))
      {
        Complain(path + "/input/shape/1", "is " + std::to_string(channels) + " but " + std::to_string(in.bands.size()) + " bands are named");
      }
    }

    const std::size_t n = in.bands.size();
    in.scaling.assign(n, BandScaling());
    if (isImage)
    {
      const std::string scalingPath = path + "/value_scaling";
      const auto it = j.find("value_scaling");
      if (it == j.end())
      {
        Complain(scalingPath, "is required and missing: scaling is never guessed (null says that the network takes raw values)");
      }
      else if (!it->is_null() && !it->is_array())
      {
        Complain(scalingPath, "must be a list of scalings or null, found " + Shown(*it));
      }
      else if (it->is_array() && !it->empty())
      {
        if (it->size() != 1 && it->size() != n)
        {
          Complain(scalingPath, "must have 1 entry or one a band (" + std::to_string(n) + "), found " + std::to_string(it->size()));
        }
        for (std::size_t b = 0; b < it->size(); ++b)
        {
          const BandScaling s = Scaling((*it)[b], scalingPath + "/" + std::to_string(b));
          if (it->size() == 1)
          {
            in.scaling.assign(n, s);
          }
          else if (b < n)
          {
            in.scaling[b] = s;
          }
        }
      }
    }

    if (in.role == "image" && task == "change-detection")
    {
      in.date = Integer(j, path, "otb:date", true, 1).value_or(0);
      if (in.date > 2)
      {
        Complain(path + "/otb:date", "must be 1 or 2, found " + std::to_string(in.date));
      }
    }
    if (const Json* noData = Member(j, path, "otb:nodata", false); noData && !noData->is_null())
    {
      in.noData = Number(j, path, "otb:nodata", false);
    }
    in.noDataRule = OneOf(j, path, "otb:nodata_rule", {"all", "any"}, false) == "any" ? NoDataRule::Any : NoDataRule::All;
    in.noDataFill = static_cast<float>(Number(j, path, "otb:nodata_fill", false).value_or(0.));
    return in;
  }

  std::vector<ModelClass> ReadClasses(const Json& list, const std::string& path)
  {
    std::vector<ModelClass> classes;
    if (!list.is_array())
    {
      Complain(path, "must be a list");
      return classes;
    }
    std::set<int> values;
    std::set<std::string> names;
    for (std::size_t i = 0; i < list.size(); ++i)
    {
      const std::string at = path + "/" + std::to_string(i);
      ModelClass c;
      c.value = Integer(list[i], at, "value", true, 0).value_or(0);
      c.name = String(list[i], at, "name", true);
      if (!values.insert(c.value).second)
      {
        Complain(at + "/value", "repeats " + std::to_string(c.value));
      }
      if (!c.name.empty() && !names.insert(c.name).second)
      {
        Complain(at + "/name", "repeats \"" + c.name + "\"");
      }
      c.colour = String(list[i], at, "color_hint", false);
      const bool hexRgb = c.colour.size() == 6 && std::all_of(c.colour.begin(), c.colour.end(), [](unsigned char x) { return std::isxdigit(x) != 0; });
      if (!c.colour.empty() && !hexRgb)
      {
        Complain(at + "/color_hint", "must be RRGGBB, found \"" + c.colour + "\"");
      }
      classes.push_back(c);
    }
    return classes;
  }

  ModelOutput ReadOutput(const Json& j, const std::string& path, int patch)
  {
    ModelOutput out;
    if (!j.is_object())
    {
      Complain(path, "must be an object");
      return out;
    }
    OnlyKnown(j, path, {"otb:role"}, true);
    out.name = String(j, path, "name", true);
    out.role = OneOf(j, path, "otb:role", knownOutputRoles, true);
    if (const Json* result = Member(j, path, "result", true))
    {
      out.channels = std::max(0, Channels(*result, path + "/result", "channel", patch));
    }
    const std::string classesPath = path + "/classification:classes";
    if (const Json* classes = Member(j, path, "classification:classes", classifiedRoles.count(out.role) > 0))
    {
      out.classes = ReadClasses(*classes, classesPath);
    }
    if (out.channels > 0 && classifiedRoles.count(out.role) && !out.classes.empty())
    {
      const int k = static_cast<int>(out.classes.size());
      const int expected = out.role == "transition_logits" ? 1 + k * k : k;
      if (out.channels != expected)
      {
        Complain(classesPath, std::to_string(k) + " classes need " + std::to_string(expected) + " channels, the shape says " + std::to_string(out.channels));
      }
    }
    if (out.role == "change_logits" && out.channels > 2)
    {
      Complain(path + "/result/shape/1", "must be 1 or 2 for change_logits, found " + std::to_string(out.channels));
    }
    if (out.role == "change_probability" && out.channels > 1)
    {
      Complain(path + "/result/shape/1", "must be 1 for change_probability, found " + std::to_string(out.channels));
    }
    return out;
  }

  void CheckPair(const ModelContract& c, const std::string& path)
  {
    int images[3] = {0, 0, 0};
    for (const auto& in : c.inputs)
    {
      if (in.role != "image")
      {
        Complain(path + "/mlm:input", "change-detection takes images only, found \"" + in.name + "\" of role " + in.role);
      }
      else if (in.date == 1 || in.date == 2)
      {
        ++images[in.date];
      }
    }
    if (c.inputs.size() != 2 || images[1] != 1 || images[2] != 1)
    {
      Complain(path + "/mlm:input", "change-detection needs exactly two images, of otb:date 1 and 2");
    }
    const auto count = [&c](const char* role)
    { return std::count_if(c.outputs.begin(), c.outputs.end(), [role](const ModelOutput& o) { return o.role == role; }); };
    const auto change = count("change_logits") + count("change_probability") + count("transition_logits");
    if (change != 1)
    {
      Complain(path + "/mlm:output",
               "change-detection needs exactly one of change_logits, change_probability, transition_logits, found " + std::to_string(change));
    }
    if (count("sem1_logits") != count("sem2_logits") || count("sem1_logits") > 1)
    {
      Complain(path + "/mlm:output", "sem1_logits and sem2_logits come together, one of each");
    }
    else if (count("sem1_logits") == 1)
    {
      const auto &a = *c.FindOutput("sem1_logits"), &b = *c.FindOutput("sem2_logits");
      if (a.classes.size() != b.classes.size())
      {
        Complain(path + "/mlm:output", "sem1_logits and sem2_logits must have the same number of classes");
      }
      if (count("transition_logits"))
      {
        Complain(path + "/mlm:output", "transition_logits already say both classes: sem1_logits and sem2_logits cannot stand beside them");
      }
    }
  }
};

} // namespace

const ModelOutput* ModelContract::FindOutput(const std::string& role) const
{
  const auto it = std::find_if(outputs.begin(), outputs.end(), [&role](const ModelOutput& o) { return o.role == role; });
  return it == outputs.end() ? nullptr : &*it;
}

const char* ToString(Blend blend)
{
  return blend == Blend::Crop ? "crop" : "hann";
}

ModelContract ModelContract::Parse(const std::string& text, const std::string& origin)
{
  Json root;
  try
  {
    root = Json::parse(text);
  }
  catch (const Json::parse_error& e)
  {
    throw ContractError(origin, {{"/", std::string("not JSON: ") + e.what()}});
  }

  Reader r;
  ModelContract c;
  if (!root.is_object())
  {
    throw ContractError(origin, {{"/", "must be a JSON object (a STAC item)"}});
  }
  if (root.value("type", Json()) != "Feature")
  {
    r.Complain("/type", "must be \"Feature\": a contract is a STAC item");
  }
  c.id = r.String(root, "", "id", true);
  const Json* P = r.Member(root, "", "properties", true);
  if (!P || !P->is_object())
  {
    if (P)
    {
      r.Complain("/properties", "must be an object");
    }
    throw ContractError(origin, r.violations);
  }

  const std::string path = "/properties";
  r.OnlyKnown(*P, path, {"otb:version", "otb:task", "otb:method", "otb:tiling", "otb:calibration", "otb:provenance", "otb:generative", "otb:temporal"}, true);
  c.name = r.String(*P, path, "mlm:name", true);
  c.architecture = r.String(*P, path, "mlm:architecture", true);
  if (const Json* tasks = r.Member(*P, path, "mlm:tasks", true); tasks && (!tasks->is_array() || tasks->empty()))
  {
    r.Complain(path + "/mlm:tasks", "must be a list of tasks, not empty");
  }
  c.version = r.String(*P, path, "otb:version", true);
  if (!c.version.empty() && c.version.rfind("1.", 0) != 0)
  {
    r.Complain(path + "/otb:version", "is " + c.version + "; this program reads 1.x");
  }
  c.task = r.OneOf(*P, path, "otb:task", knownTasks, true);
  c.tiling = r.ReadTiling(*P, path);

  if (const Json* inputs = r.Member(*P, path, "mlm:input", true))
  {
    if (!inputs->is_array() || inputs->empty())
    {
      r.Complain(path + "/mlm:input", "must be a list, not empty");
    }
    else
    {
      std::set<std::string> names;
      for (std::size_t i = 0; i < inputs->size(); ++i)
      {
        const std::string at = path + "/mlm:input/" + std::to_string(i);
        c.inputs.push_back(r.ReadInput((*inputs)[i], at, c.tiling.patch, c.task));
        if (!c.inputs.back().name.empty() && !names.insert(c.inputs.back().name).second)
        {
          r.Complain(at + "/name", "repeats \"" + c.inputs.back().name + "\"");
        }
      }
    }
  }
  if (const Json* outputs = r.Member(*P, path, "mlm:output", true))
  {
    if (!outputs->is_array() || outputs->empty())
    {
      r.Complain(path + "/mlm:output", "must be a list, not empty");
    }
    else
    {
      std::set<std::string> names;
      for (std::size_t i = 0; i < outputs->size(); ++i)
      {
        const std::string at = path + "/mlm:output/" + std::to_string(i);
        c.outputs.push_back(r.ReadOutput((*outputs)[i], at, c.tiling.patch));
        if (!c.outputs.back().name.empty() && !names.insert(c.outputs.back().name).second)
        {
          r.Complain(at + "/name", "repeats \"" + c.outputs.back().name + "\"");
        }
      }
    }
  }

  if (const Json* method = r.Member(*P, path, "otb:method", false))
  {
    r.OnlyKnown(*method, path + "/otb:method", {"forward"}, false);
    const Json* order = r.Member(*method, path + "/otb:method", "forward", true);
    if (order)
    {
      std::vector<ModelInput> ordered;
      bool good = order->is_array() && order->size() == c.inputs.size();
      for (std::size_t i = 0; good && i < order->size(); ++i)
      {
        const auto it = std::find_if(c.inputs.begin(), c.inputs.end(), [&](const ModelInput& in) { return (*order)[i] == in.name; });
        good = it != c.inputs.end() && std::none_of(ordered.begin(), ordered.end(), [&](const ModelInput& in) { return in.name == it->name; });
        if (good)
        {
          ordered.push_back(*it);
        }
      }
      if (good)
      {
        c.inputs = std::move(ordered);
      }
      else
      {
        r.Complain(path + "/otb:method/forward", "must name every input once, found " + Reader::Shown(*order));
      }
    }
  }

  if (const Json* calibration = r.Member(*P, path, "otb:calibration", false))
  {
    const std::string at = path + "/otb:calibration";
    c.temperature = r.Number(*calibration, at, "temperature", false).value_or(1.);
    c.threshold = r.Number(*calibration, at, "threshold", false).value_or(.5);
    if (c.temperature <= 0.)
    {
      r.Complain(at + "/temperature", "must be greater than 0");
    }
    if (c.threshold <= 0. || c.threshold >= 1.)
    {
      r.Complain(at + "/threshold", "must lie between 0 and 1");
    }
  }

  if (const Json* provenance = r.Member(*P, path, "otb:provenance", true))
  {
    const std::string at = path + "/otb:provenance";
    c.license = r.String(*provenance, at, "license", true);
    c.trainingData = r.String(*provenance, at, "training_data", true);
    if (const auto gsd = r.Number(*provenance, at, "gsd_m", false))
    {
      c.groundSampleDistance = *gsd;
      if (*gsd <= 0.)
      {
        r.Complain(at + "/gsd_m", "must be greater than 0");
      }
    }
  }

  if (c.task == "change-detection")
  {
    r.CheckPair(c, path);
  }
  if (!r.violations.empty())
  {
    throw ContractError(origin, r.violations);
  }
  return c;
}

} // namespace dl
} // namespace otb
