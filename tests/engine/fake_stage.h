#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "proto/stage.h"

namespace sauva {

// A model that is a memory. Computing a token stores a hash of the whole text up to it in
// the cell its block table points at; the next token is a hash of all cells read back
// through the table. So a lost, stale or wrongly shared block changes the answer.

uint64_t MixHash(uint64_t a, uint64_t b);

// The cells a text leaves, from the text alone.
std::vector<uint64_t> OracleCells(const std::vector<TokenId>& tokens);

// The token that follows a text whose cells are given.
TokenId NextToken(const std::vector<uint64_t>& cells, uint64_t seed, uint32_t sample_index);

// The log-probability a stage reports for `next` after a text with these cells.
float ScoreOf(const std::vector<uint64_t>& cells, TokenId next);

// What the text becomes when `count` tokens are generated.
std::vector<TokenId> OracleText(std::vector<TokenId> tokens, int count, uint64_t seed,
                                uint32_t sample_index);

// One stage of a pipeline of such models. Keeps the rules of a real stage: an open empties
// the tables, deltas are appended, positions have no gap except over shared blocks.
class FakeStage {
 public:
  FakeStage(int num_blocks, int num_kv_groups);

  void Open(const OpenSequence& sequence);
  void Close(SequenceId id) { sequences_.erase(id); }

  // Computes a step; the answers are those of a last stage. Sets error() when the header
  // contradicts what the stage knows or a cell is not what the text says.
  std::vector<SampledToken> Run(const StepHeader& header);

  const std::string& error() const { return error_; }
  size_t num_sequences() const { return sequences_.size(); }

 private:
  struct Sequence {
    OpenSequence open;
    std::vector<TokenId> tokens;
    std::vector<std::vector<BlockId>> tables;  // per KV group
    int num_computed = 0;
  };

  bool Fail(SequenceId id, const std::string& what);
  bool Accept(Sequence& sequence, const SequenceStep& step);
  uint64_t& Cell(const Sequence& sequence, size_t group, int position);
  bool RunSequence(Sequence& sequence, const SequenceStep& step,
                   std::vector<SampledToken>& answers);

  std::map<SequenceId, Sequence> sequences_;
  std::vector<std::vector<uint64_t>> cells_;  // per KV group: [num_blocks * kKvBlockTokens]
  std::string error_;
};

}  // namespace sauva
