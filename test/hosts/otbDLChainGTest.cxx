/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// Applications chained in memory with OTB's own: the same pixels as over files, nothing computed before it is asked for, nothing asked for that is not needed,
// the same instance run again.
#include "otbDLMapFilter.h"
#include "otbDLPipeline.h"

#include "otbImage.h"
#include "otbNoDataHelper.h"
#include "otbVectorImage.h"
#include "otbWrapperApplication.h"
#include "otbWrapperApplicationRegistry.h"

#include <gdal_priv.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <ogr_spatialref.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <unistd.h>

namespace
{

namespace fs = std::filesystem;
using otb::Wrapper::Application;
using otb::Wrapper::ApplicationRegistry;
using otbtest::MadeRegions;
using testing::AllOf;
using testing::HasSubstr;
using Region = itk::ImageRegion<2>;
using Pixels = std::vector<float>;

constexpr int width = 301, height = 263;
const std::string models = OTBDL_MODELS;

Region MakeRegion(int x, int y, int w, int h)
{
  Region region;
  region.SetIndex({{x, y}});
  region.SetSize({{static_cast<itk::SizeValueType>(w), static_cast<itk::SizeValueType>(h)}});
  return region;
}

const Region whole = MakeRegion(0, 0, width, height);

/** A scene with fields and texture; what differs between dates is a matter of `date`. A corner holds no data (0). */
void WriteScene(const std::string& path, int bands, int date, double step = 10., int columns = width, int rows = height)
{
  auto* driver = GetGDALDriverManager()->GetDriverByName("GTiff");
  std::unique_ptr<GDALDataset> file(driver->Create(path.c_str(), columns, rows, bands, GDT_UInt16, nullptr));
  double transform[] = {500000., step, 0., 4800000., 0., -step};
  file->SetGeoTransform(transform);
  OGRSpatialReference srs;
  srs.importFromEPSG(32631);
  file->SetSpatialRef(&srs);
  std::vector<std::uint16_t> values(static_cast<std::size_t>(columns) * rows);
  for (int b = 1; b <= bands; ++b)
  {
    for (int y = 0; y < rows; ++y)
    {
      for (int x = 0; x < columns; ++x)
      {
        const int u = static_cast<int>(x * step / 10.), v = static_cast<int>(y * step / 10.);
        const bool changed = date > 0 && ((u / 40 + v / 30 + date) % 7 == 0);
        const int field = (u / 23 * 31 + v / 19 * 17 + (changed ? 5 : 0)) % 11;
        const int noise = (u * 7919 + v * 104729 + b * 1299709 + date * 15485863) % 97;
        if (bands == 1) // a mask that leaves every 45th pixel
        {
          values[static_cast<std::size_t>(y) * columns + x] = x % 9 == 0 && y % 5 == 0;
          continue;
        }
        const int value = 20 + 11 * field + (b * field) % 13 + noise / 5;
        values[static_cast<std::size_t>(y) * columns + x] = static_cast<std::uint16_t>(u < 30 && v < 25 ? 0 : value);
      }
    }
    ASSERT_EQ(file->GetRasterBand(b)->RasterIO(GF_Write, 0, 0, columns, rows, values.data(), columns, rows, GDT_UInt16, 0, 0), CE_None);
    file->GetRasterBand(b)->SetNoDataValue(0.);
  }
}

/** All pixels of a file, bands interleaved. */
Pixels ReadFile(const std::string& path)
{
  std::unique_ptr<GDALDataset> file(GDALDataset::Open(path.c_str()));
  EXPECT_TRUE(file) << path;
  const int bands = file->GetRasterCount(), w = file->GetRasterXSize(), h = file->GetRasterYSize();
  Pixels pixels(static_cast<std::size_t>(w) * h * bands);
  EXPECT_EQ(file->RasterIO(GF_Read, 0, 0, w, h, pixels.data(), w, h, GDT_Float32, bands, nullptr, sizeof(float) * bands, sizeof(float) * bands * w, 4, nullptr),
            CE_None);
  return pixels;
}

/** Asks an image in memory for a region, as any consumer does. */
Pixels Ask(itk::ImageBase<2>* image, const Region& region)
{
  image->UpdateOutputInformation();
  image->SetRequestedRegion(region);
  image->PropagateRequestedRegion();
  image->UpdateOutputData();
  Pixels pixels;
  const auto add = [&](auto* typed, std::size_t bands)
  {
    const auto buffered = typed->GetBufferedRegion();
    for (long y = region.GetIndex(1); y <= region.GetUpperIndex()[1]; ++y)
    {
      const auto* row = typed->GetBufferPointer() +
                        ((y - buffered.GetIndex(1)) * buffered.GetSize(0) + static_cast<std::size_t>(region.GetIndex(0) - buffered.GetIndex(0))) * bands;
      pixels.insert(pixels.end(), row, row + region.GetSize(0) * bands);
    }
  };
  if (auto* vector = dynamic_cast<otb::VectorImage<float, 2>*>(image))
  {
    add(vector, vector->GetNumberOfComponentsPerPixel());
  }
  else if (auto* scalar = dynamic_cast<otb::Image<float, 2>*>(image))
  {
    add(scalar, 1);
  }
  else
  {
    ADD_FAILURE() << "an image of pixels that were not expected: " << image->GetNameOfClass();
  }
  return pixels;
}

/** A part of what is there as a whole. */
Pixels Cut(const Pixels& all, const Region& region)
{
  const std::size_t bands = all.size() / (static_cast<std::size_t>(width) * height);
  Pixels pixels;
  for (long y = region.GetIndex(1); y <= region.GetUpperIndex()[1]; ++y)
  {
    const auto row = all.begin() + static_cast<std::ptrdiff_t>((y * width + region.GetIndex(0)) * bands);
    pixels.insert(pixels.end(), row, row + static_cast<std::ptrdiff_t>(region.GetSize(0) * bands));
  }
  return pixels;
}

Application::Pointer Create(const std::string& name)
{
  auto app = ApplicationRegistry::CreateApplication(name, false);
  EXPECT_TRUE(app) << name << " is not in " << OTBDL_APPLICATIONS;
  return app;
}

std::string MessageOf(const std::function<void()>& f)
{
  try
  {
    f();
  }
  catch (const std::exception& e)
  {
    return e.what();
  }
  return "no error";
}

const otb::dl::MapFilter* FilterOf(Application* app, const std::string& key = "out")
{
  return dynamic_cast<const otb::dl::MapFilter*>(app->GetParameterOutputImage(key)->GetSource().GetPointer());
}

/** One of our applications with what it needs. Inputs are given apart: as files, or in memory. */
struct Case
{
  std::string name;
  std::string application;
  int bands;                       ///< of an input
  std::vector<std::string> inputs; ///< keys of image lists, one image each
  std::map<std::string, std::string> parameters;
  std::vector<std::string> outputs;
  bool scene = false; ///< does the method look at the whole scene before the first pixel?
  int halo = 0;       ///< pixels around a region that may be needed, patch included

