#pragma once

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/cluster.h"

namespace sauva {

// The ready pipeline a request goes to, or null when it has to wait: never one the stream
// already lost; one that is not doubtful or retiring before one that is; one of the
// preferred numerics before another (which require_numerics rules out); then the least
// loaded.
struct DispatchCandidate {
  PipelineRecord* pipeline = nullptr;
  bool doubtful = false;  // a stage's worker lost its stream to the coordinator just now
};
PipelineRecord* ChoosePipeline(const std::vector<DispatchCandidate>& candidates,
                               const DispatchRequest& request);

// Dispatches that no pipeline can take yet, in the order they came.
class WaitingList {
 public:
  struct Entry {
    Ticket ticket = 0;
    std::string model;  // resolved name
    DispatchRequest request;
    absl::Time deadline;
  };

  explicit WaitingList(int capacity) : capacity_(capacity) {}

  // False when the list is full.
  [[nodiscard]] bool Add(Entry entry);
  void Remove(Ticket ticket);
  std::vector<Entry> TakeExpired(absl::Time now);
  std::vector<Entry> TakeAll();

  // Removes, in order, the entries for which `serve` returns true.
  template <class Serve>
  void ServeWhere(Serve serve) {
    std::erase_if(entries_, serve);
  }

  int size() const { return static_cast<int>(entries_.size()); }
  int capacity() const { return capacity_; }

 private:
  const int capacity_;
  std::deque<Entry> entries_;
};

}  // namespace sauva
