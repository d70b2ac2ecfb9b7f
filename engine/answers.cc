#include "engine/answers.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "engine/block.h"

namespace sauva {
namespace {

SampleRow RowOf(const StageSequence& sequence) {
  const SamplingParams& sampling = sequence.sampling;
  return {.temperature = sampling.temperature,
          .top_k = sampling.top_k,
          .top_p = sampling.top_p,
          .min_p = sampling.min_p,
          .repetition_penalty = sampling.repetition_penalty,
          .presence_penalty = sampling.presence_penalty,
          .frequency_penalty = sampling.frequency_penalty,
          .logit_bias = sequence.logit_bias,
          .tokens = sequence.tokens,
          .num_prompt_tokens = sequence.num_prompt_tokens,
          .seed = sequence.seed,
          .sample_index = sequence.sample_index,
          .position = sequence.tokens.size(),
          .num_logprobs = sampling.logprobs};
}

void CopyLogprobs(const SampleResult& result, int num_logprobs, SampledToken& sampled) {
  sampled.logprobs.resize(num_logprobs > 0 ? 1 : 0);
  if (num_logprobs == 0) return;
  TokenLogprobs& logprobs = sampled.logprobs[0];
  logprobs.chosen = {.token = result.token, .logprob = result.logprob};
  logprobs.top.clear();
  for (const TokenScore& score : result.top) {
    logprobs.top.push_back({.token = score.token, .logprob = score.logprob});
  }
}

// Natural log-probability of `token`; in double, as a perplexity sums many.
float LogProbability(std::span<const float> logits, TokenId token) {
  const float highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - highest);
  const double chosen = logits[static_cast<size_t>(token)];
  return static_cast<float>(chosen - highest - std::log(sum));
}

}  // namespace

Answers::Answers(Backend& backend, const NormSpec& final_norm, const StageWeights& weights,
                 const Scratch& scratch)
    : backend_(backend), final_norm_(final_norm), weights_(weights), scratch_(scratch) {
  const auto sequences = static_cast<size_t>(scratch.selected.rows);
  rows_.reserve(sequences);
  results_.resize(sequences);
  for (SampleResult& result : results_) result.top.reserve(kMaxLogprobs);
}

void Answers::Compute(const StepHeader& header, const StepArrays& arrays,
                      const StageSequences& sequences, Rows x, std::vector<SampledToken>& sampled) {
  Sample(header, sequences);
  size_t count = 0;
  size_t next_result = 0;
  for (size_t i = 0; i < header.sequences.size(); ++i) {
    const SequenceStep& step = header.sequences[i];
    if (step.want == StepWant::kNone) continue;
    if (count == sampled.size()) sampled.emplace_back();
    SampledToken& answer = sampled[count++];
    answer.id = step.id;
    answer.token = 0;
    answer.scores.clear();
    const StageSequence& sequence = sequences.Get(step.id);
    if (step.want == StepWant::kSample) {
      const SampleResult& result = results_[next_result++];
      answer.token = result.token;
      CopyLogprobs(result, sequence.sampling.logprobs, answer);
      continue;
    }
    answer.logprobs.clear();
    const int first = arrays.first_row(i);
    const Rows rows = {x.row(first), arrays.first_row(i + 1) - first, x.columns, x.stride};
    Score(step, sequence, rows, answer.scores);
  }
  sampled.resize(count);
}

void Answers::Sample(const StepHeader& header, const StageSequences& sequences) {
  rows_.clear();
  for (const SequenceStep& step : header.sequences) {
    if (step.want == StepWant::kSample) rows_.push_back(RowOf(sequences.Get(step.id)));
  }
  if (rows_.empty()) return;
  const int count = static_cast<int>(rows_.size());
  backend_.RunPart(StepPart::kHead, count, [this](int rows) {
    const Rows selected = scratch_.selected.First(rows);
    backend_.SelectSampledRows(scratch_.hidden, selected);
    NormalizeRows(backend_, final_norm_, weights_.final_norm(), selected, selected);
    Logits(selected);
  });
  backend_.Sample(scratch_.logits.First(count), rows_, std::span(results_).first(rows_.size()));
}

// Log-probabilities of the known tokens that follow the step's; x are its rows.
void Answers::Score(const SequenceStep& step, const StageSequence& sequence, Rows x,
                    std::vector<float>& scores) {
  logits_.resize(static_cast<size_t>(scratch_.logits.columns));
  const int known = static_cast<int>(sequence.tokens.size());
  const int count = std::min(x.rows, known - 1 - step.first_position);
  for (int first = 0; first < count; first += scratch_.selected.rows) {
    const int rows = std::min(count - first, scratch_.selected.rows);
    const Rows selected = scratch_.selected.First(rows);
    NormalizeRows(backend_, final_norm_, weights_.final_norm(),
                  {x.row(first), rows, x.columns, x.stride}, selected);
    const Rows logits = Logits(selected);
    for (int i = 0; i < rows; ++i) {
      backend_.CopyToHost({logits.row(i), 1, logits.columns, logits.stride}, logits_.data());
      const auto next = static_cast<size_t>(step.first_position + first + i + 1);
      scores.push_back(LogProbability(logits_, sequence.tokens[next]));
    }
  }
}

Rows Answers::Logits(Rows selected) {
  const Rows logits = scratch_.logits.First(selected.rows);
  backend_.MatMul({.weight = &weights_.head(), .x = selected, .bias = {}, .out = logits});
  return logits;
}

}  // namespace sauva
