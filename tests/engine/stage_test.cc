#include "engine/stage.h"

#include <algorithm>
#include <limits>
#include <random>
#include <string>

#include "engine/kv_groups.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/factory.h"
#include "model/tensor_names.h"
#include "tests/engine/engine_testing.h"
#include "tests/engine/naive_transformer.h"

namespace sauva {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ModelSpec SmallSpec() {
  LayerSpec layer;
  layer.self_attention = {.num_heads = 2,
                          .num_kv_heads = 1,
                          .head_dim = 8,
                          .rope = RopeSpec{.rotary_dims = 8},
                          .score_scale = 0.35f};
  layer.feed_forward = {.intermediate_size = 20};
  ModelSpec spec;
  spec.vocab_size = 50;
  spec.hidden_size = 16;
  spec.max_context = 64;
  spec.decoder.layers = {layer, layer, layer};
  return spec;
}

// A checkpoint that knows which tensors were asked for.
class WatchedCheckpoint : public Checkpoint {
 public:
  explicit WatchedCheckpoint(MapCheckpoint tensors) : tensors_(std::move(tensors)) {}
  absl::StatusOr<StoredTensor> Find(const std::string& name) const override {
    found_.push_back(name);
    return tensors_.Find(name);
  }
  std::vector<std::string> Names() const override { return tensors_.Names(); }
  bool Asked(const std::string& part) const {
    for (const std::string& name : found_) {
      if (name.starts_with(part)) return true;
    }
    return false;
  }

 private:
  MapCheckpoint tensors_;
  mutable std::vector<std::string> found_;
};

class StageTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Stage>> Load(StageOptions options) {
    backend_ = MakeReferenceBackend();
    return Stage::Load(*backend_, spec_, checkpoint_, options, {});
  }

  std::unique_ptr<Stage> LoadWhole() {
    auto stage = Load({.layers = {0, 3}});
    EXPECT_TRUE(stage.ok()) << stage.status();
    return *std::move(stage);
  }

  ModelSpec spec_ = SmallSpec();
  MapCheckpoint checkpoint_ = RandomCheckpoint(spec_, 1);
  std::unique_ptr<Backend> backend_;
};

StepHeader OneToken(StepWant want) {
  SequenceStep step{.id = 1, .tokens = {5}, .blocks = {{.kv_group = 0, .appended = {0}}}};
  step.want = want;
  return {.step_id = 1, .sequences = {step}};
}

OpenSequence Opening() { return {.id = 1, .tokens = {5}, .num_prompt_tokens = 1}; }

void ExpectError(const absl::Status& status, absl::StatusCode code, const std::string& words) {
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(words));
}

TEST_F(StageTest, NamesTheTensorThatIsMissingOrMisshapen) {
  const std::string name = tensor_names::Layer(1, "self.k");
  const auto good = checkpoint_.Values(name);
  checkpoint_.Erase(name);
  ExpectError(Load({.layers = {0, 3}}).status(), absl::StatusCode::kNotFound, name);
  checkpoint_.Set(name, {16, 8}, good);
  const absl::Status status = Load({.layers = {0, 3}}).status();
  ExpectError(status, absl::StatusCode::kInvalidArgument, name);
  EXPECT_THAT(std::string(status.message()), HasSubstr("expected shape [8, 16], found [16, 8]"));
  EXPECT_TRUE(Load({.layers = {2, 3}, .first = false}).ok()) << "not its layer";
}

TEST_F(StageTest, ReadsOnlyTheTensorsOfItsOwnLayers) {
  const WatchedCheckpoint watched(checkpoint_);
  backend_ = MakeReferenceBackend();
  std::vector<int> progress;
  ASSERT_TRUE(Stage::Load(*backend_, spec_, watched,
                          {.layers = {1, 2}, .first = false, .last = false},
                          [&](int layers) { progress.push_back(layers); })
                  .ok());
  EXPECT_TRUE(watched.Asked("layers.1."));
  EXPECT_FALSE(watched.Asked("layers.0."));
  EXPECT_FALSE(watched.Asked("layers.2."));
  EXPECT_FALSE(watched.Asked("embedding"));
  EXPECT_FALSE(watched.Asked("final_norm"));
  EXPECT_FALSE(watched.Asked("head"));
  EXPECT_THAT(progress, ElementsAre(1));
}

