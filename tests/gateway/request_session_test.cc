#include "gateway/request_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/gateway/session_story.h"

namespace sauva::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(RequestSessionTest, StreamsTokensFromTheDispatchedHeadToTheEnd) {
  SessionStory story;
  story.Start();
  ASSERT_EQ(story.dispatches.size(), 1u);
  EXPECT_EQ(story.dispatches[0].model, "prose");
  EXPECT_EQ(story.dispatches[0].num_tokens, 104u);
  EXPECT_FALSE(story.dispatches[0].require_numerics);
  story.now += absl::Milliseconds(5);
  story.Dispatched(11);
  ASSERT_EQ(story.opened.size(), 1u);
  EXPECT_EQ(story.opened[0].address, "head-11");
  EXPECT_EQ(story.opened[0].request.epoch, 11u);
  EXPECT_EQ(story.opened[0].request.prompt, Bytes("Once"));
  EXPECT_THAT(story.opened[0].request.resumed, IsEmpty());
  EXPECT_FALSE(story.session().accepted());
  story.Hello("n1", 3);
  EXPECT_TRUE(story.session().accepted());
  story.now += absl::Milliseconds(10);
  story.Tokens(Bytes("ab"));
  story.now += absl::Milliseconds(20);
  story.Tokens({'c', WordTokenizer::kEnd}, FinishReason::kStop);
  EXPECT_EQ(story.text, "abc");
  EXPECT_THAT(story.tokens, ElementsAre('a', 'b', 'c', WordTokenizer::kEnd));
  ASSERT_TRUE(story.finished.has_value());
  EXPECT_EQ(story.finished->reason, FinishReason::kStop);
  const SampleUsage& usage = story.finished->usage;
  EXPECT_EQ(usage.prompt_tokens, 4u);
  EXPECT_EQ(usage.completion_tokens, 4u);
  EXPECT_EQ(usage.cached_tokens, 3u);
  EXPECT_EQ(usage.resumes, 0u);
  EXPECT_FALSE(usage.exact_resume.has_value());
  EXPECT_EQ(usage.time_to_first_token, absl::Milliseconds(15));
  EXPECT_EQ(usage.total_time, absl::Milliseconds(35));
  EXPECT_EQ(story.cancelled_heads, 0);
}

TEST(RequestSessionTest, EndsByItselfAtAStopTokenAndAtMaxTokens) {
  SampleRequest request = PlainRequest();
  request.rules.sampling.stop_tokens = {'!'};
  request.rules.sampling.max_tokens = 3;
  SessionStory stopped(request);
  stopped.Run();
  stopped.Tokens(Bytes("a!xyz"));
  EXPECT_EQ(stopped.text, "a");
  EXPECT_THAT(stopped.tokens, ElementsAre('a', '!'));
  EXPECT_EQ(stopped.finished->reason, FinishReason::kStop);
  EXPECT_EQ(stopped.cancelled_heads, 1);

  SessionStory full(request);
  full.Run();
  full.Tokens(Bytes("abcd"));
  EXPECT_EQ(full.text, "abc");
  EXPECT_EQ(full.finished->reason, FinishReason::kLength);
  EXPECT_EQ(full.finished->usage.completion_tokens, 3u);
}

TEST(RequestSessionTest, IgnoresTheEndOfTextWhenToldSo) {
  SampleRequest request = PlainRequest();
  request.rules.sampling.ignore_eos = true;
  SessionStory story(request);
  story.Run();
  story.Tokens({'a', WordTokenizer::kEnd, 'b'});
  EXPECT_EQ(story.text, "ab");
  EXPECT_FALSE(story.finished.has_value());
}

