#include "worker/head_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <set>

#include "tests/worker/fake_engine.h"

namespace sauva {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

struct Stream {
  std::vector<SequenceTokens> messages;
  std::vector<TokenId> tokens;
  FinishReason finish = FinishReason::kNone;
  std::optional<absl::Status> end;
};

// A head of a pipeline of two stages whose answers the test gives, or has computed.
class HeadSessionTest : public testing::Test {
 protected:
  HeadSessionTest() { Begin({}); }

  void Begin(const HeadOptions& options) {
    head_.emplace(options);
    streams_.clear();
    steps_.clear();
    assignment_ = {.epoch = 3, .numerics_id = "n"};
    assignment_.stages = {{.worker_id = "first"}, {.worker_id = "second"}};
    assignment_.max_step_tokens = 8;
    assignment_.max_sequences = 4;
    StageAssignment alone = assignment_;
    alone.stages.resize(1);
    engine_.Start(alone);
    Send(HeadStart{assignment_, 32, FakeFacts()});
  }

  void Send(HeadEvent event) {
    for (HeadEffect& effect : head_->OnEvent(std::move(event), now_)) {
      std::visit([this](auto& e) { Take(e); }, effect);
    }
    head_->CheckInvariants();
  }
  void Take(OpenSequence& open) { engine_.Open(open); }
  void Take(CloseSequence& close) { engine_.Close(close); }
  void Take(StepHeader& header) {
    EXPECT_EQ(header.epoch, assignment_.epoch);
    // In the order of the messages, as a stage does: what is closed later was known here.
    const StepComputed done = engine_.Run({.header = header});
    EXPECT_TRUE(done.status.ok()) << done.status;
    steps_.push_back({.epoch = done.epoch, .step_id = done.step_id, .sampled = done.sampled});
    num_tokens_computed_ += header.num_tokens();
  }
  void Take(StreamTokens& e) {
    Stream& stream = streams_[e.stream];
    EXPECT_FALSE(stream.end) << "nothing follows the end";
    stream.tokens.insert(stream.tokens.end(), e.tokens.tokens.begin(), e.tokens.tokens.end());
    stream.finish = e.tokens.finish;
    stream.messages.push_back(std::move(e.tokens));
  }
  void Take(EndStream& e) {
    EXPECT_FALSE(streams_[e.stream].end) << "a stream ends once";
    streams_[e.stream].end = e.status;
  }
  void Take(HeadBroken& e) { broken_.push_back(e.broken); }

  // Both stages answer the oldest step.
  void FinishStep() {
    const StepResult result = steps_.front();
    steps_.pop_front();
    Send(StageResult{0, {.epoch = result.epoch, .step_id = result.step_id}});
    Send(StageResult{1, result});
  }
  void FinishAll() {
    while (!steps_.empty()) FinishStep();
  }
  Stream& Open(StreamId id, SequenceRequest request) {
    Send(StreamOpened{id, std::move(request)});
    return streams_[id];
  }
  static SequenceRequest Request(std::vector<TokenId> prompt, int max_tokens) {
    SequenceRequest request{.epoch = 3, .prompt = std::move(prompt)};
    request.sampling.seed = 7;
    request.sampling.max_tokens = max_tokens;
    return request;
  }

