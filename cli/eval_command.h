#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "engine/perplexity.h"

namespace sauva {

// What `sauva eval` measures.
struct EvalOptions {
  std::string model;  // a model's directory
  std::string text;   // a UTF-8 file
  int context = 0;    // tokens of a window; 0: the model's context
  int stride = 0;     // tokens from window to window; 0: half the context
  int threads = 0;    // 0: all usable cores
  std::string device = "cpu";
  LoadFormat weight_format = LoadFormat::kStored;
  DType kv_type = DType::kF32;
};

// Perplexity of a text, computed in this process. `progress` is told the tokens scored so
// far, of all; it may be empty.
// Errors: NOT_FOUND naming the file; those of OpenModel, MakeBackend and MeasurePerplexity.
absl::StatusOr<Perplexity> RunEval(const EvalOptions& options,
                                   const std::function<void(int64_t, int64_t)>& progress);

// The measurement as one line of JSON, in the form that docs/command_line.md promises.
std::string PerplexityJson(const Perplexity& measured);

}  // namespace sauva
