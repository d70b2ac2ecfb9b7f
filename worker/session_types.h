#pragma once

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "proto/generation.h"

// Words that the three sessions of a worker share. A session is a state machine
// OnEvent(event, now) -> effects without I/O, clock or gRPC: the worker's loop runs it
// against the network, a simulator runs the same code against a model of one. Moments are
// those that the session is shown; they need not be of a calendar, only never go back.
namespace sauva {

// One Generate call, numbered by whoever runs the session; never used twice.
using StreamId = uint64_t;

// What sessions must know of the model whose layers they serve.
struct ModelFacts {
  int vocab_size = 0;
  int hidden_size = 0;
  int max_context = 0;    // tokens of one sequence, prompt and completion
  int num_kv_groups = 1;  // of the whole model, the same on every stage
  std::vector<TokenId> eos_tokens;
};

// Time has passed; sessions look at their deadlines.
struct WorkerTick {};

}  // namespace sauva
