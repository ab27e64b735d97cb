/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLApplication.h"

#include "otbDLChangeDecision.h"
#include "otbDLDates.h"
#include "otbDLError.h"
#include "otbDLPairFeatures.h"

#include "otbWrapperApplicationFactory.h"
#include "otbWrapperTags.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>

namespace otb
{
namespace Wrapper
{

/** \class SiameseCD
 * \brief Change detection between two dates with a two-date network: binary, or from one land cover to another.
 * \ingroup OTBTorch
 */
class SiameseCD : public DLApplication
{
public:
  using Self = SiameseCD;
  using Superclass = DLApplication;
  using Pointer = itk::SmartPointer<Self>;
  using ConstPointer = itk::SmartPointer<const Self>;

  itkNewMacro(Self);
  itkTypeMacro(SiameseCD, DLApplication);

private:
  using Decision = otb::dl::ChangeDecision;

  void DoInit() override
  {
    SetName("SiameseCD");
    SetDescription("Detect changes between two co-registered images with a Siamese or two-date network (TorchScript).");
    SetDocLongDescription("Runs a network exported from PyTorch over two images of the same grid, patch by patch, and writes a change map. "
                          "Bands, scaling, no-data, patch size, temperature and threshold come from the model's contract and are never guessed. "
                          "The map does not depend on streaming, tiles, memory or threads.\n\n"
                          "With a binary model, out holds 0 (no change) and 1 (change). With a semantic model it holds 0 or the from-to code "
                          "1 + i K + j, from class i to class j of the contract's K classes (counted from 0). No-data is 255 (65535 beyond 15 classes). "
                          "All outputs of a run share one inference.");
    SetDocLimitations("Both images must lie on the same grid, or be resampled onto it (-align resample).");
    SetDocAuthors("The OTBTorch authors");
    SetDocSeeAlso("MultivariateAlterationDetector, Superimpose");
    AddDocTag(Tags::ChangeDetection);
    AddDocTag(Tags::Learning);
    SetDocLink("doc/SiameseCD.md");

    AddParameter(ParameterType_InputImageList, "in1", "Image of the first date");
    SetParameterDescription("in1", "One or several files; their bands, in this order, are those that the model's contract names");
    AddParameter(ParameterType_InputImageList, "in2", "Image of the second date");
    SetParameterDescription("in2", "As in1, on the same grid");
    AddModelParameters();
    AddModelInfo("change-detection", {"model", "bands", "classes", "patches", "decision", "licence"});

    AddParameter(ParameterType_OutputImage, "out", "Change map");
    SetParameterDescription("out", "0 = no change, 1 = change, or the from-to code of a semantic model");
    SetDefaultOutputPixelType("out", ImagePixelType_uint8);
    AddParameter(ParameterType_OutputImage, "proba", "Change probability");
    SetParameterDescription("proba", "Probability of change after temperature, 0 to 1, no-data -1");
    SetDefaultOutputPixelType("proba", ImagePixelType_float);
    MandatoryOff("proba");
    AddParameter(ParameterType_OutputImage, "sem1", "Classes of the first date");
    SetParameterDescription("sem1", "Class values of the contract, no-data 255 (with a transition model also where nothing changed); semantic models only");
    SetDefaultOutputPixelType("sem1", ImagePixelType_uint8);
    MandatoryOff("sem1");
    AddParameter(ParameterType_OutputImage, "sem2", "Classes of the second date");
    SetParameterDescription("sem2", "Class values of the contract, no-data 255 (with a transition model also where nothing changed); semantic models only");
    SetDefaultOutputPixelType("sem2", ImagePixelType_uint8);
    MandatoryOff("sem2");
    AddParameter(ParameterType_OutputImage, "conf", "Confidence");
    SetParameterDescription(
        "conf", "Posterior probability of what the change map says, 0 to 1, no-data -1; with several predictions (a list of models, -tta), a second "
                "band: their mutual information with the model, nats");
    SetDefaultOutputPixelType("conf", ImagePixelType_float);
    MandatoryOff("conf");

    AddParameter(ParameterType_InputImage, "mask", "Validity image");
    SetParameterDescription("mask", "One band on the same grid: pixels that are 0 are no-data");
    MandatoryOff("mask");

    AddParameter(ParameterType_Float, "thr", "Threshold");
    SetParameterDescription("thr", "Change where the probability is at or above it; -1: as the contract says");
    SetDefaultParameterFloat("thr", -1.f);
    MandatoryOff("thr");

    AddParameter(ParameterType_Int, "window", "Smoothing window");
    SetParameterDescription("window",
                            "Side in pixels, odd, of a Gaussian window (standard deviation: a sixth of side - 1) that probabilities are averaged with before "
                            "the decision; 1: none");
    SetDefaultParameterInt("window", 1);
    SetMinimumParameterIntValue("window", 1);
    MandatoryOff("window");
    AddViewsParameter();

    AddAlignParameter();
    AddRadiometryParameter();
    AddObjectParameters();

    AddRunParameters();
    SetMultiWriting(true);

    SetDocExampleParameterValue("in1", "date1.tif");
    SetDocExampleParameterValue("in2", "date2.tif");
    SetDocExampleParameterValue("model", "siamese.pt");
    SetDocExampleParameterValue("out", "change.tif");
    SetDocExampleParameterValue("proba", "probability.tif");
  }

