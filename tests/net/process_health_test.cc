#include "net/process_health.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <future>

#include "absl/time/clock.h"
#include "base/event_loop.h"

namespace sauva {
namespace {

// 1: SERVING, 2: NOT_SERVING, 0: unknown service or no answer. The messages are
// HealthCheckRequest { string service = 1; } and HealthCheckResponse { Status status = 1; }.
int Check(const std::string& address, const std::string& service) {
  const auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  const std::string bytes = "\x0a" + std::string(1, static_cast<char>(service.size())) + service;
  const grpc::Slice slice(bytes);
  const grpc::ByteBuffer request(&slice, 1);
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
  if (!status.ok() || !response.DumpToSingleSlice(&answer).ok() || answer.size() < 2) return 0;
  return answer.begin()[1];
}

bool Becomes(const std::string& address, const std::string& service, int state) {
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (Check(address, service) != state) {
    if (absl::Now() > deadline) return false;
  }
  return true;
}

TEST(ProcessHealthTest, StartsAliveButNeitherStartedNorReady) {
  auto health = ProcessHealth::Start("127.0.0.1:0");
  ASSERT_TRUE(health.ok()) << health.status();
  const std::string address = (*health)->address();
  EXPECT_EQ(Check(address, kLivenessHealth), 1);
  EXPECT_EQ(Check(address, kStartupHealth), 2);
  EXPECT_EQ(Check(address, kReadinessHealth), 2);
  EXPECT_EQ(Check(address, ""), 2);
  EXPECT_EQ(Check(address, "other"), 0);
  (*health)->SetStarted();
  EXPECT_EQ(Check(address, kStartupHealth), 1);
  EXPECT_EQ(Check(address, kReadinessHealth), 2);
  (*health)->SetReady(true);
  EXPECT_EQ(Check(address, kReadinessHealth), 1);
  EXPECT_EQ(Check(address, ""), 1);
  (*health)->SetReady(false);
  EXPECT_EQ(Check(address, ""), 2);
}

TEST(ProcessHealthTest, IsDeadWhileALoopDoesNotTurn) {
  auto health = ProcessHealth::Start("127.0.0.1:0", absl::Milliseconds(200));
  ASSERT_TRUE(health.ok()) << health.status();
  const std::string address = (*health)->address();
  EventLoop loop;
  (*health)->Watch([&loop](std::function<void()> task) { return loop.Post(std::move(task)); });
  EXPECT_TRUE(Becomes(address, kLivenessHealth, 1));
  std::promise<void> release;
  loop.Post([&] { release.get_future().wait(); });
  EXPECT_TRUE(Becomes(address, kLivenessHealth, 2));
  release.set_value();
  EXPECT_TRUE(Becomes(address, kLivenessHealth, 1));
  (*health)->Unwatch();
}

TEST(ProcessHealthTest, WithoutAnAddressNothingIsServed) {
  auto health = ProcessHealth::Start("");
  ASSERT_TRUE(health.ok()) << health.status();
  EXPECT_EQ((*health)->address(), "");
  (*health)->SetReady(true);
}

}  // namespace
}  // namespace sauva
