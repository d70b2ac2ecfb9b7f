#include "coordinator/placement.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sauva {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr int64_t kMega = 1'000'000;

ModelCosts Model(int layers) {
  return {.layers = std::vector<LayerCosts>(layers, {.weight_bytes = 10 * kMega,
                                                     .kv_bytes_per_token = 1000,
                                                     .operations_per_token = 1e7}),
          .embedding_bytes = 5 * kMega,
          .head_bytes = 5 * kMega,
          .shared_bytes = 5 * kMega,
          .head_operations_per_token = 5e6,
          .hidden_bytes_per_token = 4096,
          .scratch_bytes = kMega,
          .last_scratch_bytes = kMega};
}

PlacementWorker Worker(const std::string& id, int64_t memory_bytes = 1000 * kMega) {
  return {.id = id,
          .backend_class = "cpu",
          .memory_bytes = memory_bytes,
          .read_bytes_per_second = 1e10,
          .operations_per_second = 1e11,
          .link_bytes_per_second = 1e9,
          .holds = {}};
}

std::vector<PlacementWorker> Workers(int count) {
  std::vector<PlacementWorker> workers;
  for (int i = 0; i < count; ++i) workers.push_back(Worker("w" + std::to_string(i)));
  return workers;
}

PlacementGoals Goals(int max_workers) { return {.max_workers = max_workers, .kv_tokens = 1024}; }

// A correct placement covers each layer once per pipeline, on workers used once, in memory.
void ExpectCorrect(const ModelCosts& costs, const std::vector<PlacementWorker>& workers,
                   const PlacementGoals& goals, const Placement& placement) {
  std::set<int> used;
  for (const PlacedPipeline& pipeline : placement.pipelines) {
    int next = 0;
    for (const PlacedStage& stage : pipeline) {
      EXPECT_EQ(stage.layers.first, next);
      EXPECT_GT(stage.layers.last, stage.layers.first);
      next = stage.layers.last;
      EXPECT_TRUE(used.insert(stage.worker).second);
      EXPECT_LE(StageMemoryBytes(costs, stage.layers, goals.kv_tokens),
                workers[stage.worker].memory_bytes);
      EXPECT_EQ(workers[stage.worker].backend_class, workers[pipeline[0].worker].backend_class);
    }
    EXPECT_EQ(next, costs.num_layers());
    if (goals.stages > 0) {
      EXPECT_THAT(pipeline, SizeIs(goals.stages));
    }
  }
  EXPECT_LE(static_cast<int>(used.size()), goals.max_workers);
}

TEST(PlacementTest, OneWorkerTakesTheWholeModel) {
  const std::vector<PlacementWorker> workers = Workers(1);
  const Placement placement = Place(Model(1), workers, Goals(1));
  ASSERT_THAT(placement.pipelines, SizeIs(1));
  EXPECT_THAT(placement.pipelines[0], testing::ElementsAre(PlacedStage{0, {0, 1}}));
  EXPECT_THAT(placement.refusal, IsEmpty());
}

TEST(PlacementTest, TwoEqualWorkersShareTheModel) {
  const std::vector<PlacementWorker> workers = Workers(2);
  const Placement placement = Place(Model(8), workers, Goals(2));
  ASSERT_THAT(placement.pipelines, SizeIs(1));
  ASSERT_THAT(placement.pipelines[0], SizeIs(2));
  EXPECT_EQ(placement.pipelines[0][0].layers, (LayerRange{0, 4}));
  EXPECT_EQ(placement.pipelines[0][1].layers, (LayerRange{4, 8}));
}

TEST(PlacementTest, WorkersBeyondMaxWorkersStaySpare) {
  const std::vector<PlacementWorker> workers = Workers(3);
  const Placement placement = Place(Model(8), workers, Goals(2));
  ASSERT_THAT(placement.pipelines, SizeIs(1));
  EXPECT_THAT(placement.pipelines[0], SizeIs(2));
}

