#pragma once

#include <cstdint>
#include <string>

namespace sauva {

// Bytes of the largest cache that the first core sees, as Linux tells it under `directory`;
// 0 when it does not. A virtual machine may see the whole of a cache it has a share of.
int64_t LastLevelCacheBytes(const std::string& directory = "/sys/devices/system/cpu/cpu0/cache");

}  // namespace sauva
