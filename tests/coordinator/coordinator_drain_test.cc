// Taking a worker out of service.
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

Story Serving(int stages, int spares) {
  CoordinatorConfig config = Story::Config();
  config.stages = stages;
  config.spares = spares;
  config.expected_workers = stages + spares;
  Story story(config);
  story.JoinAll(stages + spares);
  EXPECT_TRUE(story.OnlyPipeline().ready);
  return story;
}

void Drain(Story& story, const std::string& id, absl::Duration timeout = absl::Seconds(10)) {
  story.Event(DrainAsked{.ticket = 7, .worker_id = id, .timeout = timeout});
}

TEST(DrainTest, AnUnknownWorkerIsNotFound) {
  Story story;
  Drain(story, "nobody");
  EXPECT_EQ(story.drains.at(7).code(), absl::StatusCode::kNotFound);
}

TEST(DrainTest, ASpareIsDrainedAtOnceAndNotPlacedAgain) {
  Story story = Serving(1, 1);
  const std::string serving = story.WorkersOf(story.OnlyPipeline())[0];
  const std::string spare = serving == "w0" ? "w1" : "w0";
  Drain(story, spare);
  EXPECT_TRUE(story.drains.at(7).ok());
  EXPECT_TRUE(story.worker(spare).drain.has_value());
  story.Kill(serving);
  story.Advance(absl::Seconds(5));
  EXPECT_THAT(story.Status().pipelines, IsEmpty());
}

// It starts again under its name before the end of its old stream is known.
TEST(DrainTest, AnotherProcessOfTheSameNameIsPlacedAgain) {
  Story story = Serving(1, 1);
  const std::string serving = story.WorkersOf(story.OnlyPipeline())[0];
  const std::string spare = serving == "w0" ? "w1" : "w0";
  Drain(story, spare);
  story.worker(spare).draining = false;
  story.Join(spare);
  story.Kill(serving);
  story.Advance(absl::Seconds(5));
  EXPECT_THAT(story.Status().pipelines, SizeIs(1));
}

TEST(DrainTest, ItIsOverWhenAnotherProcessJoinsUnderTheName) {
  Story story = Serving(1, 1);
  const std::string leaving = story.WorkersOf(story.OnlyPipeline())[0];
  story.worker(leaving).stage->running_sequences = 3;
  story.Advance(absl::Milliseconds(500));
  Drain(story, leaving);
  story.Advance(absl::Seconds(1));
  ASSERT_TRUE(story.drains.empty());
  story.worker(leaving) = {};
  story.Join(leaving);
  EXPECT_TRUE(story.drains.at(7).ok());
  story.Advance(absl::Seconds(5));
  EXPECT_TRUE(story.OnlyPipeline().ready);
  EXPECT_EQ(story.coordinator().counters().workers_lost, 1u);
}

TEST(DrainTest, ASpareTakesOverBeforeTheOldPipelineEnds) {
  Story story = Serving(1, 1);
  const PipelineStatus old = story.OnlyPipeline();
  const std::string leaving = story.WorkersOf(old)[0];
  story.worker(leaving).stage->running_sequences = 3;
  story.Advance(absl::Milliseconds(500));
  Drain(story, leaving);
  ASSERT_THAT(story.Status().pipelines, SizeIs(2));
  EXPECT_TRUE(story.drains.empty());  // its streams still run
  const auto answer = story.Answer(story.Dispatch());
  ASSERT_TRUE(answer && answer->ok());
  EXPECT_NE((*answer)->epoch, old.epoch);
  story.Advance(absl::Seconds(2));
  ASSERT_THAT(story.Status().pipelines, SizeIs(2));
  story.worker(leaving).stage->running_sequences = 0;
  story.Advance(absl::Seconds(1));
  EXPECT_NE(story.OnlyPipeline().epoch, old.epoch);
  EXPECT_TRUE(story.drains.at(7).ok());
  EXPECT_TRUE(story.worker(leaving).drain.has_value());
}

TEST(DrainTest, StreamsThatDoNotEndInTimeAreMoved) {
  Story story = Serving(1, 1);
  const std::string leaving = story.WorkersOf(story.OnlyPipeline())[0];
  story.worker(leaving).stage->running_sequences = 3;
  story.Advance(absl::Milliseconds(500));
  Drain(story, leaving, absl::Seconds(3));
  story.Advance(absl::Milliseconds(2900));
  EXPECT_THAT(story.Status().pipelines, SizeIs(2));
  story.Advance(absl::Milliseconds(200));
  EXPECT_THAT(story.Status().pipelines, SizeIs(1));
  EXPECT_TRUE(story.drains.at(7).ok());
}

TEST(DrainTest, WithoutASpareTheOtherWorkersTakeOver) {
  Story story = Serving(3, 0);
  story.worker("w0").stage->running_sequences = 3;
  story.Advance(absl::Milliseconds(500));
  Drain(story, "w1");
  story.AdvanceUntilReady();
  EXPECT_THAT(story.WorkersOf(story.OnlyPipeline()), SizeIs(2));
  EXPECT_THAT(story.WorkersOf(story.OnlyPipeline()), Not(Contains("w1")));
  story.Advance(absl::Milliseconds(100));
  EXPECT_TRUE(story.drains.at(7).ok());
}

TEST(DrainTest, WithNobodyToTakeOverTheStreamsFinishFirst) {
  Story story = Serving(1, 0);
  story.worker("w0").stage->running_sequences = 1;
  story.Advance(absl::Milliseconds(500));
  Drain(story, "w0");
  story.Advance(absl::Seconds(3));
  EXPECT_TRUE(story.OnlyPipeline().ready);
  story.worker("w0").stage->running_sequences = 0;
  story.Advance(absl::Seconds(1));
  EXPECT_THAT(story.Status().pipelines, IsEmpty());
  EXPECT_TRUE(story.drains.at(7).ok());
}

TEST(DrainTest, AWorkerThatSaysItDrainsIsReplaced) {
  Story story = Serving(1, 1);
  const std::string leaving = story.WorkersOf(story.OnlyPipeline())[0];
  story.worker(leaving).draining = true;
  story.Advance(absl::Seconds(2));
  ASSERT_TRUE(story.OnlyPipeline().ready);
  EXPECT_THAT(story.WorkersOf(story.OnlyPipeline()), Not(Contains(leaving)));
}

TEST(DrainTest, ADrainingWorkerThatDiesIsDrained) {
  Story story = Serving(1, 0);
  story.worker("w0").stage->running_sequences = 1;
  story.Advance(absl::Milliseconds(500));
  Drain(story, "w0");
  story.Kill("w0");
  EXPECT_TRUE(story.drains.at(7).ok());
}

TEST(DrainTest, TwoDrainsOfAWorkerAreBothAnswered) {
  Story story = Serving(1, 1);
  const std::string leaving = story.WorkersOf(story.OnlyPipeline())[0];
  Drain(story, leaving);
  story.Event(DrainAsked{.ticket = 8, .worker_id = leaving, .timeout = {}});
  story.Advance(absl::Seconds(2));
  EXPECT_TRUE(story.drains.at(7).ok());
  EXPECT_TRUE(story.drains.at(8).ok());
}

}  // namespace
}  // namespace sauva
