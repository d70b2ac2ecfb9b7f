#include "worker/memory_budget.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <limits>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/parse_bytes.h"
#include "base/status_macros.h"
#include "kernels/cuda_access.h"
#include "kernels/nccl_pair.h"

namespace sauva {
namespace {

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::optional<uint64_t> ParseNumber(const std::string& text) {
  uint64_t value = 0;
  if (!absl::SimpleAtoi(absl::StripAsciiWhitespace(text), &value)) return std::nullopt;
  return value;
}

}  // namespace

absl::StatusOr<uint64_t> AvailableMemoryBytes(const std::string& meminfo,
                                              const std::string& cgroup_limit,
                                              const std::string& cgroup_usage) {
  std::optional<uint64_t> available;
  for (const absl::string_view line : absl::StrSplit(meminfo, '\n')) {
    absl::string_view rest = line;
    if (!absl::ConsumePrefix(&rest, "MemAvailable:") || !absl::ConsumeSuffix(&rest, "kB")) continue;
    if (const auto kilobytes = ParseNumber(std::string(rest))) available = *kilobytes * 1024;
  }
  if (!available) return absl::UnavailableError("/proc/meminfo names no MemAvailable");
  const std::optional<uint64_t> limit = ParseNumber(cgroup_limit);
  if (!limit) return *available;
  const uint64_t usage = ParseNumber(cgroup_usage).value_or(0);
  return std::min(*available, *limit > usage ? *limit - usage : 0);
}

absl::StatusOr<uint64_t> AvailableMemoryBytes() {
  const std::string version2 = "/sys/fs/cgroup/memory.";
  const std::string version1 = "/sys/fs/cgroup/memory/memory.";
  std::string limit = ReadFile(version2 + "max");
  std::string usage = ReadFile(version2 + "current");
  if (limit.empty()) {
    limit = ReadFile(version1 + "limit_in_bytes");
    usage = ReadFile(version1 + "usage_in_bytes");
  }
  return AvailableMemoryBytes(ReadFile("/proc/meminfo"), limit, usage);
}

absl::StatusOr<uint64_t> DeviceMemoryBudget(const std::string& device, const std::string& stated) {
  constexpr double kDefaultShare = 0.8;
  ASSIGN_OR_RETURN(const int index, CudaIndex(device));
  if (stated.empty()) {
    ASSIGN_OR_RETURN(const uint64_t free_bytes, FreeCudaMemory(index));
    return static_cast<uint64_t>(static_cast<double>(free_bytes) * kDefaultShare);
  }
  ASSIGN_OR_RETURN(const uint64_t bytes, ParseBytes(stated));
  if (bytes > kCudaContextBytes) return bytes - kCudaContextBytes;
  return absl::InvalidArgumentError(absl::StrCat("a memory budget of ", bytes, " bytes on ", device,
                                                 ", of which the context of ",
                                                 "the driver alone may take ", kCudaContextBytes));
}

uint64_t LinkBytes(const StageAssignment& assignment, int hidden_size) {
  const int num_links =
      (assignment.sends_by_nccl() ? 1 : 0) + (assignment.receives_by_nccl() ? 1 : 0);
  const int64_t step_bytes =
      int64_t{assignment.max_step_tokens} * hidden_size * int64_t{sizeof(float)};
  return static_cast<uint64_t>(num_links * (step_bytes + kNcclCommunicatorBytes));
}

absl::StatusOr<uint32_t> MaxKvBlocks(const KvDemand& demand) {
  const uint64_t fixed = demand.weight_bytes + demand.scratch_bytes;
  uint64_t room = demand.budget_bytes > fixed ? demand.budget_bytes - fixed : 0;
  if (demand.kv_memory_bytes > 0) room = std::min(room, demand.kv_memory_bytes);
  const uint64_t blocks =
      std::min(room / std::max<uint64_t>(demand.kv_block_bytes, 1), demand.useful_blocks);
  if (blocks > 0) {
    return static_cast<uint32_t>(std::min<uint64_t>(blocks, std::numeric_limits<int32_t>::max()));
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "no KV block of ", demand.kv_block_bytes, " bytes fits: weights take ", demand.weight_bytes,
      ", scratch and links ", demand.scratch_bytes, " of a memory budget of ", demand.budget_bytes,
      " bytes",
      demand.kv_memory_bytes > 0 ? absl::StrCat("; the KV cache may take ", demand.kv_memory_bytes)
                                 : std::string()));
}

}  // namespace sauva
