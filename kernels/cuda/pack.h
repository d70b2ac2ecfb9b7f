#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/cuda/code_matmul.h"
#include "kernels/cuda/device.h"
#include "kernels/quantized_matrix.h"

// Matrices in the order in which kernels stream them (weight_layout.h), made on the host.
namespace sauva::cuda {

// Fills `part` with what belongs at [first, first + count) of an array of items.
using FillItems = std::function<void(int64_t first, int64_t count, std::byte* part)>;

struct PackedItems {
  int64_t count = 0;
  int64_t item_bytes = 0;
};

// Allocates the array on the device and fills it a few MiB at a time.
// Errors: RESOURCE_EXHAUSTED.
absl::StatusOr<DeviceMemory> UploadItems(Device& device, const PackedItems& items,
                                         const FillItems& fill);

// One row of numbers as stored, at most 4 bytes each. Shapes: to [FloatChunks * 64].
void PackFloatRow(const WeightSource& source, int64_t row, std::byte* to);

CodeFormat FormatOf(const QuantizedMatrix& matrix);
// Bytes of 16 rows by 32 columns of codes.
int64_t TileBytes(CodeFormat format);
// A row tile of codes, all groups. Shapes: to [groups * TileBytes].
void PackCodeTiles(const QuantizedMatrix& matrix, int64_t row_tile, std::byte* to);
// The highest bits of kInt3. Shapes: to [pairs of groups * 128].
void PackHighTiles(const QuantizedMatrix& matrix, int64_t row_tile, std::byte* to);

}  // namespace sauva::cuda
