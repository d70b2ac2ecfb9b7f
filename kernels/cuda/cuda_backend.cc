#include "kernels/cuda/cuda_backend.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cuda/buckets.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/scratch_bytes.h"
#include "kernels/factory.h"
#include "kernels/host_rope.h"
#include "kernels/kv_shape.h"
#include "kernels/numerics.h"
#include "kernels/quantized_matrix.h"

namespace sauva::cuda {
namespace {

RowsView View(Rows rows) {
  return {.data = rows.data, .stride = rows.stride, .rows = rows.rows, .columns = rows.columns};
}

const float* PointerOf(std::span<const float> vector) {
  return vector.empty() ? nullptr : vector.data();
}

Gate GateOf(GateKind kind) {
  switch (kind) {
    case GateKind::kSilu:
      return Gate::kSilu;
    case GateKind::kGelu:
      return Gate::kGelu;
    case GateKind::kGeluTanh:
      return Gate::kGeluTanh;
    case GateKind::kRelu:
      return Gate::kRelu;
  }
  return Gate::kSilu;
}

Nf4Values Nf4ValuesForKernels() {
  Nf4Values table;
  std::copy(std::begin(kNf4Values), std::end(kNf4Values), table.values);
  return table;
}

class CudaBuffer : public Buffer {
 public:
  explicit CudaBuffer(DeviceMemory memory) : memory_(std::move(memory)) {}
  std::byte* data() override { return memory_.as<std::byte>(); }
  int64_t size_bytes() const override { return memory_.size_bytes(); }

 private:
  const DeviceMemory memory_;
};

class CudaKvCache : public KvCache {
 public:
  CudaKvCache(const KvView& view, DeviceMemory memory) : view_(view), memory_(std::move(memory)) {}
  const KvView& view() const { return view_; }

 private:
  const KvView view_;
  const DeviceMemory memory_;
};

class CudaRopeTable : public RopeTable {
 public:
  CudaRopeTable(const HostRopeTable& host, DeviceMemory turns)
      : pairs_(host.pairs()), interleaved_(host.interleaved()), turns_(std::move(turns)) {}
  int pairs() const { return pairs_; }
  bool interleaved() const { return interleaved_; }
  const float* turns() const { return turns_.as<float>(); }

