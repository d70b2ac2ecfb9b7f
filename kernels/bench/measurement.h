#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/rate_probe.h"

// Speed told as a share of what the machine does at most at that very moment.
namespace sauva {

// What must be read and computed at least.
struct Work {
  double bytes = 0;
  double int8_operations = 0;
  double float_operations = 0;
};

struct Limits {
  double read_bytes_per_second = 0;
  double int8_operations_per_second = 0;
  double float_operations_per_second = 0;
  const char* floats = "f32";  // what float operations are done in
};

struct Measurement {
  std::vector<double> seconds;  // ascending
  std::vector<double> shares;   // of the nearer limit, ascending; limits are the mean of before
                                // and after each repetition
  std::string limit;            // the nearer one: "read", "int8" or "f32"; of a GPU also "f16"
  Limits limits;                // of the median repetition

  double median_seconds() const { return seconds[seconds.size() / 2]; }
  double median_share() const { return shares[shares.size() / 2]; }
};

// Measures pieces of work beside the machine's limits.
// Thread: one at a time.
class Bencher {
 public:
  // `repeats` >= 1, an odd number for a true median. Errors: those of RateProbe::Create.
  static absl::StatusOr<std::unique_ptr<Bencher>> Create(const RateProbeOptions& options,
                                                         int repeats);
  // Beside limits that were measured before, as those of a GPU.
  Bencher(const Limits& limits, int repeats) : known_(limits), repeats_(repeats) {}

  // Runs `run` once to warm up and then `repeats` times, with limits taken between. `run`
  // returns the seconds it took.
  Measurement Measure(const Work& work, const std::function<double()>& run);

 private:
  Bencher(std::unique_ptr<RateProbe> probe, int repeats)
      : probe_(std::move(probe)), repeats_(repeats) {}
  Limits Sample();

  const std::unique_ptr<RateProbe> probe_;  // null: the limits are known
  const Limits known_;
  const int repeats_;
};

}  // namespace sauva
