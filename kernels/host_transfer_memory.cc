#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda_access.h"
#include "kernels/host_memory.h"
#include "kernels/transfer_memory.h"

namespace sauva {
namespace {

class HostTransferMemory : public TransferMemory {
 public:
  explicit HostTransferMemory(HostMemory memory) : memory_(std::move(memory)) {}

  absl::Status Enter() override { return absl::OkStatus(); }
  int64_t size_bytes() const override { return memory_.size_bytes(); }
  void* data() override { return memory_.data(); }
  void* queue() override { return &stream_; }
  absl::Status Put(std::span<const std::byte> bytes) override {
    if (stream_.pending.load() != 0) {
      return absl::InternalError("bytes are put into a buffer that a transfer still uses");
    }
    std::copy(bytes.begin(), bytes.end(), memory_.data());
    return absl::OkStatus();
  }
  absl::Status QueueEnd(int64_t /*num_bytes*/) override { return absl::OkStatus(); }
  absl::StatusOr<bool> Done() override { return stream_.pending.load() == 0; }
  const std::byte* fetched() const override { return memory_.data(); }

 private:
  const HostMemory memory_;
  HostStream stream_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TransferMemory>> MakeHostTransferMemory(int64_t bytes) {
  ASSIGN_OR_RETURN(HostMemory memory, HostMemory::Allocate(bytes));
  return std::make_unique<HostTransferMemory>(std::move(memory));
}

absl::StatusOr<std::unique_ptr<TransferMemory>> MakeTransferMemory(const std::string& device,
                                                                   int64_t bytes) {
  if (!IsCuda(device)) return MakeHostTransferMemory(bytes);
  ASSIGN_OR_RETURN(const int index, CudaIndex(device));
  return MakeCudaTransferMemory(index, bytes);
}

}  // namespace sauva
