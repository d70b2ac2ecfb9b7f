#pragma once

#include <string>

namespace sauva::cuda {

// A process cannot go on with a GPU whose context has failed (an illegal address, a double-bit
// error, a card that fell off the bus): every later call fails too. So it ends with this
// exit code, and who supervises it starts it again.
constexpr int kDeviceLostExitCode = 70;

// Says on standard error what failed and ends the process.
[[noreturn]] void EndAsDeviceLost(const std::string& call, const std::string& error);

}  // namespace sauva::cuda
