#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <future>
#include <mutex>
#include <vector>

#include "base/bounded_queue.h"
#include "net/channel.h"
#include "net/client_stream.h"
#include "net/server.h"
#include "net/server_stream.h"
#include "sauva/v1/stage.grpc.pb.h"

namespace sauva {
namespace {

using ControlServer = ServerStream<v1::ControlMessage, v1::ControlReply>;
using ControlClient = ClientStream<v1::ControlMessage, v1::ControlReply>;
using Writer = ServerWriter<v1::SequenceTokens>;
using Reader = ClientReader<v1::SequenceTokens>;

// Answers each control message's sequence id as a step id; Generate is left to the test.
class EchoService final : public v1::WorkerService::CallbackService {
 public:
  grpc::ServerBidiReactor<v1::ControlMessage, v1::ControlReply>* Control(
      grpc::CallbackServerContext*) override {
    auto stream = ControlServer::Make({.messages = 1000});
    last_control = stream;
    return stream->Listen({.on_message =
                               [raw = stream.get()](v1::ControlMessage message) {
                                 v1::ControlReply reply;
                                 reply.mutable_result()->set_step_id(message.close().sequence_id());
                                 raw->Send(reply);
                               },
                           .on_closed = [this] { closed.set_value(); }});
  }
  grpc::ServerWriteReactor<v1::SequenceTokens>* Generate(grpc::CallbackServerContext*,
                                                         const v1::SequenceRequest*) override {
    auto writer = Writer::Make({.messages = 4});
    auto* reactor = writer->Listen([this] { cancelled.set_value(); });
    EXPECT_TRUE(writers.TryPush(writer));
    return reactor;
  }

  std::shared_ptr<ControlServer> last_control;
  std::promise<void> closed;
  std::promise<void> cancelled;
  BoundedQueue<std::shared_ptr<Writer>> writers{4};
};

class StreamTest : public testing::Test {
 protected:
  void SetUp() override {
    auto server = RpcServer::Start({.address = "127.0.0.1:0"}, {&service_});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    auto channel = MakeChannel(server_->address(), {});
    ASSERT_TRUE(channel.ok());
    stub_ = v1::WorkerService::NewStub(*channel);
  }

  EchoService service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<v1::WorkerService::Stub> stub_;
};

v1::ControlMessage Numbered(uint64_t number) {
  v1::ControlMessage out;
  out.mutable_close()->set_sequence_id(number);
  return out;
}

constexpr auto kSoon = std::chrono::seconds(20);

TEST_F(StreamTest, AThousandMessagesComeBackInOrderAndBothSidesEnd) {
  auto stream = ControlClient::Make(1000);
  stub_->async()->Control(&stream->context(), stream->reactor());
  std::vector<uint64_t> seen;
  std::promise<grpc::Status> ended;
  stream->Start(stream, {.on_message =
                             [&](v1::ControlReply reply) {
                               seen.push_back(reply.result().step_id());
                               if (seen.size() == 1000) stream->End();
                             },
                         .on_closed = [&](const grpc::Status& s) { ended.set_value(s); }});
  for (uint64_t i = 0; i < 1000; ++i) ASSERT_TRUE(stream->Send(Numbered(i)));
  auto status = ended.get_future();
  ASSERT_EQ(status.wait_for(kSoon), std::future_status::ready);
  EXPECT_TRUE(status.get().ok());
  ASSERT_EQ(seen.size(), 1000u);
  for (uint64_t i = 0; i < 1000; ++i) EXPECT_EQ(seen[i], i);
  EXPECT_EQ(service_.closed.get_future().wait_for(kSoon), std::future_status::ready);
  EXPECT_FALSE(stream->Send(Numbered(0)));
}

TEST_F(StreamTest, AClientThatCancelsIsSeenByTheServer) {
  auto stream = ControlClient::Make(10);
  stub_->async()->Control(&stream->context(), stream->reactor());
  std::promise<void> first;
  std::promise<grpc::Status> ended;
  stream->Start(stream, {.on_message = [&](const v1::ControlReply&) { first.set_value(); },
                         .on_closed = [&](const grpc::Status& s) { ended.set_value(s); }});
  ASSERT_TRUE(stream->Send(Numbered(1)));
  ASSERT_EQ(first.get_future().wait_for(kSoon), std::future_status::ready);
  stream->Cancel();
  auto status = ended.get_future();
  ASSERT_EQ(status.wait_for(kSoon), std::future_status::ready);
  EXPECT_EQ(status.get().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(service_.closed.get_future().wait_for(kSoon), std::future_status::ready);
}

TEST_F(StreamTest, TheServerEndsACallWithItsStatusAfterWhatWaits) {
  auto reader = Reader::Make();
  v1::SequenceRequest request;
  stub_->async()->Generate(&reader->context(), &request, reader->reactor());
  int received = 0;
  std::promise<grpc::Status> ended;
  reader->Start(reader, {.on_message = [&](const v1::SequenceTokens&) { ++received; },
                         .on_closed = [&](const grpc::Status& s) { ended.set_value(s); }});
  auto writer = service_.writers.Pop();
  for (int i = 0; i < 3; ++i) EXPECT_TRUE((*writer)->Send({}));
  (*writer)->Finish({grpc::StatusCode::UNAVAILABLE, "pipeline broke"});
  EXPECT_FALSE((*writer)->Send({}));
  auto status = ended.get_future();
  ASSERT_EQ(status.wait_for(kSoon), std::future_status::ready);
  EXPECT_EQ(status.get().error_message(), "pipeline broke");
  EXPECT_EQ(received, 3);
}

TEST_F(StreamTest, AReaderThatGivesUpIsSeenOnceByTheWriter) {
  auto reader = Reader::Make();
  v1::SequenceRequest request;
  stub_->async()->Generate(&reader->context(), &request, reader->reactor());
  std::promise<void> ended;
  reader->Start(reader, {.on_message = [](const v1::SequenceTokens&) {},
                         .on_closed = [&](const grpc::Status&) { ended.set_value(); }});
  auto writer = service_.writers.Pop();
  reader->Cancel();
  EXPECT_EQ(service_.cancelled.get_future().wait_for(kSoon), std::future_status::ready);
  EXPECT_EQ(ended.get_future().wait_for(kSoon), std::future_status::ready);
  EXPECT_FALSE((*writer)->Send({}));
}

// A client that never reads fills gRPC's window; then our bounded outbox refuses.
TEST_F(StreamTest, AReaderThatStopsReadingCannotGrowTheWritersMemory) {
  grpc::ClientContext context;
  v1::SequenceRequest request;
  auto stalled = stub_->Generate(&context, request);
  auto writer = service_.writers.Pop();
  v1::SequenceTokens large;
  large.set_numerics_id(std::string(1 << 20, 'x'));
  int accepted = 0;
  while (accepted < 1000 && (*writer)->Send(large)) ++accepted;
  EXPECT_LT(accepted, 1000);
  (*writer)->Finish(grpc::Status::OK);
  context.TryCancel();
  v1::SequenceTokens ignored;
  while (stalled->Read(&ignored)) {
  }
  EXPECT_FALSE(stalled->Finish().ok());
}

TEST_F(StreamTest, ATakenPortIsNamed) {
  EchoService other;
  const auto second = RpcServer::Start({.address = server_->address()}, {&other});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), testing::HasSubstr(server_->address()));
}

}  // namespace
}  // namespace sauva
