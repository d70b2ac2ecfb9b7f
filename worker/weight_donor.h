#pragma once

#include <functional>
#include <memory>
#include <string>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
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
    // Model and buffer are there: the other worker may make an id.
    std::function<void()> on_ready;
    // A tensor of so many bytes follows by NCCL.
    std::function<void(uint64_t num_bytes)> announce;
    // It cannot go on; at most once, and nothing follows.
    std::function<void(const absl::Status&)> on_failed;
  };
  // First what both join with, then names of tensors.
  using Wish = std::variant<NcclId, std::string>;

  // Errors: RESOURCE_EXHAUSTED while another worker is sent weights, or a call to NCCL for an
  // earlier one hangs.
  static absl::StatusOr<std::unique_ptr<WeightDonor>> Start(const ModelStore& store,
                                                            const NcclSetup& nccl, ModelRef model,
                                                            Handlers handlers);
  // What is in progress is aborted, which nobody waits for; no handler is called any more.
  ~WeightDonor();

  // False when more wait than a worker that loads ever asks for.
  [[nodiscard]] bool Give(Wish wish);

 private:
  class Runner;
  explicit WeightDonor(std::shared_ptr<Runner> runner);

  // Shared: with its thread, which may hang and then outlives this object.
  const std::shared_ptr<Runner> runner_;
};

}  // namespace sauva
