#pragma once

#include <grpcpp/channel.h>
#include <prometheus/counter.h>

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/statusor.h"
#include "net/tls.h"
#include "worker/nccl_end.h"
#include "worker/stage_link.h"
#include "worker/worker_loop.h"

namespace sauva {

// The Control and Link streams that this worker opens to others, over gRPC; where a Link is by
// NCCL its stream carries announcements. The loop and `nccl` must outlive it.
// Thread: Apply on the loop's; construction and destruction while the loop gives no effects.
class PeerClient {
 public:
  PeerClient(WorkerLoop& loop, const TlsOptions& tls, const NcclSetup& nccl,
             prometheus::Counter& sent_bytes);
  // Cancels what is open and waits for gRPC to let go of it.
  ~PeerClient();

  void Apply(const OpenOutgoing& effect);
  void Apply(const SendOutgoing& effect);
  void Apply(const CloseOutgoing& effect);

 private:
  class ControlCall;
  class GrpcStageLink;
  class NcclStageLink;
  // Exactly one of the two is set.
  struct Peer {
    std::unique_ptr<ControlCall> control;
    std::unique_ptr<StageLink> link;
  };

  absl::StatusOr<std::shared_ptr<grpc::Channel>> ChannelTo(const std::string& address);
  void OnClosed(OutgoingId id, const absl::Status& status);

  WorkerLoop& loop_;
  const TlsOptions tls_;
  const NcclSetup& nccl_;
  prometheus::Counter& sent_bytes_;
  std::map<OutgoingId, Peer> peers_;
  std::map<std::string, std::shared_ptr<grpc::Channel>> channels_;

  std::mutex mutex_;  // guards num_open_
  std::condition_variable all_closed_;
  int num_open_ = 0;  // calls that gRPC has not let go of
};

}  // namespace sauva
