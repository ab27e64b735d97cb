/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// Legends in files: XML, colour tables, names, attribute tables, pixels that stay.
#include "otbDLError.h"
#include "otbDLLegendFiles.h"

#include <cpl_conv.h>
#include <cpl_error.h>
#include <cpl_minixml.h>
#include <cpl_string.h>
#include <gdal_priv.h>
#include <gdal_rat.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

namespace
{

using namespace otb::dl;
namespace fs = std::filesystem;
using testing::HasSubstr;

const std::vector<ModelClass> classes = {{0, "no data & <such>", "010203"}, {2, "f\xc3\xb4ret \"dense\"", "00ff00"}, {200, "b\x07uilt", "ff0000"}};

struct FreeNode
{
  void operator()(CPLXMLNode* node) const { CPLDestroyXMLNode(node); }
};
using Tree = std::unique_ptr<CPLXMLNode, FreeNode>;

Tree Parse(const std::string& xml)
{
  CPLErrorReset();
  Tree tree(CPLParseXMLString(xml.c_str()));
  EXPECT_EQ(CPLGetLastErrorType(), CE_None) << CPLGetLastErrorMsg() << '\n' << xml;
  return tree;
}

std::string Get(const Tree& tree, const std::string& path)
{
  return CPLGetXMLValue(tree.get(), path.c_str(), "(none)");
}

/** Children of that name below a path. */
std::vector<const CPLXMLNode*> Children(const Tree& tree, const std::string& path, const std::string& name)
{
  std::vector<const CPLXMLNode*> found;
  const auto* parent = CPLGetXMLNode(tree.get(), path.c_str());
  for (const auto* node = parent ? parent->psChild : nullptr; node; node = node->psNext)
  {
    if (node->eType == CXT_Element && name == node->pszValue)
    {
      found.push_back(node);
    }
  }
  return found;
}

std::string Attribute(const CPLXMLNode* node, const char* name)
{
  return CPLGetXMLValue(node, name, "(none)");
}

TEST(LegendStyle, OfClassesIsAPalette)
{
  const auto tree = Parse(RasterStyle(ClassLegend(classes)));
  const std::string renderer = "=qgis.pipe.rasterrenderer";
  EXPECT_EQ(Get(tree, renderer + ".type"), "paletted");
  EXPECT_EQ(Get(tree, renderer + ".band"), "1");
  const auto entries = Children(tree, renderer + ".colorPalette", "paletteEntry");
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(Attribute(entries[0], "value"), "0");
  EXPECT_EQ(Attribute(entries[0], "color"), "#010203");
  EXPECT_EQ(Attribute(entries[0], "label"), classes[0].name);
  EXPECT_EQ(Attribute(entries[1], "label"), classes[1].name);
  EXPECT_EQ(Attribute(entries[2], "value"), "200");
  EXPECT_EQ(Attribute(entries[2], "label"), "built"); // no XML holds a bell
}

TEST(LegendStyle, OfChangesHidesWhatDidNot)
{
  const auto tree = Parse(RasterStyle(BinaryLegend()));
  const auto entries = Children(tree, "=qgis.pipe.rasterrenderer.colorPalette", "paletteEntry");
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(Attribute(entries[0], "alpha"), "0");
  EXPECT_EQ(Attribute(entries[1], "alpha"), "255");
}

TEST(LegendStyle, OfARampIsPseudocolour)
{
  auto legend = RampLegend(2015.25, 2019.75, RampColours::Viridis);
  legend.band = 2;
  legend.unshown = {0.};
  const auto tree = Parse(RasterStyle(legend));
  const std::string renderer = "=qgis.pipe.rasterrenderer", shader = renderer + ".rastershader.colorrampshader";
  EXPECT_EQ(Get(tree, renderer + ".type"), "singlebandpseudocolor");
  EXPECT_EQ(Get(tree, renderer + ".band"), "2");
  EXPECT_EQ(Get(tree, renderer + ".classificationMin"), "2015.25");
  EXPECT_EQ(Get(tree, renderer + ".classificationMax"), "2019.75");
  EXPECT_EQ(Get(tree, renderer + ".rasterTransparency.singleValuePixelList.pixelListEntry.percentTransparent"), "100");
  EXPECT_EQ(Get(tree, shader + ".colorRampType"), "INTERPOLATED");
  const auto items = Children(tree, shader, "item");
  ASSERT_EQ(items.size(), 9u);
  EXPECT_EQ(Attribute(items[4], "value"), "2017.5");
  EXPECT_EQ(Attribute(items[8], "color"), "#fde725");
  EXPECT_EQ(Get(tree, shader + ".rampLegendSettings.useContinuousLegend"), "1");
}

TEST(LegendStyle, NamedStopsAreListed)
{
  const auto tree = Parse(RasterStyle(PValueLegend()));
  const std::string shader = "=qgis.pipe.rasterrenderer.rastershader.colorrampshader";
  EXPECT_EQ(Attribute(Children(tree, shader, "item")[2], "label"), "p = 0.01");
  EXPECT_EQ(Get(tree, shader + ".rampLegendSettings.useContinuousLegend"), "0");
}

TEST(LegendStyle, OfPolygonsHasASymbolAClassThatIsSeen)
{
  const auto tree = Parse(PolygonStyle(FromToLegend(classes, classes, false), "code"));
  EXPECT_EQ(Get(tree, "=qgis.renderer-v2.type"), "categorizedSymbol");
  EXPECT_EQ(Get(tree, "=qgis.renderer-v2.attr"), "code");
  const auto categories = Children(tree, "=qgis.renderer-v2.categories", "category");
  const auto symbols = Children(tree, "=qgis.renderer-v2.symbols", "symbol");
  ASSERT_EQ(categories.size(), 6u);
  ASSERT_EQ(symbols.size(), 6u);
  for (std::size_t k = 0; k < 6; ++k)
  {
    EXPECT_EQ(Attribute(categories[k], "symbol"), Attribute(symbols[k], "name"));
  }
  EXPECT_EQ(Attribute(categories[0], "value"), "2");
  EXPECT_EQ(Attribute(categories[0], "label"), classes[0].name + " -> " + classes[1].name);
}

TEST(LegendStyle, OfPolygonsOfOneClassIsOneSymbol)
{
  const auto tree = Parse(PolygonStyle(BinaryLegend(), "code"));
  EXPECT_EQ(Get(tree, "=qgis.renderer-v2.type"), "singleSymbol");
  EXPECT_EQ(Children(tree, "=qgis.renderer-v2.symbols", "symbol").size(), 1u);
  EXPECT_THAT(PolygonStyle(BinaryLegend(), "code"), HasSubstr("213,94,0,255"));
}

TEST(LegendStyle, AMapWithoutLegendHasNone)
{
  EXPECT_THROW(RasterStyle({}), Error);
  EXPECT_THROW(PolygonStyle({}, "code"), Error);
  EXPECT_THROW(PolygonStyle(RampLegend(0., 1., RampColours::Inferno), "code"), Error);
}

class LegendFile : public testing::Test
{
protected:
  void SetUp() override
  {
    GDALAllRegister();
    m_Folder = fs::temp_directory_path() / ("legend-" + std::to_string(getpid()));
    fs::create_directories(m_Folder);
    m_Path = (m_Folder / "map.tif").string();
  }
  void TearDown() override { fs::remove_all(m_Folder); }

