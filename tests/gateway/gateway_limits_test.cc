#include <gmock/gmock.h>
#include <google/protobuf/any.pb.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/unknown_field_set.h>
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "gateway/retry_info_codec.h"
#include "tests/gateway/gateway_fixture.h"
#include "tests/net/unserved_health.h"

namespace sauva::testing {
namespace {

using ::testing::HasSubstr;

// A head's script that says hello and then waits to be told to end, or to be cancelled.
FakeHead::Script Until(Signal& started, Signal& release) {
  return [&](const SequenceRequest& request, FakeHead::Stream& stream) {
    stream.Hello("n1");
    stream.Say(static_cast<uint32_t>(request.resumed.size()), {'a'});
    started.Set();
    release.Wait();
    stream.Say(static_cast<uint32_t>(request.resumed.size()) + 1, {kEndToken}, FinishReason::kStop);
    return grpc::Status::OK;
  };
}

// The seconds that a google.rpc.Status with one RetryInfo names; -1 if it is none.
double RetrySeconds(const std::string& details) {
  google::protobuf::UnknownFieldSet status;
  if (!status.ParseFromString(details)) return -1;
  for (int i = 0; i < status.field_count(); ++i) {
    if (status.field(i).number() != 3) continue;
    google::protobuf::Any any;
    any.ParseFromString(status.field(i).length_delimited());
    if (any.type_url() != "type.googleapis.com/google.rpc.RetryInfo") return -1;
    google::protobuf::UnknownFieldSet retry_info;
    retry_info.ParseFromString(any.value());
    google::protobuf::Duration delay;
    delay.ParseFromString(retry_info.field(0).length_delimited());
    return static_cast<double>(delay.seconds()) + delay.nanos() / 1e9;
  }
  return -1;
}

TEST(RetryInfoTest, IsWhatClientsOfGoogleRpcStatusRead) {
  const grpc::Status status =
      WithRetryInfo(absl::ResourceExhaustedError("full"), absl::Milliseconds(2500));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_message(), "full");
  EXPECT_DOUBLE_EQ(RetrySeconds(status.error_details()), 2.5);
  // Byte by byte: code, message, Any { type_url, RetryInfo { Duration { 2 s, 500000000 ns } } }.
  const std::string expected = std::string("\x08\x08\x12\x04") + "full" + "\x1a\x36\x0a\x28" +
                               "type.googleapis.com/google.rpc.RetryInfo" +
                               "\x12\x0a\x0a\x08\x08\x02\x10\x80\xca\xb5\xee\x01";
  EXPECT_EQ(status.error_details(), expected);
}

TEST_F(GatewayTest, RefusesWhatGoesBeyondItsQueueAndSaysWhenToRetry) {
  FakeHead head("");
  Signal started;
  Signal release;
  head.SetScript(Until(started, release));
  FakeCoordinator coordinator({&head});
  GatewayConfig config = PlainConfig(coordinator.address());
  config.gateway.admission.max_samples = 2;
  StartGateway(config);
  std::thread running([&] { EXPECT_EQ(Generate(Ask("one")).text, "a"); });
  EXPECT_TRUE(started.Wait());
  v1::GenerateRequest two = Ask("two");
  two.mutable_sampling()->set_n(2);
  const Received refused = Generate(two);
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.status.error_message(), HasSubstr("at most 2"));
  EXPECT_DOUBLE_EQ(RetrySeconds(refused.status.error_details()), 1);
  EXPECT_EQ(Metric("sauva_request_refusals_total{reason=\"RESOURCE_EXHAUSTED\"}"), 1);
  EXPECT_EQ(Metric("sauva_num_requests_running"), 1);
  release.Set();
  running.join();
  EXPECT_EQ(Generate(Ask("three")).text, "a") << "the room is free again";
}

