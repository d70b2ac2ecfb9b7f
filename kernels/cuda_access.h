#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/machine_rates.h"

// The way to the CUDA backend, in every build: without CUDA each call says which option of
// the build is missing. `index` counts the GPUs this process sees from 0.
namespace sauva {

// Whether parts of steps are recorded as CUDA graphs and replayed.
enum class CudaGraphs { kOn, kOff };

// How a GPU multiplies by matrices of f16 and bf16; all else it computes in one way.
enum class CudaArithmetic {
  kFast,           // on matrix units, activations rounded to the weight's type
  kDeterministic,  // in the order of the numerics contract: the bits of the CPU
};

// How a GPU is used.
struct CudaOptions {
  CudaGraphs graphs = CudaGraphs::kOn;
  CudaArithmetic arithmetic = CudaArithmetic::kFast;
};

// What the flag --deterministic says of itself.
inline constexpr const char* kDeterministicHelp =
    "GPUs multiply f16 and bf16 as the CPU does, bit for bit, not on tensor cores";

// `memory_bytes` is never exceeded; 0: what is free.
// Errors: FAILED_PRECONDITION without CUDA in the build, without a driver or with one too
// old, or for a GPU this build has no code for; NOT_FOUND for an index beyond the last GPU;
// RESOURCE_EXHAUSTED when the GPU takes no context of this process.
absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(int index, int64_t memory_bytes,
                                                         const CudaOptions& options);

// Bytes of a GPU's memory that are free now, after this process took its context.
// Errors: as MakeCudaBackend.
absl::StatusOr<uint64_t> FreeCudaMemory(int index);

// Whether so much of a GPU's memory is free now. For the beginning: later the process itself holds
// some, and an allocation says by itself what is missing.
// Errors: as MakeCudaBackend; RESOURCE_EXHAUSTED naming what is asked for, free, and there.
absl::Status CheckCudaMemory(int index, uint64_t bytes);

// What a GPU does at most: of its own and, in the matrix instructions of the kernels, of f16 (bf16
// has the same) and of int8, which is 0 where it was not measured.
struct CudaRates {
  MachineRates general;
  double f16_operations_per_second = 0;
  double int8_operations_per_second = 0;
};
// Takes about 0.1 s. Errors: as MakeCudaBackend.
absl::StatusOr<CudaRates> MeasureCudaRates(int index);

// The name of a GPU that no other has, on any machine. Errors: as MakeCudaBackend.
absl::StatusOr<std::string> CudaDeviceId(int index);

// Whether this build has the CUDA backend.
bool BuildHasCuda();

// N of "cuda:N"; "cuda" is 0. Errors: INVALID_ARGUMENT.
absl::StatusOr<int> CudaIndex(const std::string& device);
bool IsCuda(const std::string& device);

// What a process takes of a GPU's memory before it allocates any: the driver's context and
// the code of the kernels. An allowance, not a measurement.
inline constexpr uint64_t kCudaContextBytes = uint64_t{512} << 20;

}  // namespace sauva
