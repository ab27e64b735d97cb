/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLChangeObjects.h"

#include "otbDLError.h"
#include "otbDLGdal.h"
#include "otbDLLegendFiles.h"
#include "otbDLObjectLabels.h"
#include "otbDLObjectRows.h"
#include "otbDLOutlines.h"

#include <cpl_conv.h>
#include <cpl_error.h>
#include <cpl_string.h>
#include <gdal_alg.h>
#include <gdal_priv.h>
#include <gdal_utils.h>
#include <ogr_spatialref.h>
#include <ogrsf_frmts.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>
#include <unistd.h>
#include <unordered_map>
#include <utility>

namespace otb
{
namespace dl
{

namespace
{
namespace fs = std::filesystem;

constexpr double pi = 3.14159265358979323846;
constexpr int tileWidth = 512, tileHeight = 32; ///< of the raster of labels: rows of tiles stay small, outlines meet few tiles

using DatasetPointer = GdalDataset<GDALDataset>;

/** A file that is gone when this is, with what GDAL and SQLite put beside it. */
struct TemporaryFile
{
  std::string path;

  explicit TemporaryFile(std::string name) : path(std::move(name)) { Remove(); }
  ~TemporaryFile() { Remove(); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  void Remove() const
  {
    std::error_code ec;
    for (const char* added : {"", "-journal", "-wal", "-shm", ".aux.xml"})
    {
      fs::remove(path + added, ec);
    }
  }
};

DatasetPointer OpenRaster(const std::string& path)
{
  CPLErrorReset();
  DatasetPointer dataset(GDALDataset::Open(path.c_str(), GDAL_OF_RASTER | GDAL_OF_READONLY));
  if (!dataset || dataset->GetRasterCount() < 1)
  {
    const std::string reason = CPLGetLastErrorMsg();
    throw Error(Complaint(path, reason.empty() ? "nothing that can be read" : reason, "an image", ""));
  }
  return dataset;
}

/** Where pixels are and how large. */
struct Grid
{
  bool placed = false; ///< has a geotransform; else y counts downwards below 0, as QGIS shows such images
  std::array<double, 6> transform{{0., 1., 0., 0., 0., -1.}};
  const OGRSpatialReference* reference = nullptr; ///< null: unknown

