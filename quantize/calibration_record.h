#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace sauva {

// What a checkpoint keeps of its calibration text, in calibration.json beside the weights: hashes
// of windows of it, by which an evaluation notices that it measures on the same text. White space
// counts for nothing, so that neither line breaks nor the edges of samples matter.
class CalibrationRecord {
 public:
  static constexpr int64_t kWindowBytes = 48;   // ten words or so
  static constexpr int64_t kMaxWindows = 1024;  // of all samples together, evenly spread

  // Of the texts of the samples. What they share with another text is found if it is longer than
  // a window and the distance between two; samples shorter than a window leave none.
  static CalibrationRecord Of(const std::vector<std::string>& samples);

  // Of a model's directory; nothing where it has none, as after a method without calibration.
  // Errors: INVALID_ARGUMENT naming the file and what is wrong in it.
  static absl::StatusOr<std::optional<CalibrationRecord>> Read(const std::string& directory);

  static constexpr char kFileName[] = "calibration.json";
  std::string Json() const;

  int64_t num_windows() const { return static_cast<int64_t>(windows_.size()); }
  // How many of the windows are in a text, wherever they begin.
  int64_t CountIn(std::string_view text) const;

 private:
  std::vector<uint64_t> windows_;  // distinct, rising
};

}  // namespace sauva
