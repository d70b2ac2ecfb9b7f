#include "tests/cuda/emulator/emulated_device.h"

#include <cstdlib>
#include <cstring>

namespace sauva::cuda {
namespace {

constexpr int64_t kAlignment = 256;

class EmulatedDevice : public Device {
 public:
  using Device::Device;

  const DeviceFacts& facts() const override { return facts_; }
  void* stream() override { return nullptr; }

  absl::StatusOr<void*> AllocatePinned(int64_t bytes) override { return AllocateOnDevice(bytes); }
  void FreePinned(void* memory) override { std::free(memory); }
  void CopyToDevice(const RowCopy& copy) override { Copy(copy); }
  void CopyToHost(const RowCopy& copy) override { Copy(copy); }
  void Wait() override {}

 private:
  absl::StatusOr<void*> AllocateOnDevice(int64_t bytes) override {
    // Not rounded up, so that an address sanitizer sees the end of each allocation.
    void* memory = nullptr;
    if (posix_memalign(&memory, kAlignment, static_cast<size_t>(bytes)) != 0) {
      return absl::ResourceExhaustedError("the host is out of memory");
    }
    return std::memset(memory, 0, static_cast<size_t>(bytes));
  }
  void FreeOnDevice(void* memory) override { std::free(memory); }

  static void Copy(const RowCopy& copy) {
    auto* to = static_cast<std::byte*>(copy.to);
    const auto* from = static_cast<const std::byte*>(copy.from);
    for (int64_t row = 0; row < copy.rows; ++row) {
      std::memcpy(to + row * copy.to_stride, from + row * copy.from_stride,
                  static_cast<size_t>(copy.row_bytes));
    }
  }

  const DeviceFacts facts_ = {.name = "host emulator", .compute_capability = 0};
};

}  // namespace

std::unique_ptr<Device> MakeEmulatedDevice(int64_t budget_bytes) {
  return std::make_unique<EmulatedDevice>(budget_bytes);
}

}  // namespace sauva::cuda
