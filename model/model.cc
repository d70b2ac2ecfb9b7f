#include "model/model.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/digest.h"
#include "model/expected_tensors.h"
#include "model/safetensors.h"

namespace sauva {
namespace {

// Tensors of safetensors files under their canonical names.
class MappedCheckpoint : public Checkpoint {
 public:
  explicit MappedCheckpoint(std::vector<SafetensorsFile> files) : files_(std::move(files)) {}

  absl::StatusOr<StoredTensor> Find(const std::string& name) const override {
    const auto found = tensors_.find(name);
    if (found != tensors_.end()) return found->second;
    return absl::NotFoundError(absl::StrCat("tensor '", name, "' is not in the checkpoint"));
  }

  std::vector<std::string> Names() const override {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : tensors_) names.push_back(name);
    return names;
  }

  const std::vector<SafetensorsFile>& files() const { return files_; }
  void Add(const std::string& name, StoredTensor tensor) {
    tensors_.emplace(name, std::move(tensor));
  }

 private:
  std::vector<SafetensorsFile> files_;
  std::map<std::string, StoredTensor> tensors_;
};

struct Candidate {
  const SafetensorsFile* file = nullptr;
  const SafetensorsEntry* entry = nullptr;
};

std::map<std::string, Candidate> ByCanonicalName(const std::vector<SafetensorsFile>& files,
                                                 const Family& family) {
  std::map<std::string, Candidate> candidates;
  for (const SafetensorsFile& file : files) {
    for (const SafetensorsEntry& entry : file.header.entries) {
      const auto name = family.canonical_name(entry.name);
      if (name) candidates[*name] = {&file, &entry};
    }
  }
  return candidates;
}

absl::StatusOr<DType> WeightType(const Candidate& found) {
  const std::string& dtype = found.entry->dtype;
  if (dtype == "F32") return DType::kF32;
  if (dtype == "F16") return DType::kF16;
  if (dtype == "BF16") return DType::kBF16;
  return absl::InvalidArgumentError(absl::StrCat(found.file->file_name, ": tensor '",
                                                 found.entry->name, "' has dtype ", dtype,
                                                 ", expected F32, F16 or BF16"));
}

absl::StatusOr<StoredTensor> Verify(const Candidate& found, const ExpectedTensor& expected) {
  StoredTensor tensor;
  ASSIGN_OR_RETURN(tensor.dtype, WeightType(found));
  if (found.entry->shape != expected.shape) {
    return absl::InvalidArgumentError(
        absl::StrCat(found.file->file_name, ": tensor '", found.entry->name, "' (", expected.name,
                     ") has shape ", ShapeText(found.entry->shape), ", expected ",
                     ShapeText(expected.shape), " by config.json"));
  }
  tensor.shape = found.entry->shape;
  tensor.bytes = found.file->BytesOf(*found.entry);
  return tensor;
}

absl::StatusOr<std::unique_ptr<MappedCheckpoint>> OpenCheckpoint(const std::string& directory,
                                                                 const ModelSpec& spec,
                                                                 const Family& family) {
  ASSIGN_OR_RETURN(std::vector<SafetensorsFile> files, OpenSafetensors(directory));
  auto checkpoint = std::make_unique<MappedCheckpoint>(std::move(files));
  const auto candidates = ByCanonicalName(checkpoint->files(), family);
  for (const ExpectedTensor& expected : ExpectedTensors(spec)) {
    const auto found = candidates.find(expected.name);
    if (found == candidates.end()) {
      return absl::InvalidArgumentError(absl::StrCat(directory, ": tensor '", expected.name,
                                                     "' of shape ", ShapeText(expected.shape),
                                                     " is missing from the checkpoint"));
    }
    ASSIGN_OR_RETURN(StoredTensor tensor, Verify(found->second, expected));
    checkpoint->Add(expected.name, std::move(tensor));
  }
  return checkpoint;
}

// The name as given, links unresolved; "." and "models/prose/" name a directory too.
std::string LastComponent(const std::string& directory) {
  std::error_code error;
  std::filesystem::path path = std::filesystem::absolute(directory, error).lexically_normal();
  if (path.filename().empty()) path = path.parent_path();
  return path.filename().string();
}

}  // namespace

absl::StatusOr<Model> OpenModel(const std::string& directory) {
  Model model;
  model.name = LastComponent(directory);
  ASSIGN_OR_RETURN(model.files, ReadModelFiles(directory));
  ASSIGN_OR_RETURN(model.spec, ParseSpec(model.files));
  ASSIGN_OR_RETURN(const Family* family, FamilyOf(model.files));
  ASSIGN_OR_RETURN(auto checkpoint, OpenCheckpoint(directory, model.spec, *family));
  model.digest = ModelDigest(model.files, checkpoint->files());
  model.checkpoint = std::move(checkpoint);
  return model;
}

}  // namespace sauva
