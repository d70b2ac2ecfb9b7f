#pragma once

#include <iosfwd>

#include "absl/status/status.h"
#include "cli/launch_plan.h"

namespace sauva {

// Runs `sauva up`: starts a coordinator, its workers and a gateway, prints the plan and one
// line beginning with "ready" (or its JSON object) on `out` once they serve, keeps them
// alive, and drains gateway, workers and coordinator in this order on SIGINT or SIGTERM.
// Errors: UNAVAILABLE with the last log lines of a child that dies at its start;
// RESOURCE_EXHAUSTED when the model cannot be placed; CANCELLED when interrupted before
// anything was ready.
// Thread: the main thread.
absl::Status RunUp(const UpOptions& options, LaunchPlan plan, std::ostream& out,
                   std::ostream& notes);

}  // namespace sauva
