#pragma once

#include <memory>

#include "kernels/cuda/device.h"

namespace sauva::cuda {

// A GPU that is the host: its memory is host memory, its kernels run in the emulator.
std::unique_ptr<Device> MakeEmulatedDevice(int64_t budget_bytes);

}  // namespace sauva::cuda