TEST(RequestSessionTest, IsTheSameStreamWhereverItBreaks) {
  const std::string whole = "a river of words";
  for (size_t cut = 0; cut <= whole.size(); ++cut) {
    SessionStory story;
    story.Run(1);
    for (size_t i = 0; i < cut; ++i) story.Tokens({whole[i]});
    story.HeadEnds(absl::UnavailableError("connection reset"));
    ASSERT_EQ(story.dispatches.size(), 2u) << "the first retry does not wait";
    EXPECT_THAT(story.dispatches[1].broken_epochs, ElementsAre(1u));
    story.Dispatched(2);
    ASSERT_EQ(story.opened.size(), 2u);
    EXPECT_EQ(story.opened[1].request.epoch, 2u);
    EXPECT_EQ(story.opened[1].request.resumed, Bytes(whole.substr(0, cut)));
    EXPECT_EQ(*story.opened[1].request.sampling.seed, 7u);
    story.Hello();
    for (size_t i = cut; i < whole.size(); ++i) story.Tokens({whole[i]});
    story.Tokens({WordTokenizer::kEnd}, FinishReason::kStop);
    EXPECT_EQ(story.text, whole) << "cut after " << cut;
    EXPECT_EQ(story.finished->usage.resumes, 1u);
    EXPECT_EQ(story.finished->usage.exact_resume, std::optional<bool>(true));
    EXPECT_EQ(story.resumes, 1);
  }
}

TEST(RequestSessionTest, ResumesAfterEveryStatusThatAnotherHeadCouldCure) {
  for (const auto code :
       {absl::StatusCode::kUnavailable, absl::StatusCode::kFailedPrecondition,
        absl::StatusCode::kAborted, absl::StatusCode::kInternal, absl::StatusCode::kUnknown,
        absl::StatusCode::kCancelled, absl::StatusCode::kDeadlineExceeded,
        absl::StatusCode::kDataLoss, absl::StatusCode::kUnimplemented, absl::StatusCode::kOk}) {
    SessionStory story;
    story.Run();
    story.Tokens(Bytes("ab"));
    story.HeadEnds(absl::Status(code, "gone"));
    EXPECT_FALSE(story.failed.has_value()) << code;
    EXPECT_EQ(story.dispatches.size(), 2u) << code;
  }
}

TEST(RequestSessionTest, EndsWithWhatAHeadSaysAboutTheRequestItself) {
  SessionStory story;
  story.Start();
  story.Dispatched(1);
  story.HeadEnds(absl::InvalidArgumentError("needs 99 blocks, the pool has 7"));
  ASSERT_TRUE(story.failed.has_value());
  EXPECT_EQ(story.failed->code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(*story.failed), HasSubstr("99 blocks"));
  EXPECT_EQ(story.dispatches.size(), 1u);
}

TEST(RequestSessionTest, IsRefusedByAFullQueueBeforeItRunsAndNeverAfter) {
  SessionStory fresh;
  fresh.Start();
  fresh.Dispatched(1);
  fresh.HeadEnds(absl::ResourceExhaustedError("queue full"));
  ASSERT_TRUE(fresh.failed.has_value());
  EXPECT_EQ(fresh.failed->code(), absl::StatusCode::kResourceExhausted);

  SessionStory running;
  running.Run(1);
  running.Tokens(Bytes("a"));
  running.HeadEnds(absl::UnavailableError("died"));
  running.Dispatched(2);
  running.HeadEnds(absl::ResourceExhaustedError("queue full"));
  EXPECT_FALSE(running.failed.has_value());
  running.WaitForDispatch();
  EXPECT_THAT(running.dispatches.back().broken_epochs, ElementsAre(1u))
      << "a busy pipeline is not a broken one";
  running.DispatchFails(absl::ResourceExhaustedError("waiting list full"));
  EXPECT_FALSE(running.failed.has_value());
  running.WaitForDispatch();
  running.Dispatched(2);
  running.Hello();
  running.Tokens({WordTokenizer::kEnd}, FinishReason::kStop);
  EXPECT_EQ(running.finished->usage.resumes, 1u) << "it moved once, however often it knocked";
}

TEST(RequestSessionTest, NeverDeliversARepeatedOrSkippedToken) {
  for (const uint32_t first_index : {1u, 3u}) {
    SessionStory story;
    story.Run(1);
    story.Tokens(Bytes("ab"));
    story.TokensAt(first_index, Bytes("x"));
    EXPECT_EQ(story.text, "ab");
    EXPECT_EQ(story.cancelled_heads, 1);
    EXPECT_EQ(story.dispatches.size(), 2u);
    story.Dispatched(2);
    EXPECT_EQ(story.opened[1].request.resumed, Bytes("ab"));
    story.Hello();
    story.TokensAt(2, Bytes("c"));
    EXPECT_EQ(story.text, "abc");
  }
}

