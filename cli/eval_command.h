#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "engine/divergence.h"
#include "engine/perplexity.h"
#include "kernels/cuda_access.h"

namespace sauva {

// What `sauva eval` measures.
struct EvalOptions {
  std::string model;  // a model's directory
  std::string text;   // a UTF-8 file
  int context = 0;    // tokens of a window; 0: the model's context
  int stride = 0;     // tokens from window to window; 0: half the context
  int threads = 0;    // 0: all usable cores
  std::string device = "cpu";
  CudaArithmetic arithmetic = CudaArithmetic::kFast;
  LoadFormat weight_format = LoadFormat::kStored;
  DType kv_type = DType::kF32;
  std::string reference;   // a model's directory to compare with; empty: none
  std::string logits;      // a file for the logits of the first window; empty: none
  int64_t max_tokens = 0;  // of the text's beginning; 0: all
};

// How much of the text a quantized model was calibrated on.
struct CalibrationOverlap {
  int64_t windows = 0;  // that its checkpoint keeps of the calibration text
  int64_t in_text = 0;  // of them, in the part of the text that was measured
};

// What was measured.
struct Evaluation {
  Perplexity perplexity;
  std::optional<Divergence> divergence;           // with a reference
  int64_t weight_bytes = 0;                       // in memory
  std::optional<CalibrationOverlap> calibration;  // where the checkpoint has a record
};

// Perplexity of a text, and how far the model is from a reference, computed in this process.
// A logits file holds f32 [tokens - 1, vocab_size], row-major, without a header. `progress` is told
// the tokens scored so far, of all; it may be empty. Errors: NOT_FOUND naming the file; those of
// OpenModel, MakeBackend and MeasurePerplexity.
absl::StatusOr<Evaluation> RunEval(const EvalOptions& options,
                                   const std::function<void(int64_t, int64_t)>& progress);

// The measurement as one line of JSON, in the form that docs/command_line.md promises.
std::string EvaluationJson(const Evaluation& measured);

}  // namespace sauva
