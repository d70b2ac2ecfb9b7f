#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/stage.h"
#include "worker/stage_session.h"

// A stage without arithmetic for tests: hidden states carry the token and count the stages
// they went through; the next token is a hash of all tokens before it. A lost or doubled
// message thus changes what is generated or is refused.
namespace sauva {

inline constexpr int kFakeHiddenSize = 3;
inline constexpr int kFakeVocabSize = 97;
inline constexpr int kFakeMaxContext = 128;
inline constexpr TokenId kFakeEos = 0;

inline ModelFacts FakeFacts() {
  return {.vocab_size = kFakeVocabSize,
          .hidden_size = kFakeHiddenSize,
          .max_context = kFakeMaxContext,
          .eos_tokens = {kFakeEos}};
}

// Never the end of sequence: tests that want one put it among the prompts' eos_tokens.
inline TokenId FakeNextToken(std::span<const TokenId> known, uint64_t seed) {
  uint64_t hash = seed + 1469598103934665603u;
  for (const TokenId token : known) {
    hash = (hash ^ static_cast<uint64_t>(token)) * 1099511628211u;
  }
  return 1 + static_cast<TokenId>((hash >> 17) % (kFakeVocabSize - 1));
}

// What a pipeline must answer, whatever happens to it on the way.
inline std::vector<TokenId> FakeCompletion(std::vector<TokenId> prompt, int num_tokens,
                                           uint64_t seed) {
  const size_t start = prompt.size();
  for (int i = 0; i < num_tokens; ++i) prompt.push_back(FakeNextToken(prompt, seed));
  return {prompt.begin() + static_cast<long>(start), prompt.end()};
}

class FakeEngine {
 public:
  void Start(const StageAssignment& assignment) {
    assignment_ = assignment;
    sequences_.clear();
  }

  void Open(const OpenSequence& open) { sequences_[open.id] = open; }
  void Close(const CloseSequence& close) { sequences_.erase(close.id); }

  StepComputed Run(const ComputeStep& work) {
    const StepHeader& header = work.header;
    StepComputed done{.epoch = header.epoch, .step_id = header.step_id, .compute_seconds = 0.001};
    size_t row = 0;
    for (const SequenceStep& step : header.sequences) {
      const auto found = sequences_.find(step.id);
      if (found == sequences_.end()) return Refuse(done, absl::StrCat("no sequence ", step.id));
      std::vector<TokenId>& known = found->second.tokens;
      const auto first = static_cast<size_t>(step.first_position);
      if (first > known.size()) return Refuse(done, "a gap in positions");
      known.resize(std::max(known.size(), first + step.tokens.size()));
      std::copy(step.tokens.begin(), step.tokens.end(), known.begin() + static_cast<long>(first));
      for (const TokenId token : step.tokens) {
        const float expected = static_cast<float>(token) + 1000.0f * stage();
        for (int i = 0; i < kFakeHiddenSize; ++i, ++row) {
          if (stage() > 0 && work.hidden[row] != expected) {
            return Refuse(done, absl::StrCat("hidden value ", work.hidden[row], " where ", expected,
                                             " was due"));
          }
          if (!assignment_.is_last()) done.hidden.push_back(expected + 1000.0f);
        }
      }
      if (step.want == StepWant::kSample && assignment_.is_last()) {
        done.sampled.push_back(Sample(found->second, first + step.tokens.size()));
      }
    }
    return done;
  }

  size_t num_sequences() const { return sequences_.size(); }

 private:
  float stage() const { return static_cast<float>(assignment_.stage_index); }

  static StepComputed Refuse(StepComputed done, const std::string& reason) {
    done.status = absl::InvalidArgumentError(reason);
    return done;
  }

  static SampledToken Sample(const OpenSequence& sequence, size_t num_known) {
    const TokenId token = FakeNextToken(std::span(sequence.tokens).first(num_known), sequence.seed);
    SampledToken sampled{.id = sequence.id, .token = token};
    if (sequence.sampling.logprobs > 0) sampled.logprobs = {{.chosen = {token, -0.5f}}};
    return sampled;
  }

  StageAssignment assignment_;
  std::map<SequenceId, OpenSequence> sequences_;
};

}  // namespace sauva
