#include "coordinator/dispatcher.h"

#include <algorithm>
#include <tuple>

namespace sauva {

PipelineRecord* ChoosePipeline(const std::vector<DispatchCandidate>& candidates,
                               const DispatchRequest& request) {
  const auto rank = [&](const DispatchCandidate& candidate) {
    const PipelineRecord& pipeline = *candidate.pipeline;
    const bool other_numerics =
        !request.numerics_id.empty() && pipeline.assignment.numerics_id != request.numerics_id;
    return std::tuple(other_numerics, candidate.doubtful || pipeline.retiring, pipeline.Load(),
                      pipeline.epoch());
  };
  PipelineRecord* chosen = nullptr;
  std::optional<decltype(rank({}))> best;
  for (const DispatchCandidate& candidate : candidates) {
    const PipelineRecord& pipeline = *candidate.pipeline;
    if (!pipeline.ready()) continue;
    if (std::ranges::count(request.broken_epochs, pipeline.epoch()) > 0) continue;
    const auto candidate_rank = rank(candidate);
    if (request.require_numerics && std::get<0>(candidate_rank)) continue;
    if (best && *best <= candidate_rank) continue;
    best = candidate_rank;
    chosen = candidate.pipeline;
  }
  return chosen;
}

bool WaitingList::Add(Entry entry) {
  if (size() >= capacity_) return false;
  entries_.push_back(std::move(entry));
  return true;
}

void WaitingList::Remove(Ticket ticket) {
  std::erase_if(entries_, [&](const Entry& entry) { return entry.ticket == ticket; });
}

std::vector<WaitingList::Entry> WaitingList::TakeExpired(absl::Time now) {
  std::vector<Entry> expired;
  std::erase_if(entries_, [&](const Entry& entry) {
    if (entry.deadline > now) return false;
    expired.push_back(entry);
    return true;
  });
  return expired;
}

std::vector<WaitingList::Entry> WaitingList::TakeAll() {
  std::vector<Entry> all(entries_.begin(), entries_.end());
  entries_.clear();
  return all;
}

}  // namespace sauva
