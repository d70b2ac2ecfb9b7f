#include <sys/resource.h>

#include <iostream>
#include <memory>

#include "absl/strings/str_format.h"
#include "base/parse_bytes.h"
#include "cli/commands.h"
#include "cli/exit_code.h"
#include "quantize/quantize_model.h"

namespace sauva {
namespace {

struct QuantizeFlags {
  QuantizeOptions options;
  std::string method;
  std::string memory = "2GiB";
  bool asymmetric = false;
};

void PrintLayer(const LayerDone& done) {
  std::cerr << absl::StrFormat("layer %d of %d: ", done.layer + 1, done.num_layers);
  if (done.resumed) {
    std::cerr << "found done";
  } else {
    std::cerr << absl::StrFormat("%.1f s, %.0f s left", done.seconds, done.seconds_left);
  }
  std::cerr << (done.note.empty() ? "" : "; ") << done.note << std::endl;
}

// What larger models of these widths would cost: 32 layers are a model of 7 billion weights.
void PrintCost(double seconds_per_layer) {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  constexpr double kKiBPerGiB = 1 << 20;
  std::cerr << absl::StrFormat("%.1f s a layer, %.0f s for 32 of them; at most %.2f GiB in memory",
                               seconds_per_layer, 32 * seconds_per_layer,
                               static_cast<double>(usage.ru_maxrss) / kKiBPerGiB)
            << std::endl;
}

int Quantize(QuantizeFlags flags) {
  const auto method = ParseMethod(flags.method);
  if (!method.ok()) return ReportUsage(std::string(method.status().message()));
  flags.options.method = *method;
  flags.options.symmetric = !flags.asymmetric;
  const auto memory = ParseBytes(flags.memory);
  if (!memory.ok()) return ReportUsage(std::string(memory.status().message()));
  flags.options.memory_bytes = static_cast<int64_t>(*memory);
  const absl::Status valid = ValidateOptions(flags.options);
  if (!valid.ok()) return ReportUsage(std::string(valid.message()));
  double seconds = 0;
  int made = 0;
  const absl::Status status = QuantizeModel(flags.options, [&](const LayerDone& done) {
    PrintLayer(done);
    seconds += done.resumed ? 0 : done.seconds;
    made += done.resumed ? 0 : 1;
  });
  if (status.ok()) std::cerr << flags.options.out << " is written and was read back" << std::endl;
  if (status.ok() && made > 0) PrintCost(seconds / made);
  return Report(status);
}

}  // namespace

void AddQuantize(CLI::App& app, ChosenCommand& chosen) {
  // Shared by CLI11's callbacks, which outlive this function.
  const auto flags = std::make_shared<QuantizeFlags>();
  QuantizeOptions& options = flags->options;
  CLI::App* quantize = app.add_subcommand("quantize", "compress a model, layer by layer");
  quantize->add_option("--model", options.model, "a directory with f32, f16 or bf16 weights")
      ->required();
  quantize->add_option("--out", options.out, "the directory to write")->required();
  quantize->add_option("--method", flags->method, "int8, int8-static, llm-int8, nf4, awq or gptq")
      ->required();
  quantize->add_option("--bits", options.bits, "gptq: 3 or 4")->capture_default_str();
  quantize->add_option("--group-size", options.group_size, "awq and gptq: 32, 64 or 128")
      ->capture_default_str();
  quantize->add_flag("--act-order", options.act_order, "gptq: the most active columns first");
  quantize->add_flag("--asymmetric", flags->asymmetric, "gptq: zero points of each group");
  quantize->add_option("--damping", options.damping, "gptq: share of the mean diagonal")
      ->capture_default_str();
  quantize->add_option("--calibration", options.calibration,
                       "a text, or .jsonl with \"text\" in each line");
  quantize->add_option("--samples", options.samples, "of calibration")->capture_default_str();
  quantize->add_option("--sample-tokens", options.sample_tokens, "tokens of a sample")
      ->capture_default_str();
  quantize
      ->add_option("--percentile", options.percentile,
                   "int8-static: of activations that a scale covers; 100: all")
      ->capture_default_str();
  quantize->add_option("--memory", flags->memory, "calibration activations beyond it go to disk")
      ->capture_default_str();
  quantize->add_option("--threads", options.threads, "0: all cores")->check(CLI::Range(0, 1024));
  quantize->callback([flags, &chosen] { chosen.run = [flags] { return Quantize(*flags); }; });
}

}  // namespace sauva
