#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/model.h"
#include "model/quantized/layout.h"
#include "quantize/calibration_record.h"
#include "quantize/layer_job.h"
#include "quantize/options.h"
#include "quantize/source_tensors.h"

namespace sauva {

// Errors: RESOURCE_EXHAUSTED naming the directory, the bytes needed and those free, when its
// file system has less room; NOT_FOUND when it cannot be asked.
absl::Status CheckRoom(const std::string& directory, int64_t needed_bytes);

// What a directory is made from; all outlives it.
struct OutputJob {
  const QuantizeOptions& options;
  const Model& model;
  const SourceTensors& source;
  const CalibrationRecord* calibration = nullptr;  // null for methods that need none
};

// The directory that is being made: OUT.partial until it is whole.
class QuantizedOutput {
 public:
  // Takes up an earlier run of the same job, or begins.
  // Errors: ALREADY_EXISTS, FAILED_PRECONDITION and RESOURCE_EXHAUSTED as QuantizeModel.
  static absl::StatusOr<QuantizedOutput> Begin(const OutputJob& job);

  // The matrices of a layer whose file is there; nothing when it is not.
  absl::StatusOr<std::optional<std::map<std::string, QuantizedMatrix>>> ReadLayer(int layer) const;
  // Writes a layer, reads it back and compares every number.
  // Errors: DATA_LOSS naming the tensor that came back otherwise.
  absl::Status WriteLayer(int layer, const LayerResult& result) const;
  // Everything else, then checks the whole as a model and gives it its name.
  absl::Status Finish() const;

  const std::string& partial() const { return partial_; }

 private:
  explicit QuantizedOutput(const OutputJob& job)
      : options_(job.options),
        model_(job.model),
        source_(job.source),
        calibration_(job.calibration),
        partial_(job.options.out + ".partial") {}

  std::string ShardName(int shard) const;
  std::string ShardPath(int shard) const { return partial_ + "/" + ShardName(shard); }
  absl::Status WriteIndex() const;
  absl::Status CopyFiles() const;

  const QuantizeOptions& options_;
  const Model& model_;
  const SourceTensors& source_;
  const CalibrationRecord* const calibration_;
  const std::string partial_;
  nlohmann::json config_;  // quantization_config
  std::unique_ptr<QuantizedLayout> layout_;
};

}  // namespace sauva
