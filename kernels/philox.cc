#include "kernels/philox.h"

#include "kernels/sampling.h"

namespace sauva {
namespace {

struct Product {
  uint32_t high, low;
};

Product Multiply(uint32_t a, uint32_t b) {
  const uint64_t product = uint64_t{a} * b;
  return {static_cast<uint32_t>(product >> 32), static_cast<uint32_t>(product)};
}

}  // namespace

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  constexpr int kRounds = 10;
  for (int round = 0; round < kRounds; ++round) {
    const Product first = Multiply(0xd2511f53u, counter[0]);
    const Product second = Multiply(0xcd9e8d57u, counter[2]);
    counter = {second.high ^ counter[1] ^ key[0], second.low, first.high ^ counter[3] ^ key[1],
               first.low};
    key[0] += 0x9e3779b9u;  // the golden ratio
    key[1] += 0xbb67ae85u;  // sqrt(3) - 1
  }
  return counter;
}

float PhiloxUniform(uint64_t seed, uint32_t sample_index, uint64_t position) {
  const std::array<uint32_t, 4> bits = Philox4x32(
      {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), sample_index, 0},
      {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return static_cast<float>(bits[0] >> 8) * 0x1p-24f;
}

}  // namespace sauva
