/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// Planes in a file: what is written comes back; no file is left behind; a full disk says so at once.
#include "otbDLError.h"
#include "otbDLPlaneFile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <filesystem>
#include <random>
#include <string>
#include <sys/resource.h>
#include <thread>
#include <vector>

namespace
{

using namespace otb::dl;
namespace fs = std::filesystem;

/** An empty folder of its own. */
class PlaneFileTest : public testing::Test
{
protected:
  void SetUp() override
  {
    m_Folder = testing::TempDir() + "planes-" + testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(m_Folder);
    fs::create_directories(m_Folder);
  }
  void TearDown() override { fs::remove_all(m_Folder); }
  bool Empty() const { return fs::is_empty(m_Folder); }

  std::string m_Folder;
};

TEST_F(PlaneFileTest, RegionsComeBackAsWritten)
{
  const std::int64_t width = 37, height = 29;
  PlaneFile file(width, height, 3, m_Folder);
  EXPECT_EQ(file.Width(), width);
  EXPECT_EQ(file.Height(), height);
  EXPECT_EQ(file.Planes(), 3);
  std::vector<std::vector<float>> model(3, std::vector<float>(width * height, 0.f)); // reserved room reads as zeros
  std::mt19937 random(5);
  for (int round = 0; round < 300; ++round)
  {
    const int plane = int(random() % 3);
    Region r{std::int64_t(random() % width), std::int64_t(random() % height), 0, 0};
    r.x1 = r.x0 + 1 + std::int64_t(random() % (width - r.x0));
    r.y1 = r.y0 + 1 + std::int64_t(random() % (height - r.y0));
    if (round % 7 == 0)
    {
      r.x0 = 0;
      r.x1 = width;
    }
    std::vector<float> data(r.Area());
    if (round % 2 == 0)
    {
      for (std::int64_t i = 0; i < r.Area(); ++i)
      {
        data[i] = static_cast<float>(random());
        model[plane][(r.y0 + i / r.Width()) * width + r.x0 + i % r.Width()] = data[i];
      }
      file.Write(plane, r, data.data());
      continue;
    }
    file.Read(plane, r, data.data());
    for (std::int64_t i = 0; i < r.Area(); ++i)
    {
      ASSERT_EQ(data[i], model[plane][(r.y0 + i / r.Width()) * width + r.x0 + i % r.Width()]) << round;
    }
  }
}

TEST_F(PlaneFileTest, SeveralThreadsRead)
{
  PlaneFile file(50, 40, 1, m_Folder);
  std::vector<float> data(50 * 40);
  for (std::size_t i = 0; i < data.size(); ++i)
  {
    data[i] = float(i);
  }
  file.Write(0, {0, 0, 50, 40}, data.data());
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 3; ++t)
  {
    threads.emplace_back(
        [&, t]
        {
          std::vector<float> row(20);
          for (int k = 0; k < 400; ++k)
          {
            const std::int64_t y = (k + t) % 40, x = k % 30;
            file.Read(0, {x, y, x + 20, y + 1}, row.data());
            wrong += row.front() != float(y * 50 + x) || row.back() != float(y * 50 + x + 19);
          }
        });
  }
  for (auto& t : threads)
  {
    t.join();
  }
  EXPECT_EQ(wrong, 0);
}

TEST_F(PlaneFileTest, TheFileHasNoName)
{
  {
    PlaneFile file(10, 10, 1, m_Folder);
    EXPECT_TRUE(Empty());
  }
  EXPECT_TRUE(Empty());
}

/** No file may grow beyond a limit, while this lives. */
class FileSizeLimit
{
public:
  explicit FileSizeLimit(rlim_t bytes) : m_Handler(std::signal(SIGXFSZ, SIG_IGN))
  {
    getrlimit(RLIMIT_FSIZE, &m_Before);
    rlimit now = m_Before;
    now.rlim_cur = bytes;
    set = setrlimit(RLIMIT_FSIZE, &now) == 0;
  }
  ~FileSizeLimit()
  {
    setrlimit(RLIMIT_FSIZE, &m_Before);
    std::signal(SIGXFSZ, m_Handler);
  }
  bool set = false;

private:
  rlimit m_Before{};
  void (*m_Handler)(int);
};

TEST_F(PlaneFileTest, NoRoomIsToldBeforeAnythingIsWritten)
{
  std::string told;
  {
    FileSizeLimit limit(1 << 20);
    if (!limit.set)
    {
      GTEST_SKIP() << "the size of files cannot be limited here";
    }
    try
    {
      PlaneFile file(1024, 1024, 2, m_Folder);
    }
    catch (const Error& e)
    {
      told = e.what();
    }
    EXPECT_NO_THROW(PlaneFile(256, 256, 2, m_Folder)) << "it would fit";
  }
  EXPECT_THAT(told, testing::HasSubstr("a temporary file of 9 MB in \"" + m_Folder + "\""));
  EXPECT_THAT(told, testing::HasSubstr("Free some space there"));
  EXPECT_TRUE(Empty());
}

TEST_F(PlaneFileTest, AFolderThatIsNotThereIsNamed)
{
  try
  {
    PlaneFile file(10, 10, 1, m_Folder + "/nowhere");
    FAIL() << "no error";
  }
  catch (const Error& e)
  {
    EXPECT_THAT(e.what(), testing::HasSubstr(m_Folder + "/nowhere"));
  }
}

} // namespace
