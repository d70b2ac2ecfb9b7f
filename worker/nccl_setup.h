#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "proto/control.h"
#include "worker/nccl_end.h"
#include "worker/worker.h"

namespace sauva {

// Opens the NCCL that a worker of this configuration uses, into `setup`, and says what the
// coordinator chooses links by. A worker without NCCL is no error: the facts say why.
NcclFacts OpenNccl(const WorkerConfig& config, const std::string& worker_id, NcclSetup& setup);

}  // namespace sauva