TEST(RequestSessionTest, IgnoresALateWordOfAHeadItHasGivenUp) {
  SessionStory story;
  story.Run(1);
  story.Tokens(Bytes("ab"));
  const uint64_t old_attempt = story.attempt();
  story.HeadEnds(absl::UnavailableError("reset"));
  story.Dispatched(2);
  story.Hello();
  SequenceTokens late;
  late.first_index = 2;
  late.tokens = Bytes("Z");
  story.Happen(HeadSentTokens{old_attempt, late});
  story.Happen(HeadEnded{old_attempt, absl::UnavailableError("again")});
  story.Happen(DispatchReplied{old_attempt, {}});
  EXPECT_EQ(story.text, "ab");
  story.Tokens(Bytes("c"));
  EXPECT_EQ(story.text, "abc");
}

TEST(RequestSessionTest, RefusesTokensOutsideTheVocabularyAndMissingLogprobs) {
  SessionStory story;
  story.Run();
  story.Tokens({1000});
  EXPECT_EQ(story.cancelled_heads, 1);
  EXPECT_THAT(story.tokens, IsEmpty());

  SampleRequest request = PlainRequest();
  request.rules.sampling.logprobs = 2;
  SessionStory logprobs(request);
  logprobs.Run();
  logprobs.Tokens(Bytes("a"));
  EXPECT_EQ(logprobs.cancelled_heads, 1);
  EXPECT_THAT(logprobs.tokens, IsEmpty());
}

TEST(RequestSessionTest, GivesUpOnAFaultThatComesBackEveryTime) {
  SessionStory story;
  story.Start();
  for (int i = 0; i < 100 && !story.failed; ++i) {
    story.Dispatched(1);
    story.HeadEnds(absl::InternalError("bug"));
    if (!story.failed && story.session().NextWake() > story.now && story.dispatches.size() > 1 &&
        !story.Did<SendDispatch>()) {
      story.WaitForDispatch();
    }
  }
  ASSERT_TRUE(story.failed.has_value());
  EXPECT_EQ(story.failed->code(), absl::StatusCode::kInternal);
  EXPECT_THAT(Message(*story.failed), HasSubstr("given up after 9 attempts"));
}

TEST(RequestSessionTest, WaitsForEqualNumericsThenTakesAnyAndSaysSo) {
  SessionStory story;
  story.Run(1);
  story.Tokens(Bytes("ab"));
  const absl::Time lost = story.now;
  story.HeadEnds(absl::UnavailableError("reset"));
  EXPECT_TRUE(story.dispatches.back().require_numerics);
  EXPECT_EQ(story.dispatches.back().numerics_id, "n1");
  story.WaitForDispatch();
  EXPECT_EQ(story.now, lost + absl::Seconds(2));
  EXPECT_TRUE(story.Did<AbandonDispatch>());
  EXPECT_FALSE(story.dispatches.back().require_numerics);
  EXPECT_EQ(story.dispatches.back().numerics_id, "n1");
  story.Dispatched(2, "n2");
  story.Hello("n2");
  story.Tokens({WordTokenizer::kEnd}, FinishReason::kStop);
  EXPECT_EQ(story.finished->usage.exact_resume, std::optional<bool>(false));
}

TEST(RequestSessionTest, AnInexactResumeIsRememberedAfterALaterExactOne) {
  SessionStory story;
  story.Run(1);
  story.Tokens(Bytes("a"));
  story.HeadEnds(absl::UnavailableError("reset"));
  story.WaitForDispatch();
  story.Dispatched(2, "n2");
  story.Hello("n2");
  story.Tokens(Bytes("b"));
  story.HeadEnds(absl::UnavailableError("reset"));
  EXPECT_EQ(story.dispatches.back().numerics_id, "n2");
  story.Dispatched(3, "n2");
  story.Hello("n2");
  story.Tokens({WordTokenizer::kEnd}, FinishReason::kStop);
  EXPECT_EQ(story.finished->usage.resumes, 2u);
  EXPECT_EQ(story.finished->usage.exact_resume, std::optional<bool>(false));
}

