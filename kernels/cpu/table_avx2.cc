#include "kernels/cpu/lanes_avx2.h"
#include "kernels/cpu/make_table.inc.h"

namespace sauva {

constexpr KernelTable kAvx2Kernels = MakeTable<Avx2Lanes>("avx2");

}  // namespace sauva
