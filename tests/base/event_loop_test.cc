#include "base/event_loop.h"

#include <gtest/gtest.h>

#include <future>
#include <vector>

#include "absl/time/clock.h"

namespace sauva {
namespace {

TEST(EventLoopTest, RunsTasksInOrderOnItsOwnThread) {
  EventLoop loop;
  std::vector<int> order;
  std::promise<bool> in_loop;
  EXPECT_TRUE(loop.Post([&] { order.push_back(1); }));
  EXPECT_TRUE(loop.Post([&] { order.push_back(2); }));
  EXPECT_TRUE(loop.Post([&] { in_loop.set_value(loop.InLoop()); }));
  EXPECT_TRUE(in_loop.get_future().get());
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
  EXPECT_FALSE(loop.InLoop());
}

TEST(EventLoopTest, TimersComeByTimeNotByTheOrderOfAsking) {
  EventLoop loop;
  std::vector<int> order;
  std::promise<void> done;
  const absl::Time start = absl::Now();
  loop.PostAt(start + absl::Milliseconds(30), [&] {
    order.push_back(2);
    done.set_value();
  });
  loop.PostAt(start + absl::Milliseconds(10), [&] { order.push_back(1); });
  done.get_future().wait();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
  EXPECT_GE(absl::Now(), start + absl::Milliseconds(30));
}

TEST(EventLoopTest, WhatNeedNotWaitGoesBeforeTasksAndTimersOfTheFutureDoNotHoldUpItsEnd) {
  EventLoop loop;
  std::vector<int> order;
  std::promise<void> started;
  std::promise<void> release;
  std::promise<void> done;
  ASSERT_TRUE(loop.Post([&] {
    started.set_value();
    release.get_future().wait();
  }));
  started.get_future().wait();
  ASSERT_TRUE(loop.Post([&] {
    order.push_back(2);
    done.set_value();
  }));
  loop.PostAt(absl::InfiniteFuture(), [&] { order.push_back(3); });
  loop.PostAt(absl::Now() + absl::Hours(100000), [&] { order.push_back(4); });
  loop.PostAt(absl::InfinitePast(), [&] { order.push_back(1); });
  release.set_value();
  done.get_future().wait();
  loop.Stop();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

TEST(EventLoopTest, RefusesWhenItsQueueIsFullAndAfterStop) {
  EventLoop loop(2);
  std::promise<void> started;
  std::promise<void> release;
  ASSERT_TRUE(loop.Post([&] {
    started.set_value();
    release.get_future().wait();
  }));
  started.get_future().wait();
  EXPECT_TRUE(loop.Post([] {}));
  EXPECT_TRUE(loop.Post([] {}));
  EXPECT_FALSE(loop.Post([] {}));
  release.set_value();
  loop.Stop();
  EXPECT_FALSE(loop.Post([] {}));
}

TEST(EventLoopTest, MayBeStoppedByItsOwnTask) {
  EventLoop loop;
  std::promise<void> stopped;
  EXPECT_TRUE(loop.Post([&] {
    loop.Stop();
    stopped.set_value();
  }));
  stopped.get_future().wait();
}

}  // namespace
}  // namespace sauva
