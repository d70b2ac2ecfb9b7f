#include "kernels/cuda/pack.h"

#include <algorithm>
#include <cstring>

#include "base/status_macros.h"
#include "kernels/cuda/weight_layout.h"

namespace sauva::cuda {
namespace {

constexpr int64_t kPartBytes = int64_t{8} << 20;
constexpr uint8_t kInt8Zero = 128;

// What a code beyond the matrix is: it meets activations of 0.
constexpr uint8_t kPadding = 0;

uint8_t CodeAt(const QuantizedMatrix& matrix, int64_t row, int64_t column) {
  if (row >= matrix.rows || column >= matrix.columns) return kPadding;
  return matrix.codes[static_cast<size_t>(row * matrix.columns + column)];
}

void PutBits(std::byte* tile, BitPlace place, int bits) {
  tile[place.byte] |= static_cast<std::byte>(bits << place.shift);
}

// Calls put(tile place, group, code) for every code of a row tile.
template <class F>
void ForEachCode(const QuantizedMatrix& matrix, int64_t row_tile, const F& put) {
  const int64_t groups = QuantizedGroups(matrix.columns);
  for (int row = 0; row < kTileRows; ++row) {
    for (int64_t column = 0; column < groups * kTileColumns; ++column) {
      put(WeightPlace(row, static_cast<int>(column % kTileColumns)), column / kTileColumns,
          CodeAt(matrix, row_tile * kTileRows + row, column));
    }
  }
}

}  // namespace

absl::StatusOr<DeviceMemory> UploadItems(Device& device, const PackedItems& items,
                                         const FillItems& fill) {
  ASSIGN_OR_RETURN(DeviceMemory memory,
                   DeviceMemory::Allocate(device, items.count * items.item_bytes));
  const int64_t at_once = std::clamp<int64_t>(kPartBytes / items.item_bytes, 1, items.count);
  std::vector<std::byte> part(static_cast<size_t>(at_once * items.item_bytes));
  for (int64_t first = 0; first < items.count; first += at_once) {
    const int64_t count = std::min(at_once, items.count - first);
    std::fill(part.begin(), part.end(), std::byte{0});
    fill(first, count, part.data());
    device.CopyToDevice({.to = memory.as<std::byte>() + first * items.item_bytes,
                         .from = part.data(),
                         .row_bytes = count * items.item_bytes,
                         .rows = 1});
    device.Wait();
  }
  return memory;
}

void PackFloatRow(const WeightSource& source, int64_t row, std::byte* to) {
  const auto size = static_cast<size_t>(SizeOf(source.dtype));
  const std::byte* from = source.bytes.data() + static_cast<size_t>(row * source.columns) * size;
  const int64_t chunks = FloatChunks(source.columns);
  for (int64_t column = 0; column < chunks * kFloatChunk; ++column) {
    std::byte* element = to + static_cast<size_t>(FloatOffset(0, column, chunks)) * size;
    if (column < source.columns) {
      std::memcpy(element, from + static_cast<size_t>(column) * size, size);
    } else {
      element[size - 1] = std::byte{0x80};  // -0: it changes no sum
    }
  }
}

CodeFormat FormatOf(const QuantizedMatrix& matrix) {
  if (matrix.kind == CodeKind::kNf4) return CodeFormat::kNf4;
  if (matrix.bits == 8) return CodeFormat::kInt8;
  return matrix.bits == 4 ? CodeFormat::kInt4 : CodeFormat::kInt3;
}

int64_t TileBytes(CodeFormat format) {
  switch (format) {
    case CodeFormat::kInt8:
      return 512;
    case CodeFormat::kInt4:
    case CodeFormat::kNf4:
      return 256;
    case CodeFormat::kInt3:
      return 128;  // and half as much of the highest bits
  }
  return 0;
}

void PackCodeTiles(const QuantizedMatrix& matrix, int64_t row_tile, std::byte* to) {
  const CodeFormat format = FormatOf(matrix);
  const int64_t tile_bytes = TileBytes(format);
  ForEachCode(matrix, row_tile, [&](TilePlace place, int64_t group, uint8_t code) {
    std::byte* tile = to + group * tile_bytes;
    switch (format) {
      case CodeFormat::kInt8:
        tile[place.lane * 16 + place.part * 4 + place.byte] =
            static_cast<std::byte>(code ^ kInt8Zero);  // code - 128 as int8
        return;
      case CodeFormat::kInt4:
        return PutBits(tile, Int4Place(place), code);
      case CodeFormat::kNf4:
        return PutBits(tile, Nf4Place(place), code);
      case CodeFormat::kInt3:
        return PutBits(tile, Int3LowPlace(place), code & 3);
    }
  });
}

void PackHighTiles(const QuantizedMatrix& matrix, int64_t row_tile, std::byte* to) {
  ForEachCode(matrix, row_tile, [&](TilePlace place, int64_t group, uint8_t code) {
    PutBits(to + group / 2 * 128, Int3HighPlace(place, group), code >> 2);
  });
}

}  // namespace sauva::cuda
