#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "worker/step_runner.h"

namespace sauva {

struct ModelStoreOptions {
  std::string model_dir;       // parent of model directories
  std::string device = "cpu";  // as MakeBackend takes it
  int threads = 0;
  uint64_t memory_bytes = 0;  // for weights, scratch and KV cache
};

// Finds models by name and loads runs of their layers within the worker's memory.
// Thread: const methods are safe from any thread.
class ModelStore {
 public:
  explicit ModelStore(const ModelStoreOptions& options) : options_(options) {}

  // Opens the assignment's model, makes sure it is the very one, and loads its layers.
  // Errors: INVALID_ARGUMENT (a name that leaves the directory, an unknown format, layers
  // the model lacks), NOT_FOUND (no such model), FAILED_PRECONDITION naming both digests,
  // RESOURCE_EXHAUSTED naming the bytes asked for and the budget.
  absl::StatusOr<HostedStage> Load(const StageAssignment& assignment) const;

 private:
  const ModelStoreOptions options_;
};

}  // namespace sauva
