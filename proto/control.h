#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

// The words of the control plane as plain values; control_codec translates them.
namespace sauva {

inline constexpr uint32_t kProtocolVersion = 1;
// Raised whenever the same model, format and seed may give other tokens than before.
inline constexpr uint32_t kNumericsVersion = 3;

struct ModelRef {
  std::string name;
  std::string digest;
  bool operator==(const ModelRef&) const = default;
};

// Layers [first, last) of a model.
struct LayerRange {
  int first = 0;
  int last = 0;
  int size() const { return last - first; }
  bool operator==(const LayerRange&) const = default;
};

// How hidden states go from a stage to the next.
enum class LinkKind { kGrpc, kNccl };

struct StageEndpoint {
  std::string worker_id;
  std::string address;  // host:port of the worker's stage plane
  LayerRange layers;
  LinkKind link = LinkKind::kGrpc;  // to the next stage
  std::string donor;                // address of a worker that sends it the weights; empty: none
  bool operator==(const StageEndpoint&) const = default;
};

// One stage of one pipeline, as a worker is told to serve it.
struct StageAssignment {
  uint64_t epoch = 0;
  ModelRef model;
  int stage_index = 0;
  std::vector<StageEndpoint> stages;  // of the whole pipeline, in order
  std::string weight_format = "native";  // or "int8"
  std::string kv_type = "f32";           // "f16" or "int8"
  uint64_t kv_memory_bytes = 0;          // bound for the KV cache; 0: what the budget leaves
  int max_context = 0;                   // tokens; 0: the model's
  int max_step_tokens = 256;
  int max_sequences = 64;
  std::string numerics_id;

  bool is_head() const { return stage_index == 0; }
  bool is_last() const { return stage_index + 1 == static_cast<int>(stages.size()); }
  LayerRange layers() const { return stages[static_cast<size_t>(stage_index)].layers; }
  bool sends_by_nccl() const {
    return !is_last() && stages[static_cast<size_t>(stage_index)].link == LinkKind::kNccl;
  }
  bool receives_by_nccl() const {
    return !is_head() && stages[static_cast<size_t>(stage_index) - 1].link == LinkKind::kNccl;
  }
  bool operator==(const StageAssignment&) const = default;
};

enum class StagePhase { kLoading, kLoaded, kServing, kFailed };

struct StageReport {
  StageAssignment assignment;
  StagePhase phase = StagePhase::kLoading;
  std::string error;           // kFailed
  uint32_t max_kv_blocks = 0;  // kLoaded: what the budget holds
  uint32_t num_kv_blocks = 0;  // kServing: the pipeline's pool
  uint64_t weight_bytes = 0;
  uint64_t scratch_bytes = 0;  // of steps
  uint64_t kv_bytes = 0;
  uint64_t steps_done = 0;
  uint64_t tokens_done = 0;
  double step_seconds = 0;
  uint32_t running_sequences = 0;  // head only
  uint32_t waiting_sequences = 0;  // head only
  uint32_t free_kv_blocks = 0;     // head only
};

// What a worker knows of NCCL on its machine.
struct NcclFacts {
  std::string version;  // as "2.28.9"; empty: it can have no NCCL link
  std::string device;   // whose memory it moves; two ranks of a link need two
  std::string error;    // why the version is empty
};

// Worker to coordinator.
struct WorkerHello {
  std::string worker_id;
  uint32_t protocol_version = kProtocolVersion;
  uint32_t numerics_version = kNumericsVersion;
  std::string address;
  std::string metrics_address;
  std::string backend_class = "cpu";
  uint64_t memory_bytes = 0;
  double read_bytes_per_second = 0;
  double operations_per_second = 0;
  double link_bytes_per_second = 0;
  int threads = 0;  // that compute, on a CPU
  std::string build_id;
  std::optional<StageReport> stage;  // what it still serves
  uint64_t newest_epoch = 0;         // the highest it was ever told to serve; 0: none
  NcclFacts nccl;
};

struct Heartbeat {
  std::optional<StageReport> stage;
  bool draining = false;
};

struct StageBroken {
  uint64_t epoch = 0;
  std::string suspect_worker_id;  // empty: unknown
  std::string reason;
  // The link by NCCL that failed: index of the stage that sends on it. None: something else did.
  std::optional<int> nccl_link = std::nullopt;
};

// Coordinator to worker.
struct Welcome {
  uint32_t protocol_version = kProtocolVersion;
  int lease_ms = 0;
  int heartbeat_ms = 0;
};
struct StartStage {
  uint64_t epoch = 0;
  uint32_t num_kv_blocks = 0;
};
struct StopStage {
  uint64_t epoch = 0;  // stages of this epoch or an older one end
  std::string reason;
};
struct DrainWorker {
  int timeout_ms = 0;
};

// Gateway and coordinator.
struct DispatchRequest {
  std::string model;  // empty: the only one
  std::string request_id;
  uint32_t num_tokens = 0;   // prompt plus the most that may be generated
  std::string numerics_id;   // preferred; empty: any
  bool require_numerics = false;
  std::vector<uint64_t> broken_epochs;  // pipelines this stream already lost
};

struct DispatchReply {
  ModelRef model;
  uint64_t epoch = 0;
  std::string head_address;
  std::string numerics_id;
  uint32_t max_context = 0;
};

struct StageStatus {
  StageEndpoint endpoint;
  StageReport report;
  std::string metrics_address;
};

struct PipelineStatus {
  uint64_t epoch = 0;
  ModelRef model;
  bool ready = false;
  std::string numerics_id;
  std::vector<StageStatus> stages;
};

struct WorkerStatus {
  WorkerHello hello;
  uint32_t last_heartbeat_ms = 0;  // age
  bool draining = false;
  uint64_t epoch = 0;  // 0: spare
};

struct ServedModel {
  ModelRef model;
  uint32_t max_context = 0;
  uint32_t vocab_size = 0;
  uint32_t ready_pipelines = 0;
};

// Two workers between which NCCL is not tried, since it could not connect them.
struct AvoidedLink {
  std::string worker_id;
  std::string other_worker_id;
  int failures = 0;  // in a row
  std::string reason;  // of the last one
  uint32_t retry_ms = 0;  // until NCCL may be tried again; 0: at the next placement
  bool operator==(const AvoidedLink&) const = default;
};

struct ClusterStatus {
  std::vector<WorkerStatus> workers;
  std::vector<PipelineStatus> pipelines;
  uint32_t waiting_dispatches = 0;
  std::string build_id;
  std::vector<ServedModel> models;
  std::string placement_error;  // why no pipeline can be placed; empty: none
  std::vector<AvoidedLink> avoided_links;
};

}  // namespace sauva
