#include "engine/stage_sequences.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sauva {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr StageSequenceLimits kLimits = {.vocab_size = 100,
                                         .max_context = 64,
                                         .max_sequences = 2,
                                         .max_step_tokens = 40,
                                         .num_kv_groups = 2,
                                         .num_kv_blocks = 8};

std::vector<TokenId> Tokens(int count, TokenId first = 0) {
  std::vector<TokenId> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

OpenSequence Opening(SequenceId id, int num_tokens) {
  return {.id = id, .tokens = Tokens(num_tokens), .num_prompt_tokens = 1};
}

std::vector<BlockDelta> Deltas(const std::vector<BlockId>& blocks) {
  return {{.kv_group = 0, .appended = blocks}, {.kv_group = 1, .appended = blocks}};
}

// The first 20 tokens of sequence 1, of which 24 are known.
StepHeader FirstChunk() {
  return {.step_id = 1, .sequences = {{.id = 1, .tokens = Tokens(20), .blocks = Deltas({3, 4})}}};
}

void ExpectRefused(const absl::Status& status, const std::string& words) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(words));
}

class StageSequencesTest : public testing::Test {
 protected:
  StageSequencesTest() : sequences_(kLimits) { EXPECT_TRUE(sequences_.Open(Opening(1, 24)).ok()); }

  // Changes a good header, expects it to be refused, and the good one still to be taken.
  template <class Change>
  void ExpectStepRefused(const std::string& words, Change change) {
    SCOPED_TRACE(words);
    StepHeader header = FirstChunk();
    change(header);
    ExpectRefused(sequences_.Apply(header), words);
    EXPECT_EQ(sequences_.Get(1).num_computed, 0);
    EXPECT_TRUE(sequences_.Get(1).tables[0].empty());
    EXPECT_EQ(sequences_.Get(1).tokens.size(), 24u);
  }

  StageSequences sequences_;
};

TEST_F(StageSequencesTest, FollowsChunksAndThenSampledTokens) {
  ASSERT_TRUE(sequences_.Apply(FirstChunk()).ok());
  EXPECT_EQ(sequences_.Get(1).num_computed, 20);
  StepHeader rest{.step_id = 2,
                  .sequences = {{.id = 1, .first_position = 20, .tokens = Tokens(4, 20)}}};
  rest.sequences[0].want = StepWant::kSample;
  ASSERT_TRUE(sequences_.Apply(rest).ok());
  StepHeader decode{.step_id = 3, .sequences = {{.id = 1, .first_position = 24, .tokens = {77}}}};
  decode.sequences[0].want = StepWant::kSample;
  ASSERT_TRUE(sequences_.Apply(decode).ok());
  EXPECT_EQ(sequences_.Get(1).tokens.size(), 25u);
  EXPECT_EQ(sequences_.Get(1).tokens.back(), 77);
  EXPECT_THAT(sequences_.Get(1).tables[1], ElementsAre(3, 4));
}

TEST_F(StageSequencesTest, OpeningAgainReplacesAndEmpties) {
  ASSERT_TRUE(sequences_.Apply(FirstChunk()).ok());
  ASSERT_TRUE(sequences_.Open(Opening(1, 30)).ok());
  EXPECT_EQ(sequences_.Get(1).num_computed, 0);
  EXPECT_EQ(sequences_.Get(1).tokens.size(), 30u);
  EXPECT_TRUE(sequences_.Get(1).tables[0].empty());
}

TEST_F(StageSequencesTest, SkipsWholeBlocksThatOthersComputed) {
  StepHeader header{
      .step_id = 1,
      .sequences = {
          {.id = 1, .first_position = 16, .tokens = Tokens(8, 16), .blocks = Deltas({5, 6})}}};
  EXPECT_TRUE(sequences_.Apply(header).ok());
  EXPECT_EQ(sequences_.Get(1).num_computed, 24);
}

