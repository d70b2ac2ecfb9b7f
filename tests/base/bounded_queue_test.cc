#include "base/bounded_queue.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>

namespace sauva {
namespace {

TEST(BoundedQueueTest, HandsOutValuesInOrderAndRefusesWhenFull) {
  BoundedQueue<int> queue(2);
  EXPECT_TRUE(queue.TryPush(1));
  EXPECT_TRUE(queue.TryPush(2));
  EXPECT_FALSE(queue.TryPush(3));
  EXPECT_EQ(queue.Pop(), 1);
  EXPECT_TRUE(queue.TryPush(3));
  EXPECT_EQ(queue.Pop(), 2);
  EXPECT_EQ(queue.Pop(), 3);
}

TEST(BoundedQueueTest, CloseWakesAWaiterAndKeepsWhatIsThere) {
  BoundedQueue<std::unique_ptr<int>> queue(2);
  EXPECT_TRUE(queue.TryPush(std::make_unique<int>(5)));
  std::thread closer([&] { queue.Close(); });
  closer.join();
  EXPECT_FALSE(queue.TryPush(nullptr));
  const auto left = queue.Pop();
  ASSERT_TRUE(left.has_value());
  EXPECT_EQ(**left, 5);
  EXPECT_FALSE(queue.Pop().has_value());
}

TEST(BoundedQueueTest, PopUntilGivesUpAtItsDeadline) {
  BoundedQueue<int> queue(1);
  EXPECT_FALSE(queue.PopUntil(std::chrono::steady_clock::now()).has_value());
}

TEST(BoundedQueueTest, LosesNothingBetweenTwoThreads) {
  BoundedQueue<int> queue(3);
  constexpr int kCount = 10000;
  std::thread producer([&] {
    for (int i = 0; i < kCount;) {
      if (queue.TryPush(i)) ++i;
    }
    queue.Close();
  });
  int expected = 0;
  while (const auto value = queue.Pop()) EXPECT_EQ(*value, expected++);
  producer.join();
  EXPECT_EQ(expected, kCount);
}

}  // namespace
}  // namespace sauva
