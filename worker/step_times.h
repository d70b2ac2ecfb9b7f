#pragma once

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "proto/generation.h"
#include "proto/stage.h"

namespace sauva {

// What a head notes of a step in flight for the sequences in it that want to know.
struct StepTimes {
  struct Share {
    SequenceId sequence = 0;
    StepPhase::Kind kind = StepPhase::Kind::kPrefill;
    uint32_t tokens = 0;
  };
  absl::Time begin;
  std::vector<double> stage_seconds;  // per stage, 0 until it has answered
  std::vector<Share> shares;
};

// Adds one step to what a sequence has been through. It lengthens the last phase when that is
// of its kind; when there are kMaxStepPhases, the last one of its kind.
void AddStep(StepPhase step, std::vector<StepPhase>& phases);

}  // namespace sauva