TEST(RequestSessionTest, RefusesAHeadOfOtherNumericsThanDispatched) {
  SessionStory story;
  story.Start();
  story.Dispatched(1, "n1");
  story.Hello("n9");
  EXPECT_FALSE(story.session().accepted());
  EXPECT_EQ(story.cancelled_heads, 1);
  EXPECT_EQ(story.dispatches.size(), 2u);
}

TEST(RequestSessionTest, ForgivesALostPipelineWhenNoOtherComes) {
  SessionStory story;
  story.Run(1);
  story.Tokens(Bytes("ab"));
  const absl::Time lost = story.now;
  story.HeadEnds(absl::UnavailableError("reset"));
  story.WaitForDispatch();
  EXPECT_THAT(story.dispatches.back().broken_epochs, ElementsAre(1u));
  story.WaitForDispatch();
  EXPECT_EQ(story.now, lost + absl::Seconds(5));
  EXPECT_THAT(story.dispatches.back().broken_epochs, IsEmpty());
  story.Dispatched(1);
  story.Hello();
  story.Tokens(Bytes("c"));
  EXPECT_EQ(story.text, "abc");
}

TEST(RequestSessionTest, KnocksAtAMissingCoordinatorMoreAndMoreSlowly) {
  SessionLimits limits;
  limits.dispatch_wait = absl::Seconds(30);
  SessionStory story(PlainRequest(), limits);
  story.Start();
  const absl::Time started = story.now;
  int attempts = 0;
  absl::Duration longest;
  while (!story.failed && attempts < 1000) {
    const absl::Time before = story.now;
    story.DispatchFails(absl::UnavailableError("coordinator at 10.0.0.1:7071: refused"));
    while (!story.failed && !story.Did<SendDispatch>()) {
      ASSERT_NO_FATAL_FAILURE(story.WaitForWake());
    }
    longest = std::max(longest, story.now - before);
    ++attempts;
  }
  ASSERT_TRUE(story.failed.has_value());
  EXPECT_EQ(story.failed->code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(*story.failed), HasSubstr("coordinator at 10.0.0.1:7071"));
  EXPECT_EQ(story.now, started + absl::Seconds(30));
  EXPECT_LT(attempts, 80);
  EXPECT_LE(longest, absl::Seconds(1));
}

