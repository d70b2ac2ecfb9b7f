#include "cli/chat_command.h"

#include <istream>
#include <ostream>
#include <utility>
#include <vector>

namespace sauva {
namespace {

std::vector<ChatMessage> Beginning(const ChatOptions& options) {
  if (options.system.empty()) return {};
  return {{.role = "system", .content = options.system}};
}

}  // namespace

absl::Status RunChat(const ChatOptions& options, ChatPartner partner, std::istream& in,
                     std::ostream& out, std::ostream& notes) {
  GenerateOptions request = options.request;
  request.messages = Beginning(options);
  const auto ask = [&] {
    if (partner == ChatPartner::kPerson) out << "> " << std::flush;
  };
  ask();
  for (std::string line; std::getline(in, line); ask()) {
    if (line == "/quit") break;
    if (line == "/clear") request.messages = Beginning(options);
    if (line.empty() || line == "/clear") continue;
    request.messages.push_back({.role = "user", .content = line});
    Transcript transcript(1);
    const absl::Status status = GenerateAtGateways(
        request, transcript, [&](const GeneratedPiece& piece) { out << piece.text << std::flush; },
        notes);
    out << std::endl;
    if (status.ok()) {
      request.messages.push_back(
          {.role = "assistant", .content = transcript.samples().front().text});
      continue;
    }
    if (partner == ChatPartner::kScript) return status;
    notes << "[" << status.message() << "]\n";
    request.messages.pop_back();
  }
  return absl::OkStatus();
}

}  // namespace sauva
