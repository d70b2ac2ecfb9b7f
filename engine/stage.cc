#include "engine/stage.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/answers.h"
#include "engine/block.h"
#include "engine/kv_groups.h"
#include "engine/rope.h"
#include "engine/scratch.h"
#include "engine/sequence_state.h"
#include "engine/stage_sequences.h"
#include "engine/stage_weights.h"
#include "engine/step_arrays.h"

namespace sauva {
namespace {

// What a layer has besides its weights.
struct LayerState {
  std::unique_ptr<KvCache> cache;
  int kv_group = 0;
  const RopeTable* rope = nullptr;
};

// The rope tables of a stage: one per distinct turning, shared by its layers.
struct RopeTables {
  std::vector<RopeShape> shapes;
  std::vector<std::unique_ptr<RopeTable>> tables;

  absl::StatusOr<const RopeTable*> For(Backend& backend, const RopeSpec& rope, int max_context) {
    RopeShape shape = {.inverse_frequencies = InverseFrequencies(rope),
                       .max_positions = max_context,
                       .interleaved = rope.layout == RopeLayout::kInterleaved};
    for (size_t i = 0; i < shapes.size(); ++i) {
      if (shapes[i].inverse_frequencies == shape.inverse_frequencies &&
          shapes[i].interleaved == shape.interleaved) {
        return tables[i].get();
      }
    }
    ASSIGN_OR_RETURN(std::unique_ptr<RopeTable> table, backend.MakeRopeTable(shape));
    shapes.push_back(std::move(shape));
    tables.push_back(std::move(table));
    return tables.back().get();
  }
};

absl::Status CheckOptions(const ModelSpec& spec, const StageOptions& options) {
  const LayerRange layers = options.layers;
  if (layers.first < 0 || layers.size() <= 0 || layers.last > spec.num_layers()) {
    return absl::InvalidArgumentError(absl::StrCat("a stage of layers [", layers.first, ", ",
                                                   layers.last, ") of a model with ",
                                                   spec.num_layers()));
  }
  if (options.first != (layers.first == 0) || options.last != (layers.last == spec.num_layers())) {
    return absl::InvalidArgumentError(
        absl::StrCat("layers [", layers.first, ", ", layers.last,
                     ") contradict the stage's place as first or last of the pipeline"));
  }
  if (options.max_context < 0 || options.max_context > spec.max_context) {
    return absl::InvalidArgumentError(absl::StrCat("a context of ", options.max_context,
                                                   " tokens; the model's is ", spec.max_context));
  }
  if (options.max_step_tokens <= 0 || options.max_sequences <= 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "steps of ", options.max_step_tokens, " tokens and ", options.max_sequences, " sequences"));
  }
  for (int i = layers.first; i < layers.last; ++i) {
    if (!spec.decoder.layers[static_cast<size_t>(i)].self_attention.causal) {
      return absl::UnimplementedError(absl::StrCat("layer ", i, " is not causal"));
    }
  }
  return absl::OkStatus();
}

class TransformerStage : public Stage {
 public:
  struct Parts {
    StageWeights weights;
    Scratch scratch;
    std::vector<LayerState> layers;
    RopeTables ropes;
    StepLimits limits;
  };

  TransformerStage(Backend& backend, const ModelSpec& spec, const StageOptions& options,
                   Parts parts)
      : backend_(backend),
        spec_(spec),
        options_(options),
        weights_(std::move(parts.weights)),
        scratch_(std::move(parts.scratch)),
        layers_(std::move(parts.layers)),
        ropes_(std::move(parts.ropes)),
        block_(backend, scratch_),
        answers_(backend, spec_.decoder.final_norm, weights_, scratch_),
        arrays_(parts.limits),
        sequences_({.vocab_size = spec.vocab_size,
                    .max_context = options.max_context,
                    .max_sequences = options.max_sequences,
                    .max_step_tokens = options.max_step_tokens,
                    .num_kv_groups = parts.limits.num_kv_groups}) {}

  int64_t weight_bytes() const override { return weights_.size_bytes(); }
  int64_t scratch_bytes() const override {
    return scratch_.memory->size_bytes() + backend_.reserved_bytes();
  }

  int64_t kv_block_bytes() const override {
    int64_t bytes = 0;
    for (int i = options_.layers.first; i < options_.layers.last; ++i) {
      bytes += KvShapeOf(i, 1).size_bytes();
    }
    return bytes;
  }

  absl::Status AllocateKv(int num_blocks) override {
    if (num_blocks <= 0) {
      return absl::InvalidArgumentError(absl::StrCat("a cache of ", num_blocks, " blocks"));
    }
    const bool fits = sequences_.limits().num_kv_blocks == num_blocks;
    sequences_.Clear();
    if (fits) return absl::OkStatus();
    sequences_.set_num_kv_blocks(0);
    for (LayerState& state : layers_) state.cache.reset();  // both would not fit
    for (int i = options_.layers.first; i < options_.layers.last; ++i) {
      ASSIGN_OR_RETURN(layer(i).cache, backend_.AllocateKv(KvShapeOf(i, num_blocks)));
    }
    sequences_.set_num_kv_blocks(num_blocks);
    return absl::OkStatus();
  }

