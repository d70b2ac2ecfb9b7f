#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "proto/control_codec.h"
#include "proto/generation_codec.h"
#include "proto/stage_codec.h"

namespace sauva {
namespace {

using testing::HasSubstr;

SamplingParams EveryControl() {
  SamplingParams out;
  out.temperature = 0.5f;
  out.top_k = 7;
  out.top_p = 0.9f;
  out.min_p = 0.05f;
  out.repetition_penalty = 1.1f;
  out.presence_penalty = -0.25f;
  out.frequency_penalty = 0.75f;
  out.max_tokens = 33;
  out.stop = {"stop", "\n\n"};
  out.stop_tokens = {3, 9};
  out.seed = std::numeric_limits<uint64_t>::max();
  out.n = 4;
  out.logprobs = 5;
  out.logit_bias = {{11, -100}, {12, 2.5f}};
  out.ignore_eos = true;
  return out;
}

StageAssignment TwoStages() {
  StageAssignment out;
  out.epoch = (uint64_t{1} << 60) + 5;
  out.model = {"prose", "abc"};
  out.stage_index = 1;
  out.stages = {{"w0", "127.0.0.1:1", {0, 3}}, {"w1", "127.0.0.1:2", {3, 8}}};
  out.weight_format = "int8";
  out.kv_type = "f16";
  out.kv_memory_bytes = 1 << 20;
  out.max_context = 512;
  out.numerics_id = "id";
  return out;
}

TEST(GenerationCodecTest, SamplingParamsSurviveTheRoundTrip) {
  v1::SamplingParams message;
  ToProto(EveryControl(), &message);
  const auto back = FromProto(message);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(*back, EveryControl());
}

TEST(GenerationCodecTest, AnEmptyMessageMeansEveryControlIsOff) {
  const auto params = FromProto(v1::SamplingParams());
  ASSERT_TRUE(params.ok());
  EXPECT_EQ(*params, SamplingParams());
}

struct BadSampling {
  std::string name;
  std::function<void(v1::SamplingParams&)> spoil;
  std::string expected;
};

class BadSamplingTest : public testing::TestWithParam<BadSampling> {};

TEST_P(BadSamplingTest, IsRefusedWithTheFieldAndTheValue) {
  v1::SamplingParams message;
  GetParam().spoil(message);
  const auto params = FromProto(message);
  ASSERT_EQ(params.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(params.status().message()), HasSubstr(GetParam().expected));
}

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

INSTANTIATE_TEST_SUITE_P(
    Values, BadSamplingTest,
    testing::Values(
        BadSampling{"NanTemperature", [](auto& m) { m.set_temperature(kNan); }, "temperature"},
        BadSampling{"NegativeTemperature", [](auto& m) { m.set_temperature(-1); }, "is -1"},
        BadSampling{"HugeTemperature", [](auto& m) { m.set_temperature(kInfinity); }, "inf"},
        BadSampling{"ZeroTopP", [](auto& m) { m.set_top_p(0); }, "top_p is 0"},
        BadSampling{"TopPAboveOne", [](auto& m) { m.set_top_p(1.5f); }, "1.5"},
        BadSampling{"NegativeMinP", [](auto& m) { m.set_min_p(-0.5f); }, "min_p"},
        BadSampling{"MinPOfOne", [](auto& m) { m.set_min_p(1); }, "[0, 1)"},
        BadSampling{"ZeroRepetition", [](auto& m) { m.set_repetition_penalty(0); },
                    "repetition_penalty"},
        BadSampling{"Presence", [](auto& m) { m.set_presence_penalty(3); }, "presence_penalty"},
        BadSampling{"Frequency", [](auto& m) { m.set_frequency_penalty(kNan); },
                    "frequency_penalty"},
        BadSampling{"TopK", [](auto& m) { m.set_top_k(~0u); }, "top_k"},
        BadSampling{"MaxTokens", [](auto& m) { m.set_max_tokens(~0u); }, "max_tokens"},
        BadSampling{"Samples", [](auto& m) { m.set_n(65); }, "n is 65; the limit is 64"},
        BadSampling{"Logprobs", [](auto& m) { m.set_logprobs(21); }, "logprobs is 21"},
        BadSampling{"EmptyStop", [](auto& m) { m.add_stop(""); }, "empty text"},
        BadSampling{"LongStop", [](auto& m) { m.add_stop(std::string(257, 'x')); }, "257"},
        BadSampling{"ManyStops",
                    [](auto& m) {
                      for (int i = 0; i < 17; ++i) m.add_stop("x");
                    },
                    "stop (entries) is 17"},
        BadSampling{"NanBias", [](auto& m) { m.add_logit_bias()->set_bias(kNan); }, "logit_bias"}),
    [](const auto& test) { return test.param.name; });

TEST(GenerationCodecTest, SequenceRequestSurvivesTheRoundTripAndNeedsItsSeed) {
  SequenceRequest request;
  request.epoch = 7;
  request.request_id = "r";
  request.sample_index = 2;
  request.prompt = {1, 2, 3};
  request.resumed = {4};
  request.sampling = EveryControl();
  request.eos_tokens = {1};
  v1::SequenceRequest message;
  ToProto(request, &message);
  const auto back = FromProto(message);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->prompt, request.prompt);
  EXPECT_EQ(back->resumed, request.resumed);
  EXPECT_EQ(back->sampling, request.sampling);
  EXPECT_EQ(back->eos_tokens, request.eos_tokens);
  message.mutable_sampling()->clear_seed();
  EXPECT_THAT(std::string(FromProto(message).status().message()), HasSubstr("seed"));
}

TEST(GenerationCodecTest, TokensWithLogprobsForSomeOnlyAreRefused) {
  v1::SequenceTokens message;
  message.add_token_ids(1);
  message.add_token_ids(2);
  message.add_logprobs();
  EXPECT_EQ(FromProto(message).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(GenerationCodecTest, PhasesSurviveTheRoundTripAndAreBounded) {
  SequenceTokens tokens{.tokens = {1}};
  tokens.phases = {{.kind = StepPhase::Kind::kPrefill,
                    .begin_seconds = 0.5,
                    .end_seconds = 1.5,
                    .steps = 2,
                    .tokens = 9,
                    .stage_seconds = {0.25, 0.75}},
                   {.kind = StepPhase::Kind::kDecode, .end_seconds = 3, .steps = 4, .tokens = 4}};
  v1::SequenceTokens message;
  ToProto(tokens, &message);
  const auto back = FromProto(message);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->phases, tokens.phases);
  for (size_t i = 2; i <= kMaxStepPhases; ++i) message.add_phases();
  EXPECT_EQ(FromProto(message).status().message(), "9 phases; there are at most 8");
}

TEST(ControlCodecTest, EveryWorkerMessageSurvivesTheRoundTrip) {
  StageReport report;
  report.assignment = TwoStages();
  report.phase = StagePhase::kServing;
  report.num_kv_blocks = 9;
  report.steps_done = 4;
  report.scratch_bytes = 77;
  WorkerHello hello;
  hello.worker_id = "w1";
  hello.address = "127.0.0.1:2";
  hello.memory_bytes = 5;
  hello.stage = report;
  hello.newest_epoch = 7;
  hello.threads = 12;
  hello.nccl = {"2.28.9", "GPU-1", "none"};
  const auto hello_back = FromProto(ToProto(WorkerMessage(hello)));
  ASSERT_TRUE(hello_back.ok()) << hello_back.status();
  const auto& greeted = std::get<WorkerHello>(*hello_back);
  EXPECT_EQ(greeted.memory_bytes, 5u);
  EXPECT_EQ(greeted.newest_epoch, 7u);
  EXPECT_EQ(greeted.threads, 12);
  EXPECT_EQ(greeted.nccl.version, "2.28.9");
  EXPECT_EQ(greeted.nccl.device, "GPU-1");
  EXPECT_EQ(greeted.nccl.error, "none");
  ASSERT_TRUE(greeted.stage.has_value());
  EXPECT_EQ(greeted.stage->assignment, TwoStages());
  EXPECT_EQ(greeted.stage->phase, StagePhase::kServing);
  EXPECT_EQ(greeted.stage->scratch_bytes, 77u);

  const auto beat = FromProto(ToProto(WorkerMessage(Heartbeat{report, true})));
  ASSERT_TRUE(beat.ok());
  EXPECT_TRUE(std::get<Heartbeat>(*beat).draining);
  EXPECT_EQ(std::get<Heartbeat>(*beat).stage->steps_done, 4u);

  const auto broken = FromProto(ToProto(WorkerMessage(StageBroken{3, "w0", "gone"})));
  ASSERT_TRUE(broken.ok());
  EXPECT_EQ(std::get<StageBroken>(*broken).suspect_worker_id, "w0");
}

TEST(ControlCodecTest, EveryCoordinatorMessageSurvivesTheRoundTrip) {
  const auto load = FromProto(ToProto(CoordinatorMessage(TwoStages())));
  ASSERT_TRUE(load.ok()) << load.status();
  EXPECT_EQ(std::get<StageAssignment>(*load), TwoStages());
  const auto welcome = FromProto(ToProto(CoordinatorMessage(Welcome{1, 3000, 500})));
  ASSERT_TRUE(welcome.ok());
  EXPECT_EQ(std::get<Welcome>(*welcome).lease_ms, 3000);
  const auto start = FromProto(ToProto(CoordinatorMessage(StartStage{4, 10})));
  ASSERT_TRUE(start.ok());
  EXPECT_EQ(std::get<StartStage>(*start).num_kv_blocks, 10u);
}

TEST(ControlCodecTest, StagesThatLeaveAGapAreRefused) {
  StageAssignment gap = TwoStages();
  gap.stages[1].layers.first = 4;
  EXPECT_THAT(std::string(FromProto(ToProto(CoordinatorMessage(gap))).status().message()),
              HasSubstr("gap before layer 4; expected 3"));
}

TEST(ControlCodecTest, EmptyAndUnknownMessagesAreRefused) {
  EXPECT_FALSE(FromProto(v1::WorkerMessage()).ok());
  EXPECT_FALSE(FromProto(v1::CoordinatorMessage()).ok());
  v1::WorkerMessage odd = ToProto(WorkerMessage(StageReport{.assignment = TwoStages()}));
  odd.mutable_stage_report()->set_phase(static_cast<v1::StagePhase>(77));
  EXPECT_THAT(std::string(FromProto(odd).status().message()), HasSubstr("77"));
}

TEST(ControlCodecTest, AStatusMayHoldStagesThatHaveNotReportedYet) {
  ClusterStatus status;
  PipelineStatus pipeline;
  pipeline.epoch = 4;
  pipeline.stages.resize(2);
  pipeline.stages[0].endpoint = {"w0", "127.0.0.1:1", {0, 3}};
  pipeline.stages[1].endpoint = {"w1", "127.0.0.1:2", {3, 8}};
  pipeline.stages[1].report.assignment = TwoStages();
  pipeline.stages[1].report.phase = StagePhase::kLoaded;
  status.pipelines = {pipeline};
  v1::StatusResponse message;
  ToProto(status, &message);
  const auto back = FromProto(message);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->pipelines[0].stages[0].endpoint, pipeline.stages[0].endpoint);
  EXPECT_EQ(back->pipelines[0].stages[1].report.phase, StagePhase::kLoaded);
}

TEST(ControlCodecTest, LinksByNcclAndTheirFailuresSurviveTheRoundTrip) {
  StageAssignment assignment = TwoStages();
  assignment.stages[0].link = LinkKind::kNccl;
  assignment.stages[1].donor = "127.0.0.1:9";
  const auto load = FromProto(ToProto(CoordinatorMessage(assignment)));
  ASSERT_TRUE(load.ok()) << load.status();
  EXPECT_EQ(std::get<StageAssignment>(*load), assignment);
  for (const std::optional<int> link : {std::optional<int>(), std::optional(0), std::optional(7)}) {
    const auto broken = FromProto(ToProto(WorkerMessage(StageBroken{4, "w", "test", link})));
    ASSERT_TRUE(broken.ok()) << broken.status();
    EXPECT_EQ(std::get<StageBroken>(*broken).nccl_link, link);
  }
  v1::WorkerMessage message;
  message.mutable_stage_broken()->set_nccl_link(kMaxStages + 1);
  EXPECT_THAT(FromProto(message).status().message(), HasSubstr("nccl_link is 1025"));
}

TEST(ControlCodecTest, LinksThatAreAvoidedSurviveTheRoundTrip) {
  ClusterStatus status;
  status.avoided_links = {{"w0", "w1", 2, "no route to host", 59'000}};
  v1::StatusResponse message;
  ToProto(status, &message);
  EXPECT_EQ(FromProto(message)->avoided_links, status.avoided_links);
}

TEST(StageCodecTest, AnIdOfNcclHas128Bytes) {
  for (const size_t size : {0, 127, 128, 129}) {
    const std::string id(size, 'i');
    EXPECT_EQ(NcclIdFrame(id).nccl_id(), id);
    EXPECT_EQ(CheckNcclId(id).ok(), size == 128) << size;
  }
}

TEST(StageCodecTest, AnAnnouncementCarriesNoData) {
  const auto back = AnnouncementFrom(ToProto(HiddenAnnounced{7, 3, 128}));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->epoch, 7u);
  EXPECT_EQ(back->step_id, 3u);
  EXPECT_EQ(back->num_values, 128u);
  v1::HiddenFrame with_data = ToProto(HiddenAnnounced{7, 3, 128});
  with_data.set_data("four");
  EXPECT_EQ(AnnouncementFrom(with_data).status().code(), absl::StatusCode::kInvalidArgument);
  v1::HiddenFrame odd = ToProto(HiddenAnnounced{7, 3, 128});
  odd.set_total_bytes(6);
  EXPECT_EQ(AnnouncementFrom(odd).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(StageCodecTest, EveryControlMessageSurvivesTheRoundTrip) {
  OpenSequence open;
  open.id = 5;
  open.sampling = EveryControl();
  open.tokens = {1, 2, 3};
  open.num_prompt_tokens = 2;
  const auto opened = FromProto(ToProto(ControlMessage(open)));
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(std::get<OpenSequence>(*opened), open);

  StepHeader header;
  header.epoch = 1;
  header.step_id = 2;
  header.sequences = {{5, 2, {3}, {{0, {8, 9}}}, StepWant::kSample},
                      {6, 0, {1, 2}, {}, StepWant::kScore}};
  const auto step = FromProto(ToProto(ControlMessage(header)));
  ASSERT_TRUE(step.ok()) << step.status();
  EXPECT_EQ(std::get<StepHeader>(*step), header);
}

TEST(StageCodecTest, AnUnknownWantIsRefused) {
  v1::ControlMessage message;
  message.mutable_step()->add_sequences()->set_want(static_cast<v1::StepWant>(9));
  EXPECT_THAT(std::string(FromProto(message).status().message()), HasSubstr("9"));
}

TEST(StageCodecTest, MorePromptThanTokensIsRefused) {
  v1::ControlMessage message;
  message.mutable_open()->set_num_prompt_tokens(1);
  EXPECT_FALSE(FromProto(message).ok());
}

HiddenStates Counting(size_t count) {
  HiddenStates out{.epoch = 3, .step_id = 4, .values = std::vector<float>(count)};
  for (size_t i = 0; i < count; ++i) out.values[i] = static_cast<float>(i);
  return out;
}

class HiddenFramesTest : public testing::TestWithParam<size_t> {};

TEST_P(HiddenFramesTest, AreAtMostOneMebibyteAndComeTogetherAgain) {
  const HiddenStates sent = Counting(GetParam());
  HiddenAssembler assembler(GetParam());
  const auto frames = ToFrames(sent);
  for (size_t i = 0; i < frames.size(); ++i) {
    EXPECT_LE(frames[i].data().size(), 1u << 20);
    const auto complete = assembler.Add(frames[i]);
    ASSERT_TRUE(complete.ok()) << complete.status();
    EXPECT_EQ(*complete, i + 1 == frames.size());
  }
  const HiddenStates received = assembler.Take();
  EXPECT_EQ(received.step_id, 4u);
  EXPECT_EQ(received.values, sent.values);
}

constexpr size_t kFrameFloats = (1 << 20) / 4;
INSTANTIATE_TEST_SUITE_P(Sizes, HiddenFramesTest,
                         testing::Values(1, 256, kFrameFloats - 1, kFrameFloats, kFrameFloats + 1,
                                         3 * kFrameFloats));

TEST(HiddenAssemblerTest, RefusesFramesOutOfOrderTooLargeOrOfAnotherStep) {
  const auto frames = ToFrames(Counting(2 * kFrameFloats));
  HiddenAssembler late(2 * kFrameFloats);
  EXPECT_FALSE(late.Add(frames[1]).ok());
  HiddenAssembler small(2 * kFrameFloats - 1);
  EXPECT_THAT(std::string(small.Add(frames[0]).status().message()), HasSubstr("limit"));
  HiddenAssembler other(2 * kFrameFloats);
  ASSERT_TRUE(other.Add(frames[0]).ok());
  v1::HiddenFrame wrong = frames[1];
  wrong.set_step_id(5);
  EXPECT_THAT(std::string(other.Add(wrong).status().message()),
              HasSubstr("does not follow step 4"));
}

}  // namespace
}  // namespace sauva
