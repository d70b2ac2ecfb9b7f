// kernel_bench [threads] [megabytes]: how fast the cpu backend multiplies, beside what this
// machine can read and compute at most in the same run. Not a test.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "kernels/cpu/select.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/factory.h"
#include "kernels/host_memory.h"
#include "kernels/machine_rates.h"

namespace sauva {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kColumns = 4096;
constexpr int kGemmRows = 4096;
constexpr int kMaxTokens = 256;

// The median time of one call of `work`, in seconds.
template <class F>
double MedianSeconds(int repeats, const F& work) {
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) {
    const Clock::time_point start = Clock::now();
    work();
    times.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::nth_element(times.begin(), times.begin() + repeats / 2, times.end());
  return times[static_cast<size_t>(repeats / 2)];
}

// Reads the working set as plainly as can be: the peak of a GEMV.
double ReadRate(int threads, int64_t bytes) {
  const KernelTable& kernels = **SelectKernels(InstructionSet::kAuto);
  ThreadPool pool(threads);
  const HostMemory memory = *HostMemory::Allocate(bytes);
  constexpr int64_t kTile = int64_t{1} << 20;
  const auto tile_at = [&](int64_t tile) { return memory.data() + tile * kTile; };
  pool.Run(bytes / kTile, [&](int64_t tile, int) { std::memset(tile_at(tile), 1, kTile); });
  std::vector<uint64_t> sums(static_cast<size_t>(threads) * 8);
  const double seconds = MedianSeconds(5, [&] {
    pool.Run(bytes / kTile, [&](int64_t tile, int thread) {
      sums[static_cast<size_t>(thread) * 8] += kernels.read_all(tile_at(tile), kTile);
    });
  });
  return static_cast<double>(bytes / kTile * kTile) / seconds;
}

// Random numbers in (-1, 1) of a type, made 64 bits at a time; never zero.
std::vector<std::byte> RandomBytes(DType dtype, int64_t elements) {
  std::vector<std::byte> bytes(static_cast<size_t>(elements * SizeOf(dtype)));
  uint64_t state = 88172645463325252u;
  for (size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    // Exponents just below 1: any sign and mantissa.
    uint64_t word = state & 0x83ff83ff83ff83ffu;
    if (dtype == DType::kF16) word |= 0x3800380038003800u;
    if (dtype == DType::kBF16) word = (state & 0x807f807f807f807fu) | 0x3f003f003f003f00u;
    if (dtype == DType::kF32) word = (state & 0x807fffff807fffffu) | 0x3f0000003f000000u;
    std::memcpy(bytes.data() + i, &word, 8);
  }
  return bytes;
}

struct Rates {
  double read_bytes_per_second;
  double operations_per_second;
};

struct Format {
  const char* name;
  DType dtype;
  WeightFormat format;
};

void BenchFormat(Backend& backend, const Format& format, int64_t gemv_bytes, const Rates& peak) {
  const bool int8 = format.format == WeightFormat::kInt8;
  const int64_t stored = int8 ? 1 : SizeOf(format.dtype);
  const int64_t rows = std::max<int64_t>(kGemmRows, gemv_bytes / (kColumns * stored));
  auto source = RandomBytes(format.dtype, rows * kColumns);
  const auto prepare = [&](int64_t count) {
    return *backend.PrepareWeight(
        {.name = format.name,
         .dtype = format.dtype,
         .rows = count,
         .columns = kColumns,
         .bytes =
             std::span(source).first(static_cast<size_t>(count * kColumns * SizeOf(format.dtype)))},
        format.format);
  };
  const std::unique_ptr<Weight> tall = prepare(rows);
  const std::unique_ptr<Weight> square = prepare(kGemmRows);
  std::vector<float> x(size_t{kMaxTokens} * kColumns);
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i));
  std::vector<float> out(std::max(static_cast<size_t>(rows), size_t{kMaxTokens} * kGemmRows));

  const double gemv = MedianSeconds(5, [&] {
    backend.MatMul({.weight = tall.get(),
                    .x = {x.data(), 1, kColumns, kColumns},
                    .out = {out.data(), 1, static_cast<int>(rows), rows}});
  });
  const double bytes_rate = static_cast<double>(tall->size_bytes()) / gemv;
  std::printf("%-5s GEMV %6lld MB   %7.2f GB/s    %5.1f %% of read\n", format.name,
              static_cast<long long>(tall->size_bytes() >> 20), bytes_rate / 1e9,
              100 * bytes_rate / peak.read_bytes_per_second);
  for (const int tokens : {8, 64, kMaxTokens}) {
    const double gemm = MedianSeconds(5, [&] {
      backend.MatMul({.weight = square.get(),
                      .x = {x.data(), tokens, kColumns, kColumns},
                      .out = {out.data(), tokens, kGemmRows, kGemmRows}});
    });
    const double rate = 2.0 * tokens * kGemmRows * kColumns / gemm;
    std::printf("%-5s GEMM %3d tokens  %7.2f GFLOP/s %5.1f %% of f32 multiply-add\n", format.name,
                tokens, rate / 1e9, 100 * rate / peak.operations_per_second);
  }
}