  Application::Pointer Make() const
  {
    auto app = Create(application);
    for (const auto& [key, value] : parameters)
    {
      app->SetParameterString(key, value);
    }
    app->SetParameterInt("ram", 128);
    return app;
  }
};

std::ostream& operator<<(std::ostream& out, const Case& c)
{
  return out << c.name;
}

class Chain : public testing::TestWithParam<Case>
{
protected:
  static void SetUpTestSuite()
  {
    GDALAllRegister();
    ApplicationRegistry::SetApplicationPath(OTBDL_APPLICATIONS);
    fs::create_directories(Folder());
    over.clear();
    for (const int bands : {4, 6})
    {
      for (const int date : {0, 1})
      {
        WriteScene(File("date" + std::to_string(date + 1) + "-" + std::to_string(bands)), bands, date);
      }
    }
    WriteScene(File("series"), 4 * 9, 2);
    WriteScene(File("few"), 1, 0);
    std::ofstream dates(Dates());
    for (int month = 3; month < 12; ++month)
    {
      dates << "2018" << (month < 10 ? "0" : "") << month << "11\n";
    }
  }
  static void TearDownTestSuite() { fs::remove_all(Folder()); }

public:
  static std::string Folder() { return fs::temp_directory_path().string() + "/otbdl-chain-" + std::to_string(getpid()); }
  static std::string File(const std::string& name) { return Folder() + "/" + name + ".tif"; }
  static std::string Dates() { return Folder() + "/dates.txt"; }

protected:
  /** The file of an input. */
  static std::string Source(const Case& c, const std::string& key)
  {
    return key == "il" ? File("series") : File((key == "in2" ? "date2-" : "date1-") + std::to_string(c.bands));
  }

