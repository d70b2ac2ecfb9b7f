#include "coordinator/placement.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "coordinator/placement_search.h"

namespace sauva {
namespace {

constexpr double kSlowest = 1.0;  // per second, for workers that measured nothing

// A number per backend class, so that pipelines can be kept within one.
std::vector<int> Classes(std::span<const PlacementWorker> workers, BackendMixing mixing) {
  std::map<std::string, int> numbers;
  std::vector<int> classes;
  for (const PlacementWorker& worker : workers) {
    const std::string& name = mixing == BackendMixing::kAnyClass ? "" : worker.backend_class;
    classes.push_back(numbers.try_emplace(name, static_cast<int>(numbers.size())).first->second);
  }
  return classes;
}

// Workers that hold layers in layer order, then the others, fastest first.
std::vector<int> Order(std::span<const PlacementWorker> workers) {
  std::vector<int> order(workers.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int a, int b) {
    const PlacementWorker& x = workers[a];
    const PlacementWorker& y = workers[b];
    const auto key = [](const PlacementWorker& w) {
      return std::tuple(w.holds.size() == 0, w.holds.first, -w.read_bytes_per_second);
    };
    return key(x) < key(y);
  });
  return order;
}

bool Better(const ScoredPlacement& a, const ScoredPlacement& b) {
  if (a.score.slowest_seconds > b.score.slowest_seconds * kPlacementTolerance) return false;
  if (b.score.slowest_seconds > a.score.slowest_seconds * kPlacementTolerance) return true;
  return a.score < b.score;
}

// For more workers than SearchSubsets takes: one pipeline after the other, each with its
// share of the workers that are left.
class GreedySearch {
 public:
  GreedySearch(const StageTable& table, std::span<const PlacementWorker> workers,
               const std::vector<int>& classes, const PlacementGoals& goals)
      : table_(table), classes_(classes), goals_(goals), order_(Order(workers)) {}

  std::optional<ScoredPlacement> Run() {
    ScoredPlacement all;
    int workers_left = goals_.max_workers;
    for (int replica = 0; replica < goals_.replicas; ++replica) {
      const int share = workers_left / (goals_.replicas - replica);
      std::optional<ScoredPlacement> next = Next(share);
      if (!next) return std::nullopt;
      for (const PlacedStage& stage : next->pipelines[0]) std::erase(order_, stage.worker);
      workers_left -= next->score.stages;
      all.pipelines.push_back(std::move(next->pipelines[0]));
      all.score.moved_bytes += next->score.moved_bytes;
      all.score.stages += next->score.stages;
      all.score.slowest_seconds = std::max(all.score.slowest_seconds, next->score.slowest_seconds);
    }
    return all;
  }

 private:
  std::optional<ScoredPlacement> Next(int share) const {
    const StageCount count = goals_.stages > 0 ? StageCount::kExactly : StageCount::kAtMost;
    const int stages = goals_.stages > 0 ? goals_.stages : share;
    std::optional<ScoredPlacement> best;
    for (int number = 0; number < static_cast<int>(classes_.size()); ++number) {
      std::vector<int> of_class;
      std::ranges::copy_if(order_, std::back_inserter(of_class),
                           [&](int worker) { return classes_[worker] == number; });
      if (of_class.empty() || stages > goals_.max_workers) continue;
      std::optional<ScoredPlacement> found = SearchOrdered(table_, of_class, stages, count);
      if (found && (!best || Better(*found, *best))) best = std::move(found);
    }
    return best;
  }

