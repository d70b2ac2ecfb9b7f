#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/quantized_matrix.h"

// Matrices of numbers rounded to the nearest code, without calibration: what quantizes at
// load, and the mark that every better method is measured against. Sources are f32, f16 or
// bf16. Scales are f32; `group_size` counts columns of one row. `codes` is memory for the codes,
// which may hold anything.
// Errors: INVALID_ARGUMENT naming tensor, row and column of a number that is not finite, or
// a source or group size that ValidateWeightSource or ValidateQuantizedMatrix refuses.
namespace sauva {

// 8 bits per output channel, symmetric: scale = max |w| / 127, code = w / scale rounded to
// nearest even, + 128. A row whose scale would be subnormal is zero.
absl::StatusOr<QuantizedMatrix> RoundToInt8(const WeightSource& source,
                                            std::vector<uint8_t> codes = {});

// 3, 4 or 8 bits per group with a zero point, the range [min(w, 0), max(w, 0)] in 2^bits - 1
// steps. The step is rounded to f16, as formats publish it, before codes are chosen.
absl::StatusOr<QuantizedMatrix> RoundToGroups(const WeightSource& source, int bits,
                                              int64_t group_size, std::vector<uint8_t> codes = {});

// NF4 as bitsandbytes has it: scale = max |w| of the group, code = the value nearest to
// w / scale, ties to the lower one.
absl::StatusOr<QuantizedMatrix> RoundToNf4(const WeightSource& source, int64_t group_size,
                                           std::vector<uint8_t> codes = {});

}  // namespace sauva
