#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "model/tokenizer.h"
#include "model/tokenizers/added_tokens.h"
#include "model/tokenizers/piece_model.h"

namespace sauva {

// A SentencePiece tokenizer.model, used as transformers' LlamaTokenizer uses it: the texts
// of special tokens are found first, and where the model puts a space in front of a text,
// it does so at the beginning only (in front of each part if tokenizer_config.json has
// "legacy": true).
// Source: github.com/google/sentencepiece; transformers, tokenization_llama.py.
class SentencePiece : public Tokenizer {
 public:
  // Reads tokenizer.model, and from tokenizer_config.json where there is one:
  // tokenizer_class, add_bos_token (true unless said), add_eos_token, legacy and
  // added_tokens_decoder.
  // Errors: INVALID_ARGUMENT naming the file and what is wrong or not supported.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const ModelFiles& files);

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              Special special) const override;
  std::string PieceBytes(int32_t token) const override;
  absl::StatusOr<std::string> Decode(const std::vector<int32_t>& tokens) const override;
  bool DropsLeadingSpace() const override { return options_.puts_space_in_front; }
  int vocab_size() const override { return static_cast<int>(pieces_.size()); }

 private:
  struct Options {
    bool add_bos = true;
    bool add_eos = false;
    bool legacy = false;
    bool puts_space_in_front = true;
  };
  static absl::StatusOr<Options> ReadOptions(const nlohmann::json& config);
  static std::vector<AddedToken> ControlTokens(const PieceModel& model);

  SentencePiece(std::unique_ptr<PieceModel> at_start, std::unique_ptr<PieceModel> inside,
                std::vector<AddedToken> added_tokens, Options options);
  absl::Status AddPieces(const std::vector<AddedToken>& added_tokens);

  std::unique_ptr<PieceModel> at_start_;  // as the file says
  std::unique_ptr<PieceModel> inside_;    // puts no space in front
  AddedTokenFinder added_;
  Options options_;
  std::vector<std::optional<std::string>> pieces_;  // bytes by id; nothing for unknown ids
};

}  // namespace sauva
