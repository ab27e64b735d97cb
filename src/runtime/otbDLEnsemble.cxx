/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLError.h"
#include "otbDLRuntime.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

namespace otb
{
namespace dl
{

namespace
{

/** Members that see the same inputs. */
class EnsemblePredictor : public Predictor
{
public:
  explicit EnsemblePredictor(std::vector<std::unique_ptr<Predictor>> members, std::vector<std::size_t> sizes)
      : m_Members(std::move(members)), m_Sizes(std::move(sizes))
  {
  }

  int BatchSize() const override { return m_Members.front()->BatchSize(); }
  int CallSize() const override { return m_Members.front()->CallSize(); }
  BatchView Input(int k) override { return m_Members.front()->Input(k); }

  void Run(int filled) override
  {
    for (auto& member : m_Members)
    {
      for (std::size_t k = 0; member != m_Members.front() && k < m_Sizes.size(); ++k)
      {
        const int input = static_cast<int>(k);
        std::memcpy(member->Input(input).data, m_Members.front()->Input(input).data, m_Sizes[k] * sizeof(float));
      }
      member->Run(filled);
    }
  }

  int Outputs() const override { return static_cast<int>(m_Members.size()) * m_Members.front()->Outputs(); }

  BatchView Output(int k) override
  {
    const int each = m_Members.front()->Outputs();
    return m_Members[k / each]->Output(k % each);
  }

private:
  std::vector<std::unique_ptr<Predictor>> m_Members;
  std::vector<std::size_t> m_Sizes; ///< elements of each input of a batch
};

} // namespace

std::vector<std::string> ModelFiles(const std::string& modelFile)
{
  if (modelFile.size() < 4 || modelFile.compare(modelFile.size() - 4, 4, ".txt") != 0)
  {
    return {modelFile};
  }
  std::ifstream in(modelFile);
  if (!in)
  {
    throw Error(Complaint("model", "\"" + modelFile + "\", which cannot be read", "a text file that lists models", ""));
  }
  const auto slash = modelFile.find_last_of('/');
  const std::string folder = slash == std::string::npos ? "" : modelFile.substr(0, slash + 1);
  std::vector<std::string> files;
  for (std::string line; std::getline(in, line);)
  {
    if (files.empty() && line.rfind("\xef\xbb\xbf", 0) == 0)
    {
      line.erase(0, 3); // the mark that some editors put before UTF-8
    }
    line = line.substr(0, line.find('#'));
    const auto begin = line.find_first_not_of(" \t\r"), end = line.find_last_not_of(" \t\r");
    if (begin == std::string::npos)
    {
      continue;
    }
    line = line.substr(begin, end - begin + 1);
    const std::string file = line.front() == '/' ? line : folder + line;
    if (!std::ifstream(file))
    {
      throw Error(
          Complaint("model", "\"" + line + "\" in the list " + modelFile + ", which cannot be read", "one model file a line, relative to the list", ""));
    }
    const auto same = [&file](const std::string& other) { return std::filesystem::equivalent(file, other); };
    if (std::any_of(files.begin(), files.end(), same))
    {
      throw Error(Complaint("model", "\"" + line + "\" twice in the list " + modelFile, "different models", ""));
    }
    files.push_back(file);
  }
  if (files.empty())
  {
    throw Error(Complaint("model", "no model in the list " + modelFile, "one model file a line", ""));
  }
  return files;
}

void CheckSameInterface(const ModelContract& first, const std::string& firstName, const ModelContract& member, const std::string& memberName)
{
  const auto differ = [&](const std::string& what, const std::string& found, const std::string& expected)
  {
    throw Error(
        Complaint("model", what + " " + found + " of " + memberName, expected + " as of " + firstName, "Members of an ensemble take and give the same."));
  };
  if (first.task != member.task)
  {
    differ("the task", member.task, first.task);
  }
  if (first.inputs.size() != member.inputs.size())
  {
    differ("the number of inputs", std::to_string(member.inputs.size()), std::to_string(first.inputs.size()));
  }
  for (std::size_t k = 0; k < first.inputs.size(); ++k)
  {
    const ModelInput &a = first.inputs[k], &b = member.inputs[k];
    const std::string name = " of input \"" + a.name + "\"";
    if (a.role != b.role || a.date != b.date || a.axes != b.axes || a.type != b.type || a.of != b.of || a.steps != b.steps || a.maskedIsOne != b.maskedIsOne ||
        a.minValid != b.minValid)
    {
      differ("the role or the axes" + name, b.name + " (" + b.role + ")", a.name + " (" + a.role + ")");
    }
    if (a.bands != b.bands || a.sensors != b.sensors)
    {
      differ("the bands" + name, Join(b.bands), Join(a.bands));
    }
    bool same = a.noData == b.noData && a.noDataRule == b.noDataRule && a.noDataFill == b.noDataFill && a.derived.size() == b.derived.size();
    for (std::size_t d = 0; same && d < a.derived.size(); ++d)
    {
      same = a.derived[d].band == b.derived[d].band && a.derived[d].a == b.derived[d].a && a.derived[d].b == b.derived[d].b;
    }
    for (std::size_t c = 0; same && c < a.scaling.size(); ++c)
    {
      const BandScaling &p = a.scaling[c], &q = b.scaling[c];
      same = p.low == q.low && p.high == q.high && p.offset == q.offset && p.divisor == q.divisor;
    }
    if (!same)
    {
      differ("the scaling or the no-data" + name, "", "the same");
    }
    const TemporalSpec &s = a.temporal, &t = b.temporal;
    if (s.policy != t.policy || s.length != t.length || s.padAtStart != t.padAtStart || s.padValue != t.padValue || s.gapFill != t.gapFill ||
        s.gridStart != t.gridStart || s.gridEnd != t.gridEnd || s.gridStep != t.gridStep || a.encoding.kind != b.encoding.kind ||
        a.encoding.reference != b.encoding.reference || a.encoding.padValue != b.encoding.padValue)
    {
      differ("the time" + name, "", "the same");
    }
  }
  if (first.outputs.size() != member.outputs.size())
  {
    differ("the number of outputs", std::to_string(member.outputs.size()), std::to_string(first.outputs.size()));
  }
  for (std::size_t k = 0; k < first.outputs.size(); ++k)
  {
    const ModelOutput &a = first.outputs[k], &b = member.outputs[k];
    bool same = a.role == b.role && a.channels == b.channels && a.classes.size() == b.classes.size();
    for (std::size_t c = 0; same && c < a.classes.size(); ++c)
    {
      same = a.classes[c].value == b.classes[c].value;
    }
    if (!same)
    {
      differ("output", "\"" + b.name + "\"", "role, channels and classes of \"" + a.name + "\"");
    }
  }
  const Tiling &s = first.tiling, &t = member.tiling;
  if (s.unit != t.unit || s.window != t.window || s.patch != t.patch || s.multiple != t.multiple || s.halo != t.halo || s.blend != t.blend)
  {
    differ("the tiling", "", "the same");
  }
}

std::unique_ptr<Predictor> LoadEnsemble(const std::vector<std::string>& modelFiles, const std::vector<ModelContract>& contracts, const RuntimeOptions& options,
                                        RuntimeReport& report)
{
  if (modelFiles.size() == 1)
  {
    return LoadPredictor(modelFiles.front(), contracts.front(), options, report);
  }
  RuntimeOptions each = options;
  each.memory = options.memory / modelFiles.size();
  std::vector<std::unique_ptr<Predictor>> members;
  const auto load = [&]
  {
    members.clear();
    each.batch = options.batch;
    for (std::size_t m = 0; m < modelFiles.size(); ++m)
    {
      RuntimeReport own;
      members.push_back(LoadPredictor(modelFiles[m], contracts[m], each, own));
      if (m == 0)
      {
        report = own;
        each.batch = own.batch;
        continue;
      }
      report.bytesPerSample += own.bytesPerSample;
      report.bytesBase += own.bytesBase;
      report.secondsPerSample += report.secondsPerSample / static_cast<double>(m); // as long as the others
      report.warnings.insert(report.warnings.end(), own.warnings.begin(), own.warnings.end());
    }
  };
  load();
  const auto alike = [&](const std::unique_ptr<Predictor>& member)
  {
    bool same = true;
    for (int k = 0; k < static_cast<int>(contracts.front().inputs.size()); ++k)
    {
      const BatchView a = members.front()->Input(k), b = member->Input(k);
      same = same && a.strideN == b.strideN && a.strideT == b.strideT && a.strideC == b.strideC && a.strideY == b.strideY && a.strideX == b.strideX;
    }
    return same;
  };
  if (!std::all_of(members.begin(), members.end(), alike))
  {
    each.plainLayout = true; // one that all can have
    load();
  }
  for (std::size_t m = 1; m < members.size(); ++m)
  {
    if (members[m]->BatchSize() != members[0]->BatchSize())
    {
      throw Error(Complaint("model", "that " + modelFiles[m] + " takes more memory than the others", "members that run side by side", "Give more -ram."));
    }
  }
  std::vector<std::size_t> sizes;
  for (std::size_t k = 0; k < contracts.front().inputs.size(); ++k)
  {
    // Batches are dense: the first slot's distance to the second, times the slots.
    sizes.push_back(static_cast<std::size_t>(members[0]->Input(static_cast<int>(k)).strideN) * members[0]->BatchSize());
  }
  return std::make_unique<EnsemblePredictor>(std::move(members), std::move(sizes));
}

} // namespace dl
} // namespace otb
