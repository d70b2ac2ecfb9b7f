#include "gateway/gateway.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "gateway/seeded_random.h"
#include "net/traceparent.h"

namespace sauva {
namespace {

Gateway::Tokens WithPieces(std::vector<TokenId> ids, const Tokenizer& tokenizer) {
  Gateway::Tokens tokens{.ids = std::move(ids), .pieces = {}};
  for (const TokenId id : tokens.ids) tokens.pieces.push_back(tokenizer.PieceBytes(id));
  return tokens;
}

absl::Status Draining() {
  return absl::UnavailableError("this gateway is shutting down; go on at another one");
}
constexpr const char* kTooManyTexts = "too many prompts wait to be tokenized";

}  // namespace

Gateway::Gateway(const Context& context, const GatewayOptions& options,
                 std::function<void(Health)> on_health)
    : context_(context),
      options_(options),
      on_health_(std::move(on_health)),
      admission_(options.admission),
      models_(context.coordinator, context.loop, context.text_loop, options.models,
              [this] { OnModelsChanged(); }),
      runner_({.loop = context.loop,
               .coordinator = context.coordinator,
               .heads = context.heads,
               .admission = admission_,
               .metrics = context.metrics,
               .slow_request = options.slow_request,
               .on_spans = context.on_spans},
              options.session),
      model_waits_(*context.loop, [this](uint64_t id) { OnWaitOver(id); }),
      random_(SeededByTheSystem()) {}

void Gateway::Start() {
  PostEvent(context_.loop, [this] { models_.Start(); });
}

uint64_t Gateway::Generate(GenerateInput input, absl::Time deadline, CallHandlers handlers) {
  const uint64_t call_id = next_call_id_.fetch_add(1);
  absl::StatusOr<ValidRequest> request = ValidateRequest(std::move(input));
  const absl::Time now = absl::Now();
  Call call{
      .request = {},
      .deadline = std::min(
          deadline, deadline == absl::InfiniteFuture() ? now + options_.request_timeout : deadline),
      .arrived = now,
      .handlers = std::move(handlers),
      .request_id = {},
      .samples = {}};
  if (!request.ok()) {
    context_.metrics.Refused(request.status());
    call.handlers.on_done(request.status());
    return call_id;
  }
  call.request = *std::move(request);
  const auto on_done = call.handlers.on_done;
  if (!context_.loop->Post([this, call_id, call = std::move(call)]() mutable {
        Accept(call_id, std::move(call));
      })) {
    const absl::Status busy =
        absl::ResourceExhaustedError("the gateway's loop has more work than it can queue");
    context_.metrics.Refused(busy);
    on_done(busy);
  }
  return call_id;
}

void Gateway::Accept(uint64_t call_id, Call call) {
  call.request_id = call.request.request_id.empty()
                        ? absl::StrCat("r-", absl::Hex(random_(), absl::kZeroPad16))
                        : call.request.request_id;
  const int64_t num_samples = call.request.sampling.n;
  const std::string trace = call.request.trace ? FormatTraceparent(*call.request.trace) : "";
  LogDebug("request", {{"request_id", call.request_id},
                       {"traceparent", trace},
                       {"tenant", call.request.tenant},
                       {"priority", call.request.priority},
                       {"samples", num_samples}});
  calls_.emplace(call_id, std::move(call));
  if (draining_) return Refuse(call_id, Draining());
  if (const absl::Status status = admission_.Enter(num_samples); !status.ok()) {
    return Refuse(call_id, status);
  }
  calls_.at(call_id).num_entered = num_samples;
  TryBegin(call_id);
}

// Goes on as soon as the model is known; waits for it otherwise.
void Gateway::TryBegin(uint64_t call_id) {
  Call& call = calls_.at(call_id);
  auto model = models_.Find(call.request.model);
  if (absl::IsUnavailable(model.status())) {
    if (!std::exchange(call.waits_for_model, true)) {
      model_waits_.Set(call_id,
                       std::min(call.deadline, call.arrived + options_.session.dispatch_wait));
      models_.RefreshSoon();
    }
    return;
  }
  if (absl::IsNotFound(model.status()) && !std::exchange(call.waits_for_model, true)) {
    // It may have been loaded a moment ago: the coordinator is asked once more.
    model_waits_.Set(call_id, call.deadline);
    return models_.RefreshSoon();
  }
  call.waits_for_model = false;
  model_waits_.Forget(call_id);
  if (!model.ok()) return Refuse(call_id, model.status());
  Bind(call_id, *std::move(model));
}

void Gateway::OnWaitOver(uint64_t call_id) {
  const auto found = calls_.find(call_id);
  if (found == calls_.end()) return;
  const absl::Status missing = models_.Find(found->second.request.model).status();
  if (absl::Now() >= found->second.deadline) {
    return Refuse(call_id, absl::DeadlineExceededError(absl::StrCat(
                               "the deadline passed while waiting: ", missing.message())));
  }
  Refuse(call_id, absl::UnavailableError(missing.message()));
}

void Gateway::OnModelsChanged() {
  const Health health = models_.AnyReady() && !draining_ ? Health::kServing : Health::kNotServing;
  context_.metrics.Ready(health == Health::kServing);
  // Their metrics are there before their first request.
  for (const std::string& name : models_.Names()) {
    context_.metrics.Of(name).KvUsage(models_.KvUsage(name));
  }
  if (health != health_) {
    LogInfo(health == Health::kServing ? "serving" : "not serving");
    health_ = health;
    on_health_(health);
  }
  std::vector<uint64_t> waiting;
  for (const auto& [id, call] : calls_) {
    if (call.waits_for_model) waiting.push_back(id);
  }
  for (const uint64_t id : waiting) TryBegin(id);
}

void Gateway::Bind(uint64_t call_id, std::shared_ptr<const TokenizedModel> model) {
  const Call& call = calls_.at(call_id);
  const RequestDefaults defaults{
      .request_id = call.request_id, .seed = random_(), .deadline = call.deadline};
  const auto* text = std::get_if<std::string>(&call.request.prompt);
  const bool is_chat = std::holds_alternative<ChatInput>(call.request.prompt);
  if (!is_chat && (text == nullptr || text->size() <= options_.inline_text_bytes)) {
    return BeginSamples(call_id, model, BindToModel(call.request, *model, defaults));
  }
  if (!context_.text_loop.Post([this, call_id, model, defaults, request = call.request] {
        PostEvent(context_.loop, [this, call_id, model,
                                  samples = BindToModel(request, *model, defaults)]() mutable {
          BeginSamples(call_id, model, std::move(samples));
        });
      })) {
    Refuse(call_id, absl::ResourceExhaustedError(kTooManyTexts));
  }
}

void Gateway::BeginSamples(uint64_t call_id, const std::shared_ptr<const TokenizedModel>& model,
                           absl::StatusOr<std::vector<SampleRequest>> samples) {
  const auto found = calls_.find(call_id);
  if (found == calls_.end()) return;  // the client left meanwhile
  if (!samples.ok()) return Refuse(call_id, samples.status());
  int64_t num_tokens = 0;
  for (const SampleRequest& sample : *samples) num_tokens += NumTokens(sample);
  if (const absl::Status status = admission_.Queue(num_tokens); !status.ok()) {
    return Refuse(call_id, status);
  }
  context_.metrics.Queued(admission_);
  Call& call = found->second;
  // Shared: by the samples of this request.
  auto first_dispatch = std::make_shared<FirstDispatch>();
  for (SampleRequest& sample : *samples) {
    call.samples.push_back(runner_.Add(
        {.request = std::move(sample),
         .model = model,
         .first_dispatch = first_dispatch,
         .arrived = call.arrived,
         .trace = call.request.trace,
         .operation =
             std::holds_alternative<ChatInput>(call.request.prompt) ? "chat" : "text_completion",
         .handlers = {.on_output = call.handlers.on_output,
                      .on_ended = [this, call_id](uint64_t id, const absl::Status& s) {
                        OnSampleEnded(call_id, id, s);
                      }}}));
  }
  for (const uint64_t id : std::vector<uint64_t>(call.samples)) runner_.Begin(id);
}

// A sample that fails ends its request.
void Gateway::OnSampleEnded(uint64_t call_id, uint64_t sample_id, const absl::Status& status) {
  // A digest that changed under a request: the cache is behind.
  if (absl::IsAborted(status)) models_.RefreshSoon();
  const auto found = calls_.find(call_id);
  if (found == calls_.end()) return;
  std::erase(found->second.samples, sample_id);
  if (!status.ok() || found->second.samples.empty()) End(call_id, status);
}

void Gateway::Cancel(uint64_t call_id) {
  PostEvent(context_.loop, [this, call_id] {
    End(call_id, absl::CancelledError("the client cancelled the request"));
  });
}

void Gateway::Refuse(uint64_t call_id, const absl::Status& status) {
  context_.metrics.Refused(status);
  End(call_id, status);
}

void Gateway::End(uint64_t call_id, const absl::Status& status) {
  auto node = calls_.extract(call_id);
  if (node.empty()) return;
  const Call& call = node.mapped();
  model_waits_.Forget(call_id);
  for (const uint64_t id : call.samples) runner_.Cancel(id);
  admission_.Leave(call.num_entered);
  call.handlers.on_done(status);
  if (calls_.empty() && on_empty_) std::exchange(on_empty_, nullptr)(num_cut_);
}

void Gateway::Tokenize(TokenizeInput input, std::function<void(absl::StatusOr<Tokens>)> on_done) {
  // Shared: by the posted task and by the answer given when it cannot be posted.
  auto answer = std::make_shared<std::function<void(absl::StatusOr<Tokens>)>>(std::move(on_done));
  const auto encode = [answer](const TokenizeInput& in, const TokenizedModel& model) {
    absl::StatusOr<std::vector<TokenId>> ids = model.tokenizer->Encode(in.text, in.special);
    if (!ids.ok()) return (*answer)(ids.status());
    (*answer)(WithPieces(*std::move(ids), *model.tokenizer));
  };
  if (!context_.loop->Post([this, answer, encode, input = std::move(input)] {
        const auto model = models_.Find(input.model);
        if (!model.ok()) return (*answer)(model.status());
        if (!context_.text_loop.Post([encode, input, model = *model] { encode(input, *model); })) {
          (*answer)(absl::ResourceExhaustedError(kTooManyTexts));
        }
      })) {
    (*answer)(absl::ResourceExhaustedError(kTooManyTexts));
  }
}

void Gateway::Drain(absl::Time deadline, std::function<void(int)> on_empty) {
  PostEvent(context_.loop, [this, deadline, on_empty = std::move(on_empty)]() mutable {
    draining_ = true;
    OnModelsChanged();
    if (calls_.empty()) return on_empty(0);
    on_empty_ = std::move(on_empty);
    context_.loop->PostAt(deadline, [this] {
      num_cut_ = static_cast<int>(calls_.size());
      while (!calls_.empty()) End(calls_.begin()->first, Draining());
    });
  });
}

}  // namespace sauva
