#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace sauva {

enum class Method { kInt8, kInt8Static, kLlmInt8, kNf4, kAwq, kGptq };

// What `sauva quantize` was asked for.
struct QuantizeOptions {
  std::string model;  // a directory with f32, f16 or bf16 weights
  std::string out;    // a directory that does not exist yet
  Method method = Method::kInt8;
  int bits = 4;              // of gptq: 3 or 4
  int64_t group_size = 128;  // of awq and gptq: 32, 64 or 128
  bool act_order = false;    // gptq: columns in order of falling Hessian diagonal
  bool symmetric = true;     // gptq: zero points in the middle
  float damping = 0.01f;     // gptq: share of the mean diagonal that is added to it

  std::string calibration;    // a text, or JSONL with "text"; int8-static, awq and gptq
  int samples = 128;          // of calibration
  int sample_tokens = 512;    // tokens of one
  double percentile = 99.99;  // int8-static: of |x| that the scale covers; 100: the largest
  int64_t memory_bytes = int64_t{2} << 30;  // calibration activations beyond it go to disk
  int threads = 0;                          // 0: all usable cores
};

const char* Name(Method method);
// Errors: INVALID_ARGUMENT naming the choices.
absl::StatusOr<Method> ParseMethod(const std::string& name);
bool NeedsCalibration(Method method);

// Errors: INVALID_ARGUMENT naming the flag, the value and what is allowed.
absl::Status ValidateOptions(const QuantizeOptions& options);

}  // namespace sauva
