#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "kernels/math.h"
#include "kernels/sampling.h"

namespace sauva {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

float& LogitOf(std::span<float> logits, int32_t token) {
  Check(token >= 0 && token < static_cast<int64_t>(logits.size()),
        "sampling names tokens of the vocabulary");
  return logits[static_cast<size_t>(token)];
}

// The order of all choices: higher logit first, then lower token id. Total, because no
// logit is NaN any more.
struct Likelier {
  std::span<const float> logits;
  bool operator()(int32_t a, int32_t b) const {
    const float x = logits[static_cast<size_t>(a)];
    const float y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  }
};

bool HasPenalties(const SampleRow& row) {
  return row.repetition_penalty != 1 || row.presence_penalty != 0 || row.frequency_penalty != 0;
}

// Source: Keskar et al. 2019, section 4.1, with logits of both signs as transformers does.
void PenalizeRepetition(std::span<float> logits, const SampleRow& row, SampleScratch& scratch) {
  if (row.repetition_penalty == 1) return;
  for (const int32_t token : row.tokens) {
    float& logit = LogitOf(logits, token);
    int32_t& seen = scratch.counts[static_cast<size_t>(token)];
    if (seen++ > 0) continue;
    logit = logit > 0 ? logit / row.repetition_penalty : logit * row.repetition_penalty;
  }
  for (const int32_t token : row.tokens) scratch.counts[static_cast<size_t>(token)] = 0;
}

void PenalizeCompletion(std::span<float> logits, const SampleRow& row, SampleScratch& scratch) {
  if (row.presence_penalty == 0 && row.frequency_penalty == 0) return;
  Check(
      row.num_prompt_tokens >= 0 && static_cast<size_t>(row.num_prompt_tokens) <= row.tokens.size(),
      "the prompt is among the known tokens");
  const auto completion = row.tokens.subspan(static_cast<size_t>(row.num_prompt_tokens));
  for (const int32_t token : completion) {
    LogitOf(logits, token);
    ++scratch.counts[static_cast<size_t>(token)];
  }
  for (const int32_t token : completion) {
    int32_t& count = scratch.counts[static_cast<size_t>(token)];
    if (count == 0) continue;
    float& logit = LogitOf(logits, token);
    logit -= row.presence_penalty;
    logit -= row.frequency_penalty * static_cast<float>(count);
    count = 0;
  }
}

// Bias and penalties; afterwards each logit is finite or -infinity, which is never drawn.
void AdjustLogits(std::span<float> logits, const SampleRow& row, SampleScratch& scratch) {
  for (const TokenBias& bias : row.logit_bias) LogitOf(logits, bias.token) += bias.bias;
  PenalizeRepetition(logits, row, scratch);
  PenalizeCompletion(logits, row, scratch);
  for (float& logit : logits) {
    if (!std::isfinite(logit)) logit = kNever;
  }
}

// The likeliest token, or -1 when no logit is finite. Reads logits as they come.
int32_t Likeliest(std::span<const float> logits) {
  int32_t best = -1;
  float best_logit = kNever;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > best_logit && logits[i] < -kNever) {
      best_logit = logits[i];
      best = static_cast<int32_t>(i);
    }
  }
  return best;
}

// Moves the `count` likeliest of the candidates to their front, in no order.
void MoveLikeliestToFront(std::span<int32_t> candidates, size_t count, const Likelier& likelier) {
  if (count >= candidates.size()) return;
  std::nth_element(candidates.begin(), candidates.begin() + static_cast<int64_t>(count),
                   candidates.end(), likelier);
}

double Mass(std::span<const int32_t> candidates, const SampleScratch& scratch) {
  double mass = 0;
  for (const int32_t token : candidates) mass += scratch.probability[static_cast<size_t>(token)];
  return mass;
}

// The shortest prefix of the candidates, likeliest first, whose mass reaches `top_p` of
// all; at least one. Sorts no more of them than it must.
std::span<int32_t> KeepNucleus(std::span<int32_t> candidates, float top_p, const Likelier& likelier,
                               const SampleScratch& scratch) {
  const double wanted = static_cast<double>(top_p) * Mass(candidates, scratch);
  double mass = 0;
  size_t sorted = 0;
  for (size_t chunk = 64; sorted < candidates.size(); chunk *= 4) {
    const std::span<int32_t> rest = candidates.subspan(sorted);
    const size_t count = std::min(chunk, rest.size());
    MoveLikeliestToFront(rest, count, likelier);
    std::sort(rest.begin(), rest.begin() + static_cast<int64_t>(count), likelier);
    for (size_t i = 0; i < count; ++i) {
      mass += scratch.probability[static_cast<size_t>(rest[i])];
      if (mass >= wanted) return candidates.first(sorted + i + 1);
    }
    sorted += count;
  }
  return candidates;
}

