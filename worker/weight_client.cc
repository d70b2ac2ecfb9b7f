#include "worker/weight_client.h"

#include <grpcpp/client_context.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "net/channel.h"
#include "net/status_codec.h"
#include "sauva/v1/stage.grpc.pb.h"
#include "worker/nccl_setup.h"
#include "worker/weight_transfer.h"

namespace sauva {

struct WeightClient::Call {
  NcclSetup nccl;
  std::unique_ptr<NcclPair> pair;
  grpc::ClientContext context;
  std::unique_ptr<v1::WorkerService::Stub> stub;
  std::unique_ptr<grpc::ClientReaderWriter<v1::WeightRequest, v1::WeightReply>> stream;

  // What the stream ended with.
  absl::Status End() {
    context.TryCancel();
    const absl::Status status = FromGrpc(stream->Finish());
    stream.reset();
    return status.ok() ? absl::UnavailableError("the other worker ended the stream") : status;
  }
};

WeightClient::WeightClient(std::unique_ptr<Call> call) : call_(std::move(call)) {}

WeightClient::~WeightClient() {
  if (call_->stream == nullptr) return;
  call_->stream->WritesDone();
  static_cast<void>(call_->stream->Finish());
}

absl::StatusOr<std::unique_ptr<WeightClient>> WeightClient::Connect(const std::string& address,
                                                                    const TlsOptions& tls,
                                                                    const NcclSetup& nccl,
                                                                    const ModelRef& model) {
  auto call = std::make_unique<Call>();
  call->nccl = nccl;
  ASSIGN_OR_RETURN(const std::string id, NewNcclId(nccl));
  ASSIGN_OR_RETURN(call->pair, OpenWeightPair(nccl));
  ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, MakeChannel(address, tls));
  // One attempt to connect is short, a busy donor may take several.
  if (!channel->WaitForConnected(absl::ToChronoTime(absl::Now() + nccl.options.join_timeout))) {
    return absl::UnavailableError(absl::StrCat("not connected to ", address, " within ",
                                               absl::FormatDuration(nccl.options.join_timeout)));
  }
  call->stub = v1::WorkerService::NewStub(channel);
  call->stream = call->stub->CopyWeights(&call->context);
  v1::WeightRequest request;
  request.set_model(model.name);
  request.set_digest(model.digest);
  request.set_nccl_id(id);
  v1::WeightReply ready;
  if (!call->stream->Write(request) || !call->stream->Read(&ready)) return call->End();
  NcclId joined;
  std::copy_n(id.begin(), joined.size(), joined.begin());
  absl::Status status = call->pair->Join(joined, 1);
  if (status.ok()) {
    status = AwaitNccl(*call->pair, nccl.options.join_timeout, [] { return false; });
  }
  if (status.ok()) return std::unique_ptr<WeightClient>(new WeightClient(std::move(call)));
  static_cast<void>(call->End());
  return status;
}

absl::Status WeightClient::Fetch(const std::string& tensor, std::span<std::byte> bytes) {
  if (call_->stream == nullptr) return absl::UnavailableError("the transfer has failed before");
  v1::WeightRequest request;
  request.set_tensor(tensor);
  v1::WeightReply reply;
  if (!call_->stream->Write(request) || !call_->stream->Read(&reply)) return call_->End();
  absl::Status status;
  if (reply.num_bytes() != bytes.size()) {
    status = absl::DataLossError(absl::StrCat("tensor ", tensor, " comes with ", reply.num_bytes(),
                                              " bytes; expected ", bytes.size()));
  }
  while (status.ok() && !bytes.empty()) {
    const size_t size = std::min<size_t>(bytes.size(), kWeightPieceBytes);
    status = call_->pair->Receive(static_cast<int64_t>(size));
    if (status.ok()) {
      status = AwaitNccl(*call_->pair, call_->nccl.options.step_timeout, [] { return false; });
    }
    if (!status.ok()) break;
    std::memcpy(bytes.data(), call_->pair->received().data(), size);
    bytes = bytes.subspan(size);
  }
  if (!status.ok()) static_cast<void>(call_->End());
  return status;
}

}  // namespace sauva
