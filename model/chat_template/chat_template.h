#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "model/tokenizer.h"

namespace sauva {

namespace chat {
struct Node;
}

struct ChatTurn {
  std::string role;
  std::string content;  // UTF-8
};

// How a model wants a conversation written as one text: a Jinja template, as Hugging Face
// checkpoints carry it, rendered exactly as transformers' apply_chat_template does.
// What templates may say: if, for, set, macro, generation, break and continue; the usual
// expressions; the filters, tests and methods that builtins.h names. A template cannot
// read files, run for long or grow without end. `tools` and `documents` are none, and
// strftime_now is not defined: a date would make the same request another one tomorrow.
// Thread: any.
class ChatTemplate {
 public:
  // special_tokens: the texts of bos_token, eos_token and the like.
  // Errors: INVALID_ARGUMENT naming line, column and what the template says that is not
  // understood.
  static absl::StatusOr<std::unique_ptr<const ChatTemplate>> Create(
      std::string source, std::vector<std::pair<std::string, std::string>> special_tokens);
  ~ChatTemplate();

  // The conversation, with the words that begin the assistant's answer after it.
  // Errors: INVALID_ARGUMENT with what the template itself refuses (raise_exception), or
  // with the place where it fails or grows beyond its limits.
  absl::StatusOr<std::string> Render(const std::vector<ChatTurn>& turns) const;

 private:
  ChatTemplate(std::string source, std::vector<std::pair<std::string, std::string>> special_tokens,
               std::unique_ptr<const chat::Node> root);

  const std::string source_;
  const std::vector<std::pair<std::string, std::string>> special_tokens_;
  const std::unique_ptr<const chat::Node> root_;
};

// Limits; templates are input.
inline constexpr size_t kMaxChatTemplateBytes = 256 << 10;

// The template of a model's files: chat_template.jinja, or chat_template of
// tokenizer_config.json (of several, the one named "default"). Null when there is none.
// Errors: INVALID_ARGUMENT naming the file and what is wrong in it.
absl::StatusOr<std::unique_ptr<const ChatTemplate>> MakeChatTemplate(const ModelFiles& files);

}  // namespace sauva
