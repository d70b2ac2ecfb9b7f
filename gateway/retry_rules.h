#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace sauva {

// What the end of an attempt means for the sample behind it.
enum class Verdict {
  kMove,    // the pipeline or the way to it is gone: the same work can succeed elsewhere
  kBusy,    // a queue is full
  kFault,   // looks like a bug or a stray server: worth a few more tries
  kRefuse,  // the answer to this request, the same everywhere
};

// A head's stream that ended before the sample did. OK is a fault: it ended without saying
// how the sample finished. INTERNAL and UNKNOWN are also what gRPC makes of a stream reset
// by a dying peer, and UNIMPLEMENTED or NOT_FOUND come from a server that now listens
// where a worker did.
Verdict JudgeHead(absl::StatusCode code);

// A Dispatch that failed.
Verdict JudgeDispatch(absl::StatusCode code);

struct Backoff {
  absl::Duration first;
  absl::Duration largest;
};
// The pause before attempt number `fruitless_attempts` + 1 in a row without progress: none
// after the first, then doubling; between half and all of it, spread by `entropy`.
absl::Duration PauseAfter(int fruitless_attempts, const Backoff& backoff, uint64_t entropy);

}  // namespace sauva
