#include "model/chat_template/chat_template.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/status_macros.h"
#include "model/chat_template/renderer.h"
#include "model/chat_template/syntax.h"
#include "model/json.h"
#include "model/utf8.h"

namespace sauva {
namespace {

using nlohmann::json;

constexpr const char* kConfigFile = "tokenizer_config.json";
constexpr const char* kTemplateFile = "chat_template.jinja";

absl::Status Bad(const std::string& file, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", what));
}

// The special tokens that templates may name: text, or an object with the text in it.
std::vector<std::pair<std::string, std::string>> SpecialTokens(const json& config) {
  std::vector<std::pair<std::string, std::string>> tokens;
  for (const char* name : {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token",
                           "cls_token", "mask_token"}) {
    const auto found = config.find(name);
    if (found == config.end()) continue;
    if (found->is_string()) tokens.emplace_back(name, found->get<std::string>());
    if (found->is_object() && found->contains("content") && found->at("content").is_string()) {
      tokens.emplace_back(name, found->at("content").get<std::string>());
    }
  }
  return tokens;
}

// The template that tokenizer_config.json holds; empty when it holds none.
absl::StatusOr<std::string> TemplateIn(const json& config) {
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return "";
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_array()) return Bad(kConfigFile, "chat_template is neither text nor a list");
  for (const json& entry : *found) {
    if (entry.is_object() && entry.value("name", json()) == "default" &&
        entry.value("template", json()).is_string()) {
      return entry.at("template").get<std::string>();
    }
  }
  return Bad(kConfigFile, "chat_template has no template named 'default'");
}

}  // namespace

ChatTemplate::ChatTemplate(std::string source,
                           std::vector<std::pair<std::string, std::string>> special_tokens,
                           std::unique_ptr<const chat::Node> root)
    : source_(std::move(source)),
      special_tokens_(std::move(special_tokens)),
      root_(std::move(root)) {}
ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<std::unique_ptr<const ChatTemplate>> ChatTemplate::Create(
    std::string source, std::vector<std::pair<std::string, std::string>> special_tokens) {
  if (source.size() > kMaxChatTemplateBytes) {
    return absl::InvalidArgumentError(absl::StrCat("chat template has ", source.size(),
                                                   " bytes; at most ", kMaxChatTemplateBytes));
  }
  if (const auto offset = FindInvalidUtf8(source)) {
    return absl::InvalidArgumentError(
        absl::StrCat("chat template is not valid UTF-8 at byte ", *offset));
  }
  // As Jinja reads its source: one kind of line end, and none at the very end.
  source = absl::StrReplaceAll(source, {{"\r\n", "\n"}, {"\r", "\n"}});
  if (!source.empty() && source.back() == '\n') source.pop_back();
  std::unique_ptr<chat::Node> root;
  ASSIGN_OR_RETURN(root, chat::ParseTemplate(source));
  return std::unique_ptr<const ChatTemplate>(
      new ChatTemplate(std::move(source), std::move(special_tokens), std::move(root)));
}

absl::StatusOr<std::string> ChatTemplate::Render(const std::vector<ChatTurn>& turns) const {
  using chat::Value;
  Value::List messages;
  for (const ChatTurn& turn : turns) {
    messages.push_back(Value::MakeDict(
        {{"role", Value::String(turn.role)}, {"content", Value::String(turn.content)}}));
  }
  chat::Variables globals = {{"messages", Value::MakeList(std::move(messages))},
                             {"add_generation_prompt", Value::Bool(true)},
                             {"tools", Value::None()},
                             {"documents", Value::None()}};
  for (const auto& [name, text] : special_tokens_) globals[name] = Value::String(text);
  return chat::Renderer(source_, globals, {}).Run(*root_);
}

absl::StatusOr<std::unique_ptr<const ChatTemplate>> MakeChatTemplate(const ModelFiles& files) {
  json config = json::object();
  if (const auto file = files.find(kConfigFile); file != files.end()) {
    ASSIGN_OR_RETURN(config, ParseJson(kConfigFile, file->second));
    if (!config.is_object()) return Bad(kConfigFile, "is no JSON object");
  }
  std::string name = kConfigFile;
  std::string source;
  if (const auto file = files.find(kTemplateFile); file != files.end()) {
    name = kTemplateFile;
    source = file->second;
  } else {
    ASSIGN_OR_RETURN(source, TemplateIn(config));
  }
  if (source.empty()) return std::unique_ptr<const ChatTemplate>();
  auto made = ChatTemplate::Create(std::move(source), SpecialTokens(config));
  if (made.ok()) return made;
  return Bad(name, std::string(made.status().message()));
}

}  // namespace sauva
