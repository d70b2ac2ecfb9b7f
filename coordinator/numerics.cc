#include "coordinator/numerics.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace sauva {
namespace {

// FNV-1a. Source: the FNV reference code, 64 bits.
uint64_t Hash(const std::string& text) {
  uint64_t hash = 14695981039346656037u;
  for (const char c : text) {
    hash ^= static_cast<unsigned char>(c);
    hash *= 1099511628211u;
  }
  return hash;
}

}  // namespace

std::string NumericsId(const StageAssignment& assignment, const std::vector<std::string>& classes) {
  Check(classes.size() == assignment.stages.size() && !classes.empty(), "a class per stage");
  std::string backend = classes.front();
  if (std::ranges::any_of(classes, [&](const std::string& name) { return name != backend; })) {
    backend = "mix";
    for (size_t i = 0; i < classes.size(); ++i) {
      const LayerRange layers = assignment.stages[i].layers;
      absl::StrAppend(&backend, "|", layers.first, "-", layers.last, "=", classes[i]);
    }
  }
  return absl::StrCat(
      "n", kNumericsVersion, "-",
      absl::Hex(Hash(absl::StrCat(assignment.model.digest, "|", assignment.weight_format, "|",
                                  assignment.kv_type, "|", kNumericsVersion, "|", backend)),
                absl::kZeroPad16));
}

}  // namespace sauva
