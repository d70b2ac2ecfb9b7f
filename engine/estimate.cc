#include <algorithm>
#include <string>

#include "engine/kv_groups.h"
#include "engine/sequence_state.h"
#include "engine/stage.h"
#include "model/expected_tensors.h"
#include "model/tensor_names.h"

namespace sauva {
namespace {

// Bytes a tensor takes once loaded; 0 when the checkpoint lacks it, which Load reports.
int64_t LoadedBytes(const Checkpoint& checkpoint, const ExpectedTensor& tensor, LoadFormat format) {
  constexpr int64_t kFloat = 4;
  if (tensor.shape.size() == 1) return tensor.shape[0] * kFloat;
  const int64_t rows = tensor.shape[0];
  const int64_t columns = tensor.shape[1];
  if (const auto outline = checkpoint.FindQuantized(tensor.name)) {
    return format == LoadFormat::kF32 ? rows * columns * kFloat : PackedBytes(*outline);
  }
  if (format != LoadFormat::kStored && format != LoadFormat::kF32) {
    return RoundedBytes(rows, columns, format);
  }
  const auto stored = checkpoint.Find(tensor.name);
  return stored.ok() ? rows * columns * SizeOf(stored->dtype) : 0;
}

template <class Predicate>
int64_t SumBytes(const ModelSpec& spec, const Checkpoint& checkpoint, LoadFormat format,
                 Predicate belongs) {
  int64_t bytes = 0;
  for (const ExpectedTensor& tensor : ExpectedTensors(spec)) {
    if (belongs(tensor.name)) bytes += LoadedBytes(checkpoint, tensor, format);
  }
  return bytes;
}

}  // namespace

int64_t EstimateLayerBytes(const ModelSpec& spec, const Checkpoint& checkpoint, int layer,
                           LoadFormat format) {
  const std::string prefix = tensor_names::Layer(layer, "");
  return SumBytes(spec, checkpoint, format,
                  [&](const std::string& name) { return name.starts_with(prefix); });
}

int64_t EstimateEmbeddingBytes(const ModelSpec& spec, const Checkpoint& checkpoint) {
  return SumBytes(spec, checkpoint, LoadFormat::kStored,
                  [](const std::string& name) { return name == tensor_names::kEmbedding; });
}

int64_t EstimateHeadBytes(const ModelSpec& spec, const Checkpoint& checkpoint, LoadFormat format) {
  const std::string& head = spec.tied_head ? tensor_names::kEmbedding : tensor_names::kHead;
  return SumBytes(spec, checkpoint, HeadFormat(format, spec), [&](const std::string& name) {
    return name == head || name.starts_with("final_norm.");
  });
}

StepLimits StepLimitsOf(const ModelSpec& spec, const StageOptions& options) {
  StepLimits limits{.max_tokens = options.max_step_tokens,
                    .max_sequences = options.max_sequences,
                    .max_blocks_per_sequence = BlocksFor(options.max_context),
                    .num_kv_groups = NumKvGroups(spec)};
  for (const LayerSpec& layer : spec.decoder.layers) {
    limits.max_head_dim = std::max(limits.max_head_dim, layer.self_attention.head_dim);
  }
  return limits;
}

BackendScratch EstimateBackendScratch(const ModelSpec& spec, const StageOptions& options) {
  int widest = spec.hidden_size;
  for (const LayerSpec& layer : spec.decoder.layers) {
    const AttentionSpec& attention = layer.self_attention;
    widest = std::max(
        {widest, attention.num_heads * attention.head_dim, layer.feed_forward.intermediate_size});
  }
  return {
      .limits = StepLimitsOf(spec, options), .max_columns = widest, .vocab_size = spec.vocab_size};
}

}  // namespace sauva
