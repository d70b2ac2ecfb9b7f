#pragma once

#include <vector>

#include "engine/scratch.h"
#include "engine/stage_sequences.h"
#include "engine/stage_weights.h"
#include "engine/step_arrays.h"
#include "kernels/backend.h"
#include "proto/stage.h"

namespace sauva {

// The last stage's end of a step: final norm, head and what was wanted of each sequence.
// Thread: the step thread.
class Answers {
 public:
  Answers(Backend& backend, const NormSpec& final_norm, const StageWeights& weights,
          const Scratch& scratch);

  // Answers a step whose residual stream is x [tokens, hidden]: one entry of `sampled` per
  // sequence that wanted something, in the header's order. Sampling alone allocates
  // nothing once `sampled` has held as many entries.
  void Compute(const StepHeader& header, const StepArrays& arrays, const StageSequences& sequences,
               Rows x, std::vector<SampledToken>& sampled);

 private:
  void Sample(const StepHeader& header, const StageSequences& sequences);
  void Score(const SequenceStep& step, const StageSequence& sequence, Rows x,
             std::vector<float>& scores);
  Rows Logits(Rows selected);

  Backend& backend_;
  const NormSpec& final_norm_;
  const StageWeights& weights_;
  const Scratch& scratch_;
  std::vector<SampleRow> rows_;
  std::vector<SampleResult> results_;
  std::vector<float> logits_;  // [vocab]; scoring only
};

}  // namespace sauva
