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
#include <cstdint>
#include <limits>
#include <set>
#include <utility>

namespace otb
{
namespace dl
{

namespace
{

using Json = nlohmann::json;

constexpr int deepest = 100;           ///< nesting of the JSON
constexpr std::int64_t most = 1000000; ///< of sizes and class values

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

/** Does a field's name carry our prefix? */
bool IsOurs(const std::string& name)
{
  return name.rfind("otb:", 0) == 0;
}

/** 1.minor.patch[-prerelease][+build], as semver.org writes it. */
bool IsVersion1(const std::string& text)
{
  std::size_t at = 0;
  const auto run = [&](const char* allowed)
  {
    const std::size_t from = at;
    at = std::min(text.find_first_not_of(allowed, at), text.size());
    return text.substr(from, at - from);
  };
  const auto skip = [&](char c) { return at < text.size() && text[at] == c && ++at > 0; };
  const auto number = [&]
  {
    const std::string digits = run("0123456789");
    return !digits.empty() && (digits == "0" || digits[0] != '0');
  };
  constexpr const char* word = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz.-";
  const bool core = skip('1') && skip('.') && number() && skip('.') && number();
  const bool prerelease = !skip('-') || !run(word).empty();
  const bool build = !skip('+') || !run(word).empty();
  return core && prerelease && build && at == text.size();
}

/** The value of a JSON integer (128 and 128.0 are the same number in JSON). */
std::optional<std::int64_t> Integral(const Json& j)
{
  if (j.is_number_unsigned())
  {
    const auto u = j.get<std::uint64_t>();
    return u > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) ? std::numeric_limits<std::int64_t>::max() : static_cast<std::int64_t>(u);
  }
  if (j.is_number_integer())
  {
    return j.get<std::int64_t>();
  }
  if (j.is_number_float())
  {
    const double d = j.get<double>();
    if (std::floor(d) == d && std::abs(d) < 9e15)
    {
      return static_cast<std::int64_t>(d);
    }
  }
  return {};
}

/** Parses, and refuses what a parser would quietly make the best of. */
Json ParseStrictly(const std::string& text, const std::string& origin)
{
  std::vector<std::set<std::string>> fields; // of the objects that are open
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed)
  {
    if (depth > deepest)
    {
      throw ContractError(origin, {{"/", "is nested deeper than " + std::to_string(deepest) + " levels"}});
    }
    if (event == Json::parse_event_t::object_start)
    {
      fields.emplace_back();
    }
    else if (event == Json::parse_event_t::object_end)
    {
      fields.pop_back();
    }
    else if (event == Json::parse_event_t::key && !fields.back().insert(parsed.get<std::string>()).second)
    {
      throw ContractError(origin, {{"/", "gives the field \"" + parsed.get<std::string>() + "\" twice in one object"}});
    }
    return true;
  };
  try
  {
    return Json::parse(text, watch);
  }
  catch (const Json::exception& e) // of syntax, or of a number out of range
  {
    throw ContractError(origin, {{"/", std::string("not JSON: ") + e.what()}});
  }
}

/** Walks the JSON, noting what is wrong and going on. */
class Reader
{
public:
  std::vector<ContractError::Violation> violations;
  std::optional<std::int64_t> patchGiven; ///< by the tiling, right or wrong

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

