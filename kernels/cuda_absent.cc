#include "absl/strings/str_cat.h"
#include "kernels/cuda_access.h"
#include "kernels/transfer_memory.h"

// The way to CUDA in a build without it.
namespace sauva {
namespace {

absl::Status Absent(int index) {
  return absl::FailedPreconditionError(absl::StrCat(
      "device cuda:", index, ": this build has no CUDA; configure with SAUVA_CUDA=ON"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(int index, int64_t /*memory_bytes*/,
                                                         const CudaOptions& /*options*/) {
  return Absent(index);
}
bool BuildHasCuda() { return false; }
absl::StatusOr<uint64_t> FreeCudaMemory(int index) { return Absent(index); }
absl::Status CheckCudaMemory(int index, uint64_t /*bytes*/) { return Absent(index); }
absl::StatusOr<CudaRates> MeasureCudaRates(int index) { return Absent(index); }
absl::StatusOr<std::string> CudaDeviceId(int index) { return Absent(index); }
absl::StatusOr<std::unique_ptr<TransferMemory>> MakeCudaTransferMemory(int index,
                                                                       int64_t /*bytes*/) {
  return Absent(index);
}

}  // namespace sauva
