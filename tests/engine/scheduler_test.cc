#include "engine/scheduler.h"

#include <numeric>
#include <string>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sauva {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

SchedulerLimits Limits() {
  SchedulerLimits limits;
  limits.num_kv_blocks = 64;
  limits.max_context = 512;
  return limits;
}

std::vector<TokenId> Tokens(int count, TokenId first = 0) {
  std::vector<TokenId> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

NewSequence Sequence(SequenceId id, std::vector<TokenId> prompt, int max_tokens = 100) {
  NewSequence sequence;
  sequence.id = id;
  sequence.prompt = std::move(prompt);
  sequence.sampling.max_tokens = max_tokens;
  sequence.sampling.seed = 1;
  return sequence;
}

// The result in which every wanted sample is `token`.
StepResult Answer(const ScheduledStep& step, TokenId token = 7) {
  StepResult result;
  result.step_id = step.header.step_id;
  for (const SequenceStep& sequence : step.header.sequences) {
    if (sequence.want == StepWant::kNone) continue;
    SampledToken sampled;
    sampled.id = sequence.id;
    sampled.token = token;
    result.sampled.push_back(sampled);
  }
  return result;
}

std::vector<SequenceId> Ids(const ScheduledStep& step) {
  std::vector<SequenceId> ids;
  for (const SequenceStep& sequence : step.header.sequences) ids.push_back(sequence.id);
  return ids;
}

ScheduledStep RunOne(Scheduler& scheduler) {
  std::optional<ScheduledStep> step = scheduler.NextStep();
  EXPECT_TRUE(step.has_value());
  EXPECT_TRUE(scheduler.FinishStep(Answer(*step)).ok());
  scheduler.CheckInvariants();
  return *step;
}

TEST(SchedulerTest, HasNothingToDoAtFirst) {
  Scheduler scheduler(Limits());
  EXPECT_FALSE(scheduler.NextStep().has_value());
  EXPECT_EQ(scheduler.num_free_blocks(), 64);
}

TEST(SchedulerTest, CutsALongPromptIntoChunksAndSamplesAfterTheLast) {
  SchedulerLimits limits = Limits();
  limits.max_step_tokens = 16;
  Scheduler scheduler(limits);
  ASSERT_TRUE(scheduler.Add(Sequence(1, Tokens(33))).ok());
  std::vector<size_t> sizes;
  std::vector<StepWant> wants;
  for (int i = 0; i < 4; ++i) {
    const ScheduledStep step = RunOne(scheduler);
    EXPECT_EQ(step.opened.size(), i == 0 ? 1u : 0u);
    sizes.push_back(step.header.sequences[0].tokens.size());
    wants.push_back(step.header.sequences[0].want);
  }
  EXPECT_THAT(sizes, ElementsAre(16u, 16u, 1u, 1u));
  EXPECT_THAT(wants,
              ElementsAre(StepWant::kNone, StepWant::kNone, StepWant::kSample, StepWant::kSample));
}

TEST(SchedulerTest, ServesRunningSequencesFirstAndLetsNobodyOvertake) {
  SchedulerLimits limits = Limits();
  limits.max_step_tokens = 20;
  Scheduler scheduler(limits);
  ASSERT_TRUE(scheduler.Add(Sequence(1, Tokens(10))).ok());
  ASSERT_TRUE(scheduler.Add(Sequence(2, Tokens(30, 100))).ok());
  ASSERT_TRUE(scheduler.Add(Sequence(3, Tokens(2, 200))).ok());
  EXPECT_THAT(Ids(RunOne(scheduler)), ElementsAre(1, 2));
  EXPECT_THAT(Ids(RunOne(scheduler)), ElementsAre(1, 2));
  EXPECT_THAT(Ids(RunOne(scheduler)), ElementsAre(1, 2, 3));
}

TEST(SchedulerTest, KeepsASmallSequenceWaitingBehindOneThatDoesNotFitYet) {
  SchedulerLimits limits = Limits();
  limits.num_kv_blocks = 4;
  Scheduler scheduler(limits);
  ASSERT_TRUE(scheduler.Add(Sequence(1, Tokens(40), 20)).ok());
  ASSERT_TRUE(scheduler.Add(Sequence(2, Tokens(40, 100), 20)).ok());
  ASSERT_TRUE(scheduler.Add(Sequence(3, Tokens(2, 200), 2)).ok());
  EXPECT_THAT(Ids(RunOne(scheduler)), ElementsAre(1));
  EXPECT_EQ(scheduler.num_waiting(), 2);
  EXPECT_TRUE(scheduler.Cancel(1));
  EXPECT_THAT(Ids(RunOne(scheduler)), ElementsAre(2, 3));
}

TEST(SchedulerTest, PreemptsTheYoungestWhenBlocksRunOut) {
  SchedulerLimits limits = Limits();
  limits.num_kv_blocks = 3;
  limits.prefix_cache = false;
  Scheduler scheduler(limits);
  ASSERT_TRUE(scheduler.Add(Sequence(1, Tokens(16), 30)).ok());
  ASSERT_TRUE(scheduler.Add(Sequence(2, Tokens(10, 100), 30)).ok());
  EXPECT_THAT(Ids(RunOne(scheduler)), ElementsAre(1, 2));
  for (int i = 0; i < 6; ++i) RunOne(scheduler);  // 2 fills its block
  EXPECT_EQ(scheduler.num_preemptions(), 0u);
  // Now 2 finds no block and nobody younger: it waits, and 1 goes on.
  EXPECT_THAT(Ids(RunOne(scheduler)), ElementsAre(1));
  EXPECT_EQ(scheduler.num_preemptions(), 0u);
  for (int i = 0; i < 9; ++i) EXPECT_THAT(Ids(RunOne(scheduler)), ElementsAre(1));
  EXPECT_THAT(Ids(RunOne(scheduler)), ElementsAre(1)) << "position 32 takes the block of 2";
  EXPECT_EQ(scheduler.num_preemptions(), 1u);
  EXPECT_EQ(scheduler.num_waiting(), 1);
  EXPECT_TRUE(scheduler.Cancel(1));
  const ScheduledStep again = RunOne(scheduler);
  ASSERT_EQ(again.opened.size(), 1u);
  EXPECT_EQ(again.opened[0].id, 2u);
  EXPECT_EQ(again.opened[0].tokens.size(), 17u) << "its own tokens are known, not lost";
  EXPECT_EQ(again.opened[0].num_prompt_tokens, 10u);
  EXPECT_EQ(again.header.sequences[0].first_position, 0);
}

TEST(SchedulerTest, APreemptedSequenceGoesBeforeThoseThatWait) {
  SchedulerLimits limits = Limits();
  limits.num_kv_blocks = 3;
  limits.max_sequences = 2;
  limits.prefix_cache = false;
  Scheduler scheduler(limits);
  ASSERT_TRUE(scheduler.Add(Sequence(1, Tokens(16), 30)).ok());
  ASSERT_TRUE(scheduler.Add(Sequence(2, Tokens(10, 100), 30)).ok());
  ASSERT_TRUE(scheduler.Add(Sequence(3, Tokens(10, 200), 5)).ok());
  for (int i = 0; i < 40 && scheduler.num_preemptions() == 0; ++i) RunOne(scheduler);
  ASSERT_EQ(scheduler.num_preemptions(), 1u);
  EXPECT_EQ(scheduler.num_waiting(), 2);
  EXPECT_TRUE(scheduler.Cancel(1));
  EXPECT_THAT(Ids(RunOne(scheduler)), ElementsAre(2, 3));
}

TEST(SchedulerTest, SharesABlockOnlyBehindTheSameText) {
  Scheduler scheduler(Limits());
  const std::vector<TokenId> monotonous(40, 5);  // equal blocks that follow different texts
  ASSERT_TRUE(scheduler.Add(Sequence(1, monotonous)).ok());
  const ScheduledStep first = RunOne(scheduler);
  ASSERT_TRUE(scheduler.Add(Sequence(2, monotonous)).ok());
  const ScheduledStep second = RunOne(scheduler);
  const auto& before = first.header.sequences[0].blocks[0].appended;
  const auto& after = second.header.sequences[1].blocks[0].appended;
  ASSERT_GE(after.size(), 2u);
  EXPECT_EQ(after[0], before[0]);
  EXPECT_EQ(after[1], before[1]);
}

TEST(SchedulerTest, SharesThePromptOfASequenceThatCameBefore) {
  Scheduler scheduler(Limits());
  ASSERT_TRUE(scheduler.Add(Sequence(1, Tokens(40))).ok());
  const ScheduledStep first = RunOne(scheduler);
  EXPECT_TRUE(scheduler.Cancel(1));
  EXPECT_EQ(scheduler.num_free_blocks(), 64);
  ASSERT_TRUE(scheduler.Add(Sequence(2, Tokens(40))).ok());
  const ScheduledStep second = RunOne(scheduler);
  EXPECT_EQ(second.header.sequences[0].first_position, 32);
  EXPECT_EQ(scheduler.num_cached_tokens(2), 32);
  const auto& before = first.header.sequences[0].blocks[0].appended;
  const auto& after = second.header.sequences[0].blocks[0].appended;
  EXPECT_EQ(before[0], after[0]);
  EXPECT_EQ(before[1], after[1]);
}

TEST(SchedulerTest, AlwaysRecomputesTheLastTokenOfACachedPrompt) {
  for (const int size : {1, 15, 16, 17, 31, 32, 33}) {
    Scheduler scheduler(Limits());
    for (const SequenceId id : {1, 2}) {
      ASSERT_TRUE(scheduler.Add(Sequence(id, Tokens(size))).ok());
      const ScheduledStep step = RunOne(scheduler);
      const SequenceStep& sequence = step.header.sequences[0];
      EXPECT_EQ(sequence.first_position, id == 1 ? 0 : (size - 1) / 16 * 16) << size;
      EXPECT_EQ(sequence.want, StepWant::kSample);
      EXPECT_TRUE(scheduler.Cancel(id));
    }
  }
}

TEST(SchedulerTest, SamplesOfOneRequestWaitForThePromptInsteadOfComputingItAgain) {
  Scheduler scheduler(Limits());
  for (const SequenceId id : {1, 2, 3}) {
    NewSequence sequence = Sequence(id, Tokens(40));
    sequence.sample_index = static_cast<uint32_t>(id - 1);
    ASSERT_TRUE(scheduler.Add(std::move(sequence)).ok());
  }
  EXPECT_THAT(Ids(RunOne(scheduler)), ElementsAre(1));
  EXPECT_EQ(scheduler.num_running(), 3);
  const ScheduledStep second = RunOne(scheduler);
  EXPECT_THAT(Ids(second), ElementsAre(1, 2, 3));
  EXPECT_EQ(second.header.sequences[1].first_position, 32);
  EXPECT_EQ(second.header.sequences[1].tokens.size(), 8u);
  EXPECT_EQ(scheduler.num_free_blocks(), 64 - 5) << "two shared blocks and three of their own";
}

TEST(SchedulerTest, ComputesByItselfWhenTheSequenceItWaitedForIsCancelled) {
  SchedulerLimits limits = Limits();
  limits.max_step_tokens = 24;  // ends in the middle of a block
  Scheduler scheduler(limits);
  ASSERT_TRUE(scheduler.Add(Sequence(1, Tokens(60))).ok());
  ASSERT_TRUE(scheduler.Add(Sequence(2, Tokens(60))).ok());
  EXPECT_THAT(Ids(RunOne(scheduler)), ElementsAre(1));
  EXPECT_TRUE(scheduler.Cancel(1));
  const ScheduledStep step = RunOne(scheduler);
  EXPECT_THAT(Ids(step), ElementsAre(2));
  EXPECT_EQ(step.header.sequences[0].first_position, 16);
}

TEST(SchedulerTest, KeepsAStepInFlightPerStage) {
  for (const int stages : {1, 2, 3, 5}) {
    SchedulerLimits limits = Limits();
    limits.max_steps_in_flight = stages;
    Scheduler scheduler(limits);
    for (int i = 0; i < stages; ++i) {
      ASSERT_TRUE(scheduler.Add(Sequence(static_cast<SequenceId>(i + 1), Tokens(4, 100 * i))).ok());
    }
    std::vector<ScheduledStep> steps;
    while (auto step = scheduler.NextStep()) steps.push_back(*step);
    EXPECT_EQ(steps.size(), static_cast<size_t>(stages));
    // It stays so when decoding.
    for (int i = 0; i < 10; ++i) {
      ASSERT_TRUE(scheduler.FinishStep(Answer(steps.front())).ok());
      steps.erase(steps.begin());
      while (auto step = scheduler.NextStep()) steps.push_back(*step);
      EXPECT_EQ(scheduler.num_steps_in_flight(), stages);
      scheduler.CheckInvariants();
    }
  }
}

TEST(SchedulerTest, SplitsSixteenSequencesEvenlyOverTwoSteps) {
  SchedulerLimits limits = Limits();
  limits.max_steps_in_flight = 2;
  Scheduler scheduler(limits);
  for (SequenceId id = 1; id <= 16; ++id) {
    ASSERT_TRUE(scheduler.Add(Sequence(id, Tokens(4, 100 * static_cast<int>(id)))).ok());
  }
  EXPECT_EQ(scheduler.NextStep()->header.sequences.size(), 8u);
  EXPECT_EQ(scheduler.NextStep()->header.sequences.size(), 8u);
  EXPECT_FALSE(scheduler.NextStep().has_value());
}

TEST(SchedulerTest, FreesTheBlocksOfACancelledSequenceWhenItsStepReturns) {
  Scheduler scheduler(Limits());
  ASSERT_TRUE(scheduler.Add(Sequence(1, Tokens(40))).ok());
  const ScheduledStep step = *scheduler.NextStep();
  EXPECT_EQ(scheduler.num_free_blocks(), 61);
  EXPECT_TRUE(scheduler.Cancel(1));
  EXPECT_FALSE(scheduler.Cancel(1));
  EXPECT_EQ(scheduler.num_running(), 0);
  EXPECT_EQ(scheduler.num_free_blocks(), 61) << "the step still writes them";
  ASSERT_TRUE(scheduler.FinishStep(Answer(step)).ok());
  EXPECT_EQ(scheduler.num_free_blocks(), 64);
  scheduler.CheckInvariants();
}

TEST(SchedulerTest, ResumesWithTheTokensAlreadyDelivered) {
  Scheduler scheduler(Limits());
  NewSequence sequence = Sequence(1, Tokens(10), 6);
  sequence.resumed = {50, 51, 52, 53, 54};
  ASSERT_TRUE(scheduler.Add(std::move(sequence)).ok());
  const ScheduledStep step = RunOne(scheduler);
  EXPECT_EQ(step.opened[0].num_prompt_tokens, 10u);
  EXPECT_EQ(step.opened[0].tokens.size(), 15u);
  EXPECT_EQ(step.header.sequences[0].tokens.size(), 15u);
  EXPECT_EQ(scheduler.num_running(), 0) << "max_tokens counts the resumed ones";
  EXPECT_EQ(scheduler.num_free_blocks(), 64);
  EXPECT_TRUE(scheduler.Cancel(1)) << "known until its owner has seen the end";
}

TEST(SchedulerTest, ScoresEachTokenOnceAndTakesNothingFromTheCache) {
  SchedulerLimits limits = Limits();
  limits.max_step_tokens = 16;
  Scheduler scheduler(limits);
  for (const SequenceId id : {1, 2}) {
    NewSequence sequence = Sequence(id, Tokens(20), 0);
    sequence.want = StepWant::kScore;
    ASSERT_TRUE(scheduler.Add(std::move(sequence)).ok());
    for (const size_t scores : {16u, 3u}) {
      const ScheduledStep step = *scheduler.NextStep();
      EXPECT_EQ(step.header.sequences[0].want, StepWant::kScore);
      StepResult result = Answer(step);
      EXPECT_FALSE(scheduler.FinishStep(result).ok()) << "scores are missing";
      result.sampled[0].scores.assign(scores, -1.0f);
      EXPECT_TRUE(scheduler.FinishStep(result).ok());
    }
    EXPECT_EQ(scheduler.num_free_blocks(), 64);
  }
}

TEST(SchedulerTest, TellsEveryKvGroupOfItsBlocks) {
  SchedulerLimits limits = Limits();
  limits.num_kv_groups = 2;
  Scheduler scheduler(limits);
  ASSERT_TRUE(scheduler.Add(Sequence(1, Tokens(17))).ok());
  const ScheduledStep step = RunOne(scheduler);
  ASSERT_EQ(step.header.sequences[0].blocks.size(), 2u);
  for (uint32_t group = 0; group < 2; ++group) {
    EXPECT_EQ(step.header.sequences[0].blocks[group].kv_group, group);
    EXPECT_EQ(step.header.sequences[0].blocks[group].appended.size(), 2u);
  }
}

void ExpectRefused(Scheduler& scheduler, NewSequence sequence, absl::StatusCode code,
                   const std::string& words) {
  const absl::Status status = scheduler.Add(std::move(sequence));
  EXPECT_EQ(status.code(), code);
  EXPECT_THAT(std::string(status.message()), HasSubstr(words));
}

TEST(SchedulerTest, RefusesWhatCouldNotFitAlone) {
  SchedulerLimits limits = Limits();
  limits.num_kv_blocks = 4;
  Scheduler scheduler(limits);
  const auto invalid = absl::StatusCode::kInvalidArgument;
  ExpectRefused(scheduler, Sequence(1, Tokens(40), 26), invalid, "needs 5 KV blocks");
  ExpectRefused(scheduler, Sequence(1, Tokens(500), 13), invalid, "context of 512");
  ExpectRefused(scheduler, Sequence(1, {}, 1), invalid, "no token");
  ExpectRefused(scheduler, Sequence(1, Tokens(1), -1), invalid, "negative");
  NewSequence done = Sequence(1, Tokens(1), 2);
  done.resumed = {1, 2};
  ExpectRefused(scheduler, done, invalid, "nothing left");
  EXPECT_TRUE(scheduler.Add(Sequence(1, Tokens(40), 25)).ok());
  ExpectRefused(scheduler, Sequence(1, Tokens(4), 2), invalid, "known already");
  EXPECT_TRUE(scheduler.Add(Sequence(2, Tokens(40), 0)).ok()) << "0 fills what there is";
}

TEST(SchedulerTest, RefusesWhenTheQueueIsFull) {
  SchedulerLimits limits = Limits();
  limits.max_waiting = 2;
  limits.max_waiting_tokens = 250;
  Scheduler scheduler(limits);
  const auto exhausted = absl::StatusCode::kResourceExhausted;
  ASSERT_TRUE(scheduler.Add(Sequence(1, Tokens(50), 100)).ok());
  ExpectRefused(scheduler, Sequence(2, Tokens(1), 100), exhausted, "of at most 250 tokens");
  ASSERT_TRUE(scheduler.Add(Sequence(2, Tokens(1), 99)).ok());
  ExpectRefused(scheduler, Sequence(3, Tokens(1), 1), exhausted, "of at most 2 sequences");
}

TEST(SchedulerTest, RefusesAResultThatDoesNotMatchItsStep) {
  Scheduler scheduler(Limits());
  EXPECT_FALSE(scheduler.FinishStep(StepResult{}).ok()) << "nothing is in flight";
  ASSERT_TRUE(scheduler.Add(Sequence(1, Tokens(4))).ok());
  const ScheduledStep step = *scheduler.NextStep();
  StepResult wrong = Answer(step);
  wrong.step_id += 1;
  EXPECT_EQ(scheduler.FinishStep(wrong).code(), absl::StatusCode::kInvalidArgument);
  wrong = Answer(step);
  wrong.sampled.clear();
  EXPECT_EQ(scheduler.FinishStep(wrong).code(), absl::StatusCode::kInvalidArgument);
  wrong = Answer(step);
  wrong.sampled.push_back(wrong.sampled[0]);
  EXPECT_EQ(scheduler.FinishStep(wrong).code(), absl::StatusCode::kInvalidArgument);
  wrong = Answer(step, -1);
  EXPECT_EQ(scheduler.FinishStep(wrong).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(scheduler.FinishStep(Answer(step)).ok()) << "refusing changed nothing";
}

}  // namespace
}  // namespace sauva
