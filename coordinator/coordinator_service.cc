#include "coordinator/coordinator_service.h"

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "net/server_stream.h"
#include "net/status_codec.h"
#include "proto/control_codec.h"
#include "sauva/v1/control.grpc.pb.h"

namespace sauva {
namespace {

using JoinStream = ServerStream<v1::WorkerMessage, v1::CoordinatorMessage>;
using FileWriter = ServerWriter<v1::ModelFileChunk>;

constexpr size_t kMaxCommands = 256;  // waiting for one worker
constexpr size_t kFileChunkBytes = 1 << 20;
const grpc::Status kTooBusy(grpc::StatusCode::RESOURCE_EXHAUSTED,
                            "the coordinator's queue is full; try again");

// A call with one answer, given from any thread by Finish.
class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  explicit UnaryCall(std::function<void()> on_cancelled = nullptr)
      : on_cancelled_(std::move(on_cancelled)) {}

  void Answer(const absl::Status& status) { Finish(ToGrpc(status)); }

 private:
  void OnCancel() override {
    if (on_cancelled_) on_cancelled_();
  }
  void OnDone() override { delete this; }  // gRPC's last word; it was made with new

  const std::function<void()> on_cancelled_;
};

class StreamConnection final : public WorkerConnection {
 public:
  explicit StreamConnection(std::shared_ptr<JoinStream> stream) : stream_(std::move(stream)) {}

  bool Send(const WorkerCommand& command) override { return stream_->Send(ToProto(command)); }
  void Close(const absl::Status& status) override { stream_->Finish(ToGrpc(status)); }

 private:
  const std::shared_ptr<JoinStream> stream_;
};

// The worker's side of one Join stream: turns its messages into events.
// Thread: gRPC's, one message at a time.
class WorkerEar {
 public:
  WorkerEar(CoordinatorRuntime& runtime, ConnectionId id, std::weak_ptr<JoinStream> stream)
      : runtime_(runtime), id_(id), stream_(std::move(stream)) {}

  void Hear(const v1::WorkerMessage& proto) {
    if (ended_) return;
    absl::StatusOr<WorkerMessage> message = FromProto(proto);
    if (!message.ok()) return End(ToGrpc(message.status()));
    const bool hello = std::holds_alternative<WorkerHello>(*message);
    if (hello == joined_) {
      return End({grpc::StatusCode::INVALID_ARGUMENT,
                  "hello is the first message of a Join stream, and only the first"});
    }
    joined_ = true;
    if (!std::visit([this](auto& m) { return Pass(std::move(m)); }, *message)) End(kTooBusy);
  }

  void Closed() {
    if (joined_) runtime_.Tell(WorkerGone{id_});
  }

 private:
  bool Pass(WorkerHello hello) {
    return runtime_.Join(id_, std::make_shared<StreamConnection>(stream_.lock()), std::move(hello));
  }
  bool Pass(Heartbeat heartbeat) { return runtime_.Tell(HeartbeatCame{id_, std::move(heartbeat)}); }
  bool Pass(StageReport report) { return runtime_.Tell(ReportCame{id_, std::move(report)}); }
  bool Pass(StageBroken broken) { return runtime_.Tell(BreakCame{id_, std::move(broken)}); }

  void End(const grpc::Status& status) {
    ended_ = true;
    stream_.lock()->Finish(status);
  }

  CoordinatorRuntime& runtime_;
  const ConnectionId id_;
  const std::weak_ptr<JoinStream> stream_;  // holds this object, so it is there while one speaks
  bool joined_ = false;
  bool ended_ = false;
};

class Service final : public v1::CoordinatorService::CallbackService {
 public:
  Service(CoordinatorRuntime& runtime, ModelCatalog& catalog)
      : runtime_(runtime), catalog_(catalog) {}

  grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>* Join(
      grpc::CallbackServerContext*) override {
    auto stream = JoinStream::Make({.messages = kMaxCommands});
    // Shared by the two handlers, which live as long as the stream.
    auto ear = std::make_shared<WorkerEar>(runtime_, ++last_connection_, stream);
    return stream->Listen({.on_message = [ear](v1::WorkerMessage m) { ear->Hear(m); },
                           .on_closed = [ear] { ear->Closed(); }});
  }

  grpc::ServerUnaryReactor* Dispatch(grpc::CallbackServerContext* context,
                                     const v1::DispatchRequest* in,
                                     v1::DispatchResponse* out) override {
    const Ticket ticket = runtime_.NewTicket();
    auto* call = new UnaryCall([this, ticket] { runtime_.CancelDispatch(ticket); });
    absl::StatusOr<DispatchRequest> request = FromProto(*in);
    if (!request.ok()) return Answered(call, request.status());
    const bool taken =
        runtime_.Dispatch(ticket, *std::move(request), absl::FromChrono(context->deadline()),
                          [call, out](const absl::StatusOr<DispatchReply>& reply) {
                            if (reply.ok()) ToProto(*reply, out);
                            call->Answer(reply.status());
                          });
    return taken ? call : Refused(call);
  }

