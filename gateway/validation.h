#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gateway/generate_input.h"
#include "gateway/request_session.h"
#include "model/tokenizer.h"
#include "proto/control.h"
#include "proto/generation.h"

namespace sauva {

inline constexpr size_t kMaxNameBytes = 128;  // request_id, tenant, model, role
inline constexpr size_t kMaxChatMessages = 4096;

// A model as the gateway knows it, with the tokenizer made from its files.
struct TokenizedModel {
  ModelRef ref;
  uint32_t max_context = 0;  // tokens, prompt and completion together
  int vocab_size = 0;        // rows of the embedding; the tokenizer may know fewer
  std::vector<TokenId> eos_tokens;
  std::unique_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<const ChatTemplate> chat_template;  // null: it has none that can be used
  absl::Status chat_trouble;                          // what is wrong with the one it has
};

// A request whose fields are in range, whatever the model.
struct ValidRequest {
  std::string model;       // may be empty
  std::string request_id;  // may be empty
  std::string tenant;
  int32_t priority = 0;
  std::variant<std::string, std::vector<TokenId>, ChatInput> prompt;
  SamplingParams sampling;                    // seed and max_tokens as the caller gave them
  std::vector<std::vector<TokenId>> resumed;  // one per sample
  std::optional<TraceContext> trace;          // the caller's
};

// Checks what can be checked without a model.
// Errors: INVALID_ARGUMENT naming the field, the limit and the value.
absl::StatusOr<ValidRequest> ValidateRequest(GenerateInput input);

// What only the gateway adds to a request.
struct RequestDefaults {
  std::string request_id;  // for a caller that gave none
  uint64_t seed = 0;       // likewise
  absl::Time deadline = absl::InfiniteFuture();
};

// Renders chat messages, tokenizes the prompt and checks the rest against the model. The
// result is one entry per sample, with max_tokens clipped to the context.
// Errors: INVALID_ARGUMENT naming the field, the limit and the value, or what the chat
// template refuses; UNIMPLEMENTED for a chat template that is not understood.
// Thread: any; takes milliseconds for long prompts.
absl::StatusOr<std::vector<SampleRequest>> BindToModel(const ValidRequest& request,
                                                       const TokenizedModel& model,
                                                       const RequestDefaults& defaults);

}  // namespace sauva
