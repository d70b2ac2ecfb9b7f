#pragma once

namespace sauva {

// Keeps gRPC's queue for callbacks until the process ends. Without it, the queue goes with
// the last server or channel; when that is let go of by a callback, on one of the queue's own
// threads, gRPC aborts the process (CallbackAlternativeCQ in gRPC 1.51).
// Thread: any. Idempotent.
void KeepCallbackQueue();

}  // namespace sauva
