#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace sauva {

// A gRPC status that tells the client when to try again: its details are a serialized
// google.rpc.Status with one google.rpc.RetryInfo, which clients of every language read.
// Source: googleapis, google/rpc/status.proto and google/rpc/error_details.proto.
grpc::Status WithRetryInfo(const absl::Status& status, absl::Duration retry_after);

}  // namespace sauva
