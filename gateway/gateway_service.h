#pragma once

#include <grpcpp/impl/codegen/service_type.h>

#include <memory>

#include "absl/time/time.h"
#include "gateway/coordinator_client.h"
#include "gateway/gateway.h"

namespace sauva {

struct GatewayServiceOptions {
  absl::Duration retry_after = absl::Seconds(1);  // told to clients that were refused
  // Responses that may wait for a slow reader before it is cut off: for each sample of a
  // call, and for the call at most.
  size_t max_unread_responses = 1024;
  size_t max_unread_responses_of_call = 16384;
};

// sauva.v1.GenerationService, in front of a gateway. Both must outlive the service.
std::unique_ptr<grpc::Service> MakeGatewayService(Gateway& gateway, CoordinatorClient& coordinator,
                                                  const GatewayServiceOptions& options);

}  // namespace sauva
