#include <algorithm>
#include <limits>
#include <tuple>

#include "base/check.h"
#include "coordinator/placement_search.h"

namespace sauva {
namespace {

struct PrefixScore {
  int64_t moved_bytes = std::numeric_limits<int64_t>::max();
  double slowest_seconds = 0;
  int position = -1;  // in the order, of the last stage's worker
  int first = 0;      // layer of the last stage

  bool reachable() const { return moved_bytes != std::numeric_limits<int64_t>::max(); }
  bool operator<(const PrefixScore& other) const {
    return std::tie(moved_bytes, slowest_seconds) <
           std::tie(other.moved_bytes, other.slowest_seconds);
  }
};

class OrderedSearch {
 public:
  OrderedSearch(const StageTable& table, const std::vector<int>& order, int stages,
                StageCount count)
      : table_(table),
        order_(order),
        max_stages_(std::min({stages, table.num_layers(), static_cast<int>(order.size())})),
        min_stages_(count == StageCount::kExactly ? stages : 1) {}

  std::optional<ScoredPlacement> Run() {
    const std::vector<double> times = table_.Times();
    if (times.empty() || max_stages_ < min_stages_ || !Feasible(times.back())) return std::nullopt;
    const auto best = std::partition_point(times.begin(), times.end(),
                                           [&](double limit) { return !Feasible(limit); });
    return Cheapest(*best * kPlacementTolerance);
  }

 private:
  bool Feasible(double limit) const {
    const int layers = table_.num_layers();
    // reachable[s][l]: the first l layers can be served by s of the workers seen so far.
    std::vector<std::vector<uint8_t>> reachable(max_stages_ + 1,
                                                std::vector<uint8_t>(layers + 1, 0));
    reachable[0][0] = 1;
    for (int worker : order_) {
      for (int s = max_stages_ - 1; s >= 0; --s) {
        for (int first = 0; first < layers; ++first) {
          if (!reachable[s][first]) continue;
          const int last = table_.Reach(worker, first, limit);
          std::fill(reachable[s + 1].begin() + first + 1, reachable[s + 1].begin() + last + 1,
                    uint8_t{1});
          if (table_.ServesRest(worker, first, limit)) reachable[s + 1][layers] = 1;
        }
      }
    }
    for (int s = min_stages_; s <= max_stages_; ++s) {
      if (reachable[s][layers]) return true;
    }
    return false;
  }

  ScoredPlacement Cheapest(double limit) {
    const int layers = table_.num_layers();
    const int positions = static_cast<int>(order_.size());
    // best_[p][s][l]: as above with the first p workers of the order, best score.
    best_.assign(positions + 1, std::vector<std::vector<PrefixScore>>(
                                    max_stages_ + 1, std::vector<PrefixScore>(layers + 1)));
    best_[0][0][0].moved_bytes = 0;
    for (int p = 0; p < positions; ++p) {
      best_[p + 1] = best_[p];
      for (int s = 0; s < max_stages_; ++s) Extend(p, s, limit);
    }
    int chosen = 0;
    for (int s = min_stages_; s <= max_stages_; ++s) {
      const PrefixScore& score = best_[positions][s][layers];
      if (!score.reachable()) continue;
      if (chosen == 0 || score.moved_bytes < best_[positions][chosen][layers].moved_bytes) {
        chosen = s;
      }
    }
    Check(chosen > 0, "a placement within the tolerance exists: the best one");
    const PrefixScore& score = best_[positions][chosen][layers];
    return {.pipelines = {Pipeline(chosen)},
            .score = {score.moved_bytes, chosen, score.slowest_seconds}};
  }

  void Extend(int position, int stages, double limit) {
    const int worker = order_[position];
    const int layers = table_.num_layers();
    for (int first = 0; first < layers; ++first) {
      if (!best_[position][stages][first].reachable()) continue;
      const int reach = table_.Reach(worker, first, limit);
      for (int last = first + 1; last <= reach; ++last) Offer(position, stages, {first, last});
      if (table_.ServesRest(worker, first, limit)) Offer(position, stages, {first, layers});
    }
  }

  void Offer(int position, int stages, LayerRange layers) {
    const int worker = order_[position];
    const PrefixScore& prefix = best_[position][stages][layers.first];
    PrefixScore& known = best_[position + 1][stages + 1][layers.last];
    const PrefixScore extended{
        .moved_bytes = prefix.moved_bytes + table_.moved_bytes(worker, layers),
        .slowest_seconds = std::max(prefix.slowest_seconds, table_.seconds(worker, layers)),
        .position = position,
        .first = layers.first};
    if (extended < known) known = extended;
  }

  PlacedPipeline Pipeline(int stages) const {
    PlacedPipeline pipeline;
    int last = table_.num_layers();
    size_t positions = order_.size();
    for (int s = stages; s > 0; --s) {
      const PrefixScore& stage = best_[positions][s][last];
      pipeline.push_back({order_[stage.position], {stage.first, last}});
      last = stage.first;
      positions = stage.position;
    }
    std::ranges::reverse(pipeline);
    return pipeline;
  }

  const StageTable& table_;
  const std::vector<int>& order_;
  const int max_stages_;
  const int min_stages_;
  std::vector<std::vector<std::vector<PrefixScore>>>
      best_;  // [positions + 1, stages + 1, layers + 1]
};

}  // namespace

std::optional<ScoredPlacement> SearchOrdered(const StageTable& table, const std::vector<int>& order,
                                             int stages, StageCount count) {
  return OrderedSearch(table, order, stages, count).Run();
}

}  // namespace sauva
