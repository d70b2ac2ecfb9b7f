#pragma once

#include <string_view>

namespace sauva {

// From now on a crash (broken invariant, bad memory access, …) writes the program's name,
// build id, signal and stack to standard error before it ends the process as it would have.
// Handlers that somebody else has set, such as a sanitizer's, stay. Once, at the start.
void ReportCrashes(std::string_view role);

}  // namespace sauva
