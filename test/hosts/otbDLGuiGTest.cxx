/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 *
 * The applications in OTB's own windows, in this process and without a screen: what they show once a model is chosen, what they switch off, and that nothing
 * a user chooses ends more than the run.
 */

#include "otbWrapperApplication.h"
#include "otbWrapperApplicationRegistry.h"
#include "otbWrapperQtWidgetMainWindow.h"
#include "otbWrapperQtWidgetModel.h"
#include "otbWrapperQtWidgetView.h"

#include <gdal_priv.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <QApplication>
#include <QCheckBox>
#include <QElapsedTimer>
#include <QGridLayout>
#include <QLabel>
#include <QLineEdit>
#include <QPlainTextEdit>
#include <QPushButton>
#include <QStatusBar>
#include <QTimer>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

namespace
{

namespace fs = std::filesystem;
using otb::Wrapper::Application;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

/** A trained model of data/models. */
std::string Shipped(const std::string& name)
{
  return std::string(OTBDL_SHIPPED) + "/" + name;
}

/** A model of otbtorch.testing. */
std::string Made(const std::string& name)
{
  return std::string(OTBDL_MODELS) + "/" + name;
}

bool LibTorchIsLoaded()
{
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);)
  {
    if (line.find("libtorch") != std::string::npos || line.find("libc10") != std::string::npos)
    {
      return true;
    }
  }
  return false;
}

Application::Pointer Create(const std::string& name)
{
  auto application = otb::Wrapper::ApplicationRegistry::CreateApplication(name);
  if (application)
  {
    application->UpdateParameters();
  }
  return application;
}

/** A folder of this test's own, empty. */
std::string Folder()
{
  const auto* test = testing::UnitTest::GetInstance()->current_test_info();
  const fs::path folder = fs::path(OTBDL_SCRATCH) / (std::string(test->test_suite_name()) + "." + test->name());
  fs::remove_all(folder);
  fs::create_directories(folder);
  return folder.string();
}

/** Text that an application shows of its model. */
std::string About(Application* application, const std::string& subject)
{
  return application->GetParameterString("about." + subject);
}

Application::Pointer WithModel(const std::string& name, const std::string& model)
{
  auto application = Create(name);
  application->SetParameterString("model", model);
  application->UpdateParameters();
  return application;
}

/** Would a window let the user fill a parameter in? It may be switched on, and stays on at the next change. */
bool CanBeSwitchedOn(Application* application, const std::string& key)
{
  application->EnableParameter(key);
  application->UpdateParameters();
  return application->IsParameterEnabled(key);
}

/** Images of random bytes. */
std::string WriteImage(const std::string& path, int bands, int side = 70, unsigned int seed = 1)
{
  GDALAllRegister();
  auto* dataset = GetGDALDriverManager()->GetDriverByName("GTiff")->Create(path.c_str(), side, side, bands, GDT_UInt16, nullptr);
  std::vector<std::uint16_t> row(side);
  for (int b = 1; b <= bands; ++b)
  {
    for (int y = 0; y < side; ++y)
    {
      for (auto& v : row)
      {
        seed = seed * 1664525u + 1013904223u;
        v = static_cast<std::uint16_t>(100 + (seed >> 20));
      }
      if (dataset->GetRasterBand(b)->RasterIO(GF_Write, 0, y, side, 1, row.data(), side, 1, GDT_UInt16, 0, 0) != CE_None)
      {
        ADD_FAILURE() << path;
      }
    }
  }
  GDALClose(dataset);
  return path;
}

/** A window of otbgui. */
class Window
{
public:
  explicit Window(const std::string& name)
  {
    m_Application = otb::Wrapper::ApplicationRegistry::CreateApplication(name);
    auto* view = new otb::Wrapper::QtWidgetView(m_Application);
    view->CreateGui();
    m_Window = std::make_unique<otb::Wrapper::QtMainWindow>(m_Application, view);
    m_Window->show();
    QApplication::processEvents();
  }

  Application* App() { return m_Application; }

