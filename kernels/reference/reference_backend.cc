#include "kernels/reference/reference_backend.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/factory.h"
#include "kernels/host_memory.h"
#include "kernels/host_rope.h"
#include "kernels/kv_shape.h"
#include "kernels/math.h"
#include "kernels/numerics.h"
#include "kernels/reference/reference_attention.h"
#include "kernels/reference/reference_math.h"
#include "kernels/reference/reference_quantized.h"
#include "kernels/reference/reference_weight.h"

namespace sauva {
namespace {

using reference::Attend;
using reference::Dot;
using reference::Lanes;
using reference::Query;
using reference::ReferenceKv;
using reference::ReferenceWeight;

// A row of a quantized table as input columns.
void DequantizeRow(const QuantizedMatrix& matrix, int64_t row, float* out) {
  for (int64_t i = 0; i < matrix.columns; ++i) {
    const int64_t column =
        matrix.column_order.empty() ? i : matrix.column_order[static_cast<size_t>(i)];
    out[column] = Dequantize(matrix, row, i);
  }
}

// out[row] = weight[row] * x, for each row.
void MultiplyQuantized(const QuantizedMatrix& matrix, const float* x, std::span<const float> bias,
                       float* out) {
  const reference::QuantizedRow quantized = reference::QuantizeRow(matrix, x);
  for (int64_t row = 0; row < matrix.rows; ++row) {
    out[row] = reference::DotCodes(matrix, row, quantized);
    if (!bias.empty()) out[row] += bias[static_cast<size_t>(row)];
    if (!quantized.outliers.empty()) out[row] += reference::DotOutliers(matrix, row, quantized);
  }
}

void MultiplyNative(const ReferenceWeight& weight, const float* x, std::span<const float> bias,
                    float* out) {
  for (int64_t row = 0; row < weight.rows(); ++row) {
    const float* w = weight.values(row);
    out[row] = Dot(
        weight.columns(), [&](int64_t i) { return w[i]; }, [&](int64_t i) { return x[i]; });
    if (!bias.empty()) out[row] += bias[static_cast<size_t>(row)];
  }
}

void NormalizeRow(const NormArgs& args, const float* x, float* out) {
  const int n = args.x.columns;
  const auto count = static_cast<float>(n);
  float mean = 0;
  if (args.subtract_mean) {
    Lanes sum;
    for (int i = 0; i < n; ++i) sum.lane[i % kLanes] += x[i];
    mean = sum.Sum() / count;
  }
  const auto centered = [&](int64_t i) { return args.subtract_mean ? x[i] - mean : x[i]; };
  const float mean_square = Dot(n, centered, centered) / count;
  const float inverse = 1.0f / std::sqrt(mean_square + args.epsilon);
  for (int i = 0; i < n; ++i) {
    const float unit = centered(i) * inverse;
    const float gain = args.gain[static_cast<size_t>(i)];
    out[i] =
        args.bias.empty() ? unit * gain : std::fma(unit, gain, args.bias[static_cast<size_t>(i)]);
  }
}

}  // namespace

std::unique_ptr<Backend> MakeReferenceBackend() { return std::make_unique<ReferenceBackend>(); }

absl::StatusOr<std::unique_ptr<Buffer>> ReferenceBackend::Allocate(int64_t bytes) {
  return AllocateHostBuffer(bytes);
}

absl::StatusOr<std::unique_ptr<Weight>> ReferenceBackend::PrepareWeight(const WeightSource& source,
                                                                        WeightFormat format) {
  return ReferenceWeight::Create(source, format);
}

absl::StatusOr<std::unique_ptr<KvCache>> ReferenceBackend::AllocateKv(const KvShape& shape) {
  RETURN_IF_ERROR(ValidateKvShape(shape));
  return std::make_unique<ReferenceKv>(shape);
}

absl::StatusOr<std::unique_ptr<RopeTable>> ReferenceBackend::MakeRopeTable(const RopeShape& shape) {
  return HostRopeTable::Create(shape);
}

absl::Status ReferenceBackend::Reserve(const StepLimits& limits, int64_t /*max_columns*/,
                                       int vocab_size) {
  step_.Reserve(limits);
  sample_scratch_.emplace(vocab_size);
  return absl::OkStatus();
}

void ReferenceBackend::GatherRows(const Weight& table, float scale, Rows out) {
  const auto& weight = static_cast<const ReferenceWeight&>(table);
  for (int t = 0; t < out.rows; ++t) {
    const int32_t row = step_.token_ids()[static_cast<size_t>(t)];
    Check(row >= 0 && row < weight.rows(), "token ids are of the vocabulary");
    if (weight.quantized()) {
      DequantizeRow(*weight.quantized(), row, out.row(t));
    } else {
      std::copy_n(weight.values(row), out.columns, out.row(t));
    }
    for (int i = 0; i < out.columns; ++i) out.row(t)[i] *= scale;
  }
}

void ReferenceBackend::SelectSampledRows(Rows x, Rows out) {
  for (int i = 0; i < out.rows; ++i) {
    const float* from = x.row(step_.sampled_rows()[static_cast<size_t>(i)]);
    std::copy_n(from, out.columns, out.row(i));
  }
}

void ReferenceBackend::Norm(const NormArgs& args) {
  for (int t = 0; t < args.x.rows; ++t) NormalizeRow(args, args.x.row(t), args.out.row(t));
}

void ReferenceBackend::MatMul(const MatMulArgs& args) {
  const auto& weight = static_cast<const ReferenceWeight&>(*args.weight);
  for (int t = 0; t < args.x.rows; ++t) {
    if (weight.quantized()) {
      MultiplyQuantized(*weight.quantized(), args.x.row(t), args.bias, args.out.row(t));
    } else {
      MultiplyNative(weight, args.x.row(t), args.bias, args.out.row(t));
    }
  }
}

void ReferenceBackend::Rope(const RopeArgs& args) {
  const auto& table = static_cast<const HostRopeTable&>(*args.table);
  const int pairs = table.pairs();
  for (int t = 0; t < args.x.rows; ++t) {
    const int position = step_.positions()[static_cast<size_t>(t)];
    Check(position >= 0 && position < table.max_positions(), "positions are in the rope table");
    for (int head = 0; head < args.num_heads; ++head) {
      float* x = args.x.row(t) + head * args.head_dim;
      for (int i = 0; i < pairs; ++i) {
        float& first = x[table.interleaved() ? 2 * i : i];
        float& second = x[table.interleaved() ? 2 * i + 1 : i + pairs];
        const float cos = table.cos(position)[i];
        const float sin = table.sin(position)[i];
        const float turned = std::fma(first, cos, -(second * sin));
        second = std::fma(second, cos, first * sin);
        first = turned;
      }
    }
  }
}

void ReferenceBackend::WriteKv(const WriteKvArgs& args) {
  auto& cache = static_cast<ReferenceKv&>(*args.cache);
  const KvShape& shape = cache.shape();
  for (int t = 0; t < args.keys.rows; ++t) {
    const int position = step_.positions()[static_cast<size_t>(t)];
    const int32_t* blocks =
        step_.blocks(args.kv_group, step_.sequence_rows()[static_cast<size_t>(t)]);
    const int block = blocks[position / kAttentionBlock];
    Check(block >= 0 && block < shape.num_blocks, "block ids are of the pool");
    for (int head = 0; head < shape.num_kv_heads; ++head) {
      const int first = head * shape.head_dim;
      cache.Store(args.keys.row(t) + first, cache.key(block, position % kAttentionBlock, head));
      cache.Store(args.values.row(t) + first, cache.value(block, position % kAttentionBlock, head));
    }
  }
}

void ReferenceBackend::Attention(const AttentionArgs& args) {
  const auto& cache = static_cast<const ReferenceKv&>(*args.cache);
  const KvShape& shape = cache.shape();
  const int heads_per_kv_head = args.num_heads / shape.num_kv_heads;
  for (int t = 0; t < args.queries.rows; ++t) {
    const int sequence = step_.sequence_rows()[static_cast<size_t>(t)];
    for (int head = 0; head < args.num_heads; ++head) {
      Attend(cache, {.vector = args.queries.row(t) + head * shape.head_dim,
                     .kv_head = head / heads_per_kv_head,
                     .position = step_.positions()[static_cast<size_t>(t)],
                     .window = args.window,
                     .score_scale = args.score_scale,
                     .blocks = step_.blocks(args.kv_group, sequence),
                     .out = args.out.row(t) + head * shape.head_dim});
    }
  }
}

void ReferenceBackend::Activate(const ActivationArgs& args) {
  for (int t = 0; t < args.gate.rows; ++t) {
    for (int i = 0; i < args.gate.columns; ++i) {
      const float activated = Apply(args.kind, args.gate.row(t)[i]);
      args.out.row(t)[i] = args.up.data ? activated * args.up.row(t)[i] : activated;
    }
  }
}

void ReferenceBackend::Add(Rows x, Rows y) {
  for (int t = 0; t < x.rows; ++t) {
    for (int i = 0; i < x.columns; ++i) x.row(t)[i] += y.row(t)[i];
  }
}

void ReferenceBackend::Sample(Rows logits, std::span<const SampleRow> rows,
                              std::span<SampleResult> results) {
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::span<float> row(logits.row(static_cast<int>(i)),
                               static_cast<size_t>(logits.columns));
    SampleOne(row, rows[i], *sample_scratch_, results[i]);
  }
}

void ReferenceBackend::CopyToHost(Rows from, float* to) {
  for (int t = 0; t < from.rows; ++t) to = std::copy_n(from.row(t), from.columns, to);
}

void ReferenceBackend::CopyFromHost(const float* from, Rows to) {
  for (int t = 0; t < to.rows; ++t, from += to.columns) std::copy_n(from, to.columns, to.row(t));
}

}  // namespace sauva
