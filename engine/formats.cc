#include "engine/formats.h"

#include "absl/strings/str_cat.h"

namespace sauva {

absl::StatusOr<WeightFormat> ParseWeightFormat(const std::string& name) {
  for (const WeightFormat format : {WeightFormat::kNative, WeightFormat::kInt8}) {
    if (name == Name(format)) return format;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("weight format '", name, "'; there are native and int8"));
}

const char* Name(WeightFormat format) {
  switch (format) {
    case WeightFormat::kNative:
      return "native";
    case WeightFormat::kInt8:
      return "int8";
  }
  return "unknown";
}

absl::StatusOr<DType> ParseKvType(const std::string& name) {
  if (name == "f32") return DType::kF32;
  if (name == "f16") return DType::kF16;
  return absl::InvalidArgumentError(absl::StrCat("KV type '", name, "'; there are f32 and f16"));
}

const char* ActivationQuantization(WeightFormat format) {
  return format == WeightFormat::kInt8 ? "int8-group32" : "none";
}

}  // namespace sauva
