#include "cli/eval_command.h"

#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/factory.h"
#include "model/model.h"

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

}  // namespace

absl::StatusOr<Perplexity> RunEval(const EvalOptions& options,
                                   const std::function<void(int64_t, int64_t)>& progress) {
  ASSIGN_OR_RETURN(const std::string text, ReadText(options.text));
  ASSIGN_OR_RETURN(const Model model, OpenModel(options.model));
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, MakeTokenizer(model.files));
  ASSIGN_OR_RETURN(const std::vector<TokenId> tokens,
                   tokenizer->Encode(text, Tokenizer::Special::kAdd));
  const auto make_backend = [&] { return MakeBackend(options.device, options.threads); };
  ASSIGN_OR_RETURN(const std::unique_ptr<LocalPipeline> pipeline,
                   LocalPipeline::Create(model.spec, *model.checkpoint, make_backend,
                                         {.weight_format = options.weight_format,
                                          .kv_type = options.kv_type,
                                          .max_context = options.context}));
  return MeasurePerplexity(*pipeline, tokens,
                           {.context = options.context,
                            .stride = options.stride,
                            .text_bytes = static_cast<int64_t>(text.size())},
                           progress);
}

std::string PerplexityJson(const Perplexity& measured) {
  const nlohmann::ordered_json json = {{"perplexity", measured.perplexity},
                                       {"tokens", measured.num_tokens},
                                       {"tokens_per_second", measured.tokens_per_second},
                                       {"bits_per_byte", measured.bits_per_byte}};
  return json.dump();
}

}  // namespace sauva