  /** The widget in the column of a grid, in the row of the label that shows a parameter's name. */
  QWidget* InRow(const QString& name, int column)
  {
    for (auto* label : m_Window->findChildren<QLabel*>())
    {
      if (label->text() != name)
      {
        continue;
      }
      QWidget* cell = label;
      for (QWidget* parent = cell->parentWidget(); parent; cell = parent, parent = parent->parentWidget())
      {
        auto* grid = qobject_cast<QGridLayout*>(parent->layout());
        const int at = grid ? grid->indexOf(cell) : -1;
        if (at >= 0)
        {
          int row, of, rows, columns;
          grid->getItemPosition(at, &row, &of, &rows, &columns);
          auto* item = grid->itemAtPosition(row, column);
          return item ? item->widget() : nullptr;
        }
      }
    }
    ADD_FAILURE() << "no row \"" << name.toStdString() << "\"";
    return nullptr;
  }

  QLineEdit* Line(const QString& name)
  {
    auto* widget = InRow(name, 2);
    auto* own = qobject_cast<QLineEdit*>(widget);
    return own ? own : widget ? widget->findChild<QLineEdit*>() : nullptr;
  }

  QCheckBox* Box(const QString& name) { return qobject_cast<QCheckBox*>(InRow(name, 0)); }

  /** As typed. */
  void Type(const QString& name, const std::string& text)
  {
    auto* line = Line(name);
    ASSERT_NE(line, nullptr);
    line->setText(QString::fromStdString(text));
    QApplication::processEvents();
  }

  std::string Text(const QString& name)
  {
    auto* line = Line(name);
    return line ? line->text().toStdString() : "";
  }

  /** What list widgets do is OTB's own: here values go to the parameter, as from its file dialogue. */
  void Give(const std::string& key, const std::vector<std::string>& values)
  {
    m_Application->SetParameterStringList(key, values);
    View()->NotifyUpdate();
    QApplication::processEvents();
  }

  otb::Wrapper::QtWidgetModel* View() { return m_Window->Gui()->GetModel(); }
  QPushButton* Button() { return m_Window->findChild<QPushButton*>("executeButton"); }
  std::string Log() { return m_Window->findChild<QPlainTextEdit*>("plainTextEdit")->toPlainText().toStdString(); }
  std::string Status() { return m_Window->statusBar()->currentMessage().toStdString(); }

  /** Presses Execute and waits for the end of the run; the exception that the window was told of, empty if none. */
  std::string Execute()
  {
    std::string exception;
    bool done = false;
    const auto told = QObject::connect(View(), &otb::Wrapper::QtWidgetModel::ExceptionRaised, [&](const QString& what) { exception = what.toStdString(); });
    const auto ended = QObject::connect(View(), &otb::Wrapper::QtWidgetModel::SetProgressReportDone, [&] { done = true; });
    EXPECT_TRUE(Button()->isEnabled());
    Button()->click();
    // The window takes a second after a run to be ready for the next one.
    QElapsedTimer clock;
    for (clock.start(); clock.elapsed() < 60000 && (!done || View()->IsRunning());)
    {
      QApplication::processEvents(QEventLoop::WaitForMoreEvents, 100);
    }
    EXPECT_TRUE(done);
    QObject::disconnect(told);
    QObject::disconnect(ended);
    return exception;
  }

private:
  Application::Pointer m_Application;
  std::unique_ptr<otb::Wrapper::QtMainWindow> m_Window;
};

const std::vector<std::string> applications = {"SiameseCD", "TimeSeriesClassify", "ChangeLikelihood", "ChangeEvaluation"};

// ------------------------------------------------------------------------------------------------------------------------------------ LibTorch

TEST(Gui, LibTorchIsNotLoadedBeforeARun)
{
  const auto all = otb::Wrapper::ApplicationRegistry::GetAvailableApplications();
  for (const auto& name : applications)
  {
    ASSERT_THAT(all, testing::Contains(name));
    ASSERT_TRUE(Create(name));
  }
  WithModel("SiameseCD", Shipped("siamese-s2.pt"));
  WithModel("TimeSeriesClassify", Shipped("sits-s2-crops.pt"));
  WithModel("ChangeLikelihood", Shipped("flow-s2.pt"));
  EXPECT_FALSE(LibTorchIsLoaded());
}

