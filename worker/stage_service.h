#pragma once

#include <prometheus/counter.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "net/server_stream.h"
#include "proto/stage_codec.h"
#include "sauva/v1/stage.grpc.pb.h"
#include "worker/model_store.h"
#include "worker/nccl_end.h"
#include "worker/weight_donor.h"
#include "worker/worker_loop.h"

namespace sauva {

struct StageServiceOptions {
  size_t max_streams = 4096;  // Generate calls at once
  size_t max_incoming = 64;   // Control and Link calls at once
  // Of one Generate call; beyond either its reader has stalled.
  size_t max_unread_messages = 8192;
  size_t max_unread_bytes = 8 << 20;
};

// WorkerService over gRPC: turns calls into events of the worker's loop and the session's
// effects into messages. Must outlive the server's calls; the loop, `store` and `nccl` must outlive
// it. Thread: gRPC methods on gRPC's threads; Apply on the loop's.
class StageService final : public v1::WorkerService::CallbackService {
 public:
  StageService(WorkerLoop& loop, const ModelStore& store, const NcclSetup& nccl,
               prometheus::Counter& received_bytes, const StageServiceOptions& options = {})
      : loop_(loop),
        store_(store),
        nccl_(nccl),
        received_bytes_(received_bytes),
        options_(options) {}

  grpc::ServerWriteReactor<v1::SequenceTokens>* Generate(
      grpc::CallbackServerContext* context, const v1::SequenceRequest* request) override;
  grpc::ServerBidiReactor<v1::ControlMessage, v1::ControlReply>* Control(
      grpc::CallbackServerContext* context) override;
  grpc::ServerBidiReactor<v1::HiddenFrame, v1::LinkReply>* Link(
      grpc::CallbackServerContext* context) override;

  grpc::ServerBidiReactor<v1::WeightRequest, v1::WeightReply>* CopyWeights(
      grpc::CallbackServerContext* context) override;

  void Apply(const StreamTokens& effect);
  void Apply(const EndStream& effect);
  void Apply(const AcceptIncoming& effect);
  void Apply(const SendIncoming& effect);
  void Apply(const EndIncoming& effect);

 private:
  using ControlStream = ServerStream<v1::ControlMessage, v1::ControlReply>;
  using LinkStream = ServerStream<v1::HiddenFrame, v1::LinkReply>;
  using WeightStream = ServerStream<v1::WeightRequest, v1::WeightReply>;
  // Weights on their way to another worker.
  // Shared: by the service's handlers of the call.
  struct Donation {
    std::weak_ptr<WeightStream> stream;  // holds the handlers, which hold this
    std::unique_ptr<WeightDonor> donor;  // from the first message on
  };
  struct Writer {
    std::shared_ptr<ServerWriter<v1::SequenceTokens>> call;
    bool stalled = false;
  };
  // Exactly one of the two streams is set.
  struct Incoming {
    std::shared_ptr<ControlStream> control;
    std::shared_ptr<LinkStream> link;
    // Shared: by this entry and the handler that is just putting a frame in; set when the
    // link is accepted.
    std::shared_ptr<HiddenAssembler> assembler;
    // In the assembler's place on a link by NCCL: until the id has come, what this end begins
    // with, then the end; shared likewise.
    std::optional<NcclStarted> nccl_start;
    std::shared_ptr<NcclEnd> nccl;

    void Finish(const absl::Status& status) const;
  };

  absl::Status OpenStream(StreamId id, const v1::SequenceRequest& request);
  IncomingId Add(Incoming incoming);
  std::optional<Incoming> Find(IncomingId id);
  void OnControl(IncomingId id, const v1::ControlMessage& message);
  void OnLink(IncomingId id, const v1::HiddenFrame& frame);
  absl::Status TakeControl(IncomingId id, const v1::ControlMessage& message);
  absl::Status TakeWeightRequest(Donation& donation, const v1::WeightRequest& request);
  absl::Status JoinNccl(IncomingId id, const std::string& nccl_id);
  NcclEnd::Handlers NcclHandlers(IncomingId id);
  absl::Status TakeLink(IncomingId id, const v1::HiddenFrame& frame);
  void OnIncomingClosed(IncomingId id, const absl::Status& status);
  absl::Status Offer(WorkerEvent event);

  WorkerLoop& loop_;
  const ModelStore& store_;
  const NcclSetup& nccl_;
  prometheus::Counter& received_bytes_;
  const StageServiceOptions options_;

  std::mutex mutex_;  // guards what is below
  std::map<StreamId, Writer> streams_;
  std::map<IncomingId, Incoming> incoming_;
  StreamId last_stream_ = 0;
  IncomingId last_incoming_ = 0;
};

}  // namespace sauva
