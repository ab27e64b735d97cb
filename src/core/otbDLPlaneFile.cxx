/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLPlaneFile.h"

#include "otbDLError.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

namespace otb
{
namespace dl
{

PlaneFile::PlaneFile(std::int64_t width, std::int64_t height, int planes, const std::string& directory) : m_Width(width), m_Height(height), m_Planes(planes)
{
  std::string name = (directory.empty() ? std::string("/tmp") : directory) + "/otbtorch-scores-XXXXXX";
  m_File = mkstemp(name.data());
  const auto fail = [&](int number)
  {
    const double megabytes = static_cast<double>(Offset(planes, 0, 0)) / 1048576.;
    throw Error("the scores of the whole image need a temporary file of " + std::to_string(static_cast<long long>(megabytes) + 1) + " MB in \"" +
                (directory.empty() ? "/tmp" : directory) + "\", which cannot be had (" + std::strerror(number) +
                "). Free some space there, or write the outputs to another disk: the file lies beside them.");
  };
  if (m_File < 0)
  {
    fail(errno);
  }
  unlink(name.c_str());
  const int reserved = posix_fallocate(m_File, 0, static_cast<off_t>(Offset(planes, 0, 0)));
  if (reserved == ENOSPC || reserved == EFBIG || reserved == EDQUOT)
  {
    close(m_File);
    fail(reserved);
  }
}

PlaneFile::~PlaneFile()
{
  close(m_File);
}

std::int64_t PlaneFile::Offset(int plane, std::int64_t x, std::int64_t y) const
{
  return ((static_cast<std::int64_t>(plane) * m_Height + y) * m_Width + x) * static_cast<std::int64_t>(sizeof(float));
}

namespace
{
/** Reads or writes all of it. */
template <typename TByte, typename TFunction>
void Transfer(TFunction move, int file, TByte* data, std::size_t bytes, std::int64_t offset)
{
  std::size_t done = 0;
  while (done < bytes)
  {
    const ssize_t n = move(file, data + done, bytes - done, static_cast<off_t>(offset + static_cast<std::int64_t>(done)));
    if (n < 0 && errno == EINTR)
    {
      continue;
    }
    if (n <= 0)
    {
      throw Error(std::string("the temporary file of scores failed (") + (n < 0 ? std::strerror(errno) : "it ended early") + ")");
    }
    done += static_cast<std::size_t>(n);
  }
}
} // namespace

void PlaneFile::Write(int plane, const Region& region, const float* data)
{
  const bool whole = region.Width() == m_Width;
  const std::int64_t runs = whole ? 1 : region.Height(), length = whole ? region.Area() : region.Width();
  for (std::int64_t r = 0; r < runs; ++r)
  {
    Transfer(pwrite, m_File, reinterpret_cast<const char*>(data + r * length), static_cast<std::size_t>(length) * sizeof(float),
             Offset(plane, region.x0, region.y0 + r));
  }
}

void PlaneFile::Read(int plane, const Region& region, float* data) const
{
  const bool whole = region.Width() == m_Width;
  const std::int64_t runs = whole ? 1 : region.Height(), length = whole ? region.Area() : region.Width();
  for (std::int64_t r = 0; r < runs; ++r)
  {
    Transfer(pread, m_File, reinterpret_cast<char*>(data + r * length), static_cast<std::size_t>(length) * sizeof(float),
             Offset(plane, region.x0, region.y0 + r));
  }
}

} // namespace dl
} // namespace otb
