// After Reserve no op allocates heap memory: a step's memory is known before it starts.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "kernels/factory.h"
#include "tests/kernels/kernel_testing.h"

namespace {
std::atomic<int64_t> allocations{0};

void* Count(std::size_t bytes) {
  ++allocations;
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) std::abort();
  return memory;
}
}  // namespace

void* operator new(std::size_t bytes) { return Count(bytes); }
void* operator new[](std::size_t bytes) { return Count(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace sauva {
namespace {

using testing::Matrix;
using testing::Random;
using testing::Step;
using testing::StoredMatrix;
using testing::TestLimits;

constexpr int kHidden = 256;
constexpr int kVocabulary = 1000;

// Everything a step of two sequences touches, made before counting.
struct Fixture {
  explicit Fixture(Backend& backend_under_test) : backend(backend_under_test) {
    EXPECT_TRUE(backend.Reserve(TestLimits(), kHidden, kVocabulary).ok());
    Random random(1);
    const StoredMatrix stored(random.Vector(kVocabulary * kHidden), kVocabulary, kHidden,
                              DType::kF16);
    native = *backend.PrepareWeight(stored.source(), WeightFormat::kNative);
    int8 = *backend.PrepareWeight(stored.source(), WeightFormat::kInt8);
    rope = *backend.MakeRopeTable({.inverse_frequencies = {1, 0.5f}, .max_positions = 64});
    cache = *backend.AllocateKv({.num_blocks = 8, .num_kv_heads = 2, .head_dim = 64});
    gain = random.Vector(kHidden);
    step.token_ids() = std::vector<int32_t>(41, 7);
    step.sampled_rows() = {39, 40};
    table = step.table();
    for (SampleResult& result : results) result.top.reserve(kMaxLogprobs);
  }

  void RunStep() {
    backend.UploadStep(table);
    backend.GatherRows(*native, 1.0f, x.rows());
    backend.Norm({.x = x.rows(), .gain = gain, .epsilon = 1e-5f, .out = y.rows()});
    const Rows keys = y.rows().Columns(0, 128);
    backend.Rope({.x = keys, .num_heads = 2, .head_dim = 64, .table = rope.get()});
    backend.WriteKv({.keys = keys, .values = y.rows().Columns(128, 128), .cache = cache.get()});
    backend.Attention({.queries = x.rows(),
                       .cache = cache.get(),
                       .num_heads = 4,
                       .score_scale = 0.1f,
                       .out = y.rows()});
    backend.Activate({.gate = y.rows(), .up = x.rows(), .out = y.rows()});
    backend.Add(x.rows(), y.rows());
    backend.SelectSampledRows(x.rows(), sampled.rows());
    backend.MatMul({.weight = native.get(), .x = sampled.rows(), .out = logits.rows()});
    backend.MatMul({.weight = int8.get(), .x = sampled.rows(), .out = logits.rows()});
    backend.Sample(logits.rows(), rows, results);
  }

  Backend& backend;
  std::unique_ptr<Weight> native, int8;
  std::unique_ptr<RopeTable> rope;
  std::unique_ptr<KvCache> cache;
  std::vector<float> gain;
  Step step{
      {{.tokens = 40, .blocks = {0, 1, 2}}, {.first_position = 20, .tokens = 1, .blocks = {3, 4}}},
      TestLimits()};
  StepTable table;
  Matrix x{41, kHidden}, y{41, kHidden}, sampled{2, kHidden}, logits{2, kVocabulary};
  int32_t known[3] = {1, 2, 3};
  SampleRow rows[2] = {{.top_k = 50,
                        .top_p = 0.9f,
                        .repetition_penalty = 1.1f,
                        .presence_penalty = 0.1f,
                        .tokens = known,
                        .num_prompt_tokens = 1,
                        .num_logprobs = 5},
                       {.temperature = 0}};
  SampleResult results[2];
};

TEST(AllocationTest, AStepOfTheCpuBackendAllocatesNothing) {
  for (const testing::Candidate& candidate : testing::Candidates()) {
    const std::unique_ptr<Backend> backend = candidate.make();
    Fixture fixture(*backend);
    fixture.RunStep();
    const int64_t before = allocations;
    EXPECT_GT(before, 0) << "the count works";
    for (int i = 0; i < 5; ++i) fixture.RunStep();
    EXPECT_EQ(allocations - before, 0) << candidate.name;
  }
}

}  // namespace
}  // namespace sauva
