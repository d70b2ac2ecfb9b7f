// Whole models on the CUDA backend, over the emulator: every token and every log-probability
// is the CPU backend's in deterministic arithmetic, for weights as stored and in every quantized
// format, in one stage and in several, alone and in a batch.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

#include "engine/formats.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/cuda/emulator/emulated_device.h"
#include "tests/engine/engine_testing.h"
#include "tests/model/tiny_checkpoint.h"

namespace sauva {
namespace {

LocalPipeline::BackendFactory EmulatedFactory(
    CudaArithmetic arithmetic = CudaArithmetic::kDeterministic) {
  return [arithmetic] {
    constexpr int64_t kBudget = int64_t{1} << 30;
    return std::make_unique<cuda::CudaBackend>(cuda::MakeEmulatedDevice(kBudget),
                                               CudaOptions{.arithmetic = arithmetic});
  };
}

using Completions = std::vector<LocalPipeline::Completion>;

Completions Ask(const Model& model, const LocalPipeline::BackendFactory& factory,
                const LocalPipelineOptions& options, const std::vector<NewSequence>& sequences) {
  auto pipeline = LocalPipeline::Create(model.spec, *model.checkpoint, factory, options);
  EXPECT_TRUE(pipeline.ok()) << pipeline.status();
  auto completions = (*pipeline)->Generate(sequences);
  EXPECT_TRUE(completions.ok()) << completions.status();
  return *std::move(completions);
}

void ExpectSame(const Completions& expected, const Completions& actual) {
  ASSERT_EQ(expected.size(), actual.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(expected[i].tokens, actual[i].tokens);
    ASSERT_EQ(expected[i].logprobs.size(), actual[i].logprobs.size());
    for (size_t t = 0; t < expected[i].logprobs.size(); ++t) {
      EXPECT_TRUE(expected[i].logprobs[t] == actual[i].logprobs[t]) << "token " << t;
    }
  }
}

std::vector<NewSequence> Texts(int vocab_size, int count, int new_tokens) {
  std::vector<NewSequence> sequences;
  for (int i = 0; i < count; ++i) {
    const auto seed = static_cast<uint64_t>(i);
    sequences.push_back(Continue(RandomTokens(3 + 9 * i, vocab_size, seed), new_tokens));
    sequences.back().sampling.temperature = i % 2 == 0 ? 0.0f : 1.0f;
    sequences.back().sampling.seed = seed;
    sequences.back().sampling.logprobs = 5;
  }
  return sequences;
}

struct Format {
  DType stored = DType::kF32;
  LoadFormat loaded = LoadFormat::kStored;
  DType kv_type = DType::kF32;
};

TEST(CudaModelTest, ARandomLlamaGivesTheTokensOfTheCpuInEveryFormat) {
  for (const Format& format :
       {Format{.stored = DType::kF32}, Format{.stored = DType::kF16, .kv_type = DType::kF16},
        Format{.stored = DType::kBF16}, Format{.loaded = LoadFormat::kInt8, .kv_type = DType::kF16},
        Format{.loaded = LoadFormat::kInt4, .kv_type = DType::kI8},
        Format{.loaded = LoadFormat::kInt3}, Format{.loaded = LoadFormat::kNf4}}) {
    const Model model = OpenOrDie(WriteTinyCheckpoint("cuda_model", {.dtype = format.stored}));
    const std::vector<NewSequence> texts = Texts(model.spec.vocab_size, 4, 8);
    LocalPipelineOptions options = {
        .weight_format = format.loaded, .kv_type = format.kv_type, .max_step_tokens = 17};
    const Completions expected = Ask(model, CpuFactory(1, InstructionSet::kAuto), options, texts);
    options.num_stages = 2;
    ExpectSame(expected, Ask(model, EmulatedFactory(), options, texts));
    if (HasFailure()) FAIL() << Name(format.stored) << " loaded as " << Name(format.loaded);
  }
}

TEST(CudaModelTest, EachArithmeticIsABackendClassOfItsOwn) {
  EXPECT_EQ((*EmulatedFactory(CudaArithmetic::kFast)())->backend_class(), "cuda-sm80");
  EXPECT_EQ((*EmulatedFactory()())->backend_class(), "cuda-sm80-deterministic");
}

// The largest difference of a log-probability of an offered token, up to where the tokens part;
// `compared` counts them.
float LargestDifference(const Completions& expected, const Completions& actual, int& compared) {
  float largest = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const size_t length = std::min(expected[i].tokens.size(), actual[i].tokens.size());
    for (size_t t = 0; t < length; ++t) {
      largest = std::max(largest, std::fabs(expected[i].logprobs[t].chosen.logprob -
                                            actual[i].logprobs[t].chosen.logprob));
      ++compared;
      if (expected[i].tokens[t] != actual[i].tokens[t]) break;
    }
  }
  return largest;
}

TEST(CudaModelTest, FastArithmeticIsNearTheCpuAndTheSameInAnyBatch) {
  for (const auto& [stored, tolerance] : {std::pair{DType::kF16, 0.01f}, {DType::kBF16, 0.05f}}) {
    const Model model = OpenOrDie(WriteTinyCheckpoint("cuda_model", {.dtype = stored}));
    const std::vector<NewSequence> texts = Texts(model.spec.vocab_size, 4, 8);
    LocalPipelineOptions options = {.kv_type = DType::kF16, .max_step_tokens = 17};
    const Completions cpu = Ask(model, CpuFactory(1, InstructionSet::kAuto), options, texts);
    const Completions fast = Ask(model, EmulatedFactory(CudaArithmetic::kFast), options, texts);
    int compared = 0;
    const float largest = LargestDifference(cpu, fast, compared);
    std::printf("%s: log-probabilities of %d tokens differ by %.1e at most\n", Name(stored),
                compared, static_cast<double>(largest));
    EXPECT_GT(compared, 20);
    EXPECT_GT(largest, 0);  // or nothing was rounded
    EXPECT_LT(largest, tolerance);
    options.num_stages = 2;
    options.max_step_tokens = 40;
    for (size_t i = 0; i < texts.size(); ++i) {
      ExpectSame({fast[i]},
                 Ask(model, EmulatedFactory(CudaArithmetic::kFast), options, {texts[i]}));
    }
  }
}

TEST(CudaModelTest, TheTrainedModelGivesTheTokensOfTheCpu) {
  const Model model = OpenOrDie(std::string(SAUVA_SOURCE_DIR) + "/models/prose");
  for (const LoadFormat format : {LoadFormat::kStored, LoadFormat::kInt4}) {
    const LocalPipelineOptions options = {.num_stages = 2, .weight_format = format};
    const std::vector<NewSequence> texts = Texts(model.spec.vocab_size, 2, 3);
    ExpectSame(Ask(model, CpuFactory(2, InstructionSet::kAuto), options, texts),
               Ask(model, EmulatedFactory(), options, texts));
  }
}

// The trained model's f16 in fast arithmetic: how much of what it writes is what the CPU does.
TEST(CudaModelTest, TheTrainedModelWritesNearlyTheSameInFastArithmetic) {
  const Model model = OpenOrDie(std::string(SAUVA_SOURCE_DIR) + "/models/prose");
  std::vector<NewSequence> texts = Texts(model.spec.vocab_size, 8, 16);
  for (NewSequence& text : texts) text.sampling.temperature = 0;
  const LocalPipelineOptions options;
  const Completions cpu = Ask(model, CpuFactory(2, InstructionSet::kAuto), options, texts);
  const Completions fast = Ask(model, EmulatedFactory(CudaArithmetic::kFast), options, texts);
  int compared = 0;
  const float largest = LargestDifference(cpu, fast, compared);
  size_t same = 0;
  for (size_t i = 0; i < texts.size(); ++i) same += cpu[i].tokens == fast[i].tokens ? 1 : 0;
  std::printf(
      "models/prose: log-probabilities of %d tokens differ by %.1e at most, %zu of %zu "
      "continuations are the same\n",
      compared, static_cast<double>(largest), same, texts.size());
  EXPECT_LT(largest, 0.02f);
  EXPECT_GE(same, texts.size() / 2);
}

}  // namespace
}  // namespace sauva
