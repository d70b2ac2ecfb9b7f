#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "base/bounded_queue.h"
#include "kernels/nccl_library.h"
#include "worker/model_store.h"
#include "worker/nccl_end.h"

namespace sauva {

// Sends tensors of a model to another worker that loads the same layers: a thread that reads
// them as they stand in the checkpoint, in the order in which they are asked for.
// Thread: Give from any; handlers are called on the donor's own thread and must not destroy it.
class WeightDonor {
 public:
  struct Handlers {
    // The communicator is joined from here on.
    std::function<void()> on_ready;
    // A tensor of so many bytes follows by NCCL.
    std::function<void(uint64_t num_bytes)> announce;
    // It cannot go on; at most once, and nothing follows.
    std::function<void(const absl::Status&)> on_failed;
  };

  // Begins to join the other worker under its id. `store` and `nccl` must outlive the donor.
  WeightDonor(const ModelStore& store, const NcclSetup& nccl, ModelRef model, const NcclId& id,
              Handlers handlers);
  // Aborts what is in progress and waits for the thread.
  ~WeightDonor();

  // Asks for a tensor. False when more wait than a worker that loads ever asks for.
  [[nodiscard]] bool Give(std::string tensor) { return wanted_.TryPush(std::move(tensor)); }

 private:
  absl::Status Run();
  absl::Status SendTensor(NcclPair& pair, std::span<const std::byte> bytes);
  bool cancelled() const { return cancelled_.load(); }

  const ModelStore& store_;
  const NcclSetup& nccl_;
  const ModelRef model_;
  const NcclId id_;
  const Handlers handlers_;
  BoundedQueue<std::string> wanted_;
  std::atomic<bool> cancelled_{false};
  std::thread thread_;
};

}  // namespace sauva
