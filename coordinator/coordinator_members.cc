// Workers come, report and go.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "coordinator/coordinator.h"

namespace sauva {

using Level = LogNote::Level;

void Coordinator::Handle(const WorkerJoined& event) {
  if (absl::Status status = CheckHello(event.hello); !status.ok()) {
    ++counters_.refusals[absl::StatusCodeToString(status.code())];
    Log(Level::kWarning, "worker refused",
        {{"worker", event.hello.worker_id}, {"reason", status.ToString()}});
    effects_.push_back(CloseConnection{event.connection, std::move(status)});
    return;
  }
  WorkerRecord& worker = Admit(event);
  Send(worker,
       Welcome{.protocol_version = kProtocolVersion,
               .lease_ms = static_cast<int>(absl::ToInt64Milliseconds(config_.lease)),
               .heartbeat_ms = static_cast<int>(absl::ToInt64Milliseconds(config_.heartbeat))});
  Log(Level::kInfo, "worker joined",
      {{"worker", worker.id()},
       {"address", worker.hello.address},
       {"backend", worker.hello.backend_class},
       {"memory_bytes", worker.hello.memory_bytes},
       {"serves_epoch", event.hello.stage ? event.hello.stage->assignment.epoch : 0}});
  PlanAgainAt(now_);
  Reconcile(worker, event.hello.stage);
}

absl::Status Coordinator::CheckHello(const WorkerHello& hello) const {
  if (hello.protocol_version != kProtocolVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("worker ", hello.worker_id, " speaks protocol version ",
                     hello.protocol_version, ", this coordinator ", kProtocolVersion));
  }
  if (hello.numerics_version != kNumericsVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("worker ", hello.worker_id, " has numerics version ", hello.numerics_version,
                     ", this coordinator ", kNumericsVersion));
  }
  if (hello.worker_id.empty()) return absl::InvalidArgumentError("worker_id is empty");
  if (hello.address.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("address of worker ", hello.worker_id, " is empty"));
  }
  if (hello.newest_epoch >= kEpochLimit) {
    return absl::InvalidArgumentError(absl::StrCat("newest_epoch of worker ", hello.worker_id,
                                                   " is ", hello.newest_epoch, ", the limit is ",
                                                   kEpochLimit));
  }
  if (!workers_.contains(hello.worker_id) &&
      static_cast<int>(workers_.size()) >= config_.max_workers) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "there are ", workers_.size(), " workers, the limit is ", config_.max_workers));
  }
  return absl::OkStatus();
}

WorkerRecord& Coordinator::Admit(const WorkerJoined& event) {
  // A port that answers under another name was left by the worker that had it.
  for (const auto& [id, other] : workers_) {
    if (id == event.hello.worker_id || other.hello.address != event.hello.address) continue;
    Lose(std::string(id), absl::StrCat("its address belongs to worker ", event.hello.worker_id));
    break;
  }
  // A process that has seen no epoch is a new one; the end of the old one's stream may come later.
  if (event.hello.newest_epoch == 0) {
    Lose(event.hello.worker_id, "a process that has loaded nothing joined under its name");
  }
  WorkerRecord& worker = workers_[event.hello.worker_id];
  if (worker.connected()) {
    connections_.erase(worker.connection);
    effects_.push_back(CloseConnection{
        worker.connection, absl::AbortedError("the worker joined again on another stream")});
    // Commands on the old stream may be lost.
    const PipelineRecord* pipeline = FindPipeline(worker.epoch);
    if (pipeline != nullptr && !pipeline->ready()) {
      End(worker.epoch, absl::StrCat("worker ", worker.id(), " joined again while it loaded"));
    }
  }
  next_epoch_ = std::max(next_epoch_, event.hello.newest_epoch + 1);
  worker.hello = event.hello;
  worker.hello.stage.reset();
  worker.connection = event.connection;
  worker.last_heard = now_;
  worker.silent_since.reset();
  connections_[event.connection] = worker.id();
  return worker;
}

// The worker that speaks; null if its stream was replaced or refused meanwhile.
WorkerRecord* Coordinator::Hear(ConnectionId connection) {
  const auto found = connections_.find(connection);
  if (found == connections_.end()) return nullptr;
  WorkerRecord& worker = workers_.at(found->second);
  worker.last_heard = now_;
  if (worker.silent_since) {
    worker.silent_since.reset();
    PlanAgainAt(now_);
  }
  return &worker;
}

void Coordinator::Handle(const HeartbeatCame& event) {
  WorkerRecord* worker = Hear(event.connection);
  if (worker == nullptr) return;
  if (event.heartbeat.draining && !worker->draining) {
    BeginDrain(*worker, now_ + config_.drain_timeout);
  }
  Reconcile(*worker, event.heartbeat.stage);
}

void Coordinator::Handle(const ReportCame& event) {
  if (WorkerRecord* worker = Hear(event.connection)) Reconcile(*worker, event.report);
}

// Brings together what the worker says it serves and what it should serve. A worker hears
// commands and says what it does in order, so one that has loaded an epoch and then
// reports nothing or another epoch has dropped it.
void Coordinator::Reconcile(WorkerRecord& worker, const std::optional<StageReport>& report) {
  const uint64_t reported = report ? report->assignment.epoch : 0;
  if (worker.orphan && worker.orphan->assignment.epoch != reported) {
    ReleaseOrphan(worker, "its worker no longer serves it");
  }
  if (PipelineRecord* pipeline = FindPipeline(worker.epoch)) {
    const int stage_index = pipeline->StageOf(worker.id());
    std::optional<StageReport>& known = pipeline->reports[stage_index];
    if (reported == worker.epoch) {
      TakeReport(*pipeline, stage_index, *report);
    } else if (known && known->phase != StagePhase::kLoading) {
      End(worker.epoch, absl::StrCat("worker ", worker.id(), " no longer serves it"));
    }
    return;
  }
  if (reported != 0) TakeOrphan(worker, *report);
}