  double X(double x, double y) const { return transform[0] + x * transform[1] + y * transform[2]; }
  double Y(double x, double y) const { return transform[3] + x * transform[4] + y * transform[5]; }
};

Grid GridOf(GDALDataset& dataset)
{
  Grid grid;
  std::array<double, 6> t{};
  const std::array<double, 6> identity{{0., 1., 0., 0., 0., 1.}};
  if (dataset.GetGeoTransform(t.data()) == CE_None && t != identity)
  {
    grid.placed = true;
    grid.transform = t;
    grid.reference = dataset.GetSpatialRef();
    grid.reference = grid.reference && grid.reference->IsEmpty() ? nullptr : grid.reference;
  }
  return grid;
}

void CheckSameGrid(GDALDataset& map, const std::string& mapName, GDALDataset& score, const std::string& scoreName)
{
  const auto size = [](GDALDataset& d) { return std::to_string(d.GetRasterXSize()) + " x " + std::to_string(d.GetRasterYSize()); };
  if (size(map) != size(score))
  {
    throw Error(Complaint(scoreName, "size " + size(score), size(map) + " as " + mapName, "Give the score that the map was made from."));
  }
  const auto a = GridOf(map), b = GridOf(score);
  const double w = map.GetRasterXSize(), h = map.GetRasterYSize();
  const double pixel = std::hypot(a.transform[1], a.transform[4]);
  bool same = a.placed == b.placed;
  // A hundredth of a pixel is what two tools' rounding may make.
  for (const auto& [x, y] : {std::pair<double, double>{0., 0.}, {w, 0.}, {0., h}})
  {
    same = same && std::hypot(a.X(x, y) - b.X(x, y), a.Y(x, y) - b.Y(x, y)) <= .01 * pixel;
  }
  same = same && (!a.reference || !b.reference || a.reference->IsSame(b.reference));
  if (!same)
  {
    throw Error(Complaint(scoreName, "another place or projection", "the grid of " + mapName, "Give the score that the map was made from."));
  }
}

/** Area of an ellipsoid per radian of longitude between the equator and a latitude. */
double Zone(double latitude, double a, double e2)
{
  const double s = std::sin(latitude), e = std::sqrt(e2);
  return .5 * a * a * (1. - e2) * (s / (1. - e2 * s * s) + (e > 0. ? std::log((1. + e * s) / (1. - e * s)) / (2. * e) : s));
}

/** In metres where the projection tells: from its unit on a plane, row by row on the ellipsoid. */
CellMeasure MeasureOf(const Grid& grid, std::int64_t height)
{
  CellMeasure m;
  const auto& t = grid.transform;
  if (!grid.reference || !(grid.reference->IsProjected() || grid.reference->IsGeographic()))
  {
    return m;
  }
  if (grid.reference->IsProjected())
  {
    const double unit = grid.reference->GetLinearUnits(nullptr);
    m.known = true;
    m.area = std::abs(t[1] * t[5] - t[2] * t[4]) * unit * unit;
    m.horizontal = std::hypot(t[1], t[4]) * unit;
    m.vertical = std::hypot(t[2], t[5]) * unit;
    return m;
  }
  if (t[2] != 0. || t[4] != 0.)
  {
    return m; // a row has no latitude
  }
  m.known = m.byRow = true;
  const double a = grid.reference->GetSemiMajor(), f = grid.reference->GetInvFlattening() > 0. ? 1. / grid.reference->GetInvFlattening() : 0.;
  const double e2 = f * (2. - f), unit = grid.reference->GetAngularUnits(nullptr), width = std::abs(t[1]) * unit;
  const auto latitude = [&](std::int64_t line) { return std::clamp((t[3] + static_cast<double>(line) * t[5]) * unit, -.5 * pi, .5 * pi); };
  for (std::int64_t y = 0; y <= height; ++y)
  {
    const double top = latitude(y), bottom = latitude(y + 1), s = std::sin(top), middle = std::sin(.5 * (top + bottom));
    m.across.push_back(width * std::cos(top) * a / std::sqrt(1. - e2 * s * s));
    if (y < height)
    {
      m.areas.push_back(width * std::abs(Zone(top, a, e2) - Zone(bottom, a, e2)));
      m.heights.push_back(std::abs(top - bottom) * a * (1. - e2) / std::pow(1. - e2 * middle * middle, 1.5));
    }
  }
  return m;
}

/** Labels by pixel, a few tiles at a time. */
class LabelTiles
{
public:
  explicit LabelTiles(GDALRasterBand& band) : m_Band(band) {}

  /** -1 outside of the image */
  std::int32_t At(std::int32_t x, std::int32_t y)
  {
    if (x < 0 || y < 0 || x >= m_Band.GetXSize() || y >= m_Band.GetYSize())
    {
      return -1;
    }
    const int tx = x / tileWidth, ty = y / tileHeight;
    if (tx != m_X || ty != m_Y)
    {
      auto& tile = m_Tiles[{tx, ty}];
      if (!tile)
      {
        if (m_Tiles.size() > 512)
        {
          m_Tiles.clear();
        }
        auto& fresh = m_Tiles[{tx, ty}];
        fresh = std::make_unique<std::vector<std::int32_t>>(static_cast<std::size_t>(tileWidth) * tileHeight);
        if (m_Band.ReadBlock(tx, ty, fresh->data()) != CE_None)
        {
          throw Error(Complaint("the temporary raster of labels", CPLGetLastErrorMsg(), "a file that can be read back", ""));
        }
        m_Last = fresh->data();
      }
      else
      {
        m_Last = tile->data();
      }
      m_X = tx;
      m_Y = ty;
    }
    return m_Last[(y - m_Y * tileHeight) * tileWidth + (x - m_X * tileWidth)];
  }

