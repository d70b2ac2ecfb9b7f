#include "coordinator/model_catalog.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "coordinator/model_costs.h"
#include "engine/formats.h"
#include "engine/stage.h"
#include "model/model.h"

namespace sauva {

absl::StatusOr<std::unique_ptr<ModelCatalog>> ModelCatalog::Create(const std::string& model_dir,
                                                                   const ServingFormat& format) {
  RETURN_IF_ERROR(ParseLoadFormat(format.weight_format).status());
  RETURN_IF_ERROR(ParseKvType(format.kv_type).status());
  return std::unique_ptr<ModelCatalog>(new ModelCatalog(model_dir, format));
}

absl::StatusOr<const CatalogModel*> ModelCatalog::Open(const std::string& name) {
  // A caller of LoadModel names a model, not a path.
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos ||
      name.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(
        "model is \"", name, "\"; expected the name of a directory under ", model_dir_));
  }
  const std::lock_guard lock(mutex_);
  if (const auto known = models_.find(name); known != models_.end()) return known->second.get();
  ASSIGN_OR_RETURN(Model model, OpenModel(std::filesystem::path(model_dir_) / name));
  ModelDescription description{.ref = {.name = name, .digest = model.digest}};
  ASSIGN_OR_RETURN(description.costs, CostsOf(model.spec, *model.checkpoint, format_));
  description.max_context = format_.max_context > 0
                                ? std::min(format_.max_context, model.spec.max_context)
                                : model.spec.max_context;
  description.vocab_size = model.spec.vocab_size;
  description.scratch =
      EstimateBackendScratch(model.spec, {.max_context = description.max_context,
                                          .max_step_tokens = format_.max_step_tokens,
                                          .max_sequences = format_.max_sequences});
  auto opened = std::make_unique<const CatalogModel>(
      CatalogModel{.description = std::move(description), .files = std::move(model.files)});
  return (models_[name] = std::move(opened)).get();
}

absl::StatusOr<const CatalogModel*> ModelCatalog::Find(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  if (const auto known = models_.find(name); known != models_.end()) return known->second.get();
  if (name.empty() && models_.size() == 1) return models_.begin()->second.get();
  std::vector<std::string> names;
  for (const auto& [known_name, model] : models_) names.push_back(known_name);
  const std::string all = names.empty() ? "none" : absl::StrJoin(names, ", ");
  if (name.empty() && names.size() > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("model is empty, but several are served: ", all));
  }
  return absl::NotFoundError(absl::StrCat("model \"", name, "\" is not served; served: ", all));
}

}  // namespace sauva
