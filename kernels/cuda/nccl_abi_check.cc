// Nothing but comparisons: kernels/nccl_abi.h against the toolkit's nccl.h.
#include <nccl.h>

#include <cstddef>

#include "kernels/nccl_abi.h"

namespace sauva::nccl {

static_assert(sizeof(UniqueId) == sizeof(ncclUniqueId));
static_assert(int{kSuccess} == int{ncclSuccess} && int{kSystemError} == int{ncclSystemError} &&
              int{kInvalidUsage} == int{ncclInvalidUsage} &&
              int{kRemoteError} == int{ncclRemoteError} && int{kInProgress} == int{ncclInProgress});
static_assert(int{kUint8} == int{ncclUint8});
static_assert(offsetof(Config, size) == offsetof(ncclConfig_t, size) &&
              offsetof(Config, magic) == offsetof(ncclConfig_t, magic) &&
              offsetof(Config, version) == offsetof(ncclConfig_t, version) &&
              offsetof(Config, blocking) == offsetof(ncclConfig_t, blocking) &&
              offsetof(Config, cga_cluster_size) == offsetof(ncclConfig_t, cgaClusterSize) &&
              offsetof(Config, min_ctas) == offsetof(ncclConfig_t, minCTAs) &&
              offsetof(Config, max_ctas) == offsetof(ncclConfig_t, maxCTAs) &&
              offsetof(Config, net_name) == offsetof(ncclConfig_t, netName) &&
              offsetof(Config, split_share) == offsetof(ncclConfig_t, splitShare));
static_assert(sizeof(Config) <= sizeof(ncclConfig_t));

}  // namespace sauva::nccl
