// A tokenizer.json of any bytes is refused, or makes a tokenizer that keeps its word.

#include <cstdint>

#include "base/check.h"
#include "model/tokenizer.h"
#include "tests/fuzz/driver.h"
#include "tests/model/tiny_tokenizer.h"

namespace sauva {
namespace {

using nlohmann::json;

const char* const kTexts[] = {"", "abc ab  a\n\nbc<s>", "e\u0301 \u4f60\u597d 123 'll\t\u3000x"};

void CheckTokenizer(const Tokenizer& tokenizer) {
  for (const char* text : kTexts) {
    const auto tokens = tokenizer.Encode(text, Tokenizer::Special::kAdd);
    if (!tokens.ok()) continue;  // such as a byte that is not in the vocabulary
    for (const int32_t token : *tokens) {
      Check(token >= 0, "token ids are not negative");
      tokenizer.PieceBytes(token);
    }
    // A template may add ids that no token has, which decoding refuses.
    tokenizer.Decode(*tokens).IgnoreError();
  }
  Check(!tokenizer.Encode("\xff", Tokenizer::Special::kAdd).ok(), "invalid UTF-8 is refused");
}

json Small(json tokenizer) {
  // Short inputs are changed in more places that matter.
  json vocab = json::object();
  for (const char* token : {"a", "b", "c", "ab", "bc", "abc", "1", "2", "x"}) {
    vocab[token] = vocab.size();
  }
  tokenizer["model"]["vocab"] = vocab;
  tokenizer["model"]["merges"] = {"a b", "ab c"};
  return tokenizer;
}

}  // namespace

std::vector<std::string> SeedInputs() {
  const json plain = TinyTokenizer();
  json rich = plain;
  const json split = {{"type", "Split"},
                      {"pattern", {{"Regex", "\\p{N}{1,3}|\\s+(?!\\S)|[^\\s\\p{L}]+"}}},
                      {"behavior", "MergedWithPrevious"},
                      {"invert", false}};
  const json digits = {{"type", "Digits"}, {"individual_digits", true}};
  const json byte_level = {{"type", "ByteLevel"}, {"use_regex", false}};
  const json bos = {{"SpecialToken", {{"id", "<s>"}}}};
  const json text = {{"Sequence", {{"id", "A"}}}};
  rich["normalizer"] = {{"type", "NFC"}};
  rich["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {split, digits, byte_level}}};
  rich["post_processor"] = {{"type", "TemplateProcessing"},
                            {"single", {bos, text}},
                            {"special_tokens", {{"<s>", {{"ids", {260}}}}}}};
  rich["added_tokens"][0]["lstrip"] = true;
  rich["model"]["ignore_merges"] = true;
  return {plain.dump(), rich.dump(), Small(plain).dump(), Small(rich).dump()};
}

}  // namespace sauva

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto tokenizer = sauva::MakeTokenizer({{"tokenizer.json", text}});
  if (tokenizer.ok()) sauva::CheckTokenizer(**tokenizer);
  return 0;
}
