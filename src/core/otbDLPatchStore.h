/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLPatchStore_h
#define otbDLPatchStore_h

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace otb
{
namespace dl
{

/** \class PatchStore
 * \brief Keeps the results of patches until they are delivered: in memory within a budget, the least recently used beyond it in an unnamed temporary file.
 *
 * All patches have the same size. Private to the engine.
 * \ingroup OTBTorch
 */
class PatchStore
{
public:
  enum class State : std::uint8_t
  {
    Missing,
    Pending, ///< in the batch being filled
    Kept,
    Spilled,
    Empty, ///< known to hold no valid pixel
    Done   ///< delivered whole
  };
  using Data = std::shared_ptr<std::vector<float>>;

  PatchStore(std::int64_t patches, std::size_t valuesPerPatch, std::size_t budgetBytes, std::string spillDirectory);
  ~PatchStore();
  PatchStore(const PatchStore&) = delete;
  PatchStore& operator=(const PatchStore&) = delete;

  State GetState(std::int64_t patch) const { return m_States[patch]; }
  /** Kept, spilled or empty: nothing to infer. */
  bool Ready(std::int64_t patch) const
  {
    const State s = m_States[patch];
    return s == State::Kept || s == State::Spilled || s == State::Empty;
  }
  void SetState(std::int64_t patch, State state);

  /** Was it inferred before (and is it to be counted as repeated when it is inferred again)? */
  bool WasInferred(std::int64_t patch) const { return m_Inferred[patch]; }

  /** A buffer for one patch, reused where possible. */
  Data NewData();

  /** Keeps a patch; others leave the memory if it is over budget, but those for which pinned() holds only if they can go to the file. */
  void Put(std::int64_t patch, Data data, const std::function<bool(std::int64_t)>& pinned);

  /** Data of a kept or spilled patch. */
  Data Get(std::int64_t patch);

  /** Counts delivered pixels; the total so far. */
  std::int64_t Deliver(std::int64_t patch, std::int64_t pixels) { return m_Delivered[patch] += static_cast<std::int32_t>(pixels); }

  std::int64_t PatchesSpilled() const { return m_PatchesSpilled; }

private:
  void Forget(std::int64_t patch);
  bool Spill(std::int64_t patch, const std::vector<float>& data);
  bool OpenSpillFile();

  struct Entry
  {
    Data data;
    std::list<std::int64_t>::iterator age;
  };

  std::vector<State> m_States;
  std::vector<std::int32_t> m_Delivered;
  std::vector<bool> m_Inferred;
  std::size_t m_ValuesPerPatch;
  std::size_t m_Capacity; ///< patches in memory
  std::unordered_map<std::int64_t, Entry> m_Kept;
  std::list<std::int64_t> m_Ages; ///< least recently used first
  std::vector<Data> m_Spare;
  std::string m_SpillDirectory;
  int m_SpillFile = -1;
  bool m_SpillFailed;
  std::unordered_map<std::int64_t, std::int64_t> m_SpillSlots;
  std::vector<std::int64_t> m_FreeSlots;
  std::int64_t m_NextSlot = 0;
  std::int64_t m_PatchesSpilled = 0;
};

} // namespace dl
} // namespace otb

#endif
