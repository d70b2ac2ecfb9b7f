#include "cli/bench_gateway.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"

namespace sauva {
namespace {

double MillisecondsSince(absl::Time start) {
  return absl::ToDoubleMilliseconds(absl::Now() - start);
}

std::string RandomWords(int words, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string text;
  for (int i = 0; i < words; ++i) {
    if (i > 0) text += ' ';
    const uint64_t length = 2 + random() % 6;
    for (uint64_t letter = 0; letter < length; ++letter) {
      text += static_cast<char>('a' + random() % 26);
    }
  }
  return text;
}

// Times count from `start`, when the request was due: waiting for a free client is waiting too.
RequestTrace RunOne(const GatewayBenchOptions& options, int index, absl::Time start) {
  GenerateOptions request = options.request;
  request.prompt =
      RandomWords(options.prompt_words, options.seed + (static_cast<uint64_t>(index) << 20));
  const std::string& gateway =
      request.gateways[static_cast<size_t>(index) % request.gateways.size()];
  RequestTrace trace;
  Transcript transcript(request.sampling.n);
  double last_ms = 0;
  trace.status = GenerateOnce(request, gateway, transcript, [&](const GeneratedPiece& piece) {
    transcript.Add(piece, absl::Now() - start);
    if (piece.tokens.empty()) return;
    const double now_ms = MillisecondsSince(start);
    if (last_ms == 0) {
      trace.first_token_ms = now_ms;
    } else {
      trace.token_gaps_ms.push_back(now_ms - last_ms);
    }
    last_ms = now_ms;
  });
  trace.total_ms = MillisecondsSince(start);
  if (trace.status.ok() && !transcript.complete()) {
    trace.status = absl::DataLossError("the stream ended before every sample was finished");
  }
  for (const TranscriptSample& sample : transcript.samples()) {
    trace.prompt_tokens = sample.prompt_tokens;
    trace.completion_tokens += static_cast<int64_t>(sample.tokens.size());
  }
  return trace;
}

nlohmann::ordered_json ToJson(const Percentiles& percentiles) {
  return {{"p50", percentiles.p50},
          {"p90", percentiles.p90},
          {"p99", percentiles.p99},
          {"max", percentiles.most}};
}

std::string Line(const std::string& name, const Percentiles& ms) {
  return absl::StrFormat("%-20s p50 %9.1f ms   p90 %9.1f   p99 %9.1f   max %9.1f\n", name, ms.p50,
                         ms.p90, ms.p99, ms.most);
}

}  // namespace

Percentiles PercentilesOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    const double rank = std::ceil(share * static_cast<double>(values.size()));
    return values[static_cast<size_t>(std::max(1.0, rank)) - 1];
  };
  return {.p50 = at(0.5), .p90 = at(0.9), .p99 = at(0.99), .most = values.back()};
}

GatewayBenchResult Summarize(const std::vector<RequestTrace>& traces, double seconds) {
  GatewayBenchResult result{.seconds = seconds};
  std::vector<double> first, gaps, totals;
  for (const RequestTrace& trace : traces) {
    if (!trace.status.ok()) {
      ++result.errors[absl::StatusCodeToString(trace.status.code())];
      continue;
    }
    ++result.completed;
    result.prompt_tokens += trace.prompt_tokens;
    result.completion_tokens += trace.completion_tokens;
    first.push_back(trace.first_token_ms);
    totals.push_back(trace.total_ms);
    gaps.insert(gaps.end(), trace.token_gaps_ms.begin(), trace.token_gaps_ms.end());
  }
  result.first_token_ms = PercentilesOf(std::move(first));
  result.token_gap_ms = PercentilesOf(std::move(gaps));
  result.total_ms = PercentilesOf(std::move(totals));
  return result;
}

GatewayBenchResult RunGatewayBench(const GatewayBenchOptions& options) {
  std::vector<RequestTrace> traces(static_cast<size_t>(options.requests));
  std::atomic<int> next{0};
  const absl::Time start = absl::Now();
  std::vector<std::thread> clients;
  for (int i = 0; i < std::min(options.concurrency, options.requests); ++i) {
    clients.emplace_back([&] {
      for (int index = next++; index < options.requests; index = next++) {
        absl::Time due = absl::Now();
        if (options.rate > 0) {
          due = start + absl::Seconds(index / options.rate);
          absl::SleepFor(due - absl::Now());
        }
        traces[static_cast<size_t>(index)] = RunOne(options, index, due);
      }
    });
  }
  for (std::thread& client : clients) client.join();
  return Summarize(traces, absl::ToDoubleSeconds(absl::Now() - start));
}

std::string GatewayBenchText(const GatewayBenchResult& result) {
  std::string text = absl::StrFormat(
      "%d requests completed in %.2f s: %d prompt tokens, %d tokens, %.2f tokens/s, "
      "%.2f with prompts\n",
      result.completed, result.seconds, result.prompt_tokens, result.completion_tokens,
      static_cast<double>(result.completion_tokens) / result.seconds,
      static_cast<double>(result.completion_tokens + result.prompt_tokens) / result.seconds);
  absl::StrAppend(&text, Line("first token", result.first_token_ms),
                  Line("between tokens", result.token_gap_ms),
                  Line("whole request", result.total_ms));
  for (const auto& [code, count] : result.errors) {
    absl::StrAppend(&text, count, " failed with ", code, "\n");
  }
  return text;
}

std::string GatewayBenchJson(const GatewayBenchResult& result) {
  const nlohmann::ordered_json json = {
      {"seconds", result.seconds},
      {"completed", result.completed},
      {"errors", result.errors},
      {"prompt_tokens", result.prompt_tokens},
      {"completion_tokens", result.completion_tokens},
      {"tokens_per_second", static_cast<double>(result.completion_tokens) / result.seconds},
      {"first_token_ms", ToJson(result.first_token_ms)},
      {"token_gap_ms", ToJson(result.token_gap_ms)},
      {"total_ms", ToJson(result.total_ms)}};
  return json.dump();
}

}  // namespace sauva
