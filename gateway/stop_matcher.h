#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace sauva {

// Watches a growing text for stop strings and holds back what could be the beginning of
// one. A match is the stop string that is complete first; of several that end at the same
// byte, the longest. So the outcome depends on the text alone, not on how it arrives.
// Cost: amortised one comparison per byte and stop string.
// Source: Knuth, Morris, Pratt 1977.
class StopMatcher {
 public:
  // `stops` hold at least one byte each.
  explicit StopMatcher(const std::vector<std::string>& stops);

  // Takes the next part of the text and returns what may be shown now: nothing that could
  // still belong to a stop string, and nothing from the first match on.
  std::string Push(std::string_view text);

  // Returns what is still held back, when the text has ended without a match.
  std::string Flush();

  bool matched() const { return matched_; }

 private:
  struct Pattern {
    std::string text;
    std::vector<size_t> border;  // [length]; longest proper prefix that is also a suffix
    size_t num_matched = 0;      // bytes of `text` that the seen text ends with
  };
  static void Advance(Pattern& pattern, char c);

  std::vector<Pattern> patterns_;
  std::string held_;
  bool matched_ = false;
};

}  // namespace sauva
