/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLModelContract.h"

#include "otbDLDates.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
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
const std::set<std::string> knownInputRoles = {"image",      "sits",       "dates",           "valid",          "latlon", "static",
                                               "month",      "condition",  "diffusion_time",  "condition_flag", "latent", "condition_latent",
                                               "token_mask", "regression", "regression_score"};
const std::set<std::string> seriesInputRoles = {"sits", "dates", "valid", "month", "latlon", "static"};
const std::set<std::string> seriesOutputRoles = {"logits", "probabilities", "embedding", "aux"};
const std::set<std::string> knownOutputRoles = {
    "change_logits", "change_probability", "sem1_logits", "sem2_logits", "transition_logits", "logits", "probabilities", "embedding",
    "aux",           "velocity",           "epsilon",     "x0",          "v_diffusion",       "score",  "edm",           "reconstruction",
    "features",      "log_ratio"};
const std::map<std::string, FieldKind> fieldKinds = {{"velocity", FieldKind::Velocity},      {"epsilon", FieldKind::Epsilon}, {"x0", FieldKind::X0},
                                                     {"v_diffusion", FieldKind::VDiffusion}, {"score", FieldKind::Score},     {"edm", FieldKind::Edm}};
const std::set<std::string> classifiedRoles = {"sem1_logits", "sem2_logits", "transition_logits", "logits", "probabilities"};

// Those of our fields that any input may have, and those that an input of a series has by its role.
const std::set<std::string> inputFields = {"otb:role", "otb:date", "otb:nodata", "otb:nodata_rule", "otb:nodata_fill"};
const std::map<std::string, std::set<std::string>> seriesFields = {{"sits", {"otb:sensor", "otb:temporal"}},
                                                                   {"dates", {"otb:of", "otb:encoding"}},
                                                                   {"valid", {"otb:of", "otb:polarity", "otb:min_valid"}},
                                                                   {"month", {"otb:of"}},
                                                                   {"latlon", {}},
                                                                   {"static", {}}};
// The same of change-likelihood.
const std::map<std::string, std::set<std::string>> likelihoodFields = {
    {"image", {"otb:argument"}}, {"condition", {"otb:null"}}, {"condition_latent", {"otb:null"}}};
const std::map<std::string, Axis> axesByName = {{"batch", Axis::Batch},   {"time", Axis::Time},     {"bands", Axis::Bands},
                                                {"channel", Axis::Bands}, {"height", Axis::Height}, {"width", Axis::Width}};
const std::map<std::string, ElementType> typesByName = {
    {"float32", ElementType::Float32}, {"int64", ElementType::Int64}, {"uint8", ElementType::UInt8}, {"bool", ElementType::Bool}};

constexpr const char* seriesTask = "time-series-classification";
constexpr const char* pairTask = "change-detection";
constexpr const char* likelihoodTask = "change-likelihood";
constexpr int mostSensors = 4;

using Order = std::vector<std::string>; ///< names of axes

const Order imageOrder = {"batch", "bands", "height", "width"};
const Order channelOrder = {"batch", "channel", "height", "width"};

// What change-likelihood can be, and the inputs of change-likelihood and change-detection that have no bands, with their axes.
const std::set<std::string> likelihoodKinds = {"otb:generative", "otb:masked", "otb:ratio", "otb:features"};
const std::map<std::string, Order> bandlessOrders = {
    {"diffusion_time", {"batch"}}, {"condition_flag", {"batch"}}, {"token_mask", imageOrder}, {"latent", channelOrder}, {"condition_latent", channelOrder}};
const std::map<std::string, Order> bandlessOfPairs = {{"regression_score", imageOrder}};
const std::map<std::string, NoiseSpec::Schedule> schedules = {{"fm_linear", NoiseSpec::Schedule::FlowLinear},
                                                              {"linear_beta", NoiseSpec::Schedule::LinearBeta},
                                                              {"scaled_linear", NoiseSpec::Schedule::ScaledLinear},
                                                              {"cosine", NoiseSpec::Schedule::Cosine},
                                                              {"table", NoiseSpec::Schedule::Table},
                                                              {"edm", NoiseSpec::Schedule::Edm}};
const std::map<std::string, std::set<std::string>> scheduleFields = {{"fm_linear", {"type"}},
                                                                     {"linear_beta", {"type", "beta_start", "beta_end", "steps"}},
                                                                     {"scaled_linear", {"type", "beta_start", "beta_end", "steps"}},
                                                                     {"cosine", {"type", "steps", "offset"}},
                                                                     {"table", {"type", "alphas_cumprod"}},
                                                                     {"edm", {"type"}}};
const std::map<std::string, TimeArgument> timeArguments = {{"continuous01", TimeArgument::Continuous},
                                                           {"discrete_index", TimeArgument::DiscreteIndex},
                                                           {"logsnr", TimeArgument::LogSnr},
                                                           {"sigma", TimeArgument::Sigma}};
const std::map<std::string, NullCondition> nullConditions = {{"none", NullCondition::None}, {"zeros", NullCondition::Zeros}, {"flag", NullCondition::Flag}};

/** What is said of a tensor. */
struct Tensor
{
  Order axes;                      ///< empty where they are not known
  std::vector<std::int64_t> sizes; ///< one an axis; empty where they are wrong
  std::string type;

  bool Has(const char* axis) const { return std::count(axes.begin(), axes.end(), axis) > 0; }

  /** Of an axis, if it is there and its sizes are known. */
  std::optional<std::int64_t> Size(const char* axis) const
  {
    const auto at = static_cast<std::size_t>(std::find(axes.begin(), axes.end(), axis) - axes.begin());
    return at < sizes.size() ? std::optional<std::int64_t>(sizes[at]) : std::nullopt;
  }
};

/** Reads YYYY-MM-DD and no other form. */
std::optional<Day> ParseLongDate(const std::string& text)
{
  return text.size() == 10 ? ParseDate(text) : std::nullopt;
}

std::string Listed(const std::set<std::string>& words)
{
  std::string text;
  for (const auto& w : words)
  {
    text += (text.empty() ? "" : ", ") + w;
  }
  return text;
}

/** The names of a table. */
template <class T>
std::set<std::string> NamesOf(const std::map<std::string, T>& table)
{
  std::set<std::string> names;
  for (const auto& entry : table)
  {
    names.insert(entry.first);
  }
  return names;
}

