#pragma once

#include <cstdint>

namespace sauva {

// a / b rounded up; 0 <= a, 0 < b.
constexpr int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace sauva
