#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/local_pipeline.h"

namespace sauva {

struct PerplexityOptions {
  int context = 0;         // tokens of a window; 0: the pipeline's context
  int stride = 0;          // tokens from window to window; 0: half the context
  int64_t text_bytes = 0;  // UTF-8 bytes the tokens stand for; 0: no bits per byte
};

struct Perplexity {
  double perplexity = 0;      // exp of the mean negative log-probability
  double standard_error = 0;  // of it, tokens taken as independent
  double bits_per_byte = 0;   // of the scored tokens, over all bytes of the text
  int64_t num_tokens = 0;     // scored; the text's first token has nothing before it
  int64_t num_computed = 0;   // run through the model, windows' overlap counted twice
  double seconds = 0;
  double tokens_per_second = 0;  // computed ones
};

// A window of a text: tokens [first, end) are run, those from `scored` on are new.
struct TextWindow {
  int64_t first = 0;
  int64_t end = 0;
  int64_t scored = 0;
};
// Errors: as MeasurePerplexity.
absl::StatusOr<std::vector<TextWindow>> CutIntoWindows(int64_t size, int max_context,
                                                       const PerplexityOptions& options);

// Sums of a quantity over tokens.
struct Moments {
  int64_t count = 0;
  double sum = 0;
  double squares = 0;

  void Add(double value) {
    ++count;
    sum += value;
    squares += value * value;
  }
  double Mean() const;
  double StandardError() const;  // of the mean
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
