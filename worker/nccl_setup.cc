#include "worker/nccl_setup.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda_access.h"

namespace sauva {
namespace {

// The name of the memory that NCCL would move for this worker.
absl::StatusOr<std::string> MovedDevice(const WorkerConfig& config, const std::string& worker_id,
                                        const NcclLibrary& library) {
  if (!IsCuda(config.device)) {
    if (library.moves_host_memory) return absl::StrCat("memory of ", worker_id);
    return absl::FailedPreconditionError(
        absl::StrCat("NCCL moves memory of GPUs only; this worker runs on ", config.device));
  }
  if (library.moves_host_memory) {
    return absl::FailedPreconditionError(
        absl::StrCat(config.nccl_library, " moves memory of the host only"));
  }
  ASSIGN_OR_RETURN(const int index, CudaIndex(config.device));
  ASSIGN_OR_RETURN(const std::string id, CudaDeviceId(index));
  return config.nccl_host_id.empty() ? id : absl::StrCat(id, " on ", config.nccl_host_id);
}

}  // namespace

NcclFacts OpenNccl(const WorkerConfig& config, const std::string& worker_id, NcclSetup& setup) {
  if (!IsCuda(config.device) && config.nccl_library.empty()) {
    return {.error = absl::StrCat("it runs on ", config.device, "; NCCL moves memory of GPUs")};
  }
  absl::StatusOr<NcclLibrary> library =
      OpenNcclLibrary(config.nccl_library.empty() ? kDefaultNcclLibrary : config.nccl_library);
  if (!library.ok()) return {.error = std::string(library.status().message())};
  absl::StatusOr<std::string> device = MovedDevice(config, worker_id, *library);
  if (!device.ok()) return {.error = std::string(device.status().message())};
  NcclFacts facts{.version = library->version, .device = *std::move(device)};
  setup.functions = *std::move(library);
  return facts;
}

}  // namespace sauva
