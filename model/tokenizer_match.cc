#include "model/tokenizer_match.h"

#include "absl/strings/str_cat.h"

namespace sauva {

absl::Status CheckTokenizerMatches(const ModelSpec& spec, const Tokenizer& tokenizer) {
  if (tokenizer.vocab_size() <= spec.vocab_size) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "the tokenizer has token ids up to ", tokenizer.vocab_size() - 1,
      ", the model's vocab_size is ", spec.vocab_size, "; they do not belong together"));
}

}  // namespace sauva
