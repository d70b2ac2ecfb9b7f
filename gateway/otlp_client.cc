#include "gateway/otlp_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <iterator>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/build_id.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "net/callback_queue.h"
#include "net/status_codec.h"
#include "net/tls.h"
#include "opentelemetry/trace.grpc.pb.h"

namespace sauva {
namespace {

namespace otlp = opentelemetry::proto::collector::trace::v1;

std::string BigEndian(uint64_t value) {
  std::string bytes(8, '\0');
  for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(value >> (56 - 8 * i));
  return bytes;
}

void ToProto(const std::string& in, otlp::AnyValue* out) { out->set_string_value(in); }
void ToProto(int64_t in, otlp::AnyValue* out) { out->set_int_value(in); }
void ToProto(double in, otlp::AnyValue* out) { out->set_double_value(in); }
template <class T>
void ToProto(const std::vector<T>& in, otlp::AnyValue* out) {
  for (const T& value : in) ToProto(value, out->mutable_array_value()->add_values());
}

void Add(const std::string& key, const Span::Value& value,
         google::protobuf::RepeatedPtrField<otlp::KeyValue>* out) {
  otlp::KeyValue* pair = out->Add();
  pair->set_key(key);
  std::visit([&](const auto& v) { ToProto(v, pair->mutable_value()); }, value);
}

otlp::SpanKind ToProto(Span::Kind in) {
  switch (in) {
    case Span::Kind::kServer:
      return otlp::SPAN_KIND_SERVER;
    case Span::Kind::kClient:
      return otlp::SPAN_KIND_CLIENT;
    case Span::Kind::kInternal:
      break;
  }
  return otlp::SPAN_KIND_INTERNAL;
}

void ToProto(const Span& in, otlp::Span* out) {
  out->set_trace_id(in.trace_id);
  out->set_span_id(BigEndian(in.span_id));
  if (in.parent_span_id != 0) out->set_parent_span_id(BigEndian(in.parent_span_id));
  out->set_name(in.name);
  out->set_kind(ToProto(in.kind));
  out->set_start_time_unix_nano(static_cast<uint64_t>(absl::ToUnixNanos(in.begin)));
  out->set_end_time_unix_nano(static_cast<uint64_t>(absl::ToUnixNanos(in.end)));
  for (const auto& [key, value] : in.attributes) Add(key, value, out->mutable_attributes());
  if (in.status.ok()) return;
  out->mutable_status()->set_code(otlp::STATUS_CODE_ERROR);
  out->mutable_status()->set_message(std::string(in.status.message()));
}

// One call to the collector.
struct Export {
  grpc::ClientContext context;
  otlp::ExportTraceServiceRequest request;
  otlp::ExportTraceServiceResponse response;
  size_t num_spans = 0;
};

}  // namespace

struct OtlpClient::State : std::enable_shared_from_this<OtlpClient::State> {
  void SendNext();  // mutex held
  void OnDone(const Export& done, const grpc::Status& status);

  OtlpOptions options;
  std::string instance;
  Counters counters;
  std::unique_ptr<otlp::TraceService::Stub> stub;

  std::mutex mutex;
  std::condition_variable idle;
  std::deque<Span> waiting;
  std::shared_ptr<Export> under_way;  // shared with its callback
  bool closed = false;
  bool failing = false;  // the last call lost spans, and a line told so
};

void OtlpClient::State::SendNext() {
  if (waiting.empty()) return idle.notify_all();
  // Shared: by this object, which may cancel it, and gRPC's callback.
  auto call = std::make_shared<Export>();
  otlp::ResourceSpans* process = call->request.add_resource_spans();
  auto* attributes = process->mutable_resource()->mutable_attributes();
  Add("service.name", "sauva-gateway", attributes);
  Add("service.version", BuildId(), attributes);
  Add("service.instance.id", instance, attributes);
  otlp::ScopeSpans* spans = process->add_scope_spans();
  spans->mutable_scope()->set_name("sauva");
  call->num_spans = std::min(waiting.size(), options.max_batch);
  for (size_t i = 0; i < call->num_spans; ++i) {
    ToProto(waiting.front(), spans->add_spans());
    waiting.pop_front();
  }
  under_way = call;
  call->context.set_deadline(absl::ToChronoTime(absl::Now() + options.timeout));
  stub->async()->Export(&call->context, &call->request, &call->response,
                        [self = shared_from_this(), call](const grpc::Status& status) {
                          self->OnDone(*call, status);
                        });
}

void OtlpClient::State::OnDone(const Export& done, const grpc::Status& status) {
  const std::lock_guard lock(mutex);
  under_way.reset();
  const auto refused = static_cast<size_t>(std::clamp<int64_t>(
      done.response.partial_success().rejected_spans(), 0, static_cast<int64_t>(done.num_spans)));
  const size_t dropped = status.ok() ? refused : done.num_spans;
  if (dropped > 0) counters.on_dropped(dropped);
  if (dropped < done.num_spans) counters.on_sent(done.num_spans - dropped);
  if (failing != (dropped > 0) && !closed) {
    failing = dropped > 0;
    if (failing) {
      const std::string reason =
          status.ok() ? absl::StrCat("rejected: ", done.response.partial_success().error_message())
                      : FromGrpc(status).ToString();
      LogWarning("spans are lost", {{"collector", options.collector}, {"reason", reason}});
    } else {
      LogInfo("spans are taken again", {{"collector", options.collector}});
    }
  }
  SendNext();
}

OtlpClient::OtlpClient(std::shared_ptr<State> state) : state_(std::move(state)) {}

absl::StatusOr<std::unique_ptr<OtlpClient>> OtlpClient::Create(const OtlpOptions& options,
                                                               const std::string& instance,
                                                               Counters counters) {
  KeepCallbackQueue();
  std::shared_ptr<grpc::ChannelCredentials> credentials;
  ASSIGN_OR_RETURN(credentials, MakeChannelCredentials({.ca = options.ca}));
  // Shared: see State.
  auto state = std::make_shared<State>();
  state->options = options;
  state->instance = instance;
  state->counters = std::move(counters);
  // Without the pings of our own services, which a foreign server would take for abuse.
  state->stub = otlp::TraceService::NewStub(grpc::CreateChannel(options.collector, credentials));
  return std::unique_ptr<OtlpClient>(new OtlpClient(std::move(state)));
}

OtlpClient::~OtlpClient() {
  std::unique_lock lock(state_->mutex);
  state_->closed = true;
  if (!state_->waiting.empty()) state_->counters.on_dropped(state_->waiting.size());
  state_->waiting.clear();
  if (state_->under_way != nullptr) state_->under_way->context.TryCancel();
  state_->idle.wait(lock, [this] { return state_->under_way == nullptr; });
}

void OtlpClient::Offer(std::vector<Span> spans) {
  const std::lock_guard lock(state_->mutex);
  const size_t room = state_->options.max_waiting - state_->waiting.size();
  const size_t taken = std::min(room, spans.size());
  if (taken < spans.size()) state_->counters.on_dropped(spans.size() - taken);
  std::move(spans.begin(), spans.begin() + static_cast<std::ptrdiff_t>(taken),
            std::back_inserter(state_->waiting));
  if (state_->under_way == nullptr) state_->SendNext();
}

bool OtlpClient::Flush(absl::Time deadline) {
  std::unique_lock lock(state_->mutex);
  return state_->idle.wait_until(lock, absl::ToChronoTime(deadline), [this] {
    return state_->under_way == nullptr && state_->waiting.empty();
  });
}

}  // namespace sauva
