#include "kernels/last_level_cache.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <system_error>

namespace sauva {
namespace {

// A size as sysfs writes it: "2048K", "32M", or a number of bytes. 0: not one.
int64_t ReadSize(const std::filesystem::path& path) {
  std::ifstream file(path);
  int64_t size = 0;
  if (!(file >> size) || size < 0) return 0;
  char unit = 0;
  if (!(file >> unit)) return size;
  return unit == 'K' ? size << 10 : unit == 'M' ? size << 20 : 0;
}

}  // namespace

int64_t LastLevelCacheBytes(const std::string& directory) {
  int64_t largest = 0;
  std::error_code error;
  std::filesystem::directory_iterator entries(directory, error);
  for (; !error && entries != std::filesystem::directory_iterator(); entries.increment(error)) {
    largest = std::max(largest, ReadSize(entries->path() / "size"));
  }
  return largest;
}

}  // namespace sauva
