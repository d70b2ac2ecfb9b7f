#pragma once

#include <cstdint>
#include <string>

#include "proto/control.h"

namespace sauva {

// Everything that decides a model's tokens besides the request.
struct NumericsFacts {
  std::string model_digest;
  std::string weight_format;            // Name(LoadFormat)
  std::string activation_quantization;  // ActivationQuantization(LoadFormat)
  std::string kv_type;                  // "f32", "f16" or "int8"
  std::string backend_class;            // Backend::backend_class()
  uint32_t version = kNumericsVersion;
};

// 16 hex digits; equal ids promise equal tokens for equal requests.
// Source: the first 64 bits of SHA-256 over the facts, each led by its length.
std::string NumericsId(const NumericsFacts& facts);

}  // namespace sauva
