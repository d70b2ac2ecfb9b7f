#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/cuda_access.h"
#include "model/model.h"
#include "net/tls.h"
#include "worker/nccl_end.h"
#include "worker/step_runner.h"

namespace sauva {

struct ModelStoreOptions {
  std::string model_dir;       // parent of model directories
  std::string device = "cpu";  // as MakeBackend takes it
  int threads = 0;
  uint64_t memory_bytes = 0;  // for weights, scratch and KV cache
  CudaOptions cuda;
  // To receive weights from other workers with; must outlive the store. Null: none are.
  const NcclSetup* nccl = nullptr;
  TlsOptions tls;
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
  // Where the assignment names a donor the weights come from it, or from disk when it fails.
  absl::StatusOr<HostedStage> Load(const StageAssignment& assignment) const;

  // The very model, none of whose tensors is read yet. Errors: as Load.
  absl::StatusOr<Model> Open(const ModelRef& wanted) const;

 private:
  absl::StatusOr<std::unique_ptr<Stage>> LoadStage(Backend& backend, const Model& model,
                                                   const StageAssignment& assignment,
                                                   const StageOptions& options) const;

  const ModelStoreOptions options_;
};

}  // namespace sauva
