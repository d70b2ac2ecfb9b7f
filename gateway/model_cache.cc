#include "gateway/model_cache.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "model/parse_spec.h"

namespace sauva {
namespace {

// The head of a pipeline counts its blocks.
double KvUsageOf(const ModelRef& model, const std::vector<PipelineStatus>& pipelines) {
  double blocks = 0;
  double free_blocks = 0;
  for (const PipelineStatus& pipeline : pipelines) {
    if (!pipeline.ready || pipeline.model != model || pipeline.stages.empty()) continue;
    blocks += pipeline.stages[0].report.num_kv_blocks;
    free_blocks += pipeline.stages[0].report.free_kv_blocks;
  }
  return blocks > 0 ? 1 - free_blocks / blocks : 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TokenizedModel>> TokenizeModel(const FetchedModel& fetched) {
  auto model = std::make_unique<TokenizedModel>();
  ModelSpec spec;
  ASSIGN_OR_RETURN(spec, ParseSpec(fetched.files));
  ASSIGN_OR_RETURN(model->tokenizer, MakeTokenizer(fetched.files));
  auto chat_template = MakeChatTemplate(fetched.files);
  model->chat_trouble = chat_template.status();
  if (chat_template.ok()) {
    model->chat_template = *std::move(chat_template);
  } else {
    LogWarning("chat template not usable",
               {{"model", fetched.model.name}, {"reason", chat_template.status().ToString()}});
  }
  model->ref = fetched.model;
  model->max_context = static_cast<uint32_t>(spec.max_context);
  model->vocab_size = spec.vocab_size;
  model->eos_tokens = spec.eos_tokens;
  return model;
}

ModelCache::ModelCache(CoordinatorClient& coordinator, OwnerLoop loop, EventLoop& builder,
                       const Options& options, std::function<void()> on_change)
    : coordinator_(coordinator),
      loop_(std::move(loop)),
      builder_(builder),
      options_(options),
      on_change_(std::move(on_change)),
      trouble_(absl::UnavailableError(
          absl::StrCat("coordinator at ", coordinator.address(), " has not answered yet"))) {}

void ModelCache::Start() { Poll(); }

void ModelCache::RefreshSoon() {
  if (!polling_) Poll();
}

void ModelCache::Poll() {
  polling_ = true;
  ++poll_round_;
  coordinator_.Status(absl::Now() + options_.call_timeout,
                      [this, loop = loop_](absl::StatusOr<ClusterStatus> status) {
                        PostEvent(loop, [this, status = std::move(status)]() mutable {
                          OnStatus(std::move(status));
                        });
                      });
}

void ModelCache::OnStatus(absl::StatusOr<ClusterStatus> status) {
  polling_ = false;
  trouble_ = status.status();
  if (status.ok() == std::exchange(coordinator_lost_, !status.ok())) {
    if (status.ok()) {
      LogInfo("coordinator answers", {{"coordinator", coordinator_.address()}});
    } else {
      LogWarning("no coordinator; streams go on",
                 {{"coordinator", coordinator_.address()}, {"reason", trouble_.ToString()}});
    }
  }
  if (status.ok()) {
    std::map<std::string, Entry> entries;
    for (const ServedModel& served : status->models) {
      const auto known = entries_.find(served.model.name);
      Entry entry = known == entries_.end() ? Entry{} : std::move(known->second);
      entry.served = served;
      entry.kv_usage = KvUsageOf(served.model, status->pipelines);
      entries.emplace(served.model.name, std::move(entry));
    }
    entries_ = std::move(entries);
    for (auto& [name, entry] : entries_) {
      const bool is_current = entry.model != nullptr && entry.model->ref == entry.served.model;
      const bool is_hopeless = entry.unusable == entry.served.model;
      if (!is_current && !is_hopeless) Fetch(name);
    }
  }
  on_change_();
  const absl::Duration pause = AnyReady() ? options_.poll_interval : options_.first_poll_interval;
  loop_->PostAt(absl::Now() + pause, [this, round = poll_round_] {
    if (round == poll_round_ && !polling_) Poll();
  });
}

void ModelCache::Fetch(const std::string& name) {
  Entry& entry = entries_.at(name);
  if (std::exchange(entry.fetching, true)) return;
  coordinator_.GetModelFiles(name, absl::Now() + options_.call_timeout,
                             [this, name, loop = loop_](absl::StatusOr<FetchedModel> fetched) {
                               PostEvent(loop,
                                         [this, name, fetched = std::move(fetched)]() mutable {
                                           OnFetched(name, std::move(fetched));
                                         });
                             });
}

void ModelCache::OnFetched(const std::string& name, absl::StatusOr<FetchedModel> fetched) {
  if (!fetched.ok()) {  // whatever it is, it may be over at the next poll
    return OnBuilt(name, absl::UnavailableError(fetched.status().message()));
  }
  const bool posted = builder_.Post([this, name, fetched = *std::move(fetched)] {
    absl::StatusOr<std::unique_ptr<TokenizedModel>> built = TokenizeModel(fetched);
    PostEvent(loop_, [this, name, built = std::move(built)]() mutable {
      if (!built.ok()) return OnBuilt(name, built.status());
      OnBuilt(name, std::shared_ptr<TokenizedModel>(*std::move(built)));
    });
  });
  if (!posted) OnBuilt(name, absl::UnavailableError("too many prompts wait to be tokenized"));
}

void ModelCache::OnBuilt(const std::string& name,
                         absl::StatusOr<std::shared_ptr<TokenizedModel>> built) {
  const auto found = entries_.find(name);
  if (found == entries_.end()) return;
  Entry& entry = found->second;
  entry.fetching = false;  // tried again after the next poll if need be
  if (!built.ok()) {
    entry.trouble = built.status();
    // What is wrong in the files themselves stays wrong until they change.
    if (!absl::IsUnavailable(built.status())) entry.unusable = entry.served.model;
    LogWarning("model not usable", {{"model", name}, {"reason", built.status().ToString()}});
    return on_change_();
  }
  // The cluster may have been told to serve less than the model could.
  if (entry.served.max_context > 0) (*built)->max_context = entry.served.max_context;
  entry.model = *std::move(built);
  entry.trouble = absl::OkStatus();
  LogInfo("model ready", {{"model", name}, {"digest", entry.model->ref.digest}});
  on_change_();
}

absl::StatusOr<std::shared_ptr<const TokenizedModel>> ModelCache::Find(
    const std::string& name) const {
  if (entries_.empty()) {
    return trouble_.ok() ? absl::UnavailableError(absl::StrCat(
                               "coordinator at ", coordinator_.address(), " serves no model yet"))
                         : absl::UnavailableError(trouble_.message());
  }
  if (name.empty() && entries_.size() > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("model is empty, but several are served: ", ServedNames()));
  }
  const auto found = name.empty() ? entries_.begin() : entries_.find(name);
  if (found == entries_.end()) {
    return absl::NotFoundError(
        absl::StrCat("model ", name, " is not served; served: ", ServedNames()));
  }
  const Entry& entry = found->second;
  if (entry.model != nullptr && entry.model->ref == entry.served.model) return entry.model;
  if (entry.unusable != entry.served.model || entry.trouble.ok() ||
      absl::IsUnavailable(entry.trouble)) {
    return absl::UnavailableError(absl::StrCat("model ", found->first,
                                               " is being fetched from the coordinator at ",
                                               coordinator_.address()));
  }
  return entry.trouble;
}

bool ModelCache::AnyReady() const {
  return std::any_of(entries_.begin(), entries_.end(), [](const auto& item) {
    return item.second.model != nullptr && item.second.served.ready_pipelines > 0;
  });
}

std::vector<std::string> ModelCache::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries_) names.push_back(name);
  return names;
}

std::string ModelCache::ServedNames() const {
  std::string names;
  for (const auto& [name, entry] : entries_)
    absl::StrAppend(&names, names.empty() ? "" : ", ", name);
  return names;
}

}  // namespace sauva
