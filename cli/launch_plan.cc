#include "cli/launch_plan.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "base/parse_bytes.h"
#include "base/status_macros.h"

namespace sauva {
namespace {

constexpr int kMaxWorkers = 64;
// Of the memory that is free now; the rest is left to the system and the other services.
constexpr double kWorkersShareOfMemory = 0.8;

struct ModelPlace {
  std::string directory;  // that holds the model's directory
  std::string name;
};

absl::StatusOr<ModelPlace> FindModel(const std::string& model) {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::canonical(model, error);
  if (error) {
    return absl::NotFoundError(
        absl::StrCat("--model ", model, ": no such directory (", error.message(), ")"));
  }
  if (!std::filesystem::is_regular_file(path / "config.json", error)) {
    return absl::NotFoundError(
        absl::StrCat("--model ", model, ": not a model directory, it holds no config.json"));
  }
  return ModelPlace{path.parent_path().string(), path.filename().string()};
}

absl::Status CheckCount(const char* flag, int value, int least) {
  if (value >= least && value <= kMaxWorkers) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag, " must be ", least, " to ", kMaxWorkers, ", not ", value));
}

// What a worker runs on.
struct WorkerPlace {
  std::string device;
  uint64_t memory_bytes = 0;  // 0: the worker looks what its GPU has free
};

// Errors: INVALID_ARGUMENT naming the flag.
absl::StatusOr<WorkerPlace> CudaPlace(const std::string& worker, const Machine& machine) {
  if (!machine.has_cuda) {
    return absl::UnimplementedError(absl::StrCat(
        "--worker ", worker, ": this build has no CUDA backend (SAUVA_CUDA=ON); use cpu[:MEMORY]"));
  }
  const std::vector<std::string> parts = absl::StrSplit(worker, ':');
  int index = 0;
  if (parts.size() < 2 || parts.size() > 3 || !absl::SimpleAtoi(parts[1], &index) || index < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--worker ", worker, ": write cuda:N or cuda:N:MEMORY, as in cuda:0:4GiB"));
  }
  WorkerPlace place = {.device = absl::StrCat("cuda:", index)};
  if (parts.size() == 3) {
    ASSIGN_OR_RETURN(place.memory_bytes, ParseBytes(parts[2]));
  }
  return place;
}

// Workers that share a GPU would each take what is free of it.
absl::Status CheckSharedGpus(const std::vector<WorkerPlace>& places) {
  for (const WorkerPlace& place : places) {
    const auto on_same = std::count_if(places.begin(), places.end(), [&](const WorkerPlace& other) {
      return other.device == place.device;
    });
    if (!absl::StartsWith(place.device, "cuda") || place.memory_bytes > 0 || on_same == 1) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("--worker ", place.device, ": ", on_same, " workers share this GPU; each ",
                     "needs its memory, as in ", place.device, ":4GiB"));
  }
  return absl::OkStatus();
}

// One each. Errors: as MakeLaunchPlan.
absl::StatusOr<std::vector<WorkerPlace>> WorkerPlaces(const UpOptions& options,
                                                      const Machine& machine) {
  size_t count = options.workers.size();
  if (count == 0) {
    count = static_cast<size_t>(options.num_workers);
    if (count == 0) {
      count = static_cast<size_t>(std::max(1, options.stages) * options.replicas + options.spares);
    }
  }
  RETURN_IF_ERROR(CheckCount("the number of workers", static_cast<int>(count), 1));
  const double available = static_cast<double>(machine.memory_bytes) * kWorkersShareOfMemory;
  const auto share = static_cast<uint64_t>(available / static_cast<double>(count));
  std::vector<WorkerPlace> places(count, {.device = options.device, .memory_bytes = share});
  for (size_t i = 0; i < options.workers.size(); ++i) {
    const std::string& worker = options.workers[i];
    if (absl::StartsWith(worker, "cuda")) {
      ASSIGN_OR_RETURN(places[i], CudaPlace(worker, machine));
      continue;
    }
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(worker, absl::MaxSplits(':', 1));
    if (parts.first == "reference") {
      places[i].device = parts.first;
    } else if (parts.first != "cpu") {
      return absl::InvalidArgumentError(
          absl::StrCat("--worker ", worker, ": write cpu or cpu:MEMORY, as in cpu:2GiB"));
    }
    if (worker == parts.first) continue;
    ASSIGN_OR_RETURN(places[i].memory_bytes, ParseBytes(parts.second));
  }
  RETURN_IF_ERROR(CheckSharedGpus(places));
  if (absl::StartsWith(options.device, "cuda")) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--device ", options.device, ": GPUs are given one by one, as in --worker cuda:N"));
  }
  const int needed = std::max(1, options.stages) * options.replicas + options.spares;
  if (static_cast<int>(count) < needed) {
    return absl::InvalidArgumentError(absl::StrCat(
        count, " workers cannot hold --stages ", std::max(1, options.stages), " x --replicas ",
        options.replicas, " + --spares ", options.spares, " = ", needed));
  }
  return places;
}

