#pragma once

#include <grpcpp/impl/codegen/service_type.h>

#include <memory>

#include "absl/time/time.h"
#include "gateway/coordinator_client.h"
#include "gateway/gateway.h"
#include "net/outbox_memory.h"

namespace sauva {

struct GatewayServiceOptions {
  absl::Duration retry_after = absl::Seconds(1);  // told to clients that were refused
  // What may wait for a slow reader before it is cut off: responses for each sample of a
  // call and for the call, and the memory they take for the call.
  size_t max_unread_responses = 1024;
  size_t max_unread_responses_of_call = 16384;
  size_t max_unread_bytes_of_call = 4 << 20;
  size_t max_unread_bytes = 256 << 20;  // of all calls together, see OutboxMemory
};

// sauva.v1.GenerationService, in front of a gateway. What waits for slow readers takes its
// room from `unread`. The three must outlive the service and its calls.
std::unique_ptr<grpc::Service> MakeGatewayService(Gateway& gateway, CoordinatorClient& coordinator,
                                                  OutboxMemory& unread,
                                                  const GatewayServiceOptions& options);

}  // namespace sauva
