#include "kernels/cpu/packed_matrix.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "base/ceil_divide.h"
#include "base/status_macros.h"
#include "kernels/cpu/packed_layout.inc.h"
#include "kernels/half.h"

namespace sauva {
namespace {

constexpr int64_t kReadPastEnd = 256;

CodeFormat FormatOf(const QuantizedMatrix& matrix) {
  if (matrix.kind == CodeKind::kNf4) return CodeFormat::kNf4;
  if (matrix.bits == 8) return CodeFormat::kBits8;
  return matrix.bits == 4 ? CodeFormat::kBits4 : CodeFormat::kBits3;
}

// As f16; empty where f16 does not hold every one of them.
std::vector<uint16_t> AsHalves(const std::vector<float>& scales) {
  std::vector<uint16_t> halves(scales.size());
  if (!FloatsToHalves(scales, halves.data())) halves.clear();
  return halves;
}

bool AllAre(const std::vector<uint8_t>& values, int value) {
  int different = 0;
  for (const uint8_t v : values) different |= v ^ value;
  return different == 0;
}

// Codes of some rows, `columns` apart, to a panel.
template <CodeFormat kFormat>
void PackCodes(const uint8_t* codes, int rows, int64_t columns, const PackedPanels& panels,
               uint8_t* panel) {
  for (int64_t unit = 0; unit < panels.units; ++unit) {
    const int64_t first = unit * kUnitColumns;
    const int64_t count = std::min<int64_t>(kUnitColumns, columns - first);
    uint8_t* const to = panel + UnitOffset(panels, kFormat, unit);
    for (int r = 0; r < rows; ++r) {
      const uint8_t* const from = codes + r * columns + first;
      if (count == kUnitColumns) {
        WriteRow<kFormat>(from, r, to);
        continue;
      }
      std::array<uint8_t, kUnitColumns> padded = {};
      std::copy_n(from, count, padded.begin());
      WriteRow<kFormat>(padded.data(), r, to);
    }
  }
}

using PackCodesFunction = void (*)(const uint8_t* codes, int rows, int64_t columns,
                                   const PackedPanels& panels, uint8_t* panel);
constexpr PackCodesFunction kPackCodes[kNumCodeFormats] = {
    &PackCodes<CodeFormat::kBits8>, &PackCodes<CodeFormat::kBits4>, &PackCodes<CodeFormat::kBits3>,
    &PackCodes<CodeFormat::kNf4>};

}  // namespace

PackedMatrix::PackedMatrix(const QuantizedMatrix& matrix, bool half_scales)
    : rows_(matrix.rows),
      columns_(matrix.columns),
      format_(FormatOf(matrix)),
      activation_(matrix.activation),
      activation_scale_(matrix.activation_scale),
      outlier_threshold_(matrix.outlier_threshold),
      column_order_(matrix.column_order) {
  panels_.units = CeilDivide(columns_, kUnitColumns);
  panels_.units_per_group = std::min(panels_.units, CeilDivide(matrix.group_size, kUnitColumns));
  panels_.activation_units = ActivationGroup(matrix) / kUnitColumns;
  panels_.half_scales = half_scales;
  panels_.zeros = !AllAre(matrix.zeros, MiddleZero(format_));
  panels_.panel_bytes =
      panels_.units * UnitBytes(format_) +
      CeilDivide(panels_.units, panels_.units_per_group) * GroupTailBytes(panels_);
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> PackedMatrix::Create(const QuantizedMatrix& matrix) {
  const std::vector<uint16_t> halves = AsHalves(matrix.scales);
  auto packed = std::unique_ptr<PackedMatrix>(new PackedMatrix(matrix, !halves.empty()));
  const int64_t panels = CeilDivide(matrix.rows, kPanelRows);
  ASSIGN_OR_RETURN(packed->memory_,
                   HostMemory::Allocate(panels * packed->panels_.panel_bytes + kReadPastEnd));
  packed->panels_.data = packed->memory_.as<uint8_t>().data();
  for (int64_t panel = 0; panel < panels; ++panel) packed->PackPanel(matrix, halves, panel);
  return packed;
}

void PackedMatrix::PackPanel(const QuantizedMatrix& matrix, const std::vector<uint16_t>& halves,
                             int64_t panel) {
  uint8_t* to = memory_.as<uint8_t>().data() + panel * panels_.panel_bytes;
  const int64_t first_row = panel * kPanelRows;
  const auto rows = static_cast<int>(std::min<int64_t>(kPanelRows, rows_ - first_row));
  kPackCodes[static_cast<size_t>(format_)](matrix.codes.data() + first_row * columns_, rows,
                                           columns_, panels_, to);
  const int64_t groups = matrix.groups();
  const auto put = [&](const auto& values, int64_t group, uint8_t* at) {
    for (int r = 0; r < rows; ++r) {
      const auto value = values[static_cast<size_t>((first_row + r) * groups + group)];
      std::memcpy(at + r * int64_t{sizeof value}, &value, sizeof value);
    }
  };
  for (int64_t g = 0; g < groups; ++g) {
    uint8_t* const tail = to + ScaleOffset(panels_, format_, g * panels_.units_per_group);
    panels_.half_scales ? put(halves, g, tail) : put(matrix.scales, g, tail);
    if (panels_.zeros) put(matrix.zeros, g, tail + ScaleBytes(panels_));
  }
}

PackedPanels PackedMatrix::panels(int64_t first) const {
  PackedPanels panels = panels_;
  panels.data += first * panels.panel_bytes;
  return panels;
}

QuantizeArgs PackedMatrix::quantize_args() const {
  constexpr ActivationRounding kRoundings[] = {ActivationRounding::kGroups,
                                               ActivationRounding::kStatic,
                                               ActivationRounding::kBesideOutliers};
  return {.order = column_order_.empty() ? nullptr : column_order_.data(),
          .columns = columns_,
          .rounding = kRoundings[static_cast<size_t>(activation_)],
          .static_scale = activation_scale_,
          .outlier_threshold = outlier_threshold_,
          .group_units = panels_.activation_units};
}

float PackedMatrix::ScaleAt(int64_t row, int64_t column) const {
  const uint8_t* tail =
      panels(row / kPanelRows).data + ScaleOffset(panels_, format_, column / kUnitColumns);
  if (!panels_.half_scales) {
    float scale;
    std::memcpy(&scale, tail + row % kPanelRows * int64_t{sizeof scale}, sizeof scale);
    return scale;
  }
  uint16_t half;
  std::memcpy(&half, tail + row % kPanelRows * int64_t{sizeof half}, sizeof half);
  return HalfToFloat(half);
}

float PackedMatrix::Element(int64_t row, int64_t column) const {
  const uint8_t* panel = panels(row / kPanelRows).data;
  const int64_t unit = column / kUnitColumns;
  const int code =
      ReadCode(panel + UnitOffset(panels_, format_, unit), format_,
               static_cast<int>(row % kPanelRows), static_cast<int>(column % kUnitColumns));
  if (format_ == CodeFormat::kNf4) return kNf4Values[code] * ScaleAt(row, column);
  const uint8_t* zeros = panel + ScaleOffset(panels_, format_, unit) + ScaleBytes(panels_);
  const int zero = panels_.zeros ? zeros[row % kPanelRows] : MiddleZero(format_);
  return static_cast<float>(code - zero) * ScaleAt(row, column);
}

}  // namespace sauva
