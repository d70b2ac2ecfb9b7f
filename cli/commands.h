#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "absl/status/status.h"

namespace sauva {

// What the chosen subcommand does, once flags are read. Each Add function registers its
// subcommand and sets `run` when it is chosen.
struct ChosenCommand {
  std::function<int()> run;  // returns an ExitCode
};

void AddUp(CLI::App& app, ChosenCommand& chosen);
void AddGenerate(CLI::App& app, ChosenCommand& chosen);
void AddStatus(CLI::App& app, ChosenCommand& chosen);
void AddChat(CLI::App& app, ChosenCommand& chosen);
void AddTokenize(CLI::App& app, ChosenCommand& chosen);
void AddInspect(CLI::App& app, ChosenCommand& chosen);
void AddEval(CLI::App& app, ChosenCommand& chosen);
void AddBench(CLI::App& app, ChosenCommand& chosen);
void AddQuantize(CLI::App& app, ChosenCommand& chosen);

// Prints a failed command's message; its exit code.
int Report(const absl::Status& status);
// Prints what is wrong with the flags; its exit code.
int ReportUsage(const std::string& message);

inline constexpr char kDefaultGateway[] = "127.0.0.1:7070";
inline constexpr char kDefaultCoordinator[] = "127.0.0.1:7071";

}  // namespace sauva
