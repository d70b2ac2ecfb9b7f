#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "proto/control.h"

// Which worker serves which layers: a pure function of costs, workers and goals.
namespace sauva {

struct LayerCosts {
  int64_t weight_bytes = 0;
  int64_t kv_bytes_per_token = 0;
  double operations_per_token = 0;
};

// What a model asks of the workers that serve it.
struct ModelCosts {
  std::vector<LayerCosts> layers;
  int64_t embedding_bytes = 0;  // on the first stage; gathered, so never streamed
  int64_t head_bytes = 0;       // on the last stage, the final norm counted in
  int64_t shared_bytes = 0;     // of both, held once where one stage is first and last
  double head_operations_per_token = 0;
  int64_t hidden_bytes_per_token = 0;  // on the link between two stages
  int64_t scratch_bytes = 0;           // activations of any stage
  int64_t last_scratch_bytes = 0;      // logits, on the last stage only

  int num_layers() const { return static_cast<int>(layers.size()); }
};

struct PlacementWorker {
  std::string id;
  std::string backend_class;
  int64_t memory_bytes = 0;
  int64_t kept_bytes = 0;  // of them, by its backend for itself, whatever the stage
  double read_bytes_per_second = 0;
  double operations_per_second = 0;
  double link_bytes_per_second = 0;
  LayerRange holds;  // weights of this model it has in memory; empty: none
};

enum class BackendMixing { kOneClass, kAnyClass };

struct PlacementGoals {
  int replicas = 1;
  int stages = 0;               // of each pipeline; 0: what is best
  int max_workers = 0;          // over all pipelines; the others stay spare
  int kv_tokens = 0;            // each stage's KV cache holds at least so many
  int64_t kv_memory_bytes = 0;  // bound for a stage's KV cache; 0: none
  BackendMixing mixing = BackendMixing::kOneClass;
};

struct PlacedStage {
  int worker = 0;  // index into the workers given
  LayerRange layers;
  bool operator==(const PlacedStage&) const = default;
};
using PlacedPipeline = std::vector<PlacedStage>;  // in layer order

struct Placement {
  std::vector<PlacedPipeline> pipelines;  // at most goals.replicas, on disjoint workers
  double slowest_stage_seconds = 0;
  int64_t moved_bytes = 0;  // weights that workers must read anew
  std::string refusal;      // why there are fewer pipelines than asked for; empty: none
};

// Among placements whose slowest stage is within kPlacementTolerance of the best one's,
// the one that reads the fewest weight bytes anew wins, then the one with the fewest
// stages, then the one with the fastest slowest stage.
inline constexpr double kPlacementTolerance = 1.10;

// Tokens of the step that a stage's time is judged by: a decode step of a few streams.
inline constexpr int kPlacementStepTokens = 8;

// Up to so many workers every order and subset is considered; beyond, workers are taken in
// the order of the layers they hold, then by speed.
inline constexpr int kExactPlacementWorkers = 10;

// Time and memory of one stage on one worker.
// Units: seconds of a step of kPlacementStepTokens tokens; bytes.
double StageSeconds(const ModelCosts& costs, const PlacementWorker& worker, LayerRange layers);
int64_t StageWeightBytes(const ModelCosts& costs, LayerRange layers);
int64_t StageMemoryBytes(const ModelCosts& costs, LayerRange layers, int kv_tokens);

// Rates so close are one rate measured twice: each takes a moment on a machine that does
// other work too, and a cut of the model shall not hang on that.
inline constexpr double kEqualRates = 1.25;

// Gives workers of one backend class whose rates differ by no more than kEqualRates the
// slowest of these rates, each kind of rate by itself, from the fastest worker down.
void TreatCloseRatesAsEqual(std::span<PlacementWorker> workers);

// Cuts the model into contiguous ranges for as many of goals.replicas pipelines as fit.
// A worker reads its weights anew unless it holds exactly the range it is given.
Placement Place(const ModelCosts& costs, std::span<const PlacementWorker> workers,
                const PlacementGoals& goals);

}  // namespace sauva
