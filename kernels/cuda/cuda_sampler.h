#pragma once

#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/sample.h"

namespace sauva::cuda {

// Draws the tokens of a step on the device, in buffers reserved once: what the rows ask for
// goes there, tokens and log-probabilities come back, the logits stay. The host does what
// needs the text: it counts the known tokens of rows with penalties while the device still
// computes the step.
// Thread: the step thread.
class CudaSampler {
 public:
  // Errors: RESOURCE_EXHAUSTED; INVALID_ARGUMENT for too large a vocabulary.
  absl::Status Reserve(Device& device, int max_sequences, int vocab_size);

  // As Backend::Sample. Waits for the device once; once more for each time that biases and
  // counts of the rows so far fill their buffer.
  void Sample(const RowsView& logits, std::span<const SampleRow> rows,
              std::span<SampleResult> results);

 private:
  // Writes what row `index` of a launch asks of `columns` logits; false when its facts do not
  // fit any more.
  bool Write(const SampleRow& row, int columns, int index);
  // Counts the tokens that the penalties are about; false when they do not fit.
  bool WriteCounts(const SampleRow& row, int columns);
  void Launch(const RowsView& logits, std::span<SampleResult> results);

  Device* device_ = nullptr;
  int vocab_size_ = 0;
  int64_t max_facts_ = 0;
  DeviceMemory controls_, facts_, drawn_;
  PinnedMemory host_controls_, host_facts_, host_drawn_;
  int64_t num_facts_ = 0;       // of the launch being written
  std::vector<int32_t> slots_;  // [vocab_size]: 1 + the fact of a token's count; 0 between rows
};

}  // namespace sauva::cuda