  /** 70 x 50 pixels that hold 0, 2, 200 and no-data. */
  void Make(GDALDataType type, const std::vector<std::string>& options = {}, int bands = 1)
  {
    CPLStringList list;
    for (const auto& o : options)
    {
      list.AddString(o.c_str());
    }
    auto* file = GetGDALDriverManager()->GetDriverByName("GTiff")->Create(m_Path.c_str(), 70, 50, bands, type, list.List());
    ASSERT_NE(file, nullptr);
    std::vector<int> pixels(70 * 50);
    const int values[] = {0, 2, 200, 255};
    for (std::size_t k = 0; k < pixels.size(); ++k)
    {
      pixels[k] = values[(k * k / 7) % 4];
    }
    for (int b = 1; b <= bands; ++b)
    {
      ASSERT_EQ(file->GetRasterBand(b)->RasterIO(GF_Write, 0, 0, 70, 50, pixels.data(), 70, 50, GDT_Int32, 0, 0, nullptr), CE_None);
      file->GetRasterBand(b)->SetNoDataValue(255.);
    }
    GDALClose(file);
    m_Pixels = pixels;
  }

  struct Found
  {
    std::vector<int> pixels;
    bool hasColours = false;
    std::vector<int> colour; ///< of value 200
    int interpretation = 0;
    double noData = 0.;
    std::vector<std::string> names;
    std::vector<std::string> table; ///< the row of value 200
  };
  Found Read()
  {
    Found f;
    auto* file = GDALDataset::Open(m_Path.c_str());
    if (!file)
    {
      ADD_FAILURE() << "cannot be read again";
      return f;
    }
    auto* band = file->GetRasterBand(1);
    f.pixels.resize(70 * 50);
    EXPECT_EQ(band->RasterIO(GF_Read, 0, 0, 70, 50, f.pixels.data(), 70, 50, GDT_Int32, 0, 0, nullptr), CE_None);
    if (const auto* colours = band->GetColorTable())
    {
      f.hasColours = true;
      const auto* e = colours->GetColorEntry(200);
      f.colour = {e->c1, e->c2, e->c3};
    }
    f.interpretation = band->GetColorInterpretation();
    f.noData = band->GetNoDataValue();
    for (char** names = band->GetCategoryNames(); names && *names; ++names)
    {
      f.names.emplace_back(*names);
    }
    if (const auto* rat = band->GetDefaultRAT())
    {
      const int row = rat->GetRowOfValue(200);
      for (int c = 0; row >= 0 && c < rat->GetColumnCount(); ++c)
      {
        f.table.emplace_back(rat->GetValueAsString(row, c));
      }
    }
    GDALClose(file);
    return f;
  }

