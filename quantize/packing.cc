#include "quantize/packing.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/half.h"

namespace sauva {
namespace {

template <class T>
std::vector<std::byte> Bytes(const std::vector<T>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}

class Packer {
 public:
  Packer(const QuantizedMatrix& matrix, const PackTarget& target)
      : matrix_(matrix), target_(target), groups_(matrix.groups()) {}

  std::vector<ShardTensor> Pack() {
    switch (target_.method) {
      case Method::kAwq:
        PackAwq();
        break;
      case Method::kGptq:
        PackGptq();
        break;
      case Method::kNf4:
        PackNf4();
        break;
      case Method::kLlmInt8:
        PackLlmInt8();
        break;
      case Method::kInt8:
      case Method::kInt8Static:
        PackInt8();
        break;
    }
    return std::move(tensors_);
  }

 private:
  void Add(const std::string& suffix, const std::string& dtype, std::vector<int64_t> shape,
           std::vector<std::byte> bytes) {
    tensors_.push_back(
        {target_.module + "." + suffix, dtype, std::move(shape), std::move(bytes), {}});
  }

  uint32_t Code(int64_t row, int64_t i) const {
    return matrix_.codes[static_cast<size_t>(row * matrix_.columns + i)];
  }
  uint32_t Zero(int64_t row, int64_t group) const {
    return matrix_.zeros[static_cast<size_t>(row * groups_ + group)];
  }

  // f16 scales, [groups, rows].
  void AddScales() {
    std::vector<uint16_t> scales(matrix_.scales.size());
    for (int64_t group = 0; group < groups_; ++group) {
      for (int64_t row = 0; row < matrix_.rows; ++row) {
        scales[static_cast<size_t>(group * matrix_.rows + row)] =
            FloatToHalf(matrix_.scales[static_cast<size_t>(row * groups_ + group)]);
      }
    }
    Add("scales", "F16", {groups_, matrix_.rows}, Bytes(scales));
  }

  void PackAwq() {
    constexpr std::array<int, 8> kColumnOfNibble = {0, 2, 4, 6, 1, 3, 5, 7};
    const int64_t words = matrix_.rows / 8;
    const auto pack = [&](int64_t inputs, const auto& value) {
      std::vector<uint32_t> packed(static_cast<size_t>(inputs * words));
      for (int64_t word = 0; word < words; ++word) {
        for (size_t i = 0; i < kColumnOfNibble.size(); ++i) {
          const int64_t row = word * 8 + kColumnOfNibble[i];
          for (int64_t input = 0; input < inputs; ++input) {
            packed[static_cast<size_t>(input * words + word)] |= value(row, input) << (4 * i);
          }
        }
      }
      return Bytes(packed);
    };
    Add("qweight", "I32", {matrix_.columns, words},
        pack(matrix_.columns, [&](int64_t row, int64_t i) { return Code(row, i); }));
    Add("qzeros", "I32", {groups_, words},
        pack(groups_, [&](int64_t row, int64_t group) { return Zero(row, group); }));
    AddScales();
  }

  // Adds a value of the matrix's bits to a dense stream of words `stride` apart.
  void Put(std::vector<uint32_t>& words, int64_t stride, int64_t index, uint64_t value) const {
    const int64_t bit = index * matrix_.bits;
    value <<= bit % 32;
    words[static_cast<size_t>(bit / 32 * stride)] |= static_cast<uint32_t>(value);
    if (value >> 32 != 0) {
      words[static_cast<size_t>((bit / 32 + 1) * stride)] |= static_cast<uint32_t>(value >> 32);
    }
  }

  void PackGptq() {
    const int64_t rows = matrix_.rows;
    const int64_t columns = matrix_.columns;
    const auto column_of = [&](int64_t i) {
      return matrix_.column_order.empty() ? i : matrix_.column_order[static_cast<size_t>(i)];
    };
    std::vector<uint32_t> codes(static_cast<size_t>(columns * matrix_.bits / 32 * rows));
    std::vector<int32_t> groups(static_cast<size_t>(columns));
    std::vector<uint32_t> stream(static_cast<size_t>(columns * matrix_.bits / 32));
    for (int64_t row = 0; row < rows; ++row) {
      std::ranges::fill(stream, 0u);
      for (int64_t i = 0; i < columns; ++i) Put(stream, 1, column_of(i), Code(row, i));
      for (size_t i = 0; i < stream.size(); ++i) {
        codes[i * static_cast<size_t>(rows) + static_cast<size_t>(row)] = stream[i];
      }
    }
    for (int64_t i = 0; i < columns; ++i) {
      groups[static_cast<size_t>(column_of(i))] = static_cast<int32_t>(i / matrix_.group_size);
    }
    const int64_t words = rows * matrix_.bits / 32;
    std::vector<uint32_t> zeros;
    for (int64_t group = 0; group < groups_; ++group) {
      std::vector<uint32_t> line(static_cast<size_t>(words));
      // Version 1 stores one less; zero points are 1 or more.
      for (int64_t row = 0; row < rows; ++row) Put(line, 1, row, Zero(row, group) - 1);
      zeros.insert(zeros.end(), line.begin(), line.end());
    }
    Add("qweight", "I32", {columns * matrix_.bits / 32, rows}, Bytes(codes));
    Add("qzeros", "I32", {groups_, words}, Bytes(zeros));
    AddScales();
    Add("g_idx", "I32", {columns}, Bytes(groups));
  }

