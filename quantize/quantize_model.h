#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "quantize/options.h"

namespace sauva {

// What a layer cost, for a line of progress.
struct LayerDone {
  int layer = 0;
  int num_layers = 0;
  bool resumed = false;  // it was found done
  double seconds = 0;
  double seconds_left = 0;  // at the pace so far
  std::string note;         // empty, or what a user should know of the layer
};

// Compresses a model's linear layers and writes a directory that others load as it is. One
// layer is in memory at a time. Everything is written to OUT.partial, each layer's file
// whole or not at all, read back and compared; the directory is renamed at the end. A run
// that was killed goes on where it stopped when it is asked for the same again.
// Errors: INVALID_ARGUMENT for options, for an input that is quantized already or has
// numbers that are not finite, and for layers that groups do not divide; ALREADY_EXISTS for
// OUT; FAILED_PRECONDITION when OUT.partial belongs to another job; RESOURCE_EXHAUSTED when
// the disk is full.
absl::Status QuantizeModel(const QuantizeOptions& options,
                           const std::function<void(const LayerDone&)>& progress);

}  // namespace sauva
