/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLApplication.h"

#include "otbDLChangeObjects.h"
#include "otbDLDates.h"
#include "otbDLError.h"
#include "otbDLLikelihood.h"
#include "otbDLNetworkScore.h"
#include "otbDLPairStatistics.h"
#include "otbDLPatchSource.h"
#include "otbDLSceneMapFilter.h"
#include "otbDLScoreMapEngine.h"
#include "otbDLSeriesRupture.h"
#include "otbDLThreshold.h"

#include "otbWrapperApplicationFactory.h"
#include "otbWrapperTags.h"

#include <gdal.h>
#include <ogr_api.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <set>
#include <sstream>

namespace otb
{
namespace Wrapper
{

namespace fs = std::filesystem;

namespace
{

using Json = nlohmann::json;

/** Estimators without a network. */
const std::map<std::string, std::string> statistical = {
    {"regress", "regression of the pair"}, {"cva", "change vectors"}, {"mad", "MAD"}, {"irmad", "IR-MAD"}, {"siroc", "SiROC"}};

/** Those of generative networks. */
const std::map<std::string, dl::LikelihoodEstimator> generative = {
    {"pmi", dl::LikelihoodEstimator::Pmi},         {"cond", dl::LikelihoodEstimator::Conditional},     {"latent", dl::LikelihoodEstimator::Latent},
    {"denoise", dl::LikelihoodEstimator::Denoise}, {"loglik", dl::LikelihoodEstimator::LogLikelihood}, {"recon", dl::LikelihoodEstimator::Reconstruction},
    {"odeed", dl::LikelihoodEstimator::RoundTrip}, {"mae", dl::LikelihoodEstimator::Masked},           {"feature", dl::LikelihoodEstimator::Feature}};

std::string ReadText(const std::string& file, const std::string& option)
{
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in || text.str().empty())
  {
    throw dl::Error(dl::Complaint(option, "\"" + file + "\", which cannot be read or is empty", "a file that an earlier run wrote", ""));
  }
  return text.str();
}

/** Written whole or not at all. */
void WriteText(const std::string& file, const std::string& text, const std::string& option)
{
  const std::string part = file + ".part";
  {
    std::ofstream out(part, std::ios::binary);
    out << text << '\n';
    out.flush();
    if (!out)
    {
      std::error_code ec;
      fs::remove(part, ec);
      throw dl::Error(dl::Complaint(option, "\"" + file + "\", which cannot be written", "a writable file name", "Is there room on the disk?"));
    }
  }
  fs::rename(part, file);
}

/** What identifies a model's weights: FNV-1a over the file. */
std::string Fingerprint(const std::string& file)
{
  std::ifstream in(file, std::ios::binary);
  std::uint64_t hash = 14695981039346656037ull;
  char buffer[65536];
  while (in.read(buffer, sizeof(buffer)) || in.gcount() > 0)
  {
    for (std::streamsize k = 0; k < in.gcount(); ++k)
    {
      hash = (hash ^ static_cast<unsigned char>(buffer[k])) * 1099511628211ull;
    }
  }
  std::ostringstream text;
  text << std::hex << hash;
  return text.str();
}

/** Which settings of two runs differ, in words; empty if none does. */
std::string Differences(const std::string& theirs, const std::string& ours)
{
  const Json a = Json::parse(theirs), b = Json::parse(ours);
  std::string text;
  const auto name = [](const Json& j, const std::string& key) { return j.contains(key) ? j.at(key).dump() : std::string("nothing"); };
  for (const Json* j : {&a, &b})
  {
    for (const auto& item : j->items())
    {
      if (name(a, item.key()) != name(b, item.key()) && text.find(item.key() + " ") == std::string::npos)
      {
        text += (text.empty() ? "" : ", ") + item.key() + " " + name(a, item.key()) + " instead of " + name(b, item.key());
      }
    }
  }
  return text;
}

} // namespace

/** \class ChangeLikelihood
 * \brief Change between two dates as unlikelihood: from a regression of the pair itself, from generative networks, from classical statistics.
 * \ingroup OTBTorch
 */
class ChangeLikelihood : public DLApplication
{
public:
  using Self = ChangeLikelihood;
  using Superclass = DLApplication;
  using Pointer = itk::SmartPointer<Self>;
  using ConstPointer = itk::SmartPointer<const Self>;

