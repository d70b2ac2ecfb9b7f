#pragma once

#include <cstdint>

namespace sauva {

// Element types of tensors as stored.
enum class DType : uint8_t { kF32, kF16, kBF16, kI8, kI32 };

constexpr int64_t SizeOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kF16:
    case DType::kBF16:
      return 2;
    case DType::kI8:
      return 1;
  }
  return 0;
}

// A key or value of one token and KV head in a cache; int8 codes have a f32 scale.
constexpr int64_t KvVectorBytes(DType dtype, int64_t head_dim) {
  return head_dim * SizeOf(dtype) + (dtype == DType::kI8 ? SizeOf(DType::kF32) : 0);
}

const char* Name(DType dtype);  // "f32", "f16", …

}  // namespace sauva
