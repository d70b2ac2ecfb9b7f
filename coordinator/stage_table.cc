#include <algorithm>
#include <limits>

#include "coordinator/placement_search.h"

namespace sauva {

StageTable::StageTable(const ModelCosts& costs, std::span<const PlacementWorker> workers,
                       const PlacementGoals& goals)
    : num_workers_(static_cast<int>(workers.size())), num_layers_(costs.num_layers()) {
  const size_t ranges = static_cast<size_t>(num_layers_) * (num_layers_ + 1);
  seconds_.assign(workers.size() * ranges, std::numeric_limits<double>::infinity());
  weight_bytes_.assign(ranges, 0);
  for (const PlacementWorker& worker : workers) holds_.push_back(worker.holds);
  for (int first = 0; first < num_layers_; ++first) {
    for (int last = first + 1; last <= num_layers_; ++last) {
      const LayerRange layers{first, last};
      weight_bytes_[Index(0, layers)] = StageWeightBytes(costs, layers);
      const int64_t memory = StageMemoryBytes(costs, layers, goals.kv_tokens);
      const int64_t kv =
          memory - StageMemoryBytes(costs, layers, 0);  // what kv_memory_bytes must hold
      if (goals.kv_memory_bytes > 0 && kv > goals.kv_memory_bytes) continue;
      for (int w = 0; w < num_workers_; ++w) {
        if (memory <= workers[w].memory_bytes - workers[w].kept_bytes) {
          seconds_[Index(w, layers)] = StageSeconds(costs, workers[w], layers);
        }
      }
    }
  }
}

int64_t StageTable::moved_bytes(int worker, LayerRange layers) const {
  return holds_[worker] == layers ? 0 : weight_bytes_[Index(0, layers)];
}

int StageTable::Reach(int worker, int first, double limit) const {
  // A longer range is never faster and never smaller, so the answer is a boundary.
  int reached = first;
  int beyond = num_layers_;
  while (beyond - reached > 1) {
    const int middle = reached + (beyond - reached) / 2;
    (seconds(worker, {first, middle}) <= limit ? reached : beyond) = middle;
  }
  return reached;
}

std::vector<double> StageTable::Times() const {
  std::vector<double> times;
  for (double seconds : seconds_) {
    if (seconds < std::numeric_limits<double>::infinity()) times.push_back(seconds);
  }
  std::ranges::sort(times);
  times.erase(std::unique(times.begin(), times.end()), times.end());
  return times;
}

}  // namespace sauva
