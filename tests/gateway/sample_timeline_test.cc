#include "gateway/sample_timeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sauva {
namespace {

using testing::SizeIs;

HeadSentTokens Tokens(uint64_t attempt, size_t number) {
  HeadSentTokens event{.attempt = attempt};
  event.message.tokens.resize(number);
  event.message.phases = {{.end_seconds = 99, .steps = 1, .tokens = 7, .stage_seconds = {0.5, 2}}};
  return event;
}

class SampleTimelineTest : public ::testing::Test {
 protected:
  absl::Time At(int seconds) const { return absl::UnixEpoch() + absl::Seconds(seconds); }
  SampleRecord Record() const {
    return {.trace = {.trace_id = std::string(16, 't'), .span_id = 9},
            .parent_span_id = 8,
            .operation = "chat",
            .request = request_,
            .timeline = timeline_,
            .arrived = At(0),
            .left_queue = At(1),
            .first_token = At(2),
            .ended = At(10)};
  }

  SampleRequest request_{.model = {.name = "m"}};
  SampleTimeline timeline_;
};

TEST_F(SampleTimelineTest, APhaseStaysWithinTheStreamThatThisProcessSaw) {
  timeline_.Open({.attempt = 1, .head = "h:5", .epoch = 3, .span_id = 4, .begin = At(1)});
  timeline_.On(Tokens(1, 2));
  timeline_.End(1, absl::OkStatus(), At(6));
  const std::vector<Span> spans = SpansOf(Record(), 20);
  ASSERT_THAT(spans, SizeIs(4));
  EXPECT_EQ(spans[2].span_id, 4u);
  EXPECT_EQ(spans[2].parent_span_id, 9u);
  EXPECT_EQ(spans[3].parent_span_id, 4u);
  EXPECT_EQ(spans[3].begin, At(1));
  EXPECT_EQ(spans[3].end, At(6)) << "whatever the head says";
}

TEST_F(SampleTimelineTest, AnEventOfAStreamThatHasEndedChangesNothing) {
  timeline_.Open({.attempt = 1, .begin = At(1)});
  timeline_.On(HeadEnded{1, absl::UnavailableError("gone")}, At(2));
  timeline_.Open({.attempt = 2, .begin = At(3)});
  timeline_.On(Tokens(1, 5));
  timeline_.On(HeadEnded{1, absl::OkStatus()}, At(4));
  EXPECT_EQ(timeline_.streams()[0].tokens, 0u);
  EXPECT_TRUE(absl::IsUnavailable(timeline_.streams()[0].status));
  EXPECT_EQ(timeline_.streams()[1].end, absl::InfiniteFuture());
}

TEST_F(SampleTimelineTest, TheOldestOfManyStreamsAreForgotten) {
  for (uint64_t i = 1; i <= 100; ++i) timeline_.Open({.attempt = i, .begin = At(1)});
  EXPECT_THAT(timeline_.streams(), SizeIs(SampleTimeline::kMaxStreams));
  EXPECT_EQ(timeline_.streams().back().attempt, 100u);
}

TEST_F(SampleTimelineTest, ALogLineTellsEachStream) {
  timeline_.Open({.attempt = 1, .head = "h:5", .epoch = 3, .begin = At(1)});
  timeline_.On(Tokens(1, 2));
  timeline_.End(1, absl::UnavailableError("gone"), At(6));
  const std::vector<LogField> fields = StreamFields(timeline_);
  ASSERT_THAT(fields, SizeIs(1));
  EXPECT_EQ(fields[0].key, "stream_1");
  EXPECT_EQ(fields[0].value,
            "h:5 epoch 3, 2 tokens; prefill at 0.0 ms: 1 steps, 7 tokens, 99000.0 ms, stages "
            "500.0+2000.0 ms; UNAVAILABLE: gone");
}

}  // namespace
}  // namespace sauva
