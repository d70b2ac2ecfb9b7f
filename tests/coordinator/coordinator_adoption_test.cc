// A coordinator that died and came back.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/coordinator/story.h"

namespace sauva {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

Story Restarted(uint64_t start_time_ms, int expected_workers = 0) {
  CoordinatorConfig config = Story::Config();
  config.stages = 3;
  config.expected_workers = expected_workers;
  Story story(config);
  story.JoinAll(3);
  story.Advance(absl::Seconds(5));
  EXPECT_TRUE(story.OnlyPipeline().ready);
  story.RestartCoordinator(start_time_ms);
  return story;
}

TEST(AdoptionTest, ACompletePipelineIsAdoptedAsItIs) {
  Story story = Restarted(2000);
  const uint64_t epoch = story.worker("w0").stage->assignment.epoch;
  story.Join("w0");
  story.Join("w1");
  EXPECT_THAT(story.Status().pipelines, IsEmpty());
  story.Join("w2");
  EXPECT_TRUE(story.OnlyPipeline().ready);
  EXPECT_EQ(story.OnlyPipeline().epoch, epoch);
  story.Advance(absl::Seconds(10));
  EXPECT_EQ(story.OnlyPipeline().epoch, epoch);
  for (const std::string id : {"w0", "w1", "w2"}) {
    EXPECT_EQ(story.worker(id).loads, 1);
    EXPECT_THAT(story.worker(id).stops, IsEmpty());
  }
}

TEST(AdoptionTest, WaitingDispatchesGoToTheAdoptedPipeline) {
  Story story = Restarted(2000);
  const Ticket ticket = story.Dispatch();
  EXPECT_FALSE(story.Answer(ticket).has_value());
  story.JoinAll(3);
  ASSERT_TRUE(story.Answer(ticket).has_value());
  EXPECT_EQ((*story.Answer(ticket))->epoch, story.OnlyPipeline().epoch);
}

TEST(AdoptionTest, LaterEpochsAreAboveTheAdoptedOneEvenIfTheClockWentBack) {
  Story story = Restarted(1);
  story.JoinAll(3);
  const uint64_t adopted = story.OnlyPipeline().epoch;
  EXPECT_GT(adopted, uint64_t{1} << 21);
  story.Kill("w1");
  story.Break("w0", "w1");
  story.AdvanceUntilReady();
  EXPECT_GT(story.OnlyPipeline().epoch, adopted);
}

TEST(AdoptionTest, EpochsAreAboveWhatAnIdleWorkerHasSeen) {
  // The clock of the coordinator before this one was ahead.
  const uint64_t seen = (Story::Config().start_time_ms + 77) << 20;
  Story story;
  story.Join("w0");
  story.worker("w0").hello.newest_epoch = seen;
  story.Join("w0");
  story.AdvanceUntilReady();
  EXPECT_GT(story.OnlyPipeline().epoch, seen);
}

TEST(AdoptionTest, AnIncompletePipelineIsStoppedAfterTwoLeasesAndPlacedAnew) {
  Story story = Restarted(2000);
  const uint64_t epoch = story.worker("w0").stage->assignment.epoch;
  story.Kill("w1");
  story.Join("w0");
  story.Join("w2");
  story.Advance(2 * Story::Config().lease - absl::Milliseconds(100));
  EXPECT_THAT(story.Status().pipelines, IsEmpty());
  EXPECT_THAT(story.worker("w0").stops, IsEmpty());
  story.Advance(absl::Milliseconds(300));
  ASSERT_THAT(story.worker("w0").stops, SizeIs(1));
  EXPECT_EQ(story.worker("w0").stops[0].epoch, epoch);
  story.AdvanceUntilReady();
  EXPECT_THAT(story.OnlyPipeline().stages, SizeIs(2));
}

TEST(AdoptionTest, WithAllExpectedWorkersThereAHopelessPipelineIsNotWaitedFor) {
  Story story = Restarted(2000, 3);
  story.Kill("w1");
  const absl::Time restarted = story.now();
  story.JoinAll(1);
  story.Join("w2");
  story.Join("fresh");
  story.AdvanceUntilReady();
  EXPECT_LT(story.now() - restarted, absl::Milliseconds(100));
  EXPECT_THAT(story.WorkersOf(story.OnlyPipeline()), ElementsAre("w0", "fresh", "w2"));
  EXPECT_EQ(story.worker("w0").loads, 1);
  EXPECT_EQ(story.worker("w2").loads, 1);
}

TEST(AdoptionTest, AWorkerOfAnotherDigestIsStopped) {
  Story story = Restarted(2000);
  story.worker("w0").stage->assignment.model.digest = "changed";
  story.Join("w0");
  EXPECT_THAT(story.worker("w0").stops, SizeIs(1));
}

TEST(AdoptionTest, StagesThatDisagreeAboutTheirPipelineAreNotAdopted) {
  Story story = Restarted(2000);
  story.worker("w1").stage->assignment.stages[0].address = "elsewhere:1";
  story.JoinAll(3);
  EXPECT_THAT(story.Status().pipelines, IsEmpty());
}

TEST(AdoptionTest, AStageIndexOutOfRangeIsStoppedNotTrusted) {
  Story story = Restarted(2000);
  story.worker("w0").stage->assignment.stage_index = 99;
  story.Join("w0");
  EXPECT_THAT(story.worker("w0").stops, SizeIs(1));
}

TEST(AdoptionTest, AStageThatStartsServingLaterCompletesThePipeline) {
  Story story = Restarted(2000);
  story.worker("w2").stage->phase = StagePhase::kLoaded;
  story.JoinAll(3);
  EXPECT_THAT(story.Status().pipelines, IsEmpty());
  story.worker("w2").stage->phase = StagePhase::kServing;
  story.Advance(absl::Milliseconds(500));
  EXPECT_TRUE(story.OnlyPipeline().ready);
}

TEST(AdoptionTest, AnEpochThatBreaksBeforeItIsCompleteIsPlacedAnewAtOnce) {
  Story story = Restarted(2000);
  story.worker("w2").stage->phase = StagePhase::kLoaded;
  story.JoinAll(3);
  story.Advance(2 * Story::Config().lease - absl::Milliseconds(500));
  story.worker("w1").stage.reset();  // it lost a neighbour
  story.Advance(absl::Milliseconds(500));
  story.AdvanceUntilReady();
  for (const std::string id : {"w0", "w1", "w2"}) EXPECT_EQ(story.worker(id).loads, 1);
}

TEST(AdoptionTest, AnAdoptedPipelineThatEndedDoesNotComeBack) {
  Story story = Restarted(2000);
  story.JoinAll(3);
  const uint64_t epoch = story.OnlyPipeline().epoch;
  story.worker("w1").frozen = true;
  story.Break("w0", "w1");
  story.AdvanceUntilReady();
  story.worker("w1").frozen = false;
  story.Join("w1");
  ASSERT_THAT(story.worker("w1").stops, SizeIs(1));
  EXPECT_EQ(story.worker("w1").stops[0].epoch, epoch);
}

}  // namespace
}  // namespace sauva
