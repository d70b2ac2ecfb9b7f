#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/cpu_weight.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/host_memory.h"
#include "kernels/step_buffer.h"

namespace sauva {

// The backend for host processors. Each op cuts its output into tiles, which the threads
// take as they come; a tile's bits depend on nothing but its own inputs.
class CpuBackend : public Backend {
 public:
  CpuBackend(const KernelTable& kernels, int threads) : kernels_(kernels), pool_(threads) {}

  std::string backend_class() const override { return "cpu"; }
  int64_t reserved_bytes() const override;

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes) override;
  absl::StatusOr<std::unique_ptr<Weight>> PrepareWeight(const WeightSource& source,
                                                        WeightFormat format) override;
  int load_threads() const override { return pool_.threads(); }
  absl::StatusOr<std::unique_ptr<KvCache>> AllocateKv(const KvShape& shape) override;
  absl::StatusOr<std::unique_ptr<RopeTable>> MakeRopeTable(const RopeShape& shape) override;
  absl::Status Reserve(const StepLimits& limits, int64_t max_columns, int vocab_size) override;

  void UploadStep(const StepTable& step) override { step_.Upload(step); }
  void GatherRows(const Weight& table, float scale, Rows out) override;
  void SelectSampledRows(Rows x, Rows out) override;
  void Norm(const NormArgs& args) override;
  void MatMul(const MatMulArgs& args) override { MatMulAll({&args, 1}); }
  void MatMulAll(std::span<const MatMulArgs> products) override;
  void Rope(const RopeArgs& args) override;
  void WriteKv(const WriteKvArgs& args) override;
  void Attention(const AttentionArgs& args) override;
  void Activate(const ActivationArgs& args) override;
  void Add(Rows x, Rows y) override;
  void Sample(Rows logits, std::span<const SampleRow> rows,
              std::span<SampleResult> results) override;
  void CopyToHost(Rows from, float* to) override;
  void CopyFromHost(const float* from, Rows to) override;

 private:
  static constexpr size_t kMostShared = 3;  // queries, keys and values
  // Below this many elements per op, waking threads costs more than they save.
  static constexpr int64_t kParallelElements = 32768;

  // Runs f(row, thread) for each row, on several threads if there is enough work.
  template <class F>
  void ForEachRow(int rows, int64_t work_per_row, const F& f) {
    if (rows * work_per_row < kParallelElements) {
      for (int row = 0; row < rows; ++row) f(row, 0);
      return;
    }
    pool_.Run(rows, [&](int64_t row, int thread) { f(static_cast<int>(row), thread); });
  }
  void MatMulNative(const CpuWeight& weight, const MatMulArgs& args);
  // At most kMostShared products whose weights take the same codes of x.
  void MatMulPacked(std::span<const MatMulArgs> products);
  void AddOutliers(const PackedMatrix& weight, const MatMulArgs& args);
  Int8Activations QuantizeRows(const PackedMatrix& weight, Rows x);
  // How a row meets the matrix, in tiles of `stride` tokens.
  QuantizeArgs QuantizeArgsOf(const PackedMatrix& weight, int64_t stride) const;
  size_t NumSharing(std::span<const MatMulArgs> products) const;

  // How an attention op is cut: each sequence into tiles of tokens, each tile by KV head.
  struct AttentionPlan {
    int heads = 0;  // of a KV head
    int tokens_per_tile = 0;
    int64_t token_tiles = 0;
    int most_spans = 0;  // of a tile
    bool split = false;  // each span by itself
    int64_t span_floats = 0;
  };
  // For heads as wide as any KV cache so far.
  absl::Status ReserveAttention();
  AttentionPlan PlanAttention(const AttentionArgs& args);
  AttentionTile AttentionTileAt(const AttentionArgs& args, const AttentionPlan& plan, int64_t tile,
                                int thread);
  void AttendSplit(const AttentionArgs& args, const AttentionPlan& plan);

  const KernelTable& kernels_;
  ThreadPool pool_;
  StepBuffer step_;
  std::vector<SampleScratch> sample_scratch_;  // one per thread

  // Scratch of Reserve.
  int max_rows_ = 0;
  int64_t max_columns_ = 0;
  HostMemory int8_codes_;      // Int8Activations of at most max_rows_ tokens
  HostMemory int8_scales_;     // f32
  HostMemory int8_starts_;     // i32
  HostMemory int8_outliers_;   // [rows, units] u32
  HostMemory packed_scratch_;  // [threads, packed_bytes_]
  int64_t packed_bytes_ = 0;
  int attention_dim_ = 0;                 // the widest heads of a KV cache
  HostMemory attention_scratch_;          // [threads, attention_floats_] f32
  HostMemory attention_spans_;            // [tiles, spans] sums, f32
  int64_t attention_floats_ = 0;          // per thread, whole cache lines
  std::vector<int64_t> attention_tiles_;  // [sequences + 1], tiles before each sequence
};

}  // namespace sauva
