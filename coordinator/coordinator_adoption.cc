// Pipelines of an earlier coordinator that serve on.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "coordinator/coordinator.h"

namespace sauva {

using Level = LogNote::Level;

// A worker reports a stage of an epoch that this coordinator does not lead.
void Coordinator::TakeOrphan(WorkerRecord& worker, const StageReport& report) {
  const StageAssignment& assignment = report.assignment;
  if (assignment.epoch < kEpochLimit) next_epoch_ = std::max(next_epoch_, assignment.epoch + 1);
  ModelRecord* model = FindModelByDigest(assignment.model.digest);
  if (!worker.orphan) worker.orphan_since = now_;
  worker.orphan = report;
  if (ended_.contains(assignment.epoch)) {
    ReleaseOrphan(worker, "this epoch has ended");
  } else if (model == nullptr) {
    const auto named = models_.find(assignment.model.name);
    ReleaseOrphan(worker, absl::StrCat("model ", assignment.model.name, " has digest ",
                                       assignment.model.digest, ", this coordinator serves ",
                                       named == models_.end() ? "no such model"
                                                              : named->second.ref().digest));
  } else if (report.phase == StagePhase::kFailed ||
             assignment.stage_index >= static_cast<int>(assignment.stages.size()) ||
             assignment.stages[assignment.stage_index].worker_id != worker.id()) {
    ReleaseOrphan(worker, "its stage does not serve");
  } else {
    model->was_served = true;
    AdoptIfComplete(assignment);
  }
}

void Coordinator::AdoptIfComplete(const StageAssignment& assignment) {
  PipelineRecord pipeline{.assignment = assignment,
                          .phase = PipelineRecord::Phase::kReady,
                          .reports = {},
                          .created_at = now_,
                          .ready_at = now_,
                          .retire_deadline = absl::InfiniteFuture()};
  pipeline.assignment.stage_index = 0;
  for (size_t i = 0; i < assignment.stages.size(); ++i) {
    const WorkerRecord* worker = FindWorker(assignment.stages[i].worker_id);
    if (worker == nullptr || !worker->connected() || !worker->orphan) return;
    const StageReport& report = *worker->orphan;
    StageAssignment as_head = report.assignment;
    as_head.stage_index = 0;
    if (as_head != pipeline.assignment || report.phase != StagePhase::kServing ||
        report.assignment.stage_index != static_cast<int>(i)) {
      return;
    }
    pipeline.reports.push_back(report);
  }
  pipeline.num_kv_blocks = pipeline.reports[0]->num_kv_blocks;
  for (const StageEndpoint& stage : assignment.stages) {
    WorkerRecord& worker = workers_.at(stage.worker_id);
    worker.orphan.reset();
    worker.epoch = assignment.epoch;
    Hold(worker, assignment, stage.layers);
  }
  ++counters_.epochs_adopted;
  Log(Level::kInfo, "pipeline adopted",
      {{"epoch", assignment.epoch},
       {"model", assignment.model.name},
       {"stages", assignment.stages.size()}});
  pipelines_.emplace(assignment.epoch, std::move(pipeline));
  ModelRecord& model = *FindModelByDigest(assignment.model.digest);
  model.target_workers = std::max(model.target_workers, WorkersOf(model));
  if (NumReplicas(model) >= model.replicas) model.placement_error.clear();
  PlanAgainAt(now_);
  ServeWaiting();
}

// False once every expected worker is there and one that the pipeline needs is not.
bool Coordinator::CanStillComplete(const StageAssignment& assignment) const {
  if (config_.expected_workers == 0 ||
      static_cast<int>(workers_.size()) < config_.expected_workers) {
    return true;
  }
  return std::ranges::all_of(assignment.stages, [&](const StageEndpoint& stage) {
    const WorkerRecord* worker = FindWorker(stage.worker_id);
    return worker != nullptr && worker->orphan &&
           worker->orphan->assignment.epoch == assignment.epoch;
  });
}

void Coordinator::ReleaseOrphans() {
  for (auto& [id, worker] : workers_) {
    if (!worker.orphan) continue;
    if (ended_.contains(worker.orphan->assignment.epoch)) {
      ReleaseOrphan(worker, "another stage of its pipeline has ended");
    } else if (!CanStillComplete(worker.orphan->assignment)) {
      ReleaseOrphan(worker, "a worker of its pipeline is gone");
    } else if (now_ - worker.orphan_since >= 2 * config_.lease) {
      ReleaseOrphan(worker, "the rest of its pipeline did not report within two leases");
    }
  }
}

void Coordinator::ReleaseOrphan(WorkerRecord& worker, const std::string& reason) {
  const StageAssignment assignment = std::move(worker.orphan->assignment);
  worker.orphan.reset();
  if (assignment.stage_index < static_cast<int>(assignment.stages.size())) {
    Hold(worker, assignment, assignment.layers());
  }
  RememberEnded(assignment.epoch);
  Log(Level::kInfo, "stage not adopted",
      {{"worker", worker.id()}, {"epoch", assignment.epoch}, {"reason", reason}});
  Send(worker, StopStage{.epoch = assignment.epoch, .reason = reason});
  PlanAgainAt(now_);
}

}  // namespace sauva