TEST_F(StageTest, RefusesOptionsThatContradictTheModel) {
  const auto invalid = absl::StatusCode::kInvalidArgument;
  for (const LayerRange layers : {LayerRange{0, 4}, LayerRange{-1, 3}, LayerRange{2, 2}}) {
    ExpectError(Load({.layers = layers}).status(), invalid, "of a model with 3");
  }
  ExpectError(Load({.layers = {0, 2}}).status(), invalid, "first or last");
  ExpectError(Load({.layers = {1, 3}}).status(), invalid, "first or last");
  ExpectError(Load({.layers = {0, 3}, .max_context = 65}).status(), invalid, "the model's is 64");
  ExpectError(Load({.layers = {0, 3}, .max_step_tokens = 0}).status(), invalid, "0 tokens");
  spec_.decoder.layers[1].self_attention.causal = false;
  ExpectError(Load({.layers = {0, 3}}).status(), absl::StatusCode::kUnimplemented, "layer 1");
}

TEST_F(StageTest, ComputesNothingBeforeItsCacheIsAllocated) {
  auto stage = LoadWhole();
  StageOutput output;
  ASSERT_TRUE(stage->Open(Opening()).ok());
  ExpectError(stage->RunStep(OneToken(StepWant::kSample), {}, output),
              absl::StatusCode::kFailedPrecondition, "cache");
  ExpectError(stage->AllocateKv(0), absl::StatusCode::kInvalidArgument, "0 blocks");
}

TEST_F(StageTest, ANewPoolForgetsTheSequencesOfTheOldOne) {
  auto stage = LoadWhole();
  StageOutput output;
  for (const int num_blocks : {2, 2, 3, 1}) {
    ASSERT_TRUE(stage->AllocateKv(num_blocks).ok());
    ExpectError(stage->RunStep(OneToken(StepWant::kSample), {}, output),
                absl::StatusCode::kInvalidArgument, "was not opened");
    ASSERT_TRUE(stage->Open(Opening()).ok());
    StepHeader beyond = OneToken(StepWant::kSample);
    beyond.sequences[0].blocks[0].appended = {num_blocks};
    ExpectError(stage->RunStep(beyond, {}, output), absl::StatusCode::kInvalidArgument, "block");
    EXPECT_TRUE(stage->RunStep(OneToken(StepWant::kSample), {}, output).ok());
    EXPECT_EQ(output.sampled.size(), 1u);
  }
}

TEST_F(StageTest, RefusesHiddenStatesOfAnotherSize) {
  auto first = LoadWhole();
  ASSERT_TRUE(first->AllocateKv(1).ok());
  ASSERT_TRUE(first->Open(Opening()).ok());
  StageOutput output;
  const std::vector<float> hidden(17, 0.0f);
  ExpectError(first->RunStep(OneToken(StepWant::kNone), hidden, output),
              absl::StatusCode::kInvalidArgument, "17 hidden values; expected 0");
  auto last = Load({.layers = {1, 3}, .first = false});
  ASSERT_TRUE(last.ok()) << last.status();
  ASSERT_TRUE((*last)->AllocateKv(1).ok());
  ASSERT_TRUE((*last)->Open(Opening()).ok());
  ExpectError((*last)->RunStep(OneToken(StepWant::kNone), hidden, output),
              absl::StatusCode::kInvalidArgument, "17 hidden values; expected 16");
  EXPECT_TRUE(
      (*last)->RunStep(OneToken(StepWant::kNone), std::span(hidden).first(16), output).ok());
}