TEST(PlacementTest, ForcedStagesAreExactlySoMany) {
  for (int stages : {1, 2, 3, 5, 8}) {
    PlacementGoals goals = Goals(10);
    goals.stages = stages;
    const std::vector<PlacementWorker> workers = Workers(10);
    const Placement placement = Place(Model(8), workers, goals);
    ASSERT_THAT(placement.pipelines, SizeIs(1)) << placement.refusal;
    ExpectCorrect(Model(8), workers, goals, placement);
  }
}

TEST(PlacementTest, MoreStagesThanLayersAreRefused) {
  PlacementGoals goals = Goals(10);
  goals.stages = 9;
  const Placement placement = Place(Model(8), Workers(10), goals);
  EXPECT_THAT(placement.pipelines, IsEmpty());
  EXPECT_THAT(placement.refusal, HasSubstr("stages is 9, but the model has 8 layers"));
}

TEST(PlacementTest, MoreStagesThanWorkersAreRefused) {
  PlacementGoals goals = Goals(1);
  goals.stages = 3;
  const Placement placement = Place(Model(8), Workers(2), goals);
  EXPECT_THAT(placement.refusal, HasSubstr("stages is 3, but 1 workers may be used"));
  EXPECT_THAT(placement.refusal, HasSubstr("1 of them kept spare"));
}

TEST(PlacementTest, TwoReplicasTakeHalfOfTheWorkersEach) {
  PlacementGoals goals = Goals(4);
  goals.replicas = 2;
  const std::vector<PlacementWorker> workers = Workers(4);
  const Placement placement = Place(Model(8), workers, goals);
  ASSERT_THAT(placement.pipelines, SizeIs(2));
  EXPECT_THAT(placement.pipelines[0], SizeIs(2));
  EXPECT_THAT(placement.pipelines[1], SizeIs(2));
  ExpectCorrect(Model(8), workers, goals, placement);
}

TEST(PlacementTest, FewerReplicasThanAskedForArePlacedAndTheRestIsRefusedWithBytes) {
  PlacementGoals goals = Goals(2);
  goals.replicas = 2;
  const std::vector<PlacementWorker> workers{Worker("a"), Worker("b", 20 * kMega)};
  const Placement placement = Place(Model(8), workers, goals);
  EXPECT_THAT(placement.pipelines, SizeIs(1));
  EXPECT_THAT(placement.refusal, HasSubstr("1 of 2 pipelines placed"));
  EXPECT_THAT(placement.refusal, HasSubstr("1020000000 bytes"));
}

TEST(PlacementTest, TooLittleMemoryIsRefusedNamingBytesNeededAndAvailable) {
  const ModelCosts costs = Model(4);
  const int64_t needed = StageMemoryBytes(costs, {0, 4}, 1024);
  std::vector<PlacementWorker> workers{Worker("a", needed)};
  EXPECT_THAT(Place(costs, workers, Goals(1)).pipelines, SizeIs(1));
  workers[0].memory_bytes = needed - 1;
  const Placement placement = Place(costs, workers, Goals(1));
  EXPECT_THAT(placement.pipelines, IsEmpty());
  EXPECT_THAT(placement.refusal, HasSubstr(std::to_string(needed)));
  EXPECT_THAT(placement.refusal, HasSubstr(std::to_string(needed - 1)));
}

TEST(PlacementTest, NoWorkerIsRefused) {
  const Placement placement = Place(Model(4), {}, Goals(0));
  EXPECT_THAT(placement.refusal, HasSubstr("no worker is free"));
}

TEST(PlacementTest, KvMemoryThatHoldsNoSequenceIsRefused) {
  PlacementGoals goals = Goals(2);
  goals.kv_memory_bytes = 1024 * 1000;  // one layer
  EXPECT_THAT(Place(Model(2), Workers(2), goals).pipelines, SizeIs(1));
  --goals.kv_memory_bytes;
  const Placement placement = Place(Model(2), Workers(2), goals);
  EXPECT_THAT(placement.refusal, HasSubstr("bounded by 1023999"));
}

TEST(PlacementTest, ALargerWorkerTakesMoreLayers) {
  const std::vector<PlacementWorker> workers{Worker("small", 40 * kMega), Worker("large")};
  const Placement placement = Place(Model(8), workers, Goals(2));
  ASSERT_THAT(placement.pipelines, SizeIs(1));
  ExpectCorrect(Model(8), workers, Goals(2), placement);
  for (const PlacedStage& stage : placement.pipelines[0]) {
    if (stage.worker == 0) {
      EXPECT_LE(stage.layers.size(), 3);
    }
  }
}