  fs::path m_Folder;
  std::string m_Path;
  std::vector<int> m_Pixels;
};

const std::vector<std::string> row200 = {"200", "built", "255", "0", "0", "255"};

TEST_F(LegendFile, ATiffGetsColoursNamesAndTableAndKeepsItsPixels)
{
  for (const auto type : {GDT_Byte, GDT_UInt16})
  {
    for (const auto& options : std::vector<std::vector<std::string>>{
             {}, {"COMPRESS=DEFLATE", "TILED=YES", "BLOCKXSIZE=16", "BLOCKYSIZE=16"}, {"COMPRESS=LZW", "PREDICTOR=2"}, {"BIGTIFF=YES"}, {"COMPRESS=PACKBITS"}})
    {
      Make(type, options);
      WriteLegend(ClassLegend(classes), m_Path);
      const auto found = Read();
      EXPECT_EQ(found.pixels, m_Pixels);
      EXPECT_TRUE(found.hasColours);
      EXPECT_EQ(found.interpretation, GCI_PaletteIndex);
      EXPECT_EQ(found.colour, (std::vector<int>{255, 0, 0}));
      EXPECT_EQ(found.noData, 255.);
      ASSERT_EQ(found.names.size(), 201u);
      EXPECT_EQ(found.names[0], classes[0].name);
      EXPECT_EQ(found.names[1], "");
      EXPECT_EQ(found.names[2], classes[1].name);
      EXPECT_EQ(found.table, row200);
      fs::remove(m_Path + ".aux.xml");
    }
  }
}

TEST_F(LegendFile, TypesThatHoldNoColourTableGetNamesAndTable)
{
  for (const auto type : {GDT_Int16, GDT_Int32, GDT_Float32})
  {
    Make(type);
    WriteLegend(ClassLegend(classes), m_Path);
    const auto found = Read();
    EXPECT_EQ(found.pixels, m_Pixels);
    EXPECT_FALSE(found.hasColours);
    EXPECT_EQ(found.noData, 255.);
    EXPECT_EQ(found.names.size(), 201u);
    EXPECT_EQ(found.table, row200);
    fs::remove(m_Path + ".aux.xml");
  }
}

TEST_F(LegendFile, LargeOrNegativeValuesHaveATableWithoutAList)
{
  Make(GDT_Int32);
  WriteLegend(ClassLegend({{-5, "below", ""}, {200, "built", "ff0000"}, {100000, "above", ""}}), m_Path);
  const auto found = Read();
  EXPECT_TRUE(found.names.empty());
  EXPECT_EQ(found.table, row200);
}

TEST_F(LegendFile, APngGetsNamesAndTableBesideIt)
{
  Make(GDT_Byte);
  const std::string png = (m_Folder / "map.png").string();
  auto* source = GDALDataset::Open(m_Path.c_str());
  GDALClose(GetGDALDriverManager()->GetDriverByName("PNG")->CreateCopy(png.c_str(), source, FALSE, nullptr, nullptr, nullptr));
  GDALClose(source);
  m_Path = png;
  WriteLegend(ClassLegend(classes), m_Path);
  const auto found = Read();
  EXPECT_EQ(found.pixels, m_Pixels);
  EXPECT_EQ(found.noData, 255.);
  EXPECT_EQ(found.names.size(), 201u);
  EXPECT_EQ(found.table, row200);
}

TEST_F(LegendFile, WithoutSideFilesATiffStillHasItsColours)
{
  Make(GDT_Byte);
  CPLSetThreadLocalConfigOption("GDAL_PAM_ENABLED", "NO");
  EXPECT_NO_THROW(WriteLegend(ClassLegend(classes), m_Path));
  const auto found = Read();
  CPLSetThreadLocalConfigOption("GDAL_PAM_ENABLED", nullptr);
  EXPECT_EQ(found.pixels, m_Pixels);
  EXPECT_TRUE(found.hasColours);
  EXPECT_TRUE(found.names.empty());
  EXPECT_FALSE(fs::exists(m_Path + ".aux.xml"));
}

TEST_F(LegendFile, RampsAndImagesOfSeveralBandsAreLeftAlone)
{
  Make(GDT_Float32);
  const auto bytes = fs::file_size(m_Path);
  WriteLegend(RampLegend(0., 1., RampColours::Inferno), m_Path);
  EXPECT_EQ(fs::file_size(m_Path), bytes);
  Make(GDT_Byte, {}, 3);
  WriteLegend(ClassLegend(classes), m_Path);
  EXPECT_FALSE(Read().hasColours);
  EXPECT_FALSE(fs::exists(m_Path + ".aux.xml"));
}

} // namespace
