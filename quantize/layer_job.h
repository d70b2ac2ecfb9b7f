#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/quantized_matrix.h"
#include "model/model.h"
#include "quantize/layer_pass.h"
#include "quantize/options.h"

namespace sauva {

// One layer to be quantized.
struct LayerJob {
  const Model& model;
  const QuantizeOptions& options;
  int layer = 0;
  CalibrationState* calibration = nullptr;  // null for methods that need none

  std::string Name(const std::string& part) const;  // canonical, of this layer
};

struct LayerResult {
  std::map<std::string, QuantizedMatrix> matrices;    // by canonical name
  std::map<std::string, std::vector<float>> numbers;  // tensors that changed otherwise
  std::vector<std::string> notes;                     // what a user should know
};

// The layer's matrices, and where calibration is used the samples moved on to the next one:
// through the quantized layer for gptq, through the layer as it was for awq and int8-static,
// as the reference packages do.
// Errors: INVALID_ARGUMENT naming tensor, row and column of a number that is not finite.
absl::StatusOr<LayerResult> QuantizeLayer(const LayerJob& job);

// Moves the samples through a layer that is done already; `matrices` were read back.
absl::Status PassDoneLayer(const LayerJob& job,
                           const std::map<std::string, QuantizedMatrix>& matrices);

// Canonical names of a layer's matrices.
std::vector<std::string> MatrixNames(const ModelSpec& spec, int layer);

// A tensor's numbers in f32, all finite. Errors: as QuantizeLayer.
absl::StatusOr<std::vector<float>> ReadNumbers(const Checkpoint& checkpoint,
                                               const std::string& name);

// By method; each fills result.matrices.
absl::Status QuantizeLayerAwq(const LayerJob& job, LayerResult& result);
absl::Status QuantizeLayerGptq(const LayerJob& job, LayerResult& result);
absl::Status QuantizeLayerInt8(const LayerJob& job, LayerResult& result);

}  // namespace sauva
