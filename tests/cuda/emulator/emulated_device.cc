#include "tests/cuda/emulator/emulated_device.h"

#include <cstdlib>
#include <cstring>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.h"
#include "tests/cuda/emulator/emulator.h"

namespace sauva::cuda {
namespace {

constexpr int64_t kAlignment = 256;
int64_t num_replays = 0;

class EmulatedRecording : public Recording {
 public:
  explicit EmulatedRecording(std::vector<std::function<void()>> work) : work_(std::move(work)) {}
  void Replay() const {
    for (const auto& call : work_) call();
  }

 private:
  const std::vector<std::function<void()>> work_;
};

class EmulatedDevice : public Device {
 public:
  EmulatedDevice(int64_t budget_bytes, const EmulatedGpu& gpu)
      : Device(budget_bytes),
        facts_{.name = "host emulator", .compute_capability = gpu.compute_capability},
        recordings_(gpu.recordings) {
    queued_.reserve(64);  // more than a step copies: it takes no heap memory
  }

  const DeviceFacts& facts() const override { return facts_; }
  void* stream() override { return &stream_; }

  absl::StatusOr<void*> AllocatePinned(int64_t bytes) override { return AllocateOnDevice(bytes); }
  void FreePinned(void* memory) override { std::free(memory); }
  void CopyToDevice(const RowCopy& copy) override {
    Queue(copy);
    queued_.push_back({copy, HashOf(copy)});
  }
  void CopyToHost(const RowCopy& copy) override { Queue(copy); }

  absl::Status BeginRecording() override {
    Check(!stream_.records, "one recording at a time");
    stream_.records = true;
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<Recording>> EndRecording() override {
    Check(stream_.records, "a recording begins before it ends");
    stream_.records = false;
    auto work = std::exchange(stream_.recorded, {});
    if (recordings_ == Recordings::kRefused) return absl::InternalError("recordings are refused");
    return std::make_unique<EmulatedRecording>(std::move(work));
  }
  void Replay(Recording& recording) override {
    ++num_replays;
    static_cast<EmulatedRecording&>(recording).Replay();
  }

 private:
  void Enter() override {}
  void WaitForStream() override {
    Check(!stream_.records, "nothing is waited for while the stream records");
    for (const Queued& queued : queued_) {
      Check(HashOf(queued.copy) == queued.hash,
            "what is copied to the device stays as it is until the copy was waited for");
    }
    queued_.clear();
  }
  absl::StatusOr<void*> AllocateOnDevice(int64_t bytes) override {
    Check(!stream_.records, "nothing is allocated while the stream records");
    // Not rounded up, so that an address sanitizer sees the end of each allocation.
    void* memory = nullptr;
    if (posix_memalign(&memory, kAlignment, static_cast<size_t>(bytes)) != 0) {
      return absl::ResourceExhaustedError("the host is out of memory");
    }
    return std::memset(memory, 0, static_cast<size_t>(bytes));
  }
  void FreeOnDevice(void* memory) override { std::free(memory); }

  // A device reads memory of the host at some time before it is waited for.
  struct Queued {
    RowCopy copy;
    size_t hash = 0;
  };
  static size_t HashOf(const RowCopy& copy) {
    size_t hash = 0;
    for (int64_t row = 0; row < copy.rows; ++row) {
      const char* from = static_cast<const char*>(copy.from) + row * copy.from_stride;
      const std::string_view bytes(from, static_cast<size_t>(copy.row_bytes));
      hash = 31 * hash + std::hash<std::string_view>{}(bytes);
    }
    return hash;
  }

  void Queue(const RowCopy& copy) {
    if (stream_.records) {
      stream_.recorded.push_back([copy] { Copy(copy); });
    } else {
      Copy(copy);
    }
  }
  static void Copy(const RowCopy& copy) {
    auto* to = static_cast<std::byte*>(copy.to);
    const auto* from = static_cast<const std::byte*>(copy.from);
    for (int64_t row = 0; row < copy.rows; ++row) {
      std::memcpy(to + row * copy.to_stride, from + row * copy.from_stride,
                  static_cast<size_t>(copy.row_bytes));
    }
  }

  const DeviceFacts facts_;
  const Recordings recordings_;
  emulator::Stream stream_;
  std::vector<Queued> queued_;
};

}  // namespace

std::unique_ptr<Device> MakeEmulatedDevice(int64_t budget_bytes, const EmulatedGpu& gpu) {
  return std::make_unique<EmulatedDevice>(budget_bytes, gpu);
}

int64_t NumReplays() { return num_replays; }

}  // namespace sauva::cuda
