/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLEvaluationSample.h"

#include "otbDLError.h"
#include "otbDLGdal.h"
#include "otbDLKeyedRandom.h"

#include <cpl_error.h>
#include <gdal_priv.h>
#include <ogr_spatialref.h>
#include <ogrsf_frmts.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <memory>
#include <mutex>
#include <numeric>
#include <set>
#include <sstream>
#include <tuple>
#include <unistd.h>

namespace otb
{
namespace Wrapper
{

namespace fs = std::filesystem;
using dl::Complaint;
using dl::Error;
using dl::QuietGdal;

namespace
{
constexpr std::uint32_t sampleTag = 0x73616d70u;
constexpr std::size_t mostStrata = 1000;

using DatasetPointer = otb::dl::GdalDataset<GDALDataset>;

/** Of one value: how many pixels, and those of the least ranks. */
struct Candidates
{
  std::int64_t pixels = 0;
  std::vector<SamplePoint> heap;

  static bool Before(const SamplePoint& a, const SamplePoint& b) { return std::tie(a.rank, a.y, a.x) < std::tie(b.rank, b.y, b.x); }

  void Offer(const SamplePoint& point, std::size_t most)
  {
    if (heap.size() == most && !Before(point, heap.front()))
    {
      return;
    }
    if (heap.size() == most)
    {
      std::pop_heap(heap.begin(), heap.end(), Before);
      heap.pop_back();
    }
    heap.push_back(point);
    std::push_heap(heap.begin(), heap.end(), Before);
  }
};

void RemoveFile(const std::string& file)
{
  std::error_code ec;
  for (const char* added : {"", "-journal", "-wal", "-shm"})
  {
    fs::remove(file + added, ec);
  }
}
} // namespace

DrawnSample DrawSample(PairEvaluation& pair, const SamplePlan& plan, const PairEvaluation::Progress& progress)
{
  std::int64_t most = plan.total;
  for (const auto& size : plan.sizes)
  {
    most = std::max(most, size.second);
  }
  most = std::max(most, plan.least);
  const dl::KeyedRandom random(plan.seed, sampleTag);
  std::map<int, Candidates> strata;
  std::mutex mutex;
  pair.ForRows(
      [&](const dl::Region&) -> PairEvaluation::RowVisit
      {
        // Ranks beyond the last candidate need not be looked at again.
        std::map<int, std::uint64_t> bounds;
        {
          const std::lock_guard<std::mutex> lock(mutex);
          for (const auto& [value, candidates] : strata)
          {
            if (candidates.heap.size() == static_cast<std::size_t>(most))
            {
              bounds[value] = candidates.heap.front().rank;
            }
          }
        }
        return [&, bounds](std::int64_t y, std::int64_t x0, std::int64_t count, const float* map, const float* reference)
        {
          // What this row offers, then all of it at once.
          std::map<int, Candidates> row;
          Candidates* now = nullptr;
          std::uint64_t bound = 0;
          float last = std::numeric_limits<float>::quiet_NaN();
          for (std::int64_t k = 0; k < count; ++k)
          {
            if (std::isnan(map[k]))
            {
              continue;
            }
            if (map[k] != last)
            {
              last = map[k];
              if (last != std::floor(last) || std::abs(last) > 16777216.f)
              {
                std::ostringstream found;
                found << "the value " << last;
                throw Error(Complaint("in", found.str(), "whole numbers: the strata", "Give the map of change, not the score it was made from."));
              }
              now = &row[static_cast<int>(last)];
              const auto known = bounds.find(static_cast<int>(last));
              bound = known == bounds.end() ? std::numeric_limits<std::uint64_t>::max() : known->second;
            }
            ++now->pixels;
            const auto words = random.Words(x0 + k, y, 0, 0);
            SamplePoint point;
            point.rank = (static_cast<std::uint64_t>(words[0]) << 32) | words[1];
            if (point.rank > bound)
            {
              continue;
            }
            point.order = (static_cast<std::uint64_t>(words[2]) << 32) | words[3];
            point.x = x0 + k;
            point.y = y;
            point.reference = reference[k];
            now->Offer(point, static_cast<std::size_t>(most));
          }
          const std::lock_guard<std::mutex> lock(mutex);
          for (const auto& [value, candidates] : row)
          {
            auto& all = strata[value];
            all.pixels += candidates.pixels;
            for (const auto& point : candidates.heap)
            {
              all.Offer(point, static_cast<std::size_t>(most));
            }
          }
          if (strata.size() > mostStrata)
          {
            throw Error(Complaint("in", "more than " + std::to_string(mostStrata) + " values", "a map of a few classes", ""));
          }
        };
      },
      progress);

  DrawnSample drawn;
  std::vector<std::int64_t> pixels;
  for (const auto& [value, candidates] : strata)
  {
    drawn.strata.push_back({value, "", candidates.pixels, 0});
    pixels.push_back(candidates.pixels);
  }
  if (strata.empty())
  {
    throw Error(Complaint("in", "no pixel with data", "a map to draw from", "Check no-data values and mask."));
  }
  if (plan.sizes.empty())
  {
    const auto sizes = dl::AllocateSample(pixels, plan.total, plan.allocation, plan.least);
    for (std::size_t h = 0; h < sizes.size(); ++h)
    {
      drawn.strata[h].points = sizes[h];
    }
  }
  for (const auto& [value, size] : plan.sizes)
  {
    const auto found = std::find_if(drawn.strata.begin(), drawn.strata.end(), [v = value](const SampleStratum& s) { return s.value == v; });
    if (found == drawn.strata.end() || found->pixels < size)
    {
      throw Error(Complaint("sizes", std::to_string(size) + " points of the value " + std::to_string(value),
                            found == drawn.strata.end() ? "a value of the map" : "at most its " + std::to_string(found->pixels) + " pixels", ""));
    }
    found->points = size;
  }
  for (std::size_t h = 0; h < drawn.strata.size(); ++h)
  {
    if (drawn.strata[h].points == 0)
    {
      throw Error(Complaint("sizes", "no points for the value " + std::to_string(drawn.strata[h].value), "points of every stratum",
                            "A stratum without points cannot be corrected for. Merge values with -inmap, or mask them."));
    }
    auto& heap = strata[drawn.strata[h].value].heap;
    std::sort(heap.begin(), heap.end(), Candidates::Before);
    for (std::int64_t k = 0; k < drawn.strata[h].points; ++k)
    {
      drawn.points.emplace_back(static_cast<int>(h), heap[static_cast<std::size_t>(k)]);
    }
  }
  // Who labels them shall not guess the stratum from the order.
  std::sort(drawn.points.begin(), drawn.points.end(),
            [](const auto& a, const auto& b) { return std::tie(a.second.order, a.second.y, a.second.x) < std::tie(b.second.order, b.second.y, b.second.x); });
  return drawn;
}

void WriteSample(const std::string& file, const DrawnSample& sample, const EvaluationReader& grid, double pixelArea)
{
  GDALAllRegister();
  const fs::path path(file);
  const std::string part = (path.parent_path() / (path.stem().string() + ".part-" + std::to_string(getpid()) + ".gpkg")).string();
  RemoveFile(part);
  const auto check = [&](bool good)
  {
    if (!good)
    {
      const std::string reason = CPLGetLastErrorMsg();
      RemoveFile(part);
      throw Error(Complaint("points", "that \"" + file + "\" cannot be written (" + reason + ")", "room on the disk", ""));
    }
  };
  {
    const QuietGdal quiet;
    CPLErrorReset();
    auto* driver = GetGDALDriverManager()->GetDriverByName("GPKG");
    DatasetPointer dataset(driver ? driver->Create(part.c_str(), 0, 0, 0, GDT_Unknown, nullptr) : nullptr);
    check(dataset != nullptr);
    const auto& place = grid.GetGeoreference();
    OGRSpatialReference reference;
    if (place.projection.empty() || reference.importFromWkt(place.projection.c_str()) != OGRERR_NONE)
    {
      reference.Clear();
      reference.SetLocalCS("Undefined Cartesian SRS"); // what a GeoPackage calls it
    }
    reference.SetAxisMappingStrategy(OAMS_TRADITIONAL_GIS_ORDER);
    auto* points = dataset->CreateLayer("sample", &reference, wkbPoint, nullptr);
    auto* strata = points ? dataset->CreateLayer("strata", nullptr, wkbNone, nullptr) : nullptr;
    check(strata != nullptr);
    const auto add = [&](OGRLayer* layer, const char* name, OGRFieldType type)
    {
      OGRFieldDefn field(name, type);
      check(layer->CreateField(&field) == OGRERR_NONE);
    };
    add(points, "id", OFTInteger64);
    add(points, "stratum", OFTInteger);
    add(points, "name", OFTString);
    add(points, "column", OFTInteger64);
    add(points, "row", OFTInteger64);
    add(points, "weight", OFTReal);
    add(points, "reference", OFTInteger);
    add(strata, "stratum", OFTInteger);
    add(strata, "name", OFTString);
    add(strata, "pixels", OFTInteger64);
    add(strata, "area_m2", OFTReal);
    add(strata, "points", OFTInteger64);
    check(dataset->StartTransaction() == OGRERR_NONE);
    GIntBig id = 0;
    for (const auto& [h, point] : sample.points)
    {
      const auto& stratum = sample.strata[static_cast<std::size_t>(h)];
      OGRFeature feature(points->GetLayerDefn());
      feature.SetFID(++id);
      feature.SetField("id", id);
      feature.SetField("stratum", stratum.value);
      feature.SetField("name", stratum.name.c_str());
      feature.SetField("column", static_cast<GIntBig>(point.x));
      feature.SetField("row", static_cast<GIntBig>(point.y));
      feature.SetField("weight", static_cast<double>(stratum.pixels) / static_cast<double>(stratum.points));
      if (!std::isnan(point.reference))
      {
        feature.SetField("reference", static_cast<int>(std::lround(point.reference)));
      }
      // The centre of the pixel; without a georeference y counts downwards below 0, as QGIS shows such images.
      const double x = static_cast<double>(point.x) + .5, y = static_cast<double>(point.y) + .5;
      const auto* t = place.transform;
      OGRPoint where = place.placed ? OGRPoint(t[0] + x * t[1] + y * t[2], t[3] + x * t[4] + y * t[5]) : OGRPoint(x, -y);
      feature.SetGeometry(&where);
      check(points->CreateFeature(&feature) == OGRERR_NONE);
    }
    for (const auto& stratum : sample.strata)
    {
      OGRFeature feature(strata->GetLayerDefn());
      feature.SetField("stratum", stratum.value);
      feature.SetField("name", stratum.name.c_str());
      feature.SetField("pixels", static_cast<GIntBig>(stratum.pixels));
      if (!std::isnan(pixelArea))
      {
        feature.SetField("area_m2", static_cast<double>(stratum.pixels) * pixelArea);
      }
      feature.SetField("points", static_cast<GIntBig>(stratum.points));
      check(strata->CreateFeature(&feature) == OGRERR_NONE);
    }
    check(dataset->CommitTransaction() == OGRERR_NONE);
    CPLErrorReset();
    dataset.reset();
    check(CPLGetLastErrorType() < CE_Failure);
  }
  // In one step: the one before may have been labelled by hand.
  std::error_code ec;
  for (const char* added : {"-journal", "-wal", "-shm"})
  {
    fs::remove(file + added, ec);
  }
  fs::rename(part, file);
}

LabelledSample ReadSample(const std::string& file, const std::string& field)
{
  GDALAllRegister();
  const QuietGdal quiet;
  CPLErrorReset();
  DatasetPointer dataset(GDALDataset::Open(file.c_str(), GDAL_OF_VECTOR | GDAL_OF_READONLY));
  auto* points = dataset ? dataset->GetLayerByName("sample") : nullptr;
  auto* strata = dataset ? dataset->GetLayerByName("strata") : nullptr;
  if (!points || !strata)
  {
    throw Error(Complaint("labelled", "\"" + file + "\", without the layers sample and strata", "a GeoPackage that -points wrote", ""));
  }
  for (const char* needed : {"stratum", "pixels"})
  {
    if (strata->GetLayerDefn()->GetFieldIndex(needed) < 0)
    {
      throw Error(Complaint("labelled", "\"" + file + "\", whose strata have no field " + needed, "a GeoPackage that -points wrote", ""));
    }
  }
  const int label = points->GetLayerDefn()->GetFieldIndex(field.c_str()), of = points->GetLayerDefn()->GetFieldIndex("stratum");
  if (label < 0 || of < 0)
  {
    throw Error(Complaint(label < 0 ? "field" : "labelled", "no field \"" + (label < 0 ? field : std::string("stratum")) + "\" in the sample",
                          "the field of the labels", ""));
  }
  LabelledSample read;
  read.pixelArea = std::nan("");
  std::map<int, std::size_t> position;
  auto& s = read.sample;
  for (const auto& feature : *strata)
  {
    const int value = feature->GetFieldAsInteger("stratum");
    if (!position.emplace(value, s.classes.size()).second)
    {
      throw Error(Complaint("labelled", "the stratum " + std::to_string(value) + " twice", "each once", ""));
    }
    s.classes.push_back(value);
    s.mapped.push_back(feature->GetFieldAsDouble("pixels"));
    const int name = feature->GetFieldIndex("name"), area = feature->GetFieldIndex("area_m2");
    const std::string text = name >= 0 ? feature->GetFieldAsString(name) : "";
    read.names.push_back(text.empty() ? std::to_string(value) : text);
    if (area >= 0 && feature->IsFieldSetAndNotNull(area) && s.mapped.back() > 0.)
    {
      read.pixelArea = feature->GetFieldAsDouble(area) / s.mapped.back();
    }
  }
  const auto strataCount = s.classes.size();
  std::vector<std::pair<std::size_t, int>> labels;
  std::set<int> others;
  for (const auto& feature : *points)
  {
    const auto stratum = position.find(feature->GetFieldAsInteger(of));
    if (stratum == position.end())
    {
      throw Error(Complaint("labelled", "a point of the stratum " + std::to_string(feature->GetFieldAsInteger(of)), "one of those in the table strata", ""));
    }
    if (!feature->IsFieldSetAndNotNull(label) || std::string(feature->GetFieldAsString(label)).empty())
    {
      ++read.unlabelled;
      continue;
    }
    const double value = feature->GetFieldAsDouble(label);
    if (value != std::floor(value))
    {
      throw Error(Complaint("labelled", "the label " + std::string(feature->GetFieldAsString(label)), "whole numbers: the values of the map", ""));
    }
    labels.emplace_back(stratum->second, static_cast<int>(value));
    others.insert(static_cast<int>(value));
    ++read.labelled;
  }
  for (const int value : others)
  {
    if (position.emplace(value, s.classes.size()).second)
    {
      s.classes.push_back(value);
      read.names.push_back(std::to_string(value));
    }
  }
  s.count.assign(strataCount, std::vector<std::int64_t>(s.classes.size(), 0));
  for (const auto& [h, value] : labels)
  {
    ++s.count[h][position[value]];
  }
  if (read.labelled == 0)
  {
    throw Error(Complaint("labelled", "no labelled point in \"" + file + "\"", "labels in the field " + field, "Fill them in, in QGIS say."));
  }
  return read;
}

} // namespace Wrapper
} // namespace otb
