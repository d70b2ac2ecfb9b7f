#include <deque>
#include <map>
#include <random>
#include <set>
#include <string>
#include <variant>

#include "absl/strings/str_cat.h"
#include "engine/scheduler.h"
#include "gtest/gtest.h"
#include "tests/engine/fake_stage.h"

namespace sauva {
namespace {

// One pipeline of fake stages that receives messages with random delays, a random
// workload, and an oracle. Every seed is one life of a scheduler.
class Life {
 public:
  explicit Life(uint64_t seed) : random_(seed) {
    limits_.num_kv_blocks = Pick(3, 40);
    limits_.num_kv_groups = Pick(1, 2);
    limits_.max_step_tokens = Pick(1, 4) == 1 ? Pick(1, 16) : Pick(16, 80);
    limits_.max_sequences = Pick(1, 12);
    limits_.max_waiting = Pick(4, 64);
    limits_.max_context = 160;
    limits_.max_steps_in_flight = Pick(1, 4);
    limits_.prefix_cache = Pick(0, 3) > 0;
    scheduler_ = std::make_unique<Scheduler>(limits_);
    for (int i = 0; i < limits_.max_steps_in_flight; ++i) {
      stages_.emplace_back(limits_.num_kv_blocks, limits_.num_kv_groups);
    }
    inboxes_.resize(stages_.size());
    num_to_add_ = Pick(1, 24);
    cancel_percent_ = Pick(0, 2) == 0 ? Pick(1, 10) : 0;
    for (int i = 0; i < 3; ++i) texts_.push_back(RandomTokens(Pick(1, 90)));
  }

  // Empty when all went well, else what went wrong.
  std::string Run() {
    for (int turn = 0; turn < 200000 && error_.empty(); ++turn) {
      if (num_to_add_ == 0 && open_.empty() && Idle()) return Finish();
      Turn();
      scheduler_->CheckInvariants();
      for (const FakeStage& stage : stages_) {
        if (!stage.error().empty()) error_ = stage.error();
      }
    }
    return error_.empty() ? "did not come to an end" : error_;
  }

  uint64_t num_preemptions() const { return scheduler_->num_preemptions(); }
  int num_cached() const { return num_cached_; }
  int num_cancelled() const { return num_cancelled_; }
  int num_refused() const { return num_refused_; }
  size_t most_in_flight() const { return most_in_flight_; }

 private:
  using Message = std::variant<OpenSequence, SequenceId, StepHeader>;
  struct Expected {
    std::vector<TokenId> tokens;  // as known so far
    std::vector<TokenId> end;     // as they must become
    std::vector<float> scores;
    bool scored = false;
  };

  int Pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }

  std::vector<TokenId> RandomTokens(int count) {
    std::vector<TokenId> tokens;
    for (int i = 0; i < count; ++i) tokens.push_back(Pick(0, 999));
    return tokens;
  }

  bool Idle() const {
    if (!steps_.empty() || !results_.empty()) return false;
    for (const auto& inbox : inboxes_) {
      if (!inbox.empty()) return false;
    }
    return true;
  }

  void Turn() {
    const int choice = Pick(0, 99);
    if (choice < cancel_percent_) return CancelOne();
    if (choice < 20 && num_to_add_ > 0) return AddOne();
    if (choice < 40) return Start();
    if (choice < 60 && !results_.empty()) return Return();
    const size_t stage = static_cast<size_t>(Pick(0, static_cast<int>(stages_.size()) - 1));
    if (!inboxes_[stage].empty()) return Deliver(stage);
  }

