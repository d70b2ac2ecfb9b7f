#include "worker/request_checks.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace sauva {
namespace {

absl::Status CheckTokens(const char* field, const std::vector<TokenId>& tokens, int vocab_size) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat(field, "[", i, "] is token ", tokens[i],
                                                     "; the vocabulary has ", vocab_size));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSampling(const SamplingParams& sampling, int vocab_size) {
  if (!sampling.seed) return absl::InvalidArgumentError("sampling.seed is not set");
  for (const LogitBias& bias : sampling.logit_bias) {
    RETURN_IF_ERROR(CheckTokens("sampling.logit_bias", {bias.token}, vocab_size));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckRequest(const SequenceRequest& request, const ModelFacts& facts) {
  if (request.prompt.empty()) return absl::InvalidArgumentError("prompt has no token");
  if (request.prompt.size() >= static_cast<size_t>(facts.max_context)) {
    return absl::InvalidArgumentError(absl::StrCat("prompt has ", request.prompt.size(),
                                                   " tokens; the context of ", facts.max_context,
                                                   " leaves no room for a completion"));
  }
  const size_t room = static_cast<size_t>(facts.max_context) - request.prompt.size();
  if (request.resumed.size() > room) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt of ", request.prompt.size(), " and ", request.resumed.size(),
                     " resumed tokens exceed the context of ", facts.max_context));
  }
  RETURN_IF_ERROR(CheckTokens("prompt", request.prompt, facts.vocab_size));
  RETURN_IF_ERROR(CheckTokens("resumed", request.resumed, facts.vocab_size));
  if (request.eos_tokens.size() > kMaxEosTokens) {
    return absl::InvalidArgumentError(absl::StrCat("eos_tokens has ", request.eos_tokens.size(),
                                                   " entries; the limit is ", kMaxEosTokens));
  }
  return CheckSampling(request.sampling, facts.vocab_size);
}

uint32_t MaxCompletionTokens(const SequenceRequest& request, const ModelFacts& facts) {
  const auto room =
      static_cast<uint32_t>(facts.max_context) - static_cast<uint32_t>(request.prompt.size());
  if (request.sampling.max_tokens == 0) return room;
  return std::min(room, static_cast<uint32_t>(request.sampling.max_tokens));
}

}  // namespace sauva
