#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "absl/status/statusor.h"
#include "engine/local_pipeline.h"

namespace sauva {

struct PerplexityOptions {
  int context = 0;         // tokens of a window; 0: the pipeline's context
  int stride = 0;          // tokens from window to window; 0: half the context
  int64_t text_bytes = 0;  // UTF-8 bytes the tokens stand for; 0: no bits per byte
};

struct Perplexity {
  double perplexity = 0;     // exp of the mean negative log-probability
  double bits_per_byte = 0;  // of the scored tokens, over all bytes of the text
  int64_t num_tokens = 0;    // scored; the text's first token has nothing before it
  int64_t num_computed = 0;  // run through the model, windows' overlap counted twice
  double seconds = 0;
  double tokens_per_second = 0;  // computed ones
};

// Perplexity of a text under a sliding window: each token is scored once, by the first
// window that holds it, with at least context - stride tokens before it (the text's first
// tokens have what there is). `progress` is told the tokens scored so far, of all; it may be
// empty.
// Errors: INVALID_ARGUMENT for less than two tokens or a window that does not fit.
// Source: the fixed-length strided perplexity of the transformers documentation.
absl::StatusOr<Perplexity> MeasurePerplexity(
    LocalPipeline& pipeline, std::span<const TokenId> tokens, const PerplexityOptions& options,
    const std::function<void(int64_t done, int64_t all)>& progress);

}  // namespace sauva
