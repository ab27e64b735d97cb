/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLThreshold_h
#define otbDLThreshold_h

#include "otbDLScoreHistogram.h"

namespace otb
{
namespace dl
{

/** The upper edge of the last bin of no change, or where the Gaussians cross (Em). Counts alone decide, so the answer is the same on every machine and scale.
 *
 * Otsu is ITK's. Kapur and Kittler are searched over all bins: ITK's (4.13) read out of bounds where every split has the same entropy (two occupied bins),
 * count in 32 bits, and do not end on two halves of equal variance.
 *
 * Rosin without a tail above the peak, and Em without a crossing above the lower mean, give way to another rule; \a rule and \a reason say so.
 * \throw Error for a histogram without two occupied bins, or that cannot be one */
ThresholdChoice ChooseThreshold(const ScoreHistogram& histogram, ThresholdRule rule);

const char* ToString(ThresholdRule rule);

} // namespace dl
} // namespace otb

#endif
