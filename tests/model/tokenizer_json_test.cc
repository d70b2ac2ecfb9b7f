// What a tokenizer.json may not say.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/tokenizer.h"
#include "tests/model/tiny_tokenizer.h"

namespace sauva {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

void ExpectRefused(const json& tokenizer, const std::string& word) {
  const auto status = MakeTokenizer({{"tokenizer.json", tokenizer.dump()}}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << word;
  EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer"));
  EXPECT_THAT(std::string(status.message()), HasSubstr(word));
}

// A tokenizer with the value at a JSON pointer replaced.
json With(const std::string& pointer, const json& value) {
  json tokenizer = TinyTokenizer();
  tokenizer[json::json_pointer(pointer)] = value;
  return tokenizer;
}

json Split(const std::string& pattern) {
  return {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}};
}

TEST(TokenizerJsonTest, RefusesWhatIsNotATokenizer) {
  for (const char* text : {"", "{", "[]", "7", "null", "{}", "\xff"}) {
    const auto status = MakeTokenizer({{"tokenizer.json", text}}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer.json"));
  }
  ExpectRefused(With("/model", 7), "model");
  EXPECT_EQ(MakeTokenizer({}).status().code(), absl::StatusCode::kNotFound);
}

TEST(TokenizerJsonTest, NamesWhatIsNotSupported) {
  ExpectRefused(With("/model/type", "Unigram"), "Unigram");
  ExpectRefused(With("/model/byte_fallback", true), "byte_fallback");
  ExpectRefused(With("/model/fuse_unk", true), "fuse_unk");
  ExpectRefused(With("/model/dropout", 0.1), "dropout");
  ExpectRefused(With("/model/continuing_subword_prefix", "##"), "continuing_subword_prefix");
  ExpectRefused(With("/model/end_of_word_suffix", "</w>"), "end_of_word_suffix");
  ExpectRefused(With("/normalizer", {{"type", "NFKC"}}), "NFKC");
  ExpectRefused(With("/normalizer", 3), "normalizer");
  ExpectRefused(With("/decoder", {{"type", "Metaspace"}}), "Metaspace");
  ExpectRefused(With("/decoder", nullptr), "decoder");
  ExpectRefused(With("/pre_tokenizer", {{"type", "Whitespace"}}), "Whitespace");
  ExpectRefused(With("/pre_tokenizer", nullptr), "pre_tokenizer");
  ExpectRefused(With("/post_processor", {{"type", "RobertaProcessing"}}), "RobertaProcessing");
  ExpectRefused(With("/added_tokens/0/single_word", true), "single_word");
}

TEST(TokenizerJsonTest, RefusesBadPreTokenizers) {
  ExpectRefused(With("/pre_tokenizer", Split("(")), "pattern '('");
  ExpectRefused(With("/pre_tokenizer", Split("\\C")), "pattern");
  ExpectRefused(With("/pre_tokenizer", Split(std::string(100'000, 'a'))), "limit 65536");
  ExpectRefused(With("/pre_tokenizer", Split("a")), "no ByteLevel");
  json unknown = Split("a");
  unknown["behavior"] = "Shuffled";
  ExpectRefused(With("/pre_tokenizer", unknown), "Shuffled");
  unknown = Split("a");
  unknown["pattern"] = "a";
  ExpectRefused(With("/pre_tokenizer", unknown), "pattern");
  const json byte_level = {{"type", "ByteLevel"}};
  ExpectRefused(
      With("/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {byte_level, Split("a")}}}),
      "after ByteLevel");
  const json with_space = {{"type", "ByteLevel"}, {"add_prefix_space", true}};
  ExpectRefused(
      With("/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {Split("a"), with_space}}}),
      "add_prefix_space");
  json nested = byte_level;
  for (int i = 0; i < 20; ++i) {
    nested = {{"type", "Sequence"}, {"pretokenizers", json::array({nested})}};
  }
  ExpectRefused(With("/pre_tokenizer", nested), "nested at most 8");
  json many = json::array();
  for (int i = 0; i < 100; ++i) many.push_back(Split("a"));
  ExpectRefused(With("/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", many}}),
                "at most 64 steps");
}

TEST(TokenizerJsonTest, RefusesBadVocabularies) {
  ExpectRefused(With("/model/vocab", json::object()), "model.vocab");
  ExpectRefused(With("/model/vocab", json::array()), "model.vocab");
  for (const json& id :
       {json(-1), json(4 << 20), json(1.5), json("1"), json(~uint64_t{0}), json(nullptr)}) {
    ExpectRefused(With("/model/vocab/abc", id), "'abc'");
  }
  ExpectRefused(With("/model/vocab/abc", 3), "id 3 is given to");
}

TEST(TokenizerJsonTest, RefusesBadMerges) {
  ExpectRefused(With("/model/merges", nullptr), "model.merges");
  ExpectRefused(With("/model/merges", {"a x b"}), "a x b");
  ExpectRefused(With("/model/merges", {"ab"}), "ab");
  ExpectRefused(With("/model/merges", json::array({json::array({"a", "b", "c"})})), "expected");
  ExpectRefused(With("/model/merges", json::array({7})), "7");
  ExpectRefused(With("/model/merges", {"a zz"}), "'zz'");
  ExpectRefused(With("/model/merges", {"c a"}), "'ca'");
}

TEST(TokenizerJsonTest, RefusesBadAddedTokens) {
  ExpectRefused(With("/added_tokens", 7), "added_tokens");
  ExpectRefused(With("/added_tokens/0", 7), "added_tokens[0]");
  ExpectRefused(With("/added_tokens/0/id", -1), "added_tokens[0].id is -1");
  ExpectRefused(With("/added_tokens/0/id", 1 << 30), "added_tokens[0].id");
  ExpectRefused(With("/added_tokens/0/content", ""), "content");
  ExpectRefused(With("/added_tokens/0/content", std::string(300, 'a')), "1 to 256 bytes");
  ExpectRefused(With("/added_tokens/0/id", 97), "id 97 is given to");
}

TEST(TokenizerJsonTest, RefusesBadTemplates) {
  const auto with_single = [](const json& single, const json& special_tokens) {
    return With(
        "/post_processor",
        {{"type", "TemplateProcessing"}, {"single", single}, {"special_tokens", special_tokens}});
  };
  const json token = {{"SpecialToken", {{"id", "<s>"}}}};
  const json text = {{"Sequence", {{"id", "A"}}}};
  ExpectRefused(with_single(7, json::object()), "single");
  ExpectRefused(with_single({token, text}, json::object()), "<s>");
  ExpectRefused(with_single({token, text}, {{"<s>", {{"ids", {-1}}}}}), "-1");
  ExpectRefused(with_single({token, text}, {{"<s>", {{"ids", "x"}}}}), "<s>");
  ExpectRefused(with_single(json::array({token}), {{"<s>", {{"ids", {260}}}}}), "exactly once");
  ExpectRefused(with_single({text, text}, json::object()), "exactly once");
  ExpectRefused(with_single({text, 7}, json::object()), "an element");
}

TEST(TokenizerJsonTest, RefusesOlderFilesOfATokenizerItDoesNotKnow) {
  const ModelFiles files = {{"vocab.json", TinyTokenizer()["model"]["vocab"].dump()},
                            {"merges.txt", "#version: 0.2\na b\nab c\n"}};
  const auto tokenizer = MakeTokenizer(files);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(*(*tokenizer)->Encode("abc", Tokenizer::Special::kAdd), (std::vector<int32_t>{257}));
  ModelFiles other = files;
  other["tokenizer_config.json"] = R"({"tokenizer_class":"CLIPTokenizer"})";
  EXPECT_THAT(std::string(MakeTokenizer(other).status().message()), HasSubstr("CLIPTokenizer"));
  other["tokenizer_config.json"] = R"({"add_bos_token":true})";
  EXPECT_THAT(std::string(MakeTokenizer(other).status().message()), HasSubstr("add_bos_token"));
  other["tokenizer_config.json"] = R"({"added_tokens_decoder":{"x":{"content":"y"}}})";
  EXPECT_THAT(std::string(MakeTokenizer(other).status().message()), HasSubstr("a token id"));
}

TEST(TokenizerJsonTest, RefusesABrokenSentencePieceModel) {
  for (const char* model : {"", "x", "not a model at all"}) {
    const auto status = MakeTokenizer({{"tokenizer.model", model}}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << model;
    EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer.model"));
  }
  const auto status =
      MakeTokenizer({{"tokenizer.model", "x"},
                     {"tokenizer_config.json", R"({"tokenizer_class":"T5Tokenizer"})"}})
          .status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("T5Tokenizer"));
}

}  // namespace
}  // namespace sauva
