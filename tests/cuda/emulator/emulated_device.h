#pragma once

#include <memory>

#include "kernels/cuda/device.h"

namespace sauva::cuda {

enum class Recordings { kWork, kRefused };

struct EmulatedGpu {
  int compute_capability = 80;  // what it says of itself
  Recordings recordings = Recordings::kWork;
};

// A GPU that is the host: its memory is host memory, its kernels run in the emulator. A
// recording keeps each launch and copy as it was queued, so that one which holds what belongs
// to a single step repeats that step's. With kRefused it fails as a driver may: where it ends.
std::unique_ptr<Device> MakeEmulatedDevice(int64_t budget_bytes, const EmulatedGpu& gpu = {});

// Recordings replayed so far in this process.
int64_t NumReplays();

}  // namespace sauva::cuda
