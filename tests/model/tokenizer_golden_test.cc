// Tokenizers against tests/golden/tokenizer_*.json, which the tokenizers library and
// SentencePiece made.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "model/incremental_decoder.h"
#include "model/model_files.h"
#include "tests/model/tiny_checkpoint.h"

namespace sauva {
namespace {

using nlohmann::json;
using Special = Tokenizer::Special;
using Tokens = std::vector<int32_t>;

json Golden(const std::string& name) {
  return json::parse(ReadFile(SAUVA_SOURCE_DIR "/tests/golden/tokenizer_" + name + ".json"));
}

std::unique_ptr<Tokenizer> Open(const std::string& directory) {
  // Not ReadModelFiles: a folder of tokenizer files alone has no config.json.
  ModelFiles files;
  for (const char* name :
       {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "merges.txt"}) {
    const std::string path = directory + "/" + name;
    if (std::filesystem::exists(path)) files[name] = ReadFile(path);
  }
  auto tokenizer = MakeTokenizer(files);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

// The folder of a tokenizer outside the source tree; empty where there is none.
std::string SharedTokenizer(const std::string& folder) {
  const char* shared = std::getenv("SAUVA_SHARED_DATA");
  const std::string path = std::string(shared == nullptr ? "" : shared) + "/tokenizers/" + folder;
  return shared != nullptr && std::filesystem::exists(path) ? path : "";
}

std::string Streamed(const Tokenizer& tokenizer, const Tokens& tokens) {
  IncrementalDecoder decoder(tokenizer, IncrementalDecoder::Start::kText);
  std::string text;
  for (const int32_t token : tokens) text += decoder.Push(token);
  return text + decoder.Flush();
}

void ExpectCase(const Tokenizer& tokenizer, const json& golden) {
  const auto text = golden["text"].get<std::string>();
  const auto ids = golden["ids"].get<Tokens>();
  const auto tokens = tokenizer.Encode(text, Special::kNone);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(*tokens, ids) << "'" << text << "'";
  for (const char* key : {"ids_with_special", "ids_with_bos"}) {
    if (!golden.contains(key)) continue;
    EXPECT_EQ(*tokenizer.Encode(text, Special::kAdd), golden[key].get<Tokens>()) << text;
  }
}

// Special tokens decode to nothing here, and to their text in the goldens.
std::string WithoutSpecial(std::string text) {
  for (const char* special : {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>",
                              "<|end_of_text|>", "<s>", "</s>", "<unk>"}) {
    for (size_t at = text.find(special); at != std::string::npos; at = text.find(special, at)) {
      text.erase(at, std::string(special).size());
    }
  }
  return text;
}

void ExpectByteLevelGolden(const Tokenizer& tokenizer, const json& golden) {
  ASSERT_GE(golden["cases"].size(), 60u);
  for (const json& each : golden["cases"]) {
    ExpectCase(tokenizer, each);
    EXPECT_EQ(WithoutSpecial(Streamed(tokenizer, each["ids"])),
              WithoutSpecial(each["decoded"].get<std::string>()));
  }
  for (const json& each : golden["broken_utf8"]) {
    EXPECT_EQ(Streamed(tokenizer, each["ids"]), each["decoded"].get<std::string>())
        << each["bytes_hex"];
  }
}

TEST(TokenizerGoldenTest, ProseGivesTheIdsOfTheTokenizersLibrary) {
  ExpectByteLevelGolden(*Open(SAUVA_SOURCE_DIR "/models/prose"), Golden("prose"));
}

TEST(TokenizerGoldenTest, Gpt2GivesTheIdsOfTheTokenizersLibrary) {
  const std::string directory = SharedTokenizer("gpt2");
  if (directory.empty()) GTEST_SKIP() << "SAUVA_SHARED_DATA has no tokenizers/gpt2";
  ExpectByteLevelGolden(*Open(directory), Golden("gpt2"));
}

TEST(TokenizerGoldenTest, Qwen2GivesTheIdsOfTheTokenizersLibrary) {
  const std::string directory = SharedTokenizer("qwen2.5");
  if (directory.empty()) GTEST_SKIP() << "SAUVA_SHARED_DATA has no tokenizers/qwen2.5";
  ExpectByteLevelGolden(*Open(directory), Golden("qwen2"));
}

TEST(TokenizerGoldenTest, Llama2GivesTheIdsOfSentencePiece) {
  const std::string directory = SharedTokenizer("llama2");
  if (directory.empty()) GTEST_SKIP() << "SAUVA_SHARED_DATA has no tokenizers/llama2";
  const auto tokenizer = Open(directory);
  int num_compared = 0;
  const json golden = Golden("llama2");
  for (const json& each : golden["cases"]) {
    const auto text = each["text"].get<std::string>();
    // SentencePiece alone takes such text as plain; Tokenizer promises the token.
    if (WithoutSpecial(text) != text) continue;
    ExpectCase(*tokenizer, each);
    EXPECT_EQ(Streamed(*tokenizer, each["ids"]), each["decoded"].get<std::string>());
    ++num_compared;
  }
  EXPECT_GE(num_compared, 60);
}

}  // namespace
}  // namespace sauva