// ------------------------------------------------------------------------------------------------------------------------------- what is shown

TEST(Gui, NothingIsSaidWithoutAModel)
{
  for (const char* name : {"SiameseCD", "TimeSeriesClassify", "ChangeLikelihood"})
  {
    auto application = Create(name);
    EXPECT_EQ(About(application, "model"), "none is chosen") << name;
    EXPECT_EQ(About(application, "bands"), "-") << name;
  }
}

TEST(Gui, ModelOfAPairIsDescribed)
{
  auto application = WithModel("SiameseCD", Shipped("demo-l7.pt"));
  EXPECT_THAT(About(application, "model"), StartsWith("demo-l7, change-detection (FC-Siam-diff "));
  EXPECT_EQ(About(application, "bands"), "6 bands of each date: B1 B2 B3 B4 B5 B7 (no-data 0); pixels of 28.5 m");
  EXPECT_EQ(About(application, "classes"), "2 classes: 0 no-change, 1 change");
  EXPECT_EQ(About(application, "patches"), "192 x 192 pixels, of which a halo of 23 is cut away");
  EXPECT_EQ(About(application, "decision"), "change at a probability of 0.55 or more; -tta: swap d4");
  EXPECT_THAT(About(application, "licence"), StartsWith("Apache-2.0; trained on "));
}

TEST(Gui, ModelOfASeriesIsDescribed)
{
  auto application = WithModel("TimeSeriesClassify", Shipped("sits-s2-crops.pt"));
  EXPECT_THAT(About(application, "model"), StartsWith("sits-s2-crops, time-series-classification ("));
  EXPECT_THAT(About(application, "bands"), HasSubstr(": B02 B03 B04 B08"));
  EXPECT_EQ(About(application, "dates"), "19 steps of 15 days, 02-15 to 11-15, interpolated from any dates");
  EXPECT_EQ(About(application, "classes"), "3 classes: 1 maize, 2 permanent grass, 3 no cropland");
  EXPECT_EQ(About(application, "patches"), "pixels, each with a window of 5 x 5");
}

TEST(Gui, EstimatorsOfAModelAreListedThatOfAutoFirst)
{
  EXPECT_THAT(About(WithModel("ChangeLikelihood", Shipped("flow-s2.pt")), "estimators"),
              AllOf(StartsWith("pmi, cond"), HasSubstr("loglik"), Not(HasSubstr("mae"))));
  EXPECT_THAT(About(WithModel("ChangeLikelihood", Shipped("mae-s2.pt")), "estimators"), AllOf(StartsWith("mae"), Not(HasSubstr("pmi"))));
}

TEST(Gui, EnsembleIsCounted)
{
  const std::string list = Folder() + "/models.txt";
  std::ofstream(list) << Shipped("siamese-s2.pt") << "\n" << Shipped("demo-l7.pt") << "\n";
  EXPECT_THAT(About(WithModel("SiameseCD", list), "model"), StartsWith("ensemble of 2, the first: siamese-s2, change-detection ("));
}

TEST(Gui, LongTextIsShortenedAndWholeInTheHint)
{
  auto application = WithModel("SiameseCD", Shipped("siamese-s2.pt"));
  const std::string shown = About(application, "licence"), whole = application->GetParameterDescription("about.licence");
  ASSERT_THAT(shown, testing::EndsWith(" ..."));
  EXPECT_LE(shown.size(), 84u);
  EXPECT_THAT(whole, StartsWith(shown.substr(0, shown.size() - 4)));
}

