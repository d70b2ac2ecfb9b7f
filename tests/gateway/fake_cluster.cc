#include "tests/gateway/fake_cluster.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/check.h"
#include "net/status_codec.h"

namespace sauva::testing {
namespace {

constexpr const char* kModelName = "bytes";
constexpr const char* kDigest = "digest-1";

std::string Utf8(int code_point) {
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xc0 | code_point >> 6), static_cast<char>(0x80 | (code_point & 0x3f))};
}

// The printable character that byte-level tokenizers write for a byte.
// Source: openai/gpt-2, src/encoder.py, bytes_to_unicode.
std::string CharacterOf(int byte) {
  int extra = 0;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    if (b == byte) return Utf8(printable ? b : 256 + extra);
    if (!printable) ++extra;
  }
  return "";
}

std::unique_ptr<RpcServer> Serve(grpc::Service& service, const std::string& address) {
  auto server = RpcServer::Start({.address = address}, {&service});
  Check(server.ok(), "a test server starts");
  return *std::move(server);
}

}  // namespace

ModelFiles ByteModelFiles() {
  nlohmann::json vocab;
  for (int b = 0; b < 256; ++b) vocab[CharacterOf(b)] = b;
  const nlohmann::json byte_level = {{"type", "ByteLevel"},
                                     {"add_prefix_space", false},
                                     {"trim_offsets", true},
                                     {"use_regex", true}};
  const nlohmann::json tokenizer = {
      {"version", "1.0"},
      {"added_tokens",
       {{{"id", kEndToken},
         {"content", "<|end|>"},
         {"single_word", false},
         {"lstrip", false},
         {"rstrip", false},
         {"normalized", false},
         {"special", true}}}},
      {"normalizer", nullptr},
      {"pre_tokenizer", byte_level},
      {"post_processor", byte_level},
      {"decoder", byte_level},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}}}};
  const nlohmann::json config = {{"architectures", {"LlamaForCausalLM"}},
                                 {"model_type", "llama"},
                                 {"hidden_size", 64},
                                 {"intermediate_size", 128},
                                 {"num_hidden_layers", 2},
                                 {"num_attention_heads", 4},
                                 {"num_key_value_heads", 2},
                                 {"hidden_act", "silu"},
                                 {"rms_norm_eps", 1e-5},
                                 {"rope_theta", 10000.0},
                                 {"vocab_size", kVocabSize},
                                 {"max_position_embeddings", kContext},
                                 {"eos_token_id", kEndToken},
                                 {"tie_word_embeddings", true}};
  return {{"config.json", config.dump()}, {"tokenizer.json", tokenizer.dump()}};
}

bool Eventually(const std::function<bool()>& condition) {
  const absl::Time limit = absl::Now() + absl::Seconds(20);
  while (!condition()) {
    if (absl::Now() > limit) return false;
    std::this_thread::yield();
    absl::SleepFor(absl::Milliseconds(1));
  }
  return true;
}

bool FakeHead::Stream::Hello(const std::string& numerics_id) {
  v1::SequenceTokens message;
  message.set_numerics_id(numerics_id);
  return writer_.Write(message);
}

bool FakeHead::Stream::Say(uint32_t first_index, const std::vector<TokenId>& tokens,
                           FinishReason finish) {
  return Say(SequenceTokens{.first_index = first_index, .tokens = tokens, .finish = finish});
}

bool FakeHead::Stream::Say(const SequenceTokens& tokens) {
  v1::SequenceTokens message;
  ToProto(tokens, &message);
  return writer_.Write(message);
}

void FakeHead::Stream::Continue(const SequenceRequest& request, const std::string& text,
                                size_t limit) {
  const size_t end = limit < text.size() ? limit : text.size();
  const auto max_tokens = static_cast<size_t>(request.sampling.max_tokens);
  for (size_t i = request.resumed.size(); i < end; ++i) {
    const bool full = i + 1 == max_tokens;
    Say(static_cast<uint32_t>(i), {static_cast<unsigned char>(text[i])},
        full ? FinishReason::kLength : FinishReason::kNone);
    if (full) return;
  }
  if (end == text.size()) Say(static_cast<uint32_t>(end), {kEndToken}, FinishReason::kStop);
}

bool FakeHead::Stream::WaitForCancel() const {
  return Eventually([this] { return context_.IsCancelled(); });
}

FakeHead::FakeHead(std::string text, std::string numerics_id)
    : script_([text = std::move(text), numerics_id = std::move(numerics_id)](
                  const SequenceRequest& request, Stream& stream) {
        stream.Hello(numerics_id);
        stream.Continue(request, text);
        return grpc::Status::OK;
      }),
      server_(Serve(*this, "127.0.0.1:0")) {}

