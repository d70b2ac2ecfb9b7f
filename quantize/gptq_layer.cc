#include <optional>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "quantize/gptq.h"
#include "quantize/layer_job.h"

namespace sauva {
namespace {

// Matrices that read one input; quantized in this order, each seeing those before it
// ("true sequential").
std::vector<std::vector<std::string>> Subsets(const LayerJob& job) {
  const LayerSpec& spec = job.model.spec.decoder.layers[static_cast<size_t>(job.layer)];
  std::vector<std::string> widening = {job.Name("up")};
  if (spec.feed_forward.gated) widening.push_back(job.Name("gate"));
  return {{job.Name("self.q"), job.Name("self.k"), job.Name("self.v")},
          {job.Name("self.out")},
          widening,
          {job.Name("down")}};
}

// The attention is done when the feed-forward begins: what it leaves is computed once and kept.
TappedBackend::Middle MiddleOf(const LayerJob& job, const std::string& first) {
  if (first == job.Name("up")) return TappedBackend::Middle::kShow;
  if (first == job.Name("down")) return TappedBackend::Middle::kReplace;
  return TappedBackend::Middle::kIgnore;
}

}  // namespace

absl::Status QuantizeLayerGptq(const LayerJob& job, LayerResult& result) {
  const GptqOptions options = {.bits = job.options.bits,
                               .group_size = job.options.group_size,
                               .act_order = job.options.act_order,
                               .symmetric = job.options.symmetric,
                               .damping = job.options.damping,
                               .threads = job.options.threads};
  OverlaidCheckpoint overlaid(*job.model.checkpoint);
  for (const std::vector<std::string>& subset : Subsets(job)) {
    std::optional<Hessian> hessian;
    const auto observe = [&](const std::string& name, const MatMulArgs& args) {
      if (name != subset.front()) return;
      if (!hessian) hessian.emplace(args.x.columns);
      hessian->Add({.data = args.x.data, .rows = args.x.rows, .stride = args.x.stride},
                   options.threads);
    };
    RETURN_IF_ERROR(RunLayer(*job.calibration, {.layer = job.layer,
                                                .checkpoint = overlaid,
                                                .observer = observe,
                                                .last_product = subset.front(),
                                                .middle = MiddleOf(job, subset.front())}));
    std::string note;
    auto factor = GptqFactor::Create(*std::move(hessian), options, note);
    if (!factor.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", subset.front(), ": ", factor.status().message()));
    }
    if (!note.empty()) result.notes.push_back(absl::StrCat(subset.front(), ": ", note));
    for (const std::string& name : subset) {
      ASSIGN_OR_RETURN(std::vector<float> numbers, ReadNumbers(*job.model.checkpoint, name));
      ASSIGN_OR_RETURN(const StoredTensor tensor, job.model.checkpoint->Find(name));
      ASSIGN_OR_RETURN(QuantizedMatrix matrix,
                       QuantizeGptq(std::move(numbers), tensor.shape[0], *factor, options));
      const auto [stored, inserted] = result.matrices.emplace(name, std::move(matrix));
      overlaid.Overlay(name, &stored->second);
    }
  }
  if (job.layer + 1 == job.model.spec.num_layers()) return absl::OkStatus();
  return RunLayer(*job.calibration, {.layer = job.layer,
                                     .checkpoint = overlaid,
                                     .output = LayerPass::Output::kKeep,
                                     .middle = TappedBackend::Middle::kReplace});
}

}  // namespace sauva
