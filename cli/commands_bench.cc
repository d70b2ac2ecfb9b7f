#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "cli/bench_gateway.h"
#include "cli/bench_model.h"
#include "cli/commands.h"
#include "cli/exit_code.h"
#include "kernels/bench/kernel_bench.h"
#include "net/tls_flags.h"

// `sauva bench`: how fast a gateway answers, a model runs, or the kernels are.
namespace sauva {
namespace {

struct BenchFlags {
  GatewayBenchOptions gateway;
  ModelBenchOptions model;
  std::string weights = "native";
  std::string kv_type = "f16";
  bool kernels = false;
  bool json = false;
};

int BenchGateway(GatewayBenchOptions options, bool json) {
  if (options.request.gateways.empty()) options.request.gateways = {kDefaultGateway};
  if (options.request.sampling.max_tokens == 0) {
    return ReportUsage("--max-tokens must be at least 1");
  }
  const GatewayBenchResult result = RunGatewayBench(options);
  std::cout << (json ? GatewayBenchJson(result) + "\n" : GatewayBenchText(result));
  return result.errors.empty() ? kExitDone : kExitFailed;
}

int BenchModel(BenchFlags flags) {
  const auto format = ParseLoadFormat(flags.weights);
  if (!format.ok()) return Report(format.status());
  flags.model.weight_format = *format;
  const auto kv_type = ParseKvType(flags.kv_type);
  if (!kv_type.ok()) return Report(kv_type.status());
  flags.model.kv_type = *kv_type;
  const auto result = RunModelBench(flags.model, [&](const ModelBenchResult& so_far) {
    if (!flags.json) std::cout << ModelBenchNews(so_far) << std::endl;
  });
  if (!result.ok()) return Report(result.status());
  if (flags.json) std::cout << ModelBenchJson(*result) << "\n";
  return kExitDone;
}

std::string KernelText(const KernelBenchLine& line) {
  const double seconds = line.measurement.median_seconds();
  const double operations = line.work.int8_operations + line.work.float_operations;
  return absl::StrFormat(
      "%-9s %-19s %-13s %3d tokens %8.2f GB/s %8.1f GOP/s  %5.1f %% of %-4s (%.1f-%.1f)",
      line.kernel, line.format, line.shape, line.tokens, line.work.bytes / seconds / 1e9,
      operations / seconds / 1e9, 100 * line.measurement.median_share(), line.measurement.limit,
      100 * line.measurement.shares.front(), 100 * line.measurement.shares.back());
}

std::string KernelJson(const KernelBenchLine& line) {
  const double seconds = line.measurement.median_seconds();
  const Limits& limits = line.measurement.limits;
  const nlohmann::ordered_json json = {
      {"kernel", line.kernel},
      {"format", line.format},
      {"shape", line.shape},
      {"tokens", line.tokens},
      {"bytes_per_second", line.work.bytes / seconds},
      {"operations_per_second", (line.work.int8_operations + line.work.float_operations) / seconds},
      {"limit", line.measurement.limit},
      {"share", line.measurement.median_share()},
      {"share_range", {line.measurement.shares.front(), line.measurement.shares.back()}},
      {"read_bytes_per_second", limits.read_bytes_per_second},
      {"int8_operations_per_second", limits.int8_operations_per_second},
      {"float_operations_per_second", limits.float_operations_per_second}};
  return json.dump();
}

int BenchKernels(const BenchFlags& flags) {
  return Report(RunKernelBench({.threads = flags.model.threads,
                                .device = flags.model.device,
                                .arithmetic = flags.model.arithmetic,
                                .repeats = flags.model.repeats},
                               [&](const KernelBenchLine& line) {
                                 std::cout << (flags.json ? KernelJson(line) : KernelText(line))
                                           << std::endl;
                               }));
}

int Bench(const BenchFlags& flags) {
  if (flags.kernels) return BenchKernels(flags);
  if (!flags.model.model.empty()) return BenchModel(flags);
  return BenchGateway(flags.gateway, flags.json);
}

void AddGatewayFlags(CLI::App& bench, GatewayBenchOptions& options) {
  bench.add_option("--gateway", options.request.gateways, "host:port; repeat to share the load")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  bench.add_option("--requests", options.requests, "requests in all")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  bench.add_option("--concurrency", options.concurrency, "requests at once")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  bench.add_option("--rate", options.rate, "requests started a second; 0: as others end")
      ->check(CLI::NonNegativeNumber);
  bench.add_option("--prompt-words", options.prompt_words, "random words of a prompt")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  options.request.sampling.max_tokens = 64;
  options.request.sampling.temperature = 0;
  options.request.sampling.ignore_eos = true;
  bench.add_option("--max-tokens", options.request.sampling.max_tokens, "of each completion")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  bench.add_option("--temperature", options.request.sampling.temperature, "0: the likeliest token");
  bench.add_option("--seed", options.seed, "of the prompts' words");
  AddTlsFlags(bench, options.request.tls);
}

void AddModelFlags(CLI::App& bench, BenchFlags& flags) {
  ModelBenchOptions& model = flags.model;
  bench.add_option("--model", model.model, "measure this model's directory, in this process");
  bench.add_flag("--random-weights", model.random_weights,
                 "the directory has a config.json alone; weights are random, of f16");
  bench.add_option("--weights", flags.weights, "format of the weights in memory")
      ->check(CLI::IsMember(LoadFormatNames()))
      ->capture_default_str();
  bench.add_option("--kv-type", flags.kv_type, "type of cached keys and values")
      ->capture_default_str();
  bench.add_option("--device", model.device, "cpu, cpu:scalar, …, or cuda:N")
      ->capture_default_str();
  bench.add_flag_callback(
      "--deterministic", [&model] { model.arithmetic = CudaArithmetic::kDeterministic; },
      kDeterministicHelp);
  bench.add_option("--stages", model.stages, "stages, one after the other")
      ->check(CLI::PositiveNumber);
  bench.add_option("--prompt", model.prompt_tokens, "tokens of a prefill; 0: none")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  bench.add_option("--rows", model.rows, "sequences decoded together, one number or several")
      ->check(CLI::PositiveNumber)
      ->delimiter(',')
      ->capture_default_str();
  bench.add_option("--decode-steps", model.decode_steps, "steps of one repetition")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  bench.add_option("--depth", model.depth, "tokens before the decoded ones")
      ->check(CLI::NonNegativeNumber);
  bench.add_option("--threads", model.threads, "0: all cores")->check(CLI::Range(0, 1024));
  bench.add_option("--repeats", model.repeats, "repetitions of each measurement")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

}  // namespace

void AddBench(CLI::App& app, ChosenCommand& chosen) {
  // Shared by CLI11's callbacks, which outlive this function.
  const auto flags = std::make_shared<BenchFlags>();
  CLI::App* bench = app.add_subcommand(
      "bench", "speed of a gateway under load, of a model (--model) or of the kernels (--kernels)");
  AddGatewayFlags(*bench, flags->gateway);
  AddModelFlags(*bench, *flags);
  bench->add_flag("--kernels", flags->kernels, "measure the cpu kernels, in this process");
  bench->add_flag("--json", flags->json, "print JSON, one object a line");
  bench->callback([flags, &chosen] { chosen.run = [flags] { return Bench(*flags); }; });
}

}  // namespace sauva
