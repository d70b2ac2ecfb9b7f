// Where a request goes.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/coordinator/story.h"

namespace sauva {
namespace {

using testing::HasSubstr;

Story Ready(int replicas, CoordinatorConfig config = Story::Config()) {
  config.expected_workers = replicas;
  Story story(config, replicas);
  story.JoinAll(replicas);
  EXPECT_EQ(story.coordinator().num_ready_pipelines(), replicas);
  return story;
}

absl::Status StatusOf(const Story& story, Ticket ticket) {
  const auto answer = story.Answer(ticket);
  return answer ? answer->status() : absl::UnknownError("not answered");
}

TEST(DispatchTest, GivesHeadEpochAndNumerics) {
  Story story = Ready(1);
  const auto answer = story.Answer(story.Dispatch({.model = "prose", .num_tokens = 256}));
  ASSERT_TRUE(answer && answer->ok());
  EXPECT_EQ((*answer)->head_address, "w0:1");
  EXPECT_EQ((*answer)->epoch, story.OnlyPipeline().epoch);
  EXPECT_EQ((*answer)->numerics_id, story.OnlyPipeline().numerics_id);
  EXPECT_EQ((*answer)->max_context, 256u);
  EXPECT_EQ((*answer)->model.digest, "prose-digest");
}

TEST(DispatchTest, AnUnknownModelIsNotFoundAndTheKnownOnesAreNamed) {
  Story story = Ready(1);
  const absl::Status status = StatusOf(story, story.Dispatch({.model = "poetry"}));
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("served: prose"));
}

TEST(DispatchTest, AnEmptyModelNeedsToBeUnambiguous) {
  Story story = Ready(1);
  story.Event(LoadAsked{.ticket = 2, .model = Story::Model("verse"), .replicas = 1});
  EXPECT_EQ(StatusOf(story, story.Dispatch()).code(), absl::StatusCode::kInvalidArgument);
}

TEST(DispatchTest, MoreTokensThanTheContextAreRefused) {
  Story story = Ready(1);
  EXPECT_TRUE(StatusOf(story, story.Dispatch({.num_tokens = 256})).ok());
  const absl::Status status = StatusOf(story, story.Dispatch({.num_tokens = 257}));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("num_tokens is 257, the context of model prose is 256"));
}

TEST(DispatchTest, TheLeastLoadedPipelineIsChosen) {
  Story story = Ready(2);
  std::map<uint64_t, int> chosen;
  for (int i = 0; i < 10; ++i) ++chosen[(*story.Answer(story.Dispatch()))->epoch];
  EXPECT_EQ(chosen.size(), 2u);
  for (const auto& [epoch, count] : chosen) EXPECT_EQ(count, 5);
  // One head reports a queue: the other gets what follows.
  story.worker("w0").stage->waiting_sequences = 50;
  story.Advance(absl::Milliseconds(500));
  const uint64_t busy = story.worker("w0").stage->assignment.epoch;
  for (int i = 0; i < 10; ++i) EXPECT_NE((*story.Answer(story.Dispatch()))->epoch, busy);
}

TEST(DispatchTest, ALostPipelineIsNeverChosen) {
  Story story = Ready(2);
  const uint64_t lost = story.Status().pipelines[0].epoch;
  for (int i = 0; i < 10; ++i) {
    EXPECT_NE((*story.Answer(story.Dispatch({.broken_epochs = {lost}})))->epoch, lost);
  }
}

