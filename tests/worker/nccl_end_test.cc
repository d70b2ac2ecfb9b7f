// Ends of NCCL links against the stand-in of the library, whose calls fail or hang.
#include "worker/nccl_end.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <mutex>
#include <vector>

#include "tests/worker/fake_nccl_folder.h"

namespace sauva {
namespace {

using testing::HasSubstr;

class NcclEndTest : public testing::Test {
 protected:
  // What one end has told.
  struct Told {
    std::mutex mutex;
    std::optional<NcclId> id;
    std::vector<NcclLost> lost;
    bool joined = false;
    template <class F>
    auto Look(F look) {
      const std::lock_guard lock(mutex);
      return look(*this);
    }
  };

  absl::StatusOr<std::unique_ptr<NcclEnd>> Start(NcclStarted started, Told& told) {
    return NcclEnd::Start(
        setup_, started,
        {.on_id = [&told](const NcclId& id) { told.Look([&](Told& t) { t.id = id; }); },
         .on_joined = [&told] { told.Look([](Told& t) { t.joined = true; }); },
         .announce = [](const HiddenAnnounced&) {},
         .on_received = [](HiddenStates) {},
         .on_lost =
             [&told](const NcclLost& lost) {
               told.Look([&](Told& t) { t.lost.push_back(lost); });
             }});
  }
  std::unique_ptr<NcclEnd> StartSender(Told& told) {
    auto end = Start({.epoch = 1, .sends = true, .max_values = 8}, told);
    EXPECT_TRUE(end.ok()) << end.status();
    return end.ok() ? *std::move(end) : nullptr;
  }
  std::unique_ptr<NcclEnd> StartReceiver(Told& told, const NcclId& id) {
    auto end = Start({.epoch = 1, .id = id, .sends = false, .max_values = 8}, told);
    EXPECT_TRUE(end.ok()) << end.status();
    return end.ok() ? *std::move(end) : nullptr;
  }
  static bool AwaitId(Told& told) {
    return SoonTrue([&] { return told.Look([](Told& t) { return t.id.has_value(); }); });
  }
  static bool AwaitJoined(Told& told) {
    return SoonTrue([&] { return told.Look([](Told& t) { return t.joined; }); });
  }
  // Lets go of an end on another thread; false when that does not return.
  static bool LetGo(std::unique_ptr<NcclEnd>& end) {
    const auto done = std::make_shared<std::promise<void>>();
    auto future = done->get_future();
    std::thread([done, held = std::move(end)]() mutable {
      held.reset();
      done->set_value();
    }).detach();
    return future.wait_for(std::chrono::seconds(10)) == std::future_status::ready;
  }

  const FakeNcclFolder folder_;
  const NcclSetup setup_{folder_.Access()};
};

TEST_F(NcclEndTest, AnIdIsUsedUpOnceBothEndsHaveJoined) {
  Told sent, received;
  auto sender = StartSender(sent);
  ASSERT_TRUE(AwaitId(sent));
  EXPECT_EQ(folder_.OutstandingIds(), 1);
  auto receiver = StartReceiver(received, *sent.id);
  ASSERT_TRUE(AwaitJoined(sent) && AwaitJoined(received));
  EXPECT_EQ(folder_.OutstandingIds(), 0);
}

TEST_F(NcclEndTest, ACallThatFailsIsTheFailureOfItsOwnEndWithNcclsWords) {
  folder_.Lay("no-connect");
  Told sent;
  const auto sender = StartSender(sent);
  ASSERT_TRUE(SoonTrue([&] { return sent.Look([](Told& t) { return !t.lost.empty(); }); }));
  EXPECT_EQ(sent.lost[0].fault, NcclFault::kOwn);
  EXPECT_THAT(sent.lost[0].reason, HasSubstr("unhandled system error (connect: no route to host)"));
}

TEST_F(NcclEndTest, AnEndIsLetGoAtOnceWhileItsAbortHangs) {
  Told sent, received;
  auto sender = StartSender(sent);
  ASSERT_TRUE(AwaitId(sent));
  auto receiver = StartReceiver(received, *sent.id);
  ASSERT_TRUE(AwaitJoined(sent) && AwaitJoined(received));
  folder_.Lay("hang-abort");
  EXPECT_TRUE(LetGo(sender));
  EXPECT_TRUE(LetGo(receiver));
  EXPECT_TRUE(folder_.AwaitHangingCalls(2));
  folder_.Take("hang-abort");
  EXPECT_TRUE(SoonTrue([&] { return setup_.ends.running() == 0; }));
}

TEST_F(NcclEndTest, AnEndIsLetGoAtOnceWhileTheCallForItsIdHangs) {
  folder_.Lay("hang-id");
  Told sent;
  auto sender = StartSender(sent);
  ASSERT_TRUE(folder_.AwaitHangingCalls(1));
  EXPECT_TRUE(LetGo(sender));
  EXPECT_EQ(setup_.ends.running(), 1);
  folder_.Take("hang-id");
  EXPECT_TRUE(SoonTrue([&] { return setup_.ends.running() == 0; }));
  EXPECT_FALSE(sent.id.has_value()) << "it was let go before";
}

TEST_F(NcclEndTest, EndsThatHangAreBounded) {
  folder_.Lay("hang-id");
  Told sent;
  absl::Status status;
  int started = 0;
  for (; status.ok() && started < 100; ++started) {
    auto end = Start({.epoch = 1, .sends = true, .max_values = 8}, sent);
    status = end.status();
    if (end.ok()) {
      ASSERT_TRUE(folder_.AwaitHangingCalls(started + 1));
    }
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("8 threads of earlier ones still run, the limit is 8"));
  folder_.Take("hang-id");
  EXPECT_TRUE(SoonTrue([&] { return setup_.ends.running() == 0; }));
}

}  // namespace
}  // namespace sauva
