#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "gateway/gateway_process.h"
#include "sauva/v1/generation.grpc.pb.h"
#include "tests/gateway/fake_cluster.h"
#include "tests/net/unserved_health.h"

namespace sauva::testing {

// What a client got of one stream.
struct Received {
  std::vector<v1::GenerateResponse> responses;
  std::string text;
  std::vector<TokenId> tokens;
  grpc::Status status;

  const v1::Usage& usage() const { return responses.back().usage(); }
};

inline v1::GenerateRequest Ask(const std::string& text) {
  v1::GenerateRequest request;
  request.set_text(text);
  request.mutable_sampling()->set_seed(7);
  return request;
}

// A gateway in this process, on free ports, and a client of it.
class GatewayTest : public ::testing::Test {
 protected:
  static GatewayConfig PlainConfig(const std::string& coordinator) {
    GatewayConfig config;
    config.listen = "127.0.0.1:0";
    config.coordinator = coordinator;
    config.drain_timeout = absl::Seconds(10);
    config.gateway.models.first_poll_interval = absl::Milliseconds(10);
    config.gateway.models.poll_interval = absl::Milliseconds(50);
    config.gateway.session.exact_wait = absl::Milliseconds(200);
    return config;
  }

  void SetUp() override { metrics_before_ = Scrape(); }

  void StartGateway(const GatewayConfig& config) {
    auto started = GatewayProcess::Start(config, ProgramMetrics(), UnservedHealth());
    ASSERT_TRUE(started.ok()) << started.status();
    gateway = *std::move(started);
    channel = grpc::CreateChannel(gateway->address(), grpc::InsecureChannelCredentials());
    client = v1::GenerationService::NewStub(channel);
  }
  void StartGateway(const FakeCoordinator& coordinator) {
    StartGateway(PlainConfig(coordinator.address()));
  }

  // Reads a stream to its end, or to `stop_after` responses and then cancels it.
  Received Generate(const v1::GenerateRequest& request, size_t stop_after = 1 << 20) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(30)));
    auto reader = client->Generate(&context, request);
    Received received;
    v1::GenerateResponse response;
    while (received.responses.size() < stop_after && reader->Read(&response)) {
      received.text += response.text();
      received.tokens.insert(received.tokens.end(), response.token_ids().begin(),
                             response.token_ids().end());
      received.responses.push_back(response);
    }
    if (received.responses.size() == stop_after) context.TryCancel();
    received.status = reader->Finish();
    return received;
  }

  // By how much a metric has grown in this test, as /metrics shows it.
  double Metric(const std::string& name) const;
  // What grpc.health.v1 answers for a service.
  bool IsServing(const std::string& service) const;

  std::unique_ptr<GatewayProcess> gateway;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::GenerationService::Stub> client;

 private:
  // One for the whole program, served over HTTP: such a server takes seconds to end.
  static Metrics& ProgramMetrics();
  static std::string Scrape();

  std::string metrics_before_;
};

}  // namespace sauva::testing
