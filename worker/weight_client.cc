#include "worker/weight_client.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "net/channel.h"
#include "net/client_stream.h"
#include "net/status_codec.h"
#include "sauva/v1/stage.grpc.pb.h"
#include "worker/weight_transfer.h"

namespace sauva {
namespace {

using WeightStream = ClientStream<v1::WeightRequest, v1::WeightReply>;

// One is asked for after the other.
constexpr size_t kMaxWaitingRequests = 4;

}  // namespace

// What the other worker has said.
// Thread: any.
class WeightClient::Replies {
 public:
  void Take(v1::WeightReply reply) {
    const std::lock_guard lock(mutex_);
    replies_.push_back(std::move(reply));
    changed_.notify_all();
  }
  void End(const grpc::Status& status) {
    const std::lock_guard lock(mutex_);
    end_ = status.ok() ? absl::UnavailableError("the other worker ended the stream")
                       : FromGrpc(status);
    changed_.notify_all();
  }
  // Errors: DEADLINE_EXCEEDED; what the stream ended with.
  absl::StatusOr<v1::WeightReply> Await(absl::Duration timeout) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, absl::ToChronoNanoseconds(timeout),
                      [this] { return end_.has_value() || !replies_.empty(); });
    if (!replies_.empty()) {
      v1::WeightReply reply = std::move(replies_.front());
      replies_.pop_front();
      return reply;
    }
    if (end_) return *end_;
    return absl::DeadlineExceededError(
        absl::StrCat("the other worker said nothing within ", absl::FormatDuration(timeout)));
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<v1::WeightReply> replies_;  // one for each request at most
  std::optional<absl::Status> end_;
};

struct WeightClient::Call {
  explicit Call(const NcclSetup& setup) : nccl(setup) {}
  ~Call();

  absl::StatusOr<v1::WeightReply> Ask(v1::WeightRequest request, absl::Duration timeout);
  absl::Status Join();
  absl::Status Receive(std::span<std::byte> bytes);

  const NcclSetup& nccl;
  // Shared: with gRPC's threads, until the stream has ended.
  const std::shared_ptr<Replies> replies = std::make_shared<Replies>();
  std::shared_ptr<WeightStream> stream;
  std::unique_ptr<NcclPair> pair;
  absl::Status failed;
};

// A donor that hears of the end aborts; so does this end, on a thread that may hang.
WeightClient::Call::~Call() {
  if (stream != nullptr) stream->Cancel();
  if (pair == nullptr) return;
  NcclPair* aborted = pair.release();
  const absl::Status status = nccl.receivers.Start([aborted] { delete aborted; });
  if (status.ok()) return;
  LogWarning("aborts of NCCL hang: a communicator is left as it is",
             {{"reason", status.ToString()}});
}

absl::StatusOr<v1::WeightReply> WeightClient::Call::Ask(v1::WeightRequest request,
                                                        absl::Duration timeout) {
  // What the stream ended with is told by the wait.
  if (!stream->Send(std::move(request))) stream->Cancel();
  return replies->Await(timeout);
}

absl::Status WeightClient::Call::Join() {
  ASSIGN_OR_RETURN(pair, OpenWeightPair(nccl));
  ASSIGN_OR_RETURN(const NcclId id, nccl.functions->MakeId());
  v1::WeightRequest request;
  request.set_nccl_id(std::string(id.data(), id.size()));
  if (!stream->Send(std::move(request))) return absl::UnavailableError("the stream has ended");
  RETURN_IF_ERROR(pair->Join(id, 1));
  return AwaitNccl(*pair, nccl.options.join_timeout, [] { return false; });
}

absl::Status WeightClient::Call::Receive(std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t size = std::min<size_t>(bytes.size(), kWeightPieceBytes);
    RETURN_IF_ERROR(pair->Receive(static_cast<int64_t>(size)));
    RETURN_IF_ERROR(AwaitNccl(*pair, nccl.options.step_timeout, [] { return false; }));
    std::memcpy(bytes.data(), pair->received().data(), size);
    bytes = bytes.subspan(size);
  }
  return absl::OkStatus();
}

WeightClient::WeightClient(std::unique_ptr<Call> call) : call_(std::move(call)) {}
WeightClient::~WeightClient() = default;

absl::StatusOr<std::unique_ptr<WeightClient>> WeightClient::Connect(const std::string& address,
                                                                    const TlsOptions& tls,
                                                                    const NcclSetup& nccl,
                                                                    const ModelRef& model) {
  if (!nccl.functions) return absl::FailedPreconditionError("this worker has no NCCL");
  const absl::Duration patience = nccl.options.join_timeout;
  auto call = std::make_unique<Call>(nccl);
  ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, MakeChannel(address, tls));
  // One attempt to connect is short, a busy donor may take several.
  if (!channel->WaitForConnected(absl::ToChronoTime(absl::Now() + patience))) {
    return absl::UnavailableError(
        absl::StrCat("not connected to ", address, " within ", absl::FormatDuration(patience)));
  }
  call->stream = WeightStream::Make(kMaxWaitingRequests);
  v1::WorkerService::NewStub(channel)->async()->CopyWeights(&call->stream->context(),
                                                            call->stream->reactor());
  call->stream->Start(
      call->stream, {.on_message = [replies = call->replies](
                                       v1::WeightReply reply) { replies->Take(std::move(reply)); },
                     .on_closed = [replies = call->replies](
                                      const grpc::Status& status) { replies->End(status); }});
  v1::WeightRequest request;
  request.set_model(model.name);
  request.set_digest(model.digest);
  RETURN_IF_ERROR(call->Ask(std::move(request), patience).status());
  RETURN_IF_ERROR(call->Join());
  return std::unique_ptr<WeightClient>(new WeightClient(std::move(call)));
}

absl::Status WeightClient::Fetch(const std::string& tensor, std::span<std::byte> bytes) {
  if (!call_->failed.ok()) return absl::UnavailableError("the transfer has failed before");
  v1::WeightRequest request;
  request.set_tensor(tensor);
  const absl::StatusOr<v1::WeightReply> reply =
      call_->Ask(std::move(request), call_->nccl.options.step_timeout);
  if (!reply.ok()) return call_->failed = reply.status();
  if (reply->num_bytes() != bytes.size()) {
    return call_->failed = absl::DataLossError(absl::StrCat("tensor ", tensor, " comes with ",
                                                            reply->num_bytes(), " bytes; expected ",
                                                            bytes.size()));
  }
  return call_->failed = call_->Receive(bytes);
}

}  // namespace sauva