void Coordinator::Handle(const BreakCame& event) {
  const StageBroken& broken = event.broken;
  const WorkerRecord* reporter = Hear(event.connection);
  const PipelineRecord* pipeline = FindPipeline(broken.epoch);
  if (reporter == nullptr) return;
  if (pipeline == nullptr || reporter->epoch != broken.epoch) {
    return NoteLinkFailure(reporter->id(), broken);
  }
  const std::string reason =
      absl::StrCat("worker ", reporter->id(), " reports: ", broken.reason,
                   broken.suspect_worker_id.empty() ? "" : "; suspects ", broken.suspect_worker_id);
  const bool has_suspect = broken.suspect_worker_id != reporter->id() &&
                           pipeline->StageOf(broken.suspect_worker_id) >= 0;
  ModelRecord* model = FindModelByDigest(pipeline->assignment.model.digest);
  const std::string reporter_id = reporter->id();
  End(broken.epoch, reason);  // may lose the reporter, too
  NoteLinkFailure(reporter_id, broken);
  if (WorkerRecord* suspect = has_suspect ? FindWorker(broken.suspect_worker_id) : nullptr) {
    Blame(*suspect);
  } else if (model != nullptr) {
    model->not_before = now_ + Backoff(model->failures++);
  }
}

// An NCCL link over which no step has passed yet was never there: something between the two
// workers is in its way, and will be again. Its failure ends the pipeline, and another worker
// may have been quicker to say that it did.
void Coordinator::NoteLinkFailure(const std::string& reporter, const StageBroken& broken) {
  const auto ended = std::ranges::find(ended_links_, broken.epoch, &EndedLinks::epoch);
  if (!broken.nccl_link || ended == ended_links_.end() || ended->failure_noted) return;
  const int from = *broken.nccl_link;
  const int to = from + 1;
  if (from < 0 || to >= static_cast<int>(ended->stages.size())) return;
  const std::string& sender = ended->stages[from].worker_id;
  const std::string& receiver = ended->stages[to].worker_id;
  if (ended->stages[from].link != LinkKind::kNccl || ended->reached[to]) return;
  if (reporter != sender && reporter != receiver) return;
  if (FindWorker(sender) == nullptr || FindWorker(receiver) == nullptr) return;  // that was it
  ended->failure_noted = true;
  ++counters_.link_failures;
  if (!link_failures_.Add(sender, receiver, broken.reason, now_)) return;
  ++counters_.links_given_up;
  Log(Level::kWarning,
      config_.link == LinkPolicy::kNccl ? "NCCL cannot connect two workers"
                                        : "NCCL cannot connect two workers: their links go by gRPC",
      {{"worker", sender},
       {"other_worker", receiver},
       {"failures", config_.link_failures.tolerated},
       {"retry_after", absl::FormatDuration(config_.link_failures.retry_after)},
       {"reason", broken.reason}});
}

void Coordinator::Blame(WorkerRecord& suspect) {
  if (!suspect.connected()) {
    Lose(std::string(suspect.id()), "its stream ended and a neighbour cannot reach it");
    return;
  }
  suspect.not_before = now_ + Backoff(suspect.offences++);
}

void Coordinator::Handle(const WorkerGone& event) {
  const auto connection = connections_.find(event.connection);
  if (connection == connections_.end()) return;
  const std::string worker_id = connection->second;
  connections_.erase(connection);
  WorkerRecord& worker = workers_.at(worker_id);
  worker.connection = 0;
  worker.gone_at = now_;
  const PipelineRecord* pipeline = FindPipeline(worker.epoch);
  // Only streams of clients are worth waiting for.
  if (worker.draining || worker.silent_since || pipeline == nullptr || !pipeline->ready()) {
    Lose(worker_id, "its stream ended");
  }
}

void Coordinator::ExpireLeases() {
  std::vector<std::pair<std::string, std::string>> lost;
  for (const auto& [id, worker] : workers_) {
    if (!worker.connected()) {
      if (now_ - worker.gone_at >= config_.rejoin_grace) {
        lost.emplace_back(id, "its stream ended and it did not come back");
      }
    } else if (now_ - worker.last_heard > config_.lease) {
      lost.emplace_back(id,
                        absl::StrCat("silent for ", absl::FormatDuration(now_ - worker.last_heard),
                                     ", the lease is ", absl::FormatDuration(config_.lease)));
    }
  }
  for (const auto& [id, reason] : lost) Lose(id, reason);
}

void Coordinator::Lose(const std::string& worker_id, const std::string& reason) {
  const auto found = workers_.find(worker_id);
  if (found == workers_.end()) return;
  WorkerRecord worker = std::move(found->second);
  workers_.erase(found);
  ++counters_.workers_lost;
  link_failures_.Forget(worker.id());
  Log(Level::kWarning, "worker lost",
      {{"worker", worker.id()}, {"epoch", worker.epoch}, {"reason", reason}});
  if (worker.connected()) {
    connections_.erase(worker.connection);
    effects_.push_back(CloseConnection{worker.connection, absl::AbortedError(reason)});
  }
  for (const Ticket ticket : worker.drain_tickets) {
    effects_.push_back(DrainAnswer{ticket, absl::OkStatus()});
  }
  if (FindPipeline(worker.epoch) != nullptr) {
    End(worker.epoch, absl::StrCat("worker ", worker.id(), " lost: ", reason));
  }
  PlanAgainAt(now_);
}

}  // namespace sauva
