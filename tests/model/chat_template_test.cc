#include "model/chat_template/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace sauva {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

using Pairs = std::vector<std::pair<std::string, std::string>>;

json Golden() {
  std::ifstream file(std::string(SAUVA_SOURCE_DIR) + "/tests/golden/chat_templates.json");
  return json::parse(file);
}

std::vector<ChatTurn> Turns(const json& messages) {
  std::vector<ChatTurn> turns;
  for (const json& message : messages) turns.push_back({message.at(0), message.at(1)});
  return turns;
}

absl::StatusOr<std::string> RenderTurns(const std::string& source,
                                        const std::vector<ChatTurn>& turns) {
  const auto made = ChatTemplate::Create(source, {{"bos_token", "<s>"}});
  if (!made.ok()) return made.status();
  return (*made)->Render(turns);
}
absl::StatusOr<std::string> Render(const std::string& source) {
  return RenderTurns(source, {{"user", "Hello"}, {"assistant", "Hi"}});
}

// Expected texts are transformers'.
TEST(ChatTemplateTest, WritesConversationsAsTransformersDoes) {
  const json golden = Golden();
  Pairs special_tokens;
  for (const auto& [name, text] : golden.at("special_tokens").items()) {
    special_tokens.emplace_back(name, text);
  }
  size_t num_texts = 0;
  for (const json& one : golden.at("cases")) {
    const std::string name = one.at("template");
    const auto made = ChatTemplate::Create(golden.at("templates").at(name), special_tokens);
    ASSERT_TRUE(made.ok()) << name << ": " << made.status();
    const auto text = (*made)->Render(Turns(one.at("messages")));
    if (!one.at("expected").is_string()) {
      EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument) << name;
      EXPECT_THAT(std::string(text.status().message()), HasSubstr("refuses these messages"));
      continue;
    }
    ASSERT_TRUE(text.ok()) << name << ": " << text.status();
    EXPECT_EQ(*text, one.at("expected")) << name << " of " << one.at("messages");
    ++num_texts;
  }
  EXPECT_GE(num_texts, 70u);
}

struct Unknown {
  const char* source;
  const char* place;
  const char* what;
};

void PrintTo(const Unknown& unknown, std::ostream* out) { *out << unknown.source; }

class UnknownConstructTest : public testing::TestWithParam<Unknown> {};

TEST_P(UnknownConstructTest, IsRefusedWhenLoadedWithItsPlaceAndName) {
  const auto made = ChatTemplate::Create(GetParam().source, {});
  EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(made.status().message()),
              AllOf(HasSubstr(GetParam().place), HasSubstr(GetParam().what)));
}

INSTANTIATE_TEST_SUITE_P(
    Constructs, UnknownConstructTest,
    testing::Values(
        Unknown{"a\nb{% include 'x' %}", "line 2, column 2", "the tag 'include'"},
        Unknown{"{{ 1 | sort }}", "line 1, column 6", "the filter 'sort'"},
        Unknown{"{{ 1 is prime }}", "line 1, column 6", "the test 'prime'"},
        Unknown{"{{ 'a'.encode() }}", "line 1, column 7", "the method 'encode'"},
        Unknown{"{{ 2 ** 3 }}", "line 1, column 6", "'**'"},
        Unknown{"{{ 1 < 2 < 3 }}", "line 1, column 10", "chained"},
        Unknown{"{% for x in y recursive %}{% endfor %}", "line 1", "recursive"},
        Unknown{"{{ 'open }}", "line 1, column 4", "not closed"},
        Unknown{"{{ 1", "line 1", "not closed"}, Unknown{"{# never", "line 1", "comment"},
        Unknown{"{% if 1 %}", "line 1", "endif"}, Unknown{"{% endif %}", "line 1", "ends nothing"},
        Unknown{"{{ }}", "line 1, column 4", "an expression"},
        Unknown{"{{ (1 }}", "line 1", "unexpected '}'"},
        Unknown{"{{ a b }}", "line 1, column 6", "'b'"},
        Unknown{"{% break %}", "line 1", "no loop"}, Unknown{"{{ '\\ud800' }}", "line 1", "escape"},
        Unknown{"{{ 99999999999999999999 }}", "line 1", "too large"},
        Unknown{"{{ \x01 }}", "line 1, column 4", "unexpected"},
        Unknown{"\xff", "byte 0", "UTF-8"}));

