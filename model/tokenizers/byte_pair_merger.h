#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace sauva {

// Byte-pair merges over token ids: of the pairs of neighbours that have a merge, the one
// of lowest rank is merged first, and of equal ones the leftmost, until none is left.
// Thread: const methods are safe from any thread.
// Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword
// Units", section 3.2.
class BytePairMerger {
 public:
  // `left` and `right` side by side become `merged`. A later rule for a pair replaces an
  // earlier one.
  void Add(int32_t left, int32_t right, int32_t merged);

  // Merges what can be merged. Takes n log n time for n tokens.
  std::vector<int32_t> Merge(const std::vector<int32_t>& tokens) const;

 private:
  struct Rule {
    int32_t rank = 0;
    int32_t merged = 0;
  };
  const Rule* Find(int32_t left, int32_t right) const;

  absl::flat_hash_map<std::pair<int32_t, int32_t>, Rule> rules_;
  int32_t num_added_ = 0;
};

}  // namespace sauva
