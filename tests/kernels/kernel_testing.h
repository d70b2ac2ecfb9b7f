#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/backend.h"

// Random inputs and steps for tests of backends.
namespace sauva::testing {

// A backend under test and how to make it.
struct Candidate {
  std::string name;
  std::function<std::unique_ptr<Backend>()> make;
};

// What a test program tests. In tests/kernels: the cpu backend with every instruction set
// this CPU runs (AVX-512 with and without VNNI) on 1, 2 and 3 threads. In tests/cuda: the
// CUDA backend on the emulator.
std::vector<Candidate> Candidates();

// Rows with memory of their own; the stride is wider than the row, and odd.
class Matrix {
 public:
  Matrix(int rows, int columns);
  Rows rows() { return {values_.data(), rows_, columns_, stride_}; }
  float& at(int row, int column) { return values_[row * stride_ + column]; }
  int num_rows() const { return rows_; }
  int num_columns() const { return columns_; }

 private:
  int rows_, columns_, stride_;
  std::vector<float> values_;
};

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  float Normal();
  int Below(int n) { return static_cast<int>(engine_() % static_cast<uint32_t>(n)); }
  std::vector<float> Vector(int n);
  Matrix Rows(int rows, int columns);

 private:
  std::mt19937 engine_;
};

// A matrix as a checkpoint stores it, at an odd address.
class StoredMatrix {
 public:
  StoredMatrix(const std::vector<float>& values, int rows, int columns, DType dtype);
  WeightSource source() const;
  // The value of an element once stored.
  float at(int row, int column) const;

 private:
  int rows_, columns_;
  DType dtype_;
  std::vector<std::byte> bytes_;
};

// A step of sequences, each with tokens at consecutive positions and blocks in one KV group.
class Step {
 public:
  struct Sequence {
    int first_position = 0;
    int tokens = 0;
    std::vector<int32_t> blocks;
  };
  Step(std::vector<Sequence> sequences, const StepLimits& limits);
  StepTable table() const;
  int num_tokens() const { return static_cast<int>(positions_.size()); }
  std::vector<int32_t>& token_ids() { return token_ids_; }
  std::vector<int32_t>& sampled_rows() { return sampled_rows_; }

 private:
  std::vector<int32_t> token_ids_, positions_, sequence_rows_, first_tokens_, sampled_rows_;
  std::vector<int32_t> block_table_;
};

StepLimits TestLimits();

// Fails the test at the first element whose bits differ; any NaN equals any other.
void ExpectSameBits(Matrix& expected, Matrix& actual, const std::string& what);

}  // namespace sauva::testing
