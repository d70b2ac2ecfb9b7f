#include "worker/stage_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/worker/fake_engine.h"

namespace sauva {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// The middle stage of three, with sequence 1 open.
class StageSessionTest : public testing::Test {
 protected:
  StageSessionTest() {
    for (const char* worker : {"head", "middle", "last"}) {
      assignment_.stages.push_back({.worker_id = worker, .address = worker});
    }
    assignment_.epoch = 9;
    assignment_.stage_index = 1;
    assignment_.max_step_tokens = 4;
    assignment_.max_sequences = 2;
    Start();
  }

  void Start() {
    stage_.OnEvent(StageStopped{});
    stage_.OnEvent(StageStarted{assignment_, 8, FakeFacts()});
    stage_.OnEvent(OpenSequence{.id = 1, .tokens = {5, 6}});
  }

  static StepHeader Header(uint64_t step_id, int num_tokens = 1) {
    SequenceStep step{.id = 1, .tokens = std::vector<TokenId>(static_cast<size_t>(num_tokens), 5)};
    return {.epoch = 9, .step_id = step_id, .sequences = {step}};
  }
  static HiddenStates Hidden(uint64_t step_id, int num_tokens = 1) {
    return {9, step_id, std::vector<float>(static_cast<size_t>(num_tokens * kFakeHiddenSize), 1)};
  }
  static StepComputed Computed(uint64_t step_id, int num_tokens = 1) {
    return {.epoch = 9, .step_id = step_id, .hidden = Hidden(step_id, num_tokens).values};
  }

  // The fault that this event must be answered with.
  StageFault FaultOf(StageEvent event) {
    const StageEffects effects = stage_.OnEvent(std::move(event));
    if (effects.empty() || !std::holds_alternative<StageFault>(effects.back())) {
      ADD_FAILURE() << "no fault";
      return {};
    }
    EXPECT_FALSE(stage_.started());
    EXPECT_EQ(stage_.num_held_steps() + stage_.num_held_hidden() + stage_.num_open_sequences(), 0);
    return std::get<StageFault>(effects.back());
  }

