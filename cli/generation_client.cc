#include "cli/generation_client.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "net/channel.h"
#include "net/status_codec.h"
#include "proto/generation_codec.h"
#include "sauva/v1/generation.grpc.pb.h"

namespace sauva {
namespace {

absl::Status AtGateway(const std::string& gateway, const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(FromGrpc(status).code(),
                      absl::StrCat("gateway ", gateway, ": ", status.error_message()));
}

v1::GenerateRequest MakeRequest(const GenerateOptions& options, const Transcript& transcript) {
  v1::GenerateRequest request;
  request.set_model(options.model);
  if (options.messages.empty()) request.set_text(options.prompt);
  for (const ChatMessage& message : options.messages) {
    v1::ChatMessage* added = request.mutable_messages()->add_messages();
    added->set_role(message.role);
    added->set_content(message.content);
  }
  ToProto(options.sampling, request.mutable_sampling());
  if (!transcript.started()) return request;
  if (transcript.seed()) request.mutable_sampling()->set_seed(*transcript.seed());
  for (size_t i = 0; i < transcript.samples().size(); ++i) {
    v1::ResumeTokens* resume = request.add_resume_tokens();
    resume->set_sample_index(static_cast<uint32_t>(i));
    for (const TokenId token : transcript.samples()[i].tokens) resume->add_token_ids(token);
  }
  return request;
}

absl::StatusOr<GeneratedPiece> FromProto(v1::GenerateResponse& in) {
  GeneratedPiece piece;
  piece.sample_index = in.sample_index();
  piece.text = std::move(*in.mutable_text());
  piece.tokens.assign(in.token_ids().begin(), in.token_ids().end());
  ASSIGN_OR_RETURN(piece.finish, sauva::FromProto(in.finish_reason()));
  if (in.has_usage()) piece.prompt_tokens = in.usage().prompt_tokens();
  if (!in.model().empty()) piece.seed = in.seed();
  return piece;
}

}  // namespace

absl::Status GenerateOnce(const GenerateOptions& options, const std::string& gateway,
                          const Transcript& transcript,
                          const std::function<void(const GeneratedPiece&)>& on_piece) {
  ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, MakeChannel(gateway, options.tls));
  const auto stub = v1::GenerationService::NewStub(channel);
  grpc::ClientContext context;
  if (options.deadline != absl::InfiniteFuture()) {
    context.set_deadline(absl::ToChronoTime(options.deadline));
  }
  const bool resuming = transcript.started();
  const auto reader = stub->Generate(&context, MakeRequest(options, transcript));
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    ASSIGN_OR_RETURN(const GeneratedPiece piece, FromProto(response));
    on_piece(piece);
    if (!resuming || !transcript.complete()) continue;
    // A gateway does not know which samples had ended elsewhere and may go on with them.
    context.TryCancel();
    reader->Finish();
    return absl::OkStatus();
  }
  return AtGateway(gateway, reader->Finish());
}

absl::StatusOr<TokenizedText> TokenizeAtGateway(const std::string& gateway, const TlsOptions& tls,
                                                const std::string& text) {
  ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, MakeChannel(gateway, tls));
  const auto stub = v1::GenerationService::NewStub(channel);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(30)));
  v1::TokenizeRequest request;
  request.set_text(text);
  v1::TokenizeResponse response;
  RETURN_IF_ERROR(AtGateway(gateway, stub->Tokenize(&context, request, &response)));
  return TokenizedText{{response.token_ids().begin(), response.token_ids().end()},
                       {response.pieces().begin(), response.pieces().end()}};
}

}  // namespace sauva
