#include "tests/net/ask_health.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace sauva::testing {

// The messages are HealthCheckRequest { string service = 1; } and HealthCheckResponse
// { Status status = 1; }, 1 being SERVING and 2 NOT_SERVING. Source: grpc/health/v1/health.proto.
AskedHealth AskHealth(const std::shared_ptr<grpc::Channel>& channel, const std::string& service) {
  const grpc::Slice question("\x0a" + std::string(1, static_cast<char>(service.size())) + service);
  const grpc::ByteBuffer request(&question, 1);
  grpc::ByteBuffer response;
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(20)));
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;
  auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", request, &queue);
  call->StartCall();
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  grpc::Slice answer;
  if (!status.ok() || !response.DumpToSingleSlice(&answer).ok()) return AskedHealth::kUnknown;
  if (answer.size() != 2 || answer.begin()[0] != 0x08) return AskedHealth::kUnknown;
  if (answer.begin()[1] == 1) return AskedHealth::kServing;
  return answer.begin()[1] == 2 ? AskedHealth::kNotServing : AskedHealth::kUnknown;
}

}  // namespace sauva::testing
