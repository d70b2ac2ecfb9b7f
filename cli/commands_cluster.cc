#include <filesystem>
#include <iostream>
#include <memory>

#include "cli/commands.h"
#include "cli/coordinator_client.h"
#include "cli/exit_code.h"
#include "cli/machine.h"
#include "cli/status_view.h"
#include "cli/up_command.h"
#include "engine/formats.h"
#include "kernels/cuda_access.h"
#include "kernels/factory.h"
#include "net/tls_flags.h"

// The subcommands about a whole cluster.
namespace sauva {
namespace {

constexpr absl::Duration kStatusTimeout = absl::Seconds(10);

Machine ThisMachine() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  return {.cores = UsableCores(),
          .memory_bytes = AvailableMemoryBytes(),
          .binary_directory = self.parent_path().string(),
          .has_cuda = BuildHasCuda()};
}

int Up(const UpOptions& options) {
  auto plan = MakeLaunchPlan(options, ThisMachine());
  if (absl::IsInvalidArgument(plan.status())) {
    return ReportUsage(std::string(plan.status().message()));
  }
  if (!plan.ok()) return Report(plan.status());
  return Report(RunUp(options, *std::move(plan), std::cout, std::cerr));
}

}  // namespace

void AddUp(CLI::App& app, ChosenCommand& chosen) {
  // Shared by CLI11's callbacks, which outlive this function.
  const auto options = std::make_shared<UpOptions>();
  CLI::App* up = app.add_subcommand("up", "start a whole cluster on this machine");
  up->add_option("--model", options->model, "the model's directory")->required();
  auto* workers = up->add_option("--workers", options->num_workers, "number of CPU workers");
  up->add_option("--worker", options->workers,
                 "one worker: cpu[:MEMORY], cuda:N[:MEMORY], or reference[:MEMORY], which is slow; "
                 "repeat for more")
      ->allow_extra_args(false)
      ->excludes(workers);
  up->add_option("--stages", options->stages, "stages of a pipeline; 0: placement chooses");
  up->add_option("--replicas", options->replicas, "pipelines of the model");
  up->add_option("--spares", options->spares, "workers kept unloaded");
  up->add_flag("--mix", options->mix, "let a pipeline span workers of unlike backends");
  up->add_flag("--no-restart", options->no_restart, "leave dead processes alone");
  up->add_option("--threads", options->threads, "per worker; 0: cores / workers")
      ->check(CLI::Range(0, 1024));
  up->add_option("--device", options->device, "the workers' arithmetic: cpu or cpu:scalar, …")
      ->capture_default_str();
  up->add_flag("--deterministic", options->deterministic, kDeterministicHelp);
  auto* weights = up->add_option("--weights", options->weights, "format of the weights in memory")
                      ->check(CLI::IsMember(LoadFormatNames()))
                      ->capture_default_str();
  up->add_option("--quantize", options->weights, "compress the weights while loading")
      ->check(CLI::IsMember(RoundingFormatNames()))
      ->excludes(weights);
  up->add_option("--kv-type", options->kv_type, "type of cached keys and values")
      ->check(CLI::IsMember(KvTypeNames()))
      ->capture_default_str();
  up->add_option("--kv-memory", options->kv_memory, "bound for each worker's KV cache, as 512MiB");
  up->add_option("--max-context", options->max_context, "tokens of a sequence; 0: the model's")
      ->check(CLI::NonNegativeNumber);
  up->add_option("--link", options->link,
                 "hidden states between stages: grpc, nccl, or auto: nccl between GPUs")
      ->check(CLI::IsMember({"auto", "grpc", "nccl"}))
      ->capture_default_str();
  up->add_option("--cuda-graphs", options->cuda_graphs,
                 "on: what a GPU does in a decode step is recorded and replayed; off: it is not")
      ->check(CLI::IsMember({"on", "off"}))
      ->capture_default_str();
  up->add_option("--nccl-library", options->nccl_library,
                 "path of libnccl.so.2, as in a Python wheel; default: as the loader finds it");
  up->add_option("--step-timeout", options->step_timeout,
                 "a step that takes longer breaks its pipeline")
      ->capture_default_str();
  up->add_option("--grpc", options->grpc, "where the gateway listens")->capture_default_str();
  up->add_option("--http", options->http, "where the gateway serves /metrics")
      ->capture_default_str();
  up->add_option("--coordinator", options->coordinator, "where the coordinator listens")
      ->capture_default_str();
  up->add_option("--log-dir", options->log_directory, "write each process's log to NAME.log here");
  up->add_flag("--json", options->json, "print events as lines of JSON");
  AddTlsFlags(*up, options->tls);
  up->callback([options, &chosen] { chosen.run = [options] { return Up(*options); }; });
}

void AddStatus(CLI::App& app, ChosenCommand& chosen) {
  struct Options {
    std::string coordinator = kDefaultCoordinator;
    bool json = false;
    TlsOptions tls;
  };
  // Shared by CLI11's callbacks, which outlive this function.
  const auto options = std::make_shared<Options>();
  CLI::App* status = app.add_subcommand("status", "workers, pipelines and their stages");
  status->add_option("--coordinator", options->coordinator, "host:port")->capture_default_str();
  status->add_flag("--json", options->json, "print one line of JSON");
  AddTlsFlags(*status, options->tls);
  status->callback([options, &chosen] {
    chosen.run = [options] {
      const auto cluster = FetchClusterStatus(options->coordinator, options->tls, kStatusTimeout);
      if (!cluster.ok()) return Report(cluster.status());
      std::cout << (options->json ? StatusJson(*cluster) + "\n" : StatusTable(*cluster));
      return int{kExitDone};
    };
  });
}

}  // namespace sauva
