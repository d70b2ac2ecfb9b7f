// Whole models on the CUDA backend, over the emulator: every token and every log-probability
// is the CPU backend's, for weights as stored and in every quantized format, in one stage and in
// several, alone and in a batch.
#include <gtest/gtest.h>

#include "engine/formats.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/cuda/emulator/emulated_device.h"
#include "tests/engine/engine_testing.h"
#include "tests/model/tiny_checkpoint.h"

namespace sauva {
namespace {

LocalPipeline::BackendFactory EmulatedFactory() {
  return [] {
    constexpr int64_t kBudget = int64_t{1} << 30;
    return std::make_unique<cuda::CudaBackend>(cuda::MakeEmulatedDevice(kBudget));
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
        Format{.loaded = LoadFormat::kInt4}, Format{.loaded = LoadFormat::kInt3},
        Format{.loaded = LoadFormat::kNf4}}) {
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

TEST(CudaModelTest, TheTrainedModelGivesTheTokensOfTheCpu) {
  const Model model = OpenOrDie(std::string(SAUVA_SOURCE_DIR) + "/models/prose");
  for (const LoadFormat format : {LoadFormat::kStored, LoadFormat::kInt4}) {
    const LocalPipelineOptions options = {.num_stages = 2, .weight_format = format};
    const std::vector<NewSequence> texts = Texts(model.spec.vocab_size, 2, 3);
    ExpectSame(Ask(model, CpuFactory(2, InstructionSet::kAuto), options, texts),
               Ask(model, EmulatedFactory(), options, texts));
  }
}

}  // namespace
}  // namespace sauva
