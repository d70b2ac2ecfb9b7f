// Dispatches, models and drains.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/coordinator.h"

namespace sauva {

using Level = LogNote::Level;

absl::StatusOr<std::string> Coordinator::ResolveModel(const std::string& name) const {
  if (models_.contains(name)) return name;
  if (name.empty() && models_.size() == 1) return models_.begin()->first;
  std::vector<std::string> known;
  for (const auto& [known_name, model] : models_) known.push_back(known_name);
  const std::string all = known.empty() ? "none" : absl::StrJoin(known, ", ");
  if (name.empty() && !known.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("model is empty, but several are served: ", all));
  }
  return absl::NotFoundError(absl::StrCat("model \"", name, "\" is not served; served: ", all));
}

absl::Status Coordinator::CheckDispatch(const DispatchAsked& event) const {
  if (shutting_down_) return absl::UnavailableError("the coordinator shuts down");
  const absl::StatusOr<std::string> name = ResolveModel(event.request.model);
  if (!name.ok()) return name.status();
  const int max_context = models_.at(*name).description.max_context;
  if (event.request.num_tokens > static_cast<uint32_t>(max_context)) {
    return absl::InvalidArgumentError(absl::StrCat("num_tokens is ", event.request.num_tokens,
                                                   ", the context of model ", *name, " is ",
                                                   max_context));
  }
  if (event.deadline <= now_) return absl::DeadlineExceededError("the deadline is in the past");
  return absl::OkStatus();
}

void Coordinator::Handle(const DispatchAsked& event) {
  EndPipelinesClientsLost(event.request);
  if (absl::Status status = CheckDispatch(event); !status.ok()) {
    return Answer(event.ticket, std::move(status));
  }
  WaitingList::Entry entry{.ticket = event.ticket,
                           .model = *ResolveModel(event.request.model),
                           .request = event.request,
                           .deadline = event.deadline};
  if (TryDispatch(entry)) return;
  if (!waiting_.Add(std::move(entry))) {
    Answer(event.ticket, absl::ResourceExhaustedError(
                             absl::StrCat("no pipeline is ready and ", waiting_.size(),
                                          " dispatches wait, the limit is ", waiting_.capacity())));
  }
}

// A client's broken stream is the second witness against a worker whose own stream to the
// coordinator has ended.
void Coordinator::EndPipelinesClientsLost(const DispatchRequest& request) {
  for (const uint64_t epoch : request.broken_epochs) {
    const PipelineRecord* pipeline = FindPipeline(epoch);
    if (pipeline == nullptr) continue;
    for (const StageEndpoint& stage : pipeline->stages()) {
      const WorkerRecord* worker = FindWorker(stage.worker_id);
      if (worker == nullptr || worker->connected()) continue;
      Lose(std::string(stage.worker_id), "its stream ended and a client lost its pipeline");
      break;
    }
  }
}

bool Coordinator::TryDispatch(const WaitingList::Entry& entry) {
  const ModelRecord& model = models_.at(entry.model);
  std::vector<DispatchCandidate> candidates;
  for (auto& [epoch, pipeline] : pipelines_) {
    if (pipeline.assignment.model != model.ref()) continue;
    const bool doubtful = std::ranges::any_of(pipeline.stages(), [&](const StageEndpoint& stage) {
      return !workers_.at(stage.worker_id).connected();
    });
    candidates.push_back({&pipeline, doubtful});
  }
  PipelineRecord* chosen = ChoosePipeline(candidates, entry.request);
  if (chosen == nullptr) return false;
  ++chosen->unreported_dispatches;
  chosen->last_dispatch_at = now_;
  Answer(entry.ticket,
         DispatchReply{.model = model.ref(),
                       .epoch = chosen->epoch(),
                       .head_address = chosen->stages()[0].address,
                       .numerics_id = chosen->assignment.numerics_id,
                       .max_context = static_cast<uint32_t>(chosen->assignment.max_context)});
  return true;
}

void Coordinator::ServeWaiting() {
  waiting_.ServeWhere([this](const WaitingList::Entry& entry) { return TryDispatch(entry); });
}

