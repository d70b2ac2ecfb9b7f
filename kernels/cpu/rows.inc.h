#pragma once

#include <cstdint>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/lane_math.inc.h"
#include "kernels/cpu/storage.inc.h"
#include "kernels/numerics.h"

// What is done to one row of activations: norm, rope, activation, addition, expansion.
namespace sauva {
namespace {

// Calls f(i, n) for each run of lanes in [0, columns), n = 16 but for the last.
template <class F>
inline void ForEachLanes(int64_t columns, F f) {
  int64_t i = 0;
  for (; i + kLanes <= columns; i += kLanes) f(i, int64_t{kLanes});
  if (i < columns) f(i, columns - i);
}

template <class L>
inline L LoadLanes(const float* p, int64_t n) {
  return n == kLanes ? L::Load(p) : L::LoadPartial(p, n);
}

template <class L>
inline void StoreLanes(L x, float* p, int64_t n) {
  if (n == kLanes) {
    x.Store(p);
  } else {
    x.StorePartial(p, n);
  }
}

template <class L>
inline float MeanOf(const NormRow& row) {
  L sum = L::Zero();
  ForEachLanes(row.columns,
               [&](int64_t i, int64_t n) { sum = L::Add(sum, LoadLanes<L>(row.x + i, n)); });
  return L::Sum(sum) / static_cast<float>(row.columns);
}

template <class L>
void NormKernel(const NormRow& row) {
  const bool centered = row.subtract_mean;
  const L mean = L::Set(centered ? MeanOf<L>(row) : 0.0f);
  L squares = L::Zero();
  ForEachLanes(row.columns, [&](int64_t i, int64_t n) {
    L x = LoadLanes<L>(row.x + i, n);
    if (centered) x = L::Range(L::Subtract(x, mean), 0, static_cast<int>(n), 0.0f);
    squares = L::Fma(x, x, squares);
  });
  const float mean_square = L::Sum(squares) / static_cast<float>(row.columns);
  const L inverse = L::Set(1.0f / __builtin_sqrtf(mean_square + row.epsilon));
  ForEachLanes(row.columns, [&](int64_t i, int64_t n) {
    L x = LoadLanes<L>(row.x + i, n);
    if (centered) x = L::Subtract(x, mean);
    const L unit = L::Multiply(x, inverse);
    const L gain = LoadLanes<L>(row.gain + i, n);
    const L result =
        row.bias ? L::Fma(unit, gain, LoadLanes<L>(row.bias + i, n)) : L::Multiply(unit, gain);
    StoreLanes<L>(result, row.out + i, n);
  });
}

// Turns the pairs (first, second) by the angles; pairs are independent.
template <class L>
inline void Turn(L& first, L& second, L cos, L sin) {
  const L turned = L::Fma(first, cos, Negate<L>(L::Multiply(second, sin)));
  second = L::Fma(second, cos, L::Multiply(first, sin));
  first = turned;
}

template <class L>
void RopeHalvesKernel(const RopeHead& head) {
  ForEachLanes(head.pairs, [&](int64_t i, int64_t n) {
    L first = LoadLanes<L>(head.x + i, n);
    L second = LoadLanes<L>(head.x + head.pairs + i, n);
    Turn<L>(first, second, LoadLanes<L>(head.cos + i, n), LoadLanes<L>(head.sin + i, n));
    StoreLanes<L>(first, head.x + i, n);
    StoreLanes<L>(second, head.x + head.pairs + i, n);
  });
}

template <class L>
void RopeInterleavedKernel(const RopeHead& head) {
  float first[kLanes], second[kLanes];
  ForEachLanes(head.pairs, [&](int64_t i, int64_t n) {
    for (int64_t j = 0; j < n; ++j) {
      first[j] = head.x[2 * (i + j)];
      second[j] = head.x[2 * (i + j) + 1];
    }
    L a = L::LoadPartial(first, n);
    L b = L::LoadPartial(second, n);
    Turn<L>(a, b, LoadLanes<L>(head.cos + i, n), LoadLanes<L>(head.sin + i, n));
    a.Store(first);
    b.Store(second);
    for (int64_t j = 0; j < n; ++j) {
      head.x[2 * (i + j)] = first[j];
      head.x[2 * (i + j) + 1] = second[j];
    }
  });
}

template <class L, class G>
void ActivateKernel(const float* gate, const float* up, int64_t n, float* out) {
  ForEachLanes(n, [&](int64_t i, int64_t count) {
    L x = G::template Apply<L>(LoadLanes<L>(gate + i, count));
    if (up) x = L::Multiply(x, LoadLanes<L>(up + i, count));
    StoreLanes<L>(x, out + i, count);
  });
}

template <class L>
void WeighKernel(const float* logits, float highest, float temperature, int64_t count,
                 float* weights) {
  ForEachLanes(count, [&](int64_t i, int64_t n) {
    const L below = L::Subtract(LoadLanes<L>(logits + i, n), L::Set(highest));
    StoreLanes<L>(ExpLanes<L>(L::Divide(below, L::Set(temperature))), weights + i, n);
  });
}

template <class L>
void AddKernel(float* x, const float* y, int64_t n) {
  ForEachLanes(n, [&](int64_t i, int64_t count) {
    StoreLanes<L>(L::Add(LoadLanes<L>(x + i, count), LoadLanes<L>(y + i, count)), x + i, count);
  });
}

template <class L, class S>
void ExpandKernel(const void* row, float scale, int64_t n, float* out) {
  const auto* elements = static_cast<const typename S::Element*>(row);
  ForEachLanes(n, [&](int64_t i, int64_t count) {
    StoreLanes<L>(L::Multiply(S::Load(elements + i), L::Set(scale)), out + i, count);
  });
}

}  // namespace
}  // namespace sauva