  absl::Status Open(const OpenSequence& sequence) override { return sequences_.Open(sequence); }
  void Close(SequenceId id) override { sequences_.Close(id); }

  absl::Status RunStep(const StepHeader& header, std::span<const float> hidden,
                       StageOutput& output) override {
    if (sequences_.limits().num_kv_blocks == 0) {
      return absl::FailedPreconditionError("a step before the KV cache is allocated");
    }
    RETURN_IF_ERROR(CheckHidden(header, hidden));
    RETURN_IF_ERROR(sequences_.Apply(header));
    backend_.UploadStep(arrays_.Fill(header, sequences_));
    const Rows x = scratch_.hidden.First(arrays_.num_tokens());
    if (!options_.first) backend_.CopyFromHost(hidden.data(), x);
    backend_.RunPart(StepPart::kLayers, x.rows,
                     [this](int rows) { RunLayers(scratch_.hidden.First(rows)); });
    if (options_.last) {
      output.hidden.clear();
      answers_.Compute(header, arrays_, sequences_, x, output.sampled);
      if (output.sampled.empty()) backend_.Wait();  // else the answers were waited for
    } else {
      output.sampled.clear();
      output.hidden.resize(static_cast<size_t>(x.rows) * static_cast<size_t>(x.columns));
      backend_.CopyToHost(x, output.hidden.data());
    }
    return absl::OkStatus();
  }

 private:
  LayerState& layer(int index) {
    return layers_[static_cast<size_t>(index - options_.layers.first)];
  }

  KvShape KvShapeOf(int index, int num_blocks) const {
    const AttentionSpec& attention =
        spec_.decoder.layers[static_cast<size_t>(index)].self_attention;
    return {.num_blocks = num_blocks,
            .num_kv_heads = attention.num_kv_heads,
            .head_dim = attention.head_dim,
            .dtype = options_.kv_type};
  }

  void RunLayers(Rows x) {
    if (options_.first) backend_.GatherRows(weights_.embedding(), spec_.embedding_scale, x);
    for (int i = options_.layers.first; i < options_.layers.last; ++i) Forward(i, x);
  }

  void Forward(int index, Rows x) {
    const LayerState& state = layer(index);
    block_.Forward({.spec = spec_.decoder.layers[static_cast<size_t>(index)],
                    .weights = weights_.Lease(index),
                    .cache = state.cache.get(),
                    .kv_group = state.kv_group,
                    .rope = state.rope},
                   x);
  }

  absl::Status CheckHidden(const StepHeader& header, std::span<const float> hidden) const {
    const size_t expected = options_.first ? 0
                                           : static_cast<size_t>(header.num_tokens()) *
                                                 static_cast<size_t>(spec_.hidden_size);
    if (hidden.size() == expected) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("step ", header.step_id, " came with ",
                                                   hidden.size(), " hidden values; expected ",
                                                   expected));
  }

  Backend& backend_;
  const ModelSpec spec_;
  const StageOptions options_;
  const StageWeights weights_;
  const Scratch scratch_;
  std::vector<LayerState> layers_;
  const RopeTables ropes_;  // owns what layers_ point to
  Block block_;
  Answers answers_;
  StepArrays arrays_;
  StageSequences sequences_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Stage>> Stage::Load(Backend& backend, const ModelSpec& spec,
                                                   const Checkpoint& checkpoint,
                                                   const StageOptions& given,
                                                   std::function<void(int)> progress) {
  RETURN_IF_ERROR(CheckOptions(spec, given));
  StageOptions options = given;
  if (options.max_context == 0) options.max_context = spec.max_context;
  ASSIGN_OR_RETURN(StageWeights weights,
                   StageWeights::Load(backend, spec, checkpoint, options, progress));
  ASSIGN_OR_RETURN(Scratch scratch, Scratch::Create(backend, spec, options));
  const std::vector<int> groups = KvGroupOfLayers(spec);
  RopeTables ropes;
  std::vector<LayerState> layers;
  for (int i = options.layers.first; i < options.layers.last; ++i) {
    const auto& rope = spec.decoder.layers[static_cast<size_t>(i)].self_attention.rope;
    LayerState layer;
    layer.kv_group = groups[static_cast<size_t>(i)];
    if (rope) {
      ASSIGN_OR_RETURN(layer.rope, ropes.For(backend, *rope, options.max_context));
    }
    layers.push_back(std::move(layer));
  }
  const StepLimits limits = StepLimitsOf(spec, options);
  RETURN_IF_ERROR(backend.Reserve(limits, scratch.widest, spec.vocab_size));
  return std::make_unique<TransformerStage>(backend, spec, options,
                                            TransformerStage::Parts{.weights = std::move(weights),
                                                                    .scratch = std::move(scratch),
                                                                    .layers = std::move(layers),
                                                                    .ropes = std::move(ropes),
                                                                    .limits = limits});
}

}  // namespace sauva