  itkNewMacro(Self);
  itkTypeMacro(ChangeLikelihood, DLApplication);

private:
  void DoInit() override
  {
    SetName("ChangeLikelihood");
    SetDescription("Score and detect changes between two images without labels: how unlikely is each date given the other?");
    SetDocLongDescription(
        "Scores every pixel of two co-registered images by how unlikely one date is given the other, smooths the score, finds a threshold on the whole scene "
        "and writes maps of score, p-value, change and the less likely date.\n\n"
        "Without a model, -estimator regress fits a conditional Gaussian on the pair itself: any sensor, any bands. With a model (TorchScript, with its "
        "contract) the estimators are those of generative networks: diffusion, flow matching, masked autoencoders, density ratios, features. Classical "
        "baselines (change vectors, MAD, IR-MAD) are there to compare with.\n\n"
        "The maps do not depend on streaming, tiles, memory or threads; statistics are those of the whole scene, whatever part is written.");
    SetDocLimitations("Scores are relative to the scene: those of two scenes are comparable only with a calibration (-calibrate, -calibration).");
    SetDocAuthors("The OTBTorch authors");
    SetDocSeeAlso("SiameseCD, MultivariateAlterationDetector");
    AddDocTag(Tags::ChangeDetection);
    AddDocTag(Tags::Learning);
    SetDocLink("doc/ChangeLikelihood.md");

    AddParameter(ParameterType_InputImageList, "in1", "Image of the first date");
    SetParameterDescription("in1", "One or several files, whose bands are taken together");
    MandatoryOff("in1");
    AddParameter(ParameterType_InputImageList, "in2", "Image of the second date");
    SetParameterDescription("in2", "As in1, on the same grid (see align)");
    MandatoryOff("in2");
    AddModelParameters();
    MandatoryOff("model");

    AddParameter(ParameterType_Choice, "estimator", "Estimator");
    SetParameterDescription("estimator", "How change is scored");
    AddChoice("estimator.auto", "regress without a model, else what suits the model");
    AddChoice("estimator.regress", "Regression of the pair: conditional Gaussian in both directions");
    AddChoice("estimator.ratio", "Density ratio by a network, with regress");
    AddChoice("estimator.pmi", "Pointwise mutual information of a conditional generative model");
    AddChoice("estimator.cond", "Conditional likelihood of a generative model");
    AddChoice("estimator.latent", "Distance along the encodings of a generative model");
    AddChoice("estimator.denoise", "Denoising loss of each date");
    AddChoice("estimator.loglik", "Log-likelihood of each date (probability-flow ODE)");
    AddChoice("estimator.recon", "Reconstruction from several noise levels");
    AddChoice("estimator.odeed", "Coarse encoding and decoding (ODEED)");
    AddChoice("estimator.mae", "Masked autoencoder");
    AddChoice("estimator.feature", "Cosine distance of features");
    AddChoice("estimator.cva", "Change vector analysis");
    AddChoice("estimator.mad", "Multivariate alteration detection");
    AddChoice("estimator.irmad", "Iteratively reweighted MAD");
    AddChoice("estimator.siroc", "Sibling regression on distant neighbours (SiROC)");
    MandatoryOff("estimator");
    AddModelInfo("change-likelihood", {"model", "bands", "estimators", "patches", "licence"});

    AddParameter(ParameterType_OutputImage, "out", "Score");
    SetParameterDescription("out", "Smoothed score, larger = more change; no-data -9999");
    SetDefaultOutputPixelType("out", ImagePixelType_float);
    AddParameter(ParameterType_OutputImage, "pvalue", "P-value");
    SetParameterDescription("pvalue", "-log10 of the probability of such a score where nothing changed: conformal with a calibration, else from the lower half "
                                      "of the scene's scores; no-data -1");
    SetDefaultOutputPixelType("pvalue", ImagePixelType_float);
    MandatoryOff("pvalue");
    AddParameter(ParameterType_OutputImage, "change", "Change map");
    SetParameterDescription("change", "0 = no change, 1 = change, no-data 255");
    SetDefaultOutputPixelType("change", ImagePixelType_uint8);
    MandatoryOff("change");
    AddParameter(ParameterType_OutputImage, "which", "Less likely date");
    SetParameterDescription("which", "1 or 2, no-data 255; estimators with two directions only");
    SetDefaultOutputPixelType("which", ImagePixelType_uint8);
    MandatoryOff("which");
    AddObjectParameters();
    AddParameter(ParameterType_Float, "fdr", "False-discovery rate of objects");
    SetParameterDescription("fdr",
                            "Objects are kept so that this share of them is false at most (Benjamini-Hochberg on the p-values of their mean scores); 0: all");
    SetDefaultParameterFloat("fdr", 0.f);
    MandatoryOff("fdr");

    AddParameter(ParameterType_InputImage, "mask", "Validity image");
    SetParameterDescription("mask", "One band on the same grid: pixels that are 0 are no-data");
    MandatoryOff("mask");
    AddAlignParameter();

    AddParameter(ParameterType_Choice, "direction", "Direction");
    SetParameterDescription("direction", "Which date is asked for, given the other");
    AddChoice("direction.both", "Both, averaged");
    AddChoice("direction.forward", "Date 2 given date 1");
    AddChoice("direction.backward", "Date 1 given date 2");
    MandatoryOff("direction");
    AddParameter(ParameterType_Float, "smooth", "Smoothing of the score");
    SetParameterDescription("smooth", "Standard deviation of a Gaussian in pixels; below 0.1: none; -1: 2.5, or as the model's contract says");
    SetDefaultParameterFloat("smooth", -1.f);
    MandatoryOff("smooth");
    AddParameter(ParameterType_Choice, "norm", "Length of a residual (regress)");
    AddChoice("norm.l2", "Euclidean");
    AddChoice("norm.mahalanobis", "Whitened by the covariance of the residuals");
    AddChoice("norm.student", "Minus the log-density of a Student t");
    MandatoryOff("norm");
    AddParameter(ParameterType_Float, "clip", "Clipping of the bands");
    SetParameterDescription("clip", "Share of the pixels clipped at either end of each band (regress, ratio, cva, mad, irmad); 0 or -1: none");
    SetDefaultParameterFloat("clip", .01f);
    MandatoryOff("clip");

    AddParameter(ParameterType_Int, "levels", "Noise levels");
    SetParameterDescription("levels", "Of pmi, cond, denoise; starts of recon; 0: as suits the estimator");
    AddParameter(ParameterType_Int, "pairs", "Pairs of noise a level");
    AddParameter(ParameterType_Int, "steps", "Steps of the solver");
    SetParameterDescription("steps", "Of latent, loglik, odeed; 0: as suits the estimator");
    AddParameter(ParameterType_Int, "probes", "Random vectors (loglik)");
    for (const char* key : {"levels", "pairs", "steps", "probes"})
    {
      SetDefaultParameterInt(key, 0); // no minimum: OTB would take it in silence for a smaller number
      MandatoryOff(key);
    }
    AddParameter(ParameterType_Choice, "solver", "Solver of the ODE");
    AddChoice("solver.auto", "As suits the estimator");
    AddChoice("solver.euler", "Euler");
    AddChoice("solver.heun", "Heun");
    AddChoice("solver.midpoint", "Midpoint");
    AddChoice("solver.rk4", "Runge-Kutta of order 4");
    MandatoryOff("solver");
    AddParameter(ParameterType_Choice, "probekind", "Kind of random vectors");
    AddChoice("probekind.rademacher", "Random signs");
    AddChoice("probekind.gaussian", "Gaussian");
    AddChoice("probekind.exact", "Unit vectors, one a band: exact for networks of 1 x 1 convolutions");
    MandatoryOff("probekind");
    AddParameter(ParameterType_Group, "logsnr", "Range of noise levels");
    AddParameter(ParameterType_Float, "logsnr.low", "Lowest log-SNR");
    SetParameterDescription("logsnr.low", "Of the noise levels; unset: as suits estimator and model");
    MandatoryOff("logsnr.low");
    AddParameter(ParameterType_Float, "logsnr.high", "Highest log-SNR");
    SetParameterDescription("logsnr.high", "Of the noise levels; unset: as suits estimator and model");
    MandatoryOff("logsnr.high");
    AddParameter(ParameterType_Int, "seed", "Seed");
    SetParameterDescription("seed", "Of the random numbers, which are a function of seed, pixel and band");
    SetDefaultParameterInt("seed", 0);
    MandatoryOff("seed");

    AddParameter(ParameterType_Choice, "rule", "Rule of the threshold");
    SetParameterDescription("rule", "How change is told from no change on the histogram of the scene's scores");
    AddChoice("rule.auto", "deviation where the histogram has one mode, else em");
    AddChoice("rule.deviation", "2.5 standard deviations above the mean");
    AddChoice("rule.rosin", "Longest distance to the chord (triangle)");
    AddChoice("rule.em", "Two Gaussians by expectation-maximisation");
    AddChoice("rule.otsu", "Otsu");
    AddChoice("rule.kapur", "Maximum entropy (Kapur)");
    AddChoice("rule.kittler", "Minimum error (Kittler and Illingworth)");
    MandatoryOff("rule");
    AddParameter(ParameterType_Float, "thr", "Threshold");
    SetParameterDescription("thr", "Change where the score is above it; unset: found by the rule, or by alpha with a calibration");
    MandatoryOff("thr");
    AddParameter(ParameterType_Float, "alpha", "False-alarm rate");
    SetParameterDescription("alpha", "With a calibration: change where the p-value is at or below it");
    SetDefaultParameterFloat("alpha", .01f);
    MandatoryOff("alpha");
    AddParameter(ParameterType_OutputFilename, "calibrate", "Calibration to make");
    SetParameterDescription("calibrate", "JSON file written from this pair, on which nothing must have changed");
    MandatoryOff("calibrate");
    AddParameter(ParameterType_InputFilename, "calibration", "Calibration to use");
    SetParameterDescription("calibration", "JSON file that an earlier run made with the same settings");
    MandatoryOff("calibration");
    AddParameter(ParameterType_String, "fit", "What the scene taught");
    SetParameterDescription("fit", "JSON file: used if it exists, else written. With it a part of the scene gives the pixels of the whole one");
    MandatoryOff("fit");

    AddParameter(ParameterType_InputImageList, "il", "Series");
    SetParameterDescription("il", "Instead of in1 and in2: one image a date, or one stack of all dates, date after date");
    MandatoryOff("il");
    AddParameter(ParameterType_InputFilename, "dates", "Dates of the series");
    SetParameterDescription("dates", "Text file, a date a line (YYYYMMDD or YYYY-MM-DD) in the order of the files; unset: from the names of the files");
    MandatoryOff("dates");
    AddParameter(ParameterType_InputImageList, "maskl", "Validity of the series");
    SetParameterDescription("maskl", "One band a date in one image, or one image a date, in the order of the series");
    MandatoryOff("maskl");
    AddParameter(ParameterType_Choice, "masktype", "Coding of the validity");
    AddChoice("masktype.invalid", "0 = valid");
    AddChoice("masktype.valid", "0 = not valid, anything else valid");
    AddChoice("masktype.scl", "Sentinel-2 scene classification: 2, 4, 5, 6, 7, 11 are valid");
    MandatoryOff("masktype");
    AddParameter(ParameterType_Int, "reference", "Dates of reference");
    SetParameterDescription("reference", "Of a series: its first valid dates; 0: a third of them, at least 6");
    SetDefaultParameterInt("reference", 0);
    SetMinimumParameterIntValue("reference", 0);
    MandatoryOff("reference");
    AddParameter(ParameterType_OutputImage, "rupture", "Ruptures of a series");
    SetParameterDescription("rupture",
                            "Four bands: first date after the best split (index from 1; 0: none), its decimal year, statistic, valid dates; no-data -1");
    SetDefaultOutputPixelType("rupture", ImagePixelType_float);
    MandatoryOff("rupture");
    AddParameter(ParameterType_OutputImage, "alarm", "Alarms of a series");
    SetParameterDescription("alarm",
                            "Six bands: date of the CUSUM's alarm (index from 1; 0: none), its decimal year, that of the onset, highest CUSUM, date of the "
                            "martingale's alarm (index), log10 of the martingale; no-data -1");
    SetDefaultOutputPixelType("alarm", ImagePixelType_float);
    MandatoryOff("alarm");

    AddRunParameters();
    SetMultiWriting(true);

    SetDocExampleParameterValue("in1", "date1.tif");
    SetDocExampleParameterValue("in2", "date2.tif");
    SetDocExampleParameterValue("out", "score.tif");
    SetDocExampleParameterValue("change", "change.tif");
  }

