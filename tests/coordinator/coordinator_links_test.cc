// Links by NCCL that cannot be had although both workers have NCCL.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/coordinator/story.h"

namespace sauva {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// A worker that cannot hold the whole model.
void JoinWithNccl(Story& story, const std::string& id, const std::string& version = "2.28.9") {
  WorkerHello& hello = story.Prepare(id).hello;
  hello.memory_bytes = 4'000'000;
  hello.nccl = {.version = version, .device = "GPU of " + id};
  story.Join(id);
}

// A pipeline of two stages on w0 and w1, both with NCCL.
Story Serving(LinkPolicy policy) {
  CoordinatorConfig config = Story::Config();
  config.stages = 2;
  config.expected_workers = 2;
  config.link = policy;
  config.link_failures = {.tolerated = 2, .retry_after = absl::Seconds(60)};
  Story story(config);
  JoinWithNccl(story, "w0");
  JoinWithNccl(story, "w1");
  EXPECT_TRUE(story.OnlyPipeline().ready);
  return story;
}

// The sender reports that the link of the pipeline fails.
void FailLink(Story& story) {
  const std::vector<std::string> workers = story.WorkersOf(story.OnlyPipeline());
  ASSERT_THAT(workers, SizeIs(2));
  story.Break(workers[0], workers[1], 0);
}
void FailLinkAndAwaitTheNext(Story& story) {
  FailLink(story);
  story.AdvanceUntilReady();
}

LinkKind LinkOf(const Story& story) { return story.OnlyPipeline().stages[0].endpoint.link; }

TEST(CoordinatorLinksTest, AutoGoesByGrpcAfterTwoLinksThatNeverWereThere) {
  Story story = Serving(LinkPolicy::kAuto);
  EXPECT_EQ(LinkOf(story), LinkKind::kNccl);
  FailLinkAndAwaitTheNext(story);
  EXPECT_EQ(LinkOf(story), LinkKind::kNccl);
  EXPECT_THAT(story.Status().avoided_links, IsEmpty());
  FailLinkAndAwaitTheNext(story);
  EXPECT_EQ(LinkOf(story), LinkKind::kGrpc);
  ASSERT_THAT(story.Status().avoided_links, SizeIs(1));
  const AvoidedLink avoided = story.Status().avoided_links[0];
  EXPECT_EQ(avoided.worker_id, "w0");
  EXPECT_EQ(avoided.other_worker_id, "w1");
  EXPECT_EQ(avoided.failures, 2);
  EXPECT_EQ(avoided.reason, "test");
  EXPECT_GT(avoided.retry_ms, 30'000u);
  EXPECT_EQ(story.coordinator().counters().link_failures, 2u);
  EXPECT_EQ(story.coordinator().counters().links_given_up, 1u);
}

TEST(CoordinatorLinksTest, NcclIsTriedAgainAfterAWhile) {
  Story story = Serving(LinkPolicy::kAuto);
  FailLinkAndAwaitTheNext(story);
  FailLinkAndAwaitTheNext(story);
  story.Advance(absl::Seconds(61));
  EXPECT_EQ(LinkOf(story), LinkKind::kGrpc) << "what serves is not disturbed";
  const uint64_t epoch = story.OnlyPipeline().epoch;
  story.Break("w0", "");
  story.AdvanceUntilReady();
  EXPECT_GT(story.OnlyPipeline().epoch, epoch);
  EXPECT_EQ(LinkOf(story), LinkKind::kNccl);
}

TEST(CoordinatorLinksTest, AnotherProcessOfTheSameNameIsTriedAgain) {
  Story story = Serving(LinkPolicy::kAuto);
  FailLinkAndAwaitTheNext(story);
  FailLinkAndAwaitTheNext(story);
  story.Kill("w1");
  story.Break("w0", "w1");
  JoinWithNccl(story, "w1");
  story.AdvanceUntilReady();
  EXPECT_EQ(LinkOf(story), LinkKind::kNccl);
}

// A neighbour that froze or died in mid-transfer says nothing of the way between the two.
TEST(CoordinatorLinksTest, ALinkOverWhichStepsHavePassedIsNotGivenUp) {
  Story story = Serving(LinkPolicy::kAuto);
  for (int i = 0; i < 5; ++i) {
    const std::string receiver = story.WorkersOf(story.OnlyPipeline())[1];
    story.worker(receiver).stage->steps_done = 3;
    story.Advance(absl::Seconds(1));
    FailLinkAndAwaitTheNext(story);
    EXPECT_EQ(LinkOf(story), LinkKind::kNccl);
  }
  EXPECT_EQ(story.coordinator().counters().link_failures, 0u);
  EXPECT_EQ(story.coordinator().num_failed_pairs(), 0u);
}

// The end of a link closes its streams, and who hears of that may be quicker to report.
TEST(CoordinatorLinksTest, AFailureIsCountedOnceThoughThePipelineHasEndedBeforeItIsTold) {
  Story story = Serving(LinkPolicy::kAuto);
  for (int i = 0; i < 2; ++i) {
    const PipelineStatus pipeline = story.OnlyPipeline();
    const std::vector<std::string> workers = story.WorkersOf(pipeline);
    story.Break(workers[1], "");
    for (const std::string& worker : workers) {
      story.Event(BreakCame{story.worker(worker).connection,
                            {.epoch = pipeline.epoch, .reason = "test", .nccl_link = 0}});
    }
    story.AdvanceUntilReady();
    EXPECT_EQ(story.coordinator().counters().link_failures, static_cast<uint64_t>(i + 1));
  }
  EXPECT_EQ(LinkOf(story), LinkKind::kGrpc);
}

TEST(CoordinatorLinksTest, OnlyAnEndOfTheLinkCanSayThatItFailed) {
  Story story = Serving(LinkPolicy::kAuto);
  for (const int link : {-1, 1, 7}) {
    story.Break("w0", "w1", link);
    story.AdvanceUntilReady();
  }
  EXPECT_EQ(story.coordinator().counters().link_failures, 0u);
}

TEST(CoordinatorLinksTest, WithNcclAskedForThePairIsRefusedWithTheReason) {
  Story story = Serving(LinkPolicy::kNccl);
  FailLinkAndAwaitTheNext(story);
  FailLink(story);
  story.AdvanceUntil(
      [&] { return story.Status().placement_error.find("NCCL could not") != std::string::npos; });
  EXPECT_THAT(story.Status().pipelines, IsEmpty());
  EXPECT_THAT(story.Status().placement_error,
              HasSubstr("--link nccl: no NCCL link from worker w0 to w1: NCCL could not connect "
                        "them 2 times in a row: test"));
  story.Advance(absl::Seconds(50));
  EXPECT_THAT(story.Status().pipelines, IsEmpty());
  story.Advance(absl::Seconds(25));  // the time and a back-off
  EXPECT_TRUE(story.OnlyPipeline().ready);
  EXPECT_EQ(LinkOf(story), LinkKind::kNccl);
  EXPECT_EQ(story.Status().placement_error, "");
}

// w2 could take over from w0, were it not for its NCCL.
TEST(CoordinatorLinksTest, ADrainingWorkersPipelineIsNotEndedForOneWhoseLinksAreRefused) {
  Story story = Serving(LinkPolicy::kNccl);
  const PipelineStatus pipeline = story.OnlyPipeline();
  const std::string leaving = story.WorkersOf(pipeline)[0];
  story.worker(leaving).stage->running_sequences = 3;
  JoinWithNccl(story, "w2", "2.27.3");
  story.Advance(absl::Milliseconds(500));
  story.Event(DrainAsked{.ticket = 7, .worker_id = leaving, .timeout = absl::Seconds(20)});
  story.Advance(absl::Seconds(10));
  EXPECT_EQ(story.OnlyPipeline().epoch, pipeline.epoch) << "its streams run on";
  EXPECT_THAT(story.Status().placement_error, HasSubstr("2.27.3"))
      << "which of the two is named first is placement's choice";
}

}  // namespace
}  // namespace sauva
