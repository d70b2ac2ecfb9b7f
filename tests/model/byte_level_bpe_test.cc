#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/spec.h"
#include "model/tokenizer.h"
#include "model/tokenizer_match.h"
#include "tests/model/tiny_tokenizer.h"

namespace sauva {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Special = Tokenizer::Special;
using Tokens = std::vector<int32_t>;

std::unique_ptr<Tokenizer> Make(const json& tokenizer) {
  auto made = MakeTokenizer({{"tokenizer.json", tokenizer.dump()}});
  EXPECT_TRUE(made.ok()) << made.status();
  return *std::move(made);
}

Tokens Encode(const json& tokenizer, const std::string& text, Special special = Special::kNone) {
  const auto tokens = Make(tokenizer)->Encode(text, special);
  EXPECT_TRUE(tokens.ok()) << tokens.status();
  return *tokens;
}

// The pieces a pre-tokenizer cuts, seen through a vocabulary without merges that put
// neighbours together: the text of each piece is one added vocabulary entry.
std::vector<std::string> Pieces(const json& pre_tokenizer, const std::string& text) {
  json tokenizer = TinyTokenizer();
  const json byte_level = {{"type", "ByteLevel"}, {"use_regex", false}};
  tokenizer["pre_tokenizer"] = {{"type", "Sequence"},
                                {"pretokenizers", json::array({pre_tokenizer, byte_level})}};
  // With merges ignored, every substring of the text that is a piece is one token.
  tokenizer["model"]["ignore_merges"] = true;
  int id = 1000;
  for (size_t begin = 0; begin < text.size(); ++begin) {
    for (size_t size = 2; begin + size <= text.size(); ++size) {
      std::string spelling;
      for (const char c : text.substr(begin, size)) {
        spelling += ByteAlphabet()[static_cast<uint8_t>(c)];
      }
      if (!tokenizer["model"]["vocab"].contains(spelling)) {
        tokenizer["model"]["vocab"][spelling] = id++;
      }
    }
  }
  const auto made = Make(tokenizer);
  std::vector<std::string> pieces;
  const auto tokens = made->Encode(text, Special::kNone);
  for (const int32_t token : *tokens) pieces.push_back(made->PieceBytes(token));
  return pieces;
}

json Split(const std::string& pattern, const std::string& behavior, bool invert = false) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", pattern}}},
          {"behavior", behavior},
          {"invert", invert}};
}

TEST(ByteLevelBpeTest, MergesInOrderOfRankThenFromTheLeft) {
  EXPECT_THAT(Encode(TinyTokenizer(), "abc"), ElementsAre(257));
  EXPECT_THAT(Encode(TinyTokenizer(), "abbc"), ElementsAre(256, 258));
  EXPECT_THAT(Encode(TinyTokenizer(), "abab"), ElementsAre(256, 256));
  json other = TinyTokenizer();
  other["model"]["merges"] = {"b c", "a b", "ab c"};
  EXPECT_THAT(Encode(other, "abc"), ElementsAre('a', 258));
}

TEST(ByteLevelBpeTest, TakesMergesAsPairs) {
  json pairs = TinyTokenizer();
  pairs["model"]["merges"] = json::array({json::array({"b", "c"})});
  EXPECT_THAT(Encode(pairs, "abc"), ElementsAre('a', 258));
}

TEST(ByteLevelBpeTest, TakesAModelWithoutAType) {
  json untyped = TinyTokenizer();
  untyped["model"].erase("type");
  EXPECT_THAT(Encode(untyped, "abc"), ElementsAre(257));
}

TEST(ByteLevelBpeTest, IgnoresMergesForAPieceThatIsAToken) {
  json tokenizer = TinyTokenizer();
  tokenizer["model"]["merges"] = {"a b"};
  EXPECT_THAT(Encode(tokenizer, "abc"), ElementsAre(256, 'c'));
  tokenizer["model"]["ignore_merges"] = true;
  EXPECT_THAT(Encode(tokenizer, "abc"), ElementsAre(257));
}

TEST(ByteLevelBpeTest, CutsWithThePatternBeforeMerging) {
  // "b" and "c" are in different words.
  EXPECT_THAT(Encode(TinyTokenizer(), "ab c"), ElementsAre(256, ' ', 'c'));
  EXPECT_THAT(Encode(TinyTokenizer(), "b ac"), ElementsAre('b', 259, 'c'));
}

TEST(ByteLevelBpeTest, PutsASpaceInFrontWhereAsked) {
  json tokenizer = TinyTokenizer();
  tokenizer["pre_tokenizer"]["add_prefix_space"] = true;
  EXPECT_THAT(Encode(tokenizer, "a"), ElementsAre(259));
  EXPECT_THAT(Encode(tokenizer, " a"), ElementsAre(259));
  EXPECT_THAT(Encode(tokenizer, ""), ElementsAre());
}

