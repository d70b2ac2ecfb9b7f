#pragma once

#include <string>

#include "proto/control.h"

namespace sauva {

// A cluster for people: per pipeline a table of stages, then the spare workers and what
// keeps a pipeline from being placed. Ends with a newline.
std::string StatusTable(const ClusterStatus& status);

// The same as one line of JSON, whose form docs/command_line.md promises.
std::string StatusJson(const ClusterStatus& status);

}  // namespace sauva
