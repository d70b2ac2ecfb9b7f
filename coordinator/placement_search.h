#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "coordinator/placement.h"

namespace sauva {

// Seconds and moved bytes of every range on every worker, computed once per search.
class StageTable {
 public:
  StageTable(const ModelCosts& costs, std::span<const PlacementWorker> workers,
             const PlacementGoals& goals);

  int num_workers() const { return num_workers_; }
  int num_layers() const { return num_layers_; }

  // Infinite where the range does not fit into the worker's memory.
  double seconds(int worker, LayerRange layers) const { return seconds_[Index(worker, layers)]; }
  int64_t moved_bytes(int worker, LayerRange layers) const;

  // The longest stage of `worker` that starts at layer `first`, ends before the model's last
  // layer and takes at most `limit` seconds: one past its last layer, or `first` when there
  // is none. Every shorter one is within the limit too. The stage that ends the model is
  // another matter: it has the head, and sends nothing on.
  int Reach(int worker, int first, double limit) const;
  bool ServesRest(int worker, int first, double limit) const {
    return seconds(worker, {first, num_layers_}) <= limit;
  }

  // All finite stage times, ascending, each once.
  std::vector<double> Times() const;

 private:
  size_t Index(int worker, LayerRange layers) const {
    return (static_cast<size_t>(worker) * num_layers_ + layers.first) * (num_layers_ + 1) +
           layers.last;
  }

  int num_workers_;
  int num_layers_;
  std::vector<double> seconds_;        // [worker, first, last]
  std::vector<int64_t> weight_bytes_;  // [first, last]
  std::vector<LayerRange> holds_;      // [worker]
};

// What the searches optimise, in this order.
struct PlacementScore {
  int64_t moved_bytes = 0;
  int stages = 0;
  double slowest_seconds = 0;
  auto operator<=>(const PlacementScore&) const = default;
};

struct ScoredPlacement {
  std::vector<PlacedPipeline> pipelines;
  PlacementScore score;
};

// Exactly goals.replicas pipelines, or nothing when they do not fit. `classes` holds a
// number per worker; a pipeline stays within one number.
// Exact: dynamic programming over sets of workers, for at most kExactPlacementWorkers.
std::optional<ScoredPlacement> SearchSubsets(const StageTable& table,
                                             const std::vector<int>& classes,
                                             const PlacementGoals& goals);

// One pipeline of at most `max_stages` stages, exactly so many when `exactly` is set, on
// workers taken in the order given.
enum class StageCount { kAtMost, kExactly };
std::optional<ScoredPlacement> SearchOrdered(const StageTable& table, const std::vector<int>& order,
                                             int stages, StageCount count);

}  // namespace sauva
