#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/transcript.h"
#include "net/tls.h"
#include "proto/generation.h"

namespace sauva {

struct ChatMessage {
  std::string role;  // "system", "user" or "assistant"
  std::string content;
};

// What `sauva generate` and `sauva chat` ask of a gateway.
struct GenerateOptions {
  std::vector<std::string> gateways;  // host:port, tried in turn
  std::string model;                  // empty: the only one
  std::string prompt;
  std::vector<ChatMessage> messages;  // instead of a prompt, when there are any
  SamplingParams sampling;
  absl::Time deadline = absl::InfiniteFuture();
  TlsOptions tls;
};

// One call on one gateway: asks for what `transcript` lacks and hands on each message.
// Errors: the gateway's status, with its address in the message.
absl::Status GenerateOnce(const GenerateOptions& options, const std::string& gateway,
                          const Transcript& transcript,
                          const std::function<void(const GeneratedPiece&)>& on_piece);

struct TokenizedText {
  std::vector<TokenId> tokens;
  std::vector<std::string> pieces;  // bytes, not always whole UTF-8
};

// Errors: the gateway's status, with its address in the message.
absl::StatusOr<TokenizedText> TokenizeAtGateway(const std::string& gateway, const TlsOptions& tls,
                                                const std::string& text);

}  // namespace sauva
