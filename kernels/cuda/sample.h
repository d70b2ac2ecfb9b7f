#pragma once

#include <cstdint>

#include "kernels/cuda/views.h"
#include "kernels/sampling.h"

// Drawing tokens from logits on the device: the arithmetic of kernels/sampler.cc, in the same
// order.
namespace sauva::cuda {

// Something known of a token of one row: a bias, or how often the completion has it.
struct TokenFact {
  int32_t token;
  float amount;
};

// SampleRow of kernels/sampling.h, as the kernel reads it.
struct SampleControls {
  float temperature = 0;  // not above 0: the likeliest token
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  float uniform = 0;       // what the seed gives at this position
  int32_t top_k = 0;       // 0: all
  int32_t num_top = 0;     // alternatives wanted, at most the vocabulary
  int32_t first_fact = 0;  // of this row in the launch's facts: its biases, then its counts
  int32_t num_biases = 0;  // of one token they add up in order
  int32_t num_counts = 0;  // how often the completion has each token that is penalized
};

struct SampledRow {
  int64_t mass;                      // of all tokens at temperature 1; with num_top > 0
  float highest;                     // logit
  float logit;                       // of the token
  int32_t token;                     // -1: no logit is finite, and nothing else is set
  int32_t top_tokens[kMaxLogprobs];  // num_top, likeliest first
  float top_logits[kMaxLogprobs];
};

struct SampleLaunch {
  RowsView logits;  // [rows, vocabulary]; bias and penalties are written into it
  const SampleControls* controls = nullptr;  // [rows]
  const TokenFact* facts = nullptr;
  SampledRow* results = nullptr;  // [rows]
};
void LaunchSample(const SampleLaunch& args, void* stream);

}  // namespace sauva::cuda
