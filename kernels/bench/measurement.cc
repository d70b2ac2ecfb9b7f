#include "kernels/bench/measurement.h"

#include <algorithm>
#include <utility>

#include "base/status_macros.h"

namespace sauva {
namespace {

Limits Mean(const Limits& a, const Limits& b) {
  return {
      (a.read_bytes_per_second + b.read_bytes_per_second) / 2,
      (a.int8_operations_per_second + b.int8_operations_per_second) / 2,
      (a.float_operations_per_second + b.float_operations_per_second) / 2,
      a.floats,
  };
}

double ReadSeconds(const Work& work, const Limits& limits) {
  return work.bytes / limits.read_bytes_per_second;
}

double ComputeSeconds(const Work& work, const Limits& limits) {
  return work.int8_operations / limits.int8_operations_per_second +
         work.float_operations / limits.float_operations_per_second;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Bencher>> Bencher::Create(const RateProbeOptions& options,
                                                         int repeats) {
  ASSIGN_OR_RETURN(std::unique_ptr<RateProbe> probe, RateProbe::Create(options));
  return std::unique_ptr<Bencher>(new Bencher(std::move(probe), std::max(1, repeats)));
}

Limits Bencher::Sample() {
  if (probe_ == nullptr) return known_;
  return {probe_->ReadBytesPerSecond(), probe_->Int8OperationsPerSecond(),
          probe_->FloatOperationsPerSecond()};
}

Measurement Bencher::Measure(const Work& work, const std::function<double()>& run) {
  struct Repetition {
    double seconds = 0;
    double share = 0;
    Limits limits;
  };
  std::vector<Repetition> repetitions;
  run();
  Limits before = Sample();
  for (int i = 0; i < repeats_; ++i) {
    const double seconds = run();
    const Limits after = Sample();
    const Limits limits = Mean(before, after);
    const double least = std::max(ReadSeconds(work, limits), ComputeSeconds(work, limits));
    repetitions.push_back({seconds, least / seconds, limits});
    before = after;
  }
  std::sort(repetitions.begin(), repetitions.end(),
            [](const Repetition& a, const Repetition& b) { return a.share < b.share; });
  Measurement result;
  result.limits = repetitions[repetitions.size() / 2].limits;
  const bool reads = ReadSeconds(work, result.limits) > ComputeSeconds(work, result.limits);
  const bool integers = work.int8_operations > work.float_operations;
  result.limit = reads ? "read" : integers ? "int8" : result.limits.floats;
  for (const Repetition& repetition : repetitions) {
    result.seconds.push_back(repetition.seconds);
    result.shares.push_back(repetition.share);
  }
  std::sort(result.seconds.begin(), result.seconds.end());
  return result;
}

}  // namespace sauva
