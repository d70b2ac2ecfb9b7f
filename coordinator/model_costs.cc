#include "coordinator/model_costs.h"

#include <algorithm>

#include "base/status_macros.h"
#include "engine/formats.h"
#include "engine/stage.h"

namespace sauva {
namespace {

// What no estimate names: the page or two of each allocation, tables of positions, queues.
constexpr int64_t kSlackBytes = 1 << 20;

// Multiplications and additions of one token in a layer's matrices; attention over the
// context is left out, since it is small for contexts that fit small machines.
double LayerOperations(const ModelSpec& spec, const LayerSpec& layer) {
  const double hidden = spec.hidden_size;
  const AttentionSpec& attention = layer.self_attention;
  const double head_dims = attention.head_dim;
  const double projections =
      hidden * head_dims * (2.0 * attention.num_heads + 2.0 * attention.num_kv_heads);
  const double matrices = layer.feed_forward.gated ? 3 : 2;
  return 2 * (projections + matrices * hidden * layer.feed_forward.intermediate_size);
}

// Activations of a step: the widest layer decides.
int64_t ScratchBytes(const ModelSpec& spec, const ServingFormat& format) {
  int64_t widest = 0;
  for (const LayerSpec& layer : spec.decoder.layers) {
    const AttentionSpec& attention = layer.self_attention;
    const int64_t queries = int64_t{attention.num_heads} * attention.head_dim;
    const int64_t keys = int64_t{attention.num_kv_heads} * attention.head_dim;
    widest = std::max(widest, 3 * int64_t{spec.hidden_size} + 2 * queries + 2 * keys +
                                  2 * int64_t{layer.feed_forward.intermediate_size});
  }
  // Hidden states come in, go out and wait once more on their way.
  const int64_t on_the_way = 3 * int64_t{spec.hidden_size};
  return (widest + on_the_way) * format.max_step_tokens * int64_t{sizeof(float)} + kSlackBytes;
}

}  // namespace

absl::StatusOr<ModelCosts> CostsOf(const ModelSpec& spec, const Checkpoint& checkpoint,
                                   const ServingFormat& format) {
  ASSIGN_OR_RETURN(const LoadFormat weights, ParseLoadFormat(format.weight_format));
  ASSIGN_OR_RETURN(const DType kv_type, ParseKvType(format.kv_type));
  ModelCosts costs;
  for (int i = 0; i < spec.num_layers(); ++i) {
    const LayerSpec& layer = spec.decoder.layers[i];
    const AttentionSpec& attention = layer.self_attention;
    costs.layers.push_back({.weight_bytes = EstimateLayerBytes(spec, checkpoint, i, weights),
                            .kv_bytes_per_token = 2 * int64_t{attention.num_kv_heads} *
                                                  KvVectorBytes(kv_type, attention.head_dim),
                            .operations_per_token = LayerOperations(spec, layer)});
  }
  costs.embedding_bytes = EstimateEmbeddingBytes(spec, checkpoint);
  costs.head_bytes = EstimateHeadBytes(spec, checkpoint, weights);
  const int64_t logits = int64_t{spec.vocab_size} + spec.hidden_size;
  costs.head_operations_per_token = 2.0 * spec.vocab_size * spec.hidden_size;
  costs.hidden_bytes_per_token = int64_t{spec.hidden_size} * int64_t{sizeof(float)};
  costs.scratch_bytes = ScratchBytes(spec, format);
  costs.last_scratch_bytes = logits * format.max_sequences * int64_t{sizeof(float)};
  return costs;
}

}  // namespace sauva
