#include "model/incremental_decoder.h"

#include <gtest/gtest.h>

#include "model/utf8.h"

namespace sauva {
namespace {

// Token i is pieces[i].
class PieceTokenizer : public Tokenizer {
 public:
  enum class Space { kKept, kDropped };
  explicit PieceTokenizer(std::vector<std::string> pieces, Space space = Space::kKept)
      : pieces_(std::move(pieces)), space_(space) {}

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view, Special) const override {
    return absl::UnimplementedError("not needed");
  }
  std::string PieceBytes(int32_t token) const override {
    return pieces_[static_cast<size_t>(token)];
  }
  absl::StatusOr<std::string> Decode(const std::vector<int32_t>&) const override {
    return absl::UnimplementedError("not needed");
  }
  bool DropsLeadingSpace() const override { return space_ == Space::kDropped; }
  int vocab_size() const override { return static_cast<int>(pieces_.size()); }

 private:
  std::vector<std::string> pieces_;
  Space space_;
};

using Start = IncrementalDecoder::Start;

// What each token, and the end, give.
std::vector<std::string> Texts(const std::vector<std::string>& pieces) {
  const PieceTokenizer tokenizer(pieces);
  IncrementalDecoder decoder(tokenizer, Start::kContinuation);
  std::vector<std::string> texts;
  for (int i = 0; i < tokenizer.vocab_size(); ++i) texts.push_back(decoder.Push(i));
  texts.push_back(decoder.Flush());
  return texts;
}

using Strings = std::vector<std::string>;

TEST(IncrementalDecoderTest, HoldsBackUnfinishedCharacters) {
  EXPECT_EQ(Texts({"a\xf0", "\x9f\xa6", "\x99", "b"}), (Strings{"a", "", "\U0001F999", "b", ""}));
  EXPECT_EQ(Texts({"\xc3", "\xa9"}), (Strings{"", "é", ""}));
  EXPECT_EQ(Texts({"\xe2\x82", "\xac!"}), (Strings{"", "€!", ""}));
}

TEST(IncrementalDecoderTest, GivesInvalidBytesAtOnce) {
  EXPECT_EQ(Texts({"a\xff", "b"}), (Strings{"a\uFFFD", "b", ""}));
  EXPECT_EQ(Texts({"\xf0\x9f", "x"}), (Strings{"", "\uFFFDx", ""}));
  EXPECT_EQ(Texts({"\x80\x80"}), (Strings{"\uFFFD\uFFFD", ""}));
  // A surrogate's second byte can follow no lead byte.
  EXPECT_EQ(Texts({"\xed", "\xa0", "\x80"}), (Strings{"", "\uFFFD\uFFFD", "\uFFFD", ""}));
  EXPECT_EQ(Texts({"\xf4\x90"}), (Strings{"\uFFFD\uFFFD", ""}));
  EXPECT_EQ(Texts({"\xc0\xaf"}), (Strings{"\uFFFD\uFFFD", ""}));
}

TEST(IncrementalDecoderTest, FlushesWhatIsUnfinished) {
  EXPECT_EQ(Texts({"a\xf0\x9f\xa6"}), (Strings{"a", "\uFFFD"}));
  EXPECT_EQ(Texts({}), (Strings{""}));
}

TEST(IncrementalDecoderTest, DropsOneSpaceAtATextsStartOnly) {
  const PieceTokenizer tokenizer({"", "  a", " b"}, PieceTokenizer::Space::kDropped);
  IncrementalDecoder at_start(tokenizer, Start::kText);
  EXPECT_EQ(at_start.Push(0), "");
  EXPECT_EQ(at_start.Push(1), " a");
  EXPECT_EQ(at_start.Push(2), " b");
  IncrementalDecoder inside(tokenizer, Start::kContinuation);
  EXPECT_EQ(inside.Push(1), "  a");
  const PieceTokenizer keeps({" a"});
  IncrementalDecoder kept(keeps, Start::kText);
  EXPECT_EQ(kept.Push(0), " a");
}

// Any bytes in any cuts give valid text, the same as in one piece.
TEST(IncrementalDecoderTest, CutsChangeNothing) {
  const std::string bytes = "a\xc3\xa9\xff\xe2\x82\xac\xf0\x9f\xf0\x9f\xa6\x99\xed\xa0\x80\xc3";
  std::string whole;
  for (const std::string& text : Texts({bytes})) whole += text;
  EXPECT_EQ(FindInvalidUtf8(whole), std::nullopt);
  for (size_t first = 0; first <= bytes.size(); ++first) {
    for (size_t second = first; second <= bytes.size(); ++second) {
      std::string joined;
      for (const std::string& text :
           Texts({bytes.substr(0, first), bytes.substr(first, second - first),
                  bytes.substr(second)})) {
        EXPECT_EQ(FindInvalidUtf8(text), std::nullopt);
        joined += text;
      }
      EXPECT_EQ(joined, whole);
    }
  }
}

TEST(Utf8Test, ReadsTheFirstAndLastCharacterOfEachLength) {
  for (const uint32_t code_point :
       {0x0u, 0x7fu, 0x80u, 0x7ffu, 0x800u, 0xd7ffu, 0xe000u, 0xffffu, 0x10000u, 0x10ffffu}) {
    std::string text;
    AppendUtf8(code_point, text);
    const Utf8Character character = FirstCharacter(text + "x");
    EXPECT_EQ(character.kind, Utf8Character::Kind::kValid);
    EXPECT_EQ(character.code_point, code_point);
    EXPECT_EQ(character.length, text.size());
    for (size_t size = 1; size < text.size(); ++size) {
      EXPECT_EQ(FirstCharacter(text.substr(0, size)).kind, Utf8Character::Kind::kIncomplete);
    }
  }
}

}  // namespace
}  // namespace sauva