TEST(ByteLevelBpeTest, SplitKnowsEveryBehavior) {
  EXPECT_THAT(Pieces(Split("-", "Isolated"), "x--yz-"), ElementsAre("x", "-", "-", "yz", "-"));
  EXPECT_THAT(Pieces(Split("-", "Removed"), "x--yz-"), ElementsAre("x", "yz"));
  EXPECT_THAT(Pieces(Split("-", "MergedWithPrevious"), "x--yz-"), ElementsAre("x-", "-", "yz-"));
  EXPECT_THAT(Pieces(Split("-", "MergedWithNext"), "x--yz-"), ElementsAre("x", "-", "-yz", "-"));
  EXPECT_THAT(Pieces(Split("-", "Contiguous"), "x--yz-"), ElementsAre("x", "--", "yz", "-"));
  EXPECT_THAT(Pieces(Split("[a-z]+", "Removed", true), "x--yz-"), ElementsAre("x", "yz"));
}

TEST(ByteLevelBpeTest, SplitTakesAPlainString) {
  json split = Split("", "Isolated");
  split["pattern"] = {{"String", "."}};
  EXPECT_THAT(Pieces(split, "ab.cd"), ElementsAre("ab", ".", "cd"));
}

TEST(ByteLevelBpeTest, SplitPassesOverEmptyMatches) {
  EXPECT_THAT(Pieces(Split("x*", "Isolated"), "aéxxb"), ElementsAre("aé", "xx", "b"));
}

TEST(ByteLevelBpeTest, DigitsAreCutOneByOneOrTogether) {
  const json single = {{"type", "Digits"}, {"individual_digits", true}};
  const json together = {{"type", "Digits"}, {"individual_digits", false}};
  EXPECT_THAT(Pieces(single, "ab12c"), ElementsAre("ab", "1", "2", "c"));
  EXPECT_THAT(Pieces(together, "ab12c"), ElementsAre("ab", "12", "c"));
}

TEST(ByteLevelBpeTest, TheMongolianVowelSeparatorIsNoSpace) {
  EXPECT_THAT(Pieces(Split("\\s+", "Isolated"), "a\u180eb\u3000c"),
              ElementsAre("a\u180eb", "\u3000", "c"));
  EXPECT_THAT(Pieces(Split("[^\\s]+", "Isolated"), "a\u180e\u0085b"),
              ElementsAre("a\u180e", "\u0085", "b"));
}

TEST(ByteLevelBpeTest, FindsAddedTokensInText) {
  EXPECT_THAT(Encode(TinyTokenizer(), "ab<s>c<s"), ElementsAre(256, 260, 'c', '<', 's'));
  json tokenizer = TinyTokenizer();
  tokenizer["added_tokens"].push_back({{"id", 261}, {"content", "<s>x"}, {"special", false}});
  tokenizer["added_tokens"].push_back({{"id", 262}, {"content", "bc"}, {"normalized", true}});
  // The leftmost first, and the longest of those that start together; what is looked for
  // in the text as given comes before what is looked for in normalized text.
  EXPECT_THAT(Encode(tokenizer, "<s>xabc"), ElementsAre(260, 'x', 'a', 262));
  tokenizer["added_tokens"][1]["normalized"] = false;
  EXPECT_THAT(Encode(tokenizer, "<s>xabc"), ElementsAre(261, 'a', 262));
  EXPECT_EQ(Make(tokenizer)->PieceBytes(260), "");
  EXPECT_EQ(Make(tokenizer)->PieceBytes(261), "<s>x");
  EXPECT_EQ(*Make(tokenizer)->Decode({260, 261, 257}), "<s>xabc");
}

TEST(ByteLevelBpeTest, AddedTokensTakeWhiteSpaceAlong) {
  json tokenizer = TinyTokenizer();
  tokenizer["added_tokens"][0]["lstrip"] = true;
  EXPECT_THAT(Encode(tokenizer, "a \u3000<s> b"), ElementsAre('a', 260, ' ', 'b'));
  tokenizer["added_tokens"][0]["rstrip"] = true;
  EXPECT_THAT(Encode(tokenizer, "a <s> \n<s>\tb"), ElementsAre('a', 260, 260, 'b'));
}

TEST(ByteLevelBpeTest, NormalizesToNfcBetweenAddedTokens) {
  json tokenizer = TinyTokenizer();
  tokenizer["normalizer"] = {{"type", "NFC"}};
  const auto made = Make(tokenizer);
  const auto text = [&](const std::string& input) {
    return *made->Decode(*made->Encode(input, Special::kNone));
  };
  EXPECT_EQ(text("e\u0301"), "\u00e9");
  EXPECT_EQ(text("\u1100\u1161\u11a8"), "\uac01");    // Hangul
  EXPECT_EQ(text("q\u0307\u0323"), "q\u0323\u0307");  // marks in canonical order
  EXPECT_EQ(text("\u0958"), "\u0915\u093c");          // never composed again
  EXPECT_EQ(text("e<s>\u0301"), "e\u0301");           // a token stands between
  EXPECT_EQ(Make(TinyTokenizer())->Encode("e\u0301", Special::kNone)->size(), 3u);
}