  void DoUpdateParameters() override
  {
    const auto& info = ShowModel();
    if (!info.contract)
    {
      return;
    }
    const auto& c = *info.contract;
    const bool classes = c.FindOutput("sem1_logits") || c.FindOutput("transition_logits");
    Applies("sem1", classes);
    Applies("sem2", classes);
    Applies("tta", !c.tiling.testTimeAugmentations.empty());
    Applies("radiometry", c.radiometricMatching);
  }

  void DoExecute() override
  {
    auto contract = ReadModelContract(true);
    m_Objects = CheckObjects("out");
    m_Contract = contract;
    if (contract.task != "change-detection")
    {
      throw dl::Error(dl::Complaint("model", "a model of task " + contract.task, "change-detection", "Choose the application of that task."));
    }
    const float thr = GetParameterFloat("thr");
    if (thr != -1.f && !(thr > 0.f && thr < 1.f))
    {
      throw dl::Error(dl::Complaint("thr", std::to_string(thr), "a probability between 0 and 1, or -1", ""));
    }
    const double threshold = thr == -1.f ? contract.threshold : thr;
    const auto views = GetViews();
    Decision::Settings settings;
    settings.threshold = threshold;
    settings.temperatures = GetTemperatures();
    settings.views = static_cast<int>(views.size());
    settings.window = GetParameterInt("window");
    WidenHalo(contract, settings.window);

    const std::vector<std::pair<std::string, Decision::Result>> all = {
        {"out", Decision::Change}, {"proba", Decision::Probability}, {"sem1", Decision::Class1}, {"sem2", Decision::Class2}, {"conf", Decision::Confidence}};
    std::vector<std::string> keys;
    std::vector<Decision::Result> wanted;
    for (const auto& one : all)
    {
      if (one.first == "out" || Wants(one.first))
      {
        keys.push_back(one.first);
        wanted.push_back(one.second);
      }
    }
    auto decision = std::make_shared<Decision>(contract, wanted, settings);
    if (Decision::NoDataOf(Decision::Change, decision->Classes()) > 255.f && GetParameterOutputImagePixelType("out") == ImagePixelType_uint8)
    {
      // uint8 is what one gets without asking: it is not what was meant.
      ChangePixelType("out", ImagePixelType_uint16);
      otbAppLogINFO(<< decision->Classes() << " classes give from-to codes beyond 8 bits: out is written as uint16");
    }
    otbAppLogINFO(<< "Change where the probability is at or above " << threshold << (thr == -1.f ? " (contract)" : " (-thr)") << ", temperature "
                  << contract.temperature
                  << (settings.window > 1 ? ", averaged with a window of " + std::to_string(settings.window) + " pixels first" : std::string()));
    if (GetNumberOfMembers() * views.size() > 1)
    {
      otbAppLogINFO(<< "Mean probability of " << GetNumberOfMembers() << " model(s) and " << views.size() << " view(s) of each patch");
    }

    auto filter = dl::PatchMapFilter::New();
    std::vector<dl::PatchMapFilter::Input> inputs;
    const Grid grid = ChooseGrid("in1");
    std::size_t reference = 0;
    for (const auto& input : contract.inputs)
    {
      if (dl::IsPairFeature(input))
      {
        inputs.push_back({input, {}, {}});
        continue;
      }
      // Outputs lie on the grid of the first date, whatever the order of the network's arguments.
      reference = input.date == 1 ? inputs.size() : reference;
      inputs.push_back(MakeInput(input.date == 1 ? "in1" : "in2", input, grid));
    }
    if (std::any_of(contract.inputs.begin(), contract.inputs.end(), dl::IsPairFeature))
    {
      otbAppLogINFO(<< "The network asks for the regression between the dates: it is fitted on the whole scene first");
    }
    filter->SetInputs(inputs);
    filter->SetReferenceInput(reference);
    if (IsSet("mask"))
    {
      filter->SetMask(MakeMask("mask", grid), "mask");
    }
    filter->SetOperator(decision);
    filter->SetTiling(contract.tiling);
    m_Classes.clear();
    for (const auto& output : contract.outputs)
    {
      if (m_Classes.empty() && decision->Classes() > 0)
      {
        for (const auto& c : output.classes)
        {
          m_Classes.emplace_back(c.value, c.name);
        }
      }
    }
    if (static_cast<int>(m_Classes.size()) != decision->Classes())
    {
      m_Classes.clear();
    }
    m_Model = contract.id + (GetNumberOfMembers() > 1 ? " and " + std::to_string(GetNumberOfMembers() - 1) + " more" : "");
    PrepareOutputs(filter, keys);
    PreparePair(filter, inputs, grid, GetParameterString("radiometry") == "match");
    PrepareRun(filter, contract, keys, views);
    CheckFiles({{"objects", m_Objects}});
    SetMultiWriting(keys.size() > 1); // one output streams better alone
    for (std::size_t r = 0; r < keys.size(); ++r)
    {
      SetParameterOutputImage(keys[r], filter->GetOutput(r));
    }
    RegisterPipeline();
  }

