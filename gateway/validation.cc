#include "gateway/validation.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/utf8.h"

namespace sauva {
namespace {

template <class... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

// Names appear in logs and metadata, so control characters are refused.
absl::Status CheckName(const std::string& field, const std::string& value) {
  if (value.size() > kMaxNameBytes) {
    return Invalid(field, " has ", value.size(), " bytes; at most ", kMaxNameBytes);
  }
  if (const auto offset = FindInvalidUtf8(value)) {
    return Invalid(field, " is not valid UTF-8 at byte ", *offset);
  }
  for (const char c : value) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      return Invalid(field, " holds a control character");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckStops(const std::vector<std::string>& stops) {
  for (size_t i = 0; i < stops.size(); ++i) {
    if (const auto offset = FindInvalidUtf8(stops[i])) {
      return Invalid("sampling.stop[", i, "] is not valid UTF-8 at byte ", *offset);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::vector<TokenId>>> CollectResumed(std::vector<ResumeInput> resume,
                                                                 const SamplingParams& sampling) {
  std::vector<std::vector<TokenId>> resumed(static_cast<size_t>(sampling.n));
  if (!resume.empty() && !sampling.seed) {
    return Invalid("resume_tokens need sampling.seed: the one the broken stream returned");
  }
  std::vector<bool> seen(resumed.size(), false);
  for (ResumeInput& entry : resume) {
    if (entry.sample_index >= resumed.size()) {
      return Invalid("resume_tokens.sample_index is ", entry.sample_index, "; sampling.n is ",
                     sampling.n);
    }
    if (seen[entry.sample_index]) {
      return Invalid("resume_tokens names sample ", entry.sample_index, " twice");
    }
    seen[entry.sample_index] = true;
    resumed[entry.sample_index] = std::move(entry.tokens);
  }
  return resumed;
}

absl::Status CheckMessages(const std::vector<ChatTurn>& turns) {
  if (turns.empty() || turns.size() > kMaxChatMessages) {
    return Invalid("prompt.messages has ", turns.size(), " entries; it must have 1 to ",
                   kMaxChatMessages);
  }
  for (size_t i = 0; i < turns.size(); ++i) {
    const std::string field = absl::StrCat("prompt.messages[", i, "]");
    if (turns[i].role.empty()) return Invalid(field, ".role is empty");
    RETURN_IF_ERROR(CheckName(field + ".role", turns[i].role));
    if (const auto offset = FindInvalidUtf8(turns[i].content)) {
      return Invalid(field, ".content is not valid UTF-8 at byte ", *offset);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<decltype(ValidRequest::prompt)> CheckPrompt(GenerateInput& input) {
  if (std::holds_alternative<std::monostate>(input.prompt)) {
    return Invalid("prompt is not set: send text, token_ids or messages");
  }
  if (auto* chat = std::get_if<ChatInput>(&input.prompt)) {
    RETURN_IF_ERROR(CheckMessages(chat->turns));
    return std::move(*chat);
  }
  if (auto* text = std::get_if<std::string>(&input.prompt)) {
    if (const auto offset = FindInvalidUtf8(*text)) {
      return Invalid("prompt.text is not valid UTF-8 at byte ", *offset);
    }
    return std::move(*text);
  }
  auto& tokens = std::get<std::vector<TokenId>>(input.prompt);
  if (tokens.empty()) return Invalid("prompt.token_ids is empty; at least one token is needed");
  return std::move(tokens);
}

absl::Status CheckTokens(const std::string& field, const std::vector<TokenId>& tokens,
                         int vocab_size) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab_size) {
      return Invalid(field, "[", i, "] is ", tokens[i], "; the vocabulary has ids 0 to ",
                     vocab_size - 1);
    }
  }
  return absl::OkStatus();
}

// The template writes the special tokens itself.
absl::StatusOr<std::vector<TokenId>> ChatTokens(const ChatInput& chat,
                                                const TokenizedModel& model) {
  if (!model.chat_trouble.ok()) {
    return absl::UnimplementedError(
        absl::StrCat("prompt.messages: the chat template of model ", model.ref.name,
                     " is not understood: ", model.chat_trouble.message()));
  }
  if (model.chat_template == nullptr) {
    return Invalid("prompt.messages: model ", model.ref.name,
                   " has no chat template; send prompt.text");
  }
  ASSIGN_OR_RETURN(const std::string text, model.chat_template->Render(chat.turns));
  ASSIGN_OR_RETURN(std::vector<TokenId> tokens,
                   model.tokenizer->Encode(text, Tokenizer::Special::kNone));
  if (tokens.empty()) return Invalid("prompt.messages: the chat template makes no token of them");
  return tokens;
}

absl::StatusOr<std::vector<TokenId>> PromptTokens(const ValidRequest& request,
                                                  const TokenizedModel& model) {
  std::vector<TokenId> tokens;
  if (const auto* text = std::get_if<std::string>(&request.prompt)) {
    ASSIGN_OR_RETURN(tokens, model.tokenizer->Encode(*text, Tokenizer::Special::kAdd));
    if (tokens.empty()) {
      return Invalid("prompt.text is empty: no token is left, and model ", model.ref.name,
                     " adds none in front");
    }
  } else if (const auto* chat = std::get_if<ChatInput>(&request.prompt)) {
    ASSIGN_OR_RETURN(tokens, ChatTokens(*chat, model));
  } else {
    tokens = std::get<std::vector<TokenId>>(request.prompt);
  }
  RETURN_IF_ERROR(CheckTokens("prompt.token_ids", tokens, model.vocab_size));
  if (tokens.size() >= model.max_context) {
    return Invalid("the prompt has ", tokens.size(), " tokens; the context of model ",
                   model.ref.name, " holds ", model.max_context, ", the completion included");
  }
  return tokens;
}

// The first piece of a completion begins the text when nothing before it has any.
IncrementalDecoder::Start StartAfter(const std::vector<TokenId>& prompt,
                                     const Tokenizer& tokenizer) {
  const bool has_text = std::any_of(prompt.begin(), prompt.end(), [&](TokenId token) {
    return !tokenizer.PieceBytes(token).empty();
  });
  return has_text ? IncrementalDecoder::Start::kContinuation : IncrementalDecoder::Start::kText;
}

absl::Status CheckSamplingTokens(const SamplingParams& sampling, int vocab_size) {
  RETURN_IF_ERROR(CheckTokens("sampling.stop_token_ids", sampling.stop_tokens, vocab_size));
  for (const LogitBias& bias : sampling.logit_bias) {
    RETURN_IF_ERROR(CheckTokens("sampling.logit_bias.token_id", {bias.token}, vocab_size));
  }
  return absl::OkStatus();
}

absl::Status CheckResumed(const std::vector<TokenId>& resumed, int max_tokens, int vocab_size) {
  if (std::ssize(resumed) > max_tokens) {
    return Invalid("resume_tokens hold ", resumed.size(), " tokens; the completion at most ",
                   max_tokens);
  }
  return CheckTokens("resume_tokens.token_ids", resumed, vocab_size);
}

}  // namespace

absl::StatusOr<ValidRequest> ValidateRequest(GenerateInput input) {
  RETURN_IF_ERROR(CheckName("model", input.model));
  RETURN_IF_ERROR(CheckName("request_id", input.request_id));
  RETURN_IF_ERROR(CheckName("tenant", input.tenant));
  RETURN_IF_ERROR(CheckStops(input.sampling.stop));
  ValidRequest request{.model = std::move(input.model),
                       .request_id = std::move(input.request_id),
                       .tenant = input.tenant.empty() ? "default" : std::move(input.tenant),
                       .priority = input.priority,
                       .prompt = {},
                       .sampling = std::move(input.sampling),
                       .resumed = {},
                       .trace = std::move(input.trace)};
  ASSIGN_OR_RETURN(request.prompt, CheckPrompt(input));
  ASSIGN_OR_RETURN(request.resumed, CollectResumed(std::move(input.resume), request.sampling));
  return request;
}

absl::StatusOr<std::vector<SampleRequest>> BindToModel(const ValidRequest& request,
                                                       const TokenizedModel& model,
                                                       const RequestDefaults& defaults) {
  RETURN_IF_ERROR(CheckSamplingTokens(request.sampling, model.vocab_size));
  ASSIGN_OR_RETURN(const std::vector<TokenId> prompt, PromptTokens(request, model));
  const int room = static_cast<int>(model.max_context - prompt.size());
  SamplingParams sampling = request.sampling;
  sampling.max_tokens = sampling.max_tokens == 0 ? room : std::min(sampling.max_tokens, room);
  if (!sampling.seed) sampling.seed = defaults.seed;
  std::vector<SampleRequest> samples;
  for (size_t i = 0; i < request.resumed.size(); ++i) {
    RETURN_IF_ERROR(CheckResumed(request.resumed[i], sampling.max_tokens, model.vocab_size));
    samples.push_back(
        {.model = model.ref,
         .vocab_size = model.vocab_size,
         .request_id = request.request_id.empty() ? defaults.request_id : request.request_id,
         .sample_index = static_cast<uint32_t>(i),
         .prompt = prompt,
         .resumed = request.resumed[i],
         .rules = {.sampling = sampling,
                   .eos_tokens = model.eos_tokens,
                   .start = StartAfter(prompt, *model.tokenizer)},
         .deadline = defaults.deadline});
  }
  return samples;
}

}  // namespace sauva
