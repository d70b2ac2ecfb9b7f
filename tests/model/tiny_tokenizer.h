#pragma once

#include <nlohmann/json.hpp>

#include "model/tokenizers/byte_alphabet.h"

namespace sauva {

// A tokenizer.json for tests to change: every byte is a token, with the byte as its id;
// then come "ab" 256, "abc" 257, "bc" 258 and " a" 259, with merges in this order:
// a b, ab c, b c, and space a. "<s>" is the special token 260.
inline nlohmann::json TinyTokenizer() {
  nlohmann::json vocab = nlohmann::json::object();
  for (int byte = 0; byte < 256; ++byte) vocab[ByteAlphabet()[static_cast<size_t>(byte)]] = byte;
  const std::string space = ByteAlphabet()[' '];
  vocab["ab"] = 256;
  vocab["abc"] = 257;
  vocab["bc"] = 258;
  vocab[space + "a"] = 259;
  const nlohmann::json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  return {{"version", "1.0"},
          {"added_tokens", {{{"id", 260}, {"content", "<s>"}, {"special", true}}}},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"a b", "ab c", "b c", space + " a"}}}}};
}

}  // namespace sauva
