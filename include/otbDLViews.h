/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLViews_h
#define otbDLViews_h

#include "otbDLModelContract.h"
#include "otbDLPredictor.h"

#include <memory>
#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** One way of showing a patch to a network. */
struct View
{
  bool swap = false; ///< date 1 as date 2, and date 2 as date 1, each scaled as its own date
  int symmetry = 0;  ///< of the square: 0..3 quarter turns, 4..7 the same of the mirror image
};

/** The views of a test-time augmentation, beginning with the patch as it is: none (1), swap (2), d4 (8).
 * \throw Error when the contract does not list it, or the dates have different bands and are to be exchanged */
std::vector<View> ViewsOf(const std::string& augmentation, const ModelContract& contract);

/** Shows every patch to a change detector in several views. Outputs are those of the first view, then those of the second, and so on, each laid back onto the
 * patch as it is: class heads of a swapped view under their own date, transitions in their own direction. The network may be an ensemble.
 * \param network takes the inputs of the contract; gives its outputs, or several times as many
 * \param threads of the CPU for turning patches */
std::unique_ptr<Predictor> MakeViewsPredictor(std::unique_ptr<Predictor> network, const ModelContract& contract, std::vector<View> views, int threads);

/** Memory of such a predictor beside the network's own, bytes a patch. */
std::size_t ViewBytes(const ModelContract& contract, const std::vector<View>& views, int members);

} // namespace dl
} // namespace otb

#endif
