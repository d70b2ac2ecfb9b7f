#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/quantized_matrix.h"
#include "model/config_reader.h"
#include "model/quantized/parts.h"
#include "model/quantized_outline.h"
#include "model/tokenizer.h"

// Published ways to store quantized matrices. Everything in a file is taken as hostile:
// dtypes, shapes and ranges are verified before a value is used.
namespace sauva {

struct MatrixSize {
  int64_t rows = 0;     // outputs, by config.json
  int64_t columns = 0;  // inputs
};

// One layout, with what its configuration says. Four implementations, a file each.
class QuantizedLayout {
 public:
  virtual ~QuantizedLayout() = default;

  // "awq", as quant_method spells it.
  virtual std::string method() const = 0;
  // What may follow a module's name; the longest that fits is meant.
  virtual const std::vector<std::string>& suffixes() const = 0;
  // Whether these tensors are a quantized matrix, not a plain weight.
  virtual bool IsQuantized(const QuantizedParts& parts) const = 0;
  // Verifies that tensors are there with the right dtypes and shapes; reads no value but
  // small descriptions. Errors: INVALID_ARGUMENT naming the tensor, expected and found.
  virtual absl::StatusOr<QuantizedOutline> Outline(const QuantizedParts& parts,
                                                   MatrixSize size) const = 0;
  // The matrix, its codes in the memory of `codes`.
  // Errors: those of Outline; INVALID_ARGUMENT for values out of range.
  virtual absl::StatusOr<QuantizedMatrix> Read(const QuantizedParts& parts, MatrixSize size,
                                               std::vector<uint8_t> codes) const = 0;
  // Modules that stay as they are, as the configuration lists them.
  const std::vector<std::string>& kept_modules() const { return kept_modules_; }

 protected:
  std::vector<std::string> kept_modules_;
};

// AWQ, version "gemm". Source: AutoAWQ, awq/modules/linear/gemm.py.
absl::StatusOr<std::unique_ptr<QuantizedLayout>> ReadAwqConfig(const ConfigReader& config);
// GPTQ, formats "gptq" and "gptq_v2". Source: AutoGPTQ, qlinear_cuda.py; GPTQModel.
absl::StatusOr<std::unique_ptr<QuantizedLayout>> ReadGptqConfig(const ConfigReader& config);
// bitsandbytes 4-bit (NF4) and 8-bit. Source: bitsandbytes/functional.py, nn/modules.py.
absl::StatusOr<std::unique_ptr<QuantizedLayout>> ReadBitsandbytesConfig(const ConfigReader& config);
// compressed-tensors "pack-quantized" and "int-quantized".
// Source: vllm-project/compressed-tensors, compressors/pack_quantized/base.py.
absl::StatusOr<std::unique_ptr<QuantizedLayout>> ReadCompressedTensorsConfig(
    const ConfigReader& config);

// The layout a model's files name: config.json's quantization_config, else GPTQ's own
// quantize_config.json; null for a model that is not quantized.
// Errors: INVALID_ARGUMENT for an unknown quant_method, listing those known.
absl::StatusOr<std::unique_ptr<QuantizedLayout>> ReadQuantizedLayout(const ModelFiles& files);

// Names listed under `key`, or none.
absl::StatusOr<std::vector<std::string>> ReadNames(const ConfigReader& config,
                                                   const std::string& key);

// Whether a list entry covers a module: it is the name, or whole parts of it. Patterns
// ("re:...") cover nothing here.
bool IsKept(const std::vector<std::string>& kept, std::string_view module);

}  // namespace sauva
