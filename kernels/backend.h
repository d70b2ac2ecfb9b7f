#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "kernels/dtype.h"
#include "kernels/sampling.h"

// What an engine may ask of a device. Two real implementations: kernels/reference (the
// plain truth) and kernels/cpu (fast); kernels/cuda takes the same interface to a stream.
//
// The numerics contract (docs/numerics.md): each f32 sum over K is kept in 16 virtual
// lanes (element i in lane i % 16) with fused multiply-add and one fixed tree at the end
// (8+8, 4+4, 2+2, 1+1); exp, tanh and rsqrt are ours, of IEEE operations only; attention
// runs over blocks of 16 keys inside spans of 512 absolute positions, spans merged in
// order. So no bit depends on rows, threads, stages or instruction set, and the cpu
// backend equals the reference backend bit for bit.
namespace sauva {

struct QuantizedMatrix;

// Memory of a backend, freed with the object. Aligned to 64 bytes; zero at first.
class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual std::byte* data() = 0;
  virtual int64_t size_bytes() const = 0;
};

// Activations: f32 in backend memory, row-major, rows `stride` floats apart.
struct Rows {
  float* data = nullptr;
  int rows = 0;
  int columns = 0;
  int64_t stride = 0;

  float* row(int i) const { return data + i * stride; }
  Rows Columns(int first, int count) const { return {data + first, rows, count, stride}; }
  Rows First(int count) const { return {data, count, columns, stride}; }
};

enum class WeightFormat {
  kNative,  // as stored: f32, f16 or bf16
  kInt8,    // rounded at load to int8 per output channel (kernels/round_to_nearest.h)
};

// A matrix as it stands in a checkpoint, in numbers or quantized; the backend copies and
// repacks what it needs.
struct WeightSource {
  std::string name;  // for error messages
  DType dtype = DType::kF32;
  int64_t rows = 0;                  // outputs
  int64_t columns = 0;               // inputs
  std::span<const std::byte> bytes;  // row-major, maybe unaligned
  // When set, of rows x columns: it is the matrix, dtype and bytes are not looked at, and
  // WeightFormat does not apply.
  const QuantizedMatrix* quantized = nullptr;
};

// A matrix [rows, columns] in the layout a backend streams. Opaque.
class Weight {
 public:
  virtual ~Weight() = default;
  virtual int64_t rows() const = 0;
  virtual int64_t columns() const = 0;
  virtual int64_t size_bytes() const = 0;
};

// Keys and values of one layer: num_blocks blocks of kKvBlockTokens tokens. Opaque.
struct KvShape {
  int num_blocks = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  DType dtype = DType::kF32;  // kF32, kF16 or kI8 (codes with a scale per token and KV head)
  int64_t size_bytes() const {
    return int64_t{num_blocks} * 16 * 2 * num_kv_heads * KvVectorBytes(dtype, head_dim);
  }
};
class KvCache {
 public:
  virtual ~KvCache() = default;
};

// cos and sin for every position. Opaque.
struct RopeShape {
  std::vector<float> inverse_frequencies;  // [rotary_dims / 2], radians per position
  int max_positions = 0;
  bool interleaved = false;  // pairs (2i, 2i+1) instead of (i, i + rotary_dims/2)
};
class RopeTable {
 public:
  virtual ~RopeTable() = default;
};

// The largest step a backend must hold; UploadStep never exceeds it.
struct StepLimits {
  int max_tokens = 0;
  int max_sequences = 0;
  int max_blocks_per_sequence = 0;
  int num_kv_groups = 1;
  int max_head_dim = 0;  // of the KV caches to come; 0: not known
};

// What changes from step to step, in host memory; UploadStep copies it.
struct StepTable {
  std::span<const int32_t> token_ids;      // [tokens]; empty except on the first stage
  std::span<const int32_t> positions;      // [tokens]
  std::span<const int32_t> sequence_rows;  // [tokens], the row of the block tables
  // [sequences + 1]: tokens of sequence s are rows [first_tokens[s], first_tokens[s + 1]),
  // at consecutive positions.
  std::span<const int32_t> first_tokens;
  // Per KV group: [sequences, max_blocks_per_sequence] block ids, row-major.
  std::vector<std::span<const int32_t>> block_tables;
  std::span<const int32_t> sampled_rows;  // rows of the hidden states whose logits are wanted
};

struct NormArgs {
  Rows x;
  std::span<const float> gain;  // [columns]
  std::span<const float> bias;  // [columns], or empty
  bool subtract_mean = false;   // LayerNorm; else RMSNorm
  float epsilon = 0;
  Rows out;  // may be x itself
};

struct MatMulArgs {
  const Weight* weight = nullptr;  // [out, in]
  Rows x;                          // [tokens, in]
  std::span<const float> bias;     // [out], or empty
  Rows out;                        // [tokens, out]; not x
};

struct RopeArgs {
  Rows x;  // [tokens, heads * head_dim], in place; positions from the step
  int num_heads = 0;
  int head_dim = 0;
  const RopeTable* table = nullptr;
};

