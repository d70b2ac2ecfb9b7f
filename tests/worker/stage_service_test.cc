#include "worker/stage_service.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <future>

#include "base/metrics.h"
#include "net/channel.h"
#include "net/server.h"
#include "proto/generation_codec.h"
#include "tests/worker/fake_nccl_folder.h"

namespace sauva {
namespace {

// The service between real gRPC and a loop whose session's words the test replaces.
class StageServiceTest : public testing::Test {
 protected:
  StageServiceTest() {
    auto server = RpcServer::Start({.address = "127.0.0.1:0"}, {&service_});
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    stub_ = v1::WorkerService::NewStub(*MakeChannel(server_->address(), {}));
  }
  ~StageServiceTest() override {
    server_->Shutdown(absl::ZeroDuration());
    loop_.Stop();
  }

  // On the loop's thread, as effects are.
  void OnLoop(const std::function<void()>& work) {
    std::promise<void> done;
    loop_.events().PostAt(absl::InfinitePast(), [&] {
      work();
      done.set_value();
    });
    done.get_future().wait();
  }

  static v1::SequenceRequest Request() {
    SequenceRequest request{.epoch = 1, .prompt = {1}};
    request.sampling.seed = 1;
    request.sampling.max_tokens = 1;
    v1::SequenceRequest message;
    ToProto(request, &message);
    return message;
  }

  Metrics metrics_;
  std::promise<StreamId> opened_;
  std::promise<IncomingId> refused_;
  // The session serves nothing and refuses the stream; the test tells of it otherwise.
  WorkerLoop loop_{{}, [this](WorkerEffect& effect) {
                     if (auto* end = std::get_if<EndStream>(&effect)) {
                       opened_.set_value(end->stream);
                     } else if (auto* link = std::get_if<EndIncoming>(&effect)) {
                       refused_.set_value(link->id);
                     }
                   }};
  const FakeNcclFolder folder_;
  const NcclSetup nccl_{folder_.Access()};
  const ModelStore store_{{}};
  StageService service_{loop_,
                        store_,
                        nccl_,
                        metrics_.Counter("received_total", "Bytes"),
                        {.max_streams = 1, .max_unread_messages = 4}};
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<v1::WorkerService::Stub> stub_;
};

TEST_F(StageServiceTest, AReaderThatFallsBehindIsSentABoundedNumberOfMessagesWithoutAGap) {
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, Request());
  const StreamId id = opened_.get_future().get();
  constexpr uint32_t kMessages = 500;
  constexpr uint32_t kTokens = 20000;  // 60 kB a message: soon more than gRPC takes
  OnLoop([&] {
    for (uint32_t i = 0; i < kMessages; ++i) {
      service_.Apply(StreamTokens{
          id, {.first_index = i * kTokens, .tokens = std::vector<TokenId>(kTokens, 100000)}});
    }
    service_.Apply(EndStream{id, absl::ResourceExhaustedError("the reader does not keep up")});
  });
  uint32_t received = 0;
  v1::SequenceTokens message;
  while (reader->Read(&message)) {
    EXPECT_EQ(message.first_index(), received * kTokens);
    ++received;
  }
  EXPECT_GT(received, 0u);
  EXPECT_LT(received, kMessages);
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(StageServiceTest, MoreStreamsThanTheLimitAreRefused) {
  grpc::ClientContext first_context;
  const auto first = stub_->Generate(&first_context, Request());
  opened_.get_future().wait();
  grpc::ClientContext second_context;
  const auto second = stub_->Generate(&second_context, Request());
  const grpc::Status status = second->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), testing::HasSubstr("1 streams"));
  first_context.TryCancel();
}

// Neither the loop nor other calls wait for what NCCL does.
TEST_F(StageServiceTest, ALinkWhoseAbortHangsHoldsNobodyUp) {
  grpc::ClientContext context;
  const auto link = stub_->Link(&context);
  v1::HiddenFrame hello;
  hello.mutable_hello()->set_epoch(1);
  link->Write(hello);
  // The session refuses an epoch that it was not told of; the test accepts the stream instead.
  constexpr IncomingId kFirst = 1;
  ASSERT_TRUE(refused_.get_future().get() == kFirst);
  OnLoop([&] {
    service_.Apply(AcceptIncoming{
        .id = kFirst, .hello = {.epoch = 1}, .max_hidden_values = 8, .link = LinkKind::kNccl});
  });
  v1::LinkReply reply;
  ASSERT_TRUE(link->Read(&reply));
  const NcclId id = *nccl_.functions->MakeId();
  link->Write(NcclIdFrame({id.data(), id.size()}));
  ASSERT_TRUE(SoonTrue([&] { return nccl_.ends.running() == 1; }));
  NcclPair peer(*nccl_.functions, *MakeTransferMemory("cpu", 64));
  ASSERT_TRUE(peer.Join(id, 0).ok());
  ASSERT_TRUE(SoonTrue([&] { return folder_.OutstandingIds() == 0; }));

  folder_.Lay("hang-abort");
  std::promise<void> ended;
  loop_.events().PostAt(absl::InfinitePast(), [&] {
    service_.Apply(EndIncoming{kFirst, absl::AbortedError("the epoch ended")});
    ended.set_value();
  });
  const bool loop_goes_on =
      ended.get_future().wait_for(std::chrono::seconds(10)) == std::future_status::ready;
  EXPECT_TRUE(loop_goes_on);
  EXPECT_EQ(nccl_.ends.running(), 1);
  if (loop_goes_on) {
    grpc::ClientContext other;
    other.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    const auto reader = stub_->Generate(&other, Request());
    opened_.get_future().wait();
    other.TryCancel();
    EXPECT_EQ(link->Finish().error_code(), grpc::StatusCode::ABORTED);
  }
  folder_.Take("hang-abort");
  EXPECT_TRUE(SoonTrue([&] { return nccl_.ends.running() == 0; }));
}

}  // namespace
}  // namespace sauva
