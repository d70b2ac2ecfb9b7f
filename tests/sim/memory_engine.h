#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "proto/generation.h"
#include "proto/stage.h"
#include "tests/sim/timeline.h"
#include "worker/stage_session.h"

// A model whose arithmetic is remembering. Layer l turns the state x[p] of position p into
// a hash of itself and of what all positions up to p wrote into this layer's KV cache;
// writing stores a hash of the state. The next token is a hash of the last layer's state.
// Whatever is lost, stale, doubled or shared wrongly in a KV block changes every later
// token, as it would with attention.
namespace sauva::sim {

inline constexpr int kLayers = 6;
inline constexpr int kVocabSize = 500;
inline constexpr int kMaxContext = 96;  // tokens
inline constexpr int kStateFloats = 4;  // a 64-bit state as numbers of 16 bits
inline constexpr TokenId kEos = 0;

// What the completion of a prompt must be, computed without blocks, stages or batches.
struct Oracle {
  std::vector<TokenId> tokens;
  FinishReason finish = FinishReason::kNone;
};
Oracle OracleOf(const std::vector<TokenId>& prompt, const SamplingParams& sampling,
                uint32_t sample_index);

// Layers [first, last) of that model over a paged KV cache.
class MemoryEngine {
 public:
  // A fresh pool is full of garbage.
  void Start(const StageAssignment& assignment, int num_kv_blocks, uint64_t garbage_seed);
  void Open(const OpenSequence& sequence);
  void Close(SequenceId id) { sequences_.erase(id); }
  StepComputed Run(const ComputeStep& work);

  size_t num_sequences() const { return sequences_.size(); }

 private:
  struct Sequence {
    OpenSequence open;
    std::vector<BlockId> blocks;
    int num_computed = 0;
  };

  absl::Status RunSequence(const SequenceStep& step, std::vector<uint64_t>& states);
  absl::Status Extend(const SequenceStep& step, Sequence& sequence);
  uint64_t& Slot(int layer, const Sequence& sequence, int position);

  StageAssignment assignment_;
  int num_blocks_ = 0;
  std::vector<std::vector<uint64_t>> cache_;  // [layer, slot]
  std::map<SequenceId, Sequence> sequences_;
};

}  // namespace sauva::sim
