// What planners think a GPU keeps for steps is what the backend takes of it.
#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "kernels/backend_scratch.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/round_to_nearest.h"
#include "kernels/weight_source.h"
#include "tests/cuda/emulator/emulated_device.h"
#include "tests/kernels/kernel_testing.h"

namespace sauva {
namespace {

constexpr int kColumns = 96;
constexpr int64_t kBudget = int64_t{1} << 30;

// A backend with weights of the formats that steps need memory for, nothing reserved yet.
struct Prepared {
  std::unique_ptr<cuda::CudaBackend> backend;
  std::vector<std::unique_ptr<Weight>> weights;
};

Prepared Prepare(std::vector<ActivationKind> activations, bool halves) {
  Prepared prepared;
  prepared.backend = std::make_unique<cuda::CudaBackend>(
      cuda::MakeEmulatedDevice(kBudget, {.compute_capability = 80}),
      CudaOptions{.arithmetic = CudaArithmetic::kFast});
  testing::Random random(1);
  const testing::StoredMatrix stored(random.Vector(16 * kColumns), 16, kColumns, DType::kF16);
  const auto add = [&](const WeightSource& source) {
    auto weight = prepared.backend->PrepareWeight(source, WeightFormat::kNative);
    EXPECT_TRUE(weight.ok()) << weight.status();
    prepared.weights.push_back(*std::move(weight));
  };
  if (halves) add(stored.source());
  for (const ActivationKind activation : activations) {
    QuantizedMatrix matrix = *RoundToInt8(stored.source());
    matrix.activation = activation;
    matrix.outlier_threshold = 6;
    WeightSource source = stored.source();
    source.quantized = &matrix;
    add(source);
  }
  return prepared;
}

// Bytes that reserving takes.
int64_t Reserved(const Prepared& prepared, const BackendScratch& scratch) {
  const int64_t before = prepared.backend->used_bytes();
  const absl::Status status =
      prepared.backend->Reserve(scratch.limits, scratch.max_columns, scratch.vocab_size);
  EXPECT_TRUE(status.ok()) << status;
  return prepared.backend->used_bytes() - before;
}

TEST(GpuScratchTest, WithEveryFormatAndAllGraphsItIsTheEstimate) {
  for (const int context_blocks : {8, 2048}) {
    const BackendScratch scratch = {.limits = {.max_tokens = 512,
                                               .max_sequences = 256,
                                               .max_blocks_per_sequence = context_blocks,
                                               .num_kv_groups = 2},
                                    .max_columns = kColumns,
                                    .vocab_size = 100000};
    const Prepared prepared =
        Prepare({ActivationKind::kInt8Groups, ActivationKind::kLlmInt8}, /*halves=*/true);
    const int64_t reserved = Reserved(prepared, scratch);
    EXPECT_EQ(reserved, scratch.MostBytesOnGpu()) << context_blocks << " blocks";
  }
}

TEST(GpuScratchTest, WithFewerFormatsItIsBelowTheEstimate) {
  const BackendScratch scratch = {
      .limits = {.max_tokens = 64, .max_sequences = 4, .max_blocks_per_sequence = 16},
      .max_columns = kColumns,
      .vocab_size = 1000};
  for (const bool halves : {false, true}) {
    const Prepared prepared = Prepare({ActivationKind::kInt8Groups}, halves);
    const int64_t reserved = Reserved(prepared, scratch);
    EXPECT_GT(reserved, 0);
    EXPECT_LT(reserved, scratch.MostBytesOnGpu());
  }
}

}  // namespace
}  // namespace sauva