  void AddOne() {
    --num_to_add_;
    NewSequence sequence{.id = next_id_++};
    std::vector<TokenId> prompt = texts_[static_cast<size_t>(Pick(0, 2))];
    prompt.resize(static_cast<size_t>(Pick(1, static_cast<int>(prompt.size()))));
    if (Pick(0, 1) == 0) prompt = texts_[0];
    if (Pick(0, 1) == 0) {
      for (const TokenId token : RandomTokens(Pick(1, 20))) prompt.push_back(token);
    }
    sequence.sample_index = static_cast<uint32_t>(Pick(0, 1));
    sequence.sampling.seed = static_cast<uint64_t>(Pick(0, 1));
    sequence.prompt = prompt;
    Expected expected;
    if (Pick(0, 9) == 0) {
      sequence.want = StepWant::kScore;
      expected = {.tokens = prompt, .end = prompt, .scored = true};
    } else {
      const int count = Pick(1, 40);
      sequence.sampling.max_tokens = count;
      expected.end = OracleText(prompt, count, *sequence.sampling.seed, sequence.sample_index);
      const auto resumed = static_cast<long>(Pick(0, 3) == 0 ? Pick(0, count - 1) : 0);
      const auto first = expected.end.begin() + static_cast<long>(prompt.size());
      sequence.resumed = {first, first + resumed};
      expected.tokens = {expected.end.begin(), first + resumed};
    }
    const SequenceId id = sequence.id;
    if (!scheduler_->Add(std::move(sequence)).ok()) {
      ++num_refused_;
      return;
    }
    open_[id] = std::move(expected);
  }

  void CancelOne() {
    if (open_.empty()) return;
    auto it = std::next(open_.begin(), Pick(0, static_cast<int>(open_.size()) - 1));
    ++num_cancelled_;
    End(it->first);
  }

  void End(SequenceId id) {
    num_cached_ += scheduler_->num_cached_tokens(id);
    if (!scheduler_->Cancel(id)) error_ = absl::StrCat("sequence ", id, " was not known");
    inboxes_[0].push_back(id);
    open_.erase(id);
  }

  void Start() {
    std::optional<ScheduledStep> step = scheduler_->NextStep();
    if (!step) {
      if (steps_.empty() && !open_.empty()) error_ = "nothing to do, and nobody done";
      return;
    }
    CheckStep(*step);
    for (OpenSequence& open : step->opened) inboxes_[0].push_back(std::move(open));
    steps_.push_back(step->header);
    most_in_flight_ = std::max(most_in_flight_, steps_.size());
    inboxes_[0].push_back(std::move(step->header));
  }

  // A block some step in flight writes is neither written nor read by another step.
  void CheckStep(const ScheduledStep& step) {
    std::set<BlockId> written;
    for (const StepHeader& other : steps_) written.merge(Written(other));
    if (step.header.num_tokens() > limits_.max_step_tokens) error_ = "too many tokens";
    for (const OpenSequence& open : step.opened) tables_[open.id].clear();
    for (const SequenceStep& sequence : step.header.sequences) {
      if (sequence.blocks.empty()) continue;
      auto& table = tables_[sequence.id];
      for (const BlockId block : sequence.blocks[0].appended) {
        if (written.contains(block)) {
          error_ = absl::StrCat("block ", block, " is handed out while a step writes it");
        }
        table.push_back(block);
      }
    }
    for (const BlockId block : Written(step.header)) {
      int holders = 0;
      for (const SequenceStep& sequence : step.header.sequences) {
        const auto& table = tables_[sequence.id];
        holders += static_cast<int>(std::count(table.begin(), table.end(), block));
      }
      if (holders != 1) error_ = absl::StrCat("block ", block, " is written while shared");
    }
  }

  std::set<BlockId> Written(const StepHeader& header) {
    std::set<BlockId> blocks;
    for (const SequenceStep& sequence : header.sequences) {
      const int end = sequence.first_position + static_cast<int>(sequence.tokens.size());
      for (int i = sequence.first_position / 16; i * 16 < end; ++i) {
        blocks.insert(tables_[sequence.id].at(static_cast<size_t>(i)));
      }
    }
    return blocks;
  }

  void Deliver(size_t stage) {
    Message message = std::move(inboxes_[stage].front());
    inboxes_[stage].pop_front();
    StepResult result;
    if (const auto* open = std::get_if<OpenSequence>(&message)) stages_[stage].Open(*open);
    if (const auto* id = std::get_if<SequenceId>(&message)) stages_[stage].Close(*id);
    if (const auto* header = std::get_if<StepHeader>(&message)) {
      result = {.step_id = header->step_id, .sampled = stages_[stage].Run(*header)};
      if (stages_[stage].num_sequences() > static_cast<size_t>(limits_.max_sequences)) {
        error_ = "a stage must know more sequences than may run";
      }
    }
    if (stage + 1 < stages_.size()) {
      inboxes_[stage + 1].push_back(std::move(message));
    } else if (result.step_id != 0) {
      results_.push_back(std::move(result));
    }
  }

