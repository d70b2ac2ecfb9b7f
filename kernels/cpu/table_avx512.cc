#include "kernels/cpu/lanes_avx512.h"
#include "kernels/cpu/make_table.inc.h"

namespace sauva {

constexpr KernelTable kAvx512Kernels = MakeTable<Avx512Lanes>("avx512");

}  // namespace sauva
