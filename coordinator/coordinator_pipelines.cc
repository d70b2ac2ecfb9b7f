// The life of a pipeline: loading, starting, ready, ended.
#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "coordinator/coordinator.h"
#include "coordinator/numerics.h"
#include "proto/stage.h"

namespace sauva {

using Level = LogNote::Level;

namespace {

// After so long without trouble, earlier troubles count no more.
constexpr absl::Duration kServedWell = absl::Seconds(30);

// A worker cut off for longer than so many epochs take to end is told to stop anyway, after
// the time that is given to pipelines of other coordinators.
constexpr size_t kRememberedEpochs = 4096;
// Pipelines whose stages may still be telling why they ended.
constexpr size_t kRememberedLinks = 64;

std::string DescribeStages(const std::vector<StageEndpoint>& stages) {
  std::string text;
  for (const StageEndpoint& stage : stages) {
    absl::StrAppend(&text, text.empty() ? "" : " ", stage.worker_id, "=[", stage.layers.first, ",",
                    stage.layers.last, ")");
  }
  return text;
}

}  // namespace

void Coordinator::Create(ModelRecord& model, const std::vector<StageEndpoint>& stages) {
  StageAssignment assignment{.epoch = next_epoch_++,
                             .model = model.ref(),
                             .stage_index = 0,
                             .stages = stages,
                             .weight_format = config_.weight_format,
                             .kv_type = config_.kv_type,
                             .kv_memory_bytes = config_.kv_memory_bytes,
                             .max_context = model.description.max_context,
                             .max_step_tokens = config_.max_step_tokens,
                             .max_sequences = config_.max_sequences,
                             .numerics_id = {}};
  std::vector<std::string> classes;
  for (const StageEndpoint& stage : stages) {
    classes.push_back(workers_.at(stage.worker_id).hello.backend_class);
  }
  assignment.numerics_id = PipelineNumericsId(assignment, classes);
  PipelineRecord& pipeline = pipelines_[assignment.epoch];
  pipeline.assignment = assignment;
  pipeline.reports.resize(stages.size());
  pipeline.created_at = now_;
  ++counters_.epochs_started;
  Log(Level::kInfo, "pipeline placed",
      {{"epoch", assignment.epoch},
       {"model", model.ref().name},
       {"numerics", assignment.numerics_id},
       {"stages", DescribeStages(stages)}});
  for (size_t i = 0; i < stages.size(); ++i) {
    WorkerRecord& worker = workers_.at(stages[i].worker_id);
    worker.epoch = assignment.epoch;
    assignment.stage_index = static_cast<int>(i);
    Send(worker, assignment);
  }
}

void Coordinator::TakeReport(PipelineRecord& pipeline, int stage_index, const StageReport& report) {
  std::optional<StageReport>& known = pipeline.reports[stage_index];
  const StageEndpoint& endpoint = pipeline.stages()[stage_index];
  const auto done = [](StagePhase phase) { return static_cast<int>(phase); };
  if (report.phase != StagePhase::kFailed && known && done(report.phase) < done(known->phase)) {
    End(pipeline.epoch(), absl::StrCat("worker ", endpoint.worker_id, " began anew"));
    return;
  }
  known = report;
  if (stage_index == 0) pipeline.unreported_dispatches = 0;
  if (report.steps_done > 0 && stage_index > 0) {
    link_failures_.Worked(pipeline.stages()[stage_index - 1].worker_id, endpoint.worker_id);
  }
  if (report.phase == StagePhase::kFailed) {
    FailLoad(pipeline,
             absl::StrCat("worker ", endpoint.worker_id, " cannot serve layers [",
                          endpoint.layers.first, ", ", endpoint.layers.last, "): ", report.error));
    return;
  }
  if (report.phase != StagePhase::kLoading) {
    Hold(workers_.at(endpoint.worker_id), pipeline.assignment, endpoint.layers);
  }
  if (pipeline.phase == PipelineRecord::Phase::kLoading) {
    StartIfLoaded(pipeline);  // or ends it: `pipeline` may be no more
  } else if (pipeline.phase == PipelineRecord::Phase::kStarting) {
    ReadyIfServing(pipeline);
  }
}

void Coordinator::StartIfLoaded(PipelineRecord& pipeline) {
  uint32_t blocks = std::numeric_limits<uint32_t>::max();
  for (const std::optional<StageReport>& report : pipeline.reports) {
    if (!report || report->phase == StagePhase::kLoading) return;
    blocks = std::min(blocks, report->max_kv_blocks);
  }
  const int max_context = pipeline.assignment.max_context;
  const auto needed = static_cast<uint32_t>((max_context + kKvBlockTokens - 1) / kKvBlockTokens);
  if (blocks < needed) {
    FailLoad(pipeline, absl::StrCat("the KV cache holds ", blocks, " blocks, one sequence of ",
                                    max_context, " tokens needs ", needed));
    return;
  }
  pipeline.phase = PipelineRecord::Phase::kStarting;
  pipeline.num_kv_blocks = blocks;
  for (const StageEndpoint& stage : pipeline.stages()) {
    Send(workers_.at(stage.worker_id),
         StartStage{.epoch = pipeline.epoch(), .num_kv_blocks = blocks});
  }
}

void Coordinator::ReadyIfServing(PipelineRecord& pipeline) {
  for (const std::optional<StageReport>& report : pipeline.reports) {
    if (!report || report->phase != StagePhase::kServing) return;
  }
  pipeline.phase = PipelineRecord::Phase::kReady;
  pipeline.ready_at = now_;
  ++counters_.epochs_ready;
  Log(Level::kInfo, "pipeline ready",
      {{"epoch", pipeline.epoch()},
       {"model", pipeline.assignment.model.name},
       {"kv_blocks", pipeline.num_kv_blocks},
       {"after_ms", absl::ToInt64Milliseconds(now_ - pipeline.created_at)}});
  if (ModelRecord* model = FindModelByDigest(pipeline.assignment.model.digest)) {
    model->was_served = true;
    if (NumReplicas(*model) >= model->replicas) model->placement_error.clear();
  }
  ServeWaiting();
}

void Coordinator::FailLoad(PipelineRecord& pipeline, const std::string& error) {
  if (ModelRecord* model = FindModelByDigest(pipeline.assignment.model.digest)) {
    model->placement_error = error;
    model->not_before = now_ + Backoff(++model->failures);
    PlanAgainAt(model->not_before);
  }
  End(pipeline.epoch(), error);
}

void Coordinator::End(uint64_t epoch, const std::string& reason) {
  const auto found = pipelines_.find(epoch);
  Check(found != pipelines_.end(), "a pipeline ends once");
  const PipelineRecord pipeline = std::move(found->second);
  pipelines_.erase(found);
  ++counters_.epochs_ended;
  RememberEnded(epoch);
  RememberLinks(pipeline);
  Log(Level::kWarning, "pipeline ended", {{"epoch", epoch}, {"reason", reason}});
  for (const StageEndpoint& stage : pipeline.stages()) {
    WorkerRecord* worker = FindWorker(stage.worker_id);
    if (worker == nullptr || worker->epoch != epoch) continue;
    worker->epoch = 0;
    worker->silent_since = now_;  // it answers StopStage with a heartbeat
    Send(*worker, StopStage{.epoch = epoch, .reason = reason});
  }
  // Those that were only kept for their streams' sake are kept no longer.
  for (const StageEndpoint& stage : pipeline.stages()) {
    const WorkerRecord* worker = FindWorker(stage.worker_id);
    if (worker != nullptr && !worker->connected()) Lose(stage.worker_id, "its stream ended");
  }
  PlanAgainAt(now_);
}

void Coordinator::RememberEnded(uint64_t epoch) {
  ended_.insert(epoch);
  if (ended_.size() > kRememberedEpochs) ended_.erase(ended_.begin());
}

void Coordinator::RememberLinks(const PipelineRecord& pipeline) {
  if (std::ranges::none_of(pipeline.stages(), [](const StageEndpoint& stage) {
        return stage.link == LinkKind::kNccl;
      })) {
    return;
  }
  EndedLinks links{.epoch = pipeline.epoch(), .stages = pipeline.stages()};
  for (const std::optional<StageReport>& report : pipeline.reports) {
    links.reached.push_back(report && report->steps_done > 0);
  }
  ended_links_.push_back(std::move(links));
  if (ended_links_.size() > kRememberedLinks) ended_links_.pop_front();
}

void Coordinator::Hold(WorkerRecord& worker, const StageAssignment& assignment, LayerRange layers) {
  worker.held = {.digest = assignment.model.digest,
                 .weight_format = assignment.weight_format,
                 .layers = layers};
}

void Coordinator::Retire(PipelineRecord& pipeline, absl::Time deadline) {
  if (pipeline.retiring) return;
  pipeline.retiring = true;
  pipeline.retire_deadline = deadline;
  PlanAgainAt(now_);
}

bool Coordinator::HasOtherReady(const PipelineRecord& pipeline) const {
  return std::ranges::any_of(pipelines_, [&](const auto& entry) {
    const PipelineRecord& other = entry.second;
    return other.ready() && !other.retiring && other.epoch() != pipeline.epoch() &&
           other.assignment.model == pipeline.assignment.model;
  });
}

// Ends what has finished retiring, and what takes too long to come up.
void Coordinator::EndIdleAndOverdue() {
  const auto successor_loads = [&](const PipelineRecord& pipeline) {
    return !HasOtherReady(pipeline) && std::ranges::any_of(pipelines_, [&](const auto& entry) {
      return !entry.second.retiring && entry.second.assignment.model == pipeline.assignment.model;
    });
  };
  std::vector<std::pair<uint64_t, std::string>> over;
  for (const auto& [epoch, pipeline] : pipelines_) {
    const bool unanswered = std::ranges::any_of(
        pipeline.reports, [](const auto& report) { return !report.has_value(); });
    const bool idle =
        pipeline.Load() == 0 && now_ - pipeline.last_dispatch_at > 2 * config_.heartbeat;
    if (pipeline.retiring && now_ >= pipeline.retire_deadline) {
      over.emplace_back(epoch, "retired, its time to finish is over");
    } else if (pipeline.retiring && idle && !successor_loads(pipeline)) {
      over.emplace_back(epoch, "retired");
    } else if (!pipeline.ready() && unanswered && now_ - pipeline.created_at > 2 * config_.lease) {
      over.emplace_back(epoch, "a worker did not answer LoadStage within two leases");
    } else if (!pipeline.ready() && now_ - pipeline.created_at > config_.load_timeout) {
      over.emplace_back(
          epoch, absl::StrCat("not ready after ", absl::FormatDuration(config_.load_timeout)));
    }
  }
  for (const auto& [epoch, reason] : over) {
    PipelineRecord* pipeline = FindPipeline(epoch);
    if (pipeline == nullptr) continue;
    if (pipeline->retiring) {
      End(epoch, reason);
    } else {
      FailLoad(*pipeline, reason);
    }
  }
}

void Coordinator::ForgiveAfterServingWell() {
  for (const auto& [epoch, pipeline] : pipelines_) {
    if (!pipeline.ready() || now_ - pipeline.ready_at < kServedWell) continue;
    if (ModelRecord* model = FindModelByDigest(pipeline.assignment.model.digest))
      model->failures = 0;
    for (const StageEndpoint& stage : pipeline.stages()) {
      if (WorkerRecord* worker = FindWorker(stage.worker_id)) worker->offences = 0;
    }
  }
}

}  // namespace sauva
