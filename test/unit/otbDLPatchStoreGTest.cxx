/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// Patches in memory and in the temporary file.
#include "otbDLPatchStore.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <sys/resource.h>

namespace
{

using namespace otb::dl;
namespace fs = std::filesystem;
using State = PatchStore::State;

constexpr std::size_t values = 1000;
constexpr std::size_t patchBytes = values * sizeof(float);

bool Nothing(std::int64_t)
{
  return false;
}

/** An empty folder of its own, removed afterwards. */
class PatchStoreTest : public testing::Test
{
protected:
  void SetUp() override
  {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder = fs::path(testing::TempDir()) / (std::string("otbdl-store-") + info->name());
    fs::remove_all(folder);
    fs::create_directories(folder);
  }
  void TearDown() override { fs::remove_all(folder); }
  fs::path folder;
};

/** Any bits, those of NaN among them. */
std::vector<float> Bits(std::int64_t patch)
{
  std::mt19937 random(static_cast<unsigned int>(patch + 1));
  std::vector<float> v(values);
  for (auto& x : v)
  {
    const std::uint32_t bits = random();
    std::memcpy(&x, &bits, sizeof(x));
  }
  v[0] = std::numeric_limits<float>::quiet_NaN();
  v[1] = -0.f;
  return v;
}

void Put(PatchStore& store, std::int64_t patch, const std::function<bool(std::int64_t)>& pinned = Nothing)
{
  auto data = store.NewData();
  *data = Bits(patch);
  store.Put(patch, std::move(data), pinned);
}

bool Holds(PatchStore& store, std::int64_t patch)
{
  const auto data = store.Get(patch);
  const auto expected = Bits(patch);
  return data->size() == values && std::memcmp(data->data(), expected.data(), patchBytes) == 0;
}

TEST_F(PatchStoreTest, NothingIsKnownAtFirst)
{
  PatchStore store(3, values, patchBytes, "");
  for (int p = 0; p < 3; ++p)
  {
    EXPECT_EQ(store.GetState(p), State::Missing);
    EXPECT_FALSE(store.Ready(p));
    EXPECT_FALSE(store.WasInferred(p));
  }
  EXPECT_EQ(store.PatchesSpilled(), 0);
}

TEST_F(PatchStoreTest, PatchesWithinTheBudgetStayInMemory)
{
  PatchStore store(10, values, 10 * patchBytes, folder.string());
  for (int p = 0; p < 10; ++p)
  {
    Put(store, p);
  }
  for (int p = 0; p < 10; ++p)
  {
    EXPECT_EQ(store.GetState(p), State::Kept);
    EXPECT_TRUE(Holds(store, p));
  }
  EXPECT_EQ(store.PatchesSpilled(), 0);
}

TEST_F(PatchStoreTest, PatchesBeyondTheBudgetComeBackFromTheFileBitForBit)
{
  PatchStore store(20, values, 3 * patchBytes, folder.string());
  int kept = 0;
  for (int p = 0; p < 20; ++p)
  {
    Put(store, p);
  }
  for (int p = 0; p < 20; ++p)
  {
    EXPECT_TRUE(store.Ready(p));
    EXPECT_TRUE(Holds(store, p)) << p;
    kept += store.GetState(p) == State::Kept;
  }
  EXPECT_EQ(kept, 3);
  EXPECT_EQ(store.PatchesSpilled(), 17);
}

TEST_F(PatchStoreTest, TheLeastRecentlyUsedLeavesFirst)
{
  PatchStore store(4, values, 2 * patchBytes, folder.string());
  Put(store, 0);
  Put(store, 1);
  store.Get(0);
  Put(store, 2);
  EXPECT_EQ(store.GetState(0), State::Kept);
  EXPECT_EQ(store.GetState(1), State::Spilled);
  EXPECT_EQ(store.GetState(2), State::Kept);
}

TEST_F(PatchStoreTest, TheTemporaryFileLeavesNoName)
{
  PatchStore store(5, values, patchBytes, folder.string());
  for (int p = 0; p < 5; ++p)
  {
    Put(store, p);
  }
  EXPECT_EQ(store.PatchesSpilled(), 4);
  EXPECT_TRUE(fs::is_empty(folder));
}

TEST_F(PatchStoreTest, SlotsOfTheFileAreUsedAgainWithoutMixingPatches)
{
  PatchStore store(100, values, patchBytes, folder.string());
  for (int p = 0; p < 100; ++p)
  {
    Put(store, p);
    if (p >= 5)
    {
      store.SetState(p - 5, State::Done);
    }
    for (int q = std::max(0, p - 4); q <= p; ++q)
    {
      ASSERT_TRUE(Holds(store, q)) << q << " after " << p;
    }
  }
}

TEST_F(PatchStoreTest, WithoutAFileWhatDoesNotFitIsForgotten)
{
  PatchStore store(3, values, patchBytes, "");
  Put(store, 0);
  Put(store, 1);
  EXPECT_EQ(store.GetState(0), State::Missing);
  EXPECT_TRUE(store.WasInferred(0));
  EXPECT_TRUE(Holds(store, 1));
  EXPECT_EQ(store.PatchesSpilled(), 0);
}

TEST_F(PatchStoreTest, PinnedPatchesSurviveWithoutAFile)
{
  PatchStore store(4, values, patchBytes, "");
  const auto pinned = [](std::int64_t p) { return p < 2; };
  for (int p = 0; p < 4; ++p)
  {
    Put(store, p, pinned);
  }
  EXPECT_TRUE(Holds(store, 0));
  EXPECT_TRUE(Holds(store, 1));
  EXPECT_EQ(store.GetState(2), State::Missing);
  EXPECT_TRUE(Holds(store, 3));
}

TEST_F(PatchStoreTest, PinnedPatchesGoToTheFileWhenThereIsOne)
{
  PatchStore store(2, values, patchBytes, folder.string());
  Put(store, 0, [](std::int64_t) { return true; });
  Put(store, 1, [](std::int64_t) { return true; });
  EXPECT_EQ(store.GetState(0), State::Spilled);
  EXPECT_TRUE(Holds(store, 0));
}

TEST_F(PatchStoreTest, ADirectoryThatCannotBeWrittenIsLikeNone)
{
  const auto file = folder / "file";
  std::ofstream(file) << "not a directory";
  for (const auto& directory : {file, folder / "absent"})
  {
    PatchStore store(3, values, patchBytes, directory.string());
    Put(store, 0);
    Put(store, 1);
    EXPECT_EQ(store.GetState(0), State::Missing);
    EXPECT_TRUE(Holds(store, 1));
    EXPECT_EQ(store.PatchesSpilled(), 0);
  }
}

TEST_F(PatchStoreTest, AFullDiskLosesNothingThatWasWritten)
{
  // A limit on the size of files stands for the disk: room for two patches and a half.
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = patchBytes * 5 / 2;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);