  /** Do three or four borders meet in a corner, or is it one of the image's? */
  bool IsNode(const Corner& c)
  {
    const auto a = At(c.x - 1, c.y - 1), b = At(c.x, c.y - 1), d = At(c.x, c.y), e = At(c.x - 1, c.y);
    return (a != b) + (b != d) + (d != e) + (e != a) > 2 || (a < 0) + (b < 0) + (d < 0) + (e < 0) == 3;
  }

private:
  GDALRasterBand& m_Band;
  std::map<std::pair<int, int>, std::unique_ptr<std::vector<std::int32_t>>> m_Tiles;
  const std::int32_t* m_Last = nullptr;
  int m_X = -1;
  int m_Y = -1;
};

/** What GDALPolygonize believes to be a layer: polygons go on as they come, none is kept. */
class PolygonSink : public OGRLayer
{
public:
  using Take = std::function<void(std::int32_t label, const OGRPolygon& polygon)>;

  explicit PolygonSink(Take take) : m_Take(std::move(take)), m_Definition(new OGRFeatureDefn("labels"))
  {
    m_Definition->Reference();
    OGRFieldDefn label("label", OFTInteger);
    m_Definition->AddFieldDefn(&label);
  }
  ~PolygonSink() override { m_Definition->Release(); }

  void ResetReading() override {}
  OGRFeature* GetNextFeature() override { return nullptr; }
  OGRFeatureDefn* GetLayerDefn() override { return m_Definition; }
  int TestCapability(const char* what) override { return std::strcmp(what, OLCSequentialWrite) == 0; }

  /** What was thrown inside GDAL, which knows no exceptions. */
  void Rethrow() const
  {
    if (m_Thrown)
    {
      std::rethrow_exception(m_Thrown);
    }
  }
  template <typename T>
  bool Guard(T call)
  {
    try
    {
      call();
      return true;
    }
    catch (...)
    {
      m_Thrown = std::current_exception();
      return false;
    }
  }

protected:
  OGRErr ICreateFeature(OGRFeature* feature) override
  {
    const auto* polygon = dynamic_cast<const OGRPolygon*>(feature->GetGeometryRef());
    return polygon && Guard([&] { m_Take(feature->GetFieldAsInteger(0), *polygon); }) ? OGRERR_NONE : OGRERR_FAILURE;
  }

private:
  Take m_Take;
  OGRFeatureDefn* m_Definition;
  std::exception_ptr m_Thrown;
};

/** The GeoPackage while it is written. */
class ObjectLayer
{
public:
  ObjectLayer(const std::string& path, const Grid& grid, const std::string& scoreName, int classes, const ObjectSettings& settings)
      : m_Grid(grid), m_Classes(classes), m_Settings(settings)
  {
    CPLErrorReset();
    auto* driver = GetGDALDriverManager()->GetDriverByName("GPKG");
    m_Dataset.reset(driver ? driver->Create(path.c_str(), 0, 0, 0, GDT_Unknown, nullptr) : nullptr);
    OGRSpatialReference nowhere;
    nowhere.SetLocalCS("Undefined Cartesian SRS"); // what a GeoPackage calls it
    OGRSpatialReference reference = grid.reference ? *grid.reference : nowhere;
    reference.SetAxisMappingStrategy(OAMS_TRADITIONAL_GIS_ORDER);
    // An 8-connected object may be held together by corners.
    const auto type = settings.eightConnected ? wkbMultiPolygon : wkbPolygon;
    m_Layer = m_Dataset ? m_Dataset->CreateLayer("changes", &reference, type, nullptr) : nullptr;
    Check(m_Layer != nullptr);

    Add("id", OFTInteger64);
    Add("code", OFTInteger);
    if (classes > 0)
    {
      Add("from", OFTString);
      Add("to", OFTString);
      Add("from_id", OFTInteger);
      Add("to_id", OFTInteger);
    }
    Add("area_px", OFTInteger64);
    Add("area_m2", OFTReal);
    Add("perimeter", OFTReal);
    if (!scoreName.empty())
    {
      m_Mean = Add("mean_" + scoreName, OFTReal);
      m_Max = Add("max_" + scoreName, OFTReal);
    }
    Add("compactness", OFTReal);
    for (const auto& a : settings.attributes)
    {
      Add(a.first, OFTString);
    }
    Check(m_Dataset->StartTransaction() == OGRERR_NONE);
  }

