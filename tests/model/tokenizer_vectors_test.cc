// Real vocabularies against ids that other implementations gave.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <sstream>

#include "model/model_files.h"
#include "model/tokenizer.h"
#include "model/tokenizers/byte_alphabet.h"
#include "nlohmann/json.hpp"
#include "tests/model/tiny_checkpoint.h"

namespace sauva {
namespace {

// The folder of test data; empty if there is none here.
std::string SharedData() {
  const char* shared = std::getenv("SAUVA_SHARED_DATA");
  if (shared == nullptr || !std::filesystem::exists(shared)) return "";
  return shared;
}

ModelFiles ReadTokenizerFiles(const std::string& folder) {
  ModelFiles files;
  for (const auto& entry :
       std::filesystem::directory_iterator(SharedData() + "/tokenizers/" + folder)) {
    files[entry.path().filename().string()] = ReadFile(entry.path().string());
  }
  return files;
}

struct Vector {
  std::string text;
  std::vector<int32_t> tokens;
};

// Texts separated by lines "__ggml_vocab_test__", and a line of ids for each.
std::vector<Vector> ReadVectors(const std::string& name) {
  const std::string base = SharedData() + "/tokenizers/vectors/ggml-vocab-" + name + ".gguf";
  const std::string texts = ReadFile(base + ".inp");
  std::istringstream ids(ReadFile(base + ".out"));
  const std::string separator = "\n__ggml_vocab_test__\n";
  std::vector<Vector> vectors;
  size_t begin = 0;
  for (std::string line; std::getline(ids, line);) {
    const size_t end = texts.find(separator, begin);
    if (end == std::string::npos) break;
    Vector vector{texts.substr(begin, end - begin), {}};
    std::istringstream numbers(line);
    for (int32_t id = 0; numbers >> id;) vector.tokens.push_back(id);
    vectors.push_back(vector);
    begin = end + separator.size();
  }
  return vectors;
}

void ExpectVectors(const Tokenizer& tokenizer, const std::string& name) {
  const auto vectors = ReadVectors(name);
  ASSERT_GE(vectors.size(), 40u);
  for (const Vector& vector : vectors) {
    const auto tokens = tokenizer.Encode(vector.text, Tokenizer::Special::kNone);
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    EXPECT_EQ(*tokens, vector.tokens) << "'" << vector.text << "'";
    EXPECT_EQ(*tokenizer.Decode(vector.tokens), vector.text);
  }
}

// tokenizer.json from tiktoken ranks ("BASE64 RANK" lines), made as llama's converter does:
// every cut of a token into two tokens is a merge, in order of the token's rank.
std::string FromBase64(const std::string& text) {
  static const std::string kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t bits = 0;
  int num_bits = 0;
  for (const char c : text) {
    if (c == '=') break;
    bits = bits << 6 | static_cast<uint32_t>(kDigits.find(c));
    num_bits += 6;
    if (num_bits < 8) continue;
    num_bits -= 8;
    bytes.push_back(static_cast<char>(bits >> num_bits));
  }
  return bytes;
}

std::string Spelling(const std::string& bytes) {
  std::string spelling;
  for (const char byte : bytes) spelling += ByteAlphabet()[static_cast<uint8_t>(byte)];
  return spelling;
}

nlohmann::json FromRanks(const std::string& text) {
  std::vector<std::string> tokens;
  std::map<std::string, int> ranks;
  std::istringstream lines(text);
  std::string encoded;
  for (int rank = 0; lines >> encoded >> rank;) {
    tokens.push_back(FromBase64(encoded));
    ranks[tokens.back()] = rank;
  }
  nlohmann::json vocab = nlohmann::json::object();
  nlohmann::json merges = nlohmann::json::array();
  for (const std::string& token : tokens) {
    vocab[Spelling(token)] = ranks[token];
    for (size_t cut = 1; cut < token.size(); ++cut) {
      const std::string left = token.substr(0, cut);
      const std::string right = token.substr(cut);
      if (ranks.contains(left) && ranks.contains(right)) {
        merges.push_back({Spelling(left), Spelling(right)});
      }
    }
  }
  return {{"vocab", vocab}, {"merges", merges}, {"ignore_merges", true}};
}

nlohmann::json Llama3Tokenizer(const std::string& ranks) {
  const std::string pattern =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const nlohmann::json byte_level = {{"type", "ByteLevel"}, {"use_regex", false}};
  const nlohmann::json split = {
      {"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}};
  return {{"model", FromRanks(ranks)},
          {"decoder", byte_level},
          {"pre_tokenizer",
           {{"type", "Sequence"}, {"pretokenizers", nlohmann::json::array({split, byte_level})}}}};
}

TEST(TokenizerVectorsTest, Gpt2GivesTheSameIds) {
  if (SharedData().empty()) GTEST_SKIP() << "SAUVA_SHARED_DATA is not set or absent";
  const auto tokenizer = MakeTokenizer(ReadTokenizerFiles("gpt2"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), 50257);
  ExpectVectors(**tokenizer, "gpt-2");
  EXPECT_EQ(*(*tokenizer)->Encode("a<|endoftext|>b", Tokenizer::Special::kAdd),
            (std::vector<int32_t>{64, 50256, 65}));
}

TEST(TokenizerVectorsTest, Qwen2GivesTheSameIdsFromVocabularyAndMerges) {
  if (SharedData().empty()) GTEST_SKIP() << "SAUVA_SHARED_DATA is not set or absent";
  const auto tokenizer = MakeTokenizer(ReadTokenizerFiles("qwen2.5"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ExpectVectors(**tokenizer, "qwen2");
  EXPECT_EQ(*(*tokenizer)->Encode("<|im_start|>user\n", Tokenizer::Special::kAdd),
            (std::vector<int32_t>{151644, 872, 198}));
  EXPECT_EQ((*tokenizer)->PieceBytes(151644), "");
}

TEST(TokenizerVectorsTest, Llama3PatternAndIgnoredMergesGiveTheSameIds) {
  if (SharedData().empty()) GTEST_SKIP() << "SAUVA_SHARED_DATA is not set or absent";
  const std::string ranks = ReadFile(SharedData() + "/tokenizers/llama3/tokenizer.model");
  const auto tokenizer = MakeTokenizer({{"tokenizer.json", Llama3Tokenizer(ranks).dump()}});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ExpectVectors(**tokenizer, "llama-bpe");
}

TEST(TokenizerVectorsTest, Llama2SentencePieceGivesTheSameIds) {
  if (SharedData().empty()) GTEST_SKIP() << "SAUVA_SHARED_DATA is not set or absent";
  const auto tokenizer = MakeTokenizer(ReadTokenizerFiles("llama2"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), 32000);
  EXPECT_TRUE((*tokenizer)->DropsLeadingSpace());
  ExpectVectors(**tokenizer, "llama-spm");
}

TEST(TokenizerVectorsTest, SentencePiecePutsASpaceInFrontOfATextOnce) {
  if (SharedData().empty()) GTEST_SKIP() << "SAUVA_SHARED_DATA is not set or absent";
  ModelFiles files = ReadTokenizerFiles("llama2");
  const auto encode = [&](const std::string& text) {
    return *(*MakeTokenizer(files))->Encode(text, Tokenizer::Special::kAdd);
  };
  // 15043 is "Hello" behind a space, 10994 without one.
  EXPECT_EQ(encode("Hello</s>Hello"), (std::vector<int32_t>{1, 15043, 2, 10994}));
  EXPECT_EQ(encode("<s>Hello"), (std::vector<int32_t>{1, 1, 10994}));
  files["tokenizer_config.json"] =
      R"({"legacy": true, "add_bos_token": false, "add_eos_token": true})";
  EXPECT_EQ(encode("Hello</s>Hello"), (std::vector<int32_t>{15043, 2, 15043, 2}));
}

TEST(TokenizerVectorsTest, SentencePieceTakesAddedTokensOfTheConfig) {
  if (SharedData().empty()) GTEST_SKIP() << "SAUVA_SHARED_DATA is not set or absent";
  ModelFiles files = ReadTokenizerFiles("llama2");
  files["tokenizer_config.json"] = R"({"added_tokens_decoder": {
      "0": {"content": "<unk>", "special": true}, "1": {"content": "<s>", "special": true},
      "32000": {"content": "<|user|>", "special": false}}})";
  const auto tokenizer = MakeTokenizer(files);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), 32001);
  EXPECT_EQ(*(*tokenizer)->Encode("<|user|>Hello", Tokenizer::Special::kNone),
            (std::vector<int32_t>{32000, 10994}));
  EXPECT_EQ((*tokenizer)->PieceBytes(32000), "<|user|>");
  files["tokenizer_config.json"] =
      R"({"added_tokens_decoder": {"300": {"content": "<|user|>", "special": true}}})";
  EXPECT_EQ(MakeTokenizer(files).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(TokenizerVectorsTest, RefusesRanksInTheNameOfASentencePieceModel) {
  if (SharedData().empty()) GTEST_SKIP() << "SAUVA_SHARED_DATA is not set or absent";
  const auto tokenizer = MakeTokenizer(ReadTokenizerFiles("llama3"));
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(TokenizerVectorsTest, StoriesTokenizerAddsABosAndRestoresText) {
  if (SharedData().empty()) GTEST_SKIP() << "SAUVA_SHARED_DATA is not set or absent";
  const auto files = ReadModelFiles(SharedData() + "/weights/stories260K");
  ASSERT_TRUE(files.ok()) << files.status();
  const auto tokenizer = MakeTokenizer(*files);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), 512);
  EXPECT_EQ(*(*tokenizer)->Encode("", Tokenizer::Special::kAdd), (std::vector<int32_t>{1}));
  const std::string text = ReadFile(SharedData() + "/weights/stories260K/greedy.txt");
  const auto tokens = (*tokenizer)->Encode(text, Tokenizer::Special::kAdd);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->front(), 1);
  EXPECT_EQ(*(*tokenizer)->Decode(*tokens), text);
  const std::string foreign = "naïve 🦙 text\n";  // not in the vocabulary: bytes
  EXPECT_EQ(*(*tokenizer)->Decode(*(*tokenizer)->Encode(foreign, Tokenizer::Special::kAdd)),
            foreign);
}

TEST(TokenizerVectorsTest, RestoresAWholeBook) {
  if (SharedData().empty()) GTEST_SKIP() << "SAUVA_SHARED_DATA is not set or absent";
  const std::string text = ReadFile(SharedData() + "/text/frankenstein.txt");
  for (const char* folder : {"gpt2", "qwen2.5", "llama2"}) {
    const auto tokenizer = MakeTokenizer(ReadTokenizerFiles(folder));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    const auto tokens = (*tokenizer)->Encode(text, Tokenizer::Special::kNone);
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    EXPECT_EQ(*(*tokenizer)->Decode(*tokens), text) << folder;
  }
}

}  // namespace
}  // namespace sauva
