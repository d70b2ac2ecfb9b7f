#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace sauva {

// A tensor to be written: bytes of its own, or a view of what outlives the writing.
struct ShardTensor {
  std::string name;
  std::string dtype;  // as safetensors spells it
  std::vector<int64_t> shape;
  std::vector<std::byte> own;
  std::span<const std::byte> view;

  std::span<const std::byte> bytes() const { return own.empty() ? view : own; }
};

// Writes a safetensors file under a temporary name, flushes it to the disk and renames it,
// so that a file under the final name is whole.
// Errors: RESOURCE_EXHAUSTED naming the path when the disk is full; INTERNAL otherwise.
absl::Status WriteShard(const std::string& path, const std::vector<ShardTensor>& tensors);

// A small file, in the same way.
absl::Status WriteWhole(const std::string& path, const std::string& content);

}  // namespace sauva
