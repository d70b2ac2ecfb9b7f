#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "engine/stage.h"
#include "kernels/backend.h"
#include "model/spec.h"

namespace sauva {

// The working memory of a stage's steps, allocated once for the largest step. Rows are as
// wide as the widest layer needs; a layer takes the columns it uses.
struct Scratch {
  // Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<Scratch> Create(Backend& backend, const ModelSpec& spec,
                                        const StageOptions& options);

  std::unique_ptr<Buffer> memory;
  Rows hidden;     // [max_step_tokens, hidden]: the residual stream
  Rows normed;     // [max_step_tokens, hidden]
  Rows result;     // [max_step_tokens, hidden]: what a sublayer adds
  Rows queries;    // [max_step_tokens, heads * head_dim]
  Rows keys;       // [max_step_tokens, kv_heads * head_dim]
  Rows values;     // [max_step_tokens, kv_heads * head_dim]
  Rows mixed;      // [max_step_tokens, heads * head_dim]: attention's result
  Rows gate;       // [max_step_tokens, intermediate]
  Rows up;         // [max_step_tokens, intermediate]
  Rows selected;   // [max_sequences, hidden]; last stage only
  Rows logits;     // [max_sequences, vocab]; last stage only
  int widest = 0;  // columns of the widest input of a matrix
};

}  // namespace sauva
