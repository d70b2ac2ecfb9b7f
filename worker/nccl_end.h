#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "kernels/nccl_library.h"
#include "kernels/nccl_pair.h"
#include "worker/nccl_session.h"

namespace sauva {

// What a worker makes its ends of NCCL links with.
struct NcclSetup {
  std::optional<NcclLibrary> library;  // none: this worker makes none
  std::string device;                  // as MakeTransferMemory takes it
  NcclOptions options;
};

// A pair that moves up to so many bytes at once. Errors: FAILED_PRECONDITION where this worker
// has no NCCL; those of MakeTransferMemory.
absl::StatusOr<std::unique_ptr<NcclPair>> OpenNcclPair(const NcclSetup& setup, int64_t bytes);

// One end of an NCCL link for the time of one epoch: a thread that runs an NcclSession
// against an NcclPair, so that neither the worker's loop nor gRPC waits for NCCL. The bound
// of its buffer is a step's hidden states.
// Thread: Give from any; handlers are called on the end's own thread, and must neither
// destroy it nor wait for who does.
class NcclEnd {
 public:
  struct Handlers {
    std::function<void()> on_joined;
    std::function<void(const HiddenAnnounced&)> announce;  // to the other end, by gRPC
    std::function<void(HiddenStates)> on_received;
    std::function<void(const std::string& reason)> on_lost;  // at most once; nothing follows
  };

  // Begins to join the other end.
  NcclEnd(const NcclSetup& setup, NcclStarted started, Handlers handlers);
  // Aborts what is in progress and waits for the thread.
  ~NcclEnd();

  // HiddenAnnounced or HiddenStates. False when as many wait as may.
  [[nodiscard]] bool Give(NcclEvent event);

 private:
  void Run();
  // The next event, or a tick when one is due; nothing when the end shall end.
  std::optional<NcclEvent> Next();
  void Do(const JoinNccl& effect);
  void Do(const PollNccl& effect);
  void Do(const BeginNcclSend& effect);
  void Do(const BeginNcclReceive& effect);
  void Do(const AbortNccl& effect);
  void Do(const NcclJoined& effect);
  void Do(const HiddenAnnounced& effect);
  void Do(HiddenStates& effect);
  void Do(const NcclLost& effect);
  absl::Status OpenPair();
  // What a call that began something says, unless it began.
  void Answer(const absl::Status& status);

  const NcclSetup setup_;
  const uint64_t epoch_;
  const size_t max_values_;
  const Handlers handlers_;
  // The end's thread's.
  NcclSession session_;
  std::unique_ptr<NcclPair> pair_;
  std::deque<NcclEvent> answers_;  // of the pair, before what others give

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<NcclEvent> given_;  // guarded by mutex_
  bool ending_ = false;          // guarded by mutex_
  std::thread thread_;
};

}  // namespace sauva
