#include "kernels/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace sauva {
namespace {

TEST(ThreadPoolTest, RunsEachTileOnceAndWaitsForAll) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const int64_t tiles : {0, 1, 2, 7, 100}) {
      for (int repeat = 0; repeat < 200; ++repeat) {
        std::vector<int> runs(static_cast<size_t>(tiles));  // plain: a tile has one thread
        pool.Run(tiles, [&](int64_t tile, int thread) {
          EXPECT_GE(thread, 0);
          EXPECT_LT(thread, threads);
          ++runs[static_cast<size_t>(tile)];
        });
        for (const int count : runs) ASSERT_EQ(count, 1);
      }
    }
  }
}

TEST(ThreadPoolTest, NoTwoTilesShareAThreadNumberAtOnce) {
  ThreadPool pool(4);
  std::vector<std::atomic<int>> inside(4);
  for (int repeat = 0; repeat < 100; ++repeat) {
    pool.Run(50, [&](int64_t, int thread) {
      EXPECT_EQ(inside[static_cast<size_t>(thread)].fetch_add(1), 0);
      inside[static_cast<size_t>(thread)].fetch_sub(1);
    });
  }
}

// Waits for a helper: only two threads together can finish.
TEST(ThreadPoolTest, HelpersWakeFromSleep) {
  ThreadPool pool(2);
  for (int repeat = 0; repeat < 20; ++repeat) {
    std::atomic<int> arrived{0};
    pool.Run(2, [&](int64_t, int) {
      ++arrived;
      while (arrived < 2) std::this_thread::yield();
    });
    EXPECT_EQ(arrived, 2);
  }
}

// The states of this process's threads, as letters: R running, S asleep.
std::string ThreadStates() {
  std::string states;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream file(task.path() / "stat");
    std::string line;
    std::getline(file, line);
    const size_t name_end = line.rfind(')');
    if (name_end != std::string::npos && name_end + 2 < line.size()) states += line[name_end + 2];
  }
  return states;
}

TEST(ThreadPoolTest, IdleHelpersSleep) {
  ThreadPool pool(4);
  pool.Run(100, [](int64_t, int) {});
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  std::string states = ThreadStates();
  // This thread runs; the three helpers must come to rest.
  while (std::count(states.begin(), states.end(), 'S') < 3 &&
         std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
    states = ThreadStates();
  }
  EXPECT_GE(std::count(states.begin(), states.end(), 'S'), 3) << states;
}

}  // namespace
}  // namespace sauva
