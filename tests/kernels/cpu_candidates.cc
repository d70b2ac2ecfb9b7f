#include <utility>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/select.h"
#include "tests/kernels/kernel_testing.h"

namespace sauva::testing {

std::vector<Candidate> Candidates() {
  std::vector<std::pair<std::string, const KernelTable*>> tables;
  for (const InstructionSet isa : SupportedInstructionSets()) {
    tables.emplace_back(Name(isa), *SelectKernels(isa));
#ifdef SAUVA_X86_KERNELS
    if (isa == InstructionSet::kAvx512 && tables.back().second == &kAvx512VnniKernels) {
      tables.emplace_back("avx512_without_vnni", &kAvx512Kernels);
    }
#endif
  }
  std::vector<Candidate> candidates;
  for (const auto& [name, table] : tables) {
    for (const int threads : {1, 2, 3}) {
      candidates.push_back({name + "_" + std::to_string(threads), [table, threads] {
                              return std::make_unique<CpuBackend>(*table, threads);
                            }});
    }
  }
  return candidates;
}

}  // namespace sauva::testing
