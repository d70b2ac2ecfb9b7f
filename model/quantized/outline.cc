#include "absl/strings/str_cat.h"
#include "model/quantized_outline.h"

namespace sauva {

std::string QuantizedOutline::FormatText() const {
  const std::string codes = kind == CodeKind::kNf4 ? "nf4" : absl::StrCat("int", bits);
  if (group_size >= columns) return codes + " per row";
  return absl::StrCat(codes, " g", group_size, act_order ? " act-order" : "");
}

}  // namespace sauva
