#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "tests/e2e/stream_client.h"
#include "tests/temporary_directory.h"

// Conversations, with the demo model and a chat template beside it.
namespace sauva {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kNumTokens = 12;
constexpr const char* kTemplate =
    "{% for message in messages %}"
    "{% if message.role == 'king' %}{{ raise_exception('kings do not chat') }}{% endif %}"
    "{{ message.role }} said: {{ message.content | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant said:{% endif %}\n";

using Turns = std::vector<std::pair<std::string, std::string>>;

class ChatTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    directory_ = std::make_unique<TemporaryDirectory>();
    const std::string model = directory_->path() + "/prose-chat";
    std::filesystem::copy(ModelDirectory(), model, std::filesystem::copy_options::recursive);
    std::ofstream(model + "/chat_template.jinja") << kTemplate;
    auto started = TestCluster::Start({"--model", model, "--stages", "2"});
    ASSERT_TRUE(started.ok()) << started.status();
    cluster_ = *std::move(started);
  }
  static void TearDownTestSuite() {
    cluster_.reset();
    directory_.reset();
  }
  void SetUp() override { ASSERT_NE(cluster_, nullptr); }

  static Outcome Ask(const Turns& turns) {
    v1::GenerateRequest request = GreedyRequest("", kNumTokens);
    for (const auto& [role, content] : turns) {
      v1::ChatMessage* message = request.mutable_messages()->add_messages();
      message->set_role(role);
      message->set_content(content);
    }
    return Generate(cluster_->gateway(), request);
  }

  static inline std::unique_ptr<TemporaryDirectory> directory_;
  static inline std::unique_ptr<TestCluster> cluster_;
};

TEST_F(ChatTest, MessagesAreAnsweredAsTheTextTheyRenderTo) {
  const auto stub = GatewayStub(cluster_->gateway());
  v1::TokenizeRequest text;
  text.set_text("system said: Be brief.\nuser said: Who was he?\nassistant said:");
  text.set_without_special_tokens(true);
  v1::TokenizeResponse tokens;
  grpc::ClientContext context;
  ASSERT_TRUE(stub->Tokenize(&context, text, &tokens).ok());
  v1::GenerateRequest plain = GreedyRequest("", kNumTokens);
  *plain.mutable_token_ids()->mutable_ids() = tokens.token_ids();

  const Outcome answer = Ask({{"system", "Be brief."}, {"user", " Who was he? "}});
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.tokens, Generate(cluster_->gateway(), plain).tokens);
  EXPECT_EQ(answer.usage.prompt_tokens(), static_cast<uint32_t>(tokens.token_ids_size()));
}

TEST_F(ChatTest, WhatTheTemplateRefusesIsAnInvalidArgument) {
  const Outcome refused = Ask({{"king", "Bow!"}});
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(refused.status.error_message(), HasSubstr("kings do not chat"));
}

TEST_F(ChatTest, TheCommandLineKeepsTheConversation) {
  const std::string answered = absl::StrCat(
      "printf 'Who was he?\\n\\nAnd she?\\n/clear\\nWho was he?\\n/quit\\nnobody hears\\n' | ",
      SAUVA_BINARY_DIR, "/sauva chat --gateway ", cluster_->gateway(),
      " --system 'Be brief.' --temperature 0 --ignore-eos --max-tokens ", kNumTokens);
  const FinishedProcess chat = RunProcess({"/bin/sh", "-c", answered});
  EXPECT_EQ(chat.exit_code, 0) << chat.error;
  Turns turns = {{"system", "Be brief."}, {"user", "Who was he?"}};
  const std::string first = Ask(turns).text;
  turns.emplace_back("assistant", first);
  turns.emplace_back("user", "And she?");
  const std::string second = Ask(turns).text;
  EXPECT_EQ(chat.out, first + "\n" + second + "\n" + first + "\n");
}

}  // namespace
}  // namespace sauva
