#include "gateway/completion.h"

#include <algorithm>

#include "base/check.h"

namespace sauva {

Completion::Completion(const Tokenizer& tokenizer, const CompletionRules& rules)
    : rules_(rules), decoder_(tokenizer, rules.start), stops_(rules.sampling.stop) {}

bool Completion::IsLast(TokenId token) const {
  const auto is_in = [token](const std::vector<TokenId>& ids) {
    return std::find(ids.begin(), ids.end(), token) != ids.end();
  };
  if (is_in(rules_.sampling.stop_tokens)) return true;
  return !rules_.sampling.ignore_eos && is_in(rules_.eos_tokens);
}

std::string Completion::Append(TokenId token) {
  Check(finish_ == FinishReason::kNone, "a completion that ended takes no tokens");
  tokens_.push_back(token);
  if (IsLast(token)) {
    finish_ = FinishReason::kStop;
    return {};
  }
  std::string text = stops_.Push(decoder_.Push(token));
  if (stops_.matched()) {
    finish_ = FinishReason::kStop;
  } else if (std::ssize(tokens_) >= rules_.sampling.max_tokens) {
    finish_ = FinishReason::kLength;
  }
  return text;
}

std::string Completion::Flush() {
  if (stops_.matched()) return {};
  std::string text = stops_.Push(decoder_.Flush());
  return stops_.matched() ? text : text + stops_.Flush();
}

}  // namespace sauva
