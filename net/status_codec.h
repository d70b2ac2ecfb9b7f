#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace sauva {

// The two status types share their codes; messages are kept.
grpc::Status ToGrpc(const absl::Status& status);
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace sauva