  void PackNf4() {
    std::vector<uint8_t> pairs((matrix_.codes.size() + 1) / 2);
    for (size_t i = 0; i < matrix_.codes.size(); ++i) {
      pairs[i / 2] |= static_cast<uint8_t>(i % 2 == 0 ? matrix_.codes[i] << 4 : matrix_.codes[i]);
    }
    const NestedScales nested = NestedScales::Of(matrix_.scales);
    const nlohmann::ordered_json state = {
        {"quant_type", "nf4"},
        {"blocksize", matrix_.group_size},
        {"dtype", target_.float_type == DType::kBF16  ? "bfloat16"
                  : target_.float_type == DType::kF16 ? "float16"
                                                      : "float32"},
        {"shape", {matrix_.rows, matrix_.columns}},
        {"nested_blocksize", NestedScales::kBlock},
        {"nested_dtype", "float32"},
        {"nested_offset", static_cast<double>(nested.offset)}};
    const std::string text = state.dump();
    const auto count = static_cast<int64_t>(nested.codes.size());
    const std::vector<float> map(std::begin(kNf4Values), std::end(kNf4Values));
    Add("weight", "U8", {static_cast<int64_t>(pairs.size()), 1}, Bytes(pairs));
    Add("weight.absmax", "U8", {count}, Bytes(nested.codes));
    Add("weight.quant_map", "F32", {16}, Bytes(map));
    Add("weight.nested_absmax", "F32", {static_cast<int64_t>(nested.largest.size())},
        Bytes(nested.largest));
    Add("weight.nested_quant_map", "F32", {256}, Bytes(NestedScales::Map()));
    Add("weight.quant_state.bitsandbytes__nf4", "U8", {static_cast<int64_t>(text.size())},
        Bytes(std::vector<char>(text.begin(), text.end())));
  }

  // Signed codes, [rows, columns].
  void AddSigned() {
    std::vector<uint8_t> codes = matrix_.codes;
    for (uint8_t& code : codes) code ^= 0x80;
    Add("weight", "I8", {matrix_.rows, matrix_.columns}, Bytes(codes));
  }

  void PackLlmInt8() {
    AddSigned();
    std::vector<float> largest;
    for (const float scale : matrix_.scales) {
      // The number that gives the scale back when it is divided by 127.
      float value = scale * 127.0f;
      if (value / 127.0f < scale) value = std::nextafter(value, HUGE_VALF);
      if (value / 127.0f > scale) value = std::nextafter(value, 0.0f);
      largest.push_back(value);
    }
    Add("SCB", "F32", {matrix_.rows}, Bytes(largest));
    Add("weight_format", "U8", {}, Bytes(std::vector<uint8_t>{0}));
  }

  void PackInt8() {
    AddSigned();
    if (target_.float_type == DType::kF32) {
      Add("weight_scale", "F32", {matrix_.rows, 1}, Bytes(matrix_.scales));
    } else {
      std::vector<uint16_t> scales;
      const bool bf16 = target_.float_type == DType::kBF16;
      for (const float scale : matrix_.scales) {
        scales.push_back(bf16 ? static_cast<uint16_t>(std::bit_cast<uint32_t>(scale) >> 16)
                              : FloatToHalf(scale));
      }
      Add("weight_scale", bf16 ? "BF16" : "F16", {matrix_.rows, 1}, Bytes(scales));
    }
    if (target_.method == Method::kInt8) return;
    Add("input_scale", "F32", {1}, Bytes(std::vector<float>{matrix_.activation_scale}));
  }

