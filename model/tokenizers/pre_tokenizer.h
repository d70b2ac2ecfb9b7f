#pragma once

#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/tokenizers/regex.h"

namespace sauva {

// The "pre_tokenizer" of a byte-level tokenizer.json: cuts text into the pieces that are
// merged each by itself. Reads ByteLevel, Split, Digits and Sequence.
// Thread: const methods are safe from any thread.
// Source: github.com/huggingface/tokenizers, src/pre_tokenizers.
class PreTokenizer {
 public:
  // Errors: INVALID_ARGUMENT naming what is not supported, or that ByteLevel is missing.
  static absl::StatusOr<PreTokenizer> Create(const nlohmann::json& section);

  // A space is put in front of a text that does not begin with one, before it is cut.
  bool adds_prefix_space() const { return adds_prefix_space_; }

  // Cuts `text`, which must be valid UTF-8, into views of it; none is empty.
  // Errors: RESOURCE_EXHAUSTED when a pattern backtracks without end.
  absl::StatusOr<std::vector<std::string_view>> Split(std::string_view text) const;

 private:
  // What becomes of the matches of a pattern, which stand between the other pieces.
  enum class Behavior {
    kIsolated,            // each is a piece
    kRemoved,             // they are dropped
    kMergedWithPrevious,  // each ends the piece before it
    kMergedWithNext,      // each begins the piece after it
    kContiguous,          // neighbouring ones are one piece
  };
  struct Step {
    Regex regex;
    Behavior behavior = Behavior::kIsolated;
    bool inverted = false;  // what the pattern does not match counts as its matches
  };
  struct Part {
    std::string_view text;
    bool is_match = false;
  };

  absl::Status AddSection(const nlohmann::json& section, int depth);
  absl::Status AddByteLevel(const nlohmann::json& section);
  absl::Status AddSplit(const nlohmann::json& section);
  absl::Status AddDigits(const nlohmann::json& section);
  static absl::StatusOr<Behavior> ReadBehavior(const nlohmann::json& section);
  static absl::StatusOr<std::vector<Part>> Cut(const Step& step, std::string_view text,
                                               RegexSearch& search);
  static void Join(Behavior behavior, const std::vector<Part>& parts,
                   std::vector<std::string_view>& pieces);

  std::vector<Step> steps_;
  bool has_byte_level_ = false;
  bool adds_prefix_space_ = false;
};

}  // namespace sauva