  /** OTB's own application upstream, one an input: for each an own. */
  static std::vector<Application::Pointer> Upstream(const Case& c)
  {
    std::vector<Application::Pointer> apps;
    for (const auto& key : c.inputs)
    {
      auto smooth = Create("Smoothing");
      smooth->SetParameterString("in", Source(c, key));
      smooth->SetParameterString("type", "mean");
      smooth->SetParameterInt("type.mean.radius", 1);
      apps.push_back(smooth);
    }
    return apps;
  }

  /** What upstream makes, in files: made once. */
  static std::string Smoothed(const Case& c, const std::string& key)
  {
    const std::string file = File("smooth-" + key + "-" + std::to_string(c.bands));
    if (!fs::exists(file))
    {
      auto smooth = Create("Smoothing");
      smooth->SetParameterString("in", Source(c, key));
      smooth->SetParameterString("type", "mean");
      smooth->SetParameterInt("type.mean.radius", 1);
      smooth->SetParameterString("out", file);
      smooth->ExecuteAndWriteOutput();
    }
    return file;
  }

  /** The maps over files. */
  static std::map<std::string, Pixels> OverFiles(const Case& c)
  {
    if (!c.name.empty() && over.count(c.name))
    {
      return over[c.name];
    }
    auto app = c.Make();
    for (const auto& key : c.inputs)
    {
      app->SetParameterStringList(key, {Smoothed(c, key)});
    }
    for (const auto& key : c.outputs)
    {
      app->SetParameterString(key, File("files-" + key));
    }
    app->ExecuteAndWriteOutput();
    std::map<std::string, Pixels> maps;
    for (const auto& key : c.outputs)
    {
      maps[key] = ReadFile(File("files-" + key));
      EXPECT_FALSE(maps[key].empty());
    }
    over[c.name] = maps;
    return maps;
  }

