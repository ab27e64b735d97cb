/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLGdal_h
#define otbDLGdal_h

#include <cpl_error.h>
#include <gdal.h>

#include <memory>

namespace otb
{
namespace dl
{

/** \class QuietGdal
 * \brief While it lives, GDAL writes no complaints of this thread: they are told in ours. What went wrong can still be asked for.
 * \ingroup OTBTorch
 */
class QuietGdal
{
public:
  QuietGdal() { CPLPushErrorHandler(CPLQuietErrorHandler); }
  ~QuietGdal() { CPLPopErrorHandler(); }
  QuietGdal(const QuietGdal&) = delete;
  QuietGdal& operator=(const QuietGdal&) = delete;
};

struct CloseDataset
{
  void operator()(GDALDatasetH dataset) const { GDALClose(dataset); }
};

/** A data set of GDAL, by its handle or its class, that is closed with its owner. */
template <typename T = void>
using GdalDataset = std::unique_ptr<T, CloseDataset>;

} // namespace dl
} // namespace otb

#endif
