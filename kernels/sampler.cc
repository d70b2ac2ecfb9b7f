#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "kernels/math.h"
#include "kernels/numerics.h"
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

float WeightOf(float logit, float highest, float temperature) {
  return Exp((logit - highest) / temperature);
}

// 0 for a weight that is NaN.
int64_t MassOf(float weight) { return weight > 0 ? static_cast<int64_t>(weight * kMassOfOne) : 0; }

void WeighPlainly(const float* logits, float highest, float temperature, int64_t count,
                  float* weights) {
  for (int64_t i = 0; i < count; ++i) weights[i] = WeightOf(logits[i], highest, temperature);
}

// One row being sampled: its logits, how they rank, and the tokens still in play.
struct Draft {
  std::span<const float> logits;
  float highest = 0;
  float temperature = 1;
  SampleScratch& scratch;

  float weight(int32_t token) const { return scratch.probability[static_cast<size_t>(token)]; }
  int64_t mass(int32_t token) const { return MassOf(weight(token)); }
  Likelier likelier() const { return {logits}; }

  // Levels divide the logits below the highest; a token of a lower level is likelier. They
  // find the part of the vocabulary in which a cut falls without sorting the rest.
  static constexpr int kLevels = 1025;
  int Level(int32_t token) const {
    constexpr float kLevelsPerUnit = 16;
    const float gap = (highest - logits[static_cast<size_t>(token)]) / temperature;
    constexpr float kLowest = (kLevels - 1) / kLevelsPerUnit;
    return gap < kLowest ? static_cast<int>(gap * kLevelsPerUnit) : kLevels - 1;
  }
};

// Weighs every token of the vocabulary.
void WeighAll(const Draft& draft) {
  draft.scratch.weigh(draft.logits.data(), draft.highest, draft.temperature,
                      static_cast<int64_t>(draft.logits.size()), draft.scratch.probability.data());
}

