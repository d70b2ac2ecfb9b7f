#include "gateway/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace sauva {
namespace {

std::vector<size_t> Borders(const std::string& text) {
  std::vector<size_t> border(text.size(), 0);
  for (size_t i = 1, k = 0; i < text.size(); ++i) {
    while (k > 0 && text[i] != text[k]) k = border[k - 1];
    if (text[i] == text[k]) ++k;
    border[i] = k;
  }
  return border;
}

}  // namespace

StopMatcher::StopMatcher(const std::vector<std::string>& stops) {
  patterns_.reserve(stops.size());
  for (const std::string& stop : stops) {
    Check(!stop.empty(), "a stop string holds at least one byte");
    patterns_.push_back({.text = stop, .border = Borders(stop)});
  }
}

void StopMatcher::Advance(Pattern& pattern, char c) {
  size_t& k = pattern.num_matched;
  while (k > 0 && pattern.text[k] != c) k = pattern.border[k - 1];
  if (pattern.text[k] == c) ++k;
}

std::string StopMatcher::Push(std::string_view text) {
  if (matched_) return {};
  size_t num_held = 0;
  for (const char c : text) {
    held_.push_back(c);
    num_held = 0;
    size_t match_length = 0;
    for (Pattern& pattern : patterns_) {
      Advance(pattern, c);
      num_held = std::max(num_held, pattern.num_matched);
      if (pattern.num_matched == pattern.text.size()) {
        match_length = std::max(match_length, pattern.num_matched);
      }
    }
    if (match_length > 0) {
      matched_ = true;
      std::string shown = std::exchange(held_, {});
      shown.resize(shown.size() - match_length);
      return shown;
    }
  }
  if (text.empty()) return {};
  std::string shown = held_.substr(0, held_.size() - num_held);
  held_.erase(0, shown.size());
  return shown;
}

std::string StopMatcher::Flush() { return std::exchange(held_, {}); }

}  // namespace sauva