  std::string String(const Json& object, const std::string& path, const char* key, bool required)
  {
    const Json* j = Member(object, path, key, required);
    if (!j)
    {
      return {};
    }
    if (!j->is_string() || j->get<std::string>().empty())
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
    // Pixels are computed in single precision.
    if (!j->is_number() || !(std::abs(j->get<double>()) <= std::numeric_limits<float>::max()))
    {
      Complain(path + "/" + Token(key), "must be a number, finite in single precision, found " + Shown(*j));
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
    const auto value = Integral(*j);
    if (!value || *value < least || *value > most)
    {
      Complain(path + "/" + Token(key), "must be an integer from " + std::to_string(least) + " to " + std::to_string(most) + ", found " + Shown(*j));
      return {};
    }
    return static_cast<int>(*value);
  }

  /** Distinct, non-empty strings.
   * \return whether it is that */
  bool Words(const Json& j, const std::string& path)
  {
    if (!j.is_array() || j.empty())
    {
      Complain(path, "must be a list of strings, not empty, found " + Shown(j));
      return false;
    }
    bool good = true;
    std::set<Json> seen;
    for (std::size_t i = 0; i < j.size(); ++i)
    {
      if (!j[i].is_string() || j[i].get_ref<const std::string&>().empty())
      {
        Complain(path + "/" + std::to_string(i), "must be a non-empty string, found " + Shown(j[i]));
        good = false;
      }
      if (!seen.insert(j[i]).second)
      {
        Complain(path, "repeats " + Shown(j[i]));
        good = false;
      }
    }
    return good;
  }

  /** An object of ours: nothing in it but what is known. A misspelt field would be ignored silently otherwise. */
  bool Own(const Json& j, const std::string& path, const std::set<std::string>& known)
  {
    if (!j.is_object())
    {
      Complain(path, "must be an object, found " + Shown(j));
      return false;
    }
    for (const auto& item : j.items())
    {
      if (!known.count(item.key()))
      {
        Complain(path + "/" + Token(item.key()), "is not a field of this contract; known here: " + Listed(known));
      }
    }
    return true;
  }

  /** An object of MLM's: nothing under our own prefix but `ours`, here and below. `read` names the fields that are looked into elsewhere. */
  void Foreign(const Json& j, const std::string& path, const std::set<std::string>& ours = {}, const std::set<std::string>& read = {})
  {
    if (j.is_array())
    {
      for (std::size_t i = 0; i < j.size(); ++i)
      {
        Foreign(j[i], path + "/" + std::to_string(i));
      }
      return;
    }
    if (!j.is_object())
    {
      return;
    }
    for (const auto& item : j.items())
    {
      const std::string at = path + "/" + Token(item.key());
      if (IsOurs(item.key()) && !ours.count(item.key()))
      {
        Complain(at, "is not a field of this contract; known here: " + (ours.empty() ? "none" : Listed(ours)));
      }
      else if (!IsOurs(item.key()) && !read.count(item.key()))
      {
        Foreign(item.value(), at);
      }
    }
  }

  static std::string Shown(const Json& j)
  {
    const std::string s = j.dump();
    if (s.size() <= 60)
    {
      return s;
    }
    std::size_t end = 57;
    while (end > 0 && (static_cast<unsigned char>(s[end]) & 0xC0) == 0x80) // not within a UTF-8 character
    {
      --end;
    }
    return s.substr(0, end) + "...";
  }

  BandScaling Scaling(const Json& j, const std::string& path)
  {
    BandScaling s;
    if (!j.is_object())
    {
      Complain(path, "must be an object, found " + Shown(j));
      return s;
    }
    Foreign(j, path);
    const std::string type = OneOf(j, path, "type", {"min-max", "z-score", "clip", "clip-min", "clip-max", "offset", "scale", "processing"}, true);
    if (type == "processing")
    {
      Complain(path + "/type", "\"processing\" names a program that cannot be run here; put it into the network at export");
    }
    std::set<std::string> needed;
    // NaN where there is a complaint already: then nothing compares.
    const auto at = [&](const char* key)
    {
      needed.insert(key);
      return Number(j, path, key, true).value_or(std::numeric_limits<double>::quiet_NaN());
    };
    const auto ordered = [&](double lo, double hi)
    {
      if (hi <= lo)
      {
        Complain(path + "/maximum", "must be greater than minimum");
      }
    };
    if (type == "min-max")
    {
      const double lo = at("minimum"), hi = at("maximum");
      ordered(lo, hi);
      s.offset = lo;
      s.divisor = hi - lo;
      if (s.divisor > 0.)
      {
        Divisor(s.divisor, path + "/maximum");
      }
    }
    else if (type == "z-score")
    {
      s.offset = at("mean");
      s.divisor = at("stddev");
      if (s.divisor <= 0.)
      {
        Complain(path + "/stddev", "must be greater than 0");
      }
      else
      {
        Divisor(s.divisor, path + "/stddev");
      }
    }
    else if (type == "clip" || type == "clip-min" || type == "clip-max")
    {
      s.low = type == "clip-max" ? s.low : at("minimum");
      s.high = type == "clip-min" ? s.high : at("maximum");
      ordered(s.low, s.high);
    }
    else if (type == "offset")
    {
      s.offset = at("value");
    }
    else if (type == "scale")
    {
      s.divisor = at("value");
      Divisor(s.divisor, path + "/value");
    }
    // What this type does not use must make sense all the same: the type may be the mistake.
    for (const char* key : {"minimum", "maximum", "mean", "stddev", "value"})
    {
      if (!needed.count(key))
      {
        const auto value = Number(j, path, key, false);
        if (value && std::string(key) == "stddev" && *value <= 0.)
        {
          Complain(path + "/stddev", "must be greater than 0");
        }
      }
    }
    return s;
  }

  /** A number that pixels are divided by in single precision. */
  void Divisor(double value, const std::string& path)
  {
    if (std::abs(value) < std::numeric_limits<float>::min() || std::abs(value) > std::numeric_limits<float>::max())
    {
      Complain(path, "makes a division by 0 or infinity in single precision");
    }
  }

  /** Reads shape, dim_order and data_type of a tensor.
   * \param channelAxis its name where the axes are batch, channels, height, width; nullptr: any axes
   * \return the shape, empty with complaints when it is not a list of sizes */
  std::vector<std::int64_t> Array(const Json& holder, const std::string& path, const char* channelAxis)
  {
    if (!holder.is_object())
    {
      Complain(path, "must be an object with shape, dim_order and data_type");
      return {};
    }
    Foreign(holder, path, {}, {"shape", "dim_order", "data_type"});
    if (const Json* order = Member(holder, path, "dim_order", true))
    {
      if (!channelAxis)
      {
        Words(*order, path + "/dim_order");
      }
      else if (const Json expected = {"batch", channelAxis, "height", "width"}; *order != expected)
      {
        Complain(path + "/dim_order", "must be " + expected.dump() + ", found " + Shown(*order));
      }
    }
    OneOf(holder, path, "data_type", {"float32"}, true);
    const Json* shape = Member(holder, path, "shape", true);
    if (!shape)
    {
      return {};
    }
    if (!shape->is_array() || shape->empty())
    {
      Complain(path + "/shape", "must be a list of sizes, found " + Shown(*shape));
      return {};
    }
    std::vector<std::int64_t> sizes;
    bool good = true;
    for (std::size_t i = 0; i < shape->size(); ++i)
    {
      const auto size = Integral((*shape)[i]);
      sizes.push_back(size.value_or(0));
      good = good && size;
      if (sizes.back() != -1 && (sizes.back() < 1 || sizes.back() > most))
      {
        Complain(path + "/shape/" + std::to_string(i), "must be -1 or a size up to " + std::to_string(most) + ", found " + Shown((*shape)[i]));
      }
    }
    if (channelAxis && good && sizes.size() != 4)
    {
      Complain(path + "/shape", "must be [-1, channels, height, width], found " + Shown(*shape));
      good = false;
    }
    return good ? sizes : std::vector<std::int64_t>();
  }

  /** Checks [-1, channels, H, W], H and W being -1 or the patch. channels 0: any number, but it must be given. */
  void CheckSizes(const std::vector<std::int64_t>& sizes, const std::string& path, std::int64_t channels, const std::string& why)
  {
    if (sizes.size() != 4)
    {
      return;
    }
    if (sizes[0] != -1)
    {
      Complain(path + "/shape/0", "must be -1: the number of patches in a batch is free");
    }
    if (channels > 0 ? sizes[1] != channels : sizes[1] == -1)
    {
      Complain(path + "/shape/1",
               (channels > 0 ? "must be " + std::to_string(channels) : std::string("must be given")) + " (" + why + "), found " + std::to_string(sizes[1]));
    }
    for (const int axis : {2, 3})
    {
      if (sizes[axis] > 0 && patchGiven && sizes[axis] != *patchGiven)
      {
        Complain(path + "/shape/" + std::to_string(axis),
                 "must be -1 or the patch of /properties/otb:tiling (" + std::to_string(*patchGiven) + "), found " + std::to_string(sizes[axis]));
      }
    }
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
    if (!Own(*j, path, {"patch", "multiple", "halo", "blend", "tta"}))
    {
      return t;
    }
    if (const Json* patch = Member(*j, path, "patch", false))
    {
      patchGiven = Integral(*patch);
    }
    const auto patch = Integer(*j, path, "patch", true, 8);
    const auto multiple = j->contains("multiple") ? Integer(*j, path, "multiple", false, 1) : 1;
    const auto halo = Integer(*j, path, "halo", true, 0);
    const std::string blend = j->contains("blend") ? OneOf(*j, path, "blend", {"crop", "hann"}, false) : "crop";
    t.patch = patch.value_or(0);
    t.multiple = multiple.value_or(1);
    t.halo = halo.value_or(0);
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
          else if (std::count(t.testTimeAugmentations.begin(), t.testTimeAugmentations.end(), a.get<std::string>()))
          {
            Complain(path + "/tta", "repeats " + Shown(a));
          }
          else
          {
            t.testTimeAugmentations.push_back(a.get<std::string>());
          }
        }
      }
    }
    if (patch && multiple)
    {
      const int cut = (t.halo + t.multiple - 1) / t.multiple * t.multiple;
      if (t.patch % t.multiple != 0)
      {
        Complain(path + "/patch", "must be a multiple of multiple (" + std::to_string(t.multiple) + "), found " + std::to_string(t.patch));
      }
      if (blend == "crop" && halo && 2 * cut >= t.patch)
      {
        Complain(path + "/halo", "leaves nothing of the patch: 2 x " + std::to_string(cut) + " (halo rounded up to multiple) >= patch " +
                                     std::to_string(t.patch) + "; enlarge patch, or use \"blend\": \"hann\"");
      }
      if (blend == "hann" && t.patch % (2 * t.multiple) != 0)
      {
        Complain(path + "/patch", "must be a multiple of 2 x multiple (" + std::to_string(2 * t.multiple) + ") for hann, found " + std::to_string(t.patch));
      }
    }
    return t;
  }

  /** \return whether there is a list of bands, good or bad */
  bool ReadBands(const Json& j, const std::string& path, bool isImage, std::vector<std::string>& bands)
  {
    const Json* list = Member(j, path, "bands", true);
    if (!list)
    {
      return false;
    }
    if (!list->is_array())
    {
      Complain(path + "/bands", "must be a list, found " + Shown(*list));
      return false;
    }
    if (isImage && list->empty())
    {
      Complain(path + "/bands", "must not be empty for an image");
    }
    for (std::size_t b = 0; b < list->size(); ++b)
    {
      const Json& band = (*list)[b];
      const std::string at = path + "/bands/" + std::to_string(b);
      std::string name;
      if (band.is_string() && !band.get_ref<const std::string&>().empty())
      {
        name = band.get<std::string>();
      }
      else if (band.is_object())
      {
        Foreign(band, at);
        name = String(band, at, "name", true);
      }
      else
      {
        Complain(at, "must be a name or an object with a name, found " + Shown(band));
      }
      if (!name.empty() && std::count(bands.begin(), bands.end(), name))
      {
        Complain(at, "repeats \"" + name + "\"");
      }
      bands.push_back(name);
    }
    return true;
  }

  ModelInput ReadInput(const Json& j, const std::string& path, const std::string& task)
  {
    ModelInput in;
    if (!j.is_object())
    {
      Complain(path, "must be an object");
      return in;
    }
    Foreign(j, path, {"otb:role", "otb:date", "otb:nodata", "otb:nodata_rule", "otb:nodata_fill"}, {"bands", "input", "value_scaling"});
    in.name = String(j, path, "name", true);
    in.role = OneOf(j, path, "otb:role", knownInputRoles, true);
    const bool isImage = in.role == "image" || in.role == "condition";
    const bool bandsRead = ReadBands(j, path, isImage, in.bands);
    const std::size_t n = in.bands.size();
    if (const Json* holder = Member(j, path, "input", true))
    {
      const auto sizes = Array(*holder, path + "/input", isImage ? "bands" : nullptr);
      if (isImage && sizes.size() == 4)
      {
        CheckSizes(sizes, path + "/input", n > 0 ? static_cast<std::int64_t>(n) : sizes[1], "one a band");
      }
    }

    in.scaling.assign(n, BandScaling());
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
      if (bandsRead && it->size() != 1 && it->size() != n)
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

    if (const auto date = Integer(j, path, "otb:date", in.role == "image" && task == "change-detection", 1))
    {
      in.date = *date;
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
    if (!list.is_array() || list.empty())
    {
      Complain(path, "must be a list of classes, not empty, found " + Shown(list));
      return classes;
    }
    std::set<int> values;
    std::set<std::string> names;
    for (std::size_t i = 0; i < list.size(); ++i)
    {
      const std::string at = path + "/" + std::to_string(i);
      classes.emplace_back();
      ModelClass& c = classes.back();
      if (!list[i].is_object())
      {
        Complain(at, "must be an object, found " + Shown(list[i]));
        continue;
      }
      Foreign(list[i], at);
      if (const auto value = Integer(list[i], at, "value", true, 0))
      {
        c.value = *value;
        if (!values.insert(c.value).second)
        {
          Complain(at + "/value", "repeats " + std::to_string(c.value));
        }
      }
      c.name = String(list[i], at, "name", true);
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
    }
    return classes;
  }

  ModelOutput ReadOutput(const Json& j, const std::string& path)
  {
    ModelOutput out;
    if (!j.is_object())
    {
      Complain(path, "must be an object");
      return out;
    }
    Foreign(j, path, {"otb:role"}, {"result", "classification:classes"});
    out.name = String(j, path, "name", true);
    out.role = OneOf(j, path, "otb:role", knownOutputRoles, true);
    const bool classified = classifiedRoles.count(out.role) > 0;
    if (const Json* classes = Member(j, path, "classification:classes", classified))
    {
      out.classes = ReadClasses(*classes, path + "/classification:classes");
    }
    const Json* result = Member(j, path, "result", true);
    if (!result)
    {
      return out;
    }
    const auto sizes = Array(*result, path + "/result", "channel");
    if (sizes.size() != 4)
    {
      return out;
    }
    const auto k = static_cast<std::int64_t>(out.classes.size());
    if (out.role == "change_probability")
    {
      CheckSizes(sizes, path + "/result", 1, "the probability of change");
    }
    else if (out.role == "transition_logits" && k > 0)
    {
      CheckSizes(sizes, path + "/result", 1 + k * k, "no change, and the transitions between " + std::to_string(k) + " classes");
    }
    else
    {
      CheckSizes(sizes, path + "/result", classified ? k : 0, classified && k > 0 ? "one a class" : "the number of channels");
    }
    if (out.role == "change_logits" && sizes[1] > 2)
    {
      Complain(path + "/result/shape/1", "must be 1 or 2 for change_logits, found " + std::to_string(sizes[1]));
    }
    out.channels = static_cast<int>(std::max<std::int64_t>(0, std::min(sizes[1], most)));
    return out;
  }

  /** The two images of change-detection. Inputs in the order of the contract, with roles that are known. */
  void CheckPair(const std::vector<ModelInput>& inputs, const std::string& path)
  {
    std::set<int> dates;
    int images = 0;
    for (std::size_t i = 0; i < inputs.size(); ++i)
    {
      const std::string at = path + "/" + std::to_string(i);
      if (inputs[i].role != "image")
      {
        Complain(at + "/otb:role", "change-detection takes images only, found \"" + inputs[i].name + "\" of role " + inputs[i].role);
        continue;
      }
      ++images;
      if (inputs[i].date > 0 && !dates.insert(inputs[i].date).second)
      {
        Complain(at + "/otb:date", "repeats " + std::to_string(inputs[i].date) + ": change-detection needs one image of each date");
      }
    }
    if (images != 2)
    {
      Complain(path, "change-detection needs exactly two images, of otb:date 1 and 2, found " + std::to_string(images));
    }
  }

  /** The outputs of change-detection, with roles that are known. */
  void CheckChange(const std::vector<ModelOutput>& outputs, const std::string& path)
  {
    int change = 0;
    std::vector<std::size_t> heads[2];
    bool transitions = false;
    for (std::size_t i = 0; i < outputs.size(); ++i)
    {
      const std::string& role = outputs[i].role;
      transitions = transitions || role == "transition_logits";
      change += role == "change_logits" || role == "change_probability" || role == "transition_logits";
      if (role == "sem1_logits" || role == "sem2_logits")
      {
        heads[role == "sem2_logits"].push_back(i);
      }
    }
    if (change != 1)
    {
      Complain(path, "change-detection needs exactly one of change_logits, change_probability, transition_logits, found " + std::to_string(change));
    }
    for (int d = 0; d < 2; ++d)
    {
      const std::string role = d == 0 ? "sem1_logits" : "sem2_logits";
      if (!heads[d].empty() && heads[1 - d].empty())
      {
        Complain(path + "/" + std::to_string(heads[d][0]) + "/otb:role", "sem1_logits and sem2_logits come together, found " + role + " alone");
      }
      for (std::size_t i = 1; i < heads[d].size(); ++i)
      {
        Complain(path + "/" + std::to_string(heads[d][i]) + "/otb:role", "repeats " + role);
      }
    }
    if (heads[0].empty() || heads[1].empty())
    {
      return;
    }
    const std::size_t a = outputs[heads[0][0]].classes.size(), b = outputs[heads[1][0]].classes.size();
    if (a > 0 && b > 0 && a != b)
    {
      Complain(path + "/" + std::to_string(heads[1][0]) + "/classification:classes",
               "must have as many classes as sem1_logits (" + std::to_string(a) + "), found " + std::to_string(b));
    }
    if (transitions)
    {
      Complain(path, "transition_logits already say both classes: sem1_logits and sem2_logits cannot stand beside them");
    }
  }

  /** Puts the inputs into the order of forward()'s arguments. */
  void Reorder(const Json& method, const std::string& path, std::vector<ModelInput>& inputs)
  {
    if (!Own(method, path, {"forward"}))
    {
      return;
    }
    const Json* order = Member(method, path, "forward", false);
    const bool named = !inputs.empty() && std::none_of(inputs.begin(), inputs.end(), [](const ModelInput& in) { return in.name.empty(); });
    if (!order || !Words(*order, path + "/forward") || !named)
    {
      return;
    }
    std::vector<ModelInput> ordered;
    for (const auto& name : *order)
    {
      const auto it = std::find_if(inputs.begin(), inputs.end(), [&name](const ModelInput& in) { return name == in.name; });
      if (it != inputs.end())
      {
        ordered.push_back(*it);
      }
    }
    if (ordered.size() != inputs.size() || order->size() != inputs.size())
    {
      Complain(path + "/forward", "must name every input once, found " + Shown(*order));
      return;
    }
    inputs = std::move(ordered);
  }

  void ReadProvenance(const Json& j, const std::string& path, ModelContract& c)
  {
    if (!Own(j, path, {"license", "training_data", "gsd_m", "recipe", "authors", "citation"}))
    {
      return;
    }
    c.license = String(j, path, "license", true);
    c.trainingData = String(j, path, "training_data", true);
    c.groundSampleDistance = Number(j, path, "gsd_m", false);
    if (c.groundSampleDistance.value_or(1.) <= 0.)
    {
      Complain(path + "/gsd_m", "must be greater than 0");
    }
    if (const Json* recipe = Member(j, path, "recipe", false); recipe && !recipe->is_string() && !recipe->is_object())
    {
      Complain(path + "/recipe", "must be a string or an object, found " + Shown(*recipe));
    }
    if (const Json* citation = Member(j, path, "citation", false); citation && !citation->is_string())
    {
      Complain(path + "/citation", "must be a string, found " + Shown(*citation));
    }
    const Json* authors = Member(j, path, "authors", false);
    if (authors && !authors->is_string() && !authors->is_array())
    {
      Complain(path + "/authors", "must be a string or a list of strings, found " + Shown(*authors));
    }
    for (std::size_t i = 0; authors && authors->is_array() && i < authors->size(); ++i)
    {
      if (!(*authors)[i].is_string() || (*authors)[i].get_ref<const std::string&>().empty())
      {
        Complain(path + "/authors/" + std::to_string(i), "must be a non-empty string, found " + Shown((*authors)[i]));
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
  const Json root = ParseStrictly(text, origin);
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
  r.Foreign(root, "", {}, {"properties"});
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
  r.Foreign(*P, path, {"otb:version", "otb:task", "otb:method", "otb:tiling", "otb:calibration", "otb:provenance"},
            {"mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output"});
  c.name = r.String(*P, path, "mlm:name", true);
  c.architecture = r.String(*P, path, "mlm:architecture", true);
  if (const Json* tasks = r.Member(*P, path, "mlm:tasks", true))
  {
    r.Words(*tasks, path + "/mlm:tasks");
  }
  c.version = r.String(*P, path, "otb:version", true);
  if (!c.version.empty() && !IsVersion1(c.version))
  {
    r.Complain(path + "/otb:version", "is \"" + c.version + "\"; this program reads 1.minor.patch");
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
        c.inputs.push_back(r.ReadInput((*inputs)[i], at, c.task));
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
        c.outputs.push_back(r.ReadOutput((*outputs)[i], at));
        if (!c.outputs.back().name.empty() && !names.insert(c.outputs.back().name).second)
        {
          r.Complain(at + "/name", "repeats \"" + c.outputs.back().name + "\"");
        }
      }
    }
  }

  if (c.task == "change-detection")
  {
    const auto known = [](const auto& entry) { return !entry.role.empty(); };
    if (std::all_of(c.inputs.begin(), c.inputs.end(), known) && !c.inputs.empty())
    {
      r.CheckPair(c.inputs, path + "/mlm:input");
    }
    if (std::all_of(c.outputs.begin(), c.outputs.end(), known) && !c.outputs.empty())
    {
      r.CheckChange(c.outputs, path + "/mlm:output");
    }
  }
  if (const Json* method = r.Member(*P, path, "otb:method", false))
  {
    r.Reorder(*method, path + "/otb:method", c.inputs);
  }
  if (const Json* calibration = r.Member(*P, path, "otb:calibration", false))
  {
    const std::string at = path + "/otb:calibration";
    r.Own(*calibration, at, {"temperature", "threshold"});
    c.temperature = r.Number(*calibration, at, "temperature", false).value_or(1.);
    c.threshold = r.Number(*calibration, at, "threshold", false).value_or(.5);
    if (c.temperature <= 0.)
    {
      r.Complain(at + "/temperature", "must be greater than 0");
    }
    else
    {
      r.Divisor(c.temperature, at + "/temperature");
    }
    if (c.threshold <= 0. || c.threshold >= 1.)
    {
      r.Complain(at + "/threshold", "must lie between 0 and 1");
    }
  }
  if (const Json* provenance = r.Member(*P, path, "otb:provenance", true))
  {
    r.ReadProvenance(*provenance, path + "/otb:provenance", c);
  }
  if (!r.violations.empty())
  {
    throw ContractError(origin, r.violations);
  }
  return c;
}

} // namespace dl
} // namespace otb
