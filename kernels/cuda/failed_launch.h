#pragma once

#include <cstdint>

namespace sauva::cuda {

// Logs which kernel could not be launched and how it was asked for; the host finds the error itself
// where it next waits.
void LogFailedLaunch(const void* kernel, int64_t blocks, int threads, int shared_bytes);

}  // namespace sauva::cuda
