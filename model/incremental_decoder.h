#pragma once

#include <cstdint>
#include <string>

#include "model/tokenizer.h"

namespace sauva {

// Turns a stream of tokens into text that never splits a character: what it returns is
// always valid UTF-8, and all pieces together are the text of all tokens. Bytes that can
// no longer become a character are given out as U+FFFD at once; at most 3 bytes of an
// unfinished one are held back.
// Thread: one at a time. The tokenizer must outlive it.
class IncrementalDecoder {
 public:
  // Whether the first token begins a text (an empty prompt) or goes on with one: some
  // decoders drop a space at a text's start.
  enum class Start { kText, kContinuation };
  IncrementalDecoder(const Tokenizer& tokenizer, Start start)
      : tokenizer_(tokenizer),
        drops_space_(start == Start::kText && tokenizer.DropsLeadingSpace()) {}

  // The text that `token` completes; may be empty.
  std::string Push(int32_t token);

  // After the last token: what is held back, as U+FFFD.
  std::string Flush();

 private:
  const Tokenizer& tokenizer_;
  bool drops_space_;
  std::string held_;
};

}  // namespace sauva
