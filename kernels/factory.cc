#include "kernels/factory.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/select.h"

namespace sauva {

absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(const CpuOptions& options) {
  constexpr int kMaxThreads = 1024;
  if (options.threads < 0 || options.threads > kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads: 0 to ", kMaxThreads, " expected, found ", options.threads));
  }
  ASSIGN_OR_RETURN(const KernelTable* kernels, SelectKernels(options.isa));
  const int threads = options.threads > 0 ? options.threads : UsableCores();
  return std::make_unique<CpuBackend>(*kernels, threads);
}

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const std::string& device, int threads,
                                                     int64_t device_memory_bytes,
                                                     const CudaOptions& cuda) {
  if (device == "reference") return MakeReferenceBackend();
  if (device == "cpu") return MakeCpuBackend({.threads = threads});
  for (const InstructionSet isa :
       {InstructionSet::kScalar, InstructionSet::kAvx2, InstructionSet::kAvx512}) {
    if (device == absl::StrCat("cpu:", Name(isa))) {
      return MakeCpuBackend({.threads = threads, .isa = isa});
    }
  }
  if (IsCuda(device)) {
    ASSIGN_OR_RETURN(const int index, CudaIndex(device));
    return MakeCudaBackend(index, device_memory_bytes, cuda);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "device ", device, ": cpu, cpu:scalar, cpu:avx2, cpu:avx512, reference or cuda:N expected"));
}

}  // namespace sauva
