#include "kernels/cuda/pack.h"

#include <algorithm>
#include <cstring>

#include "base/status_macros.h"
#include "kernels/cuda/weight_layout.h"

namespace sauva::cuda {
namespace {

constexpr int64_t kPartBytes = int64_t{8} << 20;

// Four codes of a row, a byte each, the first lowest. Beyond the matrix they are 0: they meet
// activations of 0.
uint32_t FourCodesAt(const QuantizedMatrix& matrix, int64_t row, int64_t column) {
  uint32_t codes = 0;
  if (row >= matrix.rows || column >= matrix.columns) return codes;
  std::memcpy(&codes, matrix.codes.data() + row * matrix.columns + column,
              static_cast<size_t>(std::min<int64_t>(sizeof codes, matrix.columns - column)));
  return codes;
}

void AddBits(std::byte* at, uint32_t bits) {
  uint32_t word;
  std::memcpy(&word, at, sizeof word);
  word |= bits;
  std::memcpy(at, &word, sizeof word);
}

// Calls put(the place of the first, group, codes) for every four codes of a row tile, which lie
// together in a lane's register.
template <class F>
void ForEachFour(const QuantizedMatrix& matrix, int64_t row_tile, const F& put) {
  const int64_t groups = QuantizedGroups(matrix.columns);
  for (int row = 0; row < kTileRows; ++row) {
    for (int64_t group = 0; group < groups; ++group) {
      for (int column = 0; column < kTileColumns; column += 4) {
        put(WeightPlace(row, column), group,
            FourCodesAt(matrix, row_tile * kTileRows + row, group * kTileColumns + column));
      }
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
    device.Upload({.to = memory.as<std::byte>() + first * items.item_bytes,
                   .from = part.data(),
                   .row_bytes = count * items.item_bytes,
                   .rows = 1});
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
  const auto for_each = [&](const auto& put) {
    ForEachFour(matrix, row_tile, [&](TilePlace place, int64_t group, uint32_t codes) {
      put(to + group * tile_bytes, place, codes);
    });
  };
  switch (format) {
    case CodeFormat::kInt8:
      return for_each([](std::byte* tile, TilePlace place, uint32_t codes) {
        AddBits(tile + place.lane * 16 + place.part * 4, codes ^ 0x80808080u);  // less 128, as int8
      });
    case CodeFormat::kInt4:
      return for_each([](std::byte* tile, TilePlace place, uint32_t codes) {
        const BitPlace bits = Int4Place(place);
        AddBits(tile + bits.byte, codes << bits.shift);
      });
    case CodeFormat::kNf4:
      return for_each([](std::byte* tile, TilePlace place, uint32_t codes) {
        const uint32_t pairs = codes | codes >> 4;
        const auto four = static_cast<uint16_t>((pairs & 0xff) | (pairs >> 8 & 0xff00));
        std::memcpy(tile + Nf4Place(place).byte, &four, sizeof four);
      });
    case CodeFormat::kInt3:
      return for_each([](std::byte* tile, TilePlace place, uint32_t codes) {
        const BitPlace low = Int3LowPlace(place);
        AddBits(tile + low.byte, (codes & 0x03030303u) << low.shift);
      });
  }
}

void PackHighTiles(const QuantizedMatrix& matrix, int64_t row_tile, std::byte* to) {
  ForEachFour(matrix, row_tile, [&](TilePlace place, int64_t group, uint32_t codes) {
    const BitPlace high = Int3HighPlace(place, group);
    AddBits(to + group / 2 * 128 + high.byte, (codes >> 2 & 0x01010101u) << high.shift);
  });
}

}  // namespace sauva::cuda
