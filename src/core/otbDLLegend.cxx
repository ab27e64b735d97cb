/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLLegend.h"

#include "otbDLError.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <set>

namespace otb
{
namespace dl
{

namespace
{

Colour FromNumber(std::uint32_t rgb)
{
  return {static_cast<std::uint8_t>(rgb >> 16), static_cast<std::uint8_t>(rgb >> 8 & 255), static_cast<std::uint8_t>(rgb & 255), 255};
}

/** Of RRGGBB, as the contract's reader lets pass. */
Colour Parse(const std::string& text)
{
  return FromNumber(static_cast<std::uint32_t>(std::stoul(text, nullptr, 16)));
}

/** A share of the first, the rest of the second. */
Colour Mix(const Colour& a, const Colour& b, double share)
{
  const auto mix = [share](std::uint8_t x, std::uint8_t y) { return static_cast<std::uint8_t>(std::lround(share * x + (1. - share) * y)); };
  return {mix(a.red, b.red), mix(a.green, b.green), mix(a.blue, b.blue), 255};
}

/** hue 0..1 */
Colour FromHsv(double hue, double saturation, double value)
{
  const auto part = [&](double n)
  {
    const double k = std::fmod(n + 6. * hue, 6.);
    return static_cast<std::uint8_t>(std::lround(255. * value * (1. - saturation * std::clamp(std::min(k, 4. - k), 0., 1.))));
  };
  return {part(5.), part(3.), part(1.), 255};
}

/** Okabe and Ito, "Color Universal Design", 2008, without black. Beyond: hues a golden angle apart, in turn pale and dark. */
Colour DefaultColour(std::size_t k)
{
  constexpr std::array<std::uint32_t, 7> okabeIto{{0xE69F00, 0x56B4E9, 0x009E73, 0xF0E442, 0x0072B2, 0xD55E00, 0xCC79A7}};
  if (k < okabeIto.size())
  {
    return FromNumber(okabeIto[k]);
  }
  const double turns = .1 + .6180339887498949 * static_cast<double>(k - okabeIto.size());
  return FromHsv(turns - std::floor(turns), k % 2 ? .5 : .85, k % 2 ? .9 : .6);
}

/** Colours of classes: those given, and for the others defaults that no class has. */
std::vector<Colour> ColoursOf(const std::vector<ModelClass>& classes)
{
  std::set<std::string> taken;
  for (const auto& c : classes)
  {
    if (!c.colour.empty())
    {
      taken.insert(Parse(c.colour).Hex());
    }
  }
  std::vector<Colour> colours;
  std::size_t next = 0;
  for (const auto& c : classes)
  {
    Colour colour;
    if (!c.colour.empty())
    {
      colour = Parse(c.colour);
    }
    else
    {
      do
      {
        colour = DefaultColour(next++);
      } while (taken.count(colour.Hex()) && next < 4096);
    }
    colours.push_back(colour);
  }
  return colours;
}

std::string NameOf(const ModelClass& c)
{
  return c.name.empty() ? "class " + std::to_string(c.value) : c.name;
}

const Legend::Entry noChange{0., "no change", {240, 240, 240, 0}};

} // namespace

std::string Colour::Hex() const
{
  char text[8];
  std::snprintf(text, sizeof(text), "#%02x%02x%02x", red, green, blue);
  return text;
}

Legend BinaryLegend(const std::vector<ModelClass>& classes)
{
  Legend legend;
  legend.kind = Legend::Kind::Classes;
  legend.entries = {noChange, {1., "change", FromNumber(0xD55E00)}};
  for (const auto& c : classes)
  {
    if (c.value == 0 || c.value == 1)
    {
      auto& entry = legend.entries[static_cast<std::size_t>(c.value)];
      entry.label = c.name.empty() ? entry.label : c.name;
      entry.colour = c.value == 0 || c.colour.empty() ? entry.colour : Parse(c.colour);
    }
  }
  return legend;
}

Legend ClassLegend(const std::vector<ModelClass>& classes)
{
  Legend legend;
  legend.kind = classes.empty() ? Legend::Kind::None : Legend::Kind::Classes;
  const auto colours = ColoursOf(classes);
  std::set<int> seen;
  for (std::size_t k = 0; k < classes.size(); ++k)
  {
    if (seen.insert(classes[k].value).second)
    {
      legend.entries.push_back({static_cast<double>(classes[k].value), NameOf(classes[k]), colours[k]});
    }
  }
  std::sort(legend.entries.begin(), legend.entries.end(), [](const auto& a, const auto& b) { return a.value < b.value; });
  return legend;
}

Legend FromToLegend(const std::vector<ModelClass>& before, const std::vector<ModelClass>& after, bool within)
{
  if (before.size() != after.size())
  {
    throw Error("legend: " + std::to_string(before.size()) + " classes before and " + std::to_string(after.size()) + " after");
  }
  const auto from = ColoursOf(before), to = ColoursOf(after);
  const Colour white = FromNumber(0xFFFFFF);
  Legend legend;
  legend.kind = Legend::Kind::Classes;
  legend.entries = {noChange};
  const std::size_t K = before.size();
  for (std::size_t i = 0; i < K; ++i)
  {
    for (std::size_t j = 0; j < K; ++j)
    {
      if (i != j || within)
      {
        // Within a class both colours are one, which stands for the class itself on other maps.
        const Colour colour = i == j ? Mix(to[j], white, .6) : Mix(to[j], from[i], .75);
        legend.entries.push_back({static_cast<double>(1 + i * K + j), NameOf(before[i]) + " -> " + NameOf(after[j]), colour});
      }
    }
  }
  return legend;
}

Legend RampLegend(double low, double high, RampColours colours)
{
  if (!std::isfinite(low) || !std::isfinite(high) || !(low < high))
  {
    throw Error("legend: a ramp from " + std::to_string(low) + " to " + std::to_string(high));
  }
  // matplotlib's colour maps at 0, 1/8 .. 1.
  constexpr std::array<std::uint32_t, 9> inferno{{0x000004, 0x210C4A, 0x57106E, 0x8A226A, 0xBC3754, 0xE45A31, 0xF98E09, 0xF9CB35, 0xFCFFA4}};
  constexpr std::array<std::uint32_t, 9> viridis{{0x440154, 0x472D7B, 0x3B528B, 0x2C728E, 0x21918C, 0x28AE80, 0x5EC962, 0xADDC30, 0xFDE725}};
  const auto& stops = colours == RampColours::Inferno ? inferno : viridis;
  Legend legend;
  legend.kind = Legend::Kind::Ramp;
  for (std::size_t k = 0; k < stops.size(); ++k)
  {
    legend.entries.push_back({low + (high - low) * static_cast<double>(k) / (stops.size() - 1), "", FromNumber(stops[k])});
  }
  return legend;
}

Legend PValueLegend()
{
  const auto ramp = RampLegend(0., 4., RampColours::Inferno);
  Legend legend = ramp;
  legend.entries.clear();
  const char* names[] = {"p = 1", "p = 0.1", "p = 0.01", "p = 0.001", "p = 0.0001"};
  for (std::size_t k = 0; k < 5; ++k)
  {
    legend.entries.push_back({static_cast<double>(k), names[k], ramp.entries[2 * k].colour});
  }
  return legend;
}

} // namespace dl
} // namespace otb