  void Write(std::int32_t id, std::int32_t code, const ObjectStatistics& s, const ObjectLabels& labels, bool metres, std::unique_ptr<OGRGeometry> geometry)
  {
    OGRFeature feature(m_Layer->GetLayerDefn());
    feature.SetFID(id);
    feature.SetField("id", static_cast<GIntBig>(id));
    feature.SetField("code", code);
    if (m_Classes > 0)
    {
      const int positions[2] = {(code - 1) / m_Classes, (code - 1) % m_Classes};
      const char* names[2][2] = {{"from", "from_id"}, {"to", "to_id"}};
      for (int k = 0; k < 2; ++k)
      {
        const bool named = !m_Settings.classes.empty();
        feature.SetField(names[k][0], named ? m_Settings.classes[positions[k]].second.c_str() : std::to_string(positions[k]).c_str());
        feature.SetField(names[k][1], named ? m_Settings.classes[positions[k]].first : positions[k]);
      }
    }
    feature.SetField("area_px", static_cast<GIntBig>(s.pixels));
    if (metres)
    {
      feature.SetField("area_m2", labels.AreaOf(s));
    }
    feature.SetField("perimeter", labels.PerimeterOf(s));
    if (m_Mean >= 0 && s.scores > 0)
    {
      feature.SetField(m_Mean, s.scoreSum / static_cast<double>(s.scores));
      feature.SetField(m_Max, s.scoreMax);
    }
    const double edges = static_cast<double>(s.horizontalEdges + s.verticalEdges);
    feature.SetField("compactness", 4. * pi * static_cast<double>(s.pixels) / (edges * edges));
    for (const auto& a : m_Settings.attributes)
    {
      feature.SetField(a.first.c_str(), a.second.c_str());
    }
    feature.SetGeometryDirectly(geometry.release());
    Check(m_Layer->CreateFeature(&feature) == OGRERR_NONE);
    m_Codes.insert(code);
  }

  void Finish()
  {
    Check(m_Dataset->CommitTransaction() == OGRERR_NONE);
    if (m_Settings.legend.kind == Legend::Kind::Classes)
    {
      WriteStyle();
    }
    // Closing makes the spatial index; GDAL tells of failure by its last error alone.
    CPLErrorReset();
    m_Dataset.reset();
    Check(CPLGetLastErrorType() < CE_Failure);
  }

private:
  int Add(const std::string& name, OGRFieldType type)
  {
    std::string lower = name;
    std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
    if (!m_Names.insert(lower).second || lower == "fid" || lower == "geom" || lower.empty())
    {
      throw Error(Complaint("attribute of objects", "the name \"" + name + "\"", "a name that is not taken", ""));
    }
    OGRFieldDefn field(name.c_str(), type);
    Check(m_Layer->CreateField(&field) == OGRERR_NONE);
    return m_Layer->GetLayerDefn()->GetFieldCount() - 1;
  }
  /** As QGIS keeps its own: a table that it looks into when the layer is opened. */
  void WriteStyle()
  {
    Legend legend = m_Settings.legend;
    if (m_Classes > 0 && !m_Codes.empty())
    {
      const auto absent = [this](const Legend::Entry& e) { return m_Codes.count(static_cast<std::int32_t>(e.value)) == 0; };
      legend.entries.erase(std::remove_if(legend.entries.begin(), legend.entries.end(), absent), legend.entries.end());
    }
    CPLStringList options;
    options.SetNameValue("FID", "id");
    auto* styles = m_Dataset->CreateLayer("layer_styles", nullptr, wkbNone, options.List());
    Check(styles != nullptr);
    const auto add = [&](const char* name, OGRFieldType type, int width)
    {
      OGRFieldDefn field(name, type);
      field.SetWidth(width);
      if (type == OFTInteger)
      {
        field.SetSubType(OFSTBoolean);
      }
      else if (type == OFTDateTime)
      {
        field.SetDefault("CURRENT_TIMESTAMP");
      }
      Check(styles->CreateField(&field) == OGRERR_NONE);
    };
    for (const char* name : {"f_table_catalog", "f_table_schema", "f_table_name", "f_geometry_column"})
    {
      add(name, OFTString, 256);
    }
    add("styleName", OFTString, 30);
    add("styleQML", OFTString, 0);
    add("styleSLD", OFTString, 0);
    add("useAsDefault", OFTInteger, 0);
    add("description", OFTString, 0);
    add("owner", OFTString, 30);
    add("ui", OFTString, 30);
    add("update_time", OFTDateTime, 0);

    OGRFeature style(styles->GetLayerDefn());
    for (const char* name : {"f_table_catalog", "f_table_schema", "styleSLD", "owner"})
    {
      style.SetField(name, ""); // null would not be found
    }
    style.SetField("f_table_name", m_Layer->GetName());
    style.SetField("f_geometry_column", m_Layer->GetGeometryColumn());
    style.SetField("styleName", m_Layer->GetName());
    style.SetField("styleQML", PolygonStyle(legend, "code").c_str());
    style.SetField("useAsDefault", 1);
    style.SetField("description", "The codes of the change map");
    Check(styles->CreateFeature(&style) == OGRERR_NONE);
  }