TEST(ChatTemplateTest, FailuresOfARenderingNameTheirPlace) {
  const std::pair<const char*, const char*> failures[] = {
      {"\n {{ missing.name }}", "line 2, column 12: nothing can be taken"},
      {"{{ 'a' + 1 }}", "cannot add an integer to text"},
      {"{{ 1 // 0 }}", "division by zero"},
      {"{{ 1 < 'a' }}", "cannot compare"},
      {"{{ strftime_now('%Y') }}", "'strftime_now' is not defined"},
      {"{% for x in 5 %}{% endfor %}", "holds no items"},
      {"{% for a, b in [1] %}{% endfor %}", "does not make 2 values"},
      {"{% set x.y = 1 %}", "'x' is no namespace"},
      {"{{ messages.strip() }}", "has no method"},
      {"{{ 9223372036854775807 + 1 }}", "too large"},
  };
  for (const auto& [source, message] : failures) {
    const auto text = Render(source);
    EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument) << source;
    EXPECT_THAT(std::string(text.status().message()), HasSubstr(message)) << source;
  }
}

// A template comes with a checkpoint: it may be made to harm.
TEST(ChatTemplateTest, NeitherRunsForLongNorGrowsWithoutEnd) {
  const std::string doubling =
      "{% set ns = namespace(x='xxxxxxxxxxxxxxxx') %}"
      "{% for i in range(64) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}";
  const std::string nesting =
      "{% set ns = namespace(x=[]) %}{% for i in range(999) %}{% set ns.x = [ns.x] %}{% endfor %}";
  const std::string forking =
      "{% set ns = namespace(x=['a']) %}"
      "{% for i in range(15) %}{% set ns.x = [ns.x, ns.x, ns.x, ns.x, ns.x, ns.x, ns.x] %}"
      "{% endfor %}{{ ns.x | tojson }}";
  const std::string loops =
      "{% for a in range(50000) %}{% for b in range(50000) %}{% endfor %}{% endfor %}";
  const std::string macros = "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}";
  const std::string output =
      "{% for i in range(50000) %}{{ messages | tojson }}{{ messages | string }}{% endfor %}";
  const std::string replaced =
      "{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}"
      "{% for i in range(9) %}{% set ns.x = ns.x | replace('a', ns.x) %}{% endfor %}";
  for (const std::string& source : {doubling, nesting, forking, loops, macros, replaced}) {
    const auto text = Render(source);
    EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument) << source;
  }
  const auto much = RenderTurns(output, {{"user", std::string(1000, 'x')}});
  EXPECT_EQ(much.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ChatTemplateTest, DeepAndLongTemplatesAreRefusedNotFollowed) {
  const auto repeated = [](const std::string& part, int count) {
    std::string out;
    for (int i = 0; i < count; ++i) out += part;
    return out;
  };
  for (const std::string& source :
       {"{{ " + repeated("(", 5000) + "1" + repeated(")", 5000) + " }}",
        "{{ " + repeated("-", 5000) + "1 }}", "{{ " + repeated("not ", 5000) + "1 }}",
        "{{ 1" + repeated("+1", 5000) + " }}", "{{ a" + repeated(".a", 5000) + " }}",
        "{{ 1" + repeated("|int", 5000) + " }}", "{{ 1" + repeated(" if 1 else 1", 5000) + " }}",
        repeated("{% if 1 %}", 5000) + repeated("{% endif %}", 5000),
        std::string(kMaxChatTemplateBytes + 1, 'x')}) {
    EXPECT_FALSE(ChatTemplate::Create(source, {}).ok()) << source.substr(0, 40);
  }
}

TEST(ChatTemplateTest, IsFoundInTheFilesOfAModel) {
  const auto of = [](const ModelFiles& files) {
    const auto made = MakeChatTemplate(files);
    if (!made.ok()) return std::string(made.status().message());
    if (*made == nullptr) return std::string("none");
    return (*made)->Render({{"user", "x"}}).value_or("failed");
  };
  EXPECT_EQ(of({}), "none");
  EXPECT_EQ(of({{"tokenizer_config.json", "{}"}}), "none");
  EXPECT_EQ(of({{"tokenizer_config.json", R"({"chat_template": "A{{ messages[0].content }}"})"}}),
            "Ax");
  EXPECT_EQ(of({{"tokenizer_config.json",
                 R"({"chat_template": "{{ bos_token }}{{ eos_token }}", "bos_token": "<b>",
                     "eos_token": {"content": "<e>", "special": true}})"}}),
            "<b><e>");
  EXPECT_EQ(of({{"tokenizer_config.json", R"({"chat_template": "old"})"},
                {"chat_template.jinja", "new"}}),
            "new");
  EXPECT_EQ(of({{"tokenizer_config.json",
                 R"({"chat_template": [{"name": "tool_use", "template": "tools"},
                                       {"name": "default", "template": "plain"}]})"}}),
            "plain");
  EXPECT_THAT(of({{"tokenizer_config.json", R"({"chat_template": 5})"}}),
              HasSubstr("tokenizer_config.json: chat_template"));
  EXPECT_THAT(of({{"chat_template.jinja", "{% nonsense %}"}}),
              AllOf(HasSubstr("chat_template.jinja"), HasSubstr("'nonsense'")));
}

}  // namespace
}  // namespace sauva
