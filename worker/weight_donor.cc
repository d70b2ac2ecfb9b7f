#include "worker/weight_donor.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/status_macros.h"
#include "model/model.h"
#include "worker/weight_transfer.h"

namespace sauva {

WeightDonor::WeightDonor(const ModelStore& store, const NcclSetup& nccl, ModelRef model,
                         const NcclId& id, Handlers handlers)
    : store_(store),
      nccl_(nccl),
      model_(std::move(model)),
      id_(id),
      handlers_(std::move(handlers)),
      wanted_(4),
      thread_([this] {
        const absl::Status status = Run();
        if (!status.ok() && !cancelled()) handlers_.on_failed(status);
      }) {}

WeightDonor::~WeightDonor() {
  cancelled_ = true;
  wanted_.Close();
  thread_.join();
}

absl::Status WeightDonor::Run() {
  ASSIGN_OR_RETURN(const Model model, store_.Open(model_));
  std::unique_ptr<NcclPair> pair;
  ASSIGN_OR_RETURN(pair, OpenWeightPair(nccl_));
  RETURN_IF_ERROR(pair->Join(id_, 0));
  handlers_.on_ready();
  RETURN_IF_ERROR(AwaitNccl(*pair, nccl_.options.join_timeout, [this] { return cancelled(); }));
  uint64_t num_bytes = 0;
  while (const std::optional<std::string> name = wanted_.Pop()) {
    ASSIGN_OR_RETURN(const StoredTensor tensor, model.checkpoint->Find(*name));
    handlers_.announce(tensor.bytes.size());
    RETURN_IF_ERROR(SendTensor(*pair, tensor.bytes));
    num_bytes += tensor.bytes.size();
  }
  LogInfo("weights sent to another worker", {{"model", model_.name}, {"bytes", num_bytes}});
  return absl::OkStatus();
}

absl::Status WeightDonor::SendTensor(NcclPair& pair, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto piece = bytes.first(std::min<size_t>(bytes.size(), kWeightPieceBytes));
    RETURN_IF_ERROR(pair.Send(piece));
    RETURN_IF_ERROR(AwaitNccl(pair, nccl_.options.step_timeout, [this] { return cancelled(); }));
    bytes = bytes.subspan(piece.size());
  }
  return absl::OkStatus();
}

}  // namespace sauva
