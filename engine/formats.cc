#include "engine/formats.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "kernels/round_to_nearest.h"

namespace sauva {
namespace {

constexpr LoadFormat kAll[] = {LoadFormat::kStored, LoadFormat::kF32,  LoadFormat::kInt8,
                               LoadFormat::kInt4,   LoadFormat::kInt3, LoadFormat::kNf4};
constexpr int64_t kGroup = 64;

bool Rounds(LoadFormat format) {
  return format != LoadFormat::kStored && format != LoadFormat::kF32;
}

}  // namespace

absl::StatusOr<LoadFormat> ParseLoadFormat(const std::string& name) {
  for (const LoadFormat format : kAll) {
    if (name == Name(format)) return format;
  }
  return absl::InvalidArgumentError(absl::StrCat("weight format '", name, "'; there are ",
                                                 absl::StrJoin(LoadFormatNames(), ", ")));
}

const char* Name(LoadFormat format) {
  switch (format) {
    case LoadFormat::kStored:
      return "native";
    case LoadFormat::kF32:
      return "f32";
    case LoadFormat::kInt8:
      return "int8";
    case LoadFormat::kInt4:
      return "int4";
    case LoadFormat::kInt3:
      return "int3";
    case LoadFormat::kNf4:
      return "nf4";
  }
  return "unknown";
}

std::vector<std::string> LoadFormatNames() {
  std::vector<std::string> names;
  for (const LoadFormat format : kAll) names.emplace_back(Name(format));
  return names;
}

std::vector<std::string> RoundingFormatNames() {
  std::vector<std::string> names;
  for (const LoadFormat format : kAll) {
    if (Rounds(format)) names.emplace_back(Name(format));
  }
  return names;
}

absl::StatusOr<DType> ParseKvType(const std::string& name) {
  if (name == "f32") return DType::kF32;
  if (name == "f16") return DType::kF16;
  if (name == "int8") return DType::kI8;
  return absl::InvalidArgumentError(
      absl::StrCat("KV type '", name, "'; there are ", absl::StrJoin(KvTypeNames(), ", ")));
}

std::vector<std::string> KvTypeNames() { return {"f32", "f16", "int8"}; }

const char* ActivationQuantization(LoadFormat format) {
  if (Rounds(format)) return "int8-groups";
  return format == LoadFormat::kF32 ? "none" : "as stored";
}

LoadFormat HeadFormat(LoadFormat format, const ModelSpec& spec) {
  if (!Rounds(format) || format == LoadFormat::kInt8) return format;
  return spec.tied_head ? LoadFormat::kStored : LoadFormat::kInt8;
}

absl::StatusOr<std::optional<QuantizedMatrix>> RoundAtLoad(const WeightSource& source,
                                                           LoadFormat format,
                                                           std::vector<uint8_t> codes) {
  std::optional<QuantizedMatrix> matrix;
  switch (format) {
    case LoadFormat::kStored:
    case LoadFormat::kF32:
      return matrix;
    case LoadFormat::kInt8: {
      ASSIGN_OR_RETURN(matrix, RoundToInt8(source, std::move(codes)));
      return matrix;
    }
    case LoadFormat::kInt4:
    case LoadFormat::kInt3: {
      const int bits = format == LoadFormat::kInt4 ? 4 : 3;
      ASSIGN_OR_RETURN(matrix, RoundToGroups(source, bits, kGroup, std::move(codes)));
      return matrix;
    }
    case LoadFormat::kNf4: {
      ASSIGN_OR_RETURN(matrix, RoundToNf4(source, kGroup, std::move(codes)));
      return matrix;
    }
  }
  return matrix;
}

int64_t RoundedBytes(int64_t rows, int64_t columns, LoadFormat format) {
  QuantizedOutline outline{.rows = rows, .columns = columns, .group_size = kGroup};
  outline.bits = format == LoadFormat::kInt8 ? 8 : format == LoadFormat::kInt3 ? 3 : 4;
  if (format == LoadFormat::kInt8) outline.group_size = columns;
  outline.half_scales = format == LoadFormat::kInt4 || format == LoadFormat::kInt3;
  outline.zero_points = outline.half_scales;
  return PackedBytes(outline);
}

int64_t PackedBytes(const QuantizedOutline& outline) {
  constexpr int64_t kPanelRows = 16;
  constexpr int64_t kUnitColumns = 32;
  constexpr int64_t kReadPastEnd = 256;
  const auto round_up = [](int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; };
  const int64_t rows = round_up(outline.rows, kPanelRows);
  const int64_t columns = round_up(outline.columns, kUnitColumns);
  const int64_t groups = (outline.columns + outline.group_size - 1) / outline.group_size;
  const int64_t scale = (outline.half_scales ? 2 : 4) + (outline.zero_points ? 1 : 0);
  const int64_t order = outline.act_order ? outline.columns * int64_t{sizeof(int32_t)} : 0;
  return rows * columns * outline.bits / 8 + rows * groups * scale + order + kReadPastEnd;
}

}  // namespace sauva