  void DoUpdateParameters() override
  {
    const auto& info = ShowModel();
    const bool pair = IsSet("in1") || IsSet("in2"), series = IsSet("il");
    if (pair != series)
    {
      for (const auto* key : {"rupture", "alarm", "dates", "maskl", "masktype", "reference"})
      {
        Applies(key, series);
      }
      for (const auto* key : {"calibrate", "calibration", "fit", "model", "contract"})
      {
        Applies(key, pair);
      }
    }
    const std::string named = GetParameterString("estimator");
    const std::string estimator = named != "auto" ? named : info.contract ? SuitedTo(*info.contract) : "regress";
    const auto uses = [&](const char* key, const std::set<std::string>& estimators) { Applies(key, estimators.count(estimator) > 0); };
    uses("levels", {"pmi", "cond", "denoise", "recon"});
    uses("pairs", {"pmi", "cond", "denoise"});
    uses("steps", {"latent", "loglik", "odeed"});
    uses("logsnr.low", {"pmi", "cond", "denoise", "latent"});
    uses("logsnr.high", {"pmi", "cond", "denoise", "latent"});
    for (const auto* key : {"solver", "probes", "probekind"})
    {
      uses(key, {"loglik"});
    }
    uses("norm", {"regress"});
    uses("clip", {"regress", "ratio", "cva", "mad", "irmad"});
    for (const auto* key : {"direction", "which"})
    {
      Applies(key, !series && !std::set<std::string>{"latent", "feature", "cva", "mad", "irmad", "siroc"}.count(estimator));
    }
  }

  /** The estimator that -estimator auto stands for with a model. */
  static std::string SuitedTo(const dl::ModelContract& contract)
  {
    if (contract.generative)
    {
      const bool condition = std::any_of(contract.inputs.begin(), contract.inputs.end(),
                                         [](const dl::ModelInput& in) { return in.role == "condition" || in.role == "condition_latent"; });
      return !condition ? "latent" : contract.generative->null == dl::NullCondition::None ? "cond" : "pmi";
    }
    return contract.ratio ? "ratio" : contract.masked ? "mae" : "feature";
  }

  static std::string Set(const Json& j) { return j.dump(); }

  /** What smooth says, if it says anything. A host that cannot pass 0 can ask for none by any number below 0.1, whose Gaussian gives neighbours no weight. */
  double SmoothOr(double otherwise)
  {
    const float given = GetParameterFloat("smooth");
    return given < 0.f ? otherwise : given < .1f ? 0. : given;
  }

  /** As for smooth, -1 is none for hosts that cannot pass 0. */
  double Clip() { return std::max(0.f, GetParameterFloat("clip")); }

  /** A value between limits, or an error. */
  void CheckRange(const std::string& key, double low, double high, const std::string& expected)
  {
    const double v = GetParameterFloat(key);
    if (!(v >= low && v <= high))
    {
      std::ostringstream found;
      found << v;
      throw dl::Error(dl::Complaint(key, found.str(), expected, ""));
    }
  }

  /** The model's contract, if there is a model, and the estimator. */
  std::string ChooseEstimator(std::optional<dl::ModelContract>& contract)
  {
    std::string estimator = GetParameterString("estimator");
    if (IsSet("model"))
    {
      contract = ReadModelContract();
      if (contract->task != "change-likelihood")
      {
        throw dl::Error(dl::Complaint("model", "a model of task " + contract->task, "change-likelihood", "Choose the application of that task."));
      }
    }
    else
    {
      Begin();
    }
    if (estimator == "auto")
    {
      if (!contract)
      {
        return "regress";
      }
      return SuitedTo(*contract);
    }
    if (statistical.count(estimator) && contract)
    {
      otbAppLogWARNING(<< "-estimator " << estimator << " uses no network: the model is not looked at");
      contract.reset();
    }
    if (!statistical.count(estimator) && !contract)
    {
      throw dl::Error(
          dl::Complaint("estimator", estimator + " without a model", "-model, a network for it", "Or use -estimator regress, which fits the pair itself."));
    }
    if (estimator == "ratio" && !contract->ratio)
    {
      throw dl::Error(dl::Complaint("estimator", "ratio with a model that is not a density ratio", "a model with otb:ratio in its contract", ""));
    }
    return estimator;
  }

