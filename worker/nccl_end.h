#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/nccl_library.h"
#include "kernels/nccl_pair.h"
#include "worker/loose_threads.h"
#include "worker/nccl_session.h"

namespace sauva {

// What an end of a link needs of NCCL; a value.
struct NcclAccess {
  std::optional<NcclLibrary> functions;  // none: this worker makes none
  std::string device;                    // as MakeTransferMemory takes it
  NcclOptions options;
};

// What a worker makes its ends of NCCL links with, and the threads on which NCCL is called. A
// stage has two ends at most and one donor; what is beyond aborts an earlier epoch's, or hangs.
struct NcclSetup : NcclAccess {
  LooseThreads ends{8};
  LooseThreads donors{1};
  LooseThreads receivers{2};  // that abort what weights came by
};

// A pair that moves up to so many bytes at once. Errors: FAILED_PRECONDITION where this worker
// has no NCCL; those of MakeTransferMemory.
absl::StatusOr<std::unique_ptr<NcclPair>> OpenNcclPair(const NcclAccess& nccl, int64_t bytes);

// One end of an NCCL link for the time of one epoch: a thread that runs an NcclSession
// against an NcclPair, so that neither the worker's loop nor gRPC waits for NCCL. The bound
// of its buffer is a step's hidden states.
// Thread: Give from any; handlers are called on the end's own thread, and must neither
// destroy it nor wait for who does.
class NcclEnd {
 public:
  struct Handlers {
    // What both ends join with, on the side that sends; before all else.
    std::function<void(const NcclId&)> on_id;
    std::function<void()> on_joined;
    std::function<void(const HiddenAnnounced&)> announce;  // to the other end, by gRPC
    std::function<void(HiddenStates)> on_received;
    std::function<void(const NcclLost&)> on_lost;  // at most once; nothing follows
  };

  // Begins to join the other end; the side that sends makes the id first.
  // Errors: RESOURCE_EXHAUSTED while too many earlier ends hang in NCCL.
  static absl::StatusOr<std::unique_ptr<NcclEnd>> Start(const NcclSetup& setup, NcclStarted started,
                                                        Handlers handlers);
  // What is in progress is aborted, which nobody waits for; no handler is called any more.
  ~NcclEnd();

  // HiddenAnnounced or HiddenStates. False when as many wait as may.
  [[nodiscard]] bool Give(NcclEvent event);

 private:
  class Runner;
  explicit NcclEnd(std::shared_ptr<Runner> runner);

  // Shared: with its thread, which may hang and then outlives this object.
  const std::shared_ptr<Runner> runner_;
};

}  // namespace sauva
