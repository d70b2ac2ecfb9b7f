#include "kernels/cuda/device_checks.h"

#include "absl/strings/str_cat.h"

namespace sauva::cuda {
namespace {

std::string VersionText(int version) {
  return absl::StrCat(version / 1000, ".", version % 1000 / 10);
}

std::string Named(int index, const DeviceFacts& facts) {
  return absl::StrCat("GPU ", index, " (", facts.name, ")");
}

}  // namespace

// Minor versions are compatible with each other, major versions only backwards.
absl::Status CheckDriver(int driver, int runtime) {
  if (driver == 0) {
    return absl::FailedPreconditionError("no NVIDIA driver is installed on this machine");
  }
  if (driver / 1000 >= runtime / 1000) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("the NVIDIA driver is made for CUDA ",
                                                    VersionText(driver), "; this build needs CUDA ",
                                                    VersionText(runtime), ": update the driver"));
}

absl::Status CheckIndex(int index, int count) {
  if (index >= 0 && index < count) return absl::OkStatus();
  return absl::NotFoundError(
      absl::StrCat("GPU ", index, " of ", count, "; they are counted from 0"));
}

absl::Status NoCodeFor(int index, const DeviceFacts& facts, const std::string& architectures) {
  return absl::FailedPreconditionError(
      absl::StrCat(Named(index, facts), " has compute capability ", facts.compute_capability / 10,
                   ".", facts.compute_capability % 10, "; this build has code for ", architectures,
                   " (SAUVA_CUDA_ARCHITECTURES)"));
}

absl::Status CheckBudget(int index, const DeviceFacts& facts, int64_t budget_bytes) {
  if (budget_bytes <= facts.free_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("a budget of ", budget_bytes, " bytes on ", Named(index, facts), ", of whose ",
                   facts.total_bytes, " bytes ", facts.free_bytes, " are free"));
}

}  // namespace sauva::cuda