TEST(RequestSessionTest, ARunningRequestOutlivesAnyPatienceUntilItsDeadline) {
  SampleRequest request = PlainRequest();
  request.deadline = absl::FromUnixSeconds(1'000'000) + absl::Seconds(300);
  SessionStory story(request);
  story.Run(1);
  story.Tokens(Bytes("ab"));
  story.HeadEnds(absl::UnavailableError("reset"));
  while (!story.failed && story.now < request.deadline + absl::Seconds(10)) {
    if (story.Did<SendDispatch>()) {
      story.DispatchFails(absl::UnavailableError("coordinator at c: refused"));
    }
    if (!story.failed) {
      ASSERT_NO_FATAL_FAILURE(story.WaitForWake());
    }
  }
  EXPECT_EQ(story.now, request.deadline);
  ASSERT_TRUE(story.failed.has_value());
  EXPECT_EQ(story.failed->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(Message(*story.failed), HasSubstr("after 2 tokens"));
}

TEST(RequestSessionTest, CancelsWhateverIsUnderWayWhenTheClientLeaves) {
  SessionStory dispatching;
  dispatching.Start();
  dispatching.Cancel();
  EXPECT_TRUE(dispatching.Did<AbandonDispatch>());
  EXPECT_EQ(dispatching.failed->code(), absl::StatusCode::kCancelled);

  SessionStory streaming;
  streaming.Run();
  streaming.Tokens(Bytes("a"));
  streaming.Cancel();
  EXPECT_EQ(streaming.cancelled_heads, 1);
  EXPECT_TRUE(streaming.session().done());
  streaming.Tokens(Bytes("b"));
  EXPECT_EQ(streaming.text, "a");
}

TEST(RequestSessionTest, CancelsTheHeadAtTheDeadline) {
  SampleRequest request = PlainRequest();
  request.deadline = absl::FromUnixSeconds(1'000'000) + absl::Seconds(3);
  SessionStory story(request);
  story.Run();
  EXPECT_EQ(story.session().NextWake(), request.deadline);
  story.WaitForWake();
  EXPECT_EQ(story.cancelled_heads, 1);
  EXPECT_EQ(story.failed->code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(RequestSessionTest, GoesOnWhereAnotherGatewayLeftOff) {
  SampleRequest request = PlainRequest();
  request.resumed = Bytes("ab");
  SessionStory story(request);
  story.Start();
  story.Dispatched(1);
  EXPECT_EQ(story.opened[0].request.resumed, Bytes("ab"));
  story.Hello();
  story.Tokens(Bytes("c"));
  story.Tokens({WordTokenizer::kEnd}, FinishReason::kStop);
  EXPECT_EQ(story.text, "c") << "the client has the text before";
  EXPECT_EQ(story.finished->usage.completion_tokens, 4u);
  EXPECT_EQ(story.finished->usage.resumes, 0u);
}

TEST(RequestSessionTest, ShowsTheSameTextWhereverTheClientChangesGateways) {
  const std::string said = "nï EN EN😀D END of it";
  SampleRequest request = PlainRequest();
  request.rules.sampling.stop = {"END", "😀D!"};
  const std::string shown = "nï EN EN😀D ";
  for (size_t cut = 0; cut < shown.size(); ++cut) {
    SessionStory first(request);
    first.Run();
    for (size_t i = 0; i < cut; ++i) first.Tokens(Bytes(said.substr(i, 1)));
    SampleRequest rest = request;
    rest.resumed = first.tokens;
    SessionStory second(rest);
    second.Run();
    for (size_t i = cut; i < said.size() && !second.finished; ++i) {
      second.Tokens(Bytes(said.substr(i, 1)));
    }
    EXPECT_EQ(first.text + second.text, shown) << "cut after " << cut;
    EXPECT_EQ(second.finished->reason, FinishReason::kStop);
  }
}

TEST(RequestSessionTest, FinishesAtOnceWhenTheClientHadAllButTheEnd) {
  SampleRequest request = PlainRequest();
  request.resumed = {'a', WordTokenizer::kEnd};
  SessionStory stopped(request);
  stopped.Start();
  EXPECT_THAT(stopped.dispatches, IsEmpty());
  EXPECT_EQ(stopped.finished->reason, FinishReason::kStop);

  request.resumed = Bytes("abc");
  request.rules.sampling.max_tokens = 3;
  SessionStory full(request);
  full.Start();
  EXPECT_EQ(full.finished->reason, FinishReason::kLength);
}

TEST(RequestSessionTest, RefusesResumeTokensThatGoOnAfterTheEnd) {
  SampleRequest request = PlainRequest();
  request.resumed = {'a', WordTokenizer::kEnd, 'b'};
  SessionStory story(request);
  story.Start();
  ASSERT_TRUE(story.failed.has_value());
  EXPECT_EQ(story.failed->code(), absl::StatusCode::kInvalidArgument);
}

TEST(RequestSessionTest, ClipsTheCompletionToAPipelineWithLessContext) {
  SessionStory story;
  story.Start();
  story.Dispatched(1, "n1", 10);
  EXPECT_EQ(story.opened[0].request.sampling.max_tokens, 6);

  SessionStory too_long;
  too_long.Start();
  too_long.Dispatched(1, "n1", 4);
  ASSERT_TRUE(too_long.failed.has_value());
  EXPECT_EQ(too_long.failed->code(), absl::StatusCode::kInvalidArgument);
}

TEST(RequestSessionTest, DoesNotMixTokensOfTwoModels) {
  SessionStory story;
  story.Start();
  DispatchReply reply;
  reply.model = {"prose", "d2"};
  reply.head_address = "head-5";
  story.Happen(DispatchReplied{story.attempt(), reply});
  ASSERT_TRUE(story.failed.has_value());
  EXPECT_EQ(story.failed->code(), absl::StatusCode::kAborted);
  EXPECT_THAT(Message(*story.failed), HasSubstr("d1 to d2"));
}

}  // namespace
}  // namespace sauva::testing