TEST(DispatchTest, PreferredNumericsWinOverLoadAndRequiredNumericsWait) {
  CoordinatorConfig config = Story::Config();
  config.expected_workers = 2;
  Story story(config, 2);
  story.Join("w0");
  story.worker("w0").hello.backend_class = "cuda-sm90";
  story.Join("w0");
  story.Join("w1");
  ASSERT_EQ(story.coordinator().num_ready_pipelines(), 2);
  const PipelineStatus cuda = story.Status().pipelines[0];
  const PipelineStatus cpu = story.Status().pipelines[1];
  ASSERT_NE(cuda.numerics_id, cpu.numerics_id);
  for (int i = 0; i < 5; ++i) {
    const Ticket ticket = story.Dispatch({.numerics_id = cpu.numerics_id});
    EXPECT_EQ((*story.Answer(ticket))->epoch, cpu.epoch);
  }
  const DispatchRequest lost{.numerics_id = cpu.numerics_id, .broken_epochs = {cpu.epoch}};
  EXPECT_EQ((*story.Answer(story.Dispatch(lost)))->epoch, cuda.epoch);
  DispatchRequest exact = lost;
  exact.require_numerics = true;
  const Ticket ticket = story.Dispatch(exact, absl::Seconds(1));
  EXPECT_FALSE(story.Answer(ticket).has_value());
  story.Advance(absl::Seconds(2));
  EXPECT_EQ(StatusOf(story, ticket).code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(DispatchTest, WaitsForAPipelineInOrder) {
  Story story;
  const Ticket first = story.Dispatch({}, absl::Seconds(60));
  const Ticket second = story.Dispatch({}, absl::Seconds(60));
  EXPECT_EQ(story.Status().waiting_dispatches, 2u);
  story.Join("w0");
  story.AdvanceUntilReady();
  EXPECT_TRUE(StatusOf(story, first).ok());
  EXPECT_TRUE(StatusOf(story, second).ok());
  EXPECT_EQ(story.Status().waiting_dispatches, 0u);
}

TEST(DispatchTest, ADeadlineThatPassesWhileWaitingSaysWhyNothingWasReady) {
  CoordinatorConfig config = Story::Config();
  config.stages = 4;
  Story story(config);
  story.Join("w0");
  const Ticket ticket = story.Dispatch({}, absl::Seconds(5));
  story.Advance(absl::Milliseconds(4990));
  EXPECT_FALSE(story.Answer(ticket).has_value());
  story.Advance(absl::Milliseconds(20));
  EXPECT_EQ(StatusOf(story, ticket).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(StatusOf(story, ticket).message(), HasSubstr("stages is 4"));
}

TEST(DispatchTest, ADeadlineInThePastIsRefusedEvenIfAPipelineIsReady) {
  Story story = Ready(1);
  EXPECT_EQ(StatusOf(story, story.Dispatch({}, absl::ZeroDuration())).code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST(DispatchTest, TheWaitingListIsBounded) {
  CoordinatorConfig config = Story::Config();
  config.max_waiting = 2;
  Story story(config);
  story.Dispatch();
  const Ticket second = story.Dispatch();
  const absl::Status status = StatusOf(story, story.Dispatch());
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("the limit is 2"));
  story.Event(DispatchCancelled{second});
  EXPECT_FALSE(story.Answer(story.Dispatch()).has_value());
}

TEST(DispatchTest, ACancelledDispatchIsNeverAnswered) {
  Story story;
  const Ticket ticket = story.Dispatch();
  story.Event(DispatchCancelled{ticket});
  story.Join("w0");
  story.AdvanceUntilReady();
  EXPECT_FALSE(story.Answer(ticket).has_value());
}

TEST(DispatchTest, APipelineInDoubtIsTheLastChoice) {
  Story story = Ready(2);
  const uint64_t doubtful = story.worker("w0").stage->assignment.epoch;
  story.EndStream("w0");
  for (int i = 0; i < 5; ++i) EXPECT_NE((*story.Answer(story.Dispatch()))->epoch, doubtful);
}

TEST(DispatchTest, ShuttingDownAnswersThoseWhoWaitAndThoseWhoCome) {
  Story story;
  const Ticket waiting = story.Dispatch();
  story.Event(ShutDownAsked{});
  EXPECT_EQ(StatusOf(story, waiting).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(StatusOf(story, story.Dispatch()).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace sauva
