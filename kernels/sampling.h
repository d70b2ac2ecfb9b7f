#pragma once

#include <cstdint>
#include <span>
#include <vector>

// How one token is drawn from one row of logits. The controls apply in this order:
// logit bias; repetition, presence and frequency penalties; (log-probabilities are taken
// here); temperature; top-k; top-p; min-p; draw. Equal logits are ordered by token id.
// The random number is Philox4x32-10 of (seed, sample index, position). A logit that is not
// finite is never drawn. Tokens named here must be of the vocabulary.
namespace sauva {

struct TokenBias {
  int32_t token = 0;
  float bias = 0;
};

struct SampleRow {
  float temperature = 1;  // 0: the likeliest token
  int top_k = 0;          // 0: all
  float top_p = 1;        // 1: off
  float min_p = 0;        // 0: off
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  std::span<const TokenBias> logit_bias;  // kMaxTokenBiases at most; of one token they add up
  std::span<const int32_t> tokens;        // all known: prompt, then completion
  int num_prompt_tokens = 0;
  uint64_t seed = 0;
  uint32_t sample_index = 0;
  uint64_t position = 0;  // of the token to be drawn in its sequence
  int num_logprobs = 0;   // alternatives wanted; 0: none
};

struct TokenScore {
  int32_t token = 0;
  float logprob = 0;
};

struct SampleResult {
  int32_t token = 0;
  float logprob = 0;            // set when num_logprobs > 0
  std::vector<TokenScore> top;  // num_logprobs entries; capacity reserved by the caller
};

inline constexpr int kMaxLogprobs = 20;
inline constexpr int kMaxTokenBiases = 1024;

// uniform * mass, rounded down; below `mass` where that is above 0. The token drawn is the
// first by id at which the masses of the tokens so far are larger. `uniform` has 24 bits.
int64_t DrawTarget(int64_t mass, float uniform);

// What is subtracted from a logit to give its log-probability: `mass` is that of the whole
// vocabulary at temperature 1, in the units of kernels/numerics.h.
double LogNormalizer(float highest, int64_t mass);

// A uniform number in [0, 1) with 24 random bits: the upper bits of the first output word.
// The key is the seed; the counter is (position low, position high, sample index, 0).
// Source: Salmon et al. 2011, Philox4x32-10.
float PhiloxUniform(uint64_t seed, uint32_t sample_index, uint64_t position);

// Working memory of SampleOne, allocated once per vocabulary.
struct SampleScratch {
  explicit SampleScratch(int vocab_size);
  std::vector<int32_t> order;         // [vocab_size]
  std::vector<float> probability;     // [vocab_size]
  std::vector<int32_t> level_tokens;  // [vocab_size]
  std::vector<int32_t> counts;        // [vocab_size], zero between calls
  int64_t size_bytes() const {
    return static_cast<int64_t>(4 * order.capacity() + 4 * probability.capacity() +
                                4 * level_tokens.capacity() + 4 * counts.capacity());
  }
  // weights[i] = e^((logits[i] - highest) / temperature), i < count: a plain loop, which a
  // backend may replace by one of equal bits.
  void (*weigh)(const float* logits, float highest, float temperature, int64_t count,
                float* weights);
};

// Draws one token from logits [vocab_size], which it overwrites. The same function serves
// every host backend, so that they agree bit for bit.
// A row without any finite logit yields token 0.
void SampleOne(std::span<float> logits, const SampleRow& row, SampleScratch& scratch,
               SampleResult& result);

}  // namespace sauva
