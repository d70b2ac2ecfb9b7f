#include "model/model_files.h"

#include <array>
#include <filesystem>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/mapped_file.h"

namespace sauva {
namespace {

constexpr std::array kNames = {
    "config.json",         "generation_config.json",  "tokenizer.json",
    "tokenizer.model",     "tokenizer_config.json",   "vocab.json",
    "merges.txt",          "special_tokens_map.json", "chat_template.jinja",
    "quantize_config.json"};

}  // namespace

absl::StatusOr<ModelFiles> ReadModelFiles(const std::string& directory) {
  const std::filesystem::path root(directory);
  std::error_code error;
  if (!std::filesystem::is_directory(root, error)) {
    return absl::NotFoundError(absl::StrCat(directory, ": no such model directory"));
  }
  ModelFiles files;
  for (const char* name : kNames) {
    const std::string path = (root / name).string();
    if (!std::filesystem::exists(path, error)) continue;
    ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
    if (file.bytes().size() > kMaxModelFileBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": has ", file.bytes().size(), " bytes, limit ", kMaxModelFileBytes));
    }
    files[name].assign(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  }
  if (!files.contains("config.json")) {
    return absl::NotFoundError(absl::StrCat(directory, ": has no config.json"));
  }
  return files;
}

}  // namespace sauva
