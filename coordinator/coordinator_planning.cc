// Which pipelines to make, and on whom.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/coordinator.h"
#include "proto/stage.h"

namespace sauva {

using Level = LogNote::Level;

namespace {

// What the backend of a worker keeps of its memory for steps.
int64_t KeptBytes(const ModelDescription& model, const WorkerHello& worker) {
  if (worker.backend_class == "cpu") return model.scratch.BytesOnCpu(worker.threads);
  return worker.backend_class.starts_with("cuda") ? model.scratch.MostBytesOnGpu() : 0;
}

}  // namespace

void Coordinator::Plan() {
  if (shutting_down_ || now_ < plan_at_ || !MayPlace()) return;
  plan_at_ = absl::InfiniteFuture();
  if (WaitsForTheSilent()) return;
  for (auto& [name, model] : models_) PlanModel(model);
}

// Serving workers shall have had the time to report before anything is placed.
bool Coordinator::MayPlace() {
  if (placing_) return true;
  const bool all_here =
      config_.expected_workers > 0 && static_cast<int>(workers_.size()) >= config_.expected_workers;
  if (now_ < started_at_ + 2 * config_.lease && !all_here) {
    plan_at_ = started_at_ + 2 * config_.lease;
    return false;
  }
  return placing_ = true;
}

// A worker whose pipeline ended is placed again only once it is heard, since it may be dead
// or frozen. As a rule it is well, answers at once, and has its layers in memory: that is
// worth a short wait, except for one that was blamed repeatedly.
bool Coordinator::WaitsForTheSilent() {
  for (const auto& [id, worker] : workers_) {
    if (!worker.silent_since || worker.offences > 1) continue;
    const absl::Time patience = *worker.silent_since + 2 * config_.heartbeat;
    if (now_ >= patience) continue;
    PlanAgainAt(patience);
    return true;
  }
  return false;
}

// Connected, in no pipeline, not to be spared for any reason.
std::vector<const WorkerRecord*> Coordinator::FreeWorkers() {
  std::vector<const WorkerRecord*> free;
  for (const auto& [id, worker] : workers_) {
    if (!worker.connected() || worker.epoch != 0 || worker.orphan) continue;
    if (worker.draining || worker.silent_since) continue;
    if (now_ < worker.not_before) {
      PlanAgainAt(worker.not_before);
      continue;
    }
    free.push_back(&worker);
  }
  return free;
}

void Coordinator::PlanModel(ModelRecord& model) {
  if (NumReplicas(model) >= model.replicas) return;
  if (now_ < model.not_before) return PlanAgainAt(model.not_before);
  const bool may_be_adopted = std::ranges::any_of(workers_, [&](const auto& entry) {
    const std::optional<StageReport>& orphan = entry.second.orphan;
    return orphan && orphan->assignment.model == model.ref();
  });
  if (may_be_adopted) return;  // planned again when that is decided
  const std::vector<const WorkerRecord*> free = FreeWorkers();
  const Placement placement = PlaceOn(model, free);
  if (placement.pipelines.empty() && MoveOffDraining(model, free)) return;
  if (!placement.refusal.empty()) {
    ++counters_.placement_refusals;
    if (model.placement_error != placement.refusal) {
      Log(Level::kWarning, "placement refused",
          {{"model", model.ref().name}, {"reason", placement.refusal}});
    }
    // The reason a load failed stays visible until something is placed again.
    if (model.failures == 0 || !placement.pipelines.empty() || model.placement_error.empty()) {
      model.placement_error = placement.refusal;
    }
  }
  CreateAll(model, placement, free);
}

PlacementGoals Coordinator::GoalsFor(const ModelRecord& model, int num_workers) const {
  // A lost pipeline is replaced at its old size even if that takes a spare: that is what
  // spares are for.
  const int replaced = std::min(num_workers, model.target_workers - WorkersOf(model));
  const int max_context = model.description.max_context;
  return {.replicas = model.replicas - NumReplicas(model),
          .stages = config_.stages,
          .max_workers = std::max(num_workers - config_.spares, replaced),
          .kv_tokens = (max_context + kKvBlockTokens - 1) / kKvBlockTokens * kKvBlockTokens,
          .kv_memory_bytes = static_cast<int64_t>(config_.kv_memory_bytes),
          .mixing = config_.mixing};
}

Placement Coordinator::PlaceOn(const ModelRecord& model,
                               const std::vector<const WorkerRecord*>& workers) {
  std::vector<PlacementWorker> candidates;
  for (const WorkerRecord* worker : workers) {
    const bool holds = worker->held.digest == model.ref().digest &&
                       worker->held.weight_format == config_.weight_format;
    candidates.push_back({.id = worker->id(),
                          .backend_class = worker->hello.backend_class,
                          .memory_bytes = static_cast<int64_t>(worker->hello.memory_bytes),
                          .kept_bytes = KeptBytes(model.description, worker->hello),
                          .read_bytes_per_second = worker->hello.read_bytes_per_second,
                          .operations_per_second = worker->hello.operations_per_second,
                          .link_bytes_per_second = worker->hello.link_bytes_per_second,
                          .holds = holds ? worker->held.layers : LayerRange{}});
  }
  TreatCloseRatesAsEqual(candidates);
  PlacementGoals goals = GoalsFor(model, static_cast<int>(workers.size()));
  ++counters_.placements;
  Placement placement = Place(model.description.costs, candidates, goals);
  if (!placement.pipelines.empty() || goals.stages == 0 || !model.was_served) return placement;
  // Serving with fewer stages than asked for is better than not serving any more.
  goals.stages = 0;
  Placement smaller = Place(model.description.costs, candidates, goals);
  if (smaller.pipelines.empty()) return placement;
  Log(Level::kWarning, "fewer stages than asked for",
      {{"model", model.ref().name},
       {"stages", config_.stages},
       {"placed", smaller.pipelines[0].size()}});
  return smaller;
}

// Where a pipeline retires for a draining worker and no spare can take over, its other
// workers do: the streams move. True if so.
bool Coordinator::MoveOffDraining(ModelRecord& model, std::vector<const WorkerRecord*> workers) {
  for (auto& [epoch, pipeline] : pipelines_) {
    if (!pipeline.retiring || pipeline.assignment.model != model.ref()) continue;
    if (HasOtherReady(pipeline)) continue;
    for (const StageEndpoint& stage : pipeline.stages()) {
      const WorkerRecord& worker = workers_.at(stage.worker_id);
      if (worker.connected() && !worker.draining) workers.push_back(&worker);
    }
    const Placement placement = PlaceOn(model, workers);
    if (placement.pipelines.empty()) return false;
    // What serves is ended for nothing but what can be made.
    const auto stages = LinkedStages(model, placement.pipelines[0], workers);
    if (!stages.ok()) {
      RefuseLinks(model, stages.status());
      return true;
    }
    End(epoch, "moves off a draining worker");
    PlanModel(model);
    return true;
  }
  return false;
}

void Coordinator::CreateAll(ModelRecord& model, const Placement& placement,
                            const std::vector<const WorkerRecord*>& workers) {
  counters_.moved_bytes += static_cast<uint64_t>(placement.moved_bytes);
  for (const PlacedPipeline& placed : placement.pipelines) {
    const absl::StatusOr<std::vector<StageEndpoint>> stages = LinkedStages(model, placed, workers);
    if (!stages.ok()) return RefuseLinks(model, stages.status());
    Create(model, *stages);
  }
  if (NumReplicas(model) >= model.replicas) {
    model.target_workers = std::max(model.target_workers, WorkersOf(model));
  }
}

// The stages of a pipeline with their donors and links. Errors: as ChooseLinks.
absl::StatusOr<std::vector<StageEndpoint>> Coordinator::LinkedStages(
    const ModelRecord& model, const PlacedPipeline& placed,
    const std::vector<const WorkerRecord*>& workers) const {
  std::vector<StageEndpoint> stages;
  std::vector<const WorkerHello*> hellos;
  for (const PlacedStage& stage : placed) {
    const WorkerHello& hello = workers[stage.worker]->hello;
    stages.push_back({hello.worker_id, hello.address, stage.layers});
    stages.back().donor = DonorFor(model, *workers[stage.worker], stage.layers);
    hellos.push_back(&hello);
  }
  RETURN_IF_ERROR(ChooseLinks(config_.link, hellos, link_failures_, now_, stages));
  return stages;
}

// A worker of a serving pipeline that has these layers at hand and can send them by NCCL; the
// address, or nothing. Nobody is needed by a worker that holds them itself.
std::string Coordinator::DonorFor(const ModelRecord& model, const WorkerRecord& worker,
                                  LayerRange layers) const {
  const bool holds = worker.held.digest == model.ref().digest && worker.held.layers == layers;
  if (holds || config_.link == LinkPolicy::kGrpc) return "";
  for (const auto& [epoch, pipeline] : pipelines_) {
    if (!pipeline.ready() || pipeline.assignment.model != model.ref()) continue;
    for (const StageEndpoint& stage : pipeline.stages()) {
      if (stage.layers.first > layers.first || stage.layers.last < layers.last) continue;
      const WorkerRecord* donor = FindWorker(stage.worker_id);
      if (donor == nullptr || !donor->connected() || donor->draining) continue;
      const LinkEnds ends{donor->hello, worker.hello};
      if (CheckNcclLink(ends, link_failures_, now_).ok()) return stage.address;
    }
  }
  return "";
}

// Other workers may come, or these with another NCCL.
void Coordinator::RefuseLinks(ModelRecord& model, const absl::Status& reason) {
  ++counters_.placement_refusals;
  model.placement_error = absl::StrCat("--link nccl: ", reason.message());
  model.not_before = now_ + Backoff(++model.failures);
  PlanAgainAt(model.not_before);
  Log(Level::kWarning, "placement refused",
      {{"model", model.ref().name}, {"reason", model.placement_error}});
}

// The first failure costs no wait; each further one twice as much as the one before.
absl::Duration Coordinator::Backoff(int failures) const {
  if (failures <= 0) return absl::ZeroDuration();
  absl::Duration backoff = config_.first_backoff;
  for (int i = 1; i < failures && backoff < config_.max_backoff; ++i) backoff *= 2;
  return std::min(backoff, config_.max_backoff);
}

}  // namespace sauva