TEST(PlacementTest, AFasterWorkerTakesMoreLayers) {
  std::vector<PlacementWorker> workers = Workers(2);
  workers[1].read_bytes_per_second *= 3;
  workers[1].operations_per_second *= 3;
  const Placement placement = Place(Model(8), workers, Goals(2));
  for (const PlacedStage& stage : placement.pipelines[0]) {
    EXPECT_EQ(stage.layers.size(), stage.worker == 1 ? 6 : 2);
  }
}

TEST(PlacementTest, RatesWithinAQuarterOfEachOtherAreEqual) {
  std::vector<PlacementWorker> workers = Workers(5);
  const double read[] = {8.0e9, 1.0e10, 9.0e9, 7.9e9, 1.0e9};
  for (size_t i = 0; i < workers.size(); ++i) workers[i].read_bytes_per_second = read[i];
  workers[1].operations_per_second = 5e11;
  workers[2].backend_class = "cuda-sm90";
  TreatCloseRatesAsEqual(workers);
  EXPECT_EQ(workers[0].read_bytes_per_second, 8.0e9);
  EXPECT_EQ(workers[1].read_bytes_per_second, 8.0e9);
  EXPECT_EQ(workers[2].read_bytes_per_second, 9.0e9) << "of another class";
  EXPECT_EQ(workers[3].read_bytes_per_second, 7.9e9) << "more than a quarter below the fastest";
  EXPECT_EQ(workers[4].read_bytes_per_second, 1.0e9);
  EXPECT_EQ(workers[0].operations_per_second, 1e11);
  EXPECT_EQ(workers[1].operations_per_second, 5e11);
}

TEST(PlacementTest, EqualWorkersThatMeasuredALittleApartShareTheModelEvenly) {
  std::vector<PlacementWorker> workers = Workers(2);
  workers[0].read_bytes_per_second *= 1.24;
  workers[0].operations_per_second *= 0.81;
  TreatCloseRatesAsEqual(workers);
  const Placement placement = Place(Model(8), workers, Goals(2));
  ASSERT_THAT(placement.pipelines, SizeIs(1));
  EXPECT_EQ(placement.pipelines[0][0].layers, (LayerRange{0, 4}));
}

TEST(PlacementTest, APipelineIsOfOneBackendClassUnlessMixIsAllowed) {
  std::vector<PlacementWorker> workers{Worker("a", 60 * kMega), Worker("b", 60 * kMega)};
  workers[1].backend_class = "cuda-sm90";
  PlacementGoals goals = Goals(2);
  EXPECT_THAT(Place(Model(8), workers, goals).pipelines, IsEmpty());
  goals.mixing = BackendMixing::kAnyClass;
  EXPECT_THAT(Place(Model(8), workers, goals).pipelines, SizeIs(1));
}

// More workers than are searched in every order.
TEST(PlacementTest, ManyWorkersOfTwoClassesHoldTogetherWhatNeitherClassCan) {
  std::vector<PlacementWorker> workers;
  for (int i = 0; i < kExactPlacementWorkers + 2; ++i) {
    workers.push_back(Worker("w" + std::to_string(i), 20 * kMega));
    if (i % 2 == 0) workers.back().backend_class = "cuda-sm90";
  }
  PlacementGoals goals = Goals(static_cast<int>(workers.size()));
  EXPECT_THAT(Place(Model(8), workers, goals).pipelines, IsEmpty());
  goals.mixing = BackendMixing::kAnyClass;
  const Placement placement = Place(Model(8), workers, goals);
  ASSERT_THAT(placement.pipelines, SizeIs(1));
  EXPECT_GE(placement.pipelines[0].size(), 8u);
}