TEST(Gui, FileThatIsNoModelIsSaidInOneLine)
{
  const std::string folder = Folder();
  std::ofstream(folder + "/text.pt") << "no model";
  std::ofstream(folder + "/list.txt") << "nowhere.pt\n";
  for (const auto& file :
       {folder + "/text.pt", folder + "/list.txt", folder + "/nowhere.pt", folder, Made("corrupt.pt"), Made("truncated.pt"), Made("empty.pt"),
        Made("notscript.pt"), Made("nocontract.pt"), Made("invalid.pt"), std::string("/dev/zero"), std::string("/vsizip/x")})
  {
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    auto application = WithModel("SiameseCD", file);
    EXPECT_EQ(testing::internal::GetCapturedStdout() + testing::internal::GetCapturedStderr(), "") << file;
    const std::string text = application->GetParameterDescription("about.model");
    EXPECT_THAT(text, StartsWith("cannot be used: ")) << file;
    EXPECT_THAT(text, Not(HasSubstr("\n"))) << file;
    EXPECT_EQ(About(application, "bands"), "-") << file;
  }
}

TEST(Gui, ModelOfAnotherApplicationIsSaidToBeOne)
{
  auto application = WithModel("ChangeLikelihood", Shipped("demo-l7.pt"));
  EXPECT_EQ(About(application, "model"), "cannot be used: it is a model for change-detection, not for change-likelihood");
}

TEST(Gui, ViolationOfAContractIsNamed)
{
  auto application = WithModel("SiameseCD", Made("invalid.pt"));
  EXPECT_THAT(application->GetParameterDescription("about.model"), HasSubstr("the contract cannot be used: /"));
}

TEST(Gui, GivenContractReplacesThatOfTheModel)
{
  auto application = Create("SiameseCD");
  application->SetParameterString("contract", OTBDL_EXAMPLE);
  application->UpdateParameters();
  application->SetParameterString("model", Shipped("demo-l7.pt"));
  application->UpdateParameters();
  EXPECT_THAT(About(application, "model"), StartsWith("siamese-example, "));
  application->DisableParameter("contract"); // unchecked in the window, where its text stays
  application->UpdateParameters();
  EXPECT_THAT(About(application, "model"), StartsWith("demo-l7, "));
}

TEST(Gui, FileThatChangedIsReadAgain)
{
  const std::string file = Folder() + "/model.pt";
  fs::copy_file(Shipped("demo-l7.pt"), file);
  auto application = WithModel("SiameseCD", file);
  EXPECT_THAT(About(application, "model"), StartsWith("demo-l7, "));
  fs::copy_file(Shipped("siamese-s2.pt"), file, fs::copy_options::overwrite_existing);
  application->UpdateParameters();
  EXPECT_THAT(About(application, "model"), StartsWith("siamese-s2, "));
  fs::copy_file(OTBDL_EXAMPLE, file + ".mlm.json");
  application->UpdateParameters();
  EXPECT_THAT(About(application, "model"), StartsWith("siamese-example, "));
}

// ------------------------------------------------------------------------------------------------------------------------------- what applies

TEST(Gui, ClassMapsNeedAModelOfClasses)
{
  auto binary = WithModel("SiameseCD", Shipped("demo-l7.pt"));
  auto semantic = WithModel("SiameseCD", Made("unet_sem.pt"));
  for (const char* key : {"sem1", "sem2"})
  {
    EXPECT_FALSE(CanBeSwitchedOn(binary, key)) << key;
    EXPECT_TRUE(CanBeSwitchedOn(semantic, key)) << key;
  }
  EXPECT_TRUE(CanBeSwitchedOn(binary, "conf"));
}

TEST(Gui, ParameterThatWasGivenStaysOnWhateverTheModel)
{
  auto application = Create("SiameseCD");
  application->SetParameterString("sem1", "/nowhere/sem1.tif");
  application->SetParameterString("tta", "d4");
  application->UpdateParameters();
  application->SetParameterString("model", Made("prob.pt"));
  application->UpdateParameters();
  EXPECT_TRUE(application->IsParameterEnabled("sem1"));
  EXPECT_EQ(application->GetParameterString("sem1"), "/nowhere/sem1.tif");
  EXPECT_EQ(application->GetParameterString("tta"), "d4");
}

