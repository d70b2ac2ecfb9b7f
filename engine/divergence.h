#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/local_pipeline.h"
#include "engine/perplexity.h"

namespace sauva {

// A pipeline whose logits can be seen.
struct WatchedPipeline {
  std::unique_ptr<LocalPipeline> pipeline;

  // Scores a text and leaves its logits, a row of vocab_size for each token but the last.
  // Errors: those of LocalPipeline::Score.
  absl::StatusOr<std::vector<float>> Score(std::vector<TokenId> tokens);
  const std::vector<float>& logits() const { return log->rows; }

  struct Log {
    bool recording = false;
    std::vector<float> rows;
  };
  std::unique_ptr<Log> log;  // on the heap, as the pipeline's backends write to it

  // Errors: those of LocalPipeline::Create. Backends must be host backends.
  static absl::StatusOr<WatchedPipeline> Create(const ModelSpec& spec, const Checkpoint& checkpoint,
                                                const LocalPipeline::BackendFactory& make_backend,
                                                const LocalPipelineOptions& options);
};

// How far a model's predictions are from those of a reference, over a text's tokens.
struct Divergence {
  double kl = 0;  // mean of KL(reference || model), nats a token
  double kl_standard_error = 0;
  double top1_agreement = 0;  // share of tokens with the same likeliest one
  double reference_perplexity = 0;
  // Mean of the model's negative log-probability less the reference's, token by token.
  double loss_difference = 0;
  double loss_difference_standard_error = 0;
};

// Both models run each window of the text; windows as MeasurePerplexity has them.
// Errors: those of MeasurePerplexity; INVALID_ARGUMENT for vocabularies of unlike sizes.
absl::StatusOr<Divergence> MeasureDivergence(
    WatchedPipeline& model, WatchedPipeline& reference, std::span<const TokenId> tokens,
    const PerplexityOptions& options,
    const std::function<void(int64_t done, int64_t all)>& progress);

}  // namespace sauva
