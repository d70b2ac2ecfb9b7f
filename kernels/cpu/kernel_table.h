#pragma once

#include <cstdint>

// The inner loops of the cpu backend, one table per instruction set. Every table computes
// the same bits (docs/numerics.md). Plain structs and pointers only: this header is read
// by files compiled for instruction sets this CPU may lack.
namespace sauva {

// How a float is stored. The values index the arrays of KernelTable.
enum class Storage : uint8_t { kF32, kF16, kBF16 };
constexpr int kNumStorages = 3;

// How keys and values are stored. The values index the arrays of KernelTable.
enum class KvStorage : uint8_t { kF32, kF16, kInt8 };
constexpr int kNumKvStorages = 3;
constexpr int kNumGates = 4;  // as GateKind counts

// Outputs of a float matmul: weight rows times token rows.
struct DotTile {
  const void* weight = nullptr;  // [rows, weight_stride], the columns past the end are -0
  int64_t weight_stride = 0;     // elements; a multiple of 16
  int rows = 0;
  const float* x = nullptr;  // [tokens, x_stride]
  int64_t x_stride = 0;
  int tokens = 0;
  int64_t columns = 0;
  const float* bias = nullptr;  // [rows], or null
  float* out = nullptr;         // [tokens, out_stride]
  int64_t out_stride = 0;
};

// How the codes of a quantized matrix are packed. The values index KernelTable's arrays.
enum class CodeFormat : uint8_t { kBits8, kBits4, kBits3, kNf4 };
constexpr int kNumCodeFormats = 4;

// A quantized matrix in panels of 16 rows, one after another. A panel is its groups in
// order, a group its units of 32 columns, then 16 scales, then 16 zero points if `zeros`.
// Unit: kernels/cpu/packed_layout.inc.h.
struct PackedPanels {
  const uint8_t* data = nullptr;  // 256 bytes after the end may be read
  int64_t panel_bytes = 0;
  int64_t units = 0;             // of a row
  int64_t units_per_group = 0;   // the last group may have fewer
  int64_t activation_units = 1;  // units whose activations share a scale: 1, 2 or 4
  bool half_scales = false;      // f16, else f32
  bool zeros = false;            // bytes; else every code's zero point is the middle one
};

// How activations become int8 (kernels/quantized_matrix.h).
enum class ActivationRounding : uint8_t { kGroups, kStatic, kBesideOutliers };

// One token's activations to int8 in units of 32 columns; the last is padded with 0. A group
// is group_units of them, the last may have fewer.
struct QuantizeArgs {
  const float* x = nullptr;
  const int32_t* order = nullptr;  // column i is x[order[i]]; null: x[i]
  int64_t columns = 0;
  ActivationRounding rounding = ActivationRounding::kGroups;
  float static_scale = 0;
  float outlier_threshold = 0;
  int64_t group_units = 1;  // at most 4
  int64_t first_group = 0;  // the groups to be done; beside outliers all of them
  int64_t end_group = 0;
  int32_t offset = 0;  // 1 where the matrix has zeros, else KernelTable::code_offsets
  // Unit u goes to codes + u * stride * 32, group g to scales[g * stride] and starts.
  int64_t stride = 1;
  int8_t* codes = nullptr;
  float* scales = nullptr;
  int32_t* starts = nullptr;     // -offset times the sum of the group's codes
  uint32_t* outliers = nullptr;  // [units], bit i: column i is one; written for kBesideOutliers
};

// What QuantizeArgs made of several tokens: those of a register tile lie together, so that
// they are read from one end to the other.
struct Int8Activations {
  const int8_t* codes = nullptr;    // [tiles, units, stride tokens, 32]
  const float* scales = nullptr;    // [tiles, groups, stride tokens]
  const int32_t* starts = nullptr;  // [tiles, groups, stride tokens]
  int64_t stride = 1;               // tokens of a tile; the last may have fewer
};

// Outputs of a quantized matmul: panels of 16 weight rows times token rows.
struct PackedTile {
  PackedPanels weight;  // from the tile's first panel on
  int rows = 0;         // the last panel may be used in part
  Int8Activations x;
  int tokens = 0;
  const float* bias = nullptr;  // [rows], or null
  float* out = nullptr;         // [tokens, out_stride]
  int64_t out_stride = 0;
  uint8_t* scratch = nullptr;  // PackedScratchBytes(tokens), aligned to 64 bytes
};

constexpr int kMostTileTokens = 16;

// What a PackedTile unpacks at once for many tokens: 24 units of 2 panels as 24 KiB of bytes
// with scales and zero points, which stay in L1, and two sums of each output.
constexpr int64_t kPackedPieceUnits = 24;
constexpr int64_t PackedScratchBytes(int64_t tokens) {
  return 2 * (kPackedPieceUnits * (512 + 64 + 32) + tokens * 2 * 64);
}

struct NormRow {
  const float* x = nullptr;
  const float* gain = nullptr;
  const float* bias = nullptr;  // or null
  bool subtract_mean = false;
  float epsilon = 0;
  int64_t columns = 0;
  float* out = nullptr;
};

// cos and sin of one position for one head, turned in place.
struct RopeHead {
  float* x = nullptr;
  const float* cos = nullptr;  // [pairs]
  const float* sin = nullptr;  // [pairs]
  int pairs = 0;
};

// A KV block of one head: kernels/cpu/kv_block.inc.h.
struct KvSlot {
  void* block = nullptr;  // of this KV head
  int token = 0;          // within the block
  int head_dim = 0;
  const float* key = nullptr;    // [head_dim]
  const float* value = nullptr;  // [head_dim]
};

// Consecutive tokens of one sequence times the query heads that share one KV head.
struct AttentionTile {
  const float* queries = nullptr;  // first token, first head of the group
  int64_t query_stride = 0;        // floats from token to token
  float* out = nullptr;
  int64_t out_stride = 0;
  int tokens = 0;
  int heads = 0;  // query heads of this KV head, next to one another
  int head_dim = 0;
  int first_position = 0;
  int window = 0;  // 0: all
  float score_scale = 0;
  const int32_t* blocks = nullptr;       // of the sequence
  const unsigned char* cache = nullptr;  // this KV head of block 0
  int64_t head_bytes = 0;                // of a block of this KV head, from one to the next
  float* scratch = nullptr;  // AttentionScratchFloats(tokens * heads, head_dim), aligned
};

// Queries of a tile that go through a span together.
constexpr int kAttentionGroup = 32;
// Floats in which eight of them keep what is left to be done with a block.
constexpr int kAttentionPendingFloats = 176;

static constexpr inline int64_t PaddedToLanes(int64_t n) { return (n + 15) / 16 * 16; }
// Queries that a register tile of attention may have beyond those that there are: five to seven are
// computed as eight, three as four.
constexpr int kAttentionSpareQueries = 3;
// Floats of what queries have summed up: two numbers and their head_dim values.
static constexpr inline int64_t AttentionSumFloats(int64_t queries, int head_dim) {
  return 2 * queries + (queries + kAttentionSpareQueries) * PaddedToLanes(head_dim);
}
// Keys of a block and values of two, the group's queries, states and sums, the sums of all.
static constexpr inline int64_t AttentionScratchFloats(int64_t queries, int head_dim) {
  return 48 * PaddedToLanes(head_dim) +
         kAttentionGroup * (head_dim + 2 * 16 + 2 * kAttentionPendingFloats) +
         AttentionSumFloats(kAttentionGroup, head_dim) + AttentionSumFloats(queries, head_dim);
}

// The spans of 512 positions [FirstSpan, EndSpan) that a tile sees.
static constexpr inline int FirstSpan(const AttentionTile& tile) {
  const int oldest = tile.window == 0 ? 0 : tile.first_position - tile.window + 1;
  return oldest < 0 ? 0 : oldest / 512;
}
static constexpr inline int EndSpan(const AttentionTile& tile) {
  return (tile.first_position + tile.tokens - 1) / 512 + 1;
}

struct KernelTable {
  const char* name;
  void (*dot_tile[kNumStorages])(const DotTile& tile);
  void (*packed_tile[kNumCodeFormats])(const PackedTile& tile);
  void (*quantize)(const QuantizeArgs& args);
  // What packed_tile leaves to be taken off each code of a format that has no zeros; sums of
  // products start at its negative times the sum of activations.
  int32_t code_offsets[kNumCodeFormats];
  // Tokens of a register tile of packed_tile, given those of the matmul; the last tile may have
  // fewer. At most kMostTileTokens.
  int (*tile_tokens)(int tokens);
  void (*norm)(const NormRow& row);
  void (*rope_halves)(const RopeHead& head);
  void (*rope_interleaved)(const RopeHead& head);
  void (*write_kv[kNumKvStorages])(const KvSlot& slot);
  // A whole tile; or each of its spans, by anybody, into `sums` of AttentionSumFloats, and
  // then those of all spans, `stride` floats apart, together.
  void (*attend[kNumKvStorages])(const AttentionTile& tile);
  void (*attend_span[kNumKvStorages])(const AttentionTile& tile, int span, float* sums);
  void (*merge_spans)(const AttentionTile& tile, float* sums, int64_t stride);
  // out = scale * row, n elements; reads whole lanes of the row.
  void (*expand[kNumStorages])(const void* row, float scale, int64_t n, float* out);
  // out = act(gate) * up, or act(gate) when up is null.
  void (*activate[kNumGates])(const float* gate, const float* up, int64_t n, float* out);
  // weights[i] = e^((logits[i] - highest) / temperature), for the sampler.
  void (*weigh)(const float* logits, float highest, float temperature, int64_t count,
                float* weights);
  void (*add)(float* x, const float* y, int64_t n);
  // Reads `bytes` (a multiple of 512) and returns something that depends on all of them.
  uint64_t (*read_all)(const void* data, int64_t bytes);
  // Runs 12 * 16 * 2 * `iterations` floating-point operations and returns their result.
  float (*multiply_add)(int64_t iterations);
  // Runs 12 * 16 * 8 * `iterations` multiplications and additions of int8 codes.
  float (*dot_quads)(int64_t iterations);
};

extern const KernelTable kScalarKernels;
#ifdef SAUVA_X86_KERNELS
extern const KernelTable kAvx2Kernels;
extern const KernelTable kAvx512Kernels;  // without VNNI
extern const KernelTable kAvx512VnniKernels;
#endif

}  // namespace sauva
