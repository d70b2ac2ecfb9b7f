#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/events.h"
#include "proto/control.h"

// What the coordinator remembers of workers, pipelines and models.
namespace sauva {

// Weights that a worker has in memory, serving or not.
struct HeldWeights {
  std::string digest;
  std::string weight_format;
  LayerRange layers;
};

struct WorkerRecord {
  WorkerHello hello;
  ConnectionId connection = 0;  // 0: its stream ended and it may join again
  absl::Time gone_at;           // when connection is 0
  absl::Time last_heard;
  uint64_t epoch = 0;  // of its pipeline; 0: spare
  HeldWeights held;

  // A stage of a pipeline this coordinator did not make and may adopt.
  std::optional<StageReport> orphan;
  absl::Time orphan_since;

  // Its pipeline ended then and nothing was heard from it since: it may be what ended it.
  std::optional<absl::Time> silent_since;
  int offences = 0;                              // times it was named since it last served well
  absl::Time not_before = absl::InfinitePast();  // back-off

  bool draining = false;
  bool drained = false;
  absl::Time drain_deadline;
  std::vector<Ticket> drain_tickets;

  const std::string& id() const { return hello.worker_id; }
  bool connected() const { return connection != 0; }
};

struct PipelineRecord {
  enum class Phase { kLoading, kStarting, kReady };

  StageAssignment assignment;  // as sent to stage 0
  Phase phase = Phase::kLoading;
  std::vector<std::optional<StageReport>> reports;  // the newest of each stage
  absl::Time created_at;
  absl::Time ready_at;  // when kReady
  uint32_t num_kv_blocks = 0;

  // Dispatches that the head's last report cannot know of.
  uint32_t unreported_dispatches = 0;
  absl::Time last_dispatch_at = absl::InfinitePast();

  // Gets no new requests while another pipeline can take them, and ends when idle or at
  // the deadline; it does not count as a replica.
  bool retiring = false;
  absl::Time retire_deadline;

  uint64_t epoch() const { return assignment.epoch; }
  const std::vector<StageEndpoint>& stages() const { return assignment.stages; }
  bool ready() const { return phase == Phase::kReady; }

  // Index of the worker's stage, or -1.
  int StageOf(const std::string& worker_id) const {
    const auto found = std::ranges::find(stages(), worker_id, &StageEndpoint::worker_id);
    return found == stages().end() ? -1 : static_cast<int>(found - stages().begin());
  }
  // Sequences at the head, as far as the coordinator knows.
  uint32_t Load() const {
    const std::optional<StageReport>& head = reports[0];
    const uint32_t reported = head ? head->running_sequences + head->waiting_sequences : 0;
    return reported + unreported_dispatches;
  }
};

// What is remembered of the links of a pipeline that ended: an end of one may say only then
// that it failed.
struct EndedLinks {
  uint64_t epoch = 0;
  std::vector<StageEndpoint> stages;
  std::vector<char> reached;  // by a step, each stage
  bool failure_noted = false;
};

struct ModelRecord {
  ModelDescription description;
  int replicas = 1;
  int target_workers = 0;                        // in use when all replicas were last placed
  bool was_served = false;                       // since then --stages is a wish, not a condition
  int failures = 0;                              // of pipelines in a row, without a worker to blame
  absl::Time not_before = absl::InfinitePast();  // back-off
  std::string placement_error;

  const ModelRef& ref() const { return description.ref; }
};

}  // namespace sauva
