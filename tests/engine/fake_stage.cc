#include "tests/engine/fake_stage.h"

#include "absl/strings/str_cat.h"

namespace sauva {

uint64_t MixHash(uint64_t a, uint64_t b) {
  uint64_t x = a * 0x9e3779b97f4a7c15u + b + 0x2545f4914f6cdd1du;
  x ^= x >> 29;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 32;
  return x;
}

std::vector<uint64_t> OracleCells(const std::vector<TokenId>& tokens) {
  std::vector<uint64_t> cells;
  uint64_t text = 1;
  for (const TokenId token : tokens) {
    text = MixHash(text, static_cast<uint64_t>(token));
    cells.push_back(text);
  }
  return cells;
}

TokenId NextToken(const std::vector<uint64_t>& cells, uint64_t seed, uint32_t sample_index) {
  uint64_t hash = MixHash(seed, sample_index);
  for (const uint64_t cell : cells) hash = MixHash(hash, cell);
  return static_cast<TokenId>(hash % 1000);
}

float ScoreOf(const std::vector<uint64_t>& cells, TokenId next) {
  uint64_t hash = static_cast<uint64_t>(next);
  for (const uint64_t cell : cells) hash = MixHash(hash, cell);
  return -static_cast<float>(hash % 4096) / 256;
}

std::vector<TokenId> OracleText(std::vector<TokenId> tokens, int count, uint64_t seed,
                                uint32_t sample_index) {
  for (int i = 0; i < count; ++i) {
    tokens.push_back(NextToken(OracleCells(tokens), seed, sample_index));
  }
  return tokens;
}

FakeStage::FakeStage(int num_blocks, int num_kv_groups)
    : cells_(static_cast<size_t>(num_kv_groups),
             std::vector<uint64_t>(static_cast<size_t>(num_blocks) * kKvBlockTokens)) {}

void FakeStage::Open(const OpenSequence& sequence) {
  Sequence state{.open = sequence, .tokens = sequence.tokens};
  state.tables.resize(cells_.size());
  sequences_[sequence.id] = std::move(state);
}

bool FakeStage::Fail(SequenceId id, const std::string& what) {
  if (error_.empty()) error_ = absl::StrCat("sequence ", id, ": ", what);
  return false;
}

bool FakeStage::Accept(Sequence& sequence, const SequenceStep& step) {
  for (const BlockDelta& delta : step.blocks) {
    auto& table = sequence.tables.at(delta.kv_group);
    table.insert(table.end(), delta.appended.begin(), delta.appended.end());
  }
  const int end = step.first_position + static_cast<int>(step.tokens.size());
  for (const auto& table : sequence.tables) {
    if (static_cast<int>(table.size()) != (end + kKvBlockTokens - 1) / kKvBlockTokens) {
      return Fail(step.id, absl::StrCat(table.size(), " blocks for ", end, " tokens"));
    }
  }
  const bool jumped = step.first_position != sequence.num_computed;
  if (step.tokens.empty() || step.first_position < sequence.num_computed ||
      (jumped && step.first_position % kKvBlockTokens != 0)) {
    return Fail(step.id,
                absl::StrCat("position ", step.first_position, " after ", sequence.num_computed));
  }
  for (size_t i = 0; i < step.tokens.size(); ++i) {
    const size_t position = static_cast<size_t>(step.first_position) + i;
    if (position > sequence.tokens.size()) return Fail(step.id, "a gap in the tokens");
    if (position == sequence.tokens.size()) sequence.tokens.push_back(step.tokens[i]);
    if (sequence.tokens[position] != step.tokens[i]) return Fail(step.id, "another token");
  }
  sequence.num_computed = end;
  return true;
}

uint64_t& FakeStage::Cell(const Sequence& sequence, size_t group, int position) {
  const BlockId block = sequence.tables[group][static_cast<size_t>(position / kKvBlockTokens)];
  return cells_[group].at(static_cast<size_t>(block * kKvBlockTokens + position % kKvBlockTokens));
}

bool FakeStage::RunSequence(Sequence& sequence, const SequenceStep& step,
                            std::vector<SampledToken>& answers) {
  const int end = sequence.num_computed;
  for (size_t group = 0; group < cells_.size(); ++group) {
    for (int position = step.first_position; position < end; ++position) {
      const uint64_t before = position == 0 ? 1 : Cell(sequence, group, position - 1);
      const TokenId token = sequence.tokens[static_cast<size_t>(position)];
      Cell(sequence, group, position) = MixHash(before, static_cast<uint64_t>(token));
    }
  }
  SampledToken answer{.id = step.id};
  std::vector<uint64_t> cells;
  const std::vector<uint64_t> oracle = OracleCells(sequence.tokens);
  for (int position = 0; position < end; ++position) {
    cells.push_back(Cell(sequence, 0, position));
    for (size_t group = 0; group < cells_.size(); ++group) {
      if (Cell(sequence, group, position) != oracle[static_cast<size_t>(position)]) {
        return Fail(step.id, absl::StrCat("the cell of position ", position, " in KV group ", group,
                                          " holds another text"));
      }
    }
    const size_t next = static_cast<size_t>(position) + 1;
    if (step.want == StepWant::kScore && position >= step.first_position &&
        next < sequence.tokens.size()) {
      answer.scores.push_back(ScoreOf(cells, sequence.tokens[next]));
    }
  }
  if (step.want == StepWant::kSample) {
    if (static_cast<size_t>(end) != sequence.tokens.size()) return Fail(step.id, "sampled early");
    answer.token = NextToken(cells, sequence.open.seed, sequence.open.sample_index);
  }
  if (step.want != StepWant::kNone) answers.push_back(std::move(answer));
  return true;
}

std::vector<SampledToken> FakeStage::Run(const StepHeader& header) {
  std::vector<SampledToken> answers;
  for (const SequenceStep& step : header.sequences) {
    const auto it = sequences_.find(step.id);
    if (it == sequences_.end()) {
      Fail(step.id, "was never opened");
      break;
    }
    if (!Accept(it->second, step) || !RunSequence(it->second, step, answers)) break;
  }
  return answers;
}

}  // namespace sauva
