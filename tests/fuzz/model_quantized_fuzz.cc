// A quantized matrix of any bytes is refused by an INVALID_ARGUMENT, or has as many codes,
// scales and zero points as its sizes say, and codes in range.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>

#include "base/check.h"
#include "model/quantized/layout.h"
#include "model/safetensors_header.h"
#include "tests/fuzz/driver.h"
#include "tests/model/tiny_checkpoint.h"

namespace sauva {
namespace {

using nlohmann::json;

// A value of the header's __metadata__, which holds JSON as text; null where there is none.
json Metadata(const json& header, const char* key) {
  const json::json_pointer path(std::string("/__metadata__/") + key);
  if (!header.contains(path) || !header[path].is_string()) return nullptr;
  return json::parse(header[path].get<std::string>(), nullptr, false);
}

int64_t SizeIn(const json& shape, size_t index) {
  const bool fits = shape.is_array() && index < shape.size() && shape[index].is_number_integer();
  return std::clamp<int64_t>(fits ? shape[index].get<int64_t>() : 0, 1, 4096);
}

void CheckMatrix(const QuantizedMatrix& matrix, MatrixSize size) {
  Check(matrix.rows == size.rows && matrix.columns == size.columns, "a matrix has its sizes");
  const auto codes = static_cast<size_t>(matrix.rows * matrix.columns);
  const auto groups = static_cast<size_t>(matrix.rows * matrix.groups());
  Check(matrix.codes.size() == codes, "a matrix has its codes");
  Check(matrix.scales.size() == groups, "a matrix has its scales");
  Check(matrix.kind == CodeKind::kNf4 || matrix.zeros.size() == groups, "and its zero points");
  const bool in_range = std::ranges::all_of(
      matrix.codes, [&](uint8_t code) { return code < 1u << static_cast<unsigned>(matrix.bits); });
  Check(in_range, "codes have no more bits than they say");
  std::vector<int32_t> order = matrix.column_order;
  std::ranges::sort(order);
  for (size_t i = 0; i < order.size(); ++i) {
    Check(order[i] == static_cast<int32_t>(i), "an order of columns is a permutation");
  }
}

void Read(const json& header, const SafetensorsHeader& entries, std::span<const std::byte> file) {
  const json config = {{"quantization_config", Metadata(header, "quantization_config")}};
  const std::string text = config.dump(-1, ' ', false, json::error_handler_t::replace);
  const auto layout = ReadQuantizedLayout({{"config.json", text}});
  if (!layout.ok() || *layout == nullptr) return;
  const json shape = Metadata(header, "shape");
  const MatrixSize size = {SizeIn(shape, 0), SizeIn(shape, 1)};
  QuantizedParts parts{.module = "m", .by_suffix = {}};
  for (const SafetensorsEntry& entry : entries.entries) {
    if (!entry.name.starts_with("m.")) continue;
    parts.by_suffix[entry.name.substr(2)] = {entry.dtype, entry.shape,
                                             file.subspan(entry.begin, entry.end - entry.begin)};
  }
  if (!(*layout)->IsQuantized(parts)) return;
  const auto matrix = (*layout)->Read(parts, size, {});
  if (matrix.ok()) return CheckMatrix(*matrix, size);
  Check(matrix.status().code() == absl::StatusCode::kInvalidArgument, "and else is refused");
}

}  // namespace

// The fixtures that fit into an input.
std::vector<std::string> SeedInputs() {
  std::vector<std::string> seeds;
  for (const auto& entry : std::filesystem::directory_iterator(SAUVA_QUANTIZED_FIXTURES)) {
    if (entry.file_size() < 32 << 10) seeds.push_back(ReadFile(entry.path()));
  }
  std::ranges::sort(seeds);
  Check(seeds.size() > 10, "there are fixtures to begin with");
  return seeds;
}

}  // namespace sauva

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = std::as_bytes(std::span(data, size));
  const auto entries = sauva::ParseSafetensorsHeader("fuzz.safetensors", file);
  if (!entries.ok()) return 0;
  const auto* text = reinterpret_cast<const char*>(data) + sizeof(uint64_t);
  const auto header =
      nlohmann::json::parse(text, text + (entries->data_begin - sizeof(uint64_t)), nullptr, false);
  if (header.is_object()) sauva::Read(header, *entries, file);
  return 0;
}
