#pragma once

namespace sauva {

// Sends gRPC's own errors through our log, among them the text of an assertion it dies of,
// and Protobuf's at debug level (what matters of them reaches us as a status), and drops
// the rest, so that standard error holds lines of one form.
// Process-wide; idempotent.
void RouteGrpcLog();

}  // namespace sauva
