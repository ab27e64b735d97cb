/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLApplication.h"

#include "otbDLChangeDecision.h"
#include "otbDLDates.h"
#include "otbDLError.h"

#include "otbWrapperApplicationFactory.h"
#include "otbWrapperTags.h"

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
    SetParameterDescription("conf", "Posterior probability of what the change map says, 0 to 1, no-data -1");
    SetDefaultOutputPixelType("conf", ImagePixelType_float);
    MandatoryOff("conf");

    AddParameter(ParameterType_InputImage, "mask", "Validity image");
    SetParameterDescription("mask", "One band on the same grid: pixels that are 0 are no-data");
    MandatoryOff("mask");

    AddParameter(ParameterType_Float, "thr", "Threshold");
    SetParameterDescription("thr", "Change where the probability is at or above it; -1: as the contract says");
    SetDefaultParameterFloat("thr", -1.f);
    MandatoryOff("thr");

    AddAlignParameter();
    AddObjectParameters();

    AddRunParameters();
    SetMultiWriting(true);

    SetDocExampleParameterValue("in1", "date1.tif");
    SetDocExampleParameterValue("in2", "date2.tif");
    SetDocExampleParameterValue("model", "siamese.pt");
    SetDocExampleParameterValue("out", "change.tif");
    SetDocExampleParameterValue("proba", "probability.tif");
  }

  void DoUpdateParameters() override {}

  void DoExecute() override
  {
    auto contract = ReadModelContract();
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

    const std::vector<std::pair<std::string, Decision::Result>> all = {
        {"out", Decision::Change}, {"proba", Decision::Probability}, {"sem1", Decision::Class1}, {"sem2", Decision::Class2}, {"conf", Decision::Confidence}};
    std::vector<std::string> keys;
    std::vector<Decision::Result> wanted;
    for (const auto& one : all)
    {
      if (one.first == "out" || (IsParameterEnabled(one.first) && HasValue(one.first)))
      {
        keys.push_back(one.first);
        wanted.push_back(one.second);
      }
    }
    auto decision = std::make_shared<Decision>(contract, wanted, threshold);
    if (Decision::NoDataOf(Decision::Change, decision->Classes()) > 255.f && GetParameterOutputImagePixelType("out") == ImagePixelType_uint8)
    {
      // uint8 is what one gets without asking: it is not what was meant.
      ChangePixelType("out", ImagePixelType_uint16);
      otbAppLogINFO(<< decision->Classes() << " classes give from-to codes beyond 8 bits: out is written as uint16");
    }
    otbAppLogINFO(<< "Change where the probability is at or above " << threshold << (thr == -1.f ? " (contract)" : " (-thr)") << ", temperature "
                  << contract.temperature);

    auto filter = dl::PatchMapFilter::New();
    std::vector<dl::PatchMapFilter::Input> inputs;
    itk::ImageBase<2>::Pointer onto;
    if (GetParameterString("align") == "resample")
    {
      onto = GetParameterImageList("in1")->GetNthElement(0);
    }
    for (const auto& input : contract.inputs)
    {
      inputs.push_back(MakeInput(input.date == 1 ? "in1" : "in2", input, onto));
    }
    filter->SetInputs(std::move(inputs));
    // Outputs lie on the grid of the first date, whatever the order of the network's arguments.
    filter->SetReferenceInput(contract.inputs.front().date == 1 ? 0 : 1);
    if (HasValue("mask"))
    {
      filter->SetMask(GetParameterImage("mask"), "mask");
      NoteInput("mask");
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
    m_Model = contract.id;
    PrepareRun(filter, contract, keys);
    CheckFiles({{"objects", m_Objects}});
    SetMultiWriting(keys.size() > 1); // one output streams better alone
    for (std::size_t r = 0; r < keys.size(); ++r)
    {
      SetParameterOutputImage(keys[r], filter->GetOutput(r));
    }
    RegisterPipeline();
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
