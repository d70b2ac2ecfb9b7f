#include "gateway/gateway_service.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gateway/generate_codec.h"
#include "gateway/raw_message_codec.h"
#include "gateway/retry_info_codec.h"
#include "net/server_stream.h"
#include "net/status_codec.h"
#include "net/traceparent.h"
#include "proto/control_codec.h"
#include "sauva/v1/generation.grpc.pb.h"

namespace sauva {
namespace {

constexpr int kMaxBatchRequests = 256;
constexpr absl::Duration kListTimeout = absl::Seconds(5);

absl::Time DeadlineOf(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  // gRPC says "none" by the largest time there is.
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return absl::FromChrono(deadline);
}

// The caller's trace context; nothing when it has none or a malformed one.
std::optional<TraceContext> TraceOf(const grpc::CallbackServerContext& context) {
  const auto found = context.client_metadata().find(kTraceparentKey);
  if (found == context.client_metadata().end()) return std::nullopt;
  return ParseTraceparent({found->second.data(), found->second.size()});
}

using Api = v1::GenerationService;
using ApiWithRawRequests =
    Api::WithRawCallbackMethod_Generate<Api::WithRawCallbackMethod_GenerateBatch<
        Api::WithRawCallbackMethod_Tokenize<Api::WithCallbackMethod_ListModels<Api::Service>>>>;
using RawWriter = ServerWriter<grpc::ByteBuffer>;

// Ends a call whose request cannot even begin.
grpc::ServerWriteReactor<grpc::ByteBuffer>* Refuse(const absl::Status& status) {
  const auto writer = RawWriter::Make({.messages = 1});
  auto* reactor = writer->Listen([] {});
  writer->Finish(ToGrpc(status));
  return reactor;
}

class GatewayService final : public ApiWithRawRequests {
 public:
  GatewayService(Gateway& gateway, CoordinatorClient& coordinator, OutboxMemory& unread,
                 const GatewayServiceOptions& options)
      : gateway_(gateway), coordinator_(coordinator), unread_(unread), options_(options) {}

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* bytes) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* GenerateBatch(grpc::CallbackServerContext* context,
                                                            const grpc::ByteBuffer* bytes) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* bytes,
                                     grpc::ByteBuffer* response_bytes) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;

 private:
  // Full queues pass; the client is told when to come back.
  grpc::Status Finished(const absl::Status& status) const {
    return absl::IsResourceExhausted(status) ? WithRetryInfo(status, options_.retry_after)
                                             : ToGrpc(status);
  }
  OutboxLimits UnreadLimits(size_t num_samples) const {
    return {.messages = std::min(options_.max_unread_responses * std::max<size_t>(num_samples, 1),
                                 options_.max_unread_responses_of_call),
            .bytes = options_.max_unread_bytes_of_call,
            .memory = &unread_};
  }

  Gateway& gateway_;
  CoordinatorClient& coordinator_;
  OutboxMemory& unread_;
  const GatewayServiceOptions options_;
};

// The requests of one GenerateBatch call.
// Shared: by the handlers of each request and the one for cancellation.
class Batch {
 public:
  Batch(std::shared_ptr<RawWriter> writer, int num_requests)
      : writer_(std::move(writer)), num_open_(num_requests) {}

  bool Send(int index, SampleOutput output) {
    v1::GenerateBatchResponse response;
    response.set_request_index(static_cast<uint32_t>(index));
    *response.mutable_response() = ToProto(std::move(output));
    return writer_->Send(WriteMessage(response));
  }

  // A request that failed says so with its own status; the call ends with the last one, or
  // when its client reads so slowly that not even a status can wait.
  void Done(int index, const absl::Status& status) {
    if (!status.ok()) {
      v1::GenerateBatchResponse response;
      response.set_request_index(static_cast<uint32_t>(index));
      response.set_status_code(status.raw_code());
      response.set_status_message(std::string(status.message()));
      if (!writer_->Send(WriteMessage(response))) writer_->Finish(ToGrpc(ReadsTooSlowly()));
    }
    if (num_open_.fetch_sub(1) == 1) writer_->Finish(grpc::Status::OK);
  }

  // Notes a request's name so that it can be cancelled; cancels it if it is too late.
  void Began(Gateway& gateway, uint64_t call_id) {
    const std::lock_guard lock(mutex_);
    if (cancelled_) return gateway.Cancel(call_id);
    call_ids_.push_back(call_id);
  }
  void Cancel(Gateway& gateway) {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    for (const uint64_t id : call_ids_) gateway.Cancel(id);
  }

 private:
  const std::shared_ptr<RawWriter> writer_;
  std::atomic<int> num_open_;
  std::mutex mutex_;
  bool cancelled_ = false;
  std::vector<uint64_t> call_ids_;
};