TEST(Gui, SensorsThatAModelDoesNotKnowAreSwitchedOff)
{
  auto one = WithModel("TimeSeriesClassify", Shipped("sits-s2-crops.pt"));
  auto two = WithModel("TimeSeriesClassify", Shipped("sits-s1s2-crops.pt"));
  EXPECT_FALSE(CanBeSwitchedOn(one, "il2"));
  EXPECT_TRUE(CanBeSwitchedOn(two, "il2"));
  EXPECT_TRUE(CanBeSwitchedOn(two, "dates2"));
  for (const char* key : {"il3", "static", "mutual", "blend"})
  {
    EXPECT_FALSE(CanBeSwitchedOn(two, key)) << key;
  }
  for (const char* key : {"out", "confmap", "probamap", "entropy", "nvalid"})
  {
    EXPECT_TRUE(CanBeSwitchedOn(two, key)) << key;
  }
}

TEST(Gui, SettingsOfOtherEstimatorsAreSwitchedOff)
{
  auto application = Create("ChangeLikelihood");
  EXPECT_TRUE(CanBeSwitchedOn(application, "norm"));
  EXPECT_FALSE(CanBeSwitchedOn(application, "levels"));
  application->SetParameterString("model", Shipped("flow-s2.pt"));
  application->UpdateParameters();
  EXPECT_FALSE(CanBeSwitchedOn(application, "norm"));
  EXPECT_TRUE(CanBeSwitchedOn(application, "levels"));
  EXPECT_FALSE(CanBeSwitchedOn(application, "probes"));
  application->SetParameterString("estimator", "loglik");
  application->UpdateParameters();
  EXPECT_FALSE(CanBeSwitchedOn(application, "levels"));
  EXPECT_TRUE(CanBeSwitchedOn(application, "probes"));
  EXPECT_TRUE(CanBeSwitchedOn(application, "which"));
}

TEST(Gui, FiguresOfOtherModesAreSwitchedOff)
{
  auto application = Create("ChangeEvaluation");
  EXPECT_FALSE(CanBeSwitchedOn(application, "thr"));
  EXPECT_FALSE(CanBeSwitchedOn(application, "points"));
  application->SetParameterString("mode", "score");
  application->UpdateParameters();
  EXPECT_TRUE(CanBeSwitchedOn(application, "thr"));
  application->SetParameterString("mode", "sample");
  application->UpdateParameters();
  EXPECT_TRUE(CanBeSwitchedOn(application, "points"));
  EXPECT_FALSE(CanBeSwitchedOn(application, "iou"));
}

// ---------------------------------------------------------------------------------------------------------------------------------- in a window

TEST(GuiWindow, EveryApplicationOpens)
{
  for (const auto& name : applications)
  {
    Window window(name);
    ASSERT_NE(window.Button(), nullptr);
    EXPECT_EQ(window.Log(), "") << name;
  }
}

TEST(GuiWindow, ChosenModelIsDescribedInItsLines)
{
  Window window("SiameseCD");
  EXPECT_EQ(window.Text("Model"), "none is chosen");
  window.Type("TorchScript model", Shipped("demo-l7.pt"));
  EXPECT_THAT(window.Text("Model"), StartsWith("demo-l7, "));
  EXPECT_EQ(window.Text("Bands"), "6 bands of each date: B1 B2 B3 B4 B5 B7 (no-data 0); pixels of 28.5 m");
  EXPECT_FALSE(window.Line("Model")->isEnabled());
  window.Type("TorchScript model", Made("corrupt.pt"));
  EXPECT_THAT(window.Text("Model"), StartsWith("cannot be used: "));
  EXPECT_EQ(window.Text("Bands"), "-");
  window.Type("TorchScript model", "");
  EXPECT_EQ(window.Text("Model"), "none is chosen");
}

TEST(GuiWindow, BoxOfWhatDoesNotApplyCannotBeChecked)
{
  Window window("SiameseCD");
  window.Type("TorchScript model", Shipped("demo-l7.pt"));
  auto* box = window.Box("Classes of the first date");
  ASSERT_NE(box, nullptr);
  box->click();
  EXPECT_FALSE(box->isChecked());
  window.Type("TorchScript model", Made("unet_sem.pt"));
  box->click();
  EXPECT_TRUE(box->isChecked());
}

