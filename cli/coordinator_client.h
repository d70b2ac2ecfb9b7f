#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "net/tls.h"
#include "proto/control.h"

namespace sauva {

// What the coordinator at host:port knows of its cluster.
// Errors: UNAVAILABLE naming the address when nobody answers; DEADLINE_EXCEEDED; what the
// coordinator answers; as MakeChannelCredentials.
// Thread: any; waits at most `timeout`.
absl::StatusOr<ClusterStatus> FetchClusterStatus(const std::string& address, const TlsOptions& tls,
                                                 absl::Duration timeout);

}  // namespace sauva
