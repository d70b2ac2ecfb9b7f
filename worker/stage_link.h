#pragma once

#include "proto/stage.h"

namespace sauva {

// The way of hidden states from one stage to the next: gRPC streams here, NCCL where both
// stages live on GPUs. Steps arrive in the order in which they were sent.
// Thread: the worker's loop.
class StageLink {
 public:
  virtual ~StageLink() = default;

  // Begins to send a step. False when the link is broken or more waits than a pipeline can
  // have in flight; its owner hears of the end as of any stream's.
  virtual bool Send(const HiddenStates& states) = 0;

  // Ends the link in order, after what was sent.
  virtual void End() = 0;

  // Ends it at once.
  virtual void Cancel() = 0;
};

}  // namespace sauva