  /** Patches are cut by the radius of the window more, so that smoothing sees what lies beyond. */
  static void WidenHalo(dl::ModelContract& contract, int window)
  {
    if (window % 2 == 0)
    {
      throw dl::Error(dl::Complaint("window", std::to_string(window), "an odd number of pixels", "The window has a middle pixel."));
    }
    auto& tiling = contract.tiling;
    const int multiple = tiling.multiple, radius = (window - 1) / 2;
    const bool crop = tiling.blend == dl::Blend::Crop;
    const auto fits = [&](int r) { return 2 * r < tiling.patch && (!crop || 2 * ((tiling.halo + r + multiple - 1) / multiple * multiple) < tiling.patch); };
    if (window > 1 && !fits(std::min(radius, tiling.patch)))
    {
      int most = std::min(radius, tiling.patch);
      while (most > 0 && !fits(most))
      {
        --most;
      }
      throw dl::Error(dl::Complaint("window", std::to_string(window),
                                    "at most " + std::to_string(2 * most + 1) + " with this model: patches of " + std::to_string(tiling.patch) +
                                        " pixels, a halo of " + std::to_string(crop ? tiling.halo : 0),
                                    "Choose a smaller window, or smooth the probability map afterwards."));
    }
    if (!crop)
    {
      return;
    }
    tiling.halo += radius;
  }

  void ReportRun() override
  {
    Superclass::ReportRun();
    if (m_Objects.empty())
    {
      return;
    }
    std::map<std::string, std::string> attributes = {{"model", m_Model}};
    for (const char* key : {"in1", "in2"})
    {
      const auto names = GetParameterStringList(key);
      const auto day = names.empty() ? std::nullopt : dl::DateInName(names.front());
      attributes[key == std::string("in1") ? "date1" : "date2"] = day ? dl::ToString(*day) : "";
    }
    const bool proba = IsParameterEnabled("proba") && HasValue("proba");
    WriteObjects("out", proba ? "proba" : "", "proba", m_Classes, attributes);
  }

  dl::Legend LegendOf(const std::string& key) const override
  {
    if (key == "proba" || key == "conf")
    {
      return dl::RampLegend(0., 1., key == "proba" ? dl::RampColours::Inferno : dl::RampColours::Viridis);
    }
    const auto* within = m_Contract.FindOutput("transition_logits");
    const auto* before = within ? within : m_Contract.FindOutput("sem1_logits");
    const auto* after = within ? within : m_Contract.FindOutput("sem2_logits");
    if (!before || !after)
    {
      const auto* change = m_Contract.FindOutput("change_logits");
      change = change ? change : m_Contract.FindOutput("change_probability");
      return dl::BinaryLegend(change ? change->classes : std::vector<dl::ModelClass>());
    }
    return key == "out" ? dl::FromToLegend(before->classes, after->classes, within != nullptr) : dl::ClassLegend((key == "sem1" ? before : after)->classes);
  }

  std::string m_Objects;
  std::string m_Model;
  dl::ModelContract m_Contract;
  std::vector<std::pair<int, std::string>> m_Classes;
};

} // namespace Wrapper
} // namespace otb

OTB_APPLICATION_EXPORT(otb::Wrapper::SiameseCD)
