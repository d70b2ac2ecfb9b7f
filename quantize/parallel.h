#pragma once

#include <cstdint>
#include <functional>

namespace sauva {

// Calls work(first, last) for parts of [0, count), each on a thread of its own, and waits.
// threads 0: one per usable core. Which part is computed where changes no result.
void ParallelFor(int64_t count, int threads,
                 const std::function<void(int64_t first, int64_t last)>& work);

}  // namespace sauva