  PatchStore store(6, values, patchBytes, folder.string());
  const auto pinned = [](std::int64_t p) { return p == 2; };
  for (int p = 0; p < 6; ++p)
  {
    Put(store, p, pinned);
  }
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);

  EXPECT_EQ(store.PatchesSpilled(), 2);
  for (const int p : {0, 1, 2, 5})
  {
    EXPECT_TRUE(Holds(store, p)) << p;
  }
  EXPECT_EQ(store.GetState(2), State::Kept); // pinned
  EXPECT_EQ(store.GetState(3), State::Missing);
  EXPECT_EQ(store.GetState(4), State::Missing);
}

TEST_F(PatchStoreTest, PuttingAPatchAgainReplacesIt)
{
  PatchStore store(3, values, patchBytes, folder.string());
  Put(store, 0);
  Put(store, 1);
  ASSERT_EQ(store.GetState(0), State::Spilled);
  auto data = store.NewData();
  *data = Bits(7);
  store.Put(0, data, Nothing);
  EXPECT_EQ(*reinterpret_cast<const std::uint32_t*>(&(*store.Get(0))[5]), *reinterpret_cast<const std::uint32_t*>(&Bits(7)[5]));
  EXPECT_TRUE(Holds(store, 1));
}

TEST_F(PatchStoreTest, WhatAReaderHoldsOutlivesTheStoreOfIt)
{
  PatchStore store(3, values, patchBytes, "");
  Put(store, 0);
  const auto held = store.Get(0);
  Put(store, 1);
  Put(store, 2);
  EXPECT_EQ(std::memcmp(held->data(), Bits(0).data(), patchBytes), 0);
}

TEST_F(PatchStoreTest, ABufferIsUsedAgain)
{
  PatchStore store(3, values, patchBytes, "");
  Put(store, 0);
  const float* first = store.Get(0)->data();
  store.SetState(0, State::Done);
  EXPECT_EQ(store.NewData()->data(), first);
}

TEST_F(PatchStoreTest, DeliveredPixelsAreCountedUntilThePatchIsInferredAgain)
{
  PatchStore store(2, values, patchBytes, "");
  EXPECT_EQ(store.Deliver(0, 10), 10);
  EXPECT_EQ(store.Deliver(0, 5), 15);
  EXPECT_EQ(store.Deliver(1, 1), 1);
  store.SetState(0, State::Pending);
  EXPECT_EQ(store.Deliver(0, 3), 3);
}

TEST_F(PatchStoreTest, StatesAreThoseThatWereSet)
{
  PatchStore store(3, values, patchBytes, "");
  store.SetState(0, State::Empty);
  store.SetState(1, State::Pending);
  EXPECT_TRUE(store.Ready(0));
  EXPECT_FALSE(store.Ready(1));
  EXPECT_FALSE(store.WasInferred(1));
  Put(store, 1);
  EXPECT_TRUE(store.Ready(1));
  EXPECT_TRUE(store.WasInferred(1));
  store.SetState(1, State::Done);
  EXPECT_FALSE(store.Ready(1));
}

} // namespace
