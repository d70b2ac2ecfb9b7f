#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "proto/control.h"

namespace sauva {

struct LinkFailureLimits {
  int tolerated = 2;                               // in a row, before NCCL is not tried any more
  absl::Duration retry_after = absl::Minutes(10);  // then it is, at the next placement
  size_t max_pairs = 1024;                         // remembered; beyond, the oldest is forgotten
};

// Which pairs of workers NCCL could not connect: both have it, and something between them is in
// the way. A pair is forgotten when NCCL moved a step between them, or when one of the two is
// gone: another process may have better luck.
//
// Thread: its owner's. Pure: no clock.
class LinkFailures {
 public:
  explicit LinkFailures(const LinkFailureLimits& limits) : limits_(limits) {}

  // True when the pair is avoided from now on and was not before.
  bool Add(const std::string& a, const std::string& b, const std::string& reason, absl::Time now);
  void Worked(const std::string& a, const std::string& b) { pairs_.erase(Key(a, b)); }
  void Forget(const std::string& worker_id);

  // Why NCCL is not to be tried between the two; nothing where it is.
  std::optional<std::string> Avoided(const std::string& a, const std::string& b,
                                     absl::Time now) const;
  // The pairs that are avoided now, by name.
  std::vector<AvoidedLink> List(absl::Time now) const;
  size_t size() const { return pairs_.size(); }

 private:
  using Pair = std::pair<std::string, std::string>;
  struct Failure {
    int count = 0;  // in a row
    std::string reason;
    absl::Time last;
  };

  static Pair Key(const std::string& a, const std::string& b) {
    return a < b ? Pair(a, b) : Pair(b, a);
  }
  bool IsAvoided(const Failure& failure, absl::Time now) const {
    return failure.count >= limits_.tolerated && now < failure.last + limits_.retry_after;
  }
  void DropOldest();

  const LinkFailureLimits limits_;
  std::map<Pair, Failure> pairs_;
};

}  // namespace sauva