TEST_F(StageTest, AnswersOnlySequencesThatWantSomething) {
  auto stage = LoadWhole();
  ASSERT_TRUE(stage->AllocateKv(1).ok());
  ASSERT_TRUE(stage->Open(Opening()).ok());
  StageOutput output;
  ASSERT_TRUE(stage->RunStep(OneToken(StepWant::kNone), {}, output).ok());
  EXPECT_TRUE(output.sampled.empty());
  EXPECT_TRUE(output.hidden.empty());
}

// A header that is right in most fields, and in the others anything.
StepHeader HostileHeader(std::mt19937_64& random) {
  const auto pick = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  const auto wild = [&](int usual) {
    if (pick(0, 15) > 0) return usual;
    const int extremes[] = {-1,
                            0,
                            1,
                            15,
                            16,
                            17,
                            1 << 20,
                            std::numeric_limits<int>::max(),
                            std::numeric_limits<int>::min()};
    return extremes[pick(0, 8)];
  };
  StepHeader header{.step_id = 1};
  const int num_sequences = pick(0, 9) == 0 ? pick(0, 5) : 1;
  for (int i = 0; i < num_sequences; ++i) {
    SequenceStep step{.id = static_cast<SequenceId>(wild(pick(1, 2)))};
    const int num_tokens = pick(0, 9) == 0 ? pick(0, 40) : pick(1, 20);
    step.first_position = wild(pick(0, 2) * kKvBlockTokens);
    for (int t = 0; t < num_tokens; ++t) step.tokens.push_back(wild(5));
    const int end = std::clamp(step.first_position, 0, 64) + num_tokens;
    BlockDelta delta{.kv_group = static_cast<uint32_t>(wild(0))};
    for (int b = pick(0, 15) == 0 ? 1 : 0; b * kKvBlockTokens < end; ++b) {
      delta.appended.push_back(wild(pick(0, 7)));
    }
    step.blocks.push_back(delta);
    step.want = static_cast<StepWant>(pick(0, 20) == 0 ? pick(0, 255) : pick(0, 2));
    header.sequences.push_back(step);
  }
  return header;
}

TEST_F(StageTest, TakesOrRefusesWhateverHeaderComes) {
  auto stage = Load({.layers = {0, 3}, .max_step_tokens = 32, .max_sequences = 2});
  ASSERT_TRUE(stage.ok()) << stage.status();
  ASSERT_TRUE((*stage)->AllocateKv(8).ok());
  std::mt19937_64 random(1);
  StageOutput output;
  int taken = 0;
  int refused = 0;
  for (int i = 0; i < 6000; ++i) {
    if (i % 4 == 0) {
      OpenSequence open{.id = 1 + random() % 2, .num_prompt_tokens = 1};
      open.tokens.assign(1 + random() % 60, 5);
      ASSERT_TRUE((*stage)->Open(open).ok());
    }
    const absl::Status status = (*stage)->RunStep(HostileHeader(random), {}, output);
    ++(status.ok() ? taken : refused);
    if (status.ok()) continue;
    ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  }
  EXPECT_GT(taken, 300);
  EXPECT_GT(refused, 300);
}

TEST_F(StageTest, EstimatesWhatItWillHold) {
  for (const bool tied : {false, true}) {
    spec_.tied_head = tied;
    checkpoint_ = RandomCheckpoint(spec_, 1);
    auto stage = LoadWhole();
    int64_t expected = EstimateEmbeddingBytes(spec_, checkpoint_);
    for (int i = 0; i < 3; ++i) {
      expected += EstimateLayerBytes(spec_, checkpoint_, i, LoadFormat::kStored);
    }
    expected += EstimateHeadBytes(spec_, checkpoint_, LoadFormat::kStored);
    // One stage holds a tied matrix once.
    if (tied) expected -= EstimateEmbeddingBytes(spec_, checkpoint_);
    // Buffers are rounded up to 64 bytes.
    EXPECT_NEAR(static_cast<double>(stage->weight_bytes()), static_cast<double>(expected), 7 * 64);
    EXPECT_GE(stage->weight_bytes(), expected);
  }
}

