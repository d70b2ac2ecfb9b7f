#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "model/chat_template/chat_template.h"
#include "net/traceparent.h"
#include "proto/generation.h"

namespace sauva {

// A GenerateRequest as it came from the network. The codec has checked its sampling
// parameters; nothing else is checked yet.
struct ResumeInput {
  uint32_t sample_index = 0;
  std::vector<TokenId> tokens;
};

struct ChatInput {
  std::vector<ChatTurn> turns;
};

struct GenerateInput {
  std::string model;
  std::string request_id;
  std::string tenant;
  int32_t priority = 0;
  // Not set, text, token ids, or chat messages.
  std::variant<std::monostate, std::string, std::vector<TokenId>, ChatInput> prompt;
  SamplingParams sampling;  // seed and max_tokens as the caller gave them
  std::vector<ResumeInput> resume;
  std::optional<TraceContext> trace;  // the caller's
};

}  // namespace sauva
