#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/bounded_queue.h"
#include "engine/stage.h"
#include "kernels/backend.h"
#include "worker/worker_session.h"

namespace sauva {

// A stage in memory with the backend it lives on, and what its worker tells of it.
struct HostedStage {
  std::unique_ptr<Backend> backend;  // outlives stage
  std::unique_ptr<Stage> stage;
  LoadedStage loaded;
  uint64_t link_bytes = 0;  // that NCCL links to the neighbours may take
};

using EngineWork = std::variant<LoadLayers, AllocateKv, OpenSequence, CloseSequence, ComputeStep>;
using EngineEvent = std::variant<StageLoaded, KvAllocated, StepComputed, OpenFailed>;

// Memory of a worker's stage by what it is for.
struct StageMemory {
  uint64_t weight_bytes = 0;
  uint64_t kv_bytes = 0;
  uint64_t scratch_bytes = 0;
  uint64_t link_bytes = 0;
};

// The step thread: owns the stage of a worker and does to it what the session says, in
// order. Keeps the weights when an assignment asks for the same layers in the same form.
// Thread: Do and memory from any thread; `tell` is called on the step thread.
class StepRunner {
 public:
  // Loads what an assignment says. Called on the step thread while no stage is in memory.
  using Loader = std::function<absl::StatusOr<HostedStage>(const StageAssignment&)>;
  using Tell = std::function<void(EngineEvent)>;

  // At most `capacity` pieces of work wait.
  StepRunner(Loader loader, Tell tell, size_t capacity = 1 << 14);
  // Ends after the work in hand.
  ~StepRunner();

  // Returns false when too much waits; a session gives no more than it was promised.
  [[nodiscard]] bool Do(EngineWork work) { return queue_.TryPush(std::move(work)); }

  // Takes no more work and waits for the thread to end. Idempotent.
  void Stop();

  StageMemory memory() const;

 private:
  void Run();
  void Execute(LoadLayers& work);
  void Execute(AllocateKv& work);
  void Execute(OpenSequence& work);
  void Execute(CloseSequence& work);
  void Execute(ComputeStep& work);
  void Remember(const StageMemory& memory);

  const Loader loader_;
  const Tell tell_;
  BoundedQueue<EngineWork> queue_;

  // The step thread's.
  HostedStage hosted_;
  StageAssignment assignment_;  // of what is hosted
  uint64_t epoch_ = 0;          // of the work now coming

  mutable std::mutex mutex_;
  StageMemory memory_;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace sauva