void AppendTls(const TlsOptions& tls, std::vector<std::string>& arguments) {
  const std::pair<const char*, const std::string&> files[] = {
      {"--tls-cert", tls.certificate}, {"--tls-key", tls.key}, {"--tls-ca", tls.ca}};
  for (const auto& [flag, value] : files) {
    if (!value.empty()) arguments.insert(arguments.end(), {flag, value});
  }
  if (tls.insecure) arguments.push_back("--insecure");
}

ServiceCommand MakeService(const std::string& role, const UpOptions& options,
                           const Machine& machine) {
  ServiceCommand service{
      .command = {role, role, absl::StrCat(machine.binary_directory, "/sauva-", role), {}},
      .listen = "127.0.0.1:0",
      .metrics = "127.0.0.1:0"};
  AppendTls(options.tls, service.command.arguments);
  return service;
}

}  // namespace

absl::StatusOr<LaunchPlan> MakeLaunchPlan(const UpOptions& options, const Machine& machine) {
  ASSIGN_OR_RETURN(const ModelPlace model, FindModel(options.model));
  RETURN_IF_ERROR(CheckCount("--stages", options.stages, 0));
  RETURN_IF_ERROR(CheckCount("--replicas", options.replicas, 1));
  RETURN_IF_ERROR(CheckCount("--spares", options.spares, 0));
  RETURN_IF_ERROR(CheckCount("--workers", options.num_workers, 0));
  absl::Duration step_timeout;
  if (!absl::ParseDuration(options.step_timeout, &step_timeout) ||
      step_timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrCat("--step-timeout is '", options.step_timeout,
                                                   "'; expected a duration as 10s or 2m"));
  }
  uint64_t kv_memory_bytes = 0;
  if (!options.kv_memory.empty()) {
    ASSIGN_OR_RETURN(kv_memory_bytes, ParseBytes(options.kv_memory));
  }
  ASSIGN_OR_RETURN(const std::vector<WorkerPlace> places, WorkerPlaces(options, machine));

  LaunchPlan plan;
  plan.threads = options.threads > 0 ? options.threads
                                     : std::max(1, machine.cores / static_cast<int>(places.size()));
  plan.coordinator = MakeService("coordinator", options, machine);
  plan.coordinator.listen = options.coordinator;
  plan.coordinator.restart_address = RestartAddress::kSame;
  auto& arguments = plan.coordinator.command.arguments;
  arguments.insert(arguments.end(), {"--model-dir",      model.directory,
                                     "--model",          model.name,
                                     "--replicas",       absl::StrCat(options.replicas),
                                     "--stages",         absl::StrCat(options.stages),
                                     "--spares",         absl::StrCat(options.spares),
                                     "--kv-memory",      absl::StrCat(kv_memory_bytes),
                                     "--max-context",    absl::StrCat(options.max_context),
                                     "--weights",        options.weights,
                                     "--kv-type",        options.kv_type,
                                     "--link",           options.link,
                                     "--expect-workers", absl::StrCat(places.size())});
  if (options.mix) arguments.push_back("--mix");
  for (size_t i = 0; i < places.size(); ++i) {
    ServiceCommand worker = MakeService("worker", options, machine);
    worker.command.name = absl::StrCat("worker-", i + 1);
    worker.command.arguments.insert(
        worker.command.arguments.end(),
        {"--model-dir", model.directory, "--threads", absl::StrCat(plan.threads), "--device",
         places[i].device, "--step-timeout", options.step_timeout, "--cuda-graphs",
         options.cuda_graphs});
    if (options.deterministic) worker.command.arguments.push_back("--deterministic");
    if (!options.nccl_library.empty()) {
      worker.command.arguments.insert(worker.command.arguments.end(),
                                      {"--nccl-library", options.nccl_library});
    }
    if (places[i].memory_bytes > 0) {
      worker.command.arguments.insert(worker.command.arguments.end(),
                                      {"--memory", absl::StrCat(places[i].memory_bytes)});
    }
    plan.workers.push_back(std::move(worker));
  }
  plan.gateway = MakeService("gateway", options, machine);
  plan.gateway.listen = options.grpc;
  plan.gateway.metrics = options.http;
  plan.gateway.restart_address = RestartAddress::kSame;
  return plan;
}

}  // namespace sauva