TEST(PlacementTest, WhatAWorkersBackendKeepsForItselfIsNotGivenAway) {
  const int64_t needed = StageMemoryBytes(Model(4), {0, 4}, 1024);
  std::vector<PlacementWorker> workers{Worker("a", needed + kMega)};
  workers[0].kept_bytes = kMega;
  EXPECT_THAT(Place(Model(4), workers, Goals(1)).pipelines, SizeIs(1));
  ++workers[0].kept_bytes;
  const Placement refused = Place(Model(4), workers, Goals(1));
  EXPECT_THAT(refused.pipelines, IsEmpty());
  EXPECT_THAT(refused.refusal, HasSubstr("each keeps 1000001 for its threads"));
}

TEST(PlacementTest, SurvivorsKeepTheirLayersAndASpareTakesTheLostOnes) {
  std::vector<PlacementWorker> workers = Workers(3);
  workers[0].holds = {0, 3};
  workers[2].holds = {6, 8};
  const Placement placement = Place(Model(8), workers, Goals(3));
  ASSERT_THAT(placement.pipelines, SizeIs(1));
  EXPECT_THAT(
      placement.pipelines[0],
      testing::ElementsAre(PlacedStage{0, {0, 3}}, PlacedStage{1, {3, 6}}, PlacedStage{2, {6, 8}}));
  EXPECT_EQ(placement.moved_bytes, 30 * kMega);
}

TEST(PlacementTest, KeepingLayersIsNotWorthMoreThanTheTolerance) {
  std::vector<PlacementWorker> workers = Workers(2);
  workers[0].holds = {0, 6};  // 60 % slower than the best cut
  const Placement placement = Place(Model(8), workers, Goals(2));
  ASSERT_THAT(placement.pipelines, SizeIs(1));
  EXPECT_EQ(placement.pipelines[0][0].layers, (LayerRange{0, 4}));
}

TEST(PlacementTest, FewestStagesAmongEquallyFast) {
  // Five layers on four workers: one stage has two layers however they are cut.
  ModelCosts costs = Model(5);
  costs.head_bytes = costs.embedding_bytes = costs.shared_bytes = 0;
  costs.head_operations_per_token = 0;
  const Placement placement = Place(costs, Workers(4), Goals(4));
  ASSERT_THAT(placement.pipelines, SizeIs(1));
  EXPECT_THAT(placement.pipelines[0], SizeIs(3));
}

TEST(PlacementTest, ManyWorkersAreUsedBeyondTheExactSearch) {
  for (int count : {kExactPlacementWorkers, kExactPlacementWorkers + 1, 40}) {
    const ModelCosts costs = Model(80);
    const std::vector<PlacementWorker> workers = Workers(count);
    PlacementGoals goals = Goals(count);
    goals.replicas = 2;
    const Placement placement = Place(costs, workers, goals);
    ASSERT_THAT(placement.pipelines, SizeIs(2)) << count;
    ExpectCorrect(costs, workers, goals, placement);
    for (const PlacedPipeline& pipeline : placement.pipelines) {
      EXPECT_GE(static_cast<int>(pipeline.size()), count / 2 - 4);
    }
  }
}

// --- Against brute force over every order of workers and every cut.

struct Found {
  double slowest = std::numeric_limits<double>::infinity();
  int64_t moved = std::numeric_limits<int64_t>::max();
  int stages = std::numeric_limits<int>::max();
};

class BruteForce {
 public:
  using Visit = std::function<void(double slowest, int64_t moved, int stages)>;

  BruteForce(const ModelCosts& costs, const std::vector<PlacementWorker>& workers,
             const PlacementGoals& goals)
      : costs_(costs), workers_(workers), goals_(goals), used_(workers.size(), false) {}

  void ForEach(const Visit& visit) { Extend({}, 0, 0, visit); }

 private:
  struct Partial {
    double slowest = 0;
    int64_t moved = 0;
    int stages = 0;
    int pipelines = 0;
    std::string backend_class;
  };

  void Extend(const Partial& partial, int layer, int stages, const Visit& visit) {
    if (partial.pipelines == goals_.replicas) {
      visit(partial.slowest, partial.moved, partial.stages);
      return;
    }
    if (partial.stages == goals_.max_workers) return;
    for (size_t w = 0; w < workers_.size(); ++w) {
      if (used_[w]) continue;
      if (layer > 0 && workers_[w].backend_class != partial.backend_class) continue;
      used_[w] = true;
      for (int last = layer + 1; last <= costs_.num_layers(); ++last) {
        TryStage(partial, {layer, last}, w, stages + 1, visit);
      }
      used_[w] = false;
    }
  }