  /** Ours behind upstream. */
  static Application::Pointer Behind(const Case& c, const std::vector<Application::Pointer>& upstream)
  {
    auto app = c.Make();
    for (std::size_t k = 0; k < c.inputs.size(); ++k)
    {
      upstream[k]->Execute();
      app->AddImageToParameterInputImageList(c.inputs[k], upstream[k]->GetParameterOutputImage("out"));
    }
    for (const auto& key : c.outputs)
    {
      app->EnableParameter(key);
    }
    return app;
  }

private:
  static std::map<std::string, std::map<std::string, Pixels>> over; ///< by the names of cases
};

std::map<std::string, std::map<std::string, Pixels>> Chain::over;

TEST_P(Chain, InMemoryGivesThePixelsOfFiles)
{
  const auto& c = GetParam();
  const auto expected = OverFiles(c);
  auto upstream = Upstream(c);
  auto app = Behind(c, upstream);
  app->Execute();
  for (const auto& key : c.outputs)
  {
    // Of everything that comes next an ExtractROI takes a window; a BandMath all of it.
    auto window = Create("ExtractROI");
    window->SetParameterInputImage("in", app->GetParameterOutputImage(key));
    window->SetParameterInt("startx", 100);
    window->SetParameterInt("starty", 90);
    window->SetParameterInt("sizex", 70);
    window->SetParameterInt("sizey", 50);
    window->Execute();
    EXPECT_EQ(Ask(window->GetParameterOutputImage("out"), MakeRegion(0, 0, 70, 50)), Cut(expected.at(key), MakeRegion(100, 90, 70, 50))) << key;
  }
  auto twice = Create("BandMath");
  twice->AddImageToParameterInputImageList("il", app->GetParameterOutputImage("out"));
  twice->SetParameterString("exp", "2*im1b1");
  twice->SetParameterString("out", File("twice"));
  twice->ExecuteAndWriteOutput();
  const auto doubled = ReadFile(File("twice"));
  const auto& out = expected.at("out");
  ASSERT_EQ(doubled.size(), out.size());
  for (std::size_t i = 0; i < out.size(); ++i)
  {
    ASSERT_EQ(doubled[i], 2.f * out[i]) << i;
  }
}

TEST_P(Chain, ExecuteComputesNothingAndReadsNothing)
{
  const auto& c = GetParam();
  auto upstream = Upstream(c);
  auto app = Behind(c, upstream);
  std::vector<std::unique_ptr<MadeRegions>> made;
  for (const auto& u : upstream)
  {
    made.push_back(std::make_unique<MadeRegions>(u->GetParameterOutputImage("out")->GetSource()));
  }
  app->Execute();
  app->GetParameterOutputImage("out")->UpdateOutputInformation();
  ASSERT_TRUE(FilterOf(app));
  EXPECT_EQ(FilterOf(app)->GetStatistics().modelCalls, 0);
  for (const auto& m : made)
  {
    EXPECT_TRUE(m->regions.empty()) << "upstream was asked for pixels before anyone asked for any";
  }
}

TEST_P(Chain, ASmallRegionAsksForWhatItNeeds)
{
  const auto& c = GetParam();
  const auto expected = OverFiles(c);
  auto upstream = Upstream(c);
  auto app = Behind(c, upstream);
  if (c.application != "TimeSeriesClassify") // measures windows all over the scene
  {
    app->SetParameterString("coreg", "none");
  }
  app->Execute();
  std::vector<std::unique_ptr<MadeRegions>> made;
  for (const auto& u : upstream)
  {
    made.push_back(std::make_unique<MadeRegions>(u->GetParameterOutputImage("out")->GetSource()));
  }
  const auto small = MakeRegion(140, 120, 9, 7);
  EXPECT_EQ(Ask(app->GetParameterOutputImage("out"), small), Cut(expected.at("out"), small));
  for (const auto& m : made)
  {
    ASSERT_FALSE(m->regions.empty());
    auto allowed = small;
    allowed.PadByRadius(c.halo);
    allowed.Crop(whole);
    if (c.scene)
    {
      EXPECT_EQ(m->Box(), whole) << "a score of the scene needs the scene";
      m->regions.clear();
    }
    else
    {
      EXPECT_TRUE(allowed.IsInside(m->Box())) << m->Box() << allowed;
    }
  }
  // Another one: what the scene taught is kept.
  const auto other = MakeRegion(20, 200, 5, 5);
  EXPECT_EQ(Ask(app->GetParameterOutputImage("out"), other), Cut(expected.at("out"), other));
  for (const auto& m : made)
  {
    EXPECT_TRUE(!c.scene || m->regions.empty());
  }
}

TEST_P(Chain, TheSameInstanceRunsAgain)
{
  const auto& c = GetParam();
  auto upstream = Upstream(c), others = Upstream(c);
  auto app = Behind(c, upstream);
  app->Execute();
  const auto region = MakeRegion(90, 80, 120, 40);
  const auto first = Ask(app->GetParameterOutputImage("out"), region);
  app->Execute();
  EXPECT_EQ(Ask(app->GetParameterOutputImage("out"), region), first);

  // Other inputs: those of the first run, exchanged or smoothed more.
  const auto change = [&](Application* which)
  {
    for (std::size_t k = 0; k < c.inputs.size(); ++k)
    {
      const auto& from = others[c.inputs.size() - 1 - k];
      from->SetParameterInt("type.mean.radius", 3);
      from->Execute();
      which->ClearParameterInputImageList(c.inputs[k]);
      which->AddImageToParameterInputImageList(c.inputs[k], from->GetParameterOutputImage("out"));
    }
  };
  change(app);
  app->Execute();
  const auto changed = Ask(app->GetParameterOutputImage("out"), region);
  auto fresh = Behind(c, upstream);
  change(fresh);
  fresh->Execute();
  EXPECT_EQ(changed, Ask(fresh->GetParameterOutputImage("out"), region));

  // A run that fails leaves nothing behind.
  app->SetParameterString("contract", Folder() + "/no-such.json");
  if (!c.parameters.count("model"))
  {
    app->SetParameterString("model", Folder() + "/no-such.pt");
  }
  EXPECT_NE(MessageOf([&] { app->Execute(); }), "no error");
  app->ClearValue("contract");
  app->DisableParameter("contract");
  if (!c.parameters.count("model"))
  {
    app->ClearValue("model");
    app->DisableParameter("model");
  }
  app->Execute();
  EXPECT_EQ(Ask(app->GetParameterOutputImage("out"), region), changed);
}

TEST_P(Chain, InstancesSideBySide)
{
  const auto& c = GetParam();
  const auto expected = OverFiles(c);
  auto upstream = Upstream(c), upstream2 = Upstream(c);
  auto app = Behind(c, upstream), app2 = Behind(c, upstream2);
  app->Execute();
  app2->Execute();
  for (int y = 0; y < height; y += 90)
  {
    const auto strip = MakeRegion(0, y, width, std::min(90, height - y)), tile = MakeRegion(60, y, 80, 20);
    EXPECT_EQ(Ask(app->GetParameterOutputImage("out"), strip), Cut(expected.at("out"), strip));
    EXPECT_EQ(Ask(app2->GetParameterOutputImage("out"), tile), Cut(expected.at("out"), tile));
  }
}

TEST_P(Chain, FirstInMemoryThenIntoAFile)
{
  const auto& c = GetParam();
  const auto expected = OverFiles(c);
  auto upstream = Upstream(c);
  auto app = Behind(c, upstream);
  app->Execute();
  const auto region = MakeRegion(200, 30, 60, 60);
  EXPECT_EQ(Ask(app->GetParameterOutputImage("out"), region), Cut(expected.at("out"), region));
  for (const auto& key : c.outputs)
  {
    app->SetParameterString(key, File("after-" + key));
  }
  app->ExecuteAndWriteOutput();
  for (const auto& key : c.outputs)
  {
    EXPECT_EQ(ReadFile(File("after-" + key)), expected.at(key)) << key;
  }
  app->Execute();
  EXPECT_EQ(Ask(app->GetParameterOutputImage("out"), region), Cut(expected.at("out"), region)) << "and in memory again";
}

TEST_P(Chain, NoDataAndProjectionTravelOn)
{
  const auto& c = GetParam();
  auto upstream = Upstream(c);
  auto app = Behind(c, upstream);
  app->Execute();
  auto window = Create("ExtractROI");
  window->SetParameterInputImage("in", app->GetParameterOutputImage("out"));
  window->SetParameterInt("startx", 10);
  window->SetParameterInt("starty", 20);
  window->SetParameterInt("sizex", 40);
  window->SetParameterInt("sizey", 30);
  window->SetParameterString("out", File("window"));
  window->ExecuteAndWriteOutput();
  std::unique_ptr<GDALDataset> file(GDALDataset::Open(File("window").c_str()));
  ASSERT_TRUE(file);
  int declared = 0;
  const double noData = file->GetRasterBand(1)->GetNoDataValue(&declared);
  const auto own = Create(c.application);
  auto* image = app->GetParameterOutputImage("out");
  std::vector<bool> flags;
  std::vector<double> values;
  ASSERT_TRUE(otb::ReadNoDataFlags(dynamic_cast<otb::ImageCommons*>(image)->GetImageMetadata(), flags, values));
  EXPECT_TRUE(declared);
  EXPECT_EQ(noData, values.front());
  EXPECT_EQ(ReadFile(File("window")).front(), static_cast<float>(noData)) << "the corner of the scene holds none";
  double transform[6];
  ASSERT_EQ(file->GetGeoTransform(transform), CE_None);
  EXPECT_EQ(transform[0], 500100.);
  EXPECT_EQ(transform[3], 4799800.);
  ASSERT_TRUE(file->GetSpatialRef());
  EXPECT_STREQ(file->GetSpatialRef()->GetAuthorityCode(nullptr), "32631");
}

TEST_P(Chain, WhatFeedsItFeedsOthersToo)
{
  const auto& c = GetParam();
  const auto expected = OverFiles(c);
  const auto input = ReadFile(Smoothed(c, c.inputs.front()));
  auto upstream = Upstream(c);
  auto app = Behind(c, upstream);
  app->Execute();
  for (const bool before : {true, false})
  {
    auto both = Create("BandMath");
    auto* own = app->GetParameterOutputImage("out");
    auto* theirs = upstream.front()->GetParameterOutputImage("out");
    both->AddImageToParameterInputImageList("il", before ? theirs : own);
    both->AddImageToParameterInputImageList("il", before ? own : theirs);
    both->SetParameterString("exp", before ? "im1b1+im2b1" : "im2b1+im1b1");
    both->SetParameterString("out", File("both") + "?&streaming:type=tiled&streaming:sizemode=height&streaming:sizevalue=100");
    both->ExecuteAndWriteOutput();
    const auto pixels = ReadFile(File("both"));
    const std::size_t step = expected.at("out").size() / pixels.size(), inputStep = input.size() / pixels.size();
    for (std::size_t i = 0; i < pixels.size(); ++i)
    {
      ASSERT_EQ(pixels[i], static_cast<float>(static_cast<double>(input[i * inputStep]) + expected.at("out")[i * step])) << i;
    }
  }
}

TEST_P(Chain, AnOutputIsMadeInMemoryWhenEnabledAndGoneWhenNot)
{
  const auto& c = GetParam();
  if (c.outputs.size() < 2)
  {
    return; // nothing but out
  }
  auto upstream = Upstream(c);
  auto app = Behind(c, upstream);
  app->Execute();
  const std::string key = c.outputs[1];
  EXPECT_TRUE(app->GetParameterOutputImage(key));
  app->DisableParameter(key);
  app->Execute();
  EXPECT_FALSE(app->GetParameterOutputImage(key)) << "that of the run before";
  EXPECT_TRUE(app->GetParameterOutputImage("out"));
}

INSTANTIATE_TEST_SUITE_P(
    Applications, Chain,
    testing::Values(Case{"SiameseCD", "SiameseCD", 6, {"in1", "in2"}, {{"model", models + "/demo-l7.pt"}}, {"out", "proba", "conf"}, false, 192},
                    Case{"TimeSeriesClassify",
                         "TimeSeriesClassify",
                         36,
                         {"il"},
                         {{"model", models + "/sits-s2-crops.pt"}, {"dates", Chain::Dates()}, {"mask", Chain::File("few")}},
                         {"out", "probamap", "nvalid"},
                         false,
                         2},
                    Case{"Regress", "ChangeLikelihood", 4, {"in1", "in2"}, {}, {"out", "change", "which"}, true},
                    Case{"IrMad", "ChangeLikelihood", 4, {"in1", "in2"}, {{"estimator", "irmad"}}, {"out", "pvalue"}, true},
                    Case{"Feature", "ChangeLikelihood", 4, {"in1", "in2"}, {{"model", models + "/flow-s2.pt"}, {"estimator", "feature"}}, {"out"}, true}),
    [](const auto& info) { return info.param.name; });

/** What is said of one application only. */
class ChainOf : public Chain
{
};

TEST_F(ChainOf, WhatUpstreamIsToldIsThePatchesOfTheRegion)
{
  const Case c{"", "SiameseCD", 6, {"in1", "in2"}, {{"model", models + "/demo-l7.pt"}, {"coreg", "none"}}, {"out"}};
  auto upstream = Upstream(c);
  auto app = Behind(c, upstream);
  app->Execute();
  app->PropagateRequestedRegion("out", MakeRegion(100, 100, 20, 10));
  // Patches of 192 with a halo of 24 (23 in the contract, rounded up to the network's stride of 4) lie on a grid of 144; mirrored at the image's edge.
  EXPECT_EQ(upstream[0]->GetImageRequestedRegion("out"), MakeRegion(0, 0, 168, 168));
  EXPECT_EQ(upstream[1]->GetImageRequestedRegion("out"), MakeRegion(0, 0, 168, 168));
  app->PropagateRequestedRegion("out", MakeRegion(150, 100, 20, 10));
  EXPECT_EQ(upstream[0]->GetImageRequestedRegion("out"), MakeRegion(120, 0, 181, 168));
}

TEST_F(ChainOf, TheThresholdOfASecondRunIsItsOwn)
{
  const Case c{"", "SiameseCD", 6, {"in1", "in2"}, {{"model", models + "/demo-l7.pt"}}, {"out", "proba"}};
  auto upstream = Upstream(c);
  auto app = Behind(c, upstream);
  for (const float threshold : {.3f, .7f})
  {
    app->SetParameterFloat("thr", threshold);
    app->Execute();
    const auto out = Ask(app->GetParameterOutputImage("out"), whole), proba = Ask(app->GetParameterOutputImage("proba"), whole);
    for (std::size_t i = 0; i < out.size(); ++i)
    {
      ASSERT_EQ(out[i], proba[i] < 0.f ? 255.f : proba[i] >= threshold ? 1.f : 0.f) << i;
    }
  }
}

TEST_F(ChainOf, AWriterDownstreamHasNothingInferredTwice)
{
  const Case c{"", "SiameseCD", 6, {"in1", "in2"}, {{"model", models + "/demo-l7.pt"}, {"batch", "4"}, {"coreg", "none"}}, {"out"}};
  auto upstream = Upstream(c);
  auto app = Behind(c, upstream);
  app->Execute();
  auto math = Create("BandMath");
  math->AddImageToParameterInputImageList("il", app->GetParameterOutputImage("out"));
  math->SetParameterString("exp", "im1b1");
  math->SetParameterString("out", File("tiles") + "?&streaming:type=tiled&streaming:sizemode=height&streaming:sizevalue=100");
  math->ExecuteAndWriteOutput();
  const auto s = FilterOf(app)->GetStatistics();
  EXPECT_EQ(s.samplesInferred, 3 * 2);
  EXPECT_EQ(s.samplesRepeated, 0);
  EXPECT_LE(s.modelCalls, 1 + s.MinimumCalls(4)) << "the first tile is by itself";
}

TEST_F(ChainOf, ConnectedApplicationsRunByThemselves)
{
  const Case c{"", "SiameseCD", 6, {"in1", "in2"}, {{"model", models + "/demo-l7.pt"}}, {"out"}};
  const auto expected = OverFiles(c);
  auto upstream = Upstream(c);
  auto app = c.Make();
  auto down = Create("ExtractROI");
  for (std::size_t k = 0; k < 2; ++k)
  {
    upstream[k]->Execute();
    app->AddImageToParameterInputImageList(c.inputs[k], upstream[k]->GetParameterOutputImage("out"));
  }
  down->ConnectImage("in", app, "out");
  down->Execute();
  EXPECT_EQ(Ask(down->GetParameterOutputImage("out"), whole), expected.at("out"));
}

TEST_F(ChainOf, FilesAndImagesInMemoryMayBeMixed)
{
  const Case c{"", "SiameseCD", 6, {"in1", "in2"}, {{"model", models + "/demo-l7.pt"}}, {"out"}};
  const auto expected = OverFiles(c);
  auto upstream = Upstream(c);
  auto app = c.Make();
  upstream[1]->Execute();
  app->SetParameterStringList("in1", {Smoothed(c, "in1") + "?&bands=1,2"});
  auto rest = Create("ExtractROI");
  rest->SetParameterString("in", Smoothed(c, "in1") + "?&bands=3,4,5,6");
  rest->Execute();
  app->AddImageToParameterInputImageList("in1", rest->GetParameterOutputImage("out"));
  app->AddImageToParameterInputImageList("in2", upstream[1]->GetParameterOutputImage("out"));
  app->Execute();
  EXPECT_EQ(Ask(app->GetParameterOutputImage("out"), whole), expected.at("out"));
}

TEST_F(ChainOf, ImagesInMemoryOnAnotherGridAreRefused)
{
  WriteScene(File("coarse"), 6, 1, 20., (width + 1) / 2, (height + 1) / 2);
  auto coarse = Create("ExtractROI");
  coarse->SetParameterString("in", File("coarse"));
  coarse->Execute();
  auto app = Create("SiameseCD");
  app->SetParameterString("model", models + "/demo-l7.pt");
  app->SetParameterStringList("in1", {File("date1-6")});
  app->AddImageToParameterInputImageList("in2", coarse->GetParameterOutputImage("out"));
  for (const char* align : {"strict", "resample"})
  {
    app->SetParameterString("align", align);
    EXPECT_THAT(MessageOf([&] { app->Execute(); }), AllOf(HasSubstr("in2: found size 151 x 132"), HasSubstr("Superimpose")));
  }
  // Brought onto it by OTB in memory, it is taken.
  auto superimpose = Create("Superimpose");
  superimpose->SetParameterString("inr", File("date1-6"));
  superimpose->SetParameterInputImage("inm", coarse->GetParameterOutputImage("out"));
  superimpose->Execute();
  app->ClearParameterInputImageList("in2");
  app->AddImageToParameterInputImageList("in2", superimpose->GetParameterOutputImage("out"));
  app->Execute();
  EXPECT_EQ(Ask(app->GetParameterOutputImage("out"), whole).size(), static_cast<std::size_t>(width) * height);
}

TEST_F(ChainOf, AMaskMadeFromTheFirstDateInMemory)
{
  const Case c{"", "SiameseCD", 6, {"in1", "in2"}, {{"model", models + "/demo-l7.pt"}}, {"out"}};
  // A neighbourhood upstream: it asks the first date for more than the application itself.
  const std::string expression = "vect2scal(mean(im1b1N5x5)) > 90 ? 0 : 1";
  auto file = Create("BandMathX");
  file->SetParameterStringList("il", {Smoothed(c, "in1")});
  file->SetParameterString("exp", expression);
  file->SetParameterString("out", File("mask"));
  file->ExecuteAndWriteOutput();
  auto over = c.Make();
  over->SetParameterStringList("in1", {Smoothed(c, "in1")});
  over->SetParameterStringList("in2", {Smoothed(c, "in2")});
  over->SetParameterString("mask", File("mask"));
  over->SetParameterString("out", File("masked"));
  over->ExecuteAndWriteOutput();
  const auto expected = ReadFile(File("masked"));

  auto upstream = Upstream(c);
  auto app = Behind(c, upstream);
  auto mask = Create("BandMathX");
  mask->AddImageToParameterInputImageList("il", upstream[0]->GetParameterOutputImage("out"));
  mask->SetParameterString("exp", expression);
  mask->Execute();
  app->SetParameterInputImage("mask", mask->GetParameterOutputImage("out"));
  app->Execute();
  EXPECT_EQ(Ask(app->GetParameterOutputImage("out"), whole), expected);
}

TEST_F(ChainOf, RadiometryAndShiftAreMeasuredWithTheFirstRegion)
{
  const Case c{"", "SiameseCD", 6, {"in1", "in2"}, {{"model", models + "/demo-l7.pt"}, {"radiometry", "match"}}, {"out", "proba"}};
  const std::string message = MessageOf([&] { OverFiles(c); });
  auto upstream = Upstream(c);
  auto app = Behind(c, upstream);
  MadeRegions made(upstream[1]->GetParameterOutputImage("out")->GetSource());
  if (message != "no error")
  {
    EXPECT_EQ(MessageOf(
                  [&]
                  {
                    app->Execute();
                    Ask(app->GetParameterOutputImage("out"), MakeRegion(0, 0, 5, 5));
                  }),
              message);
    return;
  }
  const auto expected = OverFiles(c);
  app->Execute();
  EXPECT_TRUE(made.regions.empty());
  const auto region = MakeRegion(100, 100, 30, 30);
  EXPECT_EQ(Ask(app->GetParameterOutputImage("proba"), region), Cut(expected.at("proba"), region));
  EXPECT_EQ(made.Box(), whole);
  EXPECT_EQ(Ask(app->GetParameterOutputImage("proba"), whole), expected.at("proba"));
}

TEST_F(ChainOf, WhatNeedsFilesSaysSo)
{
  const Case pair{"", "ChangeLikelihood", 4, {"in1", "in2"}, {}, {"out"}};
  auto upstream = Upstream(pair);
  auto app = Behind(pair, upstream);
  app->SetParameterString("objects", Folder() + "/objects.gpkg");
  EXPECT_THAT(MessageOf([&] { app->Execute(); }), AllOf(HasSubstr("objects: found no -change"), HasSubstr("Give -change a file name")));
  app->ClearValue("objects");
  app->DisableParameter("objects");
  app->SetParameterString("calibrate", Folder() + "/calibration.json");
  EXPECT_THAT(MessageOf([&] { app->Execute(); }), HasSubstr("calibrate: found outputs that are made in memory only"));
  app->ClearValue("calibrate");
  app->DisableParameter("calibrate");
  app->SetParameterString("coreg", "shift");
  EXPECT_THAT(MessageOf([&] { app->Execute(); }), HasSubstr("coreg: found shift for an image of in2 that another application made in memory"));
  app->SetParameterString("coreg", "report");
  app->Execute();
  EXPECT_FALSE(fs::exists(Folder() + "/objects.gpkg"));

  // Dates of a series are read from names, which images in memory have not.
  const Case series{"", "TimeSeriesClassify", 36, {"il"}, {{"model", models + "/sits-s2-crops.pt"}}, {"out"}};
  auto stack = Upstream(series);
  auto undated = Behind(series, stack);
  EXPECT_THAT(MessageOf([&] { undated->Execute(); }), HasSubstr("dates"));
}

} // namespace
