#include "worker/model_store.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "engine/formats.h"
#include "engine/kv_groups.h"
#include "kernels/factory.h"
#include "model/model.h"
#include "worker/donated_checkpoint.h"
#include "worker/memory_budget.h"
#include "worker/weight_client.h"
#include "worker/weight_transfer.h"

namespace sauva {
namespace {

absl::StatusOr<Model> OpenAssigned(const std::string& model_dir, const ModelRef& wanted) {
  if (wanted.name.empty() || wanted.name == "." || wanted.name == ".." ||
      wanted.name.find_first_of(std::string("/\0", 2)) != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("'", wanted.name, "' is no name of a model"));
  }
  ASSIGN_OR_RETURN(Model model,
                   OpenModel((std::filesystem::path(model_dir) / wanted.name).string()));
  if (model.digest == wanted.digest) return model;
  return absl::FailedPreconditionError(absl::StrCat("model ", wanted.name, " under ", model_dir,
                                                    " has digest ", model.digest,
                                                    "; the pipeline is of digest ", wanted.digest));
}

absl::StatusOr<StageOptions> StageOptionsOf(const StageAssignment& assignment,
                                            const ModelSpec& spec) {
  const LayerRange layers = assignment.layers();
  if (layers.first < 0 || layers.last > spec.num_layers() || layers.size() <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("layers [", layers.first, ", ", layers.last,
                                                   ") of a model with ", spec.num_layers()));
  }
  StageOptions options{.layers = layers,
                       .first = assignment.is_head(),
                       .last = assignment.is_last(),
                       .max_context = assignment.max_context,
                       .max_step_tokens = assignment.max_step_tokens,
                       .max_sequences = assignment.max_sequences};
  ASSIGN_OR_RETURN(options.weight_format, ParseLoadFormat(assignment.weight_format));
  ASSIGN_OR_RETURN(options.kv_type, ParseKvType(assignment.kv_type));
  if (options.max_context == 0) options.max_context = spec.max_context;
  return options;
}

// Before anything is read: what the weights will take.
absl::Status CheckWeightsFit(const Model& model, const StageOptions& options, uint64_t budget) {
  int64_t bytes = 0;
  for (int layer = options.layers.first; layer < options.layers.last; ++layer) {
    bytes += EstimateLayerBytes(model.spec, *model.checkpoint, layer, options.weight_format);
  }
  if (options.first) bytes += EstimateEmbeddingBytes(model.spec, *model.checkpoint);
  if (options.last)
    bytes += EstimateHeadBytes(model.spec, *model.checkpoint, options.weight_format);
  if (static_cast<uint64_t>(bytes) <= budget) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "weights of layers [", options.layers.first, ", ", options.layers.last, ") of model ",
      model.name, " take ", bytes, " bytes; the memory budget is ", budget));
}

}  // namespace

absl::StatusOr<Model> ModelStore::Open(const ModelRef& wanted) const {
  return OpenAssigned(options_.model_dir, wanted);
}

absl::StatusOr<std::unique_ptr<Stage>> ModelStore::LoadStage(Backend& backend, const Model& model,
                                                             const StageAssignment& assignment,
                                                             const StageOptions& options) const {
  const auto load = [&](const Checkpoint& checkpoint) {
    return Stage::Load(backend, model.spec, checkpoint, options, [](int) {});
  };
  const std::string& donor = assignment.stages[static_cast<size_t>(assignment.stage_index)].donor;
  if (donor.empty() || options_.nccl == nullptr) return load(*model.checkpoint);
  const auto client = WeightClient::Connect(donor, options_.tls, *options_.nccl, assignment.model);
  if (!client.ok()) {
    LogWarning("no weights from the other worker: they are read from disk",
               {{"donor", donor}, {"reason", client.status().ToString()}});
    return load(*model.checkpoint);
  }
  const DonatedCheckpoint donated(*model.checkpoint,
                                  [&](const std::string& name, std::span<std::byte> bytes) {
                                    return (*client)->Fetch(name, bytes);
                                  });
  auto stage = load(donated);
  LogInfo("weights received from another worker",
          {{"donor", donor}, {"bytes", donated.received_bytes()}});
  return stage;
}

absl::StatusOr<HostedStage> ModelStore::Load(const StageAssignment& assignment) const {
  ASSIGN_OR_RETURN(const Model model, Open(assignment.model));
  ASSIGN_OR_RETURN(const StageOptions options, StageOptionsOf(assignment, model.spec));
  RETURN_IF_ERROR(CheckWeightsFit(model, options, options_.memory_bytes));
  HostedStage hosted;
  ASSIGN_OR_RETURN(hosted.backend,
                   MakeBackend(options_.device, options_.threads,
                               static_cast<int64_t>(options_.memory_bytes), options_.cuda));
  ASSIGN_OR_RETURN(hosted.stage, LoadStage(*hosted.backend, model, assignment, options));
  const uint64_t blocks_per_sequence =
      static_cast<uint64_t>((options.max_context + kKvBlockTokens - 1) / kKvBlockTokens);
  const int num_kv_groups = NumKvGroups(model.spec);
  const auto weight_bytes = static_cast<uint64_t>(hosted.stage->weight_bytes());
  hosted.link_bytes = LinkBytes(assignment, model.spec.hidden_size);
  if (options_.nccl != nullptr && options_.nccl->functions) hosted.link_bytes += kDonationBytes;
  // A device counts all that was taken of it, what the backend keeps for itself too.
  const auto taken_bytes =
      std::max(static_cast<uint64_t>(hosted.backend->used_bytes()),
               weight_bytes + static_cast<uint64_t>(hosted.stage->scratch_bytes()));
  ASSIGN_OR_RETURN(
      const uint32_t max_kv_blocks,
      MaxKvBlocks({.budget_bytes = options_.memory_bytes,
                   .weight_bytes = weight_bytes,
                   .scratch_bytes = taken_bytes - weight_bytes + hosted.link_bytes,
                   .kv_block_bytes = static_cast<uint64_t>(hosted.stage->kv_block_bytes()),
                   .kv_memory_bytes = assignment.kv_memory_bytes,
                   .useful_blocks = blocks_per_sequence * static_cast<uint64_t>(num_kv_groups) *
                                    static_cast<uint64_t>(options.max_sequences)}));
  hosted.loaded = {.facts = {.vocab_size = model.spec.vocab_size,
                             .hidden_size = model.spec.hidden_size,
                             .max_context = options.max_context,
                             .num_kv_groups = num_kv_groups,
                             .eos_tokens = model.spec.eos_tokens},
                   .max_kv_blocks = max_kv_blocks,
                   .weight_bytes = weight_bytes,
                   .scratch_bytes = taken_bytes - weight_bytes};
  LogInfo("layers loaded", {{"model", model.name},
                            {"first", options.layers.first},
                            {"last", options.layers.last},
                            {"weight_bytes", weight_bytes},
                            {"max_kv_blocks", max_kv_blocks}});
  return hosted;
}

}  // namespace sauva
