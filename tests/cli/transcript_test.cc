#include "cli/transcript.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace sauva {
namespace {

GeneratedPiece Piece(uint32_t sample, std::string text, std::vector<TokenId> tokens) {
  return {.sample_index = sample,
          .text = std::move(text),
          .tokens = std::move(tokens),
          .finish = FinishReason::kNone,
          .prompt_tokens = std::nullopt,
          .seed = std::nullopt};
}

TEST(TranscriptTest, GathersEachSampleOnItsOwn) {
  Transcript transcript(2);
  EXPECT_TRUE(transcript.Add(Piece(1, "b", {7}), absl::Milliseconds(3)));
  EXPECT_TRUE(transcript.Add(Piece(0, "a", {5, 6}), absl::Milliseconds(4)));
  EXPECT_TRUE(transcript.Add(Piece(1, "c", {8}), absl::Milliseconds(5)));
  EXPECT_EQ(transcript.samples()[0].text, "a");
  EXPECT_EQ(transcript.samples()[1].text, "bc");
  EXPECT_EQ(transcript.samples()[1].tokens, (std::vector<TokenId>{7, 8}));
  EXPECT_EQ(transcript.samples()[1].first_token, absl::Milliseconds(3));
}

TEST(TranscriptTest, KeepsTheFirstSeedItIsTold) {
  Transcript transcript(1);
  EXPECT_EQ(transcript.seed(), std::nullopt);
  GeneratedPiece first = Piece(0, "", {});
  first.seed = 0;
  transcript.Add(first, absl::ZeroDuration());
  EXPECT_EQ(transcript.seed(), 0u);
  EXPECT_FALSE(transcript.started()) << "a message without tokens leaves nothing to resume";
}

TEST(TranscriptTest, IsCompleteWhenEverySampleHasEnded) {
  Transcript transcript(2);
  GeneratedPiece last = Piece(0, "a", {1});
  last.finish = FinishReason::kStop;
  last.prompt_tokens = 4;
  transcript.Add(last, absl::ZeroDuration());
  EXPECT_FALSE(transcript.complete());
  last.sample_index = 1;
  transcript.Add(last, absl::ZeroDuration());
  EXPECT_TRUE(transcript.complete());
}

TEST(TranscriptTest, RefusesMessagesOfEndedAndUnknownSamples) {
  Transcript transcript(1);
  GeneratedPiece last = Piece(0, "a", {1});
  last.finish = FinishReason::kLength;
  EXPECT_TRUE(transcript.Add(last, absl::ZeroDuration()));
  EXPECT_FALSE(transcript.Add(Piece(0, "b", {2}), absl::ZeroDuration()));
  EXPECT_FALSE(transcript.Add(Piece(1, "b", {2}), absl::ZeroDuration()));
  EXPECT_EQ(transcript.samples()[0].text, "a");
}

TEST(TranscriptTest, ASampleIsOneLineOfTheDocumentedForm) {
  Transcript transcript(1);
  GeneratedPiece piece = Piece(0, "line\nbreak", {1, 2, 3});
  piece.finish = FinishReason::kLength;
  piece.prompt_tokens = 5;
  transcript.Add(piece, absl::Milliseconds(20));
  const std::string line = SampleJson(transcript.samples()[0]);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const auto json = nlohmann::json::parse(line);
  EXPECT_EQ(json["text"], "line\nbreak");
  EXPECT_EQ(json["token_ids"], (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(json["finish_reason"], "length");
  EXPECT_EQ(json["usage"]["prompt_tokens"], 5);
  EXPECT_EQ(json["usage"]["completion_tokens"], 3);
  EXPECT_EQ(json["timing"]["time_to_first_token_ms"], 20.0);
  EXPECT_EQ(json["timing"]["total_ms"], 20.0);
  EXPECT_EQ(json.size(), 5u);
}

}  // namespace
}  // namespace sauva