  const StageTable& table_;
  const std::vector<int>& classes_;
  const PlacementGoals& goals_;
  std::vector<int> order_;  // workers not used yet
};

std::optional<ScoredPlacement> Search(const ModelCosts& costs,
                                      std::span<const PlacementWorker> workers,
                                      const PlacementGoals& goals) {
  const StageTable table(costs, workers, goals);
  const std::vector<int> classes = Classes(workers, goals.mixing);
  if (workers.size() <= kExactPlacementWorkers) return SearchSubsets(table, classes, goals);
  return GreedySearch(table, workers, classes, goals).Run();
}

std::string DescribeNeed(const ModelCosts& costs, const PlacementGoals& goals) {
  const LayerRange all{0, costs.num_layers()};
  const int64_t weights = StageWeightBytes(costs, all);
  const int64_t scratch = StageMemoryBytes(costs, all, 0) - weights;
  const int64_t total = StageMemoryBytes(costs, all, goals.kv_tokens);
  return absl::StrCat("one pipeline needs ", total, " bytes (weights ", weights,
                      ", KV cache of one sequence of ", goals.kv_tokens, " tokens ",
                      total - weights - scratch, ", activations ", scratch, " per stage)");
}

std::string DescribeWorkers(std::span<const PlacementWorker> workers, const PlacementGoals& goals) {
  struct Sum {
    int workers = 0;
    int64_t bytes = 0;
    int64_t largest = 0;
    int64_t kept = 0;  // the most of one
  };
  std::map<std::string, Sum> sums;
  for (const PlacementWorker& worker : workers) {
    Sum& sum = sums[worker.backend_class];
    ++sum.workers;
    sum.bytes += worker.memory_bytes;
    sum.largest = std::max(sum.largest, worker.memory_bytes);
    sum.kept = std::max(sum.kept, worker.kept_bytes);
  }
  std::string text;
  for (const auto& [name, sum] : sums) {
    absl::StrAppend(&text, text.empty() ? "" : "; ", sum.workers, " free ", name, " workers have ",
                    sum.bytes, " bytes, the largest ", sum.largest);
    if (sum.kept > 0) absl::StrAppend(&text, ", each keeps ", sum.kept, " for its threads");
  }
  if (text.empty()) return "no worker is free";
  const int spare = static_cast<int>(workers.size()) - goals.max_workers;
  if (spare > 0) absl::StrAppend(&text, " (", spare, " of them kept spare)");
  return text;
}

std::string Refusal(const ModelCosts& costs, std::span<const PlacementWorker> workers,
                    const PlacementGoals& goals) {
  if (goals.stages > costs.num_layers()) {
    return absl::StrCat("stages is ", goals.stages, ", but the model has ", costs.num_layers(),
                        " layers");
  }
  if (goals.stages > goals.max_workers) {
    return absl::StrCat("stages is ", goals.stages, ", but ", std::max(0, goals.max_workers),
                        " workers may be used: ", DescribeWorkers(workers, goals));
  }
  std::string reason =
      absl::StrCat(DescribeNeed(costs, goals), "; ", DescribeWorkers(workers, goals));
  const int64_t kv_of_a_layer =
      StageMemoryBytes(costs, {0, 1}, goals.kv_tokens) - StageMemoryBytes(costs, {0, 1}, 0);
  if (goals.kv_memory_bytes > 0 && kv_of_a_layer > goals.kv_memory_bytes) {
    absl::StrAppend(&reason, "; the KV cache of one layer takes ", kv_of_a_layer,
                    " bytes, but the KV memory of a stage is bounded by ", goals.kv_memory_bytes);
  }
  return reason;
}

// See TreatCloseRatesAsEqual.
void LevelRates(std::vector<PlacementWorker*> workers, double PlacementWorker::*rate) {
  std::ranges::sort(workers, [&](const PlacementWorker* a, const PlacementWorker* b) {
    return a->*rate > b->*rate;
  });
  for (auto first = workers.begin(); first != workers.end();) {
    const auto beyond = std::find_if(first, workers.end(), [&](const PlacementWorker* worker) {
      return worker->*rate * kEqualRates < (*first)->*rate;
    });
    const double slowest = (*std::prev(beyond))->*rate;
    std::for_each(first, beyond, [&](PlacementWorker* worker) { worker->*rate = slowest; });
    first = beyond;
  }
}

}  // namespace

