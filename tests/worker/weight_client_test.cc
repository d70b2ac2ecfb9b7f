// A worker that asks for weights, and donors that refuse or stand still.
#include "worker/weight_client.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "net/server.h"
#include "sauva/v1/stage.grpc.pb.h"
#include "tests/worker/fake_nccl_folder.h"
#include "worker/weight_transfer.h"

namespace sauva {
namespace {

using testing::HasSubstr;

// Goes as far as it is told to, then says nothing more while the call lives.
class FakeDonor final : public v1::WorkerService::Service {
 public:
  enum class Until { kRefusal, kCalled, kJoined };
  FakeDonor(const NcclSetup& nccl, Until until) : nccl_(nccl), until_(until) {}

  grpc::Status CopyWeights(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<v1::WeightReply, v1::WeightRequest>* stream) override {
    if (until_ == Until::kRefusal) {
      return {grpc::StatusCode::RESOURCE_EXHAUSTED, "this worker sends weights to another"};
    }
    v1::WeightRequest request;
    stream->Read(&request);
    const auto pair = *OpenWeightPair(nccl_);
    if (until_ == Until::kJoined) {
      stream->Write({});
      stream->Read(&request);
      NcclId id;
      std::copy_n(request.nccl_id().begin(), id.size(), id.begin());
      EXPECT_TRUE(pair->Join(id, 0).ok());
    }
    while (!context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return grpc::Status::OK;
  }

 private:
  const NcclSetup& nccl_;
  const Until until_;
};

class WeightClientTest : public testing::Test {
 protected:
  static NcclAccess Impatient(NcclAccess access) {
    access.options.join_timeout = absl::Milliseconds(700);
    access.options.step_timeout = absl::Milliseconds(300);
    return access;
  }
  absl::StatusOr<std::unique_ptr<WeightClient>> Connect(FakeDonor::Until until) {
    donor_ = std::make_unique<FakeDonor>(setup_, until);
    server_ = *RpcServer::Start({.address = "127.0.0.1:0"}, {donor_.get()});
    return WeightClient::Connect(server_->address(), {}, setup_, {"model", "digest"});
  }
  void TearDown() override {
    if (server_ != nullptr) server_->Shutdown(absl::ZeroDuration());
  }

  const FakeNcclFolder folder_;
  const NcclSetup setup_{Impatient(folder_.Access())};
  std::unique_ptr<FakeDonor> donor_;
  std::unique_ptr<RpcServer> server_;
};

TEST_F(WeightClientTest, ADonorThatRefusesCostsNoId) {
  const auto client = Connect(FakeDonor::Until::kRefusal);
  EXPECT_THAT(client.status().message(), HasSubstr("sends weights to another"));
  EXPECT_EQ(folder_.OutstandingIds(), 0);
}

TEST_F(WeightClientTest, ADonorThatStandsStillBeforeItJoinsIsGivenUp) {
  const auto client = Connect(FakeDonor::Until::kCalled);
  EXPECT_EQ(client.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(client.status().message(), HasSubstr("said nothing within 700ms"));
  EXPECT_EQ(folder_.OutstandingIds(), 0);
}

TEST_F(WeightClientTest, ADonorThatStandsStillBeforeItAnnouncesATensorIsGivenUp) {
  auto client = Connect(FakeDonor::Until::kJoined);
  ASSERT_TRUE(client.ok()) << client.status();
  std::vector<std::byte> bytes(64);
  const absl::Time begin = absl::Now();
  const absl::Status status = (*client)->Fetch("layers.0.weight", bytes);
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(status.message(), HasSubstr("said nothing within 300ms"));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(10));
  EXPECT_THAT((*client)->Fetch("layers.0.weight", bytes).message(), HasSubstr("failed before"));
}

TEST_F(WeightClientTest, AClientEndsWhileItsAbortHangs) {
  auto client = Connect(FakeDonor::Until::kJoined);
  ASSERT_TRUE(client.ok()) << client.status();
  folder_.Lay("hang-abort");
  client->reset();
  EXPECT_EQ(setup_.receivers.running(), 1);
  folder_.Take("hang-abort");
  EXPECT_TRUE(SoonTrue([&] { return setup_.receivers.running() == 0; }));
}

}  // namespace
}  // namespace sauva
