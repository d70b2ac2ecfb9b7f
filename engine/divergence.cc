#include "engine/divergence.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/tapped_backend.h"
#include "model/tensor_names.h"

namespace sauva {
namespace {

// log of the sum of exp of logits, in double.
double LogSum(std::span<const float> logits) {
  const double highest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - highest);
  return highest + std::log(sum);
}

double KlOf(std::span<const float> reference, std::span<const float> model) {
  const double reference_sum = LogSum(reference);
  const double model_sum = LogSum(model);
  double kl = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double p = static_cast<double>(reference[i]) - reference_sum;
    const double q = static_cast<double>(model[i]) - model_sum;
    kl += std::exp(p) * (p - q);
  }
  return kl;
}

}  // namespace

absl::StatusOr<WatchedPipeline> WatchedPipeline::Create(
    const ModelSpec& spec, const Checkpoint& checkpoint,
    const LocalPipeline::BackendFactory& make_backend, const LocalPipelineOptions& options) {
  WatchedPipeline watched;
  watched.log = std::make_unique<Log>();
  const auto observe = [log = watched.log.get()](const std::string& name, const MatMulArgs& args) {
    if (!log->recording) return;
    if (name != tensor_names::kHead && name != tensor_names::kEmbedding) return;
    for (int row = 0; row < args.out.rows; ++row) {
      const float* first = args.out.row(row);
      log->rows.insert(log->rows.end(), first, first + args.out.columns);
    }
  };
  const auto make_watched = [&]() -> absl::StatusOr<std::unique_ptr<Backend>> {
    ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend, make_backend());
    return std::make_unique<TappedBackend>(std::move(backend),
                                           TappedBackend::Taps{.observer = observe});
  };
  ASSIGN_OR_RETURN(watched.pipeline,
                   LocalPipeline::Create(spec, checkpoint, make_watched, options));
  return watched;
}

absl::StatusOr<std::vector<float>> WatchedPipeline::Score(std::vector<TokenId> tokens) {
  log->rows.clear();
  log->recording = true;
  auto scores = pipeline->Score(std::move(tokens));
  log->recording = false;
  return scores;
}

absl::StatusOr<Divergence> MeasureDivergence(
    WatchedPipeline& model, WatchedPipeline& reference, std::span<const TokenId> tokens,
    const PerplexityOptions& options,
    const std::function<void(int64_t done, int64_t all)>& progress) {
  const auto size = static_cast<int64_t>(tokens.size());
  const int context = std::min(model.pipeline->max_context(), reference.pipeline->max_context());
  ASSIGN_OR_RETURN(const std::vector<TextWindow> windows, CutIntoWindows(size, context, options));
  Moments kl;
  Moments difference;
  Moments reference_loss;
  int64_t agreed = 0;
  for (const TextWindow& window : windows) {
    const std::vector<TokenId> text(tokens.begin() + window.first, tokens.begin() + window.end);
    const size_t rows = text.size() - 1;
    std::vector<float> scores[2];
    for (WatchedPipeline* watched : {&model, &reference}) {
      ASSIGN_OR_RETURN(scores[watched == &reference], watched->Score(text));
    }
    if (model.logits().size() != reference.logits().size() || model.logits().size() % rows != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("logits of ", model.logits().size() / rows, " tokens, of ",
                       reference.logits().size() / rows, " in the reference"));
    }
    const size_t vocab = model.logits().size() / rows;
    for (int64_t i = window.scored; i < window.end; ++i) {
      const auto row = static_cast<size_t>(i - window.first - 1);
      const auto p = std::span(reference.logits()).subspan(row * vocab, vocab);
      const auto q = std::span(model.logits()).subspan(row * vocab, vocab);
      kl.Add(KlOf(p, q));
      agreed += std::ranges::max_element(p) - p.begin() == std::ranges::max_element(q) - q.begin();
      reference_loss.Add(-static_cast<double>(scores[1][row]));
      difference.Add(static_cast<double>(scores[1][row]) - static_cast<double>(scores[0][row]));
    }
    if (progress) progress(window.end - 1, size - 1);
  }
  return Divergence{.kl = kl.Mean(),
                    .kl_standard_error = kl.StandardError(),
                    .top1_agreement = static_cast<double>(agreed) / static_cast<double>(kl.count),
                    .reference_perplexity = std::exp(reference_loss.Mean()),
                    .loss_difference = difference.Mean(),
                    .loss_difference_standard_error = difference.StandardError()};
}

}  // namespace sauva
