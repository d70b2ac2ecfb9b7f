#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/local_pipeline.h"
#include "kernels/backend.h"
#include "kernels/factory.h"
#include "model/model.h"

namespace sauva {

// Opens a model or ends the test program, since nothing can be tested without it.
Model OpenOrDie(const std::string& directory);

LocalPipeline::BackendFactory ReferenceFactory();
LocalPipeline::BackendFactory CpuFactory(int threads, InstructionSet isa);

// A sequence as LocalPipeline takes it: greedy, max_tokens new tokens, eos does not end it.
NewSequence Continue(std::vector<TokenId> prompt, int max_tokens);

// Distinct texts of token ids in [0, vocab_size), equal for equal seeds.
std::vector<TokenId> RandomTokens(int count, int vocab_size, uint64_t seed);

// A backend that computes with another one and keeps the logits that were sampled from.
// `log` outlives it and may be shared by the stages of a pipeline.
std::unique_ptr<Backend> RecordLogits(std::unique_ptr<Backend> backend,
                                      std::vector<std::vector<float>>& log);

// Tensors of a safetensors fixture with element types f32 and i64, without our reader.
struct FixtureTensor {
  std::vector<int64_t> shape;
  std::vector<float> values;      // F32
  std::vector<int64_t> integers;  // I64
};
std::map<std::string, FixtureTensor> ReadFixture(const std::string& path);

std::string GoldenPath(const std::string& name);  // below tests/golden

}  // namespace sauva
