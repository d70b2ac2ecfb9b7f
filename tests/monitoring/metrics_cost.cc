// What the metrics of one step cost: of a stage, and of the gateway for its tokens. Prints
// nanoseconds and the share of a step; measures, asserts nothing. Usage: metrics_cost [STEP_MS
// [BATCH]]

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "base/metrics.h"
#include "gateway/gateway_metrics.h"
#include "worker/worker_metrics.h"

namespace sauva {
namespace {

constexpr int kRounds = 1'000'000;

template <class Body>
double NanosecondsOf(Body body) {
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < kRounds; ++i) body(i);
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - begin;
  return took.count() / kRounds;
}

void Measure(double step_ms, int batch) {
  WorkerMetrics worker(1 << 30);
  const double of_stage = NanosecondsOf([&](int i) {
    worker.Observe({.status = absl::OkStatus(), .compute_seconds = 1e-6 * i});
    worker.sent_bytes().Increment(4096);
    worker.received_bytes().Increment(4096);
  });
  Metrics registry;
  GatewayMetrics gateway(registry);
  ModelMetrics& model = gateway.Of("model");
  const double of_token = NanosecondsOf([&](int i) {
    model.NextTokens(absl::Microseconds(i));
    model.Delivered(1);
  });
  const double step_ns = 1e6 * step_ms;
  std::printf("a stage: %.0f ns a step, %.5f %% of %.2f ms\n", of_stage, 100 * of_stage / step_ns,
              step_ms);
  std::printf("a gateway: %.0f ns a token, %.5f %% of a step of %d sequences\n", of_token,
              100 * of_token * batch / step_ns, batch);
}

}  // namespace
}  // namespace sauva

int main(int argc, char** argv) {
  sauva::Measure(argc > 1 ? std::atof(argv[1]) : 1, argc > 2 ? std::atoi(argv[2]) : 16);
  return 0;
}
