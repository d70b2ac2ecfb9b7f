#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "quantize/awq.h"
#include "quantize/layer_job.h"

namespace sauva {
namespace {

constexpr int64_t kKeptTokens = 2048;      // rows of inputs that searches look at,
constexpr int64_t kKeptTokensWide = 1024;  // where they are this wide:
constexpr int64_t kWide = 2048;

// Matrices that read one input, and what can be scaled in front of them.
struct ScaledGroup {
  std::vector<std::string> parts;
  std::string before;  // a norm's gain, or a matrix whose outputs are these inputs
};

class AwqLayer {
 public:
  AwqLayer(const LayerJob& job, LayerResult& result)
      : job_(job),
        result_(result),
        spec_(job.model.spec.decoder.layers[static_cast<size_t>(job.layer)]),
        options_{.group_size = job.options.group_size, .threads = job.options.threads} {}

  absl::Status Quantize() {
    RETURN_IF_ERROR(Observe());
    for (const std::string& name : MatrixNames(job_.model.spec, job_.layer)) {
      ASSIGN_OR_RETURN(const StoredTensor tensor, job_.model.checkpoint->Find(name));
      AwqMatrix& matrix = matrices_[name];
      matrix = {.name = name, .rows = tensor.shape[0], .weights = {}};
      ASSIGN_OR_RETURN(matrix.weights, ReadNumbers(*job_.model.checkpoint, name));
    }
    // All are searched before any is applied, as the reference does.
    std::vector<std::vector<float>> scales;
    for (const ScaledGroup& group : Groups()) scales.push_back(Search(group));
    for (size_t i = 0; i < scales.size(); ++i) RETURN_IF_ERROR(Apply(Groups()[i], scales[i]));
    for (auto& [name, matrix] : matrices_) {
      const bool scores = name == job_.Name("self.q") || name == job_.Name("self.k");
      // Attention scores suffer more from cut-off numbers than from coarse ones.
      if (!scores) ClipGroups(InputsOf(name), matrix, options_);
      result_.matrices.emplace(name, RoundAwq(matrix, options_));
      matrix.weights = {};
    }
    return absl::OkStatus();
  }

 private:
  std::vector<ScaledGroup> Groups() const {
    std::vector<ScaledGroup> groups = {{{"self.q", "self.k", "self.v"}, "attention_norm.gain"}};
    const AttentionSpec& attention = spec_.self_attention;
    // A value head that several query heads share cannot be scaled for each of them.
    if (attention.num_heads == attention.num_kv_heads) {
      groups.push_back({{"self.out"}, "self.v"});
    }
    if (spec_.feed_forward.gated) {
      groups.push_back({{"gate", "up"}, "feed_forward_norm.gain"});
      groups.push_back({{"down"}, "up"});
    } else {
      groups.push_back({{"up"}, "feed_forward_norm.gain"});
    }
    return groups;
  }

  // The part whose product is watched for the inputs of `name`.
  std::string Watched(const std::string& name) const {
    if (name == job_.Name("self.k") || name == job_.Name("self.v")) return job_.Name("self.q");
    if (name == job_.Name("gate")) return job_.Name("up");
    return name;
  }

  AwqInputs& InputsOf(const std::string& name) { return *inputs_.at(Watched(name)); }

  absl::Status Observe() {
    CalibrationState& calibration = *job_.calibration;
    const auto tokens = static_cast<int64_t>(calibration.samples.size()) *
                        static_cast<int64_t>(calibration.samples.front().size());
    const auto observe = [&](const std::string& name, const MatMulArgs& args) {
      if (!name.starts_with(job_.Name("")) || Watched(name) != name) return;
      auto& inputs = inputs_[name];
      if (!inputs) inputs = std::make_unique<AwqInputs>(args.x.columns);
      const int64_t kept = args.x.columns > kWide ? kKeptTokensWide : kKeptTokens;
      inputs->Add({.data = args.x.data,
                   .rows = args.x.rows,
                   .stride = args.x.stride,
                   .keep_every = std::max<int64_t>(1, tokens / kept)});
    };
    return RunLayer(calibration, {.layer = job_.layer,
                                  .checkpoint = *job_.model.checkpoint,
                                  .observer = observe,
                                  .output = LayerPass::Output::kKeep});
  }

  std::vector<float> Search(const ScaledGroup& group) {
    std::vector<const AwqMatrix*> matrices;
    for (const std::string& part : group.parts) {
      matrices.push_back(&matrices_.at(job_.Name(part)));
    }
    return SearchScales(InputsOf(matrices.front()->name), matrices, options_);
  }

  // Multiplies input columns by `scales`, divides what comes before by them.
  absl::Status Apply(const ScaledGroup& group, const std::vector<float>& scales) {
    for (const std::string& part : group.parts) {
      std::vector<float>& weights = matrices_.at(job_.Name(part)).weights;
      for (size_t i = 0; i < weights.size(); ++i) weights[i] *= scales[i % scales.size()];
    }
    InputsOf(job_.Name(group.parts.front())).Divide(scales);
    const std::string before = job_.Name(group.before);
    const auto matrix = matrices_.find(before);
    if (matrix != matrices_.end()) {
      std::vector<float>& weights = matrix->second.weights;
      const size_t columns = weights.size() / scales.size();
      for (size_t i = 0; i < weights.size(); ++i) weights[i] /= scales[i / columns];
      if (!job_.model.checkpoint->Find(before + ".bias").ok()) return absl::OkStatus();
      return DivideNumbers(before + ".bias", scales);
    }
    RETURN_IF_ERROR(DivideNumbers(before, scales));
    if (!spec_.norm.bias) return absl::OkStatus();
    const std::string norm = before.substr(0, before.rfind('.'));
    return DivideNumbers(norm + ".bias", scales);
  }

  absl::Status DivideNumbers(const std::string& name, const std::vector<float>& scales) {
    ASSIGN_OR_RETURN(std::vector<float> numbers, ReadNumbers(*job_.model.checkpoint, name));
    for (size_t i = 0; i < numbers.size(); ++i) numbers[i] /= scales[i];
    result_.numbers[name] = std::move(numbers);
    return absl::OkStatus();
  }

  const LayerJob& job_;
  LayerResult& result_;
  const LayerSpec& spec_;
  const AwqOptions options_;
  std::map<std::string, std::unique_ptr<AwqInputs>> inputs_;  // by watched matrix
  std::map<std::string, AwqMatrix> matrices_;
};

}  // namespace

absl::Status QuantizeLayerAwq(const LayerJob& job, LayerResult& result) {
  return AwqLayer(job, result).Quantize();
}

}  // namespace sauva
