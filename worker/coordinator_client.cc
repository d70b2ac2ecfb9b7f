#include "worker/coordinator_client.h"

#include <grpcpp/channel.h>

#include <algorithm>
#include <future>
#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "net/channel.h"
#include "net/client_stream.h"
#include "net/status_codec.h"
#include "proto/control_codec.h"
#include "sauva/v1/control.grpc.pb.h"

namespace sauva {
namespace {

constexpr absl::Duration kFirstBackoff = absl::Milliseconds(100);
constexpr absl::Duration kLastBackoff = absl::Seconds(2);
constexpr size_t kMaxWaiting = 256;

}  // namespace

struct CoordinatorClient::Connection {
  using Stream = ClientStream<v1::WorkerMessage, v1::CoordinatorMessage>;
  std::shared_ptr<grpc::Channel> channel;
  std::shared_ptr<Stream> stream;  // null between two streams
  std::future<void> closed;        // ready when gRPC has let go of the stream
};

CoordinatorClient::CoordinatorClient(EventLoop& loop, std::string address, const TlsOptions& tls,
                                     Handlers handlers)
    : loop_(loop),
      address_(std::move(address)),
      tls_(tls),
      handlers_(std::move(handlers)),
      backoff_(kFirstBackoff),
      connection_(std::make_unique<Connection>()) {}

CoordinatorClient::~CoordinatorClient() {
  if (connection_->stream != nullptr) connection_->stream->Cancel();
  if (connection_->closed.valid()) connection_->closed.wait();
}

absl::Status CoordinatorClient::Start() {
  ASSIGN_OR_RETURN(connection_->channel, MakeChannel(address_, tls_));
  Connect();
  return absl::OkStatus();
}

void CoordinatorClient::Connect() {
  auto stream = Connection::Stream::Make(kMaxWaiting);
  // Shared: by the two handlers of this stream, which outlive this call.
  auto closed = std::make_shared<std::promise<void>>();
  connection_->closed = closed->get_future();
  connection_->stream = stream;
  v1::CoordinatorService::NewStub(connection_->channel)
      ->async()
      ->Join(&stream->context(), stream->reactor());
  stream->Start(
      stream,
      {.on_message =
           [this, weak = std::weak_ptr(stream)](const v1::CoordinatorMessage& message) {
             absl::StatusOr<CoordinatorMessage> command = FromProto(message);
             if (command.ok()) return Take(*std::move(command));
             LogError("the coordinator makes no sense", {{"error", command.status().ToString()}});
             if (const auto alive = weak.lock()) alive->Cancel();
           },
       .on_closed =
           [this, closed](const grpc::Status& status) {
             loop_.PostAt(absl::InfinitePast(), [this, s = FromGrpc(status)] { OnClosed(s); });
             closed->set_value();
           }});
  stream->Send(ToProto(WorkerMessage(handlers_.hello())));
}

// On gRPC's thread.
void CoordinatorClient::Take(Command command) {
  loop_.PostAt(absl::InfinitePast(), [this, command = std::move(command)]() mutable {
    if (std::holds_alternative<Welcome>(command)) {
      backoff_ = kFirstBackoff;
      was_lost_ = false;
      LogInfo("joined", {{"coordinator", address_}});
    }
    std::visit([this](auto& c) { handlers_.on_event(std::move(c)); }, command);
  });
}

void CoordinatorClient::OnClosed(const absl::Status& status) {
  connection_->stream.reset();
  if (!std::exchange(was_lost_, true)) {
    LogWarning("no coordinator; serving on",
               {{"coordinator", address_}, {"reason", status.ToString()}});
  }
  handlers_.on_event(CoordinatorLost{});
  loop_.PostAt(absl::Now() + backoff_, [this] { Connect(); });
  backoff_ = std::min(backoff_ * 2, kLastBackoff);
}

void CoordinatorClient::Send(const StageReport& report) {
  if (connection_->stream != nullptr) connection_->stream->Send(ToProto(WorkerMessage(report)));
}
void CoordinatorClient::Send(const StageBroken& broken) {
  if (connection_->stream != nullptr) connection_->stream->Send(ToProto(WorkerMessage(broken)));
}
void CoordinatorClient::Send(const Heartbeat& heartbeat) {
  if (connection_->stream != nullptr) connection_->stream->Send(ToProto(WorkerMessage(heartbeat)));
}

}  // namespace sauva
