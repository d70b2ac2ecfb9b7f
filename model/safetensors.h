#pragma once

#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/mapped_file.h"
#include "model/safetensors_header.h"

namespace sauva {

// One safetensors file, mapped, with its verified header.
struct SafetensorsFile {
  std::string file_name;  // within its directory
  MappedFile file;
  SafetensorsHeader header;

  std::span<const std::byte> BytesOf(const SafetensorsEntry& entry) const {
    return file.bytes().subspan(entry.begin, entry.end - entry.begin);
  }
  // Header length and JSON, as in the file.
  std::span<const std::byte> HeaderBytes() const { return file.bytes().first(header.data_begin); }
};

// Maps the safetensors files of a Hugging Face directory: model.safetensors, else the
// shards that model.safetensors.index.json names, sorted by name. Touches headers only.
// Errors: NOT_FOUND naming the missing file; INVALID_ARGUMENT for an index that names a
// file outside the directory, for a tensor that is not in the shard the index says or in
// two of them, and for what ParseSafetensorsHeader refuses.
absl::StatusOr<std::vector<SafetensorsFile>> OpenSafetensors(const std::string& directory);

}  // namespace sauva