  dl::LikelihoodSettings Likelihood(const dl::ModelContract& contract, const std::string& estimator)
  {
    auto s = dl::DefaultLikelihoodSettings(contract, generative.at(estimator));
    const auto integer = [&](const char* key, int& value)
    {
      if (GetParameterInt(key) < 0)
      {
        throw dl::Error(dl::Complaint(key, std::to_string(GetParameterInt(key)), "a number above 0, or 0: as suits the estimator", ""));
      }
      value = GetParameterInt(key) > 0 ? GetParameterInt(key) : value;
    };
    integer("levels", s.levels);
    integer("pairs", s.pairs);
    integer("steps", s.steps);
    integer("probes", s.probes);
    const std::map<std::string, dl::OdeSolver> solvers = {
        {"euler", dl::OdeSolver::Euler}, {"heun", dl::OdeSolver::Heun}, {"midpoint", dl::OdeSolver::Midpoint}, {"rk4", dl::OdeSolver::RungeKutta4}};
    if (GetParameterString("solver") != "auto")
    {
      s.solver = solvers.at(GetParameterString("solver"));
    }
    const std::map<std::string, dl::ProbeKind> kinds = {
        {"rademacher", dl::ProbeKind::Rademacher}, {"gaussian", dl::ProbeKind::Gaussian}, {"exact", dl::ProbeKind::Exact}};
    s.probeKind = kinds.at(GetParameterString("probekind"));
    if (HasUserValue("logsnr.low"))
    {
      s.logSnrLow = GetParameterFloat("logsnr.low");
    }
    if (HasUserValue("logsnr.high"))
    {
      s.logSnrHigh = GetParameterFloat("logsnr.high");
    }
    s.seed = static_cast<std::uint32_t>(GetParameterInt("seed"));
    const std::string direction = GetParameterString("direction");
    s.forward = direction != "backward";
    s.backward = direction != "forward";
    return s;
  }

  /** Objects are told apart by the mean of their scores, which are read from the file of out. */
  void CheckDiscoveries()
  {
    if (!m_Objects.empty() && GetParameterFloat("fdr") > 0.f && (!IsParameterEnabled("out") || !HasValue("out")))
    {
      throw dl::Error(dl::Complaint("fdr", "objects without -out", "the file of the scores that objects are judged by", "Give -out a file name as well."));
    }
  }

