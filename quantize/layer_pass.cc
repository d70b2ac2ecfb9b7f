#include "quantize/layer_pass.h"

#include <memory>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"
#include "engine/kv_groups.h"
#include "engine/sequence_state.h"
#include "engine/stage.h"
#include "kernels/factory.h"

namespace sauva {

std::optional<QuantizedOutline> OverlaidCheckpoint::FindQuantized(const std::string& name) const {
  const auto found = matrices_.find(name);
  if (found == matrices_.end()) return base_.FindQuantized(name);
  const QuantizedMatrix& matrix = *found->second;
  return QuantizedOutline{.kind = matrix.kind,
                          .bits = matrix.bits,
                          .rows = matrix.rows,
                          .columns = matrix.columns,
                          .group_size = matrix.group_size};
}

absl::StatusOr<QuantizedMatrix> OverlaidCheckpoint::ReadQuantized(
    const std::string& name, std::vector<uint8_t> codes) const {
  const auto found = matrices_.find(name);
  if (found == matrices_.end()) return base_.ReadQuantized(name, std::move(codes));
  return *found->second;
}

namespace {

// A step that runs a whole sample.
StepHeader WholeSample(const ModelSpec& spec, uint64_t step_id,
                       const std::vector<TokenId>& tokens) {
  SequenceStep step{.id = step_id, .first_position = 0, .tokens = tokens};
  for (int group = 0; group < NumKvGroups(spec); ++group) {
    BlockDelta blocks{.kv_group = static_cast<uint32_t>(group)};
    for (int i = 0; i < BlocksFor(static_cast<int>(tokens.size())); ++i) {
      blocks.appended.push_back(i + group * BlocksFor(static_cast<int>(tokens.size())));
    }
    step.blocks.push_back(std::move(blocks));
  }
  StepHeader header{.epoch = 1, .step_id = step_id};
  header.sequences.push_back(std::move(step));
  return header;
}

}  // namespace

absl::Status RunLayer(CalibrationState& state, const LayerPass& pass) {
  const ModelSpec& spec = state.spec;
  const auto tokens = static_cast<int>(state.samples.front().size());
  const bool last = pass.layer + 1 == spec.num_layers();
  ASSIGN_OR_RETURN(auto backend, MakeBackend("cpu", state.threads));
  int64_t sample = 0;
  absl::Status moved;  // of the first sample whose middle could not be
  const auto at_middle = [&](Rows x) {
    Check(x.stride == x.columns, "the residual stream is one piece");
    const std::span<float> values(x.data, static_cast<size_t>(x.rows) * x.columns);
    const absl::Status status = pass.middle == TappedBackend::Middle::kShow
                                    ? state.middle->Write(sample, values)
                                    : state.middle->Read(sample, values);
    if (moved.ok()) moved = status;
  };
  backend = std::make_unique<TappedBackend>(std::move(backend),
                                            TappedBackend::Taps{.observer = pass.observer,
                                                                .last_product = pass.last_product,
                                                                .middle = pass.middle,
                                                                .at_middle = at_middle});
  ASSIGN_OR_RETURN(const std::unique_ptr<Stage> stage,
                   Stage::Load(*backend, spec, pass.checkpoint,
                               {.layers = {.first = pass.layer, .last = pass.layer + 1},
                                .first = pass.layer == 0,
                                .last = last,
                                .weight_format = LoadFormat::kF32,
                                .max_context = tokens,
                                .max_step_tokens = tokens,
                                .max_sequences = 1},
                               {}));
  RETURN_IF_ERROR(stage->AllocateKv(BlocksFor(tokens) * NumKvGroups(spec)));
  std::vector<float> hidden(static_cast<size_t>(tokens) * static_cast<size_t>(spec.hidden_size));
  StageOutput output;
  for (size_t i = 0; i < state.samples.size(); ++i) {
    sample = static_cast<int64_t>(i);
    if (pass.layer > 0) RETURN_IF_ERROR(state.hidden.Read(sample, hidden));
    const uint64_t step_id = i + 1;
    RETURN_IF_ERROR(stage->Open({.id = step_id,
                                 .tokens = state.samples[i],
                                 .num_prompt_tokens = static_cast<uint32_t>(tokens)}));
    const std::span<const float> in = pass.layer == 0 ? std::span<const float>() : hidden;
    RETURN_IF_ERROR(stage->RunStep(WholeSample(spec, step_id, state.samples[i]), in, output));
    RETURN_IF_ERROR(moved);
    stage->Close(step_id);
    const bool keep = pass.output == LayerPass::Output::kKeep && !last;
    if (keep) RETURN_IF_ERROR(state.hidden.Write(sample, output.hidden));
  }
  return absl::OkStatus();
}

}  // namespace sauva
