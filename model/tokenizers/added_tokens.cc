#include "model/tokenizers/added_tokens.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/config_reader.h"
#include "model/families/family.h"
#include "model/utf8.h"

namespace sauva {
namespace {

constexpr size_t kMaxAddedTokens = 100'000;

bool IsWhiteSpace(uint32_t code_point) {
  return (code_point >= 0x09 && code_point <= 0x0d) || code_point == 0x20 || code_point == 0x85 ||
         code_point == 0xa0 || code_point == 0x1680 ||
         (code_point >= 0x2000 && code_point <= 0x200a) || code_point == 0x2028 ||
         code_point == 0x2029 || code_point == 0x202f || code_point == 0x205f ||
         code_point == 0x3000;
}

// The start of the white space that ends at `end`, not before `limit`.
size_t SpaceBefore(std::string_view text, size_t limit, size_t end) {
  while (end > limit) {
    size_t begin = end - 1;
    while (begin > limit && (static_cast<uint8_t>(text[begin]) & 0xc0) == 0x80) --begin;
    if (!IsWhiteSpace(FirstCharacter(text.substr(begin)).code_point)) break;
    end = begin;
  }
  return end;
}

size_t SpaceAfter(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const Utf8Character character = FirstCharacter(text.substr(begin));
    if (!IsWhiteSpace(character.code_point)) break;
    begin += character.length;
  }
  return begin;
}

}  // namespace

absl::StatusOr<AddedToken> ReadAddedToken(const nlohmann::json& entry, const std::string& where) {
  if (!entry.is_object()) return absl::InvalidArgumentError(absl::StrCat(where, ": not an object"));
  const ConfigReader reader(entry, absl::StrCat(where, "."));
  AddedToken token;
  ASSIGN_OR_RETURN(token.id, reader.Integer("id", {0, kMaxVocabSize - 1}));
  ASSIGN_OR_RETURN(token.content, reader.String("content", ""));
  if (token.content.empty() || token.content.size() > AddedTokenFinder::kMaxContentBytes) {
    return reader.Unexpected(
        "content", absl::StrCat("a string of 1 to ", AddedTokenFinder::kMaxContentBytes, " bytes"));
  }
  ASSIGN_OR_RETURN(const bool single_word, reader.Boolean("single_word", false));
  if (single_word) return reader.Unexpected("single_word", "false, the only one supported");
  ASSIGN_OR_RETURN(token.special, reader.Boolean("special", false));
  ASSIGN_OR_RETURN(token.lstrip, reader.Boolean("lstrip", false));
  ASSIGN_OR_RETURN(token.rstrip, reader.Boolean("rstrip", false));
  ASSIGN_OR_RETURN(token.normalized, reader.Boolean("normalized", !token.special));
  return token;
}

absl::StatusOr<std::vector<AddedToken>> ReadAddedTokensDecoder(const nlohmann::json& config) {
  const ConfigReader reader(config, "tokenizer_config.json: ");
  ASSIGN_OR_RETURN(const auto decoder, reader.Object("added_tokens_decoder"));
  std::vector<AddedToken> tokens;
  if (!decoder) return tokens;
  if (decoder->json().size() > kMaxAddedTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer_config.json: added_tokens_decoder has ", decoder->json().size(),
                     " entries, limit ", kMaxAddedTokens));
  }
  for (const auto& [key, value] : decoder->json().items()) {
    const std::string where =
        absl::StrCat("tokenizer_config.json: added_tokens_decoder.", key.substr(0, 20));
    int id = 0;
    if (!absl::SimpleAtoi(key, &id) || !value.is_object()) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": expected a token id and an object"));
    }
    nlohmann::json entry = value;
    entry["id"] = id;
    ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken(entry, where));
    tokens.push_back(std::move(token));
  }
  return tokens;
}

AddedTokenFinder::AddedTokenFinder(const std::vector<AddedToken>& tokens)
    : tokens_(tokens), nodes_(1) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    size_t node = 0;
    for (const char byte : tokens_[i].content) {
      const auto [next, inserted] = nodes_[node].next.emplace(byte, nodes_.size());
      node = next->second;
      if (inserted) nodes_.emplace_back();
    }
    nodes_[node].token_index = i;
  }
}

std::optional<AddedTokenFinder::Match> AddedTokenFinder::LongestAt(std::string_view text,
                                                                   size_t begin) const {
  std::optional<Match> longest;
  size_t node = 0;
  for (size_t i = begin; i < text.size(); ++i) {
    const auto next = nodes_[node].next.find(text[i]);
    if (next == nodes_[node].next.end()) break;
    node = next->second;
    if (nodes_[node].token_index) longest = Match{i + 1, *nodes_[node].token_index};
  }
  return longest;
}

std::vector<AddedTokenPart> AddedTokenFinder::Find(std::string_view text) const {
  std::vector<AddedTokenPart> parts;
  size_t done = 0;
  const auto add_text = [&](size_t end) {
    if (done < end) parts.push_back({text.substr(done, end - done), std::nullopt});
  };
  size_t at = 0;
  while (at < text.size()) {
    const std::optional<Match> match = LongestAt(text, at);
    if (!match) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[match->token_index];
    const size_t begin = token.lstrip ? SpaceBefore(text, done, at) : at;
    const size_t end = token.rstrip ? SpaceAfter(text, match->end) : match->end;
    add_text(begin);
    parts.push_back({text.substr(begin, end - begin), token.id});
    done = at = end;
  }
  add_text(text.size());
  return parts;
}

}  // namespace sauva
