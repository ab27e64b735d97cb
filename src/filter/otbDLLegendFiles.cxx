/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLLegendFiles.h"

#include "otbDLError.h"
#include "otbDLGdal.h"

#include <cpl_error.h>
#include <cpl_minixml.h>
#include <cpl_string.h>
#include <gdal_priv.h>
#include <gdal_rat.h>

#include <algorithm>
#include <iterator>
#include <locale>
#include <memory>
#include <sstream>
#include <utility>
#include <vector>

namespace otb
{
namespace dl
{

namespace
{

// What QGIS 3.22 (Debian 12) writes itself; later ones read it, and so do earlier ones of version 3.
const char* const qgisVersion = "3.22.16";

using DatasetPointer = GdalDataset<GDALDataset>;

using Attributes = std::vector<std::pair<std::string, std::string>>;

/** Without the control characters that no XML may hold. */
std::string Printable(std::string text)
{
  text.erase(std::remove_if(text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }), text.end());
  return text;
}

/** A new element below another one, or at the top. Attributes come before what lies inside. */
CPLXMLNode* Element(CPLXMLNode* parent, const std::string& name, const Attributes& attributes = {})
{
  auto* node = CPLCreateXMLNode(parent, CXT_Element, name.c_str());
  for (const auto& [key, value] : attributes)
  {
    CPLAddXMLAttributeAndValue(node, key.c_str(), Printable(value).c_str());
  }
  return node;
}

/** XML text of a tree, which is destroyed. */
std::string Text(CPLXMLNode* root)
{
  char* text = CPLSerializeXMLTree(root);
  const std::string result = std::string("<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n") + (text ? text : "");
  CPLFree(text);
  CPLDestroyXMLNode(root);
  return result;
}

std::string Number(double value, int digits = 10)
{
  std::ostringstream text;
  text.imbue(std::locale::classic());
  text.precision(digits);
  text << value;
  return text.str();
}

/** "r,g,b,a" */
std::string Rgba(const Colour& c, int alpha)
{
  return std::to_string(c.red) + ',' + std::to_string(c.green) + ',' + std::to_string(c.blue) + ',' + std::to_string(alpha);
}

CPLXMLNode* Qgis()
{
  return Element(nullptr, "qgis", {{"version", qgisVersion}, {"styleCategories", "AllStyleCategories"}, {"hasScaleBasedVisibilityFlag", "0"}});
}

void AddPalette(CPLXMLNode* renderer, const Legend& legend)
{
  auto* palette = Element(renderer, "colorPalette");
  for (const auto& e : legend.entries)
  {
    Element(palette, "paletteEntry", {{"value", Number(e.value)}, {"color", e.colour.Hex()}, {"alpha", std::to_string(e.colour.alpha)}, {"label", e.label}});
  }
}

void AddRamp(CPLXMLNode* renderer, const Legend& legend)
{
  const std::string low = Number(legend.entries.front().value), high = Number(legend.entries.back().value);
  // A bar with numbers; stops that have names are listed one by one.
  const bool named = std::any_of(legend.entries.begin(), legend.entries.end(), [](const auto& e) { return !e.label.empty(); });
  auto* shader = Element(
      Element(renderer, "rastershader"), "colorrampshader",
      {{"colorRampType", "INTERPOLATED"}, {"classificationMode", "1"}, {"clip", "0"}, {"minimumValue", low}, {"maximumValue", high}, {"labelPrecision", "4"}});
  for (const auto& e : legend.entries)
  {
    Element(shader, "item",
            {{"value", Number(e.value)},
             {"color", e.colour.Hex()},
             {"alpha", std::to_string(e.colour.alpha)},
             {"label", e.label.empty() ? Number(e.value, 6) : e.label}});
  }
  Element(shader, "rampLegendSettings",
          {{"useContinuousLegend", named ? "0" : "1"},
           {"minimumLabel", ""},
           {"maximumLabel", ""},
           {"prefix", ""},
           {"suffix", ""},
           {"direction", "0"},
           {"orientation", "2"}});
}

void AddSymbol(CPLXMLNode* symbols, const std::string& name, const Colour& colour)
{
  auto* symbol = Element(symbols, "symbol", {{"type", "fill"}, {"name", name}, {"alpha", "1"}, {"clip_to_extent", "1"}, {"force_rhr", "0"}});
  auto* layer = Element(symbol, "layer", {{"class", "SimpleFill"}, {"enabled", "1"}, {"locked", "0"}, {"pass", "0"}});
  const Attributes properties = {{"color", Rgba(colour, 90)}, {"style", "solid"},       {"joinstyle", "miter"},      {"outline_color", Rgba(colour, 255)},
                                 {"outline_style", "solid"},  {"outline_width", "0.4"}, {"outline_width_unit", "MM"}};
  auto* options = Element(layer, "Option", {{"type", "Map"}});
  for (const auto& [key, value] : properties)
  {
    Element(options, "Option", {{"name", key}, {"type", "QString"}, {"value", value}});
  }
  // The same as QGIS before 3.20 reads it.
  for (const auto& [key, value] : properties)
  {
    Element(layer, "prop", {{"k", key}, {"v", value}});
  }
}

/** A table by value, the colours as columns: what GIS programs call a thematic raster attribute table. */
GDALDefaultRasterAttributeTable AttributeTable(const Legend& legend)
{
  GDALDefaultRasterAttributeTable table;
  table.SetTableType(GRTT_THEMATIC);
  table.CreateColumn("Value", GFT_Integer, GFU_MinMax);
  table.CreateColumn("Name", GFT_String, GFU_Name);
  table.CreateColumn("Red", GFT_Integer, GFU_Red);
  table.CreateColumn("Green", GFT_Integer, GFU_Green);
  table.CreateColumn("Blue", GFT_Integer, GFU_Blue);
  table.CreateColumn("Alpha", GFT_Integer, GFU_Alpha);
  for (std::size_t k = 0; k < legend.entries.size(); ++k)
  {
    const auto& e = legend.entries[k];
    const int row = static_cast<int>(k);
    table.SetValue(row, 0, static_cast<int>(e.value));
    table.SetValue(row, 1, Printable(e.label).c_str());
    table.SetValue(row, 2, e.colour.red);
    table.SetValue(row, 3, e.colour.green);
    table.SetValue(row, 4, e.colour.blue);
    table.SetValue(row, 5, e.colour.alpha);
  }
  return table;
}

} // namespace

std::string RasterStyle(const Legend& legend)
{
  if (legend.kind == Legend::Kind::None || legend.entries.empty())
  {
    throw Error("legend: the style of a map without one");
  }
  auto* root = Qgis();
  auto* pipe = Element(root, "pipe");
  const bool classes = legend.kind == Legend::Kind::Classes;
  Attributes attributes = {{"type", classes ? "paletted" : "singlebandpseudocolor"},
                           {"band", std::to_string(legend.band)},
                           {"opacity", "1"},
                           {"alphaBand", "-1"},
                           {"nodataColor", ""}};
  if (!classes)
  {
    attributes.emplace_back("classificationMin", Number(legend.entries.front().value));
    attributes.emplace_back("classificationMax", Number(legend.entries.back().value));
  }
  auto* renderer = Element(pipe, "rasterrenderer", attributes);
  auto* transparency = Element(renderer, "rasterTransparency");
  if (!legend.unshown.empty())
  {
    auto* list = Element(transparency, "singleValuePixelList");
    for (const double value : legend.unshown)
    {
      Element(list, "pixelListEntry", {{"min", Number(value)}, {"max", Number(value)}, {"percentTransparent", "100"}});
    }
  }
  if (classes)
  {
    AddPalette(renderer, legend);
  }
  else
  {
    AddRamp(renderer, legend);
  }
  Element(pipe, "brightnesscontrast", {{"brightness", "0"}, {"contrast", "0"}});
  Element(pipe, "huesaturation", {{"saturation", "0"}, {"grayscaleMode", "0"}, {"colorizeOn", "0"}});
  Element(pipe, "rasterresampler", {{"maxOversampling", "2"}});
  CPLCreateXMLElementAndValue(root, "blendMode", "0");
  return Text(root);
}

std::string PolygonStyle(const Legend& legend, const std::string& field)
{
  std::vector<Legend::Entry> seen;
  std::copy_if(legend.entries.begin(), legend.entries.end(), std::back_inserter(seen), [](const auto& e) { return e.colour.alpha > 0; });
  if (legend.kind != Legend::Kind::Classes || seen.empty())
  {
    throw Error("legend: the style of polygons without classes");
  }
  auto* root = Qgis();
  const bool single = seen.size() == 1;
  Attributes attributes = {{"type", single ? "singleSymbol" : "categorizedSymbol"}, {"symbollevels", "0"}, {"enableorderby", "0"}, {"forceraster", "0"}};
  if (!single)
  {
    attributes.emplace_back("attr", field);
  }
  auto* renderer = Element(root, "renderer-v2", attributes);
  if (!single)
  {
    auto* categories = Element(renderer, "categories");
    for (std::size_t k = 0; k < seen.size(); ++k)
    {
      Element(categories, "category", {{"symbol", std::to_string(k)}, {"value", Number(seen[k].value)}, {"label", seen[k].label}, {"render", "true"}});
    }
  }
  auto* symbols = Element(renderer, "symbols");
  for (std::size_t k = 0; k < seen.size(); ++k)
  {
    AddSymbol(symbols, std::to_string(k), seen[k].colour);
  }
  CPLCreateXMLElementAndValue(root, "blendMode", "0");
  CPLCreateXMLElementAndValue(root, "featureBlendMode", "0");
  CPLCreateXMLElementAndValue(root, "layerGeometryType", "2");
  return Text(root);
}

void WriteLegend(const Legend& legend, const std::string& path)
{
  if (legend.kind != Legend::Kind::Classes || legend.entries.empty())
  {
    return;
  }
  GDALAllRegister();
  const QuietGdal quiet;
  DatasetPointer dataset(GDALDataset::Open(path.c_str(), GDAL_OF_RASTER | GDAL_OF_UPDATE));
  if (!dataset)
  {
    // A format without updates: what is set then goes beside the file.
    dataset.reset(GDALDataset::Open(path.c_str(), GDAL_OF_RASTER | GDAL_OF_READONLY));
  }
  if (!dataset || dataset->GetRasterCount() != 1)
  {
    return;
  }
  auto* band = dataset->GetRasterBand(1);
  const bool tiff = EQUAL(dataset->GetDriverName(), "GTiff");
  const auto type = band->GetRasterDataType();
  if (dataset->GetAccess() == GA_Update && (type == GDT_Byte || type == GDT_UInt16))
  {
    GDALColorTable table;
    const double most = type == GDT_Byte ? 255. : 65535.;
    for (const auto& e : legend.entries)
    {
      if (e.value >= 0. && e.value <= most)
      {
        const GDALColorEntry entry = {e.colour.red, e.colour.green, e.colour.blue, 255};
        table.SetColorEntry(static_cast<int>(e.value), &entry);
      }
    }
    band->SetColorTable(&table);
  }
  const int last = static_cast<int>(legend.entries.back().value);
  if (legend.entries.front().value >= 0. && last < 4096)
  {
    std::vector<std::string> names(static_cast<std::size_t>(last) + 1);
    for (const auto& e : legend.entries)
    {
      names[static_cast<std::size_t>(e.value)] = Printable(e.label);
    }
    CPLStringList list;
    for (const auto& name : names)
    {
      list.AddString(name.c_str());
    }
    band->SetCategoryNames(list.List());
  }
  const auto attributes = AttributeTable(legend);
  band->SetDefaultRAT(&attributes);
  // What could not be set is left out; what was set is written now.
  CPLErrorReset();
  dataset.reset();
  if (tiff && CPLGetLastErrorType() >= CE_Failure)
  {
    throw Error(Complaint("legend", "that \"" + path + "\" could not be changed (" + CPLGetLastErrorMsg() + ")", "room on the disk",
                          "Free some space, or give -legend off."));
  }
}

} // namespace dl
} // namespace otb
