#include "gateway/otlp_client.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/time/clock.h"
#include "opentelemetry/trace.grpc.pb.h"
#include "tests/gateway/fake_cluster.h"

namespace sauva {
namespace {

namespace otlp = opentelemetry::proto::collector::trace::v1;
using ::testing::ElementsAre;
using testing::Eventually;
using testing::Signal;

// Takes spans; while it is held it answers nobody.
class FakeCollector final : public otlp::TraceService::Service {
 public:
  explicit FakeCollector(int64_t rejects = 0) : rejects_(rejects) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    address_ = "127.0.0.1:" + std::to_string(port);
  }
  ~FakeCollector() override {
    release_.Set();
    server_->Shutdown(absl::ToChronoTime(absl::Now()));
  }

  void Hold() { held_ = true; }
  void Release() { release_.Set(); }
  const std::string& address() const { return address_; }
  std::vector<int> batches() const {
    const std::lock_guard lock(mutex_);
    return batches_;
  }

  grpc::Status Export(grpc::ServerContext*, const otlp::ExportTraceServiceRequest* request,
                      otlp::ExportTraceServiceResponse* response) override {
    {
      const std::lock_guard lock(mutex_);
      batches_.push_back(request->resource_spans(0).scope_spans(0).spans_size());
    }
    if (held_) release_.Wait();
    response->mutable_partial_success()->set_rejected_spans(rejects_);
    return grpc::Status::OK;
  }

 private:
  const int64_t rejects_;
  std::atomic<bool> held_ = false;
  Signal release_;
  mutable std::mutex mutex_;
  std::vector<int> batches_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

class OtlpClientTest : public ::testing::Test {
 protected:
  std::unique_ptr<OtlpClient> Connect(OtlpOptions options) {
    auto client = OtlpClient::Create(options, "here/1",
                                     {.on_sent = [this](size_t n) { sent_ += n; },
                                      .on_dropped = [this](size_t n) { dropped_ += n; }});
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }
  static std::vector<Span> Spans(size_t number) {
    return std::vector<Span>(number, {.trace_id = std::string(16, 'x'), .span_id = 1, .name = "s"});
  }

  std::atomic<size_t> sent_ = 0;
  std::atomic<size_t> dropped_ = 0;
};

TEST_F(OtlpClientTest, WhatComesDuringACallGoesWithTheNextOnes) {
  FakeCollector collector;
  collector.Hold();
  auto client = Connect({.collector = collector.address(), .max_batch = 4});
  client->Offer(Spans(1));
  ASSERT_TRUE(Eventually([&] { return collector.batches().size() == 1; }));
  for (int i = 0; i < 6; ++i) client->Offer(Spans(1));
  collector.Release();
  ASSERT_TRUE(client->Flush(absl::Now() + absl::Seconds(20)));
  EXPECT_THAT(collector.batches(), ElementsAre(1, 4, 2));
  EXPECT_EQ(sent_, 7u);
  EXPECT_EQ(dropped_, 0u);
}

TEST_F(OtlpClientTest, ACollectorThatNeverAnswersCostsABoundedQueue) {
  FakeCollector collector;
  collector.Hold();
  auto client = Connect({.collector = collector.address(), .max_waiting = 10, .max_batch = 4});
  client->Offer(Spans(4));  // under way
  const absl::Time begin = absl::Now();
  for (int i = 0; i < 10'000; ++i) client->Offer(Spans(3));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
  EXPECT_EQ(dropped_, 30'000u - 10);
  EXPECT_FALSE(client->Flush(absl::Now() + absl::Milliseconds(1)));
  client.reset();
  EXPECT_EQ(sent_ + dropped_, 30'004u) << "every span is counted";
}

TEST_F(OtlpClientTest, AnUnansweredCallEndsAndIsCounted) {
  FakeCollector collector;
  collector.Hold();
  auto client = Connect({.collector = collector.address(), .timeout = absl::Milliseconds(100)});
  client->Offer(Spans(2));
  EXPECT_TRUE(Eventually([&] { return dropped_ == 2; }));
  collector.Release();
  EXPECT_TRUE(Eventually([&] {
    client->Offer(Spans(1));
    client->Flush(absl::Now() + absl::Seconds(1));
    return sent_ > 0;
  })) << "it is asked again";
}

TEST_F(OtlpClientTest, SpansThatTheCollectorRejectsAreCountedAsDropped) {
  FakeCollector collector(/*rejects=*/2);
  auto client = Connect({.collector = collector.address()});
  client->Offer(Spans(5));
  ASSERT_TRUE(client->Flush(absl::Now() + absl::Seconds(20)));
  EXPECT_EQ(sent_, 3u);
  EXPECT_EQ(dropped_, 2u);
}

TEST_F(OtlpClientTest, AnAuthorityThatCannotBeReadIsRefused) {
  const auto client =
      OtlpClient::Create({.collector = "127.0.0.1:1", .ca = "/nonexistent.pem"}, "here", {});
  EXPECT_TRUE(absl::IsInvalidArgument(client.status())) << client.status();
}

}  // namespace
}  // namespace sauva
