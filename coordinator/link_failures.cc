#include "coordinator/link_failures.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace sauva {

bool LinkFailures::Add(const std::string& a, const std::string& b, const std::string& reason,
                       absl::Time now) {
  const Pair key = Key(a, b);
  if (!pairs_.contains(key) && pairs_.size() >= limits_.max_pairs) DropOldest();
  Failure& failure = pairs_[key];
  const bool before = IsAvoided(failure, now);
  ++failure.count;
  failure.reason = reason;
  failure.last = now;
  return !before && IsAvoided(failure, now);
}

void LinkFailures::Forget(const std::string& worker_id) {
  std::erase_if(pairs_, [&](const auto& entry) {
    return entry.first.first == worker_id || entry.first.second == worker_id;
  });
}

std::optional<std::string> LinkFailures::Avoided(const std::string& a, const std::string& b,
                                                 absl::Time now) const {
  const auto found = pairs_.find(Key(a, b));
  if (found == pairs_.end() || !IsAvoided(found->second, now)) return std::nullopt;
  return absl::StrCat("NCCL could not connect them ", found->second.count,
                      " times in a row: ", found->second.reason);
}

std::vector<AvoidedLink> LinkFailures::List(absl::Time now) const {
  std::vector<AvoidedLink> list;
  for (const auto& [pair, failure] : pairs_) {
    if (!IsAvoided(failure, now)) continue;
    const absl::Duration wait = failure.last + limits_.retry_after - now;
    list.push_back({.worker_id = pair.first,
                    .other_worker_id = pair.second,
                    .failures = failure.count,
                    .reason = failure.reason,
                    .retry_ms = static_cast<uint32_t>(absl::ToInt64Milliseconds(wait))});
  }
  return list;
}

void LinkFailures::DropOldest() {
  pairs_.erase(
      std::ranges::min_element(pairs_, {}, [](const auto& entry) { return entry.second.last; }));
}

}  // namespace sauva
