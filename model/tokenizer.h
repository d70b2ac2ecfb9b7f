#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace sauva {

// Contents of a model's small files by name ("config.json", "tokenizer.json", …).
using ModelFiles = std::map<std::string, std::string>;

// Text to token ids and back.
// Thread: const methods are safe from any thread.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Token ids of UTF-8 text. Special-token texts inside `text` become their tokens.
  // add_special: also what the model's post-processor adds (usually a BOS in front).
  // Errors: INVALID_ARGUMENT when text is not valid UTF-8 (names the byte offset).
  enum class Special { kAdd, kNone };
  virtual absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                                      Special special) const = 0;

  // The bytes a token adds to a text; empty for special tokens and unknown ids. The text
  // of a sequence is the concatenation, except that a leading space is dropped at the
  // start of a text where the model's decoder says so (SentencePiece).
  virtual std::string PieceBytes(int32_t token) const = 0;

  // Bytes of a whole sequence. At a text's start one leading space is dropped if the
  // decoder says so. Invalid ids are INVALID_ARGUMENT.
  virtual absl::StatusOr<std::string> Decode(const std::vector<int32_t>& tokens) const = 0;

  // True if PieceBytes of a completion's first token must lose one leading space; only
  // when the completion starts the text (an empty prompt).
  virtual bool DropsLeadingSpace() const = 0;

  virtual int vocab_size() const = 0;  // largest id + 1
};

// Chooses by the files present: tokenizer.json (byte-level BPE), else tokenizer.model
// (SentencePiece, also where a tokenizer.json beside it is not byte-level), else vocab.json
// with merges.txt. Errors: INVALID_ARGUMENT naming the file and what is wrong in it;
// NOT_FOUND when there is neither.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(const ModelFiles& files);

}  // namespace sauva
