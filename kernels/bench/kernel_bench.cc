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

#include "base/status_macros.h"
#include "kernels/quantized_matrix.h"

namespace sauva {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kSize = 4096;  // rows and columns of a weight
constexpr int kMaxTokens = 512;
constexpr int kContext = 8192;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Format {
  const char* name;
  DType dtype = DType::kF16;  // of numbers
  int bits = 0;               // of codes; 0: numbers
  int64_t group_size = 0;
  CodeKind kind = CodeKind::kInteger;
  bool zeros = false;      // zero points of their own
  bool act_order = false;  // columns in another order
};

constexpr Format kFormats[] = {
    {.name = "f32", .dtype = DType::kF32},
    {.name = "f16"},
    {.name = "bf16", .dtype = DType::kBF16},
    {.name = "int8", .bits = 8, .group_size = kSize},
    {.name = "int4 g32", .bits = 4, .group_size = 32},
    {.name = "int4 g64 zeros", .bits = 4, .group_size = 64, .zeros = true},
    {.name = "int4 g128", .bits = 4, .group_size = 128},
    {.name = "int4 g128 act-order", .bits = 4, .group_size = 128, .act_order = true},
    {.name = "int3 g128", .bits = 3, .group_size = 128},
    {.name = "nf4 g64", .bits = 4, .group_size = 64, .kind = CodeKind::kNf4},
};

// Random numbers of a type whose exponents are just below 1: any sign and mantissa.
std::vector<std::byte> RandomNumbers(DType dtype) {
  std::vector<std::byte> bytes(size_t{kSize} * kSize * static_cast<size_t>(SizeOf(dtype)));
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

QuantizedMatrix RandomCodes(const Format& format) {
  QuantizedMatrix matrix{.kind = format.kind,
                         .bits = format.bits,
                         .rows = kSize,
                         .columns = kSize,
                         .group_size = format.group_size};
  std::mt19937 random(1);
  matrix.codes.resize(size_t{kSize} * kSize);
  const uint32_t mask = (1u << format.bits) - 1;
  for (uint8_t& code : matrix.codes) code = static_cast<uint8_t>(random() & mask);
  matrix.scales.resize(static_cast<size_t>(kSize * matrix.groups()));
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
    for (int i = 0; i < kSize; ++i) matrix.column_order.push_back(i);
    std::shuffle(matrix.column_order.begin(), matrix.column_order.end(), random);
  }
  return matrix;
}

class KernelBench {
 public:
  KernelBench(const KernelBenchOptions& options, Backend& backend, Bencher& bencher,
              const std::function<void(const KernelBenchLine&)>& on_line)
      : options_(options),
        backend_(backend),
        bencher_(bencher),
        on_line_(on_line),
        x_(size_t{kMaxTokens} * kSize),
        out_(x_.size()) {
    for (size_t i = 0; i < x_.size(); ++i) x_[i] = std::sin(static_cast<float>(i));
  }

  absl::Status MatMuls(const Format& format) {
    ASSIGN_OR_RETURN(const auto weights, Weights(format));
    for (const int tokens : {1, 16}) MatMul(format, tokens, weights);
    MatMul(format, kMaxTokens, std::span(weights).first(1));
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
      backend_.WriteKv({.keys = {x_.data(), kMaxTokens, kKvStride, kKvStride},
                        .values = {x_.data(), kMaxTokens, kKvStride, kKvStride},
                        .cache = cache.get()});
    }
    Upload(kContext - tokens, tokens);
    const double seen = kContext - (tokens - 1) / 2.0;  // keys of a query
    const Work work = {.bytes = static_cast<double>(shape.size_bytes()),
                       .float_operations = 4.0 * tokens * seen * kHeads * kDim};
    Measure({.kernel = "attention", .format = "f16 KV", .tokens = tokens, .work = work}, [&] {
      backend_.Attention({.queries = {x_.data(), tokens, kSize, kSize},
                          .cache = cache.get(),
                          .num_heads = kHeads,
                          .score_scale = 0.09f,
                          .out = {out_.data(), tokens, kSize, kSize}});
    });
    return absl::OkStatus();
  }

 private:
  // As many equal matrices as fill the working set.
  absl::StatusOr<std::vector<std::unique_ptr<Weight>>> Weights(const Format& format) {
    WeightSource source = {
        .name = format.name, .dtype = format.dtype, .rows = kSize, .columns = kSize};
    QuantizedMatrix codes;
    std::vector<std::byte> numbers;
    if (format.bits > 0) {
      codes = RandomCodes(format);
      source.quantized = &codes;
    } else {
      numbers = RandomNumbers(format.dtype);
      source.bytes = numbers;
    }
    std::vector<std::unique_ptr<Weight>> weights;
    for (int64_t bytes = 0; bytes < options_.working_set_bytes;) {
      ASSIGN_OR_RETURN(std::unique_ptr<Weight> weight,
                       backend_.PrepareWeight(source, WeightFormat::kNative));
      bytes += weight->size_bytes();
      weights.push_back(std::move(weight));
    }
    return weights;
  }

  void MatMul(const Format& format, int tokens, std::span<const std::unique_ptr<Weight>> weights) {
    Work work;
    for (const auto& weight : weights) {
      work.bytes += static_cast<double>(weight->size_bytes());
      double& operations = format.bits > 0 ? work.int8_operations : work.float_operations;
      operations += 2.0 * tokens * kSize * kSize;
    }
    Measure({.kernel = "matmul", .format = format.name, .tokens = tokens, .work = work}, [&] {
      for (const auto& weight : weights) {
        backend_.MatMul({.weight = weight.get(),
                         .x = {x_.data(), tokens, kSize, kSize},
                         .out = {out_.data(), tokens, kSize, kSize}});
      }
    });
  }

  template <class F>
  void Measure(KernelBenchLine line, const F& run) {
    line.measurement = bencher_.Measure(line.work, [&] {
      const Clock::time_point start = Clock::now();
      run();
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
  std::vector<float> x_;
  std::vector<float> out_;
};

}  // namespace

absl::Status RunKernelBench(const KernelBenchOptions& options,
                            const std::function<void(const KernelBenchLine&)>& on_line) {
  const int threads = options.threads > 0 ? options.threads : UsableCores();
  ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend,
                   MakeCpuBackend({.threads = threads, .isa = options.isa}));
  RETURN_IF_ERROR(backend->Reserve(
      {.max_tokens = kMaxTokens, .max_sequences = 1, .max_blocks_per_sequence = kContext / 16},
      kSize, kSize));
  ASSIGN_OR_RETURN(
      const std::unique_ptr<Bencher> bencher,
      Bencher::Create(
          {.threads = threads, .read_bytes = options.working_set_bytes, .isa = options.isa},
          options.repeats));
  KernelBench bench(options, *backend, *bencher, on_line);
  for (const Format& format : kFormats) RETURN_IF_ERROR(bench.MatMuls(format));
  for (const int tokens : {1, 256}) RETURN_IF_ERROR(bench.Attention(tokens));
  return absl::OkStatus();
}

}  // namespace sauva
