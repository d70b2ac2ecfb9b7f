#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "model/checkpoint.h"
#include "model/model_files.h"
#include "model/parse_spec.h"
#include "model/spec.h"
#include "model/tokenizer.h"

namespace sauva {

// A model directory, opened and verified, its weights mapped but not read.
struct Model {
  std::string name;    // last component of the directory's path
  std::string digest;  // 64 hex digits: SHA-256 over config, tokenizer files and headers
  ModelSpec spec;
  std::string quantization;  // "awq", as quant_method spells it; empty: none
  ModelFiles files;
  std::unique_ptr<Checkpoint> checkpoint;  // has every tensor of ExpectedTensors(spec)
};

// Opens a Hugging Face directory. Every tensor that the spec needs is there with the right
// shape, as f32, f16 or bf16 or in the layout that quantization_config names; others are
// ignored. Reads small files, safetensors headers and descriptions only.
// Errors: NOT_FOUND naming the path or the missing file; INVALID_ARGUMENT naming file,
// tensor or key, expected and found.
absl::StatusOr<Model> OpenModel(const std::string& directory);

// What `sauva inspect` shows: spec, tensors and bytes.
std::string Describe(const Model& model);
nlohmann::json DescribeJson(const Model& model);

}  // namespace sauva