  void DoExecute() override
  {
    m_Scene = nullptr;
    m_Calibrate.clear();
    m_Fit.clear();
    if (GetParameterFloat("clip") != -1.f)
    {
      CheckRange("clip", 0., .2, "a share between 0 and 0.2");
    }
    CheckRange("alpha", 1e-9, .5, "a rate above 0, at most 0.5");
    CheckRange("smooth", -1., 100., "a number of pixels between 0 and 100, or -1");
    CheckRange("fdr", 0., 1., "a rate between 0 and 1");
    const bool pair = IsSet("in1") || IsSet("in2");
    if (IsSet("il") == pair)
    {
      throw dl::Error(dl::Complaint(pair ? "il" : "in1", pair ? "in1 or in2 as well" : "neither a pair nor a series", "in1 and in2, or il", ""));
    }
    if (!pair)
    {
      Series();
      return;
    }
    for (const char* key : {"in1", "in2"})
    {
      if (!IsSet(key))
      {
        throw dl::Error(dl::Complaint(key, "nothing", "the image of that date", ""));
      }
    }
    std::optional<dl::ModelContract> contract;
    const std::string estimator = ChooseEstimator(contract);
    const std::string direction = GetParameterString("direction");
    const bool forward = direction != "backward", backward = direction != "forward";

    // Outputs.
    const std::vector<std::pair<std::string, dl::ScoreResult>> all = {
        {"out", dl::ScoreResult::Score}, {"pvalue", dl::ScoreResult::PValue}, {"change", dl::ScoreResult::Change}, {"which", dl::ScoreResult::Which}};
    std::vector<std::string> keys;
    dl::ScoreSettings settings;
    for (const auto& [key, result] : all)
    {
      if (key == "out" || Wants(key))
      {
        keys.push_back(key);
        settings.results.push_back(result);
      }
    }
    for (const char* key : {"rupture", "alarm"})
    {
      if (Wants(key))
      {
        throw dl::Error(dl::Complaint(key, "a pair of dates", "a series (il, dates)", "Leave it out."));
      }
    }
    m_Objects = CheckObjects("change");
    CheckDiscoveries();

    // The score.
    Json description = {{"estimator", estimator}, {"direction", direction}};
    std::optional<dl::LikelihoodSettings> likelihood;
    dl::LikelihoodNeeds needs;
    int planes = 1;
    const double smooth = SmoothOr(contract && contract->ratio ? contract->ratio->smooth : 2.5);
    const auto directed = [&](int first, int second)
    {
      dl::ScoreGroup group;
      if (forward)
      {
        group.forward = {first};
      }
      if (backward)
      {
        group.backward = {second};
      }
      return group;
    };
    bool directions = forward && backward;
    if (contract && generative.count(estimator))
    {
      likelihood = Likelihood(*contract, estimator);
      needs = dl::CheckLikelihood(*contract, *likelihood);
      const auto made = dl::PlanesOf(*likelihood);
      planes = made.forward + made.backward;
      directions = made.forward > 0 && made.backward > 0;
      const int levels = std::max(made.forward, made.backward);
      for (int k = 0; k < (made.standardise ? levels : 1); ++k)
      {
        dl::ScoreGroup group;
        if (made.forward > 0)
        {
          group.forward = {k};
        }
        if (made.backward > 0)
        {
          group.backward = {made.forward + k};
        }
        group.standardise = made.standardise;
        group.weight = made.standardise ? 1. / levels : 1.;
        settings.groups.push_back(group);
      }
      description.update({{"levels", likelihood->levels},
                          {"pairs", likelihood->pairs},
                          {"steps", likelihood->steps},
                          {"solver", static_cast<int>(likelihood->solver)},
                          {"probes", likelihood->probes},
                          {"probe kind", static_cast<int>(likelihood->probeKind)},
                          {"log-SNR", {likelihood->logSnrLow, likelihood->logSnrHigh}},
                          {"seed", likelihood->seed},
                          {"precision", GetParameterString("precision")}});
    }
    else if (estimator == "ratio")
    {
      settings.groups = {directed(0, 2), directed(1, 3)};
      settings.groups[0].standardise = settings.groups[1].standardise = true;
      settings.groups[1].weight = contract->ratio->weight;
      description.update({{"clip", Clip()}, {"precision", GetParameterString("precision")}});
    }
    else if (estimator == "regress")
    {
      settings.groups = {directed(0, 1)};
      description.update({{"clip", Clip()}, {"norm", GetParameterString("norm")}});
    }
    else
    {
      directions = false;
      settings.groups.resize(1);
      settings.groups[0].forward = {0};
      description.update({{"clip", Clip()}});
    }
    if (!directions && std::find(settings.results.begin(), settings.results.end(), dl::ScoreResult::Which) != settings.results.end())
    {
      throw dl::Error(dl::Complaint("which", "-estimator " + estimator + (forward && backward ? "" : " -direction " + direction) + ", which compares no dates",
                                    "an estimator with two directions (regress, ratio, pmi, cond, ...)", "Leave -which out."));
    }
    if (contract)
    {
      description["model"] = contract->id + " " + Fingerprint(GetModelFiles().front());
      description["blend"] = dl::ToString(contract->tiling.blend);
    }
    if (GetParameterString("coreg") == "shift")
    {
      description["coreg"] = "shift";
    }
    description["smooth"] = smooth;
    settings.smooth = smooth;
    settings.description = description.dump();
    description["rule"] = GetParameterString("rule");
    settings.fitDescription = description.dump();

    // Inputs.
    auto filter = dl::SceneMapFilter::New();
    m_Scene = filter;
    std::vector<dl::PatchMapFilter::Input> inputs;
    int bands[2] = {0, 0};
    const Grid grid = ChooseGrid("in1");
    for (int date = 1; date <= 2; ++date)
    {
      const std::string key = date == 1 ? "in1" : "in2";
      dl::ModelInput model;
      if (contract)
      {
        for (const auto& in : contract->inputs)
        {
          if (in.role == "image" || in.role == "regression")
          {
            model = in;
          }
        }
      }
      model.name = key;
      model.role = "image"; // of the pair: what a density ratio takes as "regression" is made from it later
      model.date = date;
      auto input = MakeInput(key, model, grid);
      for (const auto& image : input.images)
      {
        bands[date - 1] += static_cast<int>(image->GetNumberOfComponentsPerPixel());
      }
      if (!contract)
      {
        for (int b = 0; b < bands[date - 1]; ++b)
        {
          input.model.bands.push_back("band " + std::to_string(b + 1));
        }
      }
      if (!contract || contract->ratio)
      {
        input.model.scaling.assign(input.model.bands.size(), {});
      }
      inputs.push_back(std::move(input));
    }
    filter->SetInputs(inputs);
    if (IsSet("mask"))
    {
      filter->SetMask(MakeMask("mask", grid), "mask");
    }
    if (contract)
    {
      filter->SetNetworkTiling(contract->tiling);
      filter->SetDescription(estimator);
    }
    else
    {
      filter->SetDescription(statistical.at(estimator));
    }
    filter->SetOperator(std::make_shared<dl::ScoreOperator>(settings.results));
    if (estimator == "mad" || estimator == "irmad")
    {
      settings.chiSquareDegrees = smooth == 0. ? std::min(bands[0], bands[1]) : 0;
    }
    Decision(settings, smooth);

    PrepareOutputs(filter, keys);
    NoteFiles();
    for (const auto& [key, file] : {std::make_pair("fit", m_Fit), std::make_pair("calibrate", m_Calibrate)})
    {
      if (!file.empty())
      {
        CheckWritten(key);
      }
    }
    PreparePair(filter, inputs, grid);
    std::unique_ptr<dl::Predictor> predictor;
    if (contract)
    {
      predictor =
          LoadNetwork([&](const dl::RuntimeOptions& options, dl::RuntimeReport& report) { return Load(*contract, likelihood, needs, options, report); });
      settings.fitShare = estimator == "ratio" ? .05 : 0.;
      settings.scoreShare = .97 - settings.fitShare;
    }
    else
    {
      const auto job = filter->GetJob();
      otbAppLogINFO(<< job.width << " x " << job.height << " pixels, " << job.description << ", " << bands[0] << " and " << bands[1] << " bands, smoothed by "
                    << smooth << " pixels; no network");
    }
    const double clip = Clip();
    dl::RegressionSettings regression;
    regression.norm = GetParameterString("norm") == "student"       ? dl::ResidualNorm::StudentT
                      : GetParameterString("norm") == "mahalanobis" ? dl::ResidualNorm::Mahalanobis
                                                                    : dl::ResidualNorm::L2;
    filter->SetEngineFactory(
        [=, tiling = contract ? contract->tiling : dl::Tiling()](const dl::SceneMapFilter::Scene& scene) -> std::unique_ptr<dl::MapEngine>
        {
          dl::PairScene pair{scene.pixels, scene.inputs, scene.width, scene.height, clip, scene.settings.threads, scene.settings.readBytes};
          dl::EngineSettings whole = scene.settings;
          whole.window = {};
          std::shared_ptr<dl::SceneScore> score;
          if (likelihood)
          {
            auto source = std::make_shared<dl::ImagePatchSource>(scene.pixels, scene.inputs, scene.width, scene.height);
            score = std::make_shared<dl::NetworkScore>(dl::PatchGrid(scene.width, scene.height, tiling), scene.predictor, std::move(source), planes, whole);
          }
          else if (estimator == "ratio")
          {
            score = std::make_shared<dl::RatioScore>(std::make_shared<dl::PairRegression>(pair, regression), dl::PatchGrid(scene.width, scene.height, tiling),
                                                     scene.predictor, whole);
          }
          else if (estimator == "regress")
          {
            score = std::make_shared<dl::PairRegression>(pair, regression);
          }
          else if (estimator == "cva")
          {
            score = std::make_shared<dl::ChangeVector>(pair);
          }
          else if (estimator == "siroc")
          {
            score = std::make_shared<dl::SiblingScore>(pair);
          }
          else
          {
            score = std::make_shared<dl::AlterationDetector>(pair, estimator == "irmad" ? 30 : 0);
          }
          return std::make_unique<dl::ScoreMapEngine>(score, scene.width, scene.height, settings, whole);
        });
    Connect(std::move(predictor));
    m_Description = settings.description;
    SetMultiWriting(keys.size() > 1); // one output streams better alone
    for (std::size_t r = 0; r < keys.size(); ++r)
    {
      SetParameterOutputImage(keys[r], filter->GetOutput(r));
    }
    RegisterPipeline();
  }

  /** A series: when does each pixel leave what is normal? */
  void Series()
  {
    if (IsSet("model") || (GetParameterString("estimator") != "auto" && GetParameterString("estimator") != "regress"))
    {
      throw dl::Error(dl::Complaint(IsSet("model") ? "model" : "estimator",
                                    IsSet("model") ? "a model for a series" : GetParameterString("estimator") + " of a series",
                                    "-estimator regress, which scores the dates of a series", "Give a pair (in1, in2) instead."));
    }
    for (const char* key : {"which", "calibrate"})
    {
      if (Wants(key))
      {
        throw dl::Error(dl::Complaint(key, "a series", "a pair of dates (in1, in2)", "Leave it out."));
      }
    }
    for (const char* key : {"calibration", "fit"})
    {
      if (IsSet(key))
      {
        throw dl::Error(dl::Complaint(key, "a series", "a pair of dates (in1, in2)", "Leave it out."));
      }
    }
    Begin();
    auto* images = GetParameterImageList("il");
    const auto names = GetParameterStringList("il");

    // Dates, and where each lies in the files.
    std::vector<dl::Day> days;
    if (IsSet("dates"))
    {
      const std::string file = GetParameterString("dates");
      NoteInputFile(file);
      days = dl::ParseDates(ReadText(file, "dates"), "dates", file);
    }
    else
    {
      for (const auto& name : names)
      {
        const auto day = dl::DateInName(name);
        if (!day)
        {
          throw dl::Error(dl::Complaint(
              "dates", name.empty() ? "nothing, and an image without a name, made in memory" : "nothing, and no date in the name \"" + name + "\"",
              "a file of dates, or YYYYMMDD in each name", ""));
        }
        days.push_back(*day);
      }
    }
    const int dates = static_cast<int>(days.size());
    const bool stack = images->Size() == 1;
    const int components = static_cast<int>(images->GetNthElement(0)->GetNumberOfComponentsPerPixel());
    if (!stack && images->Size() != days.size())
    {
      throw dl::Error(dl::Complaint("il", std::to_string(images->Size()) + " images", std::to_string(dates) + ", one for each of the dates", ""));
    }
    if (stack && components % dates != 0)
    {
      throw dl::Error(dl::Complaint("il", "a stack of " + std::to_string(components) + " bands", "a multiple of the " + std::to_string(dates) + " dates", ""));
    }
    const int bands = stack ? components / dates : components;
    if (dates < 8)
    {
      throw dl::Error(dl::Complaint("il", std::to_string(dates) + " dates", "at least 8", "For two dates use in1 and in2."));
    }
    std::vector<int> order(days.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int a, int b) { return days[a] < days[b]; });
    for (std::size_t k = 1; k < order.size(); ++k)
    {
      if (days[order[k]] == days[order[k - 1]])
      {
        throw dl::Error(dl::Complaint("dates", dl::ToString(days[order[k]]) + " twice", "each date once", ""));
      }
    }
    const int reference = GetParameterInt("reference") > 0 ? GetParameterInt("reference") : std::max(6, dates / 3);
    if (GetParameterInt("reference") < 0 || reference + 2 > dates)
    {
      throw dl::Error(
          dl::Complaint("reference", std::to_string(GetParameterInt("reference")) + " of " + std::to_string(dates) + " dates", "at least two dates fewer", ""));
    }

