/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// The allocator of CPU tensors.
#include "otbDLTensorMemory.h"

#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <random>
#include <thread>
#include <unistd.h>
#include <vector>

namespace
{

using namespace otb::dl;

constexpr std::size_t mega = std::size_t(1) << 20;

class TensorMemoryTest : public testing::Test
{
protected:
  void SetUp() override
  {
    TensorMemory::Install();
    TensorMemory::SetLimit(0);
  }
  void TearDown() override { TensorMemory::SetLimit(0); }
};

c10::DataPtr Allocate(std::size_t bytes)
{
  return c10::GetCPUAllocator()->allocate(bytes);
}

std::size_t Resident()
{
  std::size_t total = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

TEST_F(TensorMemoryTest, AFreedBlockIsHandedOutAgain)
{
  auto a = Allocate(3 * mega);
  const void* first = a.get();
  a.clear();
  EXPECT_EQ(Allocate(3 * mega).get(), first);
}

TEST_F(TensorMemoryTest, FreedNeighboursAreOneBlockAgain)
{
  auto a = Allocate(3 * mega), b = Allocate(mega), c = Allocate(2 * mega);
  const void* first = a.get();
  ASSERT_EQ(static_cast<char*>(b.get()), static_cast<char*>(a.get()) + 3 * mega);
  a.clear();
  c.clear();
  b.clear();
  EXPECT_EQ(Allocate(6 * mega).get(), first);
}

TEST_F(TensorMemoryTest, InUseCountsWhatLives)
{
  const std::size_t before = TensorMemory::InUse();
  auto a = Allocate(5 * mega);
  auto b = Allocate(1000);
  EXPECT_EQ(TensorMemory::InUse(), before + 5 * mega + 1000);
  a.clear();
  EXPECT_EQ(TensorMemory::InUse(), before + 1000);
  b.clear();
  EXPECT_EQ(TensorMemory::InUse(), before);
}

TEST_F(TensorMemoryTest, PeakIsTheMostSinceItWasReset)
{
  const std::size_t before = TensorMemory::InUse();
  TensorMemory::ResetPeak();
  EXPECT_EQ(TensorMemory::Peak(), before);
  {
    const auto a = Allocate(4 * mega), b = Allocate(2 * mega);
  }
  const auto c = Allocate(mega);
  EXPECT_EQ(TensorMemory::Peak(), before + 6 * mega);
  TensorMemory::ResetPeak();
  EXPECT_EQ(TensorMemory::Peak(), before + mega);
}

TEST_F(TensorMemoryTest, BeyondTheLimitAllocationsFailAndLeaveTheAccountsAlone)
{
  const std::size_t before = TensorMemory::InUse();
  TensorMemory::SetLimit(before + 4 * mega);
  auto a = Allocate(3 * mega);
  try
  {
    Allocate(2 * mega);
    FAIL() << "beyond the limit";
  }
  catch (const c10::Error& e)
  {
    EXPECT_THAT(e.what(), testing::HasSubstr("out of memory"));
  }
  EXPECT_EQ(TensorMemory::InUse(), before + 3 * mega);
  EXPECT_NO_THROW(Allocate(mega));
  a.clear();
  EXPECT_NO_THROW(Allocate(4 * mega));
  TensorMemory::SetLimit(0);
  EXPECT_NO_THROW(Allocate(64 * mega));
}

TEST_F(TensorMemoryTest, FreedPagesStayUntilTrimmed)
{
  TensorMemory::Trim();
  auto a = Allocate(64 * mega);
  std::memset(a.get(), 1, 64 * mega);
  const std::size_t full = Resident();
  a.clear();
  EXPECT_GT(Resident() + 4 * mega, full);
  TensorMemory::Trim();
  EXPECT_LT(Resident(), full - 60 * mega);
}

TEST_F(TensorMemoryTest, TrimmingLeavesLiveBlocksAlone)
{
  auto a = Allocate(mega), b = Allocate(mega), c = Allocate(mega);
  for (auto* p : {&a, &b, &c})
  {
    std::memset(p->get(), 7, mega);
  }
  b.clear();
  TensorMemory::Trim();
  for (const auto* p : {&a, &c})
  {
    const auto* bytes = static_cast<const char*>(p->get());
    EXPECT_TRUE(std::all_of(bytes, bytes + mega, [](char x) { return x == 7; }));
  }
}

TEST_F(TensorMemoryTest, NothingIsAllocatedForNoBytes)
{
  const std::size_t before = TensorMemory::InUse();
  auto none = Allocate(0);
  EXPECT_EQ(none.get(), nullptr);
  none.clear();
  EXPECT_EQ(TensorMemory::InUse(), before);
}

/** Takes and gives blocks of any size in any order; each must keep its own bytes. */
void Churn(unsigned int seed)
{
  struct Block
  {
    c10::DataPtr data;
    std::size_t bytes;
    unsigned char mark;
  };
  std::mt19937 random(seed);
  std::vector<Block> blocks;
  for (int step = 0; step < 2000; ++step)
  {
    if (blocks.size() < 40 && random() % 2 == 0)
    {
      const std::size_t bytes = 1 + random() % (random() % 3 == 0 ? 2 * mega : 100000);
      blocks.push_back({Allocate(bytes), bytes, static_cast<unsigned char>(random())});
      ASSERT_EQ(reinterpret_cast<std::uintptr_t>(blocks.back().data.get()) % 64, 0u);
      std::memset(blocks.back().data.get(), blocks.back().mark, bytes);
    }
    else if (!blocks.empty())
    {
      std::swap(blocks[random() % blocks.size()], blocks.back());
      const auto& last = blocks.back();
      const auto* bytes = static_cast<const unsigned char*>(last.data.get());
      ASSERT_TRUE(std::all_of(bytes, bytes + last.bytes, [&](unsigned char x) { return x == last.mark; })) << "blocks overlap";
      blocks.pop_back();
    }
  }
}

TEST_F(TensorMemoryTest, BlocksNeverOverlap)
{
  const std::size_t before = TensorMemory::InUse();
  Churn(1);
  EXPECT_EQ(TensorMemory::InUse(), before);
}

TEST_F(TensorMemoryTest, ThreadsMayAllocateAtOnce)
{
  const std::size_t before = TensorMemory::InUse();
  std::thread first(Churn, 2), second(Churn, 3);
  first.join();
  second.join();
  EXPECT_EQ(TensorMemory::InUse(), before);
}

} // namespace
