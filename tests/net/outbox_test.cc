#include "net/outbox.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace sauva {
namespace {

struct Parcel {
  size_t bytes = 0;
  size_t SpaceUsedLong() const { return bytes; }
};
using ParcelBox = Outbox<Parcel>;

// Pushes parcels of one byte until none is taken; returns how many were.
size_t Fill(ParcelBox& box) {
  size_t count = 0;
  while (count < 100'000 && box.Push({1})) ++count;
  return count;
}

TEST(OutboxTest, TakesNoMoreMessagesThanItsLimit) {
  ParcelBox box({.messages = 3});
  EXPECT_EQ(Fill(box), 3u);
  ASSERT_NE(box.Next(), nullptr);
  EXPECT_FALSE(box.Push({1})) << "the one on its way counts until it is written";
  box.Written();
  EXPECT_TRUE(box.Push({1}));
}

TEST(OutboxTest, TakesNoMoreBytesThanItsLimitButOneMessageOfAnySize) {
  ParcelBox box({.messages = 100, .bytes = 10});
  EXPECT_TRUE(box.Push({25}));
  EXPECT_FALSE(box.Push({1}));
  ASSERT_NE(box.Next(), nullptr);
  box.Written();
  EXPECT_TRUE(box.Push({4}));
  EXPECT_TRUE(box.Push({6}));
  EXPECT_FALSE(box.Push({1}));
}

TEST(OutboxTest, HandsOutMessagesInOrderAndEndsAfterTheLast) {
  Outbox<Parcel> box({.messages = 8});
  EXPECT_TRUE(box.Push({1}));
  EXPECT_TRUE(box.Push({2}));
  EXPECT_EQ(box.Next()->bytes, 1u);
  EXPECT_EQ(box.Next(), nullptr) << "one at a time";
  box.End();
  EXPECT_FALSE(box.Push({3}));
  EXPECT_FALSE(box.TakeEnd());
  box.Written();
  EXPECT_EQ(box.Next()->bytes, 2u);
  box.Written();
  EXPECT_TRUE(box.TakeEnd());
  EXPECT_FALSE(box.TakeEnd()) << "once";
}

TEST(OutboxMemoryTest, OneSlowReaderGetsHalfAndLeavesRoomForOthers) {
  OutboxMemory memory(1000);
  ParcelBox slow({.messages = 100'000, .memory = &memory});
  EXPECT_EQ(Fill(slow), 500u);
  ParcelBox pauses({.messages = 100'000, .memory = &memory});
  EXPECT_EQ(Fill(pauses), 250u);
  EXPECT_EQ(memory.used_bytes(), 750u);
}

TEST(OutboxMemoryTest, ManySlowReadersNeverTakeAllOfIt) {
  OutboxMemory memory(1000);
  std::vector<std::unique_ptr<ParcelBox>> slow;
  for (int i = 0; i < 99; ++i) {
    slow.push_back(
        std::make_unique<ParcelBox>(OutboxLimits{.messages = 100'000, .memory = &memory}));
    Fill(*slow.back());
    EXPECT_LE(memory.used_bytes(), 1000u + slow.size());
  }
  ParcelBox next({.messages = 100'000, .memory = &memory});
  EXPECT_TRUE(next.Push({1})) << "the first message always finds room";
}

TEST(OutboxMemoryTest, EveryByteComesBackHoweverAnOutboxEnds) {
  double told = 0;
  OutboxMemory memory(1000, [&](double change) { told += change; });
  {
    ParcelBox written({.messages = 8, .memory = &memory});
    ParcelBox broken({.messages = 8, .memory = &memory});
    ParcelBox dropped({.messages = 8, .memory = &memory});
    for (ParcelBox* box : {&written, &broken, &dropped}) {
      EXPECT_TRUE(box->Push({10}));
      EXPECT_TRUE(box->Push({20}));
    }
    EXPECT_EQ(memory.used_bytes(), 90u);
    EXPECT_EQ(told, 90);
    while (written.Next() != nullptr) written.Written();
    EXPECT_EQ(memory.used_bytes(), 60u);
    ASSERT_NE(broken.Next(), nullptr);
    broken.Break();
    EXPECT_EQ(memory.used_bytes(), 40u) << "gRPC still reads the first message";
    broken.Written();
    EXPECT_EQ(memory.used_bytes(), 30u);
  }
  EXPECT_EQ(memory.used_bytes(), 0u);
  EXPECT_EQ(told, 0);
}

}  // namespace
}  // namespace sauva
