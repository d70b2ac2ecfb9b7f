#pragma once

#include "absl/status/statusor.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/factory.h"

namespace sauva {

// The kernels of an instruction set; kAuto: the fastest this CPU runs.
// Errors: FAILED_PRECONDITION when this CPU lacks it, naming those it has.
absl::StatusOr<const KernelTable*> SelectKernels(InstructionSet isa);

}  // namespace sauva
