#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/formats.h"
#include "kernels/backend.h"
#include "kernels/backend_scratch.h"
#include "model/checkpoint.h"
#include "model/spec.h"
#include "proto/control.h"
#include "proto/stage.h"

namespace sauva {

struct StageOptions {
  LayerRange layers;
  bool first = true;  // gathers embeddings
  bool last = true;   // final norm, head, sampling
  LoadFormat weight_format = LoadFormat::kStored;
  DType kv_type = DType::kF32;
  int max_context = 0;  // tokens; 0: the model's
  int max_step_tokens = 256;
  int max_sequences = 64;
};

// What a computed step leaves: hidden states for the next stage, or sampled tokens.
struct StageOutput {
  std::vector<float> hidden;          // [tokens, hidden_size] unless last; capacity is kept
  std::vector<SampledToken> sampled;  // last stage: one per sequence that wanted a sample
};

// Layers [first, last) of a model, ready to compute steps. Owns weights, KV cache, scratch
// and what it was told of each sequence.
// Thread: Load on any thread; afterwards all calls on the one step thread.
class Stage {
 public:
  // Reads only the tensors of its own layers (and embedding or head where it has them).
  // `progress` is told the layers loaded so far and may be empty.
  // Errors: INVALID_ARGUMENT or NOT_FOUND naming the tensor, what was expected and found.
  static absl::StatusOr<std::unique_ptr<Stage>> Load(Backend& backend, const ModelSpec& spec,
                                                     const Checkpoint& checkpoint,
                                                     const StageOptions& options,
                                                     std::function<void(int)> progress);
  virtual ~Stage() = default;

  virtual int64_t weight_bytes() const = 0;
  // Of activations and of what a host backend keeps for its ops.
  virtual int64_t scratch_bytes() const = 0;
  // Bytes of KV cache one block takes over this stage's layers.
  virtual int64_t kv_block_bytes() const = 0;
  // Reserves the pool in the place of the one before and forgets every sequence; weights
  // stay. Before the first step. Errors: RESOURCE_EXHAUSTED; no steps run then.
  virtual absl::Status AllocateKv(int num_blocks) = 0;

  // Errors: INVALID_ARGUMENT for what a correct head never sends (names the field).
  virtual absl::Status Open(const OpenSequence& sequence) = 0;
  virtual void Close(SequenceId id) = 0;

  // Computes one step. `hidden` is [tokens, hidden_size] from the stage before, empty on
  // the first. Steady-state steps allocate no heap memory.
  // Errors: INVALID_ARGUMENT for a header that contradicts what is known (unknown
  // sequence, a gap in positions, block ids out of range, too many tokens).
  virtual absl::Status RunStep(const StepHeader& header, std::span<const float> hidden,
                               StageOutput& output) = 0;
};

// Bytes a stage takes for weights, before anything is loaded: placement and plan use it.
int64_t EstimateLayerBytes(const ModelSpec& spec, const Checkpoint& checkpoint, int layer,
                           LoadFormat format);
int64_t EstimateEmbeddingBytes(const ModelSpec& spec, const Checkpoint& checkpoint);
int64_t EstimateHeadBytes(const ModelSpec& spec, const Checkpoint& checkpoint, LoadFormat format);

// The largest steps of a stage with these options, whose max_context is set.
StepLimits StepLimitsOf(const ModelSpec& spec, const StageOptions& options);
// What a backend keeps for any stage of the model under these options, whose layers are not
// looked at.
BackendScratch EstimateBackendScratch(const ModelSpec& spec, const StageOptions& options);

}  // namespace sauva
