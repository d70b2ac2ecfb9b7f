#include "kernels/cpu/packed_matrix.h"

#include <algorithm>
#include <bit>
#include <cstring>

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

bool FitHalves(const std::vector<float>& scales) {
  return std::all_of(scales.begin(), scales.end(), [](float scale) {
    return std::bit_cast<uint32_t>(HalfToFloat(FloatToHalf(scale))) ==
           std::bit_cast<uint32_t>(scale);
  });
}

}  // namespace

PackedMatrix::PackedMatrix(const QuantizedMatrix& matrix)
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
  panels_.half_scales = FitHalves(matrix.scales);
  panels_.zeros = std::any_of(matrix.zeros.begin(), matrix.zeros.end(),
                              [this](uint8_t zero) { return zero != MiddleZero(format_); });
  panels_.panel_bytes =
      panels_.units * UnitBytes(format_) +
      CeilDivide(panels_.units, panels_.units_per_group) * GroupTailBytes(panels_);
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> PackedMatrix::Create(const QuantizedMatrix& matrix) {
  auto packed = std::unique_ptr<PackedMatrix>(new PackedMatrix(matrix));
  const int64_t panels = CeilDivide(matrix.rows, kPanelRows);
  ASSIGN_OR_RETURN(packed->memory_,
                   HostMemory::Allocate(panels * packed->panels_.panel_bytes + kReadPastEnd));
  packed->panels_.data = packed->memory_.as<uint8_t>().data();
  for (int64_t panel = 0; panel < panels; ++panel) packed->PackPanel(matrix, panel);
  return packed;
}

void PackedMatrix::PackRow(const uint8_t* codes, int row, uint8_t* panel) const {
  for (int64_t first = 0; first < columns_; first += kUnitColumns) {
    uint8_t* unit = panel + UnitOffset(panels_, format_, first / kUnitColumns);
    const int64_t columns = std::min<int64_t>(kUnitColumns, columns_ - first);
    uint32_t quads[kQuads] = {};
    std::memcpy(quads, codes + first, static_cast<size_t>(columns));
    for (int quad = 0; quad < kQuads; ++quad) WriteQuad(unit, format_, row, quad, quads[quad]);
  }
}

void PackedMatrix::PackPanel(const QuantizedMatrix& matrix, int64_t panel) {
  uint8_t* to = memory_.as<uint8_t>().data() + panel * panels_.panel_bytes;
  const int64_t first_row = panel * kPanelRows;
  const auto rows = static_cast<int>(std::min<int64_t>(kPanelRows, rows_ - first_row));
  for (int r = 0; r < rows; ++r) {
    PackRow(matrix.codes.data() + (first_row + r) * columns_, r, to);
    for (int64_t g = 0; g < matrix.groups(); ++g) {
      const auto index = static_cast<size_t>((first_row + r) * matrix.groups() + g);
      uint8_t* tail = to + ScaleOffset(panels_, format_, g * panels_.units_per_group);
      if (panels_.half_scales) {
        const uint16_t half = FloatToHalf(matrix.scales[index]);
        std::memcpy(tail + r * int64_t{sizeof half}, &half, sizeof half);
      } else {
        std::memcpy(tail + r * int64_t{sizeof(float)}, &matrix.scales[index], sizeof(float));
      }
      if (panels_.zeros) tail[ScaleBytes(panels_) + r] = matrix.zeros[index];
    }
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
