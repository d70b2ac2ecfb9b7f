#pragma once

#include <string>

namespace sauva {

// Version and commit of this build, as in "0.1.0+1a2b3c4".
std::string BuildId();

}  // namespace sauva