  void TryStage(Partial partial, LayerRange layers, size_t w, int stages, const Visit& visit) {
    if (StageMemoryBytes(costs_, layers, goals_.kv_tokens) > workers_[w].memory_bytes) return;
    const bool ends = layers.last == costs_.num_layers();
    if (ends && goals_.stages > 0 && stages != goals_.stages) return;
    partial.slowest = std::max(partial.slowest, StageSeconds(costs_, workers_[w], layers));
    if (workers_[w].holds != layers) partial.moved += StageWeightBytes(costs_, layers);
    ++partial.stages;
    partial.pipelines += ends;
    partial.backend_class = workers_[w].backend_class;
    Extend(partial, ends ? 0 : layers.last, ends ? 0 : stages, visit);
  }

  const ModelCosts& costs_;
  const std::vector<PlacementWorker>& workers_;
  const PlacementGoals& goals_;
  std::vector<bool> used_;
};

Found Best(const ModelCosts& costs, const std::vector<PlacementWorker>& workers,
           const PlacementGoals& goals) {
  Found best;
  BruteForce(costs, workers, goals).ForEach([&](double slowest, int64_t, int) {
    best.slowest = std::min(best.slowest, slowest);
  });
  const double limit = best.slowest * kPlacementTolerance;
  Found cheapest;
  BruteForce(costs, workers, goals).ForEach([&](double slowest, int64_t moved, int stages) {
    if (slowest > limit) return;
    if (std::tie(moved, stages, slowest) <
        std::tie(cheapest.moved, cheapest.stages, cheapest.slowest)) {
      cheapest = {slowest, moved, stages};
    }
  });
  return cheapest;
}

template <class Random>
ModelCosts RandomModel(Random& random) {
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  ModelCosts costs = Model(draw(1, 5));
  for (LayerCosts& layer : costs.layers) {
    layer = {.weight_bytes = draw(1, 20) * kMega,
             .kv_bytes_per_token = draw(0, 4000),
             .operations_per_token = draw(1, 100) * 1e6};
  }
  costs.hidden_bytes_per_token = draw(0, 1) * 1'000'000;
  return costs;
}

TEST(PlacementTest, EqualsBruteForceOnSmallCases) {
  std::mt19937 random(7);
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  int placed = 0;
  for (int round = 0; round < 600; ++round) {
    const ModelCosts costs = RandomModel(random);
    std::vector<PlacementWorker> workers = Workers(draw(1, 4));
    for (PlacementWorker& worker : workers) {
      worker.memory_bytes = draw(10, 120) * kMega;
      worker.read_bytes_per_second = draw(1, 5) * 1e9;
      worker.operations_per_second = draw(1, 5) * 1e10;
      if (draw(0, 3) == 0) worker.backend_class = "cuda-sm90";
      const int first = draw(0, costs.num_layers() - 1);
      if (draw(0, 1) == 0) worker.holds = {first, draw(first + 1, costs.num_layers())};
    }
    PlacementGoals goals = Goals(draw(1, static_cast<int>(workers.size())));
    goals.replicas = draw(1, 2);
    goals.stages = draw(0, 2);
    const Placement placement = Place(costs, workers, goals);
    ExpectCorrect(costs, workers, goals, placement);
    const Found best = Best(costs, workers, goals);
    const bool possible = best.stages != std::numeric_limits<int>::max();
    ASSERT_EQ(placement.refusal.empty(), possible) << round << ": " << placement.refusal;
    if (!possible) continue;
    ++placed;
    int stages = 0;
    for (const PlacedPipeline& pipeline : placement.pipelines) {
      stages += static_cast<int>(pipeline.size());
    }
    EXPECT_EQ(placement.moved_bytes, best.moved) << round;
    EXPECT_EQ(stages, best.stages) << round;
    EXPECT_DOUBLE_EQ(placement.slowest_stage_seconds, best.slowest) << round;
  }
  EXPECT_GT(placed, 100);
}

}  // namespace
}  // namespace sauva
