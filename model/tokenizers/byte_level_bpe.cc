#include "model/tokenizers/byte_level_bpe.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "model/tokenizers/byte_alphabet.h"
#include "model/utf8.h"

namespace sauva {
namespace {

// The added tokens that are looked for in the text as given, or in the normalized text.
std::vector<AddedToken> Select(const ByteLevelBpeParts& parts, bool normalized) {
  std::vector<AddedToken> selected;
  for (AddedToken token : parts.added_tokens) {
    if (token.normalized != normalized) continue;
    if (normalized && parts.normalizer == Normalizer::kNfc) token.content = ToNfc(token.content);
    selected.push_back(std::move(token));
  }
  return selected;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> ByteLevelBpe::Create(ByteLevelBpeParts parts) {
  std::unique_ptr<ByteLevelBpe> tokenizer(new ByteLevelBpe(std::move(parts)));
  RETURN_IF_ERROR(tokenizer->AddPieces());
  return tokenizer;
}

ByteLevelBpe::ByteLevelBpe(ByteLevelBpeParts parts)
    : parts_(std::move(parts)),
      raw_added_(Select(parts_, false)),
      normalized_added_(Select(parts_, true)) {
  for (size_t byte = 0; byte < byte_tokens_.size(); ++byte) {
    const auto found = parts_.vocabulary.find(ByteAlphabet()[byte]);
    if (found != parts_.vocabulary.end()) byte_tokens_[byte] = found->second;
  }
}

absl::Status ByteLevelBpe::AddPieces() {
  for (const auto& [spelling, id] : parts_.vocabulary) {
    RETURN_IF_ERROR(AddPiece(id, spelling, BytesOfSpelling(spelling)));
  }
  for (const AddedToken& token : parts_.added_tokens) {
    const auto twin = parts_.vocabulary.find(token.content);
    if (twin != parts_.vocabulary.end() && twin->second == token.id) {
      pieces_[static_cast<size_t>(token.id)].reset();
    }
    RETURN_IF_ERROR(AddPiece(token.id, token.content, token.special ? "" : token.content));
  }
  return absl::OkStatus();
}

absl::Status ByteLevelBpe::AddPiece(int32_t id, const std::string& text, std::string bytes) {
  const auto index = static_cast<size_t>(id);
  if (index >= pieces_.size()) pieces_.resize(index + 1);
  if (pieces_[index]) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer: id ", id, " is given to '", text, "' and to another token"));
  }
  pieces_[index] = std::move(bytes);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> ByteLevelBpe::Encode(std::string_view text,
                                                          Special special) const {
  if (const auto invalid = FindInvalidUtf8(text)) {
    return absl::InvalidArgumentError(absl::StrCat("text is not valid UTF-8 at byte ", *invalid));
  }
  std::vector<int32_t> tokens;
  if (special == Special::kAdd) tokens = parts_.front;
  for (const AddedTokenPart& part : raw_added_.Find(text)) {
    if (part.token) {
      tokens.push_back(*part.token);
    } else if (parts_.normalizer == Normalizer::kNfc) {
      RETURN_IF_ERROR(EncodeSegment(ToNfc(part.text), tokens));
    } else {
      RETURN_IF_ERROR(EncodeSegment(part.text, tokens));
    }
  }
  if (special == Special::kAdd) {
    tokens.insert(tokens.end(), parts_.back.begin(), parts_.back.end());
  }
  return tokens;
}

absl::Status ByteLevelBpe::EncodeSegment(std::string_view text,
                                         std::vector<int32_t>& tokens) const {
  for (const AddedTokenPart& part : normalized_added_.Find(text)) {
    if (part.token) {
      tokens.push_back(*part.token);
    } else if (parts_.pre_tokenizer.adds_prefix_space() && part.text.front() != ' ') {
      RETURN_IF_ERROR(EncodePlain(" " + std::string(part.text), tokens));
    } else {
      RETURN_IF_ERROR(EncodePlain(part.text, tokens));
    }
  }
  return absl::OkStatus();
}

absl::Status ByteLevelBpe::EncodePlain(std::string_view text, std::vector<int32_t>& tokens) const {
  ASSIGN_OR_RETURN(const auto pieces, parts_.pre_tokenizer.Split(text));
  for (const std::string_view piece : pieces) RETURN_IF_ERROR(EncodePiece(piece, tokens));
  return absl::OkStatus();
}

absl::Status ByteLevelBpe::EncodePiece(std::string_view piece, std::vector<int32_t>& tokens) const {
  if (parts_.ignore_merges) {
    std::string spelling;
    for (const char byte : piece) spelling += ByteAlphabet()[static_cast<uint8_t>(byte)];
    const auto whole = parts_.vocabulary.find(spelling);
    if (whole != parts_.vocabulary.end()) {
      tokens.push_back(whole->second);
      return absl::OkStatus();
    }
  }
  std::vector<int32_t> bytes;
  for (const char byte : piece) {
    const auto token = byte_tokens_[static_cast<uint8_t>(byte)];
    if (!token && !parts_.unknown_token) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "the tokenizer's vocabulary has no token for byte 0x%02X", static_cast<uint8_t>(byte)));
    }
    bytes.push_back(token ? *token : *parts_.unknown_token);
  }
  const std::vector<int32_t> merged = parts_.merger.Merge(bytes);
  tokens.insert(tokens.end(), merged.begin(), merged.end());
  return absl::OkStatus();
}

std::string ByteLevelBpe::PieceBytes(int32_t token) const {
  if (token < 0 || token >= vocab_size()) return "";
  return pieces_[static_cast<size_t>(token)].value_or("");
}

absl::StatusOr<std::string> ByteLevelBpe::Decode(const std::vector<int32_t>& tokens) const {
  std::string text;
  for (const int32_t token : tokens) {
    if (token < 0 || token >= vocab_size() || !pieces_[static_cast<size_t>(token)]) {
      return absl::InvalidArgumentError(
          absl::StrCat("token id ", token, " is not in the vocabulary of ", vocab_size()));
    }
    text += *pieces_[static_cast<size_t>(token)];
  }
  return text;
}

}  // namespace sauva