struct WriteKvArgs {
  Rows keys;    // [tokens, kv_heads * head_dim]
  Rows values;  // the same shape
  KvCache* cache = nullptr;
  int kv_group = 0;
};

struct AttentionArgs {
  Rows queries;                    // [tokens, heads * head_dim]
  const KvCache* cache = nullptr;  // holds the step's own tokens already
  int kv_group = 0;
  int num_heads = 0;
  float score_scale = 0;
  int window = 0;  // keys this far back, the token itself counted; 0: all
  Rows out;        // [tokens, heads * head_dim]
};

enum class GateKind { kSilu, kGelu, kGeluTanh, kRelu };
struct ActivationArgs {
  GateKind kind = GateKind::kSilu;
  Rows gate;  // act is applied to it
  Rows up;    // multiplied by act(gate); data == nullptr: plain act(gate)
  Rows out;   // may be gate or up
};

// The ops of a step that every step has, in two runs.
enum class StepPart {
  kLayers,  // from token ids or hidden states to hidden states; a row is a token
  kHead,    // from hidden states to logits; a row is one of the step's sampled_rows
};

class Backend {
 public:
  virtual ~Backend() = default;

  // "cpu", "reference", "cuda-sm90" or "cuda-sm90-deterministic"; part of numerics_id.
  virtual std::string backend_class() const = 0;

  // Bytes of the backend's memory budget that are taken, by what was allocated through it and
  // by what it needs beside that; 0 for backends in host memory, which have no budget.
  virtual int64_t used_bytes() const { return 0; }
  // Of a backend in host memory: what it keeps for its ops from Reserve on, beside what was
  // allocated through it.
  virtual int64_t reserved_bytes() const { return 0; }

  // --- Memory: at load only.
  // Errors: RESOURCE_EXHAUSTED with the bytes asked for.
  virtual absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes) = 0;
  virtual absl::StatusOr<std::unique_ptr<Weight>> PrepareWeight(const WeightSource& source,
                                                                WeightFormat format) = 0;
  // How many threads may call PrepareWeight at once, and it is worth it.
  virtual int load_threads() const { return 1; }
  virtual absl::StatusOr<std::unique_ptr<KvCache>> AllocateKv(const KvShape& shape) = 0;
  virtual absl::StatusOr<std::unique_ptr<RopeTable>> MakeRopeTable(const RopeShape& shape) = 0;
  // Reserves what ops need for steps of this size. Called once, before the first step.
  virtual absl::Status Reserve(const StepLimits& limits, int64_t max_columns, int vocab_size) = 0;

  // --- Ops: no allocation, no failure; shapes are checked when a stage is built.
  // Thread: one step thread per Backend.
  virtual void UploadStep(const StepTable& step) = 0;
  // Runs a part of the step that was uploaded, which has `rows` rows: calls ops(n), n not
  // below `rows` nor above the limit of Reserve (max_tokens, max_sequences for kHead), or does
  // again what an earlier call with the same part and n did. So `ops` queues the same ops on
  // the same memory for an n whatever the step, and neither copies nor samples. Rows beyond
  // `rows` may be read and written; what they hold is meaningless.
  virtual void RunPart(StepPart part, int rows, absl::FunctionRef<void(int n)> ops) {
    static_cast<void>(part);
    ops(rows);
  }
  // out[t] = scale * table[token_ids[t]].
  virtual void GatherRows(const Weight& table, float scale, Rows out) = 0;
  // out[i] = x[sampled_rows[i]].
  virtual void SelectSampledRows(Rows x, Rows out) = 0;
  virtual void Norm(const NormArgs& args) = 0;
  virtual void MatMul(const MatMulArgs& args) = 0;
  // Products of the same rows x: what MatMul makes of each, bit for bit. No out is another's.
  virtual void MatMulAll(std::span<const MatMulArgs> products) {
    for (const MatMulArgs& args : products) MatMul(args);
  }
  virtual void Rope(const RopeArgs& args) = 0;
  virtual void WriteKv(const WriteKvArgs& args) = 0;
  virtual void Attention(const AttentionArgs& args) = 0;
  virtual void Activate(const ActivationArgs& args) = 0;
  // x += y.
  virtual void Add(Rows x, Rows y) = 0;
  // Draws one token per row of logits [rows, vocab_size], which it may overwrite.
  // Source and order of the controls: kernels/sampling.h.
  virtual void Sample(Rows logits, std::span<const SampleRow> rows,
                      std::span<SampleResult> results) = 0;

  // Copies between backend memory and the host. CopyToHost waits for all that was asked for before;
  // what CopyFromHost reads stays as it is until something was waited for.
  virtual void CopyToHost(Rows from, float* to) = 0;
  virtual void CopyFromHost(const float* from, Rows to) = 0;
  // Returns when all that was asked for is done, as CopyToHost and Sample do.
  virtual void Wait() {}
};

}  // namespace sauva
