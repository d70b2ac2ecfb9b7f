#include "kernels/cuda/cuda_weight.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/status_macros.h"
#include "kernels/cuda/pack.h"
#include "kernels/cuda/weight_layout.h"
#include "kernels/half.h"
#include "kernels/round_to_nearest.h"
#include "kernels/weight_source.h"

namespace sauva::cuda {
namespace {

constexpr int kInt8Zero = 128;

Rounding RoundingOf(ActivationKind kind) {
  switch (kind) {
    case ActivationKind::kInt8Groups:
      return Rounding::kGroups;
    case ActivationKind::kInt8Static:
      return Rounding::kStatic;
    case ActivationKind::kLlmInt8:
      return Rounding::kLlmInt8;
  }
  return Rounding::kGroups;
}

// One number per row and weight group, row tile by row tile; 0 beyond the matrix.
template <class T, class F>
absl::StatusOr<DeviceMemory> UploadPerGroup(Device& device, const QuantizedMatrix& matrix,
                                            const F& value_of) {
  const int64_t tiles = (matrix.rows + kTileRows - 1) / kTileRows;
  const int64_t groups = matrix.groups();
  return UploadItems(
      device, {.count = tiles, .item_bytes = groups * kTileRows * static_cast<int64_t>(sizeof(T))},
      [&](int64_t first, int64_t count, std::byte* part) {
        for (int64_t row = first * kTileRows;
             row < std::min(matrix.rows, (first + count) * kTileRows); ++row) {
          for (int64_t group = 0; group < groups; ++group) {
            const T value = value_of(static_cast<size_t>(row * groups + group));
            const int64_t item = (row / kTileRows - first) * groups + group;
            std::memcpy(
                part + (item * kTileRows + row % kTileRows) * static_cast<int64_t>(sizeof(T)),
                &value, sizeof(T));
          }
        }
      });
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaWeight>> CudaWeight::Create(Device& device,
                                                               const WeightSource& source,
                                                               WeightFormat format) {
  RETURN_IF_ERROR(ValidateWeightSource(source));
  auto weight = std::unique_ptr<CudaWeight>(new CudaWeight(source.rows, source.columns));
  if (source.quantized != nullptr) {
    RETURN_IF_ERROR(weight->UploadCodes(device, *source.quantized));
  } else if (format == WeightFormat::kInt8) {
    ASSIGN_OR_RETURN(const QuantizedMatrix rounded, RoundToInt8(source));
    RETURN_IF_ERROR(weight->UploadCodes(device, rounded));
  } else {
    RETURN_IF_ERROR(weight->UploadFloats(device, source));
  }
  return weight;
}

int64_t CudaWeight::size_bytes() const {
  int64_t bytes = 0;
  for (const DeviceMemory* part : {&elements_, &high_, &scales_, &zeros_, &column_order_}) {
    bytes += part->size_bytes();
  }
  return bytes;
}

FloatMatrix CudaWeight::floats() const {
  return {.elements = elements_.data(), .dtype = dtype_, .rows = rows_, .columns = columns_};
}

absl::Status CudaWeight::UploadFloats(Device& device, const WeightSource& source) {
  dtype_ = source.dtype;
  const int64_t row_bytes = FloatChunks(source.columns) * kFloatChunk * SizeOf(source.dtype);
  ASSIGN_OR_RETURN(elements_, UploadItems(device, {.count = source.rows, .item_bytes = row_bytes},
                                          [&](int64_t first, int64_t count, std::byte* part) {
                                            for (int64_t i = 0; i < count; ++i) {
                                              PackFloatRow(source, first + i, part + i * row_bytes);
                                            }
                                          }));
  return absl::OkStatus();
}

absl::Status CudaWeight::UploadCodes(Device& device, const QuantizedMatrix& matrix) {
  is_codes_ = true;
  codes_.format = FormatOf(matrix);
  codes_.rows = matrix.rows;
  codes_.columns = matrix.columns;
  codes_.scale_groups = static_cast<int>(matrix.groups() == 1 ? QuantizedGroups(matrix.columns)
                                                              : matrix.group_size / kTileColumns);
  codes_.activation_groups = static_cast<int>(ActivationGroup(matrix) / kTileColumns);
  const int64_t tile_bytes = codes_.groups() * TileBytes(codes_.format);
  ASSIGN_OR_RETURN(elements_,
                   UploadItems(device, {.count = codes_.row_tiles(), .item_bytes = tile_bytes},
                               [&](int64_t first, int64_t count, std::byte* part) {
                                 for (int64_t i = 0; i < count; ++i) {
                                   PackCodeTiles(matrix, first + i, part + i * tile_bytes);
                                 }
                               }));
  codes_.codes = elements_.data();
  if (codes_.format == CodeFormat::kInt3) {
    const int64_t high_bytes = (codes_.groups() + 1) / 2 * TileBytes(CodeFormat::kInt3);
    ASSIGN_OR_RETURN(high_,
                     UploadItems(device, {.count = codes_.row_tiles(), .item_bytes = high_bytes},
                                 [&](int64_t first, int64_t count, std::byte* part) {
                                   for (int64_t i = 0; i < count; ++i) {
                                     PackHighTiles(matrix, first + i, part + i * high_bytes);
                                   }
                                 }));
    codes_.high = high_.data();
  }
  RETURN_IF_ERROR(UploadScales(device, matrix));
  RETURN_IF_ERROR(UploadZeros(device, matrix));
  return UploadColumnOrder(device, matrix);
}

absl::Status CudaWeight::UploadScales(Device& device, const QuantizedMatrix& matrix) {
  std::vector<uint16_t> halves(matrix.scales.size());
  codes_.half_scales = FloatsToHalves(matrix.scales, halves.data());
  if (codes_.half_scales) {
    ASSIGN_OR_RETURN(scales_,
                     UploadPerGroup<uint16_t>(device, matrix, [&](size_t i) { return halves[i]; }));
  } else {
    ASSIGN_OR_RETURN(
        scales_, UploadPerGroup<float>(device, matrix, [&](size_t i) { return matrix.scales[i]; }));
  }
  codes_.scales = scales_.data();
  return absl::OkStatus();
}

absl::Status CudaWeight::UploadZeros(Device& device, const QuantizedMatrix& matrix) {
  // Int8 codes are stored less 128, as the instructions are signed.
  const int stored_less = codes_.format == CodeFormat::kInt8 ? kInt8Zero : 0;
  const bool none = std::all_of(matrix.zeros.begin(), matrix.zeros.end(),
                                [&](uint8_t zero) { return zero == stored_less; });
  if (none) return absl::OkStatus();
  ASSIGN_OR_RETURN(zeros_, UploadPerGroup<int8_t>(device, matrix, [&](size_t i) {
                     return static_cast<int8_t>(matrix.zeros[i] - stored_less);
                   }));
  codes_.zeros = zeros_.as<int8_t>();
  return absl::OkStatus();
}

absl::Status CudaWeight::UploadColumnOrder(Device& device, const QuantizedMatrix& matrix) {
  activation_.rounding = RoundingOf(matrix.activation);
  activation_.static_scale = matrix.activation_scale;
  activation_.outlier_threshold = matrix.outlier_threshold;
  if (matrix.column_order.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(column_order_, UploadItems(device, {.count = matrix.columns, .item_bytes = 4},
                                              [&](int64_t first, int64_t count, std::byte* part) {
                                                std::memcpy(part,
                                                            matrix.column_order.data() + first,
                                                            static_cast<size_t>(count) * 4);
                                              }));
  activation_.column_order = column_order_.as<int32_t>();
  return absl::OkStatus();
}

}  // namespace sauva::cuda