 private:
  const int pairs_;
  const bool interleaved_;
  const DeviceMemory turns_;  // [positions, 2, pairs]
};

}  // namespace

CudaBackend::CudaBackend(std::unique_ptr<Device> device, const CudaOptions& options)
    : device_(std::move(device)),
      options_(options),
      units_(options.arithmetic == CudaArithmetic::kFast
                 ? MatrixUnitsOf(device_->facts().compute_capability)
                 : MatrixUnits::kNone) {}

std::string CudaBackend::backend_class() const {
  return absl::StrCat("cuda-sm", device_->facts().compute_capability,
                      options_.arithmetic == CudaArithmetic::kFast ? "" : "-deterministic");
}

absl::StatusOr<std::unique_ptr<Buffer>> CudaBackend::Allocate(int64_t bytes) {
  ASSIGN_OR_RETURN(DeviceMemory memory, DeviceMemory::Allocate(*device_, bytes));
  return std::make_unique<CudaBuffer>(std::move(memory));
}

absl::StatusOr<std::unique_ptr<Weight>> CudaBackend::PrepareWeight(const WeightSource& source,
                                                                   WeightFormat format) {
  ASSIGN_OR_RETURN(std::unique_ptr<CudaWeight> weight,
                   CudaWeight::Create(*device_, source, format));
  const std::lock_guard lock(preparing_);
  any_codes_ = any_codes_ || weight->is_codes();
  any_outliers_ = any_outliers_ || weight->activation().rounding == Rounding::kLlmInt8;
  any_halves_ = any_halves_ || OnMatrixUnits(*weight);
  RETURN_IF_ERROR(ReserveQuantized());
  RETURN_IF_ERROR(ReserveHalves());
  return weight;
}

int CudaBackend::load_threads() const { return UsableCores(); }

absl::StatusOr<std::unique_ptr<KvCache>> CudaBackend::AllocateKv(const KvShape& shape) {
  RETURN_IF_ERROR(ValidateKvShape(shape));
  graphs_.Forget();  // the cache that they write is replaced
  if (shape.head_dim > kMaxHeadDim) {
    return absl::UnimplementedError(absl::StrCat(
        "heads of ", shape.head_dim, " numbers; the CUDA backend has up to ", kMaxHeadDim));
  }
  KvView view = {
      .dtype = shape.dtype, .num_kv_heads = shape.num_kv_heads, .head_dim = shape.head_dim};
  const int64_t vectors = int64_t{shape.num_blocks} * shape.num_kv_heads * kAttentionBlock;
  const int64_t bytes = vectors * view.padded_dim() * SizeOf(shape.dtype);
  const bool codes = shape.dtype == DType::kI8;
  const int64_t scale_bytes = codes ? vectors * int64_t{sizeof(float)} : 0;
  ASSIGN_OR_RETURN(DeviceMemory memory,
                   DeviceMemory::Allocate(*device_, 2 * (bytes + scale_bytes)));
  view.keys = memory.data();
  view.values = memory.as<std::byte>() + bytes;
  if (codes) view.scales = reinterpret_cast<float*>(memory.as<std::byte>() + 2 * bytes);
  return std::make_unique<CudaKvCache>(view, std::move(memory));
}

absl::StatusOr<std::unique_ptr<RopeTable>> CudaBackend::MakeRopeTable(const RopeShape& shape) {
  ASSIGN_OR_RETURN(const std::unique_ptr<RopeTable> made, HostRopeTable::Create(shape));
  const auto& host = static_cast<const HostRopeTable&>(*made);
  const int64_t bytes = int64_t{host.max_positions()} * 2 * host.pairs() * int64_t{sizeof(float)};
  ASSIGN_OR_RETURN(DeviceMemory turns, DeviceMemory::Allocate(*device_, bytes));
  device_->Upload({.to = turns.data(), .from = host.cos(0), .row_bytes = bytes, .rows = 1});
  return std::make_unique<CudaRopeTable>(host, std::move(turns));
}

absl::Status CudaBackend::ReserveQuantized() {
  const int64_t tokens = step_.limits().max_tokens;
  if (tokens == 0) return absl::OkStatus();  // Reserve is still to come
  if (any_codes_ && quantized_.codes == nullptr) {
    ASSIGN_OR_RETURN(codes_,
                     DeviceMemory::Allocate(*device_, QuantizedCodeBytes(tokens, max_columns_)));
    ASSIGN_OR_RETURN(facts_,
                     DeviceMemory::Allocate(*device_, GroupFactsBytes(tokens, max_columns_)));
    quantized_.codes = codes_.as<uint32_t>();
    quantized_.facts = facts_.as<GroupFacts>();
  }
  if (any_outliers_ && quantized_.outliers == nullptr) {
    ASSIGN_OR_RETURN(outliers_, DeviceMemory::Allocate(*device_, tokens * max_columns_ * 4));
    ASSIGN_OR_RETURN(num_outliers_, DeviceMemory::Allocate(*device_, tokens * 4));
    quantized_.outliers = outliers_.as<int32_t>();
    quantized_.num_outliers = num_outliers_.as<int32_t>();
  }
  return absl::OkStatus();
}

absl::Status CudaBackend::ReserveHalves() {
  const int64_t tokens = step_.limits().max_tokens;
  if (tokens == 0 || !any_halves_ || half_elements_.data() != nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(half_elements_,
                   DeviceMemory::Allocate(*device_, HalfElementBytes(tokens, max_columns_)));
  ASSIGN_OR_RETURN(half_scales_, DeviceMemory::Allocate(*device_, tokens * int64_t{sizeof(float)}));
  return absl::OkStatus();
}

absl::Status CudaBackend::Reserve(const StepLimits& limits, int64_t max_columns, int vocab_size) {
  RETURN_IF_ERROR(step_.Reserve(*device_, limits));
  max_columns_ = max_columns;
  RETURN_IF_ERROR(ReserveQuantized());
  RETURN_IF_ERROR(ReserveHalves());
  const int64_t partial_bytes = PartialBytes(limits, max_columns);
  if (partial_bytes > 0) {
    ASSIGN_OR_RETURN(partials_, DeviceMemory::Allocate(*device_, partial_bytes));
  }
  RETURN_IF_ERROR(sampler_.Reserve(*device_, limits.max_sequences, vocab_size));
  if (options_.graphs == CudaGraphs::kOff) return absl::OkStatus();
  const absl::Status graphs = graphs_.Reserve(*device_, GraphLimits(limits));
  if (!graphs.ok()) LogNoStepGraphs(graphs);
  return absl::OkStatus();
}

void CudaBackend::RunPart(StepPart part, int rows, absl::FunctionRef<void(int n)> ops) {
  const bool layers = part == StepPart::kLayers;
  if (!graphs_.on() || rows == 0 || (layers && !step_.decode_only())) return ops(rows);
  const int bucket =
      BucketOf(rows, layers ? step_.max_decode_rows() : step_.limits().max_sequences);
  graphs_.Run({.part = part, .rows = bucket, .spans = layers ? step_.num_spans() : 1},
              [&] { ops(bucket); });
}

void CudaBackend::GatherRows(const Weight& table, float scale, Rows out) {
  const auto& weight = static_cast<const CudaWeight&>(table);
  const int32_t* token_ids = step_.view().token_ids;
  if (weight.is_codes()) {
    LaunchCodeGather({.weight = weight.codes(),
                      .nf4 = Nf4ValuesForKernels(),
                      .column_order = weight.activation().column_order,
                      .token_ids = token_ids,
                      .scale = scale,
                      .out = View(out)},
                     device_->stream());
    return;
  }
  LaunchFloatGather(
      {.weight = weight.floats(), .token_ids = token_ids, .scale = scale, .out = View(out)},
      device_->stream());
}

void CudaBackend::SelectSampledRows(Rows x, Rows out) {
  LaunchSelectRows(View(x), step_.view().sampled_rows, View(out), device_->stream());
}

void CudaBackend::Norm(const NormArgs& args) {
  LaunchNorm({.x = View(args.x),
              .gain = args.gain.data(),
              .bias = PointerOf(args.bias),
              .subtract_mean = args.subtract_mean,
              .epsilon = args.epsilon,
              .out = View(args.out)},
             device_->stream());
}

bool CudaBackend::OnMatrixUnits(const CudaWeight& weight) const {
  return !weight.is_codes() && CanMultiply(units_, weight.floats().dtype);
}

void CudaBackend::MatMulOnUnits(const CudaWeight& weight, const MatMulArgs& args) {
  const HalfRows x = {.elements = half_elements_.as<uint16_t>(),
                      .scales = half_scales_.as<float>()};
  LaunchRoundRows({.x = View(args.x), .dtype = weight.floats().dtype, .out = x}, device_->stream());
  LaunchHalfMatMul({.weight = weight.floats(),
                    .units = units_,
                    .x = x,
                    .tokens = args.x.rows,
                    .bias = PointerOf(args.bias),
                    .out = View(args.out)},
                   device_->stream());
}

void CudaBackend::MatMul(const MatMulArgs& args) {
  const auto& weight = static_cast<const CudaWeight&>(*args.weight);
  if (OnMatrixUnits(weight)) return MatMulOnUnits(weight, args);
  void* const stream = device_->stream();
  if (!weight.is_codes()) {
    LaunchFloatMatMul({.weight = weight.floats(),
                       .x = View(args.x),
                       .bias = PointerOf(args.bias),
                       .out = View(args.out)},
                      stream);
    return;
  }
  const ActivationRounding& activation = weight.activation();
  LaunchQuantize({.x = View(args.x),
                  .column_order = activation.column_order,
                  .rounding = activation.rounding,
                  .static_scale = activation.static_scale,
                  .outlier_threshold = activation.outlier_threshold,
                  .activation_groups = weight.codes().activation_groups,
                  .out = quantized_},
                 stream);
  LaunchCodeMatMul({.weight = weight.codes(),
                    .x = quantized_,
                    .tokens = args.x.rows,
                    .bias = PointerOf(args.bias),
                    .out = View(args.out)},
                   stream);
  if (activation.rounding != Rounding::kLlmInt8) return;
  LaunchAddOutliers({.weight = weight.codes(),
                     .nf4 = Nf4ValuesForKernels(),
                     .x = View(args.x),
                     .column_order = activation.column_order,
                     .quantized = quantized_,
                     .out = View(args.out)},
                    stream);
}

void CudaBackend::Rope(const RopeArgs& args) {
  const auto& table = static_cast<const CudaRopeTable&>(*args.table);
  LaunchRope({.x = View(args.x),
              .num_heads = args.num_heads,
              .head_dim = args.head_dim,
              .turns = table.turns(),
              .pairs = table.pairs(),
              .interleaved = table.interleaved(),
              .positions = step_.view().positions},
             device_->stream());
}

void CudaBackend::WriteKv(const WriteKvArgs& args) {
  LaunchWriteKv({.keys = View(args.keys),
                 .values = View(args.values),
                 .cache = static_cast<const CudaKvCache&>(*args.cache).view(),
                 .step = step_.view(),
                 .blocks = step_.blocks(args.kv_group)},
                device_->stream());
}

void CudaBackend::Attention(const AttentionArgs& args) {
  LaunchAttention({.queries = View(args.queries),
                   .cache = static_cast<const CudaKvCache&>(*args.cache).view(),
                   .step = step_.view(),
                   .blocks = step_.blocks(args.kv_group),
                   .num_heads = args.num_heads,
                   .score_scale = args.score_scale,
                   .window = args.window,
                   .out = View(args.out),
                   .decode_only = step_.decode_only(),
                   .num_spans = step_.num_spans(),
                   .partials = partials_.as<float>(),
                   .partial_floats = partials_.size_bytes() / int64_t{sizeof(float)}},
                  device_->stream());
}

void CudaBackend::Activate(const ActivationArgs& args) {
  LaunchActivation({.kind = GateOf(args.kind),
                    .gate = View(args.gate),
                    .up = View(args.up),
                    .out = View(args.out)},
                   device_->stream());
}

void CudaBackend::Add(Rows x, Rows y) { LaunchAdd(View(x), View(y), device_->stream()); }

void CudaBackend::Sample(Rows logits, std::span<const SampleRow> rows,
                         std::span<SampleResult> results) {
  sampler_.Sample(View(logits), rows, results);
}

void CudaBackend::CopyToHost(Rows from, float* to) {
  constexpr int64_t kFloat = sizeof(float);
  device_->CopyToHost({.to = to,
                       .to_stride = from.columns * kFloat,
                       .from = from.data,
                       .from_stride = from.stride * kFloat,
                       .row_bytes = from.columns * kFloat,
                       .rows = from.rows});
  device_->Wait();
}

void CudaBackend::CopyFromHost(const float* from, Rows to) {
  constexpr int64_t kFloat = sizeof(float);
  device_->CopyToDevice({.to = to.data,
                         .to_stride = to.stride * kFloat,
                         .from = from,
                         .from_stride = to.columns * kFloat,
                         .row_bytes = to.columns * kFloat,
                         .rows = to.rows});
}

void CudaBackend::Wait() { device_->Wait(); }

}  // namespace sauva::cuda