void FakeHead::SetScript(Script script) {
  const std::lock_guard lock(mutex_);
  script_ = std::move(script);
}

void FakeHead::Stop() { server_->Shutdown(absl::ZeroDuration()); }

std::vector<SequenceRequest> FakeHead::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

grpc::Status FakeHead::Generate(grpc::ServerContext* context, const v1::SequenceRequest* request,
                                grpc::ServerWriter<v1::SequenceTokens>* writer) {
  const absl::StatusOr<SequenceRequest> plain = FromProto(*request);
  if (!plain.ok()) return ToGrpc(plain.status());
  Script script;
  {
    const std::lock_guard lock(mutex_);
    requests_.push_back(*plain);
    script = script_;
  }
  Stream stream(*context, *writer);
  return script(*plain, stream);
}

FakeCoordinator::FakeCoordinator(std::vector<FakeHead*> heads, const std::string& address)
    : heads_(std::move(heads)), server_(Serve(*this, address)) {}

void FakeCoordinator::Stop() { server_->Shutdown(absl::ZeroDuration()); }

void FakeCoordinator::SetReadyPipelines(uint32_t count) {
  const std::lock_guard lock(mutex_);
  ready_pipelines_ = count;
}

void FakeCoordinator::SetDispatch(
    std::function<absl::StatusOr<DispatchReply>(const DispatchRequest&)> dispatch) {
  const std::lock_guard lock(mutex_);
  dispatch_ = std::move(dispatch);
}

std::vector<DispatchRequest> FakeCoordinator::dispatches() const {
  const std::lock_guard lock(mutex_);
  return dispatches_;
}

absl::StatusOr<DispatchReply> FakeCoordinator::Choose(const DispatchRequest& request) const {
  for (size_t i = 0; i < heads_.size(); ++i) {
    const uint64_t epoch = i + 1;
    const auto& broken = request.broken_epochs;
    if (std::find(broken.begin(), broken.end(), epoch) != broken.end()) continue;
    return DispatchReply{.model = {kModelName, kDigest},
                         .epoch = epoch,
                         .head_address = heads_[i]->address(),
                         .numerics_id = "n1",
                         .max_context = kContext};
  }
  return absl::UnavailableError("no pipeline is ready");
}

grpc::Status FakeCoordinator::Dispatch(grpc::ServerContext*, const v1::DispatchRequest* request,
                                       v1::DispatchResponse* response) {
  const absl::StatusOr<DispatchRequest> plain = FromProto(*request);
  if (!plain.ok()) return ToGrpc(plain.status());
  std::function<absl::StatusOr<DispatchReply>(const DispatchRequest&)> dispatch;
  {
    const std::lock_guard lock(mutex_);
    dispatches_.push_back(*plain);
    dispatch = dispatch_;
  }
  const absl::StatusOr<DispatchReply> reply = dispatch ? dispatch(*plain) : Choose(*plain);
  if (!reply.ok()) return ToGrpc(reply.status());
  ToProto(*reply, response);
  return grpc::Status::OK;
}

grpc::Status FakeCoordinator::Status(grpc::ServerContext*, const v1::StatusRequest*,
                                     v1::StatusResponse* response) {
  const std::lock_guard lock(mutex_);
  ToProto(ServedModel{.model = {kModelName, kDigest},
                      .max_context = kContext,
                      .vocab_size = kVocabSize,
                      .ready_pipelines = ready_pipelines_},
          response->add_models());
  return grpc::Status::OK;
}

grpc::Status FakeCoordinator::GetModelFiles(grpc::ServerContext*,
                                            const v1::GetModelFilesRequest* request,
                                            grpc::ServerWriter<v1::ModelFileChunk>* writer) {
  if (!request->model().empty() && request->model() != kModelName) {
    return {grpc::StatusCode::NOT_FOUND, "no such model"};
  }
  v1::ModelFileChunk header;
  header.mutable_model()->set_name(kModelName);
  header.mutable_model()->set_digest(kDigest);
  writer->Write(header);
  for (const auto& [name, content] : ByteModelFiles()) {
    const size_t half = content.size() / 2;  // two chunks, to be put together again
    for (const std::string& data : {content.substr(0, half), content.substr(half)}) {
      v1::ModelFileChunk chunk;
      chunk.set_name(name);
      chunk.set_data(data);
      writer->Write(chunk);
    }
  }
  return grpc::Status::OK;
}

}  // namespace sauva::testing
