/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// Objects of change maps: maps that can be checked with a pencil, random ones against floods of pixels, layouts of files, areas, errors, memory.
#include "otbDLChangeObjects.h"
#include "otbDLError.h"

#include <cpl_error.h>
#include <gdal_alg.h>
#include <gdal_priv.h>
#include <ogrsf_frmts.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <set>
#include <sstream>
#include <sys/resource.h>
#include <unistd.h>

namespace
{

using namespace otb::dl;
namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using Rows = std::vector<std::string>;

constexpr int noData = 255;
constexpr double pi = 3.14159265358979323846;

struct Map
{
  int width = 0;
  int height = 0;
  std::vector<double> values;

  Map() = default;
  Map(int w, int h) : width(w), height(h), values(static_cast<std::size_t>(w) * h, 0.) {}
  /** '.': 0, '?': no-data, digits */
  explicit Map(const Rows& rows) : Map(static_cast<int>(rows[0].size()), static_cast<int>(rows.size()))
  {
    for (int y = 0; y < height; ++y)
    {
      for (int x = 0; x < width; ++x)
      {
        At(x, y) = rows[y][x] == '.' ? 0 : rows[y][x] == '?' ? noData : rows[y][x] - '0';
      }
    }
  }
  double& At(int x, int y) { return values[static_cast<std::size_t>(y) * width + x]; }
  double At(int x, int y) const { return values[static_cast<std::size_t>(y) * width + x]; }
  bool Holds(int x, int y) const { return x >= 0 && y >= 0 && x < width && y < height; }
};

struct Format
{
  GDALDataType type = GDT_Byte;
  std::vector<std::string> options;
  std::vector<double> transform{500000., 10., 0., 4600000., 0., -10.};
  int epsg = 32631;
  double noDataValue = noData;
};

struct Dataset
{
  GDALDataset* d;
  explicit Dataset(void* dataset) : d(static_cast<GDALDataset*>(dataset)) {}
  ~Dataset()
  {
    if (d)
    {
      GDALClose(d);
    }
  }
  Dataset(const Dataset&) = delete;
  Dataset& operator=(const Dataset&) = delete;
  GDALDataset* operator->() const { return d; }
};

OGRSpatialReference Reference(int epsg)
{
  OGRSpatialReference reference;
  reference.importFromEPSG(epsg);
  reference.SetAxisMappingStrategy(OAMS_TRADITIONAL_GIS_ORDER);
  return reference;
}

void WriteMap(const std::string& path, const Map& map, const Format& format = {})
{
  GDALAllRegister();
  char** options = nullptr;
  for (const auto& o : format.options)
  {
    options = CSLAddString(options, o.c_str());
  }
  const Dataset file(GetGDALDriverManager()->GetDriverByName("GTiff")->Create(path.c_str(), map.width, map.height, 1, format.type, options));
  CSLDestroy(options);
  if (!format.transform.empty())
  {
    auto transform = format.transform;
    file->SetGeoTransform(transform.data());
  }
  if (format.epsg)
  {
    const auto reference = Reference(format.epsg);
    file->SetSpatialRef(&reference);
  }
  file->GetRasterBand(1)->SetNoDataValue(format.noDataValue);
  auto values = map.values;
  ASSERT_EQ(file->GetRasterBand(1)->RasterIO(GF_Write, 0, 0, map.width, map.height, values.data(), map.width, map.height, GDT_Float64, 0, 0, nullptr), CE_None);
}

struct Object
{
  std::int64_t id = 0, pixels = 0;
  int code = 0;
  double area = NAN, perimeter = NAN, mean = NAN, max = NAN, compactness = NAN;
  std::string all; ///< all fields and the bytes of the geometry
  std::shared_ptr<OGRGeometry> geometry;
};

class ChangeObjects : public testing::Test
{
protected:
  fs::path folder;
  ObjectSettings settings;
  ObjectReport report;
  std::string fields;
  OGRwkbGeometryType type = wkbUnknown;
  std::string projection;

