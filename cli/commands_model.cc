#include <filesystem>
#include <iostream>
#include <memory>

#include "absl/strings/str_join.h"
#include "base/parse_bytes.h"
#include "base/status_macros.h"
#include "cli/commands.h"
#include "cli/exit_code.h"
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

}  // namespace sauva
