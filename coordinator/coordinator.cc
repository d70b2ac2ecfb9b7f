#include "coordinator/coordinator.h"

#include <utility>

#include "base/check.h"

namespace sauva {

Coordinator::Coordinator(CoordinatorConfig config)
    : config_(std::move(config)),
      link_failures_(config_.link_failures),
      waiting_(config_.max_waiting),
      next_epoch_((config_.start_time_ms << 20) + 1) {}

CoordinatorEffects Coordinator::OnEvent(const CoordinatorEvent& event, absl::Time now) {
  Check(now >= last_event_at_, "time never goes back");
  now_ = now;
  if (started_at_ == absl::InfiniteFuture()) {
    started_at_ = now;
    PlanAgainAt(now + 2 * config_.lease);
  } else {
    ForgiveAbsence();
  }
  last_event_at_ = now;
  std::visit([this](const auto& e) { Handle(e); }, event);
  Plan();
  return std::exchange(effects_, {});
}

void Coordinator::Handle(const CoordinatorTick&) {
  ExpireLeases();
  ReleaseOrphans();
  ForgiveAfterServingWell();
  EndIdleAndOverdue();
  FinishDrains();
  ExpireDispatches();
}

// A coordinator that was itself frozen or starved heard nobody: what its workers sent
// meanwhile is still to be read, so no lease runs out on account of that time.
void Coordinator::ForgiveAbsence() {
  const absl::Duration absence = now_ - last_event_at_;
  if (absence <= config_.lease / 2) return;
  for (auto& [id, worker] : workers_) {
    worker.last_heard += absence;
    if (!worker.connected()) worker.gone_at += absence;
  }
}

ClusterStatus Coordinator::Status(absl::Time now) const {
  ClusterStatus status;
  status.build_id = config_.build_id;
  status.waiting_dispatches = static_cast<uint32_t>(waiting_.size());
  for (const auto& [id, worker] : workers_) {
    status.workers.push_back({.hello = worker.hello,
                              .last_heartbeat_ms = static_cast<uint32_t>(std::max<int64_t>(
                                  0, absl::ToInt64Milliseconds(now - worker.last_heard))),
                              .draining = worker.draining,
                              .epoch = worker.epoch});
  }
  status.avoided_links = link_failures_.List(now);
  for (const auto& [epoch, pipeline] : pipelines_) {
    PipelineStatus shown{.epoch = epoch,
                         .model = pipeline.assignment.model,
                         .ready = pipeline.ready(),
                         .numerics_id = pipeline.assignment.numerics_id,
                         .stages = {}};
    for (size_t i = 0; i < pipeline.stages().size(); ++i) {
      const StageEndpoint& endpoint = pipeline.stages()[i];
      const WorkerRecord* worker = FindWorker(endpoint.worker_id);
      shown.stages.push_back({.endpoint = endpoint,
                              .report = pipeline.reports[i].value_or(StageReport{}),
                              .metrics_address = worker ? worker->hello.metrics_address : ""});
    }
    status.pipelines.push_back(std::move(shown));
  }
  for (const auto& [name, model] : models_) {
    const auto ready = std::ranges::count_if(pipelines_, [&](const auto& entry) {
      return entry.second.ready() && entry.second.assignment.model == model.ref();
    });
    status.models.push_back({.model = model.ref(),
                             .max_context = static_cast<uint32_t>(model.description.max_context),
                             .vocab_size = static_cast<uint32_t>(model.description.vocab_size),
                             .ready_pipelines = static_cast<uint32_t>(ready)});
    if (status.placement_error.empty()) status.placement_error = model.placement_error;
  }
  return status;
}

int Coordinator::num_ready_pipelines() const {
  return static_cast<int>(
      std::ranges::count_if(pipelines_, [](const auto& entry) { return entry.second.ready(); }));
}

PipelineRecord* Coordinator::FindPipeline(uint64_t epoch) {
  const auto found = pipelines_.find(epoch);
  return found == pipelines_.end() ? nullptr : &found->second;
}

WorkerRecord* Coordinator::FindWorker(const std::string& worker_id) {
  const auto found = workers_.find(worker_id);
  return found == workers_.end() ? nullptr : &found->second;
}

const WorkerRecord* Coordinator::FindWorker(const std::string& worker_id) const {
  const auto found = workers_.find(worker_id);
  return found == workers_.end() ? nullptr : &found->second;
}

ModelRecord* Coordinator::FindModelByDigest(const std::string& digest) {
  for (auto& [name, model] : models_) {
    if (model.ref().digest == digest) return &model;
  }
  return nullptr;
}

int Coordinator::NumReplicas(const ModelRecord& model) const {
  return static_cast<int>(std::ranges::count_if(pipelines_, [&](const auto& entry) {
    return !entry.second.retiring && entry.second.assignment.model == model.ref();
  }));
}

int Coordinator::WorkersOf(const ModelRecord& model) const {
  int count = 0;
  for (const auto& [epoch, pipeline] : pipelines_) {
    if (!pipeline.retiring && pipeline.assignment.model == model.ref()) {
      count += static_cast<int>(pipeline.stages().size());
    }
  }
  return count;
}

void Coordinator::Send(const WorkerRecord& worker, WorkerCommand command) {
  if (worker.connected()) effects_.push_back(SendToWorker{worker.connection, std::move(command)});
}

void Coordinator::Log(LogNote::Level level, std::string event, std::vector<LogField> fields) {
  effects_.push_back(LogNote{level, std::move(event), std::move(fields)});
}

}  // namespace sauva
