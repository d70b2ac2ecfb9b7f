#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace sauva {

// A loaded tokenizer.model: libsentencepiece behind an interface of our own. Its header
// declares an absl::string_view that is not Abseil's, so neither this file nor its .cc
// may include Abseil.
// Thread: const methods are safe from any thread.
class PieceModel {
 public:
  enum class Kind { kText, kByte, kControl, kUnknown, kUnused };

  // Whether a text is treated as the file says, or never gets a space in front.
  enum class Front { kAsTheFileSays, kNothing };

  // Nothing if `serialized` is not a model; `error` then says why.
  static std::unique_ptr<PieceModel> Load(const std::string& serialized, Front front,
                                          std::string& error);
  ~PieceModel();

  std::vector<int32_t> Encode(std::string_view text) const;

  int size() const;    // pieces
  int bos_id() const;  // -1: none
  int eos_id() const;  // -1: none
  // `id` must be below size().
  Kind kind(int id) const;
  const std::string& text(int id) const;  // U+2581 stands for a space, <0xNN> for a byte

 private:
  explicit PieceModel(std::unique_ptr<sentencepiece::SentencePieceProcessor> processor);

  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
};

}  // namespace sauva
