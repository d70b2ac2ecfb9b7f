#pragma once

#include <string>
#include <vector>

namespace sauva {

// Valid inputs of a fuzz target, from which others are made. Each target defines it.
std::vector<std::string> SeedInputs();

}  // namespace sauva
