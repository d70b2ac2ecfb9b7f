#include "kernels/cpu_warnings.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace sauva {

std::vector<std::string> CpuWarnings(const std::string& device, int threads, InstructionSet best,
                                     int cores) {
  std::vector<std::string> warnings;
  if (device != "cpu" && !absl::StartsWith(device, "cpu:")) return warnings;
  if (device == "cpu" && best == InstructionSet::kScalar) {
    warnings.push_back("this CPU has no AVX2: the plain kernels are right, but many times slower");
  }
  if (threads > cores) {
    warnings.push_back(absl::StrCat(threads, " threads on ", cores,
                                    " cores: they wait for one another; ", cores, " are faster"));
  }
  return warnings;
}

}  // namespace sauva
