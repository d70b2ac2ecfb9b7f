#include "model/tokenizers/byte_pair_merger.h"

#include <queue>
#include <tuple>

namespace sauva {
namespace {

constexpr int32_t kNone = -1;
constexpr int32_t kMerged = -1;  // the token of a symbol that its left neighbour took in

// A token in the doubly linked list of those that are left.
struct Symbol {
  int32_t token = 0;
  int32_t previous = kNone;
  int32_t next = kNone;
};

// A merge that was possible when it was queued.
struct Candidate {
  int32_t rank = 0;
  int32_t left = 0;  // index of its left symbol
  int32_t left_token = 0;
  int32_t right_token = 0;
  int32_t merged = 0;

  // The best on top of a priority_queue.
  bool operator<(const Candidate& other) const {
    return std::tie(other.rank, other.left) < std::tie(rank, left);
  }
};

}  // namespace

void BytePairMerger::Add(int32_t left, int32_t right, int32_t merged) {
  rules_[{left, right}] = {num_added_++, merged};
}

const BytePairMerger::Rule* BytePairMerger::Find(int32_t left, int32_t right) const {
  const auto found = rules_.find({left, right});
  return found == rules_.end() ? nullptr : &found->second;
}

std::vector<int32_t> BytePairMerger::Merge(const std::vector<int32_t>& tokens) const {
  const auto count = static_cast<int32_t>(tokens.size());
  std::vector<Symbol> symbols(tokens.size());
  std::priority_queue<Candidate> queue;
  const auto at = [&](int32_t index) -> Symbol& { return symbols[static_cast<size_t>(index)]; };
  const auto propose = [&](int32_t left) {
    if (left == kNone || at(left).next == kNone) return;
    const int32_t left_token = at(left).token;
    const int32_t right_token = at(at(left).next).token;
    const Rule* rule = Find(left_token, right_token);
    if (rule == nullptr) return;
    queue.push({rule->rank, left, left_token, right_token, rule->merged});
  };
  for (int32_t i = 0; i < count; ++i) {
    at(i) = {tokens[static_cast<size_t>(i)], i - 1, i + 1 < count ? i + 1 : kNone};
  }
  for (int32_t i = 0; i < count; ++i) propose(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = at(best.left);
    // Its symbols may have changed since it was queued; a new one was queued then.
    if (left.token != best.left_token || left.next == kNone) continue;
    Symbol& right = at(left.next);
    if (right.token != best.right_token) continue;
    left.token = best.merged;
    right.token = kMerged;
    left.next = right.next;
    if (left.next != kNone) at(left.next).previous = best.left;
    propose(left.previous);
    propose(best.left);
  }
  std::vector<int32_t> merged;
  for (int32_t i = count == 0 ? kNone : 0; i != kNone; i = at(i).next) {
    merged.push_back(at(i).token);
  }
  return merged;
}

}  // namespace sauva
