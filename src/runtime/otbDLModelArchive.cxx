/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLModelArchive.h"

#include "otbDLRuntime.h"

#include <caffe2/serialize/inline_container.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <system_error>
#include <vector>

namespace otb
{
namespace dl
{

namespace fs = std::filesystem;

namespace
{

const char* const exportAdvice = "Export it with otbtorch.export(module, contract, path).";

/** Text of a small file.
 * \throw Error */
std::string Slurp(const std::string& path, const char* option)
{
  std::error_code ec;
  std::ifstream in;
  std::string text;
  if (!fs::is_directory(path, ec))
  {
    in.open(path, std::ios::binary);
    text.assign(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  if (!in.is_open() || in.bad())
  {
    throw Error(Complaint(option, "\"" + path + "\", which cannot be read", "a readable JSON file", "Check the path and its permissions."));
  }
  return text;
}

} // namespace

namespace
{

/** Little-endian number of `bytes` bytes at p. */
std::uint64_t Number(const unsigned char* p, int bytes)
{
  std::uint64_t n = 0;
  for (int k = bytes - 1; k >= 0; --k)
  {
    n = n << 8 | p[k];
  }
  return n;
}

std::uint32_t Crc32(const std::vector<unsigned char>& data)
{
  static const auto table = []
  {
    std::array<std::uint32_t, 256> t{};
    for (std::uint32_t n = 0; n < 256; ++n)
    {
      std::uint32_t c = n;
      for (int k = 0; k < 8; ++k)
      {
        c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
      }
      t[n] = c;
    }
    return t;
  }();
  std::uint32_t c = 0xFFFFFFFFu;
  for (const unsigned char byte : data)
  {
    c = table[(c ^ byte) & 0xFF] ^ (c >> 8);
  }
  return c ^ 0xFFFFFFFFu;
}

/** Name of the first record of a TorchScript archive whose bytes are not those that were written; empty when all are. LibTorch does not look at the
 * check sums, and would run with damaged weights. Records of such archives are stored, not compressed (PKWARE's APPNOTE.TXT 6.3, section 4.3). */
std::string DamagedRecord(const std::string& file)
{
  std::ifstream in(file, std::ios::binary);
  const auto at = [&in](std::uint64_t offset, std::size_t bytes)
  {
    std::vector<unsigned char> data(bytes);
    in.seekg(static_cast<std::streamoff>(offset));
    in.read(reinterpret_cast<char*>(data.data()), static_cast<std::streamsize>(bytes));
    data.resize(in ? bytes : 0);
    in.clear();
    return data;
  };
  const std::uint64_t size = fs::file_size(file);
  const std::size_t tailSize = static_cast<std::size_t>(std::min<std::uint64_t>(size, 65557));
  const auto tail = at(size - tailSize, tailSize);
  std::size_t end = tail.size() < 22 ? 0 : tail.size() - 22;
  while (end > 0 && Number(&tail[end], 4) != 0x06054b50)
  {
    --end;
  }
  if (tail.size() < 22 || Number(&tail[end], 4) != 0x06054b50)
  {
    return "its directory";
  }
  std::uint64_t entries = Number(&tail[end + 10], 2), directory = Number(&tail[end + 16], 4);
  if (end >= 20 && Number(&tail[end - 20], 4) == 0x07064b50)
  {
    const auto large = at(Number(&tail[end - 12], 8), 56);
    if (large.size() < 56 || Number(large.data(), 4) != 0x06064b50)
    {
      return "its directory";
    }
    entries = Number(&large[32], 8);
    directory = Number(&large[48], 8);
  }
  for (std::uint64_t k = 0; k < entries; ++k)
  {
    const auto head = at(directory, 46);
    if (head.size() < 46 || Number(head.data(), 4) != 0x02014b50)
    {
      return "its directory";
    }
    const auto nameSize = Number(&head[28], 2), extraSize = Number(&head[30], 2), commentSize = Number(&head[32], 2);
    const auto text = at(directory + 46, nameSize + extraSize);
    if (text.size() < nameSize + extraSize)
    {
      return "its directory";
    }
    const std::string name(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(nameSize));
    std::uint64_t stored = Number(&head[20], 4), full = Number(&head[24], 4), offset = Number(&head[42], 4);
    for (std::size_t e = nameSize; e + 4 <= text.size(); e += 4 + Number(&text[e + 2], 2))
    {
      // Sizes that do not fit 32 bits stand in the zip64 field, those that do are left out of it.
      std::size_t field = e + 4;
      const auto wide = [&](std::uint64_t& value)
      {
        if (value == 0xFFFFFFFF && field + 8 <= text.size())
        {
          value = Number(&text[field], 8);
          field += 8;
        }
      };
      if (Number(&text[e], 2) == 1)
      {
        wide(full);
        wide(stored);
        wide(offset);
      }
    }
    const auto local = at(offset, 30);
    if (local.size() < 30 || Number(local.data(), 4) != 0x04034b50 || offset + stored > size)
    {
      return name;
    }
    const auto crc = static_cast<std::uint32_t>(Number(&head[16], 4));
    // A sum of 0 is what PyTorch writes when told not to make any.
    if (Number(&head[10], 2) == 0 && crc != 0 && Crc32(at(offset + 30 + Number(&local[26], 2) + Number(&local[28], 2), stored)) != crc)
    {
      return name;
    }
    directory += 46 + nameSize + extraSize + commentSize;
  }
  return {};
}

} // namespace

std::string EmbeddedContract(const std::string& modelFile)
{
  std::error_code ec;
  const auto status = fs::status(modelFile, ec);
  if (!fs::exists(status))
  {
    throw Error(Complaint("model", "no file at \"" + modelFile + "\"", "a TorchScript file (.pt)", "Check the path."));
  }
  if (!fs::is_regular_file(status))
  {
    throw Error(Complaint("model", "\"" + modelFile + "\", which is not a regular file", "a TorchScript file (.pt)", "Check the path."));
  }
  if (fs::file_size(modelFile, ec) == 0)
  {
    throw Error(Complaint("model", "\"" + modelFile + "\", which is empty", "a TorchScript file (.pt)", exportAdvice));
  }

  char magic[2] = {0, 0};
  std::ifstream in(modelFile, std::ios::binary);
  in.read(magic, 2);
  if (!in)
  {
    throw Error(Complaint("model", "\"" + modelFile + "\", which cannot be read", "a TorchScript file (.pt)", "Check its permissions."));
  }
  if (magic[0] != 'P' || magic[1] != 'K')
  {
    throw Error(Complaint("model", "\"" + modelFile + "\", which is not a TorchScript archive (it does not begin like a zip file)", "a TorchScript file (.pt)",
                          exportAdvice));
  }
  const auto damaged = [&](const char* how)
  {
    return Error(Complaint("model", "\"" + modelFile + "\", a truncated or damaged archive (" + how + ")", "a whole TorchScript file (.pt)",
                           "Copy or export it again."));
  };
  std::unique_ptr<caffe2::serialize::PyTorchStreamReader> reader;
  try
  {
    reader = std::make_unique<caffe2::serialize::PyTorchStreamReader>(modelFile);
  }
  catch (const std::exception&)
  {
    throw damaged("its directory cannot be read");
  }
  const std::string broken = DamagedRecord(modelFile);
  if (!broken.empty())
  {
    throw Error(Complaint("model", "\"" + modelFile + "\", which is damaged (the check sum of " + broken + " is wrong)", "the file as it was exported",
                          "Copy or export it again."));
  }
  if (!reader->hasRecord("constants.pkl"))
  {
    throw Error(Complaint("model", "\"" + modelFile + "\", a PyTorch checkpoint (torch.save), which holds no code", "a TorchScript file (.pt)", exportAdvice));
  }
  if (!reader->hasRecord("extra/mlm.json"))
  {
    return {};
  }
  try
  {
    const auto record = reader->getRecord("extra/mlm.json");
    return std::string(static_cast<const char*>(std::get<0>(record).get()), std::get<1>(record));
  }
  catch (const std::exception&)
  {
    throw damaged("its contract cannot be read");
  }
}

ModelContract ReadContractOf(const std::string& modelFile, const std::string& contractFile, std::string* origin)
{
  // First of all, so that a damaged model is found before its contract is discussed.
  const std::string embedded = EmbeddedContract(modelFile);
  std::string from;
  std::string text;
  bool given = true; // a file of its own: if it is empty, that is what is wrong
  if (!contractFile.empty())
  {
    from = contractFile;
    text = Slurp(contractFile, "contract");
  }
  else
  {
    from = SideCarOf(modelFile);
    if (!from.empty())
    {
      text = Slurp(from, "model");
    }
    else
    {
      from = modelFile;
      text = embedded;
      given = false;
    }
  }
  if (!given && text.empty())
  {
    throw Error(Complaint("model", "\"" + modelFile + "\" without a contract",
                          "a contract (bands, scaling, tiling, outputs): inside the model, beside it as " + fs::path(modelFile).filename().string() +
                              ".mlm.json, or given with -contract",
                          std::string("Scaling is never guessed. ") + exportAdvice));
  }
  if (origin)
  {
    *origin = from;
  }
  return ModelContract::Parse(text, "\"" + from + "\"");
}

} // namespace dl
} // namespace otb
