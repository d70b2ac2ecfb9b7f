#include "model/safetensors.h"

#include <filesystem>
#include <map>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/json.h"

namespace sauva {
namespace {

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";
constexpr size_t kMaxShards = 10'000;
constexpr size_t kMaxIndexBytes = 100'000'000;

// What an index says: the shard of each tensor.
using WeightMap = std::map<std::string, std::string>;

absl::StatusOr<SafetensorsFile> OpenOne(const std::string& directory, const std::string& name) {
  const std::string path = (std::filesystem::path(directory) / name).string();
  ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  ASSIGN_OR_RETURN(SafetensorsHeader header, ParseSafetensorsHeader(path, file.bytes()));
  return SafetensorsFile{name, std::move(file), std::move(header)};
}

// A shard must lie in the model's own directory: a name, not a path.
bool IsPlainShardName(const std::string& name) {
  return absl::EndsWith(name, ".safetensors") && name.find('/') == std::string::npos &&
         name.find('\\') == std::string::npos && name.find('\0') == std::string::npos &&
         name.front() != '.';
}

absl::StatusOr<WeightMap> ReadIndex(const std::string& path) {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  if (file.bytes().size() > kMaxIndexBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": has ", file.bytes().size(), " bytes, limit ", kMaxIndexBytes));
  }
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()),
                              file.bytes().size());
  ASSIGN_OR_RETURN(const nlohmann::json index, ParseJson(path, text));
  const auto weight_map = index.is_object() ? index.find("weight_map") : index.end();
  if (weight_map == index.end() || !weight_map->is_object() || weight_map->empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": has no object 'weight_map'"));
  }
  WeightMap shard_of;
  for (const auto& [tensor, shard] : weight_map->items()) {
    if (!shard.is_string() || !IsPlainShardName(shard.get<std::string>())) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor '", tensor, "' is said to be in ", shard.dump(),
                       ", expected the name of a .safetensors file in the same directory"));
    }
    shard_of[tensor] = shard.get<std::string>();
  }
  return shard_of;
}

absl::Status VerifyIndex(const std::string& path, const WeightMap& shard_of,
                         const std::vector<SafetensorsFile>& shards) {
  std::map<std::string, std::string> found_in;
  for (const SafetensorsFile& shard : shards) {
    for (const SafetensorsEntry& entry : shard.header.entries) {
      const auto [first, inserted] = found_in.emplace(entry.name, shard.file_name);
      if (!inserted) {
        return absl::InvalidArgumentError(absl::StrCat(path, ": tensor '", entry.name,
                                                       "' is in two shards, ", first->second,
                                                       " and ", shard.file_name));
      }
    }
  }
  for (const auto& [tensor, shard] : shard_of) {
    const auto found = found_in.find(tensor);
    if (found != found_in.end() && found->second == shard) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": tensor '", tensor, "' should be in ", shard, ", found ",
                     found == found_in.end() ? "nowhere" : "in " + found->second));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<SafetensorsFile>> OpenShards(const std::string& directory,
                                                        const std::string& index_path) {
  ASSIGN_OR_RETURN(const WeightMap shard_of, ReadIndex(index_path));
  std::set<std::string> names;
  for (const auto& [tensor, shard] : shard_of) names.insert(shard);
  if (names.size() > kMaxShards) {
    return absl::InvalidArgumentError(
        absl::StrCat(index_path, ": names ", names.size(), " shards, limit ", kMaxShards));
  }
  std::vector<SafetensorsFile> shards;
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(SafetensorsFile shard, OpenOne(directory, name));
    shards.push_back(std::move(shard));
  }
  RETURN_IF_ERROR(VerifyIndex(index_path, shard_of, shards));
  return shards;
}

}  // namespace

absl::StatusOr<std::vector<SafetensorsFile>> OpenSafetensors(const std::string& directory) {
  const std::filesystem::path root(directory);
  std::error_code ignored;
  if (std::filesystem::exists(root / kSingleFile, ignored)) {
    ASSIGN_OR_RETURN(SafetensorsFile file, OpenOne(directory, kSingleFile));
    std::vector<SafetensorsFile> files;
    files.push_back(std::move(file));
    return files;
  }
  const std::filesystem::path index = root / kIndexFile;
  if (std::filesystem::exists(index, ignored)) return OpenShards(directory, index.string());
  return absl::NotFoundError(absl::StrCat(directory, ": has neither ", kSingleFile, " nor ",
                                          kIndexFile,
                                          "; weights are read from safetensors files only"));
}

}  // namespace sauva
