#include "kernels/cpu/select.h"

#include "absl/strings/str_cat.h"

namespace sauva {
namespace {

#ifdef SAUVA_X86_KERNELS
bool HasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}
bool HasAvx512() {
  return HasAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
const KernelTable& Avx2Table() { return kAvx2Kernels; }
const KernelTable& Avx512Table() {
  return __builtin_cpu_supports("avx512vnni") ? kAvx512VnniKernels : kAvx512Kernels;
}
#else
bool HasAvx2() { return false; }
bool HasAvx512() { return false; }
const KernelTable& Avx2Table() { return kScalarKernels; }
const KernelTable& Avx512Table() { return kScalarKernels; }
#endif

const KernelTable& TableOf(InstructionSet isa) {
  if (isa == InstructionSet::kAvx512) return Avx512Table();
  if (isa == InstructionSet::kAvx2) return Avx2Table();
  return kScalarKernels;
}

}  // namespace

std::vector<InstructionSet> SupportedInstructionSets() {
  std::vector<InstructionSet> supported = {InstructionSet::kScalar};
  if (HasAvx2()) supported.push_back(InstructionSet::kAvx2);
  if (HasAvx512()) supported.push_back(InstructionSet::kAvx512);
  return supported;
}

const char* Name(InstructionSet isa) {
  switch (isa) {
    case InstructionSet::kAuto:
      return "auto";
    case InstructionSet::kScalar:
      return "scalar";
    case InstructionSet::kAvx2:
      return "avx2";
    case InstructionSet::kAvx512:
      return "avx512";
  }
  return "unknown";
}

absl::StatusOr<const KernelTable*> SelectKernels(InstructionSet isa) {
  const std::vector<InstructionSet> supported = SupportedInstructionSets();
  if (isa == InstructionSet::kAuto) return &TableOf(supported.back());
  std::string names;
  for (const InstructionSet candidate : supported) {
    if (candidate == isa) return &TableOf(isa);
    absl::StrAppend(&names, names.empty() ? "" : ", ", Name(candidate));
  }
  return absl::FailedPreconditionError(
      absl::StrCat("this CPU does not run ", Name(isa), "; it runs ", names));
}

}  // namespace sauva
