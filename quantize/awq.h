#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/quantized_matrix.h"

namespace sauva {

// What the matrices that read one input know of it.
class AwqInputs {
 public:
  explicit AwqInputs(int64_t columns) : columns_(columns), sums_(static_cast<size_t>(columns)) {}

  // Adds tokens, `stride` floats apart; of every `keep_every`-th the row itself is kept.
  struct Tokens {
    const float* data = nullptr;
    int64_t rows = 0;
    int64_t stride = 0;
    int64_t keep_every = 1;
  };
  void Add(const Tokens& tokens);

  int64_t columns() const { return columns_; }
  int64_t num_kept() const { return static_cast<int64_t>(kept_.size()) / columns_; }
  // Mean |x| of each column.
  std::vector<float> Means() const;
  // Divides column i by scales[i], as the weights that read it are multiplied.
  void Divide(std::span<const float> scales);
  const std::vector<float>& kept() const { return kept_; }  // [num_kept, columns]

 private:
  int64_t columns_;
  int64_t tokens_ = 0;
  std::vector<double> sums_;
  std::vector<float> kept_;
};

// A matrix [rows, columns] of numbers, changed in place.
struct AwqMatrix {
  std::string name;
  int64_t rows = 0;
  std::vector<float> weights;
};

struct AwqOptions {
  int64_t group_size = 128;
  int threads = 0;
};

// The factor of each input column that, multiplied into the weights before rounding and
// divided out after, leaves the outputs over the kept tokens nearest to what they were: the
// best of s = mean|x|^r / mean|w|^(1 - r), r = 0, 1/20, … 19/20, normalised. Factors of 1
// when none is better.
// Source: Lin et al. 2023; AutoAWQ, quantize/quantizer.py, _search_best_scale, duo_scaling.
std::vector<float> SearchScales(const AwqInputs& inputs, std::span<const AwqMatrix* const> matrices,
                                const AwqOptions& options);

// Cuts off the numbers of each group where that brings its share of the outputs nearer to
// what it was: to 1, 19/20, … 11/20 of its largest.
// Source: AutoAWQ, quantize/quantizer.py, _compute_best_clip.
void ClipGroups(const AwqInputs& inputs, AwqMatrix& matrix, const AwqOptions& options);

// 4 bits with zero points, scales of f16. The numbers are finite.
QuantizedMatrix RoundAwq(const AwqMatrix& matrix, const AwqOptions& options);

}  // namespace sauva
