/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLOdeSolver_h
#define otbDLOdeSolver_h

#include "otbDLLikelihood.h"

#include <cstddef>
#include <vector>

namespace otb
{
namespace dl
{

/** Integrates d state / dt = slope from t = begin to end in equal steps; end may lie before begin. No adaptive steps: they would depend on what is batched
 * together.
 *
 * field(t, state, weight, slope) writes the slope. What it adds up times `weight` is the integral over t by the same quadrature; a weight of 0 asks for the
 * slope alone. */
template <typename TValue, typename TField>
void Integrate(OdeSolver solver, double begin, double end, int steps, std::vector<TValue>& state, TField field)
{
  // Each stage starts from the one before it alone, so that the nodes are all there is to a tableau.
  struct Tableau
  {
    int stages;
    double node[4];
    double weight[4];
  };
  const Tableau tableau = solver == OdeSolver::Euler      ? Tableau{1, {0.}, {1.}}
                          : solver == OdeSolver::Heun     ? Tableau{2, {0., 1.}, {.5, .5}}
                          : solver == OdeSolver::Midpoint ? Tableau{2, {0., .5}, {0., 1.}}
                                                          : Tableau{4, {0., .5, .5, 1.}, {1. / 6., 1. / 3., 1. / 3., 1. / 6.}};
  const double step = (end - begin) / steps;
  std::vector<TValue> slope(state.size()), next, stage;
  for (int i = 0; i < steps; ++i)
  {
    next = state;
    for (int s = 0; s < tableau.stages; ++s)
    {
      if (s > 0)
      {
        stage.resize(state.size());
        for (std::size_t k = 0; k < state.size(); ++k)
        {
          stage[k] = static_cast<TValue>(state[k] + step * tableau.node[s] * slope[k]);
        }
      }
      // Both ends are met exactly.
      const double at = i + tableau.node[s];
      const double t = at == steps ? end : begin + (end - begin) * at / steps;
      const double weight = step * tableau.weight[s];
      field(t, s > 0 ? stage : state, weight, slope);
      if (weight != 0.)
      {
        for (std::size_t k = 0; k < state.size(); ++k)
        {
          next[k] = static_cast<TValue>(next[k] + weight * slope[k]);
        }
      }
    }
    state.swap(next);
  }
}

} // namespace dl
} // namespace otb

#endif
