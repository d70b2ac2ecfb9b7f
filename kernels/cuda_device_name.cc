#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda_access.h"

namespace sauva {

bool IsCuda(const std::string& device) {
  return device == "cuda" || absl::StartsWith(device, "cuda:");
}

absl::StatusOr<int> CudaIndex(const std::string& device) {
  if (device == "cuda") return 0;
  int index = 0;
  if (IsCuda(device) && absl::SimpleAtoi(device.substr(5), &index) && index >= 0) return index;
  return absl::InvalidArgumentError(
      absl::StrCat("device ", device, ": cuda or cuda:N expected, N a number from 0"));
}

}  // namespace sauva
