#include "kernels/kv_shape.h"

#include "absl/strings/str_cat.h"

namespace sauva {

absl::Status ValidateKvShape(const KvShape& shape) {
  if (shape.num_blocks <= 0 || shape.num_kv_heads <= 0 || shape.head_dim <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("a KV cache of ", shape.num_blocks, " blocks, ",
                                                   shape.num_kv_heads, " heads of ",
                                                   shape.head_dim));
  }
  if (shape.dtype != DType::kF32 && shape.dtype != DType::kF16 && shape.dtype != DType::kI8) {
    return absl::InvalidArgumentError(
        absl::StrCat("a KV cache of ", Name(shape.dtype), "; f32, f16 and i8 are known"));
  }
  constexpr double kMostBytes = 0x1p60;  // size_bytes() must not overflow
  const double bytes = 32.0 * shape.num_blocks * shape.num_kv_heads *
                       static_cast<double>(KvVectorBytes(shape.dtype, shape.head_dim));
  if (bytes > kMostBytes) {
    return absl::ResourceExhaustedError(absl::StrCat("a KV cache of ", bytes, " bytes"));
  }
  return absl::OkStatus();
}

}  // namespace sauva
