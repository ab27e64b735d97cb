/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// What DLApplication does for pairs of dates: one grid for all files, the shift between the dates, their radiometry.

#include "otbDLApplication.h"

#include "otbDLError.h"
#include "otbDLPairShift.h"
#include "otbDLPairStatistics.h"
#include "otbDLRadiometry.h"
#include "otbDLRasters.h"
#include "otbDLSceneScore.h"

#include "otbImageCommons.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iomanip>
#include <set>
#include <sstream>

namespace otb
{
namespace Wrapper
{

namespace fs = std::filesystem;
using otb::dl::Complaint;
using otb::dl::Error;

namespace
{

/** Pixels this much larger are those of another resolution, not of a grid that was cut or warped a little differently. */
constexpr double coarser = 1.25;

std::string ProjectionOf(const itk::ImageBase<2>* image)
{
  return dynamic_cast<const otb::ImageCommons&>(*image).GetProjectionRef();
}

/** Are the pixels of an image coarser than those of another in a projection that both name? */
bool IsCoarser(const itk::ImageBase<2>* image, const itk::ImageBase<2>* than)
{
  const std::string wkt = ProjectionOf(image);
  return image->GetSpacing()[0] >= coarser * than->GetSpacing()[0] && image->GetSpacing()[1] >= coarser * than->GetSpacing()[1] && !wkt.empty() &&
         otb::dl::SameProjection(wkt, ProjectionOf(than));
}

bool IsOnGrid(const itk::ImageBase<2>* reference, const itk::ImageBase<2>* image)
{
  try
  {
    otb::dl::CheckSameGrid(reference, "", image, "");
    return true;
  }
  catch (const Error&)
  {
    return false;
  }
}

/** Left, upper, right and lower edge of an image. */
std::array<double, 4> EdgesOf(const itk::ImageBase<2>* image)
{
  std::array<double, 4> edges;
  for (int d = 0; d < 2; ++d)
  {
    const double step = (image->GetDirection()[d][d] < 0. ? -1. : 1.) * image->GetSpacing()[d];
    edges[d] = image->GetOrigin()[d] - .5 * step;
    edges[d + 2] = edges[d] + step * static_cast<double>(image->GetLargestPossibleRegion().GetSize(d));
  }
  return edges;
}

/** A file of coarser bands must show what the grid shows, but for what its larger pixels cannot say. */
void CheckExtent(const itk::ImageBase<2>* reference, const std::string& referenceName, const itk::ImageBase<2>* image, const std::string& name)
{
  const auto wanted = EdgesOf(reference), found = EdgesOf(image);
  bool good = true;
  for (int k = 0; k < 4; ++k)
  {
    good = good && std::abs(wanted[k] - found[k]) <= .5 * image->GetSpacing()[k % 2] * (1. + 1e-6);
  }
  if (!good)
  {
    const auto text = [](const std::array<double, 4>& e)
    {
      std::ostringstream out;
      out << std::setprecision(12) << "edges " << e[0] << ", " << e[1] << ", " << e[2] << ", " << e[3];
      return out.str();
    };
    throw Error(Complaint(name, "coarser bands with " + text(found), text(wanted) + " as " + referenceName + ", to half of its pixels",
                          "Resample what there is, with -align resample."));
  }
}

std::string Short(double value)
{
  std::ostringstream text;
  text << std::setprecision(2) << value;
  return text.str();
}

/** Shift that is worth a warning, pixels. */
constexpr double farApart = .5;

/** Shift that is not worth another resampling, pixels. */
constexpr double closeEnough = .05;

/** Two images of a source of several. */
class TwoOf : public otb::dl::PixelSource
{
public:
  TwoOf(std::shared_ptr<otb::dl::PixelSource> all, std::size_t first, std::size_t second) : m_All(std::move(all)), m_First(first), m_Second(second) {}

