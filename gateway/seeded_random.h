#pragma once

#include <random>

namespace sauva {

// Random numbers that differ from process to process; no secrets.
inline std::mt19937_64 SeededByTheSystem() {
  std::random_device device;
  std::seed_seq seed{device(), device(), device(), device()};
  return std::mt19937_64(seed);
}

}  // namespace sauva