  absl::Time now_ = absl::UnixEpoch();
  StageAssignment assignment_;
  std::optional<HeadSession> head_;
  FakeEngine engine_;
  std::map<StreamId, Stream> streams_;
  std::deque<StepResult> steps_;  // sent and not answered
  std::vector<StageBroken> broken_;
  int num_tokens_computed_ = 0;
};

TEST_F(HeadSessionTest, TheFirstMessageAcceptsAndEachFurtherOneContinues) {
  Stream& stream = Open(1, Request({9, 8}, 3));
  ASSERT_THAT(stream.messages, SizeIs(1));
  EXPECT_THAT(stream.messages[0].tokens, IsEmpty());
  EXPECT_EQ(stream.messages[0].numerics_id, "n");
  FinishAll();
  ASSERT_THAT(stream.messages, SizeIs(4));
  for (uint32_t i = 0; i < 3; ++i) EXPECT_EQ(stream.messages[i + 1].first_index, i);
  EXPECT_EQ(stream.tokens, FakeCompletion({9, 8}, 3, 7));
  EXPECT_EQ(stream.finish, FinishReason::kLength);
  EXPECT_EQ(stream.end, absl::OkStatus());
  EXPECT_EQ(engine_.num_sequences(), 0u);
}

TEST_F(HeadSessionTest, TheEndOfSequenceTokenIsDeliveredAndEndsTheStream) {
  const std::vector<TokenId> all = FakeCompletion({5}, 4, 7);
  SequenceRequest request = Request({5}, 50);
  request.eos_tokens = {all[3]};
  Stream& stream = Open(1, request);
  FinishAll();
  EXPECT_EQ(stream.tokens, all);
  EXPECT_EQ(stream.finish, FinishReason::kStop);
}

TEST_F(HeadSessionTest, IgnoreEosGoesOnAndStopTokensDoNot) {
  const std::vector<TokenId> all = FakeCompletion({5}, 6, 7);
  ASSERT_EQ(std::set<TokenId>(all.begin(), all.end()).size(), all.size());
  SequenceRequest request = Request({5}, 50);
  request.eos_tokens = {all[3]};
  request.sampling.ignore_eos = true;
  request.sampling.stop_tokens = {all[5]};
  Stream& stream = Open(1, request);
  FinishAll();
  EXPECT_EQ(stream.tokens, all);
  EXPECT_EQ(stream.finish, FinishReason::kStop);
}

TEST_F(HeadSessionTest, AFullContextEndsTheStream) {
  for (const int prompt_size : {1, 16, 127}) {
    Begin({});
    Stream& stream = Open(1, Request(std::vector<TokenId>(static_cast<size_t>(prompt_size), 2), 0));
    FinishAll();
    EXPECT_THAT(stream.tokens, SizeIs(kFakeMaxContext - prompt_size));
    EXPECT_EQ(stream.finish, FinishReason::kLength);
  }
}

TEST_F(HeadSessionTest, MaxTokensCountsResumedOnes) {
  const std::vector<TokenId> all = FakeCompletion({5}, 8, 7);
  SequenceRequest request = Request({5}, 8);
  request.resumed = {all.begin(), all.begin() + 5};
  Stream& stream = Open(1, request);
  FinishAll();
  EXPECT_EQ(stream.messages[0].first_index, 5u);
  EXPECT_EQ(stream.messages[1].first_index, 5u);
  EXPECT_THAT(stream.tokens, ElementsAre(all[5], all[6], all[7]));
}

TEST_F(HeadSessionTest, AResumeAfterTheLastTokenOnlyLearnsTheReason) {
  const std::vector<TokenId> all = FakeCompletion({5}, 8, 7);
  SequenceRequest request = Request({5}, 8);
  request.resumed = all;
  Stream& length = Open(1, request);
  EXPECT_EQ(length.finish, FinishReason::kLength);
  EXPECT_EQ(length.end, absl::OkStatus());
  EXPECT_THAT(length.tokens, IsEmpty());
  request.sampling.max_tokens = 50;
  request.eos_tokens = {all.back()};
  EXPECT_EQ(Open(2, request).finish, FinishReason::kStop);
  EXPECT_THAT(steps_, IsEmpty());
}

TEST_F(HeadSessionTest, KeepsOneStepPerStageInFlight) {
  for (StreamId id = 1; id <= 3; ++id) Open(id, Request(std::vector<TokenId>(8, 1), 4));
  EXPECT_THAT(steps_, SizeIs(2));
  const StepResult result = steps_.front();
  Send(StageResult{0, {.epoch = 3, .step_id = 1}});
  EXPECT_THAT(steps_, SizeIs(2)) << "a step is done when the last stage says so";
  steps_.pop_front();
  Send(StageResult{1, result});
  EXPECT_THAT(steps_, SizeIs(2));
  FinishAll();
  for (StreamId id = 1; id <= 3; ++id) EXPECT_THAT(streams_[id].tokens, SizeIs(4));
}

TEST_F(HeadSessionTest, ACancelledSequenceIsClosedAtOnceAndItsLateTokenDropped) {
  Open(1, Request({1}, 50));
  Open(2, Request({2}, 5));
  FinishStep();
  FinishStep();  // now the first stream's second step is the oldest
  const int free_before = head_->num_free_blocks();
  const StepResult late = steps_.front();
  Send(StreamCancelled{1});
  EXPECT_EQ(engine_.num_sequences(), 1u);
  EXPECT_EQ(head_->num_streams(), 1);
  const size_t num_messages = streams_[1].messages.size();
  steps_.pop_front();
  Send(StageResult{0, {.epoch = 3, .step_id = late.step_id}});
  Send(StageResult{1, late});
  EXPECT_GT(head_->num_free_blocks(), free_before) << "freed within a step";
  FinishAll();
  EXPECT_THAT(streams_[1].messages, SizeIs(num_messages));
  EXPECT_EQ(streams_[2].tokens, FakeCompletion({2}, 5, 7));
  EXPECT_EQ(head_->num_free_blocks(), 32);
}

TEST_F(HeadSessionTest, AReaderThatStopsReadingLosesItsStreamAndNobodyElse) {
  Stream& slow = Open(1, Request({1}, 60));
  Stream& quick = Open(2, Request({2}, 60));
  while (slow.tokens.size() < 10 && !steps_.empty()) FinishStep();
  ASSERT_THAT(slow.tokens, SizeIs(10));
  Send(StreamStalled{1});
  EXPECT_TRUE(absl::IsResourceExhausted(*slow.end));
  EXPECT_THAT(slow.end->message(), HasSubstr("10 tokens are computed"));
  FinishAll();
  EXPECT_EQ(quick.tokens, FakeCompletion({2}, 60, 7));
  EXPECT_EQ(head_->num_free_blocks(), 32);
}

TEST_F(HeadSessionTest, LogprobsComeWithTheirTokens) {
  SequenceRequest request = Request({1}, 2);
  request.sampling.logprobs = 1;
  Stream& stream = Open(1, request);
  FinishAll();
  ASSERT_THAT(stream.messages[1].logprobs, SizeIs(1));
  EXPECT_EQ(stream.messages[1].logprobs[0].chosen.token, stream.tokens[0]);
}

TEST_F(HeadSessionTest, ResultsOfAnotherEpochAreDroppedWithACounter) {
  Open(1, Request({1}, 2));
  Send(StageResult{1, {.epoch = 2, .step_id = 1}});
  EXPECT_EQ(head_->counters().stale_messages, 1u);
  EXPECT_THAT(broken_, IsEmpty());
}

TEST_F(HeadSessionTest, ResultsOutOfOrderBreakThePipeline) {
  for (const StageResult& wrong :
       {StageResult{1, {.epoch = 3, .step_id = 2}}, StageResult{1, {.epoch = 3, .step_id = 0}},
        StageResult{0, {.epoch = 3, .step_id = 9}}}) {
    Begin({});
    broken_.clear();
    Stream& stream = Open(1, Request({1}, 2));
    Send(wrong);
    ASSERT_THAT(broken_, SizeIs(1));
    EXPECT_EQ(broken_[0].suspect_worker_id, wrong.stage_index == 0 ? "first" : "second");
    EXPECT_TRUE(absl::IsUnavailable(*stream.end));
    EXPECT_FALSE(head_->serving());
  }
}

TEST_F(HeadSessionTest, ResultsThatDoNotMatchTheStepBreakThePipeline) {
  const auto spoilers = std::vector<std::function<void(StepResult&)>>{
      [](StepResult& r) { r.sampled.clear(); },
      [](StepResult& r) { r.sampled[0].id += 1; },
      [](StepResult& r) { r.sampled.push_back(r.sampled[0]); },
      [](StepResult& r) { r.sampled[0].token = kFakeVocabSize; },
      [](StepResult& r) { r.sampled[0].token = -1; },
      [](StepResult& r) { r.sampled[0].logprobs = {{}}; },
  };
  for (const auto& spoil : spoilers) {
    Begin({});
    broken_.clear();
    Stream& stream = Open(1, Request({1}, 2));
    StepResult result = steps_.front();
    spoil(result);
    Send(StageResult{1, result});
    ASSERT_THAT(broken_, SizeIs(1));
    EXPECT_EQ(broken_[0].suspect_worker_id, "second");
    EXPECT_TRUE(absl::IsUnavailable(*stream.end));
    EXPECT_THAT(stream.tokens, IsEmpty());
  }
}

TEST_F(HeadSessionTest, AStepsTimeStartsWhenItIsTheOldestInFlight) {
  for (StreamId id = 1; id <= 2; ++id) Open(id, Request(std::vector<TokenId>(8, 1), 4));
  now_ += absl::Seconds(9);
  FinishStep();
  now_ += absl::Seconds(9);
  Send(WorkerTick{});
  EXPECT_THAT(broken_, IsEmpty());
  Send(StageResult{0, {.epoch = 3, .step_id = 2}});
  now_ += absl::Seconds(1);
  EXPECT_EQ(head_->NextDeadline(), now_);
  Send(WorkerTick{});
  ASSERT_THAT(broken_, SizeIs(1));
  EXPECT_EQ(broken_[0].suspect_worker_id, "second") << "the first stage has answered";
  EXPECT_EQ(head_->NextDeadline(), absl::InfiniteFuture());
}

TEST_F(HeadSessionTest, RefusesWhatItCannotServe) {
  const auto refusal = [this](SequenceRequest request) {
    static StreamId id = 100;
    return *Open(++id, std::move(request)).end;
  };
  SequenceRequest request = Request({1}, 5);
  request.epoch = 2;
  EXPECT_TRUE(absl::IsFailedPrecondition(refusal(request)));
  EXPECT_THAT(refusal(request).message(), HasSubstr("epoch 2"));
  const auto invalid = [&](SequenceRequest wrong) {
    const absl::Status status = refusal(std::move(wrong));
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    return std::string(status.message());
  };
  EXPECT_THAT(invalid(Request({}, 5)), HasSubstr("no token"));
  EXPECT_THAT(invalid(Request(std::vector<TokenId>(128, 1), 5)), HasSubstr("context of 128"));
  EXPECT_THAT(invalid(Request({1, 97}, 5)), HasSubstr("prompt[1] is token 97"));
  EXPECT_THAT(invalid(Request({-1}, 5)), HasSubstr("token -1"));
  request = Request({1}, 5);
  request.resumed = {99};
  EXPECT_THAT(invalid(request), HasSubstr("resumed[0] is token 99"));
  request.resumed.assign(128, 1);
  EXPECT_THAT(invalid(request), HasSubstr("128 resumed tokens exceed the context of 128"));
  request = Request({1}, 5);
  request.sampling.seed.reset();
  EXPECT_THAT(invalid(request), HasSubstr("seed"));
  request = Request({1}, 5);
  request.sampling.logit_bias = {{97, 1}};
  EXPECT_THAT(invalid(request), HasSubstr("logit_bias"));
  request = Request({1}, 5);
  request.eos_tokens.assign(65, 1);
  EXPECT_THAT(invalid(request), HasSubstr("eos_tokens has 65"));
  EXPECT_EQ(head_->num_streams(), 0);
  EXPECT_EQ(head_->counters().refusals.at(absl::StatusCode::kInvalidArgument), 9u);
}

TEST_F(HeadSessionTest, AFullQueueRefusesAndTheOthersGoOn) {
  HeadOptions options;
  options.max_waiting = 3;
  Begin(options);
  int refused = 0;
  for (StreamId id = 1; id <= 12; ++id) {
    Stream& stream = Open(id, Request({static_cast<TokenId>(id)}, 6));
    if (!stream.end) continue;
    EXPECT_TRUE(absl::IsResourceExhausted(*stream.end));
    ++refused;
  }
  EXPECT_GE(refused, 12 - 4 - 3 - 4);
  EXPECT_GT(refused, 0);
  FinishAll();
  for (StreamId id = 1; id <= 12; ++id) {
    if (streams_[id].end->ok()) {
      EXPECT_EQ(streams_[id].tokens, FakeCompletion({static_cast<TokenId>(id)}, 6, 7));
    }
  }
}

TEST_F(HeadSessionTest, DrainingRefusesNewStreamsAndFinishesOldOnes) {
  Stream& old = Open(1, Request({1}, 6));
  Send(HeadDrain{});
  Stream& refused = Open(2, Request({2}, 6));
  EXPECT_TRUE(absl::IsUnavailable(*refused.end));
  FinishAll();
  EXPECT_EQ(old.end, absl::OkStatus());
}

TEST_F(HeadSessionTest, ABrokenPipelineEndsEveryStreamAndTheNextEpochStartsFresh) {
  Open(1, Request({1}, 6));
  Open(2, Request({2}, 6));
  FinishStep();
  Send(PipelineBroken{"stage 1 is gone"});
  for (const StreamId id : {1, 2}) {
    EXPECT_TRUE(absl::IsUnavailable(*streams_[id].end));
    EXPECT_THAT(streams_[id].end->message(),
                HasSubstr("pipeline of epoch 3 broke: stage 1 is gone; resume"));
  }
  EXPECT_TRUE(absl::IsUnavailable(*Open(3, Request({2}, 6)).end));
  steps_.clear();
  assignment_.epoch = 4;
  Send(HeadStart{assignment_, 32, FakeFacts()});
  SequenceRequest request = Request({2}, 6);
  request.epoch = 4;
  Stream& stream = Open(4, request);
  FinishAll();
  EXPECT_EQ(stream.tokens, FakeCompletion({2}, 6, 7));
}

TEST_F(HeadSessionTest, PreemptionsChangeNoToken) {
  StageAssignment small = assignment_;
  small.epoch = 4;
  Send(PipelineBroken{"test"});
  Send(HeadStart{small, 8, FakeFacts()});
  assignment_ = small;
  for (StreamId id = 1; id <= 4; ++id) {
    SequenceRequest request = Request({static_cast<TokenId>(id)}, 100);
    request.epoch = 4;
    Open(id, request);
  }
  FinishAll();
  for (StreamId id = 1; id <= 4; ++id) {
    EXPECT_EQ(streams_[id].tokens, FakeCompletion({static_cast<TokenId>(id)}, 100, 7));
  }
  EXPECT_GT(head_->counters().preemptions, 0u);
  EXPECT_GT(num_tokens_computed_, 4 * 100);
  EXPECT_EQ(head_->counters().generation_tokens, 400u);
}

TEST_F(HeadSessionTest, PhasesTellStepsTokensAndEachStagesTimeToWhoAsks) {
  SequenceRequest request = Request(std::vector<TokenId>(20, 2), 4);
  request.with_phases = true;
  now_ += absl::Seconds(1);
  Stream& stream = Open(1, request);
  EXPECT_THAT(Open(2, Request({3}, 2)).messages[0].phases, IsEmpty());
  while (!steps_.empty()) {
    now_ += absl::Milliseconds(10);
    StepResult result = steps_.front();
    steps_.pop_front();
    Send(StageResult{0, {.epoch = 3, .step_id = result.step_id, .compute_seconds = 0.25}});
    result.compute_seconds = 0.5;
    Send(StageResult{1, result});
  }
  const std::vector<StepPhase>& phases = stream.messages.back().phases;
  ASSERT_THAT(phases, SizeIs(2));
  EXPECT_EQ(phases[0].kind, StepPhase::Kind::kPrefill);
  EXPECT_EQ(phases[0].tokens, 20u);
  EXPECT_EQ(phases[0].begin_seconds, 0);
  EXPECT_GE(phases[0].steps, 3u);  // of 8 tokens at most
  EXPECT_EQ(phases[1].kind, StepPhase::Kind::kDecode);
  EXPECT_EQ(phases[1].steps, 3u);
  EXPECT_EQ(phases[1].tokens, 3u);
  EXPECT_GE(phases[1].begin_seconds, phases[0].end_seconds);
  for (const StepPhase& phase : phases) {
    EXPECT_THAT(phase.stage_seconds, ElementsAre(0.25 * phase.steps, 0.5 * phase.steps));
    EXPECT_GT(phase.end_seconds, phase.begin_seconds);
  }
  for (const SequenceTokens& message : streams_[2].messages) EXPECT_THAT(message.phases, IsEmpty());
}

TEST_F(HeadSessionTest, AStagesWordThatTheLastStageOvertookIsLeftOut) {
  SequenceRequest request = Request({5}, 3);
  request.with_phases = true;
  Stream& stream = Open(1, request);
  StepResult first = steps_.front();
  steps_.pop_front();
  first.compute_seconds = 0.5;
  Send(StageResult{1, first});
  Send(StageResult{0, {.epoch = 3, .step_id = first.step_id, .compute_seconds = 0.25}});
  FinishAll();
  ASSERT_THAT(stream.messages.back().phases, SizeIs(2));
  EXPECT_THAT(stream.messages.back().phases[0].stage_seconds, ElementsAre(0, 0.5));
}

TEST(StepTimesTest, MorePhasesThanAreKeptAreAddedToTheLastOfTheirKind) {
  std::vector<StepPhase> phases;
  for (uint32_t i = 0; i < 25; ++i) {
    AddStep({.kind = i % 2 == 0 ? StepPhase::Kind::kPrefill : StepPhase::Kind::kDecode,
             .begin_seconds = i + 0.0,
             .end_seconds = i + 1.0,
             .steps = 1,
             .tokens = 2,
             .stage_seconds = {1, 10}},
            phases);
  }
  ASSERT_THAT(phases, SizeIs(kMaxStepPhases));
  uint32_t steps = 0;
  for (const StepPhase& phase : phases) steps += phase.steps;
  EXPECT_EQ(steps, 25u);
  EXPECT_EQ(phases[6].steps, 10u);
  EXPECT_EQ(phases[6].tokens, 20u);
  EXPECT_THAT(phases[6].stage_seconds, ElementsAre(10, 100));
  EXPECT_EQ(phases[6].end_seconds, 25);
  EXPECT_EQ(phases[7].kind, StepPhase::Kind::kDecode);
}

}  // namespace
}  // namespace sauva
