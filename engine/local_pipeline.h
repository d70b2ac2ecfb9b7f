#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/scheduler.h"
#include "engine/stage.h"

namespace sauva {

struct LocalPipelineOptions {
  int num_stages = 1;
  LoadFormat weight_format = LoadFormat::kStored;
  DType kv_type = DType::kF32;
  int max_context = 0;  // tokens; 0: the model's
  int max_step_tokens = 256;
  int max_sequences = 64;
  int num_kv_blocks = 0;  // 0: one full context, and at least kLeastBlocks
  bool prefix_cache = true;

  static constexpr int kLeastBlocks = 256;
};

// A model's stages and their scheduler in this process, one step after the other on the
// caller's thread: for evaluation, tests and tools.
// Thread: one at a time.
class LocalPipeline {
 public:
  using BackendFactory = std::function<absl::StatusOr<std::unique_ptr<Backend>>()>;

  struct Completion {
    std::vector<TokenId> tokens;          // new ones; the token that ended it is the last
    std::vector<TokenLogprobs> logprobs;  // one per token when asked for
    FinishReason finish = FinishReason::kNone;
    int num_cached_tokens = 0;
  };

  // Loads the layers, cut as evenly as they go, each stage with a backend of its own.
  // Errors: those of Stage::Load and AllocateKv; INVALID_ARGUMENT for more stages than
  // layers.
  static absl::StatusOr<std::unique_ptr<LocalPipeline>> Create(const ModelSpec& spec,
                                                               const Checkpoint& checkpoint,
                                                               const BackendFactory& make_backend,
                                                               const LocalPipelineOptions& options);

  // Continues all texts together; ids are given here. Ends at max_tokens, at an eos token
  // unless ignore_eos, or at a stop token. Completions are in the order of the sequences.
  // Errors: those of Scheduler::Add; then nothing is computed.
  absl::StatusOr<std::vector<Completion>> Generate(std::vector<NewSequence> sequences);

  // Natural log-probabilities of tokens[1], tokens[2], … each given all before it.
  absl::StatusOr<std::vector<float>> Score(std::vector<TokenId> tokens);

  // Of all stages' weights, in memory.
  int64_t weight_bytes() const;
  int num_stages() const { return static_cast<int>(stages_.size()); }
  int max_context() const { return limits_.max_context; }
  const Scheduler& scheduler() const { return *scheduler_; }
  // Steps computed by each stage since it was loaded.
  uint64_t num_steps() const { return num_steps_; }

 private:
  struct LocalStage {
    std::unique_ptr<Backend> backend;
    std::unique_ptr<Stage> stage;
    StageOutput output;
  };
  // A sequence and where its results go.
  struct Request {
    SamplingParams sampling;
    size_t num_resumed = 0;
    Completion completion;
    std::vector<float> scores;
    size_t num_scores = 0;  // wanted
    bool done = false;
  };

  LocalPipeline() = default;
  absl::Status AddStage(const ModelSpec& spec, const Checkpoint& checkpoint,
                        const BackendFactory& make_backend, const StageOptions& options);
  absl::StatusOr<SequenceId> Add(NewSequence sequence);
  absl::Status RunAll();
  absl::Status RunOldestStep();
  void Take(const SampledToken& sampled);
  FinishReason FinishOf(const Request& request) const;
  void Forget(SequenceId id);

  std::vector<int32_t> eos_tokens_;
  SchedulerLimits limits_;
  std::unique_ptr<Scheduler> scheduler_;
  std::vector<LocalStage> stages_;
  std::deque<ScheduledStep> steps_;  // in flight
  std::unordered_map<SequenceId, Request> requests_;
  SequenceId next_id_ = 1;
  uint64_t num_steps_ = 0;
  absl::Status broken_;  // why a step failed; nothing runs after that
};

}  // namespace sauva