grpc::ServerWriteReactor<grpc::ByteBuffer>* GatewayService::Generate(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes) {
  v1::GenerateRequest request;
  if (const absl::Status status = ReadMessage(*bytes, request); !status.ok()) return Refuse(status);
  absl::StatusOr<GenerateInput> input = FromProto(request);
  if (!input.ok()) return Refuse(input.status());
  input->trace = TraceOf(*context);
  const auto writer = RawWriter::Make(UnreadLimits(request.sampling().n()));
  const uint64_t call_id = gateway_.Generate(
      *std::move(input), DeadlineOf(*context),
      {.on_output =
           [writer](SampleOutput output) {
             return writer->Send(WriteMessage(ToProto(std::move(output))));
           },
       .on_done = [this,
                   writer](const absl::Status& status) { writer->Finish(Finished(status)); }});
  return writer->Listen([this, call_id] { gateway_.Cancel(call_id); });
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* GatewayService::GenerateBatch(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes) {
  v1::GenerateBatchRequest request;
  if (const absl::Status status = ReadMessage(*bytes, request); !status.ok()) return Refuse(status);
  const int num_requests = request.requests_size();
  if (num_requests == 0 || num_requests > kMaxBatchRequests) {
    return Refuse(absl::InvalidArgumentError(absl::StrCat(
        "requests has ", num_requests, " entries; it must have 1 to ", kMaxBatchRequests)));
  }
  size_t num_samples = 0;
  for (const v1::GenerateRequest& one : request.requests()) {
    num_samples += std::max<size_t>(one.sampling().n(), 1);
  }
  const auto writer = RawWriter::Make(UnreadLimits(num_samples));
  auto batch = std::make_shared<Batch>(writer, num_requests);
  auto* reactor = writer->Listen([this, batch] { batch->Cancel(gateway_); });
  for (int i = 0; i < num_requests; ++i) {
    absl::StatusOr<GenerateInput> input = FromProto(request.requests(i));
    if (!input.ok()) {
      batch->Done(i, input.status());
      continue;
    }
    input->trace = TraceOf(*context);
    const uint64_t call_id = gateway_.Generate(
        *std::move(input), DeadlineOf(*context),
        {.on_output = [batch, i](SampleOutput output) { return batch->Send(i, std::move(output)); },
         .on_done = [batch, i](const absl::Status& status) { batch->Done(i, status); }});
    batch->Began(gateway_, call_id);
  }
  return reactor;
}

grpc::ServerUnaryReactor* GatewayService::Tokenize(grpc::CallbackServerContext* context,
                                                   const grpc::ByteBuffer* bytes,
                                                   grpc::ByteBuffer* response_bytes) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  v1::TokenizeRequest request;
  if (const absl::Status status = ReadMessage(*bytes, request); !status.ok()) {
    reactor->Finish(ToGrpc(status));
    return reactor;
  }
  gateway_.Tokenize({.model = request.model(),
                     .text = request.text(),
                     .special = request.without_special_tokens() ? Tokenizer::Special::kNone
                                                                 : Tokenizer::Special::kAdd},
                    [this, reactor, response_bytes](absl::StatusOr<Gateway::Tokens> tokens) {
                      if (!tokens.ok()) return reactor->Finish(Finished(tokens.status()));
                      v1::TokenizeResponse response;
                      response.mutable_token_ids()->Assign(tokens->ids.begin(), tokens->ids.end());
                      for (std::string& piece : tokens->pieces) {
                        response.add_pieces(std::move(piece));
                      }
                      *response_bytes = WriteMessage(response);
                      reactor->Finish(grpc::Status::OK);
                    });
  return reactor;
}

grpc::ServerUnaryReactor* GatewayService::ListModels(grpc::CallbackServerContext* context,
                                                     const v1::ListModelsRequest*,
                                                     v1::ListModelsResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  coordinator_.Status(std::min(DeadlineOf(*context), absl::Now() + kListTimeout),
                      [reactor, response](absl::StatusOr<ClusterStatus> status) {
                        if (!status.ok()) return reactor->Finish(ToGrpc(status.status()));
                        for (const ServedModel& model : status->models) {
                          ToProto(model, response->add_models());
                        }
                        reactor->Finish(grpc::Status::OK);
                      });
  return reactor;
}

}  // namespace

std::unique_ptr<grpc::Service> MakeGatewayService(Gateway& gateway, CoordinatorClient& coordinator,
                                                  OutboxMemory& unread,
                                                  const GatewayServiceOptions& options) {
  return std::make_unique<GatewayService>(gateway, coordinator, unread, options);
}

}  // namespace sauva
