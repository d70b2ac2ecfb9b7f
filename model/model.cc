#include "model/model.h"

#include <filesystem>
#include <utility>

#include "base/status_macros.h"
#include "model/digest.h"
#include "model/mapped_checkpoint.h"

namespace sauva {
namespace {

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
  ASSIGN_OR_RETURN(auto layout, ReadQuantizedLayout(model.files));
  if (layout != nullptr) model.quantization = layout->method();
  ASSIGN_OR_RETURN(auto checkpoint,
                   MappedCheckpoint::Open(directory, model.spec, *family, std::move(layout)));
  model.digest = ModelDigest(model.files, checkpoint->files());
  model.checkpoint = std::move(checkpoint);
  return model;
}

}  // namespace sauva
