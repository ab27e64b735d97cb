/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLApplication_h
#define otbDLApplication_h

#include "otbDLChangeObjects.h"
#include "otbDLLegend.h"
#include "otbDLModelContract.h"
#include "otbDLModelInfo.h"
#include "otbDLPatchMapFilter.h"
#include "otbDLRasters.h"
#include "otbDLRuntime.h"
#include "otbDLViews.h"

#include "otbWrapperApplication.h"
#include "otbWrapperOutputImageParameter.h"

#include <array>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace otb
{
namespace Wrapper
{

/** \class DLApplication
 * \brief What the applications of this module share: the parameters of a run, the model behind them, how outputs come to be and what is said about it.
 *
 * Outputs are written by OTB's own writers, but under a temporary name beside the final one, and renamed once they are whole and on disk: a file that bears
 * its final name is finished. A run that fails removes what it began.
 *
 * \ingroup OTBTorch
 */
class DLApplication : public Application
{
public:
  using Self = DLApplication;
  using Pointer = itk::SmartPointer<Self>;
  itkTypeMacro(DLApplication, Application);

protected:
  using FilterType = otb::dl::MapFilter;

  DLApplication();
  ~DLApplication() override;

  /** Adds model, contract. */
  void AddModelParameters();

  /** Adds the group about: lines that say what the contract of the chosen model says, for who fills in a window.
   * \param task of the models that the application runs
   * \param subjects of DescribeModel() */
  void AddModelInfo(const std::string& task, const std::vector<std::string>& subjects);

  /** Fills that group, and returns what is known of the model: called at every change of a parameter, reads files only when they changed, never throws. */
  const ModelInfo& ShowModel();

  /** Switches a parameter off that means nothing for the model or the mode chosen; one that was given a value is left on, for the run to complain about. */
  void Applies(const std::string& key, bool applies);

  /** Has an optional input a value that counts? Not one whose box was unchecked in a window; one from memory does, which switches nothing on. */
  bool IsSet(const std::string& key);

  /** Adds device, precision, batch, blend, legend, ram. */
  void AddRunParameters();

  /** Notes that the run ended well; an override calls it last. */
  void AfterExecuteAndWriteOutputs() override;

  /** Notes the file of an input that is not an image list: no output may take its name. */
  void NoteInput(const std::string& key);

  /** The same, for a file by its extended name. */
  void NoteInputFile(const std::string& name);

  /** Begins a run: forgets the one before. Reads the contract that the model parameters name, with -blend applied to its tiling. Logs what it says.
   * \param ensembles may -model be a list of models? Then the contract is that of the first, with which the others agree */
  otb::dl::ModelContract ReadModelContract(bool ensembles = false);

  /** Models of the ensemble, or the one. Valid after ReadModelContract(). */
  std::size_t GetNumberOfMembers() const { return m_ModelFiles.size(); }

  /** Their temperatures. */
  std::vector<double> GetTemperatures() const;

  /** Adds tta. */
  void AddViewsParameter();

  /** What tta asks for, if all members allow it. Valid after ReadModelContract().
   * \throw Error when one does not */
  std::vector<otb::dl::View> GetViews() const;

  /** Asks for another type of an output's pixels than the parameter has; the next run begins with what was there before. */
  void ChangePixelType(const std::string& key, ImagePixelType type);

  /** The grid that the files of a run are brought onto. */
  struct Grid
  {
    itk::ImageBase<2>::Pointer image; ///< null: files are left as they are
    std::string name;                 ///< of the image, for messages
    bool resample = false;            ///< files that lie on other grids (-align resample)? Else only those of coarser bands
  };

  /** That of a pair: the first file of an image list whose pixels are the finest. */
  Grid ChooseGrid(const std::string& key);

  /** One input of the filter from an image list parameter. Files whose pixels are coarser than those of others in the list, with the same extent, are brought
   * onto the grid; others if grid.resample.
   * \param method of resampling: near, bilinear or cubic
   * \param shift pixels right and down: every file is resampled, and pixel p shows what it has at p + shift
   * \throw Error when it holds no image, or one on another grid */
  otb::dl::PatchMapFilter::Input MakeInput(const std::string& key, const otb::dl::ModelInput& model, const Grid& grid, const std::string& method = "cubic",
                                           const std::array<double, 2>& shift = {0., 0.});

  /** The validity image of a pair. */
  FloatVectorImageType::Pointer MakeMask(const std::string& key, const Grid& grid);

  /** Adds objects and how they are made. */
  void AddObjectParameters();

  /** The GeoPackage asked for, or an empty name; checks what can be wrong with it before the first pixel.
   * \param map key of the output that the objects are made from */
  std::string CheckObjects(const std::string& map);

  /** Checks that files which are no image parameters are neither read in this run nor written twice. Called after PrepareOutputs().
   * \param files keys and paths; empty paths are passed over */
  void CheckFiles(const std::vector<std::pair<std::string, std::string>>& files);

  /** Makes it from finished files. \param classes of a from-to map */
  otb::dl::ObjectReport WriteObjects(const std::string& map, const std::string& score, const std::string& scoreName,
                                     const std::vector<std::pair<int, std::string>>& classes, const std::map<std::string, std::string>& attributes);

  /** Adds align, coreg. */
  void AddAlignParameter();

  /** Lets the filter do, before its first region, what coreg and radiometry ask for and takes pixels: measure the shift between the two dates and say
   * what it is, move date 2 onto date 1, match its radiometry. Called after PrepareOutputs().
   * \param inputs of the filter
   * \param match change the scaling of date 2 so that it includes what matches it to date 1?
   * \throw Error when the parameters ask for what cannot be; from the filter, when something cannot be measured */
  void PreparePair(otb::dl::PatchMapFilter* filter, const std::vector<otb::dl::PatchMapFilter::Input>& inputs, const Grid& grid, bool match = false);

  /** Adds radiometry. */
  void AddRadiometryParameter();

  /** Begins a run without a model: forgets the one before. */
  void Begin();

  /** Checks the outputs of a filter whose inputs and operator are set, divides -ram.
   * \param outputs keys of the output parameters, in the order of the filter's outputs */
  void PrepareOutputs(FilterType* filter, const std::vector<std::string>& outputs);

  /** Loads what `load` loads with the options that the parameters say; logs device, batch and memory. */
  std::unique_ptr<otb::dl::Predictor>
  LoadNetwork(const std::function<std::unique_ptr<otb::dl::Predictor>(const otb::dl::RuntimeOptions&, otb::dl::RuntimeReport&)>& load);

  /** Gives the filter its network (may be null), its share of the machine, and a progress line. */
  void Connect(std::unique_ptr<otb::dl::Predictor> predictor);

  /** A share of -ram, in bytes; threads; a folder for temporary files. Valid after PrepareOutputs(). */
  const otb::dl::MapEngine::Settings& GetEngineSettings() const { return m_Settings; }

  /** All three for a model that runs by itself. Loads the model for a filter whose inputs, operator and tiling are set; divides -ram; logs both.
   * \param outputs keys of the output parameters, in the order of the filter's outputs
   * \param views that every patch is shown in */
  void PrepareRun(FilterType* filter, const otb::dl::ModelContract& contract, const std::vector<std::string>& outputs,
                  const std::vector<otb::dl::View>& views = std::vector<otb::dl::View>(1));

  /** Is an output to be made? It has a file name, or was enabled without one: then it is made in memory, for another application. */
  bool Wants(const std::string& key) { return IsParameterEnabled(key); }

  /** Is an input image, or one of a list, made in memory by another application? */
  bool IsInMemory(const std::string& key);

  /** Says that what a run leaves beside its maps needs a map with a file name. Called after PrepareOutputs().
   * \throw Error when all outputs are made in memory */
  void CheckWritten(const std::string& key);

  /** The last words of a run. Called once all outputs are written; may be extended. */
  virtual void ReportRun();

  /** Last touch to a file that is written whole and closed, before it gets its final name. */
  virtual void FinishFile(const std::string& key, const std::string& path);

  /** What the values of an output mean, for its file and the QGIS style beside it. Asked for once the file is written whole. */
  virtual otb::dl::Legend LegendOf(const std::string& key) const;

  /** Creation options (&gdal:co:...) that an output's file needs, beside those that the user gives. */
  virtual std::string WriterOptions(const std::string& key) const;

  /** Files of the model parameter. */
  const std::vector<std::string>& GetModelFiles() const { return m_ModelFiles; }

  FilterType::Pointer m_Filter;

private:
  /** An output on its way to its final name. */
  struct Pending
  {
    std::string key;
    std::string temporary; ///< path
    std::string final;     ///< path
    std::string style;     ///< path of the QGIS style on its way; empty: there is none
    itk::DataObject* image = nullptr;
  };

  void DoFreeRessources() override;
  void Coregister(otb::dl::PatchMapFilter* filter, std::vector<otb::dl::PatchMapFilter::Input>& inputs, const Grid& grid, const std::string& wish);
  void CheckRadiometry(const std::vector<otb::dl::PatchMapFilter::Input>& inputs) const;
  void MatchRadiometry(otb::dl::PatchMapFilter* filter, std::vector<otb::dl::PatchMapFilter::Input>& inputs);
  void OnProcess(const itk::EventObject& event);
  void OnProgress();
  void OnWritten(itk::Object* writer, const itk::EventObject& event);
  void Divert(OutputImageParameter* parameter, itk::ProcessObject* writer, const std::string& key);
  void CheckOutputs(const std::vector<std::string>& keys);
  void CheckPixelType(const std::string& key);
  bool WantsLegend() const { return GetParameterString("legend") == "on"; }
  void WriteLegendOf(Pending& pending);
  void GiveFinalName(const Pending& pending);
  void Discard();
  void RestoreCache();

  std::string m_Task;
  std::vector<std::string> m_About; ///< subjects of the group about
  std::string m_AboutStamp;         ///< of the files that it was made from
  std::map<std::string, std::string> m_AboutLines;
  ModelInfo m_Info;
  Rasters m_Aligned; ///< files brought onto another grid
  std::vector<std::string> m_ModelFiles;
  std::vector<otb::dl::ModelContract> m_Contracts; ///< of the members of an ensemble
  std::vector<std::string> m_OutputKeys;
  int m_CallSize = 1; ///< samples of one forward
  std::map<std::string, ImagePixelType> m_TypesBefore;
  std::vector<std::string> m_InputPaths; ///< of image lists, one spelling
  std::vector<Pending> m_Pending;
  itk::ProcessObject::Pointer m_Writer; ///< the one at work
  otb::dl::RuntimeReport m_Runtime;
  otb::dl::MapEngine::Settings m_Settings;
  std::chrono::steady_clock::time_point m_Start;
  std::chrono::steady_clock::time_point m_LastLine;
  int m_LastPercent = -1;
  std::string m_Working = "Inference"; ///< what the progress line calls it
  bool m_Console = false;
  bool m_Whole = false; ///< has a run ended well, its outputs written?
  bool m_LineOpen = false;
  long long m_CacheBefore = -1;
};

} // namespace Wrapper
} // namespace otb

#endif
