#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/event_loop.h"
#include "gateway/coordinator_client.h"
#include "gateway/post_event.h"
#include "gateway/validation.h"
#include "proto/control.h"

namespace sauva {

// Makes what the gateway needs of a model from its files.
// Errors: INVALID_ARGUMENT or NOT_FOUND naming file and key.
absl::StatusOr<std::unique_ptr<TokenizedModel>> TokenizeModel(const FetchedModel& fetched);

// The models the cluster serves, as the coordinator tells: asks it again and again, and
// fetches the files of a model whose digest is new. Answers from memory; while the
// coordinator is away, what was known last stands.
// Thread: the loop it is given; tokenizers are built on `builder`, another one.
class ModelCache {
 public:
  struct Options {
    absl::Duration poll_interval = absl::Seconds(1);
    absl::Duration first_poll_interval = absl::Milliseconds(100);  // until a model is ready
    absl::Duration call_timeout = absl::Seconds(10);
  };

  // The others must outlive this object, and both loops be stopped before it goes.
  // on_change: after each answer of the coordinator, and when a model is ready for use.
  ModelCache(CoordinatorClient& coordinator, OwnerLoop loop, EventLoop& builder,
             const Options& options, std::function<void()> on_change);

  // Begins to ask. Once, on the loop.
  void Start();

  // The model of that name, or the only one when it is empty. Sessions share it: it stays
  // while they run, though the cluster may serve a newer one by then.
  // Errors: UNAVAILABLE when asking again later may help (the message says what is
  // missing); NOT_FOUND and INVALID_ARGUMENT naming the models that are served.
  absl::StatusOr<std::shared_ptr<const TokenizedModel>> Find(const std::string& name) const;

  // True when some model is ready for use and a pipeline serves it.
  bool AnyReady() const;

  // What the cluster serves, ready or not.
  std::vector<std::string> Names() const;
  // Share of KV blocks in use over the ready pipelines of a model that Names has, 0 to 1.
  double KvUsage(const std::string& name) const { return entries_.at(name).kv_usage; }

  // Asks the coordinator now rather than at the next turn.
  void RefreshSoon();

 private:
  struct Entry {
    ServedModel served;
    double kv_usage = 0;
    std::shared_ptr<const TokenizedModel> model;  // null until built
    absl::Status trouble;                         // why it is not built
    ModelRef unusable;                            // whose files will never do
    bool fetching = false;
  };
  void Poll();
  void OnStatus(absl::StatusOr<ClusterStatus> status);
  void Fetch(const std::string& name);
  void OnFetched(const std::string& name, absl::StatusOr<FetchedModel> fetched);
  void OnBuilt(const std::string& name, absl::StatusOr<std::shared_ptr<TokenizedModel>> built);
  std::string ServedNames() const;

  CoordinatorClient& coordinator_;
  const OwnerLoop loop_;
  EventLoop& builder_;
  const Options options_;
  const std::function<void()> on_change_;
  std::map<std::string, Entry> entries_;
  absl::Status trouble_;           // of the last question; OK: answered
  bool coordinator_lost_ = false;  // the last question was not answered, and a line told so
  bool polling_ = false;
  uint64_t poll_round_ = 0;  // timers of earlier rounds do nothing
};

}  // namespace sauva
