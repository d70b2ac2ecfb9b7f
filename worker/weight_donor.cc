#include "worker/weight_donor.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <span>
#include <utility>

#include "base/bounded_queue.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "model/model.h"
#include "worker/weight_transfer.h"

namespace sauva {

// What the thread of a donor owns.
class WeightDonor::Runner {
 public:
  Runner(const ModelStore& store, NcclAccess nccl, ModelRef model, Handlers handlers)
      : store_(store),
        nccl_(std::move(nccl)),
        model_(std::move(model)),
        wishes_(4),
        handlers_(std::move(handlers)) {}

  void Run() {
    if (const absl::Status status = Send(); !status.ok()) Tell(&Handlers::on_failed, status);
  }
  // From other threads.
  bool Give(Wish wish) { return wishes_.TryPush(std::move(wish)); }
  void End() {
    {
      const std::lock_guard lock(telling_);
      handlers_ = {};
    }
    cancelled_ = true;
    wishes_.Close();
  }

 private:
  absl::Status Send();
  absl::Status Join(NcclPair& pair);
  absl::Status SendTensor(NcclPair& pair, std::span<const std::byte> bytes);
  absl::Status Await(NcclPair& pair, absl::Duration timeout) {
    return AwaitNccl(pair, timeout, [this] { return cancelled_.load(); });
  }

  // Calls a handler unless the donor was ended. Whoever ends it waits for a handler that is
  // just being called, never for NCCL.
  template <class F, class... Args>
  void Tell(F Handlers::*which, Args&&... args) {
    const std::lock_guard lock(telling_);
    if (handlers_.*which) (handlers_.*which)(std::forward<Args>(args)...);
  }

  const ModelStore store_;
  const NcclAccess nccl_;
  const ModelRef model_;
  BoundedQueue<Wish> wishes_;
  std::atomic<bool> cancelled_{false};
  std::mutex telling_;
  Handlers handlers_;  // guarded by telling_
};

absl::StatusOr<std::unique_ptr<WeightDonor>> WeightDonor::Start(const ModelStore& store,
                                                                const NcclSetup& nccl,
                                                                ModelRef model, Handlers handlers) {
  const auto runner = std::make_shared<Runner>(store, nccl, std::move(model), std::move(handlers));
  if (!nccl.donors.Start([runner] { runner->Run(); }).ok()) {
    return absl::ResourceExhaustedError("this worker sends weights to another");
  }
  return std::unique_ptr<WeightDonor>(new WeightDonor(runner));
}

WeightDonor::WeightDonor(std::shared_ptr<Runner> runner) : runner_(std::move(runner)) {}
WeightDonor::~WeightDonor() { runner_->End(); }
bool WeightDonor::Give(Wish wish) { return runner_->Give(std::move(wish)); }

absl::Status WeightDonor::Runner::Send() {
  ASSIGN_OR_RETURN(const Model model, store_.Open(model_));
  std::unique_ptr<NcclPair> pair;
  ASSIGN_OR_RETURN(pair, OpenWeightPair(nccl_));
  Tell(&Handlers::on_ready);
  RETURN_IF_ERROR(Join(*pair));
  uint64_t num_bytes = 0;
  while (const std::optional<Wish> wish = wishes_.Pop()) {
    const std::string* name = std::get_if<std::string>(&*wish);
    if (name == nullptr) return absl::FailedPreconditionError("a second id of NCCL");
    ASSIGN_OR_RETURN(const StoredTensor tensor, model.checkpoint->Find(*name));
    Tell(&Handlers::announce, tensor.bytes.size());
    RETURN_IF_ERROR(SendTensor(*pair, tensor.bytes));
    num_bytes += tensor.bytes.size();
  }
  LogInfo("weights sent to another worker", {{"model", model.name}, {"bytes", num_bytes}});
  return absl::OkStatus();
}

absl::Status WeightDonor::Runner::Join(NcclPair& pair) {
  const std::optional<Wish> first = wishes_.Pop();
  if (!first) return absl::CancelledError("the other worker ended the transfer");
  const NcclId* id = std::get_if<NcclId>(&*first);
  if (id == nullptr) return absl::FailedPreconditionError("a tensor was asked for before an id");
  RETURN_IF_ERROR(pair.Join(*id, 0));
  return Await(pair, nccl_.options.join_timeout);
}

absl::Status WeightDonor::Runner::SendTensor(NcclPair& pair, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto piece = bytes.first(std::min<size_t>(bytes.size(), kWeightPieceBytes));
    RETURN_IF_ERROR(pair.Send(piece));
    RETURN_IF_ERROR(Await(pair, nccl_.options.step_timeout));
    bytes = bytes.subspan(piece.size());
  }
  return absl::OkStatus();
}

}  // namespace sauva
