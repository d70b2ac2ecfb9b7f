#pragma once

#include <cstdint>

#include "kernels/numerics.h"

// What this machine can do at most, measured with the same instructions as the kernels.
namespace sauva {
namespace {

template <class L>
uint64_t ReadAllKernel(const void* data, int64_t bytes) {
  const auto* words = static_cast<const uint64_t*>(data);
  constexpr int kStreams = 4;
  const int64_t part = bytes / int64_t{sizeof(uint64_t)} / kStreams;
  uint64_t sum[kStreams][8] = {};
  for (int64_t i = 0; i + 8 <= part; i += 8) {
#pragma GCC unroll 4
    for (int s = 0; s < kStreams; ++s) {
      const uint64_t* at = words + s * part + i;
      __builtin_prefetch(at + 128);
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) sum[s][j] += at[j];
    }
  }
  uint64_t total = 0;
  for (int s = 0; s < kStreams; ++s) {
    for (int j = 0; j < 8; ++j) total += sum[s][j];
  }
  return total;
}

// Sums that do not wait for one another: more than latency times units, and no more than
// there are registers. kRateChains of them are computed for each iteration.
constexpr int kRateChains = 12;

template <class L>
float MultiplyAddKernel(int64_t iterations) {
  constexpr int kChains = L::kPeakChains;
  L sum[kChains];
  for (int i = 0; i < kChains; ++i) sum[i] = L::Set(static_cast<float>(i));
  const L factor = L::Set(0.75f);
  const L addend = L::Set(0.5f);
  for (int64_t n = 0; n < iterations * (kRateChains / kChains); ++n) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sum[i] = L::Fma(sum[i], factor, addend);
  }
  L total = L::Zero();
  for (int i = 0; i < kChains; ++i) total = L::Add(total, sum[i]);
  return L::Sum(total);
}

template <class L, class D>
float DotQuadsKernel(int64_t iterations) {
  constexpr int kChains = L::kPeakChains;
  typename D::Integers sum[kChains];
  for (int i = 0; i < kChains; ++i) sum[i] = D::SetInteger(i);
  const typename D::Integers bytes = D::SetInteger(0x01030507);
  for (int64_t n = 0; n < iterations * (kRateChains / kChains); ++n) {
    // The sums are the codes too, so that no product is the same twice.
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sum[i] = D::DotQuads(sum[i], bytes, sum[i]);
  }
  L total = L::Zero();
  for (int i = 0; i < kChains; ++i) total = L::Add(total, L::ToFloat(sum[i]));
  return L::Sum(total);
}

}  // namespace
}  // namespace sauva