    // Inputs: dates, then masks.
    const Grid first = {images->GetNthElement(0).GetPointer(), "the first image", true};
    const Grid onto = GetParameterString("align") == "resample" ? first : Grid();
    std::vector<dl::PatchMapFilter::Input> inputs;
    const auto split = [&](const std::string& key, int number)
    {
      // Masks are often coarser than what they mask: their pixels are repeated.
      auto all = key == "maskl" ? MakeInput(key, {}, first, "near") : MakeInput(key, {}, onto);
      for (std::size_t k = 0; k < all.images.size(); ++k)
      {
        dl::PatchMapFilter::Input one;
        one.images = {all.images[k]};
        one.names = {all.names[k]};
        one.model.name = key;
        const auto count = static_cast<int>(all.images[k]->GetNumberOfComponentsPerPixel());
        if (count != number)
        {
          throw dl::Error(dl::Complaint(all.names[k], std::to_string(count) + " band(s)", std::to_string(number), ""));
        }
        for (int b = 0; b < count; ++b)
        {
          one.model.bands.push_back("band " + std::to_string(b + 1));
          one.model.scaling.push_back({});
        }
        inputs.push_back(std::move(one));
      }
      return all.images.size();
    };
    const auto count = split("il", stack ? components : bands);
    if (IsSet("maskl"))
    {
      const auto masks = GetParameterImageList("maskl")->Size();
      if (masks != 1 && masks != days.size())
      {
        throw dl::Error(dl::Complaint("maskl", std::to_string(masks) + " images", "one, or " + std::to_string(dates) + ", one a date", ""));
      }
      split("maskl", masks == 1 ? dates : 1);
    }
    auto filter = dl::SceneMapFilter::New();
    m_Scene = filter;
    filter->SetInputs(std::move(inputs));
    if (IsSet("mask"))
    {
      filter->SetMask(MakeMask("mask", onto), "mask");
    }
    filter->SetDescription("regression of each date on the first ones");

    dl::RuptureMapSettings settings;
    const std::vector<std::pair<std::string, dl::SeriesResult>> all = {{"out", dl::SeriesResult::Score},
                                                                       {"pvalue", dl::SeriesResult::PValue},
                                                                       {"change", dl::SeriesResult::Change},
                                                                       {"rupture", dl::SeriesResult::Rupture},
                                                                       {"alarm", dl::SeriesResult::Alarm}};
    std::vector<std::string> keys;
    for (const auto& [key, result] : all)
    {
      if (key == "out" || Wants(key))
      {
        keys.push_back(key);
        settings.results.push_back(result);
      }
    }
    m_Objects = CheckObjects("change");
    CheckDiscoveries();
    const double smooth = SmoothOr(1.5);
    settings.smooth = smooth;
    settings.seed = static_cast<std::uint32_t>(GetParameterInt("seed"));
    settings.rupture.reference = reference;
    settings.rupture.falseAlarms = GetParameterFloat("alpha");
    settings.rupture.permutations = std::find(keys.begin(), keys.end(), "pvalue") == keys.end() ? 0 : 199;
    for (const int k : order)
    {
      // Middle of the day in a year of its own length.
      const std::string text = dl::ToString(days[k]);
      const int year = std::stoi(text.substr(0, 4));
      const double length = dl::MakeDay(year + 1, 1, 1) - dl::MakeDay(year, 1, 1);
      settings.years.push_back(year + (dl::DayOfYear(days[k]) - .5) / length);
    }
    m_Years = {settings.years.front(), settings.years.back()};
    filter->SetOperator(std::make_shared<dl::SeriesOperator>(settings.results));
    PrepareOutputs(filter, keys);
    NoteFiles();
    const std::map<std::string, dl::SeriesMaskKind> kinds = {
        {"invalid", dl::SeriesMaskKind::Invalid}, {"valid", dl::SeriesMaskKind::Valid}, {"scl", dl::SeriesMaskKind::Scl}};
    const auto kind = kinds.at(GetParameterString("masktype"));
    const double clip = Clip();
    otbAppLogINFO(<< filter->GetJob().width << " x " << filter->GetJob().height << " pixels, " << dates << " dates from " << dl::ToString(days[order.front()])
                  << " to " << dl::ToString(days[order.back()]) << ", " << bands << " bands; the first " << (reference > 0 ? reference : std::max(6, dates / 3))
                  << " valid dates of a pixel say what is normal");
    filter->SetEngineFactory(
        [=](const dl::SceneMapFilter::Scene& scene) -> std::unique_ptr<dl::MapEngine>
        {
          dl::EngineSettings whole = scene.settings;
          whole.window = {};
          dl::SeriesScene series;
          series.pixels = scene.pixels;
          series.inputs = scene.inputs;
          series.images = static_cast<int>(count);
          series.dates = dates;
          series.bands = bands;
          series.order = order;
          series.mask = kind;
          series.width = scene.width;
          series.height = scene.height;
          series.clip = clip;
          series.threads = scene.settings.threads;
          series.readBytes = scene.settings.readBytes;
          return std::make_unique<dl::RuptureMapEngine>(std::make_shared<dl::SeriesScore>(series, reference), scene.width, scene.height, settings, whole);
        });
    Connect(nullptr);
    m_Description =
        Json({{"estimator", "regress"}, {"dates", dates}, {"reference", reference}, {"smooth", smooth}, {"alpha", GetParameterFloat("alpha")}}).dump();
    SetMultiWriting(keys.size() > 1);
    for (std::size_t r = 0; r < keys.size(); ++r)
    {
      SetParameterOutputImage(keys[r], filter->GetOutput(r));
    }
    RegisterPipeline();
  }