  void SetUp() override
  {
    folder = fs::temp_directory_path() / ("otbdl-objects-" + std::to_string(getpid()) + testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::create_directories(folder);
  }
  void TearDown() override { fs::remove_all(folder); }

  std::string Path(const std::string& name) const { return (folder / name).string(); }

  std::vector<Object> Read(const std::string& path)
  {
    std::vector<Object> objects;
    const Dataset file(GDALDataset::Open(path.c_str(), GDAL_OF_VECTOR));
    EXPECT_TRUE(file.d != nullptr);
    EXPECT_EQ(file->GetLayerCount(), 1);
    auto* layer = file->GetLayer(0);
    EXPECT_STREQ(layer->GetName(), "changes");
    type = layer->GetGeomType();
    projection = layer->GetSpatialRef() ? layer->GetSpatialRef()->GetName() : "";
    fields.clear();
    const auto* definition = layer->GetLayerDefn();
    for (int k = 0; k < definition->GetFieldCount(); ++k)
    {
      fields += (k ? " " : "") + std::string(definition->GetFieldDefn(k)->GetNameRef());
    }
    for (const auto& feature : *layer)
    {
      Object o;
      const auto real = [&](const std::string& name)
      {
        const int k = feature->GetFieldIndex(name.c_str());
        return k < 0 || feature->IsFieldNull(k) ? NAN : feature->GetFieldAsDouble(k);
      };
      o.id = feature->GetFieldAsInteger64("id");
      EXPECT_EQ(o.id, feature->GetFID());
      o.code = feature->GetFieldAsInteger("code");
      o.pixels = feature->GetFieldAsInteger64("area_px");
      o.area = real("area_m2");
      o.perimeter = real("perimeter");
      o.mean = real("mean_proba");
      o.max = real("max_proba");
      o.compactness = real("compactness");
      o.geometry.reset(feature->GetGeometryRef()->clone());
      for (int k = 0; k < definition->GetFieldCount(); ++k)
      {
        const double value = feature->GetFieldAsDouble(k);
        o.all += feature->GetFieldAsString(k) + std::string(reinterpret_cast<const char*>(&value), sizeof(value)) + '|';
      }
      std::vector<unsigned char> bytes(o.geometry->WkbSize());
      EXPECT_EQ(o.geometry->exportToWkb(wkbNDR, bytes.data()), OGRERR_NONE);
      o.all.append(bytes.begin(), bytes.end());
      objects.push_back(o);
    }
    return objects;
  }

  std::vector<Object> Run(const Map& map, const Format& format = {})
  {
    WriteMap(Path("map.tif"), map, format);
    report = WriteChangeObjects(Path("map.tif"), "", "", 0, Path("objects.gpkg"), settings, {});
    EXPECT_THAT(Files(), ElementsAre("map.tif", "objects.gpkg"));
    auto objects = Read(Path("objects.gpkg"));
    EXPECT_EQ(report.objects, static_cast<std::int64_t>(objects.size()));
    return objects;
  }
  std::vector<Object> Run(const Rows& rows) { return Run(Map(rows)); }

  std::vector<std::string> Files() const
  {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder))
    {
      names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  template <typename TCall>
  std::string Refusal(TCall call)
  {
    try
    {
      call();
      ADD_FAILURE() << "no error";
    }
    catch (const Error& e)
    {
      return e.what();
    }
    return "";
  }
};

/** In pixels from the upper left corner of the map that WriteMap() writes. */
std::string Wkt(const Object& o)
{
  std::unique_ptr<OGRGeometry> g(o.geometry->clone());
  struct ToPixels : OGRDefaultGeometryVisitor
  {
    void visit(OGRPoint* p) override
    {
      p->setX((p->getX() - 500000.) / 10.);
      p->setY((4600000. - p->getY()) / 10.);
    }
  } toPixels;
  g->accept(&toPixels);
  return g->exportToWkt();
}

double AreaOf(const OGRGeometry& g)
{
  return g.getGeometryType() == wkbPolygon ? g.toPolygon()->get_Area() : g.toMultiPolygon()->get_Area();
}

TEST_F(ChangeObjects, AnL)
{
  const auto o = Run({
      "......",
      ".1....",
      ".1....",
      ".111..",
      "......",
  });
  ASSERT_EQ(o.size(), 1u);
  EXPECT_EQ(o[0].id, 1);
  EXPECT_EQ(o[0].code, 1);
  EXPECT_EQ(o[0].pixels, 5);
  EXPECT_DOUBLE_EQ(o[0].area, 500.);
  EXPECT_DOUBLE_EQ(o[0].perimeter, 120.);
  EXPECT_DOUBLE_EQ(o[0].compactness, 4. * pi * 5. / 144.);
  EXPECT_EQ(Wkt(o[0]), "POLYGON ((1 1,1 4,4 4,4 3,2 3,2 1,1 1))");
  EXPECT_FALSE(o[0].geometry->toPolygon()->getExteriorRing()->isClockwise());
  EXPECT_EQ(type, wkbPolygon);
  EXPECT_EQ(projection, "WGS 84 / UTM zone 31N");
  EXPECT_EQ(fields, "id code area_px area_m2 perimeter compactness");
}

TEST_F(ChangeObjects, AHoleIsARingAndCountsInThePerimeter)
{
  const Rows rows{
      "1111.",
      "1..1.",
      "1111.",
  };
  auto o = Run(rows);
  ASSERT_EQ(o.size(), 1u);
  EXPECT_EQ(o[0].pixels, 10);
  EXPECT_DOUBLE_EQ(o[0].perimeter, 200.);
  EXPECT_EQ(Wkt(o[0]), "POLYGON ((0 0,0 3,4 3,4 0,0 0),(1 1,3 1,3 2,1 2,1 1))");
  settings.fill = 1.;
  o = Run(rows);
  EXPECT_EQ(report.holesFilled, 0);
  EXPECT_EQ(o[0].pixels, 10);
  settings.fill = 2.;
  o = Run(rows);
  EXPECT_EQ(report.holesFilled, 1);
  EXPECT_EQ(o[0].pixels, 12);
  EXPECT_DOUBLE_EQ(o[0].perimeter, 140.);
  EXPECT_EQ(Wkt(o[0]), "POLYGON ((0 0,0 3,4 3,4 0,0 0))");
  // Square metres: 200 of them here.
  settings.minimumInPixels = false;
  settings.fill = 199.;
  EXPECT_EQ(Run(rows)[0].pixels, 10);
  settings.fill = 200.;
  EXPECT_EQ(Run(rows)[0].pixels, 12);
}

TEST_F(ChangeObjects, WhatIsNoHole)
{
  settings.fill = 100.;
  // Open to the border, to no-data, at a corner; with an island; between two codes.
  for (const auto& rows : {Rows{"111.", "1.11", "1.11", "1.11"}, Rows{".....", ".111.", ".1?1.", ".1.1.", ".111."}, Rows{"....", ".11.", "11.1", "1111"},
                           Rows{"11111", "1...1", "1.1.1", "1...1", "11111"}, Rows{"11111", "1...1", "1.2.1", "1...1", "11111"},
                           Rows{"1111", "1.22", "1.22", "1111"}, Rows{"2111", "1..1", "1111"}})
  {
    Run(rows);
    EXPECT_EQ(report.holesFilled, 0) << testing::PrintToString(rows);
  }
  // With objects connected at corners, the background is not: here a hole touches the outside at a corner.
  settings.eightConnected = true;
  const auto o = Run({".11.", "1.1.", "111.", "...."});
  EXPECT_EQ(report.holesFilled, 1);
  ASSERT_EQ(o.size(), 1u);
  EXPECT_EQ(o[0].pixels, 8);
}

TEST_F(ChangeObjects, TouchingAtACorner)
{
  const Rows rows{
      "11...", "11...", "..11.", ".....", "1....",
  };
  auto o = Run(rows);
  ASSERT_EQ(o.size(), 3u);
  EXPECT_EQ(Wkt(o[1]), "POLYGON ((2 2,2 3,4 3,4 2,2 2))");
  settings.eightConnected = true;
  o = Run(rows);
  ASSERT_EQ(o.size(), 2u);
  EXPECT_EQ(type, wkbMultiPolygon);
  EXPECT_EQ(Wkt(o[0]), "MULTIPOLYGON (((0 0,0 2,2 2,2 0,0 0)),((2 2,2 3,4 3,4 2,2 2)))");
  EXPECT_EQ(Wkt(o[1]), "MULTIPOLYGON (((0 4,0 5,1 5,1 4,0 4)))");
  EXPECT_EQ(o[0].pixels, 6);
  EXPECT_DOUBLE_EQ(o[0].perimeter, 140.);
}

TEST_F(ChangeObjects, CodesPartObjects)
{
  const auto o = Run({
      ".3311",
      ".3721",
      "11.21",
  });
  ASSERT_EQ(o.size(), 5u);
  std::vector<int> codes;
  std::vector<std::int64_t> pixels;
  for (const auto& object : o)
  {
    codes.push_back(object.code);
    pixels.push_back(object.pixels);
  }
  EXPECT_THAT(codes, ElementsAre(3, 1, 7, 2, 1));
  EXPECT_THAT(pixels, ElementsAre(3, 4, 1, 2, 2));
}

TEST_F(ChangeObjects, SmallOnesGo)
{
  const Rows rows{
      "11.22",
      "....2",
      "3....",
  };
  settings.minimumArea = 2.;
  EXPECT_EQ(Run(rows).size(), 2u);
  EXPECT_EQ(report.tooSmall, 1);
  settings.minimumArea = 3.;
  const auto o = Run(rows);
  ASSERT_EQ(o.size(), 1u);
  EXPECT_EQ(o[0].id, 1);
  EXPECT_EQ(o[0].code, 2);
  settings.minimumInPixels = false;
  settings.minimumArea = 201.;
  EXPECT_EQ(Run(rows).size(), 1u);
  EXPECT_EQ(report.tooSmall, 2);
  // Holes are filled before objects are weighed.
  settings.fill = 100.;
  settings.minimumArea = 900.;
  EXPECT_EQ(Run({"111.", "1.1.", "111."}).size(), 1u);
}

TEST_F(ChangeObjects, OpeningTakesWhatADiskDoesNotFit)
{
  settings.opening = 1;
  const auto o = Run({
      ".........",
      "..1....2.",
      ".111..222",
      "..1111.2.",
      ".........",
      "1111.....",
      "1111.3333",
  });
  ASSERT_EQ(o.size(), 3u);
  EXPECT_EQ(Wkt(o[0]), "POLYGON ((2 1,2 2,1 2,1 3,2 3,2 4,3 4,3 3,4 3,4 2,3 2,3 1,2 1))");
  EXPECT_EQ(o[1].code, 2);
  EXPECT_EQ(o[1].pixels, 5);
  // The border of the image takes nothing: a disk there is cut off.
  EXPECT_EQ(o[2].pixels, 7);
}

TEST_F(ChangeObjects, FromAndTo)
{
  WriteMap(Path("map.tif"), Map(Rows{"12.", "..9"}));
  settings.classes = {{10, "water"}, {20, "field"}, {30, "town"}};
  settings.attributes = {{"date1", "2018-03-01"}, {"date2", "2023-03-01"}, {"model", "a 'model'"}};
  WriteChangeObjects(Path("map.tif"), "", "", 3, Path("objects.gpkg"), settings, {});
  Read(Path("objects.gpkg"));
  EXPECT_EQ(fields, "id code from to from_id to_id area_px area_m2 perimeter compactness date1 date2 model");
  {
    const Dataset file(GDALDataset::Open(Path("objects.gpkg").c_str(), GDAL_OF_VECTOR));
    std::string text;
    for (const auto& f : *file->GetLayer(0))
    {
      for (const char* name : {"code", "from", "to", "from_id", "to_id", "date2", "model"})
      {
        text += f->GetFieldAsString(name) + std::string(" ");
      }
    }
    EXPECT_EQ(text, "1 water water 10 10 2023-03-01 a 'model' 2 water field 10 20 2023-03-01 a 'model' 9 town town 30 30 2023-03-01 a 'model' ");
  }
  const auto run = [&](int classes) { WriteChangeObjects(Path("map.tif"), "", "", classes, Path("objects.gpkg"), settings, {}); };
  EXPECT_THAT(Refusal([&] { run(4); }), HasSubstr("3 names of classes"));
  settings.classes.clear();
  EXPECT_THAT(Refusal([&] { run(2); }), AllOf(HasSubstr("the code 9"), HasSubstr("K = 2")));
  run(3);
  settings.attributes["Code"] = "taken";
  EXPECT_THAT(Refusal([&] { run(3); }), HasSubstr("name \"Code\""));
  EXPECT_THAT(Files(), ElementsAre("map.tif", "objects.gpkg"));
}

TEST_F(ChangeObjects, AStyleOfTheCodesThatAreThere)
{
  settings.legend = FromToLegend({{0, "a & b", ""}, {1, "c", ""}}, {{0, "a & b", ""}, {1, "c", ""}}, true);
  const auto style = [&](const Rows& rows)
  {
    WriteMap(Path("map.tif"), Map(rows));
    WriteChangeObjects(Path("map.tif"), "", "", 2, Path("objects.gpkg"), settings, {});
    const Dataset file(GDALDataset::Open(Path("objects.gpkg").c_str(), GDAL_OF_VECTOR));
    EXPECT_EQ(file->GetLayerCount(), 2);
    EXPECT_STREQ(file->GetLayer(0)->GetName(), "changes");
    auto* layer = file->GetLayerByName("layer_styles");
    EXPECT_EQ(layer->GetFeatureCount(), 1);
    const std::unique_ptr<OGRFeature> feature(layer->GetNextFeature());
    EXPECT_STREQ(feature->GetFieldAsString("f_table_name"), "changes");
    return std::string(feature->GetFieldAsString("styleQML"));
  };
  const auto two = style({"22...", "...33", "....."});
  EXPECT_THAT(two, AllOf(HasSubstr("a &amp; b -&gt; c"), HasSubstr("c -&gt; a &amp; b")));
  EXPECT_THAT(two, testing::Not(HasSubstr("c -&gt; c")));
  // No object: the legend is that of the map.
  EXPECT_THAT(style({".....", "....."}), HasSubstr("c -&gt; c"));
}

TEST_F(ChangeObjects, AShapefileHoldsTheSameObjectsAndTheirStyle)
{
  settings.legend = FromToLegend({{0, "a", ""}, {1, "c", ""}}, {{0, "a", ""}, {1, "c", ""}}, true);
  settings.classes = {{0, "\u00e9tang"}, {1, "c"}};
  WriteMap(Path("map.tif"), Map(Rows{"22..3", "2.233", "22..."}));
  for (const char* name : {"objects.qix", "objects.prj", "objects.shp"})
  {
    std::ofstream(Path(name)) << "older";
  }
  for (const char* name : {"objects.gpkg", "objects.shp"})
  {
    WriteChangeObjects(Path("map.tif"), "", "", 2, Path(name), settings, {});
  }
  EXPECT_THAT(Files(), testing::UnorderedElementsAre("map.tif", "objects.gpkg", "objects.cpg", "objects.dbf", "objects.prj", "objects.qml", "objects.shp",
                                                     "objects.shx"));
  const Dataset package(GDALDataset::Open(Path("objects.gpkg").c_str(), GDAL_OF_VECTOR)), file(GDALDataset::Open(Path("objects.shp").c_str(), GDAL_OF_VECTOR));
  auto *wanted = package->GetLayerByName("changes"), *found = file->GetLayer(0);
  ASSERT_EQ(found->GetFeatureCount(), wanted->GetFeatureCount());
  EXPECT_GT(found->GetFeatureCount(), 1);
  for (const auto& w : *wanted)
  {
    const std::unique_ptr<OGRFeature> f(found->GetNextFeature());
    for (const char* field : {"id", "code", "from", "to", "area_px"})
    {
      EXPECT_STREQ(f->GetFieldAsString(field), w->GetFieldAsString(field)) << field;
    }
    EXPECT_EQ(f->GetFieldAsDouble("area_m2"), w->GetFieldAsDouble("area_m2"));
    // Rings turn the other way in a Shapefile.
    const std::unique_ptr<OGRGeometry> between(f->GetGeometryRef()->SymDifference(w->GetGeometryRef()));
    EXPECT_TRUE(between && between->IsEmpty());
  }
  EXPECT_TRUE(found->GetSpatialRef()->IsSame(wanted->GetSpatialRef()));
  std::ifstream style(Path("objects.qml"));
  EXPECT_THAT(std::string(std::istreambuf_iterator<char>(style), {}), AllOf(HasSubstr("a -&gt; c"), HasSubstr("c -&gt; a")));
}

TEST_F(ChangeObjects, MeanAndMaximumOfTheScore)
{
  WriteMap(Path("map.tif"), Map(Rows{"11..", "1.1.", "1112", "3..."}));
  Map score(4, 4);
  for (int k = 0; k < 16; ++k)
  {
    score.values[k] = k / 16.;
  }
  score.At(1, 0) = -1.;
  score.At(3, 2) = NAN;
  Format format;
  format.type = GDT_Float32;
  format.noDataValue = -1.;
  WriteMap(Path("score.tif"), score, format);
  WriteChangeObjects(Path("map.tif"), Path("score.tif"), "proba", 0, Path("objects.gpkg"), settings, {});
  auto o = Read(Path("objects.gpkg"));
  EXPECT_EQ(fields, "id code area_px area_m2 perimeter mean_proba max_proba compactness");
  ASSERT_EQ(o.size(), 3u);
  EXPECT_DOUBLE_EQ(o[0].mean, (0. + 4. + 6. + 8. + 9. + 10.) / 6. / 16.);
  EXPECT_DOUBLE_EQ(o[0].max, 10. / 16.);
  EXPECT_TRUE(std::isnan(o[1].mean));
  EXPECT_TRUE(std::isnan(o[1].max));
  EXPECT_DOUBLE_EQ(o[2].mean, 12. / 16.);
  // Filled pixels count.
  settings.fill = 1.;
  settings.eightConnected = true;
  WriteChangeObjects(Path("map.tif"), Path("score.tif"), "proba", 0, Path("objects.gpkg"), settings, {});
  o = Read(Path("objects.gpkg"));
  EXPECT_DOUBLE_EQ(o[0].mean, (0. + 4. + 5. + 6. + 8. + 9. + 10.) / 7. / 16.);
}

/** What the objects of a map should be, pixel by pixel. */
struct Expected
{
  std::vector<int> ids;
  std::vector<Object> objects;
  std::int64_t tooSmall = 0, holes = 0;
};

std::vector<int> Flood(const std::vector<double>& values, int w, int h, bool eight, std::vector<std::vector<int>>* sets)
{
  std::vector<int> labels(values.size(), -1);
  for (int start = 0; start < w * h; ++start)
  {
    if (labels[start] >= 0)
    {
      continue;
    }
    const int label = static_cast<int>(sets->size());
    sets->push_back({start});
    labels[start] = label;
    for (std::size_t k = 0; k < sets->back().size(); ++k)
    {
      const int at = sets->back()[k], x = at % w, y = at / w;
      for (int dy = -1; dy <= 1; ++dy)
      {
        for (int dx = -1; dx <= 1; ++dx)
        {
          const int to = at + dy * w + dx;
          if (x + dx >= 0 && x + dx < w && y + dy >= 0 && y + dy < h && (eight || dx * dy == 0) && labels[to] < 0 && values[to] == values[start])
          {
            labels[to] = label;
            sets->back().push_back(to);
          }
        }
      }
    }
  }
  return labels;
}

Expected Brute(const Map& map, const ObjectSettings& s)
{
  const int w = map.width, h = map.height;
  Map m = map;
  if (s.opening > 0)
  {
    std::vector<bool> kept(m.values.size(), false);
    const int r = s.opening;
    const auto disk = [&](int x, int y, auto f)
    {
      for (int dy = -r; dy <= r; ++dy)
      {
        for (int dx = -r; dx <= r; ++dx)
        {
          if (dx * dx + dy * dy <= r * r && map.Holds(x + dx, y + dy))
          {
            f(x + dx, y + dy);
          }
        }
      }
    };
    for (int y = 0; y < h; ++y)
    {
      for (int x = 0; x < w; ++x)
      {
        bool fits = true;
        disk(x, y, [&](int a, int b) { fits = fits && map.At(a, b) == map.At(x, y); });
        if (fits)
        {
          disk(x, y, [&](int a, int b) { kept[b * w + a] = true; });
        }
      }
    }
    for (std::size_t k = 0; k < kept.size(); ++k)
    {
      m.values[k] = kept[k] || m.values[k] == noData ? m.values[k] : 0.;
    }
  }
  Expected e;
  if (s.fill > 0.)
  {
    std::vector<std::vector<int>> objects, holes;
    const auto label = Flood(m.values, w, h, s.eightConnected, &objects);
    Flood(m.values, w, h, !s.eightConnected, &holes);
    auto filled = m.values;
    for (const auto& hole : holes)
    {
      std::set<int> around;
      bool open = m.values[hole[0]] != 0. || static_cast<double>(hole.size()) > s.fill;
      for (const int at : hole)
      {
        for (int dy = -1; dy <= 1; ++dy)
        {
          for (int dx = -1; dx <= 1; ++dx)
          {
            const int x = at % w + dx, y = at / w + dy;
            if (!map.Holds(x, y))
            {
              open = true;
            }
            else if ((!s.eightConnected || dx * dy == 0) && m.At(x, y) != 0.)
            {
              around.insert(label[y * w + x]);
              open = open || m.At(x, y) == noData;
            }
          }
        }
      }
      if (!open && around.size() == 1)
      {
        ++e.holes;
        for (const int at : hole)
        {
          filled[at] = m.values[objects[*around.begin()][0]];
        }
      }
    }
    m.values = filled;
  }
  std::vector<std::vector<int>> sets;
  Flood(m.values, w, h, s.eightConnected, &sets);
  e.ids.assign(m.values.size(), 0);
  for (const auto& set : sets)
  {
    const double code = m.values[set[0]];
    if (code == 0. || code == noData)
    {
      continue;
    }
    if (static_cast<double>(set.size()) < s.minimumArea)
    {
      ++e.tooSmall;
      continue;
    }
    Object o;
    o.id = static_cast<std::int64_t>(e.objects.size()) + 1;
    o.code = static_cast<int>(code);
    o.pixels = static_cast<std::int64_t>(set.size());
    const std::set<int> in(set.begin(), set.end());
    double edges = 0.;
    for (const int at : set)
    {
      e.ids[at] = static_cast<int>(o.id);
      edges += at % w == 0 || !in.count(at - 1);
      edges += at % w == w - 1 || !in.count(at + 1);
      edges += !in.count(at - w);
      edges += !in.count(at + w);
    }
    o.perimeter = 10. * edges;
    e.objects.push_back(o);
  }
  return e;
}

Map Noise(std::mt19937& random, int w, int h)
{
  Map map(w, h);
  const int codes = 1 + static_cast<int>(random() % 3), background = 10 + static_cast<int>(random() % 60), smooth = static_cast<int>(random() % 3);
  for (auto& v : map.values)
  {
    v = static_cast<int>(random() % 100) < background ? 0. : 1. + static_cast<double>(random() % codes) * 41.;
    v = random() % 150 == 0 ? noData : v;
  }
  for (int k = 0; k < smooth; ++k)
  {
    // Larger patches: a pixel takes the value of one beside it.
    const Map before = map;
    for (int y = 1; y < h; ++y)
    {
      for (int x = 1; x < w; ++x)
      {
        map.At(x, y) = random() % 3 ? before.At(x - static_cast<int>(random() % 2), y - static_cast<int>(random() % 2)) : before.At(x, y);
      }
    }
  }
  return map;
}

TEST_F(ChangeObjects, RandomMapsAgreeWithFloods)
{
  std::mt19937 random(3);
  for (int round = 0; round < 120; ++round)
  {
    const auto map = Noise(random, 1 + static_cast<int>(random() % 40), 1 + static_cast<int>(random() % 40));
    settings = {};
    settings.eightConnected = random() % 2;
    settings.fill = random() % 2 ? static_cast<double>(random() % 30) : 0.;
    settings.minimumArea = random() % 2 ? static_cast<double>(random() % 8) : 0.;
    settings.opening = random() % 3 ? 0 : 1 + static_cast<int>(random() % 2);
    SCOPED_TRACE("round " + std::to_string(round));
    const auto objects = Run(map);
    const auto expected = Brute(map, settings);
    EXPECT_EQ(report.tooSmall, expected.tooSmall);
    EXPECT_EQ(report.holesFilled, expected.holes);
    ASSERT_EQ(objects.size(), expected.objects.size());
    // Burnt back, polygons give the objects again.
    const Dataset burnt(GetGDALDriverManager()->GetDriverByName("MEM")->Create("", map.width, map.height, 1, GDT_Int32, nullptr));
    auto transform = Format().transform;
    burnt->SetGeoTransform(transform.data());
    for (std::size_t k = 0; k < objects.size(); ++k)
    {
      const auto &o = objects[k], &e = expected.objects[k];
      EXPECT_EQ(o.id, e.id);
      EXPECT_EQ(o.code, e.code);
      EXPECT_EQ(o.pixels, e.pixels);
      EXPECT_DOUBLE_EQ(o.perimeter, e.perimeter);
      EXPECT_DOUBLE_EQ(o.area, 100. * static_cast<double>(e.pixels));
      EXPECT_DOUBLE_EQ(AreaOf(*o.geometry), o.area);
      EXPECT_TRUE(o.geometry->IsValid());
      int band = 1;
      double value = static_cast<double>(o.id);
      OGRGeometryH geometry = OGRGeometry::ToHandle(o.geometry.get());
      ASSERT_EQ(GDALRasterizeGeometries(burnt.d, 1, &band, 1, &geometry, nullptr, nullptr, &value, nullptr, nullptr, nullptr), CE_None);
    }
    std::vector<int> ids(map.values.size());
    ASSERT_EQ(burnt->GetRasterBand(1)->RasterIO(GF_Read, 0, 0, map.width, map.height, ids.data(), map.width, map.height, GDT_Int32, 0, 0, nullptr), CE_None);
    EXPECT_EQ(ids, expected.ids);
  }
}

TEST_F(ChangeObjects, TheLayoutOfTheFileDoesNotMatter)
{
  std::mt19937 random(11);
  auto map = Noise(random, 203, 157);
  Map score(203, 157);
  for (auto& v : score.values)
  {
    v = static_cast<double>(random() % 1000003) / 1000003.;
  }
  for (const bool eight : {false, true})
  {
    for (const double simplify : {0., 1.2})
    {
      settings.eightConnected = eight;
      settings.fill = 5.;
      settings.minimumArea = 2.;
      settings.opening = 0;
      settings.simplify = simplify;
      settings.attributes = {{"date1", "2020-01-01"}};
      std::vector<std::string> first;
      for (const auto& options : std::vector<std::vector<std::string>>{{},
                                                                       {"TILED=YES", "BLOCKXSIZE=16", "BLOCKYSIZE=16", "COMPRESS=DEFLATE"},
                                                                       {"TILED=YES", "BLOCKXSIZE=64", "BLOCKYSIZE=32", "COMPRESS=LZW"},
                                                                       {"BLOCKYSIZE=1"},
                                                                       {"BLOCKYSIZE=157", "COMPRESS=ZSTD"}})
      {
        Format format;
        format.options = options;
        format.type = options.size() == 1 ? GDT_Float32 : GDT_Int16;
        settings.memory = options.size() * 100000 + 1;
        settings.opening = simplify > 0. ? 0 : 1;
        WriteMap(Path("map.tif"), map, format);
        format.type = GDT_Float64;
        WriteMap(Path("score.tif"), score, format);
        WriteChangeObjects(Path("map.tif"), Path("score.tif"), "proba", 0, Path("objects.gpkg"), settings, {});
        std::vector<std::string> all;
        for (const auto& o : Read(Path("objects.gpkg")))
        {
          all.push_back(o.all);
        }
        EXPECT_GT(all.size(), 20u);
        if (first.empty())
        {
          first = all;
        }
        EXPECT_TRUE(first == all);
      }
    }
  }
}

TEST_F(ChangeObjects, OpeningDoesNotSeeStrips)
{
  std::mt19937 random(23);
  Map map(61, 300);
  for (int k = 0; k < 400; ++k)
  {
    const int cx = static_cast<int>(random() % 61), cy = static_cast<int>(random() % 300), r = static_cast<int>(random() % 9),
              code = static_cast<int>(random() % 4);
    for (int y = std::max(0, cy - r); y < std::min(300, cy + r); ++y)
    {
      for (int x = std::max(0, cx - r); x < std::min(61, cx + r); ++x)
      {
        map.At(x, y) = code;
      }
    }
  }
  for (const int opening : {2, 5})
  {
    settings.opening = opening;
    settings.memory = 1; // strips as small as they get
    const auto objects = Run(map);
    const auto expected = Brute(map, settings);
    ASSERT_EQ(objects.size(), expected.objects.size());
    ASSERT_GT(objects.size(), 3u);
    for (std::size_t k = 0; k < objects.size(); ++k)
    {
      EXPECT_EQ(objects[k].pixels, expected.objects[k].pixels);
      EXPECT_DOUBLE_EQ(objects[k].perimeter, expected.objects[k].perimeter);
    }
  }
}

TEST_F(ChangeObjects, ManyCodes)
{
  // More than fit a byte, and negative ones.
  Map map(30, 30);
  for (int k = 0; k < 900; ++k)
  {
    map.values[k] = (k / 30 / 3) * 10 + k % 30 / 3 - 20 + (k % 30 / 3) * 100000.;
  }
  Format format;
  format.type = GDT_Int32;
  settings.opening = 1;
  const auto o = Run(map, format);
  EXPECT_EQ(o.size(), 99u);
  EXPECT_EQ(o[1].code, 100001 - 20);
  EXPECT_EQ(o[0].code, -20);
}

TEST_F(ChangeObjects, SimplifiedBordersStayShared)
{
  // The whole image is of objects: simplified, they must cover it once.
  Map map(90, 80);
  for (int y = 0; y < 80; ++y)
  {
    for (int x = 0; x < 90; ++x)
    {
      map.At(x, y) = 1. + (std::sin(x / 9.) + std::cos(y / 7.) + std::sin((x + y) / 17.) > .3) + (y > 50 + x / 3 ? 2. : 0.);
    }
  }
  const auto plain = Run(map);
  settings.simplify = 1.;
  const auto objects = Run(map);
  EXPECT_EQ(report.notSimplified, 0);
  ASSERT_EQ(objects.size(), plain.size());
  double sum = 0.;
  int corners = 0, cornersBefore = 0;
  std::unique_ptr<OGRGeometry> all(new OGRPolygon);
  for (std::size_t k = 0; k < objects.size(); ++k)
  {
    const auto* polygon = objects[k].geometry->toPolygon();
    EXPECT_TRUE(polygon->IsValid());
    sum += polygon->get_Area();
    all.reset(all->Union(polygon));
    for (const auto* ring : *polygon)
    {
      corners += ring->getNumPoints();
    }
    for (const auto* ring : *plain[k].geometry->toPolygon())
    {
      cornersBefore += ring->getNumPoints();
    }
    EXPECT_EQ(objects[k].pixels, plain[k].pixels);
    EXPECT_EQ(objects[k].perimeter, plain[k].perimeter);
    // No border strays farther than the tolerance from where it was.
    const std::unique_ptr<OGRGeometry> before(plain[k].geometry->Boundary()), after(polygon->Boundary()), near(before->Buffer(10.01));
    EXPECT_TRUE(near->Contains(after.get()));
  }
  EXPECT_NEAR(sum, 90. * 80. * 100., 1e-6);
  EXPECT_NEAR(AreaOf(*all), 90. * 80. * 100., 1e-6);
  EXPECT_LT(corners, cornersBefore / 3);
}

TEST_F(ChangeObjects, AnIslandFillsTheSimplifiedHoleAroundIt)
{
  Map map(40, 40);
  for (int y = 0; y < 40; ++y)
  {
    for (int x = 0; x < 40; ++x)
    {
      map.At(x, y) = std::hypot(x - 20., y - 18.) < 11. ? 2. : 1.;
    }
  }
  settings.simplify = 1.;
  const auto o = Run(map);
  ASSERT_EQ(o.size(), 2u);
  const auto* hole = o[0].geometry->toPolygon()->getInteriorRing(0);
  const auto* island = o[1].geometry->toPolygon()->getExteriorRing();
  OGRPolygon filled;
  filled.addRingDirectly(hole->clone());
  const std::unique_ptr<OGRGeometry> difference(filled.SymDifference(o[1].geometry.get()));
  EXPECT_TRUE(difference->IsEmpty());
  EXPECT_EQ(hole->getNumPoints(), island->getNumPoints());
  EXPECT_LT(hole->getNumPoints(), 20);
  EXPECT_NEAR(AreaOf(*o[0].geometry) + AreaOf(*o[1].geometry), 160000., 1e-6);
}

TEST_F(ChangeObjects, SimplifiedPolygonsAreValidWhateverTheMap)
{
  std::mt19937 random(7);
  std::int64_t objects = 0, kept = 0;
  for (int round = 0; round < 40; ++round)
  {
    settings.simplify = .4 + static_cast<double>(random() % 30) / 10.;
    settings.eightConnected = random() % 2;
    for (const auto& o : Run(Noise(random, 40, 30)))
    {
      EXPECT_TRUE(o.geometry->IsValid());
      EXPECT_GT(AreaOf(*o.geometry), 0.);
    }
    objects += report.objects;
    kept += report.notSimplified;
  }
  EXPECT_LT(kept, objects);
  std::printf("%lld of %lld objects of noise were not simplified\n", static_cast<long long>(kept), static_cast<long long>(objects));
}

TEST_F(ChangeObjects, ASlopeBecomesALine)
{
  settings.simplify = 1.;
  const auto o = Run({
      "........",
      ".1......",
      ".11.....",
      ".111....",
      ".1111...",
      "........",
  });
  ASSERT_EQ(o.size(), 1u);
  EXPECT_EQ(Wkt(o[0]), "POLYGON ((1 1,1 5,5 5,1 1))");
  EXPECT_EQ(o[0].pixels, 10);
}

TEST_F(ChangeObjects, WithoutProjectionPixelsCount)
{
  Format format;
  format.transform.clear();
  format.epsg = 0;
  const Rows rows{"....", ".11.", "...."};
  auto o = Run(Map(rows), format);
  ASSERT_EQ(o.size(), 1u);
  EXPECT_EQ(o[0].geometry->exportToWkt(), "POLYGON ((1 -1,1 -2,3 -2,3 -1,1 -1))");
  EXPECT_TRUE(std::isnan(o[0].area));
  EXPECT_DOUBLE_EQ(o[0].perimeter, 6.);
  EXPECT_EQ(projection, "Undefined Cartesian SRS");
  settings.minimumInPixels = false;
  settings.minimumArea = 3.;
  EXPECT_THAT(Refusal([&] { Run(Map(rows), format); }), HasSubstr("Give the minimum in pixels"));
  settings.minimumInPixels = true;
  // Placed, but nobody knows where.
  format.transform = {100., 2., 0., 50., 0., -2.};
  settings.minimumArea = 0.;
  o = Run(Map(rows), format);
  EXPECT_EQ(o[0].geometry->exportToWkt(), "POLYGON ((102 48,102 46,106 46,106 48,102 48))");
  EXPECT_TRUE(std::isnan(o[0].area));
}

TEST_F(ChangeObjects, ProjectionsInFeetAndTurned)
{
  Format format;
  format.epsg = 2263; // US survey feet
  format.transform = {1000000., 30., 0., 200000., 0., -30.};
  auto o = Run(Map(Rows{"11"}), format);
  const double foot = 1200. / 3937.;
  EXPECT_NEAR(o[0].area, 2. * 900. * foot * foot, 1e-6);
  EXPECT_NEAR(o[0].perimeter, 6. * 30. * foot, 1e-6);
  format.epsg = 32631;
  format.transform = {500000., 6., 8., 4600000., 8., -6.};
  o = Run(Map(Rows{"11"}), format);
  EXPECT_NEAR(o[0].area, 200., 1e-9);
  EXPECT_NEAR(o[0].perimeter, 60., 1e-9);
  EXPECT_TRUE(o[0].geometry->IsValid());
  EXPECT_FALSE(o[0].geometry->toPolygon()->getExteriorRing()->isClockwise());
}

TEST_F(ChangeObjects, LongitudeAndLatitude)
{
  Format format;
  format.epsg = 4326;
  format.transform = {2., .001, 0., 60., 0., -.001};
  const Map map(Rows{"11", "1."});
  auto o = Run(map, format);
  ASSERT_EQ(o.size(), 1u);
  EXPECT_EQ(projection, "WGS 84");
  // A degree of latitude near 60 degrees: 111412 m, of longitude: 55800 m.
  EXPECT_NEAR(o[0].area, 3. * 111.412 * 55.800, 3.);
  EXPECT_NEAR(o[0].perimeter, 4. * 111.412 + 4. * 55.800, .05);
  EXPECT_NEAR(o[0].geometry->toPolygon()->getExteriorRing()->getX(0), 2., 1e-12);
  // The whole earth, in 2 degrees: 510 065 621.7 km2.
  format.transform = {-180., 2., 0., 90., 0., -2.};
  Map earth(180, 90);
  std::fill(earth.values.begin(), earth.values.end(), 1.);
  o = Run(earth, format);
  EXPECT_NEAR(o[0].area / 1e6, 510065621.7, 1.);
  // Round the poles there is nothing to walk; down the two sides a meridian's half twice.
  EXPECT_NEAR(o[0].perimeter, 4. * 10001965.7, 2000.);
  // In square metres the minimum follows the latitude: of two single pixels the northern one goes.
  settings.minimumInPixels = false;
  settings.minimumArea = 1e10;
  Map two(180, 90);
  two.At(10, 2) = two.At(10, 45) = 1.;
  o = Run(two, format);
  ASSERT_EQ(o.size(), 1u);
  EXPECT_GT(o[0].area, 4e10);
}

TEST_F(ChangeObjects, NothingChanged)
{
  const auto o = Run({"....", "..?."});
  EXPECT_TRUE(o.empty());
  EXPECT_EQ(projection, "WGS 84 / UTM zone 31N");
  EXPECT_EQ(type, wkbPolygon);
  EXPECT_EQ(fields, "id code area_px area_m2 perimeter compactness");
  EXPECT_TRUE(Run({"??", "??"}).empty());
}

TEST_F(ChangeObjects, AnOlderFileIsReplacedAndAFailureLeavesIt)
{
  Run({"1.1"});
  const auto before = fs::file_size(Path("objects.gpkg"));
  // Stopped at each of many moments.
  Map map(60, 60);
  for (int k = 0; k < 3600; k += 2)
  {
    map.values[k] = 1.;
  }
  WriteMap(Path("map.tif"), map);
  for (int stop = 0; stop < 8; ++stop)
  {
    int told = 0;
    bool stopped = false;
    double last = 0.;
    try
    {
      WriteChangeObjects(Path("map.tif"), "", "", 0, Path("objects.gpkg"), settings,
                         [&](double done)
                         {
                           EXPECT_GE(done, last);
                           last = done;
                           if (told++ == stop)
                           {
                             throw std::runtime_error("stop");
                           }
                         });
    }
    catch (const std::runtime_error& e)
    {
      stopped = std::string(e.what()) == "stop";
    }
    ASSERT_TRUE(stopped) << stop;
    EXPECT_THAT(Files(), ElementsAre("map.tif", "objects.gpkg"));
    if (last < 1.)
    {
      EXPECT_EQ(fs::file_size(Path("objects.gpkg")), before);
      EXPECT_EQ(Read(Path("objects.gpkg")).size(), 2u);
    }
  }
  EXPECT_EQ(Run({"1.1.1"}).size(), 3u);
}

TEST_F(ChangeObjects, Refusals)
{
  WriteMap(Path("map.tif"), Map(Rows{"11", ".1"}));
  const auto run = [&](const std::string& map, const std::string& score, const std::string& output)
  { return Refusal([&] { WriteChangeObjects(map, score, "proba", 0, output, settings, {}); }); };
  EXPECT_THAT(run(Path("map.tif"), "", Path("objects.json")), HasSubstr("ends in .gpkg"));
  EXPECT_THAT(run(Path("map.tif"), "", Path("no/objects.gpkg")), AllOf(HasSubstr("no directory"), HasSubstr("Create it first")));
  EXPECT_THAT(run(Path("none.tif"), "", Path("objects.gpkg")), HasSubstr("none.tif"));
  std::ofstream(Path("text.tif")) << "no image";
  EXPECT_THAT(run(Path("text.tif"), "", Path("objects.gpkg")), HasSubstr("an image"));
  EXPECT_THAT(run(Path("map.tif"), Path("none.tif"), Path("objects.gpkg")), HasSubstr("none.tif"));
  WriteMap(Path("score.tif"), Map(3, 2));
  EXPECT_THAT(run(Path("map.tif"), Path("score.tif"), Path("objects.gpkg")), AllOf(HasSubstr("size 3 x 2"), HasSubstr("2 x 2")));
  Format format;
  format.transform[0] += 1.;
  WriteMap(Path("score.tif"), Map(2, 2), format);
  EXPECT_THAT(run(Path("map.tif"), Path("score.tif"), Path("objects.gpkg")), HasSubstr("another place"));
  format = {};
  format.epsg = 32632;
  WriteMap(Path("score.tif"), Map(2, 2), format);
  EXPECT_THAT(run(Path("map.tif"), Path("score.tif"), Path("objects.gpkg")), HasSubstr("another place"));
  format = {};
  format.type = GDT_Float32;
  Map score(2, 2);
  score.At(1, 1) = .25;
  WriteMap(Path("score.tif"), score, format);
  EXPECT_THAT(run(Path("score.tif"), "", Path("objects.gpkg")), AllOf(HasSubstr("the value 0.25"), HasSubstr("not the score")));
  settings.opening = -1;
  EXPECT_THAT(run(Path("map.tif"), "", Path("objects.gpkg")), HasSubstr("negative"));
  EXPECT_THAT(Files(), ElementsAre("map.tif", "score.tif", "text.tif"));
}

TEST_F(ChangeObjects, ATruncatedMapIsToldAndLeavesNothing)
{
  Map map(300, 300);
  std::mt19937 random(2);
  for (auto& v : map.values)
  {
    v = static_cast<double>(random() % 2);
  }
  Format format;
  format.options = {"COMPRESS=DEFLATE"};
  WriteMap(Path("map.tif"), map, format);
  fs::resize_file(Path("map.tif"), fs::file_size(Path("map.tif")) / 2);
  EXPECT_THAT(Refusal([&] { WriteChangeObjects(Path("map.tif"), "", "", 0, Path("objects.gpkg"), settings, {}); }), HasSubstr("map.tif"));
  EXPECT_THAT(Files(), ElementsAre("map.tif"));
}

TEST_F(ChangeObjects, AFullDiskIsToldAndLeavesTheOlderFile)
{
  Run({"1.1"});
  Map map(400, 400);
  std::mt19937 random(2);
  for (auto& v : map.values)
  {
    v = static_cast<double>(random() % 2);
  }
  WriteMap(Path("map.tif"), map);
  // A limit on the size of files does what a full disk does: of the GeoPackage at once, of the raster of labels, of the polygons.
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  for (const rlim_t limit : {20000, 120000, 1000000})
  {
    rlimit small = before;
    small.rlim_cur = limit;
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    const auto text = Refusal([&] { WriteChangeObjects(Path("map.tif"), "", "", 0, Path("objects.gpkg"), settings, {}); });
    setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_THAT(text, HasSubstr("objects: ")) << limit;
    EXPECT_THAT(Files(), ElementsAre("map.tif", "objects.gpkg"));
    EXPECT_EQ(Read(Path("objects.gpkg")).size(), 2u);
  }
  std::signal(SIGXFSZ, handler);
}

/** Peak resident memory of this process, MB. */
double Peak()
{
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
  {
    if (line.rfind("VmHWM:", 0) == 0)
    {
      return std::stod(line.substr(6)) / 1024.;
    }
  }
  return 0.;
}

TEST_F(ChangeObjects, ALargeSparseMapTakesLittleMemory)
{
  // 5000 x 5000 with some thousand rectangles; OTBDL_OBJECTS_SIDE for more.
  const char* wanted = std::getenv("OTBDL_OBJECTS_SIDE");
  const int side = wanted ? std::atoi(wanted) : 5000;
  GDALAllRegister();
  const auto cache = GDALGetCacheMax64();
  GDALSetCacheMax64(16 << 20);
  {
    char** options = nullptr;
    for (const char* o : {"TILED=YES", "COMPRESS=DEFLATE", "SPARSE_OK=TRUE"})
    {
      options = CSLAddString(options, o);
    }
    const Dataset file(GetGDALDriverManager()->GetDriverByName("GTiff")->Create(Path("map.tif").c_str(), side, side, 1, GDT_Byte, options));
    CSLDestroy(options);
    std::vector<unsigned char> ones(40 * 40, 1);
    for (int y = 0; y + 40 < side; y += 90)
    {
      for (int x = 0; x + 40 < side; x += 70)
      {
        ASSERT_EQ(file->GetRasterBand(1)->RasterIO(GF_Write, x, y, 20 + x % 20, 20 + y % 20, ones.data(), 20 + x % 20, 20 + y % 20, GDT_Byte, 0, 0, nullptr),
                  CE_None);
      }
    }
  }
  const double before = Peak();
  settings.fill = 10.;
  settings.minimumArea = 2.;
  settings.simplify = 1.;
  settings.memory = std::size_t(16) << 20;
  const auto start = std::chrono::steady_clock::now();
  const auto done = WriteChangeObjects(Path("map.tif"), "", "", 0, Path("objects.gpkg"), settings, {});
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double more = Peak() - before;
  GDALSetCacheMax64(cache);
  std::printf("%d x %d: %lld objects, %.1f s, peak memory +%.0f MB\n", side, side, static_cast<long long>(done.objects), seconds, more);
  EXPECT_GT(done.objects, 3000);
  // A raster of labels alone would take 100 MB here; this is GDAL's cache, a chunk of rows, tiles of labels, objects.
  EXPECT_LT(more, 110.);
}

} // namespace
