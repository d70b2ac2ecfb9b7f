#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/dtype.h"
#include "kernels/quantized_matrix.h"
#include "kernels/weight_source.h"
#include "model/checkpoint.h"
#include "model/spec.h"

// The formats a stage may be told to use, by the names they have in assignments and flags.
namespace sauva {

// What becomes of a checkpoint's matrices when they are loaded. Embeddings stay as stored;
// heads: HeadFormat.
enum class LoadFormat {
  kStored,  // "native": numbers as numbers, quantized matrices as they are
  kF32,     // quantized matrices become numbers: what int8 activations cost is measured so
  kInt8,    // numbers are rounded while loading, to int8 per output channel,
  kInt4,    // to 4 bits in groups of 64 columns,
  kInt3,    // to 3 bits in groups of 64 columns,
  kNf4,     // to NF4 in groups of 64 columns
};

// Errors: INVALID_ARGUMENT naming the choices.
absl::StatusOr<LoadFormat> ParseLoadFormat(const std::string& name);
const char* Name(LoadFormat format);
// Every name, for flags.
std::vector<std::string> LoadFormatNames();
// Those that compress: the values of --quantize.
std::vector<std::string> RoundingFormatNames();

// Types of cached keys and values: "f32", "f16" and "int8". Errors: INVALID_ARGUMENT naming
// the choices.
absl::StatusOr<DType> ParseKvType(const std::string& name);
std::vector<std::string> KvTypeNames();

// How the activations of a format's matrices are quantized: "none", "int8-groups", or "as
// stored" where the checkpoint decides.
const char* ActivationQuantization(LoadFormat format);

// The format of a model's head, given that of its other matrices. A head decides on tokens, so
// formats of few bits round it to int8; where it is the embedding, which stays as stored, only
// kInt8 makes a copy of it.
LoadFormat HeadFormat(LoadFormat format, const ModelSpec& spec);

// The matrix that PrepareWeight is to get in the place of numbers; nothing: the numbers. `codes` is
// memory for its codes.
// Errors: those of kernels/round_to_nearest.h.
absl::StatusOr<std::optional<QuantizedMatrix>> RoundAtLoad(const WeightSource& source,
                                                           LoadFormat format,
                                                           std::vector<uint8_t> codes);

// Bytes that a matrix [rows, columns] of numbers takes once loaded in a format that rounds,
// and that a stored quantized one takes; of the cpu backend, which the others do not exceed.
int64_t RoundedBytes(int64_t rows, int64_t columns, LoadFormat format);
int64_t PackedBytes(const QuantizedOutline& outline);

}  // namespace sauva