  /** Keeps the objects whose p-values pass the procedure of Benjamini and Hochberg (1995); notes the p-values. */
  void ControlDiscoveries(const dl::ScoreMapEngine& engine)
  {
    GDALDatasetH dataset = GDALOpenEx(m_Objects.c_str(), GDAL_OF_VECTOR | GDAL_OF_UPDATE, nullptr, nullptr, nullptr);
    const bool shapefile = fs::path(m_Objects).extension() == ".shp"; // of one layer, without transactions
    OGRLayerH layer = !dataset ? nullptr : shapefile ? GDALDatasetGetLayer(dataset, 0) : GDALDatasetGetLayerByName(dataset, "changes");
    if (!layer)
    {
      throw dl::Error(dl::Complaint("objects", "\"" + m_Objects + "\", which cannot be opened again", "what was just written", ""));
    }
    OGRFieldDefnH field = OGR_Fld_Create("pvalue", OFTReal);
    OGR_L_CreateField(layer, field, TRUE);
    OGR_Fld_Destroy(field);
    const int mean = OGR_FD_GetFieldIndex(OGR_L_GetLayerDefn(layer), "mean_score");
    const int at = OGR_FD_GetFieldIndex(OGR_L_GetLayerDefn(layer), "pvalue");
    std::vector<std::pair<double, GIntBig>> objects;
    OGR_L_ResetReading(layer);
    while (OGRFeatureH feature = OGR_L_GetNextFeature(layer))
    {
      objects.emplace_back(engine.PValue(OGR_F_GetFieldAsDouble(feature, mean)), OGR_F_GetFID(feature));
      OGR_F_Destroy(feature);
    }
    std::sort(objects.begin(), objects.end());
    const double rate = GetParameterFloat("fdr");
    std::size_t kept = 0;
    for (std::size_t k = 0; k < objects.size(); ++k)
    {
      if (objects[k].first <= rate * static_cast<double>(k + 1) / static_cast<double>(objects.size()))
      {
        kept = k + 1;
      }
    }
    bool good = shapefile || GDALDatasetStartTransaction(dataset, FALSE) == OGRERR_NONE;
    for (std::size_t k = 0; k < objects.size(); ++k)
    {
      if (k >= kept)
      {
        good = OGR_L_DeleteFeature(layer, objects[k].second) == OGRERR_NONE && good;
        continue;
      }
      OGRFeatureH feature = OGR_L_GetFeature(layer, objects[k].second);
      OGR_F_SetFieldDouble(feature, at, objects[k].first);
      good = OGR_L_SetFeature(layer, feature) == OGRERR_NONE && good;
      OGR_F_Destroy(feature);
    }
    good = (shapefile || GDALDatasetCommitTransaction(dataset) == OGRERR_NONE) && good;
    GDALClose(dataset);
    if (!good)
    {
      throw dl::Error(dl::Complaint("objects", "\"" + m_Objects + "\", which cannot be changed", "room on the disk", ""));
    }
    otbAppLogINFO(<< kept << " of " << objects.size() << " objects are kept at a false-discovery rate of " << rate);
  }

  /** How change is told from no change, and what is kept of it. */
  void Decision(dl::ScoreSettings& settings, double smooth)
  {
    const std::map<std::string, dl::ThresholdRule> rules = {
        {"auto", dl::ThresholdRule::Auto}, {"deviation", dl::ThresholdRule::Deviation}, {"rosin", dl::ThresholdRule::Rosin},    {"em", dl::ThresholdRule::Em},
        {"otsu", dl::ThresholdRule::Otsu}, {"kapur", dl::ThresholdRule::Kapur},         {"kittler", dl::ThresholdRule::Kittler}};
    const auto rule = rules.at(GetParameterString("rule"));
    settings.chooseThreshold = [rule](const dl::ScoreHistogram& histogram) { return dl::ChooseThreshold(histogram, rule); };
    if (HasUserValue("thr"))
    {
      settings.threshold = GetParameterFloat("thr");
      // OTB reads "nan" as the largest float.
      if (!(std::abs(*settings.threshold) < std::numeric_limits<float>::max()))
      {
        throw dl::Error(dl::Complaint("thr", std::to_string(*settings.threshold), "a score", ""));
      }
    }
    settings.alpha = GetParameterFloat("alpha");
    m_Calibrate = IsParameterEnabled("calibrate") && HasValue("calibrate") ? GetParameterString("calibrate") : "";
    if (!m_Calibrate.empty())
    {
      // Blocks wide enough that scores of neighbours hardly depend on each other.
      settings.calibrationBlock = std::max(16, static_cast<int>(std::ceil(6. * smooth)));
      if (IsSet("calibration"))
      {
        throw dl::Error(dl::Complaint("calibrate", "-calibration as well", "one of the two", ""));
      }
    }
    if (IsSet("calibration"))
    {
      const std::string file = GetParameterString("calibration");
      settings.calibration = dl::ScoreCalibration::FromJson(ReadText(file, "calibration"), file);
      CheckSettings(settings.calibration->settings, settings.description, "calibration", file);
      if (settings.calibration->mean.size() != settings.groups.size())
      {
        throw dl::Error(dl::Complaint("calibration", "\"" + file + "\", which is of another estimator", "one made with these settings", ""));
      }
      const double least = 1. / static_cast<double>(settings.calibration->count + 1);
      if (settings.alpha < least)
      {
        std::ostringstream found, expected;
        found << settings.alpha << " with a calibration of " << settings.calibration->count << " pixels";
        expected << "at least " << least;
        throw dl::Error(dl::Complaint("alpha", found.str(), expected.str(), "Calibrate on a larger pair, or ask for a higher rate."));
      }
    }
    m_Fit.clear();
    if (IsParameterEnabled("fit") && HasValue("fit"))
    {
      const std::string file = GetParameterString("fit");
      std::error_code ec;
      if (fs::exists(file, ec))
      {
        settings.fit = dl::SceneFit::FromJson(ReadText(file, "fit"), file);
        CheckSettings(settings.fit->settings, settings.fitDescription, "fit", file);
        otbAppLogINFO(<< "What the scene taught is taken from " << file);
      }
      else
      {
        m_Fit = file;
      }
    }
    for (const auto& [key, file] : {std::make_pair("fit", m_Fit), std::make_pair("calibrate", m_Calibrate)})
    {
      const auto folder = fs::path(file).parent_path();
      if (!file.empty() && !folder.empty() && !fs::is_directory(folder))
      {
        throw dl::Error(dl::Complaint(key, "\"" + file + "\", in a folder that does not exist", "a writable file name", "Make the folder first."));
      }
    }
  }

  /** None of the files written beside the images may be one that is read, or another output. */
  void NoteFiles()
  {
    for (const char* key : {"model", "contract", "calibration"})
    {
      if (IsSet(key))
      {
        NoteInputFile(GetParameterString(key));
      }
    }
    CheckFiles({{"objects", m_Objects}, {"calibrate", m_Calibrate}, {"fit", m_Fit}});
  }

  void CheckSettings(const std::string& theirs, const std::string& ours, const std::string& option, const std::string& file)
  {
    const std::string differ = Differences(theirs, ours);
    if (!differ.empty())
    {
      throw dl::Error(dl::Complaint(option, "\"" + file + "\", made with " + differ, "one made with the settings of this run",
                                    "Give the same settings, or make it again."));
    }
  }

