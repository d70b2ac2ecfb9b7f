#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sauva {

// A buffer that NCCL sends from or receives into, and the queue in which copies and
// transfers follow each other. Two implementations: a GPU's memory, and the host's under
// the stand-in of NCCL that tests use.
// Errors: INTERNAL with what the device says.
// Thread: its owner's; Enter is called first on each thread that uses it.
class TransferMemory {
 public:
  virtual ~TransferMemory() = default;

  virtual absl::Status Enter() = 0;
  virtual int64_t size_bytes() const = 0;
  virtual void* data() = 0;
  // What NCCL takes as its cudaStream_t.
  virtual void* queue() = 0;

  // Queues that the buffer begins with these bytes, which are copied before this returns.
  virtual absl::Status Put(std::span<const std::byte> bytes) = 0;
  // Queues that the host gets the first `num_bytes` of the buffer, and a mark behind that.
  virtual absl::Status QueueEnd(int64_t num_bytes) = 0;
  // Whether all before the last mark is done.
  virtual absl::StatusOr<bool> Done() = 0;
  // What the host got; valid until the next Put or QueueEnd.
  virtual const std::byte* fetched() const = 0;
};

// A queue of the host: how many transfers in it are not done. The stand-in counts.
struct HostStream {
  std::atomic<int64_t> pending{0};
};

// Of the host. Errors: as AllocateHostBuffer.
absl::StatusOr<std::unique_ptr<TransferMemory>> MakeHostTransferMemory(int64_t bytes);

// Of a GPU, beyond the budget of its backend: whoever plans memory counts it.
// Errors: those of kernels/cuda_access.h; RESOURCE_EXHAUSTED with the bytes.
absl::StatusOr<std::unique_ptr<TransferMemory>> MakeCudaTransferMemory(int index, int64_t bytes);

// Of the device that a worker runs on: "cuda:N" or one of the host's.
absl::StatusOr<std::unique_ptr<TransferMemory>> MakeTransferMemory(const std::string& device,
                                                                   int64_t bytes);

}  // namespace sauva