  otb::dl::PixelBlock Read(const otb::dl::Region& region) override
  {
    auto block = m_All->Read(region);
    return {block.region, {block.bands[m_First], block.bands[m_Second]}, block.mask};
  }

private:
  std::shared_ptr<otb::dl::PixelSource> m_All;
  std::size_t m_First;
  std::size_t m_Second;
};

/** The two dates of a filter's inputs, with the places of theirs. */
struct Dates
{
  Dates(otb::dl::PatchMapFilter* filter, const std::vector<otb::dl::PatchMapFilter::Input>& inputs)
  {
    for (std::size_t k = inputs.size(); k-- > 0;)
    {
      if (!inputs[k].images.empty())
      {
        (inputs[k].model.date == 1 ? first : second) = k;
      }
    }
    const auto normalisations = filter->MakeNormalisations();
    pixels = std::make_shared<TwoOf>(filter->MakePixelSource(), first, second);
    normalisation = {normalisations[first], normalisations[second]};
    const auto size = inputs[first].images.front()->GetLargestPossibleRegion().GetSize();
    width = static_cast<std::int64_t>(size[0]);
    height = static_cast<std::int64_t>(size[1]);
  }
  std::size_t first = 0;
  std::size_t second = 0;
  std::shared_ptr<otb::dl::PixelSource> pixels;
  std::vector<otb::dl::InputNormalisation> normalisation;
  std::int64_t width = 0;
  std::int64_t height = 0;
};

otb::dl::ShiftEstimate Measure(otb::dl::PatchMapFilter* filter, const std::vector<otb::dl::PatchMapFilter::Input>& inputs)
{
  Dates dates(filter, inputs);
  otb::dl::SceneReader reader(dates.pixels, dates.normalisation, dates.width, dates.height);
  return otb::dl::EstimateShift(reader, {});
}

/** "41 of 64 windows of 256 pixels agree, confidence 0.35, spread 0.08 px" */
std::string Quality(const otb::dl::ShiftEstimate& shift)
{
  std::ostringstream text;
  text << shift.agreeing << " of " << shift.windows << " windows of " << shift.side << " pixels agree, confidence " << std::fixed << std::setprecision(2)
       << shift.confidence << ", spread " << shift.spread << " px";
  return text.str();
}

/** Why there is no measure. */
std::string Doubt(const otb::dl::ShiftEstimate& shift)
{
  if (shift.windows == 0)
  {
    return "the images are smaller than 32 pixels";
  }
  return "of " + std::to_string(shift.windows) + " windows of " + std::to_string(shift.side) + " pixels " + std::to_string(shift.clear) +
         " have a clear peak and " + std::to_string(shift.agreeing) + " agree: too little data, texture or likeness";
}

} // namespace

void DLApplication::AddAlignParameter()
{
  AddParameter(ParameterType_Choice, "align", "Files on different grids");
  SetParameterDescription(
      "align", "What becomes of files that do not lie on the grid of the first date, that of its finest bands. Coarser bands of a date with the same "
               "extent are always resampled onto it");
  AddChoice("align.strict", "An error that says how they differ");
  AddChoice("align.resample", "They are resampled onto it (cubic convolution); without a georeference they share the upper left corner");
  MandatoryOff("align");

  AddParameter(ParameterType_Choice, "coreg", "Shift between the dates");
  SetParameterDescription("coreg", "What is done about the shift of date 2 against date 1, which is measured on up to 64 windows (phase correlation)");
  AddChoice("coreg.report", "It is logged, with a warning above half a pixel");
  AddChoice("coreg.shift", "Date 2 is moved by it (cubic convolution), together with any other resampling");
  AddChoice("coreg.none", "It is not measured");
  MandatoryOff("coreg");
}

DLApplication::Grid DLApplication::ChooseGrid(const std::string& key)
{
  Grid grid;
  auto* images = GetParameterImageList(key);
  const auto names = GetParameterStringList(key);
  for (unsigned int k = 0; k < images->Size(); ++k)
  {
    itk::ImageBase<2>* image = images->GetNthElement(k);
    if (!grid.image || IsCoarser(grid.image, image))
    {
      grid.image = image;
      grid.name = key + (k < names.size() && !names[k].empty() ? " (" + fs::path(SplitName(names[k]).first).filename().string() + ")" : "");
    }
  }
  grid.resample = GetParameterString("align") == "resample";
  return grid;
}

otb::dl::PatchMapFilter::Input DLApplication::MakeInput(const std::string& key, const otb::dl::ModelInput& model, const Grid& grid, const std::string& method,
                                                        const std::array<double, 2>& shift)
{
  otb::dl::PatchMapFilter::Input input;
  input.model = model;
  auto* images = GetParameterImageList(key);
  const auto names = GetParameterStringList(key);
  itk::ImageBase<2>::Pointer finest;
  for (unsigned int k = 0; k < images->Size(); ++k)
  {
    itk::ImageBase<2>* image = images->GetNthElement(k);
    finest = !finest || IsCoarser(finest, image) ? image : finest.GetPointer();
  }
  Resampling how;
  how.method = method;
  how.isNoData = method != "near";
  if (how.isNoData)
  {
    how.noData = model.noData;
    how.allBands = model.noDataRule == otb::dl::NoDataRule::All;
  }
  how.shift[0] = shift[0];
  how.shift[1] = shift[1];
  const bool moved = shift[0] != 0. || shift[1] != 0.;
  std::set<std::string> factors;
  unsigned int coarse = 0, aligned = 0;
  for (unsigned int k = 0; k < images->Size(); ++k)
  {
    input.images.emplace_back(images->GetNthElement(k));
    itk::ImageBase<2>* image = input.images.back();
    const bool named = k < names.size() && !names[k].empty(); // else made in memory
    const std::string name = named ? fs::path(SplitName(names[k]).first).filename().string() : "";
    input.names.push_back(key + (named ? " (" + name + ")" : ""));
    if (named)
    {
      this->NoteInputFile(names[k]);
    }
    if (!grid.image || (!moved && (!named || IsOnGrid(grid.image, image))))
    {
      continue; // what does not fit and has no file is the filter's to complain about
    }
    const bool isCoarse = IsCoarser(image, finest);
    if (!grid.resample && isCoarse)
    {
      CheckExtent(grid.image, grid.name, image, input.names.back());
    }
    else if (!grid.resample)
    {
      otb::dl::CheckSameGrid(grid.image, grid.name, image, input.names.back(),
                             "Bring it onto that grid with -align resample, or beforehand with otbcli_Superimpose.");
    }
    bool resampled = false;
    const auto opened = m_Aligned.OpenOn(grid.image, grid.name, names[k], input.names.back(), how, resampled, true);
    if (resampled)
    {
      input.images.back() = dynamic_cast<FloatVectorImageType*>(opened.image.GetPointer());
      coarse += isCoarse;
      aligned += !isCoarse;
      if (isCoarse)
      {
        factors.insert(Short(image->GetSpacing()[0] / grid.image->GetSpacing()[0]));
      }
    }
  }
  if (input.images.empty())
  {
    throw Error(Complaint(key, "no image", "an image", ""));
  }
  const auto files = [&](unsigned int count) { return std::to_string(count) + " of its " + std::to_string(input.images.size()) + " file(s)"; };
  if (coarse > 0 && !moved)
  {
    std::string times;
    for (const auto& f : factors)
    {
      times += (times.empty() ? "" : ", ") + f;
    }
    otbAppLogINFO(<< key << ": " << files(coarse) << " with coarser pixels (" << times << " times) resampled onto the grid of " << grid.name << " (" << method
                  << ")");
  }
  if (aligned > 0 && !moved)
  {
    const bool corner = ProjectionOf(grid.image).empty();
    otbAppLogINFO(<< key << ": " << files(aligned) << " resampled onto the grid of " << grid.name << " (" << method << ")"
                  << (corner ? ", from the upper left corner: there is no georeference" : ""));
  }
  return input;
}

FloatVectorImageType::Pointer DLApplication::MakeMask(const std::string& key, const Grid& grid)
{
  this->NoteInput(key);
  FloatVectorImageType::Pointer mask = GetParameterImage(key);
  const std::string name = GetParameterString(key);
  if (grid.image && grid.resample && !name.empty())
  {
    Resampling how;
    how.method = "near";
    how.isNoData = false;
    how.noData = 0.; // not valid where there is nothing
    bool resampled = false;
    const auto opened = m_Aligned.OpenOn(grid.image, grid.name, name, key, how, resampled, true);
    if (resampled)
    {
      mask = dynamic_cast<FloatVectorImageType*>(opened.image.GetPointer());
      otbAppLogINFO(<< key << " is resampled onto the grid of " << grid.name << " (near)");
    }
  }
  return mask;
}

void DLApplication::PreparePair(otb::dl::PatchMapFilter* filter, const std::vector<otb::dl::PatchMapFilter::Input>& inputs, const Grid& grid, bool match)
{
  const std::string wish = GetParameterString("coreg");
  if (wish == "shift")
  {
    if (IsInMemory("in2"))
    {
      throw Error(Complaint("coreg", "shift for an image of in2 that another application made in memory", "files", "Write it to a file first."));
    }
  }
  if (match)
  {
    this->CheckRadiometry(inputs);
  }
  filter->SetFirstStep(
      [this, filter, inputs, grid, match, wish]
      {
        auto changed = inputs;
        this->Coregister(filter, changed, grid, wish);
        if (match)
        {
          this->MatchRadiometry(filter, changed);
        }
      });
}

void DLApplication::Coregister(otb::dl::PatchMapFilter* filter, std::vector<otb::dl::PatchMapFilter::Input>& inputs, const Grid& grid, const std::string& wish)
{
  if (wish == "none")
  {
    return;
  }
  const auto shift = Measure(filter, inputs);
  if (!shift.measured)
  {
    if (wish == "shift")
    {
      throw Error(Complaint("coreg", "a shift between the dates that cannot be measured (" + Doubt(shift) + ")", "two dates that show the same ground",
                            "Go on without a correction: -coreg report."));
    }
    otbAppLogINFO(<< "Shift between the dates: could not be measured (" << Doubt(shift) << ")");
    return;
  }
  otbAppLogINFO(<< "Shift of date 2 against date 1: " << shift.Direction() << " (" << Quality(shift) << ")");
  if (wish == "report")
  {
    if (shift.Length() > farApart)
    {
      otbAppLogWARNING(<< "The dates lie " << Short(shift.Length())
                       << " pixels apart, which may show as change along every edge. -coreg shift moves date 2 onto date 1.");
    }
    return;
  }
  if (shift.Length() < closeEnough)
  {
    otbAppLogINFO(<< "Date 2 is left as it is: less than " << closeEnough << " pixels are not worth a resampling");
    return;
  }
  for (auto& input : inputs)
  {
    if (input.model.date == 2 && !input.images.empty())
    {
      input = this->MakeInput("in2", input.model, grid, "cubic", {shift.x, shift.y});
    }
  }
  filter->SetInputs(inputs);
  filter->UpdateOutputInformation();
  const auto left = Measure(filter, inputs);
  if (left.measured)
  {
    otbAppLogINFO(<< "Date 2 is moved; shift that is left: " << left.Direction() << " (" << Quality(left) << ")");
  }
  if (!left.measured || left.Length() > farApart)
  {
    otbAppLogWARNING(<< "After date 2 was moved, the shift that is left " << (left.measured ? "is still " + left.Direction() : "cannot be measured")
                     << ". Look at the two images, or leave it: -coreg report.");
  }
}

void DLApplication::AddRadiometryParameter()
{
  AddParameter(ParameterType_Choice, "radiometry", "Radiometry of date 2");
  SetParameterDescription("radiometry", "Is it matched to that of date 1, before the scaling of the contract?");
  AddChoice("radiometry.none", "No");
  AddChoice("radiometry.match", "A gain and an offset a band, from pixels that did not change (IR-MAD)");
  MandatoryOff("radiometry");
}

void DLApplication::CheckRadiometry(const std::vector<otb::dl::PatchMapFilter::Input>& inputs) const
{
  for (const auto& contract : m_Contracts)
  {
    if (!contract.radiometricMatching)
    {
      throw Error(Complaint("radiometry", "match for model " + contract.id + ", whose contract forbids it (otb:radiometric_matching)", "none",
                            "The network was trained to tell by absolute values."));
    }
  }
  const auto of = [&](int date)
  { return std::find_if(inputs.begin(), inputs.end(), [=](const auto& in) { return !in.images.empty() && (in.model.date == 1) == (date == 1); }); };
  if (of(1) == inputs.end() || of(2) == inputs.end())
  {
    return;
  }
  const auto &first = of(1)->model, &second = of(2)->model;
  bool same = first.bands == second.bands && first.scaling.size() == second.scaling.size();
  for (std::size_t b = 0; same && b < first.scaling.size(); ++b)
  {
    const auto &p = first.scaling[b], &q = second.scaling[b];
    same = p.low == q.low && p.high == q.high && p.offset == q.offset && p.divisor == q.divisor;
  }
  if (!same)
  {
    throw Error(Complaint("radiometry", "match for a model whose contract names or scales the bands of its dates differently",
                          "the same bands and value_scaling on both dates", "Its scaling already treats the dates apart: take -radiometry none."));
  }
}

void DLApplication::MatchRadiometry(otb::dl::PatchMapFilter* filter, std::vector<otb::dl::PatchMapFilter::Input>& inputs)
{
  Dates dates(filter, inputs);
  otb::dl::PairScene scene{dates.pixels, dates.normalisation, dates.width, dates.height, .01, GetEngineSettings().threads, GetEngineSettings().readBytes};
  const auto match = otb::dl::MatchRadiometry(scene);
  const bool any = std::any_of(match.bands.begin(), match.bands.end(), [](const otb::dl::RadiometricBand& b) { return b.matched; });
  if (!any)
  {
    throw Error(
        Complaint("radiometry",
                  "match for dates with too little in common (" + std::to_string(match.invariant) + " invariant of " + std::to_string(match.valid) + " pixels)",
                  "at least 100 pixels that did not change, with a correlation of " + Short(otb::dl::leastRadiometricCorrelation) + " in some band",
                  "Take -radiometry none."));
  }
  auto& model = inputs[dates.second].model;
  otbAppLogINFO(<< "Radiometry of date 2, matched to date 1 on " << match.invariant << " of " << match.valid << " pixels (no-change probability above 0.95):");
  for (std::size_t b = 0; b < match.bands.size(); ++b)
  {
    const auto& band = match.bands[b];
    if (!band.matched)
    {
      otbAppLogWARNING(<< "Band " << model.bands[b] << " of date 2 stays as it is: where nothing changed its correlation with date 1 is "
                       << Short(band.correlation) << ", less than " << otb::dl::leastRadiometricCorrelation);
      continue;
    }
    std::ostringstream text;
    text << std::setprecision(5) << "  " << model.bands[b] << ": gain " << band.gain << ", offset " << band.offset << ", correlation " << band.correlation;
    otbAppLogINFO(<< text.str());
    model.scaling[b] = otb::dl::Matched(model.scaling[b], band);
  }
  filter->SetInputs(inputs);
  filter->UpdateOutputInformation();
}

} // namespace Wrapper
} // namespace otb
