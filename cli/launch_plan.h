#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/supervisor.h"
#include "net/tls.h"

namespace sauva {

// What `sauva up` was asked for, as its flags say it.
struct UpOptions {
  std::string model;    // a model's directory
  int num_workers = 0;  // 0: as many as stages, replicas and spares need
  // One each: "cpu[:MEMORY]", "cuda:N[:MEMORY]" or "reference[:MEMORY]".
  std::vector<std::string> workers;
  int stages = 0;  // 0: what placement chooses
  int replicas = 1;
  int spares = 0;
  bool mix = false;  // a pipeline may span workers of unlike backends
  bool no_restart = false;
  int threads = 0;                 // per worker; 0: cores / workers
  std::string device = "cpu";      // or "cpu:scalar", "cpu:avx2", "cpu:avx512"
  bool deterministic = false;      // GPUs compute the bits of the CPU
  std::string weights = "native";  // or "int8"
  std::string kv_type = "f32";     // "f16" or "int8"
  std::string kv_memory;           // a size; empty: what the budgets leave
  int max_context = 0;
  std::string link = "auto";         // or "grpc", "nccl"
  std::string cuda_graphs = "on";    // or "off"
  std::string nccl_library;          // a path; empty: as the loader finds it
  std::string step_timeout = "10s";  // a duration; a longer step breaks its pipeline
  std::string grpc = "127.0.0.1:7070";
  std::string http = "127.0.0.1:8080";
  std::string coordinator = "127.0.0.1:7071";
  std::string log_directory;
  bool json = false;
  TlsOptions tls;
};

// The machine that the cluster starts on.
struct Machine {
  int cores = 1;
  uint64_t memory_bytes = 0;     // free for the workers
  std::string binary_directory;  // where the services' binaries lie
  bool has_cuda = false;         // the binaries have the CUDA backend
};

// The commands of a cluster. Workers and gateway get `--coordinator` once it listens.
struct LaunchPlan {
  ServiceCommand coordinator;
  std::vector<ServiceCommand> workers;
  ServiceCommand gateway;
  int threads = 1;  // of each worker
};

// Errors: INVALID_ARGUMENT naming the flag and the value; NOT_FOUND for a model directory
// that is not there or holds no config.json; UNIMPLEMENTED for a device this build lacks.
absl::StatusOr<LaunchPlan> MakeLaunchPlan(const UpOptions& options, const Machine& machine);

}  // namespace sauva
