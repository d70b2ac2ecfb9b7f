#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace sauva {

// Threads that run the tiles of one op together and then wait for the next. The caller is
// one of them. A waiting thread looks for work for 50 microseconds, if every thread has
// a core of its own, and then sleeps: an idle pool takes no time.
// Thread: Run is called by one thread at a time.
class ThreadPool {
 public:
  // Starts threads - 1 threads; threads >= 1.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(helpers_.size()) + 1; }

  // Calls tile_function(tile, thread) once for each tile in [0, tiles) and returns when all
  // are done. Which thread, in [0, threads()), runs which tile is left to chance.
  template <class F>
  void Run(int64_t tiles, const F& tile_function) {
    RunJob({.tiles = tiles,
            .context = &tile_function,
            .call = [](const void* f, int64_t tile, int thread) {
              (*static_cast<const F*>(f))(tile, thread);
            }});
  }

 private:
  struct Job {
    int64_t tiles = 0;
    const void* context = nullptr;
    void (*call)(const void* context, int64_t tile, int thread) = nullptr;
  };

  void RunJob(const Job& job);
  void HelperMain(int thread);
  // Waits until a job other than the one of `seen` is open, or the pool stops; returns state.
  uint64_t AwaitJob(uint64_t seen);
  void RunTiles(int thread);

  const std::chrono::microseconds spin_time_;
  Job job_;  // written by the caller while no helper is inside
  std::atomic<int64_t> next_tile_{0};
  // Bits 0-14: helpers inside the job; bit 15: open, helpers may enter; above: job number.
  std::atomic<uint64_t> state_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable wake_;   // a job opened, or stopping
  std::condition_variable empty_;  // the last helper left
  std::vector<std::thread> helpers_;
};

}  // namespace sauva
