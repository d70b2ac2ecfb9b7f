#include "tests/e2e/stream_client.h"

#include <gtest/gtest.h>

#include "base/check.h"
#include "net/channel.h"

namespace sauva {

std::unique_ptr<v1::GenerationService::Stub> GatewayStub(const std::string& gateway,
                                                         const TlsOptions& tls) {
  const auto channel = MakeChannel(gateway, tls);
  Check(channel.ok(), "a test's channel options are right");
  return v1::GenerationService::NewStub(*channel);
}

v1::GenerateRequest TextRequest(const std::string& prompt, uint32_t max_tokens) {
  v1::GenerateRequest request;
  request.set_text(prompt);
  request.mutable_sampling()->set_max_tokens(max_tokens);
  request.mutable_sampling()->set_ignore_eos(true);
  return request;
}

v1::GenerateRequest GreedyRequest(const std::string& prompt, uint32_t max_tokens) {
  v1::GenerateRequest request = TextRequest(prompt, max_tokens);
  request.mutable_sampling()->set_temperature(0);
  return request;
}

v1::GenerateRequest SampledRequest(const std::string& prompt, uint32_t max_tokens, uint64_t seed) {
  v1::GenerateRequest request = TextRequest(prompt, max_tokens);
  request.mutable_sampling()->set_temperature(1);
  request.mutable_sampling()->set_seed(seed);
  return request;
}

std::vector<v1::GenerateRequest> MixedRequests(const RequestMix& mix, uint32_t max_tokens) {
  std::vector<v1::GenerateRequest> requests;
  for (size_t i = 0; i < mix.greedy + mix.sampled; ++i) {
    requests.push_back(i < mix.greedy ? GreedyRequest(Prompts()[i], max_tokens)
                                      : SampledRequest(Prompts()[i], max_tokens, i));
  }
  return requests;
}

StreamClient::StreamClient(const std::string& gateway, const v1::GenerateRequest& request,
                           absl::Duration timeout)
    : stub_(GatewayStub(gateway)), request_(request) {
  context_.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  reader_ = std::thread([this] { Read(); });
}

StreamClient::~StreamClient() {
  Cancel();
  reader_.join();
}

void StreamClient::Read() {
  const auto call = stub_->Generate(&context_, request_);
  absl::Time last = absl::Now();
  v1::GenerateResponse response;
  while (call->Read(&response)) {
    const std::lock_guard lock(mutex_);
    const absl::Time now = absl::Now();
    outcome_.longest_gap = std::max(outcome_.longest_gap, now - std::exchange(last, now));
    outcome_.text += response.text();
    outcome_.tokens.insert(outcome_.tokens.end(), response.token_ids().begin(),
                           response.token_ids().end());
    outcome_.finish = response.finish_reason();
    if (response.has_usage()) outcome_.usage = response.usage();
    if (!response.model().empty()) outcome_.seed = response.seed();
    if (!response.numerics_id().empty()) outcome_.numerics_id = response.numerics_id();
    changed_.notify_all();
  }
  const grpc::Status status = call->Finish();
  const std::lock_guard lock(mutex_);
  outcome_.status = status;
  ended_ = true;
  changed_.notify_all();
}

bool StreamClient::AwaitTokens(size_t count) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return ended_ || outcome_.tokens.size() >= count; });
  return outcome_.tokens.size() >= count;
}

Outcome StreamClient::Finish() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return ended_; });
  return outcome_;
}

size_t StreamClient::num_tokens() const {
  const std::lock_guard lock(mutex_);
  return outcome_.tokens.size();
}

Outcome Generate(const std::string& gateway, const v1::GenerateRequest& request,
                 absl::Duration timeout) {
  return StreamClient(gateway, request, timeout).Finish();
}

StreamClients StartAll(const std::string& gateway,
                       const std::vector<v1::GenerateRequest>& requests) {
  StreamClients streams;
  for (const v1::GenerateRequest& request : requests) {
    streams.push_back(std::make_unique<StreamClient>(gateway, request));
  }
  return streams;
}

StreamClients StartAllAndAwaitTokens(const std::string& gateway,
                                     const std::vector<v1::GenerateRequest>& requests) {
  StreamClients streams = StartAll(gateway, requests);
  for (const auto& stream : streams) EXPECT_TRUE(stream->AwaitTokens(5));
  for (size_t i = 0; i < streams.size(); ++i) {
    EXPECT_LT(streams[i]->num_tokens(), requests[i].sampling().max_tokens()) << "too late";
  }
  return streams;
}

std::vector<Outcome> GenerateAll(const std::string& gateway,
                                 const std::vector<v1::GenerateRequest>& requests) {
  std::vector<Outcome> outcomes;
  for (const auto& stream : StartAll(gateway, requests)) outcomes.push_back(stream->Finish());
  return outcomes;
}

const std::vector<std::string>& Prompts() {
  static const std::vector<std::string> prompts = {
      "The prince looked at her and",
      "In the evening the whole family",
      "It was on a dreary night of November that",
      "The old count, smiling,",
      "Natasha ran into the room",
      "The soldiers had been marching since",
      "I beheld the wretch",
      "Pierre did not know what to",
      "My dear friend,",
      "When the snow had melted",
  };
  return prompts;
}

}  // namespace sauva
