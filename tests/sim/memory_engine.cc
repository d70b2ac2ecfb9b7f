#include "tests/sim/memory_engine.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace sauva::sim {
namespace {

uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t z = (a ^ (b * 0x9e3779b97f4a7c15u)) + 0x632be59bd9b4e019u;
  z = (z ^ (z >> 29)) * 0xbf58476d1ce4e5b9u;
  return z ^ (z >> 32);
}

uint64_t Embed(TokenId token, int position) {
  return Mix(static_cast<uint64_t>(token) + 1, static_cast<uint64_t>(position) + 7);
}
uint64_t Key(uint64_t state, int layer) { return Mix(state, static_cast<uint64_t>(layer) + 100); }

TokenId NextToken(uint64_t state, uint64_t seed, uint32_t sample_index) {
  const uint64_t hash = Mix(Mix(state, seed), sample_index);
  // The end of text comes now and then.
  return hash % 97 == 0 ? kEos : 1 + static_cast<TokenId>(hash % (kVocabSize - 1));
}

}  // namespace

Oracle OracleOf(const std::vector<TokenId>& prompt, const SamplingParams& sampling,
                uint32_t sample_index) {
  Oracle oracle;
  std::vector<TokenId> known = prompt;
  std::vector<uint64_t> sums(kLayers, 0);  // of what each layer's cache holds, in order
  for (size_t p = 0;; ++p) {
    uint64_t state = Embed(known[p], static_cast<int>(p));
    for (int layer = 0; layer < kLayers; ++layer) {
      sums[layer] = Mix(sums[layer], Key(state, layer));
      state = Mix(state, sums[layer]);
    }
    if (p + 1 < known.size()) continue;
    const TokenId token = NextToken(state, *sampling.seed, sample_index);
    known.push_back(token);
    oracle.tokens.push_back(token);
    if (!sampling.ignore_eos && token == kEos) {
      oracle.finish = FinishReason::kStop;
    } else if (static_cast<int>(oracle.tokens.size()) == sampling.max_tokens ||
               known.size() == kMaxContext) {
      oracle.finish = FinishReason::kLength;
    }
    if (oracle.finish != FinishReason::kNone) return oracle;
  }
}

void MemoryEngine::Start(const StageAssignment& assignment, int num_kv_blocks,
                         uint64_t garbage_seed) {
  assignment_ = assignment;
  num_blocks_ = num_kv_blocks;
  sequences_.clear();
  cache_.assign(assignment.layers().size(), {});
  for (std::vector<uint64_t>& layer : cache_) {
    layer.resize(static_cast<size_t>(num_kv_blocks) * kKvBlockTokens);
    for (uint64_t& slot : layer) slot = garbage_seed = Mix(garbage_seed, 1);
  }
}

void MemoryEngine::Open(const OpenSequence& sequence) {
  sequences_[sequence.id] = {.open = sequence};
}

uint64_t& MemoryEngine::Slot(int layer, const Sequence& sequence, int position) {
  const BlockId block = sequence.blocks[position / kKvBlockTokens];
  return cache_[layer - assignment_.layers().first]
               [static_cast<size_t>(block) * kKvBlockTokens + position % kKvBlockTokens];
}

absl::Status MemoryEngine::Extend(const SequenceStep& step, Sequence& sequence) {
  for (const BlockDelta& delta : step.blocks) {
    for (const BlockId block : delta.appended) {
      if (block < 0 || block >= num_blocks_) {
        return absl::InvalidArgumentError(absl::StrCat("no block ", block));
      }
      sequence.blocks.push_back(block);
    }
  }
  const int end = step.first_position + static_cast<int>(step.tokens.size());
  if (end > static_cast<int>(sequence.blocks.size()) * kKvBlockTokens) {
    return absl::InvalidArgumentError(absl::StrCat(
        "sequence ", step.id, " has ", sequence.blocks.size(), " blocks for ", end, " tokens"));
  }
  return absl::OkStatus();
}

absl::Status MemoryEngine::RunSequence(const SequenceStep& step, std::vector<uint64_t>& states) {
  const auto found = sequences_.find(step.id);
  if (found == sequences_.end()) {
    return absl::InvalidArgumentError(absl::StrCat("no sequence ", step.id));
  }
  Sequence& sequence = found->second;
  RETURN_IF_ERROR(Extend(step, sequence));
  const LayerRange layers = assignment_.layers();
  for (size_t i = 0; i < step.tokens.size(); ++i) {
    const int position = step.first_position + static_cast<int>(i);
    for (int layer = layers.first; layer < layers.last; ++layer) {
      Slot(layer, sequence, position) = Key(states[i], layer);
      uint64_t sum = 0;
      for (int p = 0; p <= position; ++p) sum = Mix(sum, Slot(layer, sequence, p));
      states[i] = Mix(states[i], sum);
    }
  }
  return absl::OkStatus();
}

StepComputed MemoryEngine::Run(const ComputeStep& work) {
  StepComputed done{.epoch = work.header.epoch, .step_id = work.header.step_id};
  size_t row = 0;
  for (const SequenceStep& step : work.header.sequences) {
    std::vector<uint64_t> states;
    for (size_t i = 0; i < step.tokens.size(); ++i, ++row) {
      uint64_t state = 0;
      if (assignment_.is_head()) {
        state = Embed(step.tokens[i], step.first_position + static_cast<int>(i));
      } else {
        for (int f = 0; f < kStateFloats; ++f) {
          state = state << 16 | static_cast<uint64_t>(work.hidden[row * kStateFloats + f]);
        }
      }
      states.push_back(state);
    }
    if (absl::Status status = RunSequence(step, states); !status.ok()) {
      done.status = std::move(status);
      return done;
    }
    for (const uint64_t state : states) {
      for (int f = kStateFloats - 1; f >= 0 && !assignment_.is_last(); --f) {
        done.hidden.push_back(static_cast<float>(state >> (16 * f) & 0xffff));
      }
    }
    if (assignment_.is_last() && step.want == StepWant::kSample) {
      const OpenSequence& open = sequences_.at(step.id).open;
      done.sampled.push_back(
          {.id = step.id, .token = NextToken(states.back(), open.seed, open.sample_index)});
    }
  }
  return done;
}

}  // namespace sauva::sim
