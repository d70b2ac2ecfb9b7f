#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "model/tokenizer.h"
#include "model/tokenizers/added_tokens.h"
#include "model/tokenizers/byte_pair_merger.h"
#include "model/tokenizers/normalizer.h"
#include "model/tokenizers/pre_tokenizer.h"

namespace sauva {

// What a byte-level tokenizer is made of, as its files say; tokenizer_json.h reads them.
struct ByteLevelBpeParts {
  Normalizer normalizer = Normalizer::kNone;
  PreTokenizer pre_tokenizer;
  std::vector<AddedToken> added_tokens;
  absl::flat_hash_map<std::string, int32_t> vocabulary;  // by spelling (byte_alphabet.h)
  BytePairMerger merger;
  bool ignore_merges = false;            // a piece that is itself a token is not merged
  std::optional<int32_t> unknown_token;  // for bytes that are not in the vocabulary
  std::vector<int32_t> front;            // what the post-processor puts around a text
  std::vector<int32_t> back;
};

// Byte-level BPE as GPT-2, Llama 3 and Qwen use it: added tokens are found, the text
// between is normalized and cut by patterns, and the bytes of each piece are merged.
// Source: github.com/huggingface/tokenizers.
class ByteLevelBpe : public Tokenizer {
 public:
  // Errors: INVALID_ARGUMENT for a token id given to two different texts.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(ByteLevelBpeParts parts);

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              Special special) const override;
  std::string PieceBytes(int32_t token) const override;
  absl::StatusOr<std::string> Decode(const std::vector<int32_t>& tokens) const override;
  bool DropsLeadingSpace() const override { return false; }
  int vocab_size() const override { return static_cast<int>(pieces_.size()); }

 private:
  explicit ByteLevelBpe(ByteLevelBpeParts parts);

  absl::Status AddPieces();
  absl::Status AddPiece(int32_t id, const std::string& text, std::string bytes);
  absl::Status EncodeSegment(std::string_view text, std::vector<int32_t>& tokens) const;
  absl::Status EncodePlain(std::string_view text, std::vector<int32_t>& tokens) const;
  absl::Status EncodePiece(std::string_view piece, std::vector<int32_t>& tokens) const;

  ByteLevelBpeParts parts_;
  AddedTokenFinder raw_added_;
  AddedTokenFinder normalized_added_;
  std::array<std::optional<int32_t>, 256> byte_tokens_;
  std::vector<std::optional<std::string>> pieces_;  // bytes by id; nothing for unknown ids
};

}  // namespace sauva