  StageAssignment assignment_;
  StageSession stage_;
};

TEST_F(StageSessionTest, AStepWaitsForHeaderAndHiddenStatesInEitherOrder) {
  EXPECT_THAT(stage_.OnEvent(Header(1)), IsEmpty());
  EXPECT_THAT(stage_.OnEvent(Hidden(1)), SizeIs(1));
  EXPECT_TRUE(stage_.computing());
  EXPECT_THAT(stage_.OnEvent(Hidden(2)), IsEmpty());
  EXPECT_THAT(stage_.OnEvent(Header(2)), IsEmpty()) << "step 1 is being computed";
  const StageEffects effects = stage_.OnEvent(Computed(1));
  ASSERT_THAT(effects, SizeIs(3));
  EXPECT_EQ(std::get<HiddenStates>(effects[0]).step_id, 1u);
  EXPECT_EQ(std::get<StepResult>(effects[1]).step_id, 1u);
  EXPECT_EQ(std::get<ComputeStep>(effects[2]).header, Header(2));
}

TEST_F(StageSessionTest, OpensAndClosesKeepTheirPlaceAmongSteps) {
  stage_.OnEvent(Header(1));
  stage_.OnEvent(Hidden(1));
  EXPECT_THAT(stage_.OnEvent(CloseSequence{1}), IsEmpty());
  EXPECT_THAT(stage_.OnEvent(OpenSequence{.id = 2, .tokens = {1}}), IsEmpty());
  const StageEffects effects = stage_.OnEvent(Computed(1));
  ASSERT_THAT(effects, SizeIs(4));
  EXPECT_TRUE(std::holds_alternative<CloseSequence>(effects[2]));
  EXPECT_TRUE(std::holds_alternative<OpenSequence>(effects[3]));
}

TEST_F(StageSessionTest, OnlyTheHeadNeedsNoHiddenStates) {
  assignment_.stage_index = 0;
  Start();
  const StageEffects effects = stage_.OnEvent(Header(1));
  ASSERT_THAT(effects, SizeIs(1));
  EXPECT_THAT(std::get<ComputeStep>(effects[0]).hidden, IsEmpty());
  stage_.OnEvent(Computed(1));
  EXPECT_THAT(FaultOf(Hidden(1)).reason, HasSubstr("takes no hidden states"));
}

TEST_F(StageSessionTest, CountsStepsTokensAndSeconds) {
  stage_.OnEvent(Header(1, 3));
  stage_.OnEvent(Hidden(1, 3));
  StepComputed done = Computed(1, 3);
  done.compute_seconds = 0.25;
  stage_.OnEvent(done);
  EXPECT_EQ(stage_.counters().steps_done, 1u);
  EXPECT_EQ(stage_.counters().tokens_done, 3u);
  EXPECT_EQ(stage_.counters().step_seconds, 0.25);
}

TEST_F(StageSessionTest, AnotherEpochIsDroppedWithACounter) {
  StepHeader header = Header(1);
  header.epoch = 8;
  EXPECT_THAT(stage_.OnEvent(header), IsEmpty());
  HiddenStates hidden = Hidden(1);
  hidden.epoch = 10;
  EXPECT_THAT(stage_.OnEvent(hidden), IsEmpty());
  EXPECT_EQ(stage_.counters().stale_messages, 2u);
  StepComputed computed = Computed(1);
  computed.epoch = 8;
  EXPECT_THAT(stage_.OnEvent(computed), IsEmpty());
  EXPECT_TRUE(stage_.started());
}

TEST_F(StageSessionTest, AfterAFaultEverythingIsDroppedUntilTheNextStart) {
  FaultOf(Header(2));
  EXPECT_THAT(stage_.OnEvent(Header(1)), IsEmpty());
  EXPECT_THAT(stage_.OnEvent(OpenSequence{.id = 3, .tokens = {1}}), IsEmpty());
  EXPECT_EQ(stage_.counters().stale_messages, 2u);
  Start();
  stage_.OnEvent(Header(1));
  EXPECT_THAT(stage_.OnEvent(Hidden(1)), SizeIs(1));
}

struct HostileHeader {
  const char* name;
  void (*spoil)(StepHeader&);
  const char* reason;
};

class HostileHeaderTest : public StageSessionTest,
                          public testing::WithParamInterface<HostileHeader> {};

TEST_P(HostileHeaderTest, IsAFaultThatSuspectsTheHead) {
  StepHeader header = Header(1);
  GetParam().spoil(header);
  const StageFault fault = FaultOf(header);
  EXPECT_EQ(fault.epoch, 9u);
  EXPECT_EQ(fault.suspect_worker_id, "head");
  EXPECT_THAT(fault.reason, HasSubstr(GetParam().reason));
}

constexpr HostileHeader kHostileHeaders[] = {
    {"StepZero", [](StepHeader& h) { h.step_id = 0; }, "step 0 follows step 0"},
    {"AGap", [](StepHeader& h) { h.step_id = 2; }, "step 2 follows step 0"},
    {"NoSequence", [](StepHeader& h) { h.sequences.clear(); }, "has 0 sequences"},
    {"TooManySequences", [](StepHeader& h) { h.sequences.resize(3, h.sequences[0]); },
     "has 3 sequences"},
    {"Twice", [](StepHeader& h) { h.sequences.push_back(h.sequences[0]); }, "sequence 1 twice"},
    {"Unknown", [](StepHeader& h) { h.sequences[0].id = 2; }, "sequence 2 is not open"},
    {"NoToken", [](StepHeader& h) { h.sequences[0].tokens.clear(); }, "has 0 tokens"},
    {"TooManyTokens", [](StepHeader& h) { h.sequences[0].tokens.resize(5, 1); },
     "has 5 tokens; limit 4"},
    {"NegativePosition", [](StepHeader& h) { h.sequences[0].first_position = -1; }, "position -1"},
    {"BeyondTheContext", [](StepHeader& h) { h.sequences[0].first_position = kFakeMaxContext; },
     "position 128"},
    {"LargestPosition",
     [](StepHeader& h) { h.sequences[0].first_position = std::numeric_limits<int>::max(); },
     "position 2147483647"},
    {"NegativeToken", [](StepHeader& h) { h.sequences[0].tokens[0] = -1; }, "token -1"},
    {"TokenBeyondTheVocabulary", [](StepHeader& h) { h.sequences[0].tokens[0] = kFakeVocabSize; },
     "token 97"},
    {"KvGroup",
     [](StepHeader& h) {
       h.sequences[0].blocks = {{1, {}}};
     },
     "KV group 1 of 1"},
    {"NegativeBlock",
     [](StepHeader& h) {
       h.sequences[0].blocks = {{0, {-1}}};
     },
     "block -1 of 8"},
    {"BlockBeyondThePool",
     [](StepHeader& h) {
       h.sequences[0].blocks = {{0, {7, 8}}};
     },
     "block 8 of 8"},
};
INSTANTIATE_TEST_SUITE_P(Headers, HostileHeaderTest, testing::ValuesIn(kHostileHeaders),
                         [](const auto& test) { return test.param.name; });

TEST_F(StageSessionTest, MoreStepsThanAPipelineCanHaveInFlightAreAFault) {
  for (uint64_t step_id = 1; step_id <= 5; ++step_id) {
    EXPECT_THAT(stage_.OnEvent(Header(step_id)), IsEmpty());
  }
  EXPECT_EQ(stage_.num_held_steps(), 5) << "three stages and two spare";
  EXPECT_THAT(FaultOf(Header(6)).reason, HasSubstr("limit 5"));
}

TEST_F(StageSessionTest, MoreHiddenStatesThanAPipelineCanHaveInFlightAreAFault) {
  for (uint64_t step_id = 1; step_id <= 5; ++step_id) stage_.OnEvent(Hidden(step_id));
  const StageFault fault = FaultOf(Hidden(6));
  EXPECT_THAT(fault.reason, HasSubstr("limit 5"));
  EXPECT_EQ(fault.suspect_worker_id, "head") << "the stage before this one";
}

TEST_F(StageSessionTest, HiddenStatesOfAnotherSizeAreAFault) {
  stage_.OnEvent(Header(1, 2));
  EXPECT_THAT(FaultOf(Hidden(1, 3)).reason, HasSubstr("9 values; its 2 tokens need 6"));
  Start();
  EXPECT_THAT(FaultOf(Hidden(1, 5)).reason, HasSubstr("15 values"));
  Start();
  EXPECT_THAT(FaultOf(HiddenStates{9, 1, {1, 2}}).reason, HasSubstr("2 values"));
  Start();
  EXPECT_THAT(FaultOf(HiddenStates{9, 1, {}}).reason, HasSubstr("0 values"));
  Start();
  EXPECT_THAT(FaultOf(Hidden(2)).reason, HasSubstr("of step 2 follow those of step 0"));
}

TEST_F(StageSessionTest, EndlessOpensAreAFault) {
  stage_.OnEvent(Header(1));  // waits for hidden states, and all after it
  StageEffects effects;
  SequenceId id = 2;
  for (; effects.empty() && id < 1000; ++id) {
    effects = stage_.OnEvent(OpenSequence{.id = id, .tokens = {1}});
  }
  ASSERT_THAT(effects, SizeIs(1));
  EXPECT_THAT(std::get<StageFault>(effects[0]).reason, HasSubstr("9th one open"));
  Start();
  stage_.OnEvent(Header(1));
  effects.clear();
  for (int i = 0; effects.empty() && i < 1000; ++i) {
    effects = stage_.OnEvent(OpenSequence{.id = 1, .tokens = {1}});
  }
  ASSERT_THAT(effects, SizeIs(1));
  EXPECT_THAT(std::get<StageFault>(effects[0]).reason, HasSubstr("messages wait"));
}

TEST_F(StageSessionTest, SequencesWithoutTokensOrBeyondTheContextAreFaults) {
  EXPECT_THAT(FaultOf(OpenSequence{.id = 2}).reason, HasSubstr("0 tokens"));
  Start();
  EXPECT_THAT(FaultOf(OpenSequence{.id = 2, .tokens = std::vector<TokenId>(129, 1)}).reason,
              HasSubstr("129 tokens"));
  Start();
  EXPECT_THAT(FaultOf(CloseSequence{2}).reason, HasSubstr("was not open"));
}

TEST_F(StageSessionTest, WhatTheEngineRefusesIsTheHeadsFaultAndItsFailureOurs) {
  stage_.OnEvent(Header(1));
  stage_.OnEvent(Hidden(1));
  StepComputed refused = Computed(1);
  refused.status = absl::InvalidArgumentError("a gap in positions");
  EXPECT_EQ(FaultOf(refused).suspect_worker_id, "head");
  Start();
  stage_.OnEvent(Header(1));
  stage_.OnEvent(Hidden(1));
  refused.status = absl::InternalError("device lost");
  EXPECT_EQ(FaultOf(refused).suspect_worker_id, "middle");
  Start();
  EXPECT_THAT(FaultOf(OpenFailed{9, absl::InvalidArgumentError("no seed")}).reason,
              HasSubstr("no seed"));
}

}  // namespace
}  // namespace sauva
