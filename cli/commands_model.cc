#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <memory>

#include "absl/strings/str_format.h"
#include "base/parse_bytes.h"
#include "base/status_macros.h"
#include "cli/commands.h"
#include "cli/eval_command.h"
#include "cli/exit_code.h"
#include "engine/formats.h"
#include "model/mapped_file.h"
#include "model/model.h"
#include "model/safetensors_header.h"

// The subcommands that look at a model without a cluster.
namespace sauva {
namespace {

absl::Status InspectDirectory(const std::string& path, bool json) {
  ASSIGN_OR_RETURN(const Model model, OpenModel(path));
  std::cout << (json ? DescribeJson(model).dump() + "\n" : Describe(model));
  return absl::OkStatus();
}

absl::Status InspectFile(const std::string& path, bool json) {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  ASSIGN_OR_RETURN(const SafetensorsHeader header, ParseSafetensorsHeader(path, file.bytes()));
  nlohmann::json tensors = nlohmann::json::array();
  for (const SafetensorsEntry& entry : header.entries) {
    const uint64_t bytes = entry.end - entry.begin;
    tensors.push_back(
        {{"name", entry.name}, {"dtype", entry.dtype}, {"shape", entry.shape}, {"bytes", bytes}});
    if (!json) {
      std::cout << entry.name << "  " << entry.dtype << "  " << ShapeText(entry.shape) << "  "
                << FormatBytes(bytes) << "\n";
    }
  }
  if (json) std::cout << nlohmann::json{{"tensors", tensors}}.dump() << "\n";
  return absl::OkStatus();
}

struct EvalFlags {
  EvalOptions options;
  std::string weights = "native";
  std::string kv_type = "f32";
  bool json = false;
};

int Eval(EvalFlags flags) {
  const auto format = ParseLoadFormat(flags.weights);
  if (!format.ok()) return Report(format.status());
  flags.options.weight_format = *format;
  const auto kv_type = ParseKvType(flags.kv_type);
  if (!kv_type.ok()) return Report(kv_type.status());
  flags.options.kv_type = *kv_type;
  std::function<void(int64_t, int64_t)> progress;
  if (isatty(STDERR_FILENO)) {
    progress = [](int64_t done, int64_t all) {
      std::cerr << "\r" << done << " of " << all << " tokens" << (done == all ? "\n" : "");
    };
  }
  const auto measured = RunEval(flags.options, progress);
  if (!measured.ok()) return Report(measured.status());
  if (measured->calibration && measured->calibration->in_text > 0) {
    std::cerr << absl::StrFormat(
        "warning: %d of the %d windows kept of the text that %s was calibrated on are in %s\n",
        measured->calibration->in_text, measured->calibration->windows, flags.options.model,
        flags.options.text);
  }
  if (flags.json) {
    std::cout << EvaluationJson(*measured) << "\n";
    return kExitDone;
  }
  const Perplexity& perplexity = measured->perplexity;
  std::cout << absl::StrFormat(
      "perplexity %.4f +- %.4f, %.4f bits per byte, %d tokens, %.1f tokens/s\n",
      perplexity.perplexity, perplexity.standard_error, perplexity.bits_per_byte,
      perplexity.num_tokens, perplexity.tokens_per_second);
  if (measured->divergence) {
    const Divergence& divergence = *measured->divergence;
    std::cout << absl::StrFormat(
        "reference perplexity %.4f, KL %.6f +- %.6f nats a token, top-1 agreement %.4f\n",
        divergence.reference_perplexity, divergence.kl, divergence.kl_standard_error,
        divergence.top1_agreement);
  }
  return kExitDone;
}

}  // namespace

void AddInspect(CLI::App& app, ChosenCommand& chosen) {
  struct Options {
    std::string path;
    bool json = false;
  };
  // Shared by CLI11's callbacks, which outlive this function.
  const auto options = std::make_shared<Options>();
  CLI::App* inspect = app.add_subcommand("inspect", "a model's spec, tensors and bytes");
  inspect->add_option("path", options->path, "a model's directory or a safetensors file")
      ->required();
  inspect->add_flag("--json", options->json, "print one line of JSON");
  inspect->callback([options, &chosen] {
    chosen.run = [options] {
      std::error_code error;
      const bool is_file = std::filesystem::is_regular_file(options->path, error);
      return Report(is_file ? InspectFile(options->path, options->json)
                            : InspectDirectory(options->path, options->json));
    };
  });
}

void AddEval(CLI::App& app, ChosenCommand& chosen) {
  // Shared by CLI11's callbacks, which outlive this function.
  const auto flags = std::make_shared<EvalFlags>();
  EvalOptions& options = flags->options;
  CLI::App* eval = app.add_subcommand("eval", "perplexity of a text, without a cluster");
  eval->add_option("--model", options.model, "the model's directory")->required();
  eval->add_option("--text", options.text, "a UTF-8 file")->required();
  eval->add_option("--context", options.context, "tokens of a window; 0: the model's context")
      ->check(CLI::NonNegativeNumber);
  eval->add_option("--stride", options.stride, "tokens between windows; 0: half the context")
      ->check(CLI::NonNegativeNumber);
  eval->add_option("--threads", options.threads, "0: all cores")->check(CLI::Range(0, 1024));
  eval->add_option("--device", options.device, "cpu, cpu:scalar, …, or cuda:N")
      ->capture_default_str();
  eval->add_flag_callback(
      "--deterministic", [&options] { options.arithmetic = CudaArithmetic::kDeterministic; },
      kDeterministicHelp);
  eval->add_option("--weights", flags->weights, "format of the weights in memory")
      ->check(CLI::IsMember(LoadFormatNames()))
      ->capture_default_str();
  eval->add_option("--kv-type", flags->kv_type, "type of cached keys and values")
      ->check(CLI::IsMember(KvTypeNames()))
      ->capture_default_str();
  eval->add_option("--reference", options.reference, "a model's directory to compare with");
  eval->add_option("--logits", options.logits, "write the first window's logits to this file");
  eval->add_option("--max-tokens", options.max_tokens, "of the text's beginning; 0: all")
      ->check(CLI::NonNegativeNumber);
  eval->add_flag("--json", flags->json, "print one line of JSON");
  eval->callback([flags, &chosen] { chosen.run = [flags] { return Eval(*flags); }; });
}

}  // namespace sauva
