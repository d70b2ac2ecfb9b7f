#include "worker/worker_flags.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "base/parse_bytes.h"
#include "base/status_macros.h"
#include "kernels/cuda_access.h"
#include "net/tls_flags.h"
#include "worker/memory_budget.h"

namespace sauva {
namespace {

// Of the memory that is free when the worker starts; the rest is left to others.
constexpr double kDefaultMemoryShare = 0.8;

absl::StatusOr<absl::Duration> ParseWait(const std::string& flag, const std::string& text) {
  absl::Duration duration;
  if (absl::ParseDuration(text, &duration) && duration > absl::ZeroDuration()) return duration;
  return absl::InvalidArgumentError(
      absl::StrCat(flag, " is '", text, "'; expected a duration such as 2s, 500ms or 10m"));
}

absl::StatusOr<uint64_t> MemoryBudget(const std::string& device, const std::string& flag) {
  if (IsCuda(device)) return DeviceMemoryBudget(device, flag);
  if (flag.empty()) {
    ASSIGN_OR_RETURN(const uint64_t available, AvailableMemoryBytes());
    return static_cast<uint64_t>(static_cast<double>(available) * kDefaultMemoryShare);
  }
  ASSIGN_OR_RETURN(const uint64_t bytes, ParseBytes(flag));
  if (bytes > 0) return bytes;
  return absl::InvalidArgumentError("--memory is 0; a worker needs memory");
}

}  // namespace

WorkerFlags::WorkerFlags(CLI::App& app) {
  app.add_option("--coordinator", config_.coordinator, "HOST:PORT of the coordinator")
      ->capture_default_str();
  app.add_option("--listen", config_.listen, "HOST:PORT for gRPC; port 0 picks a free one")
      ->capture_default_str();
  app.add_option("--advertise", config_.advertise,
                 "HOST or HOST:PORT as the others reach this worker; default: --listen");
  app.add_option("--metrics", config_.metrics, "HOST:PORT that serves /metrics; empty: none")
      ->capture_default_str();
  auto* model_dir =
      app.add_option("--model-dir", config_.model_dir, "directory that holds model directories");
  app.add_option("--model", model_, "one model's directory; its parent is the --model-dir")
      ->excludes(model_dir);
  app.add_option("--device", config_.device,
                 "cpu, cpu:scalar, cpu:avx2, cpu:avx512, reference or cuda:N")
      ->capture_default_str();
  app.add_flag_callback(
      "--deterministic", [this] { config_.cuda.arithmetic = CudaArithmetic::kDeterministic; },
      kDeterministicHelp);
  app.add_option(
      "--memory", memory_,
      "bytes for weights, scratch and KV cache, as in 2GiB; of a GPU, its context counts "
      "too; default: 80 % of what is available");
  app.add_option("--cuda-graphs", cuda_graphs_,
                 "on: what a GPU does in a decode step is recorded and replayed; off: it is not")
      ->check(CLI::IsMember({"on", "off"}))
      ->capture_default_str();
  app.add_option("--nccl-library", config_.nccl_library,
                 "path of libnccl.so.2, as in a Python wheel; default: as the loader finds it");
  app.add_option("--nccl-host-id", config_.nccl_host_id,
                 "as NCCL itself reads it: processes of different ids may share a GPU")
      ->envname("NCCL_HOSTID");
  app.add_option("--threads", config_.threads, "0: the cores this process may use")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--step-timeout", step_timeout_, "a step that takes longer breaks the pipeline")
      ->capture_default_str();
  app.add_option("--drain-timeout", drain_timeout_,
                 "how long running streams may take after SIGTERM")
      ->capture_default_str();
  app.add_option("--max-waiting", config_.session.head.max_waiting, "sequences queued at a head")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--max-waiting-tokens", config_.session.head.max_waiting_tokens,
                 "prompt and completion tokens queued at a head")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--worker-id", config_.worker_id,
                 "unique name; default: made of host and process");
  AddTlsFlags(app, config_.tls);
}

absl::StatusOr<WorkerConfig> WorkerFlags::Config() const {
  WorkerConfig config = config_;
  if (!model_.empty()) {
    const std::filesystem::path model = std::filesystem::absolute(model_).lexically_normal();
    config.model_dir = (model.filename().empty() ? model.parent_path() : model).parent_path();
  }
  if (config.model_dir.empty()) {
    return absl::InvalidArgumentError("--model-dir or --model is required");
  }
  config.cuda.graphs = cuda_graphs_ == "on" ? CudaGraphs::kOn : CudaGraphs::kOff;
  ASSIGN_OR_RETURN(config.memory_bytes, MemoryBudget(config.device, memory_));
  ASSIGN_OR_RETURN(config.session.head.step_timeout, ParseWait("--step-timeout", step_timeout_));
  ASSIGN_OR_RETURN(config.drain_timeout, ParseWait("--drain-timeout", drain_timeout_));
  return config;
}

}  // namespace sauva