  static void Check(bool good)
  {
    if (!good)
    {
      throw Error(Complaint("objects", "that the GeoPackage cannot be written (" + std::string(CPLGetLastErrorMsg()) + ")", "room on the disk", ""));
    }
  }

  const Grid& m_Grid;
  int m_Classes;
  const ObjectSettings& m_Settings;
  DatasetPointer m_Dataset;
  OGRLayer* m_Layer = nullptr;
  std::set<std::string> m_Names;
  std::set<std::int32_t> m_Codes; ///< of the objects written
  int m_Mean = -1;
  int m_Max = -1;
};

Ring RingOf(const OGRLinearRing& line)
{
  Ring ring;
  for (int k = 0; k + 1 < line.getNumPoints(); ++k)
  {
    ring.push_back({static_cast<std::int32_t>(std::lround(line.getX(k))), static_cast<std::int32_t>(std::lround(line.getY(k)))});
  }
  return ring;
}

/** Outer rings counterclockwise on the map, as OGC wants them. */
std::unique_ptr<OGRPolygon> PolygonOf(const Outline& outline, const Grid& grid)
{
  const auto& t = grid.transform;
  const bool mirrored = t[1] * t[5] - t[2] * t[4] < 0.;
  auto polygon = std::make_unique<OGRPolygon>();
  for (const auto& ring : outline)
  {
    auto line = std::make_unique<OGRLinearRing>();
    for (const auto& c : ring)
    {
      line->addPoint(grid.X(c.x, c.y), grid.Y(c.x, c.y));
    }
    line->closeRings();
    if (mirrored)
    {
      line->reversePoints();
    }
    polygon->addRingDirectly(line.release());
  }
  return polygon;
}

/** A polygon, or for 8-connected objects a multipolygon. */
std::unique_ptr<OGRGeometry> GeometryOf(const std::vector<Outline>& parts, const Grid& grid, bool multi)
{
  if (!multi)
  {
    return PolygonOf(parts.at(0), grid);
  }
  auto all = std::make_unique<OGRMultiPolygon>();
  for (const auto& part : parts)
  {
    all->addGeometryDirectly(PolygonOf(part, grid).release());
  }
  return all;
}

void CheckSettings(const std::string& output, const ObjectSettings& s, int classes)
{
  const fs::path path(output);
  if (path.extension() != ".gpkg" && path.extension() != ".shp")
  {
    throw Error(Complaint("objects", "\"" + output + "\"", "a name that ends in .gpkg, or in .shp", ""));
  }
  std::error_code ec;
  if (!fs::is_directory(path.has_parent_path() ? path.parent_path() : fs::path("."), ec))
  {
    throw Error(Complaint("objects", "no directory \"" + path.parent_path().string() + "\"", "one that exists", "Create it first."));
  }
  if (fs::is_directory(path, ec))
  {
    throw Error(Complaint("objects", "that \"" + output + "\" is a directory", "the name of a file", ""));
  }
  if (!(s.minimumArea >= 0.) || !(s.fill >= 0.) || s.opening < 0 || s.opening > 100 || !(s.simplify >= 0.))
  {
    throw Error(Complaint("objects", "a negative area, radius or tolerance, or a radius above 100", "0 or more", ""));
  }
  if (!s.classes.empty() && classes > 0 && static_cast<int>(s.classes.size()) != classes)
  {
    throw Error(Complaint("objects", std::to_string(s.classes.size()) + " names of classes", std::to_string(classes), ""));
  }
}
/** The files that may lie beside a Shapefile of this stem, itself last. */
std::vector<std::string> ShapefileOf(const std::string& stem)
{
  std::vector<std::string> files;
  for (const char* extension : {".sbn", ".sbx", ".qix", ".cpg", ".prj", ".dbf", ".shx", ".qml", ".shp"})
  {
    files.push_back(stem + extension);
  }
  return files;
}

/** The objects of a GeoPackage once more as a Shapefile, which hosts ask for when they choose a name by themselves. Names of fields are cut to ten letters.
 * The style goes beside it. */
void WriteShapefile(const std::string& package, const std::string& stem)
{
  DatasetPointer source(GDALDataset::Open(package.c_str(), GDAL_OF_VECTOR));
  const auto check = [](bool good)
  {
    if (!good)
    {
      throw Error(Complaint("objects", "that the Shapefile cannot be written (" + std::string(CPLGetLastErrorMsg()) + ")",
                            "room on the disk, and less than 2 GB of outlines", "Ask for a GeoPackage (.gpkg)."));
    }
  };
  check(source != nullptr);
  CPLStringList words;
  for (const char* word : {"-f", "ESRI Shapefile", "-lco", "ENCODING=UTF-8", "changes"})
  {
    words.AddString(word);
  }
  auto* options = GDALVectorTranslateOptionsNew(words.List(), nullptr);
  CPLErrorReset();
  GDALDatasetH from = GDALDataset::ToHandle(source.get());
  DatasetPointer made(GDALDataset::FromHandle(GDALVectorTranslate((stem + ".shp").c_str(), nullptr, 1, &from, options, nullptr)));
  GDALVectorTranslateOptionsFree(options);
  check(made != nullptr && CPLGetLastErrorType() < CE_Failure);
  CPLErrorReset();
  made.reset();
  check(CPLGetLastErrorType() < CE_Failure);
  if (auto* styles = source->GetLayerByName("layer_styles"))
  {
    const OGRFeatureUniquePtr style(styles->GetNextFeature());
    std::ofstream file(stem + ".qml", std::ios::binary);
    file << (style ? style->GetFieldAsString("styleQML") : "");
    file.close();
    check(static_cast<bool>(file));
  }
}

} // namespace

CellMeasure MeasureCells(const std::string& raster)
{
  GDALAllRegister();
  const QuietGdal quiet;
  const auto dataset = OpenRaster(raster);
  return MeasureOf(GridOf(*dataset), dataset->GetRasterYSize());
}

ObjectReport WriteChangeObjects(const std::string& map, const std::string& score, const std::string& scoreName, int numberOfClasses, const std::string& output,
                                const ObjectSettings& settings, const std::function<void(double)>& progress)
{
  GDALAllRegister();
  const QuietGdal quiet;
  CheckSettings(output, settings, numberOfClasses);
  const auto mapFile = OpenRaster(map);
  DatasetPointer scoreFile;
  if (!score.empty())
  {
    scoreFile = OpenRaster(score);
    CheckSameGrid(*mapFile, map, *scoreFile, score);
  }
  const auto grid = GridOf(*mapFile);
  const int width = mapFile->GetRasterXSize(), height = mapFile->GetRasterYSize();
  const auto measure = MeasureOf(grid, height);
  if (!settings.minimumInPixels && (settings.minimumArea > 0. || settings.fill > 0.) && !measure.known)
  {
    throw Error(Complaint(map, "no projection that areas follow from", "one, for a minimum in square metres", "Give the minimum in pixels."));
  }
  const auto tell = [&](double done)
  {
    if (progress)
    {
      progress(done);
    }
  };

  // First time: what the objects are.
  ObjectRows rows(mapFile->GetRasterBand(1), map, scoreFile ? scoreFile->GetRasterBand(1) : nullptr, score, settings.opening, settings.memory);
  ObjectLabels labels(width, height, {settings.eightConnected, settings.minimumArea, settings.fill, settings.minimumInPixels}, measure);
  rows.ForEach(true,
               [&](std::int64_t y, const std::int32_t* cells, const double* scores)
               {
                 if (y % tileHeight == 0)
                 {
                   tell(.4 * static_cast<double>(y) / height);
                 }
                 labels.AddRow(y, cells, scores);
               });
  labels.Finish();
  for (std::int32_t id = 1; numberOfClasses > 0 && id <= labels.Objects(); ++id)
  {
    const auto code = rows.CodeOf(labels.Object(id).cell);
    if (code < 1 || code > numberOfClasses * numberOfClasses)
    {
      throw Error(Complaint(map, "the code " + std::to_string(code), "1 + i K + j of K = " + std::to_string(numberOfClasses) + " classes",
                            "Give the number of classes that the map was made with."));
    }
  }

  const fs::path path(output);
  const std::string stem = (path.parent_path() / (path.stem().string() + ".part-" + std::to_string(getpid()))).string();
  // Files are closed, at the end of their scope, before they are removed.
  const TemporaryFile part(stem + ".gpkg"), raster(stem + ".labels.tif");
  ObjectLayer layer(part.path, grid, score.empty() ? "" : scoreName, numberOfClasses, settings);
  ObjectReport report;
  report.objects = labels.Objects();
  report.tooSmall = labels.TooSmall();
  report.holesFilled = labels.HolesFilled();

  if (report.objects > 0)
  {
    // Second time: where they are.
    char** options = nullptr;
    for (const char* option : {"TILED=YES", "COMPRESS=LZW", "SPARSE_OK=TRUE", "BIGTIFF=IF_SAFER"})
    {
      options = CSLAddString(options, option);
    }
    options = CSLSetNameValue(options, "BLOCKXSIZE", std::to_string(tileWidth).c_str());
    options = CSLSetNameValue(options, "BLOCKYSIZE", std::to_string(tileHeight).c_str());
    auto* driver = GetGDALDriverManager()->GetDriverByName("GTiff");
    DatasetPointer file(driver->Create(raster.path.c_str(), width, height, 1, GDT_Int32, options));
    CSLDestroy(options);
    const auto check = [&](bool good)
    {
      if (!good)
      {
        throw Error(Complaint("objects", "that \"" + raster.path + "\" cannot be written (" + CPLGetLastErrorMsg() + ")", "room on the disk", ""));
      }
    };
    check(file != nullptr);
    std::vector<std::int32_t> strip(static_cast<std::size_t>(width) * tileHeight);
    rows.ForEach(false,
                 [&](std::int64_t y, const std::int32_t* cells, const double*)
                 {
                   const auto line = static_cast<int>(y % tileHeight);
                   labels.LabelRow(cells, strip.data() + static_cast<std::size_t>(line) * width);
                   const auto end = strip.begin() + static_cast<std::ptrdiff_t>(line + 1) * width;
                   if (line + 1 == tileHeight || y + 1 == height)
                   {
                     // What was never written reads as 0.
                     if (std::any_of(strip.begin(), end, [](std::int32_t id) { return id != 0; }))
                     {
                       check(file->GetRasterBand(1)->RasterIO(GF_Write, 0, static_cast<int>(y) - line, width, line + 1, strip.data(), width, line + 1,
                                                              GDT_Int32, 0, 0, nullptr) == CE_None);
                     }
                     tell(.4 + .2 * static_cast<double>(y) / height);
                   }
                 });
    CPLErrorReset();
    file.reset();
    check(CPLGetLastErrorType() < CE_Failure);
    file = OpenRaster(raster.path);
    auto* band = file->GetRasterBand(1);

    // Polygons come in the order in which they end; parts of an object wait for the last one.
    LabelTiles tiles(*band);
    struct Waiting
    {
      std::vector<Outline> parts;
      std::int64_t pixels = 0;
    };
    std::unordered_map<std::int32_t, Waiting> waiting;
    std::int64_t written = 0;
    const auto isNode = [&](const Corner& c) { return tiles.IsNode(c); };
    const auto finish = [&](std::int32_t id, std::vector<Outline>& parts)
    {
      std::sort(parts.begin(), parts.end(), [](const Outline& a, const Outline& b) { return a[0][0] < b[0][0]; });
      std::unique_ptr<OGRGeometry> geometry;
      if (settings.simplify > 0.)
      {
        auto simple = parts;
        bool good = true;
        for (auto& outline : simple)
        {
          for (auto& ring : outline)
          {
            ring = Simplify(ring, isNode, settings.simplify);
            good = good && ring.size() > 2;
          }
        }
        geometry = good ? GeometryOf(simple, grid, settings.eightConnected) : nullptr;
        if (geometry && !geometry->IsValid())
        {
          geometry.reset();
        }
        report.notSimplified += geometry == nullptr;
      }
      if (!geometry)
      {
        for (auto& outline : parts)
        {
          std::transform(outline.begin(), outline.end(), outline.begin(), Turns);
        }
        geometry = GeometryOf(parts, grid, settings.eightConnected);
      }
      const auto& s = labels.Object(id);
      layer.Write(id, rows.CodeOf(s.cell), s, labels, measure.known, std::move(geometry));
      ++written;
    };
    PolygonSink sink(
        [&](std::int32_t id, const OGRPolygon& polygon)
        {
          std::vector<Ring> rings;
          for (const auto* line : polygon)
          {
            rings.push_back(RingOf(*line));
          }
          auto outline = TraceOutline(rings);
          auto& w = waiting[id];
          w.pixels += PixelsWithin(outline);
          w.parts.push_back(std::move(outline));
          if (w.pixels == labels.Object(id).pixels)
          {
            auto parts = std::move(w.parts);
            waiting.erase(id);
            finish(id, parts);
          }
        });
    struct Told
    {
      PolygonSink& sink;
      const std::function<void(double)>& tell;
    };
    const std::function<void(double)> later = [&](double done) { tell(.6 + .39 * done); };
    Told told{sink, later};
    const auto forward = [](double done, const char*, void* data) -> int
    {
      auto* t = static_cast<Told*>(data);
      return t->sink.Guard([&] { t->tell(done); });
    };
    const auto result = GDALPolygonize(band, band, OGRLayer::ToHandle(&sink), 0, nullptr, forward, &told);
    sink.Rethrow();
    if (result != CE_None || written != report.objects)
    {
      throw Error(Complaint("objects", std::to_string(written) + " outlines (" + CPLGetLastErrorMsg() + ")", std::to_string(report.objects), ""));
    }
  }
  layer.Finish();
  std::error_code ec;
  if (path.extension() == ".shp")
  {
    const auto made = ShapefileOf(stem), wanted = ShapefileOf((path.parent_path() / path.stem()).string());
    std::vector<std::unique_ptr<TemporaryFile>> parts;
    for (const auto& file : made)
    {
      parts.push_back(std::make_unique<TemporaryFile>(file));
    }
    WriteShapefile(part.path, stem);
    const auto style = wanted.size() - 2; // stays as it is where none was made
    for (const auto& file : wanted)
    {
      if (fs::is_directory(file, ec))
      {
        throw Error(Complaint("objects", "a folder \"" + file + "\"", "the name of a file that belongs to \"" + output + "\"", "Give another name."));
      }
    }
    for (std::size_t k = 0; k < made.size(); ++k)
    {
      const bool there = fs::exists(made[k]);
      if (there || k != style)
      {
        fs::remove(wanted[k], ec);
      }
      if (there)
      {
        fs::rename(made[k], wanted[k], ec);
        if (ec)
        {
          throw Error(Complaint("objects", "that \"" + made[k] + "\" cannot be renamed (" + ec.message() + ")", "the name \"" + wanted[k] + "\"", ""));
        }
      }
    }
    tell(1.);
    return report;
  }
  for (const char* added : {"-journal", "-wal", "-shm"})
  {
    fs::remove(output + added, ec); // of an older file: SQLite would apply it to the new one
  }
  fs::rename(part.path, output, ec);
  if (ec)
  {
    throw Error(Complaint("objects", "that \"" + part.path + "\" cannot be renamed (" + ec.message() + ")", "the name \"" + output + "\"", ""));
  }
  tell(1.);
  return report;
}

} // namespace dl
} // namespace otb
