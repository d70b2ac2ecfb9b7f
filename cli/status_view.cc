#include "cli/status_view.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "base/parse_bytes.h"

namespace sauva {
namespace {

const char* PhaseName(StagePhase phase) {
  switch (phase) {
    case StagePhase::kLoading:
      return "loading";
    case StagePhase::kLoaded:
      return "loaded";
    case StagePhase::kServing:
      return "serving";
    case StagePhase::kFailed:
      return "failed";
  }
  return "unknown";
}

double TokensPerSecond(const StageReport& report) {
  if (report.step_seconds <= 0) return 0;
  return static_cast<double>(report.tokens_done) / report.step_seconds;
}

std::string StageRow(size_t index, const StageStatus& stage) {
  const LayerRange layers = stage.endpoint.layers;
  const StageReport& report = stage.report;
  return absl::StrFormat("  %5d  %-24s  %-9s  %-8s  %10s  %10s  %9d  %12.1f\n", index,
                         stage.endpoint.worker_id,
                         absl::StrCat("[", layers.first, ", ", layers.last, ")"),
                         PhaseName(report.phase), FormatBytes(report.weight_bytes),
                         FormatBytes(report.kv_bytes), report.steps_done, TokensPerSecond(report));
}

std::string PipelineTable(const PipelineStatus& pipeline) {
  std::string table = absl::StrFormat("pipeline of %s, epoch %d: %s\n", pipeline.model.name,
                                      pipeline.epoch, pipeline.ready ? "ready" : "not ready");
  absl::StrAppend(&table, absl::StrFormat("  %5s  %-24s  %-9s  %-8s  %10s  %10s  %9s  %12s\n",
                                          "stage", "worker", "layers", "phase", "weights",
                                          "KV cache", "steps", "tokens/s"));
  for (size_t i = 0; i < pipeline.stages.size(); ++i) {
    absl::StrAppend(&table, StageRow(i, pipeline.stages[i]));
    if (!pipeline.stages[i].report.error.empty()) {
      absl::StrAppend(&table, "         ", pipeline.stages[i].report.error, "\n");
    }
  }
  return table;
}

// Epochs have 61 bits, more than many JSON readers keep of a number, so they are texts.
nlohmann::json StageJson(size_t index, const StageStatus& stage) {
  const StageReport& report = stage.report;
  return {{"stage", index},
          {"worker_id", stage.endpoint.worker_id},
          {"address", stage.endpoint.address},
          {"metrics", stage.metrics_address},
          {"layers", {stage.endpoint.layers.first, stage.endpoint.layers.last}},
          {"link", stage.endpoint.link == LinkKind::kNccl ? "nccl" : "grpc"},
          {"phase", PhaseName(report.phase)},
          {"error", report.error},
          {"weight_bytes", report.weight_bytes},
          {"scratch_bytes", report.scratch_bytes},
          {"kv_bytes", report.kv_bytes},
          {"num_kv_blocks", report.num_kv_blocks},
          {"free_kv_blocks", report.free_kv_blocks},
          {"steps_done", report.steps_done},
          {"tokens_done", report.tokens_done},
          {"step_seconds", report.step_seconds},
          {"running_sequences", report.running_sequences},
          {"waiting_sequences", report.waiting_sequences}};
}

nlohmann::json WorkerJson(const WorkerStatus& worker) {
  return {{"worker_id", worker.hello.worker_id},
          {"address", worker.hello.address},
          {"metrics", worker.hello.metrics_address},
          {"backend_class", worker.hello.backend_class},
          {"memory_bytes", worker.hello.memory_bytes},
          {"read_bytes_per_second", worker.hello.read_bytes_per_second},
          {"operations_per_second", worker.hello.operations_per_second},
          {"link_bytes_per_second", worker.hello.link_bytes_per_second},
          {"last_heartbeat_ms", worker.last_heartbeat_ms},
          {"draining", worker.draining},
          {"epoch", absl::StrCat(worker.epoch)}};
}

}  // namespace

std::string StatusTable(const ClusterStatus& status) {
  std::string table;
  for (const PipelineStatus& pipeline : status.pipelines) {
    absl::StrAppend(&table, PipelineTable(pipeline));
  }
  int num_spares = 0;
  for (const WorkerStatus& worker : status.workers) {
    if (worker.epoch == 0) ++num_spares;
  }
  absl::StrAppend(&table, "workers: ", status.workers.size(), ", of them spare: ", num_spares,
                  "; requests waiting for a pipeline: ", status.waiting_dispatches, "\n");
  for (const AvoidedLink& link : status.avoided_links) {
    absl::StrAppend(&table, "NCCL is not tried between ", link.worker_id, " and ",
                    link.other_worker_id, " for ",
                    absl::FormatDuration(absl::Seconds(link.retry_ms / 1000)), ", it failed ",
                    link.failures, " times in a row: ", link.reason, "\n");
  }
  if (!status.placement_error.empty()) {
    absl::StrAppend(&table, "cannot place a pipeline: ", status.placement_error, "\n");
  }
  return table;
}

std::string StatusJson(const ClusterStatus& status) {
  nlohmann::json json = {{"build_id", status.build_id},
                         {"waiting_dispatches", status.waiting_dispatches},
                         {"placement_error", status.placement_error},
                         {"avoided_links", nlohmann::json::array()},
                         {"workers", nlohmann::json::array()},
                         {"pipelines", nlohmann::json::array()}};
  for (const AvoidedLink& link : status.avoided_links) {
    json["avoided_links"].push_back({{"workers", {link.worker_id, link.other_worker_id}},
                                     {"failures", link.failures},
                                     {"reason", link.reason},
                                     {"retry_ms", link.retry_ms}});
  }
  for (const WorkerStatus& worker : status.workers) json["workers"].push_back(WorkerJson(worker));
  for (const PipelineStatus& pipeline : status.pipelines) {
    nlohmann::json stages = nlohmann::json::array();
    for (size_t i = 0; i < pipeline.stages.size(); ++i) {
      stages.push_back(StageJson(i, pipeline.stages[i]));
    }
    json["pipelines"].push_back({{"epoch", absl::StrCat(pipeline.epoch)},
                                 {"model", pipeline.model.name},
                                 {"digest", pipeline.model.digest},
                                 {"ready", pipeline.ready},
                                 {"numerics_id", pipeline.numerics_id},
                                 {"stages", std::move(stages)}});
  }
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace sauva
