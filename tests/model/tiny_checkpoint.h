#pragma once

#include <cstdint>
#include <string>

#include "kernels/dtype.h"

namespace sauva {

// Shape of a random Llama for tests.
struct TinyCheckpoint {
  int hidden_size = 32;
  int intermediate_size = 48;
  int num_layers = 2;
  int num_heads = 4;
  int num_kv_heads = 2;
  int head_dim = 8;
  int vocab_size = 260;  // at least 257: the bytes and "<s>"
  int max_context = 128;
  bool tied_head = true;
  bool attention_bias = false;
  DType dtype = DType::kF32;  // kF32, kF16 or kBF16
  int num_shards = 1;         // above 1: an index and that many files
  uint64_t seed = 1;          // equal seeds give equal files
};

// Writes config.json, tokenizer.json and safetensors files of a random Llama into a new
// directory called `name` and returns its path; it is removed when the process ends. The tokenizer
// is byte-level BPE without merges: a byte is one token, numbered in GPT-2's order of bytes;
// "<s>" is 256 and goes in front; "</s>" is 257 and ends a text where vocab_size has it.
// Weights are uniform, scaled so that activations stay near 1.
std::string WriteTinyCheckpoint(const std::string& name, const TinyCheckpoint& shape);

void WriteFile(const std::string& path, const std::string& content);
std::string ReadFile(const std::string& path);

// A safetensors file of this header and these tensor bytes.
std::string SafetensorsBytes(const std::string& header, const std::string& data);

}  // namespace sauva
