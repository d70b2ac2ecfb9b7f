// Joining, placing and loading.
#include "coordinator/coordinator.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/coordinator/story.h"

namespace sauva {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

TEST(CoordinatorTest, PlacesNothingForTwoLeasesThenUsesAllWorkers) {
  Story story;
  story.JoinAll(2);
  story.Advance(2 * Story::Config().lease - absl::Milliseconds(20));
  EXPECT_THAT(story.Status().pipelines, IsEmpty());
  story.Advance(absl::Milliseconds(40));
  EXPECT_TRUE(story.OnlyPipeline().ready);
  EXPECT_THAT(story.WorkersOf(story.OnlyPipeline()), SizeIs(2));
}

TEST(CoordinatorTest, PlacesAsSoonAsTheExpectedWorkersHaveJoined) {
  CoordinatorConfig config = Story::Config();
  config.expected_workers = 3;
  Story story(config);
  story.JoinAll(2);
  EXPECT_THAT(story.Status().pipelines, IsEmpty());
  story.Join("w2");
  EXPECT_TRUE(story.OnlyPipeline().ready);
  EXPECT_THAT(story.WorkersOf(story.OnlyPipeline()), ElementsAre("w0", "w1", "w2"));
}

TEST(CoordinatorTest, EpochsBeginWithTheStartTime) {
  CoordinatorConfig config = Story::Config();
  config.start_time_ms = 123'456;
  config.expected_workers = 1;
  Story story(config);
  story.Join("w0");
  EXPECT_EQ(story.OnlyPipeline().epoch >> 20, 123'456u);
}

TEST(CoordinatorTest, ForcesTheStagesAndKeepsTheSpares) {
  CoordinatorConfig config = Story::Config();
  config.stages = 3;
  config.spares = 1;
  config.expected_workers = 4;
  Story story(config);
  story.JoinAll(4);
  EXPECT_THAT(story.OnlyPipeline().stages, SizeIs(3));
  EXPECT_THAT(story.Status().placement_error, IsEmpty());
}

TEST(CoordinatorTest, SaysWhyItCannotPlace) {
  CoordinatorConfig config = Story::Config();
  config.stages = 3;
  Story story(config);
  story.JoinAll(2);
  story.Advance(absl::Seconds(5));
  EXPECT_THAT(story.Status().pipelines, IsEmpty());
  EXPECT_THAT(story.Status().placement_error, HasSubstr("stages is 3, but 2 workers"));
  story.Join("w2");
  EXPECT_TRUE(story.OnlyPipeline().ready);
  EXPECT_THAT(story.Status().placement_error, IsEmpty());
}

TEST(CoordinatorTest, AWorkerThatJoinsLaterBuildsTheMissingReplicaAndDisturbsNothing) {
  Story story(Story::Config(), 2);
  story.Join("w0");
  story.Advance(absl::Seconds(5));
  const uint64_t first = story.OnlyPipeline().epoch;
  EXPECT_THAT(story.Status().placement_error, HasSubstr("1 of 2 pipelines placed"));
  story.Join("w1");
  ASSERT_THAT(story.Status().pipelines, SizeIs(2));
  EXPECT_EQ(story.Status().pipelines[0].epoch, first);
  EXPECT_THAT(story.worker("w0").stops, IsEmpty());
  story.Join("w2");
  story.Advance(absl::Seconds(5));
  EXPECT_THAT(story.Status().pipelines, SizeIs(2));
  EXPECT_EQ(story.coordinator().counters().epochs_started, 2u);
}

TEST(CoordinatorTest, ThePoolIsTheSmallestOfAllStages) {
  CoordinatorConfig config = Story::Config();
  config.expected_workers = 2;
  Story story(config);
  story.Join("w0");
  story.Join("w1");
  EXPECT_EQ(story.OnlyPipeline().stages[1].report.num_kv_blocks, 100u);
}

TEST(CoordinatorTest, OtherProtocolAndNumericsVersionsAreRefusedNamingBoth) {
  Story story;
  WorkerHello hello{.worker_id = "old", .protocol_version = 9, .address = "old:1"};
  CoordinatorConfig config = Story::Config();
  Coordinator coordinator(config);
  const auto refuse = [&](ConnectionId connection) {
    const CoordinatorEffects effects =
        coordinator.OnEvent(WorkerJoined{connection, hello}, story.now());
    for (const CoordinatorEffect& effect : effects) {
      if (const auto* close = std::get_if<CloseConnection>(&effect)) return close->status;
    }
    return absl::OkStatus();
  };
  EXPECT_EQ(refuse(1).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(refuse(2).message(), HasSubstr("protocol version 9, this coordinator 1"));
  hello.protocol_version = kProtocolVersion;
  hello.numerics_version = 7;
  EXPECT_THAT(refuse(3).message(), HasSubstr("numerics version 7, this coordinator 3"));
  hello.numerics_version = kNumericsVersion;
  hello.worker_id.clear();
  EXPECT_EQ(refuse(4).code(), absl::StatusCode::kInvalidArgument);
  hello = {.worker_id = "x", .address = ""};
  EXPECT_EQ(refuse(5).code(), absl::StatusCode::kInvalidArgument);
  hello.address = "x:1";
  EXPECT_TRUE(refuse(6).ok());
  EXPECT_EQ(coordinator.counters().refusals.at("FAILED_PRECONDITION"), 3u);
}

TEST(CoordinatorTest, MoreWorkersThanTheLimitAreRefused) {
  CoordinatorConfig config = Story::Config();
  config.max_workers = 2;
  Story story(config);
  story.JoinAll(3);
  ASSERT_THAT(story.worker("w2").closed, SizeIs(1));
  EXPECT_EQ(story.worker("w2").closed[0].code(), absl::StatusCode::kResourceExhausted);
  story.Join("w1");  // one that is known may come back
  EXPECT_NE(story.worker("w1").connection, 0u);
}

TEST(CoordinatorTest, AFailedLoadIsShownAndRetriedWithBackoff) {
  CoordinatorConfig config = Story::Config();
  config.expected_workers = 2;
  Story story(config);
  story.Join("w0");
  story.worker("w0").fails_to_load = true;
  story.Join("w1");
  story.Advance(absl::Seconds(20));
  EXPECT_THAT(story.Status().placement_error,
              HasSubstr("worker w0 cannot serve layers [0, 3): digest is x, not y"));
  const uint64_t attempts = story.coordinator().counters().epochs_started;
  EXPECT_GE(attempts, 4u);  // after 0.25, 0.5, 1, 2, 4, 8 s
  EXPECT_LE(attempts, 8u);
  story.worker("w0").fails_to_load = false;
  story.AdvanceUntilReady();
  EXPECT_THAT(story.Status().placement_error, IsEmpty());
}

TEST(CoordinatorTest, ACacheTooSmallForOneSequenceFailsTheLoadNamingBlocks) {
  CoordinatorConfig config = Story::Config();
  config.expected_workers = 1;
  Story story(config);
  ModelDescription large = Story::Model("large");
  large.max_context = 100 * 16 + 1;
  story.Event(LoadAsked{.ticket = 2, .model = large, .replicas = 1});
  story.Join("w0");  // serves prose
  story.Join("w1");
  EXPECT_THAT(story.Status().placement_error,
              HasSubstr("holds 100 blocks, one sequence of 1601 tokens needs 101"));
}

TEST(CoordinatorTest, AWorkerThatNeverAnswersLoadStageFailsTheLoad) {
  CoordinatorConfig config = Story::Config();
  config.expected_workers = 2;
  Story story(config);
  story.Join("w0");
  story.worker("w0").frozen = true;
  story.Join("w1");
  EXPECT_FALSE(story.OnlyPipeline().ready);
  story.AdvanceUntilReady();  // w0 is lost by its lease, w1 takes all
  EXPECT_THAT(story.WorkersOf(story.OnlyPipeline()), ElementsAre("w1"));
}

TEST(CoordinatorTest, ASecondDigestOfAModelIsRefusedNamingBoth) {
  Story story;
  ModelDescription other = Story::Model();
  other.ref.digest = "other";
  story.Event(LoadAsked{.ticket = 2, .model = other, .replicas = 1});
  const absl::Status status = story.loads.at(2).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("prose-digest"));
  EXPECT_THAT(status.message(), HasSubstr("other"));
}

TEST(CoordinatorTest, TwoModelsShareTheWorkers) {
  Story story;
  story.Event(LoadAsked{.ticket = 2, .model = Story::Model("verse"), .replicas = 1});
  EXPECT_TRUE(story.loads.at(2).ok());
  story.Join("w0");
  story.Advance(absl::Seconds(5));
  story.Join("w1");
  ASSERT_THAT(story.Status().pipelines, SizeIs(2));
  EXPECT_EQ(story.Status().pipelines[0].model.name, "prose");
  EXPECT_EQ(story.Status().pipelines[1].model.name, "verse");
}

TEST(CoordinatorTest, FewerReplicasRetireTheNewestPipelineOnceItIsIdle) {
  Story story(Story::Config(), 2);
  story.JoinAll(2);
  story.Advance(absl::Seconds(5));
  ASSERT_EQ(story.coordinator().num_ready_pipelines(), 2);
  const uint64_t kept = story.Status().pipelines[0].epoch;
  story.Event(LoadAsked{.ticket = 2, .model = Story::Model(), .replicas = 1});
  story.Advance(absl::Seconds(1));
  EXPECT_EQ(story.OnlyPipeline().epoch, kept);
}

TEST(CoordinatorTest, StatusNamesWorkersStagesAndSpares) {
  CoordinatorConfig config = Story::Config();
  config.spares = 1;
  config.expected_workers = 3;
  Story story(config);
  story.JoinAll(3);
  const ClusterStatus status = story.Status();
  ASSERT_THAT(status.workers, SizeIs(3));
  EXPECT_EQ(std::ranges::count(status.workers, 0u, &WorkerStatus::epoch), 1);
  ASSERT_THAT(status.models, SizeIs(1));
  EXPECT_EQ(status.models[0].ready_pipelines, 1u);
  EXPECT_EQ(status.models[0].max_context, 256u);
}

}  // namespace
}  // namespace sauva