bool Same(const std::vector<BandScaling>& a, const std::vector<BandScaling>& b)
{
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const BandScaling& p, const BandScaling& q)
                    { return p.low == q.low && p.high == q.high && p.offset == q.offset && p.divisor == q.divisor; });
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
  std::string task;
  std::optional<SpatialUnit> unit;  ///< nothing where the tiling does not say it rightly; so the next two
  std::optional<bool> space;        ///< do the inputs of a series have height and width?
  std::optional<std::int64_t> side; ///< of what the network sees: of the patch even if it is wrong

  // Of change-likelihood.
  std::string kind;                  ///< one of likelihoodKinds; empty where it is not exactly one
  std::string field;                 ///< `kind` of otb:generative; empty where it is wrong
  std::optional<TimeArgument> time;  ///< of otb:generative
  bool latent = false;               ///< does forward() take what the method encode gives?
  std::optional<int> latentChannels; ///< of encode; so the next one
  std::optional<int> latentScale;
  std::optional<int> featureChannels; ///< of otb:features
  bool predictsVariance = false;

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

  /** \return whether it is there and true */
  bool Flag(const Json& object, const std::string& path, const char* key)
  {
    const Json* j = Member(object, path, key, false);
    if (j && !j->is_boolean())
    {
      Complain(path + "/" + Token(key), "must be true or false, found " + Shown(*j));
    }
    return j && *j == true;
  }

  /** A number of a range, both ends allowed or not. */
  std::optional<double> Within(const Json& object, const std::string& path, const char* key, double low, double high, bool open)
  {
    const auto value = Number(object, path, key, false);
    if (value && (*value < low || *value > high || (open && (*value == low || *value == high))))
    {
      const bool above = high > std::numeric_limits<float>::max();
      Complain(path + "/" + Token(key),
               above ? "must be at least " + Json(low).dump()
                     : "must lie " + std::string(open ? "between " : "from ") + Json(low).dump() + (open ? " and " : " to ") + Json(high).dump());
      return {};
    }
    return value;
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
        Complain(path + "/" + Token(item.key()), "is not a field of this contract; known here: " + (known.empty() ? "none" : Listed(known)));
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
   * \param orders the axes that it may have; none: any */
  Tensor ReadTensor(const Json& holder, const std::string& path, const std::set<Order>& orders, const std::set<std::string>& types = {"float32"})
  {
    Tensor tensor;
    if (!holder.is_object())
    {
      Complain(path, "must be an object with shape, dim_order and data_type");
      return tensor;
    }
    Foreign(holder, path, {}, {"shape", "dim_order", "data_type"});
    if (orders.size() == 1 && task != seriesTask)
    {
      tensor.axes = *orders.begin(); // whatever is written: there is no other
    }
    if (const Json* order = Member(holder, path, "dim_order", true))
    {
      if (orders.empty())
      {
        if (Words(*order, path + "/dim_order"))
        {
          tensor.axes = order->get<Order>();
        }
      }
      else if (const auto it = std::find_if(orders.begin(), orders.end(), [order](const Order& o) { return *order == Json(o); }); it != orders.end())
      {
        tensor.axes = *it;
      }
      else
      {
        std::string wanted;
        for (const Order& o : orders)
        {
          wanted += (wanted.empty() ? "" : " or ") + Json(o).dump();
        }
        Complain(path + "/dim_order", "must be " + wanted + ", found " + Shown(*order));
      }
    }
    tensor.type = OneOf(holder, path, "data_type", types, true);
    const Json* shape = Member(holder, path, "shape", true);
    if (!shape)
    {
      return tensor;
    }
    if (!shape->is_array() || shape->empty())
    {
      Complain(path + "/shape", "must be a list of sizes, found " + Shown(*shape));
      return tensor;
    }
    bool good = true;
    for (std::size_t i = 0; i < shape->size(); ++i)
    {
      const auto size = Integral((*shape)[i]);
      tensor.sizes.push_back(size.value_or(0));
      good = good && size;
      if (tensor.sizes.back() != -1 && (tensor.sizes.back() < 1 || tensor.sizes.back() > most))
      {
        Complain(path + "/shape/" + std::to_string(i), "must be -1 or a size up to " + std::to_string(most) + ", found " + Shown((*shape)[i]));
      }
    }
    if (!orders.empty() && !tensor.axes.empty() && good && tensor.sizes.size() != tensor.axes.size())
    {
      Complain(path + "/shape", "must have a size for each of " + Json(tensor.axes).dump() + ", found " + Shown(*shape));
      good = false;
    }
    if (!good || tensor.sizes.size() != tensor.axes.size())
    {
      tensor.sizes.clear();
    }
    return tensor;
  }

  /** Checks all sizes but those of time: the batch free, height and width free or as the tiling says. channels 0: any number, but it must be given.
   * \param scale divides height and width; nothing where it is not known */
  void CheckSizes(const Tensor& tensor, const std::string& path, std::int64_t channels, const std::string& why, std::optional<int> scale = 1)
  {
    const bool even = side && scale && *side % *scale == 0;
    for (std::size_t i = 0; i < tensor.sizes.size(); ++i)
    {
      const std::string at = path + "/shape/" + std::to_string(i);
      const std::string& axis = tensor.axes[i];
      const std::int64_t size = tensor.sizes[i];
      if (axis == "batch" && size != -1)
      {
        Complain(at, "must be -1: the size of a batch is free");
      }
      if ((axis == "bands" || axis == "channel") && (channels > 0 ? size != channels : size == -1))
      {
        Complain(at, (channels > 0 ? "must be " + std::to_string(channels) : std::string("must be given")) + " (" + why + "), found " + std::to_string(size));
      }
      if ((axis == "height" || axis == "width") && size > 0 && even && size != *side / *scale)
      {
        Complain(at, std::string("must be -1 or the ") + (unit == SpatialUnit::Pixel ? "window" : "patch") + " of /properties/otb:tiling" +
                         (*scale > 1 ? ", divided by " + std::to_string(*scale) : "") + " (" + std::to_string(*side / *scale) + "), found " +
                         std::to_string(size));
      }
    }
  }

  /** Checks the size of time. steps 0: whatever comes. */
  void CheckSteps(const Tensor& tensor, const std::string& path, int steps)
  {
    for (std::size_t i = 0; i < tensor.sizes.size(); ++i)
    {
      if (tensor.axes[i] == "time" && tensor.sizes[i] != (steps > 0 ? steps : -1))
      {
        Complain(path + "/shape/" + std::to_string(i), (steps > 0 ? "must be " + std::to_string(steps) + " (the length of the series)"
                                                                  : std::string("must be -1: the number of time steps is free (policy any)")) +
                                                           ", found " + std::to_string(tensor.sizes[i]));
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
    const std::string word = j->contains("unit") ? OneOf(*j, path, "unit", {"patch", "pixel"}, false) : "patch";
    std::set<std::string> known = {"unit"};
    if (word != "pixel")
    {
      known.insert({"patch", "multiple", "halo", "blend", "tta"});
    }
    if (word != "patch")
    {
      known.insert("window");
    }
    if (!Own(*j, path, known) || word.empty())
    {
      return t;
    }
    unit = t.unit = word == "pixel" ? SpatialUnit::Pixel : SpatialUnit::Patch;
    if (unit == SpatialUnit::Pixel)
    {
      if (!task.empty() && task != seriesTask)
      {
        Complain(path + "/unit", "must be \"patch\" for " + task + ", found \"pixel\"");
      }
      const auto window = j->contains("window") ? Integer(*j, path, "window", false, 1) : 1;
      t.window = window.value_or(1);
      if (t.window % 2 == 0)
      {
        Complain(path + "/window", "must be odd, found " + std::to_string(t.window));
      }
      else if (window)
      {
        side = t.window;
        space = t.window > 1;
      }
      return t;
    }
    space = true;
    if (const Json* patch = Member(*j, path, "patch", false))
    {
      side = Integral(*patch);
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
          else if (a == "swap" && task == seriesTask)
          {
            Complain(path + "/tta/" + std::to_string(i), "\"swap\" exchanges the dates of a pair: a series has none");
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
      Complain(path + "/bands", "must not be empty");
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

  /** Bands computed from others of a series. */
  void ReadDerived(const Json& list, const std::string& path, ModelInput& in)
  {
    const auto isDerived = [&list](std::size_t b) { return list[b].contains("format") || list[b].contains("expression"); };
    for (std::size_t b = 0; b < list.size(); ++b)
    {
      if (!list[b].is_object() || !isDerived(b))
      {
        continue;
      }
      const std::string at = path + "/" + std::to_string(b);
      if (in.role == "static")
      {
        Complain(at, "is computed from others: only bands of sits can be");
        continue;
      }
      NormalisedDifference difference;
      difference.band = static_cast<int>(b);
      OneOf(list[b], at, "format", {"normalized-difference"}, true);
      const Json* expression = Member(list[b], at, "expression", true);
      if (expression && Words(*expression, at + "/expression"))
      {
        if (expression->size() != 2)
        {
          Complain(at + "/expression", "must be the names of two bands, found " + Shown(*expression));
        }
        for (std::size_t k = 0; k < expression->size() && expression->size() == 2; ++k)
        {
          const auto it = std::find(in.bands.begin(), in.bands.end(), (*expression)[k].get<std::string>());
          const auto other = static_cast<std::size_t>(it - in.bands.begin());
          if (it == in.bands.end() || isDerived(other))
          {
            Complain(at + "/expression/" + std::to_string(k), "must be a band of this input that is not computed itself, found " + Shown((*expression)[k]));
          }
          (k == 0 ? difference.a : difference.b) = static_cast<int>(other);
        }
      }
      in.derived.push_back(difference);
    }
  }

  /** Which image list brings each band of a series. Left empty where that is not known. */
  void ReadSensor(const Json& j, const std::string& path, ModelInput& in)
  {
    const auto isDerived = [&in](std::size_t b)
    { return std::any_of(in.derived.begin(), in.derived.end(), [b](const NormalisedDifference& d) { return d.band == static_cast<int>(b); }); };
    const auto number = [&](const Json& value, const std::string& at) -> int
    {
      const auto sensor = Integral(value);
      if (!sensor || *sensor < 0 || *sensor > mostSensors)
      {
        Complain(at, "must be an integer from 0 to " + std::to_string(mostSensors) + ", found " + Shown(value));
        return -1;
      }
      return static_cast<int>(*sensor);
    };
    const std::size_t n = in.bands.size();
    const Json* given = Member(j, path, "otb:sensor", false);
    const std::string at = path + "/otb:sensor";
    if (given && given->is_array() && given->size() != n)
    {
      Complain(at, "must be a number or have one a band (" + std::to_string(n) + "), found " + std::to_string(given->size()));
      return;
    }
    const int all = given && !given->is_array() ? number(*given, at) : 1;
    bool good = all >= 0;
    for (std::size_t b = 0; b < n; ++b)
    {
      in.sensors.push_back(isDerived(b) ? -1 : given && given->is_array() ? number((*given)[b], at + "/" + std::to_string(b)) : all);
      good = good && (isDerived(b) || in.sensors.back() >= 0);
    }
    if (good && n > 0 && std::all_of(in.sensors.begin(), in.sensors.end(), [](int s) { return s <= 0; }))
    {
      Complain(at, "must bring one band at least from a series (1 to " + std::to_string(mostSensors) + ")");
    }
    if (!good)
    {
      in.sensors.clear();
    }
  }

  /** A date as YYYY-MM-DD. */
  std::string DateOf(const Json& object, const std::string& path, const char* key)
  {
    const std::string text = String(object, path, key, true);
    if (!text.empty() && !ParseLongDate(text))
    {
      Complain(path + "/" + key, "must be a date as YYYY-MM-DD, of the years 1900 to 2199, found \"" + text + "\"");
      return {};
    }
    return text;
  }

  void ReadGrid(const Json& j, const std::string& path, TemporalSpec& t, std::optional<int> length, const std::string& lengthPath)
  {
    if (!Own(j, path, {"start", "end", "step"}))
    {
      return;
    }
    // Of MM-DD in a year without 29 February, which not every year has.
    const auto day = [&](const char* key, std::string& text) -> std::optional<Day>
    {
      text = String(j, path, key, true);
      const auto number = ParseLongDate(text.size() == 5 ? "2001-" + text : text);
      if (!text.empty() && !number)
      {
        Complain(path + "/" + key, "must be a date as YYYY-MM-DD, of the years 1900 to 2199, or as MM-DD, of any year (not 02-29), found \"" + text + "\"");
      }
      return number;
    };
    const auto start = day("start", t.gridStart), end = day("end", t.gridEnd);
    const auto step = Integer(j, path, "step", true, 1);
    t.gridStep = step.value_or(0);
    if (!start || !end)
    {
      return;
    }
    const bool yearly = t.gridStart.size() == 5;
    if (yearly != (t.gridEnd.size() == 5))
    {
      Complain(path + "/end", "must have the form of start (" + t.gridStart + "), found \"" + t.gridEnd + "\"");
      return;
    }
    if (!yearly && *end < *start)
    {
      Complain(path + "/end", "must not lie before start (" + t.gridStart + "), found \"" + t.gridEnd + "\"");
      return;
    }
    if (!step || !length)
    {
      return;
    }
    const int dates = (*end - *start + (*end < *start ? 365 : 0)) / *step + 1; // as in a common year
    if (dates > *length || (t.policy == TemporalSpec::Policy::Fixed && dates < *length))
    {
      Complain(lengthPath, std::string("must be ") + (t.policy == TemporalSpec::Policy::Fixed ? "" : "at least ") + std::to_string(dates) +
                               ", the number of dates of the grid, found " + std::to_string(*length));
    }
  }

  /** \return the number of time steps, 0 if it is free, nothing if it is not known */
  std::optional<int> ReadTemporal(const Json& j, const std::string& path, TemporalSpec& t)
  {
    if (!Own(j, path, {"policy", "length", "pad_side", "pad_value", "gapfill", "grid"}))
    {
      return {};
    }
    const std::string policy = OneOf(j, path, "policy", {"fixed", "max", "any"}, true);
    t.policy = policy == "fixed" ? TemporalSpec::Policy::Fixed : policy == "max" ? TemporalSpec::Policy::Max : TemporalSpec::Policy::Any;
    const bool counted = policy == "fixed" || policy == "max";
    const auto length = Integer(j, path, "length", counted, 1);
    if (policy == "any" && j.contains("length"))
    {
      Complain(path + "/length", "contradicts the policy any");
    }
    t.length = counted ? length.value_or(0) : 0;
    t.padAtStart = OneOf(j, path, "pad_side", {"end", "start"}, false) == "start";
    t.padValue = static_cast<float>(Number(j, path, "pad_value", false).value_or(0.));
    const std::string gapFill = OneOf(j, path, "gapfill", {"none", "linear", "grid"}, true);
    t.gapFill = gapFill == "grid" ? TemporalSpec::GapFill::Grid : gapFill == "linear" ? TemporalSpec::GapFill::Linear : TemporalSpec::GapFill::None;
    if (const Json* grid = Member(j, path, "grid", gapFill == "grid"))
    {
      if (gapFill != "grid" && !gapFill.empty())
      {
        Complain(path + "/grid", "is of the gapfill grid only, found " + gapFill);
      }
      ReadGrid(*grid, path + "/grid", t, counted ? length : std::nullopt, path + "/length");
    }
    return policy == "any" ? 0 : counted ? length : std::nullopt;
  }

  void ReadEncoding(const Json& j, const std::string& path, ModelInput& in)
  {
    if (!Own(j, path, {"kind", "reference", "pad_value"}))
    {
      return;
    }
    using Kind = DateEncoding::Kind;
    static const std::map<std::string, Kind> kinds = {{"doy", Kind::DayOfYear},
                                                      {"days_since", Kind::DaysSince},
                                                      {"days_since_first", Kind::DaysSinceFirst},
                                                      {"month_index", Kind::MonthIndex},
                                                      {"index", Kind::Index}};
    const std::string kind = OneOf(j, path, "kind", {"doy", "days_since", "days_since_first", "month_index", "index"}, true);
    if (!kind.empty())
    {
      in.encoding.kind = kinds.at(kind);
    }
    if (kind == "days_since" || j.contains("reference"))
    {
      in.encoding.reference = DateOf(j, path, "reference");
    }
    if (!kind.empty() && kind != "days_since" && j.contains("reference"))
    {
      Complain(path + "/reference", "is of days_since only, found " + kind);
    }
    const auto pad = Number(j, path, "pad_value", false);
    in.encoding.padValue = static_cast<float>(pad.value_or(0.));
    if (pad && in.type == ElementType::Int64 && std::floor(*pad) != *pad)
    {
      Complain(path + "/pad_value", "must be an integer, as the data_type is");
    }
  }

  /** The axes that an input of a series may have. */
  std::set<Order> SeriesOrders(const std::string& role) const
  {
    std::set<Order> orders;
    const auto add = [&orders](Order order, bool withSpace)
    {
      if (withSpace)
      {
        order.insert(order.end(), {"height", "width"});
      }
      orders.insert(order);
    };
    for (const bool withSpace : {false, true})
    {
      if (space.value_or(withSpace) != withSpace)
      {
        continue;
      }
      if (role == "sits" || role == "valid")
      {
        add({"batch", "time", "bands"}, withSpace);
        add({"batch", "bands", "time"}, withSpace);
      }
      if (role == "valid")
      {
        add({"batch", "time"}, withSpace);
      }
      if (role == "static")
      {
        add({"batch", "bands"}, withSpace);
      }
    }
    if (role == "dates" || role == "valid")
    {
      add({"batch", "time"}, false);
    }
    if (role == "month")
    {
      add({"batch"}, false);
    }
    if (role == "latlon")
    {
      add({"batch", "channel"}, false);
    }
    return orders;
  }

  /** An input, and what CheckSeries() needs of it. */
  struct Argument
  {
    ModelInput input;
    Tensor tensor;
    std::optional<std::string> of;     ///< empty: given, but wrong
    std::optional<int> steps;          ///< of sits; 0: free
    bool scaled = false;               ///< is the scaling known?
    std::optional<NullCondition> null; ///< of a condition
  };

  Argument ReadInput(const Json& j, const std::string& path)
  {
    Argument argument;
    ModelInput& in = argument.input;
    if (!j.is_object())
    {
      Complain(path, "must be an object");
      return argument;
    }
    in.name = String(j, path, "name", true);
    in.role = OneOf(j, path, "otb:role", knownInputRoles, true);
    const bool ofSeries = task == seriesTask && seriesInputRoles.count(in.role) > 0;
    const bool ofLikelihood = task == likelihoodTask, ofPair = task == pairTask;
    const auto& bandlessRoles = ofPair ? bandlessOfPairs : bandlessOrders;
    const auto bandless = ofLikelihood || ofPair ? bandlessRoles.find(in.role) : bandlessRoles.end();
    const bool isBandless = bandless != bandlessRoles.end();
    const bool ofRegression = (ofLikelihood || ofPair) && in.role == "regression";
    const bool isImage = task != seriesTask && (in.role == "image" || in.role == "condition");
    const bool hasBands = !isBandless && (!ofSeries || in.role == "sits" || in.role == "static");
    std::set<std::string> ours = inputFields;
    if (ofLikelihood)
    {
      for (const auto& role : likelihoodFields)
      {
        if (role.first == in.role || in.role.empty())
        {
          ours.insert(role.second.begin(), role.second.end());
        }
      }
    }
    for (const auto& role : seriesFields)
    {
      if (task == seriesTask && (role.first == in.role || !ofSeries)) // a wrong role is complained of already
      {
        ours.insert(role.second.begin(), role.second.end());
      }
    }
    Foreign(j, path, ours, {"bands", "input", "value_scaling"});
    const bool bandsRead = ReadBands(j, path, isImage || ofRegression || (ofSeries && hasBands), in.bands);
    const auto n = static_cast<std::int64_t>(in.bands.size());
    if (const Json* holder = Member(j, path, "input", true))
    {
      std::set<Order> orders;
      if (isImage || ofRegression)
      {
        orders = {imageOrder};
      }
      else if (isBandless)
      {
        orders = {bandless->second};
      }
      else if (ofSeries)
      {
        orders = SeriesOrders(in.role);
      }
      std::set<std::string> types = {"float32"};
      if (ofSeries && (in.role == "dates" || in.role == "month" || in.role == "valid"))
      {
        types.insert("int64");
      }
      if (ofSeries && in.role == "valid")
      {
        types.insert({"uint8", "bool"});
      }
      if (ofLikelihood && in.role == "diffusion_time")
      {
        types.insert("int64");
      }
      Tensor& tensor = argument.tensor;
      tensor = ReadTensor(*holder, path + "/input", orders, types);
      if (isImage || ofSeries)
      {
        // Without bands there is a complaint already; those of a mask are of its series.
        const std::int64_t any = tensor.Size("bands").value_or(1);
        const bool latLon = in.role == "latlon";
        CheckSizes(tensor, path + "/input", latLon ? 2 : n > 0 && hasBands ? n : any, latLon ? "latitude, longitude" : "one a band");
      }
      else if (ofRegression)
      {
        CheckSizes(tensor, path + "/input", n > 0 ? 4 * n : tensor.Size("bands").value_or(1), "4 a band: target, predicted target, source, residual");
      }
      else if (isBandless && bandless->second == channelOrder)
      {
        CheckSizes(tensor, path + "/input", latentChannels.value_or(0), "the channels of encode", latent ? latentScale : 1);
      }
      else if (isBandless)
      {
        CheckSizes(tensor, path + "/input", 1, ofPair ? "a score" : "a mask");
      }
      if (const auto type = typesByName.find(tensor.type); type != typesByName.end())
      {
        in.type = type->second;
      }
      if (std::all_of(tensor.axes.begin(), tensor.axes.end(), [](const std::string& axis) { return axesByName.count(axis) > 0; }) && !tensor.axes.empty())
      {
        in.axes.clear();
        for (const auto& axis : tensor.axes)
        {
          in.axes.push_back(axesByName.at(axis));
        }
      }
    }
    const bool maskOfBands = in.role == "valid" && (argument.tensor.axes.empty() || argument.tensor.Has("bands"));
    if (bandsRead && !hasBands && n > 0 && !maskOfBands)
    {
      Complain(path + "/bands", "must be empty for " + in.role + (in.role == "valid" ? " without the axis bands" : ""));
    }
    if (hasBands && !ofRegression)
    {
      const std::size_t before = violations.size();
      ReadScaling(j, path, in, bandsRead);
      argument.scaled = violations.size() == before;
    }
    else if (const Json* scaling = Member(j, path, "value_scaling", false); scaling && !scaling->is_null() && *scaling != Json::array())
    {
      Complain(path + "/value_scaling", "must be null or left out for " + in.role + ", found " + Shown(*scaling));
    }

    if (ofLikelihood)
    {
      ReadLikelihood(j, path, argument);
    }
    else if (ofPair && isBandless && j.contains("otb:date"))
    {
      Complain(path + "/otb:date", "is of images and regressions: " + in.role + " is of both dates");
    }
    else if (const auto date = Integer(j, path, "otb:date", ofPair && (in.role == "image" || ofRegression), 1))
    {
      in.date = *date;
      if (in.date > 2)
      {
        Complain(path + "/otb:date", "must be 1 or 2, found " + std::to_string(in.date));
      }
    }
    if (ofRegression)
    {
      in.scaling.assign(in.bands.size(), BandScaling());
      in.channels = static_cast<int>(std::min<std::int64_t>(4 * static_cast<std::int64_t>(in.bands.size()), 4 * most));
    }
    if (ofPair && isBandless)
    {
      in.channels = 1;
    }
    if (const Json* noData = Member(j, path, "otb:nodata", false); noData && !noData->is_null())
    {
      in.noData = Number(j, path, "otb:nodata", false);
    }
    in.noDataRule = OneOf(j, path, "otb:nodata_rule", {"all", "any"}, false) == "any" ? NoDataRule::Any : NoDataRule::All;
    in.noDataFill = static_cast<float>(Number(j, path, "otb:nodata_fill", false).value_or(0.));
    if (ofSeries)
    {
      ReadSeries(j, path, bandsRead, argument);
    }
    return argument;
  }

  /** What only inputs of change-likelihood have, or have not. */
  void ReadLikelihood(const Json& j, const std::string& path, Argument& argument)
  {
    ModelInput& in = argument.input;
    if (j.contains("otb:date"))
    {
      Complain(path + "/otb:date", "is of change-detection: both dates of a pair go through the same inputs of change-likelihood");
    }
    if (in.role == "token_mask")
    {
      in.channels = 1;
    }
    if (in.role == "latent" || in.role == "condition_latent")
    {
      in.channels = latentChannels.value_or(0);
      in.scale = latentScale.value_or(1);
    }
    if (in.role == "image")
    {
      const Json* given = Member(j, path, "otb:argument", false);
      in.argument = Flag(j, path, "otb:argument") || !given || !given->is_boolean();
    }
    if (in.role == "condition" || in.role == "condition_latent")
    {
      const std::string null =
          OneOf(j, path, "otb:null", kind == "otb:masked" ? std::set<std::string>{"none"} : NamesOf(nullConditions), kind == "otb:generative");
      if (!null.empty())
      {
        argument.null = nullConditions.at(null);
      }
    }
  }

  void ReadScaling(const Json& j, const std::string& path, ModelInput& in, bool bandsRead)
  {
    const std::size_t n = in.bands.size();
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
  }

  /** The fields that only inputs of a series have. */
  void ReadSeries(const Json& j, const std::string& path, bool bandsRead, Argument& argument)
  {
    ModelInput& in = argument.input;
    if (bandsRead && (in.role == "sits" || in.role == "static"))
    {
      ReadDerived(j.at("bands"), path + "/bands", in);
    }
    if (in.role == "sits")
    {
      if (bandsRead)
      {
        ReadSensor(j, path, in);
      }
      if (const Json* temporal = Member(j, path, "otb:temporal", true))
      {
        argument.steps = ReadTemporal(*temporal, path + "/otb:temporal", in.temporal);
      }
      in.steps = in.temporal.length;
    }
    if (in.role == "dates" || in.role == "valid" || in.role == "month")
    {
      if (j.contains("otb:of"))
      {
        argument.of = String(j, path, "otb:of", false);
      }
    }
    if (in.role == "dates")
    {
      if (const Json* encoding = Member(j, path, "otb:encoding", true))
      {
        ReadEncoding(*encoding, path + "/otb:encoding", in);
      }
    }
    if (in.role == "valid")
    {
      in.maskedIsOne = OneOf(j, path, "otb:polarity", {"valid", "masked"}, true) == "masked";
      const auto least = Number(j, path, "otb:min_valid", false);
      in.minValid = least.value_or(0.);
      const std::string at = path + "/otb:min_valid";
      if (in.minValid < 0. || in.minValid > 1.)
      {
        Complain(at, "must lie from 0 to 1");
      }
      else if (least && (unit == SpatialUnit::Pixel || argument.tensor.Has("height") || argument.tensor.Has("bands")))
      {
        Complain(at, "is of masks of the dates of patches only");
      }
    }
  }

  std::vector<ModelClass> ReadClasses(const Json& list, const std::string& path, int least)
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
      if (const auto value = Integer(list[i], at, "value", true, least))
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
      out.classes = ReadClasses(*classes, path + "/classification:classes", task == seriesTask ? 1 : 0); // 0 is the no-data of a map of classes
    }
    const Json* result = Member(j, path, "result", true);
    if (!result)
    {
      return out;
    }
    std::set<Order> orders = {{"batch", "channel", "height", "width"}};
    if (task == seriesTask)
    {
      if (out.role == "aux" || unit == SpatialUnit::Pixel)
      {
        orders.clear();
      }
      if (out.role != "aux" && unit != SpatialUnit::Patch)
      {
        orders.insert({"batch", "channel"});
      }
    }
    const Tensor tensor = ReadTensor(*result, path + "/result", orders);
    if (orders.empty() || tensor.sizes.empty())
    {
      return out;
    }
    const std::int64_t channels = *tensor.Size("channel");
    const auto k = static_cast<std::int64_t>(out.classes.size());
    if (out.role == "change_probability")
    {
      CheckSizes(tensor, path + "/result", 1, "the probability of change");
    }
    else if (out.role == "transition_logits" && k > 0)
    {
      CheckSizes(tensor, path + "/result", 1 + k * k, "no change, and the transitions between " + std::to_string(k) + " classes");
    }
    else
    {
      CheckSizes(tensor, path + "/result", classified ? k : 0, classified && k > 0 ? "one a class" : "the number of channels", latent ? latentScale : 1);
    }
    if (out.role == "change_logits" && channels > 2)
    {
      Complain(path + "/result/shape/1", "must be 1 or 2 for change_logits, found " + std::to_string(channels));
    }
    out.channels = static_cast<int>(std::max<std::int64_t>(0, std::min(channels, most)));
    out.scale = latent ? latentScale.value_or(1) : 1;
    return out;
  }

  /** The two images of change-detection, and what may be made from them. Inputs in the order of the contract, with roles that are known. */
  void CheckPair(const std::vector<ModelInput>& inputs, const std::string& path)
  {
    std::set<int> dates, targets;
    std::vector<const ModelInput*> images;
    int scores = 0;
    for (std::size_t i = 0; i < inputs.size(); ++i)
    {
      const ModelInput& in = inputs[i];
      const std::string at = path + "/" + std::to_string(i);
      if (in.role == "image")
      {
        images.push_back(&in);
        if (in.date > 0 && !dates.insert(in.date).second)
        {
          Complain(at + "/otb:date", "repeats " + std::to_string(in.date) + ": change-detection needs one image of each date");
        }
      }
      else if (in.role == "regression")
      {
        if (in.date > 0 && !targets.insert(in.date).second)
        {
          Complain(at + "/otb:date", "repeats " + std::to_string(in.date) + ": there is one regression of each date");
        }
      }
      else if (in.role == "regression_score")
      {
        if (++scores > 1)
        {
          Complain(at + "/otb:role", "repeats regression_score");
        }
      }
      else
      {
        Complain(at + "/otb:role",
                 "change-detection takes images, and what is made from them: regression, regression_score; found \"" + in.name + "\" of role " + in.role);
      }
    }
    if (images.size() != 2)
    {
      Complain(path, "change-detection needs exactly two images, of otb:date 1 and 2, found " + std::to_string(images.size()));
      return;
    }
    const auto regressed = [](const ModelInput& in) { return in.role == "regression" || in.role == "regression_score"; };
    const bool known = !images[0]->bands.empty() && !images[1]->bands.empty();
    if (known && images[0]->bands != images[1]->bands && std::any_of(inputs.begin(), inputs.end(), regressed))
    {
      Complain(path, "a regression between the dates needs the same bands at both");
      return;
    }
    for (std::size_t i = 0; known && i < inputs.size(); ++i)
    {
      if (inputs[i].role == "regression" && !inputs[i].bands.empty() && inputs[i].bands != images[0]->bands)
      {
        Complain(path + "/" + std::to_string(i) + "/bands", "must be those of the images");
      }
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

  /** Which of the things that change-likelihood can be a network is, and what goes with that. To be read before inputs and outputs. */
  void ReadKind(const Json& properties, const std::string& path, ModelContract& c)
  {
    std::set<std::string> found;
    for (const auto& name : likelihoodKinds)
    {
      if (properties.contains(name))
      {
        found.insert(name);
      }
    }
    if (found.size() != 1)
    {
      Complain(path, std::string(likelihoodTask) + " needs exactly one of " + Listed(likelihoodKinds) + ", found " + (found.empty() ? "none" : Listed(found)));
    }
    kind = found.size() == 1 ? *found.begin() : "";
    if (found.count("otb:generative"))
    {
      c.generative = ReadGenerative(properties.at("otb:generative"), path + "/otb:generative");
    }
    if (found.count("otb:masked"))
    {
      c.masked = ReadMasked(properties.at("otb:masked"), path + "/otb:masked");
    }
    if (found.count("otb:ratio"))
    {
      const std::string at = path + "/otb:ratio";
      c.ratio.emplace();
      if (Own(properties.at("otb:ratio"), at, {"weight", "smooth"}))
      {
        constexpr double inf = std::numeric_limits<double>::infinity();
        c.ratio->weight = Within(properties.at("otb:ratio"), at, "weight", 0., inf, false).value_or(c.ratio->weight);
        c.ratio->smooth = Within(properties.at("otb:ratio"), at, "smooth", 0., inf, false).value_or(c.ratio->smooth);
      }
    }
    if (found.count("otb:features"))
    {
      c.featuresOnly = true;
      if (Own(properties.at("otb:features"), path + "/otb:features", {"channels"}))
      {
        featureChannels = Integer(properties.at("otb:features"), path + "/otb:features", "channels", false, 1);
      }
    }
    if (const Json* methods = Member(properties, path, "otb:methods", false))
    {
      ReadMethods(*methods, path + "/otb:methods", c.methods);
    }
  }

  GenerativeSpec ReadGenerative(const Json& j, const std::string& path)
  {
    GenerativeSpec g;
    if (!Own(j, path, {"kind", "schedule", "time", "data_at", "logsnr_range", "dequantize", "predicts_var", "rng_tag"}))
    {
      return g;
    }
    using Schedule = NoiseSpec::Schedule;
    field = OneOf(j, path, "kind", NamesOf(fieldKinds), true);
    const auto schedule = ReadSchedule(j, path, g.noise);
    const std::string times = OneOf(j, path, "time", NamesOf(timeArguments), true);
    if (!field.empty())
    {
      g.kind = fieldKinds.at(field);
      if (schedule && (g.kind == FieldKind::Edm) != (*schedule == Schedule::Edm))
      {
        Complain(path + "/kind", "edm goes with the schedule edm, and no other kind does, found \"" + field + "\"");
      }
      if (schedule == Schedule::FlowLinear && g.kind == FieldKind::VDiffusion)
      {
        Complain(path + "/kind", "v_diffusion needs a schedule with alpha^2 + sigma^2 = 1: fm_linear is none");
      }
    }
    if (!times.empty())
    {
      time = g.time = timeArguments.at(times);
      const bool without = schedule == Schedule::FlowLinear || schedule == Schedule::Edm;
      if (time == TimeArgument::DiscreteIndex && without)
      {
        Complain(path + "/time", "discrete_index needs a schedule with steps: linear_beta, scaled_linear, cosine or table");
      }
      if (time == TimeArgument::Continuous && schedule == Schedule::Edm)
      {
        Complain(path + "/time", "continuous01 needs a schedule from data to noise: edm has no end");
      }
    }
    const auto dataAt = Number(j, path, "data_at", time == TimeArgument::Continuous);
    if (dataAt && *dataAt != 0. && *dataAt != 1.)
    {
      Complain(path + "/data_at", "must be 0 or 1");
    }
    else if (j.contains("data_at") && time && time != TimeArgument::Continuous)
    {
      Complain(path + "/data_at", "is of continuous01 only, found " + times);
    }
    g.dataAt = dataAt.value_or(g.dataAt);
    if (const Json* range = Member(j, path, "logsnr_range", false))
    {
      ReadRange(*range, path + "/logsnr_range", g.logSnrLow, g.logSnrHigh);
    }
    g.dequantise = Flag(j, path, "dequantize");
    g.predictsVariance = Flag(j, path, "predicts_var");
    predictsVariance = g.predictsVariance;
    if (const Json* tag = Member(j, path, "rng_tag", false))
    {
      const auto value = Integral(*tag);
      constexpr std::int64_t last = std::numeric_limits<std::uint32_t>::max();
      if (!value || *value < 0 || *value > last)
      {
        Complain(path + "/rng_tag", "must be an integer from 0 to " + std::to_string(last) + ", found " + Shown(*tag));
      }
      g.tag = static_cast<unsigned int>(value.value_or(0));
    }
    return g;
  }

  /** Two numbers, the first one lower. */
  void ReadRange(const Json& range, const std::string& path, double& low, double& high)
  {
    if (!range.is_array() || range.size() != 2)
    {
      Complain(path, "must be a list of two numbers, found " + Shown(range));
      return;
    }
    const Json ends = {{"0", range[0]}, {"1", range[1]}};
    const auto first = Number(ends, path, "0", true), last = Number(ends, path, "1", true);
    if (first && last && !(*first < *last))
    {
      Complain(path, "must have its lower end first, found " + Shown(range));
    }
    low = first.value_or(low);
    high = last.value_or(high);
  }

  /** \return nothing where it is wrong */
  std::optional<NoiseSpec::Schedule> ReadSchedule(const Json& generative, const std::string& parent, NoiseSpec& noise)
  {
    const std::string path = parent + "/schedule";
    const Json* given = Member(generative, parent, "schedule", true);
    if (!given)
    {
      return {};
    }
    std::string type;
    if (given->is_string())
    {
      type = given->get<std::string>();
      if (!schedules.count(type) || type == "table")
      {
        Complain(path, "must be an object with a type, or one of cosine, edm, fm_linear, linear_beta, scaled_linear, found \"" + type + "\"");
        return {};
      }
    }
    else if (!given->is_object())
    {
      Complain(path, "must be an object or a name, found " + Shown(*given));
      return {};
    }
    const Json j = given->is_string() ? Json{{"type", type}} : *given;
    type = OneOf(j, path, "type", NamesOf(schedules), true);
    Own(j, path, type.empty() ? std::set<std::string>{"type", "beta_start", "beta_end", "steps", "offset", "alphas_cumprod"} : scheduleFields.at(type));
    noise.betaStart = Within(j, path, "beta_start", 0., 1., true).value_or(noise.betaStart);
    noise.betaEnd = Within(j, path, "beta_end", 0., 1., true).value_or(noise.betaEnd);
    if (noise.betaEnd < noise.betaStart)
    {
      Complain(path + "/beta_end", "must not lie below beta_start (" + Json(noise.betaStart).dump() + ")");
    }
    noise.steps = Integer(j, path, "steps", false, 2).value_or(noise.steps);
    noise.cosineOffset = Within(j, path, "offset", 0., std::numeric_limits<double>::infinity(), false).value_or(noise.cosineOffset);
    if (const Json* table = Member(j, path, "alphas_cumprod", type == "table"))
    {
      ReadAlphas(*table, path + "/alphas_cumprod", noise);
    }
    if (type.empty())
    {
      return {};
    }
    return noise.schedule = schedules.at(type);
  }

  void ReadAlphas(const Json& list, const std::string& path, NoiseSpec& noise)
  {
    if (!list.is_array() || list.size() < 2 || list.size() > static_cast<std::size_t>(most))
    {
      Complain(path, "must be a list of 2 to " + std::to_string(most) + " numbers, found " + Shown(list));
      return;
    }
    for (std::size_t k = 0; k < list.size(); ++k)
    {
      const double value = list[k].is_number() ? list[k].get<double>() : 0.;
      if (!(value > 0. && value < 1.))
      {
        Complain(path + "/" + std::to_string(k), "must be a number between 0 and 1, found " + Shown(list[k]));
      }
      else if (k > 0 && noise.alphasCumprod.back() > 0. && value >= noise.alphasCumprod.back())
      {
        Complain(path + "/" + std::to_string(k), "must lie below the one before, found " + Shown(list[k]));
      }
      noise.alphasCumprod.push_back(value > 0. && value < 1. ? value : 0.);
    }
    noise.steps = static_cast<int>(list.size());
  }

  MaskedSpec ReadMasked(const Json& j, const std::string& path)
  {
    MaskedSpec m;
    if (!Own(j, path, {"patch", "groups", "norm_pix"}))
    {
      return m;
    }
    const auto patch = Integer(j, path, "patch", true, 1), groups = Integer(j, path, "groups", true, 2);
    m.patch = patch.value_or(m.patch);
    m.groups = groups.value_or(m.groups);
    m.normalised = Flag(j, path, "norm_pix");
    if (!patch || !side || *side < 1)
    {
      return m;
    }
    if (*side % m.patch != 0)
    {
      Complain(path + "/patch", "must divide the patch of /properties/otb:tiling (" + std::to_string(*side) + "), found " + std::to_string(m.patch));
      return m;
    }
    const std::int64_t tokens = (*side / m.patch) * (*side / m.patch);
    if (groups && m.groups > tokens)
    {
      Complain(path + "/groups", "must not be more than the tokens of a patch (" + std::to_string(tokens) + "), found " + std::to_string(m.groups));
    }
    return m;
  }

  void ReadMethods(const Json& j, const std::string& path, std::vector<MethodSpec>& methods)
  {
    if (!Own(j, path, {"encode", "decode", "features", "div"}))
    {
      return;
    }
    latent = j.contains("encode");
    for (const auto& item : j.items())
    {
      const std::string at = path + "/" + Token(item.key());
      MethodSpec m;
      m.name = item.key();
      if (m.name == "div")
      {
        Own(item.value(), at, {});
      }
      else if ((m.name == "encode" || m.name == "decode" || m.name == "features") && Own(item.value(), at, {"channels", "scale"}))
      {
        const auto channels = Integer(item.value(), at, "channels", true, 1), scale = Integer(item.value(), at, "scale", true, 1);
        m.channels = channels.value_or(0);
        m.scale = scale.value_or(1);
        if (side && *side >= 1 && *side % m.scale != 0)
        {
          Complain(at + "/scale", "must divide the patch of /properties/otb:tiling (" + std::to_string(*side) + "), found " + std::to_string(m.scale));
        }
        if (m.name == "encode")
        {
          latentChannels = channels;
          latentScale = scale;
        }
        if (m.name == "decode" && m.scale != 1)
        {
          Complain(at + "/scale", "must be 1: decode gives pixels, found " + std::to_string(m.scale));
        }
      }
      methods.push_back(m);
    }
    if (j.contains("decode") && !latent)
    {
      Complain(path + "/decode", "needs the method encode");
    }
    if (latent && !kind.empty() && kind != "otb:generative")
    {
      Complain(path + "/encode", "is of otb:generative only: it gives the latents that are denoised there");
    }
  }

  /** The roles that the inputs of change-likelihood may have, each once at most, and those that must be there. */
  void LikelihoodRoles(std::set<std::string>& allowed, std::set<std::string>& needed) const
  {
    if (kind == "otb:generative")
    {
      needed = latent ? std::set<std::string>{"latent", "diffusion_time", "image"} : std::set<std::string>{"image", "diffusion_time"};
      allowed = needed;
      allowed.insert({latent ? "condition_latent" : "condition", "condition_flag"});
    }
    else
    {
      needed = kind == "otb:masked" ? std::set<std::string>{"image", "token_mask"} : std::set<std::string>{kind == "otb:ratio" ? "regression" : "image"};
      allowed = needed;
      if (kind == "otb:masked")
      {
        allowed.insert("condition");
      }
    }
  }

  /** What the inputs of change-likelihood say of each other, where its kind is known. In the order of the contract. */
  void CheckLikelihood(const std::vector<Argument>& arguments, const std::string& path, ModelContract& c)
  {
    std::set<std::string> allowed, needed;
    LikelihoodRoles(allowed, needed);
    std::map<std::string, std::size_t> first; // of each role
    bool known = true;
    for (std::size_t i = 0; i < arguments.size(); ++i)
    {
      const ModelInput& in = arguments[i].input;
      const std::string at = path + "/" + std::to_string(i);
      known = known && !in.role.empty();
      if (in.role.empty())
      {
        continue;
      }
      if (!allowed.count(in.role))
      {
        Complain(at + "/otb:role",
                 std::string(likelihoodTask) + " with " + kind + (latent ? " and the method encode" : "") + " takes " + Listed(allowed) + ", found " + in.role);
      }
      else if (!first.emplace(in.role, i).second)
      {
        Complain(at + "/otb:role", "repeats " + in.role);
      }
      if (in.role == "image" && in.argument == latent)
      {
        Complain(at + "/otb:argument", latent ? "must be false: encode takes the image, forward() the latent" : "is of models with the method encode");
      }
      else if (!in.argument && i + 1 < arguments.size())
      {
        Complain(at + "/otb:argument", "is false: this input must be the last one");
      }
      if (in.role == "diffusion_time" && arguments[i].tensor.type == "int64" && time && time != TimeArgument::DiscreteIndex)
      {
        Complain(at + "/input/data_type", "must be float32 where the time is no discrete_index");
      }
    }
    for (const auto& role : needed)
    {
      if (known && !first.count(role))
      {
        Complain(path, std::string(likelihoodTask) + " with " + kind + (latent ? " and the method encode" : "") + " needs an input of role " + role);
      }
    }
    const auto of = [&](const char* role) { return allowed.count(role) && first.count(role) ? &arguments[first.at(role)] : nullptr; };
    const auto where = [&](const char* role) { return path + "/" + std::to_string(first.at(role)); };
    const Argument* const image = of("image");
    if (const Argument* condition = of("condition"); condition && image && !image->input.bands.empty() && !condition->input.bands.empty())
    {
      if (condition->input.bands != image->input.bands)
      {
        Complain(where("condition") + "/bands", "must be those of \"" + image->input.name + "\": the other date of the same bands");
      }
      else if (condition->scaled && image->scaled && !Same(condition->input.scaling, image->input.scaling))
      {
        Complain(where("condition") + "/value_scaling", "must be that of \"" + image->input.name + "\"");
      }
    }
    if (kind == "otb:generative")
    {
      const char* const role = latent ? "condition_latent" : "condition";
      const Argument* const condition = of(role);
      const auto null = condition ? condition->null : known ? std::optional<NullCondition>(NullCondition::None) : std::nullopt;
      if (c.generative && null)
      {
        c.generative->null = *null;
      }
      if (null == NullCondition::Flag && known && !first.count("condition_flag"))
      {
        Complain(path, "needs an input of role condition_flag: otb:null is flag");
      }
      if (null && null != NullCondition::Flag && first.count("condition_flag"))
      {
        Complain(where("condition_flag") + "/otb:role", "goes with a condition whose otb:null is flag");
      }
    }
    if (const MethodSpec* decode = c.FindMethod("decode"); decode && image && !image->input.bands.empty())
    {
      const auto n = static_cast<int>(image->input.bands.size());
      if (decode->channels > 0 && decode->channels != n)
      {
        Complain("/properties/otb:methods/decode/channels", "must be " + std::to_string(n) + " (one a band), found " + std::to_string(decode->channels));
      }
    }
  }

  /** The output of change-likelihood, where its kind is known, and roles are. */
  void CheckLikelihoodOutputs(const ModelContract& c, const std::string& path)
  {
    std::set<std::string> roles = {kind == "otb:masked" ? "reconstruction" : kind == "otb:ratio" ? "log_ratio" : "features"};
    if (kind == "otb:generative")
    {
      roles = field.empty() ? NamesOf(fieldKinds) : std::set<std::string>{field};
    }
    const auto image = std::find_if(c.inputs.begin(), c.inputs.end(), [](const ModelInput& in) { return in.role == "image"; });
    int channels = kind == "otb:ratio" ? 1 : kind == "otb:features" ? featureChannels.value_or(0) : 0;
    if (kind == "otb:generative" || kind == "otb:masked")
    {
      channels = latent ? latentChannels.value_or(0) : image != c.inputs.end() ? static_cast<int>(image->bands.size()) : 0;
      channels *= predictsVariance ? 2 : 1;
    }
    bool seen = false, wrong = false;
    for (std::size_t i = 0; i < c.outputs.size(); ++i)
    {
      const ModelOutput& out = c.outputs[i];
      const std::string at = path + "/" + std::to_string(i);
      if (out.role == "aux")
      {
        continue;
      }
      if (!roles.count(out.role))
      {
        wrong = true;
        Complain(at + "/otb:role", std::string(likelihoodTask) + " with " + kind + " gives " + Listed(roles) + ", and aux, found " + out.role);
        continue;
      }
      if (seen)
      {
        Complain(at + "/otb:role", "repeats the output: there is one, and aux");
      }
      seen = true;
      if (channels > 0 && out.channels > 0 && out.channels != channels)
      {
        Complain(at + "/result/shape/1", "must be " + std::to_string(channels) + " for " + out.role + ", found " + std::to_string(out.channels));
      }
    }
    if (!seen && !wrong)
    {
      Complain(path, std::string(likelihoodTask) + " with " + kind + " needs an output of role " + Listed(roles));
    }
  }

  /** What the inputs of a series say of each other. In the order of the contract. */
  void CheckSeries(std::vector<Argument>& arguments, const std::string& path)
  {
    std::vector<std::size_t> series;
    std::set<std::string> once;
    bool known = true; // roles and names
    for (std::size_t i = 0; i < arguments.size(); ++i)
    {
      const ModelInput& in = arguments[i].input;
      const std::string at = path + "/" + std::to_string(i);
      known = known && !in.role.empty() && (in.role != "sits" || !in.name.empty());
      if (!in.role.empty() && !seriesInputRoles.count(in.role))
      {
        known = false;
        Complain(at + "/otb:role", std::string(seriesTask) + " takes " + Listed(seriesInputRoles) + ", found " + in.role);
      }
      if ((in.role == "latlon" || in.role == "static") && !once.insert(in.role).second)
      {
        Complain(at + "/otb:role", "repeats " + in.role);
      }
      if (in.role == "sits")
      {
        series.push_back(i);
        if (arguments[i].steps)
        {
          CheckSteps(arguments[i].tensor, at + "/input", *arguments[i].steps);
        }
      }
    }
    if (known && series.empty())
    {
      Complain(path, std::string(seriesTask) + " needs an input of role sits");
    }
    for (std::size_t i = 0; i < arguments.size(); ++i)
    {
      Argument& argument = arguments[i];
      const std::string at = path + "/" + std::to_string(i);
      if (argument.input.role != "dates" && argument.input.role != "valid" && argument.input.role != "month")
      {
        continue;
      }
      const auto of =
          std::find_if(series.begin(), series.end(), [&](std::size_t s) { return argument.of ? arguments[s].input.name == *argument.of : series.size() == 1; });
      if (of == series.end())
      {
        if (known && !argument.of && !series.empty())
        {
          Complain(at + "/otb:of", "is required and missing: there are " + std::to_string(series.size()) + " inputs of role sits");
        }
        else if (known && argument.of && !argument.of->empty())
        {
          Complain(at + "/otb:of", "must name an input of role sits, found \"" + *argument.of + "\"");
        }
        continue;
      }
      argument.input.of = static_cast<int>(*of);
      CheckMember(arguments[*of], argument, at + "/input");
    }
  }

  /** The tensor of an input that belongs to a series. */
  void CheckMember(const Argument& series, Argument& member, const std::string& path)
  {
    if (series.steps && member.input.role != "month")
    {
      member.input.steps = *series.steps;
      CheckSteps(member.tensor, path, *series.steps);
    }
    if (!member.tensor.Has("bands") || series.tensor.axes.empty())
    {
      return;
    }
    if (member.tensor.axes != series.tensor.axes)
    {
      Complain(path + "/dim_order",
               "must be as of \"" + series.input.name + "\", " + Json(series.tensor.axes).dump() + ", found " + Json(member.tensor.axes).dump());
      return;
    }
    // MLM wants the names of the bands where there is an axis of them; they say nothing new.
    if (!member.input.bands.empty() && member.input.bands != series.input.bands)
    {
      Complain(path.substr(0, path.rfind('/')) + "/bands", "must be empty, or those of \"" + series.input.name + "\"");
    }
    member.input.bands.clear();
    const std::size_t n = series.input.bands.size();
    for (std::size_t k = 0; k < member.tensor.sizes.size(); ++k)
    {
      if (n > 0 && member.tensor.axes[k] == "bands" && member.tensor.sizes[k] != -1 && member.tensor.sizes[k] != static_cast<std::int64_t>(n))
      {
        Complain(path + "/shape/" + std::to_string(k),
                 "must be " + std::to_string(n) + " (one a band of the series), found " + std::to_string(member.tensor.sizes[k]));
      }
    }
  }

  std::vector<Sensor> ReadSensors(const Json& list, const std::string& path)
  {
    std::vector<Sensor> sensors;
    if (!list.is_array() || list.empty() || list.size() > static_cast<std::size_t>(mostSensors))
    {
      Complain(path, "must be a list of 1 to " + std::to_string(mostSensors) + " sensors, found " + Shown(list));
      return sensors;
    }
    std::set<std::string> names;
    for (std::size_t k = 0; k < list.size(); ++k)
    {
      const std::string at = path + "/" + std::to_string(k);
      sensors.emplace_back();
      if (!Own(list[k], at, {"name", "optional"}))
      {
        continue;
      }
      sensors.back().name = String(list[k], at, "name", true);
      if (!sensors.back().name.empty() && !names.insert(sensors.back().name).second)
      {
        Complain(at + "/name", "repeats \"" + sensors.back().name + "\"");
      }
      sensors.back().optional = Flag(list[k], at, "optional");
    }
    return sensors;
  }

  /** The sensors that bands come from. */
  void CheckSensors(const std::vector<Argument>& arguments, const Json* given, const std::string& parent, const std::vector<Sensor>& sensors)
  {
    std::set<int> used;
    std::set<int> unmasked; // used by inputs without a mask that tells bands apart
    bool known = true;
    for (std::size_t i = 0; i < arguments.size(); ++i)
    {
      const ModelInput& in = arguments[i].input;
      known = known && !in.role.empty() && !(in.role == "sits" && in.sensors.empty());
      known = known && !(in.role == "valid" && (in.of < 0 || arguments[i].tensor.axes.empty()));
      const bool masked = std::any_of(arguments.begin(), arguments.end(),
                                      [i](const Argument& a) { return a.input.role == "valid" && a.input.of == static_cast<int>(i) && a.tensor.Has("bands"); });
      for (const int sensor : in.sensors)
      {
        if (sensor > 0)
        {
          used.insert(sensor);
          if (!masked)
          {
            unmasked.insert(sensor);
          }
        }
      }
    }
    if (!known || used.empty())
    {
      return;
    }
    const int largest = *used.rbegin();
    if (!given)
    {
      if (largest != static_cast<int>(used.size()))
      {
        Complain(parent + "/otb:sensors",
                 "is required where the numbers of otb:sensor have gaps: " + std::to_string(largest) + " is the largest of " + std::to_string(used.size()));
      }
      return;
    }
    if (given->is_array() && static_cast<int>(given->size()) < largest && !given->empty())
    {
      Complain(parent + "/otb:sensors",
               "must have an entry for each sensor up to the largest otb:sensor, " + std::to_string(largest) + ", found " + std::to_string(given->size()));
    }
    for (std::size_t k = 0; k < sensors.size(); ++k)
    {
      if (sensors[k].optional && unmasked.count(static_cast<int>(k) + 1))
      {
        Complain(parent + "/otb:sensors/" + std::to_string(k) + "/optional",
                 "needs, for each input that the sensor brings bands to, an input of role valid with the axes of the series");
      }
    }
  }

  /** The outputs of time-series-classification, with roles that are known. */
  void CheckClassification(const std::vector<ModelOutput>& outputs, const std::string& path)
  {
    bool classes = false, embedding = false, wrong = false;
    for (std::size_t i = 0; i < outputs.size(); ++i)
    {
      const std::string& role = outputs[i].role;
      const std::string at = path + "/" + std::to_string(i) + "/otb:role";
      if (!seriesOutputRoles.count(role))
      {
        wrong = true;
        Complain(at, std::string(seriesTask) + " gives " + Listed(seriesOutputRoles) + ", found " + role);
      }
      bool& seen = role == "embedding" ? embedding : classes;
      if (role != "aux" && seriesOutputRoles.count(role))
      {
        if (seen)
        {
          Complain(at, role == "embedding" ? "repeats embedding" : "repeats the classes: one output of logits or probabilities is enough");
        }
        seen = true;
      }
    }
    if (!classes && !embedding && !wrong)
    {
      Complain(path, std::string(seriesTask) + " needs logits, probabilities or an embedding");
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
    std::vector<ModelInput> others; // that forward() does not take
    for (auto in = inputs.begin(); in != inputs.end();)
    {
      if (in->argument)
      {
        ++in;
        continue;
      }
      others.push_back(std::move(*in));
      in = inputs.erase(in);
    }
    Reorder(order, path, inputs);
    inputs.insert(inputs.end(), others.begin(), others.end());
  }

  /** The same of arguments alone. */
  void Reorder(const Json* order, const std::string& path, std::vector<ModelInput>& inputs)
  {
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
    for (ModelInput& in : ordered)
    {
      if (in.of >= 0)
      {
        const std::string& of = inputs[in.of].name;
        in.of = static_cast<int>(std::find_if(ordered.begin(), ordered.end(), [&of](const ModelInput& o) { return o.name == of; }) - ordered.begin());
      }
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

bool ModelInput::Has(Axis axis) const
{
  return std::find(axes.begin(), axes.end(), axis) != axes.end();
}

const MethodSpec* ModelContract::FindMethod(const std::string& method) const
{
  for (const auto& m : methods)
  {
    if (m.name == method)
    {
      return &m;
    }
  }
  return nullptr;
}

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
  c.task = r.OneOf(*P, path, "otb:task", knownTasks, true);
  const bool ofSeries = c.task == seriesTask;
  r.task = c.task;
  std::set<std::string> ours = {"otb:version", "otb:task", "otb:method", "otb:tiling", "otb:calibration", "otb:provenance"};
  if (ofSeries)
  {
    ours.insert("otb:sensors");
  }
  const bool ofLikelihood = c.task == likelihoodTask;
  if (ofLikelihood)
  {
    ours.insert(likelihoodKinds.begin(), likelihoodKinds.end());
    ours.insert("otb:methods");
  }
  if (!ofSeries && !ofLikelihood)
  {
    ours.insert("otb:radiometric_matching");
    c.radiometricMatching = r.Flag(*P, path, "otb:radiometric_matching") || !P->contains("otb:radiometric_matching");
  }
  r.Foreign(*P, path, ours, {"mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output"});
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
  c.tiling = r.ReadTiling(*P, path);
  if (ofLikelihood)
  {
    r.ReadKind(*P, path, c);
  }

  const Json* sensors = ofSeries ? r.Member(*P, path, "otb:sensors", false) : nullptr;
  if (sensors)
  {
    c.sensors = r.ReadSensors(*sensors, path + "/otb:sensors");
  }
  std::vector<Reader::Argument> arguments;
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
        arguments.push_back(r.ReadInput((*inputs)[i], at));
        const std::string& name = arguments.back().input.name;
        if (!name.empty() && !names.insert(name).second)
        {
          r.Complain(at + "/name", "repeats \"" + name + "\"");
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

  if (ofSeries && !arguments.empty())
  {
    r.CheckSeries(arguments, path + "/mlm:input");
    r.CheckSensors(arguments, sensors, path, c.sensors);
  }
  if (!r.kind.empty() && !arguments.empty())
  {
    r.CheckLikelihood(arguments, path + "/mlm:input", c);
  }
  for (auto& argument : arguments)
  {
    c.inputs.push_back(std::move(argument.input));
  }
  const auto known = [](const auto& entry) { return !entry.role.empty(); };
  if (ofSeries && std::all_of(c.outputs.begin(), c.outputs.end(), known) && !c.outputs.empty())
  {
    r.CheckClassification(c.outputs, path + "/mlm:output");
  }
  if (!r.kind.empty() && std::all_of(c.outputs.begin(), c.outputs.end(), known) && !c.outputs.empty())
  {
    r.CheckLikelihoodOutputs(c, path + "/mlm:output");
  }
  if (c.task == "change-detection")
  {
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
    if (ofLikelihood)
    {
      r.Complain(at, "is not of change-likelihood: its calibration is a file of the run");
    }
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