double StageSeconds(const ModelCosts& costs, const PlacementWorker& worker, LayerRange layers) {
  const bool last = layers.last == costs.num_layers();
  double bytes = last ? static_cast<double>(costs.head_bytes) : 0;
  double operations = last ? costs.head_operations_per_token : 0;
  for (int layer = layers.first; layer < layers.last; ++layer) {
    bytes += static_cast<double>(costs.layers[layer].weight_bytes);
    operations += costs.layers[layer].operations_per_token;
  }
  const double reading = bytes / std::max(worker.read_bytes_per_second, kSlowest);
  const double computing =
      operations * kPlacementStepTokens / std::max(worker.operations_per_second, kSlowest);
  const double sent = last ? 0 : static_cast<double>(costs.hidden_bytes_per_token);
  const double sending =
      sent * kPlacementStepTokens / std::max(worker.link_bytes_per_second, kSlowest);
  return std::max(reading, computing) + sending;
}

int64_t StageWeightBytes(const ModelCosts& costs, LayerRange layers) {
  const bool first = layers.first == 0;
  const bool last = layers.last == costs.num_layers();
  int64_t bytes = (first ? costs.embedding_bytes : 0) + (last ? costs.head_bytes : 0);
  if (first && last) bytes -= costs.shared_bytes;
  for (int layer = layers.first; layer < layers.last; ++layer) {
    bytes += costs.layers[layer].weight_bytes;
  }
  return bytes;
}

int64_t StageMemoryBytes(const ModelCosts& costs, LayerRange layers, int kv_tokens) {
  int64_t bytes = StageWeightBytes(costs, layers) + costs.scratch_bytes;
  if (layers.last == costs.num_layers()) bytes += costs.last_scratch_bytes;
  for (int layer = layers.first; layer < layers.last; ++layer) {
    bytes += costs.layers[layer].kv_bytes_per_token * kv_tokens;
  }
  return bytes;
}

void TreatCloseRatesAsEqual(std::span<PlacementWorker> workers) {
  std::map<std::string, std::vector<PlacementWorker*>> classes;
  for (PlacementWorker& worker : workers) classes[worker.backend_class].push_back(&worker);
  for (auto& [name, members] : classes) {
    LevelRates(members, &PlacementWorker::read_bytes_per_second);
    LevelRates(members, &PlacementWorker::operations_per_second);
    LevelRates(members, &PlacementWorker::link_bytes_per_second);
  }
}

Placement Place(const ModelCosts& costs, std::span<const PlacementWorker> workers,
                const PlacementGoals& goals) {
  Check(costs.num_layers() > 0 && goals.replicas > 0, "there is a model and a pipeline to place");
  PlacementGoals bounded = goals;
  bounded.max_workers = std::clamp(goals.max_workers, 0, static_cast<int>(workers.size()));
  Placement placement;
  if (bounded.stages > costs.num_layers() || bounded.stages > bounded.max_workers ||
      bounded.max_workers == 0) {
    placement.refusal = Refusal(costs, workers, bounded);
    return placement;
  }
  std::optional<ScoredPlacement> found;
  for (bounded.replicas = std::min(goals.replicas, bounded.max_workers);
       bounded.replicas > 0 && !found; --bounded.replicas) {
    found = Search(costs, workers, bounded);
  }
  if (found) {
    placement.pipelines = std::move(found->pipelines);
    placement.slowest_stage_seconds = found->score.slowest_seconds;
    placement.moved_bytes = found->score.moved_bytes;
  }
  const int placed = static_cast<int>(placement.pipelines.size());
  if (placed < goals.replicas) {
    placement.refusal = absl::StrCat(placed, " of ", goals.replicas,
                                     " pipelines placed: ", Refusal(costs, workers, bounded));
  }
  return placement;
}

}  // namespace sauva
