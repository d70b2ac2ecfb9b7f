// What happens when workers die, freeze or quarrel.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/coordinator/story.h"

namespace sauva {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

// A pipeline of `stages` on w0, w1, … and `spares` more workers.
Story Serving(int stages, int spares = 0) {
  CoordinatorConfig config = Story::Config();
  config.stages = stages;
  config.spares = spares;
  config.expected_workers = stages + spares;
  Story story(config);
  story.JoinAll(stages + spares);
  EXPECT_TRUE(story.OnlyPipeline().ready);
  return story;
}

TEST(RecoveryTest, AKilledWorkerNamedByItsNeighbourIsReplacedAtOnceByTheSpare) {
  Story story = Serving(3, 1);
  const uint64_t epoch = story.OnlyPipeline().epoch;
  const absl::Time killed = story.now();
  story.Kill("w1");
  story.Break("w0", "w1");
  story.AdvanceUntilReady();
  EXPECT_LT(story.now() - killed, absl::Milliseconds(100));
  EXPECT_GT(story.OnlyPipeline().epoch, epoch);
  EXPECT_THAT(story.WorkersOf(story.OnlyPipeline()), ElementsAre("w0", "w3", "w2"));
}

TEST(RecoveryTest, SurvivorsKeepTheirWeights) {
  Story story = Serving(3, 1);
  story.Kill("w1");
  story.Break("w2", "w1");
  story.AdvanceUntilReady();
  EXPECT_EQ(story.worker("w0").loads, 1);
  EXPECT_EQ(story.worker("w2").loads, 1);
  EXPECT_EQ(story.worker("w3").loads, 1);
}

TEST(RecoveryTest, SurvivorsAreToldToStopTheLostEpoch) {
  Story story = Serving(3);
  const uint64_t epoch = story.OnlyPipeline().epoch;
  story.Kill("w2");
  story.Break("w1", "w2");
  ASSERT_THAT(story.worker("w0").stops, SizeIs(1));
  EXPECT_EQ(story.worker("w0").stops[0].epoch, epoch);
}

TEST(RecoveryTest, WithoutASpareFewerStagesServeOn) {
  for (const std::string killed : {"w0", "w1", "w2"}) {
    Story story = Serving(3);
    story.Kill(killed);
    story.Break(killed == "w0" ? "w1" : "w0", killed);
    story.AdvanceUntilReady();
    EXPECT_THAT(story.WorkersOf(story.OnlyPipeline()), SizeIs(2));
    EXPECT_THAT(story.WorkersOf(story.OnlyPipeline()), Not(Contains(killed)));
  }
}

TEST(RecoveryTest, TheNeighbourMayComplainBeforeTheStreamEnds) {
  Story story = Serving(3, 1);
  const absl::Time broken = story.now();
  story.worker("w1").frozen = true;
  story.Break("w0", "w1");
  EXPECT_THAT(story.Status().pipelines, IsEmpty());  // w1 may be well: wait for its answer
  story.Kill("w1");
  story.AdvanceUntilReady();
  EXPECT_LT(story.now() - broken, absl::Milliseconds(100));
  EXPECT_THAT(story.WorkersOf(story.OnlyPipeline()), Contains("w3"));
}

TEST(RecoveryTest, AFrozenWorkerIsPassedOverEvenIfNobodyNamesIt) {
  Story story = Serving(3, 1);
  story.worker("w1").frozen = true;
  const absl::Time broken = story.now();
  story.Break("w0", "");  // the head heard of it from a stage that ended in order
  story.AdvanceUntilReady();
  EXPECT_LT(story.now() - broken, absl::Milliseconds(600));
  EXPECT_THAT(story.WorkersOf(story.OnlyPipeline()), ElementsAre("w0", "w3", "w2"));
}

TEST(RecoveryTest, HealthyWorkersOfABrokenPipelineArePlacedAgainAtOnce) {
  Story story = Serving(3);
  story.Break("w0", "w1");
  EXPECT_TRUE(story.OnlyPipeline().ready);
  EXPECT_THAT(story.WorkersOf(story.OnlyPipeline()), ElementsAre("w0", "w1", "w2"));
}

TEST(RecoveryTest, AFrozenSuspectIsPassedOverAfterTwoHeartbeats) {
  Story story = Serving(3, 1);
  story.worker("w1").frozen = true;
  const absl::Time broken = story.now();
  story.Break("w2", "w1");
  story.AdvanceUntilReady();
  EXPECT_LT(story.now() - broken, absl::Milliseconds(600));
  EXPECT_THAT(story.WorkersOf(story.OnlyPipeline()), ElementsAre("w0", "w3", "w2"));
}

TEST(RecoveryTest, ASuspectThatBeatsOnIsTakenAgainUnderANewEpoch) {
  Story story = Serving(3, 1);
  const uint64_t epoch = story.OnlyPipeline().epoch;
  story.Break("w2", "w1");
  story.AdvanceUntilReady();
  EXPECT_GT(story.OnlyPipeline().epoch, epoch);
  EXPECT_THAT(story.WorkersOf(story.OnlyPipeline()), ElementsAre("w0", "w1", "w2"));
}

TEST(RecoveryTest, RepeatedOffencesCostEverLongerWaits) {
  Story story = Serving(2);
  const uint64_t before = story.coordinator().counters().epochs_started;
  const absl::Time end = story.now() + absl::Seconds(30);
  while (story.now() < end) {
    story.Advance(absl::Milliseconds(20));
    if (story.coordinator().num_ready_pipelines() == 0) continue;
    const std::vector<std::string> workers = story.WorkersOf(story.OnlyPipeline());
    if (workers.size() == 2) story.Break(workers[0], workers[1]);
    if (workers.size() == 1) break;  // placed without the quarrelsome one
  }
  EXPECT_LE(story.coordinator().counters().epochs_started - before, 3u);
  EXPECT_EQ(story.coordinator().num_ready_pipelines(), 1);
}

TEST(RecoveryTest, BreaksWithoutASuspectAreRetriedWithBackoff) {
  Story story = Serving(1);
  const absl::Time end = story.now() + absl::Seconds(20);
  while (story.now() < end) {
    story.Advance(absl::Milliseconds(20));
    if (story.coordinator().num_ready_pipelines() == 1) story.Break("w0", "");
  }
  EXPECT_GE(story.coordinator().counters().epochs_started, 5u);
  EXPECT_LE(story.coordinator().counters().epochs_started, 10u);
  story.AdvanceUntilReady();
}

TEST(RecoveryTest, AWorkerWhoseStreamAloneEndsMayComeBackAndNothingIsDisturbed) {
  Story story = Serving(2);
  const uint64_t epoch = story.OnlyPipeline().epoch;
  story.EndStream("w1");
  story.Advance(absl::Milliseconds(900));
  EXPECT_TRUE(story.OnlyPipeline().ready);
  story.Join("w1");
  story.Advance(absl::Seconds(5));
  EXPECT_EQ(story.OnlyPipeline().epoch, epoch);
  EXPECT_THAT(story.worker("w0").stops, IsEmpty());
}

TEST(RecoveryTest, AWorkerThatDoesNotComeBackInTimeIsLost) {
  Story story = Serving(2);
  const absl::Time ended = story.now();
  const uint64_t epoch = story.OnlyPipeline().epoch;
  story.Kill("w1");
  story.AdvanceUntil([&] { return story.OnlyPipeline().epoch != epoch; });
  EXPECT_GE(story.now() - ended, Story::Config().rejoin_grace);
  EXPECT_LT(story.now() - ended, Story::Config().rejoin_grace + absl::Milliseconds(50));
  EXPECT_TRUE(story.OnlyPipeline().ready);
  EXPECT_THAT(story.WorkersOf(story.OnlyPipeline()), ElementsAre("w0"));
}

TEST(RecoveryTest, AClientThatLostThePipelineCutsTheGraceShort) {
  Story story = Serving(1, 1);
  const uint64_t epoch = story.OnlyPipeline().epoch;
  const std::string head = story.WorkersOf(story.OnlyPipeline())[0];
  story.Kill(head);
  const Ticket ticket = story.Dispatch({.broken_epochs = {epoch}});
  ASSERT_TRUE(story.Answer(ticket).has_value());
  EXPECT_NE((*story.Answer(ticket))->epoch, epoch);
}

TEST(RecoveryTest, AClientsWordAloneEndsNoPipeline) {
  Story story = Serving(2);
  const uint64_t epoch = story.OnlyPipeline().epoch;
  story.Dispatch({.broken_epochs = {epoch}});
  story.Advance(absl::Seconds(5));
  EXPECT_EQ(story.OnlyPipeline().epoch, epoch);
}

TEST(RecoveryTest, ASilentWorkerIsLostWhenItsLeaseRunsOut) {
  Story story = Serving(2);
  const uint64_t epoch = story.OnlyPipeline().epoch;
  story.worker("w1").frozen = true;
  story.Advance(Story::Config().lease - absl::Milliseconds(300));
  EXPECT_EQ(story.OnlyPipeline().epoch, epoch);
  story.Advance(absl::Milliseconds(600));
  EXPECT_THAT(story.WorkersOf(story.OnlyPipeline()), ElementsAre("w0"));
  ASSERT_THAT(story.worker("w1").closed, SizeIs(1));
  // It wakes up, joins again and is told that its epoch is over.
  story.worker("w1").frozen = false;
  story.Join("w1");
  ASSERT_THAT(story.worker("w1").stops, SizeIs(1));
  EXPECT_EQ(story.worker("w1").stops[0].epoch, epoch);
  story.Advance(absl::Seconds(10));
  EXPECT_THAT(story.WorkersOf(story.OnlyPipeline()), ElementsAre("w0"));
}

TEST(RecoveryTest, ACoordinatorThatSleptLosesNobody) {
  Story story = Serving(2);
  const uint64_t epoch = story.OnlyPipeline().epoch;
  Coordinator& coordinator = const_cast<Coordinator&>(story.coordinator());
  const absl::Time later = story.now() + absl::Seconds(30);
  const CoordinatorEffects effects = coordinator.OnEvent(CoordinatorTick{}, later);
  EXPECT_THAT(effects, IsEmpty());
  EXPECT_EQ(coordinator.Status(later).pipelines[0].epoch, epoch);
}

TEST(RecoveryTest, AProcessThatTakesOverAnAddressEndsTheOldOne) {
  Story story = Serving(2);
  const uint64_t epoch = story.OnlyPipeline().epoch;
  const WorkerHello old = story.worker("w1").hello;
  story.Kill("w1");
  WorkerHello hello = old;
  hello.worker_id = "w1-again";
  story.Event(WorkerJoined{900, hello});
  EXPECT_NE(story.OnlyPipeline().epoch, epoch);
  EXPECT_THAT(story.WorkersOf(story.OnlyPipeline()), ElementsAre("w0", "w1-again"));
}

TEST(RecoveryTest, AWorkerThatDroppedItsStageEndsThePipeline) {
  Story story = Serving(2);
  const uint64_t epoch = story.OnlyPipeline().epoch;
  story.worker("w1").stage.reset();
  story.Advance(absl::Seconds(1));
  EXPECT_GT(story.OnlyPipeline().epoch, epoch);
  EXPECT_TRUE(story.OnlyPipeline().ready);
}

TEST(RecoveryTest, ALateComplaintAboutAnEndedEpochIsIgnored) {
  Story story = Serving(3);
  const uint64_t old_epoch = story.OnlyPipeline().epoch;
  story.Break("w0", "w1");
  story.AdvanceUntilReady();
  const uint64_t epoch = story.OnlyPipeline().epoch;
  story.Event(
      BreakCame{story.worker("w2").connection, {.epoch = old_epoch, .suspect_worker_id = "w0"}});
  EXPECT_EQ(story.OnlyPipeline().epoch, epoch);
}

TEST(RecoveryTest, ASecondJoinReplacesTheFirstStream) {
  Story story = Serving(2);
  const uint64_t epoch = story.OnlyPipeline().epoch;
  const ConnectionId old = story.worker("w1").connection;
  story.Join("w1");
  story.Event(WorkerGone{old});  // the old stream's end is no news
  story.Advance(absl::Seconds(5));
  EXPECT_EQ(story.OnlyPipeline().epoch, epoch);
}

TEST(RecoveryTest, OneOfTwoReplicasDiesAndTheOtherCarriesOn) {
  CoordinatorConfig config = Story::Config();
  config.stages = 2;
  config.expected_workers = 4;
  Story story(config, 2);
  story.JoinAll(4);
  ASSERT_EQ(story.coordinator().num_ready_pipelines(), 2);
  const std::vector<PipelineStatus> before = story.Status().pipelines;
  const std::vector<std::string> dying = story.WorkersOf(before[0]);
  story.Kill(dying[1]);
  story.Break(dying[0], dying[1]);
  const Ticket ticket = story.Dispatch({.broken_epochs = {before[0].epoch}});
  ASSERT_TRUE(story.Answer(ticket).has_value());
  EXPECT_EQ((*story.Answer(ticket))->epoch, before[1].epoch);
  story.AdvanceUntilReady(2);  // the survivor alone holds the whole model
  EXPECT_EQ(story.Status().pipelines[0].epoch, before[1].epoch);
}

TEST(RecoveryTest, WithTwoLossesInARowThePipelineComesUpAgain) {
  Story story = Serving(3, 2);
  story.Kill("w0");
  story.Kill("w1");
  story.Break("w2", "w1");
  story.AdvanceUntilReady();
  EXPECT_THAT(story.WorkersOf(story.OnlyPipeline()), SizeIs(3));
}

}  // namespace
}  // namespace sauva
