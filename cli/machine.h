#pragma once

#include <cstdint>

namespace sauva {

// Memory that is free for new work now, within this process's control group as well.
// Units: bytes; 0 when the system does not say.
uint64_t AvailableMemoryBytes();

}  // namespace sauva
