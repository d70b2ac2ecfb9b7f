#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sauva {

// A token whose text is found as it is, before anything else is cut or merged.
struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;     // adds no text when decoded
  bool lstrip = false;      // takes the white space on its left along
  bool rstrip = false;      // and on its right
  bool normalized = false;  // looked for in normalized text, after the others
};

// Reads one entry of tokenizer.json's "added_tokens" or of tokenizer_config.json's
// "added_tokens_decoder", whose id is its key. `where` names the entry in messages.
// Errors: INVALID_ARGUMENT naming what is wrong or not supported (single_word).
absl::StatusOr<AddedToken> ReadAddedToken(const nlohmann::json& entry, const std::string& where);

// All of "added_tokens_decoder" of a tokenizer_config.json; none if it has no such object.
absl::StatusOr<std::vector<AddedToken>> ReadAddedTokensDecoder(const nlohmann::json& config);

// Part of a text: an added token, or text between them.
struct AddedTokenPart {
  std::string_view text;
  std::optional<int32_t> token;
};

// Finds added tokens in text: leftmost first, the longest of those that start together.
// Thread: const methods are safe from any thread.
class AddedTokenFinder {
 public:
  static constexpr size_t kMaxContentBytes = 256;

  explicit AddedTokenFinder(const std::vector<AddedToken>& tokens);

  // Cuts `text` into tokens and what lies between; no part without a token is empty.
  std::vector<AddedTokenPart> Find(std::string_view text) const;

 private:
  // A node of the tree of contents by byte; node 0 is the root.
  struct Node {
    std::map<char, size_t> next;
    std::optional<size_t> token_index;
  };
  struct Match {
    size_t end = 0;
    size_t token_index = 0;
  };
  std::optional<Match> LongestAt(std::string_view text, size_t begin) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
};

}  // namespace sauva