// Few bits for the layers, more for the head that decides; a tied one is the embedding.
TEST_F(StageTest, FormatsOfFewBitsRoundAHeadOfItsOwnToInt8) {
  spec_.vocab_size = 4096;  // a head that outweighs all padding
  spec_.hidden_size = 32;   // whole units of codes
  for (const bool tied : {false, true}) {
    spec_.tied_head = tied;
    checkpoint_ = RandomCheckpoint(spec_, 1);
    const int64_t stored = EstimateHeadBytes(spec_, checkpoint_, LoadFormat::kStored);
    const int64_t int8 = EstimateHeadBytes(spec_, checkpoint_, LoadFormat::kInt8);
    ASSERT_LT(int8, stored);
    for (const LoadFormat format : {LoadFormat::kInt4, LoadFormat::kInt3, LoadFormat::kNf4}) {
      EXPECT_EQ(EstimateHeadBytes(spec_, checkpoint_, format), tied ? stored : int8);
      auto as_planned = Load({.layers = {0, 3}, .weight_format = format});
      ASSERT_TRUE(as_planned.ok()) << as_planned.status();
      int64_t layers = 0;
      for (int i = 0; i < 3; ++i) layers += EstimateLayerBytes(spec_, checkpoint_, i, format);
      const int64_t embedding = EstimateEmbeddingBytes(spec_, checkpoint_);
      const int64_t expected = layers + embedding + (tied ? stored - embedding : int8);
      // Buffers are rounded up to 64 bytes, and read a little beyond their ends.
      EXPECT_NEAR(static_cast<double>((*as_planned)->weight_bytes()), static_cast<double>(expected),
                  40 * 320)
          << Name(format);
    }
  }
}

// What is planned for is what is taken.
TEST_F(StageTest, TheScratchOfACpuIsWhatItsEstimateSays) {
  for (const std::string device : {"cpu:scalar", "cpu"}) {
    for (const int threads : {1, 2, 5}) {
      const auto backend = *MakeBackend(device, threads);
      EXPECT_EQ(backend->reserved_bytes(), 0);
      const StageOptions options{
          .layers = {0, 3}, .max_context = 64, .max_step_tokens = 48, .max_sequences = 6};
      const auto stage = *Stage::Load(*backend, spec_, checkpoint_, options, nullptr);
      const int64_t reserved = backend->reserved_bytes();
      const int64_t estimate = EstimateBackendScratch(spec_, options).BytesOnCpu(threads);
      EXPECT_EQ(estimate, reserved) << device << ", " << threads << " threads";
      EXPECT_GT(stage->scratch_bytes(), reserved);
      // The KV cache that comes later brings no more of it.
      ASSERT_TRUE(stage->AllocateKv(8).ok());
      EXPECT_EQ(backend->reserved_bytes(), reserved);
    }
  }
}

TEST_F(StageTest, CountsTheBytesOfAKvBlockOverItsLayers) {
  auto stage = Load({.layers = {1, 3}, .first = false, .kv_type = DType::kF16});
  ASSERT_TRUE(stage.ok()) << stage.status();
  EXPECT_EQ((*stage)->kv_block_bytes(), 2 * 16 * 2 * 1 * 8 * 2);
  stage = Load({.layers = {1, 3}, .first = false, .kv_type = DType::kI8});
  ASSERT_TRUE(stage.ok()) << stage.status();
  EXPECT_EQ((*stage)->kv_block_bytes(), 2 * 16 * 2 * 1 * (8 + 4)) << "codes and a scale";
}

TEST(KvGroupsTest, LayersWithTheSameWindowAndHeadsAreOneGroup) {
  ModelSpec spec = SmallSpec();
  EXPECT_EQ(NumKvGroups(spec), 1);
  spec.decoder.layers[1].self_attention.window = 8;
  EXPECT_THAT(KvGroupOfLayers(spec), ElementsAre(0, 1, 0));
  spec.decoder.layers[2].self_attention.num_kv_heads = 2;
  EXPECT_THAT(KvGroupOfLayers(spec), ElementsAre(0, 1, 2));
  EXPECT_EQ(NumKvGroups(spec), 3);
}

}  // namespace
}  // namespace sauva
