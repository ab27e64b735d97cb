/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLPatchStore.h"

#include "otbDLError.h"

#include <algorithm>
#include <cstdlib>
#include <unistd.h>
#include <utility>

namespace otb
{
namespace dl
{

PatchStore::PatchStore(std::int64_t patches, std::size_t valuesPerPatch, std::size_t budgetBytes, std::string spillDirectory)
    : m_States(patches, State::Missing), m_Delivered(patches, 0), m_Inferred(patches, false), m_ValuesPerPatch(valuesPerPatch),
      m_Capacity(std::max<std::size_t>(1, budgetBytes / (valuesPerPatch * sizeof(float)))), m_SpillDirectory(std::move(spillDirectory)),
      m_SpillFailed(m_SpillDirectory.empty())
{
}

PatchStore::~PatchStore()
{
  if (m_SpillFile >= 0)
  {
    close(m_SpillFile);
  }
}

bool PatchStore::OpenSpillFile()
{
  if (m_SpillFile < 0 && !m_SpillFailed)
  {
    std::string name = m_SpillDirectory + "/otbtorch-patches-XXXXXX";
    m_SpillFile = mkstemp(name.data());
    m_SpillFailed = m_SpillFile < 0;
    if (!m_SpillFailed)
    {
      // Unnamed from now on: it vanishes with the process, however that ends.
      unlink(name.c_str());
    }
  }
  return !m_SpillFailed;
}

bool PatchStore::Spill(std::int64_t patch, const std::vector<float>& data)
{
  if (!OpenSpillFile())
  {
    return false;
  }
  std::int64_t slot = m_NextSlot;
  if (!m_FreeSlots.empty())
  {
    slot = m_FreeSlots.back();
  }
  const std::size_t bytes = m_ValuesPerPatch * sizeof(float);
  std::size_t done = 0;
  while (done < bytes)
  {
    const ssize_t n = pwrite(m_SpillFile, reinterpret_cast<const char*>(data.data()) + done, bytes - done, static_cast<off_t>(slot * bytes + done));
    if (n <= 0)
    {
      m_SpillFailed = true; // the disk is full: patches that do not fit are inferred again
      return false;
    }
    done += static_cast<std::size_t>(n);
  }
  if (m_FreeSlots.empty())
  {
    ++m_NextSlot;
  }
  else
  {
    m_FreeSlots.pop_back();
  }
  m_SpillSlots[patch] = slot;
  ++m_PatchesSpilled;
  return true;
}

void PatchStore::Forget(std::int64_t patch)
{
  const auto kept = m_Kept.find(patch);
  if (kept != m_Kept.end())
  {
    m_Ages.erase(kept->second.age);
    if (kept->second.data.use_count() == 1 && m_Spare.size() < std::max<std::size_t>(4, m_Capacity / 8))
    {
      m_Spare.push_back(std::move(kept->second.data));
    }
    m_Kept.erase(kept);
  }
  const auto slot = m_SpillSlots.find(patch);
  if (slot != m_SpillSlots.end())
  {
    m_FreeSlots.push_back(slot->second);
    m_SpillSlots.erase(slot);
  }
}

void PatchStore::SetState(std::int64_t patch, State state)
{
  if (state != State::Kept && state != State::Spilled)
  {
    Forget(patch);
  }
  if (state == State::Pending)
  {
    m_Delivered[patch] = 0;
  }
  m_States[patch] = state;
}

PatchStore::Data PatchStore::NewData()
{
  if (m_Spare.empty())
  {
    return std::make_shared<std::vector<float>>(m_ValuesPerPatch);
  }
  Data data = std::move(m_Spare.back());
  m_Spare.pop_back();
  return data;
}

void PatchStore::Put(std::int64_t patch, Data data, const std::function<bool(std::int64_t)>& pinned)
{
  Forget(patch);
  m_Kept[patch] = {std::move(data), m_Ages.insert(m_Ages.end(), patch)};
  m_States[patch] = State::Kept;
  m_Inferred[patch] = true;

  auto oldest = m_Ages.begin();
  while (m_Kept.size() > m_Capacity && oldest != m_Ages.end())
  {
    const std::int64_t victim = *oldest++;
    if (victim == patch)
    {
      continue;
    }
    if (Spill(victim, *m_Kept[victim].data))
    {
      const auto slot = m_SpillSlots[victim];
      m_SpillSlots.erase(victim);
      Forget(victim);
      m_SpillSlots[victim] = slot;
      m_States[victim] = State::Spilled;
    }
    else if (!pinned(victim))
    {
      SetState(victim, State::Missing);
    }
  }
}

PatchStore::Data PatchStore::Get(std::int64_t patch)
{
  const auto kept = m_Kept.find(patch);
  if (kept != m_Kept.end())
  {
    m_Ages.splice(m_Ages.end(), m_Ages, kept->second.age);
    return kept->second.data;
  }
  const std::int64_t slot = m_SpillSlots.at(patch);
  const std::size_t bytes = m_ValuesPerPatch * sizeof(float);
  Data data = NewData();
  std::size_t done = 0;
  while (done < bytes)
  {
    const ssize_t n = pread(m_SpillFile, reinterpret_cast<char*>(data->data()) + done, bytes - done, static_cast<off_t>(slot * bytes + done));
    if (n <= 0)
    {
      throw Error("the temporary file of patches in " + m_SpillDirectory + " cannot be read back. Give more -ram, or another TMPDIR.");
    }
    done += static_cast<std::size_t>(n);
  }
  return data;
}

} // namespace dl
} // namespace otb
