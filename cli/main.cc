#include <CLI/CLI.hpp>

#include "base/build_id.h"
#include "cli/commands.h"
#include "cli/exit_code.h"

int main(int argc, char** argv) {
  CLI::App app("Serves large language models cut over many small workers.", "sauva");
  app.set_version_flag("--version", sauva::BuildId());
  app.require_subcommand(1);
  sauva::ChosenCommand chosen;
  sauva::AddUp(app, chosen);
  sauva::AddGenerate(app, chosen);
  sauva::AddStatus(app, chosen);
  sauva::AddChat(app, chosen);
  sauva::AddTokenize(app, chosen);
  sauva::AddInspect(app, chosen);
  sauva::AddQuantize(app, chosen);
  sauva::AddEval(app, chosen);
  sauva::AddBench(app, chosen);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? sauva::kExitDone : sauva::kExitUsage;
  }
  return chosen.run();
}
