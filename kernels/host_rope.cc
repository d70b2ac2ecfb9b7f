#include "kernels/host_rope.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/math.h"

namespace sauva {

HostRopeTable::HostRopeTable(const RopeShape& shape, HostMemory values)
    : pairs_(static_cast<int>(shape.inverse_frequencies.size())),
      max_positions_(shape.max_positions),
      interleaved_(shape.interleaved),
      values_(std::move(values)) {
  float* value = values_.as<float>().data();
  for (int position = 0; position < max_positions_; ++position, value += 2 * pairs_) {
    for (int i = 0; i < pairs_; ++i) {
      // The angle is rounded to float first, as the models' own code does it.
      const float angle =
          static_cast<float>(position) * shape.inverse_frequencies[static_cast<size_t>(i)];
      const SinCos turn = SinCosOf(static_cast<double>(angle));
      value[i] = static_cast<float>(turn.cos);
      value[pairs_ + i] = static_cast<float>(turn.sin);
    }
  }
}

absl::StatusOr<std::unique_ptr<RopeTable>> HostRopeTable::Create(const RopeShape& shape) {
  if (shape.inverse_frequencies.empty() || shape.max_positions <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("a rope table of ", shape.inverse_frequencies.size(), " frequencies and ",
                     shape.max_positions, " positions"));
  }
  const int64_t values =
      int64_t{shape.max_positions} * 2 * static_cast<int64_t>(shape.inverse_frequencies.size());
  ASSIGN_OR_RETURN(HostMemory memory, HostMemory::Allocate(values * int64_t{sizeof(float)}));
  return std::unique_ptr<RopeTable>(new HostRopeTable(shape, std::move(memory)));
}

}  // namespace sauva
