#pragma once

#include <cstdint>

namespace sauva {

// Calls of operator new in this program, on any thread, since it began.
int64_t NumAllocations();

}  // namespace sauva
