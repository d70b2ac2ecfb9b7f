#pragma once

#include "absl/status/statusor.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/factory.h"

namespace sauva {

// The kernels of an instruction set; kAuto: the fastest this CPU runs.
// Errors: FAILED_PRECONDITION when this CPU lacks it, naming those it has.
absl::StatusOr<const KernelTable*> SelectKernels(InstructionSet isa);

// How far ahead of their use streams of weights are asked for, in bytes of each stream. Intel's
// cores need it; AMD's own prefetchers do better with little help and are disturbed by much.
int64_t StreamReadAhead();

}  // namespace sauva
