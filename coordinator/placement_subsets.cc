#include <algorithm>
#include <bit>
#include <limits>
#include <tuple>

#include "base/check.h"
#include "coordinator/placement_search.h"

namespace sauva {
namespace {

using Mask = uint32_t;  // a set of workers

// Ends of the layer prefixes that a set of workers, all of them used, can serve.
using Prefixes = std::vector<uint8_t>;  // [layers + 1]

struct PrefixScore {
  int64_t moved_bytes = std::numeric_limits<int64_t>::max();
  double slowest_seconds = 0;
  int worker = -1;  // of the last stage
  int first = 0;    // layer of the last stage

  bool reachable() const { return moved_bytes != std::numeric_limits<int64_t>::max(); }
  bool operator<(const PrefixScore& other) const {
    return std::tie(moved_bytes, slowest_seconds) <
           std::tie(other.moved_bytes, other.slowest_seconds);
  }
};

class SubsetSearch {
 public:
  SubsetSearch(const StageTable& table, const std::vector<int>& classes,
               const PlacementGoals& goals)
      : table_(table),
        classes_(classes),
        goals_(goals),
        num_masks_(Mask{1} << table.num_workers()) {}

  std::optional<ScoredPlacement> Run() {
    const std::vector<double> times = table_.Times();
    const auto feasible = [&](double limit) { return EnoughDisjoint(ServingMasks(limit)); };
    if (times.empty() || !feasible(times.back())) return std::nullopt;
    const auto best = std::partition_point(times.begin(), times.end(),
                                           [&](double limit) { return !feasible(limit); });
    return Cheapest(*best * kPlacementTolerance);
  }

 private:
  bool MayAdd(Mask mask, int worker) const {
    if (mask >> worker & 1) return false;
    if (std::popcount(mask) >= MaxStages()) return false;
    return mask == 0 || classes_[std::countr_zero(mask)] == classes_[worker];
  }
  int MaxStages() const { return goals_.stages > 0 ? goals_.stages : goals_.max_workers; }
  bool RightStageCount(Mask mask) const {
    return mask != 0 && (goals_.stages == 0 || std::popcount(mask) == goals_.stages);
  }

  // For each set of workers: can it serve the whole model, each stage within `limit`?
  std::vector<uint8_t> ServingMasks(double limit) const {
    const int layers = table_.num_layers();
    std::vector<Prefixes> reachable(num_masks_, Prefixes(layers + 1, 0));
    reachable[0][0] = 1;
    for (Mask mask = 0; mask < num_masks_; ++mask) {
      for (int worker = 0; worker < table_.num_workers(); ++worker) {
        if (!MayAdd(mask, worker)) continue;
        Prefixes& next = reachable[mask | Mask{1} << worker];
        for (int first = 0; first < layers; ++first) {
          if (!reachable[mask][first]) continue;
          const int last = table_.Reach(worker, first, limit);
          std::fill(next.begin() + first + 1, next.begin() + last + 1, uint8_t{1});
          if (table_.ServesRest(worker, first, limit)) next[layers] = 1;
        }
      }
    }
    std::vector<uint8_t> serves(num_masks_, 0);
    for (Mask mask = 1; mask < num_masks_; ++mask) {
      serves[mask] = RightStageCount(mask) && reachable[mask][layers];
    }
    return serves;
  }

  // Are there goals.replicas disjoint sets that serve, on goals.max_workers or fewer?
  bool EnoughDisjoint(const std::vector<uint8_t>& serves) const {
    std::vector<uint8_t> served(num_masks_, 0);
    served[0] = 1;
    for (int replica = 0; replica < goals_.replicas; ++replica) {
      std::vector<uint8_t> next(num_masks_, 0);
      for (Mask mask = 1; mask < num_masks_; ++mask) {
        for (Mask part = mask; part != 0 && !next[mask]; part = (part - 1) & mask) {
          next[mask] = serves[part] && served[mask ^ part];
        }
      }
      served = std::move(next);
    }
    for (Mask mask = 1; mask < num_masks_; ++mask) {
      if (served[mask] && std::popcount(mask) <= goals_.max_workers) return true;
    }
    return false;
  }

  void ScorePrefixes(double limit) {
    const int layers = table_.num_layers();
    scores_.assign(num_masks_, std::vector<PrefixScore>(layers + 1));
    scores_[0][0].moved_bytes = 0;
    for (Mask mask = 0; mask < num_masks_; ++mask) {
      for (int worker = 0; worker < table_.num_workers(); ++worker) {
        if (MayAdd(mask, worker)) Extend(mask, worker, limit);
      }
    }
  }

