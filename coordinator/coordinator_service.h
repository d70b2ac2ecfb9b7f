#pragma once

#include <grpcpp/impl/codegen/service_type.h>

#include <memory>

#include "coordinator/model_catalog.h"
#include "coordinator/runtime.h"

namespace sauva {

inline constexpr const char* kCoordinatorServiceName = "sauva.v1.CoordinatorService";

// CoordinatorService over gRPC. `runtime` and `catalog` must outlive it.
std::unique_ptr<grpc::Service> MakeCoordinatorService(CoordinatorRuntime& runtime,
                                                      ModelCatalog& catalog);

}  // namespace sauva
