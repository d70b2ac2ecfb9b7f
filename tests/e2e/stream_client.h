#pragma once

#include <grpcpp/client_context.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "net/tls.h"
#include "sauva/v1/generation.grpc.pb.h"
#include "tests/e2e/cluster.h"

namespace sauva {

std::unique_ptr<v1::GenerationService::Stub> GatewayStub(const std::string& gateway,
                                                         const TlsOptions& tls = {});

// A request for `max_tokens` tokens, which does not end before.
v1::GenerateRequest TextRequest(const std::string& prompt, uint32_t max_tokens);
// The same at temperature 0.
v1::GenerateRequest GreedyRequest(const std::string& prompt, uint32_t max_tokens);
// The same at temperature 1 with a seed.
v1::GenerateRequest SampledRequest(const std::string& prompt, uint32_t max_tokens, uint64_t seed);

// So many different requests: the first at temperature 0, the others at 1, each with its seed.
struct RequestMix {
  size_t greedy = 0;
  size_t sampled = 0;
};
std::vector<v1::GenerateRequest> MixedRequests(const RequestMix& mix, uint32_t max_tokens);

// What came of one sample.
struct Outcome {
  grpc::Status status;
  std::string text;
  std::vector<int32_t> tokens;
  v1::FinishReason finish = v1::FINISH_REASON_UNSPECIFIED;
  v1::Usage usage;
  uint64_t seed = 0;
  std::string numerics_id;
  // The longest time between two messages.
  absl::Duration longest_gap;
};

// A generation that runs beside the test and can be watched.
// Thread: the reader is its own; all calls are safe from the test's thread.
class StreamClient {
 public:
  // Starts the call at once. Only for requests of one sample.
  StreamClient(const std::string& gateway, const v1::GenerateRequest& request,
               absl::Duration timeout = kPatience);
  ~StreamClient();

  // Waits until so many tokens have come; false when the stream ends before.
  bool AwaitTokens(size_t count);
  // Waits for the end.
  Outcome Finish();
  void Cancel() { context_.TryCancel(); }
  size_t num_tokens() const;

 private:
  void Read();

  std::unique_ptr<v1::GenerationService::Stub> stub_;
  grpc::ClientContext context_;
  v1::GenerateRequest request_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Outcome outcome_;
  bool ended_ = false;
  std::thread reader_;
};

// Runs a request to its end.
Outcome Generate(const std::string& gateway, const v1::GenerateRequest& request,
                 absl::Duration timeout = kPatience);
using StreamClients = std::vector<std::unique_ptr<StreamClient>>;

// Starts requests beside each other.
StreamClients StartAll(const std::string& gateway,
                       const std::vector<v1::GenerateRequest>& requests);
// The same, and waits until each has some tokens; a test fails when one has ended by then.
StreamClients StartAllAndAwaitTokens(const std::string& gateway,
                                     const std::vector<v1::GenerateRequest>& requests);
// Runs requests beside each other.
std::vector<Outcome> GenerateAll(const std::string& gateway,
                                 const std::vector<v1::GenerateRequest>& requests);

// Different openings of English prose.
const std::vector<std::string>& Prompts();

}  // namespace sauva
