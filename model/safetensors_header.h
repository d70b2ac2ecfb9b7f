#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace sauva {

// One tensor as a safetensors header describes it, already verified against the file.
struct SafetensorsEntry {
  std::string name;
  std::string dtype;           // as the format spells it: "F32", "BF16", …
  std::vector<int64_t> shape;  // row-major, no negative dims
  uint64_t begin = 0;          // bytes from the start of the file
  uint64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // sorted by name, names unique
  uint64_t data_begin = 0;                // bytes before the first tensor: length and JSON
};

// The format's own limit on the JSON part.
inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;
inline constexpr size_t kMaxTensorRank = 8;

// Reads the header of a safetensors file and verifies it against the size of `file`; the
// tensors' own bytes are not touched. Everything in the file is taken as hostile: the
// tensors must cover the data section exactly, without gap or overlap, and each must be
// as long as its shape and dtype say.
// Errors: INVALID_ARGUMENT naming `file_name`, the tensor, what was expected and found.
// Source: github.com/huggingface/safetensors, README "Format".
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(const std::string& file_name,
                                                         std::span<const std::byte> file);

// Bytes of one element of a dtype of the format, 0 if the name is unknown.
uint64_t SafetensorsElementBytes(std::string_view dtype);

// "[2, 3]", for messages.
std::string ShapeText(const std::vector<int64_t>& shape);

}  // namespace sauva