void Coordinator::ExpireDispatches() {
  for (const WaitingList::Entry& entry : waiting_.TakeExpired(now_)) {
    const std::string& error = models_.at(entry.model).placement_error;
    Answer(entry.ticket, absl::DeadlineExceededError(
                             absl::StrCat("no pipeline of model ", entry.model, " became ready",
                                          error.empty() ? "" : ": ", error)));
  }
}

void Coordinator::Handle(const DispatchCancelled& event) { waiting_.Remove(event.ticket); }

void Coordinator::Answer(Ticket ticket, absl::StatusOr<DispatchReply> reply) {
  ++counters_.dispatches[absl::StatusCodeToString(reply.status().code())];
  effects_.push_back(DispatchAnswer{ticket, std::move(reply)});
}

void Coordinator::Handle(const LoadAsked& event) {
  const ModelRef& ref = event.model.ref;
  const auto known = models_.find(ref.name);
  if (known != models_.end() && known->second.ref() != ref) {
    ++counters_.refusals["FAILED_PRECONDITION"];
    effects_.push_back(LoadAnswer{
        event.ticket, absl::FailedPreconditionError(absl::StrCat(
                          "model ", ref.name, " is served with digest ", known->second.ref().digest,
                          ", the files now have ", ref.digest))});
    return;
  }
  ModelRecord& model = models_[ref.name];
  model.description = event.model;
  model.replicas = std::max(1, event.replicas);
  int extra = NumReplicas(model) - model.replicas;
  for (auto pipeline = pipelines_.rbegin(); pipeline != pipelines_.rend() && extra > 0;
       ++pipeline) {
    if (pipeline->second.retiring || pipeline->second.assignment.model != ref) continue;
    Retire(pipeline->second, now_ + config_.drain_timeout);
    --extra;
  }
  effects_.push_back(LoadAnswer{event.ticket, ref});
  PlanAgainAt(now_);
}

void Coordinator::Handle(const DrainAsked& event) {
  WorkerRecord* worker = FindWorker(event.worker_id);
  if (worker == nullptr) {
    ++counters_.refusals["NOT_FOUND"];
    effects_.push_back(DrainAnswer{
        event.ticket, absl::NotFoundError(absl::StrCat("there is no worker ", event.worker_id))});
    return;
  }
  worker->drain_tickets.push_back(event.ticket);
  const absl::Duration timeout =
      event.timeout > absl::ZeroDuration() ? event.timeout : config_.drain_timeout;
  BeginDrain(*worker, now_ + timeout);
  FinishDrains();
}

void Coordinator::BeginDrain(WorkerRecord& worker, absl::Time deadline) {
  if (worker.draining) return;
  worker.draining = true;
  worker.drain_deadline = deadline;
  Log(Level::kInfo, "worker drains", {{"worker", worker.id()}, {"epoch", worker.epoch}});
  if (worker.orphan) ReleaseOrphan(worker, "its worker drains");
  if (PipelineRecord* pipeline = FindPipeline(worker.epoch)) Retire(*pipeline, deadline);
  PlanAgainAt(now_);
}

void Coordinator::FinishDrains() {
  for (auto& [id, worker] : workers_) {
    if (!worker.draining || worker.epoch != 0) continue;
    for (const Ticket ticket : worker.drain_tickets) {
      effects_.push_back(DrainAnswer{ticket, absl::OkStatus()});
    }
    worker.drain_tickets.clear();
    if (worker.drained) continue;
    worker.drained = true;
    const absl::Duration left = std::max(absl::ZeroDuration(), worker.drain_deadline - now_);
    Send(worker, DrainWorker{.timeout_ms = static_cast<int>(absl::ToInt64Milliseconds(left))});
    Log(Level::kInfo, "worker drained", {{"worker", id}});
  }
}

void Coordinator::Handle(const ShutDownAsked&) {
  shutting_down_ = true;
  for (const WaitingList::Entry& entry : waiting_.TakeAll()) {
    Answer(entry.ticket, absl::UnavailableError("the coordinator shuts down"));
  }
}

}  // namespace sauva