  grpc::ServerWriteReactor<v1::ModelFileChunk>* GetModelFiles(
      grpc::CallbackServerContext*, const v1::GetModelFilesRequest* request) override {
    const absl::StatusOr<const CatalogModel*> model = catalog_.Find(request->model());
    if (!model.ok()) return EndedFiles(model.status());
    const ModelRef& ref = (*model)->description.ref;
    std::vector<v1::ModelFileChunk> chunks(1);
    chunks[0].mutable_model()->set_name(ref.name);
    chunks[0].mutable_model()->set_digest(ref.digest);
    if (request->digest() != ref.digest) {
      for (const auto& [name, content] : (*model)->files) AppendFile(name, content, chunks);
    }
    auto writer = FileWriter::Make({.messages = chunks.size()});
    auto* reactor = writer->Listen(nullptr);
    for (v1::ModelFileChunk& chunk : chunks) {
      if (!writer->Send(std::move(chunk))) break;  // the caller has gone
    }
    writer->Finish(grpc::Status::OK);
    return reactor;
  }

  grpc::ServerUnaryReactor* Status(grpc::CallbackServerContext*, const v1::StatusRequest*,
                                   v1::StatusResponse* out) override {
    auto* call = new UnaryCall();
    const bool taken = runtime_.Status([call, out](const ClusterStatus& status) {
      ToProto(status, out);
      call->Answer(absl::OkStatus());
    });
    return taken ? call : Refused(call);
  }

  grpc::ServerUnaryReactor* LoadModel(grpc::CallbackServerContext*, const v1::LoadModelRequest* in,
                                      v1::LoadModelResponse* out) override {
    auto* call = new UnaryCall();
    const absl::StatusOr<const CatalogModel*> model = catalog_.Open(in->model());
    if (!model.ok()) return Answered(call, model.status());
    const int replicas = static_cast<int>(std::clamp(in->replicas(), 1u, kMaxReplicas));
    if (in->replicas() > kMaxReplicas) {
      return Answered(call, absl::InvalidArgumentError(absl::StrCat(
                                "replicas is ", in->replicas(), ", the limit is ", kMaxReplicas)));
    }
    const bool taken = runtime_.Load((*model)->description, replicas,
                                     [call, out](const absl::StatusOr<ModelRef>& ref) {
                                       if (ref.ok()) {
                                         out->mutable_model()->set_name(ref->name);
                                         out->mutable_model()->set_digest(ref->digest);
                                       }
                                       call->Answer(ref.status());
                                     });
    return taken ? call : Refused(call);
  }

  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext*, const v1::DrainRequest* in,
                                  v1::DrainResponse*) override {
    auto* call = new UnaryCall();
    const bool taken = runtime_.Drain(in->worker_id(), absl::Milliseconds(in->timeout_ms()),
                                      [call](const absl::Status& status) { call->Answer(status); });
    return taken ? call : Refused(call);
  }

 private:
  static constexpr uint32_t kMaxReplicas = 1024;

  static UnaryCall* Answered(UnaryCall* call, const absl::Status& status) {
    call->Answer(status);
    return call;
  }
  static UnaryCall* Refused(UnaryCall* call) {
    call->Finish(kTooBusy);
    return call;
  }
  static grpc::ServerWriteReactor<v1::ModelFileChunk>* EndedFiles(const absl::Status& status) {
    auto writer = FileWriter::Make({.messages = 1});
    auto* reactor = writer->Listen(nullptr);
    writer->Finish(ToGrpc(status));
    return reactor;
  }
  static void AppendFile(const std::string& name, const std::string& content,
                         std::vector<v1::ModelFileChunk>& chunks) {
    size_t offset = 0;
    do {
      v1::ModelFileChunk& chunk = chunks.emplace_back();
      chunk.set_name(name);
      chunk.set_data(content.substr(offset, kFileChunkBytes));
      offset += kFileChunkBytes;
    } while (offset < content.size());
  }

  CoordinatorRuntime& runtime_;
  ModelCatalog& catalog_;
  std::atomic<ConnectionId> last_connection_ = 0;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeCoordinatorService(CoordinatorRuntime& runtime,
                                                      ModelCatalog& catalog) {
  return std::make_unique<Service>(runtime, catalog);
}

}  // namespace sauva
