#pragma once

namespace sauva {

// Sends gRPC's own errors through our log at debug level (what matters reaches us as a
// status) and drops the rest, so that standard error holds lines of one form.
// Process-wide; idempotent.
void RouteGrpcLog();

}  // namespace sauva
