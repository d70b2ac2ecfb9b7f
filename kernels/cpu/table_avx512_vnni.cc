#include "kernels/cpu/lanes_avx512_vnni.h"
#include "kernels/cpu/make_table.inc.h"

namespace sauva {

constexpr KernelTable kAvx512VnniKernels = MakeTable<Avx512Lanes, VnniDots>("avx512");

}  // namespace sauva
