#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gateway/stop_matcher.h"
#include "model/incremental_decoder.h"
#include "model/tokenizer.h"
#include "proto/generation.h"

namespace sauva {

// When a completion ends and how its text begins.
struct CompletionRules {
  SamplingParams sampling;          // max_tokens >= 1; stop strings not empty
  std::vector<TokenId> eos_tokens;  // end it unless sampling.ignore_eos
  // kText: the prompt holds special tokens only, so the completion begins the text.
  IncrementalDecoder::Start start = IncrementalDecoder::Start::kContinuation;
};

// The tokens of one completion and the text they make. What it shows after a number of
// tokens is a function of these tokens alone, so that a stream which broke can be taken up
// anywhere else: replay the tokens, drop the text, go on.
// Thread: its owner's.
class Completion {
 public:
  // `tokenizer` must outlive this object.
  Completion(const Tokenizer& tokenizer, const CompletionRules& rules);

  // Takes the next token and returns the text that may be shown with it: whole UTF-8
  // characters, nothing that could be the beginning of a stop string. The token that ends
  // the text (end-of-text or a stop token) has no text of its own.
  // Requires: finish() is kNone.
  std::string Append(TokenId token);

  // Ends the completion for a reason that the tokens do not tell (the context is full).
  void End(FinishReason reason) { finish_ = reason; }

  // The text still held back once the completion has ended. Once, after the last token.
  std::string Flush();

  const std::vector<TokenId>& tokens() const { return tokens_; }
  // Why it ended; kNone while it goes on.
  FinishReason finish() const { return finish_; }

 private:
  bool IsLast(TokenId token) const;

  const CompletionRules rules_;
  IncrementalDecoder decoder_;
  StopMatcher stops_;
  std::vector<TokenId> tokens_;
  FinishReason finish_ = FinishReason::kNone;
};

}  // namespace sauva
