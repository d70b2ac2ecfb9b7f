#include "net/process_health.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <future>

#include "absl/time/clock.h"
#include "base/event_loop.h"
#include "tests/net/ask_health.h"

namespace sauva {
namespace {

using testing::AskedHealth;
using testing::AskHealth;

constexpr auto kServing = AskedHealth::kServing;
constexpr auto kNotServing = AskedHealth::kNotServing;

AskedHealth Ask(const std::string& address, const std::string& service) {
  return AskHealth(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()), service);
}

bool Becomes(const std::string& address, const std::string& service, AskedHealth state) {
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (Ask(address, service) != state) {
    if (absl::Now() > deadline) return false;
  }
  return true;
}

TEST(ProcessHealthTest, StartsAliveButNeitherStartedNorReady) {
  auto health = ProcessHealth::Start("127.0.0.1:0");
  ASSERT_TRUE(health.ok()) << health.status();
  const std::string address = (*health)->address();
  EXPECT_EQ(Ask(address, kLivenessHealth), kServing);
  EXPECT_EQ(Ask(address, kStartupHealth), kNotServing);
  EXPECT_EQ(Ask(address, kReadinessHealth), kNotServing);
  EXPECT_EQ(Ask(address, ""), kNotServing);
  EXPECT_EQ(Ask(address, "other"), AskedHealth::kUnknown);
  (*health)->SetStarted();
  EXPECT_EQ(Ask(address, kStartupHealth), kServing);
  EXPECT_EQ(Ask(address, kReadinessHealth), kNotServing);
  (*health)->SetReady(true);
  EXPECT_EQ(Ask(address, kReadinessHealth), kServing);
  EXPECT_EQ(Ask(address, ""), kServing);
  (*health)->SetReady(false);
  EXPECT_EQ(Ask(address, ""), kNotServing);
}

TEST(ProcessHealthTest, IsDeadWhileALoopDoesNotTurn) {
  auto health = ProcessHealth::Start("127.0.0.1:0", absl::Milliseconds(200));
  ASSERT_TRUE(health.ok()) << health.status();
  const std::string address = (*health)->address();
  EventLoop loop;
  (*health)->Watch([&loop](std::function<void()> task) { return loop.Post(std::move(task)); });
  EXPECT_TRUE(Becomes(address, kLivenessHealth, kServing));
  std::promise<void> release;
  loop.Post([&] { release.get_future().wait(); });
  EXPECT_TRUE(Becomes(address, kLivenessHealth, kNotServing));
  release.set_value();
  EXPECT_TRUE(Becomes(address, kLivenessHealth, kServing));
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