// Attention of 32 heads on 8 KV heads of 128 dims over a context.
void BenchAttention(Backend& backend, int tokens, int context, const Rates& peak) {
  constexpr int kHeads = 32, kKvHeads = 8, kDim = 128;
  const int blocks = (context + 15) / 16;
  const std::unique_ptr<KvCache> cache = *backend.AllocateKv(
      {.num_blocks = blocks, .num_kv_heads = kKvHeads, .head_dim = kDim, .dtype = DType::kF16});
  std::vector<int32_t> table(static_cast<size_t>(blocks)), positions, rows(kMaxTokens, 0);
  for (int i = 0; i < blocks; ++i) table[static_cast<size_t>(i)] = i;
  std::vector<float> x(size_t{kMaxTokens} * kHeads * kDim);
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i));
  std::vector<float> out(x.size());
  const auto upload = [&](int first, int count) {
    positions.clear();
    for (int t = 0; t < count; ++t) positions.push_back(first + t);
    const int32_t bounds[] = {0, count};
    backend.UploadStep({.positions = positions,
                        .sequence_rows = std::span(rows).first(static_cast<size_t>(count)),
                        .first_tokens = bounds,
                        .block_tables = {table}});
  };
  constexpr int64_t kKvStride = kKvHeads * kDim;
  for (int first = 0; first < context; first += kMaxTokens) {
    const int count = std::min(kMaxTokens, context - first);
    upload(first, count);
    backend.WriteKv({.keys = {x.data(), count, kKvStride, kKvStride},
                     .values = {x.data(), count, kKvStride, kKvStride},
                     .cache = cache.get()});
  }
  upload(context - tokens, tokens);
  const double seconds = MedianSeconds(5, [&] {
    backend.Attention({.queries = {x.data(), tokens, kHeads * kDim, kHeads * kDim},
                       .cache = cache.get(),
                       .num_heads = kHeads,
                       .score_scale = 0.09f,
                       .out = {out.data(), tokens, kHeads * kDim, kHeads * kDim}});
  });
  const double rate = 4.0 * tokens * (context - tokens / 2) * kHeads * kDim / seconds;
  const double bytes = 2.0 * context * kKvStride * 2 / seconds;
  std::printf("attention %3d tokens at %5d, f16 KV  %7.2f GFLOP/s %5.1f %%   %6.2f GB/s of KV\n",
              tokens, context, rate / 1e9, 100 * rate / peak.operations_per_second, bytes / 1e9);
}

void BenchSampler(Backend& backend, int vocabulary) {
  std::vector<float> logits(static_cast<size_t>(vocabulary));
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = 4 * std::sin(static_cast<float>(i * i));
  for (const SampleRow& row : {SampleRow{.temperature = 0}, SampleRow{}, SampleRow{.top_k = 50},
                               SampleRow{.top_p = 0.9f}}) {
    SampleResult result;
    const double seconds = MedianSeconds(9, [&] {
      backend.Sample({logits.data(), 1, vocabulary, vocabulary}, {&row, 1}, {&result, 1});
    });
    std::printf("sample of %d, temperature %.0f, top-k %d, top-p %.1f: %.3f ms\n", vocabulary,
                static_cast<double>(row.temperature), row.top_k, static_cast<double>(row.top_p),
                seconds * 1e3);
  }
}

int Main(int threads, int64_t bytes) {
  constexpr int kVocabulary = 128000;
  constexpr int kContext = 4096;
  const auto backend = *MakeCpuBackend({.threads = threads});
  if (!backend
           ->Reserve({.max_tokens = kMaxTokens,
                      .max_sequences = 8,
                      .max_blocks_per_sequence = kContext / 16},
                     kColumns, kVocabulary)
           .ok()) {
    return 1;
  }
  const MachineRates quick = MeasureMachineRates(threads, uint64_t{1} << 32);
  const Rates peak{ReadRate(threads, bytes), quick.operations_per_second};
  std::printf("%d threads; read %.2f GB/s of %lld MB (%.2f GB/s quickly); %.1f GFLOP/s\n", threads,
              peak.read_bytes_per_second / 1e9, static_cast<long long>(bytes >> 20),
              quick.read_bytes_per_second / 1e9, peak.operations_per_second / 1e9);
  for (const Format& format : {Format{"f32", DType::kF32, WeightFormat::kNative},
                               Format{"f16", DType::kF16, WeightFormat::kNative},
                               Format{"bf16", DType::kBF16, WeightFormat::kNative},
                               Format{"int8", DType::kF16, WeightFormat::kInt8}}) {
    BenchFormat(*backend, format, bytes, peak);
  }
  BenchAttention(*backend, 1, kContext, peak);
  BenchAttention(*backend, kMaxTokens, kContext, peak);
  BenchSampler(*backend, kVocabulary);
  return 0;
}

}  // namespace
}  // namespace sauva

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : sauva::UsableCores();
  const long megabytes = argc > 2 ? std::atol(argv[2]) : 1024;
  if (threads < 1 || megabytes < 64) {
    std::fprintf(stderr, "usage: kernel_bench [threads] [megabytes of weights, at least 64]\n");
    return 2;
  }
  return sauva::Main(threads, int64_t{megabytes} << 20);
}
