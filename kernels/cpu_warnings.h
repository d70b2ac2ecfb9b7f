#pragma once

#include <string>
#include <vector>

#include "kernels/factory.h"

namespace sauva {

// What makes a CPU slower than its user may expect, one sentence each: no vector instructions
// that the kernels know, more threads than cores. Nothing for other devices.
// `device` and `threads` as for MakeBackend; `best` is the fastest set this CPU runs, `cores`
// those this process may use.
std::vector<std::string> CpuWarnings(const std::string& device, int threads, InstructionSet best,
                                     int cores);

}  // namespace sauva