  const QuantizedMatrix& matrix_;
  const PackTarget& target_;
  const int64_t groups_;
  std::vector<ShardTensor> tensors_;
};

nlohmann::json CompressedTensorsConfig(const QuantizeOptions& options,
                                       const std::vector<std::string>& kept_modules) {
  const bool is_static = options.method == Method::kInt8Static;
  const nlohmann::json weights = {
      {"num_bits", 8},         {"type", "int"},    {"symmetric", true},   {"strategy", "channel"},
      {"group_size", nullptr}, {"dynamic", false}, {"observer", "minmax"}};
  nlohmann::json activations = weights;
  activations["strategy"] = is_static ? "tensor" : "token";
  activations["dynamic"] = !is_static;
  if (!is_static) activations["observer"] = nullptr;
  return {{"quant_method", "compressed-tensors"},
          {"format", "int-quantized"},
          {"quantization_status", "compressed"},
          {"config_groups",
           {{"group_0",
             {{"targets", {"Linear"}},
              {"weights", weights},
              {"input_activations", activations},
              {"output_activations", nullptr},
              {"format", "int-quantized"}}}}},
          {"ignore", kept_modules}};
}

}  // namespace

std::vector<ShardTensor> PackMatrix(const QuantizedMatrix& matrix, const PackTarget& target) {
  return Packer(matrix, target).Pack();
}

const std::vector<float>& NestedScales::Map() {
  static const auto* const kMap = [] {
    auto* map = new std::vector<float>{0.0f, 1.0f};
    for (int i = 0; i < 7; ++i) {
      const int steps = 1 << i;
      const double size = std::pow(10.0, i - 6);
      for (int j = 0; j < steps; ++j) {
        const double middle = 0.1 + 0.9 * (j + 0.5) / steps;
        map->push_back(static_cast<float>(size * middle));
        map->push_back(static_cast<float>(-size * middle));
      }
    }
    std::ranges::sort(*map);
    return map;
  }();
  return *kMap;
}

NestedScales NestedScales::Of(const std::vector<float>& scales) {
  NestedScales nested;
  double sum = 0;
  for (const float scale : scales) sum += static_cast<double>(scale);
  nested.offset = static_cast<float>(sum / static_cast<double>(scales.size()));
  const std::vector<float>& map = Map();
  for (size_t first = 0; first < scales.size(); first += kBlock) {
    const size_t last = std::min(first + kBlock, scales.size());
    float largest = 0;
    for (size_t i = first; i < last; ++i) {
      largest = std::max(largest, std::fabs(scales[i] - nested.offset));
    }
    nested.largest.push_back(largest);
    for (size_t i = first; i < last; ++i) {
      const float unit = largest > 0 ? (scales[i] - nested.offset) / largest : 0;
      const auto above = std::ranges::lower_bound(map, unit);
      const bool lower =
          above == map.end() || (above != map.begin() && unit - *(above - 1) <= *above - unit);
      nested.codes.push_back(static_cast<uint8_t>(above - map.begin() - (lower ? 1 : 0)));
    }
  }
  return nested;
}

float NestedScales::Value(int64_t i) const {
  const float unit = Map()[codes[static_cast<size_t>(i)]];
  const float value = unit * largest[static_cast<size_t>(i / kBlock)];
  return value + offset;
}

nlohmann::json QuantizationConfig(const QuantizeOptions& options,
                                  const std::vector<std::string>& kept_modules) {
  switch (options.method) {
    case Method::kAwq:
      return {
          {"quant_method", "awq"}, {"bits", 4},         {"group_size", options.group_size},
          {"zero_point", true},    {"version", "gemm"}, {"modules_to_not_convert", kept_modules}};
    case Method::kGptq:
      return {{"quant_method", "gptq"},           {"bits", options.bits},
              {"group_size", options.group_size}, {"desc_act", options.act_order},
              {"sym", options.symmetric},         {"damp_percent", options.damping},
              {"true_sequential", true},          {"lm_head", false},
              {"checkpoint_format", "gptq"}};
    case Method::kNf4:
      return {{"quant_method", "bitsandbytes"},
              {"load_in_4bit", true},
              {"load_in_8bit", false},
              {"bnb_4bit_quant_type", "nf4"},
              {"bnb_4bit_use_double_quant", true},
              {"bnb_4bit_compute_dtype", "float32"},
              {"bnb_4bit_quant_storage", "uint8"},
              {"llm_int8_skip_modules", kept_modules}};
    case Method::kLlmInt8:
      return {{"quant_method", "bitsandbytes"},
              {"load_in_4bit", false},
              {"load_in_8bit", true},
              {"llm_int8_threshold", 6.0},
              {"llm_int8_has_fp16_weight", false},
              {"llm_int8_skip_modules", kept_modules}};
    case Method::kInt8:
    case Method::kInt8Static:
      return CompressedTensorsConfig(options, kept_modules);
  }
  return {};
}

}  // namespace sauva
