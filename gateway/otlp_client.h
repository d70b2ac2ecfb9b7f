#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gateway/span.h"

namespace sauva {

struct OtlpOptions {
  std::string collector;      // host:port that speaks OTLP over gRPC; empty: no spans are made
  std::string ca;             // PEM file, to speak TLS; empty: plaintext
  size_t max_waiting = 4096;  // spans; more are dropped
  size_t max_batch = 512;     // spans of one call
  absl::Duration timeout = absl::Seconds(5);  // of one call
};

// Sends spans to a collector, one call at a time. Never waits for it: spans that it does not
// take, or that find too many others waiting, are dropped and counted.
// Thread: any.
class OtlpClient {
 public:
  // Called with numbers of spans, on any thread, until the client is gone.
  struct Counters {
    std::function<void(size_t)> on_sent;
    std::function<void(size_t)> on_dropped;
  };

  // `instance` tells this process from others of its kind. Errors: as MakeChannelCredentials.
  static absl::StatusOr<std::unique_ptr<OtlpClient>> Create(const OtlpOptions& options,
                                                            const std::string& instance,
                                                            Counters counters);
  // What still waits is dropped and counted.
  ~OtlpClient();

  void Offer(std::vector<Span> spans);

  // Waits until nothing waits any more, at most until `deadline`. Returns whether that is so.
  bool Flush(absl::Time deadline);

 private:
  struct State;
  explicit OtlpClient(std::shared_ptr<State> state);
  const std::shared_ptr<State> state_;  // shared with the call under way
};

}  // namespace sauva
