#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/model.h"
#include "proto/generation.h"
#include "quantize/calibration_record.h"
#include "quantize/options.h"

namespace sauva {

// What methods calibrate on.
struct Calibration {
  std::vector<std::vector<TokenId>> samples;
  CalibrationRecord record;  // of their texts
};

// Token ids of each sample, all of options.sample_tokens, spread evenly over the text. A
// file that ends in .jsonl holds an object with "text" per line; any other is a text whose
// paragraphs are parted by empty lines. A sample begins with the model's BOS where it has
// one.
// Errors: NOT_FOUND for the file; INVALID_ARGUMENT for a line that is no such object, and
// for too few tokens, with the number found and the number needed.
absl::StatusOr<Calibration> ReadCalibration(const Model& model, const QuantizeOptions& options);

}  // namespace sauva
