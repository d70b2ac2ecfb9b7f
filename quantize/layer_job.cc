#include "quantize/layer_job.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/round_to_nearest.h"
#include "kernels/weight_source.h"
#include "model/expected_tensors.h"
#include "model/tensor_names.h"
#include "quantize/packing.h"

namespace sauva {
namespace {

constexpr int64_t kNf4Group = 64;

absl::Status QuantizeLayerNf4(const LayerJob& job, LayerResult& result) {
  for (const std::string& name : MatrixNames(job.model.spec, job.layer)) {
    ASSIGN_OR_RETURN(const StoredTensor tensor, job.model.checkpoint->Find(name));
    ASSIGN_OR_RETURN(result.matrices[name], RoundToNf4({.name = name,
                                                        .dtype = tensor.dtype,
                                                        .rows = tensor.shape[0],
                                                        .columns = tensor.shape[1],
                                                        .bytes = tensor.bytes},
                                                       kNf4Group));
  }
  return absl::OkStatus();
}

}  // namespace

std::string LayerJob::Name(const std::string& part) const {
  return tensor_names::Layer(layer, part);
}

std::vector<std::string> MatrixNames(const ModelSpec& spec, int layer) {
  const std::string prefix = tensor_names::Layer(layer, "");
  std::vector<std::string> names;
  for (const ExpectedTensor& tensor : ExpectedTensors(spec)) {
    if (tensor.shape.size() == 2 && tensor.name.starts_with(prefix)) names.push_back(tensor.name);
  }
  return names;
}

absl::StatusOr<std::vector<float>> ReadNumbers(const Checkpoint& checkpoint,
                                               const std::string& name) {
  ASSIGN_OR_RETURN(const StoredTensor tensor, checkpoint.Find(name));
  const bool vector = tensor.shape.size() == 1;
  const WeightSource source = {.name = name,
                               .dtype = tensor.dtype,
                               .rows = vector ? 1 : tensor.shape[0],
                               .columns = vector ? tensor.shape[0] : tensor.shape[1],
                               .bytes = tensor.bytes};
  RETURN_IF_ERROR(ValidateWeightSource(source));
  std::vector<float> numbers(static_cast<size_t>(source.rows * source.columns));
  for (int64_t row = 0; row < source.rows; ++row) {
    const auto columns = static_cast<size_t>(source.columns);
    const auto values = std::span(numbers).subspan(static_cast<size_t>(row) * columns, columns);
    ReadRow(source, row, values);
    for (size_t i = 0; i < columns; ++i) {
      if (std::isfinite(values[i])) continue;
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name, ": row ", row, ", column ", i,
                                                     " is not finite and cannot be quantized"));
    }
  }
  return numbers;
}

absl::StatusOr<LayerResult> QuantizeLayer(const LayerJob& job) {
  LayerResult result;
  switch (job.options.method) {
    case Method::kNf4:
      RETURN_IF_ERROR(QuantizeLayerNf4(job, result));
      return result;
    case Method::kInt8:
    case Method::kInt8Static:
    case Method::kLlmInt8:
      RETURN_IF_ERROR(QuantizeLayerInt8(job, result));
      return result;
    case Method::kAwq:
      RETURN_IF_ERROR(QuantizeLayerAwq(job, result));
      return result;
    case Method::kGptq:
      RETURN_IF_ERROR(QuantizeLayerGptq(job, result));
      return result;
  }
  return result;
}

absl::Status PassDoneLayer(const LayerJob& job,
                           const std::map<std::string, QuantizedMatrix>& matrices) {
  if (job.calibration == nullptr || job.layer + 1 == job.model.spec.num_layers()) {
    return absl::OkStatus();
  }
  OverlaidCheckpoint overlaid(*job.model.checkpoint);
  if (job.options.method == Method::kGptq) {
    for (const auto& [name, matrix] : matrices) overlaid.Overlay(name, &matrix);
  }
  return RunLayer(*job.calibration, {.layer = job.layer,
                                     .checkpoint = overlaid,
                                     .observer = {},
                                     .output = LayerPass::Output::kKeep});
}

}  // namespace sauva
