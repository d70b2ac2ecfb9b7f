#include <unistd.h>

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "cli/chat_command.h"
#include "cli/commands.h"
#include "cli/exit_code.h"
#include "cli/generate_command.h"
#include "model/model_files.h"
#include "model/tokenizer.h"
#include "net/tls_flags.h"

// The subcommands that ask a gateway for something.
namespace sauva {
namespace {

struct GenerateFlags {
  GenerateOptions request;
  double timeout_seconds = 0;
  bool json = false;
};

int Generate(GenerateFlags flags) {
  if (flags.request.gateways.empty()) flags.request.gateways = {kDefaultGateway};
  if (flags.timeout_seconds > 0) {
    flags.request.deadline = absl::Now() + absl::Seconds(flags.timeout_seconds);
  }
  const GenerateOutput output = flags.json ? GenerateOutput::kJson : GenerateOutput::kText;
  return Report(RunGenerate(flags.request, output, std::cout, std::cerr));
}

void AddSamplingFlags(CLI::App& app, SamplingParams& sampling) {
  app.add_option("--max-tokens", sampling.max_tokens, "of the completion; 0: fill the context")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--temperature", sampling.temperature, "0: the likeliest token");
  app.add_option("--top-p", sampling.top_p, "share of probability kept; 1: off");
  app.add_option("--top-k", sampling.top_k, "tokens kept; 0: all")->check(CLI::NonNegativeNumber);
  app.add_option("--min-p", sampling.min_p, "share of the likeliest token's probability; 0: off");
  app.add_option("--repetition-penalty", sampling.repetition_penalty, "1: off");
  app.add_option("--n", sampling.n, "samples")->check(CLI::Range(1, 64));
  app.add_option("--seed", sampling.seed, "equal seeds give equal tokens; unset: drawn");
  app.add_option("--stop", sampling.stop, "text to end before; repeat for more")
      ->allow_extra_args(false);
  app.add_flag("--ignore-eos", sampling.ignore_eos, "go on past the model's end of text");
}

int Chat(ChatOptions options) {
  if (options.request.gateways.empty()) options.request.gateways = {kDefaultGateway};
  if (options.request.sampling.n != 1) {
    return Report(absl::InvalidArgumentError("a chat has one answer at a time: --n must be 1"));
  }
  const bool is_person = isatty(STDIN_FILENO) == 1;
  return Report(RunChat(options, is_person ? ChatPartner::kPerson : ChatPartner::kScript, std::cin,
                        std::cout, std::cerr));
}

struct TokenizeOptions {
  std::string model;  // a directory; empty: ask the gateway
  std::string gateway = kDefaultGateway;
  std::string text;
  bool json = false;
  TlsOptions tls;
};

absl::StatusOr<TokenizedText> TokenizeHere(const std::string& directory, const std::string& text) {
  ASSIGN_OR_RETURN(const ModelFiles files, ReadModelFiles(directory));
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, MakeTokenizer(files));
  TokenizedText result;
  ASSIGN_OR_RETURN(result.tokens, tokenizer->Encode(text, Tokenizer::Special::kAdd));
  for (const TokenId token : result.tokens) result.pieces.push_back(tokenizer->PieceBytes(token));
  return result;
}

int Tokenize(const TokenizeOptions& options) {
  const auto result = options.model.empty()
                          ? TokenizeAtGateway(options.gateway, options.tls, options.text)
                          : TokenizeHere(options.model, options.text);
  if (!result.ok()) return Report(result.status());
  const auto replace = nlohmann::json::error_handler_t::replace;
  if (options.json) {
    const nlohmann::json json = {{"token_ids", result->tokens}, {"pieces", result->pieces}};
    std::cout << json.dump(-1, ' ', false, replace) << "\n";
    return kExitDone;
  }
  for (size_t i = 0; i < result->tokens.size(); ++i) {
    const nlohmann::json piece = i < result->pieces.size() ? result->pieces[i] : "";
    std::cout << result->tokens[i] << "\t" << piece.dump(-1, ' ', false, replace) << "\n";
  }
  return kExitDone;
}

}  // namespace

void AddGenerate(CLI::App& app, ChosenCommand& chosen) {
  // Shared by CLI11's callbacks, which outlive this function.
  const auto flags = std::make_shared<GenerateFlags>();
  CLI::App* generate = app.add_subcommand("generate", "continue a text");
  generate
      ->add_option("--gateway", flags->request.gateways,
                   "host:port; repeat for gateways to go on at when one breaks")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  generate->add_option("--model", flags->request.model, "the model's name; unset: the only one");
  AddSamplingFlags(*generate, flags->request.sampling);
  generate->add_option("--timeout", flags->timeout_seconds, "seconds; 0: none")
      ->check(CLI::NonNegativeNumber);
  generate->add_flag("--json", flags->json, "print one line of JSON per sample");
  generate->add_option("prompt", flags->request.prompt, "the text to continue")->required();
  AddTlsFlags(*generate, flags->request.tls);
  generate->callback([flags, &chosen] { chosen.run = [flags] { return Generate(*flags); }; });
}

void AddChat(CLI::App& app, ChosenCommand& chosen) {
  // Shared by CLI11's callbacks, which outlive this function.
  const auto options = std::make_shared<ChatOptions>();
  GenerateOptions& request = options->request;
  CLI::App* chat = app.add_subcommand("chat", "talk with a model that has a chat template");
  chat->add_option("--gateway", request.gateways,
                   "host:port; repeat for gateways to go on at when one breaks")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  chat->add_option("--model", request.model, "the model's name; unset: the only one");
  chat->add_option("--system", options->system, "words that go before the conversation");
  AddSamplingFlags(*chat, request.sampling);
  AddTlsFlags(*chat, request.tls);
  chat->callback([options, &chosen] { chosen.run = [options] { return Chat(*options); }; });
}

void AddTokenize(CLI::App& app, ChosenCommand& chosen) {
  // Shared by CLI11's callbacks, which outlive this function.
  const auto options = std::make_shared<TokenizeOptions>();
  CLI::App* tokenize = app.add_subcommand("tokenize", "the token ids of a text");
  auto* gateway = tokenize->add_option("--gateway", options->gateway, "host:port");
  gateway->capture_default_str();
  tokenize->add_option("--model", options->model, "a model's directory; then no gateway is asked")
      ->excludes(gateway);
  tokenize->add_flag("--json", options->json, "print one line of JSON");
  tokenize->add_option("text", options->text)->required();
  AddTlsFlags(*tokenize, options->tls);
  tokenize->callback([options, &chosen] { chosen.run = [options] { return Tokenize(*options); }; });
}

}  // namespace sauva
