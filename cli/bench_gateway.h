#pragma once

#include <map>
#include <string>
#include <vector>

#include "cli/generation_client.h"

namespace sauva {

// A load put on gateways.
struct GatewayBenchOptions {
  GenerateOptions request;  // gateways, model, sampling and TLS; prompts are made
  int requests = 32;
  int concurrency = 4;     // at most so many at once
  double rate = 0;         // requests started a second, at even distances; 0: as soon as others end
  int prompt_words = 128;  // random words, other ones for each request
  uint64_t seed = 1;       // of the words
};

// What one request met.
struct RequestTrace {
  absl::Status status;
  double first_token_ms = 0;
  std::vector<double> token_gaps_ms;  // between the messages after the first
  double total_ms = 0;
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
};

struct Percentiles {
  double p50 = 0, p90 = 0, p99 = 0, most = 0;
};
// Of the values by nearest rank; zeros when there are none.
Percentiles PercentilesOf(std::vector<double> values);

struct GatewayBenchResult {
  double seconds = 0;
  int completed = 0;
  std::map<std::string, int> errors;  // by status code
  int64_t prompt_tokens = 0;          // of completed requests
  int64_t completion_tokens = 0;
  Percentiles first_token_ms;
  Percentiles token_gap_ms;
  Percentiles total_ms;
};

GatewayBenchResult Summarize(const std::vector<RequestTrace>& traces, double seconds);

// Sends the requests and waits for the last to end; a failed one is counted, not repeated.
GatewayBenchResult RunGatewayBench(const GatewayBenchOptions& options);

std::string GatewayBenchText(const GatewayBenchResult& result);
std::string GatewayBenchJson(const GatewayBenchResult& result);

}  // namespace sauva
