#include "tests/cuda/emulator/emulator.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <vector>

#include "base/check.h"
#include "tests/cuda/emulator/fiber.h"

namespace sauva::emulator {

Dimensions threadIdx, blockIdx, blockDim, gridDim;

namespace {

// Who has come to a place where all must meet, and how often all have met.
struct Meeting {
  int arrived = 0;
  int64_t met = 0;
};

struct Warp {
  Meeting meeting;
  alignas(16) std::array<std::array<std::byte, kWarp * kMaxExchange>, 2> values;
};

struct Copy {
  unsigned char* to;
  const void* from;
  int64_t group;  // of the thread, counted from 0
};

struct Thread {
  Fiber fiber;
  std::vector<Copy> copies;  // begun and not waited for, oldest first
  int64_t copy_groups = 0;   // committed
  const Meeting* waits_for = nullptr;
  int64_t until_met = 0;

  bool Runnable() const {
    return !fiber.done() && (waits_for == nullptr || waits_for->met >= until_met);
  }
};

// The one block that runs.
struct Block {
  std::vector<std::unique_ptr<Thread>> threads = std::vector<std::unique_ptr<Thread>>(kMaxThreads);
  std::array<Warp, kMaxThreads / kWarp> warps;
  std::map<int, std::vector<unsigned char>> shared_by_size;  // each has an exact end
  std::vector<unsigned char>* shared = nullptr;
  std::vector<int> order;
  Meeting barrier;
  int num_threads = 0;
  int current = 0;
  int64_t launches = 0;
};

Block& TheBlock() {
  static Block block;
  return block;
}

void MeetOthers(Meeting& meeting, int expected) {
  Block& block = TheBlock();
  const int self = block.current;
  Thread& thread = *block.threads[static_cast<size_t>(self)];
  if (++meeting.arrived == expected) {
    meeting.arrived = 0;
    ++meeting.met;
    return;
  }
  thread.waits_for = &meeting;
  thread.until_met = meeting.met + 1;
  thread.fiber.Pause();
  thread.waits_for = nullptr;
}

// Ascending, descending or mixed: what lacks a barrier goes wrong in one of them.
void ChooseOrder(Block& block, uint64_t number) {
  block.order.resize(static_cast<size_t>(block.num_threads));
  std::iota(block.order.begin(), block.order.end(), 0);
  if (number % 3 == 1) std::reverse(block.order.begin(), block.order.end());
  if (number % 3 != 2) return;
  uint64_t state = number;
  for (size_t i = block.order.size() - 1; i > 0; --i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    std::swap(block.order[i], block.order[(state >> 33) % (i + 1)]);
  }
}

void RunThreads(Block& block) {
  int running = block.num_threads;
  while (running > 0) {
    bool advanced = false;
    for (const int index : block.order) {
      Thread& thread = *block.threads[static_cast<size_t>(index)];
      if (!thread.Runnable()) continue;
      advanced = true;
      block.current = index;
      threadIdx.x = static_cast<unsigned>(index);
      thread.fiber.Resume();
      if (!thread.fiber.done()) continue;
      Check(thread.copies.empty(), "a thread waits for its copies before it ends");
      --running;
    }
    Check(advanced, "every thread of a block comes to its barriers and warp exchanges");
  }
  Check(block.barrier.arrived == 0, "no thread of a block ends while others wait at a barrier");
}

void RunBlock(Block& block, absl::FunctionRef<void()> kernel) {
  std::fill(block.shared->begin(), block.shared->end(), static_cast<unsigned char>(0xff));
  for (int i = 0; i < block.num_threads; ++i) {
    std::unique_ptr<Thread>& thread = block.threads[static_cast<size_t>(i)];
    if (thread == nullptr) thread = std::make_unique<Thread>();
    thread->copy_groups = 0;
    thread->fiber.Start(kernel);
  }
  RunThreads(block);
}

}  // namespace

void RunGrid(const Dimensions& grid, int threads, int shared_bytes,
             absl::FunctionRef<void()> kernel) {
  Check(threads > 0 && threads <= kMaxThreads && threads % kWarp == 0, "blocks are whole warps");
  Check(shared_bytes <= kMaxSharedBytes, "shared memory is what every device has");
  Check(grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.y < 65536 && grid.z < 65536,
        "grids have the dimensions a device takes");
  Block& block = TheBlock();
  block.num_threads = threads;
  block.shared = &block.shared_by_size[shared_bytes];
  block.shared->resize(static_cast<size_t>(shared_bytes));
  block.barrier = {};
  for (Warp& warp : block.warps) warp.meeting = {};
  blockDim = {static_cast<unsigned>(threads), 1, 1};
  gridDim = grid;
  ++block.launches;
  uint64_t number = static_cast<uint64_t>(block.launches);
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        ChooseOrder(block, number++);
        RunBlock(block, kernel);
      }
    }
  }
}

unsigned char* SharedMemory() { return TheBlock().shared->data(); }

void SyncThreads() {
  Block& block = TheBlock();
  MeetOthers(block.barrier, block.num_threads);
}

const std::byte* Exchange(const void* value, size_t size) {
  Block& block = TheBlock();
  const int self = block.current;
  Warp& warp = block.warps[static_cast<size_t>(self / kWarp)];
  std::byte* values = warp.values[static_cast<size_t>(warp.meeting.met % 2)].data();
  std::memcpy(values + self % kWarp * kMaxExchange, value, size);
  MeetOthers(warp.meeting, kWarp);
  return values;
}

void BeginCopy(void* to, const void* from) {
  Block& block = TheBlock();
  auto* bytes = static_cast<unsigned char*>(to);
  Check(bytes >= SharedMemory() && bytes + kCopyBytes <= SharedMemory() + block.shared->size(),
        "copies end in the block's shared memory");
  const auto aligned = [](const void* at) {
    return reinterpret_cast<uintptr_t>(at) % kCopyBytes == 0;
  };
  Check(aligned(to) && aligned(from), "what is copied is aligned");
  std::fill_n(bytes, kCopyBytes, static_cast<unsigned char>(0xff));
  Thread& thread = *block.threads[static_cast<size_t>(block.current)];
  thread.copies.push_back({bytes, from, thread.copy_groups});
}

void CommitCopies() {
  Block& block = TheBlock();
  ++block.threads[static_cast<size_t>(block.current)]->copy_groups;
}

void WaitForCopies(int groups_left) {
  Block& block = TheBlock();
  Thread& thread = *block.threads[static_cast<size_t>(block.current)];
  const int64_t first_left = thread.copy_groups - groups_left;
  auto copy = thread.copies.begin();
  for (; copy != thread.copies.end() && copy->group < first_left; ++copy) {
    std::memcpy(copy->to, copy->from, kCopyBytes);
  }
  thread.copies.erase(thread.copies.begin(), copy);
}

int64_t NumLaunches() { return TheBlock().launches; }

}  // namespace sauva::emulator