int32_t DrawFrom(std::span<const int32_t> candidates, const SampleRow& row,
                 const SampleScratch& scratch) {
  const double uniform = PhiloxUniform(row.seed, row.sample_index, row.position);
  const double target = uniform * Mass(candidates, scratch);
  double mass = 0;
  int32_t last = candidates.front();
  for (const int32_t token : candidates) {
    const float probability = scratch.probability[static_cast<size_t>(token)];
    if (probability == 0) continue;
    mass += probability;
    last = token;
    if (mass > target) return token;
  }
  return last;
}

// Temperature, top-k, top-p, min-p, draw. Sums run over tokens in order of their ids.
int32_t Draw(std::span<const float> logits, int32_t best, const SampleRow& row,
             SampleScratch& scratch) {
  const Likelier likelier{logits};
  std::span<int32_t> candidates(scratch.order.data(), logits.size());
  std::iota(candidates.begin(), candidates.end(), 0);
  if (row.top_k > 0 && static_cast<size_t>(row.top_k) < candidates.size()) {
    const auto count = static_cast<size_t>(row.top_k);
    MoveLikeliestToFront(candidates, count, likelier);
    candidates = candidates.first(count);
    std::sort(candidates.begin(), candidates.end());
  }
  const float highest = logits[static_cast<size_t>(best)];
  for (const int32_t token : candidates) {
    scratch.probability[static_cast<size_t>(token)] =
        Exp((logits[static_cast<size_t>(token)] - highest) / row.temperature);
  }
  if (row.top_p < 1) {
    candidates = KeepNucleus(candidates, row.top_p, likelier, scratch);
    std::sort(candidates.begin(), candidates.end());
  }
  if (row.min_p > 0) {  // the likeliest token has 1 here
    for (const int32_t token : candidates) {
      float& probability = scratch.probability[static_cast<size_t>(token)];
      if (probability < row.min_p && token != best) probability = 0;
    }
  }
  return DrawFrom(candidates, row, scratch);
}

// log(sum exp(logit)), summed in order of token ids.
double LogNormalizer(std::span<const float> logits, float highest) {
  double sum = 0;
  for (const float logit : logits) sum += Exp(logit - highest);
  return static_cast<double>(highest) + Log(sum);
}

void ReportLogprobs(std::span<const float> logits, int32_t best, const SampleRow& row,
                    SampleScratch& scratch, SampleResult& result) {
  const double normalizer = LogNormalizer(logits, logits[static_cast<size_t>(best)]);
  const auto logprob = [&](int32_t token) {
    return static_cast<float>(logits[static_cast<size_t>(token)] - normalizer);
  };
  result.logprob = logprob(result.token);
  const size_t count =
      std::min({static_cast<size_t>(row.num_logprobs), size_t{kMaxLogprobs}, logits.size()});
  std::span<int32_t> candidates(scratch.order.data(), logits.size());
  std::iota(candidates.begin(), candidates.end(), 0);
  const Likelier likelier{logits};
  MoveLikeliestToFront(candidates, count, likelier);
  std::sort(candidates.begin(), candidates.begin() + static_cast<int64_t>(count), likelier);
  for (size_t i = 0; i < count; ++i) result.top.push_back({candidates[i], logprob(candidates[i])});
}

}  // namespace

SampleScratch::SampleScratch(int vocab_size)
    : order(static_cast<size_t>(vocab_size)),
      probability(static_cast<size_t>(vocab_size)),
      counts(static_cast<size_t>(vocab_size)) {}

void SampleOne(std::span<float> logits, const SampleRow& row, SampleScratch& scratch,
               SampleResult& result) {
  Check(logits.size() <= scratch.order.size(), "the scratch is for this vocabulary");
  const bool greedy = !(row.temperature > 0);
  const bool as_they_come =
      greedy && !HasPenalties(row) && row.logit_bias.empty() && row.num_logprobs <= 0;
  result.logprob = 0;
  result.top.clear();
  if (!as_they_come) AdjustLogits(logits, row, scratch);
  const int32_t best = Likeliest(logits);
  if (best < 0) {
    result.token = 0;
    return;
  }
  result.token = greedy ? best : Draw(logits, best, row, scratch);
  if (row.num_logprobs > 0) ReportLogprobs(logits, best, row, scratch, result);
}

}  // namespace sauva