  void Extend(Mask mask, int worker, double limit) {
    for (int first = 0; first < table_.num_layers(); ++first) {
      if (!scores_[mask][first].reachable()) continue;
      const int reach = table_.Reach(worker, first, limit);
      for (int last = first + 1; last <= reach; ++last) Offer(mask, worker, {first, last});
      if (table_.ServesRest(worker, first, limit)) {
        Offer(mask, worker, {first, table_.num_layers()});
      }
    }
  }

  void Offer(Mask mask, int worker, LayerRange layers) {
    const PrefixScore& prefix = scores_[mask][layers.first];
    PrefixScore& known = scores_[mask | Mask{1} << worker][layers.last];
    const PrefixScore extended{
        .moved_bytes = prefix.moved_bytes + table_.moved_bytes(worker, layers),
        .slowest_seconds = std::max(prefix.slowest_seconds, table_.seconds(worker, layers)),
        .worker = worker,
        .first = layers.first};
    if (extended < known) known = extended;
  }

  struct Union {
    PlacementScore score;
    bool possible = false;
    Mask last_part = 0;
  };

  // Adds one pipeline to sets of workers that already hold the others: best by score.
  std::vector<Union> AddPipeline(const std::vector<Union>& others) const {
    const int layers = table_.num_layers();
    std::vector<Union> unions(num_masks_);
    for (Mask mask = 1; mask < num_masks_; ++mask) {
      for (Mask part = mask; part != 0; part = (part - 1) & mask) {
        const Union& rest = others[mask ^ part];
        const PrefixScore& pipeline = scores_[part][layers];
        if (!rest.possible || !RightStageCount(part) || !pipeline.reachable()) continue;
        const PlacementScore score{
            .moved_bytes = rest.score.moved_bytes + pipeline.moved_bytes,
            .stages = std::popcount(mask),
            .slowest_seconds = std::max(rest.score.slowest_seconds, pipeline.slowest_seconds)};
        if (!unions[mask].possible || score < unions[mask].score) {
          unions[mask] = {score, true, part};
        }
      }
    }
    return unions;
  }

  // The best-scored goals.replicas disjoint sets whose stages all keep to `limit`.
  ScoredPlacement Cheapest(double limit) {
    ScorePrefixes(limit);
    std::vector<std::vector<Union>> unions(1, std::vector<Union>(num_masks_));
    unions[0][0].possible = true;
    for (int replica = 0; replica < goals_.replicas; ++replica) {
      unions.push_back(AddPipeline(unions.back()));
    }
    const std::vector<Union>& complete = unions.back();
    Mask best = 0;
    for (Mask mask = 1; mask < num_masks_; ++mask) {
      if (!complete[mask].possible || std::popcount(mask) > goals_.max_workers) continue;
      if (best == 0 || complete[mask].score < complete[best].score) best = mask;
    }
    Check(best != 0, "a placement within the tolerance exists: the best one");
    ScoredPlacement placement{.pipelines = {}, .score = complete[best].score};
    for (int replica = goals_.replicas; replica > 0; --replica) {
      const Mask part = unions[replica][best].last_part;
      placement.pipelines.push_back(Pipeline(part));
      best ^= part;
    }
    return placement;
  }

  PlacedPipeline Pipeline(Mask mask) const {
    PlacedPipeline stages;
    int last = table_.num_layers();
    while (mask != 0) {
      const PrefixScore& stage = scores_[mask][last];
      stages.push_back({stage.worker, {stage.first, last}});
      last = stage.first;
      mask ^= Mask{1} << stage.worker;
    }
    std::ranges::reverse(stages);
    return stages;
  }

  const StageTable& table_;
  const std::vector<int>& classes_;
  const PlacementGoals& goals_;
  const Mask num_masks_;
  std::vector<std::vector<PrefixScore>> scores_;  // [mask, layers + 1]
};

}  // namespace

std::optional<ScoredPlacement> SearchSubsets(const StageTable& table,
                                             const std::vector<int>& classes,
                                             const PlacementGoals& goals) {
  Check(table.num_workers() <= kExactPlacementWorkers, "few enough workers for every subset");
  return SubsetSearch(table, classes, goals).Run();
}

}  // namespace sauva
