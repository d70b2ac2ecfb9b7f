// What share of the machine's f32 peak GPTQ's products, factorisation and rounding reach on one
// thread: quantize_speed [COLUMNS [ROWS [TOKENS]]]. Times are of the processor, so that other work
// counts for little.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <random>
#include <string>
#include <vector>

#include "kernels/rate_probe.h"
#include "quantize/gptq.h"

namespace sauva {
namespace {

double ProcessorSeconds() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// The most that one of several short samples reached.
double PeakOperationsPerSecond() {
  const auto probe = RateProbe::Create({.threads = 1, .read_bytes = 1 << 20});
  if (!probe.ok()) return 0;
  double peak = 0;
  for (int i = 0; i < 100; ++i) peak = std::max(peak, (*probe)->FloatOperationsPerSecond());
  return peak;
}

std::vector<float> Numbers(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> numbers(static_cast<size_t>(count));
  for (float& number : numbers) number = uniform(random);
  return numbers;
}

class Report {
 public:
  template <class F>
  void Measure(const char* what, double operations, const F& work) {
    const double start = ProcessorSeconds();
    work();
    const double seconds = ProcessorSeconds() - start;
    const double peak = PeakOperationsPerSecond();
    std::printf("%-24s %7.2f s %7.1f GFLOP/s %5.1f %% of %.1f\n", what, seconds,
                1e-9 * operations / seconds, 100 * operations / seconds / peak, 1e-9 * peak);
    std::fflush(stdout);
  }
};

int Run(int64_t columns, int64_t rows, int64_t tokens) {
  Report report;
  const auto n = static_cast<double>(columns);
  const std::vector<float> x = Numbers(tokens * columns, 1);
  const GptqOptions options = {.bits = 4, .group_size = 128, .threads = 1};
  Hessian hessian(columns);
  constexpr int64_t kAtOnce = 512;  // of a calibration sample
  report.Measure("Hessian", n * n * static_cast<double>(tokens), [&] {
    for (int64_t first = 0; first < tokens; first += kAtOnce) {
      const int64_t count = std::min(kAtOnce, tokens - first);
      hessian.Add({.data = x.data() + first * columns, .rows = count, .stride = columns}, 1);
    }
  });
  std::string note;
  absl::StatusOr<GptqFactor> factor = absl::UnknownError("not made");
  report.Measure("Cholesky and inverse", 2 * n * n * n / 3,
                 [&] { factor = GptqFactor::Create(std::move(hessian), options, note); });
  if (!factor.ok()) {
    std::fprintf(stderr, "%s\n", std::string(factor.status().message()).c_str());
    return 1;
  }
  std::vector<float> weights = Numbers(rows * columns, 2);
  report.Measure("rounding", n * n * static_cast<double>(rows), [&] {
    const auto matrix = QuantizeGptq(std::move(weights), rows, *factor, options);
    if (!matrix.ok()) std::abort();
  });
  return 0;
}

}  // namespace
}  // namespace sauva

int main(int argc, char** argv) {
  const auto argument = [&](int i, int64_t otherwise) {
    return argc > i ? std::atoll(argv[i]) : otherwise;
  };
  return sauva::Run(argument(1, 4096), argument(2, 4096), argument(3, 1024));
}
