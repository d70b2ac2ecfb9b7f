#include "coordinator/numerics.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "engine/formats.h"
#include "engine/numerics_id.h"

namespace sauva {

std::string PipelineNumericsId(const StageAssignment& assignment,
                               const std::vector<std::string>& classes) {
  Check(classes.size() == assignment.stages.size() && !classes.empty(), "a class per stage");
  std::string backend = classes.front();
  if (std::ranges::any_of(classes, [&](const std::string& name) { return name != backend; })) {
    backend = "mix";
    for (size_t i = 0; i < classes.size(); ++i) {
      const LayerRange layers = assignment.stages[i].layers;
      absl::StrAppend(&backend, " ", layers.first, "-", layers.last, "=", classes[i]);
    }
  }
  const absl::StatusOr<LoadFormat> format = ParseLoadFormat(assignment.weight_format);
  Check(format.ok(), "the format was checked when the coordinator was configured");
  return NumericsId({.model_digest = assignment.model.digest,
                     .weight_format = assignment.weight_format,
                     .activation_quantization = ActivationQuantization(*format),
                     .kv_type = assignment.kv_type,
                     .backend_class = backend});
}

}  // namespace sauva
