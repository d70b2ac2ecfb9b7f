// Whole models whose decode steps are recorded and replayed, over the emulator: the tokens and
// log-probabilities of the CPU, whatever enters, leaves and grows between two steps.
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "engine/formats.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/cuda/emulator/emulated_device.h"
#include "tests/engine/counting_new.h"
#include "tests/engine/decoding.h"
#include "tests/engine/engine_testing.h"
#include "tests/model/tiny_checkpoint.h"

namespace sauva {
namespace {

using cuda::NumReplays;
using cuda::Recordings;
using testing::Decoding;

constexpr int64_t kBudget = int64_t{1} << 30;

LocalPipeline::BackendFactory Emulated(CudaGraphs graphs = CudaGraphs::kOn,
                                       Recordings recordings = Recordings::kWork) {
  return [=] {
    return std::make_unique<cuda::CudaBackend>(
        cuda::MakeEmulatedDevice(kBudget, {.recordings = recordings}),
        CudaOptions{.graphs = graphs});
  };
}

// Tokens and log-probabilities, in text that can be compared.
std::string Answers(const Model& model, const LocalPipeline::BackendFactory& factory,
                    const LocalPipelineOptions& options,
                    const std::vector<NewSequence>& sequences) {
  auto pipeline = LocalPipeline::Create(model.spec, *model.checkpoint, factory, options);
  EXPECT_TRUE(pipeline.ok()) << pipeline.status();
  auto completions = (*pipeline)->Generate(sequences);
  EXPECT_TRUE(completions.ok()) << completions.status();
  std::string text;
  for (const LocalPipeline::Completion& completion : *completions) {
    for (size_t i = 0; i < completion.tokens.size(); ++i) {
      absl::StrAppendFormat(&text, "%d %a, ", completion.tokens[i],
                            completion.logprobs[i].chosen.logprob);
    }
    text += "\n";
  }
  return text;
}

NewSequence Text(int prompt_tokens, int new_tokens, uint64_t seed) {
  NewSequence sequence = Continue(RandomTokens(prompt_tokens, 256, seed), new_tokens);
  sequence.sampling.temperature = seed % 3 == 0 ? 0.0f : 1.0f;
  sequence.sampling.repetition_penalty = seed % 2 == 0 ? 1.0f : 1.2f;
  sequence.sampling.seed = seed;
  sequence.sampling.logprobs = 1;
  return sequence;
}

// Texts of many lengths: a step has from 1 to 11 rows, more and then fewer of them.
std::vector<NewSequence> RisingAndFalling() {
  std::vector<NewSequence> sequences;
  for (int i = 0; i < 11; ++i) {
    sequences.push_back(Text(5 + 4 * i, 4 + (i * 7) % 12, static_cast<uint64_t>(i)));
  }
  return sequences;
}

TEST(CudaGraphsTest, BatchesThatRiseAndFallGiveTheTokensOfTheCpu) {
  const Model model = OpenOrDie(WriteTinyCheckpoint("cuda_graphs", {}));
  for (const LoadFormat format : {LoadFormat::kStored, LoadFormat::kInt8, LoadFormat::kInt4}) {
    LocalPipelineOptions options = {
        .num_stages = 2, .weight_format = format, .max_step_tokens = 20, .max_sequences = 13};
    const std::vector<NewSequence> texts = RisingAndFalling();
    const std::string expected =
        Answers(model, CpuFactory(1, InstructionSet::kAuto), options, texts);
    const int64_t before = NumReplays();
    EXPECT_EQ(Answers(model, Emulated(), options, texts), expected);
    EXPECT_GT(NumReplays(), before + 20);
    if (HasFailure()) FAIL() << Name(format);
  }
}

TEST(CudaGraphsTest, TurnedOffOrRefusedTheTokensAreTheSame) {
  const Model model = OpenOrDie(WriteTinyCheckpoint("cuda_graphs_off", {}));
  const LocalPipelineOptions options = {.max_step_tokens = 30, .max_sequences = 12};
  const std::string expected = Answers(model, Emulated(), options, RisingAndFalling());
  const int64_t before = NumReplays();
  EXPECT_EQ(Answers(model, Emulated(CudaGraphs::kOff), options, RisingAndFalling()), expected);
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(
      Answers(model, Emulated(CudaGraphs::kOn, Recordings::kRefused), options, RisingAndFalling()),
      expected);
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(log.find("no step graphs"), std::string::npos) << log;
  EXPECT_NE(log.find("recordings are refused"), std::string::npos) << log;
  EXPECT_EQ(NumReplays(), before);
}

TEST(CudaGraphsTest, ABudgetWithoutRoomForThemServesWithoutThem) {
  const Model model = OpenOrDie(WriteTinyCheckpoint("cuda_graphs_budget", {}));
  const LocalPipelineOptions options = {.max_sequences = 12};
  const std::vector<NewSequence> texts = {Text(5, 6, 0), Text(9, 6, 1)};
  cuda::Device* device = nullptr;  // of the pipeline that was made last
  int64_t used = 0;
  const auto with_budget = [&](int64_t budget, CudaGraphs graphs) {
    auto pipeline = LocalPipeline::Create(
        model.spec, *model.checkpoint,
        [&] {
          auto made = cuda::MakeEmulatedDevice(budget);
          device = made.get();
          return std::make_unique<cuda::CudaBackend>(std::move(made),
                                                     CudaOptions{.graphs = graphs});
        },
        options);
    EXPECT_TRUE(pipeline.ok()) << pipeline.status();
    used = device->used_bytes();
    return (*pipeline)->Generate(texts)->front().tokens;
  };
  const std::vector<TokenId> expected = with_budget(kBudget, CudaGraphs::kOff);
  const int64_t needed = used;
  const int64_t before = NumReplays();
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(with_budget(needed, CudaGraphs::kOn), expected);
  EXPECT_NE(::testing::internal::GetCapturedStderr().find("no step graphs"), std::string::npos);
  EXPECT_EQ(NumReplays(), before);
  EXPECT_EQ(with_budget(kBudget, CudaGraphs::kOn), expected);
  EXPECT_GT(used, needed);
  EXPECT_GT(NumReplays(), before);
}

TEST(CudaGraphsTest, TextsGrowOverTheBordersOfSpans) {
  const Model model = OpenOrDie(WriteTinyCheckpoint("cuda_graphs_spans", {.max_context = 1200}));
  const LocalPipelineOptions options = {.max_step_tokens = 200, .max_sequences = 4};
  // 512 is passed by the first while the others are at 30 and 1015, then 1024 by the last.
  const std::vector<NewSequence> texts = {Text(506, 22, 0), Text(20, 30, 1), Text(1006, 28, 3)};
  const std::string expected = Answers(model, CpuFactory(1, InstructionSet::kAuto), options, texts);
  const int64_t before = NumReplays();
  EXPECT_EQ(Answers(model, Emulated(), options, texts), expected);
  EXPECT_GT(NumReplays(), before + 10);
}

TEST(CudaGraphsTest, ANewKvCacheIsWrittenAndNotTheOneBefore) {
  const auto run = [](const LocalPipeline::BackendFactory& factory) {
    Decoding decoding(factory, LoadFormat::kStored, DType::kF16);
    std::vector<int32_t> tokens;
    for (const int num_blocks : {40, 33}) {
      decoding.Restart(num_blocks);
      decoding.Prepare(0);
      decoding.Run();
      for (int position = Decoding::kPromptTokens; position < 40; ++position) {
        decoding.Prepare(position);
        decoding.Run();
        for (const SampledToken& sampled : decoding.sampled()) tokens.push_back(sampled.token);
      }
    }
    return tokens;
  };
  EXPECT_EQ(run(Emulated()), run(CpuFactory(1, InstructionSet::kAuto)));
}

TEST(CudaGraphsTest, ADecodeStepTakesNoHeapMemoryAndWaitsOnceOnEachStage) {
  std::vector<cuda::Device*> devices;
  Decoding decoding(
      [&] {
        auto device = cuda::MakeEmulatedDevice(kBudget);
        devices.push_back(device.get());
        return std::make_unique<cuda::CudaBackend>(std::move(device), CudaOptions{});
      },
      LoadFormat::kInt8, DType::kF16);
  decoding.Prepare(0);
  decoding.Run();
  int64_t counted = 0;
  for (int position = Decoding::kPromptTokens; position < 60; ++position) {
    decoding.Prepare(position);
    const int64_t before = NumAllocations();
    const int64_t replays = NumReplays();
    const int64_t waits[] = {devices[0]->num_waits(), devices[1]->num_waits()};
    decoding.Run();
    EXPECT_EQ(devices[0]->num_waits() - waits[0], 1);
    EXPECT_EQ(devices[1]->num_waits() - waits[1], 1);
    // Two steps launch and record; from then on the layers of both stages and the head replay.
    if (position < Decoding::kPromptTokens + 2) continue;
    counted += NumAllocations() - before;
    EXPECT_EQ(NumReplays() - replays, 3);
  }
  EXPECT_EQ(counted, 0);
}

}  // namespace
}  // namespace sauva
