#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/config_reader.h"
#include "model/spec.h"

namespace sauva {

// What turns one family's files into our values. A family holds no forward code.
struct Family {
  // Entries of config.json's "architectures" that it reads.
  std::vector<std::string> architectures;
  // Everything but token ids, which ParseSpec reads for all families.
  absl::StatusOr<ModelSpec> (*read_spec)(const ConfigReader& config,
                                         const std::string& architecture);
  // The canonical name (model/tensor_names.h) of a checkpoint's tensor; nothing for a
  // tensor that no forward pass uses.
  std::optional<std::string> (*canonical_name)(std::string_view checkpoint_name);
};

// Llama, and Mistral and Qwen2, which differ from it in a window and a bias.
const Family& LlamaFamily();

// The family that reads config.json.
// Errors: INVALID_ARGUMENT naming the architecture found and those supported.
struct ChosenFamily {
  const Family* family = nullptr;
  std::string architecture;
};
absl::StatusOr<ChosenFamily> ChooseFamily(const ConfigReader& config);

// Bounds on what any config may say, far above every real model.
inline constexpr int kMaxHiddenSize = 1 << 20;
inline constexpr int kMaxIntermediateSize = 1 << 22;
inline constexpr int kMaxLayers = 1000;
inline constexpr int kMaxHeads = 4096;
inline constexpr int kMaxHeadDim = 4096;
inline constexpr int kMaxVocabSize = 4 << 20;
inline constexpr int kMaxContext = 100'000'000;

}  // namespace sauva
