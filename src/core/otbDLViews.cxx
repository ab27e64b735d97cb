/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLViews.h"

#include "otbDLError.h"
#include "otbDLParallel.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace otb
{
namespace dl
{

namespace
{

/** Where the pixels of a turned patch come from: (y, x) from origin + y * (downY, downX) + x * (rightY, rightX). */
struct Turn
{
  std::ptrdiff_t originY, originX, downY, downX, rightY, rightX;

  Turn(int symmetry, std::ptrdiff_t side)
  {
    const std::ptrdiff_t last = side - 1;
    const Turn quarters[] = {{0, 0, 1, 0, 0, 1}, {0, last, 0, -1, 1, 0}, {last, last, -1, 0, 0, -1}, {last, 0, 0, 1, -1, 0}};
    *this = quarters[symmetry % 4];
    if (symmetry >= 4)
    {
      originX = last - originX;
      downX = -downX;
      rightX = -rightX;
    }
  }

private:
  Turn(std::ptrdiff_t oy, std::ptrdiff_t ox, std::ptrdiff_t dy, std::ptrdiff_t dx, std::ptrdiff_t ry, std::ptrdiff_t rx)
      : originY(oy), originX(ox), downY(dy), downX(dx), rightY(ry), rightX(rx)
  {
  }
};

/** Copies plane (n, c) of one batch to plane (n, d) of another, turned, or turned back. */
void CopyPlane(const BatchView& from, std::ptrdiff_t c, const BatchView& to, std::ptrdiff_t d, std::ptrdiff_t n, std::ptrdiff_t side, const Turn& turn,
               bool back)
{
  for (std::ptrdiff_t y = 0; y < side; ++y)
  {
    const std::ptrdiff_t sy = turn.originY + y * turn.downY, sx = turn.originX + y * turn.downX;
    const BatchView& turned = back ? to : from;
    const std::ptrdiff_t step = turn.rightY * turned.strideY + turn.rightX * turned.strideX;
    float* out = back ? to.At(n, d, sy, sx) : to.At(n, d, y, 0);
    const float* in = back ? from.At(n, c, y, 0) : from.At(n, c, sy, sx);
    const std::ptrdiff_t outStep = back ? step : to.strideX, inStep = back ? from.strideX : step;
    for (std::ptrdiff_t x = 0; x < side; ++x)
    {
      out[x * outStep] = in[x * inStep];
    }
  }
}

class ViewsPredictor : public Predictor
{
public:
  ViewsPredictor(std::unique_ptr<Predictor> network, const ModelContract& contract, std::vector<View> views, int threads)
      : m_Network(std::move(network)), m_Contract(contract), m_Views(std::move(views)), m_Threads(threads), m_Side(contract.tiling.patch)
  {
    for (std::size_t k = 0; k < m_Contract.inputs.size(); ++k)
    {
      // Batches are dense: the first slot's distance to the second, times the slots.
      const auto elements = static_cast<std::size_t>(m_Network->Input(static_cast<int>(k)).strideN) * static_cast<std::size_t>(m_Network->BatchSize());
      m_Inputs.emplace_back(elements);
      const auto same = [&](const ModelInput& other)
      { return other.role == m_Contract.inputs[k].role && (other.date == 0 || other.date != m_Contract.inputs[k].date); };
      m_Other.push_back(static_cast<int>(std::find_if(m_Contract.inputs.begin(), m_Contract.inputs.end(), same) - m_Contract.inputs.begin()));
    }
    for (const auto& output : m_Contract.outputs)
    {
      const std::string other = output.role == "sem1_logits" ? "sem2_logits" : output.role == "sem2_logits" ? "sem1_logits" : output.role;
      const ModelOutput* found = other == output.role ? &output : m_Contract.FindOutput(other);
      m_OtherOutput.push_back(static_cast<int>(found - m_Contract.outputs.data()));
    }
    const int own = m_Network->Outputs();
    m_Outputs.resize(m_Views.size() * static_cast<std::size_t>(own));
    m_Channels.resize(static_cast<std::size_t>(own));
  }

  int BatchSize() const override { return m_Network->BatchSize(); }
  int CallSize() const override { return m_Network->CallSize(); }
  void Place(int n, std::int64_t x, std::int64_t y) override { m_Network->Place(n, x, y); }

  BatchView Input(int k) override
  {
    BatchView view = m_Network->Input(k);
    view.data = m_Inputs[k].data();
    return view;
  }

  void Run(int filled) override
  {
    for (std::size_t v = 0; v < m_Views.size(); ++v)
    {
      const Turn turn(m_Views[v].symmetry, m_Side);
      const auto show = [&](int n)
      {
        for (std::size_t k = 0; k < m_Inputs.size(); ++k)
        {
          const BatchView from = Input(m_Views[v].swap ? m_Other[k] : static_cast<int>(k)), to = m_Network->Input(static_cast<int>(k));
          for (int c = 0; c < to.channels; ++c)
          {
            CopyPlane(from, c, to, c, n, m_Side, turn, false);
          }
        }
      };
      ParallelFor(filled, m_Threads, show);
      m_Network->Run(filled);
      for (int k = 0; k < m_Network->Outputs(); ++k)
      {
        Keep(v, k, filled, turn);
      }
    }
  }

  int Outputs() const override { return static_cast<int>(m_Outputs.size()); }

  BatchView Output(int k) override
  {
    const int channels = m_Channels[static_cast<std::size_t>(k) % m_Channels.size()];
    const std::ptrdiff_t plane = m_Side * m_Side;
    return {channels ? m_Outputs[k].data() : nullptr, channels, channels * plane, plane, m_Side, 1};
  }

private:
  /** Keeps output k of view v as the patch lies. */
  void Keep(std::size_t v, int k, int filled, const Turn& turn)
  {
    const BatchView from = m_Network->Output(k);
    const int declared = static_cast<int>(m_Contract.outputs.size()), own = k % declared;
    const int place = m_Views[v].swap ? k - own + m_OtherOutput[own] : k;
    m_Channels[place] = from.data ? from.channels : 0;
    auto& kept = m_Outputs[v * m_Channels.size() + static_cast<std::size_t>(place)];
    if (!from.data)
    {
      return;
    }
    kept.resize(static_cast<std::size_t>(from.channels * m_Side * m_Side) * static_cast<std::size_t>(BatchSize()));
    const BatchView to = Output(static_cast<int>(v * m_Channels.size()) + place);
    const bool transitions = m_Views[v].swap && m_Contract.outputs[own].role == "transition_logits";
    const int classes = static_cast<int>(m_Contract.outputs[own].classes.size());
    const auto keep = [&](int n)
    {
      for (int c = 0; c < from.channels; ++c)
      {
        const int d = transitions && c > 0 ? 1 + (c - 1) % classes * classes + (c - 1) / classes : c;
        CopyPlane(from, c, to, d, n, m_Side, turn, true);
      }
    };
    ParallelFor(filled, m_Threads, keep);
  }

  std::unique_ptr<Predictor> m_Network;
  ModelContract m_Contract;
  std::vector<View> m_Views;
  int m_Threads;
  std::ptrdiff_t m_Side;
  std::vector<std::vector<float>> m_Inputs;
  std::vector<int> m_Other;       ///< the input that a swapped view shows there
  std::vector<int> m_OtherOutput; ///< the output that it is of
  std::vector<std::vector<float>> m_Outputs;
  std::vector<int> m_Channels; ///< of the network's outputs
};

} // namespace

std::vector<View> ViewsOf(const std::string& augmentation, const ModelContract& contract)
{
  if (augmentation == "none")
  {
    return {View()};
  }
  const auto& allowed = contract.tiling.testTimeAugmentations;
  if (std::count(allowed.begin(), allowed.end(), augmentation) == 0)
  {
    throw Error(Complaint("tta", augmentation,
                          allowed.empty() ? "none: the contract of \"" + contract.id + "\" lists no augmentation (tta)"
                                          : "none, or " + Join(allowed) + ", as the contract of \"" + contract.id + "\" says",
                          "The one who trained the model knows whether it makes sense."));
  }
  if (augmentation == "d4")
  {
    std::vector<View> views(8);
    for (int k = 0; k < 8; ++k)
    {
      views[k].symmetry = k;
    }
    return views;
  }
  const ModelInput* dates[2] = {nullptr, nullptr};
  for (const auto& input : contract.inputs)
  {
    if (input.role == "image" && (input.date == 1 || input.date == 2))
    {
      dates[input.date - 1] = &input;
    }
  }
  if (!dates[0] || !dates[1] || dates[0]->bands != dates[1]->bands)
  {
    throw Error(Complaint("tta", "swap", "none or d4: both dates of the model \"" + contract.id + "\" have not the same bands", ""));
  }
  const auto regressions = std::count_if(contract.inputs.begin(), contract.inputs.end(), [](const ModelInput& input) { return input.role == "regression"; });
  if (regressions == 1)
  {
    throw Error(Complaint("tta", "swap", "none or d4: the model \"" + contract.id + "\" takes the regression of one date alone", ""));
  }
  View swapped;
  swapped.swap = true;
  return {View(), swapped};
}

std::unique_ptr<Predictor> MakeViewsPredictor(std::unique_ptr<Predictor> network, const ModelContract& contract, std::vector<View> views, int threads)
{
  if (views.size() == 1)
  {
    return network;
  }
  return std::make_unique<ViewsPredictor>(std::move(network), contract, std::move(views), threads);
}

std::size_t ViewBytes(const ModelContract& contract, const std::vector<View>& views, int members)
{
  if (views.size() == 1)
  {
    return 0;
  }
  std::size_t planes = 0;
  for (const auto& input : contract.inputs)
  {
    planes += input.channels ? static_cast<std::size_t>(input.channels) : input.bands.size();
  }
  for (const auto& output : contract.outputs)
  {
    planes += output.role == "aux" ? 0 : static_cast<std::size_t>(output.channels) * views.size() * static_cast<std::size_t>(members);
  }
  return planes * sizeof(float) * static_cast<std::size_t>(contract.tiling.patch) * static_cast<std::size_t>(contract.tiling.patch);
}

} // namespace dl
} // namespace otb
