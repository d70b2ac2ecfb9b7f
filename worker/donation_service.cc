// The part of the stage plane that sends weights to other workers.
#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "net/status_codec.h"
#include "worker/stage_service.h"

namespace sauva {
namespace {

constexpr size_t kMaxWaitingReplies = 16;

}  // namespace

grpc::ServerBidiReactor<v1::WeightRequest, v1::WeightReply>* StageService::CopyWeights(
    grpc::CallbackServerContext* /*context*/) {
  auto stream = WeightStream::Make({.messages = kMaxWaitingReplies});
  const auto donation = std::make_shared<Donation>(Donation{.stream = stream});
  return stream->Listen({.on_message =
                             [this, donation](const v1::WeightRequest& request) {
                               const absl::Status status = TakeWeightRequest(*donation, request);
                               const auto call = donation->stream.lock();
                               if (!status.ok() && call != nullptr) call->Finish(ToGrpc(status));
                             },
                         .on_closed = [donation] { donation->donor.reset(); }});
}

absl::Status StageService::TakeWeightRequest(Donation& donation, const v1::WeightRequest& request) {
  if (donation.donor != nullptr) {
    WeightDonor::Wish wish = request.tensor();
    if (!request.nccl_id().empty()) {
      RETURN_IF_ERROR(CheckNcclId(request.nccl_id()));
      NcclId& id = wish.emplace<NcclId>();
      std::copy_n(request.nccl_id().begin(), id.size(), id.begin());
    }
    if (donation.donor->Give(std::move(wish))) return absl::OkStatus();
    return absl::ResourceExhaustedError("more tensors are asked for than are sent");
  }
  const auto send = [stream = donation.stream](const v1::WeightReply& reply) {
    if (const auto call = stream.lock()) static_cast<void>(call->Send(reply));
  };
  const auto fail = [stream = donation.stream](const absl::Status& status) {
    LogWarning("weights could not be sent", {{"reason", status.ToString()}});
    if (const auto call = stream.lock()) call->Finish(ToGrpc(status));
  };
  ASSIGN_OR_RETURN(donation.donor,
                   WeightDonor::Start(store_, nccl_, ModelRef{request.model(), request.digest()},
                                      {.on_ready = [send] { send({}); },
                                       .announce =
                                           [send](uint64_t num_bytes) {
                                             v1::WeightReply reply;
                                             reply.set_num_bytes(num_bytes);
                                             send(reply);
                                           },
                                       .on_failed = fail}));
  return absl::OkStatus();
}

}  // namespace sauva
