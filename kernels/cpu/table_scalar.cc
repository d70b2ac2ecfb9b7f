#include "kernels/cpu/lanes_scalar.h"
#include "kernels/cpu/make_table.inc.h"

namespace sauva {

constexpr KernelTable kScalarKernels = MakeTable<ScalarLanes>("scalar");

}  // namespace sauva
