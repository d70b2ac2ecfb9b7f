// A client of sauva.v1.GenerationService: streams a continuation, and goes on at the next
// gateway when one goes away, so that the text has no gap and no repetition.
//
//   sauva-example-client --gateway 127.0.0.1:7070 --gateway 127.0.0.1:7072 --prompt "Once"

#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "sauva/v1/generation.grpc.pb.h"

namespace {

using Clock = std::chrono::system_clock;

struct Options {
  std::vector<std::string> gateways;
  std::string prompt;
  std::string model;
  uint32_t max_tokens = 64;
  float temperature = 1;
  std::optional<uint64_t> seed;
  uint32_t cancel_after = 0;  // tokens; 0: never
  int deadline_ms = 0;        // for all attempts together; 0: none
  std::string tls_ca;         // PEM file; empty: plaintext
};

// What is known of the completion so far. It is all that another gateway needs.
struct Progress {
  std::optional<uint64_t> seed;  // the one asked for, or the one a gateway drew
  std::vector<int32_t> tokens;
  bool cancelled = false;
  std::string finish;
};

// Reads the command line; returns an exit code if there is nothing more to do.
std::optional<int> Parse(int argc, char** argv, Options& options) {
  CLI::App app("Streams a continuation of a prompt", "sauva-example-client");
  app.add_option("--gateway", options.gateways, "HOST:PORT; several are tried in turn")
      ->required()
      ->allow_extra_args(false);
  app.add_option("--prompt", options.prompt)->required();
  app.add_option("--model", options.model, "empty: the only one served");
  app.add_option("--max-tokens", options.max_tokens)->capture_default_str();
  app.add_option("--temperature", options.temperature)->capture_default_str();
  app.add_option("--seed", options.seed, "unset: the gateway draws one");
  app.add_option("--cancel-after", options.cancel_after, "cancel after so many tokens");
  app.add_option("--deadline-ms", options.deadline_ms, "for the whole answer");
  app.add_option("--tls-ca", options.tls_ca, "PEM file: the authority of the gateways");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return std::nullopt;
}

std::shared_ptr<grpc::ChannelCredentials> Credentials(const Options& options) {
  if (options.tls_ca.empty()) return grpc::InsecureChannelCredentials();
  std::ostringstream pem;
  pem << std::ifstream(options.tls_ca).rdbuf();
  grpc::SslCredentialsOptions ssl;
  ssl.pem_root_certs = pem.str();
  return grpc::SslCredentials(ssl);
}

std::shared_ptr<grpc::Channel> Connect(const std::string& gateway, const Options& options) {
  grpc::ChannelArguments arguments;
  // A gateway that hangs or whose machine is gone counts as lost after a few seconds.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 2000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 3000);
  return grpc::CreateCustomChannel(gateway, Credentials(options), arguments);
}

sauva::v1::GenerateRequest MakeRequest(const Options& options, const Progress& progress) {
  sauva::v1::GenerateRequest request;
  request.set_model(options.model);
  request.set_text(options.prompt);
  request.mutable_sampling()->set_max_tokens(options.max_tokens);
  request.mutable_sampling()->set_temperature(options.temperature);
  if (progress.seed) request.mutable_sampling()->set_seed(*progress.seed);
  if (!progress.tokens.empty()) {
    *request.add_resume_tokens()->mutable_token_ids() = {progress.tokens.begin(),
                                                         progress.tokens.end()};
  }
  return request;
}

void Take(const sauva::v1::GenerateResponse& response, Progress& progress) {
  // Only the first response names the seed; a resumed stream repeats the one it was given.
  if (!progress.seed) progress.seed = response.seed();
  progress.tokens.insert(progress.tokens.end(), response.token_ids().begin(),
                         response.token_ids().end());
  std::cout << response.text() << std::flush;
  if (response.finish_reason() != sauva::v1::FINISH_REASON_UNSPECIFIED) {
    progress.finish = sauva::v1::FinishReason_Name(response.finish_reason());
  }
}

// Streams from one gateway until the answer ends or the stream does.
grpc::Status Stream(const std::string& gateway, const Options& options, Clock::time_point deadline,
                    Progress& progress) {
  const auto stub = sauva::v1::GenerationService::NewStub(Connect(gateway, options));
  grpc::ClientContext context;
  context.set_deadline(deadline);
  const auto reader = stub->Generate(&context, MakeRequest(options, progress));
  sauva::v1::GenerateResponse response;
  while (reader->Read(&response)) {
    Take(response, progress);
    if (options.cancel_after > 0 && progress.tokens.size() >= options.cancel_after) {
      progress.cancelled = true;
      context.TryCancel();  // the gateway frees what the request holds
      break;
    }
  }
  return reader->Finish();
}

// Whether another gateway can go on. CANCELLED, unless we wished it, is what gRPC says of a call
// that reaches a server at the moment of its shutdown.
bool GatewayWentAway(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::UNAVAILABLE ||
         status.error_code() == grpc::StatusCode::CANCELLED;
}

// Asks one gateway after the other, each going on where the last one stopped, until the
// answer is whole. Gives up when all of them in turn had nothing to add.
grpc::Status Generate(const Options& options, Progress& progress) {
  const Clock::time_point deadline =
      options.deadline_ms > 0 ? Clock::now() + std::chrono::milliseconds(options.deadline_ms)
                              : Clock::time_point::max();
  size_t fruitless = 0;
  for (size_t i = 0;; ++i) {
    const std::string& gateway = options.gateways[i % options.gateways.size()];
    const size_t tokens_before = progress.tokens.size();
    const grpc::Status status = Stream(gateway, options, deadline, progress);
    if (progress.cancelled || !GatewayWentAway(status)) return status;
    fruitless = progress.tokens.size() > tokens_before ? 0 : fruitless + 1;
    if (fruitless == options.gateways.size()) return status;
    std::cerr << "\n[" << gateway << ": " << status.error_message() << "; going on after "
              << progress.tokens.size() << " tokens]\n";
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (const auto exit_code = Parse(argc, argv, options)) return *exit_code;
  Progress progress{.seed = options.seed, .tokens = {}, .cancelled = false, .finish = {}};
  const grpc::Status status = Generate(options, progress);
  std::cout << std::endl;
  if (progress.cancelled) {
    std::cerr << "cancelled after " << progress.tokens.size() << " tokens\n";
    return 0;
  }
  if (!status.ok()) {
    std::cerr << "failed with code " << status.error_code() << ": " << status.error_message()
              << '\n';
    return 1;
  }
  std::cerr << progress.finish << " after " << progress.tokens.size() << " tokens, seed "
            << progress.seed.value_or(0) << '\n';
  return 0;
}
