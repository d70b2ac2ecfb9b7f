#include "worker/step_times.h"

#include <algorithm>
#include <utility>

namespace sauva {

void AddStep(StepPhase step, std::vector<StepPhase>& phases) {
  if (phases.empty() || (phases.back().kind != step.kind && phases.size() < kMaxStepPhases)) {
    phases.push_back(std::move(step));
    return;
  }
  const auto last = std::find_if(phases.rbegin(), phases.rend(),
                                 [&](const StepPhase& phase) { return phase.kind == step.kind; });
  last->end_seconds = step.end_seconds;
  last->steps += step.steps;
  last->tokens += step.tokens;
  for (size_t i = 0; i < last->stage_seconds.size(); ++i) {
    last->stage_seconds[i] += step.stage_seconds[i];
  }
}

}  // namespace sauva
