#include "kernels/cpu/cpu_backend.h"

#include <algorithm>

#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/host_rope.h"
#include "kernels/numerics.h"

namespace sauva {
namespace {

static_assert(static_cast<int>(GateKind::kSilu) == 0 && static_cast<int>(GateKind::kGelu) == 1 &&
                  static_cast<int>(GateKind::kGeluTanh) == 2 &&
                  static_cast<int>(GateKind::kRelu) == 3,
              "KernelTable::activate stands in this order");

size_t Index(Storage storage) { return static_cast<size_t>(storage); }

const float* DataOrNull(std::span<const float> values) {
  return values.empty() ? nullptr : values.data();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Buffer>> CpuBackend::Allocate(int64_t bytes) {
  return AllocateHostBuffer(bytes);
}

absl::StatusOr<std::unique_ptr<Weight>> CpuBackend::PrepareWeight(const WeightSource& source,
                                                                  WeightFormat format) {
  return CpuWeight::Create(source, format);
}

absl::StatusOr<std::unique_ptr<RopeTable>> CpuBackend::MakeRopeTable(const RopeShape& shape) {
  return HostRopeTable::Create(shape);
}

absl::Status CpuBackend::Reserve(const StepLimits& limits, int64_t max_columns, int vocab_size) {
  step_.Reserve(limits);
  max_rows_ = std::max(limits.max_tokens, limits.max_sequences);
  max_columns_ = max_columns;
  attention_dim_ = std::max(attention_dim_, limits.max_head_dim);
  // A register tile beyond the rows may have places that stay empty.
  const int64_t units =
      (int64_t{max_rows_} + kMostTileTokens) * ((max_columns + kInt8Unit - 1) / kInt8Unit);
  ASSIGN_OR_RETURN(int8_codes_, HostMemory::Allocate(units * kInt8Unit));
  ASSIGN_OR_RETURN(int8_scales_, HostMemory::Allocate(units * int64_t{sizeof(float)}));
  ASSIGN_OR_RETURN(int8_starts_, HostMemory::Allocate(units * int64_t{sizeof(int32_t)}));
  ASSIGN_OR_RETURN(int8_outliers_, HostMemory::Allocate(units * int64_t{sizeof(uint32_t)}));
  packed_bytes_ = PackedScratchBytes(max_rows_);
  ASSIGN_OR_RETURN(packed_scratch_, HostMemory::Allocate(packed_bytes_ * pool_.threads()));
  RETURN_IF_ERROR(ReserveAttention());
  sample_scratch_.assign(static_cast<size_t>(pool_.threads()), SampleScratch(vocab_size));
  for (SampleScratch& scratch : sample_scratch_) scratch.weigh = kernels_.weigh;
  return absl::OkStatus();
}

int64_t CpuBackend::reserved_bytes() const {
  int64_t bytes = 0;
  for (const HostMemory* memory : {&int8_codes_, &int8_scales_, &int8_starts_, &int8_outliers_,
                                   &packed_scratch_, &attention_scratch_, &attention_spans_}) {
    bytes += memory->size_bytes();
  }
  for (const SampleScratch& scratch : sample_scratch_) bytes += scratch.size_bytes();
  return bytes;
}

void CpuBackend::GatherRows(const Weight& table, float scale, Rows out) {
  const auto& weight = static_cast<const CpuWeight&>(table);
  for (int t = 0; t < out.rows; ++t) {
    const int32_t row = step_.token_ids()[static_cast<size_t>(t)];
    Check(row >= 0 && row < weight.rows(), "token ids are of the vocabulary");
    const PackedMatrix* packed = weight.packed();
    if (packed == nullptr) {
      kernels_.expand[Index(weight.storage())](weight.row(row), scale, out.columns, out.row(t));
      continue;
    }
    for (int i = 0; i < out.columns; ++i) {
      out.row(t)[packed->InputColumn(i)] = packed->Element(row, i) * scale;
    }
  }
}

void CpuBackend::SelectSampledRows(Rows x, Rows out) {
  for (int i = 0; i < out.rows; ++i) {
    const float* from = x.row(step_.sampled_rows()[static_cast<size_t>(i)]);
    std::copy_n(from, out.columns, out.row(i));
  }
}

void CpuBackend::Norm(const NormArgs& args) {
  ForEachRow(args.x.rows, args.x.columns, [&](int row, int) {
    kernels_.norm({.x = args.x.row(row),
                   .gain = args.gain.data(),
                   .bias = DataOrNull(args.bias),
                   .subtract_mean = args.subtract_mean,
                   .epsilon = args.epsilon,
                   .columns = args.x.columns,
                   .out = args.out.row(row)});
  });
}

void CpuBackend::Rope(const RopeArgs& args) {
  const auto& table = static_cast<const HostRopeTable&>(*args.table);
  const auto turn = table.interleaved() ? kernels_.rope_interleaved : kernels_.rope_halves;
  ForEachRow(args.x.rows, args.x.columns, [&](int row, int) {
    const int position = step_.positions()[static_cast<size_t>(row)];
    Check(position >= 0 && position < table.max_positions(), "positions are in the rope table");
    for (int head = 0; head < args.num_heads; ++head) {
      turn({.x = args.x.row(row) + int64_t{head} * args.head_dim,
            .cos = table.cos(position),
            .sin = table.sin(position),
            .pairs = table.pairs()});
    }
  });
}

void CpuBackend::Activate(const ActivationArgs& args) {
  const auto activate = kernels_.activate[static_cast<size_t>(args.kind)];
  constexpr int64_t kCost = 8;  // of an element, in those of a copy
  ForEachRow(args.gate.rows, kCost * args.gate.columns, [&](int row, int) {
    const float* up = args.up.data != nullptr ? args.up.row(row) : nullptr;
    activate(args.gate.row(row), up, args.gate.columns, args.out.row(row));
  });
}

void CpuBackend::Add(Rows x, Rows y) {
  ForEachRow(x.rows, x.columns,
             [&](int row, int) { kernels_.add(x.row(row), y.row(row), x.columns); });
}

void CpuBackend::Sample(Rows logits, std::span<const SampleRow> rows,
                        std::span<SampleResult> results) {
  ForEachRow(static_cast<int>(rows.size()), logits.columns, [&](int row, int thread) {
    const auto i = static_cast<size_t>(row);
    SampleOne({logits.row(row), static_cast<size_t>(logits.columns)}, rows[i],
              sample_scratch_[static_cast<size_t>(thread)], results[i]);
  });
}

void CpuBackend::CopyToHost(Rows from, float* to) {
  for (int t = 0; t < from.rows; ++t) to = std::copy_n(from.row(t), from.columns, to);
}

void CpuBackend::CopyFromHost(const float* from, Rows to) {
  for (int t = 0; t < to.rows; ++t, from += to.columns) std::copy_n(from, to.columns, to.row(t));
}

}  // namespace sauva
