#include "cli/eval_command.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/factory.h"
#include "model/model.h"
#include "quantize/calibration_record.h"

namespace sauva {
namespace {

absl::StatusOr<std::string> ReadText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (!file.is_open() || file.bad()) {
    return absl::NotFoundError(absl::StrCat("--text ", path, ": cannot be read"));
  }
  return text;
}

absl::StatusOr<WatchedPipeline> Watch(const Model& model, const EvalOptions& options,
                                      LoadFormat format) {
  const auto make_backend = [&] {
    return MakeBackend(options.device, options.threads, 0, {.arithmetic = options.arithmetic});
  };
  return WatchedPipeline::Create(
      model.spec, *model.checkpoint, make_backend,
      {.weight_format = format, .kv_type = options.kv_type, .max_context = options.context});
}

absl::Status WriteLogits(const std::string& path, const std::vector<float>& logits) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(logits.data()),
             static_cast<std::streamsize>(logits.size() * sizeof(float)));
  file.close();
  if (file.good()) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("--logits ", path, ": cannot be written"));
}

// The logits of the first window of the text.
absl::Status DumpLogits(WatchedPipeline& watched, std::span<const TokenId> tokens,
                        const std::string& path) {
  const auto context = static_cast<size_t>(watched.pipeline->max_context());
  const auto window = tokens.first(std::min(tokens.size(), context));
  RETURN_IF_ERROR(watched.Score({window.begin(), window.end()}).status());
  return WriteLogits(path, watched.logits());
}

absl::StatusOr<std::optional<CalibrationOverlap>> Overlap(const std::string& directory,
                                                          const Tokenizer& tokenizer,
                                                          const std::vector<TokenId>& tokens) {
  ASSIGN_OR_RETURN(const std::optional<CalibrationRecord> record,
                   CalibrationRecord::Read(directory));
  if (!record) return std::nullopt;
  std::string text;  // as samples were recorded: through the tokenizer
  for (const TokenId token : tokens) text += tokenizer.PieceBytes(token);
  return CalibrationOverlap{.windows = record->num_windows(), .in_text = record->CountIn(text)};
}

}  // namespace

absl::StatusOr<Evaluation> RunEval(const EvalOptions& options,
                                   const std::function<void(int64_t, int64_t)>& progress) {
  ASSIGN_OR_RETURN(const std::string text, ReadText(options.text));
  ASSIGN_OR_RETURN(const Model model, OpenModel(options.model));
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, MakeTokenizer(model.files));
  ASSIGN_OR_RETURN(std::vector<TokenId> tokens, tokenizer->Encode(text, Tokenizer::Special::kAdd));
  const auto all = static_cast<int64_t>(tokens.size());
  std::string scored = text;
  if (options.max_tokens > 0 && options.max_tokens < all) {
    tokens.resize(static_cast<size_t>(options.max_tokens));
    ASSIGN_OR_RETURN(scored, tokenizer->Decode(tokens));
  }
  Evaluation result;
  ASSIGN_OR_RETURN(result.calibration, Overlap(options.model, *tokenizer, tokens));
  const PerplexityOptions windows = {.context = options.context,
                                     .stride = options.stride,
                                     .text_bytes = static_cast<int64_t>(scored.size())};
  ASSIGN_OR_RETURN(WatchedPipeline watched, Watch(model, options, options.weight_format));
  result.weight_bytes = watched.pipeline->weight_bytes();
  if (!options.logits.empty()) {
    RETURN_IF_ERROR(DumpLogits(watched, tokens, options.logits));
  }
  ASSIGN_OR_RETURN(result.perplexity,
                   MeasurePerplexity(*watched.pipeline, tokens, windows, progress));
  if (options.reference.empty()) return result;
  ASSIGN_OR_RETURN(const Model reference_model, OpenModel(options.reference));
  ASSIGN_OR_RETURN(WatchedPipeline reference, Watch(reference_model, options, LoadFormat::kStored));
  ASSIGN_OR_RETURN(result.divergence,
                   MeasureDivergence(watched, reference, tokens, windows, progress));
  return result;
}

std::string EvaluationJson(const Evaluation& measured) {
  const Perplexity& perplexity = measured.perplexity;
  nlohmann::ordered_json json = {{"perplexity", perplexity.perplexity},
                                 {"tokens", perplexity.num_tokens},
                                 {"tokens_per_second", perplexity.tokens_per_second},
                                 {"bits_per_byte", perplexity.bits_per_byte},
                                 {"perplexity_standard_error", perplexity.standard_error},
                                 {"weight_bytes", measured.weight_bytes}};
  if (measured.calibration) {
    json["calibration_windows"] = measured.calibration->windows;
    json["calibration_windows_in_text"] = measured.calibration->in_text;
  }
  if (measured.divergence) {
    const Divergence& divergence = *measured.divergence;
    json["kl_divergence"] = divergence.kl;
    json["kl_standard_error"] = divergence.kl_standard_error;
    json["top1_agreement"] = divergence.top1_agreement;
    json["reference_perplexity"] = divergence.reference_perplexity;
    json["loss_difference"] = divergence.loss_difference;
    json["loss_difference_standard_error"] = divergence.loss_difference_standard_error;
  }
  return json.dump();
}

}  // namespace sauva