  void Return() {
    const StepResult result = std::move(results_.front());
    results_.pop_front();
    steps_.pop_front();
    const absl::Status status = scheduler_->FinishStep(result);
    if (!status.ok()) error_ = status.ToString();
    for (const SampledToken& sampled : result.sampled) {
      const auto it = open_.find(sampled.id);
      if (it == open_.end()) continue;
      Expected& expected = it->second;
      if (expected.scored) {
        for (const float score : sampled.scores) expected.scores.push_back(score);
        if (expected.scores.size() + 1 < expected.end.size()) continue;
        CheckScores(expected);
      } else {
        expected.tokens.push_back(sampled.token);
        if (expected.tokens.size() < expected.end.size()) continue;
      }
      if (expected.tokens != expected.end) error_ = "the tokens are not the oracle's";
      End(sampled.id);
    }
  }

  void CheckScores(const Expected& expected) {
    const std::vector<uint64_t> cells = OracleCells(expected.end);
    for (size_t i = 0; i < expected.scores.size(); ++i) {
      const std::vector<uint64_t> seen(cells.begin(), cells.begin() + static_cast<long>(i) + 1);
      if (expected.scores[i] != ScoreOf(seen, expected.end[i + 1])) error_ = "a wrong score";
    }
  }

  std::string Finish() {
    if (scheduler_->num_running() + scheduler_->num_waiting() > 0) return "sequences are left";
    if (scheduler_->num_free_blocks() != limits_.num_kv_blocks) return "blocks are lost";
    if (scheduler_->NextStep()) return "a step out of nothing";
    for (const FakeStage& stage : stages_) {
      if (stage.num_sequences() > 0) return "a stage still knows sequences";
    }
    return "";
  }

  std::mt19937_64 random_;
  SchedulerLimits limits_;
  std::unique_ptr<Scheduler> scheduler_;
  std::vector<FakeStage> stages_;
  std::vector<std::deque<Message>> inboxes_;  // per stage
  std::deque<StepHeader> steps_;              // in flight
  std::deque<StepResult> results_;            // on their way back
  std::map<SequenceId, std::vector<BlockId>> tables_;
  std::map<SequenceId, Expected> open_;
  std::vector<std::vector<TokenId>> texts_;
  SequenceId next_id_ = 1;
  int num_to_add_ = 0;
  int cancel_percent_ = 0;
  int num_cached_ = 0;
  int num_cancelled_ = 0;
  int num_refused_ = 0;
  size_t most_in_flight_ = 0;
  std::string error_;
};

TEST(SchedulerPropertyTest, EveryLifeEndsWithTheOraclesTokens) {
  uint64_t preemptions = 0;
  int cached = 0;
  int cancelled = 0;
  int refused = 0;
  size_t most_in_flight = 0;
  for (uint64_t seed = 1; seed <= 3000; ++seed) {
    Life life(seed);
    ASSERT_EQ(life.Run(), "") << "seed " << seed;
    preemptions += life.num_preemptions();
    cached += life.num_cached();
    cancelled += life.num_cancelled();
    refused += life.num_refused();
    most_in_flight = std::max(most_in_flight, life.most_in_flight());
  }
  // The lives are worth living only if they meet everything that can go wrong.
  EXPECT_GT(preemptions, 500u);
  EXPECT_GT(cached, 10000);
  EXPECT_GT(cancelled, 500);
  EXPECT_GT(refused, 50);
  EXPECT_EQ(most_in_flight, 4u);
  RecordProperty("preemptions", static_cast<int>(preemptions));
  RecordProperty("cached_tokens", cached);
  std::printf("preemptions %lu, cached tokens %d, cancelled %d, refused %d\n",
              static_cast<unsigned long>(preemptions), cached, cancelled, refused);
}

}  // namespace
}  // namespace sauva
