#include "kernels/bench/kernel_bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/factory.h"
#include "kernels/quantized_matrix.h"

namespace sauva {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kMaxTokens = 512;
constexpr int kContext = 8192;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Shape {
  int rows = 4096;
  int columns = 4096;
};
constexpr Shape kHostShapes[] = {{4096, 4096}};
// Of 7 and 13 billion parameters, as Llama 2 has them.
constexpr Shape kGpuShapes[] = {{4096, 4096}, {11008, 4096}, {4096, 11008},
                                {5120, 5120}, {13824, 5120}, {5120, 13824}};
constexpr int kMaxSize = 13824;

struct Format {
  const char* name;
  DType dtype = DType::kF16;  // of numbers
  int bits = 0;               // of codes; 0: numbers
  int64_t group_size = 0;     // 0: a whole row
  CodeKind kind = CodeKind::kInteger;
  bool zeros = false;      // zero points of their own
  bool act_order = false;  // columns in another order
  bool on_gpus = false;    // measured there too
};

constexpr Format kFormats[] = {
    {.name = "f32", .dtype = DType::kF32},
    {.name = "f16", .on_gpus = true},
    {.name = "bf16", .dtype = DType::kBF16, .on_gpus = true},
    {.name = "int8", .bits = 8, .on_gpus = true},
    {.name = "int4 g32", .bits = 4, .group_size = 32},
    {.name = "int4 g64 zeros", .bits = 4, .group_size = 64, .zeros = true},
    {.name = "int4 g128", .bits = 4, .group_size = 128, .on_gpus = true},
    {.name = "int4 g128 act-order", .bits = 4, .group_size = 128, .act_order = true},
    {.name = "int3 g128", .bits = 3, .group_size = 128},
    {.name = "nf4 g64", .bits = 4, .group_size = 64, .kind = CodeKind::kNf4, .on_gpus = true},
};

// Random numbers of a type whose exponents are just below 1: any sign and mantissa.
std::vector<std::byte> RandomNumbers(DType dtype, const Shape& shape) {
  std::vector<std::byte> bytes(static_cast<size_t>(shape.rows) *
                               static_cast<size_t>(shape.columns) *
                               static_cast<size_t>(SizeOf(dtype)));
  std::mt19937_64 random(1);
  for (size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    uint64_t word = random() & 0x83ff83ff83ff83ffu;
    if (dtype == DType::kF16) word |= 0x3800380038003800u;
    if (dtype == DType::kBF16) word = (word & 0x807f807f807f807fu) | 0x3f003f003f003f00u;
    if (dtype == DType::kF32) word = (random() & 0x807fffff807fffffu) | 0x3f0000003f000000u;
    std::memcpy(bytes.data() + i, &word, 8);
  }
  return bytes;
}

QuantizedMatrix RandomCodes(const Format& format, const Shape& shape) {
  QuantizedMatrix matrix{.kind = format.kind,
                         .bits = format.bits,
                         .rows = shape.rows,
                         .columns = shape.columns,
                         .group_size = format.group_size > 0 ? format.group_size : shape.columns};
  std::mt19937 random(1);
  matrix.codes.resize(static_cast<size_t>(shape.rows) * static_cast<size_t>(shape.columns));
  const uint32_t mask = (1u << format.bits) - 1;
  for (uint8_t& code : matrix.codes) code = static_cast<uint8_t>(random() & mask);
  matrix.scales.resize(static_cast<size_t>(shape.rows * matrix.groups()));
  // Eighths are f16, so that scales are stored as such.
  for (float& scale : matrix.scales) scale = static_cast<float>(8 + random() % 8) / 1024;
  if (format.kind == CodeKind::kInteger) {
    const int middle = 1 << (format.bits - 1);
    matrix.zeros.assign(matrix.scales.size(), static_cast<uint8_t>(middle));
    for (uint8_t& zero : matrix.zeros) {
      if (format.zeros) zero = static_cast<uint8_t>(zero - random() % 4);
    }
  }
  if (format.act_order) {
    for (int i = 0; i < shape.columns; ++i) matrix.column_order.push_back(i);
    std::shuffle(matrix.column_order.begin(), matrix.column_order.end(), random);
  }
  return matrix;
}

class KernelBench {
 public:
  // Errors: those of Backend::Allocate.
  static absl::StatusOr<std::unique_ptr<KernelBench>> Create(
      const KernelBenchOptions& options, Backend& backend, Bencher& bencher,
      const std::function<void(const KernelBenchLine&)>& on_line) {
    auto bench = std::unique_ptr<KernelBench>(new KernelBench(options, backend, bencher, on_line));
    constexpr int64_t kFloats = int64_t{kMaxTokens} * kMaxSize;
    for (std::unique_ptr<Buffer>* buffer : {&bench->x_, &bench->out_}) {
      ASSIGN_OR_RETURN(*buffer, backend.Allocate(kFloats * int64_t{sizeof(float)}));
    }
    std::vector<float> x(static_cast<size_t>(kFloats));
    for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i));
    backend.CopyFromHost(x.data(), {bench->x(), kMaxTokens, kMaxSize, kMaxSize});
    backend.Wait();
    return bench;
  }

  absl::Status MatMuls(const Format& format, const Shape& shape) {
    ASSIGN_OR_RETURN(const auto weights, Weights(format, shape));
    for (const int tokens : {1, 16}) MatMul(format, shape, tokens, weights);
    MatMul(format, shape, kMaxTokens, std::span(weights).first(1));
    return absl::OkStatus();
  }

  // 32 heads on 8 KV heads of 128 dims.
  absl::Status Attention(int tokens) {
    constexpr int kHeads = 32, kKvHeads = 8, kDim = 128;
    constexpr int64_t kKvStride = kKvHeads * kDim;
    const KvShape shape = {.num_blocks = kContext / 16,
                           .num_kv_heads = kKvHeads,
                           .head_dim = kDim,
                           .dtype = DType::kF16};
    ASSIGN_OR_RETURN(const std::unique_ptr<KvCache> cache, backend_.AllocateKv(shape));
    for (int first = 0; first < kContext; first += kMaxTokens) {
      Upload(first, kMaxTokens);
      backend_.WriteKv({.keys = {x(), kMaxTokens, kKvStride, kKvStride},
                        .values = {x(), kMaxTokens, kKvStride, kKvStride},
                        .cache = cache.get()});
    }
    Upload(kContext - tokens, tokens);
    const double seen = kContext - (tokens - 1) / 2.0;  // keys of a query
    const Work work = {.bytes = static_cast<double>(shape.size_bytes()),
                       .float_operations = 4.0 * tokens * seen * kHeads * kDim};
    const KernelBenchLine line = {.kernel = "attention",
                                  .format = "f16 KV",
                                  .shape = "32 / 8 x 128",
                                  .tokens = tokens,
                                  .work = work};
    Measure(line, [&] {
      backend_.Attention({.queries = {x(), tokens, kHeads * kDim, kHeads * kDim},
                          .cache = cache.get(),
                          .num_heads = kHeads,
                          .score_scale = 0.09f,
                          .out = {out(), tokens, kHeads * kDim, kHeads * kDim}});
    });
    return absl::OkStatus();
  }

 private:
  KernelBench(const KernelBenchOptions& options, Backend& backend, Bencher& bencher,
              const std::function<void(const KernelBenchLine&)>& on_line)
      : options_(options), backend_(backend), bencher_(bencher), on_line_(on_line) {}

  float* x() const { return reinterpret_cast<float*>(x_->data()); }
  float* out() const { return reinterpret_cast<float*>(out_->data()); }

  // Packing takes the host seconds a format; a GPU's cache has 50 MB at most.
  int64_t working_set_bytes() const {
    constexpr int64_t kMostOfGpu = int64_t{256} << 20;
    return IsCuda(options_.device) ? std::min(kMostOfGpu, options_.working_set_bytes)
                                   : options_.working_set_bytes;
  }

  // As many equal matrices as fill the working set.
  absl::StatusOr<std::vector<std::unique_ptr<Weight>>> Weights(const Format& format,
                                                               const Shape& shape) {
    WeightSource source = {
        .name = format.name, .dtype = format.dtype, .rows = shape.rows, .columns = shape.columns};
    QuantizedMatrix codes;
    std::vector<std::byte> numbers;
    if (format.bits > 0) {
      codes = RandomCodes(format, shape);
      source.quantized = &codes;
    } else {
      numbers = RandomNumbers(format.dtype, shape);
      source.bytes = numbers;
    }
    std::vector<std::unique_ptr<Weight>> weights;
    for (int64_t bytes = 0; bytes < working_set_bytes();) {
      ASSIGN_OR_RETURN(std::unique_ptr<Weight> weight,
                       backend_.PrepareWeight(source, WeightFormat::kNative));
      bytes += weight->size_bytes();
      weights.push_back(std::move(weight));
    }
    return weights;
  }

  void MatMul(const Format& format, const Shape& shape, int tokens,
              std::span<const std::unique_ptr<Weight>> weights) {
    Work work;
    for (const auto& weight : weights) {
      work.bytes += static_cast<double>(weight->size_bytes());
      double& operations = format.bits > 0 ? work.int8_operations : work.float_operations;
      operations += 2.0 * tokens * shape.rows * shape.columns;
    }
    const KernelBenchLine line = {.kernel = "matmul",
                                  .format = format.name,
                                  .shape = absl::StrCat(shape.rows, " x ", shape.columns),
                                  .tokens = tokens,
                                  .work = work};
    Measure(line, [&] {
      for (const auto& weight : weights) {
        backend_.MatMul({.weight = weight.get(),
                         .x = {x(), tokens, shape.columns, shape.columns},
                         .out = {out(), tokens, shape.rows, shape.rows}});
      }
    });
  }

  template <class F>
  void Measure(KernelBenchLine line, const F& run) {
    line.measurement = bencher_.Measure(line.work, [&] {
      const Clock::time_point start = Clock::now();
      run();
      float waited = 0;  // for what a device has queued
      backend_.CopyToHost({out(), 1, 1, 1}, &waited);
      return SecondsSince(start);
    });
    on_line_(line);
  }

  // One sequence's `count` tokens from position `first` on.
  void Upload(int first, int count) {
    std::vector<int32_t> table(kContext / 16), positions, rows(static_cast<size_t>(count), 0);
    for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int32_t>(i);
    for (int t = 0; t < count; ++t) positions.push_back(first + t);
    const int32_t bounds[] = {0, count};
    backend_.UploadStep({.positions = positions,
                         .sequence_rows = rows,
                         .first_tokens = bounds,
                         .block_tables = {table}});
  }

  const KernelBenchOptions& options_;
  Backend& backend_;
  Bencher& bencher_;
  const std::function<void(const KernelBenchLine&)>& on_line_;
  std::unique_ptr<Buffer> x_, out_;  // [kMaxTokens, kMaxSize]
};

}  // namespace

