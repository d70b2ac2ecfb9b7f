#include "quantize/parallel.h"

#include <algorithm>
#include <thread>
#include <vector>

#include "kernels/factory.h"

namespace sauva {

void ParallelFor(int64_t count, int threads,
                 const std::function<void(int64_t first, int64_t last)>& work) {
  const int64_t wanted = threads > 0 ? threads : UsableCores();
  const int64_t parts = std::clamp<int64_t>(wanted, 1, std::max<int64_t>(count, 1));
  std::vector<std::jthread> workers;
  for (int64_t part = 1; part < parts; ++part) {
    workers.emplace_back([&, part] { work(count * part / parts, count * (part + 1) / parts); });
  }
  work(0, count / parts);
}

}  // namespace sauva
