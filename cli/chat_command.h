#pragma once

#include <iosfwd>
#include <string>

#include "absl/status/status.h"
#include "cli/generate_command.h"

namespace sauva {

struct ChatOptions {
  GenerateOptions request;  // without prompt and messages; one sample
  std::string system;       // words that go before the conversation; empty: none
};

// Whom a chat talks with: a person at a terminal is shown where to write and stays in the
// conversation when an answer fails; a script is not, and does not.
enum class ChatPartner { kPerson, kScript };

// Runs `sauva chat`: each line of `in` is what the user says; the answer is streamed to
// `out`, and both stay in the conversation. A line "/clear" forgets the conversation but
// for the system's words, "/quit" or the end of `in` ends it.
// Errors: the gateway's status for a script; OK once a person has ended the conversation.
absl::Status RunChat(const ChatOptions& options, ChatPartner partner, std::istream& in,
                     std::ostream& out, std::ostream& notes);

}  // namespace sauva