TEST(GuiWindow, FailedRunsAreToldAndTheNextOneWorks)
{
  const std::string folder = Folder();
  const std::string one = WriteImage(folder + "/one.tif", 4), two = WriteImage(folder + "/two.tif", 4, 70, 2), three = WriteImage(folder + "/three.tif", 3);
  std::ofstream(folder + "/text.tif") << "no image";
  const std::string out = folder + "/out.tif";

  Window window("SiameseCD");
  window.Give("in1", {one});
  window.Give("in2", {three});
  window.Type("Change map", out);
  EXPECT_FALSE(window.Button()->isEnabled()) << "a model is missing";

  window.Type("TorchScript model", Made("corrupt.pt"));
  EXPECT_THAT(window.Execute(), AllOf(HasSubstr("model: found"), HasSubstr("corrupt.pt")));
  EXPECT_EQ(window.Status(), "Ready to run");
  EXPECT_THAT(window.Log(), HasSubstr("corrupt.pt"));

  window.Type("TorchScript model", Made("unet.pt"));
  EXPECT_THAT(window.Execute(), AllOf(HasSubstr("in2 (three.tif): found 3 band(s); expected 4")));

  window.Give("in2", {folder + "/text.tif"});
  EXPECT_THAT(window.Execute(), HasSubstr("text.tif"));
  EXPECT_FALSE(fs::exists(out));

  window.Give("in2", {two});
  EXPECT_EQ(window.Execute(), "");
  EXPECT_TRUE(fs::exists(out));

  fs::remove(out);
  EXPECT_EQ(window.Execute(), "") << "once more, as it is";
  EXPECT_TRUE(fs::exists(out));
  for (const auto& entry : fs::directory_iterator(folder))
  {
    EXPECT_EQ(entry.path().string().find(".part-"), std::string::npos) << entry.path();
  }
}

TEST(GuiWindow, CancelledRunLeavesNothingAndTheNextOneWorks)
{
  const std::string folder = Folder(), out = folder + "/out.tif";
  Window window("SiameseCD");
  window.Give("in1", {WriteImage(folder + "/one.tif", 4, 900)});
  window.Give("in2", {WriteImage(folder + "/two.tif", 4, 900, 2)});
  window.Type("TorchScript model", Made("unet.pt"));
  window.Type("Change map", out);
  QTimer poll;
  bool cancelled = false;
  QObject::connect(&poll, &QTimer::timeout,
                   [&]
                   {
                     if (!cancelled && window.App()->GetProgressSource() && window.App()->GetProgressSource()->GetProgress() > .1)
                     {
                       cancelled = true;
                       EXPECT_EQ(window.Button()->text().toStdString(), "Cancel");
                       window.Button()->click();
                     }
                   });
  poll.start(5);
  window.Execute();
  poll.stop();
  EXPECT_TRUE(cancelled);
  for (const auto& entry : fs::directory_iterator(folder))
  {
    EXPECT_THAT(entry.path().filename().string(), testing::AnyOf("one.tif", "two.tif"));
  }
  window.Give("in1", {WriteImage(folder + "/small1.tif", 4)});
  window.Give("in2", {WriteImage(folder + "/small2.tif", 4, 70, 2)});
  EXPECT_EQ(window.Execute(), "");
  EXPECT_TRUE(fs::exists(out));
}

} // namespace

int main(int argc, char** argv)
{
  setenv("QT_QPA_PLATFORM", "offscreen", 0);
  setenv("LC_NUMERIC", "C", 1); // as OTB's own launchers do
  testing::InitGoogleTest(&argc, argv);
  QApplication application(argc, argv);
  setlocale(LC_NUMERIC, "C"); // QApplication takes the user's
  otb::Wrapper::ApplicationRegistry::SetApplicationPath(OTBDL_APPLICATIONS);
  return RUN_ALL_TESTS();
}