std::span<int32_t> AllTokens(const Draft& draft) {
  const std::span<int32_t> tokens(draft.scratch.order.data(), draft.logits.size());
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

// The last token of the shortest prefix of `tokens`, likeliest first, whose masses and
// `before` reach `wanted`, as all of them do.
template <class M>
int32_t LastOfPrefix(const Draft& draft, std::span<int32_t> tokens, int64_t before, int64_t wanted,
                     const M& mass_of) {
  int64_t sum = before;
  size_t sorted = 0;
  for (size_t chunk = 64; sorted < tokens.size(); chunk *= 4) {
    const auto rest = tokens.subspan(sorted);
    const size_t count = std::min(chunk, rest.size());
    const auto middle = rest.begin() + static_cast<int64_t>(count);
    if (count < rest.size()) std::nth_element(rest.begin(), middle, rest.end(), draft.likelier());
    std::sort(rest.begin(), middle, draft.likelier());
    for (const int32_t token : rest.first(count)) {
      sum += mass_of(token);
      if (sum >= wanted) return token;
    }
    sorted += count;
  }
  Check(false, "the masses reach what is wanted of them");
  return 0;
}

// Keeps of `tokens`, which ascend, the shortest prefix by rank whose masses reach `wanted`,
// which is above 0 and not above all of them. The kept ascend again.
template <class M>
std::span<int32_t> KeepPrefix(const Draft& draft, std::span<int32_t> tokens, int64_t wanted,
                              const M& mass_of) {
  int64_t sums[Draft::kLevels] = {};
  for (const int32_t token : tokens) sums[draft.Level(token)] += mass_of(token);
  int level = 0;
  int64_t before = 0;
  while (level < Draft::kLevels - 1 && before + sums[level] < wanted) before += sums[level++];
  const std::span<int32_t> at_level = draft.scratch.level_tokens;
  size_t count = 0;
  for (const int32_t token : tokens) {
    if (draft.Level(token) == level) at_level[count++] = token;
  }
  const int32_t last = LastOfPrefix(draft, at_level.first(count), before, wanted, mass_of);
  const auto after_last = [&](int32_t token) { return draft.likelier()(last, token); };
  const auto end = std::remove_if(tokens.begin(), tokens.end(), after_last);
  return tokens.first(static_cast<size_t>(end - tokens.begin()));
}

std::span<int32_t> KeepLikeliest(const Draft& draft, std::span<int32_t> tokens, size_t count) {
  if (count >= tokens.size()) return tokens;
  return KeepPrefix(draft, tokens, static_cast<int64_t>(count), [](int32_t) { return int64_t{1}; });
}

int64_t Mass(const Draft& draft, std::span<const int32_t> tokens) {
  int64_t mass = 0;
  for (const int32_t token : tokens) mass += draft.mass(token);
  return mass;
}

std::span<int32_t> KeepNucleus(const Draft& draft, std::span<int32_t> tokens, float top_p) {
  const double share = top_p > 0 ? static_cast<double>(top_p) : 0;
  const auto wanted = static_cast<int64_t>(share * static_cast<double>(Mass(draft, tokens)));
  return KeepPrefix(draft, tokens, std::max<int64_t>(wanted, 1),
                    [&](int32_t token) { return draft.mass(token); });
}

int32_t DrawFrom(const Draft& draft, std::span<const int32_t> tokens, const SampleRow& row) {
  const float uniform = PhiloxUniform(row.seed, row.sample_index, row.position);
  const int64_t target = DrawTarget(Mass(draft, tokens), uniform);
  int64_t mass = 0;
  for (const int32_t token : tokens) {
    mass += draft.mass(token);
    if (mass > target) return token;
  }
  Check(false, "what is drawn is less than all masses together");
  return 0;
}

// Temperature, top-k, top-p, min-p, draw. Sums run over tokens in order of their ids.
int32_t Draw(std::span<const float> logits, int32_t best, const SampleRow& row,
             SampleScratch& scratch) {
  const Draft draft{logits, logits[static_cast<size_t>(best)], row.temperature, scratch};
  std::span<int32_t> tokens = AllTokens(draft);
  if (row.top_k > 0 && static_cast<size_t>(row.top_k) < tokens.size()) {
    tokens = KeepLikeliest(draft, tokens, static_cast<size_t>(row.top_k));
    for (const int32_t token : tokens) {
      const auto i = static_cast<size_t>(token);
      scratch.probability[i] = WeightOf(logits[i], draft.highest, row.temperature);
    }
  } else {
    WeighAll(draft);
  }
  if (row.top_p < 1) tokens = KeepNucleus(draft, tokens, row.top_p);
  if (row.min_p > 0) {  // the likeliest token has weight 1
    for (const int32_t token : tokens) {
      float& weight = scratch.probability[static_cast<size_t>(token)];
      if (weight < row.min_p && token != best) weight = 0;
    }
  }
  return DrawFrom(draft, tokens, row);
}

void ReportLogprobs(std::span<const float> logits, int32_t best, const SampleRow& row,
                    SampleScratch& scratch, SampleResult& result) {
  const Draft draft{logits, logits[static_cast<size_t>(best)], 1, scratch};
  WeighAll(draft);
  std::span<int32_t> tokens = AllTokens(draft);
  const double normalizer = LogNormalizer(draft.highest, Mass(draft, tokens));
  const auto logprob = [&](int32_t token) {
    return static_cast<float>(logits[static_cast<size_t>(token)] - normalizer);
  };
  result.logprob = logprob(result.token);
  const int count = std::min(row.num_logprobs, kMaxLogprobs);
  tokens = KeepLikeliest(draft, tokens, static_cast<size_t>(count));
  std::sort(tokens.begin(), tokens.end(), draft.likelier());
  for (const int32_t token : tokens) result.top.push_back({token, logprob(token)});
}

}  // namespace

SampleScratch::SampleScratch(int vocab_size)
    : order(static_cast<size_t>(vocab_size)),
      probability(static_cast<size_t>(vocab_size)),
      level_tokens(static_cast<size_t>(vocab_size)),
      counts(static_cast<size_t>(vocab_size)),
      weigh(WeighPlainly) {
  Check(vocab_size <= kMostTokens, "the masses of a vocabulary add up in 63 bits");
}

int64_t DrawTarget(int64_t mass, float uniform) {
  constexpr int kBits = 24;
  constexpr int64_t kLowBits = (int64_t{1} << kBits) - 1;
  const auto bits = static_cast<int64_t>(uniform * 0x1p24f);
  return (mass >> kBits) * bits + (((mass & kLowBits) * bits) >> kBits);
}

double LogNormalizer(float highest, int64_t mass) {
  return static_cast<double>(highest) + Log(static_cast<double>(mass) / double{kMassOfOne});
}

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