TEST_F(StageSequencesTest, RefusesHeadersThatContradictWhatIsKnown) {
  const auto first = [](StepHeader& header) -> SequenceStep& { return header.sequences[0]; };
  ExpectStepRefused("has 0 sequences", [](StepHeader& h) { h.sequences.clear(); });
  ExpectStepRefused("has 3 sequences", [](StepHeader& h) { h.sequences.resize(3); });
  ExpectStepRefused("was not opened", [&](StepHeader& h) { first(h).id = 9; });
  ExpectStepRefused("appears twice", [&](StepHeader& h) {
    first(h).tokens.resize(10);
    for (BlockDelta& delta : first(h).blocks) delta.appended.resize(1);
    h.sequences.push_back(first(h));
  });
  ExpectStepRefused("40 tokens of a step", [&](StepHeader& h) { first(h).tokens.resize(41); });
  ExpectStepRefused("0 tokens from", [&](StepHeader& h) { first(h).tokens.clear(); });
  for (const int position :
       {-1, std::numeric_limits<int>::min(), 1, 15, 25, 32, std::numeric_limits<int>::max()}) {
    ExpectStepRefused("tokens from position",
                      [&](StepHeader& h) { first(h).first_position = position; });
  }
  ExpectStepRefused("is known as 19", [&](StepHeader& h) { first(h).tokens[19] = 20; });
  for (const TokenId token : {-1, 100, std::numeric_limits<int>::max()}) {
    ExpectStepRefused("vocabulary of 100", [&](StepHeader& h) { first(h).tokens[3] = token; });
  }
  for (const BlockId block : {-1, 8, std::numeric_limits<int>::max()}) {
    ExpectStepRefused("of 8", [&](StepHeader& h) { first(h).blocks[1].appended[0] = block; });
  }
  ExpectStepRefused("KV group 2 of 2", [&](StepHeader& h) {
    first(h).blocks.push_back({.kv_group = 2, .appended = {1}});
  });
  ExpectStepRefused("0 blocks in KV group 1", [&](StepHeader& h) { first(h).blocks.pop_back(); });
  ExpectStepRefused("3 blocks in KV group 0",
                    [&](StepHeader& h) { first(h).blocks[0].appended.push_back(1); });
  ExpectStepRefused("a sample after position 20",
                    [&](StepHeader& h) { first(h).want = StepWant::kSample; });
  ExpectStepRefused("wants 7", [&](StepHeader& h) { first(h).want = static_cast<StepWant>(7); });
  EXPECT_TRUE(sequences_.Apply(FirstChunk()).ok());
}

TEST_F(StageSequencesTest, RefusesToGoBackOrBeyondTheContext) {
  ASSERT_TRUE(sequences_.Apply(FirstChunk()).ok());
  StepHeader header = FirstChunk();
  ExpectRefused(sequences_.Apply(header), "20 of 24 are computed");
  header.sequences[0] = {.id = 1, .first_position = 20, .tokens = Tokens(40, 20)};
  header.sequences[0].tokens.resize(40);
  ExpectRefused(sequences_.Apply(header), "blocks");
  ASSERT_TRUE(sequences_.Open(Opening(1, 64)).ok());
  header.sequences[0] = {
      .id = 1, .first_position = 48, .tokens = Tokens(17, 48), .blocks = Deltas({0, 1, 2, 3})};
  ExpectRefused(sequences_.Apply(header), "context of 64");
}

TEST_F(StageSequencesTest, RefusesOpeningsNoHeadSends) {
  ExpectRefused(sequences_.Open(Opening(2, 0)), "0 tokens");
  ExpectRefused(sequences_.Open(Opening(2, 65)), "65 tokens");
  const auto refused = [&](const std::string& words, auto change) {
    OpenSequence open = Opening(2, 4);
    change(open);
    ExpectRefused(sequences_.Open(open), words);
  };
  const float nan = std::nanf("");
  const float infinity = std::numeric_limits<float>::infinity();
  refused("5 prompt tokens", [](OpenSequence& open) { open.num_prompt_tokens = 5; });
  refused("0 prompt tokens", [](OpenSequence& open) { open.num_prompt_tokens = 0; });
  refused("token 100", [](OpenSequence& open) { open.tokens[3] = 100; });
  for (const float value : {-1.0f, nan, infinity}) {
    refused("temperature", [&](OpenSequence& open) { open.sampling.temperature = value; });
    refused("top_p", [&](OpenSequence& open) { open.sampling.top_p = value; });
    refused("min_p", [&](OpenSequence& open) { open.sampling.min_p = value; });
    refused("repetition", [&](OpenSequence& open) { open.sampling.repetition_penalty = value; });
  }
  refused("repetition", [](OpenSequence& open) { open.sampling.repetition_penalty = 0; });
  refused("penalty", [&](OpenSequence& open) { open.sampling.presence_penalty = nan; });
  refused("penalty", [&](OpenSequence& open) { open.sampling.frequency_penalty = infinity; });
  refused("top_k", [](OpenSequence& open) { open.sampling.top_k = -1; });
  refused("logprobs is 21", [](OpenSequence& open) { open.sampling.logprobs = 21; });
  refused("logit_bias", [](OpenSequence& open) { open.sampling.logit_bias = {{-1, 1.0f}}; });
  refused("logit_bias", [](OpenSequence& open) { open.sampling.logit_bias = {{100, 1.0f}}; });
  refused("logit_bias", [&](OpenSequence& open) { open.sampling.logit_bias = {{1, nan}}; });
  refused("1025 entries of logit_bias",
          [](OpenSequence& open) { open.sampling.logit_bias.resize(1025); });
}

TEST_F(StageSequencesTest, KnowsABoundedNumberOfSequences) {
  EXPECT_TRUE(sequences_.Open(Opening(2, 1)).ok());
  ExpectRefused(sequences_.Open(Opening(3, 1)), "2 sequences");
  EXPECT_TRUE(sequences_.Open(Opening(2, 2)).ok()) << "known already";
  sequences_.Close(1);
  sequences_.Close(99);
  EXPECT_TRUE(sequences_.Open(Opening(3, 1)).ok());
}

}  // namespace
}  // namespace sauva