  std::unique_ptr<dl::Predictor> Load(const dl::ModelContract& contract, const std::optional<dl::LikelihoodSettings>& likelihood,
                                      const dl::LikelihoodNeeds& needs, const dl::RuntimeOptions& options, dl::RuntimeReport& report)
  {
    const std::string file = GetModelFiles().front();
    if (!likelihood)
    {
      return dl::MakeDirectionsPredictor(dl::LoadPredictor(file, contract, options, report), contract.tiling.patch, contract.tiling.patch);
    }
    dl::LikelihoodNetworks networks;
    dl::RuntimeOptions each = options;
    each.memory = options.memory / (1 + needs.encode + needs.decode);
    dl::RuntimeReport other;
    if (needs.field)
    {
      networks.field = dl::LoadPredictor(file, contract, each, report);
    }
    if (needs.differentiable)
    {
      networks.differentiable = dl::LoadDifferentiable(file, contract, each, report);
    }
    if (needs.features)
    {
      networks.features = contract.featuresOnly ? dl::LoadPredictor(file, contract, each, report) : dl::LoadMethod(file, contract, "features", each, report);
    }
    // The others take as many patches at once as the first.
    each.batch = report.batch;
    if (needs.encode)
    {
      networks.encode = dl::LoadMethod(file, contract, "encode", each, other);
    }
    if (needs.decode)
    {
      networks.decode = dl::LoadMethod(file, contract, "decode", each, other);
    }
    return dl::MakeLikelihoodPredictor(std::move(networks), contract, *likelihood);
  }

  const dl::ScoreMapEngine* Engine() const { return m_Scene ? m_Scene->GetSceneEngine<dl::ScoreMapEngine>() : nullptr; }

  dl::Legend LegendOf(const std::string& key) const override
  {
    const auto evidence = dl::RampColours::Inferno;
    if (key == "change")
    {
      return dl::BinaryLegend();
    }
    if (key == "which")
    {
      return dl::ClassLegend({{1, "date 1 is the less likely", ""}, {2, "date 2 is the less likely", ""}});
    }
    if (key == "pvalue")
    {
      return dl::PValueLegend();
    }
    if (const auto* engine = Engine())
    {
      // From two deviations below the scores of what did not change; the threshold lies in the middle.
      const auto& fit = engine->Fit();
      const auto score = [&](double deviations)
      {
        const double v = fit.nullMiddle + deviations * fit.nullDeviation;
        return fit.logarithm ? std::exp(v) : v;
      };
      const double low = score(-2.), threshold = engine->Choice().threshold > low ? engine->Choice().threshold : score(2.5);
      const double high = 2. * threshold - low;
      return std::isfinite(low) && std::isfinite(high) && low < high ? dl::RampLegend(low, high, evidence) : dl::Legend();
    }
    if (key == "out")
    {
      return dl::RampLegend(0., 2. * dl::RuptureSettings().threshold, evidence); // the alarm of the CUSUM in the middle
    }
    // When it changed: bands "decimal year".
    auto legend = m_Years.second > m_Years.first ? dl::RampLegend(m_Years.first, m_Years.second, dl::RampColours::Viridis) : dl::Legend();
    legend.band = 2;
    legend.unshown = {0.};
    return legend;
  }

  void FinishFile(const std::string& key, const std::string& path) override
  {
    const auto* engine = Engine();
    GDALDatasetH dataset = m_Scene ? GDALOpen(path.c_str(), GA_Update) : nullptr;
    if (!dataset)
    {
      return; // a format that takes no notes
    }
    GDALSetMetadataItem(dataset, "OTBTORCH_SETTINGS", m_Description.c_str(), nullptr);
    if (!engine)
    {
      const std::map<std::string, std::vector<const char*>> bands = {
          {"rupture", {"first date after", "decimal year", "statistic", "valid dates"}},
          {"alarm", {"CUSUM alarm", "decimal year", "onset, decimal year", "highest CUSUM", "martingale alarm", "log10 martingale"}}};
      const auto found = bands.find(key);
      for (std::size_t b = 0; found != bands.end() && b < found->second.size(); ++b)
      {
        GDALSetDescription(GDALGetRasterBand(dataset, static_cast<int>(b) + 1), found->second[b]);
      }
      GDALClose(dataset);
      return;
    }
    const auto& choice = engine->Choice();
    std::ostringstream threshold;
    threshold << choice.threshold;
    GDALSetMetadataItem(dataset, "OTBTORCH_THRESHOLD", threshold.str().c_str(), nullptr);
    GDALSetMetadataItem(dataset, "OTBTORCH_THRESHOLD_RULE", choice.reason.c_str(), nullptr);
    GDALSetDescription(GDALGetRasterBand(dataset, 1), key == "out" ? "score" : key == "pvalue" ? "-log10 p" : key.c_str());
    GDALClose(dataset);
  }

  void ReportRun() override
  {
    Superclass::ReportRun();
    const auto* engine = Engine();
    if (!m_Objects.empty())
    {
      std::map<std::string, std::string> attributes = {{"settings", m_Description}};
      for (const char* key : {"in1", "in2"})
      {
        const auto names = HasValue(key) ? GetParameterStringList(key) : std::vector<std::string>();
        if (!names.empty())
        {
          const auto day = dl::DateInName(names.front());
          attributes[key == std::string("in1") ? "date1" : "date2"] = day ? dl::ToString(*day) : fs::path(SplitName(names.front()).first).filename().string();
        }
      }
      WriteObjects("change", "out", "score", {}, attributes);
      if (engine && GetParameterFloat("fdr") > 0.f)
      {
        ControlDiscoveries(*engine);
      }
    }
    if (const auto* series = m_Scene ? m_Scene->GetSceneEngine<dl::RuptureMapEngine>() : nullptr)
    {
      otbAppLogINFO(<< "Of " << series->Pixels() << " pixels with data, " << series->Alarms() << " raised the martingale's alarm");
    }
    if (!engine)
    {
      return;
    }
    if (engine->ValidPixels() == 0)
    {
      otbAppLogWARNING(<< "No pixel has data in both dates: the maps hold nothing but no-data");
    }
    const auto& choice = engine->Choice();
    otbAppLogINFO(<< "Threshold " << choice.threshold << ": " << choice.reason);
    if (!m_Fit.empty())
    {
      WriteText(m_Fit, engine->Fit().ToJson(), "fit");
      otbAppLogINFO(<< "What the scene taught is kept in " << m_Fit);
    }
    if (!m_Calibrate.empty())
    {
      WriteText(m_Calibrate, engine->Calibration().ToJson(), "calibrate");
      otbAppLogINFO(<< "Calibrated on " << engine->Calibration().count << " pixels, one a block of " << engine->Calibration().block << ": " << m_Calibrate);
    }
  }

  dl::SceneMapFilter::Pointer m_Scene;
  std::pair<double, double> m_Years; ///< of the first and the last date of a series
  std::string m_Description;
  std::string m_Objects;
  std::string m_Calibrate;
  std::string m_Fit;
};

} // namespace Wrapper
} // namespace otb

OTB_APPLICATION_EXPORT(otb::Wrapper::ChangeLikelihood)