TEST(ByteLevelBpeTest, TemplatesPutTokensAroundAText) {
  const json token = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
  const json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  json tokenizer = TinyTokenizer();
  tokenizer["post_processor"] = {{"type", "TemplateProcessing"},
                                 {"single", {token, text, token, token}},
                                 {"special_tokens", {{"<s>", {{"ids", {260}}}}}}};
  EXPECT_THAT(Encode(tokenizer, "a", Special::kAdd), ElementsAre(260, 'a', 260, 260));
  EXPECT_THAT(Encode(tokenizer, "", Special::kAdd), ElementsAre(260, 260, 260));
  EXPECT_THAT(Encode(tokenizer, "a", Special::kNone), ElementsAre('a'));
  tokenizer["post_processor"] = {
      {"type", "Sequence"}, {"processors", {{{"type", "ByteLevel"}}, tokenizer["post_processor"]}}};
  EXPECT_THAT(Encode(tokenizer, "a", Special::kAdd), ElementsAre(260, 'a', 260, 260));
}

TEST(ByteLevelBpeTest, RestoresEveryByteOfValidText) {
  std::string text;
  for (char32_t c = 1; c < 0x3000; c += 7) {
    if (c < 0x80) {
      text += static_cast<char>(c);
    } else if (c < 0x800) {
      text += {static_cast<char>(0xc0 | c >> 6), static_cast<char>(0x80 | (c & 0x3f))};
    } else {
      text += {static_cast<char>(0xe0 | c >> 12), static_cast<char>(0x80 | ((c >> 6) & 0x3f)),
               static_cast<char>(0x80 | (c & 0x3f))};
    }
  }
  const auto tokenizer = Make(TinyTokenizer());
  EXPECT_EQ(*tokenizer->Decode(*tokenizer->Encode(text, Special::kNone)), text);
}

TEST(ByteLevelBpeTest, NamesTheByteWhereTextIsInvalid) {
  const auto tokenizer = Make(TinyTokenizer());
  for (const char* text : {"abc\xff", "abc\xc0\x80", "abc\xed\xa0\x80", "abc\xf4\x90\x80\x80",
                           "abc\xe2\x82", "abc\x80"}) {
    const auto status = tokenizer->Encode(text, Special::kNone).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("byte 3"));
  }
}

TEST(ByteLevelBpeTest, NamesTokensItDoesNotKnow) {
  const auto tokenizer = Make(TinyTokenizer());
  EXPECT_EQ(tokenizer->vocab_size(), 261);
  for (const int32_t token : {-1, 261, 1 << 30}) {
    EXPECT_THAT(std::string(tokenizer->Decode({token}).status().message()),
                AllOf(HasSubstr(std::to_string(token)), HasSubstr("261")));
    EXPECT_EQ(tokenizer->PieceBytes(token), "");
  }
}

TEST(ByteLevelBpeTest, NamesAByteThatTheVocabularyLacks) {
  json tokenizer = TinyTokenizer();
  tokenizer["model"]["vocab"].erase("z");
  const auto status = Make(tokenizer)->Encode("az", Special::kNone).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("byte 0x7A"));
  tokenizer["model"]["unk_token"] = "ab";
  EXPECT_THAT(Encode(tokenizer, "az"), ElementsAre('a', 256));
}

TEST(ByteLevelBpeTest, DoesNotMatchAModelWithFewerTokens) {
  const auto tokenizer = Make(TinyTokenizer());
  EXPECT_TRUE(CheckTokenizerMatches({.vocab_size = 261}, *tokenizer).ok());
  EXPECT_TRUE(CheckTokenizerMatches({.vocab_size = 300}, *tokenizer).ok());
  const absl::Status status = CheckTokenizerMatches({.vocab_size = 260}, *tokenizer);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("vocab_size is 260"));
}

// A megabyte in each of these shapes takes milliseconds; in quadratic time the test would
// run into its time limit.
TEST(ByteLevelBpeTest, LongTextsOfOneKindTakeNoQuadraticTime) {
  json tokenizer = TinyTokenizer();
  tokenizer["normalizer"] = {{"type", "NFC"}};
  const auto made = Make(tokenizer);
  constexpr int kCount = 1'000'000;
  std::string marks = "e";
  for (int i = 0; i < kCount / 4; ++i) marks += i % 2 == 0 ? "\u0301" : "\u0323";
  std::string alternating;
  for (int i = 0; i < kCount / 2; ++i) alternating += "ab";
  for (const std::string& text :
       {std::string(kCount, 'a'), std::string(kCount, ' '), std::string(kCount, '\n'),
        std::string(kCount, ' ') + "x", std::string(kCount, '<'), alternating, marks}) {
    const auto tokens = made->Encode(text, Special::kNone);
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    EXPECT_GT(tokens->size(), 0u);
  }
}

TEST(ByteLevelBpeTest, BoundsThePatternsOfAFile) {
  json tokenizer = TinyTokenizer();
  const json byte_level = {{"type", "ByteLevel"}, {"use_regex", false}};
  tokenizer["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers", json::array({Split("(a+)+$", "Isolated"), byte_level})}};
  const auto status = Make(tokenizer)->Encode(std::string(60, 'a') + "b", Special::kNone).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace sauva
