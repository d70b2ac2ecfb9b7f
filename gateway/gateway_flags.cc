#include "gateway/gateway_flags.h"

#include "absl/strings/str_cat.h"
#include "base/parse_bytes.h"
#include "base/status_macros.h"
#include "net/tls_flags.h"

namespace sauva {
namespace {

absl::StatusOr<absl::Duration> ParseWait(const std::string& flag, const std::string& text) {
  absl::Duration duration;
  if (absl::ParseDuration(text, &duration) && duration >= absl::ZeroDuration()) return duration;
  return absl::InvalidArgumentError(
      absl::StrCat(flag, " is '", text, "'; expected a duration such as 2s, 500ms or 10m"));
}

absl::StatusOr<size_t> ParseSize(const std::string& flag, const std::string& text) {
  const absl::StatusOr<uint64_t> bytes = ParseBytes(text);
  if (bytes.ok()) return static_cast<size_t>(*bytes);
  return absl::InvalidArgumentError(absl::StrCat(flag, " is ", bytes.status().message()));
}

}  // namespace

GatewayFlags::GatewayFlags(CLI::App& app) {
  app.add_option("--listen", config_.listen, "HOST:PORT for gRPC; port 0 picks a free one")
      ->capture_default_str();
  app.add_option("--coordinator", config_.coordinator, "HOST:PORT of the coordinator")
      ->capture_default_str();
  app.add_option("--http,--metrics", config_.metrics, "HOST:PORT that serves /metrics")
      ->capture_default_str();
  app.add_option("--exact-wait", exact_wait_,
                 "how long a broken stream waits for a pipeline of equal numerics")
      ->capture_default_str();
  app.add_option("--dispatch-wait", dispatch_wait_,
                 "how long a new request waits for a pipeline to be ready")
      ->capture_default_str();
  app.add_option("--max-queue-tokens", config_.gateway.admission.max_queue_tokens,
                 "prompt and completion tokens that may wait for a pipeline")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--max-requests", config_.gateway.admission.max_samples,
                 "samples in the gateway at once; a request with n samples counts n")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--max-unread", max_unread_,
                 "memory of the responses that may wait for one call's client to read")
      ->capture_default_str();
  app.add_option("--max-unread-total", max_unread_total_, "the same for all calls together")
      ->capture_default_str();
  app.add_option("--request-timeout", request_timeout_, "for requests without a deadline")
      ->capture_default_str();
  app.add_option("--slow-request", slow_request_,
                 "log the timeline of requests that take longer, as 30s; inf: none")
      ->capture_default_str();
  app.add_option("--otlp", config_.otlp.collector,
                 "HOST:PORT of a collector that takes OTLP over gRPC: spans go there; empty: none "
                 "are made")
      ->capture_default_str();
  app.add_option("--otlp-ca", config_.otlp.ca,
                 "PEM file: whom to trust as the collector, by TLS; empty: plaintext");
  app.add_option("--drain-timeout", drain_timeout_,
                 "how long running requests may take after SIGTERM")
      ->capture_default_str();
  AddTlsFlags(app, config_.tls);
}

absl::StatusOr<GatewayConfig> GatewayFlags::Config() const {
  GatewayConfig config = config_;
  ASSIGN_OR_RETURN(config.service.max_unread_bytes_of_call, ParseSize("--max-unread", max_unread_));
  ASSIGN_OR_RETURN(config.service.max_unread_bytes,
                   ParseSize("--max-unread-total", max_unread_total_));
  ASSIGN_OR_RETURN(config.gateway.session.exact_wait, ParseWait("--exact-wait", exact_wait_));
  ASSIGN_OR_RETURN(config.gateway.session.dispatch_wait,
                   ParseWait("--dispatch-wait", dispatch_wait_));
  ASSIGN_OR_RETURN(config.gateway.request_timeout,
                   ParseWait("--request-timeout", request_timeout_));
  ASSIGN_OR_RETURN(config.gateway.slow_request, ParseWait("--slow-request", slow_request_));
  ASSIGN_OR_RETURN(config.drain_timeout, ParseWait("--drain-timeout", drain_timeout_));
  return config;
}

}  // namespace sauva