absl::Status RunKernelBench(const KernelBenchOptions& options,
                            const std::function<void(const KernelBenchLine&)>& on_line) {
  const int threads = options.threads > 0 ? options.threads : UsableCores();
  ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend,
                   MakeBackend(options.device, threads, 0, {.arithmetic = options.arithmetic}));
  RETURN_IF_ERROR(backend->Reserve(
      {.max_tokens = kMaxTokens, .max_sequences = 1, .max_blocks_per_sequence = kContext / 16},
      kMaxSize, kMaxSize));
  ASSIGN_OR_RETURN(const std::unique_ptr<Bencher> bencher,
                   MakeBencher({.device = options.device,
                                .arithmetic = options.arithmetic,
                                .threads = threads,
                                .read_bytes = options.working_set_bytes},
                               options.repeats));
  ASSIGN_OR_RETURN(const std::unique_ptr<KernelBench> bench,
                   KernelBench::Create(options, *backend, *bencher, on_line));
  const bool gpu = IsCuda(options.device);
  for (const Shape& shape : gpu ? std::span<const Shape>(kGpuShapes) : kHostShapes) {
    for (const Format& format : kFormats) {
      if (gpu && !format.on_gpus) continue;
      RETURN_IF_ERROR(bench->MatMuls(format, shape));
    }
  }
  for (const int tokens : {1, 256}) RETURN_IF_ERROR(bench->Attention(tokens));
  return absl::OkStatus();
}

}  // namespace sauva
