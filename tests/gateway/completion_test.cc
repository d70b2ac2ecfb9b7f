#include "gateway/completion.h"

#include <gtest/gtest.h>

#include "gateway/stop_matcher.h"
#include "tests/gateway/session_story.h"
#include "tests/gateway/word_tokenizer.h"

namespace sauva::testing {
namespace {

// Pushes a text in pieces of `size` bytes and returns what is shown.
std::string Show(StopMatcher& matcher, const std::string& text, size_t size) {
  std::string shown;
  for (size_t i = 0; i < text.size(); i += size) shown += matcher.Push(text.substr(i, size));
  return shown;
}

TEST(StopMatcherTest, ShowsTheTextBeforeTheStopHoweverItArrives) {
  for (size_t size = 1; size <= 12; ++size) {
    StopMatcher matcher({"STOP"});
    EXPECT_EQ(Show(matcher, "abSTSTOPcd", size), "abST") << size;
    EXPECT_TRUE(matcher.matched());
    EXPECT_EQ(matcher.Flush(), "");
  }
}

TEST(StopMatcherTest, HoldsBackExactlyWhatCouldBecomeAStop) {
  StopMatcher matcher({"\n\n", "User:"});
  EXPECT_EQ(matcher.Push("hi\n"), "hi");
  EXPECT_EQ(matcher.Push("Us"), "\n");
  EXPECT_EQ(matcher.Push("age"), "Usage");
  EXPECT_EQ(matcher.Push("Use"), "");
  EXPECT_FALSE(matcher.matched());
  EXPECT_EQ(matcher.Flush(), "Use");
}

TEST(StopMatcherTest, TakesTheStopThatIsCompleteFirstAndThenTheLongest) {
  for (size_t size = 1; size <= 8; ++size) {
    StopMatcher first({"abcd", "c"});
    EXPECT_EQ(Show(first, "xabcd", size), "xab") << size;
    StopMatcher longest({"c", "bc"});
    EXPECT_EQ(Show(longest, "abc", size), "a") << size;
  }
}

TEST(StopMatcherTest, FindsAStopThatOverlapsItsOwnBeginning) {
  for (size_t size = 1; size <= 8; ++size) {
    StopMatcher matcher({"aab"});
    EXPECT_EQ(Show(matcher, "aaaab", size), "aa") << size;
    EXPECT_TRUE(matcher.matched());
  }
}

TEST(StopMatcherTest, ShowsEverythingWithoutStops) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.Push("abc"), "abc");
  EXPECT_EQ(matcher.Flush(), "");
}

CompletionRules Rules(std::vector<std::string> stop, int max_tokens = 100) {
  CompletionRules rules;
  rules.sampling.stop = std::move(stop);
  rules.sampling.max_tokens = max_tokens;
  rules.eos_tokens = {WordTokenizer::kEnd};
  return rules;
}

TEST(CompletionTest, NeverSplitsACharacterBetweenTokens) {
  const WordTokenizer tokenizer;
  Completion completion(tokenizer, Rules({}));
  const std::string text = "né €😀!";
  std::string shown;
  for (const TokenId token : Bytes(text)) {
    const std::string part = completion.Append(token);
    EXPECT_TRUE(part.empty() || (part[0] & 0xc0) != 0x80) << "begins inside a character";
    shown += part;
    EXPECT_EQ(shown, text.substr(0, shown.size()));
  }
  EXPECT_EQ(shown, text);
}

TEST(CompletionTest, FindsAStopStringAcrossTokenBorders) {
  const WordTokenizer tokenizer({"hello E", "N", "D of"});
  Completion completion(tokenizer, Rules({"END"}));
  EXPECT_EQ(completion.Append(WordTokenizer::kFirstPiece), "hello ");
  EXPECT_EQ(completion.Append(WordTokenizer::kFirstPiece + 1), "");
  EXPECT_EQ(completion.Append(WordTokenizer::kFirstPiece + 2), "");
  EXPECT_EQ(completion.finish(), FinishReason::kStop);
  EXPECT_EQ(completion.Flush(), "");
  EXPECT_EQ(completion.tokens().size(), 3u);
}

TEST(CompletionTest, GivesBackWhatItHeldWhenTheCompletionEndsOtherwise) {
  const WordTokenizer tokenizer;
  Completion completion(tokenizer, Rules({"END"}, 3));
  EXPECT_EQ(completion.Append('x'), "x");
  EXPECT_EQ(completion.Append('E'), "");
  EXPECT_EQ(completion.Append('N'), "");
  EXPECT_EQ(completion.finish(), FinishReason::kLength);
  EXPECT_EQ(completion.Flush(), "EN");
}

TEST(CompletionTest, ReplacesACharacterThatNeverBecameWhole) {
  const WordTokenizer tokenizer;
  Completion completion(tokenizer, Rules({}, 2));
  EXPECT_EQ(completion.Append('a'), "a");
  EXPECT_EQ(completion.Append(0xe2), "");
  EXPECT_EQ(completion.Flush(), "\uFFFD");
}

}  // namespace
}  // namespace sauva::testing
