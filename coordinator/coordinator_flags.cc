#include "coordinator/coordinator_flags.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "base/parse_bytes.h"
#include "base/status_macros.h"
#include "engine/formats.h"
#include "net/tls_flags.h"

namespace sauva {
namespace {

// Without --model-dir, --model is the path of one model.
absl::Status SplitModelPath(CoordinatorProcessConfig& config) {
  if (!config.model_dir.empty() || config.model.empty()) return absl::OkStatus();
  std::error_code error;
  std::filesystem::path path = std::filesystem::absolute(config.model, error).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  if (error || !path.has_filename()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--model is ", config.model, "; expected a model's directory"));
  }
  config.model = path.filename();
  config.model_dir = path.parent_path();
  return absl::OkStatus();
}

}  // namespace

CoordinatorFlags::CoordinatorFlags(CLI::App& app) {
  app.add_option("--listen", config_.listen, "HOST:PORT for gRPC; port 0 picks a free one")
      ->capture_default_str();
  app.add_option("--metrics", config_.metrics, "HOST:PORT that serves /metrics; empty: none")
      ->capture_default_str();
  AddServing(app);
  AddCluster(app);
  AddTlsFlags(app, config_.tls);
}

void CoordinatorFlags::AddServing(CLI::App& app) {
  app.add_option("--model", config_.model,
                 "the model to serve: a name under --model-dir, or a path without it");
  app.add_option("--model-dir", config_.model_dir, "directory that holds a directory per model");
  app.add_option("--replicas", config_.replicas, "pipelines of the model")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--weights", config_.format.weight_format, "format of the weights in memory")
      ->check(CLI::IsMember(LoadFormatNames()))
      ->capture_default_str();
  app.add_option("--kv-type", config_.format.kv_type, "type of cached keys and values")
      ->check(CLI::IsMember(KvTypeNames()))
      ->capture_default_str();
  app.add_option("--kv-memory", kv_memory_,
                 "bound for the KV cache of a stage, as in 512MiB; 0: what the budget leaves")
      ->capture_default_str();
  app.add_option("--max-context", config_.format.max_context,
                 "tokens of one sequence; 0: the model's")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  app.add_option("--max-step-tokens", config_.format.max_step_tokens,
                 "tokens computed per step over all sequences")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  app.add_option("--max-sequences", config_.format.max_sequences, "sequences running at once")
      ->check(CLI::Range(1, 1 << 14))
      ->capture_default_str();
}

void CoordinatorFlags::AddCluster(CLI::App& app) {
  CoordinatorConfig& cluster = config_.coordinator;
  app.add_option("--stages", cluster.stages, "stages of each pipeline; 0: what placement chooses")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--spares", cluster.spares, "workers kept unloaded")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--expect-workers", cluster.expected_workers,
                 "place as soon as so many workers have joined; 0: two leases after the start")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_flag("--mix", mix_, "let a pipeline span workers of unlike backends");
  app.add_option("--link", link_,
                 "how hidden states go between stages: grpc, nccl, or auto, which takes nccl "
                 "between GPUs unless there is TLS: nccl encrypts nothing")
      ->capture_default_str();
  app.add_option("--heartbeat-ms", heartbeat_ms_, "how often workers report")
      ->check(CLI::Range(1, 60'000))
      ->capture_default_str();
  app.add_option("--lease-ms", lease_ms_, "a worker silent for so long is lost")
      ->check(CLI::Range(2, 600'000))
      ->capture_default_str();
  app.add_option("--drain-timeout", drain_timeout_,
                 "how long streams of a draining worker may run on before they are moved")
      ->capture_default_str();
  app.add_option("--max-waiting", cluster.max_waiting, "dispatches that may wait for a pipeline")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
}

absl::StatusOr<CoordinatorProcessConfig> CoordinatorFlags::Config() const {
  CoordinatorProcessConfig config = config_;
  if (config.model.empty() && config.model_dir.empty()) {
    return absl::InvalidArgumentError("one of --model and --model-dir is needed");
  }
  if (lease_ms_ < 2 * heartbeat_ms_) {
    return absl::InvalidArgumentError(absl::StrCat("--lease-ms is ", lease_ms_,
                                                   "; expected at least two heartbeats of ",
                                                   heartbeat_ms_, " ms"));
  }
  ASSIGN_OR_RETURN(config.coordinator.kv_memory_bytes, ParseBytes(kv_memory_));
  config.coordinator.heartbeat = absl::Milliseconds(heartbeat_ms_);
  config.coordinator.lease = absl::Milliseconds(lease_ms_);
  if (!absl::ParseDuration(drain_timeout_, &config.coordinator.drain_timeout) ||
      config.coordinator.drain_timeout < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrCat("--drain-timeout is '", drain_timeout_,
                                                   "'; expected a duration such as 30s or 2m"));
  }
  ASSIGN_OR_RETURN(config.coordinator.link, ParseLinkPolicy(link_));
  // NCCL encrypts nothing: where certificates are asked for, it must be asked for too.
  if (config.coordinator.link == LinkPolicy::kAuto && !config.tls.ca.empty()) {
    config.coordinator.link = LinkPolicy::kGrpc;
  }
  // Nothing serves while a pair is avoided that must have NCCL.
  if (config.coordinator.link == LinkPolicy::kNccl) {
    config.coordinator.link_failures.retry_after = absl::Seconds(30);
  }
  config.coordinator.mixing = mix_ ? BackendMixing::kAnyClass : BackendMixing::kOneClass;
  RETURN_IF_ERROR(SplitModelPath(config));
  return config;
}

}  // namespace sauva