TEST_F(GatewayTest, LimitsTheTokensThatWaitButNotOneLargeRequest) {
  FakeHead head("b");
  FakeCoordinator coordinator({&head});
  Signal release;
  coordinator.SetDispatch([&](const DispatchRequest&) -> absl::StatusOr<DispatchReply> {
    release.Wait();
    return DispatchReply{.model = {"bytes", "digest-1"},
                         .epoch = 1,
                         .head_address = head.address(),
                         .numerics_id = "n1",
                         .max_context = kContext};
  });
  GatewayConfig config = PlainConfig(coordinator.address());
  config.gateway.admission.max_queue_tokens = 100;
  StartGateway(config);
  std::thread waiting([&] { EXPECT_EQ(Generate(Ask("large")).text, "b"); });
  EXPECT_TRUE(Eventually([&] { return Metric("sauva_queued_tokens") == kContext; }));
  const Received refused = Generate(Ask("next"));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.status.error_message(), HasSubstr("at most 100"));
  release.Set();
  waiting.join();
  EXPECT_EQ(Metric("sauva_queued_tokens"), 0);
}

TEST_F(GatewayTest, NamesAMissingCoordinator) {
  std::string address;
  {
    FakeCoordinator gone({});
    address = gone.address();
  }
  GatewayConfig config = PlainConfig(address);
  config.gateway.session.dispatch_wait = absl::Milliseconds(300);
  StartGateway(config);
  const Received got = Generate(Ask("hi"));
  EXPECT_EQ(got.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(got.status.error_message(), HasSubstr(address));
  EXPECT_FALSE(IsServing(""));
  v1::ListModelsResponse models;
  grpc::ClientContext context;
  const grpc::Status listed = client->ListModels(&context, v1::ListModelsRequest(), &models);
  EXPECT_EQ(listed.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(listed.error_message(), HasSubstr(address));
}

TEST_F(GatewayTest, ARequestWaitsForACoordinatorThatComesBack) {
  FakeHead head("at last");
  auto coordinator = std::make_unique<FakeCoordinator>(std::vector<FakeHead*>{&head});
  const std::string address = coordinator->address();
  coordinator.reset();
  StartGateway(PlainConfig(address));
  std::string text;
  std::thread client_thread([&] { text = Generate(Ask("hi")).text; });
  coordinator = std::make_unique<FakeCoordinator>(std::vector<FakeHead*>{&head}, address);
  client_thread.join();
  EXPECT_EQ(text, "at last");
}

TEST_F(GatewayTest, NamesTheModelsThatAreServed) {
  FakeHead head("x");
  FakeCoordinator coordinator({&head});
  StartGateway(coordinator);
  v1::GenerateRequest request = Ask("hi");
  request.set_model("other");
  const Received got = Generate(request);
  EXPECT_EQ(got.status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(got.status.error_message(), HasSubstr("served: bytes"));
}

TEST_F(GatewayTest, BadFieldsAreNamedOverTheWire) {
  FakeHead head("x");
  FakeCoordinator coordinator({&head});
  StartGateway(coordinator);
  v1::GenerateRequest messages = Ask("");
  messages.mutable_messages()->add_messages()->set_role("user");
  EXPECT_THAT(Generate(messages).status.error_message(), HasSubstr("has no chat template"));
  v1::GenerateRequest nan = Ask("hi");
  nan.mutable_sampling()->set_temperature(std::nanf(""));
  EXPECT_THAT(Generate(nan).status.error_message(), HasSubstr("sampling.temperature is nan"));
  const Received too_long = Generate(Ask(std::string(600, 'a')));
  EXPECT_EQ(too_long.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(too_long.status.error_message(), HasSubstr("600 tokens"));
  EXPECT_THAT(too_long.status.error_message(), HasSubstr("holds 512"));
  EXPECT_TRUE(head.requests().empty());
}

TEST_F(GatewayTest, TokenizesALongPromptBesideTheLoopWithTheSameResult) {
  FakeHead head("x");
  FakeCoordinator coordinator({&head});
  GatewayConfig config = PlainConfig(coordinator.address());
  config.gateway.inline_text_bytes = 3;
  StartGateway(config);
  EXPECT_EQ(Generate(Ask("abc")).text, "x");
  EXPECT_EQ(Generate(Ask("abcd")).text, "x");
  EXPECT_EQ(head.requests()[1].prompt, (std::vector<TokenId>{'a', 'b', 'c', 'd'}));
  EXPECT_THAT(Generate(Ask(std::string(600, 'a'))).status.error_message(), HasSubstr("600 tokens"));
}

TEST_F(GatewayTest, AReaderThatStopsReadingIsCutOffAndOthersGoOn) {
  FakeHead head("");
  Signal cancelled;
  head.SetScript([&](const SequenceRequest& request, FakeHead::Stream& stream) {
    stream.Hello("n1");
    if (request.prompt.size() == 3) {
      stream.Continue(request, "quick");
      return grpc::Status::OK;
    }
    for (uint32_t i = 0; i < 490 && !stream.IsCancelled(); ++i) {
      // Log-probabilities make each response large enough to fill the window.
      SequenceTokens message{.first_index = i, .tokens = {'a'}};
      message.logprobs.resize(1);
      message.logprobs[0].top.resize(20, {.token = 1, .logprob = -1.5f});
      if (!stream.Say(message)) break;
    }
    if (stream.WaitForCancel()) cancelled.Set();
    return grpc::Status::CANCELLED;
  });
  FakeCoordinator coordinator({&head});
  GatewayConfig config = PlainConfig(coordinator.address());
  config.service.max_unread_bytes_of_call = 20'000;
  StartGateway(config);
  grpc::ClientContext context;
  v1::GenerateRequest request = Ask("slow");
  request.mutable_sampling()->set_logprobs(20);
  auto unread = client->Generate(&context, request);
  EXPECT_TRUE(cancelled.Wait());
  EXPECT_LE(Metric("sauva_unread_bytes"), 20'000);
  EXPECT_EQ(Generate(Ask("abc")).text, "quick");
  v1::GenerateResponse response;
  size_t num_read = 0;
  while (unread->Read(&response)) ++num_read;
  const grpc::Status status = unread->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("reads too slowly"));
  EXPECT_GE(num_read, 10u) << "what was accepted still arrives";
  EXPECT_LT(num_read, 490u);
  EXPECT_EQ(Metric("sauva_slow_readers_total"), 1);
  EXPECT_TRUE(Eventually([&] { return Metric("sauva_unread_bytes") == 0; }));
}

TEST_F(GatewayTest, DrainingLetsRunningRequestsEndAndRefusesNewOnes) {
  FakeHead head("");
  Signal started;
  Signal release;
  head.SetScript(Until(started, release));
  FakeCoordinator coordinator({&head});
  StartGateway(coordinator);
  std::thread running([&] {
    const Received got = Generate(Ask("one"));
    EXPECT_TRUE(got.status.ok()) << got.status.error_message();
    EXPECT_EQ(got.text, "a");
  });
  EXPECT_TRUE(started.Wait());
  EXPECT_TRUE(Eventually([&] { return IsServing(""); }));
  std::thread drainer([&] { gateway->Drain(); });
  EXPECT_TRUE(Eventually([&] { return !IsServing(""); }));
  const Received refused = Generate(Ask("two"));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(refused.status.error_message(), HasSubstr("shutting down"));
  release.Set();
  running.join();
  drainer.join();
}

TEST_F(GatewayTest, DrainingEndsWhatTakesTooLong) {
  FakeHead head("");
  Signal started;
  Signal cancelled;
  head.SetScript([&](const SequenceRequest&, FakeHead::Stream& stream) {
    stream.Hello("n1");
    started.Set();
    if (stream.WaitForCancel()) cancelled.Set();
    return grpc::Status::CANCELLED;
  });
  FakeCoordinator coordinator({&head});
  GatewayConfig config = PlainConfig(coordinator.address());
  config.drain_timeout = absl::Milliseconds(100);
  StartGateway(config);
  std::thread running(
      [&] { EXPECT_EQ(Generate(Ask("one")).status.error_code(), grpc::StatusCode::UNAVAILABLE); });
  EXPECT_TRUE(started.Wait());
  gateway->Drain();
  EXPECT_TRUE(cancelled.Wait());
  running.join();
}

TEST_F(GatewayTest, TwoGatewaysCannotTakeOnePort) {
  FakeCoordinator coordinator({});
  StartGateway(coordinator);
  GatewayConfig config = PlainConfig(coordinator.address());
  config.listen = gateway->address();
  Metrics metrics;
  const auto second = GatewayProcess::Start(config, metrics, UnservedHealth());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(gateway->address()));
}

}  // namespace
}  // namespace sauva::testing
