#include "engine/scratch.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/status_macros.h"

namespace sauva {
namespace {

constexpr int64_t kAlignmentFloats = 16;  // 64 bytes

struct Widths {
  int queries = 0;
  int keys = 0;
  int intermediate = 0;
};

Widths WidestOf(const ModelSpec& spec, LayerRange layers) {
  Widths widths;
  for (int i = layers.first; i < layers.last; ++i) {
    const LayerSpec& layer = spec.decoder.layers[static_cast<size_t>(i)];
    const AttentionSpec& attention = layer.self_attention;
    widths.queries = std::max(widths.queries, attention.num_heads * attention.head_dim);
    widths.keys = std::max(widths.keys, attention.num_kv_heads * attention.head_dim);
    widths.intermediate = std::max(widths.intermediate, layer.feed_forward.intermediate_size);
  }
  return widths;
}

}  // namespace

absl::StatusOr<Scratch> Scratch::Create(Backend& backend, const ModelSpec& spec,
                                        const StageOptions& options) {
  const Widths widths = WidestOf(spec, options.layers);
  const int tokens = options.max_step_tokens;
  Scratch scratch;
  scratch.widest = std::max({spec.hidden_size, widths.queries, widths.intermediate});
  struct Part {
    Rows* rows;
    int count;
    int columns;
  };
  std::vector<Part> parts = {
      {&scratch.hidden, tokens, spec.hidden_size}, {&scratch.normed, tokens, spec.hidden_size},
      {&scratch.result, tokens, spec.hidden_size}, {&scratch.queries, tokens, widths.queries},
      {&scratch.keys, tokens, widths.keys},        {&scratch.values, tokens, widths.keys},
      {&scratch.mixed, tokens, widths.queries},    {&scratch.gate, tokens, widths.intermediate},
      {&scratch.up, tokens, widths.intermediate},
  };
  if (options.last) {
    parts.push_back({&scratch.selected, options.max_sequences, spec.hidden_size});
    parts.push_back({&scratch.logits, options.max_sequences, spec.vocab_size});
  }
  const auto size = [](const Part& part) {
    const int64_t floats = int64_t{part.count} * part.columns;
    return (floats + kAlignmentFloats - 1) / kAlignmentFloats * kAlignmentFloats;
  };
  int64_t floats = 0;
  for (const Part& part : parts) floats += size(part);
  ASSIGN_OR_RETURN(scratch.memory, backend.Allocate(floats * int64_t{sizeof(float)}));
  float* data = reinterpret_cast<float*>(scratch.memory->data());
  for (const Part& part : parts) {
    *part.rows = {
        .data = data, .rows = part.count, .columns = part.columns, .stride = part.columns};
    data += size(part);
  }
  return scratch;
}

}  // namespace sauva
